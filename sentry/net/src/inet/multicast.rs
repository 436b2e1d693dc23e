//! Groups that a socket has joined (IP_ADD_MEMBERSHIP, IPV6_ADD_MEMBERSHIP, MCAST_*; ip(7), RFC 3678).

use super::{is_v6, options};
use crate::base::Base;
use crate::netns::{Interface, NetNs};
use crate::types::{SockType, level};
use abi::{Errno, SysResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Most memberships of a socket (`net.ipv4.igmp_max_memberships`), and most sources of one (`igmp_max_msf`).
const MOST_GROUPS: usize = 20;
const MOST_SOURCES: usize = 10;

/// One membership.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// The group.
    pub group: IpAddr,
    /// The interface.
    pub index: u32,
    /// Whether `sources` are the ones that are taken, not the ones that are kept out.
    pub include: bool,
    /// Senders.
    pub sources: Vec<IpAddr>,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Join,
    Leave,
    Block,
    Unblock,
    JoinSource,
    LeaveSource,
}

/// A request, taken apart.
struct Request {
    change: Change,
    group: IpAddr,
    index: u32,
    source: Option<IpAddr>,
}

fn word(bytes: &[u8], at: usize) -> SysResult<u32> {
    bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}
fn v4(bytes: &[u8], at: usize) -> SysResult<Ipv4Addr> {
    bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map(|b| Ipv4Addr::from(*b)).ok_or(Errno::EINVAL)
}
fn v6(bytes: &[u8], at: usize) -> SysResult<Ipv6Addr> {
    bytes.get(at..).and_then(|b| b.first_chunk::<16>()).map(|b| Ipv6Addr::from(*b)).ok_or(Errno::EINVAL)
}
/// The address in a `struct sockaddr_storage`.
fn storage(bytes: &[u8], at: usize, of_v6: bool) -> SysResult<IpAddr> {
    let family = bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u16::from_ne_bytes(*b));
    match (family, of_v6) {
        (Some(2), false) => v4(bytes, at + 4).map(IpAddr::V4),
        (Some(10), true) => v6(bytes, at + 8).map(IpAddr::V6),
        _ => Err(if of_v6 { Errno::EADDRNOTAVAIL } else { Errno::EINVAL }),
    }
}

/// The interface of `addr`, or the one that carries multicast.
fn interface_of(ns: &NetNs, addr: Ipv4Addr) -> SysResult<u32> {
    let interfaces = ns.interfaces();
    let found = if addr.is_unspecified() {
        outgoing(&interfaces)
    } else {
        interfaces.iter().find(|i| i.addrs.iter().any(|a| a.ip == IpAddr::V4(addr)))
    };
    found.map(|i| i.index).ok_or(Errno::ENODEV)
}

/// The interface that a route to a group leads to when nobody names one.
pub(crate) fn outgoing(interfaces: &[Interface]) -> Option<&Interface> {
    interfaces.iter().find(|i| i.is_up() && !i.is_loopback() && i.flags & 0x1000 != 0 && !i.addrs.is_empty())
}

