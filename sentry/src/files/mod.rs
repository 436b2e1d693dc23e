//! Descriptor tables (close(2), dup(2), fcntl(2) F_DUPFD).
//!
//! Rank `FdTable`. Files that leave the table are handed to the caller, so that whatever their last
//! close does happens outside the lock.

pub mod aio;

use abi::{Errno, Fd, SysResult};
use lock::RankedRw;
use lock::order;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vfs::OpenFile;

/// Hard bound on descriptor numbers (`/proc/sys/fs/nr_open`).
pub const NR_OPEN: usize = 1_048_576;

/// A descriptor table, shared by the threads of a process (and by CLONE_FILES).
#[derive(Debug)]
pub struct FdTable {
    slots: RankedRw<order::FdTable, Slots>,
    /// The owner of its POSIX record locks: never used again by another table.
    id: u64,
}

impl Default for FdTable {
    fn default() -> FdTable {
        FdTable { slots: RankedRw::new(Slots::default()), id: next_id() }
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[derive(Clone, Debug)]
struct Slot {
    file: Arc<OpenFile>,
    on_exec: OnExec,
}

#[derive(Clone, Debug, Default)]
struct Slots {
    list: Vec<Option<Slot>>,
    /// No slot below this one is free.
    first_free: usize,
}

/// Close-on-exec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnExec {
    /// FD_CLOEXEC.
    Close,
    /// Stays open.
    Keep,
}

impl OnExec {
    /// From a flag.
    #[must_use]
    pub fn from_flag(flag: abi::fs::OpenFlags) -> OnExec {
        if flag.contains(abi::fs::OpenFlags::CLOEXEC) { OnExec::Close } else { OnExec::Keep }
    }
}

/// One descriptor, for listings.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Number.
    pub fd: Fd,
    /// File.
    pub file: Arc<OpenFile>,
    /// Close-on-exec.
    pub on_exec: OnExec,
}

impl Slots {
    fn get(&self, fd: Fd) -> SysResult<&Slot> {
        self.list.get(fd.index()?).and_then(Option::as_ref).ok_or(Errno::EBADF)
    }
    fn get_mut(&mut self, fd: Fd) -> SysResult<&mut Slot> {
        self.list.get_mut(fd.index()?).and_then(Option::as_mut).ok_or(Errno::EBADF)
    }
    fn take(&mut self, at: usize) -> Option<Slot> {
        let slot = self.list.get_mut(at)?.take()?;
        self.first_free = self.first_free.min(at);
        Some(slot)
    }
    /// Lowest free number from `min` on; `error` at the limit.
    fn free_from(&self, min: usize, limit: usize, error: Errno) -> SysResult<usize> {
        let start = min.max(self.first_free);
        let at = self
            .list
            .iter()
            .skip(start)
            .position(Option::is_none)
            .map_or_else(|| self.list.len().max(start), |offset| start.saturating_add(offset));
        if at >= limit { Err(error) } else { Ok(at) }
    }
    fn put(&mut self, at: usize, slot: Slot) -> Option<Slot> {
        if at >= self.list.len() {
            self.list.resize(at.saturating_add(1), None);
        }
        let old = self.list.get_mut(at)?.replace(slot);
        while self.list.get(self.first_free).is_some_and(Option::is_some) {
            self.first_free = self.first_free.saturating_add(1);
        }
        old
    }
}

fn bound(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(NR_OPEN).min(NR_OPEN)
}

