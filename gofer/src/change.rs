//! Changing directories: create, mkdir, mknod, symlink, link, unlink, rename.

use crate::confine::{component, create, create_unnamed, host, lookup, own_name, reopen, stat_fd};
use crate::handle::Held;
use crate::server::{Answer, Server};
use crate::walk::open_flags;
use abi::{Errno, SysResult};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid};
use std::os::fd::{AsFd, BorrowedFd};
use wire::{Access, Attr, Handle, Kind, NewNode, Node, Owner, Reply};

/// Which removal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// unlink(2).
    File,
    /// rmdir(2).
    Directory,
}

const PERMISSIONS: u32 = 0o7777;
const SET_IDS: u32 = 0o6000;

impl Server {
    fn writable_dir(&self, dir: Handle) -> SysResult<&Held> {
        let held = self.writable(dir)?;
        if held.kind == Kind::Directory { Ok(held) } else { Err(Errno::ENOTDIR) }
    }

    pub(crate) fn create(
        &mut self,
        dir: Handle,
        name: &[u8],
        mode: u32,
        owner: Owner,
        access: Access,
    ) -> SysResult<Answer> {
        let dir = self.writable_dir(dir)?;
        if self.handles.room() == 0 {
            return Err(Errno::EMFILE);
        }
        let export = dir.export;
        let unnamed = access.contains(Access::UNNAMED) && name.is_empty();
        let flags = open_flags(access - Access::UNNAMED)?;
        let parent = dir.fd.as_fd();
        let permissions = Mode::from_raw_mode(mode & PERMISSIONS);
        let fd = if unnamed {
            create_unnamed(parent, flags, permissions)?
        } else {
            create(parent, name, flags, permissions)?
        };
        let made = reopen(fd.as_fd(), OFlags::PATH)
            .and_then(|path| give(path.as_fd(), Kind::Regular, mode, owner).map(|attr| (path, attr)));
        let (path, attr) = match made {
            Ok(made) => made,
            Err(errno) => {
                // The caller sees the first error; a leftover is better than a second one.
                if !unnamed {
                    let _ = rustix::fs::unlinkat(parent, component(name)?, AtFlags::empty());
                }
                return Err(errno);
            }
        };
        let dir = stat_fd(parent)?;
        let handle = self.handles.insert(Held { fd: path, kind: Kind::Regular, export, listing: None })?;
        Ok(Answer::with(Reply::Created { node: Node { handle, attr }, dir }, fd))
    }

    pub(crate) fn make(
        &mut self,
        dir: Handle,
        name: &[u8],
        node: &NewNode<'_>,
        mode: u32,
        owner: Owner,
    ) -> SysResult<Answer> {
        let held = self.writable_dir(dir)?;
        let (parent, export) = (held.fd.as_fd(), held.export);
        let name = component(name)?;
        if self.handles.room() == 0 {
            return Err(Errno::EMFILE);
        }
        let permissions = Mode::from_raw_mode(mode & PERMISSIONS);
        let kind = match node {
            NewNode::Directory {} => {
                rustix::fs::mkdirat(parent, name, permissions).map_err(host)?;
                Kind::Directory
            }
            NewNode::Special { kind } => {
                let file_type = match kind {
                    Kind::Fifo => FileType::Fifo,
                    Kind::Socket => FileType::Socket,
                    Kind::Regular => FileType::RegularFile,
                    // Device 0:0 names no driver: overlayfs's whiteout.
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Directory | Kind::Block | Kind::Symlink | Kind::Unknown => {
                        return Err(Errno::EPERM);
                    }
                };
                rustix::fs::mknodat(parent, name, file_type, permissions, 0).map_err(host)?;
                *kind
            }
            NewNode::Symlink { target } => {
                if target.is_empty() {
                    return Err(Errno::ENOENT);
                }
                rustix::fs::symlinkat(&**target, parent, name).map_err(host)?;
                Kind::Symlink
            }
            NewNode::Link { node } => {
                let target = self.handles.get(*node)?;
                if target.export != export {
                    return Err(Errno::EXDEV);
                }
                if target.kind == Kind::Directory {
                    return Err(Errno::EPERM);
                }
                let from = own_name(target.fd.as_fd());
                rustix::fs::linkat(CWD, from, parent, name, AtFlags::SYMLINK_FOLLOW).map_err(host)?;
                let attr = stat_fd(target.fd.as_fd())?;
                let dir = stat_fd(parent)?;
                return Ok(Reply::Created { node: Node { handle: *node, attr }, dir }.into());
            }
        };
        let made =
            lookup(parent, name).and_then(|fd| give(fd.as_fd(), kind, mode, owner).map(|attr| (fd, attr)));
        let (fd, attr) = match made {
            Ok(made) => made,
            Err(errno) => {
                let flags = if kind == Kind::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                // As in `create`.
                let _ = rustix::fs::unlinkat(parent, name, flags);
                return Err(errno);
            }
        };
        let dir = stat_fd(parent)?;
        let handle = self.handles.insert(Held { fd, kind, export, listing: None })?;
        Ok(Reply::Created { node: Node { handle, attr }, dir }.into())
    }

