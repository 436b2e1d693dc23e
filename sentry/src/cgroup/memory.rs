//! `memory.max` (the kernel's cgroup-v2 document, "Memory"): what is charged, and who is killed.
//!
//! Pages are charged to the group of the thread that has them allocated, as an upper bound: giving back is
//! not counted. When the bound passes the limit, the true usage is looked up where no lock is held
//! ([`settle`]): on a thread's way back to the guest, which costs nothing as long as groups stay below
//! their limits. If that is over the limit too, a process of the group is killed. A thread that allocates
//! faster than killed processes go fails with `ENOMEM`, and waits where that would be a fault ([`relieve`]).

use super::watch::{Turn, Waited, Watch};
use super::{Cgroup, NO_LIMIT};
use crate::control::OomNotice;
use crate::control::spec::Limits;
use crate::kernel::Kernel;
use crate::process::{Process, WaitStatus};
use crate::signal::send;
use crate::task::{TaskShared, Work, run};
use abi::poll::Events;
use abi::signal::Signal;
use abi::{Errno, PAGE_SIZE, SysResult};
use lock::Ranked;
use lock::order::{Leaf, OomKill};
use mm::{Account, MemoryManager};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How far allocations may run ahead of the kill that they cause. The host's limit stands above.
const GRACE: u64 = 8 << 20;
/// How long a thread rests that allocates beyond `memory.high`.
const HIGH_PENALTY: Duration = Duration::from_millis(20);
/// Pieces larger than this must fit: who asked can ask for less.
const LARGE: u64 = 2 << 20;

/// `memory.*` of a group.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) max: AtomicU64,
    pub(super) high: AtomicU64,
    pub(super) low: AtomicU64,
    pub(super) min: AtomicU64,
    pub(super) swap_max: AtomicU64,
    /// `memory.oom.group`.
    pub(super) together: AtomicBool,
    /// Highest usage that was seen.
    peak: AtomicU64,
    /// Never less than what is used.
    charged: AtomicU64,
    /// Counts of memory.events.local.
    pub(super) own: Counts,
    /// Of this group and those below it.
    pub(super) all: Counts,
    pub(super) watch: Watch,
    /// Files in memory and buffers of this group.
    pub(super) account: Arc<Account>,
}

/// Lines of memory.events.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) high: AtomicU64,
    pub(super) max: AtomicU64,
    pub(super) oom: AtomicU64,
    pub(super) oom_kill: AtomicU64,
    pub(super) oom_group_kill: AtomicU64,
}

impl Counts {
    pub(super) fn show(&self) -> Vec<u8> {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "low 0\nhigh {}\nmax {}\noom {}\noom_kill {}\noom_group_kill {}\n",
            of(&self.high),
            of(&self.max),
            of(&self.oom),
            of(&self.oom_kill),
            of(&self.oom_group_kill)
        )
        .into_bytes()
    }
}

impl Memory {
    pub(super) fn new(limits: &Limits) -> Memory {
        Memory {
            max: AtomicU64::new(limits.memory_max.unwrap_or(NO_LIMIT)),
            high: AtomicU64::new(NO_LIMIT),
            low: AtomicU64::new(0),
            min: AtomicU64::new(0),
            swap_max: AtomicU64::new(NO_LIMIT),
            together: AtomicBool::new(limits.oom_group),
            peak: AtomicU64::new(0),
            charged: AtomicU64::new(0),
            own: Counts::default(),
            all: Counts::default(),
            watch: Watch::default(),
            account: Arc::default(),
        }
    }
    fn bound(&self) -> u64 {
        self.max.load(Ordering::Relaxed).min(self.high.load(Ordering::Relaxed))
    }
    /// Takes note of a usage, and gives the highest.
    pub(super) fn see(&self, usage: u64) -> u64 {
        self.peak.fetch_max(usage, Ordering::Relaxed).max(usage)
    }
}

/// The containers' groups, and whether any group is bounded.
#[derive(Debug, Default)]
pub struct Bounds {
    roots: Ranked<Leaf, Vec<Weak<Cgroup>>>,
    pub(super) common: super::home::Common,
    pub(super) watchman: Arc<super::bandwidth::Watchman>,
    /// Held while it is found out who has to go.
    one_kill: Ranked<OomKill, ()>,
}

impl Bounds {
    pub(super) fn add(&self, root: &Arc<Cgroup>) {
        let mut roots = self.roots.lock();
        roots.retain(|known| known.strong_count() > 0);
        roots.push(Arc::downgrade(root));
    }
    pub(super) fn is_alone(&self) -> bool {
        self.roots.lock().iter().filter(|root| root.strong_count() > 0).count() <= 1
    }
}

