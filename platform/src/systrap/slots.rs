//! Who owns which page of the shared file: control pages of stubs, areas of guest threads.

use crate::shared::SharedFile;
use crate::stub::layout::{AREA_COUNT, AREA_SIZE, AREA_STACK, AREAS, CONTROL_SIZE, ENTRIES_SIZE, TABLE_SIZE};
use abi::{Errno, PAGE_SIZE, SysResult};
use lock::{Ranked, order};
use std::sync::Arc;

const CONTROL_COUNT: u64 = 0x4000;
const AREA_START: u64 = CONTROL_SIZE * CONTROL_COUNT;
const TABLE_COUNT: u64 = 512;
const TABLE_STRIDE: u64 = TABLE_SIZE + ENTRIES_SIZE;
const TABLE_START: u64 = AREA_START + AREA_COUNT * AREA_SIZE;

#[derive(Debug)]
struct Pool {
    free: Vec<u32>,
    next: u32,
    end: u32,
}

impl Pool {
    fn take(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let slot = self.next;
            (slot < self.end).then(|| {
                self.next += 1;
                slot
            })
        })
    }
}

/// The shared file and its free lists.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) file: SharedFile,
    controls: Ranked<order::Leaf, Pool>,
    areas: Ranked<order::Leaf, Pool>,
    tables: Ranked<order::Leaf, Pool>,
}

impl Slots {
    /// Makes the file.
    pub(super) fn new() -> SysResult<Slots> {
        let pool = |count: u64| {
            Ranked::new(Pool { free: Vec::new(), next: 0, end: u32::try_from(count).unwrap_or(0) })
        };
        Ok(Slots {
            file: SharedFile::create(c"stubs", TABLE_START + TABLE_COUNT * TABLE_STRIDE)?,
            controls: pool(CONTROL_COUNT),
            areas: pool(AREA_COUNT),
            tables: pool(TABLE_COUNT),
        })
    }
}

/// One stub's control page: the stub reads it, the sentry writes it. Zero when handed out.
#[derive(Debug)]
pub(super) struct Control {
    slots: Arc<Slots>,
    slot: u32,
}

impl Control {
    pub(super) fn take(slots: &Arc<Slots>) -> SysResult<Control> {
        let slot = slots.controls.lock().take().ok_or(Errno::EAGAIN)?;
        Ok(Control { slots: Arc::clone(slots), slot })
    }
    /// Its offset in the shared file.
    pub(super) fn offset(&self) -> u64 {
        u64::from(self.slot) * CONTROL_SIZE
    }
    /// Stores words at an offset inside the page.
    pub(super) fn store_words(&self, at: u64, words: &[u64]) {
        self.slots.file.store_words(self.offset() + at, words);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.slots.file.release(self.offset(), CONTROL_SIZE);
        self.slots.controls.lock().free.push(self.slot);
    }
}

/// One guest thread's area. Guests write it. Given back only when no stub maps it any more.
#[derive(Debug)]
pub(super) struct Area {
    slots: Arc<Slots>,
    slot: u32,
}

impl Area {
    pub(super) fn take(slots: &Arc<Slots>) -> SysResult<Area> {
        let slot = slots.areas.lock().take().ok_or(Errno::EAGAIN)?;
        Ok(Area { slots: Arc::clone(slots), slot })
    }
    /// Its offset in the shared file.
    pub(super) fn offset(&self) -> u64 {
        AREA_START + u64::from(self.slot) * AREA_SIZE
    }
    /// Its address in the stub.
    pub(super) fn address(&self) -> u64 {
        AREAS + u64::from(self.slot) * AREA_SIZE
    }
    /// Forgets its content. Whatever runs there has no state of its own in it. The pages that every thread uses
    /// (words, built frames, frames of signals) are cleared where they are: the host would have to take them out
    /// of two processes, and to find new ones.
    pub(super) fn wipe(&self) {
        for page in [0, AREA_STACK, AREA_SIZE - PAGE_SIZE] {
            self.slots.file.store_words(self.offset() + page, &[0; (PAGE_SIZE / 8) as usize]);
        }
        let rest = AREA_STACK + PAGE_SIZE;
        self.slots.file.release(self.offset() + rest, AREA_SIZE - PAGE_SIZE - rest);
    }
    /// The shared file.
    pub(super) fn file(&self) -> &SharedFile {
        &self.slots.file
    }
    /// Where `len` bytes at a stub address stand in the file, if they lie inside this area.
    pub(super) fn locate(&self, address: u64, len: u64) -> Option<u64> {
        let at = address.checked_sub(self.address())?;
        (at & 7 == 0 && at.checked_add(len)? <= AREA_SIZE).then(|| self.offset() + at)
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        self.slots.file.release(self.offset(), AREA_SIZE);
        self.slots.areas.lock().free.push(self.slot);
    }
}

/// The code of patched call sites, mapped executable in every stub of one family (forks of one program).
/// Only the sentry writes it.
#[derive(Debug)]
pub(super) struct SiteCode {
    slots: Arc<Slots>,
    slot: u32,
}

impl SiteCode {
    pub(super) fn take(slots: &Arc<Slots>) -> SysResult<SiteCode> {
        let slot = slots.tables.lock().take().ok_or(Errno::EAGAIN)?;
        Ok(SiteCode { slots: Arc::clone(slots), slot })
    }
    /// Offset in the shared file of targets and sites; entries follow.
    pub(super) fn offset(&self) -> u64 {
        TABLE_START + u64::from(self.slot) * TABLE_STRIDE
    }
    /// Stores bytes (a multiple of 8) at an offset inside.
    pub(super) fn store(&self, at: u64, bytes: &[u8]) {
        self.slots.file.store_bytes(self.offset() + at, bytes);
    }
}

impl Drop for SiteCode {
    fn drop(&mut self) {
        self.slots.file.release(self.offset(), TABLE_STRIDE);
        self.slots.tables.lock().free.push(self.slot);
    }
}
