//! NETLINK_SOCK_DIAG (sock_diag(7)): the sockets of a namespace, by which `ss` lists them.

use super::out::{NLM_F_MULTI, Out, Reply, word};
use crate::addr::{InetAddr, UnixAddr};
use crate::inet::options::tcp_state;
use crate::inet::tcp::TcpSocket;
use crate::netns::NetNs;
use crate::socket::SocketFile;
use crate::table;
use crate::types::{AF_INET, AF_INET6, AF_UNIX, SockType};
use crate::unix::UnixSocket;
use abi::{Errno, SysResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use vfs::UserNamespace;

/// SOCK_DIAG_BY_FAMILY, and SOCK_DESTROY.
const BY_FAMILY: u16 = 20;
/// Bytes of the requests of the inet families and of AF_UNIX.
const INET_REQUEST: usize = 56;
const UNIX_REQUEST: usize = 24;
/// INET_DIAG_INFO, INET_DIAG_CONG, INET_DIAG_TOS, INET_DIAG_SKMEMINFO, INET_DIAG_SHUTDOWN.
const INET_INFO: u16 = 2;
const INET_CONG: u16 = 4;
const INET_TOS: u16 = 5;
const INET_SKMEMINFO: u16 = 7;
const INET_SHUTDOWN: u16 = 8;

/// Answers a request: messages to send, in pieces.
pub(super) fn answer(
    ns: &NetNs,
    kind: u16,
    body: &[u8],
    dump: bool,
    reply: Reply,
    viewer: &UserNamespace,
) -> SysResult<Vec<Vec<u8>>> {
    if kind != BY_FAMILY {
        return Err(if kind == 21 { Errno::EOPNOTSUPP } else { Errno::EINVAL });
    }
    let reply = Reply { flags: if dump { NLM_F_MULTI } else { 0 }, ..reply };
    let family = body.first().copied().map(u16::from).unwrap_or(0);
    let rows = match family {
        AF_INET | AF_INET6 if body.len() >= INET_REQUEST => inet(ns, family, body, reply, viewer)?,
        AF_UNIX if body.len() >= UNIX_REQUEST => unix(ns, body, dump, reply, viewer)?,
        AF_INET | AF_INET6 | AF_UNIX => return Err(Errno::EINVAL),
        // As without the modules: /proc/net has the others.
        _ => return Err(Errno::ENOENT),
    };
    if dump {
        return Ok(rows);
    }
    let exact = |row: &Vec<u8>| {
        family == AF_UNIX || same_id(body.get(8..56).unwrap_or_default(), row.get(20..68).unwrap_or_default())
    };
    let found = rows.into_iter().find(exact).ok_or(Errno::ENOENT)?;
    Ok(vec![found])
}

/// Whether an `inet_diag_sockid` that is asked for is that of a socket: ports, addresses, cookie.
fn same_id(asked: &[u8], row: &[u8]) -> bool {
    let any_cookie = asked.get(40..48).is_some_and(|cookie| cookie == [0xff; 8]);
    asked.get(..36) == row.get(..36) && (any_cookie || asked.get(40..48) == row.get(40..48))
}

fn padded(ip: IpAddr, v6: bool) -> [u8; 16] {
    let mut out = [0; 16];
    match (ip, v6) {
        (IpAddr::V4(ip), false) => {
            if let Some(place) = out.get_mut(..4) {
                place.copy_from_slice(&ip.octets());
            }
        }
        (IpAddr::V4(ip), true) => {
            out = if ip == Ipv4Addr::UNSPECIFIED { [0; 16] } else { ip.to_ipv6_mapped().octets() };
        }
        (IpAddr::V6(ip), _) => out = ip.octets(),
    }
    out
}

/// The states of TCP that are asked for, one bit each.
fn inet(
    ns: &NetNs,
    family: u16,
    body: &[u8],
    reply: Reply,
    viewer: &UserNamespace,
) -> SysResult<Vec<Vec<u8>>> {
    let protocol = body.get(1).copied().unwrap_or(0);
    let extensions = body.get(2).copied().unwrap_or(0);
    let states = word(body, 4)?;
    let mut rows = Vec::new();
    for file in ns.socket_files() {
        let base = file.socket().base();
        let kind = match protocol {
            6 => SockType::Stream,
            17 | 136 => SockType::Dgram,
            // RAW.
            255 => SockType::Raw,
            _ => return Err(Errno::ENOENT),
        };
        if base.domain != family || base.protocol != i32::from(protocol) && protocol != 255 {
            continue;
        }
        let Some((local, peer, state)) = table::row(&file, kind) else { continue };
        if local.is_none() || states & (1_u32.checked_shl(state.into()).unwrap_or(0)) == 0 {
            continue;
        }
        rows.push(inet_row(&file, (local, peer, state), extensions, reply, viewer));
    }
    Ok(rows)
}

fn inet_row(
    file: &Arc<SocketFile>,
    (local, peer, state): (Option<InetAddr>, Option<InetAddr>, u8),
    extensions: u8,
    reply: Reply,
    viewer: &UserNamespace,
) -> Vec<u8> {
    let base = file.socket().base();
    let v6 = base.domain == AF_INET6;
    let any = InetAddr {
        ip: if v6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) },
        port: 0,
        scope: 0,
    };
    let (local, peer) = (local.unwrap_or(any), peer.unwrap_or(any));
    let depth = file.socket().as_any().downcast_ref::<TcpSocket>().and_then(TcpSocket::depth);
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let (receive, send) = match depth {
        Some((waiting, most)) => (size(waiting), size(most)),
        None => (
            size(file.socket().readable_bytes().unwrap_or(0)),
            size(file.socket().unsent_bytes().unwrap_or(0)),
        ),
    };
    let attributes = file.attributes();
    let mut out = Out::default();
    out.begin(BY_FAMILY, reply);
    out.put(&[u8::try_from(base.domain).unwrap_or(0), state, 0, 0]);
    out.put(&local.port.to_be_bytes());
    out.put(&peer.port.to_be_bytes());
    out.put(&padded(local.ip, v6));
    out.put(&padded(peer.ip, v6));
    out.put(&base.with(|o| o.device).to_ne_bytes());
    out.put(&base.cookie.to_ne_bytes());
    for number in
        [0, receive, send, viewer.show_uid(attributes.uid), u32::try_from(attributes.ino).unwrap_or(0)]
    {
        out.put(&number.to_ne_bytes());
    }
    let wants = |attribute: u16| extensions & (1 << (attribute - 1)) != 0;
    let option = |at, name| {
        crate::inet::options::get(
            base,
            at,
            name,
            crate::inet::options::Standing { tcp_state: state, ..Default::default() },
        )
    };
    if base.kind == SockType::Stream {
        if wants(INET_INFO)
            && let Some(Ok(info)) = option(6, 11)
        {
            out.attr(INET_INFO, &info);
        }
        if wants(INET_CONG)
            && let Some(Ok(name)) = option(6, 13)
        {
            let end = name.iter().position(|b| *b == 0).map_or(name.len(), |end| end + 1);
            out.attr(INET_CONG, name.get(..end).unwrap_or_default());
        }
    }
    if wants(INET_TOS) {
        out.attr(INET_TOS, &[u8::try_from(base.int(0, 1).unwrap_or(0)).unwrap_or(0)]);
    }
    if wants(INET_SKMEMINFO)
        && let Ok(words) = base.get(55)
    {
        out.attr(INET_SKMEMINFO, &words);
    }
    let shut = match state {
        tcp_state::CLOSE_WAIT => 1,
        tcp_state::FIN_WAIT2 => 2,
        tcp_state::CLOSE if base.kind == SockType::Stream => 3,
        _ => 0,
    };
    out.attr(INET_SHUTDOWN, &[shut]);
    out.end();
    out.bytes
}

