//! Files, directories and links of a FUSE file system.

use super::connection::MOST;
use super::file::FuseFile;
use super::fs::FuseFs;
use super::message::{self, Entry, Lasting, Put, Take, op};
use crate::attr::{Attr, AttrChange, SetTime};
use crate::caller::Caller;
use crate::file::FileOps;
use crate::inode::{DentryHint, FileSystem, Inode, LinkTarget, NewNode, Owner, RenameFlags, XattrFlags};
use crate::perm::Access;
use abi::fs::{FileType, ModeBits, OpenFlags};
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Longest value of an extended attribute.
const XATTR_MAX: u32 = 64 << 10;

/// A handle that `create` opened with the file, for the open that follows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) handle: u64,
    pub(super) how: u32,
}

#[derive(Debug, Default)]
struct Known {
    attr: Option<Lasting<Attr>>,
    name_until: Option<Instant>,
    opened: Option<Opened>,
}

/// One node of the server.
pub(super) struct FuseInode {
    pub(super) fs: Arc<FuseFs>,
    pub(super) node: u64,
    kind: FileType,
    /// How often the server has named it: what it is told at the end.
    looked_up: AtomicU64,
    known: Ranked<order::Leaf, Known>,
}

impl FuseInode {
    pub(super) fn new(fs: Arc<FuseFs>, node: u64, kind: FileType) -> FuseInode {
        FuseInode { fs, node, kind, looked_up: AtomicU64::new(0), known: Ranked::new(Known::default()) }
    }
    /// The server has named it in an answer.
    pub(super) fn seen_again(&self, entry: &Entry) {
        self.looked_up.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock();
        known.attr = Some(entry.attr);
        known.name_until = Some(entry.name_until);
    }
    pub(super) fn call(&self, operation: u32, body: &Put, by: &Caller<'_>) -> SysResult<Vec<u8>> {
        self.fs.call(operation, self.node, body, by)
    }
    /// What was known of its attributes is out of date.
    pub(super) fn forget_attr(&self) {
        self.known.lock().attr = None;
    }
    fn entry(&self, operation: u32, body: &Put, by: &Caller<'_>) -> SysResult<Arc<FuseInode>> {
        let reply = self.call(operation, body, by)?;
        let entry = message::take_entry(&mut Take(&reply), &self.fs.user_ns)?;
        self.fs.node(&entry)
    }
    /// A name made here: the directory's times have changed.
    fn made(&self, operation: u32, body: &Put, kind: FileType, by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        let inode = self.entry(operation, body, by)?;
        self.forget_attr();
        if inode.kind == kind { Ok(inode) } else { Err(Errno::EIO) }
    }
    /// FUSE_CREATE, for the open that is about to come; FUSE_MKNOD for servers without it.
    fn create_file(&self, name: &[u8], mode: u32, by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        let flags = OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::EXCL;
        let body = Put::default().u32(flags.bits()).u32(mode).u32(by.umask).u32(0).name(name);
        let reply = match self.call(op::CREATE, &body, by) {
            Err(Errno::ENOSYS) => {
                let body = Put::default().u32(mode).u32(0).u32(by.umask).u32(0).name(name);
                return self.made(op::MKNOD, &body, FileType::Regular, by);
            }
            other => other?,
        };
        let mut from = Take(&reply);
        let entry = message::take_entry(&mut from, &self.fs.user_ns)?;
        let (handle, how) = message::take_open(&mut from)?;
        let inode = self.fs.node(&entry)?;
        self.forget_attr();
        let before = inode.known.lock().opened.replace(Opened { handle, how });
        if let Some(before) = before {
            inode.release(op::RELEASE, before.handle, flags);
        }
        if inode.kind == FileType::Regular { Ok(inode) } else { Err(Errno::EIO) }
    }
    /// Tells the server that an open file is gone.
    pub(super) fn release(&self, operation: u32, handle: u64, flags: OpenFlags) {
        let body = Put::default().u64(handle).u32(flags.bits()).u32(0).u64(0);
        self.fs.conn.post(operation, self.node, &body);
    }
    fn same(inode: &Arc<dyn Inode>) -> SysResult<&FuseInode> {
        inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
    }
    fn removed(&self, operation: u32, name: &[u8], child: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
        self.call(operation, &Put::default().name(name), by)?;
        self.forget_attr();
        if let Ok(child) = FuseInode::same(child) {
            child.forget_attr();
        }
        Ok(())
    }
    /// A value whose size is not known before.
    fn sized(&self, operation: u32, name: Option<&[u8]>, by: &Caller<'_>) -> SysResult<Vec<u8>> {
        let body = Put::default().u32(XATTR_MAX).u32(0);
        let body = match name {
            Some(name) => body.name(name),
            None => body,
        };
        match self.call(operation, &body, by) {
            Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
            other => other,
        }
    }
}

