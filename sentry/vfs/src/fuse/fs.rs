//! A mounted FUSE file system: its nodes and options.

use super::connection::{Connection, From};
use super::device::Device;
use super::inode::FuseInode;
use super::message::{Entry, Put, ROOT, Take, op};
use crate::attr::FsStat;
use crate::caller::Caller;
use crate::cred::UserNamespace;
use crate::inode::{DentryHint, FileSystem, Inode};
use crate::perm::{self, Access};
use abi::fs::FileType;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

const MAGIC: u64 = 0x6573_5546;

/// Options of the mount (mount.fuse(8), as the kernel takes them).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// The server's descriptor.
    pub fd: i32,
    /// Owner of the mount, in the mounter's ids.
    pub user_id: u32,
    /// Its group.
    pub group_id: u32,
    /// The kernel checks mode bits.
    pub default_permissions: bool,
    /// Others than the owner may look.
    pub allow_other: bool,
    /// Bytes of one read; 0 for no limit.
    pub max_read: u32,
}

impl Options {
    /// From mount(2)'s text. `EINVAL` for what is unknown or missing.
    pub fn parse(data: &[u8]) -> SysResult<Options> {
        let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
        let mut options = Options { fd: -1, ..Options::default() };
        let (mut root, mut user, mut group) = (None, None, None);
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let number = || value.parse::<u32>().map_err(|_| Errno::EINVAL);
            match name {
                "fd" => options.fd = value.parse().map_err(|_| Errno::EINVAL)?,
                "rootmode" => root = Some(u32::from_str_radix(value, 8).map_err(|_| Errno::EINVAL)?),
                "user_id" => user = Some(number()?),
                "group_id" => group = Some(number()?),
                "default_permissions" if value.is_empty() => options.default_permissions = true,
                "allow_other" if value.is_empty() => options.allow_other = true,
                "max_read" => options.max_read = number()?,
                "source" | "subtype" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        let directory = root.and_then(FileType::from_mode) == Some(FileType::Directory);
        if options.fd < 0 || !directory {
            return Err(Errno::EINVAL);
        }
        options.user_id = user.ok_or(Errno::EINVAL)?;
        options.group_id = group.ok_or(Errno::EINVAL)?;
        Ok(options)
    }
}

/// See the module.
pub struct FuseFs {
    pub(super) conn: Arc<Connection>,
    pub(super) options: Options,
    pub(super) user_ns: Arc<UserNamespace>,
    dev: u64,
    me: Weak<FuseFs>,
    nodes: Ranked<order::Leaf, HashMap<u64, Weak<FuseInode>>>,
}

impl FuseFs {
    /// Mounts what `device` serves.
    pub fn mount(device: &Device, options: Options, by: &Caller<'_>) -> SysResult<Arc<FuseFs>> {
        let conn = device.connect()?;
        Ok(Arc::new_cyclic(|me| FuseFs {
            conn,
            options,
            user_ns: Arc::clone(&by.cred.user_ns),
            dev: crate::vfs::anon_dev(),
            me: Weak::clone(me),
            nodes: Ranked::new(HashMap::new()),
        }))
    }
    /// Asks the server.
    pub(super) fn call(&self, operation: u32, node: u64, body: &Put, by: &Caller<'_>) -> SysResult<Vec<u8>> {
        let from = From {
            uid: self.user_ns.show_uid(by.cred.fsuid),
            gid: self.user_ns.show_gid(by.cred.fsgid),
            pid: by.task.own_tgid(),
        };
        self.conn.call(operation, node, body, from, by)
    }
    /// The inode of an entry that the server gave, which counts as looked up once more.
    pub(super) fn node(&self, entry: &Entry) -> SysResult<Arc<FuseInode>> {
        let fs = self.me.upgrade().ok_or(Errno::ENODEV)?;
        let known = self.nodes.lock().get(&entry.node).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.kind() == entry.attr.value.kind) {
            known.seen_again(entry);
            return Ok(known);
        }
        let mut nodes = self.nodes.lock();
        let fresh = Arc::new(FuseInode::new(fs, entry.node, entry.attr.value.kind));
        nodes.insert(entry.node, Arc::downgrade(&fresh));
        drop(nodes);
        fresh.seen_again(entry);
        Ok(fresh)
    }
    /// An inode is gone.
    pub(super) fn dropped(&self, inode: &FuseInode) {
        let mut nodes = self.nodes.lock();
        if nodes.get(&inode.node).is_some_and(|known| std::ptr::eq(known.as_ptr(), inode)) {
            nodes.remove(&inode.node);
        }
    }
    /// `EACCES` for others than the owner, unless they are allowed.
    pub(super) fn check_user(&self, by: &Caller<'_>) -> SysResult<()> {
        if self.options.allow_other {
            return if self.user_ns.is_ancestor_of(&by.cred.user_ns) { Ok(()) } else { Err(Errno::EACCES) };
        }
        let (user, group) = (self.options.user_id, self.options.group_id);
        let cred = by.cred;
        let users = [cred.uid, cred.euid, cred.suid].iter().all(|id| self.user_ns.kuid(user) == Ok(*id));
        let groups = [cred.gid, cred.egid, cred.sgid].iter().all(|id| self.user_ns.kgid(group) == Ok(*id));
        if users && groups { Ok(()) } else { Err(Errno::EACCES) }
    }
    pub(super) fn check(&self, inode: &FuseInode, want: Access, by: &Caller<'_>) -> SysResult<()> {
        self.check_user(by)?;
        if self.options.default_permissions {
            return perm::check_attr(by.cred, &inode.attr(by)?, want);
        }
        // The server decides about all but running what no one may run.
        let runs = want.contains(Access::EXEC) && inode.kind() == FileType::Regular;
        if runs && inode.attr(by)?.perm & 0o111 == 0 { Err(Errno::EACCES) } else { Ok(()) }
    }
}

