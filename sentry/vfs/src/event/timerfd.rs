//! timerfd_create(2) and its kin. Lock: `FileObject`.
//!
//! Times are those of the sandbox's clocks; a guest time namespace's offsets are taken off before.

use super::anon;
use super::timer::{TimerId, TimerTarget, timers};
use crate::attr::{Attr, FsStat};
use crate::caller::Caller;
use crate::file::{FileOps, GuestMemory, Io, OpenFile};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::time::{Itimerspec, Timespec};
use abi::{Errno, SysResult, UserAddr, ioctl};
use lock::order::{FileObject, Leaf};
use lock::{Ranked, WaitEntry, WaitQueue};
use mm::GuestSink;
use std::any::Any;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The clocks a timerfd runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimerClock {
    /// CLOCK_REALTIME (0).
    Realtime,
    /// CLOCK_MONOTONIC (1).
    Monotonic,
    /// CLOCK_BOOTTIME (7).
    Boottime,
    /// CLOCK_REALTIME_ALARM (8).
    RealtimeAlarm,
    /// CLOCK_BOOTTIME_ALARM (9).
    BoottimeAlarm,
}

impl TimerClock {
    /// From a clock id; `EINVAL` for others. ALARM clocks need CAP_WAKE_ALARM, which the caller checks.
    pub fn from_id(id: i32) -> SysResult<TimerClock> {
        Ok(match id {
            0 => TimerClock::Realtime,
            1 => TimerClock::Monotonic,
            7 => TimerClock::Boottime,
            8 => TimerClock::RealtimeAlarm,
            9 => TimerClock::BoottimeAlarm,
            _ => return Err(Errno::EINVAL),
        })
    }
    fn id(self) -> i32 {
        match self {
            TimerClock::Realtime => 0,
            TimerClock::Monotonic => 1,
            TimerClock::Boottime => 7,
            TimerClock::RealtimeAlarm => 8,
            TimerClock::BoottimeAlarm => 9,
        }
    }
    fn is_realtime(self) -> bool {
        matches!(self, TimerClock::Realtime | TimerClock::RealtimeAlarm)
    }
    /// The clock's current value.
    #[must_use]
    pub fn now(self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        let t = clock_gettime(match self {
            TimerClock::Realtime | TimerClock::RealtimeAlarm => ClockId::Realtime,
            TimerClock::Monotonic => ClockId::Monotonic,
            TimerClock::Boottime | TimerClock::BoottimeAlarm => ClockId::Boottime,
        });
        Timespec { sec: t.tv_sec, nsec: t.tv_nsec }.to_duration().unwrap_or_default()
    }
    /// The point of the host's monotonic clock at which this clock shows `value`.
    #[must_use]
    pub fn instant_at(self, value: Duration) -> Instant {
        let now = Instant::now();
        let ahead = value.saturating_sub(self.now());
        now.checked_add(ahead).unwrap_or_else(|| now + Duration::from_secs(1 << 32))
    }
}

/// TFD_TIMER_* flags of timerfd_settime(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetFlags {
    /// TFD_TIMER_ABSTIME.
    pub absolute: bool,
    /// TFD_TIMER_CANCEL_ON_SET.
    pub cancel_on_set: bool,
}

impl SetFlags {
    /// From the call's `flags`; `EINVAL` for unknown bits.
    pub fn from_bits(bits: i32) -> SysResult<SetFlags> {
        if bits & !3 != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(SetFlags { absolute: bits & 1 != 0, cancel_on_set: bits & 2 != 0 })
    }
}

#[derive(Debug, Default)]
struct State {
    // Next expiry on the timer's clock; None when disarmed.
    next: Option<Duration>,
    interval: Duration,
    ticks: u64,
    flags: SetFlags,
    cancelled: bool,
}

/// A timer that can be read and polled.
#[derive(Debug)]
pub struct TimerFd {
    clock: TimerClock,
    id: TimerId,
    state: Ranked<FileObject, State>,
    queue: WaitQueue,
    me: Weak<TimerFd>,
}

static REALTIME_FDS: Ranked<Leaf, Vec<Weak<TimerFd>>> = Ranked::new(Vec::new());

