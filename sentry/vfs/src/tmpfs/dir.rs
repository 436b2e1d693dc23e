//! Directories: entries by name and, for getdents with stable cookies, by the order they were made.

use super::inode::{Body, TmpInode};
use crate::caller::Caller;
use crate::file::{DirSink, FileOps, Io, OpenFile, SeekFrom, SyncScope};
use crate::inode::{Inode, NewNode, Owner, RenameFlags};
use abi::fs::FileType;
use abi::{Errno, SysResult};
use mm::GuestSink;
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

/// Entries looked at under one hold of the lock.
const BATCH: usize = 64;

pub(super) struct DirBody {
    by_name: HashMap<Arc<[u8]>, u64>,
    by_cookie: BTreeMap<u64, (Arc<[u8]>, Arc<TmpInode>)>,
    next: u64,
    /// `None` for the root; weak, as a directory is owned by its parent.
    pub(super) parent: Option<Weak<TmpInode>>,
    dead: bool,
}

impl DirBody {
    pub(super) fn new(parent: Option<&Arc<TmpInode>>) -> DirBody {
        DirBody {
            by_name: HashMap::new(),
            by_cookie: BTreeMap::new(),
            // 0 is the start, 1 and 2 stand behind "." and "..".
            next: 3,
            parent: parent.map(Arc::downgrade),
            dead: false,
        }
    }
    pub(super) fn len(&self) -> usize {
        self.by_cookie.len()
    }
    pub(super) fn get(&self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let cookie = self.by_name.get(name)?;
        self.by_cookie.get(cookie).map(|(_, inode)| Arc::clone(inode))
    }
    pub(super) fn insert(&mut self, name: &[u8], inode: &Arc<TmpInode>) -> SysResult<()> {
        if self.dead {
            return Err(Errno::ENOENT);
        }
        if self.by_name.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let name: Arc<[u8]> = Arc::from(name);
        let cookie = self.next;
        self.next = self.next.checked_add(1).ok_or(Errno::ENOSPC)?;
        self.by_name.insert(Arc::clone(&name), cookie);
        self.by_cookie.insert(cookie, (name, Arc::clone(inode)));
        Ok(())
    }
    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Arc<TmpInode>> {
        let cookie = self.by_name.remove(name)?;
        let gone = self.by_cookie.remove(&cookie).map(|(_, inode)| inode);
        if self.by_name.capacity() > 64 && self.by_name.len() < self.by_name.capacity() / 4 {
            self.by_name.shrink_to_fit();
        }
        gone
    }
    /// Puts another inode behind an existing name.
    fn replace(&mut self, name: &[u8], inode: &Arc<TmpInode>) -> Option<Arc<TmpInode>> {
        let cookie = self.by_name.get(name)?;
        let slot = self.by_cookie.get_mut(cookie)?;
        Some(std::mem::replace(&mut slot.1, Arc::clone(inode)))
    }
    pub(super) fn take_all(&mut self) -> Vec<Arc<TmpInode>> {
        self.by_name = HashMap::new();
        std::mem::take(&mut self.by_cookie).into_values().map(|(_, inode)| inode).collect()
    }
}

