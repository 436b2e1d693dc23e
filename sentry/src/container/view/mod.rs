//! A tmpfs of the guest as a file system of the host's.
//!
//! Engines copy files into a running container through the mount namespace of its pid (`podman cp`). What lies behind
//! the gofer is there as it is; a tmpfs is this kernel's own. So the monitor mounts one more FUSE file system for each,
//! and this serves it over the donated connection: requests of the host's kernel, in the messages of `linux/fuse.h`,
//! protocol 7.31. The host checks permissions by the modes that it is told; what is made belongs to root until it is
//! given away, and mounts of the guest below the tmpfs are not entered.
//!
//! The thread of the control plane serves it, and must not sleep: who would have to wait (for a lease to be given up) is
//! told that it was interrupted.

mod message;

use crate::control::{FileView, Served};
use crate::kernel::Kernel;
use abi::fs::{FileType, OpenFlags};
use abi::poll::Events;
use abi::time::Timespec;
use abi::{Errno, Failure, SysResult};
use lock::{BlockError, Deadline, Parker, WakeTarget};
use message::{Entries, Put, Take, op, set};
use mm::io::{SliceSink, SliceSource};
use rustix::io::Errno as HostErrno;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use vfs::{
    Blocker, Caller, Credentials, FsContext, Kgid, Kuid, LinkTarget, Location, NewNode, OpenFile,
    RenameFlags, SetTime, Walk, ops,
};

const ROOT: u64 = 1;
/// Bytes of a request's header.
const HEADER: usize = 40;
/// Most bytes of one FUSE_WRITE.
const WRITE_MAX: u32 = 128 << 10;
/// The longest request, with what stands before the data of FUSE_WRITE.
const REQUEST_MAX: usize = (128 << 10) + 4096;
/// FUSE_ATOMIC_O_TRUNC: open(2)'s O_TRUNC is this side's. FUSE_BIG_WRITES: more than a page at once.
const INIT_FLAGS: u32 = 1 << 3 | 1 << 5;
/// FOPEN_DIRECT_IO: the guest changes what the host would remember.
const DIRECT_IO: u32 = 1;

/// A caller that never sleeps.
#[derive(Debug)]
struct Awake {
    cred: Credentials,
    place: Arc<Nowhere>,
    nobody: super::caller::Nobody,
}

#[derive(Debug, Default)]
struct Nowhere(Parker);

impl WakeTarget for Nowhere {
    fn wake(&self, _events: Events) {
        self.0.unpark();
    }
}

impl Blocker for Awake {
    fn target(&self) -> Weak<dyn WakeTarget> {
        let place: Arc<dyn WakeTarget> = Arc::<Nowhere>::clone(&self.place);
        Arc::downgrade(&place)
    }
    fn block(&self, _deadline: Deadline) -> Result<(), BlockError> {
        Err(BlockError::Interrupted)
    }
}

impl Awake {
    fn caller(&self) -> Caller<'_> {
        Caller { cred: &self.cred, blocker: self, task: &self.nobody, umask: 0 }
    }
}

/// A node that the host knows.
struct Node {
    at: Location,
    /// How often it was looked up and not forgotten.
    lookups: u64,
}

/// One tmpfs, and the connection that it is asked over.
pub(super) struct View {
    device: OwnedFd,
    fs: FsContext,
    caller: Arc<Awake>,
    root: Location,
    nodes: BTreeMap<u64, Node>,
    /// Numbers of dentries that are known, by their address: a node keeps its own alive.
    numbers: BTreeMap<usize, u64>,
    files: BTreeMap<u64, Arc<OpenFile>>,
    next: u64,
}

impl FileView for View {
    fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    fn serve(&mut self) -> Served {
        let mut space = vec![0_u8; REQUEST_MAX];
        loop {
            match rustix::io::read(&self.device, &mut space) {
                Ok(length) => {
                    if let Some((header, body)) =
                        space.get(..length).and_then(|all| all.split_at_checked(HEADER))
                    {
                        self.answer(header, body);
                    }
                }
                Err(HostErrno::AGAIN) => return Served::Open,
                // A request that was given up in between.
                Err(HostErrno::INTR | HostErrno::NOENT) => {}
                // Unmounted.
                Err(_) => return Served::Closed,
            }
        }
    }
}

