//! AF_PACKET (packet(7)): frames of a namespace's links, as sockets of other families cause them and as packet
//! sockets write them. Frames are laid out only while somebody looks. TCP between sockets of the sandbox makes no
//! frames. Locks: `Socket` for the address, `SocketPeer` for the receive queue.

use crate::addr::{InetAddr, LinkAddr, SockAddr};
use crate::base::Base;
use crate::filter::View;
use crate::inbox::{Message, MessageInbox};
use crate::inet::wire::{self, Packet};
use crate::inet::{Cast, Way, info, raw, take_all};
use crate::mailbox;
use crate::netns::{Interface, NetNs};
use crate::socket::Socket;
use crate::sockopt::read_int;
use crate::types::{AF_PACKET, Control, MsgFlags, Received, SendMsg, Shutdown, SockType, level};
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::Socket as SocketRank;
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use vfs::Caller;

/// Every protocol (ETH_P_ALL).
const ETH_P_ALL: u16 = 3;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// Bytes of an Ethernet header.
const HEADER: usize = 14;
/// ARPHRD_LOOPBACK, ARPHRD_ETHER.
const HATYPE_LOOPBACK: u16 = 772;
const HATYPE_ETHER: u16 = 1;
/// What a frame is to the host (PACKET_HOST and so on).
const HOST: u8 = 0;
const BROADCAST: u8 = 1;
const MULTICAST: u8 = 2;
const OTHER_HOST: u8 = 3;
const OUTGOING: u8 = 4;
/// PACKET_* options.
const ADD_MEMBERSHIP: i32 = 1;
const DROP_MEMBERSHIP: i32 = 2;
const STATISTICS: i32 = 6;
const AUXDATA: i32 = 8;
const VERSION: i32 = 10;
const HDRLEN: i32 = 11;
const IGNORE_OUTGOING: i32 = 23;

#[derive(Debug, Default)]
struct State {
    protocol: u16,
    index: u32,
    // PACKET_ADD_MEMBERSHIP: interface, type, address.
    members: Vec<(u32, u16, Vec<u8>)>,
}

/// A packet socket.
#[derive(Debug)]
pub struct PacketSocket {
    base: Base,
    inbox: Arc<MessageInbox>,
    state: Ranked<SocketRank, State>,
    // PACKET_STATISTICS since it was last asked for.
    seen: AtomicU32,
    drops_told: AtomicU32,
}

/// A frame on a link.
struct Frame<'a> {
    bytes: &'a [u8],
    index: u32,
    hatype: u16,
}

fn protocol_of(bytes: &[u8]) -> u16 {
    bytes.get(12..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b))
}

fn sockets(ns: &NetNs) -> Vec<Arc<PacketSocket>> {
    ns.packet.lock().iter().filter_map(Weak::upgrade).collect()
}

fn hatype(interface: &Interface) -> u16 {
    if interface.is_loopback() { HATYPE_LOOPBACK } else { HATYPE_ETHER }
}

/// Shows an IP packet to the packet sockets of the namespace where it arrives: on the loopback as it leaves, and as it
/// comes in.
pub(crate) fn pass(ns: &Arc<NetNs>, way: &Way, packet: &Packet<'_>) {
    let listeners = sockets(ns);
    if listeners.is_empty() {
        return;
    }
    let interfaces = ns.interfaces();
    let Some(interface) = interfaces.iter().find(|i| i.index == way.index.1) else { return };
    let target = match way.cast {
        Cast::Broadcast => [0xff; 6],
        _ => interface.hw,
    };
    let protocol = if packet.target.is_ipv4() { ETH_P_IP } else { ETH_P_IPV6 };
    let bytes = [&target[..], &interface.hw, &protocol.to_be_bytes(), &packet.bytes()].concat();
    let frame = Frame { bytes: &bytes, index: interface.index, hatype: hatype(interface) };
    let kind = match way.cast {
        Cast::One => HOST,
        Cast::Broadcast => BROADCAST,
        Cast::Group => MULTICAST,
    };
    for socket in &listeners {
        if interface.is_loopback() {
            socket.take(&frame, OUTGOING);
        }
        socket.take(&frame, if interface.is_loopback() { HOST } else { kind });
    }
}

