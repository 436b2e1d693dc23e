//! prctl(2) about the address space: PR_SET_MM, PR_SET_VMA, PR_SET_MDWE.

use crate::loader::TASK_SIZE;
use crate::task::Cx;
use abi::{AddrRange, CallResult, Errno, Fd, SysResult, UserAddr, UserCStr, UserPtr};
use mm::{MemoryManager, ProgramRanges};
use std::sync::Arc;
use vfs::Capabilities;
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Lowest address that a program may name (`vm.mmap_min_addr`).
const MIN_ADDR: u64 = 65_536;
/// `struct prctl_mm_map`, in bytes.
const MAP_SIZE: u32 = 104;
/// Most bytes of an auxiliary vector.
const AUXV_MAX: u64 = 400;

/// `struct prctl_mm_map`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MmMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: i32,
}

/// PR_SET_VMA: PR_SET_VMA_ANON_NAME is all there is.
pub(super) fn set_vma(cx: &Cx<'_>, what: u64, addr: u64, len: u64, name: u64) -> CallResult<u64> {
    const ANON_NAME: u64 = 0;
    const NAME_MAX: usize = 80;
    if what != ANON_NAME {
        return Err(Errno::EINVAL.into());
    }
    let name = if name == 0 {
        None
    } else {
        let bytes = cx.mm().read_cstr(UserCStr::new(UserAddr::new(name)), NAME_MAX);
        let bytes =
            bytes.map_err(|error| if error == Errno::ENAMETOOLONG { Errno::EINVAL } else { error })?;
        if bytes.iter().any(|byte| !matches!(byte, 0x20..0x7f) || b"\\`$[]".contains(byte)) {
            return Err(Errno::EINVAL.into());
        }
        Some(bytes)
    };
    cx.mm().set_anonymous_name(UserAddr::new(addr), len, name.as_deref())?;
    Ok(0)
}

/// PR_SET_MDWE: what was not executable from the start never becomes so.
pub(super) fn set_mdwe(cx: &Cx<'_>, bits: u64) -> CallResult<u64> {
    const REFUSE_EXEC_GAIN: u64 = 1;
    const NO_INHERIT: u64 = 2;
    let wanted = match bits {
        0 => None,
        REFUSE_EXEC_GAIN => Some(mm::ExecGain::Refused),
        b if b == REFUSE_EXEC_GAIN | NO_INHERIT => Some(mm::ExecGain::RefusedHere),
        _ => return Err(Errno::EINVAL.into()),
    };
    let now = cx.mm().exec_gain();
    if now != mm::ExecGain::Allowed && Some(now) != wanted {
        // Cannot be taken back.
        return Err(Errno::EPERM.into());
    }
    if let Some(wanted) = wanted {
        cx.mm().set_exec_gain(wanted);
    }
    Ok(0)
}

/// PR_GET_MDWE.
pub(super) fn mdwe(cx: &Cx<'_>) -> u64 {
    match cx.mm().exec_gain() {
        mm::ExecGain::Allowed => 0,
        mm::ExecGain::Refused => 1,
        mm::ExecGain::RefusedHere => 3,
    }
}

/// PR_SET_MM.
pub(super) fn set_mm(cx: &Cx<'_>, what: u64, addr: u64, arg4: u64, arg5: u64) -> CallResult<u64> {
    const EXE_FILE: u64 = 13;
    const AUXV: u64 = 12;
    const MAP: u64 = 14;
    const SIZE: u64 = 15;
    if arg5 != 0 || (arg4 != 0 && !matches!(what, AUXV | MAP | SIZE)) {
        return Err(Errno::EINVAL.into());
    }
    match what {
        MAP => return set_map(cx, UserPtr::new(UserAddr::new(addr)), arg4),
        SIZE => {
            cx.write(UserPtr::new(UserAddr::new(addr)), &MAP_SIZE)?;
            return Ok(0);
        }
        _ => {}
    }
    needs(cx, Capabilities::SYS_RESOURCE)?;
    match what {
        EXE_FILE => return set_exe(cx, Fd::new(i32::try_from(addr).map_err(|_| Errno::EBADF)?)),
        AUXV => {
            set_auxv(cx, addr, arg4)?;
            return Ok(0);
        }
        _ => {}
    }
    if !(MIN_ADDR..TASK_SIZE).contains(&addr) {
        return Err(Errno::EINVAL.into());
    }
    set_one(cx.mm(), what, addr)?;
    Ok(0)
}

