//! Root, working directory and umask of a process.

use std::sync::atomic::{AtomicU32, Ordering};

/// What CLONE_FS shares.
#[derive(Debug)]
pub struct FsContext {
    umask: AtomicU32,
}

impl Default for FsContext {
    fn default() -> FsContext {
        FsContext { umask: AtomicU32::new(0o022) }
    }
}

impl FsContext {
    /// An independent copy.
    #[must_use]
    pub fn duplicate(&self) -> FsContext {
        FsContext { umask: AtomicU32::new(self.umask()) }
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
