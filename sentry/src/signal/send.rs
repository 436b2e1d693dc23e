//! Sending signals: who is ignored, what is undone, which thread is told.
//!
//! Locks: `ProcessState` for the thread list, inside it `SignalHandlers` and `SignalPending`. The tree
//! (`PidTable`) may be held by the caller.

use super::handlers::Disposition;
use crate::process::{GroupState, Process, WaitStatus};
use crate::task::{TaskShared, Work};
use abi::poll::Events;
use abi::siginfo::{SigAction, SigInfo};
use abi::signal::{SigSet, Signal};
use abi::{Errno, SysResult};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Signals whose default is to stop.
pub const STOPS: SigSet = SigSet((1 << 18) | (1 << 19) | (1 << 20) | (1 << 21));

/// Whether the init of a pid namespace may be killed or stopped by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Force {
    /// Sent from inside the namespace: init is protected.
    No,
    /// Sent by the kernel, the control plane or an ancestor namespace.
    Yes,
}

/// What a continue did, for the SIGCHLD to the parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// The process was stopped and goes on.
    pub continued: bool,
}

/// Sends to one thread.
pub fn to_task(task: &Arc<TaskShared>, info: SigInfo, force: Force) -> SysResult<()> {
    let process = Arc::clone(&task.process);
    let sent = {
        let mut state = process.state.lock();
        send(&mut state, &process, Some(task), info, force)?
    };
    after(task, sent);
    Ok(())
}

/// Sends to a process: any of its threads takes it.
pub fn to_process(process: &Arc<Process>, info: SigInfo, force: Force) -> SysResult<()> {
    let (sent, task) = {
        let mut state = process.state.lock();
        let sent = send(&mut state, process, None, info, force)?;
        (sent, state.threads.first().cloned())
    };
    if let Some(task) = task {
        after(&task, sent);
    }
    Ok(())
}

/// The parent hears of a continue from the thread that was continued, which holds no lock then.
fn after(task: &Arc<TaskShared>, sent: Sent) {
    if sent.continued {
        task.kick(Work::CONTINUED);
    }
}

fn send(
    state: &mut GroupState,
    process: &Arc<Process>,
    only: Option<&Arc<TaskShared>>,
    info: SigInfo,
    force: Force,
) -> SysResult<Sent> {
    let Some(signal) = info.signal() else { return Err(Errno::EINVAL) };
    let mut sent = Sent::default();
    if state.live == 0 {
        return Ok(sent);
    }
    if STOPS.contains(signal) {
        discard(state, process, SigSet::of(Signal::SIGCONT));
    } else if signal == Signal::SIGCONT || signal == Signal::SIGKILL {
        if signal == Signal::SIGCONT {
            discard(state, process, STOPS);
        }
        let resumed = resume(state);
        sent.continued = resumed && signal == Signal::SIGCONT;
    }
    let Some(first) = only.cloned().or_else(|| state.threads.first().cloned()) else { return Ok(sent) };
    if is_dropped(&first, signal, force) {
        return Ok(sent);
    }
    if signal == Signal::SIGKILL {
        begin_exit(state, WaitStatus::killed(signal));
        return Ok(sent);
    }
    let limit = process.limits.lock().get(crate::process::limits::Resource::Sigpending).soft;
    let queued = u64::try_from(process.queued_signals.load(Ordering::Relaxed)).unwrap_or(u64::MAX);
    let full = queued >= limit && signal.is_realtime();
    if full && info.code != abi::siginfo::code::SI_USER && info.code < abi::siginfo::code::SI_KERNEL {
        return Err(Errno::EAGAIN);
    }
    {
        let mut pending = match only {
            Some(task) => task.pending.lock(),
            None => process.pending.lock(),
        };
        if full {
            pending.mark(signal);
        } else if pending.push(signal, info) {
            process.queued_signals.fetch_add(1, Ordering::Relaxed);
        }
    }
    match only {
        Some(task) if wants(task, signal) => task.kick(Work::SIGNAL),
        Some(_) => {}
        None => {
            if let Some(task) = state.threads.iter().find(|task| wants(task, signal)) {
                task.kick(Work::SIGNAL);
            }
        }
    }
    process.signal_events.wake(Events::READABLE);
    Ok(sent)
}

/// Whether `task` would take the signal now.
fn wants(task: &TaskShared, signal: Signal) -> bool {
    !task.is_exiting() && (!task.mask().contains(signal) || task.awaits().contains(signal))
}

