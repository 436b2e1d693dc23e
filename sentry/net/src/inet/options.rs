//! Options of the IP, IPv6, TCP and UDP levels (ip(7), ipv6(7), tcp(7), udp(7)): values with limits that
//! are remembered, with the defaults of Linux.

use super::{is_v6, multicast, tcp_info};
use crate::base::Base;
use crate::sockopt::read_int;
use crate::types::{SockType, level};
use abi::{Errno, SysResult};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use vfs::{Caller, Capabilities};

/// IPV6_V6ONLY.
pub const IPV6_V6ONLY: i32 = 26;
/// IP_FREEBIND.
pub const IP_FREEBIND: i32 = 15;
/// IP_PKTINFO.
pub const IP_PKTINFO: i32 = 8;
/// IP_RECVTTL.
pub const IP_RECVTTL: i32 = 12;
/// IPV6_RECVPKTINFO.
pub const IPV6_RECVPKTINFO: i32 = 49;
/// IPV6_RECVHOPLIMIT.
pub const IPV6_RECVHOPLIMIT: i32 = 51;
/// IP_RECVORIGDSTADDR.
pub const IP_RECVORIGDSTADDR: i32 = 20;
const IP_MULTICAST_IF: i32 = 32;
/// Where the address that IP_MULTICAST_IF was given is kept.
pub(super) const MULTICAST_IF_ADDRESS: i32 = 0x1_0020;
const TCP_MAXSEG: i32 = 2;
const TCP_INFO: i32 = 11;
const TCP_CONGESTION: i32 = 13;
const TCP_FASTOPEN: i32 = 23;
/// TCP_SAVE_SYN.
pub(super) const TCP_SAVE_SYN: i32 = 27;
/// Congestion controls there are, by the number that is remembered.
const CONGESTION: [&[u8]; 2] = [b"cubic", b"reno"];
/// What a segment carries over the loopback once windows are known, and before.
const MSS: i32 = 32_741;
const MSS_UNCONNECTED: i32 = 536;

/// How a value is checked.
#[derive(Clone, Copy)]
enum Rule {
    /// Any number but 0 is 1.
    Flag,
    /// `EINVAL` outside.
    Range(i32, i32),
    /// As it is.
    Any,
    /// The lowest byte; of a stream without the bits of congestion (TOS).
    Tos,
    /// -1 stands for the default; `EINVAL` outside of the range.
    OrDefault(i32, i32),
    /// An interface, or 0.
    Interface,
}

/// Least length of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Least {
    /// None: 0 is meant.
    Nothing,
    /// A byte.
    Byte,
    /// An int.
    Int,
}

type Entry = (i32, i32, i32, Least, Rule);

const IP: i32 = level::IP;
const V6: i32 = level::IPV6;
const TCP: i32 = level::TCP;
const UDP: i32 = level::UDP;

