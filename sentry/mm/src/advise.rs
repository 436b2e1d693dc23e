//! madvise(2), msync(2), mincore(2), mlock(2) and their kin.

use crate::fault::{Bad, Populate};
use crate::frames::FrameRange;
use crate::manager::{Change, MemoryManager};
use crate::report::AreaInfo;
use crate::segs::{Home, Seg};
use crate::vma::{Mapped, Vma, VmaFlags, VmaName};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult, UserAddr};
use platform::memory::HugePages;
use platform::{AsOp, Prot};
use std::sync::Arc;

/// `MADV_*` of madvise(2), as far as 6.12 knows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are those of the man page")]
pub enum Advice {
    Normal,
    Random,
    Sequential,
    WillNeed,
    DontNeed,
    Free,
    Remove,
    DontFork,
    DoFork,
    HwPoison,
    SoftOffline,
    Mergeable,
    Unmergeable,
    HugePage,
    NoHugePage,
    DontDump,
    DoDump,
    WipeOnFork,
    KeepOnFork,
    Cold,
    PageOut,
    PopulateRead,
    PopulateWrite,
    DontNeedLocked,
    Collapse,
}

impl Advice {
    /// From the raw argument; `EINVAL` when unknown.
    pub fn new(raw: u32) -> SysResult<Advice> {
        Ok(match raw {
            0 => Advice::Normal,
            1 => Advice::Random,
            2 => Advice::Sequential,
            3 => Advice::WillNeed,
            4 => Advice::DontNeed,
            8 => Advice::Free,
            9 => Advice::Remove,
            10 => Advice::DontFork,
            11 => Advice::DoFork,
            12 => Advice::Mergeable,
            13 => Advice::Unmergeable,
            14 => Advice::HugePage,
            15 => Advice::NoHugePage,
            16 => Advice::DontDump,
            17 => Advice::DoDump,
            18 => Advice::WipeOnFork,
            19 => Advice::KeepOnFork,
            20 => Advice::Cold,
            21 => Advice::PageOut,
            22 => Advice::PopulateRead,
            23 => Advice::PopulateWrite,
            24 => Advice::DontNeedLocked,
            25 => Advice::Collapse,
            100 => Advice::HwPoison,
            101 => Advice::SoftOffline,
            _ => return Err(Errno::EINVAL),
        })
    }
}

/// Which pages mlock(2) faults in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockScope {
    /// All at once.
    Now,
    /// Each when it is touched (MLOCK_ONFAULT).
    OnFault,
}

