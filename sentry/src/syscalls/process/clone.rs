//! fork(2), vfork(2), clone(2), clone3(2).

use crate::task::Cx;
use crate::task::clone::{CloneRequest, clone_task};
use abi::process::{CloneArgs, CloneFlags};
use abi::signal::Signal;
use abi::{CallResult, Errno, Fd, UserAddr, UserPtr};
use zerocopy::FromBytes;

call_flags! {
    abi::process::WaitOptions, "W";
}

fn sigchld() -> u32 {
    u32::from(Signal::SIGCHLD.number())
}

/// fork(2).
pub fn fork(cx: &mut Cx<'_>) -> CallResult<u32> {
    clone_task(cx, &CloneRequest { exit_signal: sigchld(), ..CloneRequest::default() })
}

/// vfork(2).
pub fn vfork(cx: &mut Cx<'_>) -> CallResult<u32> {
    let flags = CloneFlags::VFORK | CloneFlags::VM;
    clone_task(cx, &CloneRequest { flags, exit_signal: sigchld(), ..CloneRequest::default() })
}

/// clone(2), with the argument order of x86-64.
pub fn clone(
    cx: &mut Cx<'_>,
    flags: u64,
    stack: u64,
    parent_tid: UserAddr,
    child_tid: UserAddr,
    tls: u64,
) -> CallResult<u32> {
    // Bits above 31 are ignored, the low byte is the exit signal.
    let bits = flags & 0xffff_ff00;
    // The bits that clone3 gave a new meaning were part of the signal here.
    let request = CloneRequest {
        flags: CloneFlags::from_bits_truncate(bits),
        exit_signal: u32::try_from(flags & 0xff).unwrap_or(0),
        stack,
        tls,
        parent_tid,
        child_tid,
        pidfd: parent_tid,
        set_tid: Vec::new(),
        cgroup: None,
    };
    let both = CloneFlags::PIDFD | CloneFlags::PARENT_SETTID;
    if request.flags.contains(both) {
        return Err(Errno::EINVAL.into());
    }
    clone_task(cx, &request)
}

const CLONE_ARGS_SIZE_VER0: usize = 64;
const CLONE_ARGS_SIZE_VER2: usize = 88;

/// clone3(2).
pub fn clone3(cx: &mut Cx<'_>, args: UserAddr, size: usize) -> CallResult<u32> {
    let args = read_args(cx, args, size)?;
    let flags = CloneFlags::from_bits(args.flags).ok_or(Errno::EINVAL)?;
    let legacy = CloneFlags::DETACHED;
    if flags.intersects(legacy) || args.exit_signal > 64 {
        return Err(Errno::EINVAL.into());
    }
    let cgroup = if flags.contains(CloneFlags::INTO_CGROUP) {
        let fd = i32::try_from(args.cgroup).map_err(|_| Errno::EINVAL)?;
        if size < CLONE_ARGS_SIZE_VER2 {
            return Err(Errno::EINVAL.into());
        }
        Some(Fd::new(fd))
    } else {
        None
    };
    let threaded = CloneFlags::THREAD | CloneFlags::PARENT;
    if flags.intersects(threaded) && args.exit_signal != 0 {
        return Err(Errno::EINVAL.into());
    }
    if (args.stack == 0) != (args.stack_size == 0) {
        return Err(Errno::EINVAL.into());
    }
    let stack = args.stack.checked_add(args.stack_size).ok_or(Errno::EINVAL)?;
    let request = CloneRequest {
        flags,
        exit_signal: u32::try_from(args.exit_signal).map_err(|_| Errno::EINVAL)?,
        stack,
        tls: args.tls,
        parent_tid: UserAddr::new(args.parent_tid),
        child_tid: UserAddr::new(args.child_tid),
        pidfd: UserAddr::new(args.pidfd),
        set_tid: read_ids(cx, &args)?,
        cgroup: match cgroup {
            Some(fd) => Some(crate::cgroup::group_of(cx.kernel(), &*cx.files().get(fd)?, &cx.caller())?),
            None => None,
        },
    };
    clone_task(cx, &request)
}

fn read_args(cx: &Cx<'_>, at: UserAddr, size: usize) -> CallResult<CloneArgs> {
    let known = size_of::<CloneArgs>();
    if size > 4096 {
        return Err(Errno::E2BIG.into());
    }
    if size < CLONE_ARGS_SIZE_VER0 {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; size];
    cx.mm().read_bytes(at, &mut bytes)?;
    if bytes.iter().skip(known).any(|byte| *byte != 0) {
        return Err(Errno::E2BIG.into());
    }
    bytes.resize(known, 0);
    Ok(CloneArgs::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?)
}

fn read_ids(cx: &Cx<'_>, args: &CloneArgs) -> CallResult<Vec<u32>> {
    let count = usize::try_from(args.set_tid_size).map_err(|_| Errno::EINVAL)?;
    if (args.set_tid == 0) != (count == 0) || count > crate::process::pid::MAX_LEVEL {
        return Err(Errno::EINVAL.into());
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    Ok(cx.mm().read_array(UserPtr::<u32>::new(UserAddr::new(args.set_tid)), count)?)
}
