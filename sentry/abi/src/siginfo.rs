//! `siginfo_t` and `struct sigaction` as they lie in guest memory (sigaction(2)).

use crate::signal::{SigSet, Signal};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `si_code` values.
pub mod code {
    /// Sent by kill(2).
    pub const SI_USER: i32 = 0;
    /// Sent by the kernel.
    pub const SI_KERNEL: i32 = 0x80;
    /// Sent by sigqueue(3).
    pub const SI_QUEUE: i32 = -1;
    /// A POSIX timer expired.
    pub const SI_TIMER: i32 = -2;
    /// A message queue changed.
    pub const SI_MESGQ: i32 = -3;
    /// Sent by tkill(2).
    pub const SI_TKILL: i32 = -6;
    /// Address not mapped.
    pub const SEGV_MAPERR: i32 = 1;
    /// Mapped, but not for this access.
    pub const SEGV_ACCERR: i32 = 2;
    /// Bad alignment.
    pub const BUS_ADRALN: i32 = 1;
    /// Nothing behind the address.
    pub const BUS_ADRERR: i32 = 2;
    /// A seccomp filter said RET_TRAP.
    pub const SYS_SECCOMP: i32 = 1;
    /// The thread itself asked for it (PR_SET_SYSCALL_USER_DISPATCH).
    pub const SYS_USER_DISPATCH: i32 = 2;
    /// Child exited.
    pub const CLD_EXITED: i32 = 1;
    /// Child was killed.
    pub const CLD_KILLED: i32 = 2;
    /// Child was killed and dumped core.
    pub const CLD_DUMPED: i32 = 3;
    /// Traced child trapped.
    pub const CLD_TRAPPED: i32 = 4;
    /// Child stopped.
    pub const CLD_STOPPED: i32 = 5;
    /// Child continued.
    pub const CLD_CONTINUED: i32 = 6;
    /// Breakpoint.
    pub const TRAP_BRKPT: i32 = 1;
    /// Single step.
    pub const TRAP_TRACE: i32 = 2;
    /// Hardware breakpoint or watchpoint.
    pub const TRAP_HWBKPT: i32 = 4;
}

/// `siginfo_t`: 128 bytes.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigInfo {
    /// `si_signo`.
    pub signo: i32,
    /// `si_errno`.
    pub errno: i32,
    /// `si_code`.
    pub code: i32,
    pad: i32,
    /// The union, by signal and code.
    pub fields: [u64; 14],
}

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | (u64::from(high) << 32)
}

