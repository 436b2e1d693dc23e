//! add_key(2), request_key(2), keyctl(2).

use crate::keys::{self, Key, KeyType, Need, Owner, Place, SESSION_RING, may, resolve};
use crate::task::Cx;
use abi::{CallResult, Errno, SysResult, UserAddr, UserCStr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use vfs::Capabilities;

const MOST_NAME: usize = 32;
const MOST_DESCRIPTION: usize = 4096;
/// Most bytes that add_key(2) takes, of any type.
const MOST_BYTES: usize = (1 << 20) - 1;
/// Most bytes of a `user` key.
const MOST_PAYLOAD: usize = 32_767;

fn type_name(cx: &Cx<'_>, at: UserCStr) -> SysResult<Vec<u8>> {
    let name = cx.mm().read_cstr(at, MOST_NAME).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })?;
    match name.first() {
        None => Err(Errno::EINVAL),
        // Names that begin with a dot are the kernel's own.
        Some(b'.') => Err(Errno::EPERM),
        Some(_) => Ok(name),
    }
}

fn description(cx: &Cx<'_>, at: UserCStr) -> SysResult<Vec<u8>> {
    cx.mm().read_cstr(at, MOST_DESCRIPTION).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })
}

fn payload(cx: &Cx<'_>, at: UserAddr, len: usize, most: usize) -> SysResult<Vec<u8>> {
    if len > most {
        return Err(Errno::EINVAL);
    }
    let mut bytes = vec![0; len];
    cx.mm().read_bytes(at, &mut bytes)?;
    Ok(bytes)
}

