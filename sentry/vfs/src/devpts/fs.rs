//! The devpts file system: `ptmx` and one node per terminal (devpts(4)). Lock: `DirInode`.

use super::files::{MasterFile, SlaveFile};
use super::terminals::Terminals;
use super::tty::Tty;
use crate::attr::{Attr, AttrChange, FsStat, SetTime};
use crate::caller::{Caller, realtime_now};
use crate::cred::{Kgid, Kuid};
use crate::file::{DirSink, FileOps, OpenFile};
use crate::inode::{DentryHint, FileSystem, Inode};
use crate::vfs::{DeviceOpener, FsType, MountRequest, Vfs, anon_dev};
use abi::fs::{FileType, ModeBits, OpenFlags, make_dev};
use abi::{CallResult, Errno, SysResult};
use lock::Ranked;
use lock::order::{DirInode, InodeAttr};
use std::any::Any;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

const MAGIC: u64 = 0x1cd1;
/// Terminals of one instance (`kernel.pty.max`).
const MAX: u32 = 4096;
const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;
/// Inode number of terminal 0.
const FIRST_INO: u64 = 3;

/// Mount options.
#[derive(Clone, Copy, Debug)]
pub struct DevPtsOptions {
    /// Mode of terminals.
    pub mode: ModeBits,
    /// Mode of ptmx.
    pub ptmx_mode: ModeBits,
    /// Owner of terminals; the opener without it.
    pub uid: Option<Kuid>,
    /// Group of terminals; the opener's without it.
    pub gid: Option<Kgid>,
    /// Most terminals.
    pub max: u32,
}

impl Default for DevPtsOptions {
    fn default() -> Self {
        DevPtsOptions { mode: 0o600, ptmx_mode: 0, uid: None, gid: None, max: MAX }
    }
}

impl DevPtsOptions {
    /// Reads `newinstance,ptmxmode=0666,mode=0620,gid=5,max=N`.
    pub fn parse(data: &[u8], by: Option<&Caller<'_>>) -> SysResult<DevPtsOptions> {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let mut options = DevPtsOptions::default();
        for option in text.split(',').filter(|o| !o.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            let octal = || u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL);
            let number = || value.parse::<u32>().map_err(|_| Errno::EINVAL);
            match key {
                "newinstance" => {}
                "mode" => options.mode = octal()? & 0o777,
                "ptmxmode" => options.ptmx_mode = octal()? & 0o777,
                "uid" => {
                    let id = number()?;
                    options.uid = Some(by.map_or(Ok(Kuid(id)), |by| by.cred.user_ns.kuid(id))?);
                }
                "gid" => {
                    let id = number()?;
                    options.gid = Some(by.map_or(Ok(Kgid(id)), |by| by.cred.user_ns.kgid(id))?);
                }
                "max" => options.max = number()?.min(MAX),
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(options)
    }
}

#[derive(Debug)]
struct Entry {
    // Weak: a terminal lives as long as its master and slaves. A host terminal is kept.
    tty: Weak<Tty>,
    kept: Option<Arc<Tty>>,
    removed: bool,
    node: Arc<Node>,
}

impl Entry {
    /// A pair has a name while its master is open.
    fn is_visible(&self) -> bool {
        !self.removed && self.tty.upgrade().is_some_and(|tty| tty.is_linked())
    }
}

/// One instance.
#[derive(Debug)]
pub struct DevPts {
    me: Weak<DevPts>,
    dev: u64,
    options: DevPtsOptions,
    terminals: Arc<Terminals>,
    entries: Ranked<DirInode, BTreeMap<u32, Entry>>,
    root: Ranked<InodeAttr, Attr>,
    ptmx: Ranked<InodeAttr, Attr>,
}

fn attr(kind: FileType, perm: ModeBits, ino: u64, rdev: u64, uid: Kuid, gid: Kgid) -> Attr {
    let now = realtime_now();
    Attr {
        kind,
        perm,
        ino,
        nlink: if kind == FileType::Directory { 2 } else { 1 },
        uid,
        gid,
        rdev,
        size: 0,
        blocks: 0,
        blksize: 1024,
        atime: now,
        mtime: now,
        ctime: now,
        btime: None,
    }
}

fn change_attr(attr: &mut Attr, change: &AttrChange) {
    let now = realtime_now();
    let time = |t: SetTime| match t {
        SetTime::Now => now,
        SetTime::To(t) => t,
    };
    attr.perm = change.perm.unwrap_or(attr.perm);
    attr.uid = change.uid.unwrap_or(attr.uid);
    attr.gid = change.gid.unwrap_or(attr.gid);
    attr.atime = change.atime.map_or(attr.atime, time);
    attr.mtime = change.mtime.map_or(attr.mtime, time);
    attr.ctime = now;
}

impl DevPts {
    /// An empty instance.
    #[must_use]
    pub fn new(terminals: &Arc<Terminals>, options: DevPtsOptions) -> Arc<DevPts> {
        let zero = (Kuid(0), Kgid(0));
        let root = attr(FileType::Directory, 0o755, ROOT_INO, 0, zero.0, zero.1);
        let ptmx = attr(FileType::CharDevice, options.ptmx_mode, PTMX_INO, make_dev(5, 2), zero.0, zero.1);
        let fs = Arc::new_cyclic(|me| DevPts {
            me: Weak::clone(me),
            dev: anon_dev(),
            options,
            terminals: Arc::clone(terminals),
            entries: Ranked::default(),
            root: Ranked::new(root),
            ptmx: Ranked::new(ptmx),
        });
        terminals.add_instance(&fs);
        fs
    }

