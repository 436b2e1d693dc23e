//! `process.oomScoreAdj` on the host: whom the host's kernel kills when its own memory runs out.
//!
//! Monitor and gofer have what the bundle says, as the container's processes have under runc. So have sentry
//! and stubs, but never the very highest, which is for the process that [`crate::cgroup::Witness`] makes. In a
//! pod the pause program's value is not meant for the processes that serve all containers: the sentry has the
//! lowest of the other containers', and stubs are made with that of the container that came last.

use crate::container::{ProcessRef, Record};
use crate::spec::Plan;
use crate::spec::pod::Place;

/// The highest for processes that others depend on.
const HIGHEST: i32 = 999;

/// Sets that of this process, which those it makes inherit. A host that does not let it be lowered
/// (CAP_SYS_RESOURCE) leaves it.
pub(crate) fn set_own(adjustment: Option<i32>) {
    if let Some(adjustment) = adjustment {
        put("self", adjustment);
    }
}

/// The same for a sentry, before the host's files are out of its reach.
pub(crate) fn set_sentry(adjustment: Option<i32>) {
    set_own(adjustment.map(|adjustment| adjustment.min(HIGHEST)));
}

/// A further container of a pod: its sandbox is worth what it is worth, and its stubs are yet to be made.
pub(crate) fn adapt_sandbox(plan: &Plan, sandbox: Option<&Record>) {
    let (Place::Member(_), Some(sandbox), Some(wanted)) =
        (&plan.place, sandbox, plan.process.oom_score_adj())
    else {
        return;
    };
    let Some(sentry) = sandbox.sentry.filter(|sentry| sentry.alive()) else { return };
    let wanted = wanted.min(HIGHEST);
    let untouched = get(sentry.pid) == sandbox.process.oom_score_adj().map(|first| first.min(HIGHEST));
    if untouched || get(sentry.pid).is_some_and(|now| wanted < now) {
        put(&sentry.pid.to_string(), wanted);
    }
    let home = cgroup(sentry.pid);
    for pid in stubs(sentry) {
        // Those that serve other containers are in the cgroups of these.
        if cgroup(pid) == home {
            put(&pid.to_string(), wanted);
        }
    }
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
