//! UDP and UDP-Lite between the sockets of the sandbox (udp(7)). Locks: `Socket` for the state, `SocketPeer` for the
//! receive queue.

use super::info::{self, Header, extended_error};
use super::options::{self, Standing, tcp_state};
use super::ports::{PortTable, Told};
use super::wire::{self, Packet};
use super::{
    Cast, Way, bind_addr, claim_for, is_limited_broadcast, is_v6, may_bind, multicast, own_family,
    port_range, raw, show, take_all, way,
};
use crate::addr::{InetAddr, SockAddr};
use crate::base::{Base, Report};
use crate::filter::View;
use crate::inbox::{Message, MessageInbox};
use crate::mailbox;
use crate::netns::NetNs;
use crate::socket::Socket;
use crate::types::{MsgFlags, Received, SendMsg, Shutdown, SockType, level};
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::{NetStack, Socket as SocketRank};
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use vfs::Caller;

/// Largest datagram of IPv4 (65535 minus headers).
const MAX_V4: usize = 65_507;
const MAX_V6: usize = 65_527;
/// Most datagrams of one send with UDP_SEGMENT.
const MOST_SEGMENTS: usize = 128;
/// UDP_CORK.
const UDP_CORK: i32 = 1;

/// A datagram that is being put together (UDP_CORK, MSG_MORE).
#[derive(Debug)]
struct Corked {
    to: InetAddr,
    way: Way,
    header: Header,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    local: Option<InetAddr>,
    peer: Option<InetAddr>,
    held: Option<u16>,
    bound: bool,
    // Bound to this address by bind(2), and not by connect(2).
    fixed: Option<InetAddr>,
    shut_read: bool,
    shut_write: bool,
    corked: Option<Corked>,
}

/// A UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    base: Base,
    me: Weak<UdpSocket>,
    inbox: Arc<MessageInbox>,
    state: Ranked<SocketRank, State>,
}

fn table(ns: &NetNs, protocol: i32) -> &Ranked<NetStack, PortTable<UdpSocket>> {
    if protocol == level::UDPLITE { &ns.udplite } else { &ns.udp }
}

/// Gives a datagram to the sockets of its destination; false when nobody wants it. `bytes` is what the guest sent.
fn arrive(protocol: i32, way: &Way, from_port: u16, header: &Header, bytes: Vec<u8>) -> bool {
    let Some(ns) = &way.ns else { return true };
    let from = InetAddr { ip: way.source, port: from_port, scope: 0 };
    let into = way.index.1;
    watch(ns, protocol, way, from_port, header, &bytes);
    let sockets = table(ns, protocol);
    if way.cast == Cast::One {
        let found = sockets.lock().find(way.to, from, into, |_| true).and_then(|w| w.upgrade());
        return match found {
            Some(receiver) => {
                receiver.take(way, from, header, bytes);
                true
            }
            None => false,
        };
    }
    if way.cast == Cast::Group && !multicast::joined(ns, way.to.ip, into) {
        return true;
    }
    let all: Vec<_> = sockets.lock().find_all(way.to, from, into);
    for receiver in all.iter().filter_map(Weak::upgrade) {
        if way.cast == Cast::Broadcast || multicast::takes(&receiver.base, way.to.ip, way.source, into) {
            receiver.take(way, from, header, bytes.clone());
        }
    }
    true
}

/// Shows the packet to those who look at packets.
fn watch(ns: &Arc<NetNs>, protocol: i32, way: &Way, from_port: u16, header: &Header, bytes: &[u8]) {
    if !ns.is_watched() {
        return;
    }
    let datagram = wire::udp(bytes, (way.source, from_port), (way.to.ip, way.to.port));
    let packet = Packet {
        source: way.source,
        target: way.to.ip,
        protocol: u8::try_from(protocol).unwrap_or(17),
        ttl: header.ttl,
        tos: header.tos,
        payload: &datagram,
    };
    raw::show_to_all(ns, way, &packet);
}

