//! The keeper: one host thread that traces the helper thread of every stub. What it has killed is reaped by
//! another, the undertaker, which sleeps in wait4(2): a stub is gone only when the tracers of all its threads have
//! seen to it.
//!
//! A helper is the first thread of a stub process. It never runs guest code: it makes new threads and
//! forks, and carries out changes of the address space that no stopped guest thread can do itself.

use super::layout;
use super::raw::{self, Gone, Running, Stop};
use super::template;
use super::tracee::{Role, Tracee};
use abi::{AddrRange, Errno, SysResult};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::mpsc;

type Job = Box<dyn FnOnce(&mut Keeper) + Send>;

/// How any thread reaches the keeper.
#[derive(Clone, Debug)]
pub(super) struct KeeperHandle {
    jobs: mpsc::Sender<Job>,
}

/// State of the keeper's thread.
#[derive(Debug)]
pub(super) struct Keeper {
    helpers: HashMap<i32, Tracee>,
    template: i32,
    /// Pids of what was killed, for the undertaker.
    graves: mpsc::Sender<i32>,
}

impl KeeperHandle {
    /// Starts the keeper and its template.
    pub(super) fn start(
        memory: OwnedFd,
        socket: OwnedFd,
        keep: Option<AddrRange>,
    ) -> SysResult<KeeperHandle> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, told) = mpsc::sync_channel(1);
        let (graves, dead) = mpsc::channel();
        let undertaker = std::thread::Builder::new().name("undertaker".into());
        let undertaker = undertaker.spawn(move || dead.into_iter().for_each(raw::reap))?;
        std::thread::Builder::new().name("ptrace-keeper".into()).spawn(move || {
            let mut keeper = Keeper { helpers: HashMap::new(), template: 0, graves };
            let result = keeper.make_template(&memory, &socket, keep);
            drop((memory, socket));
            let failed = result.is_err();
            // The other end only goes away when `start` itself is gone.
            let _ = ready.send(result);
            if !failed {
                queue.into_iter().for_each(|job| job(&mut keeper));
            }
            keeper.end();
            // A panic there has left nothing to do here.
            let _ = undertaker.join();
        })?;
        told.recv().map_err(|_| Errno::ESRCH)??;
        Ok(KeeperHandle { jobs })
    }

    /// Runs `work` on the keeper's thread and waits for it.
    pub(super) fn call<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Keeper) -> SysResult<R> + Send + 'static,
    ) -> SysResult<R> {
        let (answer, wait) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |keeper| {
            let _ = answer.send(work(keeper));
        });
        self.jobs.send(job).map_err(|_| Errno::ESRCH)?;
        wait.recv().map_err(|_| Errno::ESRCH)?
    }

    /// Kills a stub process; does not wait.
    pub(super) fn bury(&self, pid: i32) {
        let _ = self.jobs.send(Box::new(move |keeper| keeper.bury(pid)));
    }
}

impl Keeper {
    fn end(mut self) {
        let pids: Vec<i32> = self.helpers.keys().copied().collect();
        for pid in pids {
            self.bury(pid);
        }
    }

    fn make_template(
        &mut self,
        memory: &OwnedFd,
        socket: &OwnedFd,
        keep: Option<AddrRange>,
    ) -> SysResult<()> {
        use std::os::fd::AsFd;
        let pid = template::spawn(memory.as_fd(), socket.as_fd())?;
        let made = self.adopt_template(pid, keep);
        if made.is_err() {
            raw::kill(pid);
            let _ = self.graves.send(pid);
        }
        made
    }

    fn adopt_template(&mut self, pid: i32, keep: Option<AddrRange>) -> SysResult<()> {
        let (stopped, stop) = Running::child(pid).wait().map_err(|Gone| Errno::EPERM)?;
        let at_breakpoint = matches!(stop, Stop::Signal(info) if info.signal == libc::SIGTRAP);
        if !at_breakpoint {
            return Err(Errno::EIO);
        }
        stopped.set_options(raw::HELPER_OPTIONS)?;
        let rseq = stopped.rseq();
        let mut tracee = Tracee::new(stopped, Role::Helper);
        if let Some((pointer, size, signature)) = rseq {
            tracee.call(libc::SYS_rseq, [pointer, size, 1, signature, 0, 0])?;
        }
        let own =
            AddrRange::new(layout::CODE as u64, (layout::CODE + layout::LEN) as u64).unwrap_or_default();
        let mut at = 0;
        for kept in [Some(own), keep].into_iter().flatten() {
            if kept.start() > at {
                tracee.call(libc::SYS_munmap, [at, kept.start() - at, 0, 0, 0, 0])?;
            }
            at = kept.end();
        }
        tracee.call(libc::SYS_munmap, [at, super::USER_END - at, 0, 0, 0, 0])?;
        self.helpers.insert(pid, tracee);
        self.template = pid;
        Ok(())
    }

    /// A fresh, empty stub; returns its pid.
    pub(super) fn new_stub(&mut self) -> SysResult<i32> {
        self.fork(self.template)
    }

    /// A copy of a stub; returns its pid.
    pub(super) fn fork(&mut self, pid: i32) -> SysResult<i32> {
        let (child, tracee) = self.helper(pid)?.fork()?;
        self.helpers.insert(child, tracee);
        Ok(child)
    }

    /// A new thread in a stub, which waits for its tracer; returns its id.
    pub(super) fn clone_thread(&mut self, pid: i32) -> SysResult<i32> {
        self.helper(pid)?.clone_thread()
    }

    /// The helper thread of a stub.
    pub(super) fn helper(&mut self, pid: i32) -> SysResult<&mut Tracee> {
        self.helpers.get_mut(&pid).ok_or(Errno::ESRCH)
    }

    fn bury(&mut self, pid: i32) {
        if self.helpers.remove(&pid).is_some() {
            raw::kill(pid);
            // The undertaker lives as long as the keeper.
            let _ = self.graves.send(pid);
        }
    }
}
