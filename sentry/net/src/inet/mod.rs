//! AF_INET and AF_INET6 over the loopback: queues in memory between sockets, no packets.

mod info;
pub mod options;
pub mod ports;
pub mod raw;
pub mod tcp;
pub mod udp;

use crate::addr::{InetAddr, SockAddr};
use crate::base::Base;
use crate::types::{AF_INET6, level};
use abi::{Errno, SysResult};
use mm::GuestSource;
use ports::Claim;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;
use vfs::Caller;

/// Whether the socket is an IPv6 one.
pub(crate) fn is_v6(base: &Base) -> bool {
    base.domain == AF_INET6
}

/// IPV6_V6ONLY.
pub(crate) fn v6_only(base: &Base) -> bool {
    base.int(level::IPV6, options::IPV6_V6ONLY).unwrap_or(0) != 0
}

/// An address of the socket's own family, in plain form.
pub(crate) fn own_family(base: &Base, addr: &SockAddr) -> SysResult<InetAddr> {
    let SockAddr::Inet(addr) = addr else { return Err(Errno::EAFNOSUPPORT) };
    if addr.ip.is_ipv6() != is_v6(base) {
        return Err(Errno::EAFNOSUPPORT);
    }
    Ok(addr.plain())
}

/// Where a packet to `addr` goes on this host; `ENETUNREACH` when it would leave it.
pub(crate) fn destination(base: &Base, addr: InetAddr) -> SysResult<InetAddr> {
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
    if base.ns.is_local(to.ip) { Ok(to) } else { Err(Errno::ENETUNREACH) }
}

/// The source address of what goes to `to`.
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
        reuse_addr,
        reuse_port: reuse_port.then_some(by.cred.euid),
        listening: false,
    }
}

/// Whether an address may be bound: one of the host's own, or the unspecified one.
pub(crate) fn may_bind(base: &Base, addr: InetAddr, by: &Caller<'_>) -> SysResult<()> {
    let free = base.int(level::IP, options::IP_FREEBIND).unwrap_or(0) != 0;
    if !addr.ip.is_unspecified() && !free && !base.ns.is_local(addr.ip) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    if is_v6(base) && v6_only(base) && addr.ip.is_ipv4() {
        return Err(Errno::EINVAL);
    }
    base.ns.may_bind_port(addr.port, by)
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
