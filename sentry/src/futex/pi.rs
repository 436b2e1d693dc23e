//! Priority-inheritance futexes: the word holds the owner's id, and an unlock hands it to a waiter.
//!
//! All threads of the sandbox have the same priority, so nothing is inherited; the protocol is complete.

use super::wait::sleep;
use super::{Key, Waiter};
use crate::task::Cx;
use abi::{CallResult, Errno, Failure, SysResult, UserAddr};
use lock::Deadline;
use std::sync::Arc;

const TID_MASK: u32 = 0x3fff_ffff;
const OWNER_DIED: u32 = 0x4000_0000;
const WAITERS: u32 = 0x8000_0000;

/// FUTEX_LOCK_PI. `EDEADLK` when the caller holds it, `ESRCH` when the owner does not exist.
pub fn lock(cx: &mut Cx<'_>, addr: UserAddr, key: Key, deadline: Deadline) -> CallResult<()> {
    let shared = Arc::clone(cx.shared);
    let waiter = Arc::clone(cx.owned.futex.get_or_insert_with(|| Waiter::new(&shared)));
    loop {
        if try_lock(cx, addr)? {
            return Ok(());
        }
        cx.kernel().futexes.enqueue(&waiter, key, u32::MAX);
        match announce(cx, addr) {
            Ok(true) => match sleep(cx, &waiter, deadline) {
                // The one that unlocked made the word ours.
                Ok(()) => return Ok(()),
                Err(Failure::Restart(_)) => return Err(Failure::Restart(abi::Restart::NoIntr)),
                Err(failure) => return Err(failure),
            },
            Ok(false) => {
                if !cx.kernel().futexes.dequeue(&waiter) {
                    return sleep(cx, &waiter, None);
                }
            }
            Err(errno) => {
                if !cx.kernel().futexes.dequeue(&waiter) {
                    return sleep(cx, &waiter, None);
                }
                return Err(errno.into());
            }
        }
    }
}

/// FUTEX_TRYLOCK_PI: whether the word is the caller's now.
pub fn try_lock(cx: &Cx<'_>, addr: UserAddr) -> SysResult<bool> {
    let tid = cx.owned.pid.own();
    loop {
        let value = cx.mm().load_u32(addr)?;
        if value & TID_MASK == tid {
            return Err(Errno::EDEADLK);
        }
        if value & TID_MASK != 0 {
            return Ok(false);
        }
        let new = tid | (value & (WAITERS | OWNER_DIED));
        if cx.mm().cas_u32(addr, value, new)? == value {
            return Ok(true);
        }
    }
}

/// Sets the waiters bit while somebody owns the word; false when nobody does.
fn announce(cx: &Cx<'_>, addr: UserAddr) -> SysResult<bool> {
    loop {
        let value = cx.mm().load_u32(addr)?;
        let owner = value & TID_MASK;
        if owner == 0 {
            return Ok(false);
        }
        let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
        if cx.kernel().tree.lock().find_task(&ns, owner).is_none() {
            return Err(Errno::ESRCH);
        }
        if value & WAITERS != 0 || cx.mm().cas_u32(addr, value, value | WAITERS)? == value {
            return Ok(true);
        }
    }
}

/// FUTEX_UNLOCK_PI: hands the word to the first waiter, else sets it to zero.
pub fn unlock(cx: &Cx<'_>, addr: UserAddr, key: Key) -> SysResult<()> {
    let tid = cx.owned.pid.own();
    loop {
        let value = cx.mm().load_u32(addr)?;
        if value & TID_MASK != tid {
            return Err(Errno::EPERM);
        }
        let table = &cx.kernel().futexes;
        let next = table.take(key, 1, u32::MAX).into_iter().next();
        let Some(next) = next else {
            if cx.mm().cas_u32(addr, value, 0)? == value {
                return Ok(());
            }
            continue;
        };
        let Some(heir) = next.tid() else { continue };
        let more = if table.waiting(key) > 0 { WAITERS } else { 0 };
        let stored = cx.mm().store_u32(addr, heir | more);
        next.grant();
        return stored;
    }
}
