//! OCI bundles in temporary folders.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Environment variable by which the processes of a bundle are found.
pub const MARK: &str = "GVISOR_RS_TEST_OF";

/// A bundle with its own `--root`; removed when dropped.
#[derive(Debug)]
pub struct Bundle {
    dir: PathBuf,
    /// config.json, written by [`Bundle::write`].
    pub config: Value,
    id: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Bundle {
    /// A bundle over `rootfs` that runs `args` without a terminal, as root, with containerd's default mounts.
    #[must_use]
    pub fn new(rootfs: &Path, args: &[&str]) -> Bundle {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("t{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(format!("gvisor-rs-{id}"));
        fs::create_dir_all(&dir).expect("a temporary folder");
        let caps = json!([
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FSETID",
            "CAP_FOWNER",
            "CAP_MKNOD",
            "CAP_NET_RAW",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETFCAP",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT",
            "CAP_KILL",
            "CAP_AUDIT_WRITE",
            "CAP_SYS_ADMIN",
            "CAP_SYS_PTRACE",
            "CAP_SYS_RESOURCE",
            "CAP_SYS_NICE",
            "CAP_IPC_LOCK",
            "CAP_NET_ADMIN",
            "CAP_DAC_READ_SEARCH",
            "CAP_SYS_TIME",
            "CAP_IPC_OWNER",
            "CAP_LINUX_IMMUTABLE",
            "CAP_LEASE"
        ]);
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"],
                "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": []},
                "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 4096, "soft": 1024}]
            },
            "root": {"path": rootfs, "readonly": false},
            "hostname": "guest",
            // The root file systems are shared by all tests.
            "annotations": {"io.gvisor-rs.overlay2": "root:memory"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
                {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
            ],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
                "maskedPaths": ["/proc/kcore", "/proc/keys"],
                "readonlyPaths": ["/proc/sys"]
            }
        });
        Bundle { dir, config, id }
    }

    /// Adds a bind mount.
    #[must_use]
    pub fn bind(mut self, source: &Path, destination: &str, mode: &str) -> Bundle {
        let mount =
            json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", mode]});
        if let Some(mounts) = self.config.pointer_mut("/mounts").and_then(Value::as_array_mut) {
            mounts.push(mount);
        }
        self
    }

    /// The bundle's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes config.json.
    pub fn write(&self) {
        let text = serde_json::to_string_pretty(&self.config).expect("JSON of a value");
        fs::write(self.dir.join("config.json"), text).expect("the bundle can be written");
    }

    /// `runsc --root R --platform P VERB...`, to which arguments can be added.
    #[must_use]
    pub fn runsc(&self, platform: &str, verb: &str) -> Command {
        self.write();
        let mut command = Command::new(crate::runsc());
        command.env(MARK, &self.dir);
        command.arg("--root").arg(self.dir.join("state")).arg(format!("--platform={platform}"));
        // A root file system that all tests share stays as it is, whatever a test does to the annotations.
        let root = self.config.pointer("/root/path").and_then(Value::as_str).unwrap_or_default();
        if Path::new(root).starts_with(crate::rootfs::cache()) {
            command.arg("--overlay2=root:memory");
        }
        command.arg(verb);
        command
    }

    /// `runsc run` of this bundle.
    #[must_use]
    pub fn run(&self, platform: &str) -> Command {
        let mut command = self.runsc(platform, "run");
        command.arg("--bundle").arg(&self.dir).arg(&self.id);
        command
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // A test that failed half-way may have left its sandbox.
        let _ = Command::new(crate::runsc())
            .arg("--root")
            .arg(self.dir.join("state"))
            .args(["delete", "--force", &self.id])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The busybox root running a shell script.
#[must_use]
pub fn shell(script: &str) -> Bundle {
    Bundle::new(crate::rootfs::busybox(), &["/bin/sh", "-c", script])
}

/// A bundle with a root file system of its own, which it may change.
#[must_use]
pub fn own_root(script: &str) -> (Bundle, PathBuf) {
    let mut bundle = shell(script);
    let root = bundle.dir().join("rootfs");
    let copied = Command::new("cp").arg("-a").arg(crate::rootfs::busybox()).arg(&root).status().expect("cp");
    assert!(copied.success());
    set(&mut bundle, "/root/path", json!(root));
    set(&mut bundle, "/annotations", json!({}));
    (bundle, root)
}

/// A bundle for runc as well, which gives no capability that its caller lacks.
#[must_use]
pub fn beside_runc(script: &str) -> (Bundle, PathBuf) {
    let (mut bundle, root) = own_root(script);
    let caps = json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]);
    let sets = json!({"bounding": caps, "effective": caps, "permitted": caps, "inheritable": []});
    set(&mut bundle, "/process/capabilities", sets);
    (bundle, root)
}

/// Puts a value at a JSON pointer whose parent exists.
#[track_caller]
pub fn set(bundle: &mut Bundle, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
    let parent = bundle.config.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
    parent.insert(name.to_owned(), value);
}
