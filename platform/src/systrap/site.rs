//! Patched call sites.
//!
//! A site that is hit often gets a jump to code of its own at a low address, which posts the call in the
//! thread's area instead of trapping. Two byte patterns are patched:
//!
//! ```text
//! Load     mov $number,%eax; syscall          jmp *target          ff 24 25 t0 t1 06 7f
//! Compare  syscall; cmp $-4096,%rax           mov $entry,%ecx      b9 e0 06 e2 e3
//!                                             jmp *%rcx            ff e1, and 06
//! ```
//! 06 is no instruction in 64-bit mode, and the addresses are chosen so that it stands wherever a thread may
//! still arrive inside the window: at the old `syscall` (a restart), behind it (a call that was under way).
//! Such a thread gets SIGILL with nothing changed, and goes on in the site's plain copy of the instructions.
//!
//! The kernel above never sees addresses of site code: [`Sites::visible`] and [`Sites::actual`] translate.
//! Lock: `StubHelper` is taken under `PatchedText`.

use super::slots::{SiteCode, Slots};
use crate::memory::MemoryFile;
use crate::stub;
use crate::stub::layout::{
    ENTRIES, ENTRIES_SIZE, ENTRY_RUN, ENTRY_SIZE, ENTRY_START, LOCAL_CALLS, SITE_COUNT, SITE_PLAIN,
    SITE_RETURN, SITE_SIZE, SITES, TABLE_SIZE, TARGETS,
};
use abi::{Errno, PAGE_SIZE, SysResult};
use lock::{Ranked, order};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// `cmp rax, -4096` (the wrappers of glibc and musl) and `cmp rax, -4095` (glibc's syscall(3), Go).
const COMPARES: [[u8; 6]; 2] = [[0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff], [0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff]];
/// No instruction.
const INVALID: u8 = 0x06;
/// What ends a window, in both forms.
const WINDOW: usize = 8;

/// The pattern of a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Load { number: u32 },
    Compare,
}

