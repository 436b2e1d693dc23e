//! Directories: what is known of their names, and listings.

use super::inode::RemoteInode;
use crate::caller::Caller;
use crate::file::{DirSink, FileOps, OpenFile, SeekFrom};
use crate::moment::Moment;
use abi::fs::FileType;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use wire::{Attr, Kind, ReaddirFlags, Reply, Request};

/// How many attributes are asked for at once, at first and at most: names that stand behind the one looked up
/// in a listing are likely to be asked for next.
const FIRST_WINDOW: usize = 32;
const LAST_WINDOW: usize = 512;

/// After so many lookups one by one the names of a directory are read, unless it is larger than this in bytes.
const SINGLES: u32 = 3;
const LARGE: u64 = 1 << 20;

/// Attributes kept for names that nobody has asked for yet.
const MOST_SEEN: usize = 4096;

/// Cookies of the first real entry: "." and ".." come before.
const FIRST_COOKIE: u64 = 2;

/// Entries handed on between two looks at the lock.
const BATCH: usize = 128;

/// Holes in a listing before it is worth closing them.
const MANY_HOLES: usize = 4096;

/// One name of a listing.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    name: Arc<[u8]>,
    ino: u64,
    kind: FileType,
}

#[derive(Debug)]
enum Known {
    /// Attributes, got before anybody asked.
    Seen(Attr),
    /// An inode in use.
    Live(Weak<RemoteInode>),
}

/// All names of a directory. A cookie is a position, and stays one: removed entries leave holes.
#[derive(Debug, Default)]
struct Listing {
    entries: Vec<Option<Entry>>,
    index: HashMap<Arc<[u8]>, usize>,
}

/// What a directory of an exclusive export knows of its names.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<Arc<[u8]>, Known>,
    seen: usize,
    listing: Option<Listing>,
    /// The name that a walk of several components just missed.
    missing: Option<Box<[u8]>>,
    /// What the call under way found (shared exports): a name with its inode, and a name that does not exist.
    found_now: Option<FoundNow>,
    missed_now: Option<MissedNow>,
    /// Grows with each change: answers that were under way are not believed.
    version: u64,
    window: usize,
    /// Attributes got before anybody asked, and how many were asked for later.
    learnt: usize,
    hits: usize,
    /// Names looked up one by one, without a listing.
    singles: u32,
    /// Open files that read the listing.
    readers: usize,
}

/// A name of a shared export with its inode, as a call found it.
#[derive(Debug)]
pub(super) struct FoundNow {
    name: Arc<[u8]>,
    inode: Arc<RemoteInode>,
    when: Moment,
}

/// A name of a shared export that a call missed.
#[derive(Debug)]
struct MissedNow {
    name: Box<[u8]>,
    /// Its directory has a default access control list.
    default_acl: bool,
    when: Moment,
}

impl FoundNow {
    /// The inode, where the call under way found it at that name.
    pub(super) fn at(self, name: &[u8]) -> Option<Arc<RemoteInode>> {
        (*self.name == *name && self.when.is_now()).then_some(self.inode)
    }
}

/// What is known of a name.
pub(super) enum Found {
    /// Its inode.
    Inode(Arc<RemoteInode>),
    /// Its attributes.
    Attr(Attr),
    /// It does not exist.
    Missing,
    /// Nothing, but these names (the asked one first) are worth asking for together.
    Ask(Vec<Arc<[u8]>>),
    /// Nothing.
    Unknown,
}

