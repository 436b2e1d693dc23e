//! Contexts of asynchronous I/O (io_setup(2)): what was finished and not yet collected, and polls under way.
//!
//! Reads, writes and syncs are done at once, as Linux does them on buffered files; only IOCB_CMD_POLL waits. A context is named by the
//! address of a page in the guest, since libaio looks there; the page holds no ring, and libaio then asks the kernel.

use crate::task::memory::MemoryManager;
use abi::poll::Events;
use abi::{Errno, SysResult, UserAddr};
use lock::order::Leaf;
use lock::{Ranked, WaitEntry, WaitQueue, WakeTarget};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use vfs::event::eventfd::EventFd;
use vfs::{OpenFile, Waitable};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct io_event`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IoEvent {
    /// `aio_data` of the request.
    pub data: u64,
    /// Address of the request.
    pub obj: u64,
    /// Result, or a negative errno.
    pub res: i64,
    /// Zero.
    pub res2: i64,
}

#[derive(Default)]
struct State {
    done: VecDeque<IoEvent>,
    polls: HashMap<u64, Arc<Poll>>,
    dead: bool,
}

/// One context.
pub struct AioContext {
    me: Weak<AioContext>,
    limit: usize,
    state: Ranked<Leaf, State>,
    queue: WaitQueue,
}

/// IOCB_CMD_POLL under way.
struct Poll {
    context: Weak<AioContext>,
    event: IoEvent,
    wanted: Events,
    file: Arc<OpenFile>,
    signal: Option<Arc<OpenFile>>,
    told: AtomicBool,
    entry: Ranked<Leaf, Option<Arc<WaitEntry>>>,
}

impl Poll {
    /// The event has come, or the request is cancelled. Only the first call counts.
    fn finish(&self, res: i64) {
        if self.told.swap(true, Ordering::AcqRel) {
            return;
        }
        let Some(context) = self.context.upgrade() else { return };
        context.state.lock().done.push_back(IoEvent { res, ..self.event });
        context.queue.wake(Events::READABLE);
        if let Some(signal) = self.signal.clone() {
            // The waker may hold the lock of another file.
            vfs::event::timer::later(move || notify(Some(&signal)));
        }
    }
}

impl WakeTarget for Poll {
    fn wake(&self, events: Events) {
        let found = events & self.wanted;
        if !found.is_empty() {
            self.finish(i64::from(found.bits()));
        }
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.get_mut().take() {
            self.file.unregister(&entry);
        }
    }
}

/// Counts a finished request in its eventfd.
fn notify(signal: Option<&Arc<OpenFile>>) {
    if let Some(counter) = signal.and_then(|file| file.downcast::<EventFd>()) {
        counter.signal(1);
    }
}

impl Waitable for AioContext {
    fn ready(&self, interest: Events) -> Events {
        if self.state.lock().done.is_empty() { Events::empty() } else { interest & Events::READABLE }
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.queue.unregister(entry);
    }
}

impl AioContext {
    /// Makes room for one more request: `EAGAIN` when as many as io_setup asked for are not collected yet.
    pub fn check_room(&self) -> SysResult<()> {
        self.forget_told();
        let state = self.state.lock();
        if state.dead {
            return Err(Errno::EINVAL);
        }
        if state.done.len().saturating_add(state.polls.len()) < self.limit {
            Ok(())
        } else {
            Err(Errno::EAGAIN)
        }
    }
    /// A request is done.
    pub fn complete(&self, event: IoEvent, signal: Option<&Arc<OpenFile>>) {
        self.state.lock().done.push_back(event);
        self.queue.wake(Events::READABLE);
        notify(signal);
    }
    /// Starts IOCB_CMD_POLL.
    pub fn poll(&self, event: IoEvent, wanted: Events, file: Arc<OpenFile>, signal: Option<Arc<OpenFile>>) {
        let wanted = wanted | Events::ALWAYS;
        let poll = Arc::new(Poll {
            context: Weak::clone(&self.me),
            event,
            wanted,
            file,
            signal,
            told: AtomicBool::new(false),
            entry: Ranked::new(None),
        });
        let weak: Weak<dyn WakeTarget> = Arc::<Poll>::downgrade(&poll);
        let entry = WaitEntry::new(weak, wanted);
        *poll.entry.lock() = Some(Arc::clone(&entry));
        self.state.lock().polls.insert(event.obj, Arc::clone(&poll));
        poll.file.register(&entry);
        let found = poll.file.ready(wanted) & wanted;
        if !found.is_empty() {
            poll.finish(i64::from(found.bits()));
        }
        self.forget_told();
    }
    /// io_cancel(2): `EINPROGRESS` when the request will be finished as cancelled, `EINVAL` when it is not under way.
    pub fn cancel(&self, obj: u64) -> Errno {
        let found = self.state.lock().polls.get(&obj).cloned();
        match found.filter(|poll| !poll.told.load(Ordering::Acquire)) {
            Some(poll) => {
                poll.finish(-i64::from(Errno::ECANCELED.raw()));
                self.forget_told();
                Errno::EINPROGRESS
            }
            None => Errno::EINVAL,
        }
    }
    /// Takes up to `most` finished requests.
    pub fn take(&self, most: usize) -> Vec<IoEvent> {
        self.forget_told();
        let mut state = self.state.lock();
        let count = most.min(state.done.len());
        state.done.drain(..count).collect()
    }
    /// Drops polls that are finished. Not under the lock: files hear of it.
    fn forget_told(&self) {
        let mut gone = Vec::new();
        self.state.lock().polls.retain(|_, poll| {
            let told = poll.told.load(Ordering::Acquire);
            if told {
                gone.push(Arc::clone(poll));
            }
            !told
        });
        drop(gone);
    }
    /// Whether it was destroyed.
    pub fn is_dead(&self) -> bool {
        self.state.lock().dead
    }
}

struct Entry {
    mm: Weak<MemoryManager>,
    context: Arc<AioContext>,
}

/// All contexts, by address space and address.
#[derive(Default)]
pub struct AioTable(Ranked<Leaf, HashMap<(usize, u64), Entry>>);

impl std::fmt::Debug for AioTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AioTable(..)")
    }
}

fn key(mm: &Arc<MemoryManager>, at: UserAddr) -> (usize, u64) {
    (Arc::as_ptr(mm).addr(), at.raw())
}

impl AioTable {
    /// A new context at `at` with room for `limit` requests. `EAGAIN` beyond `most` in all (aio-max-nr).
    pub fn add(&self, mm: &Arc<MemoryManager>, at: UserAddr, limit: usize, most: usize) -> SysResult<()> {
        let context = Arc::new_cyclic(|me| AioContext {
            me: Weak::clone(me),
            limit,
            state: Ranked::default(),
            queue: WaitQueue::new(),
        });
        let mut gone = Vec::new();
        let mut table = self.0.lock();
        // Address spaces that ended without io_destroy.
        let dead: Vec<_> =
            table.iter().filter(|(_, e)| e.mm.strong_count() == 0).map(|(key, _)| *key).collect();
        gone.extend(dead.iter().filter_map(|key| table.remove(key)));
        let used: usize = table.values().map(|entry| entry.context.limit).sum();
        let fits = used.saturating_add(limit) <= most;
        if fits {
            gone.extend(table.insert(key(mm, at), Entry { mm: Arc::downgrade(mm), context }));
        }
        drop(table);
        drop(gone);
        if fits { Ok(()) } else { Err(Errno::EAGAIN) }
    }
    /// The context at `at`; `EINVAL`.
    pub fn get(&self, mm: &Arc<MemoryManager>, at: UserAddr) -> SysResult<Arc<AioContext>> {
        let table = self.0.lock();
        let entry = table.get(&key(mm, at)).filter(|entry| std::ptr::eq(entry.mm.as_ptr(), Arc::as_ptr(mm)));
        entry.map(|entry| Arc::clone(&entry.context)).ok_or(Errno::EINVAL)
    }
    /// io_destroy(2).
    pub fn remove(&self, mm: &Arc<MemoryManager>, at: UserAddr) -> SysResult<()> {
        let entry = self.0.lock().remove(&key(mm, at)).ok_or(Errno::EINVAL)?;
        let polls = {
            let mut state = entry.context.state.lock();
            state.dead = true;
            std::mem::take(&mut state.polls)
        };
        drop(polls);
        entry.context.queue.wake(Events::READABLE);
        Ok(())
    }
    /// Requests that there is room for in all contexts (/proc/sys/fs/aio-nr).
    #[must_use]
    pub fn count(&self) -> usize {
        let table = self.0.lock();
        table.values().filter(|e| e.mm.strong_count() > 0).map(|e| e.context.limit).sum()
    }
}
