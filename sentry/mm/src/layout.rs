//! The areas of an address space, in order, with their sums. Lock: `MmLayout`.

use crate::vma::{Vma, VmaFlags, VmaName};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult};
use platform::Prot;
use std::collections::BTreeMap;

/// Room that is kept free below a stack (vm.stack_guard_gap).
pub(crate) const STACK_GUARD: u64 = 256 * PAGE_SIZE;

/// Sums over all areas, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// All areas (VmSize).
    pub all: u64,
    /// Private writable (VmData).
    pub data: u64,
    /// Stacks (VmStk).
    pub stack: u64,
    /// Executable and not writable (VmExe + VmLib).
    pub exec: u64,
    /// Locked (VmLck).
    pub locked: u64,
    /// Counted against the commit limit.
    pub committed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Layout {
    vmas: BTreeMap<u64, Vma>,
    pub(crate) totals: Totals,
    pub(crate) user: AddrRange,
    pub(crate) reserved: Vec<AddrRange>,
    /// Searches for room go downwards from here.
    pub(crate) mmap_top: u64,
    /// No hole above `search_from` is larger than `hole_above`.
    search_from: u64,
    hole_above: u64,
    pub(crate) brk: AddrRange,
    /// Flags of new areas (mlockall(MCL_FUTURE)).
    pub(crate) future: VmaFlags,
    /// Grows with every change of the areas.
    pub(crate) generation: u64,
}

