//! Id maps of user namespaces: uid_map, gid_map, setgroups (user_namespaces(7)).

use super::subject::Subject;
use super::text::put;
use abi::{Errno, SysResult};
use std::sync::Arc;
use vfs::cred::{IdExtent, IdMaps};
use vfs::synthetic::WriteText;
use vfs::{Caller, Capabilities, Kgid, Kuid, UserNamespace};

/// Most lines of a map.
const MAX_EXTENTS: usize = 340;
/// A map is written at once, in less than a page.
const MAX_BYTES: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Uid,
    Gid,
}

impl Which {
    fn of(self, maps: &IdMaps) -> &Vec<IdExtent> {
        match self {
            Which::Uid => &maps.uid,
            Which::Gid => &maps.gid,
        }
    }
}

fn namespace(subject: &Subject) -> SysResult<Arc<UserNamespace>> {
    Ok(Arc::clone(&subject.cred()?.user_ns))
}

fn show(subject: &Subject, which: Which, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let ns = namespace(subject)?;
    let reader = &by.cred.user_ns;
    // The middle column is as the reader's namespace numbers ids, or the parent's when it reads its own.
    let lower = match &ns.parent {
        Some(parent) if Arc::ptr_eq(reader, &ns) => parent,
        _ => reader,
    };
    let extents = which.of(&ns.maps.lock()).clone();
    let mut out = String::new();
    for extent in extents {
        let shown = match (which, lower.parent.is_none()) {
            (_, true) => extent.kernel,
            (Which::Uid, _) if lower.maps_uid(Kuid(extent.kernel)) => lower.show_uid(Kuid(extent.kernel)),
            (Which::Gid, _) if lower.maps_gid(Kgid(extent.kernel)) => lower.show_gid(Kgid(extent.kernel)),
            _ => u32::MAX,
        };
        put!(out, "{:>10} {shown:>10} {:>10}\n", extent.inside, extent.count);
    }
    Ok(out.into_bytes())
}

pub(super) fn uid_map(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    show(subject, Which::Uid, by)
}
pub(super) fn gid_map(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    show(subject, Which::Gid, by)
}
pub(super) fn projid_map(subject: &Subject, by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let ns = namespace(subject)?;
    if ns.parent.is_none() { uid_map(subject, by) } else { Ok(Vec::new()) }
}
pub(super) fn setgroups(subject: &Subject, _by: &Caller<'_>) -> SysResult<Vec<u8>> {
    let denied = namespace(subject)?.maps.lock().setgroups_denied;
    Ok(if denied { b"deny\n".to_vec() } else { b"allow\n".to_vec() })
}

/// (first inside, first outside, count) of each line; `EINVAL` for anything else and for overlaps.
fn parse(text: &str) -> SysResult<Vec<(u32, u32, u32)>> {
    let mut lines: Vec<(u32, u32, u32)> = Vec::new();
    for line in text.trim_end_matches('\n').split('\n') {
        let mut words =
            line.split_ascii_whitespace().map(|word| word.parse::<u32>().map_err(|_| Errno::EINVAL));
        let mut next = || words.next().unwrap_or(Err(Errno::EINVAL));
        let (inside, outside, count) = (next()?, next()?, next()?);
        if words.next().is_some() || count == 0 {
            return Err(Errno::EINVAL);
        }
        let end = |first: u32| first.checked_add(count).filter(|_| first != u32::MAX).ok_or(Errno::EINVAL);
        let (inside_end, outside_end) = (end(inside)?, end(outside)?);
        let clash = lines.iter().any(|(a, b, n)| {
            (*a < inside_end && inside < a.saturating_add(*n))
                || (*b < outside_end && outside < b.saturating_add(*n))
        });
        if clash || lines.len() >= MAX_EXTENTS {
            return Err(Errno::EINVAL);
        }
        lines.push((inside, outside, count));
    }
    Ok(lines)
}

/// A range of the parent as kernel ids; `EPERM` unless one extent of the parent's map covers it.
fn to_kernel(parent: &UserNamespace, which: Which, first: u32, count: u32) -> SysResult<u32> {
    if parent.parent.is_none() {
        return Ok(first);
    }
    let maps = parent.maps.lock();
    let found = which.of(&maps).iter().find_map(|extent| {
        let skip = first.checked_sub(extent.inside)?;
        let fits = skip.checked_add(count)? <= extent.count;
        if fits { extent.kernel.checked_add(skip) } else { None }
    });
    found.ok_or(Errno::EPERM)
}

