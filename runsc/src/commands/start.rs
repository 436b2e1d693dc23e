//! `start`.

use crate::cli::Global;
use crate::container::{Held, Record, Status, Store};
use crate::error::{Failure, Outcome};
use crate::log;
use crate::sandbox::hooks;
use crate::sandbox::launch::connect;
use ::sentry::control::message::Ask;

/// `start`.
pub(super) fn start(global: &Global, id: &str) -> Outcome<u8> {
    let (held, mut record) = Store::open(global)?.load(id)?;
    match record.status() {
        Status::Created => {}
        Status::Stopped => {
            return Err(Failure::new(format!("cannot start container {id:?}: it has stopped")));
        }
        other => return Err(Failure::new(format!("cannot start container {id:?}: it is {}", other.name()))),
    }
    start_held(global, &held, &mut record)?;
    Ok(0)
}

/// Starts a container whose lock is held.
pub(super) fn start_held(global: &Global, held: &Held, record: &mut Record) -> Outcome<()> {
    let mut client = connect(&Store::open(global)?.socket(&record.sandbox))?;
    client.last_order(Ask::Start { container: record.id.clone() })?;
    held.mark(record, Status::Running)?;
    if let Some(list) = &record.hooks
        && let Err(failure) = hooks::run("poststart", list.poststart().as_ref(), record, Status::Running)
    {
        log::warn(global, &failure.message);
    }
    Ok(())
}
