//! From the bundle to a plan: what the kernel is told, what the gofer serves, what the host sets up.

use super::mounts::Depth;
use super::{Bundle, mounts, pod, process, refuse, seccomp};
use crate::cgroup::cpu_weight;
use crate::cli::{Global, Overlay, Platform};
use crate::container::Store;
use crate::error::{Doing, Failure, Outcome};
use oci_spec::runtime::{
    Hooks, Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, LinuxResources, Process,
};
use sentry::control::spec::{
    ContainerSpec, DeviceKind, DeviceSpec, IdMapping, Limits, NamespaceKind, Namespaces, PlatformKind,
    RootOverlay, RootSpec,
};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// Whether a guest may change an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// Only read.
    Read,
    /// Read and write.
    Write,
}

/// A host directory or file that the gofer serves. Export 0 is the root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Export {
    /// Absolute path.
    pub(crate) source: PathBuf,
    /// May it be changed?
    pub(crate) access: Access,
    /// Do mounts below it come along?
    pub(crate) depth: Depth,
    /// Others may change it while the sandbox runs.
    pub(crate) shared: bool,
}

/// Where the network namespace comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Net {
    /// A fresh one.
    New,
    /// This one.
    Path(PathBuf),
    /// The caller's.
    Host,
}

/// Everything `create` needs.
#[derive(Debug)]
pub(crate) struct Plan {
    /// For the kernel.
    pub(crate) container: ContainerSpec,
    /// For the gofer.
    pub(crate) exports: Vec<Export>,
    /// Network namespace.
    pub(crate) net: Net,
    /// `linux.cgroupsPath`.
    pub(crate) cgroups_path: Option<PathBuf>,
    /// `linux.resources`.
    pub(crate) resources: Option<LinuxResources>,
    /// Hooks.
    pub(crate) hooks: Option<Hooks>,
    /// Annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// The process as the bundle has it.
    pub(crate) process: Process,
    /// Whose sandbox.
    pub(crate) place: pod::Place,
    /// The bundle.
    pub(crate) bundle: PathBuf,
}

impl Plan {
    /// Whether an orchestrator made it as the sandbox of a pod.
    pub(crate) fn is_pod(&self) -> bool {
        pod::is_sandbox(&self.annotations)
    }

    /// Path of the root file system.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.exports.first().map(|root| root.source.clone()).unwrap_or_default()
    }
}

/// Checks a bundle and makes the plan of container `id`.
pub(crate) fn plan(global: &Global, id: &str, bundle: &Bundle, preserved: u32) -> Outcome<Plan> {
    let spec = &bundle.spec;
    let oci_process = spec.process().as_ref().ok_or_else(|| Failure::new("process: missing"))?;
    let linux = spec.linux().clone().unwrap_or_default();
    let annotations: BTreeMap<_, _> =
        spec.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
    let store = Store::open(global)?;
    let place = pod::find(&store, &annotations, &linux)?;
    let pid_of = pod::pid_target(&store, &place, &linux)?;
    let overlay = overlay(global, &annotations)?;
    let root = spec.root().as_ref().ok_or_else(|| Failure::new("root: missing"))?;
    let readonly = root.readonly().unwrap_or(false);
    let mut exports = vec![root_export(bundle, root.path(), readonly || overlay != Overlay::None)?];
    let mut specs = Vec::new();
    for (at, mount) in spec.mounts().iter().flatten().enumerate() {
        specs.extend(mounts::convert(at, mount, &bundle.path, &mut exports, overlay)?);
    }
    let alone: &[LinuxNamespaceType] = match place {
        pod::Place::Root if pod::has_no_sandbox(&annotations) => {
            &[LinuxNamespaceType::Ipc, LinuxNamespaceType::Uts]
        }
        _ => &[],
    };
    let (mut namespaces, net) = namespaces(&linux, &place, alone)?;
    if pod::place(&annotations) != pod::Place::Root {
        // Containers of a pod share its network, whatever their bundle says.
        namespaces.net = NamespaceKind::Sandbox;
    } else if !matches!(&net, Net::Path(path) if pod::owner(path).is_some()) {
        // Its own, also beside another container whose other namespaces it names.
        namespaces.net = NamespaceKind::Private;
    }
    refuse::check(spec)?;
    if namespaces.user && linux.uid_mappings().as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::new("linux.uidMappings: user namespaces enabled, but no uid mappings found"));
    }
    if namespaces.user && linux.gid_mappings().as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::new("linux.gidMappings: user namespaces enabled, but no gid mappings found"));
    }
    let mut first = process::convert(oci_process, preserved)?;
    first.personality = refuse::personality(spec)?;
    let container = ContainerSpec {
        id: id.to_owned(),
        process: first,
        hostname: Some(spec.hostname().clone().unwrap_or_else(host_name)),
        domainname: spec.domainname().clone(),
        root: RootSpec {
            readonly,
            overlay: root_overlay(readonly, overlay),
            shown: exports.first().map(|root| mounts::host_mount(&root.source)).unwrap_or_default(),
            propagation: root_propagation(&linux)?,
        },
        mounts: specs,
        devices: devices(&linux)?,
        masked_paths: linux.masked_paths().clone().unwrap_or_default(),
        readonly_paths: linux.readonly_paths().clone().unwrap_or_default(),
        sysctl: linux.sysctl().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        namespaces,
        pid_of,
        limits: linux.resources().as_ref().map(limits).unwrap_or_default(),
        cgroup: linux.cgroups_path().as_ref().map(|path| path.display().to_string()),
        cgroup_files: 0,
        network_helper: false,
        seccomp: linux.seccomp().as_ref().map_or(Ok(None), seccomp::convert)?,
        uid_mappings: mappings(
            linux.uid_mappings().as_deref(),
            namespaces,
            rustix::process::geteuid().as_raw(),
        ),
        gid_mappings: mappings(
            linux.gid_mappings().as_deref(),
            namespaces,
            rustix::process::getegid().as_raw(),
        ),
    };
    Ok(Plan {
        container,
        exports,
        net,
        cgroups_path: linux.cgroups_path().clone(),
        resources: linux.resources().clone(),
        hooks: spec.hooks().clone(),
        annotations,
        process: oci_process.clone(),
        place,
        bundle: bundle.path.clone(),
    })
}

