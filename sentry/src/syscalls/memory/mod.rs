//! Memory: thin calls over the memory manager.

pub mod advise;
pub mod map;
pub mod numa;
