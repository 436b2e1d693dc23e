//! Files of /proc about the sandbox as a whole.

use super::status::published_reader;
use super::text::put;
use crate::kernel::Kernel;
use crate::process::exit::ticks;
use crate::syscalls::system::uname::{RELEASE, VERSION};
use crate::task::RunMode;
use abi::{PAGE_SIZE, SysResult};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vfs::{Caller, Vfs};

/// What `/proc/version` and `/proc/cmdline` go on about.
const BUILDER: &str = "root@gvisor-rs";

/// Kernel threads of Linux do not exist here; neither do modules, swap or block devices.
pub(super) fn nothing(_kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(Vec::new())
}

pub(super) fn version(_kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(format!("Linux version {RELEASE} ({BUILDER}) (rustc) {VERSION}\n").into_bytes())
}

pub(super) fn version_signature(_kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(format!("gvisor-rs {RELEASE}\n").into_bytes())
}

pub(super) fn cmdline(_kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(b"BOOT_IMAGE=/vmlinuz-gvisor-rs quiet\n".to_vec())
}

/// Busy nanoseconds of all processes that are still there or were waited for by those: user, system.
fn busy(kernel: &Kernel) -> (u64, u64) {
    let processes: Vec<_> = kernel.tree.lock().nodes().map(|node| Arc::clone(&node.process)).collect();
    let (mut user, mut system) = (0_u64, 0_u64);
    for process in processes {
        for (more_user, more_system) in [process.cpu_times(), process.times.children()] {
            user = user.saturating_add(more_user);
            system = system.saturating_add(more_system);
        }
    }
    (user, system)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// User, system and idle time of the machine, in nanoseconds over all processors.
pub(crate) fn machine_times(kernel: &Kernel) -> (u64, u64, u64) {
    let (user, system) = busy(kernel);
    let all =
        nanoseconds(kernel.boot.started.elapsed()).saturating_mul(u64::from(kernel.machine.cpus.max(1)));
    (user, system, all.saturating_sub(user.saturating_add(system)))
}

pub(super) fn uptime(kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let up = kernel.boot.started.elapsed();
    let (_, _, idle) = machine_times(kernel);
    let idle = Duration::from_nanos(idle);
    let show = |time: Duration| format!("{}.{:02}", time.as_secs(), time.subsec_millis() / 10);
    Ok(format!("{} {}\n", show(up), show(idle)).into_bytes())
}

fn running(kernel: &Kernel) -> (u64, u64) {
    let tree = kernel.tree.lock();
    let mut counts = (0_u64, 0_u64);
    for task in tree.tasks() {
        counts.1 += 1;
        if matches!(task.mode(), RunMode::Guest | RunMode::Kernel) {
            counts.0 += 1;
        }
    }
    counts
}

/// Load averages, brought up to date when somebody asks: an idle sandbox has no clock that ticks.
#[derive(Debug)]
pub(super) struct Load {
    at: Instant,
    averages: [f64; 3],
}

impl Load {
    pub(super) fn new(at: Instant) -> Load {
        Load { at, averages: [0.0; 3] }
    }
    fn update(&mut self, now: Instant, running: f64) -> [f64; 3] {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        for (average, period) in self.averages.iter_mut().zip([60.0, 300.0, 900.0]) {
            let keep = (-passed / period).exp();
            *average = *average * keep + running * (1.0 - keep);
        }
        self.averages
    }
}

pub(super) fn loadavg(
    kernel: &Kernel,
    load: &lock::Ranked<lock::order::Leaf, Load>,
    last_pid: u32,
) -> Vec<u8> {
    let (busy, all) = running(kernel);
    // The reader itself does not count as load.
    let active = u32::try_from(busy.saturating_sub(1)).unwrap_or(u32::MAX);
    let [one, five, fifteen] = load.lock().update(Instant::now(), f64::from(active));
    format!("{one:.2} {five:.2} {fifteen:.2} {busy}/{all} {last_pid}\n").into_bytes()
}

pub(super) fn stat(kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let cpus = kernel.machine.cpus.max(1);
    let (user, system, idle) = machine_times(kernel);
    let each = u64::from(cpus);
    let mut out = String::new();
    put!(out, "cpu  {} 0 {} {} 0 0 0 0 0 0\n", ticks(user), ticks(system), ticks(idle));
    for cpu in 0..cpus {
        put!(
            out,
            "cpu{cpu} {} 0 {} {} 0 0 0 0 0 0\n",
            ticks(user / each),
            ticks(system / each),
            ticks(idle / each)
        );
    }
    let (running, _) = running(kernel);
    let switches: u64 = {
        let tree = kernel.tree.lock();
        let sleeps = tree.tasks().map(|task| task.times.sleeps.load(std::sync::atomic::Ordering::Relaxed));
        sleeps.fold(0, u64::saturating_add)
    };
    put!(out, "intr 0\nctxt {switches}\nbtime {}\n", kernel.boot.realtime.as_secs());
    put!(out, "processes {}\nprocs_running {}\nprocs_blocked 0\n", kernel.root.pid.last(), running.max(1));
    out.push_str("softirq 0 0 0 0 0 0 0 0 0 0 0\n");
    Ok(out.into_bytes())
}

/// Total and free memory in bytes, as guests are told: within the limit of their control group.
pub(crate) fn memory(kernel: &Kernel) -> (u64, u64) {
    let group = crate::task::run::current().and_then(|task| task.process.cgroup.lock().clone());
    let (total, used) = match group {
        Some(group) => group.memory_view(kernel),
        None => (kernel.machine.memory, kernel.frames.resident()),
    };
    (total, total.saturating_sub(used))
}

pub(super) fn meminfo(kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let (total, free) = memory(kernel);
    let used = total.saturating_sub(free);
    let commit_limit = kernel.frames.policy().commit_limit();
    let commit_limit = if commit_limit == 0 { total / 2 } else { commit_limit.min(total) };
    let lines = [
        ("MemTotal", total),
        ("MemFree", free),
        ("MemAvailable", free),
        ("Buffers", 0),
        ("Cached", 0),
        ("SwapCached", 0),
        ("Active", used),
        ("Inactive", 0),
        ("Active(anon)", used),
        ("Inactive(anon)", 0),
        ("Active(file)", 0),
        ("Inactive(file)", 0),
        ("Unevictable", 0),
        ("Mlocked", 0),
        ("SwapTotal", 0),
        ("SwapFree", 0),
        ("Zswap", 0),
        ("Zswapped", 0),
        ("Dirty", 0),
        ("Writeback", 0),
        ("AnonPages", used),
        ("Mapped", 0),
        ("Shmem", 0),
        ("KReclaimable", 0),
        ("Slab", 0),
        ("SReclaimable", 0),
        ("SUnreclaim", 0),
        ("KernelStack", 0),
        ("PageTables", 0),
        ("SecPageTables", 0),
        ("NFS_Unstable", 0),
        ("Bounce", 0),
        ("WritebackTmp", 0),
        ("CommitLimit", commit_limit),
        ("Committed_AS", kernel.frames.committed()),
        ("VmallocTotal", 34_359_738_367 << 10),
        ("VmallocUsed", 0),
        ("VmallocChunk", 0),
        ("Percpu", 0),
        ("HardwareCorrupted", 0),
        ("AnonHugePages", 0),
        ("ShmemHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FileHugePages", 0),
        ("FilePmdMapped", 0),
    ];
    let mut out = String::new();
    for (name, bytes) in lines {
        memory_line(&mut out, name, bytes);
    }
    for name in ["HugePages_Total", "HugePages_Free", "HugePages_Rsvd", "HugePages_Surp"] {
        put!(out, "{:<16}{:>8}\n", format!("{name}:"), 0);
    }
    memory_line(&mut out, "Hugepagesize", 2 << 20);
    memory_line(&mut out, "Hugetlb", 0);
    memory_line(&mut out, "DirectMap4k", total);
    Ok(out.into_bytes())
}

fn memory_line(out: &mut String, name: &str, bytes: u64) {
    // Label and number share 24 columns.
    let label = format!("{name}:");
    let width = 24_usize.saturating_sub(label.len());
    put!(*out, "{label}{:>width$} kB\n", bytes >> 10);
}

pub(super) fn vmstat(kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let (total, free) = memory(kernel);
    let used = total.saturating_sub(free) / PAGE_SIZE;
    let lines = [
        ("nr_free_pages", free / PAGE_SIZE),
        ("nr_zone_inactive_anon", 0),
        ("nr_zone_active_anon", used),
        ("nr_zone_inactive_file", 0),
        ("nr_zone_active_file", 0),
        ("nr_zone_unevictable", 0),
        ("nr_mlock", 0),
        ("nr_inactive_anon", 0),
        ("nr_active_anon", used),
        ("nr_inactive_file", 0),
        ("nr_active_file", 0),
        ("nr_slab_reclaimable", 0),
        ("nr_slab_unreclaimable", 0),
        ("nr_anon_pages", used),
        ("nr_mapped", 0),
        ("nr_file_pages", 0),
        ("nr_dirty", 0),
        ("nr_writeback", 0),
        ("nr_shmem", 0),
        ("nr_dirtied", 0),
        ("nr_written", 0),
        ("nr_page_table_pages", 0),
        ("pgpgin", 0),
        ("pgpgout", 0),
        ("pswpin", 0),
        ("pswpout", 0),
        ("pgfault", 0),
        ("pgmajfault", 0),
        ("pgfree", 0),
        ("oom_kill", 0),
        ("swap_ra", 0),
        ("swap_ra_hit", 0),
    ];
    let mut out = String::new();
    for (name, value) in lines {
        put!(out, "{name} {value}\n");
    }
    Ok(out.into_bytes())
}

pub(crate) fn vfs_of(kernel: &Kernel, by: &Caller<'_>) -> Arc<Vfs> {
    let fs = published_reader(kernel, by).and_then(|reader| reader.fs);
    fs.map_or_else(|| Arc::clone(&kernel.files.vfs), |fs| Arc::clone(&fs.snapshot().ns.vfs))
}

pub(super) fn filesystems(kernel: &Arc<Kernel>, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let mut out = String::new();
    for kind in vfs_of(kernel, by).fs_types() {
        put!(out, "{}\t{}\n", if kind.needs_device() { "" } else { "nodev" }, kind.name());
    }
    Ok(out.into_bytes())
}

pub(super) fn devices(kernel: &Arc<Kernel>, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let mut devices = vfs_of(kernel, by).devices();
    devices.sort_by_key(|device| device.1);
    devices.dedup_by(|a, b| a.0 == b.0 && a.1 == b.1 && a.2 == b.2);
    let mut out = String::from("Character devices:\n");
    for (_, major, name) in devices.iter().filter(|device| !device.0) {
        put!(out, "{major:>3} {name}\n");
    }
    out.push_str("\nBlock devices:\n");
    for (_, major, name) in devices.iter().filter(|device| device.0) {
        put!(out, "{major:>3} {name}\n");
    }
    Ok(out.into_bytes())
}

pub(super) fn swaps(_kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n".to_vec())
}

pub(super) fn partitions(_kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(b"major minor  #blocks  name\n\n".to_vec())
}

pub(super) fn interrupts(kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let cpus = kernel.machine.cpus.max(1);
    let mut out = String::from("           ");
    for cpu in 0..cpus {
        put!(out, "{:<11}", format!("CPU{cpu}"));
    }
    out.push('\n');
    for (name, what) in [("NMI", "Non-maskable interrupts"), ("LOC", "Local timer interrupts")] {
        put!(out, "{name}:");
        for _ in 0..cpus {
            put!(out, " {:>10}", 0);
        }
        put!(out, "   {what}\n");
    }
    Ok(out.into_bytes())
}

pub(super) fn softirqs(kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let cpus = kernel.machine.cpus.max(1);
    let mut out = String::from("                    ");
    for cpu in 0..cpus {
        put!(out, "{:<11}", format!("CPU{cpu}"));
    }
    out.push('\n');
    for name in ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"]
    {
        put!(out, "{:>12}", format!("{name}:"));
        for _ in 0..cpus {
            put!(out, " {:>10}", 0);
        }
        out.push('\n');
    }
    Ok(out.into_bytes())
}

pub(super) fn consoles(_kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(b"tty0                 -WU (EC  p  )    4:1\n".to_vec())
}

pub(super) fn misc(_kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(b"229 fuse\n200 tun\n".to_vec())
}

pub(super) fn cgroups(_kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let mut out = String::from("#subsys_name\thierarchy\tnum_cgroups\tenabled\n");
    for name in ["cpuset", "cpu", "cpuacct", "io", "memory", "pids"] {
        put!(out, "{name}\t0\t1\t1\n");
    }
    Ok(out.into_bytes())
}

pub(super) fn pressure(name: &'static str) -> Vec<u8> {
    let line = "avg10=0.00 avg60=0.00 avg300=0.00 total=0";
    if name == "irq" { format!("full {line}\n") } else { format!("some {line}\nfull {line}\n") }.into_bytes()
}

pub(super) fn buddyinfo(kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let (_, free) = memory(kernel);
    let mut out = String::from("Node 0, zone   Normal ");
    for order in 0..11 {
        // Everything that is free lies in blocks of the largest order.
        put!(out, "{:6} ", if order == 10 { free >> 22 } else { 0 });
    }
    out.push('\n');
    Ok(out.into_bytes())
}

pub(super) fn zoneinfo(kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let (total, free) = memory(kernel);
    let (total, free) = (total / PAGE_SIZE, free / PAGE_SIZE);
    let mut out = String::from("Node 0, zone   Normal\n");
    put!(out, "  pages free     {free}\n        boost    0\n        min      0\n        low      0\n");
    put!(
        out,
        "        high     0\n        spanned  {total}\n        present  {total}\n        managed  {total}\n"
    );
    Ok(out.into_bytes())
}

pub(super) fn slabinfo(_kernel: &Arc<Kernel>, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    Ok(b"slabinfo - version: 2.1\n# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>\n".to_vec())
}

/// /proc/key-users: users, their keys and bytes (keyrings(7)).
pub(super) fn key_users(kernel: &Arc<Kernel>, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let keys = kernel.keys.all();
    let mut users: Vec<_> = keys.iter().map(|key| key.state().uid).collect();
    users.push(by.cred.uid);
    users.sort_unstable_by_key(|uid| uid.0);
    users.dedup();
    let mut out = String::new();
    for uid in users.into_iter().filter(|uid| by.cred.user_ns.maps_uid(*uid)) {
        let (count, bytes) = kernel.keys.used(uid);
        let (most, most_bytes) = crate::keys::Keys::quota(uid);
        let shown = by.cred.user_ns.show_uid(uid);
        put!(out, "{shown:5}: {count:5} {count}/{count} {count}/{most} {bytes}/{most_bytes}\n");
    }
    Ok(out.into_bytes())
}

/// /proc/keys: those that the reader may see.
pub(super) fn keys(kernel: &Arc<Kernel>, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    use crate::keys::KeyType;
    let mut out = Vec::new();
    let ns = &by.cred.user_ns;
    for key in kernel.keys.all() {
        let state = key.state();
        let shift = if state.uid == by.cred.fsuid {
            16
        } else if by.cred.in_group(state.gid) {
            8
        } else {
            0
        };
        if (state.perm >> shift) & 1 == 0 || !ns.maps_uid(state.uid) {
            continue;
        }
        let mark = |on: bool, letter: char| if on { letter } else { '-' };
        let timeout = match state.expires.map(|at| at.saturating_duration_since(Instant::now()).as_secs()) {
            None => "perm".to_owned(),
            Some(0) => "expd".to_owned(),
            Some(left @ ..60) => format!("{left}s"),
            Some(left @ ..3600) => format!("{}m", left / 60),
            Some(left @ ..86_400) => format!("{}h", left / 3600),
            Some(left) => format!("{}d", left / 86_400),
        };
        let gid = if state.gid.0 == u32::MAX { -1 } else { i64::from(ns.show_gid(state.gid)) };
        let line = format!(
            "{:08x} I{}-Q-{}{} {:5} {timeout:>4} {:08x} {:5} {gid:5} {:<9} ",
            key.serial,
            mark(state.revoked, 'R'),
            mark(state.negative, 'N'),
            mark(state.invalid, 'i'),
            Arc::strong_count(&key).saturating_sub(1),
            state.perm,
            ns.show_uid(state.uid),
            key.kind.name(),
        );
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(&key.description);
        let what = match key.kind {
            KeyType::Keyring if state.links.is_empty() => "empty".to_owned(),
            KeyType::Keyring => state.links.len().to_string(),
            KeyType::User | KeyType::Logon => state.payload.len().to_string(),
        };
        out.extend_from_slice(format!(": {what}\n").as_bytes());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_meminfo_and_load() {
        let mut out = String::new();
        memory_line(&mut out, "MemTotal", 16 << 30);
        memory_line(&mut out, "Active(anon)", 0);
        memory_line(&mut out, "HardwareCorrupted", 0);
        assert_eq!(
            out,
            "MemTotal:       16777216 kB\nActive(anon):          0 kB\nHardwareCorrupted:     0 kB\n"
        );
        let start = Instant::now();
        let mut load = Load::new(start);
        let [one, ..] = load.update(start + Duration::from_secs(60), 2.0);
        assert!((1.2..1.3).contains(&one), "{one}");
    }
}
