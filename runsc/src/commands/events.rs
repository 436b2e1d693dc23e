//! `events`: what a container uses, in runc's shape.

use super::print;
use crate::cli::{Events, Global};
use crate::container::{Status, Store};
use crate::error::{Failure, Outcome};
use crate::sandbox::launch::connect;
use ::sentry::control::client::unexpected;
use ::sentry::control::message::{Answer, Ask};
use std::time::Duration;

/// `events`.
pub(super) fn events(global: &Global, args: &Events) -> Outcome<u8> {
    let pause = interval(&args.interval)?;
    let store = Store::open(global)?;
    loop {
        let record = store.peek(&args.id)?;
        if record.status() == Status::Stopped {
            return if args.stats {
                Err(Failure::new(format!("container not running: {:?}", args.id)))
            } else {
                Ok(0)
            };
        }
        let mut client = connect(&store.socket(&record.sandbox))?;
        let stats = match client.ask(Ask::Stats { container: args.id.clone() }, &[])? {
            Answer::Stats { stats } => stats,
            other => return Err(unexpected(&other).into()),
        };
        let line = serde_json::json!({
            "type": "stats",
            "id": args.id,
            "data": {
                "cpu": { "usage": { "total": stats.cpu_ns } },
                "memory": { "usage": { "usage": stats.memory } },
                "pids": { "current": stats.pids },
            },
        });
        print(&format!("{line}\n"))?;
        if args.stats {
            return Ok(0);
        }
        std::thread::sleep(pause);
    }
}

/// A duration as Go writes it: `500ms`, `5s`, `1m`.
fn interval(text: &str) -> Outcome<Duration> {
    let bad = || Failure::new(format!("--interval: {text:?} is not a duration like 5s"));
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let (number, unit) =
        units.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit))).ok_or_else(bad)?;
    let number: u64 = number.parse().map_err(|_| bad())?;
    Ok(Duration::from_millis(number.saturating_mul(unit).max(1)))
}
