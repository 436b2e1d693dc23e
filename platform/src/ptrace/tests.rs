use super::Ptrace;
use crate::memory::MemoryFile;
use crate::registers::{Registers, ThreadState, USER_CS, USER_SS};
use crate::seam::{Access, AddressSpace, AsOp, Backing, Context, Exit, OpBatch, Platform, Prot};
use abi::signal::Signal;
use abi::{AddrRange, Errno};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const CODE: u64 = 0x40_0000;
const DATA: u64 = 0x50_0000;
const RX: Prot = Prot::READ.union(Prot::EXEC);
const RW: Prot = Prot::READ.union(Prot::WRITE);

struct Machine {
    platform: Ptrace,
    space: Arc<dyn AddressSpace>,
}

fn pages(start: u64, count: u64) -> AddrRange {
    AddrRange::new(start, start + count * 4096).unwrap()
}

fn map(start: u64, offset: u64, prot: Prot) -> OpBatch {
    let backing = Backing::Memory { offset };
    OpBatch::one(AsOp::Map { range: pages(start, 1), prot, backing, shared: true, populate: false })
}

fn protect(start: u64, count: u64, prot: Prot) -> OpBatch {
    OpBatch::one(AsOp::Protect { range: pages(start, count), prot })
}

impl Machine {
    /// `code` at CODE (offset 0 of the memory file), nothing else.
    fn new(code: &[u8]) -> Machine {
        let memory = Arc::new(MemoryFile::create(1 << 30).unwrap());
        memory.write(0, code).unwrap();
        let platform = Ptrace::new(memory).unwrap();
        let space = platform.new_address_space().unwrap();
        space.apply(map(CODE, 0, RX)).unwrap();
        Machine { platform, space }
    }

    fn memory(&self) -> &MemoryFile {
        self.platform.memory()
    }

    fn thread(&self, registers: Registers) -> Box<dyn Context> {
        thread_in(&self.space, registers)
    }
}

fn thread_in(space: &Arc<dyn AddressSpace>, registers: Registers) -> Box<dyn Context> {
    let registers = Registers {
        rip: if registers.rip == 0 { CODE } else { registers.rip },
        cs: USER_CS,
        ss: USER_SS,
        eflags: 0x202,
        ..registers
    };
    Arc::clone(space).new_context(&ThreadState { registers, xstate: Vec::new() }).unwrap()
}

#[test]
fn system_calls_return_what_they_are_given() {
    // syscall; mov rdi,rax; mov eax,60; syscall
    let machine = Machine::new(b"\x0f\x05\x48\x89\xc7\xb8\x3c\x00\x00\x00\x0f\x05");
    let mut guest = machine.thread(Registers {
        rax: 39,
        rdi: 1,
        rsi: 2,
        rdx: 3,
        r10: 4,
        r8: 5,
        r9: 6,
        ..Default::default()
    });
    assert_eq!(guest.run(), Exit::Syscall);
    let call = guest.syscall();
    assert_eq!((call.number, call.args, call.ip), (39, [1, 2, 3, 4, 5, 6], CODE + 2));
    assert_eq!(guest.registers().rax, 39);
    assert_eq!(guest.registers().rip, CODE + 2);
    // A value that looks like the host's ERESTARTSYS is a value like any other.
    guest.set_return(0xffff_ffff_ffff_fe00);
    guest.interrupter().interrupt();
    assert_eq!(guest.run(), Exit::Interrupted);
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.syscall().number, 60);
    assert_eq!(guest.syscall().args[0], 0xffff_ffff_ffff_fe00);
}

