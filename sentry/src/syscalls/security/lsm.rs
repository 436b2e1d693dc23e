//! lsm_list_modules(2), lsm_get_self_attr(2), lsm_set_self_attr(2): the modules are capabilities and Landlock,
//! and neither has attributes.

use crate::task::Cx;
use abi::{CallResult, Errno, UserAddr, UserPtr};
use zerocopy::IntoBytes;

/// `LSM_ID_CAPABILITY`, `LSM_ID_LANDLOCK`.
const MODULES: [u64; 2] = [100, 110];

/// lsm_list_modules(2).
pub fn lsm_list_modules(cx: &mut Cx<'_>, ids: UserAddr, size: UserPtr<u32>, flags: u32) -> CallResult<usize> {
    crate::syscalls::fs::only(flags, 0)?;
    let room = cx.read(size)?;
    let needed = u32::try_from(MODULES.as_bytes().len()).map_err(|_| Errno::EOVERFLOW)?;
    cx.write(size, &needed)?;
    if room < needed {
        return Err(Errno::E2BIG.into());
    }
    cx.mm().write_bytes(ids, MODULES.as_bytes())?;
    Ok(MODULES.len())
}

/// lsm_get_self_attr(2).
pub fn lsm_get_self_attr(
    cx: &mut Cx<'_>,
    attr: u32,
    ctx: UserPtr<u64>,
    size: UserPtr<u32>,
    flags: u32,
) -> CallResult<i32> {
    const SINGLE: u32 = 1;
    if attr == 0 || size.is_null() || flags & !SINGLE != 0 {
        return Err(Errno::EINVAL.into());
    }
    cx.read(size)?;
    if flags & SINGLE != 0 {
        if ctx.is_null() {
            return Err(Errno::EINVAL.into());
        }
        let id = cx.read(ctx)?;
        if id == 0 {
            return Err(Errno::EINVAL.into());
        }
    }
    cx.write(size, &0)?;
    Err(Errno::EOPNOTSUPP.into())
}

/// lsm_set_self_attr(2).
pub fn lsm_set_self_attr(
    cx: &mut Cx<'_>,
    attr: u32,
    ctx: UserPtr<[u64; 4]>,
    size: u32,
    flags: u32,
) -> CallResult<()> {
    const CTX_BYTES: u32 = 32;
    const PAGE: u32 = 4096;
    crate::syscalls::fs::only(flags, 0)?;
    if size < CTX_BYTES {
        return Err(Errno::EINVAL.into());
    }
    if size > PAGE {
        return Err(Errno::E2BIG.into());
    }
    let [_, _, len, ctx_len] = cx.read(ctx)?;
    let known = ctx_len.checked_add(u64::from(CTX_BYTES)).is_some_and(|needed| len >= needed);
    if attr == 0 || u64::from(size) < len || !known {
        return Err(Errno::EINVAL.into());
    }
    Err(Errno::EOPNOTSUPP.into())
}
