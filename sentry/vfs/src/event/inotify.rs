//! inotify(7): the watch side. Inodes (or their dentries) keep a [`WatchList`]; the vfs tells it what
//! happens. Ranks: the list and the queue of events are `Leaf`s, the instance's table is `FileObject`.

use super::anon;
use crate::attr::{Attr, FsStat};
use crate::caller::Caller;
use crate::file::{FileOps, GuestMemory, Io, OpenFile};
use crate::sigio::{self, OwnerCell, Reason, Sigio};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::{Errno, SysResult, UserAddr, ioctl};
use lock::order::{FileObject, Leaf};
use lock::{Ranked, WaitEntry, WaitQueue};
use mm::GuestSink;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

bitflags::bitflags! {
    /// `IN_*` events and flags.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct InotifyMask: u32 {
        /// Read.
        const ACCESS = 0x1;
        /// Written or truncated.
        const MODIFY = 0x2;
        /// Metadata changed.
        const ATTRIB = 0x4;
        /// Closed after writing.
        const CLOSE_WRITE = 0x8;
        /// Closed otherwise.
        const CLOSE_NOWRITE = 0x10;
        /// Opened.
        const OPEN = 0x20;
        /// Renamed away.
        const MOVED_FROM = 0x40;
        /// Renamed to here.
        const MOVED_TO = 0x80;
        /// Created in the directory.
        const CREATE = 0x100;
        /// Deleted from the directory.
        const DELETE = 0x200;
        /// The watched object was deleted.
        const DELETE_SELF = 0x400;
        /// The watched object was renamed.
        const MOVE_SELF = 0x800;
        /// The file system was unmounted.
        const UNMOUNT = 0x2000;
        /// Events were lost.
        const Q_OVERFLOW = 0x4000;
        /// The watch is gone.
        const IGNORED = 0x8000;
        /// Only directories.
        const ONLYDIR = 0x0100_0000;
        /// Do not follow a final link.
        const DONT_FOLLOW = 0x0200_0000;
        /// No events of children after they were unlinked.
        const EXCL_UNLINK = 0x0400_0000;
        /// Fail if the watch exists.
        const MASK_CREATE = 0x1000_0000;
        /// Add to an existing mask.
        const MASK_ADD = 0x2000_0000;
        /// The event is about a directory.
        const ISDIR = 0x4000_0000;
        /// Once.
        const ONESHOT = 0x8000_0000;
    }
}

impl InotifyMask {
    /// `IN_ALL_EVENTS`.
    pub const ALL_EVENTS: InotifyMask = InotifyMask::from_bits_retain(0xfff);
}

/// `/proc/sys/fs/inotify/max_queued_events`.
pub const MAX_QUEUED: usize = 16384;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: InotifyMask,
    cookie: u32,
    name: Vec<u8>,
}

impl Event {
    fn size(&self) -> usize {
        16 + self.padded()
    }
    fn padded(&self) -> usize {
        if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(16) }
    }
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        bytes.extend_from_slice(&self.wd.to_ne_bytes());
        bytes.extend_from_slice(&self.mask.bits().to_ne_bytes());
        bytes.extend_from_slice(&self.cookie.to_ne_bytes());
        bytes.extend_from_slice(&u32::try_from(self.padded()).unwrap_or(0).to_ne_bytes());
        bytes.extend_from_slice(&self.name);
        bytes.resize(self.size(), 0);
        bytes
    }
}

/// One watch: an inode seen by one instance.
#[derive(Debug)]
pub struct Watch {
    wd: i32,
    mask: AtomicU32,
    instance: Weak<Inotify>,
    /// Device and inode, for fdinfo.
    id: (u64, u64),
    list: Weak<WatchList>,
}

/// The watches on one inode. Kept by whatever represents the inode in memory.
#[derive(Debug, Default)]
pub struct WatchList {
    watches: Ranked<Leaf, Vec<Arc<Watch>>>,
    /// F_NOTIFY of open files on this directory.
    dir: Ranked<Leaf, Vec<DirWatch>>,
    count: AtomicUsize,
}

