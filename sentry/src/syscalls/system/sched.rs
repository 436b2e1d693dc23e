//! sched_*(2), getpriority(2), ioprio_get(2): values that read back. The host schedules.

use crate::cgroup::cpus;
use crate::task::{Cx, TaskShared};
use abi::time::Timespec;
use abi::{CallResult, Errno, SysResult, UserAddr, UserPtr};
use std::sync::Arc;
use vfs::Capabilities;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Scheduling settings of a thread.
#[derive(Clone, Copy, Debug)]
pub struct Sched {
    /// `SCHED_*`.
    pub policy: u32,
    /// SCHED_RESET_ON_FORK.
    pub reset_on_fork: bool,
    /// Real-time priority.
    pub priority: u32,
    /// Nice value.
    pub nice: i32,
    /// SCHED_DEADLINE: runtime, deadline and period in nanoseconds.
    pub deadline_ns: [u64; 3],
    /// ioprio_set(2).
    pub ioprio: u32,
    /// Processors it may use.
    pub affinity: [u64; 16],
}

impl Default for Sched {
    fn default() -> Sched {
        Sched {
            policy: 0,
            reset_on_fork: false,
            priority: 0,
            nice: 0,
            deadline_ns: [0; 3],
            ioprio: 0,
            affinity: [u64::MAX; 16],
        }
    }
}

impl Sched {
    /// What a child starts with.
    #[must_use]
    pub fn inherit(&self) -> Sched {
        if self.reset_on_fork {
            Sched { policy: 0, reset_on_fork: false, priority: 0, nice: self.nice.max(0), ..*self }
        } else {
            *self
        }
    }
}

fn find(cx: &Cx<'_>, pid: i32) -> SysResult<Arc<TaskShared>> {
    let number = u32::try_from(pid).map_err(|_| Errno::EINVAL)?;
    if number == 0 {
        return Ok(Arc::clone(cx.shared));
    }
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let tree = cx.kernel().tree.lock();
    Ok(Arc::clone(tree.find_task(&ns, number).ok_or(Errno::ESRCH)?))
}

fn may_change(cx: &Cx<'_>, task: &TaskShared) -> SysResult<()> {
    let other = Arc::clone(&task.published.lock().cred);
    let own = cx.cred();
    let same = own.euid == other.euid || own.euid == other.uid;
    if same || own.has_in(Capabilities::SYS_NICE, &other.user_ns) { Ok(()) } else { Err(Errno::EPERM) }
}

/// sched_yield(2).
pub fn sched_yield(_cx: &mut Cx<'_>) -> CallResult<()> {
    std::thread::yield_now();
    Ok(())
}

fn range(policy: u32) -> SysResult<(u32, u32)> {
    match policy {
        1 | 2 => Ok((1, 99)),
        0 | 3 | 5 | 6 => Ok((0, 0)),
        _ => Err(Errno::EINVAL),
    }
}

/// The policy of schedulers in BPF: it has a range, whether one is loaded or not.
const SCHED_EXT: u32 = 7;

/// sched_get_priority_max(2).
pub fn sched_get_priority_max(_cx: &mut Cx<'_>, policy: u32) -> CallResult<u32> {
    Ok(if policy == SCHED_EXT { 0 } else { range(policy)?.1 })
}
/// sched_get_priority_min(2).
pub fn sched_get_priority_min(_cx: &mut Cx<'_>, policy: u32) -> CallResult<u32> {
    Ok(if policy == SCHED_EXT { 0 } else { range(policy)?.0 })
}
/// sched_rr_get_interval(2).
pub fn sched_rr_get_interval(cx: &mut Cx<'_>, pid: i32, out: UserPtr<Timespec>) -> CallResult<()> {
    let task = find(cx, pid)?;
    let nsec = match task.sched.lock().policy {
        1 => 0,
        2 => 100_000_000,
        _ => 4_000_000,
    };
    Ok(cx.write(out, &Timespec { sec: 0, nsec })?)
}

const RESET_ON_FORK: u32 = 0x4000_0000;

