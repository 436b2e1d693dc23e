//! User and group ids (getuid(2), setuid(2), setresuid(2), setgroups(2), setfsuid(2)).

use crate::cred::{SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP};
use crate::task::Cx;
use abi::{CallResult, Errno, SysResult, UserPtr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vfs::{Capabilities, Credentials, Kgid, Kuid};

/// `-1`: leave as it is.
const KEEP: u32 = u32::MAX;
/// `NGROUPS_MAX`.
const MOST_GROUPS: usize = 65_536;

/// getuid(2).
pub fn getuid(cx: &mut Cx<'_>) -> CallResult<u32> {
    Ok(cx.cred().user_ns.show_uid(cx.cred().uid))
}
/// geteuid(2).
pub fn geteuid(cx: &mut Cx<'_>) -> CallResult<u32> {
    Ok(cx.cred().user_ns.show_uid(cx.cred().euid))
}
/// getgid(2).
pub fn getgid(cx: &mut Cx<'_>) -> CallResult<u32> {
    Ok(cx.cred().user_ns.show_gid(cx.cred().gid))
}
/// getegid(2).
pub fn getegid(cx: &mut Cx<'_>) -> CallResult<u32> {
    Ok(cx.cred().user_ns.show_gid(cx.cred().egid))
}

/// getresuid(2).
pub fn getresuid(
    cx: &mut Cx<'_>,
    real: UserPtr<u32>,
    eff: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> CallResult<()> {
    let cred = Arc::clone(cx.cred());
    let show = |id| cred.user_ns.show_uid(id);
    cx.write(real, &show(cred.uid))?;
    cx.write(eff, &show(cred.euid))?;
    Ok(cx.write(saved, &show(cred.suid))?)
}
/// getresgid(2).
pub fn getresgid(
    cx: &mut Cx<'_>,
    real: UserPtr<u32>,
    eff: UserPtr<u32>,
    saved: UserPtr<u32>,
) -> CallResult<()> {
    let cred = Arc::clone(cx.cred());
    let show = |id| cred.user_ns.show_gid(id);
    cx.write(real, &show(cred.gid))?;
    cx.write(eff, &show(cred.egid))?;
    Ok(cx.write(saved, &show(cred.sgid))?)
}

/// Puts new credentials in force, with the capability changes that follow from ids (capabilities(7)).
pub fn commit(cx: &mut Cx<'_>, mut new: Credentials) {
    let old = Arc::clone(cx.cred());
    let changed =
        new.euid != old.euid || new.egid != old.egid || new.fsuid != old.fsuid || new.fsgid != old.fsgid;
    if new.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
        fix_up(&old, &mut new);
    }
    if changed {
        cx.shared.process.marks.undumpable.store(true, Ordering::Relaxed);
        cx.shared.death_signal.store(0, Ordering::Relaxed);
    }
    cx.owned.cred = Arc::new(new);
    cx.owned.publish(cx.shared);
    crate::task::local_answers(cx);
}

fn fix_up(old: &Credentials, new: &mut Credentials) {
    let root = |cred: &Credentials, id: Kuid| cred.user_ns.maps_uid(id) && cred.user_ns.show_uid(id) == 0;
    let had_root = [old.uid, old.euid, old.suid].iter().any(|id| root(old, *id));
    let has_root = [new.uid, new.euid, new.suid].iter().any(|id| root(new, *id));
    if had_root && !has_root {
        if new.securebits & SECBIT_KEEP_CAPS == 0 {
            new.caps.permitted = Capabilities::empty();
            new.caps.effective = Capabilities::empty();
        }
        new.caps.ambient = Capabilities::empty();
    }
    if root(old, old.euid) && !root(new, new.euid) {
        new.caps.effective = Capabilities::empty();
    }
    if !root(old, old.euid) && root(new, new.euid) {
        new.caps.effective = new.caps.permitted;
    }
    let of_files = Capabilities::CHOWN
        | Capabilities::DAC_OVERRIDE
        | Capabilities::DAC_READ_SEARCH
        | Capabilities::FOWNER
        | Capabilities::FSETID
        | Capabilities::LINUX_IMMUTABLE
        | Capabilities::MKNOD
        | Capabilities::MAC_OVERRIDE;
    if root(old, old.fsuid) && !root(new, new.fsuid) {
        new.caps.effective.remove(of_files);
    }
    if !root(old, old.fsuid) && root(new, new.fsuid) {
        new.caps.effective |= new.caps.permitted & of_files;
    }
}

fn kuid(cred: &Credentials, uid: u32) -> SysResult<Option<Kuid>> {
    if uid == KEEP { Ok(None) } else { cred.user_ns.kuid(uid).map(Some) }
}
fn kgid(cred: &Credentials, gid: u32) -> SysResult<Option<Kgid>> {
    if gid == KEEP { Ok(None) } else { cred.user_ns.kgid(gid).map(Some) }
}

/// setuid(2).
pub fn setuid(cx: &mut Cx<'_>, uid: u32) -> CallResult<()> {
    let old = Arc::clone(cx.cred());
    let uid = old.user_ns.kuid(uid)?;
    let mut new = Credentials::clone(&old);
    if old.has(Capabilities::SETUID) {
        new.uid = uid;
        new.suid = uid;
    } else if uid != old.uid && uid != old.suid {
        return Err(Errno::EPERM.into());
    }
    new.euid = uid;
    new.fsuid = uid;
    commit(cx, new);
    Ok(())
}

/// setgid(2).
pub fn setgid(cx: &mut Cx<'_>, gid: u32) -> CallResult<()> {
    let old = Arc::clone(cx.cred());
    let gid = old.user_ns.kgid(gid)?;
    let mut new = Credentials::clone(&old);
    if old.has(Capabilities::SETGID) {
        new.gid = gid;
        new.sgid = gid;
    } else if gid != old.gid && gid != old.sgid {
        return Err(Errno::EPERM.into());
    }
    new.egid = gid;
    new.fsgid = gid;
    commit(cx, new);
    Ok(())
}

/// setreuid(2).
pub fn setreuid(cx: &mut Cx<'_>, real: u32, eff: u32) -> CallResult<()> {
    let old = Arc::clone(cx.cred());
    let (real, eff) = (kuid(&old, real)?, kuid(&old, eff)?);
    let mut new = Credentials::clone(&old);
    let free = old.has(Capabilities::SETUID);
    if let Some(id) = real {
        if !free && id != old.uid && id != old.euid {
            return Err(Errno::EPERM.into());
        }
        new.uid = id;
    }
    if let Some(id) = eff {
        if !free && id != old.uid && id != old.euid && id != old.suid {
            return Err(Errno::EPERM.into());
        }
        new.euid = id;
    }
    if real.is_some() || eff.is_some_and(|id| id != old.uid) {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    commit(cx, new);
    Ok(())
}

/// setregid(2).
pub fn setregid(cx: &mut Cx<'_>, real: u32, eff: u32) -> CallResult<()> {
    let old = Arc::clone(cx.cred());
    let (real, eff) = (kgid(&old, real)?, kgid(&old, eff)?);
    let mut new = Credentials::clone(&old);
    let free = old.has(Capabilities::SETGID);
    if let Some(id) = real {
        if !free && id != old.gid && id != old.egid {
            return Err(Errno::EPERM.into());
        }
        new.gid = id;
    }
    if let Some(id) = eff {
        if !free && id != old.gid && id != old.egid && id != old.sgid {
            return Err(Errno::EPERM.into());
        }
        new.egid = id;
    }
    if real.is_some() || eff.is_some_and(|id| id != old.gid) {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    commit(cx, new);
    Ok(())
}

/// setresuid(2).
pub fn setresuid(cx: &mut Cx<'_>, real: u32, eff: u32, saved: u32) -> CallResult<()> {
    let old = Arc::clone(cx.cred());
    let wanted = [kuid(&old, real)?, kuid(&old, eff)?, kuid(&old, saved)?];
    let free = old.has(Capabilities::SETUID);
    if !free && wanted.iter().flatten().any(|id| ![old.uid, old.euid, old.suid].contains(id)) {
        return Err(Errno::EPERM.into());
    }
    let mut new = Credentials::clone(&old);
    let [real, eff, saved] = wanted;
    new.uid = real.unwrap_or(old.uid);
    new.euid = eff.unwrap_or(old.euid);
    new.suid = saved.unwrap_or(old.suid);
    new.fsuid = new.euid;
    commit(cx, new);
    Ok(())
}

/// setresgid(2).
pub fn setresgid(cx: &mut Cx<'_>, real: u32, eff: u32, saved: u32) -> CallResult<()> {
    let old = Arc::clone(cx.cred());
    let wanted = [kgid(&old, real)?, kgid(&old, eff)?, kgid(&old, saved)?];
    let free = old.has(Capabilities::SETGID);
    if !free && wanted.iter().flatten().any(|id| ![old.gid, old.egid, old.sgid].contains(id)) {
        return Err(Errno::EPERM.into());
    }
    let mut new = Credentials::clone(&old);
    let [real, eff, saved] = wanted;
    new.gid = real.unwrap_or(old.gid);
    new.egid = eff.unwrap_or(old.egid);
    new.sgid = saved.unwrap_or(old.sgid);
    new.fsgid = new.egid;
    commit(cx, new);
    Ok(())
}

/// setfsuid(2): never fails, returns the old id.
pub fn setfsuid(cx: &mut Cx<'_>, uid: u32) -> CallResult<u32> {
    let old = Arc::clone(cx.cred());
    let shown = old.user_ns.show_uid(old.fsuid);
    if let Ok(id) = old.user_ns.kuid(uid)
        && (old.has(Capabilities::SETUID) || [old.uid, old.euid, old.suid, old.fsuid].contains(&id))
    {
        let mut new = Credentials::clone(&old);
        new.fsuid = id;
        commit(cx, new);
    }
    Ok(shown)
}

/// setfsgid(2): never fails, returns the old id.
pub fn setfsgid(cx: &mut Cx<'_>, gid: u32) -> CallResult<u32> {
    let old = Arc::clone(cx.cred());
    let shown = old.user_ns.show_gid(old.fsgid);
    if let Ok(id) = old.user_ns.kgid(gid)
        && (old.has(Capabilities::SETGID) || [old.gid, old.egid, old.sgid, old.fsgid].contains(&id))
    {
        let mut new = Credentials::clone(&old);
        new.fsgid = id;
        commit(cx, new);
    }
    Ok(shown)
}

/// getgroups(2).
pub fn getgroups(cx: &mut Cx<'_>, size: i32, list: UserPtr<u32>) -> CallResult<usize> {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let cred = Arc::clone(cx.cred());
    if size == 0 {
        return Ok(cred.groups.len());
    }
    if size < cred.groups.len() {
        return Err(Errno::EINVAL.into());
    }
    let bytes: Vec<u8> =
        cred.groups.iter().flat_map(|gid| cred.user_ns.show_gid(*gid).to_le_bytes()).collect();
    cx.mm().write_bytes(list.addr(), &bytes)?;
    Ok(cred.groups.len())
}

/// setgroups(2).
pub fn setgroups(cx: &mut Cx<'_>, size: usize, list: UserPtr<u32>) -> CallResult<()> {
    let old = Arc::clone(cx.cred());
    if !old.has(Capabilities::SETGID) || old.user_ns.maps.lock().setgroups_denied {
        return Err(Errno::EPERM.into());
    }
    if size > MOST_GROUPS {
        return Err(Errno::EINVAL.into());
    }
    let ids = cx.mm().read_array(list, size)?;
    let mut groups = ids.iter().map(|gid| old.user_ns.kgid(*gid)).collect::<SysResult<Vec<_>>>()?;
    groups.sort_unstable();
    let mut new = Credentials::clone(&old);
    new.groups = Arc::from(groups);
    commit(cx, new);
    Ok(())
}
