//! The system as a whole: names, limits, scheduling, information.

pub mod absent;
pub mod admin;
pub mod info;
pub mod limits;
pub mod machine;
pub mod sched;
pub mod uname;
