//! overlayfs: read-only layers below a writable one (kernel document `overlayfs.rst`).
//!
//! An [`OverlayInode`] knows the objects it stands for in each layer. The first change copies it to the upper
//! layer, once, under its own lock (`OverlayNode`); from then on `upper` is set and read without a lock.
//! Removed lower names leave a whiteout (a character device 0:0), directories that hide lower ones are
//! marked opaque. Inodes are found again by what they stand for, so that an open file, a hard link and a
//! moved directory see the same object.

mod copy_up;
mod dir;
mod file;
mod fs;
mod inode;
mod names;

pub use fs::{Layer, OverlayFs, OverlayType, Transience};
pub use inode::OverlayInode;

#[cfg(test)]
mod tests;
