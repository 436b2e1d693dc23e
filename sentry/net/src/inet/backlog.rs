//! Connections that a listening TCP socket has not yet given out. Lock: `SocketPeer`.

use super::options::TCP_SAVE_SYN;
use super::tcp::TcpSocket;
use super::wire::Packet;
use crate::addr::InetAddr;
use crate::base::Base;
use crate::types::level;
use lock::Ranked;
use lock::order::SocketPeer;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

#[derive(Debug, Default)]
pub(super) struct Backlog {
    pub(super) ready: VecDeque<Arc<TcpSocket>>,
    // TCP_DEFER_ACCEPT: made, and without a byte so far.
    pub(super) deferred: Vec<Arc<TcpSocket>>,
    // Those that found it full.
    pub(super) waiting: VecDeque<Weak<TcpSocket>>,
    pub(super) limit: usize,
    pub(super) closed: bool,
}

/// What a listening socket holds.
#[derive(Debug, Default)]
pub(super) struct Listener(pub(super) Ranked<SocketPeer, Backlog>);

impl Listener {
    /// The next connection.
    pub(super) fn next(&self) -> Option<Arc<TcpSocket>> {
        self.settle();
        self.0.lock().ready.pop_front()
    }
    /// Whether there is one.
    pub(super) fn has_next(&self) -> bool {
        self.settle();
        !self.0.lock().ready.is_empty()
    }
    /// Connections waiting to be given out, and how many may.
    pub(super) fn depth(&self) -> (usize, usize) {
        let backlog = self.0.lock();
        (backlog.ready.len(), backlog.limit)
    }
    /// Deferred connections that something has come in on are ready.
    fn settle(&self) {
        let deferred = {
            let mut backlog = self.0.lock();
            if backlog.deferred.is_empty() {
                return;
            }
            std::mem::take(&mut backlog.deferred)
        };
        // The queues of the connections have the rank of this one.
        let (ready, deferred): (Vec<_>, Vec<_>) = deferred.into_iter().partition(|child| child.has_heard());
        let mut backlog = self.0.lock();
        backlog.ready.extend(ready);
        backlog.deferred.extend(deferred);
    }
    /// Ends it: gives what waits.
    pub(super) fn close(&self) -> (Vec<Arc<TcpSocket>>, VecDeque<Weak<TcpSocket>>) {
        let mut backlog = self.0.lock();
        backlog.closed = true;
        let mut children: Vec<_> = std::mem::take(&mut backlog.ready).into();
        children.append(&mut backlog.deferred);
        (children, std::mem::take(&mut backlog.waiting))
    }
}

/// The SYN that a client would have sent, for TCP_SAVED_SYN: with the options of Linux.
pub(super) fn saved_syn(base: &Base, client: InetAddr, server: InetAddr) -> Option<Vec<u8>> {
    let with_link = base.int(level::TCP, TCP_SAVE_SYN).filter(|mode| *mode != 0)? == 2;
    let mut segment = Vec::with_capacity(40);
    segment.extend_from_slice(&client.port.to_be_bytes());
    segment.extend_from_slice(&server.port.to_be_bytes());
    segment.extend_from_slice(&[0; 8]);
    // Ten words; SYN; the window; no sum, no urgent byte.
    segment.extend_from_slice(&[0xa0, 0x02, 0xff, 0xd7, 0, 0, 0, 0]);
    // MSS 65495, SACK, timestamps, window scaling by 7.
    segment.extend_from_slice(&[2, 4, 0xff, 0xd7, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7]);
    let packet =
        Packet { source: client.ip, target: server.ip, protocol: 6, ttl: 64, tos: 0, payload: &segment };
    let mut bytes = if with_link { vec![0; 14] } else { Vec::new() };
    bytes.extend(packet.bytes());
    Some(bytes)
}
