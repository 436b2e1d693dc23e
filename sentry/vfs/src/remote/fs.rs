//! One export of a gofer as a file system.

use super::channel::Channel;
use super::inode::{Donated, Key, RemoteInode, file_type};
use crate::attr::FsStat;
use crate::caller::Caller;
use crate::inode::{DentryHint, FileSystem, Inode};
use abi::fs::make_dev;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use wire::{Attached, ExportFlags, Node, Reply, Request};

/// Donated descriptors kept open although no file uses them, for the next open.
const KEPT_OPEN: usize = 128;

/// The `st_dev` that guests see for a device of the host: one for all exports that lie on it, of all containers, so
/// that locks, sockets and FIFOs of a volume are the same whichever way it is reached.
fn dev_of(host: (u32, u32)) -> u64 {
    static KNOWN: Ranked<order::Leaf, BTreeMap<(u32, u32), u64>> = Ranked::new(BTreeMap::new());
    *KNOWN.lock().entry(host).or_insert_with(crate::vfs::anon_dev)
}

/// One export of a gofer.
pub struct RemoteFs {
    pub(super) channel: Arc<Channel>,
    dev: u64,
    flags: ExportFlags,
    root: Node,
    shown: std::sync::OnceLock<(&'static str, String)>,
    this: Weak<RemoteFs>,
    tables: Ranked<order::RemoteTable, Tables>,
}

#[derive(Default)]
struct Tables {
    root: Option<Weak<RemoteInode>>,
    inodes: HashMap<Key, Weak<RemoteInode>>,
    kept_open: VecDeque<Arc<Donated>>,
}

impl std::fmt::Debug for RemoteFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteFs({:?})", self.flags)
    }
}

impl RemoteFs {
    /// Attaches to an export, by its index in the gofer's configuration.
    pub fn attach(channel: &Arc<Channel>, export: u32) -> SysResult<Arc<RemoteFs>> {
        let attached: Attached = channel.call(&Request::Attach { export }, |reply, _| match reply {
            Reply::Attached { attached } => Ok(attached),
            _ => Err(Errno::EIO),
        })?;
        file_type(&attached.root.attr)?;
        let dev = dev_of(attached.root.attr.dev);
        Ok(Arc::new_cyclic(|this| RemoteFs {
            channel: Arc::clone(channel),
            dev,
            flags: attached.flags,
            root: attached.root,
            shown: std::sync::OnceLock::new(),
            this: Weak::clone(this),
            tables: Ranked::default(),
        }))
    }

    /// Names of an exclusive export that nobody uses now are asked for again: for moments at which the host may
    /// have changed the tree after all (a copy into a container).
    pub fn look_afresh(&self) {
        let inodes: Vec<_> = self.tables.lock().inodes.values().filter_map(Weak::upgrade).collect();
        inodes.iter().for_each(|inode| inode.look_afresh());
    }

    /// Shows it as a bind mount of the host's file system is shown: its type, and where in it the export's root lies.
    pub fn show_as(&self, name: &'static str, place: &str) {
        let _ = self.shown.set((name, place.to_owned()));
    }

    /// Whether others may change the files.
    pub(super) fn is_shared(&self) -> bool {
        self.flags.contains(ExportFlags::SHARED)
    }

