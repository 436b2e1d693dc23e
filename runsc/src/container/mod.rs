//! What is known of containers between two calls of the runtime: one directory each under `--root`.
//!
//! `ROOT/ID/state.json` is written atomically (a temporary name, then rename) under an flock(2) of the
//! directory. Whether a container runs is never read from the file alone: its monitor's pid and start
//! time must still be those of a live process.

pub(crate) mod process;
pub(crate) mod state;
pub(crate) mod store;

pub(crate) use process::ProcessRef;
pub(crate) use state::{Record, Status};
pub(crate) use store::{Held, Note, Store};
