//! Podman as root, with conmon.

use super::engine::{Engine, Folder, LIMIT, import_busybox, limits, note, runtimes, same};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tests::command;
use tests::pty::Terminal;

/// A Podman with storage of its own, and an image `busybox`.
struct Podman {
    folder: Folder,
    runtime: PathBuf,
    flags: Vec<String>,
}

impl Podman {
    fn new(runtime: &Path) -> Podman {
        let podman = Podman { folder: Folder::new("pm"), runtime: runtime.to_owned(), flags: Vec::new() };
        // What the caller's limits allow: a container may not have more.
        let limits = "[containers]\ndefault_ulimits=[\"nofile=1024:4096\",\"nproc=4096:4096\"]\n";
        fs::write(podman.path("containers.conf"), limits).expect("containers.conf");
        import_busybox(podman.command().args(["import", "-q", "-", "busybox"]));
        podman
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }
}

impl Engine for Podman {
    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        // conmon notes in its working directory that memory ran out.
        command.current_dir(self.folder.path());
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        for (flag, name) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(flag).arg(self.path(name));
        }
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--log-level", "error"]);
        command.arg("--runtime").arg(&self.runtime);
        command.args(self.flags.iter().flat_map(|flag| ["--runtime-flag", flag]));
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command().args(["rm", "-f", "-a", "-t", "0"]).output();
        let _ = self.command().args(["pod", "rm", "-f", "-a"]).output();
        let _ =
            Command::new("umount").arg("-R").arg(self.path("root/overlay")).stderr(Stdio::null()).status();
    }
}

/// Runs a scenario under runc and under ours; both must say the same.
#[track_caller]
fn under_both(scenario: impl Fn(&Podman, &mut String)) -> String {
    let [reference, ours] = runtimes().map(|runtime| {
        let podman = Podman::new(&runtime);
        let mut log = String::new();
        scenario(&podman, &mut log);
        let left = podman.ok(&["ps", "-aq"]);
        assert_eq!(left, "", "containers are left under {}", runtime.display());
        log
    });
    same(&reference, &ours);
    ours
}

const RUN: [&str; 4] = ["run", "--rm", "--network", "none"];
const DETACH: [&str; 4] = ["run", "-d", "--network", "none"];

