//! Path calls over the gofer's client: dentries, permission and open files included.

use super::tests::{BOTH, Names, World};
use crate::mount::{Mount, MountFlags, MountNamespace};
use crate::open::open;
use crate::vfs::Vfs;
use crate::walk::{Follow, FsContext, Walk};
use crate::{RenameFlags, attr_ops, ops};
use abi::Errno;
use abi::fs::OpenFlags;
use gofer::ExportFlags;
use mm::io::{SliceSource, VecSink};
use std::sync::Arc;
use std::time::Instant;

fn context(world: &World) -> FsContext {
    let fs = Arc::clone(world.fs.as_ref().unwrap());
    let mount = Mount::of_fs(fs, MountFlags::empty(), b"none");
    let ns = MountNamespace::new(1, Arc::clone(&world.caller.cred.user_ns), Vfs::new(), mount);
    FsContext::at_root_of(&ns)
}

fn errno<T: std::fmt::Debug>(result: Result<T, abi::Failure>) -> Errno {
    match result {
        Err(abi::Failure::Errno(errno)) => errno,
        other => panic!("{other:?}"),
    }
}

#[test]
fn path_calls() {
    for flags in BOTH {
        let world = World::new(flags);
        let by = world.caller.by();
        let fs = context(&world);
        let walk = Walk::new(&fs, &by);
        let read = |path: &str| {
            let file = open(&walk, path.as_bytes(), OpenFlags::empty(), 0).unwrap();
            let mut sink = VecSink::new(100);
            file.read(&mut sink, &by).unwrap();
            String::from_utf8(sink.bytes).unwrap()
        };
        assert_eq!(read("/a/b/c/file"), "hello");
        assert_eq!(read("/a/link/../c/./file"), "hello");
        assert_eq!(errno(open(&walk, b"/a/no/such", OpenFlags::empty(), 0)), Errno::ENOENT);
        assert_eq!(errno(open(&walk, b"/a/b/c/file/x", OpenFlags::empty(), 0)), Errno::ENOTDIR);
        ops::mkdir(&walk, b"/a/dir", 0o755).unwrap();
        assert_eq!(ops::mkdir(&walk, b"/a/dir", 0o755), Err(Errno::EEXIST));
        let make = OpenFlags::CREAT | OpenFlags::RDWR | OpenFlags::TRUNC;
        let file = open(&walk, b"/a/dir/new", make, 0o644).unwrap();
        file.write(&mut SliceSource::new(b"content"), &by).unwrap();
        assert_eq!(ops::stat(&walk, b"/a/dir/new", Follow::Yes).unwrap().0.size, 7);
        assert_eq!(ops::stat(&walk, b"/a/dir/new", Follow::Yes).unwrap().0.perm, 0o644);
        ops::symlink(&walk, b"../dir/new", b"/a/dir/soft").unwrap();
        assert_eq!(read("/a/dir/soft"), "content");
        let old = walk.find(b"/a/dir/new", Follow::Yes).unwrap();
        ops::link(&walk, &old, b"/a/hard").unwrap();
        ops::rename(&walk, b"/a/dir/new", &walk, b"/a/moved", RenameFlags::empty()).unwrap();
        assert_eq!(read("/a/moved"), "content");
        assert_eq!(ops::stat(&walk, b"/a/dir/new", Follow::Yes).err(), Some(Errno::ENOENT));
        assert_eq!(ops::rename(&walk, b"/a/moved", &walk, b"/a/hard", RenameFlags::empty()), Ok(()));
        assert_eq!(ops::stat(&walk, b"/a/moved", Follow::Yes).unwrap().0.nlink, 2);
        attr_ops::chmod(&old, 0o600, &by).unwrap();
        assert_eq!(ops::stat(&walk, b"/a/hard", Follow::Yes).unwrap().0.perm, 0o600);
        open(&walk, b"/a/hard", OpenFlags::WRONLY | OpenFlags::TRUNC, 0).unwrap();
        assert_eq!(ops::stat(&walk, b"/a/moved", Follow::Yes).unwrap().0.size, 0);
        ops::unlink(&walk, b"/a/hard").unwrap();
        ops::unlink(&walk, b"/a/moved").unwrap();
        assert_eq!(ops::rmdir(&walk, b"/a/dir"), Err(Errno::ENOTEMPTY));
        ops::unlink(&walk, b"/a/dir/soft").unwrap();
        ops::rmdir(&walk, b"/a/dir").unwrap();
        assert_eq!(std::fs::read_dir(world.path.join("a")).unwrap().count(), 2);
    }
}

#[test]
fn what_others_do_to_a_bind_shows() {
    let world = World::new(ExportFlags::SHARED);
    let by = world.caller.by();
    let fs = context(&world);
    let walk = Walk::new(&fs, &by);
    let size = |path: &str| ops::stat(&walk, path.as_bytes(), Follow::Yes).map(|(attr, _)| attr.size);
    let settle = crate::moment::begin;
    settle();
    assert_eq!(size("/a/b/c/file"), Ok(5));
    settle();
    std::fs::write(world.path.join("a/b/c/file"), "more than that").unwrap();
    assert_eq!(size("/a/b/c/file"), Ok(14));
    settle();
    std::fs::rename(world.path.join("a/b"), world.path.join("a/z")).unwrap();
    assert_eq!(size("/a/b/c/file"), Err(Errno::ENOENT));
    assert_eq!(size("/a/z/c/file"), Ok(14));
    settle();
    std::fs::remove_file(world.path.join("a/z/c/file")).unwrap();
    assert_eq!(size("/a/z/c/file"), Err(Errno::ENOENT));
    settle();
    std::fs::write(world.path.join("a/z/c/file"), "again").unwrap();
    assert_eq!(size("/a/z/c/file"), Ok(5));
}

