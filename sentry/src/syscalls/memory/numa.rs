//! mbind(2), set_mempolicy(2), get_mempolicy(2), migrate_pages(2), move_pages(2): numa(7) on one node.

use crate::ptrace::access::{Mode, may_access};
use crate::task::Cx;
use abi::{AddrRange, CallResult, Errno, PAGE_SIZE, SysResult, UserAddr, UserPtr};
use mm::{MemoryManager, NodePolicy, PageState};
use std::sync::Arc;
use vfs::Capabilities;

const PREFERRED: u16 = 1;
const BIND: u16 = 2;
const INTERLEAVE: u16 = 3;
const LOCAL: u16 = 4;
const PREFERRED_MANY: u16 = 5;
const WEIGHTED_INTERLEAVE: u16 = 6;
const MODES: u16 = 7;
const STATIC_NODES: u16 = 1 << 15;
const RELATIVE_NODES: u16 = 1 << 14;
const NUMA_BALANCING: u16 = 1 << 13;
/// Nodes a mask may name (`MAX_NUMNODES` of a usual kernel).
const MAX_NODES: u64 = 1024;

/// A node mask argument: `EINVAL` for nodes beyond what a kernel can have.
fn nodes(cx: &Cx<'_>, mask: UserAddr, max: u64) -> SysResult<u64> {
    let bits = max.wrapping_sub(1);
    if bits == 0 || mask.is_null() {
        return Ok(0);
    }
    if bits > PAGE_SIZE * 8 {
        return Err(Errno::EINVAL);
    }
    let words = usize::try_from(bits.div_ceil(64)).map_err(|_| Errno::EINVAL)?;
    let mut list: Vec<u64> = cx.mm().read_array(UserPtr::new(mask), words)?;
    if !bits.is_multiple_of(64)
        && let Some(last) = list.last_mut()
    {
        *last &= (1 << (bits % 64)) - 1;
    }
    let most = usize::try_from(MAX_NODES / 64).unwrap_or(0);
    if list.iter().skip(most).any(|word| *word != 0) {
        return Err(Errno::EINVAL);
    }
    let others = list.iter().skip(1).any(|word| *word != 0);
    // Nodes that are not there count as named.
    Ok(list.first().copied().unwrap_or(0) | if others { 1 << 63 } else { 0 })
}

/// Mode and flags of a `mode` argument.
fn split_mode(raw: u32) -> SysResult<(u16, u16)> {
    let all = STATIC_NODES | RELATIVE_NODES | NUMA_BALANCING;
    let raw = u16::try_from(raw).map_err(|_| Errno::EINVAL)?;
    let (mode, flags) = (raw & !all, raw & all);
    let both = STATIC_NODES | RELATIVE_NODES;
    let balanced = flags & NUMA_BALANCING != 0 && mode != BIND && mode != PREFERRED_MANY;
    if mode >= MODES || flags & both == both || balanced {
        return Err(Errno::EINVAL);
    }
    Ok((mode, flags))
}

fn policy(mode: u16, flags: u16, nodes: u64) -> SysResult<NodePolicy> {
    let placed = flags & (STATIC_NODES | RELATIVE_NODES) != 0;
    let mode = match mode {
        0 if nodes != 0 => return Err(Errno::EINVAL),
        0 => return Ok(NodePolicy::Default),
        PREFERRED if nodes == 0 && placed => return Err(Errno::EINVAL),
        PREFERRED if nodes == 0 => LOCAL,
        LOCAL if nodes != 0 || placed => return Err(Errno::EINVAL),
        LOCAL => LOCAL,
        _ if nodes == 0 => return Err(Errno::EINVAL),
        other => other,
    };
    if mode == LOCAL {
        return Ok(NodePolicy::Set { mode, flags, nodes: 0, home: None });
    }
    // Relative nodes are counted round those that are there.
    let there = if flags & RELATIVE_NODES != 0 { 1 } else { nodes & 1 };
    if there == 0 {
        return Err(Errno::EINVAL);
    }
    let nodes = if placed { nodes } else { there };
    Ok(NodePolicy::Set { mode, flags, nodes, home: None })
}

