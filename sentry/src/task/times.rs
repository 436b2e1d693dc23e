//! CPU time of a thread. System time is that of the host thread that serves it; user time is that of
//! the stub process, which all threads of an address space share.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// CPU time of one thread, in nanoseconds.
#[derive(Debug, Default)]
pub struct TaskTimes {
    /// Host thread id while it runs; 0 before and after.
    host: AtomicI32,
    /// What that thread had used before: it may have served others.
    before_ns: AtomicU64,
    /// System time once the thread is gone.
    retired_ns: AtomicU64,
    /// Voluntary context switches.
    pub sleeps: AtomicU64,
    /// Faults that needed the kernel.
    pub faults: AtomicU64,
}

impl TaskTimes {
    /// Called by the host thread itself as it begins.
    pub fn adopt_host_thread(&self) {
        let tid = rustix::thread::gettid().as_raw_nonzero().get();
        self.before_ns.store(platform::host::thread_cpu_ns(tid).unwrap_or(0), Ordering::Relaxed);
        self.host.store(tid, Ordering::Relaxed);
    }
    /// Called by the host thread itself as it ends.
    pub fn retire(&self) {
        self.retired_ns.store(self.system_ns(), Ordering::Relaxed);
        self.host.store(0, Ordering::Relaxed);
    }
    /// System time so far.
    #[must_use]
    pub fn system_ns(&self) -> u64 {
        match self.host.load(Ordering::Relaxed) {
            0 => self.retired_ns.load(Ordering::Relaxed),
            tid => {
                let used = platform::host::thread_cpu_ns(tid).unwrap_or(0);
                used.saturating_sub(self.before_ns.load(Ordering::Relaxed))
            }
        }
    }
}
