//! The seccomp profile of a bundle (OCI config-linux.md, "Seccomp"), as a table: what libseccomp would make
//! of it, without a program to run for each call.
//!
//! As there, a rule without conditions stands for the whole call whatever its place in the list, the first
//! of several such rules wins, and a rule that says what is said by default says nothing.

use super::bpf::Data;
use super::{RET_ALLOW, RET_ERRNO, RET_KILL_PROCESS, RET_KILL_THREAD, RET_LOG, RET_TRACE, RET_TRAP};
use crate::control::spec::{SeccompAction, SeccompArg, SeccompOp, SeccompSpec};
use std::collections::BTreeMap;

/// Number of execve(2).
const EXECVE: u32 = 59;

/// Rules of one call.
#[derive(Debug, Default)]
struct CallRules {
    /// Whatever the arguments are.
    always: Option<u32>,
    /// The first whose conditions all hold.
    when: Vec<(Vec<SeccompArg>, u32)>,
}

/// A profile.
#[derive(Debug)]
pub struct Profile {
    default: u32,
    calls: BTreeMap<u32, CallRules>,
}

fn number(action: SeccompAction) -> u32 {
    match action {
        SeccompAction::KillProcess => RET_KILL_PROCESS,
        SeccompAction::KillThread => RET_KILL_THREAD,
        SeccompAction::Trap => RET_TRAP,
        SeccompAction::Errno(value) => RET_ERRNO | u32::from(value),
        SeccompAction::Trace(value) => RET_TRACE | u32::from(value),
        SeccompAction::Log => RET_LOG,
        SeccompAction::Allow => RET_ALLOW,
    }
}

fn holds(condition: &SeccompArg, args: &[u64; 6]) -> bool {
    let arg = args.get(usize::from(condition.index)).copied().unwrap_or(0);
    let value = condition.value;
    match condition.op {
        SeccompOp::Ne => arg != value,
        SeccompOp::Lt => arg < value,
        SeccompOp::Le => arg <= value,
        SeccompOp::Eq => arg == value,
        SeccompOp::Ge => arg >= value,
        SeccompOp::Gt => arg > value,
        SeccompOp::MaskedEq => arg & value == condition.value_two & value,
    }
}

/// Conditions of one rule hold together, unless two of them look at the same argument: then each is a rule
/// of its own, as runc has it.
fn alternatives(args: &[SeccompArg]) -> Vec<Vec<SeccompArg>> {
    let twice = |arg: &SeccompArg| args.iter().filter(|other| other.index == arg.index).count() > 1;
    if args.iter().any(twice) { args.iter().map(|arg| vec![*arg]).collect() } else { vec![args.to_vec()] }
}

impl Profile {
    /// Makes the table.
    #[must_use]
    pub fn new(spec: &SeccompSpec) -> Profile {
        let default = number(spec.default);
        let mut calls: BTreeMap<u32, CallRules> = BTreeMap::new();
        for rule in &spec.rules {
            let action = number(rule.action);
            if action == default {
                continue;
            }
            for call in &rule.calls {
                let rules = calls.entry(*call).or_default();
                if rules.always.is_some() {
                    continue;
                }
                if rule.args.is_empty() {
                    *rules = CallRules { always: Some(action), when: Vec::new() };
                } else {
                    rules.when.extend(alternatives(&rule.args).into_iter().map(|args| (args, action)));
                }
            }
        }
        Profile { default, calls }
    }

    /// What to do with a call.
    pub(super) fn decide(&self, data: &Data) -> u32 {
        let Some(rules) = self.calls.get(&data.number) else { return self.default };
        rules.always.unwrap_or_else(|| {
            let fits = |args: &[SeccompArg]| args.iter().all(|arg| holds(arg, &data.args));
            rules.when.iter().find(|(args, _)| fits(args)).map_or(self.default, |(_, action)| *action)
        })
    }

    /// What becomes of execve(2), were the arguments null.
    pub(super) fn of_execve(&self) -> u32 {
        self.decide(&Data { number: EXECVE, arch: 0, ip: 0, args: [0; 6] })
    }

    /// Whether the call is allowed whatever its arguments are.
    pub(super) fn always_allows(&self, call: u32) -> bool {
        match self.calls.get(&call) {
            None => self.default == RET_ALLOW,
            Some(rules) => rules.always == Some(RET_ALLOW),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::spec::SeccompRule;

    fn data(number: u32, args: [u64; 6]) -> Data {
        Data { number, arch: 0, ip: 0, args }
    }

    fn rule(calls: &[u32], action: SeccompAction, args: &[SeccompArg]) -> SeccompRule {
        SeccompRule { calls: calls.to_vec(), action, args: args.to_vec() }
    }

    fn arg(index: u8, op: SeccompOp, value: u64, value_two: u64) -> SeccompArg {
        SeccompArg { index, op, value, value_two }
    }

    #[test]
    fn rules_by_call_and_argument() {
        let spec = SeccompSpec {
            default: SeccompAction::Errno(38),
            rules: vec![
                rule(&[0, 1], SeccompAction::Allow, &[]),
                rule(&[135], SeccompAction::Allow, &[arg(0, SeccompOp::Eq, 0, 0)]),
                rule(&[135], SeccompAction::Allow, &[arg(0, SeccompOp::Eq, 8, 0)]),
                rule(&[56], SeccompAction::Allow, &[arg(0, SeccompOp::MaskedEq, 0x7e02_0000, 0)]),
                rule(
                    &[41],
                    SeccompAction::Errno(22),
                    &[arg(0, SeccompOp::Eq, 16, 0), arg(2, SeccompOp::Ge, 9, 0)],
                ),
                rule(&[2], SeccompAction::Allow, &[arg(1, SeccompOp::Lt, 1, 0), arg(1, SeccompOp::Gt, 5, 0)]),
            ],
            log: false,
        };
        let profile = Profile::new(&spec);
        let says = |number, args| profile.decide(&data(number, args));
        let denied = RET_ERRNO | 38;
        assert_eq!(says(0, [9; 6]), RET_ALLOW);
        assert_eq!(says(3, [0; 6]), denied);
        assert_eq!(says(135, [8, 0, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(says(135, [9, 0, 0, 0, 0, 0]), denied);
        assert_eq!(says(56, [0x11, 0, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(says(56, [0x1000_0000, 0, 0, 0, 0, 0]), denied);
        assert_eq!(says(41, [16, 0, 9, 0, 0, 0]), RET_ERRNO | 22);
        assert_eq!(says(41, [16, 0, 8, 0, 0, 0]), denied);
        assert_eq!(says(2, [0, 0, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(says(2, [0, 6, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(says(2, [0, 3, 0, 0, 0, 0]), denied);
        assert!(profile.always_allows(0) && !profile.always_allows(135) && !profile.always_allows(3));
    }

    #[test]
    fn the_more_general_rule_wins() {
        let narrow = rule(&[0], SeccompAction::Errno(1), &[arg(0, SeccompOp::Eq, 1, 0)]);
        let wide = rule(&[0], SeccompAction::Trap, &[]);
        for rules in [vec![narrow.clone(), wide.clone()], vec![wide, narrow]] {
            let spec = SeccompSpec { default: SeccompAction::Allow, rules, log: false };
            let profile = Profile::new(&spec);
            assert_eq!(profile.decide(&data(0, [1, 0, 0, 0, 0, 0])), RET_TRAP);
            assert!(!profile.always_allows(0) && profile.always_allows(1));
        }
    }
}
