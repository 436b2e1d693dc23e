//! epoll(7).

use super::{Patience, wait_mask};
use crate::loader::TASK_SIZE;
use crate::syscalls::fs::open::install;
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::time::Timespec;
use abi::{CallResult, Errno, Fd, UserAddr, UserPtr};
use vfs::event::epoll::{self, Epoll, EpollCtl, EpollEvent};

/// epoll_create(2).
pub fn epoll_create(cx: &mut Cx<'_>, size: i32) -> CallResult<Fd> {
    if size <= 0 {
        return Err(Errno::EINVAL.into());
    }
    epoll_create1(cx, OpenFlags::empty())
}

/// epoll_create1(2).
pub fn epoll_create1(cx: &mut Cx<'_>, flags: OpenFlags) -> CallResult<Fd> {
    if !OpenFlags::CLOEXEC.contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    install(cx, epoll::create(), flags)
}

/// epoll_ctl(2).
pub fn epoll_ctl(cx: &mut Cx<'_>, epfd: Fd, op: i32, fd: Fd, event: UserAddr) -> CallResult<()> {
    let mut bytes = [0; EpollEvent::SIZE];
    if op != 2 {
        cx.mm().read_bytes(event, &mut bytes)?;
    }
    let event = EpollEvent::from_bytes(bytes);
    let own = cx.files().get_io(epfd)?;
    let file = cx.files().get_io(fd)?;
    if !file.ops().can_poll() {
        return Err(Errno::EPERM.into());
    }
    let op = match op {
        1 => EpollCtl::Add(event),
        2 => EpollCtl::Delete,
        3 => EpollCtl::Modify(event),
        _ => return Err(Errno::EINVAL.into()),
    };
    let instance: &Epoll = own.downcast().ok_or(Errno::EINVAL)?;
    Ok(instance.ctl(&own, op, fd.number(), &file)?)
}

fn wait(cx: &mut Cx<'_>, epfd: Fd, events: UserAddr, max: i32, patience: Patience) -> CallResult<usize> {
    let max = usize::try_from(max).ok().filter(|max| *max > 0 && *max < (1 << 27)).ok_or(Errno::EINVAL)?;
    let bytes = u64::try_from(max.saturating_mul(EpollEvent::SIZE)).map_err(|_| Errno::EFAULT)?;
    if events.raw().checked_add(bytes).is_none_or(|end| end > TASK_SIZE) {
        return Err(Errno::EFAULT.into());
    }
    let file = cx.files().get_io(epfd)?;
    let instance: &Epoll = file.downcast().ok_or(Errno::EINVAL)?;
    let mut found = std::mem::take(&mut cx.owned.epoll_events);
    found.clear();
    let by = cx.caller();
    let result = match patience {
        Patience::None => instance.wait(max, true, None, &by, &mut found),
        Patience::Until(deadline) => instance.wait(max, false, deadline, &by, &mut found),
    };
    let copied = result.and_then(|count| {
        let mut at = events;
        for event in &found {
            cx.mm().write_bytes(at, &event.to_bytes())?;
            at = at.checked_add(u64::try_from(EpollEvent::SIZE).map_err(|_| Errno::EFAULT)?)?;
        }
        Ok(count)
    });
    cx.owned.epoll_events = found;
    copied
}

/// epoll_wait(2).
pub fn epoll_wait(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserAddr,
    max: i32,
    timeout_ms: i32,
) -> CallResult<usize> {
    wait(cx, epfd, events, max, Patience::from_millis(timeout_ms))
}

/// epoll_pwait(2).
pub fn epoll_pwait(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserAddr,
    max: i32,
    timeout_ms: i32,
    mask: UserPtr<u64>,
    size: usize,
) -> CallResult<usize> {
    wait_mask(cx, mask, size)?;
    wait(cx, epfd, events, max, Patience::from_millis(timeout_ms))
}

/// epoll_pwait2(2).
pub fn epoll_pwait2(
    cx: &mut Cx<'_>,
    epfd: Fd,
    events: UserAddr,
    max: i32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<u64>,
    size: usize,
) -> CallResult<usize> {
    let patience = Patience::from_timespec(cx, timeout)?;
    wait_mask(cx, mask, size)?;
    wait(cx, epfd, events, max, patience)
}
