//! name_to_handle_at(2), open_by_handle_at(2).

use super::{AT_EMPTY_PATH, only};
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::{CallResult, DirFd, Errno, Fd, UserAddr, UserCStr, UserPtr};
use vfs::handle::{HANDLE_BYTES, HANDLE_TYPE};
use vfs::{Capabilities, Follow, Walk};

const MAX_HANDLE_SZ: u32 = 128;

/// `handle_bytes` and `handle_type` of a `struct file_handle`; the handle follows.
type Head = [u32; 2];
const HEAD_BYTES: u64 = 8;

/// name_to_handle_at(2).
pub fn name_to_handle_at(
    cx: &mut Cx<'_>,
    dirfd: DirFd,
    path: UserCStr,
    handle: UserPtr<Head>,
    mount_id: UserAddr,
    flags: u32,
) -> CallResult<()> {
    const SYMLINK_FOLLOW: u32 = super::AT_SYMLINK_FOLLOW;
    const HANDLE_FID: u32 = 0x200;
    const MNT_ID_UNIQUE: u32 = 1;
    only(flags, SYMLINK_FOLLOW | AT_EMPTY_PATH | HANDLE_FID | MNT_ID_UNIQUE)?;
    let path = cx.path(path)?;
    let follow = if flags & SYMLINK_FOLLOW != 0 { Follow::Yes } else { Follow::No };
    let at = super::place(cx, dirfd, &path, flags, follow)?;
    if !vfs::handle::supported(&at) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let [room, _] = cx.read(handle)?;
    if room > MAX_HANDLE_SZ {
        return Err(Errno::EINVAL.into());
    }
    let bytes = vfs::handle::give(&at, &cx.caller())?;
    let needed = u32::try_from(HANDLE_BYTES).map_err(|_| Errno::EOVERFLOW)?;
    let fits = room >= needed;
    let kind = if fits { HANDLE_TYPE } else { 0 };
    if fits {
        cx.mm().write_bytes(handle.addr().checked_add(HEAD_BYTES)?, &bytes)?;
    }
    if flags & MNT_ID_UNIQUE != 0 {
        cx.write(UserPtr::new(mount_id), &at.mount.unique_id)?;
    } else {
        cx.write(UserPtr::new(mount_id), &at.mount.id)?;
    }
    cx.write(handle, &[needed, kind.cast_unsigned()])?;
    if fits { Ok(()) } else { Err(Errno::EOVERFLOW.into()) }
}

/// open_by_handle_at(2).
pub fn open_by_handle_at(
    cx: &mut Cx<'_>,
    mount_fd: Fd,
    handle: UserPtr<Head>,
    flags: OpenFlags,
) -> CallResult<Fd> {
    const AT_FDCWD: i32 = -100;
    let mount = if mount_fd.number() == AT_FDCWD {
        cx.fs().snapshot().cwd.mount.clone()
    } else {
        super::base_location(&cx.files().get_io(mount_fd)?).mount
    };
    if !cx.cred().has_in(Capabilities::DAC_READ_SEARCH, &cx.kernel().root.user) {
        return Err(Errno::EPERM.into());
    }
    let [size, kind] = cx.read(handle)?;
    if size == 0 || size > MAX_HANDLE_SZ {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| Errno::EINVAL)?];
    cx.mm().read_bytes(handle.addr().checked_add(HEAD_BYTES)?, &mut bytes)?;
    if kind != HANDLE_TYPE.cast_unsigned() || bytes.len() != HANDLE_BYTES {
        return Err(Errno::ESTALE.into());
    }
    let fs = cx.fs().snapshot();
    let file = {
        let by = cx.caller();
        let at = vfs::handle::find(&bytes, &mount, &by)?;
        vfs::ops::open_location(&Walk::new(&fs, &by), at, flags)?
    };
    super::open::install(cx, file, flags)
}
