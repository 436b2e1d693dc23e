//! The sentry's end of the control socket: one thread that sleeps in poll(2) until somebody speaks.
//!
//! The first connection is the one the sandbox was booted over: when it closes, the runtime's monitor is
//! gone and the sandbox ends. A connection that created a container or started a process takes it along
//! when it closes, so that nothing of ours outlives the process whose pid the caller knows.

use super::message::{Answer, Ask, ControlError, ErrorKind, Reply, Request, SignalTarget, receive, send};
use super::spec::Stdio;
use super::{Donated, FileView, SandboxControl, Served};
use lock::Ranked;
use lock::order::Leaf;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, accept_with};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

const SIGKILL: u8 = 9;

/// Silence after which memory is given back, once.
const QUIET: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// Why [`serve`] returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The connection that the sandbox was booted over has closed.
    OwnerGone,
}

/// A connection's sending half, shared with exit notices. The lock keeps packets of one message together.
struct Sender {
    socket: Arc<OwnedFd>,
    busy: Ranked<Leaf, ()>,
}

struct Connection {
    sender: Arc<Sender>,
    /// Containers it created.
    containers: Vec<String>,
    /// Processes it started.
    processes: Vec<(String, u32)>,
}

impl Connection {
    fn new(socket: OwnedFd) -> Connection {
        let sender = Arc::new(Sender { socket: Arc::new(socket), busy: Ranked::new(()) });
        Connection { sender, containers: Vec::new(), processes: Vec::new() }
    }
}

impl Sender {
    fn reply(&self, number: u64, body: Answer) {
        let _busy = self.busy.lock();
        // A peer that is gone shows up as a hang-up in poll.
        let _ = send(self.socket.as_fd(), &Reply { number, body }, &[]);
    }
}

/// Serves until the owner is gone. `listener` takes further connections; `owner` is the first one, which
/// owns `containers`.
pub fn serve(
    control: &Arc<dyn SandboxControl>,
    listener: Option<OwnedFd>,
    owner: OwnedFd,
    containers: Vec<String>,
) -> std::io::Result<Ended> {
    let mut connections = vec![Connection::new(owner)];
    if let Some(first) = connections.first_mut() {
        first.containers = containers;
    }
    let mut views = Vec::new();
    loop {
        views.extend(control.views());
        let ready = wait_ready(listener.as_ref(), &connections, &views)?;
        for index in ready.looked.into_iter().rev() {
            if views.get_mut(index).is_some_and(|view| view.serve() == Served::Closed) {
                views.remove(index);
            }
        }
        let mut closed = Vec::new();
        for index in ready.speaking {
            let Some(connection) = connections.get_mut(index) else { continue };
            let socket = Arc::clone(&connection.sender.socket);
            match receive::<Request>((*socket).as_fd()) {
                Ok(Some((request, fds))) => handle(control, connection, request, fds),
                Ok(None) => closed.push(index),
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                    let error = ControlError::new(ErrorKind::Invalid, format!("control message: {error}"));
                    connection.sender.reply(0, Answer::Failed { error });
                    closed.push(index);
                }
                Err(_) => closed.push(index),
            }
        }
        for index in closed.into_iter().rev() {
            if index == 0 {
                return Ok(Ended::OwnerGone);
            }
            abandon(control, connections.remove(index));
        }
        if ready.knocking
            && let Some(listener) = &listener
            && let Ok(socket) = accept_with(listener, SocketFlags::CLOEXEC)
        {
            connections.push(Connection::new(socket));
        }
    }
}

struct Ready {
    knocking: bool,
    /// Connections.
    speaking: Vec<usize>,
    /// Views.
    looked: Vec<usize>,
}

