//! Bound ports of one protocol in one namespace. Kept under `NetStack`.

use crate::addr::InetAddr;
use abi::{Errno, SysResult};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Weak;
use std::time::{Duration, Instant};
use vfs::Kuid;

/// How a socket holds a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Local address, plain (IPv4-mapped turned into IPv4).
    pub addr: InetAddr,
    /// An IPv6 wildcard that takes IPv4 as well.
    pub dual: bool,
    /// SO_BINDTODEVICE: an interface, or 0.
    pub device: u32,
    /// SO_REUSEADDR.
    pub reuse_addr: bool,
    /// SO_REUSEPORT, with the owner.
    pub reuse_port: Option<Kuid>,
    /// TCP: listening.
    pub listening: bool,
}

/// What may change while a port is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// SO_BINDTODEVICE.
    pub device: u32,
    /// SO_REUSEADDR.
    pub reuse_addr: bool,
}

/// One holder of a port.
#[derive(Debug)]
pub struct Holder<S> {
    /// The socket.
    pub socket: Weak<S>,
    /// How it holds the port.
    pub claim: Claim,
    /// UDP: only datagrams from this peer.
    pub peer: Option<InetAddr>,
    /// TIME_WAIT: held until then by nobody.
    pub until: Option<Instant>,
}

impl<S> Holder<S> {
    fn alive(&self) -> bool {
        match self.until {
            Some(until) => Instant::now() < until,
            None => self.socket.strong_count() > 0,
        }
    }
}

/// How long TIME_WAIT is (`TCP_TIMEWAIT_LEN`).
const TIME_WAIT: Duration = Duration::from_secs(60);

/// Sockets by port.
#[derive(Debug)]
pub struct PortTable<S> {
    ports: HashMap<u16, Vec<Holder<S>>>,
    next: u32,
}

impl<S> Default for PortTable<S> {
    fn default() -> Self {
        // Where the search for a free port starts differs from namespace to namespace.
        let seed = vfs::realtime_now().nsec.unsigned_abs();
        PortTable { ports: HashMap::new(), next: u32::try_from(seed % 28_000).unwrap_or(0) }
    }
}

/// Whether a socket bound to `claim` receives for `ip`.
#[must_use]
pub fn covers(claim: &Claim, ip: IpAddr) -> bool {
    match claim.addr.ip {
        IpAddr::V4(own) => ip.is_ipv4() && (own.is_unspecified() || IpAddr::V4(own) == ip),
        IpAddr::V6(own) if own.is_unspecified() => ip.is_ipv6() || claim.dual,
        IpAddr::V6(own) => IpAddr::V6(own) == ip,
    }
}

fn overlap(a: &Claim, b: &Claim) -> bool {
    covers(a, b.addr.ip)
        || covers(b, a.addr.ip)
        || (a.dual && b.addr.ip.is_ipv4())
        || (b.dual && a.addr.ip.is_ipv4())
}

/// Whether two claims to one port exclude each other.
fn conflict(a: &Claim, b: &Claim, stream: bool) -> bool {
    if !overlap(a, b) || a.device != 0 && b.device != 0 && a.device != b.device {
        return false;
    }
    if let (Some(x), Some(y)) = (a.reuse_port, b.reuse_port)
        && x == y
    {
        return false;
    }
    !(a.reuse_addr && b.reuse_addr && !(stream && (a.listening || b.listening)))
}

impl<S> PortTable<S> {
    /// Takes a port; port 0 takes a free one of `range`. Gives the port.
    pub fn claim(
        &mut self,
        mut claim: Claim,
        socket: Weak<S>,
        stream: bool,
        range: (u32, u32),
    ) -> SysResult<u16> {
        if claim.addr.port != 0 {
            let holders = self.ports.entry(claim.addr.port).or_default();
            holders.retain(Holder::alive);
            if holders.iter().any(|h| conflict(&claim, &h.claim, stream)) {
                return Err(Errno::EADDRINUSE);
            }
            holders.push(Holder { socket, claim, peer: None, until: None });
            return Ok(claim.addr.port);
        }
        let (low, high) = range;
        let size = high.saturating_sub(low).saturating_add(1);
        for _ in 0..size {
            self.next = (self.next + 1) % size;
            let Ok(port) = u16::try_from(low + self.next) else { continue };
            let holders = self.ports.entry(port).or_default();
            // A port in TIME_WAIT is as good as free here: no segment is late in memory.
            holders.retain(|h| h.until.is_none() && h.alive());
            if holders.is_empty() {
                claim.addr.port = port;
                holders.push(Holder { socket, claim, peer: None, until: None });
                return Ok(port);
            }
        }
        Err(Errno::EADDRINUSE)
    }

    /// Keeps a port from bind(2) for a while after its connection is gone (TIME_WAIT).
    pub fn rest(&mut self, addr: InetAddr, reuse_addr: bool, reuse_port: Option<Kuid>) {
        let claim = Claim { addr, dual: false, device: 0, reuse_addr, reuse_port, listening: false };
        let until = Instant::now().checked_add(TIME_WAIT);
        let holders = self.ports.entry(claim.addr.port).or_default();
        match holders.iter_mut().find(|h| h.until.is_some() && h.claim == claim) {
            Some(known) => known.until = until,
            None => holders.push(Holder { socket: Weak::new(), claim, peer: None, until }),
        }
    }

