//! Identity of threads and processes, groups and sessions (getpid(2), setpgid(2), setsid(2)).

use crate::process::session;
use crate::task::Cx;
use abi::{CallResult, Errno, SysResult, UserAddr};

/// getpid(2).
pub fn getpid(cx: &mut Cx<'_>) -> CallResult<u32> {
    Ok(cx.shared.process.pid.own())
}

/// gettid(2).
pub fn gettid(cx: &mut Cx<'_>) -> CallResult<u32> {
    Ok(cx.owned.pid.own())
}

/// getppid(2): 0 when the parent is in another namespace.
pub fn getppid(cx: &mut Cx<'_>) -> CallResult<u32> {
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let tree = cx.kernel().tree.lock();
    let node = tree.node(cx.shared.process.pid.root());
    let parent = node.and_then(|node| node.parent).and_then(|parent| tree.node(parent));
    Ok(parent.map_or(0, |parent| parent.process.pid.seen_in(&ns)))
}

fn with_node<T>(cx: &Cx<'_>, pid: i32, read: impl Fn(&crate::process::tree::Node) -> T) -> SysResult<T> {
    let number = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let tree = cx.kernel().tree.lock();
    let node = if number == 0 {
        tree.node(cx.shared.process.pid.root())
    } else {
        let task = tree.find_task(&ns, number).ok_or(Errno::ESRCH)?;
        tree.node(task.process.pid.root())
    };
    node.map(read).ok_or(Errno::ESRCH)
}

/// getpgid(2).
pub fn getpgid(cx: &mut Cx<'_>, pid: i32) -> CallResult<u32> {
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    Ok(with_node(cx, pid, |node| node.pgid.seen_in(&ns))?)
}

/// getpgrp(2).
pub fn getpgrp(cx: &mut Cx<'_>) -> CallResult<u32> {
    getpgid(cx, 0)
}

/// getsid(2).
pub fn getsid(cx: &mut Cx<'_>, pid: i32) -> CallResult<u32> {
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    Ok(with_node(cx, pid, |node| node.sid.seen_in(&ns))?)
}

/// setpgid(2).
pub fn setpgid(cx: &mut Cx<'_>, pid: i32, pgid: i32) -> CallResult<()> {
    let pid = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let pgid = u32::try_from(pgid).map_err(|_| Errno::EINVAL)?;
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let mut tree = cx.kernel().tree.lock();
    Ok(session::setpgid(&mut tree, &ns, &cx.shared.process, pid, pgid)?)
}

/// setsid(2).
pub fn setsid(cx: &mut Cx<'_>) -> CallResult<u32> {
    let ns = cx.shared_ns().ok_or(Errno::EPERM)?;
    let mut tree = cx.kernel().tree.lock();
    Ok(session::setsid(&mut tree, &cx.shared.process)?.seen_in(&ns))
}

/// set_tid_address(2).
pub fn set_tid_address(cx: &mut Cx<'_>, addr: UserAddr) -> CallResult<u32> {
    cx.owned.registered.clear_child_tid = addr;
    gettid(cx)
}
