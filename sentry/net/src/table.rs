//! The sockets of a namespace as /proc/net shows them (proc_pid_net(5)): rows without their headers.

use crate::addr::{InetAddr, UnixAddr};
use crate::host::HostSocket;
use crate::inet::raw::{Form, RawSocket};
use crate::inet::tcp::TcpSocket;
use crate::inet::udp::UdpSocket;
use crate::netlink::NetlinkSocket;
use crate::netns::NetNs;
use crate::packet::PacketSocket;
use crate::socket::SocketFile;
use crate::types::{AF_INET6, SockType};
use crate::unix::UnixSocket;
use std::net::IpAddr;
use std::sync::Arc;
use vfs::UserNamespace;

/// IPv4 or IPv6 sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// `tcp`, `udp`.
    V4,
    /// `tcp6`, `udp6`.
    V6,
}

fn hex(addr: Option<InetAddr>, family: Family) -> String {
    let addr = addr.unwrap_or(InetAddr::any(family == Family::V6)).shown(family == Family::V6);
    // Each 32-bit word of the address in the byte order of the processor.
    let words = |octets: &[u8]| -> String {
        octets
            .chunks_exact(4)
            .map(|w| format!("{:08X}", w.first_chunk::<4>().map_or(0, |w| u32::from_ne_bytes(*w))))
            .collect()
    };
    let text = match addr.ip {
        IpAddr::V4(ip) => words(&ip.octets()),
        IpAddr::V6(ip) => words(&ip.octets()),
    };
    format!("{text}:{:04X}", addr.port)
}

fn of_family(file: &SocketFile, family: Family) -> bool {
    (file.socket().base().domain == AF_INET6) == (family == Family::V6)
}

/// Local and peer address and state of an inet socket of that type; `None` for others.
pub(crate) fn row(file: &SocketFile, kind: SockType) -> Option<(Option<InetAddr>, Option<InetAddr>, u8)> {
    let base = file.socket().base();
    let any = file.socket().as_any();
    if kind == SockType::Raw {
        let (form, local, peer, number) = any.downcast_ref::<RawSocket>()?.row();
        let local = local.unwrap_or_else(|| InetAddr::any(base.domain == AF_INET6));
        let shown = Some(InetAddr { port: number, ..local });
        return (form == Form::Raw).then_some((shown, peer, if peer.is_some() { 1 } else { 7 }));
    }
    if base.kind != kind || !matches!(base.protocol, 6 | 17 | 136) {
        return None;
    }
    let tcp = any.downcast_ref::<TcpSocket>().map(TcpSocket::row);
    let udp = || any.downcast_ref::<UdpSocket>().map(UdpSocket::row);
    let host = || any.downcast_ref::<HostSocket>().map(HostSocket::row);
    tcp.or_else(udp).or_else(host)
}

/// Rows of `tcp` or `tcp6`; `viewer` is who reads.
#[must_use]
pub fn tcp(ns: &NetNs, family: Family, viewer: &UserNamespace) -> Vec<String> {
    let mut rows = Vec::new();
    for file in ns.socket_files().iter().filter(|f| of_family(f, family)) {
        let Some((local, peer, state)) = row(file, SockType::Stream) else { continue };
        if local.is_none() {
            continue;
        }
        let depth = file.socket().as_any().downcast_ref::<TcpSocket>().and_then(TcpSocket::depth);
        let rx = depth.map_or_else(|| file.socket().readable_bytes().unwrap_or(0), |(waiting, _)| waiting);
        rows.push(format!(
            "{:4}: {} {} {state:02X} {:08X}:{rx:08X} 00:00000000 00000000 {:5} {:8} {} 1 0000000000000000 100 0 0 10 0",
            rows.len(),
            hex(local, family),
            hex(peer, family),
            0,
            viewer.show_uid(file.attributes().uid),
            0,
            file.attributes().ino
        ));
    }
    rows
}

/// Which datagram sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Datagrams {
    /// `udp`.
    Udp,
    /// `udplite`.
    UdpLite,
    /// `raw`.
    Raw,
    /// `icmp`: ping sockets.
    Ping,
}

/// Rows of `udp`, `udplite`, `raw`, `icmp` and their kin of IPv6.
#[must_use]
pub fn datagrams(ns: &NetNs, of: Datagrams, family: Family, viewer: &UserNamespace) -> Vec<String> {
    let mut rows = Vec::new();
    for file in ns.socket_files().iter().filter(|f| of_family(f, family)) {
        let any = file.socket().as_any();
        let found = match of {
            Datagrams::Raw => row(file, SockType::Raw),
            Datagrams::Ping => any.downcast_ref::<RawSocket>().and_then(|raw| {
                let (form, local, peer, ident) = raw.row();
                let local =
                    Some(InetAddr { port: ident, ..local.unwrap_or(InetAddr::any(family == Family::V6)) });
                (form == Form::Ping && ident != 0).then_some((local, peer, 7))
            }),
            Datagrams::Udp | Datagrams::UdpLite => {
                let lite = file.socket().base().protocol == 136;
                row(file, SockType::Dgram).filter(|_| lite == (of == Datagrams::UdpLite))
            }
        };
        let Some((local, peer, state)) = found else { continue };
        if local.is_none() {
            continue;
        }
        let (held, drops) = any.downcast_ref::<UdpSocket>().map_or((0, 0), UdpSocket::queue);
        let rx = if held > 0 { held } else { file.socket().readable_bytes().unwrap_or(0) };
        rows.push(format!(
            "{:5}: {} {} {state:02X} {:08X}:{rx:08X} 00:00000000 00000000 {:5} {:8} {} 2 0000000000000000 {drops}",
            rows.len(),
            hex(local, family),
            hex(peer, family),
            0,
            viewer.show_uid(file.attributes().uid),
            0,
            file.attributes().ino
        ));
    }
    rows
}

