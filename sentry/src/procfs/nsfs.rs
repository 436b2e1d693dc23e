//! nsfs: namespaces as files, behind the links of /proc/pid/ns (namespaces(7), ioctl_ns(2)).

use crate::ipc::IpcNs;
use crate::namespace::{CgroupNs, UtsNs};
use crate::process::pid::PidNs;
use crate::task::Published;
use ::net::NetNs;
use abi::fs::{FileType, OpenFlags};
use abi::process::CloneFlags;
use abi::{Errno, SysResult, UserAddr};
use std::any::Any;
use std::sync::{Arc, LazyLock};
use vfs::{
    Attr, Caller, Dentry, FileOps, FileSystem, FsStat, GuestMemory, Inode, Kgid, Kuid, Location, Mount,
    MountFlags, MountNamespace, OpenFile, UserNamespace,
};

const NS_GET_USERNS: u32 = 0xb701;
const NS_GET_PARENT: u32 = 0xb702;
const NS_GET_NSTYPE: u32 = 0xb703;
const NS_GET_OWNER_UID: u32 = 0xb704;
const MAGIC: u64 = 0x6e73_6673;
/// Numbers of the kinds of which there is one (those of Linux's initial namespaces).
const TIME_INO: u64 = 0xefff_fffa;

/// A namespace, held.
#[derive(Clone)]
pub enum NsHandle {
    /// User.
    User(Arc<UserNamespace>),
    /// Mount.
    Mnt(Arc<MountNamespace>),
    /// Process ids.
    Pid(Arc<PidNs>),
    /// Host and domain name.
    Uts(Arc<UtsNs>),
    /// Network.
    Net(Arc<NetNs>),
    /// System V IPC.
    Ipc(Arc<IpcNs>),
    /// Control groups.
    Cgroup(Arc<CgroupNs>),
    /// A kind of which there is only the first: its flag.
    Single(CloneFlags),
}

/// The links of /proc/pid/ns.
pub const NAMES: [&str; 10] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];

impl NsHandle {
    /// The namespace of a task behind a link's name; `None` after its exit, or for an unknown name.
    #[must_use]
    pub fn of(task: &Published, name: &str) -> Option<NsHandle> {
        Some(match name {
            "user" => NsHandle::User(Arc::clone(&task.cred.user_ns)),
            "mnt" => NsHandle::Mnt(Arc::clone(&task.fs.as_ref()?.snapshot().ns)),
            "pid" => NsHandle::Pid(task.pid.ns().cloned()?),
            "pid_for_children" => NsHandle::Pid(Arc::clone(&task.ns.pid_for_children)),
            "uts" => NsHandle::Uts(Arc::clone(&task.ns.uts)),
            "cgroup" => NsHandle::Cgroup(Arc::clone(&task.ns.cgroup)),
            "ipc" => NsHandle::Ipc(Arc::clone(&task.ns.ipc)),
            "net" => NsHandle::Net(Arc::clone(&task.ns.net)),
            "time" | "time_for_children" => NsHandle::Single(CloneFlags::NEWTIME),
            _ => return None,
        })
    }
    /// Its number.
    #[must_use]
    pub fn ino(&self) -> u64 {
        match self {
            NsHandle::User(ns) => ns.ino,
            NsHandle::Mnt(ns) => ns.ino,
            NsHandle::Pid(ns) => ns.ino,
            NsHandle::Uts(ns) => ns.ino,
            NsHandle::Net(ns) => ns.ino,
            NsHandle::Ipc(ns) => ns.ino,
            NsHandle::Cgroup(ns) => ns.ino,
            NsHandle::Single(_) => TIME_INO,
        }
    }
    /// Its CLONE_NEW* flag.
    #[must_use]
    pub fn flag(&self) -> CloneFlags {
        match self {
            NsHandle::User(_) => CloneFlags::NEWUSER,
            NsHandle::Mnt(_) => CloneFlags::NEWNS,
            NsHandle::Pid(_) => CloneFlags::NEWPID,
            NsHandle::Uts(_) => CloneFlags::NEWUTS,
            NsHandle::Net(_) => CloneFlags::NEWNET,
            NsHandle::Ipc(_) => CloneFlags::NEWIPC,
            NsHandle::Cgroup(_) => CloneFlags::NEWCGROUP,
            NsHandle::Single(flag) => *flag,
        }
    }
    /// The user namespace that owns it (NS_GET_USERNS); `None` for those of the sandbox itself.
    #[must_use]
    pub fn owner(&self) -> Option<Arc<UserNamespace>> {
        match self {
            NsHandle::User(ns) => ns.parent.clone(),
            NsHandle::Mnt(ns) => Some(Arc::clone(&ns.user_ns)),
            NsHandle::Pid(ns) => Some(Arc::clone(&ns.user)),
            NsHandle::Uts(ns) => Some(Arc::clone(&ns.user)),
            NsHandle::Net(ns) => Some(Arc::clone(&ns.user_ns)),
            NsHandle::Ipc(ns) => Some(Arc::clone(&ns.user)),
            NsHandle::Cgroup(ns) => Some(Arc::clone(&ns.user)),
            NsHandle::Single(_) => None,
        }
    }
    /// The answer of NS_GET_USERNS and NS_GET_PARENT; `None` for other requests.
    #[must_use]
    pub fn related(&self, request: u32, cred: &vfs::Credentials) -> Option<SysResult<Arc<OpenFile>>> {
        let found = match (request, self) {
            (NS_GET_USERNS, _) => self.owner().map(NsHandle::User),
            (NS_GET_PARENT, NsHandle::User(ns)) => ns.parent.clone().map(NsHandle::User),
            (NS_GET_PARENT, NsHandle::Pid(ns)) => ns.parent.clone().map(NsHandle::Pid),
            (NS_GET_PARENT, _) => return Some(Err(Errno::EINVAL)),
            _ => return None,
        };
        // What lies above the caller's own namespaces is not shown.
        let own = crate::task::current().and_then(|task| task.process.pid.ns().cloned());
        let visible = found.filter(|found| match found {
            NsHandle::User(ns) => cred.user_ns.is_ancestor_of(ns),
            NsHandle::Pid(ns) => own.is_some_and(|own| own.is_ancestor_of(ns)),
            _ => true,
        });
        Some(visible.ok_or(Errno::EPERM).map(|ns| ns.open()))
    }
    /// An open file of it.
    #[must_use]
    pub fn open(self) -> Arc<OpenFile> {
        let at = self.location();
        OpenFile::at(at, Arc::new(NsFile(self)), OpenFlags::empty())
    }
    fn label(&self) -> &'static str {
        match self.flag() {
            CloneFlags::NEWUSER => "user",
            CloneFlags::NEWNS => "mnt",
            CloneFlags::NEWPID => "pid",
            CloneFlags::NEWUTS => "uts",
            CloneFlags::NEWCGROUP => "cgroup",
            CloneFlags::NEWIPC => "ipc",
            CloneFlags::NEWTIME => "time",
            _ => "net",
        }
    }
    /// `uts:[4026531838]`.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}:[{}]", self.label(), self.ino())
    }
    /// Its place on nsfs: what the link in /proc leads to.
    #[must_use]
    pub fn location(&self) -> Location {
        let inode: Arc<dyn Inode> = Arc::new(NsInode(Some(self.clone())));
        let dentry = Dentry::root(inode, MOUNT.sb.id, self.text().as_bytes());
        Location { mount: Arc::clone(&MOUNT), dentry }
    }
    /// The namespace behind an open file of /proc/pid/ns (setns(2)); `None` for other files.
    #[must_use]
    pub fn of_file(file: &OpenFile) -> Option<NsHandle> {
        file.downcast::<NsFile>().map(|file| file.0.clone())
    }
}

