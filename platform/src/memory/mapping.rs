//! UNSAFE: owned shared mappings, without execute permission.

use super::copy::{Region, install_handler};
use super::{HUGE_PAGE, checked_int};
use crate::host::last_errno;
use abi::{Errno, SysResult};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A `MAP_SHARED` mapping that is unmapped when dropped. Children made by fork do not inherit it.
#[derive(Debug)]
pub(super) struct Mapping {
    region: Region,
}

impl Mapping {
    /// `len` bytes from the start of the file, readable and writable, aligned to a huge page.
    pub(super) fn aligned(fd: BorrowedFd<'_>, len: u64) -> SysResult<Mapping> {
        install_handler();
        let len = usize::try_from(len).map_err(|_| Errno::ENOMEM)?;
        let huge = usize::try_from(HUGE_PAGE).map_err(|_| Errno::ENOMEM)?;
        let spare = len.checked_add(huge).ok_or(Errno::ENOMEM)?;
        let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh reservation at an address of the host's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), spare, libc::PROT_NONE, reserve, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let start = start as usize;
        let base = start.next_multiple_of(huge);
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: replaces part of the reservation just made, which nothing else uses.
        let got = unsafe { libc::mmap(base as *mut libc::c_void, len, prot, flags, fd.as_raw_fd(), 0) };
        let failed = (got == libc::MAP_FAILED).then(last_errno);
        let (head, tail) = (base - start, start + spare - (base + len));
        // SAFETY: the two ends of the reservation (or, after a failure, all of it) belong to nobody.
        unsafe {
            match failed {
                Some(_) => {
                    libc::munmap(start as *mut libc::c_void, spare);
                }
                None => {
                    if head > 0 {
                        libc::munmap(start as *mut libc::c_void, head);
                    }
                    if tail > 0 {
                        libc::munmap((base + len) as *mut libc::c_void, tail);
                    }
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(Mapping::adopt(base, len)),
        }
    }

    /// A piece of a file, at an address of the host's choice.
    pub(super) fn piece(fd: BorrowedFd<'_>, offset: u64, len: u64, prot: libc::c_int) -> SysResult<Mapping> {
        install_handler();
        let len = usize::try_from(len).map_err(|_| Errno::ENOMEM)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the host's choice.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd.as_raw_fd(), offset) };
        if base == libc::MAP_FAILED {
            return Err(last_errno());
        }
        Ok(Mapping::adopt(base as usize, len))
    }

    fn adopt(base: usize, len: usize) -> Mapping {
        // SAFETY: the mapping was just made and is owned by the value built here.
        let mapping = Mapping { region: unsafe { Region::new(base, len) } };
        // Advice only: a refusal costs a little time or disk, nothing else.
        let _ = mapping.advise(0, len as u64, libc::MADV_DONTFORK);
        let _ = mapping.advise(0, len as u64, libc::MADV_DONTDUMP);
        mapping
    }

    pub(super) fn region(&self) -> Region {
        self.region
    }

    pub(super) fn advise(&self, offset: u64, len: u64, advice: libc::c_int) -> SysResult<()> {
        let base = self.region.at(offset, len)?;
        let len = usize::try_from(len).map_err(|_| Errno::EFAULT)?;
        // SAFETY: the range lies in this mapping, which holds no Rust object, and none of the advices
        // used by this module changes memory outside it.
        checked_int(unsafe { libc::madvise(base as *mut libc::c_void, len, advice) }).map(|_| ())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping; no reference into it exists.
        unsafe { libc::munmap(self.region.base() as *mut libc::c_void, self.region.len()) };
    }
}
