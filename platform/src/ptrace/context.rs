//! Guest threads.

use super::raw::{Gone, OPTIONS, Resume, Running, SignalInfo, Stop, Stopped, signal_thread};
use super::space::Space;
use super::tracee::{Role, Tracee};
use super::{access, owned};
use crate::registers::{self, Registers, ThreadState, USER_CS, USER_SS};
use crate::seam::{Access, AddressSpace, Context, Exit, Interrupter, SyscallArgs};
use abi::signal::Signal;
use abi::{Errno, SysResult};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Sent to a stub thread to get it out of guest code. Never delivered.
const INTERRUPT: libc::c_int = libc::SIGURG;
/// `si_code` of faults that have no better one (siginfo.h).
const SI_KERNEL: i32 = 0x80;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// One guest thread. Its stub thread is made, and traced, by the host thread that first calls `run`.
#[derive(Debug)]
pub(super) struct Guest {
    id: u64,
    space: Arc<Space>,
    registers: Registers,
    xstate: Vec<u8>,
    xstate_state: Cached,
    call: SyscallArgs,
    bell: Arc<Bell>,
    dead: bool,
    /// Instruction and address of the last fault whose kind was a guess.
    guessed: Option<(u64, u64)>,
}

/// Where the truth about a copy of registers is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cached {
    /// In the stub; the copy is stale.
    Stale,
    /// In the copy, to be loaded at the next run.
    Dirty,
}

/// The interrupter of one guest thread.
#[derive(Debug, Default)]
struct Bell {
    pending: AtomicBool,
    /// Pid and tid of the stub thread while it may be in guest code, else zero.
    target: AtomicU64,
}

impl Interrupter for Bell {
    fn interrupt(&self) {
        self.pending.store(true, Ordering::SeqCst);
        let target = self.target.load(Ordering::SeqCst);
        if target != 0 {
            let half = |value: u64| i32::try_from(value & 0x7fff_ffff).unwrap_or(0);
            signal_thread(half(target >> 32), half(target), INTERRUPT);
        }
    }
}

impl Guest {
    pub(super) fn new(space: Arc<Space>, state: &ThreadState) -> Guest {
        let mut guest = Guest {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            space,
            registers: Registers::default(),
            xstate: Vec::new(),
            xstate_state: Cached::Dirty,
            call: SyscallArgs::default(),
            bell: Arc::default(),
            dead: false,
            guessed: None,
        };
        guest.load(state);
        guest
    }

    fn enter(&mut self) -> Result<Exit, Gone> {
        let mut stopped = match owned::with_context(self.id, Tracee::take) {
            Some(taken) => taken?,
            None => self.adopt()?,
        };
        self.store_state(&stopped);
        loop {
            let target =
                u64::from(self.space.pid().cast_unsigned()) << 32 | u64::from(stopped.tid().cast_unsigned());
            self.bell.target.store(target, Ordering::SeqCst);
            if self.bell.pending.swap(false, Ordering::SeqCst) {
                self.bell.target.store(0, Ordering::SeqCst);
                return Ok(self.leave(stopped, Exit::Interrupted));
            }
            let outcome = stopped.resume(Resume::Emulate).wait();
            self.bell.target.store(0, Ordering::SeqCst);
            let (next, stop) = outcome?;
            stopped = next;
            self.xstate_state = Cached::Stale;
            let exit = match stop {
                Stop::Syscall => self.on_syscall(&stopped),
                Stop::Signal(info) if info.signal == INTERRUPT => {
                    self.registers = stopped.registers().map_err(|_| Gone)?;
                    // A bell that was already answered rings late: nobody waits for it.
                    self.bell.pending.swap(false, Ordering::SeqCst).then_some(Exit::Interrupted)
                }
                Stop::Signal(info) => self.on_signal(&stopped, info),
                Stop::Fork | Stop::Event => None,
            };
            if let Some(exit) = exit {
                return Ok(self.leave(stopped, exit));
            }
        }
    }

    fn leave(&self, stopped: Stopped, exit: Exit) -> Exit {
        owned::with_context(self.id, |tracee| tracee.put(stopped));
        exit
    }

    /// Makes the stub thread and takes it under this host thread's trace.
    fn adopt(&mut self) -> Result<Stopped, Gone> {
        let pid = self.space.pid();
        let tid = self.space.keeper().call(move |keeper| keeper.clone_thread(pid)).map_err(|_| Gone)?;
        let mut running = Running::seize(tid).map_err(|_| Gone)?;
        let stopped = loop {
            match running.wait()? {
                (stopped, Stop::Event) => break stopped,
                (stopped, _) => running = stopped.resume(Resume::Freely),
            }
        };
        let mut tracee = Tracee::new(stopped, Role::Guest);
        let stopped = tracee.take()?;
        owned::insert(self.id, pid, tracee);
        stopped.set_options(OPTIONS).map_err(|_| Gone)?;
        Ok(stopped)
    }

