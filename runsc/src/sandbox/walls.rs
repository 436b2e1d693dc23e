//! What sentry and gofer share of the way behind their walls.

use crate::error::{Doing, Outcome};
use platform::spawn::install_descriptor;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::UnshareFlags;
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};

/// Leaves the caller behind: its session (its terminal's signals are not for us), its working directory, its
/// environment, its signal handling.
pub(crate) fn leave_caller(name: &CStr) -> Outcome<()> {
    let _ = rustix::thread::set_name(name);
    platform::spawn::new_session(None).doing(|| "setsid")?;
    rustix::process::chdir("/").doing(|| "chdir /")?;
    platform::spawn::clear_environment();
    platform::spawn::reset_signals().doing(|| "resetting signals")?;
    platform::spawn::ignore_sigpipe().doing(|| "ignoring SIGPIPE")
}

/// New namespaces for this process.
pub(crate) fn unshare(flags: UnshareFlags) -> Outcome<()> {
    nix::sched::unshare(nix::sched::CloneFlags::from_bits_retain(flags.bits().cast_signed()))
        .doing(|| format!("unshare {flags:?}"))
}

/// Takes descriptors 0 to 2, which nothing else may have: panics write to 2.
pub(crate) fn fill_standard(error: Option<&OwnedFd>) -> Outcome<()> {
    let null =
        openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).doing(|| "/dev/null")?;
    // A descriptor below 3 would be replaced while it is in use, and closed in its new use.
    let first = null;
    let null = rustix::io::fcntl_dupfd_cloexec(&first, 3).doing(|| "/dev/null")?;
    if first.as_raw_fd() < 3 {
        let _ = first.into_raw_fd();
    }
    for (number, fd) in [(0, &null), (1, &null), (2, error.unwrap_or(&null))] {
        install_descriptor(fd.as_fd(), number).doing(|| "standard descriptors")?;
    }
    Ok(())
}

/// Files of guests and handles of the gofer are descriptors: as many as the host gives.
pub(crate) fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
