//! Waits for a process of the guest, passes signals on, and ends with its status.

use super::launch::Launched;
use super::proc_view::ProcView;
use crate::cgroup::Witness;
use crate::error::{Doing, Outcome};
use ::sentry::control::client::{Client, Event};
use ::sentry::control::message::{Ask, SignalTarget};
use ::sentry::control::{ControlResult, ExitStatus};
use nix::sys::signal::{SigSet, SigmaskHow, Signal as NixSignal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use platform::spawn::Child;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, pidfd_send_signal, waitpid};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Silence after which memory is given back, once.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// `si_code` of a signal that the host's kernel sent (a hang-up of our terminal).
const SI_KERNEL: i32 = 0x80;

/// All signals that can be, as a descriptor.
pub(crate) struct Signals {
    fd: SignalFd,
}

/// A signal that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Came {
    /// To be passed on.
    Pass(u8),
    /// SIGWINCH.
    Window,
    /// SIGCHLD: a child of ours may have ended.
    Child,
    /// One of the host's own.
    Ignored,
}

impl Signals {
    /// Blocks them and makes the descriptor.
    pub(crate) fn take() -> Outcome<Signals> {
        use NixSignal::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV};
        let mut all = SigSet::all();
        for keep in [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT] {
            all.remove(keep);
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None).doing(|| "sigprocmask")?;
        let fd = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .doing(|| "signalfd")?;
        Ok(Signals { fd })
    }

    /// For poll(2).
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next one, if there is one.
    pub(crate) fn next(&self) -> Option<Came> {
        let info = self.fd.read_signal().ok()??;
        let number = u8::try_from(info.ssi_signo).ok()?;
        Some(match i32::from(number) {
            libc::SIGCHLD => Came::Child,
            libc::SIGPIPE => Came::Ignored,
            libc::SIGWINCH => Came::Window,
            libc::SIGHUP if info.ssi_code == SI_KERNEL => Came::Ignored,
            _ => Came::Pass(number),
        })
    }
}

/// A process of the guest that is waited for.
#[derive(Debug)]
pub(crate) struct Awaited {
    /// Container.
    container: String,
    /// An exec'ed process, or the first.
    pid: Option<u32>,
    /// Number of the posted `Wait`.
    number: u64,
    /// The container's file server and the sandbox' network helper: without them it has no files, or no
    /// network, and ends.
    helpers: Vec<OwnedFd>,
    /// Tells the host when the guest's memory ran out.
    memory: Option<Memory>,
}

/// What a monitor does when its container's memory has run out.
#[derive(Debug)]
struct Memory {
    witness: Witness,
    /// Number of the posted `AwaitOom`.
    number: u64,
}

impl Memory {
    fn post(client: &mut Client, container: &str, witness: Witness, known: u64) -> ControlResult<Memory> {
        let ask = Ask::AwaitOom { container: container.to_owned(), known };
        Ok(Memory { witness, number: client.post(ask, &[])? })
    }
}

impl Awaited {
    /// Asks to be told.
    pub(crate) fn post(client: &mut Client, container: &str, pid: Option<u32>) -> ControlResult<Awaited> {
        let container = container.to_owned();
        let number = client.post(Ask::Wait { container: container.clone(), pid }, &[])?;
        Ok(Awaited { container, pid, number, helpers: Vec::new(), memory: None })
    }

    /// The container's first process, with the helpers that this process started for it.
    pub(crate) fn post_init(
        launched: &mut Launched,
        container: &str,
        witness: Option<Witness>,
    ) -> Outcome<Awaited> {
        let helpers = [Some(&launched.gofer), launched.network.as_ref()];
        let helpers = helpers.into_iter().flatten().map(|child| child.pidfd.try_clone());
        let helpers = helpers.collect::<Result<_, _>>().doing(|| "helpers")?;
        let client = &mut launched.client;
        let memory = witness.map(|witness| Memory::post(client, container, witness, 0)).transpose()?;
        Ok(Awaited { helpers, memory, ..Awaited::post(client, container, None)? })
    }

    /// Handles one signal that came.
    pub(crate) fn signal(&self, client: &mut Client, came: Came) {
        let container = self.container.clone();
        // Answers are dropped when they come; the end of the sandbox shows up as that of the connection.
        let _ = match came {
            Came::Ignored => Ok(0),
            Came::Child if self.helpers.iter().any(has_ended) => {
                let kill = Signal::KILL.as_raw().unsigned_abs();
                let signal = u8::try_from(kill).unwrap_or_default();
                client.post(Ask::Signal { container, target: SignalTarget::All, signal }, &[])
            }
            Came::Child => Ok(0),
            Came::Window => client.post(Ask::Resized { container, pid: self.pid }, &[]),
            Came::Pass(signal) => {
                let target = self.pid.map_or(SignalTarget::Init, SignalTarget::Process);
                client.post(Ask::Signal { container, target, signal }, &[])
            }
        };
    }

