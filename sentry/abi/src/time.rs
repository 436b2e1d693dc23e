//! Time structures of the ABI (`linux/time.h`, 64-bit layouts).

use crate::{Errno, SysResult};
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct timespec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timespec {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, `0..1_000_000_000` when valid.
    pub nsec: i64,
}

/// `struct timeval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timeval {
    /// Seconds.
    pub sec: i64,
    /// Microseconds, `0..1_000_000` when valid.
    pub usec: i64,
}

/// `struct itimerspec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Itimerspec {
    /// Period; zero for one shot.
    pub interval: Timespec,
    /// First expiry; zero disarms.
    pub value: Timespec,
}

/// `struct itimerval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Itimerval {
    /// Period; zero for one shot.
    pub interval: Timeval,
    /// First expiry; zero disarms.
    pub value: Timeval,
}

impl Timespec {
    /// A relative time; `EINVAL` when negative or not normalised.
    pub fn to_duration(self) -> SysResult<Duration> {
        let sec = u64::try_from(self.sec).map_err(|_| Errno::EINVAL)?;
        let nsec = u32::try_from(self.nsec).map_err(|_| Errno::EINVAL)?;
        if nsec >= 1_000_000_000 {
            return Err(Errno::EINVAL);
        }
        Ok(Duration::new(sec, nsec))
    }
    /// From a duration since an epoch; saturates at the year 292277026596.
    #[must_use]
    pub fn from_duration(value: Duration) -> Timespec {
        Timespec {
            sec: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
            nsec: i64::from(value.subsec_nanos()),
        }
    }
}

impl Timeval {
    /// A relative time; `EINVAL` when negative or not normalised.
    pub fn to_duration(self) -> SysResult<Duration> {
        if !(0..1_000_000).contains(&self.usec) {
            return Err(Errno::EINVAL);
        }
        Timespec { sec: self.sec, nsec: self.usec.saturating_mul(1000) }.to_duration()
    }
    /// From a duration, cut to microseconds.
    #[must_use]
    pub fn from_duration(value: Duration) -> Timeval {
        let t = Timespec::from_duration(value);
        Timeval { sec: t.sec, usec: t.nsec / 1000 }
    }
}
