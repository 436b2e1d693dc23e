//! Clocks and timers of the sandbox.

pub mod timer;

use abi::time::Timespec;
use abi::{Errno, SysResult};
use std::time::{Duration, Instant};

/// A clock that all tasks share (clock_gettime(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clock {
    /// CLOCK_REALTIME and its kin.
    Realtime,
    /// CLOCK_MONOTONIC and its kin.
    Monotonic,
    /// CLOCK_BOOTTIME.
    Boottime,
    /// CLOCK_TAI.
    Tai,
}

impl Clock {
    /// By number, for the clocks that are not of a process or thread.
    pub fn from_id(id: i32) -> SysResult<Clock> {
        Ok(match id {
            0 | 5 | 8 => Clock::Realtime,
            1 | 4 | 6 => Clock::Monotonic,
            7 | 9 => Clock::Boottime,
            11 => Clock::Tai,
            _ => return Err(Errno::EINVAL),
        })
    }
    /// The time now, since the clock's epoch.
    #[must_use]
    pub fn now(self) -> Duration {
        use rustix::time::{ClockId, clock_gettime};
        let id = match self {
            Clock::Realtime => ClockId::Realtime,
            Clock::Monotonic => ClockId::Monotonic,
            Clock::Boottime => ClockId::Boottime,
            // The sandbox knows of no leap seconds: its TAI offset is zero, as on a kernel nobody told.
            Clock::Tai => ClockId::Realtime,
        };
        let time = clock_gettime(id);
        Timespec { sec: time.tv_sec, nsec: time.tv_nsec }.to_duration().unwrap_or_default()
    }
    /// An absolute time of this clock as a point on the host's monotonic clock; a time too far away to
    /// be one is for ever.
    #[must_use]
    pub fn deadline(self, at: Duration) -> Option<Instant> {
        let left = at.checked_sub(self.now()).unwrap_or_default();
        Instant::now().checked_add(left)
    }
}
