//! One file, directory or link behind the gofer: attributes, handle, descriptors.

use super::dir::Names;
use super::fs::RemoteFs;
use crate::moment::Moment;
use abi::fs::FileType;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use mm::Invalidate;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use wire::{Access, Attr, Handle, Node, Reply, Request, Time, WalkEnd, WalkFlags};

/// Blocks of 512 bytes of a removed file that are worth a message of their own.
const MANY_BLOCKS: u64 = 2048;

/// What tells host files apart. The birth time is in it where others may change the export, because numbers
/// are used again. Without others it is left out: a host's overlay gives a file another one when it copies it up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    dev: (u32, u32),
    ino: u64,
    birth: (i64, u32),
}

impl Key {
    pub(super) fn of(attr: &Attr, fs: &RemoteFs) -> Key {
        let birth = if fs.is_shared() { (attr.btime.sec, attr.btime.nsec) } else { (0, 0) };
        Key { dev: attr.dev, ino: attr.ino, birth }
    }
    /// Whether these are the attributes of the same file, which may have been copied up meanwhile.
    fn names(&self, attr: &Attr) -> bool {
        (self.dev, self.ino) == (attr.dev, attr.ino)
    }
}

/// The type of a node. `EIO` for a mode that names none.
pub(super) fn file_type(attr: &Attr) -> SysResult<FileType> {
    match FileType::from_mode(attr.mode) {
        None | Some(FileType::Anonymous) => Err(Errno::EIO),
        Some(kind) => Ok(kind),
    }
}

/// A descriptor that the gofer opened.
#[derive(Debug)]
pub(super) struct Donated {
    pub(super) fd: Arc<OwnedFd>,
    pub(super) readable: bool,
    /// Used since the cache last looked.
    pub(super) used: AtomicBool,
}

/// What a file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Reading only.
    Read,
    /// Writing, and reading where the host allows both.
    Write,
}

/// Who may have changed a file since its attributes were read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Changed {
    /// A guest, through a descriptor: content only.
    ByUs,
    /// Others, in any way.
    Perhaps,
}

#[derive(Debug)]
struct Cached {
    attr: Attr,
    /// Changed on the host in a way that only the host can tell.
    stale: bool,
    /// When the host last said so (shared exports).
    checked: Moment,
}

/// How to name the inode to the gofer.
struct Place {
    handle: Handle,
    parent: Weak<RemoteInode>,
    name: Arc<[u8]>,
    /// Keeps the parent, and with it the parent's handle, while there is no handle of its own.
    parent_held: Option<Arc<RemoteInode>>,
    /// When the host last found the inode at this very place (shared exports).
    found: Moment,
    /// The name is gone.
    removed: bool,
    read: Weak<Donated>,
    write: Weak<Donated>,
}

/// What is known of extended attributes on an exclusive export.
pub(super) const XATTRS_UNKNOWN: u8 = 0;
/// There are none.
pub(super) const XATTRS_NONE: u8 = 1;
/// There are some.
pub(super) const XATTRS_SOME: u8 = 2;

/// One inode.
pub(super) struct RemoteInode {
    pub(super) fs: Arc<RemoteFs>,
    pub(super) me: Weak<RemoteInode>,
    pub(super) kind: FileType,
    key: Key,
    attr: Ranked<order::InodeAttr, Cached>,
    place: Ranked<order::RemoteInode, Place>,
    pub(super) target: OnceLock<Vec<u8>>,
    /// Of directories.
    pub(super) names: Option<Box<Ranked<order::RemoteDir, Names>>>,
    /// Written through a descriptor since the attributes were last read.
    pub(super) written: AtomicBool,
    /// Mapped shared and writable at least once: may be written at any time.
    pub(super) mapped: AtomicBool,
    pub(super) xattrs: AtomicU8,
    /// The ctime with which it had none (shared exports).
    pub(super) xattrs_none_at: Ranked<order::Leaf, Option<Time>>,
    /// Serialises appends.
    pub(super) append: Ranked<order::RemoteAppend, ()>,
    pub(super) spaces: Ranked<order::Leaf, Vec<Weak<dyn Invalidate>>>,
}

