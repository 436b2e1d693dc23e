//! One guest thread and the sentry's end of its notifications.
//!
//! Between two runs the stub thread is parked in a notification: either of a call that the guest made
//! (*call*: the vector state and most registers are in the hardware), or of the handler's switch (*frame*:
//! everything is in the signal frame). A call is turned into a frame by a signal: the reply lets the call
//! return, and the handler runs before the guest's next instruction. What the call returns, and where, comes
//! from the sentry's own record, never from that frame.

use super::frame::Frame;
use super::slots::Area;
use super::space::{Idle, Space};
use super::sys::{self, Notification, Reply};
use super::template::INTERRUPT;
use crate::registers::{Registers, ThreadState};
use crate::seam::{Access, AddressSpace, Context, Exit, Interrupter, SyscallArgs};
use crate::stub::{self, layout};
use abi::signal::Signal;
use abi::{Errno, SysResult};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// `si_code` of traps that the guest itself did not cause by an exception.
const SI_KERNEL: i32 = 0x80;
/// The processor's page fault.
const PAGE_FAULT: u64 = 14;
/// Unexpected switches that are tolerated while a frame is fetched: more means that the stub is not sane.
const PATIENCE: u32 = 16;

const RUNNING: u32 = 1;
const PENDING: u32 = 2;

/// See [`Context::interrupter`].
#[derive(Debug)]
struct Interrupts {
    state: AtomicU32,
    process: AtomicI32,
    thread: AtomicI32,
}

impl Interrupts {
    /// Enters the guest, unless somebody asked for an interrupt.
    fn enter(&self) -> bool {
        if self.state.fetch_or(RUNNING, Ordering::SeqCst) & PENDING != 0 {
            self.state.store(0, Ordering::SeqCst);
            return false;
        }
        true
    }
    /// Leaves the guest; whether somebody asked for an interrupt.
    fn leave(&self) -> bool {
        self.state.swap(0, Ordering::SeqCst) & PENDING != 0
    }
    fn signal(&self) {
        let (process, thread) = (self.process.load(Ordering::SeqCst), self.thread.load(Ordering::SeqCst));
        if thread > 0 {
            sys::signal_thread(process, thread, INTERRUPT);
        }
    }
}

impl Interrupter for Interrupts {
    fn interrupt(&self) {
        if self.state.fetch_or(PENDING, Ordering::SeqCst) == RUNNING {
            self.signal();
        }
    }
}

/// Where the stub thread is parked.
#[derive(Clone, Copy, Debug)]
enum Parked {
    /// In a call that the guest made.
    Call { id: u64 },
    /// In the handler's switch.
    Frame { id: u64, frame: Frame },
    /// Nowhere: it is gone.
    Dead,
}

/// One guest thread. See the module.
#[derive(Debug)]
pub(super) struct Thread {
    space: Arc<Space>,
    area: Arc<Area>,
    /// `None` only while dropping.
    listener: Option<OwnedFd>,
    parked: Parked,
    /// The call that is being serviced, and what it will return.
    call: Option<SyscallArgs>,
    answer: Option<u64>,
    /// Copies handed out by `registers` and `xstate`, written back at the next run.
    registers: Option<Registers>,
    xstate: Option<Vec<u8>>,
    /// Stand-ins while the thread is dead.
    void: (Registers, Vec<u8>),
    interrupts: Arc<Interrupts>,
}

/// A stub thread that nobody uses yet.
struct Fresh {
    area: Arc<Area>,
    listener: OwnedFd,
    notification: u64,
    thread: i32,
}

impl Fresh {
    /// A parked thread of the stub, or a new one.
    fn in_space(space: &Space) -> SysResult<Fresh> {
        if let Some(Idle { area, listener, notification, thread }) = space.take_idle() {
            return Ok(Fresh { area, listener, notification, thread });
        }
        let (area, listener) = space.start_thread()?;
        sys::prefer_sync_wakeup(listener.as_fd());
        let first = receive(listener.as_fd())?;
        Ok(Fresh { area, listener, notification: first.id, thread: first.pid.cast_signed() })
    }
}

