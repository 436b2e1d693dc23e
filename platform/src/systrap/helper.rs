//! The sentry's end of a stub's own threads: lists of host calls that run inside the stub process.
//!
//! There are two, because guest threads come from a thread without a listener, and a listener is the quickest way
//! to hand over. The *helper*, the process's first thread, makes threads and processes and talks over a socket.
//! The *mapper*, made when the first list for it comes, changes mappings; it waits and reports in a notification
//! that wakes the other side on the same CPU.
//!
//! Lists stand in pages that only the sentry can write; guest threads can use neither the sockets (their filters
//! notify every call they make) nor the mapper's listener. Between two batches the descriptor table of a stub
//! holds exactly [`MEMORY_FD`], [`SHARED_FD`], [`SOCKET_FD`] and perhaps [`FILES_FD`], so the numbers of
//! descriptors that a batch makes are known beforehand.

use super::slots::Control;
use super::sys;
use crate::stub;
use crate::stub::filter::{FILTER_FLAGS, MAPPER_PROGRAM};
use crate::stub::layout::{
    AREA_COUNT, AREA_SIZE, AREAS, CHILD_LIST, CONTROL, CONTROL_SIZE, ENTRY, FILES_MESSAGE, LIST, LIST_LEN,
    MAP_LIST, MESSAGE, SCRATCH, SECOND_LIST, SWITCH,
};
use abi::{Errno, SysResult};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The memory file in every stub.
pub(super) const MEMORY_FD: u64 = 0;
/// The file of control pages and areas.
pub(super) const SHARED_FD: u64 = 1;
/// The helper's socket.
pub(super) const SOCKET_FD: u64 = 2;
/// The mapper's end of the socket by which it gets files.
pub(super) const FILES_FD: u64 = 63;
/// The first descriptor that a batch makes.
pub(super) const FIRST_FD: u64 = 3;

/// CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM.
pub(super) const CLONE_THREAD: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000;

const CLONE_PARENT: u64 = 0x8000;
const MAP_SHARED: u64 = 1;
const MAP_FIXED: u64 = 0x10;
/// Offset of a word that is 1.
const ONE: u64 = MESSAGE + 0xf0;

/// Most calls in a batch.
pub(super) const BATCH: usize = 46;

/// What the helper does about an entry's result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Mode {
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
    /// Become the mapper.
    Map = 8,
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

/// A mapper's list for the helper, which gets files by its own socket.
fn calls_of_helper(calls: &[Call]) -> Vec<Call> {
    let mut calls = calls.to_vec();
    for call in calls.iter_mut().filter(|call| call.number == libc::SYS_recvmsg) {
        call.args[0] = SOCKET_FD;
    }
    calls
}

/// The sentry's end of a mapper, which is parked in a notification.
#[derive(Debug)]
struct Mapper {
    listener: OwnedFd,
    files: OwnedFd,
    parked: u64,
}

impl Mapper {
    /// The next report: zero or an errno.
    fn report(&mut self) -> SysResult<u64> {
        let notification = sys::next(self.listener.as_fd())?;
        if notification.number != SWITCH || notification.ip != stub::mapper() {
            return Err(crate::DEAD);
        }
        self.parked = notification.id;
        Ok(notification.args[0])
    }
}

/// A stub's own threads, idle. Whoever holds the lock around it may run a batch.
#[derive(Debug)]
pub(super) struct Helper {
    socket: OwnedFd,
    control: Control,
    /// Whether the second list is next.
    second: AtomicBool,
    mapper: Option<Mapper>,
}

