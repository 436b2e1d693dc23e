//! Who asks: what a file operation may know of the task that calls it.

use crate::cred::Credentials;
use abi::poll::Events;
use abi::signal::Signal;
use abi::time::Timespec;
use abi::{CallResult, Errno, Failure, Restart, SysResult};
use lock::{BlockError, Deadline, WaitEntry, WakeTarget};
use std::sync::{Arc, Weak};

/// A task's way to sleep. Implemented by the kernel's task, and by a plain thread in unit tests.
pub trait Blocker: Send + Sync {
    /// The target to register on wait queues.
    fn target(&self) -> Weak<dyn WakeTarget>;
    /// Sleeps until the target is woken, the task is interrupted, or the deadline passes.
    fn block(&self, deadline: Deadline) -> Result<(), BlockError>;
}

/// What names a network namespace (`IFLA_NET_NS_FD`, `IFLA_NET_NS_PID`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkOf {
    /// A descriptor of the caller's: of a namespace.
    Descriptor(i32),
    /// A process of the caller's pid namespace.
    Process(u32),
}

/// The calling process, as terminals and file ownership calls need it. Ids are those of the initial
/// pid namespace.
pub trait TaskView: Send + Sync {
    /// Thread group id.
    fn tgid(&self) -> u32;
    /// Thread group id in the caller's own pid namespace. Takes no lock.
    fn own_tgid(&self) -> u32 {
        self.tgid()
    }
    /// Thread id.
    fn tid(&self) -> u32;
    /// Process group id.
    fn pgid(&self) -> u32;
    /// Session id.
    fn sid(&self) -> u32;
    /// Whether the caller's process group is orphaned (setpgid(2)).
    fn pgrp_is_orphaned(&self) -> bool;
    /// Whether the caller blocks or ignores `signal`.
    fn blocks_or_ignores(&self, signal: Signal) -> bool;
    /// Sends a kernel signal (`SI_KERNEL`) to the calling thread (SIGPIPE, SIGXFSZ).
    fn raise(&self, signal: Signal);
    /// Sends a kernel signal to a whole process group.
    fn signal_pgrp(&self, pgid: u32, signal: Signal);
    /// Sends a signal to one process, as its owner may (F_SETOWN, SIGIO).
    fn signal_process(&self, tgid: u32, signal: Signal);
    /// Whether `pgid` names a process group of the caller's session.
    fn pgrp_in_session(&self, pgid: u32, sid: u32) -> bool;
    /// A process id as the caller's pid namespace shows it (SO_PEERCRED, TIOCGPGRP); 0 when it has none there.
    fn show_pid(&self, pid: u32) -> u32 {
        pid
    }
    /// The process id of the initial namespace that `shown` names in the caller's; `None` when nobody has it.
    fn find_pid(&self, shown: u32) -> Option<u32> {
        Some(shown)
    }
    /// The network namespace of a descriptor or a process, as the layer of sockets knows it; `None` when there is none.
    fn network_of(&self, _who: NetworkOf) -> Option<Arc<dyn std::any::Any + Send + Sync>> {
        None
    }
    /// RLIMIT_FSIZE in bytes.
    fn file_size_limit(&self) -> u64;
}

/// The caller of an operation.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// Credentials that count for permission.
    pub cred: &'a Credentials,
    /// How to sleep.
    pub blocker: &'a dyn Blocker,
    /// Who it is.
    pub task: &'a dyn TaskView,
    /// File mode creation mask.
    pub umask: u32,
}

impl Caller<'_> {
    /// Current CLOCK_REALTIME, for timestamps (coarse: the host's vDSO answers it).
    #[must_use]
    pub fn now(&self) -> Timespec {
        realtime_now()
    }
}

/// Current CLOCK_REALTIME of the sandbox.
#[must_use]
pub fn realtime_now() -> Timespec {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    Timespec { sec: t.tv_sec, nsec: t.tv_nsec }
}

/// Something one can register on and ask for readiness.
pub trait Waitable {
    /// Events that are ready now.
    fn ready(&self, interest: Events) -> Events;
    /// Adds a registration to every queue that may bring one of its events.
    fn register(&self, entry: &Arc<WaitEntry>);
    /// Takes it off again.
    fn unregister(&self, entry: &Arc<WaitEntry>);
}

/// Repeats `attempt` until it gives something other than `EAGAIN`, sleeping on `on` in between.
/// Interrupted: [`Restart::Sys`]. Deadline passed: `EAGAIN`.
pub fn wait_until<T>(
    on: &dyn Waitable,
    events: Events,
    deadline: Deadline,
    by: &Caller<'_>,
    mut attempt: impl FnMut() -> SysResult<T>,
) -> CallResult<T> {
    // The first try needs no registration: the common case does not allocate.
    match attempt() {
        Err(Errno::EAGAIN) => {}
        other => return other.map_err(Failure::from),
    }
    let entry = WaitEntry::new(by.blocker.target(), events);
    on.register(&entry);
    let result = loop {
        match attempt() {
            Err(Errno::EAGAIN) => {}
            other => break other.map_err(Failure::from),
        }
        let failure = match by.blocker.block(deadline) {
            Ok(()) => continue,
            Err(BlockError::Interrupted) => Failure::Restart(Restart::Sys),
            Err(BlockError::TimedOut) => Failure::Errno(Errno::EAGAIN),
        };
        // What came together with the signal counts: another thread may rely on that it was seen.
        break match attempt() {
            Err(Errno::EAGAIN) => Err(failure),
            other => other.map_err(Failure::from),
        };
    };
    on.unregister(&entry);
    result
}
