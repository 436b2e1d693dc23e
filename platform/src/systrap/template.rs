//! UNSAFE: the template process, from which every stub is cloned.
//!
//! It is forked while the sentry is small and single-threaded, drops everything but the stub's own pages,
//! and from then on is driven like any other helper. Stubs are cloned with CLONE_PARENT: the sentry reaps
//! them itself.

use super::helper::Helper;
use super::slots::{Control, Slots};
use super::sys;
use crate::stub::{self, filter, layout};
use abi::{AddrRange, Errno, SysResult};
use lock::{Ranked, order};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The signal that makes a guest thread hand over.
pub(super) const INTERRUPT: i32 = libc::SIGURG;

/// A running template process.
#[derive(Debug)]
pub struct Template {
    pub(super) helper: Helper,
    pub(super) slots: Arc<Slots>,
    pub(super) vdso: Option<AddrRange>,
    pub(super) vvar: Option<AddrRange>,
    process: Process,
}

/// A child that dies with its owner at the latest.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    /// Once reaped, the pid may be another process's.
    reaped: Ranked<order::Leaf, bool>,
}

impl Process {
    pub(super) fn new(pid: i32) -> Process {
        Process { pid, reaped: Ranked::new(false) }
    }
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }
    /// Kills it; whoever reaps it comes later.
    pub(super) fn kill(&self) {
        let reaped = self.reaped.lock();
        if !*reaped {
            sys::kill(self.pid);
        }
    }
    /// Kills it and waits until its memory is gone.
    pub(super) fn end(&self) {
        let mut reaped = self.reaped.lock();
        if !*reaped {
            sys::kill_and_reap(self.pid);
            *reaped = true;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The host's vdso and its data as this process has them.
#[derive(Clone, Copy, Debug, Default)]
struct Vdso {
    start: u64,
    code: u64,
    end: u64,
    /// One per mapping: mremap(2) moves them singly.
    pieces: [(u64, u64); 4],
}

fn find_vdso() -> SysResult<Vdso> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut found = Vdso::default();
    let mut count = 0;
    for line in maps.lines() {
        let Some((range, rest)) = line.split_once(' ') else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16)) else {
            continue;
        };
        if !rest.ends_with("[vdso]") && !rest.contains("[vvar") {
            continue;
        }
        if found.end != start {
            (found.start, count) = (start, 0);
            found.pieces = Default::default();
        }
        if rest.ends_with("[vdso]") {
            found.code = start;
        }
        found.end = end;
        if let Some(piece) = found.pieces.get_mut(count) {
            *piece = (start, end);
            count += 1;
        }
    }
    Ok(found)
}

/// What the child needs, all of it made beforehand: it must not allocate.
struct Plan {
    text: u64,
    shared: u64,
    socket: u64,
    control: u64,
    vdso: Vdso,
    target: u64,
}

fn above_standard(fd: BorrowedFd<'_>) -> SysResult<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 10).map_err(|e| Errno::from_raw(e.raw_os_error()))
}

fn number(fd: &OwnedFd) -> u64 {
    u64::from(fd.as_raw_fd().unsigned_abs())
}

impl Template {
    /// Forks the template. The caller is single-threaded, or lives with what fork(2) says about threads.
    pub(super) fn start() -> SysResult<Template> {
        require_fsgsbase()?;
        let slots = Arc::new(Slots::new()?);
        let control = Control::take(&slots)?;
        let text = text_file()?;
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| Errno::from_raw(e.raw_os_error()))?;
        // The child shuffles its descriptors: none of these may stand at 0 to 2.
        let text = above_standard(text.as_fd())?;
        let shared = above_standard(slots.file.fd())?;
        let original = theirs;
        let theirs = above_standard(original.as_fd())?;
        let vdso = find_vdso()?;
        let far = |at: u64| vdso.start.abs_diff(at) > 1 << 24;
        let target = if far(layout::VDSO[0]) { layout::VDSO[0] } else { layout::VDSO[1] };
        let plan = Plan {
            text: number(&text),
            shared: number(&shared),
            socket: number(&theirs),
            control: control.offset(),
            vdso,
            target,
        };
        spawn(&plan)?;
        drop((theirs, original));
        let helper = Helper::new(ours, control);
        // The child that failed on its way closes the socket by dying.
        let process = Process::new(helper.ask_identity()?);
        let range = |from: u64, to: u64| AddrRange::new(from - vdso.start + target, to - vdso.start + target);
        let (vvar, code) = if vdso.end == 0 {
            (None, None)
        } else {
            (range(vdso.start, vdso.code), range(vdso.code, vdso.end))
        };
        Ok(Template { helper, slots, vdso: code, vvar, process })
    }

    /// Host pid of the template.
    pub(super) fn pid(&self) -> i32 {
        self.process.pid()
    }
}

