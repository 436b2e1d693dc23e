//! Prints what the systrap backend costs. Run with `--release -- --ignored --nocapture`.
#![expect(clippy::unwrap_used, reason = "a failed step ends the test")]

use abi::{AddrRange, UserAddr};
use platform::memory::MemoryFile;
use platform::systrap::Systrap;
use platform::{
    AddressSpace, AsOp, Backing, Context, Exit, OpBatch, Platform, Prot, Registers, TextSource, ThreadState,
};
use std::sync::Arc;
use std::time::Instant;

const CODE: u64 = 0x40_0000;
const PAGE: u64 = 4096;

/// `1: nop; mov eax,39; syscall; jmp 1b`
const GETPID: &[u8] = &[0x90, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf6];
/// `1: xor eax,eax; syscall; cmp rax,-4096; jmp 1b`
const READ: &[u8] = &[0x31, 0xc0, 0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0xeb, 0xf4];
/// `1: nop; mov eax,39; syscall; mov byte ptr [rdi],1; mov eax,11; syscall; jmp 1b`
const TOUCH: &[u8] =
    &[0x90, 0xb8, 39, 0, 0, 0, 0x0f, 0x05, 0xc6, 0x07, 1, 0xb8, 11, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xec];

fn range(start: u64, len: u64) -> AddrRange {
    AddrRange::from_len(UserAddr::new(start), len).unwrap()
}

fn map(start: u64, prot: Prot, offset: u64) -> AsOp {
    AsOp::Map {
        range: range(start, PAGE),
        prot,
        backing: Backing::Memory { offset },
        shared: true,
        populate: false,
    }
}

fn report(what: &str, n: u32, start: Instant) {
    let ns = start.elapsed().as_nanos() / u128::from(n);
    eprintln!("{what:32} {ns:>9} ns");
}

fn best(what: &str, rounds: u32, n: u32, mut body: impl FnMut()) {
    let mut least = u128::MAX;
    let mut sum = 0;
    for _ in 0..rounds {
        let start = Instant::now();
        for _ in 0..n {
            body();
        }
        let took = start.elapsed().as_nanos() / u128::from(n);
        least = least.min(took);
        sum += took;
    }
    eprintln!("{what:32} {least:>9} ns (mean {})", sum / u128::from(rounds));
}

fn start(code: &[u8]) -> (Systrap, Arc<dyn AddressSpace>, Box<dyn Context>) {
    let memory = Arc::new(MemoryFile::create(64 << 20).unwrap());
    memory.write(0, code).unwrap();
    let platform = Systrap::new(memory).unwrap();
    let space = platform.new_address_space().unwrap();
    space.apply(OpBatch::one(map(CODE, Prot::READ | Prot::EXEC, 0))).unwrap();
    let text: Arc<dyn TextSource> = Arc::new(Text);
    space.attach_text(Arc::downgrade(&text));
    std::mem::forget(text);
    let t = Arc::clone(&space).new_context(&state()).unwrap();
    (platform, space, t)
}

struct Text;

impl TextSource for Text {
    fn private_text(&self, addr: u64) -> abi::SysResult<u64> {
        Ok(addr - CODE)
    }
}

fn state() -> ThreadState {
    let registers = Registers { rip: CODE, eflags: 0x202, rdi: 0x1000_0000, ..Registers::default() };
    ThreadState { registers, xstate: Vec::new() }
}

/// Puts a thread (0: this one) on one CPU.
fn pin(thread: i32, cpus: &[usize]) {
    // SAFETY: plain data of our own.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for cpu in cpus {
            libc::CPU_SET(*cpu, &mut set);
        }
        libc::sched_setaffinity(thread, size_of_val(&set), &raw const set);
    }
}

