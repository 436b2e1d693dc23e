//! io_setup(2), io_submit(2), io_getevents(2), io_pgetevents(2), io_cancel(2), io_destroy(2).

use super::io::buffers;
use crate::files::aio::{AioContext, IoEvent};
use crate::syscalls::event::{Patience, wait_mask};
use crate::task::Cx;
use abi::limits::MAX_RW_COUNT;
use abi::poll::Events;
use abi::time::Timespec;
use abi::{CallResult, Errno, Failure, Fd, SysResult, UserAddr, UserPtr, UserSlice};
use mm::MmapArgs;
use platform::Prot;
use smallvec::smallvec;
use std::sync::Arc;
use vfs::event::eventfd::EventFd;
use vfs::{OpenFile, RwFlags, SyncScope, caller::wait_until};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct iocb`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    reqprio: i16,
    fd: u32,
    buf: u64,
    nbytes: u64,
    offset: i64,
    reserved2: u64,
    flags: u32,
    resfd: u32,
}

const PREAD: u16 = 0;
const PWRITE: u16 = 1;
const FSYNC: u16 = 2;
const FDSYNC: u16 = 3;
const POLL: u16 = 5;
const PREADV: u16 = 7;
const PWRITEV: u16 = 8;

const FLAG_RESFD: u32 = 1;
/// /proc/sys/fs/aio-max-nr.
const AIO_MAX_NR: usize = 65536;
const PAGE: u64 = abi::PAGE_SIZE;

/// io_setup(2).
pub fn io_setup(cx: &mut Cx<'_>, count: u32, out: UserPtr<u64>) -> CallResult<()> {
    const MOST: u32 = 0x1000_0000;
    let old: u64 = cx.read(out)?;
    if old != 0 || count == 0 || count > MOST {
        return Err(Errno::EINVAL.into());
    }
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    let at = cx.mm().mmap(MmapArgs::anonymous(PAGE, Prot::READ | Prot::WRITE))?;
    let made = cx.kernel().files.aio.add(cx.mm(), at, count, AIO_MAX_NR).and_then(|()| {
        cx.write(out, &at.raw()).inspect_err(|_| {
            let _ = cx.kernel().files.aio.remove(cx.mm(), at);
        })
    });
    if let Err(errno) = made {
        cx.mm().munmap(at, PAGE)?;
        return Err(errno.into());
    }
    Ok(())
}

/// io_destroy(2).
pub fn io_destroy(cx: &mut Cx<'_>, context: UserAddr) -> CallResult<()> {
    cx.kernel().files.aio.remove(cx.mm(), context)?;
    Ok(cx.mm().munmap(context, PAGE)?)
}

/// A request whose descriptors were looked up.
struct Job {
    iocb: Iocb,
    file: Arc<OpenFile>,
    signal: Option<Arc<OpenFile>>,
}

fn load(cx: &Cx<'_>, at: UserPtr<Iocb>) -> SysResult<Job> {
    let iocb: Iocb = cx.read(at)?;
    if iocb.reserved2 != 0 || i64::try_from(iocb.nbytes).is_err() {
        return Err(Errno::EINVAL);
    }
    let file = cx.files().get_io(Fd::new(iocb.fd.cast_signed()))?;
    let signal = if iocb.flags & FLAG_RESFD != 0 {
        let file = cx.files().get_io(Fd::new(iocb.resfd.cast_signed()))?;
        file.downcast::<EventFd>().ok_or(Errno::EINVAL)?;
        Some(file)
    } else {
        None
    };
    // aio_key: zero, for io_cancel.
    cx.write(UserPtr::new(at.addr().checked_add(8)?), &0u32)?;
    Ok(Job { iocb, file, signal })
}

/// The result of a transfer as `io_event.res` has it.
fn result(done: CallResult<usize>) -> i64 {
    match done {
        Ok(n) => i64::try_from(n).unwrap_or(i64::MAX),
        Err(Failure::Errno(errno)) => -i64::from(errno.raw()),
        Err(Failure::Restart(_)) => -i64::from(Errno::EINTR.raw()),
    }
}

fn transfer(cx: &Cx<'_>, job: &Job) -> SysResult<i64> {
    let Job { iocb, file, .. } = job;
    let reads = matches!(iocb.opcode, PREAD | PREADV);
    let mode = file.flags();
    if if reads { !mode.readable() } else { !mode.writable() } {
        return Err(Errno::EBADF);
    }
    let flags = RwFlags::from_bits(iocb.rw_flags).ok_or(Errno::EOPNOTSUPP)?;
    let list = if matches!(iocb.opcode, PREADV | PWRITEV) {
        buffers(cx, UserPtr::new(UserAddr::new(iocb.buf)), iocb.nbytes)?
    } else {
        let len = iocb.nbytes.min(u64::try_from(MAX_RW_COUNT).unwrap_or(u64::MAX));
        smallvec![UserSlice { addr: UserAddr::new(iocb.buf), len }]
    };
    let at = u64::try_from(iocb.offset).map_err(|_| Errno::EINVAL)?;
    let at = file.ops().has_offset().then_some(at);
    let by = cx.caller();
    Ok(result(if reads {
        file.read_with(&mut cx.mm().sink(&list), at, flags, &by)
    } else {
        file.write_with(&mut cx.mm().source(&list), at, flags, &by)
    }))
}

fn submit(cx: &Cx<'_>, context: &AioContext, at: UserPtr<Iocb>) -> SysResult<()> {
    context.check_room()?;
    let job = load(cx, at)?;
    let iocb = &job.iocb;
    let event = IoEvent { data: iocb.data, obj: at.addr().raw(), res: 0, res2: 0 };
    let plain = iocb.offset == 0 && iocb.nbytes == 0 && iocb.rw_flags == 0;
    let res = match iocb.opcode {
        PREAD | PWRITE | PREADV | PWRITEV => transfer(cx, &job)?,
        FSYNC | FDSYNC if plain && iocb.buf == 0 => {
            let scope = if iocb.opcode == FSYNC { SyncScope::All } else { SyncScope::Data };
            result(job.file.ops().sync(scope).map(|()| 0).map_err(Failure::from))
        }
        POLL if plain => {
            let wanted = u32::from(u16::try_from(iocb.buf).map_err(|_| Errno::EINVAL)?);
            context.poll(event, Events::from_bits_truncate(wanted), job.file, job.signal);
            return Ok(());
        }
        _ => return Err(Errno::EINVAL),
    };
    context.complete(IoEvent { res, ..event }, job.signal.as_ref());
    Ok(())
}

/// io_submit(2): how many were taken; the errno of the first when none was.
pub fn io_submit(cx: &mut Cx<'_>, context: UserAddr, count: i64, list: UserPtr<u64>) -> CallResult<i64> {
    if count < 0 {
        return Err(Errno::EINVAL.into());
    }
    let context = cx.kernel().files.aio.get(cx.mm(), context)?;
    for done in 0..count {
        let step = || -> SysResult<()> {
            let at: u64 = cx.read(list.index(u64::try_from(done).map_err(|_| Errno::EINVAL)?)?)?;
            submit(cx, &context, UserPtr::new(UserAddr::new(at)))
        };
        match step() {
            Ok(()) => {}
            Err(errno) if done == 0 => return Err(errno.into()),
            Err(_) => return Ok(done),
        }
    }
    Ok(count)
}

/// io_cancel(2).
pub fn io_cancel(cx: &mut Cx<'_>, context: UserAddr, iocb: UserPtr<Iocb>, _out: UserAddr) -> CallResult<()> {
    // aio_key of a request that was submitted.
    let key: u32 = cx.read(UserPtr::new(iocb.addr().checked_add(8)?))?;
    if key != 0 {
        return Err(Errno::EINVAL.into());
    }
    let context = cx.kernel().files.aio.get(cx.mm(), context)?;
    Err(context.cancel(iocb.addr().raw()).into())
}

fn collect(
    cx: &Cx<'_>,
    context: UserAddr,
    range: (i64, i64),
    out: UserPtr<IoEvent>,
    patience: Patience,
) -> CallResult<usize> {
    let context = cx.kernel().files.aio.get(cx.mm(), context)?;
    let least = usize::try_from(range.0).map_err(|_| Errno::EINVAL)?;
    let most = usize::try_from(range.1).map_err(|_| Errno::EINVAL)?;
    if least > most {
        return Err(Errno::EINVAL.into());
    }
    let mut done = 0usize;
    let mut look = || -> SysResult<()> {
        for event in context.take(most - done) {
            let at = out.index(u64::try_from(done).map_err(|_| Errno::EFAULT)?)?;
            cx.write(at, &event)?;
            done += 1;
        }
        if done >= least {
            Ok(())
        } else if context.is_dead() {
            Err(Errno::EINVAL)
        } else {
            Err(Errno::EAGAIN)
        }
    };
    let waited = match patience {
        Patience::None => look().map_err(Failure::from),
        Patience::Until(deadline) => {
            wait_until(&*context, Events::READABLE, deadline, &cx.caller(), &mut look)
        }
    };
    match waited {
        Ok(()) | Err(Failure::Errno(Errno::EAGAIN)) => Ok(done),
        Err(_) if done > 0 => Ok(done),
        Err(Failure::Restart(_)) => Err(Errno::EINTR.into()),
        Err(failure) => Err(failure),
    }
}

/// io_getevents(2).
pub fn io_getevents(
    cx: &mut Cx<'_>,
    context: UserAddr,
    least: i64,
    most: i64,
    out: UserPtr<IoEvent>,
    timeout: UserPtr<Timespec>,
) -> CallResult<usize> {
    let patience = Patience::from_timespec(cx, timeout)?;
    collect(cx, context, (least, most), out, patience)
}

/// `struct __aio_sigset`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AioSigset {
    mask: u64,
    size: u64,
}

/// io_pgetevents(2).
pub fn io_pgetevents(
    cx: &mut Cx<'_>,
    context: UserAddr,
    least: i64,
    most: i64,
    out: UserPtr<IoEvent>,
    timeout: UserPtr<Timespec>,
    sigset: UserPtr<AioSigset>,
) -> CallResult<usize> {
    let patience = Patience::from_timespec(cx, timeout)?;
    if !sigset.is_null() {
        let set = cx.read(sigset)?;
        let size = usize::try_from(set.size).map_err(|_| Errno::EINVAL)?;
        wait_mask(cx, UserPtr::new(UserAddr::new(set.mask)), size)?;
    }
    collect(cx, context, (least, most), out, patience)
}