impl Request {
    /// Of setsockopt(2); `None` for other options.
    fn parse(base: &Base, at: i32, name: i32, value: &[u8]) -> Option<SysResult<Request>> {
        let parsed = match (at, name) {
            (level::IP, 35 | 36) => Self::mreq(&base.ns, name, value),
            (level::IP, 37..=40) => Self::mreq_source(&base.ns, name, value),
            (level::IP | level::IPV6, 42..=47) => Self::group_req(name, value, at == level::IPV6),
            (level::IPV6, 20 | 21) => Self::mreq6(name, value),
            // ANYCAST needs an address of another host's network.
            (level::IPV6, 27) if value.len() >= 20 => Err(Errno::EADDRNOTAVAIL),
            (level::IPV6, 28) if value.len() >= 20 => Err(Errno::ENOENT),
            (level::IPV6, 27 | 28) => Err(Errno::EINVAL),
            _ => return None,
        };
        Some(parsed)
    }
    fn mreq(ns: &NetNs, name: i32, value: &[u8]) -> SysResult<Request> {
        let group = v4(value, 0)?;
        let addr = v4(value, 4)?;
        let index = if value.len() >= 12 { word(value, 8)? } else { 0 };
        let change = if name == 35 { Change::Join } else { Change::Leave };
        if !group.is_multicast() {
            // Leaving looks for the interface first (ip_mc_leave_group).
            return Err(if change == Change::Join { Errno::EINVAL } else { Errno::EADDRNOTAVAIL });
        }
        let index = if index != 0 {
            ns.interfaces().iter().find(|i| i.index == index).map(|i| i.index).ok_or(Errno::ENODEV)?
        } else {
            interface_of(ns, addr)?
        };
        Ok(Request { change, group: IpAddr::V4(group), index, source: None })
    }
    fn mreq_source(ns: &NetNs, name: i32, value: &[u8]) -> SysResult<Request> {
        if value.len() != 12 {
            return Err(Errno::EINVAL);
        }
        let change = match name {
            37 => Change::Unblock,
            38 => Change::Block,
            39 => Change::JoinSource,
            _ => Change::LeaveSource,
        };
        let group = v4(value, 0)?;
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let index = interface_of(ns, v4(value, 4)?)?;
        Ok(Request { change, group: IpAddr::V4(group), index, source: Some(IpAddr::V4(v4(value, 8)?)) })
    }
    fn group_req(name: i32, value: &[u8], of_v6: bool) -> SysResult<Request> {
        let (change, with_source) = match name {
            42 => (Change::Join, false),
            45 => (Change::Leave, false),
            43 => (Change::Block, true),
            44 => (Change::Unblock, true),
            46 => (Change::JoinSource, true),
            _ => (Change::LeaveSource, true),
        };
        let fits = if with_source { value.len() == 264 } else { value.len() >= 136 };
        if !fits && (!of_v6 || value.len() < 136) {
            return Err(Errno::EINVAL);
        }
        let group = storage(value, 8, of_v6)?;
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let source = if with_source { Some(storage(value, 136, of_v6)?) } else { None };
        Ok(Request { change, group, index: word(value, 0)?, source })
    }
    fn mreq6(name: i32, value: &[u8]) -> SysResult<Request> {
        let group = v6(value, 0)?;
        let index = word(value, 16)?;
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let change = if name == 20 { Change::Join } else { Change::Leave };
        Ok(Request { change, group: IpAddr::V6(group), index, source: None })
    }
}

/// setsockopt(2) of memberships; `None` for other options.
pub(crate) fn set(base: &Base, at: i32, name: i32, value: &[u8]) -> Option<SysResult<()>> {
    let asked = Request::parse(base, at, name, value)?;
    if base.kind == SockType::Stream && !matches!(name, 37..=40 | 43 | 44 | 46 | 47) {
        // A stream has no groups; what is malformed is said first by IPv6 only.
        return Some(Err(match asked {
            Err(error) if at == level::IPV6 || matches!(name, 42 | 45) => error,
            _ => Errno::EPROTO,
        }));
    }
    Some(asked.and_then(|request| apply(base, request)))
}

fn apply(base: &Base, request: Request) -> SysResult<()> {
    let Request { change, group, mut index, source } = request;
    let interfaces = base.ns.interfaces();
    if index == 0 {
        index = match change {
            Change::Leave if group.is_ipv6() => 0,
            _ => outgoing(&interfaces).ok_or(Errno::ENODEV)?.index,
        };
    }
    if index != 0 && !interfaces.iter().any(|i| i.index == index) {
        return Err(Errno::ENODEV);
    }
    let mut outcome = Ok(());
    base.change(|o| {
        let found = o.groups.iter().position(|m| m.group == group && (index == 0 || m.index == index));
        outcome = match (change, found, source) {
            (Change::Join, Some(_), _) => Err(Errno::EADDRINUSE),
            (Change::Join | Change::JoinSource, None, _) if o.groups.len() >= MOST_GROUPS => {
                Err(Errno::ENOBUFS)
            }
            (Change::Join, None, _) => {
                o.groups.push(Membership { group, index, include: false, sources: Vec::new() });
                Ok(())
            }
            (Change::Leave, Some(at), _) => {
                o.groups.remove(at);
                Ok(())
            }
            (Change::JoinSource, None, Some(source)) => {
                o.groups.push(Membership { group, index, include: true, sources: vec![source] });
                Ok(())
            }
            (_, Some(at), Some(source)) => match o.groups.get_mut(at).map(|m| m.change(change, source)) {
                Some(Ok(true)) => Ok(()),
                Some(Ok(false)) => {
                    o.groups.remove(at);
                    Ok(())
                }
                Some(Err(error)) => Err(error),
                None => Err(Errno::EADDRNOTAVAIL),
            },
            _ if matches!(change, Change::Block | Change::Unblock | Change::LeaveSource)
                && group.is_ipv4() =>
            {
                Err(Errno::EINVAL)
            }
            _ => Err(Errno::EADDRNOTAVAIL),
        };
    });
    outcome
}

