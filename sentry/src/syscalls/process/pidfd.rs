//! pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2).

use crate::files::OnExec;
use crate::process::limits::Resource;
use crate::process::{Process, pidfd};
use crate::signal::send as deliver;
use crate::syscalls::signal::send::{check_user_info, may_signal};
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::siginfo::{SigInfo, code};
use abi::signal::Signal;
use abi::{CallResult, Errno, Fd, UserPtr};
use std::sync::Arc;

const PIDFD_NONBLOCK: u32 = 0o4000;
const PIDFD_THREAD: u32 = 0o200;

/// pidfd_open(2).
pub fn pidfd_open(cx: &mut Cx<'_>, pid: i32, flags: u32) -> CallResult<Fd> {
    if flags & !(PIDFD_NONBLOCK | PIDFD_THREAD) != 0 || pid <= 0 {
        return Err(Errno::EINVAL.into());
    }
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let number = u32::try_from(pid).map_err(|_| Errno::EINVAL)?;
    let task = {
        let tree = cx.kernel().tree.lock();
        Arc::clone(tree.find_task(&ns, number).ok_or(Errno::ESRCH)?)
    };
    let file = if flags & PIDFD_THREAD != 0 {
        pidfd::open_thread(&task)
    } else if task.tid() == task.process.pid.root() {
        pidfd::open(&task.process)
    } else {
        return Err(Errno::ENOENT.into());
    };
    if flags & PIDFD_NONBLOCK != 0 {
        let by = cx.caller();
        file.set_flags(OpenFlags::NONBLOCK, &by)?;
    }
    let limit = cx.shared.process.limits.lock().get(Resource::Nofile).soft;
    Ok(cx.files().install(file, OnExec::Close, 0, limit)?)
}

const SIGNAL_THREAD: u32 = 1;
const SIGNAL_THREAD_GROUP: u32 = 2;
const SIGNAL_PROCESS_GROUP: u32 = 4;

/// pidfd_send_signal(2): to what the descriptor names, or to the scope that a flag says.
pub fn pidfd_send_signal(
    cx: &mut Cx<'_>,
    fd: Fd,
    signal: u32,
    info: UserPtr<SigInfo>,
    flags: u32,
) -> CallResult<()> {
    if !matches!(flags, 0 | SIGNAL_THREAD | SIGNAL_THREAD_GROUP | SIGNAL_PROCESS_GROUP) {
        return Err(Errno::EINVAL.into());
    }
    let file = cx.files().get(fd)?;
    let (process, thread) = match file.downcast::<pidfd::PidFd>() {
        Some(pidfd) => (Arc::clone(&pidfd.process), pidfd.thread.is_some()),
        // A directory of /proc names a process, too.
        None => (crate::procfs::process_of(&file).ok_or(Errno::EBADF)?, false),
    };
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    if process.pid.seen_in(&ns) == 0 {
        return Err(Errno::EINVAL.into());
    }
    let signal = if signal == 0 { None } else { Some(Signal::new(signal)?) };
    let to_thread = flags == SIGNAL_THREAD || (flags == 0 && thread);
    let info = if info.is_null() {
        let code = if to_thread { code::SI_TKILL } else { code::SI_USER };
        signal.map(|signal| super::super::signal::send::user_info(cx, signal, code))
    } else {
        let mut value: SigInfo = cx.read(info)?;
        if signal.is_some_and(|signal| i32::from(signal.number()) != value.signo) {
            return Err(Errno::EINVAL.into());
        }
        check_user_info(cx, &value, process.pid.root())?;
        value.errno = 0;
        Some(value)
    };
    if flags == SIGNAL_PROCESS_GROUP {
        return to_group(cx, &process, signal, info);
    }
    let named = file.downcast::<pidfd::PidFd>().and_then(pidfd::PidFd::task);
    let task = named.or_else(|| process.leader()).ok_or(Errno::ESRCH)?;
    if process.state.lock().live == 0 {
        return Err(Errno::ESRCH.into());
    }
    may_signal(cx, &task, signal)?;
    let force = super::super::signal::send::force_for(cx, &process);
    match info {
        Some(info) if to_thread => deliver::to_task(&task, info, force)?,
        Some(info) => deliver::to_process(&process, info, force)?,
        None => {}
    }
    Ok(())
}

fn to_group(cx: &Cx<'_>, process: &Process, signal: Option<Signal>, info: Option<SigInfo>) -> CallResult<()> {
    let members: Vec<Arc<Process>> = {
        let tree = cx.kernel().tree.lock();
        tree.group(process.pid.root()).map(|node| Arc::clone(&node.process)).collect()
    };
    let mut result = Err(Errno::ESRCH);
    for member in &members {
        let Some(leader) = member.leader() else { continue };
        match may_signal(cx, &leader, signal) {
            Ok(()) => {
                if let Some(info) = info {
                    deliver::to_process(member, info, super::super::signal::send::force_for(cx, member))?;
                }
                result = Ok(());
            }
            Err(errno) if result.is_err() => result = Err(errno),
            Err(_) => {}
        }
    }
    Ok(result?)
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
