//! Mounts, paths, devices and ids of a bundle.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::bundle::{Bundle, own_root, set, shell};
use tests::command::{self, Done};
use tests::rootfs;

const LIMIT: Duration = Duration::from_secs(60);

fn mount(bundle: &mut Bundle, mount: Value) {
    bundle.config.pointer_mut("/mounts").and_then(Value::as_array_mut).expect("mounts").push(mount);
}

fn run(bundle: &Bundle) -> Done {
    command::run(&mut bundle.run("systrap"), LIMIT)
}

#[test]
fn mountinfo_shows_what_the_bundle_says() {
    let mut bundle = shell("cat /proc/self/mountinfo");
    let data = bundle.dir().join("data");
    fs::create_dir(&data).expect("a folder");
    mount(
        &mut bundle,
        json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "ro", "noexec"]}),
    );
    mount(
        &mut bundle,
        json!({"destination": "/t", "type": "tmpfs", "source": "mine", "options": ["size=1m", "noatime", "rshared"]}),
    );
    let done = run(&bundle).expect_ok("run");
    let line = |point: &str| {
        let found = done.stdout.lines().find(|line| line.split(' ').nth(4) == Some(point));
        found.unwrap_or_else(|| panic!("no {point} in\n{}", done.stdout)).to_owned()
    };
    for (point, kind, source) in [
        ("/proc", "proc", "proc"),
        ("/dev", "tmpfs", "tmpfs"),
        ("/dev/pts", "devpts", "devpts"),
        ("/dev/shm", "tmpfs", "shm"),
        ("/dev/mqueue", "mqueue", "mqueue"),
        ("/sys", "sysfs", "sysfs"),
        ("/t", "tmpfs", "mine"),
    ] {
        let (_, right) =
            line(point).split_once(" - ").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a line");
        assert!(right.starts_with(&format!("{kind} {source} ")), "{point}: {right}");
    }
    let options = |point: &str| line(point).split(' ').nth(5).expect("options").to_owned();
    assert_eq!(options("/proc"), "rw,nosuid,nodev,noexec,relatime");
    assert_eq!(options("/dev/shm"), "rw,nosuid,nodev,noexec,relatime");
    assert_eq!(options("/data"), "ro,noexec,relatime");
    assert_eq!(options("/t"), "rw,noatime");
    let root_of = |point: &str| line(point).split(' ').nth(3).expect("a root").to_owned();
    assert!(
        root_of("/data").ends_with("/data") && data.ends_with(&root_of("/data")[1..]),
        "{}",
        line("/data")
    );
    assert_eq!(root_of("/t"), "/");
    assert!(line("/t").contains(" shared:"), "{}", line("/t"));
}

#[test]
fn flags_of_mounts_hold() {
    let script = "cp /bin/busybox /fresh/b; /fresh/b true; echo noexec $?; echo x > /data/f; echo ro $?; cat /file; echo y > /file; \
        echo file $?; stat -c %a /fresh /m /etc2";
    let mut bundle = shell(script);
    let data = bundle.dir().join("data");
    fs::create_dir(&data).expect("a folder");
    fs::write(bundle.dir().join("file"), "content\n").expect("a file");
    let file = bundle.dir().join("file");
    mount(
        &mut bundle,
        json!({"destination": "/fresh", "type": "tmpfs", "source": "t", "options": ["noexec"]}),
    );
    mount(
        &mut bundle,
        json!({"destination": "/m", "type": "tmpfs", "source": "t", "options": ["mode=0710"]}),
    );
    mount(
        &mut bundle,
        json!({"destination": "/etc2", "type": "bind", "source": data, "options": ["bind", "rro"]}),
    );
    mount(
        &mut bundle,
        json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "ro"]}),
    );
    mount(
        &mut bundle,
        json!({"destination": "/file", "type": "bind", "source": file, "options": ["bind", "rw"]}),
    );
    let done = run(&bundle).expect_ok("run");
    for line in ["noexec 126", "ro 1", "content", "file 0", "1777", "710", "755"] {
        assert!(done.stdout.lines().any(|got| got == line), "no {line:?} in\n{}{}", done.stdout, done.stderr);
    }
    assert_eq!(fs::read_to_string(file).expect("a file"), "y\n");
}

