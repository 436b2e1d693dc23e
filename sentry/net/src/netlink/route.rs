//! Requests of the route family (rtnetlink(7)).

use super::out::{HEADER, NLM_F_MULTI, Out, Reply, attribute, family, ip_of, messages, octets};
use super::show;
use super::{Answered, CHUNK, NLM_F_ACK, NLMSG_DONE, NetlinkSocket, Request, change, events};
use crate::host::HostNet;
use crate::host::wire::Dump;
use crate::netns::Interface;
use abi::{Errno, SysResult};
use vfs::{Caller, Capabilities};

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const RTM_GETRULE: u16 = 34;
const RTM_NEWSTATS: u16 = 92;
const RTM_GETSTATS: u16 = 94;

fn index_in(body: &[u8]) -> u32 {
    body.get(4..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b))
}

/// The name that an attribute of a link's request holds: IFLA_IFNAME, or IFLA_ALT_IFNAME.
fn name_in(body: &[u8]) -> Option<&[u8]> {
    let attributes = body.get(16..)?;
    let name = attribute(attributes, 3).or_else(|| attribute(attributes, 53))?;
    Some(name.strip_suffix(&[0]).unwrap_or(name))
}

impl NetlinkSocket {
    /// Answers a request.
    pub(super) fn route(&self, request: &Request, reply: Reply, by: &Caller<'_>) -> SysResult<Answered> {
        let ns = &self.base.ns;
        let body = request.body();
        let wanted_family = body.first().copied().unwrap_or(0);
        if let Some(host) = ns.host()
            && let Some(answered) = self.host_route(host, request, reply)?
        {
            return Ok(answered);
        }
        let multi = Reply { flags: NLM_F_MULTI, ..reply };
        let of_family = |family: u8| wanted_family == 0 || family == wanted_family;
        match (request.kind, request.is_dump()) {
            (RTM_GETLINK, true) => {
                let interfaces = ns.interfaces();
                self.dump(interfaces.iter(), reply, |out, i| {
                    show::link(out, show::RTM_NEWLINK, ns, i, multi)
                });
            }
            (RTM_GETLINK, false) => {
                let (index, name) = (index_in(body), name_in(body));
                if index == 0 && name.is_none() {
                    return Err(Errno::EINVAL);
                }
                let fits = |i: &&Interface| match name {
                    Some(name) if index == 0 => i.name.as_bytes() == name,
                    _ => i.index == index,
                };
                let interfaces = ns.interfaces();
                let found = interfaces.iter().find(fits).ok_or(Errno::ENODEV)?;
                return Ok(self.one(request, |out| show::link(out, show::RTM_NEWLINK, ns, found, reply)));
            }
            (RTM_GETADDR, true) => {
                let interfaces = ns.interfaces();
                let rows = interfaces.iter().flat_map(|i| i.addrs.iter().map(move |a| (i, *a)));
                let rows = rows.filter(|(_, a)| of_family(family(a.ip)));
                self.dump(rows, reply, |out, (i, a)| show::address(out, show::RTM_NEWADDR, i, a, multi));
            }
            (RTM_GETROUTE, true) => {
                let interfaces = ns.interfaces();
                let own = interfaces.iter().filter(|i| i.is_up());
                let own = own.flat_map(|i| i.addrs.iter().flat_map(move |a| show::routes_of(i, *a)));
                let rows = ns.routes().into_iter().chain(own).filter(|r| of_family(r.family));
                self.dump(rows, reply, |out, row| show::route(out, show::RTM_NEWROUTE, &row, multi));
            }
            (RTM_GETROUTE, false) => return self.route_lookup(request, reply),
            (RTM_GETNEIGH, true) => {
                let index = index_in(body);
                let rows = ns.neighbours().into_iter();
                let rows = rows.filter(|n| of_family(family(n.ip)) && (index == 0 || n.index == index));
                self.dump(rows, reply, |out, row| show::neighbour(out, show::RTM_NEWNEIGH, &row, multi));
            }
            (RTM_GETNEIGH, false) => {
                let ip = ip_of(attribute(body.get(12..).unwrap_or_default(), 1).ok_or(Errno::EINVAL)?)?;
                let found = ns.neighbours().into_iter().find(|n| n.index == index_in(body) && n.ip == ip);
                let found = found.ok_or(Errno::ENOENT)?;
                return Ok(self.one(request, |out| show::neighbour(out, show::RTM_NEWNEIGH, &found, reply)));
            }
            (RTM_GETRULE, true) => {
                let tables: &[(u32, u32)] = &[(0, 255), (32_766, 254), (32_767, 253)];
                let families: &[u8] = match wanted_family {
                    0 => &[2, 10],
                    2 => &[2],
                    10 => &[10],
                    _ => return Err(Errno::EOPNOTSUPP),
                };
                let rows = families.iter().flat_map(|family| tables.iter().map(move |row| (*family, *row)));
                // IPv6 has no table of defaults.
                let rows = rows.filter(|(family, (_, table))| *family == 2 || *table != 253);
                self.dump(rows, reply, |out, (family, (priority, table))| {
                    out.begin(32, multi);
                    let short = u8::try_from(table).unwrap_or(0);
                    out.put(&[family, 0, 0, 0, short, 0, 0, 1, 0, 0, 0, 0]);
                    out.word(15, table);
                    out.word(14, u32::MAX);
                    if priority != 0 {
                        out.word(6, priority);
                    }
                    out.end();
                });
            }
            (RTM_GETSTATS, dump) => {
                let index = index_in(body);
                let interfaces = ns.interfaces();
                let mut rows = interfaces.iter().filter(|i| dump || i.index == index);
                let row = |out: &mut Out, i: &Interface, reply: Reply| {
                    out.begin(RTM_NEWSTATS, reply);
                    out.put(&[0; 4]);
                    out.put(&i.index.to_ne_bytes());
                    out.put(&1_u32.to_ne_bytes());
                    out.attr(1, &[0; 200]);
                    out.end();
                };
                if !dump {
                    let found = rows.next().ok_or(Errno::ENODEV)?;
                    return Ok(self.one(request, |out| row(out, found, reply)));
                }
                self.dump(rows, reply, |out, i| row(out, i, multi));
            }
            // Queueing disciplines and their like: none.
            (38 | 42 | 46 | 58 | 62 | 66 | 74 | 82, true) => self.dump([].iter(), reply, |_, _: &()| {}),
            (kind, _) if kind % 4 == 2 => return Err(Errno::EOPNOTSUPP),
            (16..=103, _) => {
                if !by.cred.has_in(Capabilities::NET_ADMIN, &ns.user_ns) {
                    return Err(Errno::EPERM);
                }
                if ns.host().is_some() {
                    self.unchanged(request.kind, body, &ns.interfaces())?;
                } else {
                    events::telling(ns, || change::apply(ns, request.kind, request.flags, body, by))?;
                }
                return Ok(Answered::No);
            }
            _ => return Err(Errno::EOPNOTSUPP),
        }
        Ok(Answered::Yes)
    }

