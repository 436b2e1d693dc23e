//! Donated host descriptors: readiness through one thread for all of them, and open files over them.
//!
//! The thread sleeps in epoll_wait(2) with every descriptor armed once for what somebody misses, so an
//! idle sandbox is never woken. Descriptors stay in the mode they came in: they may be shared with
//! processes outside, so they are asked with poll(2) before each transfer instead of set to O_NONBLOCK.

use super::anon;
use crate::attr::Attr;
use crate::caller::Caller;
use crate::cred::{Kgid, Kuid};
use crate::file::{FileOps, GuestMemory, Io, OpenFile};
use abi::fs::{FileType, OpenFlags};
use abi::poll::Events;
use abi::signal::Signal;
use abi::time::Timespec;
use abi::{Errno, SysResult, UserAddr, ioctl};
use lock::order::Leaf;
use lock::{Ranked, WaitEntry, WaitQueue};
use mm::{GuestSink, GuestSource};
use rustix::event::{PollFd, PollFlags, epoll, poll};
use std::any::Any;
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Bytes written to a pipe or terminal at once: what poll promises.
const CHUNK: usize = 4096;

/// Told when a watched descriptor may be ready. Called on the watcher's thread without locks.
pub trait HostReady: Send + Sync {
    /// `events` came; the watch for them is over until it is asked for again.
    fn host_ready(&self, events: Events);
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

struct Watched {
    fd: Weak<OwnedFd>,
    target: Weak<dyn HostReady>,
    armed: Arc<Ranked<Leaf, Armed>>,
}

#[derive(Debug, Default)]
struct Armed {
    events: Events,
    added: bool,
    // Regular files cannot be watched and are always ready.
    refused: bool,
}

struct Watcher {
    epoll: OwnedFd,
    watched: Ranked<Leaf, HashMap<u64, Watched>>,
    started: AtomicBool,
}

static WATCHER: OnceLock<Arc<Watcher>> = OnceLock::new();
static TOKEN: AtomicU64 = AtomicU64::new(1);

/// Makes what the watcher needs of the host, before the walls forbid it. Its thread comes with the first
/// watch.
pub fn prepare() -> SysResult<()> {
    watcher().map(drop)
}

fn watcher() -> SysResult<Arc<Watcher>> {
    if let Some(watcher) = WATCHER.get() {
        return Ok(Arc::clone(watcher));
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(errno)?;
    let fresh = Watcher { epoll, watched: Ranked::default(), started: AtomicBool::new(false) };
    Ok(Arc::clone(WATCHER.get_or_init(|| Arc::new(fresh))))
}

/// The watcher with its thread running.
fn running() -> SysResult<Arc<Watcher>> {
    let watcher = watcher()?;
    if !watcher.started.swap(true, Ordering::AcqRel) {
        let own = Arc::clone(&watcher);
        let spawned = std::thread::Builder::new()
            .name("host-files".into())
            .stack_size(128 * 1024)
            .spawn(move || own.run());
        if let Err(error) = spawned {
            watcher.started.store(false, Ordering::Release);
            return Err(Errno::from(error));
        }
    }
    Ok(watcher)
}

impl Watcher {
    fn arm(&self, token: u64, fd: &OwnedFd, armed: &Ranked<Leaf, Armed>, events: Events) {
        let mut armed = armed.lock();
        let all = armed.events | events;
        if armed.refused || (all == armed.events && armed.added && !all.is_empty()) {
            return;
        }
        let flags = epoll::EventFlags::from_bits_truncate(all.bits()) | epoll::EventFlags::ONESHOT;
        let data = epoll::EventData::new_u64(token);
        let done = if armed.added {
            epoll::modify(&self.epoll, fd, data, flags)
        } else {
            epoll::add(&self.epoll, fd, data, flags)
        };
        match done {
            Ok(()) => {
                armed.added = true;
                armed.events = all;
            }
            Err(_) => armed.refused = true,
        }
    }

    fn run(&self) {
        let mut list: Vec<epoll::Event> = Vec::with_capacity(16);
        loop {
            list.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut list), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            for event in &list {
                let token = event.data.u64();
                let flags = event.flags;
                let found = {
                    let watched = self.watched.lock();
                    watched.get(&token).map(|w| (w.target.upgrade(), w.fd.upgrade(), Arc::clone(&w.armed)))
                };
                let Some((target, Some(fd), armed)) = found else { continue };
                let events = Events::from_bits_truncate(flags.bits());
                let rest = std::mem::take(&mut armed.lock().events) - events;
                // One event takes the whole watch off; what did not come is still wanted.
                if !rest.is_empty() && !events.intersects(Events::ALWAYS) {
                    self.arm(token, &fd, &armed, rest);
                }
                if let Some(target) = target {
                    target.host_ready(events);
                }
            }
            crate::sigio::flush();
        }
    }
}

/// The watch of one descriptor.
pub struct HostWatch {
    fd: Arc<OwnedFd>,
    token: u64,
    target: Weak<dyn HostReady>,
    armed: Arc<Ranked<Leaf, Armed>>,
}

impl std::fmt::Debug for HostWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostWatch({:?})", self.fd)
    }
}

