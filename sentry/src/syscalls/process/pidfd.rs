//! pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2).

use crate::files::OnExec;
use crate::process::limits::Resource;
use crate::process::pidfd;
use crate::signal::send as deliver;
use crate::syscalls::signal::send::{check_user_info, may_signal};
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::siginfo::{SigInfo, code};
use abi::signal::Signal;
use abi::{CallResult, Errno, Fd, UserPtr};

const PIDFD_NONBLOCK: u32 = 0o4000;
const PIDFD_THREAD: u32 = 0o200;

/// pidfd_open(2). Threads (PIDFD_THREAD) are named through their process only.
pub fn pidfd_open(cx: &mut Cx<'_>, pid: i32, flags: u32) -> CallResult<Fd> {
    if flags & !(PIDFD_NONBLOCK | PIDFD_THREAD) != 0 || pid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    if flags & PIDFD_THREAD != 0 {
        return Err(Errno::EINVAL.into());
    }
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let number = u32::try_from(pid).map_err(|_| Errno::EINVAL)?;
    let process = {
        let tree = cx.kernel().tree.lock();
        let task = tree.find_task(&ns, number).ok_or(Errno::ESRCH)?;
        if task.tid() != task.process.pid.root() {
            return Err(Errno::ENOENT.into());
        }
        std::sync::Arc::clone(&task.process)
    };
    let file = pidfd::open(&process);
    if flags & PIDFD_NONBLOCK != 0 {
        let by = cx.caller();
        file.set_flags(OpenFlags::NONBLOCK, &by)?;
    }
    let limit = cx.shared.process.limits.lock().get(Resource::Nofile).soft;
    Ok(cx.files().install(file, OnExec::Close, 0, limit)?)
}

/// pidfd_send_signal(2).
pub fn pidfd_send_signal(
    cx: &mut Cx<'_>,
    fd: Fd,
    signal: u32,
    info: UserPtr<SigInfo>,
    flags: u32,
) -> CallResult<()> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let process = pidfd::process_of(&*cx.files().get(fd)?)?;
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    if process.pid.seen_in(&ns) == 0 {
        return Err(Errno::EINVAL.into());
    }
    let signal = if signal == 0 { None } else { Some(Signal::new(signal)?) };
    let info = if info.is_null() {
        signal.map(|signal| super::super::signal::send::user_info(cx, signal, code::SI_USER))
    } else {
        let mut value: SigInfo = cx.read(info)?;
        if signal.is_some_and(|signal| i32::from(signal.number()) != value.signo) {
            return Err(Errno::EINVAL.into());
        }
        check_user_info(cx, &value, process.pid.root())?;
        value.errno = 0;
        Some(value)
    };
    let leader = process.leader().ok_or(Errno::ESRCH)?;
    if process.state.lock().live == 0 {
        return Err(Errno::ESRCH.into());
    }
    may_signal(cx, &leader, signal)?;
    if let Some(info) = info {
        deliver::to_process(&process, info, super::super::signal::send::force_for(cx, &process))?;
    }
    Ok(())
}

/// pidfd_getfd(2).
pub fn pidfd_getfd(cx: &mut Cx<'_>, fd: Fd, target: Fd, flags: u32) -> CallResult<Fd> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let process = pidfd::process_of(&*cx.files().get(fd)?)?;
    let leader = process.leader().ok_or(Errno::ESRCH)?;
    crate::ptrace::access::may_access(cx, &leader, crate::ptrace::access::Mode::AttachReal)?;
    let files = leader.published.lock().files.clone().ok_or(Errno::ESRCH)?;
    let file = files.get(target)?;
    let limit = cx.shared.process.limits.lock().get(Resource::Nofile).soft;
    Ok(cx.files().install(file, OnExec::Close, 0, limit)?)
}
