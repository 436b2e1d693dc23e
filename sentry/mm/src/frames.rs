//! The allocator of the memory file.
//!
//! The file is cut into chunks of 2 MiB. Small allocations are packed into shared chunks of 4 KiB pages;
//! allocations of a chunk or more take whole chunks (so that huge pages can back them), and give the pages
//! behind their end to the small ones. Every page carries a reference count: copy-on-write sharing after
//! fork, and short pins while bytes are copied.
//!
//! A small sandbox takes single pages from the host. From half a mebibyte on, chunks of small pages are
//! backed by a huge page each: a fresh page then costs a twentieth, because the host zeroes and maps them
//! together.
//!
//! A page handed out always reads as zero. A freed page is either *dirty* (kept for quick re-use, zeroed by
//! storing when handed out) or given back to the host with a hole punch, in batches and outside the lock.
//! Rank: `Frames`.

use crate::account::Account;
use abi::{Errno, PAGE_SIZE, SysResult};
use lock::{Ranked, order};
use platform::memory::{HUGE_PAGE, HugePages, MemoryFile};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

mod chunk;
mod windows;

use chunk::{CHUNK_PAGES, Chunk, PageChunk};
pub(crate) use windows::Windows;

/// Dirty free pages that are kept for re-use before the host gets them back.
const DIRTY_PAGES_KEPT: u64 = 512;
/// Freed runs of at least this many pages go back to the host at once.
const PUNCH_AT_ONCE_PAGES: usize = 64;
/// From this many allocated pages on, chunks of small pages are huge pages.
const HUGE_FROM_PAGES: u64 = 128;
/// Unused huge pages that are kept.
const HUGE_SPARES: usize = 2;

/// A range of the memory file: offset and length in bytes, page aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameRange {
    /// Byte offset in the memory file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

type Runs = SmallVec<[FrameRange; 4]>;

/// The pages of one sandbox's memory file, and who uses how many.
pub struct Frames {
    memory: Arc<MemoryFile>,
    state: Ranked<order::Frames, State>,
    limit_bytes: AtomicU64,
    /// Promised to private writable and shared anonymous mappings (Committed_AS).
    pub(crate) committed_bytes: AtomicU64,
    pub(crate) policy: crate::policy::Overcommit,
    pub(crate) windows: Windows,
    gate: std::sync::OnceLock<Box<dyn Gate>>,
}

/// Asked before pages are allocated, under the locks of whoever allocates: it may take `Leaf` locks only.
pub trait Gate: Send + Sync + std::fmt::Debug {
    /// Counts `bytes` for the calling thread; `ENOMEM` when it must not have them.
    fn charge(&self, bytes: u64) -> SysResult<()>;
    /// Who pays for files and buffers of the calling thread.
    fn payer(&self) -> Option<Arc<Account>> {
        None
    }
}

/// The answer of [`State::take`].
enum Taken {
    At(u64),
    /// A chunk that shall become a huge page first.
    FreshHuge(usize),
}

#[derive(Default)]
struct State {
    chunks: Vec<Chunk>,
    /// Runs of free, clean chunks: first index to count.
    free: BTreeMap<usize, usize>,
    /// Chunks of small pages that have free ones.
    partial: BTreeSet<usize>,
    /// The same, of those that are huge pages.
    partial_huge: BTreeSet<usize>,
    allocated_pages: u64,
    /// Most pages allocated at once, since the last trim.
    peak_pages: u64,
    dirty_pages: u64,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frames({} bytes)", self.allocated())
    }
}

/// Keeps pages alive while they are used outside the locks that own them.
#[derive(Debug)]
pub struct Pin<'a> {
    frames: &'a Frames,
    range: FrameRange,
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.frames.release(self.range);
    }
}

