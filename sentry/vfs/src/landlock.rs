//! Landlock (landlock(7)): rules that a process puts on itself and its children.
//!
//! A [`Domain`] is part of the credentials; it is a stack of layers, each of which must allow what is done.
//! A layer's rules name directories and files; what is granted above holds below, through mounts.

use crate::caller::Caller;
use crate::cred::Credentials;
use crate::dentry::Dentry;
use crate::inode_state::InodeKey;
use crate::mount::Location;
use abi::fs::FileType;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::collections::HashMap;
use std::sync::Arc;

/// What this kernel offers: files, TCP ports, device ioctls.
pub const ABI_VERSION: u32 = 5;
/// Most layers of a domain.
const LAYERS_MAX: usize = 16;

bitflags::bitflags! {
    /// `LANDLOCK_ACCESS_FS_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct FsRight: u64 {
        /// Run a file.
        const EXECUTE = 1;
        /// Open for writing.
        const WRITE_FILE = 1 << 1;
        /// Open for reading.
        const READ_FILE = 1 << 2;
        /// Open a directory or list it.
        const READ_DIR = 1 << 3;
        /// Remove an empty directory.
        const REMOVE_DIR = 1 << 4;
        /// Remove a file.
        const REMOVE_FILE = 1 << 5;
        /// Make a character device.
        const MAKE_CHAR = 1 << 6;
        /// Make a directory.
        const MAKE_DIR = 1 << 7;
        /// Make a regular file.
        const MAKE_REG = 1 << 8;
        /// Make a socket.
        const MAKE_SOCK = 1 << 9;
        /// Make a named pipe.
        const MAKE_FIFO = 1 << 10;
        /// Make a block device.
        const MAKE_BLOCK = 1 << 11;
        /// Make a symbolic link.
        const MAKE_SYM = 1 << 12;
        /// Link or rename between directories.
        const REFER = 1 << 13;
        /// Truncate.
        const TRUNCATE = 1 << 14;
        /// ioctl(2) on devices.
        const IOCTL_DEV = 1 << 15;
    }
}

impl FsRight {
    /// Those that make sense for what is no directory.
    pub const OF_FILES: FsRight = FsRight::EXECUTE
        .union(FsRight::WRITE_FILE)
        .union(FsRight::READ_FILE)
        .union(FsRight::TRUNCATE)
        .union(FsRight::IOCTL_DEV);
}

bitflags::bitflags! {
    /// `LANDLOCK_ACCESS_NET_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct NetRight: u64 {
        /// Bind a TCP socket.
        const BIND_TCP = 1;
        /// Connect a TCP socket.
        const CONNECT_TCP = 1 << 1;
    }
}

/// What a ruleset handles: everything else of it is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Handled {
    /// Files.
    pub fs: FsRight,
    /// Ports.
    pub net: NetRight,
}

/// One rule about files; the dentry keeps the inode's number from meaning another file.
#[derive(Clone, Debug)]
struct FsRule {
    rights: FsRight,
    _place: Arc<Dentry>,
}

#[derive(Clone, Debug, Default)]
struct Rules {
    fs: HashMap<InodeKey, FsRule>,
    net: HashMap<u16, NetRight>,
}

/// A set of rules that is still being written (landlock_create_ruleset(2)).
#[derive(Debug)]
pub struct Ruleset {
    /// What it handles.
    pub handled: Handled,
    rules: Ranked<order::Leaf, Rules>,
}

impl Ruleset {
    /// Without rules.
    #[must_use]
    pub fn new(handled: Handled) -> Ruleset {
        Ruleset { handled, rules: Ranked::new(Rules::default()) }
    }
    /// LANDLOCK_RULE_PATH_BENEATH. `EINVAL` for rights of directories on something else.
    pub fn add_place(&self, at: &Location, rights: FsRight, by: &Caller<'_>) -> SysResult<()> {
        if !at.dentry.is_dir() && !FsRight::OF_FILES.contains(rights) {
            return Err(Errno::EINVAL);
        }
        let key = at.dentry.key(Some(by)).ok_or(Errno::EIO)?;
        let mut rules = self.rules.lock();
        let rule = rules
            .fs
            .entry(key)
            .or_insert_with(|| FsRule { rights: FsRight::empty(), _place: Arc::clone(&at.dentry) });
        rule.rights |= rights;
        Ok(())
    }
    /// LANDLOCK_RULE_NET_PORT.
    pub fn add_port(&self, port: u16, rights: NetRight) {
        *self.rules.lock().net.entry(port).or_default() |= rights;
    }
}

