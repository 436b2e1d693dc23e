//! A person at a terminal: `runsc run` of a shell, driven through a pseudo-terminal. Job control, Ctrl-C, Ctrl-Z,
//! window size, exit status.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};
use tests::bundle::Bundle;
use tests::{PLATFORMS, rootfs};

const PATIENCE: Duration = Duration::from_secs(20);

struct Session {
    _bundle: Bundle,
    child: Child,
    master: OwnedFd,
    seen: String,
}

fn window(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("TIOCSWINSZ");
}

impl Session {
    fn start(platform: &str) -> Session {
        let mut bundle = Bundle::new(rootfs::busybox(), &["/bin/sh"]);
        *bundle.config.pointer_mut("/process/terminal").expect("a field") = json!(true);
        *bundle.config.pointer_mut("/process/env").expect("a field") =
            json!(["PATH=/bin", "PS1=guest$ ", "TERM=dumb"]);
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("/dev/ptmx");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        window(&master, 33, 101);
        let slave = ioctl_tiocgptpeer(&master, flags).expect("a slave");
        let same = || slave.as_fd().try_clone_to_owned().expect("dup");
        let child =
            bundle.run(platform).stdin(same()).stdout(same()).stderr(same()).spawn().expect("runsc starts");
        Session { _bundle: bundle, child, master, seen: String::new() }
    }

    fn type_in(&self, text: &str) {
        rustix::io::write(&self.master, text.as_bytes()).expect("the master can be written");
    }

    /// Reads until `text` has come, and forgets everything up to it.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            assert!(Instant::now() < end, "{text:?} did not come; there is {:?}", self.seen);
            let soon = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if let Ok(1) = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&soon)) {
                let mut buffer = [0_u8; 4096];
                let length = rustix::io::read(&self.master, &mut buffer).unwrap_or(0);
                self.seen.push_str(&String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()));
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_shell_with_job_control() {
    for platform in PLATFORMS {
        let mut session = Session::start(platform);
        session.expect("guest$ ");
        session.type_in("tty; stty size\n");
        session.expect("/dev/pts/0\r\n33 101\r\n");
        session.type_in("sleep 100\n");
        session.expect("sleep 100\r\n");
        std::thread::sleep(Duration::from_millis(300));
        session.type_in("\x03");
        session.expect("^C");
        session.type_in("echo code=$?\n");
        session.expect("\r\ncode=130\r\n");
        session.type_in("sleep 200\n");
        session.expect("sleep 200\r\n");
        std::thread::sleep(Duration::from_millis(300));
        session.type_in("\x1a");
        session.expect("Stopped");
        session.type_in("jobs\n");
        session.expect("Stopped");
        session.type_in("kill %1; fg\n");
        session.expect("Terminated");
        window(&session.master, 44, 120);
        let pid = rustix::process::Pid::from_child(&session.child);
        rustix::process::kill_process(pid, rustix::process::Signal::WINCH).expect("kill");
        std::thread::sleep(Duration::from_millis(200));
        session.type_in("stty size\n");
        session.expect("44 120\r\n");
        session.type_in("exit 5\n");
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = session.child.try_wait().expect("wait") {
                break status;
            }
            assert!(Instant::now() < end, "{platform}: the shell did not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(5), "{platform}");
    }
}
