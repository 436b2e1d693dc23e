//! Attributes: setattr, statfs, extended attributes, fsync.

use crate::change::{chmod, chown};
use crate::confine::{host, open_for_io, own_name, refusal, reopen, stat_fd};
use crate::server::{Answer, Server};
use abi::{Errno, SysResult};
use rustix::fs::{AtFlags, CWD, IFlags, OFlags, Timespec, Timestamps};
use std::os::fd::{AsFd, OwnedFd};
use wire::{Handle, Kind, Reply, SetAttr, StatFs, TimeChange, XattrFlags};

/// Largest value of an extended attribute, and largest list of names (XATTR_SIZE_MAX, XATTR_LIST_MAX).
const XATTR_MAX: usize = 65536;

/// Longest name of an extended attribute.
const XATTR_NAME_MAX: usize = 255;

/// What guests may see and set. Labels of the host's security modules and `trusted.` stay the host's.
const XATTR_NAMESPACES: &[&[u8]] =
    &[b"user.", b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];

/// Inode flags that guests may change: synchronous writes, no dump, no access times, no copy-on-write, compression.
/// Whoever protects a file from change could keep the host from removing it; the rest is the file system's own.
const FREE_FLAGS: IFlags = IFlags::SYNC
    .union(IFlags::DIRSYNC)
    .union(IFlags::NODUMP)
    .union(IFlags::NOATIME)
    .union(IFlags::NOCOW)
    .union(IFlags::COMPRESSED);

/// What to write to stable storage.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// fsync(2).
    File,
    /// syncfs(2).
    FileSystem,
}

