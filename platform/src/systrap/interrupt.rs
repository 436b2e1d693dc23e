//! Making a guest thread come back.

use super::sys;
use super::template::INTERRUPT;
use crate::seam::Interrupter;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

const RUNNING: u32 = 1;
const PENDING: u32 = 2;

/// See [`crate::Context::interrupter`].
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    state: AtomicU32,
    process: AtomicI32,
    thread: AtomicI32,
}

impl Interrupts {
    /// Names the stub thread; 0 for none.
    pub(super) fn aim(&self, process: i32, thread: i32) {
        self.process.store(process, Ordering::SeqCst);
        self.thread.store(thread, Ordering::SeqCst);
    }
    /// The stub thread, which is forgotten.
    pub(super) fn forget(&self) -> i32 {
        self.thread.swap(0, Ordering::SeqCst)
    }
    /// Enters the guest, unless somebody asked for an interrupt.
    pub(super) fn enter(&self) -> bool {
        if self.state.fetch_or(RUNNING, Ordering::SeqCst) & PENDING != 0 {
            self.state.store(0, Ordering::SeqCst);
            return false;
        }
        true
    }
    /// Leaves the guest; whether somebody asked for an interrupt.
    pub(super) fn leave(&self) -> bool {
        self.state.swap(0, Ordering::SeqCst) & PENDING != 0
    }
    /// Sends the signal.
    pub(super) fn signal(&self) {
        let (process, thread) = (self.process.load(Ordering::SeqCst), self.thread.load(Ordering::SeqCst));
        if thread > 0 {
            sys::signal_thread(process, thread, INTERRUPT);
        }
    }
}

impl Interrupter for Interrupts {
    fn interrupt(&self) {
        if self.state.fetch_or(PENDING, Ordering::SeqCst) == RUNNING {
            self.signal();
        }
    }
}
