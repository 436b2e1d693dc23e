//! Options of the IP, IPv6, TCP and UDP levels (ip(7), ipv6(7), tcp(7), udp(7)): values with limits that
//! are remembered, with the defaults of Linux.

use super::is_v6;
use crate::base::{Base, read_int};
use crate::types::{SockType, level};
use abi::{Errno, SysResult};
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

// level, name, default, least, most
const INTS: &[(i32, i32, i32, i32, i32)] = &[
    (level::IP, 1, 0, 0, 255),   // TOS
    (level::IP, 2, 64, -1, 255), // TTL
    (level::IP, 6, 0, 0, 1),     // RECVOPTS
    (level::IP, 7, 0, 0, 1),     // RETOPTS
    (level::IP, IP_PKTINFO, 0, 0, 1),
    (level::IP, 10, 1, 0, 5), // MTU_DISCOVER
    (level::IP, 11, 0, 0, 1), // RECVERR
    (level::IP, IP_RECVTTL, 0, 0, 1),
    (level::IP, 13, 0, 0, 1), // RECVTOS
    (level::IP, IP_FREEBIND, 0, 0, 1),
    (level::IP, 18, 0, 0, 1), // PASSSEC
    (level::IP, 19, 0, 0, 1), // TRANSPARENT
    (level::IP, IP_RECVORIGDSTADDR, 0, 0, 1),
    (level::IP, 21, 0, 0, 255),             // MINTTL
    (level::IP, 22, 0, 0, 1),               // NODEFRAG
    (level::IP, 24, 0, 0, 1),               // BIND_ADDRESS_NO_PORT
    (level::IP, 33, 1, -1, 255),            // MULTICAST_TTL
    (level::IP, 34, 1, 0, 1),               // MULTICAST_LOOP
    (level::IP, 49, 1, 0, 1),               // MULTICAST_ALL
    (level::IP, 50, 0, i32::MIN, i32::MAX), // UNICAST_IF
    (level::IPV6, IPV6_V6ONLY, 0, 0, 1),
    (level::IPV6, 16, 64, -1, 255),    // UNICAST_HOPS
    (level::IPV6, 17, 0, 0, i32::MAX), // MULTICAST_IF
    (level::IPV6, 18, 1, -1, 255),     // MULTICAST_HOPS
    (level::IPV6, 19, 1, 0, 1),        // MULTICAST_LOOP
    (level::IPV6, 23, 1, 0, 5),        // MTU_DISCOVER
    (level::IPV6, 25, 0, 0, 1),        // RECVERR
    (level::IPV6, 29, 1, 0, 1),        // MULTICAST_ALL
    (level::IPV6, IPV6_RECVPKTINFO, 0, 0, 1),
    (level::IPV6, IPV6_RECVHOPLIMIT, 0, 0, 1),
    (level::IPV6, 60, 0, 0, 1),               // RECVPATHMTU
    (level::IPV6, 62, 0, 0, 1),               // DONTFRAG
    (level::IPV6, 66, 0, 0, 1),               // RECVTCLASS
    (level::IPV6, 67, 0, -1, 255),            // TCLASS
    (level::IPV6, 70, 1, 0, 1),               // AUTOFLOWLABEL
    (level::IPV6, 72, 2, 0, 0xffff),          // ADDR_PREFERENCES
    (level::IPV6, 74, 0, 0, 1),               // RECVORIGDSTADDR
    (level::IPV6, 76, 0, i32::MIN, i32::MAX), // UNICAST_IF
    (level::IPV6, 78, 0, 0, 1),               // FREEBIND
    (level::TCP, 1, 0, 0, 1),                 // NODELAY
    (level::TCP, 2, 65483, 88, 32767),        // MAXSEG
    (level::TCP, 3, 0, 0, 1),                 // CORK
    (level::TCP, 4, 7200, 1, 32767),          // KEEPIDLE
    (level::TCP, 5, 75, 1, 32767),            // KEEPINTVL
    (level::TCP, 6, 9, 1, 127),               // KEEPCNT
    (level::TCP, 7, 6, 1, 127),               // SYNCNT
    (level::TCP, 8, 60, -1, 86400),           // LINGER2
    (level::TCP, 9, 0, 0, i32::MAX),          // DEFER_ACCEPT
    (level::TCP, 10, 0, 0, i32::MAX),         // WINDOW_CLAMP
    (level::TCP, 12, 1, 0, 1),                // QUICKACK
    (level::TCP, 16, 0, 0, 1),                // THIN_LINEAR_TIMEOUTS
    (level::TCP, 17, 0, 0, 1),                // THIN_DUPACK
    (level::TCP, 18, 0, 0, i32::MAX),         // USER_TIMEOUT
    (level::TCP, 23, 0, 0, i32::MAX),         // FASTOPEN
    (level::TCP, 24, 0, 0, i32::MAX),         // TIMESTAMP
    (level::TCP, 25, -1, i32::MIN, i32::MAX), // NOTSENT_LOWAT
    (level::TCP, 27, 0, 0, 2),                // SAVE_SYN
    (level::TCP, 30, 0, 0, 1),                // FASTOPEN_CONNECT
    (level::TCP, 34, 0, 0, 1),                // FASTOPEN_NO_COOKIE
    (level::TCP, 36, 0, 0, 1),                // INQ
    (level::UDP, 1, 0, 0, 1),                 // CORK
    (level::UDP, 101, 0, 0, 1),               // NO_CHECK6_TX
    (level::UDP, 102, 0, 0, 1),               // NO_CHECK6_RX
    (level::UDP, 103, 0, 0, 65535),           // SEGMENT
    (level::UDP, 104, 0, 0, 1),               // GRO
];

