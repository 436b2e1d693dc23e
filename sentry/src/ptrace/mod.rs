//! ptrace(2) between guests.

pub mod access;
pub mod stop;
pub mod wait;

use crate::kernel::Kernel;
use crate::process::WaitStatus;
use crate::process::tree::ProcessTree;
use crate::task::{TaskOwned, TaskShared};
use abi::process::CloneFlags;
use std::sync::Arc;

/// A tracer exits: its tracees go on untraced (or die with PTRACE_O_EXITKILL).
pub fn detach_all(_kernel: &Arc<Kernel>, _tracer: &Arc<TaskShared>) {}

/// A traced thread has exited: its tracer may wait for it.
pub fn report_thread_exit(_tree: &mut ProcessTree, _task: &Arc<TaskShared>, _status: WaitStatus) {}

/// Attaches a new child to its parent's tracer, when that asked for it.
pub fn prepare_child(
    _cx: &crate::task::Cx<'_>,
    _flags: CloneFlags,
    _exit_signal: u32,
    _child: &Arc<TaskShared>,
    _owned: &mut TaskOwned,
) {
}
