//! Rarer requests of ptrace(2): queued signals, seccomp programs, segment bases.

use super::{set_registers, with_stop};
use crate::task::{Cx, TaskShared};
use abi::siginfo::SigInfo;
use abi::{Errno, SysResult, UserAddr, UserPtr};
use vfs::Capabilities;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct __ptrace_peeksiginfo_args`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct PeekArgs {
    offset: u64,
    flags: u32,
    number: i32,
}

/// PTRACE_PEEKSIGINFO_SHARED: of the process, not of the thread.
const SHARED: u32 = 1;

/// PTRACE_PEEKSIGINFO: returns how many were copied.
pub(super) fn peek_siginfo(
    cx: &Cx<'_>,
    task: &TaskShared,
    args: UserPtr<PeekArgs>,
    out: UserAddr,
) -> SysResult<u64> {
    with_stop(cx, task, |_| Ok(()))?;
    let args: PeekArgs = cx.read(args)?;
    let number = usize::try_from(args.number).map_err(|_| Errno::EINVAL)?;
    if args.flags & !SHARED != 0 {
        return Err(Errno::EINVAL);
    }
    let skip = usize::try_from(args.offset).unwrap_or(usize::MAX);
    let queue = if args.flags & SHARED != 0 { &task.process.pending } else { &task.pending };
    let found: Vec<SigInfo> = queue.lock().iter().skip(skip).take(number).copied().collect();
    let mut count = 0;
    for info in &found {
        if let Err(errno) = cx.write(UserPtr::<SigInfo>::new(out).index(count)?, info) {
            return if count == 0 { Err(errno) } else { Ok(count) };
        }
        count += 1;
    }
    Ok(count)
}

fn may_see_filters(cx: &Cx<'_>, task: &TaskShared) -> SysResult<()> {
    with_stop(cx, task, |_| Ok(()))?;
    if !cx.cred().has(Capabilities::SYS_ADMIN) || cx.owned.seccomp.is_some() {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// PTRACE_SECCOMP_GET_FILTER: returns the number of instructions.
pub(super) fn seccomp_filter(cx: &Cx<'_>, task: &TaskShared, number: u64, out: UserAddr) -> SysResult<u64> {
    may_see_filters(cx, task)?;
    let filters = task.seccomp().filter(|filters| filters.count() > 0).ok_or(Errno::EINVAL)?;
    let (program, _) = filters.program(number)?;
    if !out.is_null() {
        cx.mm().write_bytes(out, program.bytes())?;
    }
    Ok(u64::try_from(program.len()).unwrap_or(0))
}

/// PTRACE_SECCOMP_GET_METADATA: number of a filter in, its flags out; returns the size.
pub(super) fn seccomp_metadata(
    cx: &Cx<'_>,
    task: &TaskShared,
    size: u64,
    at: UserPtr<[u64; 2]>,
) -> SysResult<u64> {
    const SIZE: usize = size_of::<[u64; 2]>();
    may_see_filters(cx, task)?;
    let size = usize::try_from(size).unwrap_or(SIZE).min(SIZE);
    if size < 8 {
        return Err(Errno::EINVAL);
    }
    let [number, _] = cx.read(at)?;
    let filters = task.seccomp().filter(|filters| filters.count() > 0).ok_or(Errno::EINVAL)?;
    let (_, logs) = filters.program(number)?;
    let value = [number, if logs { 2 } else { 0 }];
    cx.mm().write_bytes(at.addr(), value.as_bytes().get(..size).unwrap_or_default())?;
    Ok(u64::try_from(size).unwrap_or(0))
}

/// PTRACE_ARCH_PRCTL: the value of a base that was asked for.
pub(super) fn arch_prctl(cx: &Cx<'_>, task: &TaskShared, code: u32, addr: u64) -> SysResult<Option<u64>> {
    with_stop(cx, task, |stop| {
        let mut regs = stop.registers;
        match code {
            0x1001 | 0x1002 if addr >= crate::loader::TASK_SIZE => return Err(Errno::EPERM),
            0x1001 => regs.gs_base = addr,
            0x1002 => regs.fs_base = addr,
            0x1003 => return Ok(Some(regs.fs_base)),
            0x1004 => return Ok(Some(regs.gs_base)),
            _ => return Err(Errno::EINVAL),
        }
        set_registers(stop, &regs);
        Ok(None)
    })
}