impl Membership {
    /// Changes the sources; false when nothing is left of the membership.
    fn change(&mut self, change: Change, source: IpAddr) -> SysResult<bool> {
        let listed = self.sources.iter().position(|s| *s == source);
        let include = matches!(change, Change::JoinSource | Change::LeaveSource);
        if include != self.include {
            // One membership has one mode.
            return Err(Errno::EINVAL);
        }
        match (change, listed) {
            (Change::Block | Change::JoinSource, Some(_)) => Err(Errno::EADDRNOTAVAIL),
            (Change::Block | Change::JoinSource, None) if self.sources.len() >= MOST_SOURCES => {
                Err(Errno::ENOBUFS)
            }
            (Change::Block | Change::JoinSource, None) => {
                self.sources.push(source);
                Ok(true)
            }
            (_, None) => Err(Errno::EADDRNOTAVAIL),
            (_, Some(at)) => {
                self.sources.remove(at);
                Ok(!include || !self.sources.is_empty())
            }
        }
    }
    fn takes(&self, source: IpAddr) -> bool {
        self.sources.contains(&source) == self.include
    }
}

/// Whether a socket takes what `source` sends to `group` through interface `index`.
pub(crate) fn takes(base: &Base, group: IpAddr, source: IpAddr, index: u32) -> bool {
    let (at, name) = if group.is_ipv4() { (level::IP, 49) } else { (level::IPV6, 29) };
    let all = base.int(at, name).unwrap_or(1) != 0;
    base.with(|o| match o.groups.iter().find(|m| m.group == group && m.index == index) {
        Some(membership) => membership.takes(source),
        None => all,
    })
}

/// Whether somebody on this host has joined the group on the interface: else nothing of it is taken at all.
pub(crate) fn joined(ns: &NetNs, group: IpAddr, index: u32) -> bool {
    let always = match group {
        IpAddr::V4(ip) => ip == Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(ip) => {
            ip == Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
                || ip == Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1)
        }
    };
    let member = |base: &Base| base.with(|o| o.groups.iter().any(|m| m.group == group && m.index == index));
    always || ns.socket_files().iter().any(|file| member(file.socket().base()))
}

/// The interface that what a socket sends to a group leaves by; `ENETUNREACH`.
pub(crate) fn interface_for(base: &Base, group: IpAddr, scope: u32) -> SysResult<Interface> {
    let interfaces = base.ns.interfaces();
    let (at, name) = if group.is_ipv4() { (level::IP, 32) } else { (level::IPV6, 17) };
    let wanted = base.int(at, name).filter(|index| *index != 0).map(i32::cast_unsigned);
    let device = Some(base.with(|o| o.device)).filter(|index| *index != 0);
    let scope = Some(scope).filter(|index| *index != 0 && is_v6(base));
    let found = match scope.or(wanted).or(device) {
        Some(index) => interfaces.iter().find(|i| i.index == index && i.is_up()),
        None => outgoing(&interfaces),
    };
    // IPv6 has no route for groups by way of the loopback.
    let found = found.filter(|i| group.is_ipv4() || !i.is_loopback());
    found.cloned().ok_or(Errno::ENETUNREACH)
}

/// The source of what leaves by `out` for a group: the address that IP_MULTICAST_IF named, or the interface's as far as
/// it means something beyond this host.
pub(crate) fn source_for(base: &Base, out: &Interface, group: IpAddr) -> IpAddr {
    if group.is_ipv6() {
        let own = out.addrs.iter().find(|a| a.ip.is_ipv6()).map(|a| a.ip);
        return own.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
    let named =
        base.int(level::IP, options::MULTICAST_IF_ADDRESS).map(|addr| Ipv4Addr::from(addr.to_ne_bytes()));
    if let Some(named) = named.filter(|ip| !ip.is_unspecified()) {
        return IpAddr::V4(named);
    }
    let own = out.addrs.iter().find(|a| a.ip.is_ipv4() && !a.ip.is_loopback()).map(|a| a.ip);
    own.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}
