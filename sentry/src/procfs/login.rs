//! Who logged in: loginuid and sessionid, which login programs (pam_loginuid) set once for what they start
//! (proc_pid_loginuid(5), audit_set_loginuid in Linux's kernel/audit.c).

use super::subject::Subject;
use abi::{Errno, SysResult};
use std::sync::atomic::{AtomicU32, Ordering};
use vfs::synthetic::WriteText;
use vfs::{Caller, Capabilities, Kuid};

/// Nobody has logged in.
const UNSET: u32 = u32::MAX;

/// Sessions are numbered from 1.
static SESSIONS: AtomicU32 = AtomicU32::new(0);

pub(super) fn loginuid(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let uid = !subject.task()?.process.marks.login.load(Ordering::Relaxed);
    let uid = Kuid(uid);
    let mapped = uid.0 != UNSET && by.cred.user_ns.maps_uid(uid);
    let shown = if mapped { by.cred.user_ns.show_uid(uid) } else { UNSET };
    Ok(shown.to_string().into_bytes())
}

pub(super) fn sessionid(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let session = !subject.task()?.process.marks.login_session.load(Ordering::Relaxed);
    Ok(session.to_string().into_bytes())
}

/// Only of the caller itself (`EPERM`); once set, only with CAP_AUDIT_CONTROL.
pub(super) fn set_loginuid(subject: &Subject, write: &WriteText<'_>, by: &Caller<'_>) -> SysResult<()> {
    let task = subject.task()?;
    if by.task.tgid() != task.process.pid.root() {
        return Err(Errno::EPERM);
    }
    let number: u32 = write.number()?;
    let uid = if number == UNSET { UNSET } else { by.cred.user_ns.kuid(number)?.0 };
    let marks = &task.process.marks;
    if marks.login.load(Ordering::Relaxed) != !UNSET && !by.cred.has(Capabilities::AUDIT_CONTROL) {
        return Err(Errno::EPERM);
    }
    let session = if uid == UNSET { UNSET } else { SESSIONS.fetch_add(1, Ordering::Relaxed).wrapping_add(1) };
    marks.login.store(!uid, Ordering::Relaxed);
    marks.login_session.store(!session, Ordering::Relaxed);
    Ok(())
}