// Level, name, default, length, rule.
const INTS: &[Entry] = &[
    (IP, 1, 0, Least::Nothing, Rule::Tos),
    (IP, 2, 64, Least::Byte, Rule::OrDefault(1, 255)), // TTL
    (IP, 6, 0, Least::Nothing, Rule::Flag),            // RECVOPTS
    (IP, 7, 0, Least::Nothing, Rule::Flag),            // RETOPTS
    (IP, IP_PKTINFO, 0, Least::Nothing, Rule::Flag),
    (IP, 10, 1, Least::Nothing, Rule::Range(0, 5)), // MTU_DISCOVER
    (IP, 11, 0, Least::Nothing, Rule::Flag),        // RECVERR
    (IP, IP_RECVTTL, 0, Least::Nothing, Rule::Flag),
    (IP, 13, 0, Least::Nothing, Rule::Flag), // RECVTOS
    (IP, IP_FREEBIND, 0, Least::Byte, Rule::Flag),
    (IP, 18, 0, Least::Nothing, Rule::Flag), // PASSSEC
    (IP, 19, 0, Least::Byte, Rule::Flag),    // TRANSPARENT
    (IP, IP_RECVORIGDSTADDR, 0, Least::Nothing, Rule::Flag),
    (IP, 21, 0, Least::Byte, Rule::Range(0, 255)),     // MINTTL
    (IP, 23, 0, Least::Nothing, Rule::Flag),           // CHECKSUM
    (IP, 24, 0, Least::Nothing, Rule::Flag),           // BIND_ADDRESS_NO_PORT
    (IP, 25, 0, Least::Nothing, Rule::Flag),           // RECVFRAGSIZE
    (IP, 26, 0, Least::Nothing, Rule::Range(0, 1)),    // RECVERR_RFC4884
    (IP, 33, 1, Least::Byte, Rule::OrDefault(0, 255)), // MULTICAST_TTL
    (IP, 34, 1, Least::Byte, Rule::Flag),              // MULTICAST_LOOP
    (IP, 49, 1, Least::Byte, Rule::Range(0, 1)),       // MULTICAST_ALL
    (IP, 50, 0, Least::Int, Rule::Interface),          // UNICAST_IF
    (IP, 51, 0, Least::Int, Rule::Any),                // LOCAL_PORT_RANGE
    (V6, 2, 0, Least::Int, Rule::Flag),                // 2292PKTINFO
    (V6, 3, 0, Least::Int, Rule::Flag),                // 2292HOPOPTS
    (V6, 4, 0, Least::Int, Rule::Flag),                // 2292DSTOPTS
    (V6, 5, 0, Least::Int, Rule::Flag),                // 2292RTHDR
    (V6, 8, 0, Least::Int, Rule::Flag),                // 2292HOPLIMIT
    (V6, 11, 0, Least::Int, Rule::Flag),               // FLOWINFO
    (V6, 16, 64, Least::Int, Rule::OrDefault(0, 255)), // UNICAST_HOPS
    (V6, 17, 0, Least::Int, Rule::Interface),          // MULTICAST_IF
    (V6, 18, 1, Least::Int, Rule::OrDefault(0, 255)),  // MULTICAST_HOPS
    (V6, 19, 1, Least::Int, Rule::Range(0, 1)),        // MULTICAST_LOOP
    (V6, 23, 1, Least::Int, Rule::Range(0, 5)),        // MTU_DISCOVER
    (V6, 25, 0, Least::Int, Rule::Flag),               // RECVERR
    (V6, IPV6_V6ONLY, 0, Least::Int, Rule::Flag),
    (V6, 29, 1, Least::Int, Rule::Flag),        // MULTICAST_ALL
    (V6, 30, 0, Least::Int, Rule::Flag),        // ROUTER_ALERT_ISOLATE
    (V6, 31, 0, Least::Int, Rule::Range(0, 1)), // RECVERR_RFC4884
    (V6, 33, 0, Least::Int, Rule::Flag),        // FLOWINFO_SEND
    (V6, IPV6_RECVPKTINFO, 0, Least::Int, Rule::Flag),
    (V6, IPV6_RECVHOPLIMIT, 0, Least::Int, Rule::Flag),
    (V6, 53, 0, Least::Int, Rule::Flag),                // RECVHOPOPTS
    (V6, 56, 0, Least::Int, Rule::Flag),                // RECVRTHDR
    (V6, 58, 0, Least::Int, Rule::Flag),                // RECVDSTOPTS
    (V6, 60, 0, Least::Int, Rule::Flag),                // RECVPATHMTU
    (V6, 62, 0, Least::Nothing, Rule::Flag),            // DONTFRAG
    (V6, 66, 0, Least::Int, Rule::Flag),                // RECVTCLASS
    (V6, 67, 0, Least::Int, Rule::OrDefault(0, 255)),   // TCLASS
    (V6, 70, 1, Least::Nothing, Rule::Flag),            // AUTOFLOWLABEL
    (V6, 73, 0, Least::Int, Rule::Range(0, 255)),       // MINHOPCOUNT
    (V6, 74, 0, Least::Int, Rule::Flag),                // RECVORIGDSTADDR
    (V6, 75, 0, Least::Int, Rule::Flag),                // TRANSPARENT
    (V6, 76, 0, Least::Int, Rule::Interface),           // UNICAST_IF
    (V6, 77, 0, Least::Nothing, Rule::Flag),            // RECVFRAGSIZE
    (V6, 78, 0, Least::Int, Rule::Flag),                // FREEBIND
    (TCP, 1, 0, Least::Int, Rule::Flag),                // NODELAY
    (TCP, 3, 0, Least::Int, Rule::Flag),                // CORK
    (TCP, 4, 7200, Least::Int, Rule::Range(1, 32_767)), // KEEPIDLE
    (TCP, 5, 75, Least::Int, Rule::Range(1, 32_767)),   // KEEPINTVL
    (TCP, 6, 9, Least::Int, Rule::Range(1, 127)),       // KEEPCNT
    (TCP, 7, 6, Least::Int, Rule::Range(1, 127)),       // SYNCNT
    (TCP, 12, 1, Least::Int, Rule::Flag),               // QUICKACK
    (TCP, 16, 0, Least::Int, Rule::Range(0, 1)),        // THIN_LINEAR_TIMEOUTS
    (TCP, 18, 0, Least::Int, Rule::Range(0, i32::MAX)), // USER_TIMEOUT
    (TCP, 25, 0, Least::Int, Rule::Any),                // NOTSENT_LOWAT
    (TCP, TCP_SAVE_SYN, 0, Least::Int, Rule::Range(0, 2)),
    (TCP, 30, 0, Least::Int, Rule::Range(0, 1)), // FASTOPEN_CONNECT
    (TCP, 34, 0, Least::Int, Rule::Range(0, 1)), // FASTOPEN_NO_COOKIE
    (TCP, 36, 0, Least::Int, Rule::Range(0, 1)), // INQ
    (TCP, 37, 0, Least::Int, Rule::Range(0, i32::MAX - 1)), // TX_DELAY
    (UDP, 1, 0, Least::Int, Rule::Flag),         // CORK
    (UDP, 101, 0, Least::Int, Rule::Flag),       // NO_CHECK6_TX
    (UDP, 102, 0, Least::Int, Rule::Flag),       // NO_CHECK6_RX
    (UDP, 103, 0, Least::Int, Rule::Range(0, 65_535)), // SEGMENT
    (UDP, 104, 0, Least::Int, Rule::Flag),       // GRO
];

