//! `linux.seccomp` of the bundle: names become numbers, what cannot be kept is refused.

use crate::error::{Failure, Outcome};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use sentry::control::spec::{SeccompAction, SeccompArg, SeccompOp, SeccompRule, SeccompSpec};
use std::collections::HashMap;

/// EPERM, which runc takes where no errno is given.
const EPERM: u32 = 1;

/// Turns a profile into the kernel's form. Calls that this architecture does not have are left out, as
/// libseccomp's callers do.
pub(crate) fn convert(profile: &LinuxSeccomp) -> Outcome<Option<SeccompSpec>> {
    let field = "linux.seccomp.defaultAction";
    let default = action(field, profile.default_action(), profile.default_errno_ret())?;
    let known: HashMap<&str, u32> =
        sentry::syscalls::table::entries().iter().map(|entry| (entry.name(), entry.number)).collect();
    let mut rules = Vec::new();
    for (at, call) in profile.syscalls().iter().flatten().enumerate() {
        let field = format!("linux.seccomp.syscalls[{at}]");
        if call.names().is_empty() {
            return Err(Failure::new(format!("{field}.names: is empty")));
        }
        let action = action(&format!("{field}.action"), call.action(), call.errno_ret())?;
        let args: Outcome<Vec<_>> = call.args().iter().flatten().map(|one| arg(&field, one)).collect();
        let calls = call.names().iter().filter_map(|name| known.get(name.as_str()).copied()).collect();
        rules.push(SeccompRule { calls, action, args: args? });
    }
    if rules.is_empty() && default == SeccompAction::Allow {
        return Ok(None);
    }
    let log =
        profile.flags().iter().flatten().any(|flag| *flag == LinuxSeccompFilterFlag::SeccompFilterFlagLog);
    Ok(Some(SeccompSpec { default, rules, log }))
}

fn action(field: &str, action: LinuxSeccompAction, errno: Option<u32>) -> Outcome<SeccompAction> {
    let value = || {
        let value = errno.unwrap_or(EPERM);
        u16::try_from(value).map_err(|_| Failure::new(format!("{field}: errnoRet {value} is out of range")))
    };
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => SeccompAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => SeccompAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => SeccompAction::Trap,
        LinuxSeccompAction::ScmpActErrno => SeccompAction::Errno(value()?),
        LinuxSeccompAction::ScmpActTrace => SeccompAction::Trace(value()?),
        LinuxSeccompAction::ScmpActLog => SeccompAction::Log,
        LinuxSeccompAction::ScmpActAllow => SeccompAction::Allow,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Failure::new(format!("{field}: SCMP_ACT_NOTIFY is not supported")));
        }
    })
}

fn arg(field: &str, arg: &LinuxSeccompArg) -> Outcome<SeccompArg> {
    let index = u8::try_from(arg.index()).ok().filter(|index| *index < 6);
    let index =
        index.ok_or_else(|| Failure::new(format!("{field}.args: index {} is above 5", arg.index())))?;
    let op = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => SeccompOp::Ne,
        LinuxSeccompOperator::ScmpCmpLt => SeccompOp::Lt,
        LinuxSeccompOperator::ScmpCmpLe => SeccompOp::Le,
        LinuxSeccompOperator::ScmpCmpEq => SeccompOp::Eq,
        LinuxSeccompOperator::ScmpCmpGe => SeccompOp::Ge,
        LinuxSeccompOperator::ScmpCmpGt => SeccompOp::Gt,
        LinuxSeccompOperator::ScmpCmpMaskedEq => SeccompOp::MaskedEq,
    };
    Ok(SeccompArg { index, op, value: arg.value(), value_two: arg.value_two().unwrap_or(0) })
}
