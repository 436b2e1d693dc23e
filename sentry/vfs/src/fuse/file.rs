//! Open files and directories of a FUSE file system.

use super::connection::MOST;
use super::inode::{FuseInode, Opened};
use super::message::{Put, Take, op};
use crate::caller::Caller;
use crate::file::{DirSink, FileOps, Io, OpenFile, SeekFrom, SyncScope, seek_in};
use crate::inode::Inode;
use abi::fs::{FileType, OpenFlags};
use abi::{Errno, SysResult};
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::sync::Arc;

/// `FOPEN_KEEP_CACHE`.
pub(super) const KEEP_CACHE: u32 = 1 << 1;
/// `FOPEN_NONSEEKABLE`, `FOPEN_STREAM`.
const NONSEEKABLE: u32 = 1 << 2 | 1 << 4;
/// Bytes of one FUSE_READDIR.
const DIRECTORY_BYTES: u32 = 4096;
/// Bytes of a `struct fuse_dirent` in front of its name.
const DIRENT: usize = 24;

/// An open file or directory.
pub(super) struct FuseFile {
    inode: Arc<FuseInode>,
    opened: Opened,
    flags: OpenFlags,
}

impl FuseFile {
    pub(super) fn new(inode: Arc<FuseInode>, opened: Opened, flags: OpenFlags) -> FuseFile {
        FuseFile { inode, opened, flags }
    }
    fn is_dir(&self) -> bool {
        self.inode.kind() == FileType::Directory
    }
    /// Who asks where no caller is known: the server is told nothing of whom.
    fn handle(&self) -> Put {
        Put::default().u64(self.opened.handle)
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        let operation = if self.is_dir() { op::RELEASEDIR } else { op::RELEASE };
        self.inode.release(operation, self.opened.handle, self.flags);
    }
}

