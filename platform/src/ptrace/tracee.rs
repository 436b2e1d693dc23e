//! Calls carried out by a stopped stub thread on the tracer's behalf.

use super::layout;
use super::raw::{Gone, Resume, Running, Stop, Stopped};
use crate::registers::{Registers, USER_CS, USER_SS};
use abi::{Errno, SysResult};

/// Stops that are not the one waited for, before the thread counts as lost.
const PATIENCE: u32 = 1000;

/// A stub thread of this host thread; empty once it is gone.
#[derive(Debug)]
pub(super) struct Tracee {
    stopped: Option<Stopped>,
    role: Role,
}

/// A thread group's leader can only be reaped after all other threads, which other host threads trace:
/// nobody waits for a dead leader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    /// First thread of its stub.
    Helper,
    /// Any further thread.
    Guest,
}

/// What an injected call left.
struct Outcome {
    value: u64,
    /// Pid of a forked child, with the first stop yet to come.
    child: Option<i32>,
}

impl Tracee {
    pub(super) fn new(stopped: Stopped, role: Role) -> Tracee {
        Tracee { stopped: Some(stopped), role }
    }

    pub(super) fn take(&mut self) -> Result<Stopped, Gone> {
        self.stopped.take().ok_or(Gone)
    }

    pub(super) fn put(&mut self, stopped: Stopped) {
        self.stopped = Some(stopped);
    }

    /// The stopped thread, for a look at it.
    pub(super) fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// Carries out a system call. Registers are lost: the caller loads what it wants afterwards.
    pub(super) fn call(&mut self, number: libc::c_long, args: [u64; 6]) -> SysResult<u64> {
        self.inject(layout::CALL, layout::BREAKPOINT, number, args).and_then(|outcome| decode(outcome.value))
    }

    /// Starts an untraced thread in the stub, which waits for a tracer; returns its id.
    pub(super) fn clone_thread(&mut self) -> SysResult<i32> {
        let flags = libc::CLONE_VM
            | libc::CLONE_FS
            | libc::CLONE_FILES
            | libc::CLONE_SIGHAND
            | libc::CLONE_THREAD
            | libc::CLONE_SYSVSEM;
        let args = [u64::from(flags.cast_unsigned()), 0, 0, 0, 0, 0];
        let outcome = self.inject(layout::CLONE, layout::CLONE_BREAKPOINT, libc::SYS_clone, args)?;
        i32::try_from(decode(outcome.value)?).map_err(|_| Errno::EIO)
    }

    /// Forks the stub; the copy has only this thread, stopped. Needs `HELPER_OPTIONS`.
    pub(super) fn fork(&mut self) -> SysResult<(i32, Tracee)> {
        let flags = libc::CLONE_PARENT | libc::SIGCHLD;
        let args = [u64::from(flags.cast_unsigned()), 0, 0, 0, 0, 0];
        let outcome = self.inject(layout::CALL, layout::BREAKPOINT, libc::SYS_clone, args)?;
        decode(outcome.value)?;
        let pid = outcome.child.ok_or(Errno::EIO)?;
        let mut running = Running::child(pid);
        for _ in 0..PATIENCE {
            let (stopped, stop) = running.wait().map_err(|Gone| Errno::ESRCH)?;
            match stop {
                // Traced from birth: a SIGSTOP (after TRACEME) or an event stop (after SEIZE).
                Stop::Event => return Ok((pid, Tracee::new(stopped, Role::Helper))),
                Stop::Signal(info) if info.signal == libc::SIGSTOP => {
                    return Ok((pid, Tracee::new(stopped, Role::Helper)));
                }
                _ => running = stopped.resume(Resume::Freely),
            }
        }
        Err(Errno::ESRCH)
    }

    /// Ends the thread. `false` when it was gone already.
    pub(super) fn exit(mut self) -> bool {
        let Ok(stopped) = self.take() else { return false };
        let registers = call_registers(layout::CALL, libc::SYS_exit, [0; 6]);
        let _ = stopped.set_registers(&registers);
        let mut running = stopped.resume(Resume::Freely);
        while let Ok((stopped, _)) = running.wait() {
            running = stopped.resume(Resume::Freely);
        }
        true
    }

    fn inject(
        &mut self,
        entry: usize,
        breakpoint: usize,
        number: libc::c_long,
        args: [u64; 6],
    ) -> SysResult<Outcome> {
        let stopped = self.take().map_err(|Gone| Errno::ESRCH)?;
        let mut child = None;
        let registers = call_registers(entry, number, args);
        let end = (layout::CODE + breakpoint + 1) as u64;
        // A failure means that the thread was killed; a guest thread is reaped by the wait below.
        if stopped.set_registers(&registers).is_err() && self.role == Role::Helper {
            return Err(Errno::ESRCH);
        }
        let mut running = stopped.resume(Resume::Freely);
        for _ in 0..PATIENCE {
            let (stopped, stop) = running.wait().map_err(|Gone| Errno::ESRCH)?;
            match stop {
                Stop::Signal(info) if info.signal == libc::SIGTRAP => {
                    let found = stopped.registers().unwrap_or_default();
                    if found.rip == end {
                        self.put(stopped);
                        return Ok(Outcome { value: found.rax, child });
                    }
                    running = stopped.resume(Resume::Freely);
                }
                Stop::Fork => {
                    child = stopped.event_message().ok().and_then(|pid| i32::try_from(pid).ok());
                    running = stopped.resume(Resume::Freely);
                }
                // Interrupts meant for the guest's own code stay recorded in their flag.
                _ => running = stopped.resume(Resume::Freely),
            }
        }
        Err(Errno::ESRCH)
    }
}

fn call_registers(entry: usize, number: libc::c_long, args: [u64; 6]) -> Registers {
    Registers {
        rip: (layout::CODE + entry) as u64,
        rax: number.cast_unsigned(),
        orig_rax: u64::MAX,
        rdi: args[0],
        rsi: args[1],
        rdx: args[2],
        r10: args[3],
        r8: args[4],
        r9: args[5],
        cs: USER_CS,
        ss: USER_SS,
        eflags: 0x202,
        ..Registers::default()
    }
}

fn decode(value: u64) -> SysResult<u64> {
    let signed = value.cast_signed();
    if (-4095..0).contains(&signed) {
        let raw = i32::try_from(-signed).map_err(|_| Errno::EIO)?;
        return Err(Errno::from_raw(raw));
    }
    Ok(value)
}