/// The next notification; `Err` when the thread is gone.
fn receive(listener: BorrowedFd<'_>) -> SysResult<Notification> {
    loop {
        if !sys::receive_sees_death() && !sys::wait_listener(listener) {
            return Err(crate::DEAD);
        }
        match sys::receive(listener) {
            Err(Errno::EINTR) => {}
            // Withdrawn by a signal to the stub thread, or that thread has ended.
            Err(Errno::ENOENT) if !sys::is_dead(listener) => {}
            Err(_) => return Err(crate::DEAD),
            Ok(notification) => return Ok(notification),
        }
    }
}

impl Thread {
    /// A thread in `space`, parked in its first switch with zero registers.
    pub(super) fn start(space: Arc<Space>) -> SysResult<Thread> {
        let interrupts = Arc::new(Interrupts {
            state: AtomicU32::new(0),
            process: AtomicI32::new(0),
            thread: AtomicI32::new(0),
        });
        let fresh = Fresh::in_space(&space)?;
        let mut thread = Thread {
            space,
            area: fresh.area,
            listener: Some(fresh.listener),
            parked: Parked::Dead,
            call: None,
            answer: None,
            registers: None,
            xstate: None,
            void: Default::default(),
            interrupts,
        };
        thread.settle(fresh.notification, fresh.thread);
        Ok(thread)
    }

    /// Takes over a thread that is parked in a switch.
    fn settle(&mut self, notification: u64, thread: i32) {
        self.interrupts.process.store(self.space.pid(), Ordering::SeqCst);
        self.interrupts.thread.store(thread, Ordering::SeqCst);
        let frame = Frame::build(&self.area);
        frame.store(&self.area, &Registers { eflags: 0x202, ..Registers::default() });
        self.parked = Parked::Frame { id: notification, frame };
    }

    /// The next notification; `Err` when the thread is gone.
    fn receive(&self) -> SysResult<Notification> {
        receive(self.listener()?)
    }

