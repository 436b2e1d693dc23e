//! What a kubelet asks of a runtime beyond running: memory that runs out, figures, logs that rotate, host
//! namespaces, privileges, devices.

use containerd_tests::api::{
    ContainerConfig, Device, DnsConfig, Mount, SandboxConfig, SandboxSecurity, SecurityProfile,
    container_state, namespace_mode, seccomp_profile,
};
use containerd_tests::daemon::{Daemon, OURS, eventually};
use containerd_tests::pod::{self, Pod, container, security};
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);
const SERVE: &[&str] = &["/bin/sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 1000 & wait; done"];

fn with_memory(name: &str, script: &str, bytes: i64) -> ContainerConfig {
    let mut config = container(name, &["/bin/sh", "-c", script]);
    let linux = config.linux.get_or_insert_default();
    linux.resources.get_or_insert_default().memory_limit_in_bytes = bytes;
    config
}

#[test]
fn memory_that_runs_out() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "memory"), OURS);
    let neighbour = pod.start(&with_memory("neighbour", "echo up; exec sleep 1000", 32 << 20));
    for attempt in 0..2 {
        let mut hog =
            with_memory("hog", "sleep 1 && dd if=/dev/zero of=/dev/null bs=20M count=1000", 15 << 20);
        hog.metadata.get_or_insert_default().attempt = attempt;
        let hog = pod.start(&hog);
        let ended = pod.ended(&hog);
        assert_eq!(ended.exit_code, 137);
        let told = || (cri.container_status(&hog).ok()?.reason == "OOMKilled").then_some(());
        assert!(eventually(LIMIT, told).is_some(), "{:?}", cri.container_status(&hog));
        cri.remove(&hog).expect("RemoveContainer");
    }
    // A process that is not the container's first.
    let script = "for i in 1 2 3 4 5 6 7 8 9; do dd if=/dev/zero of=/dev/null bs=40M count=1000; done
        dd if=/dev/zero of=/dev/null bs=40M count=1000; echo \"status $?\"; exec sleep 1000";
    let partly = pod.start(&with_memory("partly", script, 24 << 20));
    pod.logged("partly", "status 137");
    assert_eq!(cri.container_status(&partly).expect("ContainerStatus").state, container_state::RUNNING);
    assert_eq!(pod.sh(&partly, "grep 'oom_kill ' /sys/fs/cgroup/memory.events"), "oom_kill 10\n");
    // Files in memory count as well, where they are and nowhere else.
    let script =
        "mount -t tmpfs t /tmp; dd if=/dev/zero of=/tmp/x bs=1M count=100; echo end; exec sleep 1000";
    let mut files = with_memory("files", script, 24 << 20);
    let caps = security(&mut files).capabilities.get_or_insert_default();
    caps.add_capabilities = vec!["SYS_ADMIN".to_owned()];
    let files = pod.start(&files);
    let outcome = || {
        let status = cri.container_status(&files).ok()?;
        let full = pod.log("files");
        let log = fs::read_to_string(full).unwrap_or_default();
        (status.state == container_state::EXITED || log.contains("end")).then_some((status, log))
    };
    let (status, log) = eventually(LIMIT, outcome).expect("it ends one way or another");
    assert!(status.exit_code == 137 || !log.contains("100+0 records out"), "{status:?} {log}");
    assert_eq!(pod.sh(&neighbour, "grep 'oom_kill ' /sys/fs/cgroup/memory.events"), "oom_kill 0\n");
    assert_eq!(cri.container_status(&neighbour).expect("ContainerStatus").state, container_state::RUNNING);
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn figures_are_each_containers_own() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "own"), OURS);
    // One touches its memory itself, the other has the kernel fill it.
    let grown = "x=$(head -c 40000000 /dev/zero | tr '\\0' a); echo up; while :; do sleep 1000; done";
    let grown = pod.start(&container("grown", &["/bin/sh", "-c", grown]));
    pod.logged("grown", "up");
    let small = pod.start(&container("small", SERVE));
    pod.logged("small", "up");
    let memory = |id: &str| {
        let stats = cri.container_stats(id).expect("ContainerStats");
        stats.memory.and_then(|memory| memory.working_set_bytes).map_or(0, |value| value.value)
    };
    let apart = || (memory(&grown) > 36_000_000 && memory(&small) < 16_000_000).then_some(());
    assert!(
        eventually(LIMIT, apart).is_some(),
        "40 MB and next to nothing: {} and {}",
        memory(&grown),
        memory(&small)
    );
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn logs_rotate() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "logs"), OURS);
    let script = "i=0; while :; do echo line $i; i=$((i+1)); sleep 0.05; done";
    let talker = pod.start(&container("talker", &["/bin/sh", "-c", script]));
    pod.logged("talker", "line 3");
    let (log, old) = (pod.log("talker"), pod.log("talker").with_extension("old"));
    fs::rename(&log, &old).expect("the log is moved");
    cri.reopen_log(&talker).expect("ReopenContainerLog");
    let next = pod.logged("talker", "line ");
    let number = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse::<u32>().ok());
    let before = fs::read_to_string(&old).expect("the old log");
    let last = before.lines().last().and_then(number).expect("a line");
    assert_eq!(next.lines().next().and_then(number), Some(last + 1), "{before}\n--\n{next}");
    pod.remove();
    daemon.expect_nothing_left();
}

