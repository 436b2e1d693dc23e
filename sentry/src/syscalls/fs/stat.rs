//! stat(2), statx(2), statfs(2), access(2), readlink(2).

use super::{AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_REMOVEDIR, AT_SYMLINK_NOFOLLOW};
use super::{base_location, follow_unless, only, path_or_empty, place};
use crate::task::Cx;
use abi::stat::{
    STATX_ATTR_MOUNT_ROOT, STATX_BASIC_STATS, STATX_BTIME, STATX_MNT_ID, Stat, Statfs, Statx, dev_major,
    dev_minor,
};
use abi::{CallResult, DirFd, Errno, Fd, UserAddr, UserCStr, UserPtr};
use vfs::inode_flags::InodeFlags;
use vfs::mount::Location;
use vfs::perm::Access;
use vfs::walk::Follow;
use vfs::{Attr, FsStat, MountFlags};

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn to_stat(cx: &Cx<'_>, attr: &Attr, dev: u64) -> Stat {
    let ns = &cx.cred().user_ns;
    Stat {
        dev,
        ino: attr.ino,
        nlink: u64::from(attr.nlink),
        mode: attr.kind.mode_bits() | attr.perm,
        uid: ns.show_uid(attr.uid),
        gid: ns.show_gid(attr.gid),
        rdev: attr.rdev,
        size: signed(attr.size),
        blksize: i64::from(attr.blksize),
        blocks: signed(attr.blocks),
        atime: attr.atime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        ..Stat::default()
    }
}

fn of_place(cx: &Cx<'_>, at: &Location) -> CallResult<Attr> {
    Ok(at.inode()?.attr(&cx.caller())?)
}

fn attr_of(cx: &Cx<'_>, dirfd: DirFd, path: &[u8], flags: u32) -> CallResult<(Attr, Location)> {
    if path.is_empty()
        && flags & AT_EMPTY_PATH != 0
        && let DirFd::At(fd) = dirfd
    {
        // The open file may know its size better than the inode.
        let file = cx.files().get(fd)?;
        return Ok((file.attr(&cx.caller())?, base_location(&file)));
    }
    let at = place(cx, dirfd, path, flags, follow_unless(flags))?;
    Ok((of_place(cx, &at)?, at))
}

/// stat(2).
pub fn stat(cx: &mut Cx<'_>, path: UserCStr, out: UserPtr<Stat>) -> CallResult<()> {
    newfstatat(cx, DirFd::Cwd, path, out, 0)
}

/// lstat(2).
pub fn lstat(cx: &mut Cx<'_>, path: UserCStr, out: UserPtr<Stat>) -> CallResult<()> {
    newfstatat(cx, DirFd::Cwd, path, out, AT_SYMLINK_NOFOLLOW)
}

/// fstat(2).
pub fn fstat(cx: &mut Cx<'_>, fd: Fd, out: UserPtr<Stat>) -> CallResult<()> {
    let file = cx.files().get(fd)?;
    let attr = file.attr(&cx.caller())?;
    let dev = base_location(&file).mount.sb.fs.dev();
    Ok(cx.write(out, &to_stat(cx, &attr, dev))?)
}

/// newfstatat(2).
pub fn newfstatat(
    cx: &mut Cx<'_>,
    dirfd: DirFd,
    path: UserCStr,
    out: UserPtr<Stat>,
    flags: u32,
) -> CallResult<()> {
    const SYNC_TYPE: u32 = 0x6000;
    only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | SYNC_TYPE)?;
    let path = path_or_empty(cx, path, flags)?;
    let (attr, at) = attr_of(cx, dirfd, &path, flags)?;
    Ok(cx.write(out, &to_stat(cx, &attr, at.mount.sb.fs.dev()))?)
}

/// Inode flags that statx(2) shows under the same numbers.
const SHOWN_FLAGS: InodeFlags = InodeFlags::IMMUTABLE.union(InodeFlags::APPEND).union(InodeFlags::NODUMP);

/// statx(2).
pub fn statx(
    cx: &mut Cx<'_>,
    dirfd: DirFd,
    path: UserCStr,
    flags: u32,
    mask: u32,
    out: UserPtr<Statx>,
) -> CallResult<()> {
    const SYNC_TYPE: u32 = 0x6000;
    const RESERVED: u32 = 0x8000_0000;
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    only(flags, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | SYNC_TYPE)?;
    if mask & RESERVED != 0 || flags & SYNC_TYPE == SYNC_TYPE {
        return Err(Errno::EINVAL.into());
    }
    let path = path_or_empty(cx, path, flags)?;
    let (attr, at) = attr_of(cx, dirfd, &path, flags)?;
    let st = to_stat(cx, &attr, at.mount.sb.fs.dev());
    let unique = mask & STATX_MNT_ID_UNIQUE != 0;
    // Those behind the gofer are not worth a question at every call.
    let flags = u64::from((at.inode()?.protection() & SHOWN_FLAGS).bits());
    let root = if at.is_mount_root() { STATX_ATTR_MOUNT_ROOT } else { 0 };
    let value = Statx {
        mask: STATX_BASIC_STATS
            | if unique { STATX_MNT_ID_UNIQUE } else { STATX_MNT_ID }
            | if attr.btime.is_some() { STATX_BTIME } else { 0 },
        blksize: attr.blksize,
        attributes: root | flags,
        nlink: attr.nlink,
        uid: st.uid,
        gid: st.gid,
        mode: u16::try_from(st.mode).unwrap_or(0),
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        attributes_mask: STATX_ATTR_MOUNT_ROOT | flags,
        atime: attr.atime.into(),
        btime: attr.btime.unwrap_or_default().into(),
        ctime: attr.ctime.into(),
        mtime: attr.mtime.into(),
        rdev_major: dev_major(attr.rdev),
        rdev_minor: dev_minor(attr.rdev),
        dev_major: dev_major(st.dev),
        dev_minor: dev_minor(st.dev),
        mnt_id: if unique { at.mount.unique_id } else { u64::from(at.mount.id) },
        ..Statx::default()
    };
    Ok(cx.write(out, &value)?)
}

