//! POSIX message queues and the file system they live on (mq_overview(7)).
//!
//! One [`MqFs`] per ipc namespace; a queue is an inode of it, and what mq_open(3) gives is an ordinary open file.
//! Ranks: `DirInode` for the names, `FileObject` for one queue.

use crate::process::Process;
use abi::fs::{FileType, ModeBits, OpenFlags};
use abi::poll::Events;
use abi::signal::Signal;
use abi::time::Timespec;
use abi::{Errno, SysResult};
use lock::order::{DirInode, FileObject, Leaf};
use lock::{Ranked, WaitEntry, WaitQueue};
use mm::GuestSink;
use std::any::Any;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use vfs::attr::{AttrChange, SetTime};
use vfs::file::{DirSink, Io, SeekFrom, seek_in};
use vfs::inode::{NewNode, Owner};
use vfs::{
    Attr, Caller, Capabilities, DentryHint, FileOps, FileSystem, FsStat, FsType, Inode, Kgid, Kuid,
    MountRequest, OpenFile,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: u64 = 0x1980_0202;
const ROOT_INO: u64 = 1;
/// Size that stat(2) shows (`FILENT_SIZE`).
const SHOWN_SIZE: u64 = 80;
/// fs.mqueue.msg_max, msgsize_max, queues_max and their defaults.
const MSG_MAX: i64 = 10;
const MSGSIZE_MAX: i64 = 8192;
const QUEUES_MAX: usize = 256;
/// With CAP_SYS_RESOURCE.
const HARD_MSG_MAX: i64 = 65_536;
const HARD_MSGSIZE_MAX: i64 = 16 << 20;
/// Bytes that each message costs beside its data.
const MESSAGE_COST: u64 = 48;
/// One more than the highest priority.
pub const MQ_PRIO_MAX: u32 = 32_768;

/// `struct mq_attr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MqAttr {
    /// `O_NONBLOCK`.
    pub flags: i64,
    /// Most messages.
    pub maxmsg: i64,
    /// Longest message.
    pub msgsize: i64,
    /// Messages now.
    pub curmsgs: i64,
    reserved: [i64; 4],
}

/// How the owner of a registration is told of a message on an empty queue.
#[derive(Clone)]
pub struct Registration {
    /// Who.
    pub owner: Weak<Process>,
    /// How.
    pub notice: Notice,
}

/// How a process is told of a message.
#[derive(Clone)]
pub enum Notice {
    /// SIGEV_NONE: not at all.
    Nothing,
    /// SIGEV_SIGNAL.
    Signal {
        /// It.
        signal: Signal,
        /// `si_value`.
        value: u64,
    },
    /// SIGEV_THREAD: a message on a netlink socket, to which a thread of the C library listens.
    Message {
        /// The socket.
        socket: Arc<OpenFile>,
        /// What is sent; its last byte says why.
        cookie: [u8; COOKIE],
    },
}

/// `NOTIFY_COOKIE_LEN`.
pub const COOKIE: usize = 32;

/// What the last byte of a cookie says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// `NOTIFY_WOKENUP`: a message has come.
    Woken,
    /// `NOTIFY_REMOVED`: the registration is gone.
    Removed,
}

impl Notice {
    /// Sends the cookie, when that is the way.
    pub fn send_cookie(&self, cause: Cause) {
        let Notice::Message { socket, cookie } = self else { return };
        let mut bytes = cookie.to_vec();
        if let Some(last) = bytes.last_mut() {
            *last = match cause {
                Cause::Woken => 1,
                Cause::Removed => 2,
            };
        }
        if let Ok(file) = net::socket::of(socket)
            && let Some(socket) = file.socket().as_any().downcast_ref::<net::netlink::NetlinkSocket>()
        {
            socket.deliver(bytes);
        }
    }
}

#[derive(Default)]
struct State {
    messages: BTreeMap<u32, VecDeque<Box<[u8]>>>,
    count: usize,
    bytes: usize,
    notify: Option<Registration>,
    times: [Timespec; 3],
    perm: ModeBits,
    uid: Kuid,
    gid: Kgid,
}

