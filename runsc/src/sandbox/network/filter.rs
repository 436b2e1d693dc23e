//! The host calls of a network helper once it serves. Any other kills it.

use super::Raw;
use crate::error::{Failure, Outcome};
use gofer::filter::{Arguments, Rule, install_rules};

const INET: [u64; 2] = [2, 10];
const STREAM: u64 = 1;
const DGRAM: u64 = 2;
const RAW: u64 = 3;
/// SOCK_NONBLOCK | SOCK_CLOEXEC: how every socket is made.
pub(super) const SOCKET_FLAGS: u64 = 0x8_0800;
/// Type and protocol of sockets that are made: TCP, UDP, echo requests.
const KINDS: [(u64, u64); 4] = [(STREAM, 6), (DGRAM, 17), (DGRAM, 1), (DGRAM, 58)];

fn sockets(raw: Raw) -> Vec<Vec<(u8, u64)>> {
    let mut rows = Vec::new();
    for family in INET {
        for (kind, protocol) in KINDS {
            rows.push(vec![(0, family), (1, kind | SOCKET_FLAGS), (2, protocol)]);
        }
        if raw == Raw::Allowed {
            rows.push(vec![(0, family), (1, RAW | SOCKET_FLAGS)]);
        }
    }
    rows
}

fn rules(raw: Raw) -> Vec<Rule> {
    let any = |number, why| Rule { number, arguments: Arguments::Any, why };
    let one_of =
        |number, index, values, why| Rule { number, arguments: Arguments::OneOf { index, values }, why };
    vec![
        Rule {
            number: libc::SYS_socket,
            arguments: Arguments::Table(sockets(raw)),
            why: "what the helper is for: sockets of these families and types",
        },
        any(libc::SYS_bind, "ports, which may need a capability the sentry has not"),
        any(libc::SYS_recvmsg, "the next request, with the socket that is bound"),
        any(libc::SYS_recvfrom, "the route socket's answers"),
        any(libc::SYS_sendmsg, "replies, with the socket that was made"),
        any(libc::SYS_sendto, "questions to the route socket"),
        any(libc::SYS_pread64, "files of /proc/net"),
        any(libc::SYS_close, "sockets after they were sent"),
        any(libc::SYS_poll, "whether there is a long silence, in which it gives memory back"),
        any(libc::SYS_ppoll, "the same, as some C libraries spell it"),
        any(libc::SYS_brk, "the allocator"),
        Rule {
            number: libc::SYS_mmap,
            arguments: Arguments::Without { index: 2, bits: 4 },
            why: "the allocator; never executable memory",
        },
        Rule {
            number: libc::SYS_mprotect,
            arguments: Arguments::Without { index: 2, bits: 4 },
            why: "the allocator's arenas; never executable memory",
        },
        any(libc::SYS_munmap, "the allocator"),
        any(libc::SYS_mremap, "the allocator, growing a large buffer"),
        any(libc::SYS_madvise, "the allocator, giving memory back"),
        one_of(libc::SYS_fcntl, 1, &[1], "debug builds of the standard library check what they close"),
        any(libc::SYS_futex, "the standard library's locks"),
        one_of(libc::SYS_write, 0, &[2], "the last words of a panic, on standard error"),
        any(libc::SYS_rt_sigreturn, "the end of a signal handler that runsc may have left"),
        any(libc::SYS_rt_sigprocmask, "abort(3)"),
        any(libc::SYS_sigaltstack, "the standard library, ending a thread"),
        any(libc::SYS_restart_syscall, "a wait that SIGSTOP and SIGCONT interrupted"),
        any(libc::SYS_exit_group, "the end"),
    ]
}

pub(super) fn install(raw: Raw) -> Outcome<()> {
    install_rules(&rules(raw)).map_err(|error| Failure::new(format!("the network helper's {error}")))
}

#[cfg(test)]
mod tests {
    use super::{Raw, rules};

    #[test]
    fn nothing_that_opens_connects_or_executes() {
        for rule in rules(Raw::Allowed) {
            let forbidden = [
                libc::SYS_openat,
                libc::SYS_openat2,
                libc::SYS_connect,
                libc::SYS_execve,
                libc::SYS_setns,
                libc::SYS_unshare,
                libc::SYS_setsockopt,
                libc::SYS_ioctl,
            ];
            assert!(!forbidden.contains(&rule.number), "{}", rule.number);
            rule.compile().unwrap();
        }
    }
}
