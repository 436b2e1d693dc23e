//! The end of threads and processes, job-control stops, and what parents hear of both.

use super::tree::{ProcessTree, Zombie};
use super::{Process, WaitStatus};
use crate::kernel::Kernel;
use crate::signal::send::{self, Force};
use crate::task::{Cx, RunMode, TaskOwned, TaskShared, Work};
use abi::poll::Events;
use abi::siginfo::{SigAction, SigInfo, code};
use abi::signal::{SigSet, Signal};
use platform::Context;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Ends the calling task. The last thing its host thread does.
pub fn exit_task(shared: &Arc<TaskShared>, mut owned: TaskOwned, mut context: Box<dyn Context>) {
    shared.set_exiting();
    super::freezer::settle(shared);
    let group_status = shared.process.state.lock().exiting;
    let status = group_status.or(owned.leaving).unwrap_or(WaitStatus::killed(Signal::SIGKILL));
    {
        let mut cx = Cx { shared, owned: &mut owned, context: &mut *context };
        super::core::record(&mut cx);
        crate::ptrace::stop::exit_stop(&mut cx, status);
        release_memory(&mut cx);
        if cx.kernel().trace.is_on() {
            let text = format!("+++ exited with {:#x} +++", status.0);
            cx.kernel().trace.line(cx.shared.tid(), &cx.owned.comm_text(), &text);
        }
    }
    send::retarget(shared, SigSet::ALL);
    // Guest memory and descriptors go before anybody can see the zombie.
    let is_last = shared.process.state.lock().live == 1;
    // The published copy is the second; a vfork child's memory is its parent's.
    if is_last && Arc::strong_count(&owned.mm) <= 2 {
        shared.process.times.add_space(&owned.mm);
    }
    drop(context);
    shared.times.retire();
    {
        let mut published = shared.published.lock();
        let gone = (published.mm.take(), published.files.take(), published.fs.take());
        drop(published);
        drop(gone);
    }
    drop(owned);
    // A supervisor hears that nobody has the filter any more.
    shared.set_seccomp(None);
    leave_group(shared, status);
}

/// What exit and execve do while the old memory is still there.
pub fn release_memory(cx: &mut Cx<'_>) {
    crate::futex::robust::exit(cx);
    let clear = std::mem::take(&mut cx.owned.registered.clear_child_tid);
    if !clear.is_null() {
        // Nobody to tell of a bad address.
        let _ = cx.mm().write_bytes(clear, &0_u32.to_le_bytes());
        let _ = crate::futex::wake_address(cx, clear, 1);
    }
    cx.owned.registered = crate::task::Registered::default();
    if let Some(latch) = cx.owned.vfork.take() {
        latch.release();
    }
}

fn leave_group(shared: &Arc<TaskShared>, status: WaitStatus) {
    let kernel = Arc::clone(&shared.kernel);
    let process = Arc::clone(&shared.process);
    let is_leader = shared.tid() == process.pid.root();
    let (last, stop_complete, exec) = {
        let mut state = process.state.lock();
        state.live = state.live.saturating_sub(1);
        process.times.add(&shared.times);
        if !is_leader {
            state.threads.retain(|task| !Arc::ptr_eq(task, shared));
        }
        let mut stop_complete = false;
        if state.stop.signal.is_some() && !state.stop.stopped && shared.work().contains(Work::STOP) {
            stop_complete = count_stopped(&mut state);
        }
        if is_leader && state.live > 0 {
            state.leader_status = Some(status);
        }
        let exec = state.exec.filter(|_| state.live == 1);
        let exec = exec.and_then(|tid| state.threads.iter().find(|task| task.tid() == tid).cloned());
        (state.live == 0, stop_complete, exec)
    };
    shared.set_mode(RunMode::Dead);
    if let Some(task) = exec {
        task.parker().unpark();
    }
    parent_death_signals(&kernel, shared);
    crate::ptrace::detach_all(&kernel, shared);
    process.exit_events.wake(Events::READABLE);
    if !last {
        let mut tree = kernel.tree.lock();
        if is_leader {
            crate::ptrace::report_thread_exit(&mut tree, shared, status);
        } else {
            tree.remove_task(shared.tid());
            crate::ptrace::report_thread_exit(&mut tree, shared, status);
        }
        drop(tree);
        if stop_complete {
            report_stop(&kernel, &process);
        }
        return;
    }
    let group = process.cgroup.lock().clone();
    if let Some(group) = group {
        group.keep_time(&process);
    }
    let final_status = {
        let state = process.state.lock();
        state.exiting.or(state.leader_status).unwrap_or(status)
    };
    end_process(&kernel, shared, &process, final_status);
}

