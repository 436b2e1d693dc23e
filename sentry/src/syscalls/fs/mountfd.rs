//! The mount calls that work on descriptors: fsopen(2), fspick(2), fsconfig(2), fsmount(2), open_tree(2),
//! move_mount(2), mount_setattr(2).
//!
//! A file system context is a file that gathers options; a detached mount is an O_PATH file at its root, with a
//! mount namespace that only it knows ([`Detached`]).

use super::open::install;
use super::{AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, follow_unless, only, place};
use crate::task::Cx;
use abi::fs::{FileType, OpenFlags};
use abi::{CallResult, DirFd, Errno, Fd, SysResult, UserAddr, UserCStr, UserPtr};
use lock::Ranked;
use lock::order::FileObject;
use std::any::Any;
use std::sync::Arc;
use vfs::mount_ops::{self, Depth};
use vfs::propagation::Propagation;
use vfs::{Attr, FileOps, Follow, Location, Mount, MountFlags, MountNamespace, OpenFile, Walk};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const AT_RECURSIVE: u32 = 0x8000;
const ATTR_RDONLY: u64 = 1;
const ATTR_NOSUID: u64 = 2;
const ATTR_NODEV: u64 = 4;
const ATTR_NOEXEC: u64 = 8;
const ATTR_ATIME: u64 = 0x70;
const ATTR_NOATIME: u64 = 0x10;
const ATTR_STRICTATIME: u64 = 0x20;
const ATTR_NODIRATIME: u64 = 0x80;
const ATTR_IDMAP: u64 = 0x10_0000;
const ATTR_NOSYMFOLLOW: u64 = 0x20_0000;
const ATTR_KNOWN: u64 = 0x2000ff;

/// What a context is about.
enum Purpose {
    /// A new instance of a type (fsopen).
    New { kind: Vec<u8> },
    /// Options of a mounted one (fspick).
    Change { at: Location },
}

#[derive(Default)]
struct Options {
    source: Vec<u8>,
    data: Vec<Vec<u8>>,
    /// As asked for; a change leaves it otherwise.
    read_only: Option<bool>,
    made: Option<Arc<Mount>>,
    dead: bool,
}

impl Options {
    /// Parameters of every file system, whatever is given with them. Returns whether it is one.
    fn set_common(&mut self, key: &[u8]) -> bool {
        match key {
            b"ro" => self.read_only = Some(true),
            b"rw" => self.read_only = Some(false),
            b"sync" | b"async" | b"dirsync" | b"lazytime" | b"nolazytime" | b"mand" | b"nomand"
            | b"silent" => {}
            _ => return false,
        }
        true
    }
}

/// A file system context.
struct FsConfig {
    purpose: Purpose,
    options: Ranked<FileObject, Options>,
}

impl FileOps for FsConfig {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn read(
        &self,
        _io: &vfs::Io<'_>,
        _dst: &mut dyn mm::GuestSink,
        _by: &vfs::Caller<'_>,
    ) -> SysResult<usize> {
        // The log of messages is empty.
        Err(Errno::ENODATA)
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(Ok(vfs::event::anon::shared_attr()))
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(b"anon_inode:[fscontext]".to_vec())
    }
}

/// An O_PATH file that is a mount of its own (fsmount, open_tree with OPEN_TREE_CLONE). Dropped, it is unmounted.
struct Detached {
    // Keeps the tree together until it is moved.
    _namespace: Option<Arc<MountNamespace>>,
}

impl FileOps for Detached {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read_dir(
        &self,
        _file: &OpenFile,
        _cookie: u64,
        _sink: &mut dyn vfs::DirSink,
        _by: &vfs::Caller<'_>,
    ) -> SysResult<u64> {
        Err(Errno::EBADF)
    }
    fn mappable(&self, _file: &OpenFile) -> SysResult<Arc<dyn mm::Mappable>> {
        Err(Errno::EBADF)
    }
}

fn with_walk<T>(cx: &Cx<'_>, act: impl FnOnce(&Walk<'_>) -> CallResult<T>) -> CallResult<T> {
    super::walk_at(cx, DirFd::Cwd, b"/", act)
}

fn may_mount(cx: &Cx<'_>) -> SysResult<()> {
    mount_ops::may_mount(&cx.fs().snapshot().ns, &cx.caller())
}

fn on_exec(flags: u32, cloexec: u32) -> OpenFlags {
    if flags & cloexec != 0 { OpenFlags::CLOEXEC } else { OpenFlags::empty() }
}

