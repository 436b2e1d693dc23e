//! TCP between the sockets of the sandbox (tcp(7)). Locks: `Socket` for the state, `SocketPeer` for queues.
//!
//! Two connected sockets write into each other's [`StreamInbox`]; nothing else is shared, so a send takes
//! one lock. A connection that finds the backlog full waits in the listener until accept(2) makes room.

mod discard;
mod end;
mod patience;

use super::backlog::{Listener, saved_syn};
use super::options::{self, Standing, tcp_state};
use super::ports::Told as PortOptions;
use super::{bind_addr, claim_for, destination, may_bind, own_family, port_range, show};
use crate::addr::{InetAddr, SockAddr};
use crate::base::{Base, Report};
use crate::inbox::{Ancillary, StreamInbox};
use crate::mailbox;
use crate::netns::NetNs;
use crate::socket::Socket;
use crate::types::{Control, MsgFlags, Received, SendMsg, Shutdown, SockType, level};
use abi::poll::Events;
use abi::{Errno, SysResult};
use discard::Discard;
use lock::Ranked;
use lock::order::{Leaf, Socket as SocketRank};
use mm::{GuestSink, GuestSource};
use patience::Patience;
use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use vfs::Caller;

/// Bytes in flight in one direction of a socket that tunes itself.
const AUTO_LIMIT: usize = 512 * 1024;
/// SO_ZEROCOPY; TCP_DEFER_ACCEPT; TCP_INQ.
const SO_ZEROCOPY: i32 = 60;
const TCP_DEFER_ACCEPT: i32 = 9;
const TCP_INQ: i32 = 36;

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Closed,
    Listening(Arc<Listener>),
    Connecting,
    Connected,
    /// A connect(2) that did not wait has failed, and nobody has asked again.
    Failed,
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
    // TCP_SAVED_SYN, until it is asked for.
    syn: Option<Vec<u8>>,
}

/// Both directions of a connection.
#[derive(Clone, Debug)]
struct Link {
    inbox: Arc<StreamInbox>,
    outbox: Arc<StreamInbox>,
}

/// A TCP socket.
#[derive(Debug)]
pub struct TcpSocket {
    base: Base,
    me: Weak<TcpSocket>,
    link: Ranked<Leaf, Option<Link>>,
    state: Ranked<SocketRank, State>,
    shut_read: AtomicBool,
    shut_write: AtomicBool,
    // Its end was the first of the two: its port rests (TIME_WAIT).
    ended_first: AtomicBool,
    // Sends with MSG_ZEROCOPY.
    copies: AtomicU32,
    patience: Patience,
}

fn limit_of(base: &Base) -> usize {
    base.with(|o| match (o.rcvbuf, o.sndbuf) {
        (None, None) => AUTO_LIMIT,
        (r, s) => r.unwrap_or(131_072).saturating_add(s.unwrap_or(131_072)),
    })
}

impl TcpSocket {
    /// A closed socket.
    #[must_use]
    pub fn new(ns: &Arc<NetNs>, domain: u16) -> Arc<TcpSocket> {
        TcpSocket::with_base(Base::new(ns, domain, SockType::Stream, 6))
    }
    fn with_base(base: Base) -> Arc<TcpSocket> {
        Arc::new_cyclic(|me| TcpSocket {
            base,
            me: Weak::clone(me),
            link: Ranked::default(),
            state: Ranked::default(),
            shut_read: AtomicBool::new(false),
            shut_write: AtomicBool::new(false),
            ended_first: AtomicBool::new(false),
            copies: AtomicU32::new(0),
            patience: Patience::default(),
        })
    }
    /// The queue that this socket reads.
    fn fresh_inbox(&self) -> Arc<StreamInbox> {
        let inbox = StreamInbox::new(&self.base.queue, limit_of(&self.base));
        // SO_OOBINLINE.
        inbox.set_inline(self.base.is_on(level::SOCKET, 10));
        inbox
    }
    fn link(&self) -> Option<Link> {
        self.link.lock().clone()
    }
    fn outbox(&self) -> Option<Arc<StreamInbox>> {
        self.link.lock().as_ref().map(|link| Arc::clone(&link.outbox))
    }
    fn inbox(&self) -> Option<Arc<StreamInbox>> {
        self.link.lock().as_ref().map(|link| Arc::clone(&link.inbox))
    }
    fn has_shut(&self, half: &AtomicBool) -> bool {
        half.load(Ordering::Relaxed)
    }
    /// Whether a byte came in, or the end.
    pub(super) fn has_heard(&self) -> bool {
        self.inbox().is_none_or(|inbox| {
            let status = inbox.status();
            status.len > 0 || status.eof
        })
    }

