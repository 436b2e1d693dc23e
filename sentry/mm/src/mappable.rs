//! What can stand behind a mapping.

use abi::SysResult;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

/// Device and inode of a mapped object: /proc/pid/maps, and the key of shared futexes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct MappableId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`.
    pub ino: u64,
}

/// Why a page is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapUse {
    /// To read or execute; also the source of a private copy.
    Read,
    /// A shared mapping that may be written: the object allocates holes and marks pages dirty.
    SharedWrite,
}

/// Where the bytes of a mappable are, for `len` bytes from the asked offset on.
#[derive(Clone, Debug)]
pub enum Translation {
    /// Contiguous pages of the memory file, owned by the object (it stays alive while mapped).
    Memory {
        /// Byte offset in the memory file.
        offset: u64,
        /// Contiguous bytes available, page aligned.
        len: u64,
    },
    /// A hole: reads as zero; a `SharedWrite` never gets one.
    Hole {
        /// Bytes, page aligned.
        len: u64,
    },
    /// A donated host file.
    Host {
        /// The descriptor, open for what `MapUse` asks.
        fd: Arc<OwnedFd>,
        /// Byte offset in it, page aligned.
        offset: u64,
        /// Contiguous bytes available, page aligned; the last page may be partly behind the end.
        len: u64,
    },
}

/// Implemented by address spaces: told when pages of an object go away (truncate, punch, seal).
pub trait Invalidate: Send + Sync {
    /// Pages `[offset, offset + len)` of the object are no longer what was mapped: unmap them; the next
    /// touch faults again. Private copies stay, except when the range is open-ended (`len` of
    /// `u64::MAX - offset`: a truncate), as in Linux. Complete in the guest's address space on return, so the
    /// object may free the pages afterwards. Called without any lock from `MmLayout` inwards.
    fn invalidate(&self, id: MappableId, offset: u64, len: u64);
}

/// A file (or shared-memory object) that can be mapped.
pub trait Mappable: Send + Sync {
    /// Identity; constant.
    fn id(&self) -> MappableId;
    /// Where the pages from `offset` on are, at most `len` bytes. `ENXIO` behind the end of the file
    /// (SIGBUS to the guest), `ENOMEM`/`ENOSPC` when a page cannot be had. Called without any lock of mm.
    fn translate(&self, offset: u64, len: u64, usage: MapUse) -> SysResult<Translation>;
    /// Remembers a space that maps the object; registrations are counted per call.
    fn mapped(&self, _space: &Weak<dyn Invalidate>) {}
    /// Undoes one `mapped`.
    fn unmapped(&self, _space: &Weak<dyn Invalidate>) {}
    /// A shared mapping that may ever become writable is about to be made; `EPERM` refuses it (F_SEAL_WRITE).
    fn map_shared_write(&self) -> SysResult<()> {
        Ok(())
    }
    /// A fork makes one more of the mappings that `map_shared_write` allowed: seals that came later do not matter.
    fn inherit_shared_write(&self) {}
    /// Undoes one successful `map_shared_write`, or an `inherit_shared_write`.
    fn unmap_shared_write(&self) {}
    /// Sets the byte of each page from `offset` on that is in memory, mapped or not (mincore(2)), to 1 and of the
    /// others to 0; `EOPNOTSUPP` when it does not know. Called without any lock of mm.
    fn cached(&self, _offset: u64, _pages: &mut [u8]) -> SysResult<()> {
        Err(abi::Errno::EOPNOTSUPP)
    }
    /// msync(2) of a range to stable storage.
    fn sync(&self, _offset: u64, _len: u64) -> SysResult<()> {
        Ok(())
    }
    /// madvise(MADV_REMOVE): the range reads as zero afterwards.
    fn punch(&self, _offset: u64, _len: u64) -> SysResult<()> {
        Err(abi::Errno::EOPNOTSUPP)
    }
    /// The path /proc/pid/maps shows; `None` for anonymous shared memory.
    fn name(&self) -> Option<Vec<u8>> {
        None
    }
}
