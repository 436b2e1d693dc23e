//! Pipes and FIFOs (pipe(7), fifo(7)). Lock: `FileObject`; guest memory is copied under it.
//!
//! Bytes live in a [`ByteRing`]; `segments` is empty for a plain stream and keeps packet borders while a
//! packet (O_DIRECT) is inside. Wake rules are Linux's: writers hear of room once a page of it is free.

use super::anon::AnonInode;
use super::ring::ByteRing;
use crate::attr::{Attr, AttrChange, FsStat};
use crate::caller::{Caller, Waitable, wait_until};
use crate::cred::Capabilities;
use crate::file::{FileOps, GuestMemory, Io, OpenFile};
use abi::fs::{FileType, OpenFlags};
use abi::poll::Events;
use abi::signal::Signal;
use abi::{CallResult, Errno, SysResult, UserAddr, ioctl};
use lock::order::FileObject;
use lock::{Ranked, WaitEntry, WaitQueue};
use mm::io::SliceSource;
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// Writes up to this size are atomic.
pub const PIPE_BUF: usize = 4096;
const DEFAULT_CAPACITY: usize = 65536;

/// `/proc/sys/fs/pipe-max-size`.
pub static PIPE_MAX_SIZE: AtomicU32 = AtomicU32::new(1 << 20);

#[derive(Clone, Copy, Debug)]
struct Segment {
    len: usize,
    packet: bool,
}

#[derive(Debug, Default)]
struct State {
    ring: ByteRing,
    segments: VecDeque<Segment>,
    capacity: usize,
    readers: u32,
    writers: u32,
    // How often each side was opened: blocking opens and POLLHUP of FIFOs compare these.
    reader_opens: u64,
    writer_opens: u64,
}

impl State {
    fn free(&self) -> usize {
        self.capacity.saturating_sub(self.ring.len())
    }
    fn has_room(&self) -> bool {
        self.free() >= PIPE_BUF
    }
    fn note_written(&mut self, len: usize, packet: bool) {
        if len == 0 || (!packet && self.segments.is_empty()) {
            return;
        }
        if self.segments.is_empty() && self.ring.len() > len {
            self.segments.push_back(Segment { len: self.ring.len() - len, packet: false });
        }
        match self.segments.back_mut() {
            Some(last) if !packet && !last.packet => last.len += len,
            _ => self.segments.push_back(Segment { len, packet }),
        }
    }
    /// Takes `len` read bytes off; the rest of a packet goes with them.
    fn note_read(&mut self, len: usize) {
        let mut left = len;
        while let Some(front) = self.segments.front_mut() {
            if front.packet {
                let rest = front.len.saturating_sub(left);
                self.segments.pop_front();
                self.ring.consume(rest);
                break;
            }
            let now = left.min(front.len);
            front.len -= now;
            left -= now;
            if front.len > 0 {
                break;
            }
            self.segments.pop_front();
            if left == 0 {
                break;
            }
        }
    }
    /// Most bytes one read may take: up to a packet's border.
    fn readable_now(&self) -> usize {
        self.segments.front().map_or(self.ring.len(), |s| s.len)
    }
}

/// The object behind both ends.
#[derive(Debug)]
pub struct Pipe {
    state: Ranked<FileObject, State>,
    readers: WaitQueue,
    writers: WaitQueue,
}

impl Default for Pipe {
    fn default() -> Self {
        let state = State { capacity: DEFAULT_CAPACITY, ..State::default() };
        Pipe { state: Ranked::new(state), readers: WaitQueue::new(), writers: WaitQueue::new() }
    }
}