/// set_mempolicy(2).
pub fn set_mempolicy(cx: &mut Cx<'_>, mode: u32, mask: UserAddr, max: u64) -> CallResult<()> {
    let (mode, flags) = split_mode(mode)?;
    let nodes = nodes(cx, mask, max)?;
    cx.owned.personal.node_policy = policy(mode, flags, nodes)?;
    Ok(())
}

fn page_range(start: UserAddr, len: u64) -> SysResult<AddrRange> {
    if !start.is_page_aligned() {
        return Err(Errno::EINVAL);
    }
    let len = len.checked_next_multiple_of(PAGE_SIZE).unwrap_or(0);
    let end = start.raw().checked_add(len).ok_or(Errno::EINVAL)?;
    AddrRange::new(start.raw(), end).ok_or(Errno::EINVAL)
}

/// mbind(2).
pub fn mbind(
    cx: &mut Cx<'_>,
    start: UserAddr,
    len: u64,
    mode: u32,
    mask: UserAddr,
    max: u64,
    how: u32,
) -> CallResult<()> {
    const MOVE_ALL: u32 = 4;
    const VALID: u32 = 7;
    let (mode, flags) = split_mode(mode)?;
    let nodes = nodes(cx, mask, max)?;
    crate::syscalls::fs::only(how, VALID)?;
    if how & MOVE_ALL != 0 && !cx.cred().has(Capabilities::SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let range = page_range(start, len)?;
    if range.is_empty() {
        return Ok(());
    }
    Ok(cx.mm().set_policy(range, policy(mode, flags, nodes)?)?)
}

/// set_mempolicy_home_node(2).
pub fn set_mempolicy_home_node(
    cx: &mut Cx<'_>,
    start: UserAddr,
    len: u64,
    node: u64,
    flags: u64,
) -> CallResult<()> {
    if !start.is_page_aligned() || flags != 0 || node != 0 {
        return Err(Errno::EINVAL.into());
    }
    let range = page_range(start, len)?;
    if range.is_empty() {
        return Ok(());
    }
    Ok(cx.mm().set_home_node(range, 0)?)
}

/// Writes a node mask of `max` bits, as far as the kernel has words for it.
fn put_nodes(cx: &Cx<'_>, mask: UserAddr, max: u64, nodes: u64) -> SysResult<()> {
    let bytes = max.wrapping_sub(1).div_ceil(64).wrapping_mul(8);
    if bytes == 0 || max == 0 {
        return Ok(());
    }
    if bytes > PAGE_SIZE {
        return Err(Errno::EINVAL);
    }
    let mut out = vec![0; usize::try_from(bytes).map_err(|_| Errno::EINVAL)?];
    for (to, from) in out.iter_mut().zip(nodes.to_ne_bytes()) {
        *to = from;
    }
    cx.mm().write_bytes(mask, &out)
}

/// get_mempolicy(2).
pub fn get_mempolicy(
    cx: &mut Cx<'_>,
    out: UserPtr<i32>,
    mask: UserAddr,
    max: u64,
    addr: UserAddr,
    flags: u64,
) -> CallResult<()> {
    const NODE: u64 = 1;
    const ADDR: u64 = 2;
    const MEMS_ALLOWED: u64 = 4;
    if flags & !(NODE | ADDR | MEMS_ALLOWED) != 0 || (!mask.is_null() && max < 1) {
        return Err(Errno::EINVAL.into());
    }
    let (value, nodes) = if flags & MEMS_ALLOWED != 0 {
        if flags & (NODE | ADDR) != 0 {
            return Err(Errno::EINVAL.into());
        }
        (0, 1)
    } else {
        let found = if flags & ADDR != 0 {
            cx.mm().policy_at(addr).ok_or(Errno::EFAULT)?
        } else if addr.is_null() {
            cx.owned.personal.node_policy
        } else {
            return Err(Errno::EINVAL.into());
        };
        let (value, nodes) = match found {
            NodePolicy::Default => (0, 0),
            NodePolicy::Set { mode, flags, nodes, .. } => (i32::from(mode) | i32::from(flags), nodes),
        };
        if flags & NODE == 0 {
            (value, nodes)
        } else if flags & ADDR != 0 {
            let mut byte = [0];
            cx.mm().read_bytes(addr, &mut byte)?;
            (0, nodes)
        } else {
            match found {
                NodePolicy::Set { mode: INTERLEAVE | WEIGHTED_INTERLEAVE, .. } => (0, nodes),
                _ => return Err(Errno::EINVAL.into()),
            }
        }
    };
    cx.write_if(out, &value)?;
    if !mask.is_null() {
        put_nodes(cx, mask, max, nodes)?;
    }
    Ok(())
}

/// The memory of another process, for those who may move its pages.
fn memory_of(cx: &Cx<'_>, pid: i32) -> SysResult<Arc<MemoryManager>> {
    if pid == 0 {
        return Ok(Arc::clone(cx.mm()));
    }
    let task = {
        let number = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
        let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
        let tree = cx.kernel().tree.lock();
        Arc::clone(tree.find_task(&ns, number).ok_or(Errno::ESRCH)?)
    };
    may_access(cx, &task, Mode::ReadReal)?;
    let mm = task.published.lock().mm.clone();
    mm.ok_or(Errno::EINVAL)
}

/// migrate_pages(2): all pages are on the one node already.
pub fn migrate_pages(cx: &mut Cx<'_>, pid: i32, max: u64, old: UserAddr, new: UserAddr) -> CallResult<i64> {
    nodes(cx, old, max)?;
    let wanted = nodes(cx, new, max)?;
    memory_of(cx, pid)?;
    if wanted & !1 != 0 && !cx.cred().has(Capabilities::SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    if wanted & 1 == 0 {
        return Err(Errno::EINVAL.into());
    }
    Ok(0)
}

/// move_pages(2).
pub fn move_pages(
    cx: &mut Cx<'_>,
    pid: i32,
    count: u64,
    pages: UserPtr<u64>,
    wanted: UserPtr<i32>,
    status: UserPtr<i32>,
    flags: u32,
) -> CallResult<i64> {
    const MOVE: u32 = 2;
    const MOVE_ALL: u32 = 4;
    crate::syscalls::fs::only(flags, MOVE | MOVE_ALL)?;
    if flags & MOVE_ALL != 0 && !cx.cred().has(Capabilities::SYS_NICE) {
        return Err(Errno::EPERM.into());
    }
    let mm = memory_of(cx, pid)?;
    for at in 0..count {
        let (word, int) = (at.checked_mul(8).ok_or(Errno::EFAULT)?, at * 4);
        let page = cx.read(UserPtr::<u64>::new(pages.addr().checked_add(word)?))?;
        if !wanted.is_null() {
            let node: i32 = cx.read(UserPtr::new(wanted.addr().checked_add(int)?))?;
            if node != 0 {
                return Err(Errno::ENODEV.into());
            }
        }
        let value = match mm.page_state(UserAddr::new(page)) {
            PageState::Present => 0,
            PageState::Absent => -i32::from(Errno::ENOENT.raw()),
            PageState::Unmapped => -i32::from(Errno::EFAULT.raw()),
        };
        cx.write(UserPtr::<i32>::new(status.addr().checked_add(int)?), &value)?;
        if at % 1024 == 1023 && cx.shared.work().intersects(crate::task::Work::KILL) {
            return Err(Errno::EINTR.into());
        }
    }
    Ok(0)
}

/// map_shadow_stack(2): the processor that guests see has none.
pub fn map_shadow_stack(_cx: &mut Cx<'_>, _addr: UserAddr, _size: u64, _flags: u32) -> CallResult<UserAddr> {
    Err(Errno::EOPNOTSUPP.into())
}