/// Handlers save fs and gs base with the unprivileged instructions (Linux 5.9).
fn require_fsgsbase() -> SysResult<()> {
    // SAFETY: reads the auxiliary vector.
    let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    if hwcap2 & 2 == 0 { Err(Errno::ENOSYS) } else { Ok(()) }
}

/// Code and seccomp programs, sealed against every write.
fn text_file() -> SysResult<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let err = |e: rustix::io::Errno| Errno::from_raw(e.raw_os_error());
    let fd = rustix::fs::memfd_create(c"stub-text", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
        .map_err(err)?;
    let size = layout::TEXT_SIZE + layout::DATA_SIZE;
    let (code, data) = (stub::code(), filter::data());
    if code.len() as u64 > layout::TEXT_SIZE || data.len() as u64 > layout::DATA_SIZE {
        return Err(Errno::E2BIG);
    }
    rustix::fs::ftruncate(&fd, size).map_err(err)?;
    rustix::io::pwrite(&fd, code, 0).map_err(err)?;
    rustix::io::pwrite(&fd, &data, layout::TEXT_SIZE).map_err(err)?;
    rustix::fs::fcntl_add_seals(
        &fd,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )
    .map_err(err)?;
    Ok(fd)
}

/// Forks twice: the first child shares memory (which makes the kernel forget the C library's rseq area), the
/// second one, our child by CLONE_PARENT, is the template.
fn spawn(plan: &Plan) -> SysResult<()> {
    extern "C" fn first(plan: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the parent waits (CLONE_VFORK) and keeps the plan alive; raw calls only from here on.
        unsafe {
            let pid = libc::syscall(libc::SYS_clone, libc::CLONE_PARENT, 0, 0, 0, 0);
            if pid == 0 {
                let _ = become_template(&*plan.cast::<Plan>());
                libc::syscall(libc::SYS_exit_group, 1);
            }
            libc::syscall(libc::SYS_exit, i64::from(pid < 0));
        }
        0
    }
    let mut stack = vec![0_u128; 4096];
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack is ours and outlives the child, because CLONE_VFORK returns after its exit.
    let pid = unsafe {
        libc::clone(
            first,
            top.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK,
            std::ptr::from_ref(plan).cast_mut().cast(),
        )
    };
    if pid < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    unsafe {
        while libc::waitpid(pid, &raw mut status, libc::__WALL) < 0
            && *libc::__errno_location() == libc::EINTR
        {}
    }
    if status == 0 { Ok(()) } else { Err(Errno::EAGAIN) }
}

static BLOCK_ALL: u64 = u64::MAX;
/// SA_SIGINFO, SA_ONSTACK, SA_RESTART, SA_RESTORER.
const ACTION_FLAGS: u64 = 4 | 0x0800_0000 | 0x1000_0000 | 0x0400_0000;
/// Signals that guest code or the sentry cause.
const HANDLED: [i32; 7] =
    [libc::SIGSYS, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, INTERRUPT];

