//! Round trips, and decoding of random and mutated bytes.

use crate::{
    Access, Attached, Attr, DirEntry, ExportFlags, Handle, Kind, MAX_MESSAGE, NewNode, Node, Owner,
    ReaddirFlags, RenameFlags, Reply, Request, SetAttr, StatFs, Time, TimeChange, WalkEnd, WalkFlags,
    XattrFlags, is_component,
};
use abi::Errno;

fn attr() -> Attr {
    Attr {
        mode: 0o100_644,
        nlink: 2,
        uid: 1000,
        rdev: (1, 3),
        dev: (8, 1),
        ino: u64::MAX,
        size: 1 << 40,
        mtime: Time { sec: -1, nsec: 999_999_999 },
        ..Attr::default()
    }
}

fn requests() -> Vec<Request<'static>> {
    let node = Handle(7 << 32 | 9);
    let name = || b"name".to_vec().into();
    let owner = Owner { uid: 1, gid: 2 };
    let names = || vec![b"usr".to_vec().into(), name()];
    let change = SetAttr {
        mode: Some(0o755),
        size: Some(5),
        atime: Some(TimeChange::Now),
        mtime: Some(TimeChange::To(Time { sec: 3, nsec: 4 })),
        ..SetAttr::default()
    };
    let make = |new| Request::Make { dir: node, name: name(), node: new, mode: 0o700, owner };
    vec![
        Request::Attach { export: 1 },
        Request::Walk { from: node, names: names(), flags: WalkFlags::all() },
        Request::StatMany { dir: node, names: names() },
        Request::Open { node, name: name(), access: Access::READ },
        Request::SyncFs { node },
        Request::Readdir { dir: node, offset: 77, flags: ReaddirFlags::ATTRS },
        Request::Create { dir: node, name: name(), mode: 0o644, owner, access: Access::WRITE },
        make(NewNode::Directory {}),
        make(NewNode::Special { kind: Kind::Fifo }),
        make(NewNode::Symlink { target: name() }),
        make(NewNode::Link { node }),
        Request::Unlink { dir: node, name: name() },
        Request::Rmdir { dir: node, name: name() },
        Request::Rename {
            old_dir: node,
            old_name: name(),
            new_dir: node,
            new_name: name(),
            flags: RenameFlags::EXCHANGE,
        },
        Request::SetAttr { node, change },
        Request::GetAttr { node },
        Request::ReadLink { node },
        Request::StatFs { node },
        Request::GetXattr { node, name: name() },
        Request::SetXattr { node, name: name(), value: name(), flags: XattrFlags::CREATE },
        Request::ListXattr { node },
        Request::RemoveXattr { node, name: name() },
        Request::Fsync { node },
        Request::GetFlags { node },
        Request::SetFlags { node, flags: 0x40 },
        Request::CacheStat { node, offset: 1, len: 2 },
        Request::Cached { node, offset: 4096, pages: 2 },
        Request::Close { nodes: vec![node, Handle(3)] },
    ]
}

fn replies() -> Vec<Reply<'static>> {
    let node = Node { handle: Handle(1), attr: attr() };
    let entry = |attr| DirEntry { name: b"x".to_vec().into(), ino: 5, kind: Kind::Regular, next: 6, attr };
    let walked = |end| Reply::Walked { nodes: vec![node, node], end };
    vec![
        Reply::failed(Errno::ENOENT),
        Reply::Done {},
        Reply::Attached { attached: Attached { root: node, flags: ExportFlags::SHARED } },
        walked(WalkEnd::Complete {}),
        walked(WalkEnd::Symlink { target: b"../x".to_vec().into() }),
        walked(WalkEnd::Failed { errno: 13 }),
        Reply::Stats { attrs: vec![None, Some(attr())] },
        Reply::Donated { attr: attr() },
        Reply::Entries { entries: vec![entry(None), entry(Some(attr()))], end: 1 },
        Reply::Created { node, dir: attr() },
        Reply::Changed { dir: attr(), other: attr() },
        Reply::Attr { attr: attr() },
        Reply::Data { data: vec![0; 70_000].into() },
        Reply::StatFs { stat: StatFs { bsize: 4096, ..StatFs::default() } },
    ]
}

/// xorshift64*: the tests must not differ from run to run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }
}

fn decode_both(bytes: &[u8]) {
    if let Ok((closing, request)) = Request::decode(bytes) {
        let mut again = Vec::new();
        let _ = request.encode(&closing, &mut again);
        assert_eq!(again.len(), bytes.len(), "a decoded request encodes to as many bytes");
    }
    if let Ok(reply) = Reply::decode(bytes) {
        let mut again = Vec::new();
        let _ = reply.encode(&mut again);
        assert_eq!(again.len(), bytes.len(), "a decoded reply encodes to as many bytes");
    }
}

#[test]
fn round_trip() {
    for request in requests() {
        let mut bytes = Vec::new();
        let closing = vec![Handle(7), Handle(1 << 40)];
        request.encode(&closing, &mut bytes).unwrap();
        assert_eq!(Request::decode(&bytes), Ok((closing, request)));
    }
    for reply in replies() {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes).unwrap();
        assert_eq!(Reply::decode(&bytes), Ok(reply));
    }
}

#[test]
fn truncated_and_extended_messages_are_refused() {
    for request in requests() {
        let mut bytes = Vec::new();
        request.encode(&[Handle(1)], &mut bytes).unwrap();
        for len in 0..bytes.len() {
            assert!(Request::decode(&bytes[..len]).is_err());
        }
        bytes.push(0);
        assert!(Request::decode(&bytes).is_err());
    }
}

#[test]
fn any_bytes_decode_without_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..200_000 {
        let bytes: Vec<u8> = (0..random.below(96)).map(|_| random.byte()).collect();
        decode_both(&bytes);
    }
    let mut corpus = Vec::new();
    for request in requests() {
        let mut bytes = Vec::new();
        request.encode(&[Handle(1)], &mut bytes).unwrap();
        corpus.push(bytes);
    }
    for reply in replies() {
        let mut bytes = Vec::new();
        reply.encode(&mut bytes).unwrap();
        bytes.truncate(512);
        corpus.push(bytes);
    }
    for _ in 0..300_000 {
        let mut bytes = corpus[random.below(corpus.len())].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 => bytes[at] = random.byte(),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                2 => bytes.insert(at, random.byte()),
                _ => drop(bytes.remove(at)),
            }
            if bytes.is_empty() {
                bytes.push(random.byte());
            }
        }
        decode_both(&bytes);
    }
}

#[test]
fn a_list_cannot_reserve_more_than_the_message_holds() {
    let mut bytes = vec![0, 0, 0, 0, 20];
    bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(Request::decode(&bytes).is_err());
}

#[test]
fn too_long_is_refused() {
    let reply = Reply::Data { data: vec![0; MAX_MESSAGE].into() };
    assert_eq!(reply.encode(&mut Vec::new()), Err(Errno::E2BIG));
}

#[test]
fn components() {
    assert!(
        is_component(b"a") && is_component(b"...") && is_component(&[b'x'; 255]) && is_component(b"\xff")
    );
    for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &[b'x'; 256]] {
        assert!(!is_component(bad));
    }
}
