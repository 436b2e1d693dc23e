//! The file system, its layers, and `mount -t overlay`.

use super::inode::{Origin, OverlayInode};
use crate::attr::FsStat;
use crate::caller::Caller;
use crate::dentry;
use crate::inode::{FileSystem, Inode};
use crate::mount::Location;
use crate::vfs::{FsType, MountRequest, anon_dev};
use crate::walk::{Follow, Walk};
use abi::fs::FileType;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use smallvec::SmallVec;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

const MAGIC: u64 = 0x794c_7630;
/// Most lower layers.
const LAYERS_MAX: usize = 500;

/// One layer: a directory tree.
#[derive(Clone)]
pub struct Layer {
    /// Its top directory.
    pub root: Arc<dyn Inode>,
    /// Keeps the mount it was named through.
    pub place: Option<Location>,
}

impl Layer {
    /// The whole of a file system.
    #[must_use]
    pub fn of_fs(fs: &Arc<dyn FileSystem>) -> Layer {
        Layer { root: fs.root(), place: None }
    }
}

/// Whether the upper layer outlives the mount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transience {
    /// It goes with the mount (a container's root): lower directories can be renamed, as what they are
    /// made of need only be remembered, not stored.
    Transient,
    /// It stays: renames of lower directories are `EXDEV`, as in Linux.
    Persistent,
}

/// What identifies an object of a layer: layer (0 is the upper), device, number, and for lower files with
/// several names a hash of the name, as each name is copied up by itself.
pub(super) type Key = (usize, u64, u64, u64);

pub(super) struct Shared {
    pub(super) dev: u64,
    pub(super) upper: Option<Layer>,
    pub(super) lowers: Vec<Layer>,
    pub(super) transience: Transience,
    options: String,
    known: Ranked<order::Leaf, HashMap<Key, Weak<OverlayInode>>>,
    /// Moved directories: only memory knows what they are made of.
    pub(super) pinned: Ranked<order::Leaf, HashMap<Key, Arc<OverlayInode>>>,
    root: OnceLock<Weak<OverlayInode>>,
}

impl Shared {
    pub(super) fn find(&self, key: &Key) -> Option<Arc<OverlayInode>> {
        let known = self.known.lock();
        known.get(key).and_then(Weak::upgrade)
    }
    /// Registers `inode` under `key` unless another came first, which is then given back.
    pub(super) fn enter(&self, key: Key, inode: Arc<OverlayInode>) -> Arc<OverlayInode> {
        let mut known = self.known.lock();
        if let Some(other) = known.get(&key).and_then(Weak::upgrade) {
            drop(known);
            return other;
        }
        known.insert(key, Arc::downgrade(&inode));
        drop(known);
        inode.add_key(key);
        inode
    }
    pub(super) fn leave(&self, keys: &[Key]) {
        let mut known = self.known.lock();
        for key in keys {
            if known.get(key).is_some_and(|w| w.strong_count() == 0) {
                known.remove(key);
            }
        }
    }
}

impl FileSystem for Shared {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        "overlay"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn root(&self) -> Arc<dyn Inode> {
        match self.root.get().and_then(Weak::upgrade) {
            Some(root) => root,
            None => crate::anon::no_directory(),
        }
    }
    fn statfs(&self, by: &Caller<'_>) -> SysResult<FsStat> {
        let layer = self.upper.as_ref().or(self.lowers.first()).ok_or(Errno::EIO)?;
        Ok(FsStat { magic: MAGIC, ..layer.root.fs().statfs(by)? })
    }
    fn options(&self) -> String {
        self.options.clone()
    }
    fn sync(&self) -> SysResult<()> {
        self.upper.as_ref().map_or(Ok(()), |layer| layer.root.fs().sync())
    }
}

/// A mounted overlay.
pub struct OverlayFs {
    shared: Arc<Shared>,
    root: Arc<OverlayInode>,
}

impl std::fmt::Debug for OverlayFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OverlayFs({} layers)", self.shared.lowers.len())
    }
}