impl View {
    /// Shows what is below `root`.
    pub(super) fn new(kernel: &Arc<Kernel>, fs: &FsContext, root: Location, device: OwnedFd) -> View {
        let cred = Credentials::root(Arc::clone(&kernel.root.user));
        let caller = Awake { cred, place: Arc::default(), nobody: super::caller::Nobody };
        View {
            device,
            fs: fs.clone(),
            caller: Arc::new(caller),
            root,
            nodes: BTreeMap::new(),
            numbers: BTreeMap::new(),
            files: BTreeMap::new(),
            next: ROOT + 1,
        }
    }

    fn answer(&mut self, header: &[u8], body: &[u8]) {
        let mut header = Take(header);
        let head = (|| {
            let _length = header.u32()?;
            Ok((header.u32()?, header.u64()?, header.u64()?))
        })();
        let Ok::<_, Errno>((code, unique, node)) = head else { return };
        let answer = match code {
            op::INTERRUPT => return,
            op::FORGET => return self.forget(node, Take(body).u64().unwrap_or(0)),
            op::BATCH_FORGET => return self.forget_many(Take(body)),
            code => self.carry_out(code, node, Take(body)),
        };
        let (error, body) = match answer {
            Ok(body) => (0, body.0),
            Err(Failure::Errno(errno)) => (-i32::from(errno.raw()), Vec::new()),
            Err(Failure::Restart(_)) => (-i32::from(Errno::EINTR.raw()), Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).unwrap_or(16);
        let reply = Put::default().u32(length).bytes(&error.to_ne_bytes()).u64(unique).bytes(&body);
        // Who was interrupted is gone.
        let _ = rustix::io::write(&self.device, &reply.0);
    }

    fn carry_out(&mut self, code: u32, node: u64, mut body: Take<'_>) -> Result<Put, Failure> {
        if code == op::INIT {
            return Ok(init(body)?);
        }
        let caller = Arc::clone(&self.caller);
        let by = caller.caller();
        let fs = self.fs.clone();
        let at = self.at(node)?;
        let walk = Walk::new(&fs, &by).at(Some(&at));
        let nothing = Put::default();
        Ok(match code {
            op::LOOKUP => {
                let child = at.dentry.lookup(body.name()?, &by)?;
                child.inode()?;
                self.entry(Location { mount: Arc::clone(&at.mount), dentry: child }, &by)?
            }
            op::GETATTR => Put::default().u64(0).u64(0).attr(&at.inode()?.attr(&by)?),
            op::SETATTR => {
                change(&at, body, &by)?;
                Put::default().u64(0).u64(0).attr(&at.inode()?.attr(&by)?)
            }
            op::READLINK => match at.inode()?.read_link(&by)? {
                LinkTarget::Path(path) => Put(path),
                LinkTarget::Magic(_) => return Err(Errno::EINVAL.into()),
            },
            op::SYMLINK => {
                let (name, target) = (body.name()?, body.name()?);
                self.entry(ops::make(&walk, name, &NewNode::Symlink(target.to_vec()), 0o777)?, &by)?
            }
            op::MKNOD => {
                let (mode, _rdev, _umask, _) = (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
                let what = match FileType::from_mode(mode) {
                    Some(FileType::Regular | FileType::Anonymous) => NewNode::Regular,
                    Some(FileType::Fifo) => NewNode::Fifo,
                    Some(FileType::Socket) => NewNode::Socket,
                    // A device of the host's is none of the guest's.
                    _ => return Err(Errno::EPERM.into()),
                };
                self.entry(ops::make(&walk, body.name()?, &what, mode & 0o7777)?, &by)?
            }
            op::MKDIR => {
                let (mode, _umask) = (body.u32()?, body.u32()?);
                self.entry(ops::make(&walk, body.name()?, &NewNode::Directory, mode & 0o7777)?, &by)?
            }
            op::UNLINK => ops::unlink(&walk, body.name()?).map(|()| nothing)?,
            op::RMDIR => ops::rmdir(&walk, body.name()?).map(|()| nothing)?,
            op::RENAME | op::RENAME2 => {
                let to = self.at(body.u64()?)?;
                let flags = if code == op::RENAME2 { (body.u32()?, body.u32()?).0 } else { 0 };
                let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
                let (old, new) = (body.name()?, body.name()?);
                ops::rename(&walk, old, &walk.at(Some(&to)), new, flags)?;
                nothing
            }
            op::LINK => {
                let old = self.at(body.u64()?)?;
                let name = body.name()?;
                ops::link(&walk, &old, name)?;
                let child = at.dentry.lookup(name, &by)?;
                self.entry(Location { mount: Arc::clone(&at.mount), dentry: child }, &by)?
            }
            op::OPEN | op::OPENDIR => {
                let mut flags = OpenFlags::from_bits_truncate(body.u32()?) | OpenFlags::NONBLOCK;
                if code == op::OPENDIR {
                    flags |= OpenFlags::DIRECTORY;
                }
                self.opened(ops::open_location(&walk, at.clone(), flags - OpenFlags::CREAT)?, code)
            }
            op::CREATE => {
                let (flags, mode) = (OpenFlags::from_bits_truncate(body.u32()?), body.u32()?);
                let (_umask, _open_flags) = (body.u32()?, body.u32()?);
                let flags = flags | OpenFlags::CREAT | OpenFlags::NOFOLLOW | OpenFlags::NONBLOCK;
                let file = ops::open(&walk, body.name()?, flags, mode & 0o7777)?;
                let made = file.location().ok_or(Errno::EIO)?.clone();
                let entry = self.entry(made, &by)?;
                entry.bytes(&self.opened(file, code).0)
            }
            op::READ => {
                let (file, offset, size) = (self.file(body.u64()?)?, body.u64()?, body.u32()?);
                let mut piece = vec![0; usize::try_from(size.min(WRITE_MAX)).unwrap_or(0)];
                let length = file.read_at(&mut SliceSink::new(&mut piece), offset, &by)?;
                piece.truncate(length);
                Put(piece)
            }
            op::WRITE => {
                let (file, offset, size) = (self.file(body.u64()?)?, body.u64()?, body.u32()?);
                body.skip(20)?;
                let piece = body.bytes(usize::try_from(size).unwrap_or(usize::MAX))?;
                let written = file.write_at(&mut SliceSource::new(piece), offset, &by)?;
                Put::default().u32(u32::try_from(written).unwrap_or(0)).u32(0)
            }
            op::READDIR => {
                let (file, offset, size) = (self.file(body.u64()?)?, body.u64()?, body.u32()?);
                let mut list =
                    Entries { text: Put::default(), room: usize::try_from(size.min(WRITE_MAX)).unwrap_or(0) };
                file.set_position(offset);
                file.read_dir(&mut list, &by)?;
                list.text
            }
            op::STATFS => {
                let stat = ops::statfs(&at, &by)?;
                let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                let put = Put::default().u64(stat.blocks).u64(stat.bfree).u64(stat.bavail);
                let put = put.u64(stat.files).u64(stat.ffree).u32(word(stat.bsize)).u32(word(stat.namelen));
                put.u32(word(stat.bsize)).u32(0).bytes(&[0; 24])
            }
            op::RELEASE | op::RELEASEDIR => {
                self.files.remove(&body.u64()?);
                nothing
            }
            op::FLUSH | op::FSYNC | op::FSYNCDIR => nothing,
            _ => return Err(Errno::ENOSYS.into()),
        })
    }

    fn at(&self, node: u64) -> SysResult<Location> {
        if node == ROOT {
            return Ok(self.root.clone());
        }
        self.nodes.get(&node).map(|node| node.at.clone()).ok_or(Errno::ESTALE)
    }

    fn file(&self, handle: u64) -> SysResult<Arc<OpenFile>> {
        self.files.get(&handle).cloned().ok_or(Errno::EBADF)
    }

    /// `struct fuse_entry_out`: the host knows the node from now on, and asks again for all that can change.
    fn entry(&mut self, at: Location, by: &Caller<'_>) -> SysResult<Put> {
        let attr = at.inode()?.attr(by)?;
        let address = Arc::as_ptr(&at.dentry).addr();
        let fresh = self.next;
        let number = *self.numbers.entry(address).or_insert(fresh);
        if number == fresh {
            self.next += 1;
        }
        self.nodes.entry(number).or_insert(Node { at, lookups: 0 }).lookups += 1;
        Ok(Put::default().u64(number).bytes(&[0; 32]).attr(&attr))
    }

    fn forget(&mut self, number: u64, times: u64) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.lookups = node.lookups.saturating_sub(times);
        if node.lookups == 0 {
            self.numbers.remove(&Arc::as_ptr(&node.at.dentry).addr());
            self.nodes.remove(&number);
        }
    }

    fn forget_many(&mut self, mut body: Take<'_>) {
        let Ok(count) = body.u32() else { return };
        let _ = body.u32();
        for _ in 0..count {
            let (Ok(node), Ok(times)) = (body.u64(), body.u64()) else { return };
            self.forget(node, times);
        }
    }

    /// `struct fuse_open_out`.
    fn opened(&mut self, file: Arc<OpenFile>, code: u32) -> Put {
        let handle = self.next;
        self.next += 1;
        self.files.insert(handle, file);
        Put::default().u64(handle).u32(if code == op::OPENDIR { 0 } else { DIRECT_IO }).u32(0)
    }
}

/// `struct fuse_init_out`.
fn init(mut body: Take<'_>) -> SysResult<Put> {
    let (_major, _minor, readahead, offered) = (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
    let put =
        Put::default().u32(7).u32(31).u32(readahead).u32(offered & INIT_FLAGS).u32(0).u32(WRITE_MAX).u32(1);
    Ok(put.bytes(&[0; 36]))
}

/// FUSE_SETATTR.
fn change(at: &Location, mut body: Take<'_>, by: &Caller<'_>) -> Result<(), Failure> {
    let (meant, _) = (body.u32()?, body.u32()?);
    body.skip(8)?;
    let size = body.u64()?;
    body.skip(8)?;
    let seconds = [body.u64()?, body.u64()?, body.u64()?];
    let nanoseconds = [body.u32()?, body.u32()?, body.u32()?];
    let (mode, _, uid, gid) = (body.u32()?, body.u32()?, body.u32()?, body.u32()?);
    let is_meant = |bit: u32| meant & bit != 0;
    if is_meant(set::SIZE) {
        ops::truncate(at, size, by)?;
    }
    if is_meant(set::UID | set::GID) {
        let uid = is_meant(set::UID).then_some(Kuid(uid));
        ops::chown(at, uid, is_meant(set::GID).then_some(Kgid(gid)), by)?;
    }
    if is_meant(set::MODE) {
        ops::chmod(at, mode & 0o7777, by)?;
    }
    let time = |bit: u32, now: u32, which: usize| {
        let given = || {
            let (sec, nsec) = (seconds.get(which)?, nanoseconds.get(which)?);
            Some(SetTime::To(Timespec { sec: sec.cast_signed(), nsec: i64::from(*nsec) }))
        };
        if is_meant(now) {
            Some(SetTime::Now)
        } else if is_meant(bit) {
            given()
        } else {
            None
        }
    };
    let (atime, mtime) = (time(set::ATIME, set::ATIME_NOW, 0), time(set::MTIME, set::MTIME_NOW, 1));
    Ok(ops::utimens(at, atime, mtime, by)?)
}
