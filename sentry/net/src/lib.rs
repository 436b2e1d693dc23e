//! Sockets: the layer under the socket calls, AF_UNIX, AF_INET and AF_INET6 over the loopback or donated by
//! the host, AF_NETLINK.
//!
//! A [`Socket`] never blocks; [`SocketFile`] waits. Everything belongs to a [`NetNs`]. Sending takes the
//! receiver's queue lock and nothing wider.
#![forbid(unsafe_code)]

pub mod addr;
pub mod base;
pub mod bpf;
pub mod control;
mod filter;
pub mod host;
pub mod inbox;
pub mod inet;
mod links;
mod mailbox;
pub mod netlink;
pub mod netns;
pub mod packet;
mod routing;
pub mod socket;
mod sockopt;
pub mod table;
#[cfg(test)]
mod tests;
pub mod types;
pub mod unix;

pub use addr::{InetAddr, SockAddr, UnixAddr};
pub use netns::{Interface, InterfaceAddr, NetNs, Route};
pub use socket::{Socket, SocketFile};
pub use types::{Control, MsgFlags, Received, SendMsg, Shutdown, SockType, Ucred};

use abi::fs::OpenFlags;
use abi::{Errno, SysResult};
use std::sync::Arc;
use types::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX};
use vfs::{Caller, Capabilities, OpenFile};

fn make(
    ns: &Arc<NetNs>,
    domain: i32,
    kind: i32,
    protocol: i32,
    by: &Caller<'_>,
) -> SysResult<Arc<dyn Socket>> {
    let family = u16::try_from(domain).map_err(|_| Errno::EAFNOSUPPORT)?;
    let kind = SockType::from_raw(kind)?;
    Ok(match family {
        AF_UNIX => {
            if protocol != 0 && protocol != 1 {
                return Err(Errno::EPROTONOSUPPORT);
            }
            // SOCK_RAW of AF_UNIX is SOCK_DGRAM (unix_create).
            let kind = if kind == SockType::Raw { SockType::Dgram } else { kind };
            unix::UnixSocket::new(ns, kind, by)
        }
        AF_INET | AF_INET6 if let Some(host) = ns.host() => {
            return host::HostSocket::open(ns, host, family, kind, protocol, by);
        }
        AF_INET | AF_INET6 => match (kind, protocol) {
            (SockType::Stream, 0 | 6) => inet::tcp::TcpSocket::new(ns, family),
            (SockType::Dgram, 0 | 17) => inet::udp::UdpSocket::new(ns, family, 17),
            (SockType::Dgram, 136) => inet::udp::UdpSocket::new(ns, family, 136),
            (SockType::Raw, 1..=255) if !by.cred.has_in(Capabilities::NET_RAW, &ns.user_ns) => {
                return Err(Errno::EPERM);
            }
            (SockType::Raw, 1..=255) => inet::raw::RawSocket::new(ns, family, inet::raw::Form::Raw, protocol),
            (SockType::Dgram, 1) if family == AF_INET => {
                ns.may_ping(by)?;
                inet::raw::RawSocket::new(ns, family, inet::raw::Form::Ping, protocol)
            }
            (SockType::Dgram, 58) if family == AF_INET6 => {
                ns.may_ping(by)?;
                inet::raw::RawSocket::new(ns, family, inet::raw::Form::Ping, protocol)
            }
            (SockType::SeqPacket, _) => return Err(Errno::ESOCKTNOSUPPORT),
            _ => return Err(Errno::EPROTONOSUPPORT),
        },
        // Frames of the host's links are not for guests.
        AF_PACKET if ns.host().is_some() => return Err(Errno::EAFNOSUPPORT),
        AF_PACKET => {
            if !by.cred.has_in(Capabilities::NET_RAW, &ns.user_ns) {
                return Err(Errno::EPERM);
            }
            packet::PacketSocket::new(ns, kind, protocol)?
        }
        AF_NETLINK => netlink::NetlinkSocket::new(ns, kind, protocol)?,
        _ => return Err(Errno::EAFNOSUPPORT),
    })
}

/// socket(2). `kind` is without SOCK_NONBLOCK and SOCK_CLOEXEC; `flags` may hold NONBLOCK.
pub fn create(
    ns: &Arc<NetNs>,
    domain: i32,
    kind: i32,
    protocol: i32,
    flags: OpenFlags,
    by: &Caller<'_>,
) -> SysResult<Arc<OpenFile>> {
    Ok(socket::open(make(ns, domain, kind, protocol, by)?, flags, by))
}

/// socketpair(2): AF_UNIX only.
pub fn create_pair(
    ns: &Arc<NetNs>,
    domain: i32,
    kind: i32,
    protocol: i32,
    flags: OpenFlags,
    by: &Caller<'_>,
) -> SysResult<(Arc<OpenFile>, Arc<OpenFile>)> {
    let probe = make(ns, domain, kind, protocol, by)?;
    if probe.base().domain != AF_UNIX {
        return Err(Errno::EOPNOTSUPP);
    }
    let (a, b) = unix::UnixSocket::pair(ns, probe.base().kind, by);
    Ok((socket::open(a, flags, by), socket::open(b, flags, by)))
}
