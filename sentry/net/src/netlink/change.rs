//! Requests of the route family that change the namespace: links, addresses, routes (rtnetlink(7)). The caller
//! has checked that the sender may.

use super::out::{attribute, ip_of, number, word};
use crate::links::Existing;
use crate::netns::{InterfaceAddr, LinkKind, Neighbour, NetNs, Route};
use abi::{Errno, SysResult};
use std::sync::Arc;
use vfs::{Caller, Capabilities, NetworkOf};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// Longest name of an interface, without its end.
const LONGEST_NAME: usize = 15;

fn text(data: &[u8]) -> SysResult<String> {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let name = data.get(..end).unwrap_or_default();
    let fine = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.iter().all(fine) {
        return Err(Errno::EINVAL);
    }
    String::from_utf8(name.to_vec()).map_err(|_| Errno::EINVAL)
}

/// Carries a request out: its type and flags, and what follows the header.
pub(super) fn apply(ns: &Arc<NetNs>, kind: u16, flags: u16, body: &[u8], by: &Caller<'_>) -> SysResult<()> {
    match kind {
        RTM_NEWLINK | RTM_SETLINK => new_link(ns, kind, flags, body, by),
        RTM_DELLINK => ns.delete_link(find_link(ns, body)?.ok_or(Errno::ENODEV)?),
        RTM_NEWADDR | RTM_DELADDR => address(ns, kind, flags, body),
        RTM_NEWROUTE | RTM_DELROUTE => route(ns, kind, flags, body),
        RTM_NEWNEIGH | RTM_DELNEIGH => neighbour(ns, kind, flags, body),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The namespace that a link's request names by a descriptor or a process (IFLA_NET_NS_FD, IFLA_NET_NS_PID).
fn namespace_in(attributes: &[u8], by: &Caller<'_>) -> SysResult<Option<Arc<NetNs>>> {
    let who = match (number(attributes, 28)?, number(attributes, 19)?) {
        (Some(fd), _) => NetworkOf::Descriptor(fd.cast_signed()),
        (None, Some(pid)) => NetworkOf::Process(pid),
        (None, None) => return Ok(None),
    };
    let missing = if matches!(who, NetworkOf::Process(_)) { Errno::ESRCH } else { Errno::EINVAL };
    let found = by.task.network_of(who).and_then(|any| any.downcast::<NetNs>().ok()).ok_or(missing)?;
    if !by.cred.has_in(Capabilities::NET_ADMIN, &found.user_ns) {
        return Err(Errno::EPERM);
    }
    Ok(Some(found))
}

fn neighbour(ns: &NetNs, kind: u16, flags: u16, body: &[u8]) -> SysResult<()> {
    let index = word(body, 4)?;
    let attributes = body.get(12..).ok_or(Errno::EINVAL)?;
    let ip = ip_of(attribute(attributes, 1).ok_or(Errno::EINVAL)?)?;
    let hw = attribute(attributes, 2).and_then(|hw| hw.first_chunk::<6>()).copied();
    let state = u16::from_ne_bytes([body.get(8).copied().unwrap_or(0), body.get(9).copied().unwrap_or(0)]);
    if !ns.interfaces().iter().any(|i| i.index == index) {
        return Err(if index == 0 { Errno::EINVAL } else { Errno::ENODEV });
    }
    ns.with_neighbours(|all| {
        let at = all.iter().position(|n| n.index == index && n.ip == ip);
        let new = Neighbour {
            index,
            ip,
            hw,
            state: if state == 0 { 0x80 } else { state },
            flags: body.get(10).copied().unwrap_or(0),
        };
        match (kind, at) {
            (RTM_DELNEIGH, None) => return Err(Errno::ENOENT),
            (RTM_DELNEIGH, Some(at)) => {
                all.remove(at);
            }
            (_, Some(_)) if flags & NLM_F_EXCL != 0 => return Err(Errno::EEXIST),
            (_, Some(at)) => {
                if let Some(old) = all.get_mut(at) {
                    *old = new;
                }
            }
            (_, None) if flags & NLM_F_CREATE == 0 => return Err(Errno::ENOENT),
            (_, None) if all.len() >= 1024 => return Err(Errno::ENOBUFS),
            (_, None) => all.push(new),
        }
        Ok(())
    })
}

/// Index of the interface that an `ifinfomsg` names, by number or by name.
fn find_link(ns: &NetNs, body: &[u8]) -> SysResult<Option<u32>> {
    let index = word(body, 4)?;
    let name = attribute(body.get(16..).unwrap_or_default(), 3).map(text).transpose()?;
    let found = ns.interfaces().into_iter().find(|interface| match &name {
        Some(name) if index == 0 => interface.name == *name,
        _ => interface.index == index,
    });
    Ok(found.map(|interface| interface.index))
}

fn make_link(ns: &Arc<NetNs>, name: Option<&str>, body: &[u8], by: &Caller<'_>) -> SysResult<u32> {
    let attributes = body.get(16..).ok_or(Errno::EINVAL)?;
    let wanted = word(body, 4)?;
    let info = attribute(attributes, 18).ok_or(Errno::EOPNOTSUPP)?;
    let kind = attribute(info, 1).map(|kind| kind.strip_suffix(&[0]).unwrap_or(kind));
    let there = namespace_in(attributes, by)?;
    let home = there.as_ref().unwrap_or(ns);
    match kind {
        Some(b"dummy") => home.add_link(LinkKind::Dummy, name, wanted),
        Some(b"bridge") => home.add_link(LinkKind::Bridge, name, wanted),
        Some(b"veth") => {
            // VETH_INFO_PEER: an `ifinfomsg` with attributes of the other end.
            let data = attribute(info, 2).and_then(|data| attribute(data, 1)).unwrap_or_default();
            let peer = data.get(16..).unwrap_or_default();
            let peer_name = attribute(peer, 3).map(text).transpose()?;
            let far = namespace_in(peer, by)?.unwrap_or_else(|| Arc::clone(ns));
            let index = home.add_link(LinkKind::Veth, name, wanted)?;
            let end = far.add_link(LinkKind::Veth, peer_name.as_deref(), 0).inspect_err(|_| {
                let _ = home.delete_link(index);
            })?;
            home.pair(index, &far, end);
            if let Some(hw) = attribute(peer, 1).and_then(|hw| hw.first_chunk::<6>()) {
                far.update(end, |i| i.hw = *hw)?;
            }
            if let Some(mtu) = number(peer, 4)? {
                far.set_mtu(end, mtu)?;
            }
            Ok(index)
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

fn new_link(ns: &Arc<NetNs>, kind: u16, flags: u16, body: &[u8], by: &Caller<'_>) -> SysResult<()> {
    let attributes = body.get(16..).ok_or(Errno::EINVAL)?;
    let name = attribute(attributes, 3).map(text).transpose()?;
    let found = find_link(ns, body)?;
    let mut home = Arc::clone(ns);
    let index = match found {
        Some(_) if flags & (NLM_F_EXCL | NLM_F_CREATE) == NLM_F_EXCL | NLM_F_CREATE => {
            return Err(Errno::EEXIST);
        }
        Some(index) => match namespace_in(attributes, by)? {
            Some(to) => {
                let index = ns.move_link(index, &to, name.as_deref())?;
                home = to;
                index
            }
            None => index,
        },
        None if kind == RTM_NEWLINK && flags & NLM_F_CREATE != 0 => {
            let index = make_link(ns, name.as_deref(), body, by)?;
            if let Some(there) = namespace_in(attributes, by)? {
                home = there;
            }
            index
        }
        None => return Err(Errno::ENODEV),
    };
    if let Some(mtu) = number(attributes, 4)? {
        home.set_mtu(index, mtu)?;
    }
    if let Some(len) = number(attributes, 13)? {
        home.update(index, |interface| interface.queue_len = len)?;
    }
    if let Some(name) = name.filter(|_| found.is_some()) {
        home.rename(index, &name)?;
    }
    if let Some(alias) = attribute(attributes, 20) {
        let alias = String::from_utf8_lossy(alias.strip_suffix(&[0]).unwrap_or(alias)).into_owned();
        if alias.len() > 255 {
            return Err(Errno::EINVAL);
        }
        home.update(index, |interface| interface.alias = alias)?;
    }
    if let Some(hw) = attribute(attributes, 1) {
        let hw = hw.first_chunk::<6>().ok_or(Errno::EINVAL)?;
        home.update(index, |interface| interface.hw = *hw)?;
    }
    if let Some(master) = number(attributes, 10)? {
        enslave(&home, index, master)?;
    }
    let (wanted, mask) = (word(body, 8)?, word(body, 12)?);
    if wanted != 0 || mask != 0 {
        let mask = if mask == 0 { u32::MAX } else { mask };
        home.set_flags(index, wanted, mask)?;
    }
    Ok(())
}

/// Makes a link a port of a bridge, or of none.
fn enslave(ns: &NetNs, index: u32, master: u32) -> SysResult<()> {
    let interfaces = ns.interfaces();
    if master != 0 {
        let bridge = interfaces.iter().find(|i| i.index == master).ok_or(Errno::EINVAL)?;
        let port = interfaces.iter().find(|i| i.index == index).ok_or(Errno::ENODEV)?;
        if bridge.kind != LinkKind::Bridge {
            return Err(Errno::EOPNOTSUPP);
        }
        if port.is_loopback() || port.kind == LinkKind::Bridge {
            return Err(Errno::EINVAL);
        }
    }
    ns.update(index, |interface| interface.master = master)
}

fn address(ns: &NetNs, kind: u16, flags: u16, body: &[u8]) -> SysResult<()> {
    let index = word(body, 4)?;
    let attributes = body.get(8..).ok_or(Errno::EINVAL)?;
    let data = attribute(attributes, 2).or_else(|| attribute(attributes, 1)).ok_or(Errno::EINVAL)?;
    let ip = ip_of(data)?;
    let family = body.first().copied().unwrap_or(0);
    let prefix = body.get(1).copied().unwrap_or(0);
    if family != if ip.is_ipv4() { 2 } else { 10 } || prefix > if ip.is_ipv4() { 32 } else { 128 } {
        return Err(Errno::EINVAL);
    }
    let addr = InterfaceAddr { ip, prefix };
    if kind == RTM_DELADDR {
        return ns.delete_address(index, addr);
    }
    match ns.add_address(index, addr) {
        Err(Errno::EEXIST) if flags & NLM_F_EXCL == 0 && flags & NLM_F_REPLACE != 0 => Ok(()),
        other => other,
    }
}

fn route(ns: &NetNs, kind: u16, flags: u16, body: &[u8]) -> SysResult<()> {
    let byte = |at: usize| body.get(at).copied().unwrap_or(0);
    let attributes = body.get(12..).ok_or(Errno::EINVAL)?;
    let ip = |kind| attribute(attributes, kind).map(ip_of).transpose();
    let table = number(attributes, 15)?.unwrap_or(u32::from(byte(4)));
    let route = Route {
        family: byte(0),
        target: ip(1)?,
        prefix: byte(1),
        gateway: ip(5)?,
        index: number(attributes, 4)?.unwrap_or(0),
        source: ip(7)?,
        table: if table == 0 { 254 } else { table },
        protocol: byte(5),
        scope: byte(6),
        kind: byte(7),
        metric: number(attributes, 6)?.unwrap_or(0),
    };
    if !matches!(route.family, 2 | 10) {
        return Err(Errno::EOPNOTSUPP);
    }
    if kind == RTM_DELROUTE {
        return ns.delete_route(&route);
    }
    let existing = if flags & NLM_F_REPLACE != 0 { Existing::Replaced } else { Existing::Stays };
    match ns.add_route(route, existing) {
        Err(Errno::EEXIST) if flags & (NLM_F_EXCL | NLM_F_CREATE) == 0 => Ok(()),
        other => other,
    }
}