/// Sentry and guest on a CPU each: what a quiet machine gives. Run under `chrt -f 5` on a busy one.
#[test]
#[ignore = "a measurement"]
fn parted() {
    for (name, code) in [("getpid, parted", GETPID), ("read-like, parted", READ)] {
        let (_platform, space, mut t) = start(code);
        for task in std::fs::read_dir(format!("/proc/{}/task", space.host_pid().unwrap())).unwrap() {
            pin(task.unwrap().file_name().to_str().unwrap().parse().unwrap(), &[1]);
        }
        pin(0, &[0]);
        best(name, 40, 5_000, || {
            assert_eq!(t.run(), Exit::Syscall);
            t.set_return(1);
        });
        pin(0, &[0, 1]);
    }
}

#[test]
#[ignore = "a measurement"]
fn costs() {
    for (name, code) in [("getpid", GETPID), ("read-like", READ)] {
        let (_platform, _space, mut t) = start(code);
        best(name, 40, 5_000, || {
            assert_eq!(t.run(), Exit::Syscall);
            t.set_return(1);
        });
    }
    {
        let (_platform, _space, mut t) = start(GETPID);
        best("getpid with registers()", 20, 2_000, || {
            assert_eq!(t.run(), Exit::Syscall);
            t.registers().rbx += 1;
            t.set_return(1);
        });
    }
    {
        let (_platform, space, _t) = start(GETPID);
        best("apply of one unmap", 20, 1_000, || {
            space.apply(OpBatch::one(AsOp::Unmap { range: range(0x1000_0000, PAGE) })).unwrap();
        });
    }
    {
        let (_platform, space, mut t) = start(TOUCH);
        best("map + touch + unmap", 20, 1_000, || {
            assert_eq!(t.run(), Exit::Syscall);
            space.apply_on_resume(OpBatch::one(map(0x1000_0000, Prot::READ | Prot::WRITE, 0x1_0000)));
            t.set_return(0);
            assert_eq!(t.run(), Exit::Syscall);
            assert_eq!(t.syscall().number, 11);
            space.apply_on_resume(OpBatch::one(AsOp::Unmap { range: range(0x1000_0000, PAGE) }));
            t.set_return(0);
        });
    }
    let (platform, space, t) = start(GETPID);
    best("new address space, dropped", 10, 100, || {
        platform.new_address_space().unwrap();
    });
    best("fork of an address space, dropped", 10, 100, || {
        space.fork().unwrap();
    });
    best("new thread, dropped", 10, 100, || {
        Arc::clone(&space).new_context(&state()).unwrap();
    });
    best("space, map, thread, call, dropped", 10, 100, || {
        let space = platform.new_address_space().unwrap();
        space.apply(OpBatch::one(map(CODE, Prot::READ | Prot::EXEC, 0))).unwrap();
        let mut t = Arc::clone(&space).new_context(&state()).unwrap();
        assert_eq!(t.run(), Exit::Syscall);
    });
    best("the same with a pooled stub", 10, 100, || {
        let space = platform.new_address_space().unwrap();
        space.apply(OpBatch::one(map(CODE, Prot::READ | Prot::EXEC, 0))).unwrap();
        let mut t = Arc::clone(&space).new_context(&state()).unwrap();
        assert_eq!(t.run(), Exit::Syscall);
        t.registers();
        space.retire(platform.user_range(), Box::new(|| ()));
    });
    let begin = Instant::now();
    let threads: Vec<_> = (0..100).map(|_| Arc::clone(&space).new_context(&state()).unwrap()).collect();
    report("new thread", 100, begin);
    let begin = Instant::now();
    drop(threads);
    report("drop of a thread", 100, begin);
    let begin = Instant::now();
    let threads: Vec<_> = (0..100).map(|_| Arc::clone(&space).new_context(&state()).unwrap()).collect();
    report("new thread in a used area", 100, begin);
    drop(threads);
    let begin = Instant::now();
    let spaces: Vec<_> = (0..100).map(|_| platform.new_address_space().unwrap()).collect();
    report("new address space", 100, begin);
    let begin = Instant::now();
    drop(spaces);
    report("drop of an address space", 100, begin);
    drop(t);
    report("end", 1, Instant::now());
}
