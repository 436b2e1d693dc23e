//! Pods under containerd's CRI plugin with the stock runc.v2 shim, as the kubelet drives them.

use containerd_tests::api::{
    AttachRequest, Capability, ExecRequest, Int64Value, Mount, PortMapping, Resources, SecurityProfile,
    container_state, namespace_mode, sandbox_state,
};
use containerd_tests::daemon::{Daemon, OURS, eventually};
use containerd_tests::pod::{self, Pod, container, security};
use containerd_tests::stream::{self, Stream};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs until it is told to end, and then ends at once.
const SERVE: &[&str] = &["/bin/sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 1000 & wait; done"];

#[test]
fn a_pod_of_three_containers() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "three"), OURS);
    let (status, info) = cri.pod_status(&pod.id).expect("PodSandboxStatus");
    assert_eq!(status.state, sandbox_state::READY, "{info}");
    let server = pod.start(&container(
        "server",
        &["/bin/sh", "-c", "echo up; while :; do echo answer | nc -l -p 8080 >/dev/null; done"],
    ));
    pod.logged("server", "up");
    let client = pod.start(&container("client", SERVE));
    let third = pod.start(&container("third", SERVE));
    // The loopback interface is the pod's.
    let asked =
        "for i in 1 2 3 4 5 6 7 8 9; do nc 127.0.0.1 8080 </dev/null && exit; sleep 0.2; done; exit 1";
    assert_eq!(pod.sh(&client, asked), "answer\n");
    // The host name is the pod's, the process ids are the container's own.
    assert_eq!(
        pod.sh(&third, "hostname; cat /proc/1/cmdline | tr '\\0' ' ' | cut -c1-7"),
        "three\n/bin/sh\n"
    );
    assert_eq!(pod.sh(&third, "ls /bin/busybox; touch /only-here; ls /only-here").lines().count(), 2);
    assert!(cri.exec_sync(&client, &["ls", "/only-here"], 5).expect("ExecSync").exit_code != 0);
    let failed =
        cri.exec_sync(&client, &["/bin/sh", "-c", "echo out; echo err >&2; exit 5"], 5).expect("ExecSync");
    assert_eq!(
        (failed.stdout.as_slice(), failed.stderr.as_slice(), failed.exit_code),
        (&b"out\n"[..], &b"err\n"[..], 5)
    );
    let missing = cri.exec_sync(&client, &["no-such-program"], 5).expect_err("no such program");
    assert!(missing.message().contains("executable file not found"), "{missing:?}");
    let begun = Instant::now();
    let slow = cri.exec_sync(&client, &["sleep", "100"], 1).expect_err("a timeout");
    assert!(begun.elapsed() < Duration::from_secs(10) && slow.message().contains("exceeded"), "{slow:?}");
    for id in [&server, &client, &third] {
        assert_eq!(cri.container_status(id).expect("ContainerStatus").state, container_state::RUNNING);
    }
    let log = pod.logged("client", "up");
    let words: Vec<&str> = log.lines().next().unwrap_or_default().split(' ').collect();
    assert!(matches!(words.as_slice(), [_, "stdout", "F", "up"]), "{log}");
    cri.stop(&third, 10).expect("StopContainer");
    assert_eq!(pod.ended(&third).exit_code, 0);
    cri.remove(&third).expect("RemoveContainer");
    cri.stop(&server, 0).expect("StopContainer");
    assert_eq!(pod.ended(&server).exit_code, 137);
    pod.remove();
    assert_eq!(cri.containers().expect("ListContainers").containers, []);
    daemon.expect_nothing_left();
}

