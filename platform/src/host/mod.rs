//! UNSAFE: host calls that neither rustix nor nix offers, and small helpers around errors.

pub mod cpu;
pub(crate) mod seccomp;
mod vdso;

pub use vdso::{Vdso, vdso};

use abi::{Errno, SysResult};

/// A rustix error as the project's own type.
#[must_use]
pub fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// The calling thread's `errno`.
#[must_use]
pub fn last_errno() -> Errno {
    Errno::from(std::io::Error::last_os_error())
}

/// Turns the result of a raw call (`-1` and `errno`) into a `SysResult`.
pub(crate) fn checked(result: libc::c_long) -> SysResult<u64> {
    u64::try_from(result).map_err(|_| last_errno())
}

/// Like [`checked`] for calls that return an `int`.
pub(crate) fn checked_int(result: libc::c_int) -> SysResult<i32> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}
