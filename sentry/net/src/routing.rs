//! Where packets go: the routes of a namespace, and across pairs of links into other namespaces of the sandbox.
//! Tables of two namespaces are never locked together.

use crate::netns::{Interface, NetNs, Route};
use abi::{Errno, SysResult};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// RT_TABLE_MAIN.
pub(crate) const TABLE_MAIN: u32 = 254;
/// Most namespaces on the way, and most links that one frame is looked for on.
const MOST_HOPS: u8 = 32;
const MOST_LINKS: usize = 1024;

/// The next hop of a route.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// The interface.
    pub index: u32,
    /// The router; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source that the route prefers.
    pub source: Option<IpAddr>,
}

/// The far end of a way out of a namespace.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// Where it ends; `None` on a link where nobody is, which swallows what is sent.
    pub(crate) ns: Option<Arc<NetNs>>,
    /// Source address.
    pub(crate) source: IpAddr,
    /// Interface that a packet leaves by, and by which it comes in.
    pub(crate) out: u32,
    pub(crate) into: u32,
}

fn covers(target: Option<IpAddr>, prefix: u8, ip: IpAddr) -> bool {
    match target {
        None => true,
        Some(net) => crate::netns::InterfaceAddr { ip: net, prefix }.covers(ip),
    }
}

impl NetNs {
    /// The index of `lo`.
    #[must_use]
    pub fn loopback_index(&self) -> u32 {
        1
    }
    /// The interface whose network has `ip` as its broadcast address, with its own address there.
    #[must_use]
    pub fn broadcast_at(&self, ip: IpAddr) -> Option<(u32, IpAddr)> {
        let IpAddr::V4(ip) = ip else { return None };
        let interfaces = self.interfaces();
        if ip.is_broadcast() {
            let out = crate::inet::multicast::outgoing(&interfaces)?;
            let own = out.addrs.iter().find(|a| a.ip.is_ipv4())?;
            return Some((out.index, own.ip));
        }
        interfaces.iter().filter(|i| i.is_up()).find_map(|i| {
            let own = i.addrs.iter().find(|a| a.broadcast() == Some(ip))?;
            Some((i.index, own.ip))
        })
    }
    /// The route to `ip`, by way of interface `device` when that is not 0; `ENETUNREACH` and what kinds of routes say.
    pub fn route_to(&self, ip: IpAddr, device: u32) -> SysResult<Hop> {
        let interfaces = self.interfaces();
        let up = |index: u32| interfaces.iter().any(|i| i.index == index && i.is_up());
        let mut best: Option<(u8, u32, SysResult<Hop>)> = None;
        let mut offer = |prefix: u8, metric: u32, hop: SysResult<Hop>| {
            if best.as_ref().is_none_or(|(p, m, _)| prefix > *p || prefix == *p && metric < *m) {
                best = Some((prefix, metric, hop));
            }
        };
        for interface in interfaces.iter().filter(|i| i.is_up() && (device == 0 || i.index == device)) {
            for addr in interface.addrs.iter().filter(|a| a.covers(ip)) {
                let hop = Hop { index: interface.index, gateway: None, source: Some(addr.ip) };
                offer(addr.prefix, 0, Ok(hop));
            }
        }
        let family = if ip.is_ipv4() { 2 } else { 10 };
        let routes = self.routes();
        let mine = |r: &&Route| {
            r.family == family && matches!(r.table, TABLE_MAIN | 253) && covers(r.target, r.prefix, ip)
        };
        for route in routes.iter().filter(mine) {
            let hop = match route.kind {
                6 => Err(Errno::EINVAL),
                7 => Err(Errno::EHOSTUNREACH),
                8 => Err(Errno::EACCES),
                _ if !up(route.index) || device != 0 && route.index != device => continue,
                _ => Ok(Hop { index: route.index, gateway: route.gateway, source: route.source }),
            };
            offer(route.prefix, route.metric, hop);
        }
        best.map_or(Err(Errno::ENETUNREACH), |(_, _, hop)| hop)
    }