/// `ST_*` of a mount's flags.
fn st_flags(flags: MountFlags) -> u64 {
    const SHOWN: [(MountFlags, u64); 8] = [
        (MountFlags::RDONLY, 0x1),
        (MountFlags::NOSUID, 0x2),
        (MountFlags::NODEV, 0x4),
        (MountFlags::NOEXEC, 0x8),
        (MountFlags::NOATIME, 0x400),
        (MountFlags::NODIRATIME, 0x800),
        (MountFlags::RELATIME, 0x1000),
        (MountFlags::NOSYMFOLLOW, 0x2000),
    ];
    SHOWN.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, bit)| bit).sum()
}

fn to_statfs(stat: &FsStat, flags: MountFlags) -> Statfs {
    const ST_VALID: u64 = 0x20;
    Statfs {
        kind: stat.magic,
        bsize: stat.bsize,
        blocks: stat.blocks,
        bfree: stat.bfree,
        bavail: stat.bavail,
        files: stat.files,
        ffree: stat.ffree,
        fsid: [0, 0],
        namelen: stat.namelen,
        frsize: stat.bsize,
        flags: ST_VALID | st_flags(flags),
        spare: [0; 4],
    }
}

/// statfs(2).
pub fn statfs(cx: &mut Cx<'_>, path: UserCStr, out: UserPtr<Statfs>) -> CallResult<()> {
    let path = cx.path(path)?;
    let at = place(cx, DirFd::Cwd, &path, 0, Follow::Yes)?;
    let stat = vfs::ops::statfs(&at, &cx.caller())?;
    Ok(cx.write(out, &to_statfs(&stat, at.mount.flags_in_force()))?)
}

/// fstatfs(2).
pub fn fstatfs(cx: &mut Cx<'_>, fd: Fd, out: UserPtr<Statfs>) -> CallResult<()> {
    let file = cx.files().get(fd)?;
    let stat = file.statfs(&cx.caller())?;
    let flags = base_location(&file).mount.flags_in_force();
    Ok(cx.write(out, &to_statfs(&stat, flags))?)
}

/// access(2).
pub fn access(cx: &mut Cx<'_>, path: UserCStr, mode: u32) -> CallResult<()> {
    faccessat2(cx, DirFd::Cwd, path, mode, 0)
}

/// faccessat(2), which has no flags.
pub fn faccessat(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, mode: u32) -> CallResult<()> {
    faccessat2(cx, dirfd, path, mode, 0)
}

/// faccessat2(2).
pub fn faccessat2(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, mode: u32, flags: u32) -> CallResult<()> {
    const AT_EACCESS: u32 = AT_REMOVEDIR;
    only(flags, AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)?;
    let mut want = Access::empty();
    want.set(Access::READ, mode & 4 != 0);
    want.set(Access::WRITE, mode & 2 != 0);
    want.set(Access::EXEC, mode & 1 != 0);
    if mode & !7 != 0 {
        return Err(Errno::EINVAL.into());
    }
    let path = path_or_empty(cx, path, flags)?;
    // The walk too is made with the real ids (access(2)).
    let real = if flags & AT_EACCESS != 0 { None } else { Some(vfs::real_credentials(cx.cred())) };
    let fs = cx.fs().snapshot();
    let mut by = cx.caller();
    if let Some(real) = &real {
        by.cred = real;
    }
    let base = match dirfd {
        DirFd::At(fd) if path.first() != Some(&b'/') => Some(base_location(&cx.files().get(fd)?)),
        _ => None,
    };
    let walk = vfs::walk::Walk::new(&fs, &by).at(base.as_ref());
    let at = if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
        base.clone().unwrap_or_else(|| fs.cwd.clone())
    } else {
        walk.find(&path, follow_unless(flags))?
    };
    Ok(vfs::ops::access(&at, want, &by)?)
}

/// readlink(2).
pub fn readlink(cx: &mut Cx<'_>, path: UserCStr, buf: UserAddr, size: i32) -> CallResult<usize> {
    readlinkat(cx, DirFd::Cwd, path, buf, size)
}

/// readlinkat(2); an empty path reads the link that `dirfd` is.
pub fn readlinkat(
    cx: &mut Cx<'_>,
    dirfd: DirFd,
    path: UserCStr,
    buf: UserAddr,
    size: i32,
) -> CallResult<usize> {
    let size = usize::try_from(size).ok().filter(|size| *size > 0).ok_or(Errno::EINVAL)?;
    let path = cx.path(path)?;
    let at = place(cx, dirfd, &path, AT_EMPTY_PATH, Follow::No).map_err(|error| match error {
        abi::Failure::Errno(Errno::EBADF) if path.is_empty() => Errno::ENOENT.into(),
        other => other,
    })?;
    if path.is_empty() && at.kind() != Some(abi::fs::FileType::Symlink) {
        return Err(Errno::ENOENT.into());
    }
    // The place is found already: any walk will do.
    let target = super::walk_at(cx, DirFd::Cwd, b"/", |walk| Ok(vfs::ops::read_link(walk, &at)?))?;
    let shown = target.get(..size).unwrap_or(&target);
    cx.mm().write_bytes(buf, shown)?;
    Ok(shown.len())
}
