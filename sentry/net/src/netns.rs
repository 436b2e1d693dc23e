//! A network namespace: interfaces, ports, abstract names. Rank of the tables: `NetStack`.

use crate::host::HostNet;
use crate::inet::ports::PortTable;
use crate::inet::raw::RawSocket;
use crate::inet::tcp::TcpSocket;
use crate::inet::udp::UdpSocket;
use crate::netlink::NetlinkSocket;
use crate::packet::PacketSocket;
use crate::socket::SocketFile;
use crate::unix::UnixSocket;
use abi::{Errno, SysResult, UserAddr, ioctl};
use lock::Ranked;
use lock::order::{Leaf, NetStack};
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use vfs::{Caller, Capabilities, GuestMemory, UserNamespace};

/// IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP.
const LO_FLAGS: u32 = 0x1_0049;
/// IFF_UP | IFF_RUNNING | IFF_LOWER_UP.
const UP_FLAGS: u32 = 0x1_0041;

/// One address of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceAddr {
    /// Address.
    pub ip: IpAddr,
    /// Prefix length.
    pub prefix: u8,
}

/// What an interface is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinkKind {
    /// `lo`.
    Loopback,
    /// One of the host's.
    Ethernet,
    /// One that swallows what is sent.
    Dummy,
    /// One end of a pair.
    Veth,
    /// One that joins others.
    Bridge,
}

/// One interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// What it is.
    pub kind: LinkKind,
    /// The bridge that it is a port of, or 0.
    pub master: u32,
    /// Length of the transmit queue.
    pub queue_len: u32,
    /// IFLA_IFALIAS.
    pub alias: String,
    /// Index, from 1.
    pub index: u32,
    /// Name.
    pub name: String,
    /// IFF_* flags.
    pub flags: u32,
    /// MTU.
    pub mtu: u32,
    /// Hardware address.
    pub hw: [u8; 6],
    /// Addresses.
    pub addrs: Vec<InterfaceAddr>,
}

impl Interface {
    /// `lo`, up, with its two addresses.
    #[must_use]
    pub fn loopback() -> Interface {
        Interface {
            kind: LinkKind::Loopback,
            master: 0,
            queue_len: 1000,
            alias: String::new(),
            index: 1,
            name: "lo".into(),
            flags: LO_FLAGS,
            mtu: 65536,
            hw: [0; 6],
            addrs: vec![
                InterfaceAddr { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 8 },
                InterfaceAddr { ip: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
            ],
        }
    }
    /// Whether it is a loopback interface.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.flags & 0x8 != 0
    }
}

/// One neighbour that was added (ip-neighbour(8)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Interface.
    pub index: u32,
    /// Address.
    pub ip: IpAddr,
    /// Hardware address.
    pub hw: Option<[u8; 6]>,
    /// NUD_*.
    pub state: u16,
    /// NTF_*.
    pub flags: u8,
}

/// One route that was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// AF_INET or AF_INET6.
    pub family: u8,
    /// Network; `None` for the default route.
    pub target: Option<IpAddr>,
    /// Prefix length.
    pub prefix: u8,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Interface.
    pub index: u32,
    /// Preferred source.
    pub source: Option<IpAddr>,
    /// Table.
    pub table: u32,
    /// RTPROT_*.
    pub protocol: u8,
    /// RT_SCOPE_*.
    pub scope: u8,
    /// RTN_*.
    pub kind: u8,
    /// Priority.
    pub metric: u32,
}

/// Every open socket, swept when it has doubled.
#[derive(Default)]
struct SocketList {
    open: Vec<Weak<SocketFile>>,
    sweep_at: usize,
}

