//! signalfd(2), over a seam the kernel implements.

use super::anon;
use crate::attr::{Attr, FsStat};
use crate::caller::Caller;
use crate::file::{FileOps, Io, OpenFile};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::signal::SigSet;
use abi::{Errno, SysResult};
use lock::WaitEntry;
use mm::GuestSink;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Size of `struct signalfd_siginfo`.
pub const SIGNALFD_SIGINFO: usize = 128;

/// Where signals come from. As on Linux it is the *calling* task's pending signals that count, in reads
/// and in polls, not those of the task that made the descriptor.
pub trait SignalSource: Send + Sync {
    /// Takes the next pending signal of `set` (the thread's first, then the group's) off the calling task.
    fn dequeue(&self, set: SigSet) -> Option<[u8; SIGNALFD_SIGINFO]>;
    /// Whether the calling task has a pending signal of `set`.
    fn is_pending(&self, set: SigSet) -> bool;
    /// Registers with the calling process: `READABLE` whenever a signal is sent to it.
    fn register(&self, entry: &Arc<WaitEntry>);
    /// Undoes `register`.
    fn unregister(&self, entry: &Arc<WaitEntry>);
}

/// An open signalfd.
pub struct SignalFd {
    set: AtomicU64,
    source: Arc<dyn SignalSource>,
}

impl SignalFd {
    /// signalfd4(2) on an existing descriptor.
    pub fn set_mask(&self, set: SigSet) {
        self.set.store(set.difference(SigSet::UNBLOCKABLE).0, Ordering::SeqCst);
    }
    fn mask(&self) -> SigSet {
        SigSet(self.set.load(Ordering::SeqCst))
    }
}

/// signalfd4(2) with a new descriptor. `flags` may hold NONBLOCK.
#[must_use]
pub fn create(set: SigSet, source: Arc<dyn SignalSource>, flags: OpenFlags) -> Arc<OpenFile> {
    let ops = SignalFd { set: AtomicU64::new(set.difference(SigSet::UNBLOCKABLE).0), source };
    OpenFile::anonymous(Arc::new(ops), (flags & OpenFlags::NONBLOCK) | OpenFlags::RDWR)
}

impl FileOps for SignalFd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        if dst.remaining() < SIGNALFD_SIGINFO {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        while dst.remaining() >= SIGNALFD_SIGINFO {
            let Some(info) = self.source.dequeue(self.mask()) else { break };
            match dst.put(&info) {
                Ok(n) => done += n,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if done == 0 { Err(Errno::EAGAIN) } else { Ok(done) }
    }
    fn ready(&self, interest: Events) -> Events {
        if self.source.is_pending(self.mask()) { interest & Events::READABLE } else { Events::empty() }
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.source.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.source.unregister(entry);
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(Ok(anon::shared_attr()))
    }
    fn statfs(&self) -> Option<FsStat> {
        Some(anon::shared_statfs())
    }
    fn fdinfo(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("sigmask:\t{:016x}\n", self.mask().0).as_bytes());
    }
    fn ignores_seeks(&self) -> bool {
        true
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(b"anon_inode:[signalfd]".to_vec())
    }
}
