//! futex(2), futex_waitv(2), futex_wait(2), futex_wake(2), futex_requeue(2), robust lists.

use crate::futex::wait::{self, Watch};
use crate::futex::{Key, Scope, key, pi};
use crate::task::Cx;
use abi::time::Timespec;
use abi::{CallResult, Errno, SysResult, UserAddr, UserPtr};
use lock::Deadline;
use std::time::Instant;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const WAIT: u32 = 0;
const WAKE: u32 = 1;
const REQUEUE: u32 = 3;
const CMP_REQUEUE: u32 = 4;
const WAKE_OP: u32 = 5;
const LOCK_PI: u32 = 6;
const UNLOCK_PI: u32 = 7;
const TRYLOCK_PI: u32 = 8;
const WAIT_BITSET: u32 = 9;
const WAKE_BITSET: u32 = 10;
const WAIT_REQUEUE_PI: u32 = 11;
const CMP_REQUEUE_PI: u32 = 12;
const LOCK_PI2: u32 = 13;
const PRIVATE: u32 = 128;
const CLOCK_REALTIME: u32 = 256;

/// futex(2).
pub fn futex(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    op: u32,
    value: u32,
    timeout: u64,
    addr2: UserAddr,
    value3: u32,
) -> CallResult<u32> {
    let scope = if op & PRIVATE != 0 { Scope::Private } else { Scope::Shared };
    let realtime = op & CLOCK_REALTIME != 0;
    let command = op & !(PRIVATE | CLOCK_REALTIME);
    if realtime && !matches!(command, WAIT | WAIT_BITSET | LOCK_PI2 | WAIT_REQUEUE_PI) {
        return Err(Errno::ENOSYS.into());
    }
    match command {
        WAIT | WAIT_BITSET => {
            let bitset = if command == WAIT { u32::MAX } else { value3 };
            if bitset == 0 {
                return Err(Errno::EINVAL.into());
            }
            let deadline = wait_deadline(cx, timeout, command == WAIT, realtime)?;
            let key = key(cx, addr, scope)?;
            let result = wait::wait(cx, addr, key, value, bitset, deadline);
            if result == Err(abi::Failure::Restart(abi::Restart::Block)) {
                cx.owned.restart_deadline = deadline;
            }
            result.map(|()| 0)
        }
        WAKE | WAKE_BITSET => {
            let bitset = if command == WAKE { u32::MAX } else { value3 };
            if bitset == 0 {
                return Err(Errno::EINVAL.into());
            }
            let key = key(cx, addr, scope)?;
            Ok(count(cx.kernel().futexes.wake(key, wanted(value), bitset)))
        }
        REQUEUE | CMP_REQUEUE | CMP_REQUEUE_PI => {
            let compare = (command != REQUEUE).then_some(value3);
            requeue(cx, (addr, addr2), scope, (value, crate::syscalls::args::low32(timeout)), compare)
        }
        WAKE_OP => wake_op(cx, (addr, addr2), scope, (value, crate::syscalls::args::low32(timeout)), value3),
        LOCK_PI | LOCK_PI2 => {
            // The older command counts its absolute time in CLOCK_REALTIME.
            let deadline = absolute(cx, timeout, command == LOCK_PI || realtime)?;
            let key = key(cx, addr, scope)?;
            pi::lock(cx, addr, key, deadline).map(|()| 0)
        }
        TRYLOCK_PI => {
            if pi::try_lock(cx, addr)? {
                Ok(0)
            } else {
                Err(Errno::EAGAIN.into())
            }
        }
        UNLOCK_PI => {
            let key = key(cx, addr, scope)?;
            Ok(pi::unlock(cx, addr, key).map(|()| 0)?)
        }
        WAIT_REQUEUE_PI => {
            let deadline = absolute(cx, timeout, realtime)?;
            let first = key(cx, addr, scope)?;
            // Woken or requeued: either way the second word is what it wants.
            match wait::wait(cx, addr, first, value, u32::MAX, deadline) {
                Ok(()) => {}
                Err(abi::Failure::Restart(_)) => return Err(Errno::EAGAIN.into()),
                Err(failure) => return Err(failure),
            }
            let second = key(cx, addr2, scope)?;
            match pi::lock(cx, addr2, second, deadline) {
                // It was handed over while queued there.
                Err(abi::Failure::Errno(Errno::EDEADLK)) => Ok(0),
                other => other.map(|()| 0),
            }
        }
        _ => Err(Errno::ENOSYS.into()),
    }
}

