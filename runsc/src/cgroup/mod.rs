//! The host's cgroups of a container: v1, v2 and the hybrid of both, through cgroupfs.
//!
//! `linux.cgroupsPath` is `/parent/ID`, or `slice:prefix:ID` where a caller thinks of systemd; the latter is
//! laid out the way systemd would, without asking it. The processes of the sandbox (monitor, gofer, sentry
//! and stubs) are all in the cgroup: its limits bound what the guest can make the host spend.

use crate::cli::Global;
use crate::error::{Doing, Failure, Outcome};
use crate::spec::Plan;
use oci_spec::runtime::LinuxResources;
use sentry::control::spec::Limits;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Controllers of v1 that we join when they are mounted.
const V1: [&str; 11] = [
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "net_cls", "net_prio",
    "systemd",
];

/// Tasks of ours beside the guest's: host threads and stub threads are two for each of the guest's.
const OWN_TASKS: u64 = 64;

/// Bytes of ours beside the guest's.
const OWN_MEMORY: u64 = 64 << 20;

/// One directory of a hierarchy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Group {
    /// v1 controllers that are mounted there (`cpu`, `cpu,cpuacct`, `name=systemd`), or empty for v2.
    controllers: Vec<String>,
    /// Absolute path.
    path: PathBuf,
    /// Mount point of the hierarchy.
    mount: PathBuf,
}

/// The cgroups of one container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Membership {
    groups: Vec<Group>,
}

impl Membership {
    /// Makes the directories and sets the limits. `None` when the bundle names no cgroup.
    pub(crate) fn create(global: &Global, plan: &Plan) -> Outcome<Option<Membership>> {
        let Some(path) = plan.cgroups_path.as_deref().filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(None);
        };
        if global.ignore_cgroups || !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let relative = relative(path, global.systemd_cgroup)?;
        let mut membership = Membership { groups: Vec::new() };
        let made = membership.make(&relative).and_then(|()| membership.limit(plan.resources.as_ref()));
        match made {
            Ok(()) => Ok(Some(membership)),
            Err(failure) => {
                membership.remove();
                Err(failure)
            }
        }
    }

    fn make(&mut self, relative: &Path) -> Outcome<()> {
        for (mount, controllers) in hierarchies() {
            let path = mount.join(relative);
            std::fs::create_dir_all(&path).doing(|| path.display())?;
            if controllers.iter().any(|name| name == "cpuset") {
                inherit_cpuset(&mount, relative)?;
            }
            if controllers.is_empty() {
                enable_controllers(&mount, relative);
            }
            self.groups.push(Group { controllers, path, mount });
        }
        Ok(())
    }

    fn group(&self, controller: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.controllers.iter().any(|name| name == controller))
    }

    fn unified(&self) -> Option<&Group> {
        self.groups.iter().find(|group| group.controllers.is_empty())
    }

    fn limit(&self, resources: Option<&LinuxResources>) -> Outcome<()> {
        let Some(resources) = resources else { return Ok(()) };
        self.apply(&crate::spec::convert::limits(resources))?;
        for (name, value) in resources.unified().iter().flatten() {
            if name.contains('/') {
                return Err(Failure::new(format!("linux.resources.unified: {name:?} is not a file's name")));
            }
            if let Some(group) = self.unified() {
                write(&group.path.join(name), value)?;
            }
        }
        let cpu = resources.cpu().as_ref();
        if let (Some(shares), Some(group)) =
            (cpu.and_then(|cpu| cpu.shares()).filter(|n| *n > 0), self.group("cpu"))
        {
            // Not by way of a v2 weight, which rounds.
            write(&group.path.join("cpu.shares"), &shares.to_string())?;
        }
        for (file, value) in [
            ("cpuset.cpus", cpu.and_then(|c| c.cpus().as_ref())),
            ("cpuset.mems", cpu.and_then(|c| c.mems().as_ref())),
        ] {
            if let (Some(value), Some(group)) =
                (value.filter(|v| !v.is_empty()), self.group("cpuset").or_else(|| self.unified()))
            {
                write(&group.path.join(file), value)?;
            }
        }
        Ok(())
    }

    /// Sets limits; what the host has no controller for is enforced by the guest's kernel alone.
    pub(crate) fn apply(&self, limits: &Limits) -> Outcome<()> {
        if let Some(bytes) = limits.memory_max {
            let bytes = bytes.saturating_add(OWN_MEMORY).to_string();
            self.set("memory", "memory.limit_in_bytes", "memory.max", &bytes)?;
        }
        if let Some(tasks) = limits.pids_max {
            let tasks = tasks.saturating_mul(2).saturating_add(OWN_TASKS).to_string();
            self.set("pids", "pids.max", "pids.max", &tasks)?;
        }
        let period = limits.cpu_period_us.unwrap_or(100_000);
        if let Some(group) = self.group("cpu") {
            if limits.cpu_period_us.is_some() {
                write(&group.path.join("cpu.cfs_period_us"), &period.to_string())?;
            }
            if let Some(quota) = limits.cpu_quota_us {
                write(&group.path.join("cpu.cfs_quota_us"), &quota.to_string())?;
            }
            if let Some(weight) = limits.cpu_weight {
                let shares = 2 + (weight.clamp(1, 10_000) - 1) * 262_142 / 9_999;
                write(&group.path.join("cpu.shares"), &shares.to_string())?;
            }
        } else if let Some(group) = self.unified() {
            if let Some(quota) = limits.cpu_quota_us {
                write_if_there(&group.path.join("cpu.max"), &format!("{quota} {period}"))?;
            }
            if let Some(weight) = limits.cpu_weight {
                write_if_there(&group.path.join("cpu.weight"), &weight.to_string())?;
            }
        }
        Ok(())
    }

    fn set(&self, controller: &str, v1: &str, v2: &str, value: &str) -> Outcome<()> {
        match (self.group(controller), self.unified()) {
            (Some(group), _) => write(&group.path.join(v1), value),
            (None, Some(group)) => write_if_there(&group.path.join(v2), value),
            (None, None) => Ok(()),
        }
    }

    /// Puts the calling process into the cgroups.
    pub(crate) fn join(&self) -> Outcome<()> {
        self.groups.iter().try_for_each(|group| write(&group.path.join("cgroup.procs"), "0"))
    }

    /// Removes the directories, and parents that only we made and nobody else uses.
    pub(crate) fn remove(&self) {
        for group in &self.groups {
            let mut path = group.path.as_path();
            if !gone(path) {
                continue;
            }
            while let Some(parent) = path.parent() {
                if parent == group.mount || std::fs::remove_dir(parent).is_err() {
                    break;
                }
                path = parent;
            }
        }
    }
}

