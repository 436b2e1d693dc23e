//! One stub process: an address space and its helper thread.
//!
//! [`Stub`] is the process itself; [`Space`] is the use of one for a guest address space. When that ends, a
//! wiped stub with a parked thread goes back to the pool: fork and execve then need no host clone at all.
//! Locks: `PatchedText`, then `StubHelper`.

use super::helper::{
    BATCH, CLONE_THREAD, Call, FILES_FD, FIRST_FD, Helper, MEMORY_FD, Mode, SHARED_FD, SOCKET_FD,
};
use super::interrupt::Watch;
use super::site::{Family, Landing, Place, Poke, Sites};
use super::slots::{Area, Control};
use super::spin::Lookers;
use super::sys;
use super::template::Process;
use super::thread::Thread;
use super::{Inner, user_range};
use crate::memory::MemoryFile;
use crate::registers::ThreadState;
use crate::seam::{AddressSpace, AsOp, Backing, Context, OpBatch, Prot, TextSource};
use crate::stub::filter::{FILTER_FLAGS, THREAD_PROGRAM};
use crate::stub::layout::{
    AREA_SIZE, AREA_STACK, CONTROL, ENTRIES, ENTRIES_SIZE, LOW, LOW_END, SCRATCH, STACK, SWITCH, TABLE_SIZE,
    TARGETS, USER_END, USER_START,
};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult};
use lock::{Ranked, order};
use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const MAP_FIXED: u64 = 0x10;
const MADV_DONTNEED: u64 = 4;
const MADV_POPULATE_READ: u64 = 22;
const MAP_NORESERVE: u64 = 0x4000;

/// Most entries of a list that one operation takes: mapping, prefaulting; or receiving, mapping, closing.
const ENTRIES_OF_AN_OP: usize = 3;

/// Parked threads that a stub keeps for re-use.
const IDLE_THREADS: usize = 3;
/// A stub with more areas is not worth keeping.
const POOLED_AREAS: usize = 8;
/// Wiped stubs that are kept.
pub(super) const POOL: usize = 4;

/// A stub thread parked in the handler's switch, for whoever needs a thread next.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) area: Arc<Area>,
    pub(super) listener: OwnedFd,
    pub(super) notification: u64,
    pub(super) thread: i32,
}

/// Areas mapped in this stub. They stay mapped (and ours) until the stub is gone.
#[derive(Debug, Default)]
struct Areas {
    all: Vec<Arc<Area>>,
    free: Vec<Arc<Area>>,
    idle: Vec<Idle>,
    /// Threads that were started and are not known to have ended.
    living: usize,
}

/// A stub process.
#[derive(Debug)]
pub(super) struct Stub {
    // First, so that the process is gone before its areas are handed on.
    process: Process,
    helper: Ranked<order::StubHelper, Helper>,
    areas: Ranked<order::Leaf, Areas>,
    /// Whose call sites' code is mapped. It survives a wipe: the next guest is often of the same family.
    family: Ranked<order::Leaf, Option<Arc<Family>>>,
}

impl Stub {
    /// Clones the process of `from`: the template, or another stub whose mappings come along.
    fn clone_from(inner: &Inner, from: &Helper, family: Option<Arc<Family>>) -> SysResult<Stub> {
        let control = Control::take(&inner.slots)?;
        let (process, helper) = from.clone_process(control, Process::new)?;
        let areas = Ranked::new(Areas::default());
        Ok(Stub { process, helper: Ranked::new(helper), areas, family: Ranked::new(family) })
    }

    /// The calls that put the code of `family` in the place of what is there.
    fn adopt(&self, family: Option<&Arc<Family>>) -> Vec<Call> {
        let mut mapped = self.family.lock();
        if mapped.as_ref().map(Arc::as_ptr) == family.map(Arc::as_ptr) {
            return Vec::new();
        }
        // What the last one to hold a family gives back is taken without the lock.
        let before = std::mem::replace(&mut *mapped, family.cloned());
        drop(mapped);
        drop(before);
        match family {
            Some(family) => map_family(family).to_vec(),
            None => [(TARGETS, TABLE_SIZE), (ENTRIES, ENTRIES_SIZE)]
                .map(|(at, len)| Call::new(libc::SYS_munmap, [at, len, 0, 0, 0, 0]))
                .to_vec(),
        }
    }

