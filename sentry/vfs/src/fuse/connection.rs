//! Requests on their way to the server, and replies on their way back.
//!
//! The state has rank `Leaf`: nodes are forgotten, and files released, wherever the last reference goes. Queues
//! are woken without it.

use super::message::{HEADER, MAJOR, MINOR, OUT_HEADER, Put, Take, op};
use crate::caller::{Caller, Waitable, wait_until};
use abi::poll::Events;
use abi::{Errno, Failure, SysResult};
use lock::{Ranked, WaitEntry, WaitQueue, order};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most bytes of one read or write.
pub(super) const MOST: u32 = 128 << 10;
/// Least that a server must be able to read at once (`FUSE_MIN_READ_BUFFER`).
pub(super) const MIN_READ: usize = 8192;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Phase {
    /// The server has not answered INIT.
    #[default]
    Starting,
    Ready,
    /// Unmounted, or the server is gone.
    Dead,
}

#[derive(Debug)]
enum Slot {
    /// The server has not read it.
    Queued,
    /// It has.
    Sent,
    /// Nobody waits for the answer.
    Ignored,
    Done(SysResult<Vec<u8>>),
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    pending: VecDeque<(u64, Vec<u8>)>,
    slots: HashMap<u64, Slot>,
    max_write: u32,
}

/// One mounted file system's conversation with its server.
#[derive(Debug, Default)]
pub struct Connection {
    state: Ranked<order::Leaf, State>,
    requests: WaitQueue,
    replies: WaitQueue,
    last_unique: AtomicU64,
}

/// Waiting for a reply.
struct Replies<'a>(&'a Connection);

impl Waitable for Replies<'_> {
    fn ready(&self, interest: Events) -> Events {
        interest
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.0.replies.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.0.replies.unregister(entry);
    }
}

/// Who a request is from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct From {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: u32,
}

fn encode(operation: u32, unique: u64, node: u64, from: From, body: &[u8]) -> SysResult<Vec<u8>> {
    let len = u32::try_from(HEADER + body.len()).map_err(|_| Errno::E2BIG)?;
    let head = Put(Vec::with_capacity(HEADER + body.len())).u32(len).u32(operation).u64(unique).u64(node);
    Ok(head.u32(from.uid).u32(from.gid).u32(from.pid).u32(0).bytes(body).0)
}