fn wait_ready(
    listener: Option<&OwnedFd>,
    connections: &[Connection],
    views: &[Box<dyn FileView>],
) -> std::io::Result<Ready> {
    let mut fds: Vec<PollFd<'_>> =
        connections.iter().map(|c| PollFd::new(&*c.sender.socket, PollFlags::IN)).collect();
    fds.extend(views.iter().map(|view| PollFd::from_borrowed_fd(view.fd(), PollFlags::IN)));
    if let Some(listener) = listener {
        fds.push(PollFd::new(listener, PollFlags::IN));
    }
    let mut patience = Some(&QUIET);
    loop {
        match poll(&mut fds, patience) {
            Ok(0) => {
                patience = None;
                platform::host::rest();
            }
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let is_ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
    let (first, behind) = (connections.len(), connections.len() + views.len());
    Ok(Ready {
        speaking: (0..first).filter(|index| is_ready(*index)).collect(),
        looked: (0..views.len()).filter(|index| is_ready(first + index)).collect(),
        knocking: is_ready(behind),
    })
}

/// The peer is gone: what it owned goes too.
fn abandon(control: &Arc<dyn SandboxControl>, connection: Connection) {
    for (container, pid) in connection.processes {
        let _ = control.signal(&container, SignalTarget::Process(pid), SIGKILL);
    }
    for container in connection.containers {
        let _ = control.signal(&container, SignalTarget::All, SIGKILL);
    }
}

fn handle(
    control: &Arc<dyn SandboxControl>,
    connection: &mut Connection,
    request: Request,
    fds: Vec<OwnedFd>,
) {
    let number = request.number;
    if let Ask::Wait { container, pid } = request.body {
        let sender = Arc::clone(&connection.sender);
        let notice = Box::new(move |status| sender.reply(number, Answer::Ended { status }));
        if let Err(error) = control.wait(&container, pid, notice) {
            connection.sender.reply(number, Answer::Failed { error });
        }
        return;
    }
    if let Ask::AwaitOom { container, known } = request.body {
        let sender = Arc::clone(&connection.sender);
        let notice = Box::new(move |times| sender.reply(number, Answer::OutOfMemory { times }));
        if let Err(error) = control.await_oom(&container, known, notice) {
            connection.sender.reply(number, Answer::Failed { error });
        }
        return;
    }
    let answer = carry_out(control, connection, request.body, fds);
    connection.sender.reply(number, answer.unwrap_or_else(|error| Answer::Failed { error }));
    control.settle();
}

fn carry_out(
    control: &Arc<dyn SandboxControl>,
    connection: &mut Connection,
    ask: Ask,
    fds: Vec<OwnedFd>,
) -> Result<Answer, ControlError> {
    match ask {
        Ask::Create { spec } => {
            let donated = sort(
                fds,
                spec.process.stdio,
                spec.process.preserved,
                Gofer::Expected {
                    cgroups: spec.cgroup_files,
                    network: u32::from(spec.network_helper),
                    views: spec.mounts.iter().filter(|mount| mount.viewed).count(),
                },
            )?;
            let id = spec.id.clone();
            control.create_container(*spec, donated)?;
            connection.containers.push(id);
        }
        Ask::Start { container } => control.start(&container)?,
        Ask::Exec { container, process } => {
            let donated = sort(fds, process.stdio, process.preserved, Gofer::None)?;
            let pid = control.exec(&container, *process, donated)?;
            connection.processes.push((container, pid));
            return Ok(Answer::Started { pid });
        }
        Ask::Signal { container, target, signal } => control.signal(&container, target, signal)?,
        Ask::Status { container } => return Ok(Answer::Status { status: control.status(&container)? }),
        Ask::Processes { container } => {
            return Ok(Answer::Processes { list: control.processes(&container)? });
        }
        Ask::Proc { container, path } => {
            return Ok(Answer::Text { bytes: control.proc_file(&container, &path)? });
        }
        Ask::Stats { container } => return Ok(Answer::Stats { stats: control.stats(&container)? }),
        Ask::Resized { container, pid } => control.resized(&container, pid)?,
        Ask::Pause { container } => control.pause(&container)?,
        Ask::Resume { container } => control.resume(&container)?,
        Ask::Update { container, limits } => control.update(&container, limits)?,
        Ask::Delete { container } => control.delete(&container)?,
        Ask::Trace { to } => control.trace(to)?,
        Ask::Wait { .. } | Ask::AwaitOom { .. } => {
            return Err(ControlError::new(ErrorKind::Invalid, "wait is answered elsewhere"));
        }
    }
    Ok(Answer::Done)
}

/// Whether a gofer's connection is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gofer {
    /// It is, and so many of others behind it.
    Expected {
        /// See [`Donated::cgroups`].
        cgroups: u32,
        /// See [`Donated::network`].
        network: u32,
        /// See [`Donated::views`].
        views: usize,
    },
    /// It is not.
    None,
}

/// Sorts descriptors as they were sent: stdio, preserved, gofer, cgroups, network, views.
pub fn sort(fds: Vec<OwnedFd>, stdio: Stdio, preserved: u32, gofer: Gofer) -> Result<Donated, ControlError> {
    let count = match stdio {
        Stdio::Files => 3,
        Stdio::Terminal => 1,
    };
    let preserved = usize::try_from(preserved).unwrap_or(usize::MAX);
    let wants_network = matches!(gofer, Gofer::Expected { network: 1.., .. });
    let number = |count: u32| usize::try_from(count.min(64)).unwrap_or(0);
    let (cgroups, extra) = match gofer {
        Gofer::Expected { cgroups, network, views } => {
            (number(cgroups), 1 + number(cgroups) + number(network) + views.min(64))
        }
        Gofer::None => (0, 0),
    };
    if preserved > super::message::MOST_FDS || fds.len() != count + preserved + extra {
        let message = format!("control message with {} descriptors", fds.len());
        return Err(ControlError::new(ErrorKind::Invalid, message));
    }
    let mut fds = fds.into_iter();
    let stdio = fds.by_ref().take(count).collect();
    let preserved = fds.by_ref().take(preserved).collect();
    let gofer = fds.next();
    let cgroups = fds.by_ref().take(cgroups).collect();
    let network = if wants_network { fds.next() } else { None };
    Ok(Donated { stdio, preserved, gofer, cgroups, network, views: fds.collect() })
}
