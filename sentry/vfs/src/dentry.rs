//! The dentry cache: names of one file system's tree, positive and negative.
//!
//! A child holds its parent; a parent only knows its children weakly. What keeps an unused dentry alive is
//! the cache ([`trim`]), a clock of bounded size, so dropping a dentry there forgets it and nothing
//! else. A directory's dentry is unique while it lives. Changes of a directory's names hold its
//! `TreeDir` lock; cached look-ups take only `DentryNames`, shared.

use crate::caller::Caller;
use crate::inode::{DentryHint, Inode};
use crate::inode_state::InodeKey;
use abi::fs::FileType;
use abi::{Errno, SysResult};
use lock::{Ranked, RankedGuard, RankedRw, order};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// How many unused dentries the cache keeps.
pub const CACHE_LIMIT: usize = 16 * 1024;

const NO_SLOT: u32 = u32::MAX;

/// A name in a directory, and what it names (`None`: known not to exist).
pub struct Dentry {
    inode: Option<Arc<dyn Inode>>,
    kind: Option<FileType>,
    hint: DentryHint,
    super_id: u64,
    links: RankedRw<order::DentryLinks, Links>,
    names: RankedRw<order::DentryNames, HashMap<Arc<[u8]>, Weak<Dentry>>>,
    changes: Ranked<order::TreeDir, ()>,
    mounted: AtomicU32,
    dead: AtomicBool,
    /// O_TMPFILE with O_EXCL.
    nameless: bool,
    used: AtomicBool,
    slot: AtomicU32,
    key: std::sync::OnceLock<InodeKey>,
}

struct Links {
    parent: Option<Arc<Dentry>>,
    name: Arc<[u8]>,
}

impl std::fmt::Debug for Dentry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dentry({:?})", String::from_utf8_lossy(&self.name()))
    }
}

/// Whether link(2) may name an unnamed file later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Naming {
    /// It may.
    Allowed,
    /// It stays without (O_TMPFILE with O_EXCL).
    Never,
}

