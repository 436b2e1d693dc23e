//! The monitor of a detached container: what it does until `create` has given its word, and then.

use super::{Begun, launch};
use crate::cgroup::Witness;
use crate::cli::Global;
use crate::container::ProcessRef;
use crate::error::{Doing, Failure, Outcome};
use crate::log;
use crate::sandbox::ids::is_root_of_users;
use crate::sandbox::launch::{Descriptors, Entry, Launched};
use crate::sandbox::monitor::{Awaited, Signals, tear_down, wait_serving};
use crate::sandbox::walls::fill_standard;
use crate::sandbox::{network, proc_view, title, view};
use ::sentry::control::message::send;
use nix::sched::{CloneFlags, setns};
use platform::spawn::{Child, Unshare, close_all_except, fork};
use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};
/// What the monitor tells `create`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) sentry: Option<ProcessRef>,
    pub(super) gofer: Option<ProcessRef>,
    pub(super) failure: Option<(String, u8)>,
}

/// What `create` tells the monitor: the container is there.
pub(super) const AGREED: u8 = 1;
/// The same: it failed, and `create` removes what it had made.
pub(super) const UNDONE: u8 = 0;

/// What came of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word {
    Agreed,
    Undone,
    /// `create` was killed.
    None,
}

impl Word {
    fn of(report: &OwnedFd) -> Word {
        let mut word = [0_u8; 1];
        loop {
            return match rustix::net::recv(report, &mut word[..], rustix::net::RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok((1, _)) if word == [AGREED] => Word::Agreed,
                Ok((1, _)) => Word::Undone,
                _ => Word::None,
            };
        }
    }
}

/// Forks the monitor, which starts the rest.
pub(super) fn start_monitor(global: &Global, begun: &mut Begun, report: OwnedFd) -> Outcome<Child> {
    let (mut descriptors, entry) = begun.take_launch();
    descriptors.views = view::connections(&mut begun.plan);
    let begun = &*begun;
    let main = move || {
        let prepared = become_monitor(begun, &descriptors, entry.as_ref(), &report);
        let launched =
            prepared.and_then(|parts| Ok((parts, launch(global, &begun.plan, descriptors, entry)?)));
        match launched {
            Ok((mut parts, launched)) => watch(global, begun, launched, &mut parts, report),
            Err(Failure { message, code }) => {
                let told = Report { sentry: None, gofer: None, failure: Some((message, code)) };
                let _ = send(report.as_fd(), &told, &[]);
                if Word::of(&report) == Word::None {
                    begun.undo_abandoned();
                }
                1
            }
        }
    };
    // Root of a user namespace (rootless Podman) may enter no other pid namespace than one of that.
    let how = if is_root_of_users() { Unshare::PID } else { Unshare::empty() };
    fork(how, main).doing(|| "starting the monitor")
}

fn become_monitor(
    begun: &Begun,
    descriptors: &Descriptors,
    entry: Option<&Entry>,
    report: &OwnedFd,
) -> Outcome<MonitorParts> {
    let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut keep = vec![input.as_fd(), output.as_fd(), error.as_fd(), report.as_fd()];
    let donated = descriptors.stdio.iter().chain(&descriptors.preserved);
    keep.extend(donated.chain(&descriptors.cgroups).chain(&descriptors.views).map(AsFd::as_fd));
    if let Some(Entry::New(doors)) = entry {
        keep.push(doors.listener.as_fd());
        keep.extend(doors.log.as_ref().map(AsFd::as_fd));
    }
    close_all_except(&keep).doing(|| "closing descriptors")?;
    let _ = rustix::thread::set_name(c"runsc-monitor");
    rustix::process::setsid().doing(|| "setsid")?;
    if let (1, Some(slave)) = (descriptors.stdio.len(), descriptors.stdio.first()) {
        // Its window changes then reach us as SIGWINCH.
        let _ = rustix::process::ioctl_tiocsctty(slave);
    }
    let fuse = proc_view::device();
    let guest = view::guest_mounts(&descriptors.views);
    let mounts = openat(CWD, "/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
    begun.join_cgroup()?;
    begun.set_scores();
    if network::is_set_up_by_hooks(&begun.plan) {
        // Hooks that set up a network (Docker's) find it through our pid: it must not be the host's.
        crate::sandbox::walls::unshare(rustix::thread::UnshareFlags::NEWNET)?;
    }
    Ok(MonitorParts { signals: Signals::take()?, fuse, guest, witness: begun.witness(), mounts })
}

/// What a monitor has before there is a container.
struct MonitorParts {
    signals: Signals,
    /// A connection over which others will see the guest's /proc.
    fuse: Option<OwnedFd>,
    /// File systems of viewed mounts.
    guest: Vec<Option<OwnedFd>>,
    witness: Option<Witness>,
    /// The caller's mount namespace, until `create` has given its word.
    mounts: Option<OwnedFd>,
}

/// The monitor's life.
fn watch(
    global: &Global,
    begun: &Begun,
    mut launched: Launched,
    prepared: &mut MonitorParts,
    report: OwnedFd,
) -> u8 {
    // With a terminal these are a pipe that the caller reads to its end; otherwise the guest's, who may close them.
    let _ = fill_standard(None);
    let plan = &begun.plan;
    let (fuse, witness, mounts) = (prepared.fuse.take(), prepared.witness.take(), prepared.mounts.take());
    let signals = &prepared.signals;
    let reference = ProcessRef::of_child;
    let mut told = Report {
        sentry: launched.sentry.as_ref().and_then(reference),
        gofer: reference(&launched.gofer),
        failure: None,
    };
    let mut log = log::open(global);
    title::show(&plan.container.process.args);
    let guest = std::mem::take(&mut prepared.guest);
    let proc_view = view::enter(plan, &launched, fuse, guest).unwrap_or_else(|Failure { message, code }| {
        told.failure = Some((message, code));
        None
    });
    let _ = send(report.as_fd(), &told, &[]);
    let word = Word::of(&report);
    drop(report);
    // With the container in it, nothing of the monitor leads outside.
    let mounts = mounts.filter(|_| word == Word::None);
    let code = match Awaited::post_init(&mut launched, &plan.container.id, witness) {
        Ok(mut awaited) if word == Word::Agreed => {
            wait_serving(&mut launched.client, &mut awaited, signals, proc_view).code()
        }
        _ => 1,
    };
    if let (Some(words), Some(log)) = (tear_down(launched), &mut log) {
        log.write(log::Level::Error, &words);
    }
    if let Some(mounts) = mounts {
        let _ = setns(mounts, CloneFlags::CLONE_NEWNS);
        begun.undo_abandoned();
    }
    code
}
