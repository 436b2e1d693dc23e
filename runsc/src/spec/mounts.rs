//! `mounts` of the bundle: host paths become numbered exports of the gofer, everything else a file system
//! of the kernel's own.

use super::convert::{Access, Export};
use crate::cli::Overlay;
use crate::error::{Doing, Failure, Outcome};
use oci_spec::runtime::Mount;
use sentry::control::spec::{HostMount, MountFlags, MountKind, MountSpec, RootOverlay};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

const MS_REC: u64 = 1 << 14;
const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// Options that ask for nothing we do differently.
const IGNORED: [&str; 19] = [
    "defaults",
    "rw",
    "suid",
    "dev",
    "exec",
    "atime",
    "diratime",
    "norelatime",
    "nostrictatime",
    "async",
    "nolazytime",
    "lazytime",
    "loud",
    "silent",
    "mand",
    "nomand",
    "norbind",
    "iversion",
    "noiversion",
];

struct Options {
    flags: MountFlags,
    data: Vec<String>,
    bind: Option<Depth>,
}

/// Whether what is mounted below a bind's source comes along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Depth {
    /// Only the one file system.
    Shallow,
    /// Everything below.
    Recursive,
}

fn options(list: &[String]) -> Options {
    let mut options = Options { flags: MountFlags::default(), data: Vec::new(), bind: None };
    let flags = &mut options.flags;
    for option in list {
        match option.as_str() {
            "bind" => options.bind = Some(Depth::Shallow),
            "rbind" => options.bind = Some(Depth::Recursive),
            "ro" | "rro" => flags.readonly = true,
            "nosuid" | "rnosuid" => flags.nosuid = true,
            "nodev" | "rnodev" => flags.nodev = true,
            "noexec" | "rnoexec" => flags.noexec = true,
            "noatime" | "rnoatime" => flags.noatime = true,
            "nodiratime" | "rnodiratime" => flags.nodiratime = true,
            "relatime" | "rrelatime" => flags.relatime = true,
            "strictatime" | "rstrictatime" => flags.strictatime = true,
            "sync" | "dirsync" => flags.sync = true,
            "tmpcopyup" => flags.copy_up = true,
            other if IGNORED.contains(&other) => {}
            // The recursive forms of the same.
            other if other.strip_prefix('r').is_some_and(|other| IGNORED.contains(&other)) => {}
            other => match propagation(other) {
                Some(bits) => flags.propagation = bits,
                None => options.data.push(other.to_owned()),
            },
        }
    }
    options
}

/// The bits of mount(2) for a kind of propagation.
pub(super) fn propagation(name: &str) -> Option<u64> {
    Some(match name {
        "private" => MS_PRIVATE,
        "rprivate" => MS_PRIVATE | MS_REC,
        "slave" => MS_SLAVE,
        "rslave" => MS_SLAVE | MS_REC,
        "shared" => MS_SHARED,
        "rshared" => MS_SHARED | MS_REC,
        "unbindable" => MS_UNBINDABLE,
        "runbindable" => MS_UNBINDABLE | MS_REC,
        _ => return None,
    })
}

/// Type and source of the host's file system that holds `path`, from the table of mounts.
pub(super) fn host_mount(path: &Path) -> HostMount {
    static TABLE: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let table = TABLE.get_or_init(|| std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    let entry = |line: &'static str| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let mut left = left.split(' ').skip(3);
        Some(((left.next()?, unescape(left.next()?)), right.next()?, right.next()?))
    };
    // The table has no links in it, and no `..`.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let holds = table.lines().filter_map(entry).filter(|((_, point), ..)| path.starts_with(point));
    // Of two at one place the later covers the earlier.
    let best = holds.max_by_key(|((_, point), ..)| point.len());
    let shown = best.map(|((root, point), fs_type, source)| {
        let below = path.strip_prefix(&point).unwrap_or(Path::new(""));
        let place = Path::new(&unescape(root)).join(below);
        // A joined empty path ends in a slash.
        let place = place.to_string_lossy();
        let place = match place.trim_end_matches('/') {
            "" => "/",
            place => place,
        };
        HostMount { fs_type: fs_type.to_owned(), source: source.to_owned(), place: place.to_owned() }
    });
    shown.unwrap_or_default()
}

/// The mount table's spelling of blanks and backslashes, undone.
fn unescape(text: &str) -> String {
    let mut out = text.to_owned();
    for (spelt, meant) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(spelt, meant);
    }
    out
}