/// A new UTS namespace begins as a copy of its maker's.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Asks for less than `--overlay2` would let through; more is refused.
const OVERLAY_ANNOTATION: &str = "io.gvisor-rs.overlay2";

/// `--overlay2`, which an annotation may only tighten.
fn overlay(global: &Global, annotations: &BTreeMap<String, String>) -> Outcome<Overlay> {
    let Some(text) = annotations.get(OVERLAY_ANNOTATION) else { return Ok(global.overlay2) };
    let field = format!("annotations[{OVERLAY_ANNOTATION:?}]");
    let wanted = <Overlay as clap::ValueEnum>::from_str(text, false)
        .map_err(|_| Failure::new(format!("{field}: {text:?} is not none, root:memory or all:memory")))?;
    if wanted < global.overlay2 {
        return Err(Failure::new(format!("{field}: {text:?} lets more through than --overlay2")));
    }
    Ok(wanted)
}

/// A read-only root has one as well: missing mount points are made in it, and the bundle stays untouched.
fn root_overlay(readonly: bool, overlay: Overlay) -> RootOverlay {
    if readonly || overlay != Overlay::None { RootOverlay::Memory } else { RootOverlay::None }
}

/// `--platform`.
pub(crate) fn platform(global: &Global) -> PlatformKind {
    match global.platform {
        Platform::Systrap => PlatformKind::Systrap,
        Platform::Ptrace => PlatformKind::Ptrace,
    }
}

fn root_propagation(linux: &Linux) -> Outcome<u64> {
    let Some(name) = linux.rootfs_propagation() else { return Ok(0) };
    mounts::propagation(name).ok_or_else(|| {
        Failure::new(format!("linux.rootfsPropagation: {name:?} is not a kind of propagation"))
    })
}

fn root_export(bundle: &Bundle, path: &std::path::Path, only_read: bool) -> Outcome<Export> {
    let joined = bundle.path.join(path);
    let source = std::fs::canonicalize(&joined).doing(|| format!("root.path: {}", joined.display()))?;
    if !source.is_dir() {
        return Err(Failure::new(format!("root.path: {}: not a directory", source.display())));
    }
    let access = if only_read { Access::Read } else { Access::Write };
    Ok(Export { source, access, depth: Depth::Recursive, shared: false })
}

/// `alone`: the namespaces that a pod without a sandbox container keeps by path.
fn namespaces(linux: &Linux, place: &pod::Place, alone: &[LinuxNamespaceType]) -> Outcome<(Namespaces, Net)> {
    let member = matches!(place, pod::Place::Member(_));
    let absent = if member { NamespaceKind::Sandbox } else { NamespaceKind::Private };
    let mut result = Namespaces { pid: absent, net: absent, ipc: absent, uts: absent, user: false };
    let mut net = Net::Host;
    let mut seen = Vec::new();
    for (at, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let typ = namespace.typ();
        if seen.contains(&typ) {
            return Err(Failure::new(format!("linux.namespaces[{at}].type: {typ} is there twice")));
        }
        seen.push(typ);
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = path {
            std::fs::metadata(path).doing(|| format!("linux.namespaces[{at}].path: {}", path.display()))?;
            let is_own = alone.contains(&typ) || is_callers(path, typ);
            if !member && typ != LinuxNamespaceType::Network && !is_own {
                let message = format!(
                    "linux.namespaces[{at}]: joining the {typ} namespace {} is not supported: guests have a kernel of their own",
                    path.display()
                );
                return Err(Failure::new(message));
            }
        }
        // A pod's later containers name namespaces of the first: those are the sandbox'.
        let kind = if member && path.is_some() { NamespaceKind::Sandbox } else { NamespaceKind::Private };
        match typ {
            LinuxNamespaceType::Pid => result.pid = kind,
            LinuxNamespaceType::Ipc => result.ipc = kind,
            LinuxNamespaceType::Uts => result.uts = kind,
            LinuxNamespaceType::Network => {
                result.net = kind;
                net = path.map_or(Net::New, |path| Net::Path(path.clone()));
            }
            LinuxNamespaceType::User => result.user = true,
            LinuxNamespaceType::Mount | LinuxNamespaceType::Cgroup => {}
            LinuxNamespaceType::Time => {
                return Err(Failure::new(format!(
                    "linux.namespaces[{at}].type: time namespaces are not supported"
                )));
            }
        }
    }
    Ok((result, net))
}

