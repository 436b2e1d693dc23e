//! [`FilePages`]: the bytes of a file that lives in memory (tmpfs, memfd, SysV and anonymous shared memory).
//!
//! Pages are extents of the memory file, indexed by offset. Sizes, offsets and lengths are in bytes.
//! Locks: `FileWrite` serialises writes and size changes and is held while bytes are copied; `FileData`
//! guards the index and is never held while guest memory is touched or mappers are told: bytes are copied
//! under a pin on the frames instead.

use crate::account::Entered;
use crate::frames::{FrameRange, Frames};
use crate::io::{GuestSink, GuestSource};
use crate::mappable::{Invalidate, MapUse, Mappable, MappableId, Translation};
use abi::{Errno, PAGE_SIZE, SysResult};
use lock::{Ranked, order};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Files from this size on get their pages in larger pieces.
const READ_AHEAD_FROM: u64 = 64 << 10;
const LARGEST_PIECE: u64 = 2 << 20;

bitflags::bitflags! {
    /// `F_SEAL_*` of fcntl(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Seals: u32 {
        /// No further seals.
        const SEAL = 1;
        /// The file cannot shrink.
        const SHRINK = 2;
        /// The file cannot grow.
        const GROW = 4;
        /// No writes.
        const WRITE = 8;
        /// No writes but through existing writable mappings.
        const FUTURE_WRITE = 16;
        /// Execute bits cannot change.
        const EXEC = 32;
    }
}

/// Bounds the pages of a group of files (a tmpfs with `size=`).
#[derive(Debug)]
pub struct PageQuota {
    limit_bytes: AtomicU64,
    used_bytes: AtomicU64,
}

impl PageQuota {
    /// At most `limit_bytes`, rounded up to pages.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Arc<PageQuota> {
        Arc::new(PageQuota { limit_bytes: AtomicU64::new(limit_bytes), used_bytes: AtomicU64::new(0) })
    }
    /// The limit, in bytes.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit_bytes.load(Ordering::Relaxed)
    }
    /// Changes the limit (remount); what is used stays.
    pub fn set_limit(&self, bytes: u64) {
        self.limit_bytes.store(bytes, Ordering::Relaxed);
    }
    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }
    fn charge(&self, bytes: u64) -> SysResult<()> {
        let limit = self.limit();
        self.used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|after| *after <= limit)
            })
            .map(|_| ())
            .map_err(|_| Errno::ENOSPC)
    }
    fn uncharge(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Where a write goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteAt {
    /// At a byte offset.
    Offset(u64),
    /// At the end, found and extended in one step (O_APPEND).
    End,
}

#[derive(Clone, Copy, Debug)]
struct Extent {
    len: u64,
    frame: u64,
}

#[derive(Default)]
struct Data {
    size: u64,
    /// By file offset; never overlapping, page aligned.
    extents: BTreeMap<u64, Extent>,
    allocated_bytes: u64,
    /// Frames taken for the next growth, so that a file that is written piece by piece stays contiguous.
    reserve: Option<FrameRange>,
    mappers: Vec<(Weak<dyn Invalidate>, usize)>,
    /// Shared mappings that may be written.
    writers: usize,
    seals: Seals,
}

/// See the module.
pub struct FilePages {
    id: MappableId,
    frames: Arc<Frames>,
    quota: Option<Arc<PageQuota>>,
    name: Option<Vec<u8>>,
    writing: Ranked<order::FileWrite, ()>,
    data: Ranked<order::FileData, Data>,
    me: Weak<FilePages>,
    entered: Entered,
}

impl std::fmt::Debug for FilePages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FilePages({:?})", self.id)
    }
}

enum Piece {
    Frames { offset: u64, len: u64 },
    Hole { len: u64 },
    End,
}

const fn floor(offset: u64) -> u64 {
    offset & !(PAGE_SIZE - 1)
}

fn ceil(offset: u64) -> SysResult<u64> {
    offset.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EFBIG)
}

