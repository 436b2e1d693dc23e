//! A scripted platform for unit tests of the kernel: no guest code runs, the memory file is real.
//!
//! Each new context takes the next script. `run` plays one step; what the kernel answered is kept in the
//! script's [`Record`].

use crate::memory::MemoryFile;
use crate::registers::{Registers, ThreadState, initial_xstate};
use crate::seam::{AddressSpace, AsOp, Backing, Context, Exit, Interrupter, OpBatch, Platform, SyscallArgs};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult};
use parking_lot::Mutex;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a scripted guest thread does next. After its last step it has died.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A system call.
    Call {
        /// Its number.
        number: u32,
        /// Its arguments.
        args: [u64; 6],
    },
    /// Any other exit.
    Exit(Exit),
}

/// What happened to a scripted thread.
#[derive(Debug, Default)]
pub struct Record {
    returns: Mutex<Vec<u64>>,
}

impl Record {
    /// The values given to `set_return`, in order.
    #[must_use]
    pub fn returns(&self) -> Vec<u64> {
        self.returns.lock().clone()
    }
}

type Script = (VecDeque<Step>, Arc<Record>);

/// The scripted platform.
#[derive(Debug)]
pub struct Fake {
    memory: Arc<MemoryFile>,
    scripts: Arc<Mutex<VecDeque<Script>>>,
}

impl Fake {
    /// Without scripts, every context has died.
    #[must_use]
    pub fn new(memory: Arc<MemoryFile>) -> Fake {
        Fake { memory, scripts: Arc::default() }
    }

    /// The next context without a script follows this one.
    pub fn script(&self, steps: impl IntoIterator<Item = Step>) -> Arc<Record> {
        let record = Arc::<Record>::default();
        self.scripts.lock().push_back((steps.into_iter().collect(), Arc::clone(&record)));
        record
    }
}

impl Platform for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }
    fn new_address_space(&self) -> SysResult<Arc<dyn AddressSpace>> {
        Ok(Arc::new(FakeSpace { scripts: Arc::clone(&self.scripts), pages: Mutex::default() }))
    }
    fn user_range(&self) -> AddrRange {
        AddrRange::new(0x10000, 0x7fff_ffff_f000).unwrap_or_default()
    }
    fn reserved(&self) -> &[AddrRange] {
        &[]
    }
    fn vdso(&self) -> Option<AddrRange> {
        None
    }
    fn vvar(&self) -> Option<AddrRange> {
        None
    }
    fn memory(&self) -> &Arc<MemoryFile> {
        &self.memory
    }
}

/// An address space that only remembers what is mapped.
#[derive(Debug)]
pub struct FakeSpace {
    scripts: Arc<Mutex<VecDeque<Script>>>,
    /// Page address to offset in the memory file (`None`: a host file) and protection bits.
    pages: Mutex<BTreeMap<u64, (Option<u64>, u32)>>,
}

impl FakeSpace {
    /// What backs the page at `addr`: offset in the memory file if that is what is mapped, and protection.
    #[must_use]
    pub fn page(&self, addr: u64) -> Option<(Option<u64>, u32)> {
        self.pages.lock().get(&(addr - addr % PAGE_SIZE)).copied()
    }

    fn change(&self, op: &AsOp) {
        let mut pages = self.pages.lock();
        match op {
            AsOp::Map { range, prot, backing, .. } => {
                for at in (range.start()..range.end()).step_by(4096) {
                    let offset = match backing {
                        Backing::Memory { offset } => Some(offset + (at - range.start())),
                        Backing::Host { .. } => None,
                    };
                    pages.insert(at, (offset, prot.bits()));
                }
            }
            AsOp::Unmap { range } => pages.retain(|at, _| !range.contains(*at)),
            AsOp::Protect { range, prot } => {
                for (_, page) in pages.range_mut(range.start()..range.end()) {
                    page.1 = prot.bits();
                }
            }
        }
    }
}

