//! Semaphore sets (semget(2), semop(2)).

use super::{Get, IpcNs, NOWAIT, Perm, look_up, now};
use crate::process::Process;
use abi::poll::Events;
use abi::{CallResult, Errno, Failure, Restart, SysResult};
use lock::order::FileObject;
use lock::{BlockError, Deadline, Ranked, WaitEntry, WaitQueue};
use std::sync::{Arc, Weak};
use vfs::Credentials;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Semaphores in one set at most (SEMMSL).
pub const MOST_IN_SET: usize = 32_000;
/// Highest value (SEMVMX).
pub const MAX_VALUE: i32 = 32_767;
/// Operations in one call at most (SEMOPM).
pub const MOST_OPS: usize = 500;
const UNDO: u32 = 0x1000;

/// `struct sembuf`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sembuf {
    /// Which semaphore.
    pub number: u16,
    /// What to do.
    pub op: i16,
    /// IPC_NOWAIT, SEM_UNDO.
    pub flags: u16,
}

/// One semaphore.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sem {
    /// Value.
    pub value: i32,
    /// Process of the last operation (root number).
    pub pid: u32,
    /// Waiting for more.
    pub more: u32,
    /// Waiting for zero.
    pub zero: u32,
}

/// State of a set.
#[derive(Debug)]
pub struct SemState {
    /// Owner and mode.
    pub perm: Perm,
    /// The semaphores.
    pub sems: Vec<Sem>,
    /// Last semop.
    pub otime: i64,
    /// Last change.
    pub ctime: i64,
    /// IPC_RMID.
    pub removed: bool,
}

/// A set.
#[derive(Debug)]
pub struct SemSet {
    /// Its id.
    pub id: i32,
    /// State.
    pub state: Ranked<FileObject, SemState>,
    queue: WaitQueue,
}

/// Adjustments at exit (SEM_UNDO).
pub type Undo = Vec<(Weak<SemSet>, Vec<i32>)>;

impl SemSet {
    /// Something changed: everybody who waits looks again.
    pub fn changed(&self) {
        self.queue.wake(Events::READABLE);
    }
}

/// semget(2).
pub fn get(ns: &Arc<IpcNs>, key: i32, count: i32, flags: u32, cred: &Credentials) -> SysResult<i32> {
    let count = usize::try_from(count).ok().filter(|n| *n <= MOST_IN_SET).ok_or(Errno::EINVAL)?;
    let mut table = ns.sem.lock();
    if let Get::Found(id) = look_up(&table, key, flags)? {
        let set = table.find(id)?;
        drop(table);
        let state = set.state.lock();
        if count > state.sems.len() {
            return Err(Errno::EINVAL);
        }
        state.perm.check((flags & 0o777) >> 6, cred, ns)?;
        return Ok(id);
    }
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    table.add(key, &ns.next_sem, |id| {
        let state = SemState {
            perm: Perm::new(key, flags, cred),
            sems: vec![Sem::default(); count],
            otime: 0,
            ctime: now(),
            removed: false,
        };
        Arc::new(SemSet { id, state: Ranked::new(state), queue: WaitQueue::new() })
    })
}

/// Why an operation cannot be done now.
enum Blocked {
    More(usize),
    Zero(usize),
}

/// Tries all operations at once.
fn attempt(state: &mut SemState, ops: &[Sembuf], pid: u32) -> SysResult<Option<(Blocked, bool)>> {
    let mut next: smallvec::SmallVec<[(usize, i32); 8]> = smallvec::SmallVec::new();
    for op in ops {
        let number = usize::from(op.number);
        let sem = state.sems.get(number).ok_or(Errno::EFBIG)?;
        let value = next.iter().rev().find(|(n, _)| *n == number).map_or(sem.value, |(_, value)| *value);
        let nowait = u32::from(op.flags) & NOWAIT != 0;
        let result = value + i32::from(op.op);
        if op.op == 0 {
            if value != 0 {
                return Ok(Some((Blocked::Zero(number), nowait)));
            }
        } else if result < 0 {
            return Ok(Some((Blocked::More(number), nowait)));
        } else if result > MAX_VALUE {
            return Err(Errno::ERANGE);
        }
        next.push((number, result.max(0).min(if op.op == 0 { value } else { MAX_VALUE })));
    }
    for (number, value) in next {
        if let Some(sem) = state.sems.get_mut(number) {
            sem.value = value;
            sem.pid = pid;
        }
    }
    state.otime = now();
    Ok(None)
}

