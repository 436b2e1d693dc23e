//! System V IPC (sysvipc(7)): namespaces, ids, permissions; POSIX message queues (`mqueue`).
//!
//! The tables and the objects have rank `FileObject` and are never locked together: an object is taken
//! out of its table first.

pub mod mqueue;
pub mod msg;
pub mod sem;
pub mod shm;

use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::FileObject;
use mqueue::MqFs;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use vfs::{Capabilities, Credentials, Kgid, Kuid, Mount, MountFlags, UserNamespace};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// IPC_CREAT.
pub const CREAT: u32 = 0o1000;
/// IPC_EXCL.
pub const EXCL: u32 = 0o2000;
/// IPC_NOWAIT.
pub const NOWAIT: u32 = 0o4000;
/// IPC_PRIVATE.
pub const PRIVATE: i32 = 0;
/// Objects of one kind at most.
const MOST: usize = 32_000;

/// `struct ipc64_perm`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of sysvipc(7)")]
pub struct PermStat {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
    pub pad: [u16; 3],
    pub unused: [u64; 2],
}

/// Owner and mode of an object.
#[derive(Clone, Copy, Debug)]
pub struct Perm {
    /// Key it was made with.
    pub key: i32,
    /// Owner.
    pub uid: Kuid,
    /// Group.
    pub gid: Kgid,
    creator: Kuid,
    creator_group: Kgid,
    /// Permission bits.
    pub mode: u32,
}

impl Perm {
    fn new(key: i32, mode: u32, cred: &Credentials) -> Perm {
        let mode = mode & 0o777;
        Perm { key, uid: cred.euid, gid: cred.egid, creator: cred.euid, creator_group: cred.egid, mode }
    }
    /// `EACCES` unless `want` (4 read, 2 write) is allowed.
    pub fn check(&self, want: u32, cred: &Credentials, ns: &IpcNs) -> SysResult<()> {
        let owner = cred.euid == self.uid || cred.euid == self.creator;
        let in_group = |gid: Kgid| cred.egid == gid || cred.groups.binary_search(&gid).is_ok();
        let group = in_group(self.gid) || in_group(self.creator_group);
        let granted = if owner {
            self.mode >> 6
        } else if group {
            self.mode >> 3
        } else {
            self.mode
        };
        let missing = want & !granted & 7;
        if missing == 0 || cred.has_in(Capabilities::IPC_OWNER, &ns.user) {
            Ok(())
        } else {
            Err(Errno::EACCES)
        }
    }
    /// `EPERM` unless the caller owns it (IPC_SET, IPC_RMID).
    pub fn check_owner(&self, cred: &Credentials, ns: &IpcNs) -> SysResult<()> {
        let owner = cred.euid == self.uid || cred.euid == self.creator;
        if owner || cred.has_in(Capabilities::SYS_ADMIN, &ns.user) { Ok(()) } else { Err(Errno::EPERM) }
    }
    /// IPC_SET.
    pub fn set(&mut self, new: &PermStat, cred: &Credentials) -> SysResult<()> {
        self.uid = cred.user_ns.kuid(new.uid)?;
        self.gid = cred.user_ns.kgid(new.gid)?;
        self.mode = new.mode & 0o777;
        Ok(())
    }
    /// As a guest sees it.
    #[must_use]
    pub fn stat(&self, id: i32, extra_mode: u32, cred: &Credentials) -> PermStat {
        let ns = &cred.user_ns;
        PermStat {
            key: self.key,
            uid: ns.show_uid(self.uid),
            gid: ns.show_gid(self.gid),
            cuid: ns.show_uid(self.creator),
            cgid: ns.show_gid(self.creator_group),
            mode: self.mode | extra_mode,
            seq: u16::try_from((id >> 15) & 0xffff).unwrap_or(0),
            ..PermStat::default()
        }
    }
}

/// Objects of one kind.
#[derive(Debug)]
pub struct Table<T> {
    by_id: BTreeMap<i32, Arc<T>>,
    keys: BTreeMap<i32, i32>,
    next: i32,
    /// Objects at most, by /proc/sys.
    pub most: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { by_id: BTreeMap::new(), keys: BTreeMap::new(), next: 0, most: MOST }
    }
}

