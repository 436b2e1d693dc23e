//! The walls a process of ours builds around itself, one step a function, in the order of use: ids,
//! session, empty root, limits of privilege.

use crate::host::{checked, checked_int, errno};
use abi::{Errno, SysResult};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, UnmountFlags};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// One line of `/proc/PID/uid_map` (user_namespaces(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IdMap {
    /// First id inside.
    pub inside: u32,
    /// First id outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Whether a user namespace may use setgroups(2); an unprivileged parent must refuse it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetGroups {
    /// As the parent's privileges allow.
    Allow,
    /// For good.
    Deny,
}

/// Maps the ids of a child in a new user namespace. `proc` is an open `/proc`.
pub fn write_id_maps(
    proc: BorrowedFd<'_>,
    pid: i32,
    uids: &[IdMap],
    gids: &[IdMap],
    groups: SetGroups,
) -> SysResult<()> {
    let write = |name: &str, text: &str| {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
        let path = format!("{pid}/{name}");
        let file = rustix::fs::openat(proc, path, flags, rustix::fs::Mode::empty()).map_err(errno)?;
        // The kernel takes a map in one write or not at all.
        rustix::io::write(&file, text.as_bytes()).map_err(errno).map(|_| ())
    };
    if groups == SetGroups::Deny {
        write("setgroups", "deny")?;
    }
    write("gid_map", &lines(gids))?;
    write("uid_map", &lines(uids))
}

fn lines(maps: &[IdMap]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.inside, map.outside, map.count)).collect()
}

/// Takes ids for good (real, effective, saved), groups first. With `SetGroups::Allow` the list of further
/// groups is emptied.
pub fn become_ids(uid: u32, gid: u32, groups: SetGroups) -> SysResult<()> {
    // SAFETY: raw calls (libc's wrappers would signal other threads, of which a fresh child has none)
    // that touch no memory.
    unsafe {
        if groups == SetGroups::Allow {
            checked(libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<u32>()))?;
        }
        checked(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        checked(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}

/// SIGKILL for this process when its parent *thread* ends. `ESRCH` when the parent, which had pid
/// `parent` in this pid namespace (0: outside of it), is gone already.
pub fn die_with_parent(parent: i32) -> SysResult<()> {
    // SAFETY: no memory is involved.
    unsafe {
        checked_int(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if libc::getppid() == parent { Ok(()) } else { Err(Errno::ESRCH) }
    }
}

/// Whether others may look into this process (core dumps, ptrace, /proc/PID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dumpable {
    /// Not even processes of the same user.
    No,
    /// As usual.
    Yes,
}

/// See [`Dumpable`].
pub fn set_dumpable(dumpable: Dumpable) -> SysResult<()> {
    let value = libc::c_ulong::from(dumpable == Dumpable::Yes);
    // SAFETY: no memory is involved.
    checked_int(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, value) }).map(|_| ())
}

/// Every signal at its default action and none blocked, as after execve of a tidy parent.
pub fn reset_signals() -> SysResult<()> {
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // struct sigaction of the kernel: handler SIG_DFL, no flags, no restorer, empty mask.
        let action = [0u64; 4];
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: `action` is a valid kernel sigaction; the raw call also reaches the signals that libc
        // keeps for itself, which a process without further threads does not need.
        checked(unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, none, 8usize) })?;
    }
    let none = 0u64;
    let old = std::ptr::null_mut::<u64>();
    // SAFETY: `none` is a valid signal set of eight bytes.
    let done =
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, old, 8usize) };
    checked(done).map(|_| ())
}

/// SIGPIPE is an error number for our own processes.
pub fn ignore_sigpipe() -> SysResult<()> {
    // SAFETY: SIG_IGN needs no handler code.
    let former = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    if former == libc::SIG_ERR { Err(crate::host::last_errno()) } else { Ok(()) }
}

