//! Docker: dockerd with the containerd and shim of its own.

use super::engine::{Engine, Folder, LIMIT, import_busybox, limits, note, same};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tests::pty::Terminal;
use tests::{command, runsc};

/// A daemon of its own, with an image `busybox` and the runtimes `runc` and `ours`.
struct Docker {
    folder: Folder,
    daemon: Child,
}

impl Docker {
    fn new() -> Docker {
        let folder = Folder::new("dk");
        let ours = serde_json::json!({ "path": runsc() });
        let config = serde_json::json!({
            "runtimes": { "ours": ours },
            "bridge": "none",
            "iptables": false,
            "ip-forward": false,
            "live-restore": true,
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            // What the caller's limits allow: a container may not have more.
            "default-ulimits": { "nofile": { "Name": "nofile", "Hard": 4096, "Soft": 1024 } },
        });
        fs::write(folder.path().join("daemon.json"), config.to_string()).expect("daemon.json");
        let daemon = Docker::start(folder.path());
        let docker = Docker { folder, daemon };
        docker.await_answer();
        import_busybox(docker.command().args(["import", "-", "busybox"]));
        docker
    }

    fn start(folder: &Path) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).expect("a log");
        let mut command = Command::new("dockerd");
        for (flag, name) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            command.arg(flag).arg(folder.join(name));
        }
        command.arg("-H").arg(format!("unix://{}", folder.join("s").display()));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("dup")).stderr(log);
        command.spawn().expect("package docker.io")
    }

    fn await_answer(&self) {
        let end = Instant::now() + LIMIT;
        while command::run(self.command().arg("version"), LIMIT).code() != 0 {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "dockerd does not answer:\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// The daemon dies as if it had crashed, and comes back.
    fn crash(&mut self) {
        let containerd = self.containerd();
        self.daemon.kill().expect("kill");
        self.daemon.wait().expect("wait");
        // Its containerd dies with it; a new daemon would take one that is dying for one that serves.
        let end = Instant::now() + LIMIT;
        while containerd.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()) {
            assert!(Instant::now() < end, "containerd outlives its dockerd");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let _ = fs::remove_file(self.folder.path().join("pid"));
        self.daemon = Docker::start(self.folder.path());
        self.await_answer();
    }

    /// The containerd that the daemon started.
    fn containerd(&self) -> Option<rustix::process::Pid> {
        let text = fs::read_to_string(self.folder.path().join("exec/containerd/containerd.pid")).ok()?;
        rustix::process::Pid::from_raw(text.trim().parse().ok()?)
    }
}

impl Engine for Docker {
    fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!("unix://{}", self.folder.path().join("s").display()));
        command
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let list = self.command().args(["ps", "-aq"]).output().map(|done| done.stdout).unwrap_or_default();
        for id in String::from_utf8_lossy(&list).split_whitespace() {
            let _ = self.command().args(["rm", "-f", id]).output();
        }
        let pid = rustix::process::Pid::from_child(&self.daemon);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.daemon.wait();
        if let Some(pid) = self.containerd() {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = Command::new("umount")
            .arg("-R")
            .arg(self.folder.path().join("data"))
            .stderr(Stdio::null())
            .status();
    }
}

