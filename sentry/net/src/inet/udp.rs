//! UDP over the loopback (udp(7)). Locks: `Socket` for the state, `SocketPeer` for the receive queue.

use super::info::{packet_info, stamps};
use super::options::{self, tcp_state};
use super::{claim_for, destination, is_v6, may_bind, own_family, port_range, show, source_for, take_all};
use crate::addr::{InetAddr, SockAddr};
use crate::base::Base;
use crate::inbox::{Ancillary, Message, MessageInbox};
use crate::netns::NetNs;
use crate::socket::Socket;
use crate::types::{MsgFlags, Received, SendMsg, Shutdown, SockType};
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::Socket as SocketRank;
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::net::IpAddr;
use std::sync::{Arc, Weak};
use vfs::Caller;

/// Largest datagram of IPv4 (65535 minus headers).
const MAX_V4: usize = 65_507;
const MAX_V6: usize = 65_527;

#[derive(Debug, Default)]
struct State {
    local: Option<InetAddr>,
    peer: Option<InetAddr>,
    held: Option<u16>,
    bound: bool,
    shut_write: bool,
}

/// A UDP socket.
#[derive(Debug)]
pub struct UdpSocket {
    base: Base,
    me: Weak<UdpSocket>,
    inbox: Arc<MessageInbox>,
    state: Ranked<SocketRank, State>,
}

impl UdpSocket {
    /// An unbound socket.
    #[must_use]
    pub fn new(ns: &Arc<NetNs>, domain: u16) -> Arc<UdpSocket> {
        let base = Base::new(ns, domain, SockType::Dgram, 17);
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

    fn claim(&self, state: &mut State, addr: InetAddr, by: &Caller<'_>) -> SysResult<()> {
        let claim = claim_for(&self.base, addr, by);
        let range = port_range(&self.base);
        let port = self.base.ns.udp.lock().claim(claim, Weak::clone(&self.me), false, range)?;
        state.held = Some(port);
        state.local = Some(InetAddr { port, ..addr });
        Ok(())
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        if let Some(port) = self.state.get_mut().held.take() {
            self.base.ns.udp.lock().release(port, std::ptr::from_ref(self));
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
        let addr = match addr {
            // ip(7): AF_UNSPEC with INADDR_ANY is taken for AF_INET.
            SockAddr::Unspec if !is_v6(&self.base) => InetAddr::any(false),
            other => own_family(&self.base, other)?,
        };
        may_bind(&self.base, addr, by)?;
        let mut state = self.state.lock();
        if state.held.is_some() {
            return Err(Errno::EINVAL);
        }
        self.claim(&mut state, addr, by)?;
        state.bound = true;
        Ok(())
    }
    fn connect(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let mut state = self.state.lock();
        let table = std::ptr::from_ref(self);
        if *addr == SockAddr::Unspec {
            state.peer = None;
            if let (Some(port), Some(local)) = (state.held, state.local) {
                if state.bound {
                    self.base.ns.udp.lock().set_peer(port, table, local, None);
                } else {
                    self.base.ns.udp.lock().release(port, table);
                    state.held = None;
                    state.local = None;
                }
            }
            return Ok(());
        }
        let to = destination(&self.base, own_family(&self.base, addr)?)?;
        if state.held.is_none() {
            self.claim(&mut state, source_for(to, 0), by)?;
        }
        let (Some(port), Some(mut local)) = (state.held, state.local) else { return Err(Errno::EINVAL) };
        if local.ip.is_unspecified() {
            local = source_for(to, port);
            state.local = Some(local);
        }
        state.peer = Some(to);
        self.base.ns.udp.lock().set_peer(port, table, local, Some(to));
        Ok(())
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, by: &Caller<'_>) -> SysResult<usize> {
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        let (to, local, connected) = {
            let mut state = self.state.lock();
            if state.shut_write {
                return Err(Errno::EPIPE);
            }
            let to = match &message.addr {
                Some(SockAddr::Unspec) if !is_v6(&self.base) => return Err(Errno::EAFNOSUPPORT),
                Some(addr) => own_family(&self.base, addr)?,
                None => state.peer.ok_or(Errno::EDESTADDRREQ)?,
            };
            if to.port == 0 {
                return Err(Errno::EINVAL);
            }
            if matches!(to.ip, IpAddr::V4(ip) if ip.is_broadcast()) && !self.base.with(|o| o.broadcast) {
                return Err(Errno::EACCES);
            }
            let to = destination(&self.base, to)?;
            if state.held.is_none() {
                self.claim(&mut state, InetAddr::any(is_v6(&self.base)), by)?;
            }
            let mut local = state.local.ok_or(Errno::EINVAL)?;
            if local.ip.is_unspecified() {
                local = source_for(to, local.port);
            }
            (to, local, state.peer == Some(to))
        };
        let len = src.remaining();
        if len > if to.ip.is_ipv4() { MAX_V4 } else { MAX_V6 } {
            return Err(Errno::EMSGSIZE);
        }
        let bytes = take_all(src)?;
        let receiver = self.base.ns.udp.lock().find(to, local, |_| true).and_then(|w| w.upgrade());
        let Some(receiver) = receiver else {
            // The "port unreachable" reaches only a connected socket.
            if connected {
                self.base.set_error(Errno::ECONNREFUSED);
            }
            return Ok(len);
        };
        let control = packet_info(&receiver.base, to, 64);
        let from = Some(show(&receiver.base, local));
        receiver.inbox.send_or_drop(Message { bytes, from, with: Ancillary::default(), control });
        Ok(len)
    }
    fn recv(
        &self,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        _skip: usize,
        _by: &Caller<'_>,
    ) -> SysResult<Received> {
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        let deliver = |message: &Message, dst: &mut dyn GuestSink| {
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
        let local = self.state.lock().local;
        Ok(show(&self.base, local.unwrap_or_else(|| InetAddr::any(is_v6(&self.base)))))
    }
    fn peer_addr(&self) -> SysResult<SockAddr> {
        self.state.lock().peer.map(|p| show(&self.base, p)).ok_or(Errno::ENOTCONN)
    }
    fn ready(&self, interest: Events) -> Events {
        let mut events = Events::WRITABLE;
        let status = self.inbox.status();
        if self.inbox.has_message() {
            events |= Events::READABLE;
        }
        if status.closed {
            events |= Events::READABLE | Events::RDHUP;
        }
        if self.base.has_error() {
            events |= Events::ERR;
        }
        events & (interest | Events::ALWAYS)
    }
    fn get_option(&self, at: i32, name: i32, _by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        options::get(&self.base, at, name, 0)
    }
    fn set_option(&self, at: i32, name: i32, value: &[u8], by: &Caller<'_>) -> Option<SysResult<()>> {
        let bound = self.state.lock().held.is_some();
        options::set(&self.base, at, name, value, bound, by)
    }
    fn buffers_changed(&self) {
        self.inbox.set_limit(self.base.rcvbuf());
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        Ok(self.inbox.status().len)
    }
}
