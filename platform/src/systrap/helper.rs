//! The sentry's end of a helper thread: lists of host calls that run inside the stub process.
//!
//! The list stands in a page that only the sentry can write; the helper reports over a socket that guest
//! threads cannot use (their filters notify every call they make). Between two batches the descriptor table
//! of a stub holds exactly [`MEMORY_FD`], [`SHARED_FD`] and [`SOCKET_FD`], so the numbers of descriptors
//! that a batch makes are known beforehand.

use super::slots::Control;
use super::sys;
use crate::stub::layout::{CHILD_LIST, CONTROL, ENTRY, LIST, LIST_LEN, MESSAGE, SCRATCH, SECOND_LIST};
use abi::{Errno, SysResult};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The memory file in every stub.
pub(super) const MEMORY_FD: u64 = 0;
/// The file of control pages and areas.
pub(super) const SHARED_FD: u64 = 1;
/// The helper's socket.
pub(super) const SOCKET_FD: u64 = 2;
/// The first descriptor that a batch makes.
pub(super) const FIRST_FD: u64 = 3;

/// Most calls in a batch.
pub(super) const BATCH: usize = 46;

/// What the helper does about an entry's result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Mode {
    /// End of the list, without a report.
    Quiet = 0,
    /// Any error ends the list and is reported.
    Check = 1,
    /// End of the list: report success.
    Done = 2,
    /// Become a guest thread whose area is the first argument.
    Enter = 3,
    /// A clone: the child goes on with the child list.
    Clone = 4,
    /// Errors do not matter.
    Ignore = 5,
    /// Repeat while the answer is EBADF, letting others run.
    Retry = 6,
    /// After an error, unmap the range (first two arguments): mprotect(2) stops at the first hole, and what
    /// is unmapped faults back in with the right access.
    OrUnmap = 7,
}

/// One host call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) mode: Mode,
    pub(super) number: i64,
    pub(super) args: [u64; 6],
}

impl Call {
    /// A call that must succeed.
    pub(super) fn new(number: i64, args: [u64; 6]) -> Call {
        Call { mode: Mode::Check, number, args }
    }
    /// An end mark.
    pub(super) fn end(mode: Mode) -> Call {
        Call { mode, number: 0, args: [0; 6] }
    }
    /// close(2).
    pub(super) fn close(fd: u64) -> Call {
        Call::new(libc::SYS_close, [fd, 0, 0, 0, 0, 0])
    }
}

/// One helper thread, idle. Whoever holds the lock around it may run a batch.
#[derive(Debug)]
pub(super) struct Helper {
    socket: OwnedFd,
    control: Control,
    /// Whether the second list is next.
    second: AtomicBool,
}

impl Helper {
    pub(super) fn new(socket: OwnedFd, control: Control) -> Helper {
        Helper { socket, control, second: AtomicBool::new(false) }
    }

    /// The control page.
    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    fn write(&self, at: u64, calls: &[Call]) {
        let mut at = at;
        for call in calls {
            let number = u64::try_from(call.number).unwrap_or(u64::from(u32::MAX)) & 0xffff_ffff;
            let mut words = [0_u64; 8];
            words[0] = number | u64::from(call.mode as u32) << 32;
            words[1..7].copy_from_slice(&call.args);
            words[7] = CONTROL + CHILD_LIST;
            self.control.store_words(at, &words);
            at += ENTRY;
        }
    }

    /// Writes the list that the child of a clone runs.
    pub(super) fn child(&self, calls: &[Call]) {
        self.write(CHILD_LIST, calls);
    }

    /// Writes a `struct msghdr` whose control message carries `fd` to the sentry, and gives its address.
    pub(super) fn message_with(&self, fd: u64) -> u64 {
        let at = CONTROL + MESSAGE;
        let (iov, control) = (at + 64, at + 96);
        // The payload is any byte: length 1 says success.
        let header = [0, 0, iov, 1, control, 24, 0, 0, at, 1, 0, 0];
        self.control.store_words(MESSAGE, &header);
        let level_and_type = 1 | 1 << 32;
        self.control.store_words(MESSAGE + 96, &[20, level_and_type, fd]);
        at
    }

    /// Writes a `struct msghdr` that receives up to 100 descriptors into the scratch page, and gives its
    /// address. The call that uses it fails with EFAULT at the very end, since the header is read-only for
    /// the stub; the descriptors are installed by then, and a missing one shows at its first use.
    pub(super) fn message_for_files(&self) -> u64 {
        let at = CONTROL + MESSAGE;
        self.control.store_words(MESSAGE, &[0, 0, at + 64, 1, SCRATCH, 512, 0, 0, SCRATCH + 1024, 1]);
        at
    }

    /// Address of a word that the host may write and nobody reads.
    pub(super) fn scratch_word() -> u64 {
        SCRATCH + 0x800
    }

    /// Closes what a failed batch may have left open.
    pub(super) fn close_strays(&self) {
        let close = |fd| Call { mode: Mode::Ignore, ..Call::close(fd) };
        // A dead helper has no descriptors.
        let _ = self.run(&[close(FIRST_FD), close(FIRST_FD + 1)], &[]);
    }

    /// Runs `calls`; `fds` are sent behind the wake-up for a recvmsg among them.
    pub(super) fn run(&self, calls: &[Call], fds: &[i32]) -> SysResult<()> {
        self.start(calls, Mode::Done, fds)?;
        match sys::receive_length(self.socket.as_fd())? {
            0 => Err(crate::DEAD),
            1 => Ok(()),
            code => Err(i32::try_from(code - 1).map_or(Errno::EIO, Errno::from_raw)),
        }
    }

    /// Runs `calls`, one of which sends the report itself.
    pub(super) fn run_reporting(&self, calls: &[Call]) -> SysResult<sys::Report> {
        self.start(calls, Mode::Quiet, &[])?;
        let report = sys::receive_report(self.socket.as_fd())?;
        match report.length {
            0 => Err(crate::DEAD),
            1 => Ok(report),
            code => Err(i32::try_from(code - 1).map_or(Errno::EIO, Errno::from_raw)),
        }
    }

    /// Asks a fresh helper for its pid.
    pub(super) fn identify(&self) -> SysResult<i32> {
        sys::want_credentials(self.socket.as_fd())?;
        self.start(&[], Mode::Done, &[])?;
        let report = sys::receive_report(self.socket.as_fd())?;
        match (report.length, report.pid) {
            (1, Some(pid)) if pid > 1 => Ok(pid),
            _ => Err(crate::DEAD),
        }
    }

    fn start(&self, calls: &[Call], end: Mode, fds: &[i32]) -> SysResult<()> {
        if calls.len() as u64 >= LIST_LEN {
            return Err(Errno::E2BIG);
        }
        let second = self.second.fetch_xor(true, Ordering::Relaxed);
        let list = if second { SECOND_LIST } else { LIST };
        self.write(list, calls);
        self.write(list + ENTRY * calls.len() as u64, &[Call::end(end)]);
        sys::send(self.socket.as_fd(), if second { &[0; 2] } else { &[0; 1] }, &[])?;
        if !fds.is_empty() {
            sys::send(self.socket.as_fd(), &[0; 1], fds)?;
        }
        Ok(())
    }
}
