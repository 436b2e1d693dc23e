//! File leases (fcntl(2) F_SETLEASE): the holder hears of an open or truncation that conflicts, and whoever
//! opens waits until the holder lets go, at most [`break_time_s`].
//!
//! The leases of an inode live in its [`crate::inode_state::InodeShared`]. Rank `FileLocks`.

use crate::caller::{Caller, Waitable, wait_until};
use crate::file::OpenFile;
use crate::inode_state::InodeShared;
use crate::locks::{LockKind, LockWait};
use crate::mount::Location;
use crate::sigio::{self, OwnerCell, Reason, Sigio};
use abi::poll::Events;
use abi::{CallResult, Errno, Failure, SysResult};
use lock::{Ranked, WaitEntry, WaitQueue, order};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a break asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Break {
    /// A read lease may stay.
    Downgrade,
    /// Nothing may stay.
    Unlock,
}

#[derive(Debug)]
struct Lease {
    /// The open file that holds it, as in `OpenFile::lock_key`.
    file: usize,
    kind: LockKind,
    /// A break under way, and when it is forced.
    pending: Option<(Break, Instant)>,
    owner: Arc<OwnerCell>,
    fd: i32,
}

/// The leases on one inode.
#[derive(Default)]
pub struct InodeLeases {
    list: Ranked<order::FileLocks, Vec<Lease>>,
    queue: WaitQueue,
}

static HELD: AtomicUsize = AtomicUsize::new(0);
static BREAK_TIME_S: AtomicU32 = AtomicU32::new(45);

/// /proc/sys/fs/lease-break-time: seconds that a holder has.
pub fn break_time_s() -> &'static AtomicU32 {
    &BREAK_TIME_S
}

impl Waitable for InodeLeases {
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

/// Who else has the file open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Others {
    /// Nobody.
    None,
    /// Somebody.
    Some,
}

impl InodeLeases {
    /// Takes or changes a lease. `EAGAIN` where another's is in the way.
    fn set(&self, file: &OpenFile, kind: LockKind, fd: i32) -> SysResult<()> {
        let key = file.lock_key();
        let mut list = self.list.lock();
        let others = list.iter().any(|l| {
            l.file != key && (kind == LockKind::Exclusive || matches!(l.pending, Some((Break::Unlock, _))))
        });
        if others {
            return Err(Errno::EAGAIN);
        }
        match list.iter_mut().find(|l| l.file == key) {
            Some(own) => {
                own.kind = kind;
                own.pending = None;
            }
            None => {
                list.push(Lease { file: key, kind, pending: None, owner: file.owner_cell(), fd });
                HELD.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(list);
        self.queue.wake(Events::IN);
        Ok(())
    }
    /// Takes the lease of an open file away. Whether there was one.
    pub(crate) fn remove(&self, file: usize) -> bool {
        let mut list = self.list.lock();
        let before = list.len();
        list.retain(|l| l.file != file);
        let gone = before - list.len();
        drop(list);
        HELD.fetch_sub(gone, Ordering::Relaxed);
        if gone > 0 {
            self.queue.wake(Events::IN);
        }
        gone > 0
    }
    /// What F_GETLEASE says: the kind that is left once a break is through.
    fn shown(&self, file: usize) -> Option<LockKind> {
        let list = self.list.lock();
        let lease = list.iter().find(|l| l.file == file)?;
        match lease.pending {
            None => Some(lease.kind),
            Some((Break::Downgrade, _)) => Some(LockKind::Shared),
            Some((Break::Unlock, _)) => None,
        }
    }
    /// One look: tells the holders in the way, and forces those whose time is up. When to look again.
    fn attempt(&self, want: LockKind) -> Option<Instant> {
        let asked = if want == LockKind::Exclusive { Break::Unlock } else { Break::Downgrade };
        let now = Instant::now();
        let time = Duration::from_secs(u64::from(BREAK_TIME_S.load(Ordering::Relaxed)));
        let mut told = Vec::new();
        let mut until: Option<Instant> = None;
        let mut list = self.list.lock();
        let before = list.len();
        list.retain_mut(|lease| {
            if want == LockKind::Shared && lease.kind == LockKind::Shared {
                return true;
            }
            if let Some((what, at)) = lease.pending
                && at <= now
            {
                lease.kind = LockKind::Shared;
                lease.pending = None;
                return what == Break::Downgrade && want == LockKind::Shared;
            }
            let at = match lease.pending {
                Some((what, at)) if what == asked || what == Break::Unlock => at,
                Some((_, at)) => {
                    lease.pending = Some((asked, at));
                    at
                }
                None => {
                    let at = now + time;
                    lease.pending = Some((asked, at));
                    told.push((Arc::clone(&lease.owner), lease.fd));
                    at
                }
            };
            until = Some(until.map_or(at, |until| until.min(at)));
            true
        });
        HELD.fetch_sub(before - list.len(), Ordering::Relaxed);
        drop(list);
        for (owner, fd) in told {
            let owner = *owner.lock();
            sigio::post(Sigio { owner, fd, reason: Reason::Message });
        }
        sigio::flush();
        until
    }
    /// Breaks what conflicts with an open for reading (`Shared`) or writing. `EWOULDBLOCK` without waiting.
    fn break_for(&self, want: LockKind, wait: LockWait, by: &Caller<'_>) -> CallResult<()> {
        while let Some(until) = self.attempt(want) {
            if wait == LockWait::No {
                return Err(Errno::EAGAIN.into());
            }
            let look = || if self.attempt(want).is_none() { Ok(()) } else { Err(Errno::EAGAIN) };
            match wait_until(self, Events::IN, Some(until), by, look) {
                Ok(()) => return Ok(()),
                // The time is up: the next look forces it.
                Err(Failure::Errno(Errno::EAGAIN)) => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }
}

/// Before a file is opened or cut: breaks the leases in the way. One load while nobody holds any.
pub(crate) fn break_at(at: &Location, want: LockKind, wait: LockWait, by: &Caller<'_>) -> CallResult<()> {
    if HELD.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    match at.dentry.key(Some(by)).and_then(crate::inode_state::existing) {
        Some(state) => state.leases.break_for(want, wait, by),
        None => Ok(()),
    }
}

/// F_SETLEASE by descriptor `fd`; `None` lets go. `others`: who else has the file open. `EAGAIN` when somebody is in the way,
/// or when there is nothing to let go.
pub fn set(
    file: &OpenFile,
    kind: Option<LockKind>,
    fd: i32,
    others: Others,
    by: &Caller<'_>,
) -> SysResult<()> {
    let state: &Arc<InodeShared> = file.lock_state(by)?;
    let Some(kind) = kind else {
        return if state.leases.remove(file.lock_key()) { Ok(()) } else { Err(Errno::EAGAIN) };
    };
    let writers = state.writers.load(Ordering::Acquire);
    let busy = match kind {
        LockKind::Shared => writers > 0,
        LockKind::Exclusive => others == Others::Some || writers > i32::from(file.flags().writable()),
    };
    if busy { Err(Errno::EAGAIN) } else { state.leases.set(file, kind, fd) }
}

/// F_GETLEASE.
pub fn get(file: &OpenFile, by: &Caller<'_>) -> SysResult<Option<LockKind>> {
    Ok(file.lock_state(by)?.leases.shown(file.lock_key()))
}
