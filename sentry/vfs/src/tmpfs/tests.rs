use super::{TmpFs, TmpfsOptions};
use crate::file::{DirSink, OpenFile, SeekFrom};
use crate::inode::{NewNode, RenameFlags, XattrFlags};
use crate::mount::{Mount, MountFlags, MountNamespace};
use crate::testing::TestCaller;
use crate::vfs::Vfs;
use crate::walk::{Follow, FsContext, Walk};
use crate::{Kgid, Kuid, ops};
use abi::fs::{FileType, OpenFlags};
use abi::{Errno, Failure};
use mm::io::{SliceSource, VecSink};
use mm::{Frames, Seals};
use std::sync::Arc;

pub(crate) fn frames() -> Arc<Frames> {
    Frames::new(Arc::new(platform::memory::MemoryFile::create(256 << 20).unwrap()))
}

pub(crate) fn context(frames: &Arc<Frames>) -> FsContext {
    let fs = TmpFs::new(frames, &TmpfsOptions { perm: 0o755, ..TmpfsOptions::default() });
    let vfs = Vfs::new();
    vfs.register_type(super::TmpfsType::new(frames, "tmpfs"));
    let by = TestCaller::default();
    let mount = Mount::of_fs(fs, MountFlags::empty(), b"tmpfs");
    let ns = MountNamespace::new(1, Arc::clone(&by.cred.user_ns), vfs, mount);
    FsContext::at_root_of(&ns)
}

/// Root in the user namespace that owns the mounts.
pub(crate) fn root_of(fs: &FsContext) -> TestCaller {
    let mut caller = TestCaller::default();
    caller.cred.user_ns = Arc::clone(&fs.ns.user_ns);
    caller
}

pub(crate) fn put(walk: &Walk<'_>, path: &str, bytes: &[u8]) {
    let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC;
    let file = ops::open(walk, path.as_bytes(), flags, 0o644).unwrap();
    assert_eq!(file.write(&mut SliceSource::new(bytes), walk.by), Ok(bytes.len()));
}
pub(crate) fn get(walk: &Walk<'_>, path: &str) -> Result<Vec<u8>, Failure> {
    let file = ops::open(walk, path.as_bytes(), OpenFlags::empty(), 0)?;
    let mut sink = VecSink::new(1 << 20);
    while file.read(&mut sink, walk.by)? > 0 {}
    Ok(sink.bytes)
}

#[derive(Default)]
pub(crate) struct Names(pub(crate) Vec<String>, pub(crate) usize);
impl DirSink for Names {
    fn entry(&mut self, name: &[u8], _ino: u64, _kind: FileType, _next: u64) -> bool {
        if self.1 == 0 {
            return false;
        }
        self.1 -= 1;
        self.0.push(String::from_utf8_lossy(name).into_owned());
        true
    }
}
pub(crate) fn list(walk: &Walk<'_>, path: &str) -> Vec<String> {
    let file = ops::open(walk, path.as_bytes(), OpenFlags::DIRECTORY, 0).unwrap();
    let mut names = Names(Vec::new(), usize::MAX);
    file.read_dir(&mut names, walk.by).unwrap();
    names.0.sort();
    names.0
}

#[test]
fn files_come_and_go() {
    let frames = frames();
    let fs = context(&frames);
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    ops::mkdir(&walk, b"/d", 0o755).unwrap();
    put(&walk, "/d/f", b"hello");
    assert_eq!(get(&walk, "/d/f").unwrap(), b"hello");
    assert_eq!(get(&walk, "/d/g"), Err(Errno::ENOENT.into()));
    assert_eq!(get(&walk, "/d/f/g"), Err(Errno::ENOTDIR.into()));
    assert_eq!(list(&walk, "/d"), [".", "..", "f"]);
    assert_eq!(ops::rmdir(&walk, b"/d"), Err(Errno::ENOTEMPTY));
    assert_eq!(ops::unlink(&walk, b"/d"), Err(Errno::EISDIR));
    assert_eq!(ops::unlink(&walk, b"/d/f/"), Err(Errno::ENOTDIR));
    let before = frames.allocated();
    assert!(before > 0);
    let open = ops::open(&walk, b"/d/f", OpenFlags::RDWR | OpenFlags::APPEND, 0).unwrap();
    ops::unlink(&walk, b"/d/f").unwrap();
    assert_eq!(open.write(&mut SliceSource::new(b" world"), &by), Ok(6));
    open.seek(SeekFrom::Start(0), &by).unwrap();
    let mut sink = VecSink::new(100);
    assert_eq!(open.read(&mut sink, &by), Ok(11));
    assert_eq!(sink.bytes, b"hello world");
    assert_eq!(open.attr(&by).unwrap().nlink, 0);
    assert_eq!(crate::path::show(open.location().unwrap(), &fs.root).text, b"/d/f (deleted)");
    drop(open);
    assert_eq!(frames.allocated(), 0, "an unlinked file gives its pages back at the last close");
    ops::rmdir(&walk, b"/d").unwrap();
    assert_eq!(ops::mkdir(&walk, b"/d/x", 0o755), Err(Errno::ENOENT));
    assert_eq!(list(&walk, "/"), [".", ".."]);
}

