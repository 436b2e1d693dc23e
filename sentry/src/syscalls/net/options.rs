//! getsockopt(2), setsockopt(2).

use super::file;
use crate::task::Cx;
use abi::{CallResult, Errno, Fd, UserAddr, UserPtr};
use net::socket as sockets;

const LONGEST: usize = 65536;

/// getsockopt(2): the value is cut to the caller's buffer.
pub fn getsockopt(
    cx: &mut Cx<'_>,
    fd: Fd,
    level: i32,
    name: i32,
    value: UserAddr,
    len: UserPtr<i32>,
) -> CallResult<()> {
    let file = file(cx, fd)?;
    let socket = sockets::of(&file)?;
    let room = usize::try_from(cx.read(len)?).map_err(|_| Errno::EINVAL)?;
    let bytes = socket.get_option(level, name, &cx.caller())?;
    let cut = bytes.get(..room).unwrap_or(&bytes);
    cx.mm().write_bytes(value, cut)?;
    Ok(cx.write(len, &i32::try_from(cut.len()).unwrap_or(0))?)
}

/// setsockopt(2).
pub fn setsockopt(
    cx: &mut Cx<'_>,
    fd: Fd,
    level: i32,
    name: i32,
    value: UserAddr,
    len: i32,
) -> CallResult<()> {
    let file = file(cx, fd)?;
    let socket = sockets::of(&file)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if len > LONGEST {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; len];
    cx.mm().read_bytes(value, &mut bytes)?;
    Ok(socket.set_option(level, name, &bytes, &cx.caller())?)
}