/// How the socket stands that is asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// State of TCP; 0 for others.
    pub(crate) tcp_state: u8,
    /// Bound.
    pub(crate) bound: bool,
    /// Connected.
    pub(crate) connected: bool,
    /// Bytes of a TCP connection that were sent, and received.
    pub(crate) bytes: (u64, u64),
}

impl Standing {
    fn unconnected(self) -> bool {
        matches!(self.tcp_state, tcp_state::CLOSE | tcp_state::LISTEN)
    }
}

fn level_applies(base: &Base, at: i32) -> bool {
    match at {
        IP => !(is_v6(base) && base.kind == SockType::Raw),
        V6 => is_v6(base),
        TCP => base.kind == SockType::Stream,
        UDP => base.kind == SockType::Dgram && matches!(base.protocol, 17 | level::UDPLITE),
        level::UDPLITE => base.protocol == level::UDPLITE,
        _ => false,
    }
}

fn streams(base: &Base) -> bool {
    base.kind == SockType::Stream
}

/// getsockopt of these levels; `None` for SOL_SOCKET as far as it is the same for all.
pub(crate) fn get(base: &Base, at: i32, name: i32, standing: Standing) -> Option<SysResult<Vec<u8>>> {
    if at == level::SOCKET {
        // Stream sockets tune themselves until they are told.
        let default: i32 = match (base.kind, name, base.with(|o| (o.sndbuf, o.rcvbuf))) {
            (SockType::Stream, 7, (None, _)) => {
                if standing.unconnected() {
                    base.ns.sysctl("net/ipv4/tcp_wmem", 1).unwrap_or(16_384)
                } else {
                    2_626_560
                }
            }
            (SockType::Stream, 8, (_, None)) => base.ns.sysctl("net/ipv4/tcp_rmem", 1).unwrap_or(131_072),
            (SockType::Stream, 30, _) => i32::from(standing.tcp_state == tcp_state::LISTEN),
            _ => return None,
        };
        return Some(Ok(default.to_ne_bytes().to_vec()));
    }
    if !level_applies(base, at) {
        let raw = at == level::RAW && base.kind == SockType::Raw;
        return Some(Err(if is_v6(base) || raw { Errno::ENOPROTOOPT } else { Errno::EOPNOTSUPP }));
    }
    Some(get_here(base, at, name, standing))
}

