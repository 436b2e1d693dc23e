//! The N_TTY line discipline: what a terminal makes of typed bytes and of written ones. No locks here; a
//! [`LineDiscipline`] lives under its terminal's.

use super::termios::{Termios, cc, iflag, lflag, oflag};
use abi::signal::Signal;
use std::collections::VecDeque;
use std::time::Instant;

/// Longest line in canonical mode.
const LINE_LIMIT: usize = 4095;
/// Bytes that wait for a reader before the other side is held up.
const INPUT_LIMIT: usize = 65_536;
/// Bytes of output that wait before writers are.
pub const OUTPUT_LIMIT: usize = 65_536;

/// What the caller has to do behind the lock.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Signals for the foreground group.
    pub signals: Vec<Signal>,
    /// There is something to read.
    pub readable: bool,
    /// Output was started or stopped by a control character.
    pub flow: Option<Flow>,
    /// Queues were flushed.
    pub flushed: bool,
}

/// Output control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// Goes on.
    Start,
    /// Is held.
    Stop,
}

/// Input and output state of one terminal.
#[derive(Debug)]
pub struct LineDiscipline {
    /// Settings.
    pub termios: Termios,
    // Bytes a reader may take; in canonical mode cut into `lines`.
    ready: VecDeque<u8>,
    lines: VecDeque<usize>,
    // The line being edited.
    line: Vec<u8>,
    // Where the cursor was when the line began, to rub out tabs.
    line_column: usize,
    literal: bool,
    /// Processed output.
    pub output: VecDeque<u8>,
    column: usize,
    /// Held by VSTOP or TCOOFF.
    pub stopped: bool,
    /// When input came last (VTIME).
    pub last_input: Option<Instant>,
}

impl LineDiscipline {
    /// With given settings.
    #[must_use]
    pub fn new(termios: Termios) -> LineDiscipline {
        LineDiscipline {
            termios,
            ready: VecDeque::new(),
            lines: VecDeque::new(),
            line: Vec::new(),
            line_column: 0,
            literal: false,
            output: VecDeque::new(),
            column: 0,
            stopped: false,
            last_input: None,
        }
    }
    fn canonical(&self) -> bool {
        self.termios.l(lflag::ICANON)
    }
    /// Whether typed bytes are taken.
    #[must_use]
    pub fn accepts_input(&self) -> bool {
        self.ready.len() + self.line.len() < INPUT_LIMIT
    }
    /// Takes typed bytes, all of them; the caller asked `accepts_input` before.
    pub fn receive(&mut self, bytes: &[u8], effects: &mut Effects) {
        for byte in bytes {
            self.receive_byte(*byte, effects);
        }
        self.last_input = Some(Instant::now());
        effects.readable |= self.readable(1);
    }

    fn receive_byte(&mut self, byte: u8, effects: &mut Effects) {
        let t = self.termios;
        let mut c = if t.i(iflag::ISTRIP) { byte & 0x7f } else { byte };
        if t.i(iflag::IUCLC) && t.l(lflag::IEXTEN) {
            c = c.to_ascii_lowercase();
        }
        if std::mem::take(&mut self.literal) {
            self.accept(c);
            return;
        }
        if t.i(iflag::IXON) {
            if t.is(cc::VSTART, c) {
                self.start(effects);
                return;
            }
            if t.is(cc::VSTOP, c) {
                self.stopped = true;
                effects.flow = Some(Flow::Stop);
                return;
            }
        }
        if self.stopped && t.i(iflag::IXANY) && t.i(iflag::IXON) {
            self.start(effects);
        }
        if t.l(lflag::ISIG) {
            let signal = if t.is(cc::VINTR, c) {
                Some(Signal::SIGINT)
            } else if t.is(cc::VQUIT, c) {
                Some(Signal::SIGQUIT)
            } else if t.is(cc::VSUSP, c) {
                Some(Signal::SIGTSTP)
            } else {
                None
            };
            if let Some(signal) = signal {
                if !t.l(lflag::NOFLSH) {
                    self.flush_input();
                    self.output.clear();
                    effects.flushed = true;
                }
                if t.i(iflag::IXON) {
                    self.start(effects);
                }
                self.echo(c);
                effects.signals.push(signal);
                return;
            }
        }
        match c {
            b'\r' if t.i(iflag::IGNCR) => return,
            b'\r' if t.i(iflag::ICRNL) => c = b'\n',
            b'\n' if t.i(iflag::INLCR) => c = b'\r',
            _ => {}
        }
        if self.canonical() {
            self.edit(c);
        } else {
            if t.i(iflag::PARMRK) && c == 0xff {
                self.ready.push_back(0xff);
            }
            self.ready.push_back(c);
            self.echo(c);
        }
    }

