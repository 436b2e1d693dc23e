//! What the kernel asks of an inode behind the gofer.

use super::dir::{DirFile, Found};
use super::file::RegularFile;
use super::inode::{Key, Purpose, RemoteInode, XATTRS_NONE, XATTRS_SOME, XATTRS_UNKNOWN};
use crate::acl;
use crate::attr::{Attr, AttrChange, SetTime};
use crate::caller::{Caller, realtime_now};
use crate::cred::{Kgid, Kuid};
use crate::file::FileOps;
use crate::inode::{FileSystem, Inode, LinkTarget, NewNode, Owner, RenameFlags, XattrFlags};
use crate::inode_flags::InodeFlags;
use abi::fs::{FileType, ModeBits, OpenFlags, make_dev};
use abi::time::Timespec;
use abi::{Errno, SysResult};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wire::{Access, Handle, Kind, Node, Reply, Request, WalkEnd, WalkFlags};

/// Seconds after which two changes cannot have the same ctime.
const SETTLED_S: i64 = 1;

/// Most components sent in one walk.
const LONGEST_WALK: usize = 64;

fn downcast(inode: &Arc<dyn Inode>) -> SysResult<&RemoteInode> {
    inode.as_any().downcast_ref::<RemoteInode>().ok_or(Errno::EXDEV)
}

fn owner(owner: Owner) -> wire::Owner {
    wire::Owner { uid: owner.uid.0, gid: owner.gid.0 }
}

/// A walk's answer, free of the message it came in.
struct Walked {
    nodes: Vec<Node>,
    target: Option<Vec<u8>>,
    /// The name behind the nodes does not exist.
    missing: bool,
    /// The directory it is missing from has a default access control list.
    default_acl: bool,
    failed: Option<Errno>,
}

impl RemoteInode {
    fn walk(&self, names: &[&[u8]], flags: WalkFlags) -> SysResult<Walked> {
        let names = names.iter().map(|name| (*name).into()).collect();
        let request = Request::Walk { from: self.handle()?, names, flags };
        self.fs.channel.call(&request, |reply, _| match reply {
            Reply::Walked { nodes, end } => {
                let mut walked =
                    Walked { nodes, target: None, missing: false, default_acl: false, failed: None };
                match end {
                    WalkEnd::Complete {} | WalkEnd::NotDirectory {} => {}
                    WalkEnd::Symlink { target } => walked.target = Some(target.into_owned()),
                    WalkEnd::Missing { dir, default_acl } => {
                        walked.missing = true;
                        walked.default_acl = default_acl != 0;
                        if walked.nodes.is_empty() {
                            self.store(dir);
                        }
                    }
                    WalkEnd::Failed { errno } => walked.failed = Some(Errno::from_raw(i32::from(errno))),
                }
                Ok(walked)
            }
            _ => Err(Errno::EIO),
        })
    }

    /// The inode for a node found under `name`.
    fn child(&self, name: &Arc<[u8]>, node: Node, target: Option<Vec<u8>>) -> SysResult<Arc<RemoteInode>> {
        let inode = self.fs.inode(Some((&self.arc()?, name)), node)?;
        if let Some(target) = target {
            // A link never changes its target: a second answer says the same.
            let _ = inode.target.set(target);
        }
        if !self.fs.is_shared() {
            self.names()?.lock().live(name, &inode.me);
        }
        Ok(inode)
    }

    fn lookup_one(&self, name: &[u8]) -> SysResult<Arc<RemoteInode>> {
        let flags = match self.fs.is_shared() {
            true => WalkFlags::HANDLE_LAST,
            false => WalkFlags::HANDLE_DIRS,
        };
        let walked = self.walk(&[name], flags)?;
        match (walked.nodes.first(), walked.failed) {
            (Some(node), _) => self.child(&Arc::from(name), *node, walked.target),
            (None, Some(errno)) => Err(errno),
            (None, None) => {
                if self.fs.is_shared() {
                    self.names()?.lock().missed_now(name, walked.default_acl);
                }
                Err(Errno::ENOENT)
            }
        }
    }

