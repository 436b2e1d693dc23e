//! What a daemon and its containers may leave on the machine, and how it is found: everything of a daemon carries
//! its folder or its name.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tests::processes::{all, words};

/// Hierarchies of cgroup v1 and v2.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Things that are still there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Left {
    /// Processes other than the daemon: pid and command line.
    pub processes: Vec<(i32, String)>,
    /// Mount points.
    pub mounts: Vec<String>,
    /// Cgroups below the daemon's.
    pub cgroups: Vec<PathBuf>,
    /// Entries of the runtimes' state directories.
    pub states: Vec<PathBuf>,
    /// Interfaces on the bridge.
    pub links: Vec<String>,
    /// Rules of netfilter's nat table that carry the network's name.
    pub rules: Vec<String>,
}

impl Left {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Left::default()
    }
}

/// Looks for what containers left. `daemon`: its pid is no leftover.
#[must_use]
pub fn find(dir: &Path, name: &str) -> Left {
    Left {
        processes: processes(dir),
        mounts: mounts(dir),
        cgroups: cgroups(name),
        states: states(dir),
        links: links(name),
        rules: rules(name),
    }
}

/// Processes whose command line or environment of mounts names `dir`: shims and runtimes of the daemon.
fn processes(dir: &Path) -> Vec<(i32, String)> {
    let needle = dir.display().to_string();
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut found = Vec::new();
    for pid in all() {
        let (words, pid) = (words(pid), i32::try_from(pid).unwrap_or(0));
        if pid != own && words.contains(&needle) && !words.starts_with("containerd ") {
            found.push((pid, words));
        }
    }
    found
}

fn mounts(dir: &Path) -> Vec<String> {
    let needle = dir.display().to_string();
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.starts_with(&needle)).map(str::to_owned).collect()
}

/// Cgroups called `name` or below such a one.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let roots = fs::read_dir(CGROUPS).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut roots: Vec<PathBuf> = roots.unwrap_or_default();
    roots.push(PathBuf::from(CGROUPS));
    for root in roots {
        below(&root.join(name), &mut found);
    }
    found.sort();
    found.dedup();
    found
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    if !dir.is_dir() {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&entry.path(), found);
        }
    }
    found.push(dir.to_path_buf());
}

fn states(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for runtime in ["ours", "runc"] {
        for namespace in ["k8s.io", "default"] {
            let folder = dir.join("runtimes").join(runtime).join(namespace);
            found.extend(fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    found
}

fn links(bridge: &str) -> Vec<String> {
    let folder = Path::new("/sys/class/net").join(bridge).join("brif");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// As iptables-save(8) writes them.
fn rules(network: &str) -> Vec<String> {
    let saved = Command::new("iptables-save").args(["-t", "nat"]).stderr(Stdio::null()).output();
    let text = saved.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    // The plugins comment every rule with `name: "NETWORK" id: "CONTAINER"`.
    let needle = format!("\\\"{network}\\\"");
    text.lines().filter(|line| line.starts_with("-A ") && line.contains(&needle)).map(str::to_owned).collect()
}

/// Removes rules, and the chains that they led to.
fn remove_rules(rules: &[String]) {
    if rules.is_empty() {
        return;
    }
    let mut script = String::from("*nat\n");
    for rule in rules {
        script.push_str(&rule.replacen("-A ", "-D ", 1));
        script.push('\n');
    }
    let target = |rule: &String| {
        let chain = rule.split(" -j ").nth(1)?.split(' ').next()?.to_owned();
        (chain.starts_with("CNI-") && !chain.starts_with("CNI-HOSTPORT")).then_some(chain)
    };
    let mut chains: Vec<String> = rules.iter().filter_map(target).collect();
    chains.sort();
    chains.dedup();
    for verb in ["-F", "-X"] {
        chains.iter().for_each(|chain| script.push_str(&format!("{verb} {chain}\n")));
    }
    script.push_str("COMMIT\n");
    let restore =
        Command::new("iptables-restore").args(["--noflush", "--wait"]).stdin(Stdio::piped()).spawn();
    if let Ok(mut restore) = restore {
        if let Some(mut input) = restore.stdin.take() {
            let _ = input.write_all(script.as_bytes());
        }
        let _ = restore.wait();
    }
}

/// Ends and removes whatever a failed test left.
pub fn sweep(dir: &Path, name: &str) {
    for (pid, _) in processes(dir) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    for cgroup in cgroups(name) {
        let procs = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in procs.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    for point in mounts(dir).iter().rev() {
        let _ = Command::new("umount").args(["--lazy", point]).stderr(Stdio::null()).status();
    }
    let _ = crate::daemon::eventually(std::time::Duration::from_secs(5), || {
        let left = cgroups(name);
        left.iter().for_each(|path| drop(fs::remove_dir(path)));
        left.is_empty().then_some(())
    });
    remove_rules(&rules(name));
    let _ = Command::new("ip").args(["link", "delete", name]).stderr(Stdio::null()).status();
}
