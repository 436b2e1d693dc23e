//! Ratchets: properties of the source that may only get better.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_path_buf()
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for top in ["platform", "sentry", "gofer", "runsc", "tests"] {
        collect(&root().join(top), &mut found);
    }
    assert!(found.len() > 50, "the source tree was not found");
    found
}

fn collect(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).expect("a source folder") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let text = fs::read_to_string(&path).expect("source is UTF-8");
            found.push((path.strip_prefix(root()).expect("inside the workspace").to_path_buf(), text));
        }
    }
}

/// A file near 400 lines thinks about a split; at 800 it must.
#[test]
fn no_file_over_800_lines() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|(_, text)| text.lines().count() > 800)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "split these: {long:#?}");
}

/// unsafe-has-an-address: only `platform/` has unsafe code, every other crate forbids it.
#[test]
fn unsafe_only_in_platform() {
    for krate in [
        "sentry/abi",
        "sentry/lock",
        "sentry/mm",
        "sentry/vfs",
        "sentry/net",
        "sentry",
        "gofer",
        "gofer/wire",
    ] {
        let text = fs::read_to_string(root().join(krate).join("src/lib.rs")).expect("a crate root");
        assert!(text.contains("#![forbid(unsafe_code)]"), "{krate} does not forbid unsafe code");
    }
    let text = fs::read_to_string(root().join("runsc/src/main.rs")).expect("a crate root");
    assert!(text.contains("#![forbid(unsafe_code)]"), "runsc does not forbid unsafe code");
}

/// Every unsafe block of `platform/` states its invariant. (clippy checks the blocks; this counts them.)
#[test]
fn unsafe_blocks_do_not_grow() {
    let count: usize = sources()
        .iter()
        .filter(|(path, _)| path.starts_with("platform"))
        .flat_map(|(_, text)| text.lines())
        .filter(|line| line.contains("unsafe {"))
        .count();
    // The number may fall; a change that raises it says why in its message and raises it here.
    assert!(count <= MOST_UNSAFE_BLOCKS, "{count} unsafe blocks in platform/, {MOST_UNSAFE_BLOCKS} allowed");
}
const MOST_UNSAFE_BLOCKS: usize = 400;

/// `abi <- lock <- platform <- mm <- vfs <- net <- sentry <- runsc`, and `wire` needs `abi` only.
#[test]
fn arrows_point_down() {
    let allowed: &[(&str, &[&str])] = &[
        ("sentry/abi", &[]),
        ("sentry/lock", &["abi"]),
        ("platform", &["abi", "lock"]),
        ("sentry/mm", &["abi", "lock", "platform"]),
        ("sentry/vfs", &["abi", "lock", "platform", "mm", "wire"]),
        ("sentry/net", &["abi", "lock", "platform", "mm", "vfs"]),
        ("sentry", &["abi", "lock", "platform", "mm", "vfs", "net", "wire"]),
        ("gofer/wire", &["abi"]),
        ("gofer", &["abi", "platform", "wire"]),
        ("runsc", &["abi", "lock", "platform", "sentry", "gofer", "wire", "vfs", "mm", "net"]),
    ];
    let ours = ["abi", "lock", "platform", "mm", "vfs", "net", "sentry", "wire", "gofer", "runsc"];
    for (krate, may) in allowed {
        let text = fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a manifest");
        let deps = text.split("[dependencies]").nth(1).unwrap_or("").split("\n[").next().unwrap_or("");
        for line in deps.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or("");
            if ours.contains(&name) {
                assert!(may.contains(&name), "{krate} must not depend on {name}");
            }
        }
    }
}

/// `#[expect]` with a reason, never `#[allow]`; no `unwrap()` in the kernel's own code.
#[test]
fn no_allow_attributes() {
    for (path, text) in sources() {
        if path.starts_with("tests") {
            continue;
        }
        for (at, line) in text.lines().enumerate() {
            let code = line.trim_start();
            assert!(
                !(code.starts_with("#[allow(") || code.starts_with("#![allow(")),
                "{}:{}: use #[expect(.., reason = ..)]",
                path.display(),
                at + 1
            );
        }
    }
}
