//! Calls on the attributes of a place: modes, owners, times, sizes, extended attributes.

use crate::attr::{Attr, AttrChange, FsStat, SetTime};
use crate::caller::Caller;
use crate::cred::{Capabilities, Credentials, Kgid, Kuid};
use crate::inode::{LinkTarget, XattrFlags};
use crate::inode_flags;
use crate::inode_state;
use crate::locks::{LockKind, LockWait};
use crate::mount::{Location, MountFlags};
use crate::notify::{self, Mask};
use crate::perm::{self, Access, capable_over, owner_or_capable};
use crate::walk::Walk;
use abi::fs::{FileType, ModeBits};
use abi::signal::Signal;
use abi::{CallResult, Errno, SysResult};

const SUID: ModeBits = 0o4000;
const SGID: ModeBits = 0o2000;

/// Permission bits without those that a change of content or owner takes away.
#[must_use]
pub fn without_set_id(attr: &Attr) -> ModeBits {
    let mut perm = attr.perm & !SUID;
    if perm & 0o2010 == 0o2010 {
        perm &= !SGID;
    }
    perm
}

fn changed(at: &Location, by: &Caller<'_>) {
    notify::event(&at.dentry, Mask::ATTRIB, Some(by));
}

/// chmod(2), fchmod(2), fchmodat2(2).
pub fn chmod(at: &Location, mode: ModeBits, by: &Caller<'_>) -> SysResult<()> {
    at.mount.check_writable()?;
    let inode = at.inode()?;
    if inode.kind() == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    inode_flags::may_change(inode)?;
    let attr = inode.attr(by)?;
    if !owner_or_capable(by.cred, &attr) {
        return Err(Errno::EPERM);
    }
    let mut perm = mode & 0o7777;
    if perm & SGID != 0 && !by.cred.in_group(attr.gid) && !capable_over(by.cred, &attr, Capabilities::FSETID)
    {
        perm &= !SGID;
    }
    inode.set_attr(&AttrChange { perm: Some(perm), ..AttrChange::default() }, by)?;
    changed(at, by);
    Ok(())
}

/// chown(2) of a place; `None` leaves an id.
pub fn chown(at: &Location, uid: Option<Kuid>, gid: Option<Kgid>, by: &Caller<'_>) -> SysResult<()> {
    at.mount.check_writable()?;
    let inode = at.inode()?;
    inode_flags::may_change(inode)?;
    let attr = inode.attr(by)?;
    let capable = capable_over(by.cred, &attr, Capabilities::CHOWN);
    let owns = by.cred.fsuid == attr.uid;
    if let Some(uid) = uid
        && !capable
        && !(owns && uid == attr.uid)
    {
        return Err(Errno::EPERM);
    }
    if let Some(gid) = gid
        && !capable
        && !(owns && (gid == attr.gid || by.cred.in_group(gid)))
    {
        return Err(Errno::EPERM);
    }
    let mut perm = None;
    if attr.kind != FileType::Directory {
        let kept = without_set_id(&attr);
        perm = (kept != attr.perm).then_some(kept);
    }
    if uid.is_none() && gid.is_none() && perm.is_none() {
        return Ok(());
    }
    inode.set_attr(&AttrChange { uid, gid, perm, ..AttrChange::default() }, by)?;
    changed(at, by);
    Ok(())
}

/// chown(2) by path.
pub fn chown_at(
    walk: &Walk<'_>,
    path: &[u8],
    follow: crate::walk::Follow,
    uid: Option<Kuid>,
    gid: Option<Kgid>,
) -> SysResult<()> {
    chown(&walk.find(path, follow)?, uid, gid, walk.by)
}

