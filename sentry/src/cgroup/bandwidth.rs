//! `cpu.max` of nested groups: a group that has used its time rests until the next period.
//!
//! The container's own limit is the host's to enforce. For the groups that guests make, one thread looks at what they
//! have used when they could have used it up, and has their threads rest, as the freezer does but without breaking
//! into their sleep. What a group takes too much in a period is missing in the next. No such group, no thread.

use super::{Cgroup, NO_LIMIT};
use crate::kernel::Kernel;
use crate::process::Process;
use lock::order::Leaf;
use lock::{Parker, Ranked};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Shortest time between two looks.
const LEAST: Duration = Duration::from_millis(1);
/// Periods that a group may be idle before it is looked at again.
const IDLE_PERIODS: u32 = 4;
/// `cpu.max` in microseconds when nothing was said.
pub(super) const PERIOD_US: u64 = 100_000;

/// Processor time of a group.
#[derive(Debug)]
pub(super) struct Cpu {
    /// Per period; [`NO_LIMIT`] is without limit.
    quota_us: AtomicU64,
    period_us: AtomicU64,
    pub(super) weight: AtomicU64,
    pub(super) throttled: AtomicBool,
    /// Of processes that are gone or have left, less what others had used before they came.
    past_user_ns: AtomicI64,
    past_system_ns: AtomicI64,
    turn: Ranked<Leaf, Turn>,
    pub(super) periods: AtomicU64,
    pub(super) times_throttled: AtomicU64,
    pub(super) throttled_us: AtomicU64,
}

/// Where a group stands in its period.
#[derive(Debug, Default)]
struct Turn {
    seen_ns: u64,
    owed_ns: u64,
    ends: Option<Instant>,
}

impl Default for Cpu {
    fn default() -> Cpu {
        Cpu {
            quota_us: AtomicU64::new(NO_LIMIT),
            period_us: AtomicU64::new(PERIOD_US),
            weight: AtomicU64::new(100),
            throttled: AtomicBool::new(false),
            past_user_ns: AtomicI64::new(0),
            past_system_ns: AtomicI64::new(0),
            turn: Ranked::default(),
            periods: AtomicU64::new(0),
            times_throttled: AtomicU64::new(0),
            throttled_us: AtomicU64::new(0),
        }
    }
}

/// The groups with a limit, and the thread that looks after them.
#[derive(Debug, Default)]
pub(super) struct Watchman {
    shift: Ranked<Leaf, Shift>,
    parker: Parker,
}

#[derive(Debug, Default)]
struct Shift {
    groups: Vec<Weak<Cgroup>>,
    on_duty: bool,
}

impl Watchman {
    fn watch(self: &Arc<Watchman>, kernel: &Arc<Kernel>, group: &Weak<Cgroup>) {
        let mut shift = self.shift.lock();
        if !shift.groups.iter().any(|known| known.ptr_eq(group)) {
            shift.groups.push(Weak::clone(group));
        }
        let begin = !std::mem::replace(&mut shift.on_duty, true);
        drop(shift);
        self.parker.unpark();
        if begin {
            let (me, kernel) = (Arc::clone(self), Arc::downgrade(kernel));
            let body = move || me.duty(&kernel);
            if std::thread::Builder::new().name("bandwidth".into()).spawn(body).is_err() {
                self.shift.lock().on_duty = false;
            }
        }
    }

    fn duty(&self, kernel: &Weak<Kernel>) {
        loop {
            let Some(kernel) = kernel.upgrade() else { return };
            let (groups, on_duty) = {
                let mut shift = self.shift.lock();
                shift.groups.retain(|group| group.upgrade().is_some_and(|group| group.is_limited()));
                shift.on_duty = !shift.groups.is_empty();
                (shift.groups.clone(), shift.on_duty)
            };
            if !on_duty {
                return;
            }
            let now = Instant::now();
            let looks = groups.iter().filter_map(Weak::upgrade).map(|group| group.look_at_time(&kernel, now));
            let next = looks.min();
            drop(kernel);
            if next.is_some() {
                // A change of a limit wakes it earlier.
                let _ = self.parker.park(next);
            }
        }
    }
}

