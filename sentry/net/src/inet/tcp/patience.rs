//! TCP_USER_TIMEOUT (tcp(7)): a connection whose peer has had no room for that long is given up.

use super::TcpSocket;
use crate::inbox::StreamInbox;
use crate::types::level;
use abi::Errno;
use lock::Ranked;
use lock::order::Leaf;
use std::sync::atomic::Ordering;
use std::sync::{OnceLock, Weak};
use std::time::{Duration, Instant};
use vfs::event::timer::{TimerId, TimerTarget, timers};

const TCP_USER_TIMEOUT: i32 = 18;

/// How long a sender has waited for room.
#[derive(Debug, Default)]
pub(super) struct Patience {
    timer: OnceLock<TimerId>,
    /// What the peer had taken when room ran out.
    since: Ranked<Leaf, Option<u64>>,
}

impl Drop for Patience {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.get() {
            timers().disarm(*timer);
        }
    }
}

/// Bytes that the reader of `outbox` has taken.
fn taken(outbox: &StreamInbox) -> u64 {
    let status = outbox.status();
    status.total.wrapping_sub(u64::try_from(status.len).unwrap_or(0))
}

impl TcpSocket {
    fn user_timeout(&self) -> Option<Duration> {
        let ms = self.base.int(level::TCP, TCP_USER_TIMEOUT)?;
        u64::try_from(ms).ok().filter(|ms| *ms > 0).map(Duration::from_millis)
    }
    /// There was no room for what is to be sent.
    pub(super) fn found_no_room(&self, outbox: &StreamInbox) {
        let Some(timeout) = self.user_timeout() else { return };
        let taken = taken(outbox);
        if self.patience.since.lock().replace(taken) == Some(taken) {
            // The clock runs already.
            return;
        }
        let timer = *self.patience.timer.get_or_init(|| timers().new_id());
        if let Some(at) = Instant::now().checked_add(timeout) {
            let target: Weak<dyn TimerTarget> = Weak::<TcpSocket>::clone(&self.me);
            timers().arm(timer, at, target);
        }
    }
    fn give_up(&self) {
        let Some(link) = self.link() else { return };
        self.shut_write.store(true, Ordering::SeqCst);
        link.inbox.finish(true);
        link.inbox.close();
        link.outbox.reset(Errno::ECONNRESET, false);
        self.base.set_error(Errno::ETIMEDOUT);
    }
}

impl TimerTarget for TcpSocket {
    fn expire(&self, _now: Instant) -> Option<Instant> {
        let link = self.link()?;
        let before = self.patience.since.lock().take()?;
        let status = link.outbox.status();
        if !status.closed && !status.eof && link.outbox.is_full() && taken(&link.outbox) == before {
            self.give_up();
        }
        None
    }
}
