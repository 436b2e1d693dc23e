//! Socket options that reach the host's kernel: an allow-list with sizes. The sentry's filter is made of the
//! same list, so an option that is not here cannot be touched even by a sentry that was taken over.
//!
//! Not here: options whose values hold pointers or programs (SO_ATTACH_*, TCP_ZEROCOPY_RECEIVE, *_MSFILTER),
//! that change what a socket is (TCP_ULP, TCP_REPAIR, IPV6_ADDRFORM), keys, netfilter tables, and those that
//! the sentry serves itself (timeouts).

use crate::base::Base;
use crate::types::level;
use abi::Errno;

/// Which calls an option has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Calls {
    /// getsockopt(2).
    Get,
    /// setsockopt(2).
    Set,
    /// Both.
    Both,
}

/// One option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostOption {
    /// Level.
    pub level: i32,
    /// Name.
    pub name: i32,
    /// Calls that are passed on.
    pub calls: Calls,
    /// Least bytes of a value that is set.
    pub least: usize,
    /// Most bytes of a value.
    pub most: usize,
}

const fn int(level: i32, name: i32) -> HostOption {
    HostOption { level, name, calls: Calls::Both, least: 4, most: 4 }
}
/// Options of the IP level take a byte as well (ip(7)).
const fn byte(level: i32, name: i32) -> HostOption {
    HostOption { level, name, calls: Calls::Both, least: 1, most: 4 }
}
const fn get(level: i32, name: i32, most: usize) -> HostOption {
    HostOption { level, name, calls: Calls::Get, least: 0, most }
}
const fn set(level: i32, name: i32, least: usize, most: usize) -> HostOption {
    HostOption { level, name, calls: Calls::Set, least, most }
}
const fn both(level: i32, name: i32, least: usize, most: usize) -> HostOption {
    HostOption { level, name, calls: Calls::Both, least, most }
}

const S: i32 = level::SOCKET;
const IP: i32 = level::IP;
const V6: i32 = level::IPV6;
const TCP: i32 = level::TCP;
const UDP: i32 = level::UDP;
const ICMPV6: i32 = 58;
const RAW: i32 = 255;

