//! Who may look for an event for a moment instead of sleeping.
//!
//! Looking saves both sides a wake-up, which between two CPUs costs tens of microseconds, but it takes a CPU:
//! at most one thread for every two of them looks, whatever it looks for. Nobody does until somebody who knows
//! the machine has called [`allow`].

use std::sync::atomic::{AtomicU32, Ordering};

static LOOKING: AtomicU32 = AtomicU32::new(0);
static MOST: AtomicU32 = AtomicU32::new(0);

/// Lets `most` threads of this process look at once.
pub fn allow(most: u32) {
    MOST.store(most, Ordering::Relaxed);
}

/// The right to look, until it is dropped.
#[derive(Debug)]
pub struct Seat(());

impl Seat {
    /// A seat, unless all are taken.
    #[must_use]
    pub fn take() -> Option<Seat> {
        let most = MOST.load(Ordering::Relaxed);
        LOOKING
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < most).then_some(now + 1))
            .ok()
            .map(|_| Seat(()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        LOOKING.fetch_sub(1, Ordering::Relaxed);
    }
}
