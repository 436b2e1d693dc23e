//! The seccomp programs of stub processes.
//!
//! *Base*: what the helper needs; every other call is RET_TRACE, which without a tracer is ENOSYS, and which
//! the thread filter's USER_NOTIF outranks. *Thread*: guest threads add it. Their own calls are notified or
//! trapped; from the stub's text a few calls that are harmless with any arguments are allowed (a guest may
//! jump there with registers of its choice).

use super::layout::{DATA, TEXT, TEXT_SIZE};

const LD: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;
const NR: u32 = 0;
const ARCH: u32 = 4;
const IP_LOW: u32 = 8;
const IP_HIGH: u32 = 12;
const ARG2_LOW: u32 = 32;
const ARG2_HIGH: u32 = 36;
const X86_64: u32 = 0xc000_003e;
const X32: u32 = 0x4000_0000;
const MADV_DONTNEED: u32 = 4;

const ALLOW: u32 = 0x7fff_0000;
const TRACE: u32 = 0x7ff0_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRAP: u32 = 0x0003_0000;
const ENOSYS: u32 = 0x0005_0000 | 38;

/// Calls that the helper makes, and what a guest thread needs until its own filter stands.
const HELPER: &[u32] = &[
    9,   // mmap
    10,  // mprotect
    11,  // munmap
    28,  // madvise
    15,  // rt_sigreturn
    44,  // sendto: report
    45,  // recvfrom: wait
    46,  // sendmsg: hand a listener over
    47,  // recvmsg: take a file
    53,  // socketpair: the channel of a new stub
    56,  // clone
    3,   // close
    292, // dup3
    24,  // sched_yield
    60,  // exit
    231, // exit_group
    131, // sigaltstack
    317, // seccomp: the thread's filter
];

/// Guest calls that change registers: they arrive with a full frame.
const TRAPPED: &[u32] = &[
    15,  // rt_sigreturn
    56,  // clone
    57,  // fork
    58,  // vfork
    59,  // execve
    322, // execveat
    435, // clone3
];

/// Calls that guest threads may make from the stub's text.
const FROM_STUB: &[u32] = &[
    15, // rt_sigreturn: sets the thread's own registers
    11, // munmap: of its own memory
    60, // exit: of the thread
];

#[derive(Clone, Copy)]
struct Insn(u16, u8, u8, u32);

fn check_arch(out: &mut Vec<Insn>) {
    out.push(Insn(LD, 0, 0, ARCH));
    out.push(Insn(JEQ, 1, 0, X86_64));
    out.push(Insn(RET, 0, 0, ENOSYS));
    out.push(Insn(LD, 0, 0, NR));
    out.push(Insn(JGE, 0, 1, X32));
    out.push(Insn(RET, 0, 0, ENOSYS));
}

/// Compares the number with each of `numbers`: a match returns `action`, else falls through. Every test is a
/// pair, which keeps the jumps short whatever the length.
fn any_of(out: &mut Vec<Insn>, numbers: &[u32], action: u32) {
    for &number in numbers {
        out.push(Insn(JEQ, 0, 1, number));
        out.push(Insn(RET, 0, 0, action));
    }
}

fn base() -> Vec<Insn> {
    let mut out = Vec::new();
    check_arch(&mut out);
    any_of(&mut out, HELPER, ALLOW);
    out.push(Insn(RET, 0, 0, TRACE));
    out
}

fn thread() -> Vec<Insn> {
    let mut out = Vec::new();
    check_arch(&mut out);
    let mut stub = Vec::new();
    stub.push(Insn(LD, 0, 0, NR));
    any_of(&mut stub, FROM_STUB, ALLOW);
    stub.extend([
        Insn(JEQ, 0, 5, 28), // madvise, of one kind
        Insn(LD, 0, 0, ARG2_HIGH),
        Insn(JEQ, 0, 3, 0),
        Insn(LD, 0, 0, ARG2_LOW),
        Insn(JEQ, 0, 1, MADV_DONTNEED),
        Insn(RET, 0, 0, ALLOW),
        Insn(RET, 0, 0, NOTIFY),
    ]);
    let skip = u8::try_from(stub.len()).unwrap_or(u8::MAX);
    let (text, end) = (low(TEXT), low(TEXT + TEXT_SIZE));
    out.push(Insn(LD, 0, 0, IP_HIGH));
    out.push(Insn(JEQ, 0, skip + 3, 0));
    out.push(Insn(LD, 0, 0, IP_LOW));
    out.push(Insn(JGE, 0, skip + 1, text));
    out.push(Insn(JGE, skip, 0, end));
    out.extend(stub);
    out.push(Insn(LD, 0, 0, NR));
    any_of(&mut out, TRAPPED, TRAP);
    out.push(Insn(RET, 0, 0, NOTIFY));
    out
}

fn low(address: u64) -> u32 {
    u32::try_from(address & 0xffff_ffff).unwrap_or(0)
}

/// Address of the base filter's `struct sock_fprog` in every stub.
pub(crate) const BASE_PROGRAM: u64 = DATA;
/// Address of the thread filter's `struct sock_fprog`.
pub(crate) const THREAD_PROGRAM: u64 = DATA + 16;

/// The constant data page.
pub(crate) fn data() -> Vec<u8> {
    let (base, thread) = (base(), thread());
    let mut page = Vec::new();
    let mut at = DATA + 32;
    for program in [&base, &thread] {
        let len = u64::try_from(program.len()).unwrap_or(0);
        page.extend_from_slice(&len.to_le_bytes());
        page.extend_from_slice(&at.to_le_bytes());
        at += len * 8;
    }
    for Insn(code, yes, no, k) in base.into_iter().chain(thread) {
        page.extend_from_slice(&code.to_le_bytes());
        page.extend_from_slice(&[yes, no]);
        page.extend_from_slice(&k.to_le_bytes());
    }
    page
}
