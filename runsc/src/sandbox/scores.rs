//! `process.oomScoreAdj` on the host: whom the host's kernel kills when its own memory runs out.
//!
//! Monitor and gofer have what the bundle says, as the container's processes have under runc. So have sentry
//! and stubs, unless the container's memory is limited: then they have at most so much that, of the container's
//! own processes, the one that [`crate::cgroup::Witness`] makes comes first. In a pod the pause program's value is
//! not meant for the processes that serve all containers: these have the lowest of the other containers'.

use crate::cgroup::host_memory;
use crate::container::{ProcessRef, Record};
use crate::spec::Plan;
use crate::spec::convert::limits;
use crate::spec::pod::Place;
use oci_spec::runtime::LinuxResources;

/// The highest value (proc_pid_oom_score_adj(5)), in thousandths of the memory that there is.
const HIGHEST: i32 = 1000;

/// The highest for processes that hold a guest's memory, `limit` bytes at most. A process counts for what it holds
/// and for its value's part of the cgroup's limit, one of the highest value for all of that.
fn highest(limit: Option<u64>) -> i32 {
    let Some(guest) = limit else { return HIGHEST };
    let whole = host_memory(guest);
    let rest = u128::from(whole.saturating_sub(guest)) * 1000 / u128::from(whole.max(1));
    i32::try_from(rest).unwrap_or(HIGHEST).min(HIGHEST)
}

/// Sets that of this process, which those it makes inherit. A host that does not let it be lowered
/// (CAP_SYS_RESOURCE) leaves it.
pub(crate) fn set_own(adjustment: Option<i32>) {
    if let Some(adjustment) = adjustment {
        put("self", adjustment);
    }
}

/// The same for a sentry whose container may have `limit` bytes, before the host's files are out of its reach.
pub(crate) fn set_sentry(adjustment: Option<i32>, limit: Option<u64>) {
    set_own(adjustment.map(|adjustment| adjustment.min(highest(limit))));
}

/// A further container of a pod: its sandbox is worth what it is worth, and its stubs are yet to be made.
pub(crate) fn adapt_sandbox(plan: &Plan, sandbox: Option<&Record>) {
    let (Place::Member(_), Some(sandbox), Some(wanted)) =
        (&plan.place, sandbox, plan.process.oom_score_adj())
    else {
        return;
    };
    let Some(sentry) = sandbox.sentry.filter(|sentry| sentry.alive()) else { return };
    let first = sandbox.process.oom_score_adj().map(|first| first.min(highest(limit_of(&sandbox.resources))));
    let adapt = |pid: i32, wanted: i32| {
        let now = get(pid);
        if now == first || now.is_some_and(|now| wanted < now) {
            put(&pid.to_string(), wanted);
        }
    };
    adapt(sentry.pid, wanted.min(highest(limit_of(&sandbox.resources))));
    let home = cgroup(sentry.pid);
    // Those that serve other containers are in the cgroups of these.
    for pid in stubs(sentry).into_iter().filter(|pid| cgroup(*pid) == home) {
        adapt(pid, wanted.min(highest(limit_of(&plan.resources))));
    }
}

/// The limit of a guest's memory.
fn limit_of(resources: &Option<LinuxResources>) -> Option<u64> {
    limits(resources.as_ref()?).memory_max
}

fn stubs(sentry: ProcessRef) -> Vec<i32> {
    let pid = sentry.pid;
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn cgroup(pid: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()
}

fn get(pid: i32) -> Option<i32> {
    std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?.trim().parse().ok()
}

fn put(pid: &str, adjustment: i32) {
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string());
}
