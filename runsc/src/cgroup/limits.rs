//! `linux.resources` as values of cgroup files, v1 and v2, converted the way runc converts them.
//!
//! Memory and pids are enforced by the guest's kernel at the numbers that were asked for; the host's limits
//! stand above them by what the sandbox needs for itself, so that the guest's own accounting ends first.

use super::host::Group;
use super::write::Writes;
use crate::error::{Failure, Outcome};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxMemory, LinuxResources};
use std::path::Path;

/// Tasks of ours for one of the guest's: its host thread and its stub thread, and for the first of each process the
/// stub's helper and mapper.
const TASKS_EACH: u64 = 4;
/// Tasks of ours beside these: monitor, gofer, network helper, template, stubs that wait, threads of the sentry.
const OWN_TASKS: u64 = 64;
/// Bytes of ours beside the guest's: sentry, gofer, monitor, and page tables in proportion.
const OWN_MEMORY: u64 = 64 << 20;
/// Page tables and kernel memory: one part in this many of the guest's.
const MEMORY_PART: u64 = 32;

/// The directory of a controller.
enum At<'a> {
    V1(&'a Path),
    V2(&'a Path),
    Nowhere,
}

/// The groups of one container, asked by controller.
pub(super) struct Groups<'a>(pub(super) &'a [Group]);

impl<'a> Groups<'a> {
    /// The v1 directory of a controller.
    pub(super) fn v1(&self, controller: &str) -> Option<&'a Path> {
        let group = self.0.iter().find(|group| group.controllers.iter().any(|name| name == controller))?;
        Some(&group.path)
    }
    /// The v2 directory.
    pub(super) fn v2(&self) -> Option<&'a Path> {
        Some(&self.0.iter().find(|group| group.is_unified())?.path)
    }
    /// The v2 directory, if it has the controller.
    pub(super) fn v2_with(&self, controller: &str) -> Option<&'a Path> {
        let path = self.v2()?;
        let have = std::fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
        have.split_ascii_whitespace().any(|name| name == controller).then_some(path)
    }
    fn at(&self, v1: &str, v2: &str) -> At<'a> {
        match (self.v1(v1), self.v2_with(v2)) {
            (Some(path), _) => At::V1(path),
            (None, Some(path)) => At::V2(path),
            (None, None) => At::Nowhere,
        }
    }
}

fn nowhere(controller: &str) -> Failure {
    Failure::new(format!("cannot set {controller} limit: container could not join or create cgroup"))
}

/// The host's memory limit for a guest's.
pub(crate) fn host_memory(bytes: u64) -> u64 {
    bytes.saturating_add(OWN_MEMORY).saturating_add(bytes / MEMORY_PART)
}

/// The host's limit of tasks for a guest's.
pub(super) fn host_pids(tasks: u64) -> u64 {
    tasks.saturating_mul(TASKS_EACH).saturating_add(OWN_TASKS)
}

/// -1 is unlimited, 0 is unset.
fn limited(value: Option<i64>) -> Option<Result<u64, Unlimited>> {
    match value? {
        0 => None,
        value => Some(u64::try_from(value).map_err(|_| Unlimited)),
    }
}

/// A value that means no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unlimited;

/// When limits are set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum When {
    /// The cgroup is new: devices are bounded whether or not the bundle says anything of them.
    Creation,
    /// Devices stay as they are.
    Update,
}

/// Adds what `resources` asks for.
pub(super) fn writes(
    groups: &Groups<'_>,
    resources: &LinuxResources,
    when: When,
    out: &mut Writes,
) -> Outcome<()> {
    if when == When::Creation {
        devices(groups, resources.devices().as_deref().unwrap_or_default(), out);
    }
    if let Some(cpu) = resources.cpu() {
        self::cpu(groups, cpu, out)?;
        cpuset(groups, cpu, out)?;
    }
    if let Some(memory) = resources.memory() {
        self::memory(groups, memory, out)?;
    }
    if let Some(pids) = resources.pids() {
        let text = match limited(Some(pids.limit())) {
            Some(Ok(tasks)) => Some(host_pids(tasks).to_string()),
            Some(Err(Unlimited)) => Some("max".to_owned()),
            None => None,
        };
        match (text, groups.at("pids", "pids")) {
            (Some(text), At::V1(dir) | At::V2(dir)) => out.must(dir, "pids.max", text),
            // The guest's kernel enforces it.
            (_, At::Nowhere) | (None, _) => {}
        }
    }
    if let Some(io) = resources.block_io() {
        block_io(groups, io, out)?;
    }
    huge_pages(groups, resources, out)?;
    rest(groups, resources, out)
}

