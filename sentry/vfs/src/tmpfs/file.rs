//! Open regular files.

use super::inode::TmpInode;
use crate::caller::Caller;
use crate::file::{FileOps, Io, OpenFile, SeekFrom, SyncScope, seek_in};
use abi::{Errno, SysResult};
use mm::{FilePages, GuestSink, GuestSource, KeepSize, Mappable, WriteAt};
use std::any::Any;
use std::sync::Arc;

const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;

pub(super) struct TmpFile {
    inode: Arc<TmpInode>,
    pages: Arc<FilePages>,
}

impl TmpFile {
    pub(super) fn new(inode: Arc<TmpInode>) -> SysResult<TmpFile> {
        let pages = Arc::clone(inode.pages().ok_or(Errno::EINVAL)?);
        Ok(TmpFile { inode, pages })
    }
    pub(super) fn pages(&self) -> Arc<FilePages> {
        Arc::clone(&self.pages)
    }
}

impl FileOps for TmpFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        self.pages.read(io.offset, dst)
    }
    fn write(&self, io: &Io<'_>, src: &mut dyn GuestSource, _by: &Caller<'_>) -> SysResult<(usize, u64)> {
        let at = if io.append { WriteAt::End } else { WriteAt::Offset(io.offset) };
        let done = self.pages.write(at, src)?;
        if done.0 > 0 {
            self.inode.touch_modified();
        }
        Ok(done)
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        match to {
            SeekFrom::Data(n) => self.pages.seek_data(u64::try_from(n).map_err(|_| Errno::ENXIO)?),
            SeekFrom::Hole(n) => self.pages.seek_hole(u64::try_from(n).map_err(|_| Errno::ENXIO)?),
            SeekFrom::End(_) => seek_in(current, to, self.pages.size()),
            _ => seek_in(current, to, 0),
        }
    }
    fn mappable(&self, _file: &OpenFile) -> SysResult<Arc<dyn Mappable>> {
        Ok(Arc::clone(&self.pages) as Arc<dyn Mappable>)
    }
    fn sync(&self, _scope: SyncScope) -> SysResult<()> {
        Ok(())
    }
    fn allocate(&self, mode: u32, offset: u64, len: u64, _by: &Caller<'_>) -> SysResult<()> {
        match mode {
            0 => self.pages.allocate(offset, len, KeepSize::No)?,
            KEEP_SIZE => self.pages.allocate(offset, len, KeepSize::Yes)?,
            m if m == KEEP_SIZE | PUNCH_HOLE => self.pages.punch_hole(offset, len)?,
            _ => return Err(Errno::EOPNOTSUPP),
        }
        self.inode.touch_modified();
        Ok(())
    }
}
