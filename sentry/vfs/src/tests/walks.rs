use crate::inode::NewNode;
use crate::ops;
use crate::tmpfs::tests::{context, frames, get, list, put, root_of};
use crate::walk::{Follow, Resolve, Walk};
use abi::Errno;
use abi::fs::OpenFlags;

#[test]
fn links_dots_and_slashes() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    for dir in ["/a", "/a/b", "/a/b/c"] {
        ops::mkdir(&walk, dir.as_bytes(), 0o755).unwrap();
    }
    put(&walk, "/a/b/f", b"f");
    ops::symlink(&walk, b"a/b", b"/rel").unwrap();
    ops::symlink(&walk, b"/a/b/f", b"/abs").unwrap();
    ops::symlink(&walk, b"loop2", b"/loop1").unwrap();
    ops::symlink(&walk, b"loop1", b"/loop2").unwrap();
    ops::symlink(&walk, b"nowhere", b"/dangling").unwrap();
    assert_eq!(get(&walk, "/rel/../b/./f").unwrap(), b"f");
    assert_eq!(get(&walk, "/rel//f").unwrap(), b"f");
    assert_eq!(get(&walk, "/abs").unwrap(), b"f");
    assert_eq!(get(&walk, "/../../abs").unwrap(), b"f");
    assert_eq!(get(&walk, "/loop1"), Err(Errno::ELOOP.into()));
    assert_eq!(get(&walk, "/abs/"), Err(Errno::ENOTDIR.into()));
    assert_eq!(get(&walk, "/a/b/f/"), Err(Errno::ENOTDIR.into()));
    assert_eq!(get(&walk, ""), Err(Errno::ENOENT.into()));
    let long = [b'x'; 256];
    assert_eq!(walk.find(&long, Follow::Yes).err(), Some(Errno::ENAMETOOLONG));
    assert_eq!(walk.find(&[b'/'; 4096], Follow::Yes).err(), Some(Errno::ENAMETOOLONG));
    let open = |path: &[u8], flags| ops::open(&walk, path, flags, 0o644).map(|_| ());
    assert_eq!(open(b"/abs", OpenFlags::NOFOLLOW), Err(Errno::ELOOP.into()));
    assert_eq!(open(b"/a", OpenFlags::WRONLY), Err(Errno::EISDIR.into()));
    assert_eq!(open(b"/a/b/f", OpenFlags::DIRECTORY), Err(Errno::ENOTDIR.into()));
    let excl = OpenFlags::CREAT | OpenFlags::EXCL;
    assert_eq!(open(b"/dangling", excl), Err(Errno::EEXIST.into()));
    assert_eq!(open(b"/new/", OpenFlags::CREAT), Err(Errno::EISDIR.into()));
    // A dangling link makes its target.
    assert_eq!(open(b"/dangling", OpenFlags::CREAT | OpenFlags::WRONLY), Ok(()));
    assert_eq!(get(&walk, "/nowhere").unwrap(), b"");
    assert_eq!(ops::mkdir(&walk, b"/dangling/", 0o755), Err(Errno::EEXIST));
    assert_eq!(ops::mkdir(&walk, b"/fresh/", 0o755), Ok(()));
    assert_eq!(ops::mkdir(&walk, b"/", 0o755), Err(Errno::EEXIST));
    assert_eq!(ops::rmdir(&walk, b"/a/."), Err(Errno::EINVAL));
    assert_eq!(ops::rmdir(&walk, b"/a/.."), Err(Errno::ENOTEMPTY));
    assert_eq!(ops::rmdir(&walk, b"/"), Err(Errno::EBUSY));
    assert_eq!(ops::unlink(&walk, b"/rel/"), Err(Errno::ENOTDIR));
    let tmp = ops::open(&walk, b"/a", OpenFlags::TMPFILE | OpenFlags::RDWR, 0o600).unwrap();
    assert_eq!(tmp.attr(&by).unwrap().nlink, 0);
    ops::link(&walk, tmp.location().unwrap(), b"/a/linked").unwrap();
    assert_eq!(list(&walk, "/a"), [".", "..", "b", "linked"]);
}