    /// A name of a shared export: as this very call has found it already, or asked for.
    fn lookup_shared(&self, name: &[u8]) -> SysResult<Arc<RemoteInode>> {
        let (found, missed) = {
            let mut names = self.names()?.lock();
            (names.take_found(), names.is_missed(name))
        };
        match found.and_then(|found| found.at(name)) {
            Some(inode) => Ok(inode),
            None if missed => Err(Errno::ENOENT),
            None => self.lookup_one(name),
        }
    }

    fn lookup_known(&self, name: &[u8]) -> SysResult<Arc<RemoteInode>> {
        self.list_if_worthwhile();
        let (found, version) = {
            let mut names = self.names()?.lock();
            (names.find(name), names.version())
        };
        match found {
            Found::Inode(inode) => Ok(inode),
            Found::Attr(attr) => self.child(&Arc::from(name), Node { handle: Handle::NONE, attr }, None),
            Found::Missing => Err(Errno::ENOENT),
            Found::Ask(batch) if batch.len() > 1 => {
                let asked = batch.iter().map(|name| (&**name).into()).collect();
                let request = Request::StatMany { dir: self.handle()?, names: asked };
                let attrs = self.fs.channel.call(&request, |reply, _| match reply {
                    Reply::Stats { attrs } if attrs.len() == batch.len() => Ok(attrs),
                    _ => Err(Errno::EIO),
                })?;
                let rest = (batch.get(1..).unwrap_or_default(), attrs.get(1..).unwrap_or_default());
                self.names()?.lock().learn(version, rest.0, rest.1);
                match (batch.first(), attrs.first()) {
                    (Some(name), Some(Some(attr))) => {
                        self.child(name, Node { handle: Handle::NONE, attr: *attr }, None)
                    }
                    _ => self.lookup_one(name),
                }
            }
            Found::Ask(_) | Found::Unknown => self.lookup_one(name),
        }
    }

    /// Makes the inode of a `Created` reply known.
    fn created(&self, name: &[u8], node: Node) -> SysResult<Arc<RemoteInode>> {
        let name = Arc::from(name);
        let inode = self.child(&name, node, None)?;
        self.names()?.lock().added(&name, self.fs.ino(&node.attr), inode.kind);
        Ok(inode)
    }

    fn create_file(
        &self,
        name: &[u8],
        mode: ModeBits,
        by: wire::Owner,
    ) -> SysResult<(Node, std::os::fd::OwnedFd)> {
        let mut access = Access::READ | Access::WRITE;
        access.set(Access::UNNAMED, name.is_empty());
        let request = Request::Create { dir: self.handle()?, name: name.into(), mode, owner: by, access };
        let result = self.fs.channel.call(&request, |reply, fd| match (reply, fd) {
            (Reply::Created { node, dir }, Some(fd)) => {
                self.store(dir);
                Ok((node, fd))
            }
            _ => Err(Errno::EIO),
        });
        self.unless_there(result)
    }

    /// Somebody else made the name meanwhile: that it is missing is believed no longer.
    fn unless_there<T>(&self, result: SysResult<T>) -> SysResult<T> {
        if matches!(result, Err(Errno::EEXIST)) {
            self.names()?.lock().believe_no_miss();
        }
        result
    }

    fn make(&self, name: &[u8], node: wire::NewNode<'_>, mode: ModeBits, by: wire::Owner) -> SysResult<Node> {
        let request = Request::Make { dir: self.handle()?, name: name.into(), node, mode, owner: by };
        let result = self.fs.channel.call(&request, |reply, _| match reply {
            Reply::Created { node, dir } => {
                self.store(dir);
                Ok(node)
            }
            _ => Err(Errno::EIO),
        });
        self.unless_there(result)
    }