/// cgroup v1 shares (2 to 262144) as a v2 weight (1 to 10000).
pub(crate) fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

/// A v1 weight (10 to 1000) as a v2 one (1 to 10000).
pub(super) fn io_weight(weight: u16) -> u64 {
    1 + u64::from(weight.saturating_sub(10)) * 9_999 / 990
}

fn cpu(groups: &Groups<'_>, cpu: &LinuxCpu, out: &mut Writes) -> Outcome<()> {
    let shares = cpu.shares().filter(|shares| *shares != 0);
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
    let realtime_period = cpu.realtime_period().filter(|period| *period != 0);
    match groups.at("cpu", "cpu") {
        At::V1(dir) => {
            if let Some(period) = realtime_period {
                out.must(dir, "cpu.rt_period_us", period);
            }
            if let Some(runtime) = runtime {
                out.must(dir, "cpu.rt_runtime_us", runtime);
            }
            if let Some(shares) = shares {
                out.must(dir, "cpu.shares", shares);
            }
            if let Some(period) = period {
                // A shorter period may be refused as long as the old quota is there.
                if quota.is_some() {
                    out.may(dir, "cpu.cfs_period_us", period);
                } else {
                    out.must(dir, "cpu.cfs_period_us", period);
                }
            }
            if let Some(quota) = quota {
                out.must(dir, "cpu.cfs_quota_us", quota);
                if let Some(period) = period {
                    out.must(dir, "cpu.cfs_period_us", period);
                }
            }
            if let Some(burst) = cpu.burst() {
                out.must(dir, "cpu.cfs_burst_us", burst);
            }
            if let Some(idle) = cpu.idle() {
                out.must(dir, "cpu.idle", idle);
            }
        }
        At::V2(dir) => {
            if let Some(shares) = shares {
                out.must(dir, "cpu.weight", cpu_weight(shares));
            }
            if quota.is_some() || period.is_some() {
                let quota = quota.and_then(|quota| u64::try_from(quota).ok());
                let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                out.must(dir, "cpu.max", format!("{quota} {}", period.unwrap_or(100_000)));
            }
            if let Some(burst) = cpu.burst() {
                out.must(dir, "cpu.max.burst", burst);
            }
            if let Some(idle) = cpu.idle() {
                out.must(dir, "cpu.idle", idle);
            }
        }
        At::Nowhere if shares.is_some() || quota.is_some() || runtime.is_some() => {
            return Err(nowhere("cpu"));
        }
        At::Nowhere => {}
    }
    Ok(())
}

fn cpuset(groups: &Groups<'_>, cpu: &LinuxCpu, out: &mut Writes) -> Outcome<()> {
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        let Some(value) = value.as_deref().filter(|value| !value.is_empty()) else { continue };
        match groups.at("cpuset", "cpuset") {
            At::V1(dir) | At::V2(dir) => out.must(dir, file, value),
            At::Nowhere => return Err(nowhere("cpuset")),
        }
    }
    Ok(())
}

