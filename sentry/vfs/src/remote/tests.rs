//! The client against a real gofer on a thread.

use super::{Channel, RemoteFs};
use crate::attr::{AttrChange, SetTime};
use crate::cred::{Kgid, Kuid};
use crate::file::{DirSink, Io, OpenFile, SeekFrom, SyncScope};
use crate::inode::{FileSystem, Inode, LinkTarget, NewNode, Owner, RenameFlags, XattrFlags};
use crate::testing::TestCaller;
use abi::Errno;
use abi::fs::{FileType, OpenFlags};
use abi::time::Timespec;
use gofer::{Config, Export, ExportFlags, Filter};
use mm::io::{SliceSource, VecSink};
use mm::{MapUse, Translation};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

pub(super) struct World {
    pub(super) path: PathBuf,
    channel: Option<Arc<Channel>>,
    pub(super) fs: Option<Arc<RemoteFs>>,
    server: Option<JoinHandle<()>>,
    pub(super) caller: TestCaller,
}

impl World {
    pub(super) fn new(flags: ExportFlags) -> World {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("remote-test-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("a/b/c")).unwrap();
        fs::write(path.join("a/b/c/file"), "hello").unwrap();
        std::os::unix::fs::symlink("b/c", path.join("a/link")).unwrap();
        gofer::enter_own_descriptors().unwrap();
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let root = rustix::fs::openat(CWD, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let exports = vec![Export { root, flags }];
        let config = Config { socket: theirs, exports, filter: Filter::Installed };
        let server = std::thread::spawn(move || gofer::serve(config).unwrap());
        let channel = Channel::new(ours);
        let fs = RemoteFs::attach(&channel, 0).unwrap();
        World {
            path,
            channel: Some(channel),
            fs: Some(fs),
            server: Some(server),
            caller: TestCaller::default(),
        }
    }
    fn root(&self) -> Arc<dyn Inode> {
        self.fs.as_ref().unwrap().root()
    }
    pub(super) fn sent(&self) -> u64 {
        self.channel.as_ref().unwrap().sent()
    }
    fn walk(&self, path: &str) -> Result<Arc<dyn Inode>, Errno> {
        let mut at = self.root();
        for name in path.split('/') {
            at = at.lookup(name.as_bytes(), &self.caller.by())?;
        }
        Ok(at)
    }
    fn open(&self, inode: &Arc<dyn Inode>, flags: OpenFlags) -> Result<Arc<OpenFile>, Errno> {
        let ops = Arc::clone(inode).open(flags, &self.caller.by())?;
        Ok(OpenFile::anonymous(ops, flags))
    }
    fn read(&self, file: &OpenFile, offset: u64) -> Vec<u8> {
        let mut sink = VecSink::new(1 << 20);
        let io = Io { file, offset, append: false };
        file.ops().read(&io, &mut sink, &self.caller.by()).unwrap();
        sink.bytes
    }
    fn write(&self, file: &OpenFile, offset: u64, bytes: &[u8], append: bool) -> (usize, u64) {
        let io = Io { file, offset, append };
        file.ops().write(&io, &mut SliceSource::new(bytes), &self.caller.by()).unwrap()
    }
    fn list(&self, dir: &Arc<dyn Inode>) -> Vec<(String, u64, FileType)> {
        let file = self.open(dir, OpenFlags::DIRECTORY).unwrap();
        let mut names = Names { got: Vec::new(), room: 100 };
        let mut cookie = 0;
        loop {
            names.room = 100;
            let next = file.ops().read_dir(&file, cookie, &mut names, &self.caller.by()).unwrap();
            if next == cookie {
                return names.got;
            }
            cookie = next;
        }
    }
    fn names(&self, dir: &Arc<dyn Inode>) -> Vec<String> {
        let mut names: Vec<_> = self.list(dir).into_iter().map(|entry| entry.0).collect();
        names.sort();
        names
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.fs = None;
        self.channel = None;
        if let Some(server) = self.server.take()
            && !std::thread::panicking()
        {
            server.join().unwrap();
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

pub(super) struct Names {
    pub(super) got: Vec<(String, u64, FileType)>,
    pub(super) room: usize,
}

impl DirSink for Names {
    fn entry(&mut self, name: &[u8], ino: u64, kind: FileType, _next: u64) -> bool {
        if self.room == 0 {
            return false;
        }
        self.room -= 1;
        self.got.push((String::from_utf8(name.to_vec()).unwrap(), ino, kind));
        true
    }
}

fn owner() -> Owner {
    Owner { uid: Kuid(rustix::process::geteuid().as_raw()), gid: Kgid(rustix::process::getegid().as_raw()) }
}

#[test]
#[ignore = "a measurement"]
fn round_trip_time() {
    let world = World::new(ExportFlags::SHARED);
    let by = world.caller.by();
    let c = world.walk("a/b/c").unwrap();
    let _file = c.lookup(b"file", &by).unwrap();
    let root = world.root();
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..10_000 {
            root.revalidate_path(&[b"a", b"b"], 2, &by);
        }
        eprintln!("round trip {:?}", start.elapsed() / 10_000);
    }
}

pub(super) const BOTH: [ExportFlags; 2] = [ExportFlags::empty(), ExportFlags::SHARED];

#[test]
fn reading_a_tree() {
    for flags in BOTH {
        let world = World::new(flags);
        let by = world.caller.by();
        let file = world.walk("a/b/c/file").unwrap();
        let attr = file.attr(&by).unwrap();
        assert_eq!((attr.size, attr.kind), (5, FileType::Regular));
        let open = world.open(&file, OpenFlags::empty()).unwrap();
        assert_eq!(world.read(&open, 1), b"ello");
        assert_eq!(open.ops().seek(&open, 0, SeekFrom::End(-2), &by), Ok(3));
        assert_eq!(open.ops().seek(&open, 0, SeekFrom::Current(-1), &by), Err(Errno::EINVAL));
        assert_eq!(world.walk("a/nothing").err(), Some(Errno::ENOENT));
        assert_eq!(world.walk("a/b/c/file/x").err(), Some(Errno::ENOTDIR));
        let link = world.walk("a/link").unwrap();
        assert!(matches!(link.read_link(&by), Ok(LinkTarget::Path(path)) if path == b"b/c"));
        let a = world.walk("a").unwrap();
        assert_eq!(world.names(&a), [".", "..", "b", "link"]);
        // One file is one inode, however it was found.
        assert!(Arc::ptr_eq(&file, &world.walk("a/b/c/file").unwrap()));
        let mapping = open.ops().mappable(&open).unwrap();
        assert!(matches!(
            mapping.translate(0, 1 << 20, MapUse::Read),
            Ok(Translation::Host { len: 4096, .. })
        ));
        assert_eq!(mapping.translate(4096, 4096, MapUse::Read).err(), Some(Errno::ENXIO));
        assert_eq!(mapping.translate(0, 4096, MapUse::SharedWrite).err(), Some(Errno::EACCES));
        assert!(world.fs.as_ref().unwrap().statfs(&by).unwrap().blocks > 0);
        world.fs.as_ref().unwrap().sync().unwrap();
    }
}

#[test]
fn several_components_are_one_message() {
    let world = World::new(ExportFlags::empty());
    let by = world.caller.by();
    let root = world.root();
    let before = world.sent();
    let names: [&[u8]; 5] = [b"a", b"b", b"c", b"gone", b"more"];
    let found = root.lookup_path(&names, &by).unwrap().unwrap();
    assert_eq!(found.len(), 3);
    assert_eq!(found[2].lookup(b"gone", &by).err(), Some(Errno::ENOENT));
    assert_eq!(world.sent() - before, 1);
    // What is known is not asked for again.
    assert!(root.lookup_path(&names, &by).is_none());
    assert!(Arc::ptr_eq(&found[2], &world.walk("a/b/c").unwrap()));
    assert_eq!(world.sent() - before, 1);
    // Opening by name needs no handle: one message.
    let file = found[2].lookup(b"file", &by).unwrap();
    world.open(&file, OpenFlags::empty()).unwrap();
    assert_eq!(world.sent() - before, 3);
    world.open(&file, OpenFlags::empty()).unwrap();
    assert_eq!(world.sent() - before, 3);
}

#[test]
fn changing_a_tree() {
    for flags in BOTH {
        let world = World::new(flags);
        let by = world.caller.by();
        let a = world.walk("a").unwrap();
        assert_eq!(world.names(&a), [".", "..", "b", "link"]);
        let file = a.create(b"new", &NewNode::Regular, 0o640, owner(), &by).unwrap();
        let open = world.open(&file, OpenFlags::RDWR).unwrap();
        assert_eq!(world.write(&open, 0, b"0123456789", false), (10, 10));
        assert_eq!(world.write(&open, 0, b"ab", true), (2, 12));
        assert_eq!(file.attr(&by).unwrap().size, 12);
        assert_eq!(world.read(&open, 8), b"89ab");
        file.set_attr(&AttrChange { size: Some(4), ..AttrChange::default() }, &by).unwrap();
        assert_eq!(file.attr(&by).unwrap().size, 4);
        let to = Timespec { sec: 5, nsec: 7 };
        let change = AttrChange { perm: Some(0o600), mtime: Some(SetTime::To(to)), ..AttrChange::default() };
        file.set_attr(&change, &by).unwrap();
        let attr = file.attr(&by).unwrap();
        assert_eq!((attr.perm, attr.mtime), (0o600, to));
        open.ops().sync(SyncScope::All).unwrap();
        open.ops().allocate(0, 0, 100, &by).unwrap();
        assert_eq!(file.attr(&by).unwrap().size, 100);
        let mapping = open.ops().mappable(&open).unwrap();
        assert!(matches!(mapping.translate(0, 4096, MapUse::SharedWrite), Ok(Translation::Host { .. })));

        assert_eq!(a.create(b"new", &NewNode::Directory, 0o755, owner(), &by).err(), Some(Errno::EEXIST));
        let links = a.attr(&by).unwrap().nlink;
        let dir = a.create(b"dir", &NewNode::Directory, 0o755, owner(), &by).unwrap();
        assert_eq!(a.attr(&by).unwrap().nlink, links + 1);
        let soft = a.create(b"soft", &NewNode::Symlink(b"x".to_vec()), 0o777, owner(), &by).unwrap();
        assert!(matches!(soft.read_link(&by), Ok(LinkTarget::Path(path)) if path == b"x"));
        let fifo = a.create(b"fifo", &NewNode::Fifo, 0o600, owner(), &by).unwrap();
        assert_eq!(fifo.kind(), FileType::Fifo);
        let device = NewNode::CharDevice(0x103);
        assert_eq!(a.create(b"null", &device, 0o600, owner(), &by).err(), Some(Errno::EPERM));
        a.link(b"hard", &file, &by).unwrap();
        assert_eq!(file.attr(&by).unwrap().nlink, 2);
        assert!(Arc::ptr_eq(&file, &a.lookup(b"hard", &by).unwrap()));
        assert_eq!(world.names(&a), [".", "..", "b", "dir", "fifo", "hard", "link", "new", "soft"]);

        a.rename(b"new", &dir, b"moved", None, RenameFlags::empty(), &by).unwrap();
        assert_eq!(a.lookup(b"new", &by).err(), Some(Errno::ENOENT));
        assert!(Arc::ptr_eq(&file, &dir.lookup(b"moved", &by).unwrap()));
        assert_eq!(world.names(&dir), [".", "..", "moved"]);
        a.rename(b"fifo", &dir, b"moved", Some(&file), RenameFlags::empty(), &by).unwrap();
        assert!(Arc::ptr_eq(&fifo, &dir.lookup(b"moved", &by).unwrap()));
        assert_eq!(file.attr(&by).unwrap().nlink, 1);
        a.rename(b"soft", &a, b"dir", Some(&dir), RenameFlags::EXCHANGE, &by).unwrap();
        assert!(Arc::ptr_eq(&dir, &a.lookup(b"soft", &by).unwrap()));
        assert!(Arc::ptr_eq(&soft, &a.lookup(b"dir", &by).unwrap()));
        let nothing = RenameFlags::NOREPLACE;
        assert_eq!(a.rename(b"hard", &a, b"dir", Some(&soft), nothing, &by), Err(Errno::EEXIST));

        assert_eq!(a.rmdir(b"soft", &dir, &by), Err(Errno::ENOTEMPTY));
        dir.unlink(b"moved", &fifo, &by).unwrap();
        a.rmdir(b"soft", &dir, &by).unwrap();
        a.unlink(b"hard", &file, &by).unwrap();
        a.unlink(b"dir", &soft, &by).unwrap();
        assert_eq!(world.names(&a), [".", "..", "b", "link"]);
        // An open file outlives its name.
        assert_eq!(file.attr(&by).unwrap().nlink, 0);
        assert_eq!(world.read(&open, 0).len(), 100);
        file.set_attr(&AttrChange { perm: Some(0o644), ..AttrChange::default() }, &by).unwrap();
        let unnamed = a.create_unnamed(0o600, owner(), &by).unwrap();
        let unnamed = world.open(&unnamed, OpenFlags::RDWR).unwrap();
        world.write(&unnamed, 0, b"x", false);
        assert_eq!(fs::read_dir(world.path.join("a")).unwrap().count(), 2);
    }
}

#[test]
fn others_change_a_shared_tree() {
    let world = World::new(ExportFlags::SHARED);
    let by = world.caller.by();
    let c = world.walk("a/b/c").unwrap();
    let file = c.lookup(b"file", &by).unwrap();
    let open = world.open(&file, OpenFlags::empty()).unwrap();
    assert!(c.revalidate(b"file", &file, &by));
    // What others do shows in the next call.
    let settle = crate::moment::begin;
    settle();
    fs::write(world.path.join("a/b/c/file"), "longer than before").unwrap();
    assert!(c.revalidate(b"file", &file, &by));
    assert_eq!(file.attr(&by).unwrap().size, 18);
    assert_eq!(world.read(&open, 0), b"longer than before");
    settle();
    fs::write(world.path.join("a/b/c/file"), "x").unwrap();
    std::os::unix::fs::chown(world.path.join("a/b/c/file"), Some(owner().uid.0), None).unwrap();
    settle();
    assert_eq!(file.attr(&by).unwrap().size, 1);
    fs::write(world.path.join("a/b/c/other"), "other").unwrap();
    fs::rename(world.path.join("a/b/c/other"), world.path.join("a/b/c/file")).unwrap();
    settle();
    assert!(!c.revalidate(b"file", &file, &by));
    let other = c.lookup(b"file", &by).unwrap();
    assert!(!Arc::ptr_eq(&file, &other));
    fs::remove_file(world.path.join("a/b/c/file")).unwrap();
    settle();
    assert!(!c.revalidate(b"file", &other, &by));
    assert_eq!(c.lookup(b"file", &by).err(), Some(Errno::ENOENT));
    // One message for a path that is walked again, attributes included.
    let root = world.root();
    let (a, b) = (world.walk("a").unwrap(), world.walk("a/b").unwrap());
    settle();
    let before = world.sent();
    root.revalidate_path(&[b"a", b"b", b"c"], 3, &by);
    assert!(root.revalidate(b"a", &a, &by) && a.revalidate(b"b", &b, &by) && b.revalidate(b"c", &c, &by));
    a.attr(&by).unwrap();
    c.attr(&by).unwrap();
    assert_eq!(world.sent() - before, 1);
    fs::write(world.path.join("a/b/c/late"), "").unwrap();
    assert_eq!(world.names(&c), [".", "..", "late"]);
}

#[test]
fn extended_attributes_are_remembered() {
    let world = World::new(ExportFlags::empty());
    let by = world.caller.by();
    let file = world.walk("a/b/c/file").unwrap();
    if file.list_xattr(&by) == Err(Errno::EOPNOTSUPP) {
        return;
    }
    assert_eq!(file.get_xattr(b"security.capability", &by), Err(Errno::ENODATA));
    let before = world.sent();
    assert_eq!(file.get_xattr(b"security.capability", &by), Err(Errno::ENODATA));
    assert_eq!(world.sent(), before);
    file.set_xattr(b"user.x", b"1", XattrFlags::CREATE, &by).unwrap();
    assert_eq!(file.get_xattr(b"user.x", &by).unwrap(), b"1");
    assert_eq!(file.list_xattr(&by).unwrap(), [b"user.x".to_vec()]);
    file.remove_xattr(b"user.x", &by).unwrap();
    assert_eq!(file.list_xattr(&by).unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn handles_go_back() {
    let world = World::new(ExportFlags::empty());
    let by = world.caller.by();
    let root = world.root();
    let file = root.create(b"big", &NewNode::Regular, 0o600, owner(), &by).unwrap();
    let open = world.open(&file, OpenFlags::RDWR).unwrap();
    world.write(&open, 0, &[1; 1 << 16], false);
    root.unlink(b"big", &file, &by).unwrap();
    drop((open, file));
    // What is given back has no reply: the next request waits for it.
    world.fs.as_ref().unwrap().statfs(&by).unwrap();
    // Neither the gofer nor this side holds what has no name.
    let held = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let path = world.path.join("big").into_os_string().into_string().unwrap();
    let ours = held.filter_map(|entry| fs::read_link(entry.path()).ok());
    assert_eq!(ours.filter(|link| link.to_string_lossy().starts_with(&path)).count(), 0);
}

#[test]
fn a_gofer_that_is_gone_is_an_error() {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    drop(theirs);
    assert_eq!(RemoteFs::attach(&Channel::new(ours), 0).err(), Some(Errno::EIO));
}

#[test]
fn a_large_directory_costs_few_messages() {
    const COUNT: usize = 50_000;
    let world = World::new(ExportFlags::empty());
    let by = world.caller.by();
    fs::create_dir(world.path.join("many")).unwrap();
    for number in 0..COUNT {
        fs::write(world.path.join(format!("many/f{number}")), "").unwrap();
    }
    let dir = world.walk("many").unwrap();
    let (start, before) = (Instant::now(), world.sent());
    let list = world.list(&dir);
    assert_eq!(list.len(), COUNT + 2);
    let (listed, listing) = (start.elapsed(), world.sent() - before);
    assert!(listing < 40, "{listing}");
    let (start, before) = (Instant::now(), world.sent());
    for (name, ino, _) in &list {
        if !name.starts_with('.') {
            let attr = dir.lookup(name.as_bytes(), &by).unwrap().attr(&by).unwrap();
            assert_eq!(attr.ino, *ino);
        }
    }
    let (looked_up, lookups) = (start.elapsed(), world.sent() - before);
    assert!(lookups < 200, "{lookups}");
    let before = world.sent();
    assert_eq!(dir.lookup(b"nothing", &by).err(), Some(Errno::ENOENT));
    assert_eq!(world.sent(), before);
    eprintln!(
        "{COUNT} names: list {listed:?} in {listing} messages, stat {looked_up:?} in {lookups} messages"
    );
    let start = Instant::now();
    for (name, ..) in list.iter().filter(|entry| entry.0.starts_with('f')) {
        let file = dir.lookup(name.as_bytes(), &by).unwrap();
        dir.unlink(name.as_bytes(), &file, &by).unwrap();
    }
    eprintln!("remove all: {:?}", start.elapsed());
    assert_eq!(world.names(&dir), [".", ".."]);
}
