//! System calls: `table` lists them, `dispatch` runs them, one folder per family implements them.

pub mod args;
pub mod compatibility;
pub mod dispatch;
pub mod table;
#[macro_use]
pub mod trace;

pub mod event;
pub mod fs;
pub mod ipc;
pub mod memory;
pub mod net;
pub mod process;
pub mod security;
pub mod signal;
pub mod sync;
pub mod system;
pub mod time;
