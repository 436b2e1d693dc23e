//! Events on inodes, as inotify(7) tells them. Operations call [`event`] and its kin after they succeeded;
//! while nobody watches anything that is one load. The lists are kept by (device, inode number) as long as
//! somebody watches.

use crate::caller::Caller;
use crate::dentry::Dentry;
use crate::event::inotify::{DirEvents, Name};
pub use crate::event::inotify::{InotifyMask as Mask, WatchList, next_cookie};
use crate::inode_state::InodeKey;
use crate::mount::Location;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static LISTS: Ranked<order::InodeState, Option<HashMap<InodeKey, Arc<WatchList>>>> = Ranked::new(None);
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Whether anybody watches anything.
#[must_use]
pub fn active() -> bool {
    COUNT.load(Ordering::Relaxed) > 0
}

/// The list for inotify_add_watch(2) on a place, and the inode's device and number.
pub fn watch_list(at: &Location, by: &Caller<'_>) -> SysResult<(Arc<WatchList>, InodeKey)> {
    let key = at.dentry.key(Some(by)).ok_or(Errno::EIO)?;
    let mut guard = LISTS.lock();
    let lists = guard.get_or_insert_default();
    if lists.len() >= 64 && lists.len().is_power_of_two() {
        lists.retain(|_, list| Arc::strong_count(list) > 1 || !list.is_empty());
    }
    let list = Arc::clone(lists.entry(key).or_default());
    COUNT.store(lists.len(), Ordering::Relaxed);
    Ok((list, key))
}

fn find(key: InodeKey) -> Option<Arc<WatchList>> {
    let mut guard = LISTS.lock();
    let lists = guard.as_mut()?;
    let list = lists.get(&key)?;
    if list.is_empty() && Arc::strong_count(list) == 1 {
        // Its last watch went; nobody else can add one to a list only we know.
        lists.remove(&key);
        COUNT.store(lists.len(), Ordering::Relaxed);
        return None;
    }
    Some(Arc::clone(list))
}

/// Tells the watches of the inode `key`.
pub fn tell(key: InodeKey, mask: Mask, cookie: u32, name: &[u8]) {
    if let Some(list) = find(key) {
        list.notify(mask, cookie, name);
    }
}

fn of(dentry: &Dentry, mask: Mask) -> Mask {
    if dentry.is_dir() { mask | Mask::ISDIR } else { mask }
}

/// An event on an inode: told to its own watches, and with its name to those of its directory.
pub fn event(dentry: &Arc<Dentry>, mask: Mask, by: Option<&Caller<'_>>) {
    if !active() {
        return;
    }
    let mask = of(dentry, mask);
    if let Some(parent) = dentry.parent()
        && let Some(key) = parent.key(by)
        && let Some(list) = find(key)
    {
        let name = if dentry.is_dead() { Name::Unlinked } else { Name::There };
        list.notify_entry(mask, &dentry.name(), name);
    }
    if let Some(key) = dentry.key(by) {
        tell(key, mask, 0, &[]);
    }
}

/// An event on the name `name` of directory `dir` (create, delete, move).
pub fn name_event(dir: &Arc<Dentry>, name: &[u8], mask: Mask, cookie: u32, by: &Caller<'_>) {
    if active()
        && let Some(key) = dir.key(Some(by))
    {
        tell(key, mask, cookie, name);
    }
}

/// An event on an inode itself only.
pub fn self_event(dentry: &Arc<Dentry>, mask: Mask, by: &Caller<'_>) {
    if active()
        && let Some(key) = dentry.key(Some(by))
    {
        tell(key, of(dentry, mask), 0, &[]);
    }
}

/// An entry of directory `dir` got another name in the same directory (DN_RENAME of fcntl(2)).
pub fn renamed_within(dir: &Arc<Dentry>, by: &Caller<'_>) {
    if active()
        && let Some(key) = dir.key(Some(by))
        && let Some(list) = find(key)
    {
        list.tell_dir(DirEvents::RENAME);
    }
}

/// The inode was renamed: MOVE_SELF, which says nothing of its kind.
pub fn moved(dentry: &Arc<Dentry>, by: &Caller<'_>) {
    if active()
        && let Some(key) = dentry.key(Some(by))
    {
        tell(key, Mask::MOVE_SELF, 0, &[]);
    }
}

/// A name of the inode was removed. DELETE_SELF follows with the last that has it open.
pub fn doomed(dentry: &Arc<Dentry>, by: &Caller<'_>) {
    if active() {
        // So that its drop, which has no caller, finds its watches.
        let _ = dentry.key(Some(by));
    }
}

static GONE: Ranked<order::Leaf, Vec<InodeKey>> = Ranked::new(Vec::new());
static WAITING: AtomicBool = AtomicBool::new(false);

/// The inode is gone: to be told by [`flush`], since whoever drops it may hold any lock.
pub(crate) fn gone(key: InodeKey) {
    GONE.lock().push(key);
    WAITING.store(true, Ordering::Release);
}

/// Tells of inodes that are gone: DELETE_SELF, and their watches end. One load when there are none.
pub fn flush() {
    if !WAITING.load(Ordering::Relaxed) {
        return;
    }
    let gone = {
        let mut gone = GONE.lock();
        WAITING.store(false, Ordering::Release);
        std::mem::take(&mut *gone)
    };
    for list in gone.into_iter().filter_map(find) {
        list.end(Mask::DELETE_SELF);
    }
}
