//! [`OpenFile`]: what the descriptors made by dup(2) and fork(2) share.
//!
//! Reads and writes of files without a position take no lock here; the others hold `OpenFilePos` for one
//! attempt, never over a sleep. Dropping the last reference releases flocks and OFD locks.

use crate::attr::{Attr, AttrChange, FsStat};
use crate::caller::{Caller, Waitable};
use crate::file::{DirSink, FileOps, Io, SeekFrom, SyncScope};
use crate::inode::Atime;
use crate::inode_flags::InodeFlags;
use crate::inode_state::{self, InodeShared};
use crate::locks::{self, LockOwner};
use crate::mount::{Location, MountFlags};
use crate::notify::{self, Mask};
use crate::sigio::{Async, OwnerCell};
use abi::fs::{FileType, OpenFlags};
use abi::limits::MAX_RW_COUNT;
use abi::poll::Events;
use abi::signal::Signal;
use abi::{CallResult, Errno, Failure, Restart, SysResult};
use lock::{BlockError, Ranked, WaitEntry, order};
use mm::{GuestSink, GuestSource, Mappable};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

bitflags::bitflags! {
    /// `RWF_*` of preadv2(2) and pwritev2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RwFlags: u32 {
        /// High priority; no meaning here.
        const HIPRI = 1;
        /// As O_DSYNC.
        const DSYNC = 2;
        /// As O_SYNC.
        const SYNC = 4;
        /// `EAGAIN` instead of sleeping.
        const NOWAIT = 8;
        /// As O_APPEND.
        const APPEND = 0x10;
        /// Ignore O_APPEND.
        const NOAPPEND = 0x20;
    }
}

/// F_SETOWN_EX, F_SETSIG.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SignalOwner {
    /// F_OWNER_TID (0), F_OWNER_PID (1), F_OWNER_PGRP (2).
    pub kind: i32,
    /// The id, of the sandbox's first pid namespace; 0 for nobody.
    pub id: u32,
    /// Signal instead of SIGIO; 0 is the default.
    pub signal: i32,
    /// Real and effective user ids of who set it.
    pub uids: (u32, u32),
}

/// An open file description.
pub struct OpenFile {
    ops: Arc<dyn FileOps>,
    flags: AtomicU32,
    // Held over a transfer that uses the position.
    pos: Ranked<order::OpenFilePos, ()>,
    // Written under `pos`, read without: what /proc/pid/fdinfo shows of a file may be read through that file.
    pos_now: AtomicU64,
    location: Option<Location>,
    seekable: bool,
    regular: bool,
    // This file counts as a writer of its mount.
    writer: AtomicBool,
    // The open that made it also made the file.
    created: AtomicBool,
    // What Landlock granted at the open is not all.
    no_truncate: AtomicBool,
    no_device_ioctl: AtomicBool,
    // Set while the inode refuses execve because of this writer, or once a lock was taken through it.
    counted: OnceLock<Arc<InodeShared>>,
    state: OnceLock<Arc<InodeShared>>,
    owner: OnceLock<Arc<OwnerCell>>,
    async_entry: Ranked<order::Leaf, Option<AsyncEntry>>,
}

/// Who is told of readiness (O_ASYNC), and its place on the file's queue.
type AsyncEntry = (Arc<Async>, Arc<WaitEntry>);

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenFile({:?} {:?})", self.flags(), self.location)
    }
}

impl Waitable for OpenFile {
    fn ready(&self, interest: Events) -> Events {
        self.ops.ready(interest)
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.ops.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.ops.unregister(entry);
    }
}

/// lseek(2) in a file of `size` bytes without holes.
pub fn seek_in(current: u64, to: SeekFrom, size: u64) -> SysResult<u64> {
    let signed = |n: u64| i64::try_from(n).map_err(|_| Errno::EOVERFLOW);
    let target = match to {
        SeekFrom::Start(n) => n,
        SeekFrom::Current(n) => signed(current)?.checked_add(n).ok_or(Errno::EOVERFLOW)?,
        SeekFrom::End(n) => signed(size)?.checked_add(n).ok_or(Errno::EOVERFLOW)?,
        SeekFrom::Data(n) | SeekFrom::Hole(n) => {
            let n = u64::try_from(n).map_err(|_| Errno::ENXIO)?;
            if n >= size {
                return Err(Errno::ENXIO);
            }
            return Ok(if matches!(to, SeekFrom::Data(_)) { n } else { size });
        }
    };
    u64::try_from(target).map_err(|_| Errno::EINVAL)
}

