//! What others find through the monitor's pid.
//!
//! Callers take the pid of the pid-file for the container's first process: `podman cp` enters its mount
//! namespace and walks the container's paths there, `--network container:` names its network namespace. So
//! the monitor leaves the host's: its root is the container's root file system, with the binds of the bundle
//! where the container has them. File systems of the guest's kernel (tmpfs, proc, sysfs) have no host side.
//! Where the host has FUSE, the sentry shows it what is in a tmpfs, to be read and changed, and /proc shows the guest's
//! processes (`proc_view`); in the place of the others, /dev among them, stands an empty, read-only tmpfs, so that
//! nothing is put below them unseen.

use super::gofer::detached;
use super::launch::Launched;
use super::proc_view::ProcView;
use crate::error::{Doing, Outcome};
use crate::spec::Plan;
use crate::spec::convert::Net;
use nix::sched::{CloneFlags, setns};
use platform::spawn::{MountAttr, enter_root, restrict_mount};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
};
use rustix::thread::UnshareFlags;
use sentry::control::spec::{MountKind, MountSpec};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Most mounts of a container that are viewed.
const VIEWS_MAX: usize = 16;

/// What nothing of a guest's may do on the host.
const HARMLESS: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// One thing mounted over the root.
struct Over {
    destination: PathBuf,
    mount: OwnedFd,
    /// A tmpfs of ours: mount points may be made in it.
    device: Option<u64>,
    /// What its mount point is.
    shape: FileType,
}

/// Connections for the tmpfs mounts of a container, which are marked as viewed. None with ids of a user namespace: the
/// guest counts in its own, who looks at it in the host's.
pub(crate) fn connections(plan: &mut Plan) -> Vec<OwnedFd> {
    if !plan.container.uid_mappings.is_empty() {
        return Vec::new();
    }
    let is_viewed = |mount: &&mut MountSpec| mount.kind == MountKind::Tmpfs && mount.destination != "/dev";
    let mounts = plan.container.mounts.iter_mut().filter(is_viewed).take(VIEWS_MAX);
    let connect = |mount: &mut MountSpec| {
        let device = super::proc_view::device()?;
        mount.viewed = true;
        Some(device)
    };
    mounts.filter_map(connect).collect()
}

/// The file systems behind such connections, as detached mounts. They are there before the sentry asks what is wanted
/// of it; one that cannot be made is never asked for.
pub(crate) fn guest_mounts(connections: &[OwnedFd]) -> Vec<Option<OwnedFd>> {
    let make = |device: &OwnedFd| {
        let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let fd = device.as_raw_fd().to_string();
        for (key, value) in [("fd", fd.as_str()), ("rootmode", "40755"), ("user_id", "0"), ("group_id", "0")]
        {
            fsconfig_set_string(&context, key, value)?;
        }
        for flag in ["allow_other", "default_permissions"] {
            fsconfig_set_flag(&context, flag)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, HARMLESS)
    };
    let made = connections.iter().map(make);
    made.map(|mount: Result<OwnedFd, Errno>| mount.ok()).collect()
}

