//! System V IPC and POSIX message queues.

pub mod mqueue;
pub mod msg;
pub mod sem;
pub mod shm;

use crate::task::Cx;

/// A process as the caller's namespace numbers it; 0 when it is gone or elsewhere.
fn shown(cx: &Cx<'_>, root: u32) -> u32 {
    let Some(ns) = cx.shared_ns() else { return 0 };
    let tree = cx.kernel().tree.lock();
    tree.node(root).map_or(0, |node| node.process.pid.seen_in(&ns))
}

/// How many objects of a kind /proc/sys allows.
fn most(cx: &Cx<'_>, limit: &str) -> usize {
    let numbers = cx.kernel().sysctl.numbers(limit);
    numbers.first().and_then(|most| usize::try_from(*most).ok()).unwrap_or(usize::MAX)
}

const RMID: u32 = 0;
const SET: u32 = 1;
const STAT: u32 = 2;
const INFO: u32 = 3;
