//! fork(2): a copy of an address space, copy-on-write by the kernel.
//!
//! Runs of writable private pages are write-protected in the stub at once, their frames get a second owner; whoever
//! writes first copies, whoever is left alone takes over. A few pages that both sides are about to write to (the
//! stack's end, thread-local storage, small data segments, what earlier forks wrote to) are copied for the child now:
//! two faults each are saved.

use crate::frames::{FrameRange, Frames};
use crate::layout::Layout;
use crate::manager::{FRESH_COPIES, MemoryManager};
use crate::mappable::Invalidate;
use crate::segs::{Home, Pages, Seg};
use crate::vma::{Mapped, Vma, VmaFlags};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult};
use platform::{AsOp, OpBatch, Prot};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

impl MemoryManager {
    /// A copy of this address space for a child process. `hot` are addresses around which the caller and its
    /// child will write at once.
    pub fn fork(&self, hot: &[u64]) -> SysResult<Arc<MemoryManager>> {
        // The parent's areas and pages stand still meanwhile. The child is known to nobody, so its locks are
        // taken second although they have the same rank.
        let parent = self.layout.write();
        let mut parent_pages = self.pages.write();

        let eager = eager_ranges(&parent_pages, hot, &self.habits.at_fork());
        self.fresh_copies.store(FRESH_COPIES, Ordering::Relaxed);
        let mut protect = writable_runs(parent_pages.iter());
        for range in &eager {
            protect = protect.into_iter().flat_map(|(run, prot)| around(run, *range, prot)).collect();
        }
        for (range, prot) in &protect {
            parent_pages.protect(*range, |seg| match seg.home {
                Home::Frames(_) => *prot,
                Home::Object(_) | Home::Host(..) => seg.prot,
            });
        }
        let ops: SmallVec<[AsOp; 2]> =
            protect.iter().map(|(range, prot)| AsOp::Protect { range: *range, prot: *prot }).collect();
        if !ops.is_empty() {
            self.space.apply(OpBatch { ops, then: None })?;
        }
        let (space, cloned) = match self.space.fork()? {
            Some(space) => (space, true),
            None => (self.platform.new_address_space()?, false),
        };
        let mut ops: SmallVec<[AsOp; 2]> = SmallVec::new();
        let child =
            MemoryManager::assemble(&self.platform, &self.frames, space, Arc::clone(&self.habits), |weak| {
                let mut layout = Layout::new(parent.user, &parent.reserved);
                layout.brk = parent.brk;
                let (uses, pages) = (HashMap::new(), Pages::default());
                let (shared, copies, eager) = (Vec::new(), Vec::new(), &eager);
                let mut heir =
                    Heir { weak, cloned, uses, ops: &mut ops, layout, pages, eager, shared, copies };
                for vma in parent.iter() {
                    if let Err(error) = heir.take(&self.frames, vma, &parent_pages) {
                        self.frames.uncommit(heir.layout.totals.committed);
                        self.frames.release_all(&heir.copies);
                        return Err(error);
                    }
                }
                let Heir { mut layout, pages, shared, .. } = heir;
                self.frames.share_all(shared.into_iter());
                layout.set_mmap_top(parent.mmap_top);
                Ok((layout, pages))
            })?;
        *child.limits.lock() = self.limits();
        let program = self.program.lock().clone();
        *child.program.lock() = program;
        child.inherit_exec_gain(self);
        if !ops.is_empty() {
            child.space.apply(OpBatch { ops, then: None }).map_err(|error| match error {
                platform::DEAD => Errno::EAGAIN,
                other => other,
            })?;
        }
        Ok(child)
    }
}

/// What a child is built from, and into.
struct Heir<'a> {
    weak: &'a Weak<dyn Invalidate>,
    /// The host has copied the parent's mappings already.
    cloned: bool,
    uses: HashMap<*const Mapped, Arc<Mapped>>,
    ops: &'a mut SmallVec<[AsOp; 2]>,
    layout: Layout,
    pages: Pages,
    /// What is copied now.
    eager: &'a [AddrRange],
    /// Frames that get the child as one more owner.
    shared: Vec<FrameRange>,
    /// Frames of its own.
    copies: Vec<FrameRange>,
}

impl Heir<'_> {
    fn take(&mut self, frames: &Frames, vma: &Vma, parent_pages: &Pages) -> SysResult<()> {
        if vma.flags.contains(VmaFlags::DONTFORK) {
            if self.cloned {
                self.ops.push(AsOp::Unmap { range: vma.range });
            }
            return Ok(());
        }
        let copy = inherit(vma, &mut self.uses, self.weak);
        if copy.flags.contains(VmaFlags::ACCOUNT) {
            frames.commit(copy.range.len())?;
        }
        self.layout.insert(copy);
        let wiped = vma.flags.contains(VmaFlags::WIPEONFORK);
        let eager = if vma.prot.contains(Prot::WRITE) { self.eager } else { &[] };
        for seg in parent_pages.overlapping(vma.range) {
            let seg = seg.part(vma.range);
            match (wiped, self.cloned) {
                (true, true) => self.ops.push(AsOp::Unmap { range: seg.range }),
                (true, false) => {}
                (false, cloned) => {
                    // What is copied as a whole is mapped with the copy.
                    if !cloned && !eager.iter().any(|range| range.covers(seg.range)) {
                        self.ops.push(seg.map_op(false));
                    }
                    self.inherit_pages(frames, seg, eager, vma.prot)?;
                }
            }
        }
        Ok(())
    }

    /// Shares the pages of `seg` with the child, or copies those of `eager`, which get the protection `prot`.
    fn inherit_pages(&mut self, frames: &Frames, seg: Seg, eager: &[AddrRange], prot: Prot) -> SysResult<()> {
        let Home::Frames(_) = seg.home else {
            self.pages.insert(seg);
            return Ok(());
        };
        let mut at = seg.range.start();
        for range in eager.iter().filter_map(|range| range.intersect(seg.range)) {
            self.share(&seg, AddrRange::new(at, range.start()));
            let part = seg.part(range);
            let copy = frames.alloc(range.len())?;
            self.copies.push(copy);
            frames.memory().copy(part.home.frame().unwrap_or_default(), copy.offset, copy.len)?;
            // The copy is the child's alone, whatever the parent shares its page with.
            let part = Seg { home: Home::Frames(copy.offset), prot, ..part };
            self.ops.push(part.map_op(true));
            self.pages.insert(part);
            at = range.end();
        }
        self.share(&seg, AddrRange::new(at, seg.range.end()));
        Ok(())
    }

    fn share(&mut self, seg: &Seg, range: Option<AddrRange>) {
        let Some(range) = range.filter(|range| !range.is_empty()) else { return };
        let part = seg.part(range);
        if let Home::Frames(offset) = part.home {
            self.shared.push(FrameRange { offset, len: range.len() });
        }
        self.pages.insert(part);
    }
}

