//! The mount tree of a container, from its specification (OCI config.md, "Mounts"; config-linux.md,
//! "Default Filesystems", "Masked Paths", "Readonly Paths").
//!
//! All paths are walked by our own vfs inside the container's root: a symbolic link of the image leads
//! nowhere outside it.

use super::caller::KernelCaller;
use super::failed;
use crate::cgroup::Cgroup;
use crate::control::spec::{
    ContainerSpec, DeviceKind, MountFlags as SpecFlags, MountKind, MountSpec, RootOverlay,
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
use vfs::mount_ops::{self, Depth};
use vfs::overlay::{Layer, OverlayFs, OverlayType, Transience};
use vfs::propagation::Propagation;
use vfs::remote::{Channel, RemoteFs};
use vfs::tmpfs::{TmpFs, TmpfsOptions, TmpfsType};
use vfs::{
    Credentials, FileSystem, Follow, FsContext, LinkTarget, Location, Mount, MountFlags, MountNamespace,
    Walk, ops,
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
    vfs::fuse::register(types);
    types.register_type(crate::fuse::FuseType::new(kernel));
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

/// The container's root and mounts, and the roots of those that the host looks at.
pub(super) fn build(
    kernel: &Arc<Kernel>,
    spec: &ContainerSpec,
    gofer: Option<OwnedFd>,
    views: &Views<'_>,
) -> ControlResult<(FsContext, Vec<Location>)> {
    let gofer = gofer
        .ok_or_else(|| ControlError::new(ErrorKind::Invalid, "no connection to the gofer was donated"))?;
    let channel = Channel::new(gofer);
    let user = Arc::clone(&kernel.root.user);
    let root_caller = KernelCaller::new(Credentials::root(Arc::clone(&user)));
    let by = root_caller.caller(0);
    let root = root_fs(kernel, spec, &channel, &by).map_err(|e| failed("root filesystem", e))?;
    let flags = if spec.root.readonly { MountFlags::RDONLY } else { MountFlags::empty() };
    // Mounted writable while mount points are made in it.
    let source = match spec.root.overlay {
        RootOverlay::Memory => "overlay",
        RootOverlay::None => spec.root.shown.source.as_str(),
    };
    let mount = Mount::of_fs(root, MountFlags::RELATIME, source.as_bytes());
    let ns =
        MountNamespace::new(next_ino(), Arc::clone(&user), Arc::clone(&kernel.files.vfs), Arc::clone(&mount));
    let mut fs = FsContext::at_root_of(&ns);
    fs.umask = 0;
    let walk = Walk::new(&fs, &by);
    let mut viewed = Vec::new();
    for entry in &spec.mounts {
        let made = add(&walk, entry, &channel, kernel, views)
            .map_err(|e| failed(&format!("mounts: {:?}", entry.destination), e))?;
        viewed.extend(entry.viewed.then(|| Location::root_of(&made)));
    }
    devices(&walk, spec, kernel).map_err(|e| failed("linux.devices", e))?;
    propagate(&mount, spec.root.propagation, &ns).map_err(|e| failed("linux.rootfsPropagation", e))?;
    for path in &spec.readonly_paths {
        readonly(&walk, path).map_err(|e| failed(&format!("linux.readonlyPaths: {path:?}"), e))?;
    }
    for path in &spec.masked_paths {
        mask(&walk, path, kernel).map_err(|e| failed(&format!("linux.maskedPaths: {path:?}"), e))?;
    }
    if !flags.is_empty() {
        mount.set_flags(mount.flags() | flags).map_err(|e| failed("root.readonly", e))?;
    }
    fs.umask = 0o022;
    Ok((fs, viewed))
}

/// The writable layer of an overlay: as large as memory, so that statfs(2) says what there is room for.
fn upper_options(kernel: &Kernel) -> TmpfsOptions {
    const BYTES_PER_INODE: u64 = 8192;
    let whole = kernel.frames.memory().limit();
    let inodes = Some(whole / BYTES_PER_INODE);
    TmpfsOptions { size: Some(whole), inodes, perm: 0o755, ..TmpfsOptions::default() }
}

fn root_fs(
    kernel: &Arc<Kernel>,
    spec: &ContainerSpec,
    channel: &Arc<Channel>,
    by: &vfs::Caller<'_>,
) -> SysResult<Arc<dyn FileSystem>> {
    let remote = RemoteFs::attach(channel, 0)?;
    show(&remote, &spec.root.shown.fs_type, &spec.root.shown.place);
    layered(kernel, remote, spec.root.overlay, by)
}

/// Types of the host's file systems that are shown as what they are.
const SHOWN: [&str; 14] = [
    "ext4", "ext3", "ext2", "xfs", "btrfs", "overlay", "tmpfs", "zfs", "f2fs", "nfs", "nfs4", "9p",
    "virtiofs", "vfat",
];

fn show(remote: &RemoteFs, fs_type: &str, place: &str) {
    if let Some(name) = SHOWN.iter().find(|name| **name == fs_type) {
        remote.show_as(name, place);
    }
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
            let options = upper_options(kernel);
            let upper: Arc<dyn FileSystem> = TmpFs::new(&kernel.frames, &options);
            let lower: Arc<dyn FileSystem> = remote;
            let layers = vec![Layer::of_fs(&lower)];
            Ok(OverlayFs::new(Some(Layer::of_fs(&upper)), layers, Transience::Transient, "", by)?)
        }
    }
}

