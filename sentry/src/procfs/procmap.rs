//! PROCMAP_QUERY of /proc/pid/maps (the kernel's proc document): one area, asked by address and answered in binary.

use super::memory::Shower;
use super::subject::Subject;
use abi::{Errno, PAGE_SIZE, SysResult, UserAddr};
use mm::{AreaInfo, GuestMemory, VmaFlags};
use platform::Prot;
use vfs::Caller;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The request.
pub(super) const PROCMAP_QUERY: u32 = 0xc068_6611;

const READABLE: u64 = 1;
const WRITABLE: u64 = 2;
const EXECUTABLE: u64 = 4;
const SHARED: u64 = 8;
const COVERING_OR_NEXT: u64 = 0x10;
const FILE_BACKED: u64 = 0x20;
const PERMISSIONS: u64 = READABLE | WRITABLE | EXECUTABLE | SHARED;
const KNOWN: u64 = PERMISSIONS | COVERING_OR_NEXT | FILE_BACKED;
/// `PATH_MAX`.
const LONGEST_NAME: usize = 4096;

/// `struct procmap_query`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Query {
    size: u64,
    flags: u64,
    addr: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_addr: u64,
    build_id_addr: u64,
}

/// Longest structure that a newer program may pass: a page.
const LONGEST: usize = 4096;
const SIZE: usize = size_of::<Query>();
/// A query without what follows `addr` makes no sense.
const LEAST: usize = 24;

fn permissions(area: &AreaInfo) -> u64 {
    let bit = |has: bool, bit: u64| if has { bit } else { 0 };
    bit(area.prot.contains(Prot::READ), READABLE)
        | bit(area.prot.contains(Prot::WRITE), WRITABLE)
        | bit(area.prot.contains(Prot::EXEC), EXECUTABLE)
        | bit(area.flags.contains(VmaFlags::SHARED), SHARED)
}

/// Answers a query: `ENOENT` when no area is as wanted, `ENAMETOOLONG` when its name does not fit, `ESRCH` when the
/// process has no memory any more.
pub(super) fn query(
    subject: &Subject,
    arg: u64,
    memory: &dyn GuestMemory,
    by: &Caller<'_>,
) -> SysResult<u64> {
    let at = UserAddr::new(arg);
    let mut size = [0; 8];
    memory.read(at, &mut size)?;
    let size = usize::try_from(u64::from_ne_bytes(size)).map_err(|_| Errno::E2BIG)?;
    if size > LONGEST {
        return Err(Errno::E2BIG);
    }
    if size < LEAST {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; size];
    memory.read(at, &mut bytes)?;
    if bytes.iter().skip(SIZE).any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    bytes.resize(SIZE, 0);
    let mut query = Query::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?;
    if query.flags & !KNOWN != 0
        || (query.name_size == 0) != (query.name_addr == 0)
        || (query.build_id_size == 0) != (query.build_id_addr == 0)
    {
        return Err(Errno::EINVAL);
    }
    let shower = Shower::new(subject, by)?.ok_or(Errno::ESRCH)?;
    let area = find(&shower, &query)?;
    let id = shower.identity(&area, by);
    query.start = area.range.start();
    query.end = area.range.end();
    query.vma_flags = permissions(&area);
    query.page_size = PAGE_SIZE;
    query.offset = if id == (0, 0) { 0 } else { area.offset };
    query.inode = id.1;
    query.dev_major = vfs::vfs::major(id.0);
    query.dev_minor = vfs::vfs::minor(id.0);
    // Nobody has looked for one: as for a file without.
    query.build_id_size = 0;
    let room = usize::try_from(query.name_size).unwrap_or(usize::MAX).min(LONGEST_NAME);
    let mut name = shower.name(&area).filter(|_| room > 0).unwrap_or_default();
    if !name.is_empty() {
        name.push(0);
    }
    if name.len() > room {
        return Err(Errno::ENAMETOOLONG);
    }
    query.name_size = u32::try_from(name.len()).unwrap_or(0);
    memory.write(UserAddr::new(query.name_addr), &name)?;
    memory.write(at, query.as_bytes().get(..size.min(SIZE)).unwrap_or_default())?;
    Ok(0)
}

/// The area at the address, or with COVERING_OR_NEXT the first behind, that is as wanted.
fn find(shower: &Shower, query: &Query) -> SysResult<AreaInfo> {
    let mut from = query.addr;
    loop {
        let area = shower.mm.areas(from, 1).pop().ok_or(Errno::ENOENT)?;
        let next_counts = query.flags & COVERING_OR_NEXT != 0;
        if !next_counts && !area.range.contains(query.addr) {
            return Err(Errno::ENOENT);
        }
        let wanted = query.flags & PERMISSIONS;
        let is_file = super::memory::place_of(&area).is_some() || area.object_name.is_some();
        let fits = permissions(&area) & wanted == wanted && (query.flags & FILE_BACKED == 0 || is_file);
        if fits {
            return Ok(area);
        }
        if !next_counts {
            return Err(Errno::ENOENT);
        }
        from = area.range.end();
    }
}
