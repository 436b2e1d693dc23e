//! TCP over the loopback (tcp(7)). Locks: `Socket` for the state, `SocketPeer` for queues.
//!
//! Two connected sockets write into each other's [`StreamInbox`]; nothing else is shared, so a send takes
//! one lock. A connection that finds the backlog full waits in the listener until accept(2) makes room.

use super::options::{self, tcp_state};
use super::{claim_for, destination, may_bind, own_family, port_range, show, source_for};
use crate::addr::{InetAddr, SockAddr};
use crate::base::Base;
use crate::inbox::{Ancillary, StreamInbox};
use crate::netns::NetNs;
use crate::socket::Socket;
use crate::types::{MsgFlags, Received, SendMsg, Shutdown, SockType, level};
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::{Socket as SocketRank, SocketPeer};
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use vfs::Caller;

/// Bytes in flight in one direction of a socket that tunes itself.
const AUTO_LIMIT: usize = 512 * 1024;

#[derive(Debug, Default)]
struct Backlog {
    ready: VecDeque<Arc<TcpSocket>>,
    waiting: VecDeque<Weak<TcpSocket>>,
    limit: usize,
    closed: bool,
}

#[derive(Debug, Default)]
struct Listener(Ranked<SocketPeer, Backlog>);

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Closed,
    Listening(Arc<Listener>),
    Connecting,
    Connected,
}

/// What connect(2) has said of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Told {
    #[default]
    Nothing,
    InProgress,
    Connected,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    local: Option<InetAddr>,
    peer: Option<InetAddr>,
    // The port this socket holds in the table; children of a listener hold none.
    held: Option<u16>,
    // Bound by bind(2), not by connect(2).
    bound: bool,
    // A non-blocking connect(2) that succeeds at once says EINPROGRESS, as on Linux; the next says so.
    told: Told,
}

/// A TCP socket.
#[derive(Debug)]
pub struct TcpSocket {
    base: Base,
    me: Weak<TcpSocket>,
    inbox: Arc<StreamInbox>,
    outbox: OnceLock<Arc<StreamInbox>>,
    state: Ranked<SocketRank, State>,
    shut_write: AtomicBool,
    // A send after the peer went away was answered with a reset.
    broken: AtomicBool,
}

fn limit_of(base: &Base) -> usize {
    base.with(|o| match (o.rcvbuf, o.sndbuf) {
        (None, None) => AUTO_LIMIT,
        (r, s) => r.unwrap_or(131_072).saturating_add(s.unwrap_or(131_072)),
    })
}

/// SO_OOBINLINE.
fn oob_inline(base: &Base) -> bool {
    base.int(level::SOCKET, 10).unwrap_or(0) != 0
}

impl TcpSocket {
    /// A closed socket.
    #[must_use]
    pub fn new(ns: &Arc<NetNs>, domain: u16) -> Arc<TcpSocket> {
        TcpSocket::with_base(Base::new(ns, domain, SockType::Stream, 6))
    }
    fn with_base(base: Base) -> Arc<TcpSocket> {
        let inbox = StreamInbox::new(&base.queue, limit_of(&base));
        inbox.set_inline(oob_inline(&base));
        Arc::new_cyclic(|me| TcpSocket {
            base,
            me: Weak::clone(me),
            inbox,
            outbox: OnceLock::new(),
            state: Ranked::default(),
            shut_write: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        })
    }

    /// The listener's end of a connection from `client`.
    fn child_for(&self, client: &TcpSocket, local: InetAddr, peer: InetAddr) -> Arc<TcpSocket> {
        let child = TcpSocket::with_base(self.base.child());
        let _ = child.outbox.set(Arc::clone(&client.inbox));
        let _ = client.outbox.set(Arc::clone(&child.inbox));
        *child.state.lock() =
            State { phase: Phase::Connected, local: Some(local), peer: Some(peer), ..State::default() };
        child
    }

    /// A socket that listens at `local`, which the caller has bound elsewhere.
    pub(crate) fn listening_at(
        base: Base,
        local: InetAddr,
        backlog: i32,
        by: &Caller<'_>,
    ) -> SysResult<Arc<TcpSocket>> {
        let socket = TcpSocket::bound_at(base, Some(local));
        {
            let mut state = socket.state.lock();
            socket.claim(&mut state, local.plain(), by)?;
        }
        socket.listen(backlog, by)?;
        Ok(socket)
    }
    /// A socket that is bound at `local`, a port that the caller holds elsewhere.
    pub(crate) fn bound_at(base: Base, local: Option<InetAddr>) -> Arc<TcpSocket> {
        let socket = TcpSocket::with_base(base);
        if let Some(local) = local {
            let mut state = socket.state.lock();
            state.local = Some(local.plain());
            state.bound = true;
        }
        socket
    }

