//! The fallback: guest threads under PTRACE_SYSEMU (ptrace(2)). No speed promise.
//!
//! Each address space is a stub process whose first thread, the *helper*, is traced by one host thread
//! (the keeper) and never runs guest code. Each guest thread is a further stub thread, traced by the host
//! thread that calls `run`. Address-space operations run on the caller's own stopped stub thread when it
//! has one, else on the helper; either way they are complete when `apply` returns.
//!
//! Walls: system calls of guest code are never carried out (SYSEMU), injected ones pass a filter of ten
//! calls, and a stub whose tracer ends is killed (EXITKILL).

mod access;
mod context;
mod keeper;
mod layout;
mod owned;
mod raw;
mod space;
mod template;
mod tracee;

#[cfg(test)]
mod tests;

use crate::memory::MemoryFile;
use crate::seam::{AddressSpace, Platform};
use abi::{AddrRange, SysResult};
use keeper::KeeperHandle;
use parking_lot::Mutex;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

/// First address behind what user space may map (four-level page tables).
const USER_END: u64 = 0x7fff_ffff_f000;
/// Lowest address a process without privileges may map (vm.mmap_min_addr).
const USER_START: u64 = 0x10000;

fn user_range() -> AddrRange {
    AddrRange::new(USER_START, USER_END).unwrap_or_default()
}

fn own_range() -> AddrRange {
    AddrRange::new(layout::CODE as u64, (layout::CODE + layout::LEN) as u64).unwrap_or_default()
}

/// Host calls that the platform makes after `new`, each with its reason, for the caller's own filter.
/// Threads, locks and the allocator are not counted here.
pub const HOST_CALLS: &[(libc::c_long, &str)] = &[
    (libc::SYS_ptrace, "runs guests and carries out calls in stubs"),
    (libc::SYS_wait4, "waits for a stub thread to stop, and reaps dead ones"),
    (libc::SYS_tgkill, "interrupts a running guest thread"),
    (libc::SYS_kill, "ends a stub process"),
    (libc::SYS_sendmsg, "hands a donated file to a stub for the length of a mapping"),
    (libc::SYS_recvfrom, "throws away a descriptor that a stub did not take"),
];

/// What all address spaces share.
#[derive(Debug)]
struct Shared {
    memory: Arc<MemoryFile>,
    keeper: KeeperHandle,
    passing: Mutex<Passing>,
}

/// The two ends of the socket through which stubs receive descriptors. Both are kept: what a stub leaves
/// in the queue is thrown away from here.
#[derive(Debug)]
struct Passing {
    sender: UnixDatagram,
    receiver: UnixDatagram,
}

/// The ptrace platform.
#[derive(Debug)]
pub struct Ptrace {
    shared: Arc<Shared>,
    reserved: [AddrRange; 1],
    vdso: Option<AddrRange>,
    vvar: Option<AddrRange>,
}

impl Ptrace {
    /// Starts the keeper and the template stub: after the caller took its final ids (a stub of other ids
    /// cannot be traced) and before its filter goes in. Guests have a vDSO if [`crate::host::vdso`] found one
    /// in this process or in the one it was forked from.
    pub fn new(memory: Arc<MemoryFile>) -> SysResult<Ptrace> {
        let found = crate::host::vdso();
        let keep = found.map(crate::host::Vdso::whole);
        let (sender, receiver) = raw::socket_pair()?;
        let stub_end = receiver.try_clone()?;
        let file = memory.fd().try_clone_to_owned()?;
        let keeper = KeeperHandle::start(file, stub_end.into(), keep)?;
        let shared = Shared { memory, keeper, passing: Mutex::new(Passing { sender, receiver }) };
        Ok(Ptrace {
            shared: Arc::new(shared),
            reserved: [own_range()],
            vdso: found.map(|v| v.code),
            vvar: found.map(|v| v.data),
        })
    }
}

impl Platform for Ptrace {
    fn name(&self) -> &'static str {
        "ptrace"
    }

    fn new_address_space(&self) -> SysResult<Arc<dyn AddressSpace>> {
        Ok(space::Space::fresh(&self.shared)?)
    }

    fn user_range(&self) -> AddrRange {
        user_range()
    }

    fn reserved(&self) -> &[AddrRange] {
        &self.reserved
    }

    fn vdso(&self) -> Option<AddrRange> {
        self.vdso
    }

    fn vvar(&self) -> Option<AddrRange> {
        self.vvar
    }

    fn binds_host_threads(&self) -> bool {
        // A tracer that lives on keeps its dead tracees.
        true
    }

    fn memory(&self) -> &Arc<MemoryFile> {
        &self.shared.memory
    }
}
