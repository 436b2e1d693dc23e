//! What the processes of a container are and use.

use crate::control::{ProcessInfo, Stats};
use crate::kernel::Kernel;
use crate::process::Process;
use std::sync::Arc;

/// The live processes of the container of `init`.
pub(super) fn members(kernel: &Kernel, init: &Arc<Process>) -> Vec<Arc<Process>> {
    init.freezer.get().map(|freezer| freezer.members(kernel)).unwrap_or_default()
}

/// One line of ps each.
pub(super) fn processes(kernel: &Kernel, init: &Arc<Process>) -> Vec<ProcessInfo> {
    let Some(ns) = init.pid.ns() else { return Vec::new() };
    let mut list: Vec<ProcessInfo> = members(kernel, init)
        .iter()
        .map(|process| {
            let parent = {
                let tree = kernel.tree.lock();
                let parent = tree.node(process.pid.root()).and_then(|node| node.parent);
                parent.and_then(|id| tree.node(id)).map_or(0, |node| node.process.pid.seen_in(ns))
            };
            let (user, system) = process.times.total();
            let leader = process.leader();
            let published = leader.as_ref().map(|task| task.published.lock().clone());
            let age = process.started.saturating_duration_since(kernel.boot.started);
            ProcessInfo {
                pid: process.pid.seen_in(ns),
                ppid: parent,
                uid: published.as_ref().map_or(0, |p| p.cred.euid.0),
                threads: u32::try_from(process.state.lock().live).unwrap_or(0),
                start_time: kernel.boot.realtime.saturating_add(age).as_secs(),
                cpu_ms: user.saturating_add(system) / 1_000_000,
                tty: "?".to_owned(),
                command: published.map(|p| command(&p)).unwrap_or_default(),
            }
        })
        .collect();
    list.sort_by_key(|info| info.pid);
    list
}

fn command(published: &crate::task::Published) -> String {
    let bracketed = || format!("[{}]", published.comm_text());
    let Some(mm) = &published.mm else { return bracketed() };
    let args = mm.program().args;
    let len = usize::try_from(args.len().min(4096)).unwrap_or(0);
    let mut bytes = vec![0; len];
    if len == 0 || mm.read_bytes(abi::UserAddr::new(args.start()), &mut bytes).is_err() {
        return bracketed();
    }
    let words: Vec<_> = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty()).collect();
    let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
    words.join(" ")
}

/// Sums over the container.
pub(super) fn stats(kernel: &Kernel, init: &Arc<Process>) -> Stats {
    let mut stats = Stats::default();
    for process in members(kernel, init) {
        stats.pids += u64::try_from(process.state.lock().live).unwrap_or(0);
        let (user, system) = process.times.total();
        stats.cpu_ns = stats.cpu_ns.saturating_add(user).saturating_add(system);
        let mm = process.leader().and_then(|task| task.published.lock().mm.clone());
        if let Some(mm) = mm {
            stats.memory = stats.memory.saturating_add(mm.total_usage().resident);
        }
    }
    stats
}
