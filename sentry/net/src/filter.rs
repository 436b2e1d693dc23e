//! Classic BPF on packets (SO_ATTACH_FILTER; linux/filter.h, Documentation/networking/filter.rst). A program is
//! checked when it is made: jumps go forwards and stay inside, it ends in a return, memory words exist. Each
//! instruction runs at most once, so a run ends.

use abi::{Errno, SysResult};

/// Most instructions of a program (`BPF_MAXINSNS`).
pub(crate) const MOST: usize = 4096;
/// Bytes of a `struct sock_filter`.
pub(crate) const INSN: usize = 8;
/// Offsets from here on ask about the packet instead of its bytes (`SKF_AD_OFF`).
const ANCILLARY: u32 = 0xffff_f000;
/// From the network header (`SKF_NET_OFF`) and from the link header (`SKF_LL_OFF`).
const NET: u32 = 0xfff0_0000;
const LINK: u32 = 0xffe0_0000;

#[derive(Clone, Copy, Debug)]
struct Insn {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// What a program sees of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct View<'a> {
    /// The bytes that the socket would get, from where its filter counts.
    pub bytes: &'a [u8],
    /// Bytes before the network header.
    pub network_at: usize,
    /// Ethernet protocol.
    pub protocol: u16,
    /// PACKET_*.
    pub pkttype: u8,
    /// Interface.
    pub index: u32,
    /// ARPHRD_* of the interface.
    pub hatype: u16,
    /// SO_MARK of the sender.
    pub mark: u32,
}

/// A checked program.
#[derive(Debug)]
pub struct Program(Vec<Insn>);

impl Insn {
    fn read(bytes: &[u8]) -> Option<Insn> {
        let [c0, c1, jt, jf, k @ ..] = *bytes.first_chunk::<INSN>()?;
        Some(Insn { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes(k) })
    }
}

