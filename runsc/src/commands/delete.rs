//! `delete`.

use super::run::poststop;
use crate::cli::{Delete, Global};
use crate::container::{Held, ProcessRef, Record, Status, Store};
use crate::error::{Failure, Outcome};
use crate::sandbox::launch::connect;
use ::sentry::control::message::Ask;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long the end of a killed process is waited for.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// `delete`: every id is tried; the first failure is reported.
pub(super) fn delete(global: &Global, args: &Delete) -> Outcome<u8> {
    let store = Store::open(global)?;
    let mut first = None;
    for id in &args.ids {
        if let Err(failure) = one(global, &store, id, args.force) {
            first.get_or_insert(failure);
        }
    }
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
        if let Some(cgroup) = held.noted() {
            cgroup.remove();
        }
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
            await_end(process);
        }
    } else {
        // The sandbox may be gone, and then so is the container.
        if let Ok(mut client) = connect(&Store::open(global)?.socket(&record.sandbox)) {
            let _ = client.order(Ask::Delete { container: record.id.clone() });
        }
        for process in record.gofer.into_iter().chain(record.monitor) {
            process.kill();
            await_end(process);
        }
    }
    if let Some(cgroup) = &record.cgroup {
        cgroup.remove();
    }
    held.remove()?;
    poststop(global, record);
    Ok(())
}

fn await_end(process: ProcessRef) {
    if let Some(fd) = process.open() {
        let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&PATIENCE));
    }
}
