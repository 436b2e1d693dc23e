//! What a file system implements.
//!
//! The dentry cache above decides what is asked: an inode is asked for a name at most once while the
//! answer may be cached. Permission, name length and mount flags are checked before an inode is called.

use crate::acl::Acl;
use crate::attr::{Attr, AttrChange, FsStat};
use crate::caller::Caller;
use crate::file::FileOps;
use crate::inode_flags::InodeFlags;
use abi::fs::{FileType, ModeBits, OpenFlags};
use abi::{Errno, SysResult};
use std::any::Any;
use std::sync::Arc;

bitflags::bitflags! {
    /// `RENAME_*` of renameat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RenameFlags: u32 {
        /// Fail with EEXIST if the target exists.
        const NOREPLACE = 1;
        /// Swap the two.
        const EXCHANGE = 2;
        /// Leave a whiteout behind (overlay).
        const WHITEOUT = 4;
    }
}

bitflags::bitflags! {
    /// `XATTR_*` of setxattr(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct XattrFlags: u32 {
        /// Fail with EEXIST if it exists.
        const CREATE = 1;
        /// Fail with ENODATA if it does not.
        const REPLACE = 2;
    }
}

/// What `create` makes.
#[derive(Clone, Debug)]
pub enum NewNode {
    /// An empty regular file.
    Regular,
    /// An empty directory.
    Directory,
    /// A symbolic link to this text.
    Symlink(Vec<u8>),
    /// A FIFO.
    Fifo,
    /// A socket node (bind of an AF_UNIX socket).
    Socket,
    /// A character device (rdev).
    CharDevice(u64),
    /// A block device (rdev).
    BlockDevice(u64),
}

/// Where a symbolic link leads.
pub enum LinkTarget {
    /// A path, as readlink(2) shows it.
    Path(Vec<u8>),
    /// A jump that is no path: /proc/pid/{fd,exe,cwd,root,ns}.
    Magic(Arc<dyn Any + Send + Sync>),
}

/// How long the dentry cache may trust an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DentryHint {
    /// For ever: only this kernel changes the tree.
    Exclusive,
    /// Ask again at each walk (`Inode::revalidate`).
    Shared,
    /// Never cache (proc: names come and go with processes).
    Never,
}

/// A mounted file system (super block).
pub trait FileSystem: Send + Sync {
    /// For downcasts.
    fn as_any(&self) -> &dyn Any;
    /// `tmpfs`, `proc`, ...
    fn name(&self) -> &'static str;
    /// `st_dev` of its inodes.
    fn dev(&self) -> u64;
    /// The root directory.
    fn root(&self) -> Arc<dyn Inode>;
    /// statfs(2).
    fn statfs(&self, by: &Caller<'_>) -> SysResult<FsStat>;
    /// Trust in cached names.
    fn dentry_hint(&self) -> DentryHint {
        DentryHint::Exclusive
    }
    /// Where its root lies in the file system that it is shown as (the root field of /proc/pid/mountinfo).
    fn place(&self) -> &str {
        "/"
    }
    /// The file system's own options in /proc/mounts, after the mount's: `,size=64k`.
    fn options(&self) -> String {
        String::new()
    }
    /// syncfs(2).
    fn sync(&self) -> SysResult<()> {
        Ok(())
    }
    /// Changes options on remount (`size=...`).
    fn remount(&self, _data: &[u8]) -> SysResult<()> {
        Ok(())
    }
}

/// When a read changes the access time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Atime {
    /// Always (MS_STRICTATIME).
    Strict,
    /// Where it is older than a change, or than a day (MS_RELATIME).
    Relative,
}

/// A file system object.
pub trait Inode: Send + Sync {
    /// For downcasts inside one file system (link, rename).
    fn as_any(&self) -> &dyn Any;
    /// The file system.
    fn fs(&self) -> Arc<dyn FileSystem>;
    /// Constant type.
    fn kind(&self) -> FileType;
    /// Attributes. Cheap: called on every walk step and stat.
    fn attr(&self, by: &Caller<'_>) -> SysResult<Attr>;
    /// The inode number, when it is known without asking anybody.
    fn ino(&self) -> Option<u64> {
        None
    }
    /// Whether a name leads here after one was removed (other hard links), as far as is known.
    fn has_other_names(&self) -> bool {
        false
    }
    /// How long answers of this directory's `lookup` may be trusted.
    fn child_hint(&self) -> DentryHint {
        self.fs().dentry_hint()
    }
    /// Whether permission is decided by `access` (proc, FUSE) and not by mode and capabilities alone.
    fn checks_access(&self) -> bool {
        false
    }
    /// Own permission check; asked only when `checks_access`.
    fn access(&self, _want: crate::perm::Access, _by: &Caller<'_>) -> SysResult<()> {
        Ok(())
    }
    /// The file was read through a mount that keeps access times; what `how` asks for is the inode's to find out.
    fn touch_atime(&self, _how: Atime) {}
    /// The access control list, where there is one that says more than the mode.
    fn acl(&self, _by: &Caller<'_>) -> SysResult<Option<Acl>> {
        Ok(None)
    }
    /// Whether new entries of this directory begin with its default list, whatever the umask says.
    fn has_default_acl(&self, _by: &Caller<'_>) -> SysResult<bool> {
        Ok(false)
    }
    /// Changes attributes; updates ctime.
    fn set_attr(&self, _change: &AttrChange, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EPERM)
    }

