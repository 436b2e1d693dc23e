//! mprotect, mremap, madvise and what /proc shows.

use super::*;
use crate::{Advice, FilePages, LockScope, MappableId, RemapArgs, RemapFlags, VmaFlags};
use abi::AddrRange;

fn remap(
    guest: &Guest,
    old: u64,
    old_len: u64,
    new_len: u64,
    flags: RemapFlags,
    to: u64,
) -> Result<u64, Errno> {
    let (old, to) = (UserAddr::new(old), UserAddr::new(to));
    guest.mm.mremap(RemapArgs { old, old_len, new_len, flags, to }).map(UserAddr::raw)
}

#[test]
fn protection_splits_and_merges() {
    let world = world();
    let guest = world.space();
    let at = anon(&guest, 10 * PAGE_SIZE);
    guest.store(at + 5 * PAGE_SIZE, 1).unwrap();
    guest.mm.mprotect(UserAddr::new(at + 4 * PAGE_SIZE), 2 * PAGE_SIZE, Prot::READ).unwrap();
    assert_eq!(guest.mm.area_count(), 3);
    assert_eq!(guest.store(at + 5 * PAGE_SIZE, 2).unwrap_err().code, 2);
    assert_eq!(guest.load(at + 5 * PAGE_SIZE), Ok(1));
    assert_eq!(guest.mm.write_bytes(UserAddr::new(at + 4 * PAGE_SIZE), b"x"), Err(Errno::EFAULT));
    // A debugger may, and nobody sees it who should not.
    assert_eq!(guest.mm.write_forced(UserAddr::new(at + 5 * PAGE_SIZE + 1), b"dbg"), 3);
    assert_eq!(guest.load(at + 5 * PAGE_SIZE + 1), Ok(b'd'));
    guest.mm.mprotect(UserAddr::new(at + 4 * PAGE_SIZE), 2 * PAGE_SIZE, RW).unwrap();
    assert_eq!(guest.mm.area_count(), 1);
    let faults = guest.faults();
    guest.store(at + 5 * PAGE_SIZE, 2).unwrap();
    assert_eq!(guest.faults(), faults);
    guest.mm.munmap(UserAddr::new(at), PAGE_SIZE).unwrap();
    let whole = guest.mm.mprotect(UserAddr::new(at), 4 * PAGE_SIZE, Prot::READ);
    assert_eq!(whole, Err(Errno::ENOMEM));
    guest.mm.mprotect(UserAddr::new(at + PAGE_SIZE), 9 * PAGE_SIZE, Prot::empty()).unwrap();
    assert_eq!(guest.load(at + 5 * PAGE_SIZE).unwrap_err().code, 2);
    assert_eq!(guest.mm.read_bytes(UserAddr::new(at + 5 * PAGE_SIZE), &mut [0]), Err(Errno::EFAULT));
}

#[test]
fn protection_respects_sharing() {
    let world = world();
    let parent = world.space();
    // Larger than what a fork copies at once.
    let at = anon(&parent, 8 * PAGE_SIZE);
    parent.store(at, 1).unwrap();
    let child = world.fork(&parent);
    child.mm.mprotect(UserAddr::new(at), 8 * PAGE_SIZE, Prot::READ).unwrap();
    child.mm.mprotect(UserAddr::new(at), 8 * PAGE_SIZE, RW).unwrap();
    assert!(!child.stub.may_write(at));
    child.store(at, 2).unwrap();
    assert_eq!(parent.load(at), Ok(1));
}

