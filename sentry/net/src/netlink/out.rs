//! Netlink messages as bytes.

use abi::{Errno, SysResult};
use std::net::IpAddr;

/// Bytes of a message's header.
pub(crate) const HEADER: usize = 16;
pub(super) const NLM_F_MULTI: u16 = 2;

/// Who is answered, and about what.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reply {
    pub(super) flags: u16,
    pub(super) seq: u32,
    pub(super) pid: u32,
}

/// Lays out netlink messages.
#[derive(Default)]
pub(super) struct Out {
    pub(super) bytes: Vec<u8>,
    start: usize,
}

impl Out {
    pub(super) fn begin(&mut self, kind: u16, reply: Reply) {
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&reply.flags.to_ne_bytes());
        self.bytes.extend_from_slice(&reply.seq.to_ne_bytes());
        self.bytes.extend_from_slice(&reply.pid.to_ne_bytes());
    }
    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
    pub(super) fn attr(&mut self, kind: u16, data: &[u8]) {
        let len = u16::try_from(data.len() + 4).unwrap_or(4);
        self.put(&len.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
    pub(super) fn word(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.attr(kind, &[value.as_bytes(), &[0]].concat());
    }
    pub(super) fn end(&mut self) {
        let len = u32::try_from(self.bytes.len() - self.start).unwrap_or(0);
        if let Some(slot) = self.bytes.get_mut(self.start..self.start + 4) {
            slot.copy_from_slice(&len.to_ne_bytes());
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// Attributes in an attribute.
pub(super) fn nested(fill: impl FnOnce(&mut Out)) -> Vec<u8> {
    let mut out = Out::default();
    fill(&mut out);
    out.bytes
}

pub(super) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The address an attribute holds.
pub(super) fn ip_of(data: &[u8]) -> SysResult<IpAddr> {
    match data.len() {
        4 => Ok(IpAddr::from(*data.first_chunk::<4>().ok_or(Errno::EINVAL)?)),
        16 => Ok(IpAddr::from(*data.first_chunk::<16>().ok_or(Errno::EINVAL)?)),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

/// A word of a message; `EINVAL` when it is shorter.
pub(super) fn word(bytes: &[u8], at: usize) -> SysResult<u32> {
    bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

/// The number that an attribute holds.
pub(super) fn number(attributes: &[u8], kind: u16) -> SysResult<Option<u32>> {
    attribute(attributes, kind).map(|data| word(data, 0)).transpose()
}

/// One message of a buffer.
pub(crate) struct Piece<'a> {
    /// Type.
    pub(crate) kind: u16,
    /// The whole message, header included.
    pub(crate) bytes: &'a [u8],
}

/// The messages in `rest`, up to the first that is malformed.
pub(crate) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*rest.get(4..)?.first_chunk()?);
        let bytes = rest.get(..len).filter(|bytes| bytes.len() >= HEADER)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Piece { kind, bytes })
    })
}

/// The first attribute of type `kind`.
pub(crate) fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let this = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & 0x3fff;
        let data = bytes.get(4..len)?;
        if this == kind {
            return Some(data);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}
