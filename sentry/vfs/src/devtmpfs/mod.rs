//! /dev: a tmpfs filled with device nodes, and the memory devices (null(4), random(4), full(4)).

mod memory;

pub use memory::{MemoryDevice, is_zero_device, register_memory_devices};

use crate::cred::{Kgid, Kuid};
use crate::inode::{FileSystem, NewNode, Owner};
use crate::tmpfs::{TmpFs, TmpfsOptions};
use crate::vfs::{FsType, MountRequest};
use abi::SysResult;
use abi::fs::make_dev;
use mm::Frames;
use std::sync::Arc;

/// Name, major, minor, permission of the character devices every container has.
pub const DEFAULT_DEVICES: [(&str, u32, u32, u32); 7] = [
    ("null", 1, 3, 0o666),
    ("zero", 1, 5, 0o666),
    ("full", 1, 7, 0o666),
    ("random", 1, 8, 0o666),
    ("urandom", 1, 9, 0o666),
    ("kmsg", 1, 11, 0o644),
    ("tty", 5, 0, 0o666),
];

/// Name and target of the links every container has.
pub const DEFAULT_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// Fills a /dev with the default devices, links and mount points (`pts`, `shm`, `mqueue`).
pub fn populate(dev: &Arc<TmpFs>) -> SysResult<()> {
    let root = dev.root_inode();
    let owner = Owner { uid: Kuid(0), gid: Kgid(0) };
    for (name, major, minor, perm) in DEFAULT_DEVICES {
        root.add(name.as_bytes(), &NewNode::CharDevice(make_dev(major, minor)), perm, owner)?;
    }
    for (name, target) in DEFAULT_LINKS {
        root.add(name.as_bytes(), &NewNode::Symlink(target.as_bytes().to_vec()), 0o777, owner)?;
    }
    for name in ["pts", "shm", "mqueue"] {
        root.add(name.as_bytes(), &NewNode::Directory, 0o755, owner)?;
    }
    root.add(b"ptmx", &NewNode::Symlink(b"pts/ptmx".to_vec()), 0o777, owner)
}

/// `mount -t devtmpfs`: every mount shows the same tree.
pub struct DevtmpfsType {
    fs: Arc<TmpFs>,
}

impl DevtmpfsType {
    /// With the default content.
    pub fn new(frames: &Arc<Frames>) -> SysResult<Arc<DevtmpfsType>> {
        let options = TmpfsOptions { perm: 0o755, name: "devtmpfs", ..TmpfsOptions::default() };
        let fs = TmpFs::new(frames, &options);
        populate(&fs)?;
        Ok(Arc::new(DevtmpfsType { fs }))
    }
    /// The tree, for further nodes.
    #[must_use]
    pub fn tree(&self) -> &Arc<TmpFs> {
        &self.fs
    }
}

impl FsType for DevtmpfsType {
    fn name(&self) -> &'static str {
        "devtmpfs"
    }
    fn mount(&self, _request: &MountRequest<'_>) -> SysResult<Arc<dyn FileSystem>> {
        Ok(Arc::clone(&self.fs) as Arc<dyn FileSystem>)
    }
}
