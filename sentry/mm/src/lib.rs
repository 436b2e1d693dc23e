//! Guest memory: address spaces, pages, copy-on-write, and the copies between guest and kernel.
//!
//! All pages a guest can write live in the memory file ([`platform::memory::MemoryFile`]) or in a shared
//! mapping of a donated host file. Ranks: `MmLayout` > `MmPages` > `FileData` > `Frames`.
#![forbid(unsafe_code)]

mod account;
mod advise;
mod copy;
mod fault;
mod fork;
pub mod frames;
mod gain;
mod habits;
pub mod io;
pub mod kernel_bytes;
mod layout;
mod manager;
mod map;
pub mod mappable;
mod numa;
pub mod pages;
pub mod policy;
mod protect;
mod remap;
mod report;
mod segs;
mod user_io;
mod vma;

pub use account::Account;
pub use advise::{Advice, LockScope};
pub use fault::FaultSignal;
pub use frames::{FrameRange, Frames, Gate};
pub use gain::ExecGain;
pub use io::{GuestMemory, GuestSink, GuestSource};
pub use layout::Totals;
pub use manager::{Arrangement, ExeFile, MemoryLimits, MemoryManager, ProgramRanges, Randomize};
pub use map::{MapFile, MapFlags, MmapArgs};
pub use mappable::{Invalidate, MapUse, Mappable, MappableId, Translation};
pub use numa::{NodePolicy, PageState};
pub use pages::{FilePages, KeepSize, PageQuota, Seals, WriteAt};
pub use remap::{RemapArgs, RemapFlags};
pub use report::{AreaInfo, Usage};
pub use user_io::{FutexKey, FutexScope, UserSink, UserSource};
pub use vma::{Mapped, VmaFlags, VmaName};

#[cfg(test)]
mod tests;
