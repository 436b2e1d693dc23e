//! Windows on donated host files.

use super::mapping::Mapping;
use super::{MemoryFile, read_vectored, write_vectored};
use abi::{Errno, SysResult};
use std::os::fd::BorrowedFd;

/// How a [`HostWindow`] may be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowAccess {
    /// Loads only.
    ReadOnly,
    /// Loads and stores, which reach the file.
    ReadWrite,
}

/// A shared, never executable mapping of a piece of a host file. Offsets are bytes from the start of the
/// window. A page behind the end of the file, or one the host cannot read, is `EFAULT`.
#[derive(Debug)]
pub struct HostWindow {
    mapping: Mapping,
    access: WindowAccess,
}

impl HostWindow {
    /// Maps `len` bytes at `offset` (page aligned). `EACCES` when the descriptor does not allow it,
    /// `ENODEV` when the file cannot be mapped.
    pub fn map(fd: BorrowedFd<'_>, offset: u64, len: u64, access: WindowAccess) -> SysResult<HostWindow> {
        let prot = match access {
            WindowAccess::ReadOnly => libc::PROT_READ,
            WindowAccess::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        Ok(HostWindow { mapping: Mapping::piece(fd, offset, len, prot)?, access })
    }
    /// Bytes in the window.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.mapping.region().len() as u64
    }
    /// Copies out.
    pub fn read(&self, offset: u64, dst: &mut [u8]) -> SysResult<()> {
        self.mapping.region().read(offset, dst)
    }
    /// Copies in. `EFAULT` on a read-only window.
    pub fn write(&self, offset: u64, src: &[u8]) -> SysResult<()> {
        self.writable()?;
        self.mapping.region().write(offset, src)
    }
    /// Zeroes by storing. `EFAULT` on a read-only window.
    pub fn zero(&self, offset: u64, len: u64) -> SysResult<()> {
        self.writable()?;
        self.mapping.region().zero(offset, len)
    }
    /// Copies a piece of the window into the memory file (copy-on-write break of a file page).
    pub fn copy_to(&self, from: u64, memory: &MemoryFile, to: u64, len: u64) -> SysResult<()> {
        self.mapping.region().copy_to(from, &memory.mapping.region(), to, len)
    }
    /// Atomic load of the aligned word at `offset`.
    pub fn load_u32(&self, offset: u64) -> SysResult<u32> {
        self.mapping.region().load_u32(offset)
    }
    /// Atomic store. `EFAULT` on a read-only window.
    pub fn store_u32(&self, offset: u64, value: u32) -> SysResult<()> {
        self.writable()?;
        self.mapping.region().store_u32(offset, value)
    }
    /// Atomic compare-exchange; returns the value found. `EFAULT` on a read-only window.
    pub fn cas_u32(&self, offset: u64, old: u32, new: u32) -> SysResult<u32> {
        self.writable()?;
        self.mapping.region().cas_u32(offset, old, new)
    }
    /// Scatter read from another host file into the window; see [`MemoryFile::read_from`].
    pub fn read_from(
        &self,
        fd: BorrowedFd<'_>,
        at: Option<u64>,
        ranges: &[(u64, usize)],
    ) -> SysResult<usize> {
        self.writable()?;
        read_vectored(&self.mapping.region(), fd, at, ranges)
    }
    /// Gather write from the window to another host file; see [`MemoryFile::write_to`].
    pub fn write_to(&self, fd: BorrowedFd<'_>, at: Option<u64>, ranges: &[(u64, usize)]) -> SysResult<usize> {
        write_vectored(&self.mapping.region(), fd, at, ranges)
    }

    fn writable(&self) -> SysResult<()> {
        if self.access == WindowAccess::ReadWrite { Ok(()) } else { Err(Errno::EFAULT) }
    }
}
