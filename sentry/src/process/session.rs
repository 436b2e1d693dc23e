//! Sessions and process groups (setsid(2), setpgid(2)).

use super::Process;
use super::pid::{Pid, PidNs};
use super::tree::ProcessTree;
use crate::kernel::Kernel;
use abi::{Errno, SysResult};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// setsid(2): returns the new session's id.
pub fn setsid(tree: &mut ProcessTree, process: &Process) -> SysResult<Arc<Pid>> {
    let own = process.pid.root();
    if tree.group(own).next().is_some() {
        return Err(Errno::EPERM);
    }
    let node = tree.node_mut(own).ok_or(Errno::ESRCH)?;
    node.pgid = Arc::clone(&process.pid);
    node.sid = Arc::clone(&process.pid);
    Ok(Arc::clone(&process.pid))
}

/// setpgid(2); ids as the caller's namespace numbers them, 0 for the caller's own.
pub fn setpgid(
    tree: &mut ProcessTree,
    ns: &Arc<PidNs>,
    caller: &Process,
    pid: u32,
    pgid: u32,
) -> SysResult<()> {
    let own = caller.pid.root();
    let target =
        if pid == 0 { own } else { tree.find_process(ns, pid).ok_or(Errno::ESRCH)?.process.pid.root() };
    let session = tree.node(own).ok_or(Errno::ESRCH)?.sid.root();
    let node = tree.node(target).ok_or(Errno::ESRCH)?;
    if target != own {
        if node.parent != Some(own) {
            return Err(Errno::ESRCH);
        }
        if node.sid.root() != session {
            return Err(Errno::EPERM);
        }
        if node.process.marks.has_executed.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
    }
    if node.sid.root() == target {
        return Err(Errno::EPERM);
    }
    let own_group = pgid == 0 || node.process.pid.seen_in(ns) == pgid;
    let wanted = if own_group {
        Arc::clone(&node.process.pid)
    } else {
        let id = ns.find(pgid).ok_or(Errno::EPERM)?;
        let member = tree.group(id.root()).next().ok_or(Errno::EPERM)?;
        if member.sid.root() != session {
            return Err(Errno::EPERM);
        }
        Arc::clone(&member.pgid)
    };
    if let Some(node) = tree.node_mut(target) {
        node.pgid = wanted;
    }
    Ok(())
}

/// A process ends: if it leads a session, its terminal is hung up.
pub fn leader_gone(kernel: &Arc<Kernel>, process: &Arc<Process>) {
    let own = process.pid.root();
    let leads = kernel.tree.lock().node(own).is_some_and(|node| node.sid.root() == own);
    if leads {
        kernel.files.terminals.session_ended(own);
    }
}