impl UdpSocket {
    /// An unbound socket of UDP or UDP-Lite.
    #[must_use]
    pub fn new(ns: &Arc<NetNs>, domain: u16, protocol: i32) -> Arc<UdpSocket> {
        let base = Base::new(ns, domain, SockType::Dgram, protocol);
        let inbox = MessageInbox::new(&base.queue, base.rcvbuf(), usize::MAX);
        Arc::new_cyclic(|me| UdpSocket { base, me: Weak::clone(me), inbox, state: Ranked::default() })
    }
    /// Local and peer address and state, for /proc/net/udp.
    #[must_use]
    pub fn row(&self) -> (Option<InetAddr>, Option<InetAddr>, u8) {
        let state = self.state.lock();
        let shown = if state.peer.is_some() { tcp_state::ESTABLISHED } else { tcp_state::CLOSE };
        (state.local, state.peer, shown)
    }
    /// Bytes in the receive queue and datagrams dropped, for /proc/net/udp.
    #[must_use]
    pub fn queue(&self) -> (usize, u32) {
        (self.inbox.held(), self.inbox.drops())
    }

    fn table(&self) -> &Ranked<NetStack, PortTable<UdpSocket>> {
        table(&self.base.ns, self.base.protocol)
    }
    fn claim(&self, state: &mut State, addr: InetAddr, by: &Caller<'_>) -> SysResult<()> {
        let claim = claim_for(&self.base, addr, by);
        let range = port_range(&self.base);
        let port = self.table().lock().claim(claim, Weak::clone(&self.me), false, range)?;
        state.held = Some(port);
        state.local = Some(InetAddr { port, ..addr });
        Ok(())
    }
    fn standing(&self) -> Standing {
        let state = self.state.lock();
        Standing { bound: state.held.is_some(), connected: state.peer.is_some(), ..Standing::default() }
    }

    /// Puts a datagram into the receive queue, as far as the socket's filter lets it.
    fn take(&self, way: &Way, from: InetAddr, header: &Header, mut bytes: Vec<u8>) {
        if let Some(filter) = self.base.with(|o| o.filter.clone()) {
            let datagram = wire::udp(&bytes, (from.ip, from.port), (way.to.ip, way.to.port));
            let protocol = if way.to.ip.is_ipv4() { 0x0800 } else { 0x86dd };
            let view =
                View { bytes: &datagram, protocol, index: way.index.1, mark: header.mark, ..View::default() };
            match filter.run(&view) {
                0 => return,
                keep => bytes.truncate(keep.saturating_sub(wire::UDP_HEADER)),
            }
        }
        let mut packet = header.packet(way.to, way.index.1);
        packet.cast = way.cast == Cast::Broadcast;
        if way.cast != Cast::One
            && let IpAddr::V4(own) = way.source
        {
            packet.local = own;
        }
        self.inbox.send_or_drop(Message {
            bytes,
            from: Some(show(&self.base, from)),
            packet: Some(packet),
            at: vfs::realtime_now(),
            ..Message::default()
        });
    }

    /// Destination of a send.
    fn target(&self, state: &State, message: &SendMsg) -> SysResult<InetAddr> {
        let to = match &message.addr {
            // udp_sendmsg takes AF_UNSPEC for AF_INET.
            Some(SockAddr::UnspecWithAddress(addr)) if !is_v6(&self.base) => *addr,
            Some(SockAddr::Unspec) if !is_v6(&self.base) => return Err(Errno::EINVAL),
            Some(SockAddr::Inet(addr)) if is_v6(&self.base) && addr.ip.is_ipv4() => {
                if super::v6_only(&self.base) {
                    return Err(Errno::ENETUNREACH);
                }
                *addr
            }
            Some(addr) => own_family(&self.base, addr)?,
            None => return state.peer.ok_or(Errno::EDESTADDRREQ),
        };
        if to.port == 0 {
            return Err(Errno::EINVAL);
        }
        Ok(to)
    }

    /// The way to `to`, as far as the header and the socket's own address allow.
    fn way_with(&self, state: &State, to: InetAddr, header: &Header) -> SysResult<Way> {
        let mut found = way(&self.base, to)?;
        if found.cast == Cast::Broadcast && !self.base.with(|o| o.broadcast) {
            return Err(Errno::EACCES);
        }
        let own = state.local.map(|local| local.ip);
        // A socket of one family's address does not reach the other.
        if own.is_some_and(|ip| !ip.is_unspecified() && ip.is_ipv4() != found.to.ip.is_ipv4()) {
            return Err(Errno::ENETUNREACH);
        }
        let fits = |ip: &IpAddr| {
            !ip.is_unspecified()
                && !ip.is_multicast()
                && self.base.ns.broadcast_at(*ip).is_none()
                && !is_limited_broadcast(*ip)
        };
        if let Some(ip) = header.source.or(own.filter(fits)) {
            found.source = ip;
        }
        Ok(found)
    }

