//! mount(2), umount2(2), pivot_root(2), and the steps of the newer mount calls.

use crate::caller::Caller;
use crate::cred::Capabilities;
use crate::mount::{self, Location, Mount, MountFlags, MountNamespace, Super};
use crate::path;
use crate::propagation::{self, Copy, Propagation};
use crate::vfs::MountRequest;
use crate::walk::{Follow, Walk};
use abi::fs::FileType;
use abi::{Errno, SysResult};
use std::sync::Arc;
use std::sync::atomic::Ordering;

bitflags::bitflags! {
    /// `MS_*` of mount(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountCall: u32 {
        /// Read-only.
        const RDONLY = 1;
        /// No set-id.
        const NOSUID = 2;
        /// No devices.
        const NODEV = 4;
        /// No execution.
        const NOEXEC = 8;
        /// Change the options of an existing mount.
        const REMOUNT = 32;
        /// Symbolic links are not followed.
        const NOSYMFOLLOW = 256;
        /// No access times.
        const NOATIME = 1024;
        /// No access times of directories.
        const NODIRATIME = 2048;
        /// Bind mount.
        const BIND = 4096;
        /// Move a mount.
        const MOVE = 8192;
        /// With everything below.
        const REC = 16384;
        /// No kernel message.
        const SILENT = 32768;
        /// Propagation type unbindable.
        const UNBINDABLE = 1 << 17;
        /// Propagation type private.
        const PRIVATE = 1 << 18;
        /// Propagation type slave.
        const SLAVE = 1 << 19;
        /// Propagation type shared.
        const SHARED = 1 << 20;
        /// Access times relative to the others.
        const RELATIME = 1 << 21;
        /// Access times always.
        const STRICTATIME = 1 << 24;
    }
}

bitflags::bitflags! {
    /// Flags of umount2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct UmountFlags: u32 {
        /// Even if busy.
        const FORCE = 1;
        /// Take it off now, clean up later.
        const DETACH = 2;
        /// Mark as expired.
        const EXPIRE = 4;
        /// Do not follow a final link.
        const NOFOLLOW = 8;
    }
}

/// Whether only one mount or everything below it is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// One.
    One,
    /// It and all below (MS_REC, AT_RECURSIVE).
    Tree,
}

fn per_mount(call: MountCall) -> MountFlags {
    let mut flags = MountFlags::from_bits_truncate(call.bits() & !(1 << 21));
    if !call.intersects(MountCall::NOATIME | MountCall::STRICTATIME) {
        flags |= MountFlags::RELATIME;
    }
    flags
}

/// CAP_SYS_ADMIN over the mount namespace; `EPERM`.
pub fn may_mount(ns: &MountNamespace, by: &Caller<'_>) -> SysResult<()> {
    crate::landlock::check_mounts(by.cred)?;
    if by.cred.has_in(Capabilities::SYS_ADMIN, &ns.user_ns) { Ok(()) } else { Err(Errno::EPERM) }
}

