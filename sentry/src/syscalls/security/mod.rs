//! Credentials and what restricts them.

pub mod arch;
pub mod capability;
pub mod ids;
pub mod prctl;
