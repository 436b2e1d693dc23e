//! New threads and processes: clone(2), clone3(2), fork(2), vfork(2).

use super::{Cx, FsContext, OwnedSignal, Personal, Registered, TaskOwned, TaskShared, TimerSlack, Work, run};
use crate::cgroup::Cgroup;
use crate::files::FdTable;
use crate::namespace::ChildPlan;
use crate::process::pid::{Pid, PidNs};
use crate::process::tree::Node;
use crate::process::{Process, freezer, limits::Resource};
use crate::signal::SignalHandlers;
use abi::process::CloneFlags;
use abi::siginfo::StackT;
use abi::{CallResult, Errno, Failure, Restart, SysResult, UserAddr};
use platform::{Context, ThreadState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a clone asks for, from either call.
#[derive(Clone, Debug, Default)]
pub struct CloneRequest {
    /// Flags without the exit signal.
    pub flags: CloneFlags,
    /// Signal to the parent on exit; 0 for none.
    pub exit_signal: u32,
    /// Stack pointer of the child; zero keeps the parent's.
    pub stack: u64,
    /// Thread pointer (CLONE_SETTLS).
    pub tls: u64,
    /// CLONE_PARENT_SETTID.
    pub parent_tid: UserAddr,
    /// CLONE_CHILD_SETTID and CLONE_CHILD_CLEARTID.
    pub child_tid: UserAddr,
    /// CLONE_PIDFD.
    pub pidfd: UserAddr,
    /// Wanted ids, innermost namespace first (clone3 set_tid).
    pub set_tid: Vec<u32>,
    /// CLONE_INTO_CGROUP.
    pub cgroup: Option<Arc<Cgroup>>,
}

/// What a vfork parent sleeps on.
#[derive(Debug, Default)]
pub struct VforkLatch {
    done: AtomicBool,
    parker: lock::Ranked<lock::order::Leaf, Option<Arc<TaskShared>>>,
}

impl VforkLatch {
    /// Lets the parent go.
    pub fn release(&self) {
        self.done.store(true, Ordering::SeqCst);
        let parent = self.parker.lock().take();
        if let Some(parent) = parent {
            parent.parker().unpark();
        }
    }
    fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }
}