    fn remove(&self, name: &[u8], child: &Arc<dyn Inode>, request: &Request<'_>) -> SysResult<()> {
        let child = downcast(child)?;
        child.before_removal()?;
        self.fs.channel.call(request, |reply, _| match reply {
            Reply::Changed { dir, .. } => {
                self.store(dir);
                Ok(())
            }
            _ => Err(Errno::EIO),
        })?;
        self.names()?.lock().removed(name);
        child.after_removal(self, name);
        Ok(())
    }

    pub(super) fn data(&self, request: &Request<'_>) -> SysResult<Vec<u8>> {
        self.fs.channel.call(request, |reply, _| match reply {
            Reply::Data { data } => Ok(data.into_owned()),
            _ => Err(Errno::EIO),
        })
    }

    /// The same on a shared export: a file without any has none as long as its ctime stays, which the host sets
    /// with each. Unless it was set so short a time ago that the next change might set the same.
    fn has_none_since(&self) -> SysResult<bool> {
        let ctime = self.current()?.ctime;
        if *self.xattrs_none_at.lock() == Some(ctime) {
            return Ok(true);
        }
        let names = self.data(&Request::ListXattr { node: self.handle()? })?;
        let settled = realtime_now().sec.saturating_sub(ctime.sec) > SETTLED_S;
        *self.xattrs_none_at.lock() = Some(ctime).filter(|_| settled && names.is_empty());
        Ok(names.is_empty())
    }

    /// Looks a path up again of which the first `cached` names are known to the dentry cache.
    fn revalidate_with(&self, names: &[&[u8]], cached: usize, flags: WalkFlags) -> SysResult<()> {
        let mut walked = self.walk(names, flags)?;
        let (count, mut dir) = (walked.nodes.len(), self.arc()?);
        for (at, (name, node)) in names.iter().zip(&walked.nodes).enumerate() {
            let child = if flags.is_empty() {
                let child = self.fs.in_use(&Key::of(&node.attr, &self.fs)).ok_or(Errno::ESTALE)?;
                child.found_at(&dir, name, node.attr);
                child
            } else {
                let target = if at + 1 == count { walked.target.take() } else { None };
                let name: Arc<[u8]> = Arc::from(*name);
                let child = dir.child(&name, *node, target)?;
                if at >= cached {
                    let before = dir.names()?.lock().found_now(&name, &child);
                    drop(before);
                }
                child
            };
            dir = child;
        }
        if walked.missing
            && let Some(name) = names.get(count)
        {
            dir.names()?.lock().missed_now(name, walked.default_acl);
        }
        Ok(())
    }

    /// Whether the inode has no extended attributes at all (exclusive exports remember).
    fn has_no_xattrs(&self) -> SysResult<bool> {
        if self.fs.is_shared() {
            return self.has_none_since();
        }
        match self.xattrs.load(Ordering::Acquire) {
            XATTRS_UNKNOWN => {
                let names = match self.data(&Request::ListXattr { node: self.handle()? }) {
                    Err(Errno::EOPNOTSUPP) => return Err(Errno::EOPNOTSUPP),
                    result => result?,
                };
                let now = if names.is_empty() { XATTRS_NONE } else { XATTRS_SOME };
                self.xattrs.store(now, Ordering::Release);
                Ok(names.is_empty())
            }
            known => Ok(known == XATTRS_NONE),
        }
    }
}