/// The list.
pub const OPTIONS: &[HostOption] = &[
    int(S, 1),               // DEBUG
    int(S, 2),               // REUSEADDR
    get(S, 4, 4),            // ERROR
    int(S, 5),               // DONTROUTE
    int(S, 6),               // BROADCAST
    int(S, 7),               // SNDBUF
    int(S, 8),               // RCVBUF
    int(S, 9),               // KEEPALIVE
    int(S, 10),              // OOBINLINE
    int(S, 12),              // PRIORITY
    set(S, 13, 8, 8),        // LINGER
    int(S, 15),              // REUSEPORT
    int(S, 18),              // RCVLOWAT
    both(S, 25, 0, 16),      // BINDTODEVICE
    int(S, 29),              // TIMESTAMP
    get(S, 30, 4),           // ACCEPTCONN
    int(S, 35),              // TIMESTAMPNS
    int(S, 40),              // RXQ_OVFL
    int(S, 45),              // SELECT_ERR_QUEUE
    int(S, 46),              // BUSY_POLL
    int(S, 47),              // MAX_PACING_RATE
    get(S, 49, 4),           // INCOMING_CPU
    get(S, 55, 36),          // MEMINFO
    get(S, 56, 4),           // INCOMING_NAPI_ID
    int(S, 63),              // TIMESTAMP_NEW
    int(S, 64),              // TIMESTAMPNS_NEW
    byte(IP, 1),             // TOS
    byte(IP, 2),             // TTL
    byte(IP, 3),             // HDRINCL
    byte(IP, 6),             // RECVOPTS
    byte(IP, 7),             // RETOPTS
    byte(IP, 8),             // PKTINFO
    byte(IP, 10),            // MTU_DISCOVER
    byte(IP, 11),            // RECVERR
    byte(IP, 12),            // RECVTTL
    byte(IP, 13),            // RECVTOS
    get(IP, 14, 4),          // MTU
    byte(IP, 15),            // FREEBIND
    byte(IP, 20),            // RECVORIGDSTADDR
    byte(IP, 21),            // MINTTL
    byte(IP, 22),            // NODEFRAG
    byte(IP, 24),            // BIND_ADDRESS_NO_PORT
    both(IP, 32, 4, 12),     // MULTICAST_IF
    byte(IP, 33),            // MULTICAST_TTL
    byte(IP, 34),            // MULTICAST_LOOP
    set(IP, 35, 8, 12),      // ADD_MEMBERSHIP
    set(IP, 36, 8, 12),      // DROP_MEMBERSHIP
    set(IP, 37, 12, 12),     // UNBLOCK_SOURCE
    set(IP, 38, 12, 12),     // BLOCK_SOURCE
    set(IP, 39, 12, 12),     // ADD_SOURCE_MEMBERSHIP
    set(IP, 40, 12, 12),     // DROP_SOURCE_MEMBERSHIP
    set(IP, 42, 136, 136),   // MCAST_JOIN_GROUP
    set(IP, 43, 264, 264),   // MCAST_BLOCK_SOURCE
    set(IP, 44, 264, 264),   // MCAST_UNBLOCK_SOURCE
    set(IP, 45, 136, 136),   // MCAST_LEAVE_GROUP
    set(IP, 46, 264, 264),   // MCAST_JOIN_SOURCE_GROUP
    set(IP, 47, 264, 264),   // MCAST_LEAVE_SOURCE_GROUP
    byte(IP, 49),            // MULTICAST_ALL
    both(IP, 50, 4, 4),      // UNICAST_IF
    get(IP, 80, 16),         // SO_ORIGINAL_DST, of connections that the host redirected
    int(V6, 7),              // CHECKSUM
    int(V6, 16),             // UNICAST_HOPS
    int(V6, 17),             // MULTICAST_IF
    int(V6, 18),             // MULTICAST_HOPS
    int(V6, 19),             // MULTICAST_LOOP
    set(V6, 20, 20, 20),     // ADD_MEMBERSHIP
    set(V6, 21, 20, 20),     // DROP_MEMBERSHIP
    int(V6, 23),             // MTU_DISCOVER
    get(V6, 24, 4),          // MTU
    int(V6, 25),             // RECVERR
    int(V6, 26),             // V6ONLY
    int(V6, 29),             // MULTICAST_ALL
    set(V6, 42, 136, 136),   // MCAST_JOIN_GROUP
    set(V6, 43, 264, 264),   // MCAST_BLOCK_SOURCE
    set(V6, 44, 264, 264),   // MCAST_UNBLOCK_SOURCE
    set(V6, 45, 136, 136),   // MCAST_LEAVE_GROUP
    set(V6, 46, 264, 264),   // MCAST_JOIN_SOURCE_GROUP
    set(V6, 47, 264, 264),   // MCAST_LEAVE_SOURCE_GROUP
    int(V6, 49),             // RECVPKTINFO
    both(V6, 50, 20, 20),    // PKTINFO
    int(V6, 51),             // RECVHOPLIMIT
    int(V6, 60),             // RECVPATHMTU
    get(V6, 61, 32),         // PATHMTU
    int(V6, 62),             // DONTFRAG
    int(V6, 66),             // RECVTCLASS
    int(V6, 67),             // TCLASS
    int(V6, 70),             // AUTOFLOWLABEL
    int(V6, 72),             // ADDR_PREFERENCES
    int(V6, 73),             // MINHOPCOUNT
    int(V6, 74),             // RECVORIGDSTADDR
    int(V6, 76),             // UNICAST_IF
    int(V6, 78),             // FREEBIND
    get(V6, 80, 28),         // IP6T_SO_ORIGINAL_DST
    int(TCP, 1),             // NODELAY
    int(TCP, 2),             // MAXSEG
    int(TCP, 3),             // CORK
    int(TCP, 4),             // KEEPIDLE
    int(TCP, 5),             // KEEPINTVL
    int(TCP, 6),             // KEEPCNT
    int(TCP, 7),             // SYNCNT
    int(TCP, 8),             // LINGER2
    int(TCP, 9),             // DEFER_ACCEPT
    int(TCP, 10),            // WINDOW_CLAMP
    get(TCP, 11, 256),       // INFO
    int(TCP, 12),            // QUICKACK
    both(TCP, 13, 0, 16),    // CONGESTION
    int(TCP, 16),            // THIN_LINEAR_TIMEOUTS
    int(TCP, 17),            // THIN_DUPACK
    int(TCP, 18),            // USER_TIMEOUT
    int(TCP, 23),            // FASTOPEN
    int(TCP, 24),            // TIMESTAMP
    int(TCP, 25),            // NOTSENT_LOWAT
    get(TCP, 26, 64),        // CC_INFO
    int(TCP, 27),            // SAVE_SYN
    get(TCP, 28, 128),       // SAVED_SYN
    int(TCP, 30),            // FASTOPEN_CONNECT
    int(TCP, 34),            // FASTOPEN_NO_COOKIE
    int(TCP, 36),            // INQ
    int(TCP, 37),            // TX_DELAY
    int(UDP, 1),             // CORK
    int(UDP, 101),           // NO_CHECK6_TX
    int(UDP, 102),           // NO_CHECK6_RX
    int(UDP, 103),           // SEGMENT
    int(UDP, 104),           // GRO
    both(ICMPV6, 1, 32, 32), // ICMPV6_FILTER
    both(RAW, 1, 4, 4),      // ICMP_FILTER
];

/// The entry of an option.
#[must_use]
pub fn find(level: i32, name: i32) -> Option<&'static HostOption> {
    OPTIONS.iter().find(|option| option.level == level && option.name == name)
}

/// What getsockopt(2) of an option that is not here says.
#[must_use]
pub fn missing(base: &Base, at: i32) -> Errno {
    if known_level(at) { Errno::ENOPROTOOPT } else { crate::socket::unknown_level(base) }
}

fn known_level(at: i32) -> bool {
    matches!(at, IP | V6 | TCP | UDP | ICMPV6 | RAW)
}

/// Options that make messages carry control data, which a plain read would not ask for.
#[must_use]
pub fn brings_control(level: i32, name: i32) -> bool {
    matches!((level, name), (S, 29 | 35 | 40 | 63 | 64) | (TCP, 36))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_once_and_nothing_that_holds_pointers() {
        for (at, option) in OPTIONS.iter().enumerate() {
            assert!(option.least <= option.most && option.most > 0, "{option:?}");
            assert!(!OPTIONS[at + 1..].iter().any(|o| (o.level, o.name) == (option.level, option.name)));
        }
        for (level, name) in
            [(S, 26), (S, 50), (S, 51), (S, 20), (TCP, 31), (TCP, 19), (TCP, 35), (IP, 64), (IP, 41)]
        {
            assert_eq!(find(level, name), None);
        }
    }
}
