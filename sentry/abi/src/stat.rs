//! Structures of stat(2), statx(2), statfs(2), fcntl(2) and openat2(2).

use crate::time::Timespec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct stat` of x86-64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of stat(2)")]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub pad: u32,
    pub rdev: u64,
    pub size: i64,
    pub blksize: i64,
    pub blocks: i64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub unused: [i64; 3],
}

/// `struct statx_timestamp`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of statx(2)")]
pub struct StatxTimestamp {
    pub sec: i64,
    pub nsec: u32,
    pub pad: i32,
}

impl From<Timespec> for StatxTimestamp {
    fn from(t: Timespec) -> StatxTimestamp {
        StatxTimestamp { sec: t.sec, nsec: u32::try_from(t.nsec).unwrap_or(0), pad: 0 }
    }
}

/// `struct statx`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of statx(2)")]
pub struct Statx {
    pub mask: u32,
    pub blksize: u32,
    pub attributes: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    pub pad1: u16,
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub attributes_mask: u64,
    pub atime: StatxTimestamp,
    pub btime: StatxTimestamp,
    pub ctime: StatxTimestamp,
    pub mtime: StatxTimestamp,
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub dev_major: u32,
    pub dev_minor: u32,
    pub mnt_id: u64,
    pub dio_mem_align: u32,
    pub dio_offset_align: u32,
    pub spare: [u64; 12],
}

/// `STATX_BASIC_STATS`.
pub const STATX_BASIC_STATS: u32 = 0x7ff;
/// `STATX_BTIME`.
pub const STATX_BTIME: u32 = 0x800;
/// `STATX_MNT_ID`.
pub const STATX_MNT_ID: u32 = 0x1000;
/// `STATX_ATTR_MOUNT_ROOT`.
pub const STATX_ATTR_MOUNT_ROOT: u64 = 0x2000;

/// `struct statfs` of x86-64.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of statfs(2)")]
pub struct Statfs {
    pub kind: u64,
    pub bsize: u64,
    pub blocks: u64,
    pub bfree: u64,
    pub bavail: u64,
    pub files: u64,
    pub ffree: u64,
    pub fsid: [u32; 2],
    pub namelen: u64,
    pub frsize: u64,
    pub flags: u64,
    pub spare: [u64; 4],
}

/// `struct flock`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of fcntl_locking(2)")]
pub struct Flock {
    pub kind: i16,
    pub whence: i16,
    pub pad1: i32,
    pub start: i64,
    pub len: i64,
    pub pid: i32,
    pub pad2: i32,
}

/// `struct open_how`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of openat2(2)")]
pub struct OpenHow {
    pub flags: u64,
    pub mode: u64,
    pub resolve: u64,
}

/// `struct iovec`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of readv(2)")]
pub struct Iovec {
    pub base: u64,
    pub len: u64,
}

/// `struct f_owner_ex`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of fcntl(2)")]
pub struct FOwnerEx {
    pub kind: i32,
    pub pid: i32,
}

/// Major number of a device in the kernel's encoding.
#[must_use]
pub fn dev_major(dev: u64) -> u32 {
    u32::try_from(((dev >> 8) & 0xfff) | ((dev >> 32) & 0xffff_f000)).unwrap_or(0)
}
/// Minor number of a device in the kernel's encoding.
#[must_use]
pub fn dev_minor(dev: u64) -> u32 {
    u32::try_from((dev & 0xff) | ((dev >> 12) & 0xffff_ff00)).unwrap_or(0)
}
