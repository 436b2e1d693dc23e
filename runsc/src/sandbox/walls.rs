//! What sentry and gofer share of the way behind their walls.

use crate::error::{Doing, Outcome};
use rustix::thread::UnshareFlags;
use std::ffi::CStr;

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
