//! The ptrace platform in a process as confined as a sentry is. Forks, so no test harness. Needs root.
#![expect(clippy::unwrap_used, reason = "a test program")]

use abi::AddrRange;
use platform::memory::MemoryFile;
use platform::probe::huge_pages;
use platform::ptrace::Ptrace;
use platform::registers::{USER_CS, USER_SS};
use platform::spawn::{
    Dumpable, IdMap, SetGroups, Unshare, become_ids, empty_root, fork, keep_capabilities, set_dumpable,
    write_id_maps,
};
use platform::{AsOp, Backing, Exit, OpBatch, Platform, Prot, Registers, ThreadState};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

fn guest(platform: &Ptrace) {
    // 1: mov eax,39; syscall; jmp 1b
    platform.memory().write(0, b"\xb8\x27\x00\x00\x00\x0f\x05\xeb\xf7").unwrap();
    let space = platform.new_address_space().unwrap();
    let op = |range: AddrRange, offset| AsOp::Map {
        range,
        prot: Prot::READ | Prot::EXEC,
        backing: Backing::Memory { offset },
        shared: true,
        populate: false,
    };
    space.apply(OpBatch::one(op(AddrRange::new(0x40_0000, 0x40_1000).unwrap(), 0))).unwrap();
    let registers =
        Registers { rip: 0x40_0000, cs: USER_CS, ss: USER_SS, eflags: 0x202, ..Registers::default() };
    let state = ThreadState { registers, xstate: Vec::new() };
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let mut context = Arc::clone(&space).new_context(&state).unwrap();
            std::thread::spawn(move || {
                for _ in 0..100 {
                    assert_eq!(context.run(), Exit::Syscall);
                    assert_eq!(context.syscall().number, 39);
                    context.set_return(1);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let pid = space.host_pid().unwrap();
    drop(space);
    // The last address space is gone: so is its process.
    for _ in 0..200 {
        let gone = rustix::process::Pid::from_raw(pid)
            .is_none_or(|pid| rustix::process::test_kill_process(pid).is_err());
        if gone {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("the stub outlived its address space");
}

/// Nothing but what the platform says it needs, and what threads, the allocator and this test do.
fn filter() {
    let own = [
        libc::SYS_clone3,
        libc::SYS_clock_nanosleep,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_fcntl,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_gettid,
        libc::SYS_mprotect,
        libc::SYS_prctl,
        libc::SYS_rseq,
        libc::SYS_rt_sigprocmask,
        libc::SYS_sched_getaffinity,
        libc::SYS_set_robust_list,
        libc::SYS_sigaltstack,
        libc::SYS_write,
    ];
    let calls =
        platform::ptrace::HOST_CALLS.iter().chain(platform::memory::HOST_CALLS).map(|(call, _)| *call);
    let rules = calls.chain(own).map(|call| (call, Vec::new())).collect();
    let (kill, allow) = (SeccompAction::KillProcess, SeccompAction::Allow);
    let filter = SeccompFilter::new(rules, kill, allow, TargetArch::x86_64).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
}

fn main() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let outside = huge_pages();
    let (mut wait, mut go) = std::io::pipe().unwrap();
    let unshare = Unshare::USER | Unshare::MOUNT | Unshare::PID | Unshare::NET | Unshare::IPC | Unshare::UTS;
    let child = fork(unshare, || {
        wait.read_exact(&mut [0]).unwrap();
        become_ids(0, 0, SetGroups::Deny).unwrap();
        // The private tmpfs works in a user namespace as well.
        assert_eq!(huge_pages(), outside);
        let memory = Arc::new(MemoryFile::create(1 << 40).unwrap());
        empty_root().unwrap();
        become_ids(65534, 65534, SetGroups::Deny).unwrap();
        keep_capabilities(0).unwrap();
        set_dumpable(Dumpable::No).unwrap();
        let platform = Ptrace::new(memory).unwrap();
        assert!(platform.vdso().is_some() && platform.vvar().is_some());
        filter();
        guest(&platform);
        0
    })
    .unwrap();
    let map = [IdMap { inside: 0, outside: 0, count: 1 }, IdMap { inside: 65534, outside: 65534, count: 1 }];
    let proc = std::fs::File::open("/proc").unwrap();
    write_id_maps(proc.as_fd(), child.pid, &map, &map, SetGroups::Deny).unwrap();
    go.write_all(b"!").unwrap();
    let pid = rustix::process::Pid::from_raw(child.pid);
    let status = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty());
    assert_eq!(status.unwrap().unwrap().1.exit_status(), Some(0));
}
