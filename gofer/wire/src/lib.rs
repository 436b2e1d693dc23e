//! Messages between the sentry and the gofer, the one process that touches host files. No I/O here.
//!
//! Requests and replies lie in pages that both sides map (`platform::post`), one at a time; a donated descriptor comes on the
//! socket beside them.
//!
//! Both sides treat the other's bytes as hostile: [`Request::decode`] and [`Reply::decode`] check every
//! length, refuse unknown tags, flags and trailing bytes, allocate no more than the message could hold,
//! and never panic. Integers are little-endian; byte strings have a `u32` length in front.
#![forbid(unsafe_code)]

mod codec;
mod message;
mod types;

pub use codec::Malformed;
pub use message::{Reply, Request};
pub use types::{
    Access, Attached, Attr, Bytes, DirEntry, ExportFlags, Handle, Kind, NewNode, Node, Owner, ReaddirFlags,
    RenameFlags, SetAttr, StatFs, Time, TimeChange, WalkEnd, WalkFlags, XattrFlags,
};

/// Largest message in bytes, either way. Holds one extended attribute of the largest size.
pub const MAX_MESSAGE: usize = 96 * 1024;

/// Longest name of a directory entry (NAME_MAX).
pub const MAX_NAME: usize = 255;

/// Whether `name` can be one component of a path: 1 to 255 bytes, no `/`, no NUL, neither `.` nor `..`.
#[must_use]
pub fn is_component(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

#[cfg(test)]
mod tests;
