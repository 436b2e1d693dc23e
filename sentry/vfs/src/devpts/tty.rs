//! One terminal: line discipline, queues, job control. Lock: `Tty`; the calling task is asked and signals
//! are sent without it.

use super::ldisc::{Effects, Flow, LineDiscipline};
use super::terminals::Terminals;
use super::termios::{Termios, cc, lflag};
use crate::caller::Caller;
use crate::event::host::HostWatch;
use crate::event::timer;
use abi::poll::Events;
use abi::signal::Signal;
use abi::{Errno, SysResult};
use lock::order::Tty as TtyRank;
use lock::{Deadline, Ranked, WaitQueue};
use mm::{GuestSink, GuestSource};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Status bits of packet mode (TIOCPKT).
pub(super) mod packet {
    /// Input was flushed.
    pub(crate) const FLUSHREAD: u8 = 1;
    /// Output was flushed.
    pub(crate) const FLUSHWRITE: u8 = 2;
    /// Output is held.
    pub(crate) const STOP: u8 = 4;
    /// Output goes on.
    pub(crate) const START: u8 = 8;
    /// ^S and ^Q no longer mean anything.
    pub(crate) const NOSTOP: u8 = 16;
    /// ^S and ^Q mean stop and start.
    pub(crate) const DOSTOP: u8 = 32;
}

/// `struct winsize`: rows, columns, pixels.
pub type WinSize = [u16; 4];

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) ldisc: LineDiscipline,
    pub(super) winsize: WinSize,
    pub(super) session: Option<u32>,
    pub(super) foreground: Option<u32>,
    pub(super) slaves: u32,
    pub(super) slave_seen: bool,
    pub(super) master_open: bool,
    // Counts hang-ups; files opened before one are dead.
    pub(super) generation: u64,
    pub(super) locked: bool,
    pub(super) exclusive: bool,
    pub(super) packet: bool,
    pub(super) packet_status: u8,
}

/// A terminal.
#[derive(Debug)]
pub struct Tty {
    me: Weak<Tty>,
    index: u32,
    pub(super) inner: Ranked<TtyRank, Inner>,
    pub(super) slave_queue: WaitQueue,
    pub(super) master_queue: WaitQueue,
    pub(super) terminals: Arc<Terminals>,
    // The other side is a host terminal instead of a master.
    host: Option<HostWatch>,
}

/// What job control says to an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum JobControl {
    /// Go on.
    Pass,
    /// Fail with EIO.
    Fail,
    /// The group was signalled: wait or restart.
    Stopped,
}

