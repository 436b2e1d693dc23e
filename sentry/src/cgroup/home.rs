//! The host's cgroups of a pod's containers.
//!
//! Sentry and stubs start in the cgroup of the sandbox' first container. The stub of a process of another
//! container moves to that one's cgroup, so that the host's limits and figures mean the right container,
//! and moves back before it may serve somebody else. The sentry cannot open files: descriptors of each
//! `cgroup.procs` come with the container, and the host checks who opened them.

use super::Cgroup;
use crate::kernel::Kernel;
use mm::MemoryManager;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

/// `cgroup.procs` of every hierarchy.
pub(super) type Doors = Arc<Vec<OwnedFd>>;

/// Where stubs live that serve nobody.
#[derive(Debug, Default)]
pub(super) struct Common(OnceLock<Doors>);

/// A stub away from home; back when it is dropped.
struct Away {
    pid: i32,
    back: Doors,
}

impl Drop for Away {
    fn drop(&mut self) {
        enter(&self.back, self.pid);
    }
}

/// Moves a process. A host that refuses leaves it where it is: limits and figures are the sandbox' then.
fn enter(doors: &Doors, pid: i32) {
    let text = pid.to_string();
    for door in doors.iter() {
        let _ = rustix::io::write(door, text.as_bytes());
    }
}

impl Cgroup {
    /// Descriptors that came with a container: the first one's are where all stubs are from the start.
    pub(super) fn moves_in(&self, kernel: &Kernel, doors: Vec<OwnedFd>) {
        if doors.is_empty() {
            return;
        }
        let doors = Arc::new(doors);
        if kernel.bounds.common.0.set(Arc::clone(&doors)).is_err() {
            // Set once, by the container's creation.
            let _ = self.home.set(doors);
        }
    }
    /// Moves the stub of an address space to the container of this group.
    pub fn house(&self, kernel: &Kernel, mm: &MemoryManager) {
        let Some(top) = self.me.upgrade().map(|me| me.top()) else { return };
        let (Some(doors), Some(back)) = (top.home.get(), kernel.bounds.common.0.get()) else { return };
        if let Some(pid) = mm.host_pid() {
            enter(doors, pid);
            mm.set_tenancy(Box::new(Away { pid, back: Arc::clone(back) }));
        }
    }
}
