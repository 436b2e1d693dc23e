//! Interfaces out of netlink's dumps (rtnetlink(7)). The bytes come from the host's kernel; malformed ones
//! are skipped.

use crate::netlink::{attribute, messages};
use crate::netns::{Interface, InterfaceAddr, LinkKind};
use std::net::IpAddr;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
/// Header of a netlink message.
const HEADER: usize = 16;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|c| u32::from_ne_bytes(*c))
}

fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    word(attribute(attributes, kind)?, 0)
}

fn link(body: &[u8]) -> Option<Interface> {
    let attributes = body.get(16..)?;
    let name = attribute(attributes, 3)?;
    let name = String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned();
    let hw = attribute(attributes, 1).and_then(|hw| hw.first_chunk()).copied().unwrap_or_default();
    Some(Interface {
        kind: if word(body, 8)? & 0x8 != 0 { LinkKind::Loopback } else { LinkKind::Ethernet },
        master: 0,
        queue_len: number(attributes, 13).unwrap_or(1000),
        alias: String::new(),
        index: word(body, 4)?,
        name,
        flags: word(body, 8)?,
        mtu: number(attributes, 4).unwrap_or(0),
        hw,
        addrs: Vec::new(),
    })
}

fn address(body: &[u8]) -> Option<(u32, InterfaceAddr)> {
    let attributes = body.get(8..)?;
    // Of a point-to-point link, the first attribute is the peer.
    let bytes = attribute(attributes, 2).or_else(|| attribute(attributes, 1))?;
    let ip = match bytes.len() {
        4 => IpAddr::from(*bytes.first_chunk::<4>()?),
        16 => IpAddr::from(*bytes.first_chunk::<16>()?),
        _ => return None,
    };
    Some((word(body, 4)?, InterfaceAddr { ip, prefix: *body.get(1)? }))
}

/// Puts the dumps of links and addresses together.
pub(super) fn interfaces(links: &[u8], addresses: &[u8]) -> Vec<Interface> {
    let body = |message: &'_ [u8]| message.get(HEADER..).unwrap_or_default().to_vec();
    let mut found: Vec<Interface> =
        messages(links).filter(|m| m.kind == RTM_NEWLINK).filter_map(|m| link(&body(m.bytes))).collect();
    for message in messages(addresses).filter(|m| m.kind == RTM_NEWADDR) {
        let Some((index, addr)) = address(&body(message.bytes)) else { continue };
        if let Some(interface) = found.iter_mut().find(|i| i.index == index) {
            interface.addrs.push(addr);
        }
    }
    found
}
