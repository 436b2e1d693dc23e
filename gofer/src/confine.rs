//! The only ways from a name or a node to a descriptor.

use crate::handle::Held;
use abi::{Errno, SysResult};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::path::DecInt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use wire::{Attr, Kind, Time, is_component};

/// The guest's word for a host error.
pub(crate) fn host(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// Makes this process's `/proc/self/fd` its working directory, through which it opens the inodes behind its
/// `O_PATH` descriptors. To be called in the gofer process itself (not before a fork), while `/proc` is
/// mounted; pivot_root(2) and unmounting `/proc` afterwards do no harm.
pub fn enter_own_descriptors() -> std::io::Result<()> {
    Ok(rustix::process::chdir("/proc/self/fd")?)
}

/// Whether [`enter_own_descriptors`] was called in this process.
pub(crate) fn have_own_descriptors(probe: BorrowedFd<'_>) -> bool {
    let by_fd = stat_fd(probe);
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let by_link = rustix::fs::openat(CWD, DecInt::from_fd(probe), flags, Mode::empty());
    match (by_fd, by_link) {
        (Ok(a), Ok(fd)) => stat_fd(fd.as_fd()).is_ok_and(|b| (a.dev, a.ino) == (b.dev, b.ino)),
        _ => false,
    }
}

/// Refuses names that are not one component.
pub(crate) fn component(name: &[u8]) -> SysResult<&[u8]> {
    if is_component(name) {
        Ok(name)
    } else if name.len() > wire::MAX_NAME {
        Err(Errno::ENAMETOOLONG)
    } else {
        Err(Errno::EINVAL)
    }
}

/// `O_PATH` descriptor of one entry of a directory. A symbolic link is opened itself, never followed.
pub(crate) fn lookup(dir: BorrowedFd<'_>, name: &[u8]) -> SysResult<OwnedFd> {
    open_beneath(dir, component(name)?, OFlags::PATH, Mode::empty())
}

/// A new regular file, which must not exist.
pub(crate) fn create(dir: BorrowedFd<'_>, name: &[u8], access: OFlags, mode: Mode) -> SysResult<OwnedFd> {
    open_beneath(dir, component(name)?, access | OFlags::CREATE | OFlags::EXCL | OFlags::NOCTTY, mode)
}

/// A new regular file on the file system of a directory, without a name.
pub(crate) fn create_unnamed(dir: BorrowedFd<'_>, access: OFlags, mode: Mode) -> SysResult<OwnedFd> {
    open_beneath(dir, b".", access | OFlags::TMPFILE | OFlags::NOCTTY, mode)
}

fn open_beneath(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags, mode: Mode) -> SysResult<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat2(dir, name, flags, mode, resolve) {
            // EAGAIN: a rename or mount elsewhere made the kernel unsure; only `..` can, but the man page
            // asks for a retry. EINTR: a slow file system.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            result => return result.map_err(host),
        }
    }
}

/// Opens the inode behind a node for I/O. The caller has checked its kind.
pub(crate) fn reopen(node: BorrowedFd<'_>, flags: OFlags) -> SysResult<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    loop {
        match rustix::fs::openat(CWD, DecInt::from_fd(node), flags, Mode::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            result => return result.map_err(host),
        }
    }
}

/// The name of a descriptor in the working directory.
pub(crate) fn own_name(node: BorrowedFd<'_>) -> DecInt {
    DecInt::from_fd(node)
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

/// Attributes of a descriptor, `O_PATH` or not.
pub(crate) fn stat_fd(fd: BorrowedFd<'_>) -> SysResult<Attr> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, WANTED).map(|stat| attr(&stat)).map_err(host)
}

/// Attributes of one entry of a directory, without following a link or triggering an automount.
pub(crate) fn stat_entry(dir: BorrowedFd<'_>, name: &[u8]) -> SysResult<Attr> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, component(name)?, flags, WANTED).map(|stat| attr(&stat)).map_err(host)
}

fn attr(stat: &Statx) -> Attr {
    let time = |t: &rustix::fs::StatxTimestamp| Time { sec: t.tv_sec, nsec: t.tv_nsec };
    Attr {
        mode: u32::from(stat.stx_mode),
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
        dev: (stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        blksize: stat.stx_blksize,
        atime: time(&stat.stx_atime),
        mtime: time(&stat.stx_mtime),
        ctime: time(&stat.stx_ctime),
        btime: time(&stat.stx_btime),
    }
}

/// A descriptor for I/O on a regular file or a directory; anything else is never opened.
pub(crate) fn open_for_io(node: &Held, flags: OFlags) -> SysResult<OwnedFd> {
    match node.kind {
        Kind::Regular => reopen(node.fd.as_fd(), flags),
        Kind::Directory => reopen(node.fd.as_fd(), flags | OFlags::DIRECTORY),
        kind => Err(refusal(kind)),
    }
}

/// Why a node of this kind is not opened.
pub(crate) fn refusal(kind: Kind) -> Errno {
    match kind {
        Kind::Symlink => Errno::ELOOP,
        Kind::Directory => Errno::EISDIR,
        // A device node in an image names a host driver: EACCES, as on a nodev mount.
        Kind::Char | Kind::Block => Errno::EACCES,
        // What open(2) says about sockets; FIFOs and the unknown are refused alike.
        Kind::Socket | Kind::Fifo | Kind::Unknown | Kind::Regular => Errno::ENXIO,
    }
}
