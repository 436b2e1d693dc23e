//! The systrap backend on hand-assembled guests.
#![expect(clippy::unwrap_used, reason = "a failed step ends the test")]

use abi::signal::Signal;
use abi::{AddrRange, UserAddr};
use platform::memory::MemoryFile;
use platform::systrap::Systrap;
use platform::{
    Access, AddressSpace, AsOp, Backing, Context, Exit, LocalAnswers, OpBatch, Platform, Prot, Registers,
    TextSource, ThreadState,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

mod guests;
use guests::{
    guest_attack, guest_bases, guest_clone, guest_deaf, guest_end, guest_fault, guest_mixed, guest_odd,
    guest_spin, guest_start, guest_touch, guest_vector,
};

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
const PAGE: u64 = 4096;

macro_rules! at {
    ($symbol:ident) => {
        CODE + ((&raw const $symbol).addr() - (&raw const guest_start).addr()) as u64
    };
}

fn range(start: u64, len: u64) -> AddrRange {
    AddrRange::from_len(UserAddr::new(start), len).unwrap()
}

fn map(start: u64, len: u64, prot: Prot, offset: u64) -> AsOp {
    AsOp::Map {
        range: range(start, len),
        prot,
        backing: Backing::Memory { offset },
        shared: true,
        populate: false,
    }
}

/// Code at file offset 0, one data page at 64 KiB.
fn setup() -> (Systrap, Arc<dyn AddressSpace>) {
    let memory = Arc::new(MemoryFile::create(64 << 20).unwrap());
    let len = (&raw const guest_end).addr() - (&raw const guest_start).addr();
    // SAFETY: both symbols bound one read-only object.
    let code = unsafe { std::slice::from_raw_parts(&raw const guest_start, len) };
    memory.write(0, code).unwrap();
    let platform = Systrap::new(memory).unwrap();
    let space = platform.new_address_space().unwrap();
    fill(&space, 0x1_0000);
    let text: Arc<dyn TextSource> = Arc::new(Text);
    space.attach_text(Arc::downgrade(&text));
    std::mem::forget(text);
    (platform, space)
}

/// The code is in the memory file already.
struct Text;

impl TextSource for Text {
    fn private_text(&self, addr: u64) -> abi::SysResult<u64> {
        Ok(addr - CODE)
    }
}

fn fill(space: &Arc<dyn AddressSpace>, data: u64) {
    let mut batch = OpBatch::default();
    batch.ops.push(map(CODE, 2 * PAGE, Prot::READ | Prot::EXEC, 0));
    batch.ops.push(map(DATA, PAGE, Prot::READ | Prot::WRITE, data));
    space.apply(batch).unwrap();
}

fn state(rip: u64) -> ThreadState {
    let registers = Registers { rip, rsp: DATA + PAGE, eflags: 0x202, ..Registers::default() };
    ThreadState { registers, xstate: Vec::new() }
}

fn thread(space: &Arc<dyn AddressSpace>, rip: u64) -> Box<dyn Context> {
    Arc::clone(space).new_context(&state(rip)).unwrap()
}

#[test]
fn calls_and_answers() {
    let (_platform, space) = setup();
    let mut t = thread(&space, CODE);
    assert_eq!(t.run(), Exit::Syscall);
    assert_eq!((t.syscall().number, t.syscall().args), (500, [1, 2, 3, 4, 5, 6]));
    t.set_return(77);
    assert_eq!(t.run(), Exit::Syscall);
    assert_eq!(t.syscall().number, 39);
    let r = *t.registers();
    assert_eq!((r.rbx, r.rax, r.orig_rax, r.rip), (77, 39, 39, t.syscall().ip));
    assert_eq!((r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9), (1, 2, 3, 4, 5, 6));
    t.set_return(9);
    assert_eq!(t.registers().rax, 9);
    for _ in 0..1000 {
        assert_eq!(t.run(), Exit::Syscall);
        assert_eq!(t.syscall().number, 39);
        t.set_return(1);
    }
    // Registers changed during a call take effect.
    t.registers().rip = at!(guest_odd);
    assert_eq!(t.run(), Exit::Syscall);
    let r = *t.registers();
    assert_eq!((r.rbx.cast_signed(), r.rbp.cast_signed()), (-38, -38), "int 0x80 and x32 are refused");
}

#[test]
fn faults_and_exceptions() {
    let (platform, space) = setup();
    let mut t = thread(&space, at!(guest_fault));
    let (a, b) = (0x1000_0000, 0x2000_0000);
    let r = t.registers();
    (r.rdi, r.rsi, r.rdx) = (a, b, 0x3000_0000);
    assert_eq!(t.run(), Exit::Fault { addr: a, access: Access::Read });
    platform.memory().write(0x2_0000, &7_u64.to_ne_bytes()).unwrap();
    space.apply(OpBatch::one(map(a, PAGE, Prot::READ, 0x2_0000))).unwrap();
    assert_eq!(t.run(), Exit::Fault { addr: b, access: Access::Write });
    space.apply(OpBatch::one(map(b, PAGE, Prot::READ, 0x2_1000))).unwrap();
    assert_eq!(t.run(), Exit::Fault { addr: b, access: Access::Write });
    let protect = AsOp::Protect { range: range(b, PAGE), prot: Prot::READ | Prot::WRITE };
    space.apply(OpBatch::one(protect)).unwrap();
    assert_eq!(t.run(), Exit::Syscall);
    let mut seen = [0; 8];
    platform.memory().read(0x2_1000, &mut seen).unwrap();
    assert_eq!(u64::from_ne_bytes(seen), 7);
    assert_eq!(t.run(), Exit::Fault { addr: 0x3000_0000, access: Access::Exec });
    // Unmapped again.
    space.apply(OpBatch::one(AsOp::Unmap { range: range(a, PAGE) })).unwrap();
    t.registers().rip = at!(guest_fault);
    assert_eq!(t.run(), Exit::Fault { addr: a, access: Access::Read });
    // A hole in a protected range costs nothing but faults.
    let wide = AsOp::Protect { range: range(b - PAGE, 3 * PAGE), prot: Prot::READ };
    space.apply(OpBatch::one(wide)).unwrap();

    t.registers().rip = at!(guest_odd);
    assert_eq!(t.run(), Exit::Syscall);
    assert!(matches!(t.run(), Exit::Exception { signal: Signal::SIGFPE, code: 1, .. }));
    t.registers().rip += 2;
    let after_int3 = t.registers().rip + 1;
    assert!(matches!(t.run(), Exit::Exception { signal: Signal::SIGTRAP, .. }));
    assert_eq!(t.registers().rip, after_int3);
    assert!(matches!(t.run(), Exit::Exception { signal: Signal::SIGSEGV, addr: 0, .. }));
    t.registers().rip = CODE + 4095;
    assert!(matches!(t.run(), Exit::Exception { .. } | Exit::Fault { .. }));
    // Not canonical.
    t.registers().rip = 1 << 63;
    assert!(matches!(t.run(), Exit::Exception { signal: Signal::SIGSEGV, .. }));
}

#[test]
fn vector_state_survives() {
    if !std::is_x86_feature_detected!("avx512f") {
        return;
    }
    let (platform, space) = setup();
    let mut t = thread(&space, at!(guest_vector));
    let pattern: Vec<u8> = (0..64).map(|i| i * 3 + 1).collect();
    platform.memory().write(0x1_0000, &pattern).unwrap();
    (t.registers().rdi, t.registers().rsi) = (DATA, DATA + 128);
    assert_eq!(t.run(), Exit::Syscall);
    let saved = ThreadState { registers: *t.registers(), xstate: t.xstate().clone() };
    t.set_return(0);
    assert_eq!(t.run(), Exit::Syscall);
    let mut seen = vec![0; 80];
    platform.memory().read(0x1_0000 + 128, &mut seen).unwrap();
    assert_eq!((&seen[..64], &seen[64..]), (&pattern[..], &pattern[16..32]));
    // A second thread starts from the saved state.
    platform.memory().write(0x1_0000 + 128, &[0; 80]).unwrap();
    let mut copy = Arc::clone(&space).new_context(&saved).unwrap();
    copy.registers().rax = 0;
    assert_eq!(copy.run(), Exit::Syscall);
    platform.memory().read(0x1_0000 + 128, &mut seen).unwrap();
    assert_eq!((&seen[..64], &seen[64..]), (&pattern[..], &pattern[16..32]));
    // And hostile state is tamed.
    copy.xstate().fill(0xff);
    copy.registers().rip = at!(guest_vector);
    assert_eq!(copy.run(), Exit::Syscall);
}

#[test]
fn bases() {
    let (_platform, space) = setup();
    let mut t = thread(&space, at!(guest_bases));
    (t.registers().rdi, t.registers().rsi) = (0x1234_5000, 0);
    assert_eq!(t.run(), Exit::Syscall);
    assert_eq!((t.registers().fs_base, t.registers().gs_base), (0x1234_5000, 0));
    (t.registers().fs_base, t.registers().gs_base) = (0x777_000, 0x888_000);
    assert_eq!(t.run(), Exit::Syscall);
    assert_eq!((t.registers().r12, t.registers().r13), (0x777_000, 0x888_000));
    assert_eq!((t.registers().fs_base, t.registers().gs_base), (0x777_000, 0x888_000));
    t.registers().rip = at!(guest_clone);
    assert_eq!(t.run(), Exit::Syscall);
    assert_eq!(t.syscall().number, 56);
    t.set_return(5);
    assert_eq!(t.run(), Exit::Syscall);
    assert_eq!(t.registers().rbx, 5);
}

#[test]
fn interrupts() {
    let (_platform, space) = setup();
    let mut t = thread(&space, at!(guest_spin));
    let handle = t.interrupter();
    handle.interrupt();
    assert_eq!(t.run(), Exit::Interrupted, "asked for before the run");
    for _ in 0..20 {
        let other = Arc::clone(&handle);
        let asker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(2));
            other.interrupt();
        });
        let before = t.registers().rax;
        assert_eq!(t.run(), Exit::Interrupted);
        // On a busy machine the guest may not have run at all.
        assert!(t.registers().rax >= before);
        asker.join().unwrap();
    }
    assert!(t.registers().rax > 0);
    // Calls are neither lost nor serviced twice, whenever the interrupt comes.
    t.registers().rip = CODE + 0x30;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopper = Arc::clone(&stop);
    let storm = std::thread::spawn(move || {
        while !stopper.load(std::sync::atomic::Ordering::Relaxed) {
            handle.interrupt();
            std::thread::yield_now();
        }
    });
    t.registers().rip = at!(guest_start);
    let mut calls = 0_u64;
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        match t.run() {
            Exit::Syscall if t.syscall().number == 500 => t.set_return(1),
            Exit::Syscall => {
                assert_eq!(t.syscall().number, 39);
                t.set_return(calls);
                calls += 1;
                if calls.is_multiple_of(3) {
                    assert_eq!(t.registers().rax, calls - 1);
                }
            }
            Exit::Interrupted => {
                let r = t.registers();
                assert!((CODE..CODE + 0x40).contains(&r.rip), "{:x}", r.rip);
                if r.rip >= CODE + 0x36 && calls > 0 && r.rax != 39 {
                    assert_eq!(r.rax, calls - 1);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    storm.join().unwrap();
    assert!(calls > 100);
}

#[test]
fn threads_and_spaces() {
    let (platform, space) = setup();
    let mut threads: Vec<_> = (0..4).map(|_| thread(&space, CODE)).collect();
    let workers: Vec<_> = threads
        .drain(..)
        .map(|mut t| {
            std::thread::spawn(move || {
                for _ in 0..500 {
                    assert_eq!(t.run(), Exit::Syscall);
                    t.set_return(1);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    // A second address space does not see the first one's data.
    let second = platform.new_address_space().unwrap();
    assert_ne!(space.host_pid(), second.host_pid());
    fill(&second, 0x3_0000);
    let mut t = thread(&second, at!(guest_touch));
    t.registers().rdi = DATA;
    assert_eq!(t.run(), Exit::Syscall);
    let mut byte = [0; 1];
    platform.memory().read(0x3_0000, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    platform.memory().read(0x1_0000, &mut byte).unwrap();
    assert_eq!(byte, [0]);
    // And back into the first: its thread goes with it.
    t.switch(&space).unwrap();
    t.load(&state(at!(guest_touch)));
    t.registers().rdi = DATA;
    assert_eq!(t.run(), Exit::Syscall);
    platform.memory().read(0x1_0000, &mut byte).unwrap();
    assert_eq!(byte, [1]);
    // A copy of the address space has the mappings.
    let copy = space.fork().unwrap().unwrap();
    let mut c = thread(&copy, at!(guest_touch));
    c.registers().rdi = DATA + 8;
    assert_eq!(c.run(), Exit::Syscall);
    drop(c);
    drop(copy);
    assert_eq!(t.run(), Exit::Syscall);
}

#[test]
fn stubs_are_used_again() {
    let (platform, space) = setup();
    let mut t = thread(&space, at!(guest_touch));
    t.registers().rdi = DATA;
    let pid = space.host_pid().unwrap();
    for round in 0..10_u64 {
        assert_eq!(t.run(), Exit::Syscall);
        (t.registers().rbx, t.registers().fs_base) = (round, 0x5000);
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let then = move || flag.store(true, std::sync::atomic::Ordering::SeqCst);
        let space = platform.new_address_space().unwrap();
        fill(&space, 0x3_0000);
        let mut next = thread(&space, at!(guest_touch));
        assert_eq!((next.registers().rbx, next.registers().fs_base), (0, 0));
        next.registers().rdi = DATA + PAGE;
        assert_eq!(next.run(), Exit::Fault { addr: DATA + PAGE, access: Access::Write });
        space.retire(platform.user_range(), Box::new(then));
        assert!(done.load(std::sync::atomic::Ordering::SeqCst));
        drop((next, space));
        let again = platform.new_address_space().unwrap();
        assert_ne!(again.host_pid(), Some(pid));
        let mut next = thread(&again, CODE);
        assert_eq!(next.run(), Exit::Fault { addr: CODE, access: Access::Exec }, "nothing is left");
    }
}

/// Serves `guest_mixed` for some rounds; what each call returns is what the guest expects in rbx.
fn mixed(t: &mut dyn Context, rounds: u64, mut odd: impl FnMut(&mut dyn Context)) {
    // Parked behind the second call, the guest is about to count.
    let mut value = t.registers().rbx + u64::from(t.syscall().ip != 0);
    let mut calls = 0;
    while calls < rounds * 2 {
        match t.run() {
            Exit::Syscall => {
                let (at, call) = (calls % 2, t.syscall());
                assert_eq!(call.number, if at == 0 { 39 } else { 0 });
                assert_eq!(call.args, [11, 12, 13, 14, 15, 16]);
                if calls.is_multiple_of(61) {
                    odd(t);
                    assert_eq!(t.registers().rip, call.ip);
                }
                t.set_return(value);
                value += at;
                calls += 1;
            }
            Exit::Interrupted => {
                let rip = t.registers().rip;
                assert!((CODE..CODE + PAGE).contains(&rip), "{rip:x}");
            }
            other => panic!("{other:?} after {calls} calls, {:x?}", t.registers()),
        }
    }
}

fn text(space: &Arc<dyn AddressSpace>, memory: &MemoryFile) -> (Vec<u8>, Vec<u8>) {
    let mut now = vec![0; 4096];
    memory.read(0, &mut now).unwrap();
    let mut original = now.clone();
    space.original_text(CODE, &mut original);
    (now, original)
}

#[test]
fn patched_sites() {
    let (platform, space) = setup();
    let (before, _) = text(&space, platform.memory());
    let mut t = thread(&space, at!(guest_mixed));
    mixed(&mut *t, 3000, |_| ());
    let (now, original) = text(&space, platform.memory());
    if std::is_x86_feature_detected!("bmi2") {
        assert_ne!(now, before, "both sites are patched");
    }
    assert_eq!(original, before, "and hidden");
    // A thread whose gs is its own takes the plain way.
    t.registers().gs_base = 0x5000;
    mixed(&mut *t, 50, |t| assert_eq!(t.registers().gs_base, 0x5000));
    t.registers().gs_base = 0;
    mixed(&mut *t, 50, |_| ());
    // A restart steps back onto the call: with the old number in rax it is made again.
    for _ in 0..4 {
        assert_eq!(t.run(), Exit::Syscall);
        let call = t.syscall();
        let r = t.registers();
        (r.rip, r.rax) = (r.rip - 2, r.orig_rax);
        assert_eq!(t.run(), Exit::Syscall);
        assert_eq!((t.syscall().number, t.syscall().ip), (call.number, call.ip));
        let rbx = t.registers().rbx;
        t.set_return(rbx);
    }
    // A fork inherits the patches, whichever way its stub came about.
    for pooled in [false, true] {
        let state = ThreadState { registers: *t.registers(), xstate: t.xstate().clone() };
        let child = match space.fork().unwrap() {
            Some(child) => {
                assert!(!pooled);
                child
            }
            None => {
                assert!(pooled);
                platform.new_address_space().unwrap()
            }
        };
        fill(&child, 0x3_0000);
        let copy = Arc::clone(&child).new_context(&state);
        let mut copy = copy.unwrap();
        copy.set_return(state.registers.rbx);
        copy.registers().rax = state.registers.rbx;
        let rip = copy.registers().rip;
        copy.registers().rip = at!(guest_mixed);
        assert_ne!(rip, 0);
        mixed(&mut *copy, 200, |_| ());
        assert_eq!(text(&child, platform.memory()).1, before);
        child.retire(platform.user_range(), Box::new(|| ()));
    }
}

#[test]
fn single_steps_see_no_site_code() {
    let (_platform, space) = setup();
    let mut t = thread(&space, at!(guest_mixed));
    mixed(&mut *t, 300, |_| ());
    let rbx = t.registers().rbx;
    t.registers().eflags |= 0x100;
    let (mut last, mut calls, mut value) = (0, 0, rbx + 1);
    for _ in 0..400 {
        match t.run() {
            Exit::Exception { signal: Signal::SIGTRAP, .. } => {
                let rip = t.registers().rip;
                assert!((CODE..CODE + PAGE).contains(&rip) && rip != last, "{rip:x} after {last:x}");
                last = rip;
            }
            Exit::Syscall => {
                t.set_return(value);
                calls += 1;
                value += u64::from(t.syscall().number == 0);
            }
            other => panic!("{other:?} {:x?}", t.registers()),
        }
    }
    assert!(calls > 4, "{calls}");
}

#[test]
fn constants_are_answered_on_the_spot() {
    let (_platform, space) = setup();
    let mut t = thread(&space, CODE);
    let answers = LocalAnswers { tgid: 7, tid: 8, ids: [1, 2, 3, 4] };
    t.local_answers(Some(answers));
    let handle = t.interrupter();
    let mut exits = 0;
    for _ in 0..200 {
        let other = Arc::clone(&handle);
        let asker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1));
            other.interrupt();
        });
        loop {
            match t.run() {
                Exit::Syscall => t.set_return(7),
                Exit::Interrupted => break,
                other => panic!("{other:?}"),
            }
            exits += 1;
        }
        let r = t.registers();
        assert!((CODE..CODE + 0x40).contains(&r.rip));
        asker.join().unwrap();
        if exits > 1000 {
            break;
        }
    }
    assert!(exits < 1000, "the guest calls for ever, and we do not see it");
    t.local_answers(None);
    assert_eq!(t.run(), Exit::Syscall);
    assert_eq!(t.syscall().number, 39);
}

#[test]
fn patching_under_fire() {
    for _ in 0..5 {
        let (_platform, space) = setup();
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut workers = Vec::new();
        let mut handles = Vec::new();
        for _ in 0..3 {
            let mut t = thread(&space, at!(guest_mixed));
            handles.push(t.interrupter());
            workers.push(std::thread::spawn(move || mixed(&mut *t, 1500, |_| ())));
        }
        let stopper = Arc::clone(&stop);
        let storm = std::thread::spawn(move || {
            while !stopper.load(std::sync::atomic::Ordering::Relaxed) {
                for handle in &handles {
                    handle.interrupt();
                }
                std::thread::sleep(Duration::from_micros(30));
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        storm.join().unwrap();
    }
}

#[test]
fn death_is_an_exit() {
    let (platform, space) = setup();
    let mut t = thread(&space, at!(guest_spin));
    let pid = space.host_pid().unwrap();
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(5));
        // SAFETY: the stub is not reaped yet.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    });
    assert_eq!(t.run(), Exit::Died);
    assert_eq!(t.run(), Exit::Died);
    assert_eq!(t.registers().rip, 0);
    assert!(space.apply(OpBatch::one(AsOp::Unmap { range: range(DATA, PAGE) })).is_err());
    assert!(Arc::clone(&space).new_context(&state(CODE)).is_err());
    killer.join().unwrap();
    let low = platform.reserved()[0].start();
    assert!(space.apply(OpBatch::one(map(low, PAGE, Prot::READ, 0))).is_err());
}

#[test]
fn host_files() {
    let (_platform, space) = setup();
    let file = rustix::fs::memfd_create(c"host", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::io::write(&file, &42_u64.to_ne_bytes()).unwrap();
    let fd = Arc::new(file);
    let map_twice = |space: &Arc<dyn AddressSpace>| {
        let mut batch = OpBatch::default();
        for at in [0x1000_0000, 0x1000_1000] {
            batch.ops.push(AsOp::Map {
                range: range(at, PAGE),
                prot: Prot::READ,
                backing: Backing::Host { fd: Arc::clone(&fd), offset: 0 },
                shared: false,
                populate: false,
            });
        }
        space.apply(batch).unwrap();
    };
    // The descriptors of new threads and processes are gone before files want their numbers.
    let mut threads = Vec::new();
    for round in 0..20 {
        map_twice(&space);
        if round % 4 == 0 {
            let child = space.fork().unwrap().unwrap();
            map_twice(&child);
        }
        map_twice(&space);
        threads.push(thread(&space, CODE));
    }
    drop(threads);
    let mut t = thread(&space, at!(guest_fault));
    (t.registers().rdi, t.registers().rsi) = (0x1000_1000, DATA);
    assert_eq!(t.run(), Exit::Syscall);
    assert_eq!(t.registers().rax, 39);
    // Past the end of the file.
    t.registers().rip = at!(guest_fault);
    rustix::fs::ftruncate(&*fd, 0).unwrap();
    assert_eq!(t.run(), Exit::Fault { addr: 0x1000_1000, access: Access::Read });
}

#[test]
fn calls_in_the_stubs_name() {
    let (_platform, space) = setup();
    let mut t = thread(&space, at!(guest_attack));
    // Everything but its own sigreturn and exit arrives as any other call.
    for number in
        [9_u64, 10, 11, 25, 28, 44, 45, 46, 47, 53, 54, 56, 3, 292, 131, 317, 62, 234, 101, 157, 321, 435]
    {
        (t.registers().rax, t.registers().rip) = (number, at!(guest_attack));
        assert_eq!(t.run(), Exit::Syscall);
        assert_eq!(u64::from(t.syscall().number), number);
        t.set_return(u64::MAX);
        assert_eq!(t.run(), Exit::Syscall);
        assert_eq!((t.syscall().number, t.registers().rbx), (500, u64::MAX));
    }
    // The host's number for the switch, from the guest's own text, is a call like any other.
    (t.registers().rax, t.registers().rip) = (0x3fff, at!(guest_attack));
    assert_eq!(t.run(), Exit::Syscall);
    assert_eq!(t.syscall().number, 0x3fff);
    // Jumps into the stub's text, with any registers, come back as something harmless.
    for address in (0x10_0000..0x10_0700_u64).step_by(1) {
        let mut t = thread(&space, address);
        // r14 is 2 for the mapper, whose lists come from elsewhere.
        for value in [0_u64, 9, 56, 0x3fff] {
            let r = t.registers();
            (r.rip, r.rax, r.rbx, r.rdi, r.rsi, r.rdx) = (address, value, DATA, value, DATA, 3);
            (r.r10, r.r8, r.r9, r.r12, r.r13, r.r14) = (0x11, 1, 0x6773_7472, DATA, 1, 2);
            let handle = t.interrupter();
            let poke = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(300));
                handle.interrupt();
            });
            let exit = t.run();
            poke.join().unwrap();
            if exit == Exit::Died {
                break;
            }
            if exit == Exit::Syscall {
                t.set_return(0);
            }
        }
        drop(t);
        assert!(
            space.apply(OpBatch::one(map(DATA, PAGE, Prot::READ | Prot::WRITE, 0x1_0000))).is_ok(),
            "{address:x}"
        );
    }
}

#[test]
fn a_deaf_thread_is_ended() {
    let (platform, space) = setup();
    let mut t = thread(&space, at!(guest_deaf));
    // uc_flags, then rsp, rip, eflags, segments, and a full mask.
    let mut frame = [0_u64; 38];
    (frame[20], frame[21], frame[22], frame[23], frame[37]) =
        (DATA, at!(guest_spin), 0x202, 0x002b_0000_0000_0033, u64::MAX);
    let bytes: Vec<u8> = frame.iter().flat_map(|word| word.to_ne_bytes()).collect();
    platform.memory().write(0x1_0000, &bytes).unwrap();
    t.registers().rsp = DATA;
    let handle = t.interrupter();
    let begin = Instant::now();
    let asker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        handle.interrupt();
    });
    assert_eq!(t.run(), Exit::Died);
    assert!(begin.elapsed() > Duration::from_secs(4));
    asker.join().unwrap();
}
