//! Placed nodes, and the file system around them.

use super::dir::SynthDir;
use super::file::TextFile;
use super::node::{Content, Directory, Node};
use crate::attr::{Attr, AttrChange, FsStat};
use crate::caller::{Caller, realtime_now};
use crate::file::FileOps;
use crate::inode::{DentryHint, FileSystem, Inode, LinkTarget, NewNode, Owner};
use crate::perm::Access;
use crate::vfs::anon_dev;
use abi::fs::{FileType, ModeBits, OpenFlags};
use abi::time::Timespec;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

/// A made-up file system.
pub struct SynthFs {
    name: &'static str,
    magic: u64,
    dev: u64,
    hint: DentryHint,
    made: Timespec,
    root: OnceLock<Arc<SynthInode>>,
}

impl std::fmt::Debug for SynthFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SynthFs({})", self.name)
    }
}

#[derive(Default)]
struct Fixed {
    by_name: BTreeMap<Vec<u8>, u64>,
    by_cookie: BTreeMap<u64, (Vec<u8>, Arc<SynthInode>)>,
    next: u64,
}

struct Meta {
    perm: ModeBits,
    owner: Owner,
}

/// A node at its place.
pub struct SynthInode {
    me: Weak<SynthInode>,
    fs: Weak<SynthFs>,
    info: FsInfo,
    ino: u64,
    parent: u64,
    node: Node,
    meta: Ranked<order::InodeAttr, Meta>,
    fixed: Ranked<order::DirInode, Fixed>,
    filled: OnceLock<()>,
}

#[derive(Clone, Copy)]
struct FsInfo {
    hint: DentryHint,
    made: Timespec,
}

impl std::fmt::Debug for SynthInode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SynthInode({} {:?})", self.ino, self.node)
    }
}

/// Number of a child: a hash of the parent's and the name (FNV-1a), so that it is stable.
fn child_number(parent: u64, name: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parent.to_ne_bytes().iter().chain(name) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // Numbers that fit 32 bits please 32-bit programs; 2 is the smallest.
    ((hash >> 32) ^ (hash & 0xffff_ffff)).max(2)
}

impl SynthFs {
    /// An empty tree under `root`. `hint` says whether names may be cached: not where they come and go by
    /// themselves.
    #[must_use]
    pub fn new(name: &'static str, magic: u64, hint: DentryHint, root: Node) -> Arc<SynthFs> {
        let fs = Arc::new(SynthFs {
            name,
            magic,
            dev: anon_dev(),
            hint,
            made: realtime_now(),
            root: OnceLock::new(),
        });
        let info = FsInfo { hint, made: fs.made };
        let root = SynthInode::place(&Arc::downgrade(&fs), info, 1, 1, root);
        let _ = fs.root.set(root);
        fs
    }
    /// The root directory.
    #[must_use]
    pub fn root_inode(&self) -> Option<&Arc<SynthInode>> {
        self.root.get()
    }
}

impl SynthInode {
    /// What lists it, when that changes.
    pub(super) fn directory(&self) -> Option<Arc<dyn super::Directory>> {
        match &self.node.content {
            Content::Dir(changing) => changing.clone(),
            _ => None,
        }
    }
}

impl FileSystem for SynthFs {
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
        match self.root.get() {
            Some(root) => Arc::clone(root) as Arc<dyn Inode>,
            None => crate::anon::no_directory(),
        }
    }
    fn statfs(&self, _by: &Caller<'_>) -> SysResult<FsStat> {
        Ok(FsStat { magic: self.magic, bsize: 4096, namelen: 255, ..FsStat::default() })
    }
    fn dentry_hint(&self) -> DentryHint {
        self.hint
    }
}