impl OpenFile {
    fn build(ops: Arc<dyn FileOps>, flags: OpenFlags, location: Option<Location>) -> OpenFile {
        // Flags of the open itself are not status flags.
        let kept = flags
            - (OpenFlags::CREAT
                | OpenFlags::EXCL
                | OpenFlags::NOCTTY
                | OpenFlags::TRUNC
                | OpenFlags::CLOEXEC);
        OpenFile {
            seekable: ops.is_seekable(),
            regular: location.as_ref().and_then(Location::kind) == Some(FileType::Regular),
            ops,
            flags: AtomicU32::new(kept.bits()),
            pos: Ranked::new(()),
            pos_now: AtomicU64::new(0),
            location,
            writer: AtomicBool::new(false),
            created: AtomicBool::new(false),
            no_truncate: AtomicBool::new(false),
            no_device_ioctl: AtomicBool::new(false),
            counted: OnceLock::new(),
            state: OnceLock::new(),
            owner: OnceLock::new(),
            async_entry: Ranked::default(),
        }
    }
    /// An open file without a path: pipe, socket, eventfd...
    #[must_use]
    pub fn anonymous(ops: Arc<dyn FileOps>, flags: OpenFlags) -> Arc<OpenFile> {
        Arc::new(OpenFile::build(ops, flags, None))
    }
    /// An open file at a place. A writer is counted at its mount.
    #[must_use]
    pub fn at(location: Location, ops: Arc<dyn FileOps>, flags: OpenFlags) -> Arc<OpenFile> {
        let file = OpenFile::build(ops, flags, Some(location));
        if flags.writable()
            && let Some(at) = &file.location
        {
            at.mount.add_writer();
            file.writer.store(true, Ordering::Relaxed);
        }
        Arc::new(file)
    }
    /// Keeps `state` counted as written to until the file is closed.
    pub(crate) fn count_writer(&self, state: Arc<InodeShared>) {
        if let Err(state) = self.counted.set(state) {
            state.put_write();
        }
    }
    /// Notes that the open made the file.
    pub(crate) fn mark_created(&self) {
        self.created.store(true, Ordering::Relaxed);
    }
    /// Keeps what Landlock does not grant to who opened it.
    pub(crate) fn restrict(&self, rights: crate::landlock::FsRight) {
        use crate::landlock::FsRight;
        self.no_truncate.store(!rights.contains(FsRight::TRUNCATE), Ordering::Relaxed);
        self.no_device_ioctl.store(!rights.contains(FsRight::IOCTL_DEV), Ordering::Relaxed);
    }
    /// Whether Landlock keeps ioctl(2) from it, should it be a device.
    #[must_use]
    pub fn is_ioctl_restricted(&self) -> bool {
        self.no_device_ioctl.load(Ordering::Relaxed)
    }
    /// F_CREATED_QUERY: whether the open made the file.
    #[must_use]
    pub fn is_created(&self) -> bool {
        self.created.load(Ordering::Relaxed)
    }
    /// What kind of file it is.
    #[must_use]
    pub fn ops(&self) -> &Arc<dyn FileOps> {
        &self.ops
    }
    /// The ops as a concrete type.
    #[must_use]
    pub fn downcast<T: 'static>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }
    /// Access mode and status flags.
    #[must_use]
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
    /// Where it was opened; `None` for pipes, sockets and their like.
    #[must_use]
    pub fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }
    /// fcntl F_SETFL: changes the flags that may change, and keeps the others.
    pub fn set_flags(&self, wanted: OpenFlags, by: &Caller<'_>) -> SysResult<()> {
        let old = self.flags();
        if wanted.contains(OpenFlags::NOATIME)
            && !old.contains(OpenFlags::NOATIME)
            && !crate::perm::owner_or_capable(by.cred, &self.attr(by)?)
        {
            return Err(Errno::EPERM);
        }
        let new = (old - OpenFlags::SETTABLE) | (wanted & OpenFlags::SETTABLE);
        if (old - new).contains(OpenFlags::APPEND) && self.protection().contains(InodeFlags::APPEND) {
            return Err(Errno::EPERM);
        }
        self.ops.flags_changed(self, new)?;
        self.flags.store(new.bits(), Ordering::Relaxed);
        Ok(())
    }
    /// FIONBIO: one flag.
    pub fn change_flag(&self, flag: OpenFlags, on: Toggle) -> SysResult<()> {
        let old = self.flags();
        let new = if on == Toggle::On { old | flag } else { old - flag };
        self.ops.flags_changed(self, new)?;
        self.flags.store(new.bits(), Ordering::Relaxed);
        Ok(())
    }
    fn protection(&self) -> InodeFlags {
        let inode = self.location.as_ref().and_then(|at| at.inode().ok());
        inode.map_or_else(InodeFlags::empty, |inode| inode.protection())
    }
    /// Who gets SIGIO.
    #[must_use]
    pub fn signal_owner(&self) -> SignalOwner {
        self.owner.get().map(|owner| *owner.lock()).unwrap_or_default()
    }
    /// Sets who gets SIGIO.
    pub fn set_signal_owner(&self, owner: SignalOwner) {
        *self.owner.get_or_init(Arc::default).lock() = owner;
    }
    pub(crate) fn owner_cell(&self) -> Arc<OwnerCell> {
        Arc::clone(self.owner.get_or_init(Arc::default))
    }
    /// O_ASYNC (F_SETFL, FIOASYNC) by descriptor `fd`: events are signalled to the owner from now on, or no more.
    /// Files that do not poll keep the flag and send nothing.
    pub fn set_async(&self, on: Toggle, fd: i32) -> SysResult<()> {
        if self.flags().contains(OpenFlags::ASYNC) == (on == Toggle::On) {
            return Ok(());
        }
        self.change_flag(OpenFlags::ASYNC, on)?;
        let new = (on == Toggle::On && self.ops.can_poll()).then(|| {
            let target = Async::new(Arc::clone(self.owner.get_or_init(Arc::default)), fd);
            let weak: Weak<dyn lock::WakeTarget> = Arc::<Async>::downgrade(&target);
            (target, WaitEntry::new(weak, Events::READABLE | Events::WRITABLE | Events::PRI | Events::RDHUP))
        });
        let entry = new.as_ref().map(|(_, entry)| Arc::clone(entry));
        let old = std::mem::replace(&mut *self.async_entry.lock(), new);
        if let Some((_, old)) = old {
            self.ops.unregister(&old);
        }
        if let Some(entry) = entry {
            self.ops.register(&entry);
        }
        Ok(())
    }
    /// The current position.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.pos_now.load(Ordering::Relaxed)
    }
    /// Sets the position (checkpoint, copies between files).
    pub fn set_position(&self, pos: u64) {
        let _busy = self.pos.lock();
        self.pos_now.store(pos, Ordering::Relaxed);
    }
    /// Whether it has a position.
    #[must_use]
    pub fn is_seekable(&self) -> bool {
        self.seekable
    }
    /// fstat(2).
    pub fn attr(&self, by: &Caller<'_>) -> SysResult<Attr> {
        if let Some(attr) = self.ops.attr() {
            return attr;
        }
        match &self.location {
            Some(at) => at.inode()?.attr(by),
            None => Err(Errno::EBADF),
        }
    }
    /// fchmod and kin, after the checks of `ops`.
    pub fn set_attr(&self, change: &AttrChange, by: &Caller<'_>) -> SysResult<()> {
        match &self.location {
            Some(at) => at.inode()?.set_attr(change, by),
            None => self.ops.set_attr(change, by),
        }
    }
    /// fstatfs(2).
    pub fn statfs(&self, by: &Caller<'_>) -> SysResult<FsStat> {
        if let Some(stat) = self.ops.statfs() {
            return Ok(stat);
        }
        match &self.location {
            Some(at) => at.mount.sb.fs.statfs(by),
            None => Ok(FsStat { magic: 0x0904_1934, bsize: 4096, namelen: 255, ..FsStat::default() }),
        }
    }

    fn wait<T>(
        &self,
        events: Events,
        by: &Caller<'_>,
        mut attempt: impl FnMut() -> SysResult<T>,
    ) -> CallResult<Option<T>> {
        let since = Instant::now();
        let entry = WaitEntry::new(by.blocker.target(), events);
        self.ops.register(&entry);
        let result = loop {
            match attempt() {
                Err(Errno::EAGAIN) => {}
                other => break other.map(Some).map_err(Failure::from),
            }
            match by.blocker.block(self.ops.io_deadline(events, since)) {
                Ok(()) => {}
                Err(BlockError::Interrupted) => break Err(Failure::Restart(Restart::Sys)),
                Err(BlockError::TimedOut) => break Ok(None),
            }
        };
        self.ops.unregister(&entry);
        result
    }

    fn read_once(&self, dst: &mut dyn GuestSink, offset: Option<u64>, by: &Caller<'_>) -> SysResult<usize> {
        match offset {
            Some(offset) => self.ops.read(&Io { file: self, offset, append: false }, dst, by),
            None if self.seekable => {
                let _busy = self.pos.lock();
                let pos = self.position();
                let n = self.ops.read(&Io { file: self, offset: pos, append: false }, dst, by)?;
                self.pos_now.store(pos.saturating_add(n as u64), Ordering::Relaxed);
                Ok(n)
            }
            None => self.ops.read(&Io { file: self, offset: 0, append: false }, dst, by),
        }
    }
    fn after_read(&self, n: usize, by: &Caller<'_>) {
        let Some(at) = &self.location else { return };
        self.accessed(at);
        if n > 0 {
            notify::event(&at.dentry, Mask::ACCESS, Some(by));
        }
    }
    /// Looked into, be it behind its end.
    fn accessed(&self, at: &Location) {
        let flags = at.mount.flags();
        let mut never = MountFlags::NOATIME | MountFlags::RDONLY;
        never.set(MountFlags::NODIRATIME, at.dentry.is_dir());
        if !self.flags().contains(OpenFlags::NOATIME)
            && !flags.intersects(never)
            && let Ok(inode) = at.inode()
        {
            inode.touch_atime(if flags.contains(MountFlags::RELATIME) {
                Atime::Relative
            } else {
                Atime::Strict
            });
        }
    }
    /// read(2), readv(2).
    pub fn read(&self, dst: &mut dyn GuestSink, by: &Caller<'_>) -> CallResult<usize> {
        self.read_with(dst, None, RwFlags::empty(), by)
    }
    /// pread64(2), preadv(2). `ESPIPE` for streams.
    pub fn read_at(&self, dst: &mut dyn GuestSink, offset: u64, by: &Caller<'_>) -> CallResult<usize> {
        self.read_with(dst, Some(offset), RwFlags::empty(), by)
    }
    /// A stream has no offsets, whatever it was opened for.
    fn check_offset(&self, offset: Option<u64>) -> SysResult<()> {
        match offset {
            Some(_) if !self.ops.has_offset() => Err(Errno::ESPIPE),
            Some(offset) if i64::try_from(offset).is_err() => Err(Errno::EINVAL),
            _ => Ok(()),
        }
    }
    /// preadv2(2); `offset` of `None` uses the position.
    pub fn read_with(
        &self,
        dst: &mut dyn GuestSink,
        offset: Option<u64>,
        how: RwFlags,
        by: &Caller<'_>,
    ) -> CallResult<usize> {
        let flags = self.flags();
        self.check_offset(offset)?;
        if !flags.readable() {
            return Err(Errno::EBADF.into());
        }
        let result = match self.read_once(dst, offset, by) {
            Err(Errno::EAGAIN) if !flags.contains(OpenFlags::NONBLOCK) && !how.contains(RwFlags::NOWAIT) => {
                match self.wait(Events::READABLE | Events::RDHUP, by, || self.read_once(dst, offset, by))? {
                    Some(n) => Ok(n),
                    None => self.ops.read_expired(&Io { file: self, offset: 0, append: false }, dst, by),
                }
            }
            other => other,
        };
        let n = result?;
        self.after_read(n, by);
        Ok(n)
    }

    fn size_limit(&self, src: &dyn GuestSource, offset: u64, by: &Caller<'_>) -> SysResult<usize> {
        let limit = by.task.file_size_limit();
        let wanted = src.remaining();
        if limit == u64::MAX || wanted == 0 {
            return Ok(wanted);
        }
        if offset >= limit {
            by.task.raise(Signal::SIGXFSZ);
            return Err(Errno::EFBIG);
        }
        Ok(wanted.min(usize::try_from(limit - offset).unwrap_or(usize::MAX)))
    }
    fn write_io(&self, src: &mut dyn GuestSource, io: &Io<'_>, by: &Caller<'_>) -> SysResult<(usize, u64)> {
        if !self.regular {
            return self.ops.write(io, src, by);
        }
        let start =
            if io.append && by.task.file_size_limit() != u64::MAX { self.attr(by)?.size } else { io.offset };
        let room = self.size_limit(src, start, by)?;
        self.drop_set_id(by)?;
        if room < src.remaining() {
            return self.ops.write(io, &mut Limited { inner: src, left: room }, by);
        }
        self.ops.write(io, src, by)
    }
    /// Writing takes set-id bits away from who may not set them.
    fn drop_set_id(&self, by: &Caller<'_>) -> SysResult<()> {
        if by.cred.has(crate::cred::Capabilities::FSETID) {
            return Ok(());
        }
        let attr = self.attr(by)?;
        let kept = crate::ops::without_set_id(&attr);
        if kept != attr.perm {
            self.set_attr(&AttrChange { perm: Some(kept), ..AttrChange::default() }, by)?;
        }
        Ok(())
    }
    fn write_once(
        &self,
        src: &mut dyn GuestSource,
        offset: Option<u64>,
        append: bool,
        by: &Caller<'_>,
    ) -> SysResult<usize> {
        match offset {
            Some(offset) => Ok(self.write_io(src, &Io { file: self, offset, append }, by)?.0),
            None if self.seekable => {
                let _busy = self.pos.lock();
                let (n, end) = self.write_io(src, &Io { file: self, offset: self.position(), append }, by)?;
                self.pos_now.store(end, Ordering::Relaxed);
                Ok(n)
            }
            None => Ok(self.write_io(src, &Io { file: self, offset: 0, append }, by)?.0),
        }
    }
    /// write(2), writev(2).
    pub fn write(&self, src: &mut dyn GuestSource, by: &Caller<'_>) -> CallResult<usize> {
        self.write_with(src, None, RwFlags::empty(), by)
    }
    /// pwrite64(2), pwritev(2). `ESPIPE` for streams.
    pub fn write_at(&self, src: &mut dyn GuestSource, offset: u64, by: &Caller<'_>) -> CallResult<usize> {
        self.write_with(src, Some(offset), RwFlags::empty(), by)
    }
    /// pwritev2(2); `offset` of `None` uses the position.
    pub fn write_with(
        &self,
        src: &mut dyn GuestSource,
        offset: Option<u64>,
        how: RwFlags,
        by: &Caller<'_>,
    ) -> CallResult<usize> {
        let flags = self.flags();
        self.check_offset(offset)?;
        if !flags.writable() {
            return Err(Errno::EBADF.into());
        }
        let append = how.contains(RwFlags::APPEND)
            || (flags.contains(OpenFlags::APPEND) && !how.contains(RwFlags::NOAPPEND));
        let may_wait = !flags.contains(OpenFlags::NONBLOCK) && !how.contains(RwFlags::NOWAIT);
        let mut done = 0usize;
        let result = loop {
            let step = match self.write_once(src, offset, append, by) {
                Err(Errno::EAGAIN) if may_wait => {
                    let waited = self.wait(Events::WRITABLE, by, || self.write_once(src, offset, append, by));
                    match waited {
                        Ok(Some(n)) => Ok(n),
                        Ok(None) => Err(Failure::Errno(Errno::EAGAIN)),
                        Err(failure) => Err(failure),
                    }
                }
                other => other.map_err(Failure::from),
            };
            match step {
                Ok(n) => {
                    done = done.saturating_add(n);
                    if n == 0 || !may_wait || src.remaining() == 0 || !self.ops.writes_whole() {
                        break Ok(done);
                    }
                }
                Err(_) if done > 0 => break Ok(done),
                Err(failure) => break Err(failure),
            }
        };
        if let (Ok(n), Some(at)) = (&result, &self.location)
            && *n > 0
        {
            if flags.intersects(OpenFlags::SYNC) || how.intersects(RwFlags::DSYNC | RwFlags::SYNC) {
                self.ops.sync(SyncScope::Data)?;
            }
            notify::event(&at.dentry, Mask::MODIFY, Some(by));
        }
        result
    }
    /// lseek(2).
    pub fn seek(&self, to: SeekFrom, by: &Caller<'_>) -> SysResult<u64> {
        if self.flags().contains(OpenFlags::PATH) {
            return Err(Errno::EBADF);
        }
        if self.ops.ignores_seeks() {
            return Ok(0);
        }
        if !self.seekable {
            return Err(Errno::ESPIPE);
        }
        let _busy = self.pos.lock();
        let new = self.ops.seek(self, self.position(), to, by)?;
        self.pos_now.store(new, Ordering::Relaxed);
        Ok(new)
    }
    /// getdents64(2): entries from the position on. `ENOTDIR` for files.
    pub fn read_dir(&self, sink: &mut dyn DirSink, by: &Caller<'_>) -> SysResult<()> {
        let Some(at) = &self.location else { return Err(Errno::ENOTDIR) };
        if !at.dentry.is_dir() {
            return Err(Errno::ENOTDIR);
        }
        if at.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        let _busy = self.pos.lock();
        let end = self.ops.read_dir(self, self.position(), sink, by)?;
        self.pos_now.store(end, Ordering::Relaxed);
        self.accessed(at);
        notify::event(&at.dentry, Mask::ACCESS, Some(by));
        Ok(())
    }
    /// ftruncate(2). `EINVAL` unless it is a regular file open for writing.
    pub fn truncate(&self, size: u64, by: &Caller<'_>) -> SysResult<()> {
        if !self.flags().writable() {
            return Err(if self.flags().contains(OpenFlags::PATH) { Errno::EBADF } else { Errno::EINVAL });
        }
        if self.no_truncate.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
        if self.protection().contains(InodeFlags::APPEND) {
            return Err(Errno::EPERM);
        }
        if size > by.task.file_size_limit() {
            by.task.raise(Signal::SIGXFSZ);
            return Err(Errno::EFBIG);
        }
        self.drop_set_id(by)?;
        self.set_attr(&AttrChange { size: Some(size), ..AttrChange::default() }, by)?;
        if let Some(at) = &self.location {
            notify::event(&at.dentry, Mask::MODIFY, Some(by));
        }
        Ok(())
    }
    /// fallocate(2).
    pub fn allocate(&self, mode: u32, offset: u64, len: u64, by: &Caller<'_>) -> SysResult<()> {
        if !self.flags().writable() {
            return Err(Errno::EBADF);
        }
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let end = offset.checked_add(len).filter(|end| i64::try_from(*end).is_ok()).ok_or(Errno::EFBIG)?;
        if mode & 1 == 0 && end > by.task.file_size_limit() {
            by.task.raise(Signal::SIGXFSZ);
            return Err(Errno::EFBIG);
        }
        let protection = self.protection();
        if protection.contains(InodeFlags::IMMUTABLE)
            || protection.contains(InodeFlags::APPEND) && mode & !1 != 0
        {
            return Err(Errno::EPERM);
        }
        self.ops.allocate(mode, offset, len, by)?;
        if let Some(at) = &self.location {
            notify::event(&at.dentry, Mask::MODIFY, Some(by));
        }
        Ok(())
    }
    /// For mmap(2).
    pub fn mappable(&self) -> SysResult<Arc<dyn Mappable>> {
        self.ops.mappable(self)
    }
    /// The state of its inode (locks, watches), made when there is none. Kept as long as the file is open.
    pub fn lock_state(&self, by: &Caller<'_>) -> SysResult<&Arc<InodeShared>> {
        if let Some(state) = self.state.get() {
            return Ok(state);
        }
        let state = match &self.location {
            Some(at) => inode_state::state_for(at.dentry.key(Some(by)).ok_or(Errno::EIO)?),
            None => inode_state::state_for((0, self.attr(by)?.ino)),
        };
        Ok(self.state.get_or_init(|| state))
    }
    /// One descriptor of it was closed by the owner of descriptor table `table`: its POSIX locks on the
    /// inode go (fcntl_locking(2)), and the file hears of it.
    pub fn descriptor_closed(&self, table: u64, by: &Caller<'_>) -> SysResult<()> {
        self.release_locks(table, Some(by));
        self.ops.flush(by)
    }
    /// The POSIX locks on the inode that descriptor table `table` owns go. Without a caller (at exit) inodes that nobody
    /// ever asked for their number have none.
    pub fn release_locks(&self, table: u64, by: Option<&Caller<'_>>) {
        if !locks::any_ranges() || self.flags().contains(OpenFlags::PATH) {
            return;
        }
        let state = match (self.state.get(), &self.location) {
            (Some(state), _) => Some(Arc::clone(state)),
            (None, Some(at)) => at.dentry.key(by).and_then(inode_state::existing),
            (None, None) => None,
        };
        if let Some(state) = state {
            state.locks.release(LockOwner::Posix(table));
        }
    }
}

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Toggle {
    /// On.
    On,
    /// Off.
    Off,
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let key = self.lock_key();
        if let Some(state) = self.state.get() {
            state.locks.unflock(key);
            state.leases.remove(key);
            state.locks.release(LockOwner::File(key));
        }
        if let Some((_, entry)) = self.async_entry.get_mut().take() {
            self.ops.unregister(&entry);
        }
        if let Some(state) = self.counted.get() {
            state.put_write();
        }
        self.ops.released();
        let Some(at) = &self.location else { return };
        if self.writer.load(Ordering::Relaxed) {
            at.mount.drop_writer();
        }
        let flags = self.flags();
        if !flags.contains(OpenFlags::PATH) {
            let mask = if flags.writable() { Mask::CLOSE_WRITE } else { Mask::CLOSE_NOWRITE };
            notify::event(&at.dentry, mask, None);
        }
    }
}

