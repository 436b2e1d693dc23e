//! Numbers and structures of ptrace(2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags::bitflags! {
    /// `PTRACE_O_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct TraceOptions: u32 {
        /// Bit 7 marks syscall stops.
        const SYSGOOD = 1;
        /// Follow fork.
        const FORK = 2;
        /// Follow vfork.
        const VFORK = 4;
        /// Follow clone.
        const CLONE = 8;
        /// Stop at exec.
        const EXEC = 0x10;
        /// Stop when a vfork parent goes on.
        const VFORK_DONE = 0x20;
        /// Stop at exit.
        const EXIT = 0x40;
        /// Stop for SECCOMP_RET_TRACE.
        const SECCOMP = 0x80;
        /// Tracees die with their tracer.
        const EXITKILL = 0x10_0000;
        /// Seccomp is off while traced.
        const SUSPEND_SECCOMP = 0x20_0000;
    }
}

/// `PTRACE_EVENT_*`.
pub mod event {
    /// fork.
    pub const FORK: u32 = 1;
    /// vfork.
    pub const VFORK: u32 = 2;
    /// clone.
    pub const CLONE: u32 = 3;
    /// exec.
    pub const EXEC: u32 = 4;
    /// A vfork parent goes on.
    pub const VFORK_DONE: u32 = 5;
    /// exit.
    pub const EXIT: u32 = 6;
    /// seccomp.
    pub const SECCOMP: u32 = 7;
    /// PTRACE_INTERRUPT and group stops of seized tracees.
    pub const STOP: u32 = 128;
}

/// `struct ptrace_syscall_info`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SyscallInfo {
    /// 0 none, 1 entry, 2 exit, 3 seccomp.
    pub op: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// AUDIT_ARCH_X86_64.
    pub arch: u32,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Number and arguments, or result and error mark.
    pub data: [u64; 8],
}

/// `AUDIT_ARCH_X86_64`.
pub const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