/// Links followed on the way to one place.
const MOST_LINKS: usize = 40;

/// Finds a place, and makes what is missing of it: directories, at the end a directory or an empty file.
/// Links are followed inside the container's root, those that lead to nothing as well: what they name is
/// made.
fn make_place(walk: &Walk<'_>, path: &[u8], kind: FileType) -> SysResult<Location> {
    let split = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(<[u8]>::to_vec)
            .collect()
    };
    // The components that are left, the next one last.
    let mut left: Vec<Vec<u8>> = split(path).into_iter().rev().collect();
    let mut so_far: Vec<Vec<u8>> = Vec::new();
    let joined = |parts: &[Vec<u8>]| [b"/".as_slice(), &parts.join(b"/".as_slice())].concat();
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == b".." {
            so_far.pop();
            continue;
        }
        so_far.push(part);
        let here = joined(&so_far);
        let at = match walk.find(&here, Follow::No) {
            Ok(at) => at,
            Err(Errno::ENOENT) => {
                let kind = if left.is_empty() { kind } else { FileType::Directory };
                make_one(walk, &here, kind)?;
                continue;
            }
            Err(errno) => return Err(errno),
        };
        if at.kind() == Some(FileType::Symlink)
            && let LinkTarget::Path(target) = at.inode()?.read_link(walk.by)?
        {
            links += 1;
            if links > MOST_LINKS {
                return Err(Errno::ELOOP);
            }
            so_far.pop();
            if target.starts_with(b"/") {
                so_far.clear();
            }
            left.extend(split(&target).into_iter().rev());
        }
    }
    walk.find(&joined(&so_far), Follow::No)
}

fn make_one(walk: &Walk<'_>, path: &[u8], kind: FileType) -> SysResult<()> {
    if kind == FileType::Directory {
        return ops::mkdir(walk, path, 0o755);
    }
    match ops::open(walk, path, OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::WRONLY, 0o644) {
        Ok(_) => Ok(()),
        Err(abi::Failure::Errno(errno)) => Err(errno),
        Err(abi::Failure::Restart(_)) => Err(Errno::EINTR),
    }
}

fn add(
    walk: &Walk<'_>,
    entry: &MountSpec,
    channel: &Arc<Channel>,
    kernel: &Arc<Kernel>,
    views: &Views<'_>,
) -> SysResult<Arc<Mount>> {
    let destination = entry.destination.as_bytes();
    let flags = per_mount(entry.flags);
    let source = entry.source.as_bytes();
    let data = entry.data.join(",");
    // The place is found once, and stays what it is whatever happens to its path.
    let folder = |walk| make_place(walk, destination, FileType::Directory);
    let (at, made) = match entry.kind {
        MountKind::Bind { export, overlay, ref fs_type, ref place, .. } => {
            let remote = RemoteFs::attach(channel, export)?;
            show(&remote, fs_type, place);
            let kind = remote.root().kind();
            let kind = if kind == FileType::Directory { kind } else { FileType::Regular };
            let at = make_place(walk, destination, kind)?;
            (at, Mount::of_fs(layered(kernel, remote, overlay, walk.by)?, flags, source))
        }
        MountKind::Mqueue => {
            let queues = Arc::clone(&views.ipc.mqueues) as Arc<dyn FileSystem>;
            (folder(walk)?, Mount::of_fs(queues, flags, source))
        }
        MountKind::Proc => {
            (folder(walk)?, Mount::of_fs(crate::procfs::new(kernel, views.pids), flags, source))
        }
        MountKind::Cgroup => {
            (folder(walk)?, Mount::of_fs(crate::cgroup::filesystem(kernel, views.cgroup), flags, source))
        }
        MountKind::Tmpfs => tmpfs(walk, entry, kernel)?,
        MountKind::Sysfs => (folder(walk)?, mount_ops::make(walk, b"sysfs", source, flags, data.as_bytes())?),
        MountKind::Devpts => {
            (folder(walk)?, mount_ops::make(walk, b"devpts", source, flags, data.as_bytes())?)
        }
    };
    mount_ops::attach(&made, &at, &walk.fs.ns)?;
    propagate(&made, entry.flags.propagation, &walk.fs.ns)?;
    Ok(made)
}

