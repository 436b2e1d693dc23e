//! Where a traced task stops (ptrace(2), "Stopped states").

use super::watch::{self, Stepping};
use super::{Resume, Stop, StopKind, attach};
use crate::process::WaitStatus;
use crate::process::pid::Pid;
use crate::seccomp::Verdict;
use crate::signal::send::{self, Force};
use crate::signal::user_dispatch;
use crate::task::{Cx, RunMode, StartEvent, Work};
use abi::process::CloneFlags;
use abi::ptrace::{TraceOptions, event};
use abi::siginfo::{SigAction, SigInfo, code};
use abi::signal::Signal;
use abi::{Errno, poll::Events};
use platform::SyscallArgs;
use std::sync::Arc;

/// The trap flag.
const TF: u64 = 0x100;

fn trap() -> u32 {
    u32::from(Signal::SIGTRAP.number())
}

/// Stops for the tracer until it resumes, detaches or the task is killed. Returns the signal that the
/// tracer gives, and `None` when there is no tracer any more.
fn stop(cx: &mut Cx<'_>, code: u32, info: SigInfo, kind: StopKind) -> Option<u32> {
    let mut registers = *cx.context.registers();
    registers.eflags &= !TF;
    let xstate = whole_xstate(cx.context.xstate());
    {
        let mut slot = cx.shared.trace.lock();
        let trace = slot.as_mut()?;
        trace.stop = Some(Stop {
            code,
            info,
            kind,
            reported: false,
            registers,
            xstate,
            changed: false,
            resumed: None,
        });
    }
    cx.shared.set_mode(RunMode::Traced);
    crate::process::freezer::settle(cx.shared);
    tell_tracer(cx, code);
    let result = loop {
        if cx.shared.work().contains(Work::KILL) {
            break None;
        }
        {
            let mut slot = cx.shared.trace.lock();
            let Some(trace) = slot.as_mut() else { break None };
            if let Some((mode, signal)) = trace.stop.as_ref().and_then(|stop| stop.resumed) {
                trace.mode = mode;
                let stop = trace.stop.take();
                let debug = trace.debug;
                drop(slot);
                if let Some(stop) = stop {
                    take_back(cx, stop, mode);
                }
                let step = matches!(mode, Resume::Step | Resume::SysemuStep);
                watch::arm(cx, debug, if step { Stepping::Each } else { Stepping::No });
                if mode == Resume::Detach {
                    // With its registers, and before any other stop.
                    cx.owned.debug = None;
                    super::detach(cx.shared);
                }
                break Some(signal);
            }
        }
        let _ = cx.shared.parker().park(None);
    };
    if result.is_none()
        && let Some(trace) = cx.shared.trace.lock().as_mut()
    {
        trace.stop = None;
    }
    cx.shared.set_mode(RunMode::Kernel);
    result
}

/// Vector state in full: a program that has just begun has none yet.
#[must_use]
pub fn whole_xstate(xstate: &[u8]) -> Vec<u8> {
    if xstate.is_empty() { platform::registers::initial_xstate() } else { xstate.to_vec() }
}

fn take_back(cx: &mut Cx<'_>, stop: Stop, mode: Resume) {
    let step = matches!(mode, Resume::Step | Resume::SysemuStep);
    if stop.changed || step {
        let mut registers = stop.registers;
        if step {
            registers.eflags |= TF;
        }
        *cx.context.registers() = registers;
        if stop.changed {
            *cx.context.xstate() = stop.xstate;
        }
    } else {
        let registers = cx.context.registers();
        if registers.eflags & TF != 0 {
            registers.eflags &= !TF;
        }
    }
}

/// SIGCHLD and a wake-up for the tracer's process.
fn tell_tracer(cx: &Cx<'_>, code: u32) {
    let tracer = cx.shared.trace.lock().as_ref().map(|trace| trace.tracer_process);
    let Some(tracer) = tracer else { return };
    let tree = cx.kernel().tree.lock();
    let Some(node) = tree.node(tracer) else { return };
    let action = crate::process::exit::action_of(&node.process, Signal::SIGCHLD);
    if action.flags & SigAction::NOCLDSTOP == 0 && action.handler != SigAction::IGN {
        let pid = node.process.pid.ns().map_or(0, |ns| cx.owned.pid.seen_in(ns));
        let value = i32::try_from(code & 0x7f).unwrap_or(0);
        let info = SigInfo::child(code::CLD_TRAPPED, pid, cx.cred().uid.0, value);
        let _ = send::to_process(&node.process, info, Force::Yes);
    }
    node.process.child_events.wake(Events::READABLE);
}

