//! Core files (core(5)): ELF with a note for each thread and a segment for each area of memory.
//!
//! The thread that dies of the signal lets the others go first, which leave their registers behind as they
//! exit, and then writes the file with its own credentials, below its own root.

mod notes;

use super::Process;
use crate::process::limits::Resource;
use crate::ptrace::stop::whole_xstate;
use crate::task::{Cx, TaskShared};
use abi::fs::OpenFlags;
use abi::siginfo::SigInfo;
use abi::signal::Signal;
use abi::{Errno, PAGE_SIZE, SysResult, UserAddr};
use mm::io::SliceSource;
use mm::{AreaInfo, VmaFlags};
use notes::Notes;
use platform::{Prot, Registers};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::{Caller, OpenFile, Walk};
use zerocopy::{Immutable, IntoBytes};

/// Bits of /proc/pid/coredump_filter.
const ANON_PRIVATE: u32 = 1;
const ANON_SHARED: u32 = 2;
const FILE_PRIVATE: u32 = 4;
const FILE_SHARED: u32 = 8;
const ELF_HEADERS: u32 = 16;
/// What is dumped unless told otherwise.
const DEFAULT_FILTER: u32 = 0x33;
/// Bytes copied at a time.
const PIECE: u64 = 256 << 10;

/// Registers of a thread, for its notes.
#[derive(Debug)]
pub struct ThreadRecord {
    /// Its number in its own namespace.
    pub tid: u32,
    /// General registers.
    pub registers: Registers,
    /// Vector state.
    pub xstate: Vec<u8>,
}

/// A thread that exits while a core is being made leaves its registers.
pub fn record(cx: &mut Cx<'_>) {
    if !cx.shared.process.marks.dumping.load(Ordering::SeqCst) {
        return;
    }
    let record = of_thread(cx);
    if let Some(list) = cx.shared.process.core.lock().as_mut() {
        list.push(record);
    }
}

fn of_thread(cx: &mut Cx<'_>) -> ThreadRecord {
    let registers = *cx.context.registers();
    ThreadRecord { tid: cx.owned.pid.own(), registers, xstate: whole_xstate(cx.context.xstate()) }
}

/// Writes a core file when limits and settings want one. Returns whether it did.
pub fn dump(cx: &mut Cx<'_>, signal: Signal, info: &SigInfo) -> bool {
    let process = Arc::clone(&cx.shared.process);
    let limit = process.limits.lock().get(Resource::Core).soft;
    if limit < PAGE_SIZE || process.marks.undumpable.load(Ordering::Relaxed) {
        return false;
    }
    let Some(name) = file_name(cx, signal) else { return false };
    *process.core.lock() = Some(Vec::new());
    process.marks.dumping.store(true, Ordering::SeqCst);
    let alone = crate::task::exec::end_others(cx).is_ok();
    process.marks.dumping.store(false, Ordering::SeqCst);
    let others = process.core.lock().take().unwrap_or_default();
    if !alone {
        return false;
    }
    let mut threads = vec![of_thread(cx)];
    threads.extend(others);
    write(cx, &name, &Death { signal, info, threads }, limit).is_ok()
}

/// What a core file says of an end.
pub(super) struct Death<'a> {
    pub(super) signal: Signal,
    pub(super) info: &'a SigInfo,
    pub(super) threads: Vec<ThreadRecord>,
}

/// The name by /proc/sys/kernel/core_pattern; `None` for a pipe, which this kernel does not start.
fn file_name(cx: &Cx<'_>, signal: Signal) -> Option<Vec<u8>> {
    let sysctl = &cx.kernel().sysctl;
    let pattern = sysctl.get("kernel/core_pattern").unwrap_or_default();
    if pattern.is_empty() || pattern.starts_with('|') {
        return None;
    }
    let process = &cx.shared.process;
    let cred = cx.cred();
    let mut name = String::new();
    let mut has_pid = false;
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            name.push(letter);
            continue;
        }
        match letters.next() {
            Some('%') => name.push('%'),
            Some('p') => {
                has_pid = true;
                name.push_str(&process.pid.own().to_string());
            }
            Some('P') => name.push_str(&process.pid.root().to_string()),
            Some('i') => name.push_str(&cx.owned.pid.own().to_string()),
            Some('I') => name.push_str(&cx.owned.pid.root().to_string()),
            Some('u') => name.push_str(&cred.user_ns.show_uid(cred.uid).to_string()),
            Some('g') => name.push_str(&cred.user_ns.show_gid(cred.gid).to_string()),
            Some('s') => name.push_str(&signal.number().to_string()),
            Some('t') => name.push_str(&vfs::realtime_now().sec.to_string()),
            Some('d') => name.push('1'),
            Some('c') => name.push_str(&process.limits.lock().get(Resource::Core).soft.to_string()),
            Some('h') => name.push_str(&String::from_utf8_lossy(&cx.owned.ns.uts.names().nodename)),
            // Names never add a directory.
            Some('e') => name.push_str(&cx.owned.comm_text().replace('/', "!")),
            Some(_) | None => {}
        }
    }
    if !has_pid && sysctl.get("kernel/core_uses_pid").is_some_and(|value| value != "0") {
        name.push_str(&format!(".{}", process.pid.own()));
    }
    Some(name.into_bytes())
}

