//! UNSAFE: copies that survive a fault.
//!
//! Every load and store that may hit a missing page is one of a handful of assembly routines whose
//! address ranges are known. The process-wide SIGSEGV/SIGBUS handler sends a fault inside one of them to
//! its fix-up; any other fault goes where it went before, so that a real bug still ends the process.
//! Assembly also makes concurrent writes by the guest harmless: the compiler sees no racing access.

use abi::{Errno, SysResult};
use std::arch::global_asm;
use std::sync::OnceLock;

global_asm!(
    ".pushsection .text.gvrs_tolerant, \"ax\", @progbits",
    // Visible to the crate's other object files, hidden from the dynamic linker.
    ".globl gvrs_copy, gvrs_copy_end, gvrs_zero, gvrs_zero_end, gvrs_load, gvrs_load_end",
    ".globl gvrs_cas, gvrs_cas_end, gvrs_swap, gvrs_swap_end, gvrs_left_fixup, gvrs_word_fixup",
    ".hidden gvrs_copy, gvrs_copy_end, gvrs_zero, gvrs_zero_end, gvrs_load, gvrs_load_end",
    ".hidden gvrs_cas, gvrs_cas_end, gvrs_swap, gvrs_swap_end, gvrs_left_fixup, gvrs_word_fixup",
    ".balign 16",
    // rdi: to, rsi: from, rdx: bytes. Returns bytes left.
    "gvrs_copy:",
    "mov rcx, rdx",
    "cmp rcx, 64",
    "ja 3f",
    "2: cmp rcx, 8",
    "jb 4f",
    "mov rax, [rsi]",
    "mov [rdi], rax",
    "add rsi, 8",
    "add rdi, 8",
    "sub rcx, 8",
    "jmp 2b",
    "4: test rcx, rcx",
    "jz 5f",
    "mov al, [rsi]",
    "mov [rdi], al",
    "inc rsi",
    "inc rdi",
    "dec rcx",
    "jmp 4b",
    "3: rep movsb",
    "5: xor eax, eax",
    "ret",
    "gvrs_copy_end:",
    // rdi: to, rdx: bytes. Returns bytes left.
    ".balign 16",
    "gvrs_zero:",
    "mov rcx, rdx",
    "xor eax, eax",
    "rep stosb",
    "ret",
    "gvrs_zero_end:",
    "gvrs_left_fixup:",
    "mov rax, rcx",
    "ret",
    // rdi: word. Returns value in rax, fault flag in rdx.
    ".balign 16",
    "gvrs_load:",
    "mov eax, [rdi]",
    "xor edx, edx",
    "ret",
    "gvrs_load_end:",
    // rdi: word, esi: old, edx: new. Returns value found in rax, fault flag in rdx.
    ".balign 16",
    "gvrs_cas:",
    "mov eax, esi",
    "lock cmpxchg [rdi], edx",
    "mov eax, eax",
    "xor edx, edx",
    "ret",
    "gvrs_cas_end:",
    // rdi: word, esi: value. Returns the former value in rax, fault flag in rdx.
    ".balign 16",
    "gvrs_swap:",
    "mov eax, esi",
    "xchg [rdi], eax",
    "xor edx, edx",
    "ret",
    "gvrs_swap_end:",
    "gvrs_word_fixup:",
    "xor eax, eax",
    "mov edx, 1",
    "ret",
    ".popsection",
);

#[repr(C)]
struct Word {
    value: u64,
    fault: u64,
}

unsafe extern "C" {
    fn gvrs_copy(to: *mut u8, from: *const u8, len: usize) -> usize;
    fn gvrs_zero(to: *mut u8, unused: usize, len: usize) -> usize;
    fn gvrs_load(word: *const u32) -> Word;
    fn gvrs_cas(word: *mut u32, old: u32, new: u32) -> Word;
    fn gvrs_swap(word: *mut u32, value: u32) -> Word;
    fn gvrs_copy_end();
    fn gvrs_zero_end();
    fn gvrs_load_end();
    fn gvrs_cas_end();
    fn gvrs_swap_end();
    fn gvrs_left_fixup();
    fn gvrs_word_fixup();
}

fn fixup(ip: usize) -> Option<usize> {
    let left = gvrs_left_fixup as *const () as usize;
    let word = gvrs_word_fixup as *const () as usize;
    let table = [
        (gvrs_copy as *const () as usize, gvrs_copy_end as *const () as usize, left),
        (gvrs_zero as *const () as usize, gvrs_zero_end as *const () as usize, left),
        (gvrs_load as *const () as usize, gvrs_load_end as *const () as usize, word),
        (gvrs_cas as *const () as usize, gvrs_cas_end as *const () as usize, word),
        (gvrs_swap as *const () as usize, gvrs_swap_end as *const () as usize, word),
    ];
    table.iter().find(|(start, end, _)| (*start..*end).contains(&ip)).map(|(_, _, target)| *target)
}

struct Former {
    segv: libc::sigaction,
    bus: libc::sigaction,
}