/// Signal-delivery-stop: the tracer may change the signal or take it away.
pub fn signal_stop(cx: &mut Cx<'_>, signal: Signal, info: &SigInfo) -> Option<(Signal, SigInfo)> {
    let given = match stop(cx, u32::from(signal.number()), *info, StopKind::Signal) {
        // The tracer is gone: the signal goes its way.
        None => return Some((signal, *info)),
        Some(given) => given,
    };
    let new = Signal::new(given).ok()?;
    let info = if new == signal { *info } else { SigInfo::from_sender(new, code::SI_USER, 0, 0) };
    Some((new, info))
}

/// The first stop of an automatically attached child.
pub fn started(cx: &mut Cx<'_>, start: StartEvent) {
    match start {
        StartEvent::Stop => {
            let info = SigInfo::from_sender(Signal::SIGSTOP, code::SI_USER, 0, 0);
            let _ = send::to_task(cx.shared, info, Force::Yes);
        }
        StartEvent::Seized => event_stop(cx, event::STOP, 0),
    }
}

fn options(cx: &Cx<'_>) -> Option<TraceOptions> {
    cx.shared.trace.lock().as_ref().map(|trace| trace.options)
}

fn event_stop(cx: &mut Cx<'_>, what: u32, message: u64) {
    if let Some(trace) = cx.shared.trace.lock().as_mut() {
        trace.message = message;
    }
    let code = trap() | (what << 8);
    let mut info = SigInfo::from_sender(Signal::SIGTRAP, code.cast_signed(), cx.owned.pid.own(), 0);
    info.signo = i32::from(Signal::SIGTRAP.number());
    stop(cx, code, info, StopKind::Event);
}

fn call_stop(cx: &mut Cx<'_>, kind: StopKind) {
    let good = options(cx).is_some_and(|options| options.contains(TraceOptions::SYSGOOD));
    let code = trap() | if good { 0x80 } else { 0 };
    let info = SigInfo::from_sender(Signal::SIGTRAP, code.cast_signed(), cx.owned.pid.own(), 0);
    if let Some(signal) = stop(cx, code, info, kind)
        && let Ok(signal) = Signal::new(signal)
    {
        let info = SigInfo::from_sender(signal, code::SI_USER, 0, 0);
        let _ = send::to_task(cx.shared, info, Force::Yes);
    }
}

/// Before a call: the thread's own dispatch, the tracer, then seccomp.
pub fn enter_call(cx: &mut Cx<'_>, call: &mut SyscallArgs) -> Verdict {
    if user_dispatch::check(cx, call) != Verdict::Make {
        return Verdict::Skip;
    }
    if !cx.shared.is_traced() && cx.owned.seccomp.is_some() {
        return crate::seccomp::check(cx, call);
    }
    let mode = cx.shared.trace.lock().as_ref().map(|trace| trace.mode);
    if matches!(mode, Some(Resume::Syscall | Resume::Sysemu | Resume::SysemuStep)) {
        let regs = cx.context.registers();
        regs.rax = Errno::ENOSYS.as_return();
        call_stop(cx, StopKind::Entry);
        if mode != Some(Resume::Syscall) || !reload(cx, call) {
            return Verdict::Skip;
        }
    }
    if cx.owned.seccomp.is_none() {
        if mode.is_none() {
            cx.owned.look_at_calls(cx.shared);
        }
        return Verdict::Make;
    }
    let suspended = options(cx).is_some_and(|options| options.contains(TraceOptions::SUSPEND_SECCOMP));
    if suspended { Verdict::Make } else { crate::seccomp::check(cx, call) }
}

/// Takes number and arguments from the registers again. Returns false when the tracer took the call away.
pub fn reload(cx: &mut Cx<'_>, call: &mut SyscallArgs) -> bool {
    let regs = *cx.context.registers();
    let number = crate::syscalls::args::low32(regs.orig_rax);
    *call = SyscallArgs {
        number,
        args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        ip: regs.rip,
    };
    number != u32::MAX
}

/// After a call.
pub fn leave_call(cx: &mut Cx<'_>) {
    if !cx.shared.is_traced() {
        return;
    }
    let mode = cx.shared.trace.lock().as_ref().map(|trace| trace.mode);
    if mode == Some(Resume::Syscall) {
        call_stop(cx, StopKind::Exit);
    }
}

/// PTRACE_INTERRUPT, PTRACE_ATTACH, or a tracer that came or went.
pub fn interrupt_stop(cx: &mut Cx<'_>) {
    let state = cx.shared.trace.lock().as_ref().map(|trace| trace.seized);
    cx.owned.look_at_calls(cx.shared);
    if state.is_none() {
        cx.owned.debug = None;
    }
    crate::task::local_answers(cx);
    if state == Some(true) && cx.shared.take_interrupt() {
        event_stop(cx, event::STOP, 0);
    }
}

/// PTRACE_EVENT_EXIT.
pub fn exit_stop(cx: &mut Cx<'_>, status: WaitStatus) {
    if options(cx).is_some_and(|options| options.contains(TraceOptions::EXIT)) {
        // A killed task must not wait for its tracer for ever: KILL ends the stop at once.
        event_stop(cx, event::EXIT, u64::from(status.0));
    }
}