fn open(cx: &Cx<'_>, name: &[u8], by: &Caller<'_>) -> SysResult<Arc<OpenFile>> {
    let fs = cx.fs().snapshot();
    let walk = Walk::new(&fs, by);
    let flags = OpenFlags::CREAT | OpenFlags::RDWR | OpenFlags::NOFOLLOW | OpenFlags::LARGEFILE;
    let file = vfs::ops::open(&walk, name, flags, 0o600).map_err(|_| Errno::EACCES)?;
    let attr = file.attr(by)?;
    // Not into what somebody else made or can reach by another name.
    if attr.kind != abi::fs::FileType::Regular || attr.nlink != 1 || attr.uid != cx.cred().fsuid {
        return Err(Errno::EPERM);
    }
    file.truncate(0, by)?;
    Ok(file)
}

/// `Elf64_Ehdr`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    phoff: u64,
    shoff: u64,
    flags: u32,
    ehsize: u16,
    phentsize: u16,
    phnum: u16,
    shentsize: u16,
    shnum: u16,
    shstrndx: u16,
}

/// `Elf64_Phdr`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

/// Segments that a header can count.
const MOST_AREAS: usize = 65_000;

fn write(cx: &mut Cx<'_>, name: &[u8], death: &Death<'_>, limit: u64) -> SysResult<()> {
    let areas: Vec<AreaInfo> = cx.mm().areas(0, MOST_AREAS);
    let filter = DEFAULT_FILTER ^ cx.shared.process.marks.coredump_filter.load(Ordering::Relaxed);
    let dumped: Vec<u64> = areas.iter().map(|area| dumped_len(cx, area, filter)).collect();
    let notes = Notes::of(cx, death, &areas).bytes;
    let count = u16::try_from(areas.len() + 1).map_err(|_| Errno::EFBIG)?;
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let head = number(size_of::<Header>() + size_of::<Segment>() * usize::from(count));
    let data = (head + number(notes.len())).next_multiple_of(PAGE_SIZE);
    let mut out = header(count).as_bytes().to_vec();
    let note = Segment {
        kind: 4,
        flags: 0,
        offset: head,
        vaddr: 0,
        paddr: 0,
        filesz: number(notes.len()),
        memsz: 0,
        align: 4,
    };
    out.extend_from_slice(note.as_bytes());
    let mut offset = data;
    for (area, len) in areas.iter().zip(&dumped) {
        let flag = |has: Prot, bit: u32| if area.prot.contains(has) { bit } else { 0 };
        let segment = Segment {
            kind: 1,
            flags: flag(Prot::READ, 4) | flag(Prot::WRITE, 2) | flag(Prot::EXEC, 1),
            offset,
            vaddr: area.range.start(),
            paddr: 0,
            filesz: *len,
            memsz: area.range.len(),
            align: PAGE_SIZE,
        };
        out.extend_from_slice(segment.as_bytes());
        offset += len;
    }
    out.extend_from_slice(&notes);
    let by = cx.caller();
    let file = open(cx, name, &by)?;
    let mut sink = Sink { file: &file, by: &by, limit };
    sink.put(0, &out)?;
    let mut at = data;
    for (area, len) in areas.iter().zip(&dumped) {
        copy_area(cx, &mut sink, area.range.start(), *len, at)?;
        at += len;
    }
    // Holes at the end count, too.
    file.truncate(at.min(limit), &by)
}

