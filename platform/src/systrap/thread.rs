//! One guest thread and the sentry's end of its notifications.
//!
//! Between two runs the stub thread is parked: in a notification of a call that the guest made (*call*), at a
//! patched site that has posted one (*site*), or in the handler's switch (*frame*: everything is in the
//! signal frame). A call or a site is turned into a frame by a signal: the reply lets the call return, and the
//! handler runs before the guest's next instruction. What the call returns, and where, comes from the sentry's
//! own record, never from that frame.

use super::frame::Frame;
use super::interrupt::Interrupts;
use super::site::{self, Landing, Place};
use super::slots::Area;
use super::space::{Idle, Space};
use super::spin::{Policy, Wait};
use super::sys::{self, Notification};
use super::template::INTERRUPT;
use crate::registers::{Registers, ThreadState};
use crate::seam::{Access, AddressSpace, Context, Exit, Interrupter, LocalAnswers, SyscallArgs};
use crate::stub::{self, layout};
use abi::signal::Signal;
use abi::{Errno, SysResult};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// `si_code` of traps that the guest itself did not cause by an exception.
const SI_KERNEL: i32 = 0x80;
/// The processor's page fault.
const PAGE_FAULT: u64 = 14;
/// Unexpected switches that are tolerated while a frame is fetched: more means that the stub is not sane.
const PATIENCE: u32 = 16;
/// Notified calls from one place after which it is worth a patch.
const HITS: u16 = 50;

/// Where the stub thread is parked.
#[derive(Clone, Copy, Debug)]
enum Parked {
    /// In a call that the guest made.
    Call { id: u64 },
    /// At a patched site that has posted a call; asleep in this notification, or looking for the answer.
    Site { id: Option<u64> },
    /// In the handler's switch.
    Frame { id: u64, frame: Frame },
    /// Nowhere: it is gone.
    Dead,
}

/// What came out of the guest.
enum Arrival {
    Notified(Notification),
    /// A patched site has posted a call while we looked.
    Posted,
}

/// Counts notified calls by place: a small cache, collisions only cost time.
#[derive(Debug)]
struct Hits([(u64, u16); 64]);

impl Hits {
    /// Whether the place has just become worth a patch.
    fn count(&mut self, ip: u64) -> bool {
        let slot = usize::try_from(ip / 2 % 61).unwrap_or(0);
        let Some((place, hits)) = self.0.get_mut(slot) else { return false };
        if *place != ip {
            (*place, *hits) = (ip, 0);
        }
        *hits = hits.saturating_add(1);
        *hits == HITS
    }
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
    hits: Box<Hits>,
    policy: Policy,
    local: Option<LocalAnswers>,
}

/// A parked thread of the stub, or a new one.
fn fresh_thread(space: &Space) -> SysResult<Idle> {
    space.settle()?;
    if let Some(idle) = space.take_idle() {
        return Ok(idle);
    }
    space.start_thread()
}

impl Thread {
    /// A thread in `space`, parked in its first switch with zero registers.
    pub(super) fn start(space: Arc<Space>) -> SysResult<Thread> {
        let Idle { area, listener, notification, thread } = fresh_thread(&space)?;
        let interrupts = Arc::new(Interrupts::new(space.watch()));
        let mut this = Thread {
            space,
            area,
            listener: Some(listener),
            parked: Parked::Dead,
            call: None,
            answer: None,
            registers: None,
            xstate: None,
            void: Default::default(),
            interrupts,
            hits: Box::new(Hits([(0, 0); 64])),
            policy: Policy::new(),
            local: None,
        };
        this.settle(notification, thread);
        Ok(this)
    }

    /// Takes over a thread that is parked in a switch.
    fn settle(&mut self, notification: u64, thread: i32) {
        self.interrupts.aim(&self.space, thread);
        let frame = Frame::build(&self.area);
        frame.store(&self.area, &Registers { eflags: 0x202, ..Registers::default() });
        self.state().store(layout::RUN_ASLEEP, Ordering::SeqCst);
        self.parked = Parked::Frame { id: notification, frame };
        self.publish_local();
    }

