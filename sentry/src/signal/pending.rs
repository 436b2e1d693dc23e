//! Pending signals of one thread or one thread group.
//!
//! Standard signals merge, real-time signals queue in order. Rank: `SignalPending`.

use abi::siginfo::SigInfo;
use abi::signal::{SigSet, Signal};
use std::collections::VecDeque;

/// Signals that an instruction of the thread itself caused are delivered first.
const SYNCHRONOUS: SigSet = SigSet((1 << 10) | (1 << 6) | (1 << 3) | (1 << 4) | (1 << 7) | (1 << 30));

/// A queue of pending signals.
#[derive(Debug, Default)]
pub struct Pending {
    set: SigSet,
    queue: VecDeque<SigInfo>,
}

impl Pending {
    /// Which signals are pending.
    #[must_use]
    pub fn set(&self) -> SigSet {
        self.set
    }
    /// How many instances are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }
    /// Whether nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }
    /// Adds an instance. Returns false when it merged with one that is pending already.
    pub fn push(&mut self, signal: Signal, info: SigInfo) -> bool {
        if !signal.is_realtime() && self.set.contains(signal) {
            return false;
        }
        self.set.insert(signal);
        self.queue.push_back(info);
        true
    }
    /// Marks a signal pending without its details (the queue is full).
    pub fn mark(&mut self, signal: Signal) {
        self.set.insert(signal);
    }
    /// Takes the next instance of a signal in `wanted`.
    pub fn take(&mut self, wanted: SigSet) -> Option<(Signal, SigInfo)> {
        let ready = self.set.intersection(wanted);
        let signal = ready.intersection(SYNCHRONOUS).first().or_else(|| ready.first())?;
        let number = i32::from(signal.number());
        let Some(at) = self.queue.iter().position(|info| info.signo == number) else {
            self.set.remove(signal);
            return Some((signal, SigInfo::from_sender(signal, 0, 0, 0)));
        };
        let info = self.queue.remove(at)?;
        if !self.queue.iter().any(|info| info.signo == number) {
            self.set.remove(signal);
        }
        Some((signal, info))
    }
    /// Drops every instance of the signals in `which`.
    pub fn discard(&mut self, which: SigSet) {
        self.set = self.set.difference(which);
        let keep = self.set;
        self.queue.retain(|info| info.signal().is_some_and(|signal| keep.contains(signal)));
    }
    /// Drops one POSIX timer's queued instance; returns whether there was one.
    pub fn has_timer(&self, signal: Signal, timer: u32) -> bool {
        self.queue.iter().any(|info| {
            info.signo == i32::from(signal.number())
                && info.code == abi::siginfo::code::SI_TIMER
                && info.pid() == timer
        })
    }
    /// The queued instances (PTRACE_PEEKSIGINFO).
    pub fn iter(&self) -> impl Iterator<Item = &SigInfo> {
        self.queue.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_merge_realtime_queue_faults_first() {
        let mut pending = Pending::default();
        let rt = Signal::new(40).unwrap();
        assert!(pending.push(Signal::SIGHUP, SigInfo::kernel(Signal::SIGHUP)));
        assert!(!pending.push(Signal::SIGHUP, SigInfo::kernel(Signal::SIGHUP)));
        assert!(pending.push(rt, SigInfo::kernel(rt)));
        assert!(pending.push(rt, SigInfo::kernel(rt)));
        assert!(pending.push(Signal::SIGSEGV, SigInfo::kernel(Signal::SIGSEGV)));
        let order: Vec<_> = std::iter::from_fn(|| pending.take(SigSet::ALL)).map(|(s, _)| s).collect();
        assert_eq!(order, vec![Signal::SIGSEGV, Signal::SIGHUP, rt, rt]);
        assert!(pending.is_empty());
    }
}
