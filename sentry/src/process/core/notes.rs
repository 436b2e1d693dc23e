//! The notes of a core file: who died of what, the registers of each thread, which files were mapped.

use super::{Death, ThreadRecord, relations};
use crate::procfs::place_of;
use crate::syscalls::process::ptrace::xstate_for_debuggers;
use crate::task::Cx;
use abi::time::Timeval;
use abi::{PAGE_SIZE, UserAddr};
use mm::AreaInfo;
use platform::Registers;
use std::time::Duration;
use zerocopy::{Immutable, IntoBytes};

const NT_PRSTATUS: u32 = 1;
const NT_FPREGSET: u32 = 2;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const NT_X86_XSTATE: u32 = 0x202;
const NT_FILE: u32 = 0x4649_4c45;
const NT_SIGINFO: u32 = 0x5349_4749;
/// Bytes of `struct user_fpregs_struct`.
const FPREGS: usize = 512;
/// `ELF_PRARGSZ`.
const MOST_ARGS: usize = 80;

/// `struct elf_prstatus`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct PrStatus {
    signo: i32,
    code: i32,
    errno: i32,
    cursig: u16,
    pad: u16,
    pending: u64,
    blocked: u64,
    pid: u32,
    ppid: u32,
    pgrp: u32,
    sid: u32,
    times: [Timeval; 4],
    registers: Registers,
    fpvalid: u32,
    tail: u32,
}

/// `struct elf_prpsinfo`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct PrPsInfo {
    state: u8,
    sname: u8,
    zombie: u8,
    nice: i8,
    pad: u32,
    flag: u64,
    uid: u32,
    gid: u32,
    pid: u32,
    ppid: u32,
    pgrp: u32,
    sid: u32,
    fname: [u8; 16],
    args: [u8; MOST_ARGS],
}

/// Notes as they stand in the file.
pub(super) struct Notes {
    pub(super) bytes: Vec<u8>,
}

impl Notes {
    pub(super) fn of(cx: &Cx<'_>, death: &Death<'_>, areas: &[AreaInfo]) -> Notes {
        let mut notes = Notes { bytes: Vec::new() };
        for (at, thread) in death.threads.iter().enumerate() {
            notes.add(b"CORE", NT_PRSTATUS, status(cx, death, thread).as_bytes());
            if at == 0 {
                // What is the process' own stands behind the first thread.
                notes.add(b"CORE", NT_PRPSINFO, program(cx).as_bytes());
                notes.add(b"CORE", NT_SIGINFO, death.info.as_bytes());
                notes.add(b"CORE", NT_AUXV, &cx.mm().auxv());
                notes.add(b"CORE", NT_FILE, &files(cx, areas));
            }
            notes.add(b"CORE", NT_FPREGSET, thread.xstate.get(..FPREGS).unwrap_or_default());
            notes.add(b"LINUX", NT_X86_XSTATE, &xstate_for_debuggers(&thread.xstate));
        }
        notes
    }

    fn add(&mut self, name: &[u8], kind: u32, text: &[u8]) {
        let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        self.bytes.extend_from_slice(&word(name.len() + 1));
        self.bytes.extend_from_slice(&word(text.len()));
        self.bytes.extend_from_slice(&kind.to_le_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(text);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn status(cx: &Cx<'_>, death: &Death<'_>, thread: &ThreadRecord) -> PrStatus {
    let time = |ns: u64| Timeval::from_duration(Duration::from_nanos(ns));
    let (user, system) = cx.shared.process.cpu_times();
    let (children_user, children_system) = cx.shared.process.times.children();
    let [ppid, pgrp, sid] = relations(cx.shared);
    PrStatus {
        signo: i32::from(death.signal.number()),
        code: death.info.code,
        errno: death.info.errno,
        cursig: u16::from(death.signal.number()),
        pad: 0,
        pending: crate::signal::send::pending_set(cx.shared).0,
        blocked: cx.shared.mask().0,
        pid: thread.tid,
        ppid,
        pgrp,
        sid,
        times: [time(user), time(system), time(children_user), time(children_system)],
        registers: thread.registers,
        fpvalid: 1,
        tail: 0,
    }
}

fn program(cx: &Cx<'_>) -> PrPsInfo {
    let cred = cx.cred();
    let [ppid, pgrp, sid] = relations(cx.shared);
    let mut args = [0; MOST_ARGS];
    let range = cx.mm().program().args;
    let len = usize::try_from(range.len()).unwrap_or(MOST_ARGS).min(MOST_ARGS - 1);
    cx.mm().read_partial(UserAddr::new(range.start()), args.get_mut(..len).unwrap_or_default());
    for byte in args.iter_mut().take(len).filter(|byte| **byte == 0) {
        *byte = b' ';
    }
    let nice = cx.shared.sched.lock().nice;
    PrPsInfo {
        state: 0,
        sname: b'R',
        zombie: 0,
        nice: i8::try_from(nice).unwrap_or(0),
        pad: 0,
        flag: 0,
        uid: cred.user_ns.show_uid(cred.uid),
        gid: cred.user_ns.show_gid(cred.gid),
        pid: cx.shared.process.pid.own(),
        ppid,
        pgrp,
        sid,
        fname: cx.owned.comm,
        args,
    }
}

/// NT_FILE: count, page size, ranges with offsets in pages, then names.
fn files(cx: &Cx<'_>, areas: &[AreaInfo]) -> Vec<u8> {
    let root = cx.fs().snapshot().root.clone();
    let mut ranges = Vec::new();
    let mut names = Vec::new();
    let mut count = 0_u64;
    for area in areas {
        let Some(place) = place_of(area) else { continue };
        count += 1;
        for word in [area.range.start(), area.range.end(), area.offset / PAGE_SIZE] {
            ranges.extend_from_slice(&word.to_le_bytes());
        }
        names.extend_from_slice(&vfs::path::show(&place, &root).text);
        names.push(0);
    }
    let mut out = Vec::new();
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&PAGE_SIZE.to_le_bytes());
    out.extend_from_slice(&ranges);
    out.extend_from_slice(&names);
    out
}