impl SynthInode {
    fn place(fs: &Weak<SynthFs>, info: FsInfo, ino: u64, parent: u64, node: Node) -> Arc<SynthInode> {
        let meta = Meta { perm: node.perm, owner: node.owner };
        Arc::new_cyclic(|me| SynthInode {
            me: Weak::clone(me),
            fs: Weak::clone(fs),
            info,
            ino,
            parent,
            node,
            meta: Ranked::new(meta),
            fixed: Ranked::new(Fixed { next: 3, ..Fixed::default() }),
            filled: OnceLock::new(),
        })
    }
    fn child(&self, name: &[u8], node: Node) -> Arc<SynthInode> {
        SynthInode::place(&self.fs, self.info, child_number(self.ino, name), self.ino, node)
    }
    /// Hangs a fixed child under `name`, in place of an older one. The tree is set up before it is mounted, or
    /// grows under the directory's own rules (cgroup).
    pub fn add(&self, name: impl AsRef<[u8]>, node: Node) -> Arc<SynthInode> {
        let name = name.as_ref();
        let child = self.child(name, node);
        let mut fixed = self.fixed.lock();
        let cookie = fixed.next;
        fixed.next = fixed.next.saturating_add(1);
        let old = fixed.by_name.insert(name.to_vec(), cookie);
        let gone = old.and_then(|old| fixed.by_cookie.remove(&old));
        fixed.by_cookie.insert(cookie, (name.to_vec(), Arc::clone(&child)));
        drop(fixed);
        drop(gone);
        child
    }
    /// Hangs an ordinary directory (or gives the one that is there).
    pub fn dir(&self, name: impl AsRef<[u8]>) -> Arc<SynthInode> {
        match self.hung(name.as_ref()) {
            Some(child) => child,
            None => self.add(name, Node::dir(0o555)),
        }
    }
    /// Hangs a text file that anyone may read.
    pub fn text(
        &self,
        name: impl AsRef<[u8]>,
        read: impl Fn(&Caller<'_>) -> SysResult<Vec<u8>> + Send + Sync + 'static,
    ) -> Arc<SynthInode> {
        self.add(name, Node::text(0o444, read))
    }
    /// Takes a fixed child off; says whether it was there.
    pub fn remove(&self, name: &[u8]) -> bool {
        let mut fixed = self.fixed.lock();
        let gone = fixed.by_name.remove(name).and_then(|cookie| fixed.by_cookie.remove(&cookie));
        drop(fixed);
        gone.is_some()
    }
    /// Hangs the children of a directory that is filled when it is first looked into.
    fn fill(&self) {
        if let Content::Lazy(fill) = &self.node.content {
            self.filled.get_or_init(|| {
                if let Some(me) = self.me.upgrade() {
                    fill(&me);
                }
            });
        }
    }
    /// A fixed child.
    #[must_use]
    pub fn fixed_child(&self, name: &[u8]) -> Option<Arc<SynthInode>> {
        self.fill();
        self.hung(name)
    }
    fn hung(&self, name: &[u8]) -> Option<Arc<SynthInode>> {
        let fixed = self.fixed.lock();
        fixed.by_name.get(name).and_then(|c| fixed.by_cookie.get(c)).map(|(_, i)| Arc::clone(i))
    }
    pub(super) fn fixed_after(&self, cookie: u64) -> Vec<(u64, Vec<u8>, u64, FileType)> {
        self.fill();
        let fixed = self.fixed.lock();
        let rest = fixed.by_cookie.range(cookie.saturating_add(1)..);
        rest.map(|(at, (name, inode))| (*at, name.clone(), inode.ino, inode.node.kind)).collect()
    }
    pub(super) fn changing(&self) -> Option<Arc<dyn Directory>> {
        match &self.node.content {
            Content::Dir(changing) => changing.clone(),
            _ => None,
        }
    }
    /// Its inode number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.ino
    }
    pub(super) fn parent_number(&self) -> u64 {
        self.parent
    }
    pub(super) fn child_number(&self, name: &[u8]) -> u64 {
        child_number(self.ino, name)
    }
    pub(super) fn attr_now(&self) -> Attr {
        let dirs = if self.node.kind == FileType::Directory {
            let changing = self.changing().map_or(0, |changing| changing.directories());
            let fixed = self.fixed.lock();
            let below = fixed.by_cookie.values().filter(|(_, i)| i.node.kind == FileType::Directory);
            u32::try_from(below.count().saturating_add(changing)).unwrap_or(u32::MAX).saturating_add(2)
        } else {
            1
        };
        let size = match &self.node.content {
            Content::Custom(custom) => custom.size(),
            _ => 0,
        };
        let meta = self.meta.lock();
        Attr {
            kind: self.node.kind,
            perm: meta.perm,
            ino: self.ino,
            nlink: dirs,
            uid: meta.owner.uid,
            gid: meta.owner.gid,
            rdev: self.node.rdev,
            size,
            blocks: 0,
            blksize: 1024,
            atime: self.info.made,
            mtime: self.info.made,
            ctime: self.info.made,
            btime: None,
        }
    }
}

