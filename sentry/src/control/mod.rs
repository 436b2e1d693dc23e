//! The control plane: how the runtime (`runsc`) drives the kernel.
//!
//! `spec` is what crosses, `message` how it crosses (JSON packets with descriptors over an AF_UNIX
//! seqpacket socket), `server` the sentry's end, `client` the runtime's. The kernel implements
//! [`SandboxControl`]; nothing here knows how.
//!
//! The peer of these sockets is our own runtime, reached through a directory that only its user may
//! enter: a malformed message is an error to its sender, never a panic.

pub mod client;
pub mod message;
pub mod server;
pub mod spec;

use spec::{ContainerSpec, ProcessSpec};
use std::os::fd::{BorrowedFd, OwnedFd};

pub use message::{ContainerStatus, ControlError, ErrorKind, ExitStatus, ProcessInfo, SignalTarget, Stats};

/// What every control operation returns.
pub type ControlResult<T> = Result<T, ControlError>;

/// Runs once, on any thread, when the awaited process has ended. Must not block.
pub type ExitNotice = Box<dyn FnOnce(ExitStatus) + Send>;

/// Runs once, on any thread, with how often the memory of a container has run out so far. Must not block.
pub type OomNotice = Box<dyn FnOnce(u64) + Send>;

/// The descriptors that come with a container or a process.
#[derive(Debug, Default)]
pub struct Donated {
    /// Three files (standard input, output, error), or the one raw slave of a host terminal: see
    /// [`spec::Stdio`].
    pub stdio: Vec<OwnedFd>,
    /// Descriptors 3 and up of the process (`--preserve-fds`).
    pub preserved: Vec<OwnedFd>,
    /// The connection to the container's gofer; never there for an exec.
    pub gofer: Option<OwnedFd>,
    /// `cgroup.procs` of a pod's container on the host, one for each hierarchy.
    pub cgroups: Vec<OwnedFd>,
    /// The connection to a network helper of the container's own.
    pub network: Option<OwnedFd>,
    /// FUSE connections over which the host asks for mounts of the container: those that are
    /// [`spec::MountSpec::viewed`], in their order.
    pub views: Vec<OwnedFd>,
}

/// Whether a view is still mounted somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Served {
    /// It is.
    Open,
    /// It never will be again.
    Closed,
}

/// A mount of a container that the host looks at.
pub trait FileView: Send {
    /// Readable while something is asked.
    fn fd(&self) -> BorrowedFd<'_>;
    /// Answers what is asked now. Must not block.
    fn serve(&mut self) -> Served;
}

/// The kernel as the runtime sees it. Every call may come from any thread.
pub trait SandboxControl: Send + Sync {
    /// Builds a container (mounts, namespaces, the loaded but not started program). Everything that can
    /// fail does so here: a missing program is [`ErrorKind::ProgramNotFound`].
    fn create_container(&self, spec: ContainerSpec, donated: Donated) -> ControlResult<()>;

    /// Lets the container's first process run.
    fn start(&self, container: &str) -> ControlResult<()>;

    /// Views of containers that were made since the last call.
    fn views(&self) -> Vec<Box<dyn FileView>> {
        Vec::new()
    }

    /// Called once an answer has left: brings about ends that the caller must not hear of before it.
    fn settle(&self) {}

    /// Starts another process in a running container; returns its pid in the sandbox's root pid namespace.
    fn exec(&self, container: &str, process: ProcessSpec, donated: Donated) -> ControlResult<u32>;

    /// Sends a signal. A container that has ended is [`ErrorKind::NotRunning`].
    fn signal(&self, container: &str, target: SignalTarget, signal: u8) -> ControlResult<()>;

    /// Calls `notice` when the container's first process (`pid` of `None`) or an exec'ed one has ended,
    /// at once if it has already.
    fn wait(&self, container: &str, pid: Option<u32>, notice: ExitNotice) -> ControlResult<()>;

    /// Calls `notice` when the container's memory limit has cost a process more often than `known` times.
    fn await_oom(&self, container: &str, known: u64, notice: OomNotice) -> ControlResult<()>;

    /// Where the container stands.
    fn status(&self, container: &str) -> ControlResult<ContainerStatus>;

    /// Its processes, for `runsc ps`.
    fn processes(&self, container: &str) -> ControlResult<Vec<ProcessInfo>>;

    /// What a file of its /proc shows, for callers that look at its processes from the host.
    fn proc_file(&self, container: &str, path: &str) -> ControlResult<Vec<u8>>;

    /// What it uses, for `runsc events`.
    fn stats(&self, container: &str) -> ControlResult<Stats>;

    /// Tells a process' terminal that its window may have changed (SIGWINCH): the size is read from the
    /// donated slave.
    fn resized(&self, container: &str, pid: Option<u32>) -> ControlResult<()>;

    /// Kills whatever is left of a container and forgets it.
    fn delete(&self, container: &str) -> ControlResult<()>;

    /// Freezes all processes of the container.
    fn pause(&self, _container: &str) -> ControlResult<()> {
        Err(ControlError::unsupported("pause"))
    }

    /// Thaws them.
    fn resume(&self, _container: &str) -> ControlResult<()> {
        Err(ControlError::unsupported("resume"))
    }

    /// Switches the system call trace of the live sandbox.
    fn trace(&self, _on: message::Switch) -> ControlResult<()> {
        Err(ControlError::unsupported("strace of a running sandbox"))
    }

    /// Changes limits of a live container.
    fn update(&self, _container: &str, _limits: spec::Limits) -> ControlResult<()> {
        Err(ControlError::unsupported("update"))
    }
}