impl Program {
    /// Checks the instructions, an array of `struct sock_filter`; `EINVAL`.
    pub fn new(bytes: &[u8]) -> SysResult<Program> {
        if bytes.is_empty() || !bytes.len().is_multiple_of(INSN) || bytes.len() / INSN > MOST {
            return Err(Errno::EINVAL);
        }
        let insns: Vec<Insn> = bytes.chunks_exact(INSN).filter_map(Insn::read).collect();
        for (at, insn) in insns.iter().enumerate() {
            let left = insns.len() - at - 1;
            let inside = |jump: u32| usize::try_from(jump).is_ok_and(|jump| jump < left);
            let fine = match insn.code {
                // ld of a word, half or byte at k or at x + k; ldx 4*([k]&0xf).
                0x20 | 0x28 | 0x30 | 0x40 | 0x48 | 0x50 | 0xb1 => true,
                // ld/ldx #k, len; tax, txa; ret k, ret a; neg.
                0x00 | 0x01 | 0x80 | 0x81 | 0x07 | 0x87 | 0x06 | 0x16 | 0x84 => true,
                // ld/ldx M[k], st, stx.
                0x60 | 0x61 | 0x02 | 0x03 => insn.k < 16,
                // div k, mod k.
                0x34 | 0x94 => insn.k != 0,
                // Shifts by k.
                0x64 | 0x74 => insn.k < 32,
                0x04 | 0x14 | 0x24 | 0x44 | 0x54 | 0xa4 => true,
                0x0c | 0x1c | 0x2c | 0x3c | 0x4c | 0x5c | 0x6c | 0x7c | 0x9c | 0xac => true,
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
    /// The instructions as `struct sock_filter`.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let each = |insn: &Insn| {
            let [c0, c1] = insn.code.to_ne_bytes();
            let [k0, k1, k2, k3] = insn.k.to_ne_bytes();
            [c0, c1, insn.jt, insn.jf, k0, k1, k2, k3]
        };
        self.0.iter().flat_map(each).collect()
    }
    /// How many bytes of the packet the socket gets; 0 for none of it.
    #[must_use]
    pub fn run(&self, view: &View<'_>) -> usize {
        usize::try_from(self.value(view).unwrap_or(0)).unwrap_or(usize::MAX)
    }

    /// `None` when the program looks outside of the packet.
    fn value(&self, view: &View<'_>) -> Option<u32> {
        let (mut accumulator, mut index) = (0_u32, 0_u32);
        let mut memory = [0_u32; 16];
        let mut at = 0_usize;
        let slot = |k: u32| usize::try_from(k).unwrap_or(0) % 16;
        let length = u32::try_from(view.bytes.len()).unwrap_or(u32::MAX);
        loop {
            let insn = *self.0.get(at)?;
            at += 1;
            let k = insn.k;
            let operand = if insn.code & 0x08 != 0 { index } else { k };
            let jump = |hit: bool| usize::from(if hit { insn.jt } else { insn.jf });
            match insn.code {
                0x20 | 0x28 | 0x30 => accumulator = view.load(k, insn.code, accumulator, index)?,
                0x40 | 0x48 | 0x50 => {
                    accumulator = view.load(k.wrapping_add(index), insn.code, accumulator, index)?;
                }
                0xb1 => index = (view.load(k, 0x30, accumulator, index)? & 15) * 4,
                0x00 => accumulator = k,
                0x01 => index = k,
                0x80 => accumulator = length,
                0x81 => index = length,
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
                // Division by zero ends a program with 0.
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

impl View<'_> {
    fn load(&self, at: u32, code: u16, accumulator: u32, index: u32) -> Option<u32> {
        if at >= ANCILLARY {
            return match at - ANCILLARY {
                0 => Some(u32::from(self.protocol)),
                4 => Some(u32::from(self.pkttype)),
                8 => Some(self.index),
                // NLATTR, NLATTR_NEST: of netlink, which has no such packets here.
                12 | 16 => Some(0),
                20 => Some(self.mark),
                // QUEUE, RXHASH; CPU.
                24 | 32 | 36 => Some(0),
                28 => Some(u32::from(self.hatype)),
                // ALU_XOR_X.
                40 => Some(accumulator ^ index),
                // VLAN_TAG, VLAN_TAG_PRESENT, PAY_OFFSET, VLAN_TPID.
                44 | 48 | 52 | 60 => Some(0),
                // RANDOM.
                56 => Some(vfs::realtime_now().nsec.unsigned_abs().try_into().unwrap_or(0)),
                _ => None,
            };
        }
        let start = match at {
            NET.. => self.network_at.checked_add(usize::try_from(at - NET).ok()?)?,
            LINK.. => usize::try_from(at - LINK).ok()?,
            _ => usize::try_from(at).ok()?,
        };
        let rest = self.bytes.get(start..)?;
        match code & 0x18 {
            0x00 => rest.first_chunk().map(|b| u32::from_be_bytes(*b)),
            0x08 => rest.first_chunk().map(|b| u32::from(u16::from_be_bytes(*b))),
            _ => rest.first().map(|b| u32::from(*b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Program, View};

    fn program(insns: &[(u16, u8, u8, u32)]) -> Vec<u8> {
        insns
            .iter()
            .flat_map(|(code, jt, jf, k)| [&code.to_ne_bytes()[..], &[*jt, *jf], &k.to_ne_bytes()].concat())
            .collect()
    }

    #[test]
    fn looks_and_decides() {
        // ldh [0]; jeq #0x0102, 0, 1; ret #2; ret #0
        let bytes = program(&[(0x28, 0, 0, 0), (0x15, 0, 1, 0x0102), (0x06, 0, 0, 2), (0x06, 0, 0, 0)]);
        let made = Program::new(&bytes).unwrap();
        assert_eq!(made.bytes(), bytes);
        assert_eq!(made.run(&View { bytes: &[1, 2, 3], ..View::default() }), 2);
        assert_eq!(made.run(&View { bytes: &[1, 3, 3], ..View::default() }), 0);
        assert_eq!(made.run(&View { bytes: &[1], ..View::default() }), 0);
        // The interface of the packet.
        let made = Program::new(&program(&[(0x20, 0, 0, 0xffff_f008), (0x16, 0, 0, 0)])).unwrap();
        assert_eq!(made.run(&View { index: 7, ..View::default() }), 7);
    }

    #[test]
    fn refuses() {
        for bad in [
            &[][..],
            &[(0x15, 0, 1, 0), (0x06, 0, 0, 0)],
            &[(0x00, 0, 0, 1)],
            &[(0x34, 0, 0, 0), (6, 0, 0, 0)],
        ] {
            assert!(Program::new(&program(bad)).is_err());
        }
    }
}
