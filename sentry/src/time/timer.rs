//! Timers that send signals: interval timers (setitimer(2)) and POSIX timers (timer_create(2)).
//!
//! The state has rank `FileObject`; signals are sent without it. Timers of CPU clocks look at the clock
//! when it could have run out at the earliest, and again until it has.

use super::Clock;
use crate::process::Process;
use crate::process::limits::{INFINITY, Resource};
use crate::signal::send::{self, Force};
use crate::task::TaskShared;
use abi::siginfo::{SigInfo, code};
use abi::signal::Signal;
use lock::Ranked;
use lock::order::FileObject;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use vfs::event::timer::{TimerId, TimerTarget, timers};

/// What a timer counts.
#[derive(Clone, Debug)]
pub enum TimerClock {
    /// A clock of the sandbox.
    Wall(Clock),
    /// User time of the process.
    ProcessUser,
    /// CPU time of the process.
    Process,
    /// CPU time of a thread.
    Thread(Weak<TaskShared>),
}

/// What an expiry does.
#[derive(Clone, Debug)]
pub enum Notify {
    /// Nothing (SIGEV_NONE).
    Nothing,
    /// RLIMIT_CPU: SIGXCPU at the soft limit and each second behind it, SIGKILL at the hard one.
    CpuLimit,
    /// An interval timer's signal, without details.
    Interval(Signal),
    /// A POSIX timer's signal.
    Posix {
        /// It.
        signal: Signal,
        /// `si_timerid`.
        id: u32,
        /// `si_value`.
        value: u64,
        /// The one thread that gets it.
        thread: Option<Weak<TaskShared>>,
    },
}

#[derive(Debug, Default)]
struct State {
    interval: Duration,
    /// When it expires, on its own clock.
    at: Option<Duration>,
    /// Expiries since the last signal that was taken.
    missed: u32,
    /// Overrun of the last signal that was taken.
    overrun: u32,
    /// It has expired while its container was paused.
    held: bool,
}

/// A timer of a process.
pub struct SignalTimer {
    name: TimerId,
    clock: TimerClock,
    notify: Notify,
    process: Weak<Process>,
    state: Ranked<FileObject, State>,
    me: Weak<SignalTimer>,
}

impl std::fmt::Debug for SignalTimer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SignalTimer({:?})", self.clock)
    }
}

/// A timer's setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    /// Time left; zero when disarmed.
    pub value: Duration,
    /// Period; zero for one shot.
    pub interval: Duration,
}

/// How a new time is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// From now.
    Relative,
    /// On the clock (TIMER_ABSTIME).
    Absolute,
}

impl SignalTimer {
    /// A disarmed timer.
    #[must_use]
    pub fn new(process: &Arc<Process>, clock: TimerClock, notify: Notify) -> Arc<SignalTimer> {
        Arc::new_cyclic(|me| SignalTimer {
            name: timers().new_id(),
            clock,
            notify,
            process: Arc::downgrade(process),
            state: Ranked::new(State::default()),
            me: Weak::clone(me),
        })
    }
    fn now(&self) -> Duration {
        let ns = |(user, system): (u64, u64)| Duration::from_nanos(user.saturating_add(system));
        match &self.clock {
            TimerClock::Wall(clock) => clock.now(),
            TimerClock::ProcessUser => {
                self.process.upgrade().map_or(Duration::ZERO, |p| Duration::from_nanos(p.cpu_times().0))
            }
            TimerClock::Process => self.process.upgrade().map_or(Duration::ZERO, |p| ns(p.cpu_times())),
            TimerClock::Thread(task) => task.upgrade().map_or(Duration::ZERO, |task| ns(task.cpu_times())),
        }
    }
    /// The point of the host's clock at which it could have expired at the earliest.
    fn look_again(&self, at: Duration, now: Duration) -> Option<Instant> {
        let left = at.saturating_sub(now);
        let left = match self.clock {
            TimerClock::Wall(_) => left,
            // Several threads use up CPU time side by side.
            _ => (left / 4).max(Duration::from_millis(1)),
        };
        Instant::now().checked_add(left)
    }
    /// Arms or disarms it; returns the former setting.
    pub fn set(&self, setting: Setting, when: When) -> Setting {
        let now = self.now();
        let mut state = self.state.lock();
        let old = Setting { value: left(&state, now), interval: state.interval };
        state.interval = setting.interval;
        state.missed = 0;
        state.overrun = 0;
        state.at = (!setting.value.is_zero()).then(|| match when {
            When::Relative => now.saturating_add(setting.value),
            When::Absolute => setting.value,
        });
        let armed = state.at;
        drop(state);
        match armed.and_then(|at| self.look_again(at, now)) {
            Some(at) => {
                let target: Weak<dyn TimerTarget> = Weak::<SignalTimer>::clone(&self.me);
                timers().arm(self.name, at, target);
            }
            None => timers().disarm(self.name),
        }
        old
    }
    /// The current setting.
    #[must_use]
    pub fn get(&self) -> Setting {
        let now = self.now();
        let state = self.state.lock();
        Setting { value: left(&state, now), interval: state.interval }
    }
    /// Expiries beyond the one that the last taken signal stood for.
    #[must_use]
    pub fn overrun(&self) -> u32 {
        self.state.lock().overrun
    }
    /// Its signal is being delivered: what was missed meanwhile goes with it.
    pub fn taken(&self) -> u32 {
        let mut state = self.state.lock();
        state.overrun = std::mem::take(&mut state.missed);
        state.overrun
    }
    /// The container runs again: an expiry that was held back comes now.
    pub fn release(&self) {
        if std::mem::take(&mut self.state.lock().held) {
            let target: Weak<dyn TimerTarget> = Weak::<SignalTimer>::clone(&self.me);
            timers().arm(self.name, Instant::now(), target);
        }
    }
    fn send(&self, missed: u32) {
        let Some(process) = self.process.upgrade() else { return };
        match &self.notify {
            Notify::Nothing => {}
            Notify::CpuLimit => cpu_limit_reached(&process),
            Notify::Interval(signal) => {
                let _ = send::to_process(&process, SigInfo::kernel(*signal), Force::Yes);
            }
            Notify::Posix { signal, id, value, thread } => {
                let task = thread.as_ref().map(Weak::upgrade);
                let queued = match &task {
                    None => process.pending.lock().has_timer(*signal, *id),
                    Some(Some(task)) => task.pending.lock().has_timer(*signal, *id),
                    Some(None) => return,
                };
                let mut state = self.state.lock();
                state.missed = state.missed.saturating_add(if queued { missed + 1 } else { missed });
                drop(state);
                if queued {
                    return;
                }
                let info = SigInfo::timer(*signal, *id, 0, *value);
                // A full queue loses the signal, as the man page says.
                let _ = match task.flatten() {
                    Some(task) => send::to_task(&task, info, Force::Yes),
                    None => send::to_process(&process, info, Force::Yes),
                };
            }
        }
    }
}

