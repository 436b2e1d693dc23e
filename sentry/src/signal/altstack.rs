//! sigaltstack(2).

use super::frame::{is_on, min_stack_size};
use crate::task::Cx;
use abi::siginfo::StackT;
use abi::{Errno, SysResult};

/// `MINSIGSTKSZ` of x86-64.
const MIN_SIZE: u64 = 2048;

/// Sets the alternate stack as sigaltstack(2) does, from stack pointer `sp`.
pub fn set(cx: &mut Cx<'_>, new: &StackT, sp: u64) -> SysResult<()> {
    if is_on(&cx.owned.signal.altstack, sp) {
        return Err(Errno::EPERM);
    }
    let mode = new.flags & !StackT::AUTODISARM;
    if mode != 0 && mode != StackT::ONSTACK && mode != StackT::DISABLE {
        return Err(Errno::EINVAL);
    }
    if mode == StackT::DISABLE {
        cx.owned.signal.altstack = StackT::new(0, 0, StackT::DISABLE);
        return Ok(());
    }
    if new.size < MIN_SIZE.min(min_stack_size()) {
        return Err(Errno::ENOMEM);
    }
    cx.owned.signal.altstack = StackT::new(new.sp, new.size, new.flags & StackT::AUTODISARM);
    Ok(())
}