impl Names {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Whether `find` would answer without the gofer, or with a batch.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        self.listing.is_some() || self.known.contains_key(name) || self.missing.as_deref() == Some(name)
    }

    pub(super) fn find(&mut self, name: &[u8]) -> Found {
        match self.known.get(name) {
            Some(Known::Seen(attr)) => {
                self.hits = self.hits.saturating_add(1);
                return Found::Attr(*attr);
            }
            Some(Known::Live(inode)) => {
                if let Some(inode) = inode.upgrade() {
                    return Found::Inode(inode);
                }
            }
            None => {}
        }
        if self.missing.as_deref() == Some(name) {
            return Found::Missing;
        }
        let Some(listing) = &self.listing else {
            self.singles = self.singles.saturating_add(1);
            return Found::Unknown;
        };
        let Some(&at) = listing.index.get(name) else { return Found::Missing };
        // Wider while the guesses are right.
        self.window = match self.hits.saturating_mul(4) >= self.learnt {
            true => self.window.saturating_mul(2).clamp(FIRST_WINDOW, LAST_WINDOW),
            false => FIRST_WINDOW,
        };
        if self.seen >= MOST_SEEN {
            self.known.retain(|_, known| matches!(known, Known::Live(_)));
            self.seen = 0;
        }
        let entries = listing.entries.get(at..).unwrap_or_default();
        let unknown = |entry: &&Entry| !matches!(self.known.get(&entry.name), Some(Known::Seen(_)));
        let names = entries.iter().flatten().filter(unknown).take(self.window);
        Found::Ask(names.map(|entry| Arc::clone(&entry.name)).collect())
    }

    /// What was found last at a name of a shared export, to be looked at and dropped without this lock. Held no
    /// longer than needed: it pins a file of the host.
    pub(super) fn take_found(&mut self) -> Option<FoundNow> {
        self.found_now.take()
    }

    /// Whether the call under way has missed the name.
    pub(super) fn is_missed(&self, name: &[u8]) -> bool {
        self.missed_now.as_ref().is_some_and(|missed| *missed.name == *name && missed.when.is_now())
    }

    /// Keeps what a call found for its own lookup. The one before is to be dropped without this lock.
    #[must_use]
    pub(super) fn found_now(&mut self, name: &Arc<[u8]>, inode: &Arc<RemoteInode>) -> Option<FoundNow> {
        let inode = Arc::clone(inode);
        self.found_now.replace(FoundNow { name: Arc::clone(name), inode, when: Moment::now() })
    }

    /// The call under way has missed the name.
    pub(super) fn missed_now(&mut self, name: &[u8], default_acl: bool) {
        self.missed_now = Some(MissedNow { name: name.into(), default_acl, when: Moment::now() });
    }

    /// Whether the directory has a default access control list, where the call under way has heard of it.
    pub(super) fn default_acl_now(&self) -> Option<bool> {
        self.missed_now.as_ref().filter(|missed| missed.when.is_now()).map(|missed| missed.default_acl)
    }

    /// No name is taken for missing any more.
    pub(super) fn believe_no_miss(&mut self) {
        (self.missing, self.missed_now) = (None, None);
    }

    /// Whether so many names were looked up one by one that all of them had better be read.
    pub(super) fn wants_listing(&self) -> bool {
        self.listing.is_none() && self.singles == SINGLES
    }

    /// The directory was just made: it has no names.
    pub(super) fn set_empty(&mut self) {
        self.listing = Some(Listing::default());
    }

    /// Attributes that came for a batch asked at `version`.
    pub(super) fn learn(&mut self, version: u64, names: &[Arc<[u8]>], attrs: &[Option<Attr>]) {
        if version != self.version {
            return;
        }
        for (name, attr) in names.iter().zip(attrs) {
            let live = matches!(self.known.get(name), Some(Known::Live(inode)) if inode.strong_count() > 0);
            if let Some(attr) = attr
                && !live
                && !matches!(self.known.insert(Arc::clone(name), Known::Seen(*attr)), Some(Known::Seen(_)))
            {
                self.learnt = self.learnt.saturating_add(1);
                self.seen = self.seen.saturating_add(1);
            }
        }
    }

    /// The name is in use by `inode`.
    pub(super) fn live(&mut self, name: &Arc<[u8]>, inode: &Weak<RemoteInode>) {
        if let Some(Known::Seen(_)) = self.known.insert(Arc::clone(name), Known::Live(Weak::clone(inode))) {
            self.seen = self.seen.saturating_sub(1);
        }
    }

    /// The inode is no longer in use.
    pub(super) fn forget(&mut self, name: &[u8], inode: &Weak<RemoteInode>) {
        if matches!(self.known.get(name), Some(Known::Live(known)) if known.ptr_eq(inode)) {
            self.known.remove(name);
        }
    }

    /// A walk of several components missed this name.
    pub(super) fn missed(&mut self, version: u64, name: &[u8]) {
        if version == self.version {
            self.missing = Some(name.into());
        }
    }

    /// A name was made.
    pub(super) fn added(&mut self, name: &Arc<[u8]>, ino: u64, kind: FileType) {
        self.version = self.version.wrapping_add(1);
        self.believe_no_miss();
        let Some(listing) = &mut self.listing else { return };
        let entry = Entry { name: Arc::clone(name), ino, kind };
        match listing.index.get(name).and_then(|at| listing.entries.get_mut(*at)) {
            Some(slot) => *slot = Some(entry),
            None => {
                listing.index.insert(Arc::clone(name), listing.entries.len());
                listing.entries.push(Some(entry));
            }
        }
    }

    /// A name was removed.
    pub(super) fn removed(&mut self, name: &[u8]) {
        self.version = self.version.wrapping_add(1);
        if let Some(Known::Seen(_)) = self.known.remove(name) {
            self.seen = self.seen.saturating_sub(1);
        }
        if let Some(listing) = &mut self.listing {
            if let Some(slot) = listing.index.remove(name).and_then(|at| listing.entries.get_mut(at)) {
                *slot = None;
            }
            let holes = listing.entries.len().saturating_sub(listing.index.len());
            if self.readers == 0 && holes > MANY_HOLES && holes > listing.index.len() {
                listing.entries.retain(Option::is_some);
                let names = listing.entries.iter().flatten().map(|entry| Arc::clone(&entry.name));
                listing.index = names.enumerate().map(|(at, name)| (name, at)).collect();
            }
        }
    }

    /// What stood at a name, as it moves elsewhere.
    pub(super) fn inode_at(&self, name: &[u8]) -> Option<Arc<RemoteInode>> {
        match self.known.get(name) {
            Some(Known::Live(inode)) => inode.upgrade(),
            _ => None,
        }
    }

    /// Number and kind that the listing has for a name.
    pub(super) fn listed(&self, name: &[u8]) -> Option<(u64, FileType)> {
        let listing = self.listing.as_ref()?;
        let entry = listing.entries.get(*listing.index.get(name)?)?.as_ref()?;
        Some((entry.ino, entry.kind))
    }

    /// Forgets the listing: something changed that cannot be followed.
    pub(super) fn unlist(&mut self) {
        self.version = self.version.wrapping_add(1);
        self.listing = None;
    }

    /// Somebody else may have changed the directory. A listing that is being read stays.
    fn look_afresh(&mut self) {
        self.version = self.version.wrapping_add(1);
        self.missing = None;
        self.known.retain(|_, known| matches!(known, Known::Live(inode) if inode.strong_count() > 0));
        self.seen = 0;
        if self.readers == 0 {
            self.listing = None;
        }
    }
}

