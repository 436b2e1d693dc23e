//! What the route family tells those who have joined its groups: what differs after a change.

use super::NetlinkSocket;
use super::out::{Out, Reply};
use super::show::{self, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE};
use crate::netns::{Interface, Neighbour, NetNs, Route};
use std::net::IpAddr;
use std::sync::{Arc, Weak};

/// RTNLGRP_*.
const LINK: u32 = 1;
const NEIGH: u32 = 3;
const IPV4_IFADDR: u32 = 5;
const IPV4_ROUTE: u32 = 7;
const IPV6_IFADDR: u32 = 9;
const IPV6_ROUTE: u32 = 11;

struct Picture {
    interfaces: Vec<Interface>,
    routes: Vec<Route>,
    neighbours: Vec<Neighbour>,
}

fn picture(ns: &NetNs) -> Picture {
    Picture { interfaces: ns.interfaces(), routes: ns.routes(), neighbours: ns.neighbours() }
}

/// Every route of a namespace: of its addresses and added.
fn all_routes(picture: &Picture) -> Vec<Route> {
    let up = picture.interfaces.iter().filter(|i| i.is_up());
    let own = up.flat_map(|i| i.addrs.iter().flat_map(move |a| show::routes_of(i, *a)));
    own.chain(picture.routes.iter().copied()).collect()
}

/// Runs `change` and tells about what it changed, if anybody listens.
pub(crate) fn telling<T>(ns: &Arc<NetNs>, change: impl FnOnce() -> T) -> T {
    let heard = ns.routers.lock().iter().any(|socket| socket.strong_count() > 0);
    if !heard {
        return change();
    }
    let before = picture(ns);
    let done = change();
    tell(ns, &before, &picture(ns));
    done
}

fn tell(ns: &Arc<NetNs>, before: &Picture, after: &Picture) {
    let listeners: Vec<_> = ns.routers.lock().iter().filter_map(Weak::upgrade).collect();
    let send = |group: u32, fill: &dyn Fn(&mut Out)| {
        let mut out = Out::default();
        fill(&mut out);
        for socket in &listeners {
            socket.deliver_to_group(group, out.bytes.clone());
        }
    };
    let reply = Reply::default();
    let of = |all: &[Interface], index: u32| all.iter().find(|i| i.index == index).cloned();
    for new in &after.interfaces {
        let old = of(&before.interfaces, new.index);
        let bare = |i: &Interface| Interface { addrs: Vec::new(), ..i.clone() };
        if old.as_ref().is_none_or(|old| bare(old) != bare(new)) {
            send(LINK, &|out| show::link(out, RTM_NEWLINK, ns, new, reply));
        }
    }
    let addresses = |all: &[Interface]| -> Vec<_> {
        all.iter().flat_map(|i| i.addrs.iter().map(move |a| (i.clone(), *a))).collect()
    };
    let group = |ip: IpAddr| if ip.is_ipv4() { IPV4_IFADDR } else { IPV6_IFADDR };
    let (old, new) = (addresses(&before.interfaces), addresses(&after.interfaces));
    let same = |a: &(Interface, crate::netns::InterfaceAddr),
                b: &(Interface, crate::netns::InterfaceAddr)| {
        a.0.index == b.0.index && a.1 == b.1
    };
    for (from, to, kind) in [(&old, &new, RTM_NEWADDR + 1), (&new, &old, RTM_NEWADDR)] {
        for row in from.iter().filter(|row| !to.iter().any(|other| same(row, other))) {
            send(group(row.1.ip), &|out| show::address(out, kind, &row.0, row.1, reply));
        }
    }
    let (old, new) = (all_routes(before), all_routes(after));
    for (from, to, kind) in [(&old, &new, RTM_NEWROUTE + 1), (&new, &old, RTM_NEWROUTE)] {
        for row in from.iter().filter(|row| !to.contains(row)) {
            let group = if row.family == 2 { IPV4_ROUTE } else { IPV6_ROUTE };
            send(group, &|out| show::route(out, kind, row, reply));
        }
    }
    for (from, to, kind) in [
        (&before.neighbours, &after.neighbours, RTM_NEWNEIGH + 1),
        (&after.neighbours, &before.neighbours, RTM_NEWNEIGH),
    ] {
        for row in from.iter().filter(|row| !to.contains(row)) {
            send(NEIGH, &|out| show::neighbour(out, kind, row, reply));
        }
    }
    for old in before.interfaces.iter().filter(|old| of(&after.interfaces, old.index).is_none()) {
        send(LINK, &|out| show::link(out, RTM_NEWLINK + 1, ns, old, reply));
    }
}

impl NetlinkSocket {
    /// A message for those who have joined `group`.
    fn deliver_to_group(&self, group: u32, bytes: Vec<u8>) {
        if self.has_joined(group) {
            self.deliver_from(0, group, bytes);
        }
    }
}
