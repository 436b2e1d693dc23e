//! statmount(2), listmount(2).

use super::only;
use crate::task::Cx;
use abi::{CallResult, Errno, SysResult, UserAddr, UserPtr};
use std::sync::Arc;
use vfs::{Capabilities, FsContext, Location, Mount, MountFlags, path};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// `struct mnt_id_req`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MntIdReq {
    size: u32,
    spare: u32,
    id: u64,
    param: u64,
}

/// `struct statmount` without its text.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct StatMount {
    size: u32,
    mnt_opts: u32,
    mask: u64,
    sb_dev_major: u32,
    sb_dev_minor: u32,
    sb_magic: u64,
    sb_flags: u32,
    fs_type: u32,
    mnt_id: u64,
    mnt_parent_id: u64,
    mnt_id_old: u32,
    mnt_parent_id_old: u32,
    mnt_attr: u64,
    mnt_propagation: u64,
    mnt_peer_group: u64,
    mnt_master: u64,
    propagate_from: u64,
    mnt_root: u32,
    mnt_point: u32,
    mnt_ns_id: u64,
    spare: [u64; 49],
}

const SB_BASIC: u64 = 1;
const MNT_BASIC: u64 = 2;
const PROPAGATE_FROM: u64 = 4;
const MNT_ROOT: u64 = 8;
const MNT_POINT: u64 = 0x10;
const FS_TYPE: u64 = 0x20;
const MNT_NS_ID: u64 = 0x40;
const MNT_OPTS: u64 = 0x80;
/// `LSMT_ROOT`.
const LSMT_ROOT: u64 = u64::MAX;

fn request(cx: &Cx<'_>, at: UserPtr<MntIdReq>) -> SysResult<MntIdReq> {
    const KNOWN: u32 = 24;
    const WITH_NAMESPACE: u32 = 32;
    let size: u32 = cx.read(UserPtr::new(at.addr()))?;
    if size < KNOWN {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let req = cx.read(at)?;
    // Ids are unique for ever and lie above those that are used again.
    if req.spare != 0 || req.id <= 1 << 31 {
        return Err(Errno::EINVAL);
    }
    if size >= WITH_NAMESPACE {
        let mut tail = vec![0; usize::try_from(size - KNOWN).map_err(|_| Errno::E2BIG)?];
        cx.mm().read_bytes(at.addr().checked_add(u64::from(KNOWN))?, &mut tail)?;
        let own = cx.fs().snapshot().ns.ino.to_ne_bytes();
        let (ns, rest) = tail.split_at_checked(8).ok_or(Errno::EINVAL)?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(Errno::E2BIG);
        }
        if ns != own && ns.iter().any(|byte| *byte != 0) {
            // Only the caller's own namespace is looked into.
            return Err(Errno::ENOENT);
        }
    }
    Ok(req)
}

fn find(fs: &FsContext, id: u64) -> SysResult<Arc<Mount>> {
    fs.ns.mounts().into_iter().find(|mount| mount.unique_id == id).ok_or(Errno::ENOENT)
}

/// `EPERM` for a mount outside the caller's root, unless it may administer the namespace.
fn may_see(cx: &Cx<'_>, fs: &FsContext, mount: &Arc<Mount>) -> SysResult<()> {
    let seen = path::is_below(&Location::root_of(mount), &fs.root);
    if seen || cx.cred().has_in(Capabilities::SYS_ADMIN, &fs.ns.user_ns) { Ok(()) } else { Err(Errno::EPERM) }
}

fn attr_of(flags: MountFlags) -> u64 {
    let mut attr = 0;
    for (flag, bit) in [
        (MountFlags::RDONLY, 1),
        (MountFlags::NOSUID, 2),
        (MountFlags::NODEV, 4),
        (MountFlags::NOEXEC, 8),
        (MountFlags::NODIRATIME, 0x80),
        (MountFlags::NOSYMFOLLOW, 0x20_0000),
    ] {
        if flags.contains(flag) {
            attr |= bit;
        }
    }
    if flags.contains(MountFlags::NOATIME) {
        attr |= 0x10;
    } else if !flags.contains(MountFlags::RELATIME) {
        attr |= 0x20;
    }
    attr
}