    /// A child by name. `ENOENT` may be cached as a negative dentry (see `DentryHint`).
    fn lookup(&self, _name: &[u8], _by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        Err(Errno::ENOTDIR)
    }
    /// Several components at once, for file systems with a costly `lookup`: inodes of the leading
    /// components that exist, stopping behind the first that is not a directory. `None`: use `lookup`.
    fn lookup_path(&self, _names: &[&[u8]], _by: &Caller<'_>) -> Option<SysResult<Vec<Arc<dyn Inode>>>> {
        None
    }
    /// For `DentryHint::Shared`: a walk is about to follow `names` from here. A file system with a costly
    /// `revalidate` asks for all of them at once and lets the calls of `revalidate` and `lookup` that follow profit.
    /// The first `cached` names are in the dentry cache.
    fn revalidate_path(&self, _names: &[&[u8]], _cached: usize, _by: &Caller<'_>) {}
    /// For `DentryHint::Shared`: whether `name` of this directory still is `child`.
    fn revalidate(&self, _name: &[u8], _child: &Arc<dyn Inode>, _by: &Caller<'_>) -> bool {
        true
    }
    /// Makes a new node with mode (umask applied) and the owner to give it (set-gid directories applied).
    fn create(
        &self,
        _name: &[u8],
        _what: &NewNode,
        _perm: ModeBits,
        _owner: Owner,
        _by: &Caller<'_>,
    ) -> SysResult<Arc<dyn Inode>> {
        Err(Errno::EPERM)
    }
    /// The regular file that `create` made will not be opened by the same call (mknod(2)).
    fn created_only(&self) {}
    /// An unnamed regular file (O_TMPFILE).
    fn create_unnamed(&self, _perm: ModeBits, _owner: Owner, _by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// A further name for `target` (same file system).
    fn link(&self, _name: &[u8], _target: &Arc<dyn Inode>, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EPERM)
    }
    /// Removes a name that is not a directory.
    fn unlink(&self, _name: &[u8], _child: &Arc<dyn Inode>, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EPERM)
    }
    /// Removes an empty directory (`ENOTEMPTY`).
    fn rmdir(&self, _name: &[u8], _child: &Arc<dyn Inode>, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EPERM)
    }
    /// Renames `name` of this directory to `new_name` of `new_dir` (same file system). Loops, types and
    /// permission were checked; `replaced` is what stands at the target.
    fn rename(
        &self,
        _name: &[u8],
        _new_dir: &Arc<dyn Inode>,
        _new_name: &[u8],
        _replaced: Option<&Arc<dyn Inode>>,
        _flags: RenameFlags,
        _by: &Caller<'_>,
    ) -> SysResult<()> {
        Err(Errno::EPERM)
    }
    /// Target of a symbolic link.
    fn read_link(&self, _by: &Caller<'_>) -> SysResult<LinkTarget> {
        Err(Errno::EINVAL)
    }
    /// Opens a regular file, directory or anything the file system itself serves. FIFOs, sockets and device
    /// nodes are opened by the layer above, by type. O_TRUNC was done by `set_attr`.
    fn open(self: Arc<Self>, flags: OpenFlags, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>>;

    /// cachestat(2): pages of a range (to the end with a `len` of 0) that are in memory, dirty, under writeback,
    /// evicted, evicted not long ago. `EOPNOTSUPP` when it does not know.
    fn cache_stat(&self, _offset: u64, _len: u64) -> SysResult<[u64; 5]> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Inode flags; `ENOTTY` where the file system has none.
    fn flags(&self, _by: &Caller<'_>) -> SysResult<InodeFlags> {
        Err(Errno::ENOTTY)
    }
    /// Sets them; permission was checked. `EOPNOTSUPP` for those that it does not know.
    fn set_flags(&self, _flags: InodeFlags, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::ENOTTY)
    }
    /// Of the flags those that forbid something, as far as this kernel has to see to it. Cheap.
    fn protection(&self) -> InodeFlags {
        InodeFlags::empty()
    }
    /// Value of an extended attribute; `ENODATA`, `EOPNOTSUPP`.
    fn get_xattr(&self, _name: &[u8], _by: &Caller<'_>) -> SysResult<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Sets an extended attribute.
    fn set_xattr(&self, _name: &[u8], _value: &[u8], _flags: XattrFlags, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Removes an extended attribute.
    fn remove_xattr(&self, _name: &[u8], _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Names of the extended attributes.
    fn list_xattr(&self, _by: &Caller<'_>) -> SysResult<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }
}

/// Owner of a new node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// User.
    pub uid: crate::cred::Kuid,
    /// Group.
    pub gid: crate::cred::Kgid,
}
