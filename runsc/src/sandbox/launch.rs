//! Starts the processes of a sandbox, side by side.

use super::ids::Ids;
use super::monitor;
use super::sentry::{Identity, Inherited, NOBODY};
use super::{gofer, network, sentry};
use crate::cli::Global;
use crate::container::process::host_pid;
use crate::error::{Doing, Failure, HostError, Outcome};
use crate::spec::{Plan, convert};
use ::sentry::cgroup::cpus::{self, CpuSet};
use ::sentry::control::Donated;
use ::sentry::control::client::Client;
use ::sentry::control::message::{Ask, MOST_FDS};
use ::sentry::control::spec::{BootConfig, HostFacts};
use platform::spawn::{Child, IdMap, SetGroups, write_id_maps};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The processes and connection behind a container.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Connection that owns the container.
    pub(crate) client: Client,
    /// The sentry, when the sandbox is the container's own.
    pub(crate) sentry: Option<Child>,
    /// The file server.
    pub(crate) gofer: Child,
    /// The network helper, when the container has one of its own.
    pub(crate) network: Option<Child>,
}

/// Descriptors of a container's process.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    /// 0, 1, 2, or a terminal's slave.
    pub(crate) stdio: Vec<OwnedFd>,
    /// 3 and up.
    pub(crate) preserved: Vec<OwnedFd>,
    /// `cgroup.procs` of a pod's container.
    pub(crate) cgroups: Vec<OwnedFd>,
    /// FUSE connections of mounts that others look at (`view`).
    pub(crate) views: Vec<OwnedFd>,
}

/// Where a container is made.
#[derive(Debug)]
pub(crate) enum Entry {
    /// In a sandbox of its own.
    New(Doors),
    /// In one that is there.
    Beside {
        /// Its control socket.
        socket: PathBuf,
        /// What the container's own network leads to.
        reach: Option<network::Reach>,
    },
}

/// Sockets and files that the new processes get.
#[derive(Debug)]
pub(crate) struct Doors {
    /// Listening control socket.
    pub(crate) listener: OwnedFd,
    /// `--debug-log`.
    pub(crate) log: Option<OwnedFd>,
    /// Where a panic is told.
    pub(crate) last_words: Option<OwnedFd>,
    /// What the sandbox' network leads to.
    pub(crate) reach: Option<network::Reach>,
}

/// A connected pair of packet sockets.
pub(crate) fn pair() -> Outcome<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .doing(|| "socketpair")
}

/// Starts sentry and gofer and creates the container.
pub(crate) fn sandbox(global: &Global, plan: &Plan, fds: Descriptors, doors: Doors) -> Outcome<Launched> {
    let (gofer_end, sentry_gofer) = pair()?;
    let (owner, sentry_owner) = pair()?;
    let (failures, gofer_failures) = pipe()?;
    let ids = Ids::of(&plan.container);
    let who = identity();
    let config = boot_config(global, plan);
    let Descriptors { stdio, preserved, cgroups, views } = fds;
    let donated = Donated { stdio, preserved, gofer: Some(sentry_gofer), cgroups, network: None, views };
    let Doors { listener, log, last_words, reach } = doors;
    let (helper, wire, word) = helper(reach.as_ref())?;
    let inherited = Inherited { owner: sentry_owner, listener, network: wire, donated, log, last_words };
    let mut container = plan.container.clone();
    container.limits.cpus = allowed_cpus(None);
    let sentry = Killed(Some(sentry::spawn(config, container, inherited, who)?));
    map_ids(sentry.pid(), who)?;
    rustix::net::send(&owner, &[1], rustix::net::SendFlags::NOSIGNAL).doing(|| "starting the sentry")?;
    let gofer = Killed(Some(gofer::spawn(
        &plan.exports,
        gofer_end,
        gofer_failures,
        sentry.0.as_ref(),
        ids.as_ref(),
    )?));
    let mut client = Client::new(owner);
    if let Err(error) = client.answer(0) {
        return Err(explain(error.into(), failures, sentry.0.as_ref()));
    }
    word.map_or(Ok(()), network::ready)?;
    let gofer = gofer.keep().ok_or_else(|| Failure::new("gofer"))?;
    Ok(Launched { client, sentry: sentry.keep(), gofer, network: helper.keep() })
}

/// Starts the network helper where there is something to reach: the child, the sentry's end of its socket, and
/// where it says that it serves.
fn helper(reach: Option<&network::Reach>) -> Outcome<(Killed, Option<OwnedFd>, Option<OwnedFd>)> {
    let Some(reach) = reach else { return Ok((Killed(None), None, None)) };
    let (own_end, wire) = pair()?;
    let (word, own_word) = pipe()?;
    let child = network::spawn(reach, own_end, own_word)?;
    Ok((Killed(Some(child)), Some(wire), Some(word)))
}

