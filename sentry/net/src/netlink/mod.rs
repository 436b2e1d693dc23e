//! AF_NETLINK (netlink(7), rtnetlink(7)): the route family answers dumps of links, addresses, routes and
//! rules of the namespace and changes them; the uevent family is silent. Locks: `Socket` for the address.

mod change;

use crate::addr::SockAddr;
use crate::base::Base;
use crate::host::HostNet;
use crate::host::wire::Dump;
use crate::inbox::{Ancillary, Message, MessageInbox};
use crate::netns::{Interface, InterfaceAddr, NetNs, Route};
use crate::socket::Socket;
use crate::types::{AF_NETLINK, Control, MsgFlags, Received, SendMsg, Shutdown, SockType, Ucred, level};
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::Socket as SocketRank;
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use vfs::{Caller, Capabilities};

const NETLINK_ROUTE: i32 = 0;
const NETLINK_USERSOCK: i32 = 2;
const NETLINK_KOBJECT_UEVENT: i32 = 15;
const NETLINK_GENERIC: i32 = 16;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;
/// Messages of a dump are gathered into datagrams of about this size.
const CHUNK: usize = 3500;

#[derive(Debug, Default)]
struct State {
    pid: u32,
    groups: u32,
    peer: u32,
}

/// A netlink socket.
#[derive(Debug)]
pub struct NetlinkSocket {
    base: Base,
    inbox: Arc<MessageInbox>,
    state: Ranked<SocketRank, State>,
}

struct Request {
    kind: u16,
    flags: u16,
    seq: u32,
    bytes: Vec<u8>,
}

/// Lays out netlink messages.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    start: usize,
}

