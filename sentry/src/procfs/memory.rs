//! What /proc/pid shows of an address space (proc_pid_maps(5), proc_pid_smaps(5), proc_pid_mem(5)).

use super::subject::{PtraceAccess, Subject};
use super::text::{escape, put};
use abi::fs::{FileType, OpenFlags};
use abi::{AddrRange, Errno, PAGE_SIZE, SysResult, UserAddr};
use mm::{AreaInfo, GuestSink, GuestSource, MemoryManager, Usage, VmaFlags};
use platform::Prot;
use std::any::Any;
use std::sync::Arc;
use vfs::synthetic::{Custom, Node};
use vfs::{Caller, FileOps, Io, Location, OpenFile, SeekFrom};

/// Most bytes that arguments or an environment may have.
const ARGS_MAX: u64 = 4 << 20;
/// Areas taken in one look at an address space.
const BATCH: usize = 256;

pub(super) fn memory_of(subject: &Subject) -> SysResult<Option<Arc<MemoryManager>>> {
    let task = subject.task()?;
    let mm = task.published.lock().mm.clone();
    Ok(mm)
}

fn read_range(mm: &MemoryManager, range: AddrRange) -> Vec<u8> {
    let len = usize::try_from(range.len().min(ARGS_MAX)).unwrap_or(0);
    let mut bytes = vec![0; len];
    let got = mm.read_partial(UserAddr::new(range.start()), &mut bytes);
    bytes.truncate(got);
    bytes
}

/// The arguments; a program that wrote over them and the environment (setproctitle) is shown up to its NUL.
pub(super) fn cmdline(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let Some(mm) = memory_of(subject)? else { return Ok(Vec::new()) };
    let program = mm.program();
    let mut bytes = read_range(&mm, program.args);
    let whole = u64::try_from(bytes.len()).unwrap_or(0) == program.args.len();
    if whole && bytes.last().is_some_and(|last| *last != 0) {
        let end = bytes.iter().position(|byte| *byte == 0);
        match end {
            Some(end) => bytes.truncate(end.saturating_add(1)),
            None => {
                let more = read_range(&mm, program.env);
                let end = more.iter().position(|byte| *byte == 0);
                bytes.extend(more.into_iter().take(end.map_or(usize::MAX, |end| end.saturating_add(1))));
            }
        }
    }
    Ok(bytes)
}

pub(super) fn environ(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    subject.check(PtraceAccess::Read, by)?;
    let Some(mm) = memory_of(subject)? else { return Ok(Vec::new()) };
    Ok(read_range(&mm, mm.program().env))
}

pub(super) fn auxv(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    subject.check(PtraceAccess::Read, by)?;
    Ok(memory_of(subject)?.map(|mm| mm.auxv().to_vec()).unwrap_or_default())
}

pub(super) fn ksm_stat(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    subject.task()?;
    Ok(b"ksm_rmap_items 0\nksm_zero_pages 0\nksm_merging_pages 0\nksm_process_profit 0\n".to_vec())
}

/// Where the file of an area is, when it has one.
pub(crate) fn place_of(area: &AreaInfo) -> Option<Location> {
    let keep = area.keep.as_ref()?;
    if let Some(file) = keep.downcast_ref::<OpenFile>() {
        return file.location().cloned();
    }
    keep.downcast_ref::<crate::loader::Executable>().map(|program| program.location.clone())
}

/// One address space as one reader sees it.
pub(super) struct Shower {
    pub(super) mm: Arc<MemoryManager>,
    root: Option<Location>,
}