impl Pipe {
    /// Moves bytes out; 0 at end of file, `EAGAIN` when empty with writers.
    pub fn read_into(&self, dst: &mut dyn GuestSink) -> SysResult<usize> {
        let mut state = self.state.lock();
        if dst.remaining() == 0 {
            return Ok(0);
        }
        if state.ring.is_empty() {
            return if state.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let had_room = state.has_room();
        let max = state.readable_now();
        let done = state.ring.drain(dst, max)?;
        state.note_read(done);
        let wake = !had_room && (state.has_room() || state.ring.is_empty());
        drop(state);
        if wake {
            self.writers.wake(Events::WRITABLE);
        }
        Ok(done)
    }

    /// Moves bytes in; `EPIPE` without readers, `EAGAIN` without room (all or nothing up to `PIPE_BUF`).
    pub fn write_from(&self, src: &mut dyn GuestSource, packet: bool) -> SysResult<usize> {
        let want = src.remaining();
        if want == 0 {
            return Ok(0);
        }
        let mut state = self.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let free = state.free();
        if free == 0 || (want <= PIPE_BUF && free < want) {
            return Err(Errno::EAGAIN);
        }
        let mut done = 0;
        if packet {
            while done < want {
                let piece = (want - done).min(PIPE_BUF);
                if state.free() < piece {
                    break;
                }
                let got = match state.ring.fill(src, piece) {
                    Ok(got) => got,
                    Err(_) if done > 0 => break,
                    Err(error) => return Err(error),
                };
                state.note_written(got, true);
                done += got;
                if got < piece {
                    break;
                }
            }
            if done == 0 {
                return Err(Errno::EAGAIN);
            }
        } else {
            done = state.ring.fill(src, free)?;
            state.note_written(done, false);
        }
        drop(state);
        self.readers.wake(Events::READABLE);
        Ok(done)
    }

    /// Bytes inside.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().ring.len()
    }
    /// Whether nothing is inside.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Room that a splice may fill.
    #[must_use]
    pub fn room(&self) -> usize {
        self.state.lock().free()
    }
    /// A copy of the next bytes (splice to a file, tee): empty with `Ok` only at end of file.
    pub fn peek(&self, max: usize) -> SysResult<Vec<u8>> {
        let state = self.state.lock();
        if state.ring.is_empty() {
            return if state.writers == 0 { Ok(Vec::new()) } else { Err(Errno::EAGAIN) };
        }
        Ok(state.ring.peek(0, max.min(state.readable_now())))
    }
    /// Drops bytes that `peek` showed and that found their place.
    pub fn consume(&self, count: usize) {
        let mut state = self.state.lock();
        let had_room = state.has_room();
        let count = count.min(state.readable_now());
        state.ring.consume(count);
        state.note_read(count);
        let wake = !had_room && (state.has_room() || state.ring.is_empty());
        drop(state);
        if wake {
            self.writers.wake(Events::WRITABLE);
        }
    }
    /// F_GETPIPE_SZ.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.state.lock().capacity
    }
    /// F_SETPIPE_SZ: gives the new size.
    pub fn set_capacity(&self, bytes: u64, by: &Caller<'_>) -> SysResult<usize> {
        let bytes = u32::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        let size = bytes.max(4096).checked_next_power_of_two().ok_or(Errno::EINVAL)?;
        if size > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
        let max = usize::try_from(PIPE_MAX_SIZE.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let mut state = self.state.lock();
        if size > state.capacity && size > max && !by.cred.has(Capabilities::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        if size < state.ring.len() {
            return Err(Errno::EBUSY);
        }
        let grew = size > state.capacity;
        state.capacity = size;
        drop(state);
        if grew {
            self.writers.wake(Events::WRITABLE);
        }
        Ok(size)
    }
}

/// Moves up to `len` bytes between two pipes (splice(2)); 0 at end of file.
pub fn splice(from: &Pipe, to: &Pipe, len: usize) -> SysResult<usize> {
    let done = tee(from, to, len)?;
    from.consume(done);
    Ok(done)
}

/// Copies up to `len` bytes from one pipe to another without consuming them (tee(2)).
pub fn tee(from: &Pipe, to: &Pipe, len: usize) -> SysResult<usize> {
    if std::ptr::eq(from, to) {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    // Who lacks room must wait for it before data is looked at, or a full target would spin.
    let room = to.room();
    if room == 0 {
        return if to.state.lock().readers == 0 { Err(Errno::EPIPE) } else { Err(Errno::EAGAIN) };
    }
    let bytes = from.peek(len.min(room))?;
    if bytes.is_empty() {
        return Ok(0);
    }
    to.write_from(&mut SliceSource::new(&bytes), false)
}

/// Events of both queues: for a splice that waits for either side.
impl Waitable for Pipe {
    fn ready(&self, interest: Events) -> Events {
        let state = self.state.lock();
        let mut events = Events::empty();
        if !state.ring.is_empty() {
            events |= Events::READABLE;
        }
        if state.has_room() {
            events |= Events::WRITABLE;
        }
        events & interest
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.readers.register(entry);
        self.writers.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.readers.unregister(entry);
        self.writers.unregister(entry);
    }
}

/// One end (or, for a FIFO opened read-write, both).
#[derive(Debug)]
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    // None for a FIFO: its inode is in a tree.
    inode: Option<Arc<AnonInode>>,
    reads: bool,
    writes: bool,
    // Value of `writer_opens` when a FIFO reader was opened without a writer: no POLLHUP until one came.
    seen_writers: u64,
}

/// What an opener found on the other side, at the very moment when it joined its own.
#[derive(Clone, Copy)]
struct Other {
    is_there: bool,
    opens: u64,
}

impl PipeEnd {
    fn new(pipe: &Arc<Pipe>, inode: Option<Arc<AnonInode>>, reads: bool, writes: bool) -> PipeEnd {
        PipeEnd::join(pipe, inode, reads, writes).0
    }
    fn join(pipe: &Arc<Pipe>, inode: Option<Arc<AnonInode>>, reads: bool, writes: bool) -> (PipeEnd, Other) {
        let mut state = pipe.state.lock();
        if reads {
            state.readers = state.readers.saturating_add(1);
            state.reader_opens += 1;
        }
        if writes {
            state.writers = state.writers.saturating_add(1);
            state.writer_opens += 1;
        }
        let seen_writers = if state.writers == 0 { state.writer_opens } else { u64::MAX };
        let other = if reads {
            Other { is_there: state.writers > 0, opens: state.writer_opens }
        } else {
            Other { is_there: state.readers > 0, opens: state.reader_opens }
        };
        drop(state);
        if reads {
            pipe.writers.wake(Events::WRITABLE);
        }
        if writes {
            pipe.readers.wake(Events::READABLE);
        }
        (PipeEnd { pipe: Arc::clone(pipe), inode, reads, writes, seen_writers }, other)
    }
    /// The pipe, for splice and its kin and F_SETPIPE_SZ.
    #[must_use]
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        if self.reads {
            state.readers = state.readers.saturating_sub(1);
        }
        if self.writes {
            state.writers = state.writers.saturating_sub(1);
        }
        let (no_readers, no_writers) = (state.readers == 0, state.writers == 0);
        if no_readers && no_writers {
            // A FIFO forgets what nobody read.
            state.ring.clear();
            state.segments.clear();
        }
        drop(state);
        if self.reads && no_readers {
            self.pipe.writers.wake(Events::ERR | Events::WRITABLE);
        }
        if self.writes && no_writers {
            self.pipe.readers.wake(Events::HUP | Events::READABLE);
        }
    }
}

