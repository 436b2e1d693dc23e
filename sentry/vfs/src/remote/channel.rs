//! Requests to the gofer and its replies, one at a time.

use abi::{Errno, SysResult};
use lock::{Ranked, order};
use platform::post::Asker;
use smallvec::SmallVec;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wire::{Handle, MAX_MESSAGE, Reply, Request};

/// Most handles given back along with a request.
const GIVE_BACK: usize = 16;

const _: () = assert!(MAX_MESSAGE <= platform::post::ROOM);

/// The conversation with one gofer.
#[derive(Debug)]
pub struct Channel {
    buffers: Ranked<order::RemoteWire, Buffers>,
    /// Handles that nobody uses any more.
    dropped: Ranked<order::Leaf, Vec<Handle>>,
    /// Messages sent, for metrics.
    sent: AtomicU64,
}

#[derive(Debug)]
struct Buffers {
    post: Asker,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Channel {
    /// Talks to the gofer at the other end of a `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Arc<Channel> {
        let buffers = Buffers { post: Asker::new(socket), request: Vec::new(), reply: Vec::new() };
        Arc::new(Channel {
            buffers: Ranked::new(buffers),
            dropped: Ranked::new(Vec::new()),
            sent: AtomicU64::new(0),
        })
    }

    /// Messages sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends a request and hands the reply to `take`, which runs under the channel's lock: it may lock nothing
    /// but attributes. A failed request is its errno; a gofer that is gone or talks nonsense is `EIO`.
    pub(super) fn call<T>(
        &self,
        request: &Request<'_>,
        take: impl FnOnce(Reply<'_>, Option<OwnedFd>) -> SysResult<T>,
    ) -> SysResult<T> {
        let mut buffers = self.buffers.lock();
        let mut donated = self.exchange(&mut buffers, request)?;
        if is_failure(&buffers, Errno::EMFILE) && self.give_back(&mut buffers)? {
            donated = self.exchange(&mut buffers, request)?;
        }
        match decode(&buffers)? {
            Reply::Failed { errno } => Err(match Errno::from_raw(i32::from(errno)) {
                // The gofer's own table is full, not the guest's.
                Errno::EMFILE => Errno::ENFILE,
                errno => errno,
            }),
            reply => take(reply, donated),
        }
    }

    /// A request whose reply says nothing but that it is done.
    pub(super) fn done(&self, request: &Request<'_>) -> SysResult<()> {
        self.call(request, |reply, _| match reply {
            Reply::Done {} => Ok(()),
            _ => Err(Errno::EIO),
        })
    }

    /// Gives a handle back, some time.
    pub(super) fn drop_handle(&self, handle: Handle) {
        if handle.is_some() {
            self.dropped.lock().push(handle);
        }
    }

    /// Gives all handles back now: what they pin on the host is to be freed.
    pub(super) fn flush(&self) {
        let mut buffers = self.buffers.lock();
        // A gofer that is gone has let go of everything.
        let _ = self.give_back(&mut buffers);
    }

    /// Gives all handles back. Whether there were any.
    fn give_back(&self, buffers: &mut Buffers) -> SysResult<bool> {
        let mut nodes = std::mem::take(&mut *self.dropped.lock());
        let any = !nodes.is_empty();
        while !nodes.is_empty() {
            let rest = nodes.split_off(nodes.len().min(MAX_MESSAGE / 16));
            self.send(buffers, &Request::Close { nodes }, &[])?;
            nodes = rest;
        }
        Ok(any)
    }

    fn send(&self, buffers: &mut Buffers, request: &Request<'_>, closing: &[Handle]) -> SysResult<()> {
        buffers.request.clear();
        request.encode(closing, &mut buffers.request)?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        buffers.post.ask(&mut buffers.request)
    }

    fn exchange(&self, buffers: &mut Buffers, request: &Request<'_>) -> SysResult<Option<OwnedFd>> {
        let closing: SmallVec<[Handle; GIVE_BACK]> = {
            let mut dropped = self.dropped.lock();
            let left = dropped.len().saturating_sub(GIVE_BACK);
            dropped.drain(left..).collect()
        };
        self.send(buffers, request, &closing)?;
        buffers.post.answer(&mut buffers.reply)
    }
}

fn decode(buffers: &Buffers) -> SysResult<Reply<'_>> {
    Reply::decode(&buffers.reply).map_err(|_| Errno::EIO)
}

fn is_failure(buffers: &Buffers, errno: Errno) -> bool {
    matches!(decode(buffers), Ok(Reply::Failed { errno: got }) if got == errno.raw())
}
