//! UNSAFE: the steps between a runtime and a process of ours: fork with namespaces, descriptors closed,
//! mounts made harmless, capabilities given up.
//!
//! Processes are forked, not executed: nothing of the host's file system is looked up, and relocated
//! pages stay shared between them. The caller has one thread; the child runs on a copy of its memory.

mod walls;

pub use walls::{
    Dumpable, IdMap, SetGroups, become_ids, check_no_directories, die_with_parent, empty_root, enter_root,
    hide_uptime, ignore_sigpipe, install_descriptor, new_session, reset_signals, set_dumpable, write_id_maps,
};

use abi::{Errno, SysResult};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

bitflags::bitflags! {
    /// Namespaces that a child gets of its own (`CLONE_NEW*`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Unshare: u64 {
        /// Mounts.
        const MOUNT = 0x0002_0000;
        /// Cgroups.
        const CGROUP = 0x0200_0000;
        /// Host name.
        const UTS = 0x0400_0000;
        /// System V IPC and message queues.
        const IPC = 0x0800_0000;
        /// Users and capabilities.
        const USER = 0x1000_0000;
        /// Pids.
        const PID = 0x2000_0000;
        /// Network.
        const NET = 0x4000_0000;
    }
}

/// A forked child.
#[derive(Debug)]
pub struct Child {
    /// Its pid.
    pub pid: i32,
    /// Its pidfd: readable once it has ended.
    pub pidfd: OwnedFd,
}

const CLONE_PIDFD: u64 = 0x1000;

/// Forks; the child runs `main` in the namespaces of `unshare` and ends with the status it returns.
/// `EBUSY` when this process has more than one thread.
pub fn fork(unshare: Unshare, main: impl FnOnce() -> u8) -> SysResult<Child> {
    if cfg!(debug_assertions) && has_threads() {
        return Err(Errno::EBUSY);
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = unshare.bits() | CLONE_PIDFD;
    args.exit_signal = libc::SIGCHLD.unsigned_abs().into();
    args.pidfd = (&raw mut pidfd) as u64;
    // SAFETY: without CLONE_VM the child has a copy of this memory and stack; there is one thread, so no
    // lock is held by another that does not exist in the child.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        0 => {
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(main)).unwrap_or(101);
            // SAFETY: ends the process; the parent's frames below are never returned to.
            unsafe { libc::_exit(i32::from(status)) }
        }
        -1 => Err(last()),
        pid => {
            let pid = i32::try_from(pid).map_err(|_| Errno::EIO)?;
            // SAFETY: the kernel stored a fresh descriptor that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid, pidfd })
        }
    }
}

/// Whether this process has more than one thread. /proc is not asked: it may be what this process serves.
fn has_threads() -> bool {
    // unshare(2): for a process with one thread this changes nothing; for another it is EINVAL.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_THREAD).is_err()
}

/// Closes every descriptor except `keep`. For a freshly forked child, before it opens anything: owners of
/// other descriptors in the parent's frames never run again.
pub fn close_all_except(keep: &[BorrowedFd<'_>]) -> SysResult<()> {
    let mut numbers: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd().unsigned_abs()).collect();
    numbers.sort_unstable();
    let mut first = 0_u32;
    for number in numbers {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = number.saturating_add(1);
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last_fd: u32) -> SysResult<()> {
    // SAFETY: see close_all_except: the descriptors belong to frames that never run again.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last_fd, 0_u32) };
    if done == 0 { Ok(()) } else { Err(last()) }
}

bitflags::bitflags! {
    /// Attributes of a mount (`MOUNT_ATTR_*`).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountAttr: u64 {
        /// Nothing can be changed.
        const READONLY = 1;
        /// Set-user-ID bits do nothing.
        const NOSUID = 2;
        /// Device nodes cannot be opened.
        const NODEV = 4;
        /// Nothing can be executed.
        const NOEXEC = 8;
    }
}

/// Sets attributes on a detached mount and all mounts below it (mount_setattr(2)), and makes them private.
pub fn restrict_mount(mount: BorrowedFd<'_>, attributes: MountAttr) -> SysResult<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.bits(),
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let flags = (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE).unsigned_abs();
    // SAFETY: the path is an empty C string, `attr` is valid for its size.
    let done = unsafe {
        let empty = c"".as_ptr();
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty,
            flags,
            &raw const attr,
            size_of_val(&attr),
        )
    };
    if done == 0 { Ok(()) } else { Err(last()) }
}

/// Highest capability number that is tried.
const LAST_CAPABILITY: u32 = 63;

/// Gives up all capabilities except `keep` (bit n is capability n), in every set, for good, and sets
/// no_new_privs.
pub fn keep_capabilities(keep: u64) -> SysResult<()> {
    let host = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
    rustix::thread::clear_ambient_capability_set().map_err(host)?;
    for number in 0..=LAST_CAPABILITY {
        let bit = 1_u64 << number;
        if keep & bit != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit)) {
            Ok(()) => {}
            // Past the last capability this host knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(rustix::io::Errno::PERM) => break,
            Err(error) => return Err(host(error)),
        }
    }
    let kept = CapabilitySet::from_bits_retain(keep);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(host)?;
    rustix::thread::set_no_new_privs(true).map_err(host)
}

/// Duplicates a descriptor that this process inherited by number (`--preserve-fds`), to a number that is at
/// least `lowest`. `EBADF` when there is none.
pub fn inherited(number: RawFd, lowest: RawFd) -> SysResult<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC makes a new descriptor and touches nothing else.
    let fd = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, lowest) };
    if fd < 0 {
        return Err(last());
    }
    // SAFETY: fresh, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Overwrites the environment this process was started with and forgets it. For a forked child with one
/// thread: what the caller's environment held must not stay readable in the sandbox' processes.
pub fn clear_environment() {
    unsafe extern "C" {
        static mut environ: *mut *mut libc::c_char;
    }
    // SAFETY: one thread (see above); `environ` is the C library's array of C strings, ended by a null; the
    // strings lie in this process's writable stack or heap, and nothing holds references to them.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let length = libc::strlen(*entry);
            std::ptr::write_bytes(*entry, 0, length);
            entry = entry.add(1);
        }
        libc::clearenv();
    }
}

fn last() -> Errno {
    Errno::from_raw(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{Unshare, fork};

    #[test]
    fn a_child_has_its_own_status() {
        // The test harness has threads; the child below touches nothing that they may hold.
        match fork(Unshare::empty(), || 7) {
            Ok(child) => {
                let pid = rustix::process::Pid::from_raw(child.pid);
                let status = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
                assert_eq!(status.unwrap().unwrap().1.exit_status(), Some(7));
            }
            Err(error) => assert_eq!(error, abi::Errno::EBUSY),
        }
    }
}