    fn add(&self, host: Option<Arc<OwnedFd>>, uid: Kuid, gid: Kgid) -> SysResult<Arc<Tty>> {
        let mut entries = self.entries.lock();
        entries.retain(|_, e| e.tty.strong_count() > 0);
        let index = (0..self.options.max).find(|n| !entries.contains_key(n)).ok_or(Errno::ENOSPC)?;
        let kept = host.is_some();
        let tty = Tty::new(&self.terminals, index, host);
        let uid = self.options.uid.unwrap_or(uid);
        let gid = self.options.gid.unwrap_or(gid);
        let ino = FIRST_INO + u64::from(index);
        let node = Arc::new(Node {
            fs: Weak::clone(&self.me),
            what: What::Slave(Arc::downgrade(&tty)),
            attr: Ranked::new(attr(FileType::CharDevice, self.options.mode, ino, tty.rdev(), uid, gid)),
        });
        let entry =
            Entry { tty: Arc::downgrade(&tty), kept: kept.then(|| Arc::clone(&tty)), removed: false, node };
        entries.insert(index, entry);
        Ok(tty)
    }

    /// A new pair: the open master. The slave is locked until TIOCSPTLCK.
    pub fn open_ptmx(self: &Arc<Self>, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        let tty = self.add(None, by.cred.fsuid, by.cred.fsgid)?;
        Ok(Arc::new(MasterFile::new(tty)))
    }

    /// A terminal of user `uid` whose other side is a donated host terminal in raw mode. It shows as `/dev/pts/N` until
    /// [`DevPts::remove`].
    pub fn add_host(&self, fd: OwnedFd, uid: Kuid) -> SysResult<Arc<Tty>> {
        // The terminal is the sandbox's own; a slow reader outside must not hold a task up.
        if let Ok(flags) = rustix::fs::fcntl_getfl(&fd) {
            let _ = rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK);
        }
        self.add(Some(Arc::new(fd)), uid, Kgid(0))
    }

    /// The terminal with a number.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Arc<Tty>> {
        self.entries.lock().get(&index).and_then(|e| e.tty.upgrade())
    }
    /// Takes a host terminal's name away; its number is free once nobody has it open.
    pub fn remove(&self, index: u32) {
        let kept = match self.entries.lock().get_mut(&index) {
            Some(entry) => {
                entry.removed = true;
                entry.kept.take()
            }
            None => None,
        };
        drop(kept);
    }
}

