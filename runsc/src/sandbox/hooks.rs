//! Hooks of the bundle (runtime specification, config.md, "POSIX-platform Hooks"): programs that read the
//! container's state on standard input. All run on the host, except `startContainer`, whose program is the
//! container's own and runs inside, as its process would.

use super::launch::{Descriptors, connect};
use crate::container::{Record, Status};
use crate::error::{Doing, Failure, Outcome};
use crate::spec::process;
use ::sentry::control::ExitStatus;
use ::sentry::control::client::{Event, unexpected};
use ::sentry::control::message::{Answer, Ask, SignalTarget};
use ::sentry::control::spec::{ProcessSpec, Stdio as GuestStdio};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, openat};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Most bytes of a failed hook's output that are told.
const OUTPUT: u64 = 1024;

/// Runs hooks in order; the first that fails ends it.
pub(crate) fn run(name: &str, hooks: Option<&Vec<Hook>>, record: &Record, status: Status) -> Outcome<()> {
    for (at, hook) in hooks.into_iter().flatten().enumerate() {
        one(hook, record, status).map_err(|failure| failure.within(place(name, at, hook)))?;
    }
    Ok(())
}

/// `createContainer`: programs of the host that run in the container's network namespace, at its root file
/// system. (Its mount namespace is the guest kernel's.)
pub(crate) fn run_in_container(hooks: Option<&Vec<Hook>>, record: &Record) -> Outcome<()> {
    if hooks.is_none_or(Vec::is_empty) {
        return Ok(());
    }
    let path = format!("/proc/{}/ns/net", record.monitor.map_or(0, |monitor| monitor.pid));
    let namespace = openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
    for (at, hook) in hooks.into_iter().flatten().enumerate() {
        let home = &record.rootfs;
        let done = elsewhere(namespace.as_ref(), || host_program(hook, record, Status::Creating, home));
        done.map_err(|failure| failure.within(place("createContainer", at, hook)))?;
    }
    Ok(())
}

/// Runs all hooks, whatever becomes of each; returns what went wrong.
pub(crate) fn run_all(name: &str, hooks: Option<&Vec<Hook>>, record: &Record, status: Status) -> Vec<String> {
    let failed = |(at, hook)| {
        let failure: Failure = one(hook, record, status).err()?;
        Some(failure.within(place(name, at, hook)).message)
    };
    hooks.into_iter().flatten().enumerate().filter_map(failed).collect()
}

fn place(name: &str, at: usize, hook: &Hook) -> String {
    format!("error running {name} hook #{at} {}", hook.path().display())
}

/// The network namespace that hooks run in, where this process leaves it.
static OUTSIDE: OnceLock<OwnedFd> = OnceLock::new();

/// Remembers the network namespace of now for hooks that come later.
pub(crate) fn stay_outside() -> Outcome<()> {
    let what = || "/proc/thread-self/ns/net";
    let namespace = openat(CWD, what(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).doing(what)?;
    let _ = OUTSIDE.set(namespace);
    Ok(())
}

fn one(hook: &Hook, record: &Record, status: Status) -> Outcome<()> {
    elsewhere(OUTSIDE.get(), || host_program(hook, record, status, &record.bundle))
}

/// Acts in a network namespace: on a thread of its own, whose children have its namespaces.
fn elsewhere(namespace: Option<&OwnedFd>, act: impl FnOnce() -> Outcome<()> + Send) -> Outcome<()> {
    let Some(namespace) = namespace else { return act() };
    let in_thread = || {
        // Without privileges (an ordinary user's) it is the runtime's.
        let _ = setns(namespace, CloneFlags::CLONE_NEWNET);
        act()
    };
    std::thread::scope(|scope| scope.spawn(in_thread).join())
        .unwrap_or_else(|_| Err(Failure::new("the thread that started it ended")))
}

fn host_program(hook: &Hook, record: &Record, status: Status, home: &Path) -> Outcome<()> {
    let mut command = Command::new(hook.path());
    let args = hook.args().clone().unwrap_or_default();
    if let Some(name) = args.first() {
        command.arg0(name).args(args.iter().skip(1));
    }
    // As runc: without a list of its own a hook has the runtime's environment.
    if let Some(env) = hook.env() {
        command.env_clear();
        command.envs(env.iter().filter_map(|pair| pair.split_once('=')));
    }
    let output = memory(b"")?;
    let stdio = |file: &File| file.try_clone().map(Stdio::from).doing(|| "its output");
    command.current_dir(home).stdin(memory(record.hook_state(status).to_string().as_bytes())?);
    command.stdout(stdio(&output)?).stderr(stdio(&output)?);
    let mut child = command.spawn().doing(|| "starting it")?;
    if !ends_in_time(&child, hook)? {
        let _ = child.kill();
        let _ = child.wait();
        return Err(too_late(hook));
    }
    let status = child.wait().doing(|| "waiting for it")?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{status}{}", told(output)))) }
}

/// A file in memory, at its beginning.
fn memory(content: &[u8]) -> Outcome<File> {
    let fd = rustix::fs::memfd_create("hook", MemfdFlags::CLOEXEC).doing(|| "memfd_create")?;
    let mut file = File::from(fd);
    file.write_all(content).and_then(|()| file.seek(SeekFrom::Start(0))).doing(|| "memfd")?;
    Ok(file)
}

fn told(mut output: File) -> String {
    let mut text = Vec::new();
    let _ = output.seek(SeekFrom::Start(0));
    let _ = output.take(OUTPUT).read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text);
    let text = text.trim().replace('\n', "; ");
    if text.is_empty() { String::new() } else { format!(", output: {text}") }
}