    fn tcp_state(&self) -> u8 {
        match self.state.lock().phase {
            Phase::Closed => tcp_state::CLOSE,
            Phase::Listening(_) => tcp_state::LISTEN,
            Phase::Connecting => tcp_state::SYN_SENT,
            Phase::Connected => match (self.inbox.status().eof, self.shut_write.load(Ordering::Relaxed)) {
                (false, false) => tcp_state::ESTABLISHED,
                (true, false) => tcp_state::CLOSE_WAIT,
                (false, true) => tcp_state::FIN_WAIT2,
                (true, true) => tcp_state::CLOSE,
            },
        }
    }

    /// Local and peer address and state, for /proc/net/tcp.
    #[must_use]
    pub fn row(&self) -> (Option<InetAddr>, Option<InetAddr>, u8) {
        let state = self.tcp_state();
        let inner = self.state.lock();
        (inner.local, inner.peer, state)
    }

    fn backlog(&self) -> Option<Arc<Listener>> {
        match &self.state.lock().phase {
            Phase::Listening(listener) => Some(Arc::clone(listener)),
            _ => None,
        }
    }

    fn release_port(&self, state: &mut State) {
        if let Some(port) = state.held.take() {
            self.base.ns.tcp.lock().release(port, std::ptr::from_ref(self));
        }
    }

    /// Takes connections out of the waiting list while there is room.
    fn promote(&self, listener: &Listener) {
        loop {
            let client = {
                let mut backlog = listener.0.lock();
                if backlog.closed || backlog.ready.len() > backlog.limit {
                    return;
                }
                let Some(client) = backlog.waiting.pop_front() else { return };
                client
            };
            let Some(client) = client.upgrade() else { continue };
            let (local, peer) = {
                let mut state = client.state.lock();
                let (Phase::Connecting, Some(local), Some(peer)) = (&state.phase, state.local, state.peer)
                else {
                    continue;
                };
                state.phase = Phase::Connected;
                (local, peer)
            };
            let child = self.child_for(&client, peer, local);
            listener.0.lock().ready.push_back(child);
            client.base.queue.wake(Events::WRITABLE);
            self.base.queue.wake(Events::READABLE);
        }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        self.release_port(&mut state);
        let phase = std::mem::take(&mut state.phase);
        drop(state);
        match phase {
            Phase::Listening(listener) => {
                let (ready, waiting) = {
                    let mut backlog = listener.0.lock();
                    backlog.closed = true;
                    (std::mem::take(&mut backlog.ready), std::mem::take(&mut backlog.waiting))
                };
                for child in &ready {
                    child.base.change(|o| o.linger = Some(0));
                }
                drop(ready);
                for client in waiting.iter().filter_map(Weak::upgrade) {
                    client.fail_connect();
                }
            }
            Phase::Connected => {
                let unread = self.inbox.close();
                if let Some(outbox) = self.outbox.get() {
                    if unread > 0 || self.base.with(|o| o.linger) == Some(0) {
                        outbox.reset(Errno::ECONNRESET, false);
                    } else {
                        outbox.finish(self.inbox.status().eof);
                    }
                }
            }
            Phase::Closed | Phase::Connecting => {}
        }
    }

    fn fail_connect(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        state.peer = None;
        if !state.bound {
            self.release_port(&mut state);
            state.local = None;
        }
        drop(state);
        self.base.set_error(Errno::ECONNREFUSED);
    }

    fn claim(&self, state: &mut State, addr: InetAddr, by: &Caller<'_>) -> SysResult<u16> {
        let claim = claim_for(&self.base, addr, by);
        let range = port_range(&self.base);
        let port = self.base.ns.tcp.lock().claim(claim, Weak::clone(&self.me), true, range)?;
        state.held = Some(port);
        Ok(port)
    }
}

impl Drop for TcpSocket {
    fn drop(&mut self) {
        self.close();
    }
}

