//! /proc/pid/pagemap: a word for each page. Where pages lie is nobody's business (as without CAP_SYS_ADMIN):
//! only which ones are there.

use super::memory::memory_of;
use super::subject::{PtraceAccess, Subject};
use abi::fs::{FileType, OpenFlags};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult, UserAddr};
use mm::{GuestSink, MemoryManager, VmaFlags};
use std::any::Any;
use std::sync::Arc;
use vfs::synthetic::{Custom, Node};
use vfs::{Caller, FileOps, Io};

const PRESENT: u64 = 1 << 63;
const FILE_OR_SHARED: u64 = 1 << 61;
const SOFT_DIRTY: u64 = 1 << 55;
const WORD: u64 = 8;
/// Pages looked at together.
const BATCH: u64 = 512;

/// The file.
pub(super) fn file(subject: &Subject) -> Node {
    Node::custom(FileType::Regular, 0o400, Arc::new(PageMap(subject.clone())))
}

struct PageMap(Subject);

impl Custom for PageMap {
    fn open(&self, _flags: OpenFlags, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        self.0.check(PtraceAccess::Read, by)?;
        Ok(Arc::new(OpenMap(memory_of(&self.0)?)))
    }
}

struct OpenMap(Option<Arc<MemoryManager>>);

/// The words of `count` pages from `first` on.
fn words(mm: &MemoryManager, first: u64, count: u64) -> Vec<u8> {
    let mut out = vec![0_u64; usize::try_from(count).unwrap_or(0)];
    let start = first.saturating_mul(PAGE_SIZE);
    let end = start.saturating_add(count.saturating_mul(PAGE_SIZE));
    let mut from = start;
    while from < end {
        let Some(area) = mm.areas(from, 1).into_iter().next() else { break };
        let Some(part) = AddrRange::new(start, end).and_then(|all| all.intersect(area.range)) else { break };
        from = area.range.end();
        let backed = area.flags.contains(VmaFlags::SHARED) || area.id != mm::MappableId::default();
        let bits = PRESENT | SOFT_DIRTY | if backed { FILE_OR_SHARED } else { 0 };
        let Ok(there) = mm.present(UserAddr::new(part.start()), part.len()) else { continue };
        let skip = usize::try_from((part.start() - start) / PAGE_SIZE).unwrap_or(0);
        for (word, byte) in out.iter_mut().skip(skip).zip(there) {
            if byte & 1 != 0 {
                *word = bits;
            }
        }
    }
    out.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

impl FileOps for OpenMap {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn read(&self, io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        let wanted = u64::try_from(dst.remaining()).unwrap_or(0);
        if !io.offset.is_multiple_of(WORD) || !wanted.is_multiple_of(WORD) {
            return Err(Errno::EINVAL);
        }
        let Some(mm) = &self.0 else { return Ok(0) };
        let last = mm.user_range().end() / PAGE_SIZE;
        let (mut page, mut done) = (io.offset / WORD, 0);
        while page < last && dst.remaining() > 0 {
            let left = u64::try_from(dst.remaining()).unwrap_or(0) / WORD;
            let count = left.min(BATCH).min(last - page);
            let bytes = words(mm, page, count);
            let put = dst.put(&bytes)?;
            done += put;
            if put < bytes.len() {
                break;
            }
            page += count;
        }
        Ok(done)
    }
}
