//! fsync(2), sync(2), sync_file_range(2), posix_fadvise(2), readahead(2).

use super::base_location;
use crate::task::Cx;
use abi::fs::FileType;
use abi::{CallResult, Errno, Fd, PAGE_SIZE, UserPtr};
use vfs::SyncScope;

/// fsync(2).
pub fn fsync(cx: &mut Cx<'_>, fd: Fd) -> CallResult<()> {
    Ok(cx.files().get_io(fd)?.ops().sync_for(SyncScope::All, &cx.caller())?)
}
/// fdatasync(2).
pub fn fdatasync(cx: &mut Cx<'_>, fd: Fd) -> CallResult<()> {
    Ok(cx.files().get_io(fd)?.ops().sync_for(SyncScope::Data, &cx.caller())?)
}
/// sync(2): every file system of the caller's mount namespace; it has no way to fail.
pub fn sync(cx: &mut Cx<'_>) -> CallResult<()> {
    for mount in cx.fs().snapshot().ns.mounts() {
        let _ = mount.sb.fs.sync();
    }
    Ok(())
}
/// syncfs(2).
pub fn syncfs(cx: &mut Cx<'_>, fd: Fd) -> CallResult<()> {
    let file = cx.files().get_io(fd)?;
    Ok(base_location(&file).mount.sb.fs.sync()?)
}
/// sync_file_range(2): writes the data out, whatever part was asked for.
pub fn sync_file_range(cx: &mut Cx<'_>, fd: Fd, offset: i64, len: i64, flags: u32) -> CallResult<()> {
    let file = cx.files().get_io(fd)?;
    super::only(flags, 7)?;
    if offset < 0 || len < 0 || offset.checked_add(len).is_none() {
        return Err(Errno::EINVAL.into());
    }
    let kind = file.attr(&cx.caller())?.kind;
    if !matches!(kind, FileType::Regular | FileType::BlockDevice | FileType::Directory | FileType::Symlink) {
        return Err(Errno::ESPIPE.into());
    }
    if flags == 0 {
        return Ok(());
    }
    Ok(file.ops().sync(SyncScope::Data)?)
}
/// posix_fadvise(2): hints about a page cache that is the host's.
pub fn fadvise64(cx: &mut Cx<'_>, fd: Fd, _offset: i64, len: i64, advice: u32) -> CallResult<()> {
    let file = cx.files().get_io(fd)?;
    if vfs::event::pipe::of(&file).is_some() {
        return Err(Errno::ESPIPE.into());
    }
    if len < 0 || advice > 5 { Err(Errno::EINVAL.into()) } else { Ok(()) }
}
/// readahead(2): a hint, after the checks.
pub fn readahead(cx: &mut Cx<'_>, fd: Fd, _offset: i64, _count: usize) -> CallResult<()> {
    let file = cx.files().get_io(fd)?;
    if !file.flags().readable() {
        return Err(Errno::EBADF.into());
    }
    match file.attr(&cx.caller())?.kind {
        FileType::Regular | FileType::BlockDevice => Ok(()),
        _ => Err(Errno::EINVAL.into()),
    }
}
/// cachestat(2): what the file holds in the range is in memory, as far as anybody here can tell.
pub fn cachestat(
    cx: &mut Cx<'_>,
    fd: Fd,
    range: UserPtr<[u64; 2]>,
    out: UserPtr<[u64; 5]>,
    flags: u32,
) -> CallResult<()> {
    let file = cx.files().get_io(fd)?;
    let [offset, len] = cx.read(range)?;
    super::only(flags, 0)?;
    if let Some(at) = file.location()
        && at.kind() == Some(FileType::Regular)
    {
        match at.inode()?.cache_stat(offset, len) {
            Ok(counts) => return Ok(cx.write(out, &counts)?),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let attr = file.attr(&cx.caller())?;
    let held = if attr.kind == FileType::Regular { attr.size.div_ceil(PAGE_SIZE) } else { 0 };
    let first = offset / PAGE_SIZE;
    let end = if len == 0 { held } else { offset.saturating_add(len).div_ceil(PAGE_SIZE).min(held) };
    Ok(cx.write(out, &[end.saturating_sub(first), 0, 0, 0, 0])?)
}
