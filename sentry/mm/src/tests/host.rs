//! Files behind mappings: host files and files in memory.

use super::*;
use crate::{FilePages, GuestSink, GuestSource, MapUse, Mappable, MappableId, Translation};
use abi::{SysResult, UserSlice};
use std::os::fd::{AsFd, OwnedFd};

struct HostFile {
    fd: Arc<OwnedFd>,
}

impl HostFile {
    fn new(bytes: &[u8]) -> Arc<HostFile> {
        let fd = rustix::fs::memfd_create("host", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::pwrite(&fd, bytes, 0).unwrap();
        Arc::new(HostFile { fd: Arc::new(fd) })
    }
}

impl Mappable for HostFile {
    fn id(&self) -> MappableId {
        MappableId { dev: 9, ino: 9 }
    }
    fn translate(&self, offset: u64, len: u64, _: MapUse) -> SysResult<Translation> {
        let size = u64::try_from(rustix::fs::fstat(&*self.fd).unwrap().st_size).unwrap();
        let end = size.next_multiple_of(PAGE_SIZE);
        if offset >= end {
            return Err(Errno::ENXIO);
        }
        Ok(Translation::Host { fd: Arc::clone(&self.fd), offset, len: len.min(end - offset) })
    }
}

fn mapped(guest: &Guest, object: Arc<dyn Mappable>, len: u64, prot: Prot, shared: bool) -> u64 {
    let mut args = MmapArgs::anonymous(len, prot);
    args.flags = if shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
    args.file = Some(map_file(object, 0, Prot::all()));
    guest.mm.mmap(args).unwrap().raw()
}

#[test]
fn private_file_pages_are_copied_on_the_first_write() {
    let world = world();
    let guest = world.space();
    let file = HostFile::new(&[b'a'; 200_000]);
    let at = mapped(&guest, file.clone(), 200_000, RW, false);
    assert_eq!(world.frames.allocated(), 0);
    assert_eq!(guest.load(at + 100_000), Ok(b'a'));
    assert_eq!(guest.faults(), 0);
    guest.store(at + 100_000, b'b').unwrap();
    assert_eq!(guest.load(at + 100_001), Ok(b'a'));
    assert!(world.frames.allocated() <= 4 * PAGE_SIZE);
    let mut byte = [0];
    rustix::io::pread(&*file.fd, &mut byte, 100_000).unwrap();
    assert_eq!(&byte, b"a");
    guest.mm.write_bytes(UserAddr::new(at + 50), b"zz").unwrap();
    assert_eq!(guest.load(at + 51), Ok(b'z'));
    // Small ones at once.
    let small = mapped(&guest, file, 8192, RW, false);
    let faults = guest.faults();
    guest.store(small, 1).unwrap();
    assert_eq!(guest.faults(), faults);
}

#[test]
fn behind_the_end_is_sigbus() {
    let world = world();
    let guest = world.space();
    let file = HostFile::new(&[b'a'; 5000]);
    for (prot, shared) in [(Prot::READ, false), (RW, false), (RW, true)] {
        let at = mapped(&guest, file.clone(), 4 * PAGE_SIZE, prot, shared);
        assert_eq!(guest.load(at + 4999), Ok(b'a'));
        assert_eq!(guest.load(at + 5000), Ok(0));
        let fault = guest.load(at + 8192).unwrap_err();
        assert_eq!((fault.signal.number(), fault.code), (7, 2));
        assert_eq!(guest.mm.read_partial(UserAddr::new(at + 8000), &mut [0; 1000]), 192);
    }
    // The host file shrinks behind our back.
    let at = mapped(&guest, file.clone(), 2 * PAGE_SIZE, Prot::READ, true);
    assert_eq!(guest.load(at + 4999), Ok(b'a'));
    rustix::fs::ftruncate(&*file.fd, 100).unwrap();
    assert_eq!(guest.load(at + 4999).unwrap_err().signal.number(), 7);
    assert_eq!(guest.mm.read_bytes(UserAddr::new(at + 4999), &mut [0]), Err(Errno::EFAULT));
}

#[test]
fn shared_host_mappings_write_the_file() {
    let world = world();
    let guest = world.space();
    let file = HostFile::new(&[b'a'; 8192]);
    let at = mapped(&guest, file.clone(), 8192, RW, true);
    guest.store(at + 10, b'b').unwrap();
    guest.mm.write_bytes(UserAddr::new(at + 4090), b"0123456789").unwrap();
    let mut text = [0; 10];
    rustix::io::pread(&*file.fd, &mut text, 4090).unwrap();
    assert_eq!(&text, b"0123456789");
    assert_eq!(guest.mm.cas_u32(UserAddr::new(at + 4092), 0x3534_3332, 7), Ok(0x3534_3332));
    // Read-only first, writable later.
    let at = mapped(&guest, file.clone(), 8192, Prot::READ, true);
    assert_eq!(guest.load(at + 10), Ok(b'b'));
    assert_eq!(guest.store(at + 10, 0).unwrap_err().code, 2);
    guest.mm.mprotect(UserAddr::new(at), 8192, RW).unwrap();
    guest.store(at + 10, b'c').unwrap();
    rustix::io::pread(&*file.fd, &mut text[..1], 10).unwrap();
    assert_eq!(text[0], b'c');
}

#[test]
fn files_in_memory_are_shared_and_truncated() {
    let world = world();
    let guest = world.space();
    let file = FilePages::new(&world.frames, MappableId { dev: 2, ino: 3 });
    file.write_bytes(0, &[1; 20_000]).unwrap();
    let shared = mapped(&guest, file.clone(), 20_480, RW, true);
    let private = mapped(&guest, file.clone(), 20_480, RW, false);
    assert_eq!(guest.load(shared + 10_000), Ok(1));
    guest.store(shared + 10_000, 2).unwrap();
    assert_eq!(guest.load(private + 10_000), Ok(2));
    guest.store(private + 10_000, 3).unwrap();
    assert_eq!(guest.load(shared + 10_000), Ok(2));
    let mut byte = [0];
    file.read_bytes(10_000, &mut byte).unwrap();
    assert_eq!(byte, [2]);
    file.truncate(9000).unwrap();
    assert_eq!(guest.load(shared + 8999), Ok(1));
    assert_eq!(guest.load(shared + 9001), Ok(0));
    assert_eq!(guest.load(shared + 12_288).unwrap_err().signal.number(), 7);
    assert_eq!(guest.load(private + 12_288).unwrap_err().signal.number(), 7);
    assert_eq!(guest.mm.read_bytes(UserAddr::new(shared + 12_288), &mut byte), Err(Errno::EFAULT));
    file.truncate(20_000).unwrap();
    assert_eq!(guest.load(shared + 12_288), Ok(0));
    guest.store(shared + 12_289, 8).unwrap();
    file.read_bytes(12_289, &mut byte).unwrap();
    assert_eq!(byte, [8]);
    // The file goes first; its pages stay until they are unmapped.
    drop(file);
    assert_eq!(guest.load(shared + 12_289), Ok(8));
    drop(guest);
    assert_eq!(world.frames.allocated(), 0);
}

#[test]
fn sealed_files_refuse_writable_mappings() {
    let world = world();
    let guest = world.space();
    let file = FilePages::new(&world.frames, MappableId { dev: 2, ino: 4 });
    file.write_bytes(0, &[1; 4096]).unwrap();
    let at = mapped(&guest, file.clone(), 4096, RW, true);
    assert_eq!(file.add_seals(crate::Seals::WRITE), Err(Errno::EBUSY));
    guest.mm.munmap(UserAddr::new(at), 4096).unwrap();
    file.add_seals(crate::Seals::WRITE).unwrap();
    let mut args = MmapArgs::anonymous(4096, RW);
    args.flags = MapFlags::SHARED;
    args.file = Some(map_file(file.clone(), 0, Prot::all()));
    assert_eq!(guest.mm.mmap(args), Err(Errno::EPERM));
    let at = mapped(&guest, file, 4096, Prot::READ, true);
    assert_eq!(guest.mm.mprotect(UserAddr::new(at), 4096, RW), Err(Errno::EACCES));
}

#[test]
fn reads_go_straight_into_guest_pages() {
    let world = world();
    let guest = world.space();
    let host = HostFile::new(b"0123456789abcdefghij");
    let at = anon(&guest, 2 * PAGE_SIZE);
    let big = anon(&guest, 8 << 20);
    let slices = [
        UserSlice { addr: UserAddr::new(at + 4094), len: 4 },
        UserSlice { addr: UserAddr::new(big + (2 << 20) - 3), len: 6 },
        UserSlice { addr: UserAddr::new(at), len: 100 },
    ];
    let mut sink = guest.mm.sink(&slices);
    assert_eq!(sink.remaining(), 110);
    assert_eq!(sink.fill_from_fd(host.fd.as_fd(), Some(0), 110), Ok(20));
    assert_eq!(sink.remaining(), 90);
    assert_eq!(guest.load(at + 4097), Ok(b'3'));
    assert_eq!(guest.load(big + (2 << 20) + 2), Ok(b'9'));
    assert_eq!(guest.load(at + 9), Ok(b'j'));
    let mut source = guest.mm.source(&slices);
    let out = HostFile::new(b"");
    assert_eq!(source.drain_to_fd(out.fd.as_fd(), Some(0), 20), Ok(20));
    let mut text = [0; 20];
    rustix::io::pread(&*out.fd, &mut text, 0).unwrap();
    assert_eq!(&text, b"0123456789abcdefghij");
    // A hole in the buffers cuts the transfer short; a hole at the start is EFAULT.
    guest.mm.munmap(UserAddr::new(at + PAGE_SIZE), PAGE_SIZE).unwrap();
    let mut sink = guest.mm.sink(&slices);
    assert_eq!(sink.fill_from_fd(host.fd.as_fd(), Some(0), 110), Ok(2));
    assert_eq!(sink.fill_from_fd(host.fd.as_fd(), Some(2), 110), Err(Errno::EFAULT));
    let mut sink = guest.mm.sink(&slices);
    assert_eq!(sink.put(b"abcdef"), Ok(2));
    assert_eq!(sink.put(b"abcdef"), Err(Errno::EFAULT));
}

#[test]
fn a_file_is_read_into_its_own_mapping() {
    let world = world();
    let guest = world.space();
    let file = FilePages::new(&world.frames, MappableId { dev: 2, ino: 5 });
    file.write_bytes(0, &[7; 100_000]).unwrap();
    let at = mapped(&guest, file.clone(), 102_400, RW, true);
    let slices = [UserSlice { addr: UserAddr::new(at + 40_960), len: 10_000 }];
    assert_eq!(file.read(0, &mut guest.mm.sink(&slices)), Ok(10_000));
    let n = file.write(crate::WriteAt::End, &mut guest.mm.source(&slices)).unwrap();
    assert_eq!(n, (10_000, 110_000));
    assert_eq!(guest.load(at + 40_960), Ok(7));
}