fn words<'a>(first: &[&'a str], rest: &[&'a str]) -> Vec<&'a str> {
    [first, rest].concat()
}

#[test]
fn what_a_container_is_told() {
    let log = under_both(|podman, log| {
        let volume = podman.path("volume");
        fs::create_dir_all(&volume).expect("a folder");
        fs::write(volume.join("f"), "host\n").expect("a file");
        let rw = format!("{}:/v", volume.display());
        let ro = format!("{rw}:ro");
        let list: [&[&str]; 24] = [
            &["busybox", "sh", "-c", "exit 7"],
            &["busybox", "/nonexistent"],
            &["busybox", "/etc"],
            &["busybox", "sh", "-c", "sh -c 'kill -9 $$'"],
            &["--user", "1000:1001", "--group-add", "5", "busybox", "id"],
            &["--workdir", "/tmp", "busybox", "pwd"],
            &["--hostname", "foo", "busybox", "hostname"],
            &["--entrypoint", "/bin/echo", "busybox", "a", "b"],
            &["-e", "A=B", "busybox", "sh", "-c", "echo $A $container"],
            &["--read-only", "busybox", "sh", "-c", "touch /x; touch /tmp/x /dev/shm/x && echo ok"],
            &[
                "--tmpfs",
                "/foo:size=1m",
                "busybox",
                "sh",
                "-c",
                "dd if=/dev/zero of=/foo/x bs=1k count=2000; df -k /foo",
            ],
            &["--cap-drop", "all", "--cap-add", "net_admin", "busybox", "grep", "Cap", "/proc/self/status"],
            &["--security-opt", "no-new-privileges", "busybox", "grep", "NoNewPrivs", "/proc/self/status"],
            &["busybox", "grep", "Seccomp:", "/proc/self/status"],
            &["--security-opt", "seccomp=unconfined", "busybox", "grep", "Seccomp:", "/proc/self/status"],
            &["--device", "/dev/null:/dev/foo", "busybox", "sh", "-c", "echo a > /dev/foo; cat /dev/foo"],
            &["--sysctl", "net.ipv4.ip_forward=1", "busybox", "cat", "/proc/sys/net/ipv4/ip_forward"],
            &["--init", "busybox", "sh", "-c", "cat /proc/1/comm"],
            &["-v", &rw, "busybox", "sh", "-c", "cat /v/f; echo guest > /v/g"],
            &["-v", &ro, "busybox", "sh", "-c", "cat /v/g; touch /v/h"],
            &["-v", "named:/v", "busybox", "sh", "-c", "echo kept > /v/k"],
            &["-v", "named:/v", "busybox", "cat", "/v/k"],
            &["--shm-size", "1m", "busybox", "df", "-k", "/dev/shm"],
            &[
                "--umask",
                "077",
                "--oom-score-adj",
                "500",
                "busybox",
                "sh",
                "-c",
                "umask; cat /proc/self/oom_score_adj",
            ],
        ];
        for args in list {
            // The source of a file system is the runtime's to name.
            let done = podman.run(&words(&RUN, args));
            let shown = args.join(" ").replace(&podman.text("volume"), "VOLUME");
            note(log, &shown, &done.stdout.replace("shm  ", "none "), done.code());
        }
        assert_eq!(fs::read_to_string(volume.join("g")).expect("the guest's file"), "guest\n");
        podman.ok(&["volume", "rm", "named"]);
    });
    for expected in
        ["= 7\n", "= 127\n", "= 126\n", "uid=1000(1000) gid=1001", "guest\n", "kept\n", "0077\n500\n"]
    {
        assert!(log.contains(expected), "{expected:?} is not in\n{log}");
    }
}

#[test]
fn limits_are_kept() {
    let log = under_both(|podman, log| limits(podman, log, &RUN, &DETACH));
    for expected in ["67108864\n50\n", "= 2\n", "100663296\n50\n", "137\n"] {
        assert!(log.contains(expected), "{expected:?} is not in\n{log}");
    }
}

#[test]
fn life_of_a_container() {
    under_both(|podman, log| {
        let script = "trap 'echo got term; exit 3' TERM; echo begun; while :; do sleep 0.1 & wait $!; done";
        podman.ok(&words(&DETACH, &["--name", "c", "busybox", "sh", "-c", script]));
        podman.until(&["logs", "c"], "begun");
        podman.note(
            log,
            &["inspect", "c", "--format", "{{.State.Status}} {{.State.Running}} {{.State.OOMKilled}}"],
        );
        for args in [
            &["exec", "c", "sh", "-c", "echo hi; exit 9"][..],
            &["exec", "c", "/nonexistent"],
            &["exec", "c", "/etc"],
            &["exec", "-w", "/nonexistent", "c", "pwd"],
            &["exec", "-u", "1000:1000", "-w", "/tmp", "-e", "A=B", "c", "sh", "-c", "id -u; pwd; echo $A"],
            &["exec", "-d", "c", "sh", "-c", "echo detached > /tmp/d"],
        ] {
            podman.note(log, args);
        }
        podman.until(&["exec", "c", "cat", "/tmp/d"], "detached");
        let top = podman.ok(&["top", "c", "pid", "comm"]);
        assert!(top.lines().any(|line| line.split_whitespace().eq(["1", "sh"])), "{top}");
        podman.note(log, &["pause", "c"]);
        podman.note(log, &["inspect", "c", "--format", "{{.State.Status}}"]);
        podman.note(log, &["unpause", "c"]);
        podman.note(log, &["stop", "-t", "10", "c"]);
        podman.note(log, &["inspect", "c", "--format", "{{.State.Status}} {{.State.ExitCode}}"]);
        podman.note(log, &["logs", "c"]);
        podman.note(log, &["start", "c"]);
        podman.note(log, &["restart", "-t", "10", "c"]);
        podman.note(log, &["kill", "c"]);
        podman.note(log, &["wait", "c"]);
        podman.note(log, &["rm", "c"]);
        podman.ok(&words(&DETACH, &["--name", "s", "busybox", "sleep", "100"]));
        podman.note(log, &["stop", "-t", "1", "s"]);
        podman.note(log, &["inspect", "s", "--format", "{{.State.ExitCode}}"]);
        podman.note(log, &["exec", "s", "true"]);
        podman.note(log, &["rm", "s"]);
        podman.ok(&[
            "create",
            "--name",
            "k",
            "-i",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "cat; exit 5",
        ]);
        let args = ["start", "-ai", "k"];
        let done = command::run_with_input(podman.command().args(args), b"typed\n", LIMIT);
        note(log, &args.join(" "), &done.stdout, done.code());
        podman.note(log, &["rm", "k"]);
        podman.ok(&words(
            &DETACH,
            &["--name", "r", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 1"],
        ));
        podman.until(&["inspect", "r", "--format", "{{.RestartCount}} {{.State.Status}}"], "2 exited");
        podman.note(log, &["rm", "r"]);
    });
}

#[test]
fn files_in_and_out() {
    under_both(|podman, log| {
        let (volume, input, output) = (podman.text("volume"), podman.text("input"), podman.text("output"));
        fs::create_dir_all(&volume).expect("a folder");
        fs::write(&input, "from the host\n").expect("a file");
        let bind = format!("{volume}:/v");
        let mounts = ["-v", &bind, "--tmpfs", "/mem"];
        podman.ok(&[&DETACH[..], &["--name", "c"], &mounts, &["busybox", "sleep", "100"]].concat());
        // A running container's paths are walked in its pid's mount namespace: never the host's.
        let strange = format!("/tmp/engines-{}", std::process::id());
        podman.ok(&["cp", &input, &format!("c:{strange}")]);
        assert!(!Path::new(&strange).exists(), "podman cp wrote to the host's {strange}");
        podman.note(log, &["exec", "c", "sh", "-c", "cat /tmp/engines-*"]);
        podman.ok(&["cp", &input, "c:/v/in"]);
        assert!(Path::new(&volume).join("in").exists(), "podman cp missed the volume");
        // A tmpfs has no host side: the guest's kernel serves it.
        podman.ok(&["cp", &input, "c:/mem/in"]);
        let script = "cat /mem/in; stat -c '%a %u %g' /mem/in; mkdir -p /mem/d/e; seq 1 50000 > /mem/d/e/f; ln -s e/f /mem/d/l";
        podman.note(log, &["exec", "c", "sh", "-c", script]);
        let tree = podman.text("tree");
        podman.ok(&["cp", "c:/mem/d", &tree]);
        podman.ok(&["cp", &tree, "c:/mem/again"]);
        podman.note(
            log,
            &["exec", "c", "sh", "-c", "cmp /mem/d/e/f /mem/again/l && ls -l /mem/again | grep -c l"],
        );
        podman.ok(&["exec", "c", "sh", "-c", "cat /v/in; mkdir -p /root/d/e; echo out > /root/d/e/f"]);
        podman.ok(&["cp", "c:/root/d", &output]);
        assert_eq!(fs::read_to_string(Path::new(&output).join("e/f")).expect("copied out"), "out\n");
        // `podman diff` alone looks for an image first, and "c" may begin an image's id.
        let changes = podman.ok(&["container", "diff", "c"]);
        assert!(changes.contains("A /root/d/e/f"), "{changes}");
        podman.ok(&["commit", "-q", "c", "other"]);
        podman.note(log, &words(&RUN, &["other", "cat", "/root/d/e/f"]));
        podman.ok(&["export", "-o", &podman.text("all.tar"), "c"]);
        let list = command::run(Command::new("tar").arg("tf").arg(podman.path("all.tar")), LIMIT).stdout;
        assert!(list.lines().any(|line| line.ends_with("root/d/e/f")), "{list}");
        podman.ok(&["stop", "-t", "0", "c"]);
        podman.ok(&["cp", &input, "c:/root/stopped"]);
        podman.ok(&["start", "c"]);
        podman.note(log, &["exec", "c", "cat", "/root/stopped", "/root/d/e/f"]);
        podman.note(log, &["rm", "-f", "-t", "0", "c"]);
    });
}

#[test]
fn pods_share_a_network() {
    under_both(|podman, log| {
        let infra = ["--network", "none", "--infra-image", "busybox", "--infra-command", "/bin/sleep 1000"];
        podman.ok(&words(&["pod", "create", "--name", "p"], &infra));
        let serve = "echo served > /tmp/i; exec httpd -f -p 8080 -h /tmp";
        podman.ok(&["run", "-d", "--pod", "p", "--name", "a", "busybox", "sh", "-c", serve]);
        podman.ok(&["run", "-d", "--pod", "p", "--name", "b", "busybox", "sleep", "100"]);
        podman.until(&["exec", "b", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/i"], "served");
        podman.note(log, &["exec", "b", "hostname"]);
        podman.note(log, &["rm", "-f", "-t", "0", "a"]);
        podman.note(log, &["exec", "b", "echo", "still"]);
        podman.ok(&["pod", "rm", "-f", "-t", "0", "p"]);
        podman.ok(&["pod", "create", "--name", "q", "--infra=false"]);
        podman.note(log, &["run", "--rm", "--pod", "q", "--network", "none", "busybox", "echo", "alone"]);
        podman.ok(&["pod", "rm", "q"]);
        podman.ok(&words(&DETACH, &["--name", "n", "busybox", "sh", "-c", serve]));
        let join = ["run", "--rm", "--network", "container:n", "busybox"];
        podman.until(&words(&join, &["wget", "-q", "-O", "-", "http://127.0.0.1:8080/i"]), "served");
        podman.note(log, &["rm", "-f", "-t", "0", "n"]);
    });
}

#[test]
fn health_is_checked() {
    under_both(|podman, log| {
        let check =
            ["--health-cmd", "test -f /tmp/ok", "--health-interval", "disable", "--health-retries", "1"];
        let args = [&DETACH[..], &["--name", "h"], &check, &["busybox", "sleep", "100"]].concat();
        podman.ok(&args);
        podman.note(log, &["healthcheck", "run", "h"]);
        podman.ok(&["exec", "h", "touch", "/tmp/ok"]);
        podman.note(log, &["healthcheck", "run", "h"]);
        podman.note(log, &["inspect", "h", "--format", "{{.State.Health.Status}}"]);
        podman.note(log, &["rm", "-f", "-t", "0", "h"]);
    });
}

#[test]
fn a_person_at_a_terminal() {
    for runtime in runtimes() {
        let podman = Podman::new(&runtime);
        let args = ["run", "--rm", "-it", "--network", "none", "-e", "PS1=guest$ ", "busybox", "sh"];
        let mut session = Terminal::start(podman.command().args(args));
        session.expect("guest$ ");
        session.type_in("tty; stty size\n");
        session.expect("/dev/pts/0\r\n33 101\r\n");
        session.expect("guest$ ");
        session.resize(44, 120);
        // A shell that hears of it draws its line again, across what is typed meanwhile.
        session.type_in("until stty size | grep -q '44 120'; do sleep 0.1; done; echo sized\n");
        session.expect("\r\nsized\r\n");
        session.expect("guest$ ");
        session.type_in("sleep 100\n");
        session.expect("sleep 100\r\n");
        std::thread::sleep(std::time::Duration::from_millis(500));
        session.type_in("\x03");
        session.expect("guest$ ");
        session.type_in("echo code=$?; stty size\n");
        session.expect("\r\ncode=130\r\n44 120\r\n");
        session.type_in("exit 5\n");
        assert_eq!(session.end(), Some(5), "{}", runtime.display());
        podman.ok(&words(&DETACH, &["--name", "c", "busybox", "sleep", "100"]));
        let mut session = Terminal::start(podman.command().args(["exec", "-it", "c", "sh"]));
        session.type_in("tty; exit 6\n");
        session.expect("/dev/pts/0\r\n");
        assert_eq!(session.end(), Some(6), "{}", runtime.display());
        podman.ok(&["rm", "-f", "-t", "0", "c"]);
    }
}

#[test]
fn twenty_in_a_row_leave_nothing() {
    let runtime = tests::runsc();
    let mut podman = Podman::new(runtime);
    for number in 0..20 {
        podman.flags = if number % 4 == 3 { vec!["platform=ptrace".to_owned()] } else { Vec::new() };
        assert_eq!(podman.ok(&words(&RUN, &["busybox", "echo", "hi"])), "hi");
    }
    assert_eq!(podman.ok(&["ps", "-aq"]), "");
    let ours = |entry: &fs::DirEntry| entry.file_name().len() == 64;
    let left = fs::read_dir(podman.path("run/overlay-containers")).into_iter().flatten().flatten();
    assert_eq!(left.filter(ours).count(), 0, "folders of containers are left");
}

#[test]
fn namespaces_of_another_container() {
    under_both(|podman, log| {
        let donor = ["--name", "donor", "--hostname", "donor", "busybox", "sleep", "1000"];
        podman.ok(&words(&DETACH, &donor));
        for flags in [
            &["--pid", "container:donor"][..],
            &["--uts", "container:donor"],
            &["--ipc", "container:donor"],
            &["--pid", "container:donor", "--ipc", "container:donor", "--uts", "container:donor"],
            &["--systemd", "always"],
        ] {
            let script = "cat /proc/1/comm; hostname | grep -c donor; grep -c : /proc/net/dev";
            podman.note(log, &[&RUN, flags, &["busybox", "sh", "-c", script]].concat());
        }
        let both = ["run", "--rm", "--network", "container:donor", "--pid", "container:donor"];
        podman.note(log, &words(&both, &["busybox", "cat", "/proc/1/comm"]));
        podman.note(log, &["exec", "donor", "cat", "/proc/1/comm"]);
        podman.ok(&["rm", "-f", "-t", "0", "donor"]);
        // A network of its own beside the processes of another.
        podman.ok(&["run", "-d", "--network", "host", "--name", "outside", "busybox", "sleep", "1000"]);
        let beside = ["run", "--rm", "--network", "host", "--pid", "container:outside", "busybox"];
        podman.note(log, &words(&beside, &["sh", "-c", "cat /proc/1/comm; ifconfig lo | grep -c 127.0.0.1"]));
        podman.ok(&["rm", "-f", "-t", "0", "outside"]);
    });
}