/// semop(2), semtimedop(2).
pub fn operate(
    ns: &IpcNs,
    set: &Arc<SemSet>,
    ops: &[Sembuf],
    deadline: Deadline,
    process: &Process,
    by: &vfs::Caller<'_>,
) -> CallResult<()> {
    let pid = process.pid.root();
    let alters = ops.iter().any(|op| op.op != 0);
    let entry = WaitEntry::new(by.blocker.target(), Events::READABLE);
    let mut registered = false;
    let result = loop {
        let mut state = set.state.lock();
        if state.removed {
            break Err(Errno::EIDRM.into());
        }
        if ops.iter().any(|op| usize::from(op.number) >= state.sems.len()) {
            break Err(Errno::EFBIG.into());
        }
        if let Err(errno) = state.perm.check(if alters { 2 } else { 4 }, by.cred, ns) {
            break Err(errno.into());
        }
        let blocked = match attempt(&mut state, ops, pid) {
            Err(errno) => break Err(errno.into()),
            Ok(None) => {
                drop(state);
                remember(process, set, ops);
                if alters {
                    set.changed();
                }
                break Ok(());
            }
            Ok(Some((_, true))) => break Err(Errno::EAGAIN.into()),
            Ok(Some((blocked, false))) => blocked,
        };
        if !registered {
            registered = true;
            drop(state);
            set.queue.register(&entry);
            continue;
        }
        count(&mut state, &blocked, 1);
        drop(state);
        let slept = by.blocker.block(deadline);
        count(&mut set.state.lock(), &blocked, -1);
        match slept {
            Ok(()) => {}
            Err(BlockError::TimedOut) => break Err(Errno::EAGAIN.into()),
            // semop is never restarted (signal(7)).
            Err(BlockError::Interrupted) => break Err(Failure::Restart(Restart::NoHand)),
        }
    };
    if registered {
        set.queue.unregister(&entry);
    }
    result
}

fn count(state: &mut SemState, blocked: &Blocked, by: i32) {
    let (number, zero) = match blocked {
        Blocked::More(number) => (*number, false),
        Blocked::Zero(number) => (*number, true),
    };
    if let Some(sem) = state.sems.get_mut(number) {
        let counter = if zero { &mut sem.zero } else { &mut sem.more };
        *counter = counter.saturating_add_signed(by);
    }
}

/// Notes what has to be undone when the process ends.
fn remember(process: &Process, set: &Arc<SemSet>, ops: &[Sembuf]) {
    if !ops.iter().any(|op| u32::from(op.flags) & UNDO != 0) {
        return;
    }
    let len = set.state.lock().sems.len();
    let mut undo = process.sem_undo.lock();
    let at = undo.iter().position(|(other, _)| std::ptr::eq(other.as_ptr(), Arc::as_ptr(set)));
    let at = at.unwrap_or_else(|| {
        undo.push((Arc::downgrade(set), vec![0; len]));
        undo.len() - 1
    });
    let Some((_, adjust)) = undo.get_mut(at) else { return };
    for op in ops.iter().filter(|op| u32::from(op.flags) & UNDO != 0) {
        if let Some(slot) = adjust.get_mut(usize::from(op.number)) {
            *slot -= i32::from(op.op);
        }
    }
}

/// SETVAL and SETALL clear what others would undo; only those of the caller are known here.
pub fn forget(process: &Process, set: &Arc<SemSet>, number: Option<usize>) {
    for (other, adjust) in process.sem_undo.lock().iter_mut() {
        if std::ptr::eq(other.as_ptr(), Arc::as_ptr(set)) {
            for (at, slot) in adjust.iter_mut().enumerate() {
                if number.is_none_or(|number| number == at) {
                    *slot = 0;
                }
            }
        }
    }
}

/// The process ends: its adjustments are applied.
pub fn undo(process: &Process) {
    let all = std::mem::take(&mut *process.sem_undo.lock());
    for (set, adjust) in all {
        let Some(set) = set.upgrade() else { continue };
        let mut state = set.state.lock();
        for (sem, by) in state.sems.iter_mut().zip(adjust) {
            sem.value = sem.value.saturating_add(by).clamp(0, MAX_VALUE);
            if by != 0 {
                sem.pid = process.pid.root();
            }
        }
        state.otime = now();
        drop(state);
        set.changed();
    }
}
