//! Where the host keeps its cgroups, and which directory of each hierarchy a container gets.

use crate::error::{Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};

/// Where cgroup file systems are looked for.
const ROOT: &str = "/sys/fs/cgroup";

/// Controllers of v1 that are joined when they are mounted.
const V1: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "rdma",
    "systemd",
];

/// One mounted hierarchy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// Controllers of v1 (`systemd` for `name=systemd`); none: v2.
    pub(super) controllers: Vec<String>,
    /// The calling process' own place below the mount.
    pub(super) own: PathBuf,
}

/// One directory of a hierarchy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Group {
    /// v1 controllers that are mounted there (`cpu`, `cpu,cpuacct`, `name=systemd`), or empty for v2.
    pub(super) controllers: Vec<String>,
    /// Absolute path.
    pub(super) path: PathBuf,
    /// Mount point of the hierarchy.
    pub(super) mount: PathBuf,
    /// Where the process that made it came from.
    #[serde(default)]
    pub(super) origin: PathBuf,
}

/// `linux.cgroupsPath`, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Below the mount point.
    Absolute(PathBuf),
    /// Below the caller's own cgroup.
    Relative(PathBuf),
}

/// The mounted hierarchies of this host.
pub(super) fn hierarchies() -> Vec<Hierarchy> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    parse(&table, &own)
}

/// From /proc/self/mountinfo and /proc/self/cgroup.
pub(super) fn parse(table: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut left = left.split(' ').skip(3);
        let (Some(root), Some(mount)) = (left.next(), left.next().filter(|at| at.starts_with(ROOT))) else {
            continue;
        };
        let mut right = right.split(' ');
        let controllers = match (right.next(), right.nth(1)) {
            (Some("cgroup2"), _) => Vec::new(),
            (Some("cgroup"), Some(options)) => {
                let names = options.split(',').map(|name| name.strip_prefix("name=").unwrap_or(name));
                let names: Vec<String> = names.filter(|name| V1.contains(name)).map(str::to_owned).collect();
                if names.is_empty() {
                    continue;
                }
                names
            }
            _ => continue,
        };
        if found.iter().any(|other| other.controllers == controllers) {
            continue;
        }
        let own = own_place(own, &controllers, Path::new(root));
        found.push(Hierarchy { mount: PathBuf::from(mount), controllers, own });
    }
    found
}

/// The caller's line of /proc/self/cgroup, relative to what is mounted.
fn own_place(own: &str, controllers: &[String], root: &Path) -> PathBuf {
    let line = own.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        let mut names = names.split(',').map(|name| name.strip_prefix("name=").unwrap_or(name));
        let same = match controllers.first() {
            None => names.next() == Some(""),
            Some(first) => names.any(|name| name == first),
        };
        same.then_some(path)
    });
    let path = Path::new(line.unwrap_or("/"));
    let below = path.strip_prefix(root).unwrap_or(Path::new(""));
    below.strip_prefix("/").unwrap_or(below).to_owned()
}

impl Hierarchy {
    /// The directory of a container.
    pub(super) fn group(&self, place: &Place) -> Group {
        let path = match place {
            Place::Absolute(path) => self.mount.join(path),
            // Of v2 the caller's own cgroup has the caller in it, so its children can have no limits.
            Place::Relative(path) if self.controllers.is_empty() => {
                self.mount.join(self.own.parent().unwrap_or(Path::new(""))).join(path)
            }
            Place::Relative(path) => self.mount.join(&self.own).join(path),
        };
        let origin = self.mount.join(&self.own);
        Group { controllers: self.controllers.clone(), path, mount: self.mount.clone(), origin }
    }
}

impl Group {
    /// The path below the mount.
    pub(super) fn below(&self) -> &Path {
        self.path.strip_prefix(&self.mount).unwrap_or(Path::new(""))
    }
    /// Whether it is of v2.
    pub(super) fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }
}

/// Who lays the cgroups out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Driver {
    /// Paths are directories.
    Cgroupfs,
    /// `--systemd-cgroup`: `slice:prefix:name`.
    Systemd,
}

/// Understands `linux.cgroupsPath`; without one a container is named after its id below the caller's cgroup.
pub(super) fn place(path: Option<&Path>, id: &str, driver: Driver) -> Outcome<Place> {
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(match driver {
            Driver::Cgroupfs => Place::Relative(PathBuf::from(id)),
            Driver::Systemd => Place::Absolute(unit("system.slice", "runsc", id)?),
        });
    };
    let text = path.to_str().ok_or_else(|| Failure::new("linux.cgroupsPath: not UTF-8"))?;
    // As runc has it, `..` leads no further up than the root of the hierarchy.
    let inside = crate::spec::mounts::inside(text);
    let cleaned = if text.starts_with('/') { inside.as_str() } else { inside.trim_start_matches('/') };
    let text = if path.components().any(|part| part == Component::ParentDir) { cleaned } else { text };
    let path = Path::new(text);
    let parts: Vec<&str> = text.split(':').collect();
    match (parts.as_slice(), driver) {
        ([slice, prefix, name], Driver::Systemd) => Ok(Place::Absolute(unit(slice, prefix, name)?)),
        // A caller that thinks of systemd while nobody said --systemd-cgroup.
        ([slice, prefix, name], Driver::Cgroupfs) if slice.ends_with(".slice") && !text.contains('/') => {
            Ok(Place::Absolute(unit(slice, prefix, name)?))
        }
        (_, Driver::Systemd) => Err(Failure::new(format!(
            "linux.cgroupsPath: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {text:?} instead"
        ))),
        _ if path.is_absolute() => Ok(Place::Absolute(
            path.components().filter(|part| matches!(part, Component::Normal(_))).collect(),
        )),
        _ => Ok(Place::Relative(path.to_owned())),
    }
}