impl Out {
    fn begin(&mut self, kind: u16, flags: u16, seq: u32, pid: u32) {
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&pid.to_ne_bytes());
    }
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
    fn attr(&mut self, kind: u16, data: &[u8]) {
        let len = u16::try_from(data.len() + 4).unwrap_or(4);
        self.put(&len.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
    fn end(&mut self) {
        let len = u32::try_from(self.bytes.len() - self.start).unwrap_or(0);
        if let Some(slot) = self.bytes.get_mut(self.start..self.start + 4) {
            slot.copy_from_slice(&len.to_ne_bytes());
        }
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// The address an attribute holds.
fn ip_of(data: &[u8]) -> SysResult<IpAddr> {
    match data.len() {
        4 => Ok(IpAddr::from(*data.first_chunk::<4>().ok_or(Errno::EINVAL)?)),
        16 => Ok(IpAddr::from(*data.first_chunk::<16>().ok_or(Errno::EINVAL)?)),
        _ => Err(Errno::EINVAL),
    }
}

fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

impl NetlinkSocket {
    /// A socket of netlink family `protocol`; `EPROTONOSUPPORT` for families that do not exist here.
    pub fn new(ns: &Arc<NetNs>, kind: SockType, protocol: i32) -> SysResult<Arc<NetlinkSocket>> {
        if !matches!(kind, SockType::Dgram | SockType::Raw) {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        if !matches!(protocol, NETLINK_ROUTE | NETLINK_USERSOCK | NETLINK_KOBJECT_UEVENT | NETLINK_GENERIC) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let base = Base::new(ns, AF_NETLINK, kind, protocol);
        let inbox = MessageInbox::new(&base.queue, usize::MAX, 4096);
        Ok(Arc::new(NetlinkSocket { base, inbox, state: Ranked::default() }))
    }

    fn port(&self, wanted: u32, by: &Caller<'_>) -> SysResult<u32> {
        let mut state = self.state.lock();
        if state.pid != 0 {
            return if wanted == 0 || wanted == state.pid { Ok(state.pid) } else { Err(Errno::EINVAL) };
        }
        let mut ports = self.base.ns.netlink_ports.lock();
        let mut pid = if wanted == 0 { by.task.tgid() } else { wanted };
        if wanted != 0 && ports.contains_key(&pid) {
            return Err(Errno::EADDRINUSE);
        }
        // Further sockets of one process get numbers from the top.
        while pid == 0 || ports.contains_key(&pid) {
            pid = pid.wrapping_sub(4097) | 0x8000_0000;
        }
        ports.insert(pid, ());
        state.pid = pid;
        Ok(pid)
    }

    /// A message of the kernel's own.
    pub fn deliver(&self, bytes: Vec<u8>) {
        let from = Some(SockAddr::Netlink { pid: 0, groups: 0 });
        self.inbox.send_or_drop(Message { bytes, from, with: Ancillary::default(), control: Vec::new() });
    }

    fn handle(&self, request: &Request, pid: u32, by: &Caller<'_>) {
        let result = if self.base.protocol == NETLINK_ROUTE {
            self.route(request, pid, by)
        } else {
            Err(Errno::EOPNOTSUPP)
        };
        let error = match result {
            Ok(answered) if answered || request.flags & NLM_F_ACK == 0 => return,
            Ok(_) => 0,
            Err(error) => -i32::from(error.raw()),
        };
        let mut out = Out::default();
        out.begin(NLMSG_ERROR, 0, request.seq, pid);
        out.put(&error.to_ne_bytes());
        // An acknowledgement carries the header only, an error the request.
        out.put(request.bytes.get(..if error == 0 { HEADER } else { usize::MAX }).unwrap_or(&request.bytes));
        out.end();
        self.deliver(out.bytes);
    }

    /// Answers a route request; false when only an acknowledgement is due.
    fn route(&self, request: &Request, pid: u32, by: &Caller<'_>) -> SysResult<bool> {
        let body = request.bytes.get(HEADER..).unwrap_or_default();
        let wanted_family = body.first().copied().unwrap_or(0);
        let dump = request.flags & NLM_F_DUMP == NLM_F_DUMP;
        let seq = request.seq;
        if let Some(host) = self.base.ns.host()
            && let Some(answered) = self.host_route(host, request, pid)?
        {
            return Ok(answered);
        }
        let interfaces = self.base.ns.interfaces();
        match (request.kind, dump) {
            (18, true) => {
                self.dump(interfaces.iter(), seq, pid, |out, i| link(out, i, NLM_F_MULTI, seq, pid))
            }
            (18, false) => {
                let index =
                    body.get(4..8).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b));
                let name = attribute(body.get(16..).unwrap_or_default(), 3);
                let found = interfaces.iter().find(|i| match name {
                    Some(name) if index == 0 => name.strip_suffix(&[0]).unwrap_or(name) == i.name.as_bytes(),
                    _ => i.index == index,
                });
                let mut out = Out::default();
                link(&mut out, found.ok_or(Errno::ENODEV)?, 0, seq, pid);
                self.deliver(out.bytes);
            }
            (22, true) => {
                let rows = interfaces.iter().flat_map(|i| i.addrs.iter().map(move |a| (i, a)));
                let rows = rows.filter(|(_, a)| wanted_family == 0 || family(a.ip) == wanted_family);
                self.dump(rows, seq, pid, |out, (i, a)| {
                    out.begin(20, NLM_F_MULTI, seq, pid);
                    let scope = if i.is_loopback() { 254 } else { 0 };
                    out.put(&[family(a.ip), a.prefix, 0x80, scope]);
                    out.put(&i.index.to_ne_bytes());
                    out.attr(1, &octets(a.ip));
                    if a.ip.is_ipv4() {
                        out.attr(2, &octets(a.ip));
                        out.attr(3, &[i.name.as_bytes(), &[0]].concat());
                    }
                    out.attr(6, &[&[0xff; 8][..], &[0; 8]].concat());
                    out.attr(8, &0x80u32.to_ne_bytes());
                    out.end();
                });
            }
            (26, true) => {
                let up = interfaces.iter().filter(|i| i.is_up());
                let rows = up.flat_map(|i| i.addrs.iter().map(move |a| Row::Address(i, *a)));
                let added = self.base.ns.routes().into_iter().map(Row::Added);
                let rows = added.chain(rows).filter(|r| wanted_family == 0 || r.family() == wanted_family);
                self.dump(rows, seq, pid, |out, row| match row {
                    Row::Address(i, a) => routes(out, i, a.ip, a.prefix, seq, pid),
                    Row::Added(route) => added_route(out, &route, seq, pid),
                });
            }
            (26, false) => {
                let data = attribute(body.get(12..).unwrap_or_default(), 1).ok_or(Errno::EINVAL)?;
                let ip = ip_of(data)?;
                if !self.base.ns.is_local(ip) {
                    return Err(Errno::ENETUNREACH);
                }
                let mut out = Out::default();
                out.begin(24, 0, seq, pid);
                let bits = if ip.is_ipv4() { 32 } else { 128 };
                out.put(&[family(ip), bits, 0, 0, 255, 0, 0, 2, 0, 2, 0, 0]);
                out.attr(15, &255u32.to_ne_bytes());
                out.attr(1, &octets(ip));
                out.attr(4, &1u32.to_ne_bytes());
                out.end();
                self.deliver(out.bytes);
            }
            (34, true) => {
                let tables: &[(u32, u32)] = &[(0, 255), (32766, 254), (32767, 253)];
                let address_family = if wanted_family == 0 { 2 } else { wanted_family };
                self.dump(tables.iter(), seq, pid, |out, (priority, table)| {
                    out.begin(32, NLM_F_MULTI, seq, pid);
                    let short = u8::try_from(*table).unwrap_or(0);
                    out.put(&[address_family, 0, 0, 0, short, 0, 0, 1, 0, 0, 0, 0]);
                    out.attr(15, &table.to_ne_bytes());
                    out.attr(6, &priority.to_ne_bytes());
                    out.end();
                });
            }
            // Neighbours, queueing disciplines and their like: none.
            (30 | 38 | 42 | 46 | 58 | 62 | 66 | 74 | 82, true) => {
                self.dump([].iter(), seq, pid, |_, _: &()| {})
            }
            (kind, _) if kind % 4 == 2 => return Err(Errno::EOPNOTSUPP),
            (16..=103, _) => {
                if !by.cred.has_in(Capabilities::NET_ADMIN, &self.base.ns.user_ns) {
                    return Err(Errno::EPERM);
                }
                if self.base.ns.host().is_some() {
                    self.unchanged(request.kind, body, &interfaces)?;
                } else {
                    change::apply(&self.base.ns, request.kind, request.flags, body)?;
                }
                return Ok(false);
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok(true)
    }

    /// Answers from the host's namespace what it can; `None` for the rest.
    fn host_route(&self, host: &HostNet, request: &Request, pid: u32) -> SysResult<Option<bool>> {
        let body = request.bytes.get(HEADER..).unwrap_or_default();
        let dump = request.flags & NLM_F_DUMP == NLM_F_DUMP;
        let Some(of) = Dump::from_kind(request.kind) else { return Ok(None) };
        let bytes = match (of, dump) {
            (_, true) => host.dump(of, body.first().copied().unwrap_or(0))?,
            (Dump::Links, false) => {
                let index = body.get(4..).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_ne_bytes(*b));
                let name = attribute(body.get(16..).unwrap_or_default(), 3);
                let name = name.map(|name| name.strip_suffix(&[0]).unwrap_or(name));
                let all = host.dump(of, 0)?;
                let mut links = messages(&all).filter(|m| m.kind == request.kind - 2);
                let found = links.find(|link| {
                    let body = link.bytes.get(HEADER..).unwrap_or_default();
                    let own =
                        body.get(4..).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_ne_bytes(*b));
                    let called = attribute(body.get(16..).unwrap_or_default(), 3);
                    let called = called.map(|name| name.strip_suffix(&[0]).unwrap_or(name));
                    if index != 0 { own == index } else { name.is_some() && called == name }
                });
                found.ok_or(Errno::ENODEV)?.bytes.to_vec()
            }
            (Dump::Routes, false) => {
                let data = attribute(body.get(12..).unwrap_or_default(), 1).ok_or(Errno::EINVAL)?;
                host.route(ip_of(data)?)?
            }
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let flags = if dump { NLM_F_MULTI } else { 0 };
        let mut out = Out::default();
        for message in messages(&bytes) {
            if message.kind == NLMSG_DONE {
                continue;
            }
            out.begin(message.kind, flags, request.seq, pid);
            out.put(message.bytes.get(HEADER..).unwrap_or_default());
            out.end();
            out.bytes.resize(out.bytes.len().next_multiple_of(4), 0);
            if out.bytes.len() > CHUNK {
                self.deliver(std::mem::take(&mut out.bytes));
            }
        }
        if !out.bytes.is_empty() {
            self.deliver(std::mem::take(&mut out.bytes));
        }
        if dump {
            self.dump([].iter(), request.seq, pid, |_, _: &()| {});
        }
        Ok(Some(true))
    }

    /// The links of a namespace of the host's are not for guests to change: only what changes nothing
    /// (`ip link set lo up`) is done.
    fn unchanged(&self, kind: u16, body: &[u8], interfaces: &[Interface]) -> SysResult<()> {
        let word = |at: usize| {
            body.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b: &[u8; 4]| u32::from_ne_bytes(*b))
        };
        let name = attribute(body.get(16..).unwrap_or_default(), 3);
        let index = word(4);
        let found = interfaces.iter().find(|i| {
            i.index == index || name.is_some_and(|n| n.strip_suffix(&[0]).unwrap_or(n) == i.name.as_bytes())
        });
        let (flags, changed) = (word(8), word(12));
        let same = |interface: &Interface| (flags ^ interface.flags) & changed & 1 == 0;
        if matches!(kind, 16 | 19) && found.is_some_and(same) { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn dump<T>(&self, rows: impl Iterator<Item = T>, seq: u32, pid: u32, mut row: impl FnMut(&mut Out, T)) {
        let mut out = Out::default();
        for item in rows {
            row(&mut out, item);
            if out.bytes.len() > CHUNK {
                self.deliver(std::mem::take(&mut out.bytes));
            }
        }
        if !out.bytes.is_empty() {
            self.deliver(std::mem::take(&mut out.bytes));
        }
        // The end of a dump is a datagram of its own, as libnetlink expects with small buffers.
        out.begin(NLMSG_DONE, NLM_F_MULTI, seq, pid);
        out.put(&0i32.to_ne_bytes());
        out.end();
        self.deliver(out.bytes);
    }
}

fn link(out: &mut Out, interface: &Interface, flags: u16, seq: u32, pid: u32) {
    let kind: u16 = if interface.is_loopback() { 772 } else { 1 };
    out.begin(16, flags, seq, pid);
    out.put(&[0, 0]);
    out.put(&kind.to_ne_bytes());
    out.put(&interface.index.to_ne_bytes());
    out.put(&interface.flags.to_ne_bytes());
    out.put(&[0; 4]);
    out.attr(3, &[interface.name.as_bytes(), &[0]].concat());
    out.attr(13, &1000u32.to_ne_bytes());
    out.attr(16, &[if interface.is_loopback() { 0 } else { 6 }]);
    out.attr(17, &[0]);
    out.attr(4, &interface.mtu.to_ne_bytes());
    out.attr(27, &0u32.to_ne_bytes());
    out.attr(6, b"noqueue\0");
    out.attr(1, &interface.hw);
    out.attr(2, if interface.is_loopback() { &[0; 6] } else { &[0xff; 6] });
    out.end();
}

/// Where a row of the route table comes from.
enum Row<'a> {
    Address(&'a Interface, InterfaceAddr),
    Added(Route),
}

impl Row<'_> {
    fn family(&self) -> u8 {
        match self {
            Row::Address(_, addr) => family(addr.ip),
            Row::Added(route) => route.family,
        }
    }
}

fn added_route(out: &mut Out, route: &Route, seq: u32, pid: u32) {
    out.begin(24, NLM_F_MULTI, seq, pid);
    let table = u8::try_from(route.table).unwrap_or(0);
    let head = [route.family, route.prefix, 0, 0, table, route.protocol, route.scope, route.kind, 0, 0, 0, 0];
    out.put(&head);
    out.attr(15, &route.table.to_ne_bytes());
    for (kind, ip) in [(1, route.target), (5, route.gateway), (7, route.source)] {
        if let Some(ip) = ip {
            out.attr(kind, &octets(ip));
        }
    }
    if route.metric != 0 {
        out.attr(6, &route.metric.to_ne_bytes());
    }
    if route.index != 0 {
        out.attr(4, &route.index.to_ne_bytes());
    }
    out.end();
}

fn routes(out: &mut Out, interface: &Interface, ip: IpAddr, prefix: u8, seq: u32, pid: u32) {
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let mut one = |dst: IpAddr, len: u8, table: u8, scope: u8, kind: u8| {
        out.begin(24, NLM_F_MULTI, seq, pid);
        out.put(&[family(ip), len, 0, 0, table, 2, scope, kind, 0, 0, 0, 0]);
        out.attr(15, &u32::from(table).to_ne_bytes());
        out.attr(1, &octets(dst));
        if ip.is_ipv4() {
            out.attr(7, &octets(ip));
        }
        out.attr(4, &interface.index.to_ne_bytes());
        out.end();
    };
    one(ip, bits, 255, 254, 2);
    if let IpAddr::V4(v4) = ip
        && prefix < 32
    {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let net = IpAddr::V4(std::net::Ipv4Addr::from_bits(v4.to_bits() & mask));
        if interface.is_loopback() {
            one(net, prefix, 255, 254, 2);
        } else {
            one(net, prefix, 254, 253, 1);
        }
    }
}

/// One message of a buffer.
pub(crate) struct Piece<'a> {
    /// Type.
    pub(crate) kind: u16,
    /// The whole message, header included.
    pub(crate) bytes: &'a [u8],
}

/// The messages in `rest`, up to the first that is malformed.
pub(crate) fn messages(mut rest: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let kind = u16::from_ne_bytes(*rest.get(4..)?.first_chunk()?);
        let bytes = rest.get(..len).filter(|bytes| bytes.len() >= HEADER)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Piece { kind, bytes })
    })
}

