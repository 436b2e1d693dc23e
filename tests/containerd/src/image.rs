//! OCI images packed from folders, without a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The image of most containers: busybox.
pub const BUSYBOX: &str = "gvisor-rs.test/busybox:1";
/// A pod's first container: waits for a signal.
pub const PAUSE: &str = "gvisor-rs.test/pause:1";

/// Waits for SIGTERM or SIGINT and collects orphans, as the pause image of Kubernetes does.
const PAUSE_SOURCE: &str = r"
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static void down(int signal) { (void)signal; _exit(0); }
static void reap(int signal) { (void)signal; while (waitpid(-1, NULL, WNOHANG) > 0) {} }
int main(void) {
    struct sigaction on_end = { .sa_handler = down }, on_child = { .sa_handler = reap, .sa_flags = SA_NOCLDSTOP };
    if (sigaction(SIGINT, &on_end, NULL) || sigaction(SIGTERM, &on_end, NULL) || sigaction(SIGCHLD, &on_child, NULL))
        return 1;
    for (;;) pause();
}
";

/// Compiles the pause program into `dir` and returns a root file system with it.
#[must_use]
pub fn pause_root(dir: &Path) -> PathBuf {
    let root = dir.join("pause-root");
    fs::create_dir_all(&root).expect("a folder");
    let source = dir.join("pause.c");
    fs::write(&source, PAUSE_SOURCE).expect("a source file");
    let status = Command::new("gcc")
        .args(["-static", "-Os", "-s", "-o"])
        .arg(root.join("pause"))
        .arg(&source)
        .status();
    assert!(status.expect("package gcc").success(), "the pause program does not compile");
    root
}

/// Packs `root` as an image called `name`, which runs `command`, into the archive `out`.
pub fn pack(root: &Path, name: &str, command: &[&str], out: &Path) {
    let layout = out.with_extension("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a folder");
    let layer = layout.join("layer");
    tar(root, &layer);
    let layer = store(&blobs, &layer);
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Env": ["PATH=/bin:/usr/bin"], "Cmd": command },
        "rootfs": { "type": "layers", "diff_ids": [layer.digest] },
    });
    let config = store_json(&blobs, &config);
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
        "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar")],
    });
    let manifest = store_json(&blobs, &manifest);
    let mut entry = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    if let Some(entry) = entry.as_object_mut() {
        entry.insert("annotations".to_owned(), serde_json::json!({ "io.containerd.image.name": name }));
    }
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [entry] });
    fs::write(layout.join("index.json"), index.to_string()).expect("index.json");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
    tar(&layout, out);
    fs::remove_dir_all(&layout).expect("the layout can be removed");
}

/// A blob.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn descriptor(&self, media_type: &str) -> serde_json::Value {
        serde_json::json!({ "mediaType": media_type, "digest": self.digest, "size": self.size })
    }
}

fn tar(folder: &Path, out: &Path) {
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "-C"]).arg(folder);
    let status = command.arg("-cf").arg(out).arg(".").status();
    assert!(status.expect("tar starts").success(), "{}: cannot be packed", folder.display());
}

fn store_json(blobs: &Path, value: &serde_json::Value) -> Blob {
    let file = blobs.join("new");
    fs::write(&file, value.to_string()).expect("a blob");
    store(blobs, &file)
}

/// Moves a file to the name its contents give it.
fn store(blobs: &Path, file: &Path) -> Blob {
    let sum = Command::new("sha256sum").arg(file).output().expect("sha256sum starts");
    let text = String::from_utf8_lossy(&sum.stdout).into_owned();
    let hex = text.split_whitespace().next().expect("a checksum");
    let size = fs::metadata(file).expect("a blob").len();
    fs::rename(file, blobs.join(hex)).expect("a blob can be moved");
    Blob { digest: format!("sha256:{hex}"), size }
}
