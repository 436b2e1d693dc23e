//! Seccomp filters of guests (seccomp(2)).

/// The filters of a thread.
#[derive(Debug, Default)]
pub struct Filters {}
