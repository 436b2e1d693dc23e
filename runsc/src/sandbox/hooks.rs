//! Hooks of the bundle: programs of the host that read the container's state on standard input.

use crate::container::{Record, Status};
use crate::error::{Doing, Failure, Outcome};
use oci_spec::runtime::Hook;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs hooks in order; the first that fails ends it.
pub(crate) fn run(name: &str, hooks: Option<&Vec<Hook>>, record: &Record, status: Status) -> Outcome<()> {
    for (at, hook) in hooks.into_iter().flatten().enumerate() {
        let what = || format!("hooks.{name}[{at}]: {}", hook.path().display());
        one(hook, record, status).map_err(|failure| failure.within(what()))?;
    }
    Ok(())
}

fn one(hook: &Hook, record: &Record, status: Status) -> Outcome<()> {
    let mut command = Command::new(hook.path());
    let args = hook.args().clone().unwrap_or_default();
    if let Some(name) = args.first() {
        command.arg0(name).args(args.iter().skip(1));
    }
    command.env_clear();
    for pair in hook.env().iter().flatten() {
        if let Some((name, value)) = pair.split_once('=') {
            command.env(name, value);
        }
    }
    command.current_dir(&record.bundle).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().doing(|| "starting it")?;
    if let Some(mut input) = child.stdin.take() {
        // A hook need not read it.
        let _ = input.write_all(record.hook_state(status).to_string().as_bytes());
    }
    let limit = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let started = Instant::now();
    let status = loop {
        match limit {
            None => break child.wait().doing(|| "waiting for it")?,
            Some(limit) => {
                if let Some(status) = child.try_wait().doing(|| "waiting for it")? {
                    break status;
                }
                if started.elapsed() > limit {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(Failure::new(format!("timed out after {} s", limit.as_secs())));
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    };
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{status}"))) }
}
