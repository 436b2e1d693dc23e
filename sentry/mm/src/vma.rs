//! One virtual memory area: a range of addresses with one meaning.

use crate::mappable::{Invalidate, Mappable};
use crate::numa::NodePolicy;
use abi::{AddrRange, SysResult};
use platform::Prot;
use std::any::Any;
use std::sync::{Arc, Weak};

bitflags::bitflags! {
    /// What an area is, beside its protection.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct VmaFlags: u32 {
        /// MAP_SHARED.
        const SHARED = 1;
        /// MAP_GROWSDOWN: a stack.
        const GROWSDOWN = 1 << 1;
        /// MAP_NORESERVE.
        const NORESERVE = 1 << 2;
        /// mlock(2).
        const LOCKED = 1 << 3;
        /// MLOCK_ONFAULT.
        const LOCKONFAULT = 1 << 4;
        /// MADV_DONTFORK.
        const DONTFORK = 1 << 5;
        /// MADV_WIPEONFORK.
        const WIPEONFORK = 1 << 6;
        /// MADV_DONTDUMP.
        const DONTDUMP = 1 << 7;
        /// MADV_HUGEPAGE.
        const HUGEPAGE = 1 << 8;
        /// MADV_NOHUGEPAGE.
        const NOHUGEPAGE = 1 << 9;
        /// MADV_SEQUENTIAL.
        const SEQUENTIAL = 1 << 10;
        /// MADV_RANDOM.
        const RANDOM = 1 << 11;
        /// Counts against the commit limit.
        const ACCOUNT = 1 << 12;
        /// Mapped by the platform in every address space ([vdso], [vvar]).
        const PLATFORM = 1 << 13;
        /// mseal(2): what is mapped there stays as it is.
        const SEALED = 1 << 14;
    }
}

/// The bracketed names of /proc/pid/maps.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum VmaName {
    /// Nothing but what the file is called.
    #[default]
    None,
    /// `[heap]`.
    Heap,
    /// `[stack]`.
    Stack,
    /// `[vdso]`.
    Vdso,
    /// `[vvar]`.
    Vvar,
    /// `[anon:NAME]`, by PR_SET_VMA_ANON_NAME.
    Anon(Arc<[u8]>),
}

/// One use of an object by an address space. Shared by the pieces of a split area; the last one to go tells
/// the object.
pub struct Mapped {
    object: Arc<dyn Mappable>,
    space: Weak<dyn Invalidate>,
    may_write: bool,
    keep: Option<Arc<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for Mapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapped({:?})", self.object.id())
    }
}

impl Mapped {
    /// Registers with the object. With `may_write` it counts as a writable shared mapping; the object may
    /// refuse that with `EPERM`.
    pub(crate) fn new(
        object: Arc<dyn Mappable>,
        space: &Weak<dyn Invalidate>,
        may_write: bool,
        keep: Option<Arc<dyn Any + Send + Sync>>,
    ) -> SysResult<Arc<Mapped>> {
        if may_write {
            object.map_shared_write()?;
        }
        object.mapped(space);
        Ok(Arc::new(Mapped { object, space: space.clone(), may_write, keep }))
    }
    /// The same use by another address space.
    pub(crate) fn duplicate(&self, space: &Weak<dyn Invalidate>) -> Arc<Mapped> {
        let object = Arc::clone(&self.object);
        if self.may_write {
            object.inherit_shared_write();
        }
        object.mapped(space);
        Arc::new(Mapped { object, space: space.clone(), may_write: self.may_write, keep: self.keep.clone() })
    }
    /// The object.
    #[must_use]
    pub fn object(&self) -> &Arc<dyn Mappable> {
        &self.object
    }
    /// What the caller of mmap kept alive with the mapping (the open file).
    #[must_use]
    pub fn keep(&self) -> Option<&Arc<dyn Any + Send + Sync>> {
        self.keep.as_ref()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.object.unmapped(&self.space);
        if self.may_write {
            self.object.unmap_shared_write();
        }
    }
}

/// What a file-backed area shows.
#[derive(Clone, Debug)]
pub(crate) struct FilePart {
    /// The object.
    pub(crate) mapped: Arc<Mapped>,
    /// Byte offset of the area's start.
    pub(crate) offset: u64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Vma {
    /// Addresses.
    pub(crate) range: AddrRange,
    /// Current protection.
    pub(crate) prot: Prot,
    /// What mprotect may set.
    pub(crate) max_prot: Prot,
    /// Flags.
    pub(crate) flags: VmaFlags,
    /// The object behind it; `None` for private anonymous memory.
    pub(crate) file: Option<FilePart>,
    /// Special name.
    pub(crate) name: VmaName,
    /// mbind(2).
    pub(crate) policy: NodePolicy,
}

impl Vma {
    /// Whether changes are seen by others.
    pub(crate) fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }
    /// Offset in the object of the byte at `addr` (0 for anonymous memory).
    pub(crate) fn offset_of(&self, addr: u64) -> u64 {
        self.file.as_ref().map_or(0, |file| file.offset.wrapping_add(addr.wrapping_sub(self.range.start())))
    }
    /// The part of the area inside `range`, which must overlap it.
    pub(crate) fn part(&self, range: AddrRange) -> Vma {
        let range = self.range.intersect(range).unwrap_or_default();
        let mut part = self.clone();
        if let Some(file) = &mut part.file {
            file.offset = self.offset_of(range.start());
        }
        part.range = range;
        part
    }
    /// Whether `next`, which starts where this ends, can be one area with it.
    pub(crate) fn continues_in(&self, next: &Vma) -> bool {
        let files = match (&self.file, &next.file) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                (Arc::ptr_eq(&a.mapped, &b.mapped)
                    || (Arc::ptr_eq(&a.mapped.object, &b.mapped.object)
                        && a.mapped.may_write == b.mapped.may_write))
                    && a.offset.wrapping_add(self.range.len()) == b.offset
            }
            _ => false,
        };
        files
            && self.range.end() == next.range.start()
            && self.prot == next.prot
            && self.max_prot == next.max_prot
            && self.flags == next.flags
            && self.name == next.name
            && self.policy == next.policy
            && !self.flags.intersects(VmaFlags::PLATFORM | VmaFlags::GROWSDOWN)
    }
    /// Whether it is private memory that the area's owner may fill: counted by RLIMIT_DATA and overcommit.
    pub(crate) fn is_data(&self) -> bool {
        self.prot.contains(Prot::WRITE) && !self.is_shared() && !self.flags.contains(VmaFlags::GROWSDOWN)
    }
}