/// A frame that somebody wrote arrives at an interface.
fn arrive(ns: &Arc<NetNs>, index: u32, bytes: &[u8]) {
    let interfaces = ns.interfaces();
    let Some(interface) = interfaces.iter().find(|i| i.index == index && i.is_up()) else { return };
    let target = bytes.first_chunk::<6>().copied().unwrap_or_default();
    let kind = match target {
        _ if interface.is_loopback() => HOST,
        [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => BROADCAST,
        [first, ..] if first & 1 != 0 => MULTICAST,
        other if other == interface.hw => HOST,
        _ => OTHER_HOST,
    };
    let frame = Frame { bytes, index, hatype: hatype(interface) };
    for socket in sockets(ns) {
        socket.take(&frame, kind);
    }
    let protocol = protocol_of(bytes);
    if kind == OTHER_HOST || !matches!(protocol, ETH_P_IP | ETH_P_IPV6) {
        return;
    }
    let Some(packet) = bytes.get(HEADER..).and_then(wire::parse) else { return };
    // 127.0.0.0/8 on a wire is a Martian.
    let martian = |ip: IpAddr| ip.is_ipv4() && ip.is_loopback();
    if packet.target.is_ipv4() != (protocol == ETH_P_IP) || martian(packet.source) || martian(packet.target) {
        return;
    }
    let cast = match packet.target {
        ip if ip.is_multicast() => Cast::Group,
        ip if ns.broadcast_at(ip).is_some() => Cast::Broadcast,
        _ => Cast::One,
    };
    let to = InetAddr { ip: packet.target, port: 0, scope: 0 };
    let way = Way { ns: None, to, source: packet.source, index: (index, index), cast };
    raw::show_raw(ns, &way, &packet);
    raw::inject(ns, &way, &packet);
}

impl PacketSocket {
    /// A socket of SOCK_RAW or SOCK_DGRAM; `protocol` in network order, as socket(2) has it.
    pub fn new(ns: &Arc<NetNs>, kind: SockType, protocol: i32) -> SysResult<Arc<PacketSocket>> {
        if !matches!(kind, SockType::Raw | SockType::Dgram) {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        let base = Base::new(ns, AF_PACKET, kind, 0);
        let inbox = MessageInbox::new(&base.queue, base.rcvbuf(), usize::MAX);
        let [first, second, _, _] = protocol.to_ne_bytes();
        let state = State { protocol: u16::from_be_bytes([first, second]), ..State::default() };
        let socket = Arc::new(PacketSocket {
            base,
            inbox,
            state: Ranked::new(state),
            seen: AtomicU32::new(0),
            drops_told: AtomicU32::new(0),
        });
        let mut list = ns.packet.lock();
        list.retain(|known| known.strong_count() > 0);
        list.push(Arc::downgrade(&socket));
        drop(list);
        ns.watchers.fetch_add(1, Ordering::Relaxed);
        Ok(socket)
    }
    /// Type, protocol, interface and bytes in the queue, for /proc/net/packet.
    #[must_use]
    pub fn row(&self) -> (SockType, u16, u32, usize) {
        let state = self.state.lock();
        (self.base.kind, state.protocol, state.index, self.inbox.held())
    }

    fn take(&self, frame: &Frame<'_>, kind: u8) {
        let (protocol, index) = {
            let state = self.state.lock();
            (state.protocol, state.index)
        };
        let own = protocol_of(frame.bytes);
        let outgoing = kind == OUTGOING;
        // Only who asks for every protocol sees what leaves.
        let wanted = protocol == ETH_P_ALL || protocol == own && !outgoing;
        if !wanted
            || index != 0 && index != frame.index
            || outgoing && self.base.is_on(level::PACKET, IGNORE_OUTGOING)
        {
            return;
        }
        let skip = if self.base.kind == SockType::Raw { 0 } else { HEADER };
        let mut bytes = frame.bytes.get(skip..).unwrap_or_default().to_vec();
        let real_len = bytes.len();
        if let Some(filter) = self.base.with(|o| o.filter.clone()) {
            let view = View {
                bytes: &bytes,
                network_at: HEADER - skip,
                protocol: own,
                pkttype: kind,
                index: frame.index,
                hatype: frame.hatype,
                mark: 0,
            };
            match filter.run(&view) {
                0 => return,
                keep => bytes.truncate(keep),
            }
        }
        self.seen.fetch_add(1, Ordering::Relaxed);
        let mut hw = [0; 8];
        for (slot, byte) in hw.iter_mut().zip(frame.bytes.get(6..12).unwrap_or_default()) {
            *slot = *byte;
        }
        let from =
            LinkAddr { protocol: own, index: frame.index, hatype: frame.hatype, pkttype: kind, hw, halen: 6 };
        let control = if self.base.is_on(level::PACKET, AUXDATA) {
            // `struct tpacket_auxdata`: status (TP_STATUS_USER), length, snapped length, mac, net, vlan.
            let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_ne_bytes();
            let net = u16::try_from(HEADER - skip).unwrap_or(0);
            let data = [
                &1_u32.to_ne_bytes()[..],
                &word(real_len),
                &word(bytes.len()),
                &[0; 2],
                &net.to_ne_bytes(),
                &[0; 4],
            ];
            vec![Control::Raw(level::PACKET, AUXDATA, data.concat())]
        } else {
            Vec::new()
        };
        self.inbox.send_or_drop(Message {
            bytes,
            real_len,
            from: Some(SockAddr::Link(from)),
            control,
            at: vfs::realtime_now(),
            ..Message::default()
        });
    }

    /// Puts a frame on a link.
    fn transmit(&self, interface: &Interface, bytes: &[u8]) {
        let ns = &self.base.ns;
        let frame = Frame { bytes, index: interface.index, hatype: hatype(interface) };
        for socket in sockets(ns) {
            if !std::ptr::eq(Arc::as_ptr(&socket), self) {
                socket.take(&frame, OUTGOING);
            }
        }
        if interface.is_loopback() {
            arrive(ns, interface.index, bytes);
            return;
        }
        for (far, into) in ns.on_link(interface.index) {
            arrive(&far, into, bytes);
        }
    }

    fn control(&self, message: &Message) -> Vec<Control> {
        let mut control = info::arrival(&self.base, message);
        control.extend(message.control.iter().cloned());
        control
    }

    fn membership(&self, name: i32, value: &[u8]) -> SysResult<()> {
        let word = |at: usize| value.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_ne_bytes(*b));
        let half = |at: usize| value.get(at..).and_then(|b| b.first_chunk()).map(|b| u16::from_ne_bytes(*b));
        let (Some(index), Some(kind), Some(_)) = (word(0), half(4), value.get(..16)) else {
            return Err(Errno::EINVAL);
        };
        let entry = (index, kind, value.get(8..16).unwrap_or_default().to_vec());
        if name == ADD_MEMBERSHIP && !self.base.ns.interfaces().iter().any(|i| i.index == index) {
            return Err(Errno::ENODEV);
        }
        let mut state = self.state.lock();
        if name == ADD_MEMBERSHIP {
            state.members.push(entry);
        } else if let Some(at) = state.members.iter().position(|known| *known == entry) {
            state.members.remove(at);
        }
        Ok(())
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        self.base.ns.watchers.fetch_sub(1, Ordering::Relaxed);
        self.inbox.close();
    }
}

impl Socket for PacketSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn base(&self) -> &Base {
        &self.base
    }
    fn bind(&self, addr: &SockAddr, _by: &Caller<'_>) -> SysResult<()> {
        let SockAddr::Link(addr) = addr else { return Err(Errno::EINVAL) };
        if addr.index != 0 {
            let interfaces = self.base.ns.interfaces();
            let found = interfaces.iter().find(|i| i.index == addr.index).ok_or(Errno::ENODEV)?;
            if !found.is_up() {
                self.base.set_error(Errno::ENETDOWN);
            }
        }
        let mut state = self.state.lock();
        if addr.protocol != 0 {
            state.protocol = addr.protocol;
        }
        state.index = addr.index;
        Ok(())
    }
    fn connect(&self, _addr: &SockAddr, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, _by: &Caller<'_>) -> SysResult<usize> {
        let (bound, bound_protocol) = {
            let state = self.state.lock();
            (state.index, state.protocol)
        };
        let addr = match &message.addr {
            Some(SockAddr::Link(addr)) => *addr,
            Some(_) => return Err(Errno::EINVAL),
            None => LinkAddr { index: bound, protocol: bound_protocol, ..LinkAddr::default() },
        };
        let interfaces = self.base.ns.interfaces();
        let interface = interfaces.iter().find(|i| i.index == addr.index).ok_or(Errno::ENXIO)?;
        if !interface.is_up() {
            return Err(Errno::ENETDOWN);
        }
        let len = src.remaining();
        let raw = self.base.kind == SockType::Raw;
        let most = usize::try_from(interface.mtu).unwrap_or(0) + if raw { HEADER } else { 0 };
        if len > most {
            return Err(Errno::EMSGSIZE);
        }
        if raw && len < HEADER {
            return Err(Errno::EINVAL);
        }
        let mut bytes = take_all(src)?;
        if !raw {
            let target = addr.hw.first_chunk::<6>().copied().unwrap_or_default();
            bytes = [&target[..], &interface.hw, &addr.protocol.to_be_bytes(), &bytes].concat();
        }
        self.transmit(interface, &bytes);
        Ok(len)
    }
    fn recv(
        &self,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        _skip: usize,
        _by: &Caller<'_>,
    ) -> SysResult<Received> {
        mailbox::receive(&self.base, &self.inbox, dst, flags, |m| self.control(m))
    }
    fn recv_beside(&self, dst: &mut dyn GuestSink, flags: MsgFlags) -> SysResult<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return mailbox::receive_report(&self.base, dst);
        }
        Err(Errno::EINVAL)
    }
    fn shutdown(&self, _how: Shutdown) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn local_addr(&self) -> SysResult<SockAddr> {
        let state = self.state.lock();
        let mut addr = LinkAddr { protocol: state.protocol, index: state.index, ..LinkAddr::default() };
        let interfaces = self.base.ns.interfaces();
        if let Some(interface) = interfaces.iter().find(|i| i.index == addr.index) {
            addr.hatype = hatype(interface);
            addr.halen = 6;
            for (slot, byte) in addr.hw.iter_mut().zip(interface.hw) {
                *slot = byte;
            }
        }
        Ok(SockAddr::LinkName(addr))
    }
    fn peer_addr(&self) -> SysResult<SockAddr> {
        Err(Errno::EOPNOTSUPP)
    }
    fn ready(&self, interest: Events) -> Events {
        mailbox::ready(&self.base, &self.inbox, interest)
    }
    fn get_option(&self, at: i32, name: i32, _by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        if at == level::SOCKET {
            return None;
        }
        if at != level::PACKET {
            return Some(Err(Errno::ENOPROTOOPT));
        }
        Some(match name {
            STATISTICS => {
                let drops = self.inbox.drops();
                let told = self.drops_told.swap(drops, Ordering::Relaxed);
                let words = [self.seen.swap(0, Ordering::Relaxed), drops.wrapping_sub(told)];
                Ok(words.iter().flat_map(|n| n.to_ne_bytes()).collect())
            }
            // The length of the header of the version that is asked about comes with the question.
            HDRLEN => Err(Errno::EINVAL),
            7..=10 | 12 | 14 | 15 | 17..=20 | IGNORE_OUTGOING | 24 => {
                Ok(self.base.int(at, name).unwrap_or(0).to_ne_bytes().to_vec())
            }
            21 => Err(Errno::EINVAL),
            _ => Err(Errno::ENOPROTOOPT),
        })
    }
    fn set_option(&self, at: i32, name: i32, value: &[u8], _by: &Caller<'_>) -> Option<SysResult<()>> {
        if at == level::SOCKET {
            return None;
        }
        if at != level::PACKET {
            return Some(Err(Errno::ENOPROTOOPT));
        }
        let keep = |value: i32| {
            self.base.remember(at, name, value.into());
            Ok(())
        };
        Some(match (name, read_int(value)) {
            (ADD_MEMBERSHIP | DROP_MEMBERSHIP, _) => self.membership(name, value),
            (STATISTICS | HDRLEN | 21, _) => Err(Errno::ENOPROTOOPT),
            // Rings need memory shared with the guest, which this kernel has none of; FANOUT needs a group.
            (5 | 13 | 18 | 22, _) => Err(Errno::EINVAL),
            (7 | 17, Ok(any)) => keep(any),
            (AUXDATA | 9 | 14 | 15 | 19 | 20, Ok(flag)) => keep(i32::from(flag != 0)),
            (VERSION, Ok(version @ 0..=2)) => keep(version),
            (IGNORE_OUTGOING, Ok(flag @ 0..=1)) => keep(flag),
            (12, Ok(room)) if room >= 0 => keep(room),
            (24, Ok(0)) => keep(0),
            (7..=10 | 12 | 14 | 15 | 17 | 19 | 20 | IGNORE_OUTGOING | 24, _) => Err(Errno::EINVAL),
            _ => Err(Errno::ENOPROTOOPT),
        })
    }
    fn buffers_changed(&self) {
        self.inbox.set_limit(self.base.rcvbuf());
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        Ok(self.inbox.status().len)
    }
}
