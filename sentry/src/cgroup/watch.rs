//! Who wants to know when the memory of a container has run out.
//!
//! The monitor has the host see it, in the container's cgroup there, while all that memory is still in use: so the
//! kill waits for the monitor to ask for the next time, and the guest can grow no further meanwhile.

use crate::control::OomNotice;
use crate::task::TaskShared;
use abi::poll::Events;
use lock::order::Leaf;
use lock::{Ranked, WaitEntry, WaitQueue};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long a kill waits for the monitor.
const PATIENCE: Duration = Duration::from_secs(3);

/// See the module. Lock: `Leaf`.
#[derive(Default)]
pub(super) struct Watch {
    state: Ranked<Leaf, State>,
    heard: WaitQueue,
}

#[derive(Default)]
struct State {
    /// How often memory ran out.
    times: u64,
    notices: Vec<OomNotice>,
    kill: Kill,
}

/// The kill that memory that ran out asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Kill {
    /// None.
    #[default]
    Unasked,
    /// Not before the monitor has been heard, or then.
    Awaits(Instant),
    /// One may be made.
    Granted,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        write!(f, "Watch({}, {:?})", state.times, state.kill)
    }
}

/// Whether a process may be killed now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// It may.
    Now,
    /// Somebody has to be heard first.
    Later,
}

/// Whether there was something to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waited {
    /// There was.
    Some,
    /// There was not.
    None,
}

impl Watch {
    /// Calls `notice` once the limit has cost a process more often than `known` times. Whoever asks has dealt
    /// with the last time: `Now` when a kill waits for that.
    pub(super) fn add(&self, known: u64, notice: OomNotice) -> Turn {
        let mut state = self.state.lock();
        if state.times > known {
            let times = state.times;
            drop(state);
            notice(times);
            return Turn::Later;
        }
        state.notices.push(notice);
        if !matches!(state.kill, Kill::Awaits(_)) {
            return Turn::Later;
        }
        state.kill = Kill::Granted;
        drop(state);
        self.heard.wake(Events::READABLE);
        Turn::Now
    }
    /// The limit is about to cost a process: tells whoever waits for it.
    pub(super) fn announce(&self) -> Turn {
        let mut state = self.state.lock();
        match state.kill {
            Kill::Granted => {
                state.kill = Kill::Unasked;
                return Turn::Now;
            }
            Kill::Awaits(until) if Instant::now() < until => return Turn::Later,
            Kill::Awaits(_) => {
                state.kill = Kill::Unasked;
                return Turn::Now;
            }
            Kill::Unasked => {}
        }
        state.times = state.times.saturating_add(1);
        let (times, notices) = (state.times, std::mem::take(&mut state.notices));
        if notices.is_empty() {
            return Turn::Now;
        }
        state.kill = Kill::Awaits(Instant::now() + PATIENCE);
        drop(state);
        notices.into_iter().for_each(|notice| notice(times));
        Turn::Later
    }
    /// Until when a kill waits at most, if one does.
    pub(super) fn awaits(&self) -> Option<Instant> {
        match self.state.lock().kill {
            Kill::Awaits(until) => Some(until).filter(|until| Instant::now() < *until),
            Kill::Unasked | Kill::Granted => None,
        }
    }
    /// Sleeps until no kill waits any more, or the thread itself is killed.
    pub(super) fn wait(&self, shared: &Arc<TaskShared>) -> Waited {
        if self.awaits().is_none() {
            return Waited::None;
        }
        let me: Weak<dyn lock::WakeTarget> = vfs::Blocker::target(&**shared);
        let entry = WaitEntry::new(me, Events::READABLE);
        self.heard.register(&entry);
        while let Some(until) = self.awaits() {
            if shared.work().contains(crate::task::Work::KILL) {
                break;
            }
            let _ = shared.parker().park(Some(until));
        }
        self.heard.unregister(&entry);
        Waited::Some
    }
}
