//! Processes and threads.

pub mod clone;
pub mod exec;
pub mod exit;
pub mod ids;
pub mod pidfd;
pub mod wait;
