//! What sentry and gofer share of the way behind their walls.

use crate::error::{Doing, Outcome};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::process::{chdir, pivot_root};
use rustix::thread::UnshareFlags;
use std::ffi::CStr;

/// Leaves the caller's session (its terminal's signals are not for us) and takes signals as they come.
pub(crate) fn leave_caller(name: &CStr) -> Outcome<()> {
    let _ = rustix::thread::set_name(name);
    rustix::process::setsid().doing(|| "setsid")?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).doing(|| "sigprocmask")
}

/// New namespaces for this process.
pub(crate) fn unshare(flags: UnshareFlags) -> Outcome<()> {
    nix::sched::unshare(nix::sched::CloneFlags::from_bits_retain(flags.bits().cast_signed()))
        .doing(|| format!("unshare {flags:?}"))
}

/// Makes all mounts private to this mount namespace.
pub(crate) fn private_mounts() -> Outcome<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).doing(|| "making mounts private")
}

/// Where [`empty_root`] leaves the working directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stay {
    /// Where it was.
    Here,
    /// At the new root.
    Root,
}

/// Replaces the root by an empty read-only tmpfs.
pub(crate) fn empty_root(stay: Stay) -> Outcome<()> {
    let here = match stay {
        Stay::Here => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Some(openat(CWD, ".", flags, Mode::empty()).doing(|| "working directory")?)
        }
        Stay::Root => None,
    };
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Any directory will do; every host has this one.
    mount("none", "/proc", "tmpfs", flags, Some(c"size=4k,nr_inodes=2,mode=555")).doing(|| "mounting an empty root")?;
    chdir("/proc").doing(|| "entering the empty root")?;
    pivot_root(".", ".").doing(|| "pivot_root")?;
    unmount(".", UnmountFlags::DETACH).doing(|| "leaving the host's root")?;
    match here {
        Some(here) => rustix::process::fchdir(here).doing(|| "returning to the working directory"),
        None => chdir("/").doing(|| "entering the root"),
    }
}