impl RemoteInode {
    /// See [`Names::look_afresh`].
    pub(super) fn look_afresh(&self) {
        if let Some(names) = &self.names {
            names.lock().look_afresh();
        }
    }

    /// Reads all names from the gofer.
    fn load(&self) -> SysResult<Vec<Entry>> {
        let dir = self.handle()?;
        let mut all = Vec::new();
        let (mut offset, mut flags) = (0, ReaddirFlags::REWIND);
        loop {
            let request = Request::Readdir { dir, offset, flags };
            let end = self.fs.channel.call(&request, |reply, _| match reply {
                Reply::Entries { entries, end } => {
                    for entry in entries {
                        offset = entry.next;
                        if wire::is_component(&entry.name) {
                            let kind = listed_kind(entry.kind);
                            all.push(Entry { name: Arc::from(&*entry.name), ino: entry.ino, kind });
                        }
                    }
                    Ok(end)
                }
                _ => Err(Errno::EIO),
            })?;
            flags = ReaddirFlags::empty();
            if end != 0 {
                return Ok(all);
            }
        }
    }

    /// Reads the names of a directory in which one after the other is looked up.
    pub(super) fn list_if_worthwhile(&self) {
        let wants = self.names.as_ref().is_some_and(|names| names.lock().wants_listing());
        if wants && self.last_attr().size <= LARGE {
            // Only a short cut: what fails here fails again where it is asked for.
            let _ = self.list();
        }
    }

    /// Makes sure that a directory of an exclusive export has its listing.
    fn list(&self) -> SysResult<()> {
        let names = self.names()?;
        for _ in 0..4 {
            let version = {
                let names = names.lock();
                if names.listing.is_some() {
                    return Ok(());
                }
                names.version
            };
            let entries = self.load()?;
            let mut names = names.lock();
            if names.version == version {
                let index =
                    entries.iter().enumerate().map(|(at, entry)| (Arc::clone(&entry.name), at)).collect();
                names.listing = Some(Listing { entries: entries.into_iter().map(Some).collect(), index });
                return Ok(());
            }
        }
        // Others make and remove names faster than they can be read.
        Err(Errno::EBUSY)
    }
}