fn needs(cx: &Cx<'_>, cap: Capabilities) -> SysResult<()> {
    if cx.cred().has_in(cap, &cx.kernel().root.user) { Ok(()) } else { Err(Errno::EPERM) }
}

/// One bound of the program's parts.
fn set_one(mm: &MemoryManager, what: u64, addr: u64) -> SysResult<()> {
    let mut ranges = mm.program();
    let start = |range: AddrRange| AddrRange::new(addr, range.end()).ok_or(Errno::EINVAL);
    let end = |range: AddrRange| AddrRange::new(range.start(), addr).ok_or(Errno::EINVAL);
    match what {
        1 => ranges.code = start(ranges.code)?,
        2 => ranges.code = end(ranges.code)?,
        3 => ranges.data = start(ranges.data)?,
        4 => ranges.data = end(ranges.data)?,
        5 => ranges.stack_start = addr,
        6 => return mm.set_brk(AddrRange::new(addr, mm.brk_range().end()).ok_or(Errno::EINVAL)?),
        7 => return mm.set_brk(AddrRange::new(mm.brk_range().start(), addr).ok_or(Errno::EINVAL)?),
        8 => ranges.args = start(ranges.args)?,
        9 => ranges.args = end(ranges.args)?,
        10 => ranges.env = start(ranges.env)?,
        11 => ranges.env = end(ranges.env)?,
        _ => return Err(Errno::EINVAL),
    }
    // Stack, arguments and environment must lie in memory that is there.
    if matches!(what, 5 | 8..=11) && mm.areas(addr, 1).is_empty() {
        return Err(Errno::EFAULT);
    }
    mm.set_program(ranges);
    Ok(())
}

fn set_auxv(cx: &Cx<'_>, addr: u64, len: u64) -> SysResult<()> {
    if len == 0 || len > AUXV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(|_| Errno::EINVAL)?];
    cx.mm().read_bytes(UserAddr::new(addr), &mut bytes)?;
    cx.mm().set_auxv(&bytes);
    Ok(())
}

fn set_exe(cx: &Cx<'_>, fd: Fd) -> CallResult<u64> {
    let file = cx.files().get(fd)?;
    let place = file.location().cloned().ok_or(Errno::EACCES)?;
    let exe: mm::ExeFile = Arc::new(crate::loader::open_location(place, &cx.caller())?);
    cx.mm().set_exe(Some(exe));
    Ok(0)
}

fn set_map(cx: &Cx<'_>, at: UserPtr<MmMap>, size: u64) -> CallResult<u64> {
    if size != u64::from(MAP_SIZE) {
        return Err(Errno::EINVAL.into());
    }
    let map = cx.read(at)?;
    let bounds = [
        map.start_code,
        map.end_code,
        map.start_data,
        map.end_data,
        map.start_brk,
        map.brk,
        map.start_stack,
        map.arg_start,
        map.arg_end,
        map.env_start,
        map.env_end,
    ];
    if bounds.iter().any(|addr| !(MIN_ADDR..TASK_SIZE).contains(addr)) {
        return Err(Errno::EINVAL.into());
    }
    let range = |start, end| AddrRange::new(start, end).ok_or(Errno::EINVAL);
    let ranges = ProgramRanges {
        code: range(map.start_code, map.end_code)?,
        data: range(map.start_data, map.end_data)?,
        args: range(map.arg_start, map.arg_end)?,
        env: range(map.env_start, map.env_end)?,
        stack_start: map.start_stack,
    };
    let brk = range(map.start_brk, map.brk)?;
    if map.auxv_size > 0 && (map.auxv == 0 || u64::from(map.auxv_size) > AUXV_MAX) {
        return Err(Errno::EINVAL.into());
    }
    if map.exe_fd != -1 {
        let caps = Capabilities::SYS_ADMIN | Capabilities::CHECKPOINT_RESTORE;
        if !cx.cred().caps.effective.intersects(caps) {
            return Err(Errno::EPERM.into());
        }
        set_exe(cx, Fd::new(map.exe_fd))?;
    }
    if map.auxv_size > 0 {
        set_auxv(cx, map.auxv, u64::from(map.auxv_size))?;
    }
    cx.mm().set_brk(brk)?;
    cx.mm().set_program(ranges);
    Ok(0)
}