/// CLOCK_REALTIME was set: cancels those that asked for it and moves the expiries of all others.
pub fn clock_was_set() {
    let all: Vec<Arc<TimerFd>> = REALTIME_FDS.lock().iter().filter_map(Weak::upgrade).collect();
    for timer in all {
        let mut state = timer.state.lock();
        if state.flags.absolute && state.flags.cancel_on_set {
            state.cancelled = true;
        }
        timer.arm(&state);
        drop(state);
        timer.queue.wake(Events::READABLE);
    }
}

/// timerfd_create(2). `flags` may hold NONBLOCK.
#[must_use]
pub fn create(clock: TimerClock, flags: OpenFlags) -> Arc<OpenFile> {
    let ops = Arc::new_cyclic(|me| TimerFd {
        clock,
        id: timers().new_id(),
        state: Ranked::default(),
        queue: WaitQueue::new(),
        me: Weak::clone(me),
    });
    if clock.is_realtime() {
        let mut all = REALTIME_FDS.lock();
        all.retain(|t| t.strong_count() > 0);
        all.push(Arc::downgrade(&ops));
    }
    OpenFile::anonymous(ops, (flags & OpenFlags::NONBLOCK) | OpenFlags::RDWR)
}

impl TimerFd {
    fn arm(&self, state: &State) {
        match state.next {
            Some(next) => {
                let weak: Weak<dyn TimerTarget> = self.me.clone();
                timers().arm(self.id, self.clock.instant_at(next), weak);
            }
            None => timers().disarm(self.id),
        }
    }

    /// Counts the expiries up to `now` and moves `next` behind it.
    fn advance(state: &mut State, now: Duration) {
        let Some(next) = state.next else { return };
        if now < next {
            return;
        }
        if state.interval.is_zero() {
            state.ticks = state.ticks.saturating_add(1);
            state.next = None;
            return;
        }
        let late = (now - next).as_nanos();
        let period = state.interval.as_nanos();
        let count = u64::try_from(late / period).unwrap_or(u64::MAX).saturating_add(1);
        state.ticks = state.ticks.saturating_add(count);
        let rest = u64::try_from(period - late % period).unwrap_or(u64::MAX);
        state.next = now.checked_add(Duration::from_nanos(rest));
    }

    fn shown(state: &State, now: Duration) -> Itimerspec {
        Itimerspec {
            interval: Timespec::from_duration(state.interval),
            value: Timespec::from_duration(state.next.map_or(Duration::ZERO, |next| {
                // An armed timer never shows zero.
                next.saturating_sub(now).max(Duration::from_nanos(1))
            })),
        }
    }

    /// timerfd_settime(2): gives the old setting. `ECANCELED` when a clock change came before (the new
    /// setting holds all the same).
    pub fn set(&self, new: &Itimerspec, flags: SetFlags) -> SysResult<Itimerspec> {
        let value = new.value.to_duration()?;
        let interval = new.interval.to_duration()?;
        let mut state = self.state.lock();
        let now = self.clock.now();
        Self::advance(&mut state, now);
        let old = Self::shown(&state, now);
        let was_cancelled = state.cancelled;
        *state = State {
            next: if value.is_zero() {
                None
            } else if flags.absolute {
                Some(value)
            } else {
                Some(now.saturating_add(value))
            },
            interval: if value.is_zero() { Duration::ZERO } else { interval },
            ticks: 0,
            flags: SetFlags {
                absolute: flags.absolute,
                cancel_on_set: flags.cancel_on_set && flags.absolute && self.clock.is_realtime(),
            },
            cancelled: false,
        };
        self.arm(&state);
        drop(state);
        if was_cancelled && flags.cancel_on_set { Err(Errno::ECANCELED) } else { Ok(old) }
    }

    /// timerfd_gettime(2).
    #[must_use]
    pub fn get(&self) -> Itimerspec {
        let mut state = self.state.lock();
        let now = self.clock.now();
        Self::advance(&mut state, now);
        Self::shown(&state, now)
    }
}

impl Drop for TimerFd {
    fn drop(&mut self) {
        timers().disarm(self.id);
    }
}

impl TimerTarget for TimerFd {
    fn expire(&self, _now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let now = self.clock.now();
        Self::advance(&mut state, now);
        let fired = state.ticks > 0;
        // Fired and not yet read: nothing new to tell until a read asks for the count.
        let next = if fired { None } else { state.next };
        drop(state);
        if fired {
            self.queue.wake(Events::READABLE);
        }
        next.map(|at| self.clock.instant_at(at))
    }
}

