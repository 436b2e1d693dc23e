//! What a socket has received: the only thing two connected sockets share. Lock: `SocketPeer`.
//!
//! A sender that finds no room leaves its own wait queue in `blocked`; the receiver wakes those queues
//! once half of the room is free, as Linux does.

use crate::addr::{InetAddr, SockAddr};
use crate::types::{Control, Ucred};
use abi::poll::Events;
use abi::time::Timespec;
use abi::{Errno, SysResult};
use lock::order::SocketPeer;
use lock::{Ranked, WaitQueue};
use mm::{GuestSink, GuestSource};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Weak};
use vfs::OpenFile;
use vfs::event::ring::ByteRing;

/// Control data that travels with bytes of an AF_UNIX socket.
#[derive(Clone, Debug, Default)]
pub struct Ancillary {
    /// SCM_RIGHTS.
    pub files: Vec<Arc<OpenFile>>,
    /// Who sent, where either side asked for it.
    pub cred: Option<Ucred>,
    /// The last byte is urgent (MSG_OOB on TCP).
    pub urgent: bool,
}

impl Ancillary {
    /// As control messages.
    #[must_use]
    pub fn into_control(self, wants_cred: bool) -> Vec<Control> {
        let mut out = Vec::new();
        if wants_cred {
            out.push(Control::Credentials(self.cred.unwrap_or(Ucred::NONE)));
        }
        if !self.files.is_empty() {
            out.push(Control::Rights(self.files));
        }
        out
    }
}

type Blocked = SmallVec<[Weak<WaitQueue>; 1]>;

fn block(list: &mut Blocked, queue: &Arc<WaitQueue>) {
    if !list.iter().any(|q| std::ptr::eq(q.as_ptr(), Arc::as_ptr(queue))) {
        list.push(Arc::downgrade(queue));
    }
}

fn unblock(list: Blocked) {
    for queue in list {
        if let Some(queue) = queue.upgrade() {
            queue.wake(Events::WRITABLE);
        }
    }
}

fn wake_first(first: Option<Weak<WaitQueue>>) {
    if let Some(queue) = first.and_then(|queue| queue.upgrade()) {
        queue.wake(Events::READABLE);
    }
}

#[derive(Debug)]
struct Piece {
    len: usize,
    with: Ancillary,
}

/// The urgent byte of a stream, which lies in the ring with the others.
#[derive(Clone, Copy, Debug)]
struct Urgent {
    // As `total` counts.
    at: u64,
    // A receive with MSG_OOB has had it.
    taken: bool,
}

#[derive(Debug, Default)]
struct StreamState {
    ring: ByteRing,
    // Empty while no byte inside carries anything.
    pieces: VecDeque<Piece>,
    // The sender is done: end of file behind the last byte.
    eof: bool,
    // It said so itself: a reset that comes later leaves the end of file to readers.
    ended: bool,
    // The receiver is done: senders get a broken pipe.
    closed: bool,
    reset: Option<Errno>,
    limit: usize,
    blocked: Blocked,
    total: u64,
    urgent: Option<Urgent>,
    // SO_OOBINLINE: the urgent byte is read with the others.
    inline: bool,
    // Who is woken once by the first byte or the end, besides the reader (TCP_DEFER_ACCEPT).
    first: Option<Weak<WaitQueue>>,
}

/// Received bytes of a stream.
#[derive(Debug)]
pub struct StreamInbox {
    state: Ranked<SocketPeer, StreamState>,
    queue: Arc<WaitQueue>,
}

/// How a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// Bytes to read.
    pub len: usize,
    /// Nothing will follow.
    pub eof: bool,
    /// Nobody will read.
    pub closed: bool,
    /// Bytes received in all.
    pub total: u64,
    /// Bytes that a read of any size gives, without the urgent one.
    pub readable: usize,
    /// Bytes before the urgent one, or all (FIONREAD).
    pub before_mark: usize,
    /// An urgent byte that no receive with MSG_OOB has had.
    pub urgent: bool,
}

impl StreamInbox {
    /// An empty inbox of the socket with wait queue `queue`.
    #[must_use]
    pub fn new(queue: &Arc<WaitQueue>, limit: usize) -> Arc<StreamInbox> {
        let state = StreamState { limit, ..StreamState::default() };
        Arc::new(StreamInbox { state: Ranked::new(state), queue: Arc::clone(queue) })
    }

