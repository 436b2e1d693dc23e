//! epoll(7).
//!
//! Each interest is an [`Interest`] that is woken by its file's wait queues and puts itself on the
//! instance's ready list, so a wait looks at what happened and never at the whole set. Ranks: the
//! interest set has `EpollTree`; the ready list has `Leaf` and is never held while a file is asked.

use super::anon;
use crate::attr::{Attr, FsStat};
use crate::caller::{Caller, Waitable};
use crate::file::{FileOps, OpenFile};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::{CallResult, Errno, SysResult};
use lock::order::{EpollTree, Leaf};
use lock::{BlockError, Deadline, Ranked, WaitEntry, WaitQueue, WakeTarget};
use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Edge triggered.
pub const EPOLLET: u32 = 1 << 31;
/// Disabled after one report.
pub const EPOLLONESHOT: u32 = 1 << 30;
/// Keep the system awake: accepted, no effect.
pub const EPOLLWAKEUP: u32 = 1 << 29;
/// Wake one of several instances.
pub const EPOLLEXCLUSIVE: u32 = 1 << 28;

const PRIVATE_BITS: u32 = EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE;
/// Instances that may watch one another in a chain (`EP_MAX_NESTS` + 1).
const MAX_DEPTH: usize = 5;

/// `struct epoll_event` (packed on x86-64: 12 bytes).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EpollEvent {
    /// Events and flags.
    pub events: u32,
    /// The caller's own value.
    pub data: u64,
}

impl EpollEvent {
    /// Size in guest memory.
    pub const SIZE: usize = 12;
    /// From guest memory.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 12]) -> EpollEvent {
        let [a, b, c, d, rest @ ..] = bytes;
        EpollEvent { events: u32::from_ne_bytes([a, b, c, d]), data: u64::from_ne_bytes(rest) }
    }
    /// For guest memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        let (events, data) = bytes.split_at_mut(4);
        events.copy_from_slice(&self.events.to_ne_bytes());
        data.copy_from_slice(&self.data.to_ne_bytes());
        bytes
    }
}

/// epoll_ctl(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpollCtl {
    /// EPOLL_CTL_ADD.
    Add(EpollEvent),
    /// EPOLL_CTL_MOD.
    Modify(EpollEvent),
    /// EPOLL_CTL_DEL.
    Delete,
}

#[derive(Debug, Default)]
struct ReadyList {
    queue: Ranked<Leaf, VecDeque<Arc<Interest>>>,
    waiters: WaitQueue,
}

/// One watched file of one instance.
struct Interest {
    me: Weak<Interest>,
    fd: i32,
    file: Weak<OpenFile>,
    // Weak as well: ends of pipes and sockets must be able to die while they are watched.
    list: Weak<ReadyList>,
    events: AtomicU32,
    data: AtomicU64,
    queued: AtomicBool,
    removed: AtomicBool,
    entry: Ranked<Leaf, Option<Arc<WaitEntry>>>,
}

impl std::fmt::Debug for Interest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Interest(fd {})", self.fd)
    }
}

impl Interest {
    fn wanted(&self) -> Option<Events> {
        let bits = self.events.load(Ordering::SeqCst);
        // ONESHOT leaves no bit but the flags: then not even ERR and HUP are reported.
        let events = bits & !PRIVATE_BITS;
        (events != 0).then(|| Events::from_bits_truncate(events) | Events::ALWAYS)
    }
    fn enqueue(&self, list: &ReadyList) -> bool {
        if self.queued.swap(true, Ordering::SeqCst) {
            return false;
        }
        let Some(me) = self.me.upgrade() else { return false };
        list.queue.lock().push_back(me);
        true
    }
}

impl WakeTarget for Interest {
    fn wake(&self, _events: Events) {
        if self.removed.load(Ordering::SeqCst) || self.events.load(Ordering::SeqCst) & !PRIVATE_BITS == 0 {
            return;
        }
        let Some(list) = self.list.upgrade() else { return };
        self.enqueue(&list);
        // Also when it was queued already: another waiter may be between looking and sleeping.
        list.waiters.wake(Events::READABLE);
    }
}

type Key = (i32, usize);

#[derive(Debug, Default)]
struct Set {
    items: HashMap<Key, Arc<Interest>>,
    // Closed files leave their interests behind; they are swept when the set has doubled since.
    sweep_at: usize,
}

/// An epoll instance.
#[derive(Debug)]
pub struct Epoll {
    set: Ranked<EpollTree, Set>,
    ready: Arc<ReadyList>,
}

/// epoll_create1(2).
#[must_use]
pub fn create() -> Arc<OpenFile> {
    let ops = Epoll { set: Ranked::default(), ready: Arc::default() };
    OpenFile::anonymous(Arc::new(ops), OpenFlags::RDWR)
}

