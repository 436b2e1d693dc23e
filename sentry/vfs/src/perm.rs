//! Permission checks (path_resolution(7), capabilities(7)).

use crate::attr::Attr;
use crate::caller::Caller;
use crate::cred::{Capabilities, Credentials};
use crate::inode::Inode;
use crate::inode_flags;
use crate::mount::Location;
use abi::fs::FileType;
use abi::{Errno, SysResult};
use std::sync::Arc;

bitflags::bitflags! {
    /// What is asked of a file (access(2) numbers).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Access: u32 {
        /// Execute or search.
        const EXEC = 1;
        /// Write.
        const WRITE = 2;
        /// Read.
        const READ = 4;
    }
}

/// Whether `cap` counts for a file of this owner: both ids have numbers in the caller's namespace.
#[must_use]
pub fn capable_over(cred: &Credentials, attr: &Attr, cap: Capabilities) -> bool {
    cred.has(cap)
        && (cred.user_ns.parent.is_none()
            || (cred.user_ns.maps_uid(attr.uid) && cred.user_ns.maps_gid(attr.gid)))
}

/// Whether the caller owns the file or has CAP_FOWNER over it.
#[must_use]
pub fn owner_or_capable(cred: &Credentials, attr: &Attr) -> bool {
    cred.fsuid == attr.uid || capable_over(cred, attr, Capabilities::FOWNER)
}

/// The mode bits and capabilities against `want`; `EACCES`.
pub fn check_attr(cred: &Credentials, attr: &Attr, want: Access) -> SysResult<()> {
    let shift = if cred.fsuid == attr.uid {
        6
    } else if cred.in_group(attr.gid) {
        3
    } else {
        0
    };
    if Access::from_bits_truncate(attr.perm >> shift).contains(want) {
        return Ok(());
    }
    check_capable(cred, attr, want)
}

/// Capabilities against `want`; `EACCES`.
fn check_capable(cred: &Credentials, attr: &Attr, want: Access) -> SysResult<()> {
    if attr.kind == FileType::Directory {
        if !want.contains(Access::WRITE) && capable_over(cred, attr, Capabilities::DAC_READ_SEARCH) {
            return Ok(());
        }
        return if capable_over(cred, attr, Capabilities::DAC_OVERRIDE) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        };
    }
    if want == Access::READ && capable_over(cred, attr, Capabilities::DAC_READ_SEARCH) {
        return Ok(());
    }
    let may_execute = !want.contains(Access::EXEC) || attr.perm & 0o111 != 0;
    if may_execute && capable_over(cred, attr, Capabilities::DAC_OVERRIDE) {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}

/// Whether the caller may search any directory of its namespace: no look at the mode is needed.
fn searches_all(cred: &Credentials) -> bool {
    cred.user_ns.parent.is_none()
        && cred.caps.effective.intersects(Capabilities::DAC_OVERRIDE | Capabilities::DAC_READ_SEARCH)
}

/// Search permission on a directory of a walk.
pub fn may_search(inode: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
    if searches_all(by.cred) && !inode.checks_access() {
        return Ok(());
    }
    check_inode(inode, Access::EXEC, by)
}

/// `want` against an inode, whatever the mount.
pub fn check_inode(inode: &Arc<dyn Inode>, want: Access, by: &Caller<'_>) -> SysResult<()> {
    if want.contains(Access::WRITE) {
        inode_flags::may_write(inode)?;
    }
    if inode.checks_access() {
        return inode.access(want, by);
    }
    let attr = inode.attr(by)?;
    // The group bits of a file with a list are its mask: without any, the list gives no more than the mode.
    let others = by.cred.fsuid != attr.uid && attr.perm & 0o070 != 0 && attr.kind != FileType::Symlink;
    if others
        && check_capable(by.cred, &attr, want).is_err()
        && let Some(acl) = inode.acl(by)?
    {
        return if acl.gives(by.cred, &attr, want) { Ok(()) } else { Err(Errno::EACCES) };
    }
    check_attr(by.cred, &attr, want)
}

/// `want` against a place: read-only mounts, then the inode.
pub fn check(at: &Location, want: Access, by: &Caller<'_>) -> SysResult<()> {
    if want.contains(Access::WRITE)
        && matches!(at.kind(), Some(FileType::Regular | FileType::Directory | FileType::Symlink))
    {
        at.mount.check_writable()?;
    }
    check_inode(at.inode()?, want, by)
}

/// Whether `dir` (sticky) keeps the caller from removing `child`.
pub fn check_sticky(dir: &Attr, child: &Attr, by: &Caller<'_>) -> SysResult<()> {
    let free = dir.perm & 0o1000 == 0
        || child.uid == by.cred.fsuid
        || dir.uid == by.cred.fsuid
        || capable_over(by.cred, child, Capabilities::FOWNER);
    if free { Ok(()) } else { Err(Errno::EPERM) }
}
