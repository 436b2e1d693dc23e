//! The system as a whole: names, limits, scheduling, information.

pub mod info;
pub mod limits;
pub mod sched;
pub mod uname;
