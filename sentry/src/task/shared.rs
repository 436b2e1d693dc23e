//! What other threads may touch of a task.

use super::memory::MemoryManager;
use super::run::current;
use super::{FsContext, TaskTimes, owned};
use crate::files::FdTable;
use crate::kernel::Kernel;
use crate::namespace::NsProxy;
use crate::process::Process;
use crate::process::limits::Resource;
use crate::process::pid::Pid;
use crate::signal::send::Force;
use crate::signal::{Pending, SignalHandlers};
use crate::syscalls::system::sched::Sched;
use abi::poll::Events;
use abi::siginfo::SigInfo;
use abi::signal::{SigSet, Signal};
use lock::order::{Leaf, PtraceState, SignalPending, TaskState};
use lock::{BlockError, Deadline, Parker, Ranked, WakeTarget};
use platform::Interrupter;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use vfs::{Blocker, Credentials, NetworkOf, TaskView};

bitflags::bitflags! {
    /// Why a task must leave the guest or its sleep.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Work: u32 {
        /// An unblocked signal may be pending.
        const SIGNAL = 1;
        /// The thread must exit.
        const KILL = 2;
        /// The process stops.
        const STOP = 4;
        /// A tracer wants it.
        const TRACE = 8;
        /// The container is paused.
        const FREEZE = 16;
        /// The process was continued: its parent is to be told.
        const CONTINUED = 32;
        /// Another thread gave it seccomp filters.
        const SECCOMP = 64;
        /// It was charged memory beyond a limit of its control group.
        const MEMORY = 128;
    }
}

const EXITING: u32 = 1;
const TRACED: u32 = 2;
const NO_NEW_PRIVS: u32 = 4;
const INTERRUPT: u32 = 8;
const FROZEN: u32 = 16;

/// Where a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunMode {
    /// In the kernel.
    Kernel,
    /// In guest code (or about to enter it).
    Guest,
    /// Sleeping, interruptible.
    Sleeping,
    /// Stopped by job control.
    Stopped,
    /// Stopped for its tracer.
    Traced,
    /// Exited, not yet reaped.
    Dead,
}

impl RunMode {
    fn number(self) -> u8 {
        match self {
            RunMode::Kernel => 0,
            RunMode::Guest => 1,
            RunMode::Sleeping => 2,
            RunMode::Stopped => 3,
            RunMode::Traced => 4,
            RunMode::Dead => 5,
        }
    }
    /// The letter of /proc/pid/stat.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            RunMode::Kernel | RunMode::Guest => 'R',
            RunMode::Sleeping => 'S',
            RunMode::Stopped => 'T',
            RunMode::Traced => 't',
            RunMode::Dead => 'Z',
        }
    }
}

/// Copies of what a task uses, for /proc and for other tasks.
#[derive(Clone)]
pub struct Published {
    /// Program name.
    pub comm: [u8; 16],
    /// The name as the task itself last knew it: another thread may have changed it since.
    pub own_comm: [u8; 16],
    /// Settings of the task that /proc shows.
    pub marks: PublishedMarks,
    /// Credentials.
    pub cred: Arc<Credentials>,
    /// Address space; `None` after exit.
    pub mm: Option<Arc<MemoryManager>>,
    /// Descriptor table; `None` after exit.
    pub files: Option<Arc<FdTable>>,
    /// Root and working directory; `None` after exit.
    pub fs: Option<Arc<FsContext>>,
    /// Namespaces.
    pub ns: Arc<NsProxy>,
    /// Signal actions.
    pub handlers: Arc<SignalHandlers>,
    /// Thread id.
    pub pid: Arc<Pid>,
}

/// Settings of a task that /proc shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PublishedMarks {
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// 0: none, 1: strict, 2: filters.
    pub seccomp_mode: u8,
    /// How many filters.
    pub seccomp_filters: u32,
    /// personality(2).
    pub personality: u32,
    /// PR_SET_TIMERSLACK.
    pub timer_slack_ns: u64,
}

impl Published {
    /// The program's name as text.
    #[must_use]
    pub fn comm_text(&self) -> String {
        owned::comm_text(&self.comm)
    }
}

