//! Open files of terminals: the master and the slave side, and their ioctls (ioctl_tty(2)).

use super::termios::{Termios, iflag, lflag};
use super::tty::{Expired, JobControl, Steal, TakesControl, Tty, packet};
use crate::caller::Caller;
use crate::cred::Capabilities;
use crate::file::{FileOps, GuestMemory, Io, OpenFile};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::signal::Signal;
use abi::{CallResult, Errno, Restart, SysResult, UserAddr, ioctl};
use lock::{Deadline, WaitEntry};
use mm::{GuestSink, GuestSource};
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// An open slave (or host terminal).
#[derive(Debug)]
pub struct SlaveFile {
    tty: Arc<Tty>,
    generation: u64,
}

/// An open master.
#[derive(Debug)]
pub struct MasterFile {
    tty: Arc<Tty>,
}

impl SlaveFile {
    /// Opens the slave of `tty`.
    pub fn open(tty: &Arc<Tty>, flags: OpenFlags, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        let takes = if flags.contains(OpenFlags::NOCTTY) { TakesControl::No } else { TakesControl::Yes };
        let generation = tty.open_slave(by, takes)?;
        Ok(Arc::new(SlaveFile { tty: Arc::clone(tty), generation }))
    }
    /// The terminal.
    #[must_use]
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }
}

impl Drop for SlaveFile {
    fn drop(&mut self) {
        self.tty.slave_closed();
    }
}

impl MasterFile {
    pub(super) fn new(tty: Arc<Tty>) -> MasterFile {
        MasterFile { tty }
    }
    /// The terminal.
    #[must_use]
    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }
}

