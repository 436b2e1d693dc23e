//! socket(2), bind(2), listen(2), accept(2), connect(2), shutdown(2), names.

use super::{address, file, make_node, resolve, store_address};
use crate::syscalls::fs::open::install;
use crate::task::Cx;
use abi::fs::OpenFlags;
use abi::{CallResult, Errno, Fd, SysResult, UserAddr, UserPtr};
use net::socket as sockets;
use net::types::Shutdown;
use vfs::OpenFile;
use vfs::landlock::{self, NetRight};

const SOCK_TYPE: i32 = 0xf;

/// SOCK_NONBLOCK and SOCK_CLOEXEC are O_NONBLOCK and O_CLOEXEC.
fn split(kind: i32) -> SysResult<(i32, OpenFlags)> {
    let flags = OpenFlags::from_bits_retain((kind & !SOCK_TYPE).cast_unsigned());
    if (OpenFlags::NONBLOCK | OpenFlags::CLOEXEC).contains(flags) {
        Ok((kind & SOCK_TYPE, flags))
    } else {
        Err(Errno::EINVAL)
    }
}

/// What every kernel says of numbers that are no family, or no type.
fn check_family(domain: i32, kind: i32) -> SysResult<()> {
    const FAMILIES: i32 = 46;
    const TYPES: i32 = 11;
    if !(0..FAMILIES).contains(&domain) {
        return Err(Errno::EAFNOSUPPORT);
    }
    if !(0..TYPES).contains(&kind) {
        return Err(Errno::EINVAL);
    }
    // AF_UNSPEC and those that are not built in: said before the type is looked at.
    if matches!(domain, 0 | 3..=9 | 11..=14) { Err(Errno::EAFNOSUPPORT) } else { Ok(()) }
}

/// socket(2).
pub fn socket(cx: &mut Cx<'_>, domain: i32, kind: i32, protocol: i32) -> CallResult<Fd> {
    let (kind, flags) = split(kind)?;
    check_family(domain, kind)?;
    let file = net::create(&cx.owned.ns.net, domain, kind, protocol, flags, &cx.caller())?;
    install(cx, file, flags)
}

/// socketpair(2).
pub fn socketpair(
    cx: &mut Cx<'_>,
    domain: i32,
    kind: i32,
    protocol: i32,
    out: UserPtr<[i32; 2]>,
) -> CallResult<()> {
    let (kind, flags) = split(kind)?;
    // The numbers must have a place before anything is made.
    let before = cx.read(out)?;
    cx.write(out, &before)?;
    check_family(domain, kind)?;
    let (a, b) = net::create_pair(&cx.owned.ns.net, domain, kind, protocol, flags, &cx.caller())?;
    let first = install(cx, a, flags)?;
    let second = install(cx, b, flags).inspect_err(|_| {
        let _ = cx.files().close(first);
    })?;
    if let Err(error) = cx.write(out, &[first.number(), second.number()]) {
        let _ = cx.files().close(first);
        let _ = cx.files().close(second);
        return Err(error.into());
    }
    Ok(())
}

/// bind(2).
pub fn bind(cx: &mut Cx<'_>, fd: Fd, addr: UserAddr, len: u32) -> CallResult<()> {
    let file = file(cx, fd)?;
    let socket = sockets::of(&file)?.socket();
    let addr = address(cx, addr, len)?;
    check_port(cx, &file, &addr.to_bytes(), NetRight::BIND_TCP)?;
    if addr.path().is_none() {
        return Ok(socket.bind(&addr, &cx.caller())?);
    }
    if socket.base().domain != net::types::AF_UNIX {
        return Err(Errno::EAFNOSUPPORT.into());
    }
    let path = addr.path().map(<[u8]>::to_vec).unwrap_or_default();
    let addr = make_node(cx, addr)?;
    if let Err(error) = socket.bind(&addr, &cx.caller()) {
        // The name was made for nothing.
        let _ = crate::syscalls::fs::walk_at(cx, abi::DirFd::Cwd, &path, |walk| {
            Ok(vfs::ops::unlink(walk, &path)?)
        });
        return Err(error.into());
    }
    Ok(())
}

