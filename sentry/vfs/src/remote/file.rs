//! Regular files: reads, writes and mappings on donated descriptors. No message to the gofer.

use super::inode::{Changed, Donated, Purpose, RemoteInode, host, size_of};
use crate::caller::Caller;
use crate::file::{FileOps, Io, OpenFile, SeekFrom, SyncScope};
use abi::{Errno, PAGE_SIZE, SysResult};
use mm::{GuestSink, GuestSource, Invalidate, MapUse, Mappable, MappableId, Translation};
use std::any::Any;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use wire::Request;

/// A host call that moved less than this and less than asked is at the end of the file.
const SHORT: usize = 64 * 1024;

/// An open regular file.
pub(super) struct RegularFile {
    pub(super) inode: Arc<RemoteInode>,
    file: Arc<Donated>,
}

impl RegularFile {
    pub(super) fn new(inode: Arc<RemoteInode>, purpose: Purpose) -> SysResult<RegularFile> {
        let file = inode.donated(purpose)?;
        Ok(RegularFile { inode, file })
    }
}

impl Drop for RegularFile {
    fn drop(&mut self) {
        // Asked now it is one host call; later, without a descriptor, it would be a message.
        if self.inode.written.swap(false, Ordering::AcqRel)
            && self.inode.attr_of(&self.file.fd, Changed::ByUs).is_err()
        {
            self.inode.written.store(true, Ordering::Release);
        }
    }
}

impl FileOps for RegularFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        let mut done = 0_usize;
        loop {
            let wanted = dst.remaining();
            if wanted == 0 {
                return Ok(done);
            }
            let at = io.offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            match dst.fill_from_fd(self.file.fd.as_fd(), Some(at), wanted) {
                Ok(count) => {
                    done = done.saturating_add(count);
                    if count == 0 || (count < wanted && count < SHORT) {
                        return Ok(done);
                    }
                }
                Err(_) if done > 0 => return Ok(done),
                Err(errno) => return Err(errno),
            }
        }
    }
    fn write(&self, io: &Io<'_>, src: &mut dyn GuestSource, _by: &Caller<'_>) -> SysResult<(usize, u64)> {
        let _one_at_a_time = io.append.then(|| self.inode.append.lock());
        let start = if io.append { size_of(&self.file.fd)? } else { io.offset };
        let (mut done, mut at) = (0_usize, start);
        let result = loop {
            let wanted = src.remaining();
            if wanted == 0 {
                break Ok(());
            }
            match src.drain_to_fd(self.file.fd.as_fd(), Some(at), wanted) {
                Ok(0) => break Ok(()),
                Ok(count) => {
                    done = done.saturating_add(count);
                    at = at.saturating_add(u64::try_from(count).unwrap_or(0));
                }
                Err(errno) => break Err(errno),
            }
        };
        if done > 0 {
            self.inode.written.store(true, Ordering::Release);
            return Ok((done, at));
        }
        result.map(|()| (0, at))
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        let at = |base: u64, by: i64| {
            let sum = base.checked_add_signed(by).filter(|sum| i64::try_from(*sum).is_ok());
            sum.ok_or(if by < 0 { Errno::EINVAL } else { Errno::EOVERFLOW })
        };
        let host_seek = |by: i64, data: bool| {
            let start = u64::try_from(by).map_err(|_| Errno::ENXIO)?;
            // The host's own position is used for nothing else.
            let to = if data { rustix::fs::SeekFrom::Data(start) } else { rustix::fs::SeekFrom::Hole(start) };
            rustix::fs::seek(&self.file.fd, to).map_err(host)
        };
        match to {
            SeekFrom::Start(by) => at(0, by),
            SeekFrom::Current(by) => at(current, by),
            SeekFrom::End(by) => at(size_of(&self.file.fd)?, by),
            SeekFrom::Data(by) => host_seek(by, true),
            SeekFrom::Hole(by) => host_seek(by, false),
        }
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn mappable(&self, file: &OpenFile) -> SysResult<Arc<dyn Mappable>> {
        let write = file.flags().writable().then(|| Arc::clone(&self.file));
        let read =
            if self.file.readable { Arc::clone(&self.file) } else { self.inode.donated(Purpose::Read)? };
        Ok(Arc::new(RemoteMapping { inode: Arc::clone(&self.inode), read, write }))
    }
    fn sync(&self, scope: SyncScope) -> SysResult<()> {
        match scope {
            SyncScope::All => rustix::fs::fsync(&self.file.fd),
            SyncScope::Data => rustix::fs::fdatasync(&self.file.fd),
        }
        .map_err(host)
    }
    fn allocate(&self, mode: u32, offset: u64, len: u64, _by: &Caller<'_>) -> SysResult<()> {
        let flags = rustix::fs::FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        rustix::fs::fallocate(&self.file.fd, flags, offset, len).map_err(host)?;
        self.inode.written.store(true, Ordering::Release);
        let punched = rustix::fs::FallocateFlags::PUNCH_HOLE
            | rustix::fs::FallocateFlags::COLLAPSE_RANGE
            | rustix::fs::FallocateFlags::INSERT_RANGE
            | rustix::fs::FallocateFlags::ZERO_RANGE;
        if flags.intersects(punched) {
            let rest = flags.intersects(
                rustix::fs::FallocateFlags::COLLAPSE_RANGE | rustix::fs::FallocateFlags::INSERT_RANGE,
            );
            self.inode.invalidate(offset, if rest { u64::MAX } else { len });
        }
        Ok(())
    }
}

