//! process_vm_readv(2), process_vm_writev(2), process_madvise(2), process_mrelease(2), kcmp(2).

use crate::ptrace::access::{Mode, may_access};
use crate::task::{Cx, TaskShared};
use abi::stat::Iovec;
use abi::{CallResult, Errno, Fd, SysResult, UserAddr, UserPtr};
use mm::MemoryManager;
use std::sync::Arc;

/// Bytes copied at a time.
const PIECE: usize = 64 << 10;

fn find(cx: &Cx<'_>, pid: i32) -> SysResult<Arc<TaskShared>> {
    let number = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    let tree = cx.kernel().tree.lock();
    Ok(Arc::clone(tree.find_task(&ns, number).ok_or(Errno::ESRCH)?))
}

fn vectors(cx: &Cx<'_>, at: UserPtr<Iovec>, count: u64) -> SysResult<Vec<(u64, u64)>> {
    let count = usize::try_from(count).ok().filter(|n| *n <= abi::limits::IOV_MAX).ok_or(Errno::EINVAL)?;
    let list = cx.mm().read_array(at, count)?;
    let mut total = 0_u64;
    for vector in &list {
        total = total.checked_add(vector.len).filter(|n| i64::try_from(*n).is_ok()).ok_or(Errno::EINVAL)?;
    }
    Ok(list.iter().map(|vector| (vector.base, vector.len)).collect())
}

/// Copies between two lists of places; stops at the first place that cannot be reached.
fn copy(from: (&MemoryManager, &[(u64, u64)]), to: (&MemoryManager, &[(u64, u64)])) -> SysResult<usize> {
    let mut done = 0;
    let mut sources = from.1.iter().copied().filter(|(_, len)| *len > 0);
    let mut targets = to.1.iter().copied().filter(|(_, len)| *len > 0);
    let (mut source, mut target) = (sources.next(), targets.next());
    let mut buf = vec![0; PIECE];
    while let (Some((s_at, s_len)), Some((t_at, t_len))) = (source, target) {
        let want = usize::try_from(s_len.min(t_len)).unwrap_or(PIECE).min(PIECE);
        let Some(part) = buf.get_mut(..want) else { break };
        let read = from.0.read_partial(UserAddr::new(s_at), part);
        let written = to.0.write_partial(UserAddr::new(t_at), part.get(..read).unwrap_or_default());
        done += written;
        let moved = u64::try_from(written).unwrap_or(0);
        if written < want {
            return if done == 0 { Err(Errno::EFAULT) } else { Ok(done) };
        }
        let step = |at: u64, len: u64| (len > moved).then(|| (at.wrapping_add(moved), len - moved));
        source = step(s_at, s_len).or_else(|| sources.next());
        target = step(t_at, t_len).or_else(|| targets.next());
    }
    Ok(done)
}

fn other_memory(cx: &Cx<'_>, pid: i32) -> SysResult<Arc<MemoryManager>> {
    let task = find(cx, pid)?;
    may_access(cx, &task, Mode::AttachReal)?;
    let mm = task.published.lock().mm.clone();
    mm.ok_or(Errno::ESRCH)
}

/// process_vm_readv(2).
pub fn process_vm_readv(
    cx: &mut Cx<'_>,
    pid: i32,
    local: UserPtr<Iovec>,
    local_count: u64,
    remote: UserPtr<Iovec>,
    remote_count: u64,
    flags: u64,
) -> CallResult<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (local, remote) = (vectors(cx, local, local_count)?, vectors(cx, remote, remote_count)?);
    if [&local, &remote].iter().any(|list| list.iter().all(|(_, len)| *len == 0)) {
        return Ok(0);
    }
    let other = other_memory(cx, pid)?;
    Ok(copy((&other, &remote), (cx.mm(), &local))?)
}

/// process_vm_writev(2).
pub fn process_vm_writev(
    cx: &mut Cx<'_>,
    pid: i32,
    local: UserPtr<Iovec>,
    local_count: u64,
    remote: UserPtr<Iovec>,
    remote_count: u64,
    flags: u64,
) -> CallResult<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (local, remote) = (vectors(cx, local, local_count)?, vectors(cx, remote, remote_count)?);
    if [&local, &remote].iter().any(|list| list.iter().all(|(_, len)| *len == 0)) {
        return Ok(0);
    }
    let other = other_memory(cx, pid)?;
    Ok(copy((cx.mm(), &local), (&other, &remote))?)
}