    fn start(&mut self, effects: &mut Effects) {
        if self.stopped {
            self.stopped = false;
            effects.flow = Some(Flow::Start);
        }
    }

    /// One byte of canonical mode.
    fn edit(&mut self, c: u8) {
        let t = self.termios;
        let extended = t.l(lflag::IEXTEN);
        if t.is(cc::VERASE, c) {
            self.rub_out_one();
        } else if t.is(cc::VKILL, c) {
            self.kill(c);
        } else if extended && t.is(cc::VWERASE, c) {
            self.rub_out_word();
        } else if extended && t.is(cc::VLNEXT, c) {
            self.literal = true;
            if t.l(lflag::ECHO) && t.l(lflag::ECHOCTL) {
                self.put_raw(b"^\x08");
            }
        } else if extended && t.is(cc::VREPRINT, c) && t.l(lflag::ECHO) {
            self.echo(c);
            self.put(b'\n');
            for byte in self.line.clone() {
                self.echo(byte);
            }
        } else if c == b'\n' {
            if t.l(lflag::ECHO) || t.l(lflag::ECHONL) {
                self.put(b'\n');
            }
            self.line.push(c);
            self.commit();
        } else if t.is(cc::VEOF, c) {
            self.commit();
        } else if t.is(cc::VEOL, c) || (extended && t.is(cc::VEOL2, c)) {
            self.echo(c);
            self.line.push(c);
            self.commit();
        } else {
            self.accept(c);
        }
    }

    /// An ordinary byte.
    fn accept(&mut self, c: u8) {
        if !self.canonical() {
            self.ready.push_back(c);
            self.echo(c);
            return;
        }
        if self.line.len() >= LINE_LIMIT || !self.accepts_input() {
            if self.termios.i(iflag::IMAXBEL) {
                self.put_raw(b"\x07");
            }
            return;
        }
        if self.line.is_empty() {
            self.line_column = self.column;
        }
        self.line.push(c);
        self.echo(c);
    }

    fn commit(&mut self) {
        self.lines.push_back(self.line.len());
        self.ready.extend(self.line.drain(..));
    }

    /// Columns that a byte of the line takes on the screen, at `column`.
    fn width(&self, c: u8, column: usize) -> usize {
        match c {
            b'\t' => 8 - column % 8,
            _ if c.is_ascii_control() => {
                if self.termios.l(lflag::ECHOCTL) {
                    2
                } else {
                    0
                }
            }
            _ if self.termios.i(iflag::IUTF8) && c & 0xc0 == 0x80 => 0,
            _ => 1,
        }
    }
    fn line_end_column(&self) -> usize {
        self.line.iter().fold(self.line_column, |column, c| column + self.width(*c, column))
    }
    /// Takes the last character (in UTF-8: all its bytes) off the line and the screen.
    fn rub_out_one(&mut self) -> Option<u8> {
        let before = self.line_end_column();
        let mut last = self.line.pop()?;
        if self.termios.i(iflag::IUTF8) {
            while last & 0xc0 == 0x80
                && let Some(lead) = self.line.pop()
            {
                last = lead;
            }
        }
        if self.termios.l(lflag::ECHO) {
            if self.termios.l(lflag::ECHOE) {
                let columns = before.saturating_sub(self.line_end_column());
                let gone: &[u8] = if last == b'\t' { b"\x08" } else { b"\x08 \x08" };
                for _ in 0..columns {
                    self.put_raw(gone);
                }
                self.column = self.column.saturating_sub(columns);
            } else {
                self.echo(self.termios.char_at(cc::VERASE));
            }
        }
        Some(last)
    }
    fn rub_out_word(&mut self) {
        let mut in_word = false;
        while let Some(last) = self.line.last() {
            let word = last.is_ascii_alphanumeric() || *last == b'_' || *last >= 0x80;
            if in_word && !word {
                break;
            }
            in_word |= word;
            self.rub_out_one();
        }
    }
    fn kill(&mut self, c: u8) {
        let t = self.termios;
        if t.l(lflag::ECHO) && !(t.l(lflag::ECHOE) && t.l(lflag::ECHOK) && t.l(lflag::ECHOKE)) {
            self.line.clear();
            self.echo(c);
            if t.l(lflag::ECHOK) {
                self.put(b'\n');
            }
            return;
        }
        while self.rub_out_one().is_some() {}
    }

