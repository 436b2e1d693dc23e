//! The host calls a sentry makes once its walls are up. Any other kills it.
//!
//! No open, no socket creation, no exec, no executable memory, no ptrace on systrap.

use crate::error::{Failure, Outcome};
use ::sentry::control::spec::PlatformKind;
use gofer::filter::{Arguments, Rule};
use net::host::options::{Calls, HostOption, OPTIONS};
use std::collections::BTreeMap;

const fn call(number: i64, why: &'static str) -> Rule {
    Rule { number, arguments: Arguments::Any, why }
}

const fn without(number: i64, index: u8, bits: u64, why: &'static str) -> Rule {
    Rule { number, arguments: Arguments::Without { index, bits }, why }
}

const fn one_of(number: i64, index: u8, values: &'static [u64], why: &'static str) -> Rule {
    Rule { number, arguments: Arguments::OneOf { index, values }, why }
}

const PROT_EXEC: u64 = 4;
/// Namespaces that a thread or process of the sentry must not make.
const CLONE_NEW: u64 = 0x7e02_0080;
const F_DUPFD_CLOEXEC: u64 = 1030;
const TCGETS: u64 = 0x5401;
const TCSETS: u64 = 0x5402;
const TIOCGWINSZ: u64 = 0x5413;
const TIOCSWINSZ: u64 = 0x5414;
const FIONREAD: u64 = 0x541b;
/// SECCOMP_IOCTL_NOTIF_RECV, _SEND, _ID_VALID, _ADDFD, _SET_FLAGS.
const NOTIFY: [u64; 5] = [0xc050_2100, 0xc018_2101, 0x4008_2102, 0x4018_2103, 0x4008_2104];

const IOCTLS: &[u64] = &[
    TCGETS, TCSETS, TIOCGWINSZ, TIOCSWINSZ, FIONREAD, NOTIFY[0], NOTIFY[1], NOTIFY[2], NOTIFY[3], NOTIFY[4],
];
const SIOCOUTQ: u64 = 0x5411;
const SIOCATMARK: u64 = 0x8905;

/// Of both platforms.
const RULES: &[Rule] = &[
    call(libc::SYS_read, "donated pipes and terminals, eventfds"),
    call(libc::SYS_write, "donated pipes and terminals, eventfds, the log, the last words of a panic"),
    call(libc::SYS_pread64, "donated files"),
    call(libc::SYS_pwrite64, "donated files"),
    call(libc::SYS_preadv2, "donated files, into guest pages"),
    call(libc::SYS_pwritev2, "donated files, from guest pages"),
    call(libc::SYS_lseek, "holes of donated files and of the memory file"),
    call(libc::SYS_fstat, "size of a donated file"),
    call(libc::SYS_statx, "size and times of a donated file; names lead nowhere in an empty root"),
    call(libc::SYS_fstatfs, "statfs of a donated file"),
    call(libc::SYS_ftruncate, "the memory file grows; truncate of a donated file"),
    call(libc::SYS_fallocate, "pages of the memory file given back; fallocate of a donated file"),
    call(libc::SYS_fsync, "fsync of a donated file"),
    call(libc::SYS_fdatasync, "fdatasync of a donated file"),
    call(libc::SYS_fadvise64, "posix_fadvise of a donated file"),
    call(libc::SYS_close, "descriptors given back"),
    call(libc::SYS_ppoll, "donated pipes and terminals, the control socket"),
    call(libc::SYS_epoll_pwait, "readiness of donated pipes and terminals"),
    call(libc::SYS_epoll_ctl, "what is waited for"),
    call(libc::SYS_recvmsg, "control messages, the gofer's replies with descriptors"),
    call(libc::SYS_sendmsg, "control messages, requests to the gofer, mappings for a stub"),
    call(libc::SYS_accept4, "another call of the runtime on the control socket"),
    call(libc::SYS_shutdown, "donated sockets and the gofer's connection"),
    one_of(
        libc::SYS_fcntl,
        1,
        &[1, 2, 3, 4, 1024, 1025, 1033, 1034, F_DUPFD_CLOEXEC],
        "flags of donated files, seals and pipe sizes",
    ),
    one_of(libc::SYS_ioctl, 1, IOCTLS, "donated terminals; notifications of guests' calls"),
    call(libc::SYS_brk, "the allocator"),
    without(libc::SYS_mmap, 2, PROT_EXEC, "the allocator, thread stacks, the memory file; never executable"),
    without(libc::SYS_mprotect, 2, PROT_EXEC, "the allocator, guards of thread stacks; never executable"),
    call(libc::SYS_munmap, "the allocator, windows of the memory file"),
    call(libc::SYS_mremap, "the allocator, growing a large buffer"),
    call(libc::SYS_madvise, "the allocator, guest pages given back, huge pages"),
    call(libc::SYS_futex, "locks, wait queues, the handoff with guest threads"),
    without(
        libc::SYS_clone3,
        0,
        0,
        "threads, as the C library makes them; the filter cannot see its flags: no capability in any namespace is left to use",
    ),
    without(libc::SYS_clone, 0, CLONE_NEW, "threads, and stubs forked from the template, never a namespace"),
    call(libc::SYS_set_robust_list, "a thread begins"),
    call(libc::SYS_rseq, "a thread begins"),
    call(libc::SYS_sigaltstack, "a thread begins or ends"),
    call(libc::SYS_rt_sigprocmask, "a thread begins or ends"),
    call(libc::SYS_rt_sigaction, "copies that survive a fault"),
    call(libc::SYS_rt_sigreturn, "copies that survive a fault"),
    call(libc::SYS_restart_syscall, "a wait that SIGSTOP and SIGCONT interrupted"),
    call(libc::SYS_sched_yield, "locks under contention"),
    call(libc::SYS_sched_getaffinity, "a thread begins: the C library asks where its stack is"),
    call(libc::SYS_sched_setaffinity, "systrap: leaving a guest thread its processor, and coming back"),
    call(libc::SYS_getpid, "signals to its own threads"),
    call(libc::SYS_gettid, "names of threads in the log"),
    call(libc::SYS_tgkill, "interrupting guest threads and its own"),
    call(libc::SYS_kill, "the end of a stub"),
    call(libc::SYS_wait4, "stubs that ended"),
    call(libc::SYS_clock_gettime, "clocks the vDSO does not answer"),
    call(libc::SYS_clock_nanosleep, "timers"),
    call(libc::SYS_getrandom, "the guest's getrandom, hash seeds"),
    call(libc::SYS_prctl, "names of threads"),
    call(libc::SYS_sysinfo, "free memory and load"),
    call(libc::SYS_exit, "the end of a thread"),
    call(libc::SYS_exit_group, "the end"),
];