#[test]
fn a_tmpfs_can_begin_with_what_it_covers() {
    let script = "cat /etc/passwd | head -c 4; echo; cat /etc/sub/deep; readlink /etc/link; stat -c '%u %a' /etc/sub; echo x > /etc/new; mount | grep -c '^tmpfs on /etc type tmpfs'";
    let (mut bundle, root) = own_root(script);
    fs::create_dir(root.join("etc/sub")).expect("a folder");
    fs::write(root.join("etc/sub/deep"), "deep\n").expect("a file");
    symlink("passwd", root.join("etc/link")).expect("a link");
    rustix::fs::chmod(root.join("etc/sub"), rustix::fs::Mode::from_raw_mode(0o711)).expect("chmod");
    std::os::unix::fs::chown(root.join("etc/sub"), Some(7), Some(8)).expect("chown");
    mount(
        &mut bundle,
        json!({"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]}),
    );
    let done = run(&bundle).expect_ok("run");
    assert_eq!(done.stdout, "root\ndeep\npasswd\n7 711\n1\n");
    assert!(!root.join("etc/new").exists());
}

#[test]
fn symbolic_links_of_an_image_lead_nowhere_outside() {
    let (mut bundle, root) = own_root("cat /a/inside /bound/x; ls -d /etc/masked; cat /etc/masked; echo $?");
    let outside = bundle.dir().join("outside");
    fs::create_dir(&outside).expect("a folder");
    let up = "../../../../../../../../../..";
    // Destinations that point at the host's folder, absolutely and by way of many parents.
    symlink(&outside, root.join("a")).expect("a link");
    symlink(format!("{up}{}", outside.display()), root.join("b")).expect("a link");
    symlink("/etc/passwd", root.join("dev-null")).expect("a link");
    fs::write(root.join("etc/masked"), "secret\n").expect("a file");
    // An image whose /dev/null is something else must not get it over a masked path.
    fs::remove_dir_all(root.join("dev")).expect("dev");
    fs::create_dir(root.join("dev")).expect("dev");
    symlink("/etc/passwd", root.join("dev/null")).expect("a link");
    let mounts = bundle.config.pointer_mut("/mounts").and_then(Value::as_array_mut).expect("mounts");
    mounts.retain(|mount| {
        !mount.get("destination").and_then(Value::as_str).is_some_and(|at| at.starts_with("/dev"))
    });
    let data = bundle.dir().join("data");
    fs::create_dir(&data).expect("a folder");
    fs::write(data.join("x"), "bound\n").expect("a file");
    fs::write(data.join("inside"), "inside\n").expect("a file");
    mount(&mut bundle, json!({"destination": "/a", "type": "bind", "source": data, "options": ["bind"]}));
    mount(&mut bundle, json!({"destination": "/b/made", "type": "tmpfs", "source": "tmpfs"}));
    mount(&mut bundle, json!({"destination": "/bound", "type": "bind", "source": data, "options": ["bind"]}));
    set(&mut bundle, "/linux/maskedPaths", json!(["/etc/masked"]));
    let done = run(&bundle).expect_ok("run");
    assert_eq!(done.stdout, "inside\nbound\n/etc/masked\n0\n", "{}", done.stderr);
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0, "a mount point was made on the host");
}

#[test]
fn links_that_change_while_containers_are_made() {
    let (mut bundle, root) = own_root("true");
    let outside = bundle.dir().join("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::create_dir(root.join("real")).expect("a folder");
    mount(&mut bundle, json!({"destination": "/swap/one/two", "type": "tmpfs", "source": "tmpfs"}));
    bundle.write();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let place = root.join("swap");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = fs::remove_dir_all(&place);
                let _ = fs::remove_file(&place);
                let _ = symlink(&outside, &place);
                let _ = fs::remove_file(&place);
                let _ = symlink("../../../../../../../../../../../../tmp", &place);
                let _ = fs::remove_file(&place);
                let _ = fs::create_dir(&place);
            }
        });
        for _ in 0..15 {
            // It may fail; it may not reach out.
            let done = run(&bundle);
            assert!(!done.stderr.contains("panicked"), "{}", done.stderr);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0, "a mount point was made on the host");
    assert!(!Path::new("/tmp/one").exists(), "a mount point was made on the host");
}

#[test]
fn devices_of_the_bundle() {
    let script = "stat -c '%t:%T %a %u:%g' /dev/mine; head -c 2 /dev/mine | wc -c; stat -c '%a %u' /dev/null; cat /dev/disk; echo $?; stat -c %F /dev/pipe";
    let mut bundle = shell(script);
    set(
        &mut bundle,
        "/linux/devices",
        json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 9, "gid": 9},
            {"path": "/dev/disk", "type": "b", "major": 8, "minor": 0},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600, "major": 0, "minor": 0},
        ]),
    );
    let done = run(&bundle).expect_ok("run");
    assert_eq!(done.stdout, "1:5 640 3:4\n2\n600 9\n1\nfifo\n", "{}", done.stderr);
    assert!(done.stderr.contains("No such device or address"), "{}", done.stderr);
    // Without a /dev of its own a container gets its devices all the same.
    let (mut bundle, root) =
        own_root("echo x > /dev/null; head -c 3 /dev/zero | wc -c; stat -c %F /dev/full");
    let mounts = bundle.config.pointer_mut("/mounts").and_then(Value::as_array_mut).expect("mounts");
    mounts.retain(|mount| {
        !mount.get("destination").and_then(Value::as_str).is_some_and(|at| at.starts_with("/dev"))
    });
    assert_eq!(run(&bundle).expect_ok("run").stdout, "3\ncharacter special file\n");
    let left = fs::metadata(root.join("dev/null")).expect("a place");
    assert!(left.is_file() && left.len() == 0, "a device of the host, or what was written to one");
}

