//! Address spaces against a fake stub that keeps a page table.

mod fake;
mod host;
mod maps;

use crate::{Frames, MapFile, MapFlags, MemoryManager, MmapArgs, VmaName};
use abi::{Errno, PAGE_SIZE, UserAddr};
use fake::{FakePlatform, Guest};
use platform::{Access, Platform, Prot};
use std::sync::Arc;

const RW: Prot = Prot::READ.union(Prot::WRITE);

struct World {
    platform: Arc<FakePlatform>,
    frames: Arc<Frames>,
}

fn world() -> World {
    let platform = FakePlatform::new();
    let frames = Frames::new(Arc::clone(platform.memory()));
    World { platform, frames }
}

impl World {
    fn space(&self) -> Guest {
        let platform: Arc<dyn Platform> = Arc::clone(&self.platform) as Arc<dyn Platform>;
        let mm = MemoryManager::new(&platform, &self.frames).unwrap();
        self.guest(mm)
    }
    fn guest(&self, mm: Arc<MemoryManager>) -> Guest {
        let _ = mm.space();
        let stub = self.platform.newest();
        Guest { mm, stub }
    }
    fn fork(&self, parent: &Guest) -> Guest {
        self.guest(parent.mm.fork(&[]).unwrap())
    }
}

fn anon(guest: &Guest, len: u64) -> u64 {
    guest.mm.mmap(MmapArgs::anonymous(len, RW)).unwrap().raw()
}

#[test]
fn anonymous_memory_is_mapped_at_once_and_zero() {
    let world = world();
    let guest = world.space();
    let at = anon(&guest, 3 * PAGE_SIZE);
    assert_eq!(guest.stub.maps_done(), 1);
    assert_eq!(guest.load(at + 5000), Ok(0));
    guest.store(at + 5000, 7).unwrap();
    assert_eq!(guest.faults(), 0);
    let mut byte = [0];
    guest.mm.read_bytes(UserAddr::new(at + 5000), &mut byte).unwrap();
    assert_eq!(byte, [7]);
    guest.mm.write_bytes(UserAddr::new(at + 5001), b"xyz").unwrap();
    assert_eq!(guest.load(at + 5002), Ok(b'y'));
    guest.mm.munmap(UserAddr::new(at), 3 * PAGE_SIZE).unwrap();
    let fault = guest.load(at).unwrap_err();
    assert_eq!((fault.signal.number(), fault.code, fault.addr), (11, 1, at));
    assert_eq!(guest.mm.read_bytes(UserAddr::new(at), &mut byte), Err(Errno::EFAULT));
    assert_eq!(world.frames.allocated(), 0);
}

#[test]
fn neighbours_are_one_mapping() {
    let world = world();
    let guest = world.space();
    let first = anon(&guest, PAGE_SIZE);
    let second = anon(&guest, PAGE_SIZE);
    assert_eq!(second + PAGE_SIZE, first);
    assert_eq!(guest.mm.layout.read().count(), 1);
    guest.mm.munmap(UserAddr::new(first), PAGE_SIZE).unwrap();
    let third = anon(&guest, PAGE_SIZE);
    assert_eq!(third, first);
}

#[test]
fn huge_reservations_cost_nothing_until_touched() {
    let world = world();
    let guest = world.space();
    let at = guest.mm.mmap(MmapArgs::anonymous(1 << 40, Prot::empty())).unwrap().raw();
    assert_eq!(guest.load(at).unwrap_err().code, 2);
    let args = MmapArgs::anonymous(4 << 30, RW);
    let big = guest.mm.mmap(args).unwrap().raw();
    assert_eq!(world.frames.allocated(), 0);
    guest.store(big + (1 << 30) + 17, 1).unwrap();
    assert_eq!(guest.faults(), 2);
    assert_eq!(world.frames.allocated(), 2 << 20);
    guest.store(big + (1 << 30) + 4096, 1).unwrap();
    assert_eq!(guest.faults(), 2);
    // The kernel reaches untouched places as well.
    guest.mm.write_bytes(UserAddr::new(big), b"a").unwrap();
    assert_eq!(guest.load(big), Ok(b'a'));
}