/// How many to wake: negative counts wake one, as in Linux.
fn wanted(value: u32) -> usize {
    usize::try_from(value.cast_signed()).unwrap_or(1).max(1)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn wait_deadline(cx: &mut Cx<'_>, timeout: u64, relative: bool, realtime: bool) -> SysResult<Deadline> {
    if let Some(deadline) = cx.take_restart_deadline() {
        return Ok(Some(deadline));
    }
    if !relative {
        return absolute(cx, timeout, realtime);
    }
    if timeout == 0 {
        return Ok(None);
    }
    let time: Timespec = cx.read(UserPtr::new(UserAddr::new(timeout)))?;
    Ok(Instant::now().checked_add(time.to_duration()?))
}

fn absolute(cx: &Cx<'_>, timeout: u64, realtime: bool) -> SysResult<Deadline> {
    if timeout == 0 {
        return Ok(None);
    }
    let time: Timespec = cx.read(UserPtr::new(UserAddr::new(timeout)))?;
    let clock = if realtime { crate::time::Clock::Realtime } else { crate::time::Clock::Monotonic };
    Ok(clock.deadline(time.to_duration()?))
}

fn requeue(
    cx: &Cx<'_>,
    addrs: (UserAddr, UserAddr),
    scope: Scope,
    counts: (u32, u32),
    compare: Option<u32>,
) -> CallResult<u32> {
    let limit = |value: u32| usize::try_from(value.cast_signed()).map_err(|_| Errno::EINVAL);
    let (wake, limit) = (limit(counts.0)?, limit(counts.1)?);
    let (from, to) = (key(cx, addrs.0, scope)?, key(cx, addrs.1, scope)?);
    if let Some(expected) = compare
        && cx.mm().load_u32(addrs.0)? != expected
    {
        return Err(Errno::EAGAIN.into());
    }
    let (woken, moved) = cx.kernel().futexes.requeue(from, to, wake, limit);
    Ok(count(woken + if compare.is_some() { moved } else { 0 }))
}

/// FUTEX_WAKE_OP: changes the second word, wakes on the first, and on the second if its old value says so.
fn wake_op(
    cx: &Cx<'_>,
    addrs: (UserAddr, UserAddr),
    scope: Scope,
    counts: (u32, u32),
    encoded: u32,
) -> CallResult<u32> {
    let (first, second) = (key(cx, addrs.0, scope)?, key(cx, addrs.1, scope)?);
    let operand = sign_extend_12(encoded >> 12);
    let compared = sign_extend_12(encoded);
    let operation = (encoded >> 28) & 7;
    let operand = if (encoded >> 31) & 1 != 0 { 1_u32.wrapping_shl(operand & 31) } else { operand };
    let change = |old: u32| match operation {
        0 => operand,
        1 => old.wrapping_add(operand),
        2 => old | operand,
        3 => old & !operand,
        _ => old ^ operand,
    };
    if operation > 4 {
        return Err(Errno::ENOSYS.into());
    }
    let old = cx.mm().update_u32(addrs.1, change)?;
    let (a, b) = (old.cast_signed(), compared.cast_signed());
    let also = match (encoded >> 24) & 0xf {
        0 => a == b,
        1 => a != b,
        2 => a < b,
        3 => a <= b,
        4 => a > b,
        5 => a >= b,
        _ => return Err(Errno::ENOSYS.into()),
    };
    let table = &cx.kernel().futexes;
    let mut woken = table.wake(first, wanted(counts.0), u32::MAX);
    if also {
        woken += table.wake(second, wanted(counts.1), u32::MAX);
    }
    Ok(count(woken))
}

fn sign_extend_12(value: u32) -> u32 {
    let value = value & 0xfff;
    if value & 0x800 != 0 { value | 0xffff_f000 } else { value }
}

const FUTEX2_SIZE_MASK: u32 = 3;
const FUTEX2_SIZE_U32: u32 = 2;
const FUTEX2_PRIVATE: u32 = 128;

fn scope2(flags: u32) -> SysResult<Scope> {
    if flags & !(FUTEX2_SIZE_MASK | FUTEX2_PRIVATE) != 0 || flags & FUTEX2_SIZE_MASK != FUTEX2_SIZE_U32 {
        return Err(Errno::EINVAL);
    }
    Ok(if flags & FUTEX2_PRIVATE != 0 { Scope::Private } else { Scope::Shared })
}

fn deadline2(cx: &Cx<'_>, timeout: UserPtr<Timespec>, clock: u32) -> SysResult<Deadline> {
    if timeout.is_null() {
        return Ok(None);
    }
    if clock > 1 {
        return Err(Errno::EINVAL);
    }
    absolute(cx, timeout.addr().raw(), clock == 0)
}

/// `struct futex_waitv`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FutexWaitv {
    value: u64,
    addr: u64,
    flags: u32,
    reserved: u32,
}