    fn listener(&self) -> SysResult<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd).ok_or(crate::DEAD)
    }

    fn reply(&self, id: u64, value: u64) -> SysResult<()> {
        sys::reply(self.listener()?, id, Reply::Value(value))
    }

    fn died(&mut self) -> Exit {
        self.parked = Parked::Dead;
        self.interrupts.thread.store(0, Ordering::SeqCst);
        Exit::Died
    }

    /// The stub did what no stub of ours does: end it.
    fn insane(&mut self) -> Exit {
        self.space.kill();
        self.died()
    }

    /// Writes what the kernel changed into the frame (made on demand).
    fn flush(&mut self) {
        if self.registers.is_none() && self.xstate.is_none() {
            if let (Parked::Frame { frame, .. }, Some(value)) = (self.parked, self.answer) {
                frame.set_rax(&self.area, value);
            }
            return;
        }
        let Parked::Frame { id, mut frame } = self.parked else { return };
        let registers = match self.registers.take() {
            Some(registers) => registers,
            None => self.read_registers(frame),
        };
        if let Some(state) = self.xstate.take() {
            frame = Frame::build(&self.area);
            frame.store_xstate(&self.area, &state);
            self.parked = Parked::Frame { id, frame };
        }
        frame.store(&self.area, &registers);
    }

    /// Registers of a frame, with the sentry's own record of a call laid over them.
    fn read_registers(&self, frame: Frame) -> Registers {
        let mut registers = frame.load(&self.area);
        if let Some(call) = self.call {
            // A vsyscall returns to its caller: only the frame knows where that is.
            if call.ip < layout::TASK_END {
                registers.rip = call.ip;
                registers.rcx = call.ip;
                registers.r11 = registers.eflags;
            }
            registers.orig_rax = u64::from(call.number);
            registers.rax = self.answer.unwrap_or(u64::from(call.number));
        }
        registers
    }

    /// Makes sure that the thread is parked with a frame.
    fn fetch_frame(&mut self) -> Option<Frame> {
        let id = match self.parked {
            Parked::Frame { frame, .. } => return Some(frame),
            Parked::Dead => return None,
            Parked::Call { id } => id,
        };
        self.interrupts.signal();
        let mut reply = self.reply(id, self.answer.unwrap_or(0));
        for _ in 0..PATIENCE {
            if !matches!(reply, Ok(()) | Err(Errno::ENOENT)) {
                break;
            }
            let Ok(notification) = self.receive() else {
                self.died();
                return None;
            };
            match self.switched(&notification) {
                Some((frame, signal)) if signal == INTERRUPT => {
                    self.parked = Parked::Frame { id: notification.id, frame };
                    return Some(frame);
                }
                // Not ours to keep: let it go on until the signal is served.
                _ => reply = self.reply(notification.id, self.area.address()),
            }
        }
        self.insane();
        None
    }

    /// The frame and signal of a switch that came from the handler; `None` for anything else.
    fn switched(&self, notification: &Notification) -> Option<(Frame, i32)> {
        if notification.number != layout::SWITCH || notification.ip != stub::switched() {
            return None;
        }
        let signal = u32::try_from(notification.args[0]).ok()?.cast_signed();
        let frame = Frame::at(&self.area, notification.args[2])?;
        Some((frame, signal))
    }

    /// Lets the parked thread go on; `false` when it is gone.
    fn resume(&mut self) -> bool {
        let (id, value) = match self.parked {
            Parked::Dead => return false,
            Parked::Call { id } => {
                // Linux leaves the number in rax of a call that nobody answered.
                let number = self.call.map_or(0, |call| u64::from(call.number));
                (id, self.answer.unwrap_or(number))
            }
            Parked::Frame { id, frame } => {
                frame.arm(&self.area);
                (id, self.area.address())
            }
        };
        self.call = None;
        self.answer = None;
        // ENOENT: a fatal signal took the thread; the next receive sees it.
        matches!(self.reply(id, value), Ok(()) | Err(Errno::ENOENT))
    }

    /// Turns a notification into an exit; `None` when there is nothing to report.
    fn classify(&mut self, notification: &Notification, interrupted: bool) -> Option<Exit> {
        let Some((frame, signal)) = self.switched(notification) else {
            self.parked = Parked::Call { id: notification.id };
            self.call = Some(SyscallArgs {
                number: notification.number,
                args: notification.args,
                ip: notification.ip,
            });
            return Some(Exit::Syscall);
        };
        self.parked = Parked::Frame { id: notification.id, frame };
        match signal {
            INTERRUPT => interrupted.then_some(Exit::Interrupted),
            libc::SIGSYS => {
                let (number, args) = frame.call(&self.area);
                let number = u32::try_from(number & 0xffff_ffff).unwrap_or(0);
                self.call = Some(SyscallArgs { number, args, ip: frame.rip(&self.area) });
                Some(Exit::Syscall)
            }
            _ => Some(self.exception(frame, signal)),
        }
    }

    fn exception(&mut self, frame: Frame, signal: i32) -> Exit {
        let trap = frame.trap(&self.area);
        let memory = matches!(signal, libc::SIGSEGV | libc::SIGBUS);
        if memory && trap.number == PAGE_FAULT {
            let access = if trap.error & 0x10 != 0 {
                Access::Exec
            } else if trap.error & 2 != 0 {
                Access::Write
            } else {
                Access::Read
            };
            return Exit::Fault { addr: trap.cr2, access };
        }
        let Ok(number) = Signal::new(signal.unsigned_abs()) else { return self.insane() };
        let code = frame.code(&self.area);
        let addr = if code == SI_KERNEL { 0 } else { frame.fault_address(&self.area) };
        Exit::Exception { signal: number, code, addr }
    }

    /// Gives the stub thread back: parked for re-use, or ended.
    fn release(listener: OwnedFd, space: &Space, area: Arc<Area>, notification: u64, thread: i32) {
        let idle = Idle { area, listener, notification, thread };
        let Err(idle) = space.keep_idle(idle) else { return };
        // Zero makes the handler exit.
        if sys::reply(idle.listener.as_fd(), idle.notification, Reply::Value(0)).is_err() {
            return;
        }
        // A sane thread says nothing more; whoever does is not, and keeps its area until the process ends.
        if receive(idle.listener.as_fd()).is_err() {
            space.return_area(&idle.area);
        } else {
            space.kill();
        }
    }

    /// Parks the stub thread and forgets it; `None` when it is gone already.
    fn retire(&mut self) -> Option<(u64, i32)> {
        self.fetch_frame()?;
        let Parked::Frame { id, .. } = self.parked else { return None };
        self.parked = Parked::Dead;
        Some((id, self.interrupts.thread.swap(0, Ordering::SeqCst)))
    }
}

