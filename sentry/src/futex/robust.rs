//! Robust futex lists (get_robust_list(2)): what a dying thread still holds is marked and one waiter woken.

use crate::task::Cx;
use abi::{SysResult, UserAddr, UserPtr};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct robust_list_head`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    next: u64,
    offset: i64,
    pending: u64,
}

/// Longest list that is followed (`ROBUST_LIST_LIMIT`).
const LIMIT: usize = 2048;
const TID_MASK: u32 = 0x3fff_ffff;
const OWNER_DIED: u32 = 0x4000_0000;
const WAITERS: u32 = 0x8000_0000;

/// Walks the list of the calling thread. Broken lists end the walk: they are the guest's own harm.
pub fn exit(cx: &mut Cx<'_>) {
    let head = std::mem::take(&mut cx.owned.registered.robust_list);
    if !head.is_null() {
        let _ = walk(cx, head);
    }
}

fn walk(cx: &Cx<'_>, at: UserAddr) -> SysResult<()> {
    let head: Head = cx.read(UserPtr::new(at))?;
    let mut entry = head.next;
    let pending = head.pending & !1;
    for _ in 0..LIMIT {
        let address = entry & !1;
        if address == at.raw() {
            break;
        }
        // The next entry is read first: a woken waiter may free this one.
        let next: u64 = cx.read(UserPtr::new(UserAddr::new(address)))?;
        if address != pending {
            die(cx, address.wrapping_add_signed(head.offset), false)?;
        }
        entry = next;
    }
    if pending != 0 {
        die(cx, pending.wrapping_add_signed(head.offset), true)?;
    }
    Ok(())
}

fn die(cx: &Cx<'_>, word: u64, is_pending: bool) -> SysResult<()> {
    let addr = UserAddr::new(word);
    if !word.is_multiple_of(4) {
        return Ok(());
    }
    let tid = cx.owned.pid.own();
    let mut value = cx.mm().load_u32(addr)?;
    if is_pending && value == 0 {
        // Unlocked, but the wake was not yet sent.
        let _ = super::wake_address(cx, addr, 1)?;
        return Ok(());
    }
    while value & TID_MASK == tid {
        let new = (value & WAITERS) | OWNER_DIED;
        let found = cx.mm().cas_u32(addr, value, new)?;
        if found == value {
            if value & WAITERS != 0 {
                let _ = super::wake_address(cx, addr, 1)?;
            }
            break;
        }
        value = found;
    }
    Ok(())
}
