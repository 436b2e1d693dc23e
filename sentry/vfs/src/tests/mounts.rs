use crate::mount::{Location, MountFlags};
use crate::mount_ops::{MountCall, UmountFlags, follow_pivot};
use crate::ops;
use crate::path;
use crate::tmpfs::tests::{context, frames, get, list, put, root_of};
use crate::walk::{Follow, FsContext, Walk};
use abi::Errno;
use abi::fs::OpenFlags;

fn tmpfs(walk: &Walk<'_>, at: &str) -> abi::SysResult<()> {
    ops::mount(walk, b"none", at.as_bytes(), b"tmpfs", MountCall::empty(), b"")
}
fn change(walk: &Walk<'_>, from: &str, at: &str, call: MountCall) -> abi::SysResult<()> {
    ops::mount(walk, from.as_bytes(), at.as_bytes(), b"", call, b"")
}
fn dirs(walk: &Walk<'_>, names: &[&str]) {
    for name in names {
        ops::mkdir(walk, name.as_bytes(), 0o755).unwrap();
    }
}
fn umount(walk: &Walk<'_>, at: &str, flags: UmountFlags) -> abi::SysResult<()> {
    ops::umount(walk, at.as_bytes(), flags)
}

#[test]
fn mounts_cover_bind_and_move() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    dirs(&walk, &["/a", "/b", "/c", "/a/hidden"]);
    tmpfs(&walk, "/a").unwrap();
    assert_eq!(list(&walk, "/a"), [".", ".."]);
    dirs(&walk, &["/a/sub"]);
    put(&walk, "/a/f", b"f");
    tmpfs(&walk, "/a/sub").unwrap();
    put(&walk, "/a/sub/g", b"g");
    change(&walk, "/a", "/b", MountCall::BIND).unwrap();
    assert_eq!(get(&walk, "/b/f").unwrap(), b"f");
    assert_eq!(list(&walk, "/b/sub"), [".", ".."]);
    change(&walk, "/a", "/c", MountCall::BIND | MountCall::REC).unwrap();
    assert_eq!(get(&walk, "/c/sub/g").unwrap(), b"g");
    assert_eq!(ops::rmdir(&walk, b"/a/sub"), Err(Errno::EBUSY));
    assert_eq!(umount(&walk, "/a", UmountFlags::empty()), Err(Errno::EBUSY));
    assert_eq!(umount(&walk, "/a/f", UmountFlags::empty()), Err(Errno::EINVAL));
    change(&walk, "/c/sub", "/b", MountCall::MOVE).unwrap();
    assert_eq!(get(&walk, "/b/g").unwrap(), b"g");
    umount(&walk, "/b", UmountFlags::empty()).unwrap();
    assert_eq!(get(&walk, "/b/f").unwrap(), b"f");
    let open = ops::open(&walk, b"/b/f", OpenFlags::empty(), 0).unwrap();
    assert_eq!(umount(&walk, "/b", UmountFlags::empty()), Err(Errno::EBUSY));
    umount(&walk, "/b", UmountFlags::DETACH).unwrap();
    assert_eq!(list(&walk, "/b"), [".", ".."]);
    drop(open);
    // "..": out of a mount to where it hangs.
    assert_eq!(walk.find(b"/a/sub/..", Follow::Yes).unwrap(), walk.find(b"/a", Follow::Yes).unwrap());
    let sub = walk.find(b"/a/sub", Follow::Yes).unwrap();
    assert_eq!(path::show(&sub, &fs.root).text, b"/a/sub");
    umount(&walk, "/a", UmountFlags::DETACH).unwrap();
    assert_eq!(list(&walk, "/a"), [".", "..", "hidden"]);
}

#[test]
fn flags_restrict() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    dirs(&walk, &["/a", "/b"]);
    tmpfs(&walk, "/a").unwrap();
    put(&walk, "/a/f", b"f");
    change(&walk, "/a", "/b", MountCall::BIND).unwrap();
    let ro = MountCall::REMOUNT | MountCall::BIND | MountCall::RDONLY | MountCall::NOSUID;
    change(&walk, "", "/b", ro).unwrap();
    let write = |path: &[u8]| ops::open(&walk, path, OpenFlags::WRONLY, 0).map(|_| ());
    assert_eq!(write(b"/b/f"), Err(Errno::EROFS.into()));
    assert_eq!(write(b"/a/f"), Ok(()));
    assert_eq!(ops::mkdir(&walk, b"/b/d", 0o755), Err(Errno::EROFS));
    assert_eq!(ops::mkdir(&walk, b"/b/f", 0o755), Err(Errno::EEXIST));
    assert_eq!(ops::unlink(&walk, b"/b/f"), Err(Errno::EROFS));
    let held = ops::open(&walk, b"/a/f", OpenFlags::WRONLY, 0).unwrap();
    let ro = MountCall::REMOUNT | MountCall::BIND | MountCall::RDONLY;
    assert_eq!(change(&walk, "", "/a", ro), Err(Errno::EBUSY));
    drop(held);
    change(&walk, "", "/a", ro).unwrap();
    assert_eq!(write(b"/a/f"), Err(Errno::EROFS.into()));
    let lines: Vec<String> = fs
        .ns
        .mounts()
        .iter()
        .filter_map(|m| path::mountinfo_line(m, &fs.root))
        .map(|l| String::from_utf8(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].contains(" / / rw - tmpfs tmpfs rw"), "{}", lines[0]);
    assert!(lines[2].contains(" / /b ro,nosuid,relatime - tmpfs none rw"), "{}", lines[2]);
}

