//! pidfd_open(2): a descriptor that names a process and polls readable when it has ended.

use super::Process;
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::WaitEntry;
use std::any::Any;
use std::sync::Arc;
use vfs::{Attr, FileOps, OpenFile};

/// The file behind a pidfd.
pub struct PidFd {
    /// What it names.
    pub process: Arc<Process>,
}

/// A new pidfd.
#[must_use]
pub fn open(process: &Arc<Process>) -> Arc<OpenFile> {
    OpenFile::anonymous(Arc::new(PidFd { process: Arc::clone(process) }), OpenFlags::RDWR)
}

/// The process that a descriptor names; `EBADF` when it is no pidfd.
pub fn process_of(file: &OpenFile) -> SysResult<Arc<Process>> {
    file.downcast::<PidFd>().map(|pidfd| Arc::clone(&pidfd.process)).ok_or(Errno::EBADF)
}

impl FileOps for PidFd {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn ready(&self, interest: Events) -> Events {
        let ended = self.process.state.lock().live == 0;
        if ended { interest & Events::READABLE } else { Events::empty() }
    }
    fn register(&self, entry: &Arc<WaitEntry>) {
        self.process.exit_events.register(entry);
    }
    fn unregister(&self, entry: &Arc<WaitEntry>) {
        self.process.exit_events.unregister(entry);
    }
    fn attr(&self) -> Option<SysResult<Attr>> {
        Some(Ok(vfs::event::anon::shared_attr()))
    }
    fn fdinfo(&self, out: &mut Vec<u8>) {
        let ended = self.process.state.lock().live == 0;
        let seen = crate::task::current().and_then(|task| task.process.pid.ns().cloned());
        let pid = seen.map_or(0, |ns| self.process.pid.seen_in(&ns));
        let shown = if ended { "-1".to_string() } else { pid.to_string() };
        out.extend_from_slice(format!("Pid:\t{shown}\nNSpid:\t{shown}\n").as_bytes());
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(b"anon_inode:[pidfd]".to_vec())
    }
}