fn parent_death_signals(kernel: &Arc<Kernel>, shared: &Arc<TaskShared>) {
    let tree = kernel.tree.lock();
    let Some(node) = tree.node(shared.process.pid.root()) else { return };
    for child in node.children.iter().filter_map(|child| tree.node(*child)) {
        if child.parent_thread != shared.tid() {
            continue;
        }
        for task in child.process.threads() {
            let signal = task.death_signal.load(Ordering::Relaxed);
            if let Ok(signal) = Signal::new(signal) {
                let info = SigInfo::from_sender(signal, code::SI_USER, node.process.pid.own(), 0);
                let _ = send::to_task(&task, info, Force::Yes);
            }
        }
    }
}

fn end_process(kernel: &Arc<Kernel>, shared: &Arc<TaskShared>, process: &Arc<Process>, status: WaitStatus) {
    if process.pid.is_init() {
        end_namespace(kernel, shared, process);
    }
    process.end_timers();
    crate::ipc::sem::undo(process);
    crate::process::session::leader_gone(kernel, process);
    let uid = shared.published.lock().cred.uid.0;
    {
        let mut tree = kernel.tree.lock();
        if process.pid.root() != shared.tid() {
            tree.remove_task(shared.tid());
        }
        reparent(&mut tree, process);
        let tgid = process.pid.root();
        if let Some(node) = tree.node_mut(tgid) {
            node.zombie = Some(Zombie { status, uid });
        }
        crate::ptrace::report_thread_exit(&mut tree, shared, status);
        orphaned_by(&tree, process);
        if tell_parent_of_exit(&tree, tgid) {
            discard(&mut tree, tgid);
        }
    }
    process.marks.ended.store(true, Ordering::SeqCst);
    process.exit_events.wake(Events::READABLE);
    let notices = {
        let mut ending = process.ending.lock();
        ending.status = Some(status);
        std::mem::take(&mut ending.notices)
    };
    for notice in notices {
        notice(status);
    }
}

/// Sends the exit signal. Returns whether nobody will wait for the child.
fn tell_parent_of_exit(tree: &ProcessTree, tgid: u32) -> bool {
    let Some(node) = tree.node(tgid) else { return false };
    let Some(parent) = node.parent.and_then(|parent| tree.node(parent)) else { return true };
    let Some(zombie) = node.zombie else { return false };
    let mut unwanted = false;
    if let Ok(signal) = Signal::new(node.exit_signal) {
        let action = action_of(&parent.process, signal);
        let mut silent = false;
        if signal == Signal::SIGCHLD {
            silent = action.handler == SigAction::IGN;
            unwanted = silent || action.flags & SigAction::NOCLDWAIT != 0;
        }
        if !silent {
            let mut info = child_info(node.process.as_ref(), &parent.process, zombie);
            info.signo = i32::from(signal.number());
            let _ = send::to_process(&parent.process, info, Force::Yes);
        }
    }
    parent.process.child_events.wake(Events::READABLE);
    unwanted
}

fn child_info(child: &Process, parent: &Process, zombie: Zombie) -> SigInfo {
    let (code, value) = zombie.status.exit_info();
    let (user, system) = child.times.total();
    let pid = parent.pid.ns().map_or(0, |ns| child.pid.seen_in(ns));
    SigInfo::child(code, pid, zombie.uid, value).with_times(ticks(user), ticks(system))
}

