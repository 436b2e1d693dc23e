//! eventfd(2). Lock: `FileObject`.

use super::anon;
use crate::attr::{Attr, FsStat};
use crate::caller::Caller;
use crate::file::{FileOps, Io, OpenFile};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::order::FileObject;
use lock::{Ranked, WaitEntry, WaitQueue};
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::sync::Arc;

/// Whether a read takes the whole counter or one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// Reads the counter and sets it to zero.
    Counter,
    /// EFD_SEMAPHORE: reads 1 and takes 1 off.
    Semaphore,
}

/// A counter that can be waited for.
#[derive(Debug)]
pub struct EventFd {
    count: Ranked<FileObject, u64>,
    kind: EventKind,
    queue: WaitQueue,
}

impl EventFd {
    /// Adds without blocking, as the kernel does (aio, io_uring, memory.events); saturates at the value that
    /// poll(2) shows as an error.
    pub fn signal(&self, add: u64) {
        let mut count = self.count.lock();
        *count = count.saturating_add(add);
        drop(count);
        self.queue.wake(Events::READABLE);
    }
}

/// eventfd2(2). `flags` may hold NONBLOCK.
#[must_use]
pub fn create(initial: u32, kind: EventKind, flags: OpenFlags) -> Arc<OpenFile> {
    let ops = EventFd { count: Ranked::new(u64::from(initial)), kind, queue: WaitQueue::new() };
    OpenFile::anonymous(Arc::new(ops), (flags & OpenFlags::NONBLOCK) | OpenFlags::RDWR)
}

impl FileOps for EventFd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        if dst.remaining() < 8 {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        if *count == 0 {
            return Err(Errno::EAGAIN);
        }
        let value = if self.kind == EventKind::Semaphore { 1 } else { *count };
        *count -= value;
        drop(count);
        self.queue.wake(Events::WRITABLE);
        dst.put(&value.to_ne_bytes())
    }
    fn write(&self, _io: &Io<'_>, src: &mut dyn GuestSource, _by: &Caller<'_>) -> SysResult<(usize, u64)> {
        if src.remaining() != 8 {
            return Err(Errno::EINVAL);
        }
        // The source stays whole for the retry.
        let mut bytes = [0; 8];
        if src.peek(&mut bytes)? < 8 {
            return Err(Errno::EFAULT);
        }
        let add = u64::from_ne_bytes(bytes);
        if add == u64::MAX {
            return Err(Errno::EINVAL);
        }
        let mut count = self.count.lock();
        match count.checked_add(add) {
            Some(sum) if sum < u64::MAX => *count = sum,
            _ => return Err(Errno::EAGAIN),
        }
        drop(count);
        src.skip(8);
        self.queue.wake(Events::READABLE);
        Ok((8, 0))
    }
    fn ready(&self, interest: Events) -> Events {
        let count = *self.count.lock();
        let mut events = Events::empty();
        if count > 0 {
            events |= Events::READABLE;
        }
        if count < u64::MAX - 1 {
            events |= Events::WRITABLE;
        }
        if count == u64::MAX {
            events |= Events::ERR;
        }
        events & (interest | Events::ERR)
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.queue.unregister(entry);
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(Ok(anon::shared_attr()))
    }
    fn statfs(&self) -> Option<FsStat> {
        Some(anon::shared_statfs())
    }
    fn fdinfo(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("eventfd-count: {:16x}\n", *self.count.lock()).as_bytes());
    }
    fn ignores_seeks(&self) -> bool {
        true
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(b"anon_inode:[eventfd]".to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCaller;
    use mm::io::{SliceSource, VecSink};

    #[test]
    fn counter_and_semaphore() {
        let by = TestCaller::default();
        let file = create(2, EventKind::Semaphore, OpenFlags::empty());
        let io = Io { file: &file, offset: 0, append: false };
        for _ in 0..2 {
            let mut sink = VecSink::new(8);
            assert_eq!(file.ops().read(&io, &mut sink, &by.by()), Ok(8));
            assert_eq!(sink.bytes, 1u64.to_ne_bytes());
        }
        assert_eq!(file.ops().read(&io, &mut VecSink::new(8), &by.by()), Err(Errno::EAGAIN));
        let most = (u64::MAX - 1).to_ne_bytes();
        assert_eq!(file.ops().write(&io, &mut SliceSource::new(&most), &by.by()), Ok((8, 0)));
        assert_eq!(file.ops().ready(Events::WRITABLE), Events::empty());
        let one = 1u64.to_ne_bytes();
        assert_eq!(file.ops().write(&io, &mut SliceSource::new(&one), &by.by()), Err(Errno::EAGAIN));
    }
}