fn memory(groups: &Groups<'_>, memory: &LinuxMemory, out: &mut Writes) -> Outcome<()> {
    let limit = limited(memory.limit());
    let mut swap = limited(memory.swap());
    if limit == Some(Err(Unlimited)) && swap.is_none() {
        swap = Some(Err(Unlimited));
    }
    if let (Some(Ok(limit)), Some(Ok(swap))) = (limit, swap)
        && swap < limit
    {
        return Err(Failure::new("linux.resources.memory.swap: memory+swap limit should be >= memory limit"));
    }
    let v1_text = |value: Result<u64, Unlimited>| match value {
        Ok(bytes) => host_memory(bytes).to_string(),
        Err(Unlimited) => "-1".to_owned(),
    };
    match groups.at("memory", "memory") {
        At::V1(dir) => {
            let (limit_text, swap_text) = (limit.map(v1_text), swap.map(v1_text));
            // The kernel wants memory <= memory+swap after each step.
            let now = std::fs::read_to_string(dir.join("memory.memsw.limit_in_bytes")).ok();
            let now = now.and_then(|text| text.trim().parse::<u64>().ok());
            let first = match (limit, swap, now) {
                (Some(_), Some(Err(Unlimited)), _) => true,
                (Some(Ok(limit)), Some(Ok(_)), Some(now)) => now < host_memory(limit),
                _ => false,
            };
            let memsw = |out: &mut Writes| {
                if let Some(text) = &swap_text {
                    // A kernel without swap accounting has no such file.
                    if now.is_some() {
                        out.must(dir, "memory.memsw.limit_in_bytes", text);
                    }
                }
            };
            if first {
                memsw(out);
            }
            if let Some(text) = &limit_text {
                out.must(dir, "memory.limit_in_bytes", text);
            }
            if !first {
                memsw(out);
            }
            if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
                out.must(dir, "memory.soft_limit_in_bytes", reservation);
            }
            if let Some(bytes) = memory.kernel_tcp().filter(|value| *value != 0) {
                out.must(dir, "memory.kmem.tcp.limit_in_bytes", bytes);
            }
            if memory.disable_oom_killer() == Some(true) {
                out.must(dir, "memory.oom_control", 1);
            }
            match memory.swappiness() {
                Some(value @ 0..=100) => out.must(dir, "memory.swappiness", value),
                Some(value) => {
                    return Err(Failure::new(format!(
                        "linux.resources.memory.swappiness: invalid value: {value}. valid memory swappiness range is 0-100"
                    )));
                }
                None => {}
            }
        }
        At::V2(dir) => {
            let swap_text = match (swap, limit) {
                (None, _) => None,
                (Some(Err(Unlimited)), _) => Some("max".to_owned()),
                (Some(Ok(swap)), Some(Ok(limit))) => Some(swap.saturating_sub(limit).to_string()),
                (Some(Ok(_)), _) => {
                    return Err(Failure::new(
                        "linux.resources.memory.swap: unable to set swap limit without memory limit",
                    ));
                }
            };
            if let Some(text) = swap_text {
                out.may(dir, "memory.swap.max", text);
            }
            match limit {
                Some(Ok(bytes)) => out.must(dir, "memory.max", host_memory(bytes)),
                Some(Err(Unlimited)) => out.must(dir, "memory.max", "max"),
                None => {}
            }
            match limited(memory.reservation()) {
                Some(Ok(bytes)) => out.must(dir, "memory.low", bytes),
                Some(Err(Unlimited)) => out.must(dir, "memory.low", "max"),
                None => {}
            }
        }
        // The guest's kernel enforces it.
        At::Nowhere => {}
    }
    Ok(())
}

fn block_io(groups: &Groups<'_>, io: &LinuxBlockIo, out: &mut Writes) -> Outcome<()> {
    let weight = io.weight().filter(|weight| *weight != 0);
    let devices = io.weight_device().as_deref().unwrap_or_default();
    let throttles = [
        (io.throttle_read_bps_device(), "blkio.throttle.read_bps_device", "rbps"),
        (io.throttle_write_bps_device(), "blkio.throttle.write_bps_device", "wbps"),
        (io.throttle_read_iops_device(), "blkio.throttle.read_iops_device", "riops"),
        (io.throttle_write_iops_device(), "blkio.throttle.write_iops_device", "wiops"),
    ];
    match groups.at("blkio", "io") {
        At::V1(dir) => {
            let bfq = !dir.join("blkio.weight").exists() && dir.join("blkio.bfq.weight").exists();
            let stem = if bfq { "blkio.bfq.weight" } else { "blkio.weight" };
            if let Some(weight) = weight {
                out.must(dir, stem, weight);
            }
            if let Some(leaf) = io.leaf_weight().filter(|weight| *weight != 0) {
                out.must(dir, "blkio.leaf_weight", leaf);
            }
            for device in devices {
                let at = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
                if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
                    out.must(dir, &format!("{stem}_device"), at(weight));
                }
                if let Some(leaf) = device.leaf_weight().filter(|weight| *weight != 0) {
                    out.must(dir, "blkio.leaf_weight_device", at(leaf));
                }
            }
            for (list, file, _) in throttles {
                for device in list.iter().flatten() {
                    out.must(dir, file, format!("{}:{} {}", device.major(), device.minor(), device.rate()));
                }
            }
        }
        At::V2(dir) => {
            let bfq = dir.join("io.bfq.weight").exists();
            match weight {
                Some(weight) if bfq => out.must(dir, "io.bfq.weight", weight),
                Some(weight) => out.must(dir, "io.weight", io_weight(weight)),
                None => {}
            }
            for device in devices.iter().filter(|_| bfq) {
                if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
                    let text = format!("{}:{} {weight}", device.major(), device.minor());
                    out.must(dir, "io.bfq.weight", text);
                }
            }
            for (list, _, key) in throttles {
                for device in list.iter().flatten() {
                    let text = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
                    out.must(dir, "io.max", text);
                }
            }
        }
        At::Nowhere => {
            if weight.is_some()
                || throttles.iter().any(|(list, ..)| list.as_ref().is_some_and(|l| !l.is_empty()))
            {
                return Err(nowhere("blkio"));
            }
        }
    }
    Ok(())
}

