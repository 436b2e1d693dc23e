//! execve(2), execveat(2).

use crate::loader::{self, MAX_ARG_STRLEN};
use crate::task::Cx;
use crate::task::exec::{ExecRequest, exec};
use abi::{CallResult, DirFd, Errno, SysResult, UserAddr, UserCStr, UserPtr};
use vfs::{Follow, Walk};

const AT_EMPTY_PATH: u32 = 0x1000;
const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
/// Bytes of all strings at most, before the limits of the process are known to allow them.
const MOST: usize = 8 << 20;

/// execve(2).
pub fn execve(cx: &mut Cx<'_>, path: UserCStr, argv: UserPtr<u64>, envp: UserPtr<u64>) -> CallResult<()> {
    execveat(cx, DirFd::Cwd, path, argv, envp, 0)
}

/// execveat(2).
pub fn execveat(
    cx: &mut Cx<'_>,
    dirfd: DirFd,
    path: UserCStr,
    argv: UserPtr<u64>,
    envp: UserPtr<u64>,
    flags: u32,
) -> CallResult<()> {
    let path = cx.path(path)?;
    if path.is_empty() && flags & AT_EMPTY_PATH == 0 {
        return Err(Errno::ENOENT.into());
    }
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let follow = if flags & AT_SYMLINK_NOFOLLOW == 0 { Follow::Yes } else { Follow::No };
    let (file, name) = open(cx, dirfd, &path, follow)?;
    let argv = strings(cx, argv)?;
    let envp = strings(cx, envp)?;
    exec(cx, ExecRequest { file, name, argv, envp })
}

fn open(cx: &Cx<'_>, dirfd: DirFd, path: &[u8], follow: Follow) -> SysResult<(loader::Executable, Vec<u8>)> {
    let fs = cx.fs().snapshot();
    let by = cx.caller();
    let base = match dirfd {
        DirFd::At(fd) if path.first() != Some(&b'/') => Some((fd, cx.files().get(fd)?)),
        _ => None,
    };
    let Some((fd, base)) = base else {
        return Ok((loader::open(&Walk::new(&fs, &by), path, follow)?, path.to_vec()));
    };
    let location = crate::syscalls::fs::base_location(&base);
    if path.is_empty() {
        return Ok((loader::open_location(location, &by)?, format!("/dev/fd/{fd}").into_bytes()));
    }
    if !location.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let walk = Walk::new(&fs, &by).at(Some(&location));
    let mut name = format!("/dev/fd/{fd}/").into_bytes();
    name.extend_from_slice(path);
    Ok((loader::open(&walk, path, follow)?, name))
}

/// A NULL-terminated array of strings; NULL itself is an empty one, as in Linux.
fn strings(cx: &Cx<'_>, array: UserPtr<u64>) -> SysResult<Vec<Vec<u8>>> {
    let mut list = Vec::new();
    if array.is_null() {
        return Ok(list);
    }
    let mut total = 0_usize;
    for index in 0.. {
        let pointer: u64 = cx.read(array.index(index)?)?;
        if pointer == 0 {
            break;
        }
        let text = cx.mm().read_cstr(UserCStr::new(UserAddr::new(pointer)), MAX_ARG_STRLEN);
        let text = text.map_err(|errno| if errno == Errno::ENAMETOOLONG { Errno::E2BIG } else { errno })?;
        total = total.saturating_add(text.len()).saturating_add(9);
        if total > MOST {
            return Err(Errno::E2BIG);
        }
        list.push(text);
    }
    Ok(list)
}
