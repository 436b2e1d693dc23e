use crate::locks::{LockKind, LockOwner, LockWait, RangeLock, TO_END};
use crate::ops;
use crate::testing::TestCaller;
use crate::tmpfs::tests::{context, frames, put, root_of};
use crate::walk::Walk;
use abi::fs::OpenFlags;
use abi::{Errno, Failure};
use std::sync::Arc;
use std::time::Duration;

fn range(owner: u64, kind: LockKind, start: u64, last: u64) -> RangeLock {
    RangeLock { owner: LockOwner::Posix(owner), kind, start, last, pid: 1 }
}

#[test]
fn ranges_split_merge_and_conflict() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    put(&walk, "/f", b"x");
    let file = ops::open(&walk, b"/f", OpenFlags::RDWR, 0).unwrap();
    let (read, write) = (Some(LockKind::Shared), Some(LockKind::Exclusive));
    let lock = |r: RangeLock, kind| file.lock_range(&r, kind, LockWait::No, &by);
    let one = |start, last| range(1, LockKind::Exclusive, start, last);
    let two = |start, last| range(2, LockKind::Exclusive, start, last);
    lock(one(0, 99), write).unwrap();
    lock(one(40, 49), None).unwrap();
    assert_eq!(lock(two(45, 45), write), Ok(()));
    assert_eq!(lock(two(30, 45), write), Err(Errno::EAGAIN.into()));
    lock(one(0, 39), read).unwrap();
    assert_eq!(lock(two(0, 9), read), Ok(()));
    assert_eq!(lock(two(50, TO_END), read), Err(Errno::EAGAIN.into()));
    let found = file.find_lock(&two(60, 60), &by).unwrap().unwrap();
    assert_eq!((found.start, found.last), (50, 99));
    // Any descriptor of the file that its owner closes drops the owner's locks.
    let other = ops::open(&walk, b"/f", OpenFlags::empty(), 0).unwrap();
    other.descriptor_closed(1, &by).unwrap();
    assert_eq!(lock(two(50, TO_END), write), Ok(()));
    let reader = ops::open(&walk, b"/f", OpenFlags::empty(), 0).unwrap();
    assert_eq!(reader.lock_range(&one(0, 1), write, LockWait::No, &by), Err(Errno::EBADF.into()));
}

#[test]
fn waiters_wake_and_circles_are_refused() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    put(&walk, "/f", b"x");
    let file = ops::open(&walk, b"/f", OpenFlags::RDWR, 0).unwrap();
    let write = Some(LockKind::Exclusive);
    let one = |at| range(1, LockKind::Exclusive, at, at);
    let two = |at| range(2, LockKind::Exclusive, at, at);
    file.lock_range(&one(0), write, LockWait::No, &by).unwrap();
    file.lock_range(&two(1), write, LockWait::No, &by).unwrap();
    let waiter = {
        let file = Arc::clone(&file);
        std::thread::spawn(move || {
            let caller = TestCaller::default();
            file.lock_range(&range(1, LockKind::Exclusive, 1, 1), write, LockWait::Yes, &caller.by())
        })
    };
    std::thread::sleep(Duration::from_millis(30));
    let circle = file.lock_range(&two(0), write, LockWait::Yes, &by);
    assert_eq!(circle, Err(Failure::Errno(Errno::EDEADLK)));
    file.lock_range(&two(1), None, LockWait::No, &by).unwrap();
    assert_eq!(waiter.join().unwrap(), Ok(()));
}

#[test]
fn flock_belongs_to_the_open_file() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    put(&walk, "/f", b"x");
    let open = || ops::open(&walk, b"/f", OpenFlags::empty(), 0).unwrap();
    let (a, b) = (open(), open());
    a.flock(Some(LockKind::Exclusive), LockWait::No, &by).unwrap();
    assert_eq!(b.flock(Some(LockKind::Shared), LockWait::No, &by), Err(Errno::EAGAIN.into()));
    let waiter = {
        let b = Arc::clone(&b);
        std::thread::spawn(move || {
            let caller = TestCaller::default();
            b.flock(Some(LockKind::Exclusive), LockWait::Yes, &caller.by())
        })
    };
    std::thread::sleep(Duration::from_millis(20));
    drop(a);
    assert_eq!(waiter.join().unwrap(), Ok(()));
    drop(b);
    let c = open();
    assert_eq!(c.flock(Some(LockKind::Exclusive), LockWait::No, &by), Ok(()));
}

#[test]
fn writers_and_executors_exclude_each_other() {
    let fs = context(&frames());
    let caller = root_of(&fs);
    let by = caller.by();
    let walk = Walk::new(&fs, &by);
    put(&walk, "/f", b"x");
    let at = walk.find(b"/f", crate::Follow::Yes).unwrap();
    let state = crate::inode_state::state_of(at.inode().unwrap(), &by).unwrap();
    let writer = ops::open(&walk, b"/f", OpenFlags::WRONLY, 0).unwrap();
    assert_eq!(state.deny_write(), Err(Errno::ETXTBSY));
    drop(writer);
    state.deny_write().unwrap();
    assert_eq!(ops::open(&walk, b"/f", OpenFlags::WRONLY, 0).err(), Some(Errno::ETXTBSY.into()));
    state.allow_write();
    assert!(ops::open(&walk, b"/f", OpenFlags::WRONLY, 0).is_ok());
}
