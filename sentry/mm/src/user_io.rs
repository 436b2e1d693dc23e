//! Guest buffers as sinks and sources of file operations.

use crate::copy::Spot;
use crate::io::{GuestSink, GuestSource};
use crate::manager::MemoryManager;
use abi::{Errno, SysResult, UserSlice};
use platform::Access;
use platform::memory::MemoryFile;
use smallvec::SmallVec;
use std::os::fd::BorrowedFd;

/// Buffers that are being gone through, front to back.
#[derive(Debug)]
struct Cursor<'a> {
    mm: &'a MemoryManager,
    slices: SmallVec<[UserSlice; 4]>,
    next: usize,
    left: usize,
}

/// Buffers of a guest, to be filled.
#[derive(Debug)]
pub struct UserSink<'a>(Cursor<'a>);

/// Buffers of a guest, to be taken from.
#[derive(Debug)]
pub struct UserSource<'a>(Cursor<'a>);

impl MemoryManager {
    /// The buffers as the destination of a read.
    #[must_use]
    pub fn sink(&self, slices: &[UserSlice]) -> UserSink<'_> {
        UserSink(Cursor::new(self, slices))
    }
    /// The buffers as the source of a write.
    #[must_use]
    pub fn source(&self, slices: &[UserSlice]) -> UserSource<'_> {
        UserSource(Cursor::new(self, slices))
    }
}

impl<'a> Cursor<'a> {
    fn new(mm: &'a MemoryManager, slices: &[UserSlice]) -> Cursor<'a> {
        let total = slices.iter().fold(0u64, |sum, slice| sum.saturating_add(slice.len));
        let left = usize::try_from(total).unwrap_or(usize::MAX);
        Cursor { mm, slices: SmallVec::from_slice(slices), next: 0, left }
    }
    /// The first buffer that is not gone through.
    fn current(&mut self) -> Option<UserSlice> {
        loop {
            let slice = *self.slices.get(self.next)?;
            if slice.len > 0 {
                return Some(slice);
            }
            self.next += 1;
        }
    }
    fn advance(&mut self, n: usize) {
        let mut n = n.min(self.left);
        self.left -= n;
        while n > 0 {
            let Some(slice) = self.slices.get_mut(self.next) else { return };
            let step = usize::try_from(slice.len).unwrap_or(usize::MAX).min(n);
            slice.len -= step as u64;
            slice.addr = slice.addr.checked_add(step as u64).unwrap_or(slice.addr);
            n -= step;
            if slice.len == 0 {
                self.next += 1;
            }
        }
    }
    /// Runs `step(mm, buffer, done, len) -> bytes` over the buffers for at most `len` bytes.
    fn each(
        &mut self,
        len: usize,
        mut step: impl FnMut(&MemoryManager, UserSlice, usize, usize) -> usize,
    ) -> SysResult<usize> {
        let len = len.min(self.left);
        let mut done = 0usize;
        while done < len {
            let Some(slice) = self.current() else { break };
            let want = usize::try_from(slice.len).unwrap_or(usize::MAX).min(len - done);
            let n = step(self.mm, slice, done, want).min(want);
            self.advance(n);
            done += n;
            if n < want {
                break;
            }
        }
        if done == 0 && len > 0 { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// One vectored transfer with a host file over the pages that are (or can be brought) there.
    fn transfer(
        &mut self,
        max: usize,
        access: Access,
        mut memory_io: impl FnMut(&MemoryFile, &[(u64, usize)]) -> SysResult<usize>,
        mut window_io: impl FnMut(&platform::memory::HostWindow, (u64, usize)) -> SysResult<usize>,
    ) -> SysResult<usize> {
        let max = max.min(self.left);
        if max == 0 {
            return memory_io(self.mm.frames.memory(), &[]);
        }
        let mut give_up = false;
        loop {
            let mut ranges: SmallVec<[(u64, usize); 16]> = SmallVec::new();
            let missing = {
                let pages = self.mm.pages.read();
                let mut gathered = 0usize;
                let mut missing = None;
                'gather: for slice in self.slices.iter().skip(self.next) {
                    let mut at = slice.addr.raw();
                    let mut left = usize::try_from(slice.len).unwrap_or(usize::MAX).min(max - gathered);
                    while left > 0 {
                        if ranges.len() >= IOV_MAX {
                            break 'gather;
                        }
                        match self.mm.spot(&pages, at, left as u64, access) {
                            Ok(Some((Spot::Memory(_, offset), run))) => {
                                let run = usize::try_from(run).unwrap_or(left).min(left);
                                match ranges.last_mut() {
                                    Some((start, len)) if *start + *len as u64 == offset => *len += run,
                                    _ => ranges.push((offset, run)),
                                }
                                gathered += run;
                                left -= run;
                                at = at.saturating_add(run as u64);
                            }
                            Ok(Some((Spot::Window(window, offset), run))) => {
                                if gathered == 0 {
                                    let run = usize::try_from(run).unwrap_or(left).min(left);
                                    let n = window_io(&window, (offset, run))?;
                                    drop(pages);
                                    self.advance(n);
                                    return Ok(n);
                                }
                                break 'gather;
                            }
                            Ok(None) => {
                                missing = Some(at);
                                break 'gather;
                            }
                            Err(error) if gathered == 0 => return Err(error),
                            Err(_) => break 'gather,
                        }
                    }
                    if gathered >= max {
                        break;
                    }
                }
                if missing.is_none() || (give_up && gathered > 0) {
                    let n = memory_io(self.mm.frames.memory(), &ranges)?;
                    drop(pages);
                    self.advance(n);
                    return Ok(n);
                }
                missing
            };
            let Some(missing) = missing else { return Err(Errno::EFAULT) };
            if self.mm.fault_in(missing, access).is_err() {
                if give_up || ranges.is_empty() {
                    return Err(Errno::EFAULT);
                }
                give_up = true;
            }
        }
    }
}

const IOV_MAX: usize = 1024;

impl GuestSink for UserSink<'_> {
    fn remaining(&self) -> usize {
        self.0.left
    }
    fn put(&mut self, bytes: &[u8]) -> SysResult<usize> {
        self.0.each(bytes.len(), |mm, to, done, len| {
            mm.write_partial(to.addr, bytes.get(done..done + len).unwrap_or_default())
        })
    }
    fn put_pages(&mut self, memory: &MemoryFile, offset: u64, len: usize) -> SysResult<usize> {
        self.0.each(len, |mm, to, before, len| {
            mm.visit(to.addr, len, Access::Write, |spot, done, run| {
                let from = offset + (before + done) as u64;
                match spot {
                    Spot::Memory(target, to) => {
                        debug_assert!(std::ptr::eq(*target, memory));
                        memory.copy(from, *to, run as u64)
                    }
                    Spot::Window(window, to) => {
                        let mut chunk = [0u8; 4096];
                        let chunk = chunk.get_mut(..run).ok_or(Errno::EFAULT)?;
                        memory.read(from, chunk)?;
                        window.write(*to, chunk)
                    }
                }
            })
        })
    }
    fn put_zeros(&mut self, len: usize) -> SysResult<usize> {
        self.0.each(len, |mm, to, _, len| {
            mm.visit(to.addr, len, Access::Write, |spot, _, run| match spot {
                Spot::Memory(memory, offset) => memory.zero(*offset, run as u64),
                Spot::Window(window, offset) => window.zero(*offset, run as u64),
            })
        })
    }
    fn fill_from_fd(&mut self, fd: BorrowedFd<'_>, at: Option<u64>, max: usize) -> SysResult<usize> {
        self.0.transfer(
            max,
            Access::Write,
            |memory, ranges| memory.read_from(fd, at, ranges),
            |window, range| window.read_from(fd, at, &[range]),
        )
    }
}

impl GuestSource for UserSource<'_> {
    fn remaining(&self) -> usize {
        self.0.left
    }
    fn take(&mut self, buf: &mut [u8]) -> SysResult<usize> {
        let len = buf.len();
        self.0.each(len, |mm, from, done, len| {
            mm.read_partial(from.addr, buf.get_mut(done..done + len).unwrap_or_default())
        })
    }
    fn peek(&mut self, buf: &mut [u8]) -> SysResult<usize> {
        let Cursor { mm, next, left, .. } = self.0;
        UserSource(Cursor { mm, slices: self.0.slices.clone(), next, left }).take(buf)
    }
    fn take_pages(&mut self, memory: &MemoryFile, offset: u64, len: usize) -> SysResult<usize> {
        self.0.each(len, |mm, from, before, len| {
            mm.visit(from.addr, len, Access::Read, |spot, done, run| {
                let to = offset + (before + done) as u64;
                match spot {
                    Spot::Memory(_, from) => memory.copy(*from, to, run as u64),
                    Spot::Window(window, from) => window.copy_to(*from, memory, to, run as u64),
                }
            })
        })
    }
    fn skip(&mut self, len: usize) {
        self.0.advance(len);
    }
    fn drain_to_fd(&mut self, fd: BorrowedFd<'_>, at: Option<u64>, max: usize) -> SysResult<usize> {
        self.0.transfer(
            max,
            Access::Read,
            |memory, ranges| memory.write_to(fd, at, ranges),
            |window, range| window.write_to(fd, at, &[range]),
        )
    }
}

