//! Descriptors 0, 1, 2 and the preserved ones of a process: donated host files.

use super::process::{Plan, put};
use crate::files::FdTable;
use abi::fs::{FileType, OpenFlags};
use abi::poll::Events;
use abi::{Errno, SysResult};
use mm::{GuestSink, GuestSource};
use rustix::event::{PollFd, PollFlags, poll};
use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use vfs::{Attr, Caller, FileOps, Io, Kgid, Kuid, OpenFile};

/// Fills the table of a new process.
pub(super) fn install(plan: &Plan<'_>, files: &Arc<FdTable>) -> SysResult<()> {
    for fd in plan.stdio.iter().chain(&plan.preserved) {
        let flags = rustix::fs::fcntl_getfl(fd).map_err(host)?;
        let mode = OpenFlags::from_bits_truncate(flags.bits() & 3);
        let file = HostFile { fd: fd.try_clone()? };
        put(files, OpenFile::anonymous(Arc::new(file), mode))?;
    }
    Ok(())
}

fn host(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

/// A donated descriptor. Its host wait happens in the task's own thread.
struct HostFile {
    fd: OwnedFd,
}

impl FileOps for HostFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        let max = dst.remaining();
        dst.fill_from_fd(self.fd.as_fd(), None, max)
    }
    fn write(&self, _io: &Io<'_>, src: &mut dyn GuestSource, _by: &Caller<'_>) -> SysResult<(usize, u64)> {
        let max = src.remaining();
        let done = src.drain_to_fd(self.fd.as_fd(), None, max)?;
        Ok((done, 0))
    }
    fn ready(&self, interest: Events) -> Events {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN | PollFlags::OUT | PollFlags::HUP)];
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut fds, Some(&zero)).is_err() {
            return Events::empty();
        }
        let found = u32::from(fds.first().map_or(0, |fd| fd.revents().bits()));
        Events::from_bits_truncate(found) & (interest | Events::ALWAYS)
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        let stat = match rustix::fs::fstat(&self.fd) {
            Ok(stat) => stat,
            Err(error) => return Some(Err(host(error))),
        };
        let time = |sec: i64, nsec: u64| abi::time::Timespec { sec, nsec: i64::try_from(nsec).unwrap_or(0) };
        Some(Ok(Attr {
            kind: FileType::from_mode(stat.st_mode).unwrap_or(FileType::Regular),
            perm: stat.st_mode & 0o7777,
            ino: stat.st_ino,
            nlink: 1,
            uid: Kuid(0),
            gid: Kgid(0),
            rdev: 0,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            blksize: 4096,
            atime: time(stat.st_atime, stat.st_atime_nsec),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            btime: None,
        }))
    }
}
