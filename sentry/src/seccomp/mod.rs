//! Seccomp of guests (seccomp(2)).

use crate::task::Cx;
use abi::{CallResult, Errno, UserAddr};

/// The filters of a thread.
#[derive(Debug, Default)]
pub struct Filters {}

/// PR_GET_SECCOMP.
#[must_use]
pub fn mode(cx: &Cx<'_>) -> u64 {
    if cx.owned.seccomp.is_some() { 2 } else { 0 }
}

/// PR_SET_SECCOMP.
pub fn set_by_prctl(_cx: &mut Cx<'_>, _mode: u64, _program: UserAddr) -> CallResult<u64> {
    Err(Errno::EINVAL.into())
}