impl Inode for RemoteInode {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn fs(&self) -> Arc<dyn FileSystem> {
        Arc::clone(&self.fs) as Arc<dyn FileSystem>
    }
    fn kind(&self) -> FileType {
        self.kind
    }
    fn ino(&self) -> Option<u64> {
        Some(self.fs.ino(&self.last_attr()))
    }
    fn acl(&self, by: &Caller<'_>) -> SysResult<Option<acl::Acl>> {
        match self.get_xattr(acl::ACCESS, by) {
            // The host's own check of it stands; what it says is the host's.
            Ok(value) => acl::Acl::parse(&value),
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
    fn has_default_acl(&self, by: &Caller<'_>) -> SysResult<bool> {
        let told = self.names()?.lock().default_acl_now();
        if let Some(told) = told {
            return Ok(told);
        }
        match self.get_xattr(acl::DEFAULT, by) {
            Ok(_) => Ok(true),
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno),
        }
    }
    fn has_other_names(&self) -> bool {
        self.last_attr().nlink > 0
    }
    fn attr(&self, _by: &Caller<'_>) -> SysResult<Attr> {
        let attr = self.current()?;
        let time = |t: wire::Time| Timespec { sec: t.sec, nsec: i64::from(t.nsec) };
        Ok(Attr {
            kind: self.kind,
            perm: attr.mode & 0o7777,
            ino: self.fs.ino(&attr),
            nlink: attr.nlink,
            uid: Kuid(attr.uid),
            gid: Kgid(attr.gid),
            rdev: make_dev(attr.rdev.0, attr.rdev.1),
            size: attr.size,
            blocks: attr.blocks,
            blksize: attr.blksize,
            atime: time(attr.atime),
            mtime: time(attr.mtime),
            ctime: time(attr.ctime),
            btime: (attr.btime != wire::Time::default()).then(|| time(attr.btime)),
        })
    }
    fn set_attr(&self, change: &AttrChange, _by: &Caller<'_>) -> SysResult<()> {
        if let Some(size) = change.size {
            match self.kind {
                FileType::Regular => self.truncate(size)?,
                FileType::Directory => return Err(Errno::EISDIR),
                _ => return Err(Errno::EINVAL),
            }
        }
        let time = |t: SetTime| -> SysResult<wire::TimeChange> {
            match t {
                SetTime::Now => Ok(wire::TimeChange::Now),
                SetTime::To(t) => {
                    let nsec = u32::try_from(t.nsec).map_err(|_| Errno::EINVAL)?;
                    Ok(wire::TimeChange::To(wire::Time { sec: t.sec, nsec }))
                }
            }
        };
        let change = wire::SetAttr {
            mode: change.perm,
            uid: change.uid.map(|uid| uid.0),
            gid: change.gid.map(|gid| gid.0),
            size: None,
            atime: change.atime.map(time).transpose()?,
            mtime: change.mtime.map(time).transpose()?,
        };
        if change == wire::SetAttr::default() {
            return Ok(());
        }
        let request = Request::SetAttr { node: self.handle()?, change };
        self.fs.channel.call(&request, |reply, _| match reply {
            Reply::Attr { attr } => {
                self.store(attr);
                Ok(())
            }
            _ => Err(Errno::EIO),
        })
    }

    fn lookup(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        self.names()?;
        let inode = if self.fs.is_shared() { self.lookup_shared(name) } else { self.lookup_known(name) }?;
        Ok(inode)
    }

    fn lookup_path(&self, names: &[&[u8]], _by: &Caller<'_>) -> Option<SysResult<Vec<Arc<dyn Inode>>>> {
        let (first, dir) = (names.first()?, self.names.as_deref()?);
        let (known, version) = {
            let dir = dir.lock();
            (dir.knows(first), dir.version())
        };
        if names.len() < 2 || names.len() > LONGEST_WALK || known {
            return None;
        }
        let walk = || {
            let flags = match self.fs.is_shared() {
                true => WalkFlags::HANDLE_DIRS | WalkFlags::HANDLE_LAST,
                false => WalkFlags::HANDLE_DIRS,
            };
            let mut walked = self.walk(names, flags)?;
            let mut inodes: Vec<Arc<dyn Inode>> = Vec::with_capacity(walked.nodes.len());
            let mut dir = self.arc()?;
            let last = walked.nodes.len().saturating_sub(1);
            for (at, (name, node)) in names.iter().zip(&walked.nodes).enumerate() {
                let target = if at == last { walked.target.take() } else { None };
                let inode = dir.child(&Arc::from(*name), *node, target)?;
                inodes.push(Arc::clone(&inode) as Arc<dyn Inode>);
                dir = inode;
            }
            if walked.missing
                && let Some(name) = names.get(walked.nodes.len())
            {
                let mut names = dir.names()?.lock();
                if self.fs.is_shared() {
                    names.missed_now(name, walked.default_acl);
                } else {
                    // Of a directory that this walk did not start from, nothing can have been under way before.
                    let version = if inodes.is_empty() { version } else { names.version() };
                    names.missed(version, name);
                }
            }
            // What could not be looked at is asked for again by itself, for its error.
            SysResult::Ok(if walked.failed.is_some() { None } else { Some(inodes) })
        };
        walk().transpose()
    }

    fn revalidate_path(&self, names: &[&[u8]], cached: usize, _by: &Caller<'_>) {
        if names.len() < 2 || !self.fs.is_shared() {
            return;
        }
        // What is not known yet gets its handle with the same question.
        let flags = match cached < names.len() {
            true => WalkFlags::HANDLE_DIRS | WalkFlags::HANDLE_LAST,
            false => WalkFlags::empty(),
        };
        // Only a short cut: what fails here is asked for again by itself.
        let _ = self.revalidate_with(names, cached, flags);
    }

    fn revalidate(&self, name: &[u8], child: &Arc<dyn Inode>, _by: &Caller<'_>) -> bool {
        let Ok(child) = downcast(child) else { return false };
        if child.was_found_at(self, name) {
            return true;
        }
        match self.walk(&[name], WalkFlags::empty()) {
            Ok(Walked { nodes, .. }) => match nodes.first() {
                Some(node) if Key::of(&node.attr, &self.fs) == *child.key() => {
                    child.found_at(self, name, node.attr);
                    true
                }
                _ => false,
            },
            Err(_) => false,
        }
    }

    fn create(
        &self,
        name: &[u8],
        what: &NewNode,
        perm: ModeBits,
        given_to: Owner,
        _by: &Caller<'_>,
    ) -> SysResult<Arc<dyn Inode>> {
        let special = |kind| wire::NewNode::Special { kind };
        let node = match what {
            NewNode::Regular => {
                let (node, fd) = self.create_file(name, perm, owner(given_to))?;
                let inode = self.created(name, node)?;
                inode.xattrs.store(XATTRS_UNKNOWN, Ordering::Release);
                inode.adopt(fd, Access::READ | Access::WRITE);
                return Ok(inode);
            }
            NewNode::Directory => wire::NewNode::Directory {},
            NewNode::Symlink(target) => wire::NewNode::Symlink { target: target.as_slice().into() },
            NewNode::Fifo => special(Kind::Fifo),
            NewNode::Socket => special(Kind::Socket),
            // A whiteout of overlayfs; any other device would be the host's.
            NewNode::CharDevice(0) => special(Kind::Char),
            NewNode::CharDevice(_) | NewNode::BlockDevice(_) => return Err(Errno::EPERM),
        };
        let node = self.make(name, node, perm, owner(given_to))?;
        let inode = self.created(name, node)?;
        if let (NewNode::Directory, false, Some(names)) = (what, self.fs.is_shared(), &inode.names) {
            names.lock().set_empty();
            // It inherits from its directory, or has nothing.
            if self.xattrs.load(Ordering::Acquire) == XATTRS_NONE {
                inode.xattrs.store(XATTRS_NONE, Ordering::Release);
            }
        }
        if let NewNode::Symlink(target) = what {
            let _ = inode.target.set(target.clone());
        }
        Ok(inode)
    }

    fn create_unnamed(&self, perm: ModeBits, given_to: Owner, by: &Caller<'_>) -> SysResult<Arc<dyn Inode>> {
        match self.create_file(b"", perm, owner(given_to)) {
            Ok((node, fd)) => {
                let inode = self.fs.inode(Some((&self.arc()?, &Arc::from(&b""[..]))), node)?;
                inode.has_no_name();
                inode.adopt(fd, Access::READ | Access::WRITE);
                return Ok(inode);
            }
            Err(Errno::EOPNOTSUPP | Errno::EISDIR) => {}
            Err(errno) => return Err(errno),
        }
        // The host's file system has no such files: one whose name is taken away can be used, but not linked.
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .map_err(super::inode::host)?;
        let name = format!(".tmpfile-{:016x}", u64::from_le_bytes(random));
        let inode = self.create(name.as_bytes(), &NewNode::Regular, perm, given_to, by)?;
        self.unlink(name.as_bytes(), &inode, by)?;
        Ok(inode)
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>, _by: &Caller<'_>) -> SysResult<()> {
        let target = downcast(target)?;
        let node = wire::NewNode::Link { node: target.handle()? };
        let node = self.make(name, node, 0, wire::Owner::default())?;
        target.store(node.attr);
        let name = Arc::from(name);
        let mut names = self.names()?.lock();
        names.added(&name, self.fs.ino(&node.attr), target.kind);
        if !self.fs.is_shared() {
            names.live(&name, &target.me);
        }
        Ok(())
    }

    fn unlink(&self, name: &[u8], child: &Arc<dyn Inode>, _by: &Caller<'_>) -> SysResult<()> {
        let request = Request::Unlink { dir: self.handle()?, name: name.into() };
        self.remove(name, child, &request)
    }

    fn rmdir(&self, name: &[u8], child: &Arc<dyn Inode>, _by: &Caller<'_>) -> SysResult<()> {
        let request = Request::Rmdir { dir: self.handle()?, name: name.into() };
        self.remove(name, child, &request)
    }

    fn rename(
        &self,
        name: &[u8],
        new_dir: &Arc<dyn Inode>,
        new_name: &[u8],
        replaced: Option<&Arc<dyn Inode>>,
        flags: RenameFlags,
        _by: &Caller<'_>,
    ) -> SysResult<()> {
        let host_flags = wire::RenameFlags::from_bits(flags.bits()).ok_or(Errno::EINVAL)?;
        let to = downcast(new_dir)?;
        if !std::ptr::eq(&raw const *self.fs, &raw const *to.fs) {
            return Err(Errno::EXDEV);
        }
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let replaced = replaced.map(downcast).transpose()?;
        if let Some(replaced) = replaced
            && !exchange
        {
            let moving = self.names()?.lock().inode_at(name);
            if moving.is_some_and(|moving| std::ptr::eq(&raw const *moving, replaced)) {
                // Two names of one file: rename(2) does nothing, and both stay.
                return Ok(());
            }
            replaced.before_removal()?;
        }
        let request = Request::Rename {
            old_dir: self.handle()?,
            old_name: name.into(),
            new_dir: to.handle()?,
            new_name: new_name.into(),
            flags: host_flags,
        };
        self.fs.channel.call(&request, |reply, _| match reply {
            Reply::Changed { dir, other } => {
                self.store(dir);
                to.store(other);
                Ok(())
            }
            _ => Err(Errno::EIO),
        })?;
        let (from, to_arc) = (self.arc()?, to.arc()?);
        let (old_name, new_name): (Arc<[u8]>, Arc<[u8]>) = (Arc::from(name), Arc::from(new_name));
        let at = |dir: &RemoteInode, name: &[u8]| -> SysResult<_> {
            let names = dir.names()?.lock();
            Ok((names.inode_at(name), names.listed(name)))
        };
        let (moving, listed) = at(self, name)?;
        let (other, other_listed) = if exchange { at(to, &new_name)? } else { (None, None) };
        self.names()?.lock().removed(name);
        to.names()?.lock().removed(&new_name);
        if let Some(replaced) = replaced
            && !exchange
        {
            replaced.after_removal(to, &new_name);
        }
        let settle = |dir: &Arc<RemoteInode>, name: &Arc<[u8]>, inode: Option<&Arc<RemoteInode>>, listed| {
            let known = inode.map(|inode| (inode.fs.ino(&inode.last_attr()), inode.kind)).or(listed);
            let mut names = dir.names()?.lock();
            match known {
                Some((ino, kind)) => names.added(name, ino, kind),
                // Nobody knows what moved here: the listing must be read again.
                None => names.unlist(),
            }
            if let Some(inode) = inode.filter(|inode| !inode.fs.is_shared()) {
                names.live(name, &inode.me);
            }
            SysResult::Ok(())
        };
        settle(&to_arc, &new_name, moving.as_ref(), listed)?;
        if let Some(inode) = &moving {
            inode.moved(&to_arc, &new_name);
        }
        if flags.contains(RenameFlags::WHITEOUT) {
            // Nobody has looked at what stands at the old name now.
            self.names()?.lock().unlist();
        }
        if exchange {
            settle(&from, &old_name, other.as_ref(), other_listed)?;
            if let Some(inode) = &other {
                inode.moved(&from, &old_name);
            }
        }
        Ok(())
    }

    fn read_link(&self, _by: &Caller<'_>) -> SysResult<LinkTarget> {
        if self.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        if self.target.get().is_none() {
            let target = self.data(&Request::ReadLink { node: self.handle()? })?;
            let _ = self.target.set(target);
        }
        Ok(LinkTarget::Path(self.target.get().cloned().unwrap_or_default()))
    }

    fn open(self: Arc<Self>, flags: OpenFlags, _by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        match self.kind {
            FileType::Regular => {
                let purpose = if flags.writable() { Purpose::Write } else { Purpose::Read };
                Ok(Arc::new(RegularFile::new(self, purpose)?))
            }
            FileType::Directory if flags.writable() => Err(Errno::EISDIR),
            FileType::Directory => Ok(Arc::new(DirFile::new(self)?)),
            FileType::Symlink => Err(Errno::ELOOP),
            // Device nodes, FIFOs and sockets of the host are never opened.
            _ => Err(Errno::ENXIO),
        }
    }

    fn cache_stat(&self, offset: u64, len: u64) -> SysResult<[u64; 5]> {
        let data = self.data(&Request::CacheStat { node: self.handle()?, offset, len })?;
        let mut counts = [0; 5];
        for (count, bytes) in counts.iter_mut().zip(data.chunks_exact(8)) {
            *count = u64::from_le_bytes(bytes.try_into().map_err(|_| Errno::EIO)?);
        }
        Ok(counts)
    }
    fn flags(&self, _by: &Caller<'_>) -> SysResult<InodeFlags> {
        if !matches!(self.kind, FileType::Regular | FileType::Directory) {
            return Err(Errno::ENOTTY);
        }
        let data = self.data(&Request::GetFlags { node: self.handle()? })?;
        let bits = data.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).ok_or(Errno::EIO)?;
        Ok(InodeFlags::from_bits_retain(bits))
    }
    fn set_flags(&self, flags: InodeFlags, _by: &Caller<'_>) -> SysResult<()> {
        let result = self.fs.channel.done(&Request::SetFlags { node: self.handle()?, flags: flags.bits() });
        self.set_stale();
        result
    }