#[test]
fn big_directories_have_stable_cookies() {
    let frames = frames();
    let fs = context(&frames);
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    for i in 0..300 {
        ops::make(&walk, format!("/f{i}").as_bytes(), &NewNode::Regular, 0o644).unwrap();
    }
    let dir = ops::open(&walk, b"/", OpenFlags::DIRECTORY, 0).unwrap();
    let mut seen = Vec::new();
    loop {
        let mut names = Names(Vec::new(), 7);
        dir.read_dir(&mut names, &by).unwrap();
        if names.0.is_empty() {
            break;
        }
        for name in names.0 {
            if name != "." && name != ".." {
                ops::unlink(&walk, format!("/{name}").as_bytes()).unwrap();
                seen.push(name);
            }
        }
    }
    assert_eq!(seen.len(), 300);
    assert_eq!(list(&walk, "/"), [".", ".."]);
}

#[test]
fn limits_links_and_xattrs() {
    let frames = frames();
    let fs = context(&frames);
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    ops::mkdir(&walk, b"/m", 0o755).unwrap();
    let flags = crate::mount_ops::MountCall::empty();
    ops::mount(&walk, b"tmpfs", b"/m", b"tmpfs", flags, b"size=8k,nr_inodes=4,mode=700").unwrap();
    let file = ops::open(&walk, b"/m/a", OpenFlags::CREAT | OpenFlags::WRONLY, 0o600).unwrap();
    assert_eq!(file.write(&mut SliceSource::new(&[1; 8192]), &by), Ok(8192));
    assert_eq!(file.write(&mut SliceSource::new(&[1; 1]), &by), Err(Errno::ENOSPC.into()));
    ops::make(&walk, b"/m/b", &NewNode::Regular, 0o600).unwrap();
    ops::make(&walk, b"/m/c", &NewNode::Regular, 0o600).unwrap();
    assert_eq!(ops::make(&walk, b"/m/d", &NewNode::Regular, 0o600).err(), Some(Errno::ENOSPC));
    let a = walk.find(b"/m/a", Follow::Yes).unwrap();
    ops::link(&walk, &a, b"/m/a2").unwrap();
    assert_eq!(a.inode().unwrap().attr(&by).unwrap().nlink, 2);
    assert_eq!(ops::link(&walk, &a, b"/x"), Err(Errno::EXDEV));
    ops::set_xattr(&a, b"user.k", b"v", XattrFlags::CREATE, &by).unwrap();
    assert_eq!(ops::set_xattr(&a, b"user.k", b"v", XattrFlags::CREATE, &by), Err(Errno::EEXIST));
    assert_eq!(ops::get_xattr(&a, b"user.k", &by).unwrap(), b"v");
    assert_eq!(ops::list_xattr(&a, &by).unwrap(), b"user.k\0");
    drop(file);
    drop(a);
    assert_eq!(ops::umount(&walk, b"/m", crate::mount_ops::UmountFlags::empty()), Ok(()));
    assert_eq!(frames.allocated(), 0);
    assert_eq!(list(&walk, "/m"), [".", ".."]);
}