impl AddressSpace for FakeSpace {
    fn apply(&self, batch: OpBatch) -> SysResult<()> {
        batch.ops.iter().for_each(|op| self.change(op));
        Ok(())
    }
    fn new_context(self: Arc<Self>, state: &ThreadState) -> SysResult<Box<dyn Context>> {
        let (steps, record) = self.scripts.lock().pop_front().unwrap_or_default();
        let mut context = FakeContext {
            space: self,
            steps,
            record,
            call: SyscallArgs::default(),
            registers: Registers::default(),
            xstate: initial_xstate(),
            bell: Arc::default(),
        };
        context.load(state);
        Ok(Box::new(context))
    }
    fn host_pid(&self) -> Option<i32> {
        None
    }
}

#[derive(Debug)]
struct FakeContext {
    space: Arc<FakeSpace>,
    steps: VecDeque<Step>,
    record: Arc<Record>,
    call: SyscallArgs,
    registers: Registers,
    xstate: Vec<u8>,
    bell: Arc<Bell>,
}

#[derive(Debug, Default)]
struct Bell(AtomicBool);

impl Interrupter for Bell {
    fn interrupt(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Context for FakeContext {
    fn run(&mut self) -> Exit {
        if self.bell.0.swap(false, Ordering::SeqCst) {
            return Exit::Interrupted;
        }
        match self.steps.pop_front() {
            None => Exit::Died,
            Some(Step::Exit(exit)) => exit,
            Some(Step::Call { number, args }) => {
                self.registers.rip = self.registers.rip.wrapping_add(2);
                self.registers.rax = number.into();
                self.registers.orig_rax = number.into();
                let [rdi, rsi, rdx, r10, r8, r9] = args;
                self.registers = Registers { rdi, rsi, rdx, r10, r8, r9, ..self.registers };
                self.call = SyscallArgs { number, args, ip: self.registers.rip };
                Exit::Syscall
            }
        }
    }
    fn syscall(&self) -> SyscallArgs {
        self.call
    }
    fn set_return(&mut self, value: u64) {
        self.registers.rax = value;
        self.record.returns.lock().push(value);
    }
    fn registers(&mut self) -> &mut Registers {
        &mut self.registers
    }
    fn xstate(&mut self) -> &mut Vec<u8> {
        &mut self.xstate
    }
    fn interrupter(&self) -> Arc<dyn Interrupter> {
        Arc::clone(&self.bell) as Arc<dyn Interrupter>
    }
    fn switch(&mut self, space: &Arc<dyn AddressSpace>) -> SysResult<()> {
        let any: Arc<dyn Any + Send + Sync> = Arc::<dyn AddressSpace>::clone(space);
        self.space = any.downcast::<FakeSpace>().map_err(|_| Errno::EINVAL)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::Prot;

    #[test]
    fn plays_its_script() {
        let fake = Fake::new(Arc::new(MemoryFile::create(1 << 21).unwrap()));
        let record = fake.script([Step::Call { number: 39, args: [0; 6] }, Step::Exit(Exit::Interrupted)]);
        let space = fake.new_address_space().unwrap();
        let range = AddrRange::new(0x40_0000, 0x40_2000).unwrap();
        let backing = Backing::Memory { offset: 8192 };
        let map = AsOp::Map { range, prot: Prot::READ, backing, shared: true, populate: false };
        space.apply(OpBatch::one(map)).unwrap();
        let any: Arc<dyn Any + Send + Sync> = Arc::<dyn AddressSpace>::clone(&space);
        let pages = any.downcast::<FakeSpace>().unwrap();
        assert_eq!(pages.page(0x40_1008), Some((Some(12288), 1)));
        let mut context = space.new_context(&ThreadState::default()).unwrap();
        assert_eq!(context.run(), Exit::Syscall);
        context.set_return(5);
        assert_eq!(context.run(), Exit::Interrupted);
        assert_eq!(context.run(), Exit::Died);
        assert_eq!(record.returns(), [5]);
    }
}
