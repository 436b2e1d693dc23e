//! Where the host's kernel put `[vdso]` and its data pages in this process.

use abi::{AddrRange, PAGE_SIZE};
use std::sync::OnceLock;

/// The vDSO of this process, and of every process forked from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vdso {
    /// `[vdso]`: an ELF image, for AT_SYSINFO_EHDR.
    pub code: AddrRange,
    /// `[vvar]` and, since Linux 6.13, `[vvar_vclock]`: directly below the code.
    pub data: AddrRange,
    /// All of them, one by one, lowest first.
    pub pieces: Vec<AddrRange>,
}

impl Vdso {
    /// Data and code.
    #[must_use]
    pub fn whole(&self) -> AddrRange {
        AddrRange::new(self.data.start(), self.code.end()).unwrap_or_default()
    }
}

/// Looks once, at `/proc/self/maps`, and remembers: forked children that can no longer see `/proc` know it
/// too. `None` when there is no vDSO or no `/proc`.
pub fn vdso() -> Option<&'static Vdso> {
    static FOUND: OnceLock<Vdso> = OnceLock::new();
    if FOUND.get().is_none() {
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        let _ = FOUND.set(parse(&maps)?);
    }
    FOUND.get()
}

/// The image itself: the same bytes that every guest sees.
#[must_use]
pub fn vdso_bytes() -> &'static [u8] {
    let Some(vdso) = vdso() else { return &[] };
    let Ok(len) = usize::try_from(vdso.code.len()) else { return &[] };
    let start = std::ptr::with_exposed_provenance::<u8>(usize::try_from(vdso.code.start()).unwrap_or(0));
    // SAFETY: the host's kernel mapped these pages readable before the process began, nothing here ever unmaps
    // or writes them, and forked children have them at the same place.
    unsafe { std::slice::from_raw_parts(start, len) }
}

fn parse(maps: &str) -> Option<Vdso> {
    let mut pieces = Vec::new();
    let mut code = None;
    for line in maps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(range), Some(name)) = (words.next(), words.next_back()) else { continue };
        if !matches!(name, "[vdso]" | "[vvar]" | "[vvar_vclock]") {
            continue;
        }
        let (start, end) = range.split_once('-')?;
        let range = AddrRange::new(u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?)?;
        if name == "[vdso]" {
            code = Some(range);
        }
        pieces.push(range);
    }
    let code = code?;
    let data = AddrRange::new(pieces.first()?.start(), code.start())?;
    let adjacent = pieces.windows(2).all(|pair| pair[0].end() == pair[1].start());
    let sane = adjacent && pieces.last() == Some(&code) && data.len() < 64 * PAGE_SIZE;
    sane.then_some(Vdso { code, data, pieces })
}

#[cfg(test)]
mod tests {
    use super::{parse, vdso};

    #[test]
    fn found_in_maps() {
        let found = vdso().unwrap();
        assert!(found.whole().covers(found.code) && found.whole().covers(found.data));
        let text = "7fff1000-7fff5000 r--p 00000000 00:00 0   [vvar]\n\
                    7fff5000-7fff7000 r--p 00000000 00:00 0   [vvar_vclock]\n\
                    7fff7000-7fff9000 r-xp 00000000 00:00 0   [vdso]\n\
                    ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n";
        let found = parse(text).unwrap();
        assert_eq!(found.pieces.len(), 3);
        assert_eq!(
            (found.data.start(), found.code.start(), found.whole().end()),
            (0x7fff_1000, 0x7fff_7000, 0x7fff_9000)
        );
        assert_eq!(parse("").map(|_| ()), None);
    }
}
