//! `struct termios`, `termios2` and `termio` (termios(3), ioctl_tty(2)).

use abi::{Errno, SysResult};

/// Number of control characters.
pub const NCCS: usize = 19;

/// c_iflag bits.
pub mod iflag {
    /// BRKINT.
    pub const BRKINT: u32 = 0o2;
    /// PARMRK.
    pub const PARMRK: u32 = 0o10;
    /// ISTRIP.
    pub const ISTRIP: u32 = 0o40;
    /// INLCR.
    pub const INLCR: u32 = 0o100;
    /// IGNCR.
    pub const IGNCR: u32 = 0o200;
    /// ICRNL.
    pub const ICRNL: u32 = 0o400;
    /// IUCLC.
    pub const IUCLC: u32 = 0o1000;
    /// IXON.
    pub const IXON: u32 = 0o2000;
    /// IXANY.
    pub const IXANY: u32 = 0o4000;
    /// IMAXBEL.
    pub const IMAXBEL: u32 = 0o20000;
    /// IUTF8.
    pub const IUTF8: u32 = 0o40000;
}
/// c_oflag bits.
pub mod oflag {
    /// OPOST.
    pub const OPOST: u32 = 0o1;
    /// OLCUC.
    pub const OLCUC: u32 = 0o2;
    /// ONLCR.
    pub const ONLCR: u32 = 0o4;
    /// OCRNL.
    pub const OCRNL: u32 = 0o10;
    /// ONOCR.
    pub const ONOCR: u32 = 0o20;
    /// ONLRET.
    pub const ONLRET: u32 = 0o40;
    /// TABDLY.
    pub const TABDLY: u32 = 0o14000;
    /// XTABS.
    pub const XTABS: u32 = 0o14000;
}
/// c_lflag bits.
pub mod lflag {
    /// ISIG.
    pub const ISIG: u32 = 0o1;
    /// ICANON.
    pub const ICANON: u32 = 0o2;
    /// ECHO.
    pub const ECHO: u32 = 0o10;
    /// ECHOE.
    pub const ECHOE: u32 = 0o20;
    /// ECHOK.
    pub const ECHOK: u32 = 0o40;
    /// ECHONL.
    pub const ECHONL: u32 = 0o100;
    /// NOFLSH.
    pub const NOFLSH: u32 = 0o200;
    /// TOSTOP.
    pub const TOSTOP: u32 = 0o400;
    /// ECHOCTL.
    pub const ECHOCTL: u32 = 0o1000;
    /// ECHOKE.
    pub const ECHOKE: u32 = 0o4000;
    /// IEXTEN.
    pub const IEXTEN: u32 = 0o100000;
    /// EXTPROC.
    pub const EXTPROC: u32 = 0o200000;
}
/// Indices into c_cc.
pub mod cc {
    /// VINTR.
    pub const VINTR: usize = 0;
    /// VQUIT.
    pub const VQUIT: usize = 1;
    /// VERASE.
    pub const VERASE: usize = 2;
    /// VKILL.
    pub const VKILL: usize = 3;
    /// VEOF.
    pub const VEOF: usize = 4;
    /// VTIME.
    pub const VTIME: usize = 5;
    /// VMIN.
    pub const VMIN: usize = 6;
    /// VSTART.
    pub const VSTART: usize = 8;
    /// VSTOP.
    pub const VSTOP: usize = 9;
    /// VSUSP.
    pub const VSUSP: usize = 10;
    /// VEOL.
    pub const VEOL: usize = 11;
    /// VREPRINT.
    pub const VREPRINT: usize = 12;
    /// VWERASE.
    pub const VWERASE: usize = 14;
    /// VLNEXT.
    pub const VLNEXT: usize = 15;
    /// VEOL2.
    pub const VEOL2: usize = 16;
}

/// B38400.
const B38400: u32 = 0o17;
const CBAUD: u32 = 0o10017;
/// BOTHER: the speed is in c_ospeed.
const BOTHER: u32 = 0o10000;
const RATES: [u32; 16] =
    [0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400];
const HIGH_RATES: [u32; 15] = [
    57600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000,
    2_500_000, 3_000_000, 3_500_000, 4_000_000,
];

/// Settings of a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Termios {
    /// Input modes.
    pub iflag: u32,
    /// Output modes.
    pub oflag: u32,
    /// Control modes.
    pub cflag: u32,
    /// Local modes.
    pub lflag: u32,
    /// Line discipline: 0.
    pub line: u8,
    /// Control characters.
    pub cc: [u8; NCCS],
    /// Input speed.
    pub ispeed: u32,
    /// Output speed.
    pub ospeed: u32,
}

