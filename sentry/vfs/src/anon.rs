//! Files that are in no tree (pipes, sockets, eventfds, memfds), seen as places: what a walk through
//! /proc/pid/fd/N gives.

use crate::attr::{Attr, AttrChange, FsStat};
use crate::caller::Caller;
use crate::dentry::Dentry;
use crate::file::{FileOps, OpenFile};
use crate::inode::{FileSystem, Inode};
use crate::mount::{Location, Mount, MountFlags, Super};
use abi::fs::{FileType, OpenFlags};
use abi::{Errno, SysResult};
use std::any::Any;
use std::sync::{Arc, LazyLock};

struct AnonFs;
struct AnonInode {
    file: Option<Arc<OpenFile>>,
    kind: FileType,
}

static MOUNT: LazyLock<Arc<Mount>> =
    LazyLock::new(|| Mount::of_fs(Arc::new(AnonFs), MountFlags::empty(), b"anon_inodefs"));

impl FileSystem for AnonFs {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        "anon_inodefs"
    }
    fn dev(&self) -> u64 {
        0xe
    }
    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(AnonInode { file: None, kind: FileType::Directory })
    }
    fn statfs(&self, _by: &Caller<'_>) -> SysResult<FsStat> {
        Ok(FsStat { magic: 0x0904_1934, bsize: 4096, namelen: 255, ..FsStat::default() })
    }
}

impl Inode for AnonInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::new(AnonFs)
    }
    fn kind(&self) -> FileType {
        self.kind
    }
    fn attr(&self, by: &Caller<'_>) -> SysResult<Attr> {
        self.file.as_ref().ok_or(Errno::ENOENT)?.attr(by)
    }
    fn set_attr(&self, change: &AttrChange, by: &Caller<'_>) -> SysResult<()> {
        self.file.as_ref().ok_or(Errno::EPERM)?.set_attr(change, by)
    }
    fn open(self: Arc<Self>, flags: OpenFlags, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        self.file.as_ref().ok_or(Errno::ENXIO)?.ops().reopen(flags, by)
    }
}

/// A directory that holds nothing and belongs nowhere.
#[must_use]
pub fn no_directory() -> Arc<dyn Inode> {
    Arc::new(AnonInode { file: None, kind: FileType::Directory })
}

/// The file behind a place made by [`location_of`].
#[must_use]
pub fn file_of(at: &Location) -> Option<Arc<OpenFile>> {
    at.inode().ok()?.as_any().downcast_ref::<AnonInode>()?.file.clone()
}

/// Where an open file is: its own place, or one of its own in no tree.
#[must_use]
pub fn location_of(file: &Arc<OpenFile>) -> Location {
    if let Some(at) = file.location() {
        return at.clone();
    }
    let name = file.ops().link_name().unwrap_or_else(|| b"anon_inode:[unknown]".to_vec());
    let kind = match file.ops().attr() {
        Some(Ok(attr)) => attr.kind,
        _ => FileType::Anonymous,
    };
    let sb: &Arc<Super> = &MOUNT.sb;
    let inode: Arc<dyn Inode> = Arc::new(AnonInode { file: Some(Arc::clone(file)), kind });
    Location { mount: Arc::clone(&MOUNT), dentry: Dentry::root(inode, sb.id, &name) }
}
