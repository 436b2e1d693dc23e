//! AF_INET and AF_INET6 over the loopback: queues in memory between sockets, no packets.

mod backlog;
pub(crate) mod info;
pub(crate) mod multicast;
pub mod options;
pub mod ports;
pub mod raw;
pub mod tcp;
mod tcp_info;
pub mod udp;
pub(crate) mod wire;

use crate::addr::{InetAddr, SockAddr};
use crate::base::Base;
use crate::netns::NetNs;
use crate::types::{AF_INET6, level};
use abi::{Errno, SysResult};
use mm::GuestSource;
use ports::Claim;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::Caller;

/// Whether the socket is an IPv6 one.
pub(crate) fn is_v6(base: &Base) -> bool {
    base.domain == AF_INET6
}

/// IPV6_V6ONLY.
pub(crate) fn v6_only(base: &Base) -> bool {
    base.is_on(level::IPV6, options::IPV6_V6ONLY)
}

/// An address of the socket's own family, in plain form.
pub(crate) fn own_family(base: &Base, addr: &SockAddr) -> SysResult<InetAddr> {
    // The length is looked at first, by the socket's own measure.
    let least = if is_v6(base) { 24 } else { 16 };
    match addr {
        SockAddr::Inet(addr) if addr.ip.is_ipv6() == is_v6(base) => Ok(addr.plain()),
        // A `struct sockaddr_in` is too short for IPv6.
        SockAddr::Inet(_) if is_v6(base) => Err(Errno::EINVAL),
        SockAddr::Odd { len, .. } if *len < least => Err(Errno::EINVAL),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// How many receivers a packet has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cast {
    /// One.
    One,
    /// All on the network.
    Broadcast,
    /// Those that joined a group.
    Group,
}

/// The way of a packet.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// Where it ends; `None`: on a link where nobody listens.
    pub(crate) ns: Option<Arc<NetNs>>,
    /// Its destination.
    pub(crate) to: InetAddr,
    /// Its source.
    pub(crate) source: IpAddr,
    /// The interface that it leaves by, and the one that it comes in by.
    pub(crate) index: (u32, u32),
    /// How many receivers it has.
    pub(crate) cast: Cast,
}

/// Finds the way to `addr` by the routes of the socket's namespace; `ENETUNREACH`.
pub(crate) fn way(base: &Base, addr: InetAddr) -> SysResult<Way> {
    let mut to = addr;
    if to.ip.is_unspecified() {
        // "This host" (ip(7)).
        to.ip = match to.ip {
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
    }
    if is_v6(base) && v6_only(base) && to.ip.is_ipv4() {
        return Err(Errno::ENETUNREACH);
    }
    let ns = &base.ns;
    let local = |source, index, cast| Way { ns: Some(Arc::clone(ns)), to, source, index, cast };
    if to.ip.is_multicast() {
        let out = multicast::interface_for(base, to.ip, to.scope)?;
        let source = multicast::source_for(base, &out, to.ip);
        return Ok(local(source, (out.index, out.index), Cast::Group));
    }
    if ns.is_local(to.ip) {
        let device = base.with(|o| o.device);
        let through = |i: &&crate::netns::Interface| i.index == device;
        let outside = device != 0 && ns.interfaces().iter().find(through).is_none_or(|i| !i.is_loopback());
        if outside && to.ip.is_loopback() {
            return Err(Errno::ENETUNREACH);
        }
        return Ok(local(source_for(to, 0).ip, (ns.loopback_index(), ns.loopback_index()), Cast::One));
    }
    if let Some((index, own)) = ns.broadcast_at(to.ip) {
        return Ok(local(own, (index, index), Cast::Broadcast));
    }
    let reach = ns.reach(to.ip, base.with(|o| o.device))?;
    Ok(Way { ns: reach.ns, to, source: reach.source, index: (reach.out, reach.into), cast: Cast::One })
}

/// Where a stream to `addr` goes. A group and a broadcast are no hosts.
pub(crate) fn destination(base: &Base, addr: InetAddr) -> SysResult<Way> {
    let way = way(base, addr)?;
    if way.cast == Cast::One { Ok(way) } else { Err(Errno::ENETUNREACH) }
}

/// The source address of what goes to `to` on this host.
pub(crate) fn source_for(to: InetAddr, port: u16) -> InetAddr {
    let ip = match to.ip {
        IpAddr::V4(ip) if ip.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other,
    };
    InetAddr { ip, port, scope: 0 }
}

/// How a bind of `addr` holds its port.
pub(crate) fn claim_for(base: &Base, addr: InetAddr, by: &Caller<'_>) -> Claim {
    let (reuse_addr, reuse_port) = base.with(|o| (o.reuse_addr, o.reuse_port));
    Claim {
        addr,
        dual: is_v6(base) && addr.ip.is_unspecified() && addr.ip.is_ipv6() && !v6_only(base),
        device: base.with(|o| o.device),
        reuse_addr,
        reuse_port: reuse_port.then_some(by.cred.euid),
        listening: false,
    }
}

/// The address that bind(2) means.
pub(crate) fn bind_addr(base: &Base, addr: &SockAddr) -> SysResult<InetAddr> {
    match addr {
        // ip(7): AF_UNSPEC with INADDR_ANY is taken for AF_INET.
        SockAddr::Unspec if !is_v6(base) => Ok(InetAddr::any(false)),
        other => own_family(base, other),
    }
}

/// Whether an address may be bound: one of the host's own, the unspecified one, a group, a broadcast.
pub(crate) fn may_bind(base: &Base, addr: InetAddr, by: &Caller<'_>) -> SysResult<()> {
    let free = base.is_on(level::IP, options::IP_FREEBIND)
        || base.is_on(level::IPV6, 78)
        || base.is_on(level::IP, 19);
    let shared =
        addr.ip.is_multicast() || base.ns.broadcast_at(addr.ip).is_some() || is_limited_broadcast(addr.ip);
    if matches!(addr.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
        && addr.scope == 0
        && base.with(|o| o.device) == 0
    {
        return Err(Errno::EINVAL);
    }
    if !addr.ip.is_unspecified() && !free && !shared && !base.ns.is_local(addr.ip) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    if is_v6(base) && v6_only(base) && addr.ip.is_ipv4() {
        return Err(Errno::EINVAL);
    }
    base.ns.may_bind_port(addr.port, by)
}

/// 255.255.255.255.
pub(crate) fn is_limited_broadcast(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_broadcast())
}

/// Everything a datagram's sender has; the source can be taken once.
pub(crate) fn take_all(src: &mut dyn GuestSource) -> SysResult<Vec<u8>> {
    let mut bytes = vec![0; src.remaining()];
    let mut got = 0;
    while let Some(rest) = bytes.get_mut(got..).filter(|r| !r.is_empty()) {
        match src.take(rest)? {
            0 => return Err(Errno::EFAULT),
            n => got += n,
        }
    }
    Ok(bytes)
}

/// The ephemeral port range.
pub(crate) fn port_range(base: &Base) -> (u32, u32) {
    let [low, high] = &base.ns.port_range;
    (low.load(Ordering::Relaxed), high.load(Ordering::Relaxed))
}

/// An address as the socket shows it.
pub(crate) fn show(base: &Base, addr: InetAddr) -> SockAddr {
    SockAddr::Inet(addr.shown(is_v6(base)))
}
