//! AF_NETLINK (netlink(7)): the route family answers and changes links, addresses, routes and neighbours of the
//! namespace and tells of changes; the diagnostic family lists sockets; the generic one has no families but its own;
//! the uevent family is silent. Locks: `Socket` for the address, `NetStack` for the table of ports.

mod change;
mod diag;
pub(crate) mod events;
mod generic;
pub(crate) mod out;
mod route;
mod show;

pub(crate) use out::{attribute, messages};

use crate::addr::SockAddr;
use crate::base::Base;
use crate::inbox::{Message, MessageInbox};
use crate::mailbox;
use crate::netns::NetNs;
use crate::socket::Socket;
use crate::types::{AF_NETLINK, Control, MsgFlags, Received, SendMsg, Shutdown, SockType, Ucred, level};
use abi::poll::Events;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::Socket as SocketRank;
use mm::{GuestSink, GuestSource};
use out::{HEADER, NLM_F_MULTI, Out, Reply};
use std::any::Any;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use vfs::{Caller, Capabilities};

const NETLINK_ROUTE: i32 = 0;
const NETLINK_USERSOCK: i32 = 2;
const NETLINK_SOCK_DIAG: i32 = 4;
const NETLINK_KOBJECT_UEVENT: i32 = 15;
const NETLINK_GENERIC: i32 = 16;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_ACK: u16 = 4;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_DUMP: u16 = 0x300;
/// NETLINK_CAP_ACK; NETLINK_PKTINFO.
const CAP_ACK: i32 = 10;
const PKTINFO: i32 = 3;
/// Messages of a dump are gathered into datagrams of about this size.
const CHUNK: usize = 3500;

#[derive(Debug, Default)]
struct State {
    pid: u32,
    groups: BTreeSet<u32>,
    peer: u32,
    peer_groups: u32,
}

/// A netlink socket.
#[derive(Debug)]
pub struct NetlinkSocket {
    base: Base,
    me: Weak<NetlinkSocket>,
    inbox: Arc<MessageInbox>,
    state: Ranked<SocketRank, State>,
}

struct Request {
    kind: u16,
    flags: u16,
    seq: u32,
    bytes: Vec<u8>,
}

impl Request {
    fn body(&self) -> &[u8] {
        self.bytes.get(HEADER..).unwrap_or_default()
    }
    fn is_dump(&self) -> bool {
        self.flags & NLM_F_DUMP == NLM_F_DUMP
    }
}

/// What is left to say after a request was carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answered {
    /// Everything was said.
    Yes,
    /// An acknowledgement, to who asked for one.
    No,
}

fn mask(groups: &BTreeSet<u32>) -> u32 {
    groups.iter().filter(|group| (1..=32).contains(*group)).fold(0, |mask, group| mask | 1 << (group - 1))
}