fn set_policy(cx: &Cx<'_>, task: &TaskShared, policy: u32, priority: u32) -> SysResult<()> {
    let reset_on_fork = policy & RESET_ON_FORK != 0;
    let policy = policy & !RESET_ON_FORK;
    let (low, high) = range(policy)?;
    if policy == 6 || !(low..=high).contains(&priority) {
        return Err(Errno::EINVAL);
    }
    may_change(cx, task)?;
    let limit = task.process.limits.lock().get(crate::process::limits::Resource::Rtprio).soft;
    if priority > 0 && u64::from(priority) > limit && !cx.cred().has(Capabilities::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mut sched = task.sched.lock();
    sched.policy = policy;
    sched.priority = priority;
    sched.reset_on_fork = reset_on_fork;
    Ok(())
}

fn param_in(cx: &Cx<'_>, pid: i32, param: UserPtr<i32>) -> SysResult<u32> {
    if pid < 0 || param.is_null() {
        return Err(Errno::EINVAL);
    }
    u32::try_from(cx.read(param)?).map_err(|_| Errno::EINVAL)
}

/// sched_setscheduler(2).
pub fn sched_setscheduler(cx: &mut Cx<'_>, pid: i32, policy: i32, param: UserPtr<i32>) -> CallResult<()> {
    let policy = u32::try_from(policy).map_err(|_| Errno::EINVAL)?;
    let priority = param_in(cx, pid, param)?;
    let task = find(cx, pid)?;
    Ok(set_policy(cx, &task, policy, priority)?)
}
/// sched_getscheduler(2).
pub fn sched_getscheduler(cx: &mut Cx<'_>, pid: i32) -> CallResult<u32> {
    let task = find(cx, pid)?;
    let sched = *task.sched.lock();
    Ok(sched.policy | if sched.reset_on_fork { RESET_ON_FORK } else { 0 })
}
/// sched_setparam(2).
pub fn sched_setparam(cx: &mut Cx<'_>, pid: i32, param: UserPtr<i32>) -> CallResult<()> {
    let priority = param_in(cx, pid, param)?;
    let task = find(cx, pid)?;
    let policy = task.sched.lock().policy;
    Ok(set_policy(cx, &task, policy, priority)?)
}
/// sched_getparam(2).
pub fn sched_getparam(cx: &mut Cx<'_>, pid: i32, param: UserPtr<u32>) -> CallResult<()> {
    if param.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let task = find(cx, pid)?;
    let priority = task.sched.lock().priority;
    Ok(cx.write(param, &priority)?)
}

/// `struct sched_attr` of the second version.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// Bytes of the first version.
const ATTR_SIZE_VER0: u32 = 48;
const ATTR_SIZE: u32 = 56;
const FLAG_RESET_ON_FORK: u64 = 1;
const FLAG_KEEP_POLICY: u64 = 8;
const FLAG_KEEP_PARAMS: u64 = 16;
const FLAG_UTIL_CLAMP: u64 = 0x60;
const ALL_FLAGS: u64 = 0x7f;
const SCHED_DEADLINE: u32 = 6;

fn read_attr(cx: &Cx<'_>, at: UserPtr<SchedAttr>) -> SysResult<SchedAttr> {
    let size: u32 = cx.read(UserPtr::new(at.addr()))?;
    let size = if size == 0 { ATTR_SIZE_VER0 } else { size };
    if !(ATTR_SIZE_VER0..=4096).contains(&size) {
        cx.write(UserPtr::new(at.addr()), &ATTR_SIZE)?;
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    cx.mm().read_bytes(at.addr(), &mut bytes)?;
    if bytes.iter().skip(size_of::<SchedAttr>()).any(|byte| *byte != 0) {
        cx.write(UserPtr::new(at.addr()), &ATTR_SIZE)?;
        return Err(Errno::E2BIG);
    }
    bytes.resize(size_of::<SchedAttr>(), 0);
    SchedAttr::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)
}

/// sched_setattr(2).
pub fn sched_setattr(cx: &mut Cx<'_>, pid: i32, attr: UserPtr<SchedAttr>, flags: u32) -> CallResult<()> {
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut attr = read_attr(cx, attr)?;
    if attr.flags & !ALL_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    if attr.flags & FLAG_UTIL_CLAMP != 0 {
        // As on a kernel without CONFIG_UCLAMP_TASK.
        return Err(Errno::EOPNOTSUPP.into());
    }
    let task = find(cx, pid)?;
    let old = *task.sched.lock();
    if attr.flags & FLAG_KEEP_POLICY != 0 {
        attr.policy = old.policy;
    }
    if attr.flags & FLAG_KEEP_PARAMS != 0 {
        (attr.priority, attr.nice) = (old.priority, old.nice);
        [attr.runtime, attr.deadline, attr.period] = old.deadline_ns;
    }
    if attr.policy == SCHED_DEADLINE {
        return Ok(set_deadline(cx, &task, &attr)?);
    }
    let reset = if attr.flags & FLAG_RESET_ON_FORK != 0 { RESET_ON_FORK } else { 0 };
    set_policy(cx, &task, attr.policy | reset, attr.priority)?;
    if matches!(attr.policy, 0 | 3) {
        set_nice(cx, &task, attr.nice)?;
    }
    Ok(())
}

/// SCHED_DEADLINE: runtime within deadline within period, which is the deadline when it is zero.
fn set_deadline(cx: &Cx<'_>, task: &TaskShared, attr: &SchedAttr) -> SysResult<()> {
    const LEAST_NS: u64 = 1024;
    let period = if attr.period == 0 { attr.deadline } else { attr.period };
    let fits = attr.runtime >= LEAST_NS && attr.runtime <= attr.deadline && attr.deadline <= period;
    if attr.priority != 0 || !fits || i64::try_from(period).is_err() {
        return Err(Errno::EINVAL);
    }
    may_change(cx, task)?;
    if !cx.cred().has(Capabilities::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mut sched = task.sched.lock();
    sched.policy = SCHED_DEADLINE;
    sched.priority = 0;
    sched.reset_on_fork = attr.flags & FLAG_RESET_ON_FORK != 0;
    sched.deadline_ns = [attr.runtime, attr.deadline, period];
    Ok(())
}

/// sched_getattr(2).
pub fn sched_getattr(
    cx: &mut Cx<'_>,
    pid: i32,
    attr: UserPtr<SchedAttr>,
    size: u32,
    flags: u32,
) -> CallResult<()> {
    if attr.is_null() || pid < 0 || flags != 0 || !(ATTR_SIZE_VER0..=4096).contains(&size) {
        return Err(Errno::EINVAL.into());
    }
    let task = find(cx, pid)?;
    let sched = *task.sched.lock();
    let is_deadline = sched.policy == SCHED_DEADLINE;
    let [runtime, deadline, period] = if is_deadline { sched.deadline_ns } else { [0; 3] };
    let value = SchedAttr {
        size: size.min(ATTR_SIZE),
        policy: sched.policy,
        flags: u64::from(sched.reset_on_fork),
        nice: if matches!(sched.policy, 0 | 3) { sched.nice } else { 0 },
        priority: sched.priority,
        runtime,
        deadline,
        period,
        ..SchedAttr::default()
    };
    let len = usize::try_from(value.size).unwrap_or(0);
    Ok(cx.mm().write_bytes(attr.addr(), value.as_bytes().get(..len).unwrap_or_default())?)
}

/// sched_setaffinity(2).
pub fn sched_setaffinity(cx: &mut Cx<'_>, pid: i32, size: usize, mask: UserAddr) -> CallResult<()> {
    let mut bytes = [0; 128];
    let part = bytes.get_mut(..size.min(128)).unwrap_or_default();
    cx.mm().read_bytes(mask, part)?;
    let mut set = [0_u64; 16];
    for (word, chunk) in set.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().unwrap_or([0; 8]));
    }
    let task = find(cx, pid).map_err(|_| Errno::ESRCH)?;
    may_change(cx, &task)?;
    let set = cpus::both(&set, &cpus::of_process(cx.kernel(), &task.process));
    if set.iter().all(|word| *word == 0) {
        return Err(Errno::EINVAL.into());
    }
    task.sched.lock().affinity = set;
    Ok(())
}