/// A thread of a guest, as others see it.
pub struct TaskShared {
    /// The sandbox's kernel.
    pub kernel: Arc<Kernel>,
    /// Its process.
    pub process: Arc<Process>,
    /// Copies of what it uses.
    pub published: Ranked<TaskState, Published>,
    /// Signals for this thread alone.
    pub pending: Ranked<SignalPending, Pending>,
    /// Blocked signals: written by the thread, read by senders.
    /// Its tracer.
    pub trace: Ranked<PtraceState, Option<crate::ptrace::Trace>>,
    /// Seccomp filters, as others see and set them.
    filters: Ranked<Leaf, Option<Arc<crate::seccomp::Filters>>>,
    /// Scheduling settings.
    pub sched: Ranked<Leaf, Sched>,
    /// CPU time.
    pub times: TaskTimes,
    /// PR_SET_PDEATHSIG; 0 for none.
    pub death_signal: AtomicU32,
    personality: AtomicU32,
    entries: AtomicU64,
    robust: AtomicU64,
    mask: AtomicU64,
    /// Signals that sigtimedwait waits for, although blocked.
    awaits: AtomicU64,
    /// Signals that an instruction of the thread caused: init dies of them too.
    forced: AtomicU64,
    tid: AtomicU32,
    work: AtomicU32,
    flags: AtomicU32,
    mode: AtomicU8,
    parker: Parker,
    interrupter: Ranked<Leaf, Option<Arc<dyn Interrupter>>>,
    me: Weak<TaskShared>,
}

