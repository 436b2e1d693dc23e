//! Descriptor tables.

use abi::{Errno, Fd, SysResult};
use lock::Ranked;
use lock::order;
use std::sync::Arc;
use vfs::OpenFile;

/// A descriptor table, shared by the threads of a process (and by CLONE_FILES).
#[derive(Debug, Default)]
pub struct FdTable {
    slots: Ranked<order::FdTable, Vec<Option<Slot>>>,
}

#[derive(Clone, Debug)]
struct Slot {
    file: Arc<OpenFile>,
    cloexec: bool,
}

/// Close-on-exec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnExec {
    /// FD_CLOEXEC.
    Close,
    /// Stays open.
    Keep,
}

impl FdTable {
    /// The file behind a descriptor.
    pub fn get(&self, fd: Fd) -> SysResult<Arc<OpenFile>> {
        let slots = self.slots.lock();
        let slot = slots.get(fd.index()?).and_then(Option::as_ref).ok_or(Errno::EBADF)?;
        Ok(Arc::clone(&slot.file))
    }
    /// Puts a file at the lowest free number from `min` on; `limit` is RLIMIT_NOFILE.
    pub fn install(&self, file: Arc<OpenFile>, on_exec: OnExec, min: usize, limit: u64) -> SysResult<Fd> {
        let mut slots = self.slots.lock();
        let free = (min..slots.len()).find(|at| slots.get(*at).is_some_and(Option::is_none));
        let at = free.unwrap_or_else(|| slots.len().max(min));
        if u64::try_from(at).unwrap_or(u64::MAX) >= limit {
            return Err(Errno::EMFILE);
        }
        if at >= slots.len() {
            slots.resize(at + 1, None);
        }
        if let Some(slot) = slots.get_mut(at) {
            *slot = Some(Slot { file, cloexec: on_exec == OnExec::Close });
        }
        Fd::from_index(at)
    }
    /// A copy (fork).
    #[must_use]
    pub fn fork(&self) -> FdTable {
        FdTable { slots: Ranked::new(self.slots.lock().clone()) }
    }
    /// execve(2): drops the close-on-exec descriptors; they are closed when the list is dropped.
    pub fn close_on_exec(&self) -> Vec<Arc<OpenFile>> {
        let mut slots = self.slots.lock();
        let doomed = slots.iter_mut().filter(|slot| slot.as_ref().is_some_and(|slot| slot.cloexec));
        doomed.filter_map(|slot| slot.take().map(|slot| slot.file)).collect()
    }
}
