//! AF_UNIX (unix(7)): stream, datagram and sequenced-packet sockets. Locks: `Socket` for the state,
//! `SocketPeer` for queues, `NetStack` for names.

mod end;
pub mod garbage;
mod show;

pub use show::UnixRow;

use crate::addr::{SockAddr, UnixAddr};
use crate::base::Base;
use crate::inbox::{Ancillary, Counting, Message, MessageInbox, StreamInbox};
use crate::netns::NetNs;
use crate::socket::Socket;
use crate::types::{AF_UNIX, Control, MsgFlags, Received, SendMsg, Shutdown, SockType, Ucred, level};
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::{NetStack, Socket as SocketRank, SocketPeer};
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use vfs::{Caller, OpenFile};

/// Sockets bound to files, by device and inode.
static NODES: Ranked<NetStack, Option<Nodes>> = Ranked::new(None);
type Nodes = HashMap<(u64, u64), Weak<UnixSocket>>;

#[derive(Debug)]
enum Inbox {
    Stream(Arc<StreamInbox>),
    Messages(Arc<MessageInbox>),
}

#[derive(Debug)]
struct Backlog {
    ready: VecDeque<Arc<UnixSocket>>,
    limit: usize,
    closed: bool,
    // Connecting sockets that found it full.
    blocked: Vec<Weak<UnixSocket>>,
}

#[derive(Debug)]
struct Listener {
    backlog: Ranked<SocketPeer, Backlog>,
    // Credentials at listen(2): what SO_PEERCRED of a client shows.
    cred: Ucred,
    groups: Vec<vfs::Kgid>,
}

#[derive(Debug, Default)]
struct State {
    local: Option<UnixAddr>,
    listener: Option<Arc<Listener>>,
    // Datagram sockets only; connected ones have `link`.
    peer: Option<Weak<UnixSocket>>,
    shut_read: bool,
}

/// A connection of a stream or sequenced-packet socket, made once.
#[derive(Debug)]
struct Link {
    outbox: Inbox,
    peer_addr: Option<UnixAddr>,
    peer_cred: Ucred,
    // Its groups (SO_PEERGROUPS).
    groups: Vec<vfs::Kgid>,
    peer: Weak<UnixSocket>,
}

/// An AF_UNIX socket.
#[derive(Debug)]
pub struct UnixSocket {
    base: Base,
    me: Weak<UnixSocket>,
    inbox: Inbox,
    link: OnceLock<Link>,
    state: Ranked<SocketRank, State>,
    shut_write: AtomicBool,
    opener: Ucred,
}

static AUTOBIND: AtomicU32 = AtomicU32::new(0);

fn shown(addr: Option<UnixAddr>) -> SockAddr {
    SockAddr::Unix(addr.unwrap_or(UnixAddr::Unnamed))
}

