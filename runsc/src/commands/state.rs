//! `state`, `pause`, `resume`.

use super::print_json;
use crate::cli::Global;
use crate::container::{Status, Store};
use crate::error::{Failure, Outcome};
use crate::sandbox::launch::connect;
use ::sentry::control::message::Ask;

/// `state`.
pub(super) fn state(global: &Global, id: &str) -> Outcome<u8> {
    print_json(&Store::open(global)?.peek(id)?.state_json())?;
    Ok(0)
}

/// `pause`.
pub(super) fn pause(global: &Global, id: &str) -> Outcome<u8> {
    change(global, id, Status::Running, Status::Paused, Ask::Pause { container: id.to_owned() })
}

/// `resume`.
pub(super) fn resume(global: &Global, id: &str) -> Outcome<u8> {
    change(global, id, Status::Paused, Status::Running, Ask::Resume { container: id.to_owned() })
}

fn change(global: &Global, id: &str, from: Status, to: Status, ask: Ask) -> Outcome<u8> {
    let store = Store::open(global)?;
    let (held, mut record) = store.load(id)?;
    let status = record.status();
    if status != from {
        return Err(Failure::new(format!("container {id:?} is {}, not {}", status.name(), from.name())));
    }
    connect(&store.socket(&record.sandbox))?.order(ask)?;
    held.mark(&mut record, to)?;
    Ok(0)
}
