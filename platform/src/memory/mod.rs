//! UNSAFE: the memory file that holds guest pages, and copies that survive a fault.
//!
//! [`MemoryFile`] is one sparse file, mapped whole. [`HostWindow`] maps a piece of a donated host file
//! for the same copies. Neither mapping is ever executable, and no Rust reference points into them.

mod copy;
mod create;
mod mapping;
mod window;

pub use window::{HostWindow, WindowAccess};

use crate::host::{checked, checked_int, errno};
use abi::{Errno, SysResult};
use mapping::Mapping;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Host calls that files and windows make, each with its reason, for the caller's own filter.
pub const HOST_CALLS: &[(libc::c_long, &str)] = &[
    (libc::SYS_mmap, "windows on donated files, never executable"),
    (libc::SYS_munmap, "windows that are no longer used"),
    (libc::SYS_madvise, "huge page advice, prefaulting, dropping page tables"),
    (libc::SYS_fallocate, "gives guest pages back to the host"),
    (libc::SYS_lseek, "counts resident pages by data and holes"),
    (libc::SYS_preadv2, "reads host files straight into guest pages"),
    (libc::SYS_pwritev2, "writes host files straight from guest pages"),
    (libc::SYS_rt_sigreturn, "returns from the fault handler of tolerant copies"),
];

/// Bytes of a huge page.
pub const HUGE_PAGE: u64 = 2 << 20;

/// One sparse file with all guest pages, mapped whole (lazily populated) into this process.
///
/// Offsets are bytes. Copies that hit a page the host cannot give (tmpfs full) are `EFAULT`.
#[derive(Debug)]
pub struct MemoryFile {
    fd: OwnedFd,
    mapping: Mapping,
    limit: u64,
    /// One bit per huge page of the file: huge pages are wanted there.
    huge: Box<[AtomicU64]>,
}

