//! The gofer's client: file systems whose files live on the host (rootfs and bind mounts).
//!
//! A [`Channel`] is the conversation with one gofer; a [`RemoteFs`] is one export of it. Two modes:
//!
//! - *exclusive* (the rootfs): only this kernel changes the tree, so attributes, names, complete listings and
//!   absent names are believed for ever, and kept right by this module's own changes;
//! - *shared* (binds): names and attributes are believed for the rest of the system call that asked for them
//!   ([`crate::moment`]).
//!
//! Reads, writes and mappings go through descriptors that the gofer donates: no message at all. An inode seen
//! in a listing costs no handle in the gofer until it is needed (it is then looked up by its place).
//!
//! Ranks: `RemoteDir` > `RemoteInode` > `RemoteTable` > `RemoteWire` > `InodeAttr`. Attributes are stored while
//! `RemoteWire` is held, so that they are stored in the order in which the gofer answered.

mod channel;
mod dir;
mod file;
mod fs;
mod inode;
mod ops;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod walk_tests;

pub use channel::Channel;
pub use fs::RemoteFs;