    /// Appends what fits. `EPIPE` when the receiver is done, `EAGAIN` (and `from` noted) without room.
    pub fn send(
        &self,
        src: &mut dyn GuestSource,
        with: &mut Ancillary,
        from: &Arc<WaitQueue>,
    ) -> SysResult<usize> {
        let mut state = self.state.lock();
        if state.closed || state.eof {
            return Err(Errno::EPIPE);
        }
        if src.remaining() == 0 {
            return Ok(0);
        }
        let room = state.limit.saturating_sub(state.ring.len());
        if room == 0 {
            block(&mut state.blocked, from);
            return Err(Errno::EAGAIN);
        }
        let before = state.ring.len();
        let done = state.ring.fill(src, room)?;
        state.total = state.total.wrapping_add(u64::try_from(done).unwrap_or(0));
        let mut events = Events::READABLE;
        if with.urgent && done > 0 && src.remaining() == 0 {
            state.urgent = Some(Urgent { at: state.total.wrapping_sub(1), taken: false });
            events |= Events::PRI;
        }
        let plain = with.files.is_empty() && with.cred.is_none();
        if !plain || !state.pieces.is_empty() {
            if state.pieces.is_empty() && before > 0 {
                state.pieces.push_back(Piece { len: before, with: Ancillary::default() });
            }
            let with = std::mem::take(with);
            match state.pieces.back_mut() {
                Some(last)
                    if with.files.is_empty() && last.with.files.is_empty() && last.with.cred == with.cred =>
                {
                    last.len += done;
                }
                _ => state.pieces.push_back(Piece { len: done, with }),
            }
        }
        let first = state.first.take();
        drop(state);
        self.queue.wake(events);
        wake_first(first);
        Ok(done)
    }
    /// Wakes `queue` too when the first byte comes, or the end.
    pub fn tell_first(&self, queue: &Arc<WaitQueue>) {
        self.state.lock().first = Some(Arc::downgrade(queue));
    }

    /// Takes (or with `peek` looks at) bytes from `skip` on. 0 is end of file. Stops where the sender's
    /// credentials change (when `by_cred`) and behind bytes that carried descriptors.
    pub fn receive(
        &self,
        dst: &mut dyn GuestSink,
        peek: bool,
        skip: usize,
        by_cred: bool,
    ) -> SysResult<(usize, Ancillary)> {
        let mut state = self.state.lock();
        if state.ring.len() <= skip {
            let ended = state.ended;
            if let Some(error) = state.reset.take_if(|_| !ended) {
                return Err(error);
            }
            return if state.eof || state.closed {
                Ok((0, Ancillary::default()))
            } else {
                Err(Errno::EAGAIN)
            };
        }
        if dst.remaining() == 0 {
            return Ok((0, Ancillary::default()));
        }
        let mut max = state.one_run(skip, by_cred);
        match state.mark() {
            Some(mark) if mark > skip => max = max.min(mark - skip),
            // The urgent byte is read by itself.
            Some(mark) if mark == skip && !state.inline => {
                if peek {
                    let done = state.ring.copy_out(dst, skip + 1, usize::MAX)?;
                    return if done == 0 { Err(Errno::EAGAIN) } else { Ok((done, Ancillary::default())) };
                }
                state.ring.consume(1);
                state.urgent = None;
                if state.ring.is_empty() {
                    return if state.eof { Ok((0, Ancillary::default())) } else { Err(Errno::EAGAIN) };
                }
            }
            _ => {}
        }
        let done = state.ring.copy_out(dst, skip, max)?;
        let with = state.ancillary(skip, done, peek);
        if peek {
            return Ok((done, with));
        }
        let full = state.ring.len() * 2 > state.limit;
        state.ring.consume(done);
        if state.urgent.is_some() && state.mark().is_none() {
            state.urgent = None;
        }
        let wake = full && state.ring.len() * 2 <= state.limit || state.ring.is_empty();
        let blocked = if wake { std::mem::take(&mut state.blocked) } else { Blocked::new() };
        drop(state);
        unblock(blocked);
        Ok((done, with))
    }

