//! ptrace(2): the tracer's side.

mod more;

use crate::ptrace::access::{Mode, may_access};
use crate::ptrace::{Resume, Stop, StopKind, Trace, attach, stop};
use crate::signal::send::{self, Force};
use crate::task::{Cx, RunMode, TaskShared, Work};
use abi::ptrace::{AUDIT_ARCH_X86_64, SyscallInfo, TraceOptions};
use abi::siginfo::{SigInfo, code};
use abi::signal::{SigSet, Signal};
use abi::stat::Iovec;
use abi::{CallResult, Errno, SysResult, UserAddr, UserPtr};
use platform::Registers;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

const TRACEME: u32 = 0;
const PEEKTEXT: u32 = 1;
const PEEKDATA: u32 = 2;
const PEEKUSER: u32 = 3;
const POKETEXT: u32 = 4;
const POKEDATA: u32 = 5;
const POKEUSER: u32 = 6;
const CONT: u32 = 7;
const KILL: u32 = 8;
const SINGLESTEP: u32 = 9;
const GETREGS: u32 = 12;
const SETREGS: u32 = 13;
const GETFPREGS: u32 = 14;
const SETFPREGS: u32 = 15;
const ATTACH: u32 = 16;
const DETACH: u32 = 17;
const SYSCALL: u32 = 24;
const ARCH_PRCTL: u32 = 30;
const SYSEMU: u32 = 31;
const SYSEMU_SINGLESTEP: u32 = 32;
const SETOPTIONS: u32 = 0x4200;
const GETEVENTMSG: u32 = 0x4201;
const GETSIGINFO: u32 = 0x4202;
const SETSIGINFO: u32 = 0x4203;
const GETREGSET: u32 = 0x4204;
const SETREGSET: u32 = 0x4205;
const SEIZE: u32 = 0x4206;
const INTERRUPT: u32 = 0x4207;
const LISTEN: u32 = 0x4208;
const PEEKSIGINFO: u32 = 0x4209;
const GETSIGMASK: u32 = 0x420a;
const SETSIGMASK: u32 = 0x420b;
const SECCOMP_GET_FILTER: u32 = 0x420c;
const SECCOMP_GET_METADATA: u32 = 0x420d;
const GET_SYSCALL_INFO: u32 = 0x420e;

const NT_PRSTATUS: u64 = 1;
const NT_PRFPREG: u64 = 2;
const NT_X86_XSTATE: u64 = 0x202;
/// Bytes of `struct user_fpregs_struct`.
const FPREGS: usize = 512;

/// ptrace(2).
pub fn ptrace(cx: &mut Cx<'_>, request: u32, pid: i32, addr: u64, data: u64) -> CallResult<u64> {
    if request == TRACEME {
        stop::trace_me(cx)?;
        return Ok(0);
    }
    let task = find(cx, pid)?;
    match request {
        ATTACH | SEIZE => begin(cx, &task, request, addr, data)?,
        INTERRUPT => {
            let seized = mine(cx, &task)?.seized;
            if !seized {
                return Err(Errno::EIO.into());
            }
            task.set_interrupt();
            task.kick(Work::TRACE);
        }
        KILL => {
            mine(cx, &task)?;
            let _ = send::to_process(&task.process, SigInfo::kernel(Signal::SIGKILL), Force::Yes);
        }
        CONT | SYSCALL | SYSEMU | SYSEMU_SINGLESTEP | SINGLESTEP | LISTEN | DETACH => {
            resume(cx, &task, request, data)?
        }
        _ => return inspect(cx, &task, request, addr, data),
    }
    Ok(0)
}

fn find(cx: &Cx<'_>, pid: i32) -> SysResult<Arc<TaskShared>> {
    let number = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let tree = cx.kernel().tree.lock();
    Ok(Arc::clone(tree.find_task(&ns, number).ok_or(Errno::ESRCH)?))
}

/// The caller's hold on the task; `ESRCH` when it has none.
fn mine(cx: &Cx<'_>, task: &TaskShared) -> SysResult<Trace> {
    let slot = task.trace.lock();
    let trace = slot.as_ref().filter(|trace| trace.tracer == cx.shared.tid()).ok_or(Errno::ESRCH)?;
    Ok(Trace { stop: None, ..*trace })
}

/// Looks at or changes the stop of the caller's tracee; `ESRCH` when it is not stopped.
fn with_stop<T>(cx: &Cx<'_>, task: &TaskShared, act: impl FnOnce(&mut Stop) -> SysResult<T>) -> SysResult<T> {
    let mut slot = task.trace.lock();
    let trace = slot.as_mut().filter(|trace| trace.tracer == cx.shared.tid()).ok_or(Errno::ESRCH)?;
    act(trace.stop.as_mut().filter(|stop| stop.resumed.is_none()).ok_or(Errno::ESRCH)?)
}

