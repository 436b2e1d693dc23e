//! Who may do what with a key (keyrings(7), "Key access rights"), and the numbers that name keyrings.

use super::{Key, OWN_RING, Owner, SESSION_RING, search};
use crate::task::Cx;
use abi::{Errno, SysResult};
use std::sync::Arc;

/// What is to be done with a key: a permission bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// No permission is asked for, and the key may be revoked or expired.
    Nothing,
    /// Look at its attributes.
    View,
    /// Read the payload.
    Read,
    /// Change the payload.
    Write,
    /// Find it.
    Search,
    /// Link to it.
    Link,
    /// Change its attributes.
    SetAttr,
}

impl Need {
    fn bit(self) -> u32 {
        match self {
            Need::Nothing => 0,
            Need::View => 1,
            Need::Read => 2,
            Need::Write => 4,
            Need::Search => 8,
            Need::Link => 0x10,
            Need::SetAttr => 0x20,
        }
    }
}

/// Whether a keyring that a number names is made when it is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It must be there.
    Existing,
    /// It is made.
    Create,
}

/// Whether the permissions of `key` let the caller do it.
#[must_use]
pub fn may(cx: &Cx<'_>, key: &Key, possessed: bool, need: Need) -> bool {
    let state = key.state();
    let cred = cx.cred();
    let shift = if state.uid == cred.fsuid {
        16
    } else if cred.in_group(state.gid) {
        8
    } else {
        0
    };
    let mut granted = state.perm >> shift;
    if possessed {
        granted |= state.perm >> 24;
    }
    granted & need.bit() == need.bit()
}

/// Whether the caller holds the key through its own keyrings.
#[must_use]
pub fn possesses(cx: &Cx<'_>, key: &Key) -> bool {
    let keys = &cx.owned.personal.keys;
    let roots = [&keys.thread, &keys.process, &keys.session];
    let mut roots: Vec<Arc<Key>> = roots.into_iter().flatten().cloned().collect();
    if keys.session.is_none() {
        roots.push(user_keys(cx).session);
    }
    roots.iter().any(|root| root.serial == key.serial || search::holds(cx, root, key, 0))
}

pub(super) fn user_keys(cx: &Cx<'_>) -> super::UserKeys {
    let uid = cx.cred().uid;
    cx.kernel().keys.user(uid, cx.cred().user_ns.show_uid(uid))
}

/// The key that a number names and whether the caller possesses it; checks its state and `need`.
/// `EINVAL`, `ENOKEY`, `EKEYREVOKED`, `EKEYEXPIRED`, `EACCES`.
pub fn resolve(cx: &mut Cx<'_>, id: i32, place: Place, need: Need) -> SysResult<(Arc<Key>, bool)> {
    let (key, possessed) = named(cx, id, place)?;
    if need != Need::Nothing {
        key.validate()?;
        if !may(cx, &key, possessed, need) {
            return Err(Errno::EACCES);
        }
    }
    Ok((key, possessed))
}

fn named(cx: &mut Cx<'_>, id: i32, place: Place) -> SysResult<(Arc<Key>, bool)> {
    let owner = Owner::of(cx);
    let kernel = Arc::clone(cx.kernel());
    let keys = &mut cx.owned.personal.keys;
    let own = |slot: &mut Option<Arc<Key>>, name: &[u8], perm: u32| match (&*slot, place) {
        (Some(ring), _) => Ok(Arc::clone(ring)),
        (None, Place::Existing) => Err(Errno::ENOKEY),
        (None, Place::Create) => Ok(Arc::clone(slot.insert(kernel.keys.ring(name, owner, perm)))),
    };
    let ring = match id {
        -1 => own(&mut keys.thread, b"_tid", OWN_RING)?,
        -2 => own(&mut keys.process, b"_pid", OWN_RING)?,
        -3 if keys.session.is_some() || place == Place::Create => {
            own(&mut keys.session, b"_ses", SESSION_RING)?
        }
        // Without a session of its own a task is in its user's.
        -3 | -5 => user_keys(cx).session,
        -4 => user_keys(cx).ring,
        // There is no request in whose name a task works.
        -7 | -8 => return Err(Errno::ENOKEY),
        1.. => {
            let key = kernel.keys.find(id)?;
            let possessed = possesses(cx, &key);
            return Ok((key, possessed));
        }
        _ => return Err(Errno::EINVAL),
    };
    Ok((ring, true))
}