fn key(fd: i32, file: &Arc<OpenFile>) -> Key {
    (fd, Arc::as_ptr(file).addr())
}

// Serialises additions of an instance to another, so that two of them cannot close a loop together.
static NESTING: Ranked<EpollTree, ()> = Ranked::new(());

impl Epoll {
    /// Changes the interest in descriptor `fd` with open file `file`. `own` is this instance's open file.
    pub fn ctl(&self, own: &Arc<OpenFile>, op: EpollCtl, fd: i32, file: &Arc<OpenFile>) -> SysResult<()> {
        if Arc::ptr_eq(own, file) {
            return Err(Errno::EINVAL);
        }
        if !file.ops().can_poll() {
            return Err(Errno::EPERM);
        }
        let nested = file.downcast::<Epoll>();
        match op {
            EpollCtl::Add(event) => {
                check_exclusive(event.events, nested.is_some())?;
                let Some(target) = nested else { return self.add(event, fd, file, false) };
                let _order = NESTING.lock();
                if target.reaches(self, 1)? {
                    return Err(Errno::ELOOP);
                }
                // Chains above this instance are not known; the depth below must leave room for itself.
                self.add(event, fd, file, true)
            }
            EpollCtl::Modify(event) => {
                if event.events & EPOLLEXCLUSIVE != 0 {
                    return Err(Errno::EINVAL);
                }
                self.modify(event, fd, file)
            }
            EpollCtl::Delete => {
                let removed = self.set.lock().items.remove(&key(fd, file)).ok_or(Errno::ENOENT)?;
                self.detach(&removed);
                Ok(())
            }
        }
    }

    fn add(&self, event: EpollEvent, fd: i32, file: &Arc<OpenFile>, nested: bool) -> SysResult<()> {
        let mut set = if nested { self.set.lock_same_rank() } else { self.set.lock() };
        if set.items.contains_key(&key(fd, file)) {
            return Err(Errno::EEXIST);
        }
        if set.items.len() >= set.sweep_at.max(32) {
            set.items.retain(|_, item| item.file.strong_count() > 0);
            set.sweep_at = set.items.len().saturating_mul(2);
        }
        let item = Arc::new_cyclic(|me| Interest {
            me: Weak::clone(me),
            fd,
            file: Arc::downgrade(file),
            list: Arc::downgrade(&self.ready),
            events: AtomicU32::new(event.events & !EPOLLWAKEUP),
            data: AtomicU64::new(event.data),
            queued: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            entry: Ranked::new(None),
        });
        set.items.insert(key(fd, file), Arc::clone(&item));
        drop(set);
        self.attach(&item, file);
        Ok(())
    }

    fn modify(&self, event: EpollEvent, fd: i32, file: &Arc<OpenFile>) -> SysResult<()> {
        let item = self.set.lock().items.get(&key(fd, file)).cloned().ok_or(Errno::ENOENT)?;
        if item.events.load(Ordering::SeqCst) & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        let old = item.events.swap(event.events & !EPOLLWAKEUP, Ordering::SeqCst);
        item.data.store(event.data, Ordering::SeqCst);
        if (old ^ event.events) & !PRIVATE_BITS != 0 {
            self.attach(&item, file);
        } else {
            self.look(&item, file);
        }
        Ok(())
    }

    /// Registers, in place of an earlier registration, and looks once: what is ready now counts as an edge. Without
    /// the set's lock: files take locks of their own.
    fn attach(&self, item: &Arc<Interest>, file: &Arc<OpenFile>) {
        let bits = item.events.load(Ordering::SeqCst);
        let target: Weak<dyn WakeTarget> = item.me.clone();
        let events = Events::from_bits_truncate(bits & !PRIVATE_BITS);
        let entry = if bits & EPOLLEXCLUSIVE != 0 {
            WaitEntry::exclusive(target, events)
        } else {
            WaitEntry::new(target, events)
        };
        let old = item.entry.lock().replace(Arc::clone(&entry));
        if let Some(old) = old {
            file.unregister(&old);
        }
        file.register(&entry);
        if item.removed.load(Ordering::SeqCst) {
            // Deleted in the meantime, perhaps before it was registered.
            file.unregister(&entry);
            return;
        }
        self.look(item, file);
    }

    fn look(&self, item: &Interest, file: &OpenFile) {
        if let Some(wanted) = item.wanted()
            && !file.ready(wanted).is_empty()
            && item.enqueue(&self.ready)
        {
            self.ready.waiters.wake(Events::READABLE);
        }
    }

    fn detach(&self, item: &Arc<Interest>) {
        item.removed.store(true, Ordering::SeqCst);
        let entry = item.entry.lock().take();
        if let (Some(entry), Some(file)) = (entry, item.file.upgrade()) {
            file.unregister(&entry);
        }
        if item.queued.load(Ordering::SeqCst) {
            self.ready.queue.lock().retain(|other| !Arc::ptr_eq(other, item));
        }
    }

