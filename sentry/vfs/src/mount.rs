//! Mounts and mount namespaces (mount(2), mount_namespaces(7)).
//!
//! A parent mount owns its children by the dentry they cover; a child knows its parent weakly. Every
//! change of the tree holds the one [`change`] lock (`MountTable`); walks only read `MountLinks` of the
//! mount they stand on, and only where a dentry says that something is mounted there.

use crate::cred::UserNamespace;
use crate::dentry::{self, Dentry};
use crate::inode::FileSystem;
use crate::propagation::Group;
use crate::synthetic::Changes;
use crate::vfs::Vfs;
use abi::fs::FileType;
use abi::{Errno, SysResult};
use lock::{Ranked, RankedGuard, RankedRw, order};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

bitflags::bitflags! {
    /// What one mount restricts (`MS_*` numbers).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        /// Read-only.
        const RDONLY = 1;
        /// Set-id bits and file capabilities count for nothing.
        const NOSUID = 2;
        /// Device nodes cannot be opened.
        const NODEV = 4;
        /// No execve, no PROT_EXEC.
        const NOEXEC = 8;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 256;
        /// Access times stay.
        const NOATIME = 1024;
        /// Access times of directories stay.
        const NODIRATIME = 2048;
        /// Access times change when older than the others, or than a day.
        const RELATIME = 1 << 21;
    }
}

static NEXT: AtomicU64 = AtomicU64::new(1);
static NEXT_MOUNT: AtomicU32 = AtomicU32::new(21);
static CHANGE: Ranked<order::MountTable, ()> = Ranked::new(());

static SUPERS: Ranked<order::Leaf, Vec<Weak<Super>>> = Ranked::new(Vec::new());

/// Most mounts in one namespace (`/proc/sys/fs/mount-max`).
pub const MOUNT_MAX: usize = 100_000;

/// What /proc/pid/mounts tells poll(2) of.
pub static CHANGES: Changes = Changes::new();

/// The lock of the mount trees. Whoever watches hears when it is given back.
pub struct ChangeGuard(RankedGuard<'static, ()>);

impl Drop for ChangeGuard {
    fn drop(&mut self) {
        let () = *self.0;
        CHANGES.happened();
    }
}

/// Keeps every other change of any mount tree out.
pub fn change() -> ChangeGuard {
    ChangeGuard(CHANGE.lock())
}

/// A mounted file system instance, shared by its bind mounts.
pub struct Super {
    /// Process-wide number; dentries carry it.
    pub id: u64,
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// `mount -r` of the file system itself.
    pub read_only: AtomicBool,
    root: Arc<Dentry>,
}

impl Super {
    /// The instance of `fs`, with its root dentry: one for all mounts of one file system, so that they share
    /// their dentries.
    #[must_use]
    pub fn new(fs: Arc<dyn FileSystem>) -> Arc<Super> {
        let address = |fs: &Arc<dyn FileSystem>| Arc::as_ptr(fs).cast::<()>();
        let known: Vec<Weak<Super>> = SUPERS.lock().clone();
        if let Some(sb) = known.iter().filter_map(Weak::upgrade).find(|sb| address(&sb.fs) == address(&fs)) {
            return sb;
        }
        let sb = Super::make(fs);
        let mut supers = SUPERS.lock();
        supers.retain(|sb| sb.strong_count() > 0);
        supers.push(Arc::downgrade(&sb));
        drop(supers);
        sb
    }
    fn make(fs: Arc<dyn FileSystem>) -> Arc<Super> {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = Dentry::root(fs.root(), id, b"");
        Arc::new(Super { id, fs, read_only: AtomicBool::new(false), root })
    }
    /// The root dentry.
    #[must_use]
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }
}
impl std::fmt::Debug for Super {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Super({} {})", self.id, self.fs.name())
    }
}
impl Drop for Super {
    fn drop(&mut self) {
        dentry::trim(Some(self.id));
    }
}

