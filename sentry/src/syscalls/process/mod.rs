//! Processes and threads.

pub mod ids;