fn in_namespace(mount: &Arc<Mount>, ns: &Arc<MountNamespace>) -> SysResult<()> {
    match mount.namespace() {
        Some(of) if Arc::ptr_eq(&of, ns) => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// mount(2). `fs_type` and `source` are empty where the call gave none.
pub fn mount(
    walk: &Walk<'_>,
    source: &[u8],
    target: &[u8],
    fs_type: &[u8],
    call: MountCall,
    data: &[u8],
) -> SysResult<()> {
    let ns = &walk.fs.ns;
    let at = walk.find(target, Follow::Yes)?;
    may_mount(ns, walk.by)?;
    let types = MountCall::SHARED | MountCall::PRIVATE | MountCall::SLAVE | MountCall::UNBINDABLE;
    let depth = if call.contains(MountCall::REC) { Depth::Tree } else { Depth::One };
    if call.contains(MountCall::REMOUNT | MountCall::BIND) {
        return remount_bind(&at, per_mount(call), ns);
    }
    if call.contains(MountCall::REMOUNT) {
        return remount(&at, call, data, walk);
    }
    if call.contains(MountCall::BIND) {
        let from = walk.find(source, Follow::Yes)?;
        return bind(&from, &at, depth, ns);
    }
    if call.intersects(types) {
        let to = match call & types {
            MountCall::SHARED => Propagation::Shared,
            MountCall::PRIVATE => Propagation::Private,
            MountCall::SLAVE => Propagation::Slave,
            MountCall::UNBINDABLE => Propagation::Unbindable,
            _ => return Err(Errno::EINVAL),
        };
        return set_propagation(&at, to, depth, ns);
    }
    if call.contains(MountCall::MOVE) {
        let from = walk.find(source, Follow::Yes)?;
        return move_mount(&from, &at, ns);
    }
    let made = make(walk, fs_type, source, per_mount(call), data)?;
    attach(&made, &at, ns)
}

/// A new mount of a file system type, hanging nowhere (also fsmount(2)).
pub fn make(
    walk: &Walk<'_>,
    fs_type: &[u8],
    source: &[u8],
    flags: MountFlags,
    data: &[u8],
) -> SysResult<Arc<Mount>> {
    if fs_type.is_empty() {
        return Err(Errno::EINVAL);
    }
    let ns = &walk.fs.ns;
    let kind = ns.vfs.fs_type(fs_type)?;
    let foreign = walk.by.cred.user_ns.parent.is_some();
    if foreign && !kind.in_user_namespace() {
        return Err(Errno::EPERM);
    }
    let mut flags = flags;
    if foreign {
        flags |= MountFlags::NODEV;
    }
    let fs = kind.mount(&MountRequest { source, data, flags, walk })?;
    let sb = Super::new(fs);
    if flags.contains(MountFlags::RDONLY) {
        sb.read_only.store(true, Ordering::Release);
    }
    let root = Arc::clone(sb.root());
    Ok(Mount::new(sb, root, flags, source))
}

/// Hangs a mount that hangs nowhere on a place (also move_mount(2) of a detached mount).
pub fn attach(new: &Arc<Mount>, at: &Location, ns: &Arc<MountNamespace>) -> SysResult<()> {
    let _change = mount::change();
    let mut at = at.clone();
    at.enter_mounts();
    in_namespace(&at.mount, ns)?;
    let dir = new.root.is_dir();
    if dir != (at.kind() == Some(FileType::Directory)) {
        return Err(Errno::ENOTDIR);
    }
    // Nothing is mounted on the links of /proc, which come and go.
    let fleeting = at.kind() == Some(FileType::Symlink) && at.mount.sb.fs.name() == "proc";
    if at.dentry.is_dead() || fleeting {
        return Err(Errno::ENOENT);
    }
    propagation::attach(&at.mount, &at.dentry, new)
}

/// Takes a whole tree of mounts out of the namespace that it has for itself, so that it can be hung
/// (move_mount(2)). `EINVAL` when it is part of another.
pub fn take_over(root: &Arc<Mount>) -> SysResult<()> {
    let change = mount::change();
    let left = take_over_locked(root);
    drop(change);
    left.map(drop)
}

/// The namespace that is left behind takes the lock when it goes.
fn take_over_locked(root: &Arc<Mount>) -> SysResult<Option<Arc<MountNamespace>>> {
    let ns = root.namespace();
    if let Some(ns) = &ns {
        if !ns.is_anonymous() || !Arc::ptr_eq(&ns.root(), root) {
            return Err(Errno::EINVAL);
        }
        // What is left there goes with it.
        ns.set_root(&Mount::new(Arc::clone(&root.sb), Arc::clone(&root.root), root.flags(), b""));
    }
    for mount in root.subtree() {
        mount.set_namespace(&std::sync::Weak::new());
    }
    Ok(ns)
}

/// A copy of a place (with `Depth::Tree`: of all mounts below it too) that hangs nowhere (open_tree(2)
/// OPEN_TREE_CLONE).
pub fn clone_place(from: &Location, depth: Depth, ns: &Arc<MountNamespace>) -> SysResult<Arc<Mount>> {
    let _change = mount::change();
    if from.mount.is_unbindable() {
        return Err(Errno::EINVAL);
    }
    // Magic places (namespaces, anonymous files) may be bound too; foreign trees may not.
    if from.mount.namespace().is_some() {
        in_namespace(&from.mount, ns)?;
    }
    if depth == Depth::One && hides_locked(from) {
        return Err(Errno::EINVAL);
    }
    let (copy, _) = propagation::copy_tree(&from.mount, &from.dentry, Copy::Same, depth == Depth::Tree)?;
    Ok(copy)
}

/// Whether a shallow copy would uncover what a locked mount hides.
fn hides_locked(from: &Location) -> bool {
    from.mount.children().iter().any(|child| {
        child.locked.load(Ordering::Acquire)
            && child.above().is_some_and(|(_, point)| point.is_below(&from.dentry))
    })
}

/// MS_BIND.
pub fn bind(from: &Location, to: &Location, depth: Depth, ns: &Arc<MountNamespace>) -> SysResult<()> {
    let copy = clone_place(from, depth, ns)?;
    attach(&copy, to, ns)
}

/// MS_MOVE, move_mount(2) of an attached mount.
pub fn move_mount(from: &Location, to: &Location, ns: &Arc<MountNamespace>) -> SysResult<()> {
    let _change = mount::change();
    in_namespace(&from.mount, ns)?;
    let mut to = to.clone();
    to.enter_mounts();
    in_namespace(&to.mount, ns)?;
    may_leave(from, &to)?;
    if to.mount.group().is_some() && from.mount.subtree().iter().any(|m| m.is_unbindable()) {
        return Err(Errno::EINVAL);
    }
    // Not below itself.
    let mut at = Arc::clone(&to.mount);
    loop {
        if Arc::ptr_eq(&at, &from.mount) {
            return Err(Errno::ELOOP);
        }
        let Some((up, _)) = at.above() else { break };
        at = up;
    }
    from.mount.unhang();
    propagation::attach(&to.mount, &to.dentry, &from.mount)
}

/// Whether a mount may leave its place for another: `EINVAL`, `ENOTDIR`.
fn may_leave(from: &Location, to: &Location) -> SysResult<()> {
    if !from.is_mount_root() || from.mount.locked.load(Ordering::Acquire) {
        return Err(Errno::EINVAL);
    }
    let Some((parent, _)) = from.mount.above() else { return Err(Errno::EINVAL) };
    if from.dentry.is_dir() != to.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if parent.group().is_some() { Err(Errno::EINVAL) } else { Ok(()) }
}

/// move_mount(2) with MOVE_MOUNT_BENEATH: `from`, attached or the root of a tree of its own, comes to lie between the
/// mount whose root is `to` and what that covers. Nothing goes under `root`, the caller's.
pub fn move_beneath(
    from: &Location,
    to: &Location,
    root: &Location,
    ns: &Arc<MountNamespace>,
) -> SysResult<()> {
    let mut _left = None;
    let _change = mount::change();
    in_namespace(&to.mount, ns)?;
    let (parent, mountpoint) = to.mount.above().ok_or(Errno::EINVAL)?;
    let covered = |place: &Location| place.mount.child_at(&place.dentry).is_some();
    if !from.is_mount_root()
        || !to.is_mount_root()
        || covered(to)
        || covered(from)
        || to.mount.locked.load(Ordering::Acquire)
        || Arc::ptr_eq(&to.mount, &root.mount)
    {
        return Err(Errno::EINVAL);
    }
    // Neither may lie below the other.
    let is_below = |low: &Arc<Mount>, high: &Arc<Mount>| high.subtree().iter().any(|m| Arc::ptr_eq(m, low));
    if is_below(&from.mount, &to.mount) {
        return Err(Errno::EINVAL);
    }
    if is_below(&to.mount, &from.mount) {
        return Err(Errno::ELOOP);
    }
    if from.mount.above().is_some() {
        in_namespace(&from.mount, ns)?;
        may_leave(from, to)?;
        from.mount.unhang();
    } else {
        if from.dentry.is_dir() != to.dentry.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        _left = take_over_locked(&from.mount)?;
    }
    propagation::attach(&parent, &mountpoint, &from.mount)
}

/// MS_REMOUNT|MS_BIND: the flags of one mount.
pub fn remount_bind(at: &Location, flags: MountFlags, ns: &Arc<MountNamespace>) -> SysResult<()> {
    let _change = mount::change();
    in_namespace(&at.mount, ns)?;
    if !at.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    at.mount.set_flags(flags)
}

/// mount_setattr(2) on one mount or a tree: all or none.
pub fn change_flags(
    at: &Location,
    set: MountFlags,
    clear: MountFlags,
    depth: Depth,
    ns: &Arc<MountNamespace>,
) -> SysResult<()> {
    let _change = mount::change();
    if at.mount.namespace().is_some() {
        in_namespace(&at.mount, ns)?;
    }
    if !at.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let mounts = if depth == Depth::Tree { at.mount.subtree() } else { vec![Arc::clone(&at.mount)] };
    for (done, mount) in mounts.iter().enumerate() {
        let old = mount.flags();
        if let Err(error) = mount.set_flags((old - clear) | set) {
            for earlier in mounts.iter().take(done) {
                // What was just changed can be changed back as far as the lock allows.
                let _ = earlier.set_flags((earlier.flags() - set) | clear);
            }
            return Err(error);
        }
    }
    Ok(())
}

fn remount(at: &Location, call: MountCall, data: &[u8], walk: &Walk<'_>) -> SysResult<()> {
    let _change = mount::change();
    in_namespace(&at.mount, &walk.fs.ns)?;
    if !at.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let mut flags = per_mount(call);
    if !call.intersects(MountCall::NOATIME | MountCall::STRICTATIME | MountCall::RELATIME) {
        // Without any of them the access time policy stays.
        let policy = MountFlags::NOATIME | MountFlags::NODIRATIME | MountFlags::RELATIME;
        flags = (flags - policy) | (at.mount.flags() & policy);
    }
    at.mount.sb.fs.remount(data)?;
    at.mount.set_flags(flags)?;
    at.mount.sb.read_only.store(call.contains(MountCall::RDONLY), Ordering::Release);
    Ok(())
}

/// MS_SHARED and kin.
pub fn set_propagation(
    at: &Location,
    to: Propagation,
    depth: Depth,
    ns: &Arc<MountNamespace>,
) -> SysResult<()> {
    let _change = mount::change();
    if at.mount.namespace().is_some() {
        in_namespace(&at.mount, ns)?;
    }
    if !at.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let mounts = if depth == Depth::Tree { at.mount.subtree() } else { vec![Arc::clone(&at.mount)] };
    for mount in mounts {
        mount.set_propagation(to);
    }
    Ok(())
}

/// umount2(2).
pub fn umount(walk: &Walk<'_>, target: &[u8], flags: UmountFlags) -> SysResult<()> {
    let ns = &walk.fs.ns;
    let follow = if flags.contains(UmountFlags::NOFOLLOW) { Follow::No } else { Follow::Yes };
    let at = walk.find(target, follow)?;
    may_mount(ns, walk.by)?;
    let root = at.is_mount_root();
    let mount = Arc::clone(&at.mount);
    drop(at);
    let expires = flags.contains(UmountFlags::EXPIRE);
    if !root || (expires && flags.intersects(UmountFlags::FORCE | UmountFlags::DETACH)) {
        return Err(Errno::EINVAL);
    }
    take_off(&mount, flags, ns)
}

fn take_off(mount: &Arc<Mount>, flags: UmountFlags, ns: &Arc<MountNamespace>) -> SysResult<()> {
    let change = mount::change();
    in_namespace(mount, ns)?;
    if Arc::ptr_eq(mount, &ns.root()) || mount.locked.load(Ordering::Acquire) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(UmountFlags::EXPIRE) {
        // The second call in a row expires it; without a mark kept, every call is the first.
        return Err(Errno::EAGAIN);
    }
    if !flags.contains(UmountFlags::DETACH) {
        // Used by us here and by the parent's table; every open file and working directory adds one.
        let used = Arc::strong_count(mount) > 2;
        if used || !mount.children().is_empty() {
            return Err(Errno::EBUSY);
        }
    }
    let gone = mount.subtree();
    propagation::detach(mount);
    drop(change);
    drop(gone);
    Ok(())
}

/// pivot_root(2). The caller then moves root and working directory of every task that stood on the old root
/// ([`follow_pivot`]).
pub fn pivot_root(walk: &Walk<'_>, new_root: &[u8], put_old: &[u8]) -> SysResult<Pivot> {
    let ns = &walk.fs.ns;
    may_mount(ns, walk.by)?;
    let new = walk.find(new_root, Follow::Yes)?;
    let put = walk.find(put_old, Follow::Yes)?;
    if !new.dentry.is_dir() || !put.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let _change = mount::change();
    let root = walk.fs.root.clone();
    in_namespace(&root.mount, ns)?;
    in_namespace(&new.mount, ns)?;
    let shared = |mount: &Arc<Mount>| mount.group().is_some();
    if shared(&put.mount)
        || new.mount.above().is_some_and(|(m, _)| shared(&m))
        || root.mount.above().is_some_and(|(m, _)| shared(&m))
    {
        return Err(Errno::EINVAL);
    }
    if Arc::ptr_eq(&new.mount, &root.mount) || Arc::ptr_eq(&put.mount, &root.mount) && put == root {
        return Err(Errno::EBUSY);
    }
    if !root.is_mount_root() || !new.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    if new.mount.above().is_none() || new.mount.locked.load(Ordering::Acquire) {
        return Err(Errno::EINVAL);
    }
    if !path::is_below(&put, &new) || !path::is_below(&new, &root) {
        return Err(Errno::EINVAL);
    }
    let root_above = root.mount.above();
    new.mount.unhang();
    match &root_above {
        Some((parent, point)) => {
            root.mount.unhang();
            parent.hang(point, &new.mount);
        }
        None => ns.set_root(&new.mount),
    }
    let mut put = put;
    // `put` may name the new root itself: the old root then covers it.
    put.enter_mounts();
    put.mount.hang(&put.dentry, &root.mount);
    Ok(Pivot { old: root, new: Location::root_of(&new.mount) })
}

/// What a pivot_root exchanged.
#[derive(Clone, Debug)]
pub struct Pivot {
    /// The former root.
    pub old: Location,
    /// The new one.
    pub new: Location,
}

/// Root and working directory of one process after a pivot.
pub fn follow_pivot(fs: &mut crate::walk::FsContext, pivot: &Pivot) {
    if fs.root == pivot.old {
        fs.root = pivot.new.clone();
    }
    if fs.cwd == pivot.old {
        fs.cwd = pivot.new.clone();
    }
}