fn left(state: &State, now: Duration) -> Duration {
    // An armed timer that is about to expire has a nanosecond left, as zero would say disarmed.
    state.at.map_or(Duration::ZERO, |at| at.saturating_sub(now).max(Duration::from_nanos(1)))
}

impl Drop for SignalTimer {
    fn drop(&mut self) {
        timers().disarm(self.name);
    }
}

impl TimerTarget for SignalTimer {
    fn expire(&self, _now: Instant) -> Option<Instant> {
        let now = self.now();
        let (missed, next) = {
            let mut state = self.state.lock();
            let at = state.at?;
            if self.process.upgrade().is_some_and(|process| process.is_frozen()) {
                state.held = true;
                return None;
            }
            if now < at {
                drop(state);
                return self.look_again(at, now);
            }
            let mut missed = 0;
            state.at = None;
            if !state.interval.is_zero() {
                let periods = (now - at).as_nanos() / state.interval.as_nanos().max(1);
                missed = u32::try_from(periods).unwrap_or(u32::MAX);
                let steps = state.interval.saturating_mul(missed.saturating_add(1));
                state.at = Some(at.saturating_add(steps));
            }
            (missed, state.at)
        };
        self.send(missed);
        self.look_again(next?, now)
    }
}

/// Watches RLIMIT_CPU of a process that has one. Called when it is made and when the limit changes.
pub fn watch_cpu_limit(process: &Arc<Process>) {
    let limit = process.limits.lock().get(Resource::Cpu);
    let first = limit.soft.min(limit.hard);
    if first == INFINITY {
        let gone = process.timers.lock().cpu_limit.take();
        drop(gone);
        return;
    }
    let timer = {
        let mut timers = process.timers.lock();
        let new = || SignalTimer::new(process, TimerClock::Process, Notify::CpuLimit);
        Arc::clone(timers.cpu_limit.get_or_insert_with(new))
    };
    // A limit of zero is one second, as in Linux.
    let value = Duration::from_secs(first.max(1));
    timer.set(Setting { value, interval: Duration::from_secs(1) }, When::Absolute);
}

fn cpu_limit_reached(process: &Arc<Process>) {
    let hard = process.limits.lock().get(Resource::Cpu).hard;
    let (user, system) = process.cpu_times();
    let used = Duration::from_nanos(user.saturating_add(system));
    let signal = if used >= Duration::from_secs(hard.max(1)) { Signal::SIGKILL } else { Signal::SIGXCPU };
    let _ = send::to_process(process, SigInfo::kernel(signal), Force::Yes);
}

/// Adds the overrun to a timer's signal that is being taken.
pub fn complete(process: &Process, info: &mut SigInfo) {
    if info.code != code::SI_TIMER {
        return;
    }
    let id = info.pid();
    let timer = process.timers.lock().posix.get(&id).cloned();
    if let Some(timer) = timer {
        let overrun = timer.taken();
        info.fields[0] = u64::from(id) | (u64::from(overrun) << 32);
    }
}

/// Timers of a process.
#[derive(Debug, Default)]
pub struct ProcessTimers {
    /// ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
    pub interval: [Option<Arc<SignalTimer>>; 3],
    /// POSIX timers by id.
    pub posix: std::collections::BTreeMap<u32, Arc<SignalTimer>>,
    /// Id of the next one.
    pub next: u32,
    /// RLIMIT_CPU.
    pub cpu_limit: Option<Arc<SignalTimer>>,
}