/// fsopen(2).
pub fn fsopen(cx: &mut Cx<'_>, name: UserCStr, flags: u32) -> CallResult<Fd> {
    const CLOEXEC: u32 = 1;
    may_mount(cx)?;
    only(flags, CLOEXEC)?;
    let kind = cx.path(name)?;
    cx.fs().snapshot().ns.vfs.fs_type(&kind)?;
    let context = FsConfig { purpose: Purpose::New { kind }, options: Ranked::default() };
    install(cx, OpenFile::anonymous(Arc::new(context), OpenFlags::RDWR), on_exec(flags, CLOEXEC))
}

/// fspick(2).
pub fn fspick(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, flags: u32) -> CallResult<Fd> {
    const CLOEXEC: u32 = 1;
    const SYMLINK_NOFOLLOW: u32 = 2;
    const NO_AUTOMOUNT: u32 = 4;
    const EMPTY_PATH: u32 = 8;
    may_mount(cx)?;
    only(flags, CLOEXEC | SYMLINK_NOFOLLOW | NO_AUTOMOUNT | EMPTY_PATH)?;
    let path = cx.path(path)?;
    let follow = if flags & SYMLINK_NOFOLLOW != 0 { Follow::No } else { Follow::Yes };
    let at = place(cx, dirfd, &path, if flags & EMPTY_PATH != 0 { AT_EMPTY_PATH } else { 0 }, follow)?;
    if !at.is_mount_root() {
        return Err(Errno::EINVAL.into());
    }
    let context = FsConfig { purpose: Purpose::Change { at }, options: Ranked::default() };
    install(cx, OpenFile::anonymous(Arc::new(context), OpenFlags::RDWR), on_exec(flags, CLOEXEC))
}