/// Rows of `unix`.
#[must_use]
pub fn unix(ns: &NetNs) -> Vec<Vec<u8>> {
    let mut rows = Vec::new();
    for file in &ns.socket_files() {
        let Some(socket) = file.socket().as_any().downcast_ref::<UnixSocket>() else { continue };
        let shown = socket.row();
        let flags = if shown.listening { 0x1_0000 } else { 0 };
        let state = if shown.connected { 3 } else { 1 };
        let mut row = format!(
            "0000000000000000: {:08X} {:08X} {flags:08X} {:04X} {state:02X} {:5}",
            2,
            0,
            shown.kind.raw(),
            file.attributes().ino
        )
        .into_bytes();
        match shown.local {
            Some(UnixAddr::Path { path, .. }) => {
                row.push(b' ');
                row.extend(path);
            }
            Some(UnixAddr::Abstract(name)) => {
                row.extend(b" @");
                row.extend(name.iter().map(|b| if *b == 0 { b'@' } else { *b }));
            }
            _ => {}
        }
        rows.push(row);
    }
    rows
}

/// Rows of `netlink`.
#[must_use]
pub fn netlink(ns: &NetNs) -> Vec<String> {
    let mut rows = Vec::new();
    for file in &ns.socket_files() {
        let Some(socket) = file.socket().as_any().downcast_ref::<NetlinkSocket>() else { continue };
        let (protocol, pid, groups, held) = socket.row();
        let ino = file.attributes().ino;
        rows.push(format!(
            "0000000000000000 {protocol:<3} {pid:<10} {groups:08x} {held:<8} {:<8} {:<5} {:<8} {:<8} {ino:<8}",
            0, 0, 2, 0
        ));
    }
    rows
}

/// Rows of `packet`.
#[must_use]
pub fn packet(ns: &NetNs, viewer: &UserNamespace) -> Vec<String> {
    let mut rows = Vec::new();
    for file in &ns.socket_files() {
        let Some(socket) = file.socket().as_any().downcast_ref::<PacketSocket>() else { continue };
        let (kind, protocol, index, held) = socket.row();
        let attributes = file.attributes();
        rows.push(format!(
            "0000000000000000 {:<6} {:<4} {protocol:04x}   {index:<5} {} {held:<6} {:<6} {:<6}",
            3,
            kind.raw(),
            1,
            viewer.show_uid(attributes.uid),
            attributes.ino
        ));
    }
    rows
}

/// Groups that sockets have joined, with how many have: interface, group, members; for `igmp`, `igmp6` and `dev_mcast`.
#[must_use]
pub fn groups(ns: &NetNs) -> Vec<(u32, IpAddr, usize)> {
    let mut found: Vec<(u32, IpAddr, usize)> = Vec::new();
    for file in &ns.socket_files() {
        for joined in file.socket().base().with(|o| o.groups.clone()) {
            match found.iter_mut().find(|(index, group, _)| (*index, *group) == (joined.index, joined.group))
            {
                Some((_, _, members)) => *members += 1,
                None => found.push((joined.index, joined.group, 1)),
            }
        }
    }
    found.sort_unstable();
    found
}

/// How many sockets of a family there are, for `sockstat` and `sockstat6`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// All open sockets of the namespace.
    pub all: usize,
    /// TCP.
    pub tcp: usize,
    /// UDP.
    pub udp: usize,
    /// UDP-Lite.
    pub udplite: usize,
    /// Raw.
    pub raw: usize,
}

/// Counts the sockets of a family.
#[must_use]
pub fn counts(ns: &NetNs, family: Family) -> Counts {
    let files: Vec<Arc<SocketFile>> = ns.socket_files();
    let mut counts = Counts { all: files.len(), ..Counts::default() };
    for file in files.iter().filter(|f| of_family(f, family)) {
        let base = file.socket().base();
        if row(file, SockType::Stream).is_some() {
            counts.tcp += 1;
        } else if row(file, SockType::Dgram).is_some() {
            *(if base.protocol == 136 { &mut counts.udplite } else { &mut counts.udp }) += 1;
        } else if row(file, SockType::Raw).is_some() {
            counts.raw += 1;
        }
    }
    counts
}