fn limit(hook: &Hook) -> Option<Duration> {
    hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs)
}

fn too_late(hook: &Hook) -> Failure {
    let seconds = limit(hook).unwrap_or_default().as_secs();
    Failure::new(format!("hook ran past specified timeout of {seconds} s"))
}

/// Waits until `fd` is readable; false when the hook's time is up.
fn readable(fd: BorrowedFd<'_>, limit: Option<Duration>, since: Instant) -> Outcome<bool> {
    loop {
        let left = limit.map(|limit| limit.saturating_sub(since.elapsed()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).doing(|| "waiting for it"),
        }
    }
}

fn ends_in_time(child: &Child, hook: &Hook) -> Outcome<bool> {
    let since = Instant::now();
    let pidfd = rustix::process::pidfd_open(
        rustix::process::Pid::from_child(child),
        rustix::process::PidfdFlags::empty(),
    );
    readable(pidfd.doing(|| "waiting for it")?.as_fd(), limit(hook), since)
}

/// `startContainer`: programs of the container, run inside it before its own.
pub(crate) fn run_inside(hooks: Option<&Vec<Hook>>, record: &Record, socket: &Path) -> Outcome<()> {
    for (at, hook) in hooks.into_iter().flatten().enumerate() {
        inside(hook, record, socket).map_err(|failure| failure.within(place("startContainer", at, hook)))?;
    }
    Ok(())
}

fn inside(hook: &Hook, record: &Record, socket: &Path) -> Outcome<()> {
    let since = Instant::now();
    let spec = process_of(hook, record)?;
    let mut state = record.hook_state(Status::Created);
    if let Some(pid) = state.get_mut("pid") {
        // As it sees itself.
        *pid = 1.into();
    }
    let output = memory(b"")?;
    let copy = |file: &File| file.try_clone().map(OwnedFd::from).doing(|| "its output");
    let stdio = vec![memory(state.to_string().as_bytes())?.into(), copy(&output)?, copy(&output)?];
    let fds = Descriptors { stdio, preserved: Vec::new(), ..Descriptors::default() };
    let mut client = connect(socket)?;
    let donated: Vec<BorrowedFd<'_>> = fds.stdio.iter().map(AsFd::as_fd).collect();
    let ask = Ask::Exec { container: record.id.clone(), process: Box::new(spec) };
    let pid = match client.ask(ask, &donated)? {
        Answer::Started { pid } => pid,
        other => return Err(unexpected(&other).into()),
    };
    let number = client.post(Ask::Wait { container: record.id.clone(), pid: Some(pid) }, &[])?;
    loop {
        if !client.came_early(number) && !readable(client.fd(), limit(hook), since)? {
            let target = SignalTarget::Process(pid);
            let _ = client.order(Ask::Signal { container: record.id.clone(), target, signal: 9 });
            return Err(too_late(hook));
        }
        let Event::Ended(status) = client.next_event(number, None)? else { continue };
        return match status {
            ExitStatus::Exited(0) => Ok(()),
            ExitStatus::Exited(code) => Err(Failure::new(format!("exit status: {code}{}", told(output)))),
            ExitStatus::Killed(signal) => Err(Failure::new(format!("signal: {signal}"))),
        };
    }
}

/// The hook as the container's user, with its environment unless it brings one.
fn process_of(hook: &Hook, record: &Record) -> Outcome<ProcessSpec> {
    let mut like = record.process.clone();
    let path = hook.path().to_string_lossy().into_owned();
    let args = hook.args().clone().filter(|args| !args.is_empty()).unwrap_or_else(|| vec![path.clone()]);
    like.set_args(Some(args)).set_terminal(Some(false));
    if let Some(env) = hook.env() {
        like.set_env(Some(env.clone()));
    }
    let mut spec = process::convert(&like, 0)?;
    spec.stdio = GuestStdio::Files;
    spec.program = Some(path);
    Ok(spec)
}
