//! The seam of socket families, and the open file around a socket.
//!
//! A [`Socket`] never blocks: `EAGAIN` says that the caller would have to wait. [`SocketFile`] waits, with
//! the socket's timeouts, for the calls that read(2) and write(2) do not cover.

use crate::addr::SockAddr;
use crate::base::Base;
use crate::types::{MsgFlags, Received, SendMsg, Shutdown, SockType, level};
use abi::fs::{FileType, OpenFlags};
use abi::poll::Events;
use abi::signal::Signal;
use abi::{CallResult, Errno, Failure, Restart, SysResult, UserAddr, ioctl};
use lock::{Deadline, WaitEntry};
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vfs::event::anon::AnonInode;
use vfs::{Attr, AttrChange, Caller, FileOps, GuestMemory, Io, OpenFile, Waitable, wait_until};

/// SIOCGSTAMPNS.
const SIOCGSTAMPNS: u32 = 0x8907;

/// One socket of some family.
pub trait Socket: Send + Sync {
    /// For downcasts inside a family.
    fn as_any(&self) -> &dyn Any;
    /// The common part.
    fn base(&self) -> &Base;
    /// bind(2).
    fn bind(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()>;
    /// listen(2).
    fn listen(&self, _backlog: i32, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// accept(2): the next connection and its peer's address.
    fn accept(&self) -> SysResult<(Arc<dyn Socket>, SockAddr)> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Starts connect(2). `EAGAIN`: ask again; `EINPROGRESS`: wait for `connect_result`.
    fn connect(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()>;
    /// What connect(2) says on a non-blocking descriptor when the attempt ended at once.
    fn connected_at_once(&self, outcome: SysResult<()>) -> SysResult<()> {
        outcome
    }
    /// How a connect in progress ended; `EAGAIN` while it has not.
    fn connect_result(&self) -> SysResult<()> {
        Ok(())
    }
    /// Sends one message, or as much of a stream as fits. Control messages sent are taken out of `message`.
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, by: &Caller<'_>) -> SysResult<usize>;
    /// Receives. `skip` bytes were already looked at (PEEK with WAITALL).
    fn recv(
        &self,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        skip: usize,
        by: &Caller<'_>,
    ) -> SysResult<Received>;
    /// Receives from beside the stream: the error queue or the urgent byte, as `flags` says. Never waits.
    fn recv_beside(&self, _dst: &mut dyn GuestSink, flags: MsgFlags) -> SysResult<Received> {
        let inet_stream = self.base().domain != crate::types::AF_UNIX && self.base().kind == SockType::Stream;
        Err(match flags.contains(MsgFlags::ERRQUEUE) {
            true => Errno::EAGAIN,
            false if inet_stream => Errno::EINVAL,
            false => Errno::EOPNOTSUPP,
        })
    }
    /// shutdown(2).
    fn shutdown(&self, how: Shutdown) -> SysResult<()>;
    /// getsockname(2).
    fn local_addr(&self) -> SysResult<SockAddr>;
    /// getpeername(2).
    fn peer_addr(&self) -> SysResult<SockAddr>;
    /// Events that are ready.
    fn ready(&self, interest: Events) -> Events;
    /// getsockopt(2) beyond what [`Base::get`] answers.
    fn get_option(&self, _level: i32, _name: i32, _by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        None
    }
    /// setsockopt(2) beyond what [`Base::set`] does.
    fn set_option(&self, _level: i32, _name: i32, _value: &[u8], _by: &Caller<'_>) -> Option<SysResult<()>> {
        None
    }
    /// Buffer sizes changed.
    fn buffers_changed(&self) {}
    /// Bytes a read would give (FIONREAD).
    fn readable_bytes(&self) -> SysResult<usize>;
    /// Bytes sent and not yet taken by the peer (SIOCOUTQ).
    fn unsent_bytes(&self) -> SysResult<usize> {
        Ok(0)
    }
    /// Whether the next byte is the urgent one (SIOCATMARK).
    fn at_mark(&self) -> SysResult<bool> {
        Err(Errno::ENOTTY)
    }
    /// Files in flight inside (garbage collection of AF_UNIX).
    fn each_file(&self, _see: &mut dyn FnMut(&Arc<OpenFile>)) {}
}

/// The open file of a socket.
pub struct SocketFile {
    socket: Arc<dyn Socket>,
    inode: AnonInode,
}

impl std::fmt::Debug for SocketFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SocketFile({})", self.inode.ino())
    }
}

/// The socket file behind an open file; `ENOTSOCK`.
pub fn of(file: &OpenFile) -> SysResult<&SocketFile> {
    file.downcast::<SocketFile>().ok_or(Errno::ENOTSOCK)
}

/// An open file around a socket. `flags` may hold NONBLOCK.
pub fn open(socket: Arc<dyn Socket>, flags: OpenFlags, by: &Caller<'_>) -> Arc<OpenFile> {
    let inode = AnonInode::new(FileType::Socket, 0o777, by);
    let ns = Arc::clone(&socket.base().ns);
    let ops = Arc::new(SocketFile { socket, inode });
    ns.note_socket(&ops);
    OpenFile::anonymous(ops, (flags & OpenFlags::NONBLOCK) | OpenFlags::RDWR)
}

impl Waitable for SocketFile {
    fn ready(&self, interest: Events) -> Events {
        self.socket.ready(interest)
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.socket.base().queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.socket.base().queue.unregister(entry);
    }
}

impl SocketFile {
    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Arc<dyn Socket> {
        &self.socket
    }