    /// Sends what is there, in one piece or in segments.
    fn transmit(&self, corked: Corked, from_port: u16, connected: bool) {
        let Corked { to, way, header, bytes } = corked;
        let parts: Vec<Vec<u8>> = match header.segment {
            0 => vec![bytes],
            size if bytes.len() <= size => vec![bytes],
            size => bytes.chunks(size).map(<[u8]>::to_vec).collect(),
        };
        for part in parts {
            // Kept for the error queue.
            let reports = self.base.is_on(level::IP, 11) || self.base.is_on(level::IPV6, 25);
            let copy = if reports { part.clone() } else { Vec::new() };
            // Groups: the sender's own wish decides whether this host hears it.
            let v6 = to.ip.is_ipv6();
            let (at, name) = if v6 { (level::IPV6, 19) } else { (level::IP, 34) };
            // The loopback itself loops whatever it is given.
            let lo = way.index.0 == self.base.ns.loopback_index();
            let looped = way.cast != Cast::Group || lo || self.base.int(at, name).unwrap_or(1) != 0;
            if way.cast != Cast::One {
                self.beyond(&way, from_port, &header, &part);
            }
            if looped && !arrive(self.base.protocol, &way, from_port, &header, part) {
                self.refused(&way, copy, connected);
            }
        }
    }

    /// What goes to many goes to those on the link as well.
    fn beyond(&self, way: &Way, from_port: u16, header: &Header, bytes: &[u8]) {
        for (far, into) in self.base.ns.on_link(way.index.0) {
            let there = Way { ns: Some(far), index: (way.index.0, into), ..way.clone() };
            arrive(self.base.protocol, &there, from_port, header, bytes.to_vec());
        }
    }

    /// A port unreachable comes back.
    fn refused(&self, way: &Way, bytes: Vec<u8>, connected: bool) {
        let v6 = way.to.ip.is_ipv6();
        let wanted = self.base.is_on(if v6 { level::IPV6 } else { level::IP }, if v6 { 25 } else { 11 });
        if wanted {
            let cause = if v6 { (3, 1, 4) } else { (2, 3, 3) };
            let control = extended_error(v6, Some(Errno::ECONNREFUSED), cause, (0, 0), Some(way.to.ip));
            self.base.report(Report {
                error: Some(Errno::ECONNREFUSED),
                bytes,
                to: Some(show(&self.base, way.to)),
                control: vec![control],
            });
        } else if connected {
            self.base.set_error(Errno::ECONNREFUSED);
        }
    }

    fn too_long(&self, to: InetAddr) -> Errno {
        let v6 = to.ip.is_ipv6();
        if self.base.is_on(level::IP, 11) && !v6 {
            let control = extended_error(false, Some(Errno::EMSGSIZE), (1, 0, 0), (65_535, 0), None);
            let report = Report {
                error: None,
                bytes: Vec::new(),
                to: Some(show(&self.base, to)),
                control: vec![control],
            };
            self.base.report(report);
        }
        Errno::EMSGSIZE
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        if let Some(port) = self.state.get_mut().held.take() {
            table(&self.base.ns, self.base.protocol).lock().release(port, std::ptr::from_ref(self));
        }
        self.inbox.close();
    }
}

