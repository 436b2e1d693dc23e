//! How AF_UNIX sockets stand, for /proc/net/unix and sock_diag(7).

use super::UnixSocket;
use crate::addr::UnixAddr;
use crate::socket::Socket;
use crate::types::SockType;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// How a socket stands.
#[derive(Clone, Debug)]
pub struct UnixRow {
    /// Name.
    pub local: Option<UnixAddr>,
    /// Type.
    pub kind: SockType,
    /// Listening.
    pub listening: bool,
    /// Has a peer.
    pub connected: bool,
    /// Halves that are shut: 1 reading, 2 writing.
    pub shut: u8,
}

impl UnixSocket {
    /// How it stands, for /proc/net/unix and sock_diag(7).
    #[must_use]
    pub fn row(&self) -> UnixRow {
        let state = self.state.lock();
        let connected = self.link.get().is_some() || state.peer.is_some();
        let shut = u8::from(state.shut_read) | u8::from(self.shut_write.load(Ordering::Relaxed)) << 1;
        UnixRow {
            local: state.local.clone(),
            kind: self.base.kind,
            listening: state.listener.is_some(),
            connected,
            shut,
        }
    }
    /// The process at the other end (SO_PEERPIDFD), by its id of the initial namespace.
    #[must_use]
    pub fn peer_pid(&self) -> Option<u32> {
        let listening = self.state.lock().listener.as_ref().map(|listener| listener.cred);
        self.link.get().map(|link| link.peer_cred).or(listening).map(|cred| cred.pid).filter(|pid| *pid != 0)
    }
    /// Where the peer lies in memory, to be found among the sockets.
    #[must_use]
    pub fn peer_place(&self) -> Option<usize> {
        let datagrams = self.state.lock().peer.clone();
        let peer = datagrams.or_else(|| self.link.get().map(|link| Weak::clone(&link.peer)))?;
        peer.upgrade().map(|peer| Arc::as_ptr(&peer).cast::<()>().addr())
    }
    /// Lengths of the receive and the send queue; of a listener, of its backlog.
    #[must_use]
    pub fn queues(&self) -> (u32, u32) {
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        if let Some(listener) = self.state.lock().listener.clone() {
            let backlog = listener.backlog.lock();
            return (size(backlog.ready.len()), size(backlog.limit));
        }
        (size(self.readable_bytes().unwrap_or(0)), size(self.unsent_bytes().unwrap_or(0)))
    }
}