impl Dentry {
    fn build(
        inode: Option<Arc<dyn Inode>>,
        parent: Option<Arc<Dentry>>,
        name: Arc<[u8]>,
        super_id: u64,
    ) -> Dentry {
        let kind = inode.as_ref().map(|i| i.kind());
        let hint = match (&inode, kind) {
            (Some(i), Some(FileType::Directory)) => i.child_hint(),
            _ => DentryHint::Exclusive,
        };
        Dentry {
            inode,
            kind,
            hint,
            super_id,
            links: RankedRw::new(Links { parent, name }),
            names: RankedRw::default(),
            changes: Ranked::new(()),
            mounted: AtomicU32::new(0),
            dead: AtomicBool::new(false),
            nameless: false,
            used: AtomicBool::new(false),
            slot: AtomicU32::new(NO_SLOT),
            key: std::sync::OnceLock::new(),
        }
    }
    /// The root of a file system, or a dentry outside every tree (pipes, memfds) with its shown name.
    #[must_use]
    pub fn root(inode: Arc<dyn Inode>, super_id: u64, name: &[u8]) -> Arc<Dentry> {
        Arc::new(Dentry::build(Some(inode), None, Arc::from(name), super_id))
    }
    /// The inode; `ENOENT` for a negative dentry.
    pub fn inode(&self) -> SysResult<&Arc<dyn Inode>> {
        self.inode.as_ref().ok_or(Errno::ENOENT)
    }
    /// Type of the inode; `None` for a negative dentry.
    #[must_use]
    pub fn kind(&self) -> Option<FileType> {
        self.kind
    }
    /// Whether the name is known not to exist.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        self.inode.is_none()
    }
    /// Device and number of its inode, where they can be had.
    #[must_use]
    pub fn key(&self, by: Option<&Caller<'_>>) -> Option<InodeKey> {
        if let Some(key) = self.key.get() {
            return Some(*key);
        }
        let inode = self.inode.as_ref()?;
        let ino = match (inode.ino(), by) {
            (Some(ino), _) => ino,
            (None, Some(by)) => inode.attr(by).ok()?.ino,
            (None, None) => return None,
        };
        Some(*self.key.get_or_init(|| (inode.fs().dev(), ino)))
    }
    /// Whether this is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == Some(FileType::Directory)
    }
    /// Its name in its parent.
    #[must_use]
    pub fn name(&self) -> Arc<[u8]> {
        Arc::clone(&self.links.read().name)
    }
    /// Its directory; `None` for a root. Stays after removal.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.links.read().parent.clone()
    }
    /// Whether the name was removed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }
    /// Says that no name leads here.
    pub fn mark_dead(&self) {
        self.dead.store(true, Ordering::Release);
    }
    /// How many mounts sit on it, in all namespaces.
    #[must_use]
    pub fn mounted(&self) -> u32 {
        self.mounted.load(Ordering::Acquire)
    }
    /// Which file system instance it belongs to.
    #[must_use]
    pub fn super_id(&self) -> u64 {
        self.super_id
    }
    /// Whether `self` is `other` or below it.
    #[must_use]
    pub fn is_below(self: &Arc<Dentry>, other: &Arc<Dentry>) -> bool {
        let mut at = Arc::clone(self);
        loop {
            if Arc::ptr_eq(&at, other) {
                return true;
            }
            let Some(up) = at.parent() else { return false };
            at = up;
        }
    }
    /// Keeps other changes of this directory's names out.
    pub fn lock(&self) -> RankedGuard<'_, ()> {
        self.changes.lock()
    }
    /// A second directory's lock: below the first, or ordered by the caller.
    pub fn lock_second(&self) -> RankedGuard<'_, ()> {
        self.changes.lock_same_rank()
    }

    /// Whether others may change the names below.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.hint == DentryHint::Shared
    }
    /// The child as the cache has it. With a shared hint it may be out of date.
    #[must_use]
    pub fn cached(&self, name: &[u8]) -> Option<Arc<Dentry>> {
        let names = self.names.read();
        let found = names.get(name).and_then(Weak::upgrade);
        drop(names);
        if let Some(child) = &found
            && !child.used.load(Ordering::Relaxed)
        {
            child.used.store(true, Ordering::Relaxed);
        }
        found
    }
    /// How many of the names, one below the other, the cache has.
    #[must_use]
    pub fn cached_depth(self: &Arc<Dentry>, names: &[&[u8]]) -> usize {
        let mut at = Arc::clone(self);
        for (depth, name) in names.iter().enumerate() {
            let Some(child) = at.cached(name) else { return depth };
            at = child;
        }
        names.len()
    }
    /// The child if the cache knows it for sure.
    #[must_use]
    pub fn known(&self, name: &[u8], by: &Caller<'_>) -> Option<Arc<Dentry>> {
        self.cached(name).filter(|child| self.trusted(name, child, by))
    }
    fn trusted(&self, name: &[u8], child: &Arc<Dentry>, by: &Caller<'_>) -> bool {
        match self.hint {
            DentryHint::Exclusive => true,
            DentryHint::Never => child.mounted() > 0,
            DentryHint::Shared => {
                child.mounted() > 0
                    || match (&self.inode, &child.inode) {
                        (Some(dir), Some(inode)) => dir.revalidate(name, inode, by),
                        _ => false,
                    }
            }
        }
    }
    /// The child, positive or negative, from the cache or the file system.
    pub fn lookup(self: &Arc<Dentry>, name: &[u8], by: &Caller<'_>) -> SysResult<Arc<Dentry>> {
        if let Some(child) = self.cached(name)
            && self.trusted(name, &child, by)
        {
            return Ok(child);
        }
        let _changes = self.lock();
        self.lookup_locked(name, by)
    }
    /// `lookup` for a caller that holds this directory's lock.
    pub fn lookup_locked(self: &Arc<Dentry>, name: &[u8], by: &Caller<'_>) -> SysResult<Arc<Dentry>> {
        if let Some(child) = self.cached(name) {
            if self.trusted(name, &child, by) {
                return Ok(child);
            }
            if self.hint == DentryHint::Shared {
                self.forget(&child);
            }
        }
        if self.is_dead() {
            return Err(Errno::ENOENT);
        }
        match self.inode()?.lookup(name, by) {
            Ok(inode) => Ok(self.adopt(name, Some(inode))),
            Err(Errno::ENOENT) => Ok(self.adopt(name, None)),
            Err(error) => Err(error),
        }
    }
    /// Several components by one question, where the file system can; the caller found the first missing in
    /// the cache. Says whether anything was learnt: the walk then goes on by the cache.
    pub fn prefetch(self: &Arc<Dentry>, names: &[&[u8]], by: &Caller<'_>) -> SysResult<bool> {
        let _changes = self.lock();
        let Some(first) = names.first() else { return Ok(false) };
        if self.cached(first).is_some() || self.is_dead() || self.hint == DentryHint::Never {
            return Ok(false);
        }
        let Some(found) = self.inode()?.lookup_path(names, by) else { return Ok(false) };
        let found = found?;
        // Nobody works below a directory that has no dentry: only this directory's lock is needed.
        let mut dir = Arc::clone(self);
        let complete = found.len();
        for (name, inode) in names.iter().zip(found) {
            dir = dir.adopt(name, Some(inode));
            if !dir.is_dir() {
                return Ok(true);
            }
        }
        if let Some(missing) = names.get(complete) {
            dir.adopt(missing, None);
        }
        Ok(true)
    }
    /// Makes a dentry for `inode` and caches it. The caller holds this directory's lock.
    pub fn adopt(self: &Arc<Dentry>, name: &[u8], inode: Option<Arc<dyn Inode>>) -> Arc<Dentry> {
        let name: Arc<[u8]> = Arc::from(name);
        let child = Arc::new(Dentry::build(inode, Some(Arc::clone(self)), Arc::clone(&name), self.super_id));
        let keep = match self.hint {
            DentryHint::Exclusive => true,
            DentryHint::Shared => child.inode.is_some(),
            DentryHint::Never => false,
        };
        if keep {
            let old = self.names.write().insert(name, Arc::downgrade(&child));
            if let Some(old) = old.and_then(|o| o.upgrade()) {
                evict(&old);
            }
            cache(&child);
        }
        child
    }
    /// Takes a name out of the cache without saying that it is gone.
    pub fn forget(&self, child: &Arc<Dentry>) {
        let name = child.name();
        let mut names = self.names.write();
        if names.get(&name).is_some_and(|w| std::ptr::eq(w.as_ptr(), Arc::as_ptr(child))) {
            names.remove(&name);
        }
        drop(names);
        evict(child);
    }
    /// The name is gone: unlink, rmdir, or replaced by a rename. Leaves a negative entry.
    pub fn removed(self: &Arc<Dentry>, child: &Arc<Dentry>) {
        self.killed(child);
        if self.hint == DentryHint::Exclusive {
            self.adopt(&child.name(), None);
        }
    }
    /// The name is gone and another takes its place.
    pub fn killed(&self, child: &Arc<Dentry>) {
        child.dead.store(true, Ordering::Release);
        self.forget(child);
    }
    /// A dentry below this directory that no name leads to (O_TMPFILE): dead from the start.
    #[must_use]
    pub fn unnamed(self: &Arc<Dentry>, name: &[u8], inode: Arc<dyn Inode>, later: Naming) -> Arc<Dentry> {
        let mut child = Dentry::build(Some(inode), Some(Arc::clone(self)), Arc::from(name), self.super_id);
        child.dead.store(true, Ordering::Release);
        child.nameless = later == Naming::Never;
        Arc::new(child)
    }
    /// Whether no name may ever be given to it.
    #[must_use]
    pub fn is_nameless(&self) -> bool {
        self.nameless
    }
    /// The file system renamed `child` of this directory to `name` of `dir`. Both are locked.
    pub fn moved(self: &Arc<Dentry>, child: &Arc<Dentry>, dir: &Arc<Dentry>, name: &[u8]) {
        let name: Arc<[u8]> = Arc::from(name);
        let old_name = child.name();
        let mut names = self.names.write();
        if names.get(&old_name).is_some_and(|w| std::ptr::eq(w.as_ptr(), Arc::as_ptr(child))) {
            names.remove(&old_name);
        }
        drop(names);
        let former = {
            let mut links = child.links.write();
            links.name = Arc::clone(&name);
            links.parent.replace(Arc::clone(dir))
        };
        drop(former);
        let old = dir.names.write().insert(name, Arc::downgrade(child));
        if let Some(old) = old.and_then(|o| o.upgrade()).filter(|o| !Arc::ptr_eq(o, child)) {
            evict(&old);
        }
    }
    /// A mount goes onto it: it and its parents must be found again by every walk.
    pub(crate) fn pin(self: &Arc<Dentry>) {
        self.mounted.fetch_add(1, Ordering::AcqRel);
        let mut at = Arc::clone(self);
        while let Some(up) = at.parent() {
            if up.hint != DentryHint::Exclusive {
                up.names.write().insert(at.name(), Arc::downgrade(&at));
                if !Arc::ptr_eq(&at, self) {
                    at.mounted.fetch_add(1, Ordering::AcqRel);
                }
            }
            at = up;
        }
    }
    /// Undoes `pin`.
    pub(crate) fn unpin(self: &Arc<Dentry>) {
        self.mounted.fetch_sub(1, Ordering::AcqRel);
        let mut at = Arc::clone(self);
        while let Some(up) = at.parent() {
            if up.hint != DentryHint::Exclusive && !Arc::ptr_eq(&at, self) {
                at.mounted.fetch_sub(1, Ordering::AcqRel);
            }
            at = up;
        }
    }
}

