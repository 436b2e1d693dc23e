//! The seccomp programs of stub processes.
//!
//! *Base*: what the helper needs; every other call is RET_TRACE, which without a tracer is ENOSYS, and which
//! USER_NOTIF outranks. *Mapper*: its switch is notified. *Thread*: guest threads add it. Their own calls are notified or
//! trapped; two that are harmless with any arguments are allowed when they are marked as the stub's own (a guest
//! may do that as well).

use super::layout::{DATA, SWITCH};

const LD: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;
const NR: u32 = 0;
const ARCH: u32 = 4;
const ARG5_LOW: u32 = 56;
const X86_64: u32 = 0xc000_003e;
const X32: u32 = 0x4000_0000;

const ALLOW: u32 = 0x7fff_0000;
const TRACE: u32 = 0x7ff0_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const TRAP: u32 = 0x0003_0000;
const ENOSYS: u32 = 0x0005_0000 | 38;

/// SECCOMP_FILTER_FLAG_NEW_LISTENER and WAIT_KILLABLE_RECV.
pub(crate) const FILTER_FLAGS: u64 = 8 | 32;

/// What the stub's own calls carry in r9. No secret: what it opens is harmless to others.
pub(crate) const STUB_CALL: u32 = 0x6773_7472;

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
    54,  // setsockopt: who speaks on it
    56,  // clone
    3,   // close
    292, // dup3
    24,  // sched_yield
    60,  // exit
    231, // exit_group
    131, // sigaltstack
    317, // seccomp: the thread's filter
    324, // membarrier: of this process, after its text was patched
];

#[derive(Clone, Copy)]
struct Insn(u16, u8, u8, u32);

fn base() -> Vec<Insn> {
    let mut out = vec![
        Insn(LD, 0, 0, ARCH),
        Insn(JEQ, 1, 0, X86_64),
        Insn(RET, 0, 0, ENOSYS),
        Insn(LD, 0, 0, NR),
        Insn(JGE, 0, 1, X32),
        Insn(RET, 0, 0, ENOSYS),
    ];
    for &number in HELPER {
        out.push(Insn(JEQ, 0, 1, number));
        out.push(Insn(RET, 0, 0, ALLOW));
    }
    out.push(Insn(RET, 0, 0, TRACE));
    out
}

/// What the mapper adds: its switch is notified, everything else is as the base filter says.
fn mapper() -> Vec<Insn> {
    vec![
        Insn(LD, 0, 0, NR),
        Insn(JEQ, 0, 1, SWITCH),
        Insn(RET, 0, 0, NOTIFY),
        Insn(RET, 0, 0, ALLOW), // yields to the base filter's verdict
    ]
}

/// Every instruction costs more than a microsecond per thread, so this one is terse: 32-bit calls are refused
/// here, x32 ones by the base filter (an error outranks a notification).
fn thread() -> Vec<Insn> {
    vec![
        Insn(LD, 0, 0, ARCH),
        Insn(JEQ, 0, 13, X86_64), // 1: refuse
        Insn(LD, 0, 0, ARG5_LOW),
        Insn(JEQ, 6, 0, STUB_CALL), // 3: the stub's own
        // Calls that change registers or end the thread arrive with a full frame.
        Insn(LD, 0, 0, NR),
        Insn(JEQ, 7, 0, 15),  // 5: rt_sigreturn
        Insn(JEQ, 6, 0, 435), // 6: clone3
        Insn(JEQ, 5, 0, 231), // 7: exit_group
        Insn(JGE, 5, 0, 61),  // 8: notify
        Insn(JGE, 3, 4, 56),  // 9: clone fork vfork execve exit
        Insn(LD, 0, 0, NR),   // 10: the stub's own
        Insn(JEQ, 4, 0, 15),  // rt_sigreturn: sets the thread's own registers
        Insn(JEQ, 3, 1, 60),  // 12: exit, of the thread
        Insn(RET, 0, 0, TRAP),
        Insn(RET, 0, 0, NOTIFY), // 14
        Insn(RET, 0, 0, ENOSYS), // 15
        Insn(RET, 0, 0, ALLOW),  // 16
    ]
}

/// Address of the base filter's `struct sock_fprog` in every stub.
pub(crate) const BASE_PROGRAM: u64 = DATA;
/// Address of the thread filter's `struct sock_fprog`.
pub(crate) const THREAD_PROGRAM: u64 = DATA + 16;

/// Address of the mapper's filter.
pub(crate) const MAPPER_PROGRAM: u64 = DATA + 32;

/// The constant data page.
pub(crate) fn data() -> Vec<u8> {
    let programs = [base(), thread(), mapper()];
    let mut page = Vec::new();
    let mut at = DATA + 48;
    for program in &programs {
        let len = u64::try_from(program.len()).unwrap_or(0);
        page.extend_from_slice(&len.to_le_bytes());
        page.extend_from_slice(&at.to_le_bytes());
        at += len * 8;
    }
    for Insn(code, yes, no, k) in programs.into_iter().flatten() {
        page.extend_from_slice(&code.to_le_bytes());
        page.extend_from_slice(&[yes, no]);
        page.extend_from_slice(&k.to_le_bytes());
    }
    page
}
