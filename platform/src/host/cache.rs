//! UNSAFE: cachestat(2).

use super::checked;
use abi::SysResult;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The call, which no library names yet.
const CACHESTAT: libc::c_long = 451;

/// Pages of the bytes `[offset, offset + len)` of a file (to its end with a `len` of 0): in memory, dirty, under
/// writeback, evicted, evicted not long ago. `ENOSYS` before Linux 6.5, `EPERM` for who may not write to the file.
pub fn cachestat(fd: BorrowedFd<'_>, offset: u64, len: u64) -> SysResult<[u64; 5]> {
    let range = [offset, len];
    let mut pages = [0_u64; 5];
    // SAFETY: both pointers are to live locals of the sizes that the call reads and writes.
    let done = unsafe { libc::syscall(CACHESTAT, fd.as_raw_fd(), range.as_ptr(), pages.as_mut_ptr(), 0_u32) };
    checked(done)?;
    Ok(pages)
}