#[test]
fn faults_are_served_by_mapping_and_protecting() {
    // mov [rbx],rcx; mov rdx,[rbx]; add qword [rbx],1; syscall; call rbx
    let machine = Machine::new(b"\x48\x89\x0b\x48\x8b\x13\x48\x83\x03\x01\x0f\x05\xff\xd3");
    let mut guest =
        machine.thread(Registers { rbx: DATA + 8, rcx: 77, rsp: DATA + 0x800, ..Default::default() });
    assert_eq!(guest.run(), Exit::Fault { addr: DATA + 8, access: Access::Write });
    machine.space.apply(map(DATA, 4096, Prot::empty())).unwrap();
    assert_eq!(guest.run(), Exit::Fault { addr: DATA + 8, access: Access::Write });
    machine.space.apply(protect(DATA, 1, RW)).unwrap();
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.registers().rdx, 77);
    assert_eq!(machine.memory().load_u32(4096 + 8), Ok(78));
    machine.space.apply(protect(DATA - 4096, 5, Prot::READ)).unwrap();
    guest.registers().rip = CODE + 6;
    assert_eq!(guest.run(), Exit::Fault { addr: DATA + 8, access: Access::Write });
    guest.registers().rip = CODE + 3;
    machine.space.apply(OpBatch::one(AsOp::Unmap { range: pages(DATA, 1) })).unwrap();
    assert_eq!(guest.run(), Exit::Fault { addr: DATA + 8, access: Access::Read });
    machine.space.apply(map(DATA, 4096, RW)).unwrap();
    guest.registers().rip = CODE + 12;
    assert_eq!(guest.run(), Exit::Fault { addr: DATA + 8, access: Access::Exec });
    // The call pushed its return address before the fetch failed.
    assert_eq!(machine.memory().load_u32(4096 + 0x7f8), Ok(0x40_000e));
    guest.registers().rip = 0x1234_5000;
    assert_eq!(guest.run(), Exit::Fault { addr: 0x1234_5000, access: Access::Exec });
}

#[test]
fn a_write_to_its_own_text_is_a_write() {
    // mov [rip-7],eax (6 bytes: the store hits the instruction itself)
    let machine = Machine::new(b"\x89\x05\xfa\xff\xff\xff");
    let mut guest = machine.thread(Registers::default());
    assert_eq!(guest.run(), Exit::Fault { addr: CODE, access: Access::Write });
}

#[test]
fn exceptions() {
    let check = |code: &[u8], registers: Registers, signal: Signal, si_code: i32, addr: u64, rip: u64| {
        let machine = Machine::new(code);
        let mut guest = machine.thread(registers);
        assert_eq!(guest.run(), Exit::Exception { signal, code: si_code, addr }, "{code:x?}");
        assert_eq!(guest.registers().rip, rip);
    };
    let none = Registers::default();
    check(b"\xcc", none, Signal::SIGTRAP, 0x80, 0, CODE + 1);
    check(b"\x0f\x0b", none, Signal::SIGILL, 2, CODE, CODE);
    check(b"\xf7\xf1", none, Signal::SIGFPE, 1, CODE, CODE);
    check(b"\xf4", none, Signal::SIGSEGV, 0x80, 0, CODE);
    check(b"\xcd\x80", none, Signal::SIGSEGV, 0x80, 0, CODE);
    let far = Registers { rbx: 1 << 63, ..none };
    check(b"\x48\x8b\x03", far, Signal::SIGSEGV, 0x80, 0, CODE);
}

#[test]
fn single_steps_are_the_guests_own() {
    // nop; nop; syscall
    let machine = Machine::new(b"\x90\x90\x0f\x05");
    let mut guest = machine.thread(Registers::default());
    guest.registers().eflags |= 0x100;
    assert!(matches!(guest.run(), Exit::Exception { signal: Signal::SIGTRAP, code: 2, .. }));
    assert_eq!(guest.registers().rip, CODE + 1);
    guest.registers().eflags &= !0x100;
    assert_eq!(guest.run(), Exit::Syscall);
}

#[test]
fn interrupts_reach_a_spinning_guest() {
    // jmp $
    let machine = Machine::new(b"\xeb\xfe");
    let mut guest = machine.thread(Registers { rbx: 5, ..Default::default() });
    let bell = guest.interrupter();
    for round in 0..20 {
        let ring = Arc::clone(&bell);
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(round % 3));
            ring.interrupt();
            ring.interrupt();
        });
        assert_eq!(guest.run(), Exit::Interrupted);
        ringer.join().unwrap();
        // The second ring may come late: it is one more interrupt at most.
        bell.interrupt();
        assert_eq!(guest.run(), Exit::Interrupted);
        assert_eq!(guest.registers().rip, CODE);
        assert_eq!(guest.registers().rbx, 5);
    }
}

