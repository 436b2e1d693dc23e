//! `update`.

use crate::cli::{Global, Update};
use crate::container::{Status, Store};
use crate::error::{Doing, Failure, Outcome};
use crate::sandbox::launch::connect;
use crate::spec::convert::{limits, weight};
use crate::spec::load::parse;
use ::sentry::control::message::{Ask, ErrorKind};
use oci_spec::runtime::LinuxResources;
use std::io::Read;
use std::path::Path;

/// `update`: the guest's own cgroup and the host's.
pub(super) fn update(global: &Global, args: &Update) -> Outcome<u8> {
    let store = Store::open(global)?;
    let (_held, record) = store.load(&args.id)?;
    if record.status() == Status::Stopped {
        return Err(Failure::new(format!("container not running: {:?} has stopped", args.id)));
    }
    let resources = resources(args)?;
    let mut limits = limits(&resources);
    let positive =
        |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
    limits.memory_max = positive(args.memory).or(limits.memory_max);
    limits.pids_max = positive(args.pids_limit).or(limits.pids_max);
    limits.cpu_quota_us = positive(args.cpu_quota).or(limits.cpu_quota_us);
    limits.cpu_period_us = args.cpu_period.or(limits.cpu_period_us);
    limits.cpu_weight = args.cpu_share.map(weight).or(limits.cpu_weight);
    if let Some(cgroup) = &record.cgroup {
        cgroup.apply(&limits)?;
    }
    let order = Ask::Update { container: args.id.clone(), limits };
    match connect(&store.socket(&record.sandbox))?.order(order) {
        // The host's cgroup enforces them.
        Err(error) if error.kind == ErrorKind::Unsupported && record.cgroup.is_some() => {
            crate::log::warn(global, "update: limits were set on the host's cgroup only");
        }
        other => other?,
    }
    Ok(0)
}

fn resources(args: &Update) -> Outcome<LinuxResources> {
    let Some(path) = &args.resources else { return Ok(LinuxResources::default()) };
    let mut text = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut text).doing(|| "--resources -")?;
        return parse(&text, Path::new("--resources"));
    }
    text = std::fs::read(path).doing(|| format!("--resources {}", path.display()))?;
    parse(&text, path)
}
