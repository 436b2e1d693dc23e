//! Packets of the control socket: JSON, cut into packets of at most [`CHUNK`] bytes, the descriptors with
//! the first.
//!
//! A packet is one byte (0: last, 1: more follow) and a piece of the message. A connection carries
//! requests one way and answers, matched by number, the other; an answer to `Wait` comes when it comes.

use super::spec::{BootConfig, ContainerSpec, Limits, ProcessSpec};
use rustix::io::Errno as HostErrno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Most bytes of a message in one packet.
const CHUNK: usize = 48 * 1024;
/// Most bytes of a message.
const LONGEST: usize = 32 * 1024 * 1024;
/// Most descriptors with one message (SCM_MAX_FD of the host is 253).
pub const MOST_FDS: usize = 200;

/// A request and its number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the sender; the answer carries it.
    pub number: u64,
    /// What is asked.
    pub body: Ask,
}

/// What can be asked of a sandbox.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Create a container; descriptors: stdio, then the preserved, then the gofer's connection. The
    /// container is killed when the connection that created it closes.
    Create {
        /// The container.
        spec: Box<ContainerSpec>,
    },
    /// Start it.
    Start {
        /// Container id.
        container: String,
    },
    /// Run another process; descriptors: stdio, then the preserved. The process is killed when the
    /// connection closes.
    Exec {
        /// Container id.
        container: String,
        /// The process.
        process: Box<ProcessSpec>,
    },
    /// Send a signal.
    Signal {
        /// Container id.
        container: String,
        /// To whom.
        target: SignalTarget,
        /// Signal number.
        signal: u8,
    },
    /// Answer when a process has ended.
    Wait {
        /// Container id.
        container: String,
        /// An exec'ed process, or the first.
        pid: Option<u32>,
    },
    /// Answer when its memory limit has cost a process more often than that.
    AwaitOom {
        /// Container id.
        container: String,
        /// How often it is known to have.
        known: u64,
    },
    /// Where does it stand?
    Status {
        /// Container id.
        container: String,
    },
    /// List its processes.
    Processes {
        /// Container id.
        container: String,
    },
    /// Show a file of its /proc.
    Proc {
        /// Container id.
        container: String,
        /// Path below /proc.
        path: String,
    },
    /// Report what it uses.
    Stats {
        /// Container id.
        container: String,
    },
    /// Its terminal may have changed size.
    Resized {
        /// Container id.
        container: String,
        /// An exec'ed process, or the first.
        pid: Option<u32>,
    },
    /// Freeze it.
    Pause {
        /// Container id.
        container: String,
    },
    /// Thaw it.
    Resume {
        /// Container id.
        container: String,
    },
    /// Change limits.
    Update {
        /// Container id.
        container: String,
        /// New limits.
        limits: Limits,
    },
    /// Kill and forget it.
    Delete {
        /// Container id.
        container: String,
    },
    /// Switch the system call trace.
    Trace {
        /// On or off.
        to: Switch,
    },
}

/// An answer and the number of its request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    /// That of the request.
    pub number: u64,
    /// The answer.
    pub body: Answer,
}

/// Answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done,
    /// A process was started.
    Started {
        /// Its pid in the sandbox.
        pid: u32,
    },
    /// A process has ended.
    Ended {
        /// How.
        status: ExitStatus,
    },
    /// Its memory ran out.
    OutOfMemory {
        /// How often by now.
        times: u64,
    },
    /// Where a container stands.
    Status {
        /// Where.
        status: ContainerStatus,
    },
    /// Processes of a container.
    Processes {
        /// One each.
        list: Vec<ProcessInfo>,
    },
    /// What a file shows.
    Text {
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Usage of a container.
    Stats {
        /// Numbers.
        stats: Stats,
    },
    /// It failed.
    Failed {
        /// Why.
        error: ControlError,
    },
}

/// First message to a sandbox that boots.
#[derive(Debug, Serialize, Deserialize)]
pub struct Boot {
    /// The sandbox.
    pub config: BootConfig,
    /// Its first container.
    pub container: ContainerSpec,
}

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// Who gets a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignalTarget {
    /// The container's first process.
    Init,
    /// Every process of the container.
    All,
    /// One process, by its pid in the sandbox.
    Process(u32),
    /// The foreground process group of the terminal of that process (first process: `None`).
    Foreground(Option<u32>),
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExitStatus {
    /// exit(2) with this code.
    Exited(u8),
    /// Killed by this signal.
    Killed(u8),
}

