//! The buckets.

use crate::task::TaskShared;
use lock::Ranked;
use lock::order::{Futex, Leaf};
use mm::FutexKey;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// Buckets: a power of two.
const BUCKETS: usize = 256;

/// Identity of a futex word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key(FutexKey);

impl Key {
    /// From the memory manager's.
    #[must_use]
    pub fn new(key: FutexKey) -> Key {
        Key(key)
    }
    fn bucket(&self) -> usize {
        let (space, word) = match self.0 {
            FutexKey::Private { space, addr } => (space, addr),
            FutexKey::Shared { object, offset } => (object.dev.rotate_left(32) ^ object.ino, offset),
        };
        let mut hash = (word >> 2).wrapping_add(space.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(hash >> 56).unwrap_or(0) % BUCKETS
    }
}

impl Default for Key {
    fn default() -> Key {
        Key(FutexKey::Private { space: 0, addr: 0 })
    }
}

const IDLE: u32 = 0;
const QUEUED: u32 = 1;
const WOKEN: u32 = 2;

/// One task's place in a bucket; a task re-uses it from wait to wait.
pub struct Waiter {
    task: Weak<TaskShared>,
    state: AtomicU32,
    bitset: AtomicU32,
    /// Changes when it is requeued: read again under the lock of the bucket it names.
    key: Ranked<Leaf, Key>,
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Waiter({})", self.state.load(Ordering::Relaxed))
    }
}

impl Waiter {
    /// For one task.
    #[must_use]
    pub fn new(task: &Arc<TaskShared>) -> Arc<Waiter> {
        Arc::new(Waiter {
            task: Arc::downgrade(task),
            state: AtomicU32::new(IDLE),
            bitset: AtomicU32::new(u32::MAX),
            key: Ranked::new(Key::default()),
        })
    }
    /// Whether a waker took it out of its bucket.
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.state.load(Ordering::Acquire) == WOKEN
    }
    /// Tells it, after it left its bucket.
    pub fn grant(&self) {
        self.state.store(WOKEN, Ordering::Release);
        if let Some(task) = self.task.upgrade() {
            task.parker().unpark();
        }
    }
    /// Number of the waiting thread in its own pid namespace.
    #[must_use]
    pub fn tid(&self) -> Option<u32> {
        Some(self.task.upgrade()?.published.lock().pid.own())
    }
    /// The word it waits for now.
    #[must_use]
    pub fn key(&self) -> Key {
        *self.key.lock()
    }
}

/// All futexes of a sandbox.
pub struct FutexTable {
    buckets: Box<[Ranked<Futex, Vec<Arc<Waiter>>>]>,
}

impl Default for FutexTable {
    fn default() -> FutexTable {
        let buckets = std::iter::repeat_with(|| Ranked::new(Vec::new())).take(BUCKETS).collect();
        FutexTable { buckets }
    }
}

impl std::fmt::Debug for FutexTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FutexTable")
    }
}

impl FutexTable {
    fn at(&self, key: &Key) -> Option<&Ranked<Futex, Vec<Arc<Waiter>>>> {
        self.buckets.get(key.bucket())
    }
    /// Queues a waiter for `key`.
    pub fn enqueue(&self, waiter: &Arc<Waiter>, key: Key, bitset: u32) {
        let Some(bucket) = self.at(&key) else { return };
        let mut list = bucket.lock();
        *waiter.key.lock() = key;
        waiter.bitset.store(bitset, Ordering::Relaxed);
        waiter.state.store(QUEUED, Ordering::Release);
        list.push(Arc::clone(waiter));
    }
    /// Takes a waiter out. Returns false when a waker was first.
    pub fn dequeue(&self, waiter: &Arc<Waiter>) -> bool {
        loop {
            let key = waiter.key();
            let Some(bucket) = self.at(&key) else { return false };
            let mut list = bucket.lock();
            if waiter.key() != key {
                // Requeued in between.
                continue;
            }
            let Some(at) = list.iter().position(|other| Arc::ptr_eq(other, waiter)) else {
                return false;
            };
            list.remove(at);
            waiter.state.store(IDLE, Ordering::Relaxed);
            return true;
        }
    }
    /// Wakes up to `count` waiters of `key` whose bitset meets `bitset`; returns how many.
    pub fn wake(&self, key: Key, count: usize, bitset: u32) -> usize {
        let woken = self.take(key, count, bitset);
        for waiter in &woken {
            waiter.grant();
        }
        woken.len()
    }
    /// Takes up to `count` waiters out without telling them.
    pub fn take(&self, key: Key, count: usize, bitset: u32) -> smallvec::SmallVec<[Arc<Waiter>; 4]> {
        let mut taken = smallvec::SmallVec::new();
        let Some(bucket) = self.at(&key) else { return taken };
        let mut list = bucket.lock();
        let mut at = 0;
        while taken.len() < count {
            let Some(waiter) = list.get(at) else { break };
            if waiter.bitset.load(Ordering::Relaxed) & bitset != 0 && waiter.key() == key {
                taken.push(list.remove(at));
            } else {
                at += 1;
            }
        }
        taken
    }
    /// How many wait for `key`.
    #[must_use]
    pub fn waiting(&self, key: Key) -> usize {
        self.at(&key).map_or(0, |bucket| bucket.lock().iter().filter(|w| w.key() == key).count())
    }
    /// Wakes up to `wake` waiters of `from` and moves up to `limit` others to `to`. Returns both counts.
    pub fn requeue(&self, from: Key, to: Key, wake: usize, limit: usize) -> (usize, usize) {
        let woken = self.wake(from, wake, u32::MAX);
        let moved = self.take(from, limit, u32::MAX);
        let Some(bucket) = self.at(&to) else { return (woken, 0) };
        let count = moved.len();
        let mut list = bucket.lock();
        for waiter in moved {
            *waiter.key.lock() = to;
            list.push(waiter);
        }
        (woken, count)
    }
}
