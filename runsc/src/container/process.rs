//! A process of ours by pid and start time: a reused pid is not mistaken for it.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

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

impl ProcessRef {
    /// The process that has `pid` now.
    pub(crate) fn of(pid: i32) -> Option<ProcessRef> {
        let (_, start) = stat(pid)?;
        Some(ProcessRef { pid, start })
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
