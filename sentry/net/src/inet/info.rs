//! What a receiver of datagrams is told beside the bytes: time stamps, where they were sent to, what their header
//! said; and what a sender says about one datagram.

use super::options;
use super::{is_v6, show};
use crate::addr::{InetAddr, SockAddr};
use crate::base::{Base, Stamp};
use crate::inbox::{Message, PacketInfo};
use crate::types::{Control, SendMsg, level};
use abi::time::Timespec;
use abi::{Errno, SysResult};
use std::net::IpAddr;

/// SO_TIMESTAMPING, and what of its flags concerns receiving.
const SO_TIMESTAMPING: i32 = 37;
const RX_SOFTWARE: i32 = 1 << 3;
const SOFTWARE: i32 = 1 << 4;

fn time_bytes(at: Timespec) -> Vec<u8> {
    [at.sec.to_ne_bytes(), at.nsec.to_ne_bytes()].concat()
}

/// The control messages of SOL_SOCKET about the arrival of a message.
pub(crate) fn arrival(base: &Base, message: &Message) -> Vec<Control> {
    let mut control = Vec::new();
    if base.with(|o| o.stamp.is_none()) {
        base.set_stamp(message.at);
    }
    if let Some(stamp) = base.with(|o| o.stamp) {
        let (kind, part) = match stamp {
            Stamp::Micro => (29, message.at.nsec / 1000),
            Stamp::Nano => (35, message.at.nsec),
        };
        let data = [message.at.sec.to_ne_bytes(), part.to_ne_bytes()].concat();
        control.push(Control::Raw(level::SOCKET, kind, data));
    }
    let stamping = base.int(level::SOCKET, SO_TIMESTAMPING).unwrap_or(0);
    if stamping & (RX_SOFTWARE | SOFTWARE) == RX_SOFTWARE | SOFTWARE {
        let mut data = time_bytes(message.at);
        data.resize(48, 0);
        control.push(Control::Raw(level::SOCKET, SO_TIMESTAMPING, data));
    }
    if base.is_on(level::SOCKET, 40) && message.drops > 0 {
        control.push(Control::Raw(level::SOCKET, 40, message.drops.to_ne_bytes().to_vec()));
    }
    if base.is_on(level::SOCKET, 75) {
        let mark = message.packet.map_or(0, |packet| packet.mark);
        control.push(Control::Raw(level::SOCKET, 36, mark.to_ne_bytes().to_vec()));
    }
    control
}

/// The control messages that the receiver asked for.
pub(crate) fn control(base: &Base, message: &Message) -> Vec<Control> {
    let mut control = arrival(base, message);
    let Some(packet) = message.packet else { return control };
    let int = |n: u32| n.to_ne_bytes().to_vec();
    let mut put = |at, kind, data: Vec<u8>| control.push(Control::Raw(at, kind, data));
    if is_v6(base) {
        if base.is_on(level::IPV6, options::IPV6_RECVPKTINFO)
            && let SockAddr::Inet(InetAddr { ip: IpAddr::V6(ip), .. }) = show(base, packet.to)
        {
            put(level::IPV6, 50, [&ip.octets()[..], &packet.index.to_ne_bytes()].concat());
        }
        if packet.to.ip.is_ipv6() {
            if base.is_on(level::IPV6, options::IPV6_RECVHOPLIMIT) {
                put(level::IPV6, 52, int(packet.ttl.into()));
            }
            if base.is_on(level::IPV6, 66) {
                put(level::IPV6, 67, int(packet.tos.into()));
            }
            if base.is_on(level::IPV6, 74) {
                put(level::IPV6, 74, show(base, packet.to).to_bytes());
            }
        }
    }
    if let IpAddr::V4(ip) = packet.to.ip {
        if base.is_on(level::IP, options::IP_PKTINFO) {
            // The address of this host that received it: of a group or a broadcast, the interface's.
            let own = if ip.is_multicast() || packet.cast { packet.local } else { ip };
            let data = [&packet.index.to_ne_bytes()[..], &own.octets(), &ip.octets()].concat();
            put(level::IP, options::IP_PKTINFO, data);
        }
        if base.is_on(level::IP, options::IP_RECVTTL) {
            put(level::IP, 2, int(packet.ttl.into()));
        }
        if base.is_on(level::IP, 13) {
            put(level::IP, 1, vec![packet.tos]);
        }
        if base.is_on(level::IP, options::IP_RECVORIGDSTADDR) {
            put(level::IP, options::IP_RECVORIGDSTADDR, SockAddr::Inet(packet.to).to_bytes());
        }
    }
    control
}

/// What a datagram's header shall say: the socket's options, changed by the control messages of one send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// TTL or hop limit.
    pub(super) ttl: u8,
    /// TOS or traffic class.
    pub(super) tos: u8,
    /// Source address.
    pub(super) source: Option<IpAddr>,
    /// Interface.
    pub(super) index: Option<u32>,
    /// Mark.
    pub(super) mark: u32,
    /// Bytes of one datagram of several (UDP_SEGMENT).
    pub(super) segment: usize,
}

