//! Shared memory segments (shmget(2), shmat(2)).

use super::{Get, IpcNs, Perm, look_up, now};
use abi::{Errno, PAGE_SIZE, SysResult};
use lock::Ranked;
use lock::order::{FileObject, Leaf};
use mm::{FilePages, Frames, MappableId};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use vfs::Credentials;

/// `st_dev` of segments in /proc/pid/maps.
const DEV: u64 = 2;

/// A segment.
#[derive(Debug)]
pub struct Segment {
    /// Its id.
    pub id: i32,
    /// Owner and mode.
    pub perm: Ranked<FileObject, Perm>,
    /// Its pages.
    pub pages: Arc<FilePages>,
    /// Bytes asked for.
    pub size: u64,
    /// What its mappings share: each holds it once, the copies of fork too.
    token: Ranked<Leaf, Weak<Attachment>>,
    /// Process that made it, and that attached or detached last (root numbers).
    pub pids: [AtomicU32; 2],
    /// Last attach, detach and change.
    pub times: [AtomicI64; 3],
    /// SHM_LOCK: a mark, as guest pages are not swapped out one by one.
    pub locked: std::sync::atomic::AtomicBool,
    /// IPC_RMID: goes with its last attachment.
    pub doomed: std::sync::atomic::AtomicBool,
}

/// Kept by every mapping of a segment.
#[derive(Debug)]
pub struct Attachment {
    /// The segment.
    pub segment: Arc<Segment>,
    ns: Arc<IpcNs>,
}

impl Attachment {
    /// Counts one.
    #[must_use]
    pub fn new(ns: &Arc<IpcNs>, segment: &Arc<Segment>, pid: u32) -> Arc<Attachment> {
        segment.times[0].store(now(), Ordering::Relaxed);
        segment.pids[1].store(pid, Ordering::Relaxed);
        let mut token = segment.token.lock();
        if let Some(held) = token.upgrade() {
            return held;
        }
        let fresh = Arc::new(Attachment { segment: Arc::clone(segment), ns: Arc::clone(ns) });
        *token = Arc::downgrade(&fresh);
        fresh
    }
}

impl Segment {
    /// How many mappings there are (`shm_nattch`).
    #[must_use]
    pub fn attached(&self) -> u64 {
        u64::try_from(self.token.lock().strong_count()).unwrap_or(u64::MAX)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.segment.times[1].store(now(), Ordering::Relaxed);
        if self.segment.attached() == 0 && self.segment.doomed.load(Ordering::SeqCst) {
            let gone = self.ns.shm.lock().remove(self.segment.id);
            drop(gone);
        }
    }
}

/// shmget(2).
pub fn get(
    ns: &Arc<IpcNs>,
    frames: &Arc<Frames>,
    key: i32,
    size: u64,
    flags: u32,
    who: (&Credentials, u32),
) -> SysResult<i32> {
    let mut table = ns.shm.lock();
    if let Get::Found(id) = look_up(&table, key, flags)? {
        let segment = table.find(id)?;
        drop(table);
        if size > segment.size {
            return Err(Errno::EINVAL);
        }
        let perm = *segment.perm.lock();
        perm.check((flags & 0o777) >> 6, who.0, ns)?;
        return Ok(id);
    }
    if size == 0 || size > 1 << 46 {
        return Err(Errno::EINVAL);
    }
    let whole = size.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
    let made = table.add(key, &ns.next_shm, |id| {
        let ino = u64::try_from(id).unwrap_or(0);
        let name = format!("/SYSV{key:08x} (deleted)").into_bytes();
        let pages = FilePages::with(frames, MappableId { dev: DEV, ino }, None, Some(name));
        Arc::new(Segment {
            id,
            perm: Ranked::new(Perm::new(key, flags, who.0)),
            pages,
            size,
            token: Ranked::default(),
            pids: [AtomicU32::new(who.1), AtomicU32::new(0)],
            times: [AtomicI64::new(0), AtomicI64::new(0), AtomicI64::new(now())],
            locked: std::sync::atomic::AtomicBool::new(false),
            doomed: std::sync::atomic::AtomicBool::new(false),
        })
    })?;
    let segment = table.find(made)?;
    drop(table);
    if let Err(errno) = segment.pages.truncate(whole) {
        let gone = ns.shm.lock().remove(made);
        drop(gone);
        return Err(errno);
    }
    Ok(made)
}

/// IPC_RMID: at once, or with the last attachment.
pub fn remove(ns: &Arc<IpcNs>, segment: &Arc<Segment>) {
    segment.doomed.store(true, Ordering::SeqCst);
    let mut table = ns.shm.lock();
    table.forget_key(segment.id);
    let gone = if segment.attached() == 0 { table.remove(segment.id) } else { None };
    drop(table);
    drop(gone);
}
