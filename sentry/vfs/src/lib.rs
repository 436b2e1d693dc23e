//! Files without tasks: inodes, dentries, mounts, path walks, open files.
//!
//! A file system implements [`FileSystem`] and [`Inode`]; an open file is an [`OpenFile`] around
//! [`FileOps`]. Operations take a [`Caller`]: credentials, clock and interrupt, never a task.
//! `FileOps` never block: they say `EAGAIN`, and `OpenFile` waits.
#![forbid(unsafe_code)]

pub mod attr;
pub mod caller;
pub mod cred;
pub mod event;
pub mod file;
pub mod inode;
pub mod remote;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use attr::{Attr, AttrChange, FsStat, SetTime};
pub use caller::{Blocker, Caller, TaskView, Waitable, realtime_now, wait_until};
pub use cred::{CapSets, Capabilities, Credentials, Kgid, Kuid, UserNamespace};
pub use file::{DirSink, FileOps, GuestMemory, Io, OpenFile, SeekFrom, SyncScope};
pub use inode::{DentryHint, FileSystem, Inode, LinkTarget, NewNode, Owner, RenameFlags, XattrFlags};