impl Default for Termios {
    /// What a fresh pseudo-terminal has (`tty_std_termios`).
    fn default() -> Self {
        let mut chars = [0; NCCS];
        for (slot, value) in
            chars.iter_mut().zip([3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0])
        {
            *slot = value;
        }
        Termios {
            iflag: iflag::ICRNL | iflag::IXON,
            oflag: oflag::OPOST | oflag::ONLCR,
            // CS8 | CREAD
            cflag: B38400 | 0o60 | 0o200,
            lflag: lflag::ISIG
                | lflag::ICANON
                | lflag::ECHO
                | lflag::ECHOE
                | lflag::ECHOK
                | lflag::ECHOCTL
                | lflag::ECHOKE
                | lflag::IEXTEN,
            line: 0,
            cc: chars,
            ispeed: 38400,
            ospeed: 38400,
        }
    }
}

fn rate(cflag: u32) -> Option<u32> {
    let index = usize::try_from(cflag & 0o17).ok()?;
    if cflag & CBAUD == BOTHER {
        return None;
    }
    if cflag & BOTHER != 0 {
        HIGH_RATES.get(index.checked_sub(1)?).copied()
    } else {
        RATES.get(index).copied()
    }
}

fn word(bytes: &[u8], at: usize) -> SysResult<u32> {
    bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

impl Termios {
    /// Size of `struct termios` of the kernel.
    pub const SIZE: usize = 36;
    /// Size of `struct termios2`.
    pub const SIZE2: usize = 44;
    /// Size of `struct termio`.
    pub const SIZE_OLD: usize = 18;

    /// Whether an input flag is on.
    #[must_use]
    pub fn i(&self, flag: u32) -> bool {
        self.iflag & flag != 0
    }
    /// Whether an output flag is on.
    #[must_use]
    pub fn o(&self, flag: u32) -> bool {
        self.oflag & flag != 0
    }
    /// Whether a local flag is on.
    #[must_use]
    pub fn l(&self, flag: u32) -> bool {
        self.lflag & flag != 0
    }
    /// Whether `byte` is the control character `index`; 0 disables one.
    #[must_use]
    pub fn is(&self, index: usize, byte: u8) -> bool {
        byte != 0 && self.cc.get(index) == Some(&byte)
    }
    /// A control character.
    #[must_use]
    pub fn char_at(&self, index: usize) -> u8 {
        self.cc.get(index).copied().unwrap_or(0)
    }
    /// `struct termios`, or `termios2` with the speeds.
    #[must_use]
    pub fn to_bytes(self, speeds: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(Termios::SIZE2);
        for flag in [self.iflag, self.oflag, self.cflag, self.lflag] {
            out.extend_from_slice(&flag.to_ne_bytes());
        }
        out.push(self.line);
        out.extend_from_slice(&self.cc);
        if speeds {
            out.extend_from_slice(&self.ispeed.to_ne_bytes());
            out.extend_from_slice(&self.ospeed.to_ne_bytes());
        }
        out
    }
    /// Reads `struct termios` (36 bytes) or `termios2` (44).
    pub fn from_bytes(bytes: &[u8]) -> SysResult<Termios> {
        let mut t = Termios {
            iflag: word(bytes, 0)?,
            oflag: word(bytes, 4)?,
            cflag: word(bytes, 8)?,
            lflag: word(bytes, 12)?,
            line: bytes.get(16).copied().ok_or(Errno::EINVAL)?,
            cc: bytes.get(17..).and_then(|b| b.first_chunk()).copied().ok_or(Errno::EINVAL)?,
            ispeed: 38400,
            ospeed: 38400,
        };
        if bytes.len() >= Termios::SIZE2 {
            t.ispeed = word(bytes, 36)?;
            t.ospeed = word(bytes, 40)?;
        }
        if let Some(rate) = rate(t.cflag) {
            t.ispeed = rate;
            t.ospeed = rate;
        }
        Ok(t)
    }
    /// `struct termio`.
    #[must_use]
    pub fn to_old_bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Termios::SIZE_OLD);
        for flag in [self.iflag, self.oflag, self.cflag, self.lflag] {
            let [low, high, ..] = flag.to_ne_bytes();
            out.extend_from_slice(&[low, high]);
        }
        out.push(self.line);
        out.extend(self.cc.iter().take(8));
        out.resize(Termios::SIZE_OLD, 0);
        out
    }
    /// `struct termio` over the present settings.
    pub fn with_old_bytes(mut self, bytes: &[u8]) -> SysResult<Termios> {
        let half = |at: usize| {
            bytes
                .get(at..)
                .and_then(|b| b.first_chunk())
                .map(|b| u32::from(u16::from_ne_bytes(*b)))
                .ok_or(Errno::EINVAL)
        };
        self.iflag = (self.iflag & !0xffff) | half(0)?;
        self.oflag = (self.oflag & !0xffff) | half(2)?;
        self.cflag = (self.cflag & !0xffff) | half(4)?;
        self.lflag = (self.lflag & !0xffff) | half(6)?;
        for (slot, byte) in self.cc.iter_mut().take(8).zip(bytes.iter().skip(9)) {
            *slot = *byte;
        }
        Ok(self)
    }
}
