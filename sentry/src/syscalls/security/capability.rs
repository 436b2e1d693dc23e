//! capget(2), capset(2).

use crate::task::Cx;
use abi::{CallResult, Errno, UserPtr};
use std::sync::Arc;
use vfs::{Capabilities, Credentials};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const VERSION_1: u32 = 0x1998_0330;
const VERSION_2: u32 = 0x2007_1026;
const VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// How many words of each set the version has.
fn words(cx: &Cx<'_>, at: UserPtr<Header>, header: &Header) -> CallResult<usize> {
    match header.version {
        VERSION_1 => Ok(1),
        VERSION_2 | VERSION_3 => Ok(2),
        _ => {
            cx.write(at, &Header { version: VERSION_3, pid: header.pid })?;
            Err(Errno::EINVAL.into())
        }
    }
}

fn split(set: Capabilities) -> [u32; 2] {
    let bits = set.bits();
    [crate::syscalls::args::low32(bits), crate::syscalls::args::low32(bits >> 32)]
}

/// capget(2).
pub fn capget(cx: &mut Cx<'_>, header_at: UserPtr<Header>, data: UserPtr<Data>) -> CallResult<()> {
    let header: Header = cx.read(header_at)?;
    let count = match words(cx, header_at, &header) {
        // A NULL data pointer asks for the version.
        Err(_) if data.is_null() => return Ok(()),
        other => other?,
    };
    if header.pid < 0 {
        return Err(Errno::EINVAL.into());
    }
    let caps = if header.pid == 0 {
        cx.cred().caps
    } else {
        let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
        let tree = cx.kernel().tree.lock();
        let number = u32::try_from(header.pid).map_err(|_| Errno::EINVAL)?;
        let task = tree.find_task(&ns, number).ok_or(Errno::ESRCH)?;
        task.published.lock().cred.caps
    };
    if data.is_null() {
        return Ok(());
    }
    let (effective, permitted, inheritable) =
        (split(caps.effective), split(caps.permitted), split(caps.inheritable));
    for at in 0..count {
        let value = Data {
            effective: effective.get(at).copied().unwrap_or(0),
            permitted: permitted.get(at).copied().unwrap_or(0),
            inheritable: inheritable.get(at).copied().unwrap_or(0),
        };
        cx.write(data.index(u64::try_from(at).unwrap_or(0))?, &value)?;
    }
    Ok(())
}

/// capset(2).
pub fn capset(cx: &mut Cx<'_>, header_at: UserPtr<Header>, data: UserPtr<Data>) -> CallResult<()> {
    let header: Header = cx.read(header_at)?;
    let count = words(cx, header_at, &header)?;
    let own = i32::try_from(cx.owned.pid.own()).unwrap_or(0);
    if header.pid != 0 && header.pid != own {
        return Err(Errno::EPERM.into());
    }
    let list = cx.mm().read_array(data, count)?;
    let join = |pick: fn(&Data) -> u32| {
        let low = list.first().map_or(0, pick);
        let high = list.get(1).map_or(0, pick);
        Capabilities::from_bits_truncate(u64::from(low) | (u64::from(high) << 32))
    };
    let (effective, permitted, inheritable) =
        (join(|d| d.effective), join(|d| d.permitted), join(|d| d.inheritable));
    let old = Arc::clone(cx.cred());
    let caps = &old.caps;
    let within = caps.inheritable | caps.permitted;
    let wrong = (!old.has(Capabilities::SETPCAP) && !within.contains(inheritable))
        || !(caps.inheritable | caps.bounding).contains(inheritable)
        || !caps.permitted.contains(permitted)
        || !permitted.contains(effective);
    if wrong {
        return Err(Errno::EPERM.into());
    }
    let mut new = Credentials::clone(&old);
    new.caps.effective = effective;
    new.caps.permitted = permitted;
    new.caps.inheritable = inheritable;
    new.caps.ambient &= permitted & inheritable;
    cx.owned.cred = Arc::new(new);
    cx.owned.publish(cx.shared);
    Ok(())
}
