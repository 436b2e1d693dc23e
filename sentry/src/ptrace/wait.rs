//! What a tracer's wait sees of its tracees.

use crate::process::tree::ProcessTree;
use crate::process::wait::{Waited, Which};
use crate::task::Cx;
use abi::process::WaitOptions;

/// Result of a look at the tracees.
pub enum Tracees {
    /// There are none.
    None,
    /// There are some, without news.
    Some,
    /// One has news.
    Found(Waited),
}

/// Looks for news of a tracee.
pub fn look(_cx: &Cx<'_>, _tree: &mut ProcessTree, _which: Which, _options: WaitOptions) -> Tracees {
    Tracees::None
}
