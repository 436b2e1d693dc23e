//! Waiting for signals: pause(2), rt_sigsuspend(2), rt_sigtimedwait(2).

use super::action::check_size;
use crate::signal::send;
use crate::task::Cx;
use abi::siginfo::SigInfo;
use abi::signal::SigSet;
use abi::time::Timespec;
use abi::{CallResult, Errno, Failure, Restart, UserPtr};
use lock::BlockError;
use std::time::Instant;
use vfs::Blocker;

/// pause(2).
pub fn pause(cx: &mut Cx<'_>) -> CallResult<()> {
    loop {
        if cx.shared.block(None).is_err() {
            return Err(Failure::Restart(Restart::NoHand));
        }
    }
}

/// rt_sigsuspend(2).
pub fn rt_sigsuspend(cx: &mut Cx<'_>, set: UserPtr<u64>, size: usize) -> CallResult<()> {
    check_size(size)?;
    let mask = SigSet(cx.read(set)?);
    replace_mask(cx, mask);
    loop {
        if cx.shared.block(None).is_err() {
            return Err(Failure::Restart(Restart::NoHand));
        }
    }
}

/// Sets a mask for the length of one call; it is put back when the call is over, behind the handler of
/// the signal that ended it.
pub fn replace_mask(cx: &mut Cx<'_>, mask: SigSet) {
    if cx.owned.signal.saved_mask.is_none() {
        cx.owned.signal.saved_mask = Some(cx.shared.mask());
    }
    send::set_mask(cx.shared, mask);
}

/// rt_sigtimedwait(2).
pub fn rt_sigtimedwait(
    cx: &mut Cx<'_>,
    set: UserPtr<u64>,
    info: UserPtr<SigInfo>,
    timeout: UserPtr<Timespec>,
    size: usize,
) -> CallResult<u32> {
    check_size(size)?;
    let wanted = SigSet(cx.read(set)?).difference(SigSet::UNBLOCKABLE);
    let deadline = if timeout.is_null() {
        None
    } else {
        let duration = cx.read(timeout)?.to_duration()?;
        Some(Instant::now().checked_add(duration).ok_or(Errno::EINVAL)?)
    };
    cx.shared.set_awaits(wanted);
    let result = loop {
        if let Some((signal, found)) = send::take(cx.shared, wanted) {
            break Ok((signal, found));
        }
        match cx.shared.block(deadline) {
            Ok(()) => {}
            Err(BlockError::TimedOut) => break Err(Errno::EAGAIN),
            Err(BlockError::Interrupted) => {
                cx.shared.clear_work(crate::task::Work::SIGNAL);
                if let Some(found) = send::take(cx.shared, wanted) {
                    break Ok(found);
                }
                break Err(Errno::EINTR);
            }
        }
    };
    cx.shared.set_awaits(SigSet::EMPTY);
    // Whatever else came meanwhile is delivered on the way out.
    cx.shared.kick(crate::task::Work::SIGNAL);
    let (signal, found) = result?;
    cx.write_if(info, &found)?;
    Ok(u32::from(signal.number()))
}