impl Shower {
    pub(super) fn new(subject: &Subject, by: &Caller<'_>) -> SysResult<Option<Shower>> {
        let Some(mm) = memory_of(subject)? else { return Ok(None) };
        let reader = super::status::published_reader(&subject.kernel, by);
        let root = reader.and_then(|reader| reader.fs).map(|fs| fs.snapshot().root.clone());
        Ok(Some(Shower { mm, root }))
    }
    fn each(&self, mut show: impl FnMut(&AreaInfo)) {
        let mut from = 0;
        loop {
            let areas = self.mm.areas(from, BATCH);
            let Some(last) = areas.last() else { return };
            from = last.range.end();
            areas.iter().for_each(&mut show);
            if areas.len() < BATCH {
                return;
            }
        }
    }
    pub(super) fn name(&self, area: &AreaInfo) -> Option<Vec<u8>> {
        let text = match place_of(area) {
            Some(place) => {
                let root = self.root.as_ref().unwrap_or(&place);
                let shown = vfs::path::show(&place, root);
                Some(shown.text)
            }
            None => area.object_name.clone(),
        };
        text.map(|text| escape(&text, b"\n")).or_else(|| area.name.text())
    }
    /// Device and inode number of what is mapped; zeroes for none.
    pub(super) fn identity(&self, area: &AreaInfo, by: &Caller<'_>) -> (u64, u64) {
        let (mut dev, mut ino) = (area.id.dev, area.id.ino);
        if let Some(place) = place_of(area)
            && let Ok(inode) = place.inode()
        {
            dev = place.mount.sb.fs.dev();
            ino = inode.ino().or_else(|| inode.attr(by).ok().map(|attr| attr.ino)).unwrap_or(ino);
        }
        (dev, ino)
    }
    fn line(&self, out: &mut Vec<u8>, area: &AreaInfo, by: &Caller<'_>) {
        area_line(out, area, self.identity(area, by), self.name(area).as_deref());
    }
}

/// Where the name starts in a line of maps.
const NAME_COLUMN: usize = 73;

fn area_line(out: &mut Vec<u8>, area: &AreaInfo, id: (u64, u64), name: Option<&[u8]>) {
    let flag = |has: bool, letter: char| if has { letter } else { '-' };
    let prot = area.prot;
    let offset = if id == (0, 0) { 0 } else { area.offset };
    let mut line = format!(
        "{:08x}-{:08x} {}{}{}{} {offset:08x} {:02x}:{:02x} {} ",
        area.range.start(),
        area.range.end(),
        flag(prot.contains(Prot::READ), 'r'),
        flag(prot.contains(Prot::WRITE), 'w'),
        flag(prot.contains(Prot::EXEC), 'x'),
        if area.flags.contains(VmaFlags::SHARED) { 's' } else { 'p' },
        vfs::vfs::major(id.0),
        vfs::vfs::minor(id.0),
        id.1,
    );
    if let Some(name) = name {
        while line.len() < NAME_COLUMN {
            line.push(' ');
        }
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(name);
    } else {
        out.extend_from_slice(line.as_bytes());
    }
    out.push(b'\n');
}

pub(super) fn maps(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let mut out = Vec::new();
    if let Some(shower) = Shower::new(subject, by)? {
        shower.each(|area| shower.line(&mut out, area, by));
    }
    Ok(out)
}

/// A memory policy as numa_maps and mount options show it.
fn policy_text(policy: mm::NodePolicy) -> String {
    const NAMES: [&str; 7] =
        ["default", "prefer", "bind", "interleave", "local", "prefer (many)", "weighted interleave"];
    let mm::NodePolicy::Set { mode, flags, nodes, .. } = policy else { return "default".to_owned() };
    let mut text = NAMES.get(usize::from(mode)).copied().unwrap_or("default").to_owned();
    match (flags & 0x8000 != 0, flags & 0x4000 != 0) {
        (true, _) => text.push_str("=static"),
        (_, true) => text.push_str("=relative"),
        _ => {}
    }
    if nodes & 1 != 0 {
        text.push_str(":0");
    }
    text
}

pub(super) fn numa_maps(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let mut out = Vec::new();
    let Some(shower) = Shower::new(subject, by)? else { return Ok(out) };
    shower.each(|area| {
        let policy = policy_text(area.policy);
        out.extend_from_slice(format!("{:08x} {policy}", area.range.start()).as_bytes());
        match shower.name(area) {
            Some(name) if name == b"[heap]" => out.extend_from_slice(b" heap"),
            Some(name) if name == b"[stack]" => out.extend_from_slice(b" stack"),
            Some(name) if name.first() == Some(&b'/') => {
                out.extend_from_slice(b" file=");
                out.extend_from_slice(&escape(&name, b" \t\n"));
            }
            _ => {}
        }
        let usage = shower.mm.usage(area.range);
        if usage.anonymous > 0 {
            out.extend_from_slice(format!(" anon={0} dirty={0}", usage.anonymous / PAGE_SIZE).as_bytes());
        }
        if usage.resident > 0 {
            out.extend_from_slice(format!(" N0={}", usage.resident / PAGE_SIZE).as_bytes());
        }
        out.extend_from_slice(b" kernelpagesize_kB=4\n");
    });
    Ok(out)
}

