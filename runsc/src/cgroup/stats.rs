//! What a container's cgroups say it uses, in the shape of `runc events`.

use super::host::Group;
use super::limits::Groups;
use serde_json::{Map, Value, json};
use std::path::Path;

/// `data` of a stats event.
pub(super) fn read(groups: &[Group]) -> Value {
    let groups = Groups(groups);
    json!({
        "cpu": cpu(&groups),
        "cpuset": cpuset(&groups),
        "memory": memory(&groups),
        "pids": pids(&groups),
        "blkio": blkio(&groups),
        "hugetlb": hugetlb(&groups),
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn text(dir: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(dir.join(name)).ok()
}

/// A number; `max` is `u64::MAX`.
fn number(dir: &Path, name: &str) -> Option<u64> {
    match text(dir, name)?.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// `key value` lines.
fn table(dir: &Path, name: &str) -> Map<String, Value> {
    let text = text(dir, name).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(key, value)| Some((key.to_owned(), json!(value.trim().parse::<u64>().ok()?))))
        .collect()
}

fn get(table: &Map<String, Value>, key: &str) -> u64 {
    table.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// Leaves keys out that are zero, as runc does where a field is optional.
fn sparse(pairs: impl IntoIterator<Item = (&'static str, u64)>) -> Map<String, Value> {
    pairs
        .into_iter()
        .filter(|(_, value)| *value != 0)
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect()
}

fn numbers(text: Option<String>) -> Vec<u64> {
    text.unwrap_or_default().split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Nanoseconds of a clock tick, of which a second has 100 in these files.
const TICK_NS: u64 = 10_000_000;

fn cpu(groups: &Groups<'_>) -> Value {
    let mut usage = Map::new();
    let mut throttling = Map::new();
    if let Some(dir) = groups.v1("cpuacct") {
        usage.extend(sparse([("total", number(dir, "cpuacct.usage").unwrap_or(0))]));
        let per_cpu = numbers(text(dir, "cpuacct.usage_percpu"));
        if !per_cpu.is_empty() {
            usage.insert("percpu".into(), json!(per_cpu));
        }
        let all = text(dir, "cpuacct.usage_all").unwrap_or_default();
        let rows: Vec<Vec<u64>> = all.lines().skip(1).map(|line| numbers(Some(line.to_owned()))).collect();
        let column = |at: usize| -> Vec<u64> { rows.iter().filter_map(|row| row.get(at).copied()).collect() };
        if !rows.is_empty() {
            usage.insert("percpu_kernel".into(), json!(column(2)));
            usage.insert("percpu_user".into(), json!(column(1)));
        }
        let ticks = table(dir, "cpuacct.stat");
        usage.insert("kernel".into(), json!(get(&ticks, "system").saturating_mul(TICK_NS)));
        usage.insert("user".into(), json!(get(&ticks, "user").saturating_mul(TICK_NS)));
        let stat = groups.v1("cpu").map(|dir| table(dir, "cpu.stat")).unwrap_or_default();
        throttling = sparse([
            ("periods", get(&stat, "nr_periods")),
            ("throttledPeriods", get(&stat, "nr_throttled")),
            ("throttledTime", get(&stat, "throttled_time")),
        ]);
    } else if let Some(dir) = groups.v2() {
        let stat = table(dir, "cpu.stat");
        let ns = |key: &str| get(&stat, key).saturating_mul(1000);
        usage.extend(sparse([("total", ns("usage_usec"))]));
        usage.insert("kernel".into(), json!(ns("system_usec")));
        usage.insert("user".into(), json!(ns("user_usec")));
        throttling = sparse([
            ("periods", get(&stat, "nr_periods")),
            ("throttledPeriods", get(&stat, "nr_throttled")),
            ("throttledTime", ns("throttled_usec")),
        ]);
    }
    json!({ "usage": usage, "throttling": throttling })
}

/// `0-2,5` as a list.
fn list(text: &str) -> Vec<u64> {
    let mut found = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u64>(), last.parse::<u64>()) {
            found.extend((first..=last).take(65_536));
        }
    }
    found
}

fn cpuset(groups: &Groups<'_>) -> Value {
    let v1 = groups.v1("cpuset");
    let one = |name: &str| v1.and_then(|dir| number(dir, name)).unwrap_or(0);
    let level = v1.and_then(|dir| text(dir, "cpuset.sched_relax_domain_level"));
    let level: i64 = level.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let lists = |name: &str| {
        let effective = groups.v2().and_then(|dir| text(dir, &format!("{name}.effective")));
        v1.and_then(|dir| text(dir, name)).or(effective).map(|text| list(&text)).unwrap_or_default()
    };
    let mut set = Map::new();
    for (key, name) in [("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")] {
        let found = lists(name);
        if !found.is_empty() {
            set.insert(key.into(), json!(found));
        }
    }
    for (key, name) in [
        ("cpu_exclusive", "cpuset.cpu_exclusive"),
        ("mem_hardwall", "cpuset.mem_hardwall"),
        ("mem_exclusive", "cpuset.mem_exclusive"),
        ("memory_migrate", "cpuset.memory_migrate"),
        ("memory_spread_page", "cpuset.memory_spread_page"),
        ("memory_spread_slab", "cpuset.memory_spread_slab"),
        ("memory_pressure", "cpuset.memory_pressure"),
        ("sched_load_balance", "cpuset.sched_load_balance"),
    ] {
        set.insert(key.into(), json!(one(name)));
    }
    set.insert("sched_relax_domain_level".into(), json!(level));
    Value::Object(set)
}

fn memory(groups: &Groups<'_>) -> Value {
    if let Some(dir) = groups.v1("memory") {
        let entry = |stem: &str| {
            let of = |what: &str| number(dir, &format!("{stem}.{what}"));
            let mut entry = sparse([
                ("usage", of("usage_in_bytes").unwrap_or(0)),
                ("max", of("max_usage_in_bytes").unwrap_or(0)),
            ]);
            entry.insert("limit".into(), json!(of("limit_in_bytes").unwrap_or(0)));
            entry.insert("failcnt".into(), json!(of("failcnt").unwrap_or(0)));
            entry
        };
        let raw = table(dir, "memory.stat");
        let mut all = Map::new();
        if let cache @ 1.. = get(&raw, "cache") {
            all.insert("cache".into(), json!(cache));
        }
        all.insert("usage".into(), json!(entry("memory")));
        all.insert("swap".into(), json!(entry("memory.memsw")));
        all.insert("kernel".into(), json!(entry("memory.kmem")));
        all.insert("kernelTCP".into(), json!(entry("memory.kmem.tcp")));
        all.insert("raw".into(), Value::Object(raw));
        return Value::Object(all);
    }
    let Some(dir) = groups.v2() else { return json!({ "usage": { "limit": 0, "failcnt": 0 } }) };
    let raw = table(dir, "memory.stat");
    let entry = |stem: &str| {
        let current = number(dir, &format!("{stem}.current")).unwrap_or(0);
        let mut entry =
            sparse([("usage", current), ("max", number(dir, &format!("{stem}.peak")).unwrap_or(0))]);
        entry.insert("limit".into(), json!(number(dir, &format!("{stem}.max")).unwrap_or(0)));
        entry.insert("failcnt".into(), json!(0));
        entry
    };
    let mut all = Map::new();
    if let cache @ 1.. = get(&raw, "file") {
        all.insert("cache".into(), json!(cache));
    }
    all.insert("usage".into(), json!(entry("memory")));
    all.insert("swap".into(), json!(entry("memory.swap")));
    let none = json!({ "limit": 0, "failcnt": 0 });
    all.insert("kernel".into(), none.clone());
    all.insert("kernelTCP".into(), none);
    all.insert("raw".into(), Value::Object(raw));
    Value::Object(all)
}

fn pids(groups: &Groups<'_>) -> Value {
    let dir = groups.v1("pids").or_else(|| groups.v2());
    let of = |name: &str| dir.and_then(|dir| number(dir, name)).unwrap_or(0);
    let limit = match of("pids.max") {
        u64::MAX => 0,
        limit => limit,
    };
    json!(sparse([("current", of("pids.current")), ("limit", limit)]))
}

/// v1: files and the keys they become.
const BLKIO: [(&str, &str); 8] = [
    ("ioServiceBytesRecursive", "io_service_bytes_recursive"),
    ("ioServicedRecursive", "io_serviced_recursive"),
    ("ioQueueRecursive", "io_queued_recursive"),
    ("ioServiceTimeRecursive", "io_service_time_recursive"),
    ("ioWaitTimeRecursive", "io_wait_time_recursive"),
    ("ioMergedRecursive", "io_merged_recursive"),
    ("ioTimeRecursive", "time_recursive"),
    ("sectorsRecursive", "sectors_recursive"),
];

fn blkio_entry(device: &str, op: &str, value: u64) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u64, u64) = (major.parse().ok()?, minor.parse().ok()?);
    let mut entry = sparse([("major", major), ("minor", minor), ("value", value)]);
    if !op.is_empty() {
        entry.insert("op".into(), json!(op));
    }
    Some(Value::Object(entry))
}

fn blkio(groups: &Groups<'_>) -> Value {
    let mut all = Map::new();
    if let Some(dir) = groups.v1("blkio") {
        for (key, name) in BLKIO {
            // Who schedules decides which of the families counts; throttling counts always.
            let families = ["blkio.bfq.", "blkio.", "blkio.throttle."];
            let entries = families.iter().map(|family| {
                let text = text(dir, &format!("{family}{name}")).unwrap_or_default();
                let rows = text.lines().filter_map(|line| {
                    let words: Vec<&str> = line.split_ascii_whitespace().collect();
                    match words.as_slice() {
                        [device, op, value] => blkio_entry(device, op, value.parse().ok()?),
                        [device, value] => blkio_entry(device, "", value.parse().ok()?),
                        _ => None,
                    }
                });
                rows.collect::<Vec<Value>>()
            });
            if let Some(entries) = entries.into_iter().find(|entries| !entries.is_empty()) {
                all.insert(key.into(), json!(entries));
            }
        }
    } else if let Some(dir) = groups.v2() {
        let (mut bytes, mut operations) = (Vec::new(), Vec::new());
        for line in text(dir, "io.stat").unwrap_or_default().lines() {
            let Some((device, rest)) = line.split_once(' ') else { continue };
            for (key, value) in rest.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
                let Ok(value) = value.parse::<u64>() else { continue };
                match key {
                    "rbytes" => bytes.extend(blkio_entry(device, "Read", value)),
                    "wbytes" => bytes.extend(blkio_entry(device, "Write", value)),
                    "rios" => operations.extend(blkio_entry(device, "Read", value)),
                    "wios" => operations.extend(blkio_entry(device, "Write", value)),
                    _ => {}
                }
            }
        }
        for (key, entries) in [("ioServiceBytesRecursive", bytes), ("ioServicedRecursive", operations)] {
            if !entries.is_empty() {
                all.insert(key.into(), json!(entries));
            }
        }
    }
    Value::Object(all)
}

fn hugetlb(groups: &Groups<'_>) -> Value {
    let v1 = groups.v1("hugetlb");
    let Some(dir) = v1.or_else(|| groups.v2_with("hugetlb")) else { return json!({}) };
    let (usage, peak) = match v1 {
        Some(_) => ("usage_in_bytes", Some("max_usage_in_bytes")),
        None => ("current", None),
    };
    let mut all = Map::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let stem = name.strip_suffix(usage).and_then(|stem| stem.strip_suffix('.'));
        let Some(size) = stem.and_then(|stem| stem.strip_prefix("hugetlb.")) else { continue };
        if size.contains('.') {
            continue;
        }
        let of = |what: &str| number(dir, &format!("hugetlb.{size}.{what}")).unwrap_or(0);
        let failures = match v1 {
            Some(_) => of("failcnt"),
            None => get(&table(dir, &format!("hugetlb.{size}.events")), "max"),
        };
        let mut entry = sparse([("usage", of(usage)), ("max", peak.map_or(0, of))]);
        entry.insert("failcnt".into(), json!(failures));
        all.insert(size.to_owned(), Value::Object(entry));
    }
    Value::Object(all)
}
