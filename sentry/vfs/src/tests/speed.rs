//! Not a test: `cargo test --release -p vfs speed -- --ignored --nocapture` shows nanoseconds per call.

use crate::file::SeekFrom;
use crate::mount::{Mount, MountFlags};
use crate::ops;
use crate::overlay::{Layer, OverlayFs, Transience};
use crate::tmpfs::tests::{context, frames, put, root_of};
use crate::walk::{Follow, Walk};
use abi::fs::OpenFlags;
use mm::GuestSink;
use platform::memory::MemoryFile;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

/// Takes everything and keeps nothing.
struct Nowhere(usize);
impl GuestSink for Nowhere {
    fn remaining(&self) -> usize {
        self.0
    }
    fn put(&mut self, bytes: &[u8]) -> abi::SysResult<usize> {
        let n = bytes.len().min(self.0);
        self.0 -= n;
        Ok(n)
    }
    fn put_pages(&mut self, _memory: &MemoryFile, _offset: u64, len: usize) -> abi::SysResult<usize> {
        let n = len.min(self.0);
        self.0 -= n;
        Ok(n)
    }
    fn put_zeros(&mut self, len: usize) -> abi::SysResult<usize> {
        let n = len.min(self.0);
        self.0 -= n;
        Ok(n)
    }
    fn fill_from_fd(&mut self, _fd: BorrowedFd<'_>, _at: Option<u64>, max: usize) -> abi::SysResult<usize> {
        let n = max.min(self.0);
        self.0 -= n;
        Ok(n)
    }
}

fn time(name: &str, mut call: impl FnMut()) {
    let mut best = u128::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        for _ in 0..10_000 {
            call();
        }
        best = best.min(start.elapsed().as_nanos() / 10_000);
    }
    eprintln!("{name}: {best} ns");
}

#[test]
#[ignore = "measures"]
fn speed() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    for dir in ["/usr", "/usr/lib", "/usr/lib/python3", "/up", "/m"] {
        ops::mkdir(&walk, dir.as_bytes(), 0o755).unwrap();
    }
    put(&walk, "/usr/lib/python3/os.py", &[1; 4096]);
    let layer = |path: &[u8]| {
        let at = walk.find(path, Follow::Yes).unwrap();
        Layer { root: Arc::clone(at.inode().unwrap()), place: None }
    };
    let overlay =
        OverlayFs::new(Some(layer(b"/up")), vec![layer(b"/usr")], Transience::Transient, "", &by).unwrap();
    let mount = Mount::of_fs(overlay, MountFlags::empty(), b"overlay");
    crate::mount_ops::attach(&mount, &walk.find(b"/m", Follow::Yes).unwrap(), &fs.ns).unwrap();
    for (name, path) in [("tmpfs", "/usr/lib/python3/os.py"), ("overlay", "/m/lib/python3/os.py")] {
        time(&format!("{name} stat, 4 parts"), || {
            let found = walk.find(path.as_bytes(), Follow::Yes).unwrap();
            std::hint::black_box(found.inode().unwrap().attr(&by).unwrap());
        });
        time(&format!("{name} open and close"), || {
            std::hint::black_box(ops::open(&walk, path.as_bytes(), OpenFlags::empty(), 0).unwrap());
        });
        let file = ops::open(&walk, path.as_bytes(), OpenFlags::empty(), 0).unwrap();
        time(&format!("{name} read of 1 byte"), || {
            std::hint::black_box(file.read(&mut Nowhere(1), &by).unwrap());
            file.set_position(0);
        });
        file.seek(SeekFrom::Start(0), &by).unwrap();
    }
    time("missing name", || {
        std::hint::black_box(walk.find(b"/usr/lib/python3/none.py", Follow::Yes).is_err());
    });
    time("create and unlink", || {
        drop(ops::open(&walk, b"/usr/tmp", OpenFlags::CREAT | OpenFlags::WRONLY, 0o600).unwrap());
        ops::unlink(&walk, b"/usr/tmp").unwrap();
    });
}
