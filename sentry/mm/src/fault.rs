//! Page faults: of guests, and of the kernel's own copies.
//!
//! A fault may be stale: another thread was faster, or an operation was postponed. Then the page is mapped
//! again, which changes nothing where it is mapped already.

use crate::frames::FrameRange;
use crate::layout::STACK_GUARD;
use crate::manager::{Change, MemoryManager};
use crate::mappable::{MapUse, Mappable, Translation};
use crate::segs::{Home, Pages, Seg};
use crate::vma::{Vma, VmaFlags};
use abi::signal::Signal;
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult};
use platform::{Access, AsOp, Prot};
use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The signal that a fault becomes (sigaction(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultSignal {
    /// SIGSEGV, SIGBUS, or SIGKILL when no memory is left.
    pub signal: Signal,
    /// `si_code`.
    pub code: i32,
    /// `si_addr`.
    pub addr: u64,
}

const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRERR: i32 = 2;

/// Why a page cannot be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bad {
    Unmapped,
    Access,
    Bus,
    Memory,
}

impl From<Bad> for Errno {
    fn from(bad: Bad) -> Errno {
        match bad {
            Bad::Memory => Errno::ENOMEM,
            _ => Errno::EFAULT,
        }
    }
}

/// Pages copied at once when a write hits a shared or file page.
const COPY_BYTES: u64 = 4 * PAGE_SIZE;
/// How much is mapped again around a page that should be mapped.
const STALE_BYTES: u64 = 256 * PAGE_SIZE;
/// A stack grows by at least this much.
const STACK_STEP: u64 = 16 * PAGE_SIZE;
/// Rounds of asking an object before a fault is left to repeat.
const ROUNDS: u32 = 16;
/// A page that a thread keeps faulting on although it is mapped: the access is not what was reported.
const STALE_ROUNDS: u32 = 4;

/// A question that is answered without locks.
pub(crate) enum Ask {
    Translate { object: Arc<dyn Mappable>, offset: u64, len: u64, usage: MapUse },
    Copy { fd: Arc<OwnedFd>, offset: u64, len: u64 },
}

struct Answer {
    generation: u64,
    epoch: u64,
    /// Where the asked offset is mapped.
    start: u64,
    found: Found,
}

enum Found {
    Place(Translation, MapUse),
    Frames(FrameRange),
    Nothing,
}

pub(crate) enum Step {
    Done,
    Ask(u64, Ask),
    Again,
}

thread_local! {
    static STALE: Cell<Stale> = const { Cell::new(Stale { mm: 0, generation: 0, page: 0, count: 0 }) };
}

/// How often in a row the thread faulted on a mapped page, while nothing was mapped or unmapped.
#[derive(Clone, Copy)]
struct Stale {
    mm: u64,
    generation: u64,
    page: u64,
    count: u32,
}

impl Stale {
    /// Forgets what was counted before the last change of the mappings: the page may be another one.
    fn begin(mm: u64, generation: u64) {
        STALE.with(|stale| {
            let old = stale.get();
            if (old.mm, old.generation) != (mm, generation) {
                stale.set(Stale { mm, generation, page: 0, count: 0 });
            }
        });
    }
    /// Counts a fault on `page`.
    fn count(page: u64) -> u32 {
        STALE.with(|stale| {
            let old = stale.get();
            let count = if old.page == page { old.count + 1 } else { 0 };
            stale.set(Stale { page, count, ..old });
            count
        })
    }
}

impl MemoryManager {
    /// Resolves a fault of a guest, or says which signal it becomes.
    pub fn handle_fault(&self, addr: u64, access: Access) -> Result<(), FaultSignal> {
        self.resolve(addr, access, By::Guest).map_err(|bad| {
            let (signal, code) = match bad {
                Bad::Unmapped => (Signal::SIGSEGV, SEGV_MAPERR),
                Bad::Access => (Signal::SIGSEGV, SEGV_ACCERR),
                Bad::Bus => (Signal::SIGBUS, BUS_ADRERR),
                Bad::Memory => (Signal::SIGKILL, 0),
            };
            FaultSignal { signal, code, addr }
        })
    }

    /// Makes the page of `addr` ready for a copy by the kernel.
    pub(crate) fn fault_in(&self, addr: u64, access: Access) -> Result<(), Bad> {
        self.resolve(addr, access, By::Kernel)
    }

    pub(crate) fn resolve(&self, addr: u64, access: Access, by: By) -> Result<(), Bad> {
        let page = addr - addr % PAGE_SIZE;
        let mut answer: Option<Answer> = None;
        for _ in 0..ROUNDS {
            let layout = self.layout.read();
            let Some(vma) = layout.find(page) else {
                drop(layout);
                self.drop_answer(answer.take());
                self.grow_stack(page)?;
                continue;
            };
            check_access(vma, access)?;
            Stale::begin(self.id(), layout.generation);
            let mut pages = self.pages.write();
            let valid = answer.take().filter(|a| {
                let good = a.generation == layout.generation && a.epoch == self.epoch.load(Ordering::SeqCst);
                if !good && let Found::Frames(frames) = a.found {
                    self.frames.release(frames);
                }
                good
            });
            let step = match valid {
                Some(valid) => self.use_answer(&mut pages, vma, page, valid)?,
                None => self.step(&mut pages, vma, page, access, by)?,
            };
            let (generation, epoch) = (layout.generation, self.epoch.load(Ordering::SeqCst));
            drop(pages);
            drop(layout);
            match step {
                Step::Done => return Ok(()),
                Step::Again => {}
                Step::Ask(start, ask) => {
                    let found = match ask {
                        Ask::Translate { object, offset, len, usage } => {
                            match object.translate(offset, len, usage) {
                                Ok(place) => Found::Place(place, usage),
                                Err(_) => Found::Nothing,
                            }
                        }
                        Ask::Copy { fd, offset, len } => match self.copy_host(&fd, offset, len) {
                            Ok(frames) => Found::Frames(frames),
                            Err(_) => Found::Nothing,
                        },
                    };
                    answer = Some(Answer { generation, epoch, start, found });
                }
            }
        }
        self.drop_answer(answer);
        match by {
            // The guest touches it again.
            By::Guest => Ok(()),
            By::Kernel => Err(Bad::Bus),
        }
    }

    fn drop_answer(&self, answer: Option<Answer>) {
        if let Some(Answer { found: Found::Frames(frames), .. }) = answer {
            self.frames.release(frames);
        }
    }

    /// One look at the page, with both locks held.
    fn step(&self, pages: &mut Pages, vma: &Vma, page: u64, access: Access, by: By) -> Result<Step, Bad> {
        if vma.flags.contains(VmaFlags::PLATFORM) {
            return Err(Bad::Access);
        }
        // Segments of areas that differ in protection are one while the stub may do the same with both.
        let Some(seg) = pages.find(page).map(|seg| seg.part(vma.range)) else {
            return self.first_touch(pages, vma, page);
        };
        // Backends that cannot tell report a read where the page may be read already: likely a write.
        let unclear = by == By::Guest && access == Access::Read && !seg.prot.is_empty();
        let write = access == Access::Write || (unclear && vma.prot.contains(Prot::WRITE));
        if !write || seg.prot.contains(Prot::WRITE) {
            return self.stale(&seg, page, unclear, by);
        }
        if vma.is_shared() {
            let file = vma.file.as_ref().ok_or(Bad::Access)?;
            let ask = Ask::Translate {
                object: Arc::clone(file.mapped.object()),
                offset: vma.offset_of(page),
                len: seg.range.end() - page,
                usage: MapUse::SharedWrite,
            };
            return Ok(Step::Ask(page, ask));
        }
        let block = block_around(page, seg.range);
        match &seg.home {
            Home::Frames(_) => self.break_sharing(pages, &seg, page, vma.prot),
            Home::Object(_) => {
                let from = seg.part(block);
                self.copy_frames(pages, from, vma.prot)
            }
            Home::Host(..) => Ok(ask_copy(&seg, block)),
        }
    }

    fn first_touch(&self, pages: &mut Pages, vma: &Vma, page: u64) -> Result<Step, Bad> {
        if let Some(file) = &vma.file {
            let hole = pages.hole_around(page, vma.range);
            let write = vma.is_shared() && vma.prot.contains(Prot::WRITE);
            let ask = Ask::Translate {
                object: Arc::clone(file.mapped.object()),
                offset: vma.offset_of(page),
                len: hole.end().saturating_sub(page),
                usage: if write { MapUse::SharedWrite } else { MapUse::Read },
            };
            return Ok(Step::Ask(page, ask));
        }
        let block = self.block_for(pages, vma, page);
        let one = AddrRange::new(page, page + PAGE_SIZE).unwrap_or(block);
        let mut change = Change::default();
        if self.back_anonymous(pages, vma, block, &mut change).is_err() {
            // Little is left: make do with the page itself.
            change = Change::default();
            self.back_anonymous(pages, vma, one, &mut change).map_err(|_| Bad::Memory)?;
        }
        if let Some(seg) = pages.find(page)
            && block.len() >= platform::memory::HUGE_PAGE
            && let Some(frame) = seg.home_at(block.start()).frame()
        {
            self.fill_block(vma, block, frame);
        }
        self.submit(change);
        Ok(Step::Done)
    }

    /// A page that is mapped as it should be.
    fn stale(&self, seg: &Seg, page: u64, unclear: bool, by: By) -> Result<Step, Bad> {
        if by == By::Kernel {
            return Ok(Step::Done);
        }
        if let Home::Host(fd, offset) = seg.home_at(page) {
            // Behind the end of the file, as it is now, the host gives SIGBUS.
            let size = rustix::fs::fstat(&*fd).map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
            if offset >= size {
                return Err(Bad::Bus);
            }
        }
        if unclear && Stale::count(page) >= STALE_ROUNDS {
            Stale::count(0);
            return Err(Bad::Access);
        }
        // Whatever took the page away took its neighbours as well.
        let start = page - page % STALE_BYTES;
        let around = AddrRange::new(start, start.saturating_add(STALE_BYTES)).unwrap_or(seg.range);
        let ops = smallvec::smallvec![seg.part(around).map_op(false)];
        self.submit_now(Change { ops, freed: Vec::new() }).map_err(|_| Bad::Memory)?;
        Ok(Step::Done)
    }

    /// A private page of which this space holds frames is to be written: take them over if nobody else has
    /// them, else copy.
    fn break_sharing(&self, pages: &mut Pages, seg: &Seg, page: u64, prot: Prot) -> Result<Step, Bad> {
        let run = |from: u64, to: u64| {
            let offset = seg.home_at(from).frame().unwrap_or_default();
            self.frames.exclusive_run(FrameRange { offset, len: to.saturating_sub(from) })
        };
        // From the start of the segment, or else from the page.
        let (start, end) = (seg.range.start(), seg.range.end());
        let mut taken = None;
        for from in [start, page] {
            let (exclusive, bytes) = run(from, end);
            if exclusive && from + bytes > page {
                taken = AddrRange::new(from, from + bytes);
                break;
            }
        }
        if let Some(range) = taken {
            pages.protect(range, |_| prot);
            let ops = smallvec::smallvec![AsOp::Protect { range, prot }];
            self.submit_replacing(Change { ops, freed: Vec::new() }).map_err(|_| Bad::Memory)?;
            return Ok(Step::Done);
        }
        let block = block_around(page, seg.range);
        let mut from = block.start();
        let (exclusive, bytes) = run(from, block.end());
        let mut to = from + bytes;
        if exclusive || to <= page {
            from = page;
            to = page + run(page, block.end()).1;
        }
        let range = AddrRange::new(from, to.max(page + PAGE_SIZE)).unwrap_or(block);
        let fresh = |left: u32| left.checked_sub(1);
        if self.fresh_copies.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fresh).is_ok() {
            self.habits.note(page);
        }
        self.copy_frames(pages, seg.part(range), prot)
    }

    /// Replaces the segment part `from`, which is in the memory file, by a private copy.
    pub(crate) fn copy_frames(&self, pages: &mut Pages, from: Seg, prot: Prot) -> Result<Step, Bad> {
        let source = from.home.frame().ok_or(Bad::Bus)?;
        let copy = self.frames.alloc(from.range.len()).map_err(|_| Bad::Memory)?;
        if self.frames.memory().copy(source, copy.offset, copy.len).is_err() {
            self.frames.release(copy);
            return Err(Bad::Memory);
        }
        self.replace(pages, from.range, copy, prot)
    }

    /// Puts private frames in the place of what is mapped in `range`.
    fn replace(
        &self,
        pages: &mut Pages,
        range: AddrRange,
        frames: FrameRange,
        prot: Prot,
    ) -> Result<Step, Bad> {
        let old = pages.cut(range);
        let mut change = Change::default();
        change.free(&self.frames, &old);
        let seg = Seg { range, home: Home::Frames(frames.offset), prot, writable_home: false };
        change.ops.push(seg.map_op(true));
        pages.insert(seg);
        self.submit_replacing(change).map_err(|_| Bad::Memory)?;
        Ok(Step::Done)
    }

    /// Maps what an object answered.
    fn use_answer(&self, pages: &mut Pages, vma: &Vma, page: u64, answer: Answer) -> Result<Step, Bad> {
        let start = answer.start;
        let (home, len, usage) = match answer.found {
            Found::Nothing => return Err(Bad::Bus),
            Found::Frames(frames) => {
                let range = AddrRange::new(start, start + frames.len).unwrap_or_default();
                // Somebody else may have copied a part meanwhile: theirs counts.
                let private = pages.overlapping(range).any(|seg| matches!(seg.home, Home::Frames(_)));
                if private || !range.contains(page) || vma.is_shared() {
                    self.frames.release(frames);
                    return if range.contains(page) { Ok(Step::Again) } else { Err(Bad::Bus) };
                }
                return self.replace(pages, range, frames, vma.prot);
            }
            Found::Place(Translation::Memory { offset, len }, usage) => (Home::Object(offset), len, usage),
            Found::Place(Translation::Host { fd, offset, len }, usage) => {
                (Home::Host(fd, offset), len, usage)
            }
            Found::Place(Translation::Hole { .. }, MapUse::Read) if vma.is_shared() => {
                let object = vma.file.as_ref().ok_or(Bad::Bus)?.mapped.object();
                let ask = Ask::Translate {
                    object: Arc::clone(object),
                    offset: vma.offset_of(start),
                    len: PAGE_SIZE,
                    usage: MapUse::SharedWrite,
                };
                return Ok(Step::Ask(start, ask));
            }
            Found::Place(Translation::Hole { .. }, _) => {
                if pages.find(page).is_some() {
                    return Ok(Step::Again);
                }
                let frames = self.frames.alloc(PAGE_SIZE).map_err(|_| Bad::Memory)?;
                let range = AddrRange::new(page, page + PAGE_SIZE).unwrap_or_default();
                return self.replace(pages, range, frames, vma.prot);
            }
        };
        let end = start.saturating_add(len).min(vma.range.end());
        let writable_home = usage == MapUse::SharedWrite && vma.prot.contains(Prot::WRITE) && vma.is_shared();
        let prot = if writable_home { vma.prot } else { vma.prot - Prot::WRITE };
        // What is there already stays, unless it lacks the permission that was asked for.
        let mut range = AddrRange::new(start, end).unwrap_or_default();
        let mut change = Change::default();
        if writable_home {
            let old = pages.cut(range);
            change.free(&self.frames, &old);
        } else if let Some(seg) = pages.overlapping(range).next() {
            range = AddrRange::new(start, seg.range.start()).unwrap_or_default();
        }
        if range.is_empty() {
            return Ok(Step::Again);
        }
        let seg = Seg { range, home, prot, writable_home };
        change.ops.push(seg.map_op(false));
        pages.insert(seg);
        self.submit(change);
        // A private write goes on to copy.
        Ok(Step::Again)
    }

    /// The stack above `page` grows down to it, or the fault is a bad one.
    fn grow_stack(&self, page: u64) -> Result<(), Bad> {
        let limits = self.limits();
        let mut layout = self.layout.write();
        let Some(vma) = layout.at_or_after(page).cloned() else { return Err(Bad::Unmapped) };
        if vma.range.contains(page) {
            return Ok(());
        }
        if !vma.flags.contains(VmaFlags::GROWSDOWN) {
            return Err(Bad::Unmapped);
        }
        let floor = match layout.before(page + PAGE_SIZE) {
            Some(below) if below.flags.contains(VmaFlags::GROWSDOWN) || below.prot.is_empty() => {
                below.range.end()
            }
            Some(below) => below.range.end().saturating_add(STACK_GUARD),
            None => layout.user.start(),
        };
        let lowest = vma.range.end().saturating_sub(limits.stack).next_multiple_of(PAGE_SIZE).max(floor);
        if page < lowest {
            return Err(Bad::Unmapped);
        }
        let start = (page - page % STACK_STEP).max(lowest).min(page);
        let grown = AddrRange::new(start, vma.range.end()).unwrap_or_default();
        let more = vma.range.start() - start;
        let added = AddrRange::new(start, vma.range.start()).unwrap_or_default();
        if layout.totals.all.saturating_add(more) > limits.address_space
            || !layout.is_free(added)
            || (vma.flags.contains(VmaFlags::LOCKED)
                && layout.totals.locked.saturating_add(more) > limits.locked)
        {
            return Err(Bad::Unmapped);
        }
        if vma.flags.contains(VmaFlags::ACCOUNT) && self.frames.commit(more).is_err() {
            return Err(Bad::Memory);
        }
        for old in layout.remove(vma.range) {
            layout.insert(Vma { range: grown, ..old });
        }
        Ok(())
    }

    /// Makes the page of `addr` private, exclusive and mapped with `vma.prot`; returns its frame. For text that
    /// is patched and for stores of debuggers. `EFAULT` where `allowed` says no, or in shared mappings.
    pub(crate) fn private_page(&self, addr: u64, allowed: fn(&Vma) -> bool) -> SysResult<u64> {
        let page = addr - addr % PAGE_SIZE;
        for _ in 0..ROUNDS {
            let layout = self.layout.read();
            let vma =
                layout.find(page).filter(|vma| allowed(vma) && !vma.is_shared()).ok_or(Errno::EFAULT)?;
            let mut pages = self.pages.write();
            let one = AddrRange::new(page, page + PAGE_SIZE).ok_or(Errno::EFAULT)?;
            let Some(seg) = pages.find(page).map(|seg| seg.part(one)) else {
                drop(pages);
                drop(layout);
                self.fault_in(page, Access::Read)?;
                continue;
            };
            match seg.home {
                Home::Frames(offset) => {
                    if self.frames.exclusive_run(FrameRange { offset, len: PAGE_SIZE }).0 {
                        return Ok(offset);
                    }
                    self.copy_frames(&mut pages, seg, vma.prot)?;
                }
                Home::Object(_) => {
                    self.copy_frames(&mut pages, seg, vma.prot)?;
                }
                Home::Host(fd, offset) => {
                    let (generation, epoch) = (layout.generation, self.epoch.load(Ordering::SeqCst));
                    drop(pages);
                    drop(layout);
                    let frames = self.copy_host(&fd, offset, PAGE_SIZE)?;
                    let layout = self.layout.read();
                    let mut pages = self.pages.write();
                    let answer = Answer { generation, epoch, start: page, found: Found::Frames(frames) };
                    let same = layout.generation == generation && self.epoch.load(Ordering::SeqCst) == epoch;
                    match layout.find(page).filter(|_| same) {
                        Some(vma) => {
                            self.use_answer(&mut pages, vma, page, answer)?;
                        }
                        None => self.drop_answer(Some(answer)),
                    }
                }
            }
        }
        Err(Errno::EFAULT)
    }

    /// Faults a range in as MAP_POPULATE does: as far as it goes.
    pub(crate) fn populate(&self, range: AddrRange) {
        let _ = self.populate_checked(range, Populate::AsProtected);
    }

    /// Faults a range in; stops at the first page that cannot be had.
    pub(crate) fn populate_checked(&self, range: AddrRange, how: Populate) -> Result<(), Bad> {
        let mut at = range.start();
        while at < range.end() {
            let prot = {
                let layout = self.layout.read();
                let vma = layout.find(at).ok_or(Bad::Unmapped)?;
                vma.prot
            };
            let access = match how {
                Populate::Write => Access::Write,
                Populate::Read => Access::Read,
                Populate::AsProtected if prot.contains(Prot::WRITE) => Access::Write,
                Populate::AsProtected => Access::Read,
            };
            self.fault_in(at, access)?;
            // On to the end of what that mapped.
            let pages = self.pages.read();
            let Some(seg) = pages.find(at) else { return Err(Bad::Bus) };
            let end = seg.range.end().min(range.end());
            if let Some(frame) = seg.home_at(at).frame() {
                let memory = self.frames.memory();
                memory.populate(frame, end - at).map_err(|_| Bad::Memory)?;
            }
            at = end;
        }
        Ok(())
    }
}

