//! Time.

pub mod clock;
pub mod sleep;