/// The lines of smaps from Rss to Locked.
fn usage_lines(out: &mut String, usage: &Usage, locked: u64, rollup: bool) {
    let dirty = usage.private_dirty;
    let others = usage.resident.saturating_sub(dirty);
    // Who else maps a page is not counted: it weighs whole, as for one owner.
    let pss = usage.resident;
    let mut lines: Vec<(&str, u64)> =
        vec![("Rss", usage.resident), ("Pss", pss), ("Pss_Dirty", usage.anonymous)];
    if rollup {
        lines.extend([("Pss_Anon", usage.anonymous), ("Pss_File", usage.file), ("Pss_Shmem", usage.shmem)]);
    }
    lines.extend([
        ("Shared_Clean", others.saturating_sub(usage.shmem)),
        ("Shared_Dirty", usage.shmem),
        ("Private_Clean", 0),
        ("Private_Dirty", dirty),
        ("Referenced", usage.resident),
        ("Anonymous", usage.anonymous),
        ("KSM", 0),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", locked),
    ]);
    for (name, bytes) in lines {
        size_line(out, name, bytes);
    }
}

fn size_line(out: &mut String, name: &str, bytes: u64) {
    let label = format!("{name}:");
    put!(*out, "{label:<16}{:>8} kB\n", bytes / 1024);
}

fn flag_words(area: &AreaInfo) -> String {
    let mut words = String::from("VmFlags:");
    let shared = area.flags.contains(VmaFlags::SHARED);
    for (has, word) in [
        (area.prot.contains(Prot::READ), "rd"),
        (area.prot.contains(Prot::WRITE), "wr"),
        (area.prot.contains(Prot::EXEC), "ex"),
        (shared, "sh"),
        (area.max_prot.contains(Prot::READ), "mr"),
        (area.max_prot.contains(Prot::WRITE), "mw"),
        (area.max_prot.contains(Prot::EXEC), "me"),
        (shared && area.max_prot.contains(Prot::WRITE), "ms"),
        (area.flags.contains(VmaFlags::GROWSDOWN), "gd"),
        (area.flags.contains(VmaFlags::LOCKED), "lo"),
        (area.flags.contains(VmaFlags::SEQUENTIAL), "sr"),
        (area.flags.contains(VmaFlags::RANDOM), "rr"),
        (area.flags.contains(VmaFlags::DONTFORK), "dc"),
        (area.flags.contains(VmaFlags::ACCOUNT), "ac"),
        (area.flags.contains(VmaFlags::NORESERVE), "nr"),
        (area.flags.contains(VmaFlags::WIPEONFORK), "wf"),
        (area.flags.contains(VmaFlags::DONTDUMP), "dd"),
        (area.flags.contains(VmaFlags::HUGEPAGE), "hg"),
        (area.flags.contains(VmaFlags::NOHUGEPAGE), "nh"),
    ] {
        if has {
            words.push(' ');
            words.push_str(word);
        }
    }
    words.push_str(" \n");
    words
}

fn locked_part(area: &AreaInfo, usage: &Usage) -> u64 {
    if area.flags.contains(VmaFlags::LOCKED) { usage.resident } else { 0 }
}

pub(super) fn smaps(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let mut out = Vec::new();
    let Some(shower) = Shower::new(subject, by)? else { return Ok(out) };
    shower.each(|area| {
        shower.line(&mut out, area, by);
        let usage = shower.mm.usage(area.range);
        let mut text = String::new();
        size_line(&mut text, "Size", area.range.len());
        size_line(&mut text, "KernelPageSize", PAGE_SIZE);
        size_line(&mut text, "MMUPageSize", PAGE_SIZE);
        usage_lines(&mut text, &usage, locked_part(area, &usage), false);
        put!(text, "THPeligible:    {:>8}\n", 0);
        text.push_str(&flag_words(area));
        out.extend_from_slice(text.as_bytes());
    });
    Ok(out)
}

pub(super) fn smaps_rollup(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let shower = Shower::new(subject, by)?.ok_or(Errno::ESRCH)?;
    let (mut first, mut last, mut locked) = (None, 0, 0_u64);
    shower.each(|area| {
        first = first.or(Some(area.range.start()));
        last = area.range.end();
        if area.flags.contains(VmaFlags::LOCKED) {
            locked = locked.saturating_add(shower.mm.usage(area.range).resident);
        }
    });
    let usage = shower.mm.total_usage();
    let mut line = format!("{:08x}-{last:08x} ---p 00000000 00:00 0 ", first.unwrap_or(0));
    while line.len() < NAME_COLUMN {
        line.push(' ');
    }
    line.push_str("[rollup]\n");
    usage_lines(&mut line, &usage, locked, true);
    Ok(line.into_bytes())
}

