//! mmap(2), munmap(2), brk(2), and how memory gets its frames.

use crate::frames::FrameRange;
use crate::layout::Layout;
use crate::manager::{Change, MemoryManager};
use crate::mappable::{MapUse, Mappable, MappableId, Translation};
use crate::numa::NodePolicy;
use crate::pages::FilePages;
use crate::segs::{Home, Pages, Seg};
use crate::vma::{FilePart, Mapped, Vma, VmaFlags, VmaName};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult, UserAddr};
use platform::memory::{HUGE_PAGE, HugePages, WindowAccess};
use platform::{AsOp, Prot};
use smallvec::SmallVec;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

bitflags::bitflags! {
    /// `MAP_*` of mmap(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MapFlags: u32 {
        /// Changes are seen by others.
        const SHARED = 1;
        /// Changes are not.
        const PRIVATE = 2;
        /// Exactly there, replacing what was.
        const FIXED = 0x10;
        /// No file.
        const ANONYMOUS = 0x20;
        /// In the first 2 GiB.
        const BIT32 = 0x40;
        /// A stack.
        const GROWSDOWN = 0x100;
        /// Ignored.
        const DENYWRITE = 0x800;
        /// Ignored.
        const EXECUTABLE = 0x1000;
        /// As mlock(2).
        const LOCKED = 0x2000;
        /// Not counted against the commit limit.
        const NORESERVE = 0x4000;
        /// Fault it in.
        const POPULATE = 0x8000;
        /// POPULATE without waiting.
        const NONBLOCK = 0x10000;
        /// A hint without effect.
        const STACK = 0x20000;
        /// Of huge pages.
        const HUGETLB = 0x40000;
        /// DAX.
        const SYNC = 0x80000;
        /// Exactly there, or `EEXIST`.
        const FIXED_NOREPLACE = 0x10_0000;
        /// Anything else.
        const _ = !0;
    }
}

const TYPE_MASK: u32 = 0xf;
const SHARED_VALIDATE: u32 = 3;
const HUGE_SIZE_BITS: u32 = 0x3f << 26;
/// What MAP_SHARED_VALIDATE knows (`LEGACY_MAP_MASK`).
const LEGACY: u32 = 0x0407_f973 | (21 << 26) | (30 << 26);

/// Anonymous mappings up to this size get their frames when they are made, larger ones when touched.
const DIRECT: u64 = 256 << 10;
/// How much of a larger mapping a touch maps.
const BLOCK: u64 = 256 << 10;
/// How much of one that is so large that it must be expected to stay sparse: single pages of the host then.
const SPARSE_BLOCK: u64 = HUGE_PAGE;
const SPARSE_FROM: u64 = 1 << 30;
/// How much when it is filled front to back: huge pages.
const FILLING_BLOCK: u64 = 2 * HUGE_PAGE;
/// Writable private file mappings up to this size are copied when they are made.
const EAGER_COPY: u64 = 64 << 10;
/// Linux's vm.max_map_count.
const MAX_MAP_COUNT: usize = 65_530;

/// The file of an mmap.
pub struct MapFile {
    /// What is mapped.
    pub object: Arc<dyn Mappable>,
    /// Byte offset, page aligned.
    pub offset: u64,
    /// What the descriptor's mode and the mount allow: for shared mappings WRITE needs a descriptor open for
    /// both; private ones may always be written.
    pub max_prot: Prot,
    /// Kept alive with the mapping and given back by [`MemoryManager::areas`] (the open file).
    pub keep: Option<Arc<dyn Any + Send + Sync>>,
}

/// Arguments of [`MemoryManager::mmap`].
pub struct MmapArgs {
    /// Address or hint.
    pub addr: UserAddr,
    /// Bytes.
    pub len: u64,
    /// Protection.
    pub prot: Prot,
    /// Flags.
    pub flags: MapFlags,
    /// The file, or `None` for anonymous memory.
    pub file: Option<MapFile>,
    /// Name of the area, for the loader.
    pub name: VmaName,
}

