//! Where a traced task stops.

use crate::process::WaitStatus;
use crate::process::pid::Pid;
use crate::task::{Cx, StartEvent};
use abi::process::CloneFlags;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use platform::SyscallArgs;
use std::sync::Arc;

/// Signal-delivery-stop: the tracer may change the signal or take it away.
pub fn signal_stop(_cx: &mut Cx<'_>, signal: Signal, info: &SigInfo) -> Option<(Signal, SigInfo)> {
    Some((signal, *info))
}
/// The first stop of an automatically attached child.
pub fn started(_cx: &mut Cx<'_>, _event: StartEvent) {}
/// Before a call: seccomp, then the tracer. Returns false when the call is not to be made.
pub fn enter_call(_cx: &mut Cx<'_>, _call: &mut SyscallArgs) -> bool {
    true
}
/// After a call.
pub fn leave_call(_cx: &mut Cx<'_>) {}
/// PTRACE_INTERRUPT, PTRACE_ATTACH.
pub fn interrupt_stop(_cx: &mut Cx<'_>) {}
/// PTRACE_EVENT_EXIT.
pub fn exit_stop(_cx: &mut Cx<'_>, _status: WaitStatus) {}
/// A group stop, as a tracer sees it.
pub fn group_stop(_cx: &mut Cx<'_>) {}
/// PTRACE_EVENT_CLONE, FORK, VFORK.
pub fn cloned(_cx: &mut Cx<'_>, _flags: CloneFlags, _exit_signal: u32, _child: &Arc<Pid>) {}
/// PTRACE_EVENT_EXEC.
pub fn executed(_cx: &mut Cx<'_>) {}
/// PTRACE_EVENT_VFORK_DONE.
pub fn vfork_done(_cx: &mut Cx<'_>, _child: &Arc<Pid>) {}