impl Dentry {
    /// The last that had a removed name open lets go of it.
    fn last_words(&self) {
        if self.is_dead()
            && crate::notify::active()
            && let Some(key) = self.key.get()
            && self.inode.as_ref().is_some_and(|inode| self.is_dir() || !inode.has_other_names())
        {
            crate::notify::gone(*key);
        }
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        self.last_words();
        let this: *const Dentry = self;
        let links = self.links.get_mut();
        let name = Arc::clone(&links.name);
        let Some(parent) = links.parent.take() else { return };
        let mut names = parent.names.write();
        if names.get(&name).is_some_and(|w| std::ptr::eq(w.as_ptr(), this)) {
            names.remove(&name);
        }
        drop(names);
        // A guest may nest directories as deep as it likes: unlink the chain without recursion.
        let mut next = Some(parent);
        while let Some(dentry) = next.take() {
            let Some(mut owned) = Arc::into_inner(dentry) else { return };
            let links = owned.links.get_mut();
            next = links.parent.take();
            if let Some(up) = &next {
                let mut names = up.names.write();
                if names.get(&links.name).is_some_and(|w| w.strong_count() == 0) {
                    names.remove(&links.name);
                }
            }
        }
    }
}

/// The clock: slots with a hand. Removal by slot number is immediate, as unlink must free the inode.
struct Clock {
    slots: Vec<Option<Arc<Dentry>>>,
    free: Vec<u32>,
    hand: usize,
}

