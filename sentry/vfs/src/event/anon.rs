//! Inodes of files that live in no tree: pipefs, sockfs and the one anonymous inode that eventfd, epoll
//! and their like share. Rank of the attributes: `InodeAttr`.

use crate::attr::{Attr, AttrChange, FsStat, SetTime};
use crate::caller::{Caller, realtime_now};
use crate::cred::{Capabilities, Kgid, Kuid};
use abi::fs::{FileType, ModeBits, make_dev};
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::InodeAttr;
use std::sync::atomic::{AtomicU64, Ordering};

/// `st_dev` of pipefs.
pub const PIPE_DEV: u64 = make_dev(0, 13);
/// `st_dev` of sockfs.
pub const SOCKET_DEV: u64 = make_dev(0, 8);
/// `st_dev` of the anonymous inode file system.
pub const ANON_DEV: u64 = make_dev(0, 14);
const PIPEFS_MAGIC: u64 = 0x5049_5045;
const SOCKFS_MAGIC: u64 = 0x534f_434b;
const ANON_MAGIC: u64 = 0x0904_1934;

static NEXT_INO: AtomicU64 = AtomicU64::new(16);

/// A fresh inode number for pipes and sockets.
#[must_use]
pub fn next_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// Attributes of one pipe or socket.
#[derive(Debug)]
pub struct AnonInode {
    ino: u64,
    attr: Ranked<InodeAttr, Attr>,
}

impl AnonInode {
    /// A new inode of pipefs or sockfs, owned by the caller.
    #[must_use]
    pub fn new(kind: FileType, perm: ModeBits, by: &Caller<'_>) -> AnonInode {
        let ino = next_ino();
        let now = realtime_now();
        let attr = Attr {
            kind,
            perm,
            ino,
            nlink: 1,
            uid: by.cred.fsuid,
            gid: by.cred.fsgid,
            rdev: 0,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: now,
            mtime: now,
            ctime: now,
            btime: None,
        };
        AnonInode { ino, attr: Ranked::new(attr) }
    }
    /// Its number.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.ino
    }
    /// Its attributes.
    #[must_use]
    pub fn attr(&self) -> Attr {
        *self.attr.lock()
    }
    /// fchmod, fchown and futimens.
    pub fn set_attr(&self, change: &AttrChange, by: &Caller<'_>) -> SysResult<()> {
        if change.size.is_some() {
            return Err(Errno::EINVAL);
        }
        let mut attr = self.attr.lock();
        let owner = by.cred.fsuid == attr.uid;
        if change.perm.is_some() && !owner && !by.cred.has(Capabilities::FOWNER) {
            return Err(Errno::EPERM);
        }
        if change.uid.is_some_and(|uid| uid != attr.uid) && !by.cred.has(Capabilities::CHOWN) {
            return Err(Errno::EPERM);
        }
        if change.gid.is_some_and(|gid| gid != attr.gid && !(owner && by.cred.in_group(gid)))
            && !by.cred.has(Capabilities::CHOWN)
        {
            return Err(Errno::EPERM);
        }
        let now = realtime_now();
        let time = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::To(t) => t,
        };
        attr.perm = change.perm.unwrap_or(attr.perm);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.map_or(attr.atime, time);
        attr.mtime = change.mtime.map_or(attr.mtime, time);
        attr.ctime = now;
        Ok(())
    }
    /// fstatfs(2).
    #[must_use]
    pub fn statfs(&self) -> FsStat {
        let magic = if self.attr.lock().kind == FileType::Socket { SOCKFS_MAGIC } else { PIPEFS_MAGIC };
        FsStat { magic, bsize: 4096, namelen: 255, ..FsStat::default() }
    }
}

/// What fstat(2) shows of eventfd, epoll and their like.
#[must_use]
pub fn shared_attr() -> Attr {
    let zero = abi::time::Timespec::default();
    Attr {
        kind: FileType::Anonymous,
        perm: 0o600,
        ino: 15,
        nlink: 1,
        uid: Kuid(0),
        gid: Kgid(0),
        rdev: 0,
        size: 0,
        blocks: 0,
        blksize: 4096,
        atime: zero,
        mtime: zero,
        ctime: zero,
        btime: None,
    }
}

/// fstatfs(2) of the anonymous inode.
#[must_use]
pub fn shared_statfs() -> FsStat {
    FsStat { magic: ANON_MAGIC, bsize: 4096, namelen: 255, ..FsStat::default() }
}

/// `st_dev` for a file without a tree, by type.
#[must_use]
pub const fn dev_of(kind: FileType) -> u64 {
    match kind {
        FileType::Fifo => PIPE_DEV,
        FileType::Socket => SOCKET_DEV,
        _ => ANON_DEV,
    }
}
