//! Signal numbers and sets (signal(7)).

use crate::{Errno, SysResult};
use std::fmt;

/// A valid signal number, `1..=64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

macro_rules! signals {
    ($($name:ident = $num:literal;)*) => {
        impl Signal {
            $(#[doc = concat!("`", stringify!($name), "`.")] pub const $name: Signal = Signal($num);)*
            const NAMES: &'static [(&'static str, u8)] = &[$((stringify!($name), $num),)*];
        }
    };
}

signals! {
    SIGHUP = 1; SIGINT = 2; SIGQUIT = 3; SIGILL = 4; SIGTRAP = 5; SIGABRT = 6; SIGBUS = 7; SIGFPE = 8;
    SIGKILL = 9; SIGUSR1 = 10; SIGSEGV = 11; SIGUSR2 = 12; SIGPIPE = 13; SIGALRM = 14; SIGTERM = 15;
    SIGSTKFLT = 16; SIGCHLD = 17; SIGCONT = 18; SIGSTOP = 19; SIGTSTP = 20; SIGTTIN = 21; SIGTTOU = 22;
    SIGURG = 23; SIGXCPU = 24; SIGXFSZ = 25; SIGVTALRM = 26; SIGPROF = 27; SIGWINCH = 28; SIGIO = 29;
    SIGPWR = 30; SIGSYS = 31;
}

impl Signal {
    /// First real-time signal of the kernel's numbering.
    pub const SIGRTMIN: u8 = 32;
    /// Highest signal number.
    pub const MAX: u8 = 64;

    /// Checks a number; `EINVAL` outside `1..=64`.
    pub fn new(number: u32) -> SysResult<Signal> {
        match u8::try_from(number) {
            Ok(n) if (1..=Signal::MAX).contains(&n) => Ok(Signal(n)),
            _ => Err(Errno::EINVAL),
        }
    }
    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
    /// Whether instances queue rather than merge.
    #[must_use]
    pub const fn is_realtime(self) -> bool {
        self.0 >= Signal::SIGRTMIN
    }
    /// `SIGTERM`, `TERM` or `15`, any case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Signal> {
        if let Ok(number) = text.parse::<u32>() {
            return Signal::new(number).ok();
        }
        let upper = text.to_ascii_uppercase();
        let full = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
        Signal::NAMES.iter().find(|(name, _)| *name == full).map(|(_, n)| Signal(*n))
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::NAMES.iter().find(|(_, n)| *n == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "SIGRT_{}", self.0.saturating_sub(Signal::SIGRTMIN)),
        }
    }
}
impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `sigset_t` of the kernel: bit `n - 1` stands for signal `n`.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SigSet(pub u64);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);
    /// Every signal.
    pub const ALL: SigSet = SigSet(u64::MAX);
    /// SIGKILL and SIGSTOP, which nothing can block.
    pub const UNBLOCKABLE: SigSet = SigSet((1 << 8) | (1 << 18));

    /// The set of one signal.
    #[must_use]
    pub const fn of(signal: Signal) -> SigSet {
        SigSet(1 << (signal.0 - 1))
    }
    /// Whether `signal` is in the set.
    #[must_use]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.0 - 1)) != 0
    }
    /// Adds a signal.
    pub fn insert(&mut self, signal: Signal) {
        self.0 |= SigSet::of(signal).0;
    }
    /// Takes a signal out.
    pub fn remove(&mut self, signal: Signal) {
        self.0 &= !SigSet::of(signal).0;
    }
    /// Union.
    #[must_use]
    pub const fn union(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }
    /// Members of `self` that are not in `other`.
    #[must_use]
    pub const fn difference(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }
    /// Common members.
    #[must_use]
    pub const fn intersection(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }
    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// The lowest-numbered member.
    #[must_use]
    pub fn first(self) -> Option<Signal> {
        if self.0 == 0 { None } else { u8::try_from(self.0.trailing_zeros() + 1).ok().map(Signal) }
    }
}

impl fmt::Debug for SigSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigSet({:#x})", self.0)
    }
}
