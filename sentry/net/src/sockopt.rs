//! Options of SOL_SOCKET that are the same for all families (socket(7)).

use crate::base::{Base, Stamp};
use crate::filter::Filter;
use crate::types::{AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, SockType};
use abi::{Errno, SysResult};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use vfs::{Caller, Capabilities};

/// SO_BINDTODEVICE.
const SO_BINDTODEVICE: i32 = 25;
/// SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF.
const SO_ATTACH_FILTER: i32 = 26;
const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;
/// SO_LOCK_FILTER.
const SO_LOCK_FILTER: i32 = 44;
/// SO_TIMESTAMPING, SO_TIMESTAMPING_NEW.
const SO_TIMESTAMPING: i32 = 37;
const SO_TIMESTAMPING_NEW: i32 = 65;
/// SO_TXTIME.
const SO_TXTIME: i32 = 61;
/// SO_MAX_PACING_RATE.
const SO_MAX_PACING_RATE: i32 = 47;
/// Flags of SO_TIMESTAMPING up to 6.12's last.
const TIMESTAMPING_MASK: i64 = (1 << 18) - 1;
const TIMESTAMPING_OPT_ID: i64 = 1 << 7;
const TIMESTAMPING_OPT_ID_TCP: i64 = 1 << 16;

/// How a remembered value is checked.
#[derive(Clone, Copy)]
enum Rule {
    /// Any number but 0 is 1.
    Flag,
    /// As it is.
    Any,
    /// `EINVAL` outside.
    Range(i32, i32),
}

/// Options that are remembered: name, default, rule.
const REMEMBERED: &[(i32, i32, Rule)] = &[
    (1, 0, Rule::Flag),                // DEBUG
    (5, 0, Rule::Flag),                // DONTROUTE
    (9, 0, Rule::Flag),                // KEEPALIVE
    (10, 0, Rule::Flag),               // OOBINLINE
    (11, 0, Rule::Flag),               // NO_CHECK
    (12, 0, Rule::Any),                // PRIORITY
    (34, 0, Rule::Flag),               // PASSSEC
    (36, 0, Rule::Any),                // MARK
    (40, 0, Rule::Flag),               // RXQ_OVFL
    (41, 0, Rule::Flag),               // WIFI_STATUS
    (43, 0, Rule::Flag),               // NOFCS
    (44, 0, Rule::Flag),               // LOCK_FILTER
    (45, 0, Rule::Flag),               // SELECT_ERR_QUEUE
    (46, 0, Rule::Range(0, i32::MAX)), // BUSY_POLL
    (49, -1, Rule::Any),               // INCOMING_CPU
    (60, 0, Rule::Range(0, 1)),        // ZEROCOPY
    (69, 0, Rule::Flag),               // PREFER_BUSY_POLL
    (70, 8, Rule::Range(0, 65_535)),   // BUSY_POLL_BUDGET
    (72, 0, Rule::Range(0, 3)),        // BUF_LOCK
    (74, 1, Rule::Range(-1, 1)),       // TXREHASH
    (75, 0, Rule::Flag),               // RCVMARK
];

fn int(n: i32) -> SysResult<Vec<u8>> {
    Ok(n.to_ne_bytes().to_vec())
}
fn size(n: usize) -> SysResult<Vec<u8>> {
    int(i32::try_from(n).unwrap_or(i32::MAX))
}

impl Base {
    fn is_inet(&self) -> bool {
        matches!(self.domain, AF_INET | AF_INET6)
    }
    fn is_tcp(&self) -> bool {
        self.is_inet() && self.kind == SockType::Stream
    }
    /// Whether the family has the option at all (`EOPNOTSUPP`).
    fn has(&self, name: i32) -> bool {
        match name {
            // PASSCRED, PASSSEC.
            16 | 34 => matches!(self.domain, AF_UNIX | AF_NETLINK),
            // PASSPIDFD.
            76 => self.domain == AF_UNIX,
            // PEEK_OFF.
            42 => self.domain == AF_UNIX || self.is_inet() && self.kind != SockType::Raw,
            // TXREHASH.
            74 => self.is_tcp(),
            _ => true,
        }
    }
    fn wide(&self, name: i32) -> i64 {
        self.with(|o| o.ints.get(&(1, name)).copied().unwrap_or(0))
    }

