//! Requests and replies on the socket to the gofer, one at a time.

use abi::{Errno, SysResult};
use lock::{Ranked, order};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wire::{Handle, MAX_MESSAGE, Reply, Request};

/// Handles given back in one message.
const GIVE_BACK: usize = 64;

/// Room for replies: so much that the allocator maps it, and pages that no reply reaches never come into being.
const ROOM: usize = 256 * 1024;

/// How long to look for a reply before sleeping.
const LOOK_OUT: Duration = Duration::from_micros(50);

/// A look that took this long gave the processor to somebody else, who kept it.
const CROWDED: Duration = Duration::from_micros(200);

/// Requests that sleep at once after that: a sleeper is woken for its reply, who gave way waits for its turn.
const CROWDED_FOR: u32 = 64;

/// The conversation with one gofer.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    buffers: Ranked<order::RemoteWire, Buffers>,
    /// Handles that nobody uses any more.
    dropped: Ranked<order::Leaf, Vec<Handle>>,
    /// Messages sent, for metrics.
    sent: AtomicU64,
}

#[derive(Debug)]
struct Buffers {
    request: Vec<u8>,
    reply: Vec<u8>,
    /// Requests to go until replies are looked out for again.
    crowded: u32,
}

impl Channel {
    /// Talks to the gofer at the other end of a `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Arc<Channel> {
        let buffers = Buffers { request: Vec::new(), reply: vec![0; ROOM], crowded: 0 };
        Arc::new(Channel {
            socket,
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
        self.give_back(&mut buffers, GIVE_BACK)?;
        let mut answer = self.exchange(&mut buffers, request)?;
        if is_failure(&buffers, answer.0, Errno::EMFILE) && self.give_back(&mut buffers, 1)? {
            answer = self.exchange(&mut buffers, request)?;
        }
        let (len, donated) = answer;
        match decode(&buffers, len)? {
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
        let _ = self.give_back(&mut buffers, 1);
    }

    /// Gives handles back when there are at least `least`. Whether it did.
    fn give_back(&self, buffers: &mut Buffers, least: usize) -> SysResult<bool> {
        let mut nodes = {
            let mut dropped = self.dropped.lock();
            if dropped.len() < least.max(1) {
                return Ok(false);
            }
            std::mem::take(&mut *dropped)
        };
        while !nodes.is_empty() {
            let rest = nodes.split_off(nodes.len().min(MAX_MESSAGE / 16));
            self.send(buffers, &Request::Close { nodes })?;
            nodes = rest;
        }
        Ok(true)
    }

    fn send(&self, buffers: &mut Buffers, request: &Request<'_>) -> SysResult<()> {
        buffers.request.clear();
        request.encode(&mut buffers.request)?;
        self.sent.fetch_add(1, Ordering::Relaxed);
        loop {
            let parts = [IoSlice::new(&buffers.request)];
            let mut nothing = SendAncillaryBuffer::default();
            match rustix::net::sendmsg(&self.socket, &parts, &mut nothing, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Err(Errno::EIO),
            }
        }
    }

    fn exchange(&self, buffers: &mut Buffers, request: &Request<'_>) -> SysResult<(usize, Option<OwnedFd>)> {
        self.send(buffers, request)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        // A reply takes a few microseconds, a sleep and a wake-up many times that.
        let start = Instant::now();
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        flags.set(RecvFlags::DONTWAIT, buffers.crowded == 0);
        buffers.crowded = buffers.crowded.saturating_sub(1);
        let message = loop {
            let mut parts = [IoSliceMut::new(&mut buffers.reply)];
            match rustix::net::recvmsg(&self.socket, &mut parts, &mut control, flags) {
                Ok(message) => break message,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) if start.elapsed() < LOOK_OUT => {
                    let before = Instant::now();
                    rustix::thread::sched_yield();
                    if before.elapsed() > CROWDED {
                        buffers.crowded = CROWDED_FOR;
                    }
                }
                Err(rustix::io::Errno::AGAIN) => flags.remove(RecvFlags::DONTWAIT),
                Err(_) => return Err(Errno::EIO),
            }
        };
        let donated = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if message.bytes == 0 { Err(Errno::EIO) } else { Ok((message.bytes, donated)) }
    }
}

fn decode(buffers: &Buffers, len: usize) -> SysResult<Reply<'_>> {
    let bytes = buffers.reply.get(..len).ok_or(Errno::EIO)?;
    Reply::decode(bytes).map_err(|_| Errno::EIO)
}

fn is_failure(buffers: &Buffers, len: usize, errno: Errno) -> bool {
    matches!(decode(buffers, len), Ok(Reply::Failed { errno: got }) if got == errno.raw())
}
