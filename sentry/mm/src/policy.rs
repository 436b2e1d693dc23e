//! What may be promised: vm.overcommit_memory and its companions (proc(5), Documentation/mm/overcommit-accounting).

use crate::frames::Frames;
use abi::{Errno, SysResult};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The overcommit settings of one sandbox.
#[derive(Debug)]
pub struct Overcommit {
    mode: AtomicU32,
    ratio_percent: AtomicU32,
    total_bytes: AtomicU64,
}

impl Default for Overcommit {
    fn default() -> Overcommit {
        Overcommit {
            mode: AtomicU32::new(0),
            ratio_percent: AtomicU32::new(50),
            total_bytes: AtomicU64::new(u64::MAX),
        }
    }
}

impl Overcommit {
    /// vm.overcommit_memory: 0 heuristic, 1 always, 2 never.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.mode.load(Ordering::Relaxed)
    }
    /// Sets vm.overcommit_memory; `EINVAL` above 2.
    pub fn set_mode(&self, mode: u32) -> SysResult<()> {
        if mode > 2 {
            return Err(Errno::EINVAL);
        }
        self.mode.store(mode, Ordering::Relaxed);
        Ok(())
    }
    /// vm.overcommit_ratio in percent of the memory.
    #[must_use]
    pub fn ratio(&self) -> u32 {
        self.ratio_percent.load(Ordering::Relaxed)
    }
    /// Sets vm.overcommit_ratio.
    pub fn set_ratio(&self, percent: u32) {
        self.ratio_percent.store(percent, Ordering::Relaxed);
    }
    /// Memory that the sandbox claims to have (MemTotal), in bytes.
    pub fn set_total(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }
    /// CommitLimit of /proc/meminfo, in bytes.
    #[must_use]
    pub fn commit_limit(&self) -> u64 {
        let total = self.total_bytes.load(Ordering::Relaxed);
        (total / 100).saturating_mul(u64::from(self.ratio()))
    }
}

impl Frames {
    /// Promises `bytes` more; `ENOMEM` when the policy forbids it.
    pub(crate) fn commit(&self, bytes: u64) -> SysResult<()> {
        let allowed = match self.policy.mode() {
            0 => self.policy.total_bytes.load(Ordering::Relaxed),
            1 => u64::MAX,
            _ => self.policy.commit_limit().saturating_sub(self.committed()),
        };
        if bytes > allowed {
            return Err(Errno::ENOMEM);
        }
        self.committed_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
    /// Takes a promise back.
    pub(crate) fn uncommit(&self, bytes: u64) {
        self.committed_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
