//! A sink for bytes that nobody wants (MSG_TRUNC of a stream; tcp(7)).

use abi::{Errno, SysResult};
use mm::GuestSink;

/// Swallows bytes.
pub(super) struct Discard(pub(super) usize);

impl GuestSink for Discard {
    fn remaining(&self) -> usize {
        self.0
    }
    fn put(&mut self, bytes: &[u8]) -> SysResult<usize> {
        self.put_zeros(bytes.len())
    }
    fn put_pages(
        &mut self,
        _memory: &platform::memory::MemoryFile,
        _offset: u64,
        len: usize,
    ) -> SysResult<usize> {
        self.put_zeros(len)
    }
    fn put_zeros(&mut self, len: usize) -> SysResult<usize> {
        let n = len.min(self.0);
        self.0 -= n;
        Ok(n)
    }
    fn fill_from_fd(
        &mut self,
        _fd: std::os::fd::BorrowedFd<'_>,
        _at: Option<u64>,
        _max: usize,
    ) -> SysResult<usize> {
        Err(Errno::EINVAL)
    }
}
