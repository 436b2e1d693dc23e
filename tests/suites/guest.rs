//! The guest programs: on the host's kernel first, then in the sandbox on each platform.
//!
//! A case that fails on the host is a wrong test. A case that fails in the sandbox is a gap, unless
//! `tests/guest/known-gaps` names it; a named gap that passes has to be taken off that list.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;
use tests::bundle::{Bundle, own_root, set};
use tests::{command, guest_binary, rootfs, workspace};

const LIMIT: Duration = Duration::from_secs(400);

#[derive(Clone, PartialEq, Eq, Debug)]
enum Verdict {
    Ok,
    Skip,
    Failed(String),
}

fn parse(output: &str) -> BTreeMap<String, Verdict> {
    let mut found = BTreeMap::new();
    for line in output.lines() {
        if let Some(name) = line.strip_prefix("ok ") {
            found.insert(name.to_owned(), Verdict::Ok);
        } else if let Some(rest) = line.strip_prefix("not ok ") {
            let (name, why) = rest.split_once(": ").unwrap_or((rest, ""));
            found.insert(name.to_owned(), Verdict::Failed(why.to_owned()));
        } else if let Some(rest) = line.strip_prefix("skip ") {
            let (name, _) = rest.split_once(": ").unwrap_or((rest, ""));
            found.insert(name.to_owned(), Verdict::Skip);
        }
    }
    found
}

fn known_gaps(platform: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(workspace().join("tests/guest/known-gaps")).unwrap_or_default();
    text.lines()
        .map(|line| line.split('#').next().unwrap_or("").trim())
        .filter(|line| !line.is_empty())
        .filter_map(|line| match line.split_once(' ') {
            Some((name, only)) => (only.trim() == platform).then(|| name.to_owned()),
            None => Some(line.to_owned()),
        })
        .collect()
}

fn on_linux() -> BTreeMap<String, Verdict> {
    let done = command::run(&mut Command::new(guest_binary()), LIMIT);
    let cases = parse(&done.stdout);
    assert!(cases.len() >= 200, "only {} cases ran on the host: {}", cases.len(), done.stderr);
    cases
}

#[test]
fn linux_first() {
    let failed: Vec<_> = on_linux().into_iter().filter(|(_, v)| matches!(v, Verdict::Failed(_))).collect();
    assert!(failed.is_empty(), "these cases are wrong about Linux: {failed:#?}");
}

fn in_sandbox(platform: &str) {
    let bundle = Bundle::new(rootfs::busybox(), &["/guest-tests", "-d", "/tmp"]).bind(
        guest_binary(),
        "/guest-tests",
        "ro",
    );
    compare(platform, &bundle, &on_linux());
}

/// The families that are about files, in a directory of the host: a bind mount, and a root that writes reach.
fn on_host_files(platform: &str) {
    let families = ["fs", "files", "hostfs"];
    let of_files = |name: &String| families.iter().any(|family| name.starts_with(&format!("{family}/")));
    let mut linux = on_linux();
    linux.retain(|name, _| of_files(name));
    for place in ["/shared", "/root"] {
        let args = ["/guest-tests", "-d", place].into_iter().chain(families);
        let (mut bundle, root) = own_root("");
        set(&mut bundle, "/process/args", serde_json::json!(args.collect::<Vec<_>>()));
        // Not the tests' folder, which may lie in memory.
        let shared = root.join("shared");
        std::fs::create_dir(&shared).expect("a folder to share");
        let bundle = bundle.bind(guest_binary(), "/guest-tests", "ro").bind(&shared, "/shared", "rw");
        eprintln!("in {place}:");
        compare(platform, &bundle, &linux);
    }
}

fn compare(platform: &str, bundle: &Bundle, linux: &BTreeMap<String, Verdict>) {
    let done = command::run(&mut bundle.run(platform), LIMIT);
    let sandbox = parse(&done.stdout);
    assert!(!sandbox.is_empty(), "nothing ran: status {}, {}", done.code(), done.stderr);
    let known = known_gaps(platform);
    let mut gaps = Vec::new();
    let mut closed = Vec::new();
    for (name, verdict) in linux {
        if *verdict != Verdict::Ok {
            continue;
        }
        let here = sandbox.get(name).cloned().unwrap_or_else(|| Verdict::Failed("did not run".to_owned()));
        match (here, known.contains(name)) {
            (Verdict::Ok, true) => closed.push(name.clone()),
            (Verdict::Ok, false) | (_, true) => {}
            (Verdict::Skip, false) => gaps.push(format!("{name}: skipped, although Linux runs it")),
            (Verdict::Failed(why), false) => gaps.push(format!("{name}: {why}")),
        }
    }
    let passed = sandbox.values().filter(|verdict| **verdict == Verdict::Ok).count();
    eprintln!("{platform}: {passed} of {} cases pass, {} known gaps", linux.len(), known.len());
    assert!(gaps.is_empty(), "{platform} differs from Linux in {} cases: {gaps:#?}", gaps.len());
    assert!(closed.is_empty(), "take these off tests/guest/known-gaps: {closed:#?}");
}

#[test]
fn systrap() {
    in_sandbox("systrap");
}

#[test]
fn ptrace() {
    in_sandbox("ptrace");
}

#[test]
fn systrap_on_host_files() {
    on_host_files("systrap");
}

#[test]
fn ptrace_on_host_files() {
    on_host_files("ptrace");
}