/// Moves this process, the monitor, into its container's view. Where the host allows no mount namespace, it
/// stays where it is. `fuse` is a connection for /proc, `guest` has the file systems of viewed mounts.
pub(crate) fn enter(
    plan: &Plan,
    launched: &Launched,
    fuse: Option<OwnedFd>,
    guest: Vec<Option<OwnedFd>>,
) -> Outcome<Option<ProcView>> {
    network(plan, launched)?;
    if super::walls::unshare(UnshareFlags::NEWNS).is_err() {
        return Ok(None);
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing(|| "making the mounts private")?;
    let Some(root) = plan.exports.first() else { return Ok(None) };
    let (proc_mount, proc_view) = fuse.and_then(|fuse| ProcView::new(fuse, &plan.container.id)).unzip();
    let root = detached(root)?;
    let mut proc_at = None;
    let mut guest = guest.into_iter();
    let over = plan.container.mounts.iter().map(|mount| {
        let destination = PathBuf::from(&mount.destination);
        match mount.kind {
            MountKind::Bind { export, file, .. } => {
                let export = usize::try_from(export).ok().and_then(|at| plan.exports.get(at));
                let Some(export) = export else { return Ok(None) };
                let shape = if file { FileType::RegularFile } else { FileType::Directory };
                Ok(Some(Over { destination, mount: detached(export)?, device: None, shape }))
            }
            MountKind::Proc if proc_mount.is_some() => {
                proc_at = Some(destination);
                Ok(None)
            }
            _ => {
                if let Some(mount) = mount.viewed.then(|| guest.next().flatten()).flatten() {
                    return Ok(Some(Over { destination, mount, device: None, shape: FileType::Directory }));
                }
                let mount = tmpfs()?;
                let device = fstat(&mount).doing(|| "tmpfs")?.st_dev;
                Ok(Some(Over { destination, mount, device: Some(device), shape: FileType::Directory }))
            }
        }
    });
    let mut over = over.filter_map(Result::transpose).collect::<Outcome<Vec<Over>>>()?;
    if let (Some(mount), Some(destination)) = (proc_mount, proc_at) {
        // It comes last: a path that led through it would wait for an answer of this process.
        over.push(Over { destination, mount, device: None, shape: FileType::Directory });
    }
    enter_root(root.as_fd()).doing(|| "entering the container's root")?;
    let own: Vec<u64> = over.iter().filter_map(|over| over.device).collect();
    for each in &over {
        if let Some(target) = place(root.as_fd(), each, &own) {
            let how = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            let _ = move_mount(&each.mount, "", &target, "", how);
        }
    }
    for each in over.iter().filter(|over| over.device.is_some()) {
        let _ = restrict_mount(each.mount.as_fd(), MountAttr::READONLY);
    }
    Ok(proc_view)
}

/// The container's network namespace, or the sentry's empty one for a new one.
fn network(plan: &Plan, launched: &Launched) -> Outcome<()> {
    match (&plan.net, &launched.sentry) {
        (Net::New, Some(sentry)) if !super::network::is_set_up_by_hooks(plan) => {
            let _ = setns(&sentry.pidfd, CloneFlags::CLONE_NEWNET);
        }
        (Net::Path(path), _) => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = openat(CWD, path, flags, Mode::empty()).doing(|| path.display())?;
            let _ = setns(&file, CloneFlags::CLONE_NEWNET);
        }
        _ => {}
    }
    Ok(())
}

fn tmpfs() -> Outcome<OwnedFd> {
    let make = || {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in [("size", "65536"), ("nr_inodes", "128"), ("mode", "0755")] {
            fsconfig_set_string(&context, key, value)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, HARMLESS)
    };
    let made: Result<OwnedFd, Errno> = make();
    made.doing(|| "tmpfs")
}

/// The mount point, never outside the root. It is made only in a tmpfs of ours: the image's own are made by
/// the sandbox.
fn place(root: BorrowedFd<'_>, over: &Over, own: &[u64]) -> Option<OwnedFd> {
    let find = |path: &Path| {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).ok()
    };
    if let Some(found) = find(&over.destination) {
        return Some(found);
    }
    let mut so_far = PathBuf::from("/");
    let parts: Vec<Component<'_>> = over.destination.components().collect();
    for (at, part) in parts.iter().enumerate() {
        let Component::Normal(name) = part else { continue };
        let parent = find(&so_far)?;
        so_far.push(name);
        if find(&so_far).is_some() {
            continue;
        }
        if !own.contains(&fstat(&parent).ok()?.st_dev) {
            return None;
        }
        if at + 1 == parts.len() && over.shape != FileType::Directory {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&parent, *name, flags, Mode::from_raw_mode(0o644)).ok()?;
        } else {
            mkdirat(&parent, *name, Mode::from_raw_mode(0o755)).ok()?;
        }
    }
    find(&so_far)
}