#[test]
fn process_settings() {
    let script = "umask; pwd; echo $HOME; id -G; cat /proc/self/oom_score_adj; grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status; uname -m; hostname; cat /proc/sys/kernel/domainname; ulimit -n; ulimit -c; cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let mut bundle = shell(script);
    set(&mut bundle, "/process/user", json!({"uid": 0, "gid": 3, "umask": 0o27, "additionalGids": [5, 10]}));
    set(&mut bundle, "/process/cwd", json!("/made/for/us"));
    set(&mut bundle, "/process/env", json!(["PATH=/bin"]));
    set(&mut bundle, "/process/oomScoreAdj", json!(321));
    set(&mut bundle, "/process/noNewPrivileges", json!(true));
    let caps = json!(["CAP_KILL", "CAP_CHOWN"]);
    set(
        &mut bundle,
        "/process/capabilities",
        json!({"bounding": caps, "effective": caps, "permitted": caps, "inheritable": caps, "ambient": ["CAP_KILL"]}),
    );
    set(
        &mut bundle,
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]),
    );
    set(&mut bundle, "/linux/personality", json!({"domain": "LINUX32"}));
    set(&mut bundle, "/linux/sysctl", json!({"net.ipv4.ip_unprivileged_port_start": "77"}));
    set(&mut bundle, "/domainname", json!("example.org"));
    set(&mut bundle, "/unknown", json!({"field": 1}));
    let done = run(&bundle).expect_ok("run");
    let mut got = done.stdout.lines();
    for want in ["0027", "/made/for/us", "/root", "3 5 10", "321"] {
        assert_eq!(got.next(), Some(want), "{}", done.stdout);
    }
    let rest: Vec<&str> = got.collect();
    for want in [
        "CapInh:\t0000000000000021",
        "CapBnd:\t0000000000000021",
        "CapAmb:\t0000000000000020",
        "NoNewPrivs:\t1",
        "i686",
        "guest",
        "example.org",
        "100",
        "77",
    ] {
        assert!(rest.contains(&want), "no {want:?} in {}", done.stdout);
    }
}

#[test]
fn what_is_not_done_is_refused_in_a_line() {
    let cases = [
        ("/windows", json!({"layerFolders": ["c:"]}), "windows: this runtime makes Linux containers only"),
        ("/vm", json!({"kernel": {"path": "/vmlinuz"}}), "vm: this runtime makes Linux containers only"),
        ("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt: not supported"),
        ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation"),
        (
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 1, "nanosecs": 0}}),
            "time namespaces are not supported",
        ),
        ("/ociVersion", json!("2.0.0"), "ociVersion"),
    ];
    for (pointer, value, words) in cases {
        let mut bundle = shell("true");
        set(&mut bundle, pointer, value);
        let done = run(&bundle);
        assert!(done.code() == 1 && done.stderr.contains(words), "{pointer}: {}", done.stderr);
        assert_eq!(done.stderr.lines().count(), 1, "{}", done.stderr);
    }
    let mut bundle = shell("true");
    let ids = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    mount(
        &mut bundle,
        json!({"destination": "/x", "type": "bind", "source": "/usr", "options": ["bind"], "uidMappings": ids, "gidMappings": ids}),
    );
    let done = run(&bundle);
    assert!(
        done.code() == 1 && done.stderr.contains("id-mapped mounts are not supported"),
        "{}",
        done.stderr
    );
}

#[test]
fn descriptors_that_are_passed_on() {
    let bundle = shell("cat <&3; echo fds $LISTEN_FDS $LISTEN_PID; cat <&4");
    let one = bundle.dir().join("one");
    let two = bundle.dir().join("two");
    fs::write(&one, "one\n").expect("a file");
    fs::write(&two, "two\n").expect("a file");
    bundle.write();
    // As a service manager would: the first descriptor is announced, the second asked for.
    let script = format!(
        "exec 3< {} 4< {}; LISTEN_FDS=1 LISTEN_PID=$$ exec {} --root {} run --preserve-fds 1 --bundle {} {}",
        one.display(),
        two.display(),
        tests::runsc().display(),
        bundle.dir().join("state").display(),
        bundle.dir().display(),
        bundle.id()
    );
    let done = command::run(Command::new("sh").args(["-c", &script]), LIMIT).expect_ok("run");
    assert_eq!(done.stdout, "one\nfds 1 1\ntwo\n");
}

