//! Inodes: attributes, extended attributes, symbolic links.

use super::dir::{DirBody, DirFile};
use super::file::TmpFile;
use super::fs::Shared;
use crate::acl;
use crate::attr::{Attr, AttrChange, SetTime};
use crate::caller::{Caller, realtime_now};
use crate::cred::{Kgid, Kuid};
use crate::file::FileOps;
use crate::inode::{Atime, FileSystem, Inode, LinkTarget, NewNode, Owner, RenameFlags, XattrFlags};
use crate::inode_flags::InodeFlags;
use abi::fs::{FileType, ModeBits, OpenFlags};
use abi::time::Timespec;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use mm::{FilePages, MappableId, Seals};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Bytes that a directory entry counts for in `st_size`.
const DIRENT_SIZE: u64 = 20;
/// Most bytes of extended attributes on one inode.
const XATTR_LIMIT: usize = 128 << 10;

pub(super) struct Meta {
    pub(super) perm: ModeBits,
    pub(super) uid: Kuid,
    pub(super) gid: Kgid,
    pub(super) nlink: u32,
    pub(super) atime: Timespec,
    pub(super) mtime: Timespec,
    pub(super) ctime: Timespec,
    btime: Timespec,
    unnamed: bool,
    flags: InodeFlags,
    xattrs: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
}

pub(super) enum Body {
    Regular(Arc<FilePages>),
    Directory(Ranked<order::DirInode, DirBody>),
    Symlink(Box<[u8]>),
    Special(u64),
}

/// A tmpfs inode.
pub struct TmpInode {
    me: Weak<TmpInode>,
    pub(super) fs: Arc<Shared>,
    pub(super) ino: u64,
    kind: FileType,
    pub(super) meta: Ranked<order::InodeAttr, Meta>,
    pub(super) body: Body,
}

impl std::fmt::Debug for TmpInode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TmpInode({})", self.ino)
    }
}

impl TmpInode {
    pub(super) fn make(
        fs: &Arc<Shared>,
        ino: u64,
        kind: FileType,
        perm: ModeBits,
        owner: Owner,
        rdev: u64,
        parent: Option<&Arc<TmpInode>>,
    ) -> Arc<TmpInode> {
        let body = match kind {
            FileType::Directory => Body::Directory(Ranked::new(DirBody::new(parent))),
            FileType::Regular => {
                let id = MappableId { dev: fs.dev, ino };
                let pages = FilePages::with(&fs.frames, id, fs.quota.clone(), None);
                // Files of a tmpfs cannot be sealed; memfds start without.
                let _ = pages.add_seals(Seals::SEAL);
                Body::Regular(pages)
            }
            _ => Body::Special(rdev),
        };
        TmpInode::with_body(fs, ino, kind, perm, owner, body)
    }
    pub(super) fn with_body(
        fs: &Arc<Shared>,
        ino: u64,
        kind: FileType,
        perm: ModeBits,
        owner: Owner,
        body: Body,
    ) -> Arc<TmpInode> {
        let now = realtime_now();
        let meta = Meta {
            perm,
            uid: owner.uid,
            gid: owner.gid,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            unnamed: false,
            flags: InodeFlags::empty(),
            xattrs: None,
        };
        Arc::new_cyclic(|me| TmpInode {
            me: Weak::clone(me),
            fs: Arc::clone(fs),
            ino,
            kind,
            meta: Ranked::new(meta),
            body,
        })
    }
    fn make_node(
        self: &Arc<TmpInode>,
        what: &NewNode,
        perm: ModeBits,
        owner: Owner,
    ) -> SysResult<Arc<TmpInode>> {
        let ino = self.fs.new_ino()?;
        let (kind, rdev) = match what {
            NewNode::Regular => (FileType::Regular, 0),
            NewNode::Directory => (FileType::Directory, 0),
            NewNode::Fifo => (FileType::Fifo, 0),
            NewNode::Socket => (FileType::Socket, 0),
            NewNode::CharDevice(rdev) => (FileType::CharDevice, *rdev),
            NewNode::BlockDevice(rdev) => (FileType::BlockDevice, *rdev),
            NewNode::Symlink(target) => {
                let body = Body::Symlink(target.clone().into_boxed_slice());
                return Ok(TmpInode::with_body(&self.fs, ino, FileType::Symlink, perm, owner, body));
            }
        };
        Ok(TmpInode::make(&self.fs, ino, kind, perm, owner, rdev, Some(self)))
    }
    /// The pages of a regular file.
    #[must_use]
    pub fn pages(&self) -> Option<&Arc<FilePages>> {
        match &self.body {
            Body::Regular(pages) => Some(pages),
            _ => None,
        }
    }
    pub(super) fn entries(&self) -> SysResult<&Ranked<order::DirInode, DirBody>> {
        match &self.body {
            Body::Directory(entries) => Ok(entries),
            _ => Err(Errno::ENOTDIR),
        }
    }
    /// Content changed now.
    pub(super) fn touch_modified(&self) {
        let now = realtime_now();
        let mut meta = self.meta.lock();
        meta.mtime = now;
        meta.ctime = now;
    }
    pub(super) fn change_links(&self, by: i32) {
        let now = realtime_now();
        let mut meta = self.meta.lock();
        meta.nlink = meta.nlink.saturating_add_signed(by);
        meta.ctime = now;
    }
    fn attr_now(&self) -> Attr {
        let (size, allocated, rdev) = match &self.body {
            Body::Regular(pages) => (pages.size(), pages.allocated(), 0),
            Body::Directory(entries) => ((entries.lock().len() as u64 + 2) * DIRENT_SIZE, 0, 0),
            Body::Symlink(target) => (target.len() as u64, 0, 0),
            Body::Special(rdev) => (0, 0, *rdev),
        };
        let meta = self.meta.lock();
        Attr {
            kind: self.kind,
            perm: meta.perm,
            ino: self.ino,
            nlink: meta.nlink,
            uid: meta.uid,
            gid: meta.gid,
            rdev,
            size,
            blocks: allocated / 512,
            blksize: 4096,
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
            btime: Some(meta.btime),
        }
    }
}

fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS || name == acl::DEFAULT
}

impl Meta {
    fn acl(&self, name: &[u8]) -> Option<acl::Acl> {
        acl::Acl::parse(self.xattrs.as_ref()?.get(name)?).ok().flatten()
    }
    fn set_acl(&mut self, name: &[u8], list: Option<&acl::Acl>) {
        match list {
            Some(list) => {
                self.xattrs.get_or_insert_default().insert(name.to_vec(), list.value());
            }
            None => {
                self.xattrs.as_mut().and_then(|xattrs| xattrs.remove(name));
            }
        }
    }
}

impl TmpInode {
    fn set_acl(&self, name: &[u8], list: Option<acl::Acl>) -> SysResult<()> {
        match self.kind {
            FileType::Symlink => return Err(Errno::EOPNOTSUPP),
            FileType::Directory => {}
            _ if name == acl::DEFAULT && list.is_some() => return Err(Errno::EACCES),
            _ => {}
        }
        let mut meta = self.meta.lock();
        let kept = match &list {
            Some(list) if name == acl::ACCESS => {
                meta.perm = (meta.perm & !0o777) | list.mode();
                !list.is_mode()
            }
            _ => true,
        };
        meta.set_acl(name, list.as_ref().filter(|_| kept));
        meta.ctime = realtime_now();
        Ok(())
    }
    /// A new node in this directory is not dumped, and has no access times, where it is so.
    fn hand_down_flags(&self, new: &TmpInode) {
        let flags = self.meta.lock().flags & (InodeFlags::NODUMP | InodeFlags::NOATIME);
        if !flags.is_empty() {
            new.meta.lock().flags = flags;
        }
    }
    /// Begins with the directory's default list.
    fn inherit(&self, default: Option<acl::Acl>) {
        let Some(default) = default.filter(|_| self.kind != FileType::Symlink) else { return };
        let mut meta = self.meta.lock();
        let list = default.inherited(meta.perm & 0o777);
        meta.perm = (meta.perm & !0o777) | list.mode();
        meta.set_acl(acl::ACCESS, Some(&list).filter(|list| !list.is_mode()));
        if self.kind == FileType::Directory {
            meta.set_acl(acl::DEFAULT, Some(&default));
        }
    }
}

/// The tmpfs inode behind a trait object; `EXDEV` for others.
pub(super) fn tmp(inode: &Arc<dyn Inode>) -> SysResult<&TmpInode> {
    inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
}

