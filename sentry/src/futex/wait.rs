//! Waiting on one word or several.

use super::{Key, Waiter};
use crate::task::Cx;
use abi::{CallResult, Errno, Failure, Restart, SysResult, UserAddr};
use lock::{BlockError, Deadline};
use std::sync::Arc;
use vfs::Blocker;

/// Sleeps while the word at `addr` holds `value`. `EAGAIN` when it does not, `ETIMEDOUT` at the deadline.
pub fn wait(
    cx: &mut Cx<'_>,
    addr: UserAddr,
    key: Key,
    value: u32,
    bitset: u32,
    deadline: Deadline,
) -> CallResult<()> {
    // A word that differs now needs no place in the queue.
    if cx.mm().load_u32(addr)? != value {
        return Err(Errno::EAGAIN.into());
    }
    let shared = Arc::clone(cx.shared);
    let waiter = Arc::clone(cx.owned.futex.get_or_insert_with(|| Waiter::new(&shared)));
    let table = &cx.kernel().futexes;
    table.enqueue(&waiter, key, bitset);
    match cx.mm().load_u32(addr) {
        Ok(now) if now == value => {}
        other => {
            if !table.dequeue(&waiter) {
                settle(&waiter);
                return Ok(());
            }
            return Err(other.err().unwrap_or(Errno::EAGAIN).into());
        }
    }
    sleep(cx, &waiter, deadline)
}

/// A waker has taken the waiter out but may not have told it yet.
fn settle(waiter: &Waiter) {
    while !waiter.is_woken() {
        std::thread::yield_now();
    }
}

/// Sleeps until the queued waiter is woken.
pub fn sleep(cx: &Cx<'_>, waiter: &Arc<Waiter>, deadline: Deadline) -> CallResult<()> {
    loop {
        if waiter.is_woken() {
            return Ok(());
        }
        let error = match cx.shared.block(deadline) {
            Ok(()) => continue,
            Err(error) => error,
        };
        if waiter.is_woken() || !cx.kernel().futexes.dequeue(waiter) {
            settle(waiter);
            return Ok(());
        }
        return Err(match error {
            BlockError::TimedOut => Failure::Errno(Errno::ETIMEDOUT),
            BlockError::Interrupted if deadline.is_some() => Failure::Restart(Restart::Block),
            BlockError::Interrupted => Failure::Restart(Restart::Sys),
        });
    }
}

/// One word of futex_waitv(2).
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Where it is.
    pub addr: UserAddr,
    /// Its key.
    pub key: Key,
    /// The awaited value.
    pub value: u32,
}

/// Sleeps until one of several words is woken; returns its index.
pub fn wait_any(cx: &mut Cx<'_>, words: &[Watch], deadline: Deadline) -> CallResult<usize> {
    let waiters: Vec<_> = words.iter().map(|_| Waiter::new(cx.shared)).collect();
    let table = &cx.kernel().futexes;
    for (waiter, word) in waiters.iter().zip(words) {
        table.enqueue(waiter, word.key, u32::MAX);
    }
    let result = sleep_any(cx, words, &waiters, deadline);
    // One that was woken while the others were taken out counts, as a waker has spent its wake on it.
    let mut woken = None;
    for (index, waiter) in waiters.iter().enumerate() {
        if !table.dequeue(waiter) {
            woken = Some(index);
        }
    }
    match (woken, result) {
        (Some(index), _) => Ok(index),
        (None, Err(failure)) => Err(failure),
        (None, Ok(())) => Err(Errno::EAGAIN.into()),
    }
}

fn sleep_any(cx: &Cx<'_>, words: &[Watch], waiters: &[Arc<Waiter>], deadline: Deadline) -> CallResult<()> {
    for word in words {
        if load(cx, word)? != word.value {
            return Err(Errno::EAGAIN.into());
        }
    }
    while !waiters.iter().any(|waiter| waiter.is_woken()) {
        match cx.shared.block(deadline) {
            Ok(()) => {}
            Err(BlockError::TimedOut) => return Err(Errno::ETIMEDOUT.into()),
            Err(BlockError::Interrupted) => return Err(Failure::Restart(Restart::Sys)),
        }
    }
    Ok(())
}

fn load(cx: &Cx<'_>, word: &Watch) -> SysResult<u32> {
    cx.mm().load_u32(word.addr)
}