#[test]
fn a_user_namespace_maps_the_host_s_ids() {
    let script = "id -u; stat -c '%u:%g' /data/mine /data/other; echo x > /data/new; chown 5:6 /data/new; cat /proc/self/uid_map; \
        chown 200000 /data/new || echo unmapped";
    let mut bundle = shell(script);
    let data = bundle.dir().join("data");
    fs::create_dir(&data).expect("a folder");
    for (name, id) in [("mine", 100_007), ("other", 12)] {
        fs::write(data.join(name), "").expect("a file");
        std::os::unix::fs::chown(data.join(name), Some(id), Some(id)).expect("chown");
    }
    std::os::unix::fs::chown(&data, Some(100_000), Some(100_000)).expect("chown");
    bundle = bundle.bind(&data, "/data", "rw");
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    set(&mut bundle, "/linux/uidMappings", map.clone());
    set(&mut bundle, "/linux/gidMappings", map);
    let namespaces =
        bundle.config.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut).expect("namespaces");
    namespaces.push(json!({"type": "user"}));
    for platform in tests::PLATFORMS {
        let done = command::run(&mut bundle.run(platform), LIMIT).expect_ok("run");
        let lines: Vec<String> = done
            .stdout
            .lines()
            .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(lines, ["0", "7:7", "65534:65534", "0 100000 65536", "unmapped"], "{}", done.stderr);
        let made = fs::metadata(data.join("new")).expect("a new file");
        assert_eq!((made.uid(), made.gid()), (100_005, 100_006));
    }
}

#[test]
fn an_ordinary_user_runs_a_sandbox() {
    const USER: u32 = 54_321;
    let bundle =
        shell("id -u; cat /data/mine; echo x > /data/new; cat /proc/self/uid_map; sleep 1000 & wait");
    let state = PathBuf::from(format!("{}-rootless", bundle.dir().display()));
    let data = state.join("data");
    fs::create_dir_all(&data).expect("a folder");
    fs::write(data.join("mine"), "mine\n").expect("a file");
    let binary = state.join("runsc");
    fs::copy(tests::runsc(), &binary).expect("a copy that others can reach");
    let copied =
        Command::new("cp").arg("-a").arg(rootfs::busybox()).arg(state.join("rootfs")).status().expect("cp");
    assert!(copied.success());
    let runsc = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()]);
        command.arg(&binary).arg("--root").arg(state.join("state")).args(words).current_dir(&state);
        command.env_remove("XDG_RUNTIME_DIR");
        command
    };
    let mut bundle = bundle.bind(&data, "/data", "rw");
    set(&mut bundle, "/root/path", json!("rootfs"));
    set(&mut bundle, "/annotations", json!({}));
    fs::write(state.join("config.json"), bundle.config.to_string()).expect("config.json");
    let owned =
        Command::new("chown").args(["-R", &format!("{USER}:{USER}")]).arg(&state).status().expect("chown");
    assert!(owned.success());
    let id = bundle.id().to_owned();
    let out = fs::File::create(bundle.dir().join("out")).expect("a file");
    let mut start = runsc(&["run", "--detach", &id]);
    let errors = fs::File::create(bundle.dir().join("errors")).expect("a file");
    let status = start.stdin(Stdio::null()).stdout(out).stderr(errors).status().expect("setpriv");
    let told = fs::read_to_string(bundle.dir().join("errors")).expect("errors");
    assert!(status.success(), "{told}");
    let exec = command::run(&mut runsc(&["exec", &id, "/bin/id", "-u"]), LIMIT).expect_ok("exec");
    assert_eq!(exec.stdout, "0\n");
    let list = command::run(&mut runsc(&["list"]), LIMIT).expect_ok("list");
    assert!(list.stdout.contains("running"), "{}", list.stdout);
    let path = bundle.dir().join("out");
    let end = std::time::Instant::now() + LIMIT;
    let output = loop {
        let output = fs::read_to_string(&path).expect("output");
        if output.lines().count() >= 3 {
            break output;
        }
        assert!(std::time::Instant::now() < end, "{output}");
        std::thread::sleep(Duration::from_millis(10));
    };
    let words = |line: &str| line.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = output.lines().map(words).collect();
    assert_eq!(lines, ["0", "mine", &format!("0 {USER} 1")], "{output}");
    assert_eq!(fs::metadata(data.join("new")).expect("a new file").uid(), USER);
    command::run(&mut runsc(&["delete", "--force", &id]), LIMIT).expect_ok("delete");
    fs::remove_dir_all(&state).expect("clean up");
}
