//! Which terminal controls which session, and the devices that depend on it. Lock: `Leaf`.

use super::fs::DevPts;
use super::tty::Tty;
use crate::caller::Caller;
use abi::signal::Signal;
use lock::Ranked;
use lock::order::Leaf;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

/// Sends signals of terminals where no task is at hand (typed on a host terminal, hang-up). Implemented by
/// the kernel. Called without locks of this crate.
pub trait TtySignals: Send + Sync {
    /// To a process group (initial pid namespace), as the kernel.
    fn signal_pgrp(&self, pgid: u32, signal: Signal);
    /// To the leader of a session.
    fn signal_leader(&self, sid: u32, signal: Signal);
}

/// The terminals of a sandbox.
#[derive(Default)]
pub struct Terminals {
    signals: OnceLock<Arc<dyn TtySignals>>,
    sessions: Ranked<Leaf, HashMap<u32, Weak<Tty>>>,
    console: Ranked<Leaf, Weak<Tty>>,
    instances: Ranked<Leaf, Vec<Weak<DevPts>>>,
}

impl std::fmt::Debug for Terminals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Terminals")
    }
}

impl Terminals {
    /// Without any terminal.
    #[must_use]
    pub fn new() -> Arc<Terminals> {
        Arc::new(Terminals::default())
    }
    /// Who sends signals; the kernel calls it once.
    pub fn set_signals(&self, signals: Arc<dyn TtySignals>) {
        let _ = self.signals.set(signals);
    }
    pub(super) fn signal_pgrp(&self, pgid: u32, signal: Signal, by: Option<&Caller<'_>>) {
        match (self.signals.get(), by) {
            (Some(signals), _) => signals.signal_pgrp(pgid, signal),
            (None, Some(by)) => by.task.signal_pgrp(pgid, signal),
            (None, None) => {}
        }
    }
    pub(super) fn signal_leader(&self, sid: u32, signal: Signal) {
        if let Some(signals) = self.signals.get() {
            signals.signal_leader(sid, signal);
        }
    }
    /// The controlling terminal of a session.
    #[must_use]
    pub fn controlling(&self, sid: u32) -> Option<Arc<Tty>> {
        self.sessions.lock().get(&sid).and_then(Weak::upgrade)
    }
    pub(super) fn set_controlling(&self, sid: u32, tty: Option<&Arc<Tty>>) {
        let mut sessions = self.sessions.lock();
        match tty {
            Some(tty) => {
                sessions.insert(sid, Arc::downgrade(tty));
            }
            None => {
                sessions.remove(&sid);
            }
        }
    }
    /// The leader of session `sid` has exited: the terminal is free, its foreground group hears SIGHUP.
    pub fn session_ended(&self, sid: u32) {
        if let Some(tty) = self.controlling(sid) {
            tty.release_session(sid);
        }
        self.set_controlling(sid, None);
    }
    /// What `/dev/console` is.
    pub fn set_console(&self, tty: &Arc<Tty>) {
        *self.console.lock() = Arc::downgrade(tty);
    }
    /// The terminal behind `/dev/console`.
    #[must_use]
    pub fn console(&self) -> Option<Arc<Tty>> {
        self.console.lock().upgrade()
    }
    pub(super) fn add_instance(&self, fs: &Arc<DevPts>) {
        let mut instances = self.instances.lock();
        instances.retain(|i| i.strong_count() > 0);
        instances.push(Arc::downgrade(fs));
    }
    /// The instance a `/dev/ptmx` outside any devpts stands for: the oldest.
    pub(super) fn first_instance(&self) -> Option<Arc<DevPts>> {
        self.instances.lock().iter().find_map(Weak::upgrade)
    }
}