impl OverlayFs {
    /// Layers from the top down. `options` is shown in /proc/mounts, with a leading comma. `EINVAL` without
    /// a lower layer.
    pub fn new(
        upper: Option<Layer>,
        lowers: Vec<Layer>,
        transience: Transience,
        options: &str,
        by: &Caller<'_>,
    ) -> SysResult<Arc<OverlayFs>> {
        if lowers.is_empty() || lowers.len() > LAYERS_MAX {
            return Err(Errno::EINVAL);
        }
        let shared = Arc::new(Shared {
            dev: anon_dev(),
            upper,
            lowers,
            transience,
            options: options.to_owned(),
            known: Ranked::default(),
            pinned: Ranked::default(),
            root: OnceLock::new(),
        });
        let lowers: SmallVec<_> =
            shared.lowers.iter().enumerate().map(|(at, layer)| (at + 1, Arc::clone(&layer.root))).collect();
        let upper = shared.upper.as_ref().map(|layer| Arc::clone(&layer.root));
        let origin = Origin { upper, lowers };
        let root = OverlayInode::make(&shared, FileType::Directory, origin, None, b"", by)?;
        let _ = shared.root.set(Arc::downgrade(&root));
        Ok(Arc::new(OverlayFs { shared, root }))
    }
}

impl FileSystem for OverlayFs {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        "overlay"
    }
    fn dev(&self) -> u64 {
        self.shared.dev
    }
    fn root(&self) -> Arc<dyn Inode> {
        Arc::clone(&self.root) as Arc<dyn Inode>
    }
    fn statfs(&self, by: &Caller<'_>) -> SysResult<FsStat> {
        self.shared.statfs(by)
    }
    fn options(&self) -> String {
        self.shared.options()
    }
    fn sync(&self) -> SysResult<()> {
        self.shared.sync()
    }
}

impl Drop for OverlayFs {
    fn drop(&mut self) {
        let pinned = std::mem::take(&mut *self.shared.pinned.lock());
        drop(pinned);
        // What the layers' own mounts remember of missing names is out of date.
        for layer in self.shared.upper.iter().chain(&self.shared.lowers) {
            if let Some(place) = &layer.place {
                dentry::trim(Some(place.dentry.super_id()));
            }
        }
    }
}

/// `mount -t overlay`.
#[derive(Debug)]
pub struct OverlayType;

fn layer(walk: &Walk<'_>, path: &[u8]) -> SysResult<Layer> {
    let at = walk.find(path, Follow::Yes)?;
    if !at.dentry.is_dir() {
        return Err(Errno::EINVAL);
    }
    dentry::trim(Some(at.dentry.super_id()));
    Ok(Layer { root: Arc::clone(at.inode()?), place: Some(at) })
}

/// Splits at unescaped colons; a backslash takes the next byte as it is.
fn split_layers(value: &[u8]) -> Vec<Vec<u8>> {
    let mut out = vec![Vec::new()];
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.last_mut().into_iter().for_each(|l| l.extend(bytes.next())),
            b':' => out.push(Vec::new()),
            _ => out.last_mut().into_iter().for_each(|l| l.push(*byte)),
        }
    }
    out.retain(|l| !l.is_empty());
    out
}

impl FsType for OverlayType {
    fn name(&self) -> &'static str {
        "overlay"
    }
    fn in_user_namespace(&self) -> bool {
        true
    }
    fn mount(&self, request: &MountRequest<'_>) -> SysResult<Arc<dyn FileSystem>> {
        let walk = request.walk;
        let (mut lowers, mut upper, mut work) = (Vec::new(), None, None);
        for option in request.data.split(|b| *b == b',') {
            let at = option.iter().position(|b| *b == b'=').unwrap_or(option.len());
            let (key, value) =
                (option.get(..at).unwrap_or_default(), option.get(at + 1..).unwrap_or_default());
            match key {
                b"lowerdir" => {
                    for path in split_layers(value) {
                        lowers.push(layer(walk, &path)?);
                    }
                }
                b"lowerdir+" => lowers.push(layer(walk, value)?),
                b"upperdir" => upper = Some(layer(walk, value)?),
                b"workdir" => work = Some(layer(walk, value)?),
                b"" | b"index" | b"xino" | b"metacopy" | b"redirect_dir" | b"nfs_export" | b"volatile"
                | b"userxattr" | b"uuid" | b"verity" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        if let Some(upper) = &upper {
            let work = work.ok_or(Errno::EINVAL)?;
            let same = match (&upper.place, &work.place) {
                (Some(a), Some(b)) => {
                    Arc::ptr_eq(&a.mount, &b.mount)
                        && !a.dentry.is_below(&b.dentry)
                        && !b.dentry.is_below(&a.dentry)
                }
                _ => false,
            };
            if !same {
                return Err(Errno::EINVAL);
            }
            if let Some(place) = &upper.place {
                place.mount.check_writable()?;
            }
        }
        let options = format!(",{}", String::from_utf8_lossy(request.data));
        let fs = OverlayFs::new(upper, lowers, Transience::Persistent, &options, walk.by)?;
        Ok(fs as Arc<dyn FileSystem>)
    }
}