impl FileOps for PipeEnd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        if self.reads { self.pipe.read_into(dst) } else { Err(Errno::EBADF) }
    }
    fn write(&self, io: &Io<'_>, src: &mut dyn GuestSource, by: &Caller<'_>) -> SysResult<(usize, u64)> {
        if !self.writes {
            return Err(Errno::EBADF);
        }
        let done = self.pipe.write_from(src, io.file.flags().contains(OpenFlags::DIRECT));
        if done == Err(Errno::EPIPE) {
            by.task.raise(Signal::SIGPIPE);
        }
        done.map(|n| (n, 0))
    }
    fn writes_whole(&self) -> bool {
        true
    }
    fn reopen(&self, flags: OpenFlags, _by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        let (reads, writes) = (flags.readable(), flags.writable());
        if !reads && !writes {
            return Err(Errno::EINVAL);
        }
        Ok(Arc::new(PipeEnd::new(&self.pipe, self.inode.clone(), reads, writes)))
    }
    fn ready(&self, interest: Events) -> Events {
        let state = self.pipe.state.lock();
        let mut events = Events::empty();
        if self.reads {
            if !state.ring.is_empty() {
                events |= Events::READABLE;
            }
            if state.writers == 0 && state.writer_opens != self.seen_writers {
                events |= Events::HUP;
            }
        }
        if self.writes {
            if state.has_room() {
                events |= Events::WRITABLE;
            }
            if state.readers == 0 {
                events |= Events::ERR;
            }
        }
        events & (interest | Events::ALWAYS)
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        if self.reads {
            self.pipe.readers.register(entry);
        }
        if self.writes {
            self.pipe.writers.register(entry);
        }
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.pipe.readers.unregister(entry);
        self.pipe.writers.unregister(entry);
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
        let count = i32::try_from(self.pipe.len()).unwrap_or(i32::MAX);
        memory.write(UserAddr::new(arg), &count.to_ne_bytes())?;
        Ok(0)
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        self.inode.as_ref().map(|i| Ok(i.attr()))
    }
    fn set_attr(&self, change: &AttrChange, by: &Caller<'_>) -> SysResult<()> {
        self.inode.as_ref().ok_or(Errno::EINVAL)?.set_attr(change, by)
    }
    fn statfs(&self) -> Option<FsStat> {
        self.inode.as_ref().map(|i| i.statfs())
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        self.inode.as_ref().map(|i| format!("pipe:[{}]", i.ino()).into_bytes())
    }
}

