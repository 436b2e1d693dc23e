//! `--strace`: where the lines go, and which calls are missing.

use crate::task::Cx;
use lock::Ranked;
use lock::order::Leaf;
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where trace lines and warnings go.
pub type Sink = Box<dyn Write + Send>;

/// State of the trace.
#[derive(Default)]
pub struct SyscallTrace {
    on: AtomicBool,
    sink: Ranked<Leaf, Option<Sink>>,
    missing: Ranked<Leaf, BTreeSet<u32>>,
}

impl SyscallTrace {
    /// Whether calls are traced.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
    /// Switches the trace.
    pub fn switch(&self, on: crate::control::message::Switch) {
        self.on.store(on == crate::control::message::Switch::On, Ordering::Relaxed);
    }
    /// Where lines go; none at first.
    pub fn set_sink(&self, sink: Sink) {
        *self.sink.lock() = Some(sink);
    }
    /// One line of a task.
    pub fn line(&self, tid: u32, comm: &str, text: &str) {
        self.log(&format!("[{tid:4}] {comm}: {text}"));
    }
    /// A line of the kernel itself.
    pub fn log(&self, text: &str) {
        if let Some(sink) = self.sink.lock().as_mut() {
            // A log that cannot be written must not stop the guest.
            let _ = writeln!(sink, "{text}");
        }
    }
    /// Names a missing call once, with the program that asked.
    pub fn unknown(&self, number: u32, cx: &Cx<'_>) {
        let first = self.missing.lock().insert(number);
        if first {
            self.log(&format!("{} asks for system call {number}, which is not there", cx.owned.comm_text()));
        }
    }
}

impl std::fmt::Debug for SyscallTrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SyscallTrace({})", self.is_on())
    }
}
