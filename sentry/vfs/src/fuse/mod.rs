//! FUSE (`Documentation/filesystems/fuse.rst`, `linux/fuse.h`): file systems that a guest program serves
//! through /dev/fuse.
//!
//! [`Connection`] carries requests and replies, [`device`] is the server's side, [`fs`], `inode` and `file` are
//! the callers'. A caller sleeps until its reply is there, as a rule under the locks of the directory or file it
//! works on; a signal ends the sleep with `EINTR`. Nothing is cached but what the server allows: attributes and
//! names for as long as it says. Files cannot be mapped.

mod connection;
pub mod device;
mod file;
pub mod fs;
mod inode;
mod message;

pub use connection::Connection;
pub use device::register;
pub use fs::{FuseFs, Options};

#[cfg(test)]
mod tests;
