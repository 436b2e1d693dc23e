//! semget(2), semop(2), semtimedop(2), semctl(2).

use super::{INFO, RMID, SET, STAT, shown};
use crate::ipc::PermStat;
use crate::ipc::sem::{self, MAX_VALUE, MOST_OPS, SemSet, Sembuf};
use crate::task::Cx;
use abi::time::Timespec;
use abi::{CallResult, Errno, SysResult, UserAddr, UserPtr};
use lock::Deadline;
use std::sync::Arc;
use std::time::Instant;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// semget(2).
pub fn semget(cx: &mut Cx<'_>, key: i32, count: i32, flags: u32) -> CallResult<i32> {
    Ok(sem::get(&cx.owned.ns.ipc, key, count, flags, cx.cred())?)
}

/// semop(2).
pub fn semop(cx: &mut Cx<'_>, id: i32, ops: UserPtr<Sembuf>, count: usize) -> CallResult<()> {
    operate(cx, id, ops, count, None)
}

/// semtimedop(2).
pub fn semtimedop(
    cx: &mut Cx<'_>,
    id: i32,
    ops: UserPtr<Sembuf>,
    count: usize,
    timeout: UserPtr<Timespec>,
) -> CallResult<()> {
    let deadline =
        if timeout.is_null() { None } else { Instant::now().checked_add(cx.read(timeout)?.to_duration()?) };
    operate(cx, id, ops, count, deadline)
}

fn operate(cx: &Cx<'_>, id: i32, ops: UserPtr<Sembuf>, count: usize, deadline: Deadline) -> CallResult<()> {
    if count == 0 {
        return Err(Errno::EINVAL.into());
    }
    if count > MOST_OPS {
        return Err(Errno::E2BIG.into());
    }
    let ops = cx.mm().read_array(ops, count)?;
    let ns = Arc::clone(&cx.owned.ns.ipc);
    let set = ns.sem.lock().find(id)?;
    let by = cx.caller();
    sem::operate(&ns, &set, &ops, deadline, &cx.shared.process, &by)
}

/// `struct semid64_ds`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SemStat {
    perm: PermStat,
    otime: i64,
    unused1: u64,
    ctime: i64,
    unused2: u64,
    count: u64,
    unused: [u64; 2],
}

const GETPID: u32 = 11;
const GETVAL: u32 = 12;
const GETALL: u32 = 13;
const GETNCNT: u32 = 14;
const GETZCNT: u32 = 15;
const SETVAL: u32 = 16;
const SETALL: u32 = 17;
const SEM_STAT: u32 = 18;
const SEM_INFO: u32 = 19;
const SEM_STAT_ANY: u32 = 20;

