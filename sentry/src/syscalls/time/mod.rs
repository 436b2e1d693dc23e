//! Time.

pub mod clock;
pub mod sleep;
pub mod timer;
