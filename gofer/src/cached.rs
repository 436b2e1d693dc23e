//! Which pages of a file the host has in memory (mincore(2), cachestat(2)). Asked here, since the sentry may not
//! write to most files and so would not be told.

use crate::confine::open_for_io;
use crate::server::{Answer, Server};
use abi::{Errno, PAGE_SIZE, SysResult};
use platform::host::cachestat;
use rustix::fs::OFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use wire::{Handle, Kind, Reply};

/// Most pages that one request asks for.
const MOST_PAGES: usize = 4096;

impl Server {
    fn regular(&self, node: Handle) -> SysResult<OwnedFd> {
        let held = self.handles.get(node)?;
        if held.kind == Kind::Regular { open_for_io(held, OFlags::RDONLY) } else { Err(Errno::EINVAL) }
    }

    pub(crate) fn cache_stat(&mut self, node: Handle, offset: u64, len: u64) -> SysResult<Answer> {
        let pages = cachestat(self.regular(node)?.as_fd(), offset, len)?;
        let data: Vec<u8> = pages.iter().flat_map(|count| count.to_le_bytes()).collect();
        Ok(Reply::Data { data: data.into() }.into())
    }

    pub(crate) fn cached(&mut self, node: Handle, offset: u64, pages: u32) -> SysResult<Answer> {
        let count = usize::try_from(pages).map_err(|_| Errno::E2BIG)?;
        if count > MOST_PAGES || !offset.is_multiple_of(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        let file = self.regular(node)?;
        let mut data = vec![0; count];
        mark(file.as_fd(), offset, &mut data)?;
        Ok(Reply::Data { data: data.into() }.into())
    }
}

/// Marks the pages that are in memory; halves what is neither all there nor all gone.
fn mark(file: BorrowedFd<'_>, offset: u64, pages: &mut [u8]) -> SysResult<()> {
    if pages.is_empty() {
        return Ok(());
    }
    let count = u64::try_from(pages.len()).map_err(|_| Errno::E2BIG)?;
    let len = count.checked_mul(PAGE_SIZE).ok_or(Errno::EOVERFLOW)?;
    match cachestat(file, offset, len)?[0] {
        0 => {}
        there if there >= count => pages.fill(1),
        _ => {
            let (first, second) = pages.split_at_mut(pages.len() / 2);
            let middle = u64::try_from(first.len()).map_err(|_| Errno::E2BIG)? * PAGE_SIZE;
            mark(file, offset, first)?;
            mark(file, offset.checked_add(middle).ok_or(Errno::EOVERFLOW)?, second)?;
        }
    }
    Ok(())
}
