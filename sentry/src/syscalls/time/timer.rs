//! getitimer(2), setitimer(2), alarm(2), timer_create(2) and its kin.

use super::clock::CpuClock;
use super::clock::cpu_clock;
use crate::task::Cx;
use crate::time::Clock;
use crate::time::timer::{Notify, Setting, SignalTimer, TimerClock, When};
use abi::signal::Signal;
use abi::time::{Itimerspec, Itimerval, Timespec, Timeval};
use abi::{CallResult, Errno, SysResult, UserPtr};
use std::sync::Arc;
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The interval timer that `which` names, made when it is first used.
fn interval(cx: &Cx<'_>, which: u32) -> SysResult<Arc<SignalTimer>> {
    let (clock, signal) = match which {
        0 => (TimerClock::Wall(Clock::Monotonic), Signal::SIGALRM),
        1 => (TimerClock::ProcessUser, Signal::SIGVTALRM),
        2 => (TimerClock::Process, Signal::SIGPROF),
        _ => return Err(Errno::EINVAL),
    };
    let process = &cx.shared.process;
    let mut timers = process.timers.lock();
    let slot = timers.interval.get_mut(usize::try_from(which).unwrap_or(0)).ok_or(Errno::EINVAL)?;
    let timer = slot.get_or_insert_with(|| SignalTimer::new(process, clock, Notify::Interval(signal)));
    Ok(Arc::clone(timer))
}

fn to_itimerval(setting: Setting) -> Itimerval {
    // Rounded up: a timer that has not expired never shows zero.
    let up = |time: Duration| Timeval::from_duration(time.saturating_add(Duration::from_nanos(999)));
    let value = if setting.value.is_zero() { Timeval::default() } else { up(setting.value) };
    Itimerval { interval: Timeval::from_duration(setting.interval), value }
}

/// getitimer(2).
pub fn getitimer(cx: &mut Cx<'_>, which: u32, out: UserPtr<Itimerval>) -> CallResult<()> {
    let setting = interval(cx, which)?.get();
    Ok(cx.write(out, &to_itimerval(setting))?)
}

/// setitimer(2).
pub fn setitimer(
    cx: &mut Cx<'_>,
    which: u32,
    new: UserPtr<Itimerval>,
    old: UserPtr<Itimerval>,
) -> CallResult<()> {
    let setting = if new.is_null() {
        Setting::default()
    } else {
        let new = cx.read(new)?;
        Setting { value: new.value.to_duration()?, interval: new.interval.to_duration()? }
    };
    let before = interval(cx, which)?.set(setting, When::Relative);
    Ok(cx.write_if(old, &to_itimerval(before))?)
}

/// alarm(2).
pub fn alarm(cx: &mut Cx<'_>, seconds: u32) -> CallResult<u32> {
    let setting = Setting { value: Duration::from_secs(u64::from(seconds)), interval: Duration::ZERO };
    let before = interval(cx, 0)?.set(setting, When::Relative).value;
    let rounded = before.as_secs() + u64::from(before.subsec_nanos() >= 500_000_000);
    let rounded = if before.is_zero() { 0 } else { rounded.max(1) };
    Ok(u32::try_from(rounded).unwrap_or(u32::MAX))
}

/// `struct sigevent`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sigevent {
    /// `sigev_value`.
    pub value: u64,
    /// `sigev_signo`.
    pub signo: i32,
    /// `sigev_notify`.
    pub notify: i32,
    tid: i32,
    pad: [i32; 11],
}

const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD: i32 = 2;
const SIGEV_THREAD_ID: i32 = 4;
/// Most timers of a process.
const MOST_TIMERS: usize = 65_536;

