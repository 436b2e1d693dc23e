//! prctl(PR_SET_MDWE): whether memory may become executable after it was mapped.

use crate::manager::MemoryManager;
use abi::{AddrRange, Errno, SysResult};
use platform::Prot;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether memory may become executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExecGain {
    /// As ever.
    #[default]
    Allowed,
    /// Never, nor may it be writable and executable (PR_MDWE_REFUSE_EXEC_GAIN).
    Refused,
    /// The same, but not for children (PR_MDWE_NO_INHERIT).
    RefusedHere,
}

/// An [`ExecGain`] that threads share.
#[derive(Debug, Default)]
pub(crate) struct GainCell(AtomicU8);

impl GainCell {
    fn get(&self) -> ExecGain {
        match self.0.load(Ordering::Relaxed) {
            0 => ExecGain::Allowed,
            1 => ExecGain::Refused,
            _ => ExecGain::RefusedHere,
        }
    }
    fn set(&self, gain: ExecGain) {
        let value = match gain {
            ExecGain::Allowed => 0,
            ExecGain::Refused => 1,
            ExecGain::RefusedHere => 2,
        };
        self.0.store(value, Ordering::Relaxed);
    }
}

impl MemoryManager {
    /// PR_GET_MDWE.
    #[must_use]
    pub fn exec_gain(&self) -> ExecGain {
        self.gain.get()
    }
    /// PR_SET_MDWE.
    pub fn set_exec_gain(&self, gain: ExecGain) {
        self.gain.set(gain);
    }
    /// Takes over what a parent, or the program before, had.
    pub fn inherit_exec_gain(&self, from: &MemoryManager) {
        if from.exec_gain() == ExecGain::Refused {
            self.set_exec_gain(ExecGain::Refused);
        }
    }
    /// `EACCES` when memory that is `old` may not become `new`.
    pub(crate) fn check_gain(&self, old: Prot, new: Prot) -> SysResult<()> {
        if self.exec_gain() == ExecGain::Allowed || !new.contains(Prot::EXEC) {
            return Ok(());
        }
        if new.contains(Prot::WRITE) || !old.contains(Prot::EXEC) { Err(Errno::EACCES) } else { Ok(()) }
    }
    /// Moves the bounds of the break without mapping anything (prctl(PR_SET_MM)).
    pub fn set_brk(&self, brk: AddrRange) -> SysResult<()> {
        self.layout.write().brk = brk;
        Ok(())
    }
}
