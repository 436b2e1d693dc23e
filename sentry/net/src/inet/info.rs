//! What a receiver of datagrams is told beside the bytes: time stamps, where they were sent to.

use super::options;
use super::{is_v6, show};
use crate::addr::{InetAddr, SockAddr};
use crate::base::{Base, Stamp};
use crate::inbox::Message;
use crate::types::{Control, MsgFlags, Received, level};
use abi::SysResult;
use mm::GuestSink;
use std::net::IpAddr;

/// The control messages that the receiver asked for.
pub(super) fn stamps(base: &Base, message: &Message) -> Vec<Control> {
    let mut control = Vec::new();
    let wants = |at, name| base.int(at, name).unwrap_or(0) != 0;
    if let Some(stamp) = base.with(|o| o.stamp) {
        let now = vfs::realtime_now();
        let (kind, part) = match stamp {
            Stamp::Micro => (29, now.nsec / 1000),
            Stamp::Nano => (35, now.nsec),
        };
        let data = [now.sec.to_ne_bytes(), part.to_ne_bytes()].concat();
        control.push(Control::Raw(level::SOCKET, kind, data));
    }
    for raw in &message.control {
        let Control::Raw(at, kind, _) = raw else { continue };
        let asked = match (*at, *kind) {
            (level::IP, options::IP_PKTINFO) => wants(level::IP, options::IP_PKTINFO),
            (level::IP, 2) => wants(level::IP, options::IP_RECVTTL),
            (level::IP, options::IP_RECVORIGDSTADDR) => wants(level::IP, options::IP_RECVORIGDSTADDR),
            (level::IPV6, 50) => wants(level::IPV6, options::IPV6_RECVPKTINFO),
            (level::IPV6, 52) => wants(level::IPV6, options::IPV6_RECVHOPLIMIT),
            _ => false,
        };
        if asked {
            control.push(raw.clone());
        }
    }
    control
}

/// What the receiver may ask to be told about a datagram to `to`.
pub(super) fn packet_info(receiver: &Base, to: InetAddr, ttl: u8) -> Vec<Control> {
    // Nothing is laid out for a receiver without remembered options.
    if receiver.with(|o| o.ints.is_empty()) {
        return Vec::new();
    }
    let ttl = i32::from(ttl).to_ne_bytes().to_vec();
    let mut control = Vec::new();
    if is_v6(receiver)
        && let SockAddr::Inet(InetAddr { ip: IpAddr::V6(ip), .. }) = show(receiver, to)
    {
        let data = [&ip.octets()[..], &1u32.to_ne_bytes()].concat();
        control.push(Control::Raw(level::IPV6, 50, data));
        control.push(Control::Raw(level::IPV6, 52, ttl.clone()));
    }
    if let IpAddr::V4(ip) = to.ip {
        let data = [&1u32.to_ne_bytes()[..], &ip.octets(), &ip.octets()].concat();
        control.push(Control::Raw(level::IP, options::IP_PKTINFO, data));
        control.push(Control::Raw(level::IP, 2, ttl));
        control.push(Control::Raw(level::IP, options::IP_RECVORIGDSTADDR, SockAddr::Inet(to).to_bytes()));
    }
    control
}

/// Gives a datagram to a receiver, cut to its room.
pub(super) fn deliver(
    message: &Message,
    dst: &mut dyn GuestSink,
    flags: MsgFlags,
    control: Vec<Control>,
) -> SysResult<Received> {
    let room = dst.remaining();
    let copied = if message.bytes.is_empty() || room == 0 { 0 } else { dst.put(&message.bytes)? };
    let mut out = Received { len: copied, addr: message.from.clone(), control, flags: MsgFlags::empty() };
    if message.bytes.len() > room {
        out.flags |= MsgFlags::TRUNC;
    }
    if flags.contains(MsgFlags::TRUNC) {
        out.len = message.bytes.len();
    }
    Ok(out)
}
