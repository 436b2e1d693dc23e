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

/// Reads the annotations.
pub(crate) fn place(annotations: &BTreeMap<String, String>) -> Place {
    let kinds = [
        ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
        ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
    ];
    for (kind, sandbox) in kinds {
        if annotations.get(kind).is_some_and(|kind| kind == "container")
            && let Some(sandbox) = annotations.get(sandbox)
        {
            return Place::Member(sandbox.clone());
        }
    }
    Place::Root
}