impl Socket for TcpSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn base(&self) -> &Base {
        &self.base
    }
    fn bind(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let addr = own_family(&self.base, addr)?;
        may_bind(&self.base, addr, by)?;
        let mut state = self.state.lock();
        if state.bound || !matches!(state.phase, Phase::Closed) {
            return Err(Errno::EINVAL);
        }
        let port = self.claim(&mut state, addr, by)?;
        state.local = Some(InetAddr { port, ..addr });
        state.bound = true;
        Ok(())
    }
    fn listen(&self, backlog: i32, by: &Caller<'_>) -> SysResult<()> {
        let most = self.base.ns.somaxconn.load(Ordering::Relaxed);
        // A negative backlog is a huge one, as on Linux.
        let limit = usize::try_from(backlog.cast_unsigned().min(most)).unwrap_or(0);
        let mut state = self.state.lock();
        match &state.phase {
            Phase::Listening(listener) => {
                listener.0.lock().limit = limit;
                return Ok(());
            }
            Phase::Closed => {}
            _ => return Err(Errno::EINVAL),
        }
        if state.held.is_none() {
            let any = InetAddr::any(super::is_v6(&self.base));
            let port = self.claim(&mut state, any, by)?;
            state.local = Some(InetAddr { port, ..any });
            state.bound = true;
        }
        let port = state.held.ok_or(Errno::EINVAL)?;
        self.base.ns.tcp.lock().listen(port, std::ptr::from_ref(self))?;
        let listener = Listener::default();
        listener.0.lock().limit = limit;
        state.phase = Phase::Listening(Arc::new(listener));
        Ok(())
    }
    fn accept(&self) -> SysResult<(Arc<dyn Socket>, SockAddr)> {
        let listener = self.backlog().ok_or(Errno::EINVAL)?;
        let child = listener.0.lock().ready.pop_front();
        let child = child.ok_or(Errno::EAGAIN)?;
        self.promote(&listener);
        let peer = child.state.lock().peer.unwrap_or_else(|| InetAddr::any(false));
        let shown = show(&self.base, peer);
        Ok((child, shown))
    }
    fn connect(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        let mut state = self.state.lock();
        if *addr == SockAddr::Unspec {
            return match state.phase {
                Phase::Closed => Ok(()),
                _ => Err(Errno::EOPNOTSUPP),
            };
        }
        let to = own_family(&self.base, addr)?;
        match state.phase {
            Phase::Closed if self.outbox.get().is_none() => {}
            Phase::Connecting => return Err(Errno::EALREADY),
            Phase::Connected if state.told == Told::InProgress => {
                state.told = Told::Connected;
                return Ok(());
            }
            _ => return Err(Errno::EISCONN),
        }
        let to = destination(&self.base, to)?;
        let fresh = state.held.is_none() && !state.bound;
        if fresh {
            let port = self.claim(&mut state, source_for(to, 0), by)?;
            state.local = Some(source_for(to, port));
        }
        let mut local = state.local.ok_or(Errno::EINVAL)?;
        if local.ip.is_unspecified() {
            local = source_for(to, local.port);
        }
        let found = self.base.ns.tcp.lock().find(to, local, |c| c.listening).and_then(|w| w.upgrade());
        let Some(server) = found.filter(|s| !std::ptr::eq(Arc::as_ptr(s), self)) else {
            if fresh {
                self.release_port(&mut state);
                state.local = None;
            }
            return Err(Errno::ECONNREFUSED);
        };
        // The server's own state may be locked only without ours.
        state.phase = Phase::Connecting;
        state.local = Some(local);
        state.peer = Some(to);
        drop(state);
        let Some(listener) = server.backlog() else {
            self.fail_connect();
            return Err(self.base.take_error().unwrap_or(Errno::ECONNREFUSED));
        };
        {
            let mut backlog = listener.0.lock();
            if backlog.closed {
                drop(backlog);
                self.fail_connect();
                return Err(self.base.take_error().unwrap_or(Errno::ECONNREFUSED));
            }
            backlog.waiting.push_back(Weak::clone(&self.me));
        }
        server.promote(&listener);
        match self.state.lock().phase {
            Phase::Connected => Ok(()),
            _ => Err(Errno::EINPROGRESS),
        }
    }
    fn connected_at_once(&self, outcome: SysResult<()>) -> SysResult<()> {
        match outcome {
            Ok(()) => {
                let mut state = self.state.lock();
                if !matches!((&state.phase, state.told), (Phase::Connected, Told::Nothing)) {
                    return Ok(());
                }
                state.told = Told::InProgress;
                Err(Errno::EINPROGRESS)
            }
            Err(Errno::ECONNREFUSED) => {
                self.base.set_error(Errno::ECONNREFUSED);
                Err(Errno::EINPROGRESS)
            }
            other => other,
        }
    }
    fn connect_result(&self) -> SysResult<()> {
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        match self.state.lock().phase {
            Phase::Connecting => Err(Errno::EAGAIN),
            Phase::Connected => Ok(()),
            _ => Err(Errno::ECONNREFUSED),
        }
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, by: &Caller<'_>) -> SysResult<usize> {
        let Some(outbox) = self.outbox.get() else {
            if let Some(error) = self.base.take_error() {
                return Err(error);
            }
            if message.flags.contains(MsgFlags::FASTOPEN)
                && let Some(addr) = message.addr.take()
            {
                self.connect(&addr, by)?;
                return self.send(src, message, by);
            }
            return match self.state.lock().phase {
                Phase::Connecting => Err(Errno::EAGAIN),
                _ => Err(Errno::EPIPE),
            };
        };
        if self.base.has_error()
            && let Some(error) = self.base.take_error()
        {
            return Err(error);
        }
        let urgent = message.flags.contains(MsgFlags::OOB);
        match outbox.send(src, &mut Ancillary { urgent, ..Ancillary::default() }, &self.base.queue) {
            Err(Errno::EPIPE) if !self.shut_write.load(Ordering::Relaxed) => {
                if let Some(error) = self.inbox.take_reset() {
                    return Err(error);
                }
                // `closed` on our own queue: a reset came before.
                if self.inbox.status().closed || self.broken.swap(true, Ordering::SeqCst) {
                    return Err(Errno::EPIPE);
                }
                // The peer is gone: the bytes go out, a reset comes back.
                let len = src.remaining();
                src.skip(len);
                if self.inbox.status().eof {
                    self.base.set_error(Errno::EPIPE);
                } else {
                    self.inbox.reset(Errno::ECONNRESET, false);
                }
                Ok(len)
            }
            other => other,
        }
    }
    fn recv(
        &self,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        skip: usize,
        _by: &Caller<'_>,
    ) -> SysResult<Received> {
        if self.outbox.get().is_none() {
            if let Some(error) = self.base.take_error() {
                return Err(error);
            }
            return match self.state.lock().phase {
                Phase::Connecting => Err(Errno::EAGAIN),
                _ => Err(Errno::ENOTCONN),
            };
        }
        let peek = flags.contains(MsgFlags::PEEK);
        if flags.contains(MsgFlags::TRUNC) && !peek {
            // tcp(7): the bytes are thrown away.
            let mut sink = Discard(dst.remaining());
            let (len, _) = self.inbox.receive(&mut sink, false, 0, false)?;
            return Ok(Received { len, ..Received::default() });
        }
        let (len, _) = self.inbox.receive(dst, peek, skip, false)?;
        Ok(Received { len, ..Received::default() })
    }
    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let listener = {
            let mut state = self.state.lock();
            match &state.phase {
                Phase::Connected => None,
                Phase::Listening(listener) if how.reads() => {
                    // Stops listening; the port stays bound.
                    let listener = Arc::clone(listener);
                    state.phase = Phase::Closed;
                    Some(listener)
                }
                Phase::Listening(_) => return Ok(()),
                _ => return Err(Errno::ENOTCONN),
            }
        };
        if let Some(listener) = listener {
            let ready = {
                let mut backlog = listener.0.lock();
                backlog.closed = true;
                std::mem::take(&mut backlog.ready)
            };
            drop(ready);
            self.base.queue.wake(Events::READABLE | Events::HUP);
            return Ok(());
        }
        if how.writes() && !self.shut_write.swap(true, Ordering::SeqCst) {
            if let Some(outbox) = self.outbox.get() {
                outbox.finish(self.inbox.status().eof);
            }
            self.base.queue.wake(Events::WRITABLE);
        }
        if how.reads() {
            // Linux goes on taking bytes; readers see end of file when the queue is empty.
            self.inbox.finish(self.shut_write.load(Ordering::SeqCst));
        }
        Ok(())
    }
    fn local_addr(&self) -> SysResult<SockAddr> {
        let local = self.state.lock().local;
        Ok(show(&self.base, local.unwrap_or_else(|| InetAddr::any(super::is_v6(&self.base)))))
    }
    fn peer_addr(&self) -> SysResult<SockAddr> {
        let state = self.state.lock();
        match (&state.phase, state.peer) {
            (Phase::Connected, Some(peer)) => Ok(show(&self.base, peer)),
            _ => Err(Errno::ENOTCONN),
        }
    }
    fn ready(&self, interest: Events) -> Events {
        let mut events = Events::empty();
        let Some(outbox) = self.outbox.get() else {
            if self.base.has_error() {
                events |= Events::ERR | Events::READABLE | Events::WRITABLE | Events::HUP;
            }
            match &self.state.lock().phase {
                Phase::Listening(listener) => {
                    if !listener.0.lock().ready.is_empty() {
                        events |= Events::READABLE;
                    }
                }
                Phase::Closed => events |= Events::WRITABLE | Events::HUP,
                Phase::Connecting | Phase::Connected => {}
            }
            return events & (interest | Events::ALWAYS);
        };
        let status = self.inbox.status();
        let lowat = self.base.with(|o| o.rcvlowat);
        if status.readable >= lowat || status.eof {
            events |= Events::READABLE;
        }
        if status.urgent {
            events |= Events::PRI;
        }
        if status.eof {
            events |= Events::RDHUP;
        }
        let shut = self.shut_write.load(Ordering::Relaxed);
        if status.eof && (shut || status.closed) {
            events |= Events::HUP;
        }
        if self.base.has_error() || self.inbox.has_reset() {
            events |= Events::ERR;
        }
        if shut || outbox.writable(&self.base.queue) {
            events |= Events::WRITABLE;
        }
        events & (interest | Events::ALWAYS)
    }
    fn get_option(&self, level: i32, name: i32, _by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        if (level, name) == (1, 4)
            && let Some(error) = self.inbox.take_reset()
        {
            return Some(Ok(i32::from(error.raw()).to_ne_bytes().to_vec()));
        }
        options::get(&self.base, level, name, self.tcp_state())
    }
    fn set_option(&self, level: i32, name: i32, value: &[u8], by: &Caller<'_>) -> Option<SysResult<()>> {
        let bound = self.state.lock().bound;
        options::set(&self.base, level, name, value, bound, by)
    }
    fn buffers_changed(&self) {
        self.inbox.set_limit(limit_of(&self.base));
        self.inbox.set_inline(oob_inline(&self.base));
    }
    fn recv_beside(&self, dst: &mut dyn GuestSink, flags: MsgFlags) -> SysResult<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return Err(Errno::EAGAIN);
        }
        let byte = self.inbox.take_urgent(flags.contains(MsgFlags::PEEK))?;
        let len = if dst.remaining() == 0 { 0 } else { dst.put(&[byte])? };
        let cut = if len == 0 { MsgFlags::TRUNC } else { MsgFlags::empty() };
        Ok(Received { len, flags: MsgFlags::OOB | cut, ..Received::default() })
    }
    fn at_mark(&self) -> SysResult<bool> {
        Ok(self.inbox.at_mark())
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        if matches!(self.state.lock().phase, Phase::Listening(_)) {
            return Err(Errno::EINVAL);
        }
        Ok(self.inbox.status().before_mark)
    }
}

/// Swallows bytes.
struct Discard(usize);

impl GuestSink for Discard {
    fn remaining(&self) -> usize {
        self.0
    }
    fn put(&mut self, bytes: &[u8]) -> SysResult<usize> {
        self.put_zeros(bytes.len())
    }
    fn put_pages(
        &mut self,
        _memory: &platform::memory::MemoryFile,
        _offset: u64,
        len: usize,
    ) -> SysResult<usize> {
        self.put_zeros(len)
    }
    fn put_zeros(&mut self, len: usize) -> SysResult<usize> {
        let n = len.min(self.0);
        self.0 -= n;
        Ok(n)
    }
    fn fill_from_fd(
        &mut self,
        _fd: std::os::fd::BorrowedFd<'_>,
        _at: Option<u64>,
        _max: usize,
    ) -> SysResult<usize> {
        Err(Errno::EINVAL)
    }
}
