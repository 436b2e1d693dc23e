//! Sockets that only messages in flight refer to. A socket sent over itself (or over one that is in
//! flight in turn) keeps itself alive; this finds such rings and empties their queues.
//!
//! An open file is a candidate when all its references are messages in flight. Candidates reachable from
//! files that someone else holds stay; the queues of all others are drained.

use crate::inbox::{MessageInbox, StreamInbox};
use crate::socket;
use crate::unix::{Inbox, UnixSocket};
use lock::Ranked;
use lock::order::Leaf;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use vfs::OpenFile;

// Sockets that were ever sent, swept as it grows.
static SENT: Ranked<Leaf, Vec<Weak<OpenFile>>> = Ranked::new(Vec::new());
static NEXT_RUN: AtomicUsize = AtomicUsize::new(64);

/// Remembers sent sockets; collects when many are in flight.
pub fn note_sent(files: &[Arc<OpenFile>]) {
    let run = {
        let mut sent = SENT.lock();
        for file in files.iter().filter(|f| socket::of(f).is_ok()) {
            if !sent.iter().any(|s| std::ptr::eq(s.as_ptr(), Arc::as_ptr(file))) {
                sent.push(Arc::downgrade(file));
            }
        }
        if sent.len() >= NEXT_RUN.load(Ordering::Relaxed) {
            sent.retain(|s| s.strong_count() > 0);
            sent.len() >= NEXT_RUN.load(Ordering::Relaxed)
        } else {
            false
        }
    };
    if run {
        collect();
        let left = SENT.lock().len();
        NEXT_RUN.store(left.saturating_mul(2).max(64), Ordering::Relaxed);
    }
}

/// Runs a collection; the kernel calls it when a process has ended. Gives the number of sockets freed.
pub fn collect() -> usize {
    let sent: Vec<Arc<OpenFile>> = {
        let mut sent = SENT.lock();
        if sent.is_empty() {
            return 0;
        }
        sent.retain(|s| s.strong_count() > 0);
        sent.iter().filter_map(Weak::upgrade).collect()
    };
    let key = |file: &Arc<OpenFile>| Arc::as_ptr(file).addr();
    // References from messages, over the queues of all sent sockets. A queue that was never sent itself
    // belongs to a live socket: what it holds counts as held from outside.
    let mut in_flight: HashMap<usize, usize> = HashMap::new();
    for file in &sent {
        if let Ok(socket) = socket::of(file) {
            socket.socket().each_file(&mut |held| *in_flight.entry(key(held)).or_default() += 1);
        }
    }
    // `sent` itself holds one reference of each.
    let is_candidate =
        |file: &Arc<OpenFile>| Arc::strong_count(file) <= in_flight.get(&key(file)).copied().unwrap_or(0) + 1;
    let mut dead: HashMap<usize, &Arc<OpenFile>> =
        sent.iter().filter(|f| is_candidate(f)).map(|f| (key(f), f)).collect();
    let mut todo: Vec<Arc<OpenFile>> = sent.iter().filter(|f| !dead.contains_key(&key(f))).cloned().collect();
    while let Some(file) = todo.pop() {
        if let Ok(socket) = socket::of(&file) {
            socket.socket().each_file(&mut |held| {
                if dead.remove(&key(held)).is_some() {
                    todo.push(Arc::clone(held));
                }
            });
        }
    }
    let count = dead.len();
    for file in dead.into_values() {
        if let Ok(socket) = socket::of(file)
            && let Some(unix) = socket.socket().as_any().downcast_ref::<UnixSocket>()
        {
            match &unix.inbox {
                Inbox::Stream(inbox) => drop(StreamInbox::close(inbox)),
                Inbox::Messages(inbox) => drop(MessageInbox::close(inbox)),
            }
        }
    }
    count
}