bitflags::bitflags! {
    /// `DN_*` of fcntl(2) F_NOTIFY.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct DirEvents: u32 {
        /// An entry was read.
        const ACCESS = 1;
        /// An entry was written or truncated.
        const MODIFY = 2;
        /// An entry was made.
        const CREATE = 4;
        /// An entry was removed.
        const DELETE = 8;
        /// An entry was renamed.
        const RENAME = 0x10;
        /// An entry's attributes changed.
        const ATTRIB = 0x20;
        /// Not only once.
        const MULTISHOT = 0x8000_0000;
    }
}

#[derive(Debug)]
struct DirWatch {
    file: Weak<OpenFile>,
    owner: Arc<OwnerCell>,
    fd: i32,
    events: DirEvents,
}

impl DirWatch {
    fn is_of(&self, file: &Arc<OpenFile>) -> bool {
        std::ptr::eq(self.file.as_ptr(), Arc::as_ptr(file))
    }
}

fn dir_events(event: InotifyMask) -> DirEvents {
    let mut out = DirEvents::empty();
    for (theirs, ours) in [
        (InotifyMask::ACCESS, DirEvents::ACCESS),
        (InotifyMask::MODIFY, DirEvents::MODIFY),
        (InotifyMask::CREATE.union(InotifyMask::MOVED_TO), DirEvents::CREATE),
        (InotifyMask::DELETE.union(InotifyMask::MOVED_FROM), DirEvents::DELETE),
        (InotifyMask::ATTRIB, DirEvents::ATTRIB),
    ] {
        out.set(ours, event.intersects(theirs));
    }
    out
}

/// Whether an open file still is what its name says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Name {
    /// It is.
    There,
    /// It was unlinked: watches with IN_EXCL_UNLINK hear nothing more.
    Unlinked,
}

static COOKIE: AtomicU32 = AtomicU32::new(1);

/// A fresh cookie that ties MOVED_FROM to MOVED_TO.
#[must_use]
pub fn next_cookie() -> u32 {
    COOKIE.fetch_add(1, Ordering::Relaxed).max(1)
}

impl WatchList {
    fn recount(&self, watches: usize) {
        let dir = self.dir.lock().len();
        self.count.store(watches + dir, Ordering::Release);
    }
    /// fcntl(2) F_NOTIFY by descriptor `fd` of `file`; no events end it.
    pub fn watch_dir(&self, file: &Arc<OpenFile>, fd: i32, events: DirEvents) {
        {
            let mut dir = self.dir.lock();
            dir.retain(|w| w.file.strong_count() > 0 && !(events.is_empty() && w.is_of(file)));
            match dir.iter_mut().find(|w| w.is_of(file)) {
                Some(watch) => watch.events |= events,
                None if events.is_empty() => {}
                None => {
                    let owner = file.owner_cell();
                    dir.push(DirWatch { file: Arc::downgrade(file), owner, fd, events });
                }
            }
        }
        let watches = self.watches.lock().len();
        self.recount(watches);
    }
    /// F_NOTIFY: something happened in the directory, or to it.
    pub(crate) fn tell_dir(&self, happened: DirEvents) {
        let mut told = Vec::new();
        {
            let mut dir = self.dir.lock();
            if dir.is_empty() {
                return;
            }
            dir.retain(|watch| {
                let open = watch.file.strong_count() > 0;
                let hit = open && watch.events.intersects(happened);
                if hit {
                    told.push((Arc::clone(&watch.owner), watch.fd));
                }
                open && (!hit || watch.events.contains(DirEvents::MULTISHOT))
            });
        }
        let watches = self.watches.lock().len();
        self.recount(watches);
        for (owner, fd) in told {
            let owner = *owner.lock();
            sigio::post(Sigio { owner, fd, reason: Reason::Message });
        }
    }
    /// Whether nobody watches: one load, for the hot paths.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// `event` (with ISDIR where the object is a directory) happened to the inode, or to its entry `name`.
    pub fn notify(&self, event: InotifyMask, cookie: u32, name: &[u8]) {
        self.tell(event, cookie, name, Name::There);
    }
    /// `event` happened to what is or was the entry `name`.
    pub(crate) fn notify_entry(&self, event: InotifyMask, name: &[u8], state: Name) {
        self.tell(event, 0, name, state);
    }
    fn tell(&self, event: InotifyMask, cookie: u32, name: &[u8], state: Name) {
        if self.is_empty() {
            return;
        }
        self.tell_dir(dir_events(event));
        let watches: Vec<Arc<Watch>> = self.watches.lock().clone();
        for watch in watches {
            let mask = InotifyMask::from_bits_retain(watch.mask.load(Ordering::Acquire));
            let hidden = state == Name::Unlinked && mask.contains(InotifyMask::EXCL_UNLINK);
            if hidden || !(mask & InotifyMask::ALL_EVENTS).intersects(event) {
                continue;
            }
            let Some(instance) = watch.instance.upgrade() else { continue };
            instance.post(Event { wd: watch.wd, mask: event, cookie, name: name.to_vec() });
            if mask.contains(InotifyMask::ONESHOT) {
                let _ = instance.remove(watch.wd);
            }
        }
    }