/// What allocators ask.
#[derive(Debug)]
struct Gate;

impl mm::Gate for Gate {
    fn charge(&self, bytes: u64) -> SysResult<()> {
        let Some(task) = run::current() else { return Ok(()) };
        let group = task.process.cgroup.lock().clone();
        let mut over = false;
        let mut at = group;
        while let Some(group) = at {
            let memory = &group.memory;
            let (max, bound) = (memory.max.load(Ordering::Relaxed), memory.bound());
            if bound != NO_LIMIT {
                let after = memory.charged.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
                over |= after > bound;
                if after > max && (bytes > LARGE || is_far_over(&task.kernel, max, after, bytes)) {
                    memory.charged.fetch_sub(bytes, Ordering::Relaxed);
                    task.set_work(Work::MEMORY);
                    return Err(Errno::ENOMEM);
                }
            }
            at = group.parent();
        }
        if over {
            task.set_work(Work::MEMORY);
        }
        Ok(())
    }
    fn payer(&self) -> Option<Arc<Account>> {
        let task = run::current()?;
        let group = task.process.cgroup.lock().clone();
        group.map(|group| Arc::clone(&group.memory.account))
    }
}

/// Whether the grace is used up: by what was charged, and by what the whole sandbox really has.
fn is_far_over(kernel: &Kernel, max: u64, charged: u64, bytes: u64) -> bool {
    let edge = max.saturating_add(GRACE);
    charged > edge && in_use(kernel).saturating_add(bytes) > edge
}

/// All memory of the sandbox: pages, and buffers of the kernel.
fn in_use(kernel: &Kernel) -> u64 {
    kernel.frames.resident().saturating_add(mm::kernel_bytes::used())
}

/// From now on allocations are charged.
pub(super) fn bound(kernel: &Kernel) {
    kernel.frames.set_gate(Box::new(Gate));
    mm::kernel_bytes::set_gate(Box::new(Gate));
}

/// The address spaces of the processes, each once.
fn distinct(processes: &[Arc<Process>]) -> Vec<Arc<MemoryManager>> {
    let of =
        |process: &Arc<Process>| process.threads().iter().find_map(|task| task.published.lock().mm.clone());
    let mut found: Vec<_> = processes.iter().filter_map(of).collect();
    found.sort_unstable_by_key(|mm| mm.id());
    found.dedup_by_key(|mm| mm.id());
    found
}

/// Memory of one process.
fn usage_of(process: &Arc<Process>) -> mm::Usage {
    distinct(std::slice::from_ref(process)).first().map(|mm| mm.total_usage()).unwrap_or_default()
}

