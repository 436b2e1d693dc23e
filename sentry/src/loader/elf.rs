//! ELF64 images: static, position-independent, and with an interpreter.

use super::{Executable, Program, TASK_SIZE, open, read_at};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult, UserAddr};
use goblin::elf64::header::{EI_CLASS, ELFCLASS64, ELFMAG, EM_X86_64, ET_DYN, ET_EXEC, Header, SIZEOF_EHDR};
use goblin::elf64::program_header::{
    PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_PHDR, SIZEOF_PHDR,
};
use mm::{Arrangement, MapFile, MapFlags, MemoryManager, MmapArgs, ProgramRanges, VmaName};
use platform::Prot;
use std::sync::Arc;
use vfs::{Caller, Follow, OpenFile, Walk};

/// Where position-independent programs with an interpreter go (`ELF_ET_DYN_BASE`).
const PIE_BASE: u64 = TASK_SIZE / 3 * 2 / PAGE_SIZE * PAGE_SIZE;
/// Most program headers Linux reads (64 KiB of them).
const MAX_HEADERS: usize = 65_536 / SIZEOF_PHDR;

/// A program header, its numbers not yet trusted.
#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

/// What the auxiliary vector says of the mapped program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    /// First instruction (of the interpreter, when there is one).
    pub(super) start: u64,
    /// AT_ENTRY.
    pub(super) entry: u64,
    /// AT_PHDR.
    pub(super) headers: u64,
    /// AT_PHNUM.
    pub(super) count: u64,
    /// AT_BASE.
    pub(super) base: u64,
    /// PT_GNU_STACK asks for an executable stack.
    pub(super) exec_stack: bool,
}

struct Parsed {
    header: Header,
    segments: Vec<Segment>,
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
}

fn parse(file: &OpenFile, head: &[u8], by: &Caller<'_>) -> SysResult<Parsed> {
    let bytes: &[u8; SIZEOF_EHDR] =
        head.get(..SIZEOF_EHDR).and_then(|b| b.try_into().ok()).ok_or(Errno::ENOEXEC)?;
    let header = *Header::from_bytes(bytes);
    let is_ours = header.e_ident.get(..4) == Some(ELFMAG)
        && header.e_ident.get(EI_CLASS) == Some(&ELFCLASS64)
        && header.e_machine == EM_X86_64
        && (header.e_type == ET_EXEC || header.e_type == ET_DYN)
        && usize::from(header.e_phentsize) == SIZEOF_PHDR;
    let count = usize::from(header.e_phnum);
    if !is_ours || count == 0 || count > MAX_HEADERS {
        return Err(Errno::ENOEXEC);
    }
    let mut table = vec![0; count * SIZEOF_PHDR];
    if read_at(file, header.e_phoff, &mut table, by)? != table.len() {
        return Err(Errno::EIO);
    }
    let segments = table
        .chunks_exact(SIZEOF_PHDR)
        .map(|h| Segment {
            kind: u32::from_le_bytes(field(h, 0)),
            flags: u32::from_le_bytes(field(h, 4)),
            offset: u64::from_le_bytes(field(h, 8)),
            vaddr: u64::from_le_bytes(field(h, 16)),
            filesz: u64::from_le_bytes(field(h, 32)),
            memsz: u64::from_le_bytes(field(h, 40)),
            align: u64::from_le_bytes(field(h, 48)),
        })
        .collect();
    Ok(Parsed { header, segments })
}

impl Segment {
    fn prot(&self) -> Prot {
        let mut prot = Prot::empty();
        prot.set(Prot::READ, self.flags & PF_R != 0);
        prot.set(Prot::WRITE, self.flags & PF_W != 0);
        prot.set(Prot::EXEC, self.flags & PF_X != 0);
        prot
    }
    /// End in memory, checked.
    fn end(&self) -> SysResult<u64> {
        let end = self.vaddr.checked_add(self.memsz).ok_or(Errno::EINVAL)?;
        if self.memsz < self.filesz || end > TASK_SIZE { Err(Errno::EINVAL) } else { Ok(end) }
    }
}

fn page_floor(value: u64) -> u64 {
    value & !(PAGE_SIZE - 1)
}
fn page_ceil(value: u64) -> SysResult<u64> {
    value.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)
}

