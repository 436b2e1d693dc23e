//! Register files of a guest thread (x86-64).

mod xstate;

pub use xstate::{
    clear_software_bytes, frame_xstate_len, frame_xstate_size, initial_xstate, sanitize_xstate, xfeatures,
    xstate_from_frame, xstate_size, xstate_to_frame,
};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// General registers in the order of `struct user_regs_struct` (sys/user.h), so that both ptrace(2)
/// and the guest's own PTRACE_GETREGS use it as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the hardware's")]
pub struct Registers {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

/// Everything a new guest thread starts from.
#[derive(Clone, Debug, Default)]
pub struct ThreadState {
    /// General registers.
    pub registers: Registers,
    /// XSAVE area; empty means the initial state of execve.
    pub xstate: Vec<u8>,
}

/// Code segment selector of 64-bit user code.
pub const USER_CS: u64 = 0x33;
/// Stack segment selector of user code.
pub const USER_SS: u64 = 0x2b;