/// A source of which only `left` bytes may be taken.
struct Limited<'a> {
    inner: &'a mut dyn GuestSource,
    left: usize,
}

impl GuestSource for Limited<'_> {
    fn remaining(&self) -> usize {
        self.inner.remaining().min(self.left).min(MAX_RW_COUNT)
    }
    fn take(&mut self, buf: &mut [u8]) -> SysResult<usize> {
        let max = buf.len().min(self.left);
        let n = self.inner.take(buf.get_mut(..max).unwrap_or_default())?;
        self.left = self.left.saturating_sub(n);
        Ok(n)
    }
    fn peek(&mut self, buf: &mut [u8]) -> SysResult<usize> {
        let max = buf.len().min(self.left);
        self.inner.peek(buf.get_mut(..max).unwrap_or_default())
    }
    fn take_pages(
        &mut self,
        memory: &platform::memory::MemoryFile,
        offset: u64,
        len: usize,
    ) -> SysResult<usize> {
        let n = self.inner.take_pages(memory, offset, len.min(self.left))?;
        self.left = self.left.saturating_sub(n);
        Ok(n)
    }
    fn skip(&mut self, len: usize) {
        let n = len.min(self.left);
        self.inner.skip(n);
        self.left -= n;
    }
    fn drain_to_fd(
        &mut self,
        fd: std::os::fd::BorrowedFd<'_>,
        at: Option<u64>,
        max: usize,
    ) -> SysResult<usize> {
        let n = self.inner.drain_to_fd(fd, at, max.min(self.left))?;
        self.left = self.left.saturating_sub(n);
        Ok(n)
    }
}
