//! getdents64(2), chdir(2), chroot(2), getcwd(2), umask(2).

use super::{base_location, walk_at};
use crate::task::Cx;
use abi::fs::FileType;
use abi::{CallResult, DirFd, Errno, Fd, UserAddr, UserCStr};
use vfs::walk::Follow;
use vfs::{Capabilities, DirSink};

/// Packs entries as `struct linux_dirent64` or the old `struct linux_dirent`.
struct Packer {
    bytes: Vec<u8>,
    room: usize,
    old: bool,
    /// An entry did not fit.
    full: bool,
}

impl DirSink for Packer {
    fn entry(&mut self, name: &[u8], ino: u64, kind: FileType, next: u64) -> bool {
        // ino, off, reclen; then type and name (new) or name, padding and type in the last byte (old).
        let head = 18;
        let len =
            (head + usize::from(!self.old) + name.len() + 1 + usize::from(self.old)).next_multiple_of(8);
        let Ok(reclen) = u16::try_from(len) else { return false };
        if self.bytes.len().saturating_add(len) > self.room {
            self.full = true;
            return false;
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&ino.to_ne_bytes());
        self.bytes.extend_from_slice(&next.to_ne_bytes());
        self.bytes.extend_from_slice(&reclen.to_ne_bytes());
        if !self.old {
            self.bytes.push(kind.dirent_type());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.resize(start.saturating_add(len), 0);
        if self.old
            && let Some(last) = self.bytes.last_mut()
        {
            *last = kind.dirent_type();
        }
        true
    }
}

fn entries(cx: &mut Cx<'_>, fd: Fd, dirent: UserAddr, count: usize, old: bool) -> CallResult<usize> {
    let file = cx.files().get_io(fd)?;
    let mut sink = Packer { bytes: Vec::new(), room: count.min(1 << 20), old, full: false };
    let before = file.position();
    file.read_dir(&mut sink, &cx.caller())?;
    if sink.bytes.is_empty() {
        // Not even one entry fits, or there is none any more.
        return if sink.full { Err(Errno::EINVAL.into()) } else { Ok(0) };
    }
    if let Err(error) = cx.mm().write_bytes(dirent, &sink.bytes) {
        file.set_position(before);
        return Err(error.into());
    }
    Ok(sink.bytes.len())
}

/// getdents64(2).
pub fn getdents64(cx: &mut Cx<'_>, fd: Fd, dirent: UserAddr, count: u32) -> CallResult<usize> {
    entries(cx, fd, dirent, usize::try_from(count).unwrap_or(usize::MAX), false)
}

/// getdents(2).
pub fn getdents(cx: &mut Cx<'_>, fd: Fd, dirent: UserAddr, count: u32) -> CallResult<usize> {
    entries(cx, fd, dirent, usize::try_from(count).unwrap_or(usize::MAX), true)
}

/// chdir(2).
pub fn chdir(cx: &mut Cx<'_>, path: UserCStr) -> CallResult<()> {
    let path = cx.path(path)?;
    let to = walk_at(cx, DirFd::Cwd, &path, |walk| {
        let to = walk.find(&path, Follow::Yes)?;
        vfs::ops::check_chdir(&to, walk.by)?;
        Ok(to)
    })?;
    cx.fs().update(|fs| fs.cwd = to);
    Ok(())
}

/// fchdir(2).
pub fn fchdir(cx: &mut Cx<'_>, fd: Fd) -> CallResult<()> {
    let to = base_location(&cx.files().get(fd)?);
    vfs::ops::check_chdir(&to, &cx.caller())?;
    cx.fs().update(|fs| fs.cwd = to);
    Ok(())
}

/// chroot(2).
pub fn chroot(cx: &mut Cx<'_>, path: UserCStr) -> CallResult<()> {
    let path = cx.path(path)?;
    let to = walk_at(cx, DirFd::Cwd, &path, |walk| {
        let to = walk.find(&path, Follow::Yes)?;
        vfs::ops::check_chdir(&to, walk.by)?;
        Ok(to)
    })?;
    if !cx.cred().has(Capabilities::SYS_CHROOT) {
        return Err(Errno::EPERM.into());
    }
    cx.fs().update(|fs| fs.root = to);
    Ok(())
}

/// getcwd(2): the length with its NUL.
pub fn getcwd(cx: &mut Cx<'_>, buf: UserAddr, size: usize) -> CallResult<usize> {
    let fs = cx.fs().snapshot();
    let shown = vfs::path::show_cwd(&fs.cwd, &fs.root);
    if shown.deleted {
        return Err(Errno::ENOENT.into());
    }
    let mut path = shown.text;
    path.push(0);
    if path.len() > size {
        return Err(Errno::ERANGE.into());
    }
    cx.mm().write_bytes(buf, &path)?;
    Ok(path.len())
}

/// umask(2).
pub fn umask(cx: &mut Cx<'_>, mask: u32) -> CallResult<u32> {
    Ok(cx.fs().set_umask(mask))
}
