//! Requests of the route family that change the namespace: links, addresses, routes (rtnetlink(7)). The caller
//! has checked that the sender may.

use super::{attribute, ip_of};
use crate::links::Existing;
use crate::netns::{InterfaceAddr, NetNs, Route};
use abi::{Errno, SysResult};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// Longest name of an interface, without its end.
const LONGEST_NAME: usize = 15;

fn word(bytes: &[u8], at: usize) -> SysResult<u32> {
    bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
}

fn number(attributes: &[u8], kind: u16) -> SysResult<Option<u32>> {
    attribute(attributes, kind).map(|data| word(data, 0)).transpose()
}

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
pub(super) fn apply(ns: &NetNs, kind: u16, flags: u16, body: &[u8]) -> SysResult<()> {
    match kind {
        RTM_NEWLINK | RTM_SETLINK => new_link(ns, kind, flags, body),
        RTM_DELLINK => ns.delete_link(find_link(ns, body)?.ok_or(Errno::ENODEV)?),
        RTM_NEWADDR | RTM_DELADDR => address(ns, kind, flags, body),
        RTM_NEWROUTE | RTM_DELROUTE => route(ns, kind, flags, body),
        _ => Err(Errno::EOPNOTSUPP),
    }
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

fn new_link(ns: &NetNs, kind: u16, flags: u16, body: &[u8]) -> SysResult<()> {
    let attributes = body.get(16..).ok_or(Errno::EINVAL)?;
    let name = attribute(attributes, 3).map(text).transpose()?;
    let found = find_link(ns, body)?;
    let index = match found {
        Some(_) if flags & (NLM_F_EXCL | NLM_F_CREATE) == NLM_F_EXCL | NLM_F_CREATE => {
            return Err(Errno::EEXIST);
        }
        Some(index) => index,
        None if kind == RTM_NEWLINK && flags & NLM_F_CREATE != 0 => {
            let kind = attribute(attributes, 18).and_then(|info| attribute(info, 1));
            match kind.map(|kind| kind.strip_suffix(&[0]).unwrap_or(kind)) {
                Some(b"dummy") => ns.add_dummy(name.as_deref())?,
                _ => return Err(Errno::EOPNOTSUPP),
            }
        }
        None => return Err(Errno::ENODEV),
    };
    if let Some(mtu) = number(attributes, 4)? {
        ns.set_mtu(index, mtu)?;
    }
    if let Some(name) = name.filter(|_| found.is_some()) {
        ns.rename(index, &name)?;
    }
    if let Some(hw) = attribute(attributes, 1) {
        let hw = hw.first_chunk::<6>().ok_or(Errno::EINVAL)?;
        ns.update(index, |interface| interface.hw = *hw)?;
    }
    let (wanted, mask) = (word(body, 8)?, word(body, 12)?);
    if wanted != 0 || mask != 0 {
        let mask = if mask == 0 { u32::MAX } else { mask };
        ns.set_flags(index, wanted, mask)?;
    }
    Ok(())
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