/// futex_waitv(2).
pub fn futex_waitv(
    cx: &mut Cx<'_>,
    waiters: UserPtr<FutexWaitv>,
    number: u32,
    flags: u32,
    timeout: UserPtr<Timespec>,
    clock: u32,
) -> CallResult<u32> {
    if flags != 0 || number == 0 || number > 128 || waiters.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let deadline = deadline2(cx, timeout, clock)?;
    let list = cx.mm().read_array(waiters, usize::try_from(number).unwrap_or(0))?;
    let mut words = Vec::with_capacity(list.len());
    for word in list {
        if word.reserved != 0 {
            return Err(Errno::EINVAL.into());
        }
        let addr = UserAddr::new(word.addr);
        let key: Key = key(cx, addr, scope2(word.flags)?)?;
        words.push(Watch { addr, key, value: crate::syscalls::args::low32(word.value) });
    }
    wait::wait_any(cx, &words, deadline).map(count)
}

/// futex_wake(2).
pub fn futex_wake(cx: &mut Cx<'_>, addr: UserAddr, mask: u64, number: i32, flags: u32) -> CallResult<u32> {
    let bitset = u32::try_from(mask).ok().filter(|m| *m != 0).ok_or(Errno::EINVAL)?;
    let key = key(cx, addr, scope2(flags)?)?;
    let Ok(number) = usize::try_from(number) else { return Err(Errno::EINVAL.into()) };
    Ok(count(cx.kernel().futexes.wake(key, number, bitset)))
}

/// futex_wait(2).
pub fn futex_wait(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    value: u64,
    mask: u64,
    flags: u32,
    timeout: UserPtr<Timespec>,
    clock: u32,
) -> CallResult<u32> {
    let bitset = u32::try_from(mask).ok().filter(|m| *m != 0).ok_or(Errno::EINVAL)?;
    let value = u32::try_from(value).map_err(|_| Errno::EINVAL)?;
    let deadline = deadline2(cx, timeout, clock)?;
    let key = key(cx, addr, scope2(flags)?)?;
    match wait::wait(cx, addr, key, value, bitset, deadline) {
        // An absolute deadline needs no state to restart with.
        Err(abi::Failure::Restart(_)) => Err(abi::Failure::Restart(abi::Restart::Sys)),
        other => other.map(|()| 0),
    }
}

/// futex_requeue(2).
pub fn futex_requeue(
    cx: &mut Cx<'_>,
    waiters: UserPtr<FutexWaitv>,
    flags: u32,
    wake: i32,
    limit: i32,
) -> CallResult<u32> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let pair = cx.mm().read_array(waiters, 2)?;
    let [first, second] = pair.as_slice() else { return Err(Errno::EINVAL.into()) };
    let from = key(cx, UserAddr::new(first.addr), scope2(first.flags)?)?;
    let to = key(cx, UserAddr::new(second.addr), scope2(second.flags)?)?;
    let wake = usize::try_from(wake).map_err(|_| Errno::EINVAL)?;
    let limit = usize::try_from(limit).map_err(|_| Errno::EINVAL)?;
    if u64::from(cx.mm().load_u32(UserAddr::new(first.addr))?) != first.value {
        return Err(Errno::EAGAIN.into());
    }
    let (woken, moved) = cx.kernel().futexes.requeue(from, to, wake, limit);
    Ok(count(woken + moved))
}

/// Bytes of `struct robust_list_head`.
const ROBUST_HEAD: usize = 24;

/// set_robust_list(2).
pub fn set_robust_list(cx: &mut Cx<'_>, head: UserAddr, len: usize) -> CallResult<()> {
    if len != ROBUST_HEAD {
        return Err(Errno::EINVAL.into());
    }
    cx.owned.registered.robust_list = head;
    cx.shared.set_robust_list(head);
    Ok(())
}

/// get_robust_list(2).
pub fn get_robust_list(cx: &mut Cx<'_>, pid: i32, head: UserPtr<u64>, len: UserPtr<u64>) -> CallResult<()> {
    let address = if pid == 0 {
        cx.owned.registered.robust_list
    } else {
        let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
        let number = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
        let task = {
            let tree = cx.kernel().tree.lock();
            std::sync::Arc::clone(tree.find_task(&ns, number).ok_or(Errno::ESRCH)?)
        };
        crate::ptrace::access::may_access(cx, &task, crate::ptrace::access::Mode::ReadReal)?;
        task.robust_list()
    };
    cx.write(len, &24_u64)?;
    Ok(cx.write(head, &address.raw())?)
}