impl HostWatch {
    /// A watch of `fd`, not yet armed.
    #[must_use]
    pub fn new(fd: Arc<OwnedFd>, target: Weak<dyn HostReady>) -> HostWatch {
        let token = TOKEN.fetch_add(1, Ordering::Relaxed);
        HostWatch { fd, token, target, armed: Arc::default() }
    }
    /// The descriptor.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Asks to be told once of `events` (and of errors).
    pub fn want(&self, events: Events) {
        let Ok(watcher) = running() else { return };
        if !self.armed.lock().added {
            let entry = Watched {
                fd: Arc::downgrade(&self.fd),
                target: Weak::clone(&self.target),
                armed: Arc::clone(&self.armed),
            };
            watcher.watched.lock().insert(self.token, entry);
        }
        let wanted = events & (Events::IN | Events::OUT | Events::PRI | Events::RDHUP);
        watcher.arm(self.token, &self.fd, &self.armed, wanted);
    }

    /// What is ready now.
    #[must_use]
    pub fn poll(&self, events: Events) -> Events {
        let wanted = events & (Events::IN | Events::OUT | Events::PRI | Events::RDHUP);
        let bits = u16::try_from(wanted.bits()).unwrap_or(0);
        let mut fds = [PollFd::new(&self.fd, PollFlags::from_bits_truncate(bits))];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut fds, Some(&now)) {
            Ok(_) => Events::from_bits_truncate(u32::from(fds.first().map_or(0, |f| f.revents().bits()))),
            Err(_) => Events::empty(),
        }
    }
    /// Reads without blocking.
    pub fn read_some(&self, buf: &mut [u8]) -> SysResult<usize> {
        if self.poll(Events::IN).is_empty() {
            return Err(Errno::EAGAIN);
        }
        rustix::io::read(&self.fd, buf).map_err(errno)
    }
    /// Writes without blocking.
    pub fn write_some(&self, bytes: &[u8]) -> SysResult<usize> {
        let events = self.poll(Events::OUT);
        if !events.intersects(Events::OUT | Events::ALWAYS) {
            return Err(Errno::EAGAIN);
        }
        let now = bytes.get(..CHUNK).unwrap_or(bytes);
        rustix::io::write(&self.fd, now).map_err(errno)
    }
}

impl Drop for HostWatch {
    fn drop(&mut self) {
        if let Some(watcher) = WATCHER.get() {
            watcher.watched.lock().remove(&self.token);
            if self.armed.lock().added {
                let _ = epoll::delete(&watcher.epoll, &self.fd);
            }
        }
    }
}

/// A donated descriptor as an open file: standard streams and preserved descriptors.
#[derive(Debug)]
pub struct HostFile {
    me: Weak<HostFile>,
    watch: HostWatch,
    queue: WaitQueue,
    kind: FileType,
}

/// An open file over a donated descriptor, with the descriptor's own access mode.
pub fn open(fd: OwnedFd) -> SysResult<Arc<OpenFile>> {
    let stat = rustix::fs::fstat(&fd).map_err(errno)?;
    let kind = FileType::from_mode(stat.st_mode).unwrap_or(FileType::Anonymous);
    if kind == FileType::Directory {
        // A host directory would be a way out of the sandbox.
        return Err(Errno::EISDIR);
    }
    let mode = rustix::fs::fcntl_getfl(&fd).map_err(errno)?;
    let kept = OpenFlags::WRONLY | OpenFlags::RDWR | OpenFlags::APPEND;
    let flags = OpenFlags::from_bits_truncate(mode.bits()) & kept;
    let fd = Arc::new(fd);
    let ops = Arc::new_cyclic(|me: &Weak<HostFile>| {
        let target: Weak<dyn HostReady> = me.clone();
        HostFile { me: Weak::clone(me), watch: HostWatch::new(fd, target), queue: WaitQueue::new(), kind }
    });
    Ok(OpenFile::anonymous(ops, flags))
}

impl HostReady for HostFile {
    fn host_ready(&self, events: Events) {
        let mut all = events;
        if events.intersects(Events::IN) {
            all |= Events::READABLE;
        }
        if events.intersects(Events::OUT) {
            all |= Events::WRITABLE;
        }
        self.queue.wake(all);
    }
}

impl HostFile {
    fn streams(&self) -> bool {
        self.kind != FileType::Regular
    }
    fn miss(&self, events: Events) -> Errno {
        self.watch.want(events);
        Errno::EAGAIN
    }
    /// The next edge, for who watches without asking again (edge-triggered epoll).
    fn rearm(&self, events: Events) {
        if !self.queue.is_empty() {
            self.watch.want(events);
        }
    }
}

