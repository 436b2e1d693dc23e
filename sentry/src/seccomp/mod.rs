//! Seccomp of guests (seccomp(2)): strict mode, and filters run by an interpreter of our own.

mod bpf;
mod cache;
mod notify;
mod profile;

use crate::control::spec::SeccompSpec;
use crate::process::WaitStatus;
use crate::ptrace::stop;
use crate::signal::send;
use crate::task::{Cx, TaskShared, Work};
use abi::ptrace::AUDIT_ARCH_X86_64;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::{CallResult, Errno, Restart, SysResult, UserAddr, UserPtr};
use bpf::{Data, Insn, Program};
use cache::Allowed;
use notify::{Answer, FilterEnd, Listener};
use platform::SyscallArgs;
use profile::Profile;
use std::sync::Arc;
use vfs::Capabilities;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const RET_ACTION: u32 = 0xffff_0000;
/// Instructions of all filters of a thread (`MAX_INSNS_PER_PATH`).
const MOST_INSNS: usize = 32_768;

/// What a thread may call.
#[derive(Debug)]
pub enum Filters {
    /// read, write, exit, rt_sigreturn.
    Strict,
    /// A filter, and those installed before it.
    Filter {
        /// Its program.
        program: Program,
        /// SECCOMP_FILTER_FLAG_LOG.
        logs: bool,
        /// SECCOMP_FILTER_FLAG_NEW_LISTENER.
        listener: Option<FilterEnd>,
        /// Older ones.
        older: Option<Arc<Filters>>,
        /// Instructions of all, with four for each filter.
        weight: usize,
        /// How many there are.
        count: u32,
        /// Calls that all of them allow.
        allowed: Allowed,
    },
    /// The bundle's, below all others.
    Profile {
        /// Its table.
        profile: Profile,
        /// SECCOMP_FILTER_FLAG_LOG.
        logs: bool,
        /// Calls that it allows.
        allowed: Allowed,
    },
}

/// Calls that the platform may answer by itself: getpid, getuid, getgid, geteuid, getegid, gettid.
const LOCAL: [u32; 6] = [39, 102, 104, 107, 108, 186];

/// What becomes of the first execve(2) of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FirstExec {
    /// It runs.
    Allowed,
    /// It fails.
    Refused(Errno),
    /// SIGSYS.
    Killed,
}

impl Filters {
    /// The profile of a bundle.
    #[must_use]
    pub fn of_bundle(spec: &SeccompSpec) -> Arc<Filters> {
        let profile = Profile::new(spec);
        let allowed = Allowed::new(None, |call| profile.always_allows(call));
        Arc::new(Filters::Profile { profile, logs: spec.log, allowed })
    }
    /// What the profile of a bundle makes of the execve(2) with which the runtime starts a process.
    pub(crate) fn first_exec(&self) -> FirstExec {
        let Filters::Profile { profile, .. } = self else { return FirstExec::Allowed };
        let answer = profile.of_execve();
        match answer & RET_ACTION {
            RET_ALLOW | RET_LOG => FirstExec::Allowed,
            RET_ERRNO => {
                FirstExec::Refused(Errno::from_raw(i32::try_from(answer & !RET_ACTION).unwrap_or(0)))
            }
            RET_TRACE => FirstExec::Refused(Errno::ENOSYS),
            _ => FirstExec::Killed,
        }
    }
    fn weight(&self) -> usize {
        match self {
            Filters::Strict | Filters::Profile { .. } => 0,
            Filters::Filter { weight, .. } => *weight,
        }
    }
    /// How many there are, for /proc.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self {
            Filters::Strict => 0,
            Filters::Profile { .. } => 1,
            Filters::Filter { count, .. } => *count,
        }
    }
    fn allowed(&self) -> &Allowed {
        match self {
            Filters::Strict => &Allowed::NONE,
            Filters::Profile { allowed, .. } | Filters::Filter { allowed, .. } => allowed,
        }
    }
    /// Whether they let everything pass that the platform may answer by itself.
    #[must_use]
    pub fn allow_local_answers(&self) -> bool {
        LOCAL.iter().all(|call| self.allowed().has(*call))
    }
    /// PR_GET_SECCOMP.
    #[must_use]
    pub fn mode(&self) -> u8 {
        if matches!(self, Filters::Strict) { 1 } else { 2 }
    }
    /// The action with the highest precedence, of equals that of the newest filter; and that filter's listener.
    fn decide(&self, data: &Data) -> (u32, Option<Arc<Listener>>) {
        let mut best = (RET_ALLOW, None);
        let mut at = Some(self);
        while let Some(filters) = at {
            let (action, older, listener) = match filters {
                Filters::Strict => break,
                Filters::Profile { profile, .. } => (profile.decide(data), None, None),
                Filters::Filter { program, older, listener, .. } => {
                    (program.run(data), older.as_deref(), listener.as_ref())
                }
            };
            // As signed numbers: KILL_PROCESS is the least.
            if (action & RET_ACTION).cast_signed() < (best.0 & RET_ACTION).cast_signed() {
                best = (action, listener);
            }
            at = older;
        }
        (best.0, best.1.map(|end| Arc::clone(&end.0)))
    }
    fn has_listener(&self) -> bool {
        let mut at = Some(self);
        while let Some(Filters::Filter { older, listener, .. }) = at {
            if listener.is_some() {
                return true;
            }
            at = older.as_deref();
        }
        false
    }
    /// The program of one filter, the newest being the last, and whether it logs (PTRACE_SECCOMP_GET_FILTER).
    /// `ENOENT` when there are not so many.
    pub fn program(&self, number: u64) -> SysResult<(&Program, bool)> {
        let count = u64::from(self.count());
        let skip = count.checked_sub(number).and_then(|n| n.checked_sub(1)).ok_or(Errno::ENOENT)?;
        let mut at = Some(self);
        let mut left = skip;
        while let Some(Filters::Filter { program, older, logs, .. }) = at {
            if left == 0 {
                return Ok((program, *logs));
            }
            left -= 1;
            at = older.as_deref();
        }
        Err(Errno::ENOENT)
    }
}