/// Lowest and highest page of all loadable segments.
fn extent(segments: &[Segment]) -> SysResult<AddrRange> {
    let mut low = u64::MAX;
    let mut high = 0;
    for segment in segments.iter().filter(|s| s.kind == PT_LOAD) {
        low = low.min(page_floor(segment.vaddr));
        high = high.max(page_ceil(segment.end()?)?);
    }
    AddrRange::new(low, high).filter(|range| !range.is_empty()).ok_or(Errno::ENOEXEC)
}

fn alignment(segments: &[Segment]) -> u64 {
    let aligns = segments.iter().filter(|s| s.kind == PT_LOAD && s.align.is_power_of_two()).map(|s| s.align);
    aligns.max().unwrap_or(PAGE_SIZE).clamp(PAGE_SIZE, 1 << 30)
}

/// Maps the program and its interpreter.
pub(super) fn map(
    mm: &Arc<MemoryManager>,
    program: &Program<'_>,
    head: &[u8],
    arrangement: &Arrangement,
) -> SysResult<Image> {
    let main = parse(&program.file.file, head, program.by)?;
    let interpreter = open_interpreter(program, &main)?;
    let range = extent(&main.segments)?;
    let bias = if main.header.e_type == ET_EXEC {
        0
    } else {
        let align = alignment(&main.segments);
        let base = if interpreter.is_some() {
            PIE_BASE.checked_add(arrangement.pie_offset).ok_or(Errno::ENOMEM)? / align * align
        } else {
            reserve(mm, range.len(), align)?
        };
        base.wrapping_sub(range.start())
    };
    let mapped = map_segments(mm, &program.file.file, &main.segments, bias)?;
    let entry = main.header.e_entry.wrapping_add(bias);
    let brk = page_ceil(mapped.end)?.checked_add(arrangement.brk_offset).ok_or(Errno::ENOMEM)?;
    mm.set_brk_start(brk);
    mm.set_program(ProgramRanges { code: mapped.code, data: mapped.data, ..ProgramRanges::default() });
    let exec_stack = main.segments.iter().any(|s| s.kind == PT_GNU_STACK && s.flags & PF_X != 0);
    let mut image = Image {
        start: entry,
        entry,
        headers: header_address(&main, bias),
        count: u64::from(main.header.e_phnum),
        base: 0,
        exec_stack,
    };
    if let Some((file, parsed)) = interpreter {
        let range = extent(&parsed.segments)?;
        let bias = if parsed.header.e_type == ET_EXEC {
            0
        } else {
            reserve(mm, range.len(), alignment(&parsed.segments))?.wrapping_sub(range.start())
        };
        map_segments(mm, &file.file, &parsed.segments, bias)?;
        image.base = range.start().wrapping_add(bias);
        image.start = parsed.header.e_entry.wrapping_add(bias);
    }
    Ok(image)
}

fn open_interpreter(program: &Program<'_>, main: &Parsed) -> SysResult<Option<(Executable, Parsed)>> {
    let Some(segment) = main.segments.iter().find(|s| s.kind == PT_INTERP) else { return Ok(None) };
    let len = usize::try_from(segment.filesz).map_err(|_| Errno::ENOEXEC)?;
    if !(2..=abi::limits::PATH_MAX).contains(&len) {
        return Err(Errno::ENOEXEC);
    }
    let mut path = vec![0; len];
    if read_at(&program.file.file, segment.offset, &mut path, program.by)? != len {
        return Err(Errno::EIO);
    }
    if path.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    let walk = Walk::new(program.fs, program.by);
    let file = open(&walk, &path, Follow::Yes)?;
    let mut head = vec![0; SIZEOF_EHDR];
    if read_at(&file.file, 0, &mut head, program.by)? != head.len() {
        return Err(Errno::EIO);
    }
    let parsed = parse(&file.file, &head, program.by).map_err(|errno| match errno {
        Errno::ENOEXEC => Errno::ELIBBAD,
        other => other,
    })?;
    Ok(Some((file, parsed)))
}

