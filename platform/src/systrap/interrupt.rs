//! Making a guest thread come back.
//!
//! The handler of the interrupting signal cannot be kept from running by honest guests; one that forges a
//! signal frame can block it, for its own thread. A watch, a thread that exists only while an interrupt is
//! unanswered, ends the stub of whoever does not come back within [`GRACE`].

use super::space::Space;
use super::sys;
use super::template::INTERRUPT;
use crate::seam::Interrupter;
use lock::{Ranked, order};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

const RUNNING: u32 = 1;
const PENDING: u32 = 2;
/// How long an interrupt may stay unanswered: at most twice this.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct State {
    flags: AtomicU32,
    /// Counts returns from the guest.
    rounds: AtomicU64,
    watched: AtomicBool,
    process: AtomicI32,
    thread: AtomicI32,
    space: Ranked<order::Leaf, Weak<Space>>,
}

/// See [`crate::Context::interrupter`].
#[derive(Debug)]
pub(super) struct Interrupts {
    state: Arc<State>,
    watch: Arc<Watch>,
}

impl Interrupts {
    pub(super) fn new(watch: &Arc<Watch>) -> Interrupts {
        Interrupts { state: Arc::default(), watch: Arc::clone(watch) }
    }
    /// Names the stub thread.
    pub(super) fn aim(&self, space: &Arc<Space>, thread: i32) {
        *self.state.space.lock() = Arc::downgrade(space);
        self.state.process.store(space.pid(), Ordering::SeqCst);
        self.state.thread.store(thread, Ordering::SeqCst);
    }
    /// The stub thread, which is forgotten.
    pub(super) fn forget(&self) -> i32 {
        self.state.thread.swap(0, Ordering::SeqCst)
    }
    /// Enters the guest, unless somebody asked for an interrupt.
    pub(super) fn enter(&self) -> bool {
        if self.state.flags.fetch_or(RUNNING, Ordering::SeqCst) & PENDING != 0 {
            self.state.flags.store(0, Ordering::SeqCst);
            return false;
        }
        true
    }
    /// Leaves the guest; whether somebody asked for an interrupt.
    pub(super) fn leave(&self) -> bool {
        self.state.rounds.fetch_add(1, Ordering::Relaxed);
        self.state.flags.swap(0, Ordering::SeqCst) & PENDING != 0
    }
    /// Sends the signal.
    pub(super) fn signal(&self) {
        let state = &self.state;
        let (process, thread) = (state.process.load(Ordering::SeqCst), state.thread.load(Ordering::SeqCst));
        if thread > 0 {
            sys::signal_thread(process, thread, INTERRUPT);
        }
    }
}

impl Interrupter for Interrupts {
    fn interrupt(&self) {
        if self.state.flags.fetch_or(PENDING, Ordering::SeqCst) == RUNNING {
            self.signal();
            self.watch.add(&self.state);
        }
    }
}

/// An interrupt that was not answered when somebody looked.
#[derive(Debug)]
struct Suspect {
    state: Weak<State>,
    rounds: u64,
    look: Instant,
    seen: bool,
}

#[derive(Debug, Default)]
struct Queue {
    suspects: VecDeque<Suspect>,
    running: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    queue: Ranked<order::Leaf, Queue>,
}

impl Watch {
    fn add(self: &Arc<Watch>, state: &Arc<State>) {
        if state.watched.swap(true, Ordering::SeqCst) {
            return;
        }
        let rounds = state.rounds.load(Ordering::Relaxed);
        let mut queue = self.queue.lock();
        let look = Instant::now() + GRACE;
        queue.suspects.push_back(Suspect { state: Arc::downgrade(state), rounds, look, seen: false });
        if queue.running {
            return;
        }
        let watch = Arc::clone(self);
        let thread = std::thread::Builder::new().name("watch".into()).stack_size(64 << 10);
        // Without a thread now, the next interrupt tries again.
        queue.running = thread.spawn(move || watch.run()).is_ok();
    }

    fn run(&self) {
        loop {
            let mut queue = self.queue.lock();
            let Some(suspect) = queue.suspects.pop_front() else {
                queue.running = false;
                return;
            };
            drop(queue);
            std::thread::sleep(suspect.look.saturating_duration_since(Instant::now()));
            if let Some(state) = suspect.state.upgrade() {
                self.examine(&state, &suspect);
            }
        }
    }

    fn examine(&self, state: &Arc<State>, suspect: &Suspect) {
        state.watched.store(false, Ordering::SeqCst);
        if state.flags.load(Ordering::SeqCst) != RUNNING | PENDING {
            return;
        }
        let rounds = state.rounds.load(Ordering::Relaxed);
        if suspect.seen && rounds == suspect.rounds {
            let space = state.space.lock().upgrade();
            if let Some(space) = space {
                space.kill();
            }
        } else if !state.watched.swap(true, Ordering::SeqCst) {
            let look = Instant::now() + GRACE;
            let again = Suspect { state: Arc::downgrade(state), rounds, look, seen: true };
            self.queue.lock().suspects.push_back(again);
        }
    }
}
