//! Signals of files to their owners: O_ASYNC (fcntl(2) F_SETOWN, F_SETSIG), file leases, F_NOTIFY.
//!
//! Who causes one often holds the lock of the object that changed, and sending takes locks further out. So
//! [`post`] only notes it, and [`flush`] sends: at the end of each system call, and in the threads that tell
//! of timers and host descriptors.

use crate::open_file::SignalOwner;
use abi::poll::Events;
use lock::{Ranked, WakeTarget, order};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Why a file signals its owner (`si_code` of SIGIO, sigaction(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// POLL_IN.
    In,
    /// POLL_OUT.
    Out,
    /// POLL_MSG: leases and F_NOTIFY.
    Message,
    /// POLL_ERR.
    Error,
    /// POLL_PRI.
    Urgent,
    /// POLL_HUP.
    HangUp,
}

impl Reason {
    /// `si_code`.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Reason::In => 1,
            Reason::Out => 2,
            Reason::Message => 3,
            Reason::Error => 4,
            Reason::Urgent => 5,
            Reason::HangUp => 6,
        }
    }
    /// `si_band`: the events of poll(2) that belong to it.
    #[must_use]
    pub fn band(self) -> Events {
        match self {
            Reason::In => Events::READABLE,
            Reason::Out => Events::WRITABLE | Events::WRBAND,
            Reason::Message => Events::READABLE | Events::MSG,
            Reason::Error => Events::ERR,
            Reason::Urgent => Events::PRI | Events::RDBAND,
            Reason::HangUp => Events::HUP | Events::ERR,
        }
    }
    fn of(events: Events) -> Option<Reason> {
        [
            (Events::READABLE, Reason::In),
            (Events::WRITABLE, Reason::Out),
            (Events::PRI, Reason::Urgent),
            (Events::ERR, Reason::Error),
            (Events::HUP | Events::RDHUP, Reason::HangUp),
        ]
        .into_iter()
        .find_map(|(wanted, reason)| events.intersects(wanted).then_some(reason))
    }
}

/// A signal that a file sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sigio {
    /// To whom, and which.
    pub owner: SignalOwner,
    /// `si_fd`: the descriptor it was asked for with.
    pub fd: i32,
    /// Why.
    pub reason: Reason,
}

/// Who sends: the kernel.
pub trait SigioSender: Send + Sync {
    /// Sends one; no lock is held.
    fn send(&self, signal: &Sigio);
}

static SENDER: OnceLock<Arc<dyn SigioSender>> = OnceLock::new();
static QUEUE: Ranked<order::Leaf, Vec<Sigio>> = Ranked::new(Vec::new());
static WAITING: AtomicBool = AtomicBool::new(false);

/// Says once who sends.
pub fn set_sender(sender: Arc<dyn SigioSender>) {
    // One kernel in a process; a second one in a unit test sends nothing.
    let _ = SENDER.set(sender);
}

/// Notes a signal to be sent soon. An owner of nobody gets none.
pub fn post(signal: Sigio) {
    if signal.owner.id != 0 {
        QUEUE.lock().push(signal);
        WAITING.store(true, Ordering::Release);
    }
}

/// Sends what was noted. One load when there is nothing.
pub fn flush() {
    if !WAITING.load(Ordering::Relaxed) {
        return;
    }
    let due = {
        let mut queue = QUEUE.lock();
        WAITING.store(false, Ordering::Release);
        std::mem::take(&mut *queue)
    };
    if let Some(sender) = SENDER.get() {
        due.iter().for_each(|signal| sender.send(signal));
    }
}

/// Owner and signal of an open file, shared with what hears of its events.
pub(crate) type OwnerCell = Ranked<order::Leaf, SignalOwner>;

/// O_ASYNC of one open file: hears of events and notes the signal.
pub(crate) struct Async {
    owner: Arc<OwnerCell>,
    fd: i32,
}

impl Async {
    pub(crate) fn new(owner: Arc<OwnerCell>, fd: i32) -> Arc<Async> {
        Arc::new(Async { owner, fd })
    }
}

impl WakeTarget for Async {
    fn wake(&self, events: Events) {
        if let Some(reason) = Reason::of(events) {
            let owner = *self.owner.lock();
            post(Sigio { owner, fd: self.fd, reason });
        }
    }
}
