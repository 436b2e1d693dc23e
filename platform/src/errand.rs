//! Errands: a host thread waits for another process of ours, the stub's mapper or the gofer.
//!
//! They want a CPU too, and a change of mappings interrupts every CPU on which a thread of the same guest runs: a
//! guest thread that looks for its answer meanwhile only stands in the way.

use std::cell::Cell;

thread_local! {
    static ERRANDS: Cell<u32> = const { Cell::new(0) };
}

/// How many errands the calling thread has had so far: a number to compare.
pub(crate) fn count() -> u32 {
    ERRANDS.get()
}

/// The calling thread is about to wait for another process of ours.
pub(crate) fn begin() {
    ERRANDS.set(ERRANDS.get().wrapping_add(1));
}
