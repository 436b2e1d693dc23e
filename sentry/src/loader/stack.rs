//! The first stack of a program: strings, auxiliary vector, environment, arguments (getauxval(3)).

use super::elf::Image;
use super::{NewCredentials, Program};
use crate::process::limits::Resource;
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult, UserAddr};
use mm::{Arrangement, MapFlags, MemoryManager, MmapArgs, VmaName};
use platform::Prot;
use std::sync::Arc;

const AT_NULL: u64 = 0;
const AT_PHDR: u64 = 3;
const AT_PHENT: u64 = 4;
const AT_PHNUM: u64 = 5;
const AT_PAGESZ: u64 = 6;
const AT_BASE: u64 = 7;
const AT_FLAGS: u64 = 8;
const AT_ENTRY: u64 = 9;
const AT_UID: u64 = 11;
const AT_EUID: u64 = 12;
const AT_GID: u64 = 13;
const AT_EGID: u64 = 14;
const AT_PLATFORM: u64 = 15;
const AT_HWCAP: u64 = 16;
const AT_CLKTCK: u64 = 17;
const AT_SECURE: u64 = 23;
const AT_RANDOM: u64 = 25;
const AT_HWCAP2: u64 = 26;
const AT_EXECFN: u64 = 31;
const AT_SYSINFO_EHDR: u64 = 33;
const AT_MINSIGSTKSZ: u64 = 51;

/// Room beside the strings that is there from the start.
const FIRST_ROOM: u64 = 128 << 10;

/// Builds downwards into a buffer that ends at `top`.
struct Builder {
    top: u64,
    /// Reversed: the first byte is the one below `top`.
    bytes: Vec<u8>,
}

impl Builder {
    fn sp(&self) -> u64 {
        self.top.saturating_sub(u64::try_from(self.bytes.len()).unwrap_or(u64::MAX))
    }
    fn push(&mut self, bytes: &[u8]) -> u64 {
        self.bytes.extend(bytes.iter().rev());
        self.sp()
    }
    fn push_str(&mut self, text: &[u8]) -> u64 {
        self.bytes.push(0);
        self.push(text)
    }
    fn align(&mut self, align: u64) {
        while !self.sp().is_multiple_of(align) {
            self.bytes.push(0);
        }
    }
}

/// Maps the stack and fills it; returns the stack pointer.
pub(super) fn build(
    mm: &Arc<MemoryManager>,
    program: &Program<'_>,
    image: &Image,
    arrangement: &Arrangement,
    credentials: &NewCredentials,
    vdso: Option<u64>,
) -> SysResult<u64> {
    let top = arrangement.stack_top;
    let mut stack = Builder { top, bytes: Vec::new() };
    stack.push(&[0; 8]);
    let exec_name = stack.push_str(&program.name);
    let mut env: Vec<u64> = program.envp.iter().rev().map(|text| stack.push_str(text)).collect();
    env.reverse();
    let env_end = exec_name;
    let env_start = stack.sp();
    let mut args: Vec<u64> = program.argv.iter().rev().map(|text| stack.push_str(text)).collect();
    args.reverse();
    let args_start = stack.sp();
    let platform = stack.push_str(b"x86_64");
    let mut random = [0; 16];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|_| Errno::EIO)?;
    let random = stack.push(&random);
    stack.align(16);

    let cred = &credentials.cred;
    let ns = &cred.user_ns;
    let (hwcap, hwcap2) = rustix::param::linux_hwcap();
    let word = |value: usize| u64::try_from(value).unwrap_or(0);
    let mut auxv = Vec::new();
    if let Some(vdso) = vdso {
        auxv.push((AT_SYSINFO_EHDR, vdso));
    }
    auxv.extend([
        (AT_MINSIGSTKSZ, crate::signal::frame::min_stack_size()),
        (AT_HWCAP, word(hwcap)),
        (AT_PAGESZ, PAGE_SIZE),
        (AT_CLKTCK, 100),
        (AT_PHDR, image.headers),
        (AT_PHENT, 56),
        (AT_PHNUM, image.count),
        (AT_BASE, image.base),
        (AT_FLAGS, 0),
        (AT_ENTRY, image.entry),
        (AT_UID, u64::from(ns.show_uid(cred.uid))),
        (AT_EUID, u64::from(ns.show_uid(cred.euid))),
        (AT_GID, u64::from(ns.show_gid(cred.gid))),
        (AT_EGID, u64::from(ns.show_gid(cred.egid))),
        (AT_SECURE, u64::from(credentials.secure)),
        (AT_RANDOM, random),
        (AT_HWCAP2, word(hwcap2)),
        (AT_EXECFN, exec_name),
        (AT_PLATFORM, platform),
        (AT_NULL, 0),
    ]);
    let auxv: Vec<u8> = auxv.iter().flat_map(|(k, v)| [k.to_le_bytes(), v.to_le_bytes()]).flatten().collect();
    // argc, the two vectors with their NULLs, and the auxiliary vector end 16-byte aligned at argc.
    let words = 1 + args.len() + 1 + env.len() + 1;
    if !(words * 8 + auxv.len()).is_multiple_of(16) {
        stack.push(&[0; 8]);
    }
    stack.push(&auxv);
    stack.push(&0_u64.to_le_bytes());
    for pointer in env.iter().rev() {
        stack.push(&pointer.to_le_bytes());
    }
    stack.push(&0_u64.to_le_bytes());
    for pointer in args.iter().rev() {
        stack.push(&pointer.to_le_bytes());
    }
    stack.push(&word(args.len()).to_le_bytes());

    let sp = stack.sp();
    let limit = program.limits.get(Resource::Stack).soft;
    let used = top.saturating_sub(sp);
    if used > limit {
        return Err(Errno::E2BIG);
    }
    let room = used.saturating_add(FIRST_ROOM).min(limit.max(used));
    let len = room.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::ENOMEM)?;
    let mut prot = Prot::READ | Prot::WRITE;
    prot.set(Prot::EXEC, image.exec_stack);
    let mut map = MmapArgs::anonymous(len, prot).fixed(top.saturating_sub(len));
    map.flags |= MapFlags::GROWSDOWN | MapFlags::STACK;
    map.name = VmaName::Stack;
    mm.mmap(map)?;
    let mut bytes = stack.bytes;
    bytes.reverse();
    mm.write_bytes(UserAddr::new(sp), &bytes)?;

    let mut ranges = mm.program();
    ranges.args = AddrRange::new(args_start, env_start).unwrap_or_default();
    ranges.env = AddrRange::new(env_start, env_end).unwrap_or_default();
    ranges.stack_start = sp;
    mm.set_program(ranges);
    mm.set_auxv(&auxv);
    Ok(sp)
}
