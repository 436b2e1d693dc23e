//! The processes of one container, and whether they are frozen (`runsc pause`; the freezer of the kernel's
//! cgroup documents).
//!
//! A frozen thread sleeps at the boundary between kernel and guest; a blocked call is left for it and made
//! again after the thaw. Signals stay pending, except SIGKILL. Every process points at its container's
//! [`Freezer`], which also tells members of containers apart that share a pid namespace.

use super::Process;
use crate::kernel::Kernel;
use crate::task::{RunMode, TaskShared, Work};
use lock::Parker;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long threads may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(10);

/// One container's processes.
#[derive(Debug, Default)]
pub struct Freezer {
    frozen: AtomicBool,
    /// Told by each thread that comes to rest; the control plane's one thread sleeps here.
    settled: Parker,
}

impl Freezer {
    /// Whether its threads must not run.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.load(Ordering::SeqCst)
    }

    /// A thread has come to rest or has ended.
    pub fn settle(&self) {
        if self.is_frozen() {
            self.settled.unpark();
        }
    }

    /// The live processes that belong here.
    #[must_use]
    pub fn members(self: &Arc<Freezer>, kernel: &Kernel) -> Vec<Arc<Process>> {
        let tree = kernel.tree.lock();
        tree.nodes()
            .filter(|node| node.zombie.is_none())
            .filter(|node| node.process.freezer.get().is_some_and(|own| Arc::ptr_eq(own, self)))
            .map(|node| Arc::clone(&node.process))
            .collect()
    }

    fn tasks(self: &Arc<Freezer>, kernel: &Kernel) -> Vec<Arc<TaskShared>> {
        self.members(kernel).iter().flat_map(|process| process.threads()).collect()
    }

    /// Stops all threads and waits until they rest. Returns how many do not, after ten seconds; then
    /// nothing is frozen.
    pub fn freeze(self: &Arc<Freezer>, kernel: &Kernel) -> Result<(), usize> {
        self.frozen.store(true, Ordering::SeqCst);
        for task in self.tasks(kernel) {
            task.kick(Work::FREEZE);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A thread born meanwhile has looked at `frozen` and froze itself.
            let restless = self.tasks(kernel).iter().filter(|task| !rests(task)).count();
            if restless == 0 {
                return Ok(());
            }
            if self.settled.park(Some(deadline)).is_err() {
                self.thaw(kernel);
                return Err(restless);
            }
        }
    }

    /// Lets them run again.
    pub fn thaw(self: &Arc<Freezer>, kernel: &Kernel) {
        self.frozen.store(false, Ordering::SeqCst);
        for process in self.members(kernel) {
            release(&process);
        }
    }
}

/// Stops the threads of a process: they rest once they get to it.
pub fn hold(process: &Process) {
    for task in process.threads() {
        task.kick(Work::FREEZE);
    }
}

/// The same for a process that may not use more time now: a thread that sleeps goes on with that, and rests after it.
pub fn hold_gently(process: &Process) {
    for task in process.threads() {
        if task.mode() == RunMode::Sleeping {
            task.set_work(Work::FREEZE);
        } else {
            task.kick(Work::FREEZE);
        }
    }
}

/// Lets a process run again, unless its container or its control group still hold it.
pub fn release(process: &Process) {
    if process.is_frozen() {
        return;
    }
    for task in process.threads() {
        task.clear_work(Work::FREEZE);
        task.parker().unpark();
    }
    let timers: Vec<_> = {
        let timers = process.timers.lock();
        timers.interval.iter().flatten().chain(timers.posix.values()).cloned().collect()
    };
    timers.iter().for_each(|timer| timer.release());
}

/// Whether a thread runs neither guest code nor a call. One that job control or a tracer has stopped will
/// freeze before it goes on.
fn rests(task: &TaskShared) -> bool {
    task.is_frozen()
        || task.is_exiting()
        || matches!(task.mode(), RunMode::Stopped | RunMode::Traced | RunMode::Dead)
}

/// A new thread of a frozen container begins with freezing. Called once it is in the process tree, which a
/// freeze looks through.
pub fn attend_birth(shared: &TaskShared) {
    if shared.process.is_frozen() {
        shared.kick(Work::FREEZE);
    }
}

/// Sleeps while the container is frozen. SIGKILL ends it.
pub fn freeze_here(shared: &TaskShared) {
    shared.set_mode(RunMode::Sleeping);
    rest_while(shared, || shared.work().contains(Work::FREEZE));
    shared.set_mode(RunMode::Kernel);
}

/// Sleeps while `waits` says so, and counts as frozen when it has to be. SIGKILL ends it.
pub fn rest_while(shared: &TaskShared, waits: impl Fn() -> bool) {
    while waits() && !shared.work().contains(Work::KILL) {
        if shared.work().contains(Work::FREEZE) && !shared.is_frozen() {
            shared.set_frozen();
            settle(shared);
        }
        let _ = shared.parker().park(None);
    }
    shared.clear_frozen();
}

/// Tells the container's freezer, if it waits, to look again.
pub fn settle(shared: &TaskShared) {
    if let Some(freezer) = shared.process.freezer.get() {
        freezer.settle();
    }
}