const TCP_INFO: i32 = 11;
const TCP_CONGESTION: i32 = 13;

fn level_applies(base: &Base, at: i32) -> bool {
    match at {
        level::IP => true,
        level::IPV6 => is_v6(base),
        level::TCP => base.kind == SockType::Stream,
        level::UDP => base.kind == SockType::Dgram,
        _ => false,
    }
}

/// getsockopt of these levels; `None` for others.
pub(crate) fn get(base: &Base, at: i32, name: i32, tcp_state: u8) -> Option<SysResult<Vec<u8>>> {
    if at == level::SOCKET {
        // Stream sockets tune themselves until they are told.
        let default: i32 = match (base.kind, name, base.with(|o| (o.sndbuf, o.rcvbuf))) {
            (SockType::Stream, 7, (None, _)) => 2_626_560,
            (SockType::Stream, 8, (_, None)) => 131_072,
            (SockType::Stream, 30, _) => i32::from(tcp_state == tcp_state::LISTEN),
            _ => return None,
        };
        return Some(Ok(default.to_ne_bytes().to_vec()));
    }
    if !level_applies(base, at) {
        return matches!(at, level::IPV6 | level::TCP | level::UDP).then_some(Err(Errno::EOPNOTSUPP));
    }
    if let Some((_, _, default, _, _)) = INTS.iter().find(|(l, n, ..)| *l == at && *n == name) {
        let mut value = base.int(at, name).unwrap_or(*default);
        if value < 0 && matches!((at, name), (level::IP, 2) | (level::IPV6, 16)) {
            value = *default;
        }
        return Some(Ok(value.to_ne_bytes().to_vec()));
    }
    Some(match (at, name) {
        (level::TCP, TCP_INFO) => Ok(tcp_info(tcp_state)),
        (level::TCP, TCP_CONGESTION) => {
            let mut name = b"cubic".to_vec();
            name.resize(16, 0);
            Ok(name)
        }
        (level::IP, 4) => Ok(Vec::new()),
        (level::IP, 14) | (level::IPV6, 24) => Ok(65535i32.to_ne_bytes().to_vec()),
        (level::IP, 32) => Ok(vec![0; 4]),
        // Netfilter tables: there are none.
        (level::IP, 64..=83) | (level::IPV6, 64 | 65 | 68 | 69) => Err(Errno::ENOPROTOOPT),
        _ => Err(Errno::ENOPROTOOPT),
    })
}

/// setsockopt of these levels; `None` for others.
pub(crate) fn set(
    base: &Base,
    at: i32,
    name: i32,
    value: &[u8],
    bound: bool,
    by: &Caller<'_>,
) -> Option<SysResult<()>> {
    if at == level::SOCKET {
        return None;
    }
    if !level_applies(base, at) {
        return matches!(at, level::IPV6 | level::TCP | level::UDP).then_some(Err(Errno::ENOPROTOOPT));
    }
    Some(set_here(base, at, name, value, bound, by))
}

fn set_here(base: &Base, at: i32, name: i32, value: &[u8], bound: bool, by: &Caller<'_>) -> SysResult<()> {
    if let Some((_, _, _, least, most)) = INTS.iter().find(|(l, n, ..)| *l == at && *n == name) {
        // The IP level takes single bytes as well (ip(7)).
        let mut int = match value {
            [byte, rest @ ..] if at == level::IP && rest.len() < 3 => i32::from(*byte),
            _ => read_int(value)?,
        };
        if (*least, *most) == (0, 1) {
            int = i32::from(int != 0);
        }
        if !(*least..=*most).contains(&int) {
            return Err(Errno::EINVAL);
        }
        if (at, name) == (level::IPV6, IPV6_V6ONLY) && bound {
            return Err(Errno::EINVAL);
        }
        if (at, name) == (level::IP, 19) && !by.cred.has(Capabilities::NET_ADMIN) {
            return Err(Errno::EPERM);
        }
        base.change(|o| {
            o.ints.insert((at, name), int);
        });
        return Ok(());
    }
    match (at, name) {
        (level::TCP, TCP_CONGESTION) => {
            let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
            match value.get(..end) {
                Some(b"cubic" | b"reno") => Ok(()),
                _ => Err(Errno::ENOENT),
            }
        }
        (level::TCP, 31) => Err(Errno::ENOENT),
        // Joining a group needs an interface that carries multicast; lo does not.
        (level::IP, 32) => Ok(()),
        (level::IP, 35 | 39 | 42 | 46) | (level::IPV6, 20 | 27 | 42 | 46) => Err(Errno::ENODEV),
        (level::IP, 36 | 40 | 45 | 47) | (level::IPV6, 21 | 28 | 45 | 47) => Err(Errno::EADDRNOTAVAIL),
        _ => Err(Errno::ENOPROTOOPT),
    }
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

/// `struct tcp_info` of a connection that never loses a segment.
fn tcp_info(state: u8) -> Vec<u8> {
    let mut info = vec![0; 232];
    let mut put = |at: usize, value: u32| {
        if let Some(slot) = info.get_mut(at..at + 4) {
            slot.copy_from_slice(&value.to_ne_bytes());
        }
    };
    put(8, 204_000); // rto
    put(12, 40_000); // ato
    put(16, 65_483); // snd_mss
    put(20, 65_483); // rcv_mss
    put(60, 65_535); // pmtu
    put(68, 20); // rtt
    put(72, 10); // rttvar
    put(76, 0x7fff_ffff); // snd_ssthresh
    put(80, 10); // snd_cwnd
    put(84, 65_483); // advmss
    put(88, 3); // reordering
    info[0] = state;
    info[5] = 7; // timestamps, sack, window scaling
    info[6] = 0x77;
    info
}
