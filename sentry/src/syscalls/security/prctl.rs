//! prctl(2).

mod memory;

use crate::cred::{SECBIT_KEEP_CAPS, SECBIT_KEEP_CAPS_LOCKED, SECBIT_NO_CAP_AMBIENT_RAISE};
use crate::task::{Cx, MceKill};
use abi::signal::Signal;
use abi::{CallResult, Errno, SysResult, UserAddr, UserCStr, UserPtr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::{Capabilities, Credentials};

const SET_PDEATHSIG: u32 = 1;
const GET_PDEATHSIG: u32 = 2;
const GET_DUMPABLE: u32 = 3;
const SET_DUMPABLE: u32 = 4;
const GET_KEEPCAPS: u32 = 7;
const SET_KEEPCAPS: u32 = 8;
const GET_TIMING: u32 = 13;
const SET_TIMING: u32 = 14;
const SET_NAME: u32 = 15;
const GET_NAME: u32 = 16;
const GET_SECCOMP: u32 = 21;
const SET_SECCOMP: u32 = 22;
const CAPBSET_READ: u32 = 23;
const CAPBSET_DROP: u32 = 24;
const GET_TSC: u32 = 25;
const SET_TSC: u32 = 26;
const GET_SECUREBITS: u32 = 27;
const SET_SECUREBITS: u32 = 28;
const SET_TIMERSLACK: u32 = 29;
const GET_TIMERSLACK: u32 = 30;
const TASK_PERF_EVENTS_DISABLE: u32 = 31;
const TASK_PERF_EVENTS_ENABLE: u32 = 32;
const MCE_KILL: u32 = 33;
const MCE_KILL_GET: u32 = 34;
const SET_CHILD_SUBREAPER: u32 = 36;
const GET_CHILD_SUBREAPER: u32 = 37;
const SET_NO_NEW_PRIVS: u32 = 38;
const GET_NO_NEW_PRIVS: u32 = 39;
const GET_TID_ADDRESS: u32 = 40;
const SET_THP_DISABLE: u32 = 41;
const GET_THP_DISABLE: u32 = 42;
const SET_MM: u32 = 35;
const CAP_AMBIENT: u32 = 47;
const GET_SPECULATION_CTRL: u32 = 52;
const SET_SPECULATION_CTRL: u32 = 53;
const SET_IO_FLUSHER: u32 = 57;
const GET_IO_FLUSHER: u32 = 58;
const SET_SYSCALL_USER_DISPATCH: u32 = 59;
const SET_MDWE: u32 = 65;
const GET_MDWE: u32 = 66;
const SET_VMA: u32 = 0x5356_4d41;
const GET_AUXV: u32 = 0x4155_5856;
const SET_PTRACER: u32 = 0x5961_6d61;

/// prctl(2).
pub fn prctl(cx: &mut Cx<'_>, option: u32, arg2: u64, arg3: u64, arg4: u64, arg5: u64) -> CallResult<u64> {
    let rest_unused = arg3 == 0 && arg4 == 0 && arg5 == 0;
    let only_if = |ok: bool| if ok { Ok(()) } else { Err(Errno::EINVAL) };
    let marks = &cx.shared.process.marks;
    let relaxed = Ordering::Relaxed;
    match option {
        SET_PDEATHSIG => {
            let number = u32::try_from(arg2).map_err(|_| Errno::EINVAL)?;
            if number != 0 {
                Signal::new(number)?;
            }
            cx.shared.death_signal.store(number, relaxed);
        }
        GET_PDEATHSIG => {
            cx.write(UserPtr::new(UserAddr::new(arg2)), &cx.shared.death_signal.load(relaxed))?
        }
        GET_DUMPABLE => return Ok(u64::from(!marks.undumpable.load(relaxed))),
        SET_DUMPABLE => {
            only_if(arg2 <= 1)?;
            marks.undumpable.store(arg2 == 0, relaxed);
        }
        GET_KEEPCAPS => return Ok(u64::from(cx.cred().securebits & SECBIT_KEEP_CAPS != 0)),
        SET_KEEPCAPS => {
            only_if(arg2 <= 1)?;
            if cx.cred().securebits & SECBIT_KEEP_CAPS_LOCKED != 0 {
                return Err(Errno::EPERM.into());
            }
            let mut new = Credentials::clone(cx.cred());
            new.securebits =
                (new.securebits & !SECBIT_KEEP_CAPS) | if arg2 == 1 { SECBIT_KEEP_CAPS } else { 0 };
            replace(cx, new);
        }
        GET_TIMING => {}
        // Only statistical timing is there, as in Linux.
        SET_TIMING => only_if(arg2 == 0)?,
        SET_NAME => set_name(cx, UserCStr::new(UserAddr::new(arg2)))?,
        GET_NAME => {
            let name = cx.owned.comm;
            cx.mm().write_bytes(UserAddr::new(arg2), &name)?;
        }
        GET_SECCOMP => return Ok(crate::seccomp::mode(cx)),
        SET_SECCOMP => return crate::seccomp::set_by_prctl(cx, arg2, UserAddr::new(arg3)),
        CAPBSET_READ => {
            let cap = capability(arg2)?;
            return Ok(u64::from(cx.cred().caps.bounding.contains(cap)));
        }
        CAPBSET_DROP => {
            let cap = capability(arg2)?;
            if !cx.cred().has(Capabilities::SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            let mut new = Credentials::clone(cx.cred());
            new.caps.bounding.remove(cap);
            replace(cx, new);
        }
        GET_TSC => cx.write(UserPtr::new(UserAddr::new(arg2)), &1_u32)?,
        // The counter is always readable: it cannot be taken away from guest code.
        SET_TSC => only_if(arg2 == 1)?,
        GET_SECUREBITS => return Ok(u64::from(cx.cred().securebits)),
        SET_SECUREBITS => set_securebits(cx, arg2)?,
        SET_TIMERSLACK => {
            let default = cx.owned.personal.timer_slack.default_ns;
            let is_default = arg2.cast_signed() <= 0;
            cx.owned.personal.timer_slack.now_ns = if is_default { default } else { arg2 };
            cx.owned.publish(cx.shared);
        }
        GET_TIMERSLACK => return Ok(cx.owned.personal.timer_slack.now_ns),
        // There are no counters to stop.
        TASK_PERF_EVENTS_DISABLE | TASK_PERF_EVENTS_ENABLE => {}
        MCE_KILL => cx.owned.personal.mce_kill = mce_kill(arg2, arg3, arg4 | arg5)?,
        MCE_KILL_GET => {
            only_if(arg2 == 0 && rest_unused)?;
            return Ok(cx.owned.personal.mce_kill.number());
        }
        SET_CHILD_SUBREAPER => marks.subreaper.store(arg2 != 0, relaxed),
        GET_CHILD_SUBREAPER => {
            let value = u32::from(marks.subreaper.load(relaxed));
            cx.write(UserPtr::new(UserAddr::new(arg2)), &value)?;
        }
        SET_NO_NEW_PRIVS => {
            only_if(arg2 == 1 && rest_unused)?;
            cx.owned.no_new_privs = true;
            cx.shared.set_no_new_privs();
        }
        GET_NO_NEW_PRIVS => {
            only_if(arg2 == 0 && rest_unused)?;
            return Ok(u64::from(cx.owned.no_new_privs));
        }
        GET_TID_ADDRESS => {
            let addr = cx.owned.registered.clear_child_tid;
            cx.write(UserPtr::new(UserAddr::new(arg2)), &addr.raw())?;
        }
        SET_THP_DISABLE => {
            only_if(rest_unused)?;
            marks.no_huge_pages.store(arg2 != 0, relaxed);
        }
        GET_THP_DISABLE if arg2 != 0 || !rest_unused => return Err(Errno::EINVAL.into()),
        GET_THP_DISABLE => return Ok(u64::from(marks.no_huge_pages.load(relaxed))),
        CAP_AMBIENT => {
            only_if(arg4 == 0 && arg5 == 0)?;
            return ambient(cx, arg2, arg3);
        }
        GET_SPECULATION_CTRL => {
            only_if(rest_unused)?;
            // Not affected: speculation is the host's affair.
            return if arg2 <= 2 { Ok(0) } else { Err(Errno::ENODEV.into()) };
        }
        SET_SPECULATION_CTRL => {
            only_if(arg4 == 0 && arg5 == 0)?;
            return Err(if arg2 <= 2 { Errno::ENXIO } else { Errno::ENODEV }.into());
        }
        SET_IO_FLUSHER | GET_IO_FLUSHER => {
            if !cx.cred().has(Capabilities::SYS_RESOURCE) {
                return Err(Errno::EPERM.into());
            }
            only_if(rest_unused && arg2 <= u64::from(option == SET_IO_FLUSHER))?;
            if option == GET_IO_FLUSHER {
                return Ok(u64::from(cx.owned.personal.io_flusher));
            }
            cx.owned.personal.io_flusher = arg2 == 1;
        }
        SET_SYSCALL_USER_DISPATCH => crate::signal::user_dispatch::set(cx, arg2, arg3, arg4, arg5)?,
        SET_MM => return memory::set_mm(cx, arg2, arg3, arg4, arg5),
        SET_VMA => return memory::set_vma(cx, arg2, arg3, arg4, arg5),
        SET_MDWE => {
            only_if(rest_unused)?;
            return memory::set_mdwe(cx, arg2);
        }
        GET_MDWE => {
            only_if(arg2 == 0 && rest_unused)?;
            return Ok(memory::mdwe(cx));
        }
        GET_AUXV => {
            only_if(arg4 == 0 && arg5 == 0)?;
            let auxv = cx.mm().auxv();
            let len = auxv.len().min(usize::try_from(arg3).unwrap_or(usize::MAX));
            cx.mm().write_bytes(UserAddr::new(arg2), auxv.get(..len).unwrap_or_default())?;
            return Ok(u64::try_from(auxv.len()).unwrap_or(0));
        }
        // Yama is not part of this kernel, which answers as Linux without it.
        SET_PTRACER => return Err(Errno::EINVAL.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn mce_kill(arg2: u64, arg3: u64, rest: u64) -> SysResult<MceKill> {
    match (arg2, arg3) {
        _ if rest != 0 => Err(Errno::EINVAL),
        (0, 0) | (1, 2) => Ok(MceKill::Default),
        (1, 0) => Ok(MceKill::Late),
        (1, 1) => Ok(MceKill::Early),
        _ => Err(Errno::EINVAL),
    }
}

fn replace(cx: &mut Cx<'_>, new: Credentials) {
    cx.owned.cred = Arc::new(new);
    cx.owned.publish(cx.shared);
}

fn capability(number: u64) -> SysResult<Capabilities> {
    let number = u32::try_from(number).map_err(|_| Errno::EINVAL)?;
    if number > Capabilities::LAST {
        return Err(Errno::EINVAL);
    }
    Capabilities::from_bits(1 << number).ok_or(Errno::EINVAL)
}

fn set_name(cx: &mut Cx<'_>, text: UserCStr) -> SysResult<()> {
    // At most 15 bytes count; a longer string is cut, not refused.
    let mut name = [0; 16];
    for (at, slot) in name.iter_mut().take(15).enumerate() {
        let byte: u8 = cx.read(UserPtr::new(text.addr().checked_add(u64::try_from(at).unwrap_or(0))?))?;
        if byte == 0 {
            break;
        }
        *slot = byte;
    }
    cx.owned.comm = name;
    cx.owned.publish(cx.shared);
    Ok(())
}

/// All `SECBIT_*` and their locks.
const ALL_SECBITS: u32 = 0xff;
const LOCKS: u32 = 0xaa;

fn set_securebits(cx: &mut Cx<'_>, bits: u64) -> SysResult<()> {
    let bits = u32::try_from(bits).map_err(|_| Errno::EPERM)?;
    let old = cx.cred().securebits;
    let locked = (old & LOCKS) >> 1;
    let broken_lock = locked & (old ^ bits) != 0 || (old & LOCKS) & !bits != 0;
    if broken_lock || bits & !ALL_SECBITS != 0 || !cx.cred().has(Capabilities::SETPCAP) {
        return Err(Errno::EPERM);
    }
    let mut new = Credentials::clone(cx.cred());
    new.securebits = bits;
    replace(cx, new);
    Ok(())
}

fn ambient(cx: &mut Cx<'_>, operation: u64, number: u64) -> CallResult<u64> {
    let mut new = Credentials::clone(cx.cred());
    match operation {
        1 => return Ok(u64::from(new.caps.ambient.contains(capability(number)?))),
        2 => {
            let cap = capability(number)?;
            let allowed = new.caps.permitted.contains(cap) && new.caps.inheritable.contains(cap);
            if !allowed || new.securebits & SECBIT_NO_CAP_AMBIENT_RAISE != 0 {
                return Err(Errno::EPERM.into());
            }
            new.caps.ambient |= cap;
        }
        3 => new.caps.ambient.remove(capability(number)?),
        4 if number == 0 => new.caps.ambient = Capabilities::empty(),
        _ => return Err(Errno::EINVAL.into()),
    }
    replace(cx, new);
    Ok(0)
}
