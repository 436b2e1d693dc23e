//! clock_gettime(2), clock_getres(2), clock_settime(2), gettimeofday(2), time(2), times(2).

use crate::task::{Cx, TaskShared};
use crate::time::Clock;
use abi::time::{Timespec, Timeval};
use abi::{CallResult, Errno, SysResult, UserPtr};
use std::sync::Arc;
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const PROCESS_CPUTIME: i32 = 2;
const THREAD_CPUTIME: i32 = 3;
const MONOTONIC_RAW: i32 = 4;
const REALTIME_COARSE: i32 = 5;
const MONOTONIC_COARSE: i32 = 6;

/// A clock that measures CPU time.
pub enum CpuClock {
    /// Of a process.
    Process(Arc<TaskShared>),
    /// Of a thread.
    Thread(Arc<TaskShared>),
}

impl CpuClock {
    /// Time used so far.
    #[must_use]
    pub fn now(&self) -> Duration {
        let (user, system) = match self {
            CpuClock::Process(task) => task.process.cpu_times(),
            CpuClock::Thread(task) => task.cpu_times(),
        };
        Duration::from_nanos(user.saturating_add(system))
    }
}

/// The CPU clock that `id` names: one of the two fixed ones, or of another process or thread.
pub fn cpu_clock(cx: &Cx<'_>, id: i32) -> SysResult<CpuClock> {
    match id {
        PROCESS_CPUTIME => return Ok(CpuClock::Process(Arc::clone(cx.shared))),
        THREAD_CPUTIME => return Ok(CpuClock::Thread(Arc::clone(cx.shared))),
        0.. => return Err(Errno::EINVAL),
        _ => {}
    }
    // Negative ids hold the inverted pid above three bits (CPUCLOCK_* of Linux).
    let number = u32::try_from(!(id >> 3)).map_err(|_| Errno::EINVAL)?;
    let of_thread = id & 4 != 0;
    if id & 3 == 3 {
        return Err(Errno::EINVAL);
    }
    let task = if number == 0 {
        Arc::clone(cx.shared)
    } else {
        let ns = cx.shared_ns().ok_or(Errno::EINVAL)?;
        let tree = cx.kernel().tree.lock();
        Arc::clone(tree.find_task(&ns, number).ok_or(Errno::EINVAL)?)
    };
    if of_thread {
        if !Arc::ptr_eq(&task.process, &cx.shared.process) {
            return Err(Errno::EINVAL);
        }
        Ok(CpuClock::Thread(task))
    } else {
        Ok(CpuClock::Process(task))
    }
}

fn now(cx: &Cx<'_>, id: i32) -> SysResult<Duration> {
    use rustix::time::ClockId;
    // Those that differ from what timers count, as the vDSO reads them.
    let host = match id {
        MONOTONIC_RAW => Some(ClockId::MonotonicRaw),
        REALTIME_COARSE => Some(ClockId::RealtimeCoarse),
        MONOTONIC_COARSE => Some(ClockId::MonotonicCoarse),
        _ => None,
    };
    if let Some(host) = host {
        let time = rustix::time::clock_gettime(host);
        return Timespec { sec: time.tv_sec, nsec: time.tv_nsec }.to_duration();
    }
    match Clock::from_id(id) {
        Ok(clock) => Ok(clock.now()),
        Err(_) => Ok(cpu_clock(cx, id)?.now()),
    }
}

/// clock_gettime(2).
pub fn clock_gettime(cx: &mut Cx<'_>, id: i32, out: UserPtr<Timespec>) -> CallResult<()> {
    let value = now(cx, id)?;
    Ok(cx.write(out, &Timespec::from_duration(value))?)
}

/// clock_getres(2).
pub fn clock_getres(cx: &mut Cx<'_>, id: i32, out: UserPtr<Timespec>) -> CallResult<()> {
    if Clock::from_id(id).is_err() {
        cpu_clock(cx, id)?;
    }
    let nsec = if id == REALTIME_COARSE || id == MONOTONIC_COARSE { 4_000_000 } else { 1 };
    Ok(cx.write_if(out, &Timespec { sec: 0, nsec })?)
}

/// clock_settime(2): the sandbox cannot set the host's clock.
pub fn clock_settime(cx: &mut Cx<'_>, id: i32, time: UserPtr<Timespec>) -> CallResult<()> {
    let value = cx.read(time)?;
    value.to_duration()?;
    match id {
        0 => Err(Errno::EPERM.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// gettimeofday(2).
pub fn gettimeofday(cx: &mut Cx<'_>, out: UserPtr<Timeval>, zone: UserPtr<[i32; 2]>) -> CallResult<()> {
    cx.write_if(out, &Timeval::from_duration(Clock::Realtime.now()))?;
    Ok(cx.write_if(zone, &[0, 0])?)
}

/// settimeofday(2): as clock_settime.
pub fn settimeofday(_cx: &mut Cx<'_>, _time: UserPtr<Timeval>, _zone: UserPtr<[i32; 2]>) -> CallResult<()> {
    Err(Errno::EPERM.into())
}

/// time(2).
pub fn time(cx: &mut Cx<'_>, out: UserPtr<i64>) -> CallResult<i64> {
    let seconds = i64::try_from(Clock::Realtime.now().as_secs()).unwrap_or(i64::MAX);
    cx.write_if(out, &seconds)?;
    Ok(seconds)
}

/// `struct tms`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Tms {
    user: u64,
    system: u64,
    children_user: u64,
    children_system: u64,
}

/// times(2).
pub fn times(cx: &mut Cx<'_>, out: UserPtr<Tms>) -> CallResult<u64> {
    use crate::process::exit::ticks;
    let (user, system) = cx.shared.process.cpu_times();
    let (children_user, children_system) = cx.shared.process.times.children();
    let value = Tms {
        user: ticks(user),
        system: ticks(system),
        children_user: ticks(children_user),
        children_system: ticks(children_system),
    };
    cx.write_if(out, &value)?;
    let up = Clock::Boottime.now().as_nanos();
    Ok(ticks(u64::try_from(up).unwrap_or(u64::MAX)))
}
