//! Overlay inodes: what an object is made of, and what the kernel asks of it.

use super::copy_up::Want;
use super::dir::OverlayDir;
use super::file::LowerFile;
use super::fs::{Key, Shared};
use super::names;
use crate::attr::{Attr, AttrChange};
use crate::caller::Caller;
use crate::file::FileOps;
use crate::inode::{
    Atime, DentryHint, FileSystem, Inode, LinkTarget, NewNode, Owner, RenameFlags, XattrFlags,
};
use crate::inode_flags::InodeFlags;
use crate::perm::Access;
use abi::fs::{FileType, ModeBits, OpenFlags};
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use smallvec::SmallVec;
use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

/// Lower objects with their layer numbers (from 1 on), topmost first.
pub(super) type Lowers = SmallVec<[(usize, Arc<dyn Inode>); 1]>;

/// What an overlay inode is made of.
pub(super) struct Origin {
    pub(super) upper: Option<Arc<dyn Inode>>,
    pub(super) lowers: Lowers,
}

/// Where an inode is: for copy-up, which makes it there.
pub(super) struct Place {
    pub(super) parent: Option<Arc<OverlayInode>>,
    pub(super) name: Box<[u8]>,
}

/// An object of an overlay.
pub struct OverlayInode {
    me: Weak<OverlayInode>,
    pub(super) fs: Arc<Shared>,
    pub(super) kind: FileType,
    ino: u64,
    pub(super) upper: OnceLock<Arc<dyn Inode>>,
    pub(super) lowers: Lowers,
    pub(super) place: Ranked<order::Leaf, Place>,
    pub(super) copying: Ranked<order::OverlayNode, ()>,
    keys: Ranked<order::Leaf, SmallVec<[Key; 2]>>,
}

impl std::fmt::Debug for OverlayInode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OverlayInode({})", self.ino)
    }
}

/// Number shown for an object of a layer: those of the first lower layer as they are, others marked.
pub(super) fn shown_number(layer: usize, ino: u64) -> u64 {
    let mark = match layer {
        0 => 1,
        1 => 0,
        n => n as u64,
    };
    ino ^ (mark << 48)
}

pub(super) fn number(inode: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<u64> {
    match inode.ino() {
        Some(ino) => Ok(ino),
        None => Ok(inode.attr(by)?.ino),
    }
}

/// The overlay inode behind a trait object; `EXDEV` for others.
pub(super) fn overlay(inode: &Arc<dyn Inode>) -> SysResult<&OverlayInode> {
    inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
}

impl OverlayInode {
    /// The inode made of `origin`, an older one if it is known.
    pub(super) fn make(
        fs: &Arc<Shared>,
        kind: FileType,
        origin: Origin,
        parent: Option<&Arc<OverlayInode>>,
        name: &[u8],
        by: &Caller<'_>,
    ) -> SysResult<Arc<OverlayInode>> {
        let upper_ino = origin.upper.as_ref().map(|u| number(u, by)).transpose()?;
        let lower = match origin.lowers.first() {
            Some((layer, inode)) => Some((*layer, number(inode, by)?, inode)),
            None => None,
        };
        let key = match (upper_ino, &lower) {
            (Some(ino), _) => (0, 0, ino, 0),
            (None, Some((layer, ino, inode))) => {
                let several = kind != FileType::Directory && inode.attr(by)?.nlink > 1;
                let alias = if several { names::hash(parent.map_or(0, |p| p.ino), name) } else { 0 };
                (*layer, inode.fs().dev(), *ino, alias)
            }
            (None, None) => return Err(Errno::EIO),
        };
        if let Some(known) = fs.find(&key) {
            return Ok(known);
        }
        let ino = match (&lower, upper_ino, &origin.upper) {
            (Some((layer, ino, _)), _, _) => shown_number(*layer, *ino),
            (None, Some(ino), Some(upper)) => {
                super::copy_up::stored_number(upper, kind, parent, by).unwrap_or(shown_number(0, ino))
            }
            _ => return Err(Errno::EIO),
        };
        let place = Place { parent: parent.cloned(), name: Box::from(name) };
        let inode = Arc::new_cyclic(|me| OverlayInode {
            me: Weak::clone(me),
            fs: Arc::clone(fs),
            kind,
            ino,
            upper: OnceLock::new(),
            lowers: origin.lowers,
            place: Ranked::new(place),
            copying: Ranked::new(()),
            keys: Ranked::default(),
        });
        if let Some(upper) = origin.upper {
            let _ = inode.upper.set(upper);
        }
        Ok(fs.enter(key, inode))
    }
    pub(super) fn add_key(&self, key: Key) {
        self.keys.lock().push(key);
    }
    pub(super) fn arc(&self) -> SysResult<Arc<OverlayInode>> {
        self.me.upgrade().ok_or(Errno::ESTALE)
    }
    /// Its number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.ino
    }
    /// The object whose attributes and content count now.
    pub(super) fn top(&self) -> SysResult<&Arc<dyn Inode>> {
        match self.upper.get() {
            Some(upper) => Ok(upper),
            None => self.lowers.first().map(|(_, inode)| inode).ok_or(Errno::EIO),
        }
    }
    /// The upper object, copied up if need be.
    pub(super) fn writable(&self, by: &Caller<'_>) -> SysResult<&Arc<dyn Inode>> {
        self.copy_up(Want::All, by)?;
        self.upper.get().ok_or(Errno::EROFS)
    }
    fn is_merged(&self) -> bool {
        self.lowers.len() + usize::from(self.upper.get().is_some()) > 1
    }
}