/// A kind the host does not tell shows as `DT_UNKNOWN`, as for files without type bits.
fn listed_kind(kind: Kind) -> FileType {
    match FileType::from_mode(kind.mode()) {
        Some(kind) => kind,
        None => FileType::Anonymous,
    }
}

/// An open directory.
pub(super) struct DirFile {
    inode: Arc<RemoteInode>,
    /// On a shared export, and where a listing cannot be kept: the names as of the last rewind.
    own: Ranked<order::Leaf, Option<Arc<[Entry]>>>,
}

impl DirFile {
    pub(super) fn new(inode: Arc<RemoteInode>) -> SysResult<DirFile> {
        {
            let mut names = inode.names()?.lock();
            names.readers = names.readers.saturating_add(1);
        }
        Ok(DirFile { inode, own: Ranked::new(None) })
    }

    /// The next entries from a position on, with their positions.
    fn next(&self, at: usize) -> SysResult<Vec<(usize, Entry)>> {
        let own = self.own.lock().clone();
        if let Some(own) = own {
            let rest = own.get(at..).unwrap_or_default().iter().take(BATCH);
            return Ok(rest.enumerate().map(|(i, entry)| (at.saturating_add(i), entry.clone())).collect());
        }
        let names = self.inode.names()?.lock();
        let entries = names.listing.as_ref().map_or(&[][..], |listing| &listing.entries);
        let rest = entries.iter().enumerate().skip(at);
        Ok(rest.filter_map(|(i, entry)| Some((i, entry.clone()?))).take(BATCH).collect())
    }
}

impl Drop for DirFile {
    fn drop(&mut self) {
        if let Some(names) = &self.inode.names {
            let mut names = names.lock();
            names.readers = names.readers.saturating_sub(1);
        }
    }
}

impl FileOps for DirFile {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(
        &self,
        _io: &crate::file::Io<'_>,
        _dst: &mut dyn mm::GuestSink,
        _by: &Caller<'_>,
    ) -> SysResult<usize> {
        Err(Errno::EISDIR)
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        match to {
            SeekFrom::Start(at) => u64::try_from(at).map_err(|_| Errno::EINVAL),
            SeekFrom::Current(by) => current.checked_add_signed(by).ok_or(Errno::EINVAL),
            SeekFrom::End(_) | SeekFrom::Data(_) | SeekFrom::Hole(_) => Err(Errno::EINVAL),
        }
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn read_dir(
        &self,
        _file: &OpenFile,
        cookie: u64,
        sink: &mut dyn DirSink,
        _by: &Caller<'_>,
    ) -> SysResult<u64> {
        let inode = &self.inode;
        if inode.last_attr().nlink == 0 {
            return Err(Errno::ENOENT);
        }
        let fresh = cookie == 0 || self.own.lock().is_none();
        if inode.fs.is_shared() {
            if fresh {
                let entries: Arc<[Entry]> = inode.load()?.into();
                *self.own.lock() = Some(entries);
            }
        } else if fresh {
            match inode.list() {
                Ok(()) => *self.own.lock() = None,
                Err(Errno::EBUSY) => {
                    let entries: Arc<[Entry]> = inode.load()?.into();
                    *self.own.lock() = Some(entries);
                }
                Err(errno) => return Err(errno),
            }
        }
        let mut cookie = cookie;
        let own_ino = inode.fs.ino(&inode.last_attr());
        if cookie == 0 {
            if !sink.entry(b".", own_ino, FileType::Directory, 1) {
                return Ok(cookie);
            }
            cookie = 1;
        }
        if cookie == 1 {
            if !sink.entry(b"..", inode.parent_ino(), FileType::Directory, FIRST_COOKIE) {
                return Ok(cookie);
            }
            cookie = FIRST_COOKIE;
        }
        loop {
            let at = usize::try_from(cookie.saturating_sub(FIRST_COOKIE)).map_err(|_| Errno::EINVAL)?;
            let batch = self.next(at)?;
            if batch.is_empty() {
                return Ok(cookie);
            }
            for (position, entry) in batch {
                let next =
                    u64::try_from(position).map_err(|_| Errno::EINVAL)?.saturating_add(FIRST_COOKIE + 1);
                if !sink.entry(&entry.name, entry.ino, entry.kind, next) {
                    return Ok(cookie);
                }
                cookie = next;
            }
        }
    }
    fn sync(&self, _scope: crate::file::SyncScope) -> SysResult<()> {
        self.inode.fs.channel.done(&Request::Fsync { node: self.inode.handle()? })
    }
}
