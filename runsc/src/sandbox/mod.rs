//! The processes of a sandbox and how they come to be.
//!
//! `launch` runs in the process that will be the monitor (or in an attached `run`): it forks the gofer and
//! the sentry side by side. `sentry` and `gofer` are what those two do before they serve: `walls` go up
//! around them. `monitor` waits; its pid and wait status are the container's for whoever called us.

pub(crate) mod attach;
pub(crate) mod console;
pub(crate) mod filter;
pub(crate) mod gofer;
pub(crate) mod hooks;
pub(crate) mod ids;
pub(crate) mod launch;
pub(crate) mod monitor;
pub(crate) mod network;
pub(crate) mod proc_view;
pub(crate) mod scores;
pub(crate) mod sentry;
pub(crate) mod stdio;
pub(crate) mod title;
pub(crate) mod view;
pub(crate) mod walls;
