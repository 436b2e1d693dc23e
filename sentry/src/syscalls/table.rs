//! Every system call, one line each. Dispatch, the trace and docs/compatibility.md derive from it.
//!
//! `number path::to::handler(argument: Type, ...) Support "note";` The handler is
//! `fn(cx: &mut Cx<'_>, Type, ...) -> CallResult<R>`; the last segment of the path is the call's name.

use super::args::{FromReg, IntoReturn};
use super::event::poll::PollFd;
use super::fs::aio::{AioSigset, Iocb};
use super::fs::statmount::MntIdReq;
use super::net::message::{MmsgHdr, MsgHdr};
use super::security::capability::{Data as CapData, Header as CapHeader};
use super::sync::futex::FutexWaitv;
use super::system::admin::Timex;
use super::system::info::Sysinfo;
use super::system::limits::Rlimit;
use super::system::machine::Ustat;
use super::system::sched::SchedAttr;
use super::time::clock::Tms;
use super::time::timer::Sigevent;
use super::trace::{Line, Trace};
use crate::files::aio::IoEvent;
use crate::ipc::mqueue::MqAttr;
use crate::ipc::sem::Sembuf;
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::process::{Rusage, WaitOptions};
use abi::siginfo::{SigAction, SigInfo, StackT};
use abi::stat::{Iovec, Stat, Statfs, Statx};
use abi::time::{Itimerspec, Itimerval, Timespec, Timeval};
use abi::{CallResult, DirFd, Fd, UserAddr, UserCStr, UserPtr};
use mm::{MapFlags, RemapFlags};
use platform::Prot;

/// How much of a call is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    /// All of it.
    Full,
    /// Parts; the note says what is missing.
    Partial,
    /// Fails as on a kernel built without it.
    Absent,
}

/// One call.
pub struct Entry {
    /// Number (x86-64).
    pub number: u32,
    path: &'static str,
    /// How much is there.
    pub support: Support,
    /// What is missing.
    pub note: &'static str,
    /// Name and type of each argument.
    pub args: &'static [(&'static str, &'static str)],
    /// Decodes the registers and runs the handler.
    pub call: fn(&mut Cx<'_>, &[u64; 6]) -> CallResult<u64>,
    /// Shows the arguments.
    pub trace: fn(&mut Line<'_>, &[u64; 6]),
}

impl Entry {
    /// The call's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit(':').next().unwrap_or(self.path).trim()
    }
    /// The family: the folder its handler lives in.
    #[must_use]
    pub fn family(&self) -> &'static str {
        self.path.split(':').next().unwrap_or(self.path).trim()
    }
}

macro_rules! syscalls {
    ($($number:literal $($seg:ident)::+ ($($arg:ident : $ty:ty),* $(,)?) $support:ident $($note:literal)?;)*) => {
        const ENTRIES: &[Entry] = &[$(Entry {
            number: $number,
            path: stringify!($($seg)::+),
            support: Support::$support,
            note: concat!($($note)?),
            args: &[$((stringify!($arg), stringify!($ty))),*],
            call: |cx, regs| {
                let mut regs = regs.iter().copied();
                let mut _next = || regs.next().unwrap_or(0);
                $(let $arg = <$ty as FromReg>::from_reg(_next())?;)*
                super::$($seg)::+(cx, $($arg),*).map(IntoReturn::into_return)
            },
            trace: |line, regs| {
                let mut regs = regs.iter().copied();
                let mut _next = || regs.next().unwrap_or(0);
                let mut _sep = "";
                $(line.text.push_str(_sep);
                if let Ok(arg) = <$ty as FromReg>::from_reg(_next()) {
                    Trace::trace(&arg, line);
                }
                _sep = ", ";)*
                let _ = (line, _sep);
            },
        }),*];
    };
}

const SLOTS: usize = 512;
const NONE: u16 = u16::MAX;

static LOOKUP: [u16; SLOTS] = {
    let mut slots = [NONE; SLOTS];
    let mut at: u16 = 0;
    while (at as usize) < ENTRIES.len() {
        slots[ENTRIES[at as usize].number as usize] = at;
        at += 1;
    }
    slots
};

/// All calls, in the order of this file.
#[must_use]
pub fn entries() -> &'static [Entry] {
    ENTRIES
}

/// The call with this number.
#[must_use]
pub fn find(number: u32) -> Option<&'static Entry> {
    let slot = LOOKUP.get(usize::try_from(number).ok()?)?;
    ENTRIES.get(usize::from(*slot))
}

