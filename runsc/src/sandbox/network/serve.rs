//! The helper's loop: one request, one reply. The sentry's bytes are not trusted: a request that is not
//! well-formed is answered with `EINVAL`, and the filter knows no call beyond what requests need.

use super::filter::SOCKET_FLAGS;
use super::{Raw, View};
use crate::error::{Doing, Failure, Outcome};
use abi::{Errno, SysResult};
use net::host::wire::{Dump, MAX_PACKET, MAX_REPLY, MAX_REQUEST, REPLY_HEADER, Request, reply_header};
use platform::host::errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, Protocol, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

/// Silence after which memory is given back, once.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
/// Bytes of a message of netlink's answers that are taken at once.
const ROUTE_BUFFER: usize = 32 * 1024;
/// Payload of one packet of a reply.
const PIECE: usize = MAX_PACKET - REPLY_HEADER;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETROUTE: u16 = 26;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
/// Header of a netlink message.
const HEADER: usize = 16;

/// A netlink socket of the route family in this process's network namespace.
pub(super) fn route_socket() -> Outcome<OwnedFd> {
    // NETLINK_ROUTE is protocol 0.
    rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .doing(|| "a netlink socket")
}

fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(HEADER + body.len()).unwrap_or(0);
    let mut out = len.to_ne_bytes().to_vec();
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(body);
    out
}