#[test]
fn events_propagate() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    dirs(&walk, &["/s", "/peer", "/slave", "/private"]);
    tmpfs(&walk, "/s").unwrap();
    dirs(&walk, &["/s/x", "/s/y"]);
    change(&walk, "", "/s", MountCall::SHARED).unwrap();
    for at in ["/peer", "/slave", "/private"] {
        change(&walk, "/s", at, MountCall::BIND).unwrap();
    }
    change(&walk, "", "/slave", MountCall::SLAVE).unwrap();
    change(&walk, "", "/private", MountCall::PRIVATE).unwrap();
    tmpfs(&walk, "/s/x").unwrap();
    put(&walk, "/s/x/f", b"f");
    assert_eq!(get(&walk, "/peer/x/f").unwrap(), b"f");
    assert_eq!(get(&walk, "/slave/x/f").unwrap(), b"f");
    assert_eq!(get(&walk, "/private/x/f"), Err(Errno::ENOENT.into()));
    tmpfs(&walk, "/slave/y").unwrap();
    put(&walk, "/slave/y/g", b"g");
    assert_eq!(get(&walk, "/s/y/g"), Err(Errno::ENOENT.into()));
    tmpfs(&walk, "/peer/y").unwrap();
    put(&walk, "/peer/y/h", b"h");
    assert_eq!(get(&walk, "/s/y/h").unwrap(), b"h");
    // The slave's own mount stays on top of what it hears of.
    assert_eq!(get(&walk, "/slave/y/g").unwrap(), b"g");
    umount(&walk, "/s/x", UmountFlags::empty()).unwrap();
    assert_eq!(get(&walk, "/peer/x/f"), Err(Errno::ENOENT.into()));
    assert_eq!(get(&walk, "/slave/x/f"), Err(Errno::ENOENT.into()));
    change(&walk, "", "/private", MountCall::UNBINDABLE).unwrap();
    assert_eq!(change(&walk, "/private", "/s/x", MountCall::BIND), Err(Errno::EINVAL));
}

#[test]
fn namespaces_part_and_pivot() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    dirs(&walk, &["/a", "/new", "/new/old"]);
    let mut copy: FsContext = fs.clone();
    copy.ns = fs.ns.copy(2, &fs.ns.user_ns, &mut [&mut copy.root, &mut copy.cwd]).unwrap();
    let inner = Walk::new(&copy, &by);
    tmpfs(&inner, "/a").unwrap();
    put(&inner, "/a/f", b"f");
    assert_eq!(get(&walk, "/a/f"), Err(Errno::ENOENT.into()));
    assert_eq!(tmpfs(&inner, "/nowhere"), Err(Errno::ENOENT));
    tmpfs(&inner, "/new").unwrap();
    dirs(&inner, &["/new/old"]);
    put(&inner, "/new/mark", b"m");
    assert!(matches!(ops::pivot_root(&inner, b"/a/f", b"/new"), Err(Errno::ENOTDIR)));
    let pivot = ops::pivot_root(&inner, b"/new", b"/new/old").unwrap();
    let mut moved = copy.clone();
    follow_pivot(&mut moved, &pivot);
    let inner = Walk::new(&moved, &by);
    assert_eq!(get(&inner, "/mark").unwrap(), b"m");
    assert_eq!(get(&inner, "/old/a/f").unwrap(), b"f");
    drop(copy);
    umount(&inner, "/old", UmountFlags::DETACH).unwrap();
    assert_eq!(list(&inner, "/old"), [".", ".."]);
    assert_eq!(moved.ns.mounts().len(), 1);
    assert_eq!(moved.root, Location::root_of(&moved.ns.root()));
    assert!(!moved.ns.root().flags().contains(MountFlags::RDONLY));
}