impl NetlinkSocket {
    /// A socket of netlink family `protocol`; `EPROTONOSUPPORT` for families that do not exist here.
    pub fn new(ns: &Arc<NetNs>, kind: SockType, protocol: i32) -> SysResult<Arc<NetlinkSocket>> {
        if !matches!(kind, SockType::Dgram | SockType::Raw) {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        let known =
            [NETLINK_ROUTE, NETLINK_USERSOCK, NETLINK_SOCK_DIAG, NETLINK_KOBJECT_UEVENT, NETLINK_GENERIC];
        if !known.contains(&protocol) {
            return Err(Errno::EPROTONOSUPPORT);
        }
        let base = Base::new(ns, AF_NETLINK, kind, protocol);
        let inbox = MessageInbox::new(&base.queue, usize::MAX, 4096);
        Ok(Arc::new_cyclic(|me| NetlinkSocket { base, me: Weak::clone(me), inbox, state: Ranked::default() }))
    }
    /// Family, port, groups and bytes in the queue, for /proc/net/netlink.
    #[must_use]
    pub fn row(&self) -> (i32, u32, u32, usize) {
        let state = self.state.lock();
        (self.base.protocol, state.pid, mask(&state.groups), self.inbox.held())
    }

    fn port(&self, wanted: u32, by: &Caller<'_>) -> SysResult<u32> {
        // Before any lock: the table of processes has one of a lower rank.
        let own = by.task.show_pid(by.task.tgid());
        let mut state = self.state.lock();
        if state.pid != 0 {
            return if wanted == 0 || wanted == state.pid { Ok(state.pid) } else { Err(Errno::EINVAL) };
        }
        let protocol = self.base.protocol;
        let mut ports = self.base.ns.netlink_ports.lock();
        let mut pid = if wanted == 0 { own } else { wanted };
        if wanted != 0 && ports.contains_key(&(protocol, pid)) {
            return Err(Errno::EADDRINUSE);
        }
        // Further sockets of one process get numbers from the top.
        while pid == 0 || ports.contains_key(&(protocol, pid)) {
            pid = pid.wrapping_sub(4097) | 0x8000_0000;
        }
        ports.insert((protocol, pid), Weak::clone(&self.me));
        state.pid = pid;
        Ok(pid)
    }

    pub(crate) fn has_joined(&self, group: u32) -> bool {
        self.state.lock().groups.contains(&group)
    }
    fn may_join(&self, by: &Caller<'_>) -> SysResult<()> {
        // Route, uevents, generic: open to all.
        let open = !matches!(self.base.protocol, NETLINK_SOCK_DIAG);
        if open || by.cred.has_in(Capabilities::NET_ADMIN, &self.base.ns.user_ns) {
            return Ok(());
        }
        Err(Errno::EPERM)
    }
    fn set_groups(&self, change: impl FnOnce(&mut BTreeSet<u32>)) {
        let any = {
            let mut state = self.state.lock();
            change(&mut state.groups);
            !state.groups.is_empty()
        };
        if self.base.protocol == NETLINK_ROUTE {
            let mut routers = self.base.ns.routers.lock();
            routers.retain(|s| s.strong_count() > 0 && !std::ptr::eq(s.as_ptr(), self));
            if any {
                routers.push(Weak::clone(&self.me));
            }
        }
    }

    /// A message of the kernel's own.
    pub fn deliver(&self, bytes: Vec<u8>) {
        self.deliver_from(0, 0, bytes);
    }
    fn deliver_from(&self, pid: u32, group: u32, bytes: Vec<u8>) {
        let groups = if group == 0 { 0 } else { 1_u32.checked_shl(group - 1).unwrap_or(0) };
        let from = Some(SockAddr::Netlink { pid, groups });
        let control = if self.base.is_on(level::NETLINK, PKTINFO) {
            vec![Control::Raw(level::NETLINK, PKTINFO, group.to_ne_bytes().to_vec())]
        } else {
            Vec::new()
        };
        self.inbox.send_or_drop(Message {
            bytes,
            from,
            control,
            at: vfs::realtime_now(),
            ..Message::default()
        });
    }

    fn handle(&self, request: &Request, pid: u32, by: &Caller<'_>) {
        let reply = Reply { flags: 0, seq: request.seq, pid };
        let result = match self.base.protocol {
            NETLINK_ROUTE => self.route(request, reply, by),
            NETLINK_SOCK_DIAG => {
                let viewer = &by.cred.user_ns;
                let rows = diag::answer(
                    &self.base.ns,
                    request.kind,
                    request.body(),
                    request.is_dump(),
                    reply,
                    viewer,
                );
                rows.map(|rows| self.rows(rows, request, reply))
            }
            NETLINK_GENERIC => generic::answer(request.kind, request.body(), request.is_dump(), reply)
                .map(|rows| self.rows(rows, request, reply)),
            _ => Err(Errno::EOPNOTSUPP),
        };
        let error = match result {
            Ok(Answered::Yes) => return,
            Ok(Answered::No) if request.flags & NLM_F_ACK == 0 => return,
            Ok(Answered::No) => 0,
            Err(error) => -i32::from(error.raw()),
        };
        self.acknowledge(request, error, reply);
    }
    fn acknowledge(&self, request: &Request, error: i32, reply: Reply) {
        let capped = error == 0 || self.base.is_on(level::NETLINK, CAP_ACK);
        let mut out = Out::default();
        out.begin(NLMSG_ERROR, Reply { flags: if capped { NLM_F_CAPPED } else { 0 }, ..reply });
        out.put(&error.to_ne_bytes());
        // An acknowledgement carries the header only, an error the request.
        out.put(request.bytes.get(..if capped { HEADER } else { usize::MAX }).unwrap_or(&request.bytes));
        out.end();
        self.deliver(out.bytes);
    }
    /// Answers with messages that are laid out, and the end of a dump.
    fn rows(&self, rows: Vec<Vec<u8>>, request: &Request, reply: Reply) -> Answered {
        if request.is_dump() {
            self.dump(rows.into_iter(), reply, |out, row| out.put(&row));
            return Answered::Yes;
        }
        for row in rows {
            self.deliver(row);
        }
        if request.flags & NLM_F_ACK == 0 { Answered::Yes } else { Answered::No }
    }

    fn dump<T>(&self, rows: impl Iterator<Item = T>, reply: Reply, mut row: impl FnMut(&mut Out, T)) {
        let mut out = Out::default();
        for item in rows {
            row(&mut out, item);
            if out.bytes.len() > CHUNK {
                self.deliver(std::mem::take(&mut out.bytes));
            }
        }
        if !out.bytes.is_empty() {
            self.deliver(std::mem::take(&mut out.bytes));
        }
        // The end of a dump is a datagram of its own, as libnetlink expects with small buffers.
        out.begin(NLMSG_DONE, Reply { flags: NLM_F_MULTI, ..reply });
        out.put(&0i32.to_ne_bytes());
        out.end();
        self.deliver(out.bytes);
    }

    fn last_group(&self) -> u32 {
        match self.base.protocol {
            // RTNLGRP_MAX, SKNLGRP_MAX.
            NETLINK_ROUTE => 39,
            NETLINK_SOCK_DIAG => 32,
            NETLINK_GENERIC => 64,
            _ => 32,
        }
    }
    /// Whether the caller may send to other sockets (CAP_NET_ADMIN, but in the family for users).
    fn may_send_to(&self, pid: u32, groups: u32, by: &Caller<'_>) -> SysResult<()> {
        let open = self.base.protocol == NETLINK_USERSOCK || (pid, groups) == (0, 0);
        let admin = || by.cred.has_in(Capabilities::NET_ADMIN, &self.base.ns.user_ns);
        if open || admin() { Ok(()) } else { Err(Errno::EPERM) }
    }
    /// To other sockets of the family: one, or those of groups.
    fn pass_on(&self, (pid, groups): (u32, u32), own: u32, bytes: &[u8]) -> SysResult<()> {
        let ports: Vec<_> = {
            let ports = self.base.ns.netlink_ports.lock();
            ports.iter().map(|((protocol, pid), socket)| (*protocol, *pid, Weak::clone(socket))).collect()
        };
        let mine = ports.iter().filter(|(protocol, ..)| *protocol == self.base.protocol);
        if groups != 0 {
            for other in mine.clone().filter_map(|(_, _, socket)| socket.upgrade()) {
                let joined =
                    (1..=32).find(|group| groups & 1 << (group - 1) != 0 && other.has_joined(*group));
                if let Some(group) = joined.filter(|_| !std::ptr::eq(Arc::as_ptr(&other), self)) {
                    other.deliver_from(own, group, bytes.to_vec());
                }
            }
        }
        if pid != 0 {
            let mut mine = mine;
            let other = mine.find(|(_, port, _)| *port == pid).and_then(|(_, _, socket)| socket.upgrade());
            other.ok_or(Errno::ECONNREFUSED)?.deliver_from(own, 0, bytes.to_vec());
        }
        Ok(())
    }
}

impl Drop for NetlinkSocket {
    fn drop(&mut self) {
        let pid = self.state.get_mut().pid;
        if pid != 0 {
            self.base.ns.netlink_ports.lock().remove(&(self.base.protocol, pid));
        }
    }
}

impl Socket for NetlinkSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn base(&self) -> &Base {
        &self.base
    }
    fn bind(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let SockAddr::Netlink { pid, groups } = addr else { return Err(Errno::EINVAL) };
        if *groups != 0 {
            self.may_join(by)?;
        }
        self.port(*pid, by)?;
        // The first 32 groups are those of the address.
        self.set_groups(|own| {
            own.retain(|group| *group > 32);
            own.extend((1..=32).filter(|group| *groups & 1 << (group - 1) != 0));
        });
        Ok(())
    }
    fn connect(&self, addr: &SockAddr, by: &Caller<'_>) -> SysResult<()> {
        let (peer, groups) = match addr {
            addr if addr.is_unspec() => (0, 0),
            SockAddr::Netlink { pid, groups } => (*pid, *groups),
            _ => return Err(Errno::EINVAL),
        };
        self.may_send_to(peer, groups, by)?;
        self.port(0, by)?;
        let mut state = self.state.lock();
        (state.peer, state.peer_groups) = (peer, groups);
        Ok(())
    }
    fn send(&self, src: &mut dyn GuestSource, message: &mut SendMsg, by: &Caller<'_>) -> SysResult<usize> {
        let (to, groups) = match &message.addr {
            Some(SockAddr::Netlink { pid, groups }) => (*pid, *groups),
            Some(_) => return Err(Errno::EINVAL),
            None => {
                let state = self.state.lock();
                (state.peer, state.peer_groups)
            }
        };
        if message.flags.contains(MsgFlags::OOB) {
            return Err(Errno::EOPNOTSUPP);
        }
        self.may_send_to(to, groups, by)?;
        let own = self.port(0, by)?;
        let len = src.remaining();
        if len > self.base.sndbuf() {
            return Err(Errno::EMSGSIZE);
        }
        let bytes = crate::inet::take_all(src)?;
        if to != 0 || groups != 0 {
            self.pass_on((to, groups), own, &bytes)?;
            return Ok(len);
        }
        if self.base.protocol == NETLINK_USERSOCK {
            // No kernel listens there.
            return Err(Errno::ECONNREFUSED);
        }
        let mut rest: &[u8] = &bytes;
        while rest.len() >= HEADER {
            let word = |at: usize| {
                rest.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b: &[u8; 4]| u32::from_ne_bytes(*b))
            };
            let half = |at: usize| {
                rest.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b: &[u8; 2]| u16::from_ne_bytes(*b))
            };
            let size = usize::try_from(word(0)).unwrap_or(usize::MAX);
            if size < HEADER || size > rest.len() {
                break;
            }
            let request = Request {
                kind: half(4),
                flags: half(6),
                seq: word(8),
                bytes: rest.get(..size).unwrap_or_default().to_vec(),
            };
            if request.kind > NLMSG_DONE && request.flags & 1 != 0 {
                self.handle(&request, own, by);
            } else if request.kind <= NLMSG_DONE.max(NLMSG_NOOP) && request.flags & NLM_F_ACK != 0 {
                self.acknowledge(&request, 0, Reply { flags: 0, seq: request.seq, pid: own });
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(len)
    }
    fn recv(
        &self,
        dst: &mut dyn GuestSink,
        flags: MsgFlags,
        _skip: usize,
        _by: &Caller<'_>,
    ) -> SysResult<Received> {
        mailbox::receive(&self.base, &self.inbox, dst, flags, |message| {
            let mut control = message.control.clone();
            if self.base.with(|o| o.pass_cred) {
                let kernel = Ucred { pid: 0, uid: Some(vfs::Kuid(0)), gid: Some(vfs::Kgid(0)) };
                control.push(Control::Credentials(kernel));
            }
            control
        })
    }
    fn shutdown(&self, _how: Shutdown) -> SysResult<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn local_addr(&self) -> SysResult<SockAddr> {
        let state = self.state.lock();
        Ok(SockAddr::Netlink { pid: state.pid, groups: mask(&state.groups) })
    }
    fn peer_addr(&self) -> SysResult<SockAddr> {
        let state = self.state.lock();
        Ok(SockAddr::Netlink { pid: state.peer, groups: state.peer_groups })
    }
    fn ready(&self, interest: Events) -> Events {
        mailbox::ready(&self.base, &self.inbox, interest)
    }
    fn recv_beside(&self, dst: &mut dyn GuestSink, flags: MsgFlags) -> SysResult<Received> {
        if flags.contains(MsgFlags::ERRQUEUE) {
            mailbox::receive_report(&self.base, dst)
        } else {
            Err(Errno::EOPNOTSUPP)
        }
    }
    fn get_option(&self, at: i32, name: i32, _by: &Caller<'_>) -> Option<SysResult<Vec<u8>>> {
        if (at, name) == (level::SOCKET, 28) {
            return Some(self.peer_addr().map(|addr| addr.to_bytes()));
        }
        (at == level::NETLINK).then(|| match name {
            3 | 4 | 5 | 8 | 10..=12 => Ok(self.base.int(at, name).unwrap_or(0).to_ne_bytes().to_vec()),
            // LIST_MEMBERSHIPS: one bit each, up to the highest.
            9 => {
                let groups = self.state.lock().groups.clone();
                let words = groups.last().map_or(0, |last| last.div_ceil(32));
                let bit = |word: u32, group: &u32| {
                    if (group - 1) / 32 == word { 1_u32 << ((group - 1) % 32) } else { 0 }
                };
                let word = |n: u32| groups.iter().fold(0, |mask, group| mask | bit(n, group));
                Ok((0..words).flat_map(|n| word(n).to_ne_bytes()).collect())
            }
            _ => Err(Errno::ENOPROTOOPT),
        })
    }
    fn set_option(&self, at: i32, name: i32, value: &[u8], by: &Caller<'_>) -> Option<SysResult<()>> {
        (at == level::NETLINK).then(|| {
            let int = value.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
            let group = u32::try_from(int).ok().filter(|group| (1..=self.last_group()).contains(group));
            match (name, group) {
                (1 | 2, None) => return Err(Errno::EINVAL),
                (1, Some(group)) => {
                    self.may_join(by)?;
                    self.set_groups(|own| {
                        own.insert(group);
                    });
                }
                (2, Some(group)) => self.set_groups(|own| {
                    own.remove(&group);
                }),
                (3 | 4 | 5 | 8 | 10..=12, _) => self.base.remember(at, name, i64::from(int != 0)),
                _ => return Err(Errno::ENOPROTOOPT),
            }
            Ok(())
        })
    }
    fn readable_bytes(&self) -> SysResult<usize> {
        Ok(self.inbox.status().len)
    }
}
