//! The kernel's signal frame (x86-64 `struct rt_sigframe`) in a thread's area.
//!
//! Guests can write it at any time. Values are loaded once; offsets that come from it are checked against
//! the area. Returning through a forged frame can only hurt the guest that forged it.

use super::slots::Area;
use super::xsave;
use crate::registers::Registers;
use crate::stub::layout::{AREA_FRAME, AREA_FS, AREA_GS, AREA_STACK, TASK_END};

/// Bytes of a `struct ucontext`.
const UCONTEXT: u64 = 304;
/// Words of the general registers in `struct sigcontext`, from r8 to eflags.
const GENERAL: usize = 18;
const MCONTEXT: u64 = 40;
const SEGMENTS: u64 = MCONTEXT + 144;
const ERR: u64 = MCONTEXT + 152;
const TRAPNO: u64 = MCONTEXT + 160;
const CR2: u64 = MCONTEXT + 176;
const FPSTATE: u64 = MCONTEXT + 184;
const SIGMASK: u64 = 296;
/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS.
const UC_FLAGS: u64 = 7;
const USER_CS_SS: u64 = 0x002b_0000_0000_0033;

/// Where the sentry builds frames: above it is room for the largest xsave area of AVX-512.
const BUILT: u64 = AREA_STACK + 8;
const BUILT_XSTATE: u64 = AREA_STACK + 0x200;

/// One frame: the address of its ucontext in the stub and the place in the shared file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    address: u64,
    at: u64,
}

/// What a handler was entered for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trap {
    pub(super) error: u64,
    pub(super) number: u64,
    pub(super) cr2: u64,
}

impl Frame {
    /// The frame whose ucontext a handler named.
    pub(super) fn at(area: &Area, ucontext: u64) -> Option<Frame> {
        let at = area.locate(ucontext, UCONTEXT)?;
        Some(Frame { address: ucontext, at })
    }

    /// A frame of the sentry's own making, with the FPU in its initial state.
    pub(super) fn build(area: &Area) -> Frame {
        let frame = Frame { address: area.address() + BUILT, at: area.offset() + BUILT };
        let file = area.file();
        file.store_words(frame.at, &[0; (UCONTEXT / 8) as usize]);
        file.store(frame.at, UC_FLAGS);
        frame
    }

    /// `siginfo.si_code`, which follows the ucontext.
    pub(super) fn code(self, area: &Area) -> i32 {
        area.locate(self.address + UCONTEXT, 16)
            .map_or(0, |at| u32::try_from(area.file().load(at + 8) & 0xffff_ffff).unwrap_or(0).cast_signed())
    }

    /// `siginfo.si_addr`.
    pub(super) fn fault_address(self, area: &Area) -> u64 {
        area.locate(self.address + UCONTEXT, 24).map_or(0, |at| area.file().load(at + 16))
    }

    pub(super) fn trap(self, area: &Area) -> Trap {
        let file = area.file();
        Trap {
            error: file.load(self.at + ERR),
            number: file.load(self.at + TRAPNO),
            cr2: file.load(self.at + CR2),
        }
    }

    /// rip alone.
    pub(super) fn rip(self, area: &Area) -> u64 {
        area.file().load(self.at + MCONTEXT + 8 * 16)
    }

    /// rip alone.
    pub(super) fn set_rip(self, area: &Area, value: u64) {
        area.file().store(self.at + MCONTEXT + 8 * 16, value);
    }

    /// rax alone.
    pub(super) fn set_rax(self, area: &Area, value: u64) {
        area.file().store(self.at + MCONTEXT + 8 * 13, value);
    }

    /// Number and arguments of a trapped call: rax, then rdi rsi rdx r10 r8 r9.
    pub(super) fn call(self, area: &Area) -> (u64, [u64; 6]) {
        let mut w = [0; GENERAL];
        area.file().load_words(self.at + MCONTEXT, &mut w);
        (w[13], [w[8], w[9], w[12], w[2], w[0], w[1]])
    }

    /// All registers. `orig_rax` is -1: no call is under way.
    pub(super) fn load(self, area: &Area) -> Registers {
        let file = area.file();
        let mut w = [0; GENERAL];
        file.load_words(self.at + MCONTEXT, &mut w);
        let gs_base = file.load(area.offset() + AREA_GS);
        Registers {
            r8: w[0],
            r9: w[1],
            r10: w[2],
            r11: w[3],
            r12: w[4],
            r13: w[5],
            r14: w[6],
            r15: w[7],
            rdi: w[8],
            rsi: w[9],
            rbp: w[10],
            rbx: w[11],
            rdx: w[12],
            rax: w[13],
            rcx: w[14],
            rsp: w[15],
            rip: w[16],
            eflags: w[17],
            orig_rax: u64::MAX,
            cs: 0x33,
            ss: 0x2b,
            fs_base: file.load(area.offset() + AREA_FS),
            // The stub keeps its own pointer in a gs that the guest does not use.
            gs_base: if gs_base == area.address() { 0 } else { gs_base },
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        }
    }

    /// Writes all registers, and what a return through the frame needs.
    pub(super) fn store(self, area: &Area, r: &Registers) {
        let file = area.file();
        let w = [
            r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, r.rdi, r.rsi, r.rbp, r.rbx, r.rdx, r.rax,
            r.rcx, r.rsp, r.rip, r.eflags,
        ];
        file.store_words(self.at + MCONTEXT, &w);
        file.store(self.at + SEGMENTS, USER_CS_SS);
        file.store(self.at + SIGMASK, 0);
        let canonical = |base: u64| if base < TASK_END { base } else { 0 };
        file.store(area.offset() + AREA_FS, canonical(r.fs_base));
        let gs_base = canonical(r.gs_base);
        file.store(area.offset() + AREA_GS, if gs_base == 0 { area.address() } else { gs_base });
        self.arm(area);
    }

    /// Makes this the frame that the handler returns through.
    pub(super) fn arm(self, area: &Area) {
        area.file().store(area.offset() + AREA_FRAME, self.address);
    }

    /// The XSAVE area, software bytes cleared.
    pub(super) fn load_xstate(self, area: &Area, out: &mut Vec<u8>) {
        out.clear();
        let address = area.file().load(self.at + FPSTATE);
        let size = xsave::size();
        let Some(at) = area.locate(address, size) else {
            out.extend_from_slice(&xsave::initial());
            return;
        };
        out.resize(usize::try_from(size).unwrap_or(0), 0);
        area.file().load_bytes(at, out);
        xsave::sanitize(out);
    }

    /// Writes vector state into a frame of the sentry's own making; empty means the initial state.
    pub(super) fn store_xstate(self, area: &Area, state: &[u8]) {
        let file = area.file();
        if state.is_empty() {
            file.store(self.at + FPSTATE, 0);
            return;
        }
        let mut image = state.to_vec();
        image.resize(usize::try_from(xsave::size()).unwrap_or(0), 0);
        xsave::sanitize(&mut image);
        xsave::seal_for_frame(&mut image);
        let Some(at) = area.locate(area.address() + BUILT_XSTATE, image.len() as u64 + 8) else { return };
        file.store_bytes(at, &image);
        file.store(at + (image.len() as u64 & !7), u64::from(xsave::MAGIC2));
        file.store(self.at + FPSTATE, area.address() + BUILT_XSTATE);
    }
}