#[test]
fn fork_copies_on_write_in_both_directions() {
    let world = world();
    let parent = world.space();
    let at = anon(&parent, 64 * PAGE_SIZE);
    for page in 0..64 {
        parent.store(at + page * PAGE_SIZE, 1).unwrap();
    }
    let before = world.frames.allocated();
    let child = world.fork(&parent);
    assert_eq!(world.frames.allocated(), before);
    assert_eq!(child.load(at + 5 * PAGE_SIZE), Ok(1));
    child.store(at + 5 * PAGE_SIZE, 2).unwrap();
    assert_eq!(parent.load(at + 5 * PAGE_SIZE), Ok(1));
    parent.store(at + 9 * PAGE_SIZE, 3).unwrap();
    assert_eq!(child.load(at + 9 * PAGE_SIZE), Ok(1));
    // A copy by the kernel breaks the sharing too, in the stub first.
    child.mm.write_bytes(UserAddr::new(at + 30 * PAGE_SIZE), &[4]).unwrap();
    assert_eq!(child.load(at + 30 * PAGE_SIZE), Ok(4));
    assert_eq!(parent.load(at + 30 * PAGE_SIZE), Ok(1));
    drop(child);
    // The last owner takes over without copying.
    let copies = world.frames.allocated();
    let faults = parent.faults();
    for page in 0..64 {
        parent.store(at + page * PAGE_SIZE, 9).unwrap();
    }
    assert_eq!(world.frames.allocated(), copies);
    assert!(parent.faults() - faults < 8, "{}", parent.faults() - faults);
    drop(parent);
    assert_eq!(world.frames.allocated(), 0);
}

#[test]
fn fork_copies_hot_pages_at_once() {
    let world = world();
    let parent = world.space();
    let at = anon(&parent, 64 * PAGE_SIZE);
    let small = anon(&parent, 2 * PAGE_SIZE) + PAGE_SIZE;
    let hot = at + 20 * PAGE_SIZE;
    for addr in [at, hot - PAGE_SIZE, hot, hot + PAGE_SIZE, small] {
        parent.store(addr, 1).unwrap();
    }
    let before = world.frames.allocated();
    let child = world.guest(parent.mm.fork(&[hot + 100, u64::MAX, 0]).unwrap());
    assert!(world.frames.allocated() > before);
    let faults = (parent.faults(), child.faults());
    for addr in [hot - PAGE_SIZE, hot] {
        child.store(addr, 2).unwrap();
        assert_eq!(parent.load(addr), Ok(1));
        parent.store(addr, 3).unwrap();
        assert_eq!(child.load(addr), Ok(2));
    }
    assert_eq!((parent.faults(), child.faults()), faults);
    // The rest is shared until it is written to.
    child.store(at, 2).unwrap();
    parent.store(hot + PAGE_SIZE, 3).unwrap();
    assert_eq!((parent.load(at), child.load(hot + PAGE_SIZE)), (Ok(1), Ok(1)));
    assert!(parent.faults() > faults.0 && child.faults() > faults.1);
    drop((parent, child));
    assert_eq!(world.frames.allocated(), 0);
}

#[test]
fn fork_copies_at_once_what_earlier_forks_wrote_to() {
    let world = world();
    let parent = world.space();
    let at = anon(&parent, 64 * PAGE_SIZE);
    for page in 0..64 {
        parent.store(at + page * PAGE_SIZE, 1).unwrap();
    }
    let (mine, its) = (at + 10 * PAGE_SIZE, at + 40 * PAGE_SIZE);
    let first = world.fork(&parent);
    parent.store(mine, 2).unwrap();
    first.store(its, 3).unwrap();
    assert!(first.faults() > 0);
    drop(first);
    // The pages are the parent's alone again, and writable, once it has written to them.
    parent.store(its, 4).unwrap();
    let faults = parent.faults();
    let second = world.fork(&parent);
    second.store(mine, 5).unwrap();
    second.store(its, 6).unwrap();
    parent.store(mine, 7).unwrap();
    parent.store(its, 8).unwrap();
    assert_eq!(parent.faults(), faults);
    assert_eq!((parent.load(mine), parent.load(its)), (Ok(7), Ok(8)));
    assert_eq!((second.load(mine), second.load(its)), (Ok(5), Ok(6)));
    drop((parent, second));
    assert_eq!(world.frames.allocated(), 0);
}

