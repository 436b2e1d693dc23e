//! open(2) and openat2(2).

use crate::anon;
use crate::attr::AttrChange;
use crate::caller::Caller;
use crate::dentry::Naming;
use crate::file::{FileOps, OpenFile};
use crate::inode::NewNode;
use crate::inode_flags;
use crate::inode_state;
use crate::landlock::FsRight;
use crate::locks::{LockKind, LockWait};
use crate::mount::{Location, MountFlags};
use crate::notify::{self, Mask};
use crate::ops::{create_locked, mask_in, may_change, new_owner};
use crate::perm::{self, Access};
use crate::walk::{Follow, Parent, Target, Walk};
use abi::fs::{FileType, ModeBits, OpenFlags};
use abi::{CallResult, Errno, SysResult};
use std::any::Any;
use std::sync::Arc;

/// O_PATH: nothing works but what the location answers.
struct PathOps;

impl FileOps for PathOps {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read_dir(
        &self,
        _file: &OpenFile,
        _cookie: u64,
        _sink: &mut dyn crate::file::DirSink,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        Err(Errno::EBADF)
    }
    fn mappable(&self, _file: &OpenFile) -> SysResult<Arc<dyn mm::Mappable>> {
        Err(Errno::EBADF)
    }
    fn sync(&self, _scope: crate::file::SyncScope) -> SysResult<()> {
        Err(Errno::EBADF)
    }
}

/// openat(2): `perm` before the umask. Flags were checked for their own sense by the caller only as far as
/// openat and openat2 differ (unknown bits).
pub fn open(walk: &Walk<'_>, path: &[u8], flags: OpenFlags, perm: ModeBits) -> CallResult<Arc<OpenFile>> {
    let mut flags = flags;
    if flags.contains(OpenFlags::PATH) {
        flags &= OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
    }
    if flags.contains(OpenFlags::TMPFILE_BIT) {
        if !flags.contains(OpenFlags::DIRECTORY) || !flags.writable() || flags.contains(OpenFlags::CREAT) {
            return Err(Errno::EINVAL.into());
        }
        return open_unnamed(walk, path, flags, perm);
    }
    if flags.contains(OpenFlags::CREAT | OpenFlags::DIRECTORY) {
        return Err(Errno::EINVAL.into());
    }
    let create = flags.contains(OpenFlags::CREAT);
    let no_follow = flags.contains(OpenFlags::NOFOLLOW) || (create && flags.contains(OpenFlags::EXCL));
    let follow = if no_follow { Follow::No } else { Follow::Yes };
    if create && path.last() == Some(&b'/') {
        // Something ending in a slash cannot be made by open.
        walk.parent(path)?;
        return Err(Errno::EISDIR.into());
    }
    for _ in 0..8 {
        match walk.target(path, follow)? {
            Target::Found(at) => {
                if create && flags.contains(OpenFlags::EXCL) {
                    return Err(Errno::EEXIST.into());
                }
                if create && let Some(dir) = at.dentry.parent().filter(|_| !at.is_mount_root()) {
                    crate::protected::may_open_found(
                        &dir.inode()?.attr(walk.by)?,
                        &at.inode()?.attr(walk.by)?,
                        walk.by,
                    )?;
                }
                return open_location(walk, at, flags);
            }
            Target::Missing(parent) if create => {
                if let Some(at) = create_file(&parent, flags, perm, walk.by)? {
                    let file = open_made(walk, at, flags)?;
                    file.mark_created();
                    return Ok(file);
                }
                // Somebody else made it between the walk and the lock.
            }
            Target::Missing(_) => return Err(Errno::ENOENT.into()),
        }
    }
    Err(Errno::EAGAIN.into())
}

