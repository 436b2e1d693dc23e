//! The walls of a running sandbox, read from /proc of every process of ours. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tests::bundle::Bundle;
use tests::{PLATFORMS, command, rootfs};

const LIMIT: Duration = Duration::from_secs(60);
const NOBODY: &str = "65534";

/// One process of the host, by pid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Process(i32);

impl Process {
    fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }
    fn text(self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{self:?} {name}: {error}"))
    }
    fn name(self) -> String {
        self.text("comm").trim().to_owned()
    }
    /// A line of status.
    fn status(self, key: &str) -> String {
        let text = self.text("status");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("{self:?} status: no {key}")).trim().to_owned()
    }
    fn namespace(self, name: &str) -> String {
        let link = fs::read_link(self.path("ns").join(name));
        link.unwrap_or_else(|error| panic!("{self:?} ns/{name}: {error}")).display().to_string()
    }
    fn parent(self) -> Option<i32> {
        let text = fs::read_to_string(self.path("status")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    }
    fn children(self) -> Vec<Process> {
        let entries = fs::read_dir("/proc").expect("/proc is mounted");
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.map(Process).filter(|process: &Process| process.parent() == Some(self.0)).collect()
    }
    fn descriptors(self) -> Vec<(String, String)> {
        let entries = fs::read_dir(self.path("fd")).unwrap_or_else(|error| panic!("{self:?} fd: {error}"));
        let one = |entry: fs::DirEntry| {
            let target = fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), target.display().to_string()))
        };
        entries.filter_map(|entry| one(entry.ok()?)).collect()
    }
    /// Its root is an empty directory, and the only mount it can name is that root.
    fn assert_empty_root(self) {
        let entries = fs::read_dir(self.path("root")).expect("its root can be read").count();
        assert_eq!(entries, 0, "{} has a root with entries", self.name());
        let mounts = self.text("mountinfo");
        assert_eq!(mounts.lines().count(), 1, "{} has mounts:\n{mounts}", self.name());
        let mount = mounts.lines().next().unwrap_or_default();
        assert!(mount.contains(" - tmpfs ") && mount.contains(" ro,"), "{}: {mount}", self.name());
    }
    fn assert_filtered(self) {
        assert_eq!(self.status("NoNewPrivs"), "1", "{}", self.name());
        assert_eq!(self.status("Seccomp"), "2", "{} has no filter", self.name());
    }
    fn assert_not_in_namespaces_of(self, other: Process, names: &[&str]) {
        for name in names {
            assert_ne!(
                self.namespace(name),
                other.namespace(name),
                "{} shares its {name} namespace",
                self.name()
            );
        }
    }
    fn assert_no_host_files(self) {
        for (number, target) in self.descriptors() {
            let kind = fs::metadata(self.path("fd").join(&number)).map(|meta| meta.file_type());
            assert!(
                !kind.is_ok_and(|kind| kind.is_dir()),
                "{}: descriptor {number} is the directory {target}",
                self.name()
            );
        }
    }
    fn assert_no_environment(self) {
        let environment = fs::read(self.path("environ")).unwrap_or_default();
        let left: Vec<u8> = environment.into_iter().filter(|byte| *byte != 0).collect();
        assert!(left.is_empty(), "{}: {}", self.name(), String::from_utf8_lossy(&left));
    }
}

/// A container that sleeps, and its monitor.
fn sleeping(platform: &str) -> (Bundle, Process) {
    started(platform, Bundle::new(rootfs::busybox(), &["/bin/sleep", "1000"]))
}

fn started(platform: &str, bundle: Bundle) -> (Bundle, Process) {
    let mut run = bundle.runsc(platform, "run");
    run.arg("--detach")
        .arg("--bundle")
        .arg(bundle.dir())
        .arg("--pid-file")
        .arg(bundle.dir().join("pid"))
        .arg(bundle.id());
    use std::process::Stdio;
    let status = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("runsc starts").success(), "run --detach");
    let pid = fs::read_to_string(bundle.dir().join("pid")).expect("a pid-file");
    (bundle, Process(pid.parse().expect("a number in the pid-file")))
}

fn child(parent: Process, name: &str) -> Process {
    let children = parent.children();
    let found = children.iter().find(|process| process.name() == name);
    *found.unwrap_or_else(|| panic!("no {name} among {children:?}"))
}

#[test]
fn every_process_is_behind_its_walls() {
    let own = Process(i32::try_from(std::process::id()).expect("a pid"));
    for platform in PLATFORMS {
        let (bundle, monitor) = sleeping(platform);
        sentry(child(monitor, "runsc-sentry"), own);
        gofer(child(monitor, "runsc-gofer"), own);
        let sentry = child(monitor, "runsc-sentry");
        let mut stubs = 0;
        let mut below = sentry.children();
        below.extend(monitor.children().into_iter().filter(|p| !p.name().starts_with("runsc-")));
        for process in below {
            stub(process, sentry);
            stubs += 1;
        }
        assert!(stubs > 0, "{platform}: no process runs the guest");
        let mut delete = bundle.runsc(platform, "delete");
        command::run(delete.arg("--force").arg(bundle.id()), LIMIT).expect_ok("delete --force");
        assert!(!Path::new(&format!("/proc/{}", sentry.0)).exists(), "the sentry outlived delete");
        assert_eq!(
            fs::read_dir(bundle.dir().join("state")).expect("--root").count(),
            0,
            "state was left behind"
        );
    }
}

