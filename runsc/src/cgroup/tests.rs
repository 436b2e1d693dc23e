//! Limits on a tree of plain files that stands for /sys/fs/cgroup.

use super::Membership;
use super::host::{Hierarchy, Place};
use super::limits::{host_memory, host_pids};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes with the test.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const V1: [(&str, &[&str]); 7] = [
    ("cpu", &["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.stat"]),
    ("cpuset", &["cpuset.cpus", "cpuset.mems"]),
    (
        "memory",
        &[
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.soft_limit_in_bytes",
            "memory.swappiness",
        ],
    ),
    ("pids", &["pids.max"]),
    (
        "blkio",
        &[
            "blkio.bfq.weight",
            "blkio.bfq.weight_device",
            "blkio.throttle.read_bps_device",
            "blkio.throttle.write_iops_device",
        ],
    ),
    ("devices", &["devices.allow", "devices.deny"]),
    ("hugetlb", &["hugetlb.2MB.limit_in_bytes"]),
];

const V2: [&str; 17] = [
    "cgroup.controllers",
    "cgroup.subtree_control",
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.max",
    "memory.low",
    "memory.high",
    "memory.swap.max",
    "pids.max",
    "io.weight",
    "io.max",
    "hugetlb.2MB.max",
    "rdma.max",
    "cgroup.procs",
    "memory.stat",
];

impl Tree {
    fn new() -> Tree {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("gvisor-rs-cgroup-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Tree(dir)
    }
    /// A v1 hierarchy whose root and `pod/c1` have their files.
    fn v1(&self) -> Vec<Hierarchy> {
        let make = |(name, files): &(&str, &[&str])| {
            let mount = self.0.join(name);
            for at in [mount.clone(), mount.join("pod"), mount.join("pod/c1")] {
                fs::create_dir_all(&at).unwrap();
                for file in *files {
                    let root = at == mount;
                    let value = match *file {
                        "cpuset.cpus" if root => "0-3\n",
                        "cpuset.mems" if root => "0\n",
                        "memory.memsw.limit_in_bytes" => "9223372036854771712\n",
                        _ => "",
                    };
                    fs::write(at.join(file), value).unwrap();
                }
            }
            Hierarchy { mount, controllers: vec![(*name).to_owned()], own: PathBuf::new() }
        };
        V1.iter().map(make).collect()
    }
    fn v2(&self) -> Vec<Hierarchy> {
        let mount = self.0.join("unified");
        for at in [mount.clone(), mount.join("pod"), mount.join("pod/c1")] {
            fs::create_dir_all(&at).unwrap();
            for file in V2 {
                let text = "cpuset cpu io memory hugetlb pids rdma\n";
                fs::write(at.join(file), if file == "cgroup.controllers" { text } else { "" }).unwrap();
            }
        }
        vec![Hierarchy { mount, controllers: Vec::new(), own: PathBuf::new() }]
    }
    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }
}

fn resources(value: Value) -> LinuxResources {
    serde_json::from_value(value).unwrap()
}

fn place() -> Place {
    Place::Absolute(PathBuf::from("pod/c1"))
}

/// Files are plain here: a shorter value leaves the end of a longer one, so each is looked at from its start.
#[track_caller]
fn starts(tree: &Tree, path: &str, want: impl ToString) {
    let (text, want) = (tree.read(path), want.to_string());
    assert!(text.starts_with(&want), "{path}: {text:?} does not start with {want:?}");
}

fn everything() -> LinuxResources {
    resources(json!({
        "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}],
        "memory": {"limit": 67_108_864, "swap": 134_217_728, "reservation": 33_554_432},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": 50},
        "blockIO": {
            "weight": 300,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1_048_576}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 100}]
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]
    }))
}

