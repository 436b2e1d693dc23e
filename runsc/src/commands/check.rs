//! `check`: what this host allows, in words.

use super::print;
use crate::error::Outcome;
use platform::probe::{Verdict, report};

/// `check`: everything is tried; the status is 1 when no sandbox can run here.
pub(super) fn check() -> Outcome<u8> {
    let findings = report();
    for finding in &findings {
        print(&format!("{finding}\n"))?;
    }
    let broken = |name: &str| findings.iter().any(|f| f.name.contains(name) && f.verdict != Verdict::Good);
    let missing =
        |name: &str| findings.iter().any(|f| f.name.contains(name) && f.verdict == Verdict::Missing);
    let (systrap, ptrace) = (!missing("systrap"), !broken("ptrace"));
    let verdict = match (systrap, ptrace) {
        (true, _) => "sandboxes run on the platform systrap",
        (false, true) => "sandboxes run with --platform=ptrace only",
        (false, false) => "no platform works here: sandboxes cannot run",
    };
    print(&format!("{verdict}\n"))?;
    Ok(u8::from(!systrap && !ptrace || missing("user namespaces")))
}
