//! pipe(2), eventfd(2), signalfd(2).

use crate::syscalls::fs::open::install;
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::signal::SigSet;
use abi::{CallResult, Errno, Fd, UserPtr};
use vfs::event::eventfd::{self, EventKind};
use vfs::event::{pipe, signalfd};

/// pipe(2).
pub fn pipe(cx: &mut Cx<'_>, fds: UserPtr<[i32; 2]>) -> CallResult<()> {
    pipe2(cx, fds, OpenFlags::empty())
}

/// pipe2(2).
pub fn pipe2(cx: &mut Cx<'_>, fds: UserPtr<[i32; 2]>, flags: OpenFlags) -> CallResult<()> {
    if !(OpenFlags::CLOEXEC | OpenFlags::DIRECT | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let (reader, writer) = pipe::create(flags - OpenFlags::CLOEXEC, &cx.caller());
    let first = install(cx, reader, flags)?;
    let second = install(cx, writer, flags).inspect_err(|_| {
        // Nobody else can know the number yet.
        let _ = cx.files().close(first);
    })?;
    if let Err(error) = cx.write(fds, &[first.number(), second.number()]) {
        let _ = cx.files().close(first);
        let _ = cx.files().close(second);
        return Err(error.into());
    }
    Ok(())
}

/// eventfd(2).
pub fn eventfd(cx: &mut Cx<'_>, count: u32) -> CallResult<Fd> {
    eventfd2(cx, count, OpenFlags::empty())
}

/// eventfd2(2).
pub fn eventfd2(cx: &mut Cx<'_>, count: u32, flags: OpenFlags) -> CallResult<Fd> {
    // EFD_SEMAPHORE shares its bit with O_WRONLY.
    const SEMAPHORE: OpenFlags = OpenFlags::WRONLY;
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | SEMAPHORE).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let kind = if flags.contains(SEMAPHORE) { EventKind::Semaphore } else { EventKind::Counter };
    install(cx, eventfd::create(count, kind, flags - SEMAPHORE), flags)
}

/// signalfd(2).
pub fn signalfd(cx: &mut Cx<'_>, fd: Fd, mask: UserPtr<u64>, size: usize) -> CallResult<Fd> {
    signalfd4(cx, fd, mask, size, OpenFlags::empty())
}

/// signalfd4(2).
pub fn signalfd4(
    cx: &mut Cx<'_>,
    fd: Fd,
    mask: UserPtr<u64>,
    size: usize,
    flags: OpenFlags,
) -> CallResult<Fd> {
    if size != 8 {
        return Err(Errno::EINVAL.into());
    }
    let set = SigSet(cx.read(mask)?);
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    if fd.number() != -1 {
        let file = cx.files().get(fd)?;
        file.downcast::<signalfd::SignalFd>().ok_or(Errno::EINVAL)?.set_mask(set);
        return Ok(fd);
    }
    install(cx, signalfd::create(set, crate::signal::signal_source(), flags), flags)
}
