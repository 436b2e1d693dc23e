//! Copies between the kernel and guest memory.
//!
//! A copy takes the lock of the pages, shared, and nothing else as long as the pages are there; a missing page
//! is faulted in without it. The lock is held while bytes move, so a page cannot be freed under a copy.

use crate::io::GuestMemory;
use crate::manager::MemoryManager;
use crate::segs::{Home, Pages};
use crate::vma::VmaName;
use abi::{Errno, PAGE_SIZE, SysResult, UserAddr, UserCStr, UserPtr};
use platform::memory::{HostWindow, MemoryFile, WindowAccess};
use platform::{Access, Prot};
use std::sync::Arc;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where a run of guest bytes is.
pub(crate) enum Spot<'a> {
    /// Offset in the memory file.
    Memory(&'a MemoryFile, u64),
    /// Offset in a window on a host file.
    Window(Arc<HostWindow>, u64),
}

impl Spot<'_> {
    fn read(&self, buf: &mut [u8]) -> SysResult<()> {
        match self {
            Spot::Memory(memory, offset) => memory.read(*offset, buf),
            Spot::Window(window, offset) => window.read(*offset, buf),
        }
    }
    fn write(&self, bytes: &[u8]) -> SysResult<()> {
        match self {
            Spot::Memory(memory, offset) => memory.write(*offset, bytes),
            Spot::Window(window, offset) => window.write(*offset, bytes),
        }
    }
}

pub(crate) const fn need(access: Access) -> Prot {
    match access {
        Access::Write => Prot::WRITE,
        // Whatever may be accessed at all may be read, as on the hardware.
        Access::Read | Access::Exec => Prot::empty(),
    }
}

