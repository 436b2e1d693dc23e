//! What a bundle may ask for and this runtime does not do: one line that names the field. What runc ignores
//! is ignored as well.

use crate::error::{Failure, Outcome};
use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxPersonalityDomain, Process, Spec};
use std::path::Path;

/// `PER_LINUX32` of personality(2).
const PER_LINUX32: u32 = 8;

/// Longest name that sethostname(2) takes, in bytes.
const HOST_NAME_MAX: usize = 64;

/// `kernel.*` that belongs to the IPC namespace.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

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
    isolation(spec, linux)?;
    hook_timeouts(spec)?;
    spec.process().as_ref().map_or(Ok(()), labels)
}

/// Names that would be the host's, were there no namespace for them: runc's rules.
fn isolation(spec: &Spec, linux: &Linux) -> Outcome<()> {
    let has = |typ| linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == typ);
    let named = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    if named(spec.hostname()) && !has(LinuxNamespaceType::Uts) {
        return Err(Failure::new("hostname: unable to set hostname without a private UTS namespace"));
    }
    if named(spec.domainname()) && !has(LinuxNamespaceType::Uts) {
        return Err(Failure::new("domainname: unable to set domainname without a private UTS namespace"));
    }
    for (field, name) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
        if name.as_ref().is_some_and(|name| name.len() > HOST_NAME_MAX) {
            return Err(Failure::new(format!(
                "{field}: invalid argument: longer than {HOST_NAME_MAX} bytes"
            )));
        }
    }
    let is_set = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if !has(LinuxNamespaceType::Mount) && (is_set(linux.masked_paths()) || is_set(linux.readonly_paths())) {
        let why = "unable to restrict sys entries without a private MNT namespace";
        return Err(Failure::new(format!("linux.maskedPaths, linux.readonlyPaths: {why}")));
    }
    for name in linux.sysctl().iter().flatten().map(|(name, _)| name.as_str()) {
        let refused = |why: &str| Err(Failure::new(format!("linux.sysctl: {name:?} {why}")));
        let dotted =
            if name.contains('/') && !name.contains('.') { name.replace('/', ".") } else { name.to_owned() };
        if dotted.starts_with("net.") || dotted.starts_with("net/") {
            continue;
        }
        if IPC_SYSCTLS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
            if !has(LinuxNamespaceType::Ipc) {
                return refused("is not allowed in the hosts ipc namespace");
            }
        } else if dotted == "kernel.domainname" {
            if !has(LinuxNamespaceType::Uts) {
                return refused("is not allowed in the hosts uts namespace");
            }
        } else if dotted == "kernel.hostname" {
            return refused("is not allowed as it conflicts with the OCI \"hostname\" field");
        } else {
            return refused("is not in a separate kernel namespace");
        }
    }
    Ok(())
}

/// A hook without any time can only fail.
fn hook_timeouts(spec: &Spec) -> Outcome<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    let lists = [
        ("prestart", hooks.prestart()),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (kind, list) in lists {
        for (at, hook) in list.iter().flatten().enumerate() {
            if let Some(timeout) = hook.timeout().filter(|timeout| *timeout <= 0) {
                return Err(Failure::new(format!("hooks.{kind}[{at}].timeout: {timeout} is not above zero")));
            }
        }
    }
    Ok(())
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
