//! mprotect(2).

use crate::manager::{Change, MemoryManager};
use crate::segs::{Home, Seg};
use crate::vma::{Vma, VmaFlags};
use abi::{AddrRange, Errno, SysResult, UserAddr};
use platform::{AsOp, Prot};
use smallvec::SmallVec;

impl MemoryManager {
    /// mprotect(2). `ENOMEM` when part of the range is not mapped, `EACCES` beyond what the mapping allows.
    pub fn mprotect(&self, addr: UserAddr, len: u64, prot: Prot) -> SysResult<()> {
        let range = self.mapped_range(addr, len)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut layout = self.layout.write();
        if !layout.covers(range) {
            return Err(Errno::ENOMEM);
        }
        layout.check_unsealed(range)?;
        if layout.overlapping(range).any(|vma| !vma.max_prot.contains(prot)) {
            return Err(Errno::EACCES);
        }
        for vma in layout.overlapping(range) {
            self.check_gain(vma.prot, prot)?;
        }
        let more_data: u64 = layout
            .overlapping(range)
            .filter(|vma| prot.contains(Prot::WRITE) && !vma.is_shared() && !vma.is_data())
            .map(|vma| vma.range.intersect(range).map_or(0, AddrRange::len))
            .sum();
        if more_data > 0 && layout.totals.data.saturating_add(more_data) > self.limits().data {
            return Err(Errno::ENOMEM);
        }
        let mut failed = Ok(());
        let parts: Vec<Vma> = layout.remove(range);
        let mut fresh: SmallVec<[Vma; 2]> = SmallVec::new();
        for mut vma in parts {
            if failed.is_ok() {
                let before = vma.prot;
                vma.prot = prot;
                match self.account(&mut vma) {
                    Ok(()) if before.is_empty() && !prot.is_empty() && vma.file.is_none() => {
                        fresh.push(vma.clone());
                    }
                    Ok(()) => {}
                    Err(error) => {
                        vma.prot = before;
                        failed = Err(error);
                    }
                }
            }
            layout.insert(vma);
        }
        let mut pages = self.pages.write();
        let mut runs: SmallVec<[(AddrRange, Prot); 4]> = SmallVec::new();
        pages.protect(range, |seg| {
            let Some(vma) = layout.find(seg.range.start()) else { return seg.prot };
            let new = self.allowed(vma, seg);
            match runs.last_mut() {
                // Without holes: mprotect(2) stops there.
                Some((run, same)) if *same == new && run.end() == seg.range.start() => {
                    *run = AddrRange::new(run.start(), seg.range.end()).unwrap_or(*run);
                }
                _ => runs.push((seg.range, new)),
            }
            new
        });
        let mut change = Change::default();
        change.ops.extend(runs.into_iter().map(|(range, prot)| AsOp::Protect { range, prot }));
        for vma in &fresh {
            if pages.hole_around(vma.range.start(), vma.range) == vma.range {
                self.back_small(&mut pages, vma, &mut change);
            }
        }
        self.submit_replacing(change)?;
        failed
    }

    /// mprotect(2) with PROT_GROWSDOWN: from the beginning of the stack that holds `addr`. `EINVAL` when what is
    /// there does not grow down.
    pub fn mprotect_stack(&self, addr: UserAddr, len: u64, prot: Prot) -> SysResult<()> {
        let range = self.check_range(addr, len)?;
        if range.is_empty() {
            return Ok(());
        }
        let start = {
            let layout = self.layout.read();
            let area = layout.at_or_after(range.start()).filter(|vma| vma.range.start() < range.end());
            let area = area.ok_or(Errno::ENOMEM)?;
            if !area.flags.contains(VmaFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            area.range.start()
        };
        self.mprotect(UserAddr::new(start), range.end().saturating_sub(start), prot)
    }

    /// What the stub may have of a segment under its area's protection.
    pub(crate) fn allowed(&self, vma: &Vma, seg: &Seg) -> Prot {
        if !vma.prot.contains(Prot::WRITE) {
            return vma.prot;
        }
        let writable = match &seg.home {
            Home::Frames(offset) => {
                let range = crate::FrameRange { offset: *offset, len: seg.range.len() };
                let (exclusive, bytes) = self.frames.exclusive_run(range);
                exclusive && bytes == range.len
            }
            Home::Object(_) | Home::Host(..) => vma.is_shared() && seg.writable_home,
        };
        if writable { vma.prot } else { vma.prot - Prot::WRITE }
    }
}
