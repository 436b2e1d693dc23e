//! Windows on donated host files, kept for the next copy.
//!
//! The kernel reads strings of a program's text all the time; mapping the page each time would cost more
//! than the copy. A window covers 1 MiB of a file. Rank of the table: `Leaf`.

use abi::SysResult;
use lock::{Ranked, order};
use platform::memory::{HostWindow, WindowAccess};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

const WINDOW: u64 = 1 << 20;
const KEPT: usize = 32;

#[derive(Debug)]
struct Entry {
    /// Weak: a window does not keep a descriptor open; its address stays taken, so it names one file only.
    fd: Weak<OwnedFd>,
    block: u64,
    access: WindowAccess,
    window: Arc<HostWindow>,
    used: u64,
}

#[derive(Debug, Default)]
struct Table {
    entries: Vec<Entry>,
    clock: u64,
}

/// The windows of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    table: Ranked<order::Leaf, Table>,
}

impl Windows {
    /// A window that shows byte `offset` of the file, the offset inside it, and the bytes it shows from there.
    pub(crate) fn get(
        &self,
        fd: &Arc<OwnedFd>,
        offset: u64,
        access: WindowAccess,
    ) -> SysResult<(Arc<HostWindow>, u64, u64)> {
        let block = offset / WINDOW;
        let inside = offset % WINDOW;
        let same = |e: &Entry| {
            e.block == block && std::ptr::eq(e.fd.as_ptr(), Arc::as_ptr(fd)) && (e.access == access)
        };
        {
            let mut table = self.table.lock();
            table.clock += 1;
            let now = table.clock;
            if let Some(entry) = table.entries.iter_mut().find(|e| same(e)) {
                entry.used = now;
                return Ok((Arc::clone(&entry.window), inside, WINDOW - inside));
            }
        }
        let window = Arc::new(HostWindow::map(fd.as_fd(), block * WINDOW, WINDOW, access)?);
        let mut table = self.table.lock();
        let now = table.clock;
        let entry = Entry { fd: Arc::downgrade(fd), block, access, window: Arc::clone(&window), used: now };
        let mut old = Vec::new();
        if table.entries.len() >= KEPT {
            let (live, dead) = std::mem::take(&mut table.entries)
                .into_iter()
                .partition::<Vec<_>, _>(|e| e.fd.strong_count() > 0);
            table.entries = live;
            old = dead;
            if table.entries.len() >= KEPT
                && let Some((at, _)) = table.entries.iter().enumerate().min_by_key(|(_, e)| e.used)
            {
                old.push(table.entries.swap_remove(at));
            }
        }
        table.entries.push(entry);
        drop(table);
        drop(old);
        Ok((window, inside, WINDOW - inside))
    }

    /// Unmaps all windows.
    pub(crate) fn clear(&self) {
        let old = std::mem::take(&mut self.table.lock().entries);
        drop(old);
    }
}