/// `ptmx` or one terminal.
#[derive(Debug)]
struct Node {
    fs: Weak<DevPts>,
    what: What,
    attr: Ranked<InodeAttr, Attr>,
}

#[derive(Debug)]
enum What {
    Ptmx,
    Slave(Weak<Tty>),
}

/// The root directory.
#[derive(Debug)]
struct Root(Arc<DevPts>);

impl FileSystem for DevPts {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        "devpts"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn root(&self) -> Arc<dyn Inode> {
        match self.me.upgrade() {
            Some(fs) => Arc::new(Root(fs)),
            None => crate::anon::no_directory(),
        }
    }
    fn statfs(&self, _by: &Caller<'_>) -> SysResult<FsStat> {
        Ok(FsStat { magic: MAGIC, bsize: 4096, namelen: 255, ..FsStat::default() })
    }
    fn dentry_hint(&self) -> DentryHint {
        // Terminals come and go without unlink(2).
        DentryHint::Never
    }
    fn options(&self) -> String {
        let mut text = String::new();
        if let Some(gid) = self.options.gid {
            text.push_str(&format!(",gid={}", gid.0));
        }
        text.push_str(&format!(",mode={:o},ptmxmode={:03o}", self.options.mode, self.options.ptmx_mode));
        text
    }
}

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
    fn attr(&self, _by: &Caller<'_>) -> SysResult<Attr> {
        Ok(*self.0.root.lock())
    }
    fn set_attr(&self, change: &AttrChange, _by: &Caller<'_>) -> SysResult<()> {
        change_attr(&mut self.0.root.lock(), change);
        Ok(())
    }
    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        if name == b"ptmx" {
            let attr = *self.0.ptmx.lock();
            let fs = Arc::downgrade(&self.0);
            return Ok(Arc::new(Node { fs, what: What::Ptmx, attr: Ranked::new(attr) }));
        }
        let text = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let index: u32 = text.parse().map_err(|_| Errno::ENOENT)?;
        if index.to_string() != text {
            return Err(Errno::ENOENT);
        }
        let entries = self.0.entries.lock();
        match entries.get(&index) {
            Some(entry) if entry.is_visible() => Ok(Arc::clone(&entry.node) as Arc<dyn Inode>),
            _ => Err(Errno::ENOENT),
        }
    }
    fn open(self: Arc<Self>, _flags: OpenFlags, _by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        Ok(Arc::new(RootDir(Arc::clone(&self.0))))
    }
}

impl Inode for Node {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        match self.fs.upgrade() {
            Some(fs) => fs,
            None => crate::anon::no_directory().fs(),
        }
    }
    fn kind(&self) -> FileType {
        FileType::CharDevice
    }
    fn attr(&self, _by: &Caller<'_>) -> SysResult<Attr> {
        Ok(*self.attr.lock())
    }
    fn set_attr(&self, change: &AttrChange, _by: &Caller<'_>) -> SysResult<()> {
        if change.size.is_some() && change.perm.is_none() && change.uid.is_none() {
            return Ok(());
        }
        if let (What::Ptmx, Some(fs)) = (&self.what, self.fs.upgrade()) {
            change_attr(&mut fs.ptmx.lock(), change);
        }
        change_attr(&mut self.attr.lock(), change);
        Ok(())
    }
    fn open(self: Arc<Self>, flags: OpenFlags, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        match &self.what {
            What::Ptmx => self.fs.upgrade().ok_or(Errno::EIO)?.open_ptmx(by),
            What::Slave(tty) => SlaveFile::open(&tty.upgrade().ok_or(Errno::EIO)?, flags, by),
        }
    }
}

/// The open root directory.
#[derive(Debug)]
struct RootDir(Arc<DevPts>);

