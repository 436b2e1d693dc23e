//! Inode flags (ioctl_iflags(2), chattr(1)): immutable and append-only files, and what only reads back.
//!
//! Where a file system keeps such flags itself, the checks here are the kernel's; files behind the gofer are the
//! host's to protect.

use crate::caller::Caller;
use crate::cred::Capabilities;
use crate::inode::Inode;
use crate::mount::Location;
use crate::perm::owner_or_capable;
use abi::{Errno, SysResult};
use std::sync::Arc;

bitflags::bitflags! {
    /// `FS_*_FL`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct InodeFlags: u32 {
        /// Writes reach the disk at once.
        const SYNC = 0x8;
        /// Nothing of it may change.
        const IMMUTABLE = 0x10;
        /// Only appending to it is allowed.
        const APPEND = 0x20;
        /// Left out of backups.
        const NODUMP = 0x40;
        /// No access times.
        const NOATIME = 0x80;
        /// Everything else a file system says of itself.
        const _ = !0;
    }
}

/// `FS_XFLAG_*` of `struct fsxattr` that are the same flags.
const SAME: [(InodeFlags, u32); 5] = [
    (InodeFlags::IMMUTABLE, 0x8),
    (InodeFlags::APPEND, 0x10),
    (InodeFlags::SYNC, 0x20),
    (InodeFlags::NOATIME, 0x40),
    (InodeFlags::NODUMP, 0x80),
];

impl InodeFlags {
    /// As `fsx_xflags`.
    #[must_use]
    pub fn to_xflags(self) -> u32 {
        SAME.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, bit)| bit).sum()
    }
    /// From `fsx_xflags`; `EOPNOTSUPP` for what has no other name.
    pub fn from_xflags(bits: u32) -> SysResult<InodeFlags> {
        let known: u32 = SAME.iter().map(|(_, bit)| bit).sum();
        if bits & !known != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(SAME.iter().filter(|(_, bit)| bits & bit != 0).map(|(flag, _)| *flag).collect())
    }
}

const PROTECTION: InodeFlags = InodeFlags::IMMUTABLE.union(InodeFlags::APPEND);

/// FS_IOC_SETFLAGS: `EPERM`, `EOPNOTSUPP`, `ENOTTY`.
pub fn set(at: &Location, flags: InodeFlags, by: &Caller<'_>) -> SysResult<()> {
    let inode = at.inode()?;
    let old = inode.flags(by)?;
    at.mount.check_writable()?;
    if !owner_or_capable(by.cred, &inode.attr(by)?) {
        return Err(Errno::EPERM);
    }
    if (old ^ flags).intersects(PROTECTION) && !by.cred.has(Capabilities::LINUX_IMMUTABLE) {
        return Err(Errno::EPERM);
    }
    inode.set_flags(flags, by)
}

/// Before its content, its mode, its owner or an attribute changes: `EPERM` for what may not.
pub(crate) fn may_write(inode: &Arc<dyn Inode>) -> SysResult<()> {
    if inode.protection().contains(InodeFlags::IMMUTABLE) { Err(Errno::EPERM) } else { Ok(()) }
}

/// Before a name of it goes or comes, or anything but its end changes: `EPERM`.
pub(crate) fn may_change(inode: &Arc<dyn Inode>) -> SysResult<()> {
    if inode.protection().intersects(PROTECTION) { Err(Errno::EPERM) } else { Ok(()) }
}

/// Before a name in the directory goes: `EPERM` where names may only be added.
pub(crate) fn may_remove_from(dir: &Arc<dyn Inode>) -> SysResult<()> {
    if dir.protection().contains(InodeFlags::APPEND) { Err(Errno::EPERM) } else { Ok(()) }
}