    /// Whether every change is `EROFS`.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(ExportFlags::READ_ONLY)
    }

    fn arc(&self) -> SysResult<Arc<RemoteFs>> {
        self.this.upgrade().ok_or(Errno::EIO)
    }

    /// The inode number guests see. Numbers of further host devices in the tree are moved out of the way.
    pub(super) fn ino(&self, attr: &wire::Attr) -> u64 {
        if attr.dev == self.root.attr.dev {
            return attr.ino;
        }
        let dev = make_dev(attr.dev.0, attr.dev.1);
        attr.ino ^ dev.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
    }

    /// The inode for a node the gofer named, known or new. The node's handle becomes the inode's, or is given
    /// back. `place` is where it was found; `None` for the root.
    pub(super) fn inode(
        &self,
        place: Option<(&Arc<RemoteInode>, &Arc<[u8]>)>,
        node: Node,
    ) -> SysResult<Arc<RemoteInode>> {
        let kind = match file_type(&node.attr) {
            Ok(kind) => kind,
            Err(errno) => {
                self.channel.drop_handle(node.handle);
                return Err(errno);
            }
        };
        let fs = self.arc()?;
        let key = Key::of(&node.attr, self);
        let known = {
            let mut tables = self.tables.lock();
            match tables.inodes.get(&key).and_then(Weak::upgrade) {
                Some(inode) => Ok(inode),
                None => {
                    let inode = RemoteInode::new(fs, kind, place, node);
                    tables.inodes.insert(key, Arc::downgrade(&inode));
                    Err(inode)
                }
            }
        };
        match known {
            Ok(inode) => {
                inode.met(place, node);
                Ok(inode)
            }
            Err(new) => Ok(new),
        }
    }

    /// The inode in use for a key.
    pub(super) fn in_use(&self, key: &Key) -> Option<Arc<RemoteInode>> {
        self.tables.lock().inodes.get(key).and_then(Weak::upgrade)
    }

    /// The inode is gone, or its number may be used again.
    pub(super) fn forget(&self, key: &Key, inode: &Weak<RemoteInode>) {
        let mut tables = self.tables.lock();
        if tables.inodes.get(key).is_some_and(|known| known.ptr_eq(inode)) {
            tables.inodes.remove(key);
        }
    }

    pub(super) fn is_root(&self, handle: wire::Handle) -> bool {
        handle == self.root.handle
    }

    pub(super) fn root_ino(&self) -> u64 {
        self.ino(&self.root.attr)
    }

    /// Keeps a descriptor open for a while: second chance for those that were used again.
    pub(super) fn keep_open(&self, donated: &Arc<Donated>) {
        let mut closing = Vec::new();
        let mut tables = self.tables.lock();
        tables.kept_open.push_back(Arc::clone(donated));
        let mut chances = KEPT_OPEN;
        while tables.kept_open.len() > KEPT_OPEN {
            let Some(oldest) = tables.kept_open.pop_front() else { break };
            if chances > 0 && oldest.used.swap(false, Ordering::Relaxed) {
                chances -= 1;
                tables.kept_open.push_back(oldest);
            } else {
                closing.push(oldest);
            }
        }
        drop(tables);
        drop(closing);
    }

    /// Closes what is kept open of a file that has no name any more.
    pub(super) fn close_kept(&self, of: &[Arc<Donated>]) {
        let mut closing = Vec::new();
        let mut tables = self.tables.lock();
        let (gone, kept): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut tables.kept_open)
            .into_iter()
            .partition(|d| of.iter().any(|o| Arc::ptr_eq(o, d)));
        tables.kept_open = kept;
        closing.extend(gone);
        drop(tables);
        drop(closing);
    }
}

impl Drop for RemoteFs {
    fn drop(&mut self) {
        self.channel.drop_handle(self.root.handle);
        self.channel.flush();
    }
}

impl FileSystem for RemoteFs {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        self.shown.get().map_or("gofer", |(name, _)| name)
    }
    fn place(&self) -> &str {
        self.shown.get().map_or("/", |(_, place)| place)
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn root(&self) -> Arc<dyn Inode> {
        let mut tables = self.tables.lock();
        if let Some(root) = tables.root.as_ref().and_then(Weak::upgrade) {
            return root;
        }
        let fs = self.this.upgrade().expect("a method runs on a live file system");
        let kind = file_type(&self.root.attr).expect("checked at attach");
        let root = RemoteInode::new(fs, kind, None, self.root);
        tables.inodes.insert(Key::of(&self.root.attr, self), Arc::downgrade(&root));
        tables.root = Some(Arc::downgrade(&root));
        root
    }
    fn statfs(&self, _by: &Caller<'_>) -> SysResult<FsStat> {
        self.channel.call(&Request::StatFs { node: self.root.handle }, |reply, _| match reply {
            Reply::StatFs { stat } => Ok(FsStat {
                magic: stat.kind,
                bsize: stat.bsize,
                blocks: stat.blocks,
                bfree: stat.bfree,
                bavail: stat.bavail,
                files: stat.files,
                ffree: stat.ffree,
                namelen: stat.namelen,
            }),
            _ => Err(Errno::EIO),
        })
    }
    fn dentry_hint(&self) -> DentryHint {
        if self.is_shared() { DentryHint::Shared } else { DentryHint::Exclusive }
    }
    fn sync(&self) -> SysResult<()> {
        self.channel.done(&Request::SyncFs { node: self.root.handle })
    }
}
