//! Socket addresses between guest bytes and types (unix(7), ip(7), ipv6(7), netlink(7)).

use crate::types::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_UNSPEC};
use abi::{Errno, SysResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest address (`sizeof(struct sockaddr_storage)`).
pub const MAX_ADDR: usize = 128;

/// Where an AF_UNIX socket is bound.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum UnixAddr {
    /// Not bound; also the autobind request.
    Unnamed,
    /// A name without a file (without its leading NUL).
    Abstract(Vec<u8>),
    /// A file; the layer with the caller's root and working directory fills in device and inode.
    Path {
        /// As given.
        path: Vec<u8>,
        /// Device and inode once resolved.
        node: Option<(u64, u64)>,
    },
}

/// Address and port, and for IPv6 flow and scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct InetAddr {
    /// Address in its own family; IPv4-mapped addresses stay IPv6.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// Interface of link-local addresses.
    pub scope: u32,
}

/// `struct sockaddr_ll` (packet(7)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkAddr {
    /// Ethernet protocol in host order.
    pub protocol: u16,
    /// Interface; 0 for any.
    pub index: u32,
    /// ARPHRD_*.
    pub hatype: u16,
    /// PACKET_*.
    pub pkttype: u8,
    /// Hardware address, of which `halen` bytes count.
    pub hw: [u8; 8],
    /// Length of the hardware address.
    pub halen: u8,
}

/// Any address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SockAddr {
    /// AF_UNSPEC: dissolves a connection.
    Unspec,
    /// AF_UNSPEC with an IPv4 address in it.
    UnspecWithAddress(InetAddr),
    /// An address that is too short for its family, or of a family that no socket here has.
    Odd {
        /// As given.
        family: u16,
        /// Bytes.
        len: usize,
    },
    /// AF_PACKET.
    Link(LinkAddr),
    /// AF_PACKET, as long as its hardware address is: what getsockname(2) gives.
    LinkName(LinkAddr),
    /// AF_UNIX.
    Unix(UnixAddr),
    /// AF_INET and AF_INET6.
    Inet(InetAddr),
    /// AF_NETLINK.
    Netlink {
        /// Port id.
        pid: u32,
        /// Multicast groups.
        groups: u32,
    },
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> SysResult<[u8; N]> {
    bytes.get(at..).and_then(|b| b.first_chunk()).copied().ok_or(Errno::EINVAL)
}

impl SockAddr {
    /// From guest bytes; `EINVAL` when too short to name a family. What else is wrong is for the socket to say, by
    /// the rules of its own family.
    pub fn parse(bytes: &[u8]) -> SysResult<SockAddr> {
        if bytes.len() > MAX_ADDR {
            return Err(Errno::EINVAL);
        }
        let family = u16::from_ne_bytes(word(bytes, 0)?);
        match family {
            AF_UNSPEC => Ok(match bytes.get(4..8) {
                Some(&[a, b, c, d]) if [a, b, c, d] != [0; 4] => {
                    let port = u16::from_be_bytes(word(bytes, 2)?);
                    let ip = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
                    SockAddr::UnspecWithAddress(InetAddr { ip, port, scope: 0 })
                }
                _ => SockAddr::Unspec,
            }),
            AF_UNIX => {
                let name = bytes.get(2..).unwrap_or_default();
                if name.len() > 108 {
                    return Err(Errno::EINVAL);
                }
                Ok(SockAddr::Unix(match name.split_first() {
                    None => UnixAddr::Unnamed,
                    Some((0, rest)) => UnixAddr::Abstract(rest.to_vec()),
                    Some(_) => {
                        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
                        UnixAddr::Path { path: name.get(..end).unwrap_or(name).to_vec(), node: None }
                    }
                }))
            }
            AF_INET => {
                if bytes.len() < 16 {
                    return Ok(SockAddr::Odd { family, len: bytes.len() });
                }
                let ip = Ipv4Addr::from(word::<4>(bytes, 4)?);
                let port = u16::from_be_bytes(word(bytes, 2)?);
                Ok(SockAddr::Inet(InetAddr { ip: IpAddr::V4(ip), port, scope: 0 }))
            }
            AF_INET6 => {
                // The scope is missing in RFC 2133's shorter structure.
                if bytes.len() < 24 {
                    return Ok(SockAddr::Odd { family, len: bytes.len() });
                }
                let ip = Ipv6Addr::from(word::<16>(bytes, 8)?);
                let port = u16::from_be_bytes(word(bytes, 2)?);
                let scope = word(bytes, 24).map_or(0, u32::from_ne_bytes);
                Ok(SockAddr::Inet(InetAddr { ip: IpAddr::V6(ip), port, scope }))
            }
            AF_NETLINK => {
                if bytes.len() < 12 {
                    return Ok(SockAddr::Odd { family, len: bytes.len() });
                }
                Ok(SockAddr::Netlink {
                    pid: u32::from_ne_bytes(word(bytes, 4)?),
                    groups: u32::from_ne_bytes(word(bytes, 8)?),
                })
            }
            AF_PACKET if bytes.len() >= 20 => {
                let halen = bytes.get(11).copied().unwrap_or(0);
                Ok(SockAddr::Link(LinkAddr {
                    protocol: u16::from_be_bytes(word(bytes, 2)?),
                    index: u32::from_ne_bytes(word(bytes, 4)?),
                    hatype: u16::from_ne_bytes(word(bytes, 8)?),
                    pkttype: bytes.get(10).copied().unwrap_or(0),
                    hw: word(bytes, 12)?,
                    halen,
                }))
            }
            _ => Ok(SockAddr::Odd { family, len: bytes.len() }),
        }
    }

