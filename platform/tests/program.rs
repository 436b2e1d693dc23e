//! A real static program under a kernel of eight system calls: whether a platform keeps registers, thread
//! pointer, vector state and memory together as programs need them.

#![expect(clippy::unwrap_used, reason = "a test program")]

use abi::{AddrRange, Errno};
use platform::memory::MemoryFile;
use platform::registers::{USER_CS, USER_SS};
use platform::{AddressSpace, AsOp, Backing, Context, Exit, OpBatch, Platform, Prot, Registers, ThreadState};
use std::sync::Arc;

const STACK: u64 = 0x7000_0000_0000;
const STACK_LEN: u64 = 64 << 10;
const MMAP: u64 = 0x6000_0000_0000;
const ALL: Prot = Prot::all();

struct Kernel {
    memory: Arc<MemoryFile>,
    space: Arc<dyn AddressSpace>,
    /// Guest address, length and offset in the memory file of everything mapped.
    maps: Vec<(u64, u64, u64)>,
    free: u64,
    brk: u64,
    next: u64,
    out: Vec<u8>,
}

fn floor(value: u64) -> u64 {
    value & !4095
}

fn ceil(value: u64) -> u64 {
    floor(value + 4095)
}

impl Kernel {
    fn map(&mut self, start: u64, len: u64) {
        let range = AddrRange::new(start, start + len).unwrap();
        let backing = Backing::Memory { offset: self.free };
        self.space
            .apply(OpBatch::one(AsOp::Map { range, prot: ALL, backing, shared: true, populate: false }))
            .unwrap();
        self.maps.push((start, len, self.free));
        self.free += len;
    }

    fn offset(&self, addr: u64) -> Option<u64> {
        let found = self.maps.iter().rev().find(|(start, len, _)| addr >= *start && addr - start < *len)?;
        Some(addr - found.0 + found.2)
    }

    fn store(&self, addr: u64, bytes: &[u8]) {
        self.memory.write(self.offset(addr).unwrap(), bytes).unwrap();
    }

    fn load(&mut self, elf: &[u8]) -> (u64, u64) {
        let u16_at = |at: usize| u16::from_le_bytes(elf[at..at + 2].try_into().unwrap());
        let u32_at = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap());
        let size = |value: u64| usize::try_from(value).unwrap();
        assert_eq!(u16_at(16), 2, "not a fixed-address program");
        let headers = size(u64_at(32));
        let (mut low, mut high) = (u64::MAX, 0);
        let loads: Vec<_> =
            (0..usize::from(u16_at(56))).map(|i| headers + 56 * i).filter(|at| u32_at(*at) == 1).collect();
        for at in &loads {
            low = low.min(floor(u64_at(at + 16)));
            high = high.max(ceil(u64_at(at + 16) + u64_at(at + 40)));
        }
        self.map(low, high - low);
        for at in &loads {
            let from = size(u64_at(at + 8));
            self.store(u64_at(at + 16), &elf[from..from + size(u64_at(at + 32))]);
        }
        self.brk = high;
        (u64_at(24), low + u64_at(32))
    }

    fn stack(&mut self, args: &[&str], auxv: &[(u64, u64)]) -> u64 {
        self.map(STACK, STACK_LEN);
        let mut at = STACK + STACK_LEN - 4096;
        let mut words = vec![args.len() as u64];
        for arg in args {
            self.store(at, arg.as_bytes());
            words.push(at);
            at += arg.len() as u64 + 1;
        }
        words.extend([0, 0]);
        let random = ceil(at) - 16;
        let mut all: Vec<(u64, u64)> = auxv.to_vec();
        all.extend([(25, random), (6, 4096), (0, 0)]);
        words.extend(all.iter().flat_map(|(key, value)| [*key, *value]));
        let sp = STACK + STACK_LEN / 2;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.store(sp, &bytes);
        sp
    }

    fn call(&mut self, context: &mut dyn Context) -> Result<u64, Errno> {
        let call = context.syscall();
        let [a, b, c, d, ..] = call.args;
        match call.number {
            // write
            1 => {
                let mut text = vec![0; usize::try_from(c).unwrap()];
                self.memory.read(self.offset(b).ok_or(Errno::EFAULT)?, &mut text).unwrap();
                self.out.extend(text);
                Ok(c)
            }
            // writev
            20 => {
                let mut total = 0;
                for i in 0..c {
                    let mut iov = [0; 16];
                    self.memory.read(self.offset(b + 16 * i).ok_or(Errno::EFAULT)?, &mut iov).unwrap();
                    let base = u64::from_le_bytes(iov[..8].try_into().unwrap());
                    let len = u64::from_le_bytes(iov[8..].try_into().unwrap());
                    if len > 0 {
                        let mut text = vec![0; usize::try_from(len).unwrap()];
                        self.memory.read(self.offset(base).ok_or(Errno::EFAULT)?, &mut text).unwrap();
                        self.out.extend(text);
                    }
                    total += len;
                }
                Ok(total)
            }
            // mmap, anonymous
            9 if d & 0x20 != 0 => {
                let start = self.next;
                self.next += ceil(b) + 4096;
                self.map(start, ceil(b));
                Ok(start)
            }
            // mprotect, munmap
            10 | 11 => Ok(0),
            // brk
            12 => {
                if a > self.brk {
                    let start = ceil(self.brk);
                    if ceil(a) > start {
                        self.map(start, ceil(a) - start);
                    }
                    self.brk = a;
                }
                Ok(self.brk)
            }
            // arch_prctl(ARCH_SET_FS)
            158 if a == 0x1002 => {
                context.registers().fs_base = b;
                Ok(0)
            }
            // getuid and its like, set_tid_address
            102 | 104 | 107 | 108 | 218 => Ok(0),
            _ => Err(Errno::ENOSYS),
        }
    }
}

