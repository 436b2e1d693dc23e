//! `ps`.

use super::list::table;
use super::print;
use crate::cli::{Format, Global, Ps};
use crate::container::{Status, Store};
use crate::error::Outcome;
use crate::log::rfc3339;
use crate::sandbox::launch::connect;
use ::sentry::control::client::unexpected;
use ::sentry::control::message::{Answer, Ask, ProcessInfo};
use std::time::{Duration, UNIX_EPOCH};

const HEAD: [&str; 8] = ["UID", "PID", "PPID", "THREADS", "STIME", "TTY", "TIME", "CMD"];

/// `ps`: as JSON the host pids that callers may wait for or signal, as a table the guest's processes.
pub(super) fn ps(global: &Global, args: &Ps) -> Outcome<u8> {
    let store = Store::open(global)?;
    let record = store.peek(&args.id)?;
    let stopped = record.status() == Status::Stopped;
    if args.format == Format::Json {
        print(&if stopped { "null\n".to_owned() } else { format!("[{}]\n", record.pid()) })?;
        return Ok(0);
    }
    if stopped {
        print(&table([HEAD.map(str::to_owned)].into_iter()))?;
        return Ok(0);
    }
    let mut client = connect(&store.socket(&record.sandbox))?;
    let list = match client.ask(Ask::Processes { container: args.id.clone() }, &[])? {
        Answer::Processes { list } => list,
        other => return Err(unexpected(&other).into()),
    };
    print(&table(std::iter::once(HEAD.map(str::to_owned)).chain(list.into_iter().map(row))))?;
    Ok(0)
}

fn row(process: ProcessInfo) -> [String; 8] {
    let started = UNIX_EPOCH.checked_add(Duration::from_secs(process.start_time)).unwrap_or(UNIX_EPOCH);
    let time = rfc3339(started);
    let seconds = process.cpu_ms / 1000;
    [
        process.uid.to_string(),
        process.pid.to_string(),
        process.ppid.to_string(),
        process.threads.to_string(),
        time.get(11..16).unwrap_or("?").to_owned(),
        process.tty,
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        process.command,
    ]
}