#[test]
fn fork_of_a_fork_and_the_middle_one_dies() {
    let world = world();
    let a = world.space();
    let at = anon(&a, 8 * PAGE_SIZE);
    a.store(at, 1).unwrap();
    let b = world.fork(&a);
    b.store(at, 2).unwrap();
    let c = world.fork(&b);
    drop(b);
    c.store(at + 1, 3).unwrap();
    assert_eq!((c.load(at), a.load(at), a.load(at + 1)), (Ok(2), Ok(1), Ok(0)));
    drop(a);
    drop(c);
    assert_eq!(world.frames.allocated(), 0);
}

#[test]
fn a_read_fault_on_a_readable_page_may_be_a_write() {
    let world = world();
    let parent = world.space();
    let at = anon(&parent, PAGE_SIZE);
    parent.store(at, 1).unwrap();
    let _child = world.fork(&parent);
    parent.mm.handle_fault(at, Access::Read).unwrap();
    assert!(parent.stub.may_write(at));
    // A write to a read-only page that shows as a read ends as a signal, not as a loop.
    parent.mm.mprotect(UserAddr::new(at), PAGE_SIZE, Prot::READ).unwrap();
    let signal = (0..10).find_map(|_| parent.mm.handle_fault(at, Access::Read).err()).unwrap();
    assert_eq!(signal.code, 2);
}

#[test]
fn shared_anonymous_memory_stays_shared() {
    let world = world();
    let parent = world.space();
    let mut args = MmapArgs::anonymous(4 * PAGE_SIZE, RW);
    args.flags = MapFlags::SHARED | MapFlags::ANONYMOUS;
    let at = parent.mm.mmap(args).unwrap().raw();
    parent.store(at + 100, 1).unwrap();
    let child = world.fork(&parent);
    child.store(at + 100, 2).unwrap();
    child.store(at + 3 * PAGE_SIZE, 3).unwrap();
    assert_eq!(parent.load(at + 100), Ok(2));
    assert_eq!(parent.load(at + 3 * PAGE_SIZE), Ok(3));
    let scope = crate::FutexScope::Shared;
    let key = |guest: &Guest| guest.mm.futex_key(UserAddr::new(at + 8), scope).unwrap();
    assert_eq!(key(&parent), key(&child));
    drop(parent);
    drop(child);
    assert_eq!(world.frames.allocated(), 0);
}

#[test]
fn stacks_grow_down_to_their_limit() {
    let world = world();
    let guest = world.space();
    let mut args = MmapArgs::anonymous(32 * PAGE_SIZE, RW).fixed(0x7000_0000_0000);
    args.flags |= MapFlags::GROWSDOWN | MapFlags::STACK;
    args.name = VmaName::Stack;
    let at = guest.mm.mmap(args).unwrap().raw();
    let top = at + 32 * PAGE_SIZE;
    guest.store(at - 5 * PAGE_SIZE, 1).unwrap();
    guest.store(top - (8 << 20), 1).unwrap();
    assert_eq!(guest.store(top - (8 << 20) - 1, 1).unwrap_err().code, 1);
    assert_eq!(guest.mm.totals().stack, 8 << 20);
    guest.mm.write_bytes(UserAddr::new(top - 100), b"hi").unwrap();
}

#[test]
fn the_break_grows_and_shrinks() {
    let world = world();
    let guest = world.space();
    guest.mm.set_brk_start(0x60_0000);
    assert_eq!(guest.mm.brk(UserAddr::NULL).raw(), 0x60_0000);
    assert_eq!(guest.mm.brk(UserAddr::new(0x62_1000)).raw(), 0x62_1000);
    guest.store(0x62_0fff, 5).unwrap();
    assert_eq!(guest.mm.brk(UserAddr::new(0x64_2000)).raw(), 0x64_2000);
    // Grown in place: still one mapping of the file.
    assert_eq!(guest.mm.pages.read().iter().count(), 1);
    assert_eq!(guest.mm.brk(UserAddr::new(0x60_0800)).raw(), 0x60_0800);
    assert_eq!(guest.store(0x62_0fff, 5).unwrap_err().code, 1);
    guest.store(0x60_0fff, 5).unwrap();
    let args = MmapArgs::anonymous(PAGE_SIZE, RW).fixed(0x60_3000);
    guest.mm.mmap(args).unwrap();
    assert_eq!(guest.mm.brk(UserAddr::new(0x60_4000)).raw(), 0x60_0800);
}

