//! Pods: which sandbox a container belongs to, by the annotations of containerd's CRI plugin and CRI-O.

use std::collections::BTreeMap;

/// What the annotations say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A sandbox of its own.
    Root,
    /// One more container of this sandbox.
    Member(String),
}

/// Annotations of the kind of a container and of its sandbox.
const KINDS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
];

/// Whether they name the sandbox of a pod.
pub(crate) fn is_sandbox(annotations: &BTreeMap<String, String>) -> bool {
    KINDS.iter().any(|(kind, _)| annotations.get(*kind).is_some_and(|kind| kind == "sandbox"))
}

/// Reads the annotations.
pub(crate) fn place(annotations: &BTreeMap<String, String>) -> Place {
    for (kind, sandbox) in KINDS {
        if annotations.get(kind).is_some_and(|kind| kind == "container")
            && let Some(sandbox) = annotations.get(sandbox)
        {
            return Place::Member(sandbox.clone());
        }
    }
    Place::Root
}
