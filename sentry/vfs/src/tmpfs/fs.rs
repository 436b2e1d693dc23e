//! The file system: limits, options, mounting.

use super::inode::TmpInode;
use crate::attr::FsStat;
use crate::caller::Caller;
use crate::cred::{Kgid, Kuid};
use crate::inode::{FileSystem, Inode, Owner};
use crate::vfs::{FsType, MountRequest, anon_dev};
use abi::fs::{FileType, ModeBits};
use abi::{Errno, PAGE_SIZE, SysResult};
use mm::{Frames, PageQuota};
use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

const MAGIC: u64 = 0x0102_1994;

/// What a tmpfs is mounted with.
#[derive(Clone, Debug)]
pub struct TmpfsOptions {
    /// Bytes of file data; `None` is without limit.
    pub size: Option<u64>,
    /// Inodes; `None` is without limit.
    pub inodes: Option<u64>,
    /// Mode of the root.
    pub perm: ModeBits,
    /// Owner of the root.
    pub owner: Owner,
    /// Name of the type in /proc/mounts (`tmpfs`, `devtmpfs`, `ramfs`).
    pub name: &'static str,
}

impl Default for TmpfsOptions {
    fn default() -> Self {
        TmpfsOptions {
            size: None,
            inodes: None,
            perm: 0o1777,
            owner: Owner { uid: Kuid(0), gid: Kgid(0) },
            name: "tmpfs",
        }
    }
}

fn usual_size(whole: u64) -> u64 {
    whole / 2
}

fn usual_inodes(whole: u64) -> u64 {
    whole / PAGE_SIZE / 2
}

/// `64k`, `1g`, `50%` of `whole`.
fn parse_size(text: &str, whole: u64) -> SysResult<u64> {
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u64 = percent.parse().map_err(|_| Errno::EINVAL)?;
        return Ok(whole / 100 * percent.min(100));
    }
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (text.get(..at), 10),
        Some((at, 'm' | 'M')) => (text.get(..at), 20),
        Some((at, 'g' | 'G')) => (text.get(..at), 30),
        Some((at, 't' | 'T')) => (text.get(..at), 40),
        _ => (Some(text), 0),
    };
    let n: u64 = digits.unwrap_or_default().parse().map_err(|_| Errno::EINVAL)?;
    n.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}

impl TmpfsOptions {
    /// The limits that Linux gives a tmpfs mounted without any: half of `whole` bytes of memory, an inode for each page of that.
    #[must_use]
    pub fn with_usual_limits(mut self, whole: u64) -> TmpfsOptions {
        self.size = Some(usual_size(whole));
        self.inodes = Some(usual_inodes(whole));
        self
    }
    /// Reads mount options over the defaults in `self`. Ids are those of `by`'s user namespace.
    pub fn parse(mut self, data: &[u8], whole: u64, by: Option<&Caller<'_>>) -> SysResult<TmpfsOptions> {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        for option in text.split(',').filter(|o| !o.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            match key {
                "size" => self.size = Some(parse_size(value, whole)?).filter(|n| *n > 0),
                "nr_blocks" => {
                    let pages = parse_size(value, whole)?;
                    self.size = Some(pages.checked_mul(PAGE_SIZE).ok_or(Errno::EINVAL)?).filter(|n| *n > 0);
                }
                "nr_inodes" => self.inodes = Some(parse_size(value, whole)?).filter(|n| *n > 0),
                "mode" => self.perm = u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)? & 0o7777,
                "uid" => {
                    let id = value.parse().map_err(|_| Errno::EINVAL)?;
                    self.owner.uid = by.map_or(Ok(Kuid(id)), |by| by.cred.user_ns.kuid(id))?;
                }
                "gid" => {
                    let id = value.parse().map_err(|_| Errno::EINVAL)?;
                    self.owner.gid = by.map_or(Ok(Kgid(id)), |by| by.cred.user_ns.kgid(id))?;
                }
                "huge" | "mpol" | "inode64" | "inode32" | "noswap" | "context" | "rootcontext"
                | "fscontext" | "defcontext" | "seclabel" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(self)
    }
}

/// What all inodes of one tmpfs share.
pub(super) struct Shared {
    pub(super) dev: u64,
    pub(super) frames: Arc<Frames>,
    pub(super) quota: Option<Arc<PageQuota>>,
    name: &'static str,
    perm: ModeBits,
    inode_limit: AtomicU64,
    inodes: AtomicU64,
    next_ino: AtomicU64,
    root: OnceLock<Weak<TmpInode>>,
}