    /// Removes all of the guest's mappings and what it may have left behind.
    fn wipe(&self) -> SysResult<()> {
        let unmap = |from: u64, to: u64| Call::new(libc::SYS_munmap, [from, to - from, 0, 0, 0, 0]);
        let scratch = Call::new(libc::SYS_madvise, [SCRATCH, PAGE_SIZE, MADV_DONTNEED, 0, 0, 0]);
        // Between these two are only the stub's own pages, and its family's code.
        let calls = [unmap(USER_START, LOW), unmap(LOW_END, USER_END), scratch];
        self.helper.lock().map(&calls, &[])
    }

    /// Whether a wiped stub can serve another guest; forgets what its threads' areas hold.
    fn recycle(&self) -> bool {
        let areas = self.areas.lock();
        // A thread that is neither parked nor gone might still run what the last guest told it to.
        if areas.idle.is_empty() || areas.idle.len() != areas.living || areas.all.len() > POOLED_AREAS {
            return false;
        }
        for area in &areas.all {
            area.wipe();
        }
        true
    }
}

/// One address space. See the module.
pub(super) struct Space {
    /// `None` only while dropping.
    stub: Option<Stub>,
    wiped: AtomicBool,
    sites: Ranked<order::PatchedText, Sites>,
    /// Some page is patched: look into `sites`.
    patched: AtomicBool,
    text: OnceLock<Weak<dyn TextSource>>,
    inner: Arc<Inner>,
    /// Calls that the next list begins with, or the first thread.
    prelude: Ranked<order::Leaf, Vec<Call>>,
}

impl Space {
    /// An empty address space, from the pool or the template.
    pub(super) fn new(inner: &Arc<Inner>) -> SysResult<Arc<Space>> {
        let pooled = inner.pool.lock().pop();
        let stub = match pooled {
            Some(stub) => stub,
            None => Stub::clone_from(inner, &inner.template.lock().helper, None)?,
        };
        let sites = HEIR.take().unwrap_or_default();
        let prelude = stub.adopt(sites.family.as_ref());
        let space = Space::of(inner, stub, sites);
        *space.prelude.lock() = prelude;
        Ok(space)
    }

    fn of(inner: &Arc<Inner>, stub: Stub, sites: Sites) -> Arc<Space> {
        let space = Arc::new(Space {
            stub: Some(stub),
            wiped: AtomicBool::new(false),
            patched: AtomicBool::new(!sites.is_empty()),
            sites: Ranked::new(sites),
            text: OnceLock::new(),
            inner: Arc::clone(inner),
            prelude: Ranked::default(),
        });
        inner.spaces.lock().insert(space.pid(), Arc::downgrade(&space));
        space
    }

    fn stub(&self) -> SysResult<&Stub> {
        self.stub.as_ref().ok_or(crate::DEAD)
    }

    /// Host pid of the stub.
    pub(super) fn pid(&self) -> i32 {
        self.stub.as_ref().map_or(0, |stub| stub.process.pid())
    }

    /// Ends the stub: it misbehaved.
    pub(super) fn kill(&self) {
        if let Some(stub) = &self.stub {
            stub.process.kill();
        }
    }

    /// Another living stub of the same platform.
    pub(super) fn sibling(&self, pid: i32) -> Option<Arc<Space>> {
        self.inner.spaces.lock().get(&pid).and_then(Weak::upgrade)
    }

    /// Who looks for calls.
    pub(super) fn lookers(&self) -> &Lookers {
        &self.inner.lookers
    }

    /// Who watches over unanswered interrupts.
    pub(super) fn watch(&self) -> &Arc<Watch> {
        &self.inner.watch
    }

    fn sites<T>(&self, none: T, ask: impl FnOnce(&Sites, &MemoryFile) -> T) -> T {
        if !self.patched.load(Ordering::Acquire) {
            return none;
        }
        ask(&self.sites.lock(), &self.inner.memory)
    }

    /// See [`Sites::actual`].
    pub(super) fn actual(&self, rip: u64) -> u64 {
        self.sites(rip, |sites, memory| sites.actual(memory, rip))
    }

    /// See [`Sites::landing`].
    pub(super) fn landing(&self, rip: u64) -> Option<Landing> {
        self.sites(None, |sites, memory| sites.landing(memory, rip))
    }

    /// See [`Sites::place`].
    pub(super) fn place(&self, rip: u64, r11: u64, record: u64) -> Option<Place> {
        self.sites(None, |sites, _| sites.place(rip, r11, record))
    }

    /// The address behind the call of a site's record; zero for a forged one.
    pub(super) fn behind(&self, record: u64) -> u64 {
        self.sites(None, |sites, _| sites.family.as_ref()?.behind(record)).unwrap_or(0)
    }

