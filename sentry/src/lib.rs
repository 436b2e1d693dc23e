//! The kernel that guests see.
//!
//! A [`kernel::Kernel`] holds all of one sandbox; each guest thread is a [`task`] on a host thread of its
//! own, whose loop runs guest code through `platform` and answers its system calls (`syscalls`).
#![forbid(unsafe_code)]

pub mod cgroup;
pub mod container;
pub mod control;
pub mod cred;
pub mod files;
mod fuse;
pub mod futex;
pub mod ipc;
pub mod kernel;
pub mod keys;
pub mod loader;
pub mod namespace;
pub mod process;
pub mod procfs;
pub mod ptrace;
pub mod seccomp;
pub mod signal;
pub mod strace;
pub mod syscalls;
pub mod sysfs;
pub mod task;
pub mod time;
