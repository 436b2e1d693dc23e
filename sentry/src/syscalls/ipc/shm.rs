//! shmget(2), shmat(2), shmdt(2), shmctl(2).

use super::{INFO, RMID, SET, STAT, shown};
use crate::ipc::PermStat;
use crate::ipc::shm::{self, Attachment, Segment};
use crate::process::limits::Resource;
use crate::task::Cx;
use abi::{CallResult, Errno, PAGE_SIZE, SysResult, UserAddr, UserPtr};
use mm::{MapFile, MapFlags, Mappable, MmapArgs, VmaName};
use platform::Prot;
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const RDONLY: u32 = 0o10000;
const RND: u32 = 0o20000;
const REMAP: u32 = 0o40000;
const EXEC: u32 = 0o100_000;
const SHM_LOCK: u32 = 11;
const SHM_UNLOCK: u32 = 12;
const SHM_STAT: u32 = 13;
const SHM_INFO: u32 = 14;
const SHM_STAT_ANY: u32 = 15;
/// SHM_DEST: goes with its last attachment.
const DEST: u32 = 0o1000;
/// SHM_LOCKED.
const LOCKED: u32 = 0o2000;

/// shmget(2).
pub fn shmget(cx: &mut Cx<'_>, key: i32, size: u64, flags: u32) -> CallResult<i32> {
    const HUGETLB: u32 = 0o4000;
    if flags & HUGETLB != 0 {
        return Err(Errno::ENOMEM.into());
    }
    let who = (&**cx.cred(), cx.shared.process.pid.root());
    cx.owned.ns.ipc.shm.lock().most = super::most(cx, "kernel/shmmni");
    Ok(shm::get(&cx.owned.ns.ipc, &cx.kernel().frames, key, size, flags, who)?)
}

/// shmat(2).
pub fn shmat(cx: &mut Cx<'_>, id: i32, addr: UserAddr, flags: u32) -> CallResult<UserAddr> {
    let ns = Arc::clone(&cx.owned.ns.ipc);
    let segment = ns.shm.lock().find(id)?;
    let read_only = flags & RDONLY != 0;
    let perm = *segment.perm.lock();
    perm.check(if read_only { 4 } else { 6 }, cx.cred(), &ns)?;
    let addr = if flags & RND != 0 { addr.page_floor() } else { addr };
    if !addr.is_page_aligned() || (flags & REMAP != 0 && addr.is_null()) {
        return Err(Errno::EINVAL.into());
    }
    let mut prot = Prot::READ;
    prot.set(Prot::WRITE, !read_only);
    prot.set(Prot::EXEC, flags & EXEC != 0);
    let mut map = MapFlags::SHARED;
    if !addr.is_null() {
        map |= if flags & REMAP != 0 { MapFlags::FIXED } else { MapFlags::FIXED_NOREPLACE };
    }
    let attachment = Attachment::new(&ns, &segment, cx.shared.process.pid.root());
    let len = segment.size.checked_next_multiple_of(PAGE_SIZE).ok_or(Errno::EINVAL)?;
    let file = MapFile {
        object: Arc::clone(&segment.pages) as Arc<dyn Mappable>,
        offset: 0,
        max_prot: if read_only { Prot::READ | Prot::EXEC } else { Prot::all() },
        keep: Some(attachment as Arc<dyn Any + Send + Sync>),
    };
    let args = MmapArgs { addr, len, prot, flags: map, file: Some(file), name: VmaName::None };
    cx.mm().mmap(args).map_err(|errno| if errno == Errno::EEXIST { Errno::EINVAL } else { errno }.into())
}

/// shmdt(2).
pub fn shmdt(cx: &mut Cx<'_>, addr: UserAddr) -> CallResult<()> {
    let areas = cx.mm().areas(addr.raw(), usize::MAX);
    let ours = |area: &mm::AreaInfo| {
        area.keep.as_ref().and_then(|keep| Arc::clone(keep).downcast::<Attachment>().ok())
    };
    let first = areas.iter().find(|area| area.range.start() == addr.raw() && area.offset == 0);
    let found = first.and_then(ours).ok_or(Errno::EINVAL)?;
    for area in &areas {
        let same = ours(area).is_some_and(|other| Arc::ptr_eq(&other, &found));
        if same && area.range.start().wrapping_sub(addr.raw()) == area.offset {
            cx.mm().munmap(UserAddr::new(area.range.start()), area.range.len())?;
        }
    }
    found.segment.times[1].store(crate::ipc::now(), Ordering::Relaxed);
    found.segment.pids[1].store(cx.shared.process.pid.root(), Ordering::Relaxed);
    Ok(())
}

