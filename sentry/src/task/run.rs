//! The loop of one guest thread: guest, system call, work, guest.
//!
//! One host thread per guest thread. Whatever wants a task's attention sets [`Work`] and kicks it; the
//! loop attends to it before it enters the guest again, so every blocking point only has to give up.

use super::{Cx, RunMode, TaskOwned, TaskShared, Work};
use crate::cgroup::memory;
use crate::process::{WaitStatus, exit, freezer};
use crate::signal::deliver::{self, Delivered};
use crate::signal::frame::FaultDetail;
use crate::signal::send;
use crate::syscalls::dispatch::{self, Outcome};
use abi::siginfo::{SigInfo, code};
use abi::signal::Signal;
use abi::{Errno, Restart, SysResult};
use platform::{Access, Context, Exit};
use std::cell::RefCell;
use std::sync::Arc;

/// Stack of a task's host thread: it is touched only as far as it is used.
const STACK_SIZE: usize = 512 << 10;

thread_local! {
    static CURRENT: RefCell<Option<Arc<TaskShared>>> = const { RefCell::new(None) };
}

/// The task whose host thread this is; `None` on the kernel's own threads.
#[must_use]
pub fn current() -> Option<Arc<TaskShared>> {
    CURRENT.with_borrow(Option::clone)
}

/// Gives a task its host thread. `EAGAIN` when the host refuses one.
pub fn start(shared: Arc<TaskShared>, owned: TaskOwned, context: Box<dyn Context>) -> SysResult<()> {
    let body = move || run(&shared, owned, context);
    let thread = std::thread::Builder::new().name("task".into()).stack_size(STACK_SIZE).spawn(body);
    thread.map(drop).map_err(|_| Errno::EAGAIN)
}

/// What the loop does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Enter the guest.
    Guest,
    /// Do the same call again.
    Again,
    /// Leave.
    Exit,
}

fn run(shared: &Arc<TaskShared>, mut owned: TaskOwned, mut context: Box<dyn Context>) {
    CURRENT.set(Some(Arc::clone(shared)));
    shared.times.adopt_host_thread();
    shared.set_interrupter(context.interrupter());
    let mut next = Next::Guest;
    super::local_answers(&mut Cx { shared, owned: &mut owned, context: &mut *context });
    if let Some(event) = owned.start_event.take() {
        let mut cx = Cx { shared, owned: &mut owned, context: &mut *context };
        crate::ptrace::stop::started(&mut cx, event);
    }
    while next != Next::Exit {
        let mut cx = Cx { shared, owned: &mut owned, context: &mut *context };
        if !shared.work().is_empty() && attend(&mut cx, None) == Attended::Exit {
            break;
        }
        shared.enter_guest();
        if !shared.work().is_empty() {
            shared.set_mode(RunMode::Kernel);
            continue;
        }
        let exit = cx.context.run();
        shared.set_mode(RunMode::Kernel);
        next = handle(&mut cx, exit);
    }
    exit::exit_task(shared, owned, context);
    CURRENT.set(None);
}

fn handle(cx: &mut Cx<'_>, exit: Exit) -> Next {
    match exit {
        Exit::Syscall => {
            let mut next = system_call(cx);
            while next == Next::Again {
                next = system_call(cx);
            }
            return next;
        }
        Exit::Fault { addr, access } => fault(cx, addr, access),
        Exit::Exception { signal, code, addr } => {
            cx.owned.signal.fault = FaultDetail { error: 0, trap: trap_number(signal), cr2: 0 };
            send::force(cx.shared, &cx.owned.signal.handlers, SigInfo::fault(signal, code, addr));
        }
        Exit::Interrupted => {}
        Exit::Died => {
            send::begin_exit(&mut cx.shared.process.state.lock(), WaitStatus::killed(Signal::SIGKILL));
            return Next::Exit;
        }
    }
    Next::Guest
}

fn trap_number(signal: Signal) -> u64 {
    match signal {
        Signal::SIGFPE => 0,
        Signal::SIGTRAP => 3,
        Signal::SIGILL => 6,
        Signal::SIGBUS => 17,
        _ => 13,
    }
}