    fn echo(&mut self, c: u8) {
        if !self.termios.l(lflag::ECHO) {
            return;
        }
        if self.termios.l(lflag::ECHOCTL) && c.is_ascii_control() && c != b'\t' && c != b'\n' {
            self.put_raw(&[b'^', c ^ 0o100]);
            self.column += 2;
        } else {
            self.put(c);
        }
    }
    fn put_raw(&mut self, bytes: &[u8]) {
        // Written bytes are bounded by `output_room`, eight columns a byte; this bounds echoes.
        if self.output.len() < OUTPUT_LIMIT * 16 {
            self.output.extend(bytes);
        }
    }

    /// Output processing of one byte.
    fn put(&mut self, c: u8) {
        let t = self.termios;
        if !t.o(oflag::OPOST) {
            self.put_raw(&[c]);
            return;
        }
        match c {
            b'\n' => {
                if t.o(oflag::ONLRET) {
                    self.column = 0;
                }
                if t.o(oflag::ONLCR) {
                    self.put_raw(b"\r\n");
                    self.column = 0;
                } else {
                    self.put_raw(b"\n");
                }
            }
            b'\r' if t.o(oflag::ONOCR) && self.column == 0 => {}
            b'\r' if t.o(oflag::OCRNL) => {
                self.put_raw(b"\n");
                if t.o(oflag::ONLRET) {
                    self.column = 0;
                }
            }
            b'\r' => {
                self.column = 0;
                self.put_raw(b"\r");
            }
            b'\t' => {
                let spaces = 8 - self.column % 8;
                self.column += spaces;
                if t.oflag & oflag::TABDLY == oflag::XTABS {
                    self.put_raw(b"        ".get(..spaces).unwrap_or_default());
                } else {
                    self.put_raw(b"\t");
                }
            }
            8 => {
                self.column = self.column.saturating_sub(1);
                self.put_raw(&[c]);
            }
            _ => {
                let c = if t.o(oflag::OLCUC) { c.to_ascii_uppercase() } else { c };
                let silent = c.is_ascii_control() || (t.i(iflag::IUTF8) && c & 0xc0 == 0x80);
                self.column += usize::from(!silent);
                self.put_raw(&[c]);
            }
        }
    }

