//! Raw sockets (raw(7)) and ping sockets (icmp(7)) over the loopback. Packets exist only on their way from
//! one such socket to others; the one thing that answers them is the echo of ICMP. Locks: `Socket` for the
//! state, `SocketPeer` for the receive queue, neither held while the other sockets are looked at.

use super::info::{packet_info, stamps};
use super::options;
use super::{destination, is_v6, may_bind, own_family, show, source_for};
use crate::addr::{InetAddr, SockAddr};
use crate::base::Base;
use crate::inbox::{Ancillary, Message, MessageInbox};
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
/// Bytes of an IPv4 header without options, and of an echo's header.
const HEADER: usize = 20;
const ECHO_HEADER: usize = 8;
const MOST: usize = 65_535;

static IDENT: AtomicU16 = AtomicU16::new(1);
static IP_ID: AtomicU16 = AtomicU16::new(1);

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

/// A packet between two addresses of this host.
struct Packet<'a> {
    source: IpAddr,
    target: IpAddr,
    protocol: u8,
    ttl: u8,
    payload: &'a [u8],
}

/// The Internet checksum (RFC 1071) of `parts`, each of even length but the last.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            let high = pair.first().copied().unwrap_or(0);
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u32::from(u16::from_be_bytes([high, low]));
        }
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let folded = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = (!folded).to_be_bytes();
    [high, low]
}

/// Fills in the checksum of an ICMP message.
fn seal(message: &mut [u8], source: IpAddr, target: IpAddr) {
    if let Some(place) = message.get_mut(2..4) {
        place.fill(0);
    }
    let sum = match (source, target) {
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
            checksum(&[&source.octets(), &target.octets(), &length, &[0, 0, 0, 58], message])
        }
        _ => checksum(&[message]),
    };
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&sum);
    }
}

/// Types of the echo messages of the family: request and reply.
fn echo_types(v6: bool) -> (u8, u8) {
    if v6 { (128, 129) } else { (8, 0) }
}

fn ident_of(message: &[u8]) -> Option<u16> {
    message.get(4..6).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b))
}

/// Gives a packet to every socket that asks for it, and then the echo that it causes.
fn deliver(ns: &NetNs, packet: &Packet<'_>) {
    let sockets: Vec<Arc<RawSocket>> = ns.raw.lock().iter().filter_map(Weak::upgrade).collect();
    for socket in &sockets {
        socket.take(packet);
    }
    let v6 = packet.target.is_ipv6();
    let (request, reply) = echo_types(v6);
    let icmp = i32::from(packet.protocol) == if v6 { IPPROTO_ICMPV6 } else { IPPROTO_ICMP };
    if icmp && packet.payload.first() == Some(&request) && packet.payload.len() >= ECHO_HEADER {
        let mut answer = packet.payload.to_vec();
        if let Some(kind) = answer.first_mut() {
            *kind = reply;
        }
        seal(&mut answer, packet.target, packet.source);
        let back =
            Packet { source: packet.target, target: packet.source, payload: &answer, ttl: 64, ..*packet };
        for socket in &sockets {
            socket.take(&back);
        }
    }
}

fn header(packet: &Packet<'_>, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let length = u16::try_from(HEADER + packet.payload.len()).unwrap_or(u16::MAX);
    let mut out = vec![0x45, 0];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&IP_ID.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    out.extend_from_slice(&[0, 0, packet.ttl, packet.protocol, 0, 0]);
    out.extend_from_slice(&source.octets());
    out.extend_from_slice(&target.octets());
    let sum = checksum(&[&out]);
    if let Some(place) = out.get_mut(10..12) {
        place.copy_from_slice(&sum);
    }
    out
}