/// A message queue: an inode of the file system.
pub struct Queue {
    fs: Weak<MqFs>,
    ino: u64,
    /// Most messages.
    pub maxmsg: usize,
    /// Longest message.
    pub msgsize: usize,
    charged: (Kuid, u64),
    state: Ranked<FileObject, State>,
    events: WaitQueue,
    /// Receivers asleep: with one, no notification is sent.
    readers: AtomicUsize,
}

impl Queue {
    /// Adds a message. `EAGAIN` when full; gives the registration that is to be told.
    pub fn send(&self, prio: u32, message: &mut Option<Box<[u8]>>) -> SysResult<Option<Registration>> {
        let mut state = self.state.lock();
        if state.count >= self.maxmsg {
            return Err(Errno::EAGAIN);
        }
        let Some(message) = message.take() else { return Err(Errno::EINVAL) };
        let was_empty = state.count == 0;
        state.count += 1;
        state.bytes += message.len();
        state.messages.entry(prio).or_default().push_back(message);
        let now = vfs::realtime_now();
        state.times = [now; 3];
        let told =
            if was_empty && self.readers.load(Ordering::SeqCst) == 0 { state.notify.take() } else { None };
        drop(state);
        self.events.wake(Events::READABLE);
        Ok(told)
    }
    /// Takes the oldest message of the highest priority; `EAGAIN` when there is none.
    pub fn receive(&self) -> SysResult<(u32, Box<[u8]>)> {
        let mut state = self.state.lock();
        let Some(mut entry) = state.messages.last_entry() else { return Err(Errno::EAGAIN) };
        let prio = *entry.key();
        let message = entry.get_mut().pop_front();
        if entry.get().is_empty() {
            entry.remove();
        }
        let message = message.ok_or(Errno::EAGAIN)?;
        state.count = state.count.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(message.len());
        state.times = [vfs::realtime_now(); 3];
        drop(state);
        self.events.wake(Events::WRITABLE);
        Ok((prio, message))
    }
    /// One receiver more (`true`) or less sleeps.
    pub fn count_reader(&self, delta: isize) {
        if delta > 0 {
            self.readers.fetch_add(1, Ordering::SeqCst);
        } else {
            self.readers.fetch_sub(1, Ordering::SeqCst);
        }
    }
    /// mq_notify(3) with an event: `EBUSY` while another process is registered.
    pub fn register_notice(&self, new: Registration) -> SysResult<()> {
        let old = self.state.lock().notify.as_ref().map(|old| Weak::clone(&old.owner));
        let owner = old.as_ref().and_then(Weak::upgrade);
        if owner.is_some_and(|owner| owner.state.lock().live > 0) {
            return Err(Errno::EBUSY);
        }
        let mut state = self.state.lock();
        // Somebody else may have come between.
        let same = match (&state.notify, &old) {
            (Some(now), Some(old)) => Weak::ptr_eq(&now.owner, old),
            (now, _) => now.is_none(),
        };
        if !same {
            return Err(Errno::EBUSY);
        }
        state.notify = Some(new);
        Ok(())
    }
    /// mq_notify(3) with NULL, or a close by the owner.
    pub fn drop_notice(&self, owner: u32) {
        let gone = {
            let mut state = self.state.lock();
            let is_own =
                |old: &Registration| old.owner.upgrade().is_none_or(|process| process.pid.root() == owner);
            if state.notify.as_ref().is_some_and(is_own) { state.notify.take() } else { None }
        };
        if let Some(gone) = gone {
            gone.notice.send_cookie(Cause::Removed);
        }
    }
    /// mq_getattr(3) without the flags of the open file.
    #[must_use]
    pub fn limits(&self) -> MqAttr {
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        MqAttr {
            maxmsg: number(self.maxmsg),
            msgsize: number(self.msgsize),
            curmsgs: number(self.state.lock().count),
            ..MqAttr::default()
        }
    }
    fn status(&self) -> String {
        let state = self.state.lock();
        let notify = state.notify.clone();
        let bytes = state.bytes;
        drop(state);
        let owner = notify.as_ref().and_then(|notify| notify.owner.upgrade());
        let (how, signal) = match notify.map(|notify| notify.notice) {
            None => (0, 0),
            Some(Notice::Signal { signal, .. }) => (0, signal.number()),
            Some(Notice::Nothing) => (1, 0),
            Some(Notice::Message { .. }) => (2, 0),
        };
        let seen = crate::task::current().and_then(|task| task.process.pid.ns().cloned());
        let pid = match (owner, seen) {
            (Some(owner), Some(ns)) => owner.pid.seen_in(&ns),
            _ => 0,
        };
        format!("QSIZE:{bytes:<10} NOTIFY:{how:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n")
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let (uid, bytes) = self.charged;
        let Some(fs) = self.fs.upgrade() else { return };
        let mut used = fs.used.lock();
        if let Some(sum) = used.get_mut(&uid) {
            *sum = sum.saturating_sub(bytes);
        }
    }
}

