//! What the administrator of a machine calls: reboot(2), syslog(2), adjtimex(2), vhangup(2); restart_syscall(2).

use crate::process::WaitStatus;
use crate::signal::send;
use crate::task::Cx;
use abi::signal::Signal;
use abi::time::Timeval;
use abi::{CallResult, Errno, UserAddr, UserCStr, UserPtr};
use std::sync::Arc;
use vfs::Capabilities;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// reboot(2): in a pid namespace it ends the namespace's init, which says why by a signal.
pub fn reboot(cx: &mut Cx<'_>, magic: u32, magic2: u32, command: u32) -> CallResult<()> {
    const MAGIC: u32 = 0xfee1_dead;
    const MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    const RESTART: u32 = 0x0123_4567;
    const RESTART2: u32 = 0xa1b2_c3d4;
    const HALT: u32 = 0xcdef_0123;
    const POWER_OFF: u32 = 0x4321_fedc;
    let ns = cx.shared_ns().ok_or(Errno::EPERM)?;
    if !cx.cred().has_in(Capabilities::SYS_BOOT, &ns.user) {
        return Err(Errno::EPERM.into());
    }
    if magic != MAGIC || !MAGIC2.contains(&magic2) {
        return Err(Errno::EINVAL.into());
    }
    let signal = match command {
        RESTART | RESTART2 => Signal::SIGHUP,
        HALT | POWER_OFF => Signal::SIGINT,
        _ => return Err(Errno::EINVAL.into()),
    };
    let init = {
        let tree = cx.kernel().tree.lock();
        let node = ns.init().and_then(|init| tree.node(init));
        Arc::clone(&node.ok_or(Errno::EINVAL)?.process)
    };
    send::begin_exit(&mut init.state.lock(), WaitStatus::killed(signal));
    Ok(())
}

/// syslog(2): the log is empty.
pub fn syslog(cx: &mut Cx<'_>, action: i32, buf: UserAddr, len: i32) -> CallResult<i32> {
    const READ: i32 = 2;
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const CONSOLE_LEVEL: i32 = 8;
    const SIZE_BUFFER: i32 = 10;
    const LOG_SIZE: i32 = 1 << 18;
    if !cx.cred().has_in(Capabilities::SYSLOG, &cx.kernel().root.user) {
        return Err(Errno::EPERM.into());
    }
    match action {
        READ | READ_ALL | READ_CLEAR if buf.is_null() || len < 0 => Err(Errno::EINVAL.into()),
        CONSOLE_LEVEL if !(1..=8).contains(&len) => Err(Errno::EINVAL.into()),
        SIZE_BUFFER => Ok(LOG_SIZE),
        // Opening, closing, clearing and the console's level change nothing of an empty log.
        0..=9 => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// `struct timex`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Timex {
    modes: u32,
    pad: u32,
    offset: i64,
    freq: i64,
    maxerror: i64,
    esterror: i64,
    status: i32,
    pad2: i32,
    constant: i64,
    precision: i64,
    tolerance: i64,
    time: Timeval,
    tick: i64,
    ppsfreq: i64,
    jitter: i64,
    shift: i32,
    pad3: i32,
    stabil: i64,
    counts: [i64; 4],
    tai: i32,
    pad4: [i32; 11],
}

/// adjtimex(2): the clock is the host's, which nobody here may set.
pub fn adjtimex(cx: &mut Cx<'_>, buf: UserPtr<Timex>) -> CallResult<i32> {
    const TIME_ERROR: i32 = 5;
    const STA_UNSYNC: i32 = 0x40;
    /// ADJ_OFFSET_SS_READ: reads too.
    const SS_READ: u32 = 0xa001;
    const ADJTIME: u32 = 0x8000;
    const SINGLESHOT: u32 = 1;
    let old: Timex = cx.read(buf)?;
    if old.modes & (ADJTIME | SINGLESHOT) == ADJTIME {
        return Err(Errno::EINVAL.into());
    }
    if old.modes != 0 && old.modes != SS_READ {
        return Err(Errno::EPERM.into());
    }
    let now = vfs::realtime_now();
    let value = Timex {
        modes: old.modes,
        maxerror: 16_000_000,
        esterror: 16_000_000,
        status: STA_UNSYNC,
        constant: 2,
        precision: 1,
        tolerance: 32_768_000,
        time: Timeval { sec: now.sec, usec: now.nsec / 1000 },
        tick: 10_000,
        ..Timex::default()
    };
    cx.write(buf, &value)?;
    Ok(TIME_ERROR)
}

/// clock_adjtime(2).
pub fn clock_adjtime(cx: &mut Cx<'_>, clock: i32, buf: UserPtr<Timex>) -> CallResult<i32> {
    match clock {
        0 => adjtimex(cx, buf),
        1..=11 => Err(Errno::EOPNOTSUPP.into()),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// acct(2): there is no accounting; who may not ask is told so first.
pub fn acct(cx: &mut Cx<'_>, _path: UserCStr) -> CallResult<()> {
    let root = Arc::clone(&cx.kernel().root.user);
    let allowed = cx.cred().has_in(Capabilities::SYS_PACCT, &root);
    Err(if allowed { Errno::ENOSYS } else { Errno::EPERM }.into())
}

/// bpf(2): as `kernel.unprivileged_bpf_disabled` = 2 answers everybody without CAP_BPF; nobody has it here.
pub fn bpf(_cx: &mut Cx<'_>, _command: i32, _attr: UserAddr, _size: u32) -> CallResult<i32> {
    Err(Errno::EPERM.into())
}

/// perf_event_open(2): as `kernel.perf_event_paranoid` = 3 answers everybody without CAP_PERFMON.
pub fn perf_event_open(
    cx: &mut Cx<'_>,
    attr: UserPtr<[u32; 2]>,
    _pid: i32,
    _cpu: i32,
    _group: i32,
    flags: u64,
) -> CallResult<i32> {
    if flags & !0xf != 0 {
        return Err(Errno::EINVAL.into());
    }
    cx.read(attr)?;
    Err(Errno::EACCES.into())
}

/// vhangup(2): the controlling terminal, if there is one.
pub fn vhangup(cx: &mut Cx<'_>) -> CallResult<()> {
    if !cx.cred().has_in(Capabilities::SYS_TTY_CONFIG, &cx.kernel().root.user) {
        return Err(Errno::EPERM.into());
    }
    let sid = vfs::TaskView::sid(&**cx.shared);
    if let Some(tty) = cx.kernel().files.terminals.controlling(sid) {
        tty.hang_up();
    }
    Ok(())
}

/// restart_syscall(2): interrupted calls are made again by the kernel itself.
pub fn restart_syscall(_cx: &mut Cx<'_>) -> CallResult<()> {
    Err(Errno::EINTR.into())
}
