//! `state`, `pause`, `resume`.

use super::print_json;
use crate::cli::Global;
use crate::container::{Status, Store};
use crate::error::{Failure, Outcome};
use crate::sandbox::launch::connect;
use ::sentry::control::message::{Answer, Ask, ContainerStatus};

/// `state`.
pub(super) fn state(global: &Global, id: &str) -> Outcome<u8> {
    print_json(&Store::open(global)?.peek(id)?.state_json())?;
    Ok(0)
}

/// `pause`.
pub(super) fn pause(global: &Global, id: &str) -> Outcome<u8> {
    let store = Store::open(global)?;
    let (held, mut record) = store.load(id)?;
    match record.status() {
        Status::Running | Status::Created => {}
        _ => return Err(Failure::new(format!("container not running: {id:?}"))),
    }
    connect(&store.socket(&record.sandbox))?.order(Ask::Pause { container: id.to_owned() })?;
    held.mark(&mut record, Status::Paused)?;
    Ok(0)
}

/// `resume`.
pub(super) fn resume(global: &Global, id: &str) -> Outcome<u8> {
    let store = Store::open(global)?;
    let (held, mut record) = store.load(id)?;
    if record.status() != Status::Paused {
        return Err(Failure::new(format!("container not paused: {id:?}")));
    }
    let mut client = connect(&store.socket(&record.sandbox))?;
    client.order(Ask::Resume { container: id.to_owned() })?;
    let now = match client.ask(Ask::Status { container: id.to_owned() }, &[])? {
        Answer::Status { status: ContainerStatus::Created } => Status::Created,
        _ => Status::Running,
    };
    held.mark(&mut record, now)?;
    Ok(0)
}
