//! Text files, and files with operations of their own.

use super::inode::SynthInode;
use crate::attr::Attr;
use crate::caller::Caller;
use crate::file::{FileOps, Io, OpenFile, SeekFrom, SyncScope, seek_in};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::{Ranked, WaitEntry, WaitQueue, order};
use mm::{GuestMemory, GuestSink, GuestSource};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most bytes one write to a text file carries.
const WRITE_MAX: usize = 64 << 10;

/// One write to a text file.
#[derive(Clone, Copy, Debug)]
pub struct WriteText<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// The offset of the write.
    pub offset: u64,
    /// Attributes of the open file's opener are not kept; this is the file itself.
    pub file: &'a OpenFile,
}

impl<'a> WriteText<'a> {
    /// The bytes as text without surrounding white space and NULs; `EINVAL` when they are no text.
    pub fn text(&self) -> SysResult<&'a str> {
        let text = std::str::from_utf8(self.bytes).map_err(|_| Errno::EINVAL)?;
        Ok(text.trim_matches(|c: char| c.is_whitespace() || c == '\0'))
    }
    /// The text as a number; `EINVAL`.
    pub fn number<T: std::str::FromStr>(&self) -> SysResult<T> {
        self.text()?.parse().map_err(|_| Errno::EINVAL)
    }
}

/// Counts changes of what a text shows, for poll(2): `POLLERR | POLLPRI` once after each.
pub struct Changes {
    count: AtomicU64,
    queue: WaitQueue,
}

impl Changes {
    /// None so far.
    #[must_use]
    pub const fn new() -> Changes {
        Changes { count: AtomicU64::new(0), queue: WaitQueue::new() }
    }
    /// One more.
    pub fn happened(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.queue.wake(Events::ERR | Events::PRI);
    }
}

impl Default for Changes {
    fn default() -> Changes {
        Changes::new()
    }
}

/// A file whose whole content is generated at once.
pub trait Text: Send + Sync {
    /// The content.
    fn read(&self, by: &Caller<'_>) -> SysResult<Vec<u8>>;
    /// A write; returns how much of it was taken.
    fn write(&self, _write: &WriteText<'_>, _by: &Caller<'_>) -> SysResult<usize> {
        Err(Errno::EINVAL)
    }
    /// Checks of open(2) beyond the permission bits.
    fn check_open(&self, _flags: OpenFlags, _by: &Caller<'_>) -> SysResult<()> {
        Ok(())
    }
    /// ioctl(2).
    fn ioctl(&self, _request: u32, _arg: u64, _memory: &dyn GuestMemory, _by: &Caller<'_>) -> SysResult<u64> {
        Err(Errno::ENOTTY)
    }
    /// Whether epoll accepts it, as it does sysctls and what cgroup and sysfs show.
    fn can_poll(&self) -> bool {
        true
    }
    /// Changes that poll(2) waits for.
    fn changes(&self) -> Option<&'static Changes> {
        None
    }
}

/// A file with operations of its own.
pub trait Custom: Send + Sync {
    /// open(2).
    fn open(&self, flags: OpenFlags, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>>;
    /// Size shown by stat(2).
    fn size(&self) -> u64 {
        0
    }
}

pub(super) struct TextFile {
    pub(super) inode: Arc<SynthInode>,
    pub(super) text: Arc<dyn Text>,
    content: Ranked<order::Leaf, Option<Arc<[u8]>>>,
    /// Changes that poll(2) has told of.
    seen: AtomicU64,
}

impl TextFile {
    pub(super) fn new(inode: Arc<SynthInode>, text: Arc<dyn Text>) -> TextFile {
        let seen = text.changes().map_or(0, |changes| changes.count.load(Ordering::Acquire));
        TextFile { inode, text, content: Ranked::new(None), seen: AtomicU64::new(seen) }
    }
    fn content(&self, offset: u64, by: &Caller<'_>) -> SysResult<Arc<[u8]>> {
        if offset > 0
            && let Some(known) = self.content.lock().clone()
        {
            return Ok(known);
        }
        let fresh: Arc<[u8]> = Arc::from(self.text.read(by)?);
        let old = self.content.lock().replace(Arc::clone(&fresh));
        drop(old);
        Ok(fresh)
    }
}

impl FileOps for TextFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, io: &Io<'_>, dst: &mut dyn GuestSink, by: &Caller<'_>) -> SysResult<usize> {
        let content = self.content(io.offset, by)?;
        let from = usize::try_from(io.offset).unwrap_or(usize::MAX);
        match content.get(from..) {
            Some(rest) if !rest.is_empty() => dst.put(rest),
            _ => Ok(0),
        }
    }
    fn write(&self, io: &Io<'_>, src: &mut dyn GuestSource, by: &Caller<'_>) -> SysResult<(usize, u64)> {
        let mut bytes = vec![0; src.remaining().min(WRITE_MAX)];
        let n = src.take(&mut bytes)?;
        bytes.truncate(n);
        let write = WriteText { bytes: &bytes, offset: io.offset, file: io.file };
        let taken = self.text.write(&write, by)?.min(n);
        Ok((taken, io.offset.saturating_add(taken as u64)))
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        match to {
            SeekFrom::Start(_) | SeekFrom::Current(_) => seek_in(current, to, 0),
            _ => Err(Errno::EINVAL),
        }
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn GuestMemory,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        self.text.ioctl(request, arg, memory, by)
    }
    fn can_poll(&self) -> bool {
        self.text.can_poll()
    }
    fn ready(&self, interest: Events) -> Events {
        let plain = interest & (Events::READABLE | Events::WRITABLE);
        let Some(changes) = self.text.changes() else { return plain };
        let now = changes.count.load(Ordering::Acquire);
        let plain = plain - Events::WRITABLE;
        if self.seen.swap(now, Ordering::AcqRel) == now {
            plain
        } else {
            plain | Events::ERR | (interest & Events::PRI)
        }
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        if let Some(changes) = self.text.changes() {
            changes.queue.register(entry);
        }
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        if let Some(changes) = self.text.changes() {
            changes.queue.unregister(entry);
        }
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(Ok(self.inode.attr_now()))
    }
    fn sync(&self, _scope: SyncScope) -> SysResult<()> {
        Err(Errno::EINVAL)
    }
}