fn sentry(sentry: Process, own: Process) {
    for key in ["Uid", "Gid"] {
        let ids = sentry.status(key);
        assert!(ids.split_whitespace().all(|id| id == NOBODY), "{key}: {ids}");
    }
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(sentry.status(key).trim_start_matches('0'), "", "{key} of the sentry");
    }
    assert_eq!(sentry.status("Groups"), "", "groups of the sentry");
    sentry.assert_filtered();
    sentry.assert_not_in_namespaces_of(own, &["user", "mnt", "pid", "ipc", "uts", "cgroup", "net"]);
    sentry.assert_empty_root();
    sentry.assert_no_host_files();
    sentry.assert_no_environment();
}

/// chown, dac_override, dac_read_search, fowner, fsetid, setfcap.
const GOFER_CAPABILITIES: u64 = 0x8000_001f;

fn gofer(gofer: Process, own: Process) {
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let bits = u64::from_str_radix(&gofer.status(key), 16).expect("hexadecimal");
        assert_eq!(bits & !GOFER_CAPABILITIES, 0, "{key} of the gofer: {bits:x}");
    }
    gofer.assert_filtered();
    gofer.assert_not_in_namespaces_of(own, &["mnt", "ipc", "uts", "cgroup", "net"]);
    gofer.assert_empty_root();
    gofer.assert_no_environment();
}

/// CAP_NET_BIND_SERVICE.
const NETWORK_CAPABILITIES: u64 = 1 << 10;

#[test]
fn the_network_helper_has_nothing_but_its_namespace() {
    let own = Process(i32::try_from(std::process::id()).expect("a pid"));
    let mut bundle = Bundle::new(rootfs::busybox(), &["/bin/sleep", "1000"]);
    // None for the network: the caller's.
    bundle.config["linux"]["namespaces"] =
        serde_json::json!([{"type": "pid"}, {"type": "mount"}, {"type": "uts"}]);
    let (_bundle, monitor) = started("systrap", bundle);
    // The sentry stands in a network of its own all the same.
    sentry(child(monitor, "runsc-sentry"), own);
    let helper = child(monitor, "runsc-net");
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let bits = u64::from_str_radix(&helper.status(key), 16).expect("hexadecimal");
        assert_eq!(bits & !NETWORK_CAPABILITIES, 0, "{key} of the network helper: {bits:x}");
    }
    helper.assert_filtered();
    helper.assert_not_in_namespaces_of(own, &["mnt", "ipc", "uts", "cgroup"]);
    assert_eq!(helper.namespace("net"), own.namespace("net"));
    helper.assert_empty_root();
    helper.assert_no_host_files();
    helper.assert_no_environment();
    for (number, target) in helper.descriptors() {
        let fine = target == "/dev/null"
            || target.starts_with("socket:")
            || (target.starts_with("/proc/") || target.starts_with('/')) && target.contains("/net/");
        assert!(fine, "descriptor {number} of the network helper is {target}");
    }
}

#[test]
fn without_something_to_reach_there_is_no_network_helper() {
    let (_bundle, monitor) = sleeping("systrap");
    let names: Vec<String> = monitor.children().into_iter().map(Process::name).collect();
    assert!(!names.iter().any(|name| name == "runsc-net"), "{names:?}");
}

fn stub(stub: Process, sentry: Process) {
    for key in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(stub.status(key).trim_start_matches('0'), "", "{key} of {}", stub.name());
    }
    stub.assert_filtered();
    for name in ["user", "mnt", "pid", "ipc", "uts", "cgroup", "net"] {
        assert_eq!(stub.namespace(name), sentry.namespace(name), "{name} namespace of {}", stub.name());
    }
    stub.assert_empty_root();
    stub.assert_no_host_files();
    let descriptors = stub.descriptors();
    assert!(descriptors.len() <= 8, "{}: {descriptors:?}", stub.name());
}

#[test]
fn a_killed_monitor_takes_everything_along() {
    for platform in PLATFORMS {
        let (_bundle, monitor) = sleeping(platform);
        let all = [child(monitor, "runsc-sentry"), child(monitor, "runsc-gofer")];
        let pid = rustix::process::Pid::from_raw(monitor.0).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
        let end = Instant::now() + Duration::from_secs(5);
        // A zombie that nobody reaps yet has no status to read a state from but Z.
        let gone = |process: &Process| {
            let text = fs::read_to_string(process.path("status")).unwrap_or_default();
            text.is_empty() || text.contains("State:\tZ")
        };
        while !all.iter().all(gone) {
            assert!(Instant::now() < end, "{platform}: a process outlived its monitor");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
