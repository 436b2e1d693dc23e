//! Looking: walks, attributes in bulk, opening, listings.

use crate::confine::{host, lookup, open_for_io, own_name, refusal, reopen, stat_entry, stat_fd};
use crate::handle::{Held, Listing};
use crate::server::{Answer, Server};
use abi::{Errno, SysResult};
use rustix::fs::{OFlags, RawDir, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use wire::{
    Access, Attr, Bytes, DirEntry, ExportFlags, Handle, Kind, MAX_MESSAGE, Node, ReaddirFlags, Reply,
    WalkEnd, WalkFlags,
};

/// Bytes of `struct linux_dirent64` read at once, chosen so that their encoding always fits a message: the
/// smallest record (24 bytes) becomes at most 26 bytes, or 26 + 121 with attributes.
const LISTING_BYTES: usize = 64 * 1024;
const LISTING_BYTES_WITH_ATTRS: usize = 14 * 1024;
/// Upper bounds of what those become.
const ENCODED: usize = LISTING_BYTES / 24 * 26;
const ENCODED_WITH_ATTRS: usize = LISTING_BYTES_WITH_ATTRS / 24 * (26 + 130);
const HEADER: usize = 64;
const _: () = assert!(ENCODED + HEADER <= MAX_MESSAGE && ENCODED_WITH_ATTRS + HEADER <= MAX_MESSAGE);

/// Symbolic links are no longer than this (PATH_MAX).
const LONGEST_LINK: usize = 4096;

/// A node found on a walk and not yet in the table.
struct Found {
    fd: Option<OwnedFd>,
    attr: Attr,
}

impl Server {
    pub(crate) fn walk(&mut self, from: Handle, names: &[Bytes<'_>], flags: WalkFlags) -> SysResult<Answer> {
        let start = self.handles.get(from)?;
        let export = start.export;
        let shared = self.exports.get(export).is_some_and(|e| e.flags.contains(ExportFlags::SHARED));
        let mut found: Vec<Found> = Vec::with_capacity(names.len());
        let mut end = WalkEnd::Complete {};
        for (index, name) in names.iter().enumerate() {
            let (dir, kind) = match found.last() {
                None => (start.fd.as_fd(), start.kind),
                Some(Found { fd: Some(fd), attr }) => (fd.as_fd(), attr.kind()),
                Some(Found { fd: None, .. }) => return Err(Errno::EIO),
            };
            if kind != Kind::Directory {
                end = WalkEnd::NotDirectory {};
                break;
            }
            let last = index + 1 == names.len();
            let held = || {
                lookup(dir, name).and_then(|fd| stat_fd(fd.as_fd()).map(|attr| Found { fd: Some(fd), attr }))
            };
            let step = match last && !flags.contains(WalkFlags::HANDLE_LAST) {
                true => stat_entry(dir, name).and_then(|attr| match attr.kind() {
                    Kind::Directory if flags.contains(WalkFlags::HANDLE_DIRS) => held(),
                    _ => Ok(Found { fd: None, attr }),
                }),
                false => held(),
            };
            let node = match step {
                Ok(node) => node,
                Err(Errno::ENOENT) => {
                    let attr = match found.last() {
                        Some(last) => last.attr,
                        None => stat_fd(start.fd.as_fd())?,
                    };
                    // A creation often follows.
                    let asks = last && shared && has_default_acl(dir);
                    end = WalkEnd::Missing { dir: attr, default_acl: u8::from(asks) };
                    break;
                }
                Err(errno) => {
                    end = WalkEnd::Failed { errno: errno.raw() };
                    break;
                }
            };
            let target = match (node.attr.kind(), &node.fd) {
                (Kind::Symlink, Some(fd)) => Some(link_target(fd.as_fd(), b"")),
                (Kind::Symlink, None) => Some(link_target(dir, name)),
                _ => None,
            };
            found.push(node);
            match target {
                None => {}
                Some(Ok(target)) => {
                    end = WalkEnd::Symlink { target: target.into() };
                    break;
                }
                Some(Err(errno)) => {
                    end = WalkEnd::Failed { errno: errno.raw() };
                    break;
                }
            }
        }
        let count = found.len();
        let mut nodes = Vec::with_capacity(count);
        let wants = |index: usize, attr: &Attr| {
            (index + 1 == count && flags.contains(WalkFlags::HANDLE_LAST))
                || (attr.kind() == Kind::Directory && flags.contains(WalkFlags::HANDLE_DIRS))
        };
        let wanted = found.iter().enumerate().filter(|(i, node)| node.fd.is_some() && wants(*i, &node.attr));
        if wanted.count() > self.handles.room() {
            return Err(Errno::EMFILE);
        }
        for (index, Found { fd, attr }) in found.into_iter().enumerate() {
            let handle = match fd {
                Some(fd) if wants(index, &attr) => {
                    self.handles.insert(Held { fd, kind: attr.kind(), export, listing: None })?
                }
                _ => Handle::NONE,
            };
            nodes.push(Node { handle, attr });
        }
        Ok(Reply::Walked { nodes, end }.into())
    }

    pub(crate) fn stat_many(&mut self, dir: Handle, names: &[Bytes<'_>]) -> SysResult<Answer> {
        let dir = self.handles.get(dir)?;
        if dir.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        let attrs = names.iter().map(|name| stat_entry(dir.fd.as_fd(), name).ok()).collect();
        Ok(Reply::Stats { attrs }.into())
    }

    pub(crate) fn open(&mut self, node: Handle, name: &[u8], access: Access) -> SysResult<Answer> {
        let held = match access.contains(Access::WRITE) {
            true => self.writable(node)?,
            false => self.handles.get(node)?,
        };
        let may_open_fifo =
            self.exports.get(held.export).is_some_and(|export| export.flags.contains(ExportFlags::OPEN_FIFO));
        let flags = open_flags(access)?;
        let entry;
        let (node, kind) = match name {
            b"" => (held.fd.as_fd(), held.kind),
            _ if held.kind != Kind::Directory => return Err(Errno::ENOTDIR),
            name => {
                entry = lookup(held.fd.as_fd(), name)?;
                (entry.as_fd(), stat_fd(entry.as_fd())?.kind())
            }
        };
        let fd = match kind {
            Kind::Regular => reopen(node, flags)?,
            // Never blocks this thread: the sentry waits on the descriptor.
            Kind::Fifo if may_open_fifo => reopen(node, flags | OFlags::NONBLOCK)?,
            kind => return Err(refusal(kind)),
        };
        let attr = stat_fd(fd.as_fd())?;
        Ok(Answer::with(Reply::Donated { attr }, fd))
    }

    pub(crate) fn readdir(&mut self, dir: Handle, offset: u64, flags: ReaddirFlags) -> SysResult<Answer> {
        let held = self.handles.get_mut(dir)?;
        if held.kind != Kind::Directory {
            return Err(Errno::ENOTDIR);
        }
        if held.listing.is_none() {
            let fd = open_for_io(held, OFlags::RDONLY)?;
            held.listing = Some(Box::new(Listing { fd, position: 0 }));
        }
        let listing = held.listing.as_mut().ok_or(Errno::EIO)?;
        if listing.position != offset || flags.contains(ReaddirFlags::REWIND) {
            let offset = if flags.contains(ReaddirFlags::REWIND) { 0 } else { offset };
            rustix::fs::seek(&listing.fd, SeekFrom::Start(offset)).map_err(host)?;
            listing.position = offset;
        }
        let with_attrs = flags.contains(ReaddirFlags::ATTRS);
        let (chunk, most, each) = match with_attrs {
            true => (LISTING_BYTES_WITH_ATTRS, ENCODED_WITH_ATTRS, 26 + 130),
            false => (LISTING_BYTES, ENCODED, 26),
        };
        self.scratch.clear();
        self.scratch.reserve(chunk);
        let space = self.scratch.spare_capacity_mut().get_mut(..chunk).ok_or(Errno::ENOMEM)?;
        let mut entries = Vec::new();
        let (mut used, mut end, mut position) = (HEADER, 1, listing.position);
        let mut raw = RawDir::new(&listing.fd, space);
        while let Some(entry) = raw.next() {
            let entry = entry.map_err(host)?;
            position = entry.next_entry_cookie();
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let attr = if with_attrs { stat_entry(listing.fd.as_fd(), name).ok() } else { None };
                used += each + name.len();
                entries.push(DirEntry {
                    name: name.to_vec().into(),
                    ino: entry.ino(),
                    kind: kind_of(entry.file_type()),
                    next: position,
                    attr,
                });
            }
            // The next call would read more of the directory: only when all of it is sure to fit.
            if raw.is_buffer_empty() && used + most > MAX_MESSAGE {
                end = 0;
                break;
            }
        }
        listing.position = position;
        if end == 1 {
            // Read to its end: the descriptor is not needed until somebody lists it again.
            held.listing = None;
        }
        Ok(Reply::Entries { entries, end }.into())
    }

    pub(crate) fn read_link(&mut self, node: Handle) -> SysResult<Answer> {
        let held = self.handles.get(node)?;
        if held.kind != Kind::Symlink {
            return Err(Errno::EINVAL);
        }
        Ok(Reply::Data { data: link_target(held.fd.as_fd(), b"")?.into() }.into())
    }
}

fn has_default_acl(dir: BorrowedFd<'_>) -> bool {
    rustix::fs::getxattr(own_name(dir), c"system.posix_acl_default", &mut [0_u8; 0][..]).is_ok()
}

/// The host's flags for an access. `EINVAL` for one that makes no sense.
pub(crate) fn open_flags(access: Access) -> SysResult<OFlags> {
    let mut flags = match (access.contains(Access::READ), access.contains(Access::WRITE)) {
        (true, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (true, true) => OFlags::RDWR,
        (false, false) => return Err(Errno::EINVAL),
    };
    if access.contains(Access::TRUNCATE) {
        if !access.contains(Access::WRITE) {
            return Err(Errno::EINVAL);
        }
        flags |= OFlags::TRUNC;
    }
    if access.contains(Access::DIRECT) {
        flags |= OFlags::DIRECT;
    }
    Ok(flags)
}

fn link_target(dir: BorrowedFd<'_>, name: &[u8]) -> SysResult<Vec<u8>> {
    let mut target = Vec::with_capacity(256);
    loop {
        let space = target.capacity();
        rustix::fs::readlinkat_raw(dir, name, rustix::buffer::spare_capacity(&mut target)).map_err(host)?;
        if target.len() < space {
            return Ok(target);
        }
        if space > LONGEST_LINK {
            return Err(Errno::ENAMETOOLONG);
        }
        target = Vec::with_capacity(LONGEST_LINK + 1);
    }
}

fn kind_of(kind: rustix::fs::FileType) -> Kind {
    use rustix::fs::FileType;
    match kind {
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::Char,
        FileType::Directory => Kind::Directory,
        FileType::BlockDevice => Kind::Block,
        FileType::RegularFile => Kind::Regular,
        FileType::Symlink => Kind::Symlink,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => Kind::Unknown,
    }
}
