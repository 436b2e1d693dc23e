//! mremap(2).

use crate::layout::Layout;
use crate::manager::{Change, MemoryManager};
use crate::map::{MapFile, MapFlags, MmapArgs};
use crate::segs::Seg;
use crate::vma::{Vma, VmaFlags, VmaName};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult, UserAddr};
use platform::AsOp;
use std::sync::Arc;

bitflags::bitflags! {
    /// `MREMAP_*` of mremap(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RemapFlags: u32 {
        /// May go elsewhere.
        const MAYMOVE = 1;
        /// Goes to the given address.
        const FIXED = 2;
        /// The old place stays, empty.
        const DONTUNMAP = 4;
        /// Anything else.
        const _ = !0;
    }
}

/// Arguments of [`MemoryManager::mremap`].
#[derive(Clone, Copy, Debug)]
pub struct RemapArgs {
    /// Where the mapping is.
    pub old: UserAddr,
    /// Its length.
    pub old_len: u64,
    /// The length it shall have.
    pub new_len: u64,
    /// Flags.
    pub flags: RemapFlags,
    /// Where it shall go with FIXED.
    pub to: UserAddr,
}

impl MemoryManager {
    /// remap_file_pages(2), as Linux emulates it: a shared file mapping over another shows the pages from `page` on.
    pub fn remap_file_pages(&self, addr: UserAddr, len: u64, page: u64) -> SysResult<()> {
        let range = self.check_range(addr.page_floor(), len - len % PAGE_SIZE)?;
        let offset = page.checked_mul(PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let vma = self.layout.read().find(range.start()).cloned().ok_or(Errno::EINVAL)?;
        let Some(file) = vma.file.filter(|_| vma.flags.contains(VmaFlags::SHARED)) else {
            return Err(Errno::EINVAL);
        };
        let object = Arc::clone(file.mapped.object());
        let same = |part: &Vma| {
            part.prot == vma.prot
                && part.file.as_ref().is_some_and(|file| Arc::ptr_eq(file.mapped.object(), &object))
        };
        {
            let layout = self.layout.read();
            if range.is_empty() || !layout.covers(range) || !layout.overlapping(range).all(same) {
                return Err(Errno::EINVAL);
            }
        }
        let keep = file.mapped.keep().cloned();
        self.mmap(MmapArgs {
            addr: UserAddr::new(range.start()),
            len: range.len(),
            prot: vma.prot,
            flags: MapFlags::SHARED | MapFlags::FIXED | MapFlags::POPULATE,
            file: Some(MapFile { object, offset, max_prot: vma.max_prot, keep }),
            name: VmaName::None,
        })?;
        Ok(())
    }
    /// mremap(2). Returns where the mapping is.
    pub fn mremap(&self, args: RemapArgs) -> SysResult<UserAddr> {
        let RemapArgs { old, flags, to, .. } = args;
        let known = RemapFlags::MAYMOVE | RemapFlags::FIXED | RemapFlags::DONTUNMAP;
        let moves = flags.intersects(RemapFlags::FIXED | RemapFlags::DONTUNMAP);
        if !known.contains(flags) || (moves && !flags.contains(RemapFlags::MAYMOVE)) || !old.is_page_aligned()
        {
            return Err(Errno::EINVAL);
        }
        let old_len = args.old_len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let new_len = args.new_len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
        if new_len == 0 || (flags.contains(RemapFlags::DONTUNMAP) && old_len != new_len) {
            return Err(Errno::EINVAL);
        }
        let from = AddrRange::from_len(old, old_len)?;
        let fixed = if flags.contains(RemapFlags::FIXED) {
            let target = self.check_range(to, new_len)?;
            if target.overlaps(from) || target.start() < self.user_range().start() {
                return Err(Errno::EINVAL);
            }
            Some(target)
        } else {
            if flags.contains(RemapFlags::DONTUNMAP) {
                // Only a hint, but one that is checked.
                self.check_range(to, new_len)?;
            }
            None
        };
        let mut garbage: Vec<Vma> = Vec::new();
        let mut layout = self.layout.write();
        let vma = layout.find(old.raw()).cloned().ok_or(Errno::EFAULT)?;
        if vma.flags.contains(VmaFlags::PLATFORM) {
            return Err(Errno::EFAULT);
        }
        layout.check_unsealed(from)?;
        if let Some(target) = fixed {
            layout.check_unsealed(target)?;
        }
        if old_len == 0 && (!vma.is_shared() || flags.contains(RemapFlags::DONTUNMAP)) {
            return Err(Errno::EINVAL);
        }
        if old_len > new_len && fixed.is_none() {
            // Shrinking may go over several areas.
            let tail = AddrRange::new(from.start() + new_len, from.end()).unwrap_or_default();
            let garbage = self.unmap_locked(&mut layout, tail);
            drop(layout);
            drop(garbage);
            return Ok(old);
        }
        if from.end() > vma.range.end() {
            return Err(Errno::EFAULT);
        }
        if flags.contains(RemapFlags::DONTUNMAP) && vma.file.is_some() && !vma.is_shared() {
            return Err(Errno::EINVAL);
        }
        if !moves && new_len == old_len {
            return Ok(old);
        }
        self.check_growth(&layout, &vma, from, new_len, flags)?;
        if !moves && old_len > 0 && from.end() == vma.range.end() {
            let more = AddrRange::new(from.end(), from.start().saturating_add(new_len)).unwrap_or_default();
            if layout.is_free(more) {
                self.extend(&mut layout, &vma, more)?;
                drop(layout);
                self.populate_if_locked(&vma, more);
                return Ok(old);
            }
        }
        if !flags.contains(RemapFlags::MAYMOVE) {
            return Err(Errno::ENOMEM);
        }
        let target = match fixed {
            Some(target) => {
                if layout.reserved.iter().any(|reserved| reserved.overlaps(target)) {
                    return Err(Errno::ENOMEM);
                }
                garbage.extend(self.unmap_locked(&mut layout, target));
                if old_len > new_len {
                    let tail = AddrRange::new(from.start() + new_len, from.end()).unwrap_or_default();
                    garbage.extend(self.unmap_locked(&mut layout, tail));
                }
                target
            }
            None => {
                let start = layout.find_room(new_len, PAGE_SIZE).ok_or(Errno::ENOMEM)?;
                AddrRange::new(start, start.saturating_add(new_len)).ok_or(Errno::ENOMEM)?
            }
        };
        let from = AddrRange::new(from.start(), from.start() + old_len.min(new_len)).unwrap_or(from);
        let moved = self.move_area(&mut layout, &vma, from, target, flags);
        drop(layout);
        drop(garbage);
        moved?;
        self.populate_if_locked(&vma, target);
        Ok(UserAddr::new(target.start()))
    }

    fn populate_if_locked(&self, vma: &Vma, range: AddrRange) {
        if vma.flags.contains(VmaFlags::LOCKED) && !vma.flags.contains(VmaFlags::LOCKONFAULT) {
            self.populate(range);
        }
    }

    fn check_growth(
        &self,
        layout: &Layout,
        vma: &Vma,
        from: AddrRange,
        new_len: u64,
        flags: RemapFlags,
    ) -> SysResult<()> {
        let kept = if flags.contains(RemapFlags::DONTUNMAP) { 0 } else { from.len() };
        let more = new_len.saturating_sub(kept);
        let limits = self.limits();
        if vma.file.is_some() {
            let end = vma.offset_of(from.start()).checked_add(new_len).ok_or(Errno::EINVAL)?;
            i64::try_from(end).map_err(|_| Errno::EINVAL)?;
        }
        if vma.flags.contains(VmaFlags::LOCKED) && layout.totals.locked.saturating_add(more) > limits.locked {
            return Err(Errno::EAGAIN);
        }
        if layout.totals.all.saturating_add(more) > limits.address_space
            || (vma.is_data() && layout.totals.data.saturating_add(more) > limits.data)
        {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Continues an area in the free range behind it.
    fn extend(&self, layout: &mut Layout, vma: &Vma, more: AddrRange) -> SysResult<()> {
        let mut added = vma.clone();
        if let Some(file) = &mut added.file {
            file.offset = vma.offset_of(more.start());
        }
        added.range = more;
        if added.flags.contains(VmaFlags::ACCOUNT) {
            self.frames.commit(more.len())?;
        }
        layout.insert(added.clone());
        let mut pages = self.pages.write();
        let mut change = Change::default();
        self.back_small(&mut pages, &added, &mut change);
        self.submit(change);
        Ok(())
    }

    fn move_area(
        &self,
        layout: &mut Layout,
        vma: &Vma,
        from: AddrRange,
        target: AddrRange,
        flags: RemapFlags,
    ) -> SysResult<()> {
        let mut new = vma.part(AddrRange::new(from.start(), vma.range.end()).unwrap_or(from));
        new.range = target;
        let stays = from.is_empty() || flags.contains(RemapFlags::DONTUNMAP);
        let committed_more = if stays { target.len() } else { target.len().saturating_sub(from.len()) };
        if new.flags.contains(VmaFlags::ACCOUNT) {
            self.frames.commit(committed_more)?;
        }
        let removed = layout.remove(from);
        if stays {
            for mut old in removed {
                // What stays is empty and not locked.
                old.flags -= VmaFlags::LOCKED | VmaFlags::LOCKONFAULT;
                layout.insert(old);
            }
        }
        layout.insert(new.clone());
        let mut pages = self.pages.write();
        let mut change = Change::default();
        let old = pages.cut(from);
        for seg in &old {
            let start = target.start() + (seg.range.start() - from.start());
            let range = AddrRange::new(start, start + seg.range.len()).unwrap_or_default();
            let seg = Seg { range, ..seg.clone() };
            change.ops.push(seg.map_op(false));
            pages.insert(seg);
        }
        if !old.is_empty() {
            change.ops.push(AsOp::Unmap { range: from });
        }
        let tail = AddrRange::new(target.start() + from.len(), target.end()).unwrap_or_default();
        if !tail.is_empty() {
            self.back_small(&mut pages, &new.part(tail), &mut change);
        }
        self.submit_replacing(change)
    }
}
