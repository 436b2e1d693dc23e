//! [`MemoryManager`]: one guest address space.
//!
//! Locks: the areas (`MmLayout`), then the mapped pages (`MmPages`). Copies take only the second, shared.
//! Objects are asked for translations without either; the answer counts only if neither the areas
//! (`generation`) nor the objects (`epoch`) changed meanwhile.
//!
//! Invariants: a frame that the stub may still map is never released (releases ride behind the operation that
//! unmaps it); a page with more than one owner is never mapped writable; every replacement of a page is
//! complete in the stub before the kernel stores to the new one.

use crate::frames::{FrameRange, Frames};
use crate::habits::Habits;
use crate::layout::{Layout, Totals};
use crate::mappable::{Invalidate, MappableId};
use crate::numa::NodePolicy;
use crate::segs::{Home, Pages, Seg};
use crate::vma::{Vma, VmaFlags, VmaName};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult};
use lock::{Ranked, RankedRw, order};
use platform::{AddressSpace, AsOp, OpBatch, Platform, Prot};
use smallvec::SmallVec;
use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Resource limits of the process that owns an address space, in bytes (getrlimit(2)); `u64::MAX` is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryLimits {
    /// RLIMIT_AS.
    pub address_space: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_STACK.
    pub stack: u64,
    /// RLIMIT_MEMLOCK; `u64::MAX` for holders of CAP_IPC_LOCK.
    pub locked: u64,
}

impl Default for MemoryLimits {
    fn default() -> MemoryLimits {
        MemoryLimits { address_space: u64::MAX, data: u64::MAX, stack: 8 << 20, locked: u64::MAX }
    }
}

/// Where the parts of the program are (prctl(PR_SET_MM), /proc/pid/stat, /proc/pid/cmdline).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProgramRanges {
    /// Text.
    pub code: AddrRange,
    /// Initialised data.
    pub data: AddrRange,
    /// Arguments.
    pub args: AddrRange,
    /// Environment.
    pub env: AddrRange,
    /// First address of the stack.
    pub stack_start: u64,
}

/// The open file of the program, as the kernel keeps it.
pub type ExeFile = Arc<dyn Any + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct Program {
    pub(crate) ranges: ProgramRanges,
    pub(crate) exe: Option<ExeFile>,
    pub(crate) auxv: Arc<[u8]>,
}

/// See the module.
pub struct MemoryManager {
    id: u64,
    pub(crate) me: Weak<MemoryManager>,
    pub(crate) platform: Arc<dyn Platform>,
    pub(crate) frames: Arc<Frames>,
    pub(crate) space: Arc<dyn AddressSpace>,
    pub(crate) layout: RankedRw<order::MmLayout, Layout>,
    pub(crate) pages: RankedRw<order::MmPages, Pages>,
    /// Counts invalidations; written under `pages`.
    pub(crate) epoch: AtomicU64,
    /// At most one guest thread runs here: operations may wait for its next `run`.
    single: AtomicBool,
    /// Dropped before the stub serves somebody else.
    tenancy: std::sync::OnceLock<Box<dyn Any + Send + Sync>>,
    /// CPU time of the stub when it was taken: pooled stubs have served others before.
    cpu_base_ns: u64,
    /// Operations that wait until a context asks for the stub: a program being loaded is mapped at once.
    held: Ranked<order::Leaf, Option<Vec<Change>>>,
    pub(crate) limits: Ranked<order::Leaf, MemoryLimits>,
    pub(crate) program: Ranked<order::Leaf, Program>,
    /// Shared with this space's forks.
    pub(crate) habits: Arc<Habits>,
    /// Copies that still count as made soon after a fork.
    pub(crate) fresh_copies: AtomicU32,
    /// PR_SET_MDWE.
    pub(crate) gain: crate::gain::GainCell,
}

fn stub_cpu_ns(space: &Arc<dyn AddressSpace>) -> u64 {
    space.host_pid().and_then(platform::host::process_cpu_ns).unwrap_or(0)
}

/// Copies after a fork that say what the family writes to.
pub(crate) const FRESH_COPIES: u32 = 12;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl std::fmt::Debug for MemoryManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryManager({})", self.id)
    }
}

/// Operations on the stub and the frames they set free.
#[derive(Default)]
pub(crate) struct Change {
    pub(crate) ops: SmallVec<[AsOp; 2]>,
    pub(crate) freed: Vec<FrameRange>,
}