impl Tty {
    /// Terminal number `index`; `host` in place of a master.
    #[must_use]
    pub fn new(terminals: &Arc<Terminals>, index: u32, host: Option<Arc<OwnedFd>>) -> Arc<Tty> {
        let mut termios = Termios::default();
        let mut winsize = [0; 4];
        if let Some(fd) = &host {
            // People type UTF-8 on host terminals.
            termios.iflag |= super::termios::iflag::IUTF8;
            termios.cflag = 0o277 | 0o60;
            if let Ok(size) = rustix::termios::tcgetwinsize(&**fd) {
                winsize = [size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel];
            }
        }
        let inner = Inner {
            ldisc: LineDiscipline::new(termios),
            winsize,
            session: None,
            foreground: None,
            slaves: 0,
            slave_seen: false,
            master_open: true,
            generation: 0,
            locked: host.is_none(),
            exclusive: false,
            packet: false,
            packet_status: 0,
        };
        let tty = Arc::new_cyclic(|me: &Weak<Tty>| Tty {
            me: Weak::clone(me),
            index,
            inner: Ranked::new(inner),
            slave_queue: WaitQueue::new(),
            master_queue: WaitQueue::new(),
            terminals: Arc::clone(terminals),
            host: host.map(|fd| {
                let target: Weak<dyn crate::event::host::HostReady> = me.clone();
                HostWatch::new(fd, target)
            }),
        });
        if let Some(host) = &tty.host {
            host.want(Events::IN);
        }
        tty
    }
    /// Its number under /dev/pts.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }
    /// Device number of the slave.
    #[must_use]
    pub fn rdev(&self) -> u64 {
        abi::fs::make_dev(136, self.index)
    }
    /// Session and foreground group (for /proc/pid/stat).
    #[must_use]
    pub fn owners(&self) -> (Option<u32>, Option<u32>) {
        let inner = self.inner.lock();
        (inner.session, inner.foreground)
    }
    pub(super) fn strong(&self) -> Option<Arc<Tty>> {
        self.me.upgrade()
    }
    /// Whether the other side is there: then the terminal has a name.
    pub(super) fn is_linked(&self) -> bool {
        self.inner.lock().master_open
    }
    /// Whether a host terminal is on the other side.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.host.is_some()
    }

    /// Follows up on what the line discipline did.
    fn act(&self, effects: &Effects, by: Option<&Caller<'_>>) {
        let foreground = if effects.signals.is_empty() { None } else { self.inner.lock().foreground };
        if let Some(pgid) = foreground {
            for signal in &effects.signals {
                self.terminals.signal_pgrp(pgid, *signal, by);
            }
        }
        if effects.readable {
            self.slave_queue.wake(Events::READABLE);
        }
        if effects.flow == Some(Flow::Start) || effects.flushed {
            self.slave_queue.wake(Events::WRITABLE);
        }
        self.push_output();
    }

    /// Output has changed: tells the master, or writes to the host.
    pub(super) fn push_output(&self) {
        let Some(host) = &self.host else {
            let inner = self.inner.lock();
            let (data, status) = (!inner.ldisc.output.is_empty(), inner.packet && inner.packet_status != 0);
            drop(inner);
            if data || status {
                self.master_queue.wake(Events::READABLE | if status { Events::PRI } else { Events::empty() });
            }
            return;
        };
        let mut freed = false;
        loop {
            // The lock is held over the write, or two writers would mix their bytes up.
            let mut inner = self.inner.lock();
            let (chunk, _) = inner.ldisc.output.as_slices();
            if chunk.is_empty() {
                break;
            }
            match host.write_some(chunk) {
                Ok(0) | Err(Errno::EAGAIN) => {
                    drop(inner);
                    host.want(Events::OUT);
                    break;
                }
                Ok(n) => {
                    inner.ldisc.output.drain(..n);
                    freed = true;
                }
                Err(_) => {
                    // The host's side is gone; what is written has nowhere to go.
                    inner.ldisc.output.clear();
                    drop(inner);
                    self.slave_queue.wake(Events::WRITABLE);
                    return;
                }
            }
        }
        if freed {
            self.slave_queue.wake(Events::WRITABLE);
        }
    }

    /// Bytes typed on the other side.
    pub(super) fn type_in(&self, bytes: &[u8], by: Option<&Caller<'_>>) {
        let mut effects = Effects::default();
        {
            let mut inner = self.inner.lock();
            inner.ldisc.receive(bytes, &mut effects);
            if effects.flushed {
                inner.packet_status |= packet::FLUSHREAD | packet::FLUSHWRITE;
            }
            match effects.flow {
                Some(Flow::Stop) => inner.packet_status |= packet::STOP,
                Some(Flow::Start) => inner.packet_status |= packet::START,
                None => {}
            }
        }
        self.act(&effects, by);
    }

    /// Job control: may the caller, if this is its controlling terminal and it is in the background?
    pub(super) fn job_control(&self, signal: Signal, by: &Caller<'_>) -> JobControl {
        let (session, foreground) = self.owners();
        let (Some(session), Some(foreground)) = (session, foreground) else { return JobControl::Pass };
        if by.task.sid() != session {
            return JobControl::Pass;
        }
        let pgid = by.task.pgid();
        if pgid == foreground {
            return JobControl::Pass;
        }
        if by.task.blocks_or_ignores(signal) {
            return if signal == Signal::SIGTTOU { JobControl::Pass } else { JobControl::Fail };
        }
        if by.task.pgrp_is_orphaned() {
            return JobControl::Fail;
        }
        self.terminals.signal_pgrp(pgid, signal, Some(by));
        JobControl::Stopped
    }

    fn dead(inner: &Inner, generation: u64) -> bool {
        inner.generation != generation
    }

    /// A read of the slave.
    pub(super) fn slave_read(
        &self,
        generation: u64,
        dst: &mut dyn GuestSink,
        by: &Caller<'_>,
        expired: Expired,
    ) -> SysResult<usize> {
        if dst.remaining() == 0 {
            return Ok(0);
        }
        match self.job_control(Signal::SIGTTIN, by) {
            JobControl::Pass => {}
            JobControl::Fail => return Err(Errno::EIO),
            // The signal interrupts the wait.
            JobControl::Stopped => return Err(Errno::EAGAIN),
        }
        let mut inner = self.inner.lock();
        if Tty::dead(&inner, generation) {
            return Ok(0);
        }
        let t = inner.ldisc.termios;
        let raw = !t.l(lflag::ICANON);
        let (min, time) = (usize::from(t.char_at(cc::VMIN)), t.char_at(cc::VTIME));
        let have = inner.ldisc.available();
        if raw && have < min.min(dst.remaining()) && expired == Expired::No {
            return Err(Errno::EAGAIN);
        }
        if raw && have == 0 {
            return if min == 0 && (time == 0 || expired == Expired::Yes) {
                Ok(0)
            } else {
                Err(Errno::EAGAIN)
            };
        }
        let Some(bytes) = inner.ldisc.next_read(dst.remaining()) else { return Err(Errno::EAGAIN) };
        let was_full = !inner.ldisc.accepts_input();
        let done = if bytes.is_empty() { 0 } else { dst.put(&bytes)? };
        inner.ldisc.consume(done);
        let wake = was_full && inner.ldisc.accepts_input();
        drop(inner);
        if wake {
            self.master_queue.wake(Events::WRITABLE);
            if let Some(host) = &self.host {
                host.want(Events::IN);
            }
        }
        Ok(done)
    }

    /// Until when a read of the slave sleeps (VTIME).
    pub(super) fn read_deadline(&self, since: Instant) -> Deadline {
        let inner = self.inner.lock();
        let t = inner.ldisc.termios;
        let time = u64::from(t.char_at(cc::VTIME));
        if t.l(lflag::ICANON) || time == 0 {
            return None;
        }
        let wait = Duration::from_millis(time * 100);
        if t.char_at(cc::VMIN) == 0 {
            return since.checked_add(wait);
        }
        if inner.ldisc.available() == 0 {
            return None;
        }
        inner.ldisc.last_input.unwrap_or(since).max(since).checked_add(wait)
    }

    /// A write of the slave.
    pub(super) fn slave_write(
        &self,
        generation: u64,
        src: &mut dyn GuestSource,
        by: &Caller<'_>,
    ) -> SysResult<usize> {
        let tostop = self.inner.lock().ldisc.termios.l(lflag::TOSTOP);
        if tostop {
            match self.job_control(Signal::SIGTTOU, by) {
                JobControl::Pass => {}
                JobControl::Fail => return Err(Errno::EIO),
                JobControl::Stopped => return Err(Errno::EAGAIN),
            }
        }
        let done = {
            let mut inner = self.inner.lock();
            if Tty::dead(&inner, generation) || !inner.master_open {
                return Err(Errno::EIO);
            }
            let want = src.remaining();
            if want == 0 {
                return Ok(0);
            }
            let room = inner.ldisc.output_room().min(want).min(16_384);
            if room == 0 {
                return Err(Errno::EAGAIN);
            }
            let mut bytes = vec![0; room];
            let got = src.take(&mut bytes)?;
            inner.ldisc.write(bytes.get(..got).unwrap_or_default());
            got
        };
        self.push_output();
        Ok(done)
    }

    /// Readiness of the slave.
    pub(super) fn slave_ready(&self, generation: u64) -> Events {
        let inner = self.inner.lock();
        if Tty::dead(&inner, generation) {
            return Events::READABLE | Events::WRITABLE | Events::ERR | Events::HUP;
        }
        let t = inner.ldisc.termios;
        let least = if t.char_at(cc::VTIME) == 0 { usize::from(t.char_at(cc::VMIN)) } else { 1 };
        let mut events = Events::empty();
        if inner.ldisc.readable(least) {
            events |= Events::READABLE;
        }
        if inner.ldisc.output_room() > 0 {
            events |= Events::WRITABLE;
        }
        if !inner.master_open {
            events |= Events::HUP;
        }
        events
    }

    /// A read of the master.
    pub(super) fn master_read(&self, dst: &mut dyn GuestSink) -> SysResult<usize> {
        let mut inner = self.inner.lock();
        if dst.remaining() == 0 {
            return Ok(0);
        }
        let mut head = 0;
        if inner.packet {
            let status = std::mem::take(&mut inner.packet_status);
            if status != 0 {
                return dst.put(&[status]);
            }
        }
        if inner.ldisc.output.is_empty() {
            let gone = inner.slave_seen && inner.slaves == 0;
            return Err(if gone { Errno::EIO } else { Errno::EAGAIN });
        }
        if inner.packet {
            head = dst.put(&[0])?;
        }
        let room_before = inner.ldisc.output_room();
        let (a, b) = inner.ldisc.output.as_slices();
        let mut done = dst.put(a)?;
        if done == a.len() && !b.is_empty() {
            done += dst.put(b).unwrap_or(0);
        }
        inner.ldisc.output.drain(..done);
        let wake = room_before == 0 && inner.ldisc.output_room() > 0;
        drop(inner);
        if wake {
            self.slave_queue.wake(Events::WRITABLE);
        }
        Ok(head + done)
    }

    /// A write of the master: typing.
    pub(super) fn master_write(&self, src: &mut dyn GuestSource, by: &Caller<'_>) -> SysResult<usize> {
        let want = src.remaining();
        if want == 0 {
            return Ok(0);
        }
        if !self.inner.lock().ldisc.accepts_input() {
            return Err(Errno::EAGAIN);
        }
        let mut bytes = vec![0; want.min(4096)];
        let got = src.take(&mut bytes)?;
        self.type_in(bytes.get(..got).unwrap_or_default(), Some(by));
        Ok(got)
    }

    /// Readiness of the master.
    pub(super) fn master_ready(&self) -> Events {
        let inner = self.inner.lock();
        let mut events = Events::empty();
        if !inner.ldisc.output.is_empty() {
            events |= Events::READABLE;
        }
        if inner.packet && inner.packet_status != 0 {
            events |= Events::READABLE | Events::PRI;
        }
        if inner.ldisc.accepts_input() {
            events |= Events::WRITABLE;
        }
        if inner.slave_seen && inner.slaves == 0 {
            events |= Events::HUP;
        }
        events
    }

    /// A new open of the slave; `by` may get it as its controlling terminal.
    pub(super) fn open_slave(&self, by: &Caller<'_>, takes: TakesControl) -> SysResult<u64> {
        let admin = by.cred.has(crate::cred::Capabilities::SYS_ADMIN);
        let generation = {
            let mut inner = self.inner.lock();
            if !inner.master_open || inner.locked {
                return Err(Errno::EIO);
            }
            if inner.exclusive && !admin {
                return Err(Errno::EBUSY);
            }
            inner.slaves = inner.slaves.saturating_add(1);
            inner.slave_seen = true;
            inner.generation
        };
        if takes == TakesControl::Yes && by.task.tgid() == by.task.sid() {
            let _ = self.take_control(Steal::No, by);
        }
        Ok(generation)
    }

    /// TIOCSCTTY.
    pub(super) fn take_control(&self, steal: Steal, by: &Caller<'_>) -> SysResult<()> {
        let (sid, pgid, tgid) = (by.task.sid(), by.task.pgid(), by.task.tgid());
        let held = self.terminals.controlling(sid);
        if held.as_ref().is_some_and(|t| std::ptr::eq(Arc::as_ptr(t), self)) && tgid == sid {
            return Ok(());
        }
        if tgid != sid || held.is_some() {
            return Err(Errno::EPERM);
        }
        let me = self.strong().ok_or(Errno::EIO)?;
        let old = {
            let mut inner = self.inner.lock();
            let taken = inner.session.is_some_and(|s| s != sid);
            if taken && (steal == Steal::No || !by.cred.has(crate::cred::Capabilities::SYS_ADMIN)) {
                return Err(Errno::EPERM);
            }
            inner.foreground = Some(pgid);
            inner.session.replace(sid)
        };
        if let Some(old) = old.filter(|old| *old != sid) {
            self.terminals.set_controlling(old, None);
        }
        self.terminals.set_controlling(sid, Some(&me));
        Ok(())
    }

    /// Becomes the controlling terminal of a new session that the kernel makes: the first process of a
    /// container, or of an exec, with a terminal.
    pub fn give_to(&self, sid: u32) {
        let Some(me) = self.strong() else { return };
        {
            let mut inner = self.inner.lock();
            inner.session = Some(sid);
            inner.foreground = Some(sid);
        }
        self.terminals.set_controlling(sid, Some(&me));
    }

    /// The session gives the terminal up (its leader exited, or TIOCNOTTY by the leader).
    pub(super) fn release_session(&self, sid: u32) {
        let foreground = {
            let mut inner = self.inner.lock();
            if inner.session != Some(sid) {
                return;
            }
            inner.session = None;
            inner.foreground.take()
        };
        if let Some(pgid) = foreground {
            self.terminals.signal_pgrp(pgid, Signal::SIGHUP, None);
            self.terminals.signal_pgrp(pgid, Signal::SIGCONT, None);
        }
    }

    /// A slave file was closed.
    pub(super) fn slave_closed(&self) {
        let last = {
            let mut inner = self.inner.lock();
            inner.slaves = inner.slaves.saturating_sub(1);
            inner.slaves == 0
        };
        if last {
            self.master_queue.wake(Events::HUP | Events::READABLE);
        }
    }
    /// The master was closed: the terminal is hung up.
    pub(super) fn master_closed(&self) {
        self.inner.lock().master_open = false;
        self.hang_up();
    }

    /// Hangs up: open slaves are dead, the session loses its terminal.
    pub fn hang_up(&self) {
        let (session, foreground) = {
            let mut inner = self.inner.lock();
            inner.generation += 1;
            inner.ldisc.flush_input();
            inner.ldisc.output.clear();
            (inner.session.take(), inner.foreground.take())
        };
        self.slave_queue.wake(Events::READABLE | Events::WRITABLE | Events::ALWAYS);
        self.master_queue.wake(Events::READABLE | Events::HUP);
        let Some(sid) = session else { return };
        self.terminals.set_controlling(sid, None);
        let terminals = Arc::clone(&self.terminals);
        // A descriptor table may be locked where the last file was dropped: not from here.
        timer::later(move || {
            terminals.signal_leader(sid, Signal::SIGHUP);
            terminals.signal_leader(sid, Signal::SIGCONT);
            if let Some(pgid) = foreground {
                terminals.signal_pgrp(pgid, Signal::SIGHUP, None);
            }
        });
    }

    /// A new window size; tells the foreground group if it differs.
    pub fn resize(&self, size: WinSize, by: Option<&Caller<'_>>) {
        let foreground = {
            let mut inner = self.inner.lock();
            if inner.winsize == size {
                return;
            }
            inner.winsize = size;
            inner.foreground
        };
        if let Some(pgid) = foreground {
            self.terminals.signal_pgrp(pgid, Signal::SIGWINCH, by);
        }
    }
    /// The host's terminal was resized: takes its size over.
    pub fn host_resized(&self) {
        if let Some(host) = &self.host
            && let Ok(size) = rustix::termios::tcgetwinsize(host.fd())
        {
            self.resize([size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel], None);
        }
    }
    /// The size a guest set, for the host's terminal.
    pub(super) fn resize_host(&self, size: WinSize) {
        if let Some(host) = &self.host {
            let [row, col, x, y] = size;
            let size = rustix::termios::Winsize { ws_row: row, ws_col: col, ws_xpixel: x, ws_ypixel: y };
            let _ = rustix::termios::tcsetwinsize(host.fd(), size);
        }
    }
}

/// Whether the time of a read has passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expired {
    No,
    Yes,
}
/// Whether an open may make the terminal the caller's controlling one (no O_NOCTTY).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TakesControl {
    No,
    Yes,
}
/// TIOCSCTTY with argument 1 takes a terminal from another session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Steal {
    No,
    Yes,
}

impl crate::event::host::HostReady for Tty {
    fn host_ready(&self, events: Events) {
        let Some(host) = &self.host else { return };
        if events.intersects(Events::OUT) {
            self.push_output();
        }
        if !events.intersects(Events::IN | Events::ALWAYS) {
            return;
        }
        loop {
            if !self.inner.lock().ldisc.accepts_input() {
                // The reader asks again when it has made room.
                return;
            }
            let mut bytes = [0; 4096];
            match host.read_some(&mut bytes) {
                Ok(0) => break self.host_gone(),
                Ok(n) => self.type_in(bytes.get(..n).unwrap_or_default(), None),
                Err(Errno::EAGAIN) => return host.want(Events::IN),
                Err(_) => break self.host_gone(),
            }
        }
    }
}

impl Tty {
    fn host_gone(&self) {
        self.inner.lock().master_open = false;
        self.hang_up();
    }
}
