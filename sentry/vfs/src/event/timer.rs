//! Timers of the sandbox: one thread that sleeps until the next expiry, and for ever when none is armed.
//!
//! The queue has rank `Timer`; targets are told without it. The thread is made by the first `arm`.

use lock::order::Timer;
use lock::{Parker, Ranked};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// Something that wants to be told when a time has come.
pub trait TimerTarget: Send + Sync {
    /// The armed time has passed. Returns when to come again. Must not block; may take locks from
    /// `FileObject` inwards.
    fn expire(&self, now: Instant) -> Option<Instant>;
}

/// Names one target in the queue, over re-arms.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct TimerId(u64);

#[derive(Default)]
struct Queue {
    by_time: BTreeMap<(Instant, TimerId), Weak<dyn TimerTarget>>,
    by_id: BTreeMap<TimerId, Instant>,
    // The timer being told right now: an `arm` or `disarm` of it in between wins over its return value.
    telling: Option<TimerId>,
    changed: bool,
    started: bool,
    // Nothing but this timer fires.
    held: Option<TimerId>,
}

/// Whether timers fire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// When their time comes.
    Free,
    /// Not until they are free again; then those whose time has passed do.
    Held,
}

impl Queue {
    fn remove(&mut self, id: TimerId) {
        if let Some(at) = self.by_id.remove(&id) {
            self.by_time.remove(&(at, id));
        }
        if self.telling == Some(id) {
            self.changed = true;
        }
    }
    /// The next to fire.
    fn first(&self) -> Option<(Instant, TimerId)> {
        match self.held {
            None => self.by_time.first_key_value().map(|(key, _)| *key),
            Some(only) => self.by_id.get(&only).map(|at| (*at, only)),
        }
    }
    fn insert(&mut self, at: Instant, id: TimerId, target: Weak<dyn TimerTarget>) {
        self.by_id.insert(id, at);
        self.by_time.insert((at, id), target);
    }
}

/// The timer queue.
#[derive(Default)]
pub struct Timers {
    queue: Ranked<Timer, Queue>,
    parker: Parker,
    next: AtomicU64,
}

impl std::fmt::Debug for Timers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Timers")
    }
}

static TIMERS: std::sync::LazyLock<Arc<Timers>> = std::sync::LazyLock::new(|| Arc::new(Timers::default()));

/// The sandbox's timers.
#[must_use]
pub fn timers() -> &'static Arc<Timers> {
    &TIMERS
}

impl Timers {
    /// A name for a new timer.
    pub fn new_id(&self) -> TimerId {
        TimerId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Tells `target` at `at`; replaces an earlier `arm` of the same id.
    pub fn arm(self: &Arc<Self>, id: TimerId, at: Instant, target: Weak<dyn TimerTarget>) {
        let mut queue = self.queue.lock();
        queue.remove(id);
        let first = queue.first().is_none_or(|(earliest, _)| at < earliest);
        queue.insert(at, id, target);
        let start = !queue.started;
        queue.started = true;
        drop(queue);
        if start {
            let timers = Arc::clone(self);
            let spawned = std::thread::Builder::new()
                .name("timers".into())
                .stack_size(128 * 1024)
                .spawn(move || timers.run());
            if spawned.is_err() {
                self.queue.lock().started = false;
            }
        } else if first {
            self.parker.unpark();
        }
    }

    /// Takes a timer off. It may be in the middle of being told.
    pub fn disarm(&self, id: TimerId) {
        self.queue.lock().remove(id);
    }

    /// Holds all timers back, or lets them fire. What [`later`] was given is done all the same.
    pub fn hold(&self, hold: Hold) {
        self.queue.lock().held = match hold {
            Hold::Free => None,
            Hold::Held => Some(LATER.1),
        };
        self.parker.unpark();
    }

    fn run(&self) {
        loop {
            let mut queue = self.queue.lock();
            let now = Instant::now();
            let next = queue.first();
            match next {
                Some((at, id)) if at <= now => {
                    let target = queue.by_time.remove(&(at, id));
                    queue.by_id.remove(&id);
                    queue.telling = Some(id);
                    queue.changed = false;
                    drop(queue);
                    let strong = target.as_ref().and_then(Weak::upgrade);
                    let again = strong.as_ref().and_then(|t| t.expire(now));
                    drop(strong);
                    crate::sigio::flush();
                    let mut queue = self.queue.lock();
                    queue.telling = None;
                    if let (Some(again), Some(target), false) = (again, target, queue.changed) {
                        queue.insert(again, id, target);
                    }
                }
                other => {
                    drop(queue);
                    let _ = self.parker.park(other.map(|(at, _)| at));
                }
            }
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Later(Ranked<lock::order::Leaf, Vec<Job>>);

impl TimerTarget for Later {
    fn expire(&self, _now: Instant) -> Option<Instant> {
        let jobs = std::mem::take(&mut *self.0.lock());
        for job in jobs {
            job();
        }
        None
    }
}

static LATER: std::sync::LazyLock<(Arc<Later>, TimerId)> =
    std::sync::LazyLock::new(|| (Arc::default(), timers().new_id()));

/// Runs `job` on the timer thread, soon: for what must not be done under the caller's locks.
pub fn later(job: impl FnOnce() + Send + 'static) {
    let (queue, id) = &*LATER;
    queue.0.lock().push(Box::new(job));
    let target: Arc<dyn TimerTarget> = queue.clone();
    timers().arm(*id, Instant::now(), Arc::downgrade(&target));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    struct Count(Ranked<lock::order::FileObject, u32>);
    impl TimerTarget for Count {
        fn expire(&self, now: Instant) -> Option<Instant> {
            let mut n = self.0.lock();
            *n += 1;
            (*n < 3).then(|| now + Duration::from_millis(2))
        }
    }

    #[test]
    fn repeats_and_disarms() {
        let count = Arc::new(Count(Ranked::new(0)));
        let weak: Weak<dyn TimerTarget> = Arc::downgrade(&(count.clone() as Arc<dyn TimerTarget>));
        let timers = timers();
        timers.arm(timers.new_id(), Instant::now() + Duration::from_millis(2), weak.clone());
        let never = timers.new_id();
        timers.arm(never, Instant::now() + Duration::from_millis(30), weak);
        timers.disarm(never);
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(*count.0.lock(), 3);
    }
}
