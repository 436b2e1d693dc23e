//! `check`: what this host allows, in words.

use super::print;
use crate::error::Outcome;
use std::path::Path;

/// `check`.
pub(super) fn check() -> Outcome<u8> {
    let uname = rustix::system::uname();
    let mut text = format!("host: {} {}\n", uname.sysname().to_string_lossy(), uname.release().to_string_lossy());
    let can = |path: &str| if Path::new(path).exists() { "yes" } else { "no" };
    text.push_str(&format!("user namespaces: {}\n", can("/proc/self/ns/user")));
    text.push_str(&format!("seccomp: {}\n", can("/proc/sys/kernel/seccomp/actions_avail")));
    print(&text)?;
    Ok(0)
}
