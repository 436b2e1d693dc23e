//! What every socket has: type, wait queue, pending error, options of SOL_SOCKET. Locks: `Leaf`.

use crate::netns::NetNs;
use crate::types::SockType;
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::order::Leaf;
use lock::{Ranked, WaitQueue};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vfs::{Caller, Capabilities};

/// Default buffer size of datagram and local sockets (`net.core.rmem_default`).
pub const DEFAULT_BUFFER: usize = 212_992;
/// `net.core.rmem_max`, before doubling.
const MAX_BUFFER: u32 = 4 << 20;

/// Which time stamps a receiver wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stamp {
    /// SO_TIMESTAMP: microseconds.
    Micro,
    /// SO_TIMESTAMPNS: nanoseconds.
    Nano,
}

/// Values of the SOL_SOCKET level that have an effect.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// SO_REUSEADDR.
    pub reuse_addr: bool,
    /// SO_REUSEPORT.
    pub reuse_port: bool,
    /// SO_BROADCAST.
    pub broadcast: bool,
    /// SO_PASSCRED.
    pub pass_cred: bool,
    /// SO_LINGER in seconds, when on.
    pub linger: Option<u32>,
    /// SO_RCVBUF as getsockopt shows it, when set.
    pub rcvbuf: Option<usize>,
    /// SO_SNDBUF as getsockopt shows it, when set.
    pub sndbuf: Option<usize>,
    /// SO_RCVTIMEO.
    pub rcvtimeo: Option<Duration>,
    /// SO_SNDTIMEO.
    pub sndtimeo: Option<Duration>,
    /// SO_TIMESTAMP*.
    pub stamp: Option<Stamp>,
    /// SO_PEEK_OFF; negative is off.
    pub peek_off: Option<usize>,
    /// SO_RCVLOWAT.
    pub rcvlowat: usize,
    /// SO_BINDTODEVICE.
    pub device: Vec<u8>,
    /// Options that are only remembered, by level and name.
    pub ints: BTreeMap<(i32, i32), i32>,
}

/// The common part of every socket.
#[derive(Debug)]
pub struct Base {
    /// Address family.
    pub domain: u16,
    /// Type.
    pub kind: SockType,
    /// Protocol.
    pub protocol: i32,
    /// Network namespace.
    pub ns: Arc<NetNs>,
    /// Who waits for the socket.
    pub queue: Arc<WaitQueue>,
    options: Ranked<Leaf, Options>,
    error: Ranked<Leaf, Option<Errno>>,
    cookie: u64,
}

static COOKIE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