/// A network namespace.
pub struct NetNs {
    /// Number in /proc/pid/ns.
    pub ino: u64,
    /// The user namespace that owns it.
    pub user_ns: Arc<UserNamespace>,
    host: Option<HostNet>,
    interfaces: Ranked<NetStack, Vec<Interface>>,
    routes: Ranked<NetStack, Vec<Route>>,
    pub(crate) tcp: Ranked<NetStack, PortTable<TcpSocket>>,
    pub(crate) udp: Ranked<NetStack, PortTable<UdpSocket>>,
    pub(crate) udplite: Ranked<NetStack, PortTable<UdpSocket>>,
    pub(crate) packet: Ranked<NetStack, Vec<Weak<PacketSocket>>>,
    pub(crate) routers: Ranked<NetStack, Vec<Weak<NetlinkSocket>>>,
    /// Sockets that look at packets: while there are none, packets are not laid out.
    pub(crate) watchers: AtomicUsize,
    // The other ends of this namespace's veth links, by the index here.
    peers: Ranked<NetStack, HashMap<u32, (Weak<NetNs>, u32)>>,
    neighbours: Ranked<NetStack, Vec<Neighbour>>,
    /// `net.ipv4.ip_forward`.
    pub forwarding: AtomicU32,
    /// `net.core.rmem_max` and `net.core.wmem_max`, before doubling.
    pub buffer_max: [AtomicU32; 2],
    pub(crate) raw: Ranked<NetStack, Vec<Weak<RawSocket>>>,
    pub(crate) abstract_names: Ranked<NetStack, HashMap<Vec<u8>, Weak<UnixSocket>>>,
    sockets: Ranked<NetStack, SocketList>,
    pub(crate) netlink_ports: Ranked<NetStack, HashMap<(i32, u32), Weak<NetlinkSocket>>>,
    /// `net.ipv4.ip_local_port_range`, low and high.
    pub port_range: [AtomicU32; 2],
    /// `net.core.somaxconn`.
    pub somaxconn: AtomicU32,
    /// `net.ipv4.ip_unprivileged_port_start`.
    pub unprivileged_port: AtomicU32,
    /// `net.ipv4.ping_group_range`: the groups that may ping, low and high.
    pub ping_groups: [AtomicU32; 2],
    /// `net.unix.max_dgram_qlen`.
    pub unix_queue: AtomicU32,
    /// Values of /proc/sys/net that were set here, by path.
    pub sysctl: Ranked<Leaf, BTreeMap<String, String>>,
}

impl std::fmt::Debug for NetNs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NetNs({})", self.ino)
    }
}

