//! State that the kernel hangs on an inode whatever its file system: locks, the socket bound to a name,
//! writers and executors (`ETXTBSY`).
//!
//! Most inodes have none, so it lives in a side table by (device, inode number); an entry goes with its last
//! user. Hot paths look at the global counters first.

use crate::caller::Caller;
use crate::inode::Inode;
use crate::lease::InodeLeases;
use crate::locks::InodeLocks;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// What identifies an inode: device and number.
pub type InodeKey = (u64, u64);

/// The state of one inode.
pub struct InodeShared {
    /// Device and number.
    pub key: InodeKey,
    /// flock, POSIX and OFD locks.
    pub locks: InodeLocks,
    /// Leases.
    pub leases: InodeLeases,
    /// F_SET_RW_HINT, as long as somebody has the file open.
    pub write_hint: AtomicU64,
    /// Writers (positive) or executors (negative).
    pub writers: AtomicI32,
    slot: Ranked<order::Leaf, Option<Arc<dyn Any + Send + Sync>>>,
}

impl std::fmt::Debug for InodeShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InodeShared({:?})", self.key)
    }
}

const SHARDS: usize = 16;
type Shard = Ranked<order::InodeState, Option<HashMap<InodeKey, Weak<InodeShared>>>>;
static TABLE: [Shard; SHARDS] = [const { Ranked::new(None) }; SHARDS];

fn shard(key: InodeKey) -> &'static Shard {
    let index = usize::try_from((key.0 ^ key.1) % 16).unwrap_or(0);
    TABLE.get(index).unwrap_or(&TABLE[0])
}

/// Device and number of an inode.
pub fn key_of(inode: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<InodeKey> {
    Ok((inode.fs().dev(), inode.attr(by)?.ino))
}

/// The state of an inode, made when there is none.
pub fn state_of(inode: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<Arc<InodeShared>> {
    Ok(state_for(key_of(inode, by)?))
}

/// The state for a key, made when there is none.
#[must_use]
pub fn state_for(key: InodeKey) -> Arc<InodeShared> {
    let mut table = shard(key).lock();
    let map = table.get_or_insert_default();
    if let Some(state) = map.get(&key).and_then(Weak::upgrade) {
        return state;
    }
    let state = Arc::new(InodeShared {
        key,
        locks: InodeLocks::default(),
        leases: InodeLeases::default(),
        write_hint: AtomicU64::new(0),
        writers: AtomicI32::new(0),
        slot: Ranked::new(None),
    });
    map.insert(key, Arc::downgrade(&state));
    state
}

/// Every state there is (/proc/locks).
#[must_use]
pub fn all() -> Vec<Arc<InodeShared>> {
    let mut found = Vec::new();
    for shard in &TABLE {
        let table = shard.lock();
        found.extend(table.iter().flat_map(HashMap::values).filter_map(Weak::upgrade));
    }
    found
}

/// The state for a key, if there is one.
#[must_use]
pub fn existing(key: InodeKey) -> Option<Arc<InodeShared>> {
    let table = shard(key).lock();
    let found = table.as_ref()?.get(&key).and_then(Weak::upgrade);
    drop(table);
    found
}

impl InodeShared {
    /// What the inode's own kind keeps here (the socket of a bound name).
    #[must_use]
    pub fn slot(&self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.slot.lock().clone()
    }
    /// The content of the slot, filled by `make` when empty.
    pub fn slot_or(&self, make: impl FnOnce() -> Arc<dyn Any + Send + Sync>) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(self.slot.lock().get_or_insert_with(make))
    }
    /// Replaces the content of the slot.
    pub fn set_slot(&self, value: Option<Arc<dyn Any + Send + Sync>>) {
        let old = std::mem::replace(&mut *self.slot.lock(), value);
        drop(old);
    }
    /// Counts a writer; `ETXTBSY` while the file is executed.
    pub fn get_write(&self) -> SysResult<()> {
        let change = |n: i32| if n < 0 { None } else { n.checked_add(1) };
        self.writers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .map(|_| ())
            .map_err(|_| Errno::ETXTBSY)
    }
    /// Undoes `get_write`.
    pub fn put_write(&self) {
        self.writers.fetch_sub(1, Ordering::AcqRel);
    }
    /// Counts an executor; `ETXTBSY` while the file is open for writing.
    pub fn deny_write(&self) -> SysResult<()> {
        let change = |n: i32| if n > 0 { None } else { n.checked_sub(1) };
        self.writers
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .map(|_| ())
            .map_err(|_| Errno::ETXTBSY)
    }
    /// Undoes `deny_write`.
    pub fn allow_write(&self) {
        self.writers.fetch_add(1, Ordering::AcqRel);
    }
}

impl Drop for InodeShared {
    fn drop(&mut self) {
        let mut table = shard(self.key).lock();
        if let Some(map) = table.as_mut()
            && map.get(&self.key).is_some_and(|w| w.strong_count() == 0)
        {
            map.remove(&self.key);
        }
    }
}
