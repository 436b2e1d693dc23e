//! A file that was opened for reading before it was copied up: it follows the copy.

use super::inode::OverlayInode;
use crate::caller::Caller;
use crate::file::{FileOps, Io, OpenFile, SeekFrom, SyncScope};
use abi::fs::OpenFlags;
use abi::{Errno, SysResult};
use mm::{GuestSink, Mappable};
use std::any::Any;
use std::sync::{Arc, OnceLock};

pub(super) struct LowerFile {
    inode: Arc<OverlayInode>,
    lower: Arc<dyn FileOps>,
    upper: OnceLock<Arc<dyn FileOps>>,
    flags: OpenFlags,
}

impl LowerFile {
    pub(super) fn new(inode: Arc<OverlayInode>, lower: Arc<dyn FileOps>, flags: OpenFlags) -> LowerFile {
        LowerFile { inode, lower, upper: OnceLock::new(), flags: flags - OpenFlags::TRUNC }
    }
    /// Where reads go now.
    fn real(&self, by: &Caller<'_>) -> SysResult<&Arc<dyn FileOps>> {
        let Some(upper) = self.inode.upper.get() else { return Ok(&self.lower) };
        if let Some(open) = self.upper.get() {
            return Ok(open);
        }
        let open = Arc::clone(upper).open(self.flags, by)?;
        Ok(self.upper.get_or_init(|| open))
    }
    fn last(&self) -> &Arc<dyn FileOps> {
        self.upper.get().unwrap_or(&self.lower)
    }
}

impl FileOps for LowerFile {
    fn as_any(&self) -> &dyn Any {
        // Those who look for a concrete type want the real file.
        self.last().as_any()
    }
    fn read(&self, io: &Io<'_>, dst: &mut dyn GuestSink, by: &Caller<'_>) -> SysResult<usize> {
        self.real(by)?.read(io, dst, by)
    }
    fn is_seekable(&self) -> bool {
        self.lower.is_seekable()
    }
    fn seek(&self, file: &OpenFile, current: u64, to: SeekFrom, by: &Caller<'_>) -> SysResult<u64> {
        self.real(by)?.seek(file, current, to, by)
    }
    fn can_poll(&self) -> bool {
        self.lower.can_poll()
    }
    fn ioctl(
        &self,
        file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn mm::GuestMemory,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        self.real(by)?.ioctl(file, request, arg, memory, by)
    }
    fn mappable(&self, file: &OpenFile) -> SysResult<Arc<dyn Mappable>> {
        // Without a caller an upper file cannot be opened; what was opened last is mapped.
        self.last().mappable(file)
    }
    fn sync(&self, scope: SyncScope) -> SysResult<()> {
        self.last().sync(scope)
    }
    fn allocate(&self, _mode: u32, _offset: u64, _len: u64, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EBADF)
    }
}
