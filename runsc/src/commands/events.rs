//! `events`: what a container uses, in runc's shape.

use super::print;
use crate::cli::{Events, Global};
use crate::container::{ProcessRef, Record, Status, Store};
use crate::error::{Failure, Outcome};
use crate::sandbox::launch::connect;
use ::sentry::control::client::unexpected;
use ::sentry::control::message::{Answer, Ask, Stats};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

/// `events`: one line every interval until the container ends, and one when its memory ran out.
pub(super) fn events(global: &Global, args: &Events) -> Outcome<u8> {
    let pause = interval(&args.interval)?;
    let store = Store::open(global)?;
    let mut known_kills = None;
    loop {
        let record = store.peek(&args.id)?;
        if record.status() == Status::Stopped {
            return if args.stats {
                Err(Failure::new(format!(
                    "container with id {} is not running: container not running",
                    args.id
                )))
            } else {
                Ok(0)
            };
        }
        let stats = match stats(&store, &record) {
            Ok(stats) => stats,
            // It ended meanwhile.
            Err(_) if !args.stats && store.peek(&args.id).map_or(true, |r| r.status() == Status::Stopped) => {
                return Ok(0);
            }
            Err(failure) => return Err(failure),
        };
        let say = |kind: &str, data: Option<Value>| {
            let mut line = json!({ "type": kind, "id": args.id });
            if let (Some(object), Some(data)) = (line.as_object_mut(), data) {
                object.insert("data".into(), data);
            }
            print(&format!("{line}\n"))
        };
        if known_kills.replace(stats.oom_kills).is_some_and(|known| stats.oom_kills > known) {
            say("oom", None)?;
        }
        say("stats", Some(data(&record, &stats)))?;
        if args.stats {
            return Ok(0);
        }
        wait(record.monitor, pause);
    }
}

fn stats(store: &Store, record: &Record) -> Outcome<Stats> {
    let mut client = connect(&store.socket(&record.sandbox))?;
    match client.ask(Ask::Stats { container: record.id.clone() }, &[])? {
        Answer::Stats { stats } => Ok(stats),
        other => Err(unexpected(&other).into()),
    }
}

/// The host's figures; tasks, and limits that the guest's kernel enforces, are the guest's.
fn data(record: &Record, stats: &Stats) -> Value {
    let mut data = match &record.cgroup {
        Some(cgroup) => cgroup.stats(),
        None => json!({
            "cpu": { "usage": { "total": stats.cpu_ns, "kernel": 0, "user": stats.cpu_ns }, "throttling": {} },
            "cpuset": {},
            "memory": {
                "usage": { "limit": u64::MAX, "usage": stats.memory, "failcnt": 0 },
                "swap": { "limit": 0, "failcnt": 0 },
                "kernel": { "limit": 0, "failcnt": 0 },
                "kernelTCP": { "limit": 0, "failcnt": 0 },
                "raw": {},
            },
            "pids": {},
            "blkio": {},
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": null,
        }),
    };
    let mut pids = json!({ "current": stats.pids });
    if let (Some(limit), Some(pids)) = (stats.pids_max, pids.as_object_mut()) {
        pids.insert("limit".into(), json!(limit));
    }
    if let Some(place) = data.pointer_mut("/pids") {
        *place = pids;
    }
    if let (Some(limit), Some(place)) = (stats.memory_max, data.pointer_mut("/memory/usage/limit")) {
        *place = json!(limit);
    }
    data
}

/// Sleeps, but no longer than the container lives.
fn wait(monitor: Option<ProcessRef>, pause: Timespec) {
    match monitor.and_then(ProcessRef::open) {
        Some(fd) => drop(poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&pause))),
        None => drop(poll(&mut [], Some(&pause))),
    }
}

/// A duration as Go writes it: `500ms`, `5s`, `1m30s`.
fn interval(text: &str) -> Outcome<Timespec> {
    let bad = || Failure::new(format!("--interval: {text:?} is not a duration like 5s"));
    let mut total_ms = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, behind) = rest.split_at(digits);
        let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
        let (unit, scale) = units.iter().find(|(unit, _)| behind.starts_with(unit)).ok_or_else(bad)?;
        let number: u64 = number.parse().map_err(|_| bad())?;
        total_ms = total_ms.saturating_add(number.saturating_mul(*scale));
        rest = behind.strip_prefix(unit).unwrap_or_default();
    }
    if total_ms == 0 {
        return Err(Failure::new("--interval: duration interval must be greater than 0"));
    }
    let seconds = i64::try_from(total_ms / 1000).map_err(|_| bad())?;
    let rest = i64::try_from(total_ms % 1000).map_err(|_| bad())?;
    Ok(Timespec { tv_sec: seconds, tv_nsec: rest * 1_000_000 })
}

#[cfg(test)]
mod tests {
    use super::interval;

    #[test]
    fn intervals() {
        let ms = |text: &str| interval(text).map(|t| t.tv_sec * 1000 + t.tv_nsec / 1_000_000).ok();
        assert_eq!(ms("5s"), Some(5000));
        assert_eq!(ms("1m30s"), Some(90_000));
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("5"), None);
        assert_eq!(ms("0s"), None);
    }
}