    /// The listener's end of a connection from `client`.
    fn child_for(&self, client: &TcpSocket, local: InetAddr, peer: InetAddr) -> Arc<TcpSocket> {
        let child = TcpSocket::with_base(self.base.child());
        child.base.change(|o| {
            o.ints.remove(&(level::TCP, TCP_DEFER_ACCEPT));
        });
        let (to_client, to_child) = (client.fresh_inbox(), child.fresh_inbox());
        *child.link.lock() = Some(Link { inbox: Arc::clone(&to_child), outbox: Arc::clone(&to_client) });
        *client.link.lock() = Some(Link { inbox: to_client, outbox: to_child });
        let syn = saved_syn(&self.base, peer, local);
        *child.state.lock() =
            State { phase: Phase::Connected, local: Some(local), peer: Some(peer), syn, ..State::default() };
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

    /// Whether both ends are over, or one was broken off: no connection any more (TCP_CLOSE).
    fn is_over(&self, link: &Link) -> bool {
        let status = link.inbox.status();
        status.closed || status.eof && self.has_shut(&self.shut_write)
    }
    fn tcp_state(&self) -> u8 {
        match self.state.lock().phase {
            Phase::Closed | Phase::Failed => return tcp_state::CLOSE,
            Phase::Listening(_) => return tcp_state::LISTEN,
            Phase::Connecting => return tcp_state::SYN_SENT,
            Phase::Connected => {}
        }
        let Some(link) = self.link() else { return tcp_state::CLOSE };
        match (link.inbox.status().eof, self.has_shut(&self.shut_write)) {
            _ if self.is_over(&link) => tcp_state::CLOSE,
            (true, _) => tcp_state::CLOSE_WAIT,
            (false, true) => tcp_state::FIN_WAIT2,
            (false, false) => tcp_state::ESTABLISHED,
        }
    }
    fn standing(&self) -> Standing {
        let tcp_state = self.tcp_state();
        let bytes = self.link().map_or((0, 0), |l| (l.outbox.status().total, l.inbox.status().total));
        let state = self.state.lock();
        Standing { tcp_state, bound: state.bound, connected: matches!(state.phase, Phase::Connected), bytes }
    }

    /// Local and peer address and state, for /proc/net/tcp.
    #[must_use]
    pub fn row(&self) -> (Option<InetAddr>, Option<InetAddr>, u8) {
        let state = self.tcp_state();
        let inner = self.state.lock();
        let known =
            inner.held.is_some() || inner.peer.is_some() || matches!(inner.phase, Phase::Listening(_));
        (inner.local.filter(|_| known), inner.peer, state)
    }
    /// Connections that wait to be accepted, and how many may, of a listener.
    #[must_use]
    pub fn depth(&self) -> Option<(usize, usize)> {
        self.backlog().map(|listener| listener.depth())
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
        let deferred = self.base.is_on(level::TCP, TCP_DEFER_ACCEPT);
        loop {
            let client = {
                let mut backlog = listener.0.lock();
                if backlog.closed || backlog.ready.len() + backlog.deferred.len() > backlog.limit {
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
            if let (true, Some(inbox)) = (deferred, child.inbox()) {
                inbox.tell_first(&self.base.queue);
                listener.0.lock().deferred.push(child);
            } else {
                listener.0.lock().ready.push_back(child);
            }
            client.base.queue.wake(Events::WRITABLE);
            self.base.queue.wake(Events::READABLE);
        }
    }

    fn claim(&self, state: &mut State, addr: InetAddr, by: &Caller<'_>) -> SysResult<u16> {
        let claim = claim_for(&self.base, addr, by);
        let range = port_range(&self.base);
        let port = self.base.ns.tcp.lock().claim(claim, Weak::clone(&self.me), true, range)?;
        state.held = Some(port);
        Ok(port)
    }

    /// A message to a socket without a connection.
    fn without_link(&self, ended: SysResult<usize>, never: Errno) -> SysResult<usize> {
        if let Some(error) = self.base.take_error() {
            return Err(error);
        }
        match self.state.lock().phase {
            Phase::Connecting => Err(Errno::EAGAIN),
            Phase::Failed => ended,
            _ => Err(never),
        }
    }

    /// Tells that a send with MSG_ZEROCOPY is done, by a copy after all.
    fn report_copy(&self) {
        let number = self.copies.fetch_add(1, Ordering::Relaxed);
        let v6 = super::is_v6(&self.base);
        let completion = |first: u32| super::info::extended_error(v6, None, (5, 0, 1), (first, number), None);
        // One report for completions in a row.
        let merged = self.base.merge_report(|report| match report.control.first() {
            Some(Control::Raw(_, _, data)) if report.error.is_none() && data.get(4) == Some(&5) => {
                let first =
                    data.get(8..).and_then(|b| b.first_chunk()).map_or(number, |b| u32::from_ne_bytes(*b));
                report.control = vec![completion(first)];
                true
            }
            _ => false,
        });
        if !merged {
            self.base.report(Report {
                error: None,
                bytes: Vec::new(),
                to: None,
                control: vec![completion(number)],
            });
        }
    }

    /// connect(2) to a socket of this sandbox, with the state locked until the server's is needed.
    fn connect_to(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Closed => {}
            Phase::Failed => {
                state.phase = Phase::Closed;
                return Err(Errno::ECONNABORTED);
            }
            Phase::Connecting => return Err(Errno::EALREADY),
            Phase::Connected if state.told == Told::InProgress => {
                state.told = Told::Connected;
                return Ok(());
            }
            _ => return Err(Errno::EISCONN),
        }
        let way = destination(&self.base, own_family(&self.base, addr)?)?;
        let to = way.to;
        let fresh = state.held.is_none() && !state.bound;
        if fresh {
            let from = InetAddr { ip: way.source, port: 0, scope: 0 };
            let port = self.claim(&mut state, from, by)?;
            state.local = Some(InetAddr { port, ..from });
        }
        let mut local = state.local.ok_or(Errno::EINVAL)?;
        if local.ip.is_unspecified() {
            local.ip = way.source;
        }
        let there = way.ns.as_ref().ok_or(Errno::EHOSTUNREACH)?;
        let found = there.tcp.lock().find(to, local, way.index.1, |c| c.listening).and_then(|w| w.upgrade());
        let Some(server) = found.filter(|s| !std::ptr::eq(Arc::as_ptr(s), self)) else {
            if (to.ip, to.port) == (local.ip, local.port) && Arc::ptr_eq(there, &self.base.ns) {
                // Both ends open at once: connected to itself.
                let inbox = self.fresh_inbox();
                *self.link.lock() = Some(Link { inbox: Arc::clone(&inbox), outbox: inbox });
                state.phase = Phase::Connected;
                state.local = Some(local);
                state.peer = Some(to);
                return Ok(());
            }
            if fresh {
                self.release_port(&mut state);
            }
            return Err(Errno::ECONNREFUSED);
        };
        // The server's own state may be locked only without ours.
        state.phase = Phase::Connecting;
        state.local = Some(local);
        state.peer = Some(to);
        drop(state);
        let listener = server.backlog();
        let joined = listener.as_ref().is_some_and(|listener| {
            let mut backlog = listener.0.lock();
            if !backlog.closed {
                backlog.waiting.push_back(Weak::clone(&self.me));
            }
            !backlog.closed
        });
        let Some(listener) = listener.filter(|_| joined) else {
            self.fail_connect();
            self.forget_failure();
            return Err(self.base.take_error().unwrap_or(Errno::ECONNREFUSED));
        };
        server.promote(&listener);
        match self.state.lock().phase {
            Phase::Connected => Ok(()),
            _ => Err(Errno::EINPROGRESS),
        }
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
        let addr = bind_addr(&self.base, addr)?;
        may_bind(&self.base, addr, by)?;
        let mut state = self.state.lock();
        if state.bound || !matches!(state.phase, Phase::Closed | Phase::Failed) {
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
        let child = listener.next().ok_or(Errno::EAGAIN)?;
        self.promote(&listener);
        let peer = child.state.lock().peer.unwrap_or_else(|| InetAddr::any(false));
        let shown = show(&self.base, peer);
        Ok((child, shown))
    }
    fn connect(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        if addr.is_unspec() {
            self.disconnect();
            return Ok(());
        }
        if let Some(error) = self.base.take_error() {
            self.forget_failure();
            return Err(error);
        }
        self.connect_to(addr, by)
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
            Err(Errno::ECONNREFUSED) if matches!(self.state.lock().phase, Phase::Closed) => {
                self.fail_connect();
                Err(Errno::EINPROGRESS)
            }
            other => other,
        }
    }
    fn connect_result(&self) -> SysResult<()> {
        if let Some(error) = self.base.take_error() {
            self.forget_failure();
            return Err(error);
        }
        match self.state.lock().phase {
            Phase::Connecting => Err(Errno::EAGAIN),
            Phase::Connected => Ok(()),
            _ => Err(Errno::ECONNREFUSED),
        }
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, by: &Caller<'_>) -> SysResult<usize> {
        let fast_open = message.flags.contains(MsgFlags::FASTOPEN);
        let Some(outbox) = self.outbox() else {
            if fast_open && let Some(addr) = message.addr.take() {
                message.flags -= MsgFlags::FASTOPEN;
                self.connect(&addr, by)?;
                return self.send(src, message, by);
            }
            return self.without_link(Err(Errno::EPIPE), Errno::EPIPE);
        };
        if fast_open && message.addr.is_some() {
            return Err(Errno::EISCONN);
        }
        if self.base.has_error()
            && let Some(error) = self.base.take_error()
        {
            return Err(error);
        }
        if self.has_shut(&self.shut_write) {
            return Err(Errno::EPIPE);
        }
        let urgent = message.flags.contains(MsgFlags::OOB);
        let sent = outbox.send(src, &mut Ancillary { urgent, ..Ancillary::default() }, &self.base.queue);
        if sent.is_ok()
            && message.flags.contains(MsgFlags::ZEROCOPY)
            && self.base.is_on(level::SOCKET, SO_ZEROCOPY)
        {
            self.report_copy();
        }
        if sent == Err(Errno::EAGAIN) {
            self.found_no_room(&outbox);
        }
        if sent != Err(Errno::EPIPE) {
            return sent;
        }
        let Some(inbox) = self.inbox() else { return sent };
        if let Some(error) = inbox.take_reset() {
            return Err(error);
        }
        let status = inbox.status();
        if status.closed {
            // A reset came before.
            return Err(Errno::EPIPE);
        }
        // The peer is gone: the bytes go out, a reset comes back.
        let len = src.remaining();
        src.skip(len);
        inbox.reset(if status.eof { Errno::EPIPE } else { Errno::ECONNRESET }, false);
        Ok(len)
    }
    fn recv(
        &self,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        skip: usize,
        _by: &Caller<'_>,
    ) -> SysResult<Received> {
        let Some(inbox) = self.inbox() else {
            let len = self.without_link(Ok(0), Errno::ENOTCONN)?;
            return Ok(Received { len, ..Received::default() });
        };
        if self.base.has_error()
            && let Some(error) = self.base.take_error()
        {
            return Err(error);
        }
        let peek = flags.contains(MsgFlags::PEEK);
        let offset = if peek { self.base.with(|o| o.peek_off) } else { None };
        let got = if flags.contains(MsgFlags::TRUNC) && !peek {
            // tcp(7): the bytes are thrown away.
            inbox.receive(&mut Discard(dst.remaining()), false, 0, false)
        } else {
            inbox.receive(dst, peek, skip + offset.unwrap_or(0), false)
        };
        let len = match got {
            Ok((len, _)) => len,
            // What comes after shutdown(2) of the reading half is still read; nothing is waited for.
            Err(Errno::EAGAIN) if self.has_shut(&self.shut_read) => 0,
            Err(error) => return Err(error),
        };
        if let Some(at) = offset {
            self.base.change(|o| o.peek_off = Some(at.saturating_add(len)));
        }
        let mut control = Vec::new();
        if self.base.is_on(level::TCP, TCP_INQ) {
            let left = i32::try_from(inbox.status().readable).unwrap_or(i32::MAX);
            control.push(Control::Raw(level::TCP, TCP_INQ, left.to_ne_bytes().to_vec()));
        }
        Ok(Received { len, control, ..Received::default() })
    }
    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let listening = match &self.state.lock().phase {
            Phase::Connected => false,
            Phase::Listening(_) if how.reads() => true,
            Phase::Connecting => true,
            Phase::Listening(_) => return Ok(()),
            _ => return Err(Errno::ENOTCONN),
        };
        if listening {
            // Stops listening, or connecting; a bound port stays bound.
            self.disconnect();
            return Ok(());
        }
        let link = self.link().ok_or(Errno::ENOTCONN)?;
        if self.is_over(&link) {
            return Err(Errno::ENOTCONN);
        }
        if how.reads() {
            self.shut_read.store(true, Ordering::SeqCst);
        }
        if how.writes() {
            self.end_sending(&link);
        }
        self.base.queue.wake(Events::READABLE | Events::WRITABLE | Events::RDHUP | Events::HUP);
        Ok(())
    }
    fn local_addr(&self) -> SysResult<SockAddr> {
        let local = self.state.lock().local;
        Ok(show(&self.base, local.unwrap_or_else(|| InetAddr::any(super::is_v6(&self.base)))))
    }
    fn peer_addr(&self) -> SysResult<SockAddr> {
        let peer = {
            let state = self.state.lock();
            state.peer.filter(|_| matches!(state.phase, Phase::Connected))
        };
        let link = self.link().ok_or(Errno::ENOTCONN)?;
        match peer {
            Some(peer) if !self.is_over(&link) => Ok(show(&self.base, peer)),
            _ => Err(Errno::ENOTCONN),
        }
    }
    fn ready(&self, interest: Events) -> Events {
        let mut events = if self.base.troubled() { Events::ERR } else { Events::empty() };
        let Some(link) = self.link() else {
            match &self.state.lock().phase {
                Phase::Listening(listener) => {
                    if listener.has_next() {
                        events |= Events::READABLE;
                    }
                }
                Phase::Closed => events |= Events::WRITABLE | Events::HUP,
                Phase::Failed => events |= Events::READABLE | Events::WRITABLE | Events::HUP | Events::RDHUP,
                Phase::Connecting | Phase::Connected => {}
            }
            return events & (interest | Events::ALWAYS);
        };
        let status = link.inbox.status();
        let lowat = self.base.with(|o| o.rcvlowat);
        let (shut_read, shut_write) = (self.has_shut(&self.shut_read), self.has_shut(&self.shut_write));
        let ended = status.eof || shut_read;
        if status.readable >= lowat || ended {
            events |= Events::READABLE;
        }
        if status.urgent {
            events |= Events::PRI;
        }
        if ended {
            events |= Events::RDHUP;
        }
        if ended && shut_write || status.closed {
            events |= Events::HUP;
        }
        if link.inbox.has_reset() {
            events |= Events::ERR;
        }
        if shut_write || status.closed || link.outbox.writable(&self.base.queue) {
            events |= Events::WRITABLE;
        }
        events & (interest | Events::ALWAYS)
    }
    fn get_option(&self, at: i32, name: i32, _by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        if (at, name) == (level::SOCKET, 4)
            && let Some(error) = self.inbox().and_then(|inbox| inbox.take_reset())
        {
            return Some(Ok(i32::from(error.raw()).to_ne_bytes().to_vec()));
        }
        if (at, name) == (level::TCP, 28)
            && let Some(syn) = self.state.lock().syn.take()
        {
            return Some(Ok(syn));
        }
        options::get(&self.base, at, name, self.standing())
    }
    fn set_option(&self, at: i32, name: i32, value: &[u8], by: &Caller<'_>) -> Option<SysResult<()>> {
        options::set(&self.base, at, name, value, self.standing(), by)
    }
    fn buffers_changed(&self) {
        if let Some(inbox) = self.inbox() {
            inbox.set_limit(limit_of(&self.base));
            inbox.set_inline(self.base.is_on(level::SOCKET, 10));
        }
        let told = self.base.with(|o| PortOptions { device: o.device, reuse_addr: o.reuse_addr });
        if let Some(port) = self.state.lock().held {
            self.base.ns.tcp.lock().retell(port, std::ptr::from_ref(self), told);
        }
    }
    fn recv_beside(&self, dst: &mut dyn GuestSink, flags: MsgFlags) -> SysResult<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            return mailbox::receive_report(&self.base, dst);
        }
        let never = match self.state.lock().phase {
            Phase::Listening(_) => Errno::ENOTCONN,
            _ => Errno::EINVAL,
        };
        let inbox = self.inbox().ok_or(never)?;
        let byte = inbox.take_urgent(flags.contains(MsgFlags::PEEK))?;
        let len = if dst.remaining() == 0 { 0 } else { dst.put(&[byte])? };
        let cut = if len == 0 { MsgFlags::TRUNC } else { MsgFlags::empty() };
        Ok(Received { len, flags: MsgFlags::OOB | cut, ..Received::default() })
    }
    fn at_mark(&self) -> SysResult<bool> {
        Ok(self.inbox().is_some_and(|inbox| inbox.at_mark()))
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        if matches!(self.state.lock().phase, Phase::Listening(_)) {
            return Err(Errno::EINVAL);
        }
        Ok(self.inbox().map_or(0, |inbox| inbox.status().before_mark))
    }
    fn unsent_bytes(&self) -> SysResult<usize> {
        // What is sent has arrived.
        if matches!(self.state.lock().phase, Phase::Listening(_)) { Err(Errno::EINVAL) } else { Ok(0) }
    }
}