/// pipe2(2): the read end and the write end. `flags` may hold NONBLOCK and DIRECT.
pub fn create(flags: OpenFlags, by: &Caller<'_>) -> (Arc<OpenFile>, Arc<OpenFile>) {
    let pipe = Arc::new(Pipe::default());
    let inode = Arc::new(AnonInode::new(FileType::Fifo, 0o600, by));
    let kept = flags & (OpenFlags::NONBLOCK | OpenFlags::DIRECT);
    let read = PipeEnd::new(&pipe, Some(Arc::clone(&inode)), true, false);
    let write = PipeEnd::new(&pipe, Some(inode), false, true);
    (
        OpenFile::anonymous(Arc::new(read), kept),
        OpenFile::anonymous(Arc::new(write), kept | OpenFlags::WRONLY),
    )
}

/// The pipe behind an open file, if it is one.
#[must_use]
pub fn of(file: &OpenFile) -> Option<&Arc<Pipe>> {
    file.downcast::<PipeEnd>().map(PipeEnd::pipe)
}

/// FIFOs that are open somewhere, by device and inode number.
#[derive(Debug, Default)]
pub struct FifoTable {
    open: Ranked<FileObject, Option<OpenFifos>>,
}

type OpenFifos = HashMap<(u64, u64), Weak<Pipe>>;

/// The sandbox's FIFOs.
pub static FIFOS: FifoTable = FifoTable { open: Ranked::new(None) };

impl FifoTable {
    fn pipe(&self, key: (u64, u64)) -> Arc<Pipe> {
        let mut guard = self.open.lock();
        let open = guard.get_or_insert_default();
        if let Some(pipe) = open.get(&key).and_then(Weak::upgrade) {
            return pipe;
        }
        if open.len() >= 16 && open.len().is_power_of_two() {
            open.retain(|_, pipe| pipe.strong_count() > 0);
        }
        let pipe = Arc::new(Pipe::default());
        open.insert(key, Arc::downgrade(&pipe));
        pipe
    }

    /// open(2) of a FIFO with inode `ino` on `dev`: waits for the other side unless NONBLOCK.
    pub fn open(
        &self,
        dev: u64,
        ino: u64,
        flags: OpenFlags,
        by: &Caller<'_>,
    ) -> CallResult<Arc<dyn FileOps>> {
        let pipe = self.pipe((dev, ino));
        let (reads, writes) = (flags.readable(), flags.writable());
        if !reads && !writes {
            return Err(Errno::EINVAL.into());
        }
        let nonblock = flags.contains(OpenFlags::NONBLOCK);
        if writes && !reads && nonblock && pipe.state.lock().readers == 0 {
            return Err(Errno::ENXIO.into());
        }
        // Who waited for us may be gone before we look again.
        let (end, other) = PipeEnd::join(&pipe, None, reads, writes);
        let end = Arc::new(end);
        if nonblock || (reads && writes) || other.is_there {
            return Ok(end);
        }
        // The opens that happened since count, even when that side is gone again.
        wait_until(&*pipe, Events::READABLE | Events::WRITABLE, None, by, || {
            let state = pipe.state.lock();
            let opens = if reads { state.writer_opens } else { state.reader_opens };
            if opens == other.opens { Err(Errno::EAGAIN) } else { Ok(()) }
        })?;
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FlatMemory, TestCaller};
    use mm::io::VecSink;

    fn read(file: &Arc<OpenFile>, max: usize, by: &TestCaller) -> SysResult<Vec<u8>> {
        let mut sink = VecSink::new(max);
        let io = Io { file, offset: 0, append: false };
        file.ops().read(&io, &mut sink, &by.by())?;
        Ok(sink.bytes)
    }
    fn write(file: &Arc<OpenFile>, bytes: &[u8], by: &TestCaller) -> SysResult<usize> {
        let io = Io { file, offset: 0, append: false };
        file.ops().write(&io, &mut SliceSource::new(bytes), &by.by()).map(|(n, _)| n)
    }