#[test]
fn stats_and_update() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "figures"), OURS);
    let busy = pod.start(&container("busy", &["/bin/sh", "-c", "while :; do :; done"]));
    let used = eventually(LIMIT, || {
        let stats = cri.container_stats(&busy).expect("ContainerStats");
        let cpu = stats.cpu?.usage_core_nano_seconds?.value;
        let memory = stats.memory?.working_set_bytes?.value;
        (cpu > 0 && memory > 0).then_some((cpu, memory))
    });
    assert!(used.is_some(), "a busy container uses nothing: {:?}", cri.container_stats(&busy));
    let stats = cri.pod_stats(&pod.id).expect("PodSandboxStats").linux.expect("linux");
    let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).map_or(0, |value| value.value);
    assert!(cpu > 0 && stats.memory.is_some() && stats.containers.len() == 1, "{:?}", stats.containers);
    let limits = Resources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        memory_limit_in_bytes: 256 << 20,
        cpuset_cpus: "0".to_owned(),
        ..Resources::default()
    };
    cri.update(&busy, limits).expect("UpdateContainerResources");
    assert_eq!(pod.sh(&busy, "nproc; cat /sys/fs/cgroup/cpuset.cpus.effective"), "1\n0\n");
    assert_eq!(pod.sh(&busy, "cat /sys/fs/cgroup/memory.max"), format!("{}\n", 256 << 20));
    assert_eq!(pod.sh(&busy, "cat /sys/fs/cgroup/cpu.max"), "50000 100000\n");
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn streams() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "streams"), OURS);
    let mut echo =
        container("echo", &["/bin/sh", "-c", "echo ready; while read line; do echo \"got $line\"; done"]);
    echo.stdin = true;
    let echo = pod.start(&echo);
    let ask = |cmd: &str, tty: bool| {
        let cmd = ["/bin/sh", "-c", cmd].map(str::to_owned).to_vec();
        ExecRequest { container_id: echo.clone(), cmd, tty, stdin: true, stdout: true, stderr: !tty }
    };
    let url = cri.exec(ask("read a; echo \"<$a>\"; echo bad >&2; exit 3", false)).expect("Exec");
    let mut exec = Stream::open(&url);
    exec.send(stream::STDIN, b"typed\n");
    let status = exec.finish();
    assert_eq!(
        (exec.text(stream::STDOUT).as_str(), exec.text(stream::STDERR).as_str()),
        ("<typed>\n", "bad\n")
    );
    assert_eq!(status.pointer("/details/causes/0/message"), Some(&serde_json::json!("3")), "{status}");
    let url = cri
        .exec(ask(
            "seq 1 100000; tty; until [ \"$(stty size)\" = '37 91' ]; do sleep 0.05; done; echo resized",
            true,
        ))
        .expect("Exec");
    let mut exec = Stream::open(&url);
    exec.expect(stream::STDOUT, "/dev/pts/");
    assert!(exec.text(stream::STDOUT).contains("99999\r\n100000\r\n"), "lines are missing");
    exec.send(stream::RESIZE, br#"{"Width":91,"Height":37}"#);
    exec.expect(stream::STDOUT, "resized");
    assert_eq!(exec.finish().get("status"), Some(&serde_json::json!("Success")));
    let attach =
        AttachRequest { container_id: echo.clone(), stdin: true, tty: false, stdout: true, stderr: true };
    let mut attached = Stream::open(&cri.attach(attach).expect("Attach"));
    attached.send(stream::STDIN, b"hello\n");
    attached.expect(stream::STDOUT, "got hello\n");
    pod.logged("echo", "got hello");
    drop(attached);
    let mut shell = container("shell", &["/bin/sh"]);
    (shell.stdin, shell.tty) = (true, true);
    let shell = pod.start(&shell);
    let attach =
        AttachRequest { container_id: shell.clone(), stdin: true, tty: true, stdout: true, stderr: false };
    let mut attached = Stream::open(&cri.attach(attach).expect("Attach"));
    attached.send(stream::STDIN, b"tty; echo $((6 * 7))\n");
    attached.expect(stream::STDOUT, "/dev/pts/");
    attached.expect(stream::STDOUT, "42");
    attached.send(stream::STDIN, b"exit 6\n");
    assert_eq!(pod.ended(&shell).exit_code, 6);
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn volumes_are_coherent() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "volumes"), OURS);
    let (disk, memory) = (daemon.dir().join("disk"), daemon.dir().join("memory"));
    fs::create_dir_all(&disk).expect("a folder");
    fs::create_dir_all(&memory).expect("a folder");
    let mut mount = std::process::Command::new("mount");
    assert!(mount_ok(mount.args(["-t", "tmpfs", "-o", "size=16m", "emptydir"]).arg(&memory)), "tmpfs");
    fs::write(disk.join("host"), "from the host\n").expect("a file");
    let volume = |from: &std::path::Path, to: &str, readonly: bool| Mount {
        container_path: to.to_owned(),
        host_path: from.display().to_string(),
        readonly,
        propagation: 0,
    };
    let mut config = container("writer", SERVE);
    config.mounts = vec![volume(&disk, "/disk", false), volume(&memory, "/memory", false)];
    let writer = pod.start(&config);
    let mut config = container("reader", SERVE);
    config.mounts = vec![volume(&disk, "/disk", true), volume(&memory, "/memory", false)];
    let reader = pod.start(&config);
    for place in ["/disk", "/memory"] {
        pod.sh(
            &writer,
            &format!("echo one > {place}/a; mkdir {place}/d; echo two > {place}/d/b; ln {place}/a {place}/c"),
        );
        assert_eq!(pod.sh(&reader, &format!("cat {place}/a {place}/c {place}/d/b")), "one\none\ntwo\n");
        pod.sh(&writer, &format!("echo more >> {place}/a; mv {place}/d/b {place}/moved; rm {place}/c"));
        assert_eq!(
            pod.sh(&reader, &format!("cat {place}/a {place}/moved; ls {place}/d")),
            "one\nmore\ntwo\n"
        );
    }
    assert_eq!(pod.sh(&writer, "cat /disk/host"), "from the host\n");
    let refused = cri.exec_sync(&reader, &["touch", "/disk/no"], 5).expect("ExecSync");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Read-only file system"), "{refused:?}");
    // What the host does is seen, and the host sees what is done.
    fs::write(disk.join("later"), "later\n").expect("a file");
    fs::remove_file(disk.join("host")).expect("the file goes");
    assert_eq!(pod.sh(&reader, "cat /disk/later; ls /disk/host 2>/dev/null || echo gone"), "later\ngone\n");
    assert_eq!(fs::read_to_string(disk.join("a")).expect("the guest's file"), "one\nmore\n");
    assert_eq!(fs::read_to_string(memory.join("moved")).expect("the guest's file"), "two\n");
    // Shared memory of the pod.
    pod.sh(&writer, "echo shared > /dev/shm/x");
    assert_eq!(pod.sh(&reader, "cat /dev/shm/x"), "shared\n");
    pod.remove();
    assert!(mount_ok(std::process::Command::new("umount").arg(&memory)), "umount");
    daemon.expect_nothing_left();
}

