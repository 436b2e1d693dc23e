//! Files without tasks: inodes, dentries, mounts, path walks, open files.
//!
//! A file system implements [`FileSystem`] and [`Inode`]; an open file is an [`OpenFile`] around
//! [`FileOps`]. Operations take a [`Caller`]: credentials, clock and interrupt, never a task.
//! `FileOps` never block: they say `EAGAIN`, and `OpenFile` waits.
#![forbid(unsafe_code)]

pub mod acl;
pub mod anon;
pub mod attr;
mod attr_ops;
pub mod caller;
pub mod cred;
pub mod dentry;
pub mod devpts;
pub mod devtmpfs;
pub mod event;
pub mod file;
pub mod fuse;
pub mod handle;
pub mod inode;

pub mod inode_flags;
pub mod inode_state;
pub mod landlock;
pub mod lease;
pub mod locks;
pub mod moment;
pub mod mount;
pub mod mount_ops;
pub mod notify;
mod open;
mod open_file;
pub mod ops;
pub mod overlay;
pub mod path;
pub mod perm;
pub mod propagation;
pub mod protected;
pub mod remote;
pub mod sigio;
pub mod synthetic;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod tmpfs;
pub mod vfs;
pub mod walk;

pub use attr::{Attr, AttrChange, FsStat, SetTime};
pub use attr_ops::real_credentials;
pub use caller::{Blocker, Caller, NetworkOf, TaskView, Waitable, realtime_now, wait_until};
pub use cred::{CapSets, Capabilities, Credentials, Kgid, Kuid, UserNamespace};
pub use dentry::Dentry;
pub use file::{DirSink, FileOps, GuestMemory, Io, OpenFile, RwFlags, SeekFrom, SyncScope};
pub use inode::{DentryHint, FileSystem, Inode, LinkTarget, NewNode, Owner, RenameFlags, XattrFlags};
pub use mount::{Location, Mount, MountFlags, MountNamespace, Super};
pub use open_file::{SignalOwner, Toggle};
pub use perm::Access;
pub use vfs::{DeviceOpener, FsType, MountRequest, Vfs};
pub use walk::{Follow, FsContext, Resolve, Target, Walk};
