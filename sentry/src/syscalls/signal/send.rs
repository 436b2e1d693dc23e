//! kill(2), tkill(2), tgkill(2), rt_sigqueueinfo(2), rt_tgsigqueueinfo(2).

use crate::process::Process;
use crate::signal::send::{self, Force};
use crate::task::{Cx, TaskShared};
use abi::siginfo::{SigInfo, code};
use abi::signal::Signal;
use abi::{CallResult, Errno, SysResult, UserPtr};
use std::sync::Arc;
use vfs::Capabilities;

/// A signal number of a sending call; 0 only checks.
fn signal_of(number: u32) -> SysResult<Option<Signal>> {
    if number == 0 { Ok(None) } else { Signal::new(number).map(Some) }
}

/// The siginfo of a signal that the caller sends.
#[must_use]
pub fn user_info(cx: &Cx<'_>, signal: Signal, code: i32) -> SigInfo {
    let uid = cx.cred().user_ns.show_uid(cx.cred().uid);
    SigInfo::from_sender(signal, code, cx.shared.process.pid.own(), uid)
}

/// kill(2)'s permission rule.
pub fn may_signal(cx: &Cx<'_>, target: &Arc<TaskShared>, signal: Option<Signal>) -> SysResult<()> {
    if Arc::ptr_eq(&cx.shared.process, &target.process) {
        return Ok(());
    }
    let other = Arc::clone(&target.published.lock().cred);
    let cred = cx.cred();
    let same = [cred.euid, cred.uid].iter().any(|id| *id == other.suid || *id == other.uid);
    if same || cred.has_in(Capabilities::KILL, &other.user_ns) {
        return Ok(());
    }
    if signal == Some(Signal::SIGCONT) {
        let tree = cx.kernel().tree.lock();
        let session = |process: &Process| tree.node(process.pid.root()).map(|node| node.sid.root());
        if session(&cx.shared.process) == session(&target.process) {
            return Ok(());
        }
    }
    Err(Errno::EPERM)
}

/// Whether the caller stands above the namespace whose init it signals.
#[must_use]
pub fn force_for(cx: &Cx<'_>, process: &Process) -> Force {
    let inside = match (cx.shared_ns(), process.pid.ns()) {
        (Some(own), Some(other)) => Arc::ptr_eq(&own, other),
        _ => true,
    };
    if inside { Force::No } else { Force::Yes }
}

/// kill(2).
pub fn kill(cx: &mut Cx<'_>, pid: i32, signal: u32) -> CallResult<()> {
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    if pid > 0 {
        let number = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
        let task = {
            let tree = cx.kernel().tree.lock();
            Arc::clone(tree.find_task(&ns, number).ok_or(Errno::ESRCH)?)
        };
        return Ok(send_one(cx, &task.process, signal_of(signal)?)?);
    }
    if pid == i32::MIN {
        return Err(Errno::ESRCH.into());
    }
    let own = cx.shared.process.pid.root();
    let targets: Vec<Arc<Process>> = {
        let tree = cx.kernel().tree.lock();
        let group = match pid {
            0 => tree.node(own).map(|node| node.pgid.root()),
            -1 => None,
            _ => Some(ns.find(pid.unsigned_abs()).ok_or(Errno::ESRCH)?.root()),
        };
        let all = tree.nodes().filter(|node| node.process.pid.seen_in(&ns) != 0);
        let meant = all.filter(|node| match group {
            Some(group) => node.pgid.root() == group,
            None => node.process.pid.root() != own && node.process.pid.seen_in(&ns) != 1,
        });
        meant.map(|node| Arc::clone(&node.process)).collect()
    };
    if targets.is_empty() {
        return Err(Errno::ESRCH.into());
    }
    send_all(cx, &targets, signal_of(signal)?)
}

fn send_all(cx: &Cx<'_>, targets: &[Arc<Process>], signal: Option<Signal>) -> CallResult<()> {
    if targets.is_empty() {
        return Err(Errno::ESRCH.into());
    }
    let mut failure = None;
    let mut done = false;
    for process in targets {
        match send_one(cx, process, signal) {
            Ok(()) => done = true,
            Err(errno) => failure = Some(errno),
        }
    }
    if done { Ok(()) } else { Err(failure.unwrap_or(Errno::ESRCH).into()) }
}