    #[test]
    fn stream_limits_and_ends() {
        let by = TestCaller::default();
        let (r, w) = create(OpenFlags::empty(), &by.by());
        assert_eq!(read(&r, 10, &by), Err(Errno::EAGAIN));
        assert_eq!(write(&w, &[7; 65536 - 10], &by), Ok(65526));
        assert_eq!(write(&w, &[8; 11], &by), Err(Errno::EAGAIN));
        assert_eq!(write(&w, &[8; 10], &by), Ok(10));
        assert!(w.ops().ready(Events::WRITABLE).is_empty());
        let memory = FlatMemory::new(64);
        r.ops().ioctl(&r, ioctl::FIONREAD, 8, &memory, &by.by()).unwrap();
        assert_eq!(memory.0.lock()[8..12], 65536i32.to_ne_bytes());
        assert_eq!(read(&r, 65536, &by).unwrap().len(), 65536);
        drop(w);
        assert_eq!(r.ops().ready(Events::READABLE), Events::HUP);
        assert_eq!(read(&r, 10, &by), Ok(Vec::new()));
    }

    #[test]
    fn broken_pipe_signals() {
        let by = TestCaller::default();
        let (r, w) = create(OpenFlags::empty(), &by.by());
        drop(r);
        assert_eq!(write(&w, b"x", &by), Err(Errno::EPIPE));
        assert_eq!(by.task.taken(), [(0, Signal::SIGPIPE)]);
        assert!(w.ops().ready(Events::WRITABLE).contains(Events::ERR));
    }

    #[test]
    fn packets_keep_their_borders() {
        let by = TestCaller::default();
        let (r, w) = create(OpenFlags::DIRECT, &by.by());
        write(&w, b"first", &by).unwrap();
        write(&w, b"second", &by).unwrap();
        assert_eq!(read(&r, 3, &by), Ok(b"fir".to_vec()));
        assert_eq!(read(&r, 100, &by), Ok(b"second".to_vec()));
        assert_eq!(read(&r, 100, &by), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_blocked_reader_wakes() {
        let by = TestCaller::default();
        let (r, w) = create(OpenFlags::empty(), &by.by());
        let thread = std::thread::spawn(move || {
            let by = TestCaller::default();
            wait_until(&*r, Events::READABLE, None, &by.by(), || read(&r, 10, &by))
        });
        std::thread::sleep(std::time::Duration::from_millis(5));
        write(&w, b"hello", &by).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(b"hello".to_vec()));
    }

    #[test]
    fn fifo_open_rules() {
        let by = TestCaller::default();
        let table = Arc::new(FifoTable::default());
        let nonblock = OpenFlags::NONBLOCK;
        assert_eq!(table.open(1, 2, OpenFlags::WRONLY | nonblock, &by.by()).err(), Some(Errno::ENXIO.into()));
        let reader = table.open(1, 2, nonblock, &by.by()).unwrap();
        assert!(reader.ready(Events::READABLE).is_empty());
        drop(reader);
        let other = Arc::clone(&table);
        let thread = std::thread::spawn(move || {
            let by = TestCaller::default();
            other.open(1, 2, OpenFlags::empty(), &by.by()).map(|_| ())
        });
        std::thread::sleep(std::time::Duration::from_millis(5));
        table.open(1, 2, OpenFlags::WRONLY, &by.by()).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(()));
    }

    #[test]
    fn tee_then_splice() {
        let by = TestCaller::default();
        let (r1, w1) = create(OpenFlags::empty(), &by.by());
        let (r2, w2) = create(OpenFlags::empty(), &by.by());
        write(&w1, b"abc", &by).unwrap();
        assert_eq!(tee(of(&r1).unwrap(), of(&w2).unwrap(), 2), Ok(2));
        assert_eq!(splice(of(&r1).unwrap(), of(&w2).unwrap(), 100), Ok(3));
        assert_eq!(read(&r2, 100, &by), Ok(b"ababc".to_vec()));
        assert_eq!(read(&r1, 100, &by), Err(Errno::EAGAIN));
    }
}
