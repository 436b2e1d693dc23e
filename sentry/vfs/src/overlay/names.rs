//! Names of an overlay directory: look-up through the layers, creation over whiteouts, removal, rename.

use super::copy_up::Want;
use super::fs::Transience;
use super::inode::{Lowers, Origin, OverlayInode};
use crate::caller::Caller;
use crate::inode::{Inode, NewNode, Owner, RenameFlags, XattrFlags};
use abi::fs::{FileType, ModeBits};
use abi::{Errno, SysResult};
use std::sync::Arc;

const OPAQUE: &[u8] = b"trusted.overlay.opaque";
const PRIVATE: &[u8] = b"trusted.overlay.";

/// Whether an extended attribute is the overlay's own.
pub(super) fn is_private(name: &[u8]) -> bool {
    name.starts_with(PRIVATE)
}

/// FNV-1a of a directory's number and a name.
pub(super) fn hash(dir: u64, name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in dir.to_ne_bytes().iter().chain(name) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash.max(1)
}

pub(super) fn is_whiteout(inode: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<bool> {
    Ok(inode.kind() == FileType::CharDevice && inode.attr(by)?.rdev == 0)
}

fn is_opaque(dir: &Arc<dyn Inode>, by: &Caller<'_>) -> bool {
    dir.get_xattr(OPAQUE, by).is_ok_and(|value| value == b"y")
}

fn missing_is_none(found: SysResult<Arc<dyn Inode>>) -> SysResult<Option<Arc<dyn Inode>>> {
    match found {
        Ok(inode) => Ok(Some(inode)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

impl OverlayInode {
    /// What the lower layers have under `name`: one file, or the directories to merge.
    fn lower_names(&self, name: &[u8], by: &Caller<'_>) -> SysResult<Lowers> {
        let mut found = Lowers::new();
        let last = self.lowers.len().saturating_sub(1);
        for (at, (layer, dir)) in self.lowers.iter().enumerate() {
            let Some(inode) = missing_is_none(dir.lookup(name, by))? else { continue };
            if is_whiteout(&inode, by)? {
                break;
            }
            let directory = inode.kind() == FileType::Directory;
            if !directory && !found.is_empty() {
                break;
            }
            let ends = !directory || (at < last && is_opaque(&inode, by));
            found.push((*layer, inode));
            if ends {
                break;
            }
        }
        Ok(found)
    }
    /// The child `name`; `ENOENT`.
    pub(super) fn find(&self, name: &[u8], by: &Caller<'_>) -> SysResult<Arc<OverlayInode>> {
        let upper = match self.upper.get() {
            Some(dir) => missing_is_none(dir.lookup(name, by))?,
            None => None,
        };
        let me = self.arc()?;
        if let Some(upper) = upper {
            if is_whiteout(&upper, by)? {
                return Err(Errno::ENOENT);
            }
            // What it is made of is known as long as it is in use (and for moved directories always).
            let key = (0, 0, super::inode::number(&upper, by)?, 0);
            if let Some(known) = self.fs.find(&key) {
                return Ok(known);
            }
            let kind = upper.kind();
            let merge = kind == FileType::Directory && !self.lowers.is_empty() && !is_opaque(&upper, by);
            let mut lowers = if merge { self.lower_names(name, by)? } else { Lowers::new() };
            if lowers.first().is_some_and(|(_, inode)| inode.kind() != FileType::Directory) {
                lowers.clear();
            }
            return OverlayInode::make(
                &self.fs,
                kind,
                Origin { upper: Some(upper), lowers },
                Some(&me),
                name,
                by,
            );
        }
        let lowers = self.lower_names(name, by)?;
        let kind = lowers.first().ok_or(Errno::ENOENT)?.1.kind();
        OverlayInode::make(&self.fs, kind, Origin { upper: None, lowers }, Some(&me), name, by)
    }
    /// Several components at once, where they all come from one lower layer.
    pub(super) fn find_path(
        &self,
        names: &[&[u8]],
        by: &Caller<'_>,
    ) -> Option<SysResult<Vec<Arc<dyn Inode>>>> {
        let first = names.first()?;
        let [(layer, dir)] = self.lowers.as_slice() else { return None };
        if let Some(upper) = self.upper.get()
            && !matches!(upper.lookup(first, by), Err(Errno::ENOENT))
        {
            return None;
        }
        let found = match dir.lookup_path(names, by)? {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        Some(self.wrap(*layer, names, found, by))
    }
    fn wrap(
        &self,
        layer: usize,
        names: &[&[u8]],
        found: Vec<Arc<dyn Inode>>,
        by: &Caller<'_>,
    ) -> SysResult<Vec<Arc<dyn Inode>>> {
        let mut at = self.arc()?;
        let mut out: Vec<Arc<dyn Inode>> = Vec::with_capacity(found.len());
        for (name, inode) in names.iter().zip(found) {
            if is_whiteout(&inode, by)? {
                break;
            }
            let kind = inode.kind();
            let mut lowers = Lowers::new();
            lowers.push((layer, inode));
            at = OverlayInode::make(&self.fs, kind, Origin { upper: None, lowers }, Some(&at), name, by)?;
            out.push(Arc::clone(&at) as Arc<dyn Inode>);
        }
        Ok(out)
    }

    /// Whether a lower layer has something under `name` that must be hidden when the upper has not.
    fn hides_lower(&self, name: &[u8], by: &Caller<'_>) -> SysResult<bool> {
        Ok(!self.lowers.is_empty() && !self.lower_names(name, by)?.is_empty())
    }
    fn put_whiteout(&self, name: &[u8], by: &Caller<'_>) -> SysResult<()> {
        let dir = self.writable(by)?;
        let owner = Owner { uid: by.cred.fsuid, gid: by.cred.fsgid };
        dir.create(name, &NewNode::CharDevice(0), 0, owner, by).map(|_| ())
    }
    /// Runs `make`, which makes `name` in the upper directory, with a whiteout there out of the way.
    pub(super) fn with_free_name<T>(
        &self,
        name: &[u8],
        by: &Caller<'_>,
        make: impl FnOnce() -> SysResult<T>,
    ) -> SysResult<T> {
        let dir = self.writable(by)?;
        let whiteout = match missing_is_none(dir.lookup(name, by))? {
            Some(there) if is_whiteout(&there, by)? => {
                dir.unlink(name, &there, by)?;
                true
            }
            Some(_) => return Err(Errno::EEXIST),
            None => false,
        };
        let made = make();
        if made.is_err() && whiteout {
            self.put_whiteout(name, by)?;
        }
        made
    }
    pub(super) fn create_name(
        &self,
        name: &[u8],
        what: &NewNode,
        perm: ModeBits,
        owner: Owner,
        by: &Caller<'_>,
    ) -> SysResult<Arc<OverlayInode>> {
        if matches!(what, NewNode::CharDevice(0)) {
            // It would be a whiteout of ours.
            return Err(Errno::EPERM);
        }
        let dir = Arc::clone(self.writable(by)?);
        let covers = matches!(what, NewNode::Directory) && self.hides_lower(name, by)?;
        let upper = self.with_free_name(name, by, || {
            let new = dir.create(name, what, perm, owner, by)?;
            if covers && let Err(error) = new.set_xattr(OPAQUE, b"y", XattrFlags::empty(), by) {
                dir.rmdir(name, &new, by)?;
                return Err(error);
            }
            Ok(new)
        })?;
        let kind = upper.kind();
        let origin = Origin { upper: Some(upper), lowers: Lowers::new() };
        OverlayInode::make(&self.fs, kind, origin, Some(&self.arc()?), name, by)
    }
    /// Makes the upper part of an empty directory really empty: whiteouts in it go. `ENOTEMPTY`.
    fn clear_if_empty(&self, by: &Caller<'_>) -> SysResult<()> {
        let whiteouts = self.check_empty(by)?;
        if let Some(upper) = self.upper.get() {
            for name in whiteouts {
                if let Some(there) = missing_is_none(upper.lookup(&name, by))? {
                    upper.unlink(&name, &there, by)?;
                }
            }
        }
        Ok(())
    }
    fn forget_place(&self, by: &Caller<'_>) {
        self.place.lock().name = Box::from(&b""[..]);
        if let Some(upper) = self.upper.get()
            && let Ok(ino) = super::inode::number(upper, by)
        {
            let gone = self.fs.pinned.lock().remove(&(0, 0, ino, 0));
            drop(gone);
        }
    }
    /// unlink and rmdir.
    pub(super) fn remove_name(&self, name: &[u8], child: &OverlayInode, by: &Caller<'_>) -> SysResult<()> {
        let dir = Arc::clone(self.writable(by)?);
        let hide = self.hides_lower(name, by)?;
        if child.kind == FileType::Directory {
            child.clear_if_empty(by)?;
        }
        // A copy-up of the child under way ends first, or finds the name gone.
        let _copying = child.copying.lock_same_rank();
        if let Some(there) = missing_is_none(dir.lookup(name, by))? {
            if there.kind() == FileType::Directory {
                dir.rmdir(name, &there, by)?;
            } else {
                dir.unlink(name, &there, by)?;
            }
        }
        if hide {
            self.put_whiteout(name, by)?;
        }
        child.forget_place(by);
        Ok(())
    }
    pub(super) fn rename_name(
        &self,
        name: &[u8],
        to: &OverlayInode,
        new_name: &[u8],
        replaced: Option<&OverlayInode>,
        flags: RenameFlags,
        by: &Caller<'_>,
    ) -> SysResult<()> {
        let moved = self.find(name, by)?;
        let swap = flags.contains(RenameFlags::EXCHANGE);
        let keeps_lower = |i: &OverlayInode| i.kind == FileType::Directory && !i.lowers.is_empty();
        let other = if swap { replaced } else { None };
        if self.fs.transience == Transience::Persistent
            && (keeps_lower(&moved) || other.is_some_and(keeps_lower))
        {
            return Err(Errno::EXDEV);
        }
        moved.copy_up(Want::All, by)?;
        if let Some(other) = other {
            other.copy_up(Want::All, by)?;
        }
        let from_dir = Arc::clone(self.writable(by)?);
        let to_dir = Arc::clone(to.writable(by)?);
        let hide_old = !swap && self.hides_lower(name, by)?;
        let covers_new = to.hides_lower(new_name, by)?;
        if !swap
            && let Some(replaced) = replaced
            && replaced.kind == FileType::Directory
        {
            replaced.clear_if_empty(by)?;
        }
        // What is in the way in the upper layer: a whiteout, or what is replaced.
        let mut there = missing_is_none(to_dir.lookup(new_name, by))?;
        let mut whiteout = false;
        if let Some(inode) = &there
            && !swap
            && is_whiteout(inode, by)?
        {
            to_dir.unlink(new_name, inode, by)?;
            (there, whiteout) = (None, true);
        }
        if covers_new && moved.kind == FileType::Directory {
            moved.mark_opaque(by)?;
        }
        if let Some(other) = other.filter(|o| o.kind == FileType::Directory)
            && self.hides_lower(name, by)?
        {
            other.mark_opaque(by)?;
        }
        let plain = flags - (RenameFlags::WHITEOUT | RenameFlags::NOREPLACE);
        if let Err(error) = from_dir.rename(name, &to_dir, new_name, there.as_ref(), plain, by) {
            if whiteout {
                to.put_whiteout(new_name, by)?;
            }
            return Err(error);
        }
        if hide_old || flags.contains(RenameFlags::WHITEOUT) {
            self.put_whiteout(name, by)?;
        }
        moved.settle(to, new_name, by)?;
        match (replaced, swap) {
            (Some(other), true) => other.settle(self, name, by)?,
            (Some(gone), false) => gone.forget_place(by),
            (None, _) => {}
        }
        Ok(())
    }
    fn mark_opaque(&self, by: &Caller<'_>) -> SysResult<()> {
        self.upper.get().ok_or(Errno::EROFS)?.set_xattr(OPAQUE, b"y", XattrFlags::empty(), by)
    }
    /// It was renamed to `name` of `dir`.
    fn settle(&self, dir: &OverlayInode, name: &[u8], by: &Caller<'_>) -> SysResult<()> {
        let old = {
            let mut place = self.place.lock();
            place.name = Box::from(name);
            place.parent.replace(dir.arc()?)
        };
        drop(old);
        if self.kind == FileType::Directory
            && !self.lowers.is_empty()
            && let Some(upper) = self.upper.get()
        {
            let key = (0, 0, super::inode::number(upper, by)?, 0);
            let old = self.fs.pinned.lock().insert(key, self.arc()?);
            drop(old);
        }
        Ok(())
    }
}