/// utimensat(2); `None` is UTIME_OMIT.
pub fn utimens(
    at: &Location,
    atime: Option<SetTime>,
    mtime: Option<SetTime>,
    by: &Caller<'_>,
) -> SysResult<()> {
    if atime.is_none() && mtime.is_none() {
        return Ok(());
    }
    at.mount.check_writable()?;
    let inode = at.inode()?;
    let attr = inode.attr(by)?;
    let both_now = matches!((atime, mtime), (Some(SetTime::Now), Some(SetTime::Now)));
    if both_now {
        inode_flags::may_write(inode)?;
    } else {
        inode_flags::may_change(inode)?;
    }
    if !owner_or_capable(by.cred, &attr) {
        if !both_now {
            return Err(Errno::EPERM);
        }
        perm::check_inode(inode, Access::WRITE, by)?;
    }
    inode.set_attr(&AttrChange { atime, mtime, ..AttrChange::default() }, by)?;
    changed(at, by);
    Ok(())
}

/// truncate(2).
pub fn truncate(at: &Location, size: u64, by: &Caller<'_>) -> CallResult<()> {
    match at.kind() {
        Some(FileType::Directory) => return Err(Errno::EISDIR.into()),
        Some(FileType::Regular) => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    at.mount.check_writable()?;
    let inode = at.inode()?;
    perm::check_inode(inode, Access::WRITE, by)?;
    inode_flags::may_change(inode)?;
    crate::landlock::check(at, crate::landlock::FsRight::TRUNCATE, by)?;
    if i64::try_from(size).is_err() {
        return Err(Errno::EINVAL.into());
    }
    if size > by.task.file_size_limit() {
        by.task.raise(Signal::SIGXFSZ);
        return Err(Errno::EFBIG.into());
    }
    crate::lease::break_at(at, LockKind::Exclusive, LockWait::Yes, by)?;
    let state = inode_state::state_of(inode, by)?;
    state.get_write()?;
    let result = truncate_counted(at, size, by);
    state.put_write();
    Ok(result?)
}

fn truncate_counted(at: &Location, size: u64, by: &Caller<'_>) -> SysResult<()> {
    let inode = at.inode()?;
    let mut change = AttrChange { size: Some(size), ..AttrChange::default() };
    if !by.cred.has(Capabilities::FSETID) {
        let attr = inode.attr(by)?;
        let kept = without_set_id(&attr);
        change.perm = (kept != attr.perm).then_some(kept);
    }
    inode.set_attr(&change, by)?;
    notify::event(&at.dentry, Mask::MODIFY, Some(by));
    Ok(())
}

/// Credentials as access(2) wants them: real ids, and capabilities only for a real root.
#[must_use]
pub fn real_credentials(cred: &Credentials) -> Credentials {
    let mut real = cred.clone();
    real.fsuid = cred.uid;
    real.fsgid = cred.gid;
    // SECBIT_NO_SETUID_FIXUP keeps the effective set.
    if cred.securebits & (1 << 2) == 0 {
        let root = cred.user_ns.kuid(0).is_ok_and(|root| root == cred.uid);
        real.caps.effective = if root { cred.caps.permitted } else { Capabilities::empty() };
    }
    real
}

/// access(2) of a place; the credentials to use are those of `by` ([`real_credentials`] unless AT_EACCESS).
pub fn access(at: &Location, want: Access, by: &Caller<'_>) -> SysResult<()> {
    let inode = at.inode()?;
    if want.is_empty() {
        return Ok(());
    }
    if want.contains(Access::EXEC)
        && inode.kind() == FileType::Regular
        && at.mount.flags().contains(MountFlags::NOEXEC)
    {
        return Err(Errno::EACCES);
    }
    perm::check_inode(inode, want, by)?;
    let matters = matches!(inode.kind(), FileType::Regular | FileType::Directory | FileType::Symlink);
    if want.contains(Access::WRITE) && matters { at.mount.check_writable() } else { Ok(()) }
}

/// readlink(2). Magic links show the path of where they lead, as seen from the caller's root.
pub fn read_link(walk: &Walk<'_>, at: &Location) -> SysResult<Vec<u8>> {
    let inode = at.inode()?;
    if inode.kind() != FileType::Symlink {
        return Err(Errno::EINVAL);
    }
    match inode.read_link(walk.by)? {
        LinkTarget::Path(path) => Ok(path),
        LinkTarget::Magic(target) => {
            let place = match target.downcast_ref::<Location>() {
                Some(place) => place.clone(),
                None => {
                    let file = target.downcast::<crate::file::OpenFile>().map_err(|_| Errno::EINVAL)?;
                    crate::anon::location_of(&file)
                }
            };
            Ok(crate::path::show(&place, &walk.fs.root).text)
        }
    }
}

/// statfs(2).
pub fn statfs(at: &Location, by: &Caller<'_>) -> SysResult<FsStat> {
    at.mount.sb.fs.statfs(by)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Xattr {
    Get,
    Change,
}

/// Longest name (XATTR_NAME_MAX) and largest value (XATTR_SIZE_MAX).
const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 65536;

fn xattr_checks(at: &Location, name: &[u8], what: Xattr, by: &Caller<'_>) -> SysResult<()> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        return Err(Errno::ERANGE);
    }
    let inode = at.inode()?;
    if what == Xattr::Change {
        at.mount.check_writable()?;
        inode_flags::may_change(inode)?;
    }
    if name.starts_with(b"security.") {
        if what == Xattr::Get {
            return Ok(());
        }
        let attr = inode.attr(by)?;
        let cap =
            if name == b"security.capability" { Capabilities::SETFCAP } else { Capabilities::SYS_ADMIN };
        return if capable_over(by.cred, &attr, cap) { Ok(()) } else { Err(Errno::EPERM) };
    }
    if name.starts_with(b"system.") {
        return if what == Xattr::Get || owner_or_capable(by.cred, &inode.attr(by)?) {
            Ok(())
        } else {
            Err(Errno::EPERM)
        };
    }
    if name.starts_with(b"trusted.") {
        if by.cred.has(Capabilities::SYS_ADMIN) && by.cred.user_ns.parent.is_none() {
            return Ok(());
        }
        return Err(if what == Xattr::Get { Errno::ENODATA } else { Errno::EPERM });
    }
    if !name.starts_with(b"user.") {
        return Err(Errno::EOPNOTSUPP);
    }
    if name.len() == b"user.".len() {
        return Err(Errno::EINVAL);
    }
    if !matches!(inode.kind(), FileType::Regular | FileType::Directory) {
        return Err(if what == Xattr::Get { Errno::ENODATA } else { Errno::EPERM });
    }
    let attr = inode.attr(by)?;
    if what == Xattr::Change
        && attr.kind == FileType::Directory
        && attr.perm & 0o1000 != 0
        && !owner_or_capable(by.cred, &attr)
    {
        return Err(Errno::EPERM);
    }
    perm::check_inode(inode, if what == Xattr::Get { Access::READ } else { Access::WRITE }, by)
}

/// getxattr(2) of a place.
pub fn get_xattr(at: &Location, name: &[u8], by: &Caller<'_>) -> SysResult<Vec<u8>> {
    xattr_checks(at, name, Xattr::Get, by)?;
    at.inode()?.get_xattr(name, by)
}

/// setxattr(2) of a place.
pub fn set_xattr(
    at: &Location,
    name: &[u8],
    value: &[u8],
    flags: XattrFlags,
    by: &Caller<'_>,
) -> SysResult<()> {
    if flags.bits() & !XattrFlags::all().bits() != 0 {
        return Err(Errno::EINVAL);
    }
    if value.len() > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    xattr_checks(at, name, Xattr::Change, by)?;
    at.inode()?.set_xattr(name, value, flags, by)?;
    changed(at, by);
    Ok(())
}

/// removexattr(2) of a place.
pub fn remove_xattr(at: &Location, name: &[u8], by: &Caller<'_>) -> SysResult<()> {
    xattr_checks(at, name, Xattr::Change, by)?;
    at.inode()?.remove_xattr(name, by)?;
    changed(at, by);
    Ok(())
}

/// listxattr(2) of a place: names the caller may know of, each with its NUL.
pub fn list_xattr(at: &Location, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let trusted = by.cred.has(Capabilities::SYS_ADMIN) && by.cred.user_ns.parent.is_none();
    let mut out = Vec::new();
    for name in at.inode()?.list_xattr(by)? {
        if trusted || !name.starts_with(b"trusted.") {
            out.extend_from_slice(&name);
            out.push(0);
        }
    }
    Ok(out)
}
