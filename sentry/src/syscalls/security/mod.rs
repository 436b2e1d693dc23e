//! Credentials and what restricts them.

pub mod arch;
pub mod capability;
pub mod ids;
pub mod keys;
pub mod landlock;
pub mod lsm;
pub mod prctl;

pub mod seccomp {
    //! seccomp(2).
    pub use crate::seccomp::seccomp;
}