    /// Whether the end came while another answer was waited for: poll(2) will not tell.
    pub(crate) fn ended_already(&self, client: &Client) -> bool {
        client.came_early(self.number) || self.memory.as_ref().is_some_and(|m| client.came_early(m.number))
    }

    /// The end, once the client is readable: `None` when the answer was another.
    pub(crate) fn ended(&mut self, client: &mut Client) -> Option<ExitStatus> {
        match client.next_event(self.number, self.memory.as_ref().map(|memory| memory.number)) {
            Ok(Event::Ended(status)) => Some(status),
            Ok(Event::OutOfMemory { times }) => {
                if let Some(Memory { witness, .. }) = self.memory.take() {
                    witness.testify();
                    self.memory = Memory::post(client, &self.container, witness, times).ok();
                }
                None
            }
            Ok(Event::Other) => None,
            // The sandbox was killed.
            Err(_) => Some(ExitStatus::Killed(9)),
        }
    }
}

/// Waits until the process has ended, passing signals on.
pub(crate) fn wait(client: &mut Client, awaited: &mut Awaited, signals: &Signals) -> ExitStatus {
    wait_serving(client, awaited, signals, None)
}

/// The same, while others may look at the guest's /proc.
pub(crate) fn wait_serving(
    client: &mut Client,
    awaited: &mut Awaited,
    signals: &Signals,
    mut view: Option<ProcView>,
) -> ExitStatus {
    let mut patience = Some(&QUIET);
    loop {
        let client_fd = PollFd::from_borrowed_fd(client.fd(), PollFlags::IN);
        let signals_fd = PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN);
        // Without a view the third descriptor is looked at for nothing.
        let (view_fd, view_flags) =
            view.as_ref().map_or((signals.fd(), PollFlags::empty()), |view| (view.fd(), PollFlags::IN));
        let mut fds = [client_fd, signals_fd, PollFd::from_borrowed_fd(view_fd, view_flags)];
        let early = awaited.ended_already(client);
        if !early && poll(&mut fds, patience) == Ok(0) {
            // Nothing more to do than wait: what starting took is given back.
            patience = None;
            platform::host::rest();
        }
        let [spoken, signalled, looked] = fds.map(|fd| fd.revents());
        let (spoken, signalled) = (!spoken.is_empty(), !signalled.is_empty());
        if looked.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            // Unmounted.
            view = None;
        } else if looked.contains(PollFlags::IN)
            && let Some(view) = &mut view
        {
            view.serve(client);
        }
        if signalled {
            while let Some(came) = signals.next() {
                awaited.signal(client, came);
            }
        }
        if (early || spoken)
            && let Some(status) = awaited.ended(client)
        {
            return status;
        }
    }
}

/// Ends what is left of a sandbox: the sentry's death is that of its pid namespace. Words, if the sentry had
/// ended on its own.
pub(crate) fn tear_down(launched: Launched) -> Option<String> {
    let Launched { client, sentry, gofer, network } = launched;
    let mut words = None;
    if let Some(sentry) = sentry {
        if has_ended(&sentry.pidfd) || client.is_gone() {
            words = reap_now(&sentry).map(|status| format!("the sentry ended on its own: {status}"));
        }
        if words.is_none() {
            kill_and_reap(&sentry);
        }
    }
    drop(client);
    kill_and_reap(&gofer);
    if let Some(network) = network {
        kill_and_reap(&network);
    }
    words
}

fn has_ended(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)), Ok(1))
}

/// Kills a child and collects it.
pub(crate) fn kill_and_reap(child: &Child) {
    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    while let Err(rustix::io::Errno::INTR) = waitpid(Pid::from_raw(child.pid), WaitOptions::empty()) {}
}

/// How a child ended that is known to be ending, in words.
pub(crate) fn reap_now(child: &Child) -> Option<String> {
    let second = Timespec { tv_sec: 1, tv_nsec: 0 };
    let _ = poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], Some(&second));
    let (_, status) = waitpid(Pid::from_raw(child.pid), WaitOptions::NOHANG).ok()??;
    Some(words(status))
}

fn words(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(libc::SIGSYS)) => "killed by SIGSYS: its filter refused a host call".to_owned(),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "unknown status".to_owned(),
    }
}