fn check_payload(kind: KeyType, len: usize) -> SysResult<()> {
    let fits = match kind {
        KeyType::Keyring => len == 0,
        KeyType::User | KeyType::Logon => (1..=MOST_PAYLOAD).contains(&len),
    };
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

fn check_description(kind: KeyType, description: &[u8]) -> SysResult<()> {
    if description.is_empty() {
        return Err(Errno::EINVAL);
    }
    if kind == KeyType::Keyring && description.first() == Some(&b'.') {
        return Err(Errno::EPERM);
    }
    // The names of logon keys say first what they are for.
    let colon = description.iter().position(|byte| *byte == b':');
    if kind == KeyType::Logon && colon.is_none_or(|at| at == 0) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// add_key(2).
pub fn add_key(
    cx: &mut Cx<'_>,
    kind: UserCStr,
    name: UserCStr,
    bytes: UserAddr,
    len: usize,
    ring: i32,
) -> CallResult<i32> {
    if len > MOST_BYTES {
        return Err(Errno::EINVAL.into());
    }
    let kind = type_name(cx, kind)?;
    let name = if name.addr().is_null() { Vec::new() } else { description(cx, name)? };
    if kind == b"keyring" && name.first() == Some(&b'.') {
        return Err(Errno::EPERM.into());
    }
    let bytes = payload(cx, bytes, len, MOST_BYTES)?;
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (ring, _) = resolve(cx, ring, Place::Create, Need::Write)?;
    let kind = KeyType::named(&kind)?;
    ring.links()?;
    check_payload(kind, bytes.len())?;
    check_description(kind, &name)?;
    if kind != KeyType::Keyring
        && let Some(old) = ring.linked(kind, &name)?
        && old.validate().is_ok()
    {
        if !may(cx, &old, true, Need::Write) {
            return Err(Errno::EACCES.into());
        }
        kernel.keys.check_quota(old.state().uid, bytes.len())?;
        old.update(|state| state.payload = bytes);
        return Ok(old.serial);
    }
    let key = kernel.keys.create(kind, &name, Owner::of(cx), bytes)?;
    ring.link(&key)?;
    Ok(key.serial)
}

/// request_key(2): there is no program to ask, so what is not there is `ENOKEY`. With something to tell the
/// program that is remembered for a while, by a key that is none.
pub fn request_key(
    cx: &mut Cx<'_>,
    kind: UserCStr,
    name: UserCStr,
    callout: UserCStr,
    ring: i32,
) -> CallResult<i32> {
    let kind = type_name(cx, kind)?;
    let name = description(cx, name)?;
    if !callout.addr().is_null() {
        description(cx, callout)?;
    }
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let ring = if ring == 0 { None } else { Some(resolve(cx, ring, Place::Create, Need::Write)?.0) };
    let kind = KeyType::named(&kind)?;
    let found = keys::search_task(cx, kind, &name);
    if found.as_ref().err() == Some(&Errno::ENOKEY) && !callout.addr().is_null() {
        check_description(kind, &name)?;
        let ring = match ring {
            Some(ring) => ring,
            None => default_destination(cx)?,
        };
        let key = kernel.keys.negative(kind, &name, Owner::of(cx))?;
        ring.link(&key)?;
    } else if let (Ok(key), Some(ring)) = (&found, ring) {
        ring.link(key)?;
    }
    Ok(found?.serial)
}

/// The keyring of KEYCTL_SET_REQKEY_KEYRING; `EACCES` where the caller may not write.
fn default_destination(cx: &mut Cx<'_>) -> SysResult<Arc<Key>> {
    let choice = cx.owned.personal.keys.default_ring;
    let ids = match choice {
        1..=5 => [-i32::from(choice); 3],
        _ => [-1, -2, -3],
    };
    for id in ids {
        match resolve(cx, id, Place::Existing, Need::Write) {
            Err(Errno::ENOKEY) => {}
            other => return Ok(other?.0),
        }
    }
    Err(Errno::ENOKEY)
}

/// An operation's argument that is a key's number.
fn serial(arg: u64) -> i32 {
    crate::syscalls::args::low32(arg).cast_signed()
}

/// keyctl(2).
pub fn keyctl(cx: &mut Cx<'_>, operation: u32, a: u64, b: u64, c: u64, d: u64) -> CallResult<i64> {
    let text = |arg: u64| UserCStr::new(UserAddr::new(arg));
    let length = |arg: u64| usize::try_from(arg).unwrap_or(usize::MAX);
    match operation {
        0 => {
            let place = if serial(b) != 0 { Place::Create } else { Place::Existing };
            let kernel = Arc::clone(cx.kernel());
            let _changes = kernel.keys.changes();
            Ok(i64::from(resolve(cx, serial(a), place, Need::Search)?.0.serial))
        }
        1 => Ok(i64::from(join_session(cx, text(a))?)),
        2 => {
            let bytes = payload(cx, UserAddr::new(b), length(c), 4096)?;
            done(update(cx, serial(a), bytes))
        }
        3 => done(revoke(cx, serial(a))),
        4 => done(chown(cx, serial(a), crate::syscalls::args::low32(b), crate::syscalls::args::low32(c))),
        5 => done(set_permissions(cx, serial(a), crate::syscalls::args::low32(b))),
        6 => {
            let text = describe(cx, serial(a))?;
            give(cx, &text, UserAddr::new(b), length(c))
        }
        7 => done(clear(cx, serial(a))),
        8 => done(link(cx, serial(a), serial(b))),
        9 => done(unlink(cx, serial(a), serial(b))),
        10 => Ok(i64::from(search(cx, serial(a), text(b), text(c), serial(d))?)),
        11 => {
            let bytes = read(cx, serial(a))?;
            give(cx, &bytes, UserAddr::new(b), length(c))
        }
        // Only a program that the kernel asked may answer for a key, and it asks none.
        12 | 13 | 19 | 20 => Err(Errno::EPERM.into()),
        14 => default_ring(cx, serial(a)),
        15 => done(set_timeout(cx, serial(a), crate::syscalls::args::low32(b))),
        16 if serial(a) == 0 => Ok(0),
        16 => Err(if serial(a) < 0 { Errno::EINVAL } else { Errno::ENOKEY }.into()),
        17 => {
            describe(cx, serial(a))?;
            give(cx, b"\0", UserAddr::new(b), length(c))
        }
        21 => done(invalidate(cx, serial(a))),
        29 => done(restrict(cx, serial(a), text(b))),
        30 => done(move_link(cx, [serial(a), serial(b), serial(c)], crate::syscalls::args::low32(d))),
        31 => give(cx, &CAPABILITIES, UserAddr::new(a), length(b).min(CAPABILITIES.len())),
        _ => Err(Errno::EOPNOTSUPP.into()),
    }
}

/// KEYCTL_CAPABILITIES, _INVALIDATE, _RESTRICT_KEYRING, _MOVE.
const CAPABILITIES: [u8; 2] = [0xe1, 0];

fn done(result: SysResult<()>) -> CallResult<i64> {
    result?;
    Ok(0)
}

/// Copies out when there is room for all; returns how much there is.
fn give(cx: &Cx<'_>, bytes: &[u8], at: UserAddr, room: usize) -> CallResult<i64> {
    if !at.is_null() && room >= bytes.len() {
        cx.mm().write_bytes(at, bytes)?;
    }
    Ok(i64::try_from(bytes.len()).unwrap_or(0))
}

fn join_session(cx: &mut Cx<'_>, name: UserCStr) -> SysResult<i32> {
    let owner = Owner::of(cx);
    let name = if name.addr().is_null() { None } else { Some(description(cx, name)?) };
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let ring = if let Some(name) = name {
        if name.first() == Some(&b'.') {
            return Err(Errno::EPERM);
        }
        let by_name = |key: &Arc<Key>| key.kind == KeyType::Keyring && key.description == name;
        let usable = |key: &Arc<Key>| key.validate().is_ok() && may(cx, key, false, Need::Search);
        let found = kernel.keys.all().into_iter().find(|key| by_name(key) && usable(key));
        // One that others can join: they may link it.
        found.unwrap_or_else(|| kernel.keys.ring(&name, owner, SESSION_RING | 0x0010_0000))
    } else {
        kernel.keys.ring(b"_ses", owner, SESSION_RING)
    };
    let serial = ring.serial;
    cx.owned.personal.keys.session = Some(ring);
    Ok(serial)
}

fn update(cx: &mut Cx<'_>, id: i32, bytes: Vec<u8>) -> SysResult<()> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (key, _) = resolve(cx, id, Place::Existing, Need::Write)?;
    if key.kind == KeyType::Keyring {
        return Err(Errno::EOPNOTSUPP);
    }
    check_payload(key.kind, bytes.len())?;
    key.update(|state| state.payload = bytes);
    Ok(())
}

fn revoke(cx: &mut Cx<'_>, id: i32) -> SysResult<()> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let key = match resolve(cx, id, Place::Existing, Need::Write) {
        Err(Errno::EACCES) => resolve(cx, id, Place::Existing, Need::SetAttr)?.0,
        other => other?.0,
    };
    key.update(|state| {
        state.revoked = true;
        state.payload.clear();
        state.links.clear();
    });
    Ok(())
}

fn chown(cx: &mut Cx<'_>, id: i32, uid: u32, gid: u32) -> SysResult<()> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let cred = Arc::clone(cx.cred());
    let uid = if uid == u32::MAX { None } else { Some(cred.user_ns.kuid(uid)?) };
    let gid = if gid == u32::MAX { None } else { Some(cred.user_ns.kgid(gid)?) };
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    let (key, _) = resolve(cx, id, Place::Existing, Need::SetAttr)?;
    let old = key.state();
    let new_owner = uid.is_some_and(|uid| uid != old.uid);
    let foreign_group = gid.is_some_and(|gid| gid != old.gid && !cred.in_group(gid));
    if (new_owner || foreign_group) && !cred.has(Capabilities::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    if let Some(uid) = uid.filter(|_| new_owner) {
        cx.kernel().keys.check_quota(uid, key.description.len() + old.payload.len())?;
    }
    key.update(|state| {
        state.uid = uid.unwrap_or(state.uid);
        state.gid = gid.unwrap_or(state.gid);
    });
    Ok(())
}

fn set_permissions(cx: &mut Cx<'_>, id: i32, perm: u32) -> SysResult<()> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    const ALL: u32 = 0x3f3f_3f3f;
    if perm & !ALL != 0 {
        return Err(Errno::EINVAL);
    }
    let (key, _) = resolve(cx, id, Place::Existing, Need::SetAttr)?;
    if key.state().uid != cx.cred().fsuid && !cx.cred().has(Capabilities::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    key.update(|state| state.perm = perm);
    Ok(())
}

fn describe(cx: &mut Cx<'_>, id: i32) -> SysResult<Vec<u8>> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (key, _) = resolve(cx, id, Place::Existing, Need::View)?;
    let state = key.state();
    let ns = &cx.cred().user_ns;
    let (uid, gid) = (ns.show_uid(state.uid), ns.show_gid(state.gid));
    let gid = if state.gid.0 == u32::MAX { -1 } else { i64::from(gid) };
    let mut text = format!("{};{uid};{gid};{:08x};", key.kind.name(), state.perm).into_bytes();
    text.extend_from_slice(&key.description);
    text.push(0);
    Ok(text)
}

fn clear(cx: &mut Cx<'_>, id: i32) -> SysResult<()> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (ring, _) = resolve(cx, id, Place::Create, Need::Write)?;
    ring.links()?;
    ring.update(|state| state.links.clear());
    Ok(())
}

fn link(cx: &mut Cx<'_>, id: i32, ring: i32) -> SysResult<()> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (ring, _) = resolve(cx, ring, Place::Create, Need::Write)?;
    let (key, _) = resolve(cx, id, Place::Create, Need::Link)?;
    ring.link(&key)
}

fn unlink(cx: &mut Cx<'_>, id: i32, ring: i32) -> SysResult<()> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (ring, _) = resolve(cx, ring, Place::Existing, Need::Write)?;
    let (key, _) = resolve(cx, id, Place::Existing, Need::Nothing)?;
    ring.unlink(&key)
}

fn move_link(cx: &mut Cx<'_>, [id, from, to]: [i32; 3], flags: u32) -> SysResult<()> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    const EXCL: u32 = 1;
    if flags & !EXCL != 0 {
        return Err(Errno::EINVAL);
    }
    let (key, _) = resolve(cx, id, Place::Create, Need::Link)?;
    let (from, _) = resolve(cx, from, Place::Existing, Need::Write)?;
    let (to, _) = resolve(cx, to, Place::Create, Need::Write)?;
    let there = to.linked(key.kind, &key.description)?;
    if from.serial == to.serial {
        return Ok(());
    }
    if !from.links()?.iter().any(|link| link.serial == key.serial) {
        return Err(Errno::ENOENT);
    }
    if flags & EXCL != 0 && there.is_some() {
        return Err(Errno::EEXIST);
    }
    to.link(&key)?;
    from.unlink(&key)
}

fn search(cx: &mut Cx<'_>, ring: i32, kind: UserCStr, name: UserCStr, to: i32) -> SysResult<i32> {
    let kind = type_name(cx, kind)?;
    let name = description(cx, name)?;
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (ring, possessed) = resolve(cx, ring, Place::Existing, Need::Search)?;
    let to = if to == 0 { None } else { Some(resolve(cx, to, Place::Create, Need::Write)?.0) };
    let key = keys::search(cx, &ring, possessed, KeyType::named(&kind)?, &name)?;
    if let Some(to) = to {
        if !may(cx, &key, possessed, Need::Link) {
            return Err(Errno::EACCES);
        }
        to.link(&key)?;
    }
    Ok(key.serial)
}

fn read(cx: &mut Cx<'_>, id: i32) -> SysResult<Vec<u8>> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (key, possessed) = resolve(cx, id, Place::Existing, Need::Nothing)?;
    // A key that can be found by searching can be read, too.
    if !may(cx, &key, possessed, Need::Read) && !keys::possesses(cx, &key) {
        return Err(Errno::EACCES);
    }
    key.validate()?;
    match key.kind {
        KeyType::Keyring => Ok(key.links()?.iter().flat_map(|link| link.serial.to_ne_bytes()).collect()),
        KeyType::User => Ok(key.state().payload),
        KeyType::Logon => Err(Errno::EOPNOTSUPP),
    }
}

fn default_ring(cx: &mut Cx<'_>, number: i32) -> CallResult<i64> {
    let old = i64::from(cx.owned.personal.keys.default_ring);
    match number {
        -1 => return Ok(old),
        1 => drop(resolve(cx, -1, Place::Create, Need::Nothing)?),
        2 => drop(resolve(cx, -2, Place::Create, Need::Nothing)?),
        0 | 3..=5 | 7 => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    cx.owned.personal.keys.default_ring = u8::try_from(number).unwrap_or(0);
    Ok(old)
}

fn set_timeout(cx: &mut Cx<'_>, id: i32, seconds: u32) -> SysResult<()> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (key, _) = resolve(cx, id, Place::Create, Need::SetAttr)?;
    let after = Duration::from_secs(u64::from(seconds));
    key.update(|state| state.expires = if seconds == 0 { None } else { Instant::now().checked_add(after) });
    Ok(())
}

fn invalidate(cx: &mut Cx<'_>, id: i32) -> SysResult<()> {
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (key, _) = resolve(cx, id, Place::Existing, Need::Search)?;
    key.update(|state| {
        state.invalid = true;
        state.links.clear();
    });
    Ok(())
}

fn restrict(cx: &mut Cx<'_>, id: i32, kind: UserCStr) -> SysResult<()> {
    if !kind.addr().is_null() {
        type_name(cx, kind)?;
        // No type restricts by a scheme of its own.
        return Err(Errno::ENOENT);
    }
    let kernel = Arc::clone(cx.kernel());
    let _changes = kernel.keys.changes();
    let (ring, _) = resolve(cx, id, Place::Existing, Need::SetAttr)?;
    ring.links()?;
    if ring.state().restricted {
        return Err(Errno::EEXIST);
    }
    ring.update(|state| state.restricted = true);
    Ok(())
}
