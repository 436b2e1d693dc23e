//! Extended attributes (xattr(7)).

use super::{base_location, place};
use crate::task::Cx;
use abi::{CallResult, DirFd, Errno, Fd, SysResult, UserAddr, UserCStr};
use vfs::XattrFlags;
use vfs::mount::Location;
use vfs::walk::Follow;

const NAME_MAX: usize = 255;
const SIZE_MAX: usize = 65536;

/// Whose attributes: looked for after the other arguments were copied in.
#[derive(Clone, Copy)]
enum Whose {
    Path(UserCStr, Follow),
    File(Fd),
}

impl Whose {
    fn find(self, cx: &Cx<'_>) -> CallResult<Location> {
        match self {
            Whose::Path(path, follow) => {
                let path = cx.path(path)?;
                place(cx, DirFd::Cwd, &path, 0, follow)
            }
            Whose::File(fd) => Ok(base_location(&cx.files().get_io(fd)?)),
        }
    }
}

fn name(cx: &Cx<'_>, name: UserCStr) -> SysResult<Vec<u8>> {
    match cx.mm().read_cstr(name, NAME_MAX + 1) {
        Ok(name) if name.is_empty() => Err(Errno::ERANGE),
        Err(Errno::ENAMETOOLONG) => Err(Errno::ERANGE),
        other => other,
    }
}

/// Copies a value or list out; a size of zero asks for the length.
fn give(cx: &Cx<'_>, bytes: &[u8], buf: UserAddr, size: usize) -> CallResult<usize> {
    if size != 0 {
        if bytes.len() > size {
            return Err(Errno::ERANGE.into());
        }
        cx.mm().write_bytes(buf, bytes)?;
    }
    Ok(bytes.len())
}

fn get(cx: &Cx<'_>, at: Whose, key: UserCStr, buf: UserAddr, size: usize) -> CallResult<usize> {
    let key = name(cx, key)?;
    let value = vfs::ops::get_xattr(&at.find(cx)?, &key, &cx.caller())?;
    give(cx, &value, buf, size)
}

fn set(cx: &Cx<'_>, at: Whose, key: UserCStr, value: UserAddr, size: usize, flags: u32) -> CallResult<()> {
    let flags = XattrFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let key = name(cx, key)?;
    if size > SIZE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let mut bytes = vec![0; size];
    cx.mm().read_bytes(value, &mut bytes)?;
    Ok(vfs::ops::set_xattr(&at.find(cx)?, &key, &bytes, flags, &cx.caller())?)
}

fn list(cx: &Cx<'_>, at: Whose, buf: UserAddr, size: usize) -> CallResult<usize> {
    let names = vfs::ops::list_xattr(&at.find(cx)?, &cx.caller())?;
    give(cx, &names, buf, size)
}

fn remove(cx: &Cx<'_>, at: Whose, key: UserCStr) -> CallResult<()> {
    let key = name(cx, key)?;
    Ok(vfs::ops::remove_xattr(&at.find(cx)?, &key, &cx.caller())?)
}

/// getxattr(2).
pub fn getxattr(
    cx: &mut Cx<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserAddr,
    size: usize,
) -> CallResult<usize> {
    get(cx, Whose::Path(path, Follow::Yes), name, value, size)
}
/// lgetxattr(2).
pub fn lgetxattr(
    cx: &mut Cx<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserAddr,
    size: usize,
) -> CallResult<usize> {
    get(cx, Whose::Path(path, Follow::No), name, value, size)
}
/// fgetxattr(2).
pub fn fgetxattr(cx: &mut Cx<'_>, fd: Fd, name: UserCStr, value: UserAddr, size: usize) -> CallResult<usize> {
    get(cx, Whose::File(fd), name, value, size)
}
/// setxattr(2).
pub fn setxattr(
    cx: &mut Cx<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> CallResult<()> {
    set(cx, Whose::Path(path, Follow::Yes), name, value, size, flags)
}
/// lsetxattr(2).
pub fn lsetxattr(
    cx: &mut Cx<'_>,
    path: UserCStr,
    name: UserCStr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> CallResult<()> {
    set(cx, Whose::Path(path, Follow::No), name, value, size, flags)
}
/// fsetxattr(2).
pub fn fsetxattr(
    cx: &mut Cx<'_>,
    fd: Fd,
    name: UserCStr,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> CallResult<()> {
    set(cx, Whose::File(fd), name, value, size, flags)
}
/// listxattr(2).
pub fn listxattr(cx: &mut Cx<'_>, path: UserCStr, buf: UserAddr, size: usize) -> CallResult<usize> {
    list(cx, Whose::Path(path, Follow::Yes), buf, size)
}
/// llistxattr(2).
pub fn llistxattr(cx: &mut Cx<'_>, path: UserCStr, buf: UserAddr, size: usize) -> CallResult<usize> {
    list(cx, Whose::Path(path, Follow::No), buf, size)
}
/// flistxattr(2).
pub fn flistxattr(cx: &mut Cx<'_>, fd: Fd, buf: UserAddr, size: usize) -> CallResult<usize> {
    list(cx, Whose::File(fd), buf, size)
}
/// removexattr(2).
pub fn removexattr(cx: &mut Cx<'_>, path: UserCStr, name: UserCStr) -> CallResult<()> {
    remove(cx, Whose::Path(path, Follow::Yes), name)
}
/// lremovexattr(2).
pub fn lremovexattr(cx: &mut Cx<'_>, path: UserCStr, name: UserCStr) -> CallResult<()> {
    remove(cx, Whose::Path(path, Follow::No), name)
}
/// fremovexattr(2).
pub fn fremovexattr(cx: &mut Cx<'_>, fd: Fd, name: UserCStr) -> CallResult<()> {
    remove(cx, Whose::File(fd), name)
}