    fn store_state(&mut self, stopped: &Stopped) {
        if self.xstate_state == Cached::Dirty {
            registers::sanitize_xstate(&mut self.xstate);
            if stopped.set_xstate(&mut self.xstate).is_err() {
                // Not a state that the hardware takes: the guest gets a fresh one.
                let _ = stopped.set_xstate(&mut registers::initial_xstate());
            }
        }
        self.registers.cs = USER_CS;
        self.registers.ss = USER_SS;
        // No restart logic of the host may touch a value that happens to look like one.
        let loaded = Registers { orig_rax: u64::MAX, ..self.registers };
        if stopped.set_registers(&loaded).is_err() {
            // A base or selector that no guest can have; the kernel refuses them before.
            let plain = Registers { fs_base: 0, gs_base: 0, ds: 0, es: 0, fs: 0, gs: 0, ..loaded };
            let _ = stopped.set_registers(&plain);
        }
    }

    fn on_syscall(&mut self, stopped: &Stopped) -> Option<Exit> {
        let registers = stopped.registers().ok()?;
        self.registers = registers;
        self.registers.rax = registers.orig_rax;
        // The 64-bit entry leaves the return address in rcx; int 0x80 and sysenter do not. Those are what
        // they are on a kernel without 32-bit support: general protection faults.
        if registers.rcx != registers.rip || registers.cs != USER_CS {
            self.registers.rip = registers.rip.wrapping_sub(2);
            return Some(Exit::Exception { signal: Signal::SIGSEGV, code: SI_KERNEL, addr: 0 });
        }
        self.call = SyscallArgs {
            number: u32::try_from(registers.orig_rax & 0xffff_ffff).unwrap_or(u32::MAX),
            args: [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9],
            ip: registers.rip,
        };
        Some(Exit::Syscall)
    }

    fn on_signal(&mut self, stopped: &Stopped, info: SignalInfo) -> Option<Exit> {
        // Signals from processes of the host mean nothing to a guest.
        if info.code <= 0 {
            return None;
        }
        self.registers = stopped.registers().ok()?;
        let signal = Signal::new(info.signal.cast_unsigned()).ok()?;
        match (info.signal, info.code) {
            (libc::SIGSEGV, 1..=4) | (libc::SIGBUS, 2) => {
                let access = self.access(stopped, info.addr);
                Some(Exit::Fault { addr: info.addr, access })
            }
            // The stub's own filter, reached through the vsyscall page.
            (libc::SIGSYS, _) => {
                let addr = self.registers.rip;
                Some(Exit::Exception { signal: Signal::SIGSEGV, code: 1, addr })
            }
            (libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP, code) => {
                let addr = if code == SI_KERNEL { 0 } else { info.addr };
                Some(Exit::Exception { signal, code, addr })
            }
            _ => None,
        }
    }

    fn access(&mut self, stopped: &Stopped, addr: u64) -> Access {
        let known = access::kind(stopped, &self.registers, addr);
        let place = (self.registers.rip, addr);
        match known {
            Some(access) => {
                self.guessed = None;
                access
            }
            // A guess that did not help is followed by the other one.
            None if self.guessed == Some(place) => Access::Write,
            None => {
                self.guessed = Some(place);
                Access::Read
            }
        }
    }

    fn end_thread(&mut self) {
        if let Some(tracee) = owned::remove(self.id) {
            tracee.exit();
        }
    }

    fn die(&mut self) {
        self.dead = true;
        let _ = owned::remove(self.id);
        self.registers = Registers::default();
        self.xstate = registers::initial_xstate();
        self.xstate_state = Cached::Dirty;
    }
}

impl Context for Guest {
    fn run(&mut self) -> Exit {
        if self.dead {
            return Exit::Died;
        }
        match self.enter() {
            Ok(exit) => exit,
            Err(Gone) => {
                self.die();
                Exit::Died
            }
        }
    }

    fn syscall(&self) -> SyscallArgs {
        self.call
    }

    fn set_return(&mut self, value: u64) {
        self.registers.rax = value;
    }

    fn registers(&mut self) -> &mut Registers {
        &mut self.registers
    }

    fn xstate(&mut self) -> &mut Vec<u8> {
        if self.xstate_state == Cached::Stale {
            let fetched = owned::with_context(self.id, |tracee| tracee.stopped()?.xstate().ok()).flatten();
            self.xstate = fetched.unwrap_or_else(registers::initial_xstate);
            registers::clear_software_bytes(&mut self.xstate);
            self.xstate_state = Cached::Dirty;
        }
        &mut self.xstate
    }

    fn interrupter(&self) -> Arc<dyn Interrupter> {
        Arc::clone(&self.bell) as Arc<dyn Interrupter>
    }

    fn load(&mut self, state: &ThreadState) {
        self.registers = state.registers;
        self.xstate =
            if state.xstate.is_empty() { registers::initial_xstate() } else { state.xstate.clone() };
        self.xstate_state = Cached::Dirty;
        self.guessed = None;
    }

    fn switch(&mut self, space: &Arc<dyn AddressSpace>) -> SysResult<()> {
        let any: Arc<dyn Any + Send + Sync> = Arc::<dyn AddressSpace>::clone(space);
        let space = any.downcast::<Space>().map_err(|_| Errno::EINVAL)?;
        self.end_thread();
        self.space = space;
        self.dead = false;
        self.load(&ThreadState::default());
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end_thread();
    }
}