/// A tmpfs: with the mode of the directory it covers, as runc has it, unless one is given; with devices of
/// the kernel's own at /dev, so that the image cannot bring any; with what was there before where asked.
fn tmpfs(walk: &Walk<'_>, entry: &MountSpec, kernel: &Arc<Kernel>) -> SysResult<(Location, Arc<Mount>)> {
    let destination = entry.destination.as_bytes();
    let dev = entry.destination == "/dev";
    let known = walk.find(destination, Follow::Yes).and_then(|at| at.inode()?.attr(walk.by));
    let default = if dev { 0o755 } else { TmpfsOptions::default().perm };
    let perm = known.map_or(default, |attr| attr.perm);
    let whole = kernel.frames.memory().limit();
    let options = TmpfsOptions { perm, ..TmpfsOptions::default() }.with_usual_limits(whole);
    let options = options.parse(entry.data.join(",").as_bytes(), whole, Some(walk.by))?;
    let at = make_place(walk, destination, FileType::Directory)?;
    let fs = TmpFs::new(&kernel.frames, &options);
    if dev {
        devtmpfs::populate(&fs)?;
    }
    let fs: Arc<dyn FileSystem> = fs;
    let flags = per_mount(entry.flags);
    let made = Mount::of_fs(Arc::clone(&fs), flags, entry.source.as_bytes());
    if entry.flags.copy_up {
        let hidden = Mount::of_fs(fs, MountFlags::empty(), b"tmpfs");
        let vfs = Arc::clone(&kernel.files.vfs);
        let ns = MountNamespace::new(next_ino(), Arc::clone(&kernel.root.user), vfs, hidden);
        let inside = FsContext::at_root_of(&ns);
        super::copy_up::fill(walk, destination, &Walk::new(&inside, walk.by))?;
    }
    if flags.contains(MountFlags::RDONLY) {
        made.sb.read_only.store(true, std::sync::atomic::Ordering::Release);
    }
    Ok((at, made))
}

/// Propagation inside the guest: what is shared is shared among its own namespaces.
fn propagate(mount: &Arc<Mount>, asked: u64, ns: &Arc<MountNamespace>) -> SysResult<()> {
    const UNBINDABLE: u64 = 1 << 17;
    const SLAVE: u64 = 1 << 19;
    const SHARED: u64 = 1 << 20;
    let to = if asked & SHARED != 0 {
        Propagation::Shared
    } else if asked & SLAVE != 0 {
        Propagation::Slave
    } else if asked & UNBINDABLE != 0 {
        Propagation::Unbindable
    } else {
        return Ok(());
    };
    mount_ops::set_propagation(&Location::root_of(mount), to, Depth::One, ns)
}

/// A mount of one device node, from a file system that nobody sees.
fn lone_node(walk: &Walk<'_>, kernel: &Kernel, mode: u32, rdev: u64) -> SysResult<Arc<Mount>> {
    let options = TmpfsOptions { perm: 0o755, ..TmpfsOptions::default() };
    let hidden = Mount::of_fs(TmpFs::new(&kernel.frames, &options), MountFlags::NOEXEC, b"tmpfs");
    let vfs = Arc::clone(&kernel.files.vfs);
    let ns = MountNamespace::new(next_ino(), Arc::clone(&kernel.root.user), vfs, Arc::clone(&hidden));
    let inside = FsContext::at_root_of(&ns);
    let inside = Walk::new(&inside, walk.by);
    ops::mknod(&inside, b"/node", mode, rdev)?;
    let node = inside.find(b"/node", Follow::No)?;
    Ok(Mount::new(Arc::clone(&hidden.sb), node.dentry, MountFlags::NOEXEC, b"tmpfs"))
}

fn devices(walk: &Walk<'_>, spec: &ContainerSpec, kernel: &Kernel) -> SysResult<()> {
    for device in &spec.devices {
        let path = device.path.as_bytes();
        let rdev = make_dev(device.major, device.minor);
        if let Ok(at) = walk.find(path, Follow::No) {
            let attr = at.inode()?.attr(walk.by)?;
            if matches!(attr.kind, FileType::CharDevice | FileType::BlockDevice) && attr.rdev == rdev {
                ops::chown(&at, Some(vfs::Kuid(device.uid)), Some(vfs::Kgid(device.gid)), walk.by)?;
                ops::chmod(&at, device.mode & 0o7777, walk.by)?;
            }
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
        match ops::mknod(walk, path, mode, rdev) {
            // A directory of the host holds no devices.
            Err(Errno::EPERM) => {
                let at = make_place(walk, path, FileType::Regular)?;
                mount_ops::attach(&lone_node(walk, kernel, mode, rdev)?, &at, &walk.fs.ns)?;
            }
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

fn mask(walk: &Walk<'_>, path: &str, kernel: &Kernel) -> SysResult<()> {
    let at = match walk.find(path.as_bytes(), Follow::Yes) {
        Ok(at) => at,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(error) => return Err(error),
    };
    if at.kind() == Some(FileType::Directory) {
        let tmpfs = mount_ops::make(walk, b"tmpfs", b"tmpfs", MountFlags::RDONLY, b"size=0k")?;
        return mount_ops::attach(&tmpfs, &at, &walk.fs.ns);
    }
    // A null device of the kernel's own: the image's /dev/null could be anything.
    let null = lone_node(walk, kernel, FileType::CharDevice.mode_bits() | 0o666, make_dev(1, 3))?;
    mount_ops::attach(&null, &at, &walk.fs.ns)
}
