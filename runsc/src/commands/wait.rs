//! `wait`: until a container ends; prints its status as JSON, as gVisor's does.

use super::print;
use crate::cli::Global;
use crate::container::{Status, Store};
use crate::error::{Failure, Outcome};
use crate::sandbox::launch::connect;
use ::sentry::control::client::unexpected;
use ::sentry::control::message::{Answer, Ask};

/// `wait`.
pub(super) fn wait(global: &Global, id: &str) -> Outcome<u8> {
    let store = Store::open(global)?;
    let record = store.peek(id)?;
    if record.status() == Status::Stopped {
        return Err(Failure::new(format!("container not running: {id:?} has stopped")));
    }
    let mut client = connect(&store.socket(&record.sandbox))?;
    let status = match client.ask(Ask::Wait { container: id.to_owned(), pid: None }, &[])? {
        Answer::Ended { status } => status,
        other => return Err(unexpected(&other).into()),
    };
    let line = serde_json::json!({ "id": id, "exitStatus": status.code() });
    print(&format!("{line}\n"))?;
    Ok(0)
}
