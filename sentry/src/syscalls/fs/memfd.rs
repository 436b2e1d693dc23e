//! memfd_create(2) and file seals.

use super::open::install;
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::{CallResult, Errno, Fd, SysResult, UserCStr};
use mm::Seals;
use vfs::OpenFile;
use vfs::tmpfs::memfd::{self, MemfdFlags, NAME_MAX};

/// memfd_create(2).
pub fn memfd_create(cx: &mut Cx<'_>, name: UserCStr, flags: u32) -> CallResult<Fd> {
    let flags = MemfdFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let name = cx.mm().read_cstr(name, NAME_MAX + 1).map_err(|error| match error {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })?;
    let file = memfd::create(&cx.kernel().files.shm, &name, flags, &cx.caller())?;
    let on_exec = if flags.contains(MemfdFlags::CLOEXEC) { OpenFlags::CLOEXEC } else { OpenFlags::empty() };
    install(cx, file, on_exec)
}

/// F_ADD_SEALS.
pub(super) fn add_seals(file: &OpenFile, seals: u32) -> SysResult<()> {
    let pages = vfs::tmpfs::pages_of(file).ok_or(Errno::EINVAL)?;
    if !file.flags().writable() {
        return Err(Errno::EPERM);
    }
    pages.add_seals(Seals::from_bits(seals).ok_or(Errno::EINVAL)?)
}

/// F_GET_SEALS.
pub(super) fn seals(file: &OpenFile) -> SysResult<u32> {
    Ok(vfs::tmpfs::pages_of(file).ok_or(Errno::EINVAL)?.seals().bits())
}
