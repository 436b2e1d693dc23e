//! A gofer on a thread, with its filter on, against a small tree and a hostile client.

use crate::{Config, Export, ExportFlags, Filter, enter_own_descriptors, serve};
use abi::Errno;
use platform::post::Asker;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use wire::{
    Access, Attr, Bytes, Handle, Kind, NewNode, Node, Owner, ReaddirFlags, RenameFlags, Reply, Request,
    SetAttr, Time, TimeChange, WalkEnd, WalkFlags, XattrFlags,
};

struct Tree(PathBuf);

impl Tree {
    /// `a/b/file` ("hello"), `a/link` -> `b`, `a/up` -> `../..`, and whatever root may make.
    fn new() -> Tree {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("gofer-test-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("root/a/b")).unwrap();
        fs::write(path.join("secret"), "outside").unwrap();
        fs::write(path.join("root/a/b/file"), "hello").unwrap();
        symlink("b", path.join("root/a/link")).unwrap();
        symlink("../..", path.join("root/a/up")).unwrap();
        symlink("/etc/passwd", path.join("root/abs")).unwrap();
        Tree(path)
    }
    fn root(&self) -> PathBuf {
        self.0.join("root")
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Client {
    post: Option<Mutex<Asker>>,
    server: Option<JoinHandle<()>>,
}

type Answer = (Vec<u8>, Option<OwnedFd>);

impl Client {
    fn new(exports: &[(&Path, ExportFlags)]) -> Client {
        enter_own_descriptors().unwrap();
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let exports = exports
            .iter()
            .map(|(path, flags)| Export {
                root: rustix::fs::openat(CWD, *path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap(),
                flags: *flags,
            })
            .collect();
        let config = Config { socket: theirs, exports, filter: Filter::Installed };
        let server = std::thread::spawn(move || serve(config).unwrap());
        Client { post: Some(Mutex::new(Asker::new(ours))), server: Some(server) }
    }

    fn raw(&self, bytes: &[u8]) -> Answer {
        let mut post = self.post.as_ref().unwrap().lock().unwrap();
        let mut buffer = Vec::new();
        post.ask(&mut bytes.to_vec()).unwrap();
        let fd = post.answer(&mut buffer).unwrap();
        (buffer, fd)
    }

    fn call<T>(
        &self,
        request: &Request<'_>,
        then: impl FnOnce(Reply<'_>, Option<OwnedFd>) -> T,
    ) -> Result<T, Errno> {
        let mut bytes = Vec::new();
        request.encode(&[], &mut bytes)?;
        let (reply, fd) = self.raw(&bytes);
        match Reply::decode(&reply).unwrap() {
            Reply::Failed { errno } => Err(Errno::from_raw(i32::from(errno))),
            reply => Ok(then(reply, fd)),
        }
    }

    fn attach(&self, export: u32) -> Node {
        self.call(&Request::Attach { export }, |reply, _| match reply {
            Reply::Attached { attached } => attached.root,
            other => panic!("{other:?}"),
        })
        .unwrap()
    }

    fn walk(
        &self,
        from: Handle,
        path: &str,
        flags: WalkFlags,
    ) -> Result<(Vec<Node>, WalkEnd<'static>), Errno> {
        let names: Vec<Bytes<'_>> = path.split(' ').map(|name| name.as_bytes().into()).collect();
        self.call(&Request::Walk { from, names, flags }, |reply, _| match reply {
            Reply::Walked { nodes, end: WalkEnd::Symlink { target } } => {
                (nodes, WalkEnd::Symlink { target: target.into_owned().into() })
            }
            Reply::Walked { nodes, end: WalkEnd::Failed { errno } } => (nodes, WalkEnd::Failed { errno }),
            Reply::Walked { nodes, end: WalkEnd::Complete {} } => (nodes, WalkEnd::Complete {}),
            Reply::Walked { nodes, end: WalkEnd::Missing { dir, default_acl } } => {
                (nodes, WalkEnd::Missing { dir, default_acl })
            }
            Reply::Walked { nodes, .. } => (nodes, WalkEnd::NotDirectory {}),
            other => panic!("{other:?}"),
        })
    }

    /// The node at `path` (components with a space between them).
    fn at(&self, from: Handle, path: &str) -> Node {
        let (nodes, _) = self.walk(from, path, WalkFlags::HANDLE_LAST).unwrap();
        assert_eq!(nodes.len(), path.split(' ').count(), "{path}");
        *nodes.last().unwrap()
    }

    fn close(&self, nodes: Vec<Handle>) {
        let mut bytes = Vec::new();
        Request::Close { nodes }.encode(&[], &mut bytes).unwrap();
        self.post.as_ref().unwrap().lock().unwrap().ask(&mut bytes).unwrap();
    }

    fn done(&self, request: &Request<'_>) -> Result<(), Errno> {
        self.call(request, |_, _| ())
    }

    fn open(&self, node: Handle, access: Access) -> Result<OwnedFd, Errno> {
        self.call(&Request::Open { node, name: name(""), access }, |_, fd| fd.unwrap())
    }

    fn attr(&self, request: &Request<'_>) -> Result<Attr, Errno> {
        self.call(request, |reply, _| match reply {
            Reply::Attr { attr } => attr,
            Reply::Created { node, .. } => node.attr,
            other => panic!("{other:?}"),
        })
    }

    fn make(
        &self,
        dir: Handle,
        name: &str,
        node: NewNode<'_>,
        mode: u32,
        owner: Owner,
    ) -> Result<Attr, Errno> {
        self.attr(&Request::Make { dir, name: name.as_bytes().into(), node, mode, owner })
    }

    fn list(&self, dir: Handle, flags: ReaddirFlags) -> Vec<(String, Kind, Option<Attr>)> {
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let end = self
                .call(&Request::Readdir { dir, offset, flags }, |reply, _| match reply {
                    Reply::Entries { entries, end } => {
                        for entry in entries {
                            offset = entry.next;
                            all.push((
                                String::from_utf8(entry.name.into_owned()).unwrap(),
                                entry.kind,
                                entry.attr,
                            ));
                        }
                        end
                    }
                    other => panic!("{other:?}"),
                })
                .unwrap();
            if end == 1 {
                return all;
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.post = None;
        if let Some(server) = self.server.take()
            && server.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the gofer panicked");
        }
    }
}

fn name(text: &str) -> Bytes<'_> {
    text.as_bytes().into()
}

fn me() -> Owner {
    Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
}

#[test]
fn walks_stop_where_they_must() {
    let tree = Tree::new();
    let client = Client::new(&[(&tree.root(), ExportFlags::empty())]);
    let root = client.attach(0).handle;

    let (nodes, end) = client.walk(root, "a b file", WalkFlags::HANDLE_LAST).unwrap();
    assert_eq!(end, WalkEnd::Complete {});
    assert_eq!(nodes.iter().map(|node| node.handle.is_some()).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(nodes[2].attr.size, 5);
    assert_eq!(nodes[2].attr.ino, fs::metadata(tree.root().join("a/b/file")).unwrap().ino());

    let (nodes, end) = client.walk(root, "a b file", WalkFlags::HANDLE_DIRS).unwrap();
    assert_eq!(end, WalkEnd::Complete {});
    assert_eq!(nodes.iter().map(|node| node.handle.is_some()).collect::<Vec<_>>(), [true, true, false]);

    let (nodes, _) = client.walk(root, "a b", WalkFlags::HANDLE_DIRS).unwrap();
    assert!(nodes.iter().all(|node| node.handle.is_some()));

    let (nodes, end) = client.walk(root, "a link file", WalkFlags::empty()).unwrap();
    assert_eq!((nodes.len(), end), (2, WalkEnd::Symlink { target: name("b") }));
    let (nodes, end) = client.walk(root, "a b nothing more", WalkFlags::HANDLE_LAST).unwrap();
    assert_eq!((nodes.len(), end), (2, WalkEnd::Missing { dir: nodes[1].attr, default_acl: 0 }));
    let (nodes, end) = client.walk(root, "a b file more", WalkFlags::empty()).unwrap();
    assert_eq!((nodes.len(), end), (3, WalkEnd::NotDirectory {}));

    let link = client.at(root, "a up").handle;
    let target = client.call(&Request::ReadLink { node: link }, |reply, _| match reply {
        Reply::Data { data } => data.into_owned(),
        other => panic!("{other:?}"),
    });
    assert_eq!(target.unwrap(), b"../..");
}

#[test]
fn names_never_leave_the_export() {
    let tree = Tree::new();
    let client = Client::new(&[(&tree.root(), ExportFlags::empty())]);
    let root = client.attach(0).handle;
    for bad in ["..", ".", "", "a/b", "/etc", "../secret", "x\0y"] {
        let (nodes, end) = client.walk(root, bad, WalkFlags::HANDLE_LAST).unwrap();
        assert_eq!((nodes.len(), end), (0, WalkEnd::Failed { errno: Errno::EINVAL.raw() }), "{bad:?}");
        let errno = Err(Errno::EINVAL);
        let make = |node| client.make(root, bad, node, 0o755, me()).map(|_| ());
        assert_eq!(make(NewNode::Directory {}), errno);
        assert_eq!(make(NewNode::Symlink { target: name("x") }), errno);
        assert_eq!(client.done(&Request::Unlink { dir: root, name: name(bad) }), errno);
        assert_eq!(client.done(&Request::Rmdir { dir: root, name: name(bad) }), errno);
        let access = Access::WRITE;
        let create = Request::Create { dir: root, name: name(bad), mode: 0o644, owner: me(), access };
        assert_eq!(client.done(&create), errno);
        let flags = RenameFlags::empty();
        let rename =
            |old, new| Request::Rename { old_dir: root, old_name: old, new_dir: root, new_name: new, flags };
        assert_eq!(client.done(&rename(name("a"), name(bad))), errno);
        assert_eq!(client.done(&rename(name(bad), name("z"))), errno);
        let stats = client.call(&Request::StatMany { dir: root, names: vec![name(bad)] }, |reply, _| {
            assert_eq!(reply, Reply::Stats { attrs: vec![None] });
        });
        stats.unwrap();
    }
    let long = "n".repeat(256);
    let (_, end) = client.walk(root, &long, WalkFlags::empty()).unwrap();
    assert_eq!(end, WalkEnd::Failed { errno: Errno::ENAMETOOLONG.raw() });
    // A symbolic link is a node of its own: nothing is looked up under it, nothing is read through it.
    let link = client.at(root, "abs").handle;
    assert_eq!(client.open(link, Access::READ).unwrap_err(), Errno::ELOOP);
    assert_eq!(client.make(link, "x", NewNode::Directory {}, 0o755, me()).unwrap_err(), Errno::ENOTDIR);
    let (_, end) = client.walk(link, "x", WalkFlags::empty()).unwrap();
    assert_eq!(end, WalkEnd::NotDirectory {});
    assert!(tree.0.join("secret").exists());
}

#[test]
fn handles_are_checked() {
    let tree = Tree::new();
    let client = Client::new(&[(&tree.root(), ExportFlags::empty())]);
    let root = client.attach(0).handle;
    assert_eq!(client.done(&Request::Attach { export: 1 }), Err(Errno::ENODEV));
    for bad in [0, 1, u64::MAX, 1 << 63, root.0 + 1, root.0 + (1 << 32)] {
        let node = Handle(bad);
        assert_eq!(client.done(&Request::GetAttr { node }), Err(Errno::EBADF));
        assert_eq!(client.walk(node, "a", WalkFlags::empty()), Err(Errno::EBADF));
        assert_eq!(client.open(node, Access::READ).unwrap_err(), Errno::EBADF);
        client.close(vec![node]);
    }
    let file = client.at(root, "a b file").handle;
    client.close(vec![file, file]);
    let again = client.at(root, "a b").handle;
    assert_ne!(file, again);
    assert_eq!(client.done(&Request::GetAttr { node: file }), Err(Errno::EBADF));
    client.done(&Request::GetAttr { node: again }).unwrap();
}

#[test]
fn garbage_is_answered() {
    let tree = Tree::new();
    let client = Client::new(&[(&tree.root(), ExportFlags::empty())]);
    for bytes in [&b"\xff"[..], b"\x02", &[0; 3000], &vec![7; wire::MAX_MESSAGE]] {
        let (reply, _) = client.raw(bytes);
        assert_eq!(Reply::decode(&reply), Ok(Reply::failed(Errno::EBADMSG)));
    }
    client.attach(0);
}

#[test]
fn special_files_are_seen_and_not_opened() {
    let tree = Tree::new();
    let listener = std::os::unix::net::UnixListener::bind(tree.root().join("sock")).unwrap();
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(CWD, tree.root().join("fifo"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    let device = rustix::fs::FileType::CharacterDevice;
    let have_device = rustix::fs::mknodat(CWD, tree.root().join("null"), device, mode, null).is_ok();

    let client = Client::new(&[(&tree.root(), ExportFlags::empty()), (&tree.root(), ExportFlags::OPEN_FIFO)]);
    let root = client.attach(0).handle;
    for access in [Access::READ, Access::WRITE, Access::READ | Access::WRITE] {
        let fifo = client.at(root, "fifo");
        assert_eq!(fifo.attr.kind(), Kind::Fifo);
        assert_eq!(client.open(fifo.handle, access).unwrap_err(), Errno::ENXIO);
        let socket = client.at(root, "sock");
        assert_eq!(socket.attr.kind(), Kind::Socket);
        assert_eq!(client.open(socket.handle, access).unwrap_err(), Errno::ENXIO);
        if have_device {
            let null = client.at(root, "null");
            assert_eq!((null.attr.kind(), null.attr.rdev), (Kind::Char, (1, 3)));
            assert_eq!(client.open(null.handle, access).unwrap_err(), Errno::EACCES);
            assert_eq!(client.done(&Request::Fsync { node: null.handle }), Err(Errno::EACCES));
        }
    }
    let change = SetAttr { size: Some(0), ..SetAttr::default() };
    let node = client.at(root, "fifo").handle;
    assert_eq!(client.done(&Request::SetAttr { node, change }), Err(Errno::EINVAL));
    // By name in a directory: the same rules.
    for (n, errno) in
        [("fifo", Errno::ENXIO), ("abs", Errno::ELOOP), ("..", Errno::EINVAL), ("no", Errno::ENOENT)]
    {
        let request = Request::Open { node: root, name: name(n), access: Access::READ };
        assert_eq!(client.done(&request), Err(errno), "{n}");
    }
    // Directories are listed, not donated.
    assert_eq!(client.open(root, Access::READ).unwrap_err(), Errno::EISDIR);
    let other = client.attach(1).handle;
    let fifo = client.at(other, "fifo").handle;
    client.open(fifo, Access::READ).unwrap();
    drop(listener);
    // No device can be made.
    for kind in [Kind::Block, Kind::Unknown, Kind::Directory, Kind::Symlink] {
        assert_eq!(
            client.make(root, "dev", NewNode::Special { kind }, 0o666, me()).unwrap_err(),
            Errno::EPERM
        );
    }
    client.make(root, "pipe", NewNode::Special { kind: Kind::Fifo }, 0o622, me()).unwrap();
    assert!(fs::metadata(tree.root().join("pipe")).unwrap().file_type().is_fifo());
}

#[test]
fn read_only_exports_refuse_every_change() {
    let tree = Tree::new();
    let client = Client::new(&[(&tree.root(), ExportFlags::READ_ONLY), (&tree.root(), ExportFlags::SHARED)]);
    let root = client.attach(0).handle;
    let file = client.at(root, "a b file").handle;
    let owner = me();
    let access = Access::WRITE;
    let n = || name("new");
    let flags = RenameFlags::empty();
    let requests = [
        Request::Create { dir: root, name: n(), mode: 0o644, owner, access },
        Request::Make { dir: root, name: n(), node: NewNode::Directory {}, mode: 0o755, owner },
        Request::Make { dir: root, name: n(), node: NewNode::Link { node: file }, mode: 0, owner },
        Request::Unlink { dir: root, name: name("abs") },
        Request::Rmdir { dir: root, name: name("a") },
        Request::Rename { old_dir: root, old_name: name("a"), new_dir: root, new_name: n(), flags },
        Request::SetAttr { node: file, change: SetAttr::default() },
        Request::SetXattr { node: file, name: name("user.x"), value: n(), flags: XattrFlags::empty() },
        Request::RemoveXattr { node: file, name: name("user.x") },
        Request::Open { node: file, name: name(""), access },
        Request::Open { node: file, name: name(""), access: Access::READ | Access::WRITE | Access::TRUNCATE },
    ];
    for request in requests {
        assert_eq!(client.done(&request), Err(Errno::EROFS), "{request:?}");
    }
    let donated = client.open(file, Access::READ).unwrap();
    assert!(rustix::io::write(&donated, b"x").is_err());
    // Two exports are two file systems, whatever the host has behind them.
    let other = client.attach(1).handle;
    let link = NewNode::Link { node: file };
    assert_eq!(client.make(other, "hard", link, 0, owner).unwrap_err(), Errno::EXDEV);
    let rename =
        Request::Rename { old_dir: other, old_name: name("abs"), new_dir: root, new_name: n(), flags };
    assert_eq!(client.done(&rename), Err(Errno::EROFS));
}

#[test]
fn files_are_made_changed_and_removed() {
    let tree = Tree::new();
    let root_path = tree.root();
    let client = Client::new(&[(&root_path, ExportFlags::empty())]);
    let root = client.attach(0).handle;
    let is_root = rustix::process::geteuid().is_root();
    let owner = if is_root { Owner { uid: 1234, gid: 4321 } } else { me() };

    let access = Access::READ | Access::WRITE;
    let create = Request::Create { dir: root, name: name("new"), mode: 0o4777, owner, access };
    let (node, fd) = client
        .call(&create, |reply, fd| match reply {
            Reply::Created { node, .. } => (node, fd.unwrap()),
            other => panic!("{other:?}"),
        })
        .unwrap();
    assert_eq!((node.attr.uid, node.attr.gid, node.attr.mode), (owner.uid, owner.gid, 0o104_777));
    assert_eq!(rustix::io::write(&fd, b"content").unwrap(), 7);
    assert_eq!(client.done(&create), Err(Errno::EEXIST));
    let mut text = String::new();
    fs::File::from(client.open(node.handle, Access::READ).unwrap()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");

    let dir = client.make(root, "dir", NewNode::Directory {}, 0o2770, owner).unwrap();
    assert_eq!((dir.mode, dir.uid), (0o042_770, owner.uid));
    let link = client.make(root, "soft", NewNode::Symlink { target: name("new") }, 0, owner).unwrap();
    assert_eq!((link.kind(), link.uid), (Kind::Symlink, owner.uid));
    let hard = client.make(root, "hard", NewNode::Link { node: node.handle }, 0, owner).unwrap();
    assert_eq!((hard.nlink, hard.ino), (2, node.attr.ino));

    let to = Time { sec: 1_000_000_000, nsec: 5 };
    let change =
        SetAttr { mode: Some(0o640), size: Some(3), mtime: Some(TimeChange::To(to)), ..SetAttr::default() };
    let attr = client.attr(&Request::SetAttr { node: node.handle, change }).unwrap();
    assert_eq!((attr.mode, attr.size, attr.mtime), (0o100_640, 3, to));
    let bad = SetAttr { atime: Some(TimeChange::To(Time { sec: 0, nsec: u32::MAX })), ..SetAttr::default() };
    assert_eq!(client.done(&Request::SetAttr { node: node.handle, change: bad }), Err(Errno::EINVAL));
    // Attributes of the link itself, not of what it leads to.
    let soft = client.at(root, "soft").handle;
    let change = SetAttr { mtime: Some(TimeChange::To(to)), ..SetAttr::default() };
    let attr = client.attr(&Request::SetAttr { node: soft, change }).unwrap();
    assert_eq!((attr.kind(), attr.mtime), (Kind::Symlink, to));
    let change = SetAttr { mode: Some(0o777), ..SetAttr::default() };
    assert_eq!(client.done(&Request::SetAttr { node: soft, change }), Err(Errno::EOPNOTSUPP));

    let rename = |old, new, flags| {
        client.done(&Request::Rename {
            old_dir: root,
            old_name: name(old),
            new_dir: root,
            new_name: name(new),
            flags,
        })
    };
    assert_eq!(rename("new", "hard", RenameFlags::NOREPLACE), Err(Errno::EEXIST));
    rename("new", "dir", RenameFlags::EXCHANGE).unwrap();
    assert!(root_path.join("new").is_dir() && root_path.join("dir").is_file());
    rename("dir", "final", RenameFlags::empty()).unwrap();
    client.done(&Request::Rmdir { dir: root, name: name("new") }).unwrap();
    assert_eq!(client.done(&Request::Unlink { dir: root, name: name("a") }), Err(Errno::EISDIR));
    assert_eq!(client.done(&Request::Rmdir { dir: root, name: name("a") }), Err(Errno::ENOTEMPTY));
    client.done(&Request::Unlink { dir: root, name: name("final") }).unwrap();
    client.done(&Request::Unlink { dir: root, name: name("hard") }).unwrap();
    // The handle outlives the name, and so does what it can do.
    assert_eq!(client.attr(&Request::GetAttr { node: node.handle }).unwrap().nlink, 0);
    client.open(node.handle, Access::READ).unwrap();
    assert_eq!(
        client.make(root, "again", NewNode::Link { node: node.handle }, 0, owner).unwrap_err(),
        Errno::ENOENT
    );
    client.done(&Request::Fsync { node: root }).unwrap();
    client.done(&Request::StatFs { node: root }).unwrap();
}

#[test]
fn extended_attributes() {
    let tree = Tree::new();
    let client = Client::new(&[(&tree.root(), ExportFlags::empty())]);
    let root = client.attach(0).handle;
    let node = client.at(root, "a b file").handle;
    let data = |request: &Request<'_>| {
        client.call(request, |reply, _| match reply {
            Reply::Data { data } => data.into_owned(),
            other => panic!("{other:?}"),
        })
    };
    let set = |n, flags| client.done(&Request::SetXattr { node, name: name(n), value: name("v"), flags });
    match set("user.one", XattrFlags::CREATE) {
        Err(Errno::EOPNOTSUPP) => return,
        result => result.unwrap(),
    }
    assert_eq!(set("user.one", XattrFlags::CREATE), Err(Errno::EEXIST));
    assert_eq!(set("user.two", XattrFlags::REPLACE), Err(Errno::ENODATA));
    assert_eq!(set("trusted.x", XattrFlags::empty()), Err(Errno::EPERM));
    assert_eq!(set("security.selinux", XattrFlags::empty()), Err(Errno::EPERM));
    assert_eq!(set("what.ever", XattrFlags::empty()), Err(Errno::EOPNOTSUPP));
    assert_eq!(data(&Request::GetXattr { node, name: name("user.one") }).unwrap(), b"v");
    assert_eq!(data(&Request::GetXattr { node, name: name("trusted.x") }), Err(Errno::ENODATA));
    assert_eq!(data(&Request::ListXattr { node }).unwrap(), b"user.one\0");
    client.done(&Request::RemoveXattr { node, name: name("user.one") }).unwrap();
    assert_eq!(data(&Request::ListXattr { node }).unwrap(), b"");
}

#[test]
fn large_directories_come_in_batches() {
    let tree = Tree::new();
    let dir = tree.root().join("many");
    fs::create_dir(&dir).unwrap();
    for number in 0..7000 {
        fs::write(dir.join(format!("file-{number}")), "").unwrap();
    }
    let client = Client::new(&[(&tree.root(), ExportFlags::empty())]);
    let root = client.attach(0).handle;
    let many = client.at(root, "many").handle;
    for flags in [ReaddirFlags::empty(), ReaddirFlags::ATTRS] {
        // Twice: the second starts from the beginning again.
        for _ in 0..2 {
            let mut list = client.list(many, flags);
            list.sort_by(|a, b| a.0.cmp(&b.0));
            list.dedup_by(|a, b| a.0 == b.0);
            assert_eq!(list.len(), 7000);
            assert!(list.iter().all(|(_, kind, attr)| {
                *kind == Kind::Regular && attr.is_some() == flags.contains(ReaddirFlags::ATTRS)
            }));
        }
    }
    let file = client.at(root, "a b file").handle;
    let readdir = Request::Readdir { dir: file, offset: 0, flags: ReaddirFlags::empty() };
    assert_eq!(client.done(&readdir), Err(Errno::ENOTDIR));
    let readdir = Request::Readdir { dir: many, offset: u64::MAX, flags: ReaddirFlags::empty() };
    assert_eq!(client.done(&readdir), Err(Errno::EINVAL));
}

#[test]
fn a_single_file_can_be_an_export() {
    let tree = Tree::new();
    let client = Client::new(&[(&tree.root().join("a/b/file"), ExportFlags::SHARED)]);
    let root = client.attach(0);
    assert_eq!(root.attr.kind(), Kind::Regular);
    client.open(root.handle, Access::READ | Access::WRITE).unwrap();
    let (_, end) = client.walk(root.handle, "x", WalkFlags::empty()).unwrap();
    assert_eq!(end, WalkEnd::NotDirectory {});
}

#[test]
fn a_race_with_symbolic_links_never_leads_outside() {
    let tree = Tree::new();
    let path = tree.root();
    fs::create_dir_all(path.join("d")).unwrap();
    fs::write(path.join("d/secret"), "inside").unwrap();
    symlink(&tree.0, path.join("s")).unwrap();
    let client = Client::new(&[(&path, ExportFlags::SHARED)]);
    let root = client.attach(0).handle;
    let outside = fs::metadata(tree.0.join("secret")).unwrap().ino();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let racer = {
        let (stop, path) = (stop.clone(), path.clone());
        std::thread::spawn(move || {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, path.join("d"), CWD, path.join("s"), flags).unwrap();
            }
        })
    };
    let (mut found, mut links) = (0, 0);
    for _ in 0..20_000 {
        let (nodes, end) = client.walk(root, "d secret", WalkFlags::HANDLE_LAST).unwrap();
        assert!(nodes.iter().all(|node| node.attr.ino != outside));
        match end {
            WalkEnd::Complete {} => found += 1,
            WalkEnd::Symlink { .. } => links += 1,
            other => panic!("{other:?}"),
        }
        client.close(nodes.iter().map(|node| node.handle).collect());
    }
    stop.store(true, Ordering::Relaxed);
    racer.join().unwrap();
    assert!(found > 0 && links > 0, "{found} {links}");
    let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o755));
}
