//! sendto(2), recvfrom(2), sendmsg(2), recvmsg(2), sendmmsg(2), recvmmsg(2).

use super::{address, file, resolve, store_address};
use crate::files::OnExec;
use crate::syscalls::event::{Patience, deadline_after};
use crate::syscalls::fs::io::buffers;
use crate::task::Cx;
use abi::limits::{IOV_MAX, MAX_RW_COUNT};
use abi::time::Timespec;
use abi::{CallResult, Errno, Failure, Fd, SysResult, UserAddr, UserPtr, UserSlice};
use net::control::{self, Installed, MAX_CONTROL};
use net::socket as sockets;
use net::types::{AF_UNIX, MsgFlags, SendMsg, SockType};
use net::{SockAddr, SocketFile};
use std::sync::Arc;
use std::time::Instant;
use vfs::OpenFile;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct msghdr` (`user_msghdr` of the kernel).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MsgHdr {
    name: u64,
    name_len: i32,
    pad1: u32,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
    flags: u32,
    pad2: u32,
}

/// `struct mmsghdr`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MmsgHdr {
    header: MsgHdr,
    len: u32,
    pad: u32,
}

/// Where a message goes. Only datagrams have use for a path.
fn target(cx: &Cx<'_>, socket: &SocketFile, addr: SockAddr) -> CallResult<SockAddr> {
    let base = socket.socket().base();
    if base.domain == AF_UNIX && base.kind != SockType::Dgram { Ok(addr) } else { resolve(cx, addr) }
}

fn one(addr: UserAddr, len: usize) -> [UserSlice; 1] {
    [UserSlice { addr, len: u64::try_from(len.min(MAX_RW_COUNT)).unwrap_or(0) }]
}

fn flags(raw: u32) -> MsgFlags {
    MsgFlags::from_bits_truncate(raw)
}

/// sendto(2).
pub fn sendto(
    cx: &mut Cx<'_>,
    fd: Fd,
    buf: UserAddr,
    len: usize,
    raw_flags: u32,
    addr: UserAddr,
    addr_len: u32,
) -> CallResult<usize> {
    let file = file(cx, fd)?;
    let socket = sockets::of(&file)?;
    let to = if addr.is_null() { None } else { Some(target(cx, socket, address(cx, addr, addr_len)?)?) };
    let mut message = SendMsg { addr: to, control: Vec::new(), flags: flags(raw_flags) };
    socket.send(&file, &mut cx.mm().source(&one(buf, len)), &mut message, &cx.caller())
}

/// recvfrom(2).
pub fn recvfrom(
    cx: &mut Cx<'_>,
    fd: Fd,
    buf: UserAddr,
    len: usize,
    raw_flags: u32,
    addr: UserAddr,
    addr_len: UserPtr<i32>,
) -> CallResult<usize> {
    let file = file(cx, fd)?;
    let socket = sockets::of(&file)?;
    let got = socket.recv(&file, &mut cx.mm().sink(&one(buf, len)), flags(raw_flags), &cx.caller())?;
    if !addr.is_null() {
        let from = got.addr.map(|addr| addr.to_bytes()).unwrap_or_default();
        store_address(cx, addr, addr_len, &from)?;
    }
    let shown = if flags(raw_flags).contains(MsgFlags::TRUNC) { got.len } else { got.len.min(len) };
    Ok(shown)
}

fn send_one(cx: &Cx<'_>, file: &Arc<OpenFile>, header: &MsgHdr, raw_flags: u32) -> CallResult<usize> {
    let socket = sockets::of(file)?;
    if header.name != 0 && header.name_len < 0 {
        return Err(Errno::EINVAL.into());
    }
    if header.iov_len > u64::try_from(IOV_MAX).unwrap_or(0) {
        return Err(Errno::EMSGSIZE.into());
    }
    let list = buffers(cx, UserPtr::new(UserAddr::new(header.iov)), header.iov_len)?;
    let to = if header.name == 0 || header.name_len == 0 {
        None
    } else {
        let len = u32::try_from(header.name_len).map_err(|_| Errno::EINVAL)?;
        Some(target(cx, socket, address(cx, UserAddr::new(header.name), len)?)?)
    };
    let by = cx.caller();
    let control = match usize::try_from(header.control_len) {
        Ok(0) => Vec::new(),
        Ok(len) if len <= MAX_CONTROL => {
            let mut bytes = vec![0; len];
            cx.mm().read_bytes(UserAddr::new(header.control), &mut bytes)?;
            let unix = socket.socket().base().domain == AF_UNIX;
            control::parse(&bytes, unix, &by, &mut |fd| cx.files().get(Fd::new(fd)))?
        }
        _ => return Err(Errno::ENOBUFS.into()),
    };
    let mut message = SendMsg { addr: to, control, flags: flags(raw_flags) };
    socket.send(file, &mut cx.mm().source(&list), &mut message, &by)
}

/// Receives one message; `header` is changed as the guest shall find it.
fn recv_one(cx: &Cx<'_>, file: &Arc<OpenFile>, header: &mut MsgHdr, raw_flags: u32) -> CallResult<usize> {
    let socket = sockets::of(file)?;
    if header.name != 0 && header.name_len < 0 {
        return Err(Errno::EINVAL.into());
    }
    if header.iov_len > u64::try_from(IOV_MAX).unwrap_or(0) {
        return Err(Errno::EMSGSIZE.into());
    }
    let list = buffers(cx, UserPtr::new(UserAddr::new(header.iov)), header.iov_len)?;
    let room: u64 = list.iter().map(|slice| slice.len).fold(0, u64::saturating_add);
    let by = cx.caller();
    let asked = flags(raw_flags);
    let got = socket.recv(file, &mut cx.mm().sink(&list), asked, &by)?;
    let mut out = got.flags;
    let len = usize::try_from(room).unwrap_or(usize::MAX).min(got.len);
    if header.name != 0 {
        let from = got.addr.map(|addr| addr.to_bytes()).unwrap_or_default();
        let limit = usize::try_from(header.name_len).map_err(|_| Errno::EINVAL)?;
        cx.mm().write_bytes(UserAddr::new(header.name), from.get(..limit).unwrap_or(&from))?;
        header.name_len = i32::try_from(from.len()).unwrap_or(0);
    }
    let limit = usize::try_from(header.control_len).unwrap_or(usize::MAX).min(MAX_CONTROL);
    let on_exec = if asked.contains(MsgFlags::CMSG_CLOEXEC) { OnExec::Close } else { OnExec::Keep };
    let limit_files = cx.nofile();
    let bytes = control::encode(got.control, limit, &mut out, &by, &mut |what| {
        let (file, on_exec) = match what {
            Installed::File(file) => (file, on_exec),
            Installed::Process(pid) => (super::process_file(cx, pid)?, OnExec::Close),
        };
        cx.files().install(file, on_exec, 0, limit_files).map(Fd::number)
    });
    cx.mm().write_bytes(UserAddr::new(header.control), &bytes)?;
    header.control_len = u64::try_from(bytes.len()).unwrap_or(0);
    if asked.contains(MsgFlags::CMSG_CLOEXEC) {
        out |= MsgFlags::CMSG_CLOEXEC;
    }
    header.flags = out.bits();
    Ok(if asked.contains(MsgFlags::TRUNC) { got.len } else { len })
}

/// sendmsg(2).
pub fn sendmsg(cx: &mut Cx<'_>, fd: Fd, message: UserPtr<MsgHdr>, raw_flags: u32) -> CallResult<usize> {
    let file = file(cx, fd)?;
    sockets::of(&file)?;
    let header = cx.read(message)?;
    send_one(cx, &file, &header, raw_flags)
}

/// Writes back what recvmsg changes: not the iovec.
fn store_header(cx: &Cx<'_>, at: UserAddr, header: &MsgHdr) -> SysResult<()> {
    let field = |offset: u64| at.checked_add(offset);
    cx.mm().write_bytes(field(8)?, &header.name_len.to_ne_bytes())?;
    cx.mm().write_bytes(field(40)?, &header.control_len.to_ne_bytes())?;
    cx.mm().write_bytes(field(48)?, &header.flags.to_ne_bytes())
}

/// recvmsg(2).
pub fn recvmsg(cx: &mut Cx<'_>, fd: Fd, message: UserPtr<MsgHdr>, raw_flags: u32) -> CallResult<usize> {
    let file = file(cx, fd)?;
    sockets::of(&file)?;
    let mut header = cx.read(message)?;
    let got = recv_one(cx, &file, &mut header, raw_flags)?;
    store_header(cx, message.addr(), &header)?;
    Ok(got)
}

fn element(list: UserPtr<MmsgHdr>, at: u32) -> SysResult<UserPtr<MmsgHdr>> {
    list.index(u64::from(at))
}

/// sendmmsg(2): an error after the first message ends the call with the count.
pub fn sendmmsg(
    cx: &mut Cx<'_>,
    fd: Fd,
    list: UserPtr<MmsgHdr>,
    count: u32,
    raw_flags: u32,
) -> CallResult<u32> {
    let file = file(cx, fd)?;
    sockets::of(&file)?;
    let mut done = 0;
    while done < count.min(1024) {
        let at = element(list, done)?;
        let sent = cx.read(at).map_err(Failure::from).and_then(|entry: MmsgHdr| {
            let sent = send_one(cx, &file, &entry.header, raw_flags)?;
            let sent = u32::try_from(sent).unwrap_or(u32::MAX);
            Ok(cx.mm().write_bytes(at.addr().checked_add(56)?, &sent.to_ne_bytes())?)
        });
        match sent {
            Ok(()) => done += 1,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// recvmmsg(2).
pub fn recvmmsg(
    cx: &mut Cx<'_>,
    fd: Fd,
    list: UserPtr<MmsgHdr>,
    count: u32,
    raw_flags: u32,
    timeout: UserPtr<Timespec>,
) -> CallResult<u32> {
    let file = file(cx, fd)?;
    sockets::of(&file)?;
    let deadline = match Patience::from_timespec(cx, timeout)? {
        Patience::None => deadline_after(std::time::Duration::ZERO),
        Patience::Until(deadline) => deadline,
    };
    let mut raw_flags = raw_flags;
    let mut done = 0;
    while done < count.min(1024) {
        let at = element(list, done)?;
        let got = cx.read(at).map_err(Failure::from).and_then(|mut entry: MmsgHdr| {
            let got = recv_one(cx, &file, &mut entry.header, raw_flags)?;
            store_header(cx, at.addr(), &entry.header)?;
            let got = u32::try_from(got).unwrap_or(u32::MAX);
            Ok(cx.mm().write_bytes(at.addr().checked_add(56)?, &got.to_ne_bytes())?)
        });
        match got {
            Ok(()) => done += 1,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
        if flags(raw_flags).contains(MsgFlags::WAITFORONE) {
            raw_flags |= MsgFlags::DONTWAIT.bits();
        }
        // The timeout is looked at after each message only (recvmmsg(2), BUGS).
        if deadline.is_some_and(|at| Instant::now() >= at) {
            break;
        }
    }
    Ok(done)
}
