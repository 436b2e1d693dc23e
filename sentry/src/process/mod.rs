//! Processes: thread groups, process groups, sessions, parents and children.
//!
//! `tree` is the shape (rank `PidTable`); [`Process`] is one thread group (rank `ProcessState`), which
//! never looks at the tree while its own lock is held.

pub mod core;
pub mod exit;
pub mod freezer;
pub mod limits;
pub mod pid;
pub mod pidfd;
pub mod session;
pub mod tree;
pub mod wait;

use crate::cgroup::Cgroup;
use crate::signal::Pending;
use crate::task::TaskShared;
use crate::time::timer::ProcessTimers;
use limits::Limits;
use lock::order::{FileObject, Leaf, ProcessState, SignalPending, TaskState};
use lock::{Ranked, WaitQueue};
use pid::Pid;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// A thread group.
pub struct Process {
    /// Thread group id; constant.
    pub pid: Arc<Pid>,
    /// Threads, exit and stop.
    pub state: Ranked<ProcessState, GroupState>,
    /// Signals for the process as a whole.
    pub pending: Ranked<SignalPending, Pending>,
    /// Queued signal instances, against RLIMIT_SIGPENDING.
    pub queued_signals: AtomicUsize,
    /// Resource limits.
    pub limits: Ranked<TaskState, Limits>,
    /// Control group; `None` for what is in no container.
    pub cgroup: Ranked<Leaf, Option<Arc<Cgroup>>>,
    /// Its container's; unset for what is in no container.
    pub freezer: OnceLock<Arc<freezer::Freezer>>,
    /// A child changed (wait4), or a thread waits for such.
    pub child_events: WaitQueue,
    /// Its own exit (pidfd).
    pub exit_events: WaitQueue,
    /// A signal was sent (signalfd).
    pub signal_events: WaitQueue,
    /// Who wants to know how it ended.
    pub ending: Ranked<Leaf, Ending>,
    /// Semaphore adjustments at exit.
    pub sem_undo: Ranked<Leaf, crate::ipc::sem::Undo>,
    /// Interval timers and POSIX timers.
    pub timers: Ranked<FileObject, ProcessTimers>,
    /// Registers of threads that have exited since a core dump began.
    pub core: Ranked<Leaf, Option<Vec<core::ThreadRecord>>>,
    /// Marks that are read without a lock.
    pub marks: Marks,
    /// CPU time of threads that are gone, and of waited-for children.
    pub times: Times,
    /// When it started.
    pub started: Instant,
}

/// Told when a process has ended.
pub type EndNotice = Box<dyn FnOnce(WaitStatus) + Send>;

/// The end of a process.
#[derive(Default)]
pub struct Ending {
    /// Set once.
    pub status: Option<WaitStatus>,
    /// Told then.
    pub notices: Vec<EndNotice>,
}

/// Marks of a process.
#[derive(Debug, Default)]
pub struct Marks {
    /// It has called execve since it was forked (setpgid: EACCES).
    pub has_executed: AtomicBool,
    /// PR_SET_CHILD_SUBREAPER.
    pub subreaper: AtomicBool,
    /// MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED.
    pub membarrier: AtomicBool,
    /// PR_SET_THP_DISABLE.
    pub no_huge_pages: AtomicBool,
    /// It has made threads, or processes in its own memory, since its last execve.
    pub shares_memory: AtomicBool,
    /// It can be waited for.
    pub ended: AtomicBool,
    /// A core file is being made.
    pub dumping: AtomicBool,
    /// Its control group is frozen (`cgroup.freeze`).
    pub frozen_by_group: AtomicBool,
    /// PR_SET_DUMPABLE says 0.
    pub undumpable: AtomicBool,
    /// Value of `/proc/pid/oom_score_adj`.
    pub oom_score_adj: AtomicI32,
    /// The lowest that a privileged process set it to: others may not go below.
    pub oom_score_adj_min: AtomicI32,
    /// Value of `/proc/pid/coredump_filter`, as bits that differ from the default.
    pub coredump_filter: AtomicU32,
    /// Who logged in (`/proc/pid/loginuid`), complemented: 0 is nobody.
    pub login: AtomicU32,
    /// Number of that login (`/proc/pid/sessionid`), complemented.
    pub login_session: AtomicU32,
}