/// Adds a container to the sandbox behind `socket`; with `reach` it has a network of its own.
pub(crate) fn member(
    plan: &Plan,
    fds: &Descriptors,
    socket: &Path,
    reach: Option<&network::Reach>,
) -> Outcome<Launched> {
    let mut client = connect(socket)?;
    let ids = Ids::of(&plan.container);
    let (gofer_end, sentry_gofer) = pair()?;
    let (failures, gofer_failures) = pipe()?;
    let (helper, wire, word) = helper(reach)?;
    let gofer = Killed(Some(gofer::spawn(&plan.exports, gofer_end, gofer_failures, None, ids.as_ref())?));
    let mut donated: Vec<BorrowedFd<'_>> = fds.stdio.iter().chain(&fds.preserved).map(AsFd::as_fd).collect();
    donated.push(sentry_gofer.as_fd());
    donated.extend(fds.cgroups.iter().chain(&wire).chain(&fds.views).map(AsFd::as_fd));
    if donated.len() > MOST_FDS {
        return Err(Failure::new(format!("--preserve-fds: more than {MOST_FDS}")));
    }
    let mut spec = Box::new(plan.container.clone());
    spec.limits.cpus = allowed_cpus(None);
    spec.network_helper = wire.is_some();
    if let Err(error) = client.ask(Ask::Create { spec }, &donated) {
        return Err(explain(error.into(), failures, None));
    }
    word.map_or(Ok(()), network::ready)?;
    let gofer = gofer.keep().ok_or_else(|| Failure::new("gofer"))?;
    Ok(Launched { client, sentry: None, gofer, network: helper.keep() })
}

/// A failure of the sentry may be the gofer's fault, or a death it could not explain.
fn explain(failure: Failure, failures: OwnedFd, sentry: Option<&Child>) -> Failure {
    let mut words = String::new();
    if rustix::io::ioctl_fionread(&failures).is_ok_and(|ready| ready > 0) {
        let mut first = [0_u8; 4096];
        let length = std::fs::File::from(failures).read(&mut first).unwrap_or(0);
        words = String::from_utf8_lossy(first.get(..length).unwrap_or_default()).into_owned();
    }
    if !words.is_empty() {
        return Failure::new(words);
    }
    if failure.message.starts_with("sandbox process is gone")
        && let Some(status) = sentry.and_then(monitor::reap_now)
    {
        return Failure::new(format!("the sentry ended while it booted: {status}"));
    }
    failure
}

/// Kills a child unless it is kept.
struct Killed(Option<Child>);

impl Killed {
    fn pid(&self) -> i32 {
        self.0.as_ref().map_or(0, host_pid)
    }
    fn keep(mut self) -> Option<Child> {
        self.0.take()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            monitor::kill_and_reap(&child);
        }
    }
}

fn pipe() -> Outcome<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing(|| "pipe")
}

fn identity() -> Identity {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() {
        Identity { uid: NOBODY, gid: NOBODY }
    } else {
        Identity { uid: uid.as_raw(), gid: gid.as_raw() }
    }
}

/// Writes the maps of a child's user namespace: one id, itself.
fn map_ids(pid: i32, who: Identity) -> Outcome<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(CWD, "/proc", flags, Mode::empty()).doing(|| "/proc")?;
    let one = |id| [IdMap { inside: id, outside: id, count: 1 }];
    write_id_maps(proc.as_fd(), pid, &one(who.uid), &one(who.gid), SetGroups::Deny)
        .doing(|| format!("/proc/{pid}/uid_map"))
}

fn boot_config(global: &Global, plan: &Plan) -> BootConfig {
    BootConfig {
        sandbox: plan.container.id.clone(),
        platform: convert::platform(global),
        strace: global.strace,
        debug: global.debug,
        memory_limit: host_memory(),
        cpu_ids: online(),
        host: HostFacts::default(),
    }
}

/// Processors of the machine.
fn online() -> CpuSet {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    cpus::parse(text.trim()).ok().flatten().or_else(|| affinity(None)).unwrap_or_else(|| cpus::first(1))
}

/// Processors that a process may be on.
fn affinity(pid: Option<i32>) -> Option<CpuSet> {
    let found = rustix::thread::sched_getaffinity(pid.and_then(rustix::process::Pid::from_raw)).ok()?;
    let mut set = cpus::none();
    (0..cpus::MOST).filter(|cpu| found.is_set(*cpu)).for_each(|cpu| cpus::add(&mut set, cpu));
    Some(set)
}

/// Processors that the host lets a process of a container have: this one's, in its cgroup, or another's. `None` when
/// that is all there are.
pub(crate) fn allowed_cpus(pid: Option<i32>) -> Option<CpuSet> {
    affinity(pid).filter(|set| *set != online())
}

fn host_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}

/// Facts that guests are shown.
pub(crate) fn host_facts() -> HostFacts {
    HostFacts { memory_total: host_memory(), cpu_khz: 0 }
}

fn packet_socket() -> Outcome<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .doing(|| "socket")
}

/// Connects to a sandbox' control socket.
pub(crate) fn connect(socket: &Path) -> Outcome<Client> {
    let fd = packet_socket()?;
    let gone = |error: rustix::io::Errno| match error {
        rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED => {
            Failure::new("sandbox process is gone: container not running")
        }
        error => Failure::new(format!("{}: {}", socket.display(), error.words())),
    };
    with_short_path(socket, |address| rustix::net::connect(&fd, address).map_err(gone))?;
    Ok(Client::new(fd))
}

/// Binds and listens.
pub(crate) fn listen(socket: &Path) -> Outcome<OwnedFd> {
    let fd = packet_socket()?;
    with_short_path(socket, |address| rustix::net::bind(&fd, address).doing(|| socket.display()))?;
    rustix::net::listen(&fd, 128).doing(|| socket.display())?;
    Ok(fd)
}

/// `sockaddr_un` holds 108 bytes; a long path is reached through a descriptor of its directory.
pub(crate) fn with_short_path<T>(path: &Path, act: impl FnOnce(&SocketAddrUnix) -> Outcome<T>) -> Outcome<T> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return act(&address);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::new(format!("{}: not a socket's path", path.display())));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, parent, flags, Mode::empty()).doing(|| parent.display())?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    act(&SocketAddrUnix::new(&short).doing(|| path.display())?)
}
