//! Synchronisation.

pub mod futex;
pub mod membarrier;