impl MemoryManager {
    /// madvise(2).
    pub fn madvise(&self, addr: UserAddr, len: u64, advice: Advice) -> SysResult<()> {
        if addr.raw().checked_add(len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?).is_none() {
            return Err(Errno::EINVAL);
        }
        let range = self.mapped_range(addr, len)?;
        if range.is_empty() {
            return Ok(());
        }
        let discards = matches!(
            advice,
            Advice::DontNeed
                | Advice::DontNeedLocked
                | Advice::Free
                | Advice::Remove
                | Advice::DontFork
                | Advice::WipeOnFork
        );
        if discards {
            // mseal(2): what cannot be written cannot be thrown away either.
            let fixed = |vma: &Vma| {
                let private = vma.file.is_none() && !vma.is_shared();
                vma.flags.contains(VmaFlags::SEALED) && private && !vma.prot.contains(Prot::WRITE)
            };
            if self.layout.read().overlapping(range).any(fixed) {
                return Err(Errno::EPERM);
            }
        }
        let set = |on: VmaFlags, off: VmaFlags| self.change_flags(range, on, off);
        match advice {
            Advice::Normal => set(VmaFlags::empty(), VmaFlags::RANDOM | VmaFlags::SEQUENTIAL),
            Advice::Random => set(VmaFlags::RANDOM, VmaFlags::SEQUENTIAL),
            Advice::Sequential => set(VmaFlags::SEQUENTIAL, VmaFlags::RANDOM),
            Advice::DontFork => set(VmaFlags::DONTFORK, VmaFlags::empty()),
            Advice::DoFork => set(VmaFlags::empty(), VmaFlags::DONTFORK),
            Advice::DontDump => set(VmaFlags::DONTDUMP, VmaFlags::empty()),
            Advice::DoDump => set(VmaFlags::empty(), VmaFlags::DONTDUMP),
            Advice::WipeOnFork => {
                let shared = |vma: &Vma| vma.file.is_some() || vma.is_shared();
                if self.layout.read().overlapping(range).any(shared) {
                    return Err(Errno::EINVAL);
                }
                set(VmaFlags::WIPEONFORK, VmaFlags::empty())
            }
            Advice::KeepOnFork => set(VmaFlags::empty(), VmaFlags::WIPEONFORK),
            Advice::HugePage => {
                set(VmaFlags::HUGEPAGE, VmaFlags::NOHUGEPAGE)?;
                self.advise_frames(range, HugePages::Wanted);
                Ok(())
            }
            Advice::NoHugePage => {
                set(VmaFlags::NOHUGEPAGE, VmaFlags::HUGEPAGE)?;
                self.advise_frames(range, HugePages::Avoided);
                Ok(())
            }
            // Hints about what is cached, which is the host's business.
            Advice::WillNeed | Advice::Cold | Advice::PageOut => self.require_mapped(range),
            Advice::DontNeed => self.drop_pages(range, Dropping::DontNeed),
            Advice::DontNeedLocked => self.drop_pages(range, Dropping::Locked),
            Advice::Free => self.drop_pages(range, Dropping::Free),
            Advice::Remove => self.remove_pages(range),
            Advice::PopulateRead => self.populate_advice(range, Populate::Read),
            Advice::PopulateWrite => self.populate_advice(range, Populate::Write),
            // /sys/kernel/mm/ksm/run is 0: nothing is ever merged.
            Advice::Mergeable | Advice::Unmergeable => self.require_mapped(range),
            // Built without memory failure handling, and collapsing on demand.
            Advice::HwPoison | Advice::SoftOffline | Advice::Collapse => Err(Errno::EINVAL),
        }
    }