fn check_end(offset: u64, len: u64) -> SysResult<u64> {
    offset.checked_add(len).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::EFBIG)
}

impl Data {
    /// The extent that holds `offset`, as (start, extent).
    fn at(&self, offset: u64) -> Option<(u64, Extent)> {
        let (start, extent) = self.extents.range(..=offset).next_back()?;
        (offset - start < extent.len).then_some((*start, *extent))
    }
    /// What is at `offset`, at most `max` bytes.
    fn piece(&self, offset: u64, max: u64) -> Piece {
        if max == 0 {
            return Piece::End;
        }
        match self.at(offset) {
            Some((start, extent)) => {
                let inside = offset - start;
                Piece::Frames { offset: extent.frame + inside, len: (extent.len - inside).min(max) }
            }
            None => {
                let next = self.extents.range(offset..).next().map_or(u64::MAX, |(start, _)| *start);
                Piece::Hole { len: (next - offset).min(max) }
            }
        }
    }
    fn insert(&mut self, at: u64, frames: FrameRange) {
        self.allocated_bytes += frames.len;
        let (mut start, mut extent) = (at, Extent { len: frames.len, frame: frames.offset });
        if let Some((before, left)) = self.extents.range(..at).next_back().map(|(s, e)| (*s, *e))
            && before + left.len == at
            && left.frame + left.len == extent.frame
        {
            start = before;
            extent = Extent { len: left.len + extent.len, frame: left.frame };
        }
        let end = start + extent.len;
        if let Some(right) = self.extents.get(&end).copied()
            && extent.frame + extent.len == right.frame
        {
            self.extents.remove(&end);
            extent.len += right.len;
        }
        self.extents.insert(start, extent);
    }
    /// Takes the frames of `[from, to)` (page aligned) out of the index.
    fn cut(&mut self, from: u64, to: u64) -> Vec<FrameRange> {
        let mut freed = Vec::new();
        let first = self.at(from).map_or(from, |(start, _)| start);
        let hit: Vec<(u64, Extent)> = self.extents.range(first..to).map(|(s, e)| (*s, *e)).collect();
        for (start, extent) in hit {
            let end = start + extent.len;
            self.extents.remove(&start);
            let (cut_from, cut_to) = (start.max(from), end.min(to));
            if start < cut_from {
                self.extents.insert(start, Extent { len: cut_from - start, frame: extent.frame });
            }
            if cut_to < end {
                let rest = Extent { len: end - cut_to, frame: extent.frame + (cut_to - start) };
                self.extents.insert(cut_to, rest);
            }
            let len = cut_to - cut_from;
            self.allocated_bytes = self.allocated_bytes.saturating_sub(len);
            freed.push(FrameRange { offset: extent.frame + (cut_from - start), len });
        }
        freed
    }
    fn mappers(&self) -> Vec<Weak<dyn Invalidate>> {
        self.mappers.iter().map(|(space, _)| space.clone()).collect()
    }
}