fn scenario(docker: &Docker, runtime: &str) -> String {
    let mut text = String::new();
    let log = &mut text;
    let run = ["run", "--rm", "--runtime", runtime, "--network", "none"];
    let detach = ["run", "-d", "--runtime", runtime, "--network", "none"];
    let list: [&[&str]; 8] = [
        &["busybox", "sh", "-c", "exit 7"],
        &["busybox", "/nonexistent"],
        &["busybox", "/etc"],
        &["--user", "1000:1000", "--group-add", "5", "busybox", "id"],
        &["-w", "/new/dir", "--hostname", "foo", "busybox", "sh", "-c", "pwd; hostname"],
        &[
            "--read-only",
            "--cap-drop",
            "ALL",
            "busybox",
            "sh",
            "-c",
            "grep CapEff /proc/self/status; touch /x",
        ],
        &[
            "--security-opt",
            "no-new-privileges",
            "busybox",
            "grep",
            "-E",
            "NoNew|Seccomp:",
            "/proc/self/status",
        ],
        &["-v", "named:/v", "busybox", "sh", "-c", "echo kept >> /v/k; wc -l < /v/k"],
    ];
    for args in list {
        let done = docker.run(&[&run[..], args].concat());
        note(log, &args.join(" "), &done.stdout, done.code());
    }
    docker.ok(&["volume", "rm", "named"]);
    let script = "trap 'exit 3' TERM; echo begun; while :; do sleep 0.1 & wait $!; done";
    docker.ok(&[&detach[..], &["--name", "c1", "busybox", "sh", "-c", script]].concat());
    docker.until(&["logs", "c1"], "begun");
    for args in [
        &["exec", "c1", "sh", "-c", "echo hi; exit 9"][..],
        &["exec", "c1", "/nonexistent"],
        &["exec", "-w", "/nonexistent", "c1", "pwd"],
        &["exec", "-u", "1000", "-w", "/tmp", "-e", "A=B", "c1", "sh", "-c", "id -u; pwd; echo $A"],
        &["exec", "-t", "c1", "tty"],
        &["exec", "c1", "sh", "-c", "echo out > /root/o"],
    ] {
        docker.note(log, args);
    }
    let output = docker.folder.path().join("o").to_string_lossy().into_owned();
    docker.ok(&["cp", "c1:/root/o", &output]);
    assert_eq!(fs::read_to_string(&output).expect("copied out"), "out\n");
    docker.ok(&["cp", &output, "c1:/root/p"]);
    docker.note(log, &["exec", "c1", "cat", "/root/p"]);
    let changes = docker.ok(&["diff", "c1"]);
    let mut changes: Vec<&str> = changes.lines().collect();
    changes.sort_unstable();
    note(log, "diff c1, sorted", &changes.join("\n"), 0);
    docker.ok(&["commit", "c1", "other"]);
    docker.note(log, &[&run[..], &["other", "cat", "/root/o"]].concat());
    docker.note(log, &["pause", "c1"]);
    docker.note(log, &["inspect", "-f", "{{.State.Status}}", "c1"]);
    docker.note(log, &["unpause", "c1"]);
    docker.note(log, &["restart", "-t", "10", "c1"]);
    docker.note(log, &["stop", "-t", "10", "c1"]);
    docker.note(log, &["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c1"]);
    docker.note(log, &["start", "c1"]);
    docker.note(log, &["kill", "c1"]);
    docker.note(log, &["wait", "c1"]);
    docker.note(log, &["rm", "c1"]);
    docker.ok(&["rmi", "other"]);
    limits(docker, log, &run, &detach);
    text
}

#[test]
fn docker_and_its_daemon() {
    let mut docker = Docker::new();
    let reference = scenario(&docker, "runc");
    let ours = scenario(&docker, "ours");
    // The one difference is the name of the runtime.
    same(&reference.replace("--runtime runc", "--runtime"), &ours.replace("--runtime ours", "--runtime"));

    let args = [
        "run",
        "--rm",
        "-it",
        "--runtime",
        "ours",
        "--network",
        "none",
        "-e",
        "PS1=guest$ ",
        "busybox",
        "sh",
    ];
    let mut session = Terminal::start(docker.command().args(args));
    session.expect("guest$ ");
    // Docker tells the size after the start.
    session.type_in(
        "until stty size 2>/dev/null | grep -q '33 101'; do sleep 0.1; done; tty; stty size; exit 5\n",
    );
    session.expect("/dev/pts/0\r\n33 101\r\n");
    assert_eq!(session.end(), Some(5));

    let health = ["--health-cmd", "true", "--health-interval", "1s"];
    let detach = ["run", "-d", "--runtime", "ours", "--network", "none", "--name", "h1"];
    docker.ok(&[&detach[..], &health, &["busybox", "sleep", "1000"]].concat());
    docker.until(&["inspect", "-f", "{{.State.Health.Status}}", "h1"], "healthy");
    docker.crash();
    docker.until(&["inspect", "-f", "{{.State.Status}}", "h1"], "running");
    assert_eq!(docker.ok(&["exec", "h1", "echo", "again"]), "again");
    docker.ok(&["rm", "-f", "h1"]);
    assert_eq!(docker.ok(&["ps", "-aq"]), "");
}
