//! Delivery: what a task does about its pending signals before it goes back to guest code.

use super::frame;
use super::handlers::Disposition;
use super::send::{self, STOPS};
use crate::process::{Process, WaitStatus};
use crate::task::{Cx, Work};
use abi::siginfo::{SigAction, SigInfo};
use abi::signal::{SigSet, Signal};
use abi::{Errno, Restart};
use std::sync::Arc;

/// What comes after delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivered {
    /// Nothing changed the registers: an interrupted call starts again.
    Nothing,
    /// A handler is set up.
    Handler,
    /// The process must exit.
    Exit,
    /// The process must stop first; delivery goes on after that.
    Stop,
}

/// Looks at pending signals until one changes what the task does next.
pub fn deliver(cx: &mut Cx<'_>, interrupted: Option<Restart>) -> Delivered {
    cx.shared.clear_work(Work::SIGNAL);
    loop {
        let wanted = SigSet::ALL.difference(cx.shared.mask());
        let Some((signal, mut info)) = send::take(cx.shared, wanted) else {
            if let Some(mask) = cx.owned.signal.saved_mask.take() {
                send::set_mask(cx.shared, mask);
            }
            return Delivered::Nothing;
        };
        let mut signal = signal;
        if cx.shared.is_traced() && signal != Signal::SIGKILL {
            match crate::ptrace::stop::signal_stop(cx, signal, &info) {
                Some((new, changed)) => (signal, info) = (new, changed),
                None => continue,
            }
        }
        let forced = cx.shared.take_forced(signal);
        match cx.owned.signal.handlers.disposition(signal) {
            Disposition::Ignore | Disposition::Continue => {}
            Disposition::Handler(action) => {
                run_handler(cx, signal, &info, action, interrupted);
                return Delivered::Handler;
            }
            // The init of a pid namespace dies only of what comes from outside, or of its own faults.
            _ if cx.shared.process.pid.is_init() && !forced && !SigSet::UNBLOCKABLE.contains(signal) => {}
            Disposition::Stop => {
                if signal != Signal::SIGSTOP && is_orphan(cx) {
                    continue;
                }
                if begin_stop(&cx.shared.process, signal) {
                    return Delivered::Stop;
                }
            }
            Disposition::Terminate => return exit_by(cx, WaitStatus::killed(signal), signal),
            Disposition::Core => {
                let dumped = crate::process::core::dump(cx, signal, &info);
                let status = if dumped { WaitStatus::dumped(signal) } else { WaitStatus::killed(signal) };
                return exit_by(cx, status, signal);
            }
        }
    }
}

fn exit_by(cx: &mut Cx<'_>, status: WaitStatus, signal: Signal) -> Delivered {
    let kernel = cx.kernel();
    if kernel.trace.is_on() {
        kernel.trace.line(cx.shared.tid(), &cx.owned.comm_text(), &format!("+++ killed by {signal} +++"));
    }
    send::begin_exit(&mut cx.shared.process.state.lock(), status);
    Delivered::Exit
}

fn is_orphan(cx: &Cx<'_>) -> bool {
    vfs::TaskView::pgrp_is_orphaned(&**cx.shared)
}

/// Starts a group stop. Returns false when something undid it already.
pub fn begin_stop(process: &Arc<Process>, signal: Signal) -> bool {
    let mut state = process.state.lock();
    if state.exiting.is_some() {
        return false;
    }
    if state.stop.signal.is_none() {
        state.stop.signal = Some(signal);
        state.stop.stopped = false;
        state.stop.report_continue = false;
        let mut count = 0;
        for task in state.threads.iter().filter(|task| !task.is_exiting()) {
            task.kick(Work::STOP);
            count += 1;
        }
        state.stop.pending = count;
    }
    true
}

fn run_handler(
    cx: &mut Cx<'_>,
    signal: Signal,
    info: &SigInfo,
    action: SigAction,
    interrupted: Option<Restart>,
) {
    if let Some(kind) = interrupted {
        let again = match kind {
            Restart::NoIntr => true,
            Restart::Sys => action.flags & SigAction::RESTART != 0,
            Restart::NoHand | Restart::Block => false,
        };
        let regs = cx.context.registers();
        if again {
            regs.rax = regs.orig_rax;
            // Back onto the two bytes of the system call instruction.
            regs.rip = regs.rip.wrapping_sub(2);
        } else {
            regs.rax = Errno::EINTR.as_return();
        }
    }
    if cx.shared.is_traced() {
        // A debugger's steps are not the program's: its frame does not keep the trap flag.
        cx.context.registers().eflags &= !0x100;
    }
    let blocked = cx.shared.mask();
    let to_restore = cx.owned.signal.saved_mask.take().unwrap_or(blocked);
    if cx.kernel().trace.is_on() {
        let text = format!("--- {signal} {info:?} ---");
        cx.kernel().trace.line(cx.shared.tid(), &cx.owned.comm_text(), &text);
    }
    if frame::build(cx, signal, info, &action, to_restore).is_err() {
        // No room for the frame: SIGSEGV, and a handler for that is of no use if it was the one.
        if signal == Signal::SIGSEGV {
            cx.owned.signal.handlers.set(signal, SigAction::default());
        }
        let info = SigInfo::kernel(Signal::SIGSEGV);
        send::force(cx.shared, &cx.owned.signal.handlers, info);
        return;
    }
    if action.flags & SigAction::RESETHAND != 0 {
        let reset = SigAction { handler: SigAction::DFL, ..action };
        cx.owned.signal.handlers.set(signal, reset);
    }
    let mut mask = blocked.union(action.mask());
    if action.flags & SigAction::NODEFER == 0 {
        mask.insert(signal);
    }
    send::set_mask(cx.shared, mask);
    // More may be deliverable: each gets its frame on top of this one.
    let ready = send::pending_set(cx.shared).difference(mask);
    if !ready.is_empty() {
        cx.shared.kick(Work::SIGNAL);
    }
}

/// Whether a signal is one of the job-control stops.
#[must_use]
pub fn is_stop(signal: Signal) -> bool {
    STOPS.contains(signal)
}