impl Form {
    fn len(self) -> usize {
        match self {
            Form::Load { .. } => 7,
            Form::Compare => 8,
        }
    }
    /// Offset in the window of the address behind `syscall`.
    fn behind_call(self) -> u64 {
        match self {
            Form::Load { .. } => 7,
            Form::Compare => 2,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Site {
    start: u64,
    form: Form,
    index: u64,
    original: [u8; WINDOW],
    patched: [u8; WINDOW],
}

impl Site {
    fn code(&self) -> u64 {
        SITES + self.index * SITE_SIZE
    }
    /// Where the plain copy of an address inside the window is.
    fn plain(&self, offset: u64) -> Option<u64> {
        let plain = self.code() + SITE_PLAIN;
        match (self.form, offset) {
            (Form::Load { .. }, 5) => Some(plain),
            (Form::Compare, 2) => Some(plain + 2),
            _ => None,
        }
    }
}

/// The sites of one family of processes: forks share them, execve starts afresh.
#[derive(Debug)]
pub(super) struct Family {
    code: SiteCode,
    sites: Ranked<order::Leaf, Index>,
}

#[derive(Debug, Default)]
struct Index {
    by_start: BTreeMap<u64, Site>,
    by_index: Vec<u64>,
    entries: u64,
}

/// One stub's patched text: the family, and which page of the memory file stands at which patched page.
#[derive(Debug, Default)]
pub(super) struct Sites {
    pub(super) family: Option<Arc<Family>>,
    pages: HashMap<u64, Option<u64>>,
}

/// What to do with a stub: write a byte of text, make every thread of it notice.
pub(super) trait Poke {
    /// Stores bytes at an offset of the memory file.
    fn write(&self, offset: u64, bytes: &[u8]) -> SysResult<()>;
    /// Returns when no thread executes what it fetched before (or no thread is left).
    fn synchronise(&self);
}

/// A thread that was found inside a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Landing {
    /// Goes on at this address.
    At(u64),
    /// The site is being patched: try again.
    Again,
}

impl Family {
    pub(super) fn new(slots: &Arc<Slots>) -> SysResult<Family> {
        Ok(Family { code: SiteCode::take(slots)?, sites: Ranked::default() })
    }
    /// Offset in the shared file.
    pub(super) fn offset(&self) -> u64 {
        self.code.offset()
    }

    /// Makes the site's code; the site itself is untouched yet.
    fn prepare(&self, start: u64, form: Form, original: [u8; WINDOW]) -> SysResult<Site> {
        let mut index = self.sites.lock();
        let number = index.by_index.len() as u64;
        if number >= SITE_COUNT || index.by_start.contains_key(&start) {
            return Err(Errno::ENOSPC);
        }
        let code = SITES + number * SITE_SIZE;
        let mut patched = original;
        let mut bytes = Vec::with_capacity(64);
        let relative = |from: u64, to: u64| {
            let distance = to.wrapping_sub(from).to_le_bytes();
            [distance[0], distance[1], distance[2], distance[3]]
        };
        if let Form::Load { number } = form {
            bytes.push(0xb8);
            bytes.extend(number.to_le_bytes());
        }
        // lea r11, [rip + the return address]
        bytes.extend([0x4c, 0x8d, 0x1d]);
        bytes.extend(relative(code + bytes.len() as u64 + 4, code + SITE_RETURN));
        bytes.push(0xe9);
        let next = match form {
            Form::Load { number } => match LOCAL_CALLS.iter().position(|call| *call == number) {
                Some(index) => stub::local(index as u64),
                None => stub::site(),
            },
            Form::Compare => stub::site(),
        };
        bytes.extend(relative(code + bytes.len() as u64 + 4, next));
        bytes.resize(0x18, 0xcc);
        bytes.extend((start + form.len() as u64).to_le_bytes());
        bytes.extend(SYSCALL);
        if form == Form::Compare {
            bytes.extend(&original[SYSCALL.len()..]);
        }
        bytes.extend([0xff, 0x25]);
        bytes.extend(relative(code + bytes.len() as u64 + 4, code + SITE_RETURN));
        bytes.resize(64, 0xcc);
        match form {
            Form::Load { .. } => {
                let target = TARGETS + number * 8;
                self.code.store(number * 8, &code.to_le_bytes());
                patched[..3].copy_from_slice(&[0xff, 0x24, 0x25]);
                patched[3..7].copy_from_slice(&target.to_le_bytes()[..4]);
            }
            Form::Compare => {
                let (block, at) =
                    (index.entries / (ENTRY_RUN / ENTRY_SIZE), index.entries % (ENTRY_RUN / ENTRY_SIZE));
                let offset = (block << 16) + ENTRY_START + at * ENTRY_SIZE;
                if offset >= ENTRIES_SIZE {
                    return Err(Errno::ENOSPC);
                }
                index.entries += 1;
                let entry = ENTRIES + offset;
                let mut jump = [0xcc; 8];
                jump[0] = 0xe9;
                jump[1..5].copy_from_slice(&relative(entry + 5, code));
                self.code.store(TABLE_SIZE + offset, &jump);
                patched[0] = 0xb9;
                patched[1..5].copy_from_slice(&entry.to_le_bytes()[..4]);
                patched[5..].copy_from_slice(&[0xff, 0xe1, INVALID]);
            }
        }
        self.code.store(number * SITE_SIZE + (SITES - TARGETS), &bytes);
        let site = Site { start, form, index: number, original, patched };
        index.by_start.insert(start, site);
        index.by_index.push(start);
        Ok(site)
    }

    fn by_code(&self, address: u64) -> Option<Site> {
        let index = usize::try_from(address.checked_sub(SITES)? / SITE_SIZE).ok()?;
        let sites = self.sites.lock();
        let start = sites.by_index.get(index)?;
        sites.by_start.get(start).copied()
    }

    /// What stands behind the call of the site whose record an area names.
    pub(super) fn behind(&self, record: u64) -> Option<u64> {
        let site = self.by_code(record)?;
        (record == site.code() + SITE_RETURN).then(|| site.start + site.form.behind_call())
    }
}

/// Whether an address lies in site code.
pub(super) fn is_site_code(address: u64) -> bool {
    (SITES..TARGETS + TABLE_SIZE).contains(&address)
        || (ENTRIES..ENTRIES + ENTRIES_SIZE).contains(&address)
        || (stub::local(0)..stub::site_end()).contains(&address)
}

/// Where in site code a thread stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The call is not posted: the site has not been entered, as far as anybody can tell.
    Before(u64),
    /// The call was posted; the address behind it.
    Posted { start: u64, behind: u64 },
    /// At an instruction of the plain copy, which stands for this address.
    Plain(u64),
}

impl Sites {
    /// Patches the site whose call returns to `ip`. `offset` is the memory file's page that holds it.
    pub(super) fn patch(
        &mut self,
        family: &Family,
        memory: &MemoryFile,
        (ip, number, offset): (u64, u32, u64),
        poke: &dyn Poke,
    ) -> SysResult<()> {
        let page = (ip - 2) & !(PAGE_SIZE - 1);
        let inside = (ip - 2) & (PAGE_SIZE - 1);
        let mut text = vec![0; 4096];
        memory.read(offset, &mut text)?;
        let at = usize::try_from(inside).map_err(|_| Errno::EFAULT)?;
        let (begin, form) = recognise(&text, at, number).ok_or(Errno::ENOENT)?;
        let mut original = [0; WINDOW];
        original[..form.len()].copy_from_slice(&text[begin..begin + form.len()]);
        let site = family.prepare(page + begin as u64, form, original)?;
        self.pages.insert(page, Some(offset));
        let base = offset + begin as u64;
        let new = &site.patched[..form.len()];
        let write = |from: usize, to: usize| poke.write(base + from as u64, &new[from..to]);
        // First nobody can enter the window, then its tail changes, then it opens again.
        match form {
            Form::Load { .. } => {
                write(5, 6)?;
                poke.write(base, &[INVALID])?;
                poke.synchronise();
                write(1, 5)?;
                write(6, 7)?;
            }
            Form::Compare => {
                write(2, 3)?;
                poke.write(base, &[INVALID])?;
                poke.synchronise();
                write(1, 2)?;
                write(3, 8)?;
            }
        }
        poke.synchronise();
        write(0, 1)
    }