    /// Whether a sender has room, by the rule of poll; notes `from` when not.
    pub fn writable(&self, from: &Arc<WaitQueue>) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.eof || state.ring.len() * 2 <= state.limit {
            return true;
        }
        block(&mut state.blocked, from);
        false
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> StreamStatus {
        let state = self.state.lock();
        let len = state.ring.len();
        let mark = state.mark().filter(|_| !state.inline);
        StreamStatus {
            len,
            eof: state.eof,
            closed: state.closed,
            total: state.total,
            readable: if mark == Some(0) { len - 1 } else { len },
            before_mark: mark.unwrap_or(len),
            urgent: state.urgent.is_some_and(|urgent| !urgent.taken),
        }
    }
    /// Whether not one more byte fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let state = self.state.lock();
        state.ring.len() >= state.limit
    }
    /// SO_OOBINLINE.
    pub fn set_inline(&self, inline: bool) {
        self.state.lock().inline = inline;
    }
    /// Whether the next byte is the urgent one.
    #[must_use]
    pub fn at_mark(&self) -> bool {
        self.state.lock().mark() == Some(0)
    }
    /// The urgent byte, once unless only looked at; `EINVAL` when there is none.
    pub fn take_urgent(&self, peek: bool) -> SysResult<u8> {
        let mut state = self.state.lock();
        let mark = state.mark().ok_or(Errno::EINVAL)?;
        match &mut state.urgent {
            Some(urgent) if !urgent.taken => urgent.taken = !peek,
            _ => return Err(Errno::EINVAL),
        }
        if state.inline {
            return Err(Errno::EINVAL);
        }
        let mut byte = [0; 1];
        state.ring.copy_out(&mut mm::io::SliceSink::new(&mut byte), mark, 1)?;
        Ok(byte[0])
    }
    /// Most bytes inside.
    pub fn set_limit(&self, limit: usize) {
        self.state.lock().limit = limit;
    }
    /// The sender will send no more.
    pub fn finish(&self, hup: bool) {
        let first = {
            let mut state = self.state.lock();
            state.eof = true;
            state.ended = true;
            state.first.take()
        };
        self.queue.wake(
            Events::READABLE
                | Events::WRITABLE
                | Events::RDHUP
                | if hup { Events::HUP } else { Events::empty() },
        );
        wake_first(first);
    }
    /// The sender broke off: bytes inside stay readable unless `discard`.
    pub fn reset(&self, error: Errno, discard: bool) {
        let mut state = self.state.lock();
        state.eof = true;
        state.closed = true;
        state.reset = Some(error);
        if discard {
            state.ring.clear();
            state.pieces.clear();
        }
        drop(state);
        self.queue.wake(Events::READABLE | Events::WRITABLE | Events::RDHUP | Events::ALWAYS);
    }
    /// The receiver will read no more; gives the bytes it left unread.
    pub fn close(&self) -> usize {
        let mut state = self.state.lock();
        state.closed = true;
        let left = state.ring.len();
        let pieces = std::mem::take(&mut state.pieces);
        state.ring.clear();
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        unblock(blocked);
        // Files in flight are closed without the lock.
        drop(pieces);
        left
    }
    /// The receiver shut its reading half: what is inside stays readable, then end of file.
    pub fn shut_reading(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        unblock(blocked);
        self.queue.wake(Events::READABLE | Events::RDHUP);
    }
    /// The pending error of a reset, once.
    pub fn take_reset(&self) -> Option<Errno> {
        self.state.lock().reset.take()
    }
    /// Whether an error of a reset waits.
    #[must_use]
    pub fn has_reset(&self) -> bool {
        self.state.lock().reset.is_some()
    }
    /// Calls `see` for each file in flight (garbage collection).
    pub fn each_file(&self, see: &mut dyn FnMut(&Arc<OpenFile>)) {
        for piece in &self.state.lock().pieces {
            piece.with.files.iter().for_each(&mut *see);
        }
    }
}

impl StreamState {
    /// Bytes in the ring before the urgent one; `None` when none is there or it was passed.
    fn mark(&self) -> Option<usize> {
        let urgent = self.urgent?;
        let from_end = usize::try_from(self.total.wrapping_sub(urgent.at)).ok()?;
        self.ring.len().checked_sub(from_end)
    }
    /// Bytes from `skip` on that one receive may glue together.
    fn one_run(&self, skip: usize, by_cred: bool) -> usize {
        if self.pieces.is_empty() {
            return usize::MAX;
        }
        let mut at = 0;
        let mut run = 0;
        let mut first: Option<&Piece> = None;
        for piece in &self.pieces {
            let end = at + piece.len;
            if end > skip {
                if let Some(first) = first
                    && by_cred
                    && first.with.cred != piece.with.cred
                {
                    break;
                }
                first.get_or_insert(piece);
                run += end - at.max(skip);
                if !piece.with.files.is_empty() {
                    break;
                }
            }
            at = end;
        }
        run
    }
    /// What came with the bytes `[skip, skip + len)`; taken out unless `peek`.
    fn ancillary(&mut self, skip: usize, len: usize, peek: bool) -> Ancillary {
        let mut out = Ancillary::default();
        if peek {
            let mut at = 0;
            for piece in &self.pieces {
                if at + piece.len > skip && at < skip + len {
                    out.cred = out.cred.or(piece.with.cred);
                    out.files.extend(piece.with.files.iter().cloned());
                }
                at += piece.len;
            }
            return out;
        }
        let mut left = len;
        while left > 0
            && let Some(front) = self.pieces.front_mut()
        {
            out.cred = out.cred.or(front.with.cred);
            out.files.append(&mut front.with.files);
            let now = left.min(front.len);
            front.len -= now;
            left -= now;
            if front.len == 0 {
                self.pieces.pop_front();
            }
        }
        out
    }
}

