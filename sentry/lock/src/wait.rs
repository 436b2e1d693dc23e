//! Wait queues: who wants to hear of which events on an object.
//!
//! Rank `WaitQueueInner`. Wakers call `wake` after the state change is visible; waiters register
//! first and look at the state second, so no wake-up falls between.

use crate::order::WaitQueueInner;
use crate::ranked::Ranked;
use abi::poll::Events;
use smallvec::SmallVec;
use std::sync::{Arc, Weak};

/// Something that can be told of events: a sleeping task, an epoll instance.
pub trait WakeTarget: Send + Sync {
    /// `events` happened. Must not block. The waker may hold the lock of the object that changed, so
    /// only `WaitQueueInner` and `Leaf` may be taken here.
    fn wake(&self, events: Events);
}

/// One registration: a target, and the events it wants.
pub struct WaitEntry {
    target: Weak<dyn WakeTarget>,
    events: Events,
    exclusive: bool,
}

impl WaitEntry {
    /// A registration that is woken with all others.
    #[must_use]
    pub fn new(target: Weak<dyn WakeTarget>, events: Events) -> Arc<WaitEntry> {
        Arc::new(WaitEntry { target, events, exclusive: false })
    }
    /// A registration of which `wake` tells only one (accept, EPOLLEXCLUSIVE).
    #[must_use]
    pub fn exclusive(target: Weak<dyn WakeTarget>, events: Events) -> Arc<WaitEntry> {
        Arc::new(WaitEntry { target, events, exclusive: true })
    }
}

impl std::fmt::Debug for WaitEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WaitEntry({:?})", self.events)
    }
}

/// The registrations on one object.
#[derive(Debug, Default)]
pub struct WaitQueue {
    entries: Ranked<WaitQueueInner, Vec<Arc<WaitEntry>>>,
    // Read without the lock: an object that nobody waits for costs its writers one load.
    count: std::sync::atomic::AtomicUsize,
}

impl WaitQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> WaitQueue {
        WaitQueue { entries: Ranked::new(Vec::new()), count: std::sync::atomic::AtomicUsize::new(0) }
    }

    /// Adds a registration. The same entry may be on several queues.
    pub fn register(&self, entry: &Arc<WaitEntry>) {
        let mut entries = self.entries.lock();
        entries.push(Arc::clone(entry));
        self.count.store(entries.len(), std::sync::atomic::Ordering::SeqCst);
    }

    /// Takes a registration off; no effect when it is not there.
    pub fn unregister(&self, entry: &Arc<WaitEntry>) {
        let mut entries = self.entries.lock();
        entries.retain(|e| !Arc::ptr_eq(e, entry));
        self.count.store(entries.len(), std::sync::atomic::Ordering::SeqCst);
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.count.load(std::sync::atomic::Ordering::SeqCst) == 0
    }

    /// Tells every shared registration that wants one of `events` (or ERR, HUP), and the first exclusive one.
    pub fn wake(&self, events: Events) {
        if self.is_empty() {
            return;
        }
        let mut targets: SmallVec<[Arc<dyn WakeTarget>; 4]> = SmallVec::new();
        let mut entries = self.entries.lock();
        let mut exclusive_told = None;
        let mut dead = false;
        for (at, entry) in entries.iter().enumerate() {
            if !(entry.events | Events::ALWAYS).intersects(events) {
                continue;
            }
            if entry.exclusive && exclusive_told.is_some() {
                continue;
            }
            if let Some(target) = entry.target.upgrade() {
                targets.push(target);
                if entry.exclusive {
                    exclusive_told = Some(at);
                }
            } else {
                dead = true;
            }
        }
        // Round robin among exclusive waiters.
        if let Some(at) = exclusive_told {
            let entry = entries.remove(at);
            entries.push(entry);
        }
        // An epoll instance that went away leaves its registrations behind.
        if dead {
            entries.retain(|e| e.target.strong_count() > 0);
            self.count.store(entries.len(), std::sync::atomic::Ordering::SeqCst);
        }
        drop(entries);
        // Outside the lock: an epoll instance passes the event on to its own queue.
        for target in targets {
            target.wake(events);
        }
    }
}
