//! Host threads of tasks. One whose task has ended waits for the next task: a new one costs the host mappings of
//! its stack and a wake-up on another CPU, which is most of what a guest's short thread costs.

use abi::{Errno, SysResult};
use lock::{Parker, Ranked, order};
use std::sync::{Arc, Weak};

/// Stack of a task's host thread: it is touched only as far as it is used.
const STACK_SIZE: usize = 512 << 10;
/// Threads that are kept for the next tasks.
const KEPT: usize = 3;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that waits for a task.
#[derive(Default)]
struct Place {
    job: Ranked<order::Leaf, Option<Job>>,
    parker: Parker,
}

/// The waiting host threads of one kernel. They end with it.
#[derive(Default)]
pub struct HostThreads {
    waiting: Ranked<order::Leaf, Vec<Arc<Place>>>,
}

impl std::fmt::Debug for HostThreads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostThreads({} waiting)", self.waiting.lock().len())
    }
}

impl HostThreads {
    /// Runs `job` on a waiting thread, or on a new one. `EAGAIN` when the host refuses one.
    pub fn run(self: &Arc<HostThreads>, job: Job) -> SysResult<()> {
        let waiting = self.waiting.lock().pop();
        if let Some(place) = waiting {
            *place.job.lock() = Some(job);
            place.parker.unpark();
            return Ok(());
        }
        HostThreads::new_thread(Arc::downgrade(self), job)
    }

    /// Runs `job` on a thread that ends with it: platforms that tie guest threads to host threads want that.
    pub fn run_apart(job: Job) -> SysResult<()> {
        HostThreads::new_thread(Weak::new(), job)
    }

    fn new_thread(owner: Weak<HostThreads>, job: Job) -> SysResult<()> {
        let body = move || serve(&owner, job);
        let thread = std::thread::Builder::new().name("task".into()).stack_size(STACK_SIZE).spawn(body);
        thread.map(drop).map_err(|_| Errno::EAGAIN)
    }

    /// Adds the place of the calling thread, unless there are enough.
    fn enlist(&self, place: &Arc<Place>) -> bool {
        let mut waiting = self.waiting.lock();
        let room = waiting.len() < KEPT;
        if room {
            waiting.push(Arc::clone(place));
        }
        room
    }
}

impl Drop for HostThreads {
    fn drop(&mut self) {
        let waiting = std::mem::take(self.waiting.get_mut());
        // Awake without a job: that is the end.
        waiting.iter().for_each(|place| place.parker.unpark());
    }
}

fn serve(owner: &Weak<HostThreads>, first: Job) {
    first();
    let place = Arc::new(Place::default());
    loop {
        let enlisted = owner.upgrade().is_some_and(|owner| owner.enlist(&place));
        if !enlisted {
            return;
        }
        // Without a deadline it ends with a token only.
        let _ = place.parker.park(None);
        let job = place.job.lock().take();
        let Some(job) = job else { return };
        job();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_waiting_thread_serves_again_and_ends_with_its_owner() {
        let hosts = Arc::new(HostThreads::default());
        let (tell, told) = mpsc::channel();
        let run = |hosts: &Arc<HostThreads>| {
            let tell = tell.clone();
            hosts.run(Box::new(move || tell.send(std::thread::current().id()).unwrap())).unwrap();
            told.recv().unwrap()
        };
        let first = run(&hosts);
        while hosts.waiting.lock().is_empty() {
            std::thread::yield_now();
        }
        let place = Arc::downgrade(hosts.waiting.lock().first().unwrap());
        assert_eq!(run(&hosts), first);
        drop(hosts);
        while place.upgrade().is_some() {
            std::thread::yield_now();
        }
    }
}
