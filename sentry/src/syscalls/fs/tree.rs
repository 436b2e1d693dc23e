//! Making, linking, renaming and removing names.

use super::{AT_EMPTY_PATH, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, only, place, walk_at};
use crate::task::Cx;
use abi::{CallResult, DirFd, Errno, UserCStr};
use vfs::inode::RenameFlags;
use vfs::walk::{Follow, Walk};

/// mkdir(2).
pub fn mkdir(cx: &mut Cx<'_>, path: UserCStr, mode: u32) -> CallResult<()> {
    mkdirat(cx, DirFd::Cwd, path, mode)
}

/// mkdirat(2).
pub fn mkdirat(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, mode: u32) -> CallResult<()> {
    let path = cx.path(path)?;
    walk_at(cx, dirfd, &path, |walk| Ok(vfs::ops::mkdir(walk, &path, mode & 0o1777)?))
}

/// mknod(2).
pub fn mknod(cx: &mut Cx<'_>, path: UserCStr, mode: u32, dev: u32) -> CallResult<()> {
    mknodat(cx, DirFd::Cwd, path, mode, dev)
}

/// mknodat(2).
pub fn mknodat(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, mode: u32, dev: u32) -> CallResult<()> {
    match mode & 0o170_000 {
        0o040_000 => return Err(Errno::EPERM.into()),
        0 | 0o100_000 | 0o010_000 | 0o140_000 | 0o020_000 | 0o060_000 => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    let path = cx.path(path)?;
    walk_at(cx, dirfd, &path, |walk| Ok(vfs::ops::mknod(walk, &path, mode, u64::from(dev))?))
}

/// rmdir(2).
pub fn rmdir(cx: &mut Cx<'_>, path: UserCStr) -> CallResult<()> {
    let path = cx.path(path)?;
    walk_at(cx, DirFd::Cwd, &path, |walk| Ok(vfs::ops::rmdir(walk, &path)?))
}

/// unlink(2).
pub fn unlink(cx: &mut Cx<'_>, path: UserCStr) -> CallResult<()> {
    unlinkat(cx, DirFd::Cwd, path, 0)
}

/// unlinkat(2).
pub fn unlinkat(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, flags: u32) -> CallResult<()> {
    only(flags, AT_REMOVEDIR)?;
    let path = cx.path(path)?;
    walk_at(cx, dirfd, &path, |walk| {
        Ok(if flags == 0 { vfs::ops::unlink(walk, &path) } else { vfs::ops::rmdir(walk, &path) }?)
    })
}

/// link(2).
pub fn link(cx: &mut Cx<'_>, old: UserCStr, new: UserCStr) -> CallResult<()> {
    linkat(cx, DirFd::Cwd, old, DirFd::Cwd, new, 0)
}

/// linkat(2).
pub fn linkat(
    cx: &mut Cx<'_>,
    old_dir: DirFd,
    old: UserCStr,
    new_dir: DirFd,
    new: UserCStr,
    flags: u32,
) -> CallResult<()> {
    only(flags, AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)?;
    let old = cx.path(old)?;
    if old.is_empty() && flags & AT_EMPTY_PATH != 0 && !cx.cred().has(vfs::Capabilities::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT.into());
    }
    let follow = if flags & AT_SYMLINK_FOLLOW != 0 { Follow::Yes } else { Follow::No };
    let source = place(cx, old_dir, &old, flags, follow)?;
    let new = cx.path(new)?;
    walk_at(cx, new_dir, &new, |walk| Ok(vfs::ops::link(walk, &source, &new)?))
}

/// symlink(2).
pub fn symlink(cx: &mut Cx<'_>, target: UserCStr, path: UserCStr) -> CallResult<()> {
    symlinkat(cx, target, DirFd::Cwd, path)
}

/// symlinkat(2).
pub fn symlinkat(cx: &mut Cx<'_>, target: UserCStr, dirfd: DirFd, path: UserCStr) -> CallResult<()> {
    let target = cx.path(target)?;
    let path = cx.path(path)?;
    walk_at(cx, dirfd, &path, |walk| Ok(vfs::ops::symlink(walk, &target, &path)?))
}

/// rename(2).
pub fn rename(cx: &mut Cx<'_>, old: UserCStr, new: UserCStr) -> CallResult<()> {
    renameat2(cx, DirFd::Cwd, old, DirFd::Cwd, new, 0)
}

/// renameat(2).
pub fn renameat(
    cx: &mut Cx<'_>,
    old_dir: DirFd,
    old: UserCStr,
    new_dir: DirFd,
    new: UserCStr,
) -> CallResult<()> {
    renameat2(cx, old_dir, old, new_dir, new, 0)
}

/// renameat2(2).
pub fn renameat2(
    cx: &mut Cx<'_>,
    old_dir: DirFd,
    old: UserCStr,
    new_dir: DirFd,
    new: UserCStr,
    flags: u32,
) -> CallResult<()> {
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if flags.contains(RenameFlags::EXCHANGE)
        && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT)
    {
        return Err(Errno::EINVAL.into());
    }
    let old = cx.path(old)?;
    walk_at(cx, old_dir, &old, |from: &Walk<'_>| {
        let new = match cx.path(new) {
            Ok(new) => new,
            Err(errno) => {
                // What is wrong with the old path is said first.
                from.parent(&old)?;
                return Err(errno.into());
            }
        };
        walk_at(cx, new_dir, &new, |to: &Walk<'_>| Ok(vfs::ops::rename(from, &old, to, &new, flags)?))
    })
}
