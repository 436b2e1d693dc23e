//! ptrace(2) between guests.
//!
//! A stopped tracee leaves its registers in its [`Trace`], where the tracer reads and changes them; when it
//! is resumed it takes them back. Rank `PtraceState`: inside the tree and process locks, never around them.

pub mod access;
pub mod stop;
pub mod wait;
pub mod watch;

use crate::kernel::Kernel;
use crate::process::WaitStatus;
use crate::process::pid::Pid;
use crate::process::tree::ProcessTree;
use crate::signal::send::{self, Force};
use crate::task::{StartEvent, TaskOwned, TaskShared, Work};
use abi::process::CloneFlags;
use abi::ptrace::TraceOptions;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::{Errno, SysResult};
use platform::Registers;
use std::sync::Arc;

/// How a tracee was last resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Resume {
    /// PTRACE_CONT.
    #[default]
    Cont,
    /// PTRACE_SYSCALL.
    Syscall,
    /// PTRACE_SYSEMU.
    Sysemu,
    /// PTRACE_SYSEMU_SINGLESTEP.
    SysemuStep,
    /// PTRACE_SINGLESTEP.
    Step,
    /// PTRACE_LISTEN.
    Listen,
    /// PTRACE_DETACH.
    Detach,
}

/// What a tracee stopped for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopKind {
    /// A signal is about to be delivered.
    Signal,
    /// Before a system call.
    Entry,
    /// After a system call.
    Exit,
    /// A PTRACE_EVENT.
    Event,
    /// A group stop.
    Group,
}

/// A tracee's stop.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Signal, and event in the second byte: the status without its low byte.
    pub code: u32,
    /// PTRACE_GETSIGINFO.
    pub info: SigInfo,
    /// Why.
    pub kind: StopKind,
    /// A wait has seen it.
    pub reported: bool,
    /// General registers, for the tracer to read and change.
    pub registers: Registers,
    /// Vector state.
    pub xstate: Vec<u8>,
    /// The tracer changed them.
    pub changed: bool,
    /// Set when it is to go on: how, and with which signal.
    pub resumed: Option<(Resume, u32)>,
}

/// The tracer's hold on a tracee.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Tracing thread.
    pub tracer: u32,
    /// Its process.
    pub tracer_process: u32,
    /// PTRACE_SEIZE rather than ATTACH or TRACEME.
    pub seized: bool,
    /// PTRACE_SETOPTIONS.
    pub options: TraceOptions,
    /// How it runs.
    pub mode: Resume,
    /// Where it stands still.
    pub stop: Option<Stop>,
    /// PTRACE_GETEVENTMSG.
    pub message: u64,
    /// Debug registers.
    pub debug: watch::DebugRegisters,
}

impl Trace {
    /// Of a new tracee.
    #[must_use]
    pub fn new(tracer: &TaskShared, seized: bool, options: TraceOptions) -> Trace {
        Trace {
            tracer: tracer.tid(),
            tracer_process: tracer.process.pid.root(),
            seized,
            options,
            mode: Resume::Cont,
            stop: None,
            message: 0,
            debug: watch::DebugRegisters::default(),
        }
    }
}

/// A thread that exited under a tracer that may not be its parent.
#[derive(Clone, Debug)]
pub struct TraceZombie {
    /// Process of the tracer.
    pub tracer_process: u32,
    /// The thread.
    pub pid: Arc<Pid>,
    /// How it ended.
    pub status: WaitStatus,
    /// Real user id.
    pub uid: u32,
}

/// Makes `tracer` the tracer of `task`. `EPERM` when it has one.
pub fn attach(task: &Arc<TaskShared>, trace: Trace) -> SysResult<()> {
    let mut slot = task.trace.lock();
    if slot.is_some() || task.is_exiting() {
        return Err(Errno::EPERM);
    }
    let tracer = trace.tracer;
    *slot = Some(trace);
    drop(slot);
    task.set_traced(Some(tracer));
    task.kernel.tracees.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

/// Undoes [`attach`]; a stopped tracee goes on with `signal`.
pub fn detach(task: &Arc<TaskShared>) {
    let was = task.trace.lock().take();
    if was.is_none() {
        return;
    }
    task.set_traced(None);
    task.kernel.tracees.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    // It finds itself untraced, in its stop or at its next look.
    task.kick(Work::TRACE);
    task.parker().unpark();
}

/// A tracer exits: its tracees go on untraced (or die with PTRACE_O_EXITKILL).
pub fn detach_all(kernel: &Arc<Kernel>, tracer: &Arc<TaskShared>) {
    if kernel.tracees.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        return;
    }
    let all: Vec<_> = kernel.tree.lock().tasks().cloned().collect();
    for task in all {
        let options = task.trace.lock().as_ref().filter(|t| t.tracer == tracer.tid()).map(|t| t.options);
        let Some(options) = options else { continue };
        if options.contains(TraceOptions::EXITKILL) {
            let _ = send::to_process(&task.process, SigInfo::kernel(Signal::SIGKILL), Force::Yes);
        }
        detach(&task);
    }
}

/// A traced thread has exited: its tracer may wait for it.
pub fn report_thread_exit(tree: &mut ProcessTree, task: &Arc<TaskShared>, status: WaitStatus) {
    let Some(trace) = task.trace.lock().take() else { return };
    task.set_traced(None);
    task.kernel.tracees.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    let published = task.published.lock().clone();
    let parent = tree.node(task.process.pid.root()).and_then(|node| node.parent);
    let is_leader = task.tid() == task.process.pid.root();
    // A parent that traces its child hears of the end as its parent.
    if is_leader && parent == Some(trace.tracer_process) {
        return;
    }
    let uid = published.cred.uid.0;
    let zombie = TraceZombie { tracer_process: trace.tracer_process, pid: published.pid, status, uid };
    tree.trace_zombies.push(zombie);
    if let Some(tracer) = tree.node(trace.tracer_process) {
        tracer.process.child_events.wake(abi::poll::Events::READABLE);
    }
}

/// Attaches a new child to its parent's tracer, when that asked for it.
pub fn prepare_child(
    cx: &crate::task::Cx<'_>,
    flags: CloneFlags,
    exit_signal: u32,
    child: &Arc<TaskShared>,
    owned: &mut TaskOwned,
) {
    let Some(trace) = cx.shared.trace.lock().clone() else { return };
    let follows = stop::clone_event(flags, exit_signal, trace.options).is_some();
    if !(follows || flags.contains(CloneFlags::PTRACE)) || flags.contains(CloneFlags::UNTRACED) {
        return;
    }
    let debug = watch::DebugRegisters::default();
    let inherited = Trace { mode: Resume::Cont, stop: None, message: 0, debug, ..trace };
    let seized = inherited.seized;
    if attach(child, inherited).is_ok() {
        owned.watched = true;
        owned.start_event = Some(if seized { StartEvent::Seized } else { StartEvent::Stop });
    }
}
