//! Raw sockets (raw(7)) and ping sockets (icmp(7)) over the loopback. Packets exist only on their way from
//! one such socket to others; the one thing that answers them is the echo of ICMP. Locks: `Socket` for the
//! state, `SocketPeer` for the receive queue, neither held while the other sockets are looked at.

use super::info::{self, Header};
use super::options::{self, Standing};
use super::wire::{self, Packet, V4_HEADER};
use super::{Cast, Way, bind_addr, is_v6, may_bind, own_family, show, way};
use crate::addr::{InetAddr, SockAddr};
use crate::base::Base;
use crate::filter::View;
use crate::inbox::{Message, MessageInbox, PacketInfo};
use crate::mailbox;
use crate::netns::NetNs;
use crate::socket::Socket;
use crate::types::{MsgFlags, Received, SendMsg, Shutdown, SockType, level};
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::Socket as SocketRank;
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Weak};
use vfs::Caller;

const IPPROTO_ICMP: i32 = 1;
const IPPROTO_ICMPV6: i32 = 58;
const IPPROTO_RAW: i32 = 255;
const IP_HDRINCL: i32 = 3;
/// Bytes of an echo's header.
const ECHO_HEADER: usize = 8;
const MOST: usize = 65_535;

static IDENT: AtomicU16 = AtomicU16::new(1);

/// What a socket is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// SOCK_RAW: every packet of the protocol.
    Raw,
    /// SOCK_DGRAM: echo requests with the socket's identifier, and the replies to them.
    Ping,
}

#[derive(Debug, Default)]
struct State {
    local: Option<InetAddr>,
    peer: Option<InetAddr>,
    // Of a ping socket; 0 until it has one.
    ident: u16,
    shut_write: bool,
    // Bit n: ICMP type n is kept out (ICMP_FILTER, ICMPV6_FILTER).
    filter: [u32; 8],
}

/// A raw or ping socket.
#[derive(Debug)]
pub struct RawSocket {
    base: Base,
    form: Form,
    inbox: Arc<MessageInbox>,
    state: Ranked<SocketRank, State>,
}

/// Types of the echo messages of the family: request and reply.
fn echo_types(v6: bool) -> (u8, u8) {
    if v6 { (128, 129) } else { (8, 0) }
}

fn ident_of(message: &[u8]) -> Option<u16> {
    message.get(4..6).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b))
}

fn raw_sockets(ns: &NetNs) -> Vec<Arc<RawSocket>> {
    ns.raw.lock().iter().filter_map(Weak::upgrade).collect()
}

/// Shows a packet to raw and packet sockets of the namespace that it arrives in.
pub(crate) fn show_to_all(ns: &Arc<NetNs>, way: &Way, packet: &Packet<'_>) {
    crate::packet::pass(ns, way, packet);
    show_raw(ns, way, packet);
}

/// Shows a packet to the raw sockets alone.
pub(crate) fn show_raw(ns: &Arc<NetNs>, way: &Way, packet: &Packet<'_>) {
    for socket in raw_sockets(ns) {
        socket.take(way, packet);
    }
}

/// Gives a packet to every socket that asks for it, and then the answer that it causes.
fn deliver(way: &Way, packet: &Packet<'_>) {
    let Some(ns) = &way.ns else { return };
    show_to_all(ns, way, packet);
    inject(ns, way, packet);
}

/// What the stack itself does with a packet that somebody wrote.
pub(crate) fn inject(ns: &Arc<NetNs>, way: &Way, packet: &Packet<'_>) {
    let v6 = packet.target.is_ipv6();
    let (request, reply) = echo_types(v6);
    let icmp = i32::from(packet.protocol) == if v6 { IPPROTO_ICMPV6 } else { IPPROTO_ICMP };
    if packet.protocol == 17 {
        super::udp::inject(ns, way.index.1, packet);
    } else if icmp && packet.payload.first() == Some(&request) && packet.payload.len() >= ECHO_HEADER {
        let mut answer = packet.payload.to_vec();
        if let Some(kind) = answer.first_mut() {
            *kind = reply;
        }
        wire::seal_icmp(&mut answer, packet.target, packet.source);
        let back =
            Packet { source: packet.target, target: packet.source, payload: &answer, ttl: 64, ..*packet };
        // The echo goes the way back, to the namespace of the one who asked.
        let found = if ns.is_local(packet.source) {
            Some((Arc::clone(ns), way.index.1))
        } else {
            ns.reach(packet.source, 0).ok().and_then(|reach| Some((reach.ns?, reach.into)))
        };
        if let Some((asker, into)) = found {
            let to = InetAddr { ip: packet.source, port: 0, scope: 0 };
            let home = Way { ns: None, to, source: packet.target, index: (into, into), cast: Cast::One };
            show_to_all(&asker, &home, &back);
        }
    }
}

