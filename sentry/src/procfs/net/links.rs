//! Tables of links, routes, neighbours and groups.

use super::super::text::put;
use ::net::netns::{Interface, InterfaceAddr, Neighbour, Route};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn name(interfaces: &[Interface], index: u32) -> &str {
    interfaces.iter().find(|i| i.index == index).map_or("*", |i| i.name.as_str())
}

fn hw(bytes: [u8; 6], with: &str) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(with)
}

pub(super) fn arp(interfaces: &[Interface], neighbours: &[Neighbour]) -> Vec<u8> {
    let mut out =
        String::from("IP address       HW type     Flags       HW address            Mask     Device\n");
    for known in neighbours {
        let IpAddr::V4(ip) = known.ip else { continue };
        // ATF_COM, ATF_PERM.
        let flags = if known.state & 0x80 != 0 { 6 } else { 2 };
        put!(
            out,
            "{:<16} 0x{:<10x}0x{:<10x}{:<17}     *        {}\n",
            ip.to_string(),
            1,
            if known.hw.is_some() { flags } else { 0 },
            hw(known.hw.unwrap_or_default(), ":"),
            name(interfaces, known.index)
        );
    }
    out.into_bytes()
}

/// Hardware addresses of groups that a link listens for: those of every host.
pub(super) fn dev_mcast(interfaces: &[Interface]) -> Vec<u8> {
    let mut out = String::new();
    for interface in interfaces.iter().filter(|i| i.is_up() && !i.is_loopback()) {
        put!(out, "{:<4} {:<15} 1     0     01005e000001\n", interface.index, interface.name);
        if interface.addrs.iter().any(|a| a.ip.is_ipv6()) {
            put!(out, "{:<4} {:<15} 1     0     333300000001\n", interface.index, interface.name);
        }
    }
    out.into_bytes()
}

pub(super) fn igmp(interfaces: &[Interface], groups: &[(u32, IpAddr, usize)]) -> Vec<u8> {
    let mut out = String::from("Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n");
    for interface in interfaces.iter().filter(|i| i.is_up()) {
        let mut rows: Vec<(Ipv4Addr, usize)> = groups
            .iter()
            .filter_map(|(index, group, users)| match group {
                IpAddr::V4(ip) if *index == interface.index => Some((*ip, *users)),
                _ => None,
            })
            .collect();
        rows.push((Ipv4Addr::new(224, 0, 0, 1), 1));
        put!(out, "{}\t{:<10}: {:5}      V3\n", interface.index, interface.name, rows.len());
        for (group, users) in rows {
            put!(out, "\t\t\t\t{:08X} {users:5} 0:00000000\t\t0\n", u32::from_ne_bytes(group.octets()));
        }
    }
    out.into_bytes()
}

pub(super) fn igmp6(interfaces: &[Interface], groups: &[(u32, IpAddr, usize)]) -> Vec<u8> {
    let mut out = String::new();
    for interface in interfaces.iter().filter(|i| i.is_up()) {
        let joined = groups.iter().filter(|(index, ..)| *index == interface.index);
        let joined = joined.filter_map(|(_, group, users)| match group {
            IpAddr::V6(ip) => Some((*ip, *users)),
            IpAddr::V4(_) => None,
        });
        let all_hosts = [0xff02_u16, 0xff01].map(|scope| (Ipv6Addr::new(scope, 0, 0, 0, 0, 0, 0, 1), 1));
        for (group, users) in joined.chain(all_hosts) {
            put!(
                out,
                "{:<4} {:<15} {:032x} {users:5} 0000000C 0\n",
                interface.index,
                interface.name,
                group.to_bits()
            );
        }
    }
    out.into_bytes()
}