impl MmapArgs {
    /// Private anonymous memory at a place of the kernel's choice.
    #[must_use]
    pub fn anonymous(len: u64, prot: Prot) -> MmapArgs {
        MmapArgs {
            addr: UserAddr::NULL,
            len,
            prot,
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS,
            file: None,
            name: VmaName::None,
        }
    }
    /// The same at exactly `addr`.
    #[must_use]
    pub fn fixed(mut self, addr: u64) -> MmapArgs {
        self.addr = UserAddr::new(addr);
        self.flags |= MapFlags::FIXED;
        self
    }
}

/// Pages found before the locks were taken: where an area's bytes are.
#[derive(Default)]
struct Prepared {
    epoch: u64,
    /// Offset from the start of the area, length, home.
    pieces: SmallVec<[(u64, u64, Home); 4]>,
}

static NEXT_SHM: AtomicU64 = AtomicU64::new(1);
/// `st_dev` of anonymous shared memory in /proc/pid/maps.
const SHM_DEV: u64 = 1;

impl MemoryManager {
    /// mmap(2). Returns the address.
    pub fn mmap(&self, args: MmapArgs) -> SysResult<UserAddr> {
        let MmapArgs { addr, len, prot, flags, file, name } = args;
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let shared = match flags.bits() & TYPE_MASK {
            1 => true,
            2 => false,
            SHARED_VALIDATE => {
                if file.is_none() {
                    return Err(Errno::EINVAL);
                }
                if flags.bits() & !LEGACY != 0 {
                    return Err(Errno::EOPNOTSUPP);
                }
                true
            }
            _ => return Err(Errno::EINVAL),
        };
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        if len > self.user_range().len() || flags.intersects(MapFlags::HUGETLB) {
            // No huge page is ever set aside.
            return Err(if flags.bits() & HUGE_SIZE_BITS != 0 { Errno::EINVAL } else { Errno::ENOMEM });
        }
        let mut vma_flags = VmaFlags::empty();
        vma_flags.set(VmaFlags::SHARED, shared);
        vma_flags.set(VmaFlags::NORESERVE, flags.contains(MapFlags::NORESERVE));
        vma_flags.set(VmaFlags::GROWSDOWN, flags.contains(MapFlags::GROWSDOWN) && file.is_none() && !shared);
        vma_flags.set(VmaFlags::LOCKED, flags.contains(MapFlags::LOCKED));
        self.check_gain(prot, prot)?;
        let (mut max_prot, part) = self.open_object(file, len, shared, prot)?;
        if part.is_none() {
            max_prot = Prot::all();
        }
        if !max_prot.contains(prot) {
            return Err(Errno::EACCES);
        }
        let mut vma = Vma {
            range: AddrRange::default(),
            prot,
            max_prot,
            flags: vma_flags,
            file: part,
            name,
            policy: NodePolicy::default(),
        };
        let prepared = self.prepare(&vma, len);
        let garbage;
        let range;
        {
            let mut layout = self.layout.write();
            let placed = self
                .place(&mut layout, addr, len, flags, vma.file.is_none())
                .and_then(|range| layout.check_unsealed(range).map(|()| range));
            range = match placed {
                Ok(range) => range,
                Err(error) => {
                    drop(layout);
                    self.discard(&prepared);
                    return Err(error);
                }
            };
            vma.range = range;
            vma.flags |= layout.future;
            if let Err(error) = self.admit(&layout, &mut vma) {
                drop(layout);
                self.discard(&prepared);
                return Err(error);
            }
            garbage = layout.remove(range);
            let locked = vma.flags.contains(VmaFlags::LOCKED) && !vma.flags.contains(VmaFlags::LOCKONFAULT);
            layout.insert(vma.clone());
            self.frames.uncommit(committed(&garbage));
            let mut pages = self.pages.write();
            let mut change = Change::default();
            let old = pages.cut(range);
            change.free(&self.frames, &old);
            self.back_new(&mut pages, &vma, prepared, &mut change);
            unmap_uncovered(range, &old, &garbage, &mut change);
            if old.is_empty() {
                self.submit(change)
            } else {
                self.submit_replacing(change)?
            }
            drop(pages);
            drop(layout);
            if (flags.contains(MapFlags::POPULATE) && !flags.contains(MapFlags::NONBLOCK)) || locked {
                self.populate(range);
            }
        }
        drop(garbage);
        Ok(UserAddr::new(range.start()))
    }

