//! The system call under way on this thread, as a number.
//!
//! What others may change (a bind mount's names and attributes) is believed for the rest of the call that asked the
//! host, and not a moment longer. A thread that serves no call believes nothing.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that a thread takes at once.
const BLOCK: u64 = 1 << 20;

static NEXT: AtomicU64 = AtomicU64::new(1);

struct Numbers {
    now: Cell<u64>,
    next: Cell<u64>,
    end: Cell<u64>,
}

thread_local! {
    static NUMBERS: Numbers = const { Numbers { now: Cell::new(0), next: Cell::new(0), end: Cell::new(0) } };
}

/// A call begins, or begins anew what it believes.
pub fn begin() {
    NUMBERS.with(|numbers| {
        if numbers.next.get() == numbers.end.get() {
            let start = NEXT.fetch_add(BLOCK, Ordering::Relaxed);
            numbers.next.set(start);
            numbers.end.set(start.wrapping_add(BLOCK));
        }
        numbers.now.set(numbers.next.get());
        numbers.next.set(numbers.next.get().wrapping_add(1));
    });
}

/// It ends.
pub fn end() {
    NUMBERS.with(|numbers| numbers.now.set(0));
}

/// When something was learnt from the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment(u64);

impl Moment {
    /// In no call: it is believed never.
    pub const NEVER: Moment = Moment(0);

    /// In the call under way.
    #[must_use]
    pub fn now() -> Moment {
        Moment(NUMBERS.with(|numbers| numbers.now.get()))
    }

    /// Whether the call that learnt it is still under way.
    #[must_use]
    pub fn is_now(self) -> bool {
        self != Moment::NEVER && self == Moment::now()
    }
}

#[cfg(test)]
mod tests {
    use super::{Moment, begin, end};

    #[test]
    fn belief_ends_with_the_call() {
        assert!(!Moment::now().is_now());
        begin();
        let here = Moment::now();
        assert!(here.is_now());
        assert!(
            !std::thread::spawn(move || {
                begin();
                here.is_now()
            })
            .join()
            .unwrap()
        );
        begin();
        assert!(!here.is_now() && Moment::now().is_now());
        end();
        assert!(!Moment::now().is_now());
    }
}
