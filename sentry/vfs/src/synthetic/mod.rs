//! The base of file systems that are made up: proc, sysfs, cgroup.
//!
//! A tree of [`Node`]s: fixed ones are hung with the methods of [`SynthInode`], changing ones come from a
//! [`Directory`] at each look-up. Text files are generated when a read starts at offset 0. Inode numbers
//! follow from the path, so they are stable. Rank of the fixed entries: `DirInode`.

mod dir;
mod file;
mod inode;
mod node;

pub use dir::directory_of;
pub use file::{Changes, Custom, Text, WriteText};
pub use inode::{SynthFs, SynthInode};
pub use node::{Directory, Listed, Node};

#[cfg(test)]
mod tests;