/// Leaves of the table of IPv4 routes: prefix, its length, scope and kind.
fn leaves(interfaces: &[Interface], routes: &[Route]) -> Vec<(Ipv4Addr, u8, &'static str, &'static str)> {
    let mut rows = Vec::new();
    let mask = |ip: Ipv4Addr, prefix: u8| {
        let mask = u32::MAX.checked_shl(u32::from(32_u8.saturating_sub(prefix))).unwrap_or(0);
        Ipv4Addr::from_bits(ip.to_bits() & mask)
    };
    for interface in interfaces.iter().filter(|i| i.is_up()) {
        for InterfaceAddr { ip, prefix } in &interface.addrs {
            let IpAddr::V4(ip) = ip else { continue };
            if *prefix < 32 {
                let kind = if interface.is_loopback() { ("host", "LOCAL") } else { ("link", "UNICAST") };
                rows.push((mask(*ip, *prefix), *prefix, kind.0, kind.1));
            }
            rows.push((*ip, 32, "host", "LOCAL"));
            if *prefix < 31 {
                let last =
                    Ipv4Addr::from_bits(ip.to_bits() | u32::MAX.checked_shr((*prefix).into()).unwrap_or(0));
                rows.push((last, 32, "link", "BROADCAST"));
            }
        }
    }
    for route in routes.iter().filter(|route| route.family == 2) {
        let target = match route.target {
            Some(IpAddr::V4(ip)) => ip,
            _ => Ipv4Addr::UNSPECIFIED,
        };
        let scope = if route.gateway.is_some() { "universe" } else { "link" };
        rows.push((mask(target, route.prefix), route.prefix, scope, "UNICAST"));
    }
    rows.sort_unstable();
    rows.dedup();
    rows
}

pub(super) fn fib_trie(interfaces: &[Interface], routes: &[Route]) -> Vec<u8> {
    let rows = leaves(interfaces, routes);
    let mut out = String::new();
    for table in ["Main", "Local"] {
        put!(out, "{table}:\n  +-- 0.0.0.0/0 0 0 0\n");
        let mut last = None;
        for (ip, prefix, scope, kind) in &rows {
            if last != Some(*ip) {
                put!(out, "     |-- {ip}\n");
                last = Some(*ip);
            }
            put!(out, "        /{prefix} {scope} {kind}\n");
        }
    }
    out.into_bytes()
}

pub(super) fn ipv6_route(interfaces: &[Interface], routes: &[Route]) -> Vec<u8> {
    let mut out = String::new();
    let mut row = |target: Ipv6Addr, prefix: u8, gateway: Ipv6Addr, metric: u32, flags: u32, device: &str| {
        put!(
            out,
            "{:032x} {prefix:02x} {:032x} 00 {:032x} {metric:08x} {:08x} {:08x} {flags:08x} {device:>8}\n",
            target.to_bits(),
            0,
            gateway.to_bits(),
            1,
            0
        );
    };
    for interface in interfaces.iter().filter(|i| i.is_up()) {
        for addr in &interface.addrs {
            let IpAddr::V6(ip) = addr.ip else { continue };
            if addr.prefix < 128 {
                let mask = u128::MAX.checked_shl(u32::from(128 - addr.prefix)).unwrap_or(0);
                row(
                    Ipv6Addr::from_bits(ip.to_bits() & mask),
                    addr.prefix,
                    Ipv6Addr::UNSPECIFIED,
                    256,
                    1,
                    &interface.name,
                );
            }
            // RTF_LOCAL | RTF_NONEXTHOP | RTF_UP.
            row(ip, 128, Ipv6Addr::UNSPECIFIED, 0, 0x8020_0001, &interface.name);
        }
    }
    for route in routes.iter().filter(|route| route.family == 10) {
        let of = |ip| match ip {
            Some(IpAddr::V6(ip)) => ip,
            _ => Ipv6Addr::UNSPECIFIED,
        };
        let flags = if route.gateway.is_some() { 3 } else { 1 };
        row(
            of(route.target),
            route.prefix,
            of(route.gateway),
            route.metric,
            flags,
            name(interfaces, route.index),
        );
    }
    // What is not reached.
    row(Ipv6Addr::UNSPECIFIED, 0, Ipv6Addr::UNSPECIFIED, u32::MAX, 0x0020_0200, "lo");
    out.into_bytes()
}
