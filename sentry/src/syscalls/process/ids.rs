//! Identity of threads and processes: getpid(2) and its kin.

use crate::task::Cx;
use abi::CallResult;

/// getpid(2).
pub fn getpid(cx: &mut Cx<'_>) -> CallResult<u32> {
    Ok(cx.shared.process.pid.own())
}

/// gettid(2).
pub fn gettid(cx: &mut Cx<'_>) -> CallResult<u32> {
    Ok(cx.owned.pid.own())
}
