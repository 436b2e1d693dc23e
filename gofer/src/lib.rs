//! The gofer: the one process of a sandbox that touches host files.
//!
//! It serves one container: its root filesystem and every bind mount are *exports*, each a descriptor of
//! the root directory (or of a single file). The sentry at the other end of the socket is taken for hostile:
//!
//! - every name is checked, then looked up alone with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
//!   RESOLVE_NO_MAGICLINKS)`: no request can leave its export, whoever races with it;
//! - nodes are held as `O_PATH` descriptors; what is opened for I/O is the very inode whose type was checked,
//!   through this process's own `/proc/self/fd`. Device nodes, sockets and FIFOs are never opened;
//! - a read-only export refuses every change with `EROFS`, before the host is asked;
//! - [`filter`] lists the few host calls that are left.
//!
//! One thread, blocked in `recv` while idle. It ends when the socket closes.
//!
//! The caller (runsc) prepares the process: mount namespace with `nodev,nosuid` exports, empty network
//! namespace, [`CAPABILITIES`] and no others, a high `RLIMIT_NOFILE`; it calls
//! [`enter_own_descriptors`] while `/proc` is still there, then [`serve`].
#![forbid(unsafe_code)]

mod attributes;
mod cached;
mod change;
mod confine;
pub mod filter;
mod handle;
mod server;
mod walk;

pub use confine::enter_own_descriptors;
pub use server::serve;
pub use wire::ExportFlags;

use std::os::fd::OwnedFd;

/// One tree (or file) that the sandbox may use.
#[derive(Debug)]
pub struct Export {
    /// `O_PATH` descriptor of its root.
    pub root: OwnedFd,
    /// What the sandbox may do with it.
    pub flags: ExportFlags,
}

/// What a gofer needs.
#[derive(Debug)]
pub struct Config {
    /// `SOCK_SEQPACKET` socket to the sentry.
    pub socket: OwnedFd,
    /// The exports; a request attaches to one by its index.
    pub exports: Vec<Export>,
    /// Whether to install [`filter`] before the first request.
    pub filter: Filter,
}

/// See [`Config::filter`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filter {
    /// Only the listed host calls; any other kills the process.
    Installed,
    /// None: for debugging, and for hosts without seccomp.
    Absent,
}

/// Why a gofer could not serve.
#[derive(Debug, thiserror::Error)]
pub enum GoferError {
    /// The working directory is not this process's own `/proc/self/fd`.
    #[error("the gofer's working directory is not its own /proc/self/fd: is /proc mounted?")]
    NoOwnDescriptors,
    /// The filter was refused.
    #[error("installing the gofer's seccomp filter: {0}")]
    Filter(String),
    /// An export's root cannot be looked at.
    #[error("looking at the root of export {index}: {errno}")]
    Root {
        /// Index in `Config::exports`.
        index: usize,
        /// What the host said.
        errno: abi::Errno,
    },
    /// The socket failed.
    #[error("receiving from the sentry: {0}")]
    Socket(abi::Errno),
}

/// Capabilities the gofer keeps, in the names of capabilities(7), and why.
pub const CAPABILITIES: &[(&str, &str)] = &[
    ("CAP_CHOWN", "new files belong to the guest's user, and the guest's root may chown"),
    ("CAP_DAC_OVERRIDE", "the sentry decides about permissions, with the guest's credentials"),
    ("CAP_DAC_READ_SEARCH", "the same, for reading and walking"),
    ("CAP_FOWNER", "chmod, utimes and xattrs on files of the guest's other users"),
    ("CAP_FSETID", "set-user-id and set-group-id bits survive as the guest asked"),
    ("CAP_SETFCAP", "security.capability on files the guest installs"),
];

#[cfg(test)]
mod tests;
