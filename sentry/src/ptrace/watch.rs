//! Debug registers of tracees (`u_debugreg` of PTRACE_POKEUSER), without the processor's own.
//!
//! While one is enabled the tracee runs step by step: a write is seen by the value that changed, an execution
//! by the instruction pointer. Reads are not seen, and a write of the value that is there is none.

use crate::task::Cx;
use abi::{Errno, SysResult, UserAddr};

/// The trap flag.
const TF: u64 = 0x100;
/// DR6: a single step.
const STEP: u64 = 1 << 14;
/// Debug registers with an address.
const COUNT: usize = 4;

/// Values of the debug registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DebugRegisters {
    addr: [u64; COUNT],
    status: u64,
    control: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Execute,
    Write,
}

impl DebugRegisters {
    /// DR0 to DR7.
    #[must_use]
    pub fn get(&self, number: usize) -> u64 {
        match number {
            6 => self.status,
            7 => self.control,
            _ => self.addr.get(number).copied().unwrap_or(0),
        }
    }
    /// `EINVAL` for what is no address or condition, `EIO` for DR4 and DR5.
    pub fn set(&mut self, number: usize, value: u64) -> SysResult<()> {
        let mut new = *self;
        match number {
            6 => new.status = value,
            7 => new.control = value,
            _ => *new.addr.get_mut(number).ok_or(Errno::EIO)? = value,
        }
        for at in 0..COUNT {
            new.check(at)?;
        }
        *self = new;
        Ok(())
    }
    fn is_enabled(&self, at: usize) -> bool {
        (self.control >> (2 * at)) & 3 != 0
    }
    fn len(&self, at: usize) -> u64 {
        match (self.control >> (18 + 4 * at)) & 3 {
            0 => 1,
            1 => 2,
            2 => 8,
            _ => 4,
        }
    }
    fn kind(&self, at: usize) -> SysResult<Kind> {
        match (self.control >> (16 + 4 * at)) & 3 {
            0 => Ok(Kind::Execute),
            // Ports.
            2 => Err(Errno::EINVAL),
            _ => Ok(Kind::Write),
        }
    }
    fn check(&self, at: usize) -> SysResult<()> {
        let addr = self.addr.get(at).copied().unwrap_or(0);
        if !self.is_enabled(at) {
            return Ok(());
        }
        let kind = self.kind(at)?;
        let fits = addr.is_multiple_of(self.len(at)) && (kind == Kind::Write || self.len(at) == 1);
        if addr >= crate::loader::TASK_SIZE || !fits { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

/// A tracee's debug registers at work.
#[derive(Debug)]
pub struct Watch {
    registers: DebugRegisters,
    values: [u64; COUNT],
    /// The tracer wants each step itself.
    steps: bool,
}

/// How the tracer resumes, for [`arm`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stepping {
    /// PTRACE_SINGLESTEP.
    Each,
    /// Anything else.
    No,
}

fn value(cx: &Cx<'_>, registers: &DebugRegisters, at: usize) -> u64 {
    let mut bytes = [0; 8];
    let len = usize::try_from(registers.len(at)).unwrap_or(8);
    let addr = registers.addr.get(at).copied().unwrap_or(0);
    // What cannot be read counts as zero.
    let _ = cx.mm().read_partial(UserAddr::new(addr), bytes.get_mut(..len).unwrap_or_default());
    u64::from_le_bytes(bytes)
}

/// The tracee goes on with these registers.
pub fn arm(cx: &mut Cx<'_>, registers: DebugRegisters, stepping: Stepping) {
    if !(0..COUNT).any(|at| registers.is_enabled(at)) {
        cx.owned.debug = None;
        return;
    }
    let mut values = [0; COUNT];
    for (at, slot) in values.iter_mut().enumerate().filter(|(at, _)| registers.is_enabled(*at)) {
        *slot = value(cx, &registers, at);
    }
    cx.owned.debug = Some(Box::new(Watch { registers, values, steps: stepping == Stepping::Each }));
}

/// About to enter the guest.
pub fn enter(cx: &mut Cx<'_>) {
    if cx.owned.debug.is_some() {
        cx.context.registers().eflags |= TF;
    }
}

/// What a trap of the trap flag means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// A step that nobody but the watch wanted.
    Silent,
    /// A step of the tracer.
    Step,
    /// A condition of the debug registers.
    Hit,
}

/// Looks at the conditions after a step.
pub fn trapped(cx: &mut Cx<'_>) -> Trap {
    let Some(mut watch) = cx.owned.debug.take() else { return Trap::Step };
    let rip = cx.context.registers().rip;
    let mut hits = 0;
    for at in (0..COUNT).filter(|at| watch.registers.is_enabled(*at)) {
        let hit = match watch.registers.kind(at) {
            Ok(Kind::Execute) => watch.registers.addr.get(at) == Some(&rip),
            Ok(Kind::Write) => {
                let now = value(cx, &watch.registers, at);
                let before = watch.values.get_mut(at).map(|slot| std::mem::replace(slot, now));
                before != Some(now)
            }
            Err(_) => false,
        };
        if hit {
            hits |= 1 << at;
        }
    }
    let steps = watch.steps;
    cx.owned.debug = Some(watch);
    let status = hits | if steps { STEP } else { 0 };
    if let Some(trace) = cx.shared.trace.lock().as_mut() {
        trace.debug.status = status;
    }
    match (hits, steps) {
        (0, false) => Trap::Silent,
        (0, true) => Trap::Step,
        _ => Trap::Hit,
    }
}