fn mount_ok(command: &mut std::process::Command) -> bool {
    command.status().expect("mount starts").success()
}

#[test]
fn security_contexts() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "security"), OURS);
    let mut config = container("bound", SERVE);
    let context = security(&mut config);
    context.run_as_user = Some(Int64Value { value: 1000 });
    context.run_as_group = Some(Int64Value { value: 2000 });
    context.supplemental_groups = vec![3000];
    context.readonly_rootfs = true;
    context.no_new_privs = true;
    context.seccomp = Some(SecurityProfile::default());
    context.capabilities = Some(Capability {
        add_capabilities: vec!["NET_BIND_SERVICE".to_owned()],
        drop_capabilities: vec!["ALL".to_owned()],
    });
    let bound = pod.start(&config);
    assert_eq!(pod.sh(&bound, "id -u; id -g; id -G"), "1000\n2000\n2000 3000\n");
    let field = |name: &str| pod.sh(&bound, &format!("grep ^{name}: /proc/1/status | cut -f2"));
    assert_eq!(field("CapBnd"), "0000000000000400\n");
    // A user who is not root loses capabilities with the next program.
    assert_eq!(pod.sh(&bound, "grep ^CapEff: /proc/self/status | cut -f2"), "0000000000000000\n");
    assert_eq!(field("NoNewPrivs"), "1\n");
    assert_eq!(field("Seccomp"), "2\n");
    let refused = "touch /x 2>&1; echo 1 2>&1 >/proc/sys/kernel/hostname; cat /proc/timer_list | wc -c; ls /sys/firmware 2>/dev/null | wc -l";
    let told = pod.sh(&bound, &format!("({refused}) 2>&1"));
    assert_eq!(told.matches("Read-only file system").count(), 2, "{told}");
    assert!(told.ends_with("0\n0\n"), "{told}");
    let free = pod.start(&container("free", SERVE));
    assert_eq!(pod.sh(&free, "grep ^CapBnd: /proc/1/status | cut -f2"), "00000000a80425fb\n");
    assert_eq!(pod.sh(&free, "id -u"), "0\n");
    pod.remove();
    let mut together = pod::config(&daemon, "together");
    if let Some(options) = together.linux.as_mut().and_then(|linux| linux.security_context.as_mut())
        && let Some(options) = &mut options.namespace_options
    {
        options.pid = namespace_mode::POD;
    }
    let pod = Pod::run(&cri, together, OURS);
    let shared = |name: &str, command: &[&str]| {
        let mut config = container(name, command);
        if let Some(options) = &mut security(&mut config).namespace_options {
            options.pid = namespace_mode::POD;
        }
        pod.start(&config)
    };
    let first = shared("first", SERVE);
    let second = shared("second", &["/bin/sleep", "7777"]);
    assert_eq!(pod.sh(&first, "cat /proc/1/cmdline | tr '\\0' ' '"), "/pause ");
    pod.sh(&first, "kill $(ps | grep 'sleep 7777' | grep -v grep | sed 's/^ *//' | cut -d' ' -f1)");
    assert_eq!(pod.ended(&second).exit_code, 143);
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn crashes_and_restarts() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let pod = Pod::run(&cri, pod::config(&daemon, "crashes"), OURS);
    let steady = pod.start(&container("steady", SERVE));
    for attempt in 0..3 {
        let mut config = container("crashing", &["/bin/sh", "-c", "echo boom; exit 9"]);
        config.metadata.get_or_insert_default().attempt = attempt;
        let crashed = pod.start(&config);
        assert_eq!(pod.ended(&crashed).exit_code, 9);
        let refused = cri.exec_sync(&crashed, &["true"], 5).expect_err("it has ended");
        assert!(refused.message().contains("CONTAINER_EXITED"), "{refused:?}");
        cri.remove(&crashed).expect("RemoveContainer");
        cri.remove(&crashed).expect("RemoveContainer again");
    }
    let stubborn =
        pod.start(&container("stubborn", &["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"]));
    let begun = Instant::now();
    cri.stop(&stubborn, 1).expect("StopContainer");
    assert!(begun.elapsed() >= Duration::from_secs(1), "the grace period");
    assert_eq!(pod.ended(&stubborn).exit_code, 137);
    let id = pod.create(&container("missing", &["/no/such/program"]));
    let refused = cri.start(&id).expect_err("no such program");
    assert!(refused.message().contains("no such file or directory"), "{refused:?}");
    // Made and never started.
    let idle = pod.create(&container("idle", SERVE));
    cri.remove(&idle).expect("RemoveContainer");
    assert_eq!(cri.container_status(&steady).expect("ContainerStatus").state, container_state::RUNNING);
    assert_eq!(pod.sh(&steady, "echo well"), "well\n");
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn the_pods_network() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    let mut config = pod::config(&daemon, "network");
    let host_port = 20_000 + i32::try_from(std::process::id() % 10_000).expect("a small number");
    config.port_mappings = vec![PortMapping { protocol: 0, container_port: 8080, host_port }];
    let pod = Pod::run(&cri, config, OURS);
    let address = pod.address();
    let serve = "while :; do echo answer | nc -l -p 8080 >/dev/null; done";
    pod.start(&container("server", &["/bin/sh", "-c", serve]));
    let client = pod.start(&container("client", SERVE));
    // Inside: the interface with its address, and loopback between containers.
    let shown = pod.sh(&client, "ip -4 addr show eth0");
    assert!(shown.contains(&format!("{address}/24")), "{shown}");
    let asked = |host: &str| {
        let again =
            format!("for i in 1 2 3 4 5 6 7 8 9; do nc {host} </dev/null && exit; sleep 0.2; done; exit 1");
        pod.sh(&client, &again)
    };
    assert_eq!(asked("127.0.0.1 8080"), "answer\n");
    assert_eq!(asked(&format!("{address} 8080")), "answer\n");
    // From the host: to the pod's address, and to the port of the host that is mapped to it.
    let fetch = |to: String| {
        let read = || {
            let mut text = String::new();
            let limit = Duration::from_secs(2);
            let mut stream = TcpStream::connect_timeout(&to.parse().ok()?, limit).ok()?;
            stream.set_read_timeout(Some(limit)).ok()?;
            stream.read_to_string(&mut text).ok()?;
            Some(text).filter(|text| !text.is_empty())
        };
        eventually(LIMIT, read).unwrap_or_else(|| panic!("{to} does not answer"))
    };
    assert_eq!(fetch(format!("{address}:8080")), "answer\n");
    assert_eq!(fetch(format!("{}:{host_port}", daemon.gateway())), "answer\n");
    // And out again.
    let listener = TcpListener::bind((daemon.gateway(), 0)).expect("a port of the bridge");
    let port = listener.local_addr().expect("an address").port();
    let greeting = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().expect("the pod");
        stream.write_all(b"welcome\n").expect("a greeting");
        peer.ip().to_string()
    });
    assert_eq!(asked(&format!("{} {port}", daemon.gateway())), "welcome\n");
    assert_eq!(greeting.join().expect("the listener"), address);
    // As kubectl port-forward.
    let mut forward = Stream::open(&cri.port_forward(&pod.id, 8080).expect("PortForward"));
    forward.expect(stream::STDIN, "answer\n");
    drop(forward);
    pod.remove();
    daemon.expect_nothing_left();
}
