//! UNSAFE: the first stub process, from which all others are forked.
//!
//! It is a fork of this process that asks to be traced, maps two pages of its own, shuts itself behind a
//! seccomp filter and stops. The tracer then removes everything else from its address space.

use super::layout;
use crate::host::{checked, checked_int, last_errno};
use abi::{Errno, SysResult};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Calls that the tracer injects into stubs. Guests' own calls never reach the filter: SYSEMU stops
/// them before it. Should a stub ever run without its tracer, this is all it could do.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_recvmsg,
    libc::SYS_close,
    // New stub threads and processes.
    libc::SYS_clone,
    libc::SYS_exit,
    // A new thread waits here until its tracer takes it.
    libc::SYS_pause,
    // The template gives up what libc registered.
    libc::SYS_rseq,
];

fn filter() -> SysResult<BpfProgram> {
    let rules = ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, TargetArch::x86_64)
        .map_err(|_| Errno::EINVAL)?;
    BpfProgram::try_from(filter).map_err(|_| Errno::EINVAL)
}

struct Plan {
    memory: i32,
    socket: i32,
    program: libc::sock_fprog,
}

/// Forks the template, which stops at its first breakpoint under the calling thread's trace. Returns
/// its pid.
pub(super) fn spawn(memory: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> SysResult<i32> {
    let filter = filter()?;
    let len = u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?;
    let plan = Plan {
        memory: memory.as_raw_fd(),
        socket: socket.as_raw_fd(),
        program: libc::sock_fprog { len, filter: filter.as_ptr() as *mut libc::sock_filter },
    };
    let mut arguments =
        CloneArguments { exit_signal: libc::SIGCHLD.cast_unsigned().into(), ..Default::default() };
    arguments.flags = CLONE_CLEAR_SIGHAND;
    // SAFETY: fork semantics (no shared memory, no new stack): both sides return here, and the child
    // only makes system calls until it leaves for the stub page.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) };
    if pid == 0 {
        // SAFETY: this is the child; it owns its copy of the address space.
        unsafe { become_template(&plan) };
    }
    i32::try_from(checked(pid)?).map_err(|_| Errno::EIO)
}

const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// # Safety
/// Only in a freshly forked child. Allocates nothing and takes no lock.
unsafe fn become_template(plan: &Plan) -> ! {
    // SAFETY: this is the freshly forked child.
    match unsafe { prepare(plan) } {
        Ok(entry) => {
            // SAFETY: `entry` is the breakpoint in the stub page that `prepare` filled; the tracer takes
            // over there and never returns here.
            unsafe { std::arch::asm!("jmp {}", in(reg) entry, options(noreturn)) }
        }
        // SAFETY: ends the child at once.
        Err(error) => unsafe {
            libc::_exit(i32::from(error.raw()));
        },
    }
}

/// # Safety
/// As for [`become_template`].
unsafe fn prepare(plan: &Plan) -> SysResult<usize> {
    // SAFETY: plain system calls with numbers and pointers to live locals; the new mappings are at
    // addresses that the fork left free (NOREPLACE), so no Rust object is overwritten.
    unsafe {
        checked_int(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        // New threads are taken by other host threads with PTRACE_SEIZE.
        checked_int(libc::prctl(libc::PR_SET_DUMPABLE, 1))?;
        let none: u64 = 0;
        checked(libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0usize, 8usize))?;
        // Out of the way of the three numbers that matter, then onto them.
        let memory = checked_int(libc::fcntl(plan.memory, libc::F_DUPFD, 10))?;
        let socket = checked_int(libc::fcntl(plan.socket, libc::F_DUPFD, 10))?;
        checked_int(libc::dup2(memory, layout::MEMORY_FD))?;
        checked_int(libc::dup2(socket, layout::SOCKET_FD))?;
        checked(libc::syscall(libc::SYS_close_range, layout::PASSED_FD, u32::MAX, 0u32))?;

        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        let page = libc::mmap(layout::CODE as *mut libc::c_void, layout::LEN, writable, flags, -1, 0);
        if page as usize != layout::CODE {
            return Err(if page == libc::MAP_FAILED { last_errno() } else { Errno::EEXIST });
        }
        std::ptr::copy_nonoverlapping(layout::TEXT.as_ptr(), page.cast::<u8>(), layout::TEXT.len());
        checked_int(libc::mprotect(page, layout::PAGE, libc::PROT_READ | libc::PROT_EXEC))?;

        checked(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0))?;
        // The sentry still has what it needs to leave the host's root: a stub keeps no capability.
        let version: [u32; 2] = [0x2008_0522, 0];
        let nothing = [0_u32; 6];
        checked(libc::syscall(libc::SYS_capset, version.as_ptr(), nothing.as_ptr()))?;
        checked_int(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        let program = &raw const plan.program;
        checked(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, program))?;
    }
    Ok(layout::CODE + layout::BREAKPOINT)
}