/// /proc/pid/clear_refs: nothing is counted that it could clear.
pub(super) fn clear_refs(
    subject: &Subject,
    write: &vfs::synthetic::WriteText<'_>,
    _by: &Caller<'_>,
) -> SysResult<()> {
    subject.task()?;
    if matches!(write.number::<u32>()?, 1..=5) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// /proc/pid/mem.
pub(super) fn mem(subject: &Subject) -> Node {
    Node::custom(FileType::Regular, 0o600, Arc::new(MemoryFile(subject.clone())))
}

struct MemoryFile(Subject);

impl Custom for MemoryFile {
    fn open(&self, _flags: OpenFlags, by: &Caller<'_>) -> SysResult<Arc<dyn FileOps>> {
        self.0.check(PtraceAccess::Attach, by)?;
        Ok(Arc::new(OpenMemory(memory_of(&self.0)?)))
    }
}

/// The address space stays the one that was there at the open, whatever its process does.
struct OpenMemory(Option<Arc<MemoryManager>>);

/// How much is copied at a time.
const CHUNK: usize = 64 << 10;

impl FileOps for OpenMemory {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, io: &Io<'_>, dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        let Some(mm) = &self.0 else { return Ok(0) };
        let mut done = 0_usize;
        while dst.remaining() > 0 {
            let mut chunk = vec![0; dst.remaining().min(CHUNK)];
            let at = io.offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
            let got = mm.read_partial(UserAddr::new(at), &mut chunk);
            if got == 0 {
                break;
            }
            let put = dst.put(chunk.get(..got).unwrap_or_default())?;
            done = done.saturating_add(put);
            if put < chunk.len() {
                break;
            }
        }
        if done == 0 && dst.remaining() > 0 { Err(Errno::EIO) } else { Ok(done) }
    }
    fn write(&self, io: &Io<'_>, src: &mut dyn GuestSource, _by: &Caller<'_>) -> SysResult<(usize, u64)> {
        let Some(mm) = &self.0 else { return Ok((0, io.offset)) };
        let mut done = 0_usize;
        let wanted = src.remaining();
        let end = |done: usize| io.offset.saturating_add(u64::try_from(done).unwrap_or(0));
        while src.remaining() > 0 {
            let mut chunk = vec![0; src.remaining().min(CHUNK)];
            let got = src.take(&mut chunk)?;
            let put = mm.write_forced(UserAddr::new(end(done)), chunk.get(..got).unwrap_or_default());
            done = done.saturating_add(put);
            if put < got || got == 0 {
                break;
            }
        }
        if done == 0 && wanted > 0 { Err(Errno::EIO) } else { Ok((done, end(done))) }
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        match to {
            SeekFrom::Start(at) => Ok(at.cast_unsigned()),
            SeekFrom::Current(by) => Ok(current.wrapping_add_signed(by)),
            _ => Err(Errno::EINVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(start: u64, end: u64) -> AreaInfo {
        AreaInfo {
            range: AddrRange::new(start, end).unwrap(),
            prot: Prot::READ | Prot::EXEC,
            max_prot: Prot::all(),
            flags: VmaFlags::empty(),
            offset: 0x2000,
            id: mm::MappableId::default(),
            object_name: None,
            name: mm::VmaName::None,
            policy: mm::NodePolicy::default(),
            keep: None,
        }
    }

    #[test]
    fn lines_of_maps() {
        let mut out = Vec::new();
        area_line(&mut out, &area(0x40_0000, 0x40_1000), (0x801, 42), Some(b"/bin/sh"));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "00400000-00401000 r-xp 00002000 08:01 42                                 /bin/sh\n"
        );
        let mut out = Vec::new();
        area_line(&mut out, &area(0x7fff_f7fc_1000, 0x7fff_f7fc_5000), (0, 0), None);
        assert_eq!(String::from_utf8(out).unwrap(), "7ffff7fc1000-7ffff7fc5000 r-xp 00000000 00:00 0 \n");
        let mut text = String::new();
        size_line(&mut text, "Size", 132 << 10);
        assert_eq!(text, "Size:                132 kB\n");
        assert_eq!(flag_words(&area(0, 0x1000)), "VmFlags: rd ex mr mw me \n");
    }
}