#[test]
fn calls_on_a_bind_cost_few_messages() {
    let world = World::new(ExportFlags::SHARED);
    let by = world.caller.by();
    let fs = context(&world);
    let walk = Walk::new(&fs, &by);
    let count = |what: &str, most: u64, call: &mut dyn FnMut()| {
        crate::moment::begin();
        let before = world.sent();
        call();
        let sent = world.sent() - before;
        assert!(sent <= most, "{what}: {sent} messages");
    };
    let stat = |path: &str| ops::stat(&walk, path.as_bytes(), Follow::Yes).map(|(attr, _)| attr.size);
    let make = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    count("first stat", 1, &mut || assert_eq!(stat("/a/b/c/file"), Ok(5)));
    count("stat", 1, &mut || assert_eq!(stat("/a/b/c/file"), Ok(5)));
    count("stat of nothing", 1, &mut || assert_eq!(stat("/a/b/c/none"), Err(Errno::ENOENT)));
    count("open", 2, &mut || drop(open(&walk, b"/a/b/c/file", OpenFlags::empty(), 0).unwrap()));
    count("open again", 1, &mut || drop(open(&walk, b"/a/b/c/file", OpenFlags::empty(), 0).unwrap()));
    count("create", 2, &mut || drop(open(&walk, b"/a/b/c/new", make, 0o644).unwrap()));
    std::fs::write(world.path.join("a/b/c/theirs"), "theirs").unwrap();
    count("first open", 2, &mut || drop(open(&walk, b"/a/b/c/theirs", OpenFlags::empty(), 0).unwrap()));
    count("mkdir", 2, &mut || ops::mkdir(&walk, b"/a/b/dir", 0o755).unwrap());
    let rename = |old: &[u8], new: &[u8]| ops::rename(&walk, old, &walk, new, RenameFlags::empty()).unwrap();
    count("rename", 3, &mut || rename(b"/a/b/c/new", b"/a/b/c/newer"));
    count("rename over", 3, &mut || rename(b"/a/b/c/newer", b"/a/b/c/file"));
    count("unlink", 2, &mut || ops::unlink(&walk, b"/a/b/c/file").unwrap());
    count("rmdir", 2, &mut || ops::rmdir(&walk, b"/a/b/dir").unwrap());
}

#[test]
fn who_comes_second_opens_what_others_made() {
    let world = World::new(ExportFlags::SHARED);
    let by = world.caller.by();
    let fs = context(&world);
    let walk = Walk::new(&fs, &by);
    crate::moment::begin();
    assert_eq!(ops::stat(&walk, b"/a/late", Follow::Yes).err(), Some(Errno::ENOENT));
    // In the same call, as if it came between the look and the creation.
    std::fs::write(world.path.join("a/late"), "theirs").unwrap();
    let file = open(&walk, b"/a/late", OpenFlags::CREAT | OpenFlags::RDWR, 0o644).unwrap();
    let mut sink = VecSink::new(100);
    file.read(&mut sink, &by).unwrap();
    assert_eq!(sink.bytes, b"theirs");
    std::fs::write(world.path.join("a/later"), "theirs").unwrap();
    let only = OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::RDWR;
    assert_eq!(errno(open(&walk, b"/a/later", only, 0o644)), Errno::EEXIST);
}

#[test]
#[ignore = "a measurement"]
fn path_call_times() {
    for flags in BOTH {
        let world = World::new(flags);
        let by = world.caller.by();
        let fs = context(&world);
        let walk = Walk::new(&fs, &by);
        let time = |what: &str, count: u32, call: &mut dyn FnMut(u32)| {
            call(u32::MAX);
            let (start, before) = (Instant::now(), world.sent());
            (0..count).for_each(|n| {
                crate::moment::begin();
                call(n);
            });
            eprintln!("{flags:?} {what}: {:?}, {} messages", start.elapsed() / count, world.sent() - before);
        };
        time("stat of 4 components", 10_000, &mut |_| {
            ops::stat(&walk, b"/a/b/c/file", Follow::Yes).unwrap();
        });
        time("stat of a missing name", 10_000, &mut |_| {
            assert!(ops::stat(&walk, b"/a/b/c/none", Follow::Yes).is_err());
        });
        time("open and close", 10_000, &mut |_| {
            drop(open(&walk, b"/a/b/c/file", OpenFlags::empty(), 0).unwrap())
        });
        time("create, write, close", 5000, &mut |n| {
            let make = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
            let file = open(&walk, format!("/a/b/new{n}").as_bytes(), make, 0o644).unwrap();
            file.write(&mut SliceSource::new(b"content"), &by).unwrap();
        });
        time("open, read, close of new files", 5000, &mut |n| {
            let file = open(&walk, format!("/a/b/new{n}").as_bytes(), OpenFlags::empty(), 0).unwrap();
            file.read(&mut VecSink::new(100), &by).unwrap();
        });
        time("list of 5000", 10, &mut |_| {
            let dir = open(&walk, b"/a/b", OpenFlags::DIRECTORY, 0).unwrap();
            let mut names = Names { got: Vec::new(), room: usize::MAX };
            dir.read_dir(&mut names, &by).unwrap();
            assert!(names.got.len() > 5000);
        });
        time("unlink", 5000, &mut |n| ops::unlink(&walk, format!("/a/b/new{n}").as_bytes()).unwrap());
    }
}