/// PR_GET_SECCOMP.
#[must_use]
pub fn mode(cx: &Cx<'_>) -> u64 {
    cx.owned.seccomp.as_ref().map_or(0, |filters| u64::from(filters.mode()))
}

/// What becomes of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is made.
    Make,
    /// It is not: its result is set.
    Skip,
    /// The thread was interrupted while a supervisor thought about it.
    Interrupted(Restart),
}

impl Verdict {
    /// Made or not.
    #[must_use]
    pub fn made_if(made: bool) -> Verdict {
        if made { Verdict::Make } else { Verdict::Skip }
    }
}

/// Looks at a call.
pub fn check(cx: &mut Cx<'_>, call: &mut SyscallArgs) -> Verdict {
    let Some(filters) = &cx.owned.seccomp else { return Verdict::Make };
    if filters.allowed().has(call.number) {
        return Verdict::Make;
    }
    let filters = Arc::clone(filters);
    if matches!(*filters, Filters::Strict) {
        if matches!(call.number, 0 | 1 | 15 | 60) {
            return Verdict::Make;
        }
        cx.owned.leaving = Some(WaitStatus::killed(Signal::SIGKILL));
        return Verdict::Skip;
    }
    let data = Data { number: call.number, arch: AUDIT_ARCH_X86_64, ip: call.ip, args: call.args };
    let (action, listener) = filters.decide(&data);
    let value = action & 0xffff;
    match action & RET_ACTION {
        RET_ALLOW => return Verdict::Make,
        RET_LOG => {
            let text = format!("seccomp: call {} of {}", call.number, cx.owned.comm_text());
            cx.kernel().trace.log(&text);
            return Verdict::Make;
        }
        RET_ERRNO => {
            let errno = i64::from(value.min(4095));
            cx.context.set_return(errno.wrapping_neg().cast_unsigned());
        }
        RET_TRAP => {
            cx.context.set_return(Errno::ENOSYS.as_return());
            let errno = i32::try_from(value).unwrap_or(0);
            let info = SigInfo::seccomp(call.ip, call.number, AUDIT_ARCH_X86_64, errno);
            // The handler finds the call's number in rax.
            cx.context.set_return(u64::from(call.number));
            send::force(cx.shared, &cx.owned.signal.handlers, info);
        }
        RET_TRACE => {
            cx.context.set_return(Errno::ENOSYS.as_return());
            if stop::seccomp_stop(cx, u16::try_from(value).unwrap_or(0)) {
                return Verdict::made_if(stop::reload(cx, call));
            }
        }
        RET_USER_NOTIF => match listener.map(|listener| listener.ask(cx, &data)) {
            None => cx.context.set_return(Errno::ENOSYS.as_return()),
            Some(Answer::Return(value)) => cx.context.set_return(value.cast_unsigned()),
            Some(Answer::Continue) => return Verdict::Make,
            Some(Answer::Interrupted(kind)) => return Verdict::Interrupted(kind),
        },
        RET_KILL_THREAD => {
            cx.owned.leaving = Some(WaitStatus::killed(Signal::SIGSYS));
            let last = cx.shared.process.state.lock().live <= 1;
            if last {
                kill_process(cx, call);
            }
        }
        _ => kill_process(cx, call),
    }
    Verdict::Skip
}