/// What an option that nobody has set is by the sysctls of the namespace.
fn by_sysctl(base: &Base, at: i32, name: i32) -> Option<i32> {
    let path = match (at, name) {
        (IP, 2) => "net/ipv4/ip_default_ttl",
        (TCP, 4) => "net/ipv4/tcp_keepalive_time",
        (TCP, 5) => "net/ipv4/tcp_keepalive_intvl",
        (TCP, 6) => "net/ipv4/tcp_keepalive_probes",
        (TCP, 7) => "net/ipv4/tcp_syn_retries",
        (TCP, 8) => "net/ipv4/tcp_fin_timeout",
        _ => return None,
    };
    base.ns.sysctl(path, 0)
}

fn get_here(base: &Base, at: i32, name: i32, standing: Standing) -> SysResult<Vec<u8>> {
    let int = |value: i32| Ok(value.to_ne_bytes().to_vec());
    if let Some((_, _, default, ..)) = INTS.iter().find(|(l, n, ..)| *l == at && *n == name) {
        return int(base.int(at, name).or_else(|| by_sysctl(base, at, name)).unwrap_or(*default));
    }
    match (at, name) {
        (TCP, TCP_INFO) => Ok(tcp_info::bytes(base, standing)),
        (TCP, TCP_MAXSEG) => match base.int(TCP, TCP_MAXSEG) {
            Some(set) if standing.unconnected() && set != 0 => int(set),
            _ if standing.unconnected() => int(MSS_UNCONNECTED),
            _ => int(MSS),
        },
        (TCP, TCP_CONGESTION) => {
            let at = usize::try_from(base.int(TCP, name).unwrap_or(0)).unwrap_or(0);
            let mut name = CONGESTION.get(at).copied().unwrap_or_default().to_vec();
            name.resize(16, 0);
            Ok(name)
        }
        (TCP, 8) => int(base.int(TCP, 8).or_else(|| by_sysctl(base, TCP, 8)).unwrap_or(60)),
        (TCP, 9) => int(retransmissions_to_seconds(base.int(TCP, 9).unwrap_or(0))),
        (TCP, 10 | TCP_FASTOPEN) => int(base.int(TCP, name).unwrap_or(0)),
        // THIN_DUPACK and REPAIR are never on.
        (TCP, 17 | 19) => int(0),
        (TCP, 20 | 21 | 29 | 35) => Err(Errno::EINVAL),
        (TCP, 24) => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let ms = now.tv_sec.wrapping_mul(1000).wrapping_add(now.tv_nsec / 1_000_000);
            int(i32::try_from(ms & 0x7fff_ffff).unwrap_or(0))
        }
        // CC_INFO of a control that tells nothing; ULP of none; SAVED_SYN of none.
        (TCP, 26 | 28 | 31) => Ok(Vec::new()),
        (UDP, 100) => int(base.int(UDP, 100).unwrap_or(0)),
        (level::UDPLITE, 10 | 11) => int(base.int(at, name).unwrap_or(0)),
        (UDP, 10 | 11) => int(0),
        (IP, 4) => {
            let options = base.int(IP, 0x1_0004).unwrap_or(0);
            Ok(vec![1; usize::try_from(options).unwrap_or(0)])
        }
        // HDRINCL, NODEFRAG, PROTOCOL of a socket that is not raw.
        (IP, 3 | 22) => int(base.int(IP, name).unwrap_or(0)),
        (IP, 5) => int(0),
        (IP, 52) => int(if base.kind == SockType::Raw { base.protocol } else { 0 }),
        // PKTOPTIONS of a stream.
        (IP, 9) | (V6, 6) if streams(base) => Ok(Vec::new()),
        (IP, 14) | (V6, 24) if standing.connected => int(if at == IP { 65_535 } else { 65_536 }),
        (IP, 14) | (V6, 24 | 61) => Err(Errno::ENOTCONN),
        // ADDRFORM.
        (V6, 1) => {
            if standing.connected {
                int(10)
            } else {
                Err(Errno::ENOTCONN)
            }
        }
        (V6, 22) => int(0),
        (V6, 54 | 55 | 57 | 59) => Ok(Vec::new()),
        (V6, 72) => int(base.int(V6, 72).unwrap_or(0x500)),
        (V6, 7) if base.kind == SockType::Raw => int(base.int(V6, 7).unwrap_or(-1)),
        (IP, IP_MULTICAST_IF) => {
            let addr = base.int(IP, MULTICAST_IF_ADDRESS).unwrap_or(0);
            Ok(addr.to_ne_bytes().to_vec())
        }
        _ => Err(Errno::ENOPROTOOPT),
    }
}