    /// Patches the site whose call returns to `ip`. Called without locks.
    pub(super) fn patch(&self, ip: u64, number: u32) -> SysResult<()> {
        let source = self.text.get().and_then(Weak::upgrade).ok_or(Errno::ENOENT)?;
        let page = ip.checked_sub(2).ok_or(Errno::EFAULT)? & !(PAGE_SIZE - 1);
        let offset = source.private_text(page)?;
        let stub = self.stub()?;
        let mut sites = self.sites.lock();
        let family = match &sites.family {
            Some(family) => Arc::clone(family),
            None => {
                let family = Arc::new(Family::new(&self.inner.slots)?);
                let mut calls = stub.adopt(Some(&family));
                // MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE
                calls.push(Call {
                    mode: Mode::Ignore,
                    ..Call::new(libc::SYS_membarrier, [1 << 6, 0, 0, 0, 0, 0])
                });
                stub.helper.lock().map(&calls, &[])?;
                sites.family = Some(Arc::clone(&family));
                family
            }
        };
        self.patched.store(true, Ordering::Release);
        sites.patch(&family, &self.inner.memory, (ip, number, offset), &Poker(self, stub))
    }

    /// A parked thread, if there is one.
    pub(super) fn take_idle(&self) -> Option<Idle> {
        self.stub.as_ref()?.areas.lock().idle.pop()
    }

    /// Keeps a parked thread for later; gives it back when there are enough.
    pub(super) fn keep_idle(&self, idle: Idle) -> Result<(), Idle> {
        let Some(stub) = &self.stub else { return Err(idle) };
        let mut areas = stub.areas.lock();
        if areas.idle.len() >= IDLE_THREADS {
            return Err(idle);
        }
        areas.idle.push(idle);
        Ok(())
    }

    /// An area that the stub has mapped, for a new thread.
    fn take_area(&self, stub: &Stub, calls: &mut Vec<Call>) -> SysResult<Arc<Area>> {
        if let Some(area) = stub.areas.lock().free.pop() {
            return Ok(area);
        }
        let area = Arc::new(Area::take(&self.inner.slots)?);
        let (at, offset) = (area.address(), area.offset());
        calls.push(Call::new(libc::SYS_mmap, [at, AREA_SIZE, 3, MAP_SHARED | MAP_FIXED, SHARED_FD, offset]));
        stub.areas.lock().all.push(Arc::clone(&area));
        Ok(area)
    }

    /// Gives back the area of a thread that has ended.
    pub(super) fn return_area(&self, area: &Arc<Area>) {
        if let Some(stub) = &self.stub {
            let mut areas = stub.areas.lock();
            areas.free.push(Arc::clone(area));
            areas.living = areas.living.saturating_sub(1);
        }
    }

    /// Clones a guest thread, which waits in its first switch, and fetches its listener.
    pub(super) fn start_thread(&self) -> SysResult<Idle> {
        let mut calls = Vec::new();
        let stub = self.stub()?;
        let area = self.take_area(stub, &mut calls)?;
        let helper = stub.helper.lock();
        let stack = area.address() + AREA_STACK;
        helper.control().store_words(STACK, &[stack, 0, AREA_SIZE - AREA_STACK]);
        helper.child(&[
            Call::new(libc::SYS_sigaltstack, [CONTROL + STACK, 0, 0, 0, 0, 0]),
            Call::new(libc::SYS_seccomp, [1, FILTER_FLAGS, THREAD_PROGRAM, 0, 0, 0]),
            Call { mode: Mode::Enter, ..Call::new(0, [area.address(), 0, 0, 0, 0, 0]) },
        ]);
        stub.areas.lock().living += 1;
        let message = helper.message_with(FIRST_FD, None);
        calls.extend([
            Call { mode: Mode::Clone, ..Call::new(libc::SYS_clone, [CLONE_THREAD, stack, 0, 0, 0, 0]) },
            Call { mode: Mode::Retry, ..Call::new(libc::SYS_sendmsg, [SOCKET_FD, message, 0x4000, 0, 0, 0]) },
            Call::close(FIRST_FD),
        ]);
        let report = helper.run_reporting(&calls);
        if report.is_err() {
            helper.close_strays();
        }
        let listener = report?.fds.pop().ok_or(Errno::EAGAIN)?;
        sys::wake_synchronously(listener.as_fd(), true);
        // Until its first switch the thread reads the control page: the helper is ours until then.
        let first = sys::next(listener.as_fd())?;
        drop(helper);
        if first.number != SWITCH || first.ip != crate::stub::switched() {
            stub.process.kill();
            return Err(crate::DEAD);
        }
        Ok(Idle { area, listener, notification: first.id, thread: first.pid.cast_signed() })
    }

