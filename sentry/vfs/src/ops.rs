//! Path calls that make, remove and move names, with Linux's checks in Linux's order.

use crate::attr::Attr;
use crate::caller::Caller;
use crate::cred::Capabilities;
use crate::dentry::Dentry;
use crate::inode::{Inode, NewNode, Owner, RenameFlags};
use crate::inode_flags;
use crate::landlock::{self, FsRight};
use crate::mount::Location;
use crate::notify::{self, Mask};
use crate::perm::{self, Access};
use crate::walk::{Follow, Last, Parent, Walk};
use abi::fs::{FileType, ModeBits};
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::sync::Arc;

pub use crate::attr_ops::{
    access, chmod, chown, chown_at, get_xattr, list_xattr, read_link, remove_xattr, set_xattr, statfs,
    truncate, utimens, without_set_id,
};
pub use crate::mount_ops::{mount, pivot_root, umount};
pub use crate::open::{open, open_location, reopen};

static RENAMES: Ranked<order::RenameTree, ()> = Ranked::new(());

/// Write and search permission on a directory that is still there.
pub(crate) fn may_change(dir: &Location, by: &Caller<'_>) -> SysResult<Attr> {
    let inode = dir.inode()?;
    if dir.dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    perm::check_inode(inode, Access::WRITE | Access::EXEC, by)?;
    inode.attr(by)
}

/// What a new node in a directory is masked with: the umask, unless the directory has a list of its own for that.
pub(crate) fn mask_in(dir: &Location, by: &Caller<'_>) -> SysResult<ModeBits> {
    Ok(if by.umask != 0 && dir.inode()?.has_default_acl(by)? { 0 } else { by.umask })
}

/// Mode and owner of a new node: mask, set-gid directories.
pub(crate) fn new_owner(
    dir: &Attr,
    kind: FileType,
    (perm, mask): (ModeBits, ModeBits),
    by: &Caller<'_>,
) -> (ModeBits, Owner) {
    let wanted = perm;
    let mut perm = if kind == FileType::Symlink { 0o777 } else { perm & 0o7777 & !mask };
    let mut gid = by.cred.fsgid;
    if dir.perm & 0o2000 != 0 {
        gid = dir.gid;
        if kind == FileType::Directory {
            perm |= 0o2000;
        } else if wanted & 0o2010 == 0o2010 && !by.cred.in_group(gid) && !by.cred.has(Capabilities::FSETID) {
            perm &= !0o2000;
        }
    }
    (perm, Owner { uid: by.cred.fsuid, gid })
}

fn file_type(what: &NewNode) -> FileType {
    match what {
        NewNode::Regular => FileType::Regular,
        NewNode::Directory => FileType::Directory,
        NewNode::Symlink(_) => FileType::Symlink,
        NewNode::Fifo => FileType::Fifo,
        NewNode::Socket => FileType::Socket,
        NewNode::CharDevice(_) => FileType::CharDevice,
        NewNode::BlockDevice(_) => FileType::BlockDevice,
    }
}

/// Makes `what` in a locked directory under a name known to be free.
pub(crate) fn create_locked(
    dir: &Location,
    name: &[u8],
    what: &NewNode,
    perm: ModeBits,
    by: &Caller<'_>,
) -> SysResult<Arc<Dentry>> {
    let attr = may_change(dir, by)?;
    let device = match what {
        NewNode::CharDevice(rdev) => *rdev != 0,
        NewNode::BlockDevice(_) => true,
        _ => false,
    };
    if device && !(by.cred.has(Capabilities::MKNOD) && by.cred.user_ns.parent.is_none()) {
        return Err(Errno::EPERM);
    }
    landlock::check(dir, landlock::right_to_make(file_type(what)), by)?;
    let (perm, owner) = new_owner(&attr, file_type(what), (perm, mask_in(dir, by)?), by);
    let inode = dir.inode()?.create(name, what, perm, owner, by)?;
    let child = dir.dentry.adopt(name, Some(inode));
    let mask = if child.is_dir() { Mask::CREATE | Mask::ISDIR } else { Mask::CREATE };
    notify::name_event(&dir.dentry, name, mask, 0, by);
    Ok(child)
}

/// mkdir, mknod, symlink, and bind(2) of a socket: a new name. `perm` before the umask.
pub fn make(walk: &Walk<'_>, path: &[u8], what: &NewNode, perm: ModeBits) -> SysResult<Location> {
    let parent = walk.parent(path)?;
    let name = parent.name_or(Errno::EEXIST)?;
    let dir = &parent.dir;
    let _changes = dir.dentry.lock();
    let child = dir.dentry.lookup_locked(name, walk.by)?;
    if !child.is_negative() {
        return Err(Errno::EEXIST);
    }
    if parent.slash && !matches!(what, NewNode::Directory) {
        return Err(Errno::ENOENT);
    }
    dir.mount.check_writable()?;
    let made = create_locked(dir, name, what, perm, walk.by)?;
    made.inode()?.created_only();
    Ok(dir.with(made))
}