    /// Registers with the object of a mapping (made here for shared anonymous memory).
    /// Memory that begins as zeros and is shared with whoever inherits the mapping (MAP_SHARED of /dev/zero).
    pub fn shared_zeros(&self, len: u64) -> SysResult<Arc<dyn Mappable>> {
        let id = MappableId { dev: SHM_DEV, ino: NEXT_SHM.fetch_add(1, Ordering::Relaxed) };
        let name = Some(b"/dev/zero (deleted)".to_vec());
        let object = FilePages::with(&self.frames, id, None, name);
        object.truncate(len)?;
        Ok(object)
    }
    fn open_object(
        &self,
        file: Option<MapFile>,
        len: u64,
        shared: bool,
        prot: Prot,
    ) -> SysResult<(Prot, Option<FilePart>)> {
        let space = self.weak_space();
        let Some(file) = file else {
            if !shared {
                return Ok((Prot::all(), None));
            }
            let object = self.shared_zeros(len)?;
            return Ok((
                Prot::all(),
                Some(FilePart { mapped: Mapped::new(object, &space, true, None)?, offset: 0 }),
            ));
        };
        if !file.offset.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if file.offset.checked_add(len).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(Errno::EOVERFLOW);
        }
        let mut max_prot = file.max_prot;
        if !shared {
            max_prot |= Prot::WRITE;
        }
        let may_write = shared && max_prot.contains(Prot::WRITE);
        let mapped = match Mapped::new(Arc::clone(&file.object), &space, may_write, file.keep.clone()) {
            Err(Errno::EPERM) if may_write && !prot.contains(Prot::WRITE) => {
                max_prot -= Prot::WRITE;
                Mapped::new(file.object, &space, false, file.keep)?
            }
            other => other?,
        };
        Ok((max_prot, Some(FilePart { mapped, offset: file.offset })))
    }

    fn place(
        &self,
        layout: &mut Layout,
        addr: UserAddr,
        len: u64,
        flags: MapFlags,
        anonymous: bool,
    ) -> SysResult<AddrRange> {
        if flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE) {
            if !addr.is_page_aligned() {
                return Err(Errno::EINVAL);
            }
            let range = AddrRange::from_len(addr, len).map_err(|_| Errno::ENOMEM)?;
            if range.start() < layout.user.start() {
                return Err(Errno::EPERM);
            }
            if !layout.user.covers(range) || layout.reserved.iter().any(|r| r.overlaps(range)) {
                return Err(Errno::ENOMEM);
            }
            if flags.contains(MapFlags::FIXED_NOREPLACE) && !layout.is_free(range) {
                return Err(Errno::EEXIST);
            }
            return Ok(range);
        }
        if let Some(hint) = addr.page_ceil().filter(|hint| !hint.is_null())
            && let Ok(range) = AddrRange::from_len(hint, len)
            && layout.is_free(range)
        {
            return Ok(range);
        }
        let start = if flags.contains(MapFlags::BIT32) {
            layout.find_room_below(len, 1 << 31)
        } else if anonymous && len >= HUGE_PAGE && len.is_multiple_of(HUGE_PAGE) {
            layout.find_room(len, HUGE_PAGE)
        } else {
            layout.find_room(len, PAGE_SIZE)
        };
        AddrRange::from_len(UserAddr::new(start.ok_or(Errno::ENOMEM)?), len)
    }

    /// Checks limits and promises memory for a new area that replaces what is in its range.
    fn admit(&self, layout: &Layout, vma: &mut Vma) -> SysResult<()> {
        let limits = self.limits();
        let len = vma.range.len();
        let (mut replaced, mut replaced_data) = (0, 0);
        for old in layout.overlapping(vma.range) {
            let part = old.range.intersect(vma.range).map_or(0, AddrRange::len);
            replaced += part;
            replaced_data += if old.is_data() { part } else { 0 };
        }
        if layout.totals.all.saturating_sub(replaced).saturating_add(len) > limits.address_space {
            return Err(Errno::ENOMEM);
        }
        let data = layout.totals.data.saturating_sub(replaced_data);
        if vma.is_data() && data.saturating_add(len) > limits.data {
            return Err(Errno::ENOMEM);
        }
        if vma.flags.contains(VmaFlags::LOCKED) && layout.totals.locked.saturating_add(len) > limits.locked {
            return Err(Errno::EAGAIN);
        }
        if layout.count() >= MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        self.account(vma)
    }

    /// Promises the memory of an area that became accountable.
    pub(crate) fn account(&self, vma: &mut Vma) -> SysResult<()> {
        let strict = self.frames.policy.mode() == 2;
        let shared_anonymous =
            vma.is_shared() && vma.file.as_ref().is_some_and(|file| file.mapped.object().id().dev == SHM_DEV);
        let promised = (!vma.is_shared() && vma.prot.contains(Prot::WRITE)) || shared_anonymous;
        if promised
            && !vma.flags.contains(VmaFlags::ACCOUNT)
            && (strict || !vma.flags.contains(VmaFlags::NORESERVE))
        {
            self.frames.commit(vma.range.len())?;
            vma.flags |= VmaFlags::ACCOUNT;
        }
        Ok(())
    }

    /// Asks the object where the bytes are, without locks, so that the area can be mapped at once.
    fn prepare(&self, vma: &Vma, len: u64) -> Prepared {
        let mut prepared = Prepared { epoch: self.epoch.load(Ordering::SeqCst), ..Prepared::default() };
        let Some(file) = &vma.file else { return prepared };
        if vma.prot.is_empty() {
            return prepared;
        }
        let object = file.mapped.object();
        let private_write = !vma.is_shared() && vma.prot.contains(Prot::WRITE);
        let shared_write =
            vma.is_shared() && vma.max_prot.contains(Prot::WRITE) && vma.prot.contains(Prot::WRITE);
        let usage = if shared_write { MapUse::SharedWrite } else { MapUse::Read };
        let mut at = 0;
        while at < len && prepared.pieces.len() < 4 {
            let step = match object.translate(file.offset + at, len - at, usage) {
                Ok(Translation::Host { fd, offset, len: got }) => {
                    let got = got.min(len - at);
                    if private_write && got <= EAGER_COPY {
                        let Ok(frames) = self.copy_host(&fd, offset, got) else { break };
                        prepared.pieces.push((at, frames.len, Home::Frames(frames.offset)));
                    } else {
                        prepared.pieces.push((at, got, Home::Host(fd, offset)));
                    }
                    got
                }
                Ok(Translation::Memory { offset, len: got }) => {
                    let got = got.min(len - at);
                    prepared.pieces.push((at, got, Home::Object(offset)));
                    got
                }
                Ok(Translation::Hole { len: got }) => got,
                Err(_) => break,
            };
            if step == 0 {
                break;
            }
            at += step;
        }
        prepared
    }

    fn discard(&self, prepared: &Prepared) {
        for (_, len, home) in &prepared.pieces {
            if let Home::Frames(offset) = home {
                self.frames.release(FrameRange { offset: *offset, len: *len });
            }
        }
    }

    /// Fresh frames with the bytes of a host file; behind its end they are zero.
    pub(crate) fn copy_host(
        &self,
        fd: &Arc<std::os::fd::OwnedFd>,
        offset: u64,
        len: u64,
    ) -> SysResult<FrameRange> {
        let frames = self.frames.alloc(len)?;
        let memory = self.frames.memory();
        let mut done = 0;
        while done < len {
            let copied = self.frames.windows.get(fd, offset + done, WindowAccess::ReadOnly).and_then(
                |(window, inside, shown)| {
                    let n = shown.min(PAGE_SIZE - (offset + done) % PAGE_SIZE).min(len - done);
                    window.copy_to(inside, memory, frames.offset + done, n).map(|()| n)
                },
            );
            match copied {
                Ok(n) => done += n,
                // The first page must be there; the rest may be behind the end.
                Err(error) if done == 0 => {
                    self.frames.release(frames);
                    return Err(error);
                }
                Err(_) => break,
            }
        }
        if done < len {
            let rest = done.next_multiple_of(PAGE_SIZE).min(len);
            if rest < len {
                // Pages behind the end are not part of the copy: touching them is SIGBUS.
                self.frames.release(FrameRange { offset: frames.offset + rest, len: len - rest });
            }
            return Ok(FrameRange { offset: frames.offset, len: rest });
        }
        Ok(frames)
    }

    /// Maps what a fresh area can have at once.
    fn back_new(&self, pages: &mut Pages, vma: &Vma, prepared: Prepared, change: &mut Change) {
        if vma.file.is_none() {
            self.back_small(pages, vma, change);
            return;
        }
        if prepared.epoch != self.epoch.load(Ordering::SeqCst) {
            self.discard(&prepared);
            return;
        }
        for (at, len, home) in prepared.pieces {
            let start = vma.range.start() + at;
            let Some(range) = AddrRange::new(start, start + len) else { continue };
            let mut prot = vma.prot;
            let writable_home = vma.is_shared() && vma.prot.contains(Prot::WRITE);
            if !writable_home && !matches!(home, Home::Frames(_)) {
                prot -= Prot::WRITE;
            }
            let seg = Seg { range, home, prot, writable_home };
            let copied = matches!(seg.home, Home::Frames(_));
            change.ops.push(seg.map_op(copied));
            pages.insert(seg);
        }
    }

    /// Gives frames to a fresh piece of anonymous memory, when it is small and accessible.
    pub(crate) fn back_small(&self, pages: &mut Pages, vma: &Vma, change: &mut Change) {
        if vma.file.is_none() && !vma.prot.is_empty() && vma.range.len() <= DIRECT {
            // Without memory now, the touch will ask again.
            let _ = self.back_anonymous(pages, vma, vma.range, change);
        }
    }

    /// Gives zeroed frames to `range`, which has no segments, and maps them.
    pub(crate) fn back_anonymous(
        &self,
        pages: &mut Pages,
        vma: &Vma,
        range: AddrRange,
        change: &mut Change,
    ) -> SysResult<()> {
        let len = range.len();
        // Grow the frames of the neighbour below, so that the two stay one mapping.
        let grown = pages.find(range.start().wrapping_sub(1)).filter(|_| len < HUGE_PAGE).and_then(|left| {
            let Home::Frames(offset) = left.home else { return None };
            let next = FrameRange { offset: offset + left.range.len(), len };
            (left.range.end() == range.start() && self.frames.alloc_at(next)).then_some(next)
        });
        let frames = match grown {
            Some(frames) => frames,
            None => self.frames.alloc(len)?,
        };
        let seg = Seg { range, home: Home::Frames(frames.offset), prot: vma.prot, writable_home: false };
        // Pages that are there anyway are mapped with one call rather than with a fault each.
        change.ops.push(seg.map_op(self.frames.is_resident(frames)));
        pages.insert(seg);
        Ok(())
    }

    /// What a touch of `addr` in an anonymous area without frames should map: the whole hole when it is small,
    /// else a block, or several when the area is being filled front to back.
    pub(crate) fn block_for(&self, pages: &Pages, vma: &Vma, addr: u64) -> AddrRange {
        let hole = pages.hole_around(addr, vma.range);
        if hole.len() <= DIRECT {
            return hole;
        }
        let piece = |size: u64, len: u64| {
            let start = addr - addr % size;
            AddrRange::new(start.max(hole.start()), start.saturating_add(len).min(hole.end())).unwrap_or(hole)
        };
        let page = addr - addr % PAGE_SIZE;
        let filling = page == hole.start() && page > vma.range.start();
        let sparse = vma.range.len() > SPARSE_FROM || vma.flags.contains(VmaFlags::NORESERVE);
        let wanted = vma.flags.contains(VmaFlags::HUGEPAGE);
        if vma.flags.contains(VmaFlags::NOHUGEPAGE) {
            return piece(BLOCK, BLOCK);
        }
        match (filling || wanted, sparse) {
            // Up to the next huge page first, then whole ones.
            (true, _) if page.is_multiple_of(HUGE_PAGE) => piece(HUGE_PAGE, FILLING_BLOCK),
            (true, false) => {
                AddrRange::new(page, page.next_multiple_of(HUGE_PAGE).min(hole.end())).unwrap_or(hole)
            }
            (_, true) => piece(SPARSE_BLOCK, SPARSE_BLOCK),
            (false, false) => piece(BLOCK, BLOCK),
        }
    }

    /// Has the host back a block with huge pages at once, where that fits and is worthwhile: it is part of a
    /// mapping that is being filled.
    pub(crate) fn fill_block(&self, vma: &Vma, range: AddrRange, frames: u64) {
        let wanted = range.len() >= FILLING_BLOCK || vma.flags.contains(VmaFlags::HUGEPAGE);
        if !wanted || range.len() < HUGE_PAGE || range.start() % HUGE_PAGE != frames % HUGE_PAGE {
            return;
        }
        let frames = FrameRange { offset: frames, len: range.len() - range.len() % HUGE_PAGE };
        self.frames.advise(frames, HugePages::Wanted);
        if self.is_tenant() {
            // Who touches a page first has it charged: here that must be the stub.
            return;
        }
        let mut at = frames.offset;
        while at < frames.offset + frames.len {
            // The touch brings in all of it; the guest's own touches then only map. Without a huge page
            // the host does its best.
            let _ = self.frames.memory().zero(at, 1);
            at += HUGE_PAGE;
        }
    }

    /// munmap(2).
    pub fn munmap(&self, addr: UserAddr, len: u64) -> SysResult<()> {
        let range = self.check_range(addr, len)?;
        if range.is_empty() {
            return Err(Errno::EINVAL);
        }
        let garbage = {
            let mut layout = self.layout.write();
            layout.check_unsealed(range)?;
            let splits = layout
                .find(range.start())
                .is_some_and(|vma| vma.range.start() < range.start() && range.end() < vma.range.end());
            if splits && layout.count() >= MAX_MAP_COUNT {
                return Err(Errno::ENOMEM);
            }
            self.unmap_locked(&mut layout, range)
        };
        drop(garbage);
        Ok(())
    }

    /// mseal(2): the areas of a range stay as they are mapped. `ENOMEM` when part is not mapped.
    pub fn mseal(&self, addr: UserAddr, len: u64) -> SysResult<()> {
        let range = self.check_range(addr, len)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut layout = self.layout.write();
        if !layout.covers(range) {
            return Err(Errno::ENOMEM);
        }
        layout.update(range, |vma| vma.flags |= VmaFlags::SEALED);
        Ok(())
    }

    /// Takes a range out of the areas and the stub. The caller drops the result after the lock.
    #[must_use]
    pub(crate) fn unmap_locked(&self, layout: &mut Layout, range: AddrRange) -> Vec<Vma> {
        let garbage = layout.remove(range);
        if garbage.is_empty() {
            return garbage;
        }
        self.frames.uncommit(committed(&garbage));
        let mut pages = self.pages.write();
        let old = pages.cut(range);
        let mut change = Change::default();
        change.free(&self.frames, &old);
        unmap_uncovered(range, &old, &garbage, &mut change);
        self.submit(change);
        garbage
    }

    /// The range of a call that says `ENOMEM` for what cannot be mapped: `EINVAL` for a bad start.
    pub(crate) fn mapped_range(&self, addr: UserAddr, len: u64) -> SysResult<AddrRange> {
        if !addr.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(AddrRange::default());
        }
        self.check_range(addr, len).map_err(|_| Errno::ENOMEM)
    }
    /// A page-aligned range inside what guests may use; `EINVAL` else.
    pub(crate) fn check_range(&self, addr: UserAddr, len: u64) -> SysResult<AddrRange> {
        if !addr.is_page_aligned() {
            return Err(Errno::EINVAL);
        }
        let len = len.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let range = AddrRange::from_len(addr, len)?;
        if range.end() > self.user_range().end() { Err(Errno::EINVAL) } else { Ok(range) }
    }

    /// Where the break starts (and ends, being empty): behind the program. Set by the loader.
    pub fn set_brk_start(&self, addr: u64) {
        let start = addr.checked_next_multiple_of(PAGE_SIZE).unwrap_or(addr);
        self.layout.write().brk = AddrRange::new(start, start).unwrap_or_default();
    }
    /// Start and end of the break.
    #[must_use]
    pub fn brk_range(&self) -> AddrRange {
        self.layout.read().brk
    }

    /// brk(2): returns the break after the call, which is the old one when the new one cannot be had.
    pub fn brk(&self, wanted: UserAddr) -> UserAddr {
        let mut layout = self.layout.write();
        let brk = layout.brk;
        let old = UserAddr::new(brk.end());
        let wanted = wanted.raw();
        let Some(new) = AddrRange::new(brk.start(), wanted) else { return old };
        let (Some(from), Some(to)) =
            (brk.end().checked_next_multiple_of(PAGE_SIZE), wanted.checked_next_multiple_of(PAGE_SIZE))
        else {
            return old;
        };
        if let Some(gone) = AddrRange::new(to, from).filter(|gone| !gone.is_empty()) {
            let garbage = self.unmap_locked(&mut layout, gone);
            layout.brk = new;
            drop(layout);
            drop(garbage);
            return UserAddr::new(wanted);
        }
        let Some(more) = AddrRange::new(from, to).filter(|more| !more.is_empty()) else {
            layout.brk = new;
            return UserAddr::new(wanted);
        };
        let guarded = AddrRange::new(more.start(), more.end().saturating_add(PAGE_SIZE)).unwrap_or(more);
        let limit = self.limits().data;
        if !layout.is_free(more)
            || layout.overlapping(guarded).next().is_some()
            || new.len().saturating_add(self.program().data.len()) > limit
        {
            return old;
        }
        let prot = Prot::READ | Prot::WRITE;
        let flags = layout.future;
        let mut vma = Vma {
            range: more,
            prot,
            max_prot: Prot::all(),
            flags,
            file: None,
            name: VmaName::Heap,
            policy: NodePolicy::default(),
        };
        if self.admit(&layout, &mut vma).is_err() {
            return old;
        }
        layout.insert(vma.clone());
        layout.brk = new;
        {
            let mut pages = self.pages.write();
            let mut change = Change::default();
            self.back_new(&mut pages, &vma, Prepared::default(), &mut change);
            self.submit(change);
        }
        drop(layout);
        if vma.flags.contains(VmaFlags::LOCKED) && !vma.flags.contains(VmaFlags::LOCKONFAULT) {
            self.populate(more);
        }
        UserAddr::new(wanted)
    }
}

/// Bytes of the areas that were promised.
pub(crate) fn committed(areas: &[Vma]) -> u64 {
    areas.iter().filter(|vma| vma.flags.contains(VmaFlags::ACCOUNT)).map(|vma| vma.range.len()).sum()
}

/// Adds the unmapping of what `old` left behind in `range` and no mapping of `change` replaces: in front of the
/// mappings, which then take its place.
fn unmap_uncovered(range: AddrRange, old: &[Seg], areas: &[Vma], change: &mut Change) {
    let platform = areas.iter().filter(|vma| vma.flags.contains(VmaFlags::PLATFORM)).map(|vma| vma.range);
    let mut stale = old.iter().map(|seg| seg.range).chain(platform).peekable();
    if stale.peek().is_none() {
        return;
    }
    let covered = |piece: AddrRange| {
        let mut at = piece.start();
        for op in &change.ops {
            if let AsOp::Map { range, .. } = op
                && range.contains(at)
            {
                at = range.end();
            }
        }
        at >= piece.end()
    };
    if stale.all(covered) {
        return;
    }
    change.ops.insert(0, AsOp::Unmap { range });
}