/// Where systemd would put a unit.
fn unit(slice: &str, prefix: &str, name: &str) -> Outcome<PathBuf> {
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    if name.is_empty() || [slice, prefix, name].iter().any(|part| part.contains('/')) {
        return Err(Failure::new(format!("linux.cgroupsPath: \"{slice}:{prefix}:{name}\" names no unit")));
    }
    if name.ends_with(".slice") {
        return slice_path(name);
    }
    let unit = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    Ok(slice_path(slice)?.join(unit))
}

/// `a-b.slice` lies in `a.slice/a-b.slice`; `-.slice` is the root.
fn slice_path(slice: &str) -> Outcome<PathBuf> {
    let bad = || Failure::new(format!("linux.cgroupsPath: invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").filter(|name| !name.is_empty()).ok_or_else(bad)?;
    if name == "-" {
        return Ok(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut prefix = String::new();
    for part in name.split('-') {
        if part.is_empty() {
            return Err(bad());
        }
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::{Driver, Place, parse, place};
    use std::path::{Path, PathBuf};

    const TABLE: &str = "\
30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 /outer /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/systemd rw shared:3 - cgroup cgroup rw,xattr,name=systemd
35 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
36 23 0:32 / /elsewhere rw - cgroup cgroup rw,blkio
";
    const OWN: &str = "\
4:name=systemd:/init.scope
3:pids:/outer/mine
2:memory:/daemon
1:cpu,cpuacct:/
0::/init.scope/inner
";

    #[test]
    fn hierarchies_of_a_hybrid_host() {
        let found = parse(TABLE, OWN);
        let short: Vec<_> = found
            .iter()
            .map(|h| (h.mount.to_str().unwrap(), h.controllers.join(","), h.own.to_str().unwrap()))
            .collect();
        assert_eq!(
            short,
            [
                ("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct".to_owned(), ""),
                ("/sys/fs/cgroup/memory", "memory".to_owned(), "daemon"),
                ("/sys/fs/cgroup/pids", "pids".to_owned(), "mine"),
                ("/sys/fs/cgroup/systemd", "systemd".to_owned(), "init.scope"),
                ("/sys/fs/cgroup/unified", String::new(), "init.scope/inner"),
            ]
        );
        let at = |index: usize, place: &Place| found.get(index).unwrap().group(place).path;
        let absolute = Place::Absolute(PathBuf::from("pod/c1"));
        let relative = Place::Relative(PathBuf::from("c1"));
        assert_eq!(at(1, &absolute), Path::new("/sys/fs/cgroup/memory/pod/c1"));
        assert_eq!(at(1, &relative), Path::new("/sys/fs/cgroup/memory/daemon/c1"));
        assert_eq!(at(4, &relative), Path::new("/sys/fs/cgroup/unified/init.scope/c1"));
    }

    #[test]
    fn pure_v2_at_the_root() {
        let found = parse("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate", "0::/\n");
        assert_eq!(found.len(), 1);
        assert!(found.iter().all(|h| h.controllers.is_empty() && h.mount == Path::new("/sys/fs/cgroup")));
    }

    #[test]
    fn paths_as_callers_write_them() {
        let at = |text: &str, driver| place(Some(Path::new(text)), "c1", driver);
        let absolute = |text: &str| Place::Absolute(PathBuf::from(text));
        assert_eq!(at("/a/b", Driver::Cgroupfs).unwrap(), absolute("a/b"));
        assert_eq!(at("a/b", Driver::Cgroupfs).unwrap(), Place::Relative(PathBuf::from("a/b")));
        assert_eq!(place(None, "c1", Driver::Cgroupfs).unwrap(), Place::Relative(PathBuf::from("c1")));
        let pod = "kube.slice/kube-pod1.slice/cri-abc.scope";
        assert_eq!(at("kube-pod1.slice:cri:abc", Driver::Systemd).unwrap(), absolute(pod));
        assert_eq!(at("kube-pod1.slice:cri:abc", Driver::Cgroupfs).unwrap(), absolute(pod));
        assert_eq!(at(":docker:abc", Driver::Systemd).unwrap(), absolute("system.slice/docker-abc.scope"));
        assert_eq!(at("-.slice::abc", Driver::Systemd).unwrap(), absolute("abc.scope"));
        // As runc cleans it.
        assert_eq!(at("/a/../../b", Driver::Cgroupfs).unwrap(), absolute("b"));
        assert!(at("/a/b", Driver::Systemd).is_err());
        assert!(at("a--b.slice:x:y", Driver::Systemd).is_err());
    }
}