fn order(a: usize, b: usize) -> u32 {
    match a.cmp(&b) {
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Greater => 2,
    }
}

/// kcmp(2).
pub fn kcmp(cx: &mut Cx<'_>, pid1: i32, pid2: i32, kind: u32, index1: u64, index2: u64) -> CallResult<u32> {
    let (first, second) = (find(cx, pid1)?, find(cx, pid2)?);
    may_access(cx, &first, Mode::ReadReal)?;
    may_access(cx, &second, Mode::ReadReal)?;
    // One lock after the other: the two may be the same task.
    let a = first.published.lock().clone();
    let b = second.published.lock().clone();
    fn place<T>(item: &Option<Arc<T>>) -> usize {
        item.as_ref().map_or(0, |item| Arc::as_ptr(item).addr())
    }
    let file = |files: &Option<Arc<crate::files::FdTable>>, index: u64| {
        let fd = i32::try_from(index).map(Fd::new).map_err(|_| Errno::EBADF)?;
        files.as_ref().ok_or(Errno::EBADF)?.get(fd).map(|file| Arc::as_ptr(&file).addr())
    };
    match kind {
        0 => Ok(order(file(&a.files, index1)?, file(&b.files, index2)?)),
        1 => Ok(order(place(&a.mm), place(&b.mm))),
        2 => Ok(order(place(&a.files), place(&b.files))),
        3 => Ok(order(place(&a.fs), place(&b.fs))),
        4 => Ok(order(Arc::as_ptr(&a.handlers).addr(), Arc::as_ptr(&b.handlers).addr())),
        // No task has an I/O context.
        5 => Ok(0),
        6 => {
            // Only processes that have something to undo have a list.
            let list = |task: &Arc<TaskShared>| {
                let empty = task.process.sem_undo.lock().is_empty();
                if empty { 0 } else { Arc::as_ptr(&task.process).addr() }
            };
            Ok(order(list(&first), list(&second)))
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// process_madvise(2).
pub fn process_madvise(
    cx: &mut Cx<'_>,
    fd: Fd,
    vectors_at: UserPtr<Iovec>,
    count: u64,
    advice: u32,
    flags: u32,
) -> CallResult<usize> {
    const WILLNEED: u32 = 3;
    const COLD: u32 = 20;
    const PAGEOUT: u32 = 21;
    const COLLAPSE: u32 = 25;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let list = vectors(cx, vectors_at, count)?;
    let process = crate::process::pidfd::process_of(&*cx.files().get(fd)?)?;
    let leader = process.leader().ok_or(Errno::ESRCH)?;
    if !matches!(advice, WILLNEED | COLD | PAGEOUT | COLLAPSE) {
        return Err(Errno::EINVAL.into());
    }
    may_access(cx, &leader, Mode::ReadFs)?;
    let mm = leader.published.lock().mm.clone().ok_or(Errno::ESRCH)?;
    if !Arc::ptr_eq(&mm, cx.mm()) && !cx.cred().has(vfs::Capabilities::SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let advice = mm::Advice::new(advice)?;
    let mut done = 0_usize;
    for (at, len) in list {
        match mm.madvise(UserAddr::new(at), len, advice) {
            Ok(()) => done = done.saturating_add(usize::try_from(len).unwrap_or(usize::MAX)),
            Err(error) if done == 0 => return Err(error.into()),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// process_mrelease(2): the memory of a dying process goes as fast as its threads leave; there is nothing to add.
pub fn process_mrelease(cx: &mut Cx<'_>, fd: Fd, flags: u32) -> CallResult<()> {
    let process = crate::process::pidfd::process_of(&*cx.files().get(fd)?)?;
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let state = process.state.lock();
    if state.live == 0 {
        return Err(Errno::ESRCH.into());
    }
    if state.exiting.is_some() { Ok(()) } else { Err(Errno::EINVAL.into()) }
}
