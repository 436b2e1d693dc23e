//! Messages as bytes: native byte order, fields in the order of `linux/fuse.h`.

use crate::attr::Attr;
use crate::cred::{Kgid, Kuid, OVERFLOW_ID, UserNamespace};
use abi::fs::FileType;
use abi::time::Timespec;
use abi::{Errno, SysResult};
use std::time::{Duration, Instant};

/// Protocol version.
pub(super) const MAJOR: u32 = 7;
/// The last minor version whose messages are known.
pub(super) const MINOR: u32 = 31;
/// Bytes of a request's header.
pub(super) const HEADER: usize = 40;
/// Bytes of a reply's header.
pub(super) const OUT_HEADER: usize = 16;
/// The root's node id.
pub(super) const ROOT: u64 = 1;

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
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const INIT: u32 = 26;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const RENAME2: u32 = 45;
}

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub(super) struct Put(pub(super) Vec<u8>);

impl Put {
    pub(super) fn u32(mut self, value: u32) -> Put {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
    pub(super) fn u64(mut self, value: u64) -> Put {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
    pub(super) fn bytes(mut self, bytes: &[u8]) -> Put {
        self.0.extend_from_slice(bytes);
        self
    }
    /// A name with its NUL.
    pub(super) fn name(self, name: &[u8]) -> Put {
        let mut put = self.bytes(name);
        put.0.push(0);
        put
    }
}

/// A message that is being read: `EIO` when it is too short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Take<'a>(pub(super) &'a [u8]);

impl<'a> Take<'a> {
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
    pub(super) fn bytes(&mut self, len: usize) -> SysResult<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Errno::EIO)?;
        self.0 = rest;
        Ok(head)
    }
}

/// An answer that may be believed until a point in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lasting<T> {
    pub(super) value: T,
    pub(super) until: Instant,
}

fn until(seconds: u64, nanoseconds: u32) -> Instant {
    let now = Instant::now();
    // Longer than anybody looks is for ever.
    let life = Duration::from_secs(seconds.min(1 << 30)) + Duration::from_nanos(u64::from(nanoseconds));
    now.checked_add(life).unwrap_or(now)
}

/// `struct fuse_attr`.
pub(super) fn take_attr(from: &mut Take<'_>, ns: &UserNamespace) -> SysResult<Attr> {
    let (ino, size, blocks) = (from.u64()?, from.u64()?, from.u64()?);
    let seconds = [from.u64()?, from.u64()?, from.u64()?];
    let fractions = [from.u32()?, from.u32()?, from.u32()?];
    let (mode, nlink) = (from.u32()?, from.u32()?);
    let (uid, gid) = (from.u32()?, from.u32()?);
    let (rdev, blksize, _flags) = (from.u32()?, from.u32()?, from.u32()?);
    let time = |at: usize| Timespec {
        sec: seconds.get(at).copied().unwrap_or(0).cast_signed(),
        nsec: i64::from(fractions.get(at).copied().unwrap_or(0) % 1_000_000_000),
    };
    let kind = FileType::from_mode(mode).filter(|kind| *kind != FileType::Anonymous).ok_or(Errno::EIO)?;
    if i64::try_from(size).is_err() {
        return Err(Errno::EIO);
    }
    Ok(Attr {
        kind,
        perm: mode & 0o7777,
        ino,
        nlink,
        uid: ns.kuid(uid).unwrap_or(Kuid(OVERFLOW_ID)),
        gid: ns.kgid(gid).unwrap_or(Kgid(OVERFLOW_ID)),
        rdev: abi::fs::make_dev((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xf_ff00)),
        size,
        blocks,
        blksize: if blksize == 0 { 4096 } else { blksize },
        atime: time(0),
        mtime: time(1),
        ctime: time(2),
        btime: None,
    })
}

/// `struct fuse_attr_out`.
pub(super) fn take_attr_out(from: &mut Take<'_>, ns: &UserNamespace) -> SysResult<Lasting<Attr>> {
    let (seconds, nanoseconds, _) = (from.u64()?, from.u32()?, from.u32()?);
    Ok(Lasting { value: take_attr(from, ns)?, until: until(seconds, nanoseconds) })
}

/// `struct fuse_entry_out`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) node: u64,
    pub(super) name_until: Instant,
    pub(super) attr: Lasting<Attr>,
}

/// An entry; `ENOENT` for node 0, which says that the name is known not to exist.
pub(super) fn take_entry(from: &mut Take<'_>, ns: &UserNamespace) -> SysResult<Entry> {
    let (node, _generation) = (from.u64()?, from.u64()?);
    let (name_s, attr_s) = (from.u64()?, from.u64()?);
    let (name_ns, attr_ns) = (from.u32()?, from.u32()?);
    if node == 0 {
        return Err(Errno::ENOENT);
    }
    let attr = take_attr(from, ns)?;
    let attr = Lasting { value: attr, until: until(attr_s, attr_ns) };
    Ok(Entry { node, name_until: until(name_s, name_ns), attr })
}

/// `struct fuse_open_out`: handle and `FOPEN_*`.
pub(super) fn take_open(from: &mut Take<'_>) -> SysResult<(u64, u32)> {
    let opened = (from.u64()?, from.u32()?);
    from.u32()?;
    Ok(opened)
}