impl Drop for FuseInode {
    fn drop(&mut self) {
        self.fs.dropped(self);
        let opened = self.known.lock().opened.take();
        if let Some(opened) = opened {
            self.release(op::RELEASE, opened.handle, OpenFlags::RDWR);
        }
        let count = self.looked_up.load(Ordering::Relaxed);
        if count > 0 {
            self.fs.conn.post(op::FORGET, self.node, &Put::default().u64(count));
        }
    }
}

/// `struct fuse_setattr_in`.
fn setattr(change: &AttrChange, fs: &FuseFs) -> Put {
    const MODE: u32 = 1;
    const UID: u32 = 1 << 1;
    const GID: u32 = 1 << 2;
    const SIZE: u32 = 1 << 3;
    const ATIME: u32 = 1 << 4;
    const MTIME: u32 = 1 << 5;
    const ATIME_NOW: u32 = 1 << 7;
    const MTIME_NOW: u32 = 1 << 8;
    let mut valid = 0;
    let mut mark = |has: bool, bit: u32| valid |= if has { bit } else { 0 };
    mark(change.perm.is_some(), MODE);
    mark(change.uid.is_some(), UID);
    mark(change.gid.is_some(), GID);
    mark(change.size.is_some(), SIZE);
    mark(change.atime.is_some(), ATIME);
    mark(change.mtime.is_some(), MTIME);
    mark(change.atime == Some(SetTime::Now), ATIME_NOW);
    mark(change.mtime == Some(SetTime::Now), MTIME_NOW);
    let time = |time: Option<SetTime>| match time {
        Some(SetTime::To(time)) => time,
        Some(SetTime::Now) => crate::caller::realtime_now(),
        None => abi::time::Timespec { sec: 0, nsec: 0 },
    };
    let (atime, mtime) = (time(change.atime), time(change.mtime));
    let nsec = |time: abi::time::Timespec| u32::try_from(time.nsec).unwrap_or(0);
    Put::default()
        .u32(valid)
        .u32(0)
        .u64(0)
        .u64(change.size.unwrap_or(0))
        .u64(0)
        .u64(atime.sec.cast_unsigned())
        .u64(mtime.sec.cast_unsigned())
        .u64(0)
        .u32(nsec(atime))
        .u32(nsec(mtime))
        .u32(0)
        .u32(change.perm.unwrap_or(0))
        .u32(0)
        .u32(change.uid.map_or(0, |uid| fs.user_ns.show_uid(uid)))
        .u32(change.gid.map_or(0, |gid| fs.user_ns.show_gid(gid)))
        .u32(0)
}

