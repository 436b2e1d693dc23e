//! A person at a terminal: a command driven through a pseudo-terminal.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A command in front of a terminal; killed when dropped.
#[derive(Debug)]
pub struct Terminal {
    /// The command.
    pub child: Child,
    master: OwnedFd,
    seen: String,
}

impl Terminal {
    /// Starts a command at a terminal of 33 rows and 101 columns.
    #[must_use]
    pub fn start(command: &mut Command) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("/dev/ptmx");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        resize(&master, 33, 101);
        let slave = ioctl_tiocgptpeer(&master, flags).expect("a slave");
        let same = || slave.as_fd().try_clone_to_owned().expect("dup");
        let child = command.stdin(same()).stdout(same()).stderr(same()).spawn().expect("the command starts");
        Terminal { child, master, seen: String::new() }
    }

    /// Changes the window.
    pub fn resize(&self, rows: u16, columns: u16) {
        resize(&self.master, rows, columns);
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::WINCH).expect("kill");
    }

    /// Types.
    pub fn type_in(&self, text: &str) {
        rustix::io::write(&self.master, text.as_bytes()).expect("the master can be written");
    }

    /// Reads until `text` has come, and forgets everything up to it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) {
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

    /// Waits for the command's end.
    #[track_caller]
    pub fn end(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            assert!(Instant::now() < end, "no end; there is {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn resize(master: &OwnedFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("TIOCSWINSZ");
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
