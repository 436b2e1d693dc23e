//! sysinfo(2), getrandom(2), getcpu(2), getrusage(2).

use crate::task::Cx;
use crate::time::Clock;
use abi::process::Rusage;
use abi::time::Timeval;
use abi::{CallResult, Errno, UserAddr, UserPtr};
use std::sync::atomic::Ordering;
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct sysinfo`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sysinfo {
    uptime: i64,
    loads: [u64; 3],
    total_ram: u64,
    free_ram: u64,
    shared_ram: u64,
    buffer_ram: u64,
    total_swap: u64,
    free_swap: u64,
    procs: u16,
    pad: [u16; 3],
    total_high: u64,
    free_high: u64,
    unit: u32,
    tail: u32,
}

/// sysinfo(2).
pub fn sysinfo(cx: &mut Cx<'_>, out: UserPtr<Sysinfo>) -> CallResult<()> {
    let kernel = cx.kernel();
    let (total, free) = crate::procfs::system::memory(kernel);
    let procs = kernel.tree.lock().tasks().count();
    let uptime = kernel.boot.started.elapsed().as_secs();
    let value = Sysinfo {
        uptime: i64::try_from(uptime).unwrap_or(i64::MAX),
        total_ram: total,
        free_ram: free,
        procs: u16::try_from(procs).unwrap_or(u16::MAX),
        unit: 1,
        ..Sysinfo::default()
    };
    Ok(cx.write(out, &value)?)
}

const GRND_NONBLOCK: u32 = 1;
const GRND_RANDOM: u32 = 2;
const GRND_INSECURE: u32 = 4;

/// getrandom(2).
pub fn getrandom(cx: &mut Cx<'_>, buf: UserAddr, len: usize, flags: u32) -> CallResult<usize> {
    let both = GRND_RANDOM | GRND_INSECURE;
    if flags & !(GRND_NONBLOCK | both) != 0 || flags & both == both {
        return Err(Errno::EINVAL.into());
    }
    let len = len.min(0x1ff_ffff);
    let mut done = 0;
    let mut chunk = [0; 4096];
    while done < len {
        let Some(part) = chunk.get_mut(..(len - done).min(4096)) else { break };
        rustix::rand::getrandom(&mut *part, rustix::rand::GetRandomFlags::empty()).map_err(|_| Errno::EIO)?;
        let at = buf.checked_add(u64::try_from(done).unwrap_or(u64::MAX))?;
        let count = cx.mm().write_partial(at, part);
        done += count;
        if count < part.len() {
            break;
        }
    }
    if done == 0 && len > 0 { Err(Errno::EFAULT.into()) } else { Ok(done) }
}

/// getcpu(2).
pub fn getcpu(cx: &mut Cx<'_>, cpu: UserPtr<u32>, node: UserPtr<u32>) -> CallResult<()> {
    let here = u32::try_from(rustix::thread::sched_getcpu()).unwrap_or(0);
    let allowed = crate::cgroup::cpus::of_process(cx.kernel(), &cx.shared.process);
    let here = crate::cgroup::cpus::stand_in(&allowed, here);
    cx.write_if(cpu, &here)?;
    Ok(cx.write_if(node, &0)?)
}

const RUSAGE_SELF: i32 = 0;
const RUSAGE_CHILDREN: i32 = -1;
const RUSAGE_THREAD: i32 = 1;

/// getrusage(2).
pub fn getrusage(cx: &mut Cx<'_>, who: i32, out: UserPtr<Rusage>) -> CallResult<()> {
    let process = &cx.shared.process;
    let (user, system) = match who {
        RUSAGE_SELF => process.cpu_times(),
        RUSAGE_CHILDREN => process.times.children(),
        RUSAGE_THREAD => cx.shared.cpu_times(),
        _ => return Err(Errno::EINVAL.into()),
    };
    let count = |read: fn(&crate::task::TaskTimes) -> u64| match who {
        RUSAGE_SELF => process.threads().iter().map(|task| read(&task.times)).sum(),
        RUSAGE_THREAD => read(&cx.shared.times),
        _ => 0_u64,
    };
    let max_rss = if who == RUSAGE_CHILDREN {
        process.times.children_max_rss()
    } else {
        process.times.look_at(cx.mm());
        process.times.max_rss()
    };
    let small = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let value = Rusage {
        utime: Timeval::from_duration(Duration::from_nanos(user)),
        stime: Timeval::from_duration(Duration::from_nanos(system)),
        maxrss: small(max_rss),
        minflt: small(count(|times| times.faults.load(Ordering::Relaxed))),
        nvcsw: small(count(|times| times.sleeps.load(Ordering::Relaxed))),
        ..Rusage::default()
    };
    Ok(cx.write(out, &value)?)
}

/// Seconds since the sandbox started, for /proc/uptime and its kin.
#[must_use]
pub fn uptime() -> Duration {
    Clock::Boottime.now()
}
