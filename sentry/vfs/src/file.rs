//! Open files (the "open file description" of open(2)).
//!
//! [`OpenFile`] checks access mode, O_APPEND, RLIMIT_FSIZE once, keeps the position, and waits;
//! [`FileOps`] is what a kind of file does.

use crate::attr::{Attr, AttrChange, FsStat};
use crate::caller::Caller;
pub use crate::open_file::{OpenFile, RwFlags, SignalOwner, seek_in};
use abi::fs::{FileType, OpenFlags};
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::WaitEntry;
pub use mm::GuestMemory;
use mm::{GuestSink, GuestSource, Mappable};
use std::any::Any;
use std::sync::Arc;

/// Parameters of one read or write.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    /// The open file.
    pub file: &'a OpenFile,
    /// Byte offset; files without a position ignore it.
    pub offset: u64,
    /// Append to the end (O_APPEND or RWF_APPEND): `write` ignores `offset` and reports where it ended
    /// through its return of the new end.
    pub append: bool,
}

/// lseek(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekFrom {
    /// SEEK_SET.
    Start(i64),
    /// SEEK_CUR.
    Current(i64),
    /// SEEK_END.
    End(i64),
    /// SEEK_DATA.
    Data(i64),
    /// SEEK_HOLE.
    Hole(i64),
}

/// Takes directory entries.
pub trait DirSink {
    /// One entry. `next` is the cookie (`d_off`) with which a later call goes on behind it. Returns false
    /// when it did not fit: the caller stops and does not count the entry.
    fn entry(&mut self, name: &[u8], ino: u64, kind: FileType, next: u64) -> bool;
}

/// What a kind of open file does. Nothing here blocks: not ready is `EAGAIN`.
pub trait FileOps: Send + Sync {
    /// For downcasts by the module that made it.
    fn as_any(&self) -> &dyn Any;

