//! Where the memory file comes from.

use crate::host::errno;
use abi::SysResult;
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::os::fd::OwnedFd;

/// An unlinked file on a tmpfs that is mounted nowhere: the detached mount lives as long as the file.
/// Huge pages are allowed there by advice, whatever the system's `shmem_enabled` says.
pub(super) fn on_private_tmpfs() -> SysResult<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(errno)?;
    let set =
        |key: &str, value: &str| rustix::mount::fsconfig_set_string(&context, key, value).map_err(errno);
    // Size zero means without a limit of its own: the sentry does the accounting.
    set("size", "0")?;
    set("mode", "0700")?;
    // A kernel without huge pages refuses the option.
    let _ = set("huge", "advise");
    rustix::mount::fsconfig_create(&context).map_err(errno)?;
    // Not noexec: guests execute anonymous memory, and so do the stubs on their behalf.
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(errno)?;
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    rustix::fs::openat(&mount, ".", flags, Mode::RUSR | Mode::WUSR).map_err(errno)
}

/// The fallback: no huge pages unless the system's `shmem_enabled` allows them.
pub(super) fn memfd() -> SysResult<OwnedFd> {
    rustix::fs::memfd_create("memory", MemfdFlags::CLOEXEC).map_err(errno)
}
