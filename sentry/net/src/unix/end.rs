//! What the end of an AF_UNIX socket means to others (unix_release_sock of Linux).

use super::{Inbox, NODES, UnixSocket};
use crate::addr::UnixAddr;
use abi::Errno;
use abi::poll::Events;
use std::sync::Weak;

impl Drop for UnixSocket {
    fn drop(&mut self) {
        let state = std::mem::take(self.state.get_mut());
        let me = std::ptr::from_ref(self);
        match state.local {
            Some(UnixAddr::Abstract(name)) => {
                let mut names = self.base.ns.abstract_names.lock();
                if names.get(&name).is_some_and(|w| std::ptr::eq(w.as_ptr(), me)) {
                    names.remove(&name);
                }
            }
            Some(UnixAddr::Path { node: Some(node), .. }) => {
                if let Some(nodes) = NODES.lock().as_mut()
                    && nodes.get(&node).is_some_and(|w| std::ptr::eq(w.as_ptr(), me))
                {
                    nodes.remove(&node);
                }
            }
            _ => {}
        }
        if let Some(listener) = state.listener {
            let (ready, blocked) = {
                let mut backlog = listener.backlog.lock();
                backlog.closed = true;
                (std::mem::take(&mut backlog.ready), std::mem::take(&mut backlog.blocked))
            };
            // Those that were never accepted are broken off.
            for child in &ready {
                match child.link.get().map(|link| &link.outbox) {
                    Some(Inbox::Stream(outbox)) => outbox.reset(Errno::ECONNRESET, false),
                    Some(Inbox::Messages(outbox)) => outbox.reset(Errno::ECONNRESET),
                    None => {}
                }
            }
            drop(ready);
            for client in blocked.iter().filter_map(Weak::upgrade) {
                client.base.queue.wake(Events::WRITABLE);
            }
        }
        let (unread, hung_up) = match &self.inbox {
            Inbox::Stream(inbox) => (inbox.close(), inbox.status().eof),
            Inbox::Messages(inbox) => (inbox.close(), inbox.status().eof),
        };
        let _ = hung_up;
        if let Some(link) = self.link.get()
            && !self.is_dgram()
        {
            match &link.outbox {
                // Bytes that nobody read: the peer learns of it (unix_release_sock).
                Inbox::Stream(outbox) if unread > 0 => outbox.reset(Errno::ECONNRESET, false),
                Inbox::Stream(outbox) => outbox.finish(true),
                Inbox::Messages(outbox) if unread > 0 => outbox.reset(Errno::ECONNRESET),
                Inbox::Messages(outbox) => outbox.finish(true),
            }
        }
    }
}
