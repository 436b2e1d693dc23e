//! Sockets.

pub mod message;
pub mod options;
pub mod socket;

use crate::task::Cx;
use abi::fs::FileType;
use abi::{CallResult, DirFd, Errno, Fd, SysResult, UserAddr, UserPtr};
use net::addr::{MAX_ADDR, SockAddr};
use std::sync::Arc;
use vfs::perm::{self, Access};
use vfs::{Follow, NewNode, OpenFile, ops};

/// The open file of a socket descriptor.
pub(super) fn file(cx: &Cx<'_>, fd: Fd) -> SysResult<Arc<OpenFile>> {
    cx.files().get_io(fd)
}

/// Copies an address in.
pub(super) fn address(cx: &Cx<'_>, addr: UserAddr, len: u32) -> SysResult<SockAddr> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len > MAX_ADDR {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; len];
    cx.mm().read_bytes(addr, &mut bytes)?;
    SockAddr::parse(&bytes)
}

/// Copies an address out, cut to the caller's buffer; the real length is stored either way. A null `addr` is a
/// fault unless the buffer has no room.
pub(super) fn store_address(cx: &Cx<'_>, addr: UserAddr, len: UserPtr<i32>, value: &[u8]) -> SysResult<()> {
    let room: i32 = cx.read(len)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    cx.mm().write_bytes(addr, value.get(..room).unwrap_or(value))?;
    cx.write(len, &i32::try_from(value.len()).unwrap_or(i32::MAX))
}

/// A pidfd of a process, by its id of the initial namespace; `ESRCH`.
pub(super) fn process_file(cx: &Cx<'_>, pid: u32) -> SysResult<Arc<OpenFile>> {
    let process = cx.kernel().tree.lock().node(pid).map(|node| Arc::clone(&node.process));
    Ok(crate::process::pidfd::open(&process.ok_or(Errno::ESRCH)?))
}

/// Finds the file of an AF_UNIX path that is connected or sent to (unix(7)).
pub(super) fn resolve(cx: &Cx<'_>, addr: SockAddr) -> CallResult<SockAddr> {
    let Some(path) = addr.path().map(<[u8]>::to_vec) else { return Ok(addr) };
    let by = cx.caller();
    let at = super::fs::place(cx, DirFd::Cwd, &path, 0, Follow::Yes)?;
    perm::check(&at, Access::WRITE, &by)?;
    if at.kind() != Some(FileType::Socket) {
        return Err(Errno::ECONNREFUSED.into());
    }
    let ino = at.inode()?.attr(&by)?.ino;
    Ok(addr.with_node(at.mount.sb.fs.dev(), ino))
}

/// Makes the file of an AF_UNIX path that is bound.
pub(super) fn make_node(cx: &Cx<'_>, addr: SockAddr) -> CallResult<SockAddr> {
    let Some(path) = addr.path().map(<[u8]>::to_vec) else { return Ok(addr) };
    let by = cx.caller();
    let at = super::fs::walk_at(cx, DirFd::Cwd, &path, |walk| {
        match ops::make(walk, &path, &NewNode::Socket, 0o777 & !by.umask) {
            Err(Errno::EEXIST) => Err(Errno::EADDRINUSE.into()),
            other => Ok(other?),
        }
    })?;
    let ino = at.inode()?.attr(&by)?.ino;
    Ok(addr.with_node(at.mount.sb.fs.dev(), ino))
}
