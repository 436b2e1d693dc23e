//! `update`.

use crate::cli::{Global, Update};
use crate::container::{Status, Store};
use crate::error::{Doing, Failure, Outcome};
use crate::sandbox::launch::{allowed_cpus, connect};
use crate::spec::convert::limits;
use crate::spec::load::parse;
use ::sentry::control::message::{Ask, ErrorKind};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use std::io::Read;
use std::path::Path;

/// `update`: the host's cgroup, the guest's own, and the record. What fails leaves all three as they were.
pub(super) fn update(global: &Global, args: &Update) -> Outcome<u8> {
    let store = Store::open(global)?;
    let (held, mut record) = store.load(&args.id)?;
    if record.status() == Status::Stopped {
        return Err(Failure::new(format!("container not running: {:?} has stopped", args.id)));
    }
    if args.l3_cache_schema.is_some() || args.mem_bw_schema.is_some() {
        return Err(Failure::new(
            "update: Intel RDT is not supported: a sandbox has no resource group of its own",
        ));
    }
    let change = match &args.resources {
        Some(path) => from_file(path)?,
        None => from_flags(args)?,
    };
    let before = record.resources.clone().unwrap_or_default();
    let after = merged(&before, &change);
    if let Some(cgroup) = &record.cgroup {
        cgroup.update(&change)?;
    }
    let mut limits = limits(&after);
    limits.cpus = record.monitor.and_then(|monitor| allowed_cpus(Some(monitor.pid)));
    let order = Ask::Update { container: args.id.clone(), limits };
    match connect(&store.socket(&record.sandbox)).map(|mut client| client.order(order)) {
        // The host's cgroup enforces them.
        Ok(Err(error)) if error.kind == ErrorKind::Unsupported && record.cgroup.is_some() => {
            crate::log::warn(global, "update: limits were set on the host's cgroup only");
        }
        Ok(Ok(())) => {}
        failed => {
            if let Some(cgroup) = &record.cgroup {
                // As good as it gets: what was limited before is again.
                let _ = cgroup.update(&before);
            }
            failed??;
        }
    }
    record.resources = Some(after);
    held.write(&record)?;
    Ok(0)
}

fn from_file(path: &Path) -> Outcome<LinuxResources> {
    let mut text = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut text).doing(|| "--resources -")?;
        return parse(&text, Path::new("--resources"));
    }
    text = std::fs::read(path).doing(|| format!("--resources {}", path.display()))?;
    parse(&text, path)
}

fn from_flags(args: &Update) -> Outcome<LinuxResources> {
    let size = |name: &str, text: &Option<String>| {
        text.as_deref().map(|text| bytes(text).ok_or_else(|| invalid(name, text))).transpose()
    };
    let mut resources = LinuxResources::default();
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(size("memory", &args.memory)?)
        .set_reservation(size("memory-reservation", &args.memory_reservation)?)
        .set_swap(size("memory-swap", &args.memory_swap)?)
        .set_kernel_tcp(size("kernel-memory-tcp", &args.kernel_memory_tcp)?);
    size("kernel-memory", &args.kernel_memory)?;
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(args.cpu_share)
        .set_quota(args.cpu_quota)
        .set_period(args.cpu_period)
        .set_burst(args.cpu_burst)
        .set_realtime_runtime(args.cpu_rt_runtime)
        .set_realtime_period(args.cpu_rt_period)
        .set_idle(args.cpu_idle)
        .set_cpus(args.cpuset_cpus.clone())
        .set_mems(args.cpuset_mems.clone());
    let io = args.blkio_weight.map(|weight| {
        let mut io = LinuxBlockIo::default();
        io.set_weight(Some(weight));
        io
    });
    let pids = args.pids_limit.map(|limit| {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        pids
    });
    resources.set_memory(Some(memory)).set_cpu(Some(cpu)).set_block_io(io).set_pids(pids);
    Ok(resources)
}

fn invalid(flag: &str, text: &str) -> Failure {
    Failure::new(format!("invalid value for {flag}: {text:?} is not a number of bytes"))
}

/// `-1`, `1048576`, `64k`, `64M`, `64mb`, `1GiB`, `1.5g`.
fn bytes(text: &str) -> Option<i64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '-' && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().trim_end_matches("ib").trim_end_matches('b');
    let shift = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let scale = 1_i64 << shift;
    match number.split_once('.') {
        None => number.parse::<i64>().ok()?.checked_mul(scale),
        Some((whole, part)) => {
            let (whole, digits): (i64, u32) = (whole.parse().ok()?, u32::try_from(part.len()).ok()?);
            let part = part.parse::<i64>().ok()?.checked_mul(scale)? / 10_i64.checked_pow(digits)?;
            whole.checked_mul(scale)?.checked_add(part)
        }
    }
}

/// `change` laid over `before`; fields that are absent, zero or empty stay.
fn merged(before: &LinuxResources, change: &LinuxResources) -> LinuxResources {
    let as_value = |resources: &LinuxResources| serde_json::to_value(resources).unwrap_or_default();
    let mut value = as_value(before);
    lay_over(&mut value, &as_value(change));
    serde_json::from_value(value).unwrap_or_else(|_| before.clone())
}

fn lay_over(below: &mut serde_json::Value, above: &serde_json::Value) {
    use serde_json::Value;
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                lay_over(below.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (below, above) => {
            let empty = above.as_i64() == Some(0)
                || above.as_str() == Some("")
                || above.as_array().is_some_and(Vec::is_empty);
            if !empty || below.is_null() {
                *below = above.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, merged};
    use oci_spec::runtime::LinuxResources;
    use serde_json::json;

    #[test]
    fn sizes_as_people_write_them() {
        assert_eq!(bytes("-1"), Some(-1));
        assert_eq!(bytes("1048576"), Some(1 << 20));
        assert_eq!(bytes("64M"), Some(64 << 20));
        assert_eq!(bytes("64mb"), Some(64 << 20));
        assert_eq!(bytes("1GiB"), Some(1 << 30));
        assert_eq!(bytes("1.5g"), Some(3 << 29));
        assert_eq!(bytes("64x"), None);
        assert_eq!(bytes("lots"), None);
    }

    #[test]
    fn what_is_not_named_stays() {
        let read = |value| serde_json::from_value::<LinuxResources>(value).unwrap();
        let before =
            read(json!({"memory": {"limit": 100, "swap": 200}, "cpu": {"cpus": "0"}, "pids": {"limit": 5}}));
        let change = read(json!({"memory": {"limit": 0, "swap": 300}, "cpu": {"cpus": "", "shares": 7}}));
        let want = json!({"memory": {"limit": 100, "swap": 300}, "cpu": {"cpus": "0", "shares": 7}, "pids": {"limit": 5}});
        assert_eq!(merged(&before, &change), read(want));
    }
}