static MOUNT: LazyLock<Arc<Mount>> =
    LazyLock::new(|| Mount::of_fs(Arc::new(NsFs), MountFlags::empty(), b"nsfs"));

struct NsFs;
struct NsInode(Option<NsHandle>);
struct NsFile(NsHandle);

impl FileSystem for NsFs {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        "nsfs"
    }
    fn dev(&self) -> u64 {
        4
    }
    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(NsInode(None))
    }
    fn statfs(&self, _by: &Caller<'_>) -> SysResult<FsStat> {
        Ok(FsStat { magic: MAGIC, bsize: 4096, namelen: 255, ..FsStat::default() })
    }
}

fn attr_of(handle: Option<&NsHandle>) -> Attr {
    let zero = abi::time::Timespec { sec: 0, nsec: 0 };
    Attr {
        kind: if handle.is_some() { FileType::Regular } else { FileType::Directory },
        perm: 0o444,
        ino: handle.map_or(1, NsHandle::ino),
        nlink: 1,
        uid: Kuid(0),
        gid: Kgid(0),
        rdev: 0,
        size: 0,
        blocks: 0,
        blksize: 4096,
        atime: zero,
        mtime: zero,
        ctime: zero,
        btime: None,
    }
}

impl Inode for NsInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::new(NsFs)
    }
    fn kind(&self) -> FileType {
        if self.0.is_some() { FileType::Regular } else { FileType::Directory }
    }
    fn ino(&self) -> Option<u64> {
        Some(self.0.as_ref().map_or(1, NsHandle::ino))
    }
    fn attr(&self, _by: &Caller<'_>) -> SysResult<Attr> {
        Ok(attr_of(self.0.as_ref()))
    }
    fn open(self: Arc<Self>, flags: OpenFlags, _by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        if flags.writable() {
            return Err(Errno::EPERM);
        }
        let handle = self.0.clone().ok_or(Errno::ENXIO)?;
        Ok(Arc::new(NsFile(handle)))
    }
}

impl FileOps for NsFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn GuestMemory,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        match (request, &self.0) {
            (NS_GET_NSTYPE, handle) => Ok(u64::from(u32::try_from(handle.flag().bits()).unwrap_or(0))),
            (NS_GET_OWNER_UID, NsHandle::User(ns)) => {
                let uid = by.cred.user_ns.show_uid(ns.owner);
                memory.write(UserAddr::new(arg), &uid.to_ne_bytes())?;
                Ok(0)
            }
            (NS_GET_OWNER_UID, _) => Err(Errno::EINVAL),
            // What lies outside the caller's own namespaces is EPERM; descriptors of the others are not made.
            (NS_GET_USERNS | NS_GET_PARENT, _) => Err(Errno::EPERM),
            _ => Err(Errno::ENOTTY),
        }
    }
}
