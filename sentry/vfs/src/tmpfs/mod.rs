//! tmpfs(5): files in the memory file. Also what memfd_create(2) gives.
//!
//! An inode holds the shared part of its file system; the mounted [`TmpFs`] adds the root, so that dropping
//! the last mount frees the tree. Ranks: `DirInode` (entries), then `FileWrite`/`FileData` (pages), then
//! `InodeAttr`.

mod dir;
mod file;
mod fs;
mod inode;
pub mod memfd;

pub use fs::{TmpFs, TmpfsOptions, TmpfsType};
pub use inode::TmpInode;

/// The pages of an open file of any tmpfs or memfd: seals, shared memory.
#[must_use]
pub fn pages_of(file: &crate::file::OpenFile) -> Option<std::sync::Arc<mm::FilePages>> {
    file.downcast::<file::TmpFile>().map(file::TmpFile::pages)
}

#[cfg(test)]
pub(crate) mod tests;