impl Cgroup {
    /// Processes of this group and those below it.
    pub(super) fn processes(&self, kernel: &Kernel) -> Vec<Arc<Process>> {
        let mut found: Vec<Arc<Process>> = Vec::new();
        for task in self.tasks(kernel) {
            if !found.iter().any(|known| Arc::ptr_eq(known, &task.process)) {
                found.push(Arc::clone(&task.process));
            }
        }
        found
    }
    /// Bytes of private pages, and of files and buffers.
    pub(super) fn parts(&self, kernel: &Kernel) -> (u64, u64) {
        let mut frames = Vec::new();
        for mm in distinct(&self.processes(kernel)) {
            mm.private_frames(&mut frames);
        }
        (kernel.frames.resident_in(frames), self.paid_for())
    }
    /// Bytes of files and buffers of this group and those below it.
    fn paid_for(&self) -> u64 {
        let children: Vec<_> = self.children.lock().values().cloned().collect();
        let below = children.iter().map(|child| child.paid_for()).fold(0, u64::saturating_add);
        self.memory.account.used().saturating_add(below)
    }
    /// Bytes in use. For the only container of a sandbox that is all there is, files in memory included.
    pub(super) fn usage(&self, kernel: &Kernel) -> u64 {
        let usage = if self.parent.is_none() && kernel.bounds.is_alone() {
            in_use(kernel)
        } else {
            let (anonymous, shared) = self.parts(kernel);
            anonymous.saturating_add(shared)
        };
        self.memory.see(usage);
        usage
    }
    /// The smallest limit of this group and those above it.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        let mut least = self.memory.max.load(Ordering::Relaxed);
        let mut at = self.parent();
        while let Some(group) = at {
            least = least.min(group.memory.max.load(Ordering::Relaxed));
            at = group.parent();
        }
        (least != NO_LIMIT).then_some(least)
    }
    /// Total and used memory as members of the group are told.
    #[must_use]
    pub fn memory_view(&self, kernel: &Kernel) -> (u64, u64) {
        let machine = kernel.machine.memory;
        let mut view = (machine, kernel.frames.resident());
        let mut at = self.me.upgrade();
        while let Some(group) = at {
            let max = group.memory.max.load(Ordering::Relaxed);
            if max < view.0 {
                view = (max, group.usage(kernel));
            }
            at = group.parent();
        }
        view
    }
    /// Sets `memory.max`. What is over it already is dealt with at once.
    pub(super) fn set_memory_max(&self, kernel: &Arc<Kernel>, bytes: u64) {
        self.memory.max.store(bytes, Ordering::Relaxed);
        if bytes != NO_LIMIT {
            bound(kernel);
            let _ = self.look(kernel);
        }
    }
    fn tally(&self, which: fn(&Counts) -> &AtomicU64) {
        which(&self.memory.own).fetch_add(1, Ordering::Relaxed);
        which(&self.memory.all).fetch_add(1, Ordering::Relaxed);
        let mut at = self.parent();
        while let Some(group) = at {
            which(&group.memory.all).fetch_add(1, Ordering::Relaxed);
            at = group.parent();
        }
    }
    /// Calls `notice` once the limit of this container has cost a process more often than `known` times, and is
    /// about to cost another: it does when whoever asked asks for the next time.
    pub fn await_oom(&self, kernel: &Arc<Kernel>, known: u64, notice: OomNotice) {
        if self.memory.watch.add(known, notice) == Turn::Now {
            let _ = self.look(kernel);
        }
    }
    /// Compares usage and limit, and kills what it takes. Returns whether `memory.high` is passed.
    fn look(&self, kernel: &Arc<Kernel>) -> bool {
        let mut usage = self.usage(kernel);
        let (max, high) = (self.memory.max.load(Ordering::Relaxed), self.memory.high.load(Ordering::Relaxed));
        if usage > max.min(high) {
            // Pages that are free are not usage.
            kernel.frames.trim();
            usage = self.usage(kernel);
        }
        self.memory.charged.store(usage, Ordering::Relaxed);
        if usage > high {
            self.tally(|counts| &counts.high);
        }
        if usage > max {
            self.tally(|counts| &counts.max);
            self.kill_for(kernel, max);
        }
        usage > high
    }
    /// Kills processes until usage is below `max`, or nobody is left that may be killed.
    fn kill_for(&self, kernel: &Arc<Kernel>, max: u64) {
        let _one_at_a_time = kernel.bounds.one_kill.lock();
        let mut living = self.processes(kernel);
        // One kill at a time: what it brings shows when it is through.
        if living.iter().any(|process| process.state.lock().exiting.is_some()) {
            return;
        }
        // Looked at after the list: whoever is not on it any more has given back what it had.
        kernel.frames.trim();
        let mut left = self.usage(kernel).saturating_sub(max);
        if left == 0 {
            return;
        }
        let total = self.memory_limit().unwrap_or(kernel.machine.memory);
        let mut announced = false;
        while left > 0 {
            let best =
                living.iter().enumerate().filter_map(|(at, process)| Some((at, badness(process, total)?)));
            let Some((at, _)) = best.max_by_key(|(_, points)| *points) else { break };
            if !std::mem::replace(&mut announced, true) {
                // Before the kill: whoever is told of an end knows why by then.
                if self.memory.watch.announce() == Turn::Later {
                    return;
                }
                self.tally(|counts| &counts.oom);
            }
            let victim = living.swap_remove(at);
            let anonymous = usage_of(&victim).anonymous;
            let group = victim.cgroup.lock().clone();
            let together = group.as_ref().and_then(|group| group.together_with(self));
            match together {
                Some(all) => {
                    all.tally(|counts| &counts.oom_group_kill);
                    for process in all.processes(kernel) {
                        kill(kernel, &process);
                    }
                }
                None => kill(kernel, &victim),
            }
            // A victim with next to nothing leads on to the next only when the page cache is to blame.
            left = left.saturating_sub(anonymous.max(PAGE_SIZE));
            if anonymous >= PAGE_SIZE {
                break;
            }
        }
    }
    /// The highest group up to `limit` that wants to be killed as a whole.
    fn together_with(self: &Arc<Cgroup>, limit: &Cgroup) -> Option<Arc<Cgroup>> {
        let mut found = None;
        let mut at = Some(Arc::clone(self));
        while let Some(group) = at {
            if group.memory.together.load(Ordering::Relaxed) {
                found = Some(Arc::clone(&group));
            }
            if std::ptr::eq(Arc::as_ptr(&group), limit) {
                break;
            }
            at = group.parent();
        }
        found
    }
    fn next_dying(&self, kernel: &Kernel) -> Option<Arc<Process>> {
        self.processes(kernel).into_iter().find(|process| process.state.lock().exiting.is_some())
    }
}

