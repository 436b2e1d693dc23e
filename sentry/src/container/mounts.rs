//! The mount tree of a container, from its specification (OCI config.md, "Mounts"; config-linux.md,
//! "Default Filesystems", "Masked Paths", "Readonly Paths").
//!
//! All paths are walked by our own vfs inside the container's root: a symbolic link of the image leads
//! nowhere outside it.

use super::caller::KernelCaller;
use super::failed;
use crate::cgroup::Cgroup;
use crate::control::spec::{
    ContainerSpec, DeviceKind, DeviceSpec, MountFlags as SpecFlags, MountKind, MountSpec, RootOverlay,
};
use crate::control::{ControlError, ControlResult, ErrorKind};
use crate::ipc::IpcNs;
use crate::ipc::mqueue::MqueueType;
use crate::kernel::Kernel;
use crate::namespace::next_ino;
use crate::process::pid::PidNs;
use abi::fs::{FileType, OpenFlags, make_dev};
use abi::{Errno, SysResult};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vfs::devtmpfs::{self, DevtmpfsType};
use vfs::mount_ops::{self, Depth, MountCall};
use vfs::overlay::{Layer, OverlayFs, OverlayType, Transience};
use vfs::remote::{Channel, RemoteFs};
use vfs::tmpfs::{TmpFs, TmpfsOptions, TmpfsType};
use vfs::{
    Credentials, FileSystem, Follow, FsContext, Location, Mount, MountFlags, MountNamespace, Walk, ops,
};

/// What the file systems of a container show.
pub(super) struct Views<'a> {
    /// Processes of its proc.
    pub(super) pids: &'a Arc<PidNs>,
    /// Root of its cgroup2.
    pub(super) cgroup: &'a Arc<Cgroup>,
    /// Queues of its mqueue.
    pub(super) ipc: &'a Arc<IpcNs>,
}

/// Registers the file system types and devices of a sandbox.
pub(super) fn register(kernel: &Arc<Kernel>) -> SysResult<()> {
    let types = &kernel.files.vfs;
    types.register_type(TmpfsType::new(&kernel.frames, "tmpfs"));
    types.register_type(TmpfsType::new(&kernel.frames, "ramfs"));
    types.register_type(Arc::new(OverlayType));
    types.register_type(DevtmpfsType::new(&kernel.frames)?);
    types.register_type(crate::procfs::ProcType::new(kernel));
    types.register_type(crate::sysfs::SysfsType::new(kernel));
    types.register_type(crate::cgroup::CgroupType::new(kernel));
    types.register_type(MqueueType::new(&kernel.root.proxy.ipc));
    devtmpfs::register_memory_devices(types);
    vfs::devpts::register(types, &kernel.files.terminals);
    crate::signal::terminal::connect(kernel);
    crate::signal::sigio::connect(kernel);
    vfs::event::host::prepare()?;
    Ok(())
}

fn per_mount(flags: SpecFlags) -> MountFlags {
    let mut out = MountFlags::empty();
    out.set(MountFlags::RDONLY, flags.readonly);
    out.set(MountFlags::NOSUID, flags.nosuid);
    out.set(MountFlags::NODEV, flags.nodev);
    out.set(MountFlags::NOEXEC, flags.noexec);
    out.set(MountFlags::NOATIME, flags.noatime);
    out.set(MountFlags::NODIRATIME, flags.nodiratime);
    out.set(MountFlags::RELATIME, flags.relatime || !(flags.noatime || flags.strictatime));
    out
}

/// The container's root and mounts.
pub(super) fn build(
    kernel: &Arc<Kernel>,
    spec: &ContainerSpec,
    gofer: Option<OwnedFd>,
    views: &Views<'_>,
) -> ControlResult<FsContext> {
    let gofer = gofer
        .ok_or_else(|| ControlError::new(ErrorKind::Invalid, "no connection to the gofer was donated"))?;
    let channel = Channel::new(gofer);
    let user = Arc::clone(&kernel.root.user);
    let root_caller = KernelCaller::new(Credentials::root(Arc::clone(&user)));
    let by = root_caller.caller(0);
    let root = root_fs(kernel, spec, &channel, &by).map_err(|e| failed("root filesystem", e))?;
    let flags = if spec.root.readonly { MountFlags::RDONLY } else { MountFlags::empty() };
    // Mounted writable while mount points are made in it.
    let mount = Mount::of_fs(root, MountFlags::RELATIME, b"none");
    let ns =
        MountNamespace::new(next_ino(), Arc::clone(&user), Arc::clone(&kernel.files.vfs), Arc::clone(&mount));
    let mut fs = FsContext::at_root_of(&ns);
    fs.umask = 0;
    let walk = Walk::new(&fs, &by);
    for entry in &spec.mounts {
        add(&walk, entry, &channel, kernel, views)
            .map_err(|e| failed(&format!("mounts: {:?}", entry.destination), e))?;
    }
    devices(&walk, spec, kernel).map_err(|e| failed("linux.devices", e))?;
    for path in &spec.readonly_paths {
        readonly(&walk, path).map_err(|e| failed(&format!("linux.readonlyPaths: {path:?}"), e))?;
    }
    for path in &spec.masked_paths {
        mask(&walk, path).map_err(|e| failed(&format!("linux.maskedPaths: {path:?}"), e))?;
    }
    if !flags.is_empty() {
        mount.set_flags(mount.flags() | flags).map_err(|e| failed("root.readonly", e))?;
    }
    fs.umask = 0o022;
    Ok(fs)
}