impl RawSocket {
    /// An unbound socket. The caller has checked who may.
    #[must_use]
    pub fn new(ns: &Arc<NetNs>, domain: u16, form: Form, protocol: i32) -> Arc<RawSocket> {
        let kind = if form == Form::Raw { SockType::Raw } else { SockType::Dgram };
        let base = Base::new(ns, domain, kind, protocol);
        // Raw sockets are born with it (inet_create of Linux).
        base.change(|o| o.reuse_addr = form == Form::Raw);
        if protocol == IPPROTO_RAW {
            base.remember(level::IP, IP_HDRINCL, 1);
        }
        let inbox = MessageInbox::new(&base.queue, base.rcvbuf(), usize::MAX);
        let socket = Arc::new(RawSocket { base, form, inbox, state: Ranked::default() });
        let mut list = ns.raw.lock();
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(&socket));
        drop(list);
        ns.watchers.fetch_add(1, Ordering::Relaxed);
        socket
    }
    /// Local and peer address, and the protocol in the place of a port, for /proc/net/raw; `None` for a ping socket.
    #[must_use]
    pub fn row(&self) -> (Form, Option<InetAddr>, Option<InetAddr>, u16) {
        let state = self.state.lock();
        let number = match self.form {
            Form::Ping => state.ident,
            Form::Raw => u16::try_from(self.base.protocol).unwrap_or(0),
        };
        (self.form, state.local, state.peer, number)
    }

    /// Puts a packet into the queue if this socket asks for it.
    fn take(&self, way: &Way, packet: &Packet<'_>) {
        let v6 = is_v6(&self.base);
        let raw_all = self.base.protocol == IPPROTO_RAW;
        if raw_all || packet.target.is_ipv6() != v6 || i32::from(packet.protocol) != self.base.protocol {
            return;
        }
        let device = self.base.with(|o| o.device);
        if device != 0 && device != way.index.1 {
            return;
        }
        {
            let state = self.state.lock();
            let fits = |own: Option<InetAddr>, ip| own.is_none_or(|a| a.ip.is_unspecified() || a.ip == ip);
            if !fits(state.local, packet.target) || !fits(state.peer, packet.source) {
                return;
            }
            let kind = packet.payload.first().copied().unwrap_or(0);
            let wanted = match self.form {
                Form::Ping => kind == echo_types(v6).1 && ident_of(packet.payload) == Some(state.ident),
                Form::Raw => {
                    let word = state.filter.get(usize::from(kind / 32)).copied().unwrap_or(0);
                    let icmp = matches!(self.base.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6);
                    !icmp || word & (1 << (kind % 32)) == 0
                }
            };
            if !wanted {
                return;
            }
        }
        let mut bytes = match self.form {
            Form::Raw if !v6 => packet.bytes(),
            _ => packet.payload.to_vec(),
        };
        if let Some(filter) = self.base.with(|o| o.filter.clone()) {
            let protocol = if v6 { 0x86dd } else { 0x0800 };
            match filter.run(&View { bytes: &bytes, protocol, index: way.index.1, ..View::default() }) {
                0 => return,
                keep => bytes.truncate(keep),
            }
        }
        let from = InetAddr { ip: packet.source, port: 0, scope: 0 };
        let to = InetAddr { ip: packet.target, port: 0, scope: 0 };
        let told = PacketInfo {
            to,
            ttl: packet.ttl,
            tos: packet.tos,
            index: way.index.1,
            mark: 0,
            local: Ipv4Addr::LOCALHOST,
            cast: way.cast == Cast::Broadcast,
        };
        self.inbox.send_or_drop(Message {
            bytes,
            from: Some(show(&self.base, from)),
            packet: Some(told),
            at: vfs::realtime_now(),
            ..Message::default()
        });
    }

    /// The identifier of a ping socket: `wanted`, or a free one.
    fn claim(&self, state: &mut State, wanted: u16) {
        if self.form == Form::Ping && state.ident == 0 {
            state.ident = match wanted {
                0 => IDENT.fetch_add(1, Ordering::Relaxed).max(1),
                ident => ident,
            };
        }
    }

    fn standing(&self) -> Standing {
        let state = self.state.lock();
        Standing { bound: state.local.is_some(), connected: state.peer.is_some(), ..Standing::default() }
    }
    fn takes_header(&self) -> bool {
        self.form == Form::Raw && !is_v6(&self.base) && self.base.is_on(level::IP, IP_HDRINCL)
    }

    /// Sends what the guest wrote with its own IP header.
    fn send_with_header(&self, bytes: &[u8], way: &Way) -> SysResult<()> {
        let length = usize::from(bytes.first().copied().unwrap_or(0) & 15) * 4;
        if bytes.len() < V4_HEADER || length < V4_HEADER || length > bytes.len() {
            return Err(Errno::EINVAL);
        }
        let address = |at: usize| {
            bytes
                .get(at..)
                .and_then(|b| b.first_chunk::<4>())
                .map_or(Ipv4Addr::UNSPECIFIED, |b| Ipv4Addr::from(*b))
        };
        let source = Some(address(12)).filter(|ip| !ip.is_unspecified()).map_or(way.source, IpAddr::V4);
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let payload = bytes.get(length..).unwrap_or_default();
        let packet =
            Packet { source, target: way.to.ip, protocol: byte(9), ttl: byte(8), tos: byte(1), payload };
        deliver(way, &packet);
        Ok(())
    }

    fn send_payload(&self, mut bytes: Vec<u8>, way: &Way, header: &Header, ident: u16) -> SysResult<()> {
        let v6 = is_v6(&self.base);
        if self.form == Form::Ping {
            let request = echo_types(v6).0;
            if bytes.len() < ECHO_HEADER || bytes.first() != Some(&request) || bytes.get(1) != Some(&0) {
                return Err(Errno::EINVAL);
            }
            if let Some(place) = bytes.get_mut(4..6) {
                place.copy_from_slice(&ident.to_be_bytes());
            }
        }
        if self.form == Form::Ping || self.base.protocol == IPPROTO_ICMPV6 {
            wire::seal_icmp(&mut bytes, way.source, way.to.ip);
        }
        let protocol = u8::try_from(self.base.protocol).map_err(|_| Errno::EINVAL)?;
        let (ttl, tos) = (header.ttl, header.tos);
        deliver(way, &Packet { source: way.source, target: way.to.ip, protocol, ttl, tos, payload: &bytes });
        Ok(())
    }

    /// ICMP_FILTER and ICMPV6_FILTER: level, name, and words of the value.
    fn filter_words(&self, at: i32, name: i32) -> Option<usize> {
        match (self.form, self.base.protocol, at, name) {
            (Form::Raw, IPPROTO_ICMP, 255, 1) => Some(1),
            (Form::Raw, IPPROTO_ICMPV6, 58, 1) => Some(8),
            _ => None,
        }
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        self.base.ns.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Socket for RawSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn base(&self) -> &Base {
        &self.base
    }
    fn bind(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let addr = bind_addr(&self.base, addr)?;
        // Ports mean nothing here, so none is privileged.
        may_bind(&self.base, InetAddr { port: 0, ..addr }, by)?;
        let mut state = self.state.lock();
        if self.form == Form::Ping && state.ident != 0 {
            return Err(Errno::EINVAL);
        }
        self.claim(&mut state, addr.port);
        state.local = Some(addr);
        Ok(())
    }
    fn connect(&self, addr: &SockAddr, _by: &Caller<'_>) -> SysResult<()> {
        if addr.is_unspec() {
            self.state.lock().peer = None;
            return Ok(());
        }
        let found = way(&self.base, own_family(&self.base, addr)?)?;
        if found.cast == Cast::Broadcast && !self.base.with(|o| o.broadcast) {
            return Err(Errno::EACCES);
        }
        let mut state = self.state.lock();
        self.claim(&mut state, 0);
        if state.local.is_none_or(|local| local.ip.is_unspecified()) {
            state.local = Some(InetAddr { ip: found.source, port: 0, scope: 0 });
        }
        state.peer = Some(found.to);
        Ok(())
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, _by: &Caller<'_>) -> SysResult<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (mut found, header, ident) = {
            let mut state = self.state.lock();
            if state.shut_write {
                return Err(Errno::EPIPE);
            }
            let to = match &message.addr {
                Some(SockAddr::UnspecWithAddress(addr)) if !is_v6(&self.base) => *addr,
                Some(addr) => own_family(&self.base, addr)?,
                None => state.peer.ok_or(Errno::EDESTADDRREQ)?,
            };
            let header = Header::new(&self.base, to.ip, message)?;
            let mut found = way(&self.base, to)?;
            self.claim(&mut state, 0);
            let local = state.local.map(|l| l.ip).filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
            if let Some(ip) = header.source.or(local) {
                found.source = ip;
            }
            (found, header, state.ident)
        };
        if found.cast == Cast::Broadcast && !self.base.with(|o| o.broadcast) {
            return Err(Errno::EACCES);
        }
        let len = src.remaining();
        if len > MOST {
            return Err(Errno::EMSGSIZE);
        }
        let bytes = super::take_all(src)?;
        found.to.port = 0;
        if self.takes_header() {
            self.send_with_header(&bytes, &found)?;
        } else {
            self.send_payload(bytes, &found, &header, ident)?;
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
        mailbox::receive(&self.base, &self.inbox, dst, flags, |m| info::control(&self.base, m))
    }
    fn recv_beside(&self, dst: &mut dyn GuestSink, flags: MsgFlags) -> SysResult<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return mailbox::receive_report(&self.base, dst);
        }
        Err(Errno::EOPNOTSUPP)
    }
    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let mut state = self.state.lock();
        if state.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        state.shut_write |= how.writes();
        drop(state);
        if how.reads() {
            self.inbox.stop_reading();
        }
        Ok(())
    }
    fn local_addr(&self) -> SysResult<SockAddr> {
        let state = self.state.lock();
        let local = state.local.unwrap_or_else(|| InetAddr::any(is_v6(&self.base)));
        // What Linux keeps in the place of a port.
        let port = match self.form {
            Form::Ping => state.ident,
            Form::Raw => u16::try_from(self.base.protocol).unwrap_or(0),
        };
        Ok(show(&self.base, InetAddr { port, ..local }))
    }
    fn peer_addr(&self) -> SysResult<SockAddr> {
        self.state.lock().peer.map(|p| show(&self.base, p)).ok_or(Errno::ENOTCONN)
    }
    fn ready(&self, interest: Events) -> Events {
        mailbox::ready(&self.base, &self.inbox, interest)
    }
    fn get_option(&self, at: i32, name: i32, _by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        if let Some(words) = self.filter_words(at, name) {
            let filter = self.state.lock().filter;
            return Some(Ok(filter.iter().take(words).flat_map(|word| word.to_ne_bytes()).collect()));
        }
        options::get(&self.base, at, name, self.standing())
    }
    fn set_option(&self, at: i32, name: i32, value: &[u8], by: &Caller<'_>) -> Option<SysResult<()>> {
        if let Some(words) = self.filter_words(at, name) {
            // What is not given stays.
            let mut state = self.state.lock();
            for (slot, bytes) in state.filter.iter_mut().take(words).zip(value.chunks(4)) {
                let mut word = slot.to_ne_bytes();
                for (byte, given) in word.iter_mut().zip(bytes) {
                    *byte = *given;
                }
                *slot = u32::from_ne_bytes(word);
            }
            return Some(Ok(()));
        }
        options::set(&self.base, at, name, value, self.standing(), by)
    }
    fn buffers_changed(&self) {
        self.inbox.set_limit(self.base.rcvbuf());
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        Ok(self.inbox.status().len)
    }
}