    /// The inode is gone (`deleted`: DELETE_SELF first) or its file system unmounted: watches end.
    pub fn end(&self, last: InotifyMask) {
        self.notify(last, 0, &[]);
        let watches = std::mem::take(&mut *self.watches.lock());
        self.recount(0);
        for watch in watches {
            if let Some(instance) = watch.instance.upgrade() {
                if last.contains(InotifyMask::UNMOUNT) {
                    instance.post(Event { wd: watch.wd, mask: last, cookie: 0, name: Vec::new() });
                }
                let _ = instance.remove(watch.wd);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    watches: BTreeMap<i32, Arc<Watch>>,
    last_wd: i32,
}

/// An inotify instance.
#[derive(Debug)]
pub struct Inotify {
    me: Weak<Inotify>,
    table: Ranked<FileObject, Table>,
    events: Ranked<Leaf, VecDeque<Event>>,
    queue: WaitQueue,
}

/// inotify_init1(2). `flags` may hold NONBLOCK.
#[must_use]
pub fn create(flags: OpenFlags) -> Arc<OpenFile> {
    let ops = Arc::new_cyclic(|me| Inotify {
        me: Weak::clone(me),
        table: Ranked::default(),
        events: Ranked::default(),
        queue: WaitQueue::new(),
    });
    OpenFile::anonymous(ops, flags & OpenFlags::NONBLOCK)
}

impl Inotify {
    /// inotify_add_watch(2) on the inode that keeps `list`; `id` is its device and inode number.
    pub fn add(&self, list: &Arc<WatchList>, id: (u64, u64), mask: InotifyMask) -> SysResult<i32> {
        let kept = mask & (InotifyMask::ALL_EVENTS | InotifyMask::ONESHOT | InotifyMask::EXCL_UNLINK);
        if (mask & InotifyMask::ALL_EVENTS).is_empty()
            || mask.contains(InotifyMask::MASK_ADD | InotifyMask::MASK_CREATE)
        {
            return Err(Errno::EINVAL);
        }
        let mut table = self.table.lock();
        let mut watches = list.watches.lock();
        if let Some(old) = watches.iter().find(|w| std::ptr::eq(w.instance.as_ptr(), self)) {
            if mask.contains(InotifyMask::MASK_CREATE) {
                return Err(Errno::EEXIST);
            }
            if mask.contains(InotifyMask::MASK_ADD) {
                old.mask.fetch_or(kept.bits(), Ordering::AcqRel);
            } else {
                old.mask.store(kept.bits(), Ordering::Release);
            }
            return Ok(old.wd);
        }
        let wd = table.last_wd.checked_add(1).ok_or(Errno::ENOSPC)?;
        table.last_wd = wd;
        let watch = Arc::new(Watch {
            wd,
            mask: AtomicU32::new(kept.bits()),
            instance: Weak::clone(&self.me),
            id,
            list: Arc::downgrade(list),
        });
        watches.push(Arc::clone(&watch));
        let count = watches.len();
        drop(watches);
        list.recount(count);
        table.watches.insert(wd, watch);
        Ok(wd)
    }

    /// inotify_rm_watch(2); also the end of a watch for other reasons. Posts IN_IGNORED.
    pub fn remove(&self, wd: i32) -> SysResult<()> {
        let watch = self.table.lock().watches.remove(&wd).ok_or(Errno::EINVAL)?;
        forget(&watch);
        self.post(Event { wd, mask: InotifyMask::IGNORED, cookie: 0, name: Vec::new() });
        Ok(())
    }

    fn post(&self, event: Event) {
        let mut events = self.events.lock();
        if events.back() == Some(&event) {
            return;
        }
        match events.len().cmp(&MAX_QUEUED) {
            std::cmp::Ordering::Less => events.push_back(event),
            std::cmp::Ordering::Equal => {
                events.push_back(Event { wd: -1, mask: InotifyMask::Q_OVERFLOW, cookie: 0, name: Vec::new() })
            }
            std::cmp::Ordering::Greater => return,
        }
        drop(events);
        self.queue.wake(Events::READABLE);
    }
}

fn forget(watch: &Arc<Watch>) {
    if let Some(list) = watch.list.upgrade() {
        let mut watches = list.watches.lock();
        watches.retain(|w| !Arc::ptr_eq(w, watch));
        let count = watches.len();
        drop(watches);
        list.recount(count);
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        for watch in std::mem::take(&mut self.table.get_mut().watches).into_values() {
            forget(&watch);
        }
    }
}

impl FileOps for Inotify {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        let mut taken = Vec::new();
        let mut size = 0;
        {
            let mut events = self.events.lock();
            if events.is_empty() {
                return Err(Errno::EAGAIN);
            }
            while let Some(event) = events.front() {
                if size + event.size() > dst.remaining() {
                    break;
                }
                size += event.size();
                taken.extend(events.pop_front());
            }
        }
        if taken.is_empty() {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        for event in taken {
            match dst.put(&event.encode()) {
                Ok(n) => done += n,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    fn ready(&self, interest: Events) -> Events {
        if self.events.lock().is_empty() { Events::empty() } else { interest & Events::READABLE }
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.queue.unregister(entry);
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn GuestMemory,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        if request != ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let size: usize = self.events.lock().iter().map(Event::size).sum();
        memory.write(UserAddr::new(arg), &i32::try_from(size).unwrap_or(i32::MAX).to_ne_bytes())?;
        Ok(0)
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(Ok(anon::shared_attr()))
    }
    fn statfs(&self) -> Option<FsStat> {
        Some(anon::shared_statfs())
    }
    fn fdinfo(&self, out: &mut Vec<u8>) {
        for watch in self.table.lock().watches.values() {
            let line = format!(
                "inotify wd:{:x} ino:{:x} sdev:{:x} mask:{:x} ignored_mask:0 fhandle-bytes:0 fhandle-type:0 f_handle:\n",
                watch.wd,
                watch.id.1,
                watch.id.0,
                watch.mask.load(Ordering::Relaxed)
            );
            out.extend_from_slice(line.as_bytes());
        }
    }
    fn ignores_seeks(&self) -> bool {
        true
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(b"anon_inode:inotify".to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCaller;
    use mm::io::VecSink;

    #[test]
    fn events_merge_and_watches_end() {
        let by = TestCaller::default();
        let file = create(OpenFlags::empty());
        let instance = file.downcast::<Inotify>().unwrap();
        let dir = Arc::new(WatchList::default());
        let wd = instance.add(&dir, (1, 2), InotifyMask::ALL_EVENTS).unwrap();
        assert_eq!(wd, 1);
        assert_eq!(instance.add(&dir, (1, 2), InotifyMask::CREATE | InotifyMask::MODIFY), Ok(1));
        dir.notify(InotifyMask::CREATE, 0, b"file");
        dir.notify(InotifyMask::MODIFY, 0, b"file");
        dir.notify(InotifyMask::MODIFY, 0, b"file");
        dir.notify(InotifyMask::OPEN, 0, b"file");
        let io = Io { file: &file, offset: 0, append: false };
        assert_eq!(file.ops().read(&io, &mut VecSink::new(16), &by.by()), Err(Errno::EINVAL));
        let mut sink = VecSink::new(4096);
        assert_eq!(file.ops().read(&io, &mut sink, &by.by()), Ok(64));
        assert_eq!(&sink.bytes[12..20], b"\x10\0\0\0file");
        dir.end(InotifyMask::DELETE_SELF);
        let mut sink = VecSink::new(4096);
        assert_eq!(file.ops().read(&io, &mut sink, &by.by()), Ok(16));
        assert_eq!(sink.bytes[4..8], 0x8000u32.to_ne_bytes());
        assert!(dir.is_empty());
        assert_eq!(instance.remove(wd), Err(Errno::EINVAL));
    }
}
