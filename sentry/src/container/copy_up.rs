//! `tmpcopyup`: a tmpfs begins with what its mount point holds in the root file system, as runc has it.

use abi::fs::{FileType, OpenFlags};
use abi::{Errno, Failure, SysResult};
use mm::io::{SliceSink, SliceSource};
use vfs::{DirSink, Follow, LinkTarget, NewNode, OpenFile, Walk, ops};

/// Bytes copied at once.
const PIECE: usize = 64 << 10;

#[derive(Default)]
struct Names {
    names: Vec<Vec<u8>>,
}

impl DirSink for Names {
    fn entry(&mut self, name: &[u8], _ino: u64, _kind: FileType, _next: u64) -> bool {
        if name != b"." && name != b".." {
            self.names.push(name.to_vec());
        }
        true
    }
}

fn plain(failure: Failure) -> Errno {
    match failure {
        Failure::Errno(errno) => errno,
        Failure::Restart(_) => Errno::EINTR,
    }
}

fn names(walk: &Walk<'_>, path: &[u8]) -> SysResult<Vec<Vec<u8>>> {
    let dir = ops::open(walk, path, OpenFlags::DIRECTORY, 0).map_err(plain)?;
    let mut names = Names::default();
    loop {
        let before = names.names.len();
        dir.read_dir(&mut names, walk.by)?;
        if names.names.len() == before {
            return Ok(names.names);
        }
    }
}

fn data(from: &OpenFile, to: &OpenFile, walk: &Walk<'_>) -> SysResult<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let length = from.read(&mut SliceSink::new(&mut buffer), walk.by).map_err(plain)?;
        let Some(mut left) = buffer.get(..length).filter(|piece| !piece.is_empty()) else { return Ok(()) };
        while !left.is_empty() {
            let written = to.write(&mut SliceSource::new(left), walk.by).map_err(plain)?;
            left = left.get(written..).unwrap_or_default();
        }
    }
}

/// Copies what is below `path` of `from` to the root of `to`, and that directory's owner and mode.
pub(super) fn fill(from: &Walk<'_>, path: &[u8], to: &Walk<'_>) -> SysResult<()> {
    let mut folders = vec![Vec::new()];
    while let Some(folder) = folders.pop() {
        let join = |base: &[u8], rest: &[u8]| [base, rest].concat();
        for name in names(from, &join(path, &folder))? {
            let below = [folder.as_slice(), b"/", name.as_slice()].concat();
            one(from, &join(path, &below), to, &below)?;
            if ops::stat(to, &below, Follow::No)?.0.kind == FileType::Directory {
                folders.push(below);
            }
        }
    }
    like(from, path, to, b"/")
}

fn one(from: &Walk<'_>, source: &[u8], to: &Walk<'_>, target: &[u8]) -> SysResult<()> {
    let (attr, at) = ops::stat(from, source, Follow::No)?;
    let what = match attr.kind {
        FileType::Regular => NewNode::Regular,
        FileType::Directory => NewNode::Directory,
        FileType::Fifo => NewNode::Fifo,
        FileType::Symlink => match at.inode()?.read_link(from.by)? {
            LinkTarget::Path(path) => NewNode::Symlink(path),
            LinkTarget::Magic(_) => return Ok(()),
        },
        // Sockets and devices of an image stay behind.
        _ => NewNode::Socket,
    };
    ops::make(to, target, &what, attr.perm)?;
    if attr.kind == FileType::Regular {
        let nofollow = OpenFlags::NOFOLLOW;
        let old = ops::open(from, source, nofollow, 0).map_err(plain)?;
        let new = ops::open(to, target, OpenFlags::WRONLY | nofollow, 0).map_err(plain)?;
        data(&old, &new, to)?;
    }
    like(from, source, to, target)
}

/// Gives `target` the owner and mode of `source`.
fn like(from: &Walk<'_>, source: &[u8], to: &Walk<'_>, target: &[u8]) -> SysResult<()> {
    let (attr, _) = ops::stat(from, source, Follow::No)?;
    let (_, at) = ops::stat(to, target, Follow::No)?;
    ops::chown(&at, Some(attr.uid), Some(attr.gid), to.by)?;
    if attr.kind == FileType::Symlink { Ok(()) } else { ops::chmod(&at, attr.perm, to.by) }
}