/// fsconfig(2).
pub fn fsconfig(
    cx: &mut Cx<'_>,
    fd: Fd,
    command: u32,
    key: UserCStr,
    value: UserAddr,
    aux: i32,
) -> CallResult<()> {
    const SET_FLAG: u32 = 0;
    const SET_STRING: u32 = 1;
    const SET_BINARY: u32 = 2;
    const SET_FD: u32 = 5;
    const CMD_CREATE: u32 = 6;
    const CMD_RECONFIGURE: u32 = 7;
    const CMD_CREATE_EXCL: u32 = 8;
    if command > CMD_CREATE_EXCL {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let file = cx.files().get_io(fd)?;
    let context = file.downcast::<FsConfig>().ok_or(Errno::EINVAL)?;
    let keyed = || -> SysResult<Vec<u8>> {
        let key = cx.mm().read_cstr(key, 256)?;
        if key.is_empty() || aux != 0 { Err(Errno::EINVAL) } else { Ok(key) }
    };
    let nothing = key.addr().is_null() && value.is_null() && aux == 0;
    match command {
        SET_FLAG => {
            let key = keyed()?;
            if !value.is_null() {
                return Err(Errno::EINVAL.into());
            }
            let mut options = context.options.lock();
            if !options.set_common(&key) {
                options.data.push(key);
            }
            Ok(())
        }
        SET_STRING => {
            let key = keyed()?;
            let value = cx.mm().read_cstr(UserCStr::new(value), 256)?;
            let mut options = context.options.lock();
            if options.set_common(&key) {
                return Ok(());
            }
            if key == b"source" {
                if !options.source.is_empty() {
                    return Err(Errno::EINVAL.into());
                }
                options.source = value;
            } else {
                options.data.push([key.as_slice(), b"=", value.as_slice()].concat());
            }
            Ok(())
        }
        CMD_CREATE | CMD_CREATE_EXCL if nothing => create(cx, context),
        CMD_RECONFIGURE if nothing => reconfigure(cx, context),
        // Binary values, paths and descriptors are no parameters of any file system here, but what is common to
        // all is known by its name alone.
        SET_BINARY..=SET_FD if !key.addr().is_null() => {
            let key = cx.mm().read_cstr(key, 256)?;
            if context.options.lock().set_common(&key) { Ok(()) } else { Err(Errno::EINVAL.into()) }
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn create(cx: &Cx<'_>, context: &FsConfig) -> CallResult<()> {
    may_mount(cx)?;
    let Purpose::New { kind } = &context.purpose else { return Err(Errno::EINVAL.into()) };
    let (source, data, read_only) = {
        let options = context.options.lock();
        if options.made.is_some() || options.dead {
            return Err(Errno::EBUSY.into());
        }
        (options.source.clone(), options.data.join(&b','), options.read_only)
    };
    let flags = if read_only == Some(true) { MountFlags::RDONLY } else { MountFlags::empty() };
    let made = with_walk(cx, |walk| Ok(mount_ops::make(walk, kind, &source, flags, &data)?));
    let mut options = context.options.lock();
    match made {
        Ok(made) => {
            options.made = Some(made);
            Ok(())
        }
        Err(error) => {
            options.dead = true;
            Err(error)
        }
    }
}

fn reconfigure(cx: &Cx<'_>, context: &FsConfig) -> CallResult<()> {
    let Purpose::Change { at } = &context.purpose else { return Err(Errno::EBUSY.into()) };
    may_mount(cx)?;
    let (data, read_only) = {
        let mut options = context.options.lock();
        (std::mem::take(&mut options.data).join(&b','), options.read_only)
    };
    at.mount.sb.fs.remount(&data)?;
    if let Some(read_only) = read_only {
        at.mount.sb.read_only.store(read_only, std::sync::atomic::Ordering::Release);
    }
    Ok(())
}

/// The flags of a mount, from MOUNT_ATTR_*.
fn flags_of(attr: u64) -> SysResult<MountFlags> {
    let mut flags = MountFlags::empty();
    for (bit, flag) in PLAIN {
        flags.set(flag, attr & bit != 0);
    }
    match attr & ATTR_ATIME {
        0 => flags |= MountFlags::RELATIME,
        ATTR_NOATIME => flags |= MountFlags::NOATIME,
        ATTR_STRICTATIME => {}
        _ => return Err(Errno::EINVAL),
    }
    Ok(flags)
}

const PLAIN: [(u64, MountFlags); 6] = [
    (ATTR_RDONLY, MountFlags::RDONLY),
    (ATTR_NOSUID, MountFlags::NOSUID),
    (ATTR_NODEV, MountFlags::NODEV),
    (ATTR_NOEXEC, MountFlags::NOEXEC),
    (ATTR_NODIRATIME, MountFlags::NODIRATIME),
    (ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
];

/// An O_PATH file at the root of a mount that hangs nowhere.
fn detached(cx: &Cx<'_>, mount: &Arc<Mount>) -> Arc<OpenFile> {
    let now = cx.fs().snapshot();
    let ns = MountNamespace::new(
        // No process lives in it.
        0,
        Arc::clone(&cx.cred().user_ns),
        Arc::clone(&now.ns.vfs),
        Arc::clone(mount),
    );
    let ops = Detached { _namespace: Some(ns) };
    OpenFile::at(Location::root_of(mount), Arc::new(ops), OpenFlags::PATH)
}

/// fsmount(2).
pub fn fsmount(cx: &mut Cx<'_>, fd: Fd, flags: u32, attr: u32) -> CallResult<Fd> {
    const CLOEXEC: u32 = 1;
    may_mount(cx)?;
    only(flags, CLOEXEC)?;
    let attr = u64::from(attr);
    if attr & !ATTR_KNOWN != 0 {
        return Err(Errno::EINVAL.into());
    }
    let wanted = flags_of(attr)?;
    let file = cx.files().get_io(fd)?;
    let context = file.downcast::<FsConfig>().ok_or(Errno::EINVAL)?;
    let made = context.options.lock().made.take().ok_or(Errno::EINVAL)?;
    made.set_flags(wanted | (made.flags() & MountFlags::NODEV))?;
    install(cx, detached(cx, &made), on_exec(flags, CLOEXEC))
}

/// open_tree(2).
pub fn open_tree(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, flags: u32) -> CallResult<Fd> {
    const CLONE: u32 = 1;
    let cloexec = OpenFlags::CLOEXEC.bits();
    only(flags, AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | CLONE | cloexec)?;
    if flags & (AT_RECURSIVE | CLONE) == AT_RECURSIVE {
        return Err(Errno::EINVAL.into());
    }
    if flags & CLONE != 0 {
        may_mount(cx)?;
    }
    let path = cx.path(path)?;
    let at = place(cx, dirfd, &path, flags, follow_unless(flags))?;
    let file = if flags & CLONE != 0 {
        let depth = if flags & AT_RECURSIVE != 0 { Depth::Tree } else { Depth::One };
        let copy = mount_ops::clone_place(&at, depth, &own_namespace(cx, &at))?;
        detached(cx, &copy)
    } else {
        OpenFile::at(at, Arc::new(Detached { _namespace: None }), OpenFlags::PATH)
    };
    install(cx, file, on_exec(flags, cloexec))
}

/// move_mount(2).
pub fn move_mount(
    cx: &mut Cx<'_>,
    from_dir: DirFd,
    from: UserCStr,
    to_dir: DirFd,
    to: UserCStr,
    flags: u32,
) -> CallResult<()> {
    const F_SYMLINKS: u32 = 1;
    const F_EMPTY: u32 = 4;
    const T_SYMLINKS: u32 = 0x10;
    const T_EMPTY: u32 = 0x40;
    const BENEATH: u32 = 0x200;
    only(flags, 0x77 | BENEATH)?;
    may_mount(cx)?;
    let half = |dir: DirFd, path: UserCStr, links: u32, empty: u32| -> CallResult<Location> {
        let path = cx.path(path)?;
        let follow = if flags & links != 0 { Follow::Yes } else { Follow::No };
        place(cx, dir, &path, if flags & empty != 0 { AT_EMPTY_PATH } else { 0 }, follow)
    };
    let from = half(from_dir, from, F_SYMLINKS, F_EMPTY)?;
    let to = half(to_dir, to, T_SYMLINKS, T_EMPTY)?;
    let ns = Arc::clone(&cx.fs().snapshot().ns);
    if flags & BENEATH != 0 {
        return Ok(mount_ops::move_beneath(&from, &to, &cx.fs().snapshot().root, &ns)?);
    }
    let foreign = from.mount.namespace().is_some_and(|of| !Arc::ptr_eq(&of, &ns));
    if !foreign && from.mount.above().is_some() {
        return Ok(mount_ops::move_mount(&from, &to, &ns)?);
    }
    // The root of a tree of its own: the whole tree is hung.
    if !from.is_mount_root() || from.mount.above().is_some() {
        return Err(Errno::EINVAL.into());
    }
    let dir = from.kind() == Some(FileType::Directory);
    if dir != (to.kind() == Some(FileType::Directory)) {
        return Err(Errno::ENOTDIR.into());
    }
    mount_ops::take_over(&from.mount)?;
    Ok(mount_ops::attach(&from.mount, &to, &ns)?)
}

/// `struct mount_attr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

fn read_attr(cx: &Cx<'_>, attr: UserAddr, size: usize) -> SysResult<MountAttr> {
    let known = size_of::<MountAttr>();
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    if size < known {
        return Err(Errno::EINVAL);
    }
    let mut tail = vec![0; size - known];
    cx.mm().read_bytes(attr.checked_add(32)?, &mut tail)?;
    if tail.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    cx.read(UserPtr::new(attr))
}

/// mount_setattr(2). Mounts with id maps are `EINVAL`.
pub fn mount_setattr(
    cx: &mut Cx<'_>,
    dirfd: DirFd,
    path: UserCStr,
    flags: u32,
    attr: UserAddr,
    size: usize,
) -> CallResult<()> {
    only(flags, AT_EMPTY_PATH | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT)?;
    let attr = read_attr(cx, attr, size)?;
    if attr.set == 0 && attr.clear == 0 && attr.propagation == 0 {
        return Ok(());
    }
    may_mount(cx)?;
    if (attr.set | attr.clear) & !(ATTR_KNOWN | ATTR_IDMAP) != 0 || (attr.set | attr.clear) & ATTR_IDMAP != 0
    {
        return Err(Errno::EINVAL.into());
    }
    let atime = if attr.clear & ATTR_ATIME == ATTR_ATIME {
        Some(flags_of(attr.set & ATTR_ATIME)?)
    } else if attr.clear & ATTR_ATIME != 0 || attr.set & ATTR_ATIME != 0 {
        return Err(Errno::EINVAL.into());
    } else {
        None
    };
    let (mut set, mut clear) = (MountFlags::empty(), MountFlags::empty());
    for (bit, flag) in PLAIN {
        set.set(flag, attr.set & bit != 0);
        clear.set(flag, attr.clear & bit != 0);
    }
    if let Some(atime) = atime {
        clear |= MountFlags::NOATIME | MountFlags::RELATIME;
        set |= atime;
    }
    let propagation = match attr.propagation {
        0 => None,
        0x2_0000 => Some(Propagation::Unbindable),
        0x4_0000 => Some(Propagation::Private),
        0x8_0000 => Some(Propagation::Slave),
        0x10_0000 => Some(Propagation::Shared),
        _ => return Err(Errno::EINVAL.into()),
    };
    let path = cx.path(path)?;
    let at = place(cx, dirfd, &path, flags, follow_unless(flags))?;
    let ns = own_namespace(cx, &at);
    let depth = if flags & AT_RECURSIVE != 0 { Depth::Tree } else { Depth::One };
    mount_ops::change_flags(&at, set, clear, depth, &ns)?;
    if let Some(propagation) = propagation {
        mount_ops::set_propagation(&at, propagation, depth, &ns)?;
    }
    Ok(())
}

/// The caller's mount namespace, or the one that a detached mount has for itself.
fn own_namespace(cx: &Cx<'_>, at: &Location) -> Arc<MountNamespace> {
    let own = at.mount.namespace().filter(|ns| ns.is_anonymous());
    own.unwrap_or_else(|| Arc::clone(&cx.fs().snapshot().ns))
}