/// One mount: a subtree of a file system, somewhere in a tree of mounts.
pub struct Mount {
    /// Shown in mountinfo.
    pub id: u32,
    /// Never used again (`statx` STATX_MNT_ID_UNIQUE, statmount).
    pub unique_id: u64,
    /// The file system instance.
    pub sb: Arc<Super>,
    /// What of it is seen here.
    pub root: Arc<Dentry>,
    /// Shown as the source.
    pub source: Box<[u8]>,
    flags: AtomicU32,
    /// Set on copies into a less privileged user namespace: it cannot be taken off alone.
    pub locked: AtomicBool,
    writers: AtomicUsize,
    pub(crate) links: RankedRw<order::MountLinks, MountLinks>,
}

/// Where a mount hangs, and with whom it shares events.
#[derive(Default)]
pub(crate) struct MountLinks {
    pub(crate) parent: Weak<Mount>,
    pub(crate) mountpoint: Option<Arc<Dentry>>,
    pub(crate) children: HashMap<usize, Arc<Mount>>,
    pub(crate) ns: Weak<MountNamespace>,
    pub(crate) group: Option<Arc<Group>>,
    pub(crate) master: Option<Arc<Group>>,
    pub(crate) unbindable: bool,
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mount({} {})", self.id, self.sb.fs.name())
    }
}

fn key(dentry: &Arc<Dentry>) -> usize {
    Arc::as_ptr(dentry).addr()
}

