//! mount(2), umount2(2), pivot_root(2).

use super::walk_at;
use crate::task::Cx;
use abi::{CallResult, DirFd, Errno, SysResult, UserAddr, UserCStr};
use vfs::Follow;
use vfs::mount_ops::{self, MountCall, UmountFlags};

/// A string argument that may be NULL.
fn text(cx: &Cx<'_>, ptr: UserCStr) -> SysResult<Vec<u8>> {
    if ptr.addr().is_null() { Ok(Vec::new()) } else { cx.path(ptr) }
}

/// mount(2).
pub fn mount(
    cx: &mut Cx<'_>,
    source: UserCStr,
    target: UserCStr,
    kind: UserCStr,
    flags: u64,
    data: UserAddr,
) -> CallResult<()> {
    const MAGIC: u64 = 0xc0ed_0000;
    const MOST_FLAGS: u64 = 0x7fff_ffff;
    let flags = if flags & 0xffff_0000 == MAGIC { flags & 0xffff } else { flags };
    let call = MountCall::from_bits_truncate(u32::try_from(flags & 0xffff_ffff).unwrap_or(0));
    let kind = text(cx, kind)?;
    let source = text(cx, source)?;
    // One page of options at most; what lies behind an unmapped boundary is not there.
    let options = if data.is_null() { Vec::new() } else { cx.path(UserCStr::new(data))? };
    let target = cx.path(target)?;
    walk_at(cx, DirFd::Cwd, &target, |walk| {
        if flags > MOST_FLAGS {
            // MS_NOUSER and beyond: the kernel's own, said once the target is there.
            walk.find(&target, Follow::Yes)?;
            return Err(Errno::EINVAL.into());
        }
        Ok(mount_ops::mount(walk, &source, &target, &kind, call, &options)?)
    })
}

/// umount2(2).
pub fn umount2(cx: &mut Cx<'_>, target: UserCStr, flags: u32) -> CallResult<()> {
    let flags = UmountFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let target = cx.path(target)?;
    walk_at(cx, DirFd::Cwd, &target, |walk| Ok(mount_ops::umount(walk, &target, flags)?))
}

/// pivot_root(2): every process whose root or working directory was the old root follows.
pub fn pivot_root(cx: &mut Cx<'_>, new_root: UserCStr, put_old: UserCStr) -> CallResult<()> {
    let new_root = cx.path(new_root)?;
    let put_old = cx.path(put_old)?;
    let pivot =
        walk_at(cx, DirFd::Cwd, &new_root, |walk| Ok(mount_ops::pivot_root(walk, &new_root, &put_old)?))?;
    for context in cx.kernel().fs_contexts() {
        context.update(|fs| mount_ops::follow_pivot(fs, &pivot));
    }
    Ok(())
}