/// A call of which only the error matters; no library code that could take a lock runs.
///
/// # Safety
/// As the call itself.
unsafe fn call(number: i64, args: [u64; 6]) -> SysResult<u64> {
    let result: i64;
    // SAFETY: the caller's.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    match u64::try_from(result) {
        Ok(value) => Ok(value),
        Err(_) => Err(i32::try_from(-result).map_or(Errno::EIO, Errno::from_raw)),
    }
}

/// Builds the stub's address space and enters the helper; comes back only with an error.
///
/// # Safety
/// Runs in the fresh template process: nothing here may allocate or take a lock.
unsafe fn become_template(plan: &Plan) -> SysResult<()> {
    const READ: u64 = 1;
    const WRITE: u64 = 2;
    const EXEC: u64 = 4;
    const SHARED: u64 = 1;
    const PRIVATE_ANON: u64 = 0x22;
    const NOREPLACE: u64 = 0x10_0000;
    // SAFETY: this process is ours alone and has one thread; mappings go to the reserved range, which no
    // program of ours uses; the entry never returns.
    unsafe {
        call(libc::SYS_rt_sigprocmask, [0, (&raw const BLOCK_ALL).addr() as u64, 0, 8, 0, 0])?;
        // Descriptors: the text stands in for the memory file until that arrives.
        call(libc::SYS_dup3, [plan.text, 0, 0, 0, 0, 0])?;
        call(libc::SYS_dup3, [plan.shared, 1, 0, 0, 0, 0])?;
        call(libc::SYS_dup3, [plan.socket, 2, 0, 0, 0, 0])?;
        call(libc::SYS_close_range, [3, u64::from(u32::MAX), 0, 0, 0, 0])?;
        for (at, len, prot, flags, fd, offset) in [
            (layout::TEXT, layout::TEXT_SIZE, READ | EXEC, SHARED, 0, 0),
            (layout::DATA, layout::DATA_SIZE, READ, SHARED, 0, layout::TEXT_SIZE),
            (layout::CONTROL, layout::CONTROL_SIZE, READ, SHARED, 1, plan.control),
            (layout::SCRATCH, 0x1000, READ | WRITE, PRIVATE_ANON, u64::MAX, 0),
        ] {
            call(libc::SYS_mmap, [at, len, prot, flags | NOREPLACE, fd, offset])?;
        }
        for piece in plan.vdso.pieces {
            let len = piece.1.wrapping_sub(piece.0);
            let to = piece.0.wrapping_sub(plan.vdso.start).wrapping_add(plan.target);
            if len != 0 {
                call(libc::SYS_mremap, [piece.0, len, len, 3, to, 0])?;
            }
        }
        for signal in HANDLED {
            let action = [stub::handler(), ACTION_FLAGS, stub::restorer(), u64::MAX];
            let number = u64::from(signal.unsigned_abs());
            call(libc::SYS_rt_sigaction, [number, action.as_ptr().addr() as u64, 0, 8, 0, 0])?;
        }
        let name = c"stub";
        call(libc::SYS_prctl, [15, name.as_ptr().addr() as u64, 0, 0, 0, 0])?;
        call(libc::SYS_prctl, [4, 0, 0, 0, 0, 0])?; // PR_SET_DUMPABLE: no core files, no ptrace by others
        // The sentry still has what it needs to leave the host's root: a stub keeps no capability.
        let version: [u32; 2] = [0x2008_0522, 0];
        let none = [0_u32; 6];
        call(libc::SYS_capset, [version.as_ptr().addr() as u64, none.as_ptr().addr() as u64, 0, 0, 0, 0])?;
        call(libc::SYS_prctl, [38, 1, 0, 0, 0, 0])?; // PR_SET_NO_NEW_PRIVS
        call(libc::SYS_seccomp, [1, 0, filter::BASE_PROGRAM, 0, 0, 0])?;
        let end = plan.vdso.end.wrapping_sub(plan.vdso.start).wrapping_add(plan.target);
        core::arch::asm!(
            "mov rbx, r8",
            "mov rbp, r9",
            "jmp r10",
            in("r8") plan.target,
            in("r9") end,
            in("r10") stub::template_entry(),
            options(noreturn),
        );
    }
}
