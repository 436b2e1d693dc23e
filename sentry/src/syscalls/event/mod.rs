//! Readiness: pipes, counters, timers, poll, select, epoll, inotify.

pub mod create;
pub mod epoll;
pub mod inotify;
pub mod poll;
pub mod timerfd;

use crate::task::Cx;
use abi::signal::SigSet;
use abi::time::Timespec;
use abi::{Errno, SysResult, UserAddr, UserPtr};
use std::time::{Duration, Instant};

/// A deadline `left` from now; `None` when it lies too far ahead to matter.
pub(crate) fn deadline_after(left: Duration) -> lock::Deadline {
    Instant::now().checked_add(left)
}

/// How long a call may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// It only looks.
    None,
    /// Until then, or for ever.
    Until(lock::Deadline),
}

impl Patience {
    /// From a relative timespec, NULL for ever.
    pub(crate) fn from_timespec(cx: &Cx<'_>, ptr: UserPtr<Timespec>) -> SysResult<Patience> {
        if ptr.is_null() {
            return Ok(Patience::Until(None));
        }
        Ok(Patience::after(cx.read(ptr)?.to_duration()?))
    }
    /// From milliseconds, negative for ever.
    pub(crate) fn from_millis(ms: i32) -> Patience {
        match u64::try_from(ms) {
            Err(_) => Patience::Until(None),
            Ok(ms) => Patience::after(Duration::from_millis(ms)),
        }
    }
    /// From a duration.
    pub(crate) fn after(left: Duration) -> Patience {
        if left.is_zero() { Patience::None } else { Patience::Until(deadline_after(left)) }
    }
}

/// Installs the signal mask that ppoll, pselect6 and epoll_pwait wait with. The old one is put back when
/// the call returns, or after the handler that interrupts it.
pub(crate) fn wait_mask(cx: &mut Cx<'_>, mask: UserPtr<u64>, size: usize) -> SysResult<()> {
    if mask.is_null() {
        return Ok(());
    }
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = SigSet(cx.read(mask)?);
    cx.set_temporary_mask(mask);
    Ok(())
}

/// The second half of pselect6's sixth argument.
pub(crate) fn mask_argument(cx: &Cx<'_>, ptr: UserAddr) -> SysResult<(UserPtr<u64>, usize)> {
    if ptr.is_null() {
        return Ok((UserPtr::new(UserAddr::NULL), 0));
    }
    let [addr, size]: [u64; 2] = cx.read(UserPtr::new(ptr))?;
    Ok((UserPtr::new(UserAddr::new(addr)), usize::try_from(size).map_err(|_| Errno::EINVAL)?))
}