impl Drop for FuseFs {
    fn drop(&mut self) {
        self.conn.kill();
    }
}

impl FileSystem for FuseFs {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn name(&self) -> &'static str {
        "fuse"
    }
    fn dev(&self) -> u64 {
        self.dev
    }
    fn root(&self) -> Arc<dyn Inode> {
        let mut nodes = self.nodes.lock();
        if let Some(known) = nodes.get(&ROOT).and_then(Weak::upgrade) {
            return known;
        }
        let Some(fs) = self.me.upgrade() else { return crate::anon::no_directory() };
        let root = Arc::new(FuseInode::new(fs, ROOT, FileType::Directory));
        nodes.insert(ROOT, Arc::downgrade(&root));
        root
    }
    fn statfs(&self, by: &Caller<'_>) -> SysResult<FsStat> {
        if self.check_user(by).is_err() {
            return Ok(FsStat { magic: MAGIC, ..FsStat::default() });
        }
        let reply = self.call(op::STATFS, ROOT, &Put::default(), by)?;
        let mut from = Take(&reply);
        let (blocks, bfree, bavail) = (from.u64()?, from.u64()?, from.u64()?);
        let (files, ffree) = (from.u64()?, from.u64()?);
        let (bsize, namelen) = (from.u32()?, from.u32()?);
        let (bsize, namelen) = (u64::from(bsize), u64::from(namelen));
        Ok(FsStat { magic: MAGIC, bsize, blocks, bfree, bavail, files, ffree, namelen })
    }
    fn dentry_hint(&self) -> DentryHint {
        DentryHint::Shared
    }
    fn options(&self) -> String {
        let Options { user_id, group_id, default_permissions, allow_other, max_read, .. } = self.options;
        let mut text = format!(",user_id={user_id},group_id={group_id}");
        for (on, name) in [(default_permissions, ",default_permissions"), (allow_other, ",allow_other")] {
            if on {
                text.push_str(name);
            }
        }
        if max_read != 0 {
            text.push_str(&format!(",max_read={max_read}"));
        }
        text
    }
}