/// Finds room for `len` bytes at a multiple of `align`, where the kernel chooses.
fn reserve(mm: &Arc<MemoryManager>, len: u64, align: u64) -> SysResult<u64> {
    let slack = if align > PAGE_SIZE { align } else { 0 };
    let whole = len.checked_add(slack).ok_or(Errno::ENOMEM)?;
    let mut args = MmapArgs::anonymous(whole, Prot::empty());
    args.flags |= MapFlags::NORESERVE;
    let at = mm.mmap(args)?;
    mm.munmap(at, whole)?;
    at.raw().checked_next_multiple_of(align).ok_or(Errno::ENOMEM)
}

struct Mapped {
    end: u64,
    code: AddrRange,
    data: AddrRange,
}

fn map_segments(
    mm: &Arc<MemoryManager>,
    file: &Arc<OpenFile>,
    segments: &[Segment],
    bias: u64,
) -> SysResult<Mapped> {
    let mut mapped = Mapped { end: 0, code: AddrRange::default(), data: AddrRange::default() };
    for segment in segments.iter().filter(|s| s.kind == PT_LOAD && s.memsz > 0) {
        let start = segment.vaddr.wrapping_add(bias);
        let moved = Segment { vaddr: start, ..*segment };
        let end = moved.end()?;
        if page_floor(start) < mm.user_range().start() {
            return Err(Errno::EPERM);
        }
        map_one(mm, file, &moved)?;
        mapped.end = mapped.end.max(end);
        let range = AddrRange::new(start, start.saturating_add(segment.filesz)).unwrap_or_default();
        if segment.flags & PF_X != 0 && mapped.code.is_empty() {
            mapped.code = range;
        }
        if segment.flags & PF_W != 0 {
            mapped.data = range;
        }
    }
    Ok(mapped)
}

fn map_one(mm: &Arc<MemoryManager>, file: &Arc<OpenFile>, segment: &Segment) -> SysResult<()> {
    let prot = segment.prot();
    let skew = segment.vaddr & (PAGE_SIZE - 1);
    if segment.offset & (PAGE_SIZE - 1) != skew {
        return Err(Errno::EINVAL);
    }
    let file_end = segment.vaddr.checked_add(segment.filesz).ok_or(Errno::EINVAL)?;
    let mem_end = segment.end()?;
    let start = page_floor(segment.vaddr);
    let mut anon_start = start;
    if segment.filesz > 0 {
        let len = page_ceil(file_end)? - start;
        mm.mmap(MmapArgs {
            addr: UserAddr::new(start),
            len,
            prot,
            flags: MapFlags::PRIVATE | MapFlags::FIXED,
            file: Some(MapFile {
                object: file.mappable()?,
                offset: page_floor(segment.offset),
                max_prot: Prot::all(),
                keep: Some(Arc::clone(file) as Arc<dyn std::any::Any + Send + Sync>),
            }),
            name: VmaName::None,
        })?;
        anon_start = start + len;
        if mem_end > file_end && prot.contains(Prot::WRITE) {
            // What stands behind the segment in its last page is not part of it.
            let zero_end = anon_start.min(mem_end.max(file_end));
            let zero_end = if mem_end >= anon_start { anon_start } else { page_ceil(zero_end)? };
            mm.write_zeros(UserAddr::new(file_end), zero_end.saturating_sub(file_end))?;
        }
    }
    let anon_end = page_ceil(mem_end)?;
    if anon_end > anon_start {
        mm.mmap(MmapArgs::anonymous(anon_end - anon_start, prot).fixed(anon_start))?;
    }
    Ok(())
}

/// Where the program headers are in memory: PT_PHDR, else inside the segment that holds their offset.
fn header_address(parsed: &Parsed, bias: u64) -> u64 {
    if let Some(segment) = parsed.segments.iter().find(|s| s.kind == PT_PHDR) {
        return segment.vaddr.wrapping_add(bias);
    }
    let offset = parsed.header.e_phoff;
    let holder = parsed
        .segments
        .iter()
        .find(|s| s.kind == PT_LOAD && s.offset <= offset && offset.wrapping_sub(s.offset) < s.filesz);
    holder.map_or(0, |s| offset.wrapping_sub(s.offset).wrapping_add(s.vaddr).wrapping_add(bias))
}