/// The same for the trace itself.
fn with_trace<T>(
    cx: &Cx<'_>,
    task: &TaskShared,
    act: impl FnOnce(&mut Trace) -> SysResult<T>,
) -> SysResult<T> {
    let mut slot = task.trace.lock();
    let trace = slot.as_mut().filter(|trace| trace.tracer == cx.shared.tid()).ok_or(Errno::ESRCH)?;
    trace.stop.as_ref().filter(|stop| stop.resumed.is_none()).ok_or(Errno::ESRCH)?;
    act(trace)
}

/// The number of the debug register at an offset of `struct user`.
fn debug_register(addr: u64) -> Option<usize> {
    const FIRST: u64 = 848;
    let at = addr.checked_sub(FIRST).filter(|at| at.is_multiple_of(8) && *at < 64)?;
    usize::try_from(at / 8).ok()
}

fn begin(cx: &Cx<'_>, task: &Arc<TaskShared>, request: u32, addr: u64, data: u64) -> SysResult<()> {
    if Arc::ptr_eq(&task.process, &cx.shared.process) {
        return Err(Errno::EPERM);
    }
    let seize = request == SEIZE;
    let options = if seize {
        if addr != 0 {
            return Err(Errno::EIO);
        }
        u32::try_from(data).ok().and_then(TraceOptions::from_bits).ok_or(Errno::EIO)?
    } else {
        TraceOptions::empty()
    };
    may_access(cx, task, Mode::AttachReal)?;
    attach(task, Trace::new(cx.shared, seize, options))?;
    let was_stopped = task.mode() == RunMode::Stopped;
    task.kick(Work::TRACE);
    // As in Linux, one that is stopped already is in its tracer's hands when the call returns.
    let on_its_way = || {
        let waits = task.trace.lock().as_ref().is_some_and(|trace| trace.stop.is_none());
        waits && !task.is_exiting() && task.work().contains(Work::STOP) && !task.work().contains(Work::KILL)
    };
    while was_stopped && on_its_way() {
        std::thread::yield_now();
    }
    if !seize {
        let info = SigInfo::from_sender(Signal::SIGSTOP, code::SI_USER, 0, 0);
        let _ = send::to_task(task, info, Force::Yes);
    }
    Ok(())
}

fn resume(cx: &Cx<'_>, task: &Arc<TaskShared>, request: u32, data: u64) -> SysResult<()> {
    let signal = u32::try_from(data).ok().filter(|n| *n <= 64).ok_or(Errno::EIO)?;
    let mode = match request {
        SYSCALL => Resume::Syscall,
        SYSEMU => Resume::Sysemu,
        SYSEMU_SINGLESTEP => Resume::SysemuStep,
        SINGLESTEP => Resume::Step,
        LISTEN => Resume::Listen,
        DETACH => Resume::Detach,
        _ => Resume::Cont,
    };
    with_stop(cx, task, |stop| {
        if mode == Resume::Listen && stop.kind != StopKind::Group {
            return Err(Errno::EIO);
        }
        stop.resumed = Some((mode, signal));
        Ok(())
    })?;
    task.parker().unpark();
    // It takes its registers and the signal along, and is free when the call returns.
    let held = || task.trace.lock().as_ref().is_some_and(|trace| trace.tracer == cx.shared.tid());
    while request == DETACH && held() {
        std::thread::yield_now();
    }
    Ok(())
}

