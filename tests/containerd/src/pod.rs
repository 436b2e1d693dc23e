//! Pods and containers as the kubelet asks for them.

use crate::api::{
    ContainerConfig, ContainerLinux, ContainerMetadata, ContainerSecurity, ContainerStatus, ImageSpec,
    NamespaceOption, Resources, SandboxConfig, SandboxLinux, SandboxMetadata, SandboxSecurity,
    container_state, namespace_mode,
};
use crate::client::Cri;
use crate::daemon::{Daemon, eventually};
use crate::image::BUSYBOX;
use std::path::PathBuf;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// A pod that is stopped and removed when dropped.
#[derive(Debug)]
pub struct Pod<'a> {
    /// The client it was made with.
    pub cri: &'a Cri,
    /// Its id.
    pub id: String,
    /// What it was made from.
    pub config: SandboxConfig,
}

/// The configuration of a pod with a network of its own.
#[must_use]
pub fn config(daemon: &Daemon, name: &str) -> SandboxConfig {
    let namespace_options = NamespaceOption {
        network: namespace_mode::POD,
        pid: namespace_mode::CONTAINER,
        ipc: namespace_mode::POD,
        target_id: String::new(),
    };
    let security =
        SandboxSecurity { namespace_options: Some(namespace_options), ..SandboxSecurity::default() };
    SandboxConfig {
        metadata: Some(SandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "suite".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        log_directory: daemon.dir().join("logs").join(name).display().to_string(),
        linux: Some(SandboxLinux {
            cgroup_parent: format!("/{}/pod-{name}", daemon.name()),
            security_context: Some(security),
            ..SandboxLinux::default()
        }),
        ..SandboxConfig::default()
    }
}

/// The configuration of a container that runs `command` in busybox.
#[must_use]
pub fn container(name: &str, command: &[&str]) -> ContainerConfig {
    let namespace_options = NamespaceOption { pid: namespace_mode::CONTAINER, ..NamespaceOption::default() };
    let security = ContainerSecurity {
        namespace_options: Some(namespace_options),
        masked_paths: ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
            .map(str::to_owned)
            .into(),
        readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"].map(str::to_owned).into(),
        ..ContainerSecurity::default()
    };
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: BUSYBOX.to_owned() }),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        log_path: format!("{name}.log"),
        linux: Some(ContainerLinux {
            resources: Some(Resources { cpu_shares: 102, oom_score_adj: 100, ..Resources::default() }),
            security_context: Some(security),
        }),
        ..ContainerConfig::default()
    }
}

/// A container's security context, to be changed.
#[must_use]
pub fn security(config: &mut ContainerConfig) -> &mut ContainerSecurity {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

impl<'a> Pod<'a> {
    /// Runs a pod.
    #[track_caller]
    #[must_use]
    pub fn run(cri: &'a Cri, config: SandboxConfig, handler: &str) -> Pod<'a> {
        std::fs::create_dir_all(&config.log_directory).expect("a folder for logs");
        let id = cri.run_pod(&config, handler).unwrap_or_else(|error| panic!("RunPodSandbox: {error:?}"));
        Pod { cri, id, config }
    }

    /// Makes and starts a container.
    #[track_caller]
    pub fn start(&self, config: &ContainerConfig) -> String {
        let id = self.create(config);
        self.cri.start(&id).unwrap_or_else(|error| panic!("StartContainer: {error:?}"));
        id
    }

    /// Makes a container.
    #[track_caller]
    pub fn create(&self, config: &ContainerConfig) -> String {
        self.cri
            .create(&self.id, config, &self.config)
            .unwrap_or_else(|error| panic!("CreateContainer: {error:?}"))
    }

    /// What a command in a container writes; it must succeed.
    #[track_caller]
    pub fn sh(&self, container: &str, script: &str) -> String {
        let done = self
            .cri
            .exec_sync(container, &["/bin/sh", "-c", script], 20)
            .unwrap_or_else(|error| panic!("ExecSync {script:?}: {error:?}"));
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.exit_code == 0, "{script:?}: status {}, {errors}", done.exit_code);
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Waits for a container's end.
    #[track_caller]
    pub fn ended(&self, container: &str) -> ContainerStatus {
        eventually(LIMIT, || {
            let status = self.cri.container_status(container).expect("ContainerStatus");
            (status.state == container_state::EXITED).then_some(status)
        })
        .unwrap_or_else(|| panic!("{container} did not end"))
    }

    /// The pod's address.
    #[track_caller]
    #[must_use]
    pub fn address(&self) -> String {
        let (status, _) = self.cri.pod_status(&self.id).expect("PodSandboxStatus");
        status.network.expect("a network").ip
    }

    /// A container's log file.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        PathBuf::from(&self.config.log_directory).join(format!("{name}.log"))
    }

    /// Waits until a container's log holds `text`, and returns it.
    #[track_caller]
    pub fn logged(&self, name: &str, text: &str) -> String {
        let path = self.log(name);
        let read = || std::fs::read_to_string(&path).ok().filter(|log| log.contains(text));
        eventually(LIMIT, read).unwrap_or_else(|| {
            panic!("{text:?} is not in the log of {name}: {:?}", std::fs::read_to_string(&path))
        })
    }

    /// Stops and removes it; both must succeed.
    #[track_caller]
    pub fn remove(self) {
        self.cri.stop_pod(&self.id).unwrap_or_else(|error| panic!("StopPodSandbox: {error:?}"));
        self.cri.remove_pod(&self.id).unwrap_or_else(|error| panic!("RemovePodSandbox: {error:?}"));
    }
}