fn is_dropped(task: &TaskShared, signal: Signal, force: Force) -> bool {
    // What is blocked may be caught or awaited later.
    if task.mask().contains(signal) || task.awaits().contains(signal) {
        return false;
    }
    let handlers = Arc::clone(&task.published.lock().handlers);
    let action = handlers.get(signal);
    let is_forced = force == Force::Yes && SigSet::UNBLOCKABLE.contains(signal);
    if task.process.pid.is_init() && action.handler == SigAction::DFL && !is_forced {
        return true;
    }
    if task.is_traced() && signal != Signal::SIGKILL {
        return false;
    }
    handlers.disposition(signal) == Disposition::Ignore
}

fn discard(state: &GroupState, process: &Process, which: SigSet) {
    process.pending.lock().discard(which);
    for task in &state.threads {
        task.pending.lock().discard(which);
    }
}

/// Undoes a stop, complete or under way. Returns whether there was one.
pub fn resume(state: &mut GroupState) -> bool {
    let was = state.stop.signal.take().is_some();
    let was_stopped = std::mem::take(&mut state.stop.stopped);
    state.stop.pending = 0;
    state.stop.report_stop = false;
    if was_stopped {
        state.stop.report_continue = true;
    }
    for task in &state.threads {
        task.clear_work(Work::STOP);
        task.parker().unpark();
    }
    was
}

/// All threads of the group exit with `status` (exit_group, a fatal signal).
pub fn begin_exit(state: &mut GroupState, status: WaitStatus) {
    if state.exiting.is_none() {
        state.exiting = Some(status);
    }
    state.stop = crate::process::StopState::default();
    for task in &state.threads {
        task.clear_work(Work::STOP);
        task.kick(Work::KILL);
    }
}

/// A signal that the thread's own instruction caused: it cannot be blocked or ignored.
pub fn force(task: &Arc<TaskShared>, handlers: &super::SignalHandlers, info: SigInfo) {
    let Some(signal) = info.signal() else { return };
    let blocked = task.mask().contains(signal);
    let action = handlers.get(signal);
    if blocked || action.handler == SigAction::IGN {
        handlers.set(signal, SigAction::default());
        let mut mask = task.mask();
        mask.remove(signal);
        task.store_mask(mask);
    }
    task.mark_forced(signal);
    if task.pending.lock().push(signal, info) {
        task.process.queued_signals.fetch_add(1, Ordering::Relaxed);
    }
    task.kick(Work::SIGNAL);
}

/// Takes the next pending signal of `wanted` for `task`: its own first.
pub fn take(task: &TaskShared, wanted: SigSet) -> Option<(Signal, SigInfo)> {
    let own = task.pending.lock().take(wanted);
    let mut taken = own.or_else(|| task.process.pending.lock().take(wanted))?;
    crate::time::timer::complete(&task.process, &mut taken.1);
    let count = &task.process.queued_signals;
    let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
    Some(taken)
}

/// Everything that is pending for `task`, blocked or not.
#[must_use]
pub fn pending_set(task: &TaskShared) -> SigSet {
    let own = task.pending.lock().set();
    own.union(task.process.pending.lock().set())
}

/// Sets the calling thread's mask and sees to signals that became ready, here or elsewhere.
pub fn set_mask(task: &Arc<TaskShared>, mask: SigSet) {
    let mask = mask.difference(SigSet::UNBLOCKABLE);
    let old = task.mask();
    if old == mask {
        return;
    }
    task.store_mask(mask);
    let opened = old.difference(mask);
    if !opened.is_empty() && !pending_set(task).intersection(opened).is_empty() {
        task.kick(Work::SIGNAL);
    }
    let closed = mask.difference(old);
    if !closed.is_empty() {
        retarget(task, closed);
    }
}

/// Signals of the group that `task` will not take any more go to other threads.
pub fn retarget(task: &Arc<TaskShared>, which: SigSet) {
    let mut left = task.process.pending.lock().set().intersection(which);
    if left.is_empty() {
        return;
    }
    let state = task.process.state.lock();
    while let Some(signal) = left.first() {
        left.remove(signal);
        let other = state.threads.iter().find(|other| !Arc::ptr_eq(other, task) && wants(other, signal));
        if let Some(other) = other {
            other.kick(Work::SIGNAL);
        }
    }
}