/// semctl(2).
pub fn semctl(cx: &mut Cx<'_>, id: i32, number: i32, command: u32, arg: u64) -> CallResult<i32> {
    let ns = Arc::clone(&cx.owned.ns.ipc);
    let at = UserAddr::new(arg);
    if command == INFO || command == SEM_INFO {
        return Ok(info(cx, command, at)?);
    }
    let set = if command == SEM_STAT || command == SEM_STAT_ANY {
        let index = usize::try_from(id).map_err(|_| Errno::EINVAL)?;
        let table = ns.sem.lock();
        let found = table.iter().nth(index).map(|(_, set)| Arc::clone(set));
        found.ok_or(Errno::EINVAL)?
    } else {
        ns.sem.lock().find(id)?
    };
    let (perm, count) = {
        let state = set.state.lock();
        if state.removed {
            return Err(Errno::EIDRM.into());
        }
        (state.perm, state.sems.len())
    };
    let want = match command {
        SETVAL | SETALL => 2,
        RMID | SET | SEM_STAT_ANY => 0,
        _ => 4,
    };
    perm.check(want, cx.cred(), &ns)?;
    match command {
        RMID => {
            perm.check_owner(cx.cred(), &ns)?;
            let gone = ns.sem.lock().remove(id);
            set.state.lock().removed = true;
            set.changed();
            drop(gone);
        }
        SET => {
            perm.check_owner(cx.cred(), &ns)?;
            let new: SemStat = cx.read(UserPtr::new(at))?;
            let mut state = set.state.lock();
            state.perm.set(&new.perm, cx.cred())?;
            state.ctime = crate::ipc::now();
        }
        STAT | SEM_STAT | SEM_STAT_ANY => {
            let value = stat(cx, &set);
            cx.write(UserPtr::new(at), &value)?;
            return Ok(if command == STAT { 0 } else { set.id });
        }
        GETALL => {
            let values: Vec<u8> = {
                let state = set.state.lock();
                let values = state.sems.iter().map(|sem| u16::try_from(sem.value).unwrap_or(0));
                values.flat_map(u16::to_le_bytes).collect()
            };
            cx.mm().write_bytes(at, &values)?;
        }
        SETALL => {
            let values: Vec<u16> = cx.mm().read_array(UserPtr::new(at), count)?;
            if values.iter().any(|value| i32::from(*value) > MAX_VALUE) {
                return Err(Errno::ERANGE.into());
            }
            let mut state = set.state.lock();
            for (sem, value) in state.sems.iter_mut().zip(values) {
                sem.value = i32::from(value);
                sem.pid = cx.shared.process.pid.root();
            }
            state.ctime = crate::ipc::now();
            drop(state);
            sem::forget(&cx.shared.process, &set, None);
            set.changed();
        }
        _ => return Ok(one(cx, &set, number, command, arg)?),
    }
    Ok(0)
}

fn one(cx: &Cx<'_>, set: &Arc<SemSet>, number: i32, command: u32, arg: u64) -> SysResult<i32> {
    let number = usize::try_from(number).map_err(|_| Errno::EINVAL)?;
    let mut state = set.state.lock();
    let sem = state.sems.get_mut(number).ok_or(Errno::EINVAL)?;
    match command {
        GETVAL => Ok(sem.value),
        GETNCNT => Ok(i32::try_from(sem.more).unwrap_or(i32::MAX)),
        GETZCNT => Ok(i32::try_from(sem.zero).unwrap_or(i32::MAX)),
        GETPID => {
            let pid = sem.pid;
            drop(state);
            Ok(i32::try_from(shown(cx, pid)).unwrap_or(0))
        }
        SETVAL => {
            let value = crate::syscalls::args::low32(arg).cast_signed();
            if !(0..=MAX_VALUE).contains(&value) {
                return Err(Errno::ERANGE);
            }
            sem.value = value;
            sem.pid = cx.shared.process.pid.root();
            state.ctime = crate::ipc::now();
            drop(state);
            sem::forget(&cx.shared.process, set, Some(number));
            set.changed();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn stat(cx: &Cx<'_>, set: &SemSet) -> SemStat {
    let state = set.state.lock();
    SemStat {
        perm: state.perm.stat(set.id, 0, cx.cred()),
        otime: state.otime,
        unused1: 0,
        ctime: state.ctime,
        unused2: 0,
        count: u64::try_from(state.sems.len()).unwrap_or(0),
        unused: [0; 2],
    }
}

fn info(cx: &Cx<'_>, command: u32, at: UserAddr) -> SysResult<i32> {
    let sets: Vec<Arc<SemSet>> = cx.owned.ns.ipc.sem.lock().iter().map(|(_, set)| Arc::clone(set)).collect();
    let sems: usize = sets.iter().map(|set| set.state.lock().sems.len()).sum();
    let word = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    let (used, all) = if command == INFO { (20, 32_767) } else { (word(sets.len()), word(sems)) };
    let words = [1_024_000_000, 32_000, 1_024_000_000, 1_024_000_000, 32_000, 500, 500, used, 32_767, all];
    let bytes: Vec<u8> = words.iter().flat_map(|word: &i32| word.to_le_bytes()).collect();
    cx.mm().write_bytes(at, &bytes)?;
    Ok(word(sets.len()).saturating_sub(1).max(0))
}