/// A group stop, as a tracer sees it.
pub fn group_stop(cx: &mut Cx<'_>) {
    let seized = cx.shared.trace.lock().as_ref().is_some_and(|trace| trace.seized);
    let signal = cx.shared.process.state.lock().stop.signal.unwrap_or(Signal::SIGSTOP);
    let number = u32::from(signal.number());
    let code = if seized { number | (event::STOP << 8) } else { number };
    let info = SigInfo::from_sender(signal, code::SI_USER, 0, 0);
    stop(cx, code, info, StopKind::Group);
    if !cx.shared.is_traced() {
        // Let go of while its group is stopped, it stays so.
        return;
    }
    let listening = cx.shared.trace.lock().as_ref().is_some_and(|trace| trace.mode == Resume::Listen);
    if listening {
        // PTRACE_LISTEN: stays stopped, and tells when that ends.
        while cx.shared.work().contains(Work::STOP) && !cx.shared.work().contains(Work::KILL) {
            let _ = cx.shared.parker().park(None);
        }
        event_stop(cx, event::STOP, 0);
    }
    cx.shared.clear_work(Work::STOP);
}

/// The event and its option for a clone with these flags, if the tracer asked for it.
#[must_use]
pub fn clone_event(flags: CloneFlags, exit_signal: u32, options: TraceOptions) -> Option<u32> {
    if flags.contains(CloneFlags::UNTRACED) {
        return None;
    }
    let (option, what) = if flags.contains(CloneFlags::VFORK) {
        (TraceOptions::VFORK, event::VFORK)
    } else if exit_signal != u32::from(Signal::SIGCHLD.number()) {
        (TraceOptions::CLONE, event::CLONE)
    } else {
        (TraceOptions::FORK, event::FORK)
    };
    options.contains(option).then_some(what)
}

fn seen_by_tracer(cx: &Cx<'_>, pid: &Pid) -> u64 {
    let tracer = cx.shared.trace.lock().as_ref().map(|trace| trace.tracer_process);
    let tree = cx.kernel().tree.lock();
    let ns = tracer.and_then(|id| tree.node(id)).and_then(|node| node.process.pid.ns().cloned());
    ns.map_or(0, |ns| u64::from(pid.seen_in(&ns)))
}

/// PTRACE_EVENT_CLONE, FORK, VFORK.
pub fn cloned(cx: &mut Cx<'_>, flags: CloneFlags, exit_signal: u32, child: &Arc<Pid>) {
    let Some(options) = options(cx) else { return };
    if let Some(what) = clone_event(flags, exit_signal, options) {
        let message = seen_by_tracer(cx, child);
        event_stop(cx, what, message);
    }
}

/// PTRACE_EVENT_EXEC, or the SIGTRAP of old.
pub fn executed(cx: &mut Cx<'_>) {
    let found = cx.shared.trace.lock().as_ref().map(|trace| (trace.seized, trace.options));
    let Some((seized, options)) = found else { return };
    if options.contains(TraceOptions::EXEC) {
        let message = u64::from(cx.owned.pid.own());
        event_stop(cx, event::EXEC, message);
    } else if !seized {
        let info = SigInfo::from_sender(Signal::SIGTRAP, code::SI_USER, cx.owned.pid.own(), 0);
        let _ = send::to_task(cx.shared, info, Force::Yes);
    }
}

/// PTRACE_EVENT_VFORK_DONE.
pub fn vfork_done(cx: &mut Cx<'_>, child: &Arc<Pid>) {
    if options(cx).is_some_and(|options| options.contains(TraceOptions::VFORK_DONE)) {
        let message = seen_by_tracer(cx, child);
        event_stop(cx, event::VFORK_DONE, message);
    }
}

/// PTRACE_EVENT_SECCOMP. Returns false when no tracer asked for it.
pub fn seccomp_stop(cx: &mut Cx<'_>, data: u16) -> bool {
    let asked = options(cx).is_some_and(|options| options.contains(TraceOptions::SECCOMP));
    if asked {
        event_stop(cx, event::SECCOMP, u64::from(data));
    }
    asked
}

/// PTRACE_TRACEME: the parent becomes the tracer.
pub fn trace_me(cx: &mut Cx<'_>) -> abi::SysResult<()> {
    let parent = {
        let tree = cx.kernel().tree.lock();
        let node = tree.node(cx.shared.process.pid.root()).ok_or(Errno::EPERM)?;
        let by_thread = tree.task(node.parent_thread).cloned();
        by_thread.or_else(|| node.parent.and_then(|parent| tree.task(parent).cloned())).ok_or(Errno::EPERM)?
    };
    attach(cx.shared, super::Trace::new(&parent, false, TraceOptions::empty()))?;
    cx.owned.watched = true;
    crate::task::local_answers(cx);
    Ok(())
}
