//! chmod(2), chown(2), utimensat(2), truncate(2), fallocate(2) and their kin.

use super::{AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, base_location, follow_unless, only, path_or_empty, place};
use crate::task::Cx;
use abi::fs::FileType;
use abi::time::{Timespec, Timeval};
use abi::{CallResult, DirFd, Errno, Fd, SysResult, UserCStr, UserPtr};
use vfs::SetTime;
use vfs::walk::Follow;
use vfs::{Kgid, Kuid};

/// chmod(2).
pub fn chmod(cx: &mut Cx<'_>, path: UserCStr, mode: u32) -> CallResult<()> {
    fchmodat(cx, DirFd::Cwd, path, mode)
}

/// fchmod(2).
pub fn fchmod(cx: &mut Cx<'_>, fd: Fd, mode: u32) -> CallResult<()> {
    let file = cx.files().get_io(fd)?;
    Ok(vfs::ops::chmod(&base_location(&file), mode & 0o7777, &cx.caller())?)
}

/// fchmodat(2), which has no flags.
pub fn fchmodat(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, mode: u32) -> CallResult<()> {
    fchmodat2(cx, dirfd, path, mode, 0)
}

/// fchmodat2(2).
pub fn fchmodat2(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, mode: u32, flags: u32) -> CallResult<()> {
    only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let path = path_or_empty(cx, path, flags)?;
    let at = place(cx, dirfd, &path, flags, follow_unless(flags))?;
    Ok(vfs::ops::chmod(&at, mode & 0o7777, &cx.caller())?)
}

fn owner(cx: &Cx<'_>, uid: u32, gid: u32) -> SysResult<(Option<Kuid>, Option<Kgid>)> {
    let ns = &cx.cred().user_ns;
    let uid = if uid == u32::MAX { None } else { Some(ns.kuid(uid)?) };
    let gid = if gid == u32::MAX { None } else { Some(ns.kgid(gid)?) };
    Ok((uid, gid))
}

/// chown(2).
pub fn chown(cx: &mut Cx<'_>, path: UserCStr, uid: u32, gid: u32) -> CallResult<()> {
    fchownat(cx, DirFd::Cwd, path, uid, gid, 0)
}

/// lchown(2).
pub fn lchown(cx: &mut Cx<'_>, path: UserCStr, uid: u32, gid: u32) -> CallResult<()> {
    fchownat(cx, DirFd::Cwd, path, uid, gid, AT_SYMLINK_NOFOLLOW)
}

/// fchown(2).
pub fn fchown(cx: &mut Cx<'_>, fd: Fd, uid: u32, gid: u32) -> CallResult<()> {
    let file = cx.files().get_io(fd)?;
    let (uid, gid) = owner(cx, uid, gid)?;
    Ok(vfs::ops::chown(&base_location(&file), uid, gid, &cx.caller())?)
}

/// fchownat(2).
pub fn fchownat(
    cx: &mut Cx<'_>,
    dirfd: DirFd,
    path: UserCStr,
    uid: u32,
    gid: u32,
    flags: u32,
) -> CallResult<()> {
    only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let path = path_or_empty(cx, path, flags)?;
    let at = place(cx, dirfd, &path, flags, follow_unless(flags))?;
    let (uid, gid) = owner(cx, uid, gid)?;
    Ok(vfs::ops::chown(&at, uid, gid, &cx.caller())?)
}

fn set_time(raw: Timespec) -> SysResult<Option<SetTime>> {
    const UTIME_NOW: i64 = 0x3fff_ffff;
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    match raw.nsec {
        UTIME_NOW => Ok(Some(SetTime::Now)),
        UTIME_OMIT => Ok(None),
        0..1_000_000_000 => Ok(Some(SetTime::To(raw))),
        _ => Err(Errno::EINVAL),
    }
}

fn utimens(
    cx: &Cx<'_>,
    dirfd: DirFd,
    path: Option<&[u8]>,
    times: [Option<SetTime>; 2],
    flags: u32,
) -> CallResult<()> {
    let [atime, mtime] = times;
    if atime.is_none() && mtime.is_none() {
        return Ok(());
    }
    let at = match (path, dirfd) {
        (Some(path), _) => place(cx, dirfd, path, flags, follow_unless(flags))?,
        (None, DirFd::At(fd)) => base_location(&cx.files().get_io(fd)?),
        (None, DirFd::Cwd) => return Err(Errno::EFAULT.into()),
    };
    Ok(vfs::ops::utimens(&at, atime, mtime, &cx.caller())?)
}

