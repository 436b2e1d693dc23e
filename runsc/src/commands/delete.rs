//! `delete`.

use super::run::poststop;
use crate::cgroup::Membership;
use crate::cli::{Delete, Global};
use crate::container::{Held, Record, Status, Store};
use crate::error::{Failure, Outcome};
use crate::sandbox::launch::connect;
use crate::spec::pod::is_sandbox;
use ::sentry::control::message::Ask;

/// `delete`: every id is tried; the first failure is reported.
pub(super) fn delete(global: &Global, args: &Delete) -> Outcome<u8> {
    let store = Store::open(global)?;
    let mut first = None;
    for id in &args.ids {
        if let Err(failure) = one(global, &store, id, args.force) {
            first.get_or_insert(failure);
        }
    }
    store.sweep();
    first.map_or(Ok(0), Err)
}

fn one(global: &Global, store: &Store, id: &str, force: bool) -> Outcome<()> {
    let (held, record) = match store.load_any(id) {
        Ok(found) => found,
        Err(failure) if force && failure.message.ends_with("does not exist") => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let Some(record) = record else {
        // What a create that was killed left.
        held.clear_away()?;
        held.remove()?;
        return if force { Ok(()) } else { Err(crate::container::store::no_container(id)) };
    };
    match record.status() {
        Status::Stopped | Status::Created | Status::Creating => {}
        other if !force => {
            let message = format!("cannot delete container {id:?} that is not stopped: {}", other.name());
            return Err(Failure::new(message));
        }
        _ => {}
    }
    destroy(global, held, &record)
}

/// Ends what is left of a container and removes all traces.
pub(super) fn destroy(global: &Global, held: Held, record: &Record) -> Outcome<()> {
    if record.is_root() {
        for process in record.sentry.into_iter().chain(record.gofer) {
            process.kill();
        }
        for process in record.sentry.into_iter().chain(record.gofer).chain(record.monitor) {
            process.await_end();
        }
    } else {
        // The sandbox may be gone, and then so is the container.
        if let Ok(mut client) = connect(&Store::open(global)?.socket(&record.sandbox)) {
            let _ = client.order(Ask::Delete { container: record.id.clone() });
        }
        for process in record.gofer.into_iter().chain(record.monitor) {
            process.kill();
            process.await_end();
        }
    }
    // As runc has it: what stays of the cgroups is told, and is all that stays.
    let removed = record.cgroup.as_ref().map_or(Ok(()), Membership::remove);
    held.remove()?;
    poststop(global, record);
    if is_sandbox(&record.annotations) {
        unstarted(global, &record.id);
    }
    removed
}

/// Destroys containers of a pod that is gone which were never started. A create that was killed when all was done
/// has left them, and nobody knows of them; those that ran are their caller's to delete.
fn unstarted(global: &Global, sandbox: &str) {
    let Ok(store) = Store::open(global) else { return };
    let is_forgotten = |record: &Record| {
        record.sandbox == sandbox
            && record.id != sandbox
            && matches!(record.last, Status::Creating | Status::Created)
    };
    for record in store.list().unwrap_or_default().into_iter().filter(is_forgotten) {
        let Some(held) = store.try_hold(&record.id) else { continue };
        if let Some(record) = held.read().ok().flatten().filter(is_forgotten) {
            let _ = destroy(global, held, &record);
        }
    }
}