impl FilePages {
    /// An empty file. `id` is its device and inode.
    #[must_use]
    pub fn new(frames: &Arc<Frames>, id: MappableId) -> Arc<FilePages> {
        FilePages::with(frames, id, None, None)
    }
    /// An empty file whose pages count against `quota`, shown as `name` in /proc/pid/maps.
    #[must_use]
    pub fn with(
        frames: &Arc<Frames>,
        id: MappableId,
        quota: Option<Arc<PageQuota>>,
        name: Option<Vec<u8>>,
    ) -> Arc<FilePages> {
        Arc::new_cyclic(|me| FilePages {
            id,
            frames: Arc::clone(frames),
            quota,
            name,
            writing: Ranked::default(),
            data: Ranked::default(),
            me: Weak::clone(me),
            entered: Entered::default(),
        })
    }
    /// Bytes that the host keeps.
    #[must_use]
    pub fn resident(&self) -> u64 {
        let data = self.data.lock();
        let memory = self.frames.memory();
        let extents = data.extents.values().map(|extent| memory.resident(extent.frame, extent.len));
        extents.fold(0, u64::saturating_add)
    }
    /// Size in bytes (`st_size`).
    #[must_use]
    pub fn size(&self) -> u64 {
        self.data.lock().size
    }
    /// Bytes allocated (`st_blocks * 512`).
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.data.lock().allocated_bytes
    }

    /// Reads from `offset` on until the sink is full or the file ends; 0 at the end.
    pub fn read(&self, offset: u64, dst: &mut dyn GuestSink) -> SysResult<usize> {
        let mut done = 0usize;
        loop {
            let at = offset.checked_add(done as u64).ok_or(Errno::EINVAL)?;
            let room = dst.remaining();
            if room == 0 {
                break;
            }
            let (piece, _pin) = {
                let data = self.data.lock();
                let max = data.size.saturating_sub(at).min(room as u64);
                let piece = data.piece(at, max);
                let pin = match piece {
                    Piece::Frames { offset, len } => Some(self.frames.pin(offset, len)),
                    _ => None,
                };
                (piece, pin)
            };
            let moved = match piece {
                Piece::End => break,
                Piece::Frames { offset, len } => {
                    dst.put_pages(self.frames.memory(), offset, usize::try_from(len).unwrap_or(room))
                }
                Piece::Hole { len } => dst.put_zeros(usize::try_from(len).unwrap_or(room)),
            };
            match moved {
                Ok(0) => break,
                Ok(n) => done = done.saturating_add(n),
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Writes all of the source (or until it or the memory fails). Returns the count and the offset behind the
    /// last byte. `EPERM` on a sealed file, `EFBIG` beyond the largest size, `ENOSPC` over the quota.
    pub fn write(&self, at: WriteAt, src: &mut dyn GuestSource) -> SysResult<(usize, u64)> {
        let _writing = self.writing.lock();
        let (start, size, seals) = {
            let data = self.data.lock();
            let start = match at {
                WriteAt::Offset(offset) => offset,
                WriteAt::End => data.size,
            };
            (start, data.size, data.seals)
        };
        if src.remaining() == 0 {
            return Ok((0, start));
        }
        if seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        let mut limit = i64::MAX.cast_unsigned();
        if seals.contains(Seals::GROW) {
            limit = size;
            if start >= size {
                return Err(Errno::EPERM);
            }
        }
        if start >= limit {
            return Err(Errno::EFBIG);
        }
        let mut done = 0usize;
        loop {
            let at = start.saturating_add(done as u64);
            let want = (src.remaining() as u64).min(limit.saturating_sub(at));
            if want == 0 {
                break;
            }
            let step = self.write_piece(at, want, src);
            match step {
                Ok(0) => break,
                Ok(n) => done = done.saturating_add(n),
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok((done, start.saturating_add(done as u64)))
    }

    fn write_piece(&self, at: u64, want: u64, src: &mut dyn GuestSource) -> SysResult<usize> {
        let (offset, len, _pin) = {
            let mut data = self.data.lock();
            let (offset, len) = self.backed(&mut data, at, want)?;
            (offset, len, self.frames.pin(offset, len))
        };
        let len = usize::try_from(len).map_err(|_| Errno::EFBIG)?;
        let n = src.take_pages(self.frames.memory(), offset, len)?;
        let mut data = self.data.lock();
        data.size = data.size.max(at.saturating_add(n as u64));
        Ok(n)
    }

    /// Makes sure that a page is behind `at`; returns its place in the memory file and how many of the `want`
    /// bytes are contiguous there.
    fn backed(&self, data: &mut Data, at: u64, want: u64) -> SysResult<(u64, u64)> {
        if let Piece::Hole { len } = data.piece(at, want) {
            self.fill_hole(data, at, len)?;
        }
        match data.piece(at, want) {
            Piece::Frames { offset, len } => Ok((offset, len)),
            _ => Err(Errno::ENOSPC),
        }
    }

    /// Allocates pages for the hole of `len` bytes at `at`: all of it, or as much as the quota allows (at least
    /// one page).
    fn fill_hole(&self, data: &mut Data, at: u64, len: u64) -> SysResult<()> {
        let first = floor(at);
        let mut bytes = ceil(at.saturating_add(len))?.saturating_sub(first).min(LARGEST_PIECE);
        if let Some(quota) = &self.quota
            && let Err(error) = quota.charge(bytes)
        {
            if bytes == PAGE_SIZE {
                return Err(error);
            }
            bytes = PAGE_SIZE;
            quota.charge(bytes)?;
        }
        match self.take_frames(data, first, bytes) {
            Ok(range) => {
                if let (true, Some(quota)) = (range.len < bytes, &self.quota) {
                    quota.uncharge(bytes - range.len);
                }
                data.insert(first, range);
                self.entered.once(&self.me, || self.frames.payer());
                Ok(())
            }
            Err(_) => {
                if let Some(quota) = &self.quota {
                    quota.uncharge(bytes);
                }
                Err(Errno::ENOSPC)
            }
        }
    }

    /// `bytes` or fewer of contiguous frames.
    fn take_frames(&self, data: &mut Data, first: u64, bytes: u64) -> SysResult<FrameRange> {
        if data.reserve.is_none() && first >= READ_AHEAD_FROM && first >= floor(data.size) {
            let piece = first.next_power_of_two().min(LARGEST_PIECE).max(bytes);
            data.reserve = self.frames.alloc(piece).ok();
            if let Some(reserve) = data.reserve.filter(|reserve| reserve.len >= LARGEST_PIECE) {
                self.frames.advise(reserve, platform::memory::HugePages::Wanted);
            }
        }
        if first >= floor(data.size)
            && let Some(reserve) = data.reserve.take()
        {
            let len = bytes.min(reserve.len);
            if reserve.len > len {
                data.reserve = Some(FrameRange { offset: reserve.offset + len, len: reserve.len - len });
            }
            return Ok(FrameRange { offset: reserve.offset, len });
        }
        self.frames.alloc(bytes)
    }

    fn give_back(&self, freed: &[FrameRange]) {
        if freed.is_empty() {
            return;
        }
        if let Some(quota) = &self.quota {
            quota.uncharge(freed.iter().map(|range| range.len).sum());
        }
        self.frames.release_all(freed);
    }

    /// ftruncate(2). Mappers lose the pages behind the new end. `EPERM` when sealed.
    pub fn truncate(&self, size: u64) -> SysResult<()> {
        check_end(size, 0)?;
        let _writing = self.writing.lock();
        let edge = ceil(size)?;
        let (freed, reserve, mappers) = {
            let mut data = self.data.lock();
            if (size < data.size && data.seals.contains(Seals::SHRINK))
                || (size > data.size && data.seals.contains(Seals::GROW))
            {
                return Err(Errno::EPERM);
            }
            let shrinks = size < data.size;
            data.size = size;
            if !shrinks {
                return Ok(());
            }
            // The tail of the last page must read as zero when the file grows again.
            if size < edge
                && let Piece::Frames { offset, len } = data.piece(size, edge - size)
            {
                self.frames.memory().zero(offset, len)?;
            }
            let freed = data.cut(edge, u64::MAX);
            (freed, data.reserve.take(), data.mappers())
        };
        for space in mappers.iter().filter_map(Weak::upgrade) {
            space.invalidate(self.id, edge, u64::MAX - edge);
        }
        self.give_back(&freed);
        if let Some(reserve) = reserve {
            self.frames.release(reserve);
        }
        Ok(())
    }

    /// FALLOC_FL_PUNCH_HOLE: the range reads as zero afterwards; the size stays.
    pub fn punch_hole(&self, offset: u64, len: u64) -> SysResult<()> {
        let end = check_end(offset, len)?;
        let _writing = self.writing.lock();
        let (freed, from, to, mappers) = {
            let mut data = self.data.lock();
            if data.seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
                return Err(Errno::EPERM);
            }
            let (from, to) = (ceil(offset)?, floor(end));
            if from > to {
                // Inside one page.
                self.zero_part(&data, offset, end)?;
                return Ok(());
            }
            self.zero_part(&data, offset, from.min(end))?;
            self.zero_part(&data, to.max(offset), end)?;
            (data.cut(from, to), from, to, data.mappers())
        };
        if from < to {
            for space in mappers.iter().filter_map(Weak::upgrade) {
                space.invalidate(self.id, from, to - from);
            }
        }
        self.give_back(&freed);
        Ok(())
    }

    fn zero_part(&self, data: &Data, from: u64, to: u64) -> SysResult<()> {
        match data.piece(from, to.saturating_sub(from)) {
            Piece::Frames { offset, len } => self.frames.memory().zero(offset, len),
            _ => Ok(()),
        }
    }

    /// fallocate(2) without a mode, or with FALLOC_FL_KEEP_SIZE: the range gets pages.
    pub fn allocate(&self, offset: u64, len: u64, size: KeepSize) -> SysResult<()> {
        let end = check_end(offset, len)?;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let _writing = self.writing.lock();
        let mut data = self.data.lock();
        if end > data.size && size == KeepSize::No && data.seals.contains(Seals::GROW) {
            return Err(Errno::EPERM);
        }
        let mut at = floor(offset);
        while at < end {
            // What was allocated stays when the rest cannot be had, as in Linux without a quota to undo.
            let (_, got) = self.backed(&mut data, at, ceil(end)? - at)?;
            at = at.saturating_add(got);
        }
        if size == KeepSize::No {
            data.size = data.size.max(end);
        }
        Ok(())
    }

    /// SEEK_DATA: the first byte with a page at or behind `offset`; `ENXIO` when there is none.
    pub fn seek_data(&self, offset: u64) -> SysResult<u64> {
        let data = self.data.lock();
        if offset >= data.size {
            return Err(Errno::ENXIO);
        }
        match data.piece(offset, data.size - offset) {
            Piece::Frames { .. } => Ok(offset),
            Piece::Hole { len } if offset + len < data.size => Ok(offset + len),
            _ => Err(Errno::ENXIO),
        }
    }
    /// SEEK_HOLE: the first byte without a page at or behind `offset`; the end of the file is a hole.
    pub fn seek_hole(&self, offset: u64) -> SysResult<u64> {
        let data = self.data.lock();
        if offset >= data.size {
            return Err(Errno::ENXIO);
        }
        let mut at = offset;
        while let Piece::Frames { len, .. } = data.piece(at, data.size.saturating_sub(at)) {
            at += len;
        }
        Ok(at)
    }

    /// F_GET_SEALS.
    #[must_use]
    pub fn seals(&self) -> Seals {
        self.data.lock().seals
    }
    /// F_ADD_SEALS. `EPERM` when sealed against it, `EBUSY` for WRITE with writable mappings around.
    pub fn add_seals(&self, seals: Seals) -> SysResult<()> {
        let _writing = self.writing.lock();
        let mut data = self.data.lock();
        if data.seals.contains(Seals::SEAL) {
            return Err(Errno::EPERM);
        }
        if seals.contains(Seals::WRITE) && !data.seals.contains(Seals::WRITE) && data.writers > 0 {
            return Err(Errno::EBUSY);
        }
        data.seals |= seals;
        Ok(())
    }

    /// Copies bytes out, for the kernel's own use (symlinks, checkpoints). Fewer than asked at the end.
    pub fn read_bytes(&self, offset: u64, buf: &mut [u8]) -> SysResult<usize> {
        let mut sink = crate::io::SliceSink::new(buf);
        self.read(offset, &mut sink)
    }
    /// Copies bytes in, for the kernel's own use.
    pub fn write_bytes(&self, offset: u64, bytes: &[u8]) -> SysResult<usize> {
        let mut source = crate::io::SliceSource::new(bytes);
        self.write(WriteAt::Offset(offset), &mut source).map(|(n, _)| n)
    }
}

/// Whether fallocate(2) leaves the size alone (FALLOC_FL_KEEP_SIZE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeepSize {
    /// The size stays.
    Yes,
    /// The file grows to the end of the range.
    No,
}

impl Mappable for FilePages {
    fn id(&self) -> MappableId {
        self.id
    }
    fn translate(&self, offset: u64, len: u64, usage: MapUse) -> SysResult<Translation> {
        let mut data = self.data.lock();
        let end = ceil(data.size)?;
        if offset >= end {
            return Err(Errno::ENXIO);
        }
        let max = ceil(len)?.min(end - offset);
        match (data.piece(offset, max), usage) {
            (Piece::Hole { len }, MapUse::Read) => return Ok(Translation::Hole { len }),
            (Piece::Hole { len }, MapUse::SharedWrite) => {
                // A touched page of a bounded file should not use up the bound of its neighbours.
                let len = if self.quota.is_some() { len.min(PAGE_SIZE * 16) } else { len };
                self.fill_hole(&mut data, offset, len)?;
            }
            _ => {}
        }
        match data.piece(offset, max) {
            Piece::Frames { offset, len } => Ok(Translation::Memory { offset, len }),
            _ => Err(Errno::ENOSPC),
        }
    }
    fn cached(&self, offset: u64, pages: &mut [u8]) -> SysResult<()> {
        let data = self.data.lock();
        for (index, page) in (0_u64..).zip(pages) {
            let at = offset.saturating_add(index * PAGE_SIZE);
            let frame = data.at(at).map(|(start, extent)| extent.frame + (floor(at) - start));
            *page = u8::from(frame.is_some_and(|frame| self.frames.memory().resident(frame, PAGE_SIZE) > 0));
        }
        Ok(())
    }
    fn mapped(&self, space: &Weak<dyn Invalidate>) {
        let mut data = self.data.lock();
        match data.mappers.iter_mut().find(|(known, _)| known.ptr_eq(space)) {
            Some((_, count)) => *count += 1,
            None => data.mappers.push((space.clone(), 1)),
        }
    }
    fn unmapped(&self, space: &Weak<dyn Invalidate>) {
        let mut data = self.data.lock();
        if let Some(at) = data.mappers.iter().position(|(known, _)| known.ptr_eq(space))
            && let Some((_, count)) = data.mappers.get_mut(at)
        {
            *count -= 1;
            if *count == 0 {
                data.mappers.swap_remove(at);
            }
        }
    }
    fn map_shared_write(&self) -> SysResult<()> {
        let mut data = self.data.lock();
        if data.seals.intersects(Seals::WRITE | Seals::FUTURE_WRITE) {
            return Err(Errno::EPERM);
        }
        data.writers += 1;
        Ok(())
    }
    fn inherit_shared_write(&self) {
        self.data.lock().writers += 1;
    }
    fn unmap_shared_write(&self) {
        let mut data = self.data.lock();
        data.writers = data.writers.saturating_sub(1);
    }
    fn punch(&self, offset: u64, len: u64) -> SysResult<()> {
        self.punch_hole(offset, len)
    }
    fn name(&self) -> Option<Vec<u8>> {
        self.name.clone()
    }
}

impl Drop for FilePages {
    fn drop(&mut self) {
        let data = self.data.get_mut();
        let mut freed: Vec<FrameRange> = std::mem::take(&mut data.extents)
            .into_values()
            .map(|extent| FrameRange { offset: extent.frame, len: extent.len })
            .collect();
        if let Some(quota) = &self.quota {
            quota.uncharge(data.allocated_bytes);
        }
        freed.extend(data.reserve.take());
        if !freed.is_empty() {
            self.frames.release_all(&freed);
        }
    }
}

#[cfg(test)]
mod tests;