impl FileOps for TimerFd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut state = self.state.lock();
        if std::mem::take(&mut state.cancelled) {
            return Err(Errno::ECANCELED);
        }
        Self::advance(&mut state, self.clock.now());
        if state.ticks == 0 {
            return Err(Errno::EAGAIN);
        }
        let ticks = std::mem::take(&mut state.ticks);
        if state.next.is_some() {
            self.arm(&state);
        }
        drop(state);
        dst.put(&ticks.to_ne_bytes())
    }
    fn ready(&self, interest: Events) -> Events {
        let mut state = self.state.lock();
        if state.ticks == 0 && state.next.is_some() {
            Self::advance(&mut state, self.clock.now());
        }
        if state.ticks > 0 || state.cancelled { interest & Events::READABLE } else { Events::empty() }
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.queue.unregister(entry);
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn GuestMemory,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        if request != ioctl::TFD_IOC_SET_TICKS {
            return Err(Errno::ENOTTY);
        }
        let mut bytes = [0; 8];
        memory.read(UserAddr::new(arg), &mut bytes)?;
        let ticks = u64::from_ne_bytes(bytes);
        if ticks == 0 {
            return Err(Errno::EINVAL);
        }
        self.state.lock().ticks = ticks;
        self.queue.wake(Events::READABLE);
        Ok(0)
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(Ok(anon::shared_attr()))
    }
    fn statfs(&self) -> Option<FsStat> {
        Some(anon::shared_statfs())
    }
    fn fdinfo(&self, out: &mut Vec<u8>) {
        let it = self.get();
        let state = self.state.lock();
        let flags = u32::from(state.flags.absolute) | u32::from(state.flags.cancel_on_set) << 1;
        let text = format!(
            "clockid: {}\nticks: {}\nsettime flags: 0{:o}\nit_value: ({}, {})\nit_interval: ({}, {})\n",
            self.clock.id(),
            state.ticks,
            flags,
            it.value.sec,
            it.value.nsec,
            it.interval.sec,
            it.interval.nsec
        );
        out.extend_from_slice(text.as_bytes());
    }
    fn ignores_seeks(&self) -> bool {
        true
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(b"anon_inode:[timerfd]".to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::wait_until;
    use crate::testing::TestCaller;
    use mm::io::VecSink;

    fn read(file: &Arc<OpenFile>, by: &TestCaller) -> SysResult<u64> {
        let mut sink = VecSink::new(8);
        file.ops().read(&Io { file, offset: 0, append: false }, &mut sink, &by.by())?;
        Ok(u64::from_ne_bytes(sink.bytes.try_into().unwrap()))
    }
    fn spec(value_ms: u64, interval_ms: u64) -> Itimerspec {
        Itimerspec {
            value: Timespec::from_duration(Duration::from_millis(value_ms)),
            interval: Timespec::from_duration(Duration::from_millis(interval_ms)),
        }
    }

    #[test]
    fn counts_overruns() {
        let by = TestCaller::default();
        let file = create(TimerClock::Monotonic, OpenFlags::empty());
        let timer = file.downcast::<TimerFd>().unwrap();
        timer.set(&spec(5, 5), SetFlags::default()).unwrap();
        assert_eq!(read(&file, &by), Err(Errno::EAGAIN));
        assert_eq!(wait_until(&*file, Events::READABLE, None, &by.by(), || read(&file, &by)), Ok(1));
        std::thread::sleep(Duration::from_millis(22));
        assert!(read(&file, &by).unwrap() >= 4);
        let old = timer.set(&spec(0, 0), SetFlags::default()).unwrap();
        assert_eq!(old.interval.nsec, 5_000_000);
        assert_eq!(timer.get().value, Timespec::default());
    }

    #[test]
    fn absolute_past_fires_at_once_and_a_set_clock_cancels() {
        let by = TestCaller::default();
        let file = create(TimerClock::Realtime, OpenFlags::empty());
        let timer = file.downcast::<TimerFd>().unwrap();
        let flags = SetFlags { absolute: true, cancel_on_set: true };
        timer.set(&spec(1000, 0), flags).unwrap();
        assert_eq!(read(&file, &by), Ok(1));
        let later = Itimerspec { value: Timespec { sec: i64::MAX / 2, nsec: 0 }, ..Itimerspec::default() };
        timer.set(&later, flags).unwrap();
        clock_was_set();
        assert_eq!(read(&file, &by), Err(Errno::ECANCELED));
    }
}
