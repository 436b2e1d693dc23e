//! Names and numbers: signals, capabilities, resource limits.

use oci_spec::runtime::{Capabilities as OciSet, Capability, PosixRlimitType};

/// Capabilities in the order of their numbers (linux/capability.h).
pub(crate) const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The bit of a capability by its name, with or without `CAP_`, in any case.
pub(crate) fn capability_bit(name: &str) -> Option<u64> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    let at = CAPABILITIES.iter().position(|known| known.strip_prefix("CAP_") == Some(name))?;
    Some(1 << at)
}

/// A set of the specification as bits.
pub(crate) fn capability_bits(set: Option<&OciSet>) -> u64 {
    let bit = |capability: &Capability| capability_bit(&capability.to_string()).unwrap_or(0);
    set.map_or(0, |set| set.iter().map(bit).fold(0, |bits, bit| bits | bit))
}

/// `RLIMIT_*` as a number (asm-generic/resource.h).
pub(crate) fn rlimit_number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// A signal by number or name, with or without `SIG`; `RTMIN+n` and `RTMAX-n` too.
pub(crate) fn signal(text: &str) -> Option<u8> {
    if let Ok(number) = text.parse::<u8>() {
        return (number <= 64).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |rest: &str| if rest.is_empty() { Some(0) } else { rest.get(1..)?.parse::<u8>().ok() };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return 34_u8.checked_add(offset(rest)?).filter(|n| *n <= 64);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return 64_u8.checked_sub(offset(rest)?).filter(|n| *n >= 34);
    }
    let name = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        name => name,
    };
    let at = SIGNALS.iter().position(|known| *known == name)?;
    u8::try_from(at + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::{capability_bit, capability_bits, signal};
    use oci_spec::runtime::Capability;

    #[test]
    fn signals() {
        assert_eq!(signal("9"), Some(9));
        assert_eq!(signal("SIGKILL"), Some(9));
        assert_eq!(signal("term"), Some(15));
        assert_eq!(signal("SIGSYS"), Some(31));
        assert_eq!(signal("SIGRTMIN+3"), Some(37));
        assert_eq!(signal("RTMAX-14"), Some(50));
        assert_eq!(signal("65"), None);
        assert_eq!(signal("NONSENSE"), None);
    }

    #[test]
    fn capabilities() {
        assert_eq!(capability_bit("cap_sys_admin"), Some(1 << 21));
        assert_eq!(capability_bit("BPF"), Some(1 << 39));
        let set = [Capability::Chown, Capability::CheckpointRestore].into_iter().collect();
        assert_eq!(capability_bits(Some(&set)), 1 | 1 << 40);
    }
}