/// statmount(2).
pub fn statmount(
    cx: &mut Cx<'_>,
    req: UserPtr<MntIdReq>,
    buf: UserAddr,
    size: usize,
    flags: u32,
) -> CallResult<()> {
    only(flags, 0)?;
    let req = request(cx, req)?;
    let fs = cx.fs().snapshot();
    let mount = find(&fs, req.id)?;
    may_see(cx, &fs, &mount)?;
    let mut text: Vec<u8> = Vec::new();
    let mut add = |bytes: &[u8]| -> SysResult<u32> {
        let at = u32::try_from(text.len()).map_err(|_| Errno::EOVERFLOW)?;
        text.extend_from_slice(bytes);
        text.push(0);
        Ok(at)
    };
    let mut out = StatMount::new_zeroed();
    let sb = &mount.sb;
    if req.param & SB_BASIC != 0 {
        out.mask |= SB_BASIC;
        let dev = sb.fs.dev();
        out.sb_dev_major = vfs::vfs::major(dev);
        out.sb_dev_minor = vfs::vfs::minor(dev);
        out.sb_magic = sb.fs.statfs(&cx.caller())?.magic;
        out.sb_flags = u32::from(sb.read_only.load(std::sync::atomic::Ordering::Acquire));
    }
    if req.param & MNT_BASIC != 0 {
        out.mask |= MNT_BASIC;
        let parent = mount.above().map(|(parent, _)| parent);
        out.mnt_id = mount.unique_id;
        out.mnt_parent_id = parent.as_ref().map_or(mount.unique_id, |parent| parent.unique_id);
        out.mnt_id_old = mount.id;
        out.mnt_parent_id_old = parent.as_ref().map_or(mount.id, |parent| parent.id);
        out.mnt_attr = attr_of(mount.flags());
        let (group, master) = (mount.group(), mount.master());
        out.mnt_propagation = if group.is_some() { 0x10_0000 } else { 0 }
            | if master.is_some() { 0x8_0000 } else { 0 }
            | if mount.is_unbindable() { 0x2_0000 } else { 0 };
        if out.mnt_propagation == 0 {
            out.mnt_propagation = 0x4_0000;
        }
        out.mnt_peer_group = group.map_or(0, |group| u64::from(group.id));
        out.mnt_master = master.map_or(0, |group| u64::from(group.id));
    }
    if req.param & PROPAGATE_FROM != 0 {
        out.mask |= PROPAGATE_FROM;
    }
    if req.param & MNT_ROOT != 0 {
        out.mask |= MNT_ROOT;
        out.mnt_root = add(&path::root_field(&mount))?;
    }
    if req.param & MNT_POINT != 0 {
        let shown = path::show(&Location::root_of(&mount), &fs.root);
        out.mask |= MNT_POINT;
        out.mnt_point = add(if shown.reachable { &shown.text } else { b"" })?;
    }
    if req.param & FS_TYPE != 0 {
        out.mask |= FS_TYPE;
        out.fs_type = add(sb.fs.name().as_bytes())?;
    }
    if req.param & MNT_NS_ID != 0 {
        out.mask |= MNT_NS_ID;
        out.mnt_ns_id = fs.ns.ino;
    }
    if req.param & MNT_OPTS != 0 {
        let options = sb.fs.options();
        if !options.is_empty() {
            out.mask |= MNT_OPTS;
            out.mnt_opts = add(options.trim_start_matches(',').as_bytes())?;
        }
    }
    let whole = size_of::<StatMount>() + text.len();
    out.size = u32::try_from(whole).map_err(|_| Errno::EOVERFLOW)?;
    if !text.is_empty() && size < whole {
        return Err(Errno::EOVERFLOW.into());
    }
    let head = out.as_bytes();
    cx.mm().write_bytes(buf, head.get(..size).unwrap_or(head))?;
    if !text.is_empty() {
        let behind = u64::try_from(head.len()).map_err(|_| Errno::EOVERFLOW)?;
        cx.mm().write_bytes(buf.checked_add(behind)?, &text)?;
    }
    Ok(())
}

/// listmount(2): the mounts below one, by their unique ids.
pub fn listmount(
    cx: &mut Cx<'_>,
    req: UserPtr<MntIdReq>,
    out: UserPtr<u64>,
    count: usize,
    flags: u32,
) -> CallResult<usize> {
    const REVERSE: u32 = 1;
    const MOST: usize = 1_000_000;
    only(flags, REVERSE)?;
    if count > MOST {
        return Err(Errno::EOVERFLOW.into());
    }
    let req = request(cx, req)?;
    if req.param != 0 && req.param <= 1 << 31 {
        return Err(Errno::EINVAL.into());
    }
    let fs = cx.fs().snapshot();
    let (top, skip) = if req.id == LSMT_ROOT {
        (fs.root.clone(), None)
    } else {
        let mount = find(&fs, req.id)?;
        (Location::root_of(&mount), Some(mount))
    };
    may_see(cx, &fs, &top.mount)?;
    let mut ids: Vec<u64> = fs
        .ns
        .mounts()
        .iter()
        .filter(|mount| !skip.as_ref().is_some_and(|skip| Arc::ptr_eq(skip, mount)))
        .filter(|mount| path::is_below(&Location::root_of(mount), &top))
        .map(|mount| mount.unique_id)
        .collect();
    if flags & REVERSE != 0 {
        ids.reverse();
        ids.retain(|id| req.param == 0 || *id < req.param);
    } else {
        ids.retain(|id| *id > req.param);
    }
    ids.truncate(count);
    cx.mm().write_bytes(out.addr(), ids.as_bytes())?;
    Ok(ids.len())
}
