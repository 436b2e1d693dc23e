//! Copy-up: the first change of a lower object makes it in the upper layer.
//!
//! Data goes straight from the lower file's operations to the upper file's pages. A file is complete before
//! its name shows it (an unnamed file is linked), where the upper layer can do that.

use super::fs::Key;
use super::inode::{OverlayInode, number, shown_number};
use super::names;
use crate::attr::{AttrChange, SetTime};
use crate::caller::Caller;
use crate::file::{Io, OpenFile, SeekFrom};
use crate::inode::{Inode, LinkTarget, NewNode, Owner, XattrFlags};
use abi::fs::{FileType, OpenFlags};
use abi::{Errno, SysResult};
use mm::{GuestSink, GuestSource};
use platform::memory::MemoryFile;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

const ORIGIN: &[u8] = b"trusted.overlay.origin";
/// Bytes copied through a buffer at once where the upper layer has no pages of ours.
const BOUNCE: usize = 256 << 10;

/// How much is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Want {
    /// Everything.
    All,
    /// Everything but the data: it is cut to nothing next.
    Empty,
}

/// The number that a copied-up object had in its lower layer.
pub(super) fn stored_number(
    upper: &Arc<dyn Inode>,
    kind: FileType,
    parent: Option<&Arc<OverlayInode>>,
    by: &Caller<'_>,
) -> Option<u64> {
    // Only below a directory that has lower layers can there be copies.
    if kind == FileType::Symlink || parent.is_none_or(|p| p.lowers.is_empty()) {
        return None;
    }
    let value = upper.get_xattr(ORIGIN, by).ok()?;
    Some(u64::from_ne_bytes(value.try_into().ok()?))
}

