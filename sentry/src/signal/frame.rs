//! The x86-64 signal frame (`struct rt_sigframe`, asm/sigcontext.h): built for a handler, read back by
//! rt_sigreturn(2). What is read back comes from the guest and can only hurt the guest itself.

use crate::task::Cx;
use abi::siginfo::{SigAction, SigInfo, StackT};
use abi::signal::{SigSet, Signal};
use abi::{Errno, SysResult, UserAddr, UserPtr};
use platform::Registers;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct sigcontext`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SigContext {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    di: u64,
    si: u64,
    bp: u64,
    bx: u64,
    dx: u64,
    ax: u64,
    cx: u64,
    sp: u64,
    ip: u64,
    flags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    err: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
}

/// `struct ucontext` and what stands around it.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RtSigFrame {
    pretcode: u64,
    uc_flags: u64,
    uc_link: u64,
    uc_stack: StackT,
    mcontext: SigContext,
    sigmask: u64,
    info: SigInfo,
}

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
const RED_ZONE: u64 = 128;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
const FP_XSTATE_MAGIC2: u32 = 0x4650_5845;
/// Offset of `struct _fpx_sw_bytes` in the legacy region.
const SW_BYTES: usize = 464;
/// Offset of XSTATE_BV.
const XSTATE_BV: usize = 512;
/// Legacy region and header.
const MIN_XSTATE: usize = 576;
/// Flags that a frame may change: AC OF DF TF SF ZF AF PF CF RF.
const RESTORABLE_FLAGS: u64 = 0x0005_0dd5;
/// DF, TF and RF are off when a handler starts.
const HANDLER_CLEARS: u64 = 0x0001_0500;
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;

/// Details of the fault that a signal reports (`err`, `trapno`, `cr2`).
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultDetail {
    /// Page-fault error code.
    pub error: u64,
    /// Exception number.
    pub trap: u64,
    /// Faulting address.
    pub cr2: u64,
}

/// AT_MINSIGSTKSZ: the largest frame, with what the ABI wants around it.
#[must_use]
pub fn min_stack_size() -> u64 {
    let fixed = u64::try_from(size_of::<RtSigFrame>()).unwrap_or(0);
    let xstate = u64::try_from(platform::registers::xstate_size()).unwrap_or(0);
    fixed + xstate + 4 + 64 + 16 + RED_ZONE
}

/// Builds the frame of `action` for `signal` and points the registers at the handler.
pub fn build(
    cx: &mut Cx<'_>,
    signal: Signal,
    info: &SigInfo,
    action: &SigAction,
    mask: SigSet,
) -> SysResult<()> {
    let mut xstate = cx.context.xstate().clone();
    let regs = *cx.context.registers();
    let stack = cx.owned.signal.altstack;
    let on_stack = is_on(&stack, regs.rsp);
    let mut sp = regs.rsp.wrapping_sub(RED_ZONE);
    let mut entered = false;
    if action.flags & SigAction::ONSTACK != 0 && stack.flags & StackT::DISABLE == 0 && !on_stack {
        sp = stack.sp.wrapping_add(stack.size);
        entered = true;
    }
    let area = u64::try_from(xstate.len()).map_err(|_| Errno::EFAULT)?;
    sp = sp.wrapping_sub(area + 4) & !63;
    let fpstate = sp;
    let size = u64::try_from(size_of::<RtSigFrame>()).map_err(|_| Errno::EFAULT)?;
    let base = (sp.wrapping_sub(size) & !15).wrapping_sub(8);
    // A frame that would leave the alternate stack is an overflow, not a place to write.
    if (entered || on_stack) && stack.flags & StackT::AUTODISARM == 0 && !is_on(&stack, base.wrapping_add(1))
    {
        return Err(Errno::EFAULT);
    }
    write_xstate(cx, &mut xstate, fpstate)?;
    let detail = std::mem::take(&mut cx.owned.signal.fault);
    let frame = RtSigFrame {
        pretcode: action.restorer,
        uc_flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
        uc_link: 0,
        uc_stack: StackT::new(stack.sp, stack.size, shown_flags(&stack, regs.rsp)),
        mcontext: save(&regs, fpstate, mask, detail),
        sigmask: mask.0,
        info: *info,
    };
    cx.mm().write_bytes(UserAddr::new(base), frame.as_bytes())?;
    if stack.flags & StackT::AUTODISARM != 0 {
        cx.owned.signal.altstack = StackT::new(0, 0, StackT::DISABLE);
    }
    let info_at = base.wrapping_add(u64::try_from(std::mem::offset_of!(RtSigFrame, info)).unwrap_or(0));
    let regs = cx.context.registers();
    regs.rdi = u64::from(signal.number());
    regs.rsi = info_at;
    regs.rdx = base.wrapping_add(8);
    regs.rax = 0;
    regs.orig_rax = u64::MAX;
    regs.rsp = base;
    regs.rip = action.handler;
    regs.eflags &= !HANDLER_CLEARS;
    regs.cs = USER_CS;
    regs.ss = USER_SS;
    *cx.context.xstate() = platform::registers::initial_xstate();
    Ok(())
}

fn save(regs: &Registers, fpstate: u64, mask: SigSet, detail: FaultDetail) -> SigContext {
    SigContext {
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        di: regs.rdi,
        si: regs.rsi,
        bp: regs.rbp,
        bx: regs.rbx,
        dx: regs.rdx,
        ax: regs.rax,
        cx: regs.rcx,
        sp: regs.rsp,
        ip: regs.rip,
        flags: regs.eflags,
        cs: 0x33,
        gs: 0,
        fs: 0,
        ss: 0x2b,
        err: detail.error,
        trapno: detail.trap,
        oldmask: mask.0,
        cr2: detail.cr2,
        fpstate,
        reserved: [0; 8],
    }
}

fn write_xstate(cx: &Cx<'_>, xstate: &mut [u8], at: u64) -> SysResult<()> {
    let len = u32::try_from(xstate.len()).map_err(|_| Errno::EFAULT)?;
    if let Some(software) = xstate.get_mut(SW_BYTES..512) {
        software.fill(0);
        let features = platform::registers::xfeatures();
        let words = [FP_XSTATE_MAGIC1.to_le_bytes(), (len + 4).to_le_bytes()];
        for (to, from) in software
            .iter_mut()
            .zip(words.iter().flatten().copied().chain(features.to_le_bytes()).chain(len.to_le_bytes()))
        {
            *to = from;
        }
    }
    cx.mm().write_bytes(UserAddr::new(at), xstate)?;
    let end = at.wrapping_add(u64::from(len));
    cx.mm().write_bytes(UserAddr::new(end), &FP_XSTATE_MAGIC2.to_le_bytes())
}

/// Puts back what a frame saved. `Err` is a SIGSEGV to the guest.
pub fn restore(cx: &mut Cx<'_>) -> SysResult<()> {
    let base = cx.context.registers().rsp.wrapping_sub(8);
    let frame: RtSigFrame = cx.read(UserPtr::new(UserAddr::new(base)))?;
    let saved = frame.mcontext;
    let xstate = read_xstate(cx, saved.fpstate)?;
    super::send::set_mask(cx.shared, SigSet(frame.sigmask));
    let regs = cx.context.registers();
    (regs.r8, regs.r9, regs.r10, regs.r11) = (saved.r8, saved.r9, saved.r10, saved.r11);
    (regs.r12, regs.r13, regs.r14, regs.r15) = (saved.r12, saved.r13, saved.r14, saved.r15);
    (regs.rdi, regs.rsi, regs.rbp, regs.rbx) = (saved.di, saved.si, saved.bp, saved.bx);
    (regs.rdx, regs.rax, regs.rcx, regs.rsp) = (saved.dx, saved.ax, saved.cx, saved.sp);
    regs.rip = saved.ip;
    regs.eflags = (regs.eflags & !RESTORABLE_FLAGS) | (saved.flags & RESTORABLE_FLAGS);
    regs.cs = USER_CS;
    regs.ss = USER_SS;
    // No restart of the call that the handler interrupted: the frame already points where it shall go on.
    regs.orig_rax = u64::MAX;
    *cx.context.xstate() = xstate;
    // As in Linux, a stack_t that sigaltstack would refuse is not put back, and that is no error.
    let _ = super::altstack::set(cx, &frame.uc_stack, saved.sp);
    Ok(())
}

fn read_xstate(cx: &Cx<'_>, at: u64) -> SysResult<Vec<u8>> {
    let mut area = platform::registers::initial_xstate();
    if at == 0 {
        return Ok(area);
    }
    let legacy_len = MIN_XSTATE.min(area.len());
    let full = area.len();
    let mut head = vec![0; 512];
    cx.mm().read_bytes(UserAddr::new(at), &mut head)?;
    let word = |offset: usize| {
        let bytes = head.get(offset..offset + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        bytes.map_or(0, u32::from_le_bytes)
    };
    let claimed = usize::try_from(word(SW_BYTES + 16)).unwrap_or(0);
    let extended = word(SW_BYTES) == FP_XSTATE_MAGIC1 && (legacy_len..=full).contains(&claimed);
    if extended {
        let Some(body) = area.get_mut(..claimed) else { return Err(Errno::EFAULT) };
        cx.mm().read_bytes(UserAddr::new(at), body)?;
    } else {
        for (to, from) in area.iter_mut().zip(&head) {
            *to = *from;
        }
    }
    if let Some(software) = area.get_mut(SW_BYTES..512) {
        software.fill(0);
    }
    sanitize(&mut area);
    Ok(area)
}

/// Whatever would make XRSTOR fault is cut to what the processor takes.
pub fn sanitize(area: &mut [u8]) {
    if let Some(mxcsr) = area.get_mut(24..28) {
        // Bits above 15 are reserved.
        for byte in mxcsr.iter_mut().skip(2) {
            *byte = 0;
        }
    }
    let allowed = platform::registers::xfeatures().to_le_bytes();
    if let Some(header) = area.get_mut(XSTATE_BV..XSTATE_BV + 64) {
        for (at, byte) in header.iter_mut().enumerate() {
            *byte &= allowed.get(at).copied().unwrap_or(0);
        }
    }
}

/// Whether `sp` lies on an enabled alternate stack.
#[must_use]
pub fn is_on(stack: &StackT, sp: u64) -> bool {
    stack.flags & (StackT::DISABLE | StackT::AUTODISARM) == 0
        && sp.wrapping_sub(1).wrapping_sub(stack.sp) < stack.size
}

/// `ss_flags` as sigaltstack(2) shows them.
#[must_use]
pub fn shown_flags(stack: &StackT, sp: u64) -> i32 {
    if stack.flags & StackT::DISABLE != 0 {
        StackT::DISABLE
    } else if is_on(stack, sp) {
        StackT::ONSTACK
    } else {
        stack.flags & StackT::AUTODISARM
    }
}