    /// The site whose window holds `address`, if its text is what we put there.
    fn window(&self, memory: &MemoryFile, address: u64) -> Option<(Site, u64)> {
        let (site, inside, now) = self.covering(memory, address)?;
        (now == site.patched).then_some((site, inside))
    }

    /// The site whose window holds `address`, and what stands there now.
    fn covering(&self, memory: &MemoryFile, address: u64) -> Option<(Site, u64, [u8; WINDOW])> {
        let family = self.family.as_ref()?;
        let offset = (*self.pages.get(&(address & !(PAGE_SIZE - 1)))?)?;
        let sites = family.sites.lock();
        let (start, site) = sites.by_start.range(..=address).next_back()?;
        let site = *site;
        let inside = address - start;
        drop(sites);
        if inside >= site.form.len() as u64 {
            return None;
        }
        let mut now = [0; WINDOW];
        memory.read(offset + (site.start & (PAGE_SIZE - 1)), &mut now[..site.form.len()]).ok()?;
        Some((site, inside, now))
    }

    /// Where a thread that got SIGILL at `rip` goes on. `None`: the instruction is the guest's own.
    pub(super) fn landing(&self, memory: &MemoryFile, rip: u64) -> Option<Landing> {
        let (site, inside, now) = self.covering(memory, rip)?;
        if inside == 0 {
            // It was being patched, or still is: by another process that has the page as well.
            return (now[0] == INVALID || now == site.patched).then_some(Landing::Again);
        }
        if usize::try_from(inside).ok().and_then(|at| now.get(at)) != Some(&INVALID) {
            return None;
        }
        site.plain(inside).map(Landing::At)
    }

    /// Where a thread has to go so that it does what the guest's text says at `rip`.
    pub(super) fn actual(&self, memory: &MemoryFile, rip: u64) -> u64 {
        self.window(memory, rip).and_then(|(site, inside)| site.plain(inside)).unwrap_or(rip)
    }

