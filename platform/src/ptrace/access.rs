//! What a faulting instruction wanted. The error code of a page fault is not among the things ptrace(2)
//! shows, so the instruction is decoded.

use super::raw::Stopped;
use crate::registers::Registers;
use crate::seam::Access;
use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, OpAccess, Register};

/// The longest instruction.
const MAX_INSTRUCTION: u64 = 15;

/// The kind of access to `addr`, or `None` when the instruction both reads and writes and its addresses
/// cannot be told.
pub(super) fn kind(stopped: &Stopped, registers: &Registers, addr: u64) -> Option<Access> {
    let fetch = (registers.rip..=registers.rip.saturating_add(MAX_INSTRUCTION)).contains(&addr);
    let code = text(stopped, registers.rip);
    let mut decoder = Decoder::with_ip(64, &code, registers.rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    if instruction.is_invalid() {
        return Some(if fetch { Access::Exec } else { Access::Read });
    }
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&instruction);
    let (mut reads, mut writes, mut unknown) = (false, false, false);
    for memory in info.used_memory() {
        let write = writing(memory.access());
        if memory.access() == OpAccess::NoMemAccess || memory.access() == OpAccess::None {
            continue;
        }
        reads |= !write;
        writes |= write;
        let size = match memory.memory_size().size() {
            0 => 4096,
            size => size as u64,
        };
        match memory.virtual_address(0, |register, _, _| value(registers, register)) {
            Some(start) if addr.wrapping_sub(start) < size => {
                return Some(if write { Access::Write } else { Access::Read });
            }
            Some(_) => {}
            None => unknown = true,
        }
    }
    match (reads, writes) {
        _ if fetch && !unknown => Some(Access::Exec),
        (true, false) => Some(Access::Read),
        (false, true) => Some(Access::Write),
        _ => None,
    }
}

fn writing(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

fn text(stopped: &Stopped, rip: u64) -> Vec<u8> {
    let mut code = Vec::with_capacity(16);
    // Word by word, aligned, so that a missing next page costs nothing before it.
    let skip = usize::try_from(rip % 8).unwrap_or(0);
    let mut at = rip - rip % 8;
    while code.len() < 16 + skip {
        let Ok(word) = stopped.peek(at) else { break };
        code.extend_from_slice(&word.to_le_bytes());
        let Some(next) = at.checked_add(8) else { break };
        at = next;
    }
    code.drain(..skip.min(code.len()));
    code
}

fn value(registers: &Registers, register: Register) -> Option<u64> {
    let full = match register.full_register() {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::RIP => registers.rip,
        Register::FS => registers.fs_base,
        Register::GS => registers.gs_base,
        Register::CS | Register::DS | Register::ES | Register::SS => 0,
        _ => return None,
    };
    Some(match register.size() {
        4 => full & 0xffff_ffff,
        2 if register.is_gpr16() => full & 0xffff,
        _ => full,
    })
}