    /// getsockopt(SOL_SOCKET) of what is the same for all sockets.
    pub fn get(&self, name: i32) -> SysResult<Vec<u8>> {
        if !self.has(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        let on = |pick: fn(&crate::base::Options) -> bool| int(i32::from(self.with(pick)));
        match name {
            2 => on(|o| o.reuse_addr),
            3 => int(self.kind.raw()),
            4 => int(self.take_error().map_or(0, |e| i32::from(e.raw()))),
            6 => on(|o| o.broadcast),
            7 => size(self.sndbuf()),
            8 => size(self.rcvbuf()),
            13 => {
                let linger = self.with(|o| o.linger);
                let mut bytes = i32::from(linger.is_some()).to_ne_bytes().to_vec();
                bytes.extend_from_slice(&linger.unwrap_or(0).to_ne_bytes());
                Ok(bytes)
            }
            15 => on(|o| o.reuse_port),
            16 => on(|o| o.pass_cred),
            76 => on(|o| o.pass_pidfd),
            // PEERCRED of a socket without peer.
            17 => Ok([0_u32, u32::MAX, u32::MAX].iter().flat_map(|n| n.to_ne_bytes()).collect()),
            18 => size(self.with(|o| o.rcvlowat)),
            19 => int(1),
            20 | 66 => Ok(time_bytes(self.with(|o| o.rcvtimeo))),
            21 | 67 => Ok(time_bytes(self.with(|o| o.sndtimeo))),
            SO_BINDTODEVICE => {
                let index = self.with(|o| o.device);
                if index == 0 {
                    return Ok(Vec::new());
                }
                let found = self.ns.interfaces().into_iter().find(|i| i.index == index);
                let mut name = found.ok_or(Errno::ENODEV)?.name.into_bytes();
                name.push(0);
                Ok(name)
            }
            // SO_GET_FILTER.
            SO_ATTACH_FILTER => {
                Ok(self.with(|o| o.filter.as_ref().map_or_else(Vec::new, |f| f.bytes().to_vec())))
            }
            // PEERNAME, which a family with peers answers itself.
            28 => Err(Errno::ENOTCONN),
            29 | 63 => on(|o| o.stamp == Some(Stamp::Micro)),
            35 | 64 => on(|o| o.stamp == Some(Stamp::Nano)),
            30 => int(0),
            SO_TIMESTAMPING | SO_TIMESTAMPING_NEW => {
                let flags = i32::try_from(self.wide(SO_TIMESTAMPING)).unwrap_or(0);
                Ok([flags.to_ne_bytes(), [0; 4]].concat())
            }
            38 => int(self.protocol),
            39 => int(i32::from(self.domain.cast_signed())),
            42 => int(self.with(|o| o.peek_off.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX)))),
            SO_MAX_PACING_RATE => {
                Ok(self.with(|o| o.ints.get(&(1, name)).copied().unwrap_or(-1)).to_ne_bytes().to_vec())
            }
            // BPF_EXTENSIONS: SKF_AD_MAX.
            48 => int(64),
            55 => {
                let [receive, send] =
                    [self.rcvbuf(), self.sndbuf()].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
                Ok([0, receive, 0, send, 0, 0, 0, 0, 0].iter().flat_map(|n| n.to_ne_bytes()).collect())
            }
            // BSDCOMPAT, INCOMING_NAPI_ID, RESERVE_MEM.
            14 | 56 | 73 => int(0),
            57 => Ok(self.cookie.to_ne_bytes().to_vec()),
            // PEERGROUPS, PEERPIDFD.
            59 | 77 => Err(Errno::ENODATA),
            SO_TXTIME => Ok(self.wide(SO_TXTIME).to_ne_bytes().to_vec()),
            62 => size(usize::try_from(self.with(|o| o.device)).unwrap_or(0)),
            // NETNS_COOKIE.
            71 => Ok(self.ns.ino.to_ne_bytes().to_vec()),
            // BUSY_POLL_BUDGET cannot be asked for.
            70 => Err(Errno::ENOPROTOOPT),
            _ => {
                let (_, default, _) =
                    REMEMBERED.iter().find(|(known, ..)| *known == name).ok_or(Errno::ENOPROTOOPT)?;
                int(self.int(1, name).unwrap_or(*default))
            }
        }
    }

    /// setsockopt(SOL_SOCKET).
    pub fn set(&self, name: i32, value: &[u8], by: &Caller<'_>) -> SysResult<()> {
        if name == SO_BINDTODEVICE {
            return self.bind_to_device(value, by);
        }
        let given = read_int(value)?;
        let on = given != 0;
        if !self.has(name) {
            return Err(Errno::EOPNOTSUPP);
        }
        let admin = by.cred.has_in(Capabilities::NET_ADMIN, &self.ns.user_ns);
        match name {
            2 => self.change(|o| o.reuse_addr = on),
            6 => self.change(|o| o.broadcast = on),
            7 | 32 => {
                let size = self.buffer_size(given, name == 32, admin, 4608)?;
                self.change(|o| o.sndbuf = Some(size));
            }
            8 | 33 => {
                let size = self.buffer_size(given, name == 33, admin, 2304)?;
                self.change(|o| o.rcvbuf = Some(size));
            }
            13 => {
                let seconds = read_int(value.get(4..).ok_or(Errno::EINVAL)?)?;
                self.change(|o| o.linger = on.then_some(seconds.cast_unsigned()));
            }
            15 if on && !self.is_inet() => return Err(Errno::EOPNOTSUPP),
            15 => self.change(|o| o.reuse_port = on),
            16 => self.change(|o| o.pass_cred = on),
            76 => self.change(|o| o.pass_pidfd = on),
            18 => {
                let most = if self.is_tcp() { 1 << 24 } else { i32::MAX };
                let low = if given < 0 { most } else { given.clamp(1, most) };
                self.change(|o| o.rcvlowat = usize::try_from(low).unwrap_or(1));
            }
            20 | 66 => {
                let time = read_time(value)?;
                self.change(|o| o.rcvtimeo = time);
            }
            21 | 67 => {
                let time = read_time(value)?;
                self.change(|o| o.sndtimeo = time);
            }
            29 | 63 => self.change(|o| o.stamp = on.then_some(Stamp::Micro)),
            35 | 64 => self.change(|o| o.stamp = on.then_some(Stamp::Nano)),
            42 => self.change(|o| o.peek_off = usize::try_from(given).ok()),
            62 if given < 0 => return Err(Errno::EINVAL),
            62 => self.change(|o| o.device = given.cast_unsigned()),
            1 if on && !admin => return Err(Errno::EACCES),
            36 | 12 if !admin && !by.cred.has_in(Capabilities::NET_RAW, &self.ns.user_ns) => {
                if name == 36 || !(0..=6).contains(&given) {
                    return Err(Errno::EPERM);
                }
                self.remember(1, name, given.into());
            }
            SO_ATTACH_FILTER => {
                self.may_change_filter()?;
                // The layer above has fetched the instructions that `struct sock_fprog` points to.
                let filter = Filter::new(value)?;
                self.change(|o| o.filter = Some(Arc::new(filter)));
            }
            27 => {
                self.may_change_filter()?;
                let mut had = false;
                self.change(|o| had = o.filter.take().is_some());
                return if had { Ok(()) } else { Err(Errno::ENOENT) };
            }
            SO_LOCK_FILTER if !on && self.is_on(1, name) => return Err(Errno::EPERM),
            SO_TIMESTAMPING | SO_TIMESTAMPING_NEW => self.set_timestamping(given.into())?,
            SO_MAX_PACING_RATE => {
                let rate = match value.first_chunk::<8>() {
                    Some(bytes) => i64::from_ne_bytes(*bytes),
                    None if given == -1 => -1,
                    None => i64::from(given.cast_unsigned()),
                };
                self.remember(1, name, rate);
            }
            // BSDCOMPAT does nothing any more.
            14 => {}
            // CNX_ADVICE: the route of a connected socket is looked up afresh, which it always is.
            53 => {}
            // ATTACH_BPF, ATTACH_REUSEPORT_EBPF: a descriptor of a program, of which there are none.
            50 | 52 => return Err(Errno::EBADF),
            SO_ATTACH_REUSEPORT_CBPF => {
                Filter::new(value)?;
                return if self.with(|o| o.reuse_port) { Err(Errno::EOPNOTSUPP) } else { Err(Errno::EINVAL) };
            }
            68 => return Err(if self.with(|o| o.reuse_port) { Errno::ENOENT } else { Errno::EINVAL }),
            60 if !self.is_inet() || self.kind == SockType::Raw => return Err(Errno::EOPNOTSUPP),
            SO_TXTIME => {
                let bytes = value.first_chunk::<8>().filter(|_| value.len() == 8).ok_or(Errno::EINVAL)?;
                self.remember(1, name, i64::from_ne_bytes(*bytes));
            }
            73 if given < 0 => return Err(Errno::EINVAL),
            73 => return Err(Errno::EOPNOTSUPP),
            46 if i64::from(given) > self.wide(46) && !admin => return Err(Errno::EPERM),
            _ => self.set_remembered(name, given)?,
        }
        Ok(())
    }

    fn set_remembered(&self, name: i32, given: i32) -> SysResult<()> {
        let (_, _, rule) = REMEMBERED.iter().find(|(known, ..)| *known == name).ok_or(Errno::ENOPROTOOPT)?;
        let value = match *rule {
            Rule::Flag => i32::from(given != 0),
            Rule::Any => given,
            Rule::Range(least, most) if (least..=most).contains(&given) => given,
            Rule::Range(..) => return Err(Errno::EINVAL),
        };
        // TXREHASH: -1 is the default.
        let value = if name == 74 && value == -1 { 1 } else { value };
        self.remember(1, name, value.into());
        Ok(())
    }

    fn set_timestamping(&self, flags: i64) -> SysResult<()> {
        let bad = flags & !TIMESTAMPING_MASK != 0
            || flags & TIMESTAMPING_OPT_ID_TCP != 0 && flags & TIMESTAMPING_OPT_ID == 0;
        if bad {
            return Err(Errno::EINVAL);
        }
        self.remember(1, SO_TIMESTAMPING, flags);
        Ok(())
    }

    fn may_change_filter(&self) -> SysResult<()> {
        if self.is_on(1, SO_LOCK_FILTER) { Err(Errno::EPERM) } else { Ok(()) }
    }

    fn bind_to_device(&self, value: &[u8], by: &Caller<'_>) -> SysResult<()> {
        let end = value.iter().take(15).position(|b| *b == 0).unwrap_or(value.len().min(15));
        let device = value.get(..end).unwrap_or_default();
        let index = if device.is_empty() {
            0
        } else {
            let found = self.ns.interfaces().into_iter().find(|i| i.name.as_bytes() == device);
            found.ok_or(Errno::ENODEV)?.index
        };
        // Another device than before needs CAP_NET_RAW (sock_bindtoindex).
        let bound = self.with(|o| o.device);
        if bound != 0 && bound != index && !by.cred.has_in(Capabilities::NET_RAW, &self.ns.user_ns) {
            return Err(Errno::EPERM);
        }
        self.change(|o| o.device = index);
        Ok(())
    }

    /// Bytes of a buffer that is asked for, doubled as Linux does for its own overhead.
    fn buffer_size(&self, asked: i32, force: bool, admin: bool, least: usize) -> SysResult<usize> {
        if force && !admin {
            return Err(Errno::EPERM);
        }
        let most = self.ns.buffer_max[usize::from(least == 4608)].load(Ordering::Relaxed);
        let asked =
            if force { asked.max(0).cast_unsigned().min(1 << 29) } else { asked.cast_unsigned().min(most) };
        Ok(usize::try_from(asked).unwrap_or(0).saturating_mul(2).max(least))
    }
}

