//! The kernel itself as a caller of file operations: while a container is built there is no task yet.

use abi::poll::Events;
use abi::signal::Signal;
use lock::{BlockError, Deadline, Parker, WakeTarget};
use std::sync::{Arc, Weak};
use vfs::{Blocker, Caller, Credentials, TaskView};

#[derive(Debug, Default)]
struct Place(Parker);

impl WakeTarget for Place {
    fn wake(&self, _events: Events) {
        self.0.unpark();
    }
}

/// A kernel thread with credentials.
#[derive(Debug)]
pub(super) struct KernelCaller {
    cred: Credentials,
    place: Arc<Place>,
    nobody: Nobody,
}

#[derive(Debug)]
pub(super) struct Nobody;

impl KernelCaller {
    pub(super) fn new(cred: Credentials) -> KernelCaller {
        KernelCaller { cred, place: Arc::default(), nobody: Nobody }
    }
    pub(super) fn caller(&self, umask: u32) -> Caller<'_> {
        Caller { cred: &self.cred, blocker: self, task: &self.nobody, umask }
    }
}

impl Blocker for KernelCaller {
    fn target(&self) -> Weak<dyn WakeTarget> {
        let place: Arc<dyn WakeTarget> = Arc::<Place>::clone(&self.place);
        Arc::downgrade(&place)
    }
    fn block(&self, deadline: Deadline) -> Result<(), BlockError> {
        self.place.0.park(deadline)
    }
}

impl TaskView for Nobody {
    fn tgid(&self) -> u32 {
        0
    }
    fn tid(&self) -> u32 {
        0
    }
    fn pgid(&self) -> u32 {
        0
    }
    fn sid(&self) -> u32 {
        0
    }
    fn pgrp_is_orphaned(&self) -> bool {
        true
    }
    fn blocks_or_ignores(&self, _signal: Signal) -> bool {
        true
    }
    fn raise(&self, _signal: Signal) {}
    fn signal_pgrp(&self, _pgid: u32, _signal: Signal) {}
    fn signal_process(&self, _tgid: u32, _signal: Signal) {}
    fn pgrp_in_session(&self, _pgid: u32, _sid: u32) -> bool {
        false
    }
    fn file_size_limit(&self) -> u64 {
        u64::MAX
    }
}
