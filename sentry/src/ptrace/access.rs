//! Who may look into whom (ptrace(2), "Ptrace access mode checking").

use crate::task::{Cx, TaskShared};
use abi::{Errno, SysResult};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::Capabilities;

/// What kind of look, and with which ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Reads of /proc and their like, with file-system ids.
    ReadFs,
    /// Attaching and writing, with real ids.
    AttachReal,
    /// Reading, with real ids.
    ReadReal,
}

/// `EPERM` unless the caller may look into `target`.
pub fn may_access(cx: &Cx<'_>, target: &Arc<TaskShared>, mode: Mode) -> SysResult<()> {
    if Arc::ptr_eq(&cx.shared.process, &target.process) {
        return Ok(());
    }
    let cred = cx.cred();
    let (uid, gid) = match mode {
        Mode::ReadFs => (cred.fsuid, cred.fsgid),
        Mode::AttachReal | Mode::ReadReal => (cred.uid, cred.gid),
    };
    let other = Arc::clone(&target.published.lock().cred);
    let same = [other.uid, other.euid, other.suid].iter().all(|id| *id == uid)
        && [other.gid, other.egid, other.sgid].iter().all(|id| *id == gid);
    let capable = cred.has_in(Capabilities::SYS_PTRACE, &other.user_ns);
    if !same && !capable {
        return Err(Errno::EPERM);
    }
    if target.process.marks.undumpable.load(Ordering::Relaxed) && !capable {
        return Err(Errno::EPERM);
    }
    let subset = cred.caps.permitted.contains(other.caps.permitted);
    if (!subset || !Arc::ptr_eq(&cred.user_ns, &other.user_ns)) && !capable {
        return Err(Errno::EPERM);
    }
    vfs::landlock::check_trace(cred, &other)
}