/// utimensat(2); a NULL path means `dirfd` itself.
pub fn utimensat(
    cx: &mut Cx<'_>,
    dirfd: DirFd,
    path: UserCStr,
    times: UserPtr<[Timespec; 2]>,
    flags: u32,
) -> CallResult<()> {
    let set = if times.is_null() {
        [Some(SetTime::Now); 2]
    } else {
        let [atime, mtime] = cx.read(times)?;
        [set_time(atime)?, set_time(mtime)?]
    };
    only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let text = if path.addr().is_null() { None } else { Some(cx.path(path)?) };
    utimens(cx, dirfd, text.as_deref(), set, flags)
}

fn from_timevals(cx: &Cx<'_>, times: UserPtr<[Timeval; 2]>) -> SysResult<[Option<SetTime>; 2]> {
    if times.is_null() {
        return Ok([Some(SetTime::Now); 2]);
    }
    let convert = |t: Timeval| {
        if (0..1_000_000).contains(&t.usec) {
            Ok(Some(SetTime::To(Timespec { sec: t.sec, nsec: t.usec * 1000 })))
        } else {
            Err(Errno::EINVAL)
        }
    };
    let [atime, mtime] = cx.read(times)?;
    Ok([convert(atime)?, convert(mtime)?])
}

/// utimes(2).
pub fn utimes(cx: &mut Cx<'_>, path: UserCStr, times: UserPtr<[Timeval; 2]>) -> CallResult<()> {
    futimesat(cx, DirFd::Cwd, path, times)
}

/// futimesat(2).
pub fn futimesat(
    cx: &mut Cx<'_>,
    dirfd: DirFd,
    path: UserCStr,
    times: UserPtr<[Timeval; 2]>,
) -> CallResult<()> {
    let set = from_timevals(cx, times)?;
    let text = if path.addr().is_null() { None } else { Some(cx.path(path)?) };
    utimens(cx, dirfd, text.as_deref(), set, 0)
}

/// utime(2): seconds only.
pub fn utime(cx: &mut Cx<'_>, path: UserCStr, times: UserPtr<[i64; 2]>) -> CallResult<()> {
    let set = if times.is_null() {
        [Some(SetTime::Now); 2]
    } else {
        cx.read(times)?.map(|sec| Some(SetTime::To(Timespec { sec, nsec: 0 })))
    };
    let path = cx.path(path)?;
    utimens(cx, DirFd::Cwd, Some(&path), set, 0)
}

fn size(raw: i64) -> SysResult<u64> {
    u64::try_from(raw).map_err(|_| Errno::EINVAL)
}

/// truncate(2).
pub fn truncate(cx: &mut Cx<'_>, path: UserCStr, len: i64) -> CallResult<()> {
    let len = size(len)?;
    let path = cx.path(path)?;
    let at = place(cx, DirFd::Cwd, &path, 0, Follow::Yes)?;
    vfs::ops::truncate(&at, len, &cx.caller())
}

/// ftruncate(2).
pub fn ftruncate(cx: &mut Cx<'_>, fd: Fd, len: i64) -> CallResult<()> {
    let len = size(len)?;
    let file = cx.files().get_io(fd)?;
    Ok(file.truncate(len, &cx.caller())?)
}

/// fallocate(2).
pub fn fallocate(cx: &mut Cx<'_>, fd: Fd, mode: u32, start: i64, len: i64) -> CallResult<()> {
    /// FALLOC_FL_* of 6.12; of them only KEEP_SIZE and UNSHARE_RANGE go with others.
    const KNOWN: u32 = 0x7f;
    const PUNCH_HOLE: u32 = 2;
    const KEEP_SIZE: u32 = 1;
    const HOLE_AND_ZEROS: u32 = 0x12;
    let file = cx.files().get_io(fd)?;
    let start = size(start)?;
    let len = size(len)?;
    if len == 0 {
        return Err(Errno::EINVAL.into());
    }
    if mode & !KNOWN != 0
        || mode & (PUNCH_HOLE | KEEP_SIZE) == PUNCH_HOLE
        || mode & HOLE_AND_ZEROS == HOLE_AND_ZEROS
    {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if file.flags().writable() {
        let kind = file.attr(&cx.caller())?.kind;
        match kind {
            FileType::Regular | FileType::BlockDevice => {}
            FileType::Fifo => return Err(Errno::ESPIPE.into()),
            FileType::Directory => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::ENODEV.into()),
        }
        if start.checked_add(len).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(Errno::EFBIG.into());
        }
    }
    Ok(file.allocate(mode, start, len, &cx.caller())?)
}