/// Checks that clone(2) and clone3(2) share.
fn check(cx: &Cx<'_>, request: &CloneRequest) -> SysResult<()> {
    let flags = request.flags;
    let has = |flag| flags.contains(flag);
    let wrong = (has(CloneFlags::SIGHAND) && !has(CloneFlags::VM))
        || (has(CloneFlags::THREAD) && !has(CloneFlags::SIGHAND))
        || (has(CloneFlags::FS) && has(CloneFlags::NEWNS))
        || (has(CloneFlags::FS) && has(CloneFlags::NEWUSER))
        || (has(CloneFlags::THREAD) && flags.intersects(CloneFlags::NEWUSER | CloneFlags::NEWPID))
        || (has(CloneFlags::PIDFD) && has(CloneFlags::DETACHED))
        || (has(CloneFlags::SIGHAND) && has(CloneFlags::CLEAR_SIGHAND))
        || (has(CloneFlags::PARENT) && cx.shared.process.pid.is_init())
        || request.exit_signal > 64;
    if wrong { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Makes the child and lets it run. Returns its id as the caller sees it.
pub fn clone_task(cx: &mut Cx<'_>, request: &CloneRequest) -> CallResult<u32> {
    check(cx, request)?;
    let flags = request.flags;
    // What is pending now comes first, so that no child is born into a dying or stopping group.
    if cx.shared.work().intersects(Work::KILL | Work::STOP | Work::SIGNAL | Work::FREEZE) {
        return Err(Failure::Restart(Restart::NoIntr));
    }
    let plan = crate::namespace::for_clone(cx, flags)?;
    let pid = allocate(&plan.proxy.pid_for_children, &request.set_tid, cx)?;
    let process = process_of(cx, request, &pid)?;
    let mut owned = copy_owned(cx, request, plan, &process, Arc::clone(&pid))?;
    let context = new_context(cx, &owned, request)?;
    let latch = flags.contains(CloneFlags::VFORK).then(|| {
        let latch = Arc::new(VforkLatch::default());
        *latch.parker.lock() = Some(Arc::clone(cx.shared));
        latch
    });
    owned.vfork.clone_from(&latch);
    let shared =
        TaskShared::new(Arc::clone(cx.kernel()), Arc::clone(&process), owned.published(), cx.shared.mask().0);
    shared.set_seccomp(owned.seccomp.clone());
    if owned.no_new_privs {
        shared.set_no_new_privs();
    }
    let pidfd = prepare_pidfd(cx, request, &process)?;
    let close_pidfd = |cx: &Cx<'_>| pidfd.map(|fd| cx.files().close(fd));
    crate::ptrace::prepare_child(cx, flags, request.exit_signal, &shared, &mut owned);
    if let Err(failure) = link(cx, request, &process, &shared) {
        close_pidfd(cx);
        return Err(failure);
    }
    let number = cx.shared_ns().map_or(0, |ns| pid.seen_in(&ns));
    if flags.contains(CloneFlags::PARENT_SETTID) {
        // As in Linux, a bad address does not undo the child.
        let _ = cx.mm().write_bytes(request.parent_tid, &number.to_le_bytes());
    }
    if flags.contains(CloneFlags::CHILD_SETTID) {
        let _ = owned.mm.write_bytes(request.child_tid, &pid.own().to_le_bytes());
    }
    if let Err(errno) = run::start(Arc::clone(&shared), owned, context) {
        close_pidfd(cx);
        unlink(cx, &process, &shared);
        return Err(errno.into());
    }
    crate::ptrace::stop::cloned(cx, flags, request.exit_signal, &pid);
    if let Some(latch) = latch {
        wait_vfork(cx, &latch);
        // The child has left this memory for good: nobody but the caller runs in it.
        let shares = cx.shared.process.marks.shares_memory.load(Ordering::Relaxed);
        if latch.is_done() && !shares && !flags.contains(CloneFlags::THREAD) {
            cx.mm().set_single_threaded(true);
        }
        crate::ptrace::stop::vfork_done(cx, &pid);
    }
    Ok(number)
}

fn allocate(ns: &Arc<PidNs>, wanted: &[u32], cx: &Cx<'_>) -> SysResult<Arc<Pid>> {
    if !wanted.is_empty() && !cx.cred().has_in(vfs::Capabilities::SYS_ADMIN, &ns.user) {
        return Err(Errno::EPERM);
    }
    Pid::allocate(ns, wanted)
}

fn process_of(cx: &Cx<'_>, request: &CloneRequest, pid: &Arc<Pid>) -> SysResult<Arc<Process>> {
    let flags = request.flags;
    let own = cx.shared.process.cgroup.lock().clone();
    if let Some(wanted) = &request.cgroup {
        let same = own.as_ref().is_some_and(|own| Arc::ptr_eq(own, wanted));
        if flags.contains(CloneFlags::THREAD) && !same {
            // A process is in one group as a whole.
            return Err(Errno::EOPNOTSUPP);
        }
        wanted.admits()?;
    }
    let group = request.cgroup.clone().or(own);
    if let Some(group) = &group {
        group.check_fork(cx.kernel())?;
    }
    let parent = &cx.shared.process;
    let limits = *parent.limits.lock();
    let limit = limits.get(Resource::Nproc).soft;
    let caps = vfs::Capabilities::SYS_RESOURCE | vfs::Capabilities::SYS_ADMIN;
    if limit != crate::process::limits::INFINITY
        && cx.cred().uid.0 != 0
        && !cx.cred().caps.effective.intersects(caps)
    {
        let uid = cx.cred().uid;
        let tasks: Vec<_> = cx.kernel().tree.lock().tasks().cloned().collect();
        let count = tasks.iter().filter(|task| task.published.lock().cred.uid == uid).count();
        if u64::try_from(count).unwrap_or(u64::MAX) >= limit {
            return Err(Errno::EAGAIN);
        }
    }
    if flags.contains(CloneFlags::THREAD) {
        return Ok(Arc::clone(parent));
    }
    let process = Process::new(Arc::clone(pid), limits);
    process.marks.inherit(&parent.marks);
    // A process that runs in its parent's memory is not alone in it.
    let beside = flags.contains(CloneFlags::VM) && !flags.contains(CloneFlags::VFORK);
    process.marks.shares_memory.store(beside, Ordering::Relaxed);
    if let Some(group) = &group {
        process.marks.frozen_by_group.store(group.is_held(), Ordering::SeqCst);
    }
    *process.cgroup.lock() = group;
    if let Some(freezer) = parent.freezer.get() {
        let _ = process.freezer.set(Arc::clone(freezer));
    }
    Ok(process)
}

fn copy_owned(
    cx: &mut Cx<'_>,
    request: &CloneRequest,
    plan: ChildPlan,
    process: &Process,
    pid: Arc<Pid>,
) -> SysResult<TaskOwned> {
    let flags = request.flags;
    let ChildPlan { proxy: ns, cred } = plan;
    let registers = cx.context.registers();
    let stack = if request.stack == 0 { registers.rsp } else { request.stack };
    let hot = [stack, registers.fs_base];
    let parent = &*cx.owned;
    let mm = if flags.contains(CloneFlags::VM) {
        Arc::clone(&parent.mm)
    } else {
        let mm = parent.mm.fork(&hot)?;
        let group = process.cgroup.lock().clone();
        if let Some(group) = group {
            group.house(cx.kernel(), &mm);
        }
        mm.set_single_threaded(true);
        mm
    };
    let files = if flags.contains(CloneFlags::FILES) {
        Arc::clone(&parent.files)
    } else {
        Arc::new(FdTable::fork(&parent.files))
    };
    let fs = if flags.contains(CloneFlags::FS) {
        Arc::clone(&parent.fs)
    } else {
        FsContext::duplicate(&parent.fs)
    };
    if flags.contains(CloneFlags::NEWNS) {
        crate::namespace::new_mounts(&fs, &cred)?;
    }
    let handlers = if flags.contains(CloneFlags::SIGHAND) {
        Arc::clone(&parent.signal.handlers)
    } else {
        let copy = SignalHandlers::duplicate(&parent.signal.handlers);
        if flags.contains(CloneFlags::CLEAR_SIGHAND) {
            copy.clear();
        }
        Arc::new(copy)
    };
    // A vfork child runs on its parent's stack, a thread on one of its own.
    let shares = flags.contains(CloneFlags::VM) && !flags.contains(CloneFlags::VFORK);
    let altstack = if shares { StackT::new(0, 0, StackT::DISABLE) } else { parent.signal.altstack };
    let keys = &parent.personal.keys;
    let keys = if flags.contains(CloneFlags::THREAD) { keys.for_thread() } else { keys.for_process() };
    let slack_ns = parent.personal.timer_slack.now_ns;
    let timer_slack = TimerSlack { now_ns: slack_ns, default_ns: slack_ns };
    let clear = flags.contains(CloneFlags::CHILD_CLEARTID);
    let registered = Registered {
        clear_child_tid: if clear { request.child_tid } else { UserAddr::NULL },
        robust_list: UserAddr::NULL,
        rseq: if flags.contains(CloneFlags::VM) { None } else { parent.registered.rseq },
    };
    Ok(TaskOwned {
        mm,
        files,
        fs,
        cred,
        ns,
        pid,
        comm: parent.comm,
        signal: OwnedSignal::new(handlers, altstack),
        registered,
        no_new_privs: parent.no_new_privs,
        personal: Personal { keys, timer_slack, user_dispatch: None, ..parent.personal.clone() },
        debug: None,
        seccomp: parent.seccomp.clone(),
        epoll_events: Vec::new(),
        watched: parent.seccomp.is_some(),
        keep_registers: false,
        leaving: None,
        restarting: false,
        restart_deadline: None,
        start_event: None,
        vfork: None,
        futex: None,
    })
}

fn new_context(cx: &mut Cx<'_>, owned: &TaskOwned, request: &CloneRequest) -> SysResult<Box<dyn Context>> {
    let mut registers = *cx.context.registers();
    registers.rax = 0;
    registers.orig_rax = u64::MAX;
    if request.stack != 0 {
        registers.rsp = request.stack;
    }
    if request.flags.contains(CloneFlags::SETTLS) {
        if request.tls >= crate::loader::TASK_SIZE {
            return Err(Errno::EPERM);
        }
        registers.fs_base = request.tls;
    }
    let xstate = cx.context.xstate().clone();
    if request.flags.contains(CloneFlags::VM) {
        owned.mm.set_single_threaded(false);
        if !request.flags.contains(CloneFlags::VFORK) {
            cx.shared.process.marks.shares_memory.store(true, Ordering::Relaxed);
        }
    }
    Arc::clone(owned.mm.space()).new_context(&ThreadState { registers, xstate })
}

/// Puts the child into the tree, unless its group is about to die or stop.
fn link(
    cx: &Cx<'_>,
    request: &CloneRequest,
    process: &Arc<Process>,
    shared: &Arc<TaskShared>,
) -> CallResult<()> {
    let flags = request.flags;
    let kernel = cx.kernel();
    let mut tree = kernel.tree.lock();
    let parent_id = cx.shared.process.pid.root();
    {
        let parent_state = cx.shared.process.state.lock();
        if parent_state.exiting.is_some() || parent_state.exec.is_some() || parent_state.stop.signal.is_some()
        {
            return Err(Failure::Restart(Restart::NoIntr));
        }
    }
    if flags.contains(CloneFlags::THREAD) {
        let mut state = process.state.lock();
        state.threads.push(Arc::clone(shared));
        state.live += 1;
        drop(state);
        tree.insert_task(shared.tid(), Arc::clone(shared));
        freezer::attend_birth(shared);
        return Ok(());
    }
    let Some(node) = tree.node(parent_id) else { return Err(Errno::EAGAIN.into()) };
    let as_sibling = flags.contains(CloneFlags::PARENT);
    let (parent, parent_thread) =
        if as_sibling { (node.parent, node.parent_thread) } else { (Some(parent_id), cx.shared.tid()) };
    let exit_signal = if as_sibling { node.exit_signal } else { request.exit_signal };
    let (pgid, sid) = (Arc::clone(&node.pgid), Arc::clone(&node.sid));
    {
        let mut state = process.state.lock();
        state.threads.push(Arc::clone(shared));
        state.live = 1;
    }
    tree.insert_task(shared.tid(), Arc::clone(shared));
    tree.insert_node(Node {
        process: Arc::clone(process),
        parent,
        parent_thread,
        children: Vec::new(),
        pgid,
        sid,
        zombie: None,
        exit_signal,
    });
    freezer::attend_birth(shared);
    Ok(())
}

fn unlink(cx: &Cx<'_>, process: &Arc<Process>, shared: &Arc<TaskShared>) {
    let mut tree = cx.kernel().tree.lock();
    tree.remove_task(shared.tid());
    let mut state = process.state.lock();
    state.threads.retain(|task| !Arc::ptr_eq(task, shared));
    state.live = state.live.saturating_sub(1);
    let empty = state.live == 0;
    drop(state);
    if empty {
        tree.remove_node(process.pid.root());
    }
}

/// Sleeps until the child has its own memory. Only a kill ends the wait early.
fn wait_vfork(cx: &Cx<'_>, latch: &VforkLatch) {
    cx.shared.set_mode(super::RunMode::Sleeping);
    freezer::rest_while(cx.shared, || !latch.is_done());
    cx.shared.set_mode(super::RunMode::Kernel);
    latch.parker.lock().take();
}

/// A pidfd whose number is written before the child can exit.
fn prepare_pidfd(cx: &Cx<'_>, request: &CloneRequest, process: &Arc<Process>) -> SysResult<Option<abi::Fd>> {
    if !request.flags.contains(CloneFlags::PIDFD) {
        return Ok(None);
    }
    let file = crate::process::pidfd::open(process);
    let limit = cx.shared.process.limits.lock().get(Resource::Nofile).soft;
    let fd = cx.files().install(file, crate::files::OnExec::Close, 0, limit)?;
    let written = cx.mm().write_bytes(request.pidfd, &fd.number().to_le_bytes());
    if let Err(errno) = written {
        let _ = cx.files().close(fd);
        return Err(errno);
    }
    Ok(Some(fd))
}
