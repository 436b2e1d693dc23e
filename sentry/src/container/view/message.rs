//! Messages as bytes: native byte order, fields in the order of `linux/fuse.h`.

use abi::fs::FileType;
use abi::{Errno, SysResult};
use vfs::{Attr, DirSink};

/// `FUSE_*` operations.
pub(super) mod op {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const RENAME2: u32 = 45;
}

/// Fields of FUSE_SETATTR that are meant.
pub(super) mod set {
    pub(in super::super) const MODE: u32 = 1;
    pub(in super::super) const UID: u32 = 1 << 1;
    pub(in super::super) const GID: u32 = 1 << 2;
    pub(in super::super) const SIZE: u32 = 1 << 3;
    pub(in super::super) const ATIME: u32 = 1 << 4;
    pub(in super::super) const MTIME: u32 = 1 << 5;
    pub(in super::super) const ATIME_NOW: u32 = 1 << 7;
    pub(in super::super) const MTIME_NOW: u32 = 1 << 8;
}

/// Entries of a directory as FUSE_READDIR gives them.
pub(super) struct Entries {
    pub(super) text: Put,
    /// Bytes that may be given.
    pub(super) room: usize,
}

impl DirSink for Entries {
    fn entry(&mut self, name: &[u8], ino: u64, kind: FileType, next: u64) -> bool {
        let length = (24 + name.len()).next_multiple_of(8);
        if self.text.0.len() + length > self.room {
            return false;
        }
        let end = self.text.0.len() + length;
        let put = std::mem::take(&mut self.text).u64(ino).u64(next);
        let put = put.u32(u32::try_from(name.len()).unwrap_or(0)).u32(kind.mode_bits() >> 12);
        self.text = put.bytes(name);
        self.text.0.resize(end, 0);
        true
    }
}

/// A message that is being read: `EIO` when it is too short.
pub(super) struct Take<'a>(pub(super) &'a [u8]);

impl<'a> Take<'a> {
    pub(super) fn bytes(&mut self, length: usize) -> SysResult<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(Errno::EIO)?;
        self.0 = rest;
        Ok(head)
    }
    pub(super) fn skip(&mut self, length: usize) -> SysResult<()> {
        self.bytes(length).map(|_| ())
    }
    pub(super) fn u32(&mut self) -> SysResult<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>().ok_or(Errno::EIO)?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*head))
    }
    pub(super) fn u64(&mut self) -> SysResult<u64> {
        let (head, rest) = self.0.split_first_chunk::<8>().ok_or(Errno::EIO)?;
        self.0 = rest;
        Ok(u64::from_ne_bytes(*head))
    }
    /// A name that ends with a NUL. What is no single name of a directory is refused.
    pub(super) fn name(&mut self) -> SysResult<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::EIO)?;
        let name = self.bytes(end)?;
        self.skip(1)?;
        Ok(name)
    }
}

/// A message that is being written.
#[derive(Default)]
pub(super) struct Put(pub(super) Vec<u8>);

impl Put {
    pub(super) fn u32(self, value: u32) -> Put {
        self.bytes(&value.to_ne_bytes())
    }
    pub(super) fn u64(self, value: u64) -> Put {
        self.bytes(&value.to_ne_bytes())
    }
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Put {
        self.0.extend_from_slice(bytes);
        self
    }
    /// `struct fuse_attr`.
    pub(super) fn attr(self, attr: &Attr) -> Put {
        let times = [attr.atime, attr.mtime, attr.ctime];
        let mut put = self.u64(attr.ino).u64(attr.size).u64(attr.blocks);
        for time in times {
            put = put.u64(time.sec.cast_unsigned());
        }
        for time in times {
            put = put.u32(u32::try_from(time.nsec).unwrap_or(0));
        }
        let put = put.u32(attr.kind.mode_bits() | (attr.perm & 0o7777)).u32(attr.nlink).u32(attr.uid.0);
        put.u32(attr.gid.0).u32(u32::try_from(attr.rdev).unwrap_or(0)).u32(attr.blksize).u32(0)
    }
}
