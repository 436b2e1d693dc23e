//! Classic BPF as seccomp uses it (seccomp(2)): what a program looks at is the call.

use abi::{Errno, SysResult};
use net::bpf::{Input, Registers, Width};
pub(super) use net::bpf::{Insn, MOST};
use zerocopy::IntoBytes;

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

impl Input for Data {
    fn length(&self) -> u32 {
        DATA_SIZE
    }
    fn load(&self, offset: u32, _width: Width, _registers: Registers) -> Option<u32> {
        Some(self.word(offset))
    }
}

/// A checked program.
#[derive(Debug)]
pub struct Program(net::bpf::Program);

const DATA_SIZE: u32 = 64;

/// What seccomp has of what there is: loads of whole words of the call, and no modulo.
fn is_known(insn: &Insn) -> bool {
    match insn.code {
        0x20 => insn.k < DATA_SIZE && insn.k.is_multiple_of(4),
        0x28 | 0x30 | 0x40 | 0x48 | 0x50 | 0xb1 | 0x94 | 0x9c => false,
        _ => true,
    }
}

impl Program {
    /// Checks the instructions; `EINVAL`.
    pub fn new(insns: Vec<Insn>) -> SysResult<Program> {
        if !insns.iter().all(is_known) {
            return Err(Errno::EINVAL);
        }
        net::bpf::Program::new(insns).map(Program)
    }
    /// Instructions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.insns().len()
    }
    /// Whether it returns `value` for a call whatever the arguments are: followed as far as only the number
    /// and the architecture are looked at.
    #[must_use]
    pub fn always(&self, number: u32, arch: u32, value: u32) -> bool {
        let mut accumulator = 0_u32;
        let mut at = 0_usize;
        while let Some(insn) = self.0.insns().get(at) {
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
        self.0.insns().as_bytes()
    }
    /// The value it returns; a broken program kills.
    #[must_use]
    pub fn run(&self, data: &Data) -> u32 {
        self.0.run(data).unwrap_or(0)
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
    fn only_what_seccomp_knows() {
        let ret = insn(0x06, 0, 0, 0);
        assert!(Program::new(vec![insn(0x20, 0, 0, 64), ret]).is_err());
        assert!(Program::new(vec![insn(0x28, 0, 0, 0), ret]).is_err());
        assert!(Program::new(vec![insn(0x20, 0, 0, 2), ret]).is_err());
        assert!(Program::new(vec![insn(0x94, 0, 0, 2), ret]).is_err());
        assert!(Program::new(vec![insn(0x05, 0, 0, 1), ret]).is_err());
    }
}