#[test]
fn fixed_mappings_replace_and_refuse() {
    let world = world();
    let guest = world.space();
    let at = anon(&guest, 4 * PAGE_SIZE);
    guest.store(at + PAGE_SIZE, 1).unwrap();
    let args = || MmapArgs::anonymous(PAGE_SIZE, RW).fixed(at + PAGE_SIZE);
    let mut keep = args();
    keep.flags = MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED_NOREPLACE;
    assert_eq!(guest.mm.mmap(keep), Err(Errno::EEXIST));
    guest.mm.mmap(args()).unwrap();
    assert_eq!(guest.load(at + PAGE_SIZE), Ok(0));
    assert_eq!(world.frames.allocated(), 4 * PAGE_SIZE);
    let mut none = args();
    none.prot = Prot::empty();
    guest.mm.mmap(none).unwrap();
    assert_eq!(guest.load(at + PAGE_SIZE).unwrap_err().code, 2);
    assert_eq!(world.frames.allocated(), 3 * PAGE_SIZE);
    let mut odd = args();
    odd.addr = UserAddr::new(at + 1);
    assert_eq!(guest.mm.mmap(odd), Err(Errno::EINVAL));
    let low = MmapArgs::anonymous(PAGE_SIZE, RW).fixed(0);
    assert_eq!(guest.mm.mmap(low), Err(Errno::EPERM));
    let mut low = MmapArgs::anonymous(PAGE_SIZE, RW);
    low.flags |= MapFlags::BIT32;
    assert!(guest.mm.mmap(low).unwrap().raw() < 1 << 31);
}

#[test]
fn remapping() {
    let world = world();
    let guest = world.space();
    let blocker = anon(&guest, PAGE_SIZE);
    let at = anon(&guest, 2 * PAGE_SIZE);
    assert_eq!(at + 2 * PAGE_SIZE, blocker);
    guest.store(at + PAGE_SIZE, 7).unwrap();
    guest.mm.mprotect(UserAddr::new(blocker), PAGE_SIZE, Prot::READ).unwrap();
    assert_eq!(remap(&guest, at, 2 * PAGE_SIZE, 4 * PAGE_SIZE, RemapFlags::empty(), 0), Err(Errno::ENOMEM));
    let moved = remap(&guest, at, 2 * PAGE_SIZE, 4 * PAGE_SIZE, RemapFlags::MAYMOVE, 0).unwrap();
    assert_eq!(guest.load(moved + PAGE_SIZE), Ok(7));
    assert_eq!(guest.load(at + PAGE_SIZE).unwrap_err().code, 1);
    guest.store(moved + 3 * PAGE_SIZE, 8).unwrap();
    // Shrink, then grow in place.
    remap(&guest, moved, 4 * PAGE_SIZE, PAGE_SIZE, RemapFlags::empty(), 0).unwrap();
    assert_eq!(guest.load(moved + PAGE_SIZE).unwrap_err().code, 1);
    assert_eq!(remap(&guest, moved, PAGE_SIZE, 2 * PAGE_SIZE, RemapFlags::empty(), 0), Ok(moved));
    assert_eq!(guest.load(moved + PAGE_SIZE), Ok(0));
    let fixed = RemapFlags::MAYMOVE | RemapFlags::FIXED;
    guest.store(moved, 5).unwrap();
    assert_eq!(remap(&guest, moved, 2 * PAGE_SIZE, 2 * PAGE_SIZE, fixed, 0x5000_0000), Ok(0x5000_0000));
    assert_eq!(guest.load(0x5000_0000), Ok(5));
    assert_eq!(remap(&guest, 0x5000_0000, PAGE_SIZE, PAGE_SIZE, fixed, 0x5000_0000), Err(Errno::EINVAL));
    let keep = RemapFlags::MAYMOVE | RemapFlags::DONTUNMAP;
    let new = remap(&guest, 0x5000_0000, 2 * PAGE_SIZE, 2 * PAGE_SIZE, keep, 0).unwrap();
    assert_eq!((guest.load(new), guest.load(0x5000_0000)), (Ok(5), Ok(0)));
    assert_eq!(remap(&guest, 0x1234_0000, PAGE_SIZE, PAGE_SIZE, RemapFlags::empty(), 0), Err(Errno::EFAULT));
    let committed = world.frames.committed();
    assert_eq!(committed, guest.mm.totals().committed);
    drop(guest);
    assert_eq!(world.frames.committed(), 0);
    assert_eq!(world.frames.allocated(), 0);
}