impl FileOps for RootDir {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn read(
        &self,
        _io: &crate::file::Io<'_>,
        _dst: &mut dyn mm::GuestSink,
        _by: &Caller<'_>,
    ) -> SysResult<usize> {
        Err(Errno::EISDIR)
    }
    fn read_dir(
        &self,
        _file: &OpenFile,
        cookie: u64,
        sink: &mut dyn DirSink,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        // Cookies: 1 and 2 behind the dots, 3 behind ptmx, 4 + N behind terminal N.
        let mut names: Vec<(u64, Vec<u8>, u64, FileType)> = vec![
            (1, b".".to_vec(), ROOT_INO, FileType::Directory),
            (2, b"..".to_vec(), ROOT_INO, FileType::Directory),
            (3, b"ptmx".to_vec(), PTMX_INO, FileType::CharDevice),
        ];
        for (index, entry) in self.0.entries.lock().iter() {
            if entry.is_visible() {
                let n = u64::from(*index);
                names.push((4 + n, index.to_string().into_bytes(), FIRST_INO + n, FileType::CharDevice));
            }
        }
        let mut at = cookie;
        for (next, name, ino, kind) in names.into_iter().filter(|(next, ..)| *next > cookie) {
            if !sink.entry(&name, ino, kind, next) {
                break;
            }
            at = next;
        }
        Ok(at)
    }
}

/// `mount -t devpts`: each mount is a new instance.
#[derive(Debug)]
pub struct DevPtsType(pub Arc<Terminals>);

impl FsType for DevPtsType {
    fn name(&self) -> &'static str {
        "devpts"
    }
    fn in_user_namespace(&self) -> bool {
        true
    }
    fn mount(&self, request: &MountRequest<'_>) -> SysResult<Arc<dyn FileSystem>> {
        let options = DevPtsOptions::parse(request.data, Some(request.walk.by))?;
        Ok(DevPts::new(&self.0, options))
    }
}

/// Opens `/dev/tty`, `/dev/console`, `/dev/ptmx` (major 5) and terminals (major 136).
#[derive(Debug)]
struct Opener(Arc<Terminals>, u32);

impl DeviceOpener for Opener {
    fn open(
        &self,
        minor: u32,
        inode: &Arc<dyn Inode>,
        flags: OpenFlags,
        by: &Caller<'_>,
    ) -> CallResult<Arc<dyn FileOps>> {
        let own = inode.as_any().downcast_ref::<Node>().and_then(|n| n.fs.upgrade());
        let quiet = flags | OpenFlags::NOCTTY;
        Ok(match (self.1, minor) {
            (5, 0) => {
                let sid = by.task.sid();
                SlaveFile::open(&self.0.controlling(sid).ok_or(Errno::ENXIO)?, quiet, by)?
            }
            (5, 1) => SlaveFile::open(&self.0.console().ok_or(Errno::EIO)?, quiet, by)?,
            (5, 2) => own.or_else(|| self.0.first_instance()).ok_or(Errno::ENODEV)?.open_ptmx(by)?,
            (136, index) => {
                let fs = own.or_else(|| self.0.first_instance()).ok_or(Errno::EIO)?;
                SlaveFile::open(&fs.get(index).ok_or(Errno::EIO)?, flags, by)?
            }
            _ => return Err(Errno::ENXIO.into()),
        })
    }
}

/// Registers the file system and the terminal devices.
pub fn register(vfs: &Vfs, terminals: &Arc<Terminals>) {
    vfs.register_type(Arc::new(DevPtsType(Arc::clone(terminals))));
    vfs.register_char(5, 0..=0, "/dev/tty", Arc::new(Opener(Arc::clone(terminals), 5)));
    vfs.register_char(5, 1..=1, "/dev/console", Arc::new(Opener(Arc::clone(terminals), 5)));
    vfs.register_char(5, 2..=2, "/dev/ptmx", Arc::new(Opener(Arc::clone(terminals), 5)));
    vfs.register_char(136, 0..=MAX, "pts", Arc::new(Opener(Arc::clone(terminals), 136)));
}
