//! Memory of the kernel's own that guests cause to be used: the buffers of pipes and sockets. It counts
//! against `memory.max` as on Linux, so that a guest cannot make the kernel grow without bound.
//!
//! The counter and the gate belong to the process, which is one kernel: a buffer knows neither task nor
//! allocator.

use crate::account::Share;
use crate::frames::Gate;
use abi::SysResult;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

static USED: AtomicU64 = AtomicU64::new(0);
static GATE: OnceLock<Box<dyn Gate>> = OnceLock::new();

/// Bytes of all buffers.
#[must_use]
pub fn used() -> u64 {
    USED.load(Ordering::Relaxed)
}

/// Has growth charged from now on. The first gate stays.
pub fn set_gate(gate: Box<dyn Gate>) {
    // A second one would say the same.
    let _ = GATE.set(gate);
}

/// What one buffer has.
#[derive(Debug, Default)]
pub struct KernelCharge {
    bytes: u64,
    share: Share,
}

impl KernelCharge {
    /// Nothing.
    #[must_use]
    pub const fn none() -> KernelCharge {
        KernelCharge { bytes: 0, share: Share::none() }
    }
    /// The buffer is about to have `bytes`. `ENOMEM` when the calling thread's group must not have more.
    pub fn resize(&mut self, bytes: u64) -> SysResult<()> {
        let more = bytes.saturating_sub(self.bytes);
        if let (1.., Some(gate)) = (more, GATE.get()) {
            gate.charge(more)?;
        }
        self.set(bytes);
        Ok(())
    }
    /// The same without asking: the kernel itself needs the room, or gives it back.
    pub fn set(&mut self, bytes: u64) {
        if bytes >= self.bytes {
            USED.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            USED.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        self.share.set(bytes, || GATE.get().and_then(|gate| gate.payer()));
    }
}

impl Drop for KernelCharge {
    fn drop(&mut self) {
        self.set(0);
    }
}
