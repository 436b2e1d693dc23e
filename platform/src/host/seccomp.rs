//! UNSAFE: questions to seccomp(2) that leave nothing behind.

use super::checked;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS`.
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// SECCOMP_GET_ACTION_AVAIL.
#[must_use]
pub(crate) fn action_available(action: u32) -> bool {
    // SAFETY: the kernel reads the four bytes of `action`.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    done == 0
}

/// Whether SECCOMP_SET_MODE_FILTER knows the flags: it looks at them before the (missing) program.
#[must_use]
pub(crate) fn flags_known(flags: libc::c_ulong) -> bool {
    let none = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: a null program is refused; nothing is installed.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, none) };
    done == -1 && super::last_errno() == abi::Errno::EFAULT
}

/// Installs a filter that allows everything on the calling thread, which must end soon after, and tries
/// SYNC_WAKE_UP on its listener.
#[must_use]
pub(crate) fn sync_wake_up_works() -> bool {
    // BPF_RET | BPF_K: SECCOMP_RET_ALLOW.
    let program = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    let program = libc::sock_fprog { len: 1, filter: program.as_ptr().cast_mut() };
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // SAFETY: no_new_privs and the filter affect the calling thread alone; `program` outlives the call.
    let listener = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        checked(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program))
    };
    let Some(listener) = listener.ok().and_then(|fd| i32::try_from(fd).ok()) else { return false };
    // SAFETY: a fresh descriptor that nobody else owns.
    let listener = unsafe { OwnedFd::from_raw_fd(listener) };
    // SAFETY: the request takes a number, not a pointer.
    unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) == 0 }
}