fn inherit(vma: &Vma, uses: &mut HashMap<*const Mapped, Arc<Mapped>>, weak: &Weak<dyn Invalidate>) -> Vma {
    let mut copy = vma.clone();
    // Locks are not inherited (mlock(2)).
    copy.flags -= VmaFlags::LOCKED | VmaFlags::LOCKONFAULT;
    if let Some(file) = &mut copy.file {
        let key = Arc::as_ptr(&file.mapped);
        let mapped = match uses.get(&key) {
            Some(known) => Arc::clone(known),
            None => {
                let new = file.mapped.duplicate(weak);
                uses.insert(key, Arc::clone(&new));
                new
            }
        };
        file.mapped = mapped;
    }
    copy
}

/// Pages that are copied at once, besides those that earlier forks wrote to.
const EAGER_PAGES: usize = 32;
/// Writable segments up to this size are, the data segments of libraries for instance.
const EAGER_SEGMENT: u64 = 4 * PAGE_SIZE;
/// How far below a hot address, and above its page.
const BELOW: u64 = 2 * PAGE_SIZE;

/// Ranges of private pages, writable in the parent, that the child gets copies of.
fn eager_ranges(pages: &Pages, hot: &[u64], learnt: &[u64]) -> Vec<AddrRange> {
    let mut found: Vec<u64> = Vec::new();
    let mut add = |range: AddrRange| {
        let mut at = range.start();
        while at < range.end() && found.len() < EAGER_PAGES {
            if !found.contains(&at) {
                found.push(at);
            }
            at += PAGE_SIZE;
        }
    };
    let fits = |seg: &&Seg| seg.prot.contains(Prot::WRITE) && matches!(seg.home, Home::Frames(_));
    for addr in hot {
        let page = addr - addr % PAGE_SIZE;
        let near = AddrRange::new(page.saturating_sub(BELOW), page.saturating_add(PAGE_SIZE));
        let Some(near) = near else { continue };
        pages.overlapping(near).filter(fits).filter_map(|seg| seg.range.intersect(near)).for_each(&mut add);
    }
    let small = |seg: &&Seg| seg.range.len() <= EAGER_SEGMENT;
    pages.iter().filter(fits).filter(small).for_each(|seg| add(seg.range));
    // Also those that the parent has not written to since an earlier fork.
    let private = |page: &&u64| pages.find(**page).is_some_and(|seg| matches!(seg.home, Home::Frames(_)));
    found.extend(learnt.iter().filter(private));
    found.sort_unstable();
    found.dedup();
    let mut ranges: Vec<AddrRange> = Vec::new();
    for page in found {
        let end = page + PAGE_SIZE;
        match ranges.last_mut() {
            Some(last) if last.end() == page => *last = AddrRange::new(last.start(), end).unwrap_or(*last),
            _ => ranges.extend(AddrRange::new(page, end)),
        }
    }
    ranges
}

/// What is left of `run` without `hole`.
fn around(run: AddrRange, hole: AddrRange, prot: Prot) -> SmallVec<[(AddrRange, Prot); 2]> {
    let pieces = [
        AddrRange::new(run.start(), run.end().min(hole.start())),
        AddrRange::new(run.start().max(hole.end()), run.end()),
    ];
    pieces.into_iter().flatten().filter(|piece| !piece.is_empty()).map(|piece| (piece, prot)).collect()
}

/// Runs of pages with writable private ones among them, and the protection they get. A run has no holes:
/// mprotect(2) stops there.
fn writable_runs<'a>(segs: impl Iterator<Item = &'a Seg>) -> SmallVec<[(AddrRange, Prot); 16]> {
    let mut runs: SmallVec<[(AddrRange, Prot); 16]> = SmallVec::new();
    let mut run: Option<(u64, u64, Prot, bool)> = None;
    let mut finish = |run: Option<(u64, u64, Prot, bool)>| {
        if let Some((start, end, prot, true)) = run
            && let Some(range) = AddrRange::new(start, end)
        {
            runs.push((range, prot));
        }
    };
    for seg in segs {
        let writable = seg.prot.contains(Prot::WRITE);
        let prot = seg.prot - Prot::WRITE;
        let private = matches!(seg.home, Home::Frames(_));
        if writable && !private {
            finish(run.take());
            continue;
        }
        match &mut run {
            Some((_, end, same, any)) if *end == seg.range.start() && *same == prot => {
                *end = seg.range.end();
                *any |= writable;
            }
            _ => finish(run.replace((seg.range.start(), seg.range.end(), prot, writable))),
        }
    }
    finish(run);
    runs
}
