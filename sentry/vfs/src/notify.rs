//! Events on inodes, as inotify(7) tells them. Operations call [`event`] and its kin after they succeeded;
//! while nobody watches anything that is one load.

use crate::caller::Caller;
use crate::dentry::Dentry;
use crate::inode_state::{self, InodeKey};
use lock::{Ranked, order};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

bitflags::bitflags! {
    /// `IN_*` of inotify(7).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Mask: u32 {
        /// Read.
        const ACCESS = 0x1;
        /// Written or truncated.
        const MODIFY = 0x2;
        /// Metadata changed.
        const ATTRIB = 0x4;
        /// Closed by a writer.
        const CLOSE_WRITE = 0x8;
        /// Closed by a reader.
        const CLOSE_NOWRITE = 0x10;
        /// Opened.
        const OPEN = 0x20;
        /// Renamed away.
        const MOVED_FROM = 0x40;
        /// Renamed here.
        const MOVED_TO = 0x80;
        /// Made in a watched directory.
        const CREATE = 0x100;
        /// Removed from a watched directory.
        const DELETE = 0x200;
        /// The watched inode itself is gone.
        const DELETE_SELF = 0x400;
        /// The watched inode itself was renamed.
        const MOVE_SELF = 0x800;
        /// The file system was unmounted.
        const UNMOUNT = 0x2000;
        /// Events were lost.
        const Q_OVERFLOW = 0x4000;
        /// The watch is gone.
        const IGNORED = 0x8000;
        /// The subject is a directory.
        const ISDIR = 0x4000_0000;
    }
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// What happened.
    pub mask: Mask,
    /// The name in the watched directory; `None` for events on the watched inode itself.
    pub name: Option<&'a [u8]>,
    /// Ties MOVED_FROM to MOVED_TO.
    pub cookie: u32,
}

/// Hears the events of one inode. Called without locks of the watch list; may be called under `TreeDir`.
pub trait Watch: Send + Sync {
    /// Something happened.
    fn notify(&self, event: &Event<'_>);
}

/// The watches on one inode.
#[derive(Default)]
pub struct Watches {
    list: Ranked<order::Leaf, Vec<Arc<dyn Watch>>>,
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
static COOKIE: AtomicU32 = AtomicU32::new(1);

/// Whether anybody watches anything.
#[must_use]
pub fn active() -> bool {
    COUNT.load(Ordering::Relaxed) > 0
}

/// A fresh cookie for a pair of rename events.
#[must_use]
pub fn next_cookie() -> u32 {
    COOKIE.fetch_add(1, Ordering::Relaxed)
}

impl Watches {
    /// Adds a watch; the caller keeps the `InodeShared` alive as long as it watches.
    pub fn add(&self, watch: Arc<dyn Watch>) {
        self.list.lock().push(watch);
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
    /// Takes a watch off; says whether it was there.
    pub fn remove(&self, watch: &Arc<dyn Watch>) -> bool {
        let mut list = self.list.lock();
        let Some(at) = list.iter().position(|w| Arc::ptr_eq(w, watch)) else { return false };
        let gone = list.swap_remove(at);
        drop(list);
        drop(gone);
        COUNT.fetch_sub(1, Ordering::Relaxed);
        true
    }
    /// The watches now.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<dyn Watch>> {
        self.list.lock().clone()
    }
    fn tell(&self, event: &Event<'_>) {
        for watch in self.all() {
            watch.notify(event);
        }
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        COUNT.fetch_sub(self.list.get_mut().len(), Ordering::Relaxed);
    }
}

/// Tells the watches of the inode `key`.
pub fn tell(key: InodeKey, event: &Event<'_>) {
    if let Some(state) = inode_state::existing(key) {
        state.watches.tell(event);
    }
}

/// An event on an inode: told to its own watches, and with its name to those of its directory.
pub fn event(dentry: &Arc<Dentry>, mask: Mask, by: Option<&Caller<'_>>) {
    if !active() {
        return;
    }
    let mask = if dentry.is_dir() { mask | Mask::ISDIR } else { mask };
    if let Some(key) = dentry.key(by) {
        tell(key, &Event { mask, name: None, cookie: 0 });
    }
    if let Some(parent) = dentry.parent().filter(|_| !dentry.is_dead())
        && let Some(key) = parent.key(by)
    {
        tell(key, &Event { mask, name: Some(&dentry.name()), cookie: 0 });
    }
}

/// An event on the name `name` of directory `dir` (create, delete, move).
pub fn name_event(dir: &Arc<Dentry>, name: &[u8], mask: Mask, cookie: u32, by: &Caller<'_>) {
    if active()
        && let Some(key) = dir.key(Some(by))
    {
        tell(key, &Event { mask, name: Some(name), cookie });
    }
}

/// An event on an inode itself only.
pub fn self_event(dentry: &Arc<Dentry>, mask: Mask, by: &Caller<'_>) {
    if active()
        && let Some(key) = dentry.key(Some(by))
    {
        let mask = if dentry.is_dir() { mask | Mask::ISDIR } else { mask };
        tell(key, &Event { mask, name: None, cookie: 0 });
    }
}
