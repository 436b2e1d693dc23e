//! The traits between the kernel and what runs guest code.

use crate::registers::{Registers, ThreadState};
use abi::{AddrRange, Errno, SysResult};
use std::os::fd::OwnedFd;
use std::sync::Arc;

bitflags::bitflags! {
    /// `PROT_*` of mmap(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Prot: u32 {
        /// Pages may be read.
        const READ = 1;
        /// Pages may be written.
        const WRITE = 2;
        /// Pages may be executed.
        const EXEC = 4;
    }
}

/// What a faulting instruction wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Exec,
}

/// Why the guest stopped running.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// A system call; see [`Context::syscall`]. The answer is given with [`Context::set_return`].
    Syscall,
    /// A page fault (host SIGSEGV or SIGBUS with an address). The kernel maps the page or sends a signal.
    Fault {
        /// Faulting address (CR2).
        addr: u64,
        /// Kind of access, from the error code.
        access: Access,
    },
    /// Any other synchronous exception, as Linux would report it.
    Exception {
        /// Signal that Linux sends: SIGFPE, SIGILL, SIGTRAP, SIGSEGV (general protection), SIGBUS.
        signal: abi::signal::Signal,
        /// `si_code` that goes with it.
        code: i32,
        /// `si_addr` that goes with it.
        addr: u64,
    },
    /// [`Interrupter::interrupt`] was called; no guest state was lost.
    Interrupted,
    /// The stub thread or process is gone (only ever the guest's or the host's doing). The kernel
    /// treats it as SIGKILL of that guest process.
    Died,
}

/// Number and arguments of a system call, as the guest's registers held them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SyscallArgs {
    /// `rax`. Full 64 bits are not meaningful to Linux: it is cut to 32.
    pub number: u32,
    /// `rdi rsi rdx r10 r8 r9`.
    pub args: [u64; 6],
    /// Address after the `syscall` instruction.
    pub ip: u64,
}

/// One guest thread, used by exactly one host thread for its whole life (the one that first calls
/// `run`). Dropping it ends the stub thread.
pub trait Context: Send {
    /// Runs the guest until it needs the kernel.
    fn run(&mut self) -> Exit;

    /// The call of the last `Exit::Syscall`. Cheap: never needs the full register file.
    fn syscall(&self) -> SyscallArgs;

    /// Sets the value the guest finds in `rax` when it next runs.
    fn set_return(&mut self, value: u64);

    /// The full register file, which the caller may change; changes are loaded at the next `run`.
    /// After `Exit::Syscall`, `rip` stands behind the call, `rax` holds what `set_return` gave (else the
    /// call's number), `orig_rax` the number. May cost a round trip to the stub. `Err(())` is spelled
    /// [`Exit::Died`] at the next `run`; until then the registers read as zero.
    fn registers(&mut self) -> &mut Registers;

    /// Vector and FPU state in the layout of the hardware's XSAVE area (Intel SDM vol. 1, 13.4), with
    /// the software bytes of the kernel's signal frame left zero. Same rules as `registers`.
    fn xstate(&mut self) -> &mut Vec<u8>;

    /// A handle with which any thread can make the current or the next `run` return
    /// `Exit::Interrupted` (or another exit that was under way).
    fn interrupter(&self) -> Arc<dyn Interrupter>;

    /// Sets the thread state for a fresh program or a copy of another thread.
    fn load(&mut self, state: &ThreadState) {
        *self.registers() = state.registers;
        *self.xstate() = state.xstate.clone();
    }

    /// Moves this context to another address space (execve, or a vfork child's exec). The old stub
    /// thread ends; register state is lost and must be `load`ed.
    fn switch(&mut self, space: &Arc<dyn AddressSpace>) -> SysResult<()>;

    /// Allows or forbids answers inside the stub. A hint: backends without them ignore it.
    fn local_answers(&mut self, _answers: Option<LocalAnswers>) {}
}

/// See [`Context::interrupter`].
pub trait Interrupter: Send + Sync {
    /// Asks for a return from `run`. Asynchronous, idempotent, callable from any thread at any time.
    fn interrupt(&self);
}

/// What stands behind a mapping.
#[derive(Clone, Debug)]
pub enum Backing {
    /// An offset of the sandbox's memory file, in bytes, page aligned.
    Memory {
        /// Byte offset.
        offset: u64,
    },
    /// A donated host file. Passed to the stub for the mapping, closed there after it.
    Host {
        /// The file; kept open by the kernel.
        fd: Arc<OwnedFd>,
        /// Byte offset, page aligned.
        offset: u64,
    },
}

/// One change of a guest address space. Ranges are page aligned and inside [`Platform::user_range`].
#[derive(Clone, Debug)]
pub enum AsOp {
    /// Map `backing` over `range`, replacing what was there (always `MAP_SHARED | MAP_FIXED`, except that
    /// host files may be mapped `MAP_PRIVATE` without WRITE when `shared` is false).
    Map {
        /// Where.
        range: AddrRange,
        /// Access.
        prot: Prot,
        /// Source.
        backing: Backing,
        /// MAP_SHARED rather than MAP_PRIVATE.
        shared: bool,
        /// Prefault the range, whose pages are resident already (MADV_POPULATE_READ).
        populate: bool,
    },
    /// Remove whatever is mapped in `range`; touching it is an `Exit::Fault`.
    Unmap {
        /// Where.
        range: AddrRange,
    },
    /// Change access of what is mapped in `range`; holes are fine and stay holes.
    Protect {
        /// Where.
        range: AddrRange,
        /// New access.
        prot: Prot,
    },
}

