//! UNSAFE: socket calls whose data the safe crates do not pass through untouched: options as bytes,
//! messages with raw control data.

use super::checked_int;
use abi::{Errno, SysResult};
use std::os::fd::{AsRawFd, BorrowedFd};

/// What [`receive`] gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Bytes, or the datagram's real length when MSG_TRUNC was asked for.
    pub len: usize,
    /// Bytes of the sender's address.
    pub addr_len: usize,
    /// Bytes of control data.
    pub control_len: usize,
    /// `MSG_*` of the message.
    pub flags: u32,
}

/// Which integer of a socket is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// SIOCOUTQ: bytes that the peer has not acknowledged.
    Unsent,
    /// SIOCATMARK: whether the next byte is the urgent one.
    AtMark,
}

/// getsockopt(2) into `value`; gives the length.
pub fn get_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &mut [u8]) -> SysResult<usize> {
    let mut len = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel writes at most `len` bytes, the length of the live buffer, and `len` itself.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len) };
    checked_int(done)?;
    Ok(usize::try_from(len).unwrap_or(0).min(value.len()))
}

/// setsockopt(2). The caller knows that the option's value holds no pointers.
pub fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> SysResult<()> {
    let len = libc::socklen_t::try_from(value.len()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads `len` bytes of the live buffer.
    let done = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) };
    checked_int(done).map(|_| ())
}

fn header(data: *mut u8, len: usize, iov: &mut libc::iovec) -> libc::msghdr {
    *iov = libc::iovec { iov_base: data.cast(), iov_len: len };
    // SAFETY: all-zero is a valid msghdr: null pointers with lengths of zero.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header
}

fn addr_len(bytes: &[u8]) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes.len()).unwrap_or(0)
}

/// recvmsg(2) into three buffers. Descriptors cannot come: the socket is not AF_UNIX.
pub fn receive(
    fd: BorrowedFd<'_>,
    data: &mut [u8],
    addr: &mut [u8],
    control: &mut [u8],
    flags: u32,
) -> SysResult<Message> {
    let mut iov = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut header = header(data.as_mut_ptr(), data.len(), &mut iov);
    header.msg_name = addr.as_mut_ptr().cast();
    header.msg_namelen = addr_len(addr);
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = control.len();
    // SAFETY: every pointer of the header is to a live buffer of the length beside it.
    let got = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags.cast_signed()) };
    let len = usize::try_from(got).map_err(|_| super::last_errno())?;
    Ok(Message {
        len,
        addr_len: usize::try_from(header.msg_namelen).unwrap_or(0).min(addr.len()),
        control_len: header.msg_controllen.min(control.len()),
        flags: header.msg_flags.cast_unsigned(),
    })
}

/// sendmsg(2); an empty `addr` or `control` is none.
pub fn send(fd: BorrowedFd<'_>, data: &[u8], addr: &[u8], control: &[u8], flags: u32) -> SysResult<usize> {
    let mut iov = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    let mut header = header(data.as_ptr().cast_mut(), data.len(), &mut iov);
    if !addr.is_empty() {
        header.msg_name = addr.as_ptr().cast_mut().cast();
        header.msg_namelen = addr_len(addr);
    }
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len();
    }
    // SAFETY: every pointer of the header is to a live buffer of the length beside it; sendmsg only reads them.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags.cast_signed()) };
    usize::try_from(sent).map_err(|_| super::last_errno())
}

/// An integer that only ioctl(2) tells.
pub fn count(fd: BorrowedFd<'_>, which: Count) -> SysResult<i32> {
    const SIOCATMARK: libc::c_ulong = 0x8905;
    let request = match which {
        Count::Unsent => libc::TIOCOUTQ,
        Count::AtMark => SIOCATMARK,
    };
    let mut value: libc::c_int = 0;
    // SAFETY: both requests write one int.
    checked_int(unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut value) })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn options_and_messages() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let b = UdpSocket::bind("127.0.0.1:0").unwrap();
        set_option(b.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTTL, &1i32.to_ne_bytes()).unwrap();
        let mut value = [0; 16];
        assert_eq!(get_option(b.as_fd(), libc::IPPROTO_IP, libc::IP_RECVTTL, &mut value), Ok(4));
        let port = b.local_addr().unwrap().port().to_be_bytes();
        let to = [2, 0, port[0], port[1], 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(send(a.as_fd(), b"hello", &to, &[], 0), Ok(5));
        let (mut data, mut addr, mut control) = ([0; 3], [0; 128], [0; 64]);
        let got = receive(b.as_fd(), &mut data, &mut addr, &mut control, 0).unwrap();
        assert_eq!((got.len, got.addr_len, got.control_len), (3, 16, 24));
        assert_eq!(got.flags, libc::MSG_TRUNC.cast_unsigned());
        assert_eq!(count(a.as_fd(), Count::Unsent), Ok(0));
    }
}