#[test]
fn threads_share_and_spaces_do_not() {
    // 1: mov eax,1; lock xadd [rbx],eax; pause; cmp [rbx],ecx; jl 1b; syscall
    let code = b"\xb8\x01\x00\x00\x00\xf0\x0f\xc1\x03\xf3\x90\x39\x0b\x7c\xf1\x0f\x05";
    let machine = Machine::new(code);
    machine.space.apply(map(DATA, 4096, RW)).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mut guest = machine.thread(Registers { rbx: DATA, rcx: 100_000, ..Default::default() });
            std::thread::spawn(move || {
                assert_eq!(guest.run(), Exit::Syscall);
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(machine.memory().load_u32(4096).unwrap() >= 100_000);

    let other = machine.platform.new_address_space().unwrap();
    assert_ne!(other.host_pid(), machine.space.host_pid());
    let mut guest = thread_in(&other, Registers { rbx: DATA, ..Default::default() });
    assert_eq!(guest.run(), Exit::Fault { addr: CODE, access: Access::Exec });
    other.apply(map(CODE, 0, RX)).unwrap();
    assert_eq!(guest.run(), Exit::Fault { addr: DATA, access: Access::Write });
    guest.switch(&machine.space).unwrap();
    guest.load(&ThreadState {
        registers: Registers { rip: CODE + 15, ..Default::default() },
        xstate: Vec::new(),
    });
    assert_eq!(guest.run(), Exit::Syscall);
}

#[test]
fn a_running_thread_sees_changes_made_by_another() {
    // 1: mov eax,[rbx]; test eax,eax; jz 1b; syscall
    let machine = Machine::new(b"\x8b\x03\x85\xc0\x74\xfa\x0f\x05");
    machine.space.apply(map(DATA, 4096, RW)).unwrap();
    machine.memory().store_u32(8192, 9).unwrap();
    let mut guest = machine.thread(Registers { rbx: DATA, ..Default::default() });
    let done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&done);
    let memory = Arc::clone(machine.platform.memory());
    let runner = std::thread::spawn(move || {
        assert_eq!(guest.run(), Exit::Syscall);
        assert_eq!(guest.registers().rax, 9);
        assert!(flag.load(Ordering::SeqCst));
        // It spins again, until there is nothing to read.
        memory.store_u32(8192, 0).unwrap();
        guest.registers().rip = CODE;
        assert_eq!(guest.run(), Exit::Fault { addr: DATA, access: Access::Read });
    });
    std::thread::sleep(Duration::from_millis(20));
    done.store(true, Ordering::SeqCst);
    let then_done = Arc::new(AtomicBool::new(false));
    let then_flag = Arc::clone(&then_done);
    let mut batch = map(DATA, 8192, Prot::READ);
    batch.then = Some(Box::new(move || then_flag.store(true, Ordering::SeqCst)));
    batch.ops.push(AsOp::Unmap { range: pages(DATA + 4096, 16) });
    machine.space.apply(batch).unwrap();
    assert!(then_done.load(Ordering::SeqCst));
    std::thread::sleep(Duration::from_millis(20));
    machine.space.apply(OpBatch::one(AsOp::Unmap { range: pages(DATA, 1) })).unwrap();
    runner.join().unwrap();
}

#[test]
fn host_files_are_mapped_and_not_kept() {
    // mov rax,[rbx]; syscall
    let machine = Machine::new(b"\x48\x8b\x03\x0f\x05");
    let host: OwnedFd = rustix::fs::memfd_create("h", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::io::pwrite(&host, b"ABCDEFGH", 4096).unwrap();
    let host = Arc::new(host);
    let op = |shared| AsOp::Map {
        range: pages(DATA, 2),
        prot: Prot::READ,
        backing: Backing::Host { fd: Arc::clone(&host), offset: 4096 },
        shared,
        populate: false,
    };
    let mut guest = machine.thread(Registers { rbx: DATA, ..Default::default() });
    // Once through the helper, once through the guest's own thread.
    for shared in [false, true] {
        machine.space.apply(OpBatch::one(op(shared))).unwrap();
        assert_eq!(guest.run(), Exit::Syscall);
        assert_eq!(guest.registers().rax, u64::from_le_bytes(*b"ABCDEFGH"));
        let pid = machine.space.host_pid().unwrap();
        let open: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().collect();
        assert_eq!(open.len(), 2, "{open:?}");
        guest.registers().rip = CODE;
    }
    // Past the end of the file.
    guest.registers().rbx = DATA + 4096;
    assert_eq!(guest.run(), Exit::Fault { addr: DATA + 4096, access: Access::Read });
}

#[test]
fn vector_state_survives_and_can_be_changed() {
    // movq xmm7,rbx; syscall; movq rdx,xmm7; syscall
    let machine = Machine::new(b"\x66\x48\x0f\x6e\xfb\x0f\x05\x66\x48\x0f\x7e\xfa\x0f\x05");
    let mut guest = machine.thread(Registers { rbx: 0x1122_3344_5566_7788, ..Default::default() });
    assert_eq!(guest.run(), Exit::Syscall);
    let xmm7 = 160 + 7 * 16;
    let seen = guest.xstate()[xmm7..xmm7 + 8].to_vec();
    assert_eq!(seen, 0x1122_3344_5566_7788u64.to_le_bytes());
    guest.xstate()[xmm7] = 0xff;
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.registers().rdx, 0x1122_3344_5566_77ff);

    // A copy of the thread starts with the same state; a fresh one with the initial state.
    let state = ThreadState {
        registers: Registers { rip: CODE + 7, ..*guest.registers() },
        xstate: guest.xstate().clone(),
    };
    let mut copy = Arc::clone(&machine.space).new_context(&state).unwrap();
    assert_eq!(copy.run(), Exit::Syscall);
    assert_eq!(copy.registers().rdx, 0x1122_3344_5566_77ff);
    let mut fresh = machine.thread(Registers { rip: CODE + 7, ..Default::default() });
    assert_eq!(fresh.run(), Exit::Syscall);
    assert_eq!(fresh.registers().rdx, 0);
    assert_eq!(fresh.xstate()[24..28], 0x1f80u32.to_le_bytes());
}

#[test]
fn avx_state_survives_faults_and_interrupts() {
    if !std::arch::is_x86_feature_detected!("avx") {
        return;
    }
    // vbroadcastss ymm3,[rbx]; 1: jmp 1b
    // at +16: vmovups [rbx],ymm3; syscall
    let mut code = b"\xc4\xe2\x7d\x18\x1b\xeb\xfe".to_vec();
    code.resize(16, 0x90);
    code.extend_from_slice(b"\xc5\xfc\x11\x1b\x0f\x05");
    let machine = Machine::new(&code);
    machine.memory().store_u32(4096, 0x4048_f5c3).unwrap();
    let mut guest = machine.thread(Registers { rbx: DATA, ..Default::default() });
    assert_eq!(guest.run(), Exit::Fault { addr: DATA, access: Access::Read });
    machine.space.apply(map(DATA, 4096, Prot::READ)).unwrap();
    let bell = guest.interrupter();
    let ringer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(10));
        bell.interrupt();
    });
    assert_eq!(guest.run(), Exit::Interrupted);
    ringer.join().unwrap();
    let area = guest.xstate().clone();
    *guest.xstate() = area;
    guest.registers().rip = CODE + 16;
    assert_eq!(guest.run(), Exit::Fault { addr: DATA, access: Access::Write });
    machine.space.apply(protect(DATA, 1, RW)).unwrap();
    assert_eq!(guest.run(), Exit::Syscall);
    for lane in 0..8 {
        assert_eq!(machine.memory().load_u32(4096 + 4 * lane), Ok(0x4048_f5c3));
    }
}