/// sched_getaffinity(2): returns the bytes of the kernel's set.
pub fn sched_getaffinity(cx: &mut Cx<'_>, pid: i32, size: usize, mask: UserAddr) -> CallResult<usize> {
    let cpus = usize::try_from(cx.kernel().machine.cpus.max(1)).unwrap_or(1);
    if !size.is_multiple_of(8) || size * 8 < cpus {
        return Err(Errno::EINVAL.into());
    }
    let task = find(cx, pid).map_err(|_| Errno::ESRCH)?;
    let affinity = task.sched.lock().affinity;
    let set = cpus::within(&affinity, &cpus::of_process(cx.kernel(), &task.process));
    let bytes: Vec<u8> = set.into_iter().flat_map(u64::to_le_bytes).collect();
    let len = cpus.div_ceil(64) * 8;
    let len = len.min(size);
    cx.mm().write_bytes(mask, bytes.get(..len).unwrap_or_default())?;
    Ok(len)
}

fn set_nice(cx: &Cx<'_>, task: &TaskShared, nice: i32) -> SysResult<()> {
    let nice = nice.clamp(-20, 19);
    may_change(cx, task)?;
    let old = task.sched.lock().nice;
    // RLIMIT_NICE counts from 1 (nice 19) to 40 (nice -20).
    let rank = u64::try_from(20 - nice).unwrap_or(0);
    let limit = task.process.limits.lock().get(crate::process::limits::Resource::Nice).soft;
    if nice < old && rank > limit && !cx.cred().has(Capabilities::SYS_NICE) {
        return Err(Errno::EACCES);
    }
    task.sched.lock().nice = nice;
    Ok(())
}