static CLOCK: Ranked<order::Leaf, Clock> =
    Ranked::new(Clock { slots: Vec::new(), free: Vec::new(), hand: 0 });

fn cache(dentry: &Arc<Dentry>) {
    let mut clock = CLOCK.lock();
    let mut out = None;
    let slot = if let Some(slot) = clock.free.pop() {
        slot
    } else if clock.slots.len() < CACHE_LIMIT {
        clock.slots.push(None);
        u32::try_from(clock.slots.len() - 1).unwrap_or(NO_SLOT)
    } else {
        // Two rounds clear every mark, so a victim is found.
        let len = clock.slots.len();
        for _ in 0..2 * len {
            clock.hand = (clock.hand + 1) % len;
            let hand = clock.hand;
            let keep = match clock.slots.get(hand) {
                Some(Some(d)) => d.used.swap(false, Ordering::Relaxed),
                _ => true,
            };
            if !keep {
                break;
            }
        }
        u32::try_from(clock.hand).unwrap_or(NO_SLOT)
    };
    if let Some(place) = usize::try_from(slot).ok().and_then(|s| clock.slots.get_mut(s)) {
        dentry.slot.store(slot, Ordering::Relaxed);
        out = place.replace(Arc::clone(dentry));
        if let Some(out) = &out {
            out.slot.store(NO_SLOT, Ordering::Relaxed);
        }
    }
    drop(clock);
    drop(out);
}

fn evict(dentry: &Arc<Dentry>) {
    let mut clock = CLOCK.lock();
    let slot = dentry.slot.swap(NO_SLOT, Ordering::Relaxed);
    let mut out = None;
    if slot != NO_SLOT
        && let Some(place) = usize::try_from(slot).ok().and_then(|s| clock.slots.get_mut(s))
    {
        out = place.take();
        clock.free.push(slot);
    }
    drop(clock);
    drop(out);
}

/// Forgets every unused dentry of one file system (`Some`), or of all.
pub fn trim(super_id: Option<u64>) {
    let mut clock = CLOCK.lock();
    let mut out = Vec::new();
    for index in 0..clock.slots.len() {
        let hit = match clock.slots.get(index) {
            Some(Some(d)) => super_id.is_none_or(|id| id == d.super_id),
            _ => false,
        };
        if hit && let Some(dentry) = clock.slots.get_mut(index).and_then(Option::take) {
            dentry.slot.store(NO_SLOT, Ordering::Relaxed);
            out.push(dentry);
            clock.free.extend(u32::try_from(index));
        }
    }
    if super_id.is_none() {
        clock.slots = Vec::new();
        clock.free = Vec::new();
        clock.hand = 0;
    }
    drop(clock);
    drop(out);
}