impl UnixSocket {
    /// An unbound socket.
    #[must_use]
    pub fn new(ns: &Arc<NetNs>, kind: SockType, by: &Caller<'_>) -> Arc<UnixSocket> {
        UnixSocket::with_base(Base::new(ns, AF_UNIX, kind, 0), Ucred::of(by))
    }
    fn with_base(base: Base, opener: Ucred) -> Arc<UnixSocket> {
        let inbox = match base.kind {
            SockType::Stream => Inbox::Stream(StreamInbox::new(&base.queue, base.sndbuf())),
            kind => {
                let queue = usize::try_from(base.ns.unix_queue.load(Ordering::Relaxed)).unwrap_or(10);
                let count = if kind == SockType::Dgram { queue + 1 } else { usize::MAX };
                Inbox::Messages(MessageInbox::new(&base.queue, base.sndbuf(), count))
            }
        };
        Arc::new_cyclic(|me| UnixSocket {
            base,
            me: Weak::clone(me),
            inbox,
            link: OnceLock::new(),
            state: Ranked::default(),
            shut_write: AtomicBool::new(false),
            opener,
        })
    }
    /// socketpair(2).
    #[must_use]
    pub fn pair(ns: &Arc<NetNs>, kind: SockType, by: &Caller<'_>) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
        let (a, b) = (UnixSocket::new(ns, kind, by), UnixSocket::new(ns, kind, by));
        let cred = Ucred::of(by);
        if kind == SockType::Dgram {
            a.state.lock().peer = Some(Arc::downgrade(&b));
            b.state.lock().peer = Some(Arc::downgrade(&a));
        }
        let groups = by.cred.groups.to_vec();
        a.attach(&b, None, (cred, groups.clone()));
        b.attach(&a, None, (cred, groups));
        (a, b)
    }
    fn attach(
        &self,
        peer: &Arc<UnixSocket>,
        peer_addr: Option<UnixAddr>,
        (peer_cred, groups): (Ucred, Vec<vfs::Kgid>),
    ) {
        let outbox = match &peer.inbox {
            Inbox::Stream(inbox) => Inbox::Stream(Arc::clone(inbox)),
            Inbox::Messages(inbox) => Inbox::Messages(Arc::clone(inbox)),
        };
        let _ = self.link.set(Link { outbox, peer_addr, peer_cred, groups, peer: Arc::downgrade(peer) });
    }
    fn is_dgram(&self) -> bool {
        self.base.kind == SockType::Dgram
    }
    fn find(&self, addr: &SockAddr) -> SysResult<Arc<UnixSocket>> {
        let SockAddr::Unix(addr) = addr else { return Err(Errno::EINVAL) };
        let found = match addr {
            UnixAddr::Unnamed => return Err(Errno::EINVAL),
            UnixAddr::Abstract(name) => self.base.ns.abstract_names.lock().get(name).and_then(Weak::upgrade),
            UnixAddr::Path { node, .. } => {
                let node = node.ok_or(Errno::ENOENT)?;
                NODES.lock().as_ref().and_then(|nodes| nodes.get(&node)).and_then(Weak::upgrade)
            }
        };
        let socket = found.ok_or(Errno::ECONNREFUSED)?;
        if socket.base.kind == self.base.kind { Ok(socket) } else { Err(Errno::EPROTOTYPE) }
    }

