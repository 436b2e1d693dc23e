//! mremap(2), madvise(2), msync(2), mincore(2), mlock(2) and its kin.

use crate::loader::TASK_SIZE;
use crate::task::Cx;
use abi::{CallResult, Errno, PAGE_SIZE, UserAddr};
use mm::{Advice, AreaInfo, LockScope, RemapArgs, RemapFlags};
use vfs::Caller;

call_flags! {
    RemapFlags, "MREMAP_";
}

/// mremap(2).
pub fn mremap(
    cx: &mut Cx<'_>,
    old: UserAddr,
    old_len: u64,
    new_len: u64,
    flags: RemapFlags,
    to: UserAddr,
) -> CallResult<UserAddr> {
    Ok(cx.mm().mremap(RemapArgs { old, old_len, new_len, flags, to })?)
}

/// madvise(2).
pub fn madvise(cx: &mut Cx<'_>, addr: UserAddr, len: u64, advice: u32) -> CallResult<()> {
    Ok(cx.mm().madvise(addr, len, Advice::new(advice)?)?)
}

/// msync(2).
pub fn msync(cx: &mut Cx<'_>, addr: UserAddr, len: u64, flags: u32) -> CallResult<()> {
    Ok(cx.mm().msync(addr, len, flags)?)
}

/// mincore(2).
pub fn mincore(cx: &mut Cx<'_>, addr: UserAddr, len: u64, out: UserAddr) -> CallResult<()> {
    // In pieces: the answer for a large range is large.
    const PIECE: u64 = 4096 * PAGE_SIZE;
    let mut done = 0;
    if addr.is_page_aligned() {
        let end = out.raw().checked_add(len.div_ceil(PAGE_SIZE));
        if addr.raw().checked_add(len).is_none_or(|end| end > TASK_SIZE) {
            return Err(Errno::ENOMEM.into());
        }
        if end.is_none_or(|end| end > TASK_SIZE) {
            return Err(Errno::EFAULT.into());
        }
    }
    if len == 0 {
        cx.mm().present(addr, 0)?;
    }
    while done < len {
        let piece = (len - done).min(PIECE);
        let at = addr.checked_add(done).map_err(|_| Errno::ENOMEM)?;
        let by = cx.caller();
        let bytes = cx.mm().mincore(at, piece, &|area| may_see_cache(area, &by))?;
        cx.mm().write_bytes(out.checked_add(done / PAGE_SIZE)?, &bytes)?;
        done += piece;
    }
    Ok(())
}

/// Whether the caller may know which pages of a mapped file are in memory: its owner, and who may write to it.
fn may_see_cache(area: &AreaInfo, by: &Caller<'_>) -> bool {
    let Some(place) = crate::procfs::place_of(area) else { return true };
    let Ok(inode) = place.inode() else { return true };
    let owns = inode.attr(by).is_ok_and(|attr| vfs::perm::owner_or_capable(by.cred, &attr));
    owns || vfs::perm::check_inode(inode, vfs::Access::WRITE, by).is_ok()
}

const MLOCK_ONFAULT: u32 = 1;

/// Whether RLIMIT_MEMLOCK binds depends on what the caller may do now.
fn refresh_limits(cx: &Cx<'_>) {
    let limits = *cx.shared.process.limits.lock();
    cx.mm().set_limits(crate::loader::memory_limits(&limits, cx.cred()));
}

/// mlock(2).
pub fn mlock(cx: &mut Cx<'_>, addr: UserAddr, len: u64) -> CallResult<()> {
    refresh_limits(cx);
    Ok(cx.mm().mlock(addr, len, LockScope::Now)?)
}

/// mlock2(2).
pub fn mlock2(cx: &mut Cx<'_>, addr: UserAddr, len: u64, flags: u32) -> CallResult<()> {
    let scope = match flags {
        0 => LockScope::Now,
        MLOCK_ONFAULT => LockScope::OnFault,
        _ => return Err(Errno::EINVAL.into()),
    };
    refresh_limits(cx);
    Ok(cx.mm().mlock(addr, len, scope)?)
}

/// munlock(2).
pub fn munlock(cx: &mut Cx<'_>, addr: UserAddr, len: u64) -> CallResult<()> {
    Ok(cx.mm().munlock(addr, len)?)
}

/// mseal(2).
pub fn mseal(cx: &mut Cx<'_>, addr: UserAddr, len: u64, flags: u64) -> CallResult<()> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(cx.mm().mseal(addr, len)?)
}

const MCL_CURRENT: u32 = 1;
const MCL_FUTURE: u32 = 2;
const MCL_ONFAULT: u32 = 4;

/// mlockall(2).
pub fn mlockall(cx: &mut Cx<'_>, flags: u32) -> CallResult<()> {
    let which = flags & (MCL_CURRENT | MCL_FUTURE);
    if flags & !(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0 || which == 0 {
        return Err(Errno::EINVAL.into());
    }
    let scope = if flags & MCL_ONFAULT != 0 { LockScope::OnFault } else { LockScope::Now };
    let current = (flags & MCL_CURRENT != 0).then_some(scope);
    let future = (flags & MCL_FUTURE != 0).then_some(scope);
    refresh_limits(cx);
    Ok(cx.mm().mlockall(current, future)?)
}

/// munlockall(2).
pub fn munlockall(cx: &mut Cx<'_>) -> CallResult<()> {
    cx.mm().munlockall();
    Ok(())
}

/// pkey_mprotect(2): without protection keys only key -1 exists.
pub fn pkey_mprotect(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    len: u64,
    prot: platform::Prot,
    key: i32,
) -> CallResult<()> {
    if key != -1 {
        return Err(Errno::EINVAL.into());
    }
    super::map::mprotect(cx, addr, len, prot)
}

/// pkey_alloc(2): no protection keys are to be had.
pub fn pkey_alloc(_cx: &mut Cx<'_>, _flags: u64, _rights: u64) -> CallResult<i32> {
    Err(Errno::ENOSPC.into())
}

/// pkey_free(2).
pub fn pkey_free(_cx: &mut Cx<'_>, _key: i32) -> CallResult<()> {
    Err(Errno::EINVAL.into())
}
