//! File handles (name_to_handle_at(2), open_by_handle_at(2)): device and inode number, good as long as the inode
//! is in memory and has a name. On tmpfs that is all its life.

use crate::caller::Caller;
use crate::dentry::Dentry;
use crate::inode::Inode;
use crate::inode_state::InodeKey;
use crate::mount::{Location, Mount};
use crate::remote::RemoteFs;
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// Bytes of a handle.
pub const HANDLE_BYTES: usize = 16;
/// What marks the handles of this kernel (`handle_type`).
pub const HANDLE_TYPE: i32 = 0x71;

struct Known {
    inode: Weak<dyn Inode>,
    dentry: Weak<Dentry>,
}

static GIVEN: Ranked<order::Leaf, Option<HashMap<InodeKey, Known>>> = Ranked::new(None);

/// Whether a file system gives handles that can be opened.
#[must_use]
pub fn supported(at: &Location) -> bool {
    let fs = &at.mount.sb.fs;
    matches!(fs.name(), "tmpfs" | "ramfs" | "devtmpfs") || fs.as_any().is::<RemoteFs>()
}

/// The handle of a place. `EOPNOTSUPP` where its file system has none.
pub fn give(at: &Location, by: &Caller<'_>) -> SysResult<[u8; HANDLE_BYTES]> {
    if !supported(at) {
        return Err(Errno::EOPNOTSUPP);
    }
    let inode = at.inode()?;
    let key = at.dentry.key(Some(by)).ok_or(Errno::EIO)?;
    let known = Known { inode: Arc::downgrade(inode), dentry: Arc::downgrade(&at.dentry) };
    let mut given = GIVEN.lock();
    let map = given.get_or_insert_default();
    if map.len() >= 64 && map.len().is_power_of_two() {
        map.retain(|_, known| known.inode.strong_count() > 0);
    }
    let old = map.insert(key, known);
    drop(given);
    drop(old);
    let mut out = [0; HANDLE_BYTES];
    let (dev, ino) = out.split_at_mut(8);
    dev.copy_from_slice(&key.0.to_ne_bytes());
    ino.copy_from_slice(&key.1.to_ne_bytes());
    Ok(out)
}

/// The place that a handle names, on a mount of its file system. `ESTALE`.
pub fn find(handle: &[u8], mount: &Arc<Mount>, by: &Caller<'_>) -> SysResult<Location> {
    let (dev, ino) = handle.split_at_checked(8).ok_or(Errno::ESTALE)?;
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_ne_bytes).map_err(|_| Errno::ESTALE);
    let key = (number(dev)?, number(ino)?);
    if key.0 != mount.sb.fs.dev() {
        return Err(Errno::ESTALE);
    }
    let (inode, dentry) = {
        let given = GIVEN.lock();
        let known = given.as_ref().and_then(|map| map.get(&key)).ok_or(Errno::ESTALE)?;
        (known.inode.upgrade(), known.dentry.upgrade())
    };
    let inode = inode.ok_or(Errno::ESTALE)?;
    // Two containers' exports may lie on one device: a handle opens only what this mount reaches.
    let fs = inode.fs();
    if fs.as_any().is::<RemoteFs>() && !std::ptr::addr_eq(Arc::as_ptr(&fs), Arc::as_ptr(&mount.sb.fs)) {
        return Err(Errno::ESTALE);
    }
    if inode.attr(by)?.nlink == 0 {
        return Err(Errno::ESTALE);
    }
    let dentry = dentry.filter(|dentry| !dentry.is_dead());
    let dentry = dentry.unwrap_or_else(|| Dentry::root(inode, mount.sb.id, b""));
    Ok(Location { mount: Arc::clone(mount), dentry })
}
