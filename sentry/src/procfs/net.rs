//! /proc/net (proc_pid_net(5)): tables of the network namespace of a process.

mod links;

use super::subject::Subject;
use super::text::put;
use ::net::table::{self, Datagrams, Family};
use ::net::{Interface, NetNs, Route};
use abi::fs::FileType;
use abi::{Errno, SysResult};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use vfs::Caller;
use vfs::synthetic::{Directory, Listed, Node};

type Table = fn(&Subject, &Caller<'_>) -> SysResult<Vec<u8>>;

const TCP: &str =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";
const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops";

const NETLINK: &str =
    "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode   ";
const PACKET: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode";
const WIRELESS: &str = "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n \
    face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n";

fn datagrams(subject: &Subject, of: Datagrams, family: Family, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let (header, width) = if family == Family::V4 { (UDP, 127) } else { (UDP6, 0) };
    rows(header, width, table::datagrams(&*ns(subject)?, of, family, &by.cred.user_ns))
}

fn line(text: &str, width: usize) -> Vec<u8> {
    format!("{text:<width$}\n").into_bytes()
}

/// The network namespace of the process that is shown.
fn ns(subject: &Subject) -> SysResult<Arc<NetNs>> {
    Ok(Arc::clone(&subject.published()?.ns.net))
}

fn rows(header: &str, width: usize, rows: Vec<String>) -> SysResult<Vec<u8>> {
    let mut out = line(header, width);
    for row in rows {
        out.extend(line(&row, width));
    }
    Ok(out)
}

fn unix(ns: &NetNs) -> Vec<u8> {
    let mut out = b"Num       RefCount Protocol Flags    Type St Inode Path\n".to_vec();
    for row in table::unix(ns) {
        out.extend(row);
        out.push(b'\n');
    }
    out
}

/// In the order of names.
static TABLES: [(&str, Table); 36] = [
    ("anycast6", |_, _| Ok(Vec::new())),
    ("arp", |subject, _| Ok(links::arp(&interfaces(subject)?, &ns(subject)?.neighbours()))),
    ("dev", |subject, _| Ok(dev(&interfaces(subject)?))),
    ("dev_mcast", |subject, _| Ok(links::dev_mcast(&interfaces(subject)?))),
    ("fib_trie", |subject, _| Ok(links::fib_trie(&interfaces(subject)?, &ns(subject)?.routes()))),
    ("fib_triestat", |_, _| Ok(Vec::new())),
    ("icmp", |s, by| datagrams(s, Datagrams::Ping, Family::V4, by)),
    ("icmp6", |s, by| datagrams(s, Datagrams::Ping, Family::V6, by)),
    ("if_inet6", |subject, _| Ok(if_inet6(&interfaces(subject)?))),
    ("igmp", |s, _| Ok(links::igmp(&interfaces(s)?, &table::groups(&*ns(s)?)))),
    ("igmp6", |s, _| Ok(links::igmp6(&interfaces(s)?, &table::groups(&*ns(s)?)))),
    ("ipv6_route", |s, _| Ok(links::ipv6_route(&interfaces(s)?, &ns(s)?.routes()))),
    ("mcfilter", |_, _| Ok(b"Idx Device        MCA        SRC    INC    EXC\n".to_vec())),
    ("mcfilter6", |_, _| {
        Ok(b"Idx Device                Multicast Address                   Source Address    INC    EXC\n"
            .to_vec())
    }),
    ("netlink", |s, _| rows(NETLINK, 0, table::netlink(&*ns(s)?))),
    ("netstat", |_, _| Ok(netstat())),
    ("packet", |s, by| rows(PACKET, 0, table::packet(&*ns(s)?, &by.cred.user_ns))),
    ("protocols", |_, _| Ok(protocols())),
    ("psched", |_, _| Ok(b"000003e8 00000040 000f4240 3b9aca00\n".to_vec())),
    ("ptype", |_, _| {
        Ok(b"Type Device      Function\n0800          ip_rcv\n0806          arp_rcv\n86dd          ipv6_rcv\n".to_vec())
    }),
    ("raw", |s, by| datagrams(s, Datagrams::Raw, Family::V4, by)),
    ("raw6", |s, by| datagrams(s, Datagrams::Raw, Family::V6, by)),
    ("route", |subject, _| Ok(route(&interfaces(subject)?, &ns(subject)?.routes()))),
    ("rt6_stats", |_, _| Ok(b"0000 0000 0000 0000 0000 0000 0000\n".to_vec())),
    ("snmp", |_, _| Ok(snmp())),
    ("snmp6", |_, _| Ok(Vec::new())),
    ("sockstat", |s, _| Ok(sockstat(table::counts(&*ns(s)?, Family::V4)))),
    ("sockstat6", |s, _| Ok(sockstat6(table::counts(&*ns(s)?, Family::V6)))),
    ("tcp", |s, by| rows(TCP, 149, table::tcp(&*ns(s)?, Family::V4, &by.cred.user_ns))),
    ("tcp6", |s, by| rows(TCP6, 0, table::tcp(&*ns(s)?, Family::V6, &by.cred.user_ns))),
    ("udp", |s, by| datagrams(s, Datagrams::Udp, Family::V4, by)),
    ("udp6", |s, by| datagrams(s, Datagrams::Udp, Family::V6, by)),
    ("udplite", |s, by| datagrams(s, Datagrams::UdpLite, Family::V4, by)),
    ("udplite6", |s, by| datagrams(s, Datagrams::UdpLite, Family::V6, by)),
    ("unix", |s, _| Ok(unix(&*ns(s)?))),
    ("wireless", |_, _| Ok(WIRELESS.as_bytes().to_vec())),
];

struct Tables(Subject);

/// Tables of sockets: this sandbox' own, as its kernel numbers them, and those that others have in the namespace.
const OF_SOCKETS: [&str; 4] = ["tcp", "tcp6", "udp", "udp6"];

/// `own` and the rows of the host's table whose addresses are not among them: a socket of ours is in both.
fn with_others(mut own: Vec<u8>, host: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(&own).into_owned();
    let ends = |row: &str| {
        let mut words = row.split_ascii_whitespace().skip(1);
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    let known: Vec<_> = text.lines().skip(1).filter_map(ends).collect();
    for row in String::from_utf8_lossy(host).lines().skip(1) {
        if ends(row).is_some_and(|ends| !known.contains(&ends)) {
            own.extend_from_slice(row.as_bytes());
            own.push(b'\n');
        }
    }
    own
}

impl Directory for Tables {
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Node> {
        let (known, table) =
            TABLES.iter().find(|(known, _)| known.as_bytes() == name).ok_or(Errno::ENOENT)?;
        let (subject, name, table) = (self.0.clone(), *known, *table);
        Ok(Node::text(0o444, move |by| match ns(&subject)?.host().map(|host| host.text(name)) {
            Some(Ok(text)) if OF_SOCKETS.contains(&name) => Ok(with_others(table(&subject, by)?, &text)),
            Some(Ok(text)) => Ok(text),
            _ => table(&subject, by),
        }))
    }
    fn list(&self, from: u64, _by: &Caller<'_>) -> SysResult<Vec<Listed>> {
        let names = (0_u64..).zip(&TABLES).filter(|(key, _)| *key >= from);
        let listed = names.map(|(key, (name, _))| Listed {
            name: name.as_bytes().to_vec(),
            kind: FileType::Regular,
            key,
        });
        Ok(listed.collect())
    }
}

/// /proc/pid/net.
pub(super) fn directory_of(subject: &Subject) -> Node {
    Node::changing_dir(0o555, Arc::new(Tables(subject.clone())))
}

fn interfaces(subject: &Subject) -> SysResult<Vec<Interface>> {
    Ok(subject.published()?.ns.net.interfaces())
}

fn dev(interfaces: &[Interface]) -> Vec<u8> {
    let mut out = String::from(
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    for interface in interfaces {
        let none = 0;
        put!(
            out,
            "{:>6}: {none:7} {none:7} {none:4} {none:4} {none:4} {none:5} {none:10} {none:9} \
             {none:8} {none:7} {none:4} {none:4} {none:4} {none:5} {none:7} {none:10}\n",
            interface.name
        );
    }
    out.into_bytes()
}

fn if_inet6(interfaces: &[Interface]) -> Vec<u8> {
    let mut out = String::new();
    for interface in interfaces {
        for addr in &interface.addrs {
            let IpAddr::V6(ip) = addr.ip else { continue };
            // Scopes: host, link, global; IFA_F_PERMANENT.
            let scope = if ip.is_loopback() {
                0x10
            } else if ip.is_unicast_link_local() {
                0x20
            } else {
                0
            };
            let name = &interface.name;
            put!(
                out,
                "{:032x} {:02x} {:02x} {scope:02x} 80 {name:>8}\n",
                ip.to_bits(),
                interface.index,
                addr.prefix
            );
        }
    }
    out.into_bytes()
}

/// Addresses are shown as the machine's word of the bytes on the wire.
fn word(ip: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(ip.octets())
}

fn route(interfaces: &[Interface], added: &[Route]) -> Vec<u8> {
    let mut out =
        line("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT", 127);
    let mut row = |name: &str, target: Ipv4Addr, prefix: u8, gateway: Option<Ipv4Addr>, metric: u32| {
        let mask = u32::MAX.checked_shl(u32::from(32_u8.saturating_sub(prefix))).unwrap_or(0);
        let (net, mask) = (Ipv4Addr::from_bits(target.to_bits() & mask), Ipv4Addr::from_bits(mask));
        // RTF_UP, RTF_GATEWAY.
        let flags = if gateway.is_some() { 3 } else { 1 };
        let text = format!(
            "{name}\t{:08X}\t{:08X}\t{flags:04X}\t0\t0\t{metric}\t{:08X}\t0\t0\t0",
            word(net),
            gateway.map_or(0, word),
            word(mask)
        );
        out.extend(line(&text, 127));
    };
    let v4 = |ip: Option<IpAddr>| match ip {
        Some(IpAddr::V4(ip)) => Some(ip),
        _ => None,
    };
    for route in added.iter().filter(|route| route.family == 2 && route.table == 254) {
        let name = interfaces.iter().find(|i| i.index == route.index).map_or("*", |i| i.name.as_str());
        let target = v4(route.target).unwrap_or(Ipv4Addr::UNSPECIFIED);
        row(name, target, route.prefix, v4(route.gateway), route.metric);
    }
    for interface in interfaces.iter().filter(|interface| !interface.is_loopback() && interface.is_up()) {
        for addr in &interface.addrs {
            if let Some(ip) = v4(Some(addr.ip)) {
                row(&interface.name, ip, addr.prefix, None, 0);
            }
        }
    }
    out
}

const SNMP: [(&str, &str, &str); 6] = [
    (
        "Ip",
        "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates OutTransmits",
        "2 64",
    ),
    (
        "Icmp",
        "InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps",
        "",
    ),
    ("IcmpMsg", "", ""),
    (
        "Tcp",
        "RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors",
        "1 200 120000 -1",
    ),
    (
        "Udp",
        "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors",
        "",
    ),
    (
        "UdpLite",
        "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors",
        "",
    ),
];

fn counters(out: &mut String, name: &str, fields: &str, first: &str) {
    put!(*out, "{name}: {fields}\n{name}:");
    let known: Vec<&str> = first.split_ascii_whitespace().collect();
    for at in 0..fields.split_ascii_whitespace().count() {
        put!(*out, " {}", known.get(at).copied().unwrap_or("0"));
    }
    out.push('\n');
}

fn snmp() -> Vec<u8> {
    let mut out = String::new();
    for (name, fields, first) in SNMP {
        if !fields.is_empty() {
            counters(&mut out, name, fields, first);
        }
    }
    out.into_bytes()
}

fn netstat() -> Vec<u8> {
    let mut out = String::new();
    counters(
        &mut out,
        "TcpExt",
        "SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled RcvPruned OfoPruned OutOfWindowIcmps LockDroppedIcmps ArpFilter TW TWRecycled TWKilled PAWSActive PAWSEstab DelayedACKs DelayedACKLocked DelayedACKLost ListenOverflows ListenDrops",
        "",
    );
    counters(
        &mut out,
        "IpExt",
        "InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts InOctets OutOctets InMcastOctets OutMcastOctets InBcastOctets OutBcastOctets InCsumErrors InNoECTPkts InECT1Pkts InECT0Pkts InCEPkts ReasmOverlaps",
        "",
    );
    out.into_bytes()
}

fn sockstat(counts: table::Counts) -> Vec<u8> {
    let table::Counts { all, tcp, udp, udplite, raw } = counts;
    format!(
        "sockets: used {all}\nTCP: inuse {tcp} orphan 0 tw 0 alloc {tcp} mem 0\nUDP: inuse {udp} mem 0\n\
         UDPLITE: inuse {udplite}\nRAW: inuse {raw}\nFRAG: inuse 0 memory 0\n"
    )
    .into_bytes()
}

fn sockstat6(counts: table::Counts) -> Vec<u8> {
    let table::Counts { tcp, udp, udplite, raw, .. } = counts;
    format!(
        "TCP6: inuse {tcp}\nUDP6: inuse {udp}\nUDPLITE6: inuse {udplite}\nRAW6: inuse {raw}\n\
         FRAG6: inuse 0 memory 0\n"
    )
    .into_bytes()
}

fn protocols() -> Vec<u8> {
    let mut out = String::from(
        "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re sp bi br ha uh gp em\n",
    );
    for (name, size) in
        [("UNIX", 1024), ("UDP", 1152), ("TCP", 2240), ("UDPv6", 1344), ("TCPv6", 2432), ("NETLINK", 1088)]
    {
        put!(
            out,
            "{name:<9} {size:4} {:6}  {:6}   {:<3} {:6}   {:<4}  {:<10}  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n  n\n",
            0,
            -1,
            "NI",
            0,
            "yes",
            "kernel"
        );
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_is_in_both_tables_shows_once() {
        let own = b"  sl  local\n   0: 0100007F:1F90 00000000:0000 0A 7\n".to_vec();
        let host = b"  sl  local\n   0: 0100007F:1F90 00000000:0000 0A 99\n   1: 00000000:0016 00000000:0000 0A 98\n";
        let told = String::from_utf8(with_others(own, host)).unwrap();
        assert!(told.contains(" 7\n") && told.contains(":0016") && !told.contains(" 99\n"), "{told}");
    }

    #[test]
    fn headers_as_linux_writes_them() {
        // TMPSZ of the kernel's tables: every line of tcp has 150 bytes, of udp and route 128.
        assert_eq!(line(TCP, 149).len(), 150);
        assert_eq!(line(UDP, 127).len(), 128);
        let dev = String::from_utf8(dev(&[Interface::loopback()])).unwrap();
        assert!(dev.ends_with(
            "    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n"
        ));
        assert_eq!(
            if_inet6(&[Interface::loopback()]),
            b"00000000000000000000000000000001 01 80 10 80       lo\n"
        );
        let snmp = String::from_utf8(snmp()).unwrap();
        assert!(snmp.contains("Tcp: 1 200 120000 -1 0"));
        let names: Vec<&str> = TABLES.iter().map(|(name, _)| *name).collect();
        assert!(names.is_sorted());
    }
}
