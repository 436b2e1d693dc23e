//! open(2), openat2(2), close(2), close_range(2), memfd_create(2).

use super::walk_with;
use crate::files::OnExec;
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::stat::OpenHow;
use abi::{CallResult, DirFd, Errno, Fd, UserAddr, UserCStr, UserPtr};
use std::sync::Arc;
use vfs::OpenFile;
use vfs::walk::Resolve;

/// open(2).
pub fn open(cx: &mut Cx<'_>, path: UserCStr, flags: OpenFlags, mode: u32) -> CallResult<Fd> {
    openat(cx, DirFd::Cwd, path, flags, mode)
}

/// creat(2).
pub fn creat(cx: &mut Cx<'_>, path: UserCStr, mode: u32) -> CallResult<Fd> {
    openat(cx, DirFd::Cwd, path, OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC, mode)
}

/// openat(2). Unknown flags are ignored, as ever.
pub fn openat(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, flags: OpenFlags, mode: u32) -> CallResult<Fd> {
    let path = cx.path(path)?;
    open_path(cx, dirfd, &path, flags & OpenFlags::all(), mode & 0o7777, Resolve::empty())
}

fn open_path(
    cx: &mut Cx<'_>,
    dirfd: DirFd,
    path: &[u8],
    flags: OpenFlags,
    mode: u32,
    resolve: Resolve,
) -> CallResult<Fd> {
    let status = flags - OpenFlags::CLOEXEC;
    let file = walk_with(cx, dirfd, path, resolve, |walk| vfs::ops::open(walk, path, status, mode))?;
    install(cx, file, flags)
}

/// Installs a file that a call made, with FD_CLOEXEC from its O_CLOEXEC.
pub(crate) fn install(cx: &Cx<'_>, file: Arc<OpenFile>, flags: OpenFlags) -> CallResult<Fd> {
    Ok(cx.files().install(file, OnExec::from_flag(flags), 0, cx.nofile())?)
}

/// openat2(2): unknown bits are refused, a larger structure must be zero behind what is known.
pub fn openat2(cx: &mut Cx<'_>, dirfd: DirFd, path: UserCStr, how: UserAddr, size: usize) -> CallResult<Fd> {
    const KNOWN: usize = size_of::<OpenHow>();
    if size < KNOWN {
        return Err(Errno::EINVAL.into());
    }
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    let mut tail = vec![0; size - KNOWN];
    cx.mm().read_bytes(how.checked_add(u64::try_from(KNOWN).map_err(|_| Errno::EINVAL)?)?, &mut tail)?;
    if tail.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG.into());
    }
    let how: OpenHow = cx.read(UserPtr::new(how))?;
    let flags = u32::try_from(how.flags).ok().and_then(OpenFlags::from_bits).ok_or(Errno::EINVAL)?;
    let resolve = Resolve::from_bits(how.resolve).ok_or(Errno::EINVAL)?;
    if resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT) {
        return Err(Errno::EINVAL.into());
    }
    let creates = flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT);
    let mode = match u32::try_from(how.mode) {
        Ok(mode) if mode & !0o7777 == 0 && (mode == 0 || creates) => mode,
        _ => return Err(Errno::EINVAL.into()),
    };
    let beside_path = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
    if flags.contains(OpenFlags::PATH) && !beside_path.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let path = cx.path(path)?;
    open_path(cx, dirfd, &path, flags, mode, resolve)
}

/// close(2).
pub fn close(cx: &mut Cx<'_>, fd: Fd) -> CallResult<()> {
    let file = cx.files().close(fd)?;
    Ok(file.descriptor_closed(cx.files().id(), &cx.caller())?)
}

/// close_range(2).
pub fn close_range(cx: &mut Cx<'_>, first: u32, last: u32, flags: u32) -> CallResult<()> {
    const UNSHARE: u32 = 2;
    const CLOEXEC: u32 = 4;
    super::only(flags, UNSHARE | CLOEXEC)?;
    if first > last {
        return Err(Errno::EINVAL.into());
    }
    if flags & UNSHARE != 0 {
        cx.unshare_files();
    }
    if flags & CLOEXEC != 0 {
        cx.files().mark_range(first, last);
        return Ok(());
    }
    let id = cx.files().id();
    for file in cx.files().close_range(first, last) {
        // close_range(2) does not report what single closes say.
        let _ = file.descriptor_closed(id, &cx.caller());
    }
    Ok(())
}