/// Nanoseconds as clock ticks of `_SC_CLK_TCK` (100 a second).
#[must_use]
pub fn ticks(ns: u64) -> u64 {
    ns / 10_000_000
}

/// The action of a process for `signal`; the default when it has no thread left.
#[must_use]
pub fn action_of(process: &Process, signal: Signal) -> SigAction {
    let handlers = process.leader().map(|task| Arc::clone(&task.published.lock().handlers));
    handlers.map(|handlers| handlers.get(signal)).unwrap_or_default()
}

/// Takes a zombie out of the tree that nobody waits for.
fn discard(tree: &mut ProcessTree, tgid: u32) {
    tree.remove_task(tgid);
    tree.remove_node(tgid);
}

/// Takes a zombie out of the tree; its CPU time goes to its parent.
pub fn reap(tree: &mut ProcessTree, tgid: u32) {
    tree.remove_task(tgid);
    let Some(node) = tree.remove_node(tgid) else { return };
    if let Some(parent) = node.parent.and_then(|parent| tree.node(parent)) {
        parent.process.times.add_child(&node.process.times);
    }
}

/// Children of a dying process get a new parent: the next subreaper, else the namespace's init.
fn reparent(tree: &mut ProcessTree, process: &Arc<Process>) {
    let tgid = process.pid.root();
    let Some(node) = tree.node_mut(tgid) else { return };
    let children = std::mem::take(&mut node.children);
    let mut at = node.parent;
    let mut reaper = None;
    let ns = process.pid.ns().cloned();
    while let Some(up) = at.and_then(|up| tree.node(up)) {
        let same_ns = match (up.process.pid.ns(), &ns) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        if !same_ns {
            break;
        }
        if up.process.marks.subreaper.load(Ordering::Relaxed) && up.zombie.is_none() {
            reaper = Some(up.process.pid.root());
            break;
        }
        at = up.parent;
    }
    let reaper = reaper.or_else(|| ns.and_then(|ns| ns.init())).filter(|id| *id != tgid);
    let reaper = reaper.filter(|id| tree.node(*id).is_some_and(|node| node.zombie.is_none()));
    for child in children {
        let Some(node) = tree.node_mut(child) else { continue };
        node.parent = reaper;
        node.parent_thread = reaper.unwrap_or(0);
        node.exit_signal = u32::from(Signal::SIGCHLD.number());
        let is_zombie = node.zombie.is_some();
        if let Some(up) = reaper.and_then(|id| tree.node_mut(id)) {
            up.children.push(child);
        }
        if is_zombie && tell_parent_of_exit(tree, child) {
            discard(tree, child);
        }
    }
}

/// Process groups that lost their last link to the session get SIGHUP and SIGCONT if a member is stopped.
fn orphaned_by(tree: &ProcessTree, process: &Process) {
    let tgid = process.pid.root();
    let Some(node) = tree.node(tgid) else { return };
    let mut groups = vec![node.pgid.root()];
    let children = tree.nodes().filter(|child| child.parent == Some(tgid));
    groups.extend(children.map(|child| child.pgid.root()));
    groups.sort_unstable();
    groups.dedup();
    for pgid in groups {
        if tree.is_orphaned(pgid) && has_stopped(tree, pgid) {
            for member in tree.group(pgid) {
                let _ = send::to_process(&member.process, SigInfo::kernel(Signal::SIGHUP), Force::Yes);
                let _ = send::to_process(&member.process, SigInfo::kernel(Signal::SIGCONT), Force::Yes);
            }
        }
    }
}

fn has_stopped(tree: &ProcessTree, pgid: u32) -> bool {
    tree.group(pgid).any(|node| node.zombie.is_none() && node.process.state.lock().stop.stopped)
}