    /// Room for written bytes before processing.
    #[must_use]
    pub fn output_room(&self) -> usize {
        if self.stopped { 0 } else { OUTPUT_LIMIT.saturating_sub(self.output.len()) }
    }
    /// Takes written bytes, at most `output_room` of them.
    pub fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.put(*byte);
        }
    }

    /// Whether a read would give something, wanting at least `least` bytes in raw mode.
    #[must_use]
    pub fn readable(&self, least: usize) -> bool {
        if self.canonical() { !self.lines.is_empty() } else { self.ready.len() >= least.max(1) }
    }
    /// Bytes a read would give in all (FIONREAD).
    #[must_use]
    pub fn available(&self) -> usize {
        if self.canonical() && self.lines.is_empty() { 0 } else { self.ready.len() }
    }
    /// The next bytes for a reader of `max`: at most one line in canonical mode. `None`: nothing yet.
    #[must_use]
    pub fn next_read(&self, max: usize) -> Option<Vec<u8>> {
        let len = if self.canonical() { *self.lines.front()? } else { self.ready.len() };
        Some(self.ready.iter().take(len.min(max)).copied().collect())
    }
    /// Takes off what `next_read` gave.
    pub fn consume(&mut self, count: usize) {
        self.ready.drain(..count.min(self.ready.len()));
        if let Some(line) = self.lines.front_mut() {
            *line = line.saturating_sub(count);
            if *line == 0 {
                self.lines.pop_front();
            }
        }
    }
    /// Drops what was typed and not read.
    pub fn flush_input(&mut self) {
        self.ready.clear();
        self.lines.clear();
        self.line.clear();
        self.literal = false;
    }
    /// New settings.
    pub fn set_termios(&mut self, new: Termios) {
        let was = self.canonical();
        self.termios = new;
        if was && !self.canonical() {
            self.ready.extend(self.line.drain(..));
            self.lines.clear();
        } else if !was && self.canonical() && !self.ready.is_empty() {
            self.lines.push_back(self.ready.len());
        }
        if !new.i(iflag::IXON) {
            self.stopped = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(l: &mut LineDiscipline, bytes: &[u8]) -> Effects {
        let mut effects = Effects::default();
        l.receive(bytes, &mut effects);
        effects
    }
    fn echoed(l: &mut LineDiscipline) -> Vec<u8> {
        l.output.drain(..).collect()
    }
    fn read(l: &mut LineDiscipline, max: usize) -> Option<Vec<u8>> {
        let bytes = l.next_read(max)?;
        l.consume(bytes.len());
        Some(bytes)
    }

    #[test]
    fn lines_are_edited() {
        let mut l = LineDiscipline::new(Termios::default());
        assert!(!typed(&mut l, b"helo\x7flo world\x17there").readable);
        assert_eq!(
            echoed(&mut l),
            b"helo\x08 \x08lo world\x08 \x08\x08 \x08\x08 \x08\x08 \x08\x08 \x08there"
        );
        assert!(typed(&mut l, b"\r").readable);
        assert_eq!(echoed(&mut l), b"\r\n");
        assert_eq!(read(&mut l, 5), Some(b"hello".to_vec()));
        assert_eq!(read(&mut l, 100), Some(b" there\n".to_vec()));
        assert_eq!(read(&mut l, 100), None);
        typed(&mut l, b"junk\x15ok\x04\x04");
        assert_eq!(read(&mut l, 100), Some(b"ok".to_vec()));
        assert_eq!(read(&mut l, 100), Some(Vec::new()));
    }

    #[test]
    fn utf8_and_tabs_are_rubbed_out() {
        let mut t = Termios::default();
        t.iflag |= iflag::IUTF8;
        let mut l = LineDiscipline::new(t);
        typed(&mut l, "é".as_bytes());
        echoed(&mut l);
        typed(&mut l, b"\x7f");
        assert_eq!(echoed(&mut l), b"\x08 \x08");
        typed(&mut l, b"ab\t\x7f");
        assert_eq!(echoed(&mut l), b"ab\t\x08\x08\x08\x08\x08\x08");
        typed(&mut l, b"\x16\x03\n");
        assert_eq!(read(&mut l, 10), Some(b"ab\x03\n".to_vec()));
    }

    #[test]
    fn signals_and_flow() {
        let mut l = LineDiscipline::new(Termios::default());
        typed(&mut l, b"lost");
        echoed(&mut l);
        let effects = typed(&mut l, b"\x03");
        assert_eq!(effects.signals, [Signal::SIGINT]);
        assert_eq!(echoed(&mut l), b"^C");
        assert_eq!(typed(&mut l, b"\x13").flow, Some(Flow::Stop));
        assert_eq!(l.output_room(), 0);
        assert_eq!(typed(&mut l, b"\x11").flow, Some(Flow::Start));
        l.write(b"a\n");
        assert_eq!(echoed(&mut l), b"a\r\n");
    }

    #[test]
    fn raw_mode_passes_bytes() {
        let t = Termios { lflag: 0, iflag: 0, oflag: 0, ..Termios::default() };
        let mut l = LineDiscipline::new(Termios::default());
        typed(&mut l, b"half");
        l.set_termios(t);
        typed(&mut l, b"\x03\r");
        assert_eq!(read(&mut l, 100), Some(b"half\x03\r".to_vec()));
        assert_eq!(l.available(), 0);
    }
}