    /// What an address in site code stands for. `record` is what r11 or the area say.
    pub(super) fn place(&self, rip: u64, r11: u64, record: u64) -> Option<Place> {
        let family = self.family.as_ref()?;
        if (stub::local(0)..stub::posted()).contains(&rip) {
            return Some(Place::Before(family.by_code(r11)?.start));
        }
        if (stub::posted()..stub::site_end()).contains(&rip) {
            let site = family.by_code(record)?;
            return Some(Place::Posted { start: site.start, behind: site.start + site.form.behind_call() });
        }
        if (ENTRIES..ENTRIES + ENTRIES_SIZE).contains(&rip) {
            let sites = family.sites.lock();
            let target = |site: &&Site| {
                let mut entry = [0; 8];
                entry[..4].copy_from_slice(&site.patched[1..5]);
                site.form == Form::Compare && u64::from_le_bytes(entry) == rip
            };
            return sites.by_start.values().find(target).map(|site| Place::Before(site.start));
        }
        let site = family.by_code(rip)?;
        let behind = site.start + site.form.behind_call();
        match (rip - site.code(), site.form) {
            (0..SITE_RETURN, _) => Some(Place::Before(site.start)),
            (SITE_PLAIN, _) => Some(Place::Plain(behind - 2)),
            (0x22, _) => Some(Place::Plain(behind)),
            (_, Form::Compare) => Some(Place::Plain(site.start + 8)),
            _ => None,
        }
    }

    /// Follows a change of the guest's mappings.
    pub(super) fn remapped(&mut self, start: u64, end: u64, memory: Option<u64>) {
        for (page, offset) in &mut self.pages {
            if (start..end).contains(page) {
                *offset = memory.map(|at| at + (*page - start));
            }
        }
    }

    /// Whether any page is patched.
    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// What a child by fork starts with.
    pub(super) fn inherit(&self, cloned: bool) -> Sites {
        // Mappings that are replayed name their pages one by one.
        let pages = self.pages.iter().map(|(page, at)| (*page, at.filter(|_| cloned))).collect();
        Sites { family: self.family.clone(), pages }
    }

    /// Puts the guest's own bytes over patches in text that was read at `address`.
    pub(super) fn original(&self, memory: &MemoryFile, address: u64, text: &mut [u8]) {
        let Some(family) = &self.family else { return };
        let end = address.saturating_add(text.len() as u64);
        let starts: Vec<u64> = {
            let sites = family.sites.lock();
            let first = address.saturating_sub(WINDOW as u64);
            sites.by_start.range(first..end.max(first)).map(|(start, _)| *start).collect()
        };
        for start in starts {
            let Some((site, _)) = self.window(memory, start) else { continue };
            for (i, byte) in site.original[..site.form.len()].iter().enumerate() {
                let Some(at) = (start + i as u64).checked_sub(address) else { continue };
                if let Some(place) = usize::try_from(at).ok().and_then(|at| text.get_mut(at)) {
                    *place = *byte;
                }
            }
        }
    }
}

/// The pattern around the `syscall` at `at` and where its window starts.
fn recognise(text: &[u8], at: usize, number: u32) -> Option<(usize, Form)> {
    if text.get(at..at + 2)? != SYSCALL {
        return None;
    }
    let behind = text.get(at + 2..at + 8);
    if behind.is_some_and(|behind| COMPARES.iter().any(|compare| compare == behind)) {
        return Some((at, Form::Compare));
    }
    let begin = at.checked_sub(5)?;
    let load = text.get(begin..at)?;
    let value = u32::from_le_bytes([load[1], load[2], load[3], load[4]]);
    // A prefix would make it another register's or a shorter load.
    let before = *text.get(begin.checked_sub(1)?)?;
    let prefixed = matches!(before, 0x40..=0x4f | 0x66 | 0x67);
    (load[0] == 0xb8 && value == number && !prefixed).then_some((begin, Form::Load { number }))
}