#[test]
fn resolve_flags_fence_the_walk() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    for dir in ["/j", "/j/in"] {
        ops::mkdir(&walk, dir.as_bytes(), 0o755).unwrap();
    }
    put(&walk, "/out", b"out");
    put(&walk, "/j/out", b"inner");
    ops::symlink(&walk, b"/out", b"/j/abs").unwrap();
    ops::symlink(&walk, b"../out", b"/j/up").unwrap();
    ops::symlink(&walk, b"../out", b"/j/in/ok").unwrap();
    let jail = walk.find(b"/j", Follow::Yes).unwrap();
    let with = |resolve| Walk { resolve, ..walk.at(Some(&jail)) };
    let beneath = with(Resolve::BENEATH);
    assert_eq!(beneath.find(b"up", Follow::Yes).err(), Some(Errno::EXDEV));
    assert_eq!(beneath.find(b"abs", Follow::Yes).err(), Some(Errno::EXDEV));
    assert_eq!(beneath.find(b"/j/out", Follow::Yes).err(), Some(Errno::EXDEV));
    assert!(beneath.find(b"in/ok", Follow::Yes).is_ok());
    let in_root = with(Resolve::IN_ROOT);
    assert_eq!(get(&in_root, "up").unwrap(), b"inner");
    assert_eq!(get(&in_root, "abs").unwrap(), b"inner");
    assert_eq!(get(&in_root, "/../../out").unwrap(), b"inner");
    assert_eq!(with(Resolve::NO_SYMLINKS).find(b"up", Follow::Yes).err(), Some(Errno::ELOOP));
    assert!(with(Resolve::NO_SYMLINKS).find(b"up", Follow::No).is_ok());
}

#[test]
fn removed_directories_and_chroot() {
    let mut fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    ops::mkdir(&Walk::new(&fs, &by), b"/a", 0o755).unwrap();
    ops::mkdir(&Walk::new(&fs, &by), b"/a/b", 0o755).unwrap();
    let b = Walk::new(&fs, &by).find(b"/a/b", Follow::Yes).unwrap();
    fs.cwd = b.clone();
    let root = fs.root.clone();
    assert_eq!(crate::path::show_cwd(&fs.cwd, &root).text, b"/a/b");
    let mut jailed = fs.clone();
    jailed.root = Walk::new(&fs, &by).find(b"/a", Follow::Yes).unwrap();
    let walk = Walk::new(&jailed, &by);
    assert_eq!(walk.find(b"/../..", Follow::Yes).unwrap(), jailed.root);
    assert_eq!(crate::path::show(&b, &jailed.root).text, b"/b");
    assert_eq!(crate::path::show_cwd(&root, &jailed.root).text, b"(unreachable)/");
    let walk = Walk::new(&fs, &by);
    ops::rmdir(&walk, b"/a/b").unwrap();
    assert_eq!(ops::make(&walk, b"x", &NewNode::Regular, 0o644).err(), Some(Errno::ENOENT));
    assert!(crate::path::show(&fs.cwd, &root).deleted);
    assert!(walk.find(b"..", Follow::Yes).is_ok());
}

#[test]
fn permission_follows_owner_group_other() {
    use crate::{Access, CapSets, Credentials, Kgid, Kuid, perm};
    use abi::fs::FileType;
    use abi::time::Timespec;
    let zero = Timespec::default();
    let attr = |perm, kind| crate::Attr {
        kind,
        perm,
        ino: 1,
        nlink: 1,
        uid: Kuid(10),
        gid: Kgid(20),
        rdev: 0,
        size: 0,
        blocks: 0,
        blksize: 4096,
        atime: zero,
        mtime: zero,
        ctime: zero,
        btime: None,
    };
    let mut cred = Credentials::root(crate::UserNamespace::initial(1));
    cred.caps = CapSets::default();
    let file = FileType::Regular;
    let mut check = |uid, gid, perm, want| {
        (cred.fsuid, cred.fsgid) = (Kuid(uid), Kgid(gid));
        perm::check_attr(&cred, &attr(perm, file), want).is_ok()
    };
    assert!(check(10, 0, 0o400, Access::READ));
    // The owner is refused even where others are not.
    assert!(!check(10, 20, 0o077, Access::READ));
    assert!(check(11, 20, 0o040, Access::READ));
    assert!(!check(11, 20, 0o707, Access::READ));
    assert!(check(11, 21, 0o004, Access::READ));
    assert!(!check(11, 21, 0o770, Access::READ | Access::WRITE));
    let root = Credentials::root(crate::UserNamespace::initial(1));
    assert!(perm::check_attr(&root, &attr(0, file), Access::READ | Access::WRITE).is_ok());
    assert!(perm::check_attr(&root, &attr(0o644, file), Access::EXEC).is_err());
    assert!(perm::check_attr(&root, &attr(0o100, file), Access::EXEC).is_ok());
    assert!(perm::check_attr(&root, &attr(0, FileType::Directory), Access::EXEC).is_ok());
}