fn header(count: u16) -> Header {
    let mut ident = [0; 16];
    let start = [0x7f, b'E', b'L', b'F', 2, 1, 1];
    for (to, from) in ident.iter_mut().zip(start) {
        *to = from;
    }
    Header {
        ident,
        kind: 4,
        machine: 62,
        version: 1,
        entry: 0,
        phoff: 64,
        shoff: 0,
        flags: 0,
        ehsize: 64,
        phentsize: 56,
        phnum: count,
        shentsize: 0,
        shnum: 0,
        shstrndx: 0,
    }
}

/// How much of an area the filter lets through (`vma_dump_size`).
fn dumped_len(cx: &Cx<'_>, area: &AreaInfo, filter: u32) -> u64 {
    let has = |bit: u32| filter & bit != 0;
    let shared = area.flags.contains(VmaFlags::SHARED);
    if area.flags.intersects(VmaFlags::PLATFORM | VmaFlags::DONTDUMP) {
        return 0;
    }
    let len = area.range.len();
    let anonymous = area.keep.is_none() && area.object_name.is_none();
    if anonymous || (shared && area.id.dev == 0) {
        return if has(if shared { ANON_SHARED } else { ANON_PRIVATE }) { len } else { 0 };
    }
    if shared {
        return if has(FILE_SHARED) { len } else { 0 };
    }
    // What a program may have written to a file's copy is its own.
    let usage = cx.mm().usage(area.range);
    if (usage.anonymous > 0 && has(ANON_PRIVATE)) || has(FILE_PRIVATE) {
        return len;
    }
    if area.offset == 0 && has(ELF_HEADERS) && area.prot.contains(Prot::READ) {
        let mut magic = [0; 4];
        let read = cx.mm().read_partial(UserAddr::new(area.range.start()), &mut magic);
        if read == 4 && magic == [0x7f, b'E', b'L', b'F'] {
            return PAGE_SIZE;
        }
    }
    0
}

struct Sink<'a> {
    file: &'a OpenFile,
    by: &'a Caller<'a>,
    limit: u64,
}

impl Sink<'_> {
    /// Writes at an offset; what lies behind the limit is cut off.
    fn put(&mut self, offset: u64, bytes: &[u8]) -> SysResult<()> {
        let room = usize::try_from(self.limit.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut left = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        let mut at = offset;
        while !left.is_empty() {
            let mut source = SliceSource::new(left);
            let done = self.file.write_at(&mut source, at, self.by).map_err(|_| Errno::EIO)?;
            if done == 0 {
                return Err(Errno::EIO);
            }
            left = left.get(done..).unwrap_or_default();
            at += u64::try_from(done).unwrap_or(0);
        }
        Ok(())
    }
}

fn copy_area(cx: &Cx<'_>, sink: &mut Sink<'_>, start: u64, len: u64, at: u64) -> SysResult<()> {
    let mut buf = vec![0; usize::try_from(PIECE).unwrap_or(0)];
    let mut done = 0;
    while done < len && at + done < sink.limit {
        let size = PIECE.min(len - done);
        let range = abi::AddrRange::new(start + done, start + done + size);
        // Pages that were never touched stay a hole.
        if range.is_some_and(|range| cx.mm().usage(range).resident > 0)
            && let Some(part) = buf.get_mut(..usize::try_from(size).unwrap_or(0))
        {
            let read = cx.mm().read_partial(UserAddr::new(start + done), part);
            sink.put(at + done, part.get(..read).unwrap_or_default())?;
        }
        done += size;
    }
    Ok(())
}

/// Whether the process is in the middle of a dump.
#[must_use]
pub fn is_dumping(process: &Process) -> bool {
    process.marks.dumping.load(Ordering::SeqCst)
}

/// The task's parent, group and session, as its own namespace numbers them.
pub(super) fn relations(task: &Arc<TaskShared>) -> [u32; 3] {
    let Some(ns) = task.process.pid.ns() else { return [0; 3] };
    let tree = task.kernel.tree.lock();
    let Some(node) = tree.node(task.process.pid.root()) else { return [0; 3] };
    let parent = node.parent.and_then(|parent| tree.node(parent));
    [parent.map_or(0, |parent| parent.process.pid.seen_in(ns)), node.pgid.seen_in(ns), node.sid.seen_in(ns)]
}