impl Inode for OverlayInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.fs) as Arc<dyn FileSystem>
    }
    fn acl(&self, by: &Caller<'_>) -> SysResult<Option<crate::acl::Acl>> {
        self.top()?.acl(by)
    }
    fn has_default_acl(&self, by: &Caller<'_>) -> SysResult<bool> {
        self.top()?.has_default_acl(by)
    }
    fn has_other_names(&self) -> bool {
        self.upper.get().is_some_and(|upper| upper.has_other_names())
    }
    fn kind(&self) -> FileType {
        self.kind
    }
    fn ino(&self) -> Option<u64> {
        Some(self.ino)
    }
    fn child_hint(&self) -> DentryHint {
        DentryHint::Exclusive
    }
    fn checks_access(&self) -> bool {
        self.top().is_ok_and(|top| top.checks_access())
    }
    fn access(&self, want: Access, by: &Caller<'_>) -> SysResult<()> {
        self.top()?.access(want, by)
    }
    fn attr(&self, by: &Caller<'_>) -> SysResult<Attr> {
        let mut attr = self.top()?.attr(by)?;
        attr.ino = self.ino;
        if self.kind == FileType::Directory && self.is_merged() {
            // Nobody counts the subdirectories of merged ones: 1 tells programs so.
            attr.nlink = 1;
        }
        Ok(attr)
    }
    fn cache_stat(&self, offset: u64, len: u64) -> SysResult<[u64; 5]> {
        self.top()?.cache_stat(offset, len)
    }
    fn flags(&self, by: &Caller<'_>) -> SysResult<InodeFlags> {
        match (self.top()?.flags(by), self.upper.get(), self.kind) {
            // The upper file system has flags, even if the lower one has none.
            (Err(Errno::ENOTTY), None, FileType::Regular | FileType::Directory) => Ok(InodeFlags::empty()),
            (flags, ..) => flags,
        }
    }
    fn set_flags(&self, flags: InodeFlags, by: &Caller<'_>) -> SysResult<()> {
        self.writable(by)?.set_flags(flags, by)
    }
    fn protection(&self) -> InodeFlags {
        self.upper.get().map_or_else(InodeFlags::empty, |upper| upper.protection())
    }
    fn touch_atime(&self, how: Atime) {
        if let Some(upper) = self.upper.get() {
            upper.touch_atime(how);
        }
    }
    fn set_attr(&self, change: &AttrChange, by: &Caller<'_>) -> SysResult<()> {
        let want = if change.size == Some(0) { Want::Empty } else { Want::All };
        self.copy_up(want, by)?;
        self.upper.get().ok_or(Errno::EROFS)?.set_attr(change, by)
    }
    fn lookup(&self, name: &[u8], by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok(self.find(name, by)? as Arc<dyn Inode>)
    }
    fn lookup_path(&self, names: &[&[u8]], by: &Caller<'_>) -> Option<SysResult<Vec<Arc<dyn Inode>>>> {
        self.find_path(names, by)
    }
    fn create(
        &self,
        name: &[u8],
        what: &NewNode,
        perm: ModeBits,
        owner: Owner,
        by: &Caller<'_>,
    ) -> SysResult<Arc<dyn Inode>> {
        let new = self.create_name(name, what, perm, owner, by)?;
        Ok(new as Arc<dyn Inode>)
    }
    fn create_unnamed(&self, perm: ModeBits, owner: Owner, by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        let upper = self.writable(by)?.create_unnamed(perm, owner, by)?;
        let origin = Origin { upper: Some(upper), lowers: Lowers::new() };
        let new = OverlayInode::make(&self.fs, FileType::Regular, origin, Some(&self.arc()?), b"", by)?;
        Ok(new as Arc<dyn Inode>)
    }
    fn link(&self, name: &[u8], target: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
        let target = overlay(target)?;
        let upper = Arc::clone(target.writable(by)?);
        let dir = self.writable(by)?;
        self.with_free_name(name, by, || dir.link(name, &upper, by))
    }
    fn unlink(&self, name: &[u8], child: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
        self.remove_name(name, overlay(child)?, by)
    }
    fn rmdir(&self, name: &[u8], child: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
        self.remove_name(name, overlay(child)?, by)
    }
    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
        by: &Caller<'_>,
    ) -> SysResult<()> {
        let replaced = replaced.map(overlay).transpose()?;
        self.rename_name(name, overlay(new_dir)?, new_name, replaced, flags, by)
    }
    fn read_link(&self, by: &Caller<'_>) -> SysResult<LinkTarget> {
        self.top()?.read_link(by)
    }
    fn open(self: Arc<Self>, flags: OpenFlags, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        if self.kind == FileType::Directory {
            return Ok(Arc::new(OverlayDir::new(self)));
        }
        if flags.writable() {
            return Arc::clone(self.writable(by)?).open(flags, by);
        }
        if let Some(upper) = self.upper.get() {
            return Arc::clone(upper).open(flags, by);
        }
        let lower = Arc::clone(self.top()?).open(flags, by)?;
        // Without an upper layer nothing is ever copied: the lower file itself will do.
        if self.fs.upper.is_none() {
            return Ok(lower);
        }
        Ok(Arc::new(LowerFile::new(self, lower, flags)))
    }
    fn get_xattr(&self, name: &[u8], by: &Caller<'_>) -> SysResult<Vec<u8>> {
        if names::is_private(name) {
            return Err(Errno::ENODATA);
        }
        self.top()?.get_xattr(name, by)
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags, by: &Caller<'_>) -> SysResult<()> {
        if names::is_private(name) {
            return Err(Errno::EPERM);
        }
        self.writable(by)?.set_xattr(name, value, flags, by)
    }
    fn remove_xattr(&self, name: &[u8], by: &Caller<'_>) -> SysResult<()> {
        if names::is_private(name) {
            return Err(Errno::EPERM);
        }
        self.top()?.get_xattr(name, by)?;
        self.writable(by)?.remove_xattr(name, by)
    }
    fn list_xattr(&self, by: &Caller<'_>) -> SysResult<Vec<Vec<u8>>> {
        let mut all = self.top()?.list_xattr(by)?;
        all.retain(|name| !names::is_private(name));
        Ok(all)
    }
}

impl Drop for OverlayInode {
    fn drop(&mut self) {
        self.fs.leave(self.keys.get_mut());
        // The chain of parents may be of any depth: no recursion.
        let mut next = self.place.get_mut().parent.take();
        while let Some(parent) = next.take() {
            let Some(mut owned) = Arc::into_inner(parent) else { return };
            next = owned.place.get_mut().parent.take();
        }
    }
}
