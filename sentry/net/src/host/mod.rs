//! The host's network (`--network=host`): sockets that a helper makes in the container's network namespace
//! and donates, and what that namespace looks like.
//!
//! The sentry cannot make a socket. It binds through the helper as well, which alone may take privileged
//! ports; everything else it calls on the donated descriptors, which lead nowhere but to that namespace.

pub mod links;
pub mod options;
pub mod socket;
pub mod wire;

use crate::netns::Interface;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::NetHelper;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use wire::{Dump, MAX_PACKET, MAX_REPLY, Request, TEXTS, open_reply};

pub use socket::HostSocket;

/// The conversation with the network helper.
#[derive(Debug)]
pub struct HostNet {
    wire: Ranked<NetHelper, OwnedFd>,
}

struct Answer {
    bytes: Vec<u8>,
    fd: Option<OwnedFd>,
}

fn errno(error: rustix::io::Errno) -> Errno {
    platform::host::errno(error)
}

fn retried<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> SysResult<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(errno),
        }
    }
}

fn send_request(wire: &OwnedFd, request: &Request, with: Option<BorrowedFd<'_>>) -> SysResult<()> {
    let bytes = request.encode();
    retried(|| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let rights = with.map(|fd| [fd]);
        if let Some(rights) = &rights {
            ancillary.push(SendAncillaryMessage::ScmRights(rights));
        }
        sendmsg(wire, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    })
    .map(drop)
}

/// One packet; gives its length and the descriptor that came along.
fn receive_packet(wire: &OwnedFd, packet: &mut [u8]) -> SysResult<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let got =
        retried(|| recvmsg(wire, &mut [IoSliceMut::new(packet)], &mut ancillary, RecvFlags::CMSG_CLOEXEC))?;
    let mut fd = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fd = fd.or(rights.last());
        }
    }
    Ok((got.bytes, fd))
}

impl HostNet {
    /// Talks to the helper at the other end of a `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> HostNet {
        HostNet { wire: Ranked::new(socket) }
    }

    /// Asks and waits for the whole answer. `EIO` when the helper is gone or talks nonsense.
    fn ask(&self, request: &Request, with: Option<BorrowedFd<'_>>) -> SysResult<Answer> {
        let wire = self.wire.lock();
        send_request(&wire, request, with)?;
        let mut answer = Answer { bytes: Vec::new(), fd: None };
        // Replies without a payload, the frequent ones, need no large buffer.
        let small = matches!(request, Request::Socket { .. } | Request::Bind(_));
        let mut packet = vec![0; if small { 64 } else { MAX_PACKET }];
        loop {
            let (len, fd) = receive_packet(&wire, &mut packet)?;
            let (payload, more) = open_reply(packet.get(..len).unwrap_or_default())?;
            answer.fd = answer.fd.or(fd);
            answer.bytes.extend_from_slice(payload);
            if !more {
                return Ok(answer);
            }
            if answer.bytes.len() > MAX_REPLY {
                return Err(Errno::EIO);
            }
        }
    }

    /// A socket in the container's network namespace, non-blocking.
    pub fn socket(&self, domain: u16, kind: i32, protocol: i32) -> SysResult<OwnedFd> {
        self.ask(&Request::Socket { domain, kind, protocol }, None)?.fd.ok_or(Errno::EIO)
    }
    /// bind(2) by the helper, which may take privileged ports: the caller has checked who asks.
    pub fn bind(&self, fd: BorrowedFd<'_>, addr: SocketAddr) -> SysResult<()> {
        self.ask(&Request::Bind(addr), Some(fd)).map(drop)
    }
    /// Messages of a dump, NLMSG_DONE among them.
    pub fn dump(&self, of: Dump, family: u8) -> SysResult<Vec<u8>> {
        self.ask(&Request::Dump { of, family }, None).map(|answer| answer.bytes)
    }
    /// The answer to RTM_GETROUTE for one address.
    pub fn route(&self, to: IpAddr) -> SysResult<Vec<u8>> {
        self.ask(&Request::Route(to), None).map(|answer| answer.bytes)
    }
    /// A file of the namespace's /proc/net; `ENOENT` when the helper has none of that name.
    pub fn text(&self, name: &str) -> SysResult<Vec<u8>> {
        let number = TEXTS.iter().position(|known| *known == name).ok_or(Errno::ENOENT)?;
        let number = u8::try_from(number).map_err(|_| Errno::ENOENT)?;
        self.ask(&Request::Text(number), None).map(|answer| answer.bytes)
    }
    /// The interfaces as they are now.
    pub fn interfaces(&self) -> SysResult<Vec<Interface>> {
        let links = self.dump(Dump::Links, 0)?;
        let addresses = self.dump(Dump::Addresses, 0)?;
        Ok(links::interfaces(&links, &addresses))
    }
}
