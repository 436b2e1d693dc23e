//! UNSAFE: the host calls of this backend that no library offers.

use abi::{Errno, SysResult};
use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;
use smallvec::SmallVec;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

fn last() -> Errno {
    std::io::Error::last_os_error().into()
}

/// Whether the processor has RDPID.
pub(crate) fn has_rdpid() -> bool {
    core::arch::x86_64::__cpuid_count(7, 0).ecx & 1 << 22 != 0
}

/// The CPU this thread runs on, without its node. Only where the processor has RDPID.
pub(crate) fn this_cpu() -> u64 {
    let cpu: u64;
    // SAFETY: reads one register that the kernel keeps for this purpose.
    unsafe { core::arch::asm!("rdpid {}", out(reg) cpu, options(nomem, nostack, preserves_flags)) };
    cpu & 0xfff
}

/// A notification of seccomp_unotify(2).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Notification {
    pub(super) id: u64,
    pub(super) pid: u32,
    pub(super) flags: u32,
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) ip: u64,
    pub(super) args: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    value: u64,
    error: i32,
    flags: u32,
}

const NOTIF_RECV: libc::Ioctl = 0xc050_2100;
const NOTIF_SEND: libc::Ioctl = 0xc018_2101;
const NOTIF_SET_FLAGS: libc::Ioctl = 0x4008_2104;

/// Whether notifications and replies wake the other side at once and on the caller's CPU. Unknown before
/// Linux 6.6: the call then fails and the ordinary wake-up is used.
pub(super) fn wake_synchronously(listener: BorrowedFd<'_>, yes: bool) {
    // SAFETY: the argument is a plain number.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SET_FLAGS, u64::from(yes)) };
}

/// Waits for the next notification. `EINTR` when a signal came.
pub(super) fn receive(listener: BorrowedFd<'_>) -> SysResult<Notification> {
    let mut notification = Notification::default();
    // SAFETY: the structure has the size the request number names.
    if unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV, &raw mut notification) } == 0 {
        Ok(notification)
    } else {
        Err(last())
    }
}

/// The next notification; `DEAD` when the thread is gone.
pub(super) fn next(listener: BorrowedFd<'_>) -> SysResult<Notification> {
    loop {
        if !receive_sees_death() && !wait_listener(listener) {
            return Err(crate::DEAD);
        }
        match receive(listener) {
            Err(Errno::EINTR) => {}
            // Withdrawn by a signal to the stub thread, or that thread has ended.
            Err(Errno::ENOENT) if !is_dead(listener) => {}
            Err(_) => return Err(crate::DEAD),
            Ok(notification) => return Ok(notification),
        }
    }
}

/// Lets the notified call return `value`.
pub(super) fn reply(listener: BorrowedFd<'_>, id: u64, value: u64) -> SysResult<()> {
    let response = Response { id, value, error: 0, flags: 0 };
    // SAFETY: the structure has the size the request number names.
    if unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND, &raw const response) } == 0 {
        Ok(())
    } else {
        Err(last())
    }
}

/// Whether a waiting `receive` ends when the last thread of the listener does (Linux 6.11).
pub(super) fn receive_sees_death() -> bool {
    static NEW: OnceLock<bool> = OnceLock::new();
    *NEW.get_or_init(|| {
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 11)
    })
}

/// Whether the listener lost its last thread; looks or waits for something to tell.
fn poll_dead(listener: BorrowedFd<'_>, timeout: Option<&Timespec>) -> bool {
    let mut fds = [PollFd::new(&listener, PollFlags::IN)];
    while matches!(rustix::event::poll(&mut fds, timeout), Err(rustix::io::Errno::INTR)) {}
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    fds.iter().any(|fd| fd.revents().intersects(gone))
}

