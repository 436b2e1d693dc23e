//! Links, addresses, routes and neighbours as the route family shows them (rtnetlink(7)).

use super::out::{Out, Reply, family, nested, octets};
use crate::netns::{Interface, InterfaceAddr, LinkKind, Neighbour, NetNs, Route};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_NEWNEIGH: u16 = 28;

/// A message about a link; `kind` is RTM_NEWLINK or RTM_DELLINK.
pub(super) fn link(out: &mut Out, kind: u16, ns: &Arc<NetNs>, interface: &Interface, reply: Reply) {
    let hatype: u16 = if interface.is_loopback() { 772 } else { 1 };
    out.begin(kind, reply);
    out.put(&[0, 0]);
    out.put(&hatype.to_ne_bytes());
    out.put(&interface.index.to_ne_bytes());
    out.put(&interface.flags.to_ne_bytes());
    out.put(&[0; 4]);
    out.text(3, &interface.name);
    out.word(13, interface.queue_len);
    // IF_OPER_UNKNOWN of what knows no carrier, IF_OPER_DOWN, IF_OPER_UP.
    let state = match (interface.kind, interface.is_up()) {
        (LinkKind::Loopback | LinkKind::Dummy, true) | (LinkKind::Loopback, _) => 0,
        (_, true) => 6,
        (_, false) => 2,
    };
    out.attr(16, &[state]);
    out.attr(17, &[0]);
    out.word(4, interface.mtu);
    out.word(50, if interface.is_loopback() { 0 } else { 68 });
    out.word(51, if interface.is_loopback() { 0 } else { 65_535 });
    out.word(27, 0);
    out.word(30, 0);
    out.word(31, 1);
    out.word(32, 1);
    out.attr(33, &[u8::from(interface.is_up())]);
    out.text(6, if interface.is_up() || interface.is_loopback() { "noqueue" } else { "noop" });
    if !interface.alias.is_empty() {
        out.text(20, &interface.alias);
    }
    if interface.master != 0 {
        out.word(10, interface.master);
    }
    if let Some((far, end)) = ns.peer_of(interface.index) {
        out.word(5, end);
        if !Arc::ptr_eq(&far, ns) {
            out.word(37, 0);
        }
    }
    out.attr(1, &interface.hw);
    out.attr(2, if interface.is_loopback() { &[0; 6] } else { &[0xff; 6] });
    // Nothing is counted.
    out.attr(23, &[0; 200]);
    out.attr(7, &[0; 96]);
    if let Some(name) = interface.kind_name() {
        out.attr(18, &nested(|info| info.text(1, name)));
    }
    out.end();
}

/// A message about an address.
pub(super) fn address(out: &mut Out, kind: u16, interface: &Interface, addr: InterfaceAddr, reply: Reply) {
    out.begin(kind, reply);
    let scope = match addr.ip {
        IpAddr::V4(ip) if ip.is_loopback() => 254,
        IpAddr::V6(ip) if ip.is_loopback() => 254,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => 253,
        _ => 0,
    };
    out.put(&[family(addr.ip), addr.prefix, 0x80, scope]);
    out.put(&interface.index.to_ne_bytes());
    out.attr(1, &octets(addr.ip));
    if addr.ip.is_ipv4() {
        out.attr(2, &octets(addr.ip));
        out.text(3, &interface.name);
    }
    out.word(8, 0x80);
    out.attr(6, &[&[0xff; 8][..], &[0; 8]].concat());
    out.end();
}

/// A message about a route that was added.
pub(super) fn route(out: &mut Out, kind: u16, route: &Route, reply: Reply) {
    out.begin(kind, reply);
    let table = u8::try_from(route.table).unwrap_or(0);
    let head = [route.family, route.prefix, 0, 0, table, route.protocol, route.scope, route.kind, 0, 0, 0, 0];
    out.put(&head);
    out.word(15, route.table);
    for (kind, ip) in [(1, route.target), (5, route.gateway), (7, route.source)] {
        if let Some(ip) = ip {
            out.attr(kind, &octets(ip));
        }
    }
    if route.metric != 0 {
        out.word(6, route.metric);
    }
    if route.index != 0 {
        out.word(4, route.index);
    }
    out.end();
}

/// The routes that an address brings: to itself, and to its network.
pub(super) fn routes_of(interface: &Interface, addr: InterfaceAddr) -> Vec<Route> {
    let one = |target, prefix, table, scope, kind| Route {
        family: family(addr.ip),
        target: Some(target),
        prefix,
        gateway: None,
        index: interface.index,
        source: addr.ip.is_ipv4().then_some(addr.ip),
        table,
        protocol: 2,
        scope,
        kind,
        metric: if addr.ip.is_ipv4() || table == 255 { 0 } else { 256 },
    };
    let mut all = Vec::new();
    match addr.ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(addr.prefix.min(32))).unwrap_or(0);
            let net = IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask));
            if addr.prefix < 32 {
                let local = interface.is_loopback();
                let (table, scope, kind) = if local { (255, 254, 2) } else { (254, 253, 1) };
                all.push(one(net, addr.prefix, table, scope, kind));
            }
            all.push(one(addr.ip, 32, 255, 254, 2));
            if let Some(broadcast) = addr.broadcast() {
                all.push(one(IpAddr::V4(broadcast), 32, 255, 253, 3));
            }
        }
        IpAddr::V6(ip) => {
            if addr.prefix < 128 {
                let mask = u128::MAX.checked_shl(128 - u32::from(addr.prefix)).unwrap_or(0);
                let net = std::net::Ipv6Addr::from_bits(ip.to_bits() & mask);
                all.push(one(IpAddr::V6(net), addr.prefix, 254, 0, 1));
            }
            all.push(one(addr.ip, 128, 255, 0, 2));
        }
    }
    all
}

/// A message about a neighbour.
pub(super) fn neighbour(out: &mut Out, kind: u16, known: &Neighbour, reply: Reply) {
    out.begin(kind, reply);
    out.put(&[family(known.ip), 0, 0, 0]);
    out.put(&known.index.to_ne_bytes());
    out.put(&known.state.to_ne_bytes());
    out.put(&[known.flags, 1]);
    out.attr(1, &octets(known.ip));
    if let Some(hw) = known.hw {
        out.attr(2, &hw);
    }
    out.attr(3, &[0; 16]);
    out.end();
}