#[test]
fn v1_files() {
    let tree = Tree::new();
    Membership::create_in(&tree.v1(), &place(), &everything()).unwrap();
    starts(&tree, "cpu/pod/c1/cpu.shares", 512);
    starts(&tree, "cpu/pod/c1/cpu.cfs_quota_us", 50_000);
    starts(&tree, "cpu/pod/c1/cpu.cfs_period_us", 100_000);
    starts(&tree, "cpuset/pod/cpuset.cpus", "0-3");
    starts(&tree, "cpuset/pod/c1/cpuset.cpus", "0-1");
    starts(&tree, "cpuset/pod/c1/cpuset.mems", 0);
    starts(&tree, "memory/pod/c1/memory.limit_in_bytes", host_memory(67_108_864));
    starts(&tree, "memory/pod/c1/memory.memsw.limit_in_bytes", host_memory(134_217_728));
    starts(&tree, "memory/pod/c1/memory.soft_limit_in_bytes", 33_554_432);
    starts(&tree, "pids/pod/c1/pids.max", host_pids(50));
    starts(&tree, "blkio/pod/c1/blkio.bfq.weight", 300);
    starts(&tree, "blkio/pod/c1/blkio.bfq.weight_device", "8:0 500");
    starts(&tree, "blkio/pod/c1/blkio.throttle.read_bps_device", "8:0 1048576");
    starts(&tree, "blkio/pod/c1/blkio.throttle.write_iops_device", "8:16 100");
    starts(&tree, "hugetlb/pod/c1/hugetlb.2MB.limit_in_bytes", 4_194_304);
    starts(&tree, "devices/pod/c1/devices.deny", "a");
    starts(&tree, "devices/pod/c1/devices.allow", "c 136:* rwm");
}

#[test]
fn v2_files() {
    let tree = Tree::new();
    Membership::create_in(&tree.v2(), &place(), &everything()).unwrap();
    starts(&tree, "unified/pod/c1/cpu.weight", 20);
    starts(&tree, "unified/pod/c1/cpu.max", "50000 100000");
    starts(&tree, "unified/pod/c1/cpuset.cpus", "0-1");
    starts(&tree, "unified/pod/c1/memory.max", host_memory(67_108_864));
    starts(&tree, "unified/pod/c1/memory.swap.max", 67_108_864);
    starts(&tree, "unified/pod/c1/memory.low", 33_554_432);
    starts(&tree, "unified/pod/c1/pids.max", host_pids(50));
    starts(&tree, "unified/pod/c1/io.weight", 1 + 290 * 9_999 / 990);
    starts(&tree, "unified/pod/c1/io.max", "8:16 wiops=100");
    starts(&tree, "unified/pod/c1/hugetlb.2MB.max", 4_194_304);
    for at in ["unified", "unified/pod"] {
        starts(&tree, &format!("{at}/cgroup.subtree_control"), "+");
    }
    // Processes live in the leaf: it hands nothing down.
    assert_eq!(tree.read("unified/pod/c1/cgroup.subtree_control"), "");
}

#[test]
fn unlimited_and_unset() {
    let tree = Tree::new();
    let none = json!({"memory": {"limit": -1}, "cpu": {"quota": -1, "shares": 0}, "pids": {"limit": -1}});
    Membership::create_in(&tree.v2(), &place(), &resources(none.clone())).unwrap();
    starts(&tree, "unified/pod/c1/memory.max", "max");
    starts(&tree, "unified/pod/c1/memory.swap.max", "max");
    starts(&tree, "unified/pod/c1/cpu.max", "max 100000");
    starts(&tree, "unified/pod/c1/pids.max", "max");
    assert_eq!(tree.read("unified/pod/c1/cpu.weight"), "");
    Membership::create_in(&tree.v1(), &place(), &resources(none)).unwrap();
    starts(&tree, "memory/pod/c1/memory.limit_in_bytes", "-1");
    starts(&tree, "memory/pod/c1/memory.memsw.limit_in_bytes", "-1");
    starts(&tree, "cpu/pod/c1/cpu.cfs_quota_us", "-1");
    assert_eq!(tree.read("cpu/pod/c1/cpu.shares"), "");
}

#[test]
fn a_hybrid_takes_each_controller_where_it_is() {
    let tree = Tree::new();
    let mut both: Vec<Hierarchy> =
        tree.v1().into_iter().filter(|h| !h.controllers.iter().any(|name| name == "hugetlb")).collect();
    both.extend(tree.v2());
    fs::write(tree.0.join("unified/pod/c1/cgroup.controllers"), "hugetlb\n").unwrap();
    let mut wanted = everything();
    wanted.set_unified(Some([("memory.high".to_owned(), "1000000".to_owned())].into()));
    Membership::create_in(&both, &place(), &wanted).unwrap();
    starts(&tree, "pids/pod/c1/pids.max", host_pids(50));
    assert_eq!(tree.read("unified/pod/c1/pids.max"), "");
    starts(&tree, "unified/pod/c1/hugetlb.2MB.max", 4_194_304);
    starts(&tree, "unified/pod/c1/memory.high", 1_000_000);
}