/// What populating is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Populate {
    /// Writable where the area is.
    AsProtected,
    /// MADV_POPULATE_READ.
    Read,
    /// MADV_POPULATE_WRITE.
    Write,
}

/// Who faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum By {
    Guest,
    Kernel,
}

fn check_access(vma: &Vma, access: Access) -> Result<(), Bad> {
    let allowed = match access {
        Access::Read => !vma.prot.is_empty(),
        Access::Write => vma.prot.contains(Prot::WRITE),
        Access::Exec => vma.prot.contains(Prot::EXEC),
    };
    if allowed { Ok(()) } else { Err(Bad::Access) }
}

fn block_around(page: u64, bounds: AddrRange) -> AddrRange {
    let start = page - page % COPY_BYTES;
    AddrRange::new(start, start.saturating_add(COPY_BYTES))
        .and_then(|block| block.intersect(bounds))
        .unwrap_or(bounds)
}

fn ask_copy(seg: &Seg, block: AddrRange) -> Step {
    match seg.part(block).home {
        Home::Host(fd, offset) => Step::Ask(block.start(), Ask::Copy { fd, offset, len: block.len() }),
        _ => Step::Again,
    }
}

impl platform::TextSource for MemoryManager {
    fn private_text(&self, addr: u64) -> SysResult<u64> {
        self.private_page(addr, |vma| vma.prot.contains(Prot::EXEC))
    }
}
