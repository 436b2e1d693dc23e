//! Interactive bash on a real terminal: a pseudo-terminal is typed at, as a person would.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tests::bundle::Bundle;
use tests::{PLATFORMS, rootfs};

/// The host's own kernel: the test must be right about it first.
const LINUX: &str = "linux";
const LIMIT: Duration = Duration::from_secs(30);

/// A person at a terminal.
struct Session {
    master: File,
    child: Child,
    seen: String,
    // The sandbox is deleted with it.
    _bundle: Bundle,
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Session {
    fn open(platform: &str) -> Session {
        let mut bundle = Bundle::new(rootfs::debian(), &["/bin/bash", "--norc", "--noprofile", "-i"]);
        if let Some(process) = bundle.config.pointer_mut("/process") {
            process["terminal"] = json!(true);
            process["env"] = json!(["PATH=/usr/bin:/bin", "TERM=dumb", "PS1=ready> ", "HOME=/root"]);
        }
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        tcsetwinsize(&master, window(24, 80)).expect("a window size");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let name = name.to_str().expect("its name is ASCII");
        let slave = || Stdio::from(File::options().read(true).write(true).open(name).expect("the slave"));
        let run = if platform == LINUX {
            let mut bash = Command::new("env");
            bash.args(["-i", "PATH=/usr/bin:/bin", "TERM=dumb", "PS1=ready> ", "HOME=/root"]);
            bash.args(["/bin/bash", "--norc", "--noprofile", "-i"]);
            bash
        } else {
            bundle.run(platform)
        };
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg("--wait")
            .arg(run.get_program())
            .args(run.get_args())
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("setsid (package util-linux)");
        Session { master: File::from(master), child, seen: String::new(), _bundle: bundle }
    }

    /// Types bytes.
    fn keys(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until `want` is shown after what was seen before; returns what came up to it.
    #[track_caller]
    fn wait_for(&mut self, want: &str) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.seen.find(want) {
                let rest = self.seen.split_off(at + want.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let left = end.saturating_duration_since(Instant::now());
            let timeout = rustix::time::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let ready = {
                let mut fds = [PollFd::from_borrowed_fd(self.master.as_fd(), PollFlags::IN)];
                poll(&mut fds, Some(&timeout)).expect("poll")
            };
            assert!(ready > 0, "{want:?} never came; shown so far: {:?}", self.seen);
            let mut bytes = [0; 4096];
            let count = self.master.read(&mut bytes).unwrap_or(0);
            assert!(count > 0, "the terminal closed before {want:?}; shown so far: {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()));
        }
    }

    /// Types a line and waits for the next prompt; returns what the command showed.
    #[track_caller]
    fn line(&mut self, text: &str) -> String {
        self.keys(text);
        self.keys("\r");
        self.wait_for("\r\n");
        self.wait_for("ready> ")
    }
}

fn on(platform: &str) {
    eprintln!("on {platform}");
    let mut bash = Session::open(platform);
    bash.wait_for("ready> ");
    assert!(bash.line("tty; test -t 0 && echo is-a-tty").contains("is-a-tty"), "{platform}: no terminal");
    // The window: as opened, then resized.
    assert!(bash.line("stty size").contains("24 80"), "{platform}: window size");
    tcsetwinsize(&bash.master, window(40, 132)).expect("resize");
    assert!(bash.line("stty size").contains("40 132"), "{platform}: resized window");
    // Ctrl-C kills the job, not the shell.
    // It says that it runs: before that the terminal may still be the shell's.
    bash.keys("sh -c 'echo running; exec sleep 100'\r");
    bash.wait_for("running\r\n");
    bash.keys("\u{3}");
    bash.wait_for("ready> ");
    assert!(bash.line("echo status $?").contains("status 130"), "{platform}: Ctrl-C");
    // Ctrl-Z stops it, fg goes on with it.
    bash.keys("sh -c 'echo running; exec cat'\r");
    bash.wait_for("running\r\n");
    bash.keys("one\r");
    bash.wait_for("one\r\none\r\n");
    bash.keys("\u{1a}");
    bash.wait_for("Stopped");
    bash.wait_for("ready> ");
    assert!(bash.line("jobs").contains("Stopped"), "{platform}: jobs");
    bash.keys("fg\r");
    bash.wait_for("exec cat'\r\n");
    bash.keys("two\r");
    // Echoed, and said again by cat, in whatever order: the shell hands the terminal over meanwhile.
    bash.wait_for("two");
    bash.wait_for("two\r\n");
    bash.keys("\u{4}");
    bash.wait_for("ready> ");
    // Background jobs and their end.
    assert!(bash.line("sleep 0.1 & wait; echo done").contains("done"), "{platform}: wait");
    bash.keys("exit 7\r");
    bash.wait_for("exit\r\n");
    let status = bash.child.wait().expect("runsc ends");
    assert_eq!(status.code(), Some(7), "{platform}: exit status");
}

#[test]
fn job_control_window_and_status() {
    on(LINUX);
    for platform in PLATFORMS {
        on(platform);
    }
}
