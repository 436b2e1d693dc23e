//! poll(2), select(2).

use super::{Patience, mask_argument, wait_mask};
use crate::process::limits::Resource;
use crate::task::Cx;
use abi::poll::Events;
use abi::time::{Timespec, Timeval};
use abi::{CallResult, Errno, Failure, Fd, Restart, SysResult, UserAddr, UserPtr};
use lock::{BlockError, WaitEntry};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Instant;
use vfs::Blocker;
use vfs::OpenFile;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct pollfd`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

/// One descriptor that is polled.
struct Item {
    file: Option<Arc<OpenFile>>,
    /// For poll(2) errors and hang-ups are among them, for select(2) only in the sets that show them.
    wanted: Events,
    found: Events,
}

type Items = SmallVec<[Item; 8]>;

fn bits(raw: i16) -> Events {
    Events::from_bits_truncate(u32::from(raw.cast_unsigned()))
}

fn look(items: &mut Items) -> usize {
    let mut count = 0;
    for item in items.iter_mut() {
        if let Some(file) = &item.file {
            item.found = vfs::Waitable::ready(&**file, item.wanted) & item.wanted;
        }
        count += usize::from(!item.found.is_empty());
    }
    count
}

/// Looks, sleeps and looks again until something is ready.
fn wait(cx: &Cx<'_>, items: &mut Items, patience: Patience) -> CallResult<usize> {
    let count = look(items);
    let Patience::Until(deadline) = patience else { return Ok(count) };
    if count > 0 {
        return Ok(count);
    }
    let blocker = &**cx.shared;
    let mut entries: SmallVec<[(Arc<OpenFile>, Arc<WaitEntry>); 8]> = SmallVec::new();
    for item in items.iter() {
        if let Some(file) = &item.file {
            let entry = WaitEntry::new(blocker.target(), item.wanted);
            vfs::Waitable::register(&**file, &entry);
            entries.push((Arc::clone(file), entry));
        }
    }
    let result = loop {
        let count = look(items);
        if count > 0 {
            break Ok(count);
        }
        match blocker.block(deadline) {
            Ok(()) => {}
            Err(BlockError::TimedOut) => break Ok(look(items)),
            Err(BlockError::Interrupted) => break Err(Failure::Restart(Restart::NoHand)),
        }
    };
    for (file, entry) in &entries {
        vfs::Waitable::unregister(&**file, entry);
    }
    result
}

fn load(cx: &Cx<'_>, fds: UserPtr<PollFd>, count: u64) -> SysResult<(SmallVec<[PollFd; 8]>, Items)> {
    if count > cx.nofile() {
        return Err(Errno::EINVAL);
    }
    let mut raw = SmallVec::new();
    let mut items = Items::new();
    for at in 0..count {
        let entry: PollFd = cx.read(fds.index(at)?)?;
        raw.push(entry);
        let (file, found) = match cx.files().get_io(Fd::new(entry.fd)) {
            _ if entry.fd < 0 => (None, Events::empty()),
            Ok(file) => (Some(file), Events::empty()),
            Err(_) => (None, Events::NVAL),
        };
        items.push(Item { file, wanted: bits(entry.events) | Events::ALWAYS, found });
    }
    Ok((raw, items))
}

fn run(cx: &mut Cx<'_>, fds: UserPtr<PollFd>, count: u64, patience: Patience) -> CallResult<usize> {
    let (raw, mut items) = load(cx, fds, count)?;
    let ready = wait(cx, &mut items, patience)?;
    for (at, (entry, item)) in (0u64..).zip(raw.iter().zip(&items)) {
        let revents = u16::try_from(item.found.bits() & 0xffff).unwrap_or(0).cast_signed();
        cx.write(fds.index(at)?, &PollFd { revents, ..*entry })?;
    }
    Ok(ready)
}

/// poll(2).
pub fn poll(cx: &mut Cx<'_>, fds: UserPtr<PollFd>, count: u32, timeout_ms: i32) -> CallResult<usize> {
    let patience = if cx.owned.restarting && timeout_ms > 0 {
        Patience::Until(cx.owned.restart_deadline)
    } else {
        Patience::from_millis(timeout_ms)
    };
    if let Patience::Until(deadline) = patience {
        cx.owned.restart_deadline = deadline;
    }
    run(cx, fds, u64::from(count), patience).map_err(|error| match error {
        // restart_syscall(2) goes on with the time that is left.
        Failure::Restart(_) => Failure::Restart(Restart::Block),
        other => other,
    })
}

/// What is left of a wait, for calls that report it.
fn left(patience: Patience) -> Option<std::time::Duration> {
    match patience {
        Patience::None => Some(std::time::Duration::ZERO),
        Patience::Until(Some(deadline)) => Some(deadline.saturating_duration_since(Instant::now())),
        Patience::Until(None) => None,
    }
}

/// ppoll(2): the time that is left is written back.
pub fn ppoll(
    cx: &mut Cx<'_>,
    fds: UserPtr<PollFd>,
    count: u32,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<u64>,
    size: usize,
) -> CallResult<usize> {
    let patience = Patience::from_timespec(cx, timeout)?;
    wait_mask(cx, mask, size)?;
    let result = run(cx, fds, u64::from(count), patience);
    if let (false, false, Some(left)) = (is_sticky(cx), timeout.is_null(), left(patience)) {
        // A timeout in read-only memory is not an error (ppoll(2), NOTES).
        let _ = cx.write(timeout, &Timespec::from_duration(left));
    }
    result
}

/// The three sets of select(2).
struct Sets {
    words: usize,
    read: Vec<u64>,
    write: Vec<u64>,
    except: Vec<u64>,
}

const WORD: usize = 64;

fn load_set(cx: &Cx<'_>, ptr: UserAddr, words: usize) -> SysResult<Vec<u64>> {
    let mut set = vec![0; words];
    if !ptr.is_null() {
        for (at, word) in (0u64..).zip(set.iter_mut()) {
            *word = cx.read(UserPtr::<u64>::new(ptr).index(at)?)?;
        }
    }
    Ok(set)
}

fn store_set(cx: &Cx<'_>, ptr: UserAddr, set: &[u64]) -> SysResult<()> {
    if !ptr.is_null() {
        for (at, word) in (0u64..).zip(set) {
            cx.write(UserPtr::<u64>::new(ptr).index(at)?, word)?;
        }
    }
    Ok(())
}

fn has(set: &[u64], fd: usize) -> bool {
    set.get(fd / WORD).is_some_and(|word| word & (1 << (fd % WORD)) != 0)
}

fn put(set: &mut [u64], fd: usize) {
    if let Some(word) = set.get_mut(fd / WORD) {
        *word |= 1 << (fd % WORD);
    }
}

const IN_SET: Events = Events::READABLE.union(Events::RDBAND).union(Events::HUP).union(Events::ERR);
const OUT_SET: Events = Events::WRITABLE.union(Events::WRBAND).union(Events::ERR);

fn run_select(cx: &mut Cx<'_>, count: i32, ptrs: [UserAddr; 3], patience: Patience) -> CallResult<usize> {
    let limit =
        usize::try_from(cx.shared.process.limits.lock().get(Resource::Nofile).hard).unwrap_or(usize::MAX);
    // Sets beyond the descriptor table are not looked at.
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?.min(limit).min(cx.files().capacity());
    let words = count.div_ceil(WORD);
    let [read, write, except] = ptrs;
    let sets = Sets {
        words,
        read: load_set(cx, read, words)?,
        write: load_set(cx, write, words)?,
        except: load_set(cx, except, words)?,
    };
    let mut items = Items::new();
    let mut numbers = Vec::new();
    for fd in 0..count {
        let mut wanted = Events::empty();
        if has(&sets.read, fd) {
            wanted |= IN_SET;
        }
        if has(&sets.write, fd) {
            wanted |= OUT_SET;
        }
        if has(&sets.except, fd) {
            wanted |= Events::PRI;
        }
        if !wanted.is_empty() {
            let file = cx.files().get_io(Fd::from_index(fd)?)?;
            items.push(Item { file: Some(file), wanted, found: Events::empty() });
            numbers.push(fd);
        }
    }
    wait(cx, &mut items, patience)?;
    let (found, [r, w, e]) = answer(&sets, &items, &numbers);
    store_set(cx, read, &r)?;
    store_set(cx, write, &w)?;
    store_set(cx, except, &e)?;
    Ok(found)
}

fn answer(sets: &Sets, items: &Items, numbers: &[usize]) -> (usize, [Vec<u64>; 3]) {
    let mut out = [vec![0; sets.words], vec![0; sets.words], vec![0; sets.words]];
    let mut found = 0;
    for (item, fd) in items.iter().zip(numbers) {
        let [read, write, except] = &mut out;
        let checks =
            [(&sets.read, read, IN_SET), (&sets.write, write, OUT_SET), (&sets.except, except, Events::PRI)];
        for (set, result, events) in checks {
            if has(set, *fd) && item.found.intersects(events) {
                put(result, *fd);
                found += 1;
            }
        }
    }
    (found, out)
}

/// select(2): the time that is left is written back.
pub fn select(
    cx: &mut Cx<'_>,
    count: i32,
    read: UserAddr,
    write: UserAddr,
    except: UserAddr,
    timeout: UserPtr<Timeval>,
) -> CallResult<usize> {
    let patience = if timeout.is_null() {
        Patience::Until(None)
    } else {
        let value: Timeval = cx.read(timeout)?;
        // Unlike elsewhere microseconds beyond a second are carried over.
        let carried =
            Timeval { sec: value.sec.saturating_add(value.usec / 1_000_000), usec: value.usec % 1_000_000 };
        Patience::after(carried.to_duration()?)
    };
    let result = run_select(cx, count, [read, write, except], patience);
    if let (false, false, Some(left)) = (is_sticky(cx), timeout.is_null(), left(patience)) {
        let _ = cx.write(timeout, &Timeval::from_duration(left));
    }
    result
}

/// STICKY_TIMEOUTS: the program does not want to know what is left of its timeout.
fn is_sticky(cx: &Cx<'_>) -> bool {
    cx.owned.personal.personality & 0x0400_0000 != 0
}

/// pselect6(2).
pub fn pselect6(
    cx: &mut Cx<'_>,
    count: i32,
    read: UserAddr,
    write: UserAddr,
    except: UserAddr,
    timeout: UserPtr<Timespec>,
    mask: UserAddr,
) -> CallResult<usize> {
    let patience = Patience::from_timespec(cx, timeout)?;
    let (mask, size) = mask_argument(cx, mask)?;
    wait_mask(cx, mask, size)?;
    let result = run_select(cx, count, [read, write, except], patience);
    if let (false, false, Some(left)) = (is_sticky(cx), timeout.is_null(), left(patience)) {
        let _ = cx.write(timeout, &Timespec::from_duration(left));
    }
    result
}
