//! A donated socket. No lock of its own: the host's kernel serialises. Transfers never block; a miss arms
//! the watch, whose thread wakes the socket's queue.

use super::HostNet;
use super::options::{self, Calls};
use crate::addr::{InetAddr, MAX_ADDR, SockAddr};
use crate::base::{Base, Options};
use crate::inet::options::Standing;
use crate::inet::tcp::TcpSocket;
use crate::netns::NetNs;
use crate::socket::Socket;
use crate::sockopt::read_int;
use crate::types::{Control, MsgFlags, Received, SendMsg, Shutdown, SockType, level};
use abi::poll::Events;
use abi::{Errno, SysResult};
use mm::{GuestSink, GuestSource};
use platform::host::errno;
use platform::host::inet::{self, Count};
use rustix::net::SocketFlags;
use std::any::Any;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use vfs::event::host::{HostReady, HostWatch};
use vfs::{Caller, Capabilities};

/// Most bytes of a datagram, and of a stream's bytes that go through a buffer of the sentry's.
const BUFFER: usize = 65_536;
/// Room for control data: more than all messages of one datagram that can be asked for.
const CONTROL: usize = 1024;
/// Length and padding of a control message's header.
const CMSG_HEADER: usize = 16;

const IPPROTO_ICMP: i32 = 1;
const IPPROTO_TCP: i32 = 6;
const IPPROTO_UDP: i32 = 17;
const IPPROTO_ICMPV6: i32 = 58;

/// A socket of the host.
#[derive(Debug)]
pub struct HostSocket {
    base: Base,
    watch: HostWatch,
    // Reads must take control data along.
    control: AtomicBool,
    // A connection over the loopback to a listener of the sandbox: it never leaves memory, and the host's
    // socket idles.
    inside: OnceLock<Arc<TcpSocket>>,
    // Of a listener: where those connections come in, besides those of the host.
    listener: OnceLock<Arc<TcpSocket>>,
}

/// Whether `socket(domain, kind, protocol)` makes a host socket; the protocol it has.
fn protocol_of(kind: SockType, protocol: i32, v6: bool) -> SysResult<i32> {
    let ping = if v6 { IPPROTO_ICMPV6 } else { IPPROTO_ICMP };
    match (kind, protocol) {
        (SockType::Stream, 0 | IPPROTO_TCP) => Ok(IPPROTO_TCP),
        (SockType::Dgram, 0 | IPPROTO_UDP) => Ok(IPPROTO_UDP),
        (SockType::Dgram, _) if protocol == ping => Ok(protocol),
        (SockType::Raw, 1..=255) => Ok(protocol),
        (SockType::SeqPacket, _) => Err(Errno::ESOCKTNOSUPPORT),
        _ => Err(Errno::EPROTONOSUPPORT),
    }
}

/// As the standard library has it.
fn std_addr(addr: InetAddr) -> SocketAddr {
    match addr.ip {
        IpAddr::V4(ip) => SocketAddr::V4(SocketAddrV4::new(ip, addr.port)),
        IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, addr.port, 0, addr.scope)),
    }
}

fn own_addr(addr: SocketAddr) -> InetAddr {
    let scope = if let SocketAddr::V6(addr) = addr { addr.scope_id() } else { 0 };
    InetAddr { ip: addr.ip(), port: addr.port(), scope }
}

/// Runs a transfer again that a signal of the host interrupted.
fn retried<T>(mut call: impl FnMut() -> SysResult<T>) -> SysResult<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

impl HostSocket {
    /// socket(2) for the inet families. Raw sockets need CAP_NET_RAW here; that the host's helper makes them at
    /// all is `--net-raw`.
    pub fn open(
        ns: &Arc<NetNs>,
        host: &HostNet,
        domain: u16,
        kind: SockType,
        protocol: i32,
        by: &Caller<'_>,
    ) -> SysResult<Arc<dyn Socket>> {
        if kind == SockType::Raw && !by.cred.has_in(Capabilities::NET_RAW, &ns.user_ns) {
            return Err(Errno::EPERM);
        }
        let protocol = protocol_of(kind, protocol, domain == crate::types::AF_INET6)?;
        let fd = host.socket(domain, kind.raw(), protocol)?;
        Ok(HostSocket::over(fd, Base::new(ns, domain, kind, protocol)))
    }