fn kill(kernel: &Kernel, process: &Arc<Process>) {
    if process.marks.oom_score_adj.load(Ordering::Relaxed) <= -1000 {
        return;
    }
    let group = process.cgroup.lock().clone();
    if let Some(group) = group {
        group.tally(|counts| &counts.oom_kill);
    }
    let name = process.leader().map(|task| task.published.lock().comm_text()).unwrap_or_default();
    kernel.trace.log(&format!("out of memory: {name} ({}) is killed", process.pid.root()));
    send::begin_exit(&mut process.state.lock(), WaitStatus::killed(Signal::SIGKILL));
}

/// How much a kill brings, in pages, moved by `oom_score_adj` (proc_pid_oom_score_adj(5)): `None` for a
/// process that must not be killed.
fn badness(process: &Arc<Process>, total: u64) -> Option<i64> {
    let adjustment = i64::from(process.marks.oom_score_adj.load(Ordering::Relaxed));
    if adjustment <= -1000 {
        return None;
    }
    let usage = usage_of(process);
    let pages = |bytes: u64| i64::try_from(bytes / PAGE_SIZE).unwrap_or(i64::MAX);
    let points = pages(usage.anonymous.saturating_add(usage.shmem));
    Some(points.saturating_add(adjustment.saturating_mul(pages(total)) / 1000))
}

/// A thread that was charged beyond a limit, on its way back to the guest. It rests while a kill is waited for,
/// so that others find some of the grace left.
pub fn settle(shared: &Arc<TaskShared>) {
    shared.clear_work(Work::MEMORY);
    let mut at = shared.process.cgroup.lock().clone();
    let mut slow = false;
    while let Some(group) = at {
        if group.memory.charged.load(Ordering::Relaxed) > group.memory.bound() {
            slow |= group.look(&shared.kernel);
            if group.memory.watch.wait(shared) == Waited::Some {
                slow |= group.look(&shared.kernel);
            }
        }
        at = group.parent();
    }
    if slow && !shared.work().contains(Work::KILL) {
        // `memory.high` slows down who goes on allocating; a signal ends it.
        let _ = shared.parker().park(Some(Instant::now() + HIGH_PENALTY));
    }
}

/// Whether a fault that found no memory is worth another try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relief {
    /// Memory came free, or will.
    Again,
    /// Nobody else can be killed.
    None,
}

/// A fault found no memory: processes of the group are killed, and their end is waited for.
pub fn relieve(shared: &Arc<TaskShared>) -> Relief {
    let kernel = &shared.kernel;
    let Some(group) = shared.process.cgroup.lock().clone() else { return Relief::None };
    let before = group.memory.all.oom_kill.load(Ordering::Relaxed);
    settle(shared);
    let mut at = Some(group);
    while let Some(group) = at {
        if shared.process.state.lock().exiting.is_some() {
            return Relief::Again;
        }
        let max = group.memory.max.load(Ordering::Relaxed);
        if max != NO_LIMIT {
            if let Some(dying) = group.next_dying(kernel) {
                await_end(shared, &dying);
                return Relief::Again;
            }
            if group.memory.charged.load(Ordering::Relaxed) < max
                || group.memory.all.oom_kill.load(Ordering::Relaxed) > before
            {
                return Relief::Again;
            }
        }
        at = group.parent();
    }
    Relief::None
}

/// Sleeps until a killed process is gone, or the thread itself is killed.
fn await_end(shared: &Arc<TaskShared>, dying: &Arc<Process>) {
    let me: Weak<dyn lock::WakeTarget> = vfs::Blocker::target(&**shared);
    let entry = lock::WaitEntry::new(me, Events::READABLE);
    dying.exit_events.register(&entry);
    while dying.ending.lock().status.is_none() && !shared.work().contains(Work::KILL) {
        let _ = shared.parker().park(None);
    }
    dying.exit_events.unregister(&entry);
}