impl RemoteInode {
    pub(super) fn new(
        fs: Arc<RemoteFs>,
        kind: FileType,
        place: Option<(&Arc<RemoteInode>, &Arc<[u8]>)>,
        node: Node,
    ) -> Arc<RemoteInode> {
        let (parent, name, parent_held) = match place {
            None => (Weak::new(), Arc::from(&b""[..]), None),
            Some((parent, name)) => {
                let held = (!node.handle.is_some()).then(|| Arc::clone(parent));
                (Arc::downgrade(parent), Arc::clone(name), held)
            }
        };
        let checked = Moment::now();
        let key = Key::of(&node.attr, &fs);
        Arc::new_cyclic(|me| RemoteInode {
            fs,
            me: Weak::clone(me),
            kind,
            key,
            attr: Ranked::new(Cached { attr: node.attr, stale: false, checked }),
            place: Ranked::new(Place {
                handle: node.handle,
                parent,
                name,
                parent_held,
                found: checked,
                removed: false,
                read: Weak::new(),
                write: Weak::new(),
            }),
            target: OnceLock::new(),
            names: (kind == FileType::Directory).then(Box::default),
            written: AtomicBool::new(false),
            mapped: AtomicBool::new(false),
            xattrs: AtomicU8::new(XATTRS_UNKNOWN),
            xattrs_none_at: Ranked::new(None),
            append: Ranked::new(()),
            spaces: Ranked::new(Vec::new()),
        })
    }

    pub(super) fn arc(&self) -> SysResult<Arc<RemoteInode>> {
        self.me.upgrade().ok_or(Errno::EIO)
    }