fn signed(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

impl Cgroup {
    fn is_limited(&self) -> bool {
        self.cpu.quota_us.load(Ordering::Relaxed) != NO_LIMIT && !self.dead.load(Ordering::Relaxed)
    }
    /// Quota and period of `cpu.max`, in microseconds.
    pub(super) fn quota(&self) -> (u64, u64) {
        (self.cpu.quota_us.load(Ordering::Relaxed), self.cpu.period_us.load(Ordering::Relaxed))
    }
    /// Sets `cpu.max`.
    pub(super) fn set_quota(&self, kernel: &Arc<Kernel>, quota_us: u64, period_us: u64) {
        self.cpu.quota_us.store(quota_us, Ordering::Relaxed);
        self.cpu.period_us.store(period_us, Ordering::Relaxed);
        let (user, system) = self.cpu_times(kernel);
        *self.cpu.turn.lock() = Turn { seen_ns: user.saturating_add(system), ..Turn::default() };
        self.throttle(kernel, quota_us != NO_LIMIT && self.cpu.throttled.load(Ordering::Relaxed));
        if quota_us != NO_LIMIT {
            kernel.bounds.watchman.watch(kernel, &self.me);
        }
    }
    /// User and system time of the group and those below it, in nanoseconds.
    pub(super) fn cpu_times(&self, kernel: &Kernel) -> (u64, u64) {
        let past = |ns: &AtomicI64| ns.load(Ordering::Relaxed);
        let (mut user, mut system) = (past(&self.cpu.past_user_ns), past(&self.cpu.past_system_ns));
        for process in self.processes(kernel) {
            let (more_user, more_system) = process.cpu_times();
            user = user.saturating_add(signed(more_user));
            system = system.saturating_add(signed(more_system));
        }
        (u64::try_from(user).unwrap_or(0), u64::try_from(system).unwrap_or(0))
    }
    fn add_past(&self, user_ns: i64, system_ns: i64) {
        let mut at = self.me.upgrade();
        while let Some(group) = at {
            group.cpu.past_user_ns.fetch_add(user_ns, Ordering::Relaxed);
            group.cpu.past_system_ns.fetch_add(system_ns, Ordering::Relaxed);
            at = group.parent();
        }
    }
    /// A process of this group is gone; its time stays.
    pub fn keep_time(&self, process: &Process) {
        let (user, system) = process.times.total();
        self.add_past(signed(user), signed(system));
    }
    /// A process comes from another group, or goes to one: what it has used stays where it was used.
    pub(super) fn hand_over(&self, from: Option<&Arc<Cgroup>>, process: &Process) {
        let (user, system) = process.cpu_times();
        let (user, system) = (signed(user), signed(system));
        if let Some(from) = from {
            from.add_past(user, system);
        }
        self.add_past(user.saturating_neg(), system.saturating_neg());
    }

    /// Settles the accounts; returns when to look again.
    fn look_at_time(&self, kernel: &Kernel, now: Instant) -> Instant {
        let (quota_us, period_us) = self.quota();
        let (user, system) = self.cpu_times(kernel);
        let (quota, period) = (quota_us.saturating_mul(1000), Duration::from_micros(period_us));
        let mut turn = self.cpu.turn.lock();
        let used = user.saturating_add(system);
        let spent = used.saturating_sub(turn.seen_ns);
        turn.seen_ns = used;
        turn.owed_ns = turn.owed_ns.saturating_add(spent);
        let ends = *turn.ends.get_or_insert(now + period);
        let idle = turn.owed_ns == 0;
        if now >= ends {
            let late = now.duration_since(ends).as_nanos() / period.as_nanos().max(1);
            let periods = u64::try_from(late).unwrap_or(0).saturating_add(1);
            turn.owed_ns = turn.owed_ns.saturating_sub(quota.saturating_mul(periods));
            turn.ends = Some(now + period);
            if !idle {
                self.cpu.periods.fetch_add(1, Ordering::Relaxed);
            }
        }
        let ends = turn.ends.unwrap_or(now + period);
        let left = quota.saturating_sub(turn.owed_ns);
        drop(turn);
        self.throttle(kernel, left == 0);
        if left == 0 {
            let rest = ends.saturating_duration_since(now).as_micros();
            self.cpu.throttled_us.fetch_add(u64::try_from(rest).unwrap_or(0), Ordering::Relaxed);
            return ends;
        }
        if idle {
            return now + period * IDLE_PERIODS;
        }
        let soonest = Duration::from_nanos(left / u64::from(kernel.machine.cpus.max(1)));
        (now + soonest.max(LEAST)).min(ends.max(now + LEAST))
    }

    fn throttle(&self, kernel: &Kernel, wanted: bool) {
        if self.cpu.throttled.swap(wanted, Ordering::SeqCst) == wanted {
            return;
        }
        if wanted {
            self.cpu.times_throttled.fetch_add(1, Ordering::Relaxed);
        }
        for process in self.processes(kernel) {
            let group = process.cgroup.lock().clone();
            if let Some(group) = group {
                group.tell(&process);
            }
        }
    }
}