fn run(platform: &dyn Platform, path: &str, args: &[&str]) -> (Vec<u8>, u64) {
    // Fresh memory reads as zero.
    platform.memory().punch(0, platform.memory().limit()).unwrap();
    let space = platform.new_address_space().unwrap();
    let mut kernel = Kernel {
        memory: Arc::clone(platform.memory()),
        space: Arc::clone(&space),
        maps: Vec::new(),
        free: 0,
        brk: 0,
        next: MMAP,
        out: Vec::new(),
    };
    let elf = std::fs::read(path).unwrap();
    let (entry, headers) = kernel.load(&elf);
    let count = u64::from(u16::from_le_bytes([elf[56], elf[57]]));
    let mut auxv = vec![(3, headers), (4, 56), (5, count), (9, entry), (11, 0), (12, 0), (13, 0), (14, 0)];
    auxv.extend(platform.vdso().map(|vdso| (33, vdso.start())));
    let rsp = kernel.stack(args, &auxv);
    let registers =
        Registers { rip: entry, rsp, cs: USER_CS, ss: USER_SS, eflags: 0x202, ..Registers::default() };
    let mut context = space.new_context(&ThreadState { registers, xstate: Vec::new() }).unwrap();
    for _ in 0..100_000 {
        match context.run() {
            Exit::Syscall => {}
            exit => panic!("{exit:?} at {:x?}", context.registers()),
        }
        let call = context.syscall();
        // exit, exit_group
        if call.number == 60 || call.number == 231 {
            return (kernel.out, call.args[0]);
        }
        let answer = kernel.call(&mut *context);
        context.set_return(answer.unwrap_or_else(Errno::as_return));
    }
    panic!("the program never ends");
}

const BUSYBOX: &str = "/bin/busybox";

fn programs(platform: &dyn Platform) {
    if !std::path::Path::new(BUSYBOX).exists() {
        return;
    }
    let (out, status) = run(platform, BUSYBOX, &["busybox", "echo", "hello", "world"]);
    assert_eq!((String::from_utf8_lossy(&out).as_ref(), status), ("hello world\n", 0));
    let (out, status) = run(platform, BUSYBOX, &["busybox", "expr", "6", "*", "7"]);
    assert_eq!((String::from_utf8_lossy(&out).as_ref(), status), ("42\n", 0));
    let (out, _) = run(platform, BUSYBOX, &["busybox", "seq", "1", "2000"]);
    assert_eq!(out.len(), (1..=2000).map(|n: u32| n.to_string().len() + 1).sum::<usize>());
    assert_eq!(run(platform, BUSYBOX, &["busybox", "false"]).1, 1);
}

#[test]
fn busybox_on_ptrace() {
    let memory = Arc::new(MemoryFile::create(1 << 40).unwrap());
    programs(&platform::ptrace::Ptrace::new(memory).unwrap());
}

#[test]
fn busybox_on_systrap() {
    let memory = Arc::new(MemoryFile::create(1 << 40).unwrap());
    programs(&platform::systrap::Systrap::new(memory).unwrap());
}