impl TmpInode {
    /// For rmdir: `ENOTEMPTY`, else the directory takes no more names.
    pub(super) fn check_empty(&self) -> SysResult<()> {
        let mut entries = self.entries()?.lock();
        if entries.len() > 0 {
            return Err(Errno::ENOTEMPTY);
        }
        entries.dead = true;
        Ok(())
    }
    fn is_dir(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }
    pub(super) fn rename_to(
        &self,
        name: &[u8],
        to: &TmpInode,
        new_name: &[u8],
        replaces: bool,
        flags: RenameFlags,
    ) -> SysResult<()> {
        let same = std::ptr::eq(self, to);
        let (moved, other) = {
            let found = self.entries()?.lock().get(name).ok_or(Errno::ENOENT)?;
            let other = to.entries()?.lock().get(new_name);
            (found, other)
        };
        let swap = flags.contains(RenameFlags::EXCHANGE);
        if replaces != other.is_some() {
            return Err(Errno::ESTALE);
        }
        if let Some(other) = other.as_ref().filter(|o| !swap && o.is_dir()) {
            other.check_empty()?;
        }
        let whiteout = if flags.contains(RenameFlags::WHITEOUT) {
            let meta = self.meta.lock();
            let owner = Owner { uid: meta.uid, gid: meta.gid };
            drop(meta);
            let ino = self.fs.new_ino()?;
            Some(TmpInode::make(&self.fs, ino, FileType::CharDevice, 0, owner, 0, None))
        } else {
            None
        };
        // The dentry layer holds both directories; each change below is one step under its own lock.
        match &other {
            Some(old) if swap => {
                to.entries()?.lock().replace(new_name, &moved);
                self.entries()?.lock().replace(name, old);
            }
            Some(_) => {
                to.entries()?.lock().replace(new_name, &moved);
                let old = self.entries()?.lock().remove(name);
                drop(old);
            }
            None => {
                to.entries()?.lock().insert(new_name, &moved)?;
                let old = self.entries()?.lock().remove(name);
                drop(old);
            }
        }
        if let Some(whiteout) = whiteout {
            self.entries()?.lock().insert(name, &whiteout)?;
        }
        if !same && moved.is_dir() {
            moved.set_parent(to)?;
            self.change_links(-1);
            to.change_links(1);
        }
        if let Some(old) = &other {
            if swap {
                if !same && old.is_dir() {
                    old.set_parent(self)?;
                    to.change_links(-1);
                    self.change_links(1);
                }
            } else if old.is_dir() {
                old.change_links(-2);
                to.change_links(-1);
            } else {
                old.change_links(-1);
            }
        }
        moved.change_links(0);
        self.touch_modified();
        if !same {
            to.touch_modified();
        }
        Ok(())
    }
    fn set_parent(&self, parent: &TmpInode) -> SysResult<()> {
        let parent = parent.arc()?;
        self.entries()?.lock().parent = Some(Arc::downgrade(&parent));
        Ok(())
    }
    /// Adds a device node or directory while the tree is set up (devtmpfs).
    pub fn add(self: &Arc<TmpInode>, name: &[u8], what: &NewNode, perm: u32, owner: Owner) -> SysResult<()> {
        crate::tmpfs::inode::add_node(self, name, what, perm, owner).map(|_| ())
    }
}

/// An open directory.
pub(super) struct DirFile {
    inode: Arc<TmpInode>,
}

impl DirFile {
    pub(super) fn new(inode: Arc<TmpInode>) -> DirFile {
        DirFile { inode }
    }
}

impl FileOps for DirFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, _dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        Err(Errno::EISDIR)
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        match to {
            SeekFrom::Start(n) => u64::try_from(n).map_err(|_| Errno::EINVAL),
            SeekFrom::Current(n) => current.checked_add_signed(n).ok_or(Errno::EINVAL),
            _ => Err(Errno::EINVAL),
        }
    }
    fn read_dir(
        &self,
        _file: &OpenFile,
        cookie: u64,
        sink: &mut dyn DirSink,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        let mut cookie = cookie;
        if cookie == 0 {
            if !sink.entry(b".", self.inode.ino, FileType::Directory, 1) {
                return Ok(0);
            }
            cookie = 1;
        }
        let entries = self.inode.entries()?;
        if cookie == 1 {
            let parent = entries.lock().parent.as_ref().and_then(Weak::upgrade);
            let ino = parent.map_or(self.inode.ino, |p| p.ino);
            if !sink.entry(b"..", ino, FileType::Directory, 2) {
                return Ok(1);
            }
            cookie = 2;
        }
        loop {
            // The sink writes to guest memory, so not under the lock.
            let batch: Vec<(u64, Arc<[u8]>, u64, FileType)> = {
                let entries = entries.lock();
                let from = cookie.saturating_add(1).max(3);
                let list = entries.by_cookie.range(from..).take(BATCH);
                list.map(|(c, (name, i))| (*c, Arc::clone(name), i.ino, i.kind())).collect()
            };
            let full = batch.len() == BATCH;
            for (at, name, ino, kind) in batch {
                if !sink.entry(&name, ino, kind, at) {
                    return Ok(cookie);
                }
                cookie = at;
            }
            if !full {
                return Ok(cookie);
            }
        }
    }
    fn sync(&self, _scope: SyncScope) -> SysResult<()> {
        Ok(())
    }
}