impl OverlayInode {
    /// Makes sure that there is an upper object.
    pub(super) fn copy_up(&self, want: Want, by: &Caller<'_>) -> SysResult<()> {
        if self.upper.get().is_some() {
            return Ok(());
        }
        if self.fs.upper.is_none() {
            return Err(Errno::EROFS);
        }
        // Parents first, from the top: a loop, as trees may be deep.
        let mut chain = Vec::new();
        let mut at = self.place.lock().parent.clone();
        while let Some(dir) = at {
            if dir.upper.get().is_some() {
                break;
            }
            at = dir.place.lock().parent.clone();
            chain.push(dir);
        }
        for dir in chain.iter().rev() {
            dir.copy_one(Want::All, by)?;
        }
        self.copy_one(want, by)
    }
    fn copy_one(&self, want: Want, by: &Caller<'_>) -> SysResult<()> {
        let _copying = self.copying.lock_same_rank();
        if self.upper.get().is_some() {
            return Ok(());
        }
        let (parent, name) = {
            let place = self.place.lock();
            (place.parent.clone(), place.name.clone())
        };
        let dir = parent.as_ref().and_then(|p| p.upper.get()).ok_or(Errno::ESTALE)?;
        let (_, lower) = self.lowers.first().ok_or(Errno::ESTALE)?;
        let upper = self.copy_object(lower, dir, &name, want, by)?;
        let key: Key = (0, 0, number(&upper, by)?, 0);
        let _ = self.upper.set(upper);
        self.fs.enter(key, self.arc()?);
        Ok(())
    }
    fn copy_object(
        &self,
        lower: &Arc<dyn Inode>,
        dir: &Arc<dyn Inode>,
        name: &[u8],
        want: Want,
        by: &Caller<'_>,
    ) -> SysResult<Arc<dyn Inode>> {
        let attr = lower.attr(by)?;
        let owner = Owner { uid: attr.uid, gid: attr.gid };
        let what = match attr.kind {
            FileType::Regular => NewNode::Regular,
            FileType::Directory => NewNode::Directory,
            FileType::Symlink => match lower.read_link(by)? {
                LinkTarget::Path(path) => NewNode::Symlink(path),
                LinkTarget::Magic(_) => return Err(Errno::EINVAL),
            },
            FileType::Fifo => NewNode::Fifo,
            FileType::Socket | FileType::Anonymous => NewNode::Socket,
            FileType::CharDevice => NewNode::CharDevice(attr.rdev),
            FileType::BlockDevice => NewNode::BlockDevice(attr.rdev),
        };
        // Unnamed first; a removed file (open somewhere) stays unnamed.
        let unnamed = match what {
            NewNode::Regular => dir.create_unnamed(attr.perm, owner, by).ok(),
            _ => None,
        };
        let late = unnamed.is_some();
        let upper = match unnamed {
            Some(upper) => upper,
            None if name.is_empty() => return Err(Errno::ESTALE),
            None => dir.create(name, &what, attr.perm, owner, by)?,
        };
        let copied = self.fill(lower, &upper, attr.kind, want, by);
        if let Err(error) = copied {
            if !late {
                let undone = if attr.kind == FileType::Directory {
                    dir.rmdir(name, &upper, by)
                } else {
                    dir.unlink(name, &upper, by)
                };
                undone?;
            }
            return Err(error);
        }
        if late && !name.is_empty() {
            match dir.link(name, &upper, by) {
                // The name went while the data was copied.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        // Last: making and filling it moved its times.
        if attr.kind != FileType::Symlink {
            let times = AttrChange {
                perm: Some(attr.perm),
                atime: Some(SetTime::To(attr.atime)),
                mtime: Some(SetTime::To(attr.mtime)),
                ..AttrChange::default()
            };
            upper.set_attr(&times, by)?;
        }
        Ok(upper)
    }
    fn fill(
        &self,
        lower: &Arc<dyn Inode>,
        upper: &Arc<dyn Inode>,
        kind: FileType,
        want: Want,
        by: &Caller<'_>,
    ) -> SysResult<()> {
        if kind == FileType::Regular && want == Want::All {
            copy_data(lower, upper, by)?;
        }
        for name in lower.list_xattr(by).unwrap_or_default() {
            if names::is_private(&name) {
                continue;
            }
            let value = lower.get_xattr(&name, by)?;
            match upper.set_xattr(&name, &value, XattrFlags::empty(), by) {
                Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
        if kind == FileType::Symlink {
            return Ok(());
        }
        if let Some((layer, lower)) = self.lowers.first() {
            let shown = shown_number(*layer, number(lower, by)?);
            match upper.set_xattr(ORIGIN, &shown.to_ne_bytes(), XattrFlags::empty(), by) {
                // Without it the number changes when the inode is forgotten, nothing else.
                Ok(()) | Err(Errno::EOPNOTSUPP | Errno::EPERM | Errno::ENOSPC) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Copies all data, leaving holes as holes where the lower file says where they are.
fn copy_data(lower: &Arc<dyn Inode>, upper: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<()> {
    let size = lower.attr(by)?.size;
    if size == 0 {
        return Ok(());
    }
    let from = OpenFile::anonymous(Arc::clone(lower).open(OpenFlags::empty(), by)?, OpenFlags::empty());
    let to = OpenFile::anonymous(Arc::clone(upper).open(OpenFlags::WRONLY, by)?, OpenFlags::WRONLY);
    let mut at = 0u64;
    let mut end = 0u64;
    while at < size {
        let signed = i64::try_from(at).map_err(|_| Errno::EFBIG)?;
        let data = match from.ops().seek(&from, at, SeekFrom::Data(signed), by) {
            Ok(data) => data,
            Err(Errno::ENXIO) => break,
            Err(_) => at,
        };
        let signed = i64::try_from(data).map_err(|_| Errno::EFBIG)?;
        let hole = from.ops().seek(&from, at, SeekFrom::Hole(signed), by).unwrap_or(size).clamp(data, size);
        at = data;
        while at < hole {
            let mut source = Drain { from: &from, at, left: hole - at, by };
            let io = Io { file: &to, offset: at, append: false };
            let (n, _) = to.ops().write(&io, &mut source, by)?;
            if n == 0 {
                // The lower file is shorter than it said.
                return set_size(upper, at, by);
            }
            at = at.saturating_add(n as u64);
        }
        end = at;
    }
    if end < size { set_size(upper, size, by) } else { Ok(()) }
}

fn set_size(upper: &Arc<dyn Inode>, size: u64, by: &Caller<'_>) -> SysResult<()> {
    upper.set_attr(&AttrChange { size: Some(size), ..AttrChange::default() }, by)
}

/// A source that reads from an open file.
struct Drain<'a> {
    from: &'a Arc<OpenFile>,
    at: u64,
    left: u64,
    by: &'a Caller<'a>,
}

impl Drain<'_> {
    fn read(&mut self, sink: &mut dyn GuestSink) -> SysResult<usize> {
        let io = Io { file: self.from, offset: self.at, append: false };
        let n = self.from.ops().read(&io, sink, self.by)?;
        self.at = self.at.saturating_add(n as u64);
        self.left = if n == 0 { 0 } else { self.left.saturating_sub(n as u64) };
        Ok(n)
    }
}

impl GuestSource for Drain<'_> {
    fn remaining(&self) -> usize {
        usize::try_from(self.left).unwrap_or(usize::MAX)
    }
    fn take(&mut self, buf: &mut [u8]) -> SysResult<usize> {
        let max = buf.len().min(self.remaining());
        let mut sink = mm::io::SliceSink::new(buf.get_mut(..max).unwrap_or_default());
        self.read(&mut sink)
    }
    fn take_pages(&mut self, memory: &MemoryFile, offset: u64, len: usize) -> SysResult<usize> {
        let len = len.min(self.remaining());
        self.read(&mut PageSink { memory, offset, left: len })
    }
    fn skip(&mut self, len: usize) {
        self.at = self.at.saturating_add(len as u64);
        self.left = self.left.saturating_sub(len as u64);
    }
    fn drain_to_fd(&mut self, fd: BorrowedFd<'_>, at: Option<u64>, max: usize) -> SysResult<usize> {
        let mut buf = vec![0; max.min(BOUNCE).min(self.remaining())];
        let n = self.take(&mut buf)?;
        let mut rest = buf.get(..n).unwrap_or_default();
        let mut done = 0usize;
        while !rest.is_empty() {
            let wrote = match at {
                Some(at) => rustix::io::pwrite(fd, rest, at.saturating_add(done as u64)),
                None => rustix::io::write(fd, rest),
            }
            .map_err(|e| Errno::from_raw(e.raw_os_error()))?;
            if wrote == 0 {
                return Err(Errno::EIO);
            }
            done += wrote;
            rest = rest.get(wrote..).unwrap_or_default();
        }
        Ok(done)
    }
}

/// Pages of the memory file as the place where a read puts its bytes.
struct PageSink<'a> {
    memory: &'a MemoryFile,
    offset: u64,
    left: usize,
}

impl PageSink<'_> {
    fn advance(&mut self, n: usize) -> usize {
        self.offset = self.offset.saturating_add(n as u64);
        self.left -= n;
        n
    }
}

impl GuestSink for PageSink<'_> {
    fn remaining(&self) -> usize {
        self.left
    }
    fn put(&mut self, bytes: &[u8]) -> SysResult<usize> {
        let n = bytes.len().min(self.left);
        self.memory.write(self.offset, bytes.get(..n).unwrap_or_default())?;
        Ok(self.advance(n))
    }
    fn put_pages(&mut self, memory: &MemoryFile, offset: u64, len: usize) -> SysResult<usize> {
        let n = len.min(self.left);
        if std::ptr::eq(memory, self.memory) {
            memory.copy(offset, self.offset, n as u64)?;
            return Ok(self.advance(n));
        }
        let mut bytes = vec![0; n.min(BOUNCE)];
        memory.read(offset, &mut bytes)?;
        self.put(&bytes)
    }
    fn put_zeros(&mut self, len: usize) -> SysResult<usize> {
        let n = len.min(self.left);
        self.memory.zero(self.offset, n as u64)?;
        Ok(self.advance(n))
    }
    fn fill_from_fd(&mut self, fd: BorrowedFd<'_>, at: Option<u64>, max: usize) -> SysResult<usize> {
        let n = self.memory.read_from(fd, at, &[(self.offset, max.min(self.left))])?;
        Ok(self.advance(n.min(self.left)))
    }
}