/// Whether the listener lost its last thread.
fn is_dead(listener: BorrowedFd<'_>) -> bool {
    poll_dead(listener, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
}

/// Waits until the listener has a notification (`true`) or lost its last thread (`false`).
fn wait_listener(listener: BorrowedFd<'_>) -> bool {
    !poll_dead(listener, None)
}

/// Sends a signal to one thread of a stub.
pub(super) fn signal_thread(process: i32, thread: i32, signal: i32) {
    // SAFETY: plain numbers. A thread that is gone needs no signal.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
}

/// Kills a stub and waits until its memory is gone.
pub(super) fn kill_and_reap(process: i32) {
    // SAFETY: plain numbers. The pid is our child's and not yet waited for, so it cannot be another's.
    unsafe {
        libc::kill(process, libc::SIGKILL);
        while libc::waitpid(process, std::ptr::null_mut(), libc::__WALL) < 0 && last() == Errno::EINTR {}
    }
}

/// Kills a stub that will be reaped when its address space is dropped.
pub(super) fn kill(process: i32) {
    // SAFETY: plain numbers; the pid is our child's and not yet waited for.
    unsafe { libc::kill(process, libc::SIGKILL) };
}

/// Asks for the sender's pid with every message.
pub(super) fn want_credentials(socket: BorrowedFd<'_>) -> SysResult<()> {
    rustix::net::sockopt::set_socket_passcred(socket, true).map_err(|e| Errno::from_raw(e.raw_os_error()))
}

/// Sends a message, with descriptors if there are any.
pub(super) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[i32]) -> SysResult<()> {
    let payload = bytes;
    let bytes = u32::try_from(size_of_val(fds)).map_err(|_| Errno::EINVAL)?;
    let mut control = [0_u64; 160];
    // SAFETY: CMSG_SPACE is arithmetic.
    let space = unsafe { libc::CMSG_SPACE(bytes) } as usize;
    if space > size_of_val(&control) {
        return Err(Errno::EINVAL);
    }
    let mut iov = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: all zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    if !fds.is_empty() {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = space;
    }
    // SAFETY: the control buffer is aligned and long enough for the header and the descriptors.
    let n = unsafe {
        if !fds.is_empty() {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(bytes) as usize;
            std::ptr::copy_nonoverlapping(
                fds.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(message),
                size_of_val(fds),
            );
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL)
    };
    if n < 0 { Err(last()) } else { Ok(()) }
}

/// What a helper said.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Length of the message: 1 plus an errno.
    pub(super) length: usize,
    /// Descriptors that came along.
    pub(super) fds: SmallVec<[OwnedFd; 2]>,
    /// The sender, when credentials were asked for.
    pub(super) pid: Option<i32>,
}

/// Waits for a report of which nothing but the length matters.
pub(super) fn receive_length(socket: BorrowedFd<'_>) -> SysResult<usize> {
    receive_report(socket).map(|report| report.length)
}

/// Waits for a report with everything that came along.
pub(super) fn receive_report(socket: BorrowedFd<'_>) -> SysResult<Report> {
    let mut byte = [0_u8; 1];
    let mut control = [0_u64; 32];
    let mut iov = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    loop {
        // SAFETY: all zero is a valid msghdr.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        // SAFETY: every pointer in the header is valid for its length.
        let n = unsafe {
            libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_TRUNC | libc::MSG_CMSG_CLOEXEC)
        };
        let Ok(length) = usize::try_from(n) else {
            if last() == Errno::EINTR {
                continue;
            }
            return Err(last());
        };
        let mut report = Report { length, ..Report::default() };
        // SAFETY: the kernel filled the control buffer; the macros stay inside msg_controllen.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(&raw const header);
            while !message.is_null() {
                let data = libc::CMSG_DATA(message);
                let len = (*message).cmsg_len.saturating_sub(libc::CMSG_LEN(0) as usize);
                match ((*message).cmsg_level, (*message).cmsg_type) {
                    (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                        for i in 0..len / 4 {
                            let raw = data.cast::<i32>().add(i).read_unaligned();
                            report.fds.push(OwnedFd::from_raw_fd(raw));
                        }
                    }
                    (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if len >= size_of::<libc::ucred>() => {
                        report.pid = Some(data.cast::<libc::ucred>().read_unaligned().pid);
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(&raw const header, message);
            }
        }
        return Ok(report);
    }
}
