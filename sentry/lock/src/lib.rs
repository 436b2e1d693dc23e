//! Ranked locks and wait queues.
//!
//! `order` is THE list of lock ranks, outermost first. Every lock of the kernel carries a rank in its
//! type; debug builds check on each acquisition that ranks only grow along a thread.
#![forbid(unsafe_code)]

pub mod order;
mod park;
mod ranked;
mod seat;
mod wait;

pub use park::{BlockError, Deadline, Parker};
pub use ranked::{Ranked, RankedGuard, RankedReadGuard, RankedRw, RankedWriteGuard};
pub use seat::{Seat, allow as allow_looking};
pub use wait::{WaitEntry, WaitQueue, WakeTarget};
