use super::{Layer, OverlayFs, Transience};
use crate::inode::{FileSystem, RenameFlags};
use crate::mount::{Mount, MountFlags};
use crate::mount_ops::{MountCall, attach};
use crate::ops;
use crate::testing::TestCaller;
use crate::tmpfs::tests::{context, frames, get, list, put, root_of};
use crate::walk::{Follow, FsContext, Walk};
use abi::Errno;
use abi::fs::OpenFlags;
use mm::Frames;
use mm::io::{SliceSource, VecSink};
use std::sync::Arc;

/// /low with files, /up, and an overlay of them on /m.
fn setup(frames: &Arc<Frames>, transience: Transience) -> (FsContext, TestCaller) {
    let fs = context(frames);
    let caller = root_of(&fs);
    {
        let by = caller.by();
        let walk = Walk::new(&fs, &by);
        for dir in ["/low", "/up", "/m", "/low/d", "/low/d/e", "/low/empty"] {
            ops::mkdir(&walk, dir.as_bytes(), 0o755).unwrap();
        }
        put(&walk, "/low/f", b"lower f");
        put(&walk, "/low/d/g", b"lower g");
        put(&walk, "/low/d/e/h", b"lower h");
        let layer = |path: &[u8]| {
            let at = walk.find(path, Follow::Yes).unwrap();
            Layer { root: Arc::clone(at.inode().unwrap()), place: None }
        };
        let overlay = OverlayFs::new(Some(layer(b"/up")), vec![layer(b"/low")], transience, "", &by).unwrap();
        let mount = Mount::of_fs(overlay as Arc<dyn FileSystem>, MountFlags::empty(), b"overlay");
        attach(&mount, &walk.find(b"/m", Follow::Yes).unwrap(), &fs.ns).unwrap();
    }
    (fs, caller)
}

#[test]
fn reads_through_and_copies_up() {
    let frames = frames();
    let (fs, caller) = setup(&frames, Transience::Transient);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    assert_eq!(get(&walk, "/m/f").unwrap(), b"lower f");
    let reader = ops::open(&walk, b"/m/f", OpenFlags::empty(), 0).unwrap();
    let before = ops::stat(&walk, b"/m/f", Follow::Yes).unwrap().0;
    let file = ops::open(&walk, b"/m/f", OpenFlags::WRONLY | OpenFlags::APPEND, 0).unwrap();
    file.write(&mut SliceSource::new(b" and more"), &by).unwrap();
    let mut sink = VecSink::new(100);
    reader.read(&mut sink, &by).unwrap();
    assert_eq!(sink.bytes, b"lower f and more", "a file open since before follows the copy");
    assert_eq!(ops::stat(&walk, b"/m/f", Follow::Yes).unwrap().0.ino, before.ino);
    crate::dentry::trim(None);
    assert_eq!(ops::stat(&walk, b"/m/f", Follow::Yes).unwrap().0.ino, before.ino);
    assert_eq!(get(&walk, "/low/f").unwrap(), b"lower f");
    // A change of attributes deep down copies the directories above.
    let h = walk.find(b"/m/d/e/h", Follow::Yes).unwrap();
    ops::chmod(&h, 0o600, &by).unwrap();
    assert_eq!(get(&walk, "/m/d/e/h").unwrap(), b"lower h");
    assert_eq!(get(&walk, "/m/d/g").unwrap(), b"lower g");
    assert_eq!(list(&walk, "/m/d"), [".", "..", "e", "g"]);
    drop(ops::open(&walk, b"/m/d/g", OpenFlags::WRONLY | OpenFlags::TRUNC, 0).unwrap());
    assert_eq!(get(&walk, "/m/d/g").unwrap(), b"");
}

#[test]
fn names_hide_and_come_back() {
    let frames = frames();
    let (fs, caller) = setup(&frames, Transience::Transient);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    ops::unlink(&walk, b"/m/f").unwrap();
    assert_eq!(get(&walk, "/m/f"), Err(Errno::ENOENT.into()));
    assert_eq!(list(&walk, "/m"), [".", "..", "d", "empty"]);
    put(&walk, "/m/f", b"new");
    crate::dentry::trim(None);
    assert_eq!(get(&walk, "/m/f").unwrap(), b"new");
    ops::unlink(&walk, b"/m/f").unwrap();
    crate::dentry::trim(None);
    assert_eq!(get(&walk, "/m/f"), Err(Errno::ENOENT.into()));
    // A directory removed and made again is empty.
    assert_eq!(ops::rmdir(&walk, b"/m/d"), Err(Errno::ENOTEMPTY));
    ops::unlink(&walk, b"/m/d/g").unwrap();
    ops::unlink(&walk, b"/m/d/e/h").unwrap();
    ops::rmdir(&walk, b"/m/d/e").unwrap();
    ops::rmdir(&walk, b"/m/d").unwrap();
    ops::mkdir(&walk, b"/m/d", 0o755).unwrap();
    crate::dentry::trim(None);
    assert_eq!(list(&walk, "/m/d"), [".", ".."]);
    ops::rmdir(&walk, b"/m/empty").unwrap();
    assert_eq!(list(&walk, "/m"), [".", "..", "d"]);
    assert_eq!(list(&walk, "/low"), [".", "..", "d", "empty", "f"]);
}