fn create_file(
    parent: &Parent,
    flags: OpenFlags,
    perm: ModeBits,
    by: &Caller<'_>,
) -> SysResult<Option<Location>> {
    let name = parent.name_or(Errno::EISDIR)?;
    if parent.slash {
        return Err(Errno::EISDIR);
    }
    let dir = &parent.dir;
    let _changes = dir.dentry.lock();
    if !dir.dentry.lookup_locked(name, by)?.is_negative() {
        return if flags.contains(OpenFlags::EXCL) { Err(Errno::EEXIST) } else { Ok(None) };
    }
    dir.mount.check_writable()?;
    match create_locked(dir, name, &NewNode::Regular, perm, by) {
        Ok(child) => Ok(Some(dir.with(child))),
        // On a shared file system others make names as well.
        Err(Errno::EEXIST) if !flags.contains(OpenFlags::EXCL) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn open_unnamed(walk: &Walk<'_>, path: &[u8], flags: OpenFlags, perm: ModeBits) -> CallResult<Arc<OpenFile>> {
    let dir = walk.find(path, Follow::Yes)?;
    if !dir.dentry.is_dir() {
        return Err(Errno::ENOTDIR.into());
    }
    dir.mount.check_writable()?;
    let attr = may_change(&dir, walk.by)?;
    let mask = mask_in(&dir, walk.by)?;
    let (perm, owner) = new_owner(&attr, FileType::Regular, (perm, mask), walk.by);
    let inode = dir.inode()?.create_unnamed(perm, owner, walk.by)?;
    let name = format!("#{}", inode.attr(walk.by)?.ino);
    let later = if flags.contains(OpenFlags::EXCL) { Naming::Never } else { Naming::Allowed };
    let dentry = dir.dentry.unnamed(name.as_bytes(), inode, later);
    open_made(walk, dir.with(dentry), flags)
}

/// Opens what this call made: its mode does not count.
fn open_made(walk: &Walk<'_>, at: Location, flags: OpenFlags) -> CallResult<Arc<OpenFile>> {
    finish(walk, at, flags - OpenFlags::TRUNC)
}

/// Opens a place that was walked to, with all checks (also open of /proc/pid/fd/N and of an O_PATH file).
pub fn open_location(walk: &Walk<'_>, at: Location, flags: OpenFlags) -> CallResult<Arc<OpenFile>> {
    let by = walk.by;
    let kind = at.kind().ok_or(Errno::ENOENT)?;
    if flags.contains(OpenFlags::DIRECTORY) && kind != FileType::Directory {
        return Err(Errno::ENOTDIR.into());
    }
    if flags.contains(OpenFlags::PATH) {
        return Ok(OpenFile::at(at, Arc::new(PathOps), flags));
    }
    // Access mode 3 asks for both permissions.
    let writes = flags.writable() || flags.contains(OpenFlags::TRUNC) || flags.bits() & 3 == 3;
    match kind {
        FileType::Symlink => return Err(Errno::ELOOP.into()),
        FileType::Directory if writes || flags.contains(OpenFlags::CREAT) => {
            return Err(Errno::EISDIR.into());
        }
        FileType::CharDevice | FileType::BlockDevice if at.mount.flags().contains(MountFlags::NODEV) => {
            return Err(Errno::EACCES.into());
        }
        _ => {}
    }
    let mut want = Access::empty();
    // Access mode 3 asks for both permissions and gives neither.
    if flags.readable() || flags.bits() & 3 == 3 {
        want |= Access::READ;
    }
    if writes || flags.bits() & 3 == 3 {
        want |= Access::WRITE;
    }
    perm::check(&at, want, by)?;
    let writes_anywhere = flags.writable() && !flags.contains(OpenFlags::APPEND);
    if writes_anywhere || flags.contains(OpenFlags::TRUNC) {
        inode_flags::may_change(at.inode()?)?;
    }
    if flags.contains(OpenFlags::NOATIME) && !perm::owner_or_capable(by.cred, &at.inode()?.attr(by)?) {
        return Err(Errno::EPERM.into());
    }
    finish(walk, at, flags)
}

/// What Landlock lets the open file do later (truncate, ioctl of a device); `EACCES` when it may not be opened.
fn restricted(at: &Location, flags: OpenFlags, by: &Caller<'_>) -> SysResult<FsRight> {
    let Some(domain) = &by.cred.landlock else { return Ok(FsRight::all()) };
    let rights = domain.rights_at(at, by);
    let mut want = FsRight::empty();
    if flags.readable() {
        want |= if at.dentry.is_dir() { FsRight::READ_DIR } else { FsRight::READ_FILE };
    }
    want.set(FsRight::WRITE_FILE, flags.writable());
    want.set(FsRight::TRUNCATE, flags.contains(OpenFlags::TRUNC) && at.kind() == Some(FileType::Regular));
    if rights.contains(want) { Ok(rights) } else { Err(Errno::EACCES) }
}

fn finish(walk: &Walk<'_>, at: Location, flags: OpenFlags) -> CallResult<Arc<OpenFile>> {
    let by = walk.by;
    let rights = restricted(&at, flags, by)?;
    let inode = Arc::clone(at.inode()?);
    let kind = inode.kind();
    let mut counted = None;
    let writes = flags.writable() || flags.contains(OpenFlags::TRUNC);
    if kind == FileType::Regular
        && writes
        && let Some(key) = at.dentry.key(Some(by))
    {
        let state = inode_state::state_for(key);
        state.get_write()?;
        counted = Some(Counted(Some(state)));
    }
    if kind == FileType::Regular {
        let want = if writes { LockKind::Exclusive } else { LockKind::Shared };
        let wait = if flags.contains(OpenFlags::NONBLOCK) { LockWait::No } else { LockWait::Yes };
        crate::lease::break_at(&at, want, wait, by)?;
    }
    if kind == FileType::Regular && flags.contains(OpenFlags::TRUNC) {
        let attr = inode.attr(by)?;
        let keep = by.cred.has(crate::cred::Capabilities::FSETID);
        let perm = crate::ops::without_set_id(&attr);
        let perm = (!keep && perm != attr.perm).then_some(perm);
        inode.set_attr(&AttrChange { size: Some(0), perm, ..AttrChange::default() }, by)?;
        notify::event(&at.dentry, Mask::MODIFY, Some(by));
    }
    if flags.contains(OpenFlags::DIRECT) && kind != FileType::Regular {
        return Err(Errno::EINVAL.into());
    }
    let in_no_tree = anon::file_of(&at).is_some();
    let ops: Arc<dyn FileOps> = match kind {
        FileType::Socket => return Err(Errno::ENXIO.into()),
        FileType::Fifo if !in_no_tree => {
            let (dev, ino) = at.dentry.key(Some(by)).ok_or(Errno::EIO)?;
            crate::event::pipe::FIFOS.open(dev, ino, flags, by)?
        }
        FileType::CharDevice | FileType::BlockDevice => {
            let rdev = inode.attr(by)?.rdev;
            walk.fs.ns.vfs.open_device(&inode, rdev, flags, by)?
        }
        _ => inode.open(flags, by)?,
    };
    notify::event(&at.dentry, Mask::OPEN, Some(by));
    if notify::active() {
        // So that the close, which has no caller, finds its watches.
        let _ = at.dentry.key(Some(by));
    }
    let file = OpenFile::at(at, ops, flags);
    file.restrict(rights);
    if flags.writable()
        && let Some(state) = counted.as_mut().and_then(|c| c.0.take())
    {
        file.count_writer(state);
    }
    Ok(file)
}

/// A writer counted at the inode, taken back unless the open succeeds.
struct Counted(Option<Arc<inode_state::InodeShared>>);
impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(state) = self.0.take() {
            state.put_write();
        }
    }
}

/// Opens the place of an open file anew (execve of a descriptor, open_by_handle).
pub fn reopen(walk: &Walk<'_>, file: &Arc<OpenFile>, flags: OpenFlags) -> CallResult<Arc<OpenFile>> {
    open_location(walk, anon::location_of(file), flags)
}
