//! The Linux ABI as Rust types: what crosses the border between a guest and the kernel.
//!
//! No behaviour lives here. Numbers follow `include/uapi/` of Linux for x86-64.
#![forbid(unsafe_code)]

mod address;
mod errno;
mod fd;
pub mod fs;
pub mod ioctl;
pub mod limits;
pub mod poll;
pub mod process;
pub mod ptrace;
mod restart;
pub mod siginfo;
pub mod signal;
pub mod stat;
pub mod system;
pub mod time;

pub use address::{AddrRange, PAGE_SIZE, UserAddr, UserCStr, UserPtr, UserSlice};
pub use errno::{Errno, SysResult};
pub use fd::{DirFd, Fd};
pub use restart::{CallResult, Failure, Restart};