/// What a datagram's header said, for receivers that ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketInfo {
    /// Where it was sent to.
    pub to: InetAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// Interface it came in by.
    pub index: u32,
    /// SO_MARK of the sender.
    pub mark: u32,
    /// This host's address on the interface.
    pub local: Ipv4Addr,
    /// Sent to a broadcast address.
    pub cast: bool,
}

/// One datagram or record.
#[derive(Debug, Default)]
pub struct Message {
    /// Content.
    pub bytes: Vec<u8>,
    /// Length before a filter cut it, when that was more.
    pub real_len: usize,
    /// Sender.
    pub from: Option<SockAddr>,
    /// Descriptors and credentials.
    pub with: Ancillary,
    /// What its header said.
    pub packet: Option<PacketInfo>,
    /// Control messages that go with it as they are.
    pub control: Vec<Control>,
    /// When it came in.
    pub at: Timespec,
    /// Messages that were dropped before it.
    pub drops: u32,
}

#[derive(Debug, Default)]
struct MessageState {
    messages: VecDeque<Message>,
    bytes: usize,
    max_bytes: usize,
    max_count: usize,
    eof: bool,
    closed: bool,
    reset: Option<Errno>,
    blocked: Blocked,
    drops: u32,
}

/// What makes a queue full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counting {
    /// Bytes alone.
    Bytes,
    /// The number of messages as well.
    Messages,
}

/// What a message of `len` bytes is counted as: as Linux counts the buffer that it lies in (`skb->truesize`), so that
/// as many fit as there.
fn cost(len: usize) -> usize {
    let data = len.next_multiple_of(64) + 320;
    let rounded =
        if data <= 32_768 { data.next_power_of_two().max(512) } else { data.next_multiple_of(4096) };
    rounded + 256
}

impl MessageState {
    fn full(&self) -> bool {
        self.messages.len() >= self.max_count || self.bytes >= self.max_bytes
    }
    fn roomy(&self) -> bool {
        self.messages.len() < self.max_count && self.bytes.saturating_mul(2) <= self.max_bytes
    }
}

/// Received datagrams or records.
#[derive(Debug)]
pub struct MessageInbox {
    state: Ranked<SocketPeer, MessageState>,
    queue: Arc<WaitQueue>,
}

impl MessageInbox {
    /// An empty inbox of the socket with wait queue `queue`.
    #[must_use]
    pub fn new(queue: &Arc<WaitQueue>, max_bytes: usize, max_count: usize) -> Arc<MessageInbox> {
        let state = MessageState { max_bytes, max_count, ..MessageState::default() };
        Arc::new(MessageInbox { state: Ranked::new(state), queue: Arc::clone(queue) })
    }

    /// Whether a message may be put in now: `EPIPE` when the receiver is done; full: no, and `from` noted.
    pub fn writable_now(&self, from: &Arc<WaitQueue>, by: Counting) -> SysResult<bool> {
        let mut state = self.state.lock();
        if state.closed || state.eof {
            return Err(Errno::EPIPE);
        }
        if state.bytes >= state.max_bytes || by == Counting::Messages && state.full() {
            block(&mut state.blocked, from);
            return Ok(false);
        }
        Ok(true)
    }
    /// Puts a message in although others may have filled the queue since `writable_now`.
    pub fn send_anyway(&self, message: Message) -> SysResult<()> {
        let mut state = self.state.lock();
        if state.closed || state.eof {
            drop(state);
            return Err(Errno::EPIPE);
        }
        state.bytes = state.bytes.saturating_add(cost(message.bytes.len()));
        state.messages.push_back(message);
        drop(state);
        self.queue.wake(Events::READABLE);
        Ok(())
    }
    /// Puts a message in or drops it when there is no room.
    pub fn send_or_drop(&self, mut message: Message) {
        let mut state = self.state.lock();
        if state.closed || state.full() {
            state.drops = state.drops.saturating_add(1);
            drop(state);
            return;
        }
        message.drops = state.drops;
        state.bytes = state.bytes.saturating_add(cost(message.bytes.len()));
        state.messages.push_back(message);
        drop(state);
        self.queue.wake(Events::READABLE);
    }

