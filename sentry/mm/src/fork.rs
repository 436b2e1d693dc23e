//! fork(2): a copy of an address space, copy-on-write by the kernel.
//!
//! Runs of writable private pages are write-protected in the stub at once, their frames get a second owner; whoever
//! writes first copies, whoever is left alone takes over.

use crate::frames::{FrameRange, Frames};
use crate::layout::Layout;
use crate::manager::MemoryManager;
use crate::mappable::Invalidate;
use crate::segs::{Home, Pages, Seg};
use crate::vma::{Mapped, Vma, VmaFlags};
use abi::{AddrRange, Errno, SysResult};
use platform::{AsOp, OpBatch, Prot};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

impl MemoryManager {
    /// A copy of this address space for a child process.
    pub fn fork(&self) -> SysResult<Arc<MemoryManager>> {
        // The parent's areas and pages stand still meanwhile. The child is known to nobody, so its locks are
        // taken second although they have the same rank.
        let parent = self.layout.write();
        let mut parent_pages = self.pages.write();

        let protect = writable_runs(parent_pages.iter());
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
        let child = MemoryManager::assemble(&self.platform, &self.frames, space, |weak| {
            let mut layout = Layout::new(parent.user, &parent.reserved);
            layout.brk = parent.brk;
            let (uses, pages) = (HashMap::new(), Pages::default());
            let mut heir = Heir { weak, cloned, uses, ops: &mut ops, layout, pages };
            for vma in parent.iter() {
                if let Err(error) = heir.take(&self.frames, vma, &parent_pages) {
                    self.frames.uncommit(heir.layout.totals.committed);
                    return Err(error);
                }
            }
            let Heir { mut layout, pages, .. } = heir;
            self.frames.share_all(pages.iter().filter_map(|seg| match seg.home {
                Home::Frames(offset) => Some(FrameRange { offset, len: seg.range.len() }),
                _ => None,
            }));
            layout.set_mmap_top(parent.mmap_top);
            Ok((layout, pages))
        })?;
        *child.limits.lock() = self.limits();
        let program = self.program.lock().clone();
        *child.program.lock() = program;
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
}

impl Heir<'_> {
    fn take(&mut self, frames: &Frames, vma: &Vma, parent_pages: &Pages) -> SysResult<()> {
        if vma.flags.contains(VmaFlags::DONTFORK) {
            if self.cloned {
                self.ops.push(AsOp::Unmap { range: vma.range });
            }
            return Ok(());
        }
        let copy = inherit(vma, &mut self.uses, self.weak)?;
        if copy.flags.contains(VmaFlags::ACCOUNT) {
            frames.commit(copy.range.len())?;
        }
        self.layout.insert(copy);
        let wiped = vma.flags.contains(VmaFlags::WIPEONFORK);
        for seg in parent_pages.overlapping(vma.range) {
            let seg = seg.part(vma.range);
            match (wiped, self.cloned) {
                (true, true) => self.ops.push(AsOp::Unmap { range: seg.range }),
                (true, false) => {}
                (false, cloned) => {
                    if !cloned {
                        self.ops.push(seg.map_op(false));
                    }
                    self.pages.insert(seg);
                }
            }
        }
        Ok(())
    }
}

fn inherit(
    vma: &Vma,
    uses: &mut HashMap<*const Mapped, Arc<Mapped>>,
    weak: &Weak<dyn Invalidate>,
) -> SysResult<Vma> {
    let mut copy = vma.clone();
    // Locks are not inherited (mlock(2)).
    copy.flags -= VmaFlags::LOCKED | VmaFlags::LOCKONFAULT;
    if let Some(file) = &mut copy.file {
        let key = Arc::as_ptr(&file.mapped);
        let mapped = match uses.get(&key) {
            Some(known) => Arc::clone(known),
            None => {
                let new = file.mapped.duplicate(weak)?;
                uses.insert(key, Arc::clone(&new));
                new
            }
        };
        file.mapped = mapped;
    }
    Ok(copy)
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