impl Mount {
    /// A mount that hangs nowhere.
    #[must_use]
    pub fn new(sb: Arc<Super>, root: Arc<Dentry>, flags: MountFlags, source: &[u8]) -> Arc<Mount> {
        Arc::new(Mount {
            id: NEXT_MOUNT.fetch_add(1, Ordering::Relaxed),
            unique_id: NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(1 << 31),
            sb,
            root,
            source: Box::from(source),
            flags: AtomicU32::new(flags.bits()),
            locked: AtomicBool::new(false),
            writers: AtomicUsize::new(0),
            links: RankedRw::default(),
        })
    }
    /// A mount of a whole new file system.
    #[must_use]
    pub fn of_fs(fs: Arc<dyn FileSystem>, flags: MountFlags, source: &[u8]) -> Arc<Mount> {
        let sb = Super::new(fs);
        let root = Arc::clone(sb.root());
        Mount::new(sb, root, flags, source)
    }
    /// Its restrictions.
    #[must_use]
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_retain(self.flags.load(Ordering::Acquire))
    }
    /// Replaces them. `EBUSY` when it becomes read-only under files open for writing, `EPERM` when it is
    /// locked and a restriction would go.
    pub fn set_flags(&self, new: MountFlags) -> SysResult<()> {
        let old = self.flags();
        let held = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        if self.locked.load(Ordering::Acquire) && !new.contains(old & held) {
            return Err(Errno::EPERM);
        }
        if new.contains(MountFlags::RDONLY) && !old.contains(MountFlags::RDONLY) && self.writers() > 0 {
            return Err(Errno::EBUSY);
        }
        self.flags.store(new.bits(), Ordering::Release);
        Ok(())
    }
    /// Its flags, read-only also where the file system as a whole is.
    #[must_use]
    pub fn flags_in_force(&self) -> MountFlags {
        let mut flags = self.flags();
        if self.sb.read_only.load(Ordering::Acquire) {
            flags |= MountFlags::RDONLY;
        }
        flags
    }
    /// `EROFS` when nothing may be changed through this mount.
    pub fn check_writable(&self) -> SysResult<()> {
        if self.flags_in_force().contains(MountFlags::RDONLY) { Err(Errno::EROFS) } else { Ok(()) }
    }
    /// Files open for writing through it.
    pub fn writers(&self) -> usize {
        self.writers.load(Ordering::Acquire)
    }
    pub(crate) fn add_writer(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }
    pub(crate) fn drop_writer(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }
    /// The mount that covers `dentry` of this one.
    #[must_use]
    pub fn child_at(&self, dentry: &Arc<Dentry>) -> Option<Arc<Mount>> {
        self.links.read().children.get(&key(dentry)).cloned()
    }
    /// The parent and the dentry there that this one covers.
    #[must_use]
    pub fn above(&self) -> Option<(Arc<Mount>, Arc<Dentry>)> {
        let links = self.links.read();
        Some((links.parent.upgrade()?, links.mountpoint.clone()?))
    }
    /// The namespace it belongs to.
    #[must_use]
    pub fn namespace(&self) -> Option<Arc<MountNamespace>> {
        self.links.read().ns.upgrade()
    }
    /// Mounts on it.
    #[must_use]
    pub fn children(&self) -> Vec<Arc<Mount>> {
        self.links.read().children.values().cloned().collect()
    }
    /// The mount and all below it, parents first.
    #[must_use]
    pub fn subtree(self: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let mut all = vec![Arc::clone(self)];
        let mut at = 0;
        while let Some(mount) = all.get(at).cloned() {
            all.extend(mount.children());
            at += 1;
        }
        all
    }
    /// Whether a program may be executed from it.
    #[must_use]
    pub fn allows_exec(&self) -> bool {
        !self.flags().contains(MountFlags::NOEXEC)
    }
    /// Hangs `child` on `dentry` of this mount. Under [`change`].
    pub(crate) fn hang(self: &Arc<Mount>, dentry: &Arc<Dentry>, child: &Arc<Mount>) {
        dentry.pin();
        {
            let mut links = child.links.write();
            links.parent = Arc::downgrade(self);
            links.mountpoint = Some(Arc::clone(dentry));
        }
        let displaced = self.links.write().children.insert(key(dentry), Arc::clone(child));
        // Something was mounted there (an event from a peer): it moves on top of the new one.
        if let Some(top) = displaced {
            dentry.unpin();
            child.root.pin();
            {
                let mut links = top.links.write();
                links.parent = Arc::downgrade(child);
                links.mountpoint = Some(Arc::clone(&child.root));
            }
            child.links.write().children.insert(key(&child.root), top);
        }
    }
    /// Takes it off its parent. Under [`change`].
    pub(crate) fn unhang(self: &Arc<Mount>) {
        let (parent, mountpoint) = {
            let mut links = self.links.write();
            (std::mem::take(&mut links.parent), links.mountpoint.take())
        };
        if let (Some(parent), Some(mountpoint)) = (parent.upgrade(), mountpoint.as_ref()) {
            let mut links = parent.links.write();
            let own = links.children.get(&key(mountpoint)).is_some_and(|m| Arc::ptr_eq(m, self));
            let taken = if own { links.children.remove(&key(mountpoint)) } else { None };
            drop(links);
            drop(taken);
        }
        if let Some(mountpoint) = mountpoint {
            mountpoint.unpin();
        }
    }
    pub(crate) fn set_namespace(&self, ns: &Weak<MountNamespace>) {
        self.links.write().ns = Weak::clone(ns);
    }
    /// Takes a whole detached or attached tree apart. Under [`change`].
    pub(crate) fn dismantle(self: &Arc<Mount>) {
        for mount in self.subtree().iter().rev() {
            mount.unhang();
            mount.leave_groups();
            mount.set_namespace(&Weak::new());
        }
    }
}

/// A place: a dentry as seen through a mount.
#[derive(Clone, Debug)]
pub struct Location {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The dentry.
    pub dentry: Arc<Dentry>,
}

impl PartialEq for Location {
    fn eq(&self, other: &Location) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }
}
impl Eq for Location {}

impl Location {
    /// The root of a mount.
    #[must_use]
    pub fn root_of(mount: &Arc<Mount>) -> Location {
        Location { mount: Arc::clone(mount), dentry: Arc::clone(&mount.root) }
    }
    /// The inode; `ENOENT` when negative.
    pub fn inode(&self) -> SysResult<&Arc<dyn crate::inode::Inode>> {
        self.dentry.inode()
    }
    /// Type; `None` when negative.
    #[must_use]
    pub fn kind(&self) -> Option<FileType> {
        self.dentry.kind()
    }
    /// Whether it is the root of its mount.
    #[must_use]
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, &self.mount.root)
    }
    /// What is on top: steps into mounts that cover it. Says whether it moved.
    pub fn enter_mounts(&mut self) -> bool {
        let mut moved = false;
        while self.dentry.mounted() > 0 {
            let Some(child) = self.mount.child_at(&self.dentry) else { break };
            self.dentry = Arc::clone(&child.root);
            self.mount = child;
            moved = true;
        }
        moved
    }
    /// Another dentry of the same mount.
    #[must_use]
    pub fn with(&self, dentry: Arc<Dentry>) -> Location {
        Location { mount: Arc::clone(&self.mount), dentry }
    }
}

