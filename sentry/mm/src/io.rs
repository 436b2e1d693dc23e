//! Where reads put bytes and writes take them from.
//!
//! A file operation sees a guest's buffers (or a kernel buffer) only through these traits. The guest's
//! side is implemented over scatter-gather lists of memory-file ranges, so that host files are read
//! straight into guest pages.

use abi::{Errno, SysResult};
use platform::memory::MemoryFile;
use std::os::fd::BorrowedFd;

/// The destination of a read.
pub trait GuestSink {
    /// Bytes that still fit.
    fn remaining(&self) -> usize;
    /// Copies as much of `bytes` as fits and can be copied; advances. `EFAULT` only when not one byte could
    /// be copied although both sides have some.
    fn put(&mut self, bytes: &[u8]) -> SysResult<usize>;
    /// Like `put` with `len` bytes of the memory file at `offset` (tmpfs pages).
    fn put_pages(&mut self, memory: &MemoryFile, offset: u64, len: usize) -> SysResult<usize>;
    /// Like `put` with `len` zero bytes (holes, /dev/zero).
    fn put_zeros(&mut self, len: usize) -> SysResult<usize>;
    /// One `preadv2` (or `readv` when `at` is `None`) of at most `max` bytes from a host file into the sink.
    fn fill_from_fd(&mut self, fd: BorrowedFd<'_>, at: Option<u64>, max: usize) -> SysResult<usize>;
}

/// The source of a write.
pub trait GuestSource {
    /// Bytes not yet taken.
    fn remaining(&self) -> usize;
    /// Fills as much of `buf` as there is; advances. `EFAULT` only when not one byte could be copied.
    fn take(&mut self, buf: &mut [u8]) -> SysResult<usize>;
    /// Like `take`, without advancing: for what may have to be offered again. `EINVAL` where that cannot be.
    fn peek(&mut self, _buf: &mut [u8]) -> SysResult<usize> {
        Err(Errno::EINVAL)
    }
    /// Like `take` into `len` bytes of the memory file at `offset` (tmpfs pages).
    fn take_pages(&mut self, memory: &MemoryFile, offset: u64, len: usize) -> SysResult<usize>;
    /// Skips `len` bytes without looking at them (/dev/null).
    fn skip(&mut self, len: usize);
    /// One `pwritev2` (or `writev`) of at most `max` bytes from the source to a host file.
    fn drain_to_fd(&mut self, fd: BorrowedFd<'_>, at: Option<u64>, max: usize) -> SysResult<usize>;
}

/// A guest address space as ioctl handlers and socket options see it; the manager implements it.
pub trait GuestMemory: Send + Sync {
    /// Copies in; `EFAULT` unless all of it could be read.
    fn read(&self, addr: abi::UserAddr, buf: &mut [u8]) -> SysResult<()>;
    /// Copies out; `EFAULT` unless all of it could be written.
    fn write(&self, addr: abi::UserAddr, bytes: &[u8]) -> SysResult<()>;
}

/// A kernel buffer as a sink: grows up to `limit` bytes.
#[derive(Debug)]
pub struct VecSink {
    /// What was put so far.
    pub bytes: Vec<u8>,
    limit: usize,
}

impl VecSink {
    /// An empty sink for at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> VecSink {
        VecSink { bytes: Vec::new(), limit }
    }
}

impl GuestSink for VecSink {
    fn remaining(&self) -> usize {
        self.limit.saturating_sub(self.bytes.len())
    }
    fn put(&mut self, bytes: &[u8]) -> SysResult<usize> {
        let n = bytes.len().min(self.remaining());
        self.bytes.extend_from_slice(bytes.get(..n).unwrap_or_default());
        Ok(n)
    }
    fn put_pages(&mut self, memory: &MemoryFile, offset: u64, len: usize) -> SysResult<usize> {
        let n = len.min(self.remaining());
        let start = self.bytes.len();
        self.bytes.resize(start.saturating_add(n), 0);
        if let Some(tail) = self.bytes.get_mut(start..) {
            memory.read(offset, tail)?;
        }
        Ok(n)
    }
    fn put_zeros(&mut self, len: usize) -> SysResult<usize> {
        let n = len.min(self.remaining());
        self.bytes.resize(self.bytes.len().saturating_add(n), 0);
        Ok(n)
    }
    fn fill_from_fd(&mut self, fd: BorrowedFd<'_>, at: Option<u64>, max: usize) -> SysResult<usize> {
        let n = max.min(self.remaining());
        let start = self.bytes.len();
        self.bytes.resize(start.saturating_add(n), 0);
        let tail = self.bytes.get_mut(start..).unwrap_or_default();
        let got = match at {
            Some(at) => rustix::io::pread(fd, &mut *tail, at),
            None => rustix::io::read(fd, &mut *tail),
        };
        let done = *got.as_ref().unwrap_or(&0);
        self.bytes.truncate(start.saturating_add(done));
        got.map_err(|e| abi::Errno::from_raw(e.raw_os_error()))
    }
}

/// A kernel buffer of fixed size as a sink.
#[derive(Debug)]
pub struct SliceSink<'a> {
    buf: &'a mut [u8],
    filled: usize,
}