impl Connection {
    /// A connection whose first message is on its way.
    pub(super) fn start() -> SysResult<Arc<Connection>> {
        const ASYNC_READ: u32 = 1;
        const BIG_WRITES: u32 = 1 << 5;
        let conn = Connection::default();
        let body = Put::default().u32(MAJOR).u32(MINOR).u32(MOST).u32(ASYNC_READ | BIG_WRITES);
        let unique = conn.unique();
        let message = encode(op::INIT, unique, 0, From::default(), &body.0)?;
        {
            let mut state = conn.state.lock();
            state.slots.insert(unique, Slot::Queued);
            state.pending.push_back((unique, message));
        }
        Ok(Arc::new(conn))
    }
    fn unique(&self) -> u64 {
        // Even numbers, as Linux: the lowest bit is an interrupt's.
        self.last_unique.fetch_add(2, Ordering::Relaxed).wrapping_add(2)
    }
    /// Bytes of one write.
    pub(super) fn max_write(&self) -> usize {
        let most = self.state.lock().max_write;
        usize::try_from(most.clamp(4096, MOST)).unwrap_or(4096)
    }
    /// The end of it: whoever waits is told.
    pub fn kill(&self) {
        {
            let mut state = self.state.lock();
            state.phase = Phase::Dead;
            state.pending.clear();
            state.slots.retain(|_, slot| !matches!(slot, Slot::Ignored));
            for slot in state.slots.values_mut() {
                if !matches!(slot, Slot::Done(_)) {
                    *slot = Slot::Done(Err(Errno::ECONNABORTED));
                }
            }
        }
        self.replies.wake(Events::READABLE);
        self.requests.wake(Events::READABLE | Events::ERR | Events::HUP);
    }
    /// Sends a request and sleeps until its reply is there. `ENOTCONN` without a server, `EINTR` by a signal.
    pub(super) fn call(
        &self,
        operation: u32,
        node: u64,
        body: &Put,
        from: From,
        by: &Caller<'_>,
    ) -> SysResult<Vec<u8>> {
        let unique = self.unique();
        let message = encode(operation, unique, node, from, &body.0)?;
        let mut message = Some(message);
        let mut sent = false;
        let done = wait_until(&Replies(self), Events::READABLE, None, by, || {
            if !sent {
                self.queue(unique, &mut message)?;
                sent = true;
                self.requests.wake(Events::READABLE);
            }
            self.take_reply(unique)
        });
        match done {
            Ok(reply) => reply,
            Err(Failure::Errno(errno)) => Err(errno),
            Err(Failure::Restart(_)) => {
                if sent {
                    self.abandon(unique);
                }
                Err(Errno::EINTR)
            }
        }
    }
    /// `EAGAIN` until the server has answered INIT.
    fn queue(&self, unique: u64, message: &mut Option<Vec<u8>>) -> SysResult<()> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Starting => return Err(Errno::EAGAIN),
            Phase::Dead => return Err(Errno::ENOTCONN),
            Phase::Ready => {}
        }
        if let Some(message) = message.take() {
            state.slots.insert(unique, Slot::Queued);
            state.pending.push_back((unique, message));
        }
        Ok(())
    }
    fn take_reply(&self, unique: u64) -> SysResult<SysResult<Vec<u8>>> {
        let mut state = self.state.lock();
        if !matches!(state.slots.get(&unique), Some(Slot::Done(_))) {
            return Err(Errno::EAGAIN);
        }
        match state.slots.remove(&unique) {
            Some(Slot::Done(reply)) => Ok(reply),
            _ => Err(Errno::EIO),
        }
    }
    fn abandon(&self, unique: u64) {
        let mut state = self.state.lock();
        match state.slots.get(&unique) {
            Some(Slot::Queued) => {
                state.pending.retain(|(other, _)| *other != unique);
                state.slots.remove(&unique);
            }
            Some(Slot::Sent) => {
                state.slots.insert(unique, Slot::Ignored);
                let body = Put::default().u64(unique);
                if let Ok(message) = encode(op::INTERRUPT, unique | 1, 0, From::default(), &body.0) {
                    state.pending.push_back((unique | 1, message));
                }
            }
            _ => {
                state.slots.remove(&unique);
            }
        }
        drop(state);
        self.requests.wake(Events::READABLE);
    }
    /// Sends what nobody waits for.
    pub(super) fn post(&self, operation: u32, node: u64, body: &Put) {
        let unique = self.unique();
        let Ok(message) = encode(operation, unique, node, From::default(), &body.0) else { return };
        {
            let mut state = self.state.lock();
            if state.phase != Phase::Ready {
                return;
            }
            if operation != op::FORGET {
                state.slots.insert(unique, Slot::Ignored);
            }
            state.pending.push_back((unique, message));
        }
        self.requests.wake(Events::READABLE);
    }

    /// The next request, for a server with room for `room` bytes: `EAGAIN`, `ENODEV` when it is over.
    pub(super) fn next(&self, room: usize) -> SysResult<Vec<u8>> {
        loop {
            let mut state = self.state.lock();
            if state.phase == Phase::Dead {
                return Err(Errno::ENODEV);
            }
            let (unique, message) = state.pending.pop_front().ok_or(Errno::EAGAIN)?;
            if message.len() <= room {
                if let Some(slot @ Slot::Queued) = state.slots.get_mut(&unique) {
                    *slot = Slot::Sent;
                }
                return Ok(message);
            }
            if state.slots.contains_key(&unique) {
                state.slots.insert(unique, Slot::Done(Err(Errno::EIO)));
            }
            drop(state);
            self.replies.wake(Events::READABLE);
        }
    }
    /// A message from the server.
    pub(super) fn reply(&self, message: &[u8]) -> SysResult<()> {
        let mut from = Take(message);
        let (len, error, unique) = match (from.u32(), from.u32(), from.u64()) {
            (Ok(len), Ok(error), Ok(unique)) => (len, error.cast_signed(), unique),
            _ => return Err(Errno::EINVAL),
        };
        if usize::try_from(len).ok() != Some(message.len()) {
            return Err(Errno::EINVAL);
        }
        if unique == 0 {
            // Notifications: nothing is cached that they could be about for longer than the server said.
            return if (1..=6).contains(&error) { Ok(()) } else { Err(Errno::EINVAL) };
        }
        if !(-511..=0).contains(&error) || (error != 0 && message.len() != OUT_HEADER) {
            return Err(Errno::EINVAL);
        }
        let body = if error == 0 { Ok(from.0.to_vec()) } else { Err(Errno::from_raw(-error)) };
        let mut state = self.state.lock();
        if state.phase == Phase::Dead {
            return Err(Errno::ENOENT);
        }
        if unique & 1 == 1 {
            return Ok(());
        }
        match state.slots.get(&unique) {
            Some(Slot::Sent) if state.phase == Phase::Starting => {
                state.slots.remove(&unique);
                match body.and_then(|body| greeting(&body)) {
                    Ok(max_write) => {
                        state.max_write = max_write;
                        state.phase = Phase::Ready;
                    }
                    Err(_) => {
                        drop(state);
                        self.kill();
                        return Ok(());
                    }
                }
            }
            Some(Slot::Sent) => {
                state.slots.insert(unique, Slot::Done(body));
            }
            Some(Slot::Ignored) => {
                state.slots.remove(&unique);
                return Ok(());
            }
            _ => return Err(Errno::ENOENT),
        }
        drop(state);
        self.replies.wake(Events::READABLE);
        Ok(())
    }
    /// Readiness of the device.
    pub(super) fn device_ready(&self) -> Events {
        let state = self.state.lock();
        if state.phase == Phase::Dead {
            return Events::ERR;
        }
        let mut events = Events::WRITABLE;
        events.set(Events::READABLE, !state.pending.is_empty());
        events
    }
    pub(super) fn device_queue(&self) -> &WaitQueue {
        &self.requests
    }
}

/// `struct fuse_init_out`: the bytes of one write. `EPROTO` for another protocol.
fn greeting(body: &[u8]) -> SysResult<u32> {
    let mut from = Take(body);
    let (major, minor) = (from.u32()?, from.u32()?);
    if major != MAJOR {
        return Err(Errno::EPROTO);
    }
    if minor < 5 {
        return Ok(4096);
    }
    let (_readahead, _flags, _background) = (from.u32()?, from.u32()?, from.u32()?);
    Ok(from.u32()?.max(4096))
}