/// A path as one below the root: `..` leads no further up than there.
pub(crate) fn inside(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Turns one mount into the kernel's form. A bind adds to `exports`. `None`: nothing to mount.
pub(crate) fn convert(
    at: usize,
    mount: &Mount,
    bundle: &Path,
    exports: &mut Vec<Export>,
    overlay: Overlay,
) -> Outcome<Option<MountSpec>> {
    let field = |name: &str| format!("mounts[{at}].{name}");
    let destination = mount.destination().to_string_lossy().into_owned();
    if destination.is_empty() || destination.contains('\0') {
        return Err(Failure::new(format!("{}: {destination:?} is not a path", field("destination"))));
    }
    let destination = inside(&destination);
    if destination == "/" {
        return Err(Failure::new(format!("{}: the root itself", field("destination"))));
    }
    let idmap = |option: &String| option == "idmap" || option == "ridmap";
    if mount.uid_mappings().is_some()
        || mount.gid_mappings().is_some()
        || mount.options().iter().flatten().any(idmap)
    {
        return Err(Failure::new(format!("{}: id-mapped mounts are not supported", field("uidMappings"))));
    }
    let mut options = options(mount.options().as_deref().unwrap_or_default());
    let typ = mount.typ().as_deref().unwrap_or("");
    if typ == "bind" && options.bind.is_none() {
        options.bind = Some(Depth::Shallow);
    }
    let kind = if let Some(depth) = options.bind {
        let source = mount.source().as_deref().unwrap_or(Path::new(""));
        if source.starts_with("/sys/fs/cgroup/") && destination.starts_with("/sys/fs/cgroup/") {
            // A piece of the host's hierarchies (`podman run --systemd`): the guest's kernel has its own.
            return Ok(None);
        }
        match known_source(source) {
            Some(kind) => kind,
            None => bind(&field("source"), source, bundle, depth, (options.flags, overlay), exports)?,
        }
    } else {
        match typ {
            "proc" => MountKind::Proc,
            "sysfs" => MountKind::Sysfs,
            "tmpfs" | "ramfs" | "devtmpfs" => MountKind::Tmpfs,
            "devpts" => MountKind::Devpts,
            "mqueue" => MountKind::Mqueue,
            "cgroup" | "cgroup2" => MountKind::Cgroup,
            "" => return Err(Failure::new(format!("{}: missing for {destination}", field("type")))),
            other => {
                return Err(Failure::new(format!(
                    "{}: {other:?} is not supported ({destination})",
                    field("type")
                )));
            }
        }
    };
    let source = match &kind {
        MountKind::Bind { .. } => {
            options.data.clear();
            host_mount(mount.source().as_deref().unwrap_or(Path::new(""))).source
        }
        _ => mount.source().as_ref().map_or_else(|| typ.to_owned(), |source| source.display().to_string()),
    };
    Ok(Some(MountSpec { destination, kind, source, flags: options.flags, data: options.data, viewed: false }))
}

/// Binds of the host's own kernel file systems (rootless bundles have them) become ours.
fn known_source(source: &Path) -> Option<MountKind> {
    match source.to_str()? {
        "/proc" => Some(MountKind::Proc),
        "/sys" => Some(MountKind::Sysfs),
        "/sys/fs/cgroup" => Some(MountKind::Cgroup),
        "/dev/mqueue" => Some(MountKind::Mqueue),
        "/dev/pts" => Some(MountKind::Devpts),
        _ => None,
    }
}

fn bind(
    field: &str,
    source: &Path,
    bundle: &Path,
    depth: Depth,
    (flags, overlay): (MountFlags, Overlay),
    exports: &mut Vec<Export>,
) -> Outcome<MountKind> {
    let source: PathBuf = if source.is_absolute() { source.to_owned() } else { bundle.join(source) };
    let meta = std::fs::metadata(&source).doing(|| format!("{field}: {}", source.display()))?;
    let kind = meta.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        let message = format!("{field}: {} is a device; list it under linux.devices", source.display());
        return Err(Failure::new(message));
    }
    let export =
        u32::try_from(exports.len()).map_err(|_| Failure::new(format!("{field}: too many mounts")))?;
    let covered = overlay == Overlay::All && !flags.readonly;
    let access = if flags.readonly || covered { Access::Read } else { Access::Write };
    // A file has no layer to write to: it stays read-only.
    let covered = covered && kind.is_dir();
    let overlay = if covered { RootOverlay::Memory } else { RootOverlay::None };
    let HostMount { fs_type, place, .. } = host_mount(&source);
    exports.push(Export { source, access, depth, shared: true });
    Ok(MountKind::Bind { export, file: !kind.is_dir(), overlay, fs_type, place })
}

#[cfg(test)]
mod tests {
    use super::{convert, options};
    use crate::cli::Overlay;
    use crate::spec::convert::Access;
    use oci_spec::runtime::MountBuilder;
    use sentry::control::spec::{MountKind, RootOverlay};
    use std::path::Path;

    #[test]
    fn flags_and_data_are_told_apart() {
        let list = ["nosuid", "ro", "rprivate", "mode=755", "size=64k", "rw"].map(str::to_owned);
        let options = options(&list);
        assert!(options.flags.nosuid && options.flags.readonly);
        assert_eq!(options.data, ["mode=755", "size=64k"]);
    }

    #[test]
    fn a_bind_is_an_export() {
        let mount = MountBuilder::default().destination("/x").typ("bind").source("/usr");
        let mount = mount.options(vec!["rbind".to_owned(), "ro".to_owned()]).build().unwrap();
        let mut exports = Vec::new();
        let spec = convert(3, &mount, Path::new("/"), &mut exports, Overlay::None).unwrap().unwrap();
        let plain = RootOverlay::None;
        assert!(
            matches!(spec.kind, MountKind::Bind { export: 0, file: false, overlay, .. } if overlay == plain)
        );
        assert_eq!(exports.first().unwrap().access, Access::Read);
    }

    #[test]
    fn what_is_not_supported_names_its_field() {
        let mount = MountBuilder::default().destination("/x").typ("nfs").source("a:/b").build().unwrap();
        let error = convert(3, &mount, Path::new("/"), &mut Vec::new(), Overlay::None).unwrap_err();
        assert_eq!(error.message, "mounts[3].type: \"nfs\" is not supported (/x)");
        let mount = MountBuilder::default().destination("/x").typ("bind").source("/no/such").build().unwrap();
        let error = convert(0, &mount, Path::new("/"), &mut Vec::new(), Overlay::None).unwrap_err();
        assert_eq!(error.message, "mounts[0].source: /no/such: no such file or directory");
    }
}
