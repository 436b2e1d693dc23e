//! Path walks (path_resolution(7), openat2(2)).
//!
//! [`Walk`] is what a path call knows: root and working directory, base directory, caller, RESOLVE_*
//! flags. A walk over cached names allocates nothing; a symbolic link replaces the text that is left.

use crate::caller::Caller;
use crate::dentry::Dentry;
use crate::inode::LinkTarget;
use crate::mount::{Location, MountFlags, MountNamespace};
use crate::path;
use crate::perm;
use abi::fs::FileType;
use abi::limits::{MAX_SYMLINKS, NAME_MAX, PATH_MAX};
use abi::{Errno, SysResult};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::sync::Arc;

bitflags::bitflags! {
    /// `RESOLVE_*` of openat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Resolve: u64 {
        /// No mount point is crossed.
        const NO_XDEV = 1;
        /// No magic link is followed.
        const NO_MAGICLINKS = 2;
        /// No symbolic link is followed.
        const NO_SYMLINKS = 4;
        /// Everything stays below the base directory.
        const BENEATH = 8;
        /// The base directory is the root.
        const IN_ROOT = 0x10;
        /// Only what is cached.
        const CACHED = 0x20;
    }
}

/// Root, working directory and mask of a process (CLONE_FS). A value: changes make a new one.
#[derive(Clone, Debug)]
pub struct FsContext {
    /// chroot(2).
    pub root: Location,
    /// chdir(2).
    pub cwd: Location,
    /// umask(2).
    pub umask: u32,
    /// The mount namespace.
    pub ns: Arc<MountNamespace>,
}

impl FsContext {
    /// At the root of `ns`.
    #[must_use]
    pub fn at_root_of(ns: &Arc<MountNamespace>) -> FsContext {
        let root = ns.root_location();
        FsContext { cwd: root.clone(), root, umask: 0o022, ns: Arc::clone(ns) }
    }
}

/// What a path operation starts from.
#[derive(Clone, Copy)]
pub struct Walk<'a> {
    /// Root, working directory, mount namespace.
    pub fs: &'a FsContext,
    /// Base of relative paths; `None` is the working directory.
    pub at: Option<&'a Location>,
    /// Who walks.
    pub by: &'a Caller<'a>,
    /// Restrictions.
    pub resolve: Resolve,
}

/// A short name without a heap allocation.
pub type Name = SmallVec<[u8; 40]>;

/// The last component of a path whose parent was walked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// A name.
    Name(Name),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// Only slashes: the root.
    Root,
}

/// A parent directory and a last component.
#[derive(Clone, Debug)]
pub struct Parent {
    /// The directory.
    pub dir: Location,
    /// What stands behind its slash.
    pub last: Last,
    /// Whether slashes follow.
    pub slash: bool,
}

impl Parent {
    /// The name, or `error` when the path ends in something that is no name.
    pub fn name_or(&self, error: Errno) -> SysResult<&[u8]> {
        match &self.last {
            Last::Name(name) => Ok(name),
            _ => Err(error),
        }
    }
}

/// Whether a final symbolic link is followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Follow {
    /// Yes.
    Yes,
    /// No (O_NOFOLLOW, AT_SYMLINK_NOFOLLOW, lstat).
    No,
}

/// Where a walk ended.
#[derive(Clone, Debug)]
pub enum Target {
    /// There.
    Found(Location),
    /// The last component does not exist.
    Missing(Parent),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Parent,
    Last(Follow),
}

enum End {
    Target(Target),
    Parent(Parent),
}