fn root_fs(
    kernel: &Arc<Kernel>,
    spec: &ContainerSpec,
    channel: &Arc<Channel>,
    by: &vfs::Caller<'_>,
) -> SysResult<Arc<dyn FileSystem>> {
    let remote = RemoteFs::attach(channel, 0, vfs::vfs::anon_dev())?;
    layered(kernel, remote, spec.root.overlay, by)
}

/// A tree of the host, or one over it whose changes are the sandbox' own.
fn layered(
    kernel: &Arc<Kernel>,
    remote: Arc<RemoteFs>,
    overlay: RootOverlay,
    by: &vfs::Caller<'_>,
) -> SysResult<Arc<dyn FileSystem>> {
    match overlay {
        RootOverlay::None => Ok(remote),
        RootOverlay::Memory => {
            let options = TmpfsOptions { perm: 0o755, ..TmpfsOptions::default() };
            let upper: Arc<dyn FileSystem> = TmpFs::new(&kernel.frames, &options);
            let lower: Arc<dyn FileSystem> = remote;
            let layers = vec![Layer::of_fs(&lower)];
            Ok(OverlayFs::new(Some(Layer::of_fs(&upper)), layers, Transience::Transient, "", by)?)
        }
    }
}

/// Makes a path's directories, and its last component as a directory or an empty file.
fn make_place(walk: &Walk<'_>, path: &[u8], kind: FileType) -> SysResult<Location> {
    match walk.find(path, Follow::Yes) {
        Err(Errno::ENOENT) => {}
        other => return other,
    }
    let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    let mut so_far = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        so_far.push(b'/');
        so_far.extend_from_slice(part);
        if walk.find(&so_far, Follow::Yes).is_ok() {
            continue;
        }
        if at + 1 == parts.len() && kind != FileType::Directory {
            let flags = OpenFlags::CREAT | OpenFlags::WRONLY;
            match ops::open(walk, &so_far, flags, 0o644) {
                Ok(_) => {}
                Err(abi::Failure::Errno(errno)) => return Err(errno),
                Err(abi::Failure::Restart(_)) => return Err(Errno::EINTR),
            }
        } else {
            ops::mkdir(walk, &so_far, 0o755)?;
        }
    }
    walk.find(path, Follow::Yes)
}

fn add(
    walk: &Walk<'_>,
    entry: &MountSpec,
    channel: &Arc<Channel>,
    kernel: &Arc<Kernel>,
    views: &Views<'_>,
) -> SysResult<()> {
    let destination = entry.destination.as_bytes();
    let ns = &walk.fs.ns;
    let flags = per_mount(entry.flags);
    let data = entry.data.join(",");
    let made = match entry.kind {
        MountKind::Bind { export, overlay, .. } => {
            let remote = RemoteFs::attach(channel, export, vfs::vfs::anon_dev())?;
            let kind = remote.root().kind();
            make_place(
                walk,
                destination,
                if kind == FileType::Directory { kind } else { FileType::Regular },
            )?;
            Mount::of_fs(layered(kernel, remote, overlay, walk.by)?, flags, b"none")
        }
        MountKind::Mqueue => {
            make_place(walk, destination, FileType::Directory)?;
            Mount::of_fs(Arc::clone(&views.ipc.mqueues) as Arc<dyn FileSystem>, flags, b"mqueue")
        }
        MountKind::Proc => {
            make_place(walk, destination, FileType::Directory)?;
            Mount::of_fs(crate::procfs::new(kernel, views.pids), flags, b"proc")
        }
        MountKind::Cgroup => {
            make_place(walk, destination, FileType::Directory)?;
            Mount::of_fs(crate::cgroup::filesystem(kernel, views.cgroup), flags, b"cgroup")
        }
        MountKind::Tmpfs if entry.destination == "/dev" => {
            // Devices are the kernel's own: the image cannot bring any.
            make_place(walk, destination, FileType::Directory)?;
            let whole = kernel.frames.memory().limit();
            let options = TmpfsOptions { perm: 0o755, ..TmpfsOptions::default() };
            let dev = TmpFs::new(&kernel.frames, &options.parse(data.as_bytes(), whole, Some(walk.by))?);
            devtmpfs::populate(&dev)?;
            Mount::of_fs(dev, flags, b"tmpfs")
        }
        ref kind => {
            make_place(walk, destination, FileType::Directory)?;
            let (name, source): (&[u8], &[u8]) = match kind {
                MountKind::Sysfs => (b"sysfs", b"sysfs"),
                MountKind::Devpts => (b"devpts", b"devpts"),
                _ => (b"tmpfs", b"tmpfs"),
            };
            match mount_ops::make(walk, name, source, flags, data.as_bytes()) {
                // Nearly every bundle lists these: a kernel without them leaves the directory as it is.
                Err(Errno::ENODEV) if matches!(kind, MountKind::Cgroup) => {
                    let kind = String::from_utf8_lossy(name);
                    kernel.trace.log(&format!("mounts: {:?} left out: no {kind} here", entry.destination));
                    return Ok(());
                }
                other => other?,
            }
        }
    };
    let at = walk.find(destination, Follow::Yes)?;
    mount_ops::attach(&made, &at, ns)
}