/// CPU time in nanoseconds, and counts.
#[derive(Debug, Default)]
pub struct Times {
    /// User time of threads that have exited.
    pub user_ns: AtomicU64,
    /// System time of threads that have exited.
    pub system_ns: AtomicU64,
    /// User time of children that were waited for.
    pub children_user_ns: AtomicU64,
    /// System time of children that were waited for.
    pub children_system_ns: AtomicU64,
    /// Most resident memory in KiB, as far as it was looked at.
    max_rss: AtomicU64,
    /// The most of any child that was waited for.
    children_max_rss: AtomicU64,
    /// Calls that read and write.
    pub io: IoCounts,
}

/// What read(2) and write(2) and their kin have moved.
#[derive(Debug, Default)]
pub struct IoCounts {
    /// Reads.
    pub read: IoCount,
    /// Writes.
    pub written: IoCount,
}

/// Calls and bytes of one direction.
#[derive(Debug, Default)]
pub struct IoCount {
    /// Calls.
    pub calls: AtomicU64,
    /// Bytes.
    pub bytes: AtomicU64,
}

impl IoCount {
    /// One more call, that moved `bytes` if it succeeded.
    pub fn add(&self, bytes: Option<&usize>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(bytes) = bytes.and_then(|bytes| u64::try_from(*bytes).ok()) {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Marks {
    /// Takes over what fork inherits.
    pub fn inherit(&self, parent: &Marks) {
        self.undumpable.store(parent.undumpable.load(Ordering::Relaxed), Ordering::Relaxed);
        self.oom_score_adj.store(parent.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
        self.oom_score_adj_min.store(parent.oom_score_adj_min.load(Ordering::Relaxed), Ordering::Relaxed);
        self.coredump_filter.store(parent.coredump_filter.load(Ordering::Relaxed), Ordering::Relaxed);
        self.login.store(parent.login.load(Ordering::Relaxed), Ordering::Relaxed);
        self.login_session.store(parent.login_session.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Times {
    /// Adds a thread that is gone.
    pub fn add(&self, task: &crate::task::TaskTimes) {
        self.system_ns.fetch_add(task.system_ns(), Ordering::Relaxed);
    }
    /// Adds the user time of an address space that is left behind.
    pub fn add_space(&self, mm: &mm::MemoryManager) {
        self.user_ns.fetch_add(mm.cpu_ns(), Ordering::Relaxed);
        self.look_at(mm);
    }
    /// Notes how much memory is resident now.
    pub fn look_at(&self, mm: &mm::MemoryManager) {
        self.max_rss.fetch_max(mm.resident_about() / 1024, Ordering::Relaxed);
    }
    /// `ru_maxrss` of the process, in KiB.
    #[must_use]
    pub fn max_rss(&self) -> u64 {
        self.max_rss.load(Ordering::Relaxed)
    }
    /// `ru_maxrss` of its waited-for children, in KiB.
    #[must_use]
    pub fn children_max_rss(&self) -> u64 {
        self.children_max_rss.load(Ordering::Relaxed)
    }
    /// User and system time.
    #[must_use]
    pub fn total(&self) -> (u64, u64) {
        (self.user_ns.load(Ordering::Relaxed), self.system_ns.load(Ordering::Relaxed))
    }
    /// User and system time with that of waited-for children.
    #[must_use]
    pub fn with_children(&self) -> (u64, u64) {
        let (user, system) = self.total();
        let (more_user, more_system) = self.children();
        (user.saturating_add(more_user), system.saturating_add(more_system))
    }
    /// Time of waited-for children.
    #[must_use]
    pub fn children(&self) -> (u64, u64) {
        (self.children_user_ns.load(Ordering::Relaxed), self.children_system_ns.load(Ordering::Relaxed))
    }
    /// Adds a child that was waited for.
    pub fn add_child(&self, child: &Times) {
        let (user, system) = child.with_children();
        self.children_user_ns.fetch_add(user, Ordering::Relaxed);
        self.children_system_ns.fetch_add(system, Ordering::Relaxed);
        let most = child.max_rss().max(child.children_max_rss());
        self.children_max_rss.fetch_max(most, Ordering::Relaxed);
    }
}

/// Threads and state of a thread group.
#[derive(Default)]
pub struct GroupState {
    /// Live threads and, first, the leader (also when it has exited before the others).
    pub threads: Vec<Arc<TaskShared>>,
    /// Threads that have not exited.
    pub live: usize,
    /// Wait status once the whole group must exit.
    pub exiting: Option<WaitStatus>,
    /// How the leader exited, when others outlived it.
    pub leader_status: Option<WaitStatus>,
    /// The thread that runs execve and waits for the others to die.
    pub exec: Option<u32>,
    /// Job control.
    pub stop: StopState,
}

/// Job control of a process.
#[derive(Debug, Default)]
pub struct StopState {
    /// Signal that stops it, while it is stopping or stopped.
    pub signal: Option<abi::signal::Signal>,
    /// Threads that have yet to stop.
    pub pending: usize,
    /// All threads have stopped.
    pub stopped: bool,
    /// The stop was not yet waited for.
    pub report_stop: bool,
    /// A continue was not yet waited for.
    pub report_continue: bool,
}

/// A wait status (wait(2)) as the kernel keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitStatus(pub u32);

impl WaitStatus {
    /// exit(2) with `code`.
    #[must_use]
    pub fn exited(code: i32) -> WaitStatus {
        WaitStatus((code.cast_unsigned() & 0xff) << 8)
    }
    /// Killed by a signal.
    #[must_use]
    pub fn killed(signal: abi::signal::Signal) -> WaitStatus {
        WaitStatus(u32::from(signal.number()))
    }
    /// Killed by a signal that dumps core.
    #[must_use]
    pub fn dumped(signal: abi::signal::Signal) -> WaitStatus {
        WaitStatus(u32::from(signal.number()) | 0x80)
    }
    /// Stopped by a signal.
    #[must_use]
    pub fn stopped(signal: abi::signal::Signal) -> WaitStatus {
        WaitStatus((u32::from(signal.number()) << 8) | 0x7f)
    }
    /// Continued.
    pub const CONTINUED: WaitStatus = WaitStatus(0xffff);

    /// `si_code` and `si_status` of the SIGCHLD for an exit.
    #[must_use]
    pub fn exit_info(self) -> (i32, i32) {
        use abi::siginfo::code;
        let low = self.0 & 0x7f;
        if low == 0 {
            (code::CLD_EXITED, i32::try_from((self.0 >> 8) & 0xff).unwrap_or(0))
        } else if self.0 & 0x80 != 0 {
            (code::CLD_DUMPED, i32::try_from(low).unwrap_or(0))
        } else {
            (code::CLD_KILLED, i32::try_from(low).unwrap_or(0))
        }
    }
}

impl Process {
    /// A process without threads.
    #[must_use]
    pub fn new(pid: Arc<Pid>, limits: Limits) -> Arc<Process> {
        let process = Arc::new(Process {
            pid,
            state: Ranked::new(GroupState::default()),
            pending: Ranked::new(Pending::default()),
            queued_signals: AtomicUsize::new(0),
            limits: Ranked::new(limits),
            cgroup: Ranked::new(None),
            freezer: OnceLock::new(),
            child_events: WaitQueue::new(),
            exit_events: WaitQueue::new(),
            signal_events: WaitQueue::new(),
            ending: Ranked::new(Ending::default()),
            sem_undo: Ranked::new(Vec::new()),
            timers: Ranked::new(ProcessTimers::default()),
            core: Ranked::new(None),
            marks: Marks::default(),
            times: Times::default(),
            started: Instant::now(),
        });
        if limits.get(limits::Resource::Cpu).soft != limits::INFINITY {
            crate::time::timer::watch_cpu_limit(&process);
        }
        process
    }
    /// User and system time of all its threads so far, in nanoseconds.
    #[must_use]
    pub fn cpu_times(&self) -> (u64, u64) {
        let (mut user, mut system) = self.times.total();
        let threads = self.threads();
        for task in &threads {
            system = system.saturating_add(task.times.system_ns());
        }
        let mm = threads.first().and_then(|task| task.published.lock().mm.clone());
        user = user.saturating_add(mm.map_or(0, |mm| mm.cpu_ns()));
        (user, system)
    }
    /// Timers of a process that is gone fire no more.
    pub fn end_timers(&self) {
        let gone = std::mem::take(&mut *self.timers.lock());
        drop(gone);
    }
    /// Whether its container is paused.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.freezer.get().is_some_and(|freezer| freezer.is_frozen())
            || self.marks.frozen_by_group.load(Ordering::SeqCst)
    }
    /// A copy of the thread list.
    #[must_use]
    pub fn threads(&self) -> Vec<Arc<TaskShared>> {
        self.state.lock().threads.clone()
    }
    /// The leader, or the longest-living thread.
    #[must_use]
    pub fn leader(&self) -> Option<Arc<TaskShared>> {
        self.state.lock().threads.first().cloned()
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Process({:?})", self.pid)
    }
}
