//! memfd_create(2): an unnamed file of a tmpfs that nobody mounts.

use super::fs::TmpFs;
use super::inode::{Body, TmpInode};
use crate::caller::Caller;
use crate::dentry::Dentry;
use crate::file::OpenFile;
use crate::inode::{FileSystem, Inode, Owner};
use crate::mount::{Location, Mount};
use abi::fs::{FileType, OpenFlags};
use abi::{Errno, SysResult};
use mm::{FilePages, MappableId, Seals};
use std::sync::Arc;

bitflags::bitflags! {
    /// `MFD_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MemfdFlags: u32 {
        /// Close on exec (the descriptor's).
        const CLOEXEC = 1;
        /// Seals may be added.
        const ALLOW_SEALING = 2;
        /// Huge pages; no meaning here.
        const HUGETLB = 4;
        /// Not executable, and sealed so.
        const NOEXEC_SEAL = 8;
        /// Executable.
        const EXEC = 0x10;
    }
}

/// Longest name.
pub const NAME_MAX: usize = 249;

/// A memfd on `shm`, an internal mount of a [`TmpFs`]. `EINVAL` for a long name or unknown flags.
pub fn create(shm: &Arc<Mount>, name: &[u8], flags: MemfdFlags, by: &Caller<'_>) -> SysResult<Arc<OpenFile>> {
    if name.len() > NAME_MAX
        || flags.bits() & !MemfdFlags::all().bits() != 0
        || flags.contains(MemfdFlags::EXEC | MemfdFlags::NOEXEC_SEAL)
        || flags.contains(MemfdFlags::HUGETLB)
    {
        return Err(Errno::EINVAL);
    }
    let fs = shm.sb.fs.as_any().downcast_ref::<TmpFs>().ok_or(Errno::ENOSYS)?;
    let root = fs.root_inode();
    let ino = root.fs.new_ino()?;
    let id = MappableId { dev: fs.dev(), ino };
    let mut shown = b"/memfd:".to_vec();
    shown.extend_from_slice(name);
    let mut shown_deleted = shown.clone();
    shown_deleted.extend_from_slice(b" (deleted)");
    let pages = FilePages::with(&root.fs.frames, id, None, Some(shown_deleted));
    if flags.contains(MemfdFlags::NOEXEC_SEAL) {
        pages.add_seals(Seals::EXEC)?;
    } else if !flags.contains(MemfdFlags::ALLOW_SEALING) {
        pages.add_seals(Seals::SEAL)?;
    }
    let owner = Owner { uid: by.cred.fsuid, gid: by.cred.fsgid };
    let perm = if flags.contains(MemfdFlags::NOEXEC_SEAL) { 0o666 } else { 0o777 };
    let inode = TmpInode::with_body(&root.fs, ino, FileType::Regular, perm, owner, Body::Regular(pages));
    inode.change_links(-1);
    let ops = Arc::clone(&inode).open(OpenFlags::RDWR, by)?;
    let dentry = Dentry::root(inode, shm.sb.id, &shown);
    dentry.mark_dead();
    let at = Location { mount: Arc::clone(shm), dentry };
    Ok(OpenFile::at(at, ops, OpenFlags::RDWR | OpenFlags::LARGEFILE))
}
