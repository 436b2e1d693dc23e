//! What every mount namespace shares: device numbers, file system types.

use crate::caller::Caller;
use crate::file::FileOps;
use crate::inode::{FileSystem, Inode};
use crate::mount::MountFlags;
use crate::walk::Walk;
use abi::fs::{FileType, OpenFlags};
use abi::{CallResult, Errno, SysResult};
use lock::{RankedRw, order};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Opens a device node: gets the minor number.
pub trait DeviceOpener: Send + Sync {
    /// A fresh open of device `minor`. May block (FIFO-like devices); `ENXIO` when nothing is there.
    fn open(
        &self,
        minor: u32,
        inode: &Arc<dyn Inode>,
        flags: OpenFlags,
        by: &Caller<'_>,
    ) -> CallResult<Arc<dyn FileOps>>;
}

impl<F> DeviceOpener for F
where
    F: Fn(u32, OpenFlags, &Caller<'_>) -> SysResult<Arc<dyn FileOps>> + Send + Sync,
{
    fn open(
        &self,
        minor: u32,
        _inode: &Arc<dyn Inode>,
        flags: OpenFlags,
        by: &Caller<'_>,
    ) -> CallResult<Arc<dyn FileOps>> {
        self(minor, flags, by).map_err(abi::Failure::from)
    }
}

/// What mount(2) needs to make a file system.
pub struct MountRequest<'a> {
    /// The source argument.
    pub source: &'a [u8],
    /// The options argument, without its NUL.
    pub data: &'a [u8],
    /// Per-mount flags.
    pub flags: MountFlags,
    /// Paths in options are walked with it.
    pub walk: &'a Walk<'a>,
}

/// A file system type of /proc/filesystems.
pub trait FsType: Send + Sync {
    /// `tmpfs`.
    fn name(&self) -> &'static str;
    /// Whether it needs a block device (not `nodev`).
    fn needs_device(&self) -> bool {
        false
    }
    /// Whether root of a user namespace may mount it in its own mount namespace.
    fn in_user_namespace(&self) -> bool {
        false
    }
    /// Makes (or finds) an instance.
    fn mount(&self, request: &MountRequest<'_>) -> SysResult<Arc<dyn FileSystem>>;
}

struct DeviceRange {
    first_minor: u32,
    last_minor: u32,
    name: String,
    opener: Arc<dyn DeviceOpener>,
}

/// Shared by all mount namespaces of a sandbox.
#[derive(Default)]
pub struct Vfs {
    // Key: (is block, major).
    devices: RankedRw<order::Leaf, BTreeMap<(bool, u32), Vec<DeviceRange>>>,
    types: RankedRw<order::Leaf, BTreeMap<&'static str, Arc<dyn FsType>>>,
}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vfs(..)")
    }
}

/// Major number of a device in the kernel's encoding.
#[must_use]
pub fn major(rdev: u64) -> u32 {
    u32::try_from(((rdev >> 8) & 0xfff) | ((rdev >> 32) & 0xffff_f000)).unwrap_or(u32::MAX)
}
/// Minor number of a device in the kernel's encoding.
#[must_use]
pub fn minor(rdev: u64) -> u32 {
    u32::try_from((rdev & 0xff) | ((rdev >> 12) & 0xffff_ff00)).unwrap_or(u32::MAX)
}

static NEXT_DEV: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(32);

/// A fresh device number for a file system without a device (`0:N`).
#[must_use]
pub fn anon_dev() -> u64 {
    abi::fs::make_dev(0, NEXT_DEV.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

impl Vfs {
    /// Without devices and file systems.
    #[must_use]
    pub fn new() -> Arc<Vfs> {
        Arc::new(Vfs::default())
    }
    /// Registers character devices `major:first..=last`; `name` is shown in /proc/devices.
    pub fn register_char(
        &self,
        major: u32,
        minors: std::ops::RangeInclusive<u32>,
        name: &str,
        opener: Arc<dyn DeviceOpener>,
    ) {
        let (first_minor, last_minor) = (*minors.start(), *minors.end());
        let range = DeviceRange { first_minor, last_minor, name: name.to_owned(), opener };
        self.devices.write().entry((false, major)).or_default().push(range);
    }
    /// Opens a device node by number; `ENXIO` when no driver serves it.
    pub fn open_device(
        &self,
        inode: &Arc<dyn Inode>,
        rdev: u64,
        flags: OpenFlags,
        by: &Caller<'_>,
    ) -> CallResult<Arc<dyn FileOps>> {
        let block = inode.kind() == FileType::BlockDevice;
        let (major, minor) = (major(rdev), minor(rdev));
        let devices = self.devices.read();
        let opener = devices
            .get(&(block, major))
            .and_then(|ranges| ranges.iter().find(|r| (r.first_minor..=r.last_minor).contains(&minor)))
            .map(|r| Arc::clone(&r.opener));
        drop(devices);
        opener.ok_or(Errno::ENXIO)?.open(minor, inode, flags, by)
    }
    /// (is block, major, name), for /proc/devices.
    #[must_use]
    pub fn devices(&self) -> Vec<(bool, u32, String)> {
        let devices = self.devices.read();
        let all = devices.iter().flat_map(|((b, m), list)| list.iter().map(|r| (*b, *m, r.name.clone())));
        all.collect()
    }
    /// Registers a file system type.
    pub fn register_type(&self, fs: Arc<dyn FsType>) {
        self.types.write().insert(fs.name(), fs);
    }
    /// A file system type by name; `ENODEV` when unknown.
    pub fn fs_type(&self, name: &[u8]) -> SysResult<Arc<dyn FsType>> {
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENODEV)?;
        // "fuse.sshfs": the part behind the dot is the server's.
        let name = if name.starts_with("fuse.") { "fuse" } else { name };
        self.types.read().get(name).cloned().ok_or(Errno::ENODEV)
    }
    /// All types, for /proc/filesystems.
    #[must_use]
    pub fn fs_types(&self) -> Vec<Arc<dyn FsType>> {
        self.types.read().values().cloned().collect()
    }
}