#[test]
fn renames_and_links() {
    let frames = frames();
    let (fs, caller) = setup(&frames, Transience::Transient);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    let none = RenameFlags::empty();
    ops::rename(&walk, b"/m/f", &walk, b"/m/d/f2", none).unwrap();
    assert_eq!(get(&walk, "/m/f"), Err(Errno::ENOENT.into()));
    assert_eq!(get(&walk, "/m/d/f2").unwrap(), b"lower f");
    // A lower directory moves with all that is in it.
    ops::rename(&walk, b"/m/d", &walk, b"/m/moved", none).unwrap();
    crate::dentry::trim(None);
    assert_eq!(list(&walk, "/m"), [".", "..", "empty", "moved"]);
    assert_eq!(list(&walk, "/m/moved"), [".", "..", "e", "f2", "g"]);
    assert_eq!(get(&walk, "/m/moved/e/h").unwrap(), b"lower h");
    put(&walk, "/m/moved/e/h", b"changed");
    ops::mkdir(&walk, b"/m/d", 0o755).unwrap();
    assert_eq!(list(&walk, "/m/d"), [".", ".."]);
    let g = walk.find(b"/m/moved/g", Follow::Yes).unwrap();
    ops::link(&walk, &g, b"/m/d/g2").unwrap();
    put(&walk, "/m/d/g2", b"both");
    crate::dentry::trim(None);
    assert_eq!(get(&walk, "/m/moved/g").unwrap(), b"both");
    assert_eq!(ops::stat(&walk, b"/m/d/g2", Follow::Yes).unwrap().0.nlink, 2);
    ops::rename(&walk, b"/m/d", &walk, b"/m/moved", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(list(&walk, "/m/moved"), [".", "..", "g2"]);
    assert_eq!(get(&walk, "/m/d/e/h").unwrap(), b"changed");
}

#[test]
fn a_guest_mounts_layers() {
    let frames = frames();
    let fs = context(&frames);
    fs.ns.vfs.register_type(Arc::new(super::OverlayType));
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    for dir in ["/l1", "/l2", "/u", "/w", "/m", "/l1/a", "/l2/a", "/l2/b"] {
        ops::mkdir(&walk, dir.as_bytes(), 0o755).unwrap();
    }
    put(&walk, "/l1/a/x", b"one");
    put(&walk, "/l2/a/x", b"two");
    put(&walk, "/l2/a/y", b"y");
    ops::mknod(&walk, b"/l1/b", 0o020_000, 0).unwrap();
    let data = b"lowerdir=/l1:/l2,upperdir=/u,workdir=/w";
    ops::mount(&walk, b"overlay", b"/m", b"overlay", MountCall::empty(), data).unwrap();
    assert_eq!(get(&walk, "/m/a/x").unwrap(), b"one");
    assert_eq!(list(&walk, "/m/a"), [".", "..", "x", "y"]);
    assert_eq!(list(&walk, "/m"), [".", "..", "a"]);
    assert_eq!(ops::rename(&walk, b"/m/a", &walk, b"/m/c", RenameFlags::empty()), Err(Errno::EXDEV));
    ops::mkdir(&walk, b"/m/b", 0o755).unwrap();
    assert_eq!(list(&walk, "/m/b"), [".", ".."]);
    put(&walk, "/m/a/z", b"z");
    assert_eq!(get(&walk, "/u/a/z").unwrap(), b"z");
    assert_eq!(get(&walk, "/l1/a/z"), Err(Errno::ENOENT.into()));
}

#[test]
fn big_files_copy_with_their_holes() {
    let frames = frames();
    let (fs, caller) = setup(&frames, Transience::Transient);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    let big = ops::open(&walk, b"/low/big", OpenFlags::CREAT | OpenFlags::RDWR, 0o644).unwrap();
    big.write_at(&mut SliceSource::new(&[7; 100_000]), 50 << 20, &by).unwrap();
    big.truncate(100 << 20, &by).unwrap();
    let used = frames.allocated();
    let copy = ops::open(&walk, b"/m/big", OpenFlags::RDWR, 0).unwrap();
    assert_eq!(copy.attr(&by).unwrap().size, 100 << 20);
    assert!(frames.allocated() - used < 4 << 20, "holes are not filled");
    let mut sink = VecSink::new(100_000);
    copy.read_at(&mut sink, 50 << 20, &by).unwrap();
    assert!(sink.bytes.iter().all(|b| *b == 7));
}