impl Change {
    /// Notes segments that were cut out: their frames are released behind the operations.
    pub(crate) fn free(&mut self, frames: &Frames, segs: &[Seg]) {
        for seg in segs {
            let len = seg.range.len();
            match seg.home {
                Home::Frames(offset) => self.freed.push(FrameRange { offset, len }),
                Home::Object(offset) => {
                    // The object may go before the stub has unmapped its pages: hold them until then.
                    let range = FrameRange { offset, len };
                    frames.share(range);
                    self.freed.push(range);
                }
                Home::Host(..) => {}
            }
        }
    }
}

impl MemoryManager {
    /// An empty address space.
    pub fn new(platform: &Arc<dyn Platform>, frames: &Arc<Frames>) -> SysResult<Arc<MemoryManager>> {
        let space = platform.new_address_space()?;
        let layout = Layout::new(platform.user_range(), platform.reserved());
        let mm = MemoryManager::assemble(platform, frames, space, Arc::default(), |_| {
            Ok((layout, Pages::default()))
        })?;
        mm.arrange(Randomize::Yes);
        *mm.held.lock() = Some(Vec::new());
        Ok(mm)
    }

    pub(crate) fn assemble(
        platform: &Arc<dyn Platform>,
        frames: &Arc<Frames>,
        space: Arc<dyn AddressSpace>,
        habits: Arc<Habits>,
        build: impl FnOnce(&Weak<dyn Invalidate>) -> SysResult<(Layout, Pages)>,
    ) -> SysResult<Arc<MemoryManager>> {
        let mut failed = None;
        let mm = Arc::new_cyclic(|me: &Weak<MemoryManager>| {
            let weak: Weak<dyn Invalidate> = me.clone();
            let (layout, pages) = build(&weak).unwrap_or_else(|error| {
                failed = Some(error);
                Default::default()
            });
            MemoryManager {
                id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
                me: me.clone(),
                platform: Arc::clone(platform),
                frames: Arc::clone(frames),
                tenancy: std::sync::OnceLock::new(),
                cpu_base_ns: stub_cpu_ns(&space),
                space,
                layout: RankedRw::new(layout),
                pages: RankedRw::new(pages),
                epoch: AtomicU64::new(0),
                single: AtomicBool::new(false),
                held: Ranked::new(None),
                limits: Ranked::default(),
                program: Ranked::default(),
                habits,
                fresh_copies: AtomicU32::new(FRESH_COPIES),
                gain: crate::gain::GainCell::default(),
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let text: Weak<dyn platform::TextSource> = mm.me.clone();
        mm.space.attach_text(text);
        Ok(mm)
    }

    /// Pid of the stub, as this process sees it.
    #[must_use]
    pub fn host_pid(&self) -> Option<i32> {
        self.space.host_pid()
    }
    /// Keeps `tenancy` until the stub is given up. The first one stays.
    pub fn set_tenancy(&self, tenancy: Box<dyn Any + Send + Sync>) {
        // Somebody was first: theirs says the same.
        let _ = self.tenancy.set(tenancy);
    }
    /// Whether the stub is away from where stubs are made.
    pub(crate) fn is_tenant(&self) -> bool {
        self.tenancy.get().is_some()
    }
    /// CPU time of guest code here so far, in nanoseconds.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        stub_cpu_ns(&self.space).saturating_sub(self.cpu_base_ns)
    }
    /// Unique for the life of the sandbox.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }
    /// The stub's side: for making contexts. The first call carries out what was mapped up to then.
    #[must_use]
    pub fn space(&self) -> &Arc<dyn AddressSpace> {
        let held = self.held.lock().take();
        self.carry_out(held.unwrap_or_default());
        &self.space
    }
    /// Carries out what waits; more may wait afterwards.
    fn flush_held(&self) {
        let held = self.held.lock().as_mut().map(std::mem::take);
        self.carry_out(held.unwrap_or_default());
    }
    fn carry_out(&self, held: Vec<Change>) {
        if held.is_empty() {
            return;
        }
        let mut all = Change::default();
        for change in held {
            all.ops.extend(change.ops);
            all.freed.extend(change.freed);
        }
        // What could not be mapped is asked for again when it is touched.
        let _ = self.space.apply(self.batch(all));
    }
    /// The allocator behind it.
    #[must_use]
    pub fn frames(&self) -> &Arc<Frames> {
        &self.frames
    }
    /// Addresses that guests may use.
    #[must_use]
    pub fn user_range(&self) -> AddrRange {
        self.platform.user_range()
    }
    pub(crate) fn weak_space(&self) -> Weak<dyn Invalidate> {
        self.me.clone()
    }

    /// Tells whether at most one guest thread runs here (true), so that changes may ride on its next reply.
    /// The kernel sets it to false before a second thread starts, and may set it to true when one is left.
    /// Without a word from the kernel nothing is assumed.
    pub fn set_single_threaded(&self, single: bool) {
        let was = self.single.swap(single, Ordering::SeqCst);
        if was && !single {
            // Carry out what was postponed: the new thread must not see the old state.
            let _pages = self.pages.write();
            let _ = self.space.apply(OpBatch::default());
        }
    }

    /// The limits of the owner; set at exec, and on each setrlimit.
    pub fn set_limits(&self, limits: MemoryLimits) {
        *self.limits.lock() = limits;
    }
    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> MemoryLimits {
        *self.limits.lock()
    }
    /// Sets the ranges of the program.
    pub fn set_program(&self, ranges: ProgramRanges) {
        self.program.lock().ranges = ranges;
    }
    /// The ranges of the program.
    #[must_use]
    pub fn program(&self) -> ProgramRanges {
        self.program.lock().ranges
    }
    /// Sets the program's file; returns the former one for the caller to drop.
    pub fn set_exe(&self, exe: Option<ExeFile>) -> Option<ExeFile> {
        std::mem::replace(&mut self.program.lock().exe, exe)
    }
    /// The program's file.
    #[must_use]
    pub fn exe(&self) -> Option<ExeFile> {
        self.program.lock().exe.clone()
    }
    /// Keeps the auxiliary vector for /proc/pid/auxv.
    pub fn set_auxv(&self, auxv: &[u8]) {
        self.program.lock().auxv = Arc::from(auxv);
    }
    /// The auxiliary vector, as bytes.
    #[must_use]
    pub fn auxv(&self) -> Arc<[u8]> {
        Arc::clone(&self.program.lock().auxv)
    }

    /// Chooses where mappings start, and where the loader should put the stack and (behind the program) the
    /// break. Called by `new`; again by the loader when randomisation is off or the limits are known.
    pub fn arrange(&self, randomize: Randomize) -> Arrangement {
        let stack_limit = self.limits().stack;
        let user = self.user_range();
        let random = |bits: u32| match randomize {
            Randomize::No => 0,
            Randomize::Yes => {
                let mut bytes = [0u8; 8];
                // Without entropy the layout is just not random.
                let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty());
                (u64::from_le_bytes(bytes) & ((1 << bits) - 1)) * PAGE_SIZE
            }
        };
        // As Linux: the stack below the top by up to 16 GiB, mappings below it by the stack's limit within
        // 128 MiB and 5/6 of the space, and by up to 1 TiB more.
        let stack_top = user.end().saturating_sub(random(22));
        let gap = stack_limit.saturating_add(STACK_SLACK).clamp(128 << 20, user.len() / 6 * 5);
        let floor = user.start().saturating_add(user.len() / 2);
        let mmap_top = stack_top.saturating_sub(gap).saturating_sub(random(28)).max(floor);
        self.layout.write().set_mmap_top(mmap_top - mmap_top % PAGE_SIZE);
        Arrangement { stack_top, mmap_top, brk_offset: random(13), pie_offset: random(28) }
    }

    /// Registers the host's [vvar] and [vdso], which every stub has. Returns the address of [vdso].
    pub fn map_vdso(&self) -> Option<u64> {
        let vdso = self.platform.vdso()?;
        let mut layout = self.layout.write();
        let parts = [
            (self.platform.vvar(), Prot::READ, VmaName::Vvar),
            (Some(vdso), Prot::READ | Prot::EXEC, VmaName::Vdso),
        ];
        for (range, prot, name) in parts {
            let Some(range) = range else { continue };
            layout.reserved.retain(|reserved| !range.overlaps(*reserved));
            layout.remove(range);
            let flags = VmaFlags::PLATFORM | VmaFlags::DONTDUMP;
            layout.insert(Vma {
                range,
                prot,
                max_prot: prot,
                flags,
                file: None,
                name,
                policy: NodePolicy::default(),
            });
        }
        Some(vdso.start())
    }

    /// Hands a change of new or unmapped places to the stub; it may wait for the caller's next `run`.
    /// Called under `pages`, so that changes are handed over in the order in which they were made.
    pub(crate) fn submit(&self, change: Change) {
        if change.ops.is_empty() {
            self.frames.release_all(&change.freed);
            return;
        }
        if let Some(held) = self.held.lock().as_mut() {
            held.push(change);
            return;
        }
        self.space.apply_on_resume(self.batch(change));
    }

    fn batch(&self, change: Change) -> OpBatch {
        let then: Option<Box<dyn FnOnce() + Send>> = if change.freed.is_empty() {
            None
        } else {
            let frames = Arc::clone(&self.frames);
            Some(Box::new(move || frames.release_all(&change.freed)))
        };
        OpBatch { ops: change.ops, then }
    }

    /// Hands over a change that replaces pages which the guest can see: postponed only when a single thread
    /// runs here. On an error the places are unmapped, so that nothing stale stays visible.
    pub(crate) fn submit_replacing(&self, change: Change) -> SysResult<()> {
        if let Some(held) = self.held.lock().as_mut() {
            // Nothing runs here yet.
            held.push(change);
            return Ok(());
        }
        if self.single.load(Ordering::Relaxed) {
            self.space.apply_on_resume(self.batch(change));
            return Ok(());
        }
        self.submit_now(change)
    }

    /// Hands over a change and waits for it.
    pub(crate) fn submit_now(&self, change: Change) -> SysResult<()> {
        self.flush_held();
        let Change { ops, freed } = change;
        let ranges: SmallVec<[AddrRange; 2]> = ops
            .iter()
            .map(|op| match op {
                AsOp::Map { range, .. } | AsOp::Unmap { range } | AsOp::Protect { range, .. } => *range,
            })
            .collect();
        match self.space.apply(OpBatch { ops, then: None }) {
            Ok(()) => {
                self.frames.release_all(&freed);
                Ok(())
            }
            Err(platform::DEAD) => {
                // Nothing runs there any more.
                self.frames.release_all(&freed);
                Err(Errno::EFAULT)
            }
            Err(error) => {
                let ops = ranges.iter().map(|range| AsOp::Unmap { range: *range }).collect();
                if self.space.apply(OpBatch { ops, then: None }).is_ok() {
                    self.frames.release_all(&freed);
                }
                // Else the frames may still be mapped: they are lost, which is safe.
                Err(error)
            }
        }
    }

    /// Sums over the areas.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.layout.read().totals
    }
}