#[test]
fn what_cannot_be_set_is_said() {
    let tree = Tree::new();
    let fails = |hierarchies: &[Hierarchy], value: Value| {
        Membership::create_in(hierarchies, &place(), &resources(value)).unwrap_err().message
    };
    let memory_only: Vec<Hierarchy> =
        tree.v1().into_iter().filter(|h| h.controllers.iter().any(|name| name == "memory")).collect();
    let message = fails(&memory_only, json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}));
    assert_eq!(message, "cannot set hugetlb limit: container could not join or create cgroup");
    assert!(fails(&memory_only, json!({"cpu": {"quota": 1000}})).contains("cannot set cpu limit"));
    assert!(
        fails(&memory_only, json!({"unified": {"memory.high": "1"}}))
            .contains("cannot use unified on cgroup v1")
    );
    let v2 = tree.v2();
    assert!(fails(&v2, json!({"unified": {"../memory.high": "1"}})).contains("no slashes"));
    assert!(fails(&v2, json!({"unified": {"misc.max": "1"}})).contains("controller \"misc\" not available"));
    let less = json!({"memory": {"limit": 67_108_864, "swap": 1_048_576}});
    assert!(fails(&v2, less).contains("should be >= memory limit"));
    let v2 = tree.v2();
    assert!(fails(&v2, json!({"memory": {"swap": 1_048_576}})).contains("without memory limit"));
}

#[test]
fn an_update_that_fails_changes_nothing() {
    let tree = Tree::new();
    let membership = Membership::create_in(&tree.v2(), &place(), &resources(json!({}))).unwrap();
    fs::write(tree.0.join("unified/pod/c1/cpu.weight"), "100\n").unwrap();
    fs::remove_file(tree.0.join("unified/pod/c1/pids.max")).unwrap();
    let update = resources(json!({"cpu": {"shares": 262_144}, "pids": {"limit": 5}}));
    assert!(membership.update(&update).is_err());
    starts(&tree, "unified/pod/c1/cpu.weight", 100);
    let fine = resources(json!({"cpu": {"shares": 262_144}}));
    membership.update(&fine).unwrap();
    starts(&tree, "unified/pod/c1/cpu.weight", 10_000);
}

#[test]
fn figures_in_runcs_shape() {
    let tree = Tree::new();
    let membership = Membership::create_in(&tree.v2(), &place(), &resources(json!({}))).unwrap();
    let put = |name: &str, text: &str| fs::write(tree.0.join("unified/pod/c1").join(name), text).unwrap();
    put(
        "cpu.stat",
        "usage_usec 3000\nuser_usec 2000\nsystem_usec 1000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 5\n",
    );
    put("memory.current", "4096\n");
    put("memory.max", "8192\n");
    put("memory.stat", "anon 100\nfile 200\n");
    put("pids.current", "3\n");
    put("pids.max", "164\n");
    put("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n");
    put("hugetlb.2MB.current", "2097152\n");
    let stats = membership.stats();
    let at = |pointer: &str| stats.pointer(pointer).cloned().unwrap_or_default();
    assert_eq!(at("/cpu/usage/total"), json!(3_000_000));
    assert_eq!(at("/cpu/usage/user"), json!(2_000_000));
    assert_eq!(at("/cpu/throttling"), json!({"periods": 7, "throttledPeriods": 2, "throttledTime": 5000}));
    assert_eq!(at("/memory/usage"), json!({"usage": 4096, "limit": 8192, "failcnt": 0}));
    assert_eq!(at("/memory/cache"), json!(200));
    assert_eq!(at("/memory/raw/anon"), json!(100));
    assert_eq!(at("/pids"), json!({"current": 3, "limit": 164}));
    assert_eq!(at("/blkio/ioServiceBytesRecursive/0"), json!({"major": 8, "op": "Read", "value": 10}));
    assert_eq!(at("/hugetlb/2MB"), json!({"usage": 2_097_152, "failcnt": 0}));
}

#[test]
fn removal_takes_nested_groups_and_leaves_parents() {
    let tree = Tree::new();
    let mount = tree.0.join("cg");
    fs::create_dir_all(mount.join("pod/c1/inner/deep")).unwrap();
    let hierarchy = Hierarchy { mount: mount.clone(), controllers: vec!["pids".into()], own: PathBuf::new() };
    let membership = Membership { groups: vec![hierarchy.group(&place())] };
    membership.remove().unwrap();
    assert!(!mount.join("pod/c1").exists() && mount.join("pod").exists());
}