impl Context for Thread {
    fn run(&mut self) -> Exit {
        loop {
            if matches!(self.parked, Parked::Dead) {
                return Exit::Died;
            }
            // Before the flush: what an interrupted run returns with is still the sentry's to change.
            if !self.interrupts.enter() {
                return Exit::Interrupted;
            }
            self.flush();
            let notification = if self.resume() { self.receive() } else { Err(crate::DEAD) };
            let interrupted = self.interrupts.leave();
            let Ok(notification) = notification else { return self.died() };
            if let Some(exit) = self.classify(&notification, interrupted) {
                return exit;
            }
        }
    }

    fn syscall(&self) -> SyscallArgs {
        self.call.unwrap_or_default()
    }

    fn set_return(&mut self, value: u64) {
        self.answer = Some(value);
        if let Some(registers) = &mut self.registers {
            registers.rax = value;
        }
    }

    fn registers(&mut self) -> &mut Registers {
        if self.registers.is_none() {
            match self.fetch_frame() {
                Some(frame) => self.registers = Some(self.read_registers(frame)),
                None => self.void.0 = Registers::default(),
            }
        }
        self.registers.as_mut().unwrap_or(&mut self.void.0)
    }

    fn xstate(&mut self) -> &mut Vec<u8> {
        if self.xstate.is_none() {
            match self.fetch_frame() {
                Some(frame) => {
                    let mut state = Vec::new();
                    frame.load_xstate(&self.area, &mut state);
                    self.xstate = Some(state);
                }
                None => self.void.1.clear(),
            }
        }
        self.xstate.as_mut().unwrap_or(&mut self.void.1)
    }

    fn interrupter(&self) -> Arc<dyn Interrupter> {
        let interrupts: Arc<Interrupts> = Arc::clone(&self.interrupts);
        interrupts
    }

    fn load(&mut self, state: &ThreadState) {
        if self.fetch_frame().is_some() {
            self.registers = Some(state.registers);
            self.xstate = Some(state.xstate.clone());
        }
    }

    fn switch(&mut self, space: &Arc<dyn AddressSpace>) -> SysResult<()> {
        let space = space.host_pid().and_then(|pid| self.space.sibling(pid)).ok_or(Errno::EINVAL)?;
        let fresh = Fresh::in_space(&space)?;
        let old = self.retire();
        let area = std::mem::replace(&mut self.area, fresh.area);
        let listener = self.listener.replace(fresh.listener);
        let left = std::mem::replace(&mut self.space, space);
        if let (Some((notification, thread)), Some(listener)) = (old, listener) {
            Thread::release(listener, &left, area, notification, thread);
        }
        self.call = None;
        self.answer = None;
        self.registers = None;
        self.xstate = None;
        self.settle(fresh.notification, fresh.thread);
        Ok(())
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let Some((notification, thread)) = self.retire() else { return };
        if let Some(listener) = self.listener.take() {
            Thread::release(listener, &self.space, Arc::clone(&self.area), notification, thread);
        }
    }
}
