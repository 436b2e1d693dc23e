//! UNSAFE: host calls that neither rustix nor nix offers, and small helpers around errors.

mod cache;
pub mod cpu;
pub mod inet;
mod rest;
pub(crate) mod seccomp;
mod vdso;

pub use cache::cachestat;
pub use rest::rest;
pub use vdso::{Vdso, vdso, vdso_bytes};

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

fn cpu_clock(id: i32, which: i32) -> Option<u64> {
    let clock = (!id).checked_shl(3)? | which;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local; an unknown clock is an error, not a fault.
    let done = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if done != 0 {
        return None;
    }
    let (sec, nsec) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    sec.checked_mul(1_000_000_000)?.checked_add(nsec)
}

/// CPU time of a thread of this process, in nanoseconds.
#[must_use]
pub fn thread_cpu_ns(tid: i32) -> Option<u64> {
    cpu_clock(tid, 6)
}

/// CPU time of another process (a stub), in nanoseconds.
#[must_use]
pub fn process_cpu_ns(pid: i32) -> Option<u64> {
    cpu_clock(pid, 2)
}

/// One heap for all threads. A heap per thread costs memory, and the C library opens a file of /proc when
/// it shrinks one, which a process behind its walls must not.
pub fn one_heap() {
    // SAFETY: sets a number inside the allocator, under its own lock.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