fn unix(
    ns: &NetNs,
    body: &[u8],
    dump: bool,
    reply: Reply,
    viewer: &UserNamespace,
) -> SysResult<Vec<Vec<u8>>> {
    let (states, ino, show) = (word(body, 4)?, word(body, 8)?, word(body, 12)?);
    let files = ns.socket_files();
    let place = |file: &Arc<SocketFile>| Arc::as_ptr(file.socket()).cast::<()>().addr();
    let numbers: Vec<(usize, u32)> =
        files.iter().map(|file| (place(file), u32::try_from(file.attributes().ino).unwrap_or(0))).collect();
    let mut rows = Vec::new();
    for file in &files {
        let Some(socket) = file.socket().as_any().downcast_ref::<UnixSocket>() else { continue };
        let row = socket.row();
        let own = u32::try_from(file.attributes().ino).unwrap_or(0);
        let state = match (row.listening, row.connected) {
            (true, _) => tcp_state::LISTEN,
            (_, true) => tcp_state::ESTABLISHED,
            _ => tcp_state::CLOSE,
        };
        let wanted = if dump { states & (1 << state) != 0 } else { ino == own };
        if !wanted {
            continue;
        }
        let mut out = Out::default();
        out.begin(BY_FAMILY, reply);
        out.put(&[1, u8::try_from(row.kind.raw()).unwrap_or(0), state, 0]);
        out.put(&own.to_ne_bytes());
        out.put(&file.socket().base().cookie.to_ne_bytes());
        if show & 1 != 0 {
            match &row.local {
                Some(UnixAddr::Path { path, .. }) => out.attr(0, &[path.as_slice(), &[0]].concat()),
                Some(UnixAddr::Abstract(name)) => out.attr(0, &[&[0], name.as_slice()].concat()),
                _ => {}
            }
        }
        if show & 2 != 0
            && let Some(UnixAddr::Path { node: Some((dev, ino)), .. }) = &row.local
        {
            let number = |n: u64| u32::try_from(n & 0xffff_ffff).unwrap_or(0);
            out.attr(1, &[number(*ino).to_ne_bytes(), number(*dev).to_ne_bytes()].concat());
        }
        if show & 4 != 0
            && let Some(peer) = socket.peer_place()
            && let Some((_, number)) = numbers.iter().find(|(at, _)| *at == peer)
        {
            out.word(2, *number);
        }
        if show & 0x10 != 0 {
            let (receive, send) = socket.queues();
            out.attr(4, &[receive.to_ne_bytes(), send.to_ne_bytes()].concat());
        }
        out.attr(6, &[row.shut]);
        if show & 0x40 != 0 {
            out.word(7, viewer.show_uid(file.attributes().uid));
        }
        out.end();
        rows.push(out.bytes);
    }
    Ok(rows)
}
