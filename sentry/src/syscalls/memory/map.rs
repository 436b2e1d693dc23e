//! mmap(2), munmap(2), mprotect(2), brk(2).

use crate::task::Cx;
use abi::{CallResult, Errno, Fd, PAGE_SIZE, SysResult, UserAddr};
use mm::{MapFile, MapFlags, MmapArgs, VmaName};
use platform::Prot;
use std::any::Any;
use std::sync::Arc;

call_flags! {
    MapFlags, "MAP_";
    Prot, "PROT_";
}

/// mmap(2).
pub fn mmap(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    len: u64,
    prot: Prot,
    flags: MapFlags,
    fd: Fd,
    offset: u64,
) -> CallResult<UserAddr> {
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    let file = if flags.contains(MapFlags::ANONYMOUS) {
        None
    } else {
        map_file(cx, len, prot, flags, (fd, offset))?
    };
    let prot = reads_imply_exec(cx, prot) & (Prot::READ | Prot::WRITE | Prot::EXEC);
    Ok(cx.mm().mmap(MmapArgs { addr, len, prot, flags, file, name: VmaName::None })?)
}

/// READ_IMPLIES_EXEC of personality(2).
fn reads_imply_exec(cx: &Cx<'_>, prot: Prot) -> Prot {
    const READ_IMPLIES_EXEC: u32 = 0x040_0000;
    let implied = cx.owned.personal.personality & READ_IMPLIES_EXEC != 0 && prot.contains(Prot::READ);
    if implied { prot | Prot::EXEC } else { prot }
}

/// What is mapped of a file; `None` for what is anonymous memory all the same (/dev/zero, private).
fn map_file(
    cx: &Cx<'_>,
    len: u64,
    prot: Prot,
    flags: MapFlags,
    (fd, offset): (Fd, u64),
) -> SysResult<Option<MapFile>> {
    let file = cx.files().get_io(fd)?;
    // MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE
    if !matches!(flags.bits() & 0xf, 1..=3) || len == 0 {
        return Err(Errno::EINVAL);
    }
    let whole = len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::ENOMEM)?;
    if whole > crate::loader::TASK_SIZE {
        return Err(Errno::ENOMEM);
    }
    let shared = flags.contains(MapFlags::SHARED);
    let mode = file.flags();
    if !mode.readable() {
        return Err(Errno::EACCES);
    }
    let writable = mode.writable();
    if shared && prot.contains(Prot::WRITE) && !writable {
        return Err(Errno::EACCES);
    }
    let mut max_prot = Prot::READ | Prot::EXEC;
    max_prot.set(Prot::WRITE, writable || !shared);
    if let Some(at) = file.location()
        && !at.mount.allows_exec()
    {
        if prot.contains(Prot::EXEC) {
            return Err(Errno::EPERM);
        }
        max_prot.remove(Prot::EXEC);
    }
    let object = if vfs::devtmpfs::is_zero_device(&file) {
        if !shared {
            return Ok(None);
        }
        let end = offset.checked_add(len).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        cx.mm().shared_zeros(end.filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::EOVERFLOW)?)?
    } else {
        file.mappable()?
    };
    Ok(Some(MapFile { object, offset, max_prot, keep: Some(file as Arc<dyn Any + Send + Sync>) }))
}

/// munmap(2).
pub fn munmap(cx: &mut Cx<'_>, addr: UserAddr, len: u64) -> CallResult<()> {
    Ok(cx.mm().munmap(addr, len)?)
}

/// mprotect(2).
pub fn mprotect(cx: &mut Cx<'_>, addr: UserAddr, len: u64, prot: Prot) -> CallResult<()> {
    const GROWSDOWN: u32 = 0x0100_0000;
    // No area of this architecture grows up: PROT_GROWSUP is as unknown as any other bit.
    let grows = prot.bits() & GROWSDOWN != 0;
    if prot.bits() & !(0xf | GROWSDOWN) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let prot = reads_imply_exec(cx, prot) & (Prot::READ | Prot::WRITE | Prot::EXEC);
    if grows {
        return Ok(cx.mm().mprotect_stack(addr, len, prot)?);
    }
    Ok(cx.mm().mprotect(addr, len, prot)?)
}

/// remap_file_pages(2).
pub fn remap_file_pages(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    len: u64,
    prot: u64,
    page: u64,
    _flags: u64,
) -> CallResult<()> {
    if prot != 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(cx.mm().remap_file_pages(addr, len, page)?)
}

/// brk(2).
pub fn brk(cx: &mut Cx<'_>, addr: UserAddr) -> CallResult<UserAddr> {
    Ok(cx.mm().brk(addr))
}