fn send_one(cx: &Cx<'_>, process: &Arc<Process>, signal: Option<Signal>) -> SysResult<()> {
    // A zombie can be signalled to no effect.
    let Some(leader) = process.leader() else { return Ok(()) };
    may_signal(cx, &leader, signal)?;
    let Some(signal) = signal else { return Ok(()) };
    let mut info = user_info(cx, signal, code::SI_USER);
    if let Some(ns) = process.pid.ns() {
        info.set_pid(cx.shared.process.pid.seen_in(ns));
    }
    send::to_process(process, info, force_for(cx, process))
}

fn find_thread(cx: &Cx<'_>, tgid: Option<i32>, tid: i32) -> SysResult<Arc<TaskShared>> {
    let number = u32::try_from(tid).ok().filter(|n| *n > 0).ok_or(Errno::EINVAL)?;
    if tgid.is_some_and(|tgid| tgid <= 0) {
        return Err(Errno::EINVAL);
    }
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let tree = cx.kernel().tree.lock();
    let task = tree.find_task(&ns, number).ok_or(Errno::ESRCH)?;
    let group = i32::try_from(task.process.pid.seen_in(&ns)).unwrap_or(0);
    if tgid.is_some_and(|tgid| tgid != group) {
        return Err(Errno::ESRCH);
    }
    Ok(Arc::clone(task))
}

fn send_thread(cx: &Cx<'_>, tgid: Option<i32>, tid: i32, signal: u32) -> CallResult<()> {
    let task = find_thread(cx, tgid, tid)?;
    let signal = signal_of(signal)?;
    may_signal(cx, &task, signal)?;
    if let Some(signal) = signal {
        let info = user_info(cx, signal, code::SI_TKILL);
        send::to_task(&task, info, force_for(cx, &task.process))?;
    }
    Ok(())
}

/// tkill(2).
pub fn tkill(cx: &mut Cx<'_>, tid: i32, signal: u32) -> CallResult<()> {
    send_thread(cx, None, tid, signal)
}

/// tgkill(2).
pub fn tgkill(cx: &mut Cx<'_>, tgid: i32, tid: i32, signal: u32) -> CallResult<()> {
    send_thread(cx, Some(tgid), tid, signal)
}

/// Nobody may pretend to be the kernel or kill(2) to another process.
pub fn check_user_info(cx: &Cx<'_>, info: &SigInfo, target_root: u32) -> SysResult<()> {
    let pretends = info.code >= 0 || info.code == code::SI_TKILL;
    if pretends && target_root != cx.shared.process.pid.root() { Err(Errno::EPERM) } else { Ok(()) }
}

/// rt_sigqueueinfo(2).
pub fn rt_sigqueueinfo(cx: &mut Cx<'_>, pid: i32, signal: u32, info: UserPtr<SigInfo>) -> CallResult<()> {
    let mut info: SigInfo = cx.read(info)?;
    let task = find_thread(cx, None, pid).map_err(|_| Errno::ESRCH);
    // Nobody but itself hears what looks like the kernel's.
    check_user_info(cx, &info, task.as_ref().map_or(0, |task| task.process.pid.root()))?;
    let task = task?;
    let signal = signal_of(signal)?;
    may_signal(cx, &task, signal)?;
    if let Some(signal) = signal {
        info.signo = i32::from(signal.number());
        send::to_process(&task.process, info, force_for(cx, &task.process))?;
    }
    Ok(())
}

/// rt_tgsigqueueinfo(2).
pub fn rt_tgsigqueueinfo(
    cx: &mut Cx<'_>,
    tgid: i32,
    tid: i32,
    signal: u32,
    info: UserPtr<SigInfo>,
) -> CallResult<()> {
    let mut info: SigInfo = cx.read(info)?;
    let signal = signal_of(signal)?;
    let task = find_thread(cx, Some(tgid), tid)?;
    check_user_info(cx, &info, task.process.pid.root())?;
    may_signal(cx, &task, signal)?;
    if let Some(signal) = signal {
        info.signo = i32::from(signal.number());
        send::to_task(&task, info, force_for(cx, &task.process))?;
    }
    Ok(())
}