syscalls! {
    0 fs::io::read(fd: Fd, buf: UserAddr, count: usize) Full;
    1 fs::io::write(fd: Fd, buf: UserAddr, count: usize) Full;
    2 fs::open::open(path: UserCStr, flags: OpenFlags, mode: u32) Full;
    3 fs::open::close(fd: Fd) Full;
    4 fs::stat::stat(path: UserCStr, out: UserPtr<Stat>) Full;
    5 fs::stat::fstat(fd: Fd, out: UserPtr<Stat>) Full;
    6 fs::stat::lstat(path: UserCStr, out: UserPtr<Stat>) Full;
    7 event::poll::poll(fds: UserPtr<PollFd>, count: u32, timeout_ms: i32) Full;
    8 fs::io::lseek(fd: Fd, offset: i64, whence: u32) Full;
    9 memory::map::mmap(addr: UserAddr, len: u64, prot: Prot, flags: MapFlags, fd: Fd, offset: u64) Full;
    10 memory::map::mprotect(addr: UserAddr, len: u64, prot: Prot) Full;
    11 memory::map::munmap(addr: UserAddr, len: u64) Full;
    12 memory::map::brk(addr: UserAddr) Full;
    13 signal::action::rt_sigaction(signal: u32, new: UserPtr<SigAction>, old: UserPtr<SigAction>, size: usize) Full;
    14 signal::action::rt_sigprocmask(how: u32, set: UserPtr<u64>, old: UserPtr<u64>, size: usize) Full;
    15 signal::action::rt_sigreturn() Full;
    16 fs::descriptor::ioctl(fd: Fd, request: u32, arg: UserAddr) Full;
    17 fs::io::pread64(fd: Fd, buf: UserAddr, count: usize, offset: i64) Full;
    18 fs::io::pwrite64(fd: Fd, buf: UserAddr, count: usize, offset: i64) Full;
    19 fs::io::readv(fd: Fd, iov: UserPtr<Iovec>, count: u64) Full;
    20 fs::io::writev(fd: Fd, iov: UserPtr<Iovec>, count: u64) Full;
    21 fs::stat::access(path: UserCStr, mode: u32) Full;
    22 event::create::pipe(fds: UserPtr<[i32; 2]>) Full;
    23 event::poll::select(count: i32, read: UserAddr, write: UserAddr, except: UserAddr, timeout: UserPtr<Timeval>) Full;
    24 system::sched::sched_yield() Full;
    25 memory::advise::mremap(old: UserAddr, old_len: u64, new_len: u64, flags: RemapFlags, to: UserAddr) Full;
    26 memory::advise::msync(addr: UserAddr, len: u64, flags: u32) Full;
    27 memory::advise::mincore(addr: UserAddr, len: u64, out: UserAddr) Full;
    28 memory::advise::madvise(addr: UserAddr, len: u64, advice: u32) Full;
    29 ipc::shm::shmget(key: i32, size: u64, flags: u32) Partial "huge pages are ENOMEM";
    30 ipc::shm::shmat(id: i32, addr: UserAddr, flags: u32) Full;
    31 ipc::shm::shmctl(id: i32, command: u32, buf: UserAddr) Full;
    32 fs::descriptor::dup(fd: Fd) Full;
    33 fs::descriptor::dup2(old: Fd, new: Fd) Full;
    34 signal::suspend::pause() Full;
    35 time::sleep::nanosleep(time: UserPtr<Timespec>, left: UserPtr<Timespec>) Full;
    36 time::timer::getitimer(which: u32, out: UserPtr<Itimerval>) Full;
    37 time::timer::alarm(seconds: u32) Full;
    38 time::timer::setitimer(which: u32, new: UserPtr<Itimerval>, old: UserPtr<Itimerval>) Full;
    39 process::ids::getpid() Full;
    40 fs::copy::sendfile(out: Fd, input: Fd, offset: UserPtr<i64>, count: usize) Full;
    41 net::socket::socket(domain: i32, kind: i32, protocol: i32) Partial "AF_UNIX, AF_INET, AF_INET6, AF_NETLINK (route, sock_diag, generic, uevent), AF_PACKET without rings";
    42 net::socket::connect(fd: Fd, addr: UserAddr, len: u32) Full;
    43 net::socket::accept(fd: Fd, addr: UserAddr, len: UserPtr<i32>) Full;
    44 net::message::sendto(fd: Fd, buf: UserAddr, len: usize, flags: u32, addr: UserAddr, addr_len: u32) Full;
    45 net::message::recvfrom(fd: Fd, buf: UserAddr, len: usize, flags: u32, addr: UserAddr, addr_len: UserPtr<i32>) Full;
    46 net::message::sendmsg(fd: Fd, message: UserPtr<MsgHdr>, flags: u32) Full;
    47 net::message::recvmsg(fd: Fd, message: UserPtr<MsgHdr>, flags: u32) Full;
    48 net::socket::shutdown(fd: Fd, how: i32) Full;
    49 net::socket::bind(fd: Fd, addr: UserAddr, len: u32) Full;
    50 net::socket::listen(fd: Fd, backlog: i32) Full;
    51 net::socket::getsockname(fd: Fd, addr: UserAddr, len: UserPtr<i32>) Full;
    52 net::socket::getpeername(fd: Fd, addr: UserAddr, len: UserPtr<i32>) Full;
    53 net::socket::socketpair(domain: i32, kind: i32, protocol: i32, out: UserPtr<[i32; 2]>) Full;
    54 net::options::setsockopt(fd: Fd, level: i32, name: i32, value: UserAddr, len: i32) Full;
    55 net::options::getsockopt(fd: Fd, level: i32, name: i32, value: UserAddr, len: UserPtr<i32>) Full;
    56 process::clone::clone(flags: u64, stack: u64, parent_tid: UserAddr, child_tid: UserAddr, tls: u64) Full;
    57 process::clone::fork() Full;
    58 process::clone::vfork() Full;
    59 process::exec::execve(path: UserCStr, argv: UserPtr<u64>, envp: UserPtr<u64>) Full;
    60 process::exit::exit(code: i32) Full;
    61 process::wait::wait4(pid: i32, status: UserPtr<u32>, options: WaitOptions, usage: UserPtr<Rusage>) Full;
    62 signal::send::kill(pid: i32, signal: u32) Full;
    63 system::uname::uname(buf: UserPtr<abi::system::Utsname>) Full;
    64 ipc::sem::semget(key: i32, count: i32, flags: u32) Full;
    65 ipc::sem::semop(id: i32, ops: UserPtr<Sembuf>, count: usize) Full;
    66 ipc::sem::semctl(id: i32, number: i32, command: u32, arg: u64) Full;
    67 ipc::shm::shmdt(addr: UserAddr) Full;
    68 ipc::msg::msgget(key: i32, flags: u32) Full;
    69 ipc::msg::msgsnd(id: i32, message: UserAddr, len: usize, flags: u32) Full;
    70 ipc::msg::msgrcv(id: i32, message: UserAddr, len: usize, kind: i64, flags: u32) Full;
    71 ipc::msg::msgctl(id: i32, command: u32, buf: UserAddr) Full;
    72 fs::fcntl::fcntl(fd: Fd, command: u32, arg: u64) Full;
    73 fs::descriptor::flock(fd: Fd, operation: u32) Full;
    74 fs::sync::fsync(fd: Fd) Full;
    75 fs::sync::fdatasync(fd: Fd) Full;
    76 fs::attr::truncate(path: UserCStr, len: i64) Full;
    77 fs::attr::ftruncate(fd: Fd, len: i64) Full;
    78 fs::dir::getdents(fd: Fd, dirent: UserAddr, count: u32) Full;
    79 fs::dir::getcwd(buf: UserAddr, size: usize) Full;
    80 fs::dir::chdir(path: UserCStr) Full;
    81 fs::dir::fchdir(fd: Fd) Full;
    82 fs::tree::rename(old: UserCStr, new: UserCStr) Full;
    83 fs::tree::mkdir(path: UserCStr, mode: u32) Full;
    84 fs::tree::rmdir(path: UserCStr) Full;
    85 fs::open::creat(path: UserCStr, mode: u32) Full;
    86 fs::tree::link(old: UserCStr, new: UserCStr) Full;
    87 fs::tree::unlink(path: UserCStr) Full;
    88 fs::tree::symlink(target: UserCStr, path: UserCStr) Full;
    89 fs::stat::readlink(path: UserCStr, buf: UserAddr, size: i32) Full;
    90 fs::attr::chmod(path: UserCStr, mode: u32) Full;
    91 fs::attr::fchmod(fd: Fd, mode: u32) Full;
    92 fs::attr::chown(path: UserCStr, uid: u32, gid: u32) Full;
    93 fs::attr::fchown(fd: Fd, uid: u32, gid: u32) Full;
    94 fs::attr::lchown(path: UserCStr, uid: u32, gid: u32) Full;
    95 fs::dir::umask(mask: u32) Full;
    96 time::clock::gettimeofday(time: UserPtr<Timeval>, zone: UserPtr<[i32; 2]>) Full;
    97 system::limits::getrlimit(resource: u32, out: UserPtr<Rlimit>) Full;
    98 system::info::getrusage(who: i32, out: UserPtr<Rusage>) Partial "user time is that of the address space, shared out over its threads";
    99 system::info::sysinfo(out: UserPtr<Sysinfo>) Full;
    100 time::clock::times(out: UserPtr<Tms>) Full;
    101 process::ptrace::ptrace(request: u32, pid: i32, addr: u64, data: u64) Partial "watchpoints see changes of a value, not reads";
    102 security::ids::getuid() Full;
    103 system::admin::syslog(action: i32, buf: UserAddr, len: i32) Full;
    104 security::ids::getgid() Full;
    105 security::ids::setuid(uid: u32) Full;
    106 security::ids::setgid(gid: u32) Full;
    107 security::ids::geteuid() Full;
    108 security::ids::getegid() Full;
    109 process::ids::setpgid(pid: i32, pgid: i32) Full;
    110 process::ids::getppid() Full;
    111 process::ids::getpgrp() Full;
    112 process::ids::setsid() Full;
    113 security::ids::setreuid(real: u32, effective: u32) Full;
    114 security::ids::setregid(real: u32, effective: u32) Full;
    115 security::ids::getgroups(size: i32, list: UserPtr<u32>) Full;
    116 security::ids::setgroups(size: usize, list: UserPtr<u32>) Full;
    117 security::ids::setresuid(real: u32, effective: u32, saved: u32) Full;
    118 security::ids::getresuid(real: UserPtr<u32>, effective: UserPtr<u32>, saved: UserPtr<u32>) Full;
    119 security::ids::setresgid(real: u32, effective: u32, saved: u32) Full;
    120 security::ids::getresgid(real: UserPtr<u32>, effective: UserPtr<u32>, saved: UserPtr<u32>) Full;
    121 process::ids::getpgid(pid: i32) Full;
    122 security::ids::setfsuid(uid: u32) Full;
    123 security::ids::setfsgid(gid: u32) Full;
    124 process::ids::getsid(pid: i32) Full;
    125 security::capability::capget(header: UserPtr<CapHeader>, data: UserPtr<CapData>) Full;
    126 security::capability::capset(header: UserPtr<CapHeader>, data: UserPtr<CapData>) Full;
    127 signal::action::rt_sigpending(set: UserPtr<u64>, size: usize) Full;
    128 signal::suspend::rt_sigtimedwait(set: UserPtr<u64>, info: UserPtr<SigInfo>, timeout: UserPtr<Timespec>, size: usize) Full;
    129 signal::send::rt_sigqueueinfo(pid: i32, signal: u32, info: UserPtr<SigInfo>) Full;
    130 signal::suspend::rt_sigsuspend(set: UserPtr<u64>, size: usize) Full;
    131 signal::action::sigaltstack(new: UserPtr<StackT>, old: UserPtr<StackT>) Full;
    132 fs::attr::utime(path: UserCStr, times: UserPtr<[i64; 2]>) Full;
    133 fs::tree::mknod(path: UserCStr, mode: u32, dev: u32) Full;
    134 system::absent::uselib() Absent "ENOSYS";
    135 security::arch::personality(persona: u32) Full;
    136 system::machine::ustat(dev: u32, out: UserPtr<Ustat>) Full;
    137 fs::stat::statfs(path: UserCStr, out: UserPtr<Statfs>) Full;
    138 fs::stat::fstatfs(fd: Fd, out: UserPtr<Statfs>) Full;
    139 system::machine::sysfs(option: u32, arg1: u64, arg2: UserAddr) Full;
    140 system::sched::getpriority(which: u32, who: u32) Full;
    141 system::sched::setpriority(which: u32, who: u32, nice: i32) Full;
    142 system::sched::sched_setparam(pid: i32, param: UserPtr<i32>) Full;
    143 system::sched::sched_getparam(pid: i32, param: UserPtr<u32>) Full;
    144 system::sched::sched_setscheduler(pid: i32, policy: i32, param: UserPtr<i32>) Full;
    145 system::sched::sched_getscheduler(pid: i32) Full;
    146 system::sched::sched_get_priority_max(policy: u32) Full;
    147 system::sched::sched_get_priority_min(policy: u32) Full;
    148 system::sched::sched_rr_get_interval(pid: i32, out: UserPtr<Timespec>) Full;
    149 memory::advise::mlock(addr: UserAddr, len: u64) Full;
    150 memory::advise::munlock(addr: UserAddr, len: u64) Full;
    151 memory::advise::mlockall(flags: u32) Full;
    152 memory::advise::munlockall() Full;
    153 system::admin::vhangup() Full;
    154 system::absent::modify_ldt() Absent "ENOSYS";
    155 fs::mount::pivot_root(new_root: UserCStr, put_old: UserCStr) Full;
    156 system::absent::_sysctl() Absent "ENOSYS";
    157 security::prctl::prctl(option: u32, arg2: u64, arg3: u64, arg4: u64, arg5: u64) Partial "PR_SET_TSC cannot refuse, PR_SCHED_CORE is EINVAL";
    158 security::arch::arch_prctl(code: u32, addr: UserAddr) Partial "CPUID faulting is EINVAL";
    159 system::admin::adjtimex(buf: UserPtr<Timex>) Partial "the clock cannot be adjusted: EPERM";
    160 system::limits::setrlimit(resource: u32, new: UserPtr<Rlimit>) Full;
    161 fs::dir::chroot(path: UserCStr) Full;
    162 fs::sync::sync() Full;
    163 system::admin::acct(path: UserCStr) Absent "EPERM; ENOSYS with CAP_SYS_PACCT";
    164 time::clock::settimeofday(time: UserPtr<Timeval>, zone: UserPtr<[i32; 2]>) Full;
    165 fs::mount::mount(source: UserCStr, target: UserCStr, kind: UserCStr, flags: u64, data: UserAddr) Full;
    166 fs::mount::umount2(target: UserCStr, flags: u32) Full;
    167 system::machine::swapon(path: UserCStr, flags: u32) Partial "nothing can hold swap: EINVAL";
    168 system::machine::swapoff(path: UserCStr) Partial "nothing can hold swap: EINVAL";
    169 system::admin::reboot(magic: u32, magic2: u32, command: u32) Full;
    170 system::uname::sethostname(name: UserAddr, len: i32) Full;
    171 system::uname::setdomainname(name: UserAddr, len: i32) Full;
    172 system::machine::iopl(level: u32) Partial "no port is given: EPERM";
    173 system::machine::ioperm(from: u64, count: u64, on: i32) Partial "no port is given: EPERM";
    174 system::absent::create_module() Absent "ENOSYS";
    175 system::machine::init_module(image: UserAddr, len: u64, args: UserAddr) Absent "EPERM, as with kernel.modules_disabled";
    176 system::machine::delete_module(name: UserAddr, flags: u32) Absent "EPERM, as with kernel.modules_disabled";
    177 system::absent::get_kernel_syms() Absent "ENOSYS";
    178 system::absent::query_module() Absent "ENOSYS";
    179 system::machine::quotactl(command: u32, special: UserCStr, id: u32, addr: UserAddr) Partial "no file system has quotas";
    180 system::absent::nfsservctl() Absent "ENOSYS";
    181 system::absent::getpmsg() Absent "ENOSYS";
    182 system::absent::putpmsg() Absent "ENOSYS";
    183 system::absent::afs_syscall() Absent "ENOSYS";
    184 system::absent::tuxcall() Absent "ENOSYS";
    185 system::absent::security() Absent "ENOSYS";
    186 process::ids::gettid() Full;
    187 fs::sync::readahead(fd: Fd, offset: i64, count: usize) Full;
    188 fs::xattr::setxattr(path: UserCStr, name: UserCStr, value: UserAddr, size: usize, flags: u32) Full;
    189 fs::xattr::lsetxattr(path: UserCStr, name: UserCStr, value: UserAddr, size: usize, flags: u32) Full;
    190 fs::xattr::fsetxattr(fd: Fd, name: UserCStr, value: UserAddr, size: usize, flags: u32) Full;
    191 fs::xattr::getxattr(path: UserCStr, name: UserCStr, value: UserAddr, size: usize) Full;
    192 fs::xattr::lgetxattr(path: UserCStr, name: UserCStr, value: UserAddr, size: usize) Full;
    193 fs::xattr::fgetxattr(fd: Fd, name: UserCStr, value: UserAddr, size: usize) Full;
    194 fs::xattr::listxattr(path: UserCStr, list: UserAddr, size: usize) Full;
    195 fs::xattr::llistxattr(path: UserCStr, list: UserAddr, size: usize) Full;
    196 fs::xattr::flistxattr(fd: Fd, list: UserAddr, size: usize) Full;
    197 fs::xattr::removexattr(path: UserCStr, name: UserCStr) Full;
    198 fs::xattr::lremovexattr(path: UserCStr, name: UserCStr) Full;
    199 fs::xattr::fremovexattr(fd: Fd, name: UserCStr) Full;
    200 signal::send::tkill(tid: i32, signal: u32) Full;
    201 time::clock::time(out: UserPtr<i64>) Full;
    202 sync::futex::futex(addr: UserAddr, op: u32, value: u32, timeout: u64, addr2: UserAddr, value3: u32) Full;
    203 system::sched::sched_setaffinity(pid: i32, size: usize, mask: UserAddr) Full;
    204 system::sched::sched_getaffinity(pid: i32, size: usize, mask: UserAddr) Full;
    205 system::absent::set_thread_area() Absent "ENOSYS";
    206 fs::aio::io_setup(count: u32, out: UserPtr<u64>) Full;
    207 fs::aio::io_destroy(context: UserAddr) Full;
    208 fs::aio::io_getevents(context: UserAddr, least: i64, most: i64, out: UserPtr<IoEvent>, timeout: UserPtr<Timespec>) Full;
    209 fs::aio::io_submit(context: UserAddr, count: i64, list: UserPtr<u64>) Full;
    210 fs::aio::io_cancel(context: UserAddr, iocb: UserPtr<Iocb>, out: UserAddr) Full;
    211 system::absent::get_thread_area() Absent "ENOSYS";
    212 system::absent::lookup_dcookie() Absent "ENOSYS";
    213 event::epoll::epoll_create(size: i32) Full;
    214 system::absent::epoll_ctl_old() Absent "ENOSYS";
    215 system::absent::epoll_wait_old() Absent "ENOSYS";
    216 memory::map::remap_file_pages(addr: UserAddr, len: u64, prot: u64, page: u64, flags: u64) Full;
    217 fs::dir::getdents64(fd: Fd, dirent: UserAddr, count: u32) Full;
    218 process::ids::set_tid_address(addr: UserAddr) Full;
    219 system::admin::restart_syscall() Full;
    220 ipc::sem::semtimedop(id: i32, ops: UserPtr<Sembuf>, count: usize, timeout: UserPtr<Timespec>) Full;
    221 fs::sync::fadvise64(fd: Fd, offset: i64, len: i64, advice: u32) Full;
    222 time::timer::timer_create(clock: i32, event: UserPtr<Sigevent>, out: UserPtr<u32>) Full;
    223 time::timer::timer_settime(id: u32, flags: u32, new: UserPtr<Itimerspec>, old: UserPtr<Itimerspec>) Full;
    224 time::timer::timer_gettime(id: u32, out: UserPtr<Itimerspec>) Full;
    225 time::timer::timer_getoverrun(id: u32) Full;
    226 time::timer::timer_delete(id: u32) Full;
    227 time::clock::clock_settime(id: i32, time: UserPtr<Timespec>) Full;
    228 time::clock::clock_gettime(id: i32, out: UserPtr<Timespec>) Full;
    229 time::clock::clock_getres(id: i32, out: UserPtr<Timespec>) Full;
    230 time::sleep::clock_nanosleep(id: i32, flags: u32, time: UserPtr<Timespec>, left: UserPtr<Timespec>) Full;
    231 process::exit::exit_group(code: i32) Full;
    232 event::epoll::epoll_wait(epfd: Fd, events: UserAddr, max: i32, timeout_ms: i32) Full;
    233 event::epoll::epoll_ctl(epfd: Fd, op: i32, fd: Fd, event: UserAddr) Full;
    234 signal::send::tgkill(tgid: i32, tid: i32, signal: u32) Full;
    235 fs::attr::utimes(path: UserCStr, times: UserPtr<[Timeval; 2]>) Full;
    236 system::absent::vserver() Absent "ENOSYS";
    237 memory::numa::mbind(start: UserAddr, len: u64, mode: u32, mask: UserAddr, max: u64, flags: u32) Full;
    238 memory::numa::set_mempolicy(mode: u32, mask: UserAddr, max: u64) Full;
    239 memory::numa::get_mempolicy(out: UserPtr<i32>, mask: UserAddr, max: u64, addr: UserAddr, flags: u64) Full;
    240 ipc::mqueue::mq_open(name: UserCStr, flags: OpenFlags, mode: u32, attr: UserPtr<MqAttr>) Full;
    241 ipc::mqueue::mq_unlink(name: UserCStr) Full;
    242 ipc::mqueue::mq_timedsend(fd: Fd, text: UserAddr, len: usize, prio: u32, timeout: UserPtr<Timespec>) Full;
    243 ipc::mqueue::mq_timedreceive(fd: Fd, out: UserAddr, len: usize, prio: UserPtr<u32>, timeout: UserPtr<Timespec>) Full;
    244 ipc::mqueue::mq_notify(fd: Fd, event: UserPtr<Sigevent>) Full;
    245 ipc::mqueue::mq_getsetattr(fd: Fd, new: UserPtr<MqAttr>, old: UserPtr<MqAttr>) Full;
    246 system::machine::kexec_load() Absent "EPERM, as with kernel.kexec_load_disabled";
    247 process::wait::waitid(kind: u32, id: i32, info: UserPtr<SigInfo>, options: WaitOptions, usage: UserPtr<Rusage>) Full;
    248 security::keys::add_key(kind: UserCStr, name: UserCStr, bytes: UserAddr, len: usize, ring: i32) Partial "types keyring, user and logon";
    249 security::keys::request_key(kind: UserCStr, name: UserCStr, callout: UserCStr, ring: i32) Partial "no upcall: ENOKEY";
    250 security::keys::keyctl(operation: u32, a: u64, b: u64, c: u64, d: u64) Partial "no instantiation by request-key, persistent keyrings, public-key operations, watches";
    251 system::sched::ioprio_set(which: u32, who: u32, value: u32) Full;
    252 system::sched::ioprio_get(which: u32, who: u32) Full;
    253 event::inotify::inotify_init() Full;
    254 event::inotify::inotify_add_watch(fd: Fd, path: UserCStr, mask: u32) Full;
    255 event::inotify::inotify_rm_watch(fd: Fd, wd: i32) Full;
    256 memory::numa::migrate_pages(pid: i32, max: u64, old: UserAddr, new: UserAddr) Full;
    257 fs::open::openat(dirfd: DirFd, path: UserCStr, flags: OpenFlags, mode: u32) Full;
    258 fs::tree::mkdirat(dirfd: DirFd, path: UserCStr, mode: u32) Full;
    259 fs::tree::mknodat(dirfd: DirFd, path: UserCStr, mode: u32, dev: u32) Full;
    260 fs::attr::fchownat(dirfd: DirFd, path: UserCStr, uid: u32, gid: u32, flags: u32) Full;
    261 fs::attr::futimesat(dirfd: DirFd, path: UserCStr, times: UserPtr<[Timeval; 2]>) Full;
    262 fs::stat::newfstatat(dirfd: DirFd, path: UserCStr, out: UserPtr<Stat>, flags: u32) Full;
    263 fs::tree::unlinkat(dirfd: DirFd, path: UserCStr, flags: u32) Full;
    264 fs::tree::renameat(old_dir: DirFd, old: UserCStr, new_dir: DirFd, new: UserCStr) Full;
    265 fs::tree::linkat(old_dir: DirFd, old: UserCStr, new_dir: DirFd, new: UserCStr, flags: u32) Full;
    266 fs::tree::symlinkat(target: UserCStr, dirfd: DirFd, path: UserCStr) Full;
    267 fs::stat::readlinkat(dirfd: DirFd, path: UserCStr, buf: UserAddr, size: i32) Full;
    268 fs::attr::fchmodat(dirfd: DirFd, path: UserCStr, mode: u32) Full;
    269 fs::stat::faccessat(dirfd: DirFd, path: UserCStr, mode: u32) Full;
    270 event::poll::pselect6(count: i32, read: UserAddr, write: UserAddr, except: UserAddr, timeout: UserPtr<Timespec>, mask: UserAddr) Full;
    271 event::poll::ppoll(fds: UserPtr<PollFd>, count: u32, timeout: UserPtr<Timespec>, mask: UserPtr<u64>, size: usize) Full;
    272 process::namespace::unshare(flags: u64) Partial "time namespaces are EINVAL";
    273 sync::futex::set_robust_list(head: UserAddr, len: usize) Full;
    274 sync::futex::get_robust_list(pid: i32, head: UserPtr<u64>, len: UserPtr<u64>) Full;
    275 fs::copy::splice(input: Fd, off_in: UserPtr<i64>, output: Fd, off_out: UserPtr<i64>, len: usize, flags: u32) Full;
    276 fs::copy::tee(input: Fd, output: Fd, len: usize, flags: u32) Full;
    277 fs::sync::sync_file_range(fd: Fd, offset: i64, len: i64, flags: u32) Full;
    278 fs::copy::vmsplice(fd: Fd, iov: UserPtr<Iovec>, count: u64, flags: u32) Full;
    279 memory::numa::move_pages(pid: i32, count: u64, pages: UserPtr<u64>, nodes: UserPtr<i32>, status: UserPtr<i32>, flags: u32) Full;
    280 fs::attr::utimensat(dirfd: DirFd, path: UserCStr, times: UserPtr<[Timespec; 2]>, flags: u32) Full;
    281 event::epoll::epoll_pwait(epfd: Fd, events: UserAddr, max: i32, timeout_ms: i32, mask: UserPtr<u64>, size: usize) Full;
    282 event::create::signalfd(fd: Fd, mask: UserPtr<u64>, size: usize) Full;
    283 event::timerfd::timerfd_create(clock: i32, flags: OpenFlags) Full;
    284 event::create::eventfd(count: u32) Full;
    285 fs::attr::fallocate(fd: Fd, mode: u32, offset: i64, len: i64) Full;
    286 event::timerfd::timerfd_settime(fd: Fd, flags: i32, new: UserPtr<Itimerspec>, old: UserPtr<Itimerspec>) Full;
    287 event::timerfd::timerfd_gettime(fd: Fd, out: UserPtr<Itimerspec>) Full;
    288 net::socket::accept4(fd: Fd, addr: UserAddr, len: UserPtr<i32>, flags: OpenFlags) Full;
    289 event::create::signalfd4(fd: Fd, mask: UserPtr<u64>, size: usize, flags: OpenFlags) Full;
    290 event::create::eventfd2(count: u32, flags: OpenFlags) Full;
    291 event::epoll::epoll_create1(flags: OpenFlags) Full;
    292 fs::descriptor::dup3(old: Fd, new: Fd, flags: OpenFlags) Full;
    293 event::create::pipe2(fds: UserPtr<[i32; 2]>, flags: OpenFlags) Full;
    294 event::inotify::inotify_init1(flags: OpenFlags) Full;
    295 fs::io::preadv(fd: Fd, iov: UserPtr<Iovec>, count: u64, pos: i64) Full;
    296 fs::io::pwritev(fd: Fd, iov: UserPtr<Iovec>, count: u64, pos: i64) Full;
    297 signal::send::rt_tgsigqueueinfo(tgid: i32, tid: i32, signal: u32, info: UserPtr<SigInfo>) Full;
    298 system::admin::perf_event_open(attr: UserPtr<[u32; 2]>, pid: i32, cpu: i32, group: i32, flags: u64) Absent "EACCES, as for an unprivileged user";
    299 net::message::recvmmsg(fd: Fd, list: UserPtr<MmsgHdr>, count: u32, flags: u32, timeout: UserPtr<Timespec>) Full;
    300 system::absent::fanotify_init() Absent "ENOSYS";
    301 system::absent::fanotify_mark() Absent "ENOSYS";
    302 system::limits::prlimit64(pid: i32, resource: u32, new: UserPtr<Rlimit>, old: UserPtr<Rlimit>) Full;
    303 fs::handle::name_to_handle_at(dirfd: DirFd, path: UserCStr, handle: UserPtr<[u32; 2]>, mount_id: UserAddr, flags: u32) Partial "tmpfs and binds only, as long as the inode is in memory";
    304 fs::handle::open_by_handle_at(mount_fd: Fd, handle: UserPtr<[u32; 2]>, flags: OpenFlags) Full;
    305 system::admin::clock_adjtime(clock: i32, buf: UserPtr<Timex>) Partial "the clock cannot be adjusted: EPERM";
    306 fs::sync::syncfs(fd: Fd) Full;
    307 net::message::sendmmsg(fd: Fd, list: UserPtr<MmsgHdr>, count: u32, flags: u32) Full;
    308 process::namespace::setns(fd: Fd, kinds: u32) Full;
    309 system::info::getcpu(cpu: UserPtr<u32>, node: UserPtr<u32>) Full;
    310 process::vm::process_vm_readv(pid: i32, local: UserPtr<Iovec>, local_count: u64, remote: UserPtr<Iovec>, remote_count: u64, flags: u64) Full;
    311 process::vm::process_vm_writev(pid: i32, local: UserPtr<Iovec>, local_count: u64, remote: UserPtr<Iovec>, remote_count: u64, flags: u64) Full;
    312 process::vm::kcmp(pid1: i32, pid2: i32, kind: u32, index1: u64, index2: u64) Full;
    313 system::machine::finit_module(fd: Fd, args: UserAddr, flags: u32) Absent "EPERM, as with kernel.modules_disabled";
    314 system::sched::sched_setattr(pid: i32, attr: UserPtr<SchedAttr>, flags: u32) Full;
    315 system::sched::sched_getattr(pid: i32, attr: UserPtr<SchedAttr>, size: u32, flags: u32) Full;
    316 fs::tree::renameat2(old_dir: DirFd, old: UserCStr, new_dir: DirFd, new: UserCStr, flags: u32) Full;
    317 security::seccomp::seccomp(operation: u32, flags: u32, args: UserAddr) Full;
    318 system::info::getrandom(buf: UserAddr, len: usize, flags: u32) Full;
    319 fs::memfd::memfd_create(name: UserCStr, flags: u32) Full;
    320 system::machine::kexec_file_load() Absent "EPERM, as with kernel.kexec_load_disabled";
    321 system::admin::bpf(command: i32, attr: UserAddr, size: u32) Absent "EPERM, as for an unprivileged user";
    322 process::exec::execveat(dirfd: DirFd, path: UserCStr, argv: UserPtr<u64>, envp: UserPtr<u64>, flags: u32) Full;
    323 system::absent::userfaultfd() Absent "ENOSYS";
    324 sync::membarrier::membarrier(command: u32, flags: u32, cpu: i32) Partial "per-processor and sync-core commands are EINVAL";
    325 memory::advise::mlock2(addr: UserAddr, len: u64, flags: u32) Full;
    326 fs::copy::copy_file_range(input: Fd, off_in: UserPtr<i64>, output: Fd, off_out: UserPtr<i64>, len: usize, flags: u32) Full;
    327 fs::io::preadv2(fd: Fd, iov: UserPtr<Iovec>, count: u64, pos: i64, pos_high: u64, flags: u32) Full;
    328 fs::io::pwritev2(fd: Fd, iov: UserPtr<Iovec>, count: u64, pos: i64, pos_high: u64, flags: u32) Full;
    329 memory::advise::pkey_mprotect(addr: UserAddr, len: u64, prot: Prot, key: i32) Partial "no protection keys";
    330 memory::advise::pkey_alloc(flags: u64, rights: u64) Partial "no protection keys: ENOSPC";
    331 memory::advise::pkey_free(key: i32) Partial "no protection keys";
    332 fs::stat::statx(dirfd: DirFd, path: UserCStr, flags: u32, mask: u32, out: UserPtr<Statx>) Full;
    333 fs::aio::io_pgetevents(context: UserAddr, least: i64, most: i64, out: UserPtr<IoEvent>, timeout: UserPtr<Timespec>, sigset: UserPtr<AioSigset>) Full;
    335 system::absent::uretprobe() Absent "ENOSYS";
    424 process::pidfd::pidfd_send_signal(fd: Fd, signal: u32, info: UserPtr<SigInfo>, flags: u32) Full;
    425 system::absent::io_uring_setup() Absent "ENOSYS";
    426 system::absent::io_uring_enter() Absent "ENOSYS";
    427 system::absent::io_uring_register() Absent "ENOSYS";
    428 fs::mountfd::open_tree(dirfd: DirFd, path: UserCStr, flags: u32) Full;
    429 fs::mountfd::move_mount(from_dir: DirFd, from: UserCStr, to_dir: DirFd, to: UserCStr, flags: u32) Partial "MOVE_MOUNT_SET_GROUP is EINVAL";
    430 fs::mountfd::fsopen(name: UserCStr, flags: u32) Full;
    431 fs::mountfd::fsconfig(fd: Fd, command: u32, key: UserCStr, value: UserAddr, aux: i32) Partial "only flags and strings as parameters";
    432 fs::mountfd::fsmount(fd: Fd, flags: u32, attr: u32) Full;
    433 fs::mountfd::fspick(dirfd: DirFd, path: UserCStr, flags: u32) Full;
    434 process::pidfd::pidfd_open(pid: i32, flags: u32) Full;
    435 process::clone::clone3(args: UserAddr, size: usize) Full;
    436 fs::open::close_range(first: u32, last: u32, flags: u32) Full;
    437 fs::open::openat2(dirfd: DirFd, path: UserCStr, how: UserAddr, size: usize) Full;
    438 process::pidfd::pidfd_getfd(fd: Fd, target: Fd, flags: u32) Full;
    439 fs::stat::faccessat2(dirfd: DirFd, path: UserCStr, mode: u32, flags: u32) Full;
    440 process::vm::process_madvise(fd: Fd, vectors: UserPtr<Iovec>, count: u64, advice: u32, flags: u32) Full;
    441 event::epoll::epoll_pwait2(epfd: Fd, events: UserAddr, max: i32, timeout: UserPtr<Timespec>, mask: UserPtr<u64>, size: usize) Full;
    442 fs::mountfd::mount_setattr(dirfd: DirFd, path: UserCStr, flags: u32, attr: UserAddr, size: usize) Partial "mounts with id maps are EINVAL";
    443 system::machine::quotactl_fd(fd: Fd, command: u32, id: u32, addr: UserAddr) Partial "no file system has quotas";
    444 security::landlock::landlock_create_ruleset(attr: UserAddr, size: usize, flags: u32) Full;
    445 security::landlock::landlock_add_rule(ruleset: Fd, kind: u32, attr: UserAddr, flags: u32) Full;
    446 security::landlock::landlock_restrict_self(ruleset: Fd, flags: u32) Full;
    447 system::absent::memfd_secret() Absent "ENOSYS";
    448 process::vm::process_mrelease(fd: Fd, flags: u32) Full;
    449 sync::futex::futex_waitv(waiters: UserPtr<FutexWaitv>, number: u32, flags: u32, timeout: UserPtr<Timespec>, clock: u32) Full;
    450 memory::numa::set_mempolicy_home_node(start: UserAddr, len: u64, node: u64, flags: u64) Full;
    451 fs::sync::cachestat(fd: Fd, range: UserPtr<[u64; 2]>, out: UserPtr<[u64; 5]>, flags: u32) Partial "all that a file holds counts as cached";
    452 fs::attr::fchmodat2(dirfd: DirFd, path: UserCStr, mode: u32, flags: u32) Full;
    453 memory::numa::map_shadow_stack(addr: UserAddr, size: u64, flags: u32) Partial "as on a processor without them: EOPNOTSUPP";
    454 sync::futex::futex_wake(addr: UserAddr, mask: u64, number: i32, flags: u32) Full;
    455 sync::futex::futex_wait(addr: UserAddr, value: u64, mask: u64, flags: u32, timeout: UserPtr<Timespec>, clock: u32) Full;
    456 sync::futex::futex_requeue(waiters: UserPtr<FutexWaitv>, flags: u32, wake: i32, limit: i32) Full;
    457 fs::statmount::statmount(req: UserPtr<MntIdReq>, buf: UserAddr, size: usize, flags: u32) Partial "of the caller's mount namespace";
    458 fs::statmount::listmount(req: UserPtr<MntIdReq>, out: UserPtr<u64>, count: usize, flags: u32) Partial "of the caller's mount namespace";
    459 security::lsm::lsm_get_self_attr(attr: u32, ctx: UserPtr<u64>, size: UserPtr<u32>, flags: u32) Full;
    460 security::lsm::lsm_set_self_attr(attr: u32, ctx: UserPtr<[u64; 4]>, size: u32, flags: u32) Full;
    461 security::lsm::lsm_list_modules(ids: UserAddr, size: UserPtr<u32>, flags: u32) Full;
    462 memory::advise::mseal(addr: UserAddr, len: u64, flags: u64) Full;
}
