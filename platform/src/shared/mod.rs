//! UNSAFE: memory that is also mapped in guest processes, or in another process of ours.
//!
//! Whatever a guest can write is hostile: every access here is one volatile load or store, values are
//! checked by whoever asked for them, and no reference into the memory exists apart from atomics.

use abi::{Errno, SysResult};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// A sealed memory file mapped for the life of the process. Offsets outside it read as zero.
#[derive(Debug)]
pub(crate) struct SharedFile {
    base: NonNull<u8>,
    len: u64,
    fd: OwnedFd,
}

// SAFETY: the mapping lives as long as the value, and every access is volatile or atomic.
unsafe impl Send for SharedFile {}
// SAFETY: as above.
unsafe impl Sync for SharedFile {}

impl SharedFile {
    /// A sparse file of `len` bytes (a multiple of the page size) whose size nobody can change.
    pub(crate) fn create(name: &std::ffi::CStr, len: u64) -> SysResult<SharedFile> {
        use rustix::fs::{MemfdFlags, SealFlags};
        let err = |e: rustix::io::Errno| Errno::from_raw(e.raw_os_error());
        let fd =
            rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).map_err(err)?;
        rustix::fs::ftruncate(&fd, len).map_err(err)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(err)?;
        SharedFile::map(fd, len)
    }

    /// The same file in the process it was sent to. `EINVAL` unless it has that length and keeps it.
    pub(crate) fn adopt(fd: OwnedFd, len: u64) -> SysResult<SharedFile> {
        use rustix::fs::SealFlags;
        let err = |e: rustix::io::Errno| Errno::from_raw(e.raw_os_error());
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(err)?;
        let size = rustix::fs::fstat(&fd).map_err(err)?.st_size;
        if !seals.contains(SealFlags::SHRINK) || u64::try_from(size).map_or(true, |size| size < len) {
            return Err(Errno::EINVAL);
        }
        SharedFile::map(fd, len)
    }

    fn map(fd: OwnedFd, len: u64) -> SysResult<SharedFile> {
        let size = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        // SAFETY: a fresh mapping of a file we own.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        let base = NonNull::new(base.cast()).ok_or(Errno::ENOMEM)?;
        Ok(SharedFile { base, len, fd })
    }

    /// The file.
    #[must_use]
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn at(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        let offset = usize::try_from(offset).ok()?;
        // SAFETY: inside the mapping, as just checked.
        Some(unsafe { self.base.add(offset) })
    }

    /// One load of the word at `offset`, a multiple of 8.
    #[must_use]
    pub(crate) fn load(&self, offset: u64) -> u64 {
        // SAFETY: inside the mapping and aligned.
        self.at(offset & !7, 8).map_or(0, |p| unsafe { p.cast::<u64>().read_volatile() })
    }

    /// One store to the word at `offset`, a multiple of 8.
    pub(crate) fn store(&self, offset: u64, value: u64) {
        if let Some(p) = self.at(offset & !7, 8) {
            // SAFETY: inside the mapping and aligned.
            unsafe { p.cast::<u64>().write_volatile(value) }
        }
    }

    /// Copies words out. `offset` is a multiple of 8.
    pub(crate) fn load_words(&self, offset: u64, words: &mut [u64]) {
        let mut at = offset;
        for word in words {
            *word = self.load(at);
            at = at.wrapping_add(8);
        }
    }

    /// Copies words in. `offset` is a multiple of 8.
    pub(crate) fn store_words(&self, offset: u64, words: &[u64]) {
        let mut at = offset;
        for &word in words {
            self.store(at, word);
            at = at.wrapping_add(8);
        }
    }

    /// Copies bytes out; the length is a multiple of 8.
    pub(crate) fn load_bytes(&self, offset: u64, bytes: &mut [u8]) {
        let mut at = offset;
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.load(at).to_ne_bytes());
            at = at.wrapping_add(8);
        }
    }

    /// Copies bytes in; the length is a multiple of 8.
    pub(crate) fn store_bytes(&self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let (chunks, _) = bytes.as_chunks::<8>();
        for chunk in chunks {
            self.store(at, u64::from_ne_bytes(*chunk));
            at = at.wrapping_add(8);
        }
    }

    /// The 32-bit word at `offset`, a multiple of 4, for atomic use. The first word stands in for offsets
    /// outside the file.
    #[must_use]
    pub(crate) fn word(&self, offset: u64) -> &AtomicU32 {
        let p = self.at(offset & !3, 4).unwrap_or(self.base);
        // SAFETY: inside the mapping, aligned, and an atomic tolerates what others store.
        unsafe { p.cast::<AtomicU32>().as_ref() }
    }

    /// Gives pages back; they read as zero afterwards.
    pub(crate) fn release(&self, offset: u64, len: u64) {
        use rustix::fs::FallocateFlags;
        // Failure costs memory, nothing else: the words are overwritten before use.
        let _ = rustix::fs::fallocate(
            &self.fd,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            offset,
            len,
        );
    }
}

impl Drop for SharedFile {
    fn drop(&mut self) {
        let len = usize::try_from(self.len).unwrap_or(0);
        // SAFETY: the mapping made in `create`; nobody borrows from it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), len) };
    }
}
