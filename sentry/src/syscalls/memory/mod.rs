//! Memory: thin calls over the memory manager.

pub mod map;