/// What identifies a futex (futex(2)): private ones by address space and address, shared ones by object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FutexKey {
    /// In one address space.
    Private {
        /// [`MemoryManager::id`].
        space: u64,
        /// Address.
        addr: u64,
    },
    /// In a shared mapping.
    Shared {
        /// The object.
        object: crate::mappable::MappableId,
        /// Byte offset in it.
        offset: u64,
    },
}

/// FUTEX_PRIVATE_FLAG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FutexScope {
    /// Of one process.
    Private,
    /// Possibly shared between processes.
    Shared,
}

impl MemoryManager {
    /// The key of the futex at `addr`. `EINVAL` when not aligned, `EFAULT` when shared and not mapped.
    pub fn futex_key(&self, addr: abi::UserAddr, scope: FutexScope) -> SysResult<FutexKey> {
        let addr = addr.raw();
        if !addr.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        if scope == FutexScope::Shared {
            let layout = self.layout.read();
            let vma = layout.find(addr).filter(|vma| !vma.prot.is_empty()).ok_or(Errno::EFAULT)?;
            if let Some(file) = vma.file.as_ref().filter(|_| vma.is_shared()) {
                return Ok(FutexKey::Shared {
                    object: file.mapped.object().id(),
                    offset: vma.offset_of(addr),
                });
            }
        } else if !self.user_range().contains(addr) {
            return Err(Errno::EFAULT);
        }
        Ok(FutexKey::Private { space: self.id(), addr })
    }
}
