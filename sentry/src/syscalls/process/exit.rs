//! exit(2), exit_group(2).

use crate::process::WaitStatus;
use crate::signal::send;
use crate::task::Cx;
use abi::CallResult;

/// exit(2): ends the calling thread.
pub fn exit(cx: &mut Cx<'_>, code: i32) -> CallResult<()> {
    cx.owned.leaving = Some(WaitStatus::exited(code));
    Ok(())
}

/// exit_group(2): ends all threads of the process.
pub fn exit_group(cx: &mut Cx<'_>, code: i32) -> CallResult<()> {
    let status = WaitStatus::exited(code);
    let mut state = cx.shared.process.state.lock();
    if state.live > 1 {
        send::begin_exit(&mut state, status);
    } else if state.exiting.is_none() {
        state.exiting = Some(status);
    }
    drop(state);
    cx.owned.leaving = Some(status);
    Ok(())
}
