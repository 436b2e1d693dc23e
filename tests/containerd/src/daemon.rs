//! A containerd of our own, started by hand and stopped with everything it made.

use crate::client::Cri;
use crate::image::{self, BUSYBOX, PAUSE};
use crate::leftovers::{self, Left};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tests::bundle::MARK;

/// Handler of the runtime under test.
pub const OURS: &str = "gvisor-rs";
/// Handler of the reference.
pub const RUNC: &str = "runc";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The daemon and where it lives.
#[derive(Debug)]
pub struct Daemon {
    dir: PathBuf,
    name: String,
    number: u32,
    process: Option<Child>,
}

impl Daemon {
    /// Starts it, with the two images and the bridge network `NAME` there.
    #[must_use]
    pub fn start() -> Daemon {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gvr{:x}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(format!("gvisor-rs-{name}"));
        fs::create_dir_all(dir.join("images")).expect("a temporary folder");
        let mut daemon = Daemon { dir, name, number, process: None };
        daemon.write_network();
        daemon.write_config();
        daemon.launch();
        daemon.import();
        daemon
    }

    /// The daemon's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Name of the bridge, and of the parent of all cgroups.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client.
    #[must_use]
    pub fn cri(&self) -> Cri {
        Cri::new(&self.dir.join("containerd.sock"))
    }

    /// `--root` of the runtime under test in a containerd namespace.
    #[must_use]
    pub fn runtime_root(&self, namespace: &str) -> PathBuf {
        self.dir.join("runtimes/ours").join(namespace)
    }

    /// `ctr` in containerd's default namespace.
    #[must_use]
    pub fn ctr(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.dir.join("containerd.sock")).args(words);
        command
    }

    /// First three numbers of the pods' addresses.
    fn subnet(&self) -> String {
        let number = std::process::id().wrapping_mul(16).wrapping_add(self.number);
        format!("10.{}.{}", 128 + number / 256 % 64, number % 256)
    }

    /// Address of the bridge: the host as pods see it.
    #[must_use]
    pub fn gateway(&self) -> String {
        format!("{}.1", self.subnet())
    }

    fn write_network(&self) {
        let conf = self.dir.join("cni");
        fs::create_dir_all(&conf).expect("a folder");
        let list = serde_json::json!({
            "cniVersion": "0.4.0",
            "name": self.name,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": self.name,
                    "isGateway": true,
                    "ipMasq": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": self.dir.join("ipam"),
                        "ranges": [[{ "subnet": format!("{}.0/24", self.subnet()) }]],
                        "routes": [{ "dst": "0.0.0.0/0" }],
                    },
                },
                { "type": "portmap", "capabilities": { "portMappings": true } },
            ],
        });
        fs::write(conf.join("10-pods.conflist"), list.to_string()).expect("a network configuration");
    }

    fn write_config(&self) {
        let dir = self.dir.display();
        let runsc = tests::runsc().display();
        let snapshotter = if overlay_works(&self.dir) { "overlayfs" } else { "native" };
        let text = format!(
            r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "{dir}/containerd.sock"
[ttrpc]
  address = "{dir}/containerd.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  netns_mounts_under_state_dir = true
  stats_collect_period = 1
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{dir}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "{OURS}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{RUNC}]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{RUNC}.options]
        Root = "{dir}/runtimes/runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{OURS}]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{OURS}.options]
        BinaryName = "{runsc}"
        Root = "{dir}/runtimes/ours"
"#
        );
        fs::write(self.dir.join("config.toml"), text).expect("a configuration");
    }

    /// Starts the process; what runs in containers goes on between [`Daemon::kill`] and this.
    pub fn launch(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("containerd.log"));
        let log = log.expect("a log");
        let mut command = Command::new("containerd");
        // Its shims hand this to the runtime, whose processes are found by it.
        command.env(MARK, &self.dir);
        command.arg("--config").arg(self.dir.join("config.toml")).stdin(Stdio::null()).process_group(0);
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        self.process = Some(command.spawn().expect("package containerd"));
        let ready = || {
            let status = self.cri().status().ok()?.status?;
            status.conditions.iter().all(|condition| condition.status).then_some(())
        };
        if eventually(Duration::from_secs(30), ready).is_none() {
            panic!("containerd is not ready: {:?}\n{}", self.cri().status(), self.log());
        }
    }

    /// The end of the daemon's log.
    #[must_use]
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.dir.join("containerd.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n")
    }

    /// Kills the daemon, not the shims.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// What is there of containers now.
    #[must_use]
    pub fn left(&self) -> Left {
        let mut left = leftovers::find(&self.dir, &self.name);
        // The parents of cgroups, the kubelet's on a node, are the suite's own.
        left.cgroups.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name != self.name && !name.starts_with("pod-")
        });
        left
    }

    /// Waits until no container's process, mount, cgroup, state or interface is there; panics if that does not come.
    #[track_caller]
    pub fn expect_nothing_left(&self) {
        let clean = || self.left().is_empty().then_some(());
        assert!(eventually(Duration::from_secs(10), clean).is_some(), "left: {:#?}", self.left());
    }

    fn import(&self) {
        let images = self.dir.join("images");
        let busybox = images.join("busybox.tar");
        image::pack(tests::rootfs::busybox(), BUSYBOX, &["/bin/sh"], &busybox);
        let pause = images.join("pause.tar");
        image::pack(&image::pause_root(&images), PAUSE, &["/pause"], &pause);
        for (namespace, archive) in [("k8s.io", &busybox), ("k8s.io", &pause), ("default", &busybox)] {
            let mut command = self.ctr(&["--namespace", namespace, "images", "import"]);
            if !overlay_works(&self.dir) {
                command.args(["--snapshotter", "native"]);
            }
            tests::command::run(command.arg(archive), Duration::from_secs(60)).expect_ok("image import");
        }
        let resolved = || self.cri().image_is_there(BUSYBOX).ok()?.then_some(());
        eventually(Duration::from_secs(10), resolved).expect("the CRI plugin sees the images");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let cri = self.cri();
        if let (true, Ok(list)) = (self.process.is_some(), cri.pods()) {
            for pod in list.items {
                let _ = cri.stop_pod(&pod.id);
                let _ = cri.remove_pod(&pod.id);
            }
        }
        if std::thread::panicking() {
            eprintln!("containerd's log:\n{}", self.log());
        }
        self.kill();
        leftovers::sweep(&self.dir, &self.name);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether overlay file systems can be mounted over a folder.
fn overlay_works(dir: &Path) -> bool {
    let base = dir.join("overlay-probe");
    for part in ["lower", "upper", "work", "merged"] {
        fs::create_dir_all(base.join(part)).expect("a folder");
    }
    let at = base.display();
    let options = format!("lowerdir={at}/lower,upperdir={at}/upper,workdir={at}/work");
    let merged = base.join("merged");
    let mounted = Command::new("mount")
        .args(["-t", "overlay", "-o", &options, "overlay"])
        .arg(&merged)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if mounted {
        let _ = Command::new("umount").arg(&merged).status();
    }
    let _ = fs::remove_dir_all(&base);
    mounted
}

/// Asks again until there is an answer or the time is over.
pub fn eventually<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
