//! fcntl(2): who hears of a file's events. F_SETOWN, F_SETSIG, leases, F_NOTIFY.

use super::fcntl::{F_GETOWN, F_GETOWN_EX, F_GETOWNER_UIDS, F_GETSIG, F_SETOWN, F_SETOWN_EX};
use crate::signal::sigio::{OWNER_PGRP, OWNER_TID, may_lease};
use crate::task::Cx;
use abi::fs::FileType;
use abi::stat::FOwnerEx;
use abi::{CallResult, Errno, Fd, SysResult, UserAddr, UserPtr};
use std::sync::Arc;
use vfs::event::inotify::DirEvents;
use vfs::lease::{self, Others};
use vfs::locks::LockKind;
use vfs::{OpenFile, SignalOwner};

const OWNER_PID: i32 = 1;

const F_RDLCK: u32 = 0;
const F_WRLCK: u32 = 1;
const F_UNLCK: u32 = 2;

/// The id of an owner as the caller numbers it; 0 for nobody and for one that is gone.
fn shown(cx: &Cx<'_>, owner: &SignalOwner) -> i32 {
    if owner.id == 0 {
        return 0;
    }
    let Some(ns) = cx.shared_ns() else { return 0 };
    let tree = cx.kernel().tree.lock();
    let number = match owner.kind {
        OWNER_TID => tree.task(owner.id).map(|task| task.published.lock().pid.seen_in(&ns)),
        OWNER_PGRP => tree.group(owner.id).next().map(|node| node.pgid.seen_in(&ns)),
        _ => tree.node(owner.id).map(|node| node.process.pid.seen_in(&ns)),
    };
    number.and_then(|number| i32::try_from(number).ok()).unwrap_or(0)
}

/// The id that the caller means; `ESRCH` when nobody has it.
fn meant(cx: &Cx<'_>, id: i32) -> SysResult<u32> {
    if id == 0 {
        return Ok(0);
    }
    let number = u32::try_from(id).map_err(|_| Errno::EINVAL)?;
    let ns = cx.shared_ns().ok_or(Errno::ESRCH)?;
    Ok(ns.find(number).ok_or(Errno::ESRCH)?.root())
}

/// F_SETOWN and kin.
pub(super) fn owner(cx: &Cx<'_>, file: &Arc<OpenFile>, command: u32, arg: u64) -> CallResult<u64> {
    let now = file.signal_owner();
    let int = u32::try_from(arg & 0xffff_ffff).unwrap_or(0).cast_signed();
    let cred = cx.cred();
    let set = |kind: i32, id: i32| -> SysResult<()> {
        let id = meant(cx, id)?;
        file.set_signal_owner(SignalOwner { kind, id, uids: (cred.uid.0, cred.euid.0), ..now });
        Ok(())
    };
    match command {
        F_GETOWN => {
            let id = shown(cx, &now);
            let id = if now.kind == OWNER_PGRP { id.wrapping_neg() } else { id };
            return Ok(i64::from(id).cast_unsigned());
        }
        F_SETOWN if int < 0 => set(OWNER_PGRP, int.checked_neg().ok_or(Errno::EINVAL)?)?,
        F_SETOWN => set(OWNER_PID, int)?,
        F_GETOWN_EX => {
            let kind = if now.id == 0 { OWNER_TID } else { now.kind };
            cx.write(UserPtr::new(UserAddr::new(arg)), &FOwnerEx { kind, pid: shown(cx, &now) })?;
        }
        F_SETOWN_EX => {
            let wanted: FOwnerEx = cx.read(UserPtr::new(UserAddr::new(arg)))?;
            if !(OWNER_TID..=OWNER_PGRP).contains(&wanted.kind) {
                return Err(Errno::EINVAL.into());
            }
            set(wanted.kind, wanted.pid)?;
        }
        F_GETOWNER_UIDS => {
            let ns = &cred.user_ns;
            let ids = [now.uids.0, now.uids.1].map(|id| ns.show_uid(vfs::Kuid(id)));
            cx.write(UserPtr::new(UserAddr::new(arg)), &ids)?;
        }
        F_GETSIG => return Ok(i64::from(now.signal).cast_unsigned()),
        _ => {
            if !(0..=64).contains(&int) {
                return Err(Errno::EINVAL.into());
            }
            file.set_signal_owner(SignalOwner { signal: int, ..now });
        }
    }
    Ok(0)
}

/// Leases and F_NOTIFY make the caller the owner where there is none.
fn own(cx: &Cx<'_>, file: &OpenFile) {
    let now = file.signal_owner();
    if now.id == 0 {
        let uids = (cx.cred().uid.0, cx.cred().euid.0);
        let id = cx.shared.process.pid.root();
        file.set_signal_owner(SignalOwner { kind: OWNER_PID, id, uids, ..now });
    }
}

/// Whether any process has the file open by another open file.
fn others(cx: &Cx<'_>, file: &Arc<OpenFile>) -> Others {
    let by = cx.caller();
    let key = |file: &OpenFile| file.location().and_then(|at| at.dentry.key(Some(&by)));
    let wanted = key(file);
    let tables: Vec<_> =
        cx.kernel().tasks.all().iter().filter_map(|task| task.published.lock().files.clone()).collect();
    let same = |entry: &crate::files::Entry| !Arc::ptr_eq(&entry.file, file) && key(&entry.file) == wanted;
    let found = tables.iter().any(|table| table.entries().iter().any(same));
    if found { Others::Some } else { Others::None }
}

/// F_SETLEASE.
pub(super) fn set_lease(cx: &Cx<'_>, fd: Fd, file: &Arc<OpenFile>, kind: u32) -> CallResult<()> {
    let by = cx.caller();
    let kind = match kind {
        F_RDLCK => Some(LockKind::Shared),
        F_WRLCK => Some(LockKind::Exclusive),
        F_UNLCK => None,
        _ => return Err(Errno::EINVAL.into()),
    };
    let attr = file.attr(&by)?;
    if kind.is_some() {
        if !may_lease(cx.cred(), attr.uid) {
            return Err(Errno::EACCES.into());
        }
        if attr.kind != FileType::Regular || file.location().is_none() {
            return Err(Errno::EINVAL.into());
        }
    }
    let others = if kind == Some(LockKind::Exclusive) { others(cx, file) } else { Others::None };
    lease::set(file, kind, fd.number(), others, &by)?;
    if kind.is_some() {
        own(cx, file);
    }
    Ok(())
}

/// F_GETLEASE.
pub(super) fn get_lease(cx: &Cx<'_>, file: &Arc<OpenFile>) -> CallResult<u64> {
    Ok(u64::from(match lease::get(file, &cx.caller())? {
        Some(LockKind::Shared) => F_RDLCK,
        Some(LockKind::Exclusive) => F_WRLCK,
        None => F_UNLCK,
    }))
}

/// F_NOTIFY.
pub(super) fn notify(cx: &Cx<'_>, fd: Fd, file: &Arc<OpenFile>, events: u32) -> CallResult<()> {
    let events = DirEvents::from_bits(events).ok_or(Errno::EINVAL)?;
    let Some(at) = file.location().filter(|at| at.dentry.is_dir()) else {
        return Err(Errno::ENOTDIR.into());
    };
    let (list, _) = vfs::notify::watch_list(at, &cx.caller())?;
    if !(events - DirEvents::MULTISHOT).is_empty() {
        own(cx, file);
        list.watch_dir(file, fd.number(), events);
    } else {
        list.watch_dir(file, fd.number(), DirEvents::empty());
    }
    Ok(())
}
