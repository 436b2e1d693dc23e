//! UNSAFE: ptrace(2) as types. A tracee is either [`Stopped`] or [`Running`]; only a stopped one can be
//! looked at, and each state change consumes the value.
//!
//! All of it works only on the host thread that traces; the values are `!Send` for that reason.

use crate::host::{checked, checked_int, last_errno};
use crate::registers::Registers;
use abi::{Errno, SysResult};
use std::marker::PhantomData;
use zerocopy::IntoBytes;

const NT_PRSTATUS: usize = 1;
const NT_X86_XSTATE: usize = 0x202;
const PTRACE_SYSEMU: libc::c_uint = 31;
const PTRACE_GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
/// More than any XSAVE area of today (AMX: 11 KiB).
const XSTATE_MAX: usize = 64 << 10;

/// Options of every tracee: system call stops are marked, and nothing outlives its tracer.
pub(super) const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
/// Options of a helper thread: its forks are traced from their first instruction on.
pub(super) const HELPER_OPTIONS: libc::c_int = OPTIONS | libc::PTRACE_O_TRACEFORK;

/// A thread in a ptrace stop.
#[derive(Debug)]
pub(super) struct Stopped {
    tid: i32,
    not_send: PhantomData<*const ()>,
}

/// A traced thread that is running, or about to stop.
#[derive(Debug)]
pub(super) struct Running {
    tid: i32,
    not_send: PhantomData<*const ()>,
}

/// Why a thread stopped.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// Entry of a system call (SYSEMU: it will not be carried out).
    Syscall,
    /// A signal is about to be delivered; it is not, unless passed to `resume`.
    Signal(SignalInfo),
    /// PTRACE_EVENT_FORK.
    Fork,
    /// PTRACE_EVENT_STOP and other events.
    Event,
}

/// The parts of `siginfo_t` that faults use.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignalInfo {
    pub(super) signal: i32,
    pub(super) code: i32,
    pub(super) addr: u64,
}

/// The thread is gone (and reaped).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Gone;

/// How to let a thread go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resume {
    /// Until the next system call, which is not carried out.
    Emulate,
    /// Until a signal.
    Freely,
}

fn request(op: libc::c_uint, tid: i32, addr: usize, data: usize) -> SysResult<u64> {
    // SAFETY: callers pass for `addr` and `data` what `op` wants: numbers, or pointers to live buffers.
    let result = unsafe { libc::ptrace(op, tid, addr, data) };
    checked(result)
}

fn wait(tid: i32, flags: libc::c_int) -> SysResult<Option<i32>> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for the call.
        let got = unsafe { libc::waitpid(tid, &raw mut status, flags | libc::__WALL) };
        if got == 0 {
            return Ok(None);
        }
        if got > 0 {
            return Ok(Some(status));
        }
        let error = last_errno();
        if error != Errno::EINTR {
            return Err(error);
        }
    }
}

/// Waits until a process that was killed is gone. Any thread of the tracer's process may do it.
pub(super) fn reap(pid: i32) {
    // A stop may have been on its way when the process was killed.
    while let Ok(status) = wait(pid, 0) {
        if status.is_some_and(|status| libc::WIFEXITED(status) || libc::WIFSIGNALED(status)) {
            return;
        }
    }
}

