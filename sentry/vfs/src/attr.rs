//! Attributes of inodes and file systems (inode(7), statfs(2)).

use crate::cred::{Kgid, Kuid};
use abi::fs::{FileType, ModeBits};
use abi::time::Timespec;

/// What stat(2) and statx(2) show of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Type.
    pub kind: FileType,
    /// Permission bits with set-id and sticky.
    pub perm: ModeBits,
    /// Inode number.
    pub ino: u64,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: Kuid,
    /// Group.
    pub gid: Kgid,
    /// Device number of device nodes.
    pub rdev: u64,
    /// Bytes.
    pub size: u64,
    /// 512-byte blocks.
    pub blocks: u64,
    /// Preferred I/O size.
    pub blksize: u32,
    /// Last access.
    pub atime: Timespec,
    /// Last data change.
    pub mtime: Timespec,
    /// Last attribute change.
    pub ctime: Timespec,
    /// Birth, where known.
    pub btime: Option<Timespec>,
}

/// A time that utimensat(2) sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The current time.
    Now,
    /// A given time.
    To(Timespec),
}

/// Changes of setattr; `None` leaves a field. Permission was checked by the caller of the inode, and
/// set-id bits are already cleared where Linux clears them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// New permission bits.
    pub perm: Option<ModeBits>,
    /// New owner.
    pub uid: Option<Kuid>,
    /// New group.
    pub gid: Option<Kgid>,
    /// New size (truncate).
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
}

/// statfs(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsStat {
    /// Magic number (`statfs.f_type`).
    pub magic: u64,
    /// Block size.
    pub bsize: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for ordinary users.
    pub bavail: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Longest name.
    pub namelen: u64,
}
