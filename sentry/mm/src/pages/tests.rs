use super::*;
use crate::io::{SliceSource, VecSink};
use platform::memory::MemoryFile;

fn file() -> (Arc<Frames>, Arc<FilePages>) {
    let frames = Frames::new(Arc::new(MemoryFile::create(1 << 30).unwrap()));
    let pages = FilePages::new(&frames, MappableId { dev: 1, ino: 2 });
    (frames, pages)
}

#[test]
fn holes_data_and_truncate() {
    let (frames, file) = file();
    assert_eq!(file.write_bytes(10_000, b"hello"), Ok(5));
    assert_eq!(file.size(), 10_005);
    assert_eq!(file.seek_data(0), Ok(8192));
    assert_eq!(file.seek_hole(8192), Ok(10_005));
    assert_eq!(file.seek_data(10_005), Err(Errno::ENXIO));
    let mut sink = VecSink::new(20_000);
    assert_eq!(file.read(0, &mut sink), Ok(10_005));
    assert!(sink.bytes[..10_000].iter().all(|b| *b == 0));
    assert_eq!(&sink.bytes[10_000..], b"hello");
    file.truncate(10_002).unwrap();
    file.truncate(10_010).unwrap();
    let mut buf = [1; 20];
    assert_eq!(file.read_bytes(10_000, &mut buf), Ok(10));
    assert_eq!(&buf[..10], b"he\0\0\0\0\0\0\0\0");
    file.truncate(0).unwrap();
    assert_eq!(file.allocated(), 0);
    assert_eq!(frames.allocated(), 0);
}

#[test]
fn append_grows_in_large_pieces_and_frees_all() {
    let (frames, file) = file();
    let block = [7u8; 3000];
    for _ in 0..1000 {
        let mut src = SliceSource::new(&block);
        let (n, _) = file.write(WriteAt::End, &mut src).unwrap();
        assert_eq!(n, 3000);
    }
    assert_eq!(file.size(), 3_000_000);
    assert!(file.data.lock().extents.len() < 12, "{}", file.data.lock().extents.len());
    let mut buf = vec![0; 3_000_000];
    assert_eq!(file.read_bytes(0, &mut buf), Ok(3_000_000));
    assert!(buf.iter().all(|b| *b == 7));
    drop(file);
    assert_eq!(frames.allocated(), 0);
}

#[test]
fn punching_and_allocating() {
    let (_frames, file) = file();
    file.write_bytes(0, &[9; 5 * 4096]).unwrap();
    file.punch_hole(100, 50).unwrap();
    file.punch_hole(4000, 8192).unwrap();
    let mut buf = vec![1; 5 * 4096];
    file.read_bytes(0, &mut buf).unwrap();
    for (at, byte) in buf.iter().enumerate() {
        let zero = (100..150).contains(&at) || (4000..12_192).contains(&at);
        assert_eq!(*byte, if zero { 0 } else { 9 }, "{at}");
    }
    assert_eq!(file.allocated(), 4 * 4096);
    file.allocate(0, 40_000, KeepSize::Yes).unwrap();
    assert_eq!(file.size(), 5 * 4096);
    assert_eq!(file.allocated(), 40_960);
    file.allocate(0, 40_000, KeepSize::No).unwrap();
    assert_eq!(file.size(), 40_000);
}

#[test]
fn quota_and_seals() {
    let (frames, _) = file();
    let quota = PageQuota::new(3 * 4096);
    let file = FilePages::with(&frames, MappableId::default(), Some(Arc::clone(&quota)), None);
    assert_eq!(file.write_bytes(0, &[1; 20_000]), Ok(3 * 4096));
    assert_eq!(file.write_bytes(3 * 4096, &[1; 1]), Err(Errno::ENOSPC));
    assert_eq!(quota.used(), 3 * 4096);
    file.add_seals(Seals::GROW).unwrap();
    assert_eq!(file.truncate(1 << 20), Err(Errno::EPERM));
    assert_eq!(file.write_bytes(3 * 4096, &[1]), Err(Errno::EPERM));
    file.map_shared_write().unwrap();
    assert_eq!(file.add_seals(Seals::WRITE), Err(Errno::EBUSY));
    file.unmap_shared_write();
    file.add_seals(Seals::WRITE | Seals::SEAL).unwrap();
    assert_eq!(file.write_bytes(0, &[1]), Err(Errno::EPERM));
    assert_eq!(file.add_seals(Seals::SHRINK), Err(Errno::EPERM));
    drop(file);
    assert_eq!(quota.used(), 0);
}

#[test]
fn translations() {
    let (_frames, file) = file();
    assert_eq!(file.translate(0, 4096, MapUse::Read).unwrap_err(), Errno::ENXIO);
    file.truncate(10_000).unwrap();
    let Translation::Hole { len } = file.translate(4096, 1 << 20, MapUse::Read).unwrap() else { panic!() };
    assert_eq!(len, 8192);
    let Translation::Memory { len, .. } = file.translate(4096, 1 << 20, MapUse::SharedWrite).unwrap() else {
        panic!()
    };
    assert_eq!(len, 8192);
    assert_eq!(file.translate(12_288, 4096, MapUse::SharedWrite).unwrap_err(), Errno::ENXIO);
}
