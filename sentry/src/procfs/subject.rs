//! The thread or process that a directory of /proc shows, and who may look at it.
//!
//! A [`Subject`] holds numbers and weak references only: an open file keeps neither a process nor its id
//! alive. Look-ups happen under locks of the dentry tree, so only `TaskIndex` (rank `Leaf`), `TaskState`
//! and inner locks are taken there; the process tree is read when a file is.

use crate::kernel::Kernel;
use crate::process::Process;
use crate::process::pid::PidNs;
use crate::task::{Published, TaskShared};
use abi::{Errno, SysResult};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use vfs::{Caller, Capabilities, Credentials, Kgid, Kuid};

/// A process, or one thread of it.
#[derive(Clone)]
pub struct Subject {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// The pid namespace of the mount: numbers are shown as it sees them.
    pub view: Arc<PidNs>,
    tid: u32,
    process: Weak<Process>,
    scope: Scope,
}

/// What a directory shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All of a process: /proc/pid.
    Process,
    /// One thread: /proc/pid/task/tid.
    Thread,
}

impl Subject {
    /// The thread that `number` names in `view`, seen as its whole process.
    #[must_use]
    pub fn find(kernel: &Arc<Kernel>, view: &Arc<PidNs>, number: u32) -> Option<Subject> {
        let task = kernel.tasks.get(view.find(number)?.root())?;
        Some(Subject {
            kernel: Arc::clone(kernel),
            view: Arc::clone(view),
            tid: task.tid(),
            process: Arc::downgrade(&task.process),
            scope: Scope::Process,
        })
    }
    /// One thread of the same process.
    #[must_use]
    pub fn thread(&self, number: u32) -> Option<Subject> {
        let task = self.kernel.tasks.get(self.view.find(number)?.root())?;
        if !std::ptr::eq(self.process.as_ptr(), Arc::as_ptr(&task.process)) {
            return None;
        }
        Some(Subject { tid: task.tid(), scope: Scope::Thread, ..self.clone() })
    }
    /// What it shows.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }
    /// The thread; `ESRCH` once it has been waited for.
    pub fn task(&self) -> SysResult<Arc<TaskShared>> {
        let task = self.kernel.tasks.get(self.tid).ok_or(Errno::ESRCH)?;
        if std::ptr::eq(self.process.as_ptr(), Arc::as_ptr(&task.process)) {
            Ok(task)
        } else {
            Err(Errno::ESRCH)
        }
    }
    /// How many threads its process has. Asked for while a directory's names are kept from changing: no lock of a
    /// process is taken.
    #[must_use]
    pub fn threads(&self) -> usize {
        let of = |task: &&Arc<TaskShared>| std::ptr::eq(self.process.as_ptr(), Arc::as_ptr(&task.process));
        self.kernel.tasks.all().iter().filter(of).count()
    }
    /// A copy of what the thread uses.
    pub fn published(&self) -> SysResult<Published> {
        let task = self.task()?;
        let published = task.published.lock().clone();
        Ok(published)
    }
    /// Its credentials.
    pub fn cred(&self) -> SysResult<Arc<Credentials>> {
        let task = self.task()?;
        let cred = Arc::clone(&task.published.lock().cred);
        Ok(cred)
    }
    /// Owner of its files: the effective ids, or root when nobody may look into it.
    #[must_use]
    pub fn owner(&self) -> (Kuid, Kgid) {
        let Ok(task) = self.task() else { return (Kuid(0), Kgid(0)) };
        if task.process.marks.undumpable.load(Ordering::Relaxed) {
            return (Kuid(0), Kgid(0));
        }
        let cred = Arc::clone(&task.published.lock().cred);
        (cred.euid, cred.egid)
    }
    /// `EACCES` unless the caller may look into it as ptrace(2) has it.
    pub fn check(&self, access: PtraceAccess, by: &Caller<'_>) -> SysResult<()> {
        may_access(by, &*self.task()?, access).map_err(|_| Errno::EACCES)
    }
}

/// What is asked of ptrace's access check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PtraceAccess {
    /// To look (PTRACE_MODE_READ_FSCREDS).
    Read,
    /// To change (PTRACE_MODE_ATTACH_FSCREDS).
    Attach,
}

/// The task that calls; `None` for the sandbox's own work.
#[must_use]
pub fn reader(kernel: &Kernel, by: &Caller<'_>) -> Option<Arc<TaskShared>> {
    kernel.tasks.get(by.task.tid())
}

/// Ptrace access mode checking (ptrace(2)); `EPERM`.
pub fn may_access(by: &Caller<'_>, target: &TaskShared, _access: PtraceAccess) -> SysResult<()> {
    if by.task.tgid() == target.process.pid.root() {
        return Ok(());
    }
    let cred = Arc::clone(&target.published.lock().cred);
    vfs::landlock::check_trace(by.cred, &cred)?;
    let (uid, gid) = (by.cred.fsuid, by.cred.fsgid);
    let same = [cred.euid, cred.suid, cred.uid].iter().all(|id| *id == uid)
        && [cred.egid, cred.sgid, cred.gid].iter().all(|id| *id == gid);
    let capable = by.cred.has_in(Capabilities::SYS_PTRACE, &cred.user_ns);
    if capable {
        return Ok(());
    }
    let undumpable = target.process.marks.undumpable.load(Ordering::Relaxed);
    let covers =
        Arc::ptr_eq(&by.cred.user_ns, &cred.user_ns) && by.cred.caps.effective.contains(cred.caps.permitted);
    if same && !undumpable && covers { Ok(()) } else { Err(Errno::EPERM) }
}
