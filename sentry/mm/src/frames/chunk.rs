//! One chunk of the memory file: 512 pages, their reference counts, and which free ones are dirty.

use smallvec::SmallVec;

/// Pages in a chunk of 2 MiB.
pub(super) const CHUNK_PAGES: usize = 512;
const WORDS: usize = CHUNK_PAGES / 64;

/// What a chunk is used for.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Nothing; reads as zero.
    Free,
    /// Freed, about to be punched.
    Limbo,
    /// All pages allocated, with the same number of references.
    Whole { refs: u32 },
    /// Page by page.
    Pages(Box<PageChunk>),
}

impl Chunk {
    /// References of a page.
    pub(super) fn refs(&self, page: usize) -> u32 {
        match self {
            Chunk::Free | Chunk::Limbo => 0,
            Chunk::Whole { refs } => *refs,
            Chunk::Pages(small) => small.refs.get(page).copied().unwrap_or(0),
        }
    }
    /// Page-wise counts, splitting a whole chunk.
    pub(super) fn pages_mut(&mut self) -> Option<&mut PageChunk> {
        if let Chunk::Whole { refs } = *self {
            let mut small = PageChunk::empty();
            small.refs = [refs; CHUNK_PAGES];
            small.used = Bits([u64::MAX; WORDS]);
            *self = Chunk::Pages(small);
        }
        match self {
            Chunk::Pages(small) => Some(small),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bits([u64; WORDS]);

impl Bits {
    fn set(&mut self, first: usize, len: usize, value: bool) {
        for at in first..first.saturating_add(len).min(CHUNK_PAGES) {
            if let Some(word) = self.0.get_mut(at / 64) {
                if value {
                    *word |= 1 << (at % 64);
                } else {
                    *word &= !(1 << (at % 64));
                }
            }
        }
    }
    /// First position from `from` on whose bit is `value`; `CHUNK_PAGES` if none.
    fn next(&self, from: usize, value: bool) -> usize {
        let mut at = from;
        while let Some(word) = self.0.get(at / 64) {
            let word = (if value { *word } else { !*word }) >> (at % 64);
            if word != 0 {
                return at + word.trailing_zeros() as usize;
            }
            at = (at / 64 + 1) * 64;
        }
        CHUNK_PAGES
    }
    fn any(&self) -> bool {
        self.0.iter().any(|word| *word != 0)
    }
}

/// A chunk whose pages are counted one by one.
#[derive(Debug)]
pub(super) struct PageChunk {
    refs: [u32; CHUNK_PAGES],
    /// Referenced, or held while the host takes them back.
    used: Bits,
    /// Free, but not known to be zero.
    dirty: Bits,
    /// No free run is longer than this.
    longest: usize,
    /// Backed by one huge page, resident as a whole: freed pages are kept, not given back one by one.
    pub(super) huge: bool,
}

impl PageChunk {
    pub(super) fn empty() -> Box<PageChunk> {
        Box::new(PageChunk {
            refs: [0; CHUNK_PAGES],
            used: Bits::default(),
            dirty: Bits::default(),
            longest: CHUNK_PAGES,
            huge: false,
        })
    }
    pub(super) fn has_free(&self) -> bool {
        self.used.next(0, false) < CHUNK_PAGES
    }
    pub(super) fn is_empty(&self) -> bool {
        !self.used.any()
    }
    pub(super) fn any_dirty(&self) -> bool {
        self.dirty.any()
    }
    pub(super) fn is_free(&self, first: usize, pages: usize) -> bool {
        self.used.next(first, true) >= first.saturating_add(pages)
    }
    /// First fit of a free run.
    pub(super) fn find(&mut self, pages: usize) -> Option<usize> {
        if pages > self.longest {
            return None;
        }
        let (mut at, mut longest) = (0, 0);
        while at < CHUNK_PAGES {
            let first = self.used.next(at, false);
            let end = self.used.next(first, true);
            if end - first >= pages && first < CHUNK_PAGES {
                return Some(first);
            }
            longest = longest.max(end - first);
            at = end;
        }
        self.longest = longest;
        None
    }
    /// Marks free pages as used with one reference; returns how many were dirty.
    pub(super) fn take(&mut self, first: usize, pages: usize) -> usize {
        let dirty = self.dirty_runs(first, pages).iter().map(|(_, len)| len).sum();
        self.used.set(first, pages, true);
        self.dirty.set(first, pages, false);
        for refs in self.refs.iter_mut().skip(first).take(pages) {
            *refs = 1;
        }
        dirty
    }
    pub(super) fn add(&mut self, first: usize, pages: usize) {
        for refs in self.refs.iter_mut().skip(first).take(pages).filter(|refs| **refs > 0) {
            *refs = refs.saturating_add(1);
        }
    }
    /// Drops a reference of each page. For every run that became free, `freed(first, pages)` says whether it
    /// is held for a punch (true) or free and dirty at once.
    pub(super) fn sub(&mut self, first: usize, pages: usize, mut freed: impl FnMut(usize, usize) -> bool) {
        let mut run: Option<(usize, usize)> = None;
        let mut done: SmallVec<[(usize, usize); 8]> = SmallVec::new();
        for (at, refs) in self.refs.iter_mut().enumerate().skip(first).take(pages) {
            // A page that saturated its count is never freed; one without references was freed before.
            if *refs == 0 || *refs == u32::MAX {
                continue;
            }
            *refs -= 1;
            if *refs > 0 {
                continue;
            }
            match &mut run {
                Some((start, len)) if *start + *len == at => *len += 1,
                other => done.extend(other.replace((at, 1))),
            }
        }
        done.extend(run);
        for (start, len) in done {
            if !freed(start, len) {
                self.used.set(start, len, false);
                self.dirty.set(start, len, true);
                self.longest = CHUNK_PAGES;
            }
        }
    }
    /// Bytes of the run from `first` whose pages are all exclusive (one reference) or all not.
    pub(super) fn alike(&self, first: usize, pages: usize, exclusive: bool) -> usize {
        self.refs.iter().skip(first).take(pages).take_while(|refs| (**refs == 1) == exclusive).count()
    }
    pub(super) fn dirty_runs(&self, first: usize, pages: usize) -> SmallVec<[(usize, usize); 4]> {
        let mut runs = SmallVec::new();
        let end = first.saturating_add(pages).min(CHUNK_PAGES);
        let mut at = self.dirty.next(first, true);
        while at < end {
            let stop = self.dirty.next(at, false).min(end);
            runs.push((at, stop - at));
            at = self.dirty.next(stop, true);
        }
        runs
    }
    /// Takes dirty free pages out of circulation while the host punches them.
    pub(super) fn hold(&mut self, first: usize, pages: usize) {
        self.used.set(first, pages, true);
        self.dirty.set(first, pages, false);
    }
    /// Puts held pages back.
    pub(super) fn unhold(&mut self, first: usize, pages: usize) {
        self.used.set(first, pages, false);
        self.longest = CHUNK_PAGES;
    }
    pub(super) fn mark_dirty(&mut self, first: usize, pages: usize) {
        self.dirty.set(first, pages, true);
    }
}
