//! Futexes (futex(2)): hashed buckets, no global lock, no allocation once a task has waited.
//!
//! Rank `Futex`. A waiter enters its bucket first and looks at the word second: a waker that changed the
//! word before that look finds it in the bucket, so guest memory is never touched under a bucket's lock.

pub mod pi;
pub mod robust;
mod table;
pub mod wait;

pub use table::{FutexTable, Key, Waiter};

use crate::task::Cx;
use abi::{SysResult, UserAddr};

/// Who shares a futex.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// FUTEX_PRIVATE_FLAG: threads of one address space.
    Private,
    /// Anyone who maps the same page.
    Shared,
}

/// The key of a futex word. `EINVAL` when it is not aligned.
pub fn key(cx: &Cx<'_>, addr: UserAddr, scope: Scope) -> SysResult<Key> {
    match scope {
        Scope::Private => Ok(Key::new(cx.mm().futex_key(addr, mm::FutexScope::Private)?)),
        Scope::Shared => {
            let key = cx.mm().futex_key(addr, mm::FutexScope::Shared)?;
            // The page itself is the key: it must be there (`get_futex_key`).
            cx.mm().load_u32(addr)?;
            Ok(Key::new(key))
        }
    }
}

/// Wakes up to `count` waiters of the word at `addr`, whatever its scope.
pub fn wake_address(cx: &Cx<'_>, addr: UserAddr, count: usize) -> SysResult<usize> {
    let key = key(cx, addr, Scope::Shared)?;
    Ok(cx.kernel().futexes.wake(key, count, u32::MAX))
}
