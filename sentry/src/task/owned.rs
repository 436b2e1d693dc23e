//! What only the task's own thread touches.

use super::clone::VforkLatch;
use super::memory::MemoryManager;
use super::{FsContext, Published, PublishedMarks, TaskShared};
use crate::files::FdTable;
use crate::futex::Waiter;
use crate::namespace::NsProxy;
use crate::process::WaitStatus;
use crate::process::pid::Pid;
use crate::seccomp::Filters;
use crate::signal::SignalHandlers;
use crate::signal::frame::FaultDetail;
use crate::signal::user_dispatch::UserDispatch;
use abi::UserAddr;
use abi::siginfo::StackT;
use abi::signal::SigSet;
use std::sync::Arc;
use vfs::Credentials;

/// Owner-only state of a task.
pub struct TaskOwned {
    /// Address space.
    pub mm: Arc<MemoryManager>,
    /// Descriptor table.
    pub files: Arc<FdTable>,
    /// Root, working directory, umask.
    pub fs: Arc<FsContext>,
    /// Credentials.
    pub cred: Arc<Credentials>,
    /// Namespaces.
    pub ns: Arc<NsProxy>,
    /// Thread id.
    pub pid: Arc<Pid>,
    /// Program name, NUL padded (`TASK_COMM_LEN`).
    pub comm: [u8; 16],
    /// Signal state.
    pub signal: OwnedSignal,
    /// Addresses registered with the kernel.
    pub registered: Registered,
    /// The call set the registers itself.
    pub keep_registers: bool,
    /// no_new_privs.
    pub no_new_privs: bool,
    /// Set by exit(2): the loop ends.
    pub leaving: Option<WaitStatus>,
    /// A tracer, a seccomp filter or the thread itself looks at calls.
    pub watched: bool,
    /// The call is made again after an interruption without a handler.
    pub restarting: bool,
    /// Until when the interrupted call sleeps (Restart::Block).
    pub restart_deadline: lock::Deadline,
    /// What a traced child does first.
    pub start_event: Option<StartEvent>,
    /// The parent that sleeps until this task has memory of its own.
    pub vfork: Option<Arc<VforkLatch>>,
    /// Place in futex buckets, made by the first wait.
    pub futex: Option<Arc<Waiter>>,
    /// Settings that only the thread itself looks at.
    pub personal: Personal,
    /// Kept between calls so that epoll_wait(2) does not allocate.
    pub epoll_events: Vec<vfs::event::epoll::EpollEvent>,
    /// Debug registers that its tracer has enabled.
    pub debug: Option<Box<crate::ptrace::watch::Watch>>,
    /// Seccomp filters.
    pub seccomp: Option<Arc<crate::seccomp::Filters>>,
}

/// Settings of a thread that only it looks at.
#[derive(Clone, Debug, Default)]
pub struct Personal {
    /// Keyrings.
    pub keys: crate::keys::TaskKeys,
    /// personality(2).
    pub personality: u32,
    /// PR_SET_TIMERSLACK.
    pub timer_slack: TimerSlack,
    /// PR_MCE_KILL.
    pub mce_kill: MceKill,
    /// PR_SET_IO_FLUSHER.
    pub io_flusher: bool,
    /// set_mempolicy(2).
    pub node_policy: mm::NodePolicy,
    /// PR_SET_SYSCALL_USER_DISPATCH.
    pub user_dispatch: Option<UserDispatch>,
}

/// How late timers of a thread may be: a value that reads back, as the host keeps the timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimerSlack {
    /// In force.
    pub now_ns: u64,
    /// What 0 means: what the thread's maker had in force.
    pub default_ns: u64,
}

impl Default for TimerSlack {
    fn default() -> TimerSlack {
        TimerSlack { now_ns: 50_000, default_ns: 50_000 }
    }
}

/// When a thread hears of broken memory (PR_MCE_KILL): a value that reads back, as memory is the host's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MceKill {
    /// When it touches it.
    Late,
    /// At once.
    Early,
    /// As the system says.
    #[default]
    Default,
}

impl MceKill {
    /// `PR_MCE_KILL_*`.
    #[must_use]
    pub fn number(self) -> u64 {
        match self {
            MceKill::Late => 0,
            MceKill::Early => 1,
            MceKill::Default => 2,
        }
    }
}

/// How a traced child starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartEvent {
    /// With a SIGSTOP.
    Stop,
    /// With PTRACE_EVENT_STOP.
    Seized,
}

/// Signal state of a thread that only it changes.
pub struct OwnedSignal {
    /// Actions of the thread group.
    pub handlers: Arc<SignalHandlers>,
    /// Mask to put back after the handler that interrupts sigsuspend, ppoll and their like.
    pub saved_mask: Option<SigSet>,
    /// sigaltstack(2).
    pub altstack: StackT,
    /// What the last fault was, for the next frame.
    pub fault: FaultDetail,
}

impl OwnedSignal {
    /// Nothing saved, nothing faulted.
    #[must_use]
    pub fn new(handlers: Arc<SignalHandlers>, altstack: StackT) -> OwnedSignal {
        OwnedSignal { handlers, saved_mask: None, altstack, fault: FaultDetail::default() }
    }
}

/// Guest addresses that the kernel writes to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registered {
    /// Zeroed and woken on exit (set_tid_address, CLONE_CHILD_CLEARTID).
    pub clear_child_tid: UserAddr,
    /// set_robust_list(2).
    pub robust_list: UserAddr,
    /// rseq(2): address, length and signature.
    pub rseq: Option<(UserAddr, u32, u32)>,
}

impl TaskOwned {
    /// The program's name as text.
    #[must_use]
    pub fn comm_text(&self) -> String {
        comm_text(&self.comm)
    }
    /// Works out anew who looks at the thread's calls.
    pub fn look_at_calls(&mut self, shared: &TaskShared) {
        self.watched = shared.is_traced() || self.seccomp.is_some() || self.personal.user_dispatch.is_some();
    }
    /// What others are shown.
    #[must_use]
    pub fn published(&self) -> Published {
        let filters = self.seccomp.as_deref();
        Published {
            comm: self.comm,
            own_comm: self.comm,
            marks: PublishedMarks {
                no_new_privs: self.no_new_privs,
                seccomp_mode: filters.map_or(0, Filters::mode),
                seccomp_filters: filters.map_or(0, Filters::count),
                personality: self.personal.personality,
                timer_slack_ns: self.personal.timer_slack.now_ns,
            },
            cred: Arc::clone(&self.cred),
            mm: Some(Arc::clone(&self.mm)),
            files: Some(Arc::clone(&self.files)),
            fs: Some(Arc::clone(&self.fs)),
            ns: Arc::clone(&self.ns),
            handlers: Arc::clone(&self.signal.handlers),
            pid: Arc::clone(&self.pid),
        }
    }
    /// Shows others what this thread now uses. Called after each change of the shared copies.
    pub fn publish(&self, shared: &TaskShared) {
        let mut next = self.published();
        let mut published = shared.published.lock();
        if published.own_comm == self.comm {
            // A name that another thread gave it stays until the task takes one itself.
            next.comm = published.comm;
        }
        let old = std::mem::replace(&mut *published, next);
        drop(published);
        drop(old);
    }
}

/// A program name as text.
#[must_use]
pub(super) fn comm_text(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(comm.get(..end).unwrap_or_default()).into_owned()
}