impl Shared {
    /// A number for a new inode; `ENOSPC` over the limit.
    pub(super) fn new_ino(&self) -> SysResult<u64> {
        let limit = self.inode_limit.load(Ordering::Relaxed);
        self.inodes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1))
            .map_err(|_| Errno::ENOSPC)?;
        Ok(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }
    pub(super) fn inode_gone(&self) {
        self.inodes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl FileSystem for Shared {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        self.name
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
    fn statfs(&self, _by: &Caller<'_>) -> SysResult<FsStat> {
        let (blocks, bfree) = match &self.quota {
            Some(quota) => {
                let blocks = quota.limit().div_ceil(PAGE_SIZE);
                (blocks, blocks.saturating_sub(quota.used() / PAGE_SIZE))
            }
            None => (0, 0),
        };
        let limit = self.inode_limit.load(Ordering::Relaxed);
        let (files, ffree) = if limit == u64::MAX {
            (0, 0)
        } else {
            (limit, limit.saturating_sub(self.inodes.load(Ordering::Relaxed)))
        };
        Ok(FsStat {
            magic: MAGIC,
            bsize: PAGE_SIZE,
            blocks,
            bfree,
            bavail: bfree,
            files,
            ffree,
            namelen: 255,
        })
    }
    fn options(&self) -> String {
        let mut text = String::new();
        let whole = self.frames.memory().limit();
        if let Some(limit) =
            self.quota.as_ref().map(|quota| quota.limit()).filter(|n| *n != usual_size(whole))
        {
            text.push_str(&format!(",size={}k", limit >> 10));
        }
        let limit = self.inode_limit.load(Ordering::Relaxed);
        if limit != u64::MAX && limit != usual_inodes(whole) {
            text.push_str(&format!(",nr_inodes={limit}"));
        }
        if self.perm != 0o1777 {
            text.push_str(&format!(",mode={:o}", self.perm));
        }
        text
    }
    fn remount(&self, data: &[u8]) -> SysResult<()> {
        let whole = self.frames.memory().limit();
        let options = TmpfsOptions::default().parse(data, whole, None)?;
        if let Some(size) = options.size {
            let quota = self.quota.as_ref().ok_or(Errno::EINVAL)?;
            if quota.used() > size {
                return Err(Errno::EINVAL);
            }
            quota.set_limit(size);
        }
        if let Some(inodes) = options.inodes {
            if self.inodes.load(Ordering::Relaxed) > inodes {
                return Err(Errno::EINVAL);
            }
            self.inode_limit.store(inodes, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A tmpfs with its tree.
pub struct TmpFs {
    shared: Arc<Shared>,
    root: Arc<TmpInode>,
}

impl std::fmt::Debug for TmpFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TmpFs({})", self.shared.dev)
    }
}

impl TmpFs {
    /// An empty tmpfs over `frames`.
    #[must_use]
    pub fn new(frames: &Arc<Frames>, options: &TmpfsOptions) -> Arc<TmpFs> {
        let shared = Arc::new(Shared {
            dev: anon_dev(),
            frames: Arc::clone(frames),
            quota: options.size.map(PageQuota::new),
            name: options.name,
            perm: options.perm,
            inode_limit: AtomicU64::new(options.inodes.unwrap_or(u64::MAX)),
            inodes: AtomicU64::new(1),
            next_ino: AtomicU64::new(2),
            root: OnceLock::new(),
        });
        let root = TmpInode::make(&shared, 1, FileType::Directory, options.perm, options.owner, 0, None);
        let _ = shared.root.set(Arc::downgrade(&root));
        Arc::new(TmpFs { shared, root })
    }
    /// The root directory as its own type.
    #[must_use]
    pub fn root_inode(&self) -> &Arc<TmpInode> {
        &self.root
    }
}

impl FileSystem for TmpFs {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        self.shared.name
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
    fn remount(&self, data: &[u8]) -> SysResult<()> {
        self.shared.remount(data)
    }
}

/// `mount -t tmpfs`.
pub struct TmpfsType {
    frames: Arc<Frames>,
    name: &'static str,
}

impl TmpfsType {
    /// Over `frames`, as `tmpfs` or `ramfs` (which has no limits).
    #[must_use]
    pub fn new(frames: &Arc<Frames>, name: &'static str) -> Arc<TmpfsType> {
        Arc::new(TmpfsType { frames: Arc::clone(frames), name })
    }
}

impl FsType for TmpfsType {
    fn name(&self) -> &'static str {
        self.name
    }
    fn in_user_namespace(&self) -> bool {
        true
    }
    fn mount(&self, request: &MountRequest<'_>) -> SysResult<Arc<dyn FileSystem>> {
        let whole = self.frames.memory().limit();
        let by = request.walk.by;
        let mut defaults = TmpfsOptions { name: self.name, ..TmpfsOptions::default() };
        defaults.owner = Owner { uid: by.cred.fsuid, gid: by.cred.fsgid };
        if self.name == "tmpfs" {
            defaults = defaults.with_usual_limits(whole);
        }
        let options = defaults.parse(request.data, whole, Some(by))?;
        Ok(TmpFs::new(&self.frames, &options))
    }
}