fn set(subject: &Subject, which: Which, write: &WriteText<'_>, by: &Caller<'_>) -> SysResult<()> {
    if write.offset != 0 || write.bytes.len() >= MAX_BYTES {
        return Err(Errno::EINVAL);
    }
    let ns = namespace(subject)?;
    let parent = ns.parent.clone().ok_or(Errno::EPERM)?;
    let own = Arc::ptr_eq(&by.cred.user_ns, &ns);
    if !own && !Arc::ptr_eq(&by.cred.user_ns, &parent) {
        return Err(Errno::EPERM);
    }
    let text = std::str::from_utf8(write.bytes).map_err(|_| Errno::EINVAL)?;
    let lines = parse(text)?;
    let cap = if which == Which::Uid { Capabilities::SETUID } else { Capabilities::SETGID };
    if !by.cred.has_in(Capabilities::SYS_ADMIN, &ns) {
        return Err(Errno::EPERM);
    }
    let denied = ns.maps.lock().setgroups_denied;
    let single = match lines.as_slice() {
        [(_, outside, 1)] => Some(*outside),
        _ => None,
    };
    // Without privilege over the parent: only the writer's own id, and groups cannot be dropped.
    let mine = single.is_some_and(|outside| match which {
        Which::Uid => parent.kuid(outside) == Ok(by.cred.euid) && ns.owner == by.cred.euid,
        Which::Gid => denied && parent.kgid(outside) == Ok(by.cred.egid) && ns.owner == by.cred.euid,
    });
    if !mine && !by.cred.has_in(cap, &parent) {
        return Err(Errno::EPERM);
    }
    let mut extents = Vec::with_capacity(lines.len());
    for (inside, outside, count) in lines {
        extents.push(IdExtent { inside, kernel: to_kernel(&parent, which, outside, count)?, count });
    }
    let mut maps = ns.maps.lock();
    let place = match which {
        Which::Uid => &mut maps.uid,
        Which::Gid => &mut maps.gid,
    };
    if !place.is_empty() {
        return Err(Errno::EPERM);
    }
    *place = extents;
    Ok(())
}

pub(super) fn set_uid_map(subject: &Subject, write: &WriteText<'_>, by: &Caller<'_>) -> SysResult<()> {
    set(subject, Which::Uid, write, by)
}
pub(super) fn set_gid_map(subject: &Subject, write: &WriteText<'_>, by: &Caller<'_>) -> SysResult<()> {
    set(subject, Which::Gid, write, by)
}

pub(super) fn set_setgroups(subject: &Subject, write: &WriteText<'_>, by: &Caller<'_>) -> SysResult<()> {
    let ns = namespace(subject)?;
    if write.offset != 0 || write.bytes.len() >= 8 {
        return Err(Errno::EINVAL);
    }
    if !by.cred.has_in(Capabilities::SYS_ADMIN, &ns) {
        return Err(Errno::EPERM);
    }
    let deny = match write.text()? {
        "allow" => false,
        "deny" => true,
        _ => return Err(Errno::EINVAL),
    };
    let mut maps = ns.maps.lock();
    let refused = if deny { !maps.gid.is_empty() } else { maps.setgroups_denied };
    if refused && deny != maps.setgroups_denied {
        return Err(Errno::EPERM);
    }
    maps.setgroups_denied = deny;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_map() {
        assert_eq!(parse("0 1000 1\n"), Ok(vec![(0, 1000, 1)]));
        assert_eq!(parse("0 1000 1\n1 100000 65536\n"), Ok(vec![(0, 1000, 1), (1, 100_000, 65_536)]));
        for bad in [
            "",
            "0 1000\n",
            "0 1000 0\n",
            "0 0 4294967295 1\n",
            "0 10 5\n4 100 5\n",
            "0 10 5\n9 12 5\n",
            "x 1 1",
        ] {
            assert_eq!(parse(bad), Err(Errno::EINVAL), "{bad:?}");
        }
    }
}