#[derive(Debug)]
struct Layer {
    handled: Handled,
    rules: Rules,
}

/// What a task may do: every layer must agree.
#[derive(Debug)]
pub struct Domain {
    parent: Option<Arc<Domain>>,
    layers: Vec<Arc<Layer>>,
}

impl Domain {
    /// landlock_restrict_self(2): one more layer. `E2BIG` when there are too many.
    pub fn restrict(parent: Option<&Arc<Domain>>, ruleset: &Ruleset) -> SysResult<Arc<Domain>> {
        let mut layers = parent.map_or_else(Vec::new, |parent| parent.layers.clone());
        if layers.len() >= LAYERS_MAX {
            return Err(Errno::E2BIG);
        }
        let rules = ruleset.rules.lock().clone();
        layers.push(Arc::new(Layer { handled: ruleset.handled, rules }));
        Ok(Arc::new(Domain { parent: parent.cloned(), layers }))
    }
    /// What each layer grants at a place: what it does not handle, and what its rules say here and above.
    fn granted(&self, at: &Location, by: &Caller<'_>) -> Vec<FsRight> {
        // Linking between directories is denied by every layer that does not grant it.
        let start = |layer: &Arc<Layer>| FsRight::all() - layer.handled.fs - FsRight::REFER;
        let mut granted: Vec<FsRight> = self.layers.iter().map(start).collect();
        if is_private(at) {
            return vec![FsRight::all(); self.layers.len()];
        }
        let mut here = at.clone();
        loop {
            if let Some(key) = here.dentry.key(Some(by)) {
                for (have, layer) in granted.iter_mut().zip(&self.layers) {
                    *have |= layer.rules.fs.get(&key).map_or(FsRight::empty(), |rule| rule.rights);
                }
            }
            // A mount hides the place it is on: its rules do not count.
            while here.is_mount_root() {
                match here.mount.above() {
                    Some((mount, dentry)) => here = Location { mount, dentry },
                    None => return granted,
                }
            }
            match here.dentry.parent() {
                Some(parent) => here.dentry = parent,
                None => return granted,
            }
        }
    }
    /// Rights that every layer grants at a place.
    #[must_use]
    pub fn rights_at(&self, at: &Location, by: &Caller<'_>) -> FsRight {
        self.granted(at, by).into_iter().fold(FsRight::all(), |all, one| all & (one | FsRight::REFER))
    }
    /// link(2) and rename(2) of `kind` from one directory into another. `EXDEV` where only REFER is missing.
    fn refer(&self, from: &Location, to: &Location, needs: Moves, by: &Caller<'_>) -> SysResult<()> {
        let (old, new) = (self.granted(from, by), self.granted(to, by));
        for ((old, new), layer) in old.iter().zip(&new).zip(&self.layers) {
            if !old.contains(needs.from) || !new.contains(needs.to) {
                return Err(Errno::EACCES);
            }
            let cares = if needs.dir { FsRight::all() } else { FsRight::OF_FILES };
            let gains = (*new - *old) & layer.handled.fs & cares;
            if !old.contains(FsRight::REFER) || !new.contains(FsRight::REFER) || !gains.is_empty() {
                return Err(Errno::EXDEV);
            }
        }
        Ok(())
    }
    fn is_ancestor_of(&self, other: Option<&Arc<Domain>>) -> bool {
        let mut at = other;
        while let Some(domain) = at {
            if std::ptr::eq(Arc::as_ptr(domain), self) {
                return true;
            }
            at = domain.parent.as_ref();
        }
        false
    }
}