    /// Owner, inode number and the like.
    #[must_use]
    pub fn attributes(&self) -> Attr {
        self.inode.attr()
    }

    fn wait<T>(
        &self,
        nonblock: bool,
        events: Events,
        limit: Option<Duration>,
        by: &Caller<'_>,
        mut attempt: impl FnMut() -> SysResult<T>,
    ) -> CallResult<T> {
        if nonblock {
            return attempt().map_err(Failure::from);
        }
        let deadline: Deadline = limit.and_then(|l| Instant::now().checked_add(l));
        let result = wait_until(self, events, deadline, by, attempt);
        // A call with a timeout is not restarted: the time would start anew.
        match result {
            Err(Failure::Restart(Restart::Sys)) if limit.is_some() => Err(Errno::EINTR.into()),
            other => other,
        }
    }
    fn is_inet_stream(&self) -> bool {
        self.is_stream() && self.socket.base().domain != crate::types::AF_UNIX
    }
    fn is_stream(&self) -> bool {
        self.socket.base().kind == SockType::Stream
    }

    /// accept4(2). `flags` may hold NONBLOCK.
    pub fn accept(
        &self,
        file: &OpenFile,
        flags: OpenFlags,
        by: &Caller<'_>,
    ) -> CallResult<(Arc<OpenFile>, SockAddr)> {
        let nonblock = file.flags().contains(OpenFlags::NONBLOCK);
        let limit = self.socket.base().with(|o| o.rcvtimeo);
        let (socket, peer) = self.wait(nonblock, Events::READABLE, limit, by, || self.socket.accept())?;
        Ok((open(socket, flags, by), peer))
    }

    /// connect(2).
    pub fn connect(&self, file: &OpenFile, addr: &SockAddr, by: &Caller<'_>) -> CallResult<()> {
        let nonblock = file.flags().contains(OpenFlags::NONBLOCK);
        let limit = self.socket.base().with(|o| o.sndtimeo);
        if nonblock {
            return Ok(self.socket.connected_at_once(self.socket.connect(addr, by))?);
        }
        match self.wait(nonblock, Events::WRITABLE, limit, by, || self.socket.connect(addr, by)) {
            // Or a second connect(2) while the first is under way.
            Err(Failure::Errno(Errno::EINPROGRESS | Errno::EALREADY)) => {}
            other => return other,
        }
        match self.wait(false, Events::WRITABLE, limit, by, || self.socket.connect_result()) {
            Err(Failure::Errno(Errno::EAGAIN)) => Err(Errno::EINPROGRESS.into()),
            other => other,
        }
    }

