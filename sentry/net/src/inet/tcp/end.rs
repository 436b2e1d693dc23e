//! How a TCP socket stops: closing, breaking off, disconnecting, failing to connect.

use super::{Link, Phase, TcpSocket, Told};
use crate::addr::InetAddr;
use crate::inet::backlog::Listener;
use crate::inet::is_v6;
use abi::Errno;
use abi::poll::Events;
use std::sync::Weak;
use std::sync::atomic::Ordering;

impl TcpSocket {
    pub(super) fn stop_listening(listener: &Listener) {
        let (children, waiting) = listener.close();
        for child in &children {
            child.base.change(|o| o.linger = Some(0));
        }
        drop(children);
        for client in waiting.iter().filter_map(Weak::upgrade) {
            client.fail_connect();
        }
    }

    /// Says that nothing more will be sent.
    pub(super) fn end_sending(&self, link: &Link) {
        if !self.shut_write.swap(true, Ordering::SeqCst) {
            let eof = link.inbox.status().eof;
            self.ended_first.store(!eof, Ordering::Relaxed);
            link.outbox.finish(eof);
        }
    }

    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        let local = state.local;
        self.release_port(&mut state);
        let phase = std::mem::take(&mut state.phase);
        drop(state);
        match phase {
            Phase::Listening(listener) => TcpSocket::stop_listening(&listener),
            Phase::Connected => {
                let Some(link) = self.link.lock().take() else { return };
                let broken = link.inbox.status().closed;
                let unread = link.inbox.close();
                if unread > 0 || self.base.with(|o| o.linger) == Some(0) {
                    link.outbox.reset(Errno::ECONNRESET, false);
                    return;
                }
                self.end_sending(&link);
                if let Some(addr) = local.filter(|_| self.ended_first.load(Ordering::Relaxed) && !broken) {
                    let (reuse_addr, reuse_port) = self.base.with(|o| (o.reuse_addr, o.reuse_port));
                    let owner = reuse_port.then_some(vfs::Kuid(0));
                    self.base.ns.tcp.lock().rest(addr, reuse_addr, owner);
                }
            }
            Phase::Closed | Phase::Connecting | Phase::Failed => {}
        }
    }

    /// connect(2) to AF_UNSPEC: a connection is broken off, a listener stops.
    pub(super) fn disconnect(&self) {
        let phase = {
            let mut state = self.state.lock();
            if !state.bound {
                self.release_port(&mut state);
                // The port stays on show.
                let v6 = is_v6(&self.base);
                state.local = state.local.map(|local| InetAddr { port: local.port, ..InetAddr::any(v6) });
            }
            state.peer = None;
            state.told = Told::Nothing;
            std::mem::take(&mut state.phase)
        };
        let over = self.link().is_none_or(|link| self.is_over(&link));
        let link = self.link.lock().take();
        self.shut_read.store(false, Ordering::SeqCst);
        self.shut_write.store(false, Ordering::SeqCst);
        self.ended_first.store(false, Ordering::Relaxed);
        match phase {
            Phase::Listening(listener) => TcpSocket::stop_listening(&listener),
            Phase::Connected if !over => {
                if let Some(link) = link {
                    link.inbox.close();
                    link.outbox.reset(Errno::ECONNRESET, true);
                }
                self.base.set_error(Errno::ECONNRESET);
            }
            Phase::Connecting => self.base.set_error(Errno::ECONNRESET),
            _ => {}
        }
        self.base.queue.wake(Events::WRITABLE | Events::HUP);
    }

    pub(super) fn fail_connect(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Failed;
        state.peer = None;
        if !state.bound {
            self.release_port(&mut state);
        }
        drop(state);
        self.base.set_error(Errno::ECONNREFUSED);
    }
    /// A connect(2) that waited has its answer: the socket is as before.
    pub(super) fn forget_failure(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Failed) {
            state.phase = Phase::Closed;
        }
    }
}