fn inspect(cx: &mut Cx<'_>, task: &Arc<TaskShared>, request: u32, addr: u64, data: u64) -> CallResult<u64> {
    let at = UserAddr::new(data);
    match request {
        PEEKTEXT | PEEKDATA => {
            let word = memory(cx, task, |mm| {
                let mut word = [0; 8];
                mm.read_bytes(UserAddr::new(addr), &mut word).map_err(|_| Errno::EIO)?;
                Ok(word)
            })?;
            cx.mm().write_bytes(at, &word)?;
        }
        POKETEXT | POKEDATA => memory(cx, task, |mm| {
            let done = mm.write_forced(UserAddr::new(addr), &data.to_le_bytes());
            if done == 8 { Ok(()) } else { Err(Errno::EIO) }
        })?,
        PEEKUSER => {
            let value = match debug_register(addr) {
                Some(number) => with_trace(cx, task, |trace| Ok(trace.debug.get(number)))?,
                None => with_stop(cx, task, |stop| user_word(&stop.registers, addr))?,
            };
            cx.mm().write_bytes(at, &value.to_le_bytes())?;
        }
        POKEUSER => match debug_register(addr) {
            Some(number) => with_trace(cx, task, |trace| trace.debug.set(number, data))?,
            None => with_stop(cx, task, |stop| set_user_word(stop, addr, data))?,
        },
        GETREGS => {
            let regs = with_stop(cx, task, |stop| Ok(stop.registers))?;
            cx.mm().write_bytes(at, regs.as_bytes())?;
        }
        SETREGS => {
            let regs: Registers = cx.read(UserPtr::new(at))?;
            with_stop(cx, task, |stop| {
                set_registers(stop, &regs);
                Ok(())
            })?;
        }
        GETFPREGS => {
            let state = with_stop(cx, task, |stop| Ok(stop.xstate.clone()))?;
            cx.mm().write_bytes(at, state.get(..FPREGS).ok_or(Errno::EIO)?)?;
        }
        SETFPREGS => {
            let mut bytes = vec![0; FPREGS];
            cx.mm().read_bytes(at, &mut bytes)?;
            with_stop(cx, task, |stop| {
                set_xstate(stop, &bytes);
                Ok(())
            })?;
        }
        GETREGSET | SETREGSET => regset(cx, task, request, addr, UserPtr::new(at))?,
        SETOPTIONS => {
            let options = u32::try_from(data).ok().and_then(TraceOptions::from_bits).ok_or(Errno::EINVAL)?;
            with_stop(cx, task, |_| Ok(()))?;
            if let Some(trace) = task.trace.lock().as_mut() {
                trace.options = options;
            }
        }
        GETEVENTMSG => {
            let message = task.trace.lock().as_ref().map_or(0, |trace| trace.message);
            mine(cx, task)?;
            cx.mm().write_bytes(at, &message.to_le_bytes())?;
        }
        GETSIGINFO => {
            let info = with_stop(cx, task, |stop| Ok(stop.info))?;
            cx.write(UserPtr::new(at), &info)?;
        }
        SETSIGINFO => {
            let info: SigInfo = cx.read(UserPtr::new(at))?;
            with_stop(cx, task, |stop| {
                stop.info = info;
                Ok(())
            })?;
        }
        PEEKSIGINFO => return Ok(more::peek_siginfo(cx, task, UserPtr::new(UserAddr::new(addr)), at)?),
        SECCOMP_GET_FILTER => return Ok(more::seccomp_filter(cx, task, addr, at)?),
        SECCOMP_GET_METADATA => return Ok(more::seccomp_metadata(cx, task, addr, UserPtr::new(at))?),
        ARCH_PRCTL => {
            // The code is in `data` and the address in `addr`.
            let code = u32::try_from(data).map_err(|_| Errno::EINVAL)?;
            let value = more::arch_prctl(cx, task, code, addr)?;
            if let Some(value) = value {
                cx.mm().write_bytes(UserAddr::new(addr), &value.to_le_bytes())?;
            }
        }
        GETSIGMASK => {
            with_stop(cx, task, |_| Ok(()))?;
            if addr != 8 {
                return Err(Errno::EINVAL.into());
            }
            cx.mm().write_bytes(at, &task.mask().0.to_le_bytes())?;
        }
        SETSIGMASK => {
            if addr != 8 {
                return Err(Errno::EINVAL.into());
            }
            let mask: u64 = cx.read(UserPtr::new(at))?;
            with_stop(cx, task, |_| Ok(()))?;
            task.store_mask(SigSet(mask).difference(SigSet::UNBLOCKABLE));
            task.kick(Work::SIGNAL);
        }
        GET_SYSCALL_INFO => return Ok(syscall_info(cx, task, addr, at)?),
        _ => return Err(Errno::EIO.into()),
    }
    Ok(0)
}

fn memory<T>(
    cx: &Cx<'_>,
    task: &TaskShared,
    act: impl FnOnce(&mm::MemoryManager) -> SysResult<T>,
) -> SysResult<T> {
    with_stop(cx, task, |_| Ok(()))?;
    let mm = task.published.lock().mm.clone().ok_or(Errno::ESRCH)?;
    act(&mm)
}

fn slot(addr: u64) -> SysResult<usize> {
    let size = u64::try_from(size_of::<Registers>()).unwrap_or(0);
    // Debug registers and the rest of struct user read as zero.
    if !addr.is_multiple_of(8) || addr >= 928 {
        return Err(Errno::EIO);
    }
    Ok(usize::try_from(addr.min(size)).unwrap_or(0))
}

