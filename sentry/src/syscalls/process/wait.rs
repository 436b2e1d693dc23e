//! wait4(2), waitid(2).

use crate::process::wait::{self, Waited, Which};
use crate::process::{exit::ticks, pidfd};
use crate::task::Cx;
use abi::process::{Rusage, WaitOptions};
use abi::siginfo::SigInfo;
use abi::time::Timeval;
use abi::{CallResult, Errno, Fd, UserPtr};
use std::time::Duration;
use vfs::Waitable;

fn rusage(waited: &Waited) -> Rusage {
    let (user, system) = waited.times_ns;
    Rusage {
        utime: Timeval::from_duration(Duration::from_nanos(user)),
        stime: Timeval::from_duration(Duration::from_nanos(system)),
        maxrss: i64::try_from(waited.max_rss).unwrap_or(i64::MAX),
        ..Rusage::default()
    }
}

/// wait4(2).
pub fn wait4(
    cx: &mut Cx<'_>,
    pid: i32,
    status: UserPtr<u32>,
    options: WaitOptions,
    usage: UserPtr<Rusage>,
) -> CallResult<u32> {
    let allowed = WaitOptions::NOHANG
        | WaitOptions::STOPPED
        | WaitOptions::CONTINUED
        | WaitOptions::NOTHREAD
        | WaitOptions::ALL
        | WaitOptions::CLONE;
    if !allowed.contains(options) {
        return Err(Errno::EINVAL.into());
    }
    let which = wait::resolve(cx, pid)?;
    let Some(waited) = wait::wait(cx, which, options | WaitOptions::EXITED)? else { return Ok(0) };
    cx.write_if(status, &waited.status.0)?;
    cx.write_if(usage, &rusage(&waited))?;
    Ok(waited.pid)
}

const P_ALL: u32 = 0;
const P_PID: u32 = 1;
const P_PGID: u32 = 2;
const P_PIDFD: u32 = 3;

/// waitid(2).
pub fn waitid(
    cx: &mut Cx<'_>,
    kind: u32,
    id: i32,
    info: UserPtr<SigInfo>,
    options: WaitOptions,
    usage: UserPtr<Rusage>,
) -> CallResult<()> {
    let events = WaitOptions::EXITED | WaitOptions::STOPPED | WaitOptions::CONTINUED;
    if options.bits() & !WaitOptions::all().bits() != 0 || !options.intersects(events) {
        return Err(Errno::EINVAL.into());
    }
    let mut options = options;
    let which = match kind {
        P_ALL => Which::Any,
        P_PID if id > 0 => wait::resolve(cx, id)?,
        P_PGID if id == 0 => wait::resolve(cx, 0)?,
        P_PGID if id > 0 => wait::resolve(cx, id.wrapping_neg())?,
        P_PIDFD if id >= 0 => {
            let file = cx.files().get(Fd::new(id))?;
            let process = pidfd::process_of(&file)?;
            let ended = !file.ready(abi::poll::Events::IN).is_empty();
            if file.flags().contains(abi::fs::OpenFlags::NONBLOCK) && !ended {
                options |= WaitOptions::NOHANG;
                let which = Which::Process(process.pid.root());
                return match wait::wait(cx, which, options)? {
                    Some(waited) => report(cx, info, usage, Some(&waited)),
                    None => Err(Errno::EAGAIN.into()),
                };
            }
            Which::Process(process.pid.root())
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    let waited = wait::wait(cx, which, options)?;
    report(cx, info, usage, waited.as_ref())
}

fn report(
    cx: &Cx<'_>,
    info: UserPtr<SigInfo>,
    usage: UserPtr<Rusage>,
    waited: Option<&Waited>,
) -> CallResult<()> {
    if let Some(waited) = waited {
        cx.write_if(usage, &rusage(waited))?;
    }
    if info.is_null() {
        return Ok(());
    }
    let value = match waited {
        Some(waited) => {
            let (user, system) = waited.times_ns;
            let info = SigInfo::child(waited.code, waited.pid, waited.uid, waited.value);
            info.with_times(ticks(user), ticks(system))
        }
        None => SigInfo::none(),
    };
    Ok(cx.write(info, &value)?)
}
