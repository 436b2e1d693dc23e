//! Message queues of System V (msgget(2), msgsnd(2), msgrcv(2)).

use super::{Get, IpcNs, Perm, look_up, now};
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::order::FileObject;
use lock::{Ranked, WaitEntry, WaitQueue};
use std::collections::VecDeque;
use std::sync::Arc;
use vfs::{Credentials, Waitable};

/// Longest message (MSGMAX).
pub const MAX_MESSAGE: usize = 8192;
/// Bytes in a queue (MSGMNB).
pub const MAX_QUEUE: usize = 16_384;
const NOERROR: u32 = 0o10000;
const EXCEPT: u32 = 0o20000;
const COPY: u32 = 0o40000;

/// State of a queue.
#[derive(Debug)]
pub struct QueueState {
    /// Owner and mode.
    pub perm: Perm,
    messages: VecDeque<(i64, Vec<u8>)>,
    /// Bytes in it.
    pub bytes: usize,
    /// Most bytes in it.
    pub limit: usize,
    /// Last send, receive, change.
    pub times: [i64; 3],
    /// Processes of the last send and receive (root numbers).
    pub pids: [u32; 2],
    /// IPC_RMID.
    pub removed: bool,
}

/// A queue.
#[derive(Debug)]
pub struct Queue {
    /// Its id.
    pub id: i32,
    /// State.
    pub state: Ranked<FileObject, QueueState>,
    waiters: WaitQueue,
}

impl Waitable for Queue {
    fn ready(&self, interest: Events) -> Events {
        interest
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.waiters.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.waiters.unregister(entry);
    }
}

impl QueueState {
    /// Messages in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.messages.len()
    }
}

impl Queue {
    /// Something changed: everybody who waits looks again.
    pub fn changed(&self) {
        self.waiters.wake(Events::READABLE | Events::WRITABLE);
    }
    /// Adds a message; `EAGAIN` when it is full.
    pub fn send(&self, ns: &IpcNs, kind: i64, bytes: &[u8], who: (&Credentials, u32)) -> SysResult<()> {
        let mut state = self.state.lock();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        state.perm.check(2, who.0, ns)?;
        let full =
            state.bytes.saturating_add(bytes.len()) > state.limit || state.messages.len() >= state.limit;
        if full {
            return Err(Errno::EAGAIN);
        }
        state.bytes += bytes.len();
        state.messages.push_back((kind, bytes.to_vec()));
        state.times[0] = now();
        state.pids[0] = who.1;
        drop(state);
        self.changed();
        Ok(())
    }
    /// Takes a message; `EAGAIN` when there is none of that kind (`ENOMSG` is the caller's business).
    pub fn receive(
        &self,
        ns: &IpcNs,
        kind: i64,
        max: usize,
        flags: u32,
        who: (&Credentials, u32),
    ) -> SysResult<(i64, Vec<u8>)> {
        let mut state = self.state.lock();
        if state.removed {
            return Err(Errno::EIDRM);
        }
        state.perm.check(4, who.0, ns)?;
        let at = if flags & COPY != 0 {
            usize::try_from(kind).ok().filter(|at| *at < state.messages.len())
        } else if kind == 0 {
            (!state.messages.is_empty()).then_some(0)
        } else if kind > 0 {
            let except = flags & EXCEPT != 0;
            state.messages.iter().position(|(other, _)| (*other == kind) != except)
        } else {
            let bound = kind.checked_neg().unwrap_or(i64::MAX);
            let lowest = state.messages.iter().map(|(other, _)| *other).filter(|other| *other <= bound).min();
            lowest.and_then(|low| state.messages.iter().position(|(other, _)| *other == low))
        };
        let at = at.ok_or(Errno::EAGAIN)?;
        let len = state.messages.get(at).map_or(0, |(_, bytes)| bytes.len());
        if len > max && flags & NOERROR == 0 {
            return Err(Errno::E2BIG);
        }
        if flags & COPY != 0 {
            return state.messages.get(at).cloned().ok_or(Errno::EAGAIN);
        }
        let (kind, mut bytes) = state.messages.remove(at).ok_or(Errno::EAGAIN)?;
        state.bytes = state.bytes.saturating_sub(len);
        state.times[1] = now();
        state.pids[1] = who.1;
        drop(state);
        self.changed();
        bytes.truncate(max);
        Ok((kind, bytes))
    }
}

/// msgget(2).
pub fn get(ns: &Arc<IpcNs>, key: i32, flags: u32, cred: &Credentials) -> SysResult<i32> {
    let mut table = ns.msg.lock();
    if let Get::Found(id) = look_up(&table, key, flags)? {
        let queue = table.find(id)?;
        drop(table);
        queue.state.lock().perm.check((flags & 0o777) >> 6, cred, ns)?;
        return Ok(id);
    }
    table.add(key, &ns.next_msg, |id| {
        let state = QueueState {
            perm: Perm::new(key, flags, cred),
            messages: VecDeque::new(),
            bytes: 0,
            limit: MAX_QUEUE,
            times: [0, 0, now()],
            pids: [0, 0],
            removed: false,
        };
        Arc::new(Queue { id, state: Ranked::new(state), waiters: WaitQueue::new() })
    })
}