impl<'a> Walk<'a> {
    /// A walk without a base directory or restrictions.
    #[must_use]
    pub fn new(fs: &'a FsContext, by: &'a Caller<'a>) -> Walk<'a> {
        Walk { fs, at: None, by, resolve: Resolve::empty() }
    }
    /// The same with another base.
    #[must_use]
    pub fn at(self, base: Option<&'a Location>) -> Walk<'a> {
        Walk { at: base, ..self }
    }
    /// The base directory.
    #[must_use]
    pub fn base(&self) -> &'a Location {
        self.at.unwrap_or(&self.fs.cwd)
    }
    /// The base itself for an empty path (AT_EMPTY_PATH), else where `path` leads.
    pub fn find_or_base(&self, path: &[u8], follow: Follow) -> SysResult<Location> {
        if path.is_empty() { Ok(self.base().clone()) } else { self.find(path, follow) }
    }
    /// Where `path` leads; `ENOENT` when it does not exist.
    pub fn find(&self, path: &[u8], follow: Follow) -> SysResult<Location> {
        match self.run(path, Until::Last(follow))? {
            End::Target(Target::Found(at)) => Ok(at),
            _ => Err(Errno::ENOENT),
        }
    }
    /// Where `path` leads, or the parent of what is missing.
    pub fn target(&self, path: &[u8], follow: Follow) -> SysResult<Target> {
        match self.run(path, Until::Last(follow))? {
            End::Target(target) => Ok(target),
            End::Parent(parent) => Ok(Target::Missing(parent)),
        }
    }
    /// The parent directory and last component of `path`.
    pub fn parent(&self, path: &[u8]) -> SysResult<Parent> {
        match self.run(path, Until::Parent)? {
            End::Parent(parent) | End::Target(Target::Missing(parent)) => Ok(parent),
            End::Target(Target::Found(_)) => Err(Errno::ENOENT),
        }
    }

    fn root(&self) -> &'a Location {
        if self.resolve.contains(Resolve::IN_ROOT) { self.base() } else { &self.fs.root }
    }
    /// Where the walk may not climb above.
    fn fence(&self) -> &'a Location {
        if self.resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT) { self.base() } else { &self.fs.root }
    }

    fn run(&self, path: &[u8], until: Until) -> SysResult<End> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if path.contains(&0) {
            return Err(Errno::EINVAL);
        }
        let mut text: Cow<'_, [u8]> = Cow::Borrowed(path);
        let mut links = 0u32;
        let mut at = self.start(&text)?;
        let mut pos = 0usize;
        let mut asked_ahead = false;
        loop {
            let Some(part) = next_part(&text, pos) else {
                // Only slashes (or a text that became empty by a link to "/").
                if until == Until::Parent {
                    return Ok(End::Parent(Parent { dir: at, last: Last::Root, slash: true }));
                }
                return Ok(End::Target(Target::Found(at)));
            };
            let name = text.get(part.start..part.end).unwrap_or_default();
            if at.dentry.is_negative() {
                return Err(Errno::ENOENT);
            }
            if !at.dentry.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            let inode = at.inode()?;
            perm::may_search(inode, self.by)?;
            if part.last && until == Until::Parent {
                let last = match name {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ if name.len() > NAME_MAX => return Err(Errno::ENAMETOOLONG),
                    _ => Last::Name(Name::from_slice(name)),
                };
                return Ok(End::Parent(Parent { dir: at, last, slash: part.slash }));
            }
            if name == b"." {
                pos = part.end;
                continue;
            }
            if name == b".." {
                at = self.up(at)?;
                pos = part.end;
                continue;
            }
            if name.len() > NAME_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            if !part.last && !asked_ahead && at.dentry.is_shared() && at.dentry.cached(name).is_some() {
                let names = plain_components(&text, part.start);
                at.inode()?.revalidate_path(&names, at.dentry.cached_depth(&names), self.by);
                asked_ahead = true;
            }
            let child = match at.dentry.known(name, self.by) {
                Some(child) => child,
                None if self.resolve.contains(Resolve::CACHED) => return Err(Errno::EAGAIN),
                None => {
                    if !part.last {
                        // What it found is as fresh as can be.
                        asked_ahead |= self.prefetch(&at.dentry, &text, part.start)?;
                    }
                    at.dentry.lookup(name, self.by)?
                }
            };
            let mut next = Location { mount: Arc::clone(&at.mount), dentry: child };
            if next.dentry.mounted() > 0 && next.enter_mounts() {
                if self.resolve.contains(Resolve::NO_XDEV) {
                    return Err(Errno::EXDEV);
                }
                asked_ahead = false;
            }
            let Some(kind) = next.kind() else {
                if part.last {
                    let last = Last::Name(Name::from_slice(name));
                    let parent = Parent { dir: at, last, slash: part.slash };
                    return Ok(End::Target(Target::Missing(parent)));
                }
                return Err(Errno::ENOENT);
            };
            let follow = !part.last || part.slash || until == Until::Last(Follow::Yes);
            if kind == FileType::Symlink && follow {
                links += 1;
                if links > MAX_SYMLINKS || self.resolve.contains(Resolve::NO_SYMLINKS) {
                    return Err(Errno::ELOOP);
                }
                if next.mount.flags().contains(MountFlags::NOSYMFOLLOW) {
                    return Err(Errno::ELOOP);
                }
                if part.last {
                    crate::protected::may_follow(inode, next.inode()?, self.by)?;
                }
                match next.inode()?.read_link(self.by)? {
                    LinkTarget::Path(target) => {
                        if target.is_empty() {
                            return Err(Errno::ENOENT);
                        }
                        let rest = text.get(part.end..).unwrap_or_default();
                        let mut joined = Vec::with_capacity(target.len() + rest.len());
                        joined.extend_from_slice(&target);
                        joined.extend_from_slice(rest);
                        if joined.first() == Some(&b'/') {
                            at = self.start(&joined)?;
                        }
                        text = Cow::Owned(joined);
                        pos = 0;
                        asked_ahead = false;
                    }
                    LinkTarget::Magic(target) => {
                        at = self.jump(&target, &at)?;
                        pos = part.end;
                        if part.last && !part.slash {
                            return Ok(End::Target(Target::Found(at)));
                        }
                    }
                }
                continue;
            }
            if part.last {
                if part.slash && kind != FileType::Directory {
                    return Err(Errno::ENOTDIR);
                }
                return Ok(End::Target(Target::Found(next)));
            }
            at = next;
            pos = part.end;
        }
    }

    fn start(&self, text: &[u8]) -> SysResult<Location> {
        if text.first() == Some(&b'/') {
            if self.resolve.contains(Resolve::BENEATH) {
                return Err(Errno::EXDEV);
            }
            let root = self.root();
            if self.resolve.contains(Resolve::NO_XDEV) && !Arc::ptr_eq(&root.mount, &self.base().mount) {
                return Err(Errno::EXDEV);
            }
            return Ok(root.clone());
        }
        Ok(self.base().clone())
    }

    /// `..` from a directory.
    fn up(&self, at: Location) -> SysResult<Location> {
        if at == *self.fence() {
            return if self.resolve.contains(Resolve::BENEATH) { Err(Errno::EXDEV) } else { Ok(at) };
        }
        if at == self.fs.root {
            return Ok(at);
        }
        let mut here = at;
        while here.is_mount_root() {
            let Some((mount, dentry)) = here.mount.above() else { return Ok(here) };
            if self.resolve.contains(Resolve::NO_XDEV) {
                return Err(Errno::EXDEV);
            }
            here = Location { mount, dentry };
            if here == self.fs.root {
                return Ok(here);
            }
        }
        if let Some(parent) = here.dentry.parent() {
            here.dentry = parent;
        }
        if here.enter_mounts() && self.resolve.contains(Resolve::NO_XDEV) {
            return Err(Errno::EXDEV);
        }
        // Somebody moved the directory out from under the fence while we climbed.
        if self.resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT)
            && !path::is_below(&here, self.fence())
        {
            return Err(Errno::EAGAIN);
        }
        Ok(here)
    }

    fn jump(&self, target: &Arc<dyn std::any::Any + Send + Sync>, from: &Location) -> SysResult<Location> {
        if self.resolve.intersects(Resolve::NO_MAGICLINKS) {
            return Err(Errno::ELOOP);
        }
        if self.resolve.intersects(Resolve::BENEATH | Resolve::IN_ROOT) {
            return Err(Errno::EXDEV);
        }
        let place = if let Some(place) = target.downcast_ref::<Location>() {
            place.clone()
        } else if let Ok(file) = Arc::clone(target).downcast::<crate::file::OpenFile>() {
            crate::anon::location_of(&file)
        } else {
            return Err(Errno::EACCES);
        };
        if self.resolve.contains(Resolve::NO_XDEV) && !Arc::ptr_eq(&place.mount, &from.mount) {
            return Err(Errno::EXDEV);
        }
        Ok(place)
    }

    /// Asks a costly file system for the plain components ahead in one question.
    fn prefetch(&self, dir: &Arc<Dentry>, text: &[u8], from: usize) -> SysResult<bool> {
        let names = plain_components(text, from);
        if names.len() > 1 { dir.prefetch(&names, self.by) } else { Ok(false) }
    }
}

/// Names to follow from `from` on, up to one that is not a plain name.
fn plain_components(text: &[u8], from: usize) -> SmallVec<[&[u8]; 16]> {
    let mut names: SmallVec<[&[u8]; 16]> = SmallVec::new();
    let mut pos = from;
    while names.len() < 16
        && let Some(part) = next_part(text, pos)
    {
        let name = text.get(part.start..part.end).unwrap_or_default();
        if name == b"." || name == b".." || name.len() > NAME_MAX {
            break;
        }
        names.push(name);
        pos = part.end;
    }
    names
}

struct Part {
    start: usize,
    end: usize,
    last: bool,
    slash: bool,
}

fn next_part(text: &[u8], pos: usize) -> Option<Part> {
    let tail = text.get(pos..)?;
    let start = pos + tail.iter().position(|b| *b != b'/')?;
    let word = text.get(start..)?;
    let len = word.iter().position(|b| *b == b'/').unwrap_or(word.len());
    let end = start + len;
    let rest = text.get(end..).unwrap_or_default();
    let last = rest.iter().all(|b| *b == b'/');
    Some(Part { start, end, last, slash: last && !rest.is_empty() })
}
