//! UNSAFE: the memory file that holds guest pages, and copies that survive a fault.

use abi::SysResult;
use std::os::fd::{BorrowedFd, OwnedFd};

/// One sparse file with all guest pages, mapped whole (lazily populated) into this process.
///
/// Offsets are bytes. Copies that hit a page the host cannot give (tmpfs full) are `EFAULT`.
#[derive(Debug)]
pub struct MemoryFile {
    fd: OwnedFd,
}

impl MemoryFile {
    /// A file on a private tmpfs mount with huge pages allowed where the host permits it, else a memfd.
    /// `limit` bytes bound the offsets that may be used.
    pub fn create(_limit: u64) -> SysResult<MemoryFile> {
        todo!()
    }
    /// Adopts a file that the parent process made before the walls went up.
    pub fn from_fd(_fd: OwnedFd, _limit: u64) -> SysResult<MemoryFile> {
        todo!()
    }
    /// The file.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.fd.as_fd()
    }
    /// First offset that may not be used.
    #[must_use]
    pub fn limit(&self) -> u64 {
        todo!()
    }
    /// Copies out of the file. `EFAULT` when a page cannot be had.
    pub fn read(&self, _offset: u64, _dst: &mut [u8]) -> SysResult<()> {
        todo!()
    }
    /// Copies into the file.
    pub fn write(&self, _offset: u64, _src: &[u8]) -> SysResult<()> {
        todo!()
    }
    /// Copies inside the file (copy-on-write breaks); the ranges do not overlap.
    pub fn copy(&self, _from: u64, _to: u64, _len: u64) -> SysResult<()> {
        todo!()
    }
    /// Zeroes by storing.
    pub fn zero(&self, _offset: u64, _len: u64) -> SysResult<()> {
        todo!()
    }
    /// Gives pages back to the host; they read as zero afterwards (FALLOC_FL_PUNCH_HOLE).
    pub fn punch(&self, _offset: u64, _len: u64) -> SysResult<()> {
        todo!()
    }
    /// Asks for huge pages (or for small ones) in a range, before it is first touched.
    pub fn advise_huge(&self, _offset: u64, _len: u64, _huge: HugePages) {
        todo!()
    }
    /// Bytes of the range that are resident (SEEK_DATA / mincore).
    pub fn resident(&self, _offset: u64, _len: u64) -> u64 {
        todo!()
    }
    /// Atomic load of the aligned word at `offset`.
    pub fn load_u32(&self, _offset: u64) -> SysResult<u32> {
        todo!()
    }
    /// Atomic store.
    pub fn store_u32(&self, _offset: u64, _value: u32) -> SysResult<()> {
        todo!()
    }
    /// Atomic compare-exchange; returns the value found (equal to `old` on success).
    pub fn cas_u32(&self, _offset: u64, _old: u32, _new: u32) -> SysResult<u32> {
        todo!()
    }
    /// Scatter read from a host file straight into guest pages: `preadv2(fd, ranges, at)`; `at` of
    /// `None` uses the file's own position (pipes, sockets, ttys). Ranges are (offset, len) of this file.
    pub fn read_from(
        &self,
        _fd: BorrowedFd<'_>,
        _at: Option<u64>,
        _ranges: &[(u64, usize)],
    ) -> SysResult<usize> {
        todo!()
    }
    /// Gather write to a host file straight from guest pages.
    pub fn write_to(
        &self,
        _fd: BorrowedFd<'_>,
        _at: Option<u64>,
        _ranges: &[(u64, usize)],
    ) -> SysResult<usize> {
        todo!()
    }
}

/// See [`MemoryFile::advise_huge`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugePages {
    /// MADV_HUGEPAGE.
    Wanted,
    /// MADV_NOHUGEPAGE.
    Avoided,
}