impl Drop for MasterFile {
    fn drop(&mut self) {
        self.tty.master_closed();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Master,
    Slave,
}

fn read_word(memory: &dyn GuestMemory, at: UserAddr) -> SysResult<u32> {
    let mut bytes = [0; 4];
    memory.read(at, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}
fn write_word(memory: &dyn GuestMemory, at: UserAddr, value: u32) -> SysResult<u64> {
    memory.write(at, &value.to_ne_bytes())?;
    Ok(0)
}

fn set_termios(tty: &Tty, new: Termios, flush: bool) {
    let mut inner = tty.inner.lock();
    let old = inner.ldisc.termios;
    if flush {
        inner.ldisc.flush_input();
        inner.packet_status |= packet::FLUSHREAD;
    }
    let stops = |t: &Termios| t.i(iflag::IXON) && t.char_at(8) == 17 && t.char_at(9) == 19;
    if stops(&old) != stops(&new) {
        let (set, clear) =
            if stops(&new) { (packet::DOSTOP, packet::NOSTOP) } else { (packet::NOSTOP, packet::DOSTOP) };
        inner.packet_status = (inner.packet_status & !clear) | set;
    }
    inner.ldisc.set_termios(new);
    let readable = inner.ldisc.readable(1);
    drop(inner);
    if readable {
        tty.slave_queue.wake(Events::READABLE);
    }
    tty.slave_queue.wake(Events::WRITABLE);
    tty.push_output();
}

fn tty_ioctl(
    tty: &Arc<Tty>,
    side: Side,
    request: u32,
    arg: u64,
    memory: &dyn GuestMemory,
    by: &Caller<'_>,
) -> SysResult<u64> {
    let at = UserAddr::new(arg);
    match request {
        ioctl::TCGETS | ioctl::TCGETS2 => {
            let termios = tty.inner.lock().ldisc.termios;
            memory.write(at, &termios.to_bytes(request == ioctl::TCGETS2))?;
        }
        ioctl::TCGETA => {
            let termios = tty.inner.lock().ldisc.termios;
            memory.write(at, &termios.to_old_bytes())?;
        }
        ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
            let mut bytes = [0; Termios::SIZE];
            memory.read(at, &mut bytes)?;
            set_termios(tty, Termios::from_bytes(&bytes)?, request == ioctl::TCSETSF);
        }
        ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => {
            let mut bytes = [0; Termios::SIZE2];
            memory.read(at, &mut bytes)?;
            set_termios(tty, Termios::from_bytes(&bytes)?, request == ioctl::TCSETSF2);
        }
        ioctl::TCSETA | ioctl::TCSETAW | ioctl::TCSETAF => {
            let mut bytes = [0; Termios::SIZE_OLD];
            memory.read(at, &mut bytes)?;
            let old = tty.inner.lock().ldisc.termios;
            set_termios(tty, old.with_old_bytes(&bytes)?, request == ioctl::TCSETAF);
        }
        ioctl::TIOCGWINSZ => {
            tty.host_resized();
            let size = tty.inner.lock().winsize;
            let bytes: Vec<u8> = size.iter().flat_map(|n| n.to_ne_bytes()).collect();
            memory.write(at, &bytes)?;
        }
        ioctl::TIOCSWINSZ => {
            let mut bytes = [0; 8];
            memory.read(at, &mut bytes)?;
            let mut size = [0; 4];
            for (slot, pair) in size.iter_mut().zip(bytes.chunks_exact(2)) {
                *slot = u16::from_ne_bytes([pair[0], pair[1]]);
            }
            tty.resize_host(size);
            tty.resize(size, Some(by));
        }
        ioctl::TIOCSCTTY if side == Side::Slave => {
            tty.take_control(if arg == 1 { Steal::Yes } else { Steal::No }, by)?;
        }
        ioctl::TIOCNOTTY => {
            let sid = by.task.sid();
            if tty.owners().0 != Some(sid) {
                return Err(Errno::ENOTTY);
            }
            // The leader gives it up for the whole session.
            if by.task.tgid() == sid {
                tty.terminals.session_ended(sid);
            }
        }
        ioctl::TIOCGPGRP => {
            let (session, foreground) = tty.owners();
            if side == Side::Slave && session != Some(by.task.sid()) {
                return Err(Errno::ENOTTY);
            }
            let shown = foreground.map_or(0, |pgid| by.task.show_pid(pgid));
            return write_word(memory, at, shown);
        }
        ioctl::TIOCSPGRP => {
            let sid = by.task.sid();
            if tty.owners().0 != Some(sid) {
                return Err(Errno::ENOTTY);
            }
            let wanted = read_word(memory, at)?;
            if wanted.cast_signed() < 0 {
                return Err(Errno::EINVAL);
            }
            let pgid = by.task.find_pid(wanted).ok_or(Errno::ESRCH)?;
            if !by.task.pgrp_in_session(pgid, sid) {
                return Err(Errno::EPERM);
            }
            tty.inner.lock().foreground = Some(pgid);
        }
        ioctl::TIOCGSID => {
            let (session, _) = tty.owners();
            let sid = session.ok_or(Errno::ENOTTY)?;
            if side == Side::Slave && sid != by.task.sid() {
                return Err(Errno::ENOTTY);
            }
            let shown = by.task.show_pid(sid);
            return write_word(memory, at, shown);
        }
        ioctl::TCSBRK | ioctl::TCSBRKP | ioctl::TIOCSBRK | ioctl::TIOCCBRK => {
            // Draining: a pseudo-terminal has no output of its own; a break condition does not exist on it.
        }
        ioctl::TCXONC => flow(tty, arg)?,
        ioctl::TCFLSH => flush(tty, side, arg)?,
        ioctl::FIONREAD => {
            let inner = tty.inner.lock();
            let count = if side == Side::Slave { inner.ldisc.available() } else { inner.ldisc.output.len() };
            drop(inner);
            return write_word(memory, at, u32::try_from(count).unwrap_or(0));
        }
        ioctl::TIOCOUTQ => {
            let count = if side == Side::Slave { tty.inner.lock().ldisc.output.len() } else { 0 };
            return write_word(memory, at, u32::try_from(count).unwrap_or(0));
        }
        ioctl::TIOCGETD => return write_word(memory, at, 0),
        ioctl::TIOCSETD => {
            // N_TTY is the only line discipline.
            if read_word(memory, at)? != 0 {
                return Err(Errno::EINVAL);
            }
        }
        ioctl::TIOCEXCL => tty.inner.lock().exclusive = true,
        ioctl::TIOCNXCL => tty.inner.lock().exclusive = false,
        ioctl::TIOCGEXCL => {
            let exclusive = tty.inner.lock().exclusive;
            return write_word(memory, at, u32::from(exclusive));
        }
        ioctl::TIOCGDEV => {
            let (major, minor) = if side == Side::Slave { (136, tty.index()) } else { (5, 2) };
            let dev = u32::try_from(abi::fs::make_dev(major, minor)).unwrap_or(0);
            return write_word(memory, at, dev);
        }
        // As with `dev.tty.legacy_tiocsti` off.
        ioctl::TIOCSTI => return Err(Errno::EIO),
        ioctl::TIOCVHANGUP => {
            if !by.cred.has(Capabilities::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            tty.hang_up();
        }
        _ => return Err(Errno::ENOTTY),
    }
    Ok(0)
}

fn flow(tty: &Tty, arg: u64) -> SysResult<()> {
    let mut inner = tty.inner.lock();
    match arg {
        0 => {
            inner.ldisc.stopped = true;
            inner.packet_status = (inner.packet_status & !packet::START) | packet::STOP;
        }
        1 => {
            inner.ldisc.stopped = false;
            inner.packet_status = (inner.packet_status & !packet::STOP) | packet::START;
        }
        // A STOP or START character for the other side.
        2 | 3 => {
            let index = if arg == 2 { super::termios::cc::VSTOP } else { super::termios::cc::VSTART };
            let byte = inner.ldisc.termios.char_at(index);
            if byte != 0 {
                inner.ldisc.output.push_back(byte);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    drop(inner);
    tty.slave_queue.wake(Events::WRITABLE);
    tty.push_output();
    Ok(())
}

fn flush(tty: &Tty, side: Side, arg: u64) -> SysResult<()> {
    // What is input on one side is output on the other.
    let (input, output) = match (arg, side) {
        (0, Side::Slave) | (1, Side::Master) => (true, false),
        (1, Side::Slave) | (0, Side::Master) => (false, true),
        (2, _) => (true, true),
        _ => return Err(Errno::EINVAL),
    };
    let mut inner = tty.inner.lock();
    if input {
        inner.ldisc.flush_input();
        inner.packet_status |= packet::FLUSHREAD;
    }
    if output {
        inner.ldisc.output.clear();
        inner.packet_status |= packet::FLUSHWRITE;
    }
    drop(inner);
    tty.slave_queue.wake(Events::WRITABLE);
    tty.master_queue.wake(Events::WRITABLE);
    tty.push_output();
    Ok(())
}

impl FileOps for SlaveFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, by: &Caller<'_>) -> SysResult<usize> {
        self.tty.slave_read(self.generation, dst, by, Expired::No)
    }
    fn read_expired(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, by: &Caller<'_>) -> SysResult<usize> {
        self.tty.slave_read(self.generation, dst, by, Expired::Yes)
    }
    fn io_deadline(&self, events: Events, since: Instant) -> Deadline {
        if events.intersects(Events::READABLE) { self.tty.read_deadline(since) } else { None }
    }
    fn write(&self, _io: &Io<'_>, src: &mut dyn GuestSource, by: &Caller<'_>) -> SysResult<(usize, u64)> {
        self.tty.slave_write(self.generation, src, by).map(|n| (n, 0))
    }
    fn writes_whole(&self) -> bool {
        true
    }
    fn ready(&self, interest: Events) -> Events {
        self.tty.slave_ready(self.generation) & (interest | Events::ALWAYS)
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.tty.slave_queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.tty.slave_queue.unregister(entry);
    }
    fn before_ioctl(&self, request: u32, by: &Caller<'_>) -> CallResult<()> {
        let changes = matches!(
            request,
            ioctl::TCSETS
                | ioctl::TCSETSW
                | ioctl::TCSETSF
                | ioctl::TCSETS2
                | ioctl::TCSETSW2
                | ioctl::TCSETSF2
                | ioctl::TCSETA
                | ioctl::TCSETAW
                | ioctl::TCSETAF
                | ioctl::TCSBRK
                | ioctl::TCSBRKP
                | ioctl::TCXONC
                | ioctl::TCFLSH
                | ioctl::TIOCSPGRP
                | ioctl::TIOCSETD
        );
        if !changes {
            return Ok(());
        }
        match self.tty.job_control(Signal::SIGTTOU, by) {
            JobControl::Pass => Ok(()),
            JobControl::Fail => Err(Errno::EIO.into()),
            JobControl::Stopped => Err(Restart::Sys.into()),
        }
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn GuestMemory,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        if self.tty.inner.lock().generation != self.generation {
            return Err(if request == ioctl::TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO });
        }
        tty_ioctl(&self.tty, Side::Slave, request, arg, memory, by)
    }
    fn fdinfo(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("tty-index:\t{}\n", self.tty.index()).as_bytes());
    }
}

impl FileOps for MasterFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        self.tty.master_read(dst)
    }
    fn write(&self, _io: &Io<'_>, src: &mut dyn GuestSource, by: &Caller<'_>) -> SysResult<(usize, u64)> {
        self.tty.master_write(src, by).map(|n| (n, 0))
    }
    fn writes_whole(&self) -> bool {
        true
    }
    fn ready(&self, interest: Events) -> Events {
        self.tty.master_ready() & (interest | Events::ALWAYS)
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.tty.master_queue.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.tty.master_queue.unregister(entry);
    }
    fn ioctl(
        &self,
        _file: &OpenFile,
        request: u32,
        arg: u64,
        memory: &dyn GuestMemory,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        let at = UserAddr::new(arg);
        let tty = &self.tty;
        match request {
            ioctl::TIOCGPTN => return write_word(memory, at, tty.index()),
            ioctl::TIOCSPTLCK => {
                let locked = read_word(memory, at)? != 0;
                tty.inner.lock().locked = locked;
            }
            ioctl::TIOCGPTLCK => {
                let locked = tty.inner.lock().locked;
                return write_word(memory, at, u32::from(locked));
            }
            ioctl::TIOCPKT => {
                let on = read_word(memory, at)? != 0;
                let mut inner = tty.inner.lock();
                if on != inner.packet {
                    inner.packet = on;
                    inner.packet_status = 0;
                }
            }
            ioctl::TIOCGPKT => {
                let on = tty.inner.lock().packet;
                return write_word(memory, at, u32::from(on));
            }
            ioctl::TIOCSIG => {
                let signal = Signal::new(u32::try_from(arg).map_err(|_| Errno::EINVAL)?)?;
                if ![Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTSTP].contains(&signal) {
                    return Err(Errno::EINVAL);
                }
                if tty.inner.lock().ldisc.termios.l(lflag::NOFLSH) {
                    // Queues stay.
                } else {
                    flush(tty, Side::Slave, 2)?;
                }
                if let (_, Some(pgid)) = tty.owners() {
                    tty.terminals.signal_pgrp(pgid, signal, Some(by));
                }
            }
            _ => return tty_ioctl(tty, Side::Master, request, arg, memory, by),
        }
        Ok(0)
    }
    fn fdinfo(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("tty-index:\t{}\n", self.tty.index()).as_bytes());
    }
}
