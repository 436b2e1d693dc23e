//! `ps`: the processes of a container, in the columns of ps(1).

mod columns;

use super::print;
use crate::cli::{Format, Global, Ps};
use crate::container::{Status, Store};
use crate::error::Outcome;
use crate::sandbox::launch::connect;
use ::sentry::control::client::{Client, unexpected};
use ::sentry::control::message::{Answer, Ask, ProcessInfo};
use columns::{Column, Facts, chosen, sheet};

/// `ps`: as JSON the host pids that callers may wait for or signal, as a table the guest's processes.
pub(super) fn ps(global: &Global, args: &Ps) -> Outcome<u8> {
    let store = Store::open(global)?;
    let record = store.peek(&args.id)?;
    let stopped = record.status() == Status::Stopped;
    if args.format == Format::Json {
        print(&if stopped { "null\n".to_owned() } else { format!("[{}]\n", record.pid()) })?;
        return Ok(0);
    }
    let columns: Vec<Column> = chosen(&args.options)?;
    if stopped {
        print(&sheet(&columns, &[]))?;
        return Ok(0);
    }
    let mut client = connect(&store.socket(&record.sandbox))?;
    let list = match client.ask(Ask::Processes { container: args.id.clone() }, &[])? {
        Answer::Processes { list } => list,
        other => return Err(unexpected(&other).into()),
    };
    let facts: Vec<Facts> = list.into_iter().filter_map(|info| facts(&mut client, &args.id, info)).collect();
    print(&sheet(&columns, &facts))?;
    Ok(0)
}

/// What /proc says of a process; `None` when it has ended meanwhile.
fn facts(client: &mut Client, id: &str, info: ProcessInfo) -> Option<Facts> {
    let mut text = |name: &str| {
        let ask = Ask::Proc { container: id.to_owned(), path: format!("{}/{name}", info.pid) };
        match client.ask(ask, &[]) {
            Ok(Answer::Text { bytes }) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            _ => None,
        }
    };
    let (stat, status) = (text("stat")?, text("status")?);
    Facts::new(info, &stat, &status)
}
