//! Changes of a namespace's interfaces, addresses and routes.

use crate::netns::{Interface, InterfaceAddr, LinkKind, NetNs, Route};
use abi::{Errno, SysResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
/// IFF_RUNNING | IFF_LOWER_UP: with IFF_UP.
const IFF_CARRIER: u32 = 0x1_0040;
/// IFF_BROADCAST | IFF_NOARP, and the flags that a user may set: DEBUG, NOTRAILERS, NOARP, PROMISC, ALLMULTI,
/// MULTICAST.
const DUMMY_FLAGS: u32 = 0x82;
const USER_FLAGS: u32 = 0x4 | 0x20 | 0x80 | 0x100 | 0x200 | 0x1000;
/// IFF_BROADCAST | IFF_MULTICAST.
const BRIDGE_FLAGS: u32 = 0x1002;
/// Most interfaces of a namespace.
const MOST_LINKS: usize = 4096;
static NEXT_HW: AtomicU32 = AtomicU32::new(1);
/// Least MTU that IPv4 works with.
const LEAST_MTU: u32 = 68;

/// What becomes of a route that is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Existing {
    /// It stays, and the new one is `EEXIST`.
    Stays,
    /// The new one takes its place.
    Replaced,
}

impl InterfaceAddr {
    /// The broadcast address of its network, if it is one of more than two hosts.
    #[must_use]
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        let IpAddr::V4(ip) = self.ip else { return None };
        (self.prefix < 31).then(|| Ipv4Addr::from_bits(ip.to_bits() | u32::MAX >> self.prefix))
    }
    /// Whether `ip` lies in the address' network.
    #[must_use]
    pub fn covers(&self, ip: IpAddr) -> bool {
        match (self.ip, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                (own.to_bits() ^ ip.to_bits()) & mask == 0
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                (own.to_bits() ^ ip.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl Interface {
    /// `lo` as a namespace is born with it: down.
    #[must_use]
    pub fn loopback_down() -> Interface {
        Interface { flags: IFF_LOOPBACK, addrs: Vec::new(), ..Interface::loopback() }
    }
    /// Whether it is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.flags & IFF_UP != 0
    }

    fn go_up(&mut self) {
        self.flags |= IFF_UP | IFF_CARRIER;
        if self.is_loopback() {
            if !self.addrs.iter().any(|a| a.ip.is_ipv4()) {
                self.addrs.insert(0, InterfaceAddr { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 8 });
            }
            let six = InterfaceAddr { ip: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 };
            if !self.addrs.contains(&six) {
                self.addrs.push(six);
            }
        }
    }
    fn go_down(&mut self) {
        self.flags &= !(IFF_UP | IFF_CARRIER);
        // Linux keeps the IPv4 addresses.
        self.addrs.retain(|a| a.ip.is_ipv4());
    }
}

impl NetNs {
    /// Changes one interface; `ENODEV`.
    pub(crate) fn update<T>(&self, index: u32, change: impl FnOnce(&mut Interface) -> T) -> SysResult<T> {
        self.with_interfaces(|all| all.iter_mut().find(|i| i.index == index).map(change)).ok_or(Errno::ENODEV)
    }
    /// A further interface, down; its index. A name with `%d` in it, or the kind's, gets the first free number.
    pub(crate) fn add_link(&self, kind: LinkKind, name: Option<&str>, wanted: u32) -> SysResult<u32> {
        let (stem, flags) = match kind {
            LinkKind::Dummy => ("dummy%d", DUMMY_FLAGS),
            LinkKind::Bridge => ("br%d", BRIDGE_FLAGS),
            _ => ("veth%d", BRIDGE_FLAGS),
        };
        self.with_interfaces(|all| {
            if all.len() >= MOST_LINKS {
                return Err(Errno::ENOBUFS);
            }
            if wanted != 0 && all.iter().any(|i| i.index == wanted) {
                return Err(Errno::EBUSY);
            }
            let taken = |name: &str| all.iter().any(|i| i.name == name);
            let name = match name {
                Some(name) if taken(name) => return Err(Errno::EEXIST),
                Some(name) if !name.contains("%d") => name.to_owned(),
                pattern => {
                    let pattern = pattern.unwrap_or(stem);
                    let numbered = (0_u32..).map(|n| pattern.replacen("%d", &n.to_string(), 1));
                    numbered.take(MOST_LINKS).find(|name| !taken(name)).ok_or(Errno::ENFILE)?
                }
            };
            let next = all.iter().map(|i| i.index).max().unwrap_or(0).saturating_add(1);
            let index = if wanted == 0 { next } else { wanted };
            // A local address, of which no two in the sandbox are the same.
            let [a, b, c, d] = NEXT_HW.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            let hw = [0x02, 0x42, a, b, c, d];
            all.push(Interface {
                index,
                name,
                flags,
                mtu: 1500,
                hw,
                addrs: Vec::new(),
                kind,
                master: 0,
                queue_len: 1000,
                alias: String::new(),
            });
            Ok(index)
        })
    }
    /// Takes an interface away; the loopback stays (`EOPNOTSUPP`).
    pub(crate) fn delete_link(&self, index: u32) -> SysResult<()> {
        self.with_interfaces(|all| {
            let at = all.iter().position(|i| i.index == index).ok_or(Errno::ENODEV)?;
            if all.get(at).is_some_and(Interface::is_loopback) {
                return Err(Errno::EOPNOTSUPP);
            }
            all.remove(at);
            for port in all.iter_mut().filter(|i| i.master == index) {
                port.master = 0;
            }
            Ok(())
        })?;
        self.forget_link(index);
        if let Some((far, end)) = self.peer_of(index) {
            // The other end of a pair goes too.
            self.set_peer(index, None);
            far.set_peer(end, None);
            let _ = far.delete_link(end);
        }
        Ok(())
    }
    fn forget_link(&self, index: u32) {
        self.with_routes(|routes| routes.retain(|r| r.index != index));
        self.with_neighbours(|all| all.retain(|n| n.index != index));
    }
    /// Makes two links each other's ends.
    pub(crate) fn pair(self: &Arc<Self>, index: u32, far: &Arc<NetNs>, end: u32) {
        self.set_peer(index, Some((far, end)));
        far.set_peer(end, Some((self, index)));
    }
    /// Moves an interface into another namespace, where it is down and without addresses.
    pub(crate) fn move_link(
        self: &Arc<Self>,
        index: u32,
        to: &Arc<NetNs>,
        name: Option<&str>,
    ) -> SysResult<u32> {
        if Arc::ptr_eq(self, to) {
            return Ok(index);
        }
        let moved = self.interfaces().into_iter().find(|i| i.index == index).ok_or(Errno::ENODEV)?;
        if moved.is_loopback() {
            return Err(Errno::EINVAL);
        }
        let name = name.unwrap_or(&moved.name);
        if to.has_interface(name.as_bytes()) {
            return Err(Errno::EEXIST);
        }
        let wanted = if to.interfaces().iter().any(|i| i.index == index) { 0 } else { index };
        let there = to.add_link(moved.kind, Some(name), wanted)?;
        to.update(there, |i| {
            i.hw = moved.hw;
            i.mtu = moved.mtu;
        })?;
        self.with_interfaces(|all| all.retain(|i| i.index != index));
        self.forget_link(index);
        if let Some((far, end)) = self.peer_of(index) {
            self.set_peer(index, None);
            to.pair(there, &far, end);
        }
        Ok(there)
    }
    /// Gives an interface that is down another name.
    pub(crate) fn rename(&self, index: u32, name: &str) -> SysResult<()> {
        self.with_interfaces(|all| {
            if all.iter().any(|i| i.name == name && i.index != index) {
                return Err(Errno::EEXIST);
            }
            let interface = all.iter_mut().find(|i| i.index == index).ok_or(Errno::ENODEV)?;
            if interface.name != name && interface.is_up() {
                return Err(Errno::EBUSY);
            }
            interface.name = name.to_owned();
            Ok(())
        })
    }
    /// Sets the MTU.
    pub(crate) fn set_mtu(&self, index: u32, mtu: u32) -> SysResult<()> {
        self.update(index, |interface| {
            if !interface.is_loopback() && !(LEAST_MTU..=65_535).contains(&mtu) {
                return Err(Errno::EINVAL);
            }
            interface.mtu = mtu;
            Ok(())
        })?
    }
    /// Sets the flags of `mask`; brings it up or down.
    pub(crate) fn set_flags(&self, index: u32, flags: u32, mask: u32) -> SysResult<()> {
        let down = self.update(index, |interface| {
            let set = mask & USER_FLAGS;
            interface.flags = (interface.flags & !set) | (flags & set);
            match (mask & IFF_UP != 0, flags & IFF_UP != 0, interface.is_up()) {
                (true, true, false) => interface.go_up(),
                (true, false, true) => {
                    interface.go_down();
                    return true;
                }
                _ => {}
            }
            false
        })?;
        if down {
            self.with_routes(|routes| routes.retain(|r| r.index != index));
        }
        Ok(())
    }
    /// Adds an address; `EEXIST`.
    pub(crate) fn add_address(&self, index: u32, addr: InterfaceAddr) -> SysResult<()> {
        self.update(index, |interface| {
            if interface.addrs.contains(&addr) {
                return Err(Errno::EEXIST);
            }
            interface.addrs.push(addr);
            Ok(())
        })?
    }
    /// Takes an address away; `EADDRNOTAVAIL`.
    pub(crate) fn delete_address(&self, index: u32, addr: InterfaceAddr) -> SysResult<()> {
        self.update(index, |interface| {
            let at = interface.addrs.iter().position(|a| *a == addr).ok_or(Errno::EADDRNOTAVAIL)?;
            interface.addrs.remove(at);
            Ok(())
        })?
    }
    /// The one IPv4 address as SIOCSIFADDR sets it, with the prefix of its class.
    pub(crate) fn set_address(&self, index: u32, ip: Ipv4Addr) -> SysResult<()> {
        let prefix = match ip.octets() {
            [0..=127, ..] => 8,
            [128..=191, ..] => 16,
            [192..=223, ..] => 24,
            _ => return Err(Errno::EINVAL),
        };
        self.update(index, |interface| {
            let first = interface.addrs.iter().position(|a| a.ip.is_ipv4());
            if let Some(at) = first {
                interface.addrs.remove(at);
            }
            if !ip.is_unspecified() {
                interface.addrs.insert(0, InterfaceAddr { ip: IpAddr::V4(ip), prefix });
            }
        })
    }
    /// SIOCSIFNETMASK: the prefix of the first IPv4 address.
    pub(crate) fn set_netmask(&self, index: u32, mask: Ipv4Addr) -> SysResult<()> {
        let bits = mask.to_bits();
        if bits.leading_ones() + bits.trailing_zeros() < 32 {
            return Err(Errno::EINVAL);
        }
        let prefix = u8::try_from(bits.leading_ones()).map_err(|_| Errno::EINVAL)?;
        self.update(index, |interface| {
            let first = interface.addrs.iter_mut().find(|a| a.ip.is_ipv4());
            first.map(|a| a.prefix = prefix).ok_or(Errno::EADDRNOTAVAIL)
        })?
    }
    /// Adds a route.
    pub(crate) fn add_route(&self, mut route: Route, existing: Existing) -> SysResult<()> {
        let interfaces = self.interfaces();
        if let Some(gateway) = route.gateway {
            let reached = |i: &&Interface| {
                i.is_up()
                    && (route.index == 0 || i.index == route.index)
                    && i.addrs.iter().any(|a| a.covers(gateway) && a.ip != gateway)
            };
            route.index = interfaces.iter().find(reached).ok_or(Errno::ENETUNREACH)?.index;
        }
        // A route that leads nowhere (blackhole, unreachable, prohibit) needs no interface.
        if !matches!(route.kind, 6..=8) {
            let out = interfaces.iter().find(|i| i.index == route.index).ok_or(Errno::ENODEV)?;
            if !out.is_up() {
                return Err(Errno::ENETDOWN);
            }
        }
        self.with_routes(|routes| {
            match routes.iter_mut().find(|r| r.same_target(&route)) {
                Some(old) if existing == Existing::Replaced => *old = route,
                Some(_) => return Err(Errno::EEXIST),
                None => routes.push(route),
            }
            Ok(())
        })
    }
    /// Takes a route away; `ESRCH`.
    pub(crate) fn delete_route(&self, like: &Route) -> SysResult<()> {
        self.with_routes(|routes| {
            let fits = |r: &Route| {
                (r.family, r.target, r.prefix, r.table) == (like.family, like.target, like.prefix, like.table)
                    && (like.metric == 0 || r.metric == like.metric)
                    && (like.index == 0 || r.index == like.index)
                    && (like.gateway.is_none() || r.gateway == like.gateway)
            };
            let at = routes.iter().position(fits).ok_or(Errno::ESRCH)?;
            routes.remove(at);
            Ok(())
        })
    }
}

impl Route {
    fn same_target(&self, other: &Route) -> bool {
        (self.family, self.target, self.prefix, self.table, self.metric)
            == (other.family, other.target, other.prefix, other.table, other.metric)
    }
}