/// Removes a cgroup; one whose last process has just ended is busy for a moment.
fn gone(path: &Path) -> bool {
    for _ in 0..50 {
        match std::fs::remove_dir(path) {
            Ok(()) => return true,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            Err(_) => return false,
        }
    }
    false
}

/// The path below each hierarchy's mount.
fn relative(path: &Path, systemd: bool) -> Outcome<PathBuf> {
    let text = path.to_str().ok_or_else(|| Failure::new("linux.cgroupsPath: not UTF-8"))?;
    if text.split('/').any(|part| part == "..") {
        return Err(Failure::new(format!("linux.cgroupsPath: {text:?} has a .. in it")));
    }
    let mut parts = text.split(':');
    if let (Some(slice), Some(prefix), Some(name), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
        && (systemd || !text.starts_with('/'))
    {
        let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        return Ok(slice_path(slice).join(unit));
    }
    Ok(PathBuf::from(text.trim_start_matches('/')))
}

/// `a-b.slice` lies in `a.slice/a-b.slice`.
fn slice_path(slice: &str) -> PathBuf {
    let name = slice.strip_suffix(".slice").unwrap_or(slice);
    let mut path = PathBuf::new();
    let mut prefix = String::new();
    for part in name.split('-').filter(|part| !part.is_empty()) {
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
    }
    path
}

/// Mounted hierarchies: mount point and v1 controllers (none: v2).
fn hierarchies() -> Vec<(PathBuf, Vec<String>)> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(mount) = left.split(' ').nth(4).filter(|mount| mount.starts_with(ROOT)) else { continue };
        let mut right = right.split(' ');
        match (right.next(), right.nth(1)) {
            (Some("cgroup2"), _) => found.push((PathBuf::from(mount), Vec::new())),
            (Some("cgroup"), Some(options)) => {
                let names = options.split(',').map(|name| name.strip_prefix("name=").unwrap_or(name));
                let names: Vec<String> = names.filter(|name| V1.contains(name)).map(str::to_owned).collect();
                if !names.is_empty() {
                    found.push((PathBuf::from(mount), names));
                }
            }
            _ => {}
        }
    }
    found
}

/// A fresh v1 cpuset admits nobody: it takes over its parent's processors and memory nodes.
fn inherit_cpuset(mount: &Path, relative: &Path) -> Outcome<()> {
    let mut parent = mount.to_owned();
    for part in relative.components() {
        let child = parent.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let have = std::fs::read_to_string(child.join(file)).unwrap_or_default();
            if have.trim().is_empty() {
                let value = std::fs::read_to_string(parent.join(file)).unwrap_or_default();
                write(&child.join(file), value.trim())?;
            }
        }
        parent = child;
    }
    Ok(())
}

/// v2: what a parent has, its children may have too. A parent with processes of its own refuses; then the
/// limits are the guest kernel's alone.
fn enable_controllers(mount: &Path, relative: &Path) {
    let mut parent = mount.to_owned();
    for part in relative.components() {
        let have = std::fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
        for name in have.split_ascii_whitespace() {
            let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{name}"));
        }
        parent.push(part);
    }
}

fn write(path: &Path, value: &str) -> Outcome<()> {
    std::fs::write(path, value).doing(|| format!("{}: writing {value:?}", path.display()))
}

fn write_if_there(path: &Path, value: &str) -> Outcome<()> {
    if path.exists() { write(path, value) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::{relative, slice_path};
    use std::path::Path;

    #[test]
    fn paths_of_systemd_and_cgroupfs() {
        assert_eq!(relative(Path::new("/a/b"), false).unwrap(), Path::new("a/b"));
        let systemd = relative(Path::new("kube-pod1.slice:cri:abc"), true).unwrap();
        assert_eq!(systemd, Path::new("kube.slice/kube-pod1.slice/cri-abc.scope"));
        assert!(relative(Path::new("/a/../b"), false).is_err());
        assert_eq!(slice_path("system.slice"), Path::new("system.slice"));
    }
}
