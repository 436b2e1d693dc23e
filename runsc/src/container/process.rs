//! A process of ours by pid and start time: a reused pid is not mistaken for it.

use platform::spawn::Child;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsRawFd, OwnedFd};

/// How long the end of a killed process is waited for.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// A pid and the start time (clock ticks since boot) that goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct ProcessRef {
    /// Pid on the host.
    pub(crate) pid: i32,
    /// Field 22 of /proc/PID/stat.
    pub(crate) start: u64,
}

/// State letter and start time of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // The name, in parentheses, may hold anything; the fields begin behind the last one.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let letter = fields.next()?.chars().next()?;
    let start = fields.nth(18)?.parse().ok()?;
    Some((letter, start))
}

/// A child's pid as /proc has it: the monitor may live in a pid namespace of its own.
pub(crate) fn host_pid(child: &Child) -> i32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", child.pidfd.as_raw_fd()));
    let of_line = |line: &str| line.strip_prefix("Pid:")?.trim().parse().ok();
    let told = info.ok().and_then(|info| info.lines().find_map(of_line));
    told.filter(|pid| *pid > 0).unwrap_or(child.pid)
}

impl ProcessRef {
    /// The process that has `pid` now.
    pub(crate) fn of(pid: i32) -> Option<ProcessRef> {
        let (_, start) = stat(pid)?;
        Some(ProcessRef { pid, start })
    }

    /// A child, also of a process in a pid namespace of its own.
    pub(crate) fn of_child(child: &Child) -> Option<ProcessRef> {
        ProcessRef::of(host_pid(child))
    }

    /// Whether it still runs (a zombie does not).
    pub(crate) fn alive(self) -> bool {
        matches!(stat(self.pid), Some((letter, start)) if start == self.start && !matches!(letter, 'Z' | 'X'))
    }

    /// A pidfd, if it is still the same process.
    pub(crate) fn open(self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // The pid cannot be reused while the descriptor pins the process: check after opening.
        self.alive().then_some(fd)
    }

    /// Whether it is the calling one.
    pub(crate) fn is_own(self) -> bool {
        // In a pid namespace of its own it has another pid than others know.
        let own = std::fs::read_link("/proc/self").ok().and_then(|own| own.to_str()?.parse().ok());
        own == Some(self.pid)
    }

    /// Waits for its end, ten seconds at most.
    pub(crate) fn await_end(self) {
        if let Some(fd) = self.open() {
            let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&PATIENCE));
        }
    }

    /// Kills it, if it is still there.
    pub(crate) fn kill(self) {
        if let Some(fd) = self.open() {
            let _ = pidfd_send_signal(&fd, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProcessRef;

    #[test]
    fn self_is_alive_and_another_start_time_is_not() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = ProcessRef::of(pid).unwrap();
        assert!(me.alive());
        assert!(!ProcessRef { pid, start: me.start + 1 }.alive());
    }
}
