//! rt_sigaction(2), rt_sigprocmask(2), rt_sigpending(2), sigaltstack(2), rt_sigreturn(2).

use crate::signal::{altstack, frame, send};
use crate::task::Cx;
use abi::siginfo::{SigAction, SigInfo, StackT};
use abi::signal::{SigSet, Signal};
use abi::{CallResult, Errno, SysResult, UserPtr};

/// `sigset_t` of the kernel in bytes.
const SET_SIZE: usize = 8;

/// Checks the size that comes with every set.
pub fn check_size(size: usize) -> SysResult<()> {
    if size == SET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

/// rt_sigaction(2).
pub fn rt_sigaction(
    cx: &mut Cx<'_>,
    signal: u32,
    new: UserPtr<SigAction>,
    old: UserPtr<SigAction>,
    size: usize,
) -> CallResult<()> {
    check_size(size)?;
    let signal = Signal::new(signal)?;
    let handlers = std::sync::Arc::clone(&cx.owned.signal.handlers);
    let before = handlers.get(signal);
    if !new.is_null() {
        let mut action: SigAction = cx.read(new)?;
        if SigSet::UNBLOCKABLE.contains(signal) {
            return Err(Errno::EINVAL.into());
        }
        action.flags &= SigAction::KNOWN;
        action.mask &= !SigSet::UNBLOCKABLE.0;
        handlers.set(signal, action);
        if handlers.ignores(signal) {
            drop_pending(cx, signal);
        }
    }
    cx.write_if(old, &before)?;
    Ok(())
}

/// What is ignored now is not pending any more (POSIX).
fn drop_pending(cx: &Cx<'_>, signal: Signal) {
    let set = SigSet::of(signal);
    if !send::pending_set(cx.shared).contains(signal) && cx.shared.process.state.lock().live <= 1 {
        return;
    }
    cx.shared.process.pending.lock().discard(set);
    for task in cx.shared.process.threads() {
        task.pending.lock().discard(set);
    }
}

const SIG_BLOCK: u32 = 0;
const SIG_UNBLOCK: u32 = 1;
const SIG_SETMASK: u32 = 2;

/// rt_sigprocmask(2).
pub fn rt_sigprocmask(
    cx: &mut Cx<'_>,
    how: u32,
    set: UserPtr<u64>,
    old: UserPtr<u64>,
    size: usize,
) -> CallResult<()> {
    check_size(size)?;
    let before = cx.shared.mask();
    if !set.is_null() {
        let set = SigSet(cx.read(set)?);
        let mask = match how {
            SIG_BLOCK => before.union(set),
            SIG_UNBLOCK => before.difference(set),
            SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL.into()),
        };
        send::set_mask(cx.shared, mask);
    }
    cx.write_if(old, &before.0)?;
    Ok(())
}

/// rt_sigpending(2).
pub fn rt_sigpending(cx: &mut Cx<'_>, set: UserPtr<u64>, size: usize) -> CallResult<()> {
    if size > SET_SIZE {
        return Err(Errno::EINVAL.into());
    }
    let pending = send::pending_set(cx.shared).intersection(cx.shared.mask());
    let bytes = pending.0.to_le_bytes();
    Ok(cx.mm().write_bytes(set.addr(), bytes.get(..size).unwrap_or_default())?)
}

/// sigaltstack(2).
pub fn sigaltstack(cx: &mut Cx<'_>, new: UserPtr<StackT>, old: UserPtr<StackT>) -> CallResult<()> {
    let sp = cx.context.registers().rsp;
    let before = cx.owned.signal.altstack;
    if !new.is_null() {
        let new: StackT = cx.read(new)?;
        altstack::set(cx, &new, sp)?;
    }
    cx.write_if(old, &StackT::new(before.sp, before.size, frame::shown_flags(&before, sp)))?;
    Ok(())
}

/// rt_sigreturn(2).
pub fn rt_sigreturn(cx: &mut Cx<'_>) -> CallResult<()> {
    cx.owned.keep_registers = true;
    if frame::restore(cx).is_err() {
        send::force(cx.shared, &cx.owned.signal.handlers, SigInfo::kernel(Signal::SIGSEGV));
    }
    Ok(())
}