impl vfs::Waitable for Queue {
    fn ready(&self, interest: Events) -> Events {
        let state = self.state.lock();
        let mut events = Events::empty();
        events.set(Events::READABLE, state.count > 0);
        events.set(Events::WRITABLE, state.count < self.maxmsg);
        events & interest
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.events.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.events.unregister(entry);
    }
}

/// The queues of one ipc namespace.
pub struct MqFs {
    dev: u64,
    me: Weak<MqFs>,
    entries: Ranked<DirInode, BTreeMap<Vec<u8>, Arc<Queue>>>,
    /// What the mq_open(3) that a thread is in asks for.
    wanted: Ranked<Leaf, HashMap<u32, (MqAttr, u64)>>,
    used: Ranked<Leaf, HashMap<Kuid, u64>>,
    next_ino: AtomicU64,
}

impl MqFs {
    /// Without queues.
    #[must_use]
    pub fn new() -> Arc<MqFs> {
        Arc::new_cyclic(|me| MqFs {
            dev: vfs::vfs::anon_dev(),
            me: Weak::clone(me),
            entries: Ranked::default(),
            wanted: Ranked::default(),
            used: Ranked::default(),
            next_ino: AtomicU64::new(ROOT_INO + 1),
        })
    }
    /// The attributes and RLIMIT_MSGQUEUE that the next queue made by thread `tid` gets.
    pub fn want(&self, tid: u32, attr: Option<MqAttr>, limit: u64) {
        let attr = attr.unwrap_or(MqAttr { maxmsg: MSG_MAX, msgsize: MSGSIZE_MAX, ..MqAttr::default() });
        self.wanted.lock().insert(tid, (attr, limit));
    }
    /// Ends `want`.
    pub fn unwant(&self, tid: u32) {
        self.wanted.lock().remove(&tid);
    }
    fn make(&self, perm: ModeBits, owner: Owner, by: &Caller<'_>) -> SysResult<Arc<Queue>> {
        let default = (MqAttr { maxmsg: MSG_MAX, msgsize: MSGSIZE_MAX, ..MqAttr::default() }, u64::MAX);
        let (attr, limit) = self.wanted.lock().get(&by.task.tid()).copied().unwrap_or(default);
        let capable = by.cred.has(Capabilities::SYS_RESOURCE);
        let (most, longest) = if capable { (HARD_MSG_MAX, HARD_MSGSIZE_MAX) } else { (MSG_MAX, MSGSIZE_MAX) };
        if attr.maxmsg <= 0 || attr.msgsize <= 0 || attr.maxmsg > most || attr.msgsize > longest {
            return Err(Errno::EINVAL);
        }
        let maxmsg = usize::try_from(attr.maxmsg).map_err(|_| Errno::EINVAL)?;
        let msgsize = usize::try_from(attr.msgsize).map_err(|_| Errno::EINVAL)?;
        let count = u64::try_from(maxmsg).map_err(|_| Errno::EOVERFLOW)?;
        let size = u64::try_from(msgsize).map_err(|_| Errno::EOVERFLOW)?;
        let tree = count.min(u64::from(MQ_PRIO_MAX)).saturating_mul(MESSAGE_COST);
        let bytes = count
            .checked_mul(size + MESSAGE_COST)
            .and_then(|n| n.checked_add(tree))
            .ok_or(Errno::EOVERFLOW)?;
        let uid = by.cred.uid;
        {
            let mut used = self.used.lock();
            let sum = used.entry(uid).or_default();
            let next = sum.saturating_add(bytes);
            if next > limit {
                return Err(Errno::EMFILE);
            }
            *sum = next;
        }
        let state = State {
            times: [vfs::realtime_now(); 3],
            perm,
            uid: owner.uid,
            gid: owner.gid,
            ..State::default()
        };
        Ok(Arc::new(Queue {
            fs: Weak::clone(&self.me),
            ino: self.next_ino.fetch_add(1, Ordering::Relaxed),
            maxmsg,
            msgsize,
            charged: (uid, bytes),
            state: Ranked::new(state),
            events: WaitQueue::new(),
            readers: AtomicUsize::new(0),
        }))
    }
}