fn kill_process(cx: &mut Cx<'_>, call: &SyscallArgs) {
    let signal = Signal::SIGSYS;
    let info = SigInfo::seccomp(call.ip, call.number, AUDIT_ARCH_X86_64, 0);
    let dumped = crate::process::core::dump(cx, signal, &info);
    let status = if dumped { WaitStatus::dumped(signal) } else { WaitStatus::killed(signal) };
    send::begin_exit(&mut cx.shared.process.state.lock(), status);
}

/// PR_SET_SECCOMP.
pub fn set_by_prctl(cx: &mut Cx<'_>, mode: u64, program: UserAddr) -> CallResult<u64> {
    match mode {
        1 => strict(cx),
        2 => install(cx, 0, program),
        _ => Err(Errno::EINVAL.into()),
    }
}

const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
const GET_NOTIF_SIZES: u32 = 3;
const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_NEW_LISTENER: u32 = 8;
const FLAG_TSYNC_ESRCH: u32 = 16;
const FLAG_WAIT_KILLABLE_RECV: u32 = 32;
const ALL_FLAGS: u32 = 63;

/// seccomp(2).
pub fn seccomp(cx: &mut Cx<'_>, operation: u32, flags: u32, args: UserAddr) -> CallResult<u64> {
    match operation {
        SET_MODE_STRICT if flags == 0 && args.is_null() => strict(cx),
        SET_MODE_FILTER => install(cx, flags, args),
        GET_ACTION_AVAIL if flags == 0 => {
            let action: u32 = cx.read(UserPtr::new(args))?;
            let known = [
                RET_KILL_PROCESS,
                RET_KILL_THREAD,
                RET_TRAP,
                RET_ERRNO,
                RET_USER_NOTIF,
                RET_TRACE,
                RET_LOG,
                RET_ALLOW,
            ];
            if known.contains(&action) { Ok(0) } else { Err(Errno::EOPNOTSUPP.into()) }
        }
        GET_NOTIF_SIZES if flags == 0 => {
            cx.write(UserPtr::new(args), &notify::SIZES)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn strict(cx: &mut Cx<'_>) -> CallResult<u64> {
    if cx.owned.seccomp.is_some() {
        return Err(Errno::EINVAL.into());
    }
    put(cx, Arc::new(Filters::Strict));
    Ok(0)
}

fn put(cx: &mut Cx<'_>, filters: Arc<Filters>) {
    cx.shared.set_seccomp(Some(Arc::clone(&filters)));
    cx.owned.seccomp = Some(filters);
    cx.owned.publish(cx.shared);
    cx.owned.watched = true;
    cx.owned.publish(cx.shared);
    crate::task::local_answers(cx);
}

/// `struct sock_fprog`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Fprog {
    len: u16,
    pad: [u16; 3],
    insns: u64,
}

fn install(cx: &mut Cx<'_>, flags: u32, at: UserAddr) -> CallResult<u64> {
    let has = |flag: u32| flags & flag != 0;
    // A listener's descriptor and a thread's number cannot both be returned.
    let both = has(FLAG_TSYNC) && has(FLAG_NEW_LISTENER) && !has(FLAG_TSYNC_ESRCH);
    if has(!ALL_FLAGS) || both || (has(FLAG_WAIT_KILLABLE_RECV) && !has(FLAG_NEW_LISTENER)) {
        return Err(Errno::EINVAL.into());
    }
    let insns = read_program(cx, at)?;
    if !cx.owned.no_new_privs && !cx.cred().has(Capabilities::SYS_ADMIN) {
        return Err(Errno::EACCES.into());
    }
    if matches!(cx.owned.seccomp.as_deref(), Some(Filters::Strict)) {
        return Err(Errno::EINVAL.into());
    }
    let program = Program::new(insns)?;
    let older = cx.owned.seccomp.clone();
    let (listener, file) = if has(FLAG_NEW_LISTENER) {
        if older.as_ref().is_some_and(|older| older.has_listener()) {
            return Err(Errno::EBUSY.into());
        }
        let (end, file) = notify::create(has(FLAG_WAIT_KILLABLE_RECV));
        (Some(end), Some(file))
    } else {
        (None, None)
    };
    let filters = push(older, program, has(FLAG_LOG), listener)?;
    let fd = match file {
        None => None,
        Some(file) => Some(cx.files().install(file, crate::files::OnExec::Close, 0, cx.nofile())?),
    };
    if has(FLAG_TSYNC)
        && let Some(other) = synchronise(cx, &filters)
    {
        if let Some(fd) = fd {
            drop(cx.files().close(fd)?);
        }
        if has(FLAG_TSYNC_ESRCH) {
            return Err(Errno::ESRCH.into());
        }
        return Ok(u64::from(other));
    }
    put(cx, filters);
    Ok(fd.map_or(0, |fd| u64::try_from(fd.number()).unwrap_or(0)))
}

/// A filter on top of others; `ENOMEM` when they become too long together.
fn push(
    older: Option<Arc<Filters>>,
    program: Program,
    logs: bool,
    listener: Option<FilterEnd>,
) -> SysResult<Arc<Filters>> {
    let weight = older.as_ref().map_or(0, |older| older.weight()) + program.len() + 4;
    if weight > MOST_INSNS {
        return Err(Errno::ENOMEM);
    }
    let count = older.as_ref().map_or(0, |older| older.count()).saturating_add(1);
    let allows = |call| program.always(call, AUDIT_ARCH_X86_64, RET_ALLOW);
    let allowed = Allowed::new(older.as_ref().map(|older| older.allowed()), allows);
    Ok(Arc::new(Filters::Filter { program, logs, listener, older, weight, count, allowed }))
}

fn read_program(cx: &Cx<'_>, at: UserAddr) -> SysResult<Vec<Insn>> {
    let head: Fprog = cx.read(UserPtr::new(at))?;
    let len = usize::from(head.len);
    if len == 0 || len > bpf::MOST {
        return Err(Errno::EINVAL);
    }
    cx.mm().read_array(UserPtr::<Insn>::new(UserAddr::new(head.insns)), len)
}

/// Gives all other threads the same filters. Returns a thread whose own filters are no ancestor of them.
fn synchronise(cx: &Cx<'_>, filters: &Arc<Filters>) -> Option<u32> {
    let others: Vec<Arc<TaskShared>> =
        cx.shared.process.threads().into_iter().filter(|task| !Arc::ptr_eq(task, cx.shared)).collect();
    for task in &others {
        let theirs = task.seccomp();
        let fits = match (&theirs, &cx.owned.seccomp) {
            (None, _) => true,
            (Some(a), Some(b)) => is_ancestor(a, b),
            (Some(_), None) => false,
        };
        if !fits && !task.is_exiting() {
            return Some(task.published.lock().pid.own());
        }
    }
    for task in others {
        task.set_seccomp(Some(Arc::clone(filters)));
        if cx.owned.no_new_privs {
            task.set_no_new_privs();
        }
        task.kick(Work::SECCOMP);
    }
    None
}

fn is_ancestor(older: &Arc<Filters>, newer: &Arc<Filters>) -> bool {
    let mut at = Some(newer);
    while let Some(filters) = at {
        if Arc::ptr_eq(filters, older) {
            return true;
        }
        at = match &**filters {
            Filters::Strict | Filters::Profile { .. } => None,
            Filters::Filter { older, .. } => older.as_ref(),
        };
    }
    false
}

/// A thread takes over what another one gave it (SECCOMP_FILTER_FLAG_TSYNC).
pub fn take_over(cx: &mut Cx<'_>) {
    if let Some(filters) = cx.shared.seccomp() {
        cx.owned.seccomp = Some(filters);
        cx.owned.no_new_privs |= cx.shared.no_new_privs();
        cx.owned.publish(cx.shared);
        cx.owned.watched = true;
        cx.owned.publish(cx.shared);
        crate::task::local_answers(cx);
    }
}