    pub(crate) fn unlink(&mut self, dir: Handle, name: &[u8], removal: Removal) -> SysResult<Answer> {
        let dir = self.writable_dir(dir)?;
        let flags = match removal {
            Removal::File => AtFlags::empty(),
            Removal::Directory => AtFlags::REMOVEDIR,
        };
        rustix::fs::unlinkat(&dir.fd, component(name)?, flags).map_err(host)?;
        let dir = stat_fd(dir.fd.as_fd())?;
        Ok(Reply::Changed { dir, other: dir }.into())
    }

    pub(crate) fn rename(
        &mut self,
        old: (Handle, &[u8]),
        new: (Handle, &[u8]),
        flags: wire::RenameFlags,
    ) -> SysResult<Answer> {
        let (old_dir, new_dir) = (self.writable_dir(old.0)?, self.writable_dir(new.0)?);
        if old_dir.export != new_dir.export {
            return Err(Errno::EXDEV);
        }
        let (old_name, new_name) = (component(old.1)?, component(new.1)?);
        let mut host_flags = rustix::fs::RenameFlags::empty();
        if flags.contains(wire::RenameFlags::NOREPLACE) {
            host_flags |= rustix::fs::RenameFlags::NOREPLACE;
        }
        if flags.contains(wire::RenameFlags::EXCHANGE) {
            host_flags |= rustix::fs::RenameFlags::EXCHANGE;
        }
        if flags.contains(wire::RenameFlags::WHITEOUT) {
            // Device 0:0 names no driver.
            host_flags |= rustix::fs::RenameFlags::WHITEOUT;
        }
        rustix::fs::renameat_with(&old_dir.fd, old_name, &new_dir.fd, new_name, host_flags).map_err(host)?;
        let (dir, other) = (stat_fd(old_dir.fd.as_fd())?, stat_fd(new_dir.fd.as_fd())?);
        Ok(Reply::Changed { dir, other }.into())
    }
}

/// Gives a node that this process has just made its owner and mode, and returns its attributes.
fn give(fd: BorrowedFd<'_>, kind: Kind, mode: u32, owner: Owner) -> SysResult<Attr> {
    let attr = stat_fd(fd)?;
    let me = rustix::process::geteuid().as_raw();
    // On a shared export somebody may have put another node in its place: that one is not ours to give away.
    if attr.kind() != kind || (kind != Kind::Directory && attr.nlink > 1) || attr.uid != me {
        return Err(Errno::ESTALE);
    }
    let mut changed = false;
    if (attr.uid, attr.gid) != (owner.uid, owner.gid) {
        chown(fd, Some(owner.uid), Some(owner.gid))?;
        changed = true;
    }
    if kind != Kind::Symlink && (mode & SET_IDS != 0 || (attr.mode ^ mode) & SET_IDS != 0) {
        chmod(fd, mode)?;
        changed = true;
    }
    if changed { stat_fd(fd) } else { Ok(attr) }
}

pub(crate) fn chown(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> SysResult<()> {
    // The all-ones id means "leave it" to the host.
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::EINVAL);
    }
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH).map_err(host)
}

pub(crate) fn chmod(fd: BorrowedFd<'_>, mode: u32) -> SysResult<()> {
    let mode = Mode::from_raw_mode(mode & PERMISSIONS);
    rustix::fs::chmodat(CWD, own_name(fd), mode, AtFlags::empty()).map_err(host)
}