    /// Takes the first message; `Ok(None)` at end of file.
    pub fn receive(&self) -> SysResult<Option<Message>> {
        let mut state = self.state.lock();
        // An error comes before the messages that are still there.
        if let Some(error) = state.reset.take() {
            return Err(error);
        }
        let Some(message) = state.messages.pop_front() else {
            return if state.eof || state.closed { Ok(None) } else { Err(Errno::EAGAIN) };
        };
        state.bytes = state.bytes.saturating_sub(cost(message.bytes.len()));
        let wake = state.roomy();
        let blocked = if wake { std::mem::take(&mut state.blocked) } else { Blocked::new() };
        drop(state);
        unblock(blocked);
        Ok(Some(message))
    }
    /// Lets `look` see the first message; `Ok(None)` at end of file.
    pub fn peek<T>(&self, look: impl FnOnce(&Message) -> T) -> SysResult<Option<T>> {
        let mut state = self.state.lock();
        match state.messages.front() {
            Some(message) => Ok(Some(look(message))),
            None => match state.reset.take() {
                Some(error) => Err(error),
                None if state.eof || state.closed => Ok(None),
                None => Err(Errno::EAGAIN),
            },
        }
    }
    /// Whether a sender has room, by the rule of poll; notes `from` when not.
    pub fn writable(&self, from: &Arc<WaitQueue>, by: Counting) -> bool {
        let mut state = self.state.lock();
        let roomy = state.bytes.saturating_mul(2) <= state.max_bytes;
        if state.closed || state.eof || roomy && (by == Counting::Bytes || state.roomy()) {
            return true;
        }
        block(&mut state.blocked, from);
        false
    }
    /// How it stands; `len` is that of the first message.
    #[must_use]
    pub fn status(&self) -> StreamStatus {
        let state = self.state.lock();
        let len = state.messages.front().map_or(0, |m| m.bytes.len());
        StreamStatus {
            len,
            eof: state.eof,
            closed: state.closed,
            total: 0,
            readable: len,
            before_mark: len,
            urgent: false,
        }
    }
    /// The receiver shut its reading half, of a family whose senders do not learn of it: what comes is still taken.
    pub fn stop_reading(&self) {
        self.state.lock().eof = true;
        self.queue.wake(Events::READABLE | Events::RDHUP);
    }
    /// Messages dropped so far.
    #[must_use]
    pub fn drops(&self) -> u32 {
        self.state.lock().drops
    }
    /// Bytes held, overhead included.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.lock().bytes
    }
    /// Whether a message waits.
    #[must_use]
    pub fn has_message(&self) -> bool {
        !self.state.lock().messages.is_empty()
    }
    /// Most bytes inside.
    pub fn set_limit(&self, max_bytes: usize) {
        self.state.lock().max_bytes = max_bytes;
    }
    /// The sender will send no more.
    pub fn finish(&self, hup: bool) {
        self.state.lock().eof = true;
        self.queue.wake(
            Events::READABLE
                | Events::WRITABLE
                | Events::RDHUP
                | if hup { Events::HUP } else { Events::empty() },
        );
    }
    /// The peer broke off.
    pub fn reset(&self, error: Errno) {
        let mut state = self.state.lock();
        state.reset = Some(error);
        state.eof = true;
        drop(state);
        self.queue.wake(Events::READABLE | Events::WRITABLE | Events::RDHUP | Events::ALWAYS);
    }
    /// Whether an error of a reset waits.
    #[must_use]
    pub fn has_reset(&self) -> bool {
        self.state.lock().reset.is_some()
    }
    /// The pending error of a reset, once.
    pub fn take_reset(&self) -> Option<Errno> {
        self.state.lock().reset.take()
    }
    /// The receiver will read no more; gives the number of messages left unread.
    pub fn close(&self) -> usize {
        let mut state = self.state.lock();
        state.closed = true;
        state.bytes = 0;
        let messages = std::mem::take(&mut state.messages);
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        unblock(blocked);
        messages.len()
    }
    /// The receiver shut its reading half.
    pub fn shut_reading(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let blocked = std::mem::take(&mut state.blocked);
        drop(state);
        unblock(blocked);
        self.queue.wake(Events::READABLE | Events::RDHUP);
    }
    /// Calls `see` for each file in flight (garbage collection).
    pub fn each_file(&self, see: &mut dyn FnMut(&Arc<OpenFile>)) {
        for message in &self.state.lock().messages {
            message.with.files.iter().for_each(&mut *see);
        }
    }
}
