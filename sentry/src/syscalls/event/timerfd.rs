//! timerfd_create(2), timerfd_settime(2), timerfd_gettime(2).

use crate::syscalls::fs::open::install;
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::time::Itimerspec;
use abi::{CallResult, Errno, Fd, UserPtr};
use vfs::Capabilities;
use vfs::event::timerfd::{self, SetFlags, TimerClock, TimerFd};

/// timerfd_create(2).
pub fn timerfd_create(cx: &mut Cx<'_>, clock: i32, flags: OpenFlags) -> CallResult<Fd> {
    if !(OpenFlags::CLOEXEC | OpenFlags::NONBLOCK).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let clock = TimerClock::from_id(clock)?;
    if matches!(clock, TimerClock::RealtimeAlarm | TimerClock::BoottimeAlarm)
        && !cx.cred().has(Capabilities::WAKE_ALARM)
    {
        return Err(Errno::EPERM.into());
    }
    install(cx, timerfd::create(clock, flags), flags)
}

/// timerfd_settime(2).
pub fn timerfd_settime(
    cx: &mut Cx<'_>,
    fd: Fd,
    flags: i32,
    new: UserPtr<Itimerspec>,
    old: UserPtr<Itimerspec>,
) -> CallResult<()> {
    let value = cx.read(new)?;
    let flags = SetFlags::from_bits(flags)?;
    value.value.to_duration()?;
    value.interval.to_duration()?;
    let file = cx.files().get_io(fd)?;
    let timer: &TimerFd = file.downcast().ok_or(Errno::EINVAL)?;
    let before = timer.set(&value, flags)?;
    Ok(cx.write_if(old, &before)?)
}

/// timerfd_gettime(2).
pub fn timerfd_gettime(cx: &mut Cx<'_>, fd: Fd, out: UserPtr<Itimerspec>) -> CallResult<()> {
    let file = cx.files().get_io(fd)?;
    let timer: &TimerFd = file.downcast().ok_or(Errno::EINVAL)?;
    Ok(cx.write(out, &timer.get())?)
}