#[test]
fn renames_swap_and_replace() {
    let frames = frames();
    let fs = context(&frames);
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    ops::mkdir(&walk, b"/a", 0o755).unwrap();
    ops::mkdir(&walk, b"/a/b", 0o755).unwrap();
    ops::mkdir(&walk, b"/c", 0o755).unwrap();
    put(&walk, "/f", b"f");
    put(&walk, "/g", b"g");
    let none = RenameFlags::empty();
    let mv = |from: &[u8], to: &[u8], flags| ops::rename(&walk, from, &walk, to, flags);
    assert_eq!(mv(b"/a", b"/a/b/x", none), Err(Errno::EINVAL));
    assert_eq!(mv(b"/a/b", b"/a", none), Err(Errno::ENOTEMPTY));
    assert_eq!(mv(b"/f", b"/a", none), Err(Errno::EISDIR));
    assert_eq!(mv(b"/a", b"/f", none), Err(Errno::ENOTDIR));
    assert_eq!(mv(b"/f", b"/g", RenameFlags::NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(mv(b"/f", b"/h/", none), Err(Errno::ENOTDIR));
    assert_eq!(mv(b"/c", b"/a", none), Err(Errno::ENOTEMPTY));
    mv(b"/f", b"/g", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(get(&walk, "/f").unwrap(), b"g");
    mv(b"/a/b", b"/c/b", none).unwrap();
    assert_eq!(ops::stat(&walk, b"/a", Follow::Yes).unwrap().0.nlink, 2);
    assert_eq!(ops::stat(&walk, b"/c", Follow::Yes).unwrap().0.nlink, 3);
    mv(b"/c/b", b"/a", none).unwrap();
    mv(b"/f", b"/g", none).unwrap();
    assert_eq!(get(&walk, "/g").unwrap(), b"g");
    assert_eq!(list(&walk, "/"), [".", "..", "a", "c", "g"]);
    assert_eq!(list(&walk, "/c"), [".", ".."]);
}

#[test]
fn deep_trees_drop_without_recursion() {
    let frames = frames();
    let fs = context(&frames);
    let caller = root_of(&fs);
    let by = caller.by();
    let mut at = fs.root.clone();
    for _ in 0..50_000 {
        let walk = Walk::new(&fs, &by).at(Some(&at));
        at = ops::make(&walk, b"d", &NewNode::Directory, 0o755).unwrap();
    }
    drop(at);
    drop(fs);
}

#[test]
fn memfds_seal() {
    let frames = frames();
    let caller = TestCaller::default();
    let by = caller.by();
    let shm = Mount::of_fs(TmpFs::new(&frames, &TmpfsOptions::default()), MountFlags::empty(), b"");
    let file: Arc<OpenFile> =
        super::memfd::create(&shm, b"x", super::memfd::MemfdFlags::ALLOW_SEALING, &by).unwrap();
    assert_eq!(file.write(&mut SliceSource::new(b"abc"), &by), Ok(3));
    super::pages_of(&file).unwrap().add_seals(Seals::WRITE).unwrap();
    assert_eq!(file.write(&mut SliceSource::new(b"abc"), &by), Err(Errno::EPERM.into()));
    let fs = context(&frames);
    assert_eq!(crate::path::show(file.location().unwrap(), &fs.root).text, b"/memfd:x (deleted)");
    assert_eq!(file.attr(&by).unwrap().nlink, 0);
}

#[test]
fn ownership_and_sticky() {
    let frames = frames();
    let fs = context(&frames);
    let root = TestCaller::default();
    let mut user = TestCaller::default();
    user.cred.caps = crate::CapSets::default();
    user.cred.fsuid = Kuid(1000);
    user.cred.fsgid = Kgid(1000);
    let (by, who) = (root.by(), user.by());
    let (walk, mine) = (Walk::new(&fs, &by), Walk::new(&fs, &who));
    ops::mkdir(&walk, b"/t", 0o755).unwrap();
    assert_eq!(ops::mkdir(&mine, b"/t/x", 0o755), Err(Errno::EACCES));
    ops::chmod(&walk.find(b"/t", Follow::Yes).unwrap(), 0o1777, &by).unwrap();
    put(&walk, "/t/r", b"r");
    put(&mine, "/t/u", b"u");
    assert_eq!(ops::unlink(&mine, b"/t/r"), Err(Errno::EPERM));
    assert_eq!(ops::chown_at(&mine, b"/t/u", Follow::Yes, Some(Kuid(0)), None), Err(Errno::EPERM));
    assert_eq!(ops::stat(&mine, b"/t/u", Follow::Yes).unwrap().0.uid, Kuid(1000));
    ops::unlink(&mine, b"/t/u").unwrap();
    ops::mkdir(&walk, b"/g", 0o777).unwrap();
    let g = walk.find(b"/g", Follow::Yes).unwrap();
    ops::chown(&g, None, Some(Kgid(50)), &by).unwrap();
    ops::chmod(&g, 0o2777, &by).unwrap();
    ops::mkdir(&mine, b"/g/d", 0o755).unwrap();
    let attr = ops::stat(&mine, b"/g/d", Follow::Yes).unwrap().0;
    assert_eq!((attr.gid, attr.perm), (Kgid(50), 0o2755));
    put(&walk, "/secret", b"s");
    ops::chmod(&walk.find(b"/secret", Follow::Yes).unwrap(), 0o600, &by).unwrap();
    assert_eq!(get(&mine, "/secret"), Err(Errno::EACCES.into()));
    let found = mine.find(b"/secret", Follow::Yes).unwrap();
    assert_eq!(ops::access(&found, crate::Access::READ, &who), Err(Errno::EACCES));
}