/// What a move asks of the two directories.
#[derive(Clone, Copy)]
struct Moves {
    from: FsRight,
    to: FsRight,
    dir: bool,
}

/// Pipes, sockets and other files without a name are not restricted.
fn is_private(at: &Location) -> bool {
    at.mount.namespace().is_none() && at.mount.above().is_none() && crate::anon::file_of(at).is_some()
}

/// `EACCES` unless the caller's domain grants `want` at a place.
pub fn check(at: &Location, want: FsRight, by: &Caller<'_>) -> SysResult<()> {
    let Some(domain) = &by.cred.landlock else { return Ok(()) };
    if want.is_empty() || domain.rights_at(at, by).contains(want) { Ok(()) } else { Err(Errno::EACCES) }
}

/// The right to make a node of this kind.
#[must_use]
pub fn right_to_make(kind: FileType) -> FsRight {
    match kind {
        FileType::Directory => FsRight::MAKE_DIR,
        FileType::Symlink => FsRight::MAKE_SYM,
        FileType::Fifo => FsRight::MAKE_FIFO,
        FileType::Socket => FsRight::MAKE_SOCK,
        FileType::CharDevice => FsRight::MAKE_CHAR,
        FileType::BlockDevice => FsRight::MAKE_BLOCK,
        _ => FsRight::MAKE_REG,
    }
}

fn right_to_remove(kind: FileType) -> FsRight {
    if kind == FileType::Directory { FsRight::REMOVE_DIR } else { FsRight::REMOVE_FILE }
}

/// link(2): the new name in `to` of something that has one in `from`.
pub fn check_link(from: &Location, to: &Location, kind: FileType, by: &Caller<'_>) -> SysResult<()> {
    let Some(domain) = &by.cred.landlock else { return Ok(()) };
    let make = right_to_make(kind);
    if from == to {
        return check(to, make, by);
    }
    let dir = kind == FileType::Directory;
    domain.refer(from, to, Moves { from: FsRight::empty(), to: make, dir }, by)
}

/// rename(2): `old` moves from one directory to another, over or in exchange for `new`.
pub fn check_rename(
    (from, old): (&Location, FileType),
    (to, new): (&Location, Option<FileType>),
    swap: bool,
    by: &Caller<'_>,
) -> SysResult<()> {
    let Some(domain) = &by.cred.landlock else { return Ok(()) };
    let mut leave = right_to_remove(old);
    let mut arrive = right_to_make(old);
    if let Some(new) = new {
        arrive |= right_to_remove(new);
        if swap {
            leave |= right_to_make(new);
        }
    }
    if from == to {
        return check(from, leave | arrive, by);
    }
    let dir = old == FileType::Directory || (swap && new == Some(FileType::Directory));
    domain.refer(from, to, Moves { from: leave, to: arrive, dir }, by)?;
    if swap {
        domain.refer(to, from, Moves { from: arrive, to: leave, dir }, by)?;
    }
    Ok(())
}

/// `EPERM` when a restricted task wants to change mounts.
pub fn check_mounts(cred: &Credentials) -> SysResult<()> {
    if cred.landlock.is_some() { Err(Errno::EPERM) } else { Ok(()) }
}

/// `EPERM` unless `target` is restricted at least as much as the caller.
pub fn check_trace(cred: &Credentials, target: &Credentials) -> SysResult<()> {
    match &cred.landlock {
        Some(domain) if !domain.is_ancestor_of(target.landlock.as_ref()) => Err(Errno::EPERM),
        _ => Ok(()),
    }
}

/// `EACCES` unless the domain lets the caller bind or connect this TCP port.
pub fn check_port(cred: &Credentials, port: u16, want: NetRight) -> SysResult<()> {
    let Some(domain) = &cred.landlock else { return Ok(()) };
    let denied = |layer: &Arc<Layer>| {
        let granted = layer.rules.net.get(&port).copied().unwrap_or_default();
        !(want & (layer.handled.net - granted)).is_empty()
    };
    if domain.layers.iter().any(denied) { Err(Errno::EACCES) } else { Ok(()) }
}