impl Helper {
    pub(super) fn new(socket: OwnedFd, control: Control) -> Helper {
        Helper { socket, control, second: AtomicBool::new(false), mapper: None }
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

    /// Writes a `struct msghdr` whose control message carries a descriptor or two to the sentry, and gives its
    /// address.
    pub(super) fn message_with(&self, fd: u64, second: Option<u64>) -> u64 {
        let at = CONTROL + MESSAGE;
        let (iov, control) = (at + 64, at + 96);
        // The payload is any byte: length 1 says success.
        let header = [0, 0, iov, 1, control, 24, 0, 0, at, 1, 0, 0];
        self.control.store_words(MESSAGE, &header);
        let level_and_type = 1 | 1 << 32;
        let len = if second.is_some() { 24 } else { 20 };
        self.control.store_words(MESSAGE + 96, &[len, level_and_type, fd | second.unwrap_or_default() << 32]);
        at
    }

    /// Writes a `struct msghdr` that receives up to 100 descriptors into the scratch page, and gives its
    /// address. The call that uses it fails with EFAULT at the very end, since the header is read-only for
    /// the stub; the descriptors are installed by then, and a missing one shows at its first use.
    pub(super) fn message_for_files(&self) -> u64 {
        let at = CONTROL + FILES_MESSAGE;
        self.control.store_words(FILES_MESSAGE, &[0, 0, at + 64, 1, SCRATCH, 512, 0, 0, SCRATCH + 1024, 1]);
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

    /// Has the mapper run `calls`, the first of which takes `fds` from [`FILES_FD`] if there are any. An error
    /// of `DEAD` says that the stub is dead or has to die.
    pub(super) fn map(&mut self, calls: &[Call], fds: &[i32]) -> SysResult<()> {
        if calls.len() as u64 >= LIST_LEN {
            return Err(Errno::E2BIG);
        }
        if self.mapper.is_none() {
            match self.start_mapper() {
                Ok(mapper) => self.mapper = Some(mapper),
                Err(crate::DEAD) => return Err(crate::DEAD),
                // The host has no thread to spare: the helper can do it as well.
                Err(_) => return self.run(&calls_of_helper(calls), fds),
            }
        }
        crate::errand::begin();
        self.write(MAP_LIST, calls);
        self.write(MAP_LIST + ENTRY * calls.len() as u64, &[Call::end(Mode::Done)]);
        let Some(mapper) = &mut self.mapper else { return Err(crate::DEAD) };
        if !fds.is_empty() {
            sys::send(mapper.files.as_fd(), &[0; 1], fds)?;
        }
        sys::reply(mapper.listener.as_fd(), mapper.parked, 1).map_err(|_| crate::DEAD)?;
        match mapper.report()? {
            0 => Ok(()),
            code => Err(i32::try_from(code).map_or(Errno::EIO, Errno::from_raw)),
        }
    }

    /// Clones the mapper and waits until it is parked.
    fn start_mapper(&self) -> SysResult<Mapper> {
        let (sentry_end, stub_end) = (FIRST_FD, FIRST_FD + 1);
        // Its number is free again by the time the filter is made.
        let listener = stub_end;
        self.child(&[
            Call::new(libc::SYS_seccomp, [1, FILTER_FLAGS, MAPPER_PROGRAM, 0, 0, 0]),
            Call::end(Mode::Map),
        ]);
        let message = self.message_with(listener, Some(sentry_end));
        let report = self.run_reporting(&[
            Call::new(libc::SYS_socketpair, [1, 5, 0, Helper::scratch_word(), 0, 0]),
            Call::new(libc::SYS_dup3, [stub_end, FILES_FD, 0, 0, 0, 0]),
            Call::close(stub_end),
            Call { mode: Mode::Clone, ..Call::new(libc::SYS_clone, [CLONE_THREAD, 0, 0, 0, 0, 0]) },
            Call { mode: Mode::Retry, ..Call::new(libc::SYS_sendmsg, [SOCKET_FD, message, 0x4000, 0, 0, 0]) },
            Call::close(sentry_end),
            Call::close(listener),
        ]);
        if report.is_err() {
            self.close_strays();
        }
        let mut fds = report?.fds.into_iter();
        let (Some(listener), Some(files)) = (fds.next(), fds.next()) else { return Err(Errno::EAGAIN) };
        sys::wake_synchronously(listener.as_fd(), true);
        let mut mapper = Mapper { listener, files, parked: 0 };
        // Until then it reads the child's list.
        match mapper.report()? {
            0 => Ok(mapper),
            _ => Err(crate::DEAD),
        }
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

    /// Runs `calls`, one of which sends a report itself. They have all run when this returns: a mapper would find
    /// other descriptor numbers than the sentry thinks.
    pub(super) fn run_reporting(&self, calls: &[Call]) -> SysResult<sys::Report> {
        self.start(calls, Mode::Done, &[])?;
        let report = sys::receive_report(self.socket.as_fd())?;
        match report.length {
            0 => Err(crate::DEAD),
            1 if sys::receive_length(self.socket.as_fd())? == 1 => Ok(report),
            1 => Err(crate::DEAD),
            code => Err(i32::try_from(code - 1).map_or(Errno::EIO, Errno::from_raw)),
        }
    }

    /// Asks the template's helper for its pid.
    pub(super) fn ask_identity(&self) -> SysResult<i32> {
        sys::want_credentials(self.socket.as_fd())?;
        self.start(&[], Mode::Done, &[])?;
        self.identity()
    }

    /// The pid of a process that has spoken first.
    fn identity(&self) -> SysResult<i32> {
        let report = sys::receive_report(self.socket.as_fd())?;
        match (report.length, report.pid) {
            (1, Some(pid)) if pid > 1 => Ok(pid),
            _ => Err(crate::DEAD),
        }
    }

    /// Clones this process into one whose helper gets `control`. `spawned` takes the pid as soon as it is known.
    pub(super) fn clone_process<P>(
        &self,
        control: Control,
        spawned: impl FnOnce(i32) -> P,
    ) -> SysResult<(P, Helper)> {
        let (sentry_end, stub_end) = (FIRST_FD, FIRST_FD + 1);
        let ignore = |call| Call { mode: Mode::Ignore, ..call };
        let child = [
            Call::close(sentry_end),
            Call::new(libc::SYS_dup3, [stub_end, SOCKET_FD, 0, 0, 0, 0]),
            Call::close(stub_end),
            // Says who it is before anything can go wrong.
            ignore(Call::new(libc::SYS_sendto, [SOCKET_FD, CONTROL, 1, 0x4000, 0, 0])),
            ignore(Call::close(FILES_FD)),
            Call::new(libc::SYS_munmap, [AREAS, AREA_SIZE * AREA_COUNT, 0, 0, 0, 0]),
            // The list goes on in the new page, which says Done.
            Call::new(
                libc::SYS_mmap,
                [CONTROL, CONTROL_SIZE, 1, MAP_SHARED | MAP_FIXED, SHARED_FD, control.offset()],
            ),
        ];
        self.child(&child);
        control.store_words(CHILD_LIST + ENTRY * child.len() as u64, &[u64::from(Mode::Done as u32) << 32]);
        let message = self.message_with(sentry_end, None);
        self.control.store_words(ONE, &[1]);
        let passcred = [sentry_end, 1, 16, CONTROL + ONE, 4, 0];
        let report = self.run_reporting(&[
            Call::new(libc::SYS_socketpair, [1, 5, 0, Helper::scratch_word(), 0, 0]),
            Call::new(libc::SYS_setsockopt, passcred),
            Call { mode: Mode::Clone, ..Call::new(libc::SYS_clone, [CLONE_PARENT, 0, 0, 0, 0, 0]) },
            Call::new(libc::SYS_sendmsg, [SOCKET_FD, message, 0x4000, 0, 0, 0]),
            Call::close(sentry_end),
            Call::close(stub_end),
        ]);
        if report.is_err() {
            self.close_strays();
        }
        let socket = report?.fds.pop().ok_or(Errno::EAGAIN)?;
        let helper = Helper::new(socket, control);
        let process = spawned(helper.identity()?);
        match sys::receive_length(helper.socket.as_fd())? {
            1 => Ok((process, helper)),
            _ => Err(crate::DEAD),
        }
    }

    fn start(&self, calls: &[Call], end: Mode, fds: &[i32]) -> SysResult<()> {
        if calls.len() as u64 >= LIST_LEN {
            return Err(Errno::E2BIG);
        }
        crate::errand::begin();
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
