//! The system as a whole: names, limits, information.

pub mod uname;
