//! When to look for the next call instead of sleeping.
//!
//! Looking pays only while sentry thread and guest thread are on two CPUs and the guest calls again within
//! microseconds. A notification with the synchronous wake-up brings both onto one CPU; to part them, a reply
//! is sent without it, which costs some 40 microseconds once. Failure makes the next try exponentially rarer,
//! the number of lookers is bounded below the number of CPUs, and nobody looks for longer than a window.

use super::sys;
use crate::errand;
use lock::Seat;
use rustix::thread::CpuSet;
use std::time::{Duration, Instant};

/// Calls in quick succession that make a try worthwhile.
const STREAK: u32 = 16;
/// Two calls are in quick succession when they are no further apart.
const QUICK: Duration = Duration::from_micros(15);
/// The same for two that are on two CPUs already and pay for that with every wake-up.
const QUICK_APART: Duration = Duration::from_micros(80);
/// How long to look while it works.
const WINDOW: Duration = Duration::from_micros(20);
/// How long to look for the first call on another CPU.
const FIRST: Duration = Duration::from_micros(100);
/// A service that took longer finds the guest thread asleep (`layout::SPINS`). The first one on another CPU finds
/// no cache warm and takes many times what the next ones do.
const PATIENT: Duration = Duration::from_micros(40);
/// Calls that a try must bring to count as a success.
const WORTH: u32 = 64;
const RAREST: u32 = 8;

/// What threads of this platform that look share.
pub(super) struct Lookers {
    most: u32,
    /// Where the threads of this process may run.
    cpus: Option<CpuSet>,
}

impl std::fmt::Debug for Lookers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lookers(at most {})", self.most)
    }
}

impl Lookers {
    /// One for every two CPUs: each looker has a partner that runs.
    pub(super) fn new() -> Lookers {
        let set = rustix::thread::sched_getaffinity(None).ok();
        let cpus = set.as_ref().map_or(1, CpuSet::count);
        let able = std::is_x86_feature_detected!("bmi2") && sys::has_rdpid();
        lock::allow_looking(cpus / 2);
        let most = if able { cpus / 2 } else { 0 };
        Lookers { most, cpus: set }
    }
    /// Whether trampolines can run here, and looking can ever pay.
    pub(super) fn is_useful(&self) -> bool {
        self.most > 0
    }
    fn join(&self) -> Option<Seat> {
        self.is_useful().then(Seat::take).flatten()
    }
    /// Leaves the CPU that the guest thread is about to be woken on (the one it slept on: this one) for
    /// another. The scheduler would do so only after milliseconds.
    fn leave_cpu(&self) {
        let Some(cpus) = &self.cpus else { return };
        let here = usize::try_from(sys::this_cpu()).unwrap_or(usize::MAX);
        let other = (0..CpuSet::MAX_CPU).cycle().skip(here.saturating_add(1)).take(CpuSet::MAX_CPU);
        let Some(there) = other.into_iter().find(|cpu| *cpu != here && cpus.is_set(*cpu)) else { return };
        let mut one = CpuSet::new();
        one.set(there);
        // Refused: we look from here, in vain.
        let _ = rustix::thread::sched_setaffinity(None, &one);
    }
    /// Runs anywhere again.
    fn roam(&self) {
        if let Some(cpus) = &self.cpus {
            let _ = rustix::thread::sched_setaffinity(None, cpus);
        }
    }
}

/// What one thread has learnt.
#[derive(Debug)]
pub(super) struct Policy {
    /// Replies go out without the synchronous wake-up, and we look.
    hot: bool,
    streak: u32,
    /// Calls until the next try.
    wait: u32,
    failures: u32,
    /// Calls since the last change to hot.
    gained: u32,
    /// The guest's last call came from another CPU.
    apart: bool,
    resumed: Instant,
    arrived: Instant,
    /// Errands of this host thread by then.
    errands: u32,
}

/// How to wait for the guest.
#[derive(Debug)]
pub(super) enum Wait {
    /// In the listener.
    Asleep,
    /// Looking for so long at first.
    Looking(Duration, Seat),
}

impl Policy {
    pub(super) fn new() -> Policy {
        let now = Instant::now();
        Policy {
            hot: false,
            streak: 0,
            wait: 0,
            failures: 0,
            gained: 0,
            apart: false,
            resumed: now,
            arrived: now,
            errands: 0,
        }
    }

    /// Whether the listener should wake synchronously.
    pub(super) fn is_hot(&self) -> bool {
        self.hot
    }

    /// A patched call has arrived, from this CPU (a guest may lie).
    pub(super) fn arrived(&mut self, cpu: u64) {
        self.arrived = Instant::now();
        self.errands = errand::count();
        self.apart = cpu & 0xfff != sys::this_cpu();
        let quick = if self.apart { QUICK_APART } else { QUICK };
        if self.arrived.duration_since(self.resumed) < quick {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.streak = 0;
        }
        self.gained = self.gained.saturating_add(1);
        self.wait = self.wait.saturating_sub(1);
    }

    /// How to wait after the reply that is about to go out.
    pub(super) fn choose(&mut self, lookers: &Lookers) -> Wait {
        self.resumed = Instant::now();
        let short = self.resumed.duration_since(self.arrived) < PATIENT;
        let patient = short && self.errands == errand::count();
        if self.hot {
            if !self.apart {
                // Looking here would only keep the guest from running.
                return Wait::Asleep;
            }
            let seat = if patient { lookers.join() } else { None };
            return seat.map_or(Wait::Asleep, |seat| Wait::Looking(WINDOW, seat));
        }
        if self.streak < STREAK || self.wait > 0 {
            return Wait::Asleep;
        }
        let Some(seat) = lookers.join() else { return Wait::Asleep };
        self.hot = true;
        self.gained = 0;
        if !self.apart {
            lookers.leave_cpu();
        }
        Wait::Looking(FIRST, seat)
    }

    /// Nothing came, or it came from our own CPU: back to sleeping.
    pub(super) fn cool(&mut self, lookers: &Lookers) {
        if !self.hot {
            return;
        }
        lookers.roam();
        self.hot = false;
        self.streak = 0;
        self.failures =
            if self.gained >= WORTH { self.failures / 2 } else { (self.failures + 1).min(RAREST) };
        self.wait = STREAK << self.failures;
    }
}