impl Frames {
    /// An allocator for all of `memory`.
    #[must_use]
    pub fn new(memory: Arc<MemoryFile>) -> Arc<Frames> {
        Arc::new(Frames {
            limit_bytes: AtomicU64::new(memory.limit()),
            memory,
            state: Ranked::new(State::default()),
            committed_bytes: AtomicU64::new(0),
            policy: crate::policy::Overcommit::default(),
            windows: Windows::default(),
            gate: std::sync::OnceLock::new(),
        })
    }
    /// Has every allocation from now on charged. The first gate stays.
    pub fn set_gate(&self, gate: Box<dyn Gate>) {
        // A second one would say the same.
        let _ = self.gate.set(gate);
    }
    fn charge(&self, bytes: u64) -> SysResult<()> {
        self.gate.get().map_or(Ok(()), |gate| gate.charge(bytes))
    }
    pub(crate) fn payer(&self) -> Option<Arc<Account>> {
        self.gate.get().and_then(|gate| gate.payer())
    }
    /// Bytes of these ranges that the host keeps, each counted once however often it is named.
    #[must_use]
    pub fn resident_in(&self, mut ranges: Vec<FrameRange>) -> u64 {
        ranges.sort_unstable_by_key(|range| range.offset);
        let (mut sum, mut start, mut end) = (0_u64, 0_u64, 0_u64);
        for range in ranges {
            if range.offset > end {
                sum = sum.saturating_add(self.memory.resident(start, end - start));
                (start, end) = (range.offset, range.offset);
            }
            end = end.max(range.offset.saturating_add(range.len));
        }
        sum.saturating_add(self.memory.resident(start, end - start))
    }
    /// The file.
    #[must_use]
    pub fn memory(&self) -> &Arc<MemoryFile> {
        &self.memory
    }
    /// The overcommit policy (vm.overcommit_*).
    #[must_use]
    pub fn policy(&self) -> &crate::policy::Overcommit {
        &self.policy
    }
    /// Bytes promised to mappings (Committed_AS of /proc/meminfo).
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed_bytes.load(Ordering::Relaxed)
    }
    /// Bounds the bytes that may be allocated (not: resident) at once; `ENOMEM` beyond.
    pub fn set_limit(&self, bytes: u64) {
        self.limit_bytes.store(bytes, Ordering::Relaxed);
    }
    /// Bytes allocated. Reserved is not resident.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.state.lock().allocated_pages.saturating_mul(PAGE_SIZE)
    }
    /// Bytes that the host keeps for the whole file.
    #[must_use]
    pub fn resident(&self) -> u64 {
        rustix::fs::fstat(self.memory.fd()).map_or(0, |stat| u64::try_from(stat.st_blocks).unwrap_or(0) * 512)
    }

    /// Allocates `len` contiguous bytes (rounded up to pages) of zeroes with one reference each.
    /// Ranges of a huge page or more start on a huge page.
    pub fn alloc(&self, len: u64) -> SysResult<FrameRange> {
        let len = len.checked_next_multiple_of(PAGE_SIZE).filter(|len| *len > 0).ok_or(Errno::ENOMEM)?;
        let pages = len / PAGE_SIZE;
        self.charge(len)?;
        let mut dirty = Runs::new();
        let offset = loop {
            let mut state = self.state.lock();
            self.admit(&state, pages)?;
            match state.take(pages, self.memory.limit(), &mut dirty).ok_or(Errno::ENOMEM)? {
                Taken::At(offset) => {
                    state.allocated_pages += pages;
                    break offset;
                }
                Taken::FreshHuge(chunk) => {
                    drop(state);
                    self.make_huge(chunk);
                }
            }
        };
        let range = FrameRange { offset, len };
        self.make_zero(range, &dirty)?;
        Ok(range)
    }
    /// Allocates exactly `range` if all of it is free: growing a mapping without a second piece. False when it
    /// is not to be had.
    pub fn alloc_at(&self, range: FrameRange) -> bool {
        if range.len == 0 || range.len > HUGE_PAGE || !range.offset.is_multiple_of(PAGE_SIZE) {
            return false;
        }
        if self.charge(range.len).is_err() {
            return false;
        }
        let mut dirty = Runs::new();
        {
            let mut state = self.state.lock();
            let pages = range.len / PAGE_SIZE;
            if self.admit(&state, pages).is_err() || !state.take_at(range, &mut dirty) {
                return false;
            }
            state.allocated_pages += pages;
        }
        self.make_zero(range, &dirty).is_ok()
    }
    fn admit(&self, state: &State, pages: u64) -> SysResult<()> {
        let after = state.allocated_pages.checked_add(pages).and_then(|p| p.checked_mul(PAGE_SIZE));
        match after {
            Some(bytes) if bytes <= self.limit_bytes.load(Ordering::Relaxed) => Ok(()),
            _ => Err(Errno::ENOMEM),
        }
    }
    /// Has the host back a free chunk with a huge page, all at once, and opens it for small pages.
    fn make_huge(&self, chunk: usize) {
        let range = page_range(chunk, 0, CHUNK_PAGES);
        self.advise(range, HugePages::Wanted);
        // Without a huge page (or any) the chunk serves as well, page by page.
        let _ = self.memory.zero(range.offset, 1);
        let mut small = PageChunk::empty();
        small.huge = true;
        self.state.lock().put_small(chunk, small);
    }
    /// Whether huge pages are wanted where the range has whole ones.
    pub(crate) fn advise(&self, range: FrameRange, huge: HugePages) {
        self.memory.advise_huge(range.offset, range.len, huge);
    }
    /// Whether the range is part of one huge page that the allocator had the host fill: its pages are there.
    pub(crate) fn is_resident(&self, range: FrameRange) -> bool {
        let chunk = range.offset - range.offset % HUGE_PAGE;
        range.offset + range.len <= chunk + HUGE_PAGE && self.memory.wants_huge(chunk, HUGE_PAGE)
    }
    /// Empties pages with one owner where they are. Parts of huge pages stay resident.
    pub(crate) fn empty(&self, range: FrameRange) -> SysResult<()> {
        if range.len < HUGE_PAGE / 2 && self.is_resident(range) {
            self.memory.zero(range.offset, range.len)
        } else {
            self.memory.punch(range.offset, range.len)
        }
    }
    fn make_zero(&self, range: FrameRange, dirty: &Runs) -> SysResult<()> {
        for run in dirty {
            // Cheaper than a fresh page from the host, by far.
            if self.memory.zero(run.offset, run.len).is_err() {
                // The host has no page to store zeroes to, or the file is gone: give up the range, as dirty.
                self.release(range);
                return Err(Errno::ENOMEM);
            }
        }
        Ok(())
    }

    /// Adds a reference to every page of the range. The caller holds one already, or the lock of the owner.
    pub fn share(&self, range: FrameRange) {
        self.state.lock().add(range);
    }
    /// Like [`Frames::share`] for many ranges under one lock.
    pub fn share_all(&self, ranges: impl Iterator<Item = FrameRange>) {
        let mut state = self.state.lock();
        for range in ranges {
            state.add(range);
        }
    }
    /// Keeps the pages that hold `len` bytes at `offset` until the pin is dropped.
    #[must_use]
    pub fn pin(&self, offset: u64, len: u64) -> Pin<'_> {
        let start = offset - offset % PAGE_SIZE;
        let end = offset.saturating_add(len).checked_next_multiple_of(PAGE_SIZE).unwrap_or(start);
        let range = FrameRange { offset: start, len: end.saturating_sub(start) };
        self.share(range);
        Pin { frames: self, range }
    }
    /// Whether the first page of the range has one owner only, and how many bytes from there on are alike.
    #[must_use]
    pub fn exclusive_run(&self, range: FrameRange) -> (bool, u64) {
        self.state.lock().exclusive_run(range)
    }
    /// Drops a reference of every page of the range; pages without any are freed.
    pub fn release(&self, range: FrameRange) {
        self.release_all(&[range]);
    }
    /// Like [`Frames::release`] for many ranges under one lock, with punches batched.
    pub fn release_all(&self, ranges: &[FrameRange]) {
        let mut punch = Runs::new();
        {
            let mut state = self.state.lock();
            for range in ranges {
                state.drop_refs(*range, &mut punch);
            }
            if state.dirty_pages > DIRTY_PAGES_KEPT {
                state.collect_dirty(DIRTY_PAGES_KEPT / 2, &mut punch);
            }
        }
        self.punch(punch);
    }
    /// Gives all free pages that the host still keeps back to it (the sandbox is idle or memory is short).
    pub fn trim(&self) {
        self.windows.clear();
        let mut punch = Runs::new();
        {
            let mut state = self.state.lock();
            state.collect_dirty(0, &mut punch);
            state.collect_huge(&mut punch);
            state.peak_pages = state.allocated_pages;
        }
        self.punch(punch);
    }
    fn punch(&self, mut runs: Runs) {
        if runs.is_empty() {
            return;
        }
        runs.sort_unstable_by_key(|run| run.offset);
        let mut merged = Runs::new();
        for run in &runs {
            match merged.last_mut() {
                Some(last) if last.offset + last.len == run.offset => last.len += run.len,
                _ => merged.push(*run),
            }
        }
        for run in &merged {
            let clean = self.memory.punch(run.offset, run.len).is_ok();
            if clean && run.len >= HUGE_PAGE && self.memory.wants_huge(run.offset, run.len) {
                self.memory.advise_huge(run.offset, run.len, HugePages::Avoided);
            }
            let mut state = self.state.lock();
            state.free_after_punch(*run, clean);
        }
    }
}