impl MemoryFile {
    /// A file on a private tmpfs mount with huge pages allowed where the host permits it, else a memfd.
    /// `limit` bytes bound the offsets that may be used.
    pub fn create(limit: u64) -> SysResult<MemoryFile> {
        MemoryFile::from_fd(MemoryFile::create_file()?, limit)
    }
    /// Only the file of [`MemoryFile::create`], for a process that hands it to another.
    pub fn create_file() -> SysResult<OwnedFd> {
        create::on_private_tmpfs().or_else(|_| create::memfd())
    }
    /// Adopts a file that the parent process made before the walls went up.
    pub fn from_fd(fd: OwnedFd, limit: u64) -> SysResult<MemoryFile> {
        let limit = limit.checked_next_multiple_of(HUGE_PAGE).ok_or(Errno::EINVAL)?;
        if limit == 0 {
            return Err(Errno::EINVAL);
        }
        let size = rustix::fs::fstat(&fd).map_err(errno)?.st_size;
        if u64::try_from(size).unwrap_or(0) < limit {
            rustix::fs::ftruncate(&fd, limit).map_err(errno)?;
        }
        let mapping = Mapping::aligned(fd.as_fd(), limit)?;
        let words = usize::try_from(limit / HUGE_PAGE / 64 + 1).map_err(|_| Errno::ENOMEM)?;
        let huge = std::iter::repeat_with(|| AtomicU64::new(0)).take(words).collect();
        Ok(MemoryFile { fd, mapping, limit, huge })
    }
    /// The file.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
    /// First offset that may not be used.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }
    /// Copies out of the file. `EFAULT` when a page cannot be had.
    pub fn read(&self, offset: u64, dst: &mut [u8]) -> SysResult<()> {
        self.mapping.region().read(offset, dst)
    }
    /// Copies into the file.
    pub fn write(&self, offset: u64, src: &[u8]) -> SysResult<()> {
        self.mapping.region().write(offset, src)
    }
    /// Copies inside the file (copy-on-write breaks); the ranges do not overlap.
    pub fn copy(&self, from: u64, to: u64, len: u64) -> SysResult<()> {
        let region = self.mapping.region();
        region.copy_to(from, &region, to, len)
    }
    /// Zeroes by storing.
    pub fn zero(&self, offset: u64, len: u64) -> SysResult<()> {
        self.mapping.region().zero(offset, len)
    }
    /// Gives pages back to the host; they read as zero afterwards (FALLOC_FL_PUNCH_HOLE).
    pub fn punch(&self, offset: u64, len: u64) -> SysResult<()> {
        self.mapping.region().at(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.fd, flags, offset, len).map_err(errno)
    }
    /// Asks for huge pages (or for small ones) in a range, before it is first touched. Only whole huge
    /// pages inside the range are affected.
    ///
    /// The advice also reaches the stubs: a backend that maps a piece of the file asks
    /// [`MemoryFile::wants_huge`] and repeats the advice on its own mapping.
    pub fn advise_huge(&self, offset: u64, len: u64, huge: HugePages) {
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.limit) else { return };
        let first = offset.div_ceil(HUGE_PAGE);
        let last = end / HUGE_PAGE;
        if first >= last {
            return;
        }
        for page in first..last {
            let Some(word) = usize::try_from(page / 64).ok().and_then(|w| self.huge.get(w)) else { return };
            let bit = 1u64 << (page % 64);
            match huge {
                HugePages::Wanted => word.fetch_or(bit, Ordering::Relaxed),
                HugePages::Avoided => word.fetch_and(!bit, Ordering::Relaxed),
            };
        }
        let advice = match huge {
            HugePages::Wanted => libc::MADV_HUGEPAGE,
            HugePages::Avoided => libc::MADV_NOHUGEPAGE,
        };
        // A host without huge pages refuses the advice, which changes nothing but speed.
        let _ = self.mapping.advise(first * HUGE_PAGE, (last - first) * HUGE_PAGE, advice);
    }
    /// Whether the whole huge pages inside the range were advised as wanted (and there is one at least).
    #[must_use]
    pub fn wants_huge(&self, offset: u64, len: u64) -> bool {
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.limit) else { return false };
        let (first, last) = (offset.div_ceil(HUGE_PAGE), end / HUGE_PAGE);
        let set = |page: u64| {
            let word = usize::try_from(page / 64).ok().and_then(|w| self.huge.get(w));
            word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (page % 64)) != 0)
        };
        first < last && set(first) && (first..last).all(set)
    }
    /// Faults the range in for writing (MADV_POPULATE_WRITE). `EFAULT` when a page cannot be had.
    pub fn populate(&self, offset: u64, len: u64) -> SysResult<()> {
        self.mapping.advise(offset, len, libc::MADV_POPULATE_WRITE)
    }
    /// Drops this process's page tables for the range; the pages stay in the file.
    pub fn unmap_lazily(&self, offset: u64, len: u64) -> SysResult<()> {
        self.mapping.advise(offset, len, libc::MADV_DONTNEED)
    }
    /// Bytes of the range that are resident or swapped (SEEK_DATA / SEEK_HOLE).
    pub fn resident(&self, offset: u64, len: u64) -> u64 {
        use rustix::fs::{SeekFrom, seek};
        let Some(end) = offset.checked_add(len).filter(|end| *end <= self.limit) else { return 0 };
        let (mut at, mut bytes) = (offset, 0);
        while at < end {
            let Ok(data) = seek(&self.fd, SeekFrom::Data(at)) else { break };
            if data >= end {
                break;
            }
            let Ok(hole) = seek(&self.fd, SeekFrom::Hole(data)) else { break };
            let stop = hole.min(end);
            bytes += stop.saturating_sub(data);
            at = hole.max(data + 1);
        }
        bytes
    }
    /// Atomic load of the aligned word at `offset`.
    pub fn load_u32(&self, offset: u64) -> SysResult<u32> {
        self.mapping.region().load_u32(offset)
    }
    /// Atomic store.
    pub fn store_u32(&self, offset: u64, value: u32) -> SysResult<()> {
        self.mapping.region().store_u32(offset, value)
    }
    /// Atomic compare-exchange; returns the value found (equal to `old` on success).
    pub fn cas_u32(&self, offset: u64, old: u32, new: u32) -> SysResult<u32> {
        self.mapping.region().cas_u32(offset, old, new)
    }
    /// Scatter read from a host file straight into guest pages: `preadv2(fd, ranges, at)`; `at` of
    /// `None` uses the file's own position (pipes, sockets, ttys). Ranges are (offset, len) of this file.
    pub fn read_from(
        &self,
        fd: BorrowedFd<'_>,
        at: Option<u64>,
        ranges: &[(u64, usize)],
    ) -> SysResult<usize> {
        read_vectored(&self.mapping.region(), fd, at, ranges)
    }
    /// Gather write to a host file straight from guest pages.
    pub fn write_to(&self, fd: BorrowedFd<'_>, at: Option<u64>, ranges: &[(u64, usize)]) -> SysResult<usize> {
        write_vectored(&self.mapping.region(), fd, at, ranges)
    }
}

fn position(at: Option<u64>) -> SysResult<i64> {
    at.map_or(Ok(-1), |at| i64::try_from(at).map_err(|_| Errno::EINVAL))
}

fn read_vectored(
    region: &copy::Region,
    fd: BorrowedFd<'_>,
    at: Option<u64>,
    ranges: &[(u64, usize)],
) -> SysResult<usize> {
    let iovecs = region.iovecs(ranges)?;
    let count = i32::try_from(iovecs.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: every iovec lies in a mapping without Rust objects; the host itself catches bad pages.
    let read = unsafe { libc::preadv2(fd.as_raw_fd(), iovecs.as_ptr(), count, position(at)?, 0) };
    usize::try_from(checked(read as libc::c_long)?).map_err(|_| Errno::EIO)
}

fn write_vectored(
    region: &copy::Region,
    fd: BorrowedFd<'_>,
    at: Option<u64>,
    ranges: &[(u64, usize)],
) -> SysResult<usize> {
    let iovecs = region.iovecs(ranges)?;
    let count = i32::try_from(iovecs.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: as for `read_vectored`; the host only reads the ranges.
    let written = unsafe { libc::pwritev2(fd.as_raw_fd(), iovecs.as_ptr(), count, position(at)?, 0) };
    usize::try_from(checked(written as libc::c_long)?).map_err(|_| Errno::EIO)
}

/// See [`MemoryFile::advise_huge`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugePages {
    /// MADV_HUGEPAGE.
    Wanted,
    /// MADV_NOHUGEPAGE.
    Avoided,
}

#[cfg(test)]
mod tests;