    /// Makes the calls that were left for the first list.
    pub(super) fn settle(&self) -> SysResult<()> {
        let mut helper = self.stub()?.helper.lock();
        let calls = std::mem::take(&mut *self.prelude.lock());
        if calls.is_empty() { Ok(()) } else { helper.map(&calls, &[]) }
    }

    fn run(&self, ops: &[AsOp]) -> SysResult<()> {
        for op in ops {
            check(op)?;
        }
        let stub = self.stub()?;
        let mut helper = stub.helper.lock();
        let mut calls = if ops.is_empty() { Vec::new() } else { std::mem::take(&mut *self.prelude.lock()) };
        let mut fds = Vec::new();
        for op in ops {
            // A donated file costs an entry to close it, and one to receive them all.
            let room = BATCH - calls.len() - fds.len() - usize::from(!fds.is_empty());
            if room < ENTRIES_OF_AN_OP {
                Space::make(stub, &mut helper, &mut calls, &mut fds)?;
            }
            calls.push(translate(op, &mut fds));
            calls.extend(populate(op));
        }
        if calls.is_empty() { Ok(()) } else { Space::make(stub, &mut helper, &mut calls, &mut fds) }
    }

    /// Has the mapper make `calls`, which use `fds` from [`FIRST_FD`] on, and forgets both.
    fn make(stub: &Stub, helper: &mut Helper, calls: &mut Vec<Call>, fds: &mut Vec<i32>) -> SysResult<()> {
        if !fds.is_empty() {
            let message = helper.message_for_files();
            let receive = Call::new(libc::SYS_recvmsg, [FILES_FD, message, 0, 0, 0, 0]);
            calls.insert(0, Call { mode: Mode::Ignore, ..receive });
            calls.extend((0..fds.len() as u64).map(|i| Call::close(FIRST_FD + i)));
        }
        let result = helper.map(calls, fds);
        if result == Err(crate::DEAD) || (!fds.is_empty() && result.is_err()) {
            // The descriptor table is not what we think it is any more.
            stub.process.kill();
        }
        calls.clear();
        fds.clear();
        result
    }
}

thread_local! {
    /// What the next address space of this thread inherits, because it is to become a fork.
    static HEIR: Cell<Option<Sites>> = const { Cell::new(None) };
}

/// Maps a family's code.
fn map_family(family: &Family) -> [Call; 2] {
    let map = |at: u64, len: u64, offset: u64| {
        Call::new(libc::SYS_mmap, [at, len, 5, MAP_SHARED | MAP_FIXED, SHARED_FD, offset])
    };
    [map(TARGETS, TABLE_SIZE, family.offset()), map(ENTRIES, ENTRIES_SIZE, family.offset() + TABLE_SIZE)]
}

/// Writes into a stub's text.
struct Poker<'a>(&'a Space, &'a Stub);

impl Poke for Poker<'_> {
    fn write(&self, offset: u64, bytes: &[u8]) -> SysResult<()> {
        self.0.inner.memory.write(offset, bytes)
    }
    fn synchronise(&self) {
        // MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE; a fork has to register for itself first.
        let call = |command| Call {
            mode: Mode::Ignore,
            ..Call::new(libc::SYS_membarrier, [command, 0, 0, 0, 0, 0])
        };
        let _ = self.1.helper.lock().map(&[call(1 << 6), call(1 << 5)], &[]);
    }
}

impl Space {
    /// Keeps the record of patched pages in step with the mappings.
    fn follow(&self, ops: &[AsOp]) {
        let mut sites = self.sites.lock();
        for op in ops {
            match op {
                AsOp::Map { range, backing: Backing::Memory { offset }, .. } => {
                    sites.remapped(range.start(), range.end(), Some(*offset));
                }
                AsOp::Map { range, .. } | AsOp::Unmap { range } => {
                    sites.remapped(range.start(), range.end(), None);
                }
                AsOp::Protect { .. } => {}
            }
        }
    }
}

impl std::fmt::Debug for Space {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Space").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.inner.spaces.lock().remove(&self.pid());
        let Some(stub) = self.stub.take() else { return };
        // What was left for a first list that never came says that the stub's pages are not as recorded.
        if !*self.wiped.get_mut() || !self.prelude.get_mut().is_empty() || !stub.recycle() {
            return;
        }
        let mut pool = self.inner.pool.lock();
        if pool.len() < POOL {
            pool.push(stub);
            return;
        }
        drop(pool);
        drop(stub);
    }
}

