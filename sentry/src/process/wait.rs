//! Waiting for children: what wait4(2) and waitid(2) share.

use super::tree::{Node, ProcessTree};
use super::{WaitStatus, exit};
use crate::task::Cx;
use abi::poll::Events;
use abi::process::WaitOptions;
use abi::siginfo::code;
use abi::signal::Signal;
use abi::{CallResult, Errno, Failure, Restart, SysResult};
use lock::{BlockError, WaitEntry};
use std::sync::Arc;
use vfs::Blocker;

/// Which children count (root numbers).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Any.
    Any,
    /// One process.
    Process(u32),
    /// Members of one group.
    Group(u32),
}

/// A child's change.
#[derive(Clone, Copy, Debug)]
pub struct Waited {
    /// Number of the child in the caller's namespace.
    pub pid: u32,
    /// Its real user id.
    pub uid: u32,
    /// As wait4(2) reports it.
    pub status: WaitStatus,
    /// `si_code`.
    pub code: i32,
    /// `si_status`.
    pub value: i32,
    /// User and system time in nanoseconds, children included.
    pub times_ns: (u64, u64),
    /// `ru_maxrss` in KiB, children included.
    pub max_rss: u64,
}

/// Waits as `options` say. `None` is WNOHANG without a change.
pub fn wait(cx: &Cx<'_>, which: Which, options: WaitOptions) -> CallResult<Option<Waited>> {
    if let Some(found) = look(cx, which, options)? {
        return Ok(Some(found));
    }
    if options.contains(WaitOptions::NOHANG) {
        return Ok(None);
    }
    let entry = WaitEntry::new(cx.shared.target(), Events::READABLE);
    let queue = &cx.shared.process.child_events;
    queue.register(&entry);
    let result = loop {
        match look(cx, which, options) {
            Ok(None) => {}
            other => break other.map_err(Failure::from),
        }
        match cx.shared.block(None) {
            Ok(()) => {}
            Err(BlockError::Interrupted | BlockError::TimedOut) => {
                break Err(Failure::Restart(Restart::Sys));
            }
        }
    };
    queue.unregister(&entry);
    result
}

fn look(cx: &Cx<'_>, which: Which, options: WaitOptions) -> SysResult<Option<Waited>> {
    let mut tree = cx.kernel().tree.lock();
    let own = cx.shared.process.pid.root();
    let node = tree.node(own).ok_or(Errno::ECHILD)?;
    let mut any = false;
    let mut dead = None;
    for child in &node.children {
        let Some(child) = tree.node(*child) else { continue };
        if !is_meant(child, which) || !is_eligible(cx, child, options) {
            continue;
        }
        any = true;
        if child.zombie.is_some() && options.contains(WaitOptions::EXITED) {
            dead = Some(child.process.pid.root());
            break;
        }
        if let Some(found) = job_control(cx, child, options) {
            return Ok(Some(found));
        }
    }
    if let Some(tgid) = dead {
        return Ok(take_zombie(cx, &mut tree, tgid, options));
    }
    match crate::ptrace::wait::look(cx, &mut tree, which, options) {
        crate::ptrace::wait::Tracees::Found(found) => return Ok(Some(found)),
        crate::ptrace::wait::Tracees::Some => any = true,
        crate::ptrace::wait::Tracees::None => {}
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

fn is_meant(child: &Node, which: Which) -> bool {
    match which {
        Which::Any => true,
        Which::Process(tgid) => child.process.pid.root() == tgid,
        Which::Group(pgid) => child.pgid.root() == pgid,
    }
}

fn is_eligible(cx: &Cx<'_>, child: &Node, options: WaitOptions) -> bool {
    if options.contains(WaitOptions::NOTHREAD) && child.parent_thread != cx.shared.tid() {
        return false;
    }
    let is_clone = child.exit_signal != u32::from(Signal::SIGCHLD.number());
    options.contains(WaitOptions::ALL) || is_clone == options.contains(WaitOptions::CLONE)
}

fn number_of(cx: &Cx<'_>, child: &Node) -> u32 {
    cx.shared_ns().map_or(0, |ns| child.process.pid.seen_in(&ns))
}

fn take_zombie(cx: &Cx<'_>, tree: &mut ProcessTree, tgid: u32, options: WaitOptions) -> Option<Waited> {
    let node = tree.node(tgid)?;
    let zombie = node.zombie?;
    let (code, value) = zombie.status.exit_info();
    let waited = Waited {
        pid: number_of(cx, node),
        uid: zombie.uid,
        status: zombie.status,
        code,
        value,
        times_ns: node.process.times.with_children(),
        max_rss: node.process.times.max_rss().max(node.process.times.children_max_rss()),
    };
    if !options.contains(WaitOptions::NOWAIT) {
        exit::reap(tree, tgid);
    }
    Some(waited)
}

fn job_control(cx: &Cx<'_>, child: &Node, options: WaitOptions) -> Option<Waited> {
    let keep = options.contains(WaitOptions::NOWAIT);
    let uid = child.process.leader().map_or(0, |task| task.published.lock().cred.uid.0);
    let mut state = child.process.state.lock();
    let times_ns = child.process.times.with_children();
    let max_rss = child.process.times.max_rss();
    let pid = number_of(cx, child);
    if options.contains(WaitOptions::STOPPED) && state.stop.stopped && state.stop.report_stop {
        let signal = state.stop.signal?;
        state.stop.report_stop = keep;
        let value = i32::from(signal.number());
        let status = WaitStatus::stopped(signal);
        return Some(Waited { pid, uid, status, code: code::CLD_STOPPED, value, times_ns, max_rss });
    }
    if options.contains(WaitOptions::CONTINUED) && state.stop.report_continue {
        state.stop.report_continue = keep;
        let value = i32::from(Signal::SIGCONT.number());
        let status = WaitStatus::CONTINUED;
        return Some(Waited { pid, uid, status, code: code::CLD_CONTINUED, value, times_ns, max_rss });
    }
    None
}

/// The group or process that a wait names in the caller's namespace; one that does not exist is `ECHILD`.
pub fn resolve(cx: &Cx<'_>, pid: i32) -> SysResult<Which> {
    let number = pid.unsigned_abs();
    let ns = cx.shared_ns().ok_or(Errno::ECHILD)?;
    let root = |number: u32| ns.find(number).map(|pid: Arc<super::pid::Pid>| pid.root()).ok_or(Errno::ECHILD);
    match pid {
        -1 => Ok(Which::Any),
        0 => {
            let tree = cx.kernel().tree.lock();
            let node = tree.node(cx.shared.process.pid.root()).ok_or(Errno::ECHILD)?;
            Ok(Which::Group(node.pgid.root()))
        }
        i32::MIN => Err(Errno::ESRCH),
        1.. => root(number).map(Which::Process),
        _ => root(number).map(Which::Group),
    }
}