/// setsockopt of these levels; `None` for SOL_SOCKET.
pub(crate) fn set(
    base: &Base,
    at: i32,
    name: i32,
    value: &[u8],
    standing: Standing,
    by: &Caller<'_>,
) -> Option<SysResult<()>> {
    if at == level::SOCKET {
        return None;
    }
    if !level_applies(base, at) {
        return Some(Err(Errno::ENOPROTOOPT));
    }
    if let Some(done) = multicast::set(base, at, name, value) {
        return Some(done);
    }
    Some(set_here(base, at, name, value, standing, by))
}

/// The number that a value holds; `EINVAL` when it is shorter than it must be.
fn number(at: i32, value: &[u8], least: Least) -> SysResult<i32> {
    match (value, least) {
        ([], Least::Nothing) => Ok(0),
        ([], _) => Err(Errno::EINVAL),
        // The IP level takes single bytes as well (ip(7)).
        ([byte, rest @ ..], _) if rest.len() < 3 && at == IP && least != Least::Int => Ok(i32::from(*byte)),
        // Too short an int is none, where none is allowed.
        (short, Least::Nothing) if short.len() < 4 => Ok(0),
        _ => read_int(value),
    }
}

fn set_here(
    base: &Base,
    at: i32,
    name: i32,
    value: &[u8],
    standing: Standing,
    by: &Caller<'_>,
) -> SysResult<()> {
    let admin = || by.cred.has_in(Capabilities::NET_ADMIN, &base.ns.user_ns);
    let raw = || by.cred.has_in(Capabilities::NET_RAW, &base.ns.user_ns);
    if matches!((at, name), (TCP, 31 | TCP_CONGESTION)) {
        return set_named(base, name, value);
    }
    if matches!(at, TCP | UDP | level::UDPLITE) {
        read_int(value)?;
    }
    // Multicast of a stream, and what only streams or raw sockets have.
    match (at, name) {
        (IP, 32 | 33 | 25) if streams(base) => return Err(Errno::EINVAL),
        (V6, 17 | 18) if streams(base) => return Err(Errno::ENOPROTOOPT),
        (IP, 19) | (V6, 75) if !admin() && !raw() && value.iter().any(|b| *b != 0) => {
            return Err(Errno::EPERM);
        }
        (V6, IPV6_V6ONLY) if base.kind == SockType::Raw || standing.bound => return Err(Errno::EINVAL),
        (TCP, 30) if !standing.unconnected() => return Err(Errno::EINVAL),
        _ => {}
    }
    let Some((_, _, default, least, rule)) = INTS.iter().find(|(l, n, ..)| *l == at && *n == name) else {
        return set_special(base, at, name, value, standing);
    };
    let given = number(at, value, *least)?;
    let value = match *rule {
        Rule::Flag => i32::from(given != 0),
        Rule::Any => given,
        Rule::Range(low, high) if (low..=high).contains(&given) => given,
        Rule::OrDefault(..) if given == -1 => *default,
        Rule::OrDefault(low, high) if (low..=high).contains(&given) => given,
        Rule::Range(..) | Rule::OrDefault(..) => return Err(Errno::EINVAL),
        Rule::Tos => given & 0xff,
        Rule::Interface => {
            let index = if (at, name) == (V6, 17) { given } else { i32::from_be(given) };
            let known = base.ns.interfaces().iter().any(|i| i64::from(i.index) == i64::from(index));
            if given != 0 && !known {
                return Err(if (at, name) == (V6, 17) { Errno::ENODEV } else { Errno::EADDRNOTAVAIL });
            }
            given
        }
    };
    let ecn_kept = streams(base) && matches!((at, name), (IP, 1) | (V6, 67));
    base.remember(at, name, i64::from(if ecn_kept { value & !3 } else { value }));
    Ok(())
}

