//! The bundle: `config.json` read, checked and turned into what the sandbox needs.

pub(crate) mod convert;
pub(crate) mod default;
pub(crate) mod load;
pub(crate) mod mounts;
pub(crate) mod names;
pub(crate) mod pod;
pub(crate) mod process;
pub(crate) mod refuse;
mod seccomp;

pub(crate) use convert::{Export, Plan, plan};
pub(crate) use load::{Bundle, load};
