//! Root file systems from Debian's packages, made once and kept in the user's cache.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Packages of the Debian bundle beside debootstrap's minimal set.
const PACKAGES: &str = "gcc,libc6-dev,make,python3,git,strace,redis-server,procps,golang-go";

/// `$XDG_CACHE_HOME/gvisor-rs` or `~/.cache/gvisor-rs`.
#[must_use]
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        home.join(".cache")
    });
    base.join("gvisor-rs")
}

/// A root with Debian's static busybox and its applets.
#[must_use]
pub fn busybox() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let root = cache().join("busybox");
        let ready = root.join("bin/sh");
        if !ready.exists() {
            for dir in ["bin", "dev", "proc", "sys", "tmp", "etc", "root", "usr/bin", "var/tmp"] {
                fs::create_dir_all(root.join(dir)).expect("the cache can be written");
            }
            fs::copy("/bin/busybox", root.join("bin/busybox")).expect("package busybox-static");
            fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("etc/passwd");
            fs::write(root.join("etc/group"), "root:x:0:\n").expect("etc/group");
            let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs");
            for name in String::from_utf8_lossy(&list.stdout).lines() {
                if name != "sh" && name != "busybox" {
                    let _ = symlink("busybox", root.join("bin").join(name));
                }
            }
            symlink("busybox", &ready).expect("bin/sh");
        }
        root
    })
}

/// A Debian 12 root with a compiler, Python, git, redis and the like (debootstrap; several minutes the first time).
#[must_use]
pub fn debian() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let root = cache().join("debian12");
        let done = cache().join("debian12.done");
        if !done.exists() {
            fs::create_dir_all(cache()).expect("the cache can be written");
            let _ = fs::remove_dir_all(&root);
            let mirror = mirror();
            let status = Command::new("debootstrap")
                .arg("--variant=minbase")
                .arg(format!("--include={PACKAGES}"))
                .arg("bookworm")
                .arg(&root)
                .args(mirror)
                .stdout(std::process::Stdio::null())
                .status()
                .expect("package debootstrap");
            assert!(status.success(), "debootstrap failed");
            fs::write(&done, "").expect("the cache can be written");
        }
        root
    })
}

/// The archive that this machine's own package sources name.
fn mirror() -> Option<String> {
    let mut texts = vec![fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()];
    if let Ok(dir) = fs::read_dir("/etc/apt/sources.list.d") {
        texts.extend(dir.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok()));
    }
    texts
        .iter()
        .flat_map(|text| text.split_whitespace())
        .find(|word| word.starts_with("http") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}
