//! Capabilities over execve(2): those of files (`security.capability`), of root, and ambient ones
//! (capabilities(7), "Transformation of capabilities during execve()").

use crate::loader::Executable;
use abi::{Errno, SysResult};
use vfs::{Caller, Capabilities, Credentials, Kuid};

/// `struct vfs_cap_data` of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FileCaps {
    permitted: Capabilities,
    inheritable: Capabilities,
    effective: bool,
}

const REVISION: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const EFFECTIVE: u32 = 1;

/// The attribute's bytes, and the user id (in the file system's ids) of the root it is for.
fn parse(bytes: &[u8]) -> Option<(FileCaps, u32)> {
    let word = |at: usize| -> Option<u32> {
        let part = bytes.get(at * 4..at * 4 + 4)?;
        Some(u32::from_le_bytes(part.try_into().ok()?))
    };
    let magic = word(0)?;
    let root = match (magic & REVISION, bytes.len()) {
        (REVISION_2, 20) => 0,
        (REVISION_3, 24) => word(5)?,
        _ => return None,
    };
    let set = |low: usize| -> Option<Capabilities> {
        let bits = u64::from(word(low)?) | u64::from(word(low + 2)?) << 32;
        Some(Capabilities::from_bits_truncate(bits))
    };
    let caps = FileCaps { permitted: set(1)?, inheritable: set(2)?, effective: magic & EFFECTIVE != 0 };
    Some((caps, root))
}

/// The capabilities of a program that count for the caller.
pub(super) fn of_file(file: &Executable, by: &Caller<'_>) -> Option<FileCaps> {
    let bytes = file.location.inode().ok()?.get_xattr(b"security.capability", by).ok()?;
    let (caps, root) = parse(&bytes)?;
    // Root of the caller's user namespace, or of one above it.
    let mut above = Some(&by.cred.user_ns);
    while let Some(ns) = above {
        if ns.maps_uid(Kuid(root)) && ns.show_uid(Kuid(root)) == 0 {
            return Some(caps);
        }
        above = ns.parent.as_ref();
    }
    None
}

/// Whether a program may gain what its file offers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Gain {
    /// Yes.
    Allowed,
    /// Not with no_new_privs, or when it is traced.
    Refused,
}

/// Sets `new.caps`; the ids of `new` are set. `EPERM` when the file insists on capabilities that it cannot get.
pub(super) fn transform(
    old: &Credentials,
    new: &mut Credentials,
    file: Option<FileCaps>,
    gain: Gain,
) -> SysResult<()> {
    let changed = new.euid != old.euid || new.egid != old.egid;
    let is_root = |uid: Kuid| new.user_ns.maps_uid(uid) && new.user_ns.show_uid(uid) == 0;
    let (euid_root, uid_root) = (is_root(new.euid), is_root(new.uid));
    let root_counts = old.securebits & crate::cred::SECBIT_NOROOT == 0;
    // A set-user-id-root program with capabilities of its own gets those alone.
    let alone = file.is_some() && euid_root && !uid_root;
    let (mut permitted, mut effective) = (Capabilities::empty(), false);
    if let Some(file) = file {
        permitted = (new.caps.inheritable & file.inheritable) | (file.permitted & new.caps.bounding);
        effective = file.effective;
        if effective && !permitted.contains(file.permitted) {
            return Err(Errno::EPERM);
        }
    }
    if root_counts && !alone {
        if euid_root || uid_root {
            permitted = new.caps.inheritable | new.caps.bounding;
        }
        effective |= euid_root;
    }
    if file.is_some() || changed {
        new.caps.ambient = Capabilities::empty();
    }
    permitted |= new.caps.ambient;
    if gain == Gain::Refused {
        permitted &= old.caps.permitted;
    }
    new.caps.permitted = permitted;
    new.caps.effective = if effective { permitted } else { new.caps.ambient };
    Ok(())
}

/// Whether the program gained capabilities by its file or its set-id bits (AT_SECURE).
pub(super) fn is_secure(new: &Credentials, file: Option<FileCaps>, changed: bool) -> bool {
    let is_root = new.user_ns.maps_uid(new.uid) && new.user_ns.show_uid(new.uid) == 0;
    let beyond = !(new.caps.permitted - new.caps.ambient).is_empty();
    let offered = file.is_some_and(|file| file.effective);
    !is_root && (offered || ((changed || file.is_some()) && beyond))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read() {
        let mut bytes = Vec::new();
        for word in [REVISION_2 | EFFECTIVE, 1 << 13, 0, 0, 1] {
            bytes.extend_from_slice(&u32::to_le_bytes(word));
        }
        let (caps, root) = parse(&bytes).unwrap();
        assert_eq!(root, 0);
        assert_eq!(caps.permitted, Capabilities::NET_RAW);
        assert!(caps.effective);
        bytes.push(0);
        assert_eq!(parse(&bytes), None);
    }

    #[test]
    fn an_ordinary_user_gains_what_the_file_gives() {
        let ns = vfs::UserNamespace::initial(1);
        let mut old = Credentials::root(ns);
        (old.uid, old.euid, old.suid) = (Kuid(1000), Kuid(1000), Kuid(1000));
        (old.caps.permitted, old.caps.effective) = (Capabilities::empty(), Capabilities::empty());
        let file = FileCaps {
            permitted: Capabilities::NET_RAW,
            inheritable: Capabilities::empty(),
            effective: true,
        };
        let mut new = old.clone();
        transform(&old, &mut new, Some(file), Gain::Allowed).unwrap();
        assert_eq!(new.caps.effective, Capabilities::NET_RAW);
        assert!(is_secure(&new, Some(file), false));
        let mut new = old.clone();
        transform(&old, &mut new, Some(file), Gain::Refused).unwrap();
        assert!(new.caps.permitted.is_empty());
        let mut bounded = old.clone();
        bounded.caps.bounding = Capabilities::empty();
        let mut new = bounded.clone();
        assert_eq!(transform(&bounded, &mut new, Some(file), Gain::Allowed), Err(Errno::EPERM));
    }
}