impl Layout {
    pub(crate) fn new(user: AddrRange, reserved: &[AddrRange]) -> Layout {
        let mut reserved = reserved.to_vec();
        reserved.sort_unstable_by_key(|range| range.start());
        Layout { user, reserved, ..Layout::default() }
    }
    pub(crate) fn set_mmap_top(&mut self, top: u64) {
        self.mmap_top = top;
        self.search_from = top;
        self.hole_above = 0;
    }
    pub(crate) fn find(&self, addr: u64) -> Option<&Vma> {
        self.vmas.range(..=addr).next_back().map(|(_, vma)| vma).filter(|vma| vma.range.contains(addr))
    }
    /// The first area that ends behind `addr`.
    pub(crate) fn at_or_after(&self, addr: u64) -> Option<&Vma> {
        self.find(addr).or_else(|| self.vmas.range(addr..).next().map(|(_, vma)| vma))
    }
    /// The last area that ends at or before `addr`.
    pub(crate) fn before(&self, addr: u64) -> Option<&Vma> {
        self.vmas.range(..addr).next_back().map(|(_, vma)| vma).filter(|vma| vma.range.end() <= addr)
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Vma> {
        self.vmas.values()
    }
    pub(crate) fn count(&self) -> usize {
        self.vmas.len()
    }
    /// Areas that overlap `range`, in order.
    pub(crate) fn overlapping(&self, range: AddrRange) -> impl Iterator<Item = &Vma> {
        let first = self.find(range.start()).map_or(range.start(), |vma| vma.range.start());
        self.vmas.range(first..range.end().max(first)).map(|(_, vma)| vma)
    }
    /// Whether areas cover all of `range`.
    pub(crate) fn covers(&self, range: AddrRange) -> bool {
        let mut at = range.start();
        for vma in self.overlapping(range) {
            if vma.range.start() > at {
                return false;
            }
            at = vma.range.end();
        }
        at >= range.end()
    }

    fn count_in(&mut self, vma: &Vma) {
        self.sum(vma, u64::wrapping_add);
    }
    fn count_out(&mut self, vma: &Vma) {
        self.sum(vma, u64::wrapping_sub);
    }
    fn sum(&mut self, vma: &Vma, op: fn(u64, u64) -> u64) {
        let len = vma.range.len();
        let totals = &mut self.totals;
        totals.all = op(totals.all, len);
        if vma.is_data() {
            totals.data = op(totals.data, len);
        }
        if vma.flags.contains(VmaFlags::GROWSDOWN) {
            totals.stack = op(totals.stack, len);
        }
        if vma.prot.contains(Prot::EXEC) && !vma.prot.contains(Prot::WRITE) {
            totals.exec = op(totals.exec, len);
        }
        if vma.flags.contains(VmaFlags::LOCKED) {
            totals.locked = op(totals.locked, len);
        }
        if vma.flags.contains(VmaFlags::ACCOUNT) {
            totals.committed = op(totals.committed, len);
        }
    }

    /// `EPERM` when something in the range is sealed (mseal(2)).
    pub(crate) fn check_unsealed(&self, range: AddrRange) -> SysResult<()> {
        let sealed = |vma: &Vma| vma.flags.contains(VmaFlags::SEALED);
        if self.overlapping(range).any(sealed) { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Adds an area where nothing is, merged with its neighbours where they continue each other.
    pub(crate) fn insert(&mut self, vma: Vma) {
        self.generation += 1;
        self.count_in(&vma);
        let mut vma = vma;
        if let Some(left) = self.before(vma.range.start())
            && left.continues_in(&vma)
        {
            let mut joined = left.clone();
            joined.range = AddrRange::new(left.range.start(), vma.range.end()).unwrap_or_default();
            vma = joined;
        }
        if let Some(right) = self.vmas.get(&vma.range.end())
            && vma.continues_in(right)
        {
            let end = right.range.end();
            self.vmas.remove(&vma.range.end());
            vma.range = AddrRange::new(vma.range.start(), end).unwrap_or_default();
        }
        self.vmas.insert(vma.range.start(), vma);
    }

    /// Takes out what overlaps `range`, splitting at its borders.
    pub(crate) fn remove(&mut self, range: AddrRange) -> Vec<Vma> {
        if range.is_empty() {
            return Vec::new();
        }
        let hit: Vec<u64> = self.overlapping(range).map(|vma| vma.range.start()).collect();
        let mut removed = Vec::with_capacity(hit.len());
        for start in hit {
            let Some(vma) = self.vmas.remove(&start) else { continue };
            let middle = vma.part(range);
            self.count_out(&middle);
            for rest in [
                AddrRange::new(vma.range.start(), middle.range.start()),
                AddrRange::new(middle.range.end(), vma.range.end()),
            ] {
                if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                    self.vmas.insert(rest.start(), vma.part(rest));
                }
            }
            removed.push(middle);
        }
        if !removed.is_empty() {
            self.generation += 1;
            if range.end() > self.search_from {
                self.search_from = range.end().min(self.mmap_top);
                self.hole_above = self.hole_above.max(range.len());
            }
        }
        removed
    }

    fn fit_top(&self, low: u64, high: u64, len: u64, align: u64) -> Option<u64> {
        let fits = |low: u64, high: u64| {
            let start = high.checked_sub(len)?;
            let start = start - start % align;
            (start >= low).then_some(start)
        };
        let mut high = high;
        for reserved in self.reserved.iter().rev() {
            if reserved.start() < high && reserved.end() > low {
                if let Some(start) = fits(low.max(reserved.end()), high) {
                    return Some(start);
                }
                high = reserved.start();
            }
        }
        fits(low, high)
    }

    /// The highest free place for `len` bytes inside `[low, high)`.
    fn search(&self, low: u64, high: u64, len: u64, align: u64) -> (Option<u64>, u64) {
        let mut high = high;
        let mut largest = 0;
        if let Some(vma) = self.find(high) {
            high = vma.range.start();
        }
        for vma in self.vmas.range(..high).rev().map(|(_, vma)| vma) {
            let floor = vma.range.end().max(low);
            if floor < high {
                let top = high - self.guard_below(high).min(high - floor);
                if let Some(start) = self.fit_top(floor, top, len, align) {
                    return (Some(start), largest);
                }
                largest = largest.max(high - floor);
            }
            high = high.min(vma.range.start());
            if high <= low {
                return (None, largest);
            }
        }
        (self.fit_top(low, high.saturating_sub(self.guard_below(high)), len, align), largest)
    }
    fn guard_below(&self, addr: u64) -> u64 {
        match self.vmas.get(&addr) {
            Some(vma) if vma.flags.contains(VmaFlags::GROWSDOWN) => STACK_GUARD,
            _ => 0,
        }
    }

    /// Room for `len` bytes, top-down from the mmap base, then anywhere.
    pub(crate) fn find_room(&mut self, len: u64, align: u64) -> Option<u64> {
        let low = self.user.start();
        if len > self.hole_above && align == PAGE_SIZE {
            let (found, largest) = self.search(low, self.search_from, len, align);
            if let Some(start) = found {
                self.search_from = start;
                self.hole_above = self.hole_above.max(largest);
                return Some(start);
            }
        }
        let (found, _) = self.search(low, self.mmap_top, len, align);
        if found.is_some() {
            return found;
        }
        self.search(low, self.user.end(), len, align).0
    }
    /// Room for `len` bytes below `high` (MAP_32BIT).
    pub(crate) fn find_room_below(&self, len: u64, high: u64) -> Option<u64> {
        self.search(self.user.start(), high, len, PAGE_SIZE).0
    }
    /// Whether nothing is in `range` (stub ranges count as something).
    pub(crate) fn is_free(&self, range: AddrRange) -> bool {
        self.user.covers(range)
            && self.overlapping(range).next().is_none()
            && !self.reserved.iter().any(|reserved| reserved.overlaps(range))
    }
    /// Renames the areas inside `range`.
    pub(crate) fn update(&mut self, range: AddrRange, mut change: impl FnMut(&mut Vma)) {
        for mut vma in self.remove(range) {
            change(&mut vma);
            self.insert(vma);
        }
    }
}

impl VmaName {
    /// As /proc/pid/maps shows it; `None` for plain memory.
    #[must_use]
    pub fn text(&self) -> Option<Vec<u8>> {
        match self {
            VmaName::None => None,
            VmaName::Heap => Some(b"[heap]".to_vec()),
            VmaName::Stack => Some(b"[stack]".to_vec()),
            VmaName::Vdso => Some(b"[vdso]".to_vec()),
            VmaName::Vvar => Some(b"[vvar]".to_vec()),
            VmaName::Anon(name) => {
                let mut text = b"[anon:".to_vec();
                text.extend_from_slice(name);
                text.push(b']');
                Some(text)
            }
        }
    }
}