fn user_word(registers: &Registers, addr: u64) -> SysResult<u64> {
    let at = slot(addr)?;
    let bytes = registers.as_bytes().get(at..at + 8).and_then(|b| b.try_into().ok());
    Ok(bytes.map_or(0, u64::from_le_bytes))
}

fn set_user_word(stop: &mut Stop, addr: u64, value: u64) -> SysResult<()> {
    let at = slot(addr)?;
    let mut regs = stop.registers;
    if let Some(bytes) = regs.as_mut_bytes().get_mut(at..at + 8) {
        bytes.copy_from_slice(&value.to_le_bytes());
        set_registers(stop, &regs);
    }
    Ok(())
}

/// Flags that a tracer may change: those of a signal frame, and the trap flag.
const FLAGS: u64 = 0x0005_0dd5;

fn set_registers(stop: &mut Stop, new: &Registers) {
    let old = stop.registers;
    let mut regs = *new;
    regs.cs = old.cs;
    regs.ss = old.ss;
    regs.eflags = (old.eflags & !FLAGS) | (new.eflags & FLAGS);
    if regs.fs_base >= crate::loader::TASK_SIZE {
        regs.fs_base = old.fs_base;
    }
    if regs.gs_base >= crate::loader::TASK_SIZE {
        regs.gs_base = old.gs_base;
    }
    stop.registers = regs;
    stop.changed = true;
}

fn set_xstate(stop: &mut Stop, bytes: &[u8]) {
    for (to, from) in stop.xstate.iter_mut().zip(bytes) {
        *to = *from;
    }
    crate::signal::frame::sanitize(&mut stop.xstate);
    stop.changed = true;
}

fn regset(cx: &Cx<'_>, task: &TaskShared, request: u32, kind: u64, vector: UserPtr<Iovec>) -> SysResult<()> {
    let iov: Iovec = cx.read(vector)?;
    // Whole words, as all sets here are made of.
    if !iov.len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let room = usize::try_from(iov.len).unwrap_or(usize::MAX);
    let at = UserAddr::new(iov.base);
    let current = with_stop(cx, task, |stop| {
        Ok(match kind {
            NT_PRSTATUS => stop.registers.as_bytes().to_vec(),
            NT_PRFPREG => stop.xstate.get(..FPREGS).unwrap_or_default().to_vec(),
            NT_X86_XSTATE => xstate_for_debuggers(&stop.xstate),
            _ => return Err(Errno::EINVAL),
        })
    })?;
    let len = room.min(current.len());
    if request == GETREGSET {
        cx.mm().write_bytes(at, current.get(..len).unwrap_or_default())?;
    } else {
        let mut bytes = current;
        cx.mm().read_bytes(at, bytes.get_mut(..len).unwrap_or_default())?;
        with_stop(cx, task, |stop| {
            if kind == NT_PRSTATUS {
                let regs = Registers::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?;
                set_registers(stop, &regs);
            } else {
                set_xstate(stop, &bytes);
            }
            Ok(())
        })?;
    }
    let written = u64::try_from(len).unwrap_or(0);
    cx.write(vector, &Iovec { base: iov.base, len: written })
}

/// The XSAVE area with the set of features in it where debuggers look for it (`xstate_fx_sw_bytes`).
#[must_use]
pub fn xstate_for_debuggers(xstate: &[u8]) -> Vec<u8> {
    const FEATURES: std::ops::Range<usize> = 464..472;
    let mut area = xstate.to_vec();
    if let Some(slot) = area.get_mut(FEATURES) {
        slot.copy_from_slice(&platform::registers::xfeatures().to_le_bytes());
    }
    area
}

/// PTRACE_GET_SYSCALL_INFO: returns the size that there was to write.
fn syscall_info(cx: &Cx<'_>, task: &TaskShared, size: u64, at: UserAddr) -> SysResult<u64> {
    let (info, len) = with_stop(cx, task, |stop| {
        let regs = &stop.registers;
        let mut info =
            SyscallInfo { arch: AUDIT_ARCH_X86_64, ip: regs.rip, sp: regs.rsp, ..SyscallInfo::default() };
        let len: u64 = match stop.kind {
            StopKind::Entry => {
                info.op = 1;
                info.data = [regs.orig_rax, regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9, 0];
                80
            }
            StopKind::Exit => {
                info.op = 2;
                let failed = regs.rax > 0xffff_ffff_ffff_f000;
                info.data = [regs.rax, u64::from(failed), 0, 0, 0, 0, 0, 0];
                33
            }
            _ => 24,
        };
        Ok((info, len))
    })?;
    let len_now = usize::try_from(size.min(len)).unwrap_or(0);
    cx.mm().write_bytes(at, info.as_bytes().get(..len_now).unwrap_or_default())?;
    Ok(len)
}
