//! Address spaces: a stub process each, and the changes made to it.

use super::context::Guest;
use super::keeper::KeeperHandle;
use super::tracee::Tracee;
use super::{Shared, layout, owned, raw};
use crate::memory::HUGE_PAGE;
use crate::registers::ThreadState;
use crate::seam::{AddressSpace, AsOp, Backing, Context, OpBatch, Prot};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;

/// One stub process.
#[derive(Debug)]
pub(super) struct Space {
    pid: i32,
    shared: Arc<Shared>,
    /// What is mapped, as disjoint ranges that do not touch: mprotect(2) stops at the first hole, so it is
    /// asked for each range by itself. Held while operations are carried out.
    mapped: Mutex<Ranges>,
}

impl Space {
    pub(super) fn fresh(shared: &Arc<Shared>) -> SysResult<Arc<Space>> {
        let pid = shared.keeper.call(|keeper| keeper.new_stub())?;
        Ok(Arc::new(Space { pid, shared: Arc::clone(shared), mapped: Mutex::default() }))
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn keeper(&self) -> &KeeperHandle {
        &self.shared.keeper
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.shared.keeper.bury(self.pid);
    }
}

impl AddressSpace for Space {
    fn apply(&self, mut batch: OpBatch) -> SysResult<()> {
        let result = {
            let mut mapped = self.mapped.lock();
            batch.ops.iter().try_for_each(check).and_then(|()| {
                let here = owned::with_thread_of(self.pid, |tracee| {
                    carry_out(tracee, &self.shared, &batch.ops, &mut mapped)
                });
                here.unwrap_or_else(|| {
                    let (ops, shared, pid) = (batch.ops.clone(), Arc::clone(&self.shared), self.pid);
                    let mut ranges = std::mem::take(&mut *mapped);
                    let (ranges, result) = self.shared.keeper.call(move |keeper| {
                        let result = keeper
                            .helper(pid)
                            .and_then(|helper| carry_out(helper, &shared, &ops, &mut ranges));
                        Ok((ranges, result))
                    })?;
                    *mapped = ranges;
                    result
                })
            })
        };
        batch.complete();
        result
    }

    fn new_context(self: Arc<Self>, state: &ThreadState) -> SysResult<Box<dyn Context>> {
        Ok(Box::new(Guest::new(self, state)))
    }

    fn fork(&self) -> SysResult<Option<Arc<dyn AddressSpace>>> {
        let mapped = self.mapped.lock();
        let parent = self.pid;
        let pid = self.shared.keeper.call(move |keeper| keeper.fork(parent))?;
        let copy = Mutex::new(mapped.clone());
        Ok(Some(Arc::new(Space { pid, shared: Arc::clone(&self.shared), mapped: copy })))
    }

