//! What every socket has: type, wait queue, pending error, error queue, values of options. Locks: `Leaf`.

use crate::addr::SockAddr;
use crate::filter::Filter;
use crate::inet::multicast::Membership;
use crate::netns::NetNs;
use crate::types::{Control, SockType};
use abi::Errno;
use abi::poll::Events;
use abi::time::Timespec;
use lock::order::Leaf;
use lock::{Ranked, WaitQueue};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Default buffer size of datagram and local sockets (`net.core.rmem_default`).
pub const DEFAULT_BUFFER: usize = 212_992;
/// Most reports an error queue keeps.
const MOST_REPORTS: usize = 64;

/// One entry of the error queue (ip(7), IP_RECVERR).
#[derive(Clone, Debug)]
pub struct Report {
    /// What SO_ERROR says while this is the first; `None` for what is no error (completions).
    pub error: Option<Errno>,
    /// The datagram that caused it.
    pub bytes: Vec<u8>,
    /// Where it was sent to.
    pub to: Option<SockAddr>,
    /// What recvmsg(2) tells.
    pub control: Vec<Control>,
}

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
    /// SO_BINDTODEVICE, SO_BINDTOIFINDEX: the index, 0 for none.
    pub device: u32,
    /// SO_PASSPIDFD.
    pub pass_pidfd: bool,
    /// SO_ATTACH_FILTER.
    pub filter: Option<Arc<Filter>>,
    /// IP_ADD_MEMBERSHIP and kin.
    pub groups: Vec<Membership>,
    /// Options that are only remembered, by level and name.
    pub ints: BTreeMap<(i32, i32), i64>,
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
    reports: Ranked<Leaf, VecDeque<Report>>,
    stamped: Ranked<Leaf, Option<Timespec>>,
    pub(crate) cookie: u64,
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
            reports: Ranked::default(),
            stamped: Ranked::default(),
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
        // Memberships are the listener's own.
        *child.options.lock() = Options { groups: Vec::new(), ..options };
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
        let wide = self.options.lock().ints.get(&(level, name)).copied()?;
        i32::try_from(wide).ok()
    }
    /// Whether a remembered option is on.
    #[must_use]
    pub fn is_on(&self, level: i32, name: i32) -> bool {
        self.options.lock().ints.get(&(level, name)).is_some_and(|value| *value != 0)
    }
    /// Remembers an option.
    pub fn remember(&self, level: i32, name: i32, value: i64) {
        self.options.lock().ints.insert((level, name), value);
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
    /// Whether poll(2) says POLLERR: an error or a report waits.
    #[must_use]
    pub fn troubled(&self) -> bool {
        self.has_error() || !self.reports.lock().is_empty()
    }
    /// Puts a report into the error queue, and its error up.
    pub fn report(&self, report: Report) {
        let error = report.error;
        {
            let mut reports = self.reports.lock();
            if reports.len() < MOST_REPORTS {
                reports.push_back(report);
            }
        }
        match error {
            Some(error) => self.set_error(error),
            None => self.queue.wake(Events::ERR),
        }
    }
    /// Changes the last report instead of adding one, when `change` can (completions in a row are one).
    pub fn merge_report(&self, change: impl FnOnce(&mut Report) -> bool) -> bool {
        self.reports.lock().back_mut().is_some_and(change)
    }
    /// The first report; the error that is pending becomes that of the next one.
    pub fn take_report(&self) -> Option<Report> {
        let (report, next) = {
            let mut reports = self.reports.lock();
            let report = reports.pop_front()?;
            (report, reports.front().and_then(|next| next.error))
        };
        if report.error.is_some() {
            *self.error.lock() = next;
        }
        Some(report)
    }
    /// Remembers when the datagram arrived that was read last (SIOCGSTAMP).
    pub fn set_stamp(&self, at: Timespec) {
        *self.stamped.lock() = Some(at);
    }
    /// When it arrived.
    #[must_use]
    pub fn stamp(&self) -> Option<Timespec> {
        *self.stamped.lock()
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
}
