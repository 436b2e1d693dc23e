//! The record of one container.

use super::ProcessRef;
use crate::cgroup::Membership;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The specification this runtime follows.
pub(crate) const OCI_VERSION: &str = "1.2.0";

/// `status` of the runtime specification, and `paused`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Being made.
    Creating,
    /// Made.
    Created,
    /// Started.
    Running,
    /// Frozen.
    Paused,
    /// Ended.
    Stopped,
}

impl Status {
    /// As printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// `state.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Version of the specification.
    pub(crate) oci_version: String,
    /// Container id.
    pub(crate) id: String,
    /// Id of the sandbox it lives in: its own, or that of a pod's first container.
    pub(crate) sandbox: String,
    /// Absolute path of the bundle.
    pub(crate) bundle: PathBuf,
    /// Absolute path of the root file system.
    pub(crate) rootfs: PathBuf,
    /// RFC 3339.
    pub(crate) created: String,
    /// User who made it.
    pub(crate) owner: u32,
    /// Last status known; see [`Record::status`].
    pub(crate) last: Status,
    /// The process whose pid callers know.
    pub(crate) monitor: Option<ProcessRef>,
    /// The sentry.
    pub(crate) sentry: Option<ProcessRef>,
    /// The file server.
    pub(crate) gofer: Option<ProcessRef>,
    /// Annotations of the bundle.
    pub(crate) annotations: BTreeMap<String, String>,
    /// The first process, from which exec takes what it is not told.
    pub(crate) process: oci_spec::runtime::Process,
    /// Host cgroups.
    pub(crate) cgroup: Option<Membership>,
    /// `linux.resources`, as `update` has changed them.
    #[serde(default)]
    pub(crate) resources: Option<oci_spec::runtime::LinuxResources>,
    /// Hooks to run once it is deleted.
    pub(crate) hooks: Option<oci_spec::runtime::Hooks>,
}

impl Record {
    /// The status as it is now.
    pub(crate) fn status(&self) -> Status {
        let alive = self.monitor.is_some_and(ProcessRef::alive) && self.sentry.is_some_and(ProcessRef::alive);
        match self.last {
            Status::Creating if self.monitor.is_none() => Status::Creating,
            _ if !alive => Status::Stopped,
            last => last,
        }
    }

    /// Pid that callers see; 0 once it has ended.
    pub(crate) fn pid(&self) -> i32 {
        match (self.status(), self.monitor) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(monitor)) => monitor.pid,
        }
    }

    /// Whether the sandbox is its own.
    pub(crate) fn is_root(&self) -> bool {
        self.id == self.sandbox
    }

    /// `state` of the runtime specification, with runc's extra fields.
    pub(crate) fn state_json(&self) -> serde_json::Value {
        let mut state = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "pid": self.pid(),
            "status": self.status(),
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created,
            "owner": owner_name(self.owner),
        });
        if let (Some(object), false) = (state.as_object_mut(), self.annotations.is_empty()) {
            object.insert("annotations".into(), serde_json::json!(self.annotations));
        }
        state
    }

    /// The state a hook reads on its standard input.
    pub(crate) fn hook_state(&self, status: Status) -> serde_json::Value {
        serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "pid": self.monitor.filter(|_| status != Status::Stopped).map_or(0, |monitor| monitor.pid),
            "status": status,
            "bundle": self.bundle,
            "annotations": self.annotations,
        })
    }
}

/// A user's name from /etc/passwd, or `#UID`.
pub(crate) fn owner_name(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    for line in users.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(_), Some(id)) = (fields.next(), fields.next(), fields.next())
            && id.parse() == Ok(uid)
        {
            return name.to_owned();
        }
    }
    format!("#{uid}")
}
