//! `process` of the bundle, or of `exec --process`.

use super::names::{capability_bits, rlimit_number};
use crate::error::{Failure, Outcome};
use oci_spec::runtime::{PosixRlimitType, Process};
use rustix::process::{Resource, Rlimit, getrlimit};
use sentry::control::spec::{Capabilities, ProcessSpec, RlimitSpec, Stdio, UserSpec};

/// Checks a process and turns it into the kernel's form. `preserved` descriptors follow standard error.
pub(crate) fn convert(process: &Process, preserved: u32) -> Outcome<ProcessSpec> {
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(Failure::new("process.args: must name a program"));
    }
    let cwd = process.cwd().to_string_lossy().into_owned();
    if !cwd.starts_with('/') {
        return Err(Failure::new(format!("process.cwd: {cwd:?} is not an absolute path")));
    }
    let env = environment(process.env().as_deref().unwrap_or_default())?;
    for text in args.iter().chain(&env) {
        if text.contains('\0') {
            return Err(Failure::new(format!("process: {text:?} holds a NUL byte")));
        }
    }
    let user = process.user();
    Ok(ProcessSpec {
        cgroup: None,
        args,
        program: None,
        env,
        cwd,
        user: UserSpec {
            uid: user.uid(),
            gid: user.gid(),
            groups: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
        },
        rlimits: rlimits(process)?,
        capabilities: capabilities(process)?,
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        personality: 0,
        oom_score_adj: process.oom_score_adj(),
        stdio: if process.terminal().unwrap_or(false) { Stdio::Terminal } else { Stdio::Files },
        preserved,
    })
}

fn rlimits(process: &Process) -> Outcome<Vec<RlimitSpec>> {
    let mut limits: Vec<RlimitSpec> = Vec::new();
    for (at, limit) in process.rlimits().iter().flatten().enumerate() {
        let resource = rlimit_number(limit.typ());
        if limits.iter().any(|known| known.resource == resource) {
            return Err(Failure::new(format!("process.rlimits[{at}].type: {} is there twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            let message =
                format!("process.rlimits[{at}].soft: {} is above hard {}", limit.soft(), limit.hard());
            return Err(Failure::new(message));
        }
        limits.push(RlimitSpec { resource, soft: limit.soft(), hard: limit.hard() });
    }
    inherit(&mut limits);
    Ok(limits)
}

/// Limits that are not listed are the caller's, as they are under a runtime whose containers are its children.
fn inherit(limits: &mut Vec<RlimitSpec>) {
    use PosixRlimitType as Type;
    for (typ, resource) in [
        (Type::RlimitCpu, Resource::Cpu),
        (Type::RlimitFsize, Resource::Fsize),
        (Type::RlimitData, Resource::Data),
        (Type::RlimitStack, Resource::Stack),
        (Type::RlimitCore, Resource::Core),
        (Type::RlimitRss, Resource::Rss),
        (Type::RlimitNproc, Resource::Nproc),
        (Type::RlimitNofile, Resource::Nofile),
        (Type::RlimitMemlock, Resource::Memlock),
        (Type::RlimitAs, Resource::As),
        (Type::RlimitLocks, Resource::Locks),
        (Type::RlimitSigpending, Resource::Sigpending),
        (Type::RlimitMsgqueue, Resource::Msgqueue),
        (Type::RlimitNice, Resource::Nice),
        (Type::RlimitRtprio, Resource::Rtprio),
        (Type::RlimitRttime, Resource::Rttime),
    ] {
        let number = rlimit_number(typ);
        if !limits.iter().any(|known| known.resource == number) {
            let Rlimit { current, maximum } = getrlimit(resource);
            let [soft, hard] = [current, maximum].map(|value| value.unwrap_or(u64::MAX));
            limits.push(RlimitSpec { resource: number, soft, hard });
        }
    }
}

/// Of two entries of one name the last counts.
fn environment(list: &[String]) -> Outcome<Vec<String>> {
    let mut env: Vec<String> = Vec::new();
    for entry in list {
        let name = match entry.split_once('=') {
            Some((name, _)) if !name.is_empty() => name,
            _ => return Err(Failure::new(format!("process.env: invalid environment variable: {entry:?}"))),
        };
        let same = |known: &String| known.split_once('=').is_some_and(|(known, _)| known == name);
        env.retain(|known| !same(known));
        env.push(entry.clone());
    }
    Ok(env)
}

/// What capset(2) refuses is refused: runc makes that call with the bounding set dropped before.
fn capabilities(process: &Process) -> Outcome<Capabilities> {
    let Some(sets) = process.capabilities() else { return Ok(Capabilities::default()) };
    let permitted = capability_bits(sets.permitted().as_ref());
    let inheritable = capability_bits(sets.inheritable().as_ref());
    let effective = capability_bits(sets.effective().as_ref());
    let bounding = capability_bits(sets.bounding().as_ref());
    let refused = |set: &str, other: &str| {
        let text = "unable to apply caps: operation not permitted";
        Err(Failure::new(format!("process.capabilities.{set}: {text} (one is not {other})")))
    };
    if effective & !permitted != 0 {
        return refused("effective", "permitted");
    }
    if inheritable & !bounding != 0 {
        return refused("inheritable", "in the bounding set");
    }
    // A capability is ambient only while it is permitted and inheritable (capabilities(7)).
    let ambient = capability_bits(sets.ambient().as_ref()) & permitted & inheritable;
    Ok(Capabilities { effective, permitted, inheritable, bounding, ambient })
}