/// listen(2).
pub fn listen(cx: &mut Cx<'_>, fd: Fd, backlog: i32) -> CallResult<()> {
    let file = file(cx, fd)?;
    Ok(sockets::of(&file)?.socket().listen(backlog, &cx.caller())?)
}

/// accept(2).
pub fn accept(cx: &mut Cx<'_>, fd: Fd, addr: UserAddr, len: UserPtr<i32>) -> CallResult<Fd> {
    accept4(cx, fd, addr, len, OpenFlags::empty())
}

/// accept4(2).
pub fn accept4(
    cx: &mut Cx<'_>,
    fd: Fd,
    addr: UserAddr,
    len: UserPtr<i32>,
    flags: OpenFlags,
) -> CallResult<Fd> {
    let file = file(cx, fd)?;
    if !(OpenFlags::NONBLOCK | OpenFlags::CLOEXEC).contains(flags) {
        return Err(Errno::EINVAL.into());
    }
    let (made, peer) = sockets::of(&file)?.accept(&file, flags, &cx.caller())?;
    let fd = install(cx, made, flags)?;
    if !addr.is_null()
        && let Err(error) = store_address(cx, addr, len, &peer.to_bytes())
    {
        let _ = cx.files().close(fd);
        return Err(error.into());
    }
    Ok(fd)
}

/// connect(2).
pub fn connect(cx: &mut Cx<'_>, fd: Fd, addr: UserAddr, len: u32) -> CallResult<()> {
    let file = file(cx, fd)?;
    let socket = sockets::of(&file)?;
    let addr = resolve(cx, address(cx, addr, len)?)?;
    check_port(cx, &file, &addr.to_bytes(), NetRight::CONNECT_TCP)?;
    socket.connect(&file, &addr, &cx.caller())
}

/// shutdown(2).
pub fn shutdown(cx: &mut Cx<'_>, fd: Fd, how: i32) -> CallResult<()> {
    let file = file(cx, fd)?;
    let socket = sockets::of(&file)?.socket();
    Ok(socket.shutdown(Shutdown::from_raw(how)?)?)
}

/// getsockname(2).
pub fn getsockname(cx: &mut Cx<'_>, fd: Fd, addr: UserAddr, len: UserPtr<i32>) -> CallResult<()> {
    let file = file(cx, fd)?;
    let name = sockets::of(&file)?.socket().local_addr()?;
    Ok(store_address(cx, addr, len, &name.to_bytes())?)
}

/// getpeername(2).
pub fn getpeername(cx: &mut Cx<'_>, fd: Fd, addr: UserAddr, len: UserPtr<i32>) -> CallResult<()> {
    let file = file(cx, fd)?;
    let name = sockets::of(&file)?.socket().peer_addr()?;
    Ok(store_address(cx, addr, len, &name.to_bytes())?)
}

/// Landlock's rules about TCP ports.
fn check_port(cx: &Cx<'_>, file: &OpenFile, addr: &[u8], want: NetRight) -> SysResult<()> {
    use net::types::{AF_INET, AF_INET6, SockType};
    if cx.cred().landlock.is_none() {
        return Ok(());
    }
    let base = sockets::of(file)?.socket().base();
    let inet = matches!(base.domain, AF_INET | AF_INET6);
    let [family_low, family_high, port_high, port_low, ..] = addr else { return Ok(()) };
    let family = u16::from_ne_bytes([*family_low, *family_high]);
    if !inet || base.kind != SockType::Stream || !matches!(family, AF_INET | AF_INET6) {
        return Ok(());
    }
    landlock::check_port(cx.cred(), u16::from_be_bytes([*port_high, *port_low]), want)
}