#[test]
fn dontneed_zeroes_and_keeps_the_mapping() {
    let world = world();
    let guest = world.space();
    let at = anon(&guest, 8 * PAGE_SIZE);
    guest.store(at + PAGE_SIZE, 1).unwrap();
    let resident = world.frames.resident();
    guest.mm.madvise(UserAddr::new(at), 8 * PAGE_SIZE, Advice::DontNeed).unwrap();
    assert!(world.frames.resident() < resident);
    let faults = guest.faults();
    assert_eq!(guest.load(at + PAGE_SIZE), Ok(0));
    assert_eq!(guest.faults(), faults);
    guest.store(at + PAGE_SIZE, 2).unwrap();
    let child = world.fork(&guest);
    child.mm.madvise(UserAddr::new(at), 8 * PAGE_SIZE, Advice::DontNeed).unwrap();
    assert_eq!((child.load(at + PAGE_SIZE), guest.load(at + PAGE_SIZE)), (Ok(0), Ok(2)));
    assert_eq!(guest.mm.madvise(UserAddr::new(at), 9 * PAGE_SIZE, Advice::DontNeed), Err(Errno::ENOMEM));
}

#[test]
fn fork_advice() {
    let world = world();
    let guest = world.space();
    let (gone, wiped) = (anon(&guest, PAGE_SIZE), anon(&guest, PAGE_SIZE));
    guest.store(gone, 1).unwrap();
    guest.store(wiped, 1).unwrap();
    guest.mm.madvise(UserAddr::new(gone), PAGE_SIZE, Advice::DontFork).unwrap();
    guest.mm.madvise(UserAddr::new(wiped), PAGE_SIZE, Advice::WipeOnFork).unwrap();
    let child = world.fork(&guest);
    assert_eq!(child.load(gone).unwrap_err().code, 1);
    assert_eq!(child.load(wiped), Ok(0));
    guest.store(gone, 2).unwrap();
    assert_eq!(guest.load(wiped), Ok(1));
    drop(child);
    assert_eq!(world.frames.committed(), guest.mm.totals().committed);
}

#[test]
fn remove_punches_the_file() {
    let world = world();
    let guest = world.space();
    let file = FilePages::new(&world.frames, MappableId { dev: 5, ino: 6 });
    file.write_bytes(0, &[3; 3 * 4096]).unwrap();
    let mut args = MmapArgs::anonymous(3 * PAGE_SIZE, RW);
    args.flags = MapFlags::SHARED;
    args.file = Some(map_file(file.clone(), 0, Prot::all()));
    let at = guest.mm.mmap(args).unwrap();
    assert_eq!(guest.load(at.raw() + PAGE_SIZE), Ok(3));
    guest.mm.madvise(at.checked_add(PAGE_SIZE).unwrap(), PAGE_SIZE, Advice::Remove).unwrap();
    assert_eq!(file.seek_hole(0), Ok(4096));
    assert_eq!(guest.load(at.raw() + PAGE_SIZE), Ok(0));
    assert_eq!(guest.load(at.raw() + 2 * PAGE_SIZE), Ok(3));
    guest.mm.msync(at, 3 * PAGE_SIZE, 4).unwrap();
    assert_eq!(guest.mm.msync(at, 3 * PAGE_SIZE, 5), Err(Errno::EINVAL));
    assert_eq!(guest.mm.msync(at, 4 * PAGE_SIZE, 4), Err(Errno::ENOMEM));
}

#[test]
fn locking_counts_and_faults_in() {
    let world = world();
    let guest = world.space();
    let at = anon(&guest, 4 << 20);
    let mut limits = guest.mm.limits();
    limits.locked = 64 << 10;
    guest.mm.set_limits(limits);
    assert_eq!(guest.mm.mlock(UserAddr::new(at), 1 << 20, LockScope::Now), Err(Errno::ENOMEM));
    guest.mm.mlock(UserAddr::new(at + 10), 60 << 10, LockScope::Now).unwrap();
    assert_eq!(guest.mm.totals().locked, 64 << 10);
    let map = guest.mm.present(UserAddr::new(at), 32 * PAGE_SIZE).unwrap();
    assert!(map[..16].iter().all(|byte| *byte == 1));
    assert_eq!(guest.mm.madvise(UserAddr::new(at), PAGE_SIZE, Advice::DontNeed), Err(Errno::EINVAL));
    guest.mm.munlock(UserAddr::new(at), 4 << 20).unwrap();
    assert_eq!(guest.mm.totals().locked, 0);
    assert_eq!(guest.mm.area_count(), 1);
    guest.mm.mlockall(None, Some(LockScope::OnFault)).unwrap();
    assert_eq!(guest.mm.mmap(MmapArgs::anonymous(1 << 20, RW)), Err(Errno::EAGAIN));
    guest.mm.munlockall();
    guest.mm.madvise(UserAddr::new(at), 1 << 20, Advice::PopulateWrite).unwrap();
    assert!(guest.mm.total_usage().resident >= 1 << 20);
}

