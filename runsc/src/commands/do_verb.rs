//! `do`: a command over the host's root, which it can read and believes to change: writes go to memory.

use super::create::begin_plan;
use super::exec::user;
use super::run::{Keep, stay};
use crate::cli::{Do, Global, Overlay};
use crate::error::{Doing, Failure, Outcome};
use crate::sandbox::stdio::Presence;
use crate::spec::mounts::Depth;
use crate::spec::names::CAPABILITIES;
use crate::spec::{Bundle, plan};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::path::Path;

/// File systems whose contents belong to the host's kernel or to one boot: guests have their own.
const NOT_DISKS: [&str; 24] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "tmpfs",
    "ramfs",
    "cgroup",
    "cgroup2",
    "mqueue",
    "debugfs",
    "tracefs",
    "securityfs",
    "bpf",
    "pstore",
    "configfs",
    "fusectl",
    "hugetlbfs",
    "autofs",
    "binfmt_misc",
    "efivarfs",
    "nsfs",
    "rpc_pipefs",
    "fuse.lxcfs",
    "selinuxfs",
];

/// `do`.
pub(super) fn run(global: &Global, args: &Do) -> Outcome<u8> {
    // The host's files are never written to, whatever the flag says.
    let global = &Global { overlay2: global.overlay2.max(Overlay::Root), ..global.clone() };
    let id = format!("do-{}", rustix::process::getpid().as_raw_pid());
    let spec: oci_spec::runtime::Spec = serde_json::from_value(configuration(args)?).doing(|| "do")?;
    let bundle = Bundle { path: "/".into(), spec };
    let mut plan = plan(global, &id, &bundle, 0)?;
    if args.rootfs == Path::new("/")
        && let Some(root) = plan.exports.first_mut()
    {
        // What is mounted over the host's root comes along only where it is a disk.
        root.depth = Depth::Shallow;
    }
    let begun = begin_plan(global, plan, None, Vec::new(), Presence::Attached)?;
    stay(global, begun, None, Keep::Removed)
}

fn configuration(args: &Do) -> Outcome<Value> {
    let cwd = match &args.cwd {
        Some(cwd) => cwd.clone(),
        None if args.rootfs == Path::new("/") => {
            std::env::current_dir().doing(|| "working directory")?.to_string_lossy().into_owned()
        }
        None => "/".to_owned(),
    };
    let mut env: Vec<String> = std::env::vars_os()
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value.to_str()?)))
        .collect();
    for pair in &args.env {
        let name = pair.split('=').next().unwrap_or_default();
        env.retain(|known| known.split('=').next() != Some(name));
        env.push(pair.clone());
    }
    let (uid, gid) = args.user.as_deref().map_or(Ok((0, 0)), user)?;
    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    Ok(json!({
        "ociVersion": crate::container::state::OCI_VERSION,
        "process": {
            "terminal": terminal,
            "user": { "uid": uid, "gid": gid },
            "args": args.command,
            "env": env,
            "cwd": cwd,
            "capabilities": {
                "bounding": &CAPABILITIES[..], "effective": &CAPABILITIES[..], "permitted": &CAPABILITIES[..],
            },
        },
        "root": { "path": args.rootfs, "readonly": false },
        "hostname": rustix::system::uname().nodename().to_string_lossy(),
        "mounts": mounts(args)?,
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
            ],
        },
    }))
}

fn mounts(args: &Do) -> Outcome<Vec<Value>> {
    let mut mounts = Vec::new();
    if args.rootfs == Path::new("/") {
        for target in host_disks() {
            mounts.push(json!({
                "destination": target, "type": "bind", "source": target, "options": ["bind", "ro"],
            }));
        }
    }
    mounts.extend([
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }),
        json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] }),
        json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777"] }),
        json!({ "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue" }),
    ]);
    for volume in &args.volume {
        let (source, destination) = volume.split_once(':').unwrap_or((volume, volume));
        let source = std::fs::canonicalize(source).doing(|| format!("--volume {source}"))?;
        if !destination.starts_with('/') {
            return Err(Failure::new(format!("--volume {volume}: the destination is not an absolute path")));
        }
        mounts.push(json!({
            "destination": destination, "type": "bind", "source": source, "options": ["rbind"],
        }));
    }
    Ok(mounts)
}

/// Mount points of the host that hold files of a disk, parents first.
fn host_disks() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut targets: Vec<String> = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(target), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
        let target = unescape(target);
        if target == "/" || NOT_DISKS.contains(&kind) || targets.contains(&target) {
            continue;
        }
        // A mount that another hides, or that is not for us, is left out.
        if std::fs::metadata(&target).is_ok() {
            targets.push(target);
        }
    }
    targets.sort();
    targets
}

/// mountinfo writes space, tab, newline and backslash as octal.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
