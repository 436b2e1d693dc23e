//! Walks through keyrings.

use super::{Key, KeyType, MOST_DEPTH, Need, access, may};
use crate::task::Cx;
use abi::{Errno, SysResult};
use std::sync::Arc;

/// A key that was found, which its finder possesses.
pub type Found = Arc<Key>;

/// `EDEADLK` when `ring` is below `key` (or is it), `ELOOP` when they nest too deep.
pub(super) fn check_cycle(ring: &Key, key: &Arc<Key>, depth: usize) -> SysResult<()> {
    if key.serial == ring.serial {
        return Err(Errno::EDEADLK);
    }
    if depth >= MOST_DEPTH {
        return Err(Errno::ELOOP);
    }
    for below in key.links()?.iter().filter(|below| below.kind == KeyType::Keyring) {
        check_cycle(ring, below, depth + 1)?;
    }
    Ok(())
}

/// Whether `key` is reachable below `ring` through keyrings that the caller may search.
pub(super) fn holds(cx: &Cx<'_>, ring: &Arc<Key>, key: &Key, depth: usize) -> bool {
    if depth > MOST_DEPTH || ring.validate().is_err() || !may(cx, ring, true, Need::Search) {
        return false;
    }
    let links = ring.links().unwrap_or_default();
    links.iter().any(|link| link.serial == key.serial)
        || links.iter().any(|link| link.kind == KeyType::Keyring && holds(cx, link, key, depth + 1))
}

/// Finds a key by type and name below `ring`, breadth before depth. The errors of keys that match but cannot
/// be had come before `ENOKEY`.
pub fn search(
    cx: &Cx<'_>,
    ring: &Arc<Key>,
    possessed: bool,
    kind: KeyType,
    description: &[u8],
) -> SysResult<Found> {
    ring.links()?;
    if !may(cx, ring, possessed, Need::Search) {
        return Err(Errno::EACCES);
    }
    below(cx, ring, possessed, (kind, description), 0)
}

fn below(
    cx: &Cx<'_>,
    ring: &Arc<Key>,
    possessed: bool,
    wanted: (KeyType, &[u8]),
    depth: usize,
) -> SysResult<Found> {
    ring.validate()?;
    let mut failure = Errno::ENOKEY;
    let links = ring.links()?;
    for key in &links {
        if key.kind != wanted.0 || key.description != wanted.1 {
            continue;
        }
        match key.validate() {
            Err(errno) => failure = errno,
            Ok(()) if !may(cx, key, possessed, Need::Search) => failure = Errno::EACCES,
            Ok(()) => return Ok(Arc::clone(key)),
        }
    }
    if depth < MOST_DEPTH {
        for next in links.iter().filter(|key| key.kind == KeyType::Keyring) {
            if !may(cx, next, possessed, Need::Search) {
                continue;
            }
            match below(cx, next, possessed, wanted, depth + 1) {
                Ok(found) => return Ok(found),
                Err(Errno::ENOKEY) => {}
                Err(errno) if failure == Errno::ENOKEY => failure = errno,
                Err(_) => {}
            }
        }
    }
    Err(failure)
}

/// Finds a key through the caller's thread, process and session keyrings.
pub fn search_task(cx: &Cx<'_>, kind: KeyType, description: &[u8]) -> SysResult<Found> {
    let keys = &cx.owned.personal.keys;
    let session = keys.session.clone().unwrap_or_else(|| access::user_keys(cx).session);
    let rings = [keys.thread.clone(), keys.process.clone(), Some(session)];
    let mut failure = None;
    for ring in rings.into_iter().flatten() {
        match search(cx, &ring, true, kind, description) {
            Ok(found) => return Ok(found),
            // As in Linux, what one keyring does not have hides why another does not give it.
            Err(errno) if failure != Some(Errno::ENOKEY) => failure = Some(errno),
            Err(_) => {}
        }
    }
    Err(failure.unwrap_or(Errno::ENOKEY))
}