impl Server {
    pub(crate) fn set_attr(&mut self, node: Handle, change: &SetAttr) -> SysResult<Answer> {
        let held = self.writable(node)?;
        let fd = held.fd.as_fd();
        // All that can be refused without the host is refused before anything is done.
        let times = match (change.atime, change.mtime) {
            (None, None) => None,
            (atime, mtime) => {
                Some(Timestamps { last_access: timespec(atime)?, last_modification: timespec(mtime)? })
            }
        };
        if change.size.is_some() && held.kind != Kind::Regular {
            return Err(if held.kind == Kind::Directory { Errno::EISDIR } else { Errno::EINVAL });
        }
        if change.mode.is_some() && held.kind == Kind::Symlink {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(size) = change.size {
            let file = reopen(fd, OFlags::WRONLY)?;
            rustix::fs::ftruncate(&file, size).map_err(host)?;
        }
        if change.uid.is_some() || change.gid.is_some() {
            let now = stat_fd(fd)?;
            let same =
                change.uid.is_none_or(|uid| uid == now.uid) && change.gid.is_none_or(|gid| gid == now.gid);
            match chown(fd, change.uid, change.gid) {
                // Without the capability, giving a node to whom it belongs is no error.
                Err(Errno::EPERM) if same => {}
                result => result?,
            }
        }
        if let Some(mode) = change.mode {
            chmod(fd, mode)?;
        }
        if let Some(times) = times {
            rustix::fs::utimensat(CWD, own_name(fd), &times, AtFlags::empty()).map_err(host)?;
        }
        Ok(Reply::Attr { attr: stat_fd(fd)? }.into())
    }

    pub(crate) fn stat_fs(&mut self, node: Handle) -> SysResult<Answer> {
        let stat = rustix::fs::fstatfs(&self.handles.get(node)?.fd).map_err(host)?;
        let stat = StatFs {
            kind: stat.f_type.cast_unsigned(),
            bsize: stat.f_bsize.cast_unsigned(),
            blocks: stat.f_blocks,
            bfree: stat.f_bfree,
            bavail: stat.f_bavail,
            files: stat.f_files,
            ffree: stat.f_ffree,
            namelen: stat.f_namelen.cast_unsigned(),
            frsize: stat.f_frsize.cast_unsigned(),
        };
        Ok(Reply::StatFs { stat }.into())
    }

    pub(crate) fn get_xattr(&mut self, node: Handle, name: &[u8]) -> SysResult<Answer> {
        let held = self.handles.get(node)?;
        let name = xattr_name(name).map_err(|errno| match errno {
            Errno::EPERM => Errno::ENODATA,
            errno => errno,
        })?;
        let mut value = std::mem::take(&mut self.scratch);
        value.clear();
        value.reserve(XATTR_MAX);
        let space = rustix::buffer::spare_capacity(&mut value);
        let result = rustix::fs::getxattr(own_name(held.fd.as_fd()), name, space);
        let data = value.clone();
        self.scratch = value;
        result.map_err(host)?;
        Ok(Reply::Data { data: data.into() }.into())
    }

    pub(crate) fn list_xattr(&mut self, node: Handle) -> SysResult<Answer> {
        let held = self.handles.get(node)?;
        let mut names = std::mem::take(&mut self.scratch);
        names.clear();
        names.reserve(XATTR_MAX);
        let space = rustix::buffer::spare_capacity(&mut names);
        let result = rustix::fs::listxattr(own_name(held.fd.as_fd()), space);
        let shown = names.split_inclusive(|byte| *byte == 0);
        let data: Vec<u8> = shown
            .filter(|name| is_shown(name.strip_suffix(&[0]).unwrap_or(name)))
            .flatten()
            .copied()
            .collect();
        self.scratch = names;
        result.map_err(host)?;
        Ok(Reply::Data { data: data.into() }.into())
    }

    pub(crate) fn set_xattr(
        &mut self,
        node: Handle,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> SysResult<Answer> {
        let held = self.writable(node)?;
        let name = xattr_name(name)?;
        if value.len() > XATTR_MAX {
            return Err(Errno::E2BIG);
        }
        let flags = rustix::fs::XattrFlags::from_bits(flags.bits()).ok_or(Errno::EINVAL)?;
        rustix::fs::setxattr(own_name(held.fd.as_fd()), name, value, flags).map_err(host)?;
        Ok(Reply::Done {}.into())
    }

    pub(crate) fn remove_xattr(&mut self, node: Handle, name: &[u8]) -> SysResult<Answer> {
        let held = self.writable(node)?;
        rustix::fs::removexattr(own_name(held.fd.as_fd()), xattr_name(name)?).map_err(host)?;
        Ok(Reply::Done {}.into())
    }

    pub(crate) fn get_flags(&mut self, node: Handle) -> SysResult<Answer> {
        let file = self.for_flags(node)?;
        let flags = rustix::fs::ioctl_getflags(&file).map_err(host)?;
        Ok(Reply::Data { data: flags.bits().to_le_bytes().to_vec().into() }.into())
    }

    pub(crate) fn set_flags(&mut self, node: Handle, flags: u32) -> SysResult<Answer> {
        self.writable(node)?;
        let file = self.for_flags(node)?;
        let wanted = IFlags::from_bits_retain(flags);
        let changed = wanted ^ rustix::fs::ioctl_getflags(&file).map_err(host)?;
        if changed.intersects(IFlags::IMMUTABLE | IFlags::APPEND) {
            return Err(Errno::EPERM);
        }
        if !FREE_FLAGS.contains(changed) {
            return Err(Errno::EOPNOTSUPP);
        }
        rustix::fs::ioctl_setflags(&file, wanted).map_err(host)?;
        Ok(Reply::Done {}.into())
    }

    fn for_flags(&self, node: Handle) -> SysResult<OwnedFd> {
        let held = self.handles.get(node)?;
        match held.kind {
            Kind::Regular | Kind::Directory => open_for_io(held, OFlags::RDONLY),
            _ => Err(Errno::ENOTTY),
        }
    }

    pub(crate) fn sync(&mut self, node: Handle, scope: Scope) -> SysResult<Answer> {
        let held = self.handles.get(node)?;
        match held.kind {
            Kind::Regular | Kind::Directory => {}
            kind => return Err(refusal(kind)),
        }
        let file = open_for_io(held, OFlags::RDONLY)?;
        match scope {
            Scope::File => rustix::fs::fsync(&file),
            Scope::FileSystem => rustix::fs::syncfs(&file),
        }
        .map_err(host)?;
        Ok(Reply::Done {}.into())
    }
}

fn is_shown(name: &[u8]) -> bool {
    XATTR_NAMESPACES.iter().any(|space| match space.ends_with(b".") {
        true => name.len() > space.len() && name.starts_with(space),
        false => name == *space,
    })
}

fn xattr_name(name: &[u8]) -> SysResult<&[u8]> {
    if name.is_empty() || name.len() > XATTR_NAME_MAX {
        Err(Errno::ERANGE)
    } else if name.contains(&0) {
        Err(Errno::EINVAL)
    } else if is_shown(name) {
        Ok(name)
    } else if name.starts_with(b"trusted.") || name.starts_with(b"security.") {
        Err(Errno::EPERM)
    } else {
        Err(Errno::EOPNOTSUPP)
    }
}

/// The host's spelling, with its two special values in the nanoseconds.
fn timespec(change: Option<TimeChange>) -> SysResult<Timespec> {
    let special = |nsec| Timespec { tv_sec: 0, tv_nsec: nsec };
    match change {
        None => Ok(special(rustix::fs::UTIME_OMIT)),
        Some(TimeChange::Now) => Ok(special(rustix::fs::UTIME_NOW)),
        Some(TimeChange::To(time)) if time.nsec < 1_000_000_000 => {
            Ok(Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) })
        }
        Some(TimeChange::To(_)) => Err(Errno::EINVAL),
    }
}
