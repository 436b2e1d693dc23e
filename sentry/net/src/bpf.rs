//! Classic BPF (linux/filter.h, Documentation/networking/filter.rst): what socket filters and seccomp share. A
//! program is checked when it is made: jumps go forwards and stay inside, it ends in a return, memory words
//! exist. Each instruction runs at most once, so a run ends.

use abi::{Errno, SysResult};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most instructions of a program (`BPF_MAXINSNS`).
pub const MOST: usize = 4096;
/// Words of a program's memory (`BPF_MEMWORDS`).
const WORDS: u32 = 16;

/// `struct sock_filter`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Insn {
    /// Operation.
    pub code: u16,
    /// Jump if true.
    pub jt: u8,
    /// Jump if false.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

/// How much a load takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// Four bytes.
    Word,
    /// Two.
    Half,
    /// One.
    Byte,
}

/// The registers, as a load sees them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Registers {
    /// A.
    pub accumulator: u32,
    /// X.
    pub index: u32,
}

/// What a program looks at.
pub trait Input {
    /// What `ld len` gives, in bytes.
    fn length(&self) -> u32;
    /// What stands at `offset`; `None`, which ends the run, when nothing does.
    fn load(&self, offset: u32, width: Width, registers: Registers) -> Option<u32>;
}

/// A checked program.
#[derive(Debug)]
pub struct Program(Vec<Insn>);

impl Insn {
    fn width(self) -> Width {
        match self.code & 0x18 {
            0x00 => Width::Word,
            0x08 => Width::Half,
            _ => Width::Byte,
        }
    }
    /// Whether it exists, with `left` more behind it.
    fn is_valid(&self, left: usize) -> bool {
        let inside = |jump: u32| usize::try_from(jump).is_ok_and(|jump| jump < left);
        match self.code {
            // ld of a word, half or byte at k or at x + k; ldx 4*([k]&0xf).
            0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 | 0xb1 => true,
            // ld/ldx #k, len; tax, txa; ret k, ret a; neg.
            0x00 | 0x01 | 0x80 | 0x81 | 0x07 | 0x87 | 0x06 | 0x16 | 0x84 => true,
            // ld/ldx M[k], st, stx.
            0x60 | 0x61 | 0x02 | 0x03 => self.k < WORDS,
            // div k, mod k.
            0x34 | 0x94 => self.k != 0,
            // Shifts by k.
            0x64 | 0x74 => self.k < 32,
            0x04 | 0x14 | 0x24 | 0x44 | 0x54 | 0xa4 => true,
            0x0c | 0x1c | 0x2c | 0x3c | 0x4c | 0x5c | 0x6c | 0x7c | 0x9c | 0xac => true,
            // ja.
            0x05 => inside(self.k),
            // jeq, jgt, jge, jset with k or x.
            0x15 | 0x25 | 0x35 | 0x45 | 0x1d | 0x2d | 0x3d | 0x4d => {
                inside(u32::from(self.jt)) && inside(u32::from(self.jf))
            }
            _ => false,
        }
    }
}

impl Program {
    /// Checks the instructions; `EINVAL`.
    pub fn new(insns: Vec<Insn>) -> SysResult<Program> {
        let ends = matches!(insns.last(), Some(Insn { code: 0x06 | 0x16, .. }));
        let fine = insns.iter().rev().enumerate().all(|(left, insn)| insn.is_valid(left));
        if insns.len() > MOST || !ends || !fine {
            return Err(Errno::EINVAL);
        }
        Ok(Program(insns))
    }
    /// The instructions.
    #[must_use]
    pub fn insns(&self) -> &[Insn] {
        &self.0
    }
    /// The value that it returns; `None` when it looks where nothing is, or divides by zero.
    #[must_use]
    pub fn run(&self, input: &impl Input) -> Option<u32> {
        let Registers { mut accumulator, mut index } = Registers::default();
        let mut memory = [0_u32; WORDS as usize];
        let mut at = 0_usize;
        let slot = |k: u32| usize::try_from(k % WORDS).unwrap_or(0);
        loop {
            let insn = *self.0.get(at)?;
            at += 1;
            let k = insn.k;
            let operand = if insn.code & 0x08 != 0 { index } else { k };
            let jump = |hit: bool| usize::from(if hit { insn.jt } else { insn.jf });
            let load = |offset, width| input.load(offset, width, Registers { accumulator, index });
            match insn.code {
                0x20 | 0x28 | 0x30 => accumulator = load(k, insn.width())?,
                0x40 | 0x48 | 0x50 => accumulator = load(k.wrapping_add(index), insn.width())?,
                0xb1 => index = (load(k, Width::Byte)? & 15) * 4,
                0x00 => accumulator = k,
                0x01 => index = k,
                0x80 => accumulator = input.length(),
                0x81 => index = input.length(),
                0x60 => accumulator = memory.get(slot(k)).copied().unwrap_or(0),
                0x61 => index = memory.get(slot(k)).copied().unwrap_or(0),
                0x02 | 0x03 => {
                    if let Some(word) = memory.get_mut(slot(k)) {
                        *word = if insn.code == 0x02 { accumulator } else { index };
                    }
                }
                0x07 => index = accumulator,
                0x87 => accumulator = index,
                0x84 => accumulator = accumulator.wrapping_neg(),
                0x04 | 0x0c => accumulator = accumulator.wrapping_add(operand),
                0x14 | 0x1c => accumulator = accumulator.wrapping_sub(operand),
                0x24 | 0x2c => accumulator = accumulator.wrapping_mul(operand),
                0x34 | 0x3c => accumulator = accumulator.checked_div(operand)?,
                0x94 | 0x9c => accumulator = accumulator.checked_rem(operand)?,
                0x44 | 0x4c => accumulator |= operand,
                0x54 | 0x5c => accumulator &= operand,
                0xa4 | 0xac => accumulator ^= operand,
                0x64 | 0x6c => accumulator = accumulator.checked_shl(operand).unwrap_or(0),
                0x74 | 0x7c => accumulator = accumulator.checked_shr(operand).unwrap_or(0),
                0x05 => at = at.saturating_add(usize::try_from(k).unwrap_or(usize::MAX)),
                0x15 | 0x1d => at += jump(accumulator == operand),
                0x25 | 0x2d => at += jump(accumulator > operand),
                0x35 | 0x3d => at += jump(accumulator >= operand),
                0x45 | 0x4d => at += jump(accumulator & operand != 0),
                0x06 => return Some(k),
                0x16 => return Some(accumulator),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Insn, Program};

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
        Insn { code, jt, jf, k }
    }

    #[test]
    fn hostile_programs_are_refused() {
        let ret = insn(0x06, 0, 0, 0);
        assert!(Program::new(vec![ret]).is_ok());
        assert!(Program::new(vec![]).is_err());
        assert!(Program::new(vec![insn(0x00, 0, 0, 1)]).is_err());
        assert!(Program::new(vec![insn(0x05, 0, 0, 0)]).is_err());
        assert!(Program::new(vec![insn(0x05, 0, 0, 1), ret]).is_err());
        assert!(Program::new(vec![insn(0x05, 0, 0, 0), ret]).is_ok());
        assert!(Program::new(vec![insn(0x60, 0, 0, 16), ret]).is_err());
        assert!(Program::new(vec![insn(0x34, 0, 0, 0), ret]).is_err());
        assert!(Program::new(vec![insn(0x15, 1, 0, 0), ret]).is_err());
        assert!(Program::new(vec![insn(0x15, 0, 1, 0), ret]).is_err());
        assert!(Program::new(vec![ret; super::MOST + 1]).is_err());
    }
}