impl RemoteInode {
    fn mappable_id(&self) -> MappableId {
        use crate::inode::FileSystem;
        MappableId { dev: self.fs.dev(), ino: self.fs.ino(&self.last_attr()) }
    }

    /// Tells the address spaces that map the file that a range is no longer what it was.
    fn invalidate(&self, offset: u64, len: u64) {
        let spaces: Vec<_> = self.spaces.lock().iter().filter_map(Weak::upgrade).collect();
        let start = offset.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
        let id = self.mappable_id();
        for space in spaces {
            space.invalidate(id, start, len.min(u64::MAX - start));
        }
    }

    /// truncate(2), through a descriptor that is kept for the open that often follows.
    pub(super) fn truncate(&self, size: u64) -> SysResult<()> {
        let file = self.donated(Purpose::Write)?;
        let before = size_of(&file.fd)?;
        rustix::fs::ftruncate(&file.fd, size).map_err(host)?;
        self.attr_of(&file.fd, Changed::ByUs)?;
        if size < before && !self.spaces.lock().is_empty() {
            self.invalidate(size, u64::MAX);
        }
        Ok(())
    }
}

/// A regular file as something to map.
struct RemoteMapping {
    inode: Arc<RemoteInode>,
    read: Arc<Donated>,
    write: Option<Arc<Donated>>,
}

impl Mappable for RemoteMapping {
    fn id(&self) -> MappableId {
        self.inode.mappable_id()
    }
    fn translate(&self, offset: u64, len: u64, usage: MapUse) -> SysResult<Translation> {
        let file = match usage {
            MapUse::Read => &self.read,
            MapUse::SharedWrite => {
                self.inode.mapped.store(true, Ordering::Relaxed);
                self.write.as_ref().filter(|file| file.readable).ok_or(Errno::EACCES)?
            }
        };
        // Not the size that was cached: a shared file may have been cut by others.
        let end = size_of(&file.fd)?.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EOVERFLOW)?;
        match end.checked_sub(offset) {
            None | Some(0) => Err(Errno::ENXIO),
            Some(left) => Ok(Translation::Host { fd: Arc::clone(&file.fd), offset, len: len.min(left) }),
        }
    }
    fn mapped(&self, space: &Weak<dyn Invalidate>) {
        self.inode.spaces.lock().push(Weak::clone(space));
    }
    fn unmapped(&self, space: &Weak<dyn Invalidate>) {
        let mut spaces = self.inode.spaces.lock();
        if let Some(at) = spaces.iter().position(|known| known.ptr_eq(space)) {
            spaces.swap_remove(at);
        }
    }
    fn cached(&self, offset: u64, pages: &mut [u8]) -> SysResult<()> {
        /// What one request may ask for.
        const MOST: usize = 4096;
        let mut at = offset;
        for part in pages.chunks_mut(MOST) {
            let count = u32::try_from(part.len()).map_err(|_| Errno::E2BIG)?;
            let node = self.inode.handle()?;
            let known = self.inode.data(&Request::Cached { node, offset: at, pages: count })?;
            part.copy_from_slice(known.get(..part.len()).ok_or(Errno::EIO)?);
            at = at.saturating_add(u64::from(count) * PAGE_SIZE);
        }
        Ok(())
    }
    fn sync(&self, _offset: u64, _len: u64) -> SysResult<()> {
        let file = self.write.as_ref().unwrap_or(&self.read);
        rustix::fs::fdatasync(&file.fd).map_err(host)
    }
}
