//! The sockets of a namespace as /proc/net shows them (proc_pid_net(5)): rows without their headers.

use crate::addr::{InetAddr, UnixAddr};
use crate::host::HostSocket;
use crate::inet::tcp::TcpSocket;
use crate::inet::udp::UdpSocket;
use crate::netns::NetNs;
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
fn row(file: &SocketFile, kind: SockType) -> Option<(Option<InetAddr>, Option<InetAddr>, u8)> {
    let base = file.socket().base();
    if base.kind != kind || !matches!(base.protocol, 6 | 17) {
        return None;
    }
    let any = file.socket().as_any();
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
        let rx = file.socket().readable_bytes().unwrap_or(0);
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

/// Rows of `udp` or `udp6`.
#[must_use]
pub fn udp(ns: &NetNs, family: Family, viewer: &UserNamespace) -> Vec<String> {
    let mut rows = Vec::new();
    for file in ns.socket_files().iter().filter(|f| of_family(f, family)) {
        let Some((local, peer, state)) = row(file, SockType::Dgram) else { continue };
        if local.is_none() {
            continue;
        }
        let rx = file.socket().readable_bytes().unwrap_or(0);
        rows.push(format!(
            "{:5}: {} {} {state:02X} {:08X}:{rx:08X} 00:00000000 00000000 {:5} {:8} {} 2 0000000000000000 0",
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
        let (local, kind, listening, connected) = socket.row();
        let flags = if listening { 0x1_0000 } else { 0 };
        let state = if connected { 3 } else { 1 };
        let mut row = format!(
            "0000000000000000: {:08X} {:08X} {flags:08X} {:04X} {state:02X} {:5}",
            2,
            0,
            kind.raw(),
            file.attributes().ino
        )
        .into_bytes();
        match local {
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

/// Open sockets in all and of TCP and UDP, for `sockstat`.
#[must_use]
pub fn counts(ns: &NetNs) -> (usize, usize, usize) {
    let all: Vec<Arc<SocketFile>> = ns.socket_files();
    let of = |kind| all.iter().filter(|file| row(file, kind).is_some()).count();
    (all.len(), of(SockType::Stream), of(SockType::Dgram))
}
