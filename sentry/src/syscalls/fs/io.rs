//! read(2), write(2) and their positioned and vectored kin, lseek(2).

use crate::task::Cx;
use abi::limits::{IOV_MAX, MAX_RW_COUNT};
use abi::stat::Iovec;
use abi::{CallResult, Errno, Fd, SysResult, UserAddr, UserPtr, UserSlice};
use smallvec::SmallVec;
use vfs::{RwFlags, SeekFrom};

/// Buffers of one call.
pub(crate) type Buffers = SmallVec<[UserSlice; 8]>;

/// Checks an iovec array: count, lengths, and the sum, cut to `MAX_RW_COUNT` (readv(2)).
pub(crate) fn buffers(cx: &Cx<'_>, iov: UserPtr<Iovec>, count: u64) -> SysResult<Buffers> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut list = Buffers::new();
    let mut room = u64::try_from(MAX_RW_COUNT).unwrap_or(u64::MAX);
    for at in 0..count {
        let entry: Iovec = cx.read(iov.index(u64::try_from(at).map_err(|_| Errno::EINVAL)?)?)?;
        if i64::try_from(entry.len).is_err() {
            return Err(Errno::EINVAL);
        }
        let len = entry.len.min(room);
        room -= len;
        list.push(UserSlice { addr: UserAddr::new(entry.base), len });
    }
    Ok(list)
}

fn one(addr: UserAddr, len: usize) -> [UserSlice; 1] {
    [UserSlice { addr, len: u64::try_from(len.min(MAX_RW_COUNT)).unwrap_or(0) }]
}

fn offset(raw: i64) -> SysResult<u64> {
    u64::try_from(raw).map_err(|_| Errno::EINVAL)
}

/// What /proc/pid/io shows.
fn count_read(cx: &Cx<'_>, done: CallResult<usize>) -> CallResult<usize> {
    cx.shared.process.times.io.read.add(done.as_ref().ok());
    done
}

fn count_write(cx: &Cx<'_>, done: CallResult<usize>) -> CallResult<usize> {
    cx.shared.process.times.io.written.add(done.as_ref().ok());
    done
}

/// read(2).
pub fn read(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize) -> CallResult<usize> {
    let file = cx.files().get_io(fd)?;
    let done = file.read(&mut cx.mm().sink(&one(buf, count)), &cx.caller());
    count_read(cx, done)
}

/// write(2).
pub fn write(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize) -> CallResult<usize> {
    let file = cx.files().get_io(fd)?;
    let done = file.write(&mut cx.mm().source(&one(buf, count)), &cx.caller());
    count_write(cx, done)
}

/// pread64(2).
pub fn pread64(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize, pos: i64) -> CallResult<usize> {
    let pos = offset(pos)?;
    let file = cx.files().get_io(fd)?;
    let done = file.read_at(&mut cx.mm().sink(&one(buf, count)), pos, &cx.caller());
    count_read(cx, done)
}

/// pwrite64(2).
pub fn pwrite64(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize, pos: i64) -> CallResult<usize> {
    let pos = offset(pos)?;
    let file = cx.files().get_io(fd)?;
    let done = file.write_at(&mut cx.mm().source(&one(buf, count)), pos, &cx.caller());
    count_write(cx, done)
}

/// readv(2).
pub fn readv(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<Iovec>, count: u64) -> CallResult<usize> {
    let file = cx.files().get_io(fd)?;
    let list = buffers(cx, iov, count)?;
    let done = file.read(&mut cx.mm().sink(&list), &cx.caller());
    count_read(cx, done)
}

/// writev(2).
pub fn writev(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<Iovec>, count: u64) -> CallResult<usize> {
    let file = cx.files().get_io(fd)?;
    let list = buffers(cx, iov, count)?;
    let done = file.write(&mut cx.mm().source(&list), &cx.caller());
    count_write(cx, done)
}

/// preadv(2).
pub fn preadv(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<Iovec>, count: u64, pos: i64) -> CallResult<usize> {
    let pos = offset(pos)?;
    let file = cx.files().get_io(fd)?;
    let list = buffers(cx, iov, count)?;
    let done = file.read_at(&mut cx.mm().sink(&list), pos, &cx.caller());
    count_read(cx, done)
}

/// pwritev(2).
pub fn pwritev(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<Iovec>, count: u64, pos: i64) -> CallResult<usize> {
    let pos = offset(pos)?;
    let file = cx.files().get_io(fd)?;
    let list = buffers(cx, iov, count)?;
    let done = file.write_at(&mut cx.mm().source(&list), pos, &cx.caller());
    count_write(cx, done)
}

fn rw_flags(raw: u32) -> SysResult<RwFlags> {
    RwFlags::from_bits(raw).ok_or(Errno::EOPNOTSUPP)
}

fn maybe_offset(raw: i64) -> SysResult<Option<u64>> {
    if raw == -1 { Ok(None) } else { offset(raw).map(Some) }
}

/// preadv2(2); a position of -1 uses the file's own.
pub fn preadv2(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<Iovec>,
    count: u64,
    pos: i64,
    _pos_high: u64,
    flags: u32,
) -> CallResult<usize> {
    let pos = maybe_offset(pos)?;
    let file = cx.files().get_io(fd)?;
    let list = buffers(cx, iov, count)?;
    let done = file.read_with(&mut cx.mm().sink(&list), pos, rw_flags(flags)?, &cx.caller());
    count_read(cx, done)
}

/// pwritev2(2).
pub fn pwritev2(
    cx: &mut Cx<'_>,
    fd: Fd,
    iov: UserPtr<Iovec>,
    count: u64,
    pos: i64,
    _pos_high: u64,
    flags: u32,
) -> CallResult<usize> {
    let pos = maybe_offset(pos)?;
    let file = cx.files().get_io(fd)?;
    let list = buffers(cx, iov, count)?;
    let done = file.write_with(&mut cx.mm().source(&list), pos, rw_flags(flags)?, &cx.caller());
    count_write(cx, done)
}

/// lseek(2).
pub fn lseek(cx: &mut Cx<'_>, fd: Fd, pos: i64, whence: u32) -> CallResult<u64> {
    let file = cx.files().get_io(fd)?;
    let to = match whence {
        0 => SeekFrom::Start(pos),
        1 => SeekFrom::Current(pos),
        2 => SeekFrom::End(pos),
        3 => SeekFrom::Data(pos),
        4 => SeekFrom::Hole(pos),
        _ => return Err(Errno::EINVAL.into()),
    };
    Ok(file.seek(to, &cx.caller())?)
}