/// What is wrong with a buffer of `room` bytes for the value of an option: most are cut, some must fit.
pub(crate) fn check_room(at: i32, name: i32, room: usize, len: usize) -> SysResult<()> {
    use crate::types::level;
    let fits = match (at, name) {
        // COOKIE.
        (level::SOCKET, 57) => room >= len,
        // NETNS_COOKIE.
        (level::SOCKET, 71) => room == len,
        // PEERNAME.
        (level::SOCKET, 28) => room <= len,
        // BINDTODEVICE: IFNAMSIZ.
        (level::SOCKET, SO_BINDTODEVICE) => len == 0 || room >= 16,
        (level::NETLINK, 3..=12) if name != 9 => room >= 4,
        _ => true,
    };
    if (at, name) == (level::SOCKET, 59) && room < len {
        return Err(Errno::ERANGE);
    }
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

/// The first int of an option value; `EINVAL` when it is shorter.
pub(crate) fn read_int(value: &[u8]) -> SysResult<i32> {
    value.first_chunk().map(|c| i32::from_ne_bytes(*c)).ok_or(Errno::EINVAL)
}

fn time_bytes(time: Option<Duration>) -> Vec<u8> {
    let t = abi::time::Timeval::from_duration(time.unwrap_or_default());
    [t.sec.to_ne_bytes(), t.usec.to_ne_bytes()].concat()
}

fn read_time(value: &[u8]) -> SysResult<Option<Duration>> {
    let sec = value.first_chunk().map(|c| i64::from_ne_bytes(*c)).ok_or(Errno::EINVAL)?;
    let usec =
        value.get(8..).and_then(|v| v.first_chunk()).map(|c| i64::from_ne_bytes(*c)).ok_or(Errno::EINVAL)?;
    if !(0..1_000_000).contains(&usec) {
        return Err(Errno::EDOM);
    }
    if sec < 0 {
        // Linux: no waiting at all.
        return Ok(Some(Duration::from_nanos(1)));
    }
    let time = abi::time::Timeval { sec, usec }.to_duration()?;
    Ok((!time.is_zero()).then_some(time))
}