    fn require_mapped(&self, range: AddrRange) -> SysResult<()> {
        if self.layout.read().covers(range) { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    fn change_flags(&self, range: AddrRange, on: VmaFlags, off: VmaFlags) -> SysResult<()> {
        let mut layout = self.layout.write();
        let covered = layout.covers(range);
        layout.update(range, |vma| vma.flags = (vma.flags - off) | on);
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    fn advise_frames(&self, range: AddrRange, huge: HugePages) {
        let pages = self.pages.read();
        for seg in pages.overlapping(range) {
            if let Home::Frames(offset) = seg.part(range).home {
                self.frames.memory().advise_huge(offset, seg.part(range).range.len(), huge);
            }
        }
    }

    fn populate_advice(&self, range: AddrRange, how: Populate) -> SysResult<()> {
        self.require_mapped(range)?;
        self.populate_checked(range, how).map_err(|bad| match bad {
            Bad::Unmapped | Bad::Memory => Errno::ENOMEM,
            Bad::Access => Errno::EINVAL,
            Bad::Bus => Errno::EFAULT,
        })
    }

    fn drop_pages(&self, range: AddrRange, how: Dropping) -> SysResult<()> {
        let layout = self.layout.write();
        for vma in layout.overlapping(range) {
            let locked = vma.flags.contains(VmaFlags::LOCKED) && how != Dropping::Locked;
            let unfit = how == Dropping::Free && (vma.file.is_some() || vma.is_shared());
            if locked || unfit || vma.flags.contains(VmaFlags::PLATFORM) {
                return Err(Errno::EINVAL);
            }
        }
        let covered = layout.covers(range);
        let mut pages = self.pages.write();
        let mut change = Change::default();
        for vma in layout.overlapping(range).filter(|vma| !vma.is_shared()) {
            let Some(part) = vma.range.intersect(range) else { continue };
            let hit: Vec<Seg> = pages
                .overlapping(part)
                .filter(|seg| matches!(seg.home, Home::Frames(_)))
                .map(|seg| seg.part(part))
                .collect();
            for seg in hit {
                let Home::Frames(offset) = seg.home else { continue };
                let frames = FrameRange { offset, len: seg.range.len() };
                let (exclusive, bytes) = self.frames.exclusive_run(frames);
                // The only owner empties the pages where they are: the stub's mapping goes on.
                if vma.file.is_none() && exclusive && bytes == frames.len && self.frames.empty(frames).is_ok()
                {
                    continue;
                }
                let cut = pages.cut(seg.range);
                change.ops.push(AsOp::Unmap { range: seg.range });
                change.free(&self.frames, &cut);
            }
        }
        self.submit_replacing(change)?;
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// Shared areas of the range, as uses of objects with byte ranges.
    fn shared_parts(&self, range: AddrRange) -> Vec<(Arc<Mapped>, u64, u64)> {
        let layout = self.layout.read();
        let parts = layout.overlapping(range).filter(|vma| vma.is_shared()).filter_map(|vma| {
            let part = vma.part(range);
            let file = part.file?;
            Some((file.mapped, file.offset, part.range.len()))
        });
        parts.collect()
    }

    fn remove_pages(&self, range: AddrRange) -> SysResult<()> {
        {
            let layout = self.layout.read();
            if !layout.covers(range) {
                return Err(Errno::ENOMEM);
            }
            for vma in layout.overlapping(range) {
                if vma.flags.contains(VmaFlags::LOCKED) || vma.file.is_none() {
                    return Err(Errno::EINVAL);
                }
                if !vma.is_shared() || !vma.max_prot.contains(Prot::WRITE) {
                    return Err(Errno::EACCES);
                }
            }
        }
        for (mapped, offset, len) in self.shared_parts(range) {
            mapped.object().punch(offset, len)?;
        }
        Ok(())
    }

    /// msync(2). `flags` are MS_ASYNC 1, MS_INVALIDATE 2, MS_SYNC 4.
    pub fn msync(&self, addr: UserAddr, len: u64, flags: u32) -> SysResult<()> {
        if flags & !7 != 0 || flags & 5 == 5 {
            return Err(Errno::EINVAL);
        }
        let range = self
            .check_range(addr, len)
            .map_err(|error| if addr.is_page_aligned() { Errno::ENOMEM } else { error })?;
        if range.is_empty() {
            return Ok(());
        }
        let covered = {
            let layout = self.layout.read();
            let locked = layout.overlapping(range).any(|vma| vma.flags.contains(VmaFlags::LOCKED));
            if flags & 2 != 0 && locked {
                return Err(Errno::EBUSY);
            }
            layout.covers(range)
        };
        if flags & 4 != 0 {
            for (mapped, offset, len) in self.shared_parts(range) {
                mapped.object().sync(offset, len)?;
            }
        }
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// mincore(2): one byte for each page, 1 when it is in memory, mapped or not. Of files that `may_ask` refuses, all
    /// are. `ENOMEM` when part is not mapped.
    pub fn mincore(
        &self,
        addr: UserAddr,
        len: u64,
        may_ask: &dyn Fn(&AreaInfo) -> bool,
    ) -> SysResult<Vec<u8>> {
        let mut answer = self.present(addr, len)?;
        let start = addr.raw();
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let range = AddrRange::new(start, start.saturating_add(len)).unwrap_or_default();
        let files: Vec<(Arc<Mapped>, AreaInfo, AddrRange, u64)> = {
            let layout = self.layout.read();
            let parts = layout.overlapping(range).filter_map(|vma| {
                let part = vma.part(range);
                let offset = part.offset_of(part.range.start());
                let mapped = Arc::clone(&part.file.as_ref()?.mapped);
                Some((mapped, MemoryManager::info(vma), part.range, offset))
            });
            parts.collect()
        };
        for (mapped, area, part, offset) in files {
            let first = usize::try_from((part.start() - start) / PAGE_SIZE).unwrap_or(usize::MAX);
            let count = usize::try_from(part.len().div_ceil(PAGE_SIZE)).unwrap_or(usize::MAX);
            let Some(bytes) = answer.get_mut(first..first.saturating_add(count)) else { continue };
            if !may_ask(&area) {
                bytes.fill(1);
                continue;
            }
            let mut cached = vec![0; bytes.len()];
            if mapped.object().cached(offset, &mut cached).is_ok() {
                let own = self.private_pages(part);
                for ((byte, cached), own) in bytes.iter_mut().zip(cached).zip(own) {
                    *byte = if own { *byte } else { cached };
                }
            }
        }
        Ok(answer)
    }

    /// Which pages of a range are private ones, with a home of their own.
    fn private_pages(&self, range: AddrRange) -> Vec<bool> {
        let count = usize::try_from(range.len().div_ceil(PAGE_SIZE)).unwrap_or(0);
        let mut own = vec![false; count];
        let pages = self.pages.read();
        for seg in pages.overlapping(range) {
            let seg = seg.part(range);
            let first = usize::try_from((seg.range.start() - range.start()) / PAGE_SIZE).unwrap_or(0);
            let len = usize::try_from(seg.range.len() / PAGE_SIZE).unwrap_or(0);
            if let (Home::Frames(_), Some(part)) = (&seg.home, own.get_mut(first..first + len)) {
                part.fill(true);
            }
        }
        own
    }

    /// One byte for each page, 1 when it is mapped and in memory. `ENOMEM` when part is not mapped.
    pub fn present(&self, addr: UserAddr, len: u64) -> SysResult<Vec<u8>> {
        if len == 0 && addr.is_page_aligned() {
            return Ok(Vec::new());
        }
        let range = self
            .check_range(addr, len)
            .map_err(|error| if addr.is_page_aligned() { Errno::ENOMEM } else { error })?;
        let layout = self.layout.read();
        if !layout.covers(range) {
            return Err(Errno::ENOMEM);
        }
        let pages = self.pages.read();
        let count = usize::try_from(range.len() / PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
        let mut answer = vec![0u8; count];
        let memory = self.frames.memory();
        for seg in pages.overlapping(range) {
            let seg = seg.part(range);
            let first = usize::try_from((seg.range.start() - range.start()) / PAGE_SIZE).unwrap_or(0);
            let pages_in = usize::try_from(seg.range.len() / PAGE_SIZE).unwrap_or(0);
            let Some(part) = answer.get_mut(first..first + pages_in) else { continue };
            let Some(frame) = seg.home.frame() else {
                part.fill(1);
                continue;
            };
            let resident = memory.resident(frame, seg.range.len());
            if resident == 0 || resident >= seg.range.len() {
                part.fill(u8::from(resident > 0));
                continue;
            }
            for (at, byte) in part.iter_mut().enumerate() {
                *byte = u8::from(memory.resident(frame + at as u64 * PAGE_SIZE, PAGE_SIZE) > 0);
            }
        }
        Ok(answer)
    }

    /// mlock(2), mlock2(2). Pages of the memory file are never swapped by the kernel itself; the sum counts.
    pub fn mlock(&self, addr: UserAddr, len: u64, scope: LockScope) -> SysResult<()> {
        let end = addr.raw().checked_add(len).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        let start = addr.page_floor();
        let range = AddrRange::new(start.raw(), end.ok_or(Errno::EINVAL)?).ok_or(Errno::EINVAL)?;
        if range.is_empty() {
            return Ok(());
        }
        let limit = self.limits().locked;
        if limit == 0 {
            return Err(Errno::EPERM);
        }
        {
            let mut layout = self.layout.write();
            if !layout.covers(range) {
                return Err(Errno::ENOMEM);
            }
            let already: u64 = layout
                .overlapping(range)
                .filter(|vma| vma.flags.contains(VmaFlags::LOCKED))
                .map(|vma| vma.range.intersect(range).map_or(0, AddrRange::len))
                .sum();
            if layout.totals.locked.saturating_sub(already).saturating_add(range.len()) > limit {
                return Err(Errno::ENOMEM);
            }
            let flags = lock_flags(scope);
            layout.update(range, |vma| {
                vma.flags -= VmaFlags::LOCKED | VmaFlags::LOCKONFAULT;
                if !vma.flags.contains(VmaFlags::PLATFORM) {
                    vma.flags |= flags;
                }
            });
        }
        if scope == LockScope::Now {
            self.populate_checked(range, Populate::AsProtected).map_err(|bad| match bad {
                Bad::Memory => Errno::EAGAIN,
                _ => Errno::ENOMEM,
            })?;
        }
        Ok(())
    }
    /// munlock(2).
    pub fn munlock(&self, addr: UserAddr, len: u64) -> SysResult<()> {
        let end = addr.raw().checked_add(len).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        let range =
            AddrRange::new(addr.page_floor().raw(), end.ok_or(Errno::EINVAL)?).ok_or(Errno::EINVAL)?;
        self.change_flags(range, VmaFlags::empty(), VmaFlags::LOCKED | VmaFlags::LOCKONFAULT)
    }
    /// mlockall(2): what is there (`current`), and what comes (`future`).
    pub fn mlockall(&self, current: Option<LockScope>, future: Option<LockScope>) -> SysResult<()> {
        let limit = self.limits().locked;
        if limit == 0 {
            return Err(Errno::EPERM);
        }
        let all = {
            let mut layout = self.layout.write();
            if current.is_some() && layout.totals.all > limit {
                return Err(Errno::ENOMEM);
            }
            layout.future = future.map_or(VmaFlags::empty(), lock_flags);
            let all: Vec<AddrRange> = layout
                .iter()
                .filter(|vma| !vma.flags.contains(VmaFlags::PLATFORM))
                .map(|vma| vma.range)
                .collect();
            if let Some(scope) = current {
                for range in &all {
                    layout.update(*range, |vma| {
                        vma.flags = (vma.flags - VmaFlags::LOCKONFAULT) | lock_flags(scope);
                    });
                }
            }
            all
        };
        if current == Some(LockScope::Now) {
            for range in all {
                self.populate(range);
            }
        }
        Ok(())
    }
    /// munlockall(2).
    pub fn munlockall(&self) {
        let mut layout = self.layout.write();
        layout.future = VmaFlags::empty();
        let all: Vec<AddrRange> = layout.iter().map(|vma| vma.range).collect();
        for range in all {
            layout.update(range, |vma| vma.flags -= VmaFlags::LOCKED | VmaFlags::LOCKONFAULT);
        }
    }

    /// prctl(PR_SET_VMA_ANON_NAME): names anonymous areas; `None` takes the name away.
    pub fn set_anonymous_name(&self, addr: UserAddr, len: u64, name: Option<&[u8]>) -> SysResult<()> {
        let range = self.check_range(addr, len)?;
        let mut layout = self.layout.write();
        let covered = layout.covers(range);
        if layout.overlapping(range).any(|vma| vma.file.is_some()) {
            return Err(Errno::EBADF);
        }
        let name = name.map_or(VmaName::None, |name| VmaName::Anon(Arc::from(name)));
        layout.update(range, |vma| vma.name = name.clone());
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }
}

fn lock_flags(scope: LockScope) -> VmaFlags {
    match scope {
        LockScope::Now => VmaFlags::LOCKED,
        LockScope::OnFault => VmaFlags::LOCKED | VmaFlags::LOCKONFAULT,
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dropping {
    DontNeed,
    Locked,
    Free,
}