/// Of the ptrace platform only.
const PTRACE_RULES: &[Rule] = &[
    call(libc::SYS_recvfrom, "throws away a descriptor that a stub did not take"),
    call(libc::SYS_ptrace, "the ptrace platform runs guests with it"),
    call(libc::SYS_process_vm_readv, "the ptrace platform looks into its stubs"),
    call(libc::SYS_process_vm_writev, "the ptrace platform looks into its stubs"),
];

/// Which network the sentry has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sockets {
    /// Its own loopback.
    Inside,
    /// Donated by the network helper.
    Donated,
}

/// The options that the sentry touches on donated sockets, level and name, as rows for one of the two calls.
fn options(except: Calls) -> Vec<Vec<(u8, u64)>> {
    let row = |option: &HostOption| {
        let bits = |value: i32| u64::from(value.cast_unsigned());
        vec![(1, bits(option.level)), (2, bits(option.name))]
    };
    OPTIONS.iter().filter(|option| option.calls != except).map(row).collect()
}

/// With donated sockets. No socket(2), no bind(2): those are the helper's.
fn socket_rules() -> Vec<Rule> {
    let table = |number, rows, why| Rule { number, arguments: Arguments::Table(rows), why };
    vec![
        call(libc::SYS_connect, "donated sockets; they lead nowhere but to the container's network"),
        call(libc::SYS_listen, "donated sockets"),
        call(libc::SYS_getsockname, "donated sockets"),
        call(libc::SYS_getpeername, "donated sockets"),
        table(libc::SYS_getsockopt, options(Calls::Set), "the options of donated sockets that are listed"),
        table(libc::SYS_setsockopt, options(Calls::Get), "the same"),
        Rule {
            number: libc::SYS_ioctl,
            arguments: Arguments::Table(
                IOCTLS.iter().chain(&[SIOCOUTQ, SIOCATMARK]).map(|request| vec![(1, *request)]).collect(),
            ),
            why: "donated terminals and sockets; notifications of guests' calls",
        },
    ]
}

/// All rules of a sentry, by call.
fn rules(platform: PlatformKind, sockets: Sockets) -> BTreeMap<i64, Rule> {
    let ptrace = if platform == PlatformKind::Ptrace { PTRACE_RULES } else { &[] };
    let donated = if sockets == Sockets::Donated { socket_rules() } else { Vec::new() };
    RULES.iter().chain(ptrace).cloned().chain(donated).map(|rule| (rule.number, rule)).collect()
}

/// Installs the filter on this process, which has one thread, for good.
pub(crate) fn install(platform: PlatformKind, sockets: Sockets) -> Outcome<()> {
    gofer::filter::install_rules(rules(platform, sockets).values())
        .map_err(|error| Failure::new(format!("the sentry's {error}")))
}

#[cfg(test)]
mod tests {
    use super::{PTRACE_RULES, RULES, Sockets, rules};
    use ::sentry::control::spec::PlatformKind;

    #[test]
    fn nothing_that_opens_executes_or_makes_sockets() {
        let forbidden = [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_creat,
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_bind,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
        ];
        for sockets in [Sockets::Inside, Sockets::Donated] {
            for rule in rules(PlatformKind::Ptrace, sockets).values() {
                assert!(!forbidden.contains(&rule.number), "{}", rule.number);
                assert!(!rule.why.is_empty());
                rule.compile().unwrap();
            }
        }
        assert!(!rules(PlatformKind::Systrap, Sockets::Donated).contains_key(&libc::SYS_ptrace));
        assert!(!rules(PlatformKind::Systrap, Sockets::Inside).contains_key(&libc::SYS_connect));
    }

    #[test]
    fn fewer_than_sixty() {
        assert!(RULES.len() < 60, "{} host calls", RULES.len());
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut numbers: Vec<i64> = RULES.iter().chain(PTRACE_RULES).map(|rule| rule.number).collect();
        numbers.sort_unstable();
        let count = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }
}
