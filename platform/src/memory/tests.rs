use super::{HUGE_PAGE, HostWindow, HugePages, MemoryFile, WindowAccess};
use abi::Errno;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

const LIMIT: u64 = 64 << 30;

fn file() -> MemoryFile {
    MemoryFile::create(LIMIT).unwrap()
}

#[test]
fn copies_of_all_sizes() {
    let memory = file();
    for len in [0usize, 1, 7, 8, 9, 63, 64, 65, 4096, 10_000] {
        let src: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
        memory.write(4090, &src).unwrap();
        let mut dst = vec![0xee; len];
        memory.read(4090, &mut dst).unwrap();
        assert_eq!(src, dst, "{len}");
        memory.copy(4090, 1 << 20, len as u64).unwrap();
        dst.fill(0);
        memory.read(1 << 20, &mut dst).unwrap();
        assert_eq!(src, dst);
        memory.zero(4090, len as u64).unwrap();
        memory.read(4090, &mut dst).unwrap();
        assert!(dst.iter().all(|b| *b == 0));
    }
}

#[test]
fn bounds() {
    let memory = file();
    let mut byte = [0];
    assert_eq!(memory.limit(), LIMIT);
    memory.read(LIMIT - 1, &mut byte).unwrap();
    assert_eq!(memory.read(LIMIT, &mut byte), Err(Errno::EFAULT));
    assert_eq!(memory.read(u64::MAX, &mut byte), Err(Errno::EFAULT));
    assert_eq!(memory.zero(1, u64::MAX), Err(Errno::EFAULT));
    assert_eq!(memory.copy(0, LIMIT - 10, 11), Err(Errno::EFAULT));
    assert_eq!(memory.punch(LIMIT, 4096), Err(Errno::EFAULT));
    assert_eq!(memory.load_u32(LIMIT - 2), Err(Errno::EFAULT));
    assert_eq!(memory.load_u32(2), Err(Errno::EINVAL));
}

#[test]
fn a_missing_page_is_efault() {
    let memory = file();
    // The file is cut behind the mapping's back: pages past the end are SIGBUS.
    rustix::fs::ftruncate(memory.fd(), 8192).unwrap();
    let mut buf = [0u8; 100];
    memory.write(8100, &buf[..92]).unwrap();
    assert_eq!(memory.read(8100, &mut buf), Err(Errno::EFAULT));
    assert_eq!(memory.write(8192, &buf), Err(Errno::EFAULT));
    assert_eq!(memory.zero(8192, 1 << 20), Err(Errno::EFAULT));
    assert_eq!(memory.copy(1 << 20, 0, 8192), Err(Errno::EFAULT));
    assert_eq!(memory.load_u32(8192), Err(Errno::EFAULT));
    assert_eq!(memory.store_u32(8192, 1), Err(Errno::EFAULT));
    assert_eq!(memory.cas_u32(8192, 0, 1), Err(Errno::EFAULT));
    let (read, write) = std::io::pipe().unwrap();
    assert_eq!(memory.write_to(write.as_fd(), None, &[(8192, 10)]), Err(Errno::EFAULT));
    drop(read);
}

#[test]
fn atomics() {
    let memory = file();
    memory.store_u32(64, 7).unwrap();
    assert_eq!(memory.load_u32(64), Ok(7));
    assert_eq!(memory.cas_u32(64, 7, 0xffff_fff0), Ok(7));
    assert_eq!(memory.cas_u32(64, 7, 9), Ok(0xffff_fff0));
    assert_eq!(memory.load_u32(64), Ok(0xffff_fff0));
}

#[test]
fn residence_and_punching() {
    let memory = file();
    assert_eq!(memory.resident(0, LIMIT), 0);
    memory.write(1 << 30, &[1]).unwrap();
    memory.write(3 << 30, &[1; 5000]).unwrap();
    assert_eq!(memory.resident(0, LIMIT), 3 * 4096);
    memory.punch(3 << 30, 8192).unwrap();
    assert_eq!(memory.resident(0, LIMIT), 4096);
    assert_eq!(memory.load_u32(3 << 30), Ok(0));
}

#[test]
fn huge_pages_where_advised() {
    let memory = file();
    memory.advise_huge(HUGE_PAGE - 4096, 2 * HUGE_PAGE, HugePages::Wanted);
    assert!(!memory.wants_huge(0, HUGE_PAGE));
    assert!(memory.wants_huge(HUGE_PAGE, HUGE_PAGE));
    assert!(!memory.wants_huge(HUGE_PAGE, 4096));
    memory.write(HUGE_PAGE + 5, &[1]).unwrap();
    let resident = memory.resident(0, LIMIT);
    assert!(resident == HUGE_PAGE || resident == 4096, "{resident}");
    memory.advise_huge(0, LIMIT, HugePages::Avoided);
    assert!(!memory.wants_huge(HUGE_PAGE, HUGE_PAGE));
}

#[test]
fn vectored_io_goes_straight_to_the_pages() {
    let memory = file();
    let (read, mut write) = std::io::pipe().unwrap();
    write.write_all(b"hello world").unwrap();
    let got = memory.read_from(read.as_fd(), None, &[(4094, 5), (100, 20)]).unwrap();
    assert_eq!(got, 11);
    let mut text = [0; 5];
    memory.read(4094, &mut text).unwrap();
    assert_eq!(&text, b"hello");
    let target: OwnedFd = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(memory.write_to(target.as_fd(), Some(3), &[(100, 6), (4094, 5)]), Ok(11));
    assert_eq!(memory.read_from(target.as_fd(), Some(0), &[(0, 64)]), Ok(14));
    let mut text = [0; 14];
    memory.read(0, &mut text).unwrap();
    assert_eq!(&text, b"\0\0\0 worldhello");
}

#[test]
fn windows_on_host_files() {
    let memory = file();
    let host: OwnedFd = rustix::fs::memfd_create("h", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::io::pwrite(&host, b"0123456789", 4096).unwrap();
    let window = HostWindow::map(host.as_fd(), 4096, 8192, WindowAccess::ReadOnly).unwrap();
    assert_eq!(window.size(), 8192);
    let mut text = [0; 4];
    window.read(2, &mut text).unwrap();
    assert_eq!(&text, b"2345");
    assert_eq!(window.read(4096, &mut text), Err(Errno::EFAULT));
    assert_eq!(window.write(0, b"x"), Err(Errno::EFAULT));
    window.copy_to(5, &memory, 77, 5).unwrap();
    memory.read(77, &mut text).unwrap();
    assert_eq!(&text, b"5678");
    let window = HostWindow::map(host.as_fd(), 4096, 4096, WindowAccess::ReadWrite).unwrap();
    window.write(0, b"abc").unwrap();
    rustix::io::pread(&host, &mut text, 4096).unwrap();
    assert_eq!(&text, b"abc3");
    assert_eq!(window.cas_u32(8, 0x3938, 1), Ok(0x3938));
}

#[test]
fn the_fallback_works_too() {
    let memory = MemoryFile::from_fd(super::create::memfd().unwrap(), 1 << 21).unwrap();
    memory.write(0, b"x").unwrap();
    assert_eq!(memory.resident(0, 1 << 21), 4096);
}
