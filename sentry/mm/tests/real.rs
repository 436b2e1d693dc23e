//! Address spaces with real guest code on both platforms: two instructions and a kernel that only knows faults.

#![expect(clippy::unwrap_used, reason = "a test program")]

use abi::{PAGE_SIZE, SysResult, UserAddr};
use mm::{
    Advice, FaultSignal, FilePages, Frames, MapFile, MapFlags, MapUse, Mappable, MappableId, MemoryManager,
    MmapArgs, RemapArgs, RemapFlags, Translation,
};
use platform::memory::MemoryFile;
use platform::ptrace::Ptrace;
use platform::registers::{USER_CS, USER_SS};
use platform::systrap::Systrap;
use platform::{Context, Exit, Platform, Prot, Registers, ThreadState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

const RW: Prot = Prot::READ.union(Prot::WRITE);
const CODE: u64 = 0x40_0000;
/// mov [rdi], rsi; syscall; hlt
const STORE: &[u8] = &[0x48, 0x89, 0x37, 0x0f, 0x05, 0xf4];
/// mov rsi, [rdi]; syscall; hlt
const LOAD: &[u8] = &[0x48, 0x8b, 0x37, 0x0f, 0x05, 0xf4];
/// 1: mov [rdi], rsi; add rdi, 4096; dec rdx; jnz 1b; syscall; hlt
const FILL: &[u8] =
    &[0x48, 0x89, 0x37, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0x48, 0xff, 0xca, 0x75, 0xf1, 0x0f, 0x05, 0xf4];

struct Guest {
    mm: Arc<MemoryManager>,
    context: Box<dyn Context>,
    faults: usize,
}

impl Guest {
    fn new(mm: Arc<MemoryManager>) -> Guest {
        let registers =
            Registers { rip: CODE, cs: USER_CS, ss: USER_SS, eflags: 0x202, ..Registers::default() };
        let state = ThreadState { registers, xstate: Vec::new() };
        let context = Arc::clone(mm.space()).new_context(&state).unwrap();
        Guest { mm, context, faults: 0 }
    }
    fn run(&mut self, at: u64, rdi: u64, rsi: u64, rdx: u64) -> Result<u64, FaultSignal> {
        let registers = self.context.registers();
        (registers.rip, registers.rdi, registers.rsi, registers.rdx) = (CODE + at, rdi, rsi, rdx);
        // No call to restart.
        (registers.rax, registers.orig_rax) = (500, u64::MAX);
        loop {
            match self.context.run() {
                Exit::Syscall => return Ok(self.context.registers().rsi),
                Exit::Fault { addr, access } => {
                    self.faults += 1;
                    assert!(self.faults < 100_000, "faults for ever");
                    self.mm.handle_fault(addr, access)?;
                }
                Exit::Interrupted => {}
                other => panic!("{other:?} at {:#x}", self.context.registers().rip),
            }
        }
    }
    fn store(&mut self, addr: u64, value: u64) -> Result<(), FaultSignal> {
        self.run(0, addr, value, 0).map(|_| ())
    }
    fn load(&mut self, addr: u64) -> Result<u64, FaultSignal> {
        self.run(64, addr, 0, 0)
    }
    fn fill(&mut self, addr: u64, pages: u64) -> Result<(), FaultSignal> {
        self.run(128, addr, 1, pages).map(|_| ())
    }
}

fn program(platform: &Arc<dyn Platform>, frames: &Arc<Frames>) -> Guest {
    let mm = MemoryManager::new(platform, frames).unwrap();
    mm.mmap(MmapArgs::anonymous(PAGE_SIZE, RW).fixed(CODE)).unwrap();
    for (at, code) in [(0, STORE), (64, LOAD), (128, FILL)] {
        mm.write_bytes(UserAddr::new(CODE + at), code).unwrap();
    }
    mm.mprotect(UserAddr::new(CODE), PAGE_SIZE, Prot::READ | Prot::EXEC).unwrap();
    Guest::new(mm)
}

fn anon(guest: &Guest, pages: u64) -> u64 {
    guest.mm.mmap(MmapArgs::anonymous(pages * PAGE_SIZE, RW)).unwrap().raw()
}

struct HostFile(Arc<OwnedFd>);

impl Mappable for HostFile {
    fn id(&self) -> MappableId {
        MappableId { dev: 9, ino: 9 }
    }
    fn translate(&self, offset: u64, len: u64, _: MapUse) -> SysResult<Translation> {
        Ok(Translation::Host { fd: Arc::clone(&self.0), offset, len })
    }
}

fn map(guest: &Guest, object: Arc<dyn Mappable>, flags: MapFlags, pages: u64) -> u64 {
    let mut args = MmapArgs::anonymous(pages * PAGE_SIZE, RW);
    args.flags = flags;
    args.file = Some(MapFile { object, offset: 0, max_prot: Prot::all(), keep: None });
    guest.mm.mmap(args).unwrap().raw()
}

fn everything(platform: &Arc<dyn Platform>) {
    let frames = Frames::new(Arc::clone(platform.memory()));
    let mut guest = program(platform, &frames);

    // Anonymous memory: no fault reaches us.
    let at = anon(&guest, 16);
    guest.store(at + 4096, 7).unwrap();
    assert_eq!(guest.load(at + 4096), Ok(7));
    assert_eq!(guest.faults, 0);
    let mut word = [0; 8];
    guest.mm.read_bytes(UserAddr::new(at + 4096), &mut word).unwrap();
    assert_eq!(u64::from_le_bytes(word), 7);
    guest.mm.write_bytes(UserAddr::new(at + 8192), &9u64.to_le_bytes()).unwrap();
    assert_eq!(guest.load(at + 8192), Ok(9));

    // A big one, filled.
    let big = anon(&guest, 16 << 8);
    guest.fill(big, 16 << 8).unwrap();
    assert!(guest.faults < 10, "{}", guest.faults);
    guest.mm.madvise(UserAddr::new(big), 4096, Advice::DontNeed).unwrap();
    assert_eq!(guest.load(big), Ok(0));
    assert_eq!(guest.load(big + 4096), Ok(1));

    // Faults that become signals.
    let fault = guest.load(0x1000_0000).unwrap_err();
    assert_eq!((fault.signal.number(), fault.code, fault.addr), (11, 1, 0x1000_0000));
    guest.mm.mprotect(UserAddr::new(at), 4096, Prot::READ).unwrap();
    let fault = guest.store(at, 1).unwrap_err();
    assert_eq!((fault.signal.number(), fault.code, fault.addr), (11, 2, at));
    guest.mm.mprotect(UserAddr::new(at), 4096, RW).unwrap();
    guest.store(at, 1).unwrap();

    // Fork, with holes between the areas.
    let far = anon(&guest, 1);
    guest.mm.mprotect(UserAddr::new(at + 3 * 4096), 4096, Prot::empty()).unwrap();
    guest.mm.munmap(UserAddr::new(at + 5 * 4096), 4096).unwrap();
    let mut child = Guest::new(guest.mm.fork(&[]).unwrap());
    child.store(at + 4096, 70).unwrap();
    assert_eq!((guest.load(at + 4096), child.load(at + 4096)), (Ok(7), Ok(70)));
    guest.store(at + 8192, 90).unwrap();
    assert_eq!((guest.load(at + 8192), child.load(at + 8192)), (Ok(90), Ok(9)));
    child.mm.write_bytes(UserAddr::new(far), &5u64.to_le_bytes()).unwrap();
    assert_eq!((guest.load(far), child.load(far)), (Ok(0), Ok(5)));
    assert_eq!(child.load(at + 5 * 4096).unwrap_err().code, 1);
    assert!(child.faults < 10 && guest.faults < 20, "{} {}", child.faults, guest.faults);
    let mut grandchild = Guest::new(child.mm.fork(&[]).unwrap());
    drop(child);
    assert_eq!(grandchild.load(at + 4096), Ok(70));
    grandchild.store(at + 4096, 700).unwrap();
    assert_eq!(grandchild.load(at + 4096), Ok(700));
    drop(grandchild);

    // Host files: private, shared, behind the end.
    let fd = rustix::fs::memfd_create("host", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    rustix::io::pwrite(&fd, &[1u8; 200_000], 0).unwrap();
    let file = Arc::new(HostFile(Arc::new(fd)));
    let private = map(&guest, file.clone(), MapFlags::PRIVATE, 60);
    let shared = map(&guest, file.clone(), MapFlags::SHARED, 60);
    let ones = 0x0101_0101_0101_0101;
    assert_eq!((guest.load(private + 8192), guest.load(shared + 8192)), (Ok(ones), Ok(ones)));
    guest.store(private + 8192, 2).unwrap();
    assert_eq!(guest.load(shared + 8192), Ok(ones));
    guest.store(shared + 8192, 3).unwrap();
    assert_eq!(guest.load(private + 8192), Ok(2));
    rustix::io::pread(&*file.0, &mut word, 8192).unwrap();
    assert_eq!(u64::from_le_bytes(word), 3);
    for at in [private, shared] {
        let fault = guest.load(at + 55 * 4096).unwrap_err();
        assert_eq!((fault.signal.number(), fault.code), (7, 2));
    }

    // A file in memory, truncated under the mapping.
    let pages = FilePages::new(&frames, MappableId { dev: 1, ino: 1 });
    pages.write_bytes(0, &[1; 20_000]).unwrap();
    let mapped = map(&guest, pages.clone(), MapFlags::SHARED, 5);
    guest.store(mapped + 16_384, 4).unwrap();
    pages.truncate(10_000).unwrap();
    assert_eq!(guest.load(mapped + 16_384).unwrap_err().signal.number(), 7);
    assert_eq!(guest.load(mapped), Ok(ones));

    // Moving.
    guest.store(far, 6).unwrap();
    let args = RemapArgs {
        old: UserAddr::new(far),
        old_len: 4096,
        new_len: 3 * 4096,
        flags: RemapFlags::MAYMOVE,
        to: UserAddr::NULL,
    };
    let moved = guest.mm.mremap(args).unwrap().raw();
    assert_eq!((guest.load(moved), guest.load(moved + 8192)), (Ok(6), Ok(0)));

    drop(guest);
    drop(pages);
    assert_eq!(frames.allocated(), 0);
}

fn memory() -> Arc<MemoryFile> {
    Arc::new(MemoryFile::create(1 << 38).unwrap())
}

#[test]
fn on_ptrace() {
    let platform: Arc<dyn Platform> = Arc::new(Ptrace::new(memory()).unwrap());
    everything(&platform);
}

#[test]
fn on_systrap() {
    let Ok(platform) = Systrap::new(memory()) else { return };
    let platform: Arc<dyn Platform> = Arc::new(platform);
    everything(&platform);
}

fn time(name: &str, rounds: u32, mut work: impl FnMut()) {
    let mut best = u128::MAX;
    for _ in 0..7 {
        let start = Instant::now();
        for _ in 0..rounds {
            work();
        }
        best = best.min(start.elapsed().as_nanos() / u128::from(rounds));
    }
    eprintln!("{name}: {best} ns");
}

/// `cargo test --release -p mm --test real -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn costs() {
    let platform: Arc<dyn Platform> = Arc::new(Systrap::new(memory()).unwrap());
    let frames = Frames::new(Arc::clone(platform.memory()));
    let mut guest = program(&platform, &frames);
    guest.mm.set_single_threaded(true);
    let at = anon(&guest, 64);
    guest.store(at, 1).unwrap();
    let mut buf = [0u8; 16];
    let mm = Arc::clone(&guest.mm);
    time("read 16 bytes", 100_000, || mm.read_bytes(UserAddr::new(at), &mut buf).unwrap());
    time("write 16 bytes", 100_000, || mm.write_bytes(UserAddr::new(at), &buf).unwrap());
    let mut page = [0u8; 4096];
    time("read a page", 100_000, || mm.read_bytes(UserAddr::new(at), &mut page).unwrap());
    time("guest call", 2000, || guest.store(at, 1).unwrap());
    time("mmap, touch, munmap", 1000, || {
        let at = anon(&guest, 1);
        guest.store(at, 1).unwrap();
        guest.mm.munmap(UserAddr::new(at), 4096).unwrap();
    });
    for _ in 0..8 {
        let start = Instant::now();
        let at = anon(&guest, 256);
        let mapped = start.elapsed();
        let faults = guest.faults;
        guest.fill(at, 256).unwrap();
        let filled = start.elapsed();
        let faults = guest.faults - faults;
        guest.fill(at, 256).unwrap();
        let again = start.elapsed();
        guest.mm.munmap(UserAddr::new(at), 256 * 4096).unwrap();
        let all = start.elapsed();
        eprintln!(
            "256 pages: mmap {:?}, fill {:?} with {faults} faults, again {:?}, munmap {:?}",
            mapped,
            filled - mapped,
            again - filled,
            all - again
        );
    }
    time("fork", 50, || drop(mm.fork(&[]).unwrap()));
    let child = mm.fork(&[]).unwrap();
    let mut next = at;
    time("write fault on a shared page", 1, || {
        next += 4 * 4096;
        guest.store(next, 1).unwrap();
    });
    drop(child);
}