impl RawSocket {
    /// An unbound socket. The caller has checked who may.
    #[must_use]
    pub fn new(ns: &Arc<NetNs>, domain: u16, form: Form, protocol: i32) -> Arc<RawSocket> {
        let kind = if form == Form::Raw { SockType::Raw } else { SockType::Dgram };
        let base = Base::new(ns, domain, kind, protocol);
        if protocol == IPPROTO_RAW {
            base.change(|o| {
                o.ints.insert((level::IP, IP_HDRINCL), 1);
            });
        }
        let inbox = MessageInbox::new(&base.queue, base.rcvbuf(), usize::MAX);
        let socket = Arc::new(RawSocket { base, form, inbox, state: Ranked::default() });
        let mut list = ns.raw.lock();
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(&socket));
        drop(list);
        socket
    }

    /// Puts a packet into the queue if this socket asks for it.
    fn take(&self, packet: &Packet<'_>) {
        let v6 = is_v6(&self.base);
        if packet.target.is_ipv6() != v6 || i32::from(packet.protocol) != self.base.protocol {
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
        let bytes = match (packet.source, packet.target) {
            (IpAddr::V4(source), IpAddr::V4(target)) if self.form == Form::Raw => {
                [header(packet, source, target), packet.payload.to_vec()].concat()
            }
            _ => packet.payload.to_vec(),
        };
        let from = InetAddr { ip: packet.source, port: 0, scope: 0 };
        let control = packet_info(&self.base, InetAddr { ip: packet.target, port: 0, scope: 0 }, packet.ttl);
        let from = Some(show(&self.base, from));
        self.inbox.send_or_drop(Message { bytes, from, with: Ancillary::default(), control });
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

    fn takes_header(&self) -> bool {
        self.form == Form::Raw && !is_v6(&self.base) && self.base.int(level::IP, IP_HDRINCL).unwrap_or(0) != 0
    }

    /// Sends what the guest wrote with its own IP header.
    fn send_with_header(&self, bytes: &[u8], local: IpAddr, to: IpAddr) -> SysResult<()> {
        let length = usize::from(bytes.first().copied().unwrap_or(0) & 15) * 4;
        if bytes.len() < HEADER || length < HEADER || length > bytes.len() {
            return Err(Errno::EINVAL);
        }
        let address = |at: usize| {
            bytes
                .get(at..)
                .and_then(|b| b.first_chunk::<4>())
                .map_or(Ipv4Addr::UNSPECIFIED, |b| Ipv4Addr::from(*b))
        };
        let source = Some(address(12)).filter(|ip| !ip.is_unspecified()).map_or(local, IpAddr::V4);
        let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
        let payload = bytes.get(length..).unwrap_or_default();
        deliver(&self.base.ns, &Packet { source, target: to, protocol: byte(9), ttl: byte(8), payload });
        Ok(())
    }

    fn send_payload(&self, mut bytes: Vec<u8>, local: IpAddr, to: IpAddr, ident: u16) -> SysResult<()> {
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
            seal(&mut bytes, local, to);
        }
        let (at, name) = if v6 { (level::IPV6, 16) } else { (level::IP, 2) };
        let ttl = self.base.int(at, name).and_then(|ttl| u8::try_from(ttl).ok()).unwrap_or(64);
        let protocol = u8::try_from(self.base.protocol).map_err(|_| Errno::EINVAL)?;
        deliver(&self.base.ns, &Packet { source: local, target: to, protocol, ttl, payload: &bytes });
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

impl Socket for RawSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn base(&self) -> &Base {
        &self.base
    }
    fn bind(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let addr = own_family(&self.base, addr)?;
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
        if *addr == SockAddr::Unspec {
            self.state.lock().peer = None;
            return Ok(());
        }
        let to = destination(&self.base, own_family(&self.base, addr)?)?;
        let mut state = self.state.lock();
        self.claim(&mut state, 0);
        if state.local.is_none_or(|local| local.ip.is_unspecified()) {
            state.local = Some(source_for(to, 0));
        }
        state.peer = Some(to);
        Ok(())
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, _by: &Caller<'_>) -> SysResult<usize> {
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        let (to, local, ident) = {
            let mut state = self.state.lock();
            if state.shut_write {
                return Err(Errno::EPIPE);
            }
            let to = match &message.addr {
                Some(addr) => destination(&self.base, own_family(&self.base, addr)?)?,
                None => state.peer.ok_or(Errno::EDESTADDRREQ)?,
            };
            self.claim(&mut state, 0);
            let local = state.local.map(|l| l.ip).filter(|ip| !ip.is_unspecified());
            (to.ip, local.unwrap_or_else(|| source_for(to, 0).ip), state.ident)
        };
        let len = src.remaining();
        if len > MOST {
            return Err(Errno::EMSGSIZE);
        }
        let bytes = super::take_all(src)?;
        if self.takes_header() {
            self.send_with_header(&bytes, local, to)?;
        } else {
            self.send_payload(bytes, local, to, ident)?;
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
            super::info::deliver(message, dst, flags, stamps(&self.base, message))
        };
        if flags.contains(MsgFlags::PEEK) {
            return self.inbox.peek(|m| deliver(m, dst))?.unwrap_or_else(|| Ok(Received::default()));
        }
        match self.inbox.receive()? {
            Some(message) => deliver(&message, dst),
            None => Ok(Received::default()),
        }
    }
    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let mut state = self.state.lock();
        if state.peer.is_none() {
            return Err(Errno::ENOTCONN);
        }
        state.shut_write |= how.writes();
        drop(state);
        if how.reads() {
            self.inbox.shut_reading();
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
        let mut events = Events::WRITABLE;
        if self.inbox.has_message() {
            events |= Events::READABLE;
        }
        if self.inbox.status().closed {
            events |= Events::READABLE | Events::RDHUP;
        }
        events & (interest | Events::ALWAYS)
    }
    fn get_option(&self, at: i32, name: i32, _by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        if let Some(words) = self.filter_words(at, name) {
            let filter = self.state.lock().filter;
            return Some(Ok(filter.iter().take(words).flat_map(|word| word.to_ne_bytes()).collect()));
        }
        if (at, name) == (level::IP, IP_HDRINCL) && self.form == Form::Raw {
            return Some(Ok(i32::from(self.takes_header()).to_ne_bytes().to_vec()));
        }
        options::get(&self.base, at, name, 0)
    }
    fn set_option(&self, at: i32, name: i32, value: &[u8], by: &Caller<'_>) -> Option<SysResult<()>> {
        if let Some(words) = self.filter_words(at, name) {
            if value.len() < 4 {
                return Some(Err(Errno::EINVAL));
            }
            let mut state = self.state.lock();
            for (slot, bytes) in state.filter.iter_mut().take(words).zip(value.chunks_exact(4)) {
                *slot = bytes.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
            }
            return Some(Ok(()));
        }
        if (at, name) == (level::IP, IP_HDRINCL) && self.form == Form::Raw {
            let on = value.first().is_some_and(|_| value.iter().any(|byte| *byte != 0));
            self.base.change(|o| {
                o.ints.insert((at, name), i32::from(on));
            });
            return Some(Ok(()));
        }
        options::set(&self.base, at, name, value, false, by)
    }
    fn buffers_changed(&self) {
        self.inbox.set_limit(self.base.rcvbuf());
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        Ok(self.inbox.status().len)
    }
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn sums_of_rfc_1071() {
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), [0x22, 0x0d]);
        assert_eq!(checksum(&[&[1]]), [0xfe, 0xff]);
    }
}
