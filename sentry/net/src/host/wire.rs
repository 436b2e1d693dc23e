//! What sentry and network helper say to each other on a `SOCK_SEQPACKET` socket: one request, then its
//! reply in one packet or several. Neither end trusts the other's bytes.

use abi::{Errno, SysResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Most bytes of a request.
pub const MAX_REQUEST: usize = 64;
/// Most bytes of one packet of a reply.
pub const MAX_PACKET: usize = 64 * 1024;
/// Most bytes of a whole reply.
pub const MAX_REPLY: usize = 16 * 1024 * 1024;
/// Bytes before the payload of a reply: an errno (or 0) and whether more packets follow.
pub const REPLY_HEADER: usize = 3;

/// Files of /proc/net that the helper reads out, by number.
pub const TEXTS: [&str; 20] = [
    "anycast6",
    "arp",
    "dev",
    "dev_mcast",
    "fib_trie",
    "if_inet6",
    "igmp",
    "igmp6",
    "ipv6_route",
    "mcfilter",
    "mcfilter6",
    "netstat",
    "route",
    "rt6_stats",
    "snmp",
    "snmp6",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
];

/// What the helper is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// A socket, which comes with the reply.
    Socket {
        /// AF_INET or AF_INET6.
        domain: u16,
        /// SOCK_*.
        kind: i32,
        /// IPPROTO_*.
        protocol: i32,
    },
    /// bind(2) on the socket that comes with the request.
    Bind(SocketAddr),
    /// A dump of the route family of netlink.
    Dump {
        /// What of.
        of: Dump,
        /// Address family, or 0.
        family: u8,
    },
    /// RTM_GETROUTE for one address.
    Route(IpAddr),
    /// The file of that number in [`TEXTS`].
    Text(u8),
}

/// Tables of the route family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dump {
    /// RTM_GETLINK.
    Links,
    /// RTM_GETADDR.
    Addresses,
    /// RTM_GETROUTE.
    Routes,
    /// RTM_GETNEIGH.
    Neighbours,
    /// RTM_GETRULE.
    Rules,
}

impl Dump {
    /// The `RTM_GET*` number.
    #[must_use]
    pub fn kind(self) -> u16 {
        match self {
            Dump::Links => 18,
            Dump::Addresses => 22,
            Dump::Routes => 26,
            Dump::Neighbours => 30,
            Dump::Rules => 34,
        }
    }
    /// From the number.
    #[must_use]
    pub fn from_kind(kind: u16) -> Option<Dump> {
        [Dump::Links, Dump::Addresses, Dump::Routes, Dump::Neighbours, Dump::Rules]
            .into_iter()
            .find(|dump| dump.kind() == kind)
    }
}

fn put_ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
}

/// Bytes that are taken from the front.
struct Front<'a>(&'a [u8]);

impl Front<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }
    fn ip(&mut self) -> Option<IpAddr> {
        match self.byte()? {
            4 => Some(IpAddr::V4(Ipv4Addr::from(self.take::<4>()?))),
            6 => Some(IpAddr::V6(Ipv6Addr::from(self.take::<16>()?))),
            _ => None,
        }
    }
}

impl Request {
    /// Bytes of the request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAX_REQUEST);
        match *self {
            Request::Socket { domain, kind, protocol } => {
                out.push(1);
                out.extend_from_slice(&domain.to_ne_bytes());
                out.extend_from_slice(&kind.to_ne_bytes());
                out.extend_from_slice(&protocol.to_ne_bytes());
            }
            Request::Bind(addr) => {
                out.push(2);
                put_ip(&mut out, addr.ip());
                out.extend_from_slice(&addr.port().to_ne_bytes());
                let scope = if let SocketAddr::V6(addr) = addr { addr.scope_id() } else { 0 };
                out.extend_from_slice(&scope.to_ne_bytes());
            }
            Request::Dump { of, family } => {
                out.push(3);
                out.extend_from_slice(&of.kind().to_ne_bytes());
                out.push(family);
            }
            Request::Route(ip) => {
                out.push(4);
                put_ip(&mut out, ip);
            }
            Request::Text(number) => out.extend_from_slice(&[5, number]),
        }
        out
    }

    /// From bytes; `None` for anything but a whole request.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Request> {
        let mut front = Front(bytes);
        let request = match front.byte()? {
            1 => Request::Socket {
                domain: u16::from_ne_bytes(front.take()?),
                kind: i32::from_ne_bytes(front.take()?),
                protocol: i32::from_ne_bytes(front.take()?),
            },
            2 => {
                let ip = front.ip()?;
                let port = u16::from_ne_bytes(front.take()?);
                let scope = u32::from_ne_bytes(front.take()?);
                Request::Bind(match ip {
                    IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
                    IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)),
                })
            }
            3 => Request::Dump {
                of: Dump::from_kind(u16::from_ne_bytes(front.take()?))?,
                family: front.byte()?,
            },
            4 => Request::Route(front.ip()?),
            5 => Request::Text(front.byte()?),
            _ => return None,
        };
        front.0.is_empty().then_some(request)
    }
}

/// One packet of a reply: `Ok` with its payload and whether more follow, or the errno.
pub fn open_reply(packet: &[u8]) -> SysResult<(&[u8], bool)> {
    let mut front = Front(packet);
    let errno = front.take::<2>().map(u16::from_ne_bytes).ok_or(Errno::EIO)?;
    let more = front.byte().ok_or(Errno::EIO)?;
    if errno != 0 {
        return Err(Errno::from_raw(i32::from(errno)));
    }
    Ok((front.0, more != 0))
}

/// Bytes before the payload.
#[must_use]
pub fn reply_header(outcome: SysResult<()>, more: bool) -> [u8; REPLY_HEADER] {
    let [low, high] = outcome.err().map_or(0, Errno::raw).to_ne_bytes();
    [low, high, u8::from(more)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_there_and_back() {
        let v6 = SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, 7));
        for request in [
            Request::Socket { domain: 2, kind: 1, protocol: 6 },
            Request::Bind(SocketAddr::from(([10, 0, 0, 1], 53))),
            Request::Bind(v6),
            Request::Dump { of: Dump::Routes, family: 10 },
            Request::Route(IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1))),
            Request::Text(3),
        ] {
            let bytes = request.encode();
            assert!(bytes.len() <= MAX_REQUEST);
            assert_eq!(Request::decode(&bytes), Some(request));
            assert_eq!(Request::decode(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(Request::decode(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(open_reply(&reply_header(Err(Errno::EACCES), false)), Err(Errno::EACCES));
        assert_eq!(open_reply(&[0, 0, 1, 9]), Ok((&[9][..], true)));
        assert!(TEXTS.is_sorted());
    }
}