impl TaskShared {
    /// A task that does not run yet.
    #[must_use]
    pub fn new(
        kernel: Arc<Kernel>,
        process: Arc<Process>,
        published: Published,
        mask: u64,
    ) -> Arc<TaskShared> {
        let tid = published.pid.root();
        Arc::new_cyclic(|me| TaskShared {
            kernel,
            process,
            published: Ranked::new(published),
            pending: Ranked::new(Pending::default()),
            trace: Ranked::new(None),
            filters: Ranked::new(None),
            sched: Ranked::new(current().map_or_else(Sched::default, |parent| parent.sched.lock().inherit())),
            times: TaskTimes::default(),
            personality: AtomicU32::new(0),
            death_signal: AtomicU32::new(0),
            entries: AtomicU64::new(0),
            robust: AtomicU64::new(0),
            mask: AtomicU64::new(mask),
            awaits: AtomicU64::new(0),
            forced: AtomicU64::new(0),
            flags: AtomicU32::new(0),
            tid: AtomicU32::new(tid),
            work: AtomicU32::new(0),
            mode: AtomicU8::new(RunMode::Kernel.number()),
            parker: Parker::new(),
            interrupter: Ranked::new(None),
            me: Weak::clone(me),
        })
    }
    /// Another thread of the process gives it a name (/proc/pid/task/tid/comm).
    pub fn rename(&self, comm: [u8; 16]) {
        self.published.lock().comm = comm;
    }
    /// Number in the root pid namespace.
    #[must_use]
    pub fn tid(&self) -> u32 {
        self.tid.load(Ordering::Relaxed)
    }
    /// execve(2) by a thread that is not the leader gives it the leader's id.
    pub fn set_tid(&self, tid: u32) {
        self.tid.store(tid, Ordering::Relaxed);
    }
    /// Blocked signals.
    #[must_use]
    pub fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::SeqCst))
    }
    /// Only by the thread itself (see `signal::set_mask`, which looks for signals that become ready).
    pub fn store_mask(&self, mask: SigSet) {
        self.mask.store(mask.0, Ordering::SeqCst);
    }
    /// Signals that the thread waits for although they are blocked.
    #[must_use]
    pub fn awaits(&self) -> SigSet {
        SigSet(self.awaits.load(Ordering::SeqCst))
    }
    /// Only by the thread itself, around sigtimedwait.
    pub fn set_awaits(&self, set: SigSet) {
        self.awaits.store(set.0, Ordering::SeqCst);
    }
    /// A signal that the thread's own instruction caused is on its way.
    pub fn mark_forced(&self, signal: Signal) {
        self.forced.fetch_or(SigSet::of(signal).0, Ordering::Relaxed);
    }
    /// Whether `signal` was caused by the thread itself; forgets it.
    pub fn take_forced(&self, signal: Signal) -> bool {
        let bit = SigSet::of(signal).0;
        self.forced.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }
    /// Whether the thread is on its way out.
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & EXITING != 0
    }
    /// Says that it takes no more signals.
    pub fn set_exiting(&self) {
        self.flags.fetch_or(EXITING, Ordering::SeqCst);
    }
    /// Whether a tracer is attached.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & TRACED != 0
    }
    /// Marks it traced or not.
    pub fn set_traced(&self, tracer: Option<u32>) {
        if tracer.is_some() {
            self.flags.fetch_or(TRACED, Ordering::SeqCst);
        } else {
            self.flags.fetch_and(!TRACED, Ordering::SeqCst);
        }
    }
    /// What the task has to do before it goes on.
    #[must_use]
    pub fn work(&self) -> Work {
        Work::from_bits_retain(self.work.load(Ordering::SeqCst))
    }
    /// Gives it work and gets it out of the guest or its sleep.
    pub fn kick(&self, work: Work) {
        self.work.fetch_or(work.bits(), Ordering::SeqCst);
        if self.mode.load(Ordering::SeqCst) == RunMode::Guest.number() {
            let interrupter = self.interrupter.lock().clone();
            if let Some(interrupter) = interrupter {
                interrupter.interrupt();
            }
        } else {
            self.parker.unpark();
        }
    }
    /// Gives the calling thread itself work: it sees to that before it enters the guest.
    pub fn set_work(&self, work: Work) {
        self.work.fetch_or(work.bits(), Ordering::SeqCst);
    }
    /// Takes work off.
    pub fn clear_work(&self, work: Work) {
        self.work.fetch_and(!work.bits(), Ordering::SeqCst);
    }
    /// personality(2), for /proc.
    pub fn set_personality(&self, persona: u32) {
        self.personality.store(persona, Ordering::Relaxed);
    }
    /// See [`TaskShared::set_personality`].
    #[must_use]
    pub fn personality(&self) -> u32 {
        self.personality.load(Ordering::Relaxed)
    }
    /// no_new_privs, for /proc.
    pub fn set_no_new_privs(&self) {
        self.flags.fetch_or(NO_NEW_PRIVS, Ordering::Relaxed);
    }
    /// See [`TaskShared::set_no_new_privs`].
    #[must_use]
    pub fn no_new_privs(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & NO_NEW_PRIVS != 0
    }
    /// PTRACE_INTERRUPT is under way.
    pub fn set_interrupt(&self) {
        self.flags.fetch_or(INTERRUPT, Ordering::SeqCst);
    }
    /// Whether PTRACE_INTERRUPT was asked; forgets it.
    pub fn take_interrupt(&self) -> bool {
        self.flags.fetch_and(!INTERRUPT, Ordering::SeqCst) & INTERRUPT != 0
    }
    /// It sleeps because its container is paused. Only the thread itself calls it.
    pub fn set_frozen(&self) {
        self.flags.fetch_or(FROZEN, Ordering::SeqCst);
    }
    /// It goes on.
    pub fn clear_frozen(&self) {
        self.flags.fetch_and(!FROZEN, Ordering::SeqCst);
    }
    /// Whether it sleeps because its container is paused.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & FROZEN != 0
    }
    /// Its seccomp filters.
    #[must_use]
    pub fn seccomp(&self) -> Option<Arc<crate::seccomp::Filters>> {
        self.filters.lock().clone()
    }
    /// Shows its seccomp filters, or gives it new ones (then with work to take them over).
    pub fn set_seccomp(&self, filters: Option<Arc<crate::seccomp::Filters>>) {
        let old = std::mem::replace(&mut *self.filters.lock(), filters);
        drop(old);
    }
    /// Gets it out of the guest once, without work to do.
    pub fn interrupt_guest(&self) {
        let interrupter = self.interrupter.lock().clone();
        if let Some(interrupter) = interrupter {
            interrupter.interrupt();
        }
    }
    /// How often it has entered the guest.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries.load(Ordering::SeqCst)
    }
    /// About to enter the guest. Only the thread itself calls it.
    pub fn enter_guest(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.set_mode(RunMode::Guest);
    }
    /// set_robust_list(2), for get_robust_list of others.
    pub fn set_robust_list(&self, head: abi::UserAddr) {
        self.robust.store(head.raw(), Ordering::Relaxed);
    }
    /// See [`TaskShared::set_robust_list`].
    #[must_use]
    pub fn robust_list(&self) -> abi::UserAddr {
        abi::UserAddr::new(self.robust.load(Ordering::Relaxed))
    }
    /// User and system time in nanoseconds. The address space's user time is shared out evenly.
    #[must_use]
    pub fn cpu_times(&self) -> (u64, u64) {
        let threads = u64::try_from(self.process.state.lock().live.max(1)).unwrap_or(1);
        let (user, _) = self.process.cpu_times();
        (user / threads, self.times.system_ns())
    }
    /// Says where the task is. Only the thread itself calls it.
    pub fn set_mode(&self, mode: RunMode) {
        self.mode.store(mode.number(), Ordering::SeqCst);
    }
    /// Where the task is.
    #[must_use]
    pub fn mode(&self) -> RunMode {
        match self.mode.load(Ordering::Relaxed) {
            0 => RunMode::Kernel,
            1 => RunMode::Guest,
            2 => RunMode::Sleeping,
            3 => RunMode::Stopped,
            4 => RunMode::Traced,
            _ => RunMode::Dead,
        }
    }
    /// How to get it out of the guest; set by the thread itself.
    pub fn set_interrupter(&self, interrupter: Arc<dyn Interrupter>) {
        *self.interrupter.lock() = Some(interrupter);
    }
    /// The place where it sleeps.
    #[must_use]
    pub fn parker(&self) -> &Parker {
        &self.parker
    }
    /// An owned reference to itself.
    #[must_use]
    pub fn myself(&self) -> Option<Arc<TaskShared>> {
        self.me.upgrade()
    }
}