    fn over(fd: OwnedFd, base: Base) -> Arc<HostSocket> {
        Arc::new_cyclic(|me: &Weak<HostSocket>| {
            let target: Weak<dyn HostReady> = me.clone();
            let watch = HostWatch::new(Arc::new(fd), target);
            HostSocket {
                base,
                watch,
                control: AtomicBool::new(false),
                inside: OnceLock::new(),
                listener: OnceLock::new(),
            }
        })
    }

    fn streams(&self) -> bool {
        self.base.kind == SockType::Stream
    }
    /// Tells the watch what is waited for.
    fn miss<T>(&self, result: SysResult<T>, events: Events) -> SysResult<T> {
        if matches!(result, Err(Errno::EAGAIN)) {
            self.watch.want(events);
        }
        result
    }
    /// The next edge, for who watches without asking again (edge-triggered epoll).
    fn rearm(&self, events: Events) {
        if !self.base.queue.is_empty() {
            self.watch.want(events);
        }
    }

    fn inet(&self, addr: &SockAddr) -> SysResult<SocketAddr> {
        match addr {
            SockAddr::Inet(addr) => Ok(std_addr(*addr)),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// State by the numbers of TCP_INFO, local and peer address, for /proc/net.
    #[must_use]
    pub fn row(&self) -> (Option<InetAddr>, Option<InetAddr>, u8) {
        if let Some(inside) = self.inside.get() {
            return inside.row();
        }
        let inet = |addr: SysResult<SockAddr>| match addr {
            Ok(SockAddr::Inet(addr)) => Some(addr),
            _ => None,
        };
        let local = inet(self.local_addr());
        let peer = inet(self.peer_addr());
        let mut info = [0; 1];
        let state = match inet::get_option(self.watch.fd(), level::TCP, 11, &mut info) {
            Ok(1) if self.streams() => info[0],
            _ if peer.is_some() => 1,
            _ => 7,
        };
        (local.filter(|l| l.port != 0 || !self.streams()), peer, state)
    }

    /// A stream to the loopback that a listener of this sandbox takes is connected in memory; `None` when there is no
    /// such listener, which the host may have.
    fn connect_inside(&self, addr: &SockAddr, by: &Caller<'_>) -> Option<SysResult<()>> {
        let SockAddr::Inet(to) = addr else { return None };
        let v6 = crate::inet::is_v6(&self.base);
        if !self.streams() || to.ip.is_ipv6() != v6 || self.base.with(|o| o.device != 0) {
            return None;
        }
        let mut to = to.plain();
        if to.ip.is_unspecified() {
            to.ip = if v6 { IpAddr::V6(Ipv6Addr::LOCALHOST) } else { IpAddr::V4(Ipv4Addr::LOCALHOST) };
        }
        let from = InetAddr::any(to.ip.is_ipv6());
        let known = || self.base.ns.tcp.lock().find(to, from, 1, |claim| claim.listening).is_some();
        if !to.ip.is_loopback() || !known() || self.peer_addr().is_ok() {
            return None;
        }
        let local = match self.local_addr() {
            Ok(SockAddr::Inet(local)) if local.port != 0 => Some(local),
            _ => None,
        };
        let inside = TcpSocket::bound_at(self.base.twin(), local);
        let outcome = inside.connect(addr, by);
        match outcome {
            Ok(()) | Err(Errno::EINPROGRESS) => {
                let _ = self.inside.set(inside);
                Some(outcome)
            }
            // It went away, or is somebody else's after all.
            Err(_) => None,
        }
    }

    /// Makes the way in for connections that stay in memory. Where it cannot be (a port that this sandbox uses
    /// otherwise), all come by the host.
    fn listen_inside(&self, backlog: i32, by: &Caller<'_>) {
        if let Some(listener) = self.listener.get() {
            let _ = listener.listen(backlog, by);
            return;
        }
        if let Ok(SockAddr::Inet(local)) = self.local_addr()
            && let Ok(listener) = TcpSocket::listening_at(self.base.twin(), local, backlog, by)
        {
            let _ = self.listener.set(listener);
        }
    }

    /// Remembers an option that the host took, for what happens in memory.
    fn remember(&self, at: i32, name: i32, value: &[u8], by: &Caller<'_>) {
        let _ = match at {
            level::SOCKET => self.base.set(name, value, by),
            _ => crate::inet::options::set(&self.base, at, name, value, Standing::default(), by)
                .unwrap_or(Ok(())),
        };
    }

    fn send_stream(&self, src: &mut dyn GuestSource, message: &mut SendMsg) -> SysResult<usize> {
        if message.flags.contains(MsgFlags::FASTOPEN)
            && let Some(addr) = message.addr.take()
        {
            // As without a cookie: a connect, then the bytes.
            match rustix::net::connect(self.watch.fd(), &self.inet(&addr)?).map_err(errno) {
                Ok(()) => {}
                Err(Errno::EINPROGRESS) => return self.miss(Err(Errno::EAGAIN), Events::OUT),
                Err(error) => return Err(error),
            }
        }
        let left = src.remaining();
        if !message.flags.contains(MsgFlags::OOB) || left > 1 {
            // The urgent byte is the last: the others go before it.
            let max = if message.flags.contains(MsgFlags::OOB) { left - 1 } else { left };
            return retried(|| src.drain_to_fd(self.watch.fd(), None, max));
        }
        if self.watch.poll(Events::OUT).is_empty() {
            return Err(Errno::EAGAIN);
        }
        let mut byte = [0; 1];
        let len = src.take(&mut byte)?;
        let byte = byte.get(..len).unwrap_or_default();
        let flags = (MsgFlags::OOB | MsgFlags::DONTWAIT | MsgFlags::NOSIGNAL).bits();
        retried(|| inet::send(self.watch.fd(), byte, &[], &[], flags))
    }

    fn send_datagram(&self, src: &mut dyn GuestSource, message: &mut SendMsg) -> SysResult<usize> {
        // The source can be taken once: a full queue is found out before.
        if self.watch.poll(Events::OUT).is_empty() {
            return Err(Errno::EAGAIN);
        }
        let len = src.remaining();
        if len > BUFFER {
            return Err(Errno::EMSGSIZE);
        }
        let control = encode(&message.control)?;
        let bytes = crate::inet::take_all(src)?;
        let to = message.addr.as_ref().map(SockAddr::to_bytes).unwrap_or_default();
        let passed = MsgFlags::DONTROUTE | MsgFlags::MORE | MsgFlags::CONFIRM | MsgFlags::EOR;
        let flags = (message.flags & passed) | MsgFlags::DONTWAIT | MsgFlags::NOSIGNAL;
        match retried(|| inet::send(self.watch.fd(), &bytes, &to, &control, flags.bits())) {
            // Another sender took the room after all: a datagram is lost, as datagrams may be.
            Err(Errno::EAGAIN) => Ok(len),
            other => other,
        }
    }

    /// One recvmsg(2) through buffers of the sentry's.
    fn receive(&self, dst: &mut dyn GuestSink, flags: MsgFlags) -> SysResult<Received> {
        let mut data = vec![0; dst.remaining().min(BUFFER)];
        let (mut addr, mut control) = ([0; MAX_ADDR], [0; CONTROL]);
        let passed = flags & (MsgFlags::PEEK | MsgFlags::TRUNC | MsgFlags::ERRQUEUE | MsgFlags::OOB)
            | MsgFlags::DONTWAIT;
        let fd = self.watch.fd();
        let got = retried(|| inet::receive(fd, &mut data, &mut addr, &mut control, passed.bits()))?;
        let data = data.get(..got.len).unwrap_or(&data);
        // tcp(7): MSG_TRUNC throws the bytes away.
        let discarded = self.streams() && flags.contains(MsgFlags::TRUNC);
        if !data.is_empty() && !discarded {
            dst.put(data)?;
        }
        let shown = MsgFlags::TRUNC | MsgFlags::CTRUNC | MsgFlags::OOB | MsgFlags::EOR | MsgFlags::ERRQUEUE;
        Ok(Received {
            len: got.len,
            addr: addr.get(..got.addr_len).filter(|a| !a.is_empty()).and_then(|a| SockAddr::parse(a).ok()),
            control: decode(control.get(..got.control_len).unwrap_or_default()),
            flags: MsgFlags::from_bits_truncate(got.flags) & shown,
        })
    }

    fn wanted(interest: Events) -> Events {
        let mut wanted = interest & (Events::PRI | Events::RDHUP);
        if interest.intersects(Events::READABLE) {
            wanted |= Events::IN;
        }
        if interest.intersects(Events::WRITABLE) {
            wanted |= Events::OUT;
        }
        wanted
    }

    fn shown(mut events: Events) -> Events {
        if events.intersects(Events::IN) {
            events |= Events::READABLE;
        }
        if events.intersects(Events::OUT) {
            events |= Events::WRITABLE;
        }
        events
    }
}

/// Lays out the control messages that may be sent: where from, and with which marks.
fn encode(control: &[Control]) -> SysResult<Vec<u8>> {
    let mut out = Vec::new();
    for message in control {
        let Control::Raw(at, kind, data) = message else { return Err(Errno::EINVAL) };
        match (*at, *kind) {
            // TOS, TTL, PKTINFO.
            (level::IP, 1 | 2 | 8) | (level::UDP, 103) => {}
            // PKTINFO, HOPLIMIT, DONTFRAG, TCLASS.
            (level::IPV6, 50 | 52 | 62 | 67) => {}
            _ => return Err(Errno::EINVAL),
        }
        let start = out.len();
        let len = CMSG_HEADER + data.len();
        out.extend_from_slice(&len.to_ne_bytes());
        out.extend_from_slice(&at.to_ne_bytes());
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(data);
        out.resize(start + len.next_multiple_of(8), 0);
    }
    Ok(out)
}

/// Control messages as the host's kernel laid them out.
fn decode(mut bytes: &[u8]) -> Vec<Control> {
    let mut out = Vec::new();
    let int = |bytes: &[u8], at: usize| {
        bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b: &[u8; 4]| i32::from_ne_bytes(*b))
    };
    while let Some(len) = bytes.first_chunk::<8>() {
        let len = usize::try_from(u64::from_ne_bytes(*len)).unwrap_or(usize::MAX);
        let Some(data) = bytes.get(CMSG_HEADER..len) else { break };
        out.push(Control::Raw(int(bytes, 8), int(bytes, 12), data.to_vec()));
        bytes = bytes.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    out
}

impl HostReady for HostSocket {
    fn host_ready(&self, events: Events) {
        self.base.queue.wake(HostSocket::shown(events));
    }
}

impl Socket for HostSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn base(&self) -> &Base {
        &self.base
    }
    fn bind(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        if self.inside.get().is_some() {
            return Err(Errno::EINVAL);
        }
        let addr = match addr {
            SockAddr::Inet(addr) if addr.ip.is_ipv6() == crate::inet::is_v6(&self.base) => *addr,
            addr => crate::inet::bind_addr(&self.base, addr)?,
        };
        if matches!(self.base.protocol, IPPROTO_TCP | IPPROTO_UDP) {
            self.base.ns.may_bind_port(addr.port, by)?;
        }
        let host = self.base.ns.host().ok_or(Errno::EIO)?;
        host.bind(self.watch.fd(), std_addr(addr))
    }
    fn listen(&self, backlog: i32, by: &Caller<'_>) -> SysResult<()> {
        if self.inside.get().is_some() {
            return Err(Errno::EINVAL);
        }
        let most = self.base.ns.somaxconn.load(Ordering::Relaxed);
        // A negative backlog is a huge one, as on Linux.
        let backlog = i32::try_from(backlog.cast_unsigned().min(most)).unwrap_or(i32::MAX);
        rustix::net::listen(self.watch.fd(), backlog).map_err(errno)?;
        self.listen_inside(backlog, by);
        Ok(())
    }
    fn accept(&self) -> SysResult<(Arc<dyn Socket>, SockAddr)> {
        if let Some((child, peer)) = self.listener.get().and_then(|listener| listener.accept().ok()) {
            let options = self.base.with(Options::clone);
            child.base().change(|own| *own = options);
            child.buffers_changed();
            return Ok((child, peer));
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let got = retried(|| rustix::net::acceptfrom_with(self.watch.fd(), flags).map_err(errno));
        let (fd, peer) = self.miss(got, Events::IN)?;
        self.rearm(Events::IN);
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).map(own_addr);
        let peer = peer.unwrap_or_else(|| InetAddr::any(crate::inet::is_v6(&self.base)));
        Ok((HostSocket::over(fd, self.base.child()), SockAddr::Inet(peer)))
    }
    fn connect(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        if let Some(inside) = self.inside.get() {
            return inside.connect(addr, by);
        }
        if let Some(outcome) = self.connect_inside(addr, by) {
            return outcome;
        }
        let fd = self.watch.fd();
        let done = match addr {
            addr if addr.is_unspec() => rustix::net::connect_unspec(fd),
            other => rustix::net::connect(fd, &self.inet(other)?),
        };
        let done = done.map_err(errno);
        if matches!(done, Err(Errno::EINPROGRESS)) {
            self.rearm(Events::OUT);
        }
        done
    }
    fn connected_at_once(&self, outcome: SysResult<()>) -> SysResult<()> {
        match self.inside.get() {
            Some(inside) => inside.connected_at_once(outcome),
            None => outcome,
        }
    }
    fn connect_result(&self) -> SysResult<()> {
        if let Some(inside) = self.inside.get() {
            return inside.connect_result();
        }
        if self.watch.poll(Events::OUT).is_empty() {
            return self.miss(Err(Errno::EAGAIN), Events::OUT);
        }
        let mut error = [0; 4];
        inet::get_option(self.watch.fd(), level::SOCKET, 4, &mut error)?;
        match i32::from_ne_bytes(error) {
            0 => Ok(()),
            error => Err(Errno::from_raw(error)),
        }
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, by: &Caller<'_>) -> SysResult<usize> {
        if let Some(inside) = self.inside.get() {
            return inside.send(src, message, by);
        }
        let sent =
            if self.streams() { self.send_stream(src, message) } else { self.send_datagram(src, message) };
        let sent = self.miss(sent, Events::OUT);
        if sent.is_ok() {
            self.rearm(Events::OUT);
        }
        sent
    }
    fn recv(
        &self,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        skip: usize,
        by: &Caller<'_>,
    ) -> SysResult<Received> {
        if let Some(inside) = self.inside.get() {
            return inside.recv(dst, flags, skip, by);
        }
        if skip > 0 {
            // PEEK with WAITALL: what the first look gave is all there is to see.
            return Ok(Received::default());
        }
        let special = flags.intersects(MsgFlags::PEEK | MsgFlags::TRUNC);
        let got = if self.streams() && !special && !self.control.load(Ordering::Relaxed) {
            let max = dst.remaining();
            retried(|| dst.fill_from_fd(self.watch.fd(), None, max))
                .map(|len| Received { len, ..Received::default() })
        } else {
            self.receive(dst, flags)
        };
        let got = self.miss(got, Events::IN)?;
        self.rearm(Events::IN);
        Ok(got)
    }
    fn recv_beside(&self, dst: &mut dyn GuestSink, flags: MsgFlags) -> SysResult<Received> {
        if let Some(inside) = self.inside.get() {
            return inside.recv_beside(dst, flags);
        }
        self.receive(dst, flags)
    }
    fn shutdown(&self, how: Shutdown) -> SysResult<()> {
        if let Some(inside) = self.inside.get() {
            return inside.shutdown(how);
        }
        if let Some(listener) = self.listener.get() {
            let _ = listener.shutdown(how);
        }
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        rustix::net::shutdown(self.watch.fd(), how).map_err(errno)
    }
    fn local_addr(&self) -> SysResult<SockAddr> {
        if let Some(inside) = self.inside.get() {
            return inside.local_addr();
        }
        let name = rustix::net::getsockname(self.watch.fd()).map_err(errno)?;
        SocketAddr::try_from(name).map(|a| SockAddr::Inet(own_addr(a))).map_err(errno)
    }
    fn peer_addr(&self) -> SysResult<SockAddr> {
        if let Some(inside) = self.inside.get() {
            return inside.peer_addr();
        }
        let name = rustix::net::getpeername(self.watch.fd()).map_err(errno)?.ok_or(Errno::ENOTCONN)?;
        SocketAddr::try_from(name).map(|a| SockAddr::Inet(own_addr(a))).map_err(errno)
    }
    fn ready(&self, interest: Events) -> Events {
        if let Some(inside) = self.inside.get() {
            return inside.ready(interest);
        }
        let waiting = self.listener.get().map_or(Events::empty(), |l| l.ready(interest & Events::READABLE));
        let wanted = HostSocket::wanted(interest);
        let found = self.watch.poll(wanted);
        let missing = wanted - found;
        if !missing.is_empty() && !self.base.queue.is_empty() {
            self.watch.want(missing);
        }
        (HostSocket::shown(found) | waiting & Events::READABLE) & (interest | Events::ALWAYS)
    }
    fn get_option(&self, at: i32, name: i32, by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        if let Some(inside) = self.inside.get() {
            let own = || (at == level::SOCKET).then(|| inside.base().get(name));
            return inside.get_option(at, name, by).or_else(own);
        }
        let Some(option) = options::find(at, name).filter(|o| o.calls != Calls::Set) else {
            return (at != level::SOCKET).then_some(Err(options::missing(&self.base, at)));
        };
        let mut value = vec![0; option.most];
        let got = inet::get_option(self.watch.fd(), at, name, &mut value);
        Some(got.map(|len| {
            value.truncate(len);
            value
        }))
    }
    fn set_option(&self, at: i32, name: i32, value: &[u8], by: &Caller<'_>) -> Option<SysResult<()>> {
        if let Some(inside) = self.inside.get() {
            if at == level::SOCKET {
                // And on the base, of which the caller takes the time limits.
                let _ = inside.base().set(name, value, by);
                inside.buffers_changed();
            }
            return inside.set_option(at, name, value, by);
        }
        if at == level::SOCKET && matches!(name, 26 | 50..=52) {
            // A filter would have to run where the packets are, and no program reaches the host's kernel.
            return Some(Err(Errno::EOPNOTSUPP));
        }
        // The FORCE variants: the sentry has no capability to go beyond the host's limits.
        let name = match (at, name) {
            (level::SOCKET, 32 | 33) if by.cred.has(Capabilities::NET_ADMIN) => name - 25,
            _ => name,
        };
        let Some(option) = options::find(at, name).filter(|o| o.calls != Calls::Get) else {
            return (at != level::SOCKET).then_some(Err(Errno::ENOPROTOOPT));
        };
        if value.len() < option.least {
            return Some(Err(Errno::EINVAL));
        }
        let value = value.get(..option.most).unwrap_or(value);
        if (at, name) == (level::SOCKET, 13) {
            // A close that waits would hold a thread of the sentry: only "at once" reaches the host.
            let on = read_int(value).is_ok_and(|on| on != 0);
            let at_once = value.get(4..).is_some_and(|rest| read_int(rest) == Ok(0));
            let passed = [i32::from(on && at_once).to_ne_bytes(), [0; 4]].concat();
            // The base remembers it for getsockopt.
            return inet::set_option(self.watch.fd(), at, name, &passed).err().map(Err);
        }
        let done = inet::set_option(self.watch.fd(), at, name, value);
        if done.is_ok() && options::brings_control(at, name) && read_int(value).is_ok_and(|on| on != 0) {
            self.control.store(true, Ordering::Relaxed);
        }
        if done.is_ok() {
            self.remember(at, name, value, by);
        }
        Some(done)
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        if let Some(inside) = self.inside.get() {
            return inside.readable_bytes();
        }
        let count = rustix::io::ioctl_fionread(self.watch.fd()).map_err(errno)?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }
    fn unsent_bytes(&self) -> SysResult<usize> {
        if let Some(inside) = self.inside.get() {
            return inside.unsent_bytes();
        }
        inet::count(self.watch.fd(), Count::Unsent).map(|n| usize::try_from(n).unwrap_or(0))
    }
    fn at_mark(&self) -> SysResult<bool> {
        if let Some(inside) = self.inside.get() {
            return inside.at_mark();
        }
        inet::count(self.watch.fd(), Count::AtMark).map(|n| n != 0)
    }
}
