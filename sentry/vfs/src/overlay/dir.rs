//! Reading directories. A directory of one layer is read through; a merged one is listed once per pass over
//! it, upper names first, and read from that list.

use super::inode::{OverlayInode, shown_number};
use super::names;
use crate::caller::Caller;
use crate::file::{DirSink, FileOps, Io, OpenFile, SeekFrom, SyncScope};
use crate::inode::Inode;
use abi::fs::{FileType, OpenFlags};
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use mm::GuestSink;
use std::any::Any;
use std::collections::HashSet;
use std::sync::Arc;

struct Listed {
    name: Box<[u8]>,
    ino: u64,
    kind: FileType,
}

type Names = Vec<Box<[u8]>>;

enum Mode {
    /// Reading `file`, whose inode numbers belong to the layer.
    Through(usize, Arc<OpenFile>),
    Merged(Arc<[Listed]>),
}

pub(super) struct OverlayDir {
    inode: Arc<OverlayInode>,
    mode: Ranked<order::Leaf, Option<Arc<Mode>>>,
}

/// Collects all entries of a directory.
#[derive(Default)]
struct Collect(Vec<Listed>);
impl DirSink for Collect {
    fn entry(&mut self, name: &[u8], ino: u64, kind: FileType, _next: u64) -> bool {
        if name != b"." && name != b".." {
            self.0.push(Listed { name: Box::from(name), ino, kind });
        }
        true
    }
}

/// Passes entries on with the overlay's inode numbers.
struct Renumber<'a> {
    inner: &'a mut dyn DirSink,
    layer: usize,
}
impl DirSink for Renumber<'_> {
    fn entry(&mut self, name: &[u8], ino: u64, kind: FileType, next: u64) -> bool {
        self.inner.entry(name, shown_number(self.layer, ino), kind, next)
    }
}

fn collect(dir: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<Vec<Listed>> {
    let file = open(dir, by)?;
    let mut all = Collect::default();
    let mut cookie = 0;
    loop {
        let next = file.ops().read_dir(&file, cookie, &mut all, by)?;
        if next == cookie {
            return Ok(all.0);
        }
        cookie = next;
    }
}

fn open(dir: &Arc<dyn Inode>, by: &Caller<'_>) -> SysResult<Arc<OpenFile>> {
    Ok(OpenFile::anonymous(Arc::clone(dir).open(OpenFlags::DIRECTORY, by)?, OpenFlags::DIRECTORY))
}

impl OverlayInode {
    /// All entries of all layers, and the names of whiteouts in the upper one.
    fn merge(&self, by: &Caller<'_>) -> SysResult<(Vec<Listed>, Names)> {
        let mut seen: HashSet<Box<[u8]>> = HashSet::new();
        let mut out = Vec::new();
        let mut whiteouts = Vec::new();
        let upper = self.upper.get().map(|dir| (0, dir));
        let lowers = self.lowers.iter().map(|(layer, dir)| (*layer, dir));
        for (layer, dir) in upper.into_iter().chain(lowers) {
            for entry in collect(dir, by)? {
                if seen.contains(&entry.name) {
                    continue;
                }
                seen.insert(entry.name.clone());
                if entry.kind == FileType::CharDevice
                    && dir.lookup(&entry.name, by).is_ok_and(|i| names::is_whiteout(&i, by).unwrap_or(false))
                {
                    if layer == 0 {
                        whiteouts.push(entry.name);
                    }
                    continue;
                }
                let known = if layer == 0 { self.fs.find(&(0, 0, entry.ino, 0)) } else { None };
                let ino = known.map_or_else(|| shown_number(layer, entry.ino), |inode| inode.number());
                out.push(Listed { ino, ..entry });
            }
        }
        Ok((out, whiteouts))
    }
    /// The upper whiteouts of a directory that is empty otherwise; `ENOTEMPTY`.
    pub(super) fn check_empty(&self, by: &Caller<'_>) -> SysResult<Names> {
        let (left, whiteouts) = self.merge(by)?;
        if left.is_empty() { Ok(whiteouts) } else { Err(Errno::ENOTEMPTY) }
    }
}

impl OverlayDir {
    pub(super) fn new(inode: Arc<OverlayInode>) -> OverlayDir {
        OverlayDir { inode, mode: Ranked::new(None) }
    }
    fn begin(&self, by: &Caller<'_>) -> SysResult<Arc<Mode>> {
        let mode = match (self.inode.upper.get(), self.inode.lowers.as_slice()) {
            (Some(upper), []) => Mode::Through(0, open(upper, by)?),
            (None, [(layer, dir)]) if self.inode.fs.lowers.len() == 1 => {
                Mode::Through(*layer, open(dir, by)?)
            }
            _ => Mode::Merged(Arc::from(self.inode.merge(by)?.0)),
        };
        Ok(Arc::new(mode))
    }
    fn mode(&self, cookie: u64, by: &Caller<'_>) -> SysResult<Arc<Mode>> {
        let known = self.mode.lock().clone();
        match known {
            Some(mode) if cookie > 0 => Ok(mode),
            _ => {
                let fresh = self.begin(by)?;
                let old = self.mode.lock().replace(Arc::clone(&fresh));
                drop(old);
                Ok(fresh)
            }
        }
    }
}

impl FileOps for OverlayDir {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn read(&self, _io: &Io<'_>, _dst: &mut dyn GuestSink, _by: &Caller<'_>) -> SysResult<usize> {
        Err(Errno::EISDIR)
    }
    fn is_seekable(&self) -> bool {
        true
    }
    fn can_poll(&self) -> bool {
        false
    }
    fn seek(&self, _file: &OpenFile, current: u64, to: SeekFrom, _by: &Caller<'_>) -> SysResult<u64> {
        match to {
            SeekFrom::Start(n) => u64::try_from(n).map_err(|_| Errno::EINVAL),
            SeekFrom::Current(n) => current.checked_add_signed(n).ok_or(Errno::EINVAL),
            _ => Err(Errno::EINVAL),
        }
    }
    fn read_dir(
        &self,
        _file: &OpenFile,
        cookie: u64,
        sink: &mut dyn DirSink,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        let list = match &*self.mode(cookie, by)? {
            Mode::Through(layer, file) => {
                let mut sink = Renumber { inner: sink, layer: *layer };
                return file.ops().read_dir(file, cookie, &mut sink, by);
            }
            Mode::Merged(list) => Arc::clone(list),
        };
        let mut cookie = cookie;
        if cookie == 0 {
            if !sink.entry(b".", self.inode.number(), FileType::Directory, 1) {
                return Ok(0);
            }
            cookie = 1;
        }
        if cookie == 1 {
            let parent = self.inode.place.lock().parent.clone();
            let ino = parent.map_or(self.inode.number(), |p| p.number());
            if !sink.entry(b"..", ino, FileType::Directory, 2) {
                return Ok(1);
            }
            cookie = 2;
        }
        let from = usize::try_from(cookie - 2).unwrap_or(usize::MAX);
        for entry in list.get(from..).unwrap_or_default() {
            if !sink.entry(&entry.name, entry.ino, entry.kind, cookie + 1) {
                return Ok(cookie);
            }
            cookie += 1;
        }
        Ok(cookie)
    }
    fn sync(&self, _scope: SyncScope) -> SysResult<()> {
        Ok(())
    }
}
