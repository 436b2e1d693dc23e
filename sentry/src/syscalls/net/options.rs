//! getsockopt(2), setsockopt(2).

use super::file;
use crate::files::OnExec;
use crate::task::Cx;
use abi::{CallResult, Errno, Fd, SysResult, UserAddr, UserPtr};
use net::socket as sockets;
use net::unix::UnixSocket;

const LONGEST: usize = 65536;
const SOL_SOCKET: i32 = 1;
const SO_ATTACH_FILTER: i32 = 26;
const SO_PEERPIDFD: i32 = 77;
const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;
/// `sizeof(struct sock_filter)`.
const INSN: usize = 8;

/// The instructions that a `struct sock_fprog` points to.
fn fetch_program(cx: &Cx<'_>, program: &[u8]) -> SysResult<Vec<u8>> {
    let [l0, l1, _, _, _, _, _, _, pointer @ ..] = program else { return Err(Errno::EINVAL) };
    let pointer: [u8; 8] = pointer.try_into().map_err(|_| Errno::EINVAL)?;
    let len = usize::from(u16::from_ne_bytes([*l0, *l1]));
    if len == 0 || len > 4096 {
        return Err(Errno::EINVAL);
    }
    let mut insns = vec![0; len * INSN];
    cx.mm().read_bytes(UserAddr::new(u64::from_ne_bytes(pointer)), &mut insns)?;
    Ok(insns)
}

/// SO_GET_FILTER counts in instructions: how many there are, and room for all or none.
fn get_filter(
    cx: &Cx<'_>,
    socket: &sockets::SocketFile,
    room: usize,
    value: UserAddr,
    len: UserPtr<i32>,
) -> CallResult<()> {
    let bytes = socket.get_option(SOL_SOCKET, SO_ATTACH_FILTER, room, &cx.caller())?;
    let count = bytes.len() / INSN;
    if room != 0 {
        if room < count {
            return Err(Errno::EINVAL.into());
        }
        cx.mm().write_bytes(value, &bytes)?;
    }
    Ok(cx.write(len, &i32::try_from(count).unwrap_or(0))?)
}

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
    let asked: i32 = cx.read(len)?;
    if asked < 0 && level != SOL_SOCKET && !socket.knows_level(level) {
        // The level is looked at before the length.
        socket.get_option(level, name, 0, &cx.caller())?;
    }
    let room = usize::try_from(asked).map_err(|_| Errno::EINVAL)?;
    if (level, name) == (SOL_SOCKET, SO_ATTACH_FILTER) {
        return get_filter(cx, socket, room, value, len);
    }
    if (level, name) == (SOL_SOCKET, SO_PEERPIDFD)
        && let Some(unix) = socket.socket().as_any().downcast_ref::<UnixSocket>()
    {
        let pid = unix.peer_pid().ok_or(Errno::ENODATA)?;
        let limit = cx.nofile();
        let fd = cx.files().install(super::process_file(cx, pid)?, OnExec::Close, 0, limit)?;
        let bytes = fd.number().to_ne_bytes();
        cx.mm().write_bytes(value, bytes.get(..room).unwrap_or(&bytes))?;
        return Ok(cx.write(len, &i32::try_from(room.min(bytes.len())).unwrap_or(0))?);
    }
    let bytes = socket.get_option(level, name, room, &cx.caller())?;
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
    if level != SOL_SOCKET && !socket.knows_level(level) {
        // Nothing is copied for a level that is not there.
        return Ok(socket.set_option(level, name, &[], &cx.caller())?);
    }
    let mut bytes = vec![0; len];
    cx.mm().read_bytes(value, &mut bytes)?;
    if level == SOL_SOCKET && matches!(name, SO_ATTACH_FILTER | SO_ATTACH_REUSEPORT_CBPF) {
        bytes = fetch_program(cx, &bytes)?;
    }
    Ok(socket.set_option(level, name, &bytes, &cx.caller())?)
}