/// Threads that PRIO_PROCESS, PRIO_PGRP or PRIO_USER names.
fn named(cx: &Cx<'_>, which: u32, who: u32) -> SysResult<Vec<Arc<TaskShared>>> {
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let tree = cx.kernel().tree.lock();
    let own = cx.shared.process.pid.root();
    let list: Vec<_> = match which {
        0 if who == 0 => vec![Arc::clone(cx.shared)],
        0 => tree.find_task(&ns, who).cloned().into_iter().collect(),
        1 => {
            let group = if who == 0 {
                tree.node(own).map(|node| node.pgid.root())
            } else {
                ns.find(who).map(|pid| pid.root())
            };
            group.map_or(Vec::new(), |g| tree.group(g).flat_map(|node| node.process.threads()).collect())
        }
        2 => {
            let uid = if who == 0 { Ok(cx.cred().uid) } else { cx.cred().user_ns.kuid(who) };
            let uid = uid.map_err(|_| Errno::ESRCH)?;
            tree.tasks().filter(|task| task.published.lock().cred.uid == uid).cloned().collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if list.is_empty() { Err(Errno::ESRCH) } else { Ok(list) }
}

/// getpriority(2): 20 minus the nice value, as the system call returns it.
pub fn getpriority(cx: &mut Cx<'_>, which: u32, who: u32) -> CallResult<i32> {
    let best = named(cx, which, who)?.iter().map(|task| 20 - task.sched.lock().nice).max();
    Ok(best.unwrap_or(20))
}
/// setpriority(2).
pub fn setpriority(cx: &mut Cx<'_>, which: u32, who: u32, nice: i32) -> CallResult<()> {
    for task in named(cx, which, who)? {
        set_nice(cx, &task, nice)?;
    }
    Ok(())
}

/// ioprio_get(2).
pub fn ioprio_get(cx: &mut Cx<'_>, which: u32, who: u32) -> CallResult<u32> {
    let which = which.checked_sub(1).ok_or(Errno::EINVAL)?;
    let best = named(cx, which, who)?.iter().map(|task| task.sched.lock().ioprio).max();
    Ok(best.unwrap_or(0))
}
/// ioprio_set(2).
pub fn ioprio_set(cx: &mut Cx<'_>, which: u32, who: u32, value: u32) -> CallResult<()> {
    let which = which.checked_sub(1).ok_or(Errno::EINVAL)?;
    let (class, data) = (value >> 13, value & 0x1fff);
    match class {
        0 if data != 0 => return Err(Errno::EINVAL.into()),
        1 if !cx.cred().has(Capabilities::SYS_ADMIN) => return Err(Errno::EPERM.into()),
        0..=3 => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    for task in named(cx, which, who)? {
        may_change(cx, &task)?;
        task.sched.lock().ioprio = value;
    }
    Ok(())
}
