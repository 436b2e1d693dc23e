//! getrlimit(2), setrlimit(2), prlimit(2).

use crate::process::limits::{Limit, Resource};
use crate::task::{Cx, TaskShared};
use abi::{CallResult, Errno, SysResult, UserPtr};
use std::sync::Arc;
use vfs::Capabilities;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct rlimit64`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rlimit {
    soft: u64,
    hard: u64,
}

/// getrlimit(2).
pub fn getrlimit(cx: &mut Cx<'_>, resource: u32, out: UserPtr<Rlimit>) -> CallResult<()> {
    prlimit64(cx, 0, resource, UserPtr::new(abi::UserAddr::NULL), out)
}

/// setrlimit(2).
pub fn setrlimit(cx: &mut Cx<'_>, resource: u32, new: UserPtr<Rlimit>) -> CallResult<()> {
    let value = cx.read(new)?;
    let task = Arc::clone(cx.shared);
    Ok(set(cx, &task, Resource::new(resource)?, value)?)
}

/// prlimit(2).
pub fn prlimit64(
    cx: &mut Cx<'_>,
    pid: i32,
    resource: u32,
    new: UserPtr<Rlimit>,
    old: UserPtr<Rlimit>,
) -> CallResult<()> {
    let value = if new.is_null() { None } else { Some(cx.read(new)?) };
    let task = find(cx, pid)?;
    let resource = Resource::new(resource)?;
    let before = task.process.limits.lock().get(resource);
    if let Some(value) = value {
        set(cx, &task, resource, value)?;
    }
    Ok(cx.write_if(old, &Rlimit { soft: before.soft, hard: before.hard })?)
}

fn find(cx: &Cx<'_>, pid: i32) -> SysResult<Arc<TaskShared>> {
    if pid == 0 {
        return Ok(Arc::clone(cx.shared));
    }
    let number = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let task = {
        let tree = cx.kernel().tree.lock();
        Arc::clone(tree.find_task(&ns, number).ok_or(Errno::ESRCH)?)
    };
    if Arc::ptr_eq(&task.process, &cx.shared.process) {
        return Ok(task);
    }
    let other = Arc::clone(&task.published.lock().cred);
    let cred = cx.cred();
    let same = [other.uid, other.euid, other.suid].iter().all(|id| *id == cred.uid)
        && [other.gid, other.egid, other.sgid].iter().all(|id| *id == cred.gid);
    if same || cred.has_in(Capabilities::SYS_RESOURCE, &other.user_ns) { Ok(task) } else { Err(Errno::EPERM) }
}

fn set(cx: &Cx<'_>, task: &Arc<TaskShared>, resource: Resource, value: Rlimit) -> SysResult<()> {
    if value.soft > value.hard {
        return Err(Errno::EINVAL);
    }
    if resource == Resource::Nofile && value.hard > u64::try_from(crate::files::NR_OPEN).unwrap_or(0) {
        return Err(Errno::EPERM);
    }
    let mut limits = task.process.limits.lock();
    let old = limits.get(resource);
    if value.hard > old.hard && !cx.cred().has(Capabilities::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    limits.set(resource, Limit { soft: value.soft, hard: value.hard });
    let now = *limits;
    drop(limits);
    if resource == Resource::Cpu {
        crate::time::timer::watch_cpu_limit(&task.process);
    }
    let published = task.published.lock().clone();
    if let Some(mm) = published.mm {
        mm.set_limits(crate::loader::memory_limits(&now, &published.cred));
    }
    Ok(())
}