impl Socket for UdpSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn base(&self) -> &Base {
        &self.base
    }
    fn bind(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let addr = bind_addr(&self.base, addr)?;
        may_bind(&self.base, addr, by)?;
        let mut state = self.state.lock();
        if state.held.is_some() {
            return Err(Errno::EINVAL);
        }
        self.claim(&mut state, addr, by)?;
        // A port that was asked for by number outlives connections.
        state.bound = addr.port != 0;
        state.fixed = state.local;
        Ok(())
    }
    fn connect(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let mut state = self.state.lock();
        let me = std::ptr::from_ref(self);
        if addr.is_unspec() {
            state.peer = None;
            if let (Some(port), Some(local)) = (state.held, state.local) {
                if state.bound {
                    // The address that connect(2) chose goes again.
                    let local = state.fixed.unwrap_or(local);
                    state.local = Some(local);
                    self.table().lock().set_peer(port, me, local, None);
                } else if let Some(fixed) = state.fixed {
                    // And a port that bind(2) left to chance.
                    self.table().lock().release(port, me);
                    state.held = None;
                    state.local = Some(InetAddr { port: 0, ..fixed });
                } else {
                    self.table().lock().release(port, me);
                    state.held = None;
                    state.local = None;
                }
            }
            return Ok(());
        }
        let to = match addr {
            SockAddr::Inet(addr) if is_v6(&self.base) && addr.ip.is_ipv4() && !super::v6_only(&self.base) => {
                *addr
            }
            addr => own_family(&self.base, addr)?,
        };
        if matches!(to.ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) && to.scope == 0 {
            return Err(Errno::EINVAL);
        }
        let header = Header::new(&self.base, to.ip, &SendMsg::default())?;
        let found = self.way_with(&state, to, &header)?;
        if state.held.is_none() {
            let ip =
                state.fixed.map(|fixed| fixed.ip).filter(|ip| !ip.is_unspecified()).unwrap_or(found.source);
            self.claim(&mut state, InetAddr { ip, port: 0, scope: 0 }, by)?;
        }
        let (Some(port), Some(mut local)) = (state.held, state.local) else { return Err(Errno::EINVAL) };
        if local.ip.is_unspecified() {
            local = InetAddr { ip: found.source, port, scope: 0 };
            state.local = Some(local);
        }
        state.peer = Some(found.to);
        self.table().lock().set_peer(port, me, local, Some(found.to));
        Ok(())
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, by: &Caller<'_>) -> SysResult<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        let more = message.flags.contains(MsgFlags::MORE) || self.base.is_on(level::UDP, UDP_CORK);
        let mut state = self.state.lock();
        let len = src.remaining();
        if let Some(corked) = state.corked.as_mut() {
            if corked.bytes.len().saturating_add(len) > MAX_V4 {
                return Err(Errno::EMSGSIZE);
            }
            corked.bytes.extend(take_all(src)?);
            if more {
                return Ok(len);
            }
        } else {
            if state.held.is_none() {
                let any = state.fixed.unwrap_or(InetAddr::any(is_v6(&self.base)));
                self.claim(&mut state, InetAddr { port: 0, ..any }, by)?;
            }
            let to = self.target(&state, message)?;
            let header = Header::new(&self.base, to.ip, message)?;
            let found = self.way_with(&state, to, &header)?;
            if state.shut_write {
                return Err(Errno::EPIPE);
            }
            if len > if found.to.ip.is_ipv4() { MAX_V4 } else { MAX_V6 } {
                return Err(self.too_long(found.to));
            }
            if header.segment != 0 && len.div_ceil(header.segment) > MOST_SEGMENTS {
                return Err(Errno::EINVAL);
            }
            let bytes = take_all(src)?;
            state.corked = Some(Corked { to: found.to, way: found, header, bytes });
            if more {
                return Ok(len);
            }
        }
        let corked = state.corked.take().ok_or(Errno::EINVAL)?;
        let local = state.local.ok_or(Errno::EINVAL)?;
        let connected = state.peer == Some(corked.to);
        // Receivers may be this very socket.
        drop(state);
        self.transmit(corked, local.port, connected);
        Ok(len)
    }
    fn recv(
        &self,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        _skip: usize,
        _by: &Caller<'_>,
    ) -> SysResult<Received> {
        mailbox::receive(&self.base, &self.inbox, dst, flags, |m| info::control(&self.base, m))
    }
    fn recv_beside(&self, dst: &mut dyn GuestSink, flags: MsgFlags) -> SysResult<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return mailbox::receive_report(&self.base, dst);
        }
        // MSG_OOB means nothing here.
        mailbox::receive(&self.base, &self.inbox, dst, flags, |m| info::control(&self.base, m))
    }
    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let mut state = self.state.lock();
        if state.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        state.shut_write |= how.writes();
        state.shut_read |= how.reads();
        drop(state);
        if how.reads() {
            self.inbox.stop_reading();
        }
        Ok(())
    }
    fn local_addr(&self) -> SysResult<SockAddr> {
        let local = self.state.lock().local;
        Ok(show(&self.base, local.unwrap_or_else(|| InetAddr::any(is_v6(&self.base)))))
    }
    fn peer_addr(&self) -> SysResult<SockAddr> {
        let peer = self.state.lock().peer.filter(|peer| peer.port != 0);
        peer.map(|p| show(&self.base, p)).ok_or(Errno::ENOTCONN)
    }
    fn ready(&self, interest: Events) -> Events {
        let mut events = mailbox::ready(&self.base, &self.inbox, interest);
        let state = self.state.lock();
        if state.shut_read && state.shut_write {
            events |= Events::HUP;
        }
        events
    }
    fn get_option(&self, at: i32, name: i32, _by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        if (at, name) == (level::SOCKET, 55) {
            let (held, drops) = self.queue();
            let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let words =
                [size(held), size(self.base.rcvbuf()), 0, size(self.base.sndbuf()), 0, 0, 0, 0, drops];
            return Some(Ok(words.iter().flat_map(|n| n.to_ne_bytes()).collect()));
        }
        options::get(&self.base, at, name, self.standing())
    }
    fn set_option(&self, at: i32, name: i32, value: &[u8], by: &Caller<'_>) -> Option<SysResult<()>> {
        let done = options::set(&self.base, at, name, value, self.standing(), by);
        if (at, name) == (level::UDP, UDP_CORK) && matches!(done, Some(Ok(()))) && !self.base.is_on(at, name)
        {
            let mut state = self.state.lock();
            let (corked, local, peer) = (state.corked.take(), state.local, state.peer);
            drop(state);
            if let (Some(corked), Some(local)) = (corked, local) {
                let connected = peer == Some(corked.to);
                self.transmit(corked, local.port, connected);
            }
        }
        done
    }
    fn buffers_changed(&self) {
        self.inbox.set_limit(self.base.rcvbuf());
        // SO_BINDTODEVICE and SO_REUSEADDR after bind(2).
        let told = self.base.with(|o| Told { device: o.device, reuse_addr: o.reuse_addr });
        if let Some(port) = self.state.lock().held {
            self.table().lock().retell(port, std::ptr::from_ref(self), told);
        }
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        Ok(self.inbox.status().len)
    }
}

