//! `run`: create, start and, unless detached, stay until the end.

use super::create::{Begun, begin, create_detached, launch, plainly, write_pid_file};
use super::{delete, start};
use crate::cgroup::Witness;
use crate::cli::{Global, Run};
use crate::container::{ProcessRef, Record, Status};
use crate::error::Outcome;
use crate::sandbox::attach::{copy_size, drain, relay};
use crate::sandbox::launch::Launched;
use crate::sandbox::monitor::{Awaited, Signals, tear_down, wait};
use crate::sandbox::stdio::Presence;
use crate::sandbox::{hooks, network};
use ::sentry::control::ExitStatus;
use ::sentry::control::message::Ask;
use std::path::Path;

/// `run`.
pub(super) fn run(global: &Global, args: &Run) -> Outcome<u8> {
    run_inner(global, args).map_err(plainly)
}

fn run_inner(global: &Global, args: &Run) -> Outcome<u8> {
    if args.detach {
        let (held, mut record) = create_detached(global, &args.create)?;
        if let Err(failure) = start::start_held(global, &held, &mut record) {
            delete::destroy(global, held, &record)?;
            return Err(failure);
        }
        return Ok(0);
    }
    let begun = begin(global, &args.create, Presence::Attached)?;
    stay(global, begun, args.create.pid_file.as_deref(), Keep::from(args.keep))
}

/// What becomes of the container's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Keep {
    /// It stays.
    Kept,
    /// It is removed.
    Removed,
}

impl From<bool> for Keep {
    fn from(kept: bool) -> Keep {
        if kept { Keep::Kept } else { Keep::Removed }
    }
}

/// Runs a container in front of the caller; this process is its monitor.
pub(super) fn stay(global: &Global, mut begun: Begun, pid_file: Option<&Path>, keep: Keep) -> Outcome<u8> {
    let (descriptors, entry) = begun.take_launch();
    let launched = (|| {
        let signals = Signals::take()?;
        begun.join_cgroup()?;
        if network::is_set_up_by_hooks(&begun.plan) {
            // They find it through our pid, and run outside of it themselves.
            hooks::stay_outside()?;
            crate::sandbox::walls::unshare(rustix::thread::UnshareFlags::NEWNET)?;
        }
        begun.set_scores();
        let witness = begun.witness();
        Ok((signals, witness, launch(global, &begun.plan, descriptors, entry)?))
    })();
    let (signals, witness, mut launched) = match launched {
        Ok(launched) => launched,
        Err(failure) => {
            begun.undo();
            return Err(failure);
        }
    };
    let outcome = go(global, &begun, &mut launched, (&signals, witness), pid_file);
    if let Some(words) = tear_down(launched) {
        crate::log::write(global, crate::log::Level::Error, &words);
        crate::log::complain(&words);
    }
    if let (Ok(_), Some(master)) = (&outcome, &begun.prepared.master) {
        drain(master);
    }
    finish(global, begun, outcome, keep)
}

fn go(
    global: &Global,
    begun: &Begun,
    launched: &mut Launched,
    (signals, witness): (&Signals, Option<Witness>),
    pid_file: Option<&Path>,
) -> Outcome<ExitStatus> {
    let id = &begun.plan.container.id;
    let own_pid = rustix::process::getpid().as_raw_pid();
    let sentry = launched.sentry.as_ref().and_then(|child| ProcessRef::of(child.pid));
    let gofer = ProcessRef::of(launched.gofer.pid);
    let mut record = begun.record(ProcessRef::of(own_pid), sentry, gofer, Status::Creating);
    if begun.plan.hooks.is_some() {
        begun.held.write(&record)?;
        begun.creation_hooks(&record)?;
    }
    if let Some(path) = pid_file {
        write_pid_file(path, own_pid)?;
    }
    if let Some(master) = &begun.prepared.master {
        copy_size(master);
    }
    let mut awaited = Awaited::post_init(launched, id, witness)?;
    if begun.plan.hooks.is_some() {
        begun.held.mark(&mut record, Status::Created)?;
        start::start_hooks(&record, &begun.store)?;
    }
    begun.held.mark(&mut record, Status::Running)?;
    begun.held.unlock();
    launched.client.last_order(Ask::Start { container: id.clone() })?;
    start::started_hooks(global, &record);
    match &begun.prepared.master {
        Some(master) => relay(&mut launched.client, &mut awaited, signals, master),
        None => Ok(wait(&mut launched.client, &mut awaited, signals)),
    }
}

fn finish(global: &Global, begun: Begun, outcome: Outcome<ExitStatus>, keep: Keep) -> Outcome<u8> {
    if keep == Keep::Kept && outcome.is_ok() {
        return outcome.map(ExitStatus::code);
    }
    begun.held.relock();
    let record: Option<Record> = begun.held.read().ok().flatten();
    begun.undo();
    if let Some(record) = record {
        poststop(global, &record);
    }
    outcome.map(ExitStatus::code)
}

/// Failures after the end are only worth a warning.
pub(super) fn poststop(global: &Global, record: &Record) {
    let hooks = record.hooks.as_ref().and_then(|hooks| hooks.poststop().as_ref());
    for words in hooks::run_all("poststop", hooks, record, Status::Stopped) {
        crate::log::warn(global, &words);
    }
}