impl SigInfo {
    /// Without fields.
    #[must_use]
    pub fn new(signal: Signal, code: i32) -> SigInfo {
        SigInfo { signo: i32::from(signal.number()), errno: 0, code, pad: 0, fields: [0; 14] }
    }
    /// All zero: nothing happened (waitid(2) with WNOHANG).
    #[must_use]
    pub fn none() -> SigInfo {
        SigInfo { signo: 0, errno: 0, code: 0, pad: 0, fields: [0; 14] }
    }
    /// From the kernel (`SI_KERNEL`).
    #[must_use]
    pub fn kernel(signal: Signal) -> SigInfo {
        SigInfo::new(signal, code::SI_KERNEL)
    }
    /// With sender (`si_pid`, `si_uid`).
    #[must_use]
    pub fn from_sender(signal: Signal, code: i32, pid: u32, uid: u32) -> SigInfo {
        let mut info = SigInfo::new(signal, code);
        info.fields[0] = pair(pid, uid);
        info
    }
    /// A fault at `addr`.
    #[must_use]
    pub fn fault(signal: Signal, code: i32, addr: u64) -> SigInfo {
        let mut info = SigInfo::new(signal, code);
        info.fields[0] = addr;
        info
    }
    /// A child's change (`SIGCHLD`).
    #[must_use]
    pub fn child(code: i32, pid: u32, uid: u32, status: i32) -> SigInfo {
        let mut info = SigInfo::from_sender(Signal::SIGCHLD, code, pid, uid);
        info.fields[1] = u64::from(status.cast_unsigned());
        info
    }
    /// Adds `si_utime` and `si_stime` in clock ticks.
    #[must_use]
    pub fn with_times(mut self, user: u64, system: u64) -> SigInfo {
        self.fields[2] = user;
        self.fields[3] = system;
        self
    }
    /// A timer's expiry (`si_timerid`, `si_overrun`, `si_value`).
    #[must_use]
    pub fn timer(signal: Signal, id: u32, overrun: u32, value: u64) -> SigInfo {
        let mut info = SigInfo::new(signal, code::SI_TIMER);
        info.fields[0] = pair(id, overrun);
        info.fields[1] = value;
        info
    }
    /// A file's event (`si_band`, `si_fd`).
    #[must_use]
    pub fn poll(signal: Signal, code: i32, band: u64, fd: i32) -> SigInfo {
        let mut info = SigInfo::new(signal, code);
        info.fields[0] = band;
        info.fields[1] = u64::from(fd.cast_unsigned());
        info
    }
    /// A trapped system call (`si_call_addr`, `si_syscall`, `si_arch`).
    #[must_use]
    pub fn seccomp(call_addr: u64, number: u32, arch: u32, errno: i32) -> SigInfo {
        let mut info = SigInfo::new(Signal::SIGSYS, code::SYS_SECCOMP);
        info.errno = errno;
        info.fields[0] = call_addr;
        info.fields[1] = pair(number, arch);
        info
    }
    /// The signal, when the number is one.
    #[must_use]
    pub fn signal(&self) -> Option<Signal> {
        u32::try_from(self.signo).ok().and_then(|n| Signal::new(n).ok())
    }
    /// `si_pid`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        u32::try_from(self.fields[0] & 0xffff_ffff).unwrap_or(0)
    }
    /// Sets `si_pid`: its number depends on who reads it.
    pub fn set_pid(&mut self, pid: u32) {
        self.fields[0] = pair(pid, self.uid());
    }
    /// `si_uid`.
    #[must_use]
    pub fn uid(&self) -> u32 {
        u32::try_from(self.fields[0] >> 32).unwrap_or(0)
    }
}

impl std::fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigInfo(signo {}, code {}, {:#x})", self.signo, self.code, self.fields[0])
    }
}

/// `struct sigaction` of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SigAction {
    /// `SIG_DFL`, `SIG_IGN` or an address.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: u64,
}

impl SigAction {
    /// `SIG_DFL`.
    pub const DFL: u64 = 0;
    /// `SIG_IGN`.
    pub const IGN: u64 = 1;
    /// `SA_NOCLDSTOP`.
    pub const NOCLDSTOP: u64 = 1;
    /// `SA_NOCLDWAIT`.
    pub const NOCLDWAIT: u64 = 2;
    /// `SA_SIGINFO`.
    pub const SIGINFO: u64 = 4;
    /// `SA_RESTORER`.
    pub const RESTORER: u64 = 0x0400_0000;
    /// `SA_ONSTACK`.
    pub const ONSTACK: u64 = 0x0800_0000;
    /// `SA_RESTART`.
    pub const RESTART: u64 = 0x1000_0000;
    /// `SA_NODEFER`.
    pub const NODEFER: u64 = 0x4000_0000;
    /// `SA_RESETHAND`.
    pub const RESETHAND: u64 = 0x8000_0000;
    /// Flags that the kernel knows; others are cleared, so that programs can probe (SA_UNSUPPORTED).
    pub const KNOWN: u64 = 0xdc00_0807;

    /// The mask.
    #[must_use]
    pub fn mask(&self) -> SigSet {
        SigSet(self.mask).difference(SigSet::UNBLOCKABLE)
    }
    /// Whether a handler is set.
    #[must_use]
    pub fn is_handler(&self) -> bool {
        self.handler > SigAction::IGN
    }
}

/// `stack_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StackT {
    /// Lowest address.
    pub sp: u64,
    /// `SS_*`.
    pub flags: i32,
    pad: i32,
    /// Bytes.
    pub size: u64,
}

impl StackT {
    /// Currently on it.
    pub const ONSTACK: i32 = 1;
    /// Not set.
    pub const DISABLE: i32 = 2;
    /// Disarmed while a handler runs on it.
    pub const AUTODISARM: i32 = i32::MIN;

    /// Makes one.
    #[must_use]
    pub fn new(sp: u64, size: u64, flags: i32) -> StackT {
        StackT { sp, flags, pad: 0, size }
    }
}
