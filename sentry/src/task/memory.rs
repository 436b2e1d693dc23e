//! Typed copies between guest and kernel, over the byte copies of the memory manager.

use abi::{Errno, SysResult, UserAddr, UserCStr, UserPtr};
use zerocopy::{FromBytes, IntoBytes, Immutable};

/// Stands in for mm's manager until that lands.
#[derive(Debug, Default)]
pub struct MemoryManager;

impl MemoryManager {
    /// Copies in; `EFAULT` unless all of it could be read.
    pub fn read_bytes(&self, _addr: UserAddr, _buf: &mut [u8]) -> SysResult<()> {
        Err(Errno::EFAULT)
    }
    /// Copies out; `EFAULT` unless all of it could be written.
    pub fn write_bytes(&self, _addr: UserAddr, _bytes: &[u8]) -> SysResult<()> {
        Err(Errno::EFAULT)
    }
}

/// Why a fault could not be resolved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// Nothing is mapped there.
    NotMapped,
    /// Not for this access.
    NotAllowed,
    /// Behind the end of a file.
    NothingBehind,
    /// No page could be had.
    OutOfMemory,
}

impl MemoryManager {
    /// Identity.
    pub fn id(&self) -> u64 { 0 }
    /// Object behind a shared word.
    pub fn shared_word(&self, _addr: UserAddr) -> SysResult<Option<(mm::MappableId, u64)>> { Err(Errno::EFAULT) }
    /// Load.
    pub fn load_u32(&self, _addr: UserAddr) -> SysResult<u32> { Err(Errno::EFAULT) }
    /// Store.
    pub fn store_u32(&self, _addr: UserAddr, _value: u32) -> SysResult<()> { Err(Errno::EFAULT) }
    /// Compare and exchange.
    pub fn cas_u32(&self, _addr: UserAddr, _old: u32, _new: u32) -> SysResult<u32> { Err(Errno::EFAULT) }
    /// Fault.
    pub fn handle_fault(&self, _addr: u64, _access: platform::Access) -> Result<(), FaultKind> { Err(FaultKind::NotMapped) }
    /// Copy.
    pub fn fork(&self) -> SysResult<std::sync::Arc<MemoryManager>> { Err(Errno::ENOMEM) }
    /// Stub.
    pub fn space(&self) -> std::sync::Arc<dyn platform::AddressSpace> { unimplemented!() }
}

/// Typed copies.
pub trait GuestMemoryExt {
    /// Copies one structure in.
    fn read_obj<T: FromBytes>(&self, ptr: UserPtr<T>) -> SysResult<T>;
    /// Copies one structure out.
    fn write_obj<T: IntoBytes + Immutable>(&self, ptr: UserPtr<T>, value: &T) -> SysResult<()>;
    /// A string without its NUL; `ENAMETOOLONG` when `limit` bytes hold none.
    fn read_cstr(&self, text: UserCStr, limit: usize) -> SysResult<Vec<u8>>;
    /// An array of `count` structures.
    fn read_array<T: FromBytes>(&self, ptr: UserPtr<T>, count: usize) -> SysResult<Vec<T>>;
}

impl GuestMemoryExt for MemoryManager {
    fn read_obj<T: FromBytes>(&self, ptr: UserPtr<T>) -> SysResult<T> {
        let mut bytes: smallvec::SmallVec<[u8; 256]> = smallvec::smallvec![0; size_of::<T>()];
        self.read_bytes(ptr.addr(), &mut bytes)?;
        T::read_from_bytes(&bytes).map_err(|_| Errno::EFAULT)
    }
    fn write_obj<T: IntoBytes + Immutable>(&self, ptr: UserPtr<T>, value: &T) -> SysResult<()> {
        self.write_bytes(ptr.addr(), value.as_bytes())
    }
    fn read_cstr(&self, text: UserCStr, limit: usize) -> SysResult<Vec<u8>> {
        // Page by page: a string may end just before an unmapped page.
        let mut out = Vec::new();
        let mut at = text.addr();
        while out.len() < limit {
            let room = usize::try_from(abi::PAGE_SIZE - at.page_offset()).unwrap_or(1);
            let mut chunk = [0; 256];
            let take = room.min(limit - out.len()).min(chunk.len());
            let Some(chunk) = chunk.get_mut(..take) else { break };
            self.read_bytes(at, chunk)?;
            if let Some(end) = chunk.iter().position(|byte| *byte == 0) {
                out.extend(chunk.iter().take(end));
                return Ok(out);
            }
            out.extend_from_slice(chunk);
            at = at.checked_add(u64::try_from(take).unwrap_or(0))?;
        }
        Err(Errno::ENAMETOOLONG)
    }
    fn read_array<T: FromBytes>(&self, ptr: UserPtr<T>, count: usize) -> SysResult<Vec<T>> {
        let size = size_of::<T>().max(1);
        let mut bytes = vec![0; size.checked_mul(count).ok_or(Errno::EINVAL)?];
        self.read_bytes(ptr.addr(), &mut bytes)?;
        bytes.chunks_exact(size).map(|c| T::read_from_bytes(c).map_err(|_| Errno::EFAULT)).collect()
    }
}
