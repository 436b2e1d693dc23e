//! File locks: flock(2), POSIX byte ranges and open-file-description ranges (fcntl_locking(2)).
//!
//! The locks of an inode live in its [`crate::inode_state::InodeShared`]. Rank `FileLocks`; the graph of who
//! waits for whom (deadlocks of POSIX locks, `EDEADLK`) is a leaf.

use crate::caller::{Caller, Waitable, wait_until};
use crate::file::OpenFile;
use abi::poll::Events;
use abi::{CallResult, Errno, Failure, SysResult};
use lock::{Ranked, WaitEntry, WaitQueue, order};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Who holds a range lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LockOwner {
    /// A descriptor table (what F_SETLK means by "process"), by a number that is never used again.
    Posix(u64),
    /// An open file description.
    File(usize),
}

/// F_RDLCK or F_WRLCK; LOCK_SH or LOCK_EX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockKind {
    /// Others may share it.
    Shared,
    /// Nobody else.
    Exclusive,
}

/// Whether to wait for a conflicting lock to go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockWait {
    /// F_SETLK, LOCK_NB.
    No,
    /// F_SETLKW.
    Yes,
}

/// A range lock: bytes `start..=last`, `last` of `i64::MAX` being "to the end, however far it grows".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeLock {
    /// Holder.
    pub owner: LockOwner,
    /// Kind.
    pub kind: LockKind,
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub last: u64,
    /// Process that set it (l_pid of F_GETLK; -1 is shown for OFD locks).
    pub pid: u32,
}

/// The last byte of a lock that reaches to the end.
pub const TO_END: u64 = i64::MAX.cast_unsigned();

#[derive(Clone, Copy)]
struct Flock {
    file: usize,
    kind: LockKind,
    pid: u32,
}

#[derive(Default)]
struct Lists {
    flock: Vec<Flock>,
    ranges: Vec<RangeLock>,
}

/// The locks of one inode.
#[derive(Default)]
pub struct InodeLocks {
    lists: Ranked<order::FileLocks, Lists>,
    queue: WaitQueue,
}

static RANGES: AtomicUsize = AtomicUsize::new(0);
static WAITING: Ranked<order::Leaf, Option<HashMap<u64, LockOwner>>> = Ranked::new(None);

/// Whether any range lock exists anywhere: closing a descriptor looks for its locks only then.
#[must_use]
pub fn any_ranges() -> bool {
    RANGES.load(Ordering::Relaxed) > 0
}

impl RangeLock {
    fn overlaps(&self, other: &RangeLock) -> bool {
        self.start <= other.last && other.start <= self.last
    }
    fn conflicts(&self, other: &RangeLock) -> bool {
        self.owner != other.owner
            && self.overlaps(other)
            && (self.kind == LockKind::Exclusive || other.kind == LockKind::Exclusive)
    }
}

impl Waitable for InodeLocks {
    fn ready(&self, interest: Events) -> Events {
        interest
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.queue.unregister(entry);
    }
}

impl InodeLocks {
    /// F_GETLK: a lock that is in the way of `wanted`.
    #[must_use]
    pub fn find_conflict(&self, wanted: &RangeLock) -> Option<RangeLock> {
        self.lists.lock().ranges.iter().find(|l| l.conflicts(wanted)).copied()
    }
    /// All locks, for /proc/locks: ranges, and (kind, pid) of flocks.
    #[must_use]
    pub fn list(&self) -> (Vec<RangeLock>, Vec<(LockKind, u32)>) {
        let lists = self.lists.lock();
        (lists.ranges.clone(), lists.flock.iter().map(|f| (f.kind, f.pid)).collect())
    }
    fn try_range(&self, wanted: &RangeLock) -> SysResult<()> {
        let mut lists = self.lists.lock();
        if lists.ranges.iter().any(|l| l.conflicts(wanted)) {
            return Err(Errno::EAGAIN);
        }
        replace(&mut lists.ranges, wanted, Some(wanted.kind));
        drop(lists);
        // A downgrade may let others in.
        self.queue.wake(Events::IN);
        Ok(())
    }
    /// F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW with F_RDLCK or F_WRLCK.
    pub fn set_range(&self, wanted: &RangeLock, wait: LockWait, by: &Caller<'_>) -> CallResult<()> {
        if wait == LockWait::No {
            return self.try_range(wanted).map_err(Failure::from);
        }
        let LockOwner::Posix(me) = wanted.owner else {
            return wait_until(self, Events::IN, None, by, || self.try_range(wanted));
        };
        let result = wait_until(self, Events::IN, None, by, || match self.try_range(wanted) {
            Err(Errno::EAGAIN) => {
                if let Some(holder) = self.find_conflict(wanted) {
                    note_wait(me, holder.owner)?;
                }
                Err(Errno::EAGAIN)
            }
            other => other,
        });
        if let Some(waiting) = WAITING.lock().as_mut() {
            waiting.remove(&me);
        }
        result
    }
    /// F_UNLCK.
    pub fn unlock_range(&self, range: &RangeLock) {
        replace(&mut self.lists.lock().ranges, range, None);
        self.queue.wake(Events::IN);
    }
    /// Drops every range of an owner.
    pub fn release(&self, owner: LockOwner) {
        let mut lists = self.lists.lock();
        let before = lists.ranges.len();
        lists.ranges.retain(|l| l.owner != owner);
        let gone = before - lists.ranges.len();
        drop(lists);
        if gone > 0 {
            RANGES.fetch_sub(gone, Ordering::Relaxed);
            self.queue.wake(Events::IN);
        }
    }
    /// flock(2) LOCK_SH, LOCK_EX by the open file `file`.
    pub fn flock(&self, file: usize, kind: LockKind, wait: LockWait, by: &Caller<'_>) -> CallResult<()> {
        let pid = by.task.tgid();
        let attempt = || {
            let mut lists = self.lists.lock();
            // A conversion drops the old lock first: it is not atomic (flock(2)).
            let held = lists.flock.iter().position(|f| f.file == file);
            if let Some(held) = held {
                if lists.flock.get(held).is_some_and(|f| f.kind == kind) {
                    return Ok(());
                }
                lists.flock.swap_remove(held);
            }
            let free = lists.flock.iter().all(|f| f.kind == LockKind::Shared && kind == LockKind::Shared);
            if free {
                lists.flock.push(Flock { file, kind, pid });
            }
            drop(lists);
            if held.is_some() {
                self.queue.wake(Events::IN);
            }
            if free { Ok(()) } else { Err(Errno::EAGAIN) }
        };
        match wait {
            LockWait::No => attempt().map_err(Failure::from),
            LockWait::Yes => wait_until(self, Events::IN, None, by, attempt),
        }
    }
    /// LOCK_UN, and the last close.
    pub fn unflock(&self, file: usize) {
        let mut lists = self.lists.lock();
        let before = lists.flock.len();
        lists.flock.retain(|f| f.file != file);
        let gone = before != lists.flock.len();
        drop(lists);
        if gone {
            self.queue.wake(Events::IN);
        }
    }
}

