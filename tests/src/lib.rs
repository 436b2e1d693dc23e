//! What the suites share: the binary under test, bundles, root file systems, commands with a time limit.
#![forbid(unsafe_code)]

pub mod bundle;
pub mod command;
pub mod processes;
pub mod pty;
pub mod rootfs;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The workspace's root folder.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The `runsc` under test: `$RUNSC`, else a release build of this workspace.
#[must_use]
pub fn runsc() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("RUNSC") {
            return PathBuf::from(path);
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--release", "--quiet", "-p", "runsc"])
            .current_dir(workspace())
            .status()
            .expect("cargo starts");
        assert!(built.success(), "runsc does not build");
        target_dir().join("x86_64-unknown-linux-gnu/release/runsc")
    })
}

/// Cargo's target folder.
#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The platforms every behaviour is tested on.
pub const PLATFORMS: [&str; 2] = ["systrap", "ptrace"];

/// The guest programs as one static binary, built once per change of their sources.
#[must_use]
pub fn guest_binary() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let dir = workspace().join("tests/guest");
        let out = target_dir().join("guest-tests");
        let mut sources: Vec<PathBuf> = std::fs::read_dir(&dir)
            .expect("tests/guest exists")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|ext| ext == "c"))
            .collect();
        sources.sort();
        let newest = sources.iter().filter_map(|path| path.metadata().ok()?.modified().ok()).max();
        let built = out.metadata().and_then(|meta| meta.modified()).ok();
        if built.is_none() || built < newest {
            std::fs::create_dir_all(target_dir()).expect("the target folder can be made");
            let status = Command::new("gcc")
                .args(["-static", "-O1", "-w", "-pthread", "-o"])
                .arg(&out)
                .args(&sources)
                .status()
                .expect("gcc starts (package gcc, libc6-dev)");
            assert!(status.success(), "the guest programs do not compile");
        }
        out
    })
}