fn index(value: u64) -> usize {
    // Offsets are below the limit of the file, which is mapped whole: they fit an address.
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// Calls `each(chunk, first page, pages)` for the part of `range` in every chunk it touches.
fn by_chunk(range: FrameRange, mut each: impl FnMut(usize, usize, usize)) {
    let mut at = range.offset;
    let end = range.offset.saturating_add(range.len);
    while at < end {
        let stop = ((at / HUGE_PAGE + 1) * HUGE_PAGE).min(end);
        let first = index(at % HUGE_PAGE / PAGE_SIZE);
        each(index(at / HUGE_PAGE), first, index((stop - at) / PAGE_SIZE));
        at = stop;
    }
}

fn page_range(chunk: usize, first: usize, pages: usize) -> FrameRange {
    let offset = chunk as u64 * HUGE_PAGE + first as u64 * PAGE_SIZE;
    FrameRange { offset, len: pages as u64 * PAGE_SIZE }
}

impl State {
    fn take(&mut self, pages: u64, limit: u64, dirty: &mut Runs) -> Option<Taken> {
        let pages = index(pages);
        if pages < CHUNK_PAGES {
            return self.take_small(pages, limit, dirty);
        }
        let whole = pages / CHUNK_PAGES;
        let tail = pages % CHUNK_PAGES;
        let first = self.take_chunks(whole + usize::from(tail > 0), limit)?;
        for chunk in self.chunks.iter_mut().skip(first).take(whole) {
            *chunk = Chunk::Whole { refs: 1 };
        }
        if tail > 0 {
            let mut small = PageChunk::empty();
            small.take(0, tail);
            self.put_small(first + whole, small);
        }
        Some(Taken::At(first as u64 * HUGE_PAGE))
    }

    fn put_small(&mut self, at: usize, small: Box<PageChunk>) {
        let (free, huge) = (small.has_free(), small.huge);
        if let Some(chunk) = self.chunks.get_mut(at) {
            *chunk = Chunk::Pages(small);
        }
        self.list(at, huge, free);
    }

    /// Keeps the lists of chunks with free pages.
    fn list(&mut self, at: usize, huge: bool, free: bool) {
        let list = if huge { &mut self.partial_huge } else { &mut self.partial };
        if free {
            list.insert(at);
        } else {
            list.remove(&at);
        }
    }

    /// Whether small pages are worth huge ones, with `more` pages allocated.
    fn is_busy(&mut self, more: u64) -> bool {
        self.peak_pages = self.peak_pages.max(self.allocated_pages.saturating_add(more));
        self.peak_pages > HUGE_FROM_PAGES
    }

    fn take_small(&mut self, pages: usize, limit: u64, dirty: &mut Runs) -> Option<Taken> {
        let busy = self.is_busy(pages as u64);
        let found = if busy {
            // Single pages only when they are there already.
            let single = self.dirty_pages > 0;
            self.find_small(true, pages).or_else(|| single.then(|| self.find_small(false, pages)).flatten())
        } else {
            self.find_small(false, pages).or_else(|| self.find_small(true, pages))
        };
        let (at, first) = match found {
            Some(place) => place,
            None => match self.take_chunks(1, limit) {
                Some(at) if busy => {
                    if let Some(chunk) = self.chunks.get_mut(at) {
                        *chunk = Chunk::Limbo;
                    }
                    return Some(Taken::FreshHuge(at));
                }
                Some(at) => {
                    self.put_small(at, PageChunk::empty());
                    (at, 0)
                }
                None => self.find_small(false, pages)?,
            },
        };
        self.take_pages(at, first, pages, dirty);
        Some(Taken::At(page_range(at, first, pages).offset))
    }

    /// Room in the chunks that are huge pages, or in the others: chunk and first page.
    fn find_small(&mut self, huge: bool, pages: usize) -> Option<(usize, usize)> {
        let list = if huge { &self.partial_huge } else { &self.partial };
        list.iter().find_map(|at| match self.chunks.get_mut(*at) {
            Some(Chunk::Pages(small)) => small.find(pages).map(|first| (*at, first)),
            _ => None,
        })
    }

    fn take_pages(&mut self, at: usize, first: usize, pages: usize, dirty: &mut Runs) {
        let Some(Chunk::Pages(small)) = self.chunks.get_mut(at) else { return };
        for (start, len) in small.dirty_runs(first, pages) {
            dirty.push(page_range(at, start, len));
        }
        let cleaned = small.take(first, pages);
        if !small.huge {
            self.dirty_pages = self.dirty_pages.saturating_sub(cleaned as u64);
        }
        let (free, huge) = (small.has_free(), small.huge);
        self.list(at, huge, free);
    }

    fn take_at(&mut self, range: FrameRange, dirty: &mut Runs) -> bool {
        let busy = self.is_busy(range.len / PAGE_SIZE);
        let mut free = true;
        by_chunk(range, |at, first, pages| {
            free &= match self.chunks.get(at) {
                Some(Chunk::Pages(small)) => small.is_free(first, pages) && (small.huge || !busy),
                _ => false,
            };
        });
        if free {
            by_chunk(range, |at, first, pages| self.take_pages(at, first, pages, dirty));
        }
        free
    }

    /// `count` adjacent chunks, marked as `Limbo`: the caller says what they become.
    fn take_chunks(&mut self, count: usize, limit: u64) -> Option<usize> {
        let found = self.free.iter().find(|(_, len)| **len >= count).map(|(first, len)| (*first, *len));
        if let Some((first, len)) = found {
            self.free.remove(&first);
            if len > count {
                self.free.insert(first + count, len - count);
            }
            return Some(first);
        }
        // Grow, from the last free run if it touches the end.
        let mut first = self.chunks.len();
        if let Some((start, len)) = self.free.last_key_value().map(|(s, l)| (*s, *l))
            && start + len == first
        {
            first = start;
        }
        let end = first.checked_add(count)?;
        if (end as u64).checked_mul(HUGE_PAGE)? > limit {
            return None;
        }
        self.free.remove(&first);
        self.chunks.resize_with(end, || Chunk::Free);
        Some(first)
    }

    fn give_chunks(&mut self, first: usize, count: usize) {
        let (mut first, mut count) = (first, count);
        if let Some((start, len)) = self.free.range(..first).next_back().map(|(s, l)| (*s, *l))
            && start + len == first
        {
            self.free.remove(&start);
            first = start;
            count += len;
        }
        if let Some(len) = self.free.remove(&(first + count)) {
            count += len;
        }
        self.free.insert(first, count);
    }

    fn add(&mut self, range: FrameRange) {
        by_chunk(range, |at, first, pages| match self.chunks.get_mut(at) {
            Some(Chunk::Whole { refs }) if pages == CHUNK_PAGES => *refs = refs.saturating_add(1),
            Some(chunk) => {
                if let Some(small) = chunk.pages_mut() {
                    small.add(first, pages);
                }
            }
            None => {}
        });
    }

    fn exclusive_run(&self, range: FrameRange) -> (bool, u64) {
        let mut answer = None;
        let mut bytes = 0;
        let mut going = true;
        by_chunk(range, |at, first, pages| {
            if !going {
                return;
            }
            let Some(chunk) = self.chunks.get(at) else {
                going = false;
                return;
            };
            let exclusive = *answer.get_or_insert_with(|| chunk.refs(first) == 1);
            let run = match chunk {
                Chunk::Pages(small) => small.alike(first, pages, exclusive),
                other if (other.refs(first) == 1) == exclusive => pages,
                _ => 0,
            };
            bytes += run as u64 * PAGE_SIZE;
            going = run == pages;
        });
        (answer.unwrap_or(false), bytes)
    }

    fn drop_refs(&mut self, range: FrameRange, punch: &mut Runs) {
        by_chunk(range, |at, first, pages| {
            let Some(chunk) = self.chunks.get_mut(at) else { return };
            if let Chunk::Whole { refs } = chunk
                && pages == CHUNK_PAGES
            {
                *refs = refs.saturating_sub(1);
                if *refs == 0 {
                    *chunk = Chunk::Limbo;
                    self.allocated_pages = self.allocated_pages.saturating_sub(CHUNK_PAGES as u64);
                    punch.push(page_range(at, 0, CHUNK_PAGES));
                }
                return;
            }
            let Some(small) = chunk.pages_mut() else { return };
            let (mut freed, huge) = (0u64, small.huge);
            small.sub(first, pages, |start, len| {
                freed += len as u64;
                if len >= PUNCH_AT_ONCE_PAGES && !huge {
                    punch.push(page_range(at, start, len));
                    true
                } else {
                    self.dirty_pages += if huge { 0 } else { len as u64 };
                    false
                }
            });
            self.allocated_pages = self.allocated_pages.saturating_sub(freed);
            let (free, empty) = (small.has_free(), small.is_empty());
            self.list(at, huge, free);
            if huge && empty && freed > 0 {
                self.spare(at, HUGE_SPARES, punch);
            }
        });
    }

    /// A huge page became unused: it is kept, or the host gets it back when enough others are.
    fn spare(&mut self, at: usize, keep: usize, punch: &mut Runs) {
        let unused = |at: &&usize| matches!(self.chunks.get(**at), Some(Chunk::Pages(s)) if s.is_empty());
        if self.partial_huge.iter().filter(unused).count() <= keep {
            return;
        }
        self.partial_huge.remove(&at);
        if let Some(chunk) = self.chunks.get_mut(at) {
            *chunk = Chunk::Limbo;
        }
        punch.push(page_range(at, 0, CHUNK_PAGES));
    }

    /// Gives back unused huge pages, and the free parts of the others.
    fn collect_huge(&mut self, punch: &mut Runs) {
        for at in self.partial_huge.iter().copied().collect::<SmallVec<[usize; 32]>>() {
            let Some(Chunk::Pages(small)) = self.chunks.get_mut(at) else { continue };
            if small.is_empty() {
                self.spare(at, 0, punch);
                continue;
            }
            for (first, len) in small.dirty_runs(0, CHUNK_PAGES) {
                small.hold(first, len);
                punch.push(page_range(at, first, len));
            }
            let free = small.has_free();
            self.list(at, true, free);
        }
    }

    /// Moves dirty free pages to `punch` (in limbo meanwhile) until at most `keep` are left.
    fn collect_dirty(&mut self, keep: u64, punch: &mut Runs) {
        for at in self.partial.iter().rev().copied().collect::<SmallVec<[usize; 32]>>() {
            if self.dirty_pages <= keep {
                break;
            }
            let Some(Chunk::Pages(small)) = self.chunks.get_mut(at) else { continue };
            for (first, len) in small.dirty_runs(0, CHUNK_PAGES) {
                small.hold(first, len);
                self.dirty_pages = self.dirty_pages.saturating_sub(len as u64);
                punch.push(page_range(at, first, len));
            }
            if !small.has_free() {
                self.partial.remove(&at);
            }
        }
    }

    /// The host took the pages of `range` back (or, when not `clean`, refused to).
    fn free_after_punch(&mut self, range: FrameRange, clean: bool) {
        by_chunk(range, |at, first, pages| {
            let Some(chunk) = self.chunks.get_mut(at) else { return };
            if matches!(chunk, Chunk::Limbo) {
                if clean {
                    *chunk = Chunk::Free;
                    self.give_chunks(at, 1);
                }
                // Not clean: the chunk stays in limbo, never to be handed out.
                return;
            }
            let Chunk::Pages(small) = chunk else { return };
            small.unhold(first, pages);
            let huge = small.huge;
            if !clean {
                small.mark_dirty(first, pages);
                self.dirty_pages += if huge { 0 } else { pages as u64 };
            }
            let unused = small.is_empty() && !small.any_dirty() && !huge;
            if unused {
                *chunk = Chunk::Free;
            }
            self.list(at, huge, !unused);
            if unused {
                self.give_chunks(at, 1);
            }
        });
    }
}

#[cfg(test)]
mod tests;
