//! fs.protected_symlinks, _hardlinks, _fifos and _regular (proc_sys_fs(5)): what strangers leave in a sticky
//! directory that all may write to is not stumbled over. Of the whole kernel, as in Linux.

use crate::attr::Attr;
use crate::caller::Caller;
use crate::inode::Inode;
use crate::perm::{self, Access, owner_or_capable};
use abi::fs::FileType;
use abi::{Errno, SysResult};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The four settings, as Debian sets them.
#[derive(Debug)]
pub struct Settings {
    /// Symbolic links.
    pub symlinks: AtomicU32,
    /// Hard links.
    pub hardlinks: AtomicU32,
    /// FIFOs that open(2) with O_CREAT finds.
    pub fifos: AtomicU32,
    /// Regular files that it finds.
    pub regular: AtomicU32,
}

/// In force.
pub static SETTINGS: Settings = Settings {
    symlinks: AtomicU32::new(1),
    hardlinks: AtomicU32::new(1),
    fifos: AtomicU32::new(1),
    regular: AtomicU32::new(2),
};

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o002;
const GROUP_WRITES: u32 = 0o020;

/// Whether the last component of a path, a link in `dir`, may be followed: `EACCES`.
pub(crate) fn may_follow(dir: &Arc<dyn Inode>, link: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
    if SETTINGS.symlinks.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    let dir = dir.attr(by)?;
    if dir.perm & (STICKY | OTHERS_WRITE) != STICKY | OTHERS_WRITE {
        return Ok(());
    }
    let owner = link.attr(by)?.uid;
    if owner == by.cred.fsuid || owner == dir.uid { Ok(()) } else { Err(Errno::EACCES) }
}

/// Whether another name may be given to a file: to one's own, or to one that could be copied; `EPERM`.
pub(crate) fn may_link(inode: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
    if SETTINGS.hardlinks.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    let attr = inode.attr(by)?;
    let plain = attr.kind == FileType::Regular && attr.perm & 0o4000 == 0 && attr.perm & 0o2010 != 0o2010;
    if owner_or_capable(by.cred, &attr)
        || plain && perm::check_inode(inode, Access::READ | Access::WRITE, by).is_ok()
    {
        Ok(())
    } else {
        Err(Errno::EPERM)
    }
}

/// Whether open(2) with O_CREAT may open what it finds in `dir`: `EACCES`.
pub(crate) fn may_open_found(dir: &Attr, found: &Attr, by: &Caller<'_>) -> SysResult<()> {
    let level = match found.kind {
        FileType::Regular => &SETTINGS.regular,
        FileType::Fifo => &SETTINGS.fifos,
        _ => return Ok(()),
    };
    let level = level.load(Ordering::Relaxed);
    let own = found.uid == dir.uid || found.uid == by.cred.fsuid;
    if level == 0 || dir.perm & STICKY == 0 || own {
        return Ok(());
    }
    let refused = dir.perm & OTHERS_WRITE != 0 || level >= 2 && dir.perm & GROUP_WRITES != 0;
    if refused { Err(Errno::EACCES) } else { Ok(()) }
}