    /// What a directory knows of its names; `ENOTDIR` for anything else.
    pub(super) fn names(&self) -> SysResult<&Ranked<order::RemoteDir, Names>> {
        self.names.as_deref().ok_or(Errno::ENOTDIR)
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// The inode was found again, at `place`, as `node`.
    pub(super) fn met(&self, place: Option<(&Arc<RemoteInode>, &Arc<[u8]>)>, node: Node) {
        if self.fs.is_shared() {
            self.store(node.attr);
        }
        let surplus = {
            let mut at = self.place.lock();
            if self.fs.is_shared()
                && let Some((parent, name)) = place
            {
                at.found = Moment::now();
                at.removed = false;
                at.parent = Arc::downgrade(parent);
                at.name = Arc::clone(name);
            }
            if node.handle.is_some() && !at.handle.is_some() {
                at.handle = node.handle;
                (Handle::NONE, at.parent_held.take())
            } else if at.removed
                && let Some((parent, name)) = place
            {
                // Another name of a file whose first name is gone.
                at.removed = false;
                at.parent = Arc::downgrade(parent);
                at.name = Arc::clone(name);
                let held = (!at.handle.is_some()).then(|| Arc::clone(parent));
                (node.handle, std::mem::replace(&mut at.parent_held, held))
            } else {
                (node.handle, None)
            }
        };
        if !self.fs.is_root(surplus.0) {
            self.fs.channel.drop_handle(surplus.0);
        }
    }

    /// The host found the inode at `name` of `parent` just now.
    pub(super) fn found_at(&self, parent: &RemoteInode, name: &[u8], attr: Attr) {
        self.store(attr);
        let mut place = self.place.lock();
        if !(place.parent.ptr_eq(&parent.me) && *place.name == *name) {
            place.parent = Weak::clone(&parent.me);
            place.name = Arc::from(name);
        }
        place.found = Moment::now();
    }

    /// Whether the host found the inode at `name` of `parent` a moment ago, in the call under way.
    pub(super) fn was_found_at(&self, parent: &RemoteInode, name: &[u8]) -> bool {
        let place = self.place.lock();
        place.parent.ptr_eq(&parent.me) && *place.name == *name && place.found.is_now()
    }

    /// The host's word. Called under `RemoteWire` where the order of answers matters.
    pub(super) fn store(&self, attr: Attr) {
        let mut cached = self.attr.lock();
        cached.attr = attr;
        cached.stale = false;
        cached.checked = Moment::now();
    }

    /// Something changed that only the host can tell.
    pub(super) fn set_stale(&self) {
        let mut cached = self.attr.lock();
        cached.stale = true;
        cached.checked = Moment::NEVER;
    }

    /// The attributes as last seen.
    pub(super) fn last_attr(&self) -> Attr {
        self.attr.lock().attr
    }

    /// The attributes now.
    pub(super) fn current(&self) -> SysResult<Attr> {
        let written = self.written.swap(false, Ordering::AcqRel) || self.mapped.load(Ordering::Relaxed);
        if !written {
            let cached = self.attr.lock();
            let believed = match self.fs.is_shared() {
                true => cached.checked.is_now(),
                false => !cached.stale,
            };
            if believed {
                return Ok(cached.attr);
            }
        }
        match self.open_now() {
            Some(file) => self.attr_of(&file.fd, if written { Changed::ByUs } else { Changed::Perhaps }),
            None => self.fetch(),
        }
    }

    /// Attributes through a donated descriptor: one host call instead of a message. Owners are not taken from
    /// it: the sentry lives in a user namespace of its own, where they read otherwise.
    pub(super) fn attr_of(&self, fd: &OwnedFd, changed: Changed) -> SysResult<Attr> {
        let stat = rustix::fs::fstat(fd).map_err(host)?;
        let time = |sec: i64, nsec: u64| Time { sec, nsec: u32::try_from(nsec).unwrap_or(0) };
        let ctime = time(stat.st_ctime, stat.st_ctime_nsec);
        let mut cached = self.attr.lock();
        if self.fs.is_shared() && changed == Changed::Perhaps && ctime != cached.attr.ctime {
            drop(cached);
            return self.fetch();
        }
        if self.fs.is_shared() || ctime >= cached.attr.ctime {
            cached.attr = Attr {
                mode: stat.st_mode,
                nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
                size: u64::try_from(stat.st_size).unwrap_or(0),
                blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
                atime: time(stat.st_atime, stat.st_atime_nsec),
                mtime: time(stat.st_mtime, stat.st_mtime_nsec),
                ctime,
                ..cached.attr
            };
            cached.stale = false;
            cached.checked = Moment::now();
        }
        Ok(cached.attr)
    }

    fn fetch(&self) -> SysResult<Attr> {
        let place = self.at()?;
        let attr = match place {
            At::Handle(node) => self.fs.channel.call(&Request::GetAttr { node }, |reply, _| match reply {
                Reply::Attr { attr } => {
                    self.store(attr);
                    Ok(attr)
                }
                _ => Err(Errno::EIO),
            })?,
            At::Name(parent, name) => self.walk_one(&parent, &name, WalkFlags::empty())?.attr,
        };
        Ok(attr)
    }

    /// Looks the inode up by name and checks that it still is itself.
    fn walk_one(&self, parent: &RemoteInode, name: &[u8], flags: WalkFlags) -> SysResult<Node> {
        let request = Request::Walk { from: parent.handle()?, names: vec![name.into()], flags };
        let node = self.fs.channel.call(&request, |reply, _| match reply {
            Reply::Walked { nodes, end } => match (nodes.first(), end) {
                (Some(node), WalkEnd::Symlink { target }) => {
                    let _ = self.target.set(target.into_owned());
                    Ok(*node)
                }
                (Some(node), _) => Ok(*node),
                (None, WalkEnd::Failed { errno }) => Err(Errno::from_raw(i32::from(errno))),
                (None, _) => Err(Errno::ENOENT),
            },
            _ => Err(Errno::EIO),
        })?;
        if !self.key.names(&node.attr) {
            self.fs.channel.drop_handle(node.handle);
            return Err(Errno::ESTALE);
        }
        self.store(node.attr);
        Ok(node)
    }

    fn at(&self) -> SysResult<At> {
        let place = self.place.lock();
        if place.handle.is_some() {
            return Ok(At::Handle(place.handle));
        }
        match &place.parent_held {
            Some(parent) if !place.removed => Ok(At::Name(Arc::clone(parent), Arc::clone(&place.name))),
            _ => Err(Errno::ESTALE),
        }
    }

    /// The gofer's handle, got now if there was none.
    pub(super) fn handle(&self) -> SysResult<Handle> {
        match self.at()? {
            At::Handle(handle) => Ok(handle),
            At::Name(parent, name) => {
                let node = self.walk_one(&parent, &name, WalkFlags::HANDLE_LAST)?;
                let (handle, surplus, held) = {
                    let mut place = self.place.lock();
                    if place.handle.is_some() {
                        (place.handle, node.handle, None)
                    } else {
                        place.handle = node.handle;
                        (node.handle, Handle::NONE, place.parent_held.take())
                    }
                };
                self.fs.channel.drop_handle(surplus);
                drop(held);
                Ok(handle)
            }
        }
    }

    /// A descriptor that is open already.
    fn open_now(&self) -> Option<Arc<Donated>> {
        let place = self.place.lock();
        place.write.upgrade().or_else(|| place.read.upgrade())
    }

    /// A descriptor for `purpose`, opened now if there was none.
    pub(super) fn donated(&self, purpose: Purpose) -> SysResult<Arc<Donated>> {
        let known = {
            let place = self.place.lock();
            let write = place.write.upgrade();
            match purpose {
                Purpose::Write => write,
                Purpose::Read => place.read.upgrade().or_else(|| write.filter(|file| file.readable)),
            }
        };
        if let Some(file) = known {
            file.used.store(true, Ordering::Relaxed);
            return Ok(file);
        }
        match purpose {
            Purpose::Read => self.open_as(Access::READ),
            // Some hosts' file systems allow one and not the other.
            Purpose::Write => match self.open_as(Access::READ | Access::WRITE) {
                Err(Errno::EACCES | Errno::EPERM) => self.open_as(Access::WRITE),
                result => result,
            },
        }
    }

    fn open_as(&self, access: Access) -> SysResult<Arc<Donated>> {
        let (node, name) = match self.at()? {
            At::Handle(node) => (node, Arc::from(&b""[..])),
            At::Name(parent, name) => (parent.handle()?, name),
        };
        let request = Request::Open { node, name: (&*name).into(), access };
        let (attr, fd) = self.fs.channel.call(&request, |reply, fd| match (reply, fd) {
            (Reply::Donated { attr }, Some(fd)) => Ok((attr, fd)),
            _ => Err(Errno::EIO),
        })?;
        if !self.key.names(&attr) {
            return Err(Errno::ESTALE);
        }
        Ok(self.adopt(fd, access))
    }

    /// Takes a donated descriptor in.
    pub(super) fn adopt(&self, fd: OwnedFd, access: Access) -> Arc<Donated> {
        let readable = access.contains(Access::READ);
        let file = Arc::new(Donated { fd: Arc::new(fd), readable, used: AtomicBool::new(false) });
        {
            let mut place = self.place.lock();
            let slot = if access.contains(Access::WRITE) { &mut place.write } else { &mut place.read };
            *slot = Arc::downgrade(&file);
        }
        self.fs.keep_open(&file);
        file
    }

    /// No name leads to the inode; only its handle does (O_TMPFILE).
    pub(super) fn has_no_name(&self) {
        let mut place = self.place.lock();
        place.removed = true;
        place.found = Moment::NEVER;
    }

    /// Before a name of this inode goes: whoever holds it open must still be able to use it.
    pub(super) fn before_removal(&self) -> SysResult<()> {
        let needed = {
            let place = self.place.lock();
            // One reference is the cache's own.
            !place.handle.is_some() && (place.read.strong_count() > 1 || place.write.strong_count() > 1)
        };
        if needed || self.last_attr().nlink > 1 { self.handle().map(|_| ()) } else { Ok(()) }
    }

    /// A name of this inode is gone.
    pub(super) fn after_removal(&self, from: &RemoteInode, name: &[u8]) {
        let left = {
            let mut cached = self.attr.lock();
            cached.attr.nlink = match self.kind {
                FileType::Directory => 0,
                _ => cached.attr.nlink.saturating_sub(1),
            };
            cached.stale = true;
            cached.checked = Moment::NEVER;
            cached.attr.nlink
        };
        let (held, files) = {
            let mut place = self.place.lock();
            let was_here = place.parent.ptr_eq(&from.me) && *place.name == *name;
            place.removed |= was_here;
            place.found = Moment::NEVER;
            let held = if place.removed { place.parent_held.take() } else { None };
            (held, [place.read.upgrade(), place.write.upgrade()])
        };
        drop(held);
        if left > 0 {
            return;
        }
        // Without handle or descriptor nobody can ask the host again: what is known must do.
        if self.at().is_err() && files.iter().all(Option::is_none) {
            self.attr.lock().stale = false;
        }
        self.fs.forget(&self.key, &self.me);
        let files: Vec<_> = files.into_iter().flatten().collect();
        if !files.is_empty() {
            self.fs.close_kept(&files);
        }
    }

    /// The inode has moved.
    pub(super) fn moved(&self, parent: &Arc<RemoteInode>, name: &Arc<[u8]>) {
        self.set_stale();
        let old = {
            let mut place = self.place.lock();
            place.parent = Arc::downgrade(parent);
            place.name = Arc::clone(name);
            place.found = Moment::NEVER;
            match place.parent_held.is_some() {
                true => place.parent_held.replace(Arc::clone(parent)),
                false => None,
            }
        };
        drop(old);
    }

    /// Inode number of the directory this one is in, as `..` shows it.
    pub(super) fn parent_ino(&self) -> u64 {
        let parent = self.place.lock().parent.upgrade();
        match parent {
            Some(parent) => self.fs.ino(&parent.last_attr()),
            None => self.fs.root_ino(),
        }
    }
}

impl std::fmt::Debug for RemoteInode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteInode({:?} {:?})", self.kind, self.key)
    }
}

enum At {
    Handle(Handle),
    Name(Arc<RemoteInode>, Arc<[u8]>),
}

impl Drop for RemoteInode {
    fn drop(&mut self) {
        self.fs.forget(&self.key, &self.me);
        let place = self.place.get_mut();
        if let Some(parent) = place.parent.upgrade()
            && let Some(names) = &parent.names
        {
            names.lock().forget(&place.name, &self.me);
        }
        if place.handle.is_some() && !self.fs.is_root(place.handle) {
            self.fs.channel.drop_handle(place.handle);
            // The host frees the file's blocks when the last handle goes: with the next request, unless they are many.
            let last = self.attr.get_mut().attr;
            if last.nlink == 0 && last.blocks > MANY_BLOCKS {
                self.fs.channel.flush();
            }
        }
    }
}

/// The guest's word for a host error.
pub(super) fn host(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Size of an open file now.
pub(super) fn size_of(fd: &OwnedFd) -> SysResult<u64> {
    let stat = rustix::fs::fstat(fd.as_fd()).map_err(host)?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}