impl std::fmt::Debug for MqFs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MqFs({})", self.dev)
    }
}

impl FileSystem for MqFs {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        "mqueue"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn root(&self) -> Arc<dyn Inode> {
        match self.me.upgrade() {
            Some(fs) => Arc::new(Root(fs)),
            None => vfs::anon::no_directory(),
        }
    }
    fn statfs(&self, _by: &Caller<'_>) -> SysResult<FsStat> {
        Ok(FsStat { magic: MAGIC, bsize: 4096, namelen: 255, ..FsStat::default() })
    }
    fn dentry_hint(&self) -> DentryHint {
        DentryHint::Never
    }
}

struct Root(Arc<MqFs>);

impl Inode for Root {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.0) as Arc<dyn FileSystem>
    }
    fn kind(&self) -> FileType {
        FileType::Directory
    }
    fn ino(&self) -> Option<u64> {
        Some(ROOT_INO)
    }
    fn attr(&self, _by: &Caller<'_>) -> SysResult<Attr> {
        let now = vfs::realtime_now();
        let count = u64::try_from(self.0.entries.lock().len()).unwrap_or(0);
        Ok(Attr {
            kind: FileType::Directory,
            perm: 0o1777,
            ino: ROOT_INO,
            nlink: 2,
            uid: Kuid(0),
            gid: Kgid(0),
            rdev: 0,
            size: (count + 2) * 20,
            blocks: 0,
            blksize: 4096,
            atime: now,
            mtime: now,
            ctime: now,
            btime: None,
        })
    }
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        let found = self.0.entries.lock().get(name).cloned();
        Ok(found.ok_or(Errno::ENOENT)? as Arc<dyn Inode>)
    }
    fn create(
        &self,
        name: &[u8],
        what: &NewNode,
        perm: ModeBits,
        owner: Owner,
        by: &Caller<'_>,
    ) -> SysResult<Arc<dyn Inode>> {
        if !matches!(what, NewNode::Regular) {
            return Err(Errno::EPERM);
        }
        let full = self.0.entries.lock().len() >= QUEUES_MAX;
        if full && !by.cred.has(Capabilities::SYS_RESOURCE) {
            return Err(Errno::ENOSPC);
        }
        let queue = self.0.make(perm, owner, by)?;
        self.0.entries.lock().insert(name.to_vec(), Arc::clone(&queue));
        Ok(queue)
    }
    fn unlink(&self, name: &[u8], _child: &Arc<dyn Inode>, _by: &Caller<'_>) -> SysResult<()> {
        let gone = self.0.entries.lock().remove(name);
        gone.map(drop).ok_or(Errno::ENOENT)
    }
    fn open(self: Arc<Self>, _flags: OpenFlags, _by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        Ok(Arc::new(RootFile(Arc::clone(&self.0))))
    }
}

struct RootFile(Arc<MqFs>);