    /// Reads at `io.offset` (or the next bytes of a stream). 0 is end of file.
    fn read(&self, _io: &Io<'_>, _dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        Err(Errno::EINVAL)
    }
    /// Writes. Returns the count and, for files with a position, the offset behind the last byte.
    fn write(&self, _io: &Io<'_>, _src: &mut dyn GuestSource, _by: &Caller<'_>) -> SysResult<(usize, u64)> {
        Err(Errno::EINVAL)
    }
    /// Whether the file has a position (lseek works); pread on others is `ESPIPE`.
    fn is_seekable(&self) -> bool {
        false
    }
    /// Whether lseek(2) succeeds, and stays at 0, for a file without a position (eventfds and their like).
    fn ignores_seeks(&self) -> bool {
        false
    }
    /// Whether pread/pwrite work although... false for streams (`ESPIPE`); defaults to `is_seekable`.
    fn has_offset(&self) -> bool {
        self.is_seekable()
    }
    /// New position; `current` is the old one. The default serves `is_seekable` files of known size.
    fn seek(&self, file: &OpenFile, current: u64, to: SeekFrom, by: &Caller<'_>) -> SysResult<u64> {
        let size = match to {
            SeekFrom::Start(_) | SeekFrom::Current(_) => 0,
            _ => file.attr(by)?.size,
        };
        seek_in(current, to, size)
    }
    /// open(2) of /proc/pid/fd/N for a file without an inode in a tree: pipes and memfds give a new open
    /// file, the others none.
    fn reopen(&self, _flags: OpenFlags, _by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        Err(Errno::ENXIO)
    }
    /// The last reference to the open file is gone.
    fn released(&self) {}
    /// Events of `interest` that are ready (ERR and HUP always).
    fn ready(&self, interest: Events) -> Events {
        interest & (Events::READABLE | Events::WRITABLE)
    }
    /// Whether epoll accepts it (regular files and directories do not poll: `EPERM`).
    fn can_poll(&self) -> bool {
        true
    }
    /// Whether a blocking write goes on until every byte is taken (pipes, stream sockets, terminals).
    fn writes_whole(&self) -> bool {
        false
    }
    /// Until when a blocking read (`IN`) or write (`OUT`) that began at `since` may sleep: SO_RCVTIMEO,
    /// SO_SNDTIMEO, VTIME. Asked before each sleep.
    fn io_deadline(&self, _events: Events, _since: std::time::Instant) -> lock::Deadline {
        None
    }
    /// The read when `io_deadline` has passed; terminals give what there is.
    fn read_expired(&self, _io: &Io<'_>, _dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        Err(Errno::EAGAIN)
    }
    /// Job control of an ioctl, asked before `ioctl`: may stop the caller and have the call restarted.
    fn before_ioctl(&self, _request: u32, _by: &Caller<'_>) -> abi::CallResult<()> {
        Ok(())
    }
    /// Registers for events.
    fn register(&self, _entry: &Arc<WaitEntry>) {}
    /// Undoes `register`.
    fn unregister(&self, _entry: &Arc<WaitEntry>) {}
    /// ioctl(2); `ENOTTY` when unknown. `memory` is the caller's address space.
    fn ioctl(
        &self,
        _file: &OpenFile,
        _request: u32,
        _arg: u64,
        _memory: &dyn GuestMemory,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        Err(Errno::ENOTTY)
    }
    /// Directory entries from `cookie` on (0 is the start; "." and ".." are included by the directory).
    /// Returns the cookie behind the last entry taken.
    fn read_dir(
        &self,
        _file: &OpenFile,
        _cookie: u64,
        _sink: &mut dyn DirSink,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        Err(Errno::ENOTDIR)
    }
    /// For mmap; `ENODEV` when it cannot be mapped.
    fn mappable(&self, _file: &OpenFile) -> SysResult<Arc<dyn Mappable>> {
        Err(Errno::ENODEV)
    }
    /// Attributes, for files that have no inode in a tree (pipes, sockets, anonymous inodes) or whose size
    /// the ops know better. `None`: ask the inode.
    fn attr(&self) -> Option<SysResult<Attr>> {
        None
    }
    /// ftruncate, fchmod and their like on files without an inode.
    fn set_attr(&self, _change: &AttrChange, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EINVAL)
    }
    /// fstatfs on files without an inode.
    fn statfs(&self) -> Option<FsStat> {
        None
    }
    /// fsync(2), fdatasync(2) with `data_only`.
    fn sync(&self, _scope: SyncScope) -> SysResult<()> {
        Err(Errno::EINVAL)
    }
    /// The same for a caller who can sleep until a server has answered.
    fn sync_for(&self, scope: SyncScope, _by: &Caller<'_>) -> SysResult<()> {
        self.sync(scope)
    }
    /// fallocate(2); `mode` holds the FALLOC_FL_* bits.
    fn allocate(&self, _mode: u32, _offset: u64, _len: u64, _by: &Caller<'_>) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// F_SETFL is about to change the status flags; an error refuses it (sockets and pipes note O_NONBLOCK
    /// through `OpenFile` anyway).
    fn flags_changed(&self, _file: &OpenFile, _new: OpenFlags) -> SysResult<()> {
        Ok(())
    }
    /// One descriptor was closed (any, not only the last): POSIX locks, flush of FUSE.
    fn flush(&self, _by: &Caller<'_>) -> SysResult<()> {
        Ok(())
    }
    /// Lines of /proc/pid/fdinfo beside pos, flags and mnt_id.
    fn fdinfo(&self, _out: &mut Vec<u8>) {}
    /// What /proc/pid/fd/N shows for files without a path: `pipe:[12]`, `anon_inode:[eventfd]`.
    fn link_name(&self) -> Option<Vec<u8>> {
        None
    }
}

/// fsync or fdatasync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncScope {
    /// Data and all metadata.
    All,
    /// Data and the metadata needed to read it.
    Data,
}