static FORMER: OnceLock<Former> = OnceLock::new();

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context_ptr = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid ucontext_t that nothing else uses.
    let registers = unsafe { &mut (*context_ptr).uc_mcontext.gregs };
    let index = libc::REG_RIP.cast_unsigned() as usize;
    let ip = usize::try_from(registers[index].cast_unsigned()).unwrap_or(0);
    if let Some(target) = fixup(ip) {
        registers[index] = (target as u64).cast_signed();
        return;
    }
    let former = FORMER.get().map(|f| if signal == libc::SIGBUS { &f.bus } else { &f.segv });
    match former {
        Some(action) if action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: the address came from sigaction(2) as an installed handler; handlers without
            // SA_SIGINFO ignore the two further arguments.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(action.sa_sigaction) };
            handler(signal, info, context);
        }
        _ => {
            // SAFETY: resetting a signal to its default touches no memory of ours; the fault repeats on
            // return and then ends the process.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}

fn install_one(signal: libc::c_int) -> libc::sigaction {
    // SAFETY: all-zero is a valid sigaction (SIG_DFL, no flags, empty mask).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut former: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
    // SAFETY: both pointers are valid for the call; the handler is async-signal-safe.
    unsafe { libc::sigaction(signal, &raw const action, &raw mut former) };
    former
}

/// Installs the fault handler, once per process. Everything that maps memory for tolerant copies calls it.
pub(crate) fn install_handler() {
    FORMER.get_or_init(|| Former { segv: install_one(libc::SIGSEGV), bus: install_one(libc::SIGBUS) });
}

/// A mapping of this process that copies may touch: base address and length.
///
/// Not the owner of the mapping. Every method checks its bounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    base: usize,
    len: usize,
}

impl Region {
    /// # Safety
    /// `base..base + len` must be mapped (or reserved) by the caller for as long as the value and its
    /// copies are used, and hold no Rust object.
    pub(crate) unsafe fn new(base: usize, len: usize) -> Region {
        Region { base, len }
    }

    pub(crate) fn base(&self) -> usize {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of `len` bytes at `offset`; `EFAULT` outside.
    pub(crate) fn at(&self, offset: u64, len: u64) -> SysResult<usize> {
        let offset = usize::try_from(offset).map_err(|_| Errno::EFAULT)?;
        let len = usize::try_from(len).map_err(|_| Errno::EFAULT)?;
        let end = offset.checked_add(len).ok_or(Errno::EFAULT)?;
        if end > self.len { Err(Errno::EFAULT) } else { Ok(self.base + offset) }
    }

    fn word(&self, offset: u64) -> SysResult<usize> {
        let addr = self.at(offset, 4)?;
        if addr % 4 != 0 { Err(Errno::EINVAL) } else { Ok(addr) }
    }

    pub(crate) fn read(&self, offset: u64, dst: &mut [u8]) -> SysResult<()> {
        let from = self.at(offset, dst.len() as u64)?;
        // SAFETY: `dst` is ours for `dst.len()` bytes; `from` lies in the region, and a fault there is
        // caught and reported as bytes left.
        done(unsafe { gvrs_copy(dst.as_mut_ptr(), from as *const u8, dst.len()) })
    }

    pub(crate) fn write(&self, offset: u64, src: &[u8]) -> SysResult<()> {
        let to = self.at(offset, src.len() as u64)?;
        // SAFETY: the region holds no Rust object, `to` lies in it, and a fault there is caught.
        done(unsafe { gvrs_copy(to as *mut u8, src.as_ptr(), src.len()) })
    }

    pub(crate) fn copy_to(&self, from: u64, target: &Region, to: u64, len: u64) -> SysResult<()> {
        let from = self.at(from, len)?;
        let to = target.at(to, len)?;
        let len = usize::try_from(len).map_err(|_| Errno::EFAULT)?;
        // SAFETY: both ends lie in regions without Rust objects; faults on either side are caught.
        done(unsafe { gvrs_copy(to as *mut u8, from as *const u8, len) })
    }

    pub(crate) fn zero(&self, offset: u64, len: u64) -> SysResult<()> {
        let to = self.at(offset, len)?;
        let len = usize::try_from(len).map_err(|_| Errno::EFAULT)?;
        // SAFETY: the region holds no Rust object, `to` lies in it, and a fault there is caught.
        done(unsafe { gvrs_zero(to as *mut u8, 0, len) })
    }

    pub(crate) fn load_u32(&self, offset: u64) -> SysResult<u32> {
        let addr = self.word(offset)?;
        // SAFETY: an aligned word of the region; a fault is caught and flagged.
        value(&unsafe { gvrs_load(addr as *const u32) })
    }

    pub(crate) fn store_u32(&self, offset: u64, word: u32) -> SysResult<()> {
        let addr = self.word(offset)?;
        // SAFETY: an aligned word of a region without Rust objects; a fault is caught and flagged.
        value(&unsafe { gvrs_swap(addr as *mut u32, word) }).map(|_| ())
    }

    pub(crate) fn cas_u32(&self, offset: u64, old: u32, new: u32) -> SysResult<u32> {
        let addr = self.word(offset)?;
        // SAFETY: as for `store_u32`.
        value(&unsafe { gvrs_cas(addr as *mut u32, old, new) })
    }

    /// Host iovecs for `(offset, len)` pairs; at most IOV_MAX of them are taken.
    pub(crate) fn iovecs(&self, ranges: &[(u64, usize)]) -> SysResult<smallvec::SmallVec<[libc::iovec; 16]>> {
        let mut iovecs = smallvec::SmallVec::new();
        for (offset, len) in ranges.iter().take(libc::UIO_MAXIOV.cast_unsigned() as usize) {
            let base = self.at(*offset, *len as u64)?;
            iovecs.push(libc::iovec { iov_base: base as *mut libc::c_void, iov_len: *len });
        }
        Ok(iovecs)
    }
}

fn done(left: usize) -> SysResult<()> {
    if left == 0 { Ok(()) } else { Err(Errno::EFAULT) }
}

fn value(word: &Word) -> SysResult<u32> {
    if word.fault != 0 {
        return Err(Errno::EFAULT);
    }
    u32::try_from(word.value).map_err(|_| Errno::EFAULT)
}