#[test]
fn areas_as_proc_shows_them() {
    let world = world();
    let guest = world.space();
    let vdso = guest.mm.map_vdso().unwrap();
    let at = anon(&guest, 2 * PAGE_SIZE);
    guest.mm.set_anonymous_name(UserAddr::new(at), PAGE_SIZE, Some(b"buf")).unwrap();
    guest.store(at, 1).unwrap();
    let areas = guest.mm.areas(0, usize::MAX);
    let names: Vec<_> = areas.iter().map(|area| area.name.text().unwrap_or_default()).collect();
    assert_eq!(names, [&b"[anon:buf]"[..], b"", b"[vvar]", b"[vdso]"]);
    assert_eq!(guest.mm.area(vdso).unwrap().prot, Prot::READ | Prot::EXEC);
    let usage = guest.mm.usage(AddrRange::new(at, at + 2 * PAGE_SIZE).unwrap());
    assert_eq!((usage.resident, usage.anonymous, usage.private_dirty), (4096, 4096, 4096));
    assert!(areas.iter().any(|area| area.flags.contains(VmaFlags::PLATFORM)));
    // [vdso] can be unmapped, as on Linux.
    guest.mm.munmap(UserAddr::new(vdso), 2 * PAGE_SIZE).unwrap();
    assert!(guest.mm.area(vdso).is_none());
}

#[test]
fn room_is_found_in_holes() {
    let world = world();
    let guest = world.space();
    let all: Vec<u64> = (0..50).map(|_| anon(&guest, PAGE_SIZE)).collect();
    for at in all.iter().step_by(2) {
        guest.mm.munmap(UserAddr::new(*at), PAGE_SIZE).unwrap();
    }
    let two = anon(&guest, 2 * PAGE_SIZE);
    assert!(two < all[49]);
    for at in all.iter().step_by(2) {
        assert_eq!(anon(&guest, PAGE_SIZE), *at);
    }
    let big = anon(&guest, 4 << 20);
    assert_eq!(big % (2 << 20), 0);
    drop(guest);
    assert_eq!(world.frames.allocated(), 0);
}

#[test]
fn text_for_the_patcher() {
    use platform::TextSource;
    let world = world();
    let guest = world.space();
    let file = FilePages::new(&world.frames, MappableId { dev: 5, ino: 7 });
    file.write_bytes(0, &[0x90; 8192]).unwrap();
    let mut args = MmapArgs::anonymous(8192, Prot::READ | Prot::EXEC);
    args.flags = MapFlags::PRIVATE;
    args.file = Some(map_file(file.clone(), 0, Prot::all()));
    let at = guest.mm.mmap(args).unwrap().raw();
    let offset = guest.mm.private_text(at + 4100).unwrap();
    assert_eq!(guest.mm.private_text(at + 4096), Ok(offset));
    world.frames.memory().write(offset, &[0xcc]).unwrap();
    assert_eq!(guest.load(at + 4096), Ok(0xcc));
    let mut byte = [0];
    file.read_bytes(4096, &mut byte).unwrap();
    assert_eq!(byte, [0x90]);
    let data = anon(&guest, PAGE_SIZE);
    assert_eq!(guest.mm.private_text(data), Err(Errno::EFAULT));
    let child = world.fork(&guest);
    assert_eq!(child.load(at + 4096), Ok(0xcc));
    assert_ne!(child.mm.private_text(at + 4096), Ok(offset));
    assert!(!child.stub.may_write(at + 4096));
    assert!(guest.stub.mapped_pages() > 0);
}
