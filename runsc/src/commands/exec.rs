//! `exec`.

use super::create::write_pid_file;
use crate::cli::{Exec, Global};
use crate::container::{Record, Status, Store};
use crate::error::{Doing, Failure, Outcome};
use crate::sandbox::attach::{copy_size, drain, relay};
use crate::sandbox::launch::{Descriptors, connect, pair};
use crate::sandbox::monitor::{Awaited, Signals, wait};
use crate::sandbox::stdio::{Prepared, Presence, prepare, preserved};
use crate::sandbox::walls::fill_standard;
use crate::spec::load::parse;
use crate::spec::names::capability_bit;
use crate::spec::process::convert;
use ::sentry::control::client::{Client, unexpected};
use ::sentry::control::message::{Answer, Ask, receive, send};
use ::sentry::control::spec::ProcessSpec;
use oci_spec::runtime::{Process, UserBuilder};
use platform::spawn::{Unshare, close_all_except, fork};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the monitor of a detached exec tells: nothing, or why not.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    failure: Option<(String, u8)>,
}

/// `exec`.
pub(super) fn exec(global: &Global, args: &Exec) -> Outcome<u8> {
    // runc's exec fails with 255 where the process could not be started for another reason than its name.
    exec_inner(global, args).map_err(|failure| match failure.code {
        1 => Failure { code: 255, ..failure },
        _ => failure,
    })
}