fn check(op: &AsOp) -> SysResult<()> {
    let (AsOp::Map { range, .. } | AsOp::Unmap { range } | AsOp::Protect { range, .. }) = op;
    let low = AddrRange::new(LOW, LOW_END).unwrap_or_default();
    let aligned = range.start() % PAGE_SIZE == 0 && range.end() % PAGE_SIZE == 0;
    let fits = user_range().covers(*range) && !range.overlaps(low) && !range.is_empty();
    if aligned && fits { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Prefaults what `op` maps. By reads: they map sixteen resident pages at a time, and in a shared mapping these
/// are writable at once, while MAP_POPULATE takes a fault for each page.
fn populate(op: &AsOp) -> Option<Call> {
    match op {
        AsOp::Map { range, backing: Backing::Memory { .. }, populate: true, prot, .. }
            if !prot.is_empty() =>
        {
            let args = [range.start(), range.len(), MADV_POPULATE_READ, 0, 0, 0];
            Some(Call { mode: Mode::Ignore, ..Call::new(libc::SYS_madvise, args) })
        }
        _ => None,
    }
}

/// The host call that carries out `op`; a host file joins `fds`, once.
fn translate(op: &AsOp, fds: &mut Vec<i32>) -> Call {
    match op {
        AsOp::Map { range, prot, backing, shared, .. } => {
            let mut flags = MAP_FIXED | MAP_NORESERVE;
            let mut prot = *prot;
            let (fd, offset) = match backing {
                Backing::Memory { offset } => {
                    flags |= MAP_SHARED;
                    (MEMORY_FD, *offset)
                }
                Backing::Host { fd, offset } => {
                    if *shared {
                        flags |= MAP_SHARED;
                    } else {
                        flags |= MAP_PRIVATE;
                        // Every page a guest can write lives in the memory file or a shared mapping.
                        prot.remove(Prot::WRITE);
                    }
                    // Segments of one file share a descriptor.
                    let raw = fd.as_raw_fd();
                    let known = fds.iter().position(|known| *known == raw);
                    let index = known.unwrap_or_else(|| {
                        fds.push(raw);
                        fds.len() - 1
                    });
                    (FIRST_FD + index as u64, *offset)
                }
            };
            let prot = u64::from(prot.bits());
            Call::new(libc::SYS_mmap, [range.start(), range.len(), prot, flags, fd, offset])
        }
        AsOp::Unmap { range } => Call::new(libc::SYS_munmap, [range.start(), range.len(), 0, 0, 0, 0]),
        AsOp::Protect { range, prot } => {
            let prot = u64::from(prot.bits());
            let call = Call::new(libc::SYS_mprotect, [range.start(), range.len(), prot, 0, 0, 0]);
            Call { mode: Mode::OrUnmap, ..call }
        }
    }
}

impl AddressSpace for Space {
    fn apply(&self, mut batch: OpBatch) -> SysResult<()> {
        let result = self.run(&batch.ops);
        if self.patched.load(Ordering::Acquire) {
            self.follow(&batch.ops);
        }
        batch.complete();
        result
    }

    fn attach_text(&self, source: Weak<dyn TextSource>) {
        // The first source stays: a stub serves one memory manager.
        let _ = self.text.set(source);
    }

    fn original_text(&self, addr: u64, buf: &mut [u8]) {
        self.sites((), |sites, memory| sites.original(memory, addr, buf));
    }

    fn retire(&self, _range: AddrRange, then: Box<dyn FnOnce() + Send>) {
        if let Some(stub) = &self.stub {
            if stub.wipe().is_ok() {
                self.wiped.store(true, Ordering::SeqCst);
            } else {
                stub.process.end();
            }
        }
        then();
    }

    fn new_context(self: Arc<Self>, state: &ThreadState) -> SysResult<Box<dyn Context>> {
        let mut thread = Thread::start(self)?;
        thread.load(state);
        Ok(Box::new(thread))
    }

    fn fork(&self) -> SysResult<Option<Arc<dyn AddressSpace>>> {
        if !self.inner.pool.lock().is_empty() {
            // Replaying the mappings into a wiped stub is cheaper than a clone of the process. The kernel asks
            // for one at once, on this thread.
            HEIR.set(Some(self.sites.lock().inherit(false)));
            return Ok(None);
        }
        let sites = self.sites.lock();
        let heir = sites.inherit(true);
        let helper = self.stub()?.helper.lock();
        let stub = Stub::clone_from(&self.inner, &helper, heir.family.clone())?;
        Ok(Some(Space::of(&self.inner, stub, heir)))
    }

    fn host_pid(&self) -> Option<i32> {
        Some(self.pid())
    }
}
