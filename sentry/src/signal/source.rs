//! Signals as signalfd(2) reads them: always those of the calling task.

use super::send;
use crate::task::run::current;
use abi::siginfo::SigInfo;
use abi::signal::SigSet;
use lock::WaitEntry;
use std::sync::Arc;
use vfs::event::signalfd::{SIGNALFD_SIGINFO, SignalSource};
use zerocopy::IntoBytes;

#[derive(Debug)]
struct CallingTask;

/// The source behind every signalfd.
#[must_use]
pub fn signal_source() -> Arc<dyn SignalSource> {
    Arc::new(CallingTask)
}

/// `struct signalfd_siginfo` of a signal.
fn pack(info: &SigInfo) -> [u8; SIGNALFD_SIGINFO] {
    let mut out = [0; SIGNALFD_SIGINFO];
    let [first, second, third, fourth, ..] = info.fields;
    let low = |v: u64| u32::try_from(v & 0xffff_ffff).unwrap_or(0);
    let high = |v: u64| u32::try_from(v >> 32).unwrap_or(0);
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(slot) = out.get_mut(at..at.saturating_add(bytes.len())) {
            slot.copy_from_slice(bytes);
        }
    };
    put(0, info.signo.as_bytes());
    put(4, info.errno.as_bytes());
    put(8, info.code.as_bytes());
    match (info.signo, info.code) {
        (_, abi::siginfo::code::SI_TIMER) => {
            put(24, low(first).as_bytes());
            put(32, high(first).as_bytes());
            put(44, low(second).as_bytes());
            put(48, second.as_bytes());
        }
        // SIGILL, SIGBUS, SIGFPE, SIGSEGV, SIGTRAP of the kernel carry an address.
        (4 | 5 | 7 | 8 | 11, code) if code > 0 => put(72, first.as_bytes()),
        (17, code) if code > 0 => {
            put(12, low(first).as_bytes());
            put(16, high(first).as_bytes());
            put(40, low(second).as_bytes());
            put(56, third.as_bytes());
            put(64, fourth.as_bytes());
        }
        _ => {
            put(12, low(first).as_bytes());
            put(16, high(first).as_bytes());
            put(44, low(second).as_bytes());
            put(48, second.as_bytes());
        }
    }
    out
}

impl SignalSource for CallingTask {
    fn dequeue(&self, set: SigSet) -> Option<[u8; SIGNALFD_SIGINFO]> {
        let task = current()?;
        send::take(&task, set).map(|(_, info)| pack(&info))
    }
    fn is_pending(&self, set: SigSet) -> bool {
        current().is_some_and(|task| !send::pending_set(&task).intersection(set).is_empty())
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        if let Some(task) = current() {
            task.process.signal_events.register(entry);
        }
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        if let Some(task) = current() {
            task.process.signal_events.unregister(entry);
        }
    }
}