/// A session of its own; with `tty`, that terminal becomes its controlling one.
pub fn new_session(tty: Option<BorrowedFd<'_>>) -> SysResult<()> {
    rustix::process::setsid().map_err(errno)?;
    if let Some(tty) = tty {
        rustix::process::ioctl_tiocsctty(tty).map_err(errno)?;
    }
    Ok(())
}

/// Shows boot and monotonic clocks that start now: children forked after this are in a time namespace
/// without the host's uptime. `proc` is an open `/proc` of this process's pid namespace.
pub fn hide_uptime(proc: BorrowedFd<'_>) -> SysResult<()> {
    use rustix::time::{ClockId, clock_gettime};
    let monotonic = clock_gettime(ClockId::Monotonic);
    let boottime = clock_gettime(ClockId::Boottime);
    // SAFETY: unshare of a time namespace affects children only.
    checked_int(unsafe { libc::unshare(libc::CLONE_NEWTIME) })?;
    let text = format!("monotonic -{} 0\nboottime -{} 0\n", monotonic.tv_sec, boottime.tv_sec);
    let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC;
    let mode = rustix::fs::Mode::empty();
    let file = rustix::fs::openat(proc, "self/timens_offsets", flags, mode).map_err(errno)?;
    rustix::io::write(&file, text.as_bytes()).map_err(errno).map(|_| ())
}

/// Leaves every file of the host behind: the root becomes an empty, read-only tmpfs. Needs a mount
/// namespace of its own.
pub fn empty_root() -> SysResult<()> {
    use rustix::mount;
    let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount::mount_change("/", propagation).map_err(errno)?;
    let context = mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)?;
    for (key, value) in [("size", "4096"), ("nr_inodes", "1"), ("mode", "0555")] {
        mount::fsconfig_set_string(&context, key, value).map_err(errno)?;
    }
    mount::fsconfig_create(&context).map_err(errno)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(errno)?;
    enter_root(root.as_fd())
}

/// Makes a detached mount (fsmount, open_tree) the root and the working directory; the old root is
/// unmounted, with everything below it.
pub fn enter_root(root: BorrowedFd<'_>) -> SysResult<()> {
    use rustix::mount;
    // The last chance to see /proc/self/maps; stubs need to know.
    let _ = crate::host::vdso();
    mount::move_mount(root, "", rustix::fs::CWD, "/", mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(errno)?;
    rustix::process::fchdir(root).map_err(errno)?;
    // pivot_root(2), "pivot_root(".", ".")": the old root ends up on top of the new one.
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => mount::unmount(".", UnmountFlags::DETACH).map_err(errno)?,
        // The initial ramfs cannot be pivoted away; it holds nothing that a closed door would not.
        Err(rustix::io::Errno::INVAL) => {
            let cwd = rustix::fs::CWD;
            let flags = mount::MoveMountFlags::empty();
            let _ = mount::move_mount(cwd, ".", cwd, "/", flags);
            rustix::process::chroot(".").map_err(errno)?;
        }
        Err(error) => return Err(errno(error)),
    }
    rustix::process::chdir("/").map_err(errno)
}

/// The last look before a filter goes in: `ENOTEMPTY` when one of the descriptors below `end` is a
/// directory or an `O_PATH` handle, from which the host's files could be reached.
pub fn check_no_directories(end: i32) -> SysResult<()> {
    for number in 0..end {
        // SAFETY: borrowed for two calls that answer EBADF when nothing is open under the number.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
        let path = rustix::fs::fcntl_getfl(fd).is_ok_and(|flags| flags.contains(rustix::fs::OFlags::PATH));
        if directory || path {
            return Err(Errno::ENOTEMPTY);
        }
    }
    Ok(())
}

/// Moves a descriptor to a number of choice (dup3(2)), replacing what is open there. For the standard
/// streams of a fresh child: the number stays open until the process ends.
pub fn install_descriptor(fd: BorrowedFd<'_>, number: i32) -> SysResult<()> {
    // SAFETY: dup2 onto itself or another number; owners of the replaced number live in frames of the
    // parent that never run again (see `close_all_except`).
    checked_int(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(|_| ())
}