    /// One message as the answer, before the acknowledgement that was asked for.
    fn one(&self, request: &Request, fill: impl FnOnce(&mut Out)) -> Answered {
        let mut out = Out::default();
        fill(&mut out);
        self.deliver(out.bytes);
        if request.flags & NLM_F_ACK == 0 { Answered::Yes } else { Answered::No }
    }

    /// RTM_GETROUTE for one address.
    fn route_lookup(&self, request: &Request, reply: Reply) -> SysResult<Answered> {
        let ns = &self.base.ns;
        let attributes = request.body().get(12..).unwrap_or_default();
        let ip = ip_of(attribute(attributes, 1).ok_or(Errno::EINVAL)?)?;
        let device = super::out::number(attributes, 4)?.unwrap_or(0);
        let local = ns.is_local(ip);
        let hop = if local { None } else { Some(ns.route_to(ip, device)?) };
        let source = if local { Some(ip) } else { ns.reach(ip, device).ok().map(|reach| reach.source) };
        Ok(self.one(request, |out| {
            out.begin(show::RTM_NEWROUTE, reply);
            let bits = if ip.is_ipv4() { 32 } else { 128 };
            let (table, kind) = if local { (255, 2) } else { (254, 1) };
            // RTM_F_CLONED.
            out.put(&[family(ip), bits, 0, 0, table, 0, 0, kind, 0, 2, 0, 0]);
            out.word(15, table.into());
            out.attr(1, &octets(ip));
            if let Some(gateway) = hop.and_then(|hop| hop.gateway) {
                out.attr(5, &octets(gateway));
            }
            out.word(4, hop.map_or(ns.loopback_index(), |hop| hop.index));
            if let Some(source) = source.filter(|ip| !ip.is_unspecified()) {
                out.attr(7, &octets(source));
            }
            out.attr(12, &[0; 32]);
            out.end();
        }))
    }