#[test]
fn thread_pointers_are_loaded() {
    // mov rax,fs:[0]; mov rdx,gs:[8]; syscall
    let machine =
        Machine::new(b"\x64\x48\x8b\x04\x25\x00\x00\x00\x00\x65\x48\x8b\x14\x25\x08\x00\x00\x00\x0f\x05");
    machine.space.apply(map(DATA, 4096, RW)).unwrap();
    machine.memory().write(4096, &0xabcdu64.to_le_bytes()).unwrap();
    machine.memory().write(4096 + 0x108, &0x1234u64.to_le_bytes()).unwrap();
    let mut guest = machine.thread(Registers { fs_base: DATA, gs_base: DATA + 0x100, ..Default::default() });
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!((guest.registers().rax, guest.registers().rdx), (0xabcd, 0x1234));
    assert_eq!((guest.registers().fs_base, guest.registers().gs_base), (DATA, DATA + 0x100));
}

#[test]
fn a_forked_space_has_the_same_mappings() {
    let machine = Machine::new(b"\x48\x8b\x03\x0f\x05");
    machine.space.apply(map(DATA, 4096, RW)).unwrap();
    machine.memory().store_u32(4096, 42).unwrap();
    let copy = machine.space.fork().unwrap().unwrap();
    machine.space.apply(OpBatch::one(AsOp::Unmap { range: pages(DATA, 1) })).unwrap();
    let mut guest = thread_in(&copy, Registers { rbx: DATA, ..Default::default() });
    assert_eq!(guest.run(), Exit::Syscall);
    assert_eq!(guest.registers().rax, 42);
    copy.apply(protect(DATA, 1, Prot::empty())).unwrap();
    guest.registers().rip = CODE;
    assert_eq!(guest.run(), Exit::Fault { addr: DATA, access: Access::Read });
}

