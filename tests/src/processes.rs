//! Processes of a running sandbox, seen from the host.

use std::fs;

/// Every process with its parent.
#[must_use]
pub fn parents() -> Vec<(u32, u32)> {
    let parent = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    all().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

/// What a process was called with, blanks for NULs: its command line, then its environment. A monitor shows its
/// container's command line, so that who started it is found in the latter.
#[must_use]
pub fn words(pid: u32) -> String {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let words = [read("cmdline"), read("environ")].concat();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// Every process.
#[must_use]
pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// A process and everything below it.
#[must_use]
pub fn tree(root: u32) -> Vec<u32> {
    let parents = parents();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    found
}

/// Memory that these processes account for, in KiB: shared pages divided among those that share them.
#[must_use]
pub fn pss_kib(pids: &[u32]) -> u64 {
    let one = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    pids.iter().filter_map(one).sum()
}
