//! What this host allows, found by trying, in words a person can act on (`runsc check`).

use crate::host;
use crate::memory::{HUGE_PAGE, HugePages, MemoryFile};
use crate::ptrace::Ptrace;
use crate::seam::{Exit, Platform};
use crate::spawn::{Unshare, fork};
use abi::Errno;
use std::fmt;
use std::sync::Arc;

/// How good a finding is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As wanted.
    Good,
    /// Works, at a price that the detail names.
    Limited,
    /// Something does not work without it.
    Missing,
}

/// One thing that was tried.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What that means, and what can be done about it.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "ok     ",
            Verdict::Limited => "limited",
            Verdict::Missing => "MISSING",
        };
        write!(f, "{mark}  {}: {}", self.name, self.detail)
    }
}

/// What seccomp can do here (seccomp_unotify(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seccomp {
    /// SECCOMP_RET_TRAP: enough for systrap.
    pub trap: bool,
    /// SECCOMP_RET_USER_NOTIF: a call is answered without a signal (Linux 5.0).
    pub notify: bool,
    /// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: signals do not abort a received notification (Linux 5.19).
    pub wait_killable: bool,
    /// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: handoff on one CPU without a trip through the scheduler (6.6).
    pub sync_wake_up: bool,
}

/// Which cgroup hierarchy is mounted (cgroups(7)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cgroups {
    /// Version 2 alone, with these controllers at its root.
    Unified(String),
    /// Version 2 beside version 1 controllers.
    Hybrid,
    /// Version 1 alone.
    Legacy,
    /// Nothing at /sys/fs/cgroup.
    Absent,
}

/// Tries what seccomp can do. Leaves no filter behind: a thread that ends holds the only one.
#[must_use]
pub fn seccomp() -> Seccomp {
    let notify = host::seccomp::action_available(libc::SECCOMP_RET_USER_NOTIF);
    Seccomp {
        trap: host::seccomp::action_available(libc::SECCOMP_RET_TRAP),
        notify,
        wait_killable: notify
            && host::seccomp::flags_known(
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            ),
        sync_wake_up: notify && std::thread::spawn(host::seccomp::sync_wake_up_works).join().unwrap_or(false),
    }
}

/// Runs one guest instruction under ptrace.
pub fn ptrace() -> Result<(), Errno> {
    let platform = Ptrace::new(Arc::new(MemoryFile::create(HUGE_PAGE)?))?;
    let mut context = platform.new_address_space()?.new_context(&crate::ThreadState::default())?;
    match context.run() {
        Exit::Fault { .. } => Ok(()),
        _ => Err(Errno::EPERM),
    }
}

/// Makes a user namespace with everything else that a sentry unshares. The caller has one thread.
pub fn user_namespace() -> Result<(), Errno> {
    let all = Unshare::USER | Unshare::MOUNT | Unshare::PID | Unshare::IPC | Unshare::UTS | Unshare::CGROUP;
    let child = fork(all, || 0)?;
    let pid = rustix::process::Pid::from_raw(child.pid);
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).map_err(host::errno)?;
    Ok(())
}

/// Whether a fresh memory file gets huge pages where it asks for them.
pub fn huge_pages() -> Result<bool, Errno> {
    let memory = MemoryFile::create(2 * HUGE_PAGE)?;
    memory.advise_huge(0, HUGE_PAGE, HugePages::Wanted);
    memory.write(0, &[1])?;
    Ok(memory.resident(0, HUGE_PAGE) == HUGE_PAGE)
}

/// The hierarchy at /sys/fs/cgroup.
#[must_use]
pub fn cgroups() -> Cgroups {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mountinfo") else { return Cgroups::Absent };
    let (mut v1, mut v2) = (false, false);
    for line in mounts.lines() {
        let kind = line.split_once(" - ").and_then(|(_, rest)| rest.split_ascii_whitespace().next());
        v1 |= kind == Some("cgroup");
        v2 |= kind == Some("cgroup2");
    }
    match (v1, v2) {
        (false, true) => {
            let found = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
            Cgroups::Unified(found.trim().to_owned())
        }
        (true, true) => Cgroups::Hybrid,
        (true, false) => Cgroups::Legacy,
        (false, false) => Cgroups::Absent,
    }
}

/// Major and minor version of the host's kernel.
#[must_use]
pub fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Everything, in the order in which a sandbox needs it. The caller has one thread.
#[must_use]
pub fn report() -> Vec<Finding> {
    vec![
        kernel(),
        namespaces(),
        seccomp_finding(&seccomp()),
        ptrace_finding(),
        memory_finding(),
        cgroup_finding(&cgroups()),
    ]
}

fn finding(name: &'static str, verdict: Verdict, detail: impl Into<String>) -> Finding {
    Finding { name, verdict, detail: detail.into() }
}