/// The init of a pid namespace takes all others with it, and waits until they are gone.
fn end_namespace(kernel: &Arc<Kernel>, shared: &Arc<TaskShared>, process: &Arc<Process>) {
    let Some(ns) = process.pid.ns().cloned() else { return };
    ns.close();
    let target = {
        let me: std::sync::Weak<dyn lock::WakeTarget> = vfs::Blocker::target(&**shared);
        lock::WaitEntry::new(me, Events::READABLE)
    };
    process.child_events.register(&target);
    loop {
        let mut left = 0;
        {
            let mut tree = kernel.tree.lock();
            let mut dead = Vec::new();
            for node in tree.nodes() {
                let is_other = node.process.pid.root() != process.pid.root();
                if is_other && node.process.pid.seen_in(&ns) != 0 {
                    if node.zombie.is_some() {
                        dead.push(node.process.pid.root());
                    } else {
                        left += 1;
                        send::begin_exit(&mut node.process.state.lock(), WaitStatus::killed(Signal::SIGKILL));
                    }
                }
            }
            for tgid in dead {
                reap(&mut tree, tgid);
            }
        }
        if left == 0 {
            break;
        }
        // Exec'ed processes have no parent: look again after a while too.
        let soon = std::time::Instant::now() + std::time::Duration::from_millis(5);
        let _ = shared.parker().park(Some(soon));
    }
    process.child_events.unregister(&target);
}

/// One more thread has stopped. Returns whether it was the last.
fn count_stopped(state: &mut super::GroupState) -> bool {
    state.stop.pending = state.stop.pending.saturating_sub(1);
    if state.stop.pending == 0 && !state.stop.stopped {
        state.stop.stopped = true;
        state.stop.report_stop = true;
        return true;
    }
    false
}

/// The calling task takes part in a group stop, until it is continued or killed.
pub fn stop_here(cx: &mut Cx<'_>) {
    let complete = {
        let mut state = cx.shared.process.state.lock();
        if state.stop.signal.is_none() {
            cx.shared.clear_work(Work::STOP);
            return;
        }
        count_stopped(&mut state)
    };
    if complete {
        report_stop(cx.kernel(), &cx.shared.process);
    }
    if cx.shared.is_traced() {
        crate::ptrace::stop::group_stop(cx);
        return;
    }
    cx.shared.set_mode(RunMode::Stopped);
    super::freezer::settle(cx.shared);
    let attached = loop {
        let work = cx.shared.work();
        if !work.contains(Work::STOP) || work.contains(Work::KILL) {
            break false;
        }
        if cx.shared.is_traced() {
            break true;
        }
        let _ = cx.shared.parker().park(None);
    };
    cx.shared.set_mode(RunMode::Kernel);
    if attached {
        // A tracer finds it in the stop that it is in.
        crate::ptrace::stop::group_stop(cx);
    }
}

/// Tells the parent that a process has stopped.
pub fn report_stop(kernel: &Kernel, process: &Process) {
    let tree = kernel.tree.lock();
    let signal = process.state.lock().stop.signal;
    let value = signal.map_or(0, |signal| i32::from(signal.number()));
    tell_parent(&tree, process, code::CLD_STOPPED, value);
}

/// Tells the parent that a process goes on.
pub fn report_continue(kernel: &Kernel, process: &Process) {
    let tree = kernel.tree.lock();
    tell_parent(&tree, process, code::CLD_CONTINUED, i32::from(Signal::SIGCONT.number()));
}

fn tell_parent(tree: &ProcessTree, process: &Process, code: i32, value: i32) {
    let Some(node) = tree.node(process.pid.root()) else { return };
    let Some(parent) = node.parent.and_then(|parent| tree.node(parent)) else { return };
    let action = action_of(&parent.process, Signal::SIGCHLD);
    if action.flags & SigAction::NOCLDSTOP == 0 && action.handler != SigAction::IGN {
        let pid = parent.process.pid.ns().map_or(0, |ns| process.pid.seen_in(ns));
        let uid = process.leader().map_or(0, |task| task.published.lock().cred.uid.0);
        let (user, system) = process.times.total();
        let info = SigInfo::child(code, pid, uid, value).with_times(ticks(user), ticks(system));
        let _ = send::to_process(&parent.process, info, Force::Yes);
    }
    parent.process.child_events.wake(Events::READABLE);
}
