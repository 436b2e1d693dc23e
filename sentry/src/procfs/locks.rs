//! /proc/locks (proc_locks(5)): flock, POSIX and OFD locks whose holder the reader's pid namespace knows.

use super::text::put;
use crate::kernel::Kernel;
use abi::SysResult;
use std::sync::Arc;
use vfs::Caller;
use vfs::locks::{LockKind, LockOwner, TO_END};

pub(super) fn locks(_kernel: &Arc<Kernel>, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let kind = |kind: LockKind| if kind == LockKind::Exclusive { "WRITE" } else { "READ" };
    let mut out = String::new();
    let mut number = 0;
    for state in vfs::inode_state::all() {
        let (dev, ino) = state.key;
        let place = format!("{:02x}:{:02x}:{ino}", vfs::vfs::major(dev), vfs::vfs::minor(dev));
        let (ranges, flocks) = state.locks.list();
        let mut line = |text: &str, pid: i64, kind: &str, range: &str| {
            if pid != 0 {
                number += 1;
                put!(out, "{number}: {text:<6} ADVISORY  {kind:<5} {pid} {place} {range}\n");
            }
        };
        for range in ranges {
            let end = if range.last == TO_END { "EOF".to_owned() } else { range.last.to_string() };
            let (text, pid) = match range.owner {
                LockOwner::Posix(_) => ("POSIX", i64::from(by.task.show_pid(range.pid))),
                LockOwner::File(_) => ("OFDLCK", -1),
            };
            line(text, pid, kind(range.kind), &format!("{} {end}", range.start));
        }
        for (lock, pid) in flocks {
            line("FLOCK", i64::from(by.task.show_pid(pid)), kind(lock), "0 EOF");
        }
    }
    Ok(out.into_bytes())
}
