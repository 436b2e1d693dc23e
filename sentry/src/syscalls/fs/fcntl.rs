//! fcntl(2).

use crate::files::OnExec;
use crate::syscalls::args::FromReg;
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::stat::Flock;
use abi::{CallResult, Errno, Fd, SysResult, UserAddr, UserPtr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::locks::{LockKind, LockOwner, LockWait, RangeLock, TO_END};
use vfs::{OpenFile, Toggle};

const F_DUPFD: u32 = 0;
const F_GETFD: u32 = 1;
const F_SETFD: u32 = 2;
const F_GETFL: u32 = 3;
const F_SETFL: u32 = 4;
const F_GETLK: u32 = 5;
const F_SETLK: u32 = 6;
const F_SETLKW: u32 = 7;
pub(super) const F_SETOWN: u32 = 8;
pub(super) const F_GETOWN: u32 = 9;
pub(super) const F_SETSIG: u32 = 10;
pub(super) const F_GETSIG: u32 = 11;
pub(super) const F_SETOWN_EX: u32 = 15;
pub(super) const F_GETOWN_EX: u32 = 16;
const F_OFD_GETLK: u32 = 36;
const F_OFD_SETLK: u32 = 37;
const F_OFD_SETLKW: u32 = 38;
pub(super) const F_GETOWNER_UIDS: u32 = 17;
const F_SETLEASE: u32 = 1024;
const F_GETLEASE: u32 = 1025;
const F_NOTIFY: u32 = 1026;
const F_DUPFD_QUERY: u32 = 1027;
const F_CREATED_QUERY: u32 = 1028;
const F_DUPFD_CLOEXEC: u32 = 1030;
const F_SETPIPE_SZ: u32 = 1031;
const F_GETPIPE_SZ: u32 = 1032;
const F_ADD_SEALS: u32 = 1033;
const F_GET_SEALS: u32 = 1034;
const F_GET_RW_HINT: u32 = 1035;
const F_SET_RW_HINT: u32 = 1036;

/// fcntl(2).
pub fn fcntl(cx: &mut Cx<'_>, fd: Fd, command: u32, arg: u64) -> CallResult<u64> {
    let file = cx.files().get(fd)?;
    let small = u32::try_from(arg & 0xffff_ffff).unwrap_or(0);
    match command {
        F_DUPFD => return duplicate(cx, file, arg, OnExec::Keep),
        F_DUPFD_CLOEXEC => return duplicate(cx, file, arg, OnExec::Close),
        F_GETFD => return Ok(u64::from(cx.files().on_exec(fd)? == OnExec::Close)),
        F_SETFD => {
            let on_exec = if arg & 1 != 0 { OnExec::Close } else { OnExec::Keep };
            cx.files().set_on_exec(fd, on_exec)?;
            return Ok(0);
        }
        F_GETFL => return Ok(u64::from(file.flags().bits())),
        F_CREATED_QUERY => return Ok(u64::from(file.is_created())),
        F_DUPFD_QUERY => {
            let other = cx.files().get(Fd::from_reg(arg)?)?;
            return Ok(u64::from(Arc::ptr_eq(&file, &other)));
        }
        _ if file.flags().contains(OpenFlags::PATH) => return Err(Errno::EBADF.into()),
        _ => {}
    }
    match command {
        F_SETFL => {
            let flags = OpenFlags::from_bits_truncate(small);
            let on = if flags.contains(OpenFlags::ASYNC) { Toggle::On } else { Toggle::Off };
            file.set_async(on, fd.number())?;
            file.set_flags(flags, &cx.caller())?;
        }
        F_GETLK | F_OFD_GETLK => {
            get_lock(cx, &file, command == F_OFD_GETLK, UserPtr::new(UserAddr::new(arg)))?
        }
        F_SETLK | F_SETLKW | F_OFD_SETLK | F_OFD_SETLKW => set_lock(cx, &file, command, arg)?,
        F_SETOWN | F_GETOWN | F_SETOWN_EX | F_GETOWN_EX | F_SETSIG | F_GETSIG | F_GETOWNER_UIDS => {
            return super::owner::owner(cx, &file, command, arg);
        }
        F_SETLEASE => super::owner::set_lease(cx, fd, &file, small)?,
        F_GETLEASE => return super::owner::get_lease(cx, &file),
        F_NOTIFY => super::owner::notify(cx, fd, &file, small)?,
        F_GET_RW_HINT => {
            let hint = file.lock_state(&cx.caller())?.write_hint.load(Ordering::Relaxed);
            cx.write(UserPtr::new(UserAddr::new(arg)), &hint)?;
        }
        F_SET_RW_HINT => {
            // RWH_WRITE_LIFE_EXTREME
            const LAST: u64 = 5;
            let hint: u64 = cx.read(UserPtr::new(UserAddr::new(arg)))?;
            if hint > LAST {
                return Err(Errno::EINVAL.into());
            }
            file.lock_state(&cx.caller())?.write_hint.store(hint, Ordering::Relaxed);
        }
        F_GETPIPE_SZ => return Ok(u64::try_from(pipe(&file)?.capacity()).unwrap_or(0)),
        F_SETPIPE_SZ => {
            let size = pipe(&file)?.set_capacity(u64::from(small), &cx.caller())?;
            return Ok(u64::try_from(size).unwrap_or(0));
        }
        F_ADD_SEALS => super::memfd::add_seals(&file, small)?,
        F_GET_SEALS => return Ok(u64::from(super::memfd::seals(&file)?)),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn duplicate(cx: &Cx<'_>, file: Arc<OpenFile>, min: u64, on_exec: OnExec) -> CallResult<u64> {
    let limit = cx.nofile();
    let min = usize::try_from(min).map_err(|_| Errno::EINVAL)?;
    if u64::try_from(min).is_ok_and(|min| min >= limit) {
        return Err(Errno::EINVAL.into());
    }
    let fd = cx.files().install(file, on_exec, min, limit)?;
    Ok(u64::try_from(fd.number()).unwrap_or(0))
}

/// The range of a `struct flock` (fcntl_locking(2)).
fn range(cx: &Cx<'_>, file: &OpenFile, lock: &Flock) -> SysResult<(u64, u64)> {
    let base = match lock.whence {
        0 => 0,
        1 => i64::try_from(file.position()).map_err(|_| Errno::EOVERFLOW)?,
        2 => i64::try_from(file.attr(&cx.caller())?.size).map_err(|_| Errno::EOVERFLOW)?,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(lock.start).ok_or(Errno::EOVERFLOW)?;
    let (start, end) = match lock.len {
        0 => (start, None),
        len if len > 0 => (start, Some(start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?)),
        len => (start.checked_add(len).ok_or(Errno::EINVAL)?, Some(start - 1)),
    };
    let start = u64::try_from(start).map_err(|_| Errno::EINVAL)?;
    let end = end.map_or(Ok(TO_END), |end| u64::try_from(end).map_err(|_| Errno::EINVAL))?;
    Ok((start, end))
}

fn kind(raw: i16) -> SysResult<Option<LockKind>> {
    match raw {
        0 => Ok(Some(LockKind::Shared)),
        1 => Ok(Some(LockKind::Exclusive)),
        2 => Ok(None),
        _ => Err(Errno::EINVAL),
    }
}

fn wanted(cx: &Cx<'_>, file: &Arc<OpenFile>, lock: &Flock, ofd: bool) -> SysResult<RangeLock> {
    let (start, end) = range(cx, file, lock)?;
    let owner = if ofd { LockOwner::File(file.lock_key()) } else { LockOwner::Posix(cx.files().id()) };
    let kind = kind(lock.kind)?.unwrap_or(LockKind::Shared);
    Ok(RangeLock { owner, kind, start, last: end, pid: cx.shared.process.pid.root() })
}

fn get_lock(cx: &Cx<'_>, file: &Arc<OpenFile>, ofd: bool, ptr: UserPtr<Flock>) -> CallResult<()> {
    let mut lock: Flock = cx.read(ptr)?;
    if kind(lock.kind)?.is_none() || (ofd && lock.pid != 0) {
        return Err(Errno::EINVAL.into());
    }
    let asked = wanted(cx, file, &lock, ofd)?;
    match file.find_lock(&asked, &cx.caller())? {
        None => lock.kind = 2,
        Some(found) => {
            let len = if found.last == TO_END { 0 } else { found.last - found.start + 1 };
            lock = Flock {
                kind: i16::from(found.kind == LockKind::Exclusive),
                whence: 0,
                start: i64::try_from(found.start).unwrap_or(i64::MAX),
                len: i64::try_from(len).unwrap_or(0),
                pid: match found.owner {
                    LockOwner::Posix(_) => cx.pid_number(found.pid),
                    LockOwner::File(_) => -1,
                },
                ..lock
            };
        }
    }
    Ok(cx.write(ptr, &lock)?)
}

fn set_lock(cx: &Cx<'_>, file: &Arc<OpenFile>, command: u32, arg: u64) -> CallResult<()> {
    let ofd = matches!(command, F_OFD_SETLK | F_OFD_SETLKW);
    let lock: Flock = cx.read(UserPtr::new(UserAddr::new(arg)))?;
    if ofd && lock.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let asked = wanted(cx, file, &lock, ofd)?;
    let wait = if matches!(command, F_SETLKW | F_OFD_SETLKW) { LockWait::Yes } else { LockWait::No };
    file.lock_range(&asked, kind(lock.kind)?, wait, &cx.caller())
}

fn pipe(file: &OpenFile) -> SysResult<&Arc<vfs::event::pipe::Pipe>> {
    vfs::event::pipe::of(file).ok_or(Errno::EBADF)
}