    /// Answers from the host's namespace what it can; `None` for the rest.
    fn host_route(&self, host: &HostNet, request: &Request, reply: Reply) -> SysResult<Option<Answered>> {
        let (body, dump) = (request.body(), request.is_dump());
        let Some(of) = Dump::from_kind(request.kind) else { return Ok(None) };
        let bytes = match (of, dump) {
            (_, true) => host.dump(of, body.first().copied().unwrap_or(0))?,
            (Dump::Links, false) => {
                let index = body.get(4..).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_ne_bytes(*b));
                let name = attribute(body.get(16..).unwrap_or_default(), 3);
                let name = name.map(|name| name.strip_suffix(&[0]).unwrap_or(name));
                let all = host.dump(of, 0)?;
                let mut links = messages(&all).filter(|m| m.kind == request.kind - 2);
                let found = links.find(|link| {
                    let body = link.bytes.get(HEADER..).unwrap_or_default();
                    let own =
                        body.get(4..).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_ne_bytes(*b));
                    let called = attribute(body.get(16..).unwrap_or_default(), 3);
                    let called = called.map(|name| name.strip_suffix(&[0]).unwrap_or(name));
                    if index != 0 { own == index } else { name.is_some() && called == name }
                });
                found.ok_or(Errno::ENODEV)?.bytes.to_vec()
            }
            (Dump::Routes, false) => {
                let data = attribute(body.get(12..).unwrap_or_default(), 1).ok_or(Errno::EINVAL)?;
                host.route(ip_of(data)?)?
            }
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let flags = if dump { NLM_F_MULTI } else { 0 };
        let mut out = Out::default();
        for message in messages(&bytes) {
            if message.kind == NLMSG_DONE {
                continue;
            }
            out.begin(message.kind, Reply { flags, ..reply });
            out.put(message.bytes.get(HEADER..).unwrap_or_default());
            out.end();
            if out.bytes.len() > CHUNK {
                self.deliver(std::mem::take(&mut out.bytes));
            }
        }
        if !out.bytes.is_empty() {
            self.deliver(std::mem::take(&mut out.bytes));
        }
        if dump {
            self.dump([].iter(), reply, |_, _: &()| {});
        }
        let done = dump || request.flags & NLM_F_ACK == 0;
        Ok(Some(if done { Answered::Yes } else { Answered::No }))
    }

    /// The links of a namespace of the host's are not for guests to change: only what changes nothing
    /// (`ip link set lo up`) is done.
    fn unchanged(&self, kind: u16, body: &[u8], interfaces: &[Interface]) -> SysResult<()> {
        let word = |at: usize| {
            body.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b: &[u8; 4]| u32::from_ne_bytes(*b))
        };
        let name = attribute(body.get(16..).unwrap_or_default(), 3);
        let index = word(4);
        let found = interfaces.iter().find(|i| {
            i.index == index || name.is_some_and(|n| n.strip_suffix(&[0]).unwrap_or(n) == i.name.as_bytes())
        });
        let (flags, changed) = (word(8), word(12));
        let same = |interface: &Interface| (flags ^ interface.flags) & changed & 1 == 0;
        if matches!(kind, 16 | 19) && found.is_some_and(same) { Ok(()) } else { Err(Errno::EPERM) }
    }
}