impl FileOps for RootFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn read(&self, _io: &Io<'_>, _dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        Err(Errno::EISDIR)
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        seek_in(current, to, 0)
    }
    fn read_dir(
        &self,
        _file: &OpenFile,
        cookie: u64,
        sink: &mut dyn DirSink,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        let mut entries: Vec<(u64, Vec<u8>, FileType)> =
            self.0.entries.lock().iter().map(|(name, q)| (q.ino, name.clone(), FileType::Regular)).collect();
        entries.sort_by_key(|entry| entry.0);
        let dots = [b".".to_vec(), b"..".to_vec()].map(|name| (ROOT_INO, name, FileType::Directory));
        let mut at = cookie;
        let named = entries.into_iter().map(|entry| (entry.0 + 1, entry));
        for (place, (ino, name, kind)) in (1_u64..).zip(dots).chain(named) {
            if place > cookie {
                if !sink.entry(&name, ino, kind, place) {
                    break;
                }
                at = place;
            }
        }
        Ok(at)
    }
}

impl Inode for Queue {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        // An open queue holds its mount, and that the file system.
        self.fs.upgrade().unwrap_or_else(MqFs::new)
    }
    fn kind(&self) -> FileType {
        FileType::Regular
    }
    fn ino(&self) -> Option<u64> {
        Some(self.ino)
    }
    fn attr(&self, _by: &Caller<'_>) -> SysResult<Attr> {
        let state = self.state.lock();
        let [atime, mtime, ctime] = state.times;
        Ok(Attr {
            kind: FileType::Regular,
            perm: state.perm,
            ino: self.ino,
            nlink: 1,
            uid: state.uid,
            gid: state.gid,
            rdev: 0,
            size: SHOWN_SIZE,
            blocks: 0,
            blksize: 4096,
            atime,
            mtime,
            ctime,
            btime: None,
        })
    }
    fn set_attr(&self, change: &AttrChange, _by: &Caller<'_>) -> SysResult<()> {
        let now = vfs::realtime_now();
        let time = |time: SetTime| match time {
            SetTime::Now => now,
            SetTime::To(time) => time,
        };
        let mut state = self.state.lock();
        state.perm = change.perm.unwrap_or(state.perm);
        state.uid = change.uid.unwrap_or(state.uid);
        state.gid = change.gid.unwrap_or(state.gid);
        let [atime, mtime, _] = state.times;
        state.times = [change.atime.map_or(atime, time), change.mtime.map_or(mtime, time), now];
        Ok(())
    }
    fn open(self: Arc<Self>, _flags: OpenFlags, _by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        Ok(Arc::new(MqFile(self)))
    }
}

/// An open message queue.
pub struct MqFile(pub Arc<Queue>);

impl FileOps for MqFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        seek_in(current, to, SHOWN_SIZE)
    }
    fn read(&self, io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        let text = self.0.status();
        let start = usize::try_from(io.offset).unwrap_or(usize::MAX);
        dst.put(text.as_bytes().get(start..).unwrap_or_default())
    }
    fn ready(&self, interest: Events) -> Events {
        vfs::Waitable::ready(&*self.0, interest)
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.0.events.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.0.events.unregister(entry);
    }
    fn flush(&self, by: &Caller<'_>) -> SysResult<()> {
        let own = self.0.state.lock().notify.is_some();
        if own {
            self.0.drop_notice(by.task.tgid());
        }
        Ok(())
    }
}

/// The type `mqueue` of mount(2): the queues of the caller's ipc namespace.
pub struct MqueueType {
    first: Arc<super::IpcNs>,
}

impl MqueueType {
    /// `first` is the namespace of callers that are no task.
    #[must_use]
    pub fn new(first: &Arc<super::IpcNs>) -> Arc<MqueueType> {
        Arc::new(MqueueType { first: Arc::clone(first) })
    }
}

impl FsType for MqueueType {
    fn name(&self) -> &'static str {
        "mqueue"
    }
    fn in_user_namespace(&self) -> bool {
        true
    }
    fn mount(&self, _request: &MountRequest<'_>) -> SysResult<Arc<dyn FileSystem>> {
        let task = crate::task::current();
        let ns =
            task.map_or_else(|| Arc::clone(&self.first), |task| Arc::clone(&task.published.lock().ns.ipc));
        Ok(Arc::clone(&ns.mqueues) as Arc<dyn FileSystem>)
    }
}
