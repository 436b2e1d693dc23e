//! `start`.

use super::create::plainly;
use crate::cli::Global;
use crate::container::{Held, Record, Status, Store};
use crate::error::{Failure, Outcome};
use crate::log;
use crate::sandbox::hooks;
use crate::sandbox::launch::connect;
use ::sentry::control::message::{Ask, SignalTarget};

/// `start`.
pub(super) fn start(global: &Global, id: &str) -> Outcome<u8> {
    let (held, mut record) = Store::open(global)?.load(id)?;
    match record.status() {
        Status::Created => {}
        Status::Stopped => return Err(Failure::new("cannot start a container that has stopped")),
        Status::Running => return Err(Failure::new("cannot start an already running container")),
        other => return Err(Failure::new(format!("cannot start a container in the {} state", other.name()))),
    }
    start_held(global, &held, &mut record).map_err(plainly)?;
    Ok(0)
}

/// Starts a container whose lock is held.
pub(super) fn start_held(global: &Global, held: &Held, record: &mut Record) -> Outcome<()> {
    let store = Store::open(global)?;
    let mut client = connect(&store.socket(&record.sandbox))?;
    if let Err(failure) = start_hooks(record, &store) {
        // The specification: it is stopped, and goes the way of delete.
        let target = SignalTarget::Init;
        let _ = client.order(Ask::Signal { container: record.id.clone(), target, signal: 9 });
        return Err(failure);
    }
    client.last_order(Ask::Start { container: record.id.clone() })?;
    held.mark(record, Status::Running)?;
    started_hooks(global, record);
    Ok(())
}

/// Hooks between creation and the container's own program.
pub(super) fn start_hooks(record: &Record, store: &Store) -> Outcome<()> {
    let list = record.hooks.as_ref().and_then(|hooks| hooks.start_container().as_ref());
    hooks::run_inside(list, record, &store.socket(&record.sandbox))
}

/// Hooks of a container that runs: their failures change nothing.
pub(super) fn started_hooks(global: &Global, record: &Record) {
    let list = record.hooks.as_ref().and_then(|hooks| hooks.poststart().as_ref());
    for words in hooks::run_all("poststart", list, record, Status::Running) {
        log::warn(global, &words);
    }
}