/// A mount namespace.
pub struct MountNamespace {
    /// Number in /proc/pid/ns/mnt.
    pub ino: u64,
    /// Owner: who may mount here.
    pub user_ns: Arc<UserNamespace>,
    /// Devices and file system types.
    pub vfs: Arc<Vfs>,
    root: RankedRw<order::MountLinks, Arc<Mount>>,
}

impl std::fmt::Debug for MountNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MountNamespace({})", self.ino)
    }
}

impl MountNamespace {
    /// A namespace around a tree of mounts that hangs nowhere.
    #[must_use]
    pub fn new(
        ino: u64,
        user_ns: Arc<UserNamespace>,
        vfs: Arc<Vfs>,
        root: Arc<Mount>,
    ) -> Arc<MountNamespace> {
        let _change = change();
        MountNamespace::around(ino, user_ns, vfs, root)
    }
    fn around(ino: u64, user_ns: Arc<UserNamespace>, vfs: Arc<Vfs>, root: Arc<Mount>) -> Arc<MountNamespace> {
        let ns = Arc::new(MountNamespace { ino, user_ns, vfs, root: RankedRw::new(Arc::clone(&root)) });
        for mount in root.subtree() {
            mount.set_namespace(&Arc::downgrade(&ns));
        }
        ns
    }
    /// Whether it belongs to a detached mount (fsmount(2), open_tree(2)) and no process can be in it.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.ino == 0
    }
    /// The root mount.
    #[must_use]
    pub fn root(&self) -> Arc<Mount> {
        Arc::clone(&self.root.read())
    }
    /// The place "/" of the namespace, with what is mounted over it.
    #[must_use]
    pub fn root_location(&self) -> Location {
        let mut at = Location::root_of(&self.root());
        at.enter_mounts();
        at
    }
    pub(crate) fn set_root(&self, root: &Arc<Mount>) {
        let old = std::mem::replace(&mut *self.root.write(), Arc::clone(root));
        drop(old);
    }
    /// All mounts, by id.
    #[must_use]
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        let mut all = self.root().subtree();
        all.sort_by_key(|m| m.unique_id);
        all
    }
    /// `ENOSPC` when `more` mounts would be too many.
    pub fn check_room(&self, more: usize) -> SysResult<()> {
        if self.root().subtree().len().saturating_add(more) > MOUNT_MAX { Err(Errno::ENOSPC) } else { Ok(()) }
    }
    /// unshare(CLONE_NEWNS): a copy of all mounts, and where `places` are in the copy.
    pub fn copy(
        &self,
        ino: u64,
        user_ns: &Arc<UserNamespace>,
        places: &mut [&mut Location],
    ) -> SysResult<Arc<MountNamespace>> {
        let _change = change();
        let foreign = !Arc::ptr_eq(user_ns, &self.user_ns);
        let how = if foreign { crate::propagation::Copy::ToSlave } else { crate::propagation::Copy::Same };
        let old_root = self.root();
        let (root, pairs) = crate::propagation::copy_tree(&old_root, &old_root.root, how, true)?;
        for place in places {
            if let Some((_, new)) = pairs.iter().find(|(old, _)| Arc::ptr_eq(old, &place.mount)) {
                place.mount = Arc::clone(new);
            }
        }
        if foreign {
            for (_, new) in pairs.iter().skip(1) {
                new.locked.store(true, Ordering::Release);
            }
        }
        Ok(MountNamespace::around(ino, Arc::clone(user_ns), Arc::clone(&self.vfs), root))
    }
}

impl Drop for MountNamespace {
    fn drop(&mut self) {
        // The last user may hold other locks only outside `MountTable`.
        let root = Arc::clone(self.root.get_mut());
        let change = change();
        let gone = root.subtree();
        root.dismantle();
        drop(change);
        drop(gone);
    }
}