impl WakeTarget for TaskShared {
    fn wake(&self, _events: Events) {
        self.parker.unpark();
    }
}

impl Blocker for TaskShared {
    fn target(&self) -> Weak<dyn WakeTarget> {
        let me: Weak<TaskShared> = Weak::clone(&self.me);
        me
    }
    fn block(&self, deadline: Deadline) -> Result<(), BlockError> {
        if !self.work().is_empty() {
            return Err(BlockError::Interrupted);
        }
        self.set_mode(RunMode::Sleeping);
        let result = self.parker.park(deadline);
        self.set_mode(RunMode::Kernel);
        result
    }
}

impl TaskView for TaskShared {
    fn tgid(&self) -> u32 {
        self.process.pid.root()
    }
    fn own_tgid(&self) -> u32 {
        self.process.pid.own()
    }
    fn tid(&self) -> u32 {
        self.tid()
    }
    fn pgid(&self) -> u32 {
        self.kernel.tree.lock().node(self.process.pid.root()).map_or(0, |node| node.pgid.root())
    }
    fn sid(&self) -> u32 {
        self.kernel.tree.lock().node(self.process.pid.root()).map_or(0, |node| node.sid.root())
    }
    fn pgrp_is_orphaned(&self) -> bool {
        let tree = self.kernel.tree.lock();
        tree.node(self.process.pid.root()).is_none_or(|node| tree.is_orphaned(node.pgid.root()))
    }
    fn blocks_or_ignores(&self, signal: Signal) -> bool {
        let handlers = Arc::clone(&self.published.lock().handlers);
        self.mask().contains(signal) || handlers.get(signal).handler == abi::siginfo::SigAction::IGN
    }
    fn raise(&self, signal: Signal) {
        if let Some(me) = self.myself() {
            // Only a full queue of real-time signals refuses, and this is none.
            let _ = crate::signal::send::to_task(&me, SigInfo::kernel(signal), Force::Yes);
        }
    }
    fn signal_pgrp(&self, pgid: u32, signal: Signal) {
        crate::signal::terminal::to_group(&self.kernel, pgid, signal);
    }
    fn signal_process(&self, tgid: u32, signal: Signal) {
        let process = self.kernel.tree.lock().node(tgid).map(|node| Arc::clone(&node.process));
        if let Some(process) = process {
            let _ = crate::signal::send::to_process(&process, SigInfo::kernel(signal), Force::Yes);
        }
    }
    fn show_pid(&self, pid: u32) -> u32 {
        let Some(ns) = self.process.pid.ns() else { return pid };
        let tree = self.kernel.tree.lock();
        let id = tree.node(pid).map(|node| Arc::clone(&node.process.pid));
        // A group outlives its leader.
        let id = id.or_else(|| tree.group(pid).next().map(|node| Arc::clone(&node.pgid)));
        id.map_or(0, |id| id.seen_in(ns))
    }
    fn find_pid(&self, shown: u32) -> Option<u32> {
        self.process.pid.ns()?.find(shown).map(|id| id.root())
    }
    fn pgrp_in_session(&self, pgid: u32, sid: u32) -> bool {
        self.kernel.tree.lock().group(pgid).any(|node| node.sid.root() == sid)
    }
    fn network_of(&self, who: NetworkOf) -> Option<Arc<dyn std::any::Any + Send + Sync>> {
        let net = match who {
            NetworkOf::Process(shown) => {
                let root = self.find_pid(shown)?;
                let process = self.kernel.tree.lock().node(root).map(|node| Arc::clone(&node.process))?;
                let published = process.leader()?.published.lock().clone();
                Arc::clone(&published.ns.net)
            }
            NetworkOf::Descriptor(fd) => {
                let files = self.published.lock().files.clone()?;
                let file = files.get(abi::Fd::new(fd)).ok()?;
                match crate::procfs::NsHandle::of_file(&file)? {
                    crate::procfs::NsHandle::Net(ns) => ns,
                    _ => return None,
                }
            }
        };
        Some(net)
    }
    fn file_size_limit(&self) -> u64 {
        self.process.limits.lock().get(Resource::Fsize).soft
    }
}

impl std::fmt::Debug for TaskShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({})", self.tid())
    }
}