/// Options that are set by a name.
fn set_named(base: &Base, name: i32, value: &[u8]) -> SysResult<()> {
    if value.is_empty() {
        return Err(Errno::EINVAL);
    }
    let end = value.iter().take(15).position(|b| *b == 0).unwrap_or(value.len().min(15));
    let wanted = value.get(..end).unwrap_or_default();
    let at = CONGESTION.iter().position(|known| *known == wanted).filter(|_| name == TCP_CONGESTION);
    let at = at.ok_or(Errno::ENOENT)?;
    base.remember(TCP, name, i64::try_from(at).unwrap_or(0));
    Ok(())
}

fn set_special(base: &Base, at: i32, name: i32, value: &[u8], standing: Standing) -> SysResult<()> {
    let keep = |value: i32| {
        base.remember(at, name, value.into());
        Ok(())
    };
    match (at, name) {
        (TCP, _) => set_tcp(base, name, read_int(value)?, standing),
        (UDP, 100) => match read_int(value)? {
            encapsulation @ (0 | 2) => keep(encapsulation),
            _ => Err(Errno::ENOPROTOOPT),
        },
        (level::UDPLITE, 10 | 11) => keep(read_int(value)?.clamp(0, 0xffff)),
        (IP, 4) => {
            // Options that do nothing (end of list, no operation) are the only ones that are sent.
            if value.len() > 40 || value.iter().any(|byte| *byte > 1) {
                return Err(Errno::EINVAL);
            }
            base.remember(IP, 0x1_0004, i64::try_from(value.len().next_multiple_of(4)).unwrap_or(0));
            Ok(())
        }
        (IP, 3 | 22) if base.kind == SockType::Raw => {
            keep(i32::from(number(at, value, Least::Nothing)? != 0))
        }
        (IP, IP_MULTICAST_IF) => set_multicast_if(base, value),
        (V6, 72) => {
            let asked = read_int(value)?;
            // One of public, temporary, and "temporary if public is not better"; one of home and care-of.
            let set = match asked & 0x7 {
                0 => 0,
                one @ (1 | 2 | 4) => one,
                _ => return Err(Errno::EINVAL),
            };
            if asked & 0x800 != 0 && asked & 0x8 != 0 {
                return Err(Errno::EINVAL);
            }
            let before = base.int(V6, 72).unwrap_or(0x500);
            let temporary = if set == 0 { before & 0x103 } else { set };
            let temporary = if asked & 0x100 != 0 { 0x100 } else { temporary };
            keep(temporary | 0x400)
        }
        (V6, 50) if value.len() >= 20 => Ok(()),
        // Extension headers: only taking them away.
        (V6, 54 | 55 | 57 | 59) if value.is_empty() => Ok(()),
        (V6, 24) => match read_int(value)? {
            0 | 1280.. => Ok(()),
            _ => Err(Errno::EINVAL),
        },
        (V6, 7) if base.kind == SockType::Raw => match read_int(value)? {
            _ if base.protocol == level::ICMPV6 => Err(Errno::EINVAL),
            odd if odd > 0 && odd & 1 != 0 => Err(Errno::EINVAL),
            offset => keep(offset.max(-1)),
        },
        (V6, 1 | 50 | 54 | 55 | 57 | 59) => Err(Errno::EINVAL),
        _ => Err(Errno::ENOPROTOOPT),
    }
}