const STACK_SLACK: u64 = (1 << 20) + (16 << 30);

/// Whether addresses are chosen at random (off with the personality ADDR_NO_RANDOMIZE).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Randomize {
    /// At random.
    Yes,
    /// Always the same.
    No,
}

/// Where a loader should put things.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrangement {
    /// End of the stack.
    pub stack_top: u64,
    /// Mappings are placed below.
    pub mmap_top: u64,
    /// How far behind the program the break starts.
    pub brk_offset: u64,
    /// How far above the base for position-independent programs the program goes.
    pub pie_offset: u64,
}

impl Invalidate for MemoryManager {
    fn invalidate(&self, id: MappableId, offset: u64, len: u64) {
        let end = offset.saturating_add(len);
        let layout = self.layout.read();
        let mut pages = self.pages.write();
        self.epoch.fetch_add(1, Ordering::SeqCst);
        let mut change = Change::default();
        for vma in layout.iter() {
            let Some(file) = vma.file.as_ref().filter(|file| file.mapped.object().id() == id) else {
                continue;
            };
            let from = offset.max(file.offset);
            let to = end.min(file.offset.saturating_add(vma.range.len()));
            if from >= to {
                continue;
            }
            let start = vma.range.start() + (from - file.offset);
            let Some(range) = AddrRange::new(start, start + (to - from)) else { continue };
            let mut hit = pages.cut(range);
            if end != u64::MAX {
                // A punched hole leaves private copies alone.
                let (private, gone): (Vec<Seg>, Vec<Seg>) =
                    hit.into_iter().partition(|seg| matches!(seg.home, Home::Frames(_)));
                for seg in private {
                    pages.insert(seg);
                }
                hit = gone;
            }
            change.ops.extend(hit.iter().map(|seg| AsOp::Unmap { range: seg.range }));
            for seg in &hit {
                if let Home::Frames(offset) = seg.home {
                    change.freed.push(FrameRange { offset, len: seg.range.len() });
                }
            }
        }
        if !change.ops.is_empty() {
            // A dead stub has nothing mapped; another failure leaves the frames to the object's own care, and
            // the guest without the rest of its mappings.
            let _ = self.submit_now(change);
        }
    }
}

impl Drop for MemoryManager {
    fn drop(&mut self) {
        drop(self.tenancy.take());
        let mut freed: Vec<FrameRange> = Vec::new();
        let mut change = Change::default();
        let segs = self.pages.get_mut().take_all();
        change.free(&self.frames, &segs);
        freed.append(&mut change.freed);
        self.frames.uncommit(self.layout.get_mut().totals.committed);
        let frames = Arc::clone(&self.frames);
        let range = self.platform.user_range();
        self.space.retire(range, Box::new(move || frames.release_all(&freed)));
    }
}