/// Whether a path names the UTS namespace that this process is in: to name it is to ask for none, and a copy
/// of its names is what the guest gets.
fn is_callers(path: &std::path::Path, typ: LinuxNamespaceType) -> bool {
    let place = |path: &std::path::Path| std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    let own = place(std::path::Path::new("/proc/self/ns/uts"));
    typ == LinuxNamespaceType::Uts && own.is_some() && own == place(path)
}

/// Devices every container has, as the runtime specification lists them.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

fn devices(linux: &Linux) -> Outcome<Vec<DeviceSpec>> {
    let listed = linux.devices().clone().unwrap_or_default();
    let mut devices = Vec::new();
    for (path, major, minor) in DEFAULT_DEVICES {
        if !listed.iter().any(|device| device.path().as_os_str() == path) {
            let kind = DeviceKind::Char;
            devices.push(DeviceSpec {
                path: path.to_owned(),
                kind,
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
            });
        }
    }
    for (at, device) in listed.iter().enumerate() {
        devices.push(self::device(at, device)?);
    }
    Ok(devices)
}

fn device(at: usize, device: &LinuxDevice) -> Outcome<DeviceSpec> {
    let path = device.path().to_string_lossy().into_owned();
    if !path.starts_with('/') {
        return Err(Failure::new(format!("linux.devices[{at}].path: {path:?} is not an absolute path")));
    }
    let number = |name: &str, value: i64| {
        u32::try_from(value)
            .map_err(|_| Failure::new(format!("linux.devices[{at}].{name}: {value} is out of range")))
    };
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => DeviceKind::Char,
        LinuxDeviceType::B => DeviceKind::Block,
        LinuxDeviceType::P => DeviceKind::Fifo,
        LinuxDeviceType::A => {
            return Err(Failure::new(format!("linux.devices[{at}].type: must be c, b, u or p")));
        }
    };
    Ok(DeviceSpec {
        path,
        kind,
        major: number("major", device.major())?,
        minor: number("minor", device.minor())?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

/// Limits that the guest's own cgroup enforces; -1 and absent are unlimited.
pub(crate) fn limits(resources: &LinuxResources) -> Limits {
    let positive = |value: i64| u64::try_from(value).ok().filter(|value| *value > 0);
    let cpu = resources.cpu().as_ref();
    let unified = |name: &str| resources.unified().as_ref()?.get(name)?.trim().parse::<u64>().ok();
    let pages = |bytes: u64| bytes - bytes % 4096;
    Limits {
        memory_max: resources
            .memory()
            .as_ref()
            .and_then(|memory| memory.limit())
            .and_then(positive)
            .or_else(|| unified("memory.max"))
            .map(pages),
        oom_group: unified("memory.oom.group") == Some(1),
        pids_max: resources
            .pids()
            .as_ref()
            .and_then(|pids| positive(pids.limit()))
            .or_else(|| unified("pids.max")),
        cpu_quota_us: cpu.and_then(|cpu| cpu.quota()).and_then(positive),
        cpu_period_us: cpu.and_then(|cpu| cpu.period()).filter(|period| *period != 0),
        cpu_weight: cpu.and_then(|cpu| cpu.shares()).filter(|shares| *shares != 0).map(cpu_weight),
        // The host is asked once it has set them.
        cpus: None,
    }
}

/// The maps of a user namespace. An ordinary user always has one: without maps of the bundle's the user's
/// own id is root's.
fn mappings(
    list: Option<&[oci_spec::runtime::LinuxIdMapping]>,
    namespaces: Namespaces,
    own: u32,
) -> Vec<IdMapping> {
    let one = |map: &oci_spec::runtime::LinuxIdMapping| IdMapping {
        inside: map.container_id(),
        outside: map.host_id(),
        count: map.size(),
    };
    if namespaces.user {
        return list.unwrap_or_default().iter().map(one).collect();
    }
    if rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    vec![IdMapping { inside: 0, outside: own, count: 1 }]
}