impl Inode for SynthInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        match self.fs.upgrade() {
            Some(fs) => fs,
            None => SynthFs::new("none", 0, DentryHint::Never, Node::dir(0)),
        }
    }
    fn kind(&self) -> FileType {
        self.node.kind
    }
    fn ino(&self) -> Option<u64> {
        Some(self.ino)
    }
    fn child_hint(&self) -> DentryHint {
        self.info.hint
    }
    fn checks_access(&self) -> bool {
        self.node.check.is_some()
    }
    fn access(&self, want: Access, by: &Caller<'_>) -> SysResult<()> {
        match &self.node.check {
            Some(check) => check(want, by),
            None => Ok(()),
        }
    }
    fn attr(&self, _by: &Caller<'_>) -> SysResult<Attr> {
        Ok(self.attr_now())
    }
    fn set_attr(&self, change: &AttrChange, _by: &Caller<'_>) -> SysResult<()> {
        // Truncation of a made-up file does nothing, as in Linux; times stay.
        let mut meta = self.meta.lock();
        meta.perm = change.perm.unwrap_or(meta.perm);
        meta.owner.uid = change.uid.unwrap_or(meta.owner.uid);
        meta.owner.gid = change.gid.unwrap_or(meta.owner.gid);
        Ok(())
    }
    fn lookup(&self, name: &[u8], by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        if let Some(child) = self.fixed_child(name) {
            return Ok(child);
        }
        let changing = self.changing().ok_or(Errno::ENOENT)?;
        Ok(self.child(name, changing.lookup(name, by)?))
    }
    fn create(
        &self,
        name: &[u8],
        what: &NewNode,
        perm: ModeBits,
        owner: Owner,
        by: &Caller<'_>,
    ) -> SysResult<Arc<dyn Inode>> {
        // proc's look-up fails where others find that there is nothing yet.
        if self.fs.upgrade().is_some_and(|fs| fs.name == "proc") {
            return Err(Errno::ENOENT);
        }
        match (what, self.changing()) {
            (NewNode::Directory, Some(changing)) => {
                Ok(self.child(name, changing.create_dir(name, perm, owner, by)?))
            }
            _ => Err(Errno::EPERM),
        }
    }
    fn rmdir(&self, name: &[u8], _child: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
        self.changing().ok_or(Errno::EPERM)?.remove_dir(name, by)
    }
    fn read_link(&self, by: &Caller<'_>) -> SysResult<LinkTarget> {
        match &self.node.content {
            Content::Link(target) => target(by),
            _ => Err(Errno::EINVAL),
        }
    }
    fn open(self: Arc<Self>, flags: OpenFlags, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        match &self.node.content {
            Content::Dir(_) | Content::Lazy(_) => Ok(Arc::new(SynthDir::new(Arc::clone(&self)))),
            Content::Text(text) => {
                text.check_open(flags, by)?;
                Ok(Arc::new(TextFile::new(Arc::clone(&self), Arc::clone(text))))
            }
            Content::Custom(custom) => custom.open(flags, by),
            Content::Link(_) => Err(Errno::ELOOP),
        }
    }
    fn list_xattr(&self, _by: &Caller<'_>) -> SysResult<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }
}

impl SynthInode {
    /// As a shared pointer.
    #[must_use]
    pub fn arc(&self) -> Option<Arc<SynthInode>> {
        self.me.upgrade()
    }
}