    fn bind_name(&self, name: Vec<u8>) -> SysResult<UnixAddr> {
        let mut names = self.base.ns.abstract_names.lock();
        if names.get(&name).is_some_and(|w| w.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        names.insert(name.clone(), Weak::clone(&self.me));
        Ok(UnixAddr::Abstract(name))
    }
    fn autobind(&self) -> SysResult<UnixAddr> {
        for _ in 0..0x10_0000u32 {
            let number = AUTOBIND.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
            match self.bind_name(format!("{number:05x}").into_bytes()) {
                Err(Errno::EADDRINUSE) => {}
                other => return other,
            }
        }
        Err(Errno::ENOSPC)
    }

    /// What travels with a message: descriptors, and credentials if either side asks for them.
    fn ancillary(&self, message: &mut SendMsg, receiver_asks: bool, by: &Caller<'_>) -> SysResult<Ancillary> {
        let mut with = Ancillary::default();
        for control in std::mem::take(&mut message.control) {
            match control {
                Control::Rights(files) => with.files.extend(files),
                Control::Credentials(cred) => with.cred = Some(cred),
                Control::Raw(..) | Control::PidFd(_) => return Err(Errno::EINVAL),
            }
        }
        if with.cred.is_none() && (receiver_asks || self.asks_who()) {
            with.cred = Some(Ucred::of(by));
        }
        if !with.files.is_empty() {
            garbage::note_sent(&with.files);
        }
        Ok(with)
    }
    /// Whether messages shall tell who sent them.
    fn asks_who(&self) -> bool {
        self.base.with(|o| o.pass_cred || o.pass_pidfd)
    }
    /// What came with a message, as far as the receiver asked for it.
    fn told(&self, with: Ancillary) -> Vec<Control> {
        let (cred, pidfd) = self.base.with(|o| (o.pass_cred, o.pass_pidfd));
        let sender = with.cred;
        let mut control = with.into_control(cred);
        if let Some(sender) = sender.filter(|_| pidfd) {
            let at = usize::from(cred).min(control.len());
            control.insert(at, Control::PidFd(sender.pid));
        }
        control
    }

    fn send_stream(
        &self,
        src: &mut dyn GuestSource,
        message: &mut SendMsg,
        by: &Caller<'_>,
    ) -> SysResult<usize> {
        if message.addr.is_some() {
            return Err(if self.link.get().is_some() { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        let link = self.link.get().ok_or(Errno::ENOTCONN)?;
        if self.shut_write.load(Ordering::Relaxed) {
            return Err(Errno::EPIPE);
        }
        let urgent = message.flags.contains(MsgFlags::OOB);
        let Inbox::Stream(outbox) = &link.outbox else { return Err(Errno::ENOTCONN) };
        let plain = message.control.is_empty() && !self.asks_who();
        let asks = link.peer.upgrade().is_some_and(|p| p.asks_who());
        let mut with = if plain && !asks { Ancillary::default() } else { self.ancillary(message, asks, by)? };
        with.urgent = urgent;
        let sent = outbox.send(src, &mut with, &self.base.queue);
        if sent.is_err() && !with.files.is_empty() {
            // Not sent: the next attempt sends them.
            message.control.push(Control::Rights(with.files));
        }
        sent
    }

    fn send_message(
        &self,
        src: &mut dyn GuestSource,
        message: &mut SendMsg,
        by: &Caller<'_>,
    ) -> SysResult<usize> {
        if !self.is_dgram() && self.link.get().is_none() {
            return Err(Errno::ENOTCONN);
        }
        if self.shut_write.load(Ordering::Relaxed) {
            return Err(Errno::EPIPE);
        }
        let target;
        let mut counted = Counting::Bytes;
        let outbox = if self.is_dgram() {
            target = match &message.addr {
                Some(addr) => self.find(addr)?,
                None => {
                    let mut state = self.state.lock();
                    let peer = state.peer.as_ref().ok_or(Errno::ENOTCONN)?.upgrade();
                    if peer.is_none() {
                        // It is told once.
                        state.peer = None;
                    }
                    peer.ok_or(Errno::ECONNREFUSED)?
                }
            };
            counted = self.counting(&target);
            if target.is_taken_from(self) {
                return Err(Errno::EPERM);
            }
            match &target.inbox {
                Inbox::Messages(inbox) => inbox,
                Inbox::Stream(_) => return Err(Errno::EPROTOTYPE),
            }
        } else {
            match self.link.get().map(|l| &l.outbox) {
                Some(Inbox::Messages(_)) if message.flags.contains(MsgFlags::OOB) => {
                    return Err(Errno::EOPNOTSUPP);
                }
                Some(Inbox::Messages(outbox)) => outbox,
                _ => return Err(Errno::ENOTCONN),
            }
        };
        let len = src.remaining();
        if len > self.base.sndbuf().saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        // The source can be taken once: full queues are found out before.
        if !outbox.writable_now(&self.base.queue, counted)? {
            return Err(Errno::EAGAIN);
        }
        let bytes = crate::inet::take_all(src)?;
        let asks = match &message.addr {
            _ if !self.is_dgram() => {
                self.link.get().and_then(|l| l.peer.upgrade()).is_some_and(|p| p.asks_who())
            }
            Some(addr) => self.find(addr).is_ok_and(|p| p.asks_who()),
            None => true,
        };
        let with = self.ancillary(message, asks, by)?;
        let from = self.state.lock().local.clone().map(SockAddr::Unix);
        outbox.send_anyway(Message { bytes, from, with, at: vfs::realtime_now(), ..Message::default() })?;
        Ok(len)
    }

    /// The number of messages counts for those that do not talk to each other alone.
    fn counting(&self, to: &UnixSocket) -> Counting {
        let mutual = to.state.lock().peer.as_ref().is_some_and(|peer| std::ptr::eq(peer.as_ptr(), self));
        if mutual { Counting::Bytes } else { Counting::Messages }
    }
    /// A connected datagram socket takes messages only from its peer.
    fn is_taken_from(&self, sender: &UnixSocket) -> bool {
        let state = self.state.lock();
        state.peer.as_ref().is_some_and(|p| !std::ptr::eq(p.as_ptr(), sender) && p.strong_count() > 0)
    }

    fn deliver(
        &self,
        message: &Message,
        files: Vec<Arc<OpenFile>>,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
    ) -> SysResult<Received> {
        let room = dst.remaining();
        let copied = if message.bytes.is_empty() || room == 0 { 0 } else { dst.put(&message.bytes)? };
        let with = Ancillary { files, cred: message.with.cred, urgent: false };
        let mut out = Received {
            len: copied,
            addr: message.from.clone(),
            control: [crate::inet::info::arrival(&self.base, message), self.told(with)].concat(),
            flags: MsgFlags::empty(),
        };
        if message.bytes.len() > room {
            out.flags |= MsgFlags::TRUNC;
        }
        if flags.contains(MsgFlags::TRUNC) {
            out.len = message.bytes.len();
        }
        if self.base.kind == SockType::SeqPacket {
            out.addr = None;
        }
        Ok(out)
    }
}

impl Socket for UnixSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn base(&self) -> &Base {
        &self.base
    }
    fn bind(&self, addr: &SockAddr, _by: &Caller<'_>) -> SysResult<()> {
        let SockAddr::Unix(addr) = addr else { return Err(Errno::EINVAL) };
        let mut state = self.state.lock();
        if state.local.is_some() {
            return if *addr == UnixAddr::Unnamed { Ok(()) } else { Err(Errno::EINVAL) };
        }
        state.local = Some(match addr {
            UnixAddr::Unnamed => self.autobind()?,
            UnixAddr::Abstract(name) => self.bind_name(name.clone())?,
            UnixAddr::Path { node, .. } => {
                let node = node.ok_or(Errno::EINVAL)?;
                NODES.lock().get_or_insert_default().insert(node, Weak::clone(&self.me));
                addr.clone()
            }
        });
        Ok(())
    }
    fn listen(&self, backlog: i32, by: &Caller<'_>) -> SysResult<()> {
        if self.is_dgram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let most = self.base.ns.somaxconn.load(Ordering::Relaxed);
        let limit = usize::try_from(backlog.cast_unsigned().min(most)).unwrap_or(0);
        let mut state = self.state.lock();
        if state.local.is_none() || self.link.get().is_some() {
            return Err(Errno::EINVAL);
        }
        if let Some(listener) = &state.listener {
            listener.backlog.lock().limit = limit;
            return Ok(());
        }
        let backlog = Backlog { ready: VecDeque::new(), limit, closed: false, blocked: Vec::new() };
        state.listener = Some(Arc::new(Listener {
            backlog: Ranked::new(backlog),
            cred: Ucred::of(by),
            groups: by.cred.groups.to_vec(),
        }));
        Ok(())
    }
    fn accept(&self) -> SysResult<(Arc<dyn Socket>, SockAddr)> {
        if self.is_dgram() {
            return Err(Errno::EOPNOTSUPP);
        }
        let listener = self.state.lock().listener.clone().ok_or(Errno::EINVAL)?;
        let mut backlog = listener.backlog.lock();
        if backlog.closed {
            return Err(Errno::EINVAL);
        }
        let child = backlog.ready.pop_front().ok_or(Errno::EAGAIN)?;
        let blocked = std::mem::take(&mut backlog.blocked);
        drop(backlog);
        for client in blocked.iter().filter_map(Weak::upgrade) {
            client.base.queue.wake(Events::WRITABLE);
        }
        let peer = child.link.get().and_then(|l| l.peer_addr.clone());
        Ok((child, shown(peer)))
    }
    fn connect(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        if self.is_dgram() {
            let peer = match addr {
                addr if addr.is_unspec() => None,
                _ => {
                    let peer = self.find(addr)?;
                    if !std::ptr::eq(Arc::as_ptr(&peer), self) && peer.is_taken_from(self) {
                        return Err(Errno::EPERM);
                    }
                    Some(Arc::downgrade(&peer))
                }
            };
            if let Some(old) = std::mem::replace(&mut self.state.lock().peer, peer) {
                drop(old);
            }
            return Ok(());
        }
        if addr.is_unspec() {
            return Err(Errno::EINVAL);
        }
        if self.link.get().is_some() {
            return Err(Errno::EISCONN);
        }
        if self.state.lock().listener.is_some() {
            return Err(Errno::EINVAL);
        }
        let server = self.find(addr)?;
        let (listener, server_addr) = {
            let state = server.state.lock();
            (state.listener.clone().ok_or(Errno::ECONNREFUSED)?, state.local.clone())
        };
        let own_addr = self.state.lock().local.clone();
        {
            let mut backlog = listener.backlog.lock();
            if backlog.closed {
                return Err(Errno::ECONNREFUSED);
            }
            if backlog.ready.len() > backlog.limit {
                backlog.blocked.push(Weak::clone(&self.me));
                return Err(Errno::EAGAIN);
            }
        }
        let child = UnixSocket::with_base(server.base.child(), server.opener);
        child.state.lock().local = None;
        let me = self.me.upgrade().ok_or(Errno::EINVAL)?;
        child.attach(&me, own_addr, (Ucred::of(by), by.cred.groups.to_vec()));
        self.attach(&child, server_addr.clone(), (listener.cred, listener.groups.clone()));
        // The child shows the server's name but does not own it.
        if let Some(addr) = server_addr {
            child.state.lock().local = Some(match addr {
                UnixAddr::Path { path, .. } => UnixAddr::Path { path, node: None },
                other => other,
            });
        }
        let mut backlog = listener.backlog.lock();
        if backlog.closed {
            drop(backlog);
            return Err(Errno::ECONNREFUSED);
        }
        backlog.ready.push_back(child);
        drop(backlog);
        server.base.queue.wake(Events::READABLE);
        Ok(())
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, by: &Caller<'_>) -> SysResult<usize> {
        match self.inbox {
            Inbox::Stream(_) => self.send_stream(src, message, by),
            Inbox::Messages(_) => self.send_message(src, message, by),
        }
    }
    fn recv(
        &self,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        skip: usize,
        _by: &Caller<'_>,
    ) -> SysResult<Received> {
        let peek = flags.contains(MsgFlags::PEEK);
        match &self.inbox {
            Inbox::Stream(inbox) => {
                if self.link.get().is_none() {
                    return Err(Errno::EINVAL);
                }
                let skip = skip + if peek { self.base.with(|o| o.peek_off).unwrap_or(0) } else { 0 };
                let pass = self.asks_who();
                let (len, with) = inbox.receive(dst, peek, skip, pass)?;
                self.base.change(|o| {
                    let moved =
                        |at: usize| if peek { at.saturating_add(len) } else { at.saturating_sub(len) };
                    o.peek_off = o.peek_off.map(moved);
                });
                let control = if len == 0 && with.files.is_empty() { Vec::new() } else { self.told(with) };
                Ok(Received { len, addr: None, control, flags: MsgFlags::empty() })
            }
            Inbox::Messages(inbox) => {
                if !self.is_dgram() && self.link.get().is_none() {
                    return Err(Errno::ENOTCONN);
                }
                if peek {
                    return inbox
                        .peek(|m| self.deliver(m, m.with.files.clone(), dst, flags))?
                        .unwrap_or_else(|| Ok(Received::default()));
                }
                match inbox.receive()? {
                    Some(mut message) => {
                        let files = std::mem::take(&mut message.with.files);
                        self.deliver(&message, files, dst, flags)
                    }
                    None if self.is_dgram() && flags.contains(MsgFlags::DONTWAIT) => Err(Errno::EAGAIN),
                    None => Ok(Received::default()),
                }
            }
        }
    }
    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        let link = self.link.get();
        let dgram = self.is_dgram();
        if how.writes() {
            self.shut_write.store(true, Ordering::SeqCst);
            if let Some(link) = link.filter(|_| !dgram) {
                let both = self.state.lock().shut_read;
                match &link.outbox {
                    Inbox::Stream(outbox) => outbox.finish(both),
                    Inbox::Messages(outbox) => outbox.finish(both),
                }
            }
        }
        if how.reads() {
            self.state.lock().shut_read = true;
            match &self.inbox {
                Inbox::Stream(inbox) => inbox.shut_reading(),
                Inbox::Messages(inbox) => inbox.shut_reading(),
            }
        }
        self.base.queue.wake(Events::READABLE | Events::WRITABLE | Events::RDHUP);
        Ok(())
    }
    fn local_addr(&self) -> SysResult<SockAddr> {
        Ok(shown(self.state.lock().local.clone()))
    }
    fn peer_addr(&self) -> SysResult<SockAddr> {
        if self.is_dgram() {
            let peer = self.state.lock().peer.clone().ok_or(Errno::ENOTCONN)?;
            let peer = peer.upgrade().ok_or(Errno::ENOTCONN)?;
            return peer.local_addr();
        }
        let link = self.link.get().ok_or(Errno::ENOTCONN)?;
        Ok(shown(link.peer_addr.clone()))
    }
    fn ready(&self, interest: Events) -> Events {
        let mut events = Events::empty();
        let (listener, shut_read) = {
            let state = self.state.lock();
            (state.listener.clone(), state.shut_read)
        };
        if let Some(listener) = listener {
            let backlog = listener.backlog.lock();
            if !backlog.ready.is_empty() {
                events |= Events::READABLE;
            }
            if shut_read {
                events |= Events::READABLE | Events::RDHUP;
            }
            return events & interest;
        }
        let shut = self.shut_write.load(Ordering::Relaxed);
        let (has, eof, closed, reset) = match &self.inbox {
            Inbox::Stream(inbox) => {
                let s = inbox.status();
                if s.urgent {
                    events |= Events::PRI;
                }
                (s.len > 0, s.eof, s.closed, inbox.has_reset())
            }
            Inbox::Messages(inbox) => {
                let s = inbox.status();
                (inbox.has_message(), s.eof, s.closed, inbox.has_reset())
            }
        };
        if has || eof || closed {
            events |= Events::READABLE;
        }
        if eof || closed {
            events |= Events::RDHUP;
        }
        if reset || self.base.has_error() {
            events |= Events::ERR;
        }
        if self.is_dgram() {
            let peer = self.state.lock().peer.as_ref().and_then(Weak::upgrade);
            let full = peer.as_ref().is_some_and(|p| match &p.inbox {
                Inbox::Messages(inbox) => !inbox.writable(&self.base.queue, self.counting(p)),
                Inbox::Stream(_) => false,
            });
            if !full {
                events |= Events::WRITABLE | Events::WRBAND;
            }
            if shut && closed {
                events |= Events::HUP;
            }
            return events & (interest | Events::ALWAYS);
        }
        let Some(link) = self.link.get() else {
            // Never connected.
            return (events | Events::WRITABLE | Events::WRBAND | Events::HUP) & (interest | Events::ALWAYS);
        };
        // The peer's end of reading is this one's end of writing.
        let (refused, room) = match &link.outbox {
            Inbox::Stream(outbox) => (outbox.status().closed, outbox.writable(&self.base.queue)),
            Inbox::Messages(outbox) => {
                (outbox.status().closed, outbox.writable(&self.base.queue, Counting::Bytes))
            }
        };
        let peer_gone = refused && link.peer.strong_count() == 0;
        if peer_gone || ((shut || refused) && (eof || closed)) {
            events |= Events::HUP;
        }
        if shut || room {
            events |= Events::WRITABLE | Events::WRBAND;
        }
        events & (interest | Events::ALWAYS)
    }
    fn get_option(&self, at: i32, name: i32, by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        if at != level::SOCKET {
            return None;
        }
        let link = self.link.get();
        let listening = self.state.lock().listener.clone();
        let reset = || match &self.inbox {
            Inbox::Stream(inbox) => inbox.take_reset(),
            Inbox::Messages(inbox) => inbox.take_reset(),
        };
        match name {
            4 => reset().map(|e| Ok(i32::from(e.raw()).to_ne_bytes().to_vec())),
            17 => {
                let cred = link.map(|l| l.peer_cred).or(listening.map(|l| l.cred)).unwrap_or(Ucred::NONE);
                Some(Ok(cred.to_bytes(by).to_vec()))
            }
            28 => Some(self.peer_addr().map(|a| a.to_bytes())),
            30 => Some(Ok(i32::from(listening.is_some()).to_ne_bytes().to_vec())),
            59 => Some(match link {
                Some(link) => Ok(link
                    .groups
                    .iter()
                    .flat_map(|gid| by.cred.user_ns.show_gid(*gid).to_ne_bytes())
                    .collect()),
                None => Err(Errno::ENODATA),
            }),
            _ => None,
        }
    }
    fn recv_beside(&self, dst: &mut dyn GuestSink, flags: MsgFlags) -> SysResult<Received> {
        if flags.contains(MsgFlags::OOB) {
            let Inbox::Stream(inbox) = &self.inbox else {
                let unlinked = !self.is_dgram() && self.link.get().is_none();
                return Err(if unlinked { Errno::ENOTCONN } else { Errno::EOPNOTSUPP });
            };
            let byte = inbox.take_urgent(flags.contains(MsgFlags::PEEK))?;
            let len = if dst.remaining() == 0 { 0 } else { dst.put(&[byte])? };
            return Ok(Received { len, flags: MsgFlags::OOB, ..Received::default() });
        }
        // There is no error queue: the flag means nothing.
        match &self.inbox {
            Inbox::Stream(_) if self.link.get().is_none() => Err(Errno::EINVAL),
            Inbox::Messages(inbox) if !self.is_dgram() || !inbox.status().closed => {
                Err(if !self.is_dgram() && self.link.get().is_none() {
                    Errno::ENOTCONN
                } else {
                    Errno::EAGAIN
                })
            }
            Inbox::Messages(_) => Ok(Received::default()),
            Inbox::Stream(_) => Err(Errno::EAGAIN),
        }
    }
    fn at_mark(&self) -> SysResult<bool> {
        match &self.inbox {
            Inbox::Stream(inbox) => Ok(inbox.at_mark()),
            Inbox::Messages(_) => Err(Errno::EOPNOTSUPP),
        }
    }
    fn buffers_changed(&self) {
        // SO_OOBINLINE.
        if let Inbox::Stream(inbox) = &self.inbox {
            inbox.set_inline(self.base.is_on(level::SOCKET, 10));
        }
        // The sender's buffer bounds what is on its way to the peer.
        match self.link.get().map(|l| &l.outbox) {
            Some(Inbox::Stream(outbox)) => outbox.set_limit(self.base.sndbuf()),
            Some(Inbox::Messages(outbox)) if !self.is_dgram() => outbox.set_limit(self.base.sndbuf()),
            _ => {}
        }
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        if self.state.lock().listener.is_some() {
            return Err(Errno::EINVAL);
        }
        Ok(match &self.inbox {
            Inbox::Stream(inbox) => inbox.status().len,
            Inbox::Messages(inbox) => inbox.status().len,
        })
    }
    fn unsent_bytes(&self) -> SysResult<usize> {
        Ok(match self.link.get().map(|l| &l.outbox) {
            Some(Inbox::Stream(outbox)) => outbox.status().len,
            Some(Inbox::Messages(outbox)) => outbox.status().len,
            None => 0,
        })
    }
    fn each_file(&self, see: &mut dyn FnMut(&Arc<OpenFile>)) {
        match &self.inbox {
            Inbox::Stream(inbox) => inbox.each_file(see),
            Inbox::Messages(inbox) => inbox.each_file(see),
        }
        // Connections not yet accepted hold theirs too.
        let listener = self.state.lock().listener.clone();
        if let Some(listener) = listener {
            let waiting: Vec<Arc<UnixSocket>> = listener.backlog.lock().ready.iter().cloned().collect();
            for child in waiting {
                child.each_file(see);
            }
        }
    }
}
