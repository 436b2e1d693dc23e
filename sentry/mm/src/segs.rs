//! Which pages of an address space are mapped in the stub, to what, and how. Lock: `MmPages`.
//!
//! A segment is a run of addresses over contiguous bytes of one home. Its `prot` is what the stub has, so it
//! also says what the kernel's own copies may do. A small direct-mapped cache serves the copies of a few bytes;
//! its entries are written under the shared lock (they are atomics) and cleared under the exclusive one.

use abi::{AddrRange, PAGE_SIZE};
use platform::{AsOp, Backing, Prot};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where the bytes of a segment are.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    /// Frames of which this address space holds references (private memory).
    Frames(u64),
    /// Frames that belong to a mapped object, which tells before it takes them away.
    Object(u64),
    /// A donated host file.
    Host(Arc<OwnedFd>, u64),
}

impl Home {
    pub(crate) fn at(&self, delta: u64) -> Home {
        match self {
            Home::Frames(offset) => Home::Frames(offset + delta),
            Home::Object(offset) => Home::Object(offset + delta),
            Home::Host(fd, offset) => Home::Host(Arc::clone(fd), offset + delta),
        }
    }
    fn continues_in(&self, len: u64, next: &Home) -> bool {
        match (self, next) {
            (Home::Frames(a), Home::Frames(b)) | (Home::Object(a), Home::Object(b)) => a + len == *b,
            (Home::Host(f, a), Home::Host(g, b)) => Arc::ptr_eq(f, g) && a + len == *b,
            _ => false,
        }
    }
    /// Offset in the memory file.
    pub(crate) fn frame(&self) -> Option<u64> {
        match self {
            Home::Frames(offset) | Home::Object(offset) => Some(*offset),
            Home::Host(..) => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Seg {
    pub(crate) range: AddrRange,
    pub(crate) home: Home,
    pub(crate) prot: Prot,
    /// The object was asked for writing (shared mappings): WRITE may be given without asking again.
    pub(crate) writable_home: bool,
}

impl Seg {
    pub(crate) fn part(&self, range: AddrRange) -> Seg {
        let range = self.range.intersect(range).unwrap_or_default();
        let home = self.home.at(range.start().saturating_sub(self.range.start()));
        Seg { range, home, prot: self.prot, writable_home: self.writable_home }
    }
    fn continues_in(&self, next: &Seg) -> bool {
        self.range.end() == next.range.start()
            && self.prot == next.prot
            && self.writable_home == next.writable_home
            && self.home.continues_in(self.range.len(), &next.home)
    }
    /// The home of the byte at `addr`.
    pub(crate) fn home_at(&self, addr: u64) -> Home {
        self.home.at(addr.saturating_sub(self.range.start()))
    }
    /// The operation that maps it.
    pub(crate) fn map_op(&self, populate: bool) -> AsOp {
        let (backing, shared) = match &self.home {
            Home::Frames(offset) | Home::Object(offset) => (Backing::Memory { offset: *offset }, true),
            Home::Host(fd, offset) => {
                (Backing::Host { fd: Arc::clone(fd), offset: *offset }, self.writable_home)
            }
        };
        AsOp::Map { range: self.range, prot: self.prot, backing, shared, populate }
    }
}

const CACHE: usize = 64;
const VALID: u64 = 1;
const WRITABLE: u64 = 2;

#[derive(Debug)]
struct Cache([AtomicU64; CACHE]);

impl Default for Cache {
    fn default() -> Cache {
        Cache([const { AtomicU64::new(0) }; CACHE])
    }
}

impl Cache {
    // An entry is [frame page: 32][rest of the page number: 30][writable: 1][valid: 1].
    fn slot(page: u64) -> usize {
        usize::try_from(page % CACHE as u64).unwrap_or(0)
    }
    fn key(page: u64) -> u64 {
        (page / CACHE as u64) & 0x3fff_ffff
    }
    fn get(&self, addr: u64, write: bool) -> Option<u64> {
        let page = addr / PAGE_SIZE;
        let entry = self.0.get(Cache::slot(page))?.load(Ordering::Relaxed);
        let need = VALID | if write { WRITABLE } else { 0 };
        if entry & need != need || (entry >> 2) & 0x3fff_ffff != Cache::key(page) {
            return None;
        }
        Some((entry >> 32) * PAGE_SIZE + addr % PAGE_SIZE)
    }
    fn put(&self, addr: u64, frame: u64, write: bool) {
        let page = addr / PAGE_SIZE;
        let Ok(frame_page) = u32::try_from(frame / PAGE_SIZE) else { return };
        if page >= 1 << 36 {
            return;
        }
        let flags = VALID | if write { WRITABLE } else { 0 };
        let entry = u64::from(frame_page) << 32 | Cache::key(page) << 2 | flags;
        if let Some(slot) = self.0.get(Cache::slot(page)) {
            slot.store(entry, Ordering::Relaxed);
        }
    }
    fn forget(&self, range: AddrRange) {
        let pages = range.len() / PAGE_SIZE;
        if pages >= CACHE as u64 {
            for slot in &self.0 {
                slot.store(0, Ordering::Relaxed);
            }
            return;
        }
        for page in 0..pages {
            if let Some(slot) = self.0.get(Cache::slot(range.start() / PAGE_SIZE + page)) {
                slot.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Pages {
    segs: BTreeMap<u64, Seg>,
    cache: Cache,
}

impl Pages {
    /// Offset in the memory file of the byte at `addr`, if a copy may go there (within the page).
    pub(crate) fn cached(&self, addr: u64, write: bool) -> Option<u64> {
        self.cache.get(addr, write)
    }
    /// Remembers the page of `addr`, which is in `seg`.
    pub(crate) fn remember(&self, addr: u64, seg: &Seg) {
        if let Some(frame) = seg.home_at(addr).frame()
            && !seg.prot.is_empty()
        {
            self.cache.put(addr, frame, seg.prot.contains(Prot::WRITE));
        }
    }
    pub(crate) fn find(&self, addr: u64) -> Option<&Seg> {
        self.segs.range(..=addr).next_back().map(|(_, seg)| seg).filter(|seg| seg.range.contains(addr))
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Seg> {
        self.segs.values()
    }
    pub(crate) fn overlapping(&self, range: AddrRange) -> impl Iterator<Item = &Seg> {
        let first = self.find(range.start()).map_or(range.start(), |seg| seg.range.start());
        self.segs.range(first..range.end().max(first)).map(|(_, seg)| seg)
    }
    /// The run of addresses without segments around `addr`, inside `bounds`.
    pub(crate) fn hole_around(&self, addr: u64, bounds: AddrRange) -> AddrRange {
        let low = self.segs.range(..=addr).next_back().map_or(0, |(_, seg)| seg.range.end());
        let high = self.segs.range(addr..).next().map_or(u64::MAX, |(start, _)| *start);
        AddrRange::new(low.max(bounds.start()), high.min(bounds.end())).unwrap_or_default()
    }
    /// Adds a segment where none is.
    pub(crate) fn insert(&mut self, seg: Seg) {
        let mut seg = seg;
        if let Some(left) = self.segs.range(..seg.range.start()).next_back().map(|(_, left)| left)
            && left.continues_in(&seg)
        {
            let range = AddrRange::new(left.range.start(), seg.range.end()).unwrap_or_default();
            seg = Seg { range, ..left.clone() };
        }
        if let Some(right) = self.segs.get(&seg.range.end())
            && seg.continues_in(right)
        {
            let end = right.range.end();
            self.segs.remove(&seg.range.end());
            seg.range = AddrRange::new(seg.range.start(), end).unwrap_or_default();
        }
        self.segs.insert(seg.range.start(), seg);
    }
    /// Takes out what overlaps `range`, splitting at its borders.
    pub(crate) fn cut(&mut self, range: AddrRange) -> Vec<Seg> {
        if range.is_empty() {
            return Vec::new();
        }
        let hit: Vec<u64> = self.overlapping(range).map(|seg| seg.range.start()).collect();
        if hit.is_empty() {
            return Vec::new();
        }
        self.cache.forget(range);
        let mut out = Vec::with_capacity(hit.len());
        for start in hit {
            let Some(seg) = self.segs.remove(&start) else { continue };
            let middle = seg.part(range);
            for rest in [
                AddrRange::new(seg.range.start(), middle.range.start()),
                AddrRange::new(middle.range.end(), seg.range.end()),
            ] {
                if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                    self.segs.insert(rest.start(), seg.part(rest));
                }
            }
            out.push(middle);
        }
        out
    }
    /// Changes the protection of the segments inside `range`.
    pub(crate) fn protect(&mut self, range: AddrRange, mut prot: impl FnMut(&Seg) -> Prot) {
        for mut seg in self.cut(range) {
            seg.prot = prot(&seg);
            self.insert(seg);
        }
    }
    /// Empties the table.
    pub(crate) fn take_all(&mut self) -> Vec<Seg> {
        if let Some(all) = AddrRange::new(0, u64::MAX) {
            self.cache.forget(all);
        }
        std::mem::take(&mut self.segs).into_values().collect()
    }
}