impl FileOps for HostFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        let at = (self.kind == FileType::Regular && io.offset != 0).then_some(io.offset);
        if self.streams() && self.watch.poll(Events::IN).is_empty() {
            return Err(self.miss(Events::IN));
        }
        let max = dst.remaining();
        let done = dst.fill_from_fd(self.watch.fd(), at, max)?;
        if self.streams() {
            self.rearm(Events::IN);
        }
        Ok(done)
    }
    fn write(&self, _io: &Io<'_>, src: &mut dyn GuestSource, by: &Caller<'_>) -> SysResult<(usize, u64)> {
        let max = if self.streams() {
            if !self.watch.poll(Events::OUT).intersects(Events::OUT | Events::ALWAYS) {
                return Err(self.miss(Events::OUT));
            }
            CHUNK
        } else {
            usize::MAX
        };
        let max = max.min(src.remaining());
        let done = src.drain_to_fd(self.watch.fd(), None, max);
        if done == Err(Errno::EPIPE) {
            by.task.raise(Signal::SIGPIPE);
        }
        if done.is_ok() && self.streams() {
            self.rearm(Events::OUT);
        }
        done.map(|n| (n, 0))
    }
    fn writes_whole(&self) -> bool {
        true
    }
    fn reopen(&self, _flags: OpenFlags, _by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        self.me.upgrade().map(|f| f as Arc<dyn FileOps>).ok_or(Errno::ENXIO)
    }
    fn ready(&self, interest: Events) -> Events {
        if !self.streams() {
            return interest & (Events::READABLE | Events::WRITABLE);
        }
        let mut wanted = Events::empty();
        if interest.intersects(Events::READABLE) {
            wanted |= Events::IN;
        }
        if interest.intersects(Events::WRITABLE) {
            wanted |= Events::OUT;
        }
        wanted |= interest & Events::RDHUP;
        let mut found = self.watch.poll(wanted);
        let missing = wanted - found;
        if !missing.is_empty() && !self.queue.is_empty() {
            self.watch.want(missing);
        }
        if found.intersects(Events::IN) {
            found |= Events::READABLE;
        }
        if found.intersects(Events::OUT) {
            found |= Events::WRITABLE;
        }
        found & (interest | Events::ALWAYS)
    }
    fn can_poll(&self) -> bool {
        self.streams()
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.queue.unregister(entry);
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn GuestMemory,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        if request != ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let count = rustix::io::ioctl_fionread(self.watch.fd()).map_err(errno)?;
        memory.write(UserAddr::new(arg), &i32::try_from(count).unwrap_or(i32::MAX).to_ne_bytes())?;
        Ok(0)
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(rustix::fs::fstat(self.watch.fd()).map_err(errno).map(|stat| {
            let time = |sec: i64, nsec: u64| Timespec { sec, nsec: i64::try_from(nsec).unwrap_or(0) };
            Attr {
                kind: self.kind,
                perm: stat.st_mode & 0o7777,
                ino: stat.st_ino,
                nlink: u32::try_from(stat.st_nlink).unwrap_or(1),
                // Who owns it outside is not the guest's to know.
                uid: Kuid(0),
                gid: Kgid(0),
                rdev: stat.st_rdev,
                size: u64::try_from(stat.st_size).unwrap_or(0),
                blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
                blksize: 4096,
                atime: time(stat.st_atime, stat.st_atime_nsec),
                mtime: time(stat.st_mtime, stat.st_mtime_nsec),
                ctime: time(stat.st_ctime, stat.st_ctime_nsec),
                btime: None,
            }
        }))
    }
    fn statfs(&self) -> Option<crate::attr::FsStat> {
        Some(anon::shared_statfs())
    }
    fn sync(&self, _scope: crate::file::SyncScope) -> SysResult<()> {
        if self.streams() { Err(Errno::EINVAL) } else { rustix::fs::fsync(self.watch.fd()).map_err(errno) }
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        let ino = rustix::fs::fstat(self.watch.fd()).map_or(0, |s| s.st_ino);
        let kind = match self.kind {
            FileType::Fifo => "pipe",
            FileType::Socket => "socket",
            _ => "host",
        };
        Some(format!("{kind}:[{ino}]").into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCaller;
    use mm::io::{SliceSource, VecSink};
    use std::time::Duration;

    #[test]
    fn a_host_pipe_blocks_and_wakes() {
        let (r, w) = rustix::pipe::pipe().unwrap();
        let (reader, writer) = (open(r).unwrap(), open(w).unwrap());
        let thread = std::thread::spawn(move || {
            let by = TestCaller::default();
            let mut sink = VecSink::new(10);
            reader.read(&mut sink, &by.by()).map(|_| sink.bytes)
        });
        std::thread::sleep(Duration::from_millis(10));
        let by = TestCaller::default();
        assert_eq!(writer.write(&mut SliceSource::new(b"hello"), &by.by()), Ok(5));
        assert_eq!(thread.join().unwrap(), Ok(b"hello".to_vec()));
        assert_eq!(writer.ops().ready(Events::WRITABLE), Events::ERR | Events::WRITABLE);
        assert_eq!(
            writer.write(&mut SliceSource::new(b"x"), &by.by()),
            Err(abi::Failure::Errno(Errno::EPIPE))
        );
        assert_eq!(by.task.taken(), [(0, Signal::SIGPIPE)]);
    }
}