/// Sends SIGKILL to a stub process.
pub(super) fn kill(pid: i32) {
    // SAFETY: no memory is involved; `pid` is a child of ours that was not reaped yet.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Sends `signal` to one thread of a stub.
pub(super) fn signal_thread(pid: i32, tid: i32, signal: libc::c_int) {
    // SAFETY: no memory is involved.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
}

impl Running {
    /// A fresh child that asked to be traced (PTRACE_TRACEME, or a fork of a helper).
    pub(super) fn child(tid: i32) -> Running {
        Running { tid, not_send: PhantomData }
    }

    /// Starts tracing a thread that nobody traces, and asks it to stop.
    pub(super) fn seize(tid: i32) -> SysResult<Running> {
        request(libc::PTRACE_SEIZE, tid, 0, OPTIONS.cast_unsigned() as usize)?;
        request(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
        Ok(Running::child(tid))
    }

    /// Waits for the next stop.
    pub(super) fn wait(self) -> Result<(Stopped, Stop), Gone> {
        let status = match wait(self.tid, 0) {
            Ok(Some(status)) => status,
            Ok(None) | Err(_) => return Err(Gone),
        };
        if !libc::WIFSTOPPED(status) {
            return Err(Gone);
        }
        let stopped = Stopped { tid: self.tid, not_send: PhantomData };
        let signal = libc::WSTOPSIG(status);
        let stop = match status >> 16 {
            0 if signal == libc::SIGTRAP | 0x80 => Stop::Syscall,
            0 => match stopped.siginfo(signal) {
                Ok(info) => Stop::Signal(info),
                // Killed between the stop and the question; the next wait says so.
                Err(_) => Stop::Event,
            },
            libc::PTRACE_EVENT_FORK => Stop::Fork,
            _ => Stop::Event,
        };
        Ok((stopped, stop))
    }
}

impl Stopped {
    pub(super) fn tid(&self) -> i32 {
        self.tid
    }

    pub(super) fn set_options(&self, options: libc::c_int) -> SysResult<()> {
        request(libc::PTRACE_SETOPTIONS, self.tid, 0, options.cast_unsigned() as usize).map(|_| ())
    }

    pub(super) fn resume(self, how: Resume) -> Running {
        let op = match how {
            Resume::Emulate => PTRACE_SYSEMU,
            Resume::Freely => libc::PTRACE_CONT,
        };
        // A failure means that the thread was killed: `wait` reports it.
        let _ = request(op, self.tid, 0, 0);
        Running { tid: self.tid, not_send: PhantomData }
    }

    fn siginfo(&self, signal: i32) -> SysResult<SignalInfo> {
        // SAFETY: all-zero is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        request(libc::PTRACE_GETSIGINFO, self.tid, 0, &raw mut info as usize)?;
        // SAFETY: reading the address field of a fully initialised siginfo_t; its meaning is checked by
        // signal and code later.
        let addr = unsafe { info.si_addr() } as u64;
        Ok(SignalInfo { signal, code: info.si_code, addr })
    }

    /// The pid of the child that a `Stop::Fork` announced.
    pub(super) fn event_message(&self) -> SysResult<u64> {
        let mut message: libc::c_ulong = 0;
        request(libc::PTRACE_GETEVENTMSG, self.tid, 0, &raw mut message as usize)?;
        Ok(message)
    }

    pub(super) fn registers(&self) -> SysResult<Registers> {
        let mut registers = Registers::default();
        let bytes = registers.as_mut_bytes();
        let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        request(libc::PTRACE_GETREGSET, self.tid, NT_PRSTATUS, &raw mut iov as usize)?;
        Ok(registers)
    }

    pub(super) fn set_registers(&self, registers: &Registers) -> SysResult<()> {
        let mut copy = *registers;
        let bytes = copy.as_mut_bytes();
        let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        request(libc::PTRACE_SETREGSET, self.tid, NT_PRSTATUS, &raw mut iov as usize).map(|_| ())
    }

    pub(super) fn xstate(&self) -> SysResult<Vec<u8>> {
        let mut bytes = vec![0u8; XSTATE_MAX];
        let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        request(libc::PTRACE_GETREGSET, self.tid, NT_X86_XSTATE, &raw mut iov as usize)?;
        bytes.truncate(iov.iov_len);
        Ok(bytes)
    }

    /// `area` must have the size that `xstate` gives.
    pub(super) fn set_xstate(&self, area: &mut [u8]) -> SysResult<()> {
        let mut iov = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
        request(libc::PTRACE_SETREGSET, self.tid, NT_X86_XSTATE, &raw mut iov as usize).map(|_| ())
    }

    /// The word at an address of the tracee.
    pub(super) fn peek(&self, addr: u64) -> SysResult<u64> {
        let mut word: libc::c_long = 0;
        let addr = usize::try_from(addr).map_err(|_| Errno::EFAULT)?;
        // SAFETY: the raw call (unlike the wrapper of libc) stores the word at its fourth argument.
        let result = unsafe {
            libc::syscall(libc::SYS_ptrace, libc::PTRACE_PEEKDATA, self.tid, addr, &raw mut word as usize)
        };
        checked(result)?;
        Ok(word.cast_unsigned())
    }

    /// Stores a word at an address of the tracee.
    pub(super) fn poke(&self, addr: u64, word: u64) -> SysResult<()> {
        let addr = usize::try_from(addr).map_err(|_| Errno::EFAULT)?;
        let word = usize::try_from(word).map_err(|_| Errno::EFAULT)?;
        request(libc::PTRACE_POKEDATA, self.tid, addr, word).map(|_| ())
    }

    /// Where the thread registered its rseq area: address, length and signature.
    pub(super) fn rseq(&self) -> Option<(u64, u64, u64)> {
        #[repr(C)]
        #[derive(Default)]
        struct Configuration {
            pointer: u64,
            size: u32,
            signature: u32,
            flags: u32,
            pad: u32,
        }
        let mut found = Configuration::default();
        let size = size_of::<Configuration>();
        request(PTRACE_GET_RSEQ_CONFIGURATION, self.tid, size, &raw mut found as usize).ok()?;
        (found.pointer != 0).then(|| (found.pointer, found.size.into(), found.signature.into()))
    }
}

/// A connected pair of datagram sockets for [`send_descriptor`].
pub(super) fn socket_pair() -> SysResult<(std::os::unix::net::UnixDatagram, std::os::unix::net::UnixDatagram)>
{
    Ok(std::os::unix::net::UnixDatagram::pair()?)
}

/// Queues one byte with one descriptor.
pub(super) fn send_descriptor(
    socket: &std::os::unix::net::UnixDatagram,
    fd: std::os::fd::BorrowedFd<'_>,
) -> SysResult<()> {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::EINVAL);
    }
    let data = [std::io::IoSlice::new(b"f")];
    sendmsg(socket, &data, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
        .map(|_| ())
        .map_err(crate::host::errno)
}

/// Throws away whatever is queued.
pub(super) fn drain(socket: &std::os::unix::net::UnixDatagram) {
    let mut byte = 0u8;
    loop {
        // SAFETY: `byte` is valid for one byte. Without a control buffer the host closes what was sent.
        let got = unsafe {
            use std::os::fd::AsRawFd;
            libc::recv(socket.as_raw_fd(), (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT)
        };
        if checked_int(libc::c_int::try_from(got).unwrap_or(-1)).is_err() {
            return;
        }
    }
}