/// Makes a node in a file system that nobody sees, and mounts it at its place.
fn bind_node(walk: &Walk<'_>, kernel: &Kernel, device: &DeviceSpec, mode: u32) -> SysResult<()> {
    let options = TmpfsOptions { perm: 0o755, ..TmpfsOptions::default() };
    let hidden = Mount::of_fs(TmpFs::new(&kernel.frames, &options), MountFlags::NOEXEC, b"tmpfs");
    let vfs = Arc::clone(&kernel.files.vfs);
    let ns = MountNamespace::new(next_ino(), Arc::clone(&kernel.root.user), vfs, Arc::clone(&hidden));
    let inside = FsContext::at_root_of(&ns);
    let inside = Walk::new(&inside, walk.by);
    ops::mknod(&inside, b"/node", mode, make_dev(device.major, device.minor))?;
    let node = inside.find(b"/node", Follow::No)?;
    let made = Mount::new(Arc::clone(&hidden.sb), node.dentry, MountFlags::NOEXEC, b"tmpfs");
    let at = make_place(walk, device.path.as_bytes(), FileType::Regular)?;
    mount_ops::attach(&made, &at, &walk.fs.ns)
}

fn devices(walk: &Walk<'_>, spec: &ContainerSpec, kernel: &Kernel) -> SysResult<()> {
    for device in &spec.devices {
        let path = device.path.as_bytes();
        if walk.find(path, Follow::No).is_ok() {
            continue;
        }
        if let Some(end) = path.iter().rposition(|byte| *byte == b'/')
            && let Some(parent) = path.get(..end)
            && !parent.is_empty()
        {
            make_place(walk, parent, FileType::Directory)?;
        }
        let kind = match device.kind {
            DeviceKind::Char => FileType::CharDevice,
            DeviceKind::Block => FileType::BlockDevice,
            DeviceKind::Fifo => FileType::Fifo,
        };
        let mode = kind.mode_bits() | (device.mode & 0o7777);
        match ops::mknod(walk, path, mode, make_dev(device.major, device.minor)) {
            // A directory of the host holds no devices.
            Err(Errno::EPERM) => bind_node(walk, kernel, device, mode)?,
            other => other?,
        }
        let at = walk.find(path, Follow::No)?;
        ops::chown(&at, Some(vfs::Kuid(device.uid)), Some(vfs::Kgid(device.gid)), walk.by)?;
    }
    Ok(())
}

fn readonly(walk: &Walk<'_>, path: &str) -> SysResult<()> {
    let at = match walk.find(path.as_bytes(), Follow::Yes) {
        Ok(at) => at,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(error) => return Err(error),
    };
    mount_ops::bind(&at, &at, Depth::Tree, &walk.fs.ns)?;
    let at = walk.find(path.as_bytes(), Follow::Yes)?;
    let flags = at.mount.flags() | MountFlags::RDONLY;
    mount_ops::remount_bind(&at, flags, &walk.fs.ns)
}

fn mask(walk: &Walk<'_>, path: &str) -> SysResult<()> {
    let at = match walk.find(path.as_bytes(), Follow::Yes) {
        Ok(at) => at,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(error) => return Err(error),
    };
    if at.kind() == Some(FileType::Directory) {
        return mount_ops::mount(walk, b"tmpfs", path.as_bytes(), b"tmpfs", MountCall::RDONLY, b"size=0k");
    }
    match walk.find(b"/dev/null", Follow::Yes) {
        Ok(null) => mount_ops::bind(&null, &at, Depth::One, &walk.fs.ns),
        Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error),
    }
}