    /// send(2), sendto(2), sendmsg(2).
    pub fn send(
        &self,
        file: &OpenFile,
        src: &mut dyn GuestSource,
        message: &mut SendMsg,
        by: &Caller<'_>,
    ) -> CallResult<usize> {
        let base = self.socket.base();
        if message.flags.contains(MsgFlags::OOB)
            && base.domain == crate::types::AF_UNIX
            && base.kind == SockType::Dgram
        {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let nonblock =
            file.flags().contains(OpenFlags::NONBLOCK) || message.flags.contains(MsgFlags::DONTWAIT);
        let limit = self.socket.base().with(|o| o.sndtimeo);
        let quiet = message.flags.contains(MsgFlags::NOSIGNAL);
        let mut done = 0;
        loop {
            match self.wait(nonblock, Events::WRITABLE, limit, by, || self.socket.send(src, message, by)) {
                Ok(n) => done += n,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => {
                    if error == Failure::Errno(Errno::EPIPE) && !quiet && self.signals() {
                        by.task.raise(Signal::SIGPIPE);
                    }
                    return Err(error);
                }
            }
            if !self.is_stream() || src.remaining() == 0 {
                return Ok(done);
            }
        }
    }

    fn signals(&self) -> bool {
        matches!(self.socket.base().kind, SockType::Stream | SockType::SeqPacket)
    }

    /// recv(2), recvfrom(2), recvmsg(2).
    pub fn recv(
        &self,
        file: &OpenFile,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        by: &Caller<'_>,
    ) -> CallResult<Received> {
        if flags.intersects(MsgFlags::ERRQUEUE | MsgFlags::OOB) {
            return Ok(self.socket.recv_beside(dst, flags)?);
        }
        let nonblock = file.flags().contains(OpenFlags::NONBLOCK) || flags.contains(MsgFlags::DONTWAIT);
        let flags = if nonblock { flags | MsgFlags::DONTWAIT } else { flags };
        let limit = self.socket.base().with(|o| o.rcvtimeo);
        let peek = flags.contains(MsgFlags::PEEK);
        let want_all = flags.contains(MsgFlags::WAITALL) && self.is_stream();
        let mut all = Received::default();
        loop {
            let skip = if peek { all.len } else { 0 };
            let one = self
                .wait(nonblock, Events::READABLE, limit, by, || self.socket.recv(&mut *dst, flags, skip, by));
            let one = match one {
                Ok(one) => one,
                Err(_) if all.len > 0 => return Ok(all),
                Err(error) => return Err(error),
            };
            let ended = one.len == 0;
            let stop = !one.control.is_empty();
            if all.len == 0 {
                all = one;
            } else {
                all.len += one.len;
                all.control.extend(one.control);
            }
            if !want_all || ended || stop || dst.remaining() == 0 {
                return Ok(all);
            }
        }
    }

    /// getsockopt(2): the value, which the caller cuts to the guest's length `room`.
    pub fn get_option(&self, at_level: i32, name: i32, room: usize, by: &Caller<'_>) -> SysResult<Vec<u8>> {
        let value = match self.socket.get_option(at_level, name, by) {
            Some(answer) => answer?,
            None if at_level == level::SOCKET => self.socket.base().get(name)?,
            None => return Err(unknown_level(self.socket.base())),
        };
        crate::sockopt::check_room(at_level, name, room, value.len())?;
        Ok(value)
    }
    /// Whether the family has options of that level.
    #[must_use]
    pub fn knows_level(&self, at_level: i32) -> bool {
        use crate::types::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET};
        let base = self.socket.base();
        match base.domain {
            AF_INET | AF_INET6 => match at_level {
                level::IP => true,
                level::IPV6 => base.domain == AF_INET6,
                level::TCP => base.kind == SockType::Stream,
                level::UDP | level::UDPLITE => base.kind == SockType::Dgram,
                level::RAW | level::ICMPV6 => base.kind != SockType::Stream,
                _ => false,
            },
            AF_NETLINK => at_level == level::NETLINK,
            AF_PACKET => at_level == level::PACKET,
            _ => false,
        }
    }
    /// setsockopt(2).
    pub fn set_option(&self, at_level: i32, name: i32, value: &[u8], by: &Caller<'_>) -> SysResult<()> {
        if let Some(answer) = self.socket.set_option(at_level, name, value, by) {
            return answer;
        }
        if at_level != level::SOCKET {
            let unix = self.socket.base().domain == crate::types::AF_UNIX;
            return Err(if unix { Errno::EOPNOTSUPP } else { Errno::ENOPROTOOPT });
        }
        self.socket.base().set(name, value, by)?;
        self.socket.buffers_changed();
        Ok(())
    }
}

/// What getsockopt(2) says to a level that the family does not know.
pub(crate) fn unknown_level(base: &Base) -> Errno {
    use crate::types::{AF_INET, AF_UNIX};
    if matches!(base.domain, AF_UNIX | AF_INET) { Errno::EOPNOTSUPP } else { Errno::ENOPROTOOPT }
}

impl FileOps for SocketFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, by: &Caller<'_>) -> SysResult<usize> {
        if dst.remaining() == 0 && self.is_stream() {
            return Ok(0);
        }
        let room = dst.remaining();
        self.socket.recv(dst, MsgFlags::empty(), 0, by).map(|r| r.len.min(room))
    }
    fn write(&self, _io: &Io<'_>, src: &mut dyn GuestSource, by: &Caller<'_>) -> SysResult<(usize, u64)> {
        let sent = self.socket.send(src, &mut SendMsg::default(), by);
        if sent == Err(Errno::EPIPE) && self.signals() {
            by.task.raise(Signal::SIGPIPE);
        }
        sent.map(|n| (n, 0))
    }
    fn writes_whole(&self) -> bool {
        self.is_stream()
    }
    fn io_deadline(&self, events: Events, since: Instant) -> Deadline {
        let limit = self
            .socket
            .base()
            .with(|o| if events.intersects(Events::READABLE) { o.rcvtimeo } else { o.sndtimeo })?;
        since.checked_add(limit)
    }
    fn ready(&self, interest: Events) -> Events {
        self.socket.ready(interest) & (interest | Events::ALWAYS)
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.socket.base().queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.socket.base().queue.unregister(entry);
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn GuestMemory,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        let at = UserAddr::new(arg);
        let size = |n: usize| i32::try_from(n).unwrap_or(i32::MAX).to_ne_bytes();
        match request {
            ioctl::FIONREAD => memory.write(at, &size(self.socket.readable_bytes()?))?,
            ioctl::SIOCOUTQ => memory.write(at, &size(self.socket.unsent_bytes()?))?,
            ioctl::SIOCATMARK => memory.write(at, &size(usize::from(self.socket.at_mark()?)))?,
            // SIOCOUTQNSD: what was sent was taken at once.
            0x894b if self.is_inet_stream() => memory.write(at, &size(0))?,
            ioctl::SIOCGSTAMP | SIOCGSTAMPNS => {
                let stamp = self.socket.base().stamp().ok_or(Errno::ENOENT)?;
                let part = if request == ioctl::SIOCGSTAMP { stamp.nsec / 1000 } else { stamp.nsec };
                memory.write(at, &[stamp.sec.to_ne_bytes(), part.to_ne_bytes()].concat())?;
            }
            _ => return self.socket.base().ns.interface_ioctl(request, at, memory, by),
        }
        Ok(0)
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(Ok(self.inode.attr()))
    }
    fn set_attr(&self, change: &AttrChange, by: &Caller<'_>) -> SysResult<()> {
        self.inode.set_attr(change, by)
    }
    fn statfs(&self) -> Option<vfs::FsStat> {
        Some(self.inode.statfs())
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(format!("socket:[{}]", self.inode.ino()).into_bytes())
    }
}
