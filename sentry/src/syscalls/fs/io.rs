//! read(2), write(2) and their positioned and vectored kin, lseek(2).

use crate::loader::TASK_SIZE;
use crate::task::Cx;
use abi::limits::{IOV_MAX, MAX_RW_COUNT};
use abi::stat::Iovec;
use abi::{CallResult, Errno, Fd, SysResult, UserAddr, UserPtr, UserSlice};
use smallvec::SmallVec;
use vfs::{OpenFile, RwFlags, SeekFrom};

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
        check_place(entry.base, entry.len)?;
        let len = entry.len.min(room);
        room -= len;
        list.push(UserSlice { addr: UserAddr::new(entry.base), len });
    }
    Ok(list)
}

/// `access_ok`: `EFAULT` for what lies beyond a program's part of the addresses, before anything is done.
fn check_place(base: u64, len: u64) -> SysResult<()> {
    match base.checked_add(len) {
        Some(end) if end <= TASK_SIZE => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// The direction of a transfer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// `EBADF` unless the file is open for it: said before the buffers are looked at.
fn check_mode(file: &OpenFile, way: Way) -> SysResult<()> {
    let flags = file.flags();
    let open = if way == Way::In { flags.readable() } else { flags.writable() };
    if open { Ok(()) } else { Err(Errno::EBADF) }
}

/// A single buffer, checked, and the end of the transfer from `pos` on.
fn check_one(file: &OpenFile, way: Way, (buf, len): (UserAddr, usize), pos: u64) -> SysResult<()> {
    check_mode(file, way)?;
    let len = u64::try_from(len).map_err(|_| Errno::EFAULT)?;
    check_place(buf.raw(), len)?;
    let most = u64::try_from(MAX_RW_COUNT).unwrap_or(u64::MAX);
    let end = pos.checked_add(len.min(most));
    if end.is_some_and(|end| i64::try_from(end).is_ok()) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Buffers of a vectored transfer after the mode; `None` when nothing is to be moved.
fn vectors(
    cx: &Cx<'_>,
    file: &OpenFile,
    way: Way,
    (iov, count): (UserPtr<Iovec>, u64),
) -> SysResult<Option<Buffers>> {
    check_mode(file, way)?;
    let list = buffers(cx, iov, count)?;
    let empty = list.iter().all(|slice| slice.len == 0);
    Ok((!empty).then_some(list))
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
    check_one(&file, Way::In, (buf, count), 0)?;
    let done = file.read(&mut cx.mm().sink(&one(buf, count)), &cx.caller());
    count_read(cx, done)
}

/// write(2).
pub fn write(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize) -> CallResult<usize> {
    let file = cx.files().get_io(fd)?;
    check_one(&file, Way::Out, (buf, count), 0)?;
    let done = file.write(&mut cx.mm().source(&one(buf, count)), &cx.caller());
    count_write(cx, done)
}

/// pread64(2).
pub fn pread64(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize, pos: i64) -> CallResult<usize> {
    let pos = offset(pos)?;
    let file = cx.files().get_io(fd)?;
    if file.ops().has_offset() {
        check_one(&file, Way::In, (buf, count), pos)?;
    }
    let done = file.read_at(&mut cx.mm().sink(&one(buf, count)), pos, &cx.caller());
    count_read(cx, done)
}

/// pwrite64(2).
pub fn pwrite64(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, count: usize, pos: i64) -> CallResult<usize> {
    let pos = offset(pos)?;
    let file = cx.files().get_io(fd)?;
    if file.ops().has_offset() {
        check_one(&file, Way::Out, (buf, count), pos)?;
    }
    let done = file.write_at(&mut cx.mm().source(&one(buf, count)), pos, &cx.caller());
    count_write(cx, done)
}

/// readv(2).
pub fn readv(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<Iovec>, count: u64) -> CallResult<usize> {
    let file = cx.files().get_io(fd)?;
    let Some(list) = vectors(cx, &file, Way::In, (iov, count))? else { return Ok(0) };
    let done = file.read(&mut cx.mm().sink(&list), &cx.caller());
    count_read(cx, done)
}

/// writev(2).
pub fn writev(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<Iovec>, count: u64) -> CallResult<usize> {
    let file = cx.files().get_io(fd)?;
    let Some(list) = vectors(cx, &file, Way::Out, (iov, count))? else { return Ok(0) };
    let done = file.write(&mut cx.mm().source(&list), &cx.caller());
    count_write(cx, done)
}

/// preadv(2).
pub fn preadv(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<Iovec>, count: u64, pos: i64) -> CallResult<usize> {
    let pos = offset(pos)?;
    let file = cx.files().get_io(fd)?;
    if !file.ops().has_offset() {
        return Err(Errno::ESPIPE.into());
    }
    let Some(list) = vectors(cx, &file, Way::In, (iov, count))? else { return Ok(0) };
    let done = file.read_at(&mut cx.mm().sink(&list), pos, &cx.caller());
    count_read(cx, done)
}

/// pwritev(2).
pub fn pwritev(cx: &mut Cx<'_>, fd: Fd, iov: UserPtr<Iovec>, count: u64, pos: i64) -> CallResult<usize> {
    let pos = offset(pos)?;
    let file = cx.files().get_io(fd)?;
    if !file.ops().has_offset() {
        return Err(Errno::ESPIPE.into());
    }
    let Some(list) = vectors(cx, &file, Way::Out, (iov, count))? else { return Ok(0) };
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
    if pos.is_some() && !file.ops().has_offset() {
        return Err(Errno::ESPIPE.into());
    }
    let Some(list) = vectors(cx, &file, Way::In, (iov, count))? else { return Ok(0) };
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
    if pos.is_some() && !file.ops().has_offset() {
        return Err(Errno::ESPIPE.into());
    }
    let Some(list) = vectors(cx, &file, Way::Out, (iov, count))? else { return Ok(0) };
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