impl<T> Table<T> {
    /// The object with this id; `EINVAL`.
    pub fn find(&self, id: i32) -> SysResult<Arc<T>> {
        self.by_id.get(&id).cloned().ok_or(Errno::EINVAL)
    }
    /// The id of a key.
    #[must_use]
    pub fn by_key(&self, key: i32) -> Option<i32> {
        self.keys.get(&key).copied()
    }
    /// Adds an object; `ENOSPC`.
    /// `wanted` asks for an id, once; -1 is any.
    pub fn add(&mut self, key: i32, wanted: &AtomicI32, make: impl FnOnce(i32) -> Arc<T>) -> SysResult<i32> {
        if self.by_id.len() >= self.most.min(MOST) {
            return Err(Errno::ENOSPC);
        }
        let asked = wanted.swap(-1, Ordering::Relaxed);
        if asked >= 0 {
            self.next = asked;
        }
        while self.by_id.contains_key(&self.next) {
            self.next = (self.next + 1) & 0x7fff_ffff;
        }
        let id = self.next;
        self.next = (self.next + 1) & 0x7fff_ffff;
        self.by_id.insert(id, make(id));
        if key != PRIVATE {
            self.keys.insert(key, id);
        }
        Ok(id)
    }
    /// Takes an object out.
    pub fn remove(&mut self, id: i32) -> Option<Arc<T>> {
        self.keys.retain(|_, other| *other != id);
        self.by_id.remove(&id)
    }
    /// Its key names it no more.
    pub fn forget_key(&mut self, id: i32) {
        self.keys.retain(|_, other| *other != id);
    }
    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &Arc<T>)> {
        self.by_id.iter().map(|(id, object)| (*id, object))
    }
}

/// An IPC namespace.
#[derive(Debug)]
pub struct IpcNs {
    /// Number in /proc/pid/ns.
    pub ino: u64,
    /// Owner.
    pub user: Arc<UserNamespace>,
    /// Shared memory.
    pub shm: Ranked<FileObject, Table<shm::Segment>>,
    /// Semaphores.
    pub sem: Ranked<FileObject, Table<sem::SemSet>>,
    /// Message queues.
    pub msg: Ranked<FileObject, Table<msg::Queue>>,
    /// The id that the next segment gets; -1 for any (/proc/sys/kernel/shm_next_id).
    pub next_shm: AtomicI32,
    /// The same for semaphores.
    pub next_sem: AtomicI32,
    /// The same for message queues.
    pub next_msg: AtomicI32,
    /// POSIX message queues.
    pub mqueues: Arc<MqFs>,
    mount: OnceLock<Arc<Mount>>,
}

impl IpcNs {
    /// An empty namespace.
    #[must_use]
    pub fn new(ino: u64, user: Arc<UserNamespace>) -> Arc<IpcNs> {
        Arc::new(IpcNs {
            ino,
            user,
            shm: Ranked::new(Table::default()),
            sem: Ranked::new(Table::default()),
            msg: Ranked::new(Table::default()),
            next_shm: AtomicI32::new(-1),
            next_sem: AtomicI32::new(-1),
            next_msg: AtomicI32::new(-1),
            mqueues: MqFs::new(),
            mount: OnceLock::new(),
        })
    }
    /// The mount that mq_open(2) looks in; nobody sees it.
    pub fn mqueue_mount(&self) -> &Arc<Mount> {
        self.mount
            .get_or_init(|| Mount::of_fs(Arc::clone(&self.mqueues) as _, MountFlags::empty(), b"mqueue"))
    }
}

/// Seconds since the epoch.
#[must_use]
pub fn now() -> i64 {
    vfs::realtime_now().sec
}

/// What xxxget(2) found: an id that exists, or that one is to be made.
pub enum Get {
    /// This one; permissions and size are still to be checked.
    Found(i32),
    /// None yet.
    Make,
}

/// The rules of IPC_CREAT and IPC_EXCL.
pub fn look_up<T>(table: &Table<T>, key: i32, flags: u32) -> SysResult<Get> {
    if key == PRIVATE {
        return Ok(Get::Make);
    }
    match table.by_key(key) {
        Some(_) if flags & (CREAT | EXCL) == CREAT | EXCL => Err(Errno::EEXIST),
        Some(id) => Ok(Get::Found(id)),
        None if flags & CREAT != 0 => Ok(Get::Make),
        None => Err(Errno::ENOENT),
    }
}
