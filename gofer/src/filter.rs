//! The host calls a gofer makes once it serves. Any other kills it.

use crate::GoferError;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Restriction of a call's arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arguments {
    /// Any.
    Any,
    /// The argument has none of these bits.
    Without {
        /// Index of the argument.
        index: u8,
        /// Bits that must be clear.
        bits: u64,
    },
    /// The argument (32 bits) is one of these.
    OneOf {
        /// Index of the argument.
        index: u8,
        /// Its values.
        values: &'static [u64],
    },
    /// One row of the table matches: all its arguments (32 bits, by index) have these values.
    Table(Vec<Vec<(u8, u64)>>),
}

impl Rule {
    /// The rule as conditions of which one must hold; none for a call that is always allowed.
    pub fn compile(&self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let equal = |index: u8, value: u64| {
            SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
        };
        match &self.arguments {
            Arguments::Any | Arguments::Without { bits: 0, .. } => Ok(Vec::new()),
            Arguments::Without { index, bits } => {
                let clear = SeccompCmpOp::MaskedEq(*bits);
                let condition = SeccompCondition::new(*index, SeccompCmpArgLen::Qword, clear, 0)?;
                Ok(vec![SeccompRule::new(vec![condition])?])
            }
            Arguments::OneOf { index, values } => {
                values.iter().map(|value| SeccompRule::new(vec![equal(*index, *value)?])).collect()
            }
            Arguments::Table(rows) => rows
                .iter()
                .map(|row| {
                    let conditions: Result<_, _> =
                        row.iter().map(|(index, value)| equal(*index, *value)).collect();
                    SeccompRule::new(conditions?)
                })
                .collect(),
        }
    }
}

/// One allowed host call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Number on this architecture.
    pub number: i64,
    /// What arguments may be.
    pub arguments: Arguments,
    /// What it is needed for.
    pub why: &'static str,
}

const fn call(number: i64, why: &'static str) -> Rule {
    Rule { number, arguments: Arguments::Any, why }
}

const fn without(number: i64, index: u8, bits: u64, why: &'static str) -> Rule {
    Rule { number, arguments: Arguments::Without { index, bits }, why }
}

const PROT_EXEC: u64 = 4;
const F_DUPFD_CLOEXEC: u64 = 1030;
const F_GETFD: u64 = 1;
/// cachestat(2), which no library names yet.
const CACHESTAT: i64 = 451;
const FS_IOC_GETFLAGS: u64 = 0x8008_6601;
const FS_IOC_SETFLAGS: u64 = 0x4008_6602;

/// The list, by what it serves.
pub const RULES: &[Rule] = &[
    call(libc::SYS_recvfrom, "the next request"),
    call(libc::SYS_sendmsg, "its reply, with the donated descriptor"),
    call(libc::SYS_ppoll, "whether there is a long silence, in which it gives memory back"),
    call(libc::SYS_poll, "the same, as some C libraries spell it"),
    call(libc::SYS_sched_yield, "giving way while it looks out for the next request"),
    call(libc::SYS_clock_gettime, "for how long it does, on hosts whose vDSO does not tell the time"),
    call(libc::SYS_openat2, "one step of a walk, and new files, confined to the export"),
    call(libc::SYS_openat, "the inode behind an O_PATH descriptor, through this process's /proc/self/fd"),
    call(libc::SYS_close, "handles given back, donated descriptors after sending"),
    Rule {
        number: libc::SYS_fcntl,
        arguments: Arguments::OneOf { index: 1, values: &[F_DUPFD_CLOEXEC, F_GETFD] },
        why: "an export's root at attach; debug builds of the standard library check what they close",
    },
    call(libc::SYS_statx, "attributes"),
    call(libc::SYS_readlinkat, "targets of symbolic links"),
    call(libc::SYS_getdents64, "listings"),
    call(libc::SYS_lseek, "listings that continue elsewhere"),
    call(libc::SYS_fstatfs, "statfs"),
    call(libc::SYS_mkdirat, "mkdir"),
    call(libc::SYS_mknodat, "FIFOs, sockets and whiteouts"),
    call(libc::SYS_symlinkat, "symlink"),
    call(libc::SYS_linkat, "link"),
    call(libc::SYS_unlinkat, "unlink and rmdir"),
    call(libc::SYS_renameat2, "rename"),
    call(libc::SYS_fchownat, "chown, and the owner of new nodes"),
    call(libc::SYS_fchmodat, "chmod"),
    call(libc::SYS_utimensat, "utimes"),
    call(libc::SYS_ftruncate, "truncate by path"),
    call(libc::SYS_fsync, "fsync of directories"),
    call(libc::SYS_syncfs, "syncfs"),
    call(libc::SYS_getxattr, "extended attributes"),
    call(libc::SYS_setxattr, "extended attributes"),
    call(libc::SYS_listxattr, "extended attributes"),
    call(libc::SYS_removexattr, "extended attributes"),
    call(CACHESTAT, "which pages of a file are in memory"),
    Rule {
        number: libc::SYS_ioctl,
        arguments: Arguments::OneOf { index: 1, values: &[FS_IOC_GETFLAGS, FS_IOC_SETFLAGS] },
        why: "inode flags of regular files and directories",
    },
    call(libc::SYS_geteuid, "whether a node it made is still its own"),
    call(libc::SYS_brk, "the allocator"),
    without(libc::SYS_mmap, 2, PROT_EXEC, "the allocator; never executable memory"),
    without(libc::SYS_mprotect, 2, PROT_EXEC, "the allocator's arenas; never executable memory"),
    call(libc::SYS_munmap, "the allocator"),
    call(libc::SYS_mremap, "the allocator, growing a large buffer"),
    call(libc::SYS_madvise, "the allocator, giving memory back"),
    Rule {
        number: libc::SYS_read,
        arguments: Arguments::OneOf { index: 2, values: &[1] },
        why: "the allocator, shrinking a thread's arena, reads one byte of the overcommit policy",
    },
    call(libc::SYS_futex, "the standard library's locks"),
    Rule {
        number: libc::SYS_write,
        arguments: Arguments::OneOf { index: 0, values: &[2] },
        why: "the last words of a panic, on standard error",
    },
    call(libc::SYS_sigaltstack, "the standard library, ending a thread"),
    call(libc::SYS_rt_sigreturn, "the end of a signal handler that runsc may have left"),
    call(libc::SYS_rt_sigprocmask, "abort(3), ending a thread"),
    call(libc::SYS_restart_syscall, "a receive that SIGSTOP and SIGCONT interrupted"),
    call(libc::SYS_exit, "the end of a thread"),
    call(libc::SYS_exit_group, "the end"),
];

/// Installs the gofer's filter on the calling thread, for good. Sets no_new_privs.
pub fn install() -> Result<(), GoferError> {
    install_rules(RULES)
}

/// Installs a filter of such rules on the calling thread, for good. Sets no_new_privs. Any call without a rule
/// kills the process.
pub fn install_rules<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Result<(), GoferError> {
    let error = |error: &dyn std::fmt::Display| GoferError::Filter(error.to_string());
    let mut compiled = std::collections::BTreeMap::new();
    for rule in rules {
        compiled.insert(rule.number, rule.compile().map_err(|e| error(&e))?);
    }
    let arch = TargetArch::x86_64;
    let filter = SeccompFilter::new(compiled, SeccompAction::KillProcess, SeccompAction::Allow, arch)
        .map_err(|e| error(&e))?;
    let program: seccompiler::BpfProgram =
        filter.try_into().map_err(|e: seccompiler::BackendError| error(&e))?;
    seccompiler::apply_filter(&program).map_err(|e| error(&e))
}