fn huge_pages(groups: &Groups<'_>, resources: &LinuxResources, out: &mut Writes) -> Outcome<()> {
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        if size.is_empty() || !size.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(Failure::new(format!(
                "linux.resources.hugepageLimits.pageSize: {size:?} is not like 2MB"
            )));
        }
        let bytes = limit.limit();
        match groups.at("hugetlb", "hugetlb") {
            At::V1(dir) => {
                out.must(dir, &format!("hugetlb.{size}.limit_in_bytes"), bytes);
                out.may(dir, &format!("hugetlb.{size}.rsvd.limit_in_bytes"), bytes);
            }
            At::V2(dir) => {
                out.must(dir, &format!("hugetlb.{size}.max"), bytes);
                out.may(dir, &format!("hugetlb.{size}.rsvd.max"), bytes);
            }
            At::Nowhere => return Err(nowhere("hugetlb")),
        }
    }
    Ok(())
}

/// Devices that runc allows whatever the bundle says.
const ALWAYS_ALLOWED: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 10:200 rwm",
    "c 136:* rwm",
];

/// v1 has the rules in files. No process of a sandbox can open a device of the host whatever they say: the
/// gofer's mounts are `nodev`, the guest's devices are its kernel's. So a host that refuses them loses
/// nothing, and v2, where they would be a BPF program, needs none.
fn devices(groups: &Groups<'_>, rules: &[LinuxDeviceCgroup], out: &mut Writes) {
    let Some(dir) = groups.v1("devices") else { return };
    out.may(dir, "devices.deny", "a");
    for rule in rules {
        let part = |number: Option<i64>| match number {
            Some(number @ 0..) => number.to_string(),
            _ => "*".to_owned(),
        };
        let typ = rule.typ();
        let kind = typ.as_ref().map_or("a", |typ| typ.as_str());
        let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
        let line = match kind {
            "a" => "a".to_owned(),
            "u" => format!("c {}:{} {access}", part(rule.major()), part(rule.minor())),
            kind => format!("{kind} {}:{} {access}", part(rule.major()), part(rule.minor())),
        };
        out.may(dir, if rule.allow() { "devices.allow" } else { "devices.deny" }, line);
    }
    for line in ALWAYS_ALLOWED {
        out.may(dir, "devices.allow", line);
    }
}

fn rest(groups: &Groups<'_>, resources: &LinuxResources, out: &mut Writes) -> Outcome<()> {
    if let Some(network) = resources.network() {
        if let (Some(class), Some(dir)) = (network.class_id().filter(|id| *id != 0), groups.v1("net_cls")) {
            out.must(dir, "net_cls.classid", class);
        }
        for priority in network.priorities().iter().flatten() {
            if let Some(dir) = groups.v1("net_prio") {
                out.must(dir, "net_prio.ifpriomap", format!("{} {}", priority.name(), priority.priority()));
            }
        }
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let part = |value: Option<u32>| value.map_or_else(|| "max".to_owned(), |value| value.to_string());
        let line = format!(
            "{device} hca_handle={} hca_object={}",
            part(limit.hca_handles()),
            part(limit.hca_objects())
        );
        match groups.at("rdma", "rdma") {
            At::V1(dir) | At::V2(dir) => out.must(dir, "rdma.max", line),
            At::Nowhere => return Err(nowhere("rdma")),
        }
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (name, value) in unified {
        if name.contains('/') || name == ".." {
            return Err(Failure::new(format!(
                "linux.resources.unified: unified resource {name:?} must be a file name (no slashes)"
            )));
        }
        let Some(dir) = groups.v2() else {
            return Err(Failure::new("linux.resources.unified: cannot use unified on cgroup v1"));
        };
        if !dir.join(name).exists() {
            let controller = name.split('.').next().unwrap_or_default();
            return Err(Failure::new(format!(
                "linux.resources.unified: unified resource {name:?} can't be set: controller {controller:?} not available"
            )));
        }
        match (name.as_str(), value.trim().parse::<u64>()) {
            ("memory.max", Ok(bytes)) => out.must(dir, name, host_memory(bytes)),
            ("pids.max", Ok(tasks)) => out.must(dir, name, host_pids(tasks)),
            _ => out.must(dir, name, value),
        }
    }
    Ok(())
}