/// mkdir(2).
pub fn mkdir(walk: &Walk<'_>, path: &[u8], perm: ModeBits) -> SysResult<()> {
    make(walk, path, &NewNode::Directory, perm & 0o1777).map(|_| ())
}

/// symlink(2). `ENOENT` for an empty target.
pub fn symlink(walk: &Walk<'_>, target: &[u8], path: &[u8]) -> SysResult<()> {
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    if target.len() >= abi::limits::PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    make(walk, path, &NewNode::Symlink(target.to_vec()), 0o777).map(|_| ())
}

/// mknod(2): `mode` with type bits, `rdev` in the kernel's encoding.
pub fn mknod(walk: &Walk<'_>, path: &[u8], mode: u32, rdev: u64) -> SysResult<()> {
    let what = match mode & 0o170_000 {
        0 | 0o100_000 => NewNode::Regular,
        0o010_000 => NewNode::Fifo,
        0o140_000 => NewNode::Socket,
        0o020_000 => NewNode::CharDevice(rdev),
        0o060_000 => NewNode::BlockDevice(rdev),
        0o040_000 => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    make(walk, path, &what, mode & 0o7777).map(|_| ())
}

/// link(2) of a place that was walked to.
pub fn link(walk: &Walk<'_>, old: &Location, path: &[u8]) -> SysResult<()> {
    let by = walk.by;
    let parent = walk.parent(path)?;
    let name = parent.name_or(Errno::EEXIST)?;
    let dir = &parent.dir;
    let _changes = dir.dentry.lock();
    let child = dir.dentry.lookup_locked(name, by)?;
    if !child.is_negative() {
        return Err(Errno::EEXIST);
    }
    if parent.slash {
        return Err(Errno::ENOENT);
    }
    dir.mount.check_writable()?;
    if !Arc::ptr_eq(&old.mount, &dir.mount) {
        return Err(Errno::EXDEV);
    }
    let inode = old.inode()?;
    crate::protected::may_link(inode, by)?;
    may_change(dir, by)?;
    inode_flags::may_change(inode)?;
    if inode.kind() == FileType::Directory {
        return Err(Errno::EPERM);
    }
    if old.dentry.is_nameless() {
        return Err(Errno::ENOENT);
    }
    if let Some(dentry) = old.dentry.parent().filter(|_| by.cred.landlock.is_some()) {
        landlock::check_link(&old.with(dentry), dir, inode.kind(), by)?;
    }
    dir.inode()?.link(name, inode, by)?;
    dir.dentry.adopt(name, Some(Arc::clone(inode)));
    notify::self_event(&old.dentry, Mask::ATTRIB, by);
    notify::name_event(&dir.dentry, name, Mask::CREATE, 0, by);
    Ok(())
}

/// Whether anything is mounted on `dentry` in the caller's namespace.
fn is_mountpoint(walk: &Walk<'_>, dentry: &Arc<Dentry>) -> bool {
    dentry.mounted() > 0 && walk.fs.ns.mounts().iter().any(|m| m.child_at(dentry).is_some())
}

/// What removal asks of a child: permission, sticky, type.
fn may_delete(
    dir: &Location,
    child: &Arc<Dentry>,
    want_dir: Option<WantDir>,
    by: &Caller<'_>,
) -> SysResult<()> {
    let dir_attr = may_change(dir, by)?;
    inode_flags::may_remove_from(dir.inode()?)?;
    let inode = child.inode()?;
    perm::check_sticky(&dir_attr, &inode.attr(by)?, by)?;
    inode_flags::may_change(inode)?;
    match want_dir {
        Some(WantDir::Yes) if !child.is_dir() => Err(Errno::ENOTDIR),
        Some(WantDir::No) if child.is_dir() => Err(Errno::EISDIR),
        _ => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum WantDir {
    Yes,
    No,
}

fn told_gone(dir: &Arc<Dentry>, child: &Arc<Dentry>, by: &Caller<'_>) {
    if !notify::active() {
        return;
    }
    if !child.is_dir() {
        // Its link count changed.
        notify::self_event(child, Mask::ATTRIB, by);
    }
    notify::doomed(child, by);
    let mask = if child.is_dir() { Mask::DELETE | Mask::ISDIR } else { Mask::DELETE };
    notify::name_event(dir, &child.name(), mask, 0, by);
}

/// unlink(2).
pub fn unlink(walk: &Walk<'_>, path: &[u8]) -> SysResult<()> {
    let parent = walk.parent(path)?;
    let name = parent.name_or(Errno::EISDIR)?;
    let dir = &parent.dir;
    dir.mount.check_writable()?;
    let changes = dir.dentry.lock();
    let child = dir.dentry.lookup_locked(name, walk.by)?;
    if child.is_negative() {
        return Err(Errno::ENOENT);
    }
    if parent.slash {
        return Err(if child.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
    }
    may_delete(dir, &child, Some(WantDir::No), walk.by)?;
    landlock::check(dir, FsRight::REMOVE_FILE, walk.by)?;
    if is_mountpoint(walk, &child) {
        return Err(Errno::EBUSY);
    }
    dir.inode()?.unlink(name, child.inode()?, walk.by)?;
    dir.dentry.removed(&child);
    drop(changes);
    told_gone(&dir.dentry, &child, walk.by);
    Ok(())
}

/// rmdir(2).
pub fn rmdir(walk: &Walk<'_>, path: &[u8]) -> SysResult<()> {
    let parent = walk.parent(path)?;
    let name = match &parent.last {
        Last::Name(name) => name,
        Last::Dot => return Err(Errno::EINVAL),
        Last::DotDot => return Err(Errno::ENOTEMPTY),
        Last::Root => return Err(Errno::EBUSY),
    };
    let dir = &parent.dir;
    dir.mount.check_writable()?;
    let changes = dir.dentry.lock();
    let child = dir.dentry.lookup_locked(name, walk.by)?;
    if child.is_negative() {
        return Err(Errno::ENOENT);
    }
    may_delete(dir, &child, Some(WantDir::Yes), walk.by)?;
    landlock::check(dir, FsRight::REMOVE_DIR, walk.by)?;
    if is_mountpoint(walk, &child) {
        return Err(Errno::EBUSY);
    }
    // Keeps new names out of the directory while it goes.
    let inner = child.lock_second();
    dir.inode()?.rmdir(name, child.inode()?, walk.by)?;
    dir.dentry.removed(&child);
    drop(inner);
    drop(changes);
    told_gone(&dir.dentry, &child, walk.by);
    Ok(())
}

struct RenameSide<'a> {
    dir: &'a Location,
    name: &'a [u8],
    slash: bool,
}

fn side(parent: &Parent, error: Errno) -> SysResult<RenameSide<'_>> {
    Ok(RenameSide { dir: &parent.dir, name: parent.name_or(error)?, slash: parent.slash })
}

/// renameat2(2); the two walks may have different bases.
pub fn rename(
    walk: &Walk<'_>,
    old_path: &[u8],
    new_walk: &Walk<'_>,
    new_path: &[u8],
    flags: RenameFlags,
) -> SysResult<()> {
    let swap = flags.contains(RenameFlags::EXCHANGE);
    if swap && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT) {
        return Err(Errno::EINVAL);
    }
    let old_parent = walk.parent(old_path)?;
    let new_parent = new_walk.parent(new_path)?;
    if !Arc::ptr_eq(&old_parent.dir.mount, &new_parent.dir.mount) {
        return Err(Errno::EXDEV);
    }
    let from = side(&old_parent, Errno::EBUSY)?;
    let noreplace = flags.contains(RenameFlags::NOREPLACE);
    let to = side(&new_parent, if noreplace { Errno::EEXIST } else { Errno::EBUSY })?;
    from.dir.mount.check_writable()?;
    let same_dir = Arc::ptr_eq(&from.dir.dentry, &to.dir.dentry);
    // Moves between directories one at a time: the ancestor relation holds still.
    let _tree = if same_dir { None } else { Some(RENAMES.lock()) };
    let (_first, _second) = if same_dir {
        (from.dir.dentry.lock(), None)
    } else if to.dir.dentry.is_below(&from.dir.dentry)
        || (!from.dir.dentry.is_below(&to.dir.dentry)
            && Arc::as_ptr(&from.dir.dentry) < Arc::as_ptr(&to.dir.dentry))
    {
        (from.dir.dentry.lock(), Some(to.dir.dentry.lock_second()))
    } else {
        (to.dir.dentry.lock(), Some(from.dir.dentry.lock_second()))
    };
    rename_locked(walk, &from, &to, flags)
}

fn rename_locked(
    walk: &Walk<'_>,
    from: &RenameSide<'_>,
    to: &RenameSide<'_>,
    flags: RenameFlags,
) -> SysResult<()> {
    let by = walk.by;
    let swap = flags.contains(RenameFlags::EXCHANGE);
    let same_dir = Arc::ptr_eq(&from.dir.dentry, &to.dir.dentry);
    let old = from.dir.dentry.lookup_locked(from.name, by)?;
    if old.is_negative() {
        return Err(Errno::ENOENT);
    }
    let new = to.dir.dentry.lookup_locked(to.name, by)?;
    if flags.contains(RenameFlags::NOREPLACE) && !new.is_negative() {
        return Err(Errno::EEXIST);
    }
    if swap {
        if new.is_negative() {
            return Err(Errno::ENOENT);
        }
        if !new.is_dir() && to.slash {
            return Err(Errno::ENOTDIR);
        }
    }
    if !old.is_dir() && (from.slash || (!swap && to.slash)) {
        return Err(Errno::ENOTDIR);
    }
    if to.dir.dentry.is_below(&old) {
        return Err(Errno::EINVAL);
    }
    if !new.is_negative() && from.dir.dentry.is_below(&new) {
        return Err(if swap { Errno::EINVAL } else { Errno::ENOTEMPTY });
    }
    let old_inode = old.inode()?;
    if !new.is_negative() && same_inode(old_inode, new.inode()?, by)? {
        return Ok(());
    }
    may_delete(from.dir, &old, None, by)?;
    if new.is_negative() {
        may_change(to.dir, by)?;
    } else {
        let want = if swap {
            None
        } else if old.is_dir() {
            Some(WantDir::Yes)
        } else {
            Some(WantDir::No)
        };
        may_delete(to.dir, &new, want, by)?;
    }
    // A moved directory gets a new "..".
    if !same_dir {
        if old.is_dir() {
            perm::check_inode(old_inode, Access::WRITE, by)?;
        }
        if swap && new.is_dir() {
            perm::check_inode(new.inode()?, Access::WRITE, by)?;
        }
    }
    if is_mountpoint(walk, &old) || is_mountpoint(walk, &new) {
        return Err(Errno::EBUSY);
    }
    let replaced = new.inode().ok();
    landlock::check_rename(
        (from.dir, old_inode.kind()),
        (to.dir, replaced.map(|inode| inode.kind())),
        swap,
        by,
    )?;
    let closing = if !swap && new.is_dir() { Some(new.lock_second()) } else { None };
    from.dir.inode()?.rename(from.name, to.dir.inode()?, to.name, replaced, flags, by)?;
    if swap {
        from.dir.dentry.moved(&old, &to.dir.dentry, to.name);
        to.dir.dentry.moved(&new, &from.dir.dentry, from.name);
    } else {
        if !new.is_negative() {
            to.dir.dentry.killed(&new);
        }
        from.dir.dentry.moved(&old, &to.dir.dentry, to.name);
    }
    drop(closing);
    if notify::active() {
        let cookie = notify::next_cookie();
        let dir_bit = if old.is_dir() { Mask::ISDIR } else { Mask::empty() };
        notify::name_event(&from.dir.dentry, from.name, Mask::MOVED_FROM | dir_bit, cookie, by);
        notify::name_event(&to.dir.dentry, to.name, Mask::MOVED_TO | dir_bit, cookie, by);
        if same_dir {
            notify::renamed_within(&from.dir.dentry, by);
        }
        notify::moved(&old, by);
        if !swap && !new.is_negative() {
            notify::doomed(&new, by);
        }
    }
    Ok(())
}

fn same_inode(a: &Arc<dyn Inode>, b: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<bool> {
    if Arc::ptr_eq(a, b) {
        return Ok(true);
    }
    if a.kind() != b.kind() || a.kind() == FileType::Directory {
        return Ok(false);
    }
    Ok(a.attr(by)?.ino == b.attr(by)?.ino)
}

/// stat(2), lstat(2), and the place for STATX_MNT_ID.
pub fn stat(walk: &Walk<'_>, path: &[u8], follow: Follow) -> SysResult<(Attr, Location)> {
    let at = walk.find(path, follow)?;
    let attr = at.inode()?.attr(walk.by)?;
    Ok((attr, at))
}

/// Whether a process may have `at` as its working directory (chdir, fchdir).
pub fn check_chdir(at: &Location, by: &Caller<'_>) -> SysResult<()> {
    if !at.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    perm::check_inode(at.inode()?, Access::EXEC, by)
}

/// Whether a process may have `at` as its root (chroot).
pub fn check_chroot(at: &Location, by: &Caller<'_>) -> SysResult<()> {
    check_chdir(at, by)?;
    if by.cred.has(Capabilities::SYS_CHROOT) { Ok(()) } else { Err(Errno::EPERM) }
}