impl Inode for FuseInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.fs) as Arc<dyn FileSystem>
    }
    fn kind(&self) -> FileType {
        self.kind
    }
    fn attr(&self, by: &Caller<'_>) -> SysResult<Attr> {
        let known = self.known.lock().attr;
        if let Some(known) = known
            && Instant::now() < known.until
        {
            return Ok(known.value);
        }
        let reply = self.call(op::GETATTR, &Put::default().u32(0).u32(0).u64(0), by)?;
        let fresh = message::take_attr_out(&mut Take(&reply), &self.fs.user_ns)?;
        if fresh.value.kind != self.kind {
            return Err(Errno::EIO);
        }
        self.known.lock().attr = Some(fresh);
        Ok(fresh.value)
    }
    fn child_hint(&self) -> DentryHint {
        DentryHint::Shared
    }
    fn checks_access(&self) -> bool {
        true
    }
    fn access(&self, want: Access, by: &Caller<'_>) -> SysResult<()> {
        self.fs.check(self, want, by)
    }
    fn set_attr(&self, change: &AttrChange, by: &Caller<'_>) -> SysResult<()> {
        let mut change = *change;
        if let Some(perm) = change.perm {
            change.perm = Some(perm | self.kind.mode_bits());
        }
        let reply = self.call(op::SETATTR, &setattr(&change, &self.fs), by)?;
        let fresh = message::take_attr_out(&mut Take(&reply), &self.fs.user_ns)?;
        self.known.lock().attr = Some(fresh);
        Ok(())
    }
    fn lookup(&self, name: &[u8], by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        self.fs.check_user(by)?;
        Ok(self.entry(op::LOOKUP, &Put::default().name(name), by)?)
    }
    fn revalidate(&self, name: &[u8], child: &Arc<dyn Inode>, by: &Caller<'_>) -> bool {
        let Ok(child) = FuseInode::same(child) else { return false };
        let until = child.known.lock().name_until;
        if until.is_some_and(|until| Instant::now() < until) {
            return true;
        }
        let found = self.entry(op::LOOKUP, &Put::default().name(name), by);
        found.is_ok_and(|found| std::ptr::eq(Arc::as_ptr(&found), child))
    }
    fn create(
        &self,
        name: &[u8],
        what: &NewNode,
        perm: ModeBits,
        _owner: Owner,
        by: &Caller<'_>,
    ) -> SysResult<Arc<dyn Inode>> {
        let node = |kind: FileType, rdev: u64| {
            let device = (crate::vfs::major(rdev) << 8)
                | (crate::vfs::minor(rdev) & 0xff)
                | ((crate::vfs::minor(rdev) & 0xf_ff00) << 12);
            let body =
                Put::default().u32(perm | kind.mode_bits()).u32(device).u32(by.umask).u32(0).name(name);
            self.made(op::MKNOD, &body, kind, by)
        };
        match what {
            NewNode::Regular => self.create_file(name, perm | FileType::Regular.mode_bits(), by),
            NewNode::Directory => {
                let body = Put::default().u32(perm).u32(by.umask).name(name);
                self.made(op::MKDIR, &body, FileType::Directory, by)
            }
            NewNode::Symlink(target) => {
                let body = Put::default().name(name).name(target);
                self.made(op::SYMLINK, &body, FileType::Symlink, by)
            }
            NewNode::Fifo => node(FileType::Fifo, 0),
            NewNode::Socket => node(FileType::Socket, 0),
            NewNode::CharDevice(rdev) => node(FileType::CharDevice, *rdev),
            NewNode::BlockDevice(rdev) => node(FileType::BlockDevice, *rdev),
        }
    }
    fn created_only(&self) {
        let opened = self.known.lock().opened.take();
        if let Some(opened) = opened {
            self.release(op::RELEASE, opened.handle, OpenFlags::RDWR);
        }
    }
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
        let target = FuseInode::same(target)?;
        let body = Put::default().u64(target.node).name(name);
        let linked = self.entry(op::LINK, &body, by);
        self.forget_attr();
        match linked {
            Ok(_) => Ok(()),
            Err(Errno::ENOSYS) => Err(Errno::EPERM),
            Err(errno) => Err(errno),
        }
    }
    fn unlink(&self, name: &[u8], child: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
        self.removed(op::UNLINK, name, child, by)
    }
    fn rmdir(&self, name: &[u8], child: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
        self.removed(op::RMDIR, name, child, by)
    }
    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        _replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
        by: &Caller<'_>,
    ) -> SysResult<()> {
        let to = FuseInode::same(new_dir)?;
        if flags.is_empty() {
            self.call(op::RENAME, &Put::default().u64(to.node).name(name).name(new_name), by)?;
        } else {
            let body = Put::default().u64(to.node).u32(flags.bits()).u32(0).name(name).name(new_name);
            let done = self.call(op::RENAME2, &body, by);
            done.map_err(|errno| if errno == Errno::ENOSYS { Errno::EINVAL } else { errno })?;
        }
        self.forget_attr();
        to.forget_attr();
        Ok(())
    }
    fn read_link(&self, by: &Caller<'_>) -> SysResult<LinkTarget> {
        let target = self.call(op::READLINK, &Put::default(), by)?;
        if target.len() >= abi::limits::PATH_MAX || target.contains(&0) {
            return Err(Errno::EIO);
        }
        Ok(LinkTarget::Path(target))
    }
    fn open(self: Arc<Self>, flags: OpenFlags, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        let made = if self.kind == FileType::Regular { self.known.lock().opened.take() } else { None };
        let flags = flags - (OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NOCTTY | OpenFlags::TRUNC);
        if let Some(opened) = made {
            return Ok(Arc::new(FuseFile::new(self, opened, flags)));
        }
        let operation = if self.kind == FileType::Directory { op::OPENDIR } else { op::OPEN };
        let reply = self.call(operation, &Put::default().u32(flags.bits()).u32(0), by);
        let opened = match reply {
            // A server without opens has no handles either.
            Err(Errno::ENOSYS) => Opened { handle: 0, how: 0 },
            other => {
                let (handle, how) = message::take_open(&mut Take(&other?))?;
                Opened { handle, how }
            }
        };
        if opened.how & super::file::KEEP_CACHE == 0 {
            self.forget_attr();
        }
        Ok(Arc::new(FuseFile::new(self, opened, flags)))
    }
    fn get_xattr(&self, name: &[u8], by: &Caller<'_>) -> SysResult<Vec<u8>> {
        self.sized(op::GETXATTR, Some(name), by)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags, by: &Caller<'_>) -> SysResult<()> {
        let len = u32::try_from(value.len()).ok().filter(|len| *len <= MOST).ok_or(Errno::E2BIG)?;
        let body = Put::default().u32(len).u32(flags.bits()).name(name).bytes(value);
        match self.call(op::SETXATTR, &body, by) {
            Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
            other => other.map(drop),
        }
    }
    fn remove_xattr(&self, name: &[u8], by: &Caller<'_>) -> SysResult<()> {
        match self.call(op::REMOVEXATTR, &Put::default().name(name), by) {
            Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
            other => other.map(drop),
        }
    }
    fn list_xattr(&self, by: &Caller<'_>) -> SysResult<Vec<Vec<u8>>> {
        let names = self.sized(op::LISTXATTR, None, by)?;
        Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }
}
