//! pidfd_open(2): a descriptor that names a process and polls readable when it has ended.

use super::Process;
use crate::procfs::NsHandle;
use crate::ptrace::access::{Mode, may_access};
use crate::task::{Cx, RunMode, TaskShared};
use abi::fs::OpenFlags;
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::WaitEntry;
use std::any::Any;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use vfs::{Attr, FileOps, OpenFile};

/// The file behind a pidfd.
pub struct PidFd {
    /// What it names.
    pub process: Arc<Process>,
    /// PIDFD_THREAD: the one thread that it names.
    pub thread: Option<Weak<TaskShared>>,
}

/// A new pidfd of a process.
#[must_use]
pub fn open(process: &Arc<Process>) -> Arc<OpenFile> {
    OpenFile::anonymous(Arc::new(PidFd { process: Arc::clone(process), thread: None }), OpenFlags::RDWR)
}

/// A new pidfd of a thread.
#[must_use]
pub fn open_thread(task: &Arc<TaskShared>) -> Arc<OpenFile> {
    let thread = Some(Arc::downgrade(task));
    OpenFile::anonymous(Arc::new(PidFd { process: Arc::clone(&task.process), thread }), OpenFlags::RDWR)
}

impl PidFd {
    fn has_ended(&self) -> bool {
        match &self.thread {
            // Without a lock: epoll asks under its own.
            None => self.process.marks.ended.load(Ordering::SeqCst),
            Some(thread) => thread.upgrade().is_none_or(|task| task.mode() == RunMode::Dead),
        }
    }
    /// The thread that it names: the leader, where it names a process.
    #[must_use]
    pub fn task(&self) -> Option<Arc<TaskShared>> {
        match &self.thread {
            None => self.process.leader(),
            Some(thread) => thread.upgrade(),
        }
    }
}

const GET_NAMESPACE: u32 = 0xff00;
/// In the order of PIDFD_GET_*_NAMESPACE, from 1.
const NAMESPACES: [&str; 10] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];

/// The namespace that an ioctl of a pidfd asks for; `None` for other files and requests.
pub fn namespace(cx: &Cx<'_>, file: &OpenFile, request: u32) -> Option<SysResult<Arc<OpenFile>>> {
    let pidfd = file.downcast::<PidFd>()?;
    let index = usize::try_from(request.checked_sub(GET_NAMESPACE + 1)?).ok()?;
    let name = *NAMESPACES.get(index)?;
    let open = || {
        let task = pidfd.task().ok_or(Errno::ESRCH)?;
        may_access(cx, &task, Mode::ReadFs)?;
        let published = task.published.lock().clone();
        Ok(NsHandle::of(&published, name).ok_or(Errno::ESRCH)?.open())
    };
    Some(open())
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
        if self.has_ended() { interest & Events::READABLE } else { Events::empty() }
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
        let ended = self.has_ended();
        let seen = crate::task::current().and_then(|task| task.process.pid.ns().cloned());
        let named =
            self.thread.as_ref().and_then(Weak::upgrade).map(|task| Arc::clone(&task.published.lock().pid));
        let named = named.unwrap_or_else(|| Arc::clone(&self.process.pid));
        let pid = seen.map_or(0, |ns| named.seen_in(&ns));
        let shown = if ended { "-1".to_string() } else { pid.to_string() };
        out.extend_from_slice(format!("Pid:\t{shown}\nNSpid:\t{shown}\n").as_bytes());
    }
    fn link_name(&self) -> Option<Vec<u8>> {
        Some(b"anon_inode:[pidfd]".to_vec())
    }
}
