//! fork(2): a copy of an address space, copy-on-write by the kernel.
//!
//! Writable private areas are write-protected in the stub once each, their frames get a second owner; whoever
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

        let protect = writable_ranges(&parent, parent_pages.iter());
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

/// Private areas with a page that is mapped writable, as few ranges with the protection they get.
fn writable_ranges<'a>(
    layout: &Layout,
    segs: impl Iterator<Item = &'a Seg>,
) -> SmallVec<[(AddrRange, Prot); 16]> {
    let mut ranges: SmallVec<[(AddrRange, Prot); 16]> = SmallVec::new();
    for seg in segs {
        if !seg.prot.contains(Prot::WRITE) || !matches!(seg.home, Home::Frames(_)) {
            continue;
        }
        // A segment may span areas that differ in name only.
        let mut at = seg.range.start();
        while let Some(vma) = layout.find(at) {
            let end = vma.range.end().min(seg.range.end());
            let prot = seg.prot - Prot::WRITE;
            if !vma.flags.contains(VmaFlags::DONTFORK) {
                match ranges.last_mut() {
                    // One operation per area: what lies between is not writable or a hole.
                    Some((last, same)) if *same == prot && vma.range.contains(last.end() - 1) => {
                        *last = AddrRange::new(last.start(), end).unwrap_or(*last);
                    }
                    Some((last, same)) if *same == prot && last.end() == at => {
                        *last = AddrRange::new(last.start(), end).unwrap_or(*last);
                    }
                    _ => ranges.push((AddrRange::new(at, end).unwrap_or_default(), prot)),
                }
            }
            at = end;
            if at >= seg.range.end() {
                break;
            }
        }
    }
    ranges
}
