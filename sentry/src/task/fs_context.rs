//! Root, working directory and umask of a process, as CLONE_FS shares them.
//!
//! The value is replaced as a whole; a call works on a snapshot. Rank `FsContext`.

use lock::RankedRw;
use lock::order;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What CLONE_FS shares.
#[derive(Debug)]
pub struct FsContext {
    value: RankedRw<order::FsContext, Arc<vfs::FsContext>>,
    umask: AtomicU32,
}

impl FsContext {
    /// Shares `value` from now on.
    #[must_use]
    pub fn new(value: vfs::FsContext) -> Arc<FsContext> {
        let umask = AtomicU32::new(value.umask);
        Arc::new(FsContext { value: RankedRw::new(Arc::new(value)), umask })
    }
    /// An independent copy.
    #[must_use]
    pub fn duplicate(&self) -> Arc<FsContext> {
        let mut value = vfs::FsContext::clone(&self.snapshot());
        value.umask = self.umask();
        FsContext::new(value)
    }
    /// What is in force now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<vfs::FsContext> {
        Arc::clone(&self.value.read())
    }
    /// Changes it (chdir, chroot, pivot_root, setns). What was there is dropped outside the lock.
    pub fn update(&self, change: impl FnOnce(&mut vfs::FsContext)) {
        let mut guard = self.value.write();
        let mut next = vfs::FsContext::clone(&guard);
        change(&mut next);
        let old = std::mem::replace(&mut *guard, Arc::new(next));
        drop(guard);
        drop(old);
    }
    /// File mode creation mask.
    #[must_use]
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }
    /// umask(2): sets the mask, returns the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
}
