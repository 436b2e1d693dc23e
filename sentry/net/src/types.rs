//! Vocabulary of the socket calls (socket(2), recv(2), send(2)).

use abi::{Errno, SysResult};
use std::sync::Arc;
use vfs::{Kgid, Kuid, OpenFile};

/// Address families.
pub const AF_UNSPEC: u16 = 0;
/// Local sockets.
pub const AF_UNIX: u16 = 1;
/// IPv4.
pub const AF_INET: u16 = 2;
/// IPv6.
pub const AF_INET6: u16 = 10;
/// Kernel interface.
pub const AF_NETLINK: u16 = 16;
/// Frames of links.
pub const AF_PACKET: u16 = 17;

/// Levels of getsockopt(2).
pub mod level {
    /// SOL_SOCKET.
    pub const SOCKET: i32 = 1;
    /// IPPROTO_IP.
    pub const IP: i32 = 0;
    /// IPPROTO_TCP.
    pub const TCP: i32 = 6;
    /// IPPROTO_UDP.
    pub const UDP: i32 = 17;
    /// IPPROTO_IPV6.
    pub const IPV6: i32 = 41;
    /// SOL_NETLINK.
    pub const NETLINK: i32 = 270;
    /// SOL_PACKET.
    pub const PACKET: i32 = 263;
    /// IPPROTO_UDPLITE.
    pub const UDPLITE: i32 = 136;
    /// IPPROTO_RAW.
    pub const RAW: i32 = 255;
    /// IPPROTO_ICMPV6.
    pub const ICMPV6: i32 = 58;
}

/// Socket types.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SockType {
    /// SOCK_STREAM.
    Stream,
    /// SOCK_DGRAM.
    Dgram,
    /// SOCK_RAW.
    Raw,
    /// SOCK_SEQPACKET.
    SeqPacket,
}

impl SockType {
    /// From the call's `type` without SOCK_NONBLOCK and SOCK_CLOEXEC.
    pub fn from_raw(raw: i32) -> SysResult<SockType> {
        Ok(match raw {
            1 => SockType::Stream,
            2 => SockType::Dgram,
            3 => SockType::Raw,
            5 => SockType::SeqPacket,
            0 | 4 | 6..=10 => return Err(Errno::ESOCKTNOSUPPORT),
            _ => return Err(Errno::EINVAL),
        })
    }
    /// The number.
    #[must_use]
    pub fn raw(self) -> i32 {
        match self {
            SockType::Stream => 1,
            SockType::Dgram => 2,
            SockType::Raw => 3,
            SockType::SeqPacket => 5,
        }
    }
}

bitflags::bitflags! {
    /// `MSG_*`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MsgFlags: u32 {
        /// Urgent data.
        const OOB = 0x1;
        /// Look, do not take.
        const PEEK = 0x2;
        /// Do not route.
        const DONTROUTE = 0x4;
        /// Control data did not fit.
        const CTRUNC = 0x8;
        /// Data did not fit; asked for: report the real length.
        const TRUNC = 0x20;
        /// Do not wait.
        const DONTWAIT = 0x40;
        /// End of record.
        const EOR = 0x80;
        /// Wait for all bytes.
        const WAITALL = 0x100;
        /// The path works (neighbour confirmation).
        const CONFIRM = 0x800;
        /// From the error queue.
        const ERRQUEUE = 0x2000;
        /// No SIGPIPE.
        const NOSIGNAL = 0x4000;
        /// More will follow.
        const MORE = 0x8000;
        /// recvmmsg: wait for one only.
        const WAITFORONE = 0x1_0000;
        /// Zero copy.
        const ZEROCOPY = 0x400_0000;
        /// Connect while sending.
        const FASTOPEN = 0x2000_0000;
        /// Received descriptors close on exec.
        const CMSG_CLOEXEC = 0x4000_0000;
    }
}

/// Half of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// SHUT_RD.
    Read,
    /// SHUT_WR.
    Write,
    /// SHUT_RDWR.
    Both,
}

impl Shutdown {
    /// From the call's `how`.
    pub fn from_raw(raw: i32) -> SysResult<Shutdown> {
        match raw {
            0 => Ok(Shutdown::Read),
            1 => Ok(Shutdown::Write),
            2 => Ok(Shutdown::Both),
            _ => Err(Errno::EINVAL),
        }
    }
    /// Whether it ends receiving.
    #[must_use]
    pub fn reads(self) -> bool {
        self != Shutdown::Write
    }
    /// Whether it ends sending.
    #[must_use]
    pub fn writes(self) -> bool {
        self != Shutdown::Read
    }
}

/// `struct ucred` with kernel ids and a process id of the initial namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ucred {
    /// Process; 0 when unknown.
    pub pid: u32,
    /// User; `None` is -1.
    pub uid: Option<Kuid>,
    /// Group; `None` is -1.
    pub gid: Option<Kgid>,
}

impl Ucred {
    /// What getsockopt(SO_PEERCRED) says without a peer.
    pub const NONE: Ucred = Ucred { pid: 0, uid: None, gid: None };

    /// The caller's.
    #[must_use]
    pub fn of(by: &vfs::Caller<'_>) -> Ucred {
        Ucred { pid: by.task.tgid(), uid: Some(by.cred.euid), gid: Some(by.cred.egid) }
    }
    /// As `by` sees it.
    #[must_use]
    pub fn to_bytes(self, by: &vfs::Caller<'_>) -> [u8; 12] {
        let ns = &by.cred.user_ns;
        let mut bytes = [0; 12];
        let words = [
            if self.pid == 0 { 0 } else { by.task.show_pid(self.pid) },
            self.uid.map_or(u32::MAX, |uid| ns.show_uid(uid)),
            self.gid.map_or(u32::MAX, |gid| ns.show_gid(gid)),
        ];
        for (slot, word) in bytes.chunks_exact_mut(4).zip(words) {
            slot.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// One control message on its way.
#[derive(Clone, Debug)]
pub enum Control {
    /// SCM_RIGHTS.
    Rights(Vec<Arc<OpenFile>>),
    /// SCM_CREDENTIALS.
    Credentials(Ucred),
    /// SCM_PIDFD: a process, by its id of the initial namespace.
    PidFd(u32),
    /// Any other, already laid out: level, type, data.
    Raw(i32, i32, Vec<u8>),
}

/// What a receive gave besides the bytes.
#[derive(Debug, Default)]
pub struct Received {
    /// Bytes; with MSG_TRUNC asked for, the real length of the datagram.
    pub len: usize,
    /// Sender.
    pub addr: Option<crate::addr::SockAddr>,
    /// Control messages.
    pub control: Vec<Control>,
    /// TRUNC, CTRUNC, EOR...
    pub flags: MsgFlags,
}

/// Parameters of a send besides the bytes.
#[derive(Debug, Default)]
pub struct SendMsg {
    /// Destination of sendto.
    pub addr: Option<crate::addr::SockAddr>,
    /// Control messages.
    pub control: Vec<Control>,
    /// MSG_*.
    pub flags: MsgFlags,
}