    fn host_pid(&self) -> Option<i32> {
        Some(self.pid)
    }
}

fn range_of(op: &AsOp) -> AddrRange {
    match op {
        AsOp::Map { range, .. } | AsOp::Unmap { range } | AsOp::Protect { range, .. } => *range,
    }
}

fn check(op: &AsOp) -> SysResult<()> {
    let range = range_of(op);
    if !range.start().is_multiple_of(PAGE_SIZE) || !range.end().is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if !super::user_range().covers(range) || range.overlaps(super::own_range()) {
        return Err(Errno::ENOMEM);
    }
    Ok(())
}

fn carry_out(tracee: &mut Tracee, shared: &Shared, ops: &[AsOp], mapped: &mut Ranges) -> SysResult<()> {
    for op in ops {
        let range = range_of(op);
        if range.is_empty() {
            continue;
        }
        match op {
            AsOp::Map { prot, backing, shared: share, populate, .. } => {
                let mut flags = libc::MAP_FIXED | if *share { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
                let resident = *populate && matches!(backing, Backing::Memory { .. });
                if *populate && !resident {
                    flags |= libc::MAP_POPULATE;
                }
                let mapping = Mapping { range, prot: *prot, flags };
                match backing {
                    Backing::Memory { offset } => map_memory(tracee, shared, &mapping, *offset)?,
                    Backing::Host { fd, offset } => map_host(tracee, shared, &mapping, fd.as_fd(), *offset)?,
                }
                mapped.insert(range);
                if resident && !prot.is_empty() {
                    // Reads map sixteen pages at a time, writable ones in a shared mapping. Only advice.
                    let advice = u64::from(libc::MADV_POPULATE_READ.cast_unsigned());
                    let _ = tracee.call(libc::SYS_madvise, [range.start(), range.len(), advice, 0, 0, 0]);
                }
            }
            AsOp::Unmap { .. } => {
                tracee.call(libc::SYS_munmap, [range.start(), range.len(), 0, 0, 0, 0])?;
                mapped.remove(range);
            }
            AsOp::Protect { prot, .. } => {
                for part in mapped.inside(range) {
                    let args = [part.start(), part.len(), prot.bits().into(), 0, 0, 0];
                    tracee.call(libc::SYS_mprotect, args)?;
                }
            }
        }
    }
    Ok(())
}

struct Mapping {
    range: AddrRange,
    prot: Prot,
    flags: i32,
}

fn map_memory(tracee: &mut Tracee, shared: &Shared, mapping: &Mapping, offset: u64) -> SysResult<()> {
    let len = mapping.range.len();
    if offset.checked_add(len).is_none_or(|end| end > shared.memory.limit()) {
        return Err(Errno::EINVAL);
    }
    // The memory file is never mapped privately: its pages are the guest's.
    let flags = (mapping.flags & !libc::MAP_PRIVATE) | libc::MAP_SHARED;
    mmap(tracee, mapping, flags, layout::MEMORY_FD, offset)?;
    let congruent = mapping.range.start() % HUGE_PAGE == offset % HUGE_PAGE;
    if congruent && shared.memory.wants_huge(offset, len) {
        let advice = u64::from(libc::MADV_HUGEPAGE.cast_unsigned());
        // Advice: without it the pages are small, that is all.
        let _ = tracee.call(libc::SYS_madvise, [mapping.range.start(), len, advice, 0, 0, 0]);
    }
    Ok(())
}

fn map_host(
    tracee: &mut Tracee,
    shared: &Shared,
    mapping: &Mapping,
    fd: std::os::fd::BorrowedFd<'_>,
    offset: u64,
) -> SysResult<()> {
    let passing = shared.passing.lock();
    raw::send_descriptor(&passing.sender, fd)?;
    let received = receive(tracee);
    if received.is_err() {
        // Only a guest that meddles with the scratch page gets here; what it did not take goes.
        raw::drain(&passing.receiver);
        return Err(Errno::EIO);
    }
    drop(passing);
    let result = mmap(tracee, mapping, mapping.flags, layout::PASSED_FD, offset);
    tracee.call(libc::SYS_close, [layout::PASSED_FD.cast_unsigned().into(), 0, 0, 0, 0, 0])?;
    result
}

/// Takes the queued descriptor into the stub. The number is known (the lowest free one), so nothing that
/// the guest can write is read back.
fn receive(tracee: &mut Tracee) -> SysResult<()> {
    const IOV: u64 = layout::SCRATCH as u64 + 64;
    const BYTE: u64 = layout::SCRATCH as u64 + 96;
    const CONTROL: u64 = layout::SCRATCH as u64 + 128;
    // struct msghdr: name, namelen, iov, iovlen, control, controllen, flags.
    let header = [0, 0, IOV, 1, CONTROL, 24, 0];
    {
        let stopped = tracee.stopped().ok_or(Errno::ESRCH)?;
        for (index, word) in (0u64..).zip(header) {
            stopped.poke(layout::SCRATCH as u64 + 8 * index, word)?;
        }
        stopped.poke(IOV, BYTE)?;
        stopped.poke(IOV + 8, 1)?;
    }
    let flags = u64::from(libc::MSG_DONTWAIT.cast_unsigned());
    let args = [layout::SOCKET_FD.cast_unsigned().into(), layout::SCRATCH as u64, flags, 0, 0, 0];
    tracee.call(libc::SYS_recvmsg, args).map(|_| ())
}

fn mmap(tracee: &mut Tracee, mapping: &Mapping, flags: i32, fd: i32, offset: u64) -> SysResult<()> {
    let args = [
        mapping.range.start(),
        mapping.range.len(),
        mapping.prot.bits().into(),
        flags.cast_unsigned().into(),
        fd.cast_unsigned().into(),
        offset,
    ];
    tracee.call(libc::SYS_mmap, args).map(|_| ())
}

/// Disjoint, non-touching ranges: start to end.
#[derive(Clone, Debug, Default)]
struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    fn remove(&mut self, range: AddrRange) {
        let first = self.0.range(..range.start()).next_back().map(|(s, e)| (*s, *e));
        if let Some((start, end)) = first.filter(|(_, end)| *end > range.start()) {
            self.0.insert(start, range.start());
            if end > range.end() {
                self.0.insert(range.end(), end);
                return;
            }
        }
        while let Some((start, end)) = self.0.range(range.start()..range.end()).next().map(|(s, e)| (*s, *e))
        {
            self.0.remove(&start);
            if end > range.end() {
                self.0.insert(range.end(), end);
            }
        }
    }

    fn insert(&mut self, range: AddrRange) {
        self.remove(range);
        let (mut start, mut end) = (range.start(), range.end());
        if let Some((before, _)) = self.0.range(..start).next_back().filter(|(_, e)| **e == range.start()) {
            start = *before;
        }
        if let Some(after) = self.0.remove(&range.end()) {
            end = after;
        }
        self.0.insert(start, end);
    }

    fn inside(&self, range: AddrRange) -> Vec<AddrRange> {
        let before = self.0.range(..range.start()).next_back();
        let rest = self.0.range(range.start()..range.end());
        before
            .into_iter()
            .chain(rest)
            .filter_map(|(start, end)| AddrRange::new(*start, *end)?.intersect(range))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;
    use abi::AddrRange;

    fn range(start: u64, end: u64) -> AddrRange {
        AddrRange::new(start, end).unwrap()
    }

    #[test]
    fn ranges_merge_and_split() {
        let mut ranges = Ranges::default();
        ranges.insert(range(10, 20));
        ranges.insert(range(30, 40));
        ranges.insert(range(20, 30));
        assert_eq!(ranges.inside(range(0, 100)), [range(10, 40)]);
        ranges.remove(range(15, 20));
        ranges.remove(range(35, 50));
        assert_eq!(ranges.inside(range(12, 100)), [range(12, 15), range(20, 35)]);
        ranges.insert(range(0, 100));
        assert_eq!(ranges.inside(range(5, 6)), [range(5, 6)]);
        ranges.remove(range(40, 50));
        assert_eq!(ranges.inside(range(0, 200)), [range(0, 40), range(50, 100)]);
    }
}