/// Operations that belong together, in order, and what to do once they are complete in the stub.
#[derive(Default)]
pub struct OpBatch {
    /// The operations.
    pub ops: smallvec::SmallVec<[AsOp; 2]>,
    /// Runs when all `ops` took effect (frees the pages that an unmap released), or when the address
    /// space died.
    pub then: Option<Box<dyn FnOnce() + Send>>,
}

/// One guest address space: a stub process that can see nothing but what is mapped into it.
/// Dropping the last reference ends the stub and all its threads.
pub trait AddressSpace: std::any::Any + Send + Sync {
    /// Carries out `batch` before it returns. `ENOMEM` when the host refuses a mapping; `ESRCH` when the
    /// stub is dead.
    fn apply(&self, batch: OpBatch) -> SysResult<()>;

    /// Like `apply`, but a backend may postpone the work until the calling thread's own context in this
    /// address space next runs (the operations then ride on the reply). Other guest threads may see the
    /// old state until then. A failure then shows as a fault or `Died`.
    ///
    /// Batches of one address space take effect in the order in which they were handed over, whichever thread
    /// did it and through whichever of the two methods: a postponed batch is carried out before any later one.
    fn apply_on_resume(&self, batch: OpBatch) {
        // A failure here is a dead stub or a missing mapping: the guest's next touch reports it.
        let _ = self.apply(batch);
    }

    /// The kernel needs this address space no more: nothing in it will run again. `then` runs once no
    /// thread of the stub can touch a mapped page any longer (the stub is dead, or wiped for re-use).
    fn retire(&self, range: AddrRange, then: Box<dyn FnOnce() + Send>) {
        let ops = smallvec::smallvec![AsOp::Unmap { range }];
        // A dead stub drops the batch, which runs `then` as well.
        let _ = self.apply(OpBatch { ops, then: Some(then) });
    }

    /// A new guest thread in this address space, starting from `state`.
    fn new_context(self: Arc<Self>, state: &ThreadState) -> SysResult<Box<dyn Context>>;

    /// A copy of the address space with all current mappings (the host's fork), or `None` when the
    /// backend wants the kernel to replay its mappings into a fresh one. Both sides' writable private
    /// pages must be write-protected by the kernel before or after, as it sees fit.
    fn fork(&self) -> SysResult<Option<Arc<dyn AddressSpace>>> {
        Ok(None)
    }

    /// Makes `len` bytes of code at `addr` visible as the guest wrote them (undo patches), for debuggers
    /// and for reads of text. No-op without a patcher.
    fn original_text(&self, _addr: u64, _buf: &mut [u8]) {}

    /// Tells where text comes from. Without a source, no call site is patched.
    fn attach_text(&self, _source: std::sync::Weak<dyn TextSource>) {}

    /// Host pid of the stub process, for `runsc debug` and tests of the walls.
    fn host_pid(&self) -> Option<i32>;
}

/// What a backend that patches call sites needs from the kernel's memory manager.
pub trait TextSource: Send + Sync {
    /// Makes the executable page at `addr` a private page of the memory file, mapped in the stub in place of
    /// what was there, and returns its offset in the file. Idempotent. `EFAULT` when the page is not mapped
    /// executable.
    fn private_text(&self, addr: u64) -> SysResult<u64>;
}

/// Constants of a guest thread that a backend may answer inside the stub, without the kernel.
/// `None` takes local answers away (the guest is traced or filtered).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LocalAnswers {
    /// getpid(2).
    pub tgid: u32,
    /// gettid(2).
    pub tid: u32,
    /// getppid is not here: it changes behind the thread's back.
    /// getuid(2), geteuid(2), getgid(2), getegid(2).
    pub ids: [u32; 4],
}

/// A way to run guests.
pub trait Platform: Send + Sync {
    /// `systrap` or `ptrace`.
    fn name(&self) -> &'static str;

    /// A fresh, empty address space (pooled where the backend can).
    fn new_address_space(&self) -> SysResult<Arc<dyn AddressSpace>>;

    /// Where guests may map: lowest and highest address.
    fn user_range(&self) -> AddrRange;

    /// Ranges inside `user_range` that belong to the stub (hidden from maps; MAP_FIXED there is ENOMEM).
    fn reserved(&self) -> &[AddrRange];

    /// The host's `[vdso]` in every address space, for AT_SYSINFO_EHDR.
    fn vdso(&self) -> Option<AddrRange>;

    /// The host's `[vvar]` in every address space.
    fn vvar(&self) -> Option<AddrRange>;

    /// Whether a context must be served by a host thread that serves no other before or after.
    fn binds_host_threads(&self) -> bool {
        false
    }

    /// The memory file that `Backing::Memory` names.
    fn memory(&self) -> &Arc<crate::memory::MemoryFile>;
}

impl From<Prot> for Access {
    fn from(prot: Prot) -> Access {
        if prot.contains(Prot::WRITE) {
            Access::Write
        } else if prot.contains(Prot::EXEC) {
            Access::Exec
        } else {
            Access::Read
        }
    }
}

impl OpBatch {
    /// A batch of one.
    #[must_use]
    pub fn one(op: AsOp) -> OpBatch {
        OpBatch { ops: smallvec::smallvec![op], then: None }
    }
    /// Runs the completion.
    pub fn complete(&mut self) {
        if let Some(then) = self.then.take() {
            then();
        }
    }
}

impl Drop for OpBatch {
    fn drop(&mut self) {
        self.complete();
    }
}

/// What a dead stub reports.
pub const DEAD: Errno = Errno::ESRCH;