/// Sends a question and gathers the answers up to the last.
fn converse(route: &OwnedFd, question: &[u8]) -> SysResult<Vec<u8>> {
    rustix::net::send(route, question, SendFlags::empty()).map_err(errno)?;
    let dump = question.get(6..8).is_some_and(|flags| flags == (NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    let mut all = Vec::new();
    let mut buffer = vec![0; ROUTE_BUFFER];
    loop {
        let len = match rustix::net::recv(route, &mut buffer[..], RecvFlags::empty()) {
            Ok((len, _)) => len,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(errno(error)),
        };
        let mut rest = buffer.get(..len).unwrap_or_default();
        let mut last = !dump;
        while let Some((size, kind)) = head(rest) {
            let Some(one) = rest.get(..size).filter(|one| one.len() >= HEADER) else { break };
            match kind {
                NLMSG_DONE => last = true,
                NLMSG_ERROR => {
                    let error =
                        one.get(HEADER..).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_ne_bytes(*b));
                    return if error == 0 { Ok(all) } else { Err(Errno::from_raw(-error)) };
                }
                _ => {
                    all.extend_from_slice(one);
                    all.resize(all.len().next_multiple_of(4), 0);
                }
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        if last || len == 0 {
            return Ok(all);
        }
        if all.len() > MAX_REPLY - ROUTE_BUFFER {
            return Err(Errno::EMSGSIZE);
        }
    }
}

fn head(bytes: &[u8]) -> Option<(usize, u16)> {
    let size = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    Some((size, u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?)))
}

/// Brings the loopback of a fresh namespace up, as runc does.
pub(super) fn loopback_up(route: &OwnedFd) -> Outcome<()> {
    // struct ifinfomsg: index 1, IFF_UP set.
    let mut body = [0; 16];
    body[4] = 1;
    body[8] = 1;
    body[12] = 1;
    let question = message(RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, &body);
    converse(route, &question)
        .map(drop)
        .map_err(|error| Failure::new(format!("bringing the loopback up: {}", error.text())))
}

fn dump(view: &View, of: Dump, family: u8) -> SysResult<Vec<u8>> {
    // The largest of the structures that begin these questions; each starts with the family.
    let mut body = [0; 16];
    body[0] = family;
    let size = match of {
        Dump::Links => 16,
        Dump::Addresses => 8,
        Dump::Routes | Dump::Neighbours | Dump::Rules => 12,
    };
    let body = body.get(..size).unwrap_or(&body);
    converse(&view.route, &message(of.kind(), NLM_F_REQUEST | NLM_F_DUMP, body))
}

fn route(view: &View, to: IpAddr) -> SysResult<Vec<u8>> {
    let (family, bits, octets) = match to {
        IpAddr::V4(ip) => (2, 32, ip.octets().to_vec()),
        IpAddr::V6(ip) => (10, 128, ip.octets().to_vec()),
    };
    let mut body = vec![0; 12];
    body[0] = family;
    body[1] = bits;
    let len = u16::try_from(octets.len() + 4).unwrap_or(0);
    body.extend_from_slice(&len.to_ne_bytes());
    // RTA_DST.
    body.extend_from_slice(&1u16.to_ne_bytes());
    body.extend_from_slice(&octets);
    converse(&view.route, &message(RTM_GETROUTE, NLM_F_REQUEST, &body))
}

fn text(view: &View, number: u8) -> SysResult<Vec<u8>> {
    let file = view.texts.get(usize::from(number)).and_then(Option::as_ref).ok_or(Errno::ENOENT)?;
    let mut all = Vec::new();
    let mut buffer = vec![0; ROUTE_BUFFER];
    loop {
        let at = u64::try_from(all.len()).map_err(|_| Errno::EFBIG)?;
        match rustix::io::pread(file, &mut buffer[..], at).map_err(errno)? {
            0 => return Ok(all),
            len => all.extend_from_slice(buffer.get(..len).unwrap_or_default()),
        }
        if all.len() > MAX_REPLY - ROUTE_BUFFER {
            return Err(Errno::EFBIG);
        }
    }
}

fn socket(view: &View, domain: u16, kind: i32, protocol: i32) -> SysResult<OwnedFd> {
    let domain = match domain {
        2 => AddressFamily::INET,
        10 => AddressFamily::INET6,
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    // What the filter would kill for is refused here.
    let kind = match (kind, protocol) {
        (1, 6) => SocketType::STREAM,
        (2, 1 | 17 | 58) => SocketType::DGRAM,
        (3, 1..=255) if view.raw == Raw::Allowed => SocketType::RAW,
        (3, _) => return Err(Errno::EPERM),
        _ => return Err(Errno::EPROTONOSUPPORT),
    };
    let protocol = u32::try_from(protocol).ok().and_then(std::num::NonZeroU32::new).map(Protocol::from_raw);
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    debug_assert_eq!(u64::from(flags.bits()), SOCKET_FLAGS);
    rustix::net::socket_with(domain, kind, flags, protocol).map_err(errno)
}

/// A request, and the socket that came along.
fn receive(wire: &OwnedFd) -> SysResult<Option<(Option<Request>, Option<OwnedFd>)>> {
    let mut bytes = [0; MAX_REQUEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(wire, &mut pieces, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other.map_err(errno)?,
        }
    };
    if got.bytes == 0 {
        return Ok(None);
    }
    let mut fd = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fd = fd.or(rights.last());
        }
    }
    Ok(Some((Request::decode(bytes.get(..got.bytes).unwrap_or_default()), fd)))
}

fn reply(wire: &OwnedFd, outcome: SysResult<&[u8]>, fd: Option<&OwnedFd>) -> SysResult<()> {
    let payload = outcome.unwrap_or_default();
    let mut rest = payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(PIECE));
        let header = reply_header(outcome.map(drop), !later.is_empty());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let rights = fd.map(|fd| [fd.as_fd()]);
        if let Some(rights) = &rights {
            ancillary.push(SendAncillaryMessage::ScmRights(rights));
        }
        let pieces = [IoSlice::new(&header), IoSlice::new(now)];
        match rustix::net::sendmsg(wire, &pieces, &mut ancillary, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(errno)?,
        };
        rest = later;
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// Waits for a request; the first long silence gives memory back.
fn wait(wire: &OwnedFd, patience: &mut Option<Timespec>) {
    if patience.is_some() && poll(&mut [PollFd::new(wire, PollFlags::IN)], patience.as_ref()) == Ok(0) {
        *patience = None;
        platform::host::rest();
    }
}

/// Serves until the sentry is gone.
pub(super) fn serve(wire: &OwnedFd, view: &View) {
    let mut patience = Some(QUIET);
    loop {
        wait(wire, &mut patience);
        let Ok(Some((request, with))) = receive(wire) else { return };
        let mut made = None;
        let outcome = match request {
            Some(Request::Socket { domain, kind, protocol }) => {
                socket(view, domain, kind, protocol).map(|fd| {
                    made = Some(fd);
                    Vec::new()
                })
            }
            Some(Request::Bind(addr)) => match &with {
                Some(fd) => rustix::net::bind(fd, &addr).map_err(errno).map(|()| Vec::new()),
                None => Err(Errno::EINVAL),
            },
            Some(Request::Dump { of, family }) => dump(view, of, family),
            Some(Request::Route(to)) => route(view, to),
            Some(Request::Text(number)) => text(view, number),
            None => Err(Errno::EINVAL),
        };
        if reply(wire, outcome.as_deref().map_err(|error| *error), made.as_ref()).is_err() {
            return;
        }
    }
}