fn fault(cx: &mut Cx<'_>, addr: u64, access: Access) {
    let Err(bad) = cx.owned.mm.handle_fault(addr, access) else { return };
    let (signal, code) = (bad.signal, bad.code);
    if signal == Signal::SIGKILL {
        if memory::relieve(cx.shared) == memory::Relief::Again {
            return;
        }
        // As the host's OOM killer would: this process, not the sandbox.
        cx.kernel().trace.log(&format!("out of memory: {} is killed", cx.owned.comm_text()));
        send::begin_exit(&mut cx.shared.process.state.lock(), WaitStatus::killed(Signal::SIGKILL));
        return;
    }
    let error = match access {
        Access::Read => 4,
        Access::Write => 6,
        Access::Exec => 0x14,
    };
    let present = u64::from(code == code::SEGV_ACCERR);
    cx.owned.signal.fault = FaultDetail { error: error | present, trap: 14, cr2: addr };
    if cx.kernel().trace.is_on() {
        let regs = *cx.context.registers();
        let text = format!("fault at {addr:#x} ({access:?}), rip {:#x}, rsp {:#x}", regs.rip, regs.rsp);
        cx.kernel().trace.line(cx.shared.tid(), &cx.owned.comm_text(), &text);
    }
    send::force(cx.shared, &cx.owned.signal.handlers, SigInfo::fault(signal, code, bad.addr));
}

fn system_call(cx: &mut Cx<'_>) -> Next {
    let mut call = cx.context.syscall();
    if cx.owned.watched && !crate::ptrace::stop::enter_call(cx, &mut call) {
        return leave_call(cx, None);
    }
    match dispatch::dispatch(cx, &call) {
        Outcome::Return(value) => {
            cx.context.set_return(value);
            leave_call(cx, None)
        }
        Outcome::Keep => leave_call(cx, None),
        Outcome::Interrupted(kind) => leave_call(cx, Some(kind)),
    }
}

fn leave_call(cx: &mut Cx<'_>, interrupted: Option<Restart>) -> Next {
    if cx.owned.watched {
        crate::ptrace::stop::leave_call(cx);
    }
    if cx.owned.leaving.is_some() {
        return Next::Exit;
    }
    if interrupted.is_none() && cx.shared.work().is_empty() && cx.owned.signal.saved_mask.is_none() {
        return Next::Guest;
    }
    match attend(cx, interrupted) {
        Attended::Exit => Next::Exit,
        Attended::Handler => Next::Guest,
        Attended::Unchanged => match interrupted {
            None => Next::Guest,
            Some(Restart::Block) => {
                cx.owned.restarting = true;
                Next::Again
            }
            Some(_) => Next::Again,
        },
    }
}

/// What attending to work came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Attended {
    /// Registers are as they were.
    Unchanged,
    /// A handler is set up.
    Handler,
    /// The task must exit.
    Exit,
}

fn attend(cx: &mut Cx<'_>, mut interrupted: Option<Restart>) -> Attended {
    let mut result = Attended::Unchanged;
    // A call that replaced the mask for its sleep puts it back here, whatever woke it.
    if cx.owned.signal.saved_mask.is_some() {
        cx.shared.kick(Work::SIGNAL);
    }
    loop {
        let work = cx.shared.work();
        if work.is_empty() {
            return result;
        }
        if work.contains(Work::KILL) {
            return Attended::Exit;
        }
        if work.contains(Work::STOP) {
            exit::stop_here(cx);
        } else if work.contains(Work::CONTINUED) {
            cx.shared.clear_work(Work::CONTINUED);
            exit::report_continue(cx.kernel(), &cx.shared.process);
        } else if work.contains(Work::FREEZE) {
            freezer::freeze_here(cx.shared);
        } else if work.contains(Work::MEMORY) {
            memory::settle(cx.shared);
        } else if work.contains(Work::SECCOMP) {
            cx.shared.clear_work(Work::SECCOMP);
            crate::seccomp::take_over(cx);
        } else if work.contains(Work::TRACE) {
            cx.shared.clear_work(Work::TRACE);
            crate::ptrace::stop::interrupt_stop(cx);
        } else if work.contains(Work::SIGNAL) {
            match deliver::deliver(cx, interrupted) {
                Delivered::Nothing | Delivered::Stop => {}
                Delivered::Handler => {
                    interrupted = None;
                    result = Attended::Handler;
                }
                Delivered::Exit => return Attended::Exit,
            }
        } else {
            return result;
        }
    }
}