    /// For guest memory, at its true length.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(28);
        match self {
            SockAddr::Unspec | SockAddr::UnspecWithAddress(_) => {
                out.extend_from_slice(&AF_UNSPEC.to_ne_bytes());
            }
            SockAddr::Odd { family, .. } => out.extend_from_slice(&family.to_ne_bytes()),
            SockAddr::Link(link) | SockAddr::LinkName(link) => {
                out.extend_from_slice(&AF_PACKET.to_ne_bytes());
                out.extend_from_slice(&link.protocol.to_be_bytes());
                out.extend_from_slice(&link.index.to_ne_bytes());
                out.extend_from_slice(&link.hatype.to_ne_bytes());
                out.extend_from_slice(&[link.pkttype, link.halen]);
                out.extend_from_slice(&link.hw);
                if matches!(self, SockAddr::LinkName(_)) {
                    out.truncate(12 + usize::from(link.halen.min(8)));
                }
            }
            SockAddr::Unix(addr) => {
                out.extend_from_slice(&AF_UNIX.to_ne_bytes());
                match addr {
                    UnixAddr::Unnamed => {}
                    UnixAddr::Abstract(name) => {
                        out.push(0);
                        out.extend_from_slice(name);
                    }
                    UnixAddr::Path { path, .. } => {
                        out.extend_from_slice(path);
                        out.push(0);
                    }
                }
            }
            SockAddr::Inet(InetAddr { ip: IpAddr::V4(ip), port, .. }) => {
                out.extend_from_slice(&AF_INET.to_ne_bytes());
                out.extend_from_slice(&port.to_be_bytes());
                out.extend_from_slice(&ip.octets());
                out.resize(16, 0);
            }
            SockAddr::Inet(InetAddr { ip: IpAddr::V6(ip), port, scope }) => {
                out.extend_from_slice(&AF_INET6.to_ne_bytes());
                out.extend_from_slice(&port.to_be_bytes());
                out.extend_from_slice(&[0; 4]);
                out.extend_from_slice(&ip.octets());
                out.extend_from_slice(&scope.to_ne_bytes());
            }
            SockAddr::Netlink { pid, groups } => {
                out.extend_from_slice(&AF_NETLINK.to_ne_bytes());
                out.extend_from_slice(&[0; 2]);
                out.extend_from_slice(&pid.to_ne_bytes());
                out.extend_from_slice(&groups.to_ne_bytes());
            }
        }
        out
    }

    /// Whether connect(2) to it dissolves the connection.
    #[must_use]
    pub fn is_unspec(&self) -> bool {
        matches!(self, SockAddr::Unspec | SockAddr::UnspecWithAddress(_))
    }
    /// The path that the caller's file system must resolve (or make, for bind) before the address is used.
    #[must_use]
    pub fn path(&self) -> Option<&[u8]> {
        match self {
            SockAddr::Unix(UnixAddr::Path { path, .. }) => Some(path),
            _ => None,
        }
    }
    /// The same address with its file found.
    #[must_use]
    pub fn with_node(self, dev: u64, ino: u64) -> SockAddr {
        match self {
            SockAddr::Unix(UnixAddr::Path { path, .. }) => {
                SockAddr::Unix(UnixAddr::Path { path, node: Some((dev, ino)) })
            }
            other => other,
        }
    }
}

impl InetAddr {
    /// The unspecified address and port 0 of a family.
    #[must_use]
    pub fn any(v6: bool) -> InetAddr {
        let ip = if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        InetAddr { ip, port: 0, scope: 0 }
    }
    /// With IPv4-mapped addresses turned into IPv4: how ports are compared.
    #[must_use]
    pub fn plain(self) -> InetAddr {
        InetAddr { ip: self.ip.to_canonical(), ..self }
    }
    /// As a socket of the family shows it: IPv4 becomes IPv4-mapped on an IPv6 socket.
    #[must_use]
    pub fn shown(self, v6: bool) -> InetAddr {
        match self.ip {
            IpAddr::V4(ip) if v6 => {
                let ip = if ip.is_unspecified() { Ipv6Addr::UNSPECIFIED } else { ip.to_ipv6_mapped() };
                InetAddr { ip: IpAddr::V6(ip), ..self }
            }
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let unix = SockAddr::Unix(UnixAddr::Abstract(b"x\0y".to_vec()));
        assert_eq!(SockAddr::parse(&unix.to_bytes()), Ok(unix));
        let v6 = SockAddr::Inet(InetAddr { ip: "::1".parse().unwrap(), port: 80, scope: 3 });
        assert_eq!(v6.to_bytes().len(), 28);
        assert_eq!(SockAddr::parse(&v6.to_bytes()), Ok(v6));
        let v4 = SockAddr::Inet(InetAddr { ip: "127.0.0.1".parse().unwrap(), port: 80, scope: 0 });
        assert_eq!(v4.to_bytes()[..8], [2, 0, 0, 80, 127, 0, 0, 1]);
        assert_eq!(SockAddr::parse(&v4.to_bytes()[..15]), Ok(SockAddr::Odd { family: 2, len: 15 }));
        assert_eq!(SockAddr::parse(&[99, 0]), Ok(SockAddr::Odd { family: 99, len: 2 }));
        assert_eq!(SockAddr::parse(&[99]), Err(Errno::EINVAL));
    }
}