    /// Gives a port back.
    pub fn release(&mut self, port: u16, socket: *const S) {
        if let Some(holders) = self.ports.get_mut(&port) {
            holders.retain(|h| h.until.is_some() || !std::ptr::eq(h.socket.as_ptr(), socket));
            if holders.is_empty() {
                self.ports.remove(&port);
            }
        }
    }

    /// Marks a holder as listening; `EADDRINUSE` when another one excludes that.
    pub fn listen(&mut self, port: u16, socket: *const S) -> SysResult<()> {
        let Some(holders) = self.ports.get_mut(&port) else { return Err(Errno::EINVAL) };
        let Some(own) =
            holders.iter().position(|h| h.until.is_none() && std::ptr::eq(h.socket.as_ptr(), socket))
        else {
            return Err(Errno::EINVAL);
        };
        let mut claim = match holders.get(own) {
            Some(holder) => holder.claim,
            None => return Err(Errno::EINVAL),
        };
        claim.listening = true;
        let taken = holders.iter().enumerate().any(|(at, h)| {
            at != own
                && h.until.is_none()
                && h.claim.listening
                && h.socket.strong_count() > 0
                && conflict(&claim, &h.claim, true)
        });
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        if let Some(holder) = holders.get_mut(own) {
            holder.claim = claim;
        }
        Ok(())
    }

    /// Notes the peer of a connected datagram socket.
    pub fn set_peer(&mut self, port: u16, socket: *const S, local: InetAddr, peer: Option<InetAddr>) {
        for holder in self.ports.get_mut(&port).into_iter().flatten() {
            if std::ptr::eq(holder.socket.as_ptr(), socket) {
                holder.peer = peer;
                holder.claim.addr = local;
            }
        }
    }

    /// Notes what a socket was told after it had its port: SO_BINDTODEVICE, SO_REUSEADDR.
    pub fn retell(&mut self, port: u16, socket: *const S, told: Told) {
        for holder in self.ports.get_mut(&port).into_iter().flatten() {
            if holder.until.is_none() && std::ptr::eq(holder.socket.as_ptr(), socket) {
                holder.claim.device = told.device;
                holder.claim.reuse_addr = told.reuse_addr;
            }
        }
    }

    /// The holder that receives what `from` sends to `to` through interface `index`: the most specific; among equals
    /// (SO_REUSEPORT) by a hash of the sender.
    #[must_use]
    pub fn find(
        &self,
        to: InetAddr,
        from: InetAddr,
        index: u32,
        wanted: impl Fn(&Claim) -> bool,
    ) -> Option<Weak<S>> {
        let holders = self.ports.get(&to.port)?;
        let score = |h: &Holder<S>| {
            if h.until.is_some()
                || !wanted(&h.claim)
                || !covers(&h.claim, to.ip)
                || h.socket.strong_count() == 0
            {
                return 0;
            }
            if h.claim.device != 0 && h.claim.device != index {
                return 0;
            }
            let exact = if h.claim.addr.ip.is_unspecified() { 0 } else { 2 };
            let native = u32::from(h.claim.addr.ip.is_ipv4() == to.ip.is_ipv4());
            let device = if h.claim.device != 0 { 4 } else { 0 };
            match h.peer {
                None => 1 + exact + native + device,
                Some(peer) if peer.ip == from.ip && peer.port == from.port => 16 + exact + native + device,
                Some(_) => 0,
            }
        };
        let best = holders.iter().map(score).max().filter(|s| *s > 0)?;
        let equals: Vec<&Holder<S>> = holders.iter().filter(|h| score(h) == best).collect();
        let pick = usize::from(from.port).wrapping_mul(31) % equals.len().max(1);
        // Without SO_REUSEPORT the last one bound wins (SO_REUSEADDR on UDP).
        let holder = if equals.iter().all(|h| h.claim.reuse_port.is_some()) {
            equals.get(pick)
        } else {
            equals.last()
        };
        holder.map(|h| Weak::clone(&h.socket))
    }

    /// Every holder that takes what `from` sends to a group or a broadcast.
    #[must_use]
    pub fn find_all(&self, to: InetAddr, from: InetAddr, index: u32) -> Vec<Weak<S>> {
        let takes = |h: &&Holder<S>| {
            h.until.is_none()
                && covers(&h.claim, to.ip)
                && (h.claim.device == 0 || h.claim.device == index)
                && h.peer.is_none_or(|peer| (peer.ip, peer.port) == (from.ip, from.port))
        };
        self.ports.get(&to.port).into_iter().flatten().filter(takes).map(|h| Weak::clone(&h.socket)).collect()
    }

    /// Every holder, by port (/proc/net).
    pub fn each(&self) -> impl Iterator<Item = &Holder<S>> {
        self.ports.values().flatten()
    }
}
