//! What a bundle may ask for and this runtime does not do: one line that names the field. What runc ignores
//! is ignored as well.

use crate::error::{Failure, Outcome};
use oci_spec::runtime::{LinuxPersonalityDomain, Process, Spec};
use std::path::Path;

/// `PER_LINUX32` of personality(2).
const PER_LINUX32: u32 = 8;

/// Refuses what cannot be kept.
pub(crate) fn check(spec: &Spec) -> Outcome<()> {
    let refuse = |field: &str, why: &str| Err(Failure::new(format!("{field}: {why}")));
    if spec.windows().is_some() {
        return refuse("windows", "this runtime makes Linux containers only");
    }
    if spec.vm().is_some() {
        return refuse("vm", "this runtime makes Linux containers only");
    }
    let Some(linux) = spec.linux() else { return Ok(()) };
    if linux.intel_rdt().is_some() {
        return refuse("linux.intelRdt", "not supported");
    }
    if linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()) {
        return refuse("linux.timeOffsets", "time namespaces are not supported");
    }
    spec.process().as_ref().map_or(Ok(()), labels)
}

/// Labels of security modules mean nothing to a guest. Where the host has none they are refused, in runc's
/// words.
pub(crate) fn labels(process: &Process) -> Outcome<()> {
    let set = |label: &Option<String>| label.as_deref().is_some_and(|label| !label.is_empty());
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
    if set(process.apparmor_profile()) && !enabled.is_ok_and(|text| text.starts_with(b"Y")) {
        let why = "process.apparmorProfile: apparmor: config provided but apparmor not supported";
        return Err(Failure::new(why));
    }
    if set(process.selinux_label()) && !Path::new("/sys/fs/selinux/enforce").exists() {
        let why = "process.selinuxLabel: selinux label is specified in config, but selinux is disabled or not supported";
        return Err(Failure::new(why));
    }
    Ok(())
}

/// `linux.personality` as personality(2) takes it.
pub(crate) fn personality(spec: &Spec) -> Outcome<u32> {
    let Some(personality) = spec.linux().as_ref().and_then(|linux| linux.personality().as_ref()) else {
        return Ok(0);
    };
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Failure::new("linux.personality.flags: not supported"));
    }
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => PER_LINUX32,
    })
}
