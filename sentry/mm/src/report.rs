//! What /proc/pid/{maps,smaps,statm,status} show of an address space.

use crate::manager::MemoryManager;
use crate::mappable::MappableId;
use crate::segs::{Home, Pages};
use crate::vma::{Vma, VmaFlags, VmaName};
use abi::AddrRange;
use platform::Prot;
use std::any::Any;
use std::sync::Arc;

/// One line of /proc/pid/maps.
#[derive(Clone)]
pub struct AreaInfo {
    /// Addresses.
    pub range: AddrRange,
    /// Protection.
    pub prot: Prot,
    /// What mprotect may set.
    pub max_prot: Prot,
    /// Flags (`VmFlags` of smaps, and whether it is shared).
    pub flags: VmaFlags,
    /// Byte offset in the object.
    pub offset: u64,
    /// Device and inode; zero for private anonymous memory.
    pub id: MappableId,
    /// What the object is called, without the mount it was reached through.
    pub object_name: Option<Vec<u8>>,
    /// The bracketed name.
    pub name: VmaName,
    /// Which nodes its pages come from.
    pub policy: crate::NodePolicy,
    /// What mmap was told to keep: the open file.
    pub keep: Option<Arc<dyn Any + Send + Sync>>,
}

/// Memory that areas use, in bytes (/proc/pid/smaps).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Mapped and in memory.
    pub resident: u64,
    /// Of these: pages of files.
    pub file: u64,
    /// Of these: pages of memory objects (tmpfs, shared anonymous memory).
    pub shmem: u64,
    /// Of these: private pages.
    pub anonymous: u64,
    /// Private pages with one owner.
    pub private_dirty: u64,
    /// Pages that others map as well.
    pub shared: u64,
}

impl Usage {
    fn add(&mut self, other: Usage) {
        self.resident += other.resident;
        self.file += other.file;
        self.shmem += other.shmem;
        self.anonymous += other.anonymous;
        self.private_dirty += other.private_dirty;
        self.shared += other.shared;
    }
}

impl MemoryManager {
    pub(crate) fn info(vma: &Vma) -> AreaInfo {
        let mapped = vma.file.as_ref().map(|file| &file.mapped);
        AreaInfo {
            range: vma.range,
            prot: vma.prot,
            max_prot: vma.max_prot,
            flags: vma.flags,
            offset: vma.offset_of(vma.range.start()),
            id: mapped.map_or_else(MappableId::default, |mapped| mapped.object().id()),
            object_name: None,
            name: vma.name.clone(),
            policy: vma.policy,
            keep: mapped.and_then(|mapped| mapped.keep().cloned()),
        }
    }
    /// The areas that end behind `from`, at most `max` of them, in order.
    #[must_use]
    pub fn areas(&self, from: u64, max: usize) -> Vec<AreaInfo> {
        let all = AddrRange::new(from, u64::MAX).unwrap_or_default();
        let found: Vec<(AreaInfo, Option<Arc<crate::vma::Mapped>>)> = {
            let layout = self.layout.read();
            layout
                .overlapping(all)
                .take(max)
                .map(|vma| (MemoryManager::info(vma), vma.file.as_ref().map(|file| Arc::clone(&file.mapped))))
                .collect()
        };
        // Objects are asked for their names without locks.
        found
            .into_iter()
            .map(|(mut info, mapped)| {
                info.object_name = mapped.and_then(|mapped| mapped.object().name());
                info
            })
            .collect()
    }
    /// The area that holds `addr`.
    #[must_use]
    pub fn area(&self, addr: u64) -> Option<AreaInfo> {
        self.areas(addr, 1).into_iter().next().filter(|area| area.range.contains(addr))
    }
    /// Number of areas.
    #[must_use]
    pub fn area_count(&self) -> usize {
        self.layout.read().count()
    }
    /// What a range uses.
    #[must_use]
    pub fn usage(&self, range: AddrRange) -> Usage {
        let pages = self.pages.read();
        self.usage_of(&pages, range)
    }
    fn usage_of(&self, pages: &Pages, range: AddrRange) -> Usage {
        let mut sum = Usage::default();
        let memory = self.frames.memory();
        for seg in pages.overlapping(range) {
            let seg = seg.part(range);
            let len = seg.range.len();
            sum.add(match seg.home {
                Home::Frames(offset) => {
                    let resident = memory.resident(offset, len);
                    let (exclusive, _) = self.frames.exclusive_run(crate::FrameRange { offset, len });
                    let (private_dirty, shared) = if exclusive { (resident, 0) } else { (0, resident) };
                    Usage { resident, anonymous: resident, private_dirty, shared, ..Usage::default() }
                }
                Home::Object(offset) => {
                    let resident = memory.resident(offset, len);
                    Usage { resident, shmem: resident, shared: resident, ..Usage::default() }
                }
                // The host does not say which pages of a file are in its cache; what is mapped counts.
                Home::Host(..) => Usage { resident: len, file: len, shared: len, ..Usage::default() },
            });
        }
        sum
    }
    /// Resident bytes, where only large pieces are looked at: small ones count whole.
    #[must_use]
    pub fn resident_about(&self) -> u64 {
        const LARGE: u64 = 1 << 20;
        let pages = self.pages.read();
        let memory = self.frames.memory();
        let all = AddrRange::new(0, u64::MAX).unwrap_or_default();
        let sizes = pages.overlapping(all).map(|seg| match (&seg.home, seg.range.len()) {
            (Home::Frames(offset) | Home::Object(offset), len) if len >= LARGE => {
                memory.resident(*offset, len)
            }
            (_, len) => len,
        });
        sizes.sum()
    }
    /// Adds the private pages, as ranges of the memory file: what is shared after a fork is in several lists.
    pub fn private_frames(&self, out: &mut Vec<crate::FrameRange>) {
        let pages = self.pages.read();
        let all = AddrRange::new(0, u64::MAX).unwrap_or_default();
        out.extend(pages.overlapping(all).filter_map(|seg| match seg.home {
            Home::Frames(offset) => Some(crate::FrameRange { offset, len: seg.range.len() }),
            _ => None,
        }));
    }
    /// What all areas use.
    #[must_use]
    pub fn total_usage(&self) -> Usage {
        self.usage(AddrRange::new(0, u64::MAX).unwrap_or_default())
    }
}