/// timer_create(2).
pub fn timer_create(
    cx: &mut Cx<'_>,
    clock: i32,
    event: UserPtr<Sigevent>,
    out: UserPtr<u32>,
) -> CallResult<()> {
    let clock = match Clock::from_id(clock) {
        Ok(_) if matches!(clock, 4..=6) => return Err(Errno::EOPNOTSUPP.into()),
        Ok(clock) => TimerClock::Wall(clock),
        Err(_) => match cpu_clock(cx, clock)? {
            CpuClock::Process(_) => TimerClock::Process,
            CpuClock::Thread(task) => TimerClock::Thread(Arc::downgrade(&task)),
        },
    };
    let event = if event.is_null() { None } else { Some(cx.read(event)?) };
    let process = Arc::clone(&cx.shared.process);
    let id = {
        let mut timers = process.timers.lock();
        if timers.posix.len() >= MOST_TIMERS {
            return Err(Errno::EAGAIN.into());
        }
        while timers.posix.contains_key(&timers.next) {
            timers.next = timers.next.wrapping_add(1) & 0x7fff_ffff;
        }
        let id = timers.next;
        timers.next = timers.next.wrapping_add(1) & 0x7fff_ffff;
        id
    };
    let notify = notify(cx, event, id)?;
    cx.write(out, &id)?;
    let timer = SignalTimer::new(&process, clock, notify);
    process.timers.lock().posix.insert(id, timer);
    Ok(())
}

fn notify(cx: &Cx<'_>, event: Option<Sigevent>, id: u32) -> SysResult<Notify> {
    let Some(event) = event else {
        return Ok(Notify::Posix { signal: Signal::SIGALRM, id, value: u64::from(id), thread: None });
    };
    let signal = || u32::try_from(event.signo).map_err(|_| Errno::EINVAL).and_then(Signal::new);
    match event.notify {
        SIGEV_NONE => Ok(Notify::Nothing),
        SIGEV_SIGNAL | SIGEV_THREAD => {
            Ok(Notify::Posix { signal: signal()?, id, value: event.value, thread: None })
        }
        SIGEV_THREAD_ID => {
            let ns = cx.shared_ns().ok_or(Errno::EINVAL)?;
            let number = u32::try_from(event.tid).map_err(|_| Errno::EINVAL)?;
            let tree = cx.kernel().tree.lock();
            let task = tree.find_task(&ns, number).ok_or(Errno::EINVAL)?;
            if !Arc::ptr_eq(&task.process, &cx.shared.process) {
                return Err(Errno::EINVAL);
            }
            let thread = Some(Arc::downgrade(task));
            Ok(Notify::Posix { signal: signal()?, id, value: event.value, thread })
        }
        _ => Err(Errno::EINVAL),
    }
}

fn find(cx: &Cx<'_>, id: u32) -> SysResult<Arc<SignalTimer>> {
    cx.shared.process.timers.lock().posix.get(&id).cloned().ok_or(Errno::EINVAL)
}

fn to_itimerspec(setting: Setting) -> Itimerspec {
    Itimerspec {
        interval: Timespec::from_duration(setting.interval),
        value: Timespec::from_duration(setting.value),
    }
}

const TIMER_ABSTIME: u32 = 1;

/// timer_settime(2).
pub fn timer_settime(
    cx: &mut Cx<'_>,
    id: u32,
    flags: u32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> CallResult<()> {
    if new.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let value = cx.read(new)?;
    let setting = Setting { value: value.value.to_duration()?, interval: value.interval.to_duration()? };
    let when = if flags & TIMER_ABSTIME != 0 { When::Absolute } else { When::Relative };
    let before = find(cx, id)?.set(setting, when);
    Ok(cx.write_if(old, &to_itimerspec(before))?)
}

/// timer_gettime(2).
pub fn timer_gettime(cx: &mut Cx<'_>, id: u32, out: UserPtr<Itimerspec>) -> CallResult<()> {
    let setting = find(cx, id)?.get();
    Ok(cx.write(out, &to_itimerspec(setting))?)
}

/// timer_getoverrun(2).
pub fn timer_getoverrun(cx: &mut Cx<'_>, id: u32) -> CallResult<u32> {
    Ok(find(cx, id)?.overrun().min(0x7fff_ffff))
}

/// timer_delete(2).
pub fn timer_delete(cx: &mut Cx<'_>, id: u32) -> CallResult<()> {
    let gone = cx.shared.process.timers.lock().posix.remove(&id);
    if gone.is_some() { Ok(()) } else { Err(Errno::EINVAL.into()) }
}