    /// Whether `goal` can be reached from this instance over watched instances.
    fn reaches(&self, goal: &Epoll, depth: usize) -> SysResult<bool> {
        if std::ptr::eq(self, goal) {
            return Ok(true);
        }
        if depth >= MAX_DEPTH {
            return Err(Errno::ELOOP);
        }
        let below: Vec<Arc<OpenFile>> =
            self.set.lock_same_rank().items.values().filter_map(|item| item.file.upgrade()).collect();
        for file in below {
            if let Some(epoll) = file.downcast::<Epoll>()
                && epoll.reaches(goal, depth + 1)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Appends up to `max` ready events to `out`.
    pub fn collect(&self, max: usize, out: &mut Vec<EpollEvent>) -> usize {
        let mut budget = self.ready.queue.lock().len();
        let mut done = 0;
        while done < max && budget > 0 {
            budget -= 1;
            let Some(item) = self.ready.queue.lock().pop_front() else { break };
            // Before the file is asked: a wake from here on queues it again.
            item.queued.store(false, Ordering::SeqCst);
            if item.removed.load(Ordering::SeqCst) {
                continue;
            }
            let Some(file) = item.file.upgrade() else { continue };
            let Some(wanted) = item.wanted() else { continue };
            let found = file.ready(wanted) & wanted;
            if found.is_empty() {
                continue;
            }
            let bits = item.events.load(Ordering::SeqCst);
            if bits & EPOLLONESHOT != 0 {
                // Two collectors may hold the same item in turn; one of them wins.
                if item
                    .events
                    .compare_exchange(bits, bits & PRIVATE_BITS, Ordering::SeqCst, Ordering::SeqCst)
                    .is_err()
                {
                    item.enqueue(&self.ready);
                    continue;
                }
            } else if bits & EPOLLET == 0 {
                item.enqueue(&self.ready);
            }
            out.push(EpollEvent { events: found.bits(), data: item.data.load(Ordering::SeqCst) });
            done += 1;
        }
        // What is left belongs to another waiter.
        if !self.ready.waiters.is_empty() && !self.ready.queue.lock().is_empty() {
            self.ready.waiters.wake(Events::READABLE);
        }
        done
    }

    /// epoll_wait(2): up to `max` events; none when the deadline passed, `EINTR` when interrupted.
    /// `poll_only`: a timeout of zero.
    pub fn wait(
        &self,
        max: usize,
        poll_only: bool,
        deadline: Deadline,
        by: &Caller<'_>,
        out: &mut Vec<EpollEvent>,
    ) -> CallResult<usize> {
        let done = self.collect(max, out);
        if done > 0 || poll_only {
            return Ok(done);
        }
        let entry = WaitEntry::exclusive(by.blocker.target(), Events::READABLE);
        self.ready.waiters.register(&entry);
        let result = loop {
            let done = self.collect(max, out);
            if done > 0 {
                break Ok(done);
            }
            match by.blocker.block(deadline) {
                Ok(()) => {}
                Err(BlockError::TimedOut) => break Ok(self.collect(max, out)),
                Err(BlockError::Interrupted) => break Err(Errno::EINTR.into()),
            }
        };
        self.ready.waiters.unregister(&entry);
        // A wake that came to us while we gave up must not be lost.
        if !matches!(result, Ok(n) if n > 0) && !self.ready.queue.lock().is_empty() {
            self.ready.waiters.wake(Events::READABLE);
        }
        result
    }
}

fn check_exclusive(bits: u32, nested: bool) -> SysResult<()> {
    if bits & EPOLLEXCLUSIVE == 0 {
        return Ok(());
    }
    let fine = Events::READABLE | Events::WRITABLE | Events::ALWAYS;
    let allowed =
        (fine.bits() & !(Events::RDNORM | Events::WRNORM).bits()) | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
    if nested || bits & !allowed != 0 { Err(Errno::EINVAL) } else { Ok(()) }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        for item in std::mem::take(&mut self.set.get_mut().items).into_values() {
            self.detach(&item);
        }
    }
}

impl FileOps for Epoll {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn ready(&self, interest: Events) -> Events {
        let queued: Vec<Arc<Interest>> = self.ready.queue.lock().iter().cloned().collect();
        let any = queued.iter().any(|item| {
            let (Some(wanted), Some(file)) = (item.wanted(), item.file.upgrade()) else { return false };
            !file.ready(wanted).is_empty()
        });
        if any { interest & Events::READABLE } else { Events::empty() }
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.ready.waiters.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.ready.waiters.unregister(entry);
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(Ok(anon::shared_attr()))
    }
    fn statfs(&self) -> Option<FsStat> {
        Some(anon::shared_statfs())
    }
    fn fdinfo(&self, out: &mut Vec<u8>) {
        for item in self.set.lock().items.values() {
            let Some(file) = item.file.upgrade() else { continue };
            let ino = match file.ops().attr() {
                Some(Ok(attr)) => attr.ino,
                _ => 0,
            };
            let line = format!(
                "tfd: {:8} events: {:8x} data: {:16x}  pos:0 ino:{:x} sdev:{:x}\n",
                item.fd,
                item.events.load(Ordering::Relaxed),
                item.data.load(Ordering::Relaxed),
                ino,
                0
            );
            out.extend_from_slice(line.as_bytes());
        }
    }
    fn ignores_seeks(&self) -> bool {
        true
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(b"anon_inode:[eventpoll]".to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::eventfd::{self, EventFd, EventKind};
    use crate::event::pipe;
    use crate::testing::TestCaller;
    use std::time::{Duration, Instant};

    const IN: u32 = 1;

    fn add(ep: &Arc<OpenFile>, fd: i32, file: &Arc<OpenFile>, events: u32) -> SysResult<()> {
        let event = EpollEvent { events, data: u64::from(fd.unsigned_abs()) };
        ep.downcast::<Epoll>().unwrap().ctl(ep, EpollCtl::Add(event), fd, file)
    }
    fn poll(ep: &Arc<OpenFile>) -> Vec<EpollEvent> {
        let mut out = Vec::new();
        ep.downcast::<Epoll>().unwrap().collect(8, &mut out);
        out
    }
    fn eventfd() -> Arc<OpenFile> {
        eventfd::create(0, EventKind::Counter, OpenFlags::empty())
    }

    #[test]
    fn level_edge_and_oneshot() {
        let ep = create();
        let (level, edge, once) = (eventfd(), eventfd(), eventfd());
        add(&ep, 1, &level, IN).unwrap();
        add(&ep, 2, &edge, IN | EPOLLET).unwrap();
        add(&ep, 3, &once, IN | EPOLLONESHOT).unwrap();
        assert_eq!(add(&ep, 3, &once, IN), Err(Errno::EEXIST));
        assert!(poll(&ep).is_empty());
        for file in [&level, &edge, &once] {
            file.downcast::<EventFd>().unwrap().signal(1);
        }
        assert_eq!(poll(&ep).len(), 3);
        assert_eq!(poll(&ep), [EpollEvent { events: IN, data: 1 }]);
        edge.downcast::<EventFd>().unwrap().signal(1);
        once.downcast::<EventFd>().unwrap().signal(1);
        assert_eq!(poll(&ep).len(), 2);
        let event = EpollEvent { events: IN, data: 9 };
        ep.downcast::<Epoll>().unwrap().ctl(&ep, EpollCtl::Modify(event), 3, &once).unwrap();
        assert!(poll(&ep).contains(&event));
        ep.downcast::<Epoll>().unwrap().ctl(&ep, EpollCtl::Delete, 1, &level).unwrap();
        assert_eq!(poll(&ep), [event]);
    }

    #[test]
    fn nests_without_loops() {
        let (a, b) = (create(), create());
        let file = eventfd();
        add(&a, 1, &b, IN).unwrap();
        add(&b, 2, &file, IN).unwrap();
        assert_eq!(add(&b, 3, &a, IN), Err(Errno::ELOOP));
        assert_eq!(add(&a, 4, &a, IN), Err(Errno::EINVAL));
        assert!(poll(&a).is_empty());
        file.downcast::<EventFd>().unwrap().signal(1);
        assert_eq!(poll(&a).len(), 1);
        assert_eq!(poll(&b).len(), 1);
        let mut chain = vec![create()];
        let mut refused = false;
        for _ in 0..8 {
            let next = create();
            refused |= add(&next, 1, chain.last().unwrap(), IN).is_err();
            chain.push(next);
        }
        assert!(refused);
    }

    #[test]
    fn sleeping_waiter_and_closed_file() {
        let ep = create();
        let by = TestCaller::default();
        let (r, w) = pipe::create(OpenFlags::empty(), &by.by());
        add(&ep, 5, &r, IN).unwrap();
        let other = Arc::clone(&ep);
        let thread = std::thread::spawn(move || {
            let by = TestCaller::default();
            let mut out = Vec::new();
            other.downcast::<Epoll>().unwrap().wait(4, false, None, &by.by(), &mut out).map(|_| out)
        });
        std::thread::sleep(Duration::from_millis(5));
        drop(w);
        assert_eq!(thread.join().unwrap().unwrap(), [EpollEvent { events: 0x10, data: 5 }]);
        drop(r);
        let until = Some(Instant::now() + Duration::from_millis(3));
        let mut out = Vec::new();
        let waited = ep.downcast::<Epoll>().unwrap().wait(4, false, until, &by.by(), &mut out);
        assert_eq!(waited, Ok(0));
    }
}
