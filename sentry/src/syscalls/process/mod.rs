//! Processes and threads.

pub mod clone;
pub mod exec;
pub mod exit;
pub mod ids;
pub mod namespace;
pub mod pidfd;
pub mod ptrace;
pub mod vm;
pub mod wait;