/// Changes the namespaces of a pod.
fn namespaces(config: &mut SandboxConfig) -> &mut containerd_tests::api::NamespaceOption {
    let linux = config.linux.get_or_insert_default();
    linux.security_context.get_or_insert_default().namespace_options.get_or_insert_default()
}

#[test]
fn the_hosts_network() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let mut config = pod::config(&daemon, "hostnet");
    namespaces(&mut config).network = namespace_mode::NODE;
    // The kubelet names none: the pod has the host's.
    config.hostname.clear();
    let pod = Pod::run(&cri, config, OURS);
    let mut config = container("client", SERVE);
    security(&mut config).namespace_options.get_or_insert_default().network = namespace_mode::NODE;
    let client = pod.start(&config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the host");
    let port = listener.local_addr().expect("an address").port();
    let greeting = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the pod");
        stream.write_all(b"welcome\n").expect("a greeting");
        listener
    });
    let seen = pod.sh(&client, &format!("grep -c :{port:04X} /proc/net/tcp"));
    assert_eq!(seen, "1\n");
    assert_eq!(pod.sh(&client, &format!("nc 127.0.0.1 {port} </dev/null")), "welcome\n");
    drop(greeting.join());
    let links = fs::read_dir("/sys/class/net").expect("interfaces").count();
    assert_eq!(pod.sh(&client, "ip -o link | wc -l").trim(), links.to_string());
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn a_container_that_looks_at_another() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "debug"), OURS);
    let app = pod.start(&container("app", &["/bin/sleep", "4711"]));
    let other = pod.start(&container("other", SERVE));
    let mut config = container("debugger", SERVE);
    let options = security(&mut config).namespace_options.get_or_insert_default();
    (options.pid, options.target_id) = (namespace_mode::TARGET, app.clone());
    let debugger = pod.start(&config);
    assert_eq!(pod.sh(&debugger, "tr '\\0' ' ' < /proc/1/cmdline"), "/bin/sleep 4711 ");
    // Its root is reached through its processes, and another container is not seen.
    assert_eq!(
        pod.sh(&debugger, "ls /proc/1/root/bin/busybox; ps | grep -c 'echo [u]p'"),
        "/proc/1/root/bin/busybox\n1\n"
    );
    cri.stop(&debugger, 5).expect("StopContainer");
    assert_eq!(pod.ended(&debugger).exit_code, 0);
    for id in [&app, &other] {
        assert_eq!(cri.container_status(id).expect("ContainerStatus").state, container_state::RUNNING);
    }
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn names_settings_and_privileges() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let mut config = pod::config(&daemon, "privileged");
    config.dns_config = Some(DnsConfig {
        servers: vec!["10.10.10.10".to_owned()],
        searches: vec!["google.com".to_owned()],
        options: vec!["ndots:8".to_owned()],
    });
    let linux = config.linux.get_or_insert_default();
    let sysctls = [("kernel.shm_rmid_forced", "1"), ("net.ipv4.ip_local_port_range", "1024 65000")];
    linux.sysctls = sysctls.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let context: &mut SandboxSecurity = linux.security_context.get_or_insert_default();
    context.privileged = true;
    let pod = Pod::run(&cri, config, OURS);
    let plain = pod.start(&container("plain", SERVE));
    assert_eq!(
        pod.sh(&plain, "cat /etc/resolv.conf"),
        "search google.com\nnameserver 10.10.10.10\noptions ndots:8\n"
    );
    assert_eq!(pod.sh(&plain, "cat /proc/sys/kernel/shm_rmid_forced"), "1\n");
    assert_eq!(pod.sh(&plain, "cat /proc/sys/net/ipv4/ip_local_port_range"), "1024\t65000\n");
    assert!(
        cri.exec_sync(&plain, &["mount", "-t", "tmpfs", "t", "/tmp"], 5).expect("ExecSync").exit_code != 0
    );
    let mut config = container("mighty", SERVE);
    let context = security(&mut config);
    context.privileged = true;
    context.masked_paths.clear();
    context.readonly_paths.clear();
    let mighty = pod.start(&config);
    let script = "mount -t tmpfs t /tmp && touch /tmp/x && ls /tmp; grep ^CapEff /proc/self/status | cut -f2; echo mine > /proc/sys/kernel/hostname; hostname; grep Seccomp: /proc/self/status | cut -f2";
    let told = pod.sh(&mighty, script);
    let lines: Vec<&str> = told.lines().collect();
    assert!(matches!(lines.as_slice(), ["x", caps, "mine", "0"] if *caps > "000001ff00000000"), "{told}");
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn profiles_of_the_node() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "profiles"), OURS);
    let profile = daemon.dir().join("profile.json");
    let rules = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["chmod", "fchmod", "fchmodat"], "action": "SCMP_ACT_ERRNO" }],
    });
    fs::write(&profile, rules.to_string()).expect("a profile");
    let with = |name: &str, profile_type: i32, localhost_ref: String| {
        let mut config = container(name, SERVE);
        security(&mut config).seccomp = Some(SecurityProfile { profile_type, localhost_ref });
        pod.start(&config)
    };
    let local = with("local", seccomp_profile::LOCALHOST, profile.display().to_string());
    let refused = cri.exec_sync(&local, &["chmod", "700", "/etc/hosts"], 5).expect("ExecSync");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not permitted"), "{refused:?}");
    let free = with("free", seccomp_profile::UNCONFINED, String::new());
    assert_eq!(pod.sh(&free, "chmod 700 /etc/hosts; grep Seccomp: /proc/self/status | cut -f2"), "0\n");
    let usual = with("usual", seccomp_profile::RUNTIME_DEFAULT, String::new());
    assert_eq!(pod.sh(&usual, "chmod 700 /etc/hosts; grep Seccomp: /proc/self/status | cut -f2"), "2\n");
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn volumes_behind_links_and_devices() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "links"), OURS);
    let (real, link) = (daemon.dir().join("real"), daemon.dir().join("link"));
    fs::create_dir_all(&real).expect("a folder");
    fs::write(real.join("file"), "through a link\n").expect("a file");
    std::os::unix::fs::symlink(&real, &link).expect("a link");
    let volume = |from: &std::path::Path, to: &str| Mount {
        container_path: to.to_owned(),
        host_path: from.display().to_string(),
        ..Mount::default()
    };
    let mut config = container("reader", SERVE);
    // The second is not there: the runtime service makes it.
    config.mounts = vec![
        volume(&link, "/volume"),
        volume(&daemon.dir().join("fresh"), "/fresh"),
        volume(&real.join("file"), "/etc/one-file"),
    ];
    config.devices = vec![Device {
        container_path: "/dev/nothing".to_owned(),
        host_path: "/dev/null".to_owned(),
        permissions: "rwm".to_owned(),
    }];
    let reader = pod.start(&config);
    assert_eq!(pod.sh(&reader, "cat /volume/file /etc/one-file"), "through a link\nthrough a link\n");
    assert_eq!(
        pod.sh(
            &reader,
            "echo x > /fresh/y; cat /fresh/y; test -c /dev/nothing && echo x > /dev/nothing; cat /dev/nothing"
        ),
        "x\n"
    );
    assert!(daemon.dir().join("fresh/y").exists());
    pod.remove();
    daemon.expect_nothing_left();
}
