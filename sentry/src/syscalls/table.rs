//! Every system call, one line each. Dispatch, the trace and docs/compatibility.md derive from it.
//!
//! `number path::to::handler(argument: Type, ...) Support "note";` The handler is
//! `fn(cx: &mut Cx<'_>, Type, ...) -> CallResult<R>`; the last segment of the path is the call's name.

use super::args::{FromReg, IntoReturn};
use super::trace::{Line, Trace};
use crate::task::Cx;
use abi::CallResult;
use abi::UserPtr;

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
    39 process::ids::getpid() Full;
    186 process::ids::gettid() Full;
    63 system::uname::uname(buf: UserPtr<abi::system::Utsname>) Full;
}