/// Gives a datagram that came as bytes (a packet socket, a raw socket) to whom it is for.
pub(crate) fn inject(ns: &Arc<NetNs>, into: u32, packet: &Packet<'_>) {
    let port =
        |at: usize| packet.payload.get(at..).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b));
    let (Some(from), Some(to), Some(length)) = (port(0), port(2), port(4)) else { return };
    let Some(bytes) = packet.payload.get(wire::UDP_HEADER..usize::from(length)) else { return };
    let cast = match packet.target {
        ip if ip.is_multicast() => Cast::Group,
        ip if is_limited_broadcast(ip) || ns.broadcast_at(ip).is_some() => Cast::Broadcast,
        ip if ns.is_local(ip) => Cast::One,
        _ => return,
    };
    let way = Way {
        ns: Some(Arc::clone(ns)),
        to: InetAddr { ip: packet.target, port: to, scope: 0 },
        source: packet.source,
        index: (into, into),
        cast,
    };
    let header = Header { ttl: packet.ttl, tos: packet.tos, source: None, index: None, mark: 0, segment: 0 };
    let from = InetAddr { ip: packet.source, port: from, scope: 0 };
    let sockets = &ns.udp;
    let receivers = match cast {
        Cast::One => sockets.lock().find(way.to, from, into, |_| true).into_iter().collect(),
        _ => sockets.lock().find_all(way.to, from, into),
    };
    for receiver in receivers.iter().filter_map(Weak::upgrade) {
        if cast != Cast::Group || multicast::takes(&receiver.base, way.to.ip, way.source, into) {
            receiver.take(&way, from, &header, bytes.to_vec());
        }
    }
}