#[test]
fn limits() {
    let world = world();
    let guest = world.space();
    let mut limits = guest.mm.limits();
    limits.address_space = 1 << 20;
    guest.mm.set_limits(limits);
    assert_eq!(guest.mm.mmap(MmapArgs::anonymous(2 << 20, RW)), Err(Errno::ENOMEM));
    limits.address_space = u64::MAX;
    limits.data = 1 << 20;
    guest.mm.set_limits(limits);
    assert_eq!(guest.mm.mmap(MmapArgs::anonymous(2 << 20, RW)), Err(Errno::ENOMEM));
    assert!(guest.mm.mmap(MmapArgs::anonymous(2 << 20, Prot::READ)).is_ok());
    world.frames.policy().set_total(1 << 30);
    limits.data = u64::MAX;
    guest.mm.set_limits(limits);
    assert_eq!(guest.mm.mmap(MmapArgs::anonymous(2 << 30, RW)), Err(Errno::ENOMEM));
    world.frames.policy().set_mode(1).unwrap();
    let at = guest.mm.mmap(MmapArgs::anonymous(2 << 30, RW)).unwrap();
    assert_eq!(world.frames.committed(), 2 << 30);
    guest.mm.munmap(at, 2 << 30).unwrap();
    assert_eq!(world.frames.committed(), 0);
}

#[test]
fn frames_wait_for_the_stub() {
    let world = world();
    let guest = world.space();
    world.platform.postpone(true);
    let at = anon(&guest, PAGE_SIZE);
    guest.store(at, 1).unwrap();
    guest.mm.munmap(UserAddr::new(at), PAGE_SIZE).unwrap();
    // The stub has not unmapped it yet.
    assert_eq!(world.frames.allocated(), PAGE_SIZE);
    let other = anon(&guest, PAGE_SIZE);
    guest.store(other, 2).unwrap();
    assert_eq!(world.frames.allocated(), PAGE_SIZE);
}

#[test]
fn strings_and_objects() {
    let world = world();
    let guest = world.space();
    let at = anon(&guest, 2 * PAGE_SIZE);
    let end = at + 2 * PAGE_SIZE;
    guest.mm.write_bytes(UserAddr::new(end - 6), b"hello\0").unwrap();
    let cstr = |addr: u64, max| guest.mm.read_cstr(abi::UserCStr::new(UserAddr::new(addr)), max);
    assert_eq!(cstr(end - 6, 100).unwrap(), b"hello");
    assert_eq!(cstr(end - 6, 5), Err(Errno::ENAMETOOLONG));
    guest.mm.write_bytes(UserAddr::new(end - 1), b"!").unwrap();
    assert_eq!(cstr(end - 6, 100), Err(Errno::EFAULT));
    let ptr = abi::UserPtr::<u64>::new(UserAddr::new(at + 4092));
    guest.mm.write_obj(ptr, &0x1122_3344_5566_7788).unwrap();
    assert_eq!(guest.mm.read_obj(ptr), Ok(0x1122_3344_5566_7788));
    assert_eq!(guest.load(at + 4096), Ok(0x44));
    assert_eq!(guest.mm.cas_u32(UserAddr::new(at + 4096), 0x1122_3344, 1), Ok(0x1122_3344));
    assert_eq!(guest.mm.load_u32(UserAddr::new(at + 4096)), Ok(1));
    assert_eq!(guest.mm.load_u32(UserAddr::new(at + 4097)), Err(Errno::EINVAL));
    let half = guest.mm.write_partial(UserAddr::new(end - 10), &[1; 30]);
    assert_eq!(half, 10);
}

fn map_file(object: Arc<dyn crate::Mappable>, offset: u64, max_prot: Prot) -> MapFile {
    MapFile { object, offset, max_prot, keep: None }
}