impl Base {
    /// A socket without options.
    #[must_use]
    pub fn new(ns: &Arc<NetNs>, domain: u16, kind: SockType, protocol: i32) -> Base {
        Base {
            domain,
            kind,
            protocol,
            ns: Arc::clone(ns),
            queue: Arc::default(),
            options: Ranked::new(Options { rcvlowat: 1, ..Options::default() }),
            error: Ranked::default(),
            cookie: COOKIE.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        }
    }
    /// The same socket by another name: options as they are now, one wait queue.
    #[must_use]
    pub fn twin(&self) -> Base {
        Base { queue: Arc::clone(&self.queue), ..self.child() }
    }
    /// The same options on a fresh socket: what accept(2) makes.
    #[must_use]
    pub fn child(&self) -> Base {
        let child = Base::new(&self.ns, self.domain, self.kind, self.protocol);
        let options = self.options.lock().clone();
        *child.options.lock() = options;
        child
    }
    /// Reads options.
    pub fn with<T>(&self, look: impl FnOnce(&Options) -> T) -> T {
        look(&self.options.lock())
    }
    /// Changes options.
    pub fn change(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.options.lock());
    }
    /// A remembered option.
    #[must_use]
    pub fn int(&self, level: i32, name: i32) -> Option<i32> {
        self.options.lock().ints.get(&(level, name)).copied()
    }
    /// Leaves an asynchronous error.
    pub fn set_error(&self, error: Errno) {
        *self.error.lock() = Some(error);
        self.queue.wake(Events::ERR | Events::READABLE | Events::WRITABLE);
    }
    /// Takes the pending error (SO_ERROR, and every send and receive).
    pub fn take_error(&self) -> Option<Errno> {
        self.error.lock().take()
    }
    /// Whether an error is pending.
    #[must_use]
    pub fn has_error(&self) -> bool {
        self.error.lock().is_some()
    }
    /// SO_RCVBUF or its default.
    #[must_use]
    pub fn rcvbuf(&self) -> usize {
        self.with(|o| o.rcvbuf).unwrap_or(DEFAULT_BUFFER)
    }
    /// SO_SNDBUF or its default.
    #[must_use]
    pub fn sndbuf(&self) -> usize {
        self.with(|o| o.sndbuf).unwrap_or(DEFAULT_BUFFER)
    }

    /// getsockopt(SOL_SOCKET) of what is the same for all sockets.
    pub fn get(&self, name: i32) -> SysResult<Vec<u8>> {
        let int = |n: i32| Ok(n.to_ne_bytes().to_vec());
        let size = |n: usize| Ok(i32::try_from(n).unwrap_or(i32::MAX).to_ne_bytes().to_vec());
        let o = self.options.lock().clone();
        match name {
            2 => int(i32::from(o.reuse_addr)),
            3 => int(self.kind.raw()),
            4 => int(self.take_error().map_or(0, |e| i32::from(e.raw()))),
            6 => int(i32::from(o.broadcast)),
            7 => size(o.sndbuf.unwrap_or(DEFAULT_BUFFER)),
            8 => size(o.rcvbuf.unwrap_or(DEFAULT_BUFFER)),
            13 => {
                let mut bytes = i32::from(o.linger.is_some()).to_ne_bytes().to_vec();
                bytes.extend_from_slice(&o.linger.unwrap_or(0).to_ne_bytes());
                Ok(bytes)
            }
            15 => int(i32::from(o.reuse_port)),
            16 => int(i32::from(o.pass_cred)),
            18 => size(o.rcvlowat),
            19 => int(1),
            20 | 66 => Ok(time_bytes(o.rcvtimeo)),
            21 | 67 => Ok(time_bytes(o.sndtimeo)),
            25 => Ok(o.device),
            29 => int(i32::from(o.stamp == Some(Stamp::Micro))),
            35 => int(i32::from(o.stamp == Some(Stamp::Nano))),
            30 => int(0),
            38 => int(self.protocol),
            39 => int(i32::from(self.domain.cast_signed())),
            42 => int(o.peek_off.map_or(-1, |n| i32::try_from(n).unwrap_or(i32::MAX))),
            55 => Ok([0u32; 9].iter().flat_map(|n| n.to_ne_bytes()).collect()),
            57 => Ok(self.cookie.to_ne_bytes().to_vec()),
            1 | 5 | 9 | 10 | 11 | 12 | 34 | 36 | 37 | 40 | 43 | 44 | 45 | 46 | 60 | 69 | 70 | 76 => {
                int(o.ints.get(&(1, name)).copied().unwrap_or(0))
            }
            47 => Ok(u32::MAX.to_ne_bytes().to_vec()),
            49 => int(-1),
            14 => int(0),
            56 => int(0),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    /// setsockopt(SOL_SOCKET).
    pub fn set(&self, name: i32, value: &[u8], by: &Caller<'_>) -> SysResult<()> {
        if name == 25 {
            let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
            let device = value.get(..end).unwrap_or_default().to_vec();
            if !device.is_empty() && !self.ns.has_interface(&device) {
                return Err(Errno::ENODEV);
            }
            self.change(|o| o.device = device);
            return Ok(());
        }
        let int = read_int(value)?;
        let on = int != 0;
        match name {
            2 => self.change(|o| o.reuse_addr = on),
            6 => self.change(|o| o.broadcast = on),
            7 | 32 => {
                self.may_force(name == 32, by)?;
                let size = buffer_size(int, name == 32, 4608);
                self.change(|o| o.sndbuf = Some(size));
            }
            8 | 33 => {
                self.may_force(name == 33, by)?;
                let size = buffer_size(int, name == 33, 2304);
                self.change(|o| o.rcvbuf = Some(size));
            }
            13 => {
                let seconds = read_int(value.get(4..).ok_or(Errno::EINVAL)?)?;
                self.change(|o| o.linger = on.then_some(seconds.cast_unsigned()));
            }
            15 => self.change(|o| o.reuse_port = on),
            16 => self.change(|o| o.pass_cred = on),
            18 => self.change(|o| o.rcvlowat = usize::try_from(int).unwrap_or(usize::MAX).max(1)),
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
            36 if !by.cred.has(Capabilities::NET_ADMIN) => return Err(Errno::EPERM),
            12 if !(0..=6).contains(&int) && !by.cred.has(Capabilities::NET_ADMIN) => {
                return Err(Errno::EPERM);
            }
            42 => self.change(|o| o.peek_off = usize::try_from(int).ok()),
            1 | 5 | 9 | 10 | 11 | 12 | 34 | 36 | 37 | 40 | 43 | 45 | 46 | 47 | 49 | 60 | 69 | 70 | 76 => {
                self.change(|o| {
                    o.ints.insert((1, name), int);
                });
            }
            14 => {}
            // Classic and extended filters would have to run to be true.
            26 | 50 | 51 | 52 => return Err(Errno::EOPNOTSUPP),
            27 => return Err(Errno::ENOENT),
            3 | 4 | 17 | 19 | 28 | 30 | 31 | 38 | 39 => return Err(Errno::ENOPROTOOPT),
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    fn may_force(&self, force: bool, by: &Caller<'_>) -> SysResult<()> {
        if force && !by.cred.has(Capabilities::NET_ADMIN) { Err(Errno::EPERM) } else { Ok(()) }
    }
}

/// The first int of an option value; `EINVAL` when it is shorter.
pub fn read_int(value: &[u8]) -> SysResult<i32> {
    value.first_chunk().map(|c| i32::from_ne_bytes(*c)).ok_or(Errno::EINVAL)
}

fn buffer_size(asked: i32, force: bool, min: usize) -> usize {
    let asked = u32::try_from(asked).unwrap_or(0);
    let most = if force { 1 << 29 } else { MAX_BUFFER };
    usize::try_from(asked.min(most)).unwrap_or(0).saturating_mul(2).max(min)
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
