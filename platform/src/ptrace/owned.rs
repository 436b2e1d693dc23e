//! Stub threads that the calling host thread traces.
//!
//! ptrace(2) binds a tracee to one host thread; so does this thread-local list. A host thread that ends
//! takes its tracees' processes with it (PTRACE_O_EXITKILL): a context is dropped where it ran.

use super::tracee::Tracee;
use std::cell::RefCell;

struct Entry {
    context: u64,
    pid: i32,
    tracee: Tracee,
}

thread_local! {
    static OWNED: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Remembers the stub thread of a context.
pub(super) fn insert(context: u64, pid: i32, tracee: Tracee) {
    OWNED.with_borrow_mut(|list| list.push(Entry { context, pid, tracee }));
}

/// Forgets and returns the stub thread of a context.
pub(super) fn remove(context: u64) -> Option<Tracee> {
    // The list is gone when the host thread is ending.
    OWNED
        .try_with(|list| {
            let mut list = list.borrow_mut();
            let index = list.iter().position(|entry| entry.context == context)?;
            Some(list.swap_remove(index).tracee)
        })
        .ok()
        .flatten()
}

/// Works on the stub thread of a context, if it is this host thread's.
pub(super) fn with_context<R>(context: u64, work: impl FnOnce(&mut Tracee) -> R) -> Option<R> {
    OWNED.with_borrow_mut(|list| {
        let entry = list.iter_mut().find(|entry| entry.context == context)?;
        Some(work(&mut entry.tracee))
    })
}

/// Works on a stopped stub thread of process `pid`, if this host thread has one.
pub(super) fn with_thread_of<R>(pid: i32, work: impl FnOnce(&mut Tracee) -> R) -> Option<R> {
    OWNED.with_borrow_mut(|list| {
        let entry = list.iter_mut().find(|e| e.pid == pid && e.tracee.stopped().is_some())?;
        Some(work(&mut entry.tracee))
    })
}