fn word(data: &[u8]) -> SysResult<i32> {
    data.first_chunk().map(|b| i32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

impl Header {
    /// For what `base` sends to `to`.
    pub(super) fn new(base: &Base, to: IpAddr, message: &SendMsg) -> SysResult<Header> {
        let v6 = to.is_ipv6();
        let (at, ttl, tos) = match (v6, to.is_multicast()) {
            (false, false) => (level::IP, 2, 1),
            (false, true) => (level::IP, 33, 1),
            (true, false) => (level::IPV6, 16, 67),
            (true, true) => (level::IPV6, 18, 67),
        };
        let byte = |name, default| base.int(at, name).and_then(|n| u8::try_from(n).ok()).unwrap_or(default);
        let mut header = Header {
            ttl: byte(ttl, if to.is_multicast() { 1 } else { 64 }),
            tos: byte(tos, 0),
            source: None,
            index: None,
            mark: base.int(level::SOCKET, 36).unwrap_or(0).cast_unsigned(),
            segment: usize::try_from(base.int(level::UDP, 103).unwrap_or(0)).unwrap_or(0),
        };
        for control in &message.control {
            let Control::Raw(at, kind, data) = control else { continue };
            match *at {
                level::SOCKET => header.socket_control(*kind, data)?,
                level::IP if !v6 => header.ip_control(base, *kind, data)?,
                level::IPV6 if is_v6(base) => header.ipv6_control(base, *kind, data, v6)?,
                level::UDP if *kind == 103 && base.protocol == 17 => {
                    let segment = data.first_chunk().map(|b| u16::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
                    header.segment = usize::from(segment);
                }
                level::UDP if base.protocol == 17 => return Err(Errno::EINVAL),
                _ => {}
            }
        }
        Ok(header)
    }
    fn socket_control(&mut self, kind: i32, data: &[u8]) -> SysResult<()> {
        match kind {
            // MARK, TIMESTAMPING, TXTIME, PRIORITY.
            36 => self.mark = word(data)?.cast_unsigned(),
            37 | 61 | 12 if data.len() >= 4 => {}
            // RIGHTS and CREDENTIALS mean nothing here.
            1 | 2 => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
    fn ip_control(&mut self, base: &Base, kind: i32, data: &[u8]) -> SysResult<()> {
        match (kind, data) {
            // TTL.
            (2, _) if data.len() == 4 => {
                self.ttl = u8::try_from(word(data)?).ok().filter(|ttl| *ttl > 0).ok_or(Errno::EINVAL)?;
            }
            // TOS.
            (1, [tos]) => self.tos = *tos,
            (1, _) if data.len() == 4 => self.tos = u8::try_from(word(data)?).map_err(|_| Errno::EINVAL)?,
            // PKTINFO: interface, source, destination.
            (8, _) if data.len() == 12 => {
                let index = word(data)?.cast_unsigned();
                let source: &[u8; 4] = data.get(4..).and_then(|b| b.first_chunk()).ok_or(Errno::EINVAL)?;
                self.source = Some(IpAddr::from(*source)).filter(|ip| !ip.is_unspecified());
                self.set_index(base, index)?;
            }
            // RETOPTS.
            (7, _) if data.len() <= 40 => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
    fn ipv6_control(&mut self, base: &Base, kind: i32, data: &[u8], v6: bool) -> SysResult<()> {
        match kind {
            50 if data.len() >= 20 => {
                let index = word(data.get(16..).unwrap_or_default())?.cast_unsigned();
                let source: &[u8; 16] = data.first_chunk().ok_or(Errno::EINVAL)?;
                let source = IpAddr::from(*source).to_canonical();
                self.source = Some(source).filter(|ip| !ip.is_unspecified() && ip.is_ipv6() == v6);
                self.set_index(base, index)?;
            }
            // HOPLIMIT, TCLASS.
            52 | 67 if data.len() == 4 => {
                let value = word(data)?;
                let byte =
                    if value == -1 { None } else { Some(u8::try_from(value).map_err(|_| Errno::EINVAL)?) };
                match byte {
                    Some(ttl) if kind == 52 => self.ttl = ttl,
                    Some(class) => self.tos = class,
                    None => {}
                }
            }
            // DONTFRAG, FLOWINFO.
            62 | 11 if data.len() == 4 => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
    fn set_index(&mut self, base: &Base, index: u32) -> SysResult<()> {
        if index != 0 {
            if !base.ns.interfaces().iter().any(|i| i.index == index) {
                return Err(Errno::ENODEV);
            }
            self.index = Some(index);
        }
        if let Some(source) = self.source
            && !base.ns.is_local(source)
            && !base.is_on(level::IP, options::IP_FREEBIND)
        {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
    /// What the receiver may be told.
    pub(super) fn packet(&self, to: InetAddr, index: u32) -> PacketInfo {
        PacketInfo {
            to,
            ttl: self.ttl,
            tos: self.tos,
            index,
            mark: self.mark,
            local: std::net::Ipv4Addr::LOCALHOST,
            cast: false,
        }
    }
}

/// `struct sock_extended_err` with the offender behind it, as a control message (IP_RECVERR, IPV6_RECVERR).
pub(super) fn extended_error(
    v6: bool,
    error: Option<Errno>,
    (origin, kind, code): (u8, u8, u8),
    (info, data): (u32, u32),
    offender: Option<IpAddr>,
) -> Control {
    let mut bytes = error.map_or(0, |error| u32::from(error.raw())).to_ne_bytes().to_vec();
    bytes.extend_from_slice(&[origin, kind, code, 0]);
    bytes.extend_from_slice(&info.to_ne_bytes());
    bytes.extend_from_slice(&data.to_ne_bytes());
    let room = bytes.len() + if v6 { 28 } else { 16 };
    if let Some(ip) = offender {
        bytes.extend_from_slice(&SockAddr::Inet(InetAddr { ip, port: 0, scope: 0 }).to_bytes());
    }
    bytes.resize(room, 0);
    let (at, name) = if v6 { (level::IPV6, 25) } else { (level::IP, 11) };
    Control::Raw(at, name, bytes)
}