/// The first attribute of type `kind`.
pub(crate) fn attribute(mut bytes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let this = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & 0x3fff;
        let data = bytes.get(4..len)?;
        if this == kind {
            return Some(data);
        }
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
}

impl Drop for NetlinkSocket {
    fn drop(&mut self) {
        let pid = self.state.get_mut().pid;
        if pid != 0 {
            self.base.ns.netlink_ports.lock().remove(&pid);
        }
    }
}

impl Socket for NetlinkSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn base(&self) -> &Base {
        &self.base
    }
    fn bind(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let SockAddr::Netlink { pid, groups } = addr else { return Err(Errno::EINVAL) };
        self.port(*pid, by)?;
        self.state.lock().groups = *groups;
        Ok(())
    }
    fn connect(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let peer = match addr {
            SockAddr::Unspec => 0,
            SockAddr::Netlink { pid, .. } => *pid,
            _ => return Err(Errno::EINVAL),
        };
        self.port(0, by)?;
        self.state.lock().peer = peer;
        Ok(())
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, by: &Caller<'_>) -> SysResult<usize> {
        let to = match &message.addr {
            Some(SockAddr::Netlink { pid, .. }) => *pid,
            Some(_) => return Err(Errno::EINVAL),
            None => self.state.lock().peer,
        };
        let own = self.port(0, by)?;
        let len = src.remaining();
        if len > self.base.sndbuf() {
            return Err(Errno::EMSGSIZE);
        }
        let bytes = crate::inet::take_all(src)?;
        if to != 0 {
            return Err(Errno::ECONNREFUSED);
        }
        let mut rest: &[u8] = &bytes;
        while rest.len() >= HEADER {
            let word = |at: usize| {
                rest.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b: &[u8; 4]| u32::from_ne_bytes(*b))
            };
            let half = |at: usize| {
                rest.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b: &[u8; 2]| u16::from_ne_bytes(*b))
            };
            let size = usize::try_from(word(0)).unwrap_or(usize::MAX);
            if size < HEADER || size > rest.len() {
                break;
            }
            let request = Request {
                kind: half(4),
                flags: half(6),
                seq: word(8),
                bytes: rest.get(..size).unwrap_or_default().to_vec(),
            };
            if request.kind > NLMSG_DONE && request.flags & 1 != 0 {
                self.handle(&request, own, by);
            } else if request.kind == NLMSG_NOOP && request.flags & NLM_F_ACK != 0 {
                let mut out = Out::default();
                out.begin(NLMSG_ERROR, 0, request.seq, own);
                out.put(&0i32.to_ne_bytes());
                out.put(rest.get(..HEADER).unwrap_or_default());
                out.end();
                self.deliver(out.bytes);
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(len)
    }
    fn recv(
        &self,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        _skip: usize,
        _by: &Caller<'_>,
    ) -> SysResult<Received> {
        let deliver = |message: &Message, dst: &mut dyn GuestSink| -> SysResult<Received> {
            let room = dst.remaining();
            let copied = if room == 0 { 0 } else { dst.put(&message.bytes)? };
            let mut out = Received {
                len: if flags.contains(MsgFlags::TRUNC) { message.bytes.len() } else { copied },
                addr: message.from.clone(),
                ..Received::default()
            };
            if message.bytes.len() > room {
                out.flags |= MsgFlags::TRUNC;
            }
            if self.base.with(|o| o.pass_cred) {
                let kernel = Ucred { pid: 0, uid: Some(vfs::Kuid(0)), gid: Some(vfs::Kgid(0)) };
                out.control.push(Control::Credentials(kernel));
            }
            Ok(out)
        };
        if flags.contains(MsgFlags::PEEK) {
            return self.inbox.peek(|m| deliver(m, dst))?.unwrap_or_else(|| Ok(Received::default()));
        }
        match self.inbox.receive()? {
            Some(message) => deliver(&message, dst),
            None => Ok(Received::default()),
        }
    }
    fn shutdown(&self, _how: Shutdown) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn local_addr(&self) -> SysResult<SockAddr> {
        let state = self.state.lock();
        Ok(SockAddr::Netlink { pid: state.pid, groups: state.groups })
    }
    fn peer_addr(&self) -> SysResult<SockAddr> {
        Ok(SockAddr::Netlink { pid: self.state.lock().peer, groups: 0 })
    }
    fn ready(&self, interest: Events) -> Events {
        let mut events = Events::WRITABLE;
        if self.inbox.has_message() {
            events |= Events::READABLE;
        }
        events & (interest | Events::ALWAYS)
    }
    fn get_option(&self, at: i32, name: i32, _by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        (at == level::NETLINK).then(|| match name {
            1..=14 => Ok(self.base.int(at, name).unwrap_or(0).to_ne_bytes().to_vec()),
            _ => Err(Errno::ENOPROTOOPT),
        })
    }
    fn set_option(&self, at: i32, name: i32, value: &[u8], _by: &Caller<'_>) -> Option<SysResult<()>> {
        const SO_ATTACH_FILTER: i32 = 26;
        if at == level::SOCKET && name == SO_ATTACH_FILTER && self.base.protocol == NETLINK_KOBJECT_UEVENT {
            // No event is ever sent that a filter could hold back.
            return Some(if value.len() == 16 { Ok(()) } else { Err(Errno::EINVAL) });
        }
        (at == level::NETLINK).then(|| {
            let int = crate::base::read_int(value)?;
            match name {
                1 if (1..=32).contains(&int) => self.state.lock().groups |= 1 << (int - 1),
                2 if (1..=32).contains(&int) => self.state.lock().groups &= !(1 << (int - 1)),
                3..=12 => self.base.change(|o| {
                    o.ints.insert((at, name), i32::from(int != 0));
                }),
                1 | 2 => return Err(Errno::EINVAL),
                _ => return Err(Errno::ENOPROTOOPT),
            }
            Ok(())
        })
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        Ok(self.inbox.status().len)
    }
}
