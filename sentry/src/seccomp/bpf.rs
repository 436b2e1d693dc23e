//! Classic BPF as seccomp uses it (linux/filter.h, Documentation/networking/filter.rst). A program is
//! checked when it is made: jumps go forwards and stay inside, it ends in a return, memory words exist.

use abi::{Errno, SysResult};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most instructions of a program (`BPF_MAXINSNS`).
pub(super) const MOST: usize = 4096;

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

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// System call number.
    pub number: u32,
    /// AUDIT_ARCH_*.
    pub arch: u32,
    /// Instruction pointer.
    pub ip: u64,
    /// Arguments.
    pub args: [u64; 6],
}

impl Data {
    fn word(&self, offset: u32) -> u32 {
        let half =
            |value: u64, high: bool| crate::syscalls::args::low32(if high { value >> 32 } else { value });
        let high = offset % 8 == 4;
        match offset {
            0 => self.number,
            4 => self.arch,
            8 | 12 => half(self.ip, high),
            _ => {
                let index = usize::try_from((offset - 16) / 8).unwrap_or(usize::MAX);
                self.args.get(index).map_or(0, |arg| half(*arg, high))
            }
        }
    }
}

/// A checked program.
#[derive(Debug)]
pub struct Program(Vec<Insn>);

const DATA_SIZE: u32 = 64;

impl Program {
    /// Checks the instructions; `EINVAL`.
    pub fn new(insns: Vec<Insn>) -> SysResult<Program> {
        let len = insns.len();
        if len == 0 || len > MOST {
            return Err(Errno::EINVAL);
        }
        for (at, insn) in insns.iter().enumerate() {
            let left = len - at - 1;
            let inside = |jump: u32| usize::try_from(jump).is_ok_and(|jump| jump < left);
            let fine = match insn.code {
                // ld [k], with k a word of seccomp_data.
                0x20 => insn.k < DATA_SIZE && insn.k % 4 == 0,
                // ld/ldx #k, len; tax, txa; ret k, ret a; neg.
                0x00 | 0x01 | 0x80 | 0x81 | 0x07 | 0x87 | 0x06 | 0x16 | 0x84 => true,
                // ld/ldx M[k], st, stx.
                0x60 | 0x61 | 0x02 | 0x03 => insn.k < 16,
                // div k.
                0x34 => insn.k != 0,
                // Shifts by k.
                0x64 | 0x74 => insn.k < 32,
                0x04 | 0x14 | 0x24 | 0x44 | 0x54 | 0xa4 => true,
                0x0c | 0x1c | 0x2c | 0x3c | 0x4c | 0x5c | 0x6c | 0x7c | 0xac => true,
                // ja.
                0x05 => inside(insn.k),
                // jeq, jgt, jge, jset with k or x.
                0x15 | 0x25 | 0x35 | 0x45 | 0x1d | 0x2d | 0x3d | 0x4d => {
                    inside(u32::from(insn.jt)) && inside(u32::from(insn.jf))
                }
                _ => false,
            };
            if !fine {
                return Err(Errno::EINVAL);
            }
        }
        match insns.last() {
            Some(Insn { code: 0x06 | 0x16, .. }) => Ok(Program(insns)),
            _ => Err(Errno::EINVAL),
        }
    }
    /// Instructions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether it returns `value` for a call whatever the arguments are: followed as far as only the number
    /// and the architecture are looked at.
    #[must_use]
    pub fn always(&self, number: u32, arch: u32, value: u32) -> bool {
        let mut accumulator = 0_u32;
        let mut at = 0_usize;
        while let Some(insn) = self.0.get(at) {
            at += 1;
            let k = insn.k;
            let hit = match insn.code {
                0x20 if k == 0 => {
                    accumulator = number;
                    continue;
                }
                0x20 if k == 4 => {
                    accumulator = arch;
                    continue;
                }
                0x54 => {
                    accumulator &= k;
                    continue;
                }
                0x05 => {
                    at = at.saturating_add(usize::try_from(k).unwrap_or(usize::MAX));
                    continue;
                }
                0x06 => return k == value,
                0x15 => accumulator == k,
                0x25 => accumulator > k,
                0x35 => accumulator >= k,
                0x45 => accumulator & k != 0,
                _ => return false,
            };
            at += usize::from(if hit { insn.jt } else { insn.jf });
        }
        false
    }
    /// The instructions as `struct sock_filter`.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
    /// The value it returns; a broken program kills.
    #[must_use]
    pub fn run(&self, data: &Data) -> u32 {
        let mut accumulator = 0_u32;
        let mut index = 0_u32;
        let mut memory = [0_u32; 16];
        let mut at = 0_usize;
        let slot = |k: u32| usize::try_from(k).unwrap_or(0) % 16;
        while let Some(insn) = self.0.get(at) {
            at += 1;
            let k = insn.k;
            let operand = if insn.code & 0x08 != 0 { index } else { k };
            let jump = |hit: bool| usize::from(if hit { insn.jt } else { insn.jf });
            match insn.code {
                0x20 => accumulator = data.word(k),
                0x00 => accumulator = k,
                0x01 => index = k,
                0x80 => accumulator = DATA_SIZE,
                0x81 => index = DATA_SIZE,
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
                0x34 | 0x3c => match accumulator.checked_div(operand) {
                    Some(quotient) => accumulator = quotient,
                    // Division by zero ends a program with 0.
                    None => return 0,
                },
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
                0x06 => return k,
                0x16 => return accumulator,
                _ => return 0,
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> Insn {
        Insn { code, jt, jf, k }
    }

    #[test]
    fn decides_by_number_and_argument() {
        let program = Program::new(vec![
            insn(0x20, 0, 0, 0),
            insn(0x15, 0, 3, 39),
            insn(0x20, 0, 0, 16),
            insn(0x25, 0, 1, 5),
            insn(0x06, 0, 0, 0x0005_0001),
            insn(0x06, 0, 0, 0x7fff_0000),
        ])
        .unwrap();
        let data = |number, arg| Data { number, arch: 0, ip: 0, args: [arg, 0, 0, 0, 0, 0] };
        assert_eq!(program.run(&data(39, 6)), 0x0005_0001);
        assert_eq!(program.run(&data(39, 5)), 0x7fff_0000);
        assert_eq!(program.run(&data(1, 6)), 0x7fff_0000);
        assert!(program.always(1, 0, 0x7fff_0000));
        assert!(!program.always(39, 0, 0x7fff_0000));
    }

    #[test]
    fn hostile_programs_are_refused() {
        let ret = insn(0x06, 0, 0, 0);
        assert!(Program::new(vec![]).is_err());
        assert!(Program::new(vec![insn(0x05, 0, 0, 0)]).is_err());
        assert!(Program::new(vec![insn(0x05, 0, 0, 1), ret]).is_err());
        assert!(Program::new(vec![insn(0x20, 0, 0, 64), ret]).is_err());
        assert!(Program::new(vec![insn(0x28, 0, 0, 0), ret]).is_err());
        assert!(Program::new(vec![insn(0x60, 0, 0, 16), ret]).is_err());
        assert!(Program::new(vec![insn(0x34, 0, 0, 0), ret]).is_err());
        assert!(Program::new(vec![insn(0x15, 1, 0, 0), ret]).is_err());
    }
}