    /// Puts the answers that need no sentry where the sites look for them.
    fn publish_local(&self) {
        let words = match self.local {
            None => [0; 7],
            Some(LocalAnswers { tgid, tid, ids: [uid, euid, gid, egid] }) => {
                [1, tgid, tid, uid, euid, gid, egid].map(u64::from)
            }
        };
        self.area.file().store_words(self.area.offset() + layout::AREA_LOCAL, &words);
    }

    fn receive(&self) -> SysResult<Notification> {
        sys::next(self.listener()?)
    }

    fn listener(&self) -> SysResult<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd).ok_or(crate::DEAD)
    }

    fn reply(&self, id: u64, value: u64) -> SysResult<()> {
        sys::reply(self.listener()?, id, value)
    }

    /// The word that the trampoline shares with us.
    fn state(&self) -> &AtomicU32 {
        self.area.file().word(self.area.offset() + layout::AREA_STATE)
    }

    fn died(&mut self) -> Exit {
        self.parked = Parked::Dead;
        self.interrupts.forget();
        Exit::Died
    }

    /// The stub did what no stub of ours does: end it.
    fn insane(&mut self) -> Exit {
        self.space.kill();
        self.died()
    }

    /// Writes what the kernel changed into the frame.
    fn flush(&mut self) {
        let Parked::Frame { id, mut frame } = self.parked else { return };
        if self.registers.is_none() && self.xstate.is_none() {
            if let Some(value) = self.answer {
                frame.set_rax(&self.area, value);
            }
            return;
        }
        let mut registers = match self.registers.take() {
            Some(registers) => registers,
            None => self.read_registers(frame),
        };
        registers.rip = self.space.actual(registers.rip);
        if let Some(state) = self.xstate.take() {
            frame = Frame::build(&self.area);
            frame.store_xstate(&self.area, &state);
            self.parked = Parked::Frame { id, frame };
        }
        frame.store(&self.area, &registers);
        // A call that was posted and not seen has been taken back by `read_registers`.
        self.state().store(layout::RUN_ASLEEP, Ordering::SeqCst);
    }

    /// Registers of a frame as the guest's own text would have them, with the sentry's own record of a call
    /// laid over them.
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
            return registers;
        }
        if !site::is_site_code(registers.rip) {
            return registers;
        }
        let [word, .., record, _] = self.posted_words();
        match self.space.place(registers.rip, registers.r11, record) {
            Some(Place::Before(start)) => registers.rip = start,
            Some(Place::Plain(ip)) => registers.rip = ip,
            Some(Place::Posted { start, behind }) => {
                // The word is the call's number until we answer it, then its result.
                registers.rax = word;
                let seen = self.state().load(Ordering::SeqCst) != layout::CALL;
                registers.rip = if seen { behind } else { start };
            }
            None => {}
        }
        registers
    }

    /// What a trampoline left: number or result, six arguments, record, CPU.
    fn posted_words(&self) -> [u64; layout::AREA_CALL_WORDS] {
        let mut words = [0; layout::AREA_CALL_WORDS];
        self.area.file().load_words(self.area.offset() + layout::AREA_CALL, &mut words);
        words
    }

    /// Makes sure that the thread is parked with a frame.
    fn fetch_frame(&mut self) -> Option<Frame> {
        let id = match self.parked {
            Parked::Frame { frame, .. } => return Some(frame),
            Parked::Dead => return None,
            Parked::Call { id } => Some((id, self.answer.unwrap_or(0))),
            Parked::Site { id } => id.map(|id| (id, self.area.address())),
        };
        self.interrupts.signal();
        let mut sent = match id {
            Some((id, value)) => self.reply(id, value),
            None => Ok(()),
        };
        for _ in 0..PATIENCE {
            if !matches!(sent, Ok(()) | Err(Errno::ENOENT)) {
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
                _ => sent = self.reply(notification.id, self.area.address()),
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
    fn resume(&mut self, wait: &Wait) -> bool {
        let state = if matches!(wait, Wait::Asleep) { layout::RUN_ASLEEP } else { layout::RUN };
        let (id, value) = match self.parked {
            Parked::Dead => return false,
            Parked::Call { id } => {
                self.state().store(state, Ordering::SeqCst);
                // Linux leaves the number in rax of a call that nobody answered.
                let number = self.call.map_or(0, |call| u64::from(call.number));
                (Some(id), self.answer.unwrap_or(number))
            }
            Parked::Site { id } => {
                let number = self.call.map_or(0, |call| u64::from(call.number));
                let at = self.area.offset() + layout::AREA_CALL;
                self.area.file().store(at, self.answer.unwrap_or(number));
                self.state().store(state, Ordering::SeqCst);
                (id, self.area.address())
            }
            Parked::Frame { id, frame } => {
                // An unseen call stays posted: its trampoline goes on where it was.
                frame.arm(&self.area);
                (Some(id), self.area.address())
            }
        };
        self.call = None;
        self.answer = None;
        let Some(id) = id else { return true };
        // ENOENT: a fatal signal took the thread; the next receive sees it.
        matches!(self.reply(id, value), Ok(()) | Err(Errno::ENOENT))
    }

    /// Resumes and waits for what comes next.
    fn exchange(&mut self) -> SysResult<Arrival> {
        let was_hot = self.policy.is_hot();
        let wait = match self.parked {
            Parked::Site { .. } => self.policy.choose(self.space.lookers()),
            _ => Wait::Asleep,
        };
        if self.policy.is_hot() && !was_hot {
            sys::wake_synchronously(self.listener()?, false);
        }
        if !self.resume(&wait) {
            return Err(crate::DEAD);
        }
        if let Wait::Looking(window, _seat) = wait
            && self.look(window)
        {
            return Ok(Arrival::Posted);
        }
        self.calm();
        loop {
            let notification = self.receive()?;
            let late = notification.number == layout::SWITCH
                && notification.ip == stub::parked()
                && self.state().load(Ordering::SeqCst) != layout::CALL;
            if !late {
                return Ok(Arrival::Notified(notification));
            }
            // The trampoline went to sleep just as the answer was given.
            self.reply(notification.id, self.area.address())?;
        }
    }

    /// Looks at the state word; `true` when a call was posted.
    fn look(&self, window: Duration) -> bool {
        let (state, start) = (self.state(), Instant::now());
        loop {
            for _ in 0..64 {
                if state.load(Ordering::Acquire) == layout::CALL {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > window {
                let asleep = (layout::RUN, layout::RUN_ASLEEP);
                return match state.compare_exchange(asleep.0, asleep.1, Ordering::SeqCst, Ordering::SeqCst) {
                    Ok(_) => false,
                    Err(found) => found == layout::CALL,
                };
            }
        }
    }

    /// A call posted by a patched site.
    fn posted(&mut self, id: Option<u64>) -> Exit {
        let [number, rdi, rsi, rdx, r10, r8, r9, record, cpu] = self.posted_words();
        self.policy.arrived(cpu);
        self.parked = Parked::Site { id };
        self.call = Some(SyscallArgs {
            number: u32::try_from(number & 0xffff_ffff).unwrap_or(0),
            args: [rdi, rsi, rdx, r10, r8, r9],
            ip: self.space.behind(record),
        });
        Exit::Syscall
    }

    /// Turns a notification into an exit; `None` when there is nothing to report.
    fn classify(&mut self, notification: &Notification, interrupted: bool) -> Option<Exit> {
        let Some((frame, signal)) = self.switched(notification) else {
            if notification.number == layout::SWITCH && notification.ip == stub::parked() {
                return Some(self.posted(Some(notification.id)));
            }
            self.parked = Parked::Call { id: notification.id };
            self.call = Some(SyscallArgs {
                number: notification.number,
                args: notification.args,
                ip: self.visible(notification.ip),
            });
            return Some(Exit::Syscall);
        };
        self.parked = Parked::Frame { id: notification.id, frame };
        match signal {
            INTERRUPT => interrupted.then_some(Exit::Interrupted),
            libc::SIGSYS => {
                let (number, args) = frame.call(&self.area);
                let number = u32::try_from(number & 0xffff_ffff).unwrap_or(0);
                let ip = self.visible(frame.rip(&self.area));
                self.call = Some(SyscallArgs { number, args, ip });
                Some(Exit::Syscall)
            }
            libc::SIGILL => match self.space.landing(frame.rip(&self.area)) {
                Some(Landing::At(ip)) => {
                    frame.set_rip(&self.area, ip);
                    None
                }
                Some(Landing::Again) => None,
                None => Some(self.exception(frame, signal)),
            },
            // A debugger steps through a call site: for it, the site is the one instruction that was there.
            libc::SIGTRAP if site::is_site_code(frame.rip(&self.area)) => None,
            _ => Some(self.exception(frame, signal)),
        }
    }

    /// The address in the guest's text that one behind a call in a site's plain copy stands for.
    fn visible(&self, ip: u64) -> u64 {
        if !site::is_site_code(ip) {
            return ip;
        }
        match self.space.place(ip, 0, 0) {
            Some(Place::Plain(visible)) => visible,
            _ => ip,
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

    /// Patches the place of the call that is under way, when it has been here often enough.
    fn consider_patch(&mut self) {
        let (Parked::Call { .. }, Some(call)) = (self.parked, self.call) else { return };
        if self.space.lookers().is_useful() && !site::is_site_code(call.ip) && self.hits.count(call.ip) {
            // A place that cannot be patched is left as it is.
            let _ = self.space.patch(call.ip, call.number);
        }
    }

    /// Gives a stub thread back: parked for re-use, or ended.
    fn release(idle: Idle, space: &Space) {
        let Err(idle) = space.keep_idle(idle) else { return };
        // Zero makes the handler exit.
        if sys::reply(idle.listener.as_fd(), idle.notification, 0).is_err() {
            return;
        }
        // A sane thread says nothing more; whoever does is not, and keeps its area until the process ends.
        if sys::next(idle.listener.as_fd()).is_err() {
            space.return_area(&idle.area);
        } else {
            space.kill();
        }
    }

    /// Back to sleeping between calls; the host thread and the listener may serve others next.
    fn calm(&mut self) {
        if self.policy.is_hot() {
            self.policy.cool(self.space.lookers());
            if let Ok(listener) = self.listener() {
                sys::wake_synchronously(listener, true);
            }
        }
    }

    /// Parks the stub thread and forgets it; `None` when it is gone already.
    fn retire(&mut self) -> Option<(u64, i32)> {
        self.calm();
        self.fetch_frame()?;
        let Parked::Frame { id, .. } = self.parked else { return None };
        self.parked = Parked::Dead;
        Some((id, self.interrupts.forget()))
    }
}

impl Context for Thread {
    fn run(&mut self) -> Exit {
        self.consider_patch();
        loop {
            if matches!(self.parked, Parked::Dead) {
                return Exit::Died;
            }
            // Before the flush: what an interrupted run returns with is still the sentry's to change.
            if !self.interrupts.enter() {
                return Exit::Interrupted;
            }
            self.flush();
            let arrival = self.exchange();
            let interrupted = self.interrupts.leave();
            match arrival {
                Err(_) => return self.died(),
                Ok(Arrival::Posted) => return self.posted(None),
                Ok(Arrival::Notified(notification)) => {
                    match self.classify(&notification, interrupted) {
                        Some(exit) => return exit,
                        // Parked with a frame for a reason of ours: as good a moment as any.
                        None if interrupted => return Exit::Interrupted,
                        None => {}
                    }
                }
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

    fn local_answers(&mut self, answers: Option<LocalAnswers>) {
        self.local = answers;
        self.publish_local();
    }

    fn switch(&mut self, space: &Arc<dyn AddressSpace>) -> SysResult<()> {
        let space = space.host_pid().and_then(|pid| self.space.sibling(pid)).ok_or(Errno::EINVAL)?;
        let fresh = fresh_thread(&space)?;
        let old = self.retire();
        let area = std::mem::replace(&mut self.area, fresh.area);
        let listener = self.listener.replace(fresh.listener);
        let left = std::mem::replace(&mut self.space, space);
        if let (Some((notification, thread)), Some(listener)) = (old, listener) {
            Thread::release(Idle { area, listener, notification, thread }, &left);
        }
        self.call = None;
        self.answer = None;
        self.registers = None;
        self.xstate = None;
        self.policy = Policy::new();
        self.settle(fresh.notification, fresh.thread);
        Ok(())
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        let Some((notification, thread)) = self.retire() else { return };
        if let Some(listener) = self.listener.take() {
            let area = Arc::clone(&self.area);
            Thread::release(Idle { area, listener, notification, thread }, &self.space);
        }
    }
}
