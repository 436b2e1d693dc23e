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

/// The four ids of a kind, user or group.
#[derive(Clone, Copy)]
struct Ids<T> {
    real: T,
    eff: T,
    saved: T,
    fs: T,
}

/// User ids and group ids obey the same rules (setuid(2), setreuid(2), setresuid(2), setfsuid(2)).
trait Id: Copy + PartialEq {
    /// Who has it may take any id.
    const FREE: Capabilities;
    fn of(cred: &Credentials) -> Ids<Self>;
    fn put(cred: &mut Credentials, ids: Ids<Self>);
    fn kernel(cred: &Credentials, number: u32) -> SysResult<Self>;
    fn shown(self, cred: &Credentials) -> u32;
}

impl Id for Kuid {
    const FREE: Capabilities = Capabilities::SETUID;
    fn of(cred: &Credentials) -> Ids<Kuid> {
        Ids { real: cred.uid, eff: cred.euid, saved: cred.suid, fs: cred.fsuid }
    }
    fn put(cred: &mut Credentials, ids: Ids<Kuid>) {
        (cred.uid, cred.euid, cred.suid, cred.fsuid) = (ids.real, ids.eff, ids.saved, ids.fs);
    }
    fn kernel(cred: &Credentials, number: u32) -> SysResult<Kuid> {
        cred.user_ns.kuid(number)
    }
    fn shown(self, cred: &Credentials) -> u32 {
        cred.user_ns.show_uid(self)
    }
}

impl Id for Kgid {
    const FREE: Capabilities = Capabilities::SETGID;
    fn of(cred: &Credentials) -> Ids<Kgid> {
        Ids { real: cred.gid, eff: cred.egid, saved: cred.sgid, fs: cred.fsgid }
    }
    fn put(cred: &mut Credentials, ids: Ids<Kgid>) {
        (cred.gid, cred.egid, cred.sgid, cred.fsgid) = (ids.real, ids.eff, ids.saved, ids.fs);
    }
    fn kernel(cred: &Credentials, number: u32) -> SysResult<Kgid> {
        cred.user_ns.kgid(number)
    }
    fn shown(self, cred: &Credentials) -> u32 {
        cred.user_ns.show_gid(self)
    }
}

fn wanted<T: Id>(cred: &Credentials, number: u32) -> SysResult<Option<T>> {
    if number == KEEP { Ok(None) } else { T::kernel(cred, number).map(Some) }
}

fn take<T: Id>(cx: &mut Cx<'_>, ids: Ids<T>) {
    let mut new = Credentials::clone(cx.cred());
    T::put(&mut new, ids);
    commit(cx, new);
}

fn set_id<T: Id>(cx: &mut Cx<'_>, number: u32) -> CallResult<()> {
    let id = T::kernel(cx.cred(), number)?;
    let mut ids = T::of(cx.cred());
    if cx.cred().has(T::FREE) {
        (ids.real, ids.saved) = (id, id);
    } else if id != ids.real && id != ids.saved {
        return Err(Errno::EPERM.into());
    }
    take(cx, Ids { eff: id, fs: id, ..ids });
    Ok(())
}

fn set_re<T: Id>(cx: &mut Cx<'_>, real: u32, eff: u32) -> CallResult<()> {
    let (real, eff) = (wanted::<T>(cx.cred(), real)?, wanted::<T>(cx.cred(), eff)?);
    let old = T::of(cx.cred());
    let free = cx.cred().has(T::FREE);
    let may_real = real.is_none_or(|id| id == old.real || id == old.eff);
    let may_eff = eff.is_none_or(|id| id == old.real || id == old.eff || id == old.saved);
    if !(free || may_real && may_eff) {
        return Err(Errno::EPERM.into());
    }
    let now = eff.unwrap_or(old.eff);
    let follows = real.is_some() || eff.is_some_and(|id| id != old.real);
    let saved = if follows { now } else { old.saved };
    take(cx, Ids { real: real.unwrap_or(old.real), eff: now, saved, fs: now });
    Ok(())
}

fn set_res<T: Id>(cx: &mut Cx<'_>, numbers: [u32; 3]) -> CallResult<()> {
    let mut ids = [None; 3];
    for (id, number) in ids.iter_mut().zip(numbers) {
        *id = wanted::<T>(cx.cred(), number)?;
    }
    let old = T::of(cx.cred());
    let may = |id: &T| [old.real, old.eff, old.saved].contains(id);
    if !cx.cred().has(T::FREE) && !ids.iter().flatten().all(may) {
        return Err(Errno::EPERM.into());
    }
    let [real, eff, saved] = ids;
    let eff = eff.unwrap_or(old.eff);
    take(cx, Ids { real: real.unwrap_or(old.real), eff, saved: saved.unwrap_or(old.saved), fs: eff });
    Ok(())
}

/// Never fails, returns the old id.
fn set_fs<T: Id>(cx: &mut Cx<'_>, number: u32) -> u32 {
    let old = T::of(cx.cred());
    let shown = old.fs.shown(cx.cred());
    if let Ok(id) = T::kernel(cx.cred(), number)
        && (cx.cred().has(T::FREE) || [old.real, old.eff, old.saved, old.fs].contains(&id))
    {
        take(cx, Ids { fs: id, ..old });
    }
    shown
}

/// setuid(2).
pub fn setuid(cx: &mut Cx<'_>, uid: u32) -> CallResult<()> {
    set_id::<Kuid>(cx, uid)
}
/// setgid(2).
pub fn setgid(cx: &mut Cx<'_>, gid: u32) -> CallResult<()> {
    set_id::<Kgid>(cx, gid)
}
/// setreuid(2).
pub fn setreuid(cx: &mut Cx<'_>, real: u32, eff: u32) -> CallResult<()> {
    set_re::<Kuid>(cx, real, eff)
}
/// setregid(2).
pub fn setregid(cx: &mut Cx<'_>, real: u32, eff: u32) -> CallResult<()> {
    set_re::<Kgid>(cx, real, eff)
}
/// setresuid(2).
pub fn setresuid(cx: &mut Cx<'_>, real: u32, eff: u32, saved: u32) -> CallResult<()> {
    set_res::<Kuid>(cx, [real, eff, saved])
}
/// setresgid(2).
pub fn setresgid(cx: &mut Cx<'_>, real: u32, eff: u32, saved: u32) -> CallResult<()> {
    set_res::<Kgid>(cx, [real, eff, saved])
}
/// setfsuid(2): never fails, returns the old id.
pub fn setfsuid(cx: &mut Cx<'_>, uid: u32) -> CallResult<u32> {
    Ok(set_fs::<Kuid>(cx, uid))
}
/// setfsgid(2): never fails, returns the old id.
pub fn setfsgid(cx: &mut Cx<'_>, gid: u32) -> CallResult<u32> {
    Ok(set_fs::<Kgid>(cx, gid))
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
