//! Files and directories.

pub mod aio;
pub mod attr;
pub mod copy;
pub mod descriptor;
pub mod dir;
pub mod fcntl;
pub mod handle;
pub mod io;
pub mod memfd;
pub mod mount;
pub mod mountfd;
pub mod open;
mod owner;
pub mod stat;
pub mod statmount;
pub mod sync;
pub mod tree;
pub mod xattr;

use crate::task::Cx;
use abi::{CallResult, DirFd, Errno, SysResult};
use std::sync::Arc;
use vfs::{Follow, Location, OpenFile, Resolve, Walk};

/// `AT_SYMLINK_NOFOLLOW`.
pub const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
/// `AT_REMOVEDIR`; also `AT_EACCESS`.
pub const AT_REMOVEDIR: u32 = 0x200;
/// `AT_SYMLINK_FOLLOW`.
pub const AT_SYMLINK_FOLLOW: u32 = 0x400;
/// `AT_NO_AUTOMOUNT`.
pub const AT_NO_AUTOMOUNT: u32 = 0x800;
/// `AT_EMPTY_PATH`.
pub const AT_EMPTY_PATH: u32 = 0x1000;

/// Runs `act` with a walk that starts at `dirfd`.
pub(super) fn walk_at<T>(
    cx: &Cx<'_>,
    dirfd: DirFd,
    path: &[u8],
    act: impl FnOnce(&Walk<'_>) -> CallResult<T>,
) -> CallResult<T> {
    walk_with(cx, dirfd, path, Resolve::empty(), act)
}

/// The same with `RESOLVE_*` restrictions.
pub(super) fn walk_with<T>(
    cx: &Cx<'_>,
    dirfd: DirFd,
    path: &[u8],
    resolve: Resolve,
    act: impl FnOnce(&Walk<'_>) -> CallResult<T>,
) -> CallResult<T> {
    if path.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let fs = cx.fs().snapshot();
    let by = cx.caller();
    let anchored = path.first() == Some(&b'/') && !resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT);
    let base = match dirfd {
        DirFd::At(fd) if !anchored => Some(base_location(&cx.files().get(fd)?)),
        _ => None,
    };
    if base.as_ref().is_some_and(|base| !base.dentry.is_dir()) {
        return Err(Errno::ENOTDIR.into());
    }
    let walk = Walk { resolve, ..Walk::new(&fs, &by).at(base.as_ref()) };
    act(&walk)
}

/// Where an open file is, also a pipe or a socket (whose place has no name).
pub(in crate::syscalls) fn base_location(file: &Arc<OpenFile>) -> Location {
    file.location().cloned().unwrap_or_else(|| vfs::anon::location_of(file))
}

/// The place a path names; an empty path is `dirfd` itself when `flags` hold AT_EMPTY_PATH.
pub(in crate::syscalls) fn place(
    cx: &Cx<'_>,
    dirfd: DirFd,
    path: &[u8],
    flags: u32,
    follow: Follow,
) -> CallResult<Location> {
    if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
        return Ok(match dirfd {
            DirFd::Cwd => cx.fs().snapshot().cwd.clone(),
            DirFd::At(fd) => base_location(&cx.files().get(fd)?),
        });
    }
    walk_at(cx, dirfd, path, |walk| Ok(walk.find(path, follow)?))
}

/// A path argument that may be NULL where AT_EMPTY_PATH is given (since Linux 6.11).
pub(super) fn path_or_empty(cx: &Cx<'_>, path: abi::UserCStr, flags: u32) -> SysResult<Vec<u8>> {
    if path.addr().is_null() && flags & AT_EMPTY_PATH != 0 { Ok(Vec::new()) } else { cx.path(path) }
}

/// `Follow` from AT_SYMLINK_NOFOLLOW.
pub(super) fn follow_unless(flags: u32) -> Follow {
    if flags & AT_SYMLINK_NOFOLLOW != 0 { Follow::No } else { Follow::Yes }
}

/// Refuses flag bits outside `known`.
pub(in crate::syscalls) fn only(flags: u32, known: u32) -> SysResult<()> {
    if flags & !known == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}