impl MemoryManager {
    /// The run of bytes at `addr`, at most `max`, if copies may go there now.
    pub(crate) fn spot<'a>(
        &'a self,
        pages: &Pages,
        addr: u64,
        max: u64,
        access: Access,
    ) -> SysResult<Option<(Spot<'a>, u64)>> {
        let memory = self.frames.memory();
        if addr % PAGE_SIZE + max <= PAGE_SIZE
            && let Some(offset) = pages.cached(addr, access == Access::Write)
        {
            return Ok(Some((Spot::Memory(memory, offset), max)));
        }
        let Some(seg) = pages.find(addr) else { return Ok(None) };
        if seg.prot.is_empty() || !seg.prot.contains(need(access)) {
            return Ok(None);
        }
        let len = max.min(seg.range.end() - addr);
        match seg.home_at(addr) {
            Home::Frames(offset) | Home::Object(offset) => {
                pages.remember(addr, seg);
                Ok(Some((Spot::Memory(memory, offset), len)))
            }
            Home::Host(fd, offset) => {
                let mode = match access {
                    Access::Write => WindowAccess::ReadWrite,
                    Access::Read | Access::Exec => WindowAccess::ReadOnly,
                };
                let (window, inside, shown) = self.frames.windows.get(&fd, offset, mode)?;
                // Page by page, so that the end of the file stops the copy where it is.
                let page = PAGE_SIZE - offset % PAGE_SIZE;
                Ok(Some((Spot::Window(window, inside), len.min(shown).min(page))))
            }
        }
    }

    /// Calls `each(spot, done, len)` for the runs that make up `len` bytes at `addr`; returns how many bytes
    /// it went through until a page could not be had or `each` failed.
    pub(crate) fn visit(
        &self,
        addr: UserAddr,
        len: usize,
        access: Access,
        mut each: impl FnMut(&Spot<'_>, usize, usize) -> SysResult<()>,
    ) -> usize {
        let mut done = 0usize;
        let mut faulted = None;
        while done < len {
            let missing = {
                let pages = self.pages.read();
                loop {
                    if done >= len {
                        return done;
                    }
                    let Some(at) = addr.raw().checked_add(done as u64) else { return done };
                    match self.spot(&pages, at, (len - done) as u64, access) {
                        Ok(Some((spot, run))) => {
                            let Ok(run) = usize::try_from(run) else { return done };
                            if each(&spot, done, run).is_err() {
                                return done;
                            }
                            done = done.saturating_add(run);
                        }
                        Ok(None) => break at,
                        Err(_) => return done,
                    }
                }
            };
            // A page that is faulted in and gone again a few times is being fought over: go on.
            if self.fault_in(missing, access).is_err() {
                return done;
            }
            match &mut faulted {
                Some((page, count)) if *page == missing => {
                    *count += 1;
                    if *count > 64 {
                        return done;
                    }
                }
                other => *other = Some((missing, 0)),
            }
        }
        done
    }

    /// Copies in as much as can be read; returns the count.
    pub fn read_partial(&self, addr: UserAddr, buf: &mut [u8]) -> usize {
        let len = buf.len();
        let done = self.visit(addr, len, Access::Read, |spot, done, run| {
            spot.read(buf.get_mut(done..done.saturating_add(run)).ok_or(Errno::EFAULT)?)
        });
        if done < len { done + self.read_vdso(addr, buf, done) } else { done }
    }
    /// The vDSO is the platform's: copies what of it stands at `addr + done`; returns the count.
    fn read_vdso(&self, addr: UserAddr, buf: &mut [u8], done: usize) -> usize {
        let Some(at) = addr.raw().checked_add(done as u64) else { return 0 };
        let layout = self.layout.read();
        let vdso = layout.find(at).filter(|vma| vma.name == VmaName::Vdso);
        let Some(from) = vdso.and_then(|vma| usize::try_from(at - vma.range.start()).ok()) else { return 0 };
        let bytes = platform::host::vdso_bytes().get(from..).unwrap_or_default();
        let mut count = 0;
        for (to, byte) in buf.iter_mut().skip(done).zip(bytes) {
            *to = *byte;
            count += 1;
        }
        count
    }
    /// Copies out as much as can be written; returns the count.
    pub fn write_partial(&self, addr: UserAddr, bytes: &[u8]) -> usize {
        self.visit(addr, bytes.len(), Access::Write, |spot, done, run| {
            spot.write(bytes.get(done..done.saturating_add(run)).ok_or(Errno::EFAULT)?)
        })
    }
    /// Copies in; `EFAULT` unless all could be read.
    pub fn read_bytes(&self, addr: UserAddr, buf: &mut [u8]) -> SysResult<()> {
        if self.read_partial(addr, buf) == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }
    /// Copies out; `EFAULT` unless all could be written.
    pub fn write_bytes(&self, addr: UserAddr, bytes: &[u8]) -> SysResult<()> {
        if self.write_partial(addr, bytes) == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }
    /// Zeroes guest memory; `EFAULT` unless all could be written.
    pub fn write_zeros(&self, addr: UserAddr, len: u64) -> SysResult<()> {
        let len = usize::try_from(len).map_err(|_| Errno::EFAULT)?;
        let done = self.visit(addr, len, Access::Write, |spot, _, run| match spot {
            Spot::Memory(memory, offset) => memory.zero(*offset, run as u64),
            Spot::Window(window, offset) => window.zero(*offset, run as u64),
        });
        if done == len { Ok(()) } else { Err(Errno::EFAULT) }
    }
    /// Copies a structure in.
    pub fn read_obj<T: FromBytes>(&self, from: UserPtr<T>) -> SysResult<T> {
        const INLINE: usize = 256;
        let size = size_of::<T>();
        let mut inline = [0u8; INLINE];
        if let Some(buf) = inline.get_mut(..size) {
            self.read_bytes(from.addr(), buf)?;
            return T::read_from_bytes(buf).map_err(|_| Errno::EFAULT);
        }
        let mut buf = vec![0; size];
        self.read_bytes(from.addr(), &mut buf)?;
        T::read_from_bytes(&buf).map_err(|_| Errno::EFAULT)
    }
    /// Copies a structure out.
    pub fn write_obj<T: IntoBytes + Immutable>(&self, to: UserPtr<T>, value: &T) -> SysResult<()> {
        self.write_bytes(to.addr(), value.as_bytes())
    }
    /// Copies an array in. The caller bounds `count`.
    pub fn read_array<T: FromBytes>(&self, from: UserPtr<T>, count: usize) -> SysResult<Vec<T>> {
        let size = size_of::<T>().max(1);
        let mut bytes = vec![0; count.checked_mul(size).ok_or(Errno::EFAULT)?];
        self.read_bytes(from.addr(), &mut bytes)?;
        bytes.chunks_exact(size).map(|chunk| T::read_from_bytes(chunk).map_err(|_| Errno::EFAULT)).collect()
    }
    /// Copies a string in, without its NUL. `ENAMETOOLONG` when there is none within `max` bytes.
    pub fn read_cstr(&self, from: UserCStr, max: usize) -> SysResult<Vec<u8>> {
        let mut text: Vec<u8> = Vec::new();
        let mut chunk = [0u8; 256];
        while text.len() < max {
            let at = from.addr().checked_add(text.len() as u64)?;
            // Never across a page: what follows the string may be missing.
            let left = usize::try_from(PAGE_SIZE - at.page_offset()).map_err(|_| Errno::EFAULT)?;
            let n = chunk.len().min(left).min(max - text.len());
            let piece = chunk.get_mut(..n).ok_or(Errno::EFAULT)?;
            self.read_bytes(at, piece)?;
            match piece.iter().position(|byte| *byte == 0) {
                Some(end) => {
                    text.extend_from_slice(piece.get(..end).unwrap_or_default());
                    return Ok(text);
                }
                None => text.extend_from_slice(piece),
            }
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// Copies out for a debugger (ptrace(2), /proc/pid/mem): read-only private pages are copied first. Returns
    /// the count.
    pub fn write_forced(&self, addr: UserAddr, bytes: &[u8]) -> usize {
        let mut done = 0usize;
        while done < bytes.len() {
            let Ok(at) = addr.checked_add(done as u64) else { break };
            let left = usize::try_from(PAGE_SIZE - at.page_offset()).unwrap_or(0);
            let Some(piece) = bytes.get(done..bytes.len().min(done.saturating_add(left))) else { break };
            let n = self.write_partial(at, piece);
            if n == piece.len() {
                done += n;
                continue;
            }
            // Not writable for the guest itself.
            let page = at.page_floor().raw();
            let allowed = |vma: &crate::vma::Vma| {
                vma.max_prot.contains(Prot::WRITE) && !vma.flags.contains(crate::vma::VmaFlags::PLATFORM)
            };
            if self.private_page(page, allowed).is_err() {
                break;
            }
            let pages = self.pages.read();
            let frame = pages.find(at.raw()).and_then(|seg| match seg.home_at(at.raw()) {
                Home::Frames(offset) => Some(offset),
                _ => None,
            });
            let Some(frame) = frame else { break };
            if self.frames.memory().write(frame, piece).is_err() {
                break;
            }
            done += piece.len();
        }
        done
    }

    fn on_word<T>(
        &self,
        addr: UserAddr,
        access: Access,
        act: impl Fn(&Spot<'_>) -> SysResult<T>,
    ) -> SysResult<T> {
        if !addr.raw().is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let mut result = Err(Errno::EFAULT);
        self.visit(addr, 4, access, |spot, _, run| {
            if run == 4 {
                result = act(spot);
            }
            result.as_ref().map(|_| ()).map_err(|error| *error)
        });
        result
    }
    /// Atomic load of a word (futex(2)). `EINVAL` when not aligned, `EFAULT`.
    pub fn load_u32(&self, addr: UserAddr) -> SysResult<u32> {
        self.on_word(addr, Access::Read, |spot| match spot {
            Spot::Memory(memory, offset) => memory.load_u32(*offset),
            Spot::Window(window, offset) => window.load_u32(*offset),
        })
    }
    /// Atomic store of a word.
    pub fn store_u32(&self, addr: UserAddr, value: u32) -> SysResult<()> {
        self.on_word(addr, Access::Write, |spot| match spot {
            Spot::Memory(memory, offset) => memory.store_u32(*offset, value),
            Spot::Window(window, offset) => window.store_u32(*offset, value),
        })
    }
    /// Atomic compare-exchange of a word; returns the value found, which is `old` when the store was made.
    pub fn cas_u32(&self, addr: UserAddr, old: u32, new: u32) -> SysResult<u32> {
        self.on_word(addr, Access::Write, |spot| match spot {
            Spot::Memory(memory, offset) => memory.cas_u32(*offset, old, new),
            Spot::Window(window, offset) => window.cas_u32(*offset, old, new),
        })
    }
    /// Atomic read-modify-write of a word; returns the former value.
    pub fn update_u32(&self, addr: UserAddr, change: impl Fn(u32) -> u32) -> SysResult<u32> {
        let mut old = self.load_u32(addr)?;
        loop {
            let found = self.cas_u32(addr, old, change(old))?;
            if found == old {
                return Ok(old);
            }
            old = found;
        }
    }
}

impl GuestMemory for MemoryManager {
    fn read(&self, addr: UserAddr, buf: &mut [u8]) -> SysResult<()> {
        self.read_bytes(addr, buf)
    }
    fn write(&self, addr: UserAddr, bytes: &[u8]) -> SysResult<()> {
        self.write_bytes(addr, bytes)
    }
}