fn exec_inner(global: &Global, args: &Exec) -> Outcome<u8> {
    let descriptors = preserved(args.preserve_fds)?;
    let store = Store::open(global)?;
    let record = store.peek(&args.id)?;
    match record.status() {
        Status::Running | Status::Created => {}
        Status::Paused if args.ignore_paused => {}
        Status::Paused => {
            return Err(Failure::new("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        other => {
            return Err(Failure::new(format!(
                "cannot exec in a {} container: container not running",
                other.name()
            )));
        }
    }
    let (process, mut spec) = process(args, &record)?;
    spec.cgroup = group(&args.cgroup)?;
    for name in &args.cap {
        let Some(bit) = capability_bit(name) else {
            crate::log::warn(global, &format!("ignoring unknown capability {name}"));
            continue;
        };
        let sets = &mut spec.capabilities;
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            *set |= bit;
        }
    }
    let presence = if args.detach { Presence::Detached } else { Presence::Attached };
    let prepared = prepare(&process, args.console_socket.as_deref(), descriptors, presence)?;
    let client = connect(&store.socket(&record.sandbox))?;
    match presence {
        Presence::Attached => attached(args, client, spec, prepared),
        Presence::Detached => detached(args, client, spec, prepared),
    }
}

/// `--cgroup`: a group below the container's. Those are its kernel's, of cgroup v2, where a process is in one group.
fn group(paths: &[String]) -> Outcome<Option<String>> {
    match paths {
        [] => Ok(None),
        [path] if path.contains(':') => Err(Failure::new(format!(
            "--cgroup {path}: guests have cgroup v2, where a group has all controllers"
        ))),
        [path] => Ok(Some(path.clone())),
        _ => Err(Failure::new("--cgroup: guests have cgroup v2, where a process is in one group")),
    }
}

/// The process as the bundle would have it, and for the kernel.
fn process(args: &Exec, record: &Record) -> Outcome<(Process, ProcessSpec)> {
    let mut process = match &args.process {
        Some(path) => {
            let text = std::fs::read(path).doing(|| format!("--process {}", path.display()))?;
            parse::<Process>(&text, path)?
        }
        None => {
            if args.command.is_empty() {
                return Err(Failure::new("exec: no program was given"));
            }
            let mut process = record.process.clone();
            process.set_args(Some(args.command.clone())).set_terminal(Some(args.tty)).set_console_size(None);
            process
        }
    };
    if args.tty {
        process.set_terminal(Some(true));
    }
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.into());
    }
    if !args.env.is_empty() {
        let mut env = process.env().clone().unwrap_or_default();
        env.extend(args.env.iter().cloned());
        process.set_env(Some(env));
    }
    if let Some(text) = &args.user {
        let (uid, gid) = user(text)?;
        let user = UserBuilder::default()
            .uid(uid)
            .gid(gid)
            .build()
            .map_err(|error| Failure::new(error.to_string()))?;
        process.set_user(user);
    }
    if !args.additional_gids.is_empty() {
        let mut user = process.user().clone();
        user.set_additional_gids(Some(args.additional_gids.clone()));
        process.set_user(user);
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(label) = &args.apparmor {
        process.set_apparmor_profile(Some(label.clone()));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    crate::spec::refuse::labels(&process)?;
    let spec = convert(&process, args.preserve_fds)?;
    Ok((process, spec))
}

/// `UID[:GID]`.
pub(super) fn user(text: &str) -> Outcome<(u32, u32)> {
    let bad = || Failure::new(format!("--user: {text:?} is not UID[:GID]"));
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    Ok((uid.parse().map_err(|_| bad())?, gid.parse().map_err(|_| bad())?))
}

fn launch(client: &mut Client, id: &str, process: ProcessSpec, fds: &Descriptors) -> Outcome<(u32, Awaited)> {
    let donated: Vec<BorrowedFd<'_>> = fds.stdio.iter().chain(&fds.preserved).map(AsFd::as_fd).collect();
    let ask = Ask::Exec { container: id.to_owned(), process: Box::new(process) };
    let pid = match client.ask(ask, &donated)? {
        Answer::Started { pid } => pid,
        other => return Err(unexpected(&other).into()),
    };
    Ok((pid, Awaited::post(client, id, Some(pid))?))
}

fn attached(args: &Exec, mut client: Client, spec: ProcessSpec, prepared: Prepared) -> Outcome<u8> {
    let signals = Signals::take()?;
    if let Some(master) = &prepared.master {
        copy_size(master);
    }
    let (_, mut awaited) = launch(&mut client, &args.id, spec, &prepared.descriptors)?;
    drop(prepared.descriptors);
    if let Some(path) = &args.pid_file {
        write_pid_file(path, rustix::process::getpid().as_raw_pid())?;
    }
    let status = match &prepared.master {
        Some(master) => {
            let status = relay(&mut client, &mut awaited, &signals, master)?;
            drain(master);
            status
        }
        None => wait(&mut client, &mut awaited, &signals),
    };
    Ok(status.code())
}

fn detached(args: &Exec, client: Client, spec: ProcessSpec, prepared: Prepared) -> Outcome<u8> {
    let (report, monitor_report) = pair()?;
    let id = args.id.clone();
    let descriptors = prepared.descriptors;
    let main = move || match monitor(&id, client, spec, descriptors, &monitor_report) {
        Ok((mut client, mut awaited, signals)) => {
            let _ = send(monitor_report.as_fd(), &Report { failure: None }, &[]);
            drop(monitor_report);
            wait(&mut client, &mut awaited, &signals).code()
        }
        Err(Failure { message, code }) => {
            let _ = send(monitor_report.as_fd(), &Report { failure: Some((message, code)) }, &[]);
            code
        }
    };
    let child = fork(Unshare::empty(), main).doing(|| "starting the monitor")?;
    let gone = || Failure::new("the monitor ended before the process was started");
    let (told, _) = receive::<Report>(report.as_fd()).doing(|| "monitor")?.ok_or_else(gone)?;
    if let Some((message, code)) = told.failure {
        return Err(Failure { message, code });
    }
    if let Some(path) = &args.pid_file {
        write_pid_file(path, child.pid)?;
    }
    Ok(0)
}

fn monitor(
    id: &str,
    mut client: Client,
    spec: ProcessSpec,
    descriptors: Descriptors,
    report: &OwnedFd,
) -> Outcome<(Client, Awaited, Signals)> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut keep = vec![input.as_fd(), output.as_fd(), error.as_fd(), report.as_fd(), client.fd()];
    keep.extend(descriptors.stdio.iter().chain(&descriptors.preserved).map(AsFd::as_fd));
    close_all_except(&keep).doing(|| "closing descriptors")?;
    drop(keep);
    let _ = rustix::thread::set_name(c"runsc-monitor");
    rustix::process::setsid().doing(|| "setsid")?;
    if let (1, Some(slave)) = (descriptors.stdio.len(), descriptors.stdio.first()) {
        let _ = rustix::process::ioctl_tiocsctty(slave);
    }
    let signals = Signals::take()?;
    crate::sandbox::title::show(&spec.args);
    let (_, awaited) = launch(&mut client, id, spec, &descriptors)?;
    // With a terminal these are a pipe that the caller reads to its end; otherwise the guest's, who may close them.
    fill_standard(None)?;
    Ok((client, awaited, signals))
}
