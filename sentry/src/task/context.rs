//! What a system call handler gets.

use super::memory::MemoryManager;
use super::{FsContext, TaskOwned, TaskShared};
use crate::files::FdTable;
use crate::kernel::Kernel;
use crate::process::limits::Resource;
use crate::process::pid::PidNs;
use abi::signal::SigSet;
use abi::{SysResult, UserCStr, UserPtr};
use platform::Context;
use std::sync::Arc;
use vfs::{Caller, Credentials};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The calling task, for the time of one call.
pub struct Cx<'a> {
    /// What others may touch.
    pub shared: &'a Arc<TaskShared>,
    /// What only this thread touches.
    pub owned: &'a mut TaskOwned,
    /// The guest thread's registers.
    pub context: &'a mut dyn Context,
}

impl Cx<'_> {
    /// The sandbox's kernel.
    #[must_use]
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.shared.kernel
    }
    /// The address space.
    #[must_use]
    pub fn mm(&self) -> &Arc<MemoryManager> {
        &self.owned.mm
    }
    /// The descriptor table.
    #[must_use]
    pub fn files(&self) -> &Arc<FdTable> {
        &self.owned.files
    }
    /// Root, working directory, umask.
    #[must_use]
    pub fn fs(&self) -> &Arc<FsContext> {
        &self.owned.fs
    }
    /// Credentials.
    #[must_use]
    pub fn cred(&self) -> &Arc<Credentials> {
        &self.owned.cred
    }
    /// The caller, as file operations know it.
    #[must_use]
    pub fn caller(&self) -> Caller<'_> {
        Caller {
            cred: &self.owned.cred,
            blocker: &**self.shared,
            task: &**self.shared,
            umask: self.owned.fs.umask(),
        }
    }
    /// The pid namespace of the caller.
    #[must_use]
    pub fn shared_ns(&self) -> Option<Arc<PidNs>> {
        self.owned.pid.ns().cloned()
    }
    /// The deadline of a call that is made again after an interruption.
    pub fn take_restart_deadline(&mut self) -> lock::Deadline {
        let deadline = self.owned.restart_deadline.take();
        if std::mem::take(&mut self.owned.restarting) { deadline } else { None }
    }
    /// Copies one structure in.
    pub fn read<T: FromBytes>(&self, ptr: UserPtr<T>) -> SysResult<T> {
        self.owned.mm.read_obj(ptr)
    }
    /// Copies one structure out.
    pub fn write<T: IntoBytes + Immutable>(&self, ptr: UserPtr<T>, value: &T) -> SysResult<()> {
        self.owned.mm.write_obj(ptr, value)
    }
    /// Copies one structure out, unless the pointer is NULL.
    pub fn write_if<T: IntoBytes + Immutable>(&self, ptr: UserPtr<T>, value: &T) -> SysResult<()> {
        if ptr.is_null() { Ok(()) } else { self.write(ptr, value) }
    }
    /// A path argument; `ENAMETOOLONG` beyond PATH_MAX.
    pub fn path(&self, path: UserCStr) -> SysResult<Vec<u8>> {
        self.owned.mm.read_cstr(path, abi::limits::PATH_MAX)
    }
    /// RLIMIT_NOFILE.
    #[must_use]
    pub fn nofile(&self) -> u64 {
        self.shared.process.limits.lock().get(Resource::Nofile).soft
    }
    /// A process of the sandbox as the caller's pid namespace numbers it; 0 when it has no number there.
    #[must_use]
    pub fn pid_number(&self, tgid: u32) -> i32 {
        let tree = self.kernel().tree.lock();
        let seen = match (tree.node(tgid), self.owned.pid.ns()) {
            (Some(node), Some(ns)) => node.process.pid.seen_in(ns),
            _ => 0,
        };
        i32::try_from(seen).unwrap_or(0)
    }
    /// Waits with another signal mask until the call ends or a handler has run.
    pub fn set_temporary_mask(&mut self, mask: SigSet) {
        let old = self.shared.mask();
        self.owned.signal.saved_mask.get_or_insert(old);
        crate::signal::send::set_mask(self.shared, mask);
    }
    /// Gives the process a descriptor table of its own (CLONE_FILES taken back).
    pub fn unshare_files(&mut self) {
        if Arc::strong_count(&self.owned.files) > 1 {
            self.owned.files = Arc::new(self.owned.files.fork());
            self.owned.publish(self.shared);
        }
    }
}