impl FdTable {
    /// The number under which this table owns POSIX record locks.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }
    /// The file behind a descriptor.
    pub fn get(&self, fd: Fd) -> SysResult<Arc<OpenFile>> {
        Ok(Arc::clone(&self.slots.read().get(fd)?.file))
    }
    /// The file behind a descriptor that is not O_PATH: what read, write, ioctl and most calls want.
    pub fn get_io(&self, fd: Fd) -> SysResult<Arc<OpenFile>> {
        let file = self.get(fd)?;
        if file.flags().contains(abi::fs::OpenFlags::PATH) { Err(Errno::EBADF) } else { Ok(file) }
    }
    /// FD_CLOEXEC of a descriptor.
    pub fn on_exec(&self, fd: Fd) -> SysResult<OnExec> {
        Ok(self.slots.read().get(fd)?.on_exec)
    }
    /// Sets FD_CLOEXEC.
    pub fn set_on_exec(&self, fd: Fd, on_exec: OnExec) -> SysResult<()> {
        self.slots.write().get_mut(fd)?.on_exec = on_exec;
        Ok(())
    }
    /// Puts a file at the lowest free number from `min` on; `limit` is RLIMIT_NOFILE, `EMFILE` at it.
    pub fn install(&self, file: Arc<OpenFile>, on_exec: OnExec, min: usize, limit: u64) -> SysResult<Fd> {
        let mut slots = self.slots.write();
        let at = slots.free_from(min, bound(limit), Errno::EMFILE)?;
        slots.put(at, Slot { file, on_exec });
        Fd::from_index(at)
    }
    /// Puts a file at `fd` (dup2), returning what was there. `EBADF` beyond the limit.
    pub fn replace(
        &self,
        fd: Fd,
        file: Arc<OpenFile>,
        on_exec: OnExec,
        limit: u64,
    ) -> SysResult<Option<Arc<OpenFile>>> {
        let at = fd.index()?;
        if at >= bound(limit) {
            return Err(Errno::EBADF);
        }
        let old = self.slots.write().put(at, Slot { file, on_exec });
        Ok(old.map(|slot| slot.file))
    }
    /// Takes a descriptor out; the caller flushes and drops the file.
    pub fn close(&self, fd: Fd) -> SysResult<Arc<OpenFile>> {
        let at = fd.index()?;
        self.slots.write().take(at).map(|slot| slot.file).ok_or(Errno::EBADF)
    }
    /// close_range(2): takes out `first..=last`.
    pub fn close_range(&self, first: u32, last: u32) -> Vec<Arc<OpenFile>> {
        let mut slots = self.slots.write();
        let (start, end) = range(first, last, slots.list.len());
        (start..end).filter_map(|at| slots.take(at).map(|slot| slot.file)).collect()
    }
    /// close_range(2) with CLOSE_RANGE_CLOEXEC.
    pub fn mark_range(&self, first: u32, last: u32) {
        let mut slots = self.slots.write();
        let (start, end) = range(first, last, slots.list.len());
        for slot in slots.list.iter_mut().take(end).skip(start).flatten() {
            slot.on_exec = OnExec::Close;
        }
    }
    /// A copy (fork).
    #[must_use]
    pub fn fork(&self) -> FdTable {
        FdTable { slots: RankedRw::new(self.slots.read().clone()), id: next_id() }
    }
    /// execve(2): takes out the close-on-exec descriptors; they are closed when the list is dropped.
    pub fn close_on_exec(&self) -> Vec<Arc<OpenFile>> {
        let mut slots = self.slots.write();
        let doomed: Vec<usize> = slots
            .list
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.as_ref().is_some_and(|slot| slot.on_exec == OnExec::Close))
            .map(|(at, _)| at)
            .collect();
        doomed.into_iter().filter_map(|at| slots.take(at).map(|slot| slot.file)).collect()
    }
    /// Every descriptor (exit, /proc/pid/fd).
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let slots = self.slots.read();
        slots
            .list
            .iter()
            .enumerate()
            .filter_map(|(at, slot)| {
                let slot = slot.as_ref()?;
                Some(Entry {
                    fd: Fd::from_index(at).ok()?,
                    file: Arc::clone(&slot.file),
                    on_exec: slot.on_exec,
                })
            })
            .collect()
    }
    /// The highest number in use.
    #[must_use]
    pub fn highest(&self) -> Option<usize> {
        self.slots.read().list.iter().rposition(Option::is_some)
    }
    /// Size of the table as FDSize of /proc/pid/status shows it.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.read().list.len().max(64).next_power_of_two()
    }
}

impl Drop for FdTable {
    fn drop(&mut self) {
        // The process ended: its record locks go, also on files that others have open.
        if vfs::locks::any_ranges() {
            let id = self.id;
            self.slots.get_mut().list.iter().flatten().for_each(|slot| slot.file.release_locks(id, None));
        }
    }
}

fn range(first: u32, last: u32, len: usize) -> (usize, usize) {
    let start = usize::try_from(first).unwrap_or(usize::MAX).min(len);
    let end = usize::try_from(last).unwrap_or(usize::MAX).saturating_add(1).min(len);
    (start, end.max(start))
}
