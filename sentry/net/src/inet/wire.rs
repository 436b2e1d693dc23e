//! Packets as bytes: made for those who look at packets (raw and packet sockets), read from those who write them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU16, Ordering};

/// Bytes of an IPv4 header without options, and of an IPv6 header.
pub(crate) const V4_HEADER: usize = 20;
pub(crate) const V6_HEADER: usize = 40;
pub(crate) const UDP_HEADER: usize = 8;

static IP_ID: AtomicU16 = AtomicU16::new(1);

/// A packet between two hosts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) source: IpAddr,
    pub(crate) target: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    /// Behind the IP header.
    pub(crate) payload: &'a [u8],
}

/// The Internet checksum (RFC 1071) of `parts`, each of even length but the last.
pub(crate) fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let high = pair.first().copied().unwrap_or(0);
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([high, low]));
        }
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let folded = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = (!folded).to_be_bytes();
    [high, low]
}

/// The checksum of a message with its pseudo header.
fn sum_with_pseudo(message: &[u8], protocol: u8, source: IpAddr, target: IpAddr) -> [u8; 2] {
    let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
    match (source, target) {
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            checksum(&[&source.octets(), &target.octets(), &length, &[0, 0, 0, protocol], message])
        }
        (IpAddr::V4(source), IpAddr::V4(target)) => checksum(&[
            &source.octets(),
            &target.octets(),
            &[0, protocol],
            length.get(2..).unwrap_or_default(),
            message,
        ]),
        _ => [0; 2],
    }
}

/// Fills in the checksum of an ICMP message.
pub(crate) fn seal_icmp(message: &mut [u8], source: IpAddr, target: IpAddr) {
    if let Some(place) = message.get_mut(2..4) {
        place.fill(0);
    }
    let sum =
        if source.is_ipv6() { sum_with_pseudo(message, 58, source, target) } else { checksum(&[message]) };
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&sum);
    }
}

/// A UDP datagram with its header.
pub(crate) fn udp(payload: &[u8], (source, from): (IpAddr, u16), (target, to): (IpAddr, u16)) -> Vec<u8> {
    let length = u16::try_from(UDP_HEADER + payload.len()).unwrap_or(0);
    let mut out = Vec::with_capacity(UDP_HEADER + payload.len());
    out.extend_from_slice(&from.to_be_bytes());
    out.extend_from_slice(&to.to_be_bytes());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    let sum = match sum_with_pseudo(&out, 17, source, target) {
        [0, 0] => [0xff, 0xff],
        sum => sum,
    };
    if let Some(place) = out.get_mut(6..8) {
        place.copy_from_slice(&sum);
    }
    out
}

impl Packet<'_> {
    /// The IP header in front of the payload.
    pub(crate) fn header(&self) -> Vec<u8> {
        match (self.source, self.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => self.header_v4(source, target),
            (IpAddr::V6(source), IpAddr::V6(target)) => self.header_v6(source, target),
            _ => Vec::new(),
        }
    }
    /// Header and payload.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        out.extend_from_slice(self.payload);
        out
    }
    fn header_v4(&self, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
        let length = u16::try_from(V4_HEADER + self.payload.len()).unwrap_or(u16::MAX);
        let mut out = vec![0x45, self.tos];
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&IP_ID.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        // Do not fragment.
        out.extend_from_slice(&[0x40, 0, self.ttl, self.protocol, 0, 0]);
        out.extend_from_slice(&source.octets());
        out.extend_from_slice(&target.octets());
        let sum = checksum(&[&out]);
        if let Some(place) = out.get_mut(10..12) {
            place.copy_from_slice(&sum);
        }
        out
    }
    fn header_v6(&self, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
        let length = u16::try_from(self.payload.len()).unwrap_or(u16::MAX);
        let mut out = vec![0x60 | (self.tos >> 4), self.tos << 4, 0, 0];
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[self.protocol, self.ttl]);
        out.extend_from_slice(&source.octets());
        out.extend_from_slice(&target.octets());
        out
    }
}

/// An IP packet out of bytes that somebody wrote; `None` when they are none.
pub(crate) fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    match byte(0) >> 4 {
        4 => {
            let length = usize::from(byte(0) & 15) * 4;
            let total = usize::from(u16::from_be_bytes([byte(2), byte(3)]));
            if length < V4_HEADER || total < length || total > bytes.len() {
                return None;
            }
            let address = |at: usize| bytes.get(at..)?.first_chunk::<4>().map(|b| IpAddr::from(*b));
            Some(Packet {
                source: address(12)?,
                target: address(16)?,
                protocol: byte(9),
                ttl: byte(8),
                tos: byte(1),
                payload: bytes.get(length..total)?,
            })
        }
        6 => {
            let length = usize::from(u16::from_be_bytes([byte(4), byte(5)]));
            let address = |at: usize| bytes.get(at..)?.first_chunk::<16>().map(|b| IpAddr::from(*b));
            Some(Packet {
                source: address(8)?,
                target: address(24)?,
                protocol: byte(6),
                ttl: byte(7),
                tos: (byte(0) << 4) | (byte(1) >> 4),
                payload: bytes.get(V6_HEADER..V6_HEADER.checked_add(length)?)?,
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Packet, checksum, parse, udp};
    use std::net::IpAddr;

    #[test]
    fn sums_of_rfc_1071() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), [0x22, 0x0d]);
        assert_eq!(checksum(&[&[1]]), [0xfe, 0xff]);
    }

    #[test]
    fn packets_there_and_back() {
        for (source, target) in [("127.0.0.1", "127.0.0.2"), ("::1", "fe80::1")] {
            let [source, target]: [IpAddr; 2] = [source, target].map(|ip| ip.parse().unwrap());
            let payload = udp(b"abc", (source, 7), (target, 9));
            let packet = Packet { source, target, protocol: 17, ttl: 3, tos: 0x20, payload: &payload };
            let bytes = packet.bytes();
            let back = parse(&bytes).unwrap();
            assert_eq!((back.source, back.target, back.ttl, back.tos), (source, target, 3, 0x20));
            assert_eq!(back.payload, payload);
            assert!(parse(&bytes[..bytes.len() - 1]).is_none());
        }
    }
}