fn kernel() -> Finding {
    let (major, minor) = kernel_version();
    let text = format!("Linux {major}.{minor}");
    match (major, minor) {
        version if version >= (6, 6) => finding("kernel", Verdict::Good, text),
        version if version >= (5, 14) => {
            let detail = format!("{text}; from 6.6 on system calls of guests are answered faster");
            finding("kernel", Verdict::Limited, detail)
        }
        _ => finding("kernel", Verdict::Missing, format!("{text}; 5.14 is the oldest that is supported")),
    }
}

fn sysctl(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some(text.trim().to_owned())
}

fn namespaces() -> Finding {
    let name = "user namespaces";
    let Err(error) = user_namespace() else {
        return finding(name, Verdict::Good, "a process can be given namespaces of its own");
    };
    let apparmor = sysctl("kernel/apparmor_restrict_unprivileged_userns").is_some_and(|v| v == "1");
    let cause = if sysctl("user/max_user_namespaces").is_some_and(|v| v == "0") {
        "sysctl user.max_user_namespaces is 0: raise it"
    } else if sysctl("kernel/unprivileged_userns_clone").is_some_and(|v| v == "0") {
        "sysctl kernel.unprivileged_userns_clone is 0: set it to 1, or run as root"
    } else if apparmor {
        "AppArmor restricts them: set kernel.apparmor_restrict_unprivileged_userns to 0, or run as root"
    } else {
        "the container or security module around this process forbids clone3(2) with namespaces"
    };
    finding(name, Verdict::Missing, format!("{error}; {cause}"))
}

fn seccomp_finding(found: &Seccomp) -> Finding {
    let name = "seccomp (platform systrap)";
    match found {
        Seccomp { trap: false, .. } => finding(
            name,
            Verdict::Missing,
            "no filters: the kernel lacks CONFIG_SECCOMP_FILTER; only --platform=ptrace can work",
        ),
        Seccomp { notify: false, .. } => {
            finding(name, Verdict::Limited, "no notifications (Linux 5.0): every system call costs a signal")
        }
        Seccomp { sync_wake_up: false, .. } => {
            finding(name, Verdict::Limited, "notifications without SYNC_WAKE_UP (Linux 6.6): slower handoffs")
        }
        Seccomp { wait_killable: false, .. } => {
            finding(name, Verdict::Limited, "notifications without WAIT_KILLABLE_RECV (Linux 5.19)")
        }
        _ => finding(name, Verdict::Good, "filters, notifications, synchronous wake-ups"),
    }
}

fn ptrace_finding() -> Finding {
    let name = "ptrace (platform ptrace)";
    match ptrace() {
        Ok(()) => finding(name, Verdict::Good, "system calls can be emulated"),
        Err(error) => {
            let cause = match sysctl("kernel/yama/ptrace_scope").as_deref() {
                Some("3") => "sysctl kernel.yama.ptrace_scope is 3: ptrace is off until the next boot",
                _ => "the container or security module around this process forbids ptrace(2)",
            };
            let detail = format!("{error}; {cause}; systrap does not need it");
            finding(name, Verdict::Limited, detail)
        }
    }
}

fn memory_finding() -> Finding {
    let name = "guest memory";
    match huge_pages() {
        Ok(true) => finding(name, Verdict::Good, "private tmpfs with huge pages on request"),
        Ok(false) => finding(
            name,
            Verdict::Limited,
            "no huge pages: a private tmpfs cannot be mounted, or the kernel has no transparent huge pages",
        ),
        Err(error) => finding(name, Verdict::Missing, format!("neither tmpfs nor memfd: {error}")),
    }
}

fn cgroup_finding(found: &Cgroups) -> Finding {
    let name = "cgroups";
    match found {
        Cgroups::Unified(controllers) => {
            let missing: Vec<&str> = ["cpu", "memory", "pids"]
                .into_iter()
                .filter(|wanted| !controllers.split_ascii_whitespace().any(|have| have == *wanted))
                .collect();
            if missing.is_empty() {
                finding(name, Verdict::Good, format!("version 2: {controllers}"))
            } else {
                let detail = format!("version 2 without the controllers {}", missing.join(", "));
                finding(name, Verdict::Limited, detail)
            }
        }
        Cgroups::Hybrid => finding(name, Verdict::Limited, "version 1 controllers beside version 2"),
        Cgroups::Legacy => finding(name, Verdict::Limited, "version 1"),
        Cgroups::Absent => {
            finding(name, Verdict::Limited, "none mounted at /sys/fs/cgroup: limits cannot be set")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, kernel_version, report, seccomp};

    #[test]
    fn every_question_has_an_answer() {
        assert!(kernel_version() >= (5, 14));
        let found = seccomp();
        assert!(found.trap);
        for finding in report() {
            eprintln!("{finding}");
            assert!(!finding.detail.is_empty(), "{finding}");
            let known = matches!(finding.verdict, Verdict::Good | Verdict::Limited | Verdict::Missing);
            assert!(known);
        }
    }
}
