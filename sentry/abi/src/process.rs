//! Flags and structures of clone(2), wait(2), getrusage(2).

use crate::time::Timeval;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags::bitflags! {
    /// `CLONE_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct CloneFlags: u64 {
        /// A new time namespace (unshare, clone3).
        const NEWTIME = 0x80;
        /// Share memory.
        const VM = 0x100;
        /// Share root, working directory, umask.
        const FS = 0x200;
        /// Share descriptors.
        const FILES = 0x400;
        /// Share signal actions.
        const SIGHAND = 0x800;
        /// Put a pidfd at parent_tid.
        const PIDFD = 0x1000;
        /// Trace the child too.
        const PTRACE = 0x2000;
        /// Sleep until the child execs or exits.
        const VFORK = 0x4000;
        /// The child is a sibling.
        const PARENT = 0x8000;
        /// The child is a thread.
        const THREAD = 0x1_0000;
        /// A new mount namespace.
        const NEWNS = 0x2_0000;
        /// Share System V undo lists.
        const SYSVSEM = 0x4_0000;
        /// Set the thread pointer.
        const SETTLS = 0x8_0000;
        /// Write the id into the parent's memory.
        const PARENT_SETTID = 0x10_0000;
        /// Clear and wake an address on exit.
        const CHILD_CLEARTID = 0x20_0000;
        /// Historical; ignored.
        const DETACHED = 0x40_0000;
        /// No tracer may force CLONE_PTRACE.
        const UNTRACED = 0x80_0000;
        /// Write the id into the child's memory.
        const CHILD_SETTID = 0x100_0000;
        /// A new cgroup namespace.
        const NEWCGROUP = 0x200_0000;
        /// A new UTS namespace.
        const NEWUTS = 0x400_0000;
        /// A new IPC namespace.
        const NEWIPC = 0x800_0000;
        /// A new user namespace.
        const NEWUSER = 0x1000_0000;
        /// A new pid namespace.
        const NEWPID = 0x2000_0000;
        /// A new network namespace.
        const NEWNET = 0x4000_0000;
        /// Share the I/O context.
        const IO = 0x8000_0000;
        /// Handlers of the child start as default (clone3).
        const CLEAR_SIGHAND = 0x1_0000_0000;
        /// Start in a cgroup (clone3).
        const INTO_CGROUP = 0x2_0000_0000;
    }
}

impl CloneFlags {
    /// All flags that make a namespace.
    pub const NAMESPACES: CloneFlags = CloneFlags::NEWNS
        .union(CloneFlags::NEWCGROUP)
        .union(CloneFlags::NEWUTS)
        .union(CloneFlags::NEWIPC)
        .union(CloneFlags::NEWUSER)
        .union(CloneFlags::NEWPID)
        .union(CloneFlags::NEWNET)
        .union(CloneFlags::NEWTIME);
}

/// `struct clone_args` of clone3(2).
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of clone3(2)")]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

bitflags::bitflags! {
    /// Options of wait4(2) and waitid(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct WaitOptions: u32 {
        /// Do not block.
        const NOHANG = 1;
        /// Report stopped children.
        const STOPPED = 2;
        /// Report children that exited.
        const EXITED = 4;
        /// Report continued children.
        const CONTINUED = 8;
        /// Leave the child waitable.
        const NOWAIT = 0x100_0000;
        /// Only children of this thread.
        const NOTHREAD = 0x2000_0000;
        /// All children, clone or not.
        const ALL = 0x4000_0000;
        /// Only clone children.
        const CLONE = 0x8000_0000;
    }
}

/// `struct rusage`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rusage {
    /// User time.
    pub utime: Timeval,
    /// System time.
    pub stime: Timeval,
    /// Largest resident set in KiB.
    pub maxrss: i64,
    /// Unused by Linux.
    pub ixrss: i64,
    /// Unused by Linux.
    pub idrss: i64,
    /// Unused by Linux.
    pub isrss: i64,
    /// Faults without I/O.
    pub minflt: i64,
    /// Faults with I/O.
    pub majflt: i64,
    /// Unused by Linux.
    pub nswap: i64,
    /// Block input operations.
    pub inblock: i64,
    /// Block output operations.
    pub oublock: i64,
    /// Unused by Linux.
    pub msgsnd: i64,
    /// Unused by Linux.
    pub msgrcv: i64,
    /// Unused by Linux.
    pub nsignals: i64,
    /// Voluntary context switches.
    pub nvcsw: i64,
    /// Involuntary context switches.
    pub nivcsw: i64,
}
