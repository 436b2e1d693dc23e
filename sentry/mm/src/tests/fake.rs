//! A stub that is a table: page number to backing and protection.

use crate::{FaultSignal, MemoryManager};
use abi::{AddrRange, PAGE_SIZE, SysResult};
use parking_lot::Mutex;
use platform::memory::MemoryFile;
use platform::{Access, AddressSpace, AsOp, Backing, Context, OpBatch, Platform, Prot, ThreadState};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(super) struct FakePlatform {
    memory: Arc<MemoryFile>,
    newest: Mutex<Option<Arc<FakeSpace>>>,
    postpone: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Place {
    Memory(u64),
    Host(Arc<OwnedFd>, u64),
}

pub(super) struct FakeSpace {
    memory: Arc<MemoryFile>,
    table: Mutex<BTreeMap<u64, (Place, Prot)>>,
    queue: Mutex<Vec<OpBatch>>,
    maps: AtomicUsize,
    postpone: Arc<AtomicBool>,
}

impl FakePlatform {
    pub(super) fn new() -> Arc<FakePlatform> {
        Arc::new(FakePlatform {
            memory: Arc::new(MemoryFile::create(1 << 36).unwrap()),
            newest: Mutex::new(None),
            postpone: Arc::new(AtomicBool::new(false)),
        })
    }
    pub(super) fn newest(&self) -> Arc<FakeSpace> {
        self.newest.lock().clone().unwrap()
    }
    pub(super) fn postpone(&self, yes: bool) {
        self.postpone.store(yes, Ordering::SeqCst);
    }
}

impl Platform for FakePlatform {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn new_address_space(&self) -> SysResult<Arc<dyn AddressSpace>> {
        let space = Arc::new(FakeSpace {
            memory: Arc::clone(&self.memory),
            table: Mutex::default(),
            queue: Mutex::default(),
            maps: AtomicUsize::new(0),
            postpone: Arc::clone(&self.postpone),
        });
        *self.newest.lock() = Some(Arc::clone(&space));
        Ok(space)
    }
    fn user_range(&self) -> AddrRange {
        AddrRange::new(0x10000, 0x7fff_ffff_f000).unwrap()
    }
    fn reserved(&self) -> &[AddrRange] {
        &[]
    }
    fn vdso(&self) -> Option<AddrRange> {
        AddrRange::new(0x7fff_f000_0000, 0x7fff_f000_2000)
    }
    fn vvar(&self) -> Option<AddrRange> {
        AddrRange::new(0x7fff_effe_0000, 0x7fff_effe_4000)
    }
    fn memory(&self) -> &Arc<MemoryFile> {
        &self.memory
    }
}

fn page_numbers(range: AddrRange) -> std::ops::Range<u64> {
    range.start() / PAGE_SIZE..range.end() / PAGE_SIZE
}

impl FakeSpace {
    fn carry_out(&self, batch: &OpBatch) {
        let mut table = self.table.lock();
        for op in &batch.ops {
            match op {
                AsOp::Map { range, prot, backing, .. } => {
                    self.maps.fetch_add(1, Ordering::SeqCst);
                    for (at, page) in page_numbers(*range).enumerate() {
                        let delta = at as u64 * PAGE_SIZE;
                        let place = match backing {
                            Backing::Memory { offset } => Place::Memory(offset + delta),
                            Backing::Host { fd, offset } => Place::Host(Arc::clone(fd), offset + delta),
                        };
                        table.insert(page, (place, *prot));
                    }
                }
                AsOp::Unmap { range } => table.retain(|page, _| !page_numbers(*range).contains(page)),
                AsOp::Protect { range, prot } => {
                    for (_, entry) in table.range_mut(page_numbers(*range)) {
                        entry.1 = *prot;
                    }
                }
            }
        }
    }
    fn flush(&self) {
        let queue = std::mem::take(&mut *self.queue.lock());
        for mut batch in queue {
            self.carry_out(&batch);
            batch.complete();
        }
    }
    pub(super) fn maps_done(&self) -> usize {
        self.flush();
        self.maps.load(Ordering::SeqCst)
    }
    pub(super) fn mapped_pages(&self) -> usize {
        self.flush();
        self.table.lock().len()
    }
    fn entry(&self, addr: u64, write: bool) -> Option<Place> {
        self.flush();
        let table = self.table.lock();
        let (place, prot) = table.get(&(addr / PAGE_SIZE))?;
        let good = if write { prot.contains(Prot::WRITE) } else { !prot.is_empty() };
        if !good {
            return None;
        }
        if let Place::Host(fd, offset) = place {
            let size = u64::try_from(rustix::fs::fstat(&**fd).unwrap().st_size).unwrap();
            if *offset >= size {
                return None;
            }
        }
        Some(place.clone())
    }
    pub(super) fn may_write(&self, addr: u64) -> bool {
        self.entry(addr, true).is_some()
    }
}

impl AddressSpace for FakeSpace {
    fn apply(&self, batch: OpBatch) -> SysResult<()> {
        self.flush();
        let mut batch = batch;
        self.carry_out(&batch);
        batch.complete();
        Ok(())
    }
    fn apply_on_resume(&self, batch: OpBatch) {
        if self.postpone.load(Ordering::SeqCst) {
            self.queue.lock().push(batch);
        } else {
            let _ = self.apply(batch);
        }
    }
    fn new_context(self: Arc<Self>, _state: &ThreadState) -> SysResult<Box<dyn Context>> {
        Err(abi::Errno::ENOSYS)
    }
    fn host_pid(&self) -> Option<i32> {
        None
    }
}

/// A guest program with one thread.
pub(super) struct Guest {
    pub(super) mm: Arc<MemoryManager>,
    pub(super) stub: Arc<FakeSpace>,
}

thread_local! {
    static FAULTS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Guest {
    pub(super) fn faults(&self) -> usize {
        FAULTS.get()
    }
    fn touch(&self, addr: u64, access: Access) -> Result<Place, FaultSignal> {
        for _ in 0..20 {
            if let Some(place) = self.stub.entry(addr, access == Access::Write) {
                return Ok(place);
            }
            FAULTS.set(FAULTS.get() + 1);
            self.mm.handle_fault(addr, access)?;
        }
        panic!("faults for ever at {addr:#x}");
    }
    pub(super) fn load(&self, addr: u64) -> Result<u8, FaultSignal> {
        let mut byte = [0];
        match self.touch(addr, Access::Read)? {
            Place::Memory(offset) => self.stub.memory.read(offset + addr % PAGE_SIZE, &mut byte).unwrap(),
            Place::Host(fd, offset) => {
                rustix::io::pread(&*fd, &mut byte, offset + addr % PAGE_SIZE).unwrap();
            }
        }
        Ok(byte[0])
    }
    pub(super) fn store(&self, addr: u64, byte: u8) -> Result<(), FaultSignal> {
        match self.touch(addr, Access::Write)? {
            Place::Memory(offset) => self.stub.memory.write(offset + addr % PAGE_SIZE, &[byte]).unwrap(),
            Place::Host(fd, offset) => {
                rustix::io::pwrite(&*fd, &[byte], offset + addr % PAGE_SIZE).unwrap();
            }
        }
        Ok(())
    }
}
