//! Listing: ".", "..", the fixed entries, then the changing ones by key.

use super::inode::SynthInode;
use crate::caller::Caller;
use crate::file::{DirSink, FileOps, Io, OpenFile, SeekFrom, SyncScope};
use abi::fs::FileType;
use abi::{Errno, SysResult};
use mm::GuestSink;
use std::any::Any;
use std::sync::Arc;

/// Cookies of changing entries start here, fixed ones stand below.
const CHANGING: u64 = 1 << 24;

pub(super) struct SynthDir {
    inode: Arc<SynthInode>,
}

impl SynthDir {
    pub(super) fn new(inode: Arc<SynthInode>) -> SynthDir {
        SynthDir { inode }
    }
}

/// What lists an open directory of a synthetic file system, when it changes.
#[must_use]
pub fn directory_of(file: &OpenFile) -> Option<Arc<dyn super::Directory>> {
    file.downcast::<SynthDir>()?.inode.directory()
}

impl FileOps for SynthDir {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, _dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        Err(Errno::EISDIR)
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        match to {
            SeekFrom::Start(n) => u64::try_from(n).map_err(|_| Errno::EINVAL),
            SeekFrom::Current(n) => current.checked_add_signed(n).ok_or(Errno::EINVAL),
            _ => Err(Errno::EINVAL),
        }
    }
    fn read_dir(
        &self,
        _file: &OpenFile,
        cookie: u64,
        sink: &mut dyn DirSink,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        let mut cookie = cookie;
        if cookie == 0 {
            if !sink.entry(b".", self.inode.number(), FileType::Directory, 1) {
                return Ok(0);
            }
            cookie = 1;
        }
        if cookie == 1 {
            if !sink.entry(b"..", self.inode.parent_number(), FileType::Directory, 2) {
                return Ok(1);
            }
            cookie = 2;
        }
        if cookie < CHANGING {
            for (at, name, ino, kind) in self.inode.fixed_after(cookie) {
                if !sink.entry(&name, ino, kind, at) {
                    return Ok(cookie);
                }
                cookie = at;
            }
            cookie = CHANGING;
        }
        let Some(changing) = self.inode.changing() else { return Ok(cookie) };
        // A cookie is the key of the next entry.
        for entry in changing.list(cookie - CHANGING, by)? {
            let next = CHANGING.saturating_add(entry.key).saturating_add(1);
            if !sink.entry(&entry.name, self.inode.child_number(&entry.name), entry.kind, next) {
                return Ok(cookie);
            }
            cookie = next;
        }
        Ok(cookie)
    }
    fn sync(&self, _scope: SyncScope) -> SysResult<()> {
        Ok(())
    }
}
