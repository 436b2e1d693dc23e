//! One task thread's place to sleep.
//!
//! Threads that hand work to each other wake each other within microseconds: before it sleeps, a thread looks for
//! its token for a moment, as long as that pays.

use crate::seat::Seat;
use abi::Errno;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Until when to sleep: a point of the host's monotonic clock, or for ever.
pub type Deadline = Option<Instant>;

/// Why a sleep ended without the awaited event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockError {
    /// A signal, a stop, a kill or a freeze wants the task.
    Interrupted,
    /// The deadline passed.
    TimedOut,
}

const IDLE: u32 = 0;
const NOTIFIED: u32 = 1;
const SLEEPING: u32 = 2;

/// How long to look for the token.
const WINDOW: Duration = Duration::from_micros(20);
/// After so many failures in a row, only every 2 to the power of this sleep begins with a look.
const RAREST: u32 = 8;
/// Successes that a failure undoes.
const WORTH: u32 = 2;

/// A binary semaphore on a futex word: `unpark` before `park` is not lost.
#[derive(Debug, Default)]
pub struct Parker {
    word: AtomicU32,
    /// What looking has brought; only the owner thread uses it.
    looks: Looks,
}

#[derive(Debug, Default)]
struct Looks {
    /// Sleeps that begin without a look.
    wait: AtomicU32,
    failures: AtomicU32,
}

impl Looks {
    const fn new() -> Looks {
        Looks { wait: AtomicU32::new(0), failures: AtomicU32::new(0) }
    }
    fn may(&self) -> Option<Seat> {
        let wait = self.wait.load(Ordering::Relaxed);
        if wait > 0 {
            self.wait.store(wait - 1, Ordering::Relaxed);
            return None;
        }
        Seat::take()
    }
    fn learn(&self, found: Found) {
        let failures = self.failures.load(Ordering::Relaxed);
        let failures = match found {
            Found::Yes => failures.saturating_sub(1),
            Found::No => (failures + WORTH).min(RAREST),
        };
        self.failures.store(failures, Ordering::Relaxed);
        if found == Found::No {
            self.wait.store(1 << failures, Ordering::Relaxed);
        }
    }
}

/// What a look came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Yes,
    No,
}

impl Parker {
    /// A parker without a pending token.
    #[must_use]
    pub const fn new() -> Parker {
        Parker { word: AtomicU32::new(IDLE), looks: Looks::new() }
    }

    /// Leaves a token; wakes the sleeper if there is one.
    pub fn unpark(&self) {
        if self.word.swap(NOTIFIED, Ordering::Release) == SLEEPING {
            // Only the owner thread sleeps here, so one wake is all.
            let _ = rustix::thread::futex::wake(&self.word, rustix::thread::futex::Flags::PRIVATE, 1);
        }
    }

    /// Takes a pending token without sleeping.
    pub fn take(&self) -> bool {
        self.word.compare_exchange(NOTIFIED, IDLE, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Looks for a token for a moment, if that is worth it.
    fn look(&self) -> bool {
        let Some(_seat) = self.looks.may() else { return false };
        let start = Instant::now();
        while start.elapsed() < WINDOW {
            for _ in 0..32 {
                if self.word.load(Ordering::Relaxed) == NOTIFIED && self.take() {
                    self.looks.learn(Found::Yes);
                    return true;
                }
                std::hint::spin_loop();
            }
        }
        self.looks.learn(Found::No);
        false
    }

    /// Sleeps until a token arrives (taken) or the deadline passes. Only the owner thread calls it.
    pub fn park(&self, deadline: Deadline) -> Result<(), BlockError> {
        if self.take() || self.look() {
            return Ok(());
        }
        loop {
            if self.take() {
                return Ok(());
            }
            if self.word.compare_exchange(IDLE, SLEEPING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            let timeout = match deadline {
                None => None,
                Some(at) => match at.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => Some(to_host(left)),
                    _ => return self.expire(),
                },
            };
            let slept = rustix::thread::futex::wait(
                &self.word,
                rustix::thread::futex::Flags::PRIVATE,
                SLEEPING,
                timeout.as_ref(),
            );
            if matches!(slept, Err(rustix::io::Errno::TIMEDOUT)) {
                return self.expire();
            }
            // Woken, spurious or EINTR: fall back to IDLE unless a token is there.
            let _ = self.word.compare_exchange(SLEEPING, IDLE, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    fn expire(&self) -> Result<(), BlockError> {
        match self.word.swap(IDLE, Ordering::AcqRel) {
            NOTIFIED => Ok(()),
            _ => Err(BlockError::TimedOut),
        }
    }
}

fn to_host(left: Duration) -> rustix::time::Timespec {
    rustix::time::Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(left.subsec_nanos()),
    }
}

impl From<BlockError> for Errno {
    /// The plain mapping; calls that restart look at the variant instead.
    fn from(error: BlockError) -> Errno {
        match error {
            BlockError::Interrupted => Errno::EINTR,
            BlockError::TimedOut => Errno::ETIMEDOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn token_before_park_is_kept() {
        let parker = Parker::new();
        parker.unpark();
        assert_eq!(parker.park(None), Ok(()));
    }

    #[test]
    fn deadline_passes() {
        let parker = Parker::new();
        let until = Instant::now() + Duration::from_millis(5);
        assert_eq!(parker.park(Some(until)), Err(BlockError::TimedOut));
    }

    #[test]
    fn wakes_across_threads() {
        let parker = Arc::new(Parker::new());
        let other = Arc::clone(&parker);
        let thread = std::thread::spawn(move || other.park(None));
        parker.unpark();
        assert_eq!(thread.join().unwrap(), Ok(()));
    }
}