impl ExitStatus {
    /// As a shell shows it: the code, or 128 plus the signal.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Exited(code) => code,
            ExitStatus::Killed(signal) => 128_u8.saturating_add(signal),
        }
    }
}

/// Where a container stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerStatus {
    /// Created, not started.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

/// One line of `runsc ps`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProcessInfo {
    /// Pid in the sandbox.
    pub pid: u32,
    /// Parent.
    pub ppid: u32,
    /// Effective user.
    pub uid: u32,
    /// Threads.
    pub threads: u32,
    /// Started, seconds since the epoch.
    pub start_time: u64,
    /// CPU time used, in milliseconds.
    pub cpu_ms: u64,
    /// Terminal, as ps shows it (`?`, `pts/0`).
    pub tty: String,
    /// Its arguments, or its name in brackets.
    pub command: String,
}

/// What a container uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Processes and threads.
    pub pids: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// CPU time, in nanoseconds.
    pub cpu_ns: u64,
    /// `memory.max` of its cgroup.
    pub memory_max: Option<u64>,
    /// `pids.max` of its cgroup.
    pub pids_max: Option<u64>,
    /// Processes that were killed because its memory ran out.
    pub oom_kills: u64,
}

/// Kinds of failure that the runtime tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No container of that id.
    NoSuchContainer,
    /// There is one already.
    Exists,
    /// It has ended, or was never started.
    NotRunning,
    /// The sandbox ended while it was asked.
    Gone,
    /// No process of that pid.
    NoSuchProcess,
    /// The program is not there (exit status 127).
    ProgramNotFound,
    /// The program cannot be executed (exit status 126).
    ProgramRefused,
    /// A field of the request makes no sense.
    Invalid,
    /// Not available.
    Unsupported,
    /// Anything else.
    Failed,
}

/// Why a request failed: one line that names the field or the path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// Kind.
    pub kind: ErrorKind,
    /// One line.
    pub message: String,
}

impl ControlError {
    /// An error of `kind` with a line.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> ControlError {
        ControlError { kind, message: message.into() }
    }
    /// No such container.
    #[must_use]
    pub fn no_container(id: &str) -> ControlError {
        ControlError::new(ErrorKind::NoSuchContainer, format!("container {id:?} does not exist"))
    }
    /// It is not running.
    #[must_use]
    pub fn not_running(id: &str) -> ControlError {
        ControlError::new(ErrorKind::NotRunning, format!("container not running: {id}"))
    }
    /// There is no such operation.
    #[must_use]
    pub fn unsupported(what: &str) -> ControlError {
        ControlError::new(ErrorKind::Unsupported, format!("{what} is not implemented"))
    }
}

/// Sends one message. Blocks while the peer's queue is full.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > LONGEST || fds.len() > MOST_FDS {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "control message too long"));
    }
    let mut chunks = text.chunks(CHUNK).peekable();
    let mut fds = fds;
    while let Some(chunk) = chunks.next() {
        let more = [u8::from(chunks.peek().is_some())];
        let parts = [IoSlice::new(&more), IoSlice::new(chunk)];
        send_packet(socket, &parts, fds)?;
        fds = &[];
    }
    Ok(())
}

fn send_packet(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    loop {
        let mut ancillary = SendAncillaryBuffer::new(if fds.is_empty() { &mut [] } else { &mut space });
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        match sendmsg(socket, parts, &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(HostErrno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message with its descriptors (close-on-exec); `None` when the peer has closed.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut text = Vec::new();
    let mut fds = Vec::new();
    let mut packet = vec![0_u8; CHUNK + 1];
    loop {
        let length = receive_packet(socket, &mut packet, &mut fds)?;
        let Some((more, piece)) = packet.get(..length).and_then(<[u8]>::split_first) else {
            if text.is_empty() {
                return Ok(None);
            }
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "control message cut short"));
        };
        if text.len() + piece.len() > LONGEST || fds.len() > MOST_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "control message too long"));
        }
        text.extend_from_slice(piece);
        if *more == 0 {
            return Ok(Some((serde_json::from_slice(&text)?, fds)));
        }
    }
}

fn receive_packet(socket: BorrowedFd<'_>, packet: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    loop {
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(socket, &mut [IoSliceMut::new(packet)], &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        match got {
            Ok(got) => {
                for message in ancillary.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        fds.extend(rights);
                    }
                }
                if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "control packet cut short"));
                }
                return Ok(got.bytes);
            }
            Err(HostErrno::INTR) => {}
            Err(HostErrno::CONNRESET) => return Ok(0),
            Err(error) => return Err(error.into()),
        }
    }
}
