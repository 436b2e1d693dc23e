//! nanosleep(2), clock_nanosleep(2).

use super::clock::cpu_clock;
use crate::task::Cx;
use crate::time::Clock;
use abi::time::Timespec;
use abi::{CallResult, Errno, Failure, Restart, UserPtr};
use lock::BlockError;
use std::time::Instant;
use vfs::Blocker;

const TIMER_ABSTIME: u32 = 1;

/// nanosleep(2).
pub fn nanosleep(cx: &mut Cx<'_>, time: UserPtr<Timespec>, left: UserPtr<Timespec>) -> CallResult<()> {
    let duration = cx.read(time)?.to_duration()?;
    let until = cx.take_restart_deadline().or_else(|| Instant::now().checked_add(duration));
    sleep(cx, until, Some(left))
}

/// clock_nanosleep(2).
pub fn clock_nanosleep(
    cx: &mut Cx<'_>,
    id: i32,
    flags: u32,
    time: UserPtr<Timespec>,
    left: UserPtr<Timespec>,
) -> CallResult<()> {
    let absolute = flags & TIMER_ABSTIME != 0;
    let Ok(clock) = Clock::from_id(id) else {
        if id == 3 {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let clock = cpu_clock(cx, id)?;
        return sleep_cpu(cx, &clock, cx.read(time)?.to_duration()?, absolute);
    };
    // The coarse clocks have no timers.
    if matches!(id, 4..=6) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let duration = cx.read(time)?.to_duration()?;
    if absolute {
        return sleep(cx, clock.deadline(duration), None);
    }
    let until = cx.take_restart_deadline().or_else(|| Instant::now().checked_add(duration));
    sleep(cx, until, Some(left))
}

fn sleep(cx: &mut Cx<'_>, until: Option<Instant>, left: Option<UserPtr<Timespec>>) -> CallResult<()> {
    loop {
        match cx.shared.block(until) {
            Ok(()) => {}
            Err(BlockError::TimedOut) => return Ok(()),
            Err(BlockError::Interrupted) => {
                let Some(left) = left else { return Err(Failure::Restart(Restart::NoHand)) };
                let rest =
                    until.map_or(std::time::Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
                cx.write_if(left, &Timespec::from_duration(rest))?;
                cx.owned.restart_deadline = until;
                return Err(Failure::Restart(Restart::Block));
            }
        }
        if until.is_some_and(|at| at <= Instant::now()) {
            return Ok(());
        }
    }
}

/// CPU clocks have no alarm: look again when the time could have passed at the earliest.
fn sleep_cpu(
    cx: &mut Cx<'_>,
    clock: &super::clock::CpuClock,
    time: std::time::Duration,
    absolute: bool,
) -> CallResult<()> {
    let start = clock.now();
    let goal = if absolute { time } else { start.saturating_add(time) };
    loop {
        let left = goal.saturating_sub(clock.now());
        if left.is_zero() {
            return Ok(());
        }
        let until = Instant::now().checked_add(left.max(std::time::Duration::from_millis(1)));
        if cx.shared.block(until) == Err(BlockError::Interrupted) {
            return Err(Failure::Restart(Restart::NoHand));
        }
    }
}