#[test]
fn a_killed_stub_is_reported() {
    let machine = Machine::new(b"\xeb\xfe");
    let mut guest = machine.thread(Registers::default());
    guest.interrupter().interrupt();
    assert_eq!(guest.run(), Exit::Interrupted);
    let pid = rustix::process::Pid::from_raw(machine.space.host_pid().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(guest.run(), Exit::Died);
    assert_eq!(guest.run(), Exit::Died);
    assert_eq!(machine.space.apply(map(DATA, 0, RW)), Err(Errno::ESRCH));
    let other = machine.platform.new_address_space().unwrap();
    other.apply(map(CODE, 0, RX)).unwrap();
    guest.switch(&other).unwrap();
    guest.registers().rip = CODE;
    guest.interrupter().interrupt();
    assert_eq!(guest.run(), Exit::Interrupted);
}

#[test]
fn a_dead_stub_with_unreaped_threads_blocks_nobody() {
    let machine = Machine::new(b"\x0f\x05");
    let mut guest = machine.thread(Registers::default());
    assert_eq!(guest.run(), Exit::Syscall);
    let pid = rustix::process::Pid::from_raw(machine.space.host_pid().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    // From another host thread, so through the helper; the guest's thread was not reaped yet.
    let space = Arc::clone(&machine.space);
    let result = std::thread::spawn(move || space.apply(map(DATA, 0, RW))).join().unwrap();
    assert_eq!(result, Err(Errno::ESRCH));
    assert!(matches!(machine.space.fork(), Err(Errno::ESRCH)));
    assert_eq!(guest.run(), Exit::Died);
}

#[test]
fn nothing_but_the_stub_is_mapped_in_a_fresh_space() {
    let machine = Machine::new(b"");
    let space = machine.platform.new_address_space().unwrap();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", space.host_pid().unwrap())).unwrap();
    for line in maps.lines() {
        let own = line.starts_with("00020000-") || line.starts_with("00021000-");
        assert!(own || line.contains("[v"), "{line}");
    }
    assert!(machine.platform.vdso().is_some());
    let reserved = machine.platform.reserved()[0];
    assert_eq!(space.apply(OpBatch::one(AsOp::Unmap { range: reserved })), Err(Errno::ENOMEM));
}