impl<'a> SliceSink<'a> {
    /// Fills `buf` from its start.
    #[must_use]
    pub fn new(buf: &'a mut [u8]) -> SliceSink<'a> {
        SliceSink { buf, filled: 0 }
    }
    fn room(&mut self, len: usize) -> &mut [u8] {
        let n = len.min(self.remaining());
        let start = self.filled;
        self.buf.get_mut(start..start.saturating_add(n)).unwrap_or_default()
    }
}

impl GuestSink for SliceSink<'_> {
    fn remaining(&self) -> usize {
        self.buf.len().saturating_sub(self.filled)
    }
    fn put(&mut self, bytes: &[u8]) -> SysResult<usize> {
        let room = self.room(bytes.len());
        let n = room.len();
        room.copy_from_slice(bytes.get(..n).unwrap_or_default());
        self.filled = self.filled.saturating_add(n);
        Ok(n)
    }
    fn put_pages(&mut self, memory: &MemoryFile, offset: u64, len: usize) -> SysResult<usize> {
        let room = self.room(len);
        let n = room.len();
        memory.read(offset, room)?;
        self.filled = self.filled.saturating_add(n);
        Ok(n)
    }
    fn put_zeros(&mut self, len: usize) -> SysResult<usize> {
        let room = self.room(len);
        let n = room.len();
        room.fill(0);
        self.filled = self.filled.saturating_add(n);
        Ok(n)
    }
    fn fill_from_fd(&mut self, fd: BorrowedFd<'_>, at: Option<u64>, max: usize) -> SysResult<usize> {
        let room = self.room(max);
        let n = match at {
            Some(at) => rustix::io::pread(fd, &mut *room, at),
            None => rustix::io::read(fd, &mut *room),
        }
        .map_err(|e| abi::Errno::from_raw(e.raw_os_error()))?;
        self.filled = self.filled.saturating_add(n);
        Ok(n)
    }
}

/// A kernel buffer as a source.
#[derive(Debug)]
pub struct SliceSource<'a> {
    left: &'a [u8],
}

impl<'a> SliceSource<'a> {
    /// Takes from `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> SliceSource<'a> {
        SliceSource { left: bytes }
    }
}

impl GuestSource for SliceSource<'_> {
    fn remaining(&self) -> usize {
        self.left.len()
    }
    fn take(&mut self, buf: &mut [u8]) -> SysResult<usize> {
        let n = buf.len().min(self.left.len());
        let (now, later) = self.left.split_at(n);
        if let Some(head) = buf.get_mut(..n) {
            head.copy_from_slice(now);
        }
        self.left = later;
        Ok(n)
    }
    fn peek(&mut self, buf: &mut [u8]) -> SysResult<usize> {
        SliceSource { left: self.left }.take(buf)
    }
    fn take_pages(&mut self, memory: &MemoryFile, offset: u64, len: usize) -> SysResult<usize> {
        let n = len.min(self.left.len());
        let (now, later) = self.left.split_at(n);
        memory.write(offset, now)?;
        self.left = later;
        Ok(n)
    }
    fn skip(&mut self, len: usize) {
        self.left = self.left.get(len..).unwrap_or_default();
    }
    fn drain_to_fd(&mut self, fd: BorrowedFd<'_>, at: Option<u64>, max: usize) -> SysResult<usize> {
        let now = self.left.get(..max).unwrap_or(self.left);
        let done = match at {
            Some(at) => rustix::io::pwrite(fd, now, at),
            None => rustix::io::write(fd, now),
        }
        .map_err(|e| abi::Errno::from_raw(e.raw_os_error()))?;
        self.skip(done);
        Ok(done)
    }
}