    fn get_xattr(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<Vec<u8>> {
        if self.has_no_xattrs()? {
            return Err(Errno::ENODATA);
        }
        self.data(&Request::GetXattr { node: self.handle()?, name: name.into() })
    }
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: XattrFlags, _by: &Caller<'_>) -> SysResult<()> {
        let flags = wire::XattrFlags::from_bits(flags.bits()).ok_or(Errno::EINVAL)?;
        let node = self.handle()?;
        let result =
            self.fs.channel.done(&Request::SetXattr { node, name: name.into(), value: value.into(), flags });
        self.xattrs.store(XATTRS_UNKNOWN, Ordering::Release);
        self.set_stale();
        result
    }
    fn remove_xattr(&self, name: &[u8], _by: &Caller<'_>) -> SysResult<()> {
        let result = self.fs.channel.done(&Request::RemoveXattr { node: self.handle()?, name: name.into() });
        self.xattrs.store(XATTRS_UNKNOWN, Ordering::Release);
        self.set_stale();
        result
    }
    fn list_xattr(&self, _by: &Caller<'_>) -> SysResult<Vec<Vec<u8>>> {
        if self.has_no_xattrs()? {
            return Ok(Vec::new());
        }
        let names = self.data(&Request::ListXattr { node: self.handle()? })?;
        Ok(names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }
}
