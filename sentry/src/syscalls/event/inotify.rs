//! inotify(7).

use crate::syscalls::fs::open::install;
use crate::syscalls::fs::place;
use crate::task::Cx;
use abi::fs::{FileType, OpenFlags};
use abi::{CallResult, DirFd, Errno, Fd, UserCStr};
use vfs::event::inotify::{self, Inotify, InotifyMask};
use vfs::perm::{self, Access};
use vfs::walk::Follow;

/// inotify_init(2).
pub fn inotify_init(cx: &mut Cx<'_>) -> CallResult<Fd> {
    inotify_init1(cx, OpenFlags::empty())
}

/// inotify_init1(2).
pub fn inotify_init1(cx: &mut Cx<'_>, flags: OpenFlags) -> CallResult<Fd> {
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    install(cx, inotify::create(flags), flags)
}

/// inotify_add_watch(2).
pub fn inotify_add_watch(cx: &mut Cx<'_>, fd: Fd, path: UserCStr, mask: u32) -> CallResult<i32> {
    /// Bits that mean anything (`ALL_INOTIFY_BITS`).
    const ANY: u32 = 0xf700_ffff;
    let mask = InotifyMask::from_bits_retain(mask);
    if mask.bits() & ANY == 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.files().get_io(fd)?;
    let instance: &Inotify = file.downcast().ok_or(Errno::EINVAL)?;
    let path = cx.path(path)?;
    let follow = if mask.contains(InotifyMask::DONT_FOLLOW) { Follow::No } else { Follow::Yes };
    let at = place(cx, DirFd::Cwd, &path, 0, follow)?;
    if mask.contains(InotifyMask::ONLYDIR) && at.kind() != Some(FileType::Directory) {
        return Err(Errno::ENOTDIR.into());
    }
    perm::check(&at, Access::READ, &cx.caller())?;
    let (list, key) = vfs::notify::watch_list(&at, &cx.caller())?;
    Ok(instance.add(&list, key, mask)?)
}

/// inotify_rm_watch(2).
pub fn inotify_rm_watch(cx: &mut Cx<'_>, fd: Fd, wd: i32) -> CallResult<()> {
    let file = cx.files().get_io(fd)?;
    let instance: &Inotify = file.downcast().ok_or(Errno::EINVAL)?;
    Ok(instance.remove(wd)?)
}