impl NetNs {
    /// The number at `index` of a value of /proc/sys that was set here; `None` leaves what it is by default.
    pub(crate) fn sysctl(&self, path: &str, index: usize) -> Option<i32> {
        let sysctl = self.sysctl.lock();
        let number = sysctl.get(path)?.split_ascii_whitespace().nth(index)?.parse::<i64>().ok()?;
        Some(i32::try_from(number).unwrap_or(i32::MAX))
    }
    /// A namespace with `lo` only, up.
    #[must_use]
    pub fn new(ino: u64, user_ns: Arc<UserNamespace>) -> Arc<NetNs> {
        NetNs::with_host(ino, user_ns, None)
    }
    /// A namespace as unshare(2) makes it: `lo` is down.
    #[must_use]
    pub fn fresh(ino: u64, user_ns: Arc<UserNamespace>) -> Arc<NetNs> {
        let ns = NetNs::new(ino, user_ns);
        ns.set_interfaces(vec![Interface::loopback_down()]);
        ns
    }
    /// A namespace whose inet sockets and interfaces are those of a namespace of the host's.
    #[must_use]
    pub fn with_host(ino: u64, user_ns: Arc<UserNamespace>, host: Option<HostNet>) -> Arc<NetNs> {
        Arc::new(NetNs {
            ino,
            user_ns,
            host,
            interfaces: Ranked::new(vec![Interface::loopback()]),
            routes: Ranked::default(),
            tcp: Ranked::default(),
            udp: Ranked::default(),
            udplite: Ranked::default(),
            packet: Ranked::default(),
            routers: Ranked::default(),
            watchers: AtomicUsize::new(0),
            peers: Ranked::default(),
            neighbours: Ranked::default(),
            forwarding: AtomicU32::new(0),
            buffer_max: [AtomicU32::new(4 << 20), AtomicU32::new(4 << 20)],
            raw: Ranked::default(),
            abstract_names: Ranked::default(),
            sockets: Ranked::default(),
            netlink_ports: Ranked::default(),
            port_range: [AtomicU32::new(32768), AtomicU32::new(60999)],
            somaxconn: AtomicU32::new(4096),
            unprivileged_port: AtomicU32::new(1024),
            ping_groups: [AtomicU32::new(1), AtomicU32::new(0)],
            unix_queue: AtomicU32::new(10),
            sysctl: Ranked::default(),
        })
    }
    pub(crate) fn note_socket(&self, file: &Arc<SocketFile>) {
        let mut list = self.sockets.lock();
        if list.open.len() >= list.sweep_at.max(64) {
            list.open.retain(|f| f.strong_count() > 0);
            list.sweep_at = list.open.len().saturating_mul(2);
        }
        list.open.push(Arc::downgrade(file));
    }
    /// The other end of a veth link.
    pub(crate) fn peer_of(&self, index: u32) -> Option<(Arc<NetNs>, u32)> {
        let (ns, end) = self.peers.lock().get(&index).cloned()?;
        Some((ns.upgrade()?, end))
    }
    pub(crate) fn set_peer(&self, index: u32, end: Option<(&Arc<NetNs>, u32)>) {
        let mut peers = self.peers.lock();
        match end {
            Some((ns, end)) => peers.insert(index, (Arc::downgrade(ns), end)),
            None => peers.remove(&index),
        };
    }
    pub(crate) fn with_neighbours<T>(&self, act: impl FnOnce(&mut Vec<Neighbour>) -> T) -> T {
        act(&mut self.neighbours.lock())
    }
    /// The neighbours that were added.
    #[must_use]
    pub fn neighbours(&self) -> Vec<Neighbour> {
        self.neighbours.lock().clone()
    }
    /// Whether anybody looks at packets.
    pub(crate) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) != 0
    }
    /// Every open socket.
    pub(crate) fn socket_files(&self) -> Vec<Arc<SocketFile>> {
        self.sockets.lock().open.iter().filter_map(Weak::upgrade).collect()
    }
    /// The namespace of the host's behind this one.
    #[must_use]
    pub fn host(&self) -> Option<&HostNet> {
        self.host.as_ref()
    }
    /// A copy of the interfaces.
    #[must_use]
    pub fn interfaces(&self) -> Vec<Interface> {
        match &self.host {
            Some(host) => host.interfaces().unwrap_or_default(),
            None => self.interfaces.lock().clone(),
        }
    }
    /// Replaces the interfaces (a stack brings its own).
    pub fn set_interfaces(&self, interfaces: Vec<Interface>) {
        *self.interfaces.lock() = interfaces;
    }
    pub(crate) fn with_interfaces<T>(&self, act: impl FnOnce(&mut Vec<Interface>) -> T) -> T {
        act(&mut self.interfaces.lock())
    }
    pub(crate) fn with_routes<T>(&self, act: impl FnOnce(&mut Vec<Route>) -> T) -> T {
        act(&mut self.routes.lock())
    }
    /// The routes that were added, beside those of the addresses.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        self.routes.lock().clone()
    }
    /// Whether an interface of that name exists.
    #[must_use]
    pub fn has_interface(&self, name: &[u8]) -> bool {
        self.interfaces().iter().any(|i| i.name.as_bytes() == name)
    }
    /// Whether `ip` is one of this host's own addresses.
    #[must_use]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        // All of a network on the loopback is this host's, but for the broadcast address.
        let own = |i: &Interface| {
            let among = |a: &InterfaceAddr| match ip {
                IpAddr::V4(v4) => a.covers(ip) && a.broadcast() != Some(v4),
                IpAddr::V6(_) => false,
            };
            i.addrs.iter().any(|a| a.ip == ip || i.is_loopback() && among(a))
        };
        self.interfaces.lock().iter().any(|i| i.is_up() && own(i))
    }
    /// Whether the caller may make a ping socket: by a group of its own.
    pub(crate) fn may_ping(&self, by: &Caller<'_>) -> SysResult<()> {
        let [low, high] = [0, 1].map(|at| self.ping_groups.get(at).map_or(0, |g| g.load(Ordering::Relaxed)));
        let mut groups = by.cred.groups.iter().chain(std::iter::once(&by.cred.egid));
        let allowed = groups.any(|group| (low..=high).contains(&self.user_ns.show_gid(*group)));
        if allowed { Ok(()) } else { Err(Errno::EACCES) }
    }
    /// Whether the caller may bind `port`.
    pub(crate) fn may_bind_port(&self, port: u16, by: &Caller<'_>) -> SysResult<()> {
        if port != 0
            && u32::from(port) < self.unprivileged_port.load(Ordering::Relaxed)
            && !by.cred.has_in(Capabilities::NET_BIND_SERVICE, &self.user_ns)
        {
            return Err(Errno::EACCES);
        }
        Ok(())
    }

    /// SIOCGIF* and SIOCSIF* (netdevice(7)); changes need CAP_NET_ADMIN.
    pub fn interface_ioctl(
        self: &Arc<Self>,
        request: u32,
        at: UserAddr,
        memory: &dyn GuestMemory,
        by: &Caller<'_>,
    ) -> SysResult<u64> {
        match request {
            ioctl::SIOCGIFCONF => return self.list(at, memory),
            ioctl::SIOCSIFFLAGS | ioctl::SIOCSIFADDR | ioctl::SIOCSIFNETMASK | ioctl::SIOCSIFMTU => {
                if !by.cred.has_in(Capabilities::NET_ADMIN, &self.user_ns) {
                    return Err(Errno::EPERM);
                }
                let mut req = [0; 40];
                memory.read(at, &mut req)?;
                return crate::netlink::events::telling(self, || self.configure(request, &req)).map(|()| 0);
            }
            ioctl::SIOCETHTOOL => return Err(Errno::EOPNOTSUPP),
            0x8910..=0x8970 => {}
            _ => return Err(Errno::ENOTTY),
        }
        let mut req = [0; 40];
        memory.read(at, &mut req)?;
        let (head, value) = req.split_at_mut(16);
        if request == ioctl::SIOCGIFNAME {
            let index = u32::from_ne_bytes([value[0], value[1], value[2], value[3]]);
            let interface = self.interfaces().into_iter().find(|i| i.index == index).ok_or(Errno::ENODEV)?;
            head.fill(0);
            for (slot, byte) in head.iter_mut().take(15).zip(interface.name.bytes()) {
                *slot = byte;
            }
            memory.write(at, &req)?;
            return Ok(0);
        }
        let interface = self.named(head)?;
        value.fill(0);
        let v4 = interface.addrs.iter().find_map(|a| match a.ip {
            IpAddr::V4(ip) => Some((ip, a.prefix)),
            IpAddr::V6(_) => None,
        });
        let mut put = |bytes: &[u8]| {
            for (slot, byte) in value.iter_mut().zip(bytes) {
                *slot = *byte;
            }
        };
        let mut put_v4 = |ip: Ipv4Addr| {
            put(&2u16.to_ne_bytes());
            let [a, b, c, d] = ip.octets();
            put(&[2, 0, 0, 0, a, b, c, d]);
        };
        match request {
            ioctl::SIOCGIFFLAGS => put(&interface.flags.to_ne_bytes()[..2]),
            ioctl::SIOCGIFADDR | ioctl::SIOCGIFDSTADDR => put_v4(v4.ok_or(Errno::EADDRNOTAVAIL)?.0),
            ioctl::SIOCGIFNETMASK => {
                let prefix = u32::from(v4.ok_or(Errno::EADDRNOTAVAIL)?.1);
                put_v4(Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0)));
            }
            ioctl::SIOCGIFBRDADDR => {
                let (ip, prefix) = v4.ok_or(Errno::EADDRNOTAVAIL)?;
                let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                let broadcast = if interface.is_loopback() {
                    Ipv4Addr::UNSPECIFIED
                } else {
                    Ipv4Addr::from_bits(ip.to_bits() | host)
                };
                put_v4(broadcast);
            }
            ioctl::SIOCGIFMETRIC => put(&[0; 4]),
            ioctl::SIOCGIFMTU => put(&interface.mtu.to_ne_bytes()),
            ioctl::SIOCGIFHWADDR => {
                let kind: u16 = if interface.is_loopback() { 772 } else { 1 };
                let mut bytes = kind.to_ne_bytes().to_vec();
                bytes.extend_from_slice(&interface.hw);
                put(&bytes);
            }
            ioctl::SIOCGIFINDEX => put(&interface.index.to_ne_bytes()),
            ioctl::SIOCGIFTXQLEN => put(&1000u32.to_ne_bytes()),
            ioctl::SIOCGIFMAP => {}
            _ => return Err(Errno::EINVAL),
        }
        memory.write(at, &req)?;
        Ok(0)
    }

    /// SIOCSIF*. The links of a namespace of the host's are not for guests to change.
    fn configure(&self, request: u32, req: &[u8; 40]) -> SysResult<()> {
        let interface = self.named(req)?;
        let index = interface.index;
        let flags = u32::from(u16::from_ne_bytes([req[16], req[17]]));
        if self.host.is_some() {
            let same = request == ioctl::SIOCSIFFLAGS && flags & 1 == interface.flags & 1;
            return if same { Ok(()) } else { Err(Errno::EPERM) };
        }
        let ip = Ipv4Addr::new(req[20], req[21], req[22], req[23]);
        match request {
            ioctl::SIOCSIFFLAGS => self.set_flags(index, flags, 0xffff),
            ioctl::SIOCSIFMTU => {
                self.set_mtu(index, u32::from_ne_bytes([req[16], req[17], req[18], req[19]]))
            }
            _ if [req[16], req[17]] != 2_u16.to_ne_bytes() => Err(Errno::EINVAL),
            ioctl::SIOCSIFADDR => self.set_address(index, ip),
            _ => self.set_netmask(index, ip),
        }
    }

    fn named(&self, request: &[u8]) -> SysResult<Interface> {
        let name = request.get(..16).unwrap_or_default();
        let end = name.iter().position(|b| *b == 0 || *b == b':').unwrap_or(15);
        let name = name.get(..end).unwrap_or_default();
        self.interfaces().into_iter().find(|i| i.name.as_bytes() == name).ok_or(Errno::ENODEV)
    }

    fn list(&self, at: UserAddr, memory: &dyn GuestMemory) -> SysResult<u64> {
        let mut conf = [0; 16];
        memory.read(at, &mut conf)?;
        let [l0, l1, l2, l3, _, _, _, _, pointer @ ..] = conf;
        // Less than nothing is no room; without a buffer nobody looks at it, and Java leaves it as it was.
        let len = usize::try_from(i32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(0);
        let pointer = UserAddr::new(u64::from_ne_bytes(pointer));
        let mut out = Vec::new();
        for interface in self.interfaces() {
            for addr in &interface.addrs {
                let IpAddr::V4(ip) = addr.ip else { continue };
                let mut entry = interface.name.as_bytes().to_vec();
                entry.resize(16, 0);
                entry.extend_from_slice(&[2, 0, 0, 0]);
                entry.extend_from_slice(&ip.octets());
                entry.resize(40, 0);
                out.extend(entry);
            }
        }
        let written = if pointer.is_null() {
            out.len()
        } else {
            let fits = len / 40 * 40;
            out.truncate(fits);
            memory.write(pointer, &out)?;
            out.len()
        };
        memory.write(at, &i32::try_from(written).unwrap_or(0).to_ne_bytes())?;
        Ok(0)
    }
}

impl Interface {
    /// An Ethernet-like interface that is up.
    #[must_use]
    pub fn ethernet(index: u32, name: &str, mtu: u32, hw: [u8; 6], addrs: Vec<InterfaceAddr>) -> Interface {
        Interface {
            kind: LinkKind::Ethernet,
            master: 0,
            queue_len: 1000,
            alias: String::new(),
            index,
            name: name.into(),
            flags: UP_FLAGS | 0x1002,
            mtu,
            hw,
            addrs,
        }
    }
}