    /// Every end of a link that a frame sent through interface `index` arrives at: namespaces with the interface there.
    pub(crate) fn on_link(self: &Arc<Self>, index: u32) -> Vec<(Arc<NetNs>, u32)> {
        let mut found: Vec<(Arc<NetNs>, u32)> = Vec::new();
        // Interfaces that a frame leaves by and that are still to be followed.
        let mut leaving = vec![(Arc::clone(self), index)];
        let mut seen: Vec<(u64, u32)> = vec![(self.ino, index)];
        while let Some((ns, index)) = leaving.pop() {
            if seen.len() > MOST_LINKS {
                break;
            }
            let interfaces = ns.interfaces();
            // Out of a bridge itself: by all of its ports.
            let ports = interfaces.iter().filter(|i| i.master == index && i.is_up()).map(|i| i.index);
            for port in ports {
                if !seen.contains(&(ns.ino, port)) {
                    seen.push((ns.ino, port));
                    leaving.push((Arc::clone(&ns), port));
                }
            }
            let Some((far, end)) = ns.peer_of(index) else { continue };
            let there = far.interfaces();
            let Some(end) = there.iter().find(|i| i.index == end && i.is_up()) else { continue };
            if end.master == 0 {
                found.push((Arc::clone(&far), end.index));
            } else if !seen.contains(&(far.ino, end.master)) {
                // Into a bridge: up to its host, and on by its other ports.
                seen.push((far.ino, end.index));
                seen.push((far.ino, end.master));
                found.push((Arc::clone(&far), end.master));
                leaving.push((Arc::clone(&far), end.master));
            }
        }
        found
    }

    /// Follows the routes to the namespace that has `ip`, over forwarding ones.
    pub(crate) fn reach(self: &Arc<Self>, ip: IpAddr, device: u32) -> SysResult<Reach> {
        let first = self.route_to(ip, device)?;
        let out = first.index;
        let source = self.source_at(&first, ip);
        let (mut ns, mut hop) = (Arc::clone(self), first);
        for _ in 0..MOST_HOPS {
            let next = hop.gateway.unwrap_or(ip);
            let ends = ns.on_link(hop.index);
            if ends.is_empty() && ns.peer_of(hop.index).is_none() {
                // A link that leads nowhere.
                return Ok(Reach { ns: None, source, out, into: 0 });
            }
            let Some((far, into)) = ends.into_iter().find(|(far, _)| far.is_local(next)) else {
                return Err(Errno::EHOSTUNREACH);
            };
            if far.is_local(ip) {
                return Ok(Reach { ns: Some(far), source, out, into });
            }
            if far.forwarding.load(Ordering::Relaxed) == 0 {
                return Ok(Reach { ns: None, source, out, into: 0 });
            }
            hop = far.route_to(ip, 0).map_err(|_| Errno::ENETUNREACH)?;
            ns = far;
        }
        Err(Errno::EHOSTUNREACH)
    }

    fn source_at(&self, hop: &Hop, ip: IpAddr) -> IpAddr {
        let own = || {
            let interfaces = self.interfaces();
            let out = interfaces.iter().find(|i| i.index == hop.index)?;
            let near = hop.gateway.unwrap_or(ip);
            let fits = out.addrs.iter().find(|a| a.covers(near));
            fits.or_else(|| out.addrs.iter().find(|a| a.ip.is_ipv4() == ip.is_ipv4())).map(|a| a.ip)
        };
        let none = if ip.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
        };
        hop.source.or_else(own).unwrap_or(none)
    }
}

impl Interface {
    /// The type of link that `ip -d link` shows, where there is one.
    #[must_use]
    pub fn kind_name(&self) -> Option<&'static str> {
        use crate::netns::LinkKind;
        match self.kind {
            LinkKind::Dummy => Some("dummy"),
            LinkKind::Veth => Some("veth"),
            LinkKind::Bridge => Some("bridge"),
            LinkKind::Loopback | LinkKind::Ethernet => None,
        }
    }
}
