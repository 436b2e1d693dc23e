//! Guest memory: address spaces, pages, copy-on-write, and the copies between guest and kernel.
//!
//! All pages a guest can write live in the memory file ([`platform::memory::MemoryFile`]) or in a shared
//! mapping of a donated host file. Ranks: `MmLayout` > `MmPages` > `FileData` > `Frames`.
#![forbid(unsafe_code)]

pub mod frames;
pub mod io;
pub mod mappable;
pub mod pages;
pub mod policy;

pub use frames::{FrameRange, Frames};
pub use io::{GuestMemory, GuestSink, GuestSource};
pub use mappable::{Invalidate, MapUse, Mappable, MappableId, Translation};
pub use pages::{FilePages, KeepSize, PageQuota, Seals, WriteAt};