/// `struct shmid64_ds`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ShmStat {
    perm: PermStat,
    size: u64,
    times: [i64; 3],
    cpid: u32,
    lpid: u32,
    attached: u64,
    unused: [u64; 2],
}

fn stat(cx: &Cx<'_>, segment: &Segment) -> ShmStat {
    let mark = |mark: &std::sync::atomic::AtomicBool, bit| if mark.load(Ordering::SeqCst) { bit } else { 0 };
    let marks = mark(&segment.doomed, DEST) | mark(&segment.locked, LOCKED);
    let perm = *segment.perm.lock();
    let time = |at: usize| segment.times.get(at).map_or(0, |time| time.load(Ordering::Relaxed));
    let pid = |at: usize| segment.pids.get(at).map_or(0, |pid| shown(cx, pid.load(Ordering::Relaxed)));
    ShmStat {
        perm: perm.stat(segment.id, marks, cx.cred()),
        size: segment.size,
        times: [time(0), time(1), time(2)],
        cpid: pid(0),
        lpid: pid(1),
        attached: segment.attached(),
        unused: [0; 2],
    }
}

/// The segment at a position of the table (SHM_STAT), with its id.
fn at_index(cx: &Cx<'_>, index: i32) -> SysResult<Arc<Segment>> {
    let index = usize::try_from(index).map_err(|_| Errno::EINVAL)?;
    let table = cx.owned.ns.ipc.shm.lock();
    let found = table.iter().nth(index).map(|(_, segment)| Arc::clone(segment));
    found.ok_or(Errno::EINVAL)
}

/// shmctl(2).
pub fn shmctl(cx: &mut Cx<'_>, id: i32, command: u32, buf: UserAddr) -> CallResult<i32> {
    let ns = Arc::clone(&cx.owned.ns.ipc);
    if command == INFO || command == SHM_INFO {
        return Ok(info(cx, command, buf)?);
    }
    if command == SHM_STAT || command == SHM_STAT_ANY {
        let segment = at_index(cx, id)?;
        if command == SHM_STAT {
            let perm = *segment.perm.lock();
            perm.check(4, cx.cred(), &ns)?;
        }
        cx.write(UserPtr::new(buf), &stat(cx, &segment))?;
        return Ok(segment.id);
    }
    let segment = ns.shm.lock().find(id)?;
    let perm = *segment.perm.lock();
    match command {
        STAT => {
            perm.check(4, cx.cred(), &ns)?;
            cx.write(UserPtr::new(buf), &stat(cx, &segment))?;
        }
        SET => {
            perm.check_owner(cx.cred(), &ns)?;
            let new: ShmStat = cx.read(UserPtr::new(buf))?;
            segment.perm.lock().set(&new.perm, cx.cred())?;
            segment.times[2].store(crate::ipc::now(), Ordering::Relaxed);
        }
        RMID => {
            perm.check_owner(cx.cred(), &ns)?;
            shm::remove(&ns, &segment);
        }
        SHM_LOCK | SHM_UNLOCK => {
            let capable = cx.cred().has_in(vfs::Capabilities::IPC_LOCK, &ns.user);
            let limit = cx.shared.process.limits.lock().get(Resource::Memlock).soft;
            if !capable {
                perm.check_owner(cx.cred(), &ns)?;
                if command == SHM_LOCK && limit == 0 {
                    return Err(Errno::EPERM.into());
                }
            }
            segment.locked.store(command == SHM_LOCK, Ordering::SeqCst);
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn info(cx: &Cx<'_>, command: u32, buf: UserAddr) -> SysResult<i32> {
    let table = cx.owned.ns.ipc.shm.lock();
    let count = table.iter().count();
    let pages: u64 = table.iter().map(|(_, segment)| segment.size.div_ceil(PAGE_SIZE)).sum();
    drop(table);
    let used = u64::try_from(count).unwrap_or(0);
    let words = if command == INFO {
        [u64::MAX - (1 << 24), 1, 4096, 4096, u64::MAX - (1 << 24), 0, 0, 0, 0]
    } else {
        [used, pages, pages, 0, 0, 0, 0, 0, 0]
    };
    let len = if command == INFO { 72 } else { 48 };
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).take(len).collect();
    cx.mm().write_bytes(buf, &bytes)?;
    Ok(i32::try_from(count).unwrap_or(0).saturating_sub(1).max(0))
}