impl FileOps for FuseFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, io: &Io<'_>, dst: &mut dyn GuestSink, by: &Caller<'_>) -> SysResult<usize> {
        if self.is_dir() {
            return Err(Errno::EISDIR);
        }
        let limit = self.inode.fs.options.max_read;
        let most = if limit == 0 { MOST } else { limit.clamp(4096, MOST) };
        let mut done = 0_usize;
        while dst.remaining() > 0 {
            let want = u32::try_from(dst.remaining()).unwrap_or(most).min(most);
            let at = io.offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            let flags = self.flags.bits();
            let body = self.handle().u64(at).u32(want).u32(0).u64(0).u32(flags).u32(0);
            let bytes = match self.inode.call(op::READ, &body, by) {
                Ok(bytes) => bytes,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            };
            let asked = usize::try_from(want).unwrap_or(0);
            let part = bytes.get(..asked).unwrap_or(&bytes);
            if part.is_empty() {
                break;
            }
            let put = match dst.put(part) {
                Ok(put) => put,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            };
            done = done.saturating_add(put);
            if put < asked {
                break;
            }
        }
        Ok(done)
    }
    fn write(&self, io: &Io<'_>, src: &mut dyn GuestSource, by: &Caller<'_>) -> SysResult<(usize, u64)> {
        let mut at = io.offset;
        if io.append {
            self.inode.forget_attr();
            at = self.inode.attr(by)?.size;
        }
        let most = self.inode.fs.conn.max_write();
        let mut done = 0_usize;
        while src.remaining() > 0 {
            let mut bytes = vec![0; src.remaining().min(most)];
            let got = match src.take(&mut bytes) {
                Ok(got) => got,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            };
            let part = bytes.get(..got).unwrap_or_default();
            let len = u32::try_from(got).map_err(|_| Errno::EINVAL)?;
            let flags = self.flags.bits();
            let body = self.handle().u64(at).u32(len).u32(0).u64(0).u32(flags).u32(0).bytes(part);
            let written = self.inode.call(op::WRITE, &body, by).and_then(|reply| Take(&reply).u32());
            self.inode.forget_attr();
            let count = match written {
                Ok(count) if count <= len => usize::try_from(count).unwrap_or(0),
                Ok(_) => return Err(Errno::EIO),
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            };
            done = done.saturating_add(count);
            at = at.saturating_add(u64::try_from(count).unwrap_or(0));
            if count < got {
                break;
            }
        }
        Ok((done, at))
    }
    fn is_seekable(&self) -> bool {
        self.opened.how & NONSEEKABLE == 0
    }
    fn seek(&self, file: &OpenFile, current: u64, to: SeekFrom, by: &Caller<'_>) -> SysResult<u64> {
        if self.is_dir() {
            return match to {
                SeekFrom::Start(at) => u64::try_from(at).map_err(|_| Errno::EINVAL),
                SeekFrom::Current(0) => Ok(current),
                _ => Err(Errno::EINVAL),
            };
        }
        let size = match to {
            SeekFrom::Start(_) | SeekFrom::Current(_) => 0,
            _ => file.attr(by)?.size,
        };
        seek_in(current, to, size)
    }
    fn read_dir(
        &self,
        _file: &OpenFile,
        cookie: u64,
        sink: &mut dyn DirSink,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        let mut cookie = cookie;
        let mut any = false;
        loop {
            let body = self.handle().u64(cookie).u32(DIRECTORY_BYTES).u32(0).u64(0).u32(0).u32(0);
            let reply = match self.inode.call(op::READDIR, &body, by) {
                Err(_) if any => return Ok(cookie),
                other => other?,
            };
            if reply.is_empty() {
                return Ok(cookie);
            }
            let mut from = Take(&reply);
            while from.0.len() >= DIRENT {
                let (ino, next) = (from.u64()?, from.u64()?);
                let (len, kind) = (from.u32()?, from.u32()?);
                let len = usize::try_from(len).map_err(|_| Errno::EIO)?;
                if len == 0 || len > abi::limits::NAME_MAX {
                    return Err(Errno::EIO);
                }
                let Ok(name) = from.bytes(len) else { break };
                if name.contains(&b'/') || name.contains(&0) {
                    return Err(Errno::EIO);
                }
                let pad = (DIRENT + len).next_multiple_of(8) - (DIRENT + len);
                let _ = from.bytes(pad.min(from.0.len()));
                let kind = FileType::from_mode((kind << 12) & 0o170_000).unwrap_or(FileType::Anonymous);
                if !sink.entry(name, ino, kind, next) {
                    return Ok(cookie);
                }
                cookie = next;
                any = true;
            }
        }
    }
    fn sync(&self, _scope: SyncScope) -> SysResult<()> {
        // Nobody here can wait (O_SYNC, RWF_DSYNC): the write itself has gone to the server already.
        let operation = if self.is_dir() { op::FSYNCDIR } else { op::FSYNC };
        self.inode.fs.conn.post(operation, self.inode.node, &self.handle().u32(0).u32(0));
        Ok(())
    }
    fn sync_for(&self, scope: SyncScope, by: &Caller<'_>) -> SysResult<()> {
        let operation = if self.is_dir() { op::FSYNCDIR } else { op::FSYNC };
        let data_only = u32::from(scope == SyncScope::Data);
        match self.inode.call(operation, &self.handle().u32(data_only).u32(0), by) {
            Ok(_) | Err(Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
    fn allocate(&self, mode: u32, offset: u64, len: u64, by: &Caller<'_>) -> SysResult<()> {
        let body = self.handle().u64(offset).u64(len).u32(mode).u32(0);
        let done = self.inode.call(op::FALLOCATE, &body, by);
        self.inode.forget_attr();
        done.map(drop).map_err(|errno| if errno == Errno::ENOSYS { Errno::EOPNOTSUPP } else { errno })
    }
    fn flush(&self, by: &Caller<'_>) -> SysResult<()> {
        if self.is_dir() {
            return Ok(());
        }
        match self.inode.call(op::FLUSH, &self.handle().u32(0).u32(0).u64(0), by) {
            Ok(_) | Err(Errno::ENOSYS | Errno::EINTR | Errno::ENOTCONN | Errno::ECONNABORTED) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}