/// Notes that `me` waits for `holder`; `EDEADLK` when that closes a circle.
fn note_wait(me: u64, holder: LockOwner) -> SysResult<()> {
    let mut guard = WAITING.lock();
    let waiting = guard.get_or_insert_default();
    let mut at = holder;
    for _ in 0..64 {
        let LockOwner::Posix(other) = at else { break };
        if other == me {
            return Err(Errno::EDEADLK);
        }
        match waiting.get(&other) {
            Some(next) => at = *next,
            None => break,
        }
    }
    waiting.insert(me, holder);
    Ok(())
}

/// Gives `range` of its owner the kind `to` (`None`: unlocked), splitting and merging what was there.
fn replace(ranges: &mut Vec<RangeLock>, range: &RangeLock, to: Option<LockKind>) {
    let before = ranges.len();
    let mut own: Vec<RangeLock> = Vec::new();
    ranges.retain(|l| {
        if l.owner != range.owner {
            return true;
        }
        if !l.overlaps(range) {
            own.push(*l);
            return false;
        }
        if l.start < range.start {
            own.push(RangeLock { last: range.start - 1, ..*l });
        }
        if l.last > range.last {
            own.push(RangeLock { start: range.last + 1, ..*l });
        }
        false
    });
    if let Some(kind) = to {
        own.push(RangeLock { kind, ..*range });
    }
    own.sort_by_key(|l| l.start);
    let mut merged: Vec<RangeLock> = Vec::with_capacity(own.len());
    for lock in own {
        match merged.last_mut() {
            Some(prev) if prev.kind == lock.kind && prev.last.saturating_add(1) >= lock.start => {
                prev.last = prev.last.max(lock.last);
            }
            _ => merged.push(lock),
        }
    }
    ranges.extend(merged);
    let after = ranges.len();
    if after >= before {
        RANGES.fetch_add(after - before, Ordering::Relaxed);
    } else {
        RANGES.fetch_sub(before - after, Ordering::Relaxed);
    }
}

impl OpenFile {
    /// The key under which an open file owns flocks and OFD locks.
    #[must_use]
    pub fn lock_key(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
    /// flock(2); `None` unlocks.
    pub fn flock(&self, kind: Option<LockKind>, wait: LockWait, by: &Caller<'_>) -> CallResult<()> {
        let state = self.lock_state(by)?;
        match kind {
            Some(kind) => state.locks.flock(self.lock_key(), kind, wait, by),
            None => {
                state.locks.unflock(self.lock_key());
                Ok(())
            }
        }
    }
    /// fcntl F_SETLK and kin; `kind` of `None` is F_UNLCK. `EBADF` when the access mode does not fit.
    pub fn lock_range(
        &self,
        range: &RangeLock,
        kind: Option<LockKind>,
        wait: LockWait,
        by: &Caller<'_>,
    ) -> CallResult<()> {
        let flags = self.flags();
        match kind {
            Some(LockKind::Shared) if !flags.readable() => return Err(Errno::EBADF.into()),
            Some(LockKind::Exclusive) if !flags.writable() => return Err(Errno::EBADF.into()),
            _ => {}
        }
        let state = self.lock_state(by)?;
        match kind {
            Some(kind) => state.locks.set_range(&RangeLock { kind, ..*range }, wait, by),
            None => {
                state.locks.unlock_range(range);
                Ok(())
            }
        }
    }
    /// fcntl F_GETLK, F_OFD_GETLK.
    pub fn find_lock(&self, wanted: &RangeLock, by: &Caller<'_>) -> SysResult<Option<RangeLock>> {
        Ok(self.lock_state(by)?.locks.find_conflict(wanted))
    }
}
