//! Classic BPF on packets (SO_ATTACH_FILTER; linux/filter.h, Documentation/networking/filter.rst).

use crate::bpf::{Input, Insn, MOST, Program, Registers, Width};
use abi::{Errno, SysResult};
use zerocopy::{FromBytes, IntoBytes};

/// Offsets from here on ask about the packet instead of its bytes (`SKF_AD_OFF`).
const ANCILLARY: u32 = 0xffff_f000;
/// From the network header (`SKF_NET_OFF`) and from the link header (`SKF_LL_OFF`).
const NET: u32 = 0xfff0_0000;
const LINK: u32 = 0xffe0_0000;

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
pub struct Filter(Program);

impl Filter {
    /// Checks the instructions, an array of `struct sock_filter`; `EINVAL`.
    pub fn new(bytes: &[u8]) -> SysResult<Filter> {
        let whole = bytes.chunks_exact(size_of::<Insn>());
        if !whole.remainder().is_empty() || whole.len() > MOST {
            return Err(Errno::EINVAL);
        }
        Program::new(whole.filter_map(|insn| Insn::read_from_bytes(insn).ok()).collect()).map(Filter)
    }
    /// The instructions as `struct sock_filter`.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.0.insns().as_bytes()
    }
    /// How many bytes of the packet the socket gets; 0 for none of it.
    #[must_use]
    pub fn run(&self, view: &View<'_>) -> usize {
        usize::try_from(self.0.run(view).unwrap_or(0)).unwrap_or(usize::MAX)
    }
}

impl Input for View<'_> {
    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
    fn load(&self, at: u32, width: Width, registers: Registers) -> Option<u32> {
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
                40 => Some(registers.accumulator ^ registers.index),
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
        match width {
            Width::Word => rest.first_chunk().map(|b| u32::from_be_bytes(*b)),
            Width::Half => rest.first_chunk().map(|b| u32::from(u16::from_be_bytes(*b))),
            Width::Byte => rest.first().map(|b| u32::from(*b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, View};

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
        let made = Filter::new(&bytes).unwrap();
        assert_eq!(made.bytes(), bytes);
        assert_eq!(made.run(&View { bytes: &[1, 2, 3], ..View::default() }), 2);
        assert_eq!(made.run(&View { bytes: &[1, 3, 3], ..View::default() }), 0);
        assert_eq!(made.run(&View { bytes: &[1], ..View::default() }), 0);
        // The interface of the packet.
        let made = Filter::new(&program(&[(0x20, 0, 0, 0xffff_f008), (0x16, 0, 0, 0)])).unwrap();
        assert_eq!(made.run(&View { index: 7, ..View::default() }), 7);
    }

    #[test]
    fn takes_whole_instructions() {
        let bytes = program(&[(0x06, 0, 0, 2)]);
        assert!(Filter::new(&bytes).is_ok());
        assert!(Filter::new(&[]).is_err());
        assert!(Filter::new(&bytes[..7]).is_err());
        assert!(Filter::new(&[&bytes[..], &[0]].concat()).is_err());
    }
}