/// `struct in_addr`, `ip_mreq` or `ip_mreqn`.
fn set_multicast_if(base: &Base, value: &[u8]) -> SysResult<()> {
    let address = |at: usize| value.get(at..).and_then(|b| b.first_chunk::<4>()).copied();
    let (addr, index) = match value.len() {
        12.. => (address(4), address(8).map_or(0, u32::from_ne_bytes)),
        8..12 => (address(4), 0),
        _ => (address(0), 0),
    };
    let addr = addr.ok_or(Errno::EINVAL)?;
    let interfaces = base.ns.interfaces();
    let index = if index != 0 {
        interfaces.iter().find(|i| i.index == index).ok_or(Errno::EADDRNOTAVAIL)?.index
    } else if addr == [0; 4] {
        0
    } else {
        let ip = IpAddr::V4(Ipv4Addr::from(addr));
        let found = interfaces.iter().find(|i| i.addrs.iter().any(|a| a.ip == ip));
        found.ok_or(Errno::EADDRNOTAVAIL)?.index
    };
    base.remember(IP, IP_MULTICAST_IF, index.into());
    base.remember(IP, MULTICAST_IF_ADDRESS, i32::from_ne_bytes(addr).into());
    Ok(())
}

fn set_tcp(base: &Base, name: i32, given: i32, standing: Standing) -> SysResult<()> {
    let value = match name {
        TCP_MAXSEG if given == 0 || (88..=32_767).contains(&given) => given,
        // LINGER2: capped by net.ipv4.tcp_fin_timeout's limit.
        8 => match given {
            ..=-1 => -1,
            0 => 60,
            seconds => seconds.min(120),
        },
        9 => seconds_to_retransmissions(given),
        10 if given == 0 && !standing.unconnected() => return Err(Errno::EINVAL),
        10 => {
            if given == 0 {
                0
            } else {
                given.max(1152)
            }
        }
        // THIN_DUPACK does nothing any more.
        17 if matches!(given, 0 | 1) => return Ok(()),
        // REPAIR and its kin are not for guests.
        19 | 20 | 24 | 29 => return Err(Errno::EPERM),
        TCP_FASTOPEN if given >= 0 && standing.unconnected() => {
            let most = i32::try_from(base.ns.somaxconn.load(Ordering::Relaxed)).unwrap_or(i32::MAX);
            given.min(most)
        }
        11 | 26 | 28 | 35 => return Err(Errno::ENOPROTOOPT),
        TCP_MAXSEG | 17 | 21 | 22 | TCP_FASTOPEN => return Err(Errno::EINVAL),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    base.remember(TCP, name, value.into());
    Ok(())
}

/// TCP_DEFER_ACCEPT counts in retransmissions of SYN-ACK: after 1 s, 2 s more, 4 s more, at most 120 s apart.
fn seconds_to_retransmissions(seconds: i32) -> i32 {
    if seconds <= 0 {
        return 0;
    }
    let (mut count, mut timeout, mut period) = (1, 1, 1);
    while seconds > period && count < 255 {
        count += 1;
        timeout = (timeout * 2).min(120);
        period += timeout;
    }
    count
}

fn retransmissions_to_seconds(count: i32) -> i32 {
    let (mut timeout, mut period) = (1, i32::from(count > 0));
    for _ in 1..count {
        timeout = (timeout * 2).min(120);
        period += timeout;
    }
    period
}

/// States of TCP as TCP_INFO and /proc/net/tcp number them.
pub(crate) mod tcp_state {
    pub(crate) const ESTABLISHED: u8 = 1;
    pub(crate) const SYN_SENT: u8 = 2;
    pub(crate) const FIN_WAIT2: u8 = 5;
    pub(crate) const CLOSE: u8 = 7;
    pub(crate) const CLOSE_WAIT: u8 = 8;
    pub(crate) const LISTEN: u8 = 10;
}

#[cfg(test)]
mod tests {
    use super::{retransmissions_to_seconds, seconds_to_retransmissions};

    #[test]
    fn deferred_accept_in_the_steps_of_retransmissions() {
        let shown = |seconds| retransmissions_to_seconds(seconds_to_retransmissions(seconds));
        assert_eq!([0, 1, 2, 5, 255, 1000].map(shown), [0, 1, 3, 7, 367, 1087]);
    }
}
