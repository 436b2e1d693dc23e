//! What a tracer's wait sees of its tracees.

use crate::process::WaitStatus;
use crate::process::tree::ProcessTree;
use crate::process::wait::{Waited, Which};
use crate::task::Cx;
use abi::process::WaitOptions;
use abi::siginfo::code;
use std::sync::atomic::Ordering;

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
pub fn look(cx: &Cx<'_>, tree: &mut ProcessTree, which: Which, options: WaitOptions) -> Tracees {
    if cx.kernel().tracees.load(Ordering::SeqCst) == 0 && tree.trace_zombies.is_empty() {
        return Tracees::None;
    }
    let own = cx.shared.process.pid.root();
    let Some(ns) = cx.shared_ns() else { return Tracees::None };
    let mut any = false;
    for task in tree.tasks() {
        let meant = match which {
            Which::Any => true,
            Which::Process(id) => task.tid() == id,
            Which::Group(group) => {
                tree.node(task.process.pid.root()).is_some_and(|node| node.pgid.root() == group)
            }
        };
        let mut slot = task.trace.lock();
        let Some(trace) = slot.as_mut().filter(|trace| meant && trace.tracer_process == own) else {
            continue;
        };
        if options.contains(WaitOptions::NOTHREAD) && trace.tracer != cx.shared.tid() {
            continue;
        }
        any = true;
        let Some(stop) = trace.stop.as_mut().filter(|stop| !stop.reported && stop.resumed.is_none()) else {
            continue;
        };
        stop.reported = !options.contains(WaitOptions::NOWAIT);
        let code = stop.code;
        drop(slot);
        let (pid, uid) = {
            let published = task.published.lock();
            (published.pid.seen_in(&ns), published.cred.uid.0)
        };
        return Tracees::Found(Waited {
            pid,
            uid,
            status: WaitStatus((code << 8) | 0x7f),
            code: code::CLD_TRAPPED,
            value: code.cast_signed(),
            times_ns: (0, 0),
            max_rss: 0,
        });
    }
    let zombie = tree.trace_zombies.iter().position(|zombie| {
        zombie.tracer_process == own
            && match which {
                Which::Any => true,
                Which::Process(id) => zombie.pid.root() == id,
                Which::Group(_) => false,
            }
    });
    if let Some(at) = zombie.filter(|_| options.contains(WaitOptions::EXITED)) {
        let zombie = if options.contains(WaitOptions::NOWAIT) {
            tree.trace_zombies.get(at).cloned()
        } else {
            Some(tree.trace_zombies.remove(at))
        };
        if let Some(zombie) = zombie {
            let (code, value) = zombie.status.exit_info();
            return Tracees::Found(Waited {
                pid: zombie.pid.seen_in(&ns),
                uid: zombie.uid,
                status: zombie.status,
                code,
                value,
                times_ns: (0, 0),
                max_rss: 0,
            });
        }
    }
    if any { Tracees::Some } else { Tracees::None }
}