impl Inode for TmpInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.fs) as Arc<dyn FileSystem>
    }
    fn kind(&self) -> FileType {
        self.kind
    }
    fn ino(&self) -> Option<u64> {
        Some(self.ino)
    }
    fn acl(&self, _by: &Caller<'_>) -> SysResult<Option<acl::Acl>> {
        Ok(self.meta.lock().acl(acl::ACCESS))
    }
    fn has_default_acl(&self, _by: &Caller<'_>) -> SysResult<bool> {
        Ok(self.meta.lock().acl(acl::DEFAULT).is_some())
    }
    fn has_other_names(&self) -> bool {
        self.meta.lock().nlink > 0
    }
    fn child_hint(&self) -> crate::inode::DentryHint {
        crate::inode::DentryHint::Exclusive
    }
    fn attr(&self, _by: &Caller<'_>) -> SysResult<Attr> {
        Ok(self.attr_now())
    }
    fn touch_atime(&self, how: Atime) {
        let now = realtime_now();
        let mut meta = self.meta.lock();
        if meta.flags.contains(InodeFlags::NOATIME) {
            return;
        }
        let before = |a: Timespec, b: Timespec| (a.sec, a.nsec) <= (b.sec, b.nsec);
        let stale = how == Atime::Strict
            || before(meta.atime, meta.mtime)
            || before(meta.atime, meta.ctime)
            || now.sec.saturating_sub(meta.atime.sec) >= 24 * 3600;
        if stale {
            meta.atime = now;
        }
    }
    fn set_attr(&self, change: &AttrChange, _by: &Caller<'_>) -> SysResult<()> {
        if let Some(size) = change.size {
            self.pages().ok_or(Errno::EINVAL)?.truncate(size)?;
        }
        if change.perm.is_some_and(|perm| perm & 0o111 != self.meta.lock().perm & 0o111)
            && self.pages().is_some_and(|p| p.seals().contains(Seals::EXEC))
        {
            return Err(Errno::EPERM);
        }
        let now = realtime_now();
        let time = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::To(at) => at,
        };
        let mut meta = self.meta.lock();
        meta.perm = change.perm.unwrap_or(meta.perm);
        if let Some(perm) = change.perm
            && let Some(mut list) = meta.acl(acl::ACCESS)
        {
            list.set_mode(perm);
            meta.set_acl(acl::ACCESS, Some(&list));
        }
        meta.uid = change.uid.unwrap_or(meta.uid);
        meta.gid = change.gid.unwrap_or(meta.gid);
        if change.size.is_some() {
            meta.mtime = now;
        }
        if let Some(at) = change.atime {
            meta.atime = time(at);
        }
        if let Some(at) = change.mtime {
            meta.mtime = time(at);
        }
        meta.ctime = now;
        Ok(())
    }
    fn flags(&self, _by: &Caller<'_>) -> SysResult<InodeFlags> {
        match self.kind {
            FileType::Regular | FileType::Directory => Ok(self.meta.lock().flags),
            _ => Err(Errno::ENOTTY),
        }
    }
    fn set_flags(&self, flags: InodeFlags, _by: &Caller<'_>) -> SysResult<()> {
        const KNOWN: InodeFlags = InodeFlags::IMMUTABLE
            .union(InodeFlags::APPEND)
            .union(InodeFlags::NODUMP)
            .union(InodeFlags::NOATIME);
        if !KNOWN.contains(flags) {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut meta = self.meta.lock();
        meta.flags = flags;
        meta.ctime = realtime_now();
        Ok(())
    }
    fn protection(&self) -> InodeFlags {
        self.meta.lock().flags
    }
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        let found = self.entries()?.lock().get(name);
        found.map(|i| i as Arc<dyn Inode>).ok_or(Errno::ENOENT)
    }
    fn create(
        &self,
        name: &[u8],
        what: &NewNode,
        perm: ModeBits,
        owner: Owner,
        _by: &Caller<'_>,
    ) -> SysResult<Arc<dyn Inode>> {
        let me = self.arc()?;
        let new = me.make_node(what, perm, owner)?;
        let default = self.meta.lock().acl(acl::DEFAULT);
        new.inherit(default);
        self.hand_down_flags(&new);
        let added = self.entries()?.lock().insert(name, &new);
        if let Err(error) = added {
            new.change_links(-2);
            return Err(error);
        }
        if new.kind == FileType::Directory {
            self.change_links(1);
        }
        self.touch_modified();
        Ok(new)
    }
    fn create_unnamed(&self, perm: ModeBits, owner: Owner, _by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        let new = self.arc()?.make_node(&NewNode::Regular, perm, owner)?;
        let default = self.meta.lock().acl(acl::DEFAULT);
        new.inherit(default);
        self.hand_down_flags(&new);
        {
            let mut meta = new.meta.lock();
            meta.nlink = 0;
            meta.unnamed = true;
        }
        Ok(new)
    }
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>, _by: &Caller<'_>) -> SysResult<()> {
        let inode = tmp(target)?.arc()?;
        {
            let mut meta = inode.meta.lock();
            if meta.nlink == 0 && !meta.unnamed {
                return Err(Errno::ENOENT);
            }
            meta.nlink = meta.nlink.checked_add(1).ok_or(Errno::EMLINK)?;
            meta.unnamed = false;
            meta.ctime = realtime_now();
        }
        let added = self.entries()?.lock().insert(name, &inode);
        if let Err(error) = added {
            inode.change_links(-1);
            return Err(error);
        }
        self.touch_modified();
        Ok(())
    }
    fn unlink(&self, name: &[u8], _child: &Arc<dyn Inode>, _by: &Caller<'_>) -> SysResult<()> {
        let gone = self.entries()?.lock().remove(name).ok_or(Errno::ENOENT)?;
        gone.change_links(-1);
        self.touch_modified();
        Ok(())
    }
    fn rmdir(&self, name: &[u8], child: &Arc<dyn Inode>, _by: &Caller<'_>) -> SysResult<()> {
        tmp(child)?.check_empty()?;
        let gone = self.entries()?.lock().remove(name).ok_or(Errno::ENOENT)?;
        gone.change_links(-2);
        self.change_links(-1);
        self.touch_modified();
        Ok(())
    }
    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
        _by: &Caller<'_>,
    ) -> SysResult<()> {
        self.rename_to(name, tmp(new_dir)?, new_name, replaced.is_some(), flags)
    }
    fn read_link(&self, _by: &Caller<'_>) -> SysResult<LinkTarget> {
        match &self.body {
            Body::Symlink(target) => Ok(LinkTarget::Path(target.to_vec())),
            _ => Err(Errno::EINVAL),
        }
    }
    fn open(self: Arc<Self>, _flags: OpenFlags, _by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        match &self.body {
            Body::Regular(_) => Ok(Arc::new(TmpFile::new(self)?)),
            Body::Directory(_) => Ok(Arc::new(DirFile::new(self))),
            _ => Err(Errno::ENXIO),
        }
    }
    fn get_xattr(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Vec<u8>> {
        if name.starts_with(b"system.") && !is_acl(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        let meta = self.meta.lock();
        meta.xattrs.as_ref().and_then(|x| x.get(name)).cloned().ok_or(Errno::ENODATA)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags, _by: &Caller<'_>) -> SysResult<()> {
        if is_acl(name) {
            return self.set_acl(name, acl::Acl::parse(value)?);
        }
        if name.starts_with(b"system.") {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut meta = self.meta.lock();
        let xattrs = meta.xattrs.get_or_insert_default();
        let exists = xattrs.contains_key(name);
        if flags.contains(XattrFlags::CREATE) && exists {
            return Err(Errno::EEXIST);
        }
        if flags.contains(XattrFlags::REPLACE) && !exists {
            return Err(Errno::ENODATA);
        }
        let used: usize = xattrs.iter().map(|(k, v)| k.len() + v.len()).sum();
        if used.saturating_add(name.len() + value.len()) > XATTR_LIMIT {
            return Err(Errno::ENOSPC);
        }
        xattrs.insert(name.to_vec(), value.to_vec());
        meta.ctime = realtime_now();
        Ok(())
    }
    fn remove_xattr(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<()> {
        let mut meta = self.meta.lock();
        let gone = meta.xattrs.as_mut().and_then(|x| x.remove(name));
        meta.ctime = realtime_now();
        if gone.is_some() || is_acl(name) { Ok(()) } else { Err(Errno::ENODATA) }
    }
    fn list_xattr(&self, _by: &Caller<'_>) -> SysResult<Vec<Vec<u8>>> {
        let meta = self.meta.lock();
        Ok(meta.xattrs.as_ref().map(|x| x.keys().cloned().collect()).unwrap_or_default())
    }
}

impl TmpInode {
    /// This inode as a shared pointer.
    pub(super) fn arc(&self) -> SysResult<Arc<TmpInode>> {
        self.me.upgrade().ok_or(Errno::ENOENT)
    }
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        self.fs.inode_gone();
        // A tree of any depth comes apart without recursion.
        let mut left = take_entries(&mut self.body);
        while let Some(child) = left.pop() {
            if let Some(mut owned) = Arc::into_inner(child) {
                left.extend(take_entries(&mut owned.body));
            }
        }
    }
}

fn take_entries(body: &mut Body) -> Vec<Arc<TmpInode>> {
    match body {
        Body::Directory(entries) => entries.get_mut().take_all(),
        _ => Vec::new(),
    }
}

/// Makes a node under a free name, without a caller.
pub(super) fn add_node(
    dir: &Arc<TmpInode>,
    name: &[u8],
    what: &NewNode,
    perm: ModeBits,
    owner: Owner,
) -> SysResult<Arc<TmpInode>> {
    let new = dir.make_node(what, perm, owner)?;
    dir.entries()?.lock().insert(name, &new)?;
    if new.kind == FileType::Directory {
        dir.change_links(1);
    }
    dir.touch_modified();
    Ok(new)
}
