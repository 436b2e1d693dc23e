//! What a thread group does about each signal.

use abi::siginfo::SigAction;
use abi::signal::{SigSet, Signal};
use lock::Ranked;
use lock::order;

/// Actions of one thread group; shared by processes cloned with CLONE_SIGHAND.
#[derive(Debug)]
pub struct SignalHandlers {
    actions: Ranked<order::SignalHandlers, [SigAction; 64]>,
}

/// What happens to a signal that is delivered now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disposition {
    /// Nothing.
    Ignore,
    /// The process ends.
    Terminate,
    /// The process ends with the core flag set.
    Core,
    /// The process stops.
    Stop,
    /// The process goes on (done when it was sent).
    Continue,
    /// A handler runs.
    Handler(SigAction),
}

/// The default action (signal(7)).
#[must_use]
pub fn default_disposition(signal: Signal) -> Disposition {
    match signal {
        Signal::SIGCHLD | Signal::SIGURG | Signal::SIGWINCH => Disposition::Ignore,
        Signal::SIGCONT => Disposition::Continue,
        Signal::SIGSTOP | Signal::SIGTSTP | Signal::SIGTTIN | Signal::SIGTTOU => Disposition::Stop,
        Signal::SIGQUIT
        | Signal::SIGILL
        | Signal::SIGTRAP
        | Signal::SIGABRT
        | Signal::SIGBUS
        | Signal::SIGFPE
        | Signal::SIGSEGV
        | Signal::SIGXCPU
        | Signal::SIGXFSZ
        | Signal::SIGSYS => Disposition::Core,
        _ => Disposition::Terminate,
    }
}

fn slot(signal: Signal) -> usize {
    usize::from(signal.number().saturating_sub(1))
}

impl Default for SignalHandlers {
    fn default() -> SignalHandlers {
        SignalHandlers { actions: Ranked::new([SigAction::default(); 64]) }
    }
}

impl SignalHandlers {
    /// An independent copy (fork).
    #[must_use]
    pub fn duplicate(&self) -> SignalHandlers {
        SignalHandlers { actions: Ranked::new(*self.actions.lock()) }
    }
    /// The action for `signal`.
    #[must_use]
    pub fn get(&self, signal: Signal) -> SigAction {
        self.actions.lock().get(slot(signal)).copied().unwrap_or_default()
    }
    /// Sets an action, returns the old one.
    pub fn set(&self, signal: Signal, action: SigAction) -> SigAction {
        let mut actions = self.actions.lock();
        match actions.get_mut(slot(signal)) {
            Some(at) => std::mem::replace(at, action),
            None => SigAction::default(),
        }
    }
    /// What happens to `signal` now.
    #[must_use]
    pub fn disposition(&self, signal: Signal) -> Disposition {
        let action = self.get(signal);
        match action.handler {
            SigAction::DFL => default_disposition(signal),
            SigAction::IGN => Disposition::Ignore,
            _ => Disposition::Handler(action),
        }
    }
    /// Whether `signal` is dropped when it is sent unblocked.
    #[must_use]
    pub fn ignores(&self, signal: Signal) -> bool {
        self.disposition(signal) == Disposition::Ignore
    }
    /// execve(2): handlers go back to the default, ignored signals stay ignored.
    pub fn reset_for_exec(&self) {
        for action in self.actions.lock().iter_mut() {
            if action.is_handler() {
                *action = SigAction::default();
            } else {
                action.flags = 0;
                action.mask = 0;
            }
        }
    }
    /// CLONE_CLEAR_SIGHAND: handlers go back to the default.
    pub fn clear(&self) {
        self.reset_for_exec();
    }
    /// Ignored and caught signals (SigIgn and SigCgt of /proc/pid/status).
    #[must_use]
    pub fn sets(&self) -> (SigSet, SigSet) {
        let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
        for (number, action) in (1..=64).zip(self.actions.lock().iter()) {
            let Ok(signal) = Signal::new(number) else { continue };
            match action.handler {
                SigAction::DFL => {}
                SigAction::IGN => ignored.insert(signal),
                _ => caught.insert(signal),
            }
        }
        (ignored, caught)
    }
}
