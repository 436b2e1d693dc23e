//! A caller for unit tests: a plain thread that sleeps on its own parker, with root's credentials.

use crate::caller::{Blocker, Caller, TaskView};
use crate::cred::{Credentials, UserNamespace};
use abi::poll::Events;
use abi::signal::Signal;
use lock::order::Leaf;
use lock::{BlockError, Deadline, Parker, Ranked, WakeTarget};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

#[derive(Debug, Default)]
struct Place(Parker);
impl WakeTarget for Place {
    fn wake(&self, _events: Events) {
        self.0.unpark();
    }
}

/// A thread that can sleep.
#[derive(Debug, Default)]
pub struct ThreadBlocker(Arc<Place>);

impl Blocker for ThreadBlocker {
    fn target(&self) -> Weak<dyn WakeTarget> {
        let place: Arc<dyn WakeTarget> = self.0.clone();
        Arc::downgrade(&place)
    }
    fn block(&self, deadline: Deadline) -> Result<(), BlockError> {
        self.0.0.park(deadline)
    }
}

/// A task whose ids the test sets, and that remembers the signals it was sent.
#[derive(Debug, Default)]
pub struct FakeTask {
    /// Process, group and session id.
    pub ids: [AtomicU32; 3],
    /// Signals raised, with the group they went to (0: the thread itself).
    pub signals: Ranked<Leaf, Vec<(u32, Signal)>>,
}

impl FakeTask {
    /// A task that leads its own group and session.
    #[must_use]
    pub fn leader(pid: u32) -> FakeTask {
        FakeTask {
            ids: [AtomicU32::new(pid), AtomicU32::new(pid), AtomicU32::new(pid)],
            signals: Ranked::default(),
        }
    }
    /// Moves it to a process group.
    pub fn set_pgid(&self, pgid: u32) {
        self.ids[1].store(pgid, Ordering::SeqCst);
    }
    /// The signals seen so far.
    #[must_use]
    pub fn taken(&self) -> Vec<(u32, Signal)> {
        std::mem::take(&mut *self.signals.lock())
    }
}

impl TaskView for FakeTask {
    fn tgid(&self) -> u32 {
        self.ids[0].load(Ordering::SeqCst)
    }
    fn tid(&self) -> u32 {
        self.tgid()
    }
    fn pgid(&self) -> u32 {
        self.ids[1].load(Ordering::SeqCst)
    }
    fn sid(&self) -> u32 {
        self.ids[2].load(Ordering::SeqCst)
    }
    fn pgrp_is_orphaned(&self) -> bool {
        false
    }
    fn blocks_or_ignores(&self, _signal: Signal) -> bool {
        false
    }
    fn raise(&self, signal: Signal) {
        self.signals.lock().push((0, signal));
    }
    fn signal_pgrp(&self, pgid: u32, signal: Signal) {
        self.signals.lock().push((pgid, signal));
    }
    fn signal_process(&self, tgid: u32, signal: Signal) {
        self.signals.lock().push((tgid, signal));
    }
    fn pgrp_in_session(&self, _pgid: u32, _sid: u32) -> bool {
        true
    }
    fn file_size_limit(&self) -> u64 {
        u64::MAX
    }
}

/// Everything a [`Caller`] borrows.
#[derive(Debug)]
pub struct TestCaller {
    /// Credentials; root by default.
    pub cred: Credentials,
    /// The thread's place to sleep.
    pub blocker: ThreadBlocker,
    /// The task.
    pub task: FakeTask,
}

impl Default for TestCaller {
    fn default() -> Self {
        TestCaller {
            cred: Credentials::root(UserNamespace::initial(1)),
            blocker: ThreadBlocker::default(),
            task: FakeTask::leader(1),
        }
    }
}

impl TestCaller {
    /// The caller of an operation.
    #[must_use]
    pub fn by(&self) -> Caller<'_> {
        Caller { cred: &self.cred, blocker: &self.blocker, task: &self.task, umask: 0o022 }
    }
}

/// A guest address space of one flat buffer, starting at address 0.
#[derive(Debug)]
pub struct FlatMemory(pub Ranked<Leaf, Vec<u8>>);

impl FlatMemory {
    /// `len` zero bytes.
    #[must_use]
    pub fn new(len: usize) -> FlatMemory {
        FlatMemory(Ranked::new(vec![0; len]))
    }
}

impl crate::file::GuestMemory for FlatMemory {
    fn read(&self, addr: abi::UserAddr, buf: &mut [u8]) -> abi::SysResult<()> {
        let at = usize::try_from(addr.raw()).map_err(|_| abi::Errno::EFAULT)?;
        let end = at.checked_add(buf.len()).ok_or(abi::Errno::EFAULT)?;
        buf.copy_from_slice(self.0.lock().get(at..end).ok_or(abi::Errno::EFAULT)?);
        Ok(())
    }
    fn write(&self, addr: abi::UserAddr, bytes: &[u8]) -> abi::SysResult<()> {
        let at = usize::try_from(addr.raw()).map_err(|_| abi::Errno::EFAULT)?;
        let end = at.checked_add(bytes.len()).ok_or(abi::Errno::EFAULT)?;
        self.0.lock().get_mut(at..end).ok_or(abi::Errno::EFAULT)?.copy_from_slice(bytes);
        Ok(())
    }
}
