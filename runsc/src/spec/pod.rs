//! Pods: which sandbox a container belongs to, by the annotations of containerd's CRI plugin and CRI-O (Podman
//! writes CRI-O's), or because the bundle names namespaces of another container of ours (`--network container:`).

use crate::container::{Record, Store};
use crate::error::Outcome;
use oci_spec::runtime::{Linux, LinuxNamespaceType};
use std::collections::BTreeMap;
use std::path::Path;

/// What the annotations say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A sandbox of its own.
    Root,
    /// One more container of this sandbox.
    Member(String),
}

/// Where a bundle belongs.
pub(crate) fn find(store: &Store, annotations: &BTreeMap<String, String>, linux: &Linux) -> Outcome<Place> {
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let paths = || namespaces.iter().filter_map(|namespace| namespace.path().as_deref());
    match place(annotations) {
        // A pod without a first container: nothing is shared but what the bundle has paths for.
        Place::Member(id)
            if store.peek(&id).is_err() && (paths().next().is_none() || has_no_sandbox(annotations)) =>
        {
            return Ok(Place::Root);
        }
        Place::Root => {}
        member => return Ok(member),
    }
    // The network of another container brings its kernel along; what shares another namespace with one is on
    // that kernel too, with a network of its own.
    let network = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Network);
    let pid = network.and_then(|network| owner(network.path().as_deref()?));
    let pid = pid.or_else(|| paths().find_map(owner));
    let Some(pid) = pid else { return Ok(Place::Root) };
    Ok(behind(store, pid)?.map_or(Place::Root, |record| Place::Member(record.sandbox)))
}

/// The container whose pid callers know as `pid`.
fn behind(store: &Store, pid: i32) -> Outcome<Option<Record>> {
    let is_owner =
        |record: &Record| record.monitor.is_some_and(|monitor| monitor.pid == pid && monitor.alive());
    Ok(store.list()?.into_iter().find(is_owner))
}

/// Which further container of a pod's sandbox has the pid namespace that a bundle names by path (a debugger's
/// container, beside the one that it looks at).
pub(crate) fn pid_target(store: &Store, place: &Place, linux: &Linux) -> Outcome<Option<String>> {
    let Place::Member(sandbox) = place else { return Ok(None) };
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    let pid = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Pid);
    let Some(pid) = pid.and_then(|pid| owner(pid.path().as_deref()?)) else { return Ok(None) };
    let is_further = |record: &Record| record.sandbox == *sandbox && !record.is_root();
    Ok(behind(store, pid)?.filter(is_further).map(|record| record.id))
}

/// The process in `/proc/PID/ns/NAME`.
pub(super) fn owner(path: &Path) -> Option<i32> {
    let mut parts = path.strip_prefix("/proc").ok()?.iter();
    let pid = parts.next()?.to_str()?.parse().ok()?;
    (parts.next()?.to_str() == Some("ns")).then_some(pid)
}

/// Annotations of the kind of a container and of its sandbox.
const KINDS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
];

/// Whether this may be a container of a pod that has no container to keep its namespaces: CRI-O makes none
/// (`drop_infra_ctr`) where nothing but a pid namespace would need one. Each of its containers has a sandbox of its
/// own then: none may take the others along when it ends. They meet in the pod's network namespace and volumes.
pub(crate) fn has_no_sandbox(annotations: &BTreeMap<String, String>) -> bool {
    let [_, (kind, _)] = KINDS;
    annotations.get(kind).is_some_and(|kind| kind == "container")
}

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

#[cfg(test)]
mod tests {
    use super::{Place, place};
    use std::collections::BTreeMap;

    fn of(pairs: &[(&str, &str)]) -> Place {
        let annotations: BTreeMap<_, _> =
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        place(&annotations)
    }

    #[test]
    fn containerd_and_crio_name_the_sandbox() {
        let member = Place::Member("pod1".to_owned());
        let kind = "io.kubernetes.cri.container-type";
        assert_eq!(of(&[(kind, "container"), ("io.kubernetes.cri.sandbox-id", "pod1")]), member);
        assert_eq!(of(&[(kind, "sandbox"), ("io.kubernetes.cri.sandbox-id", "pod1")]), Place::Root);
        let kind = "io.kubernetes.cri-o.ContainerType";
        assert_eq!(of(&[(kind, "container"), ("io.kubernetes.cri-o.SandboxID", "pod1")]), member);
        assert_eq!(of(&[(kind, "sandbox"), ("io.kubernetes.cri-o.SandboxID", "pod1")]), Place::Root);
    }

    #[test]
    fn everything_else_is_a_sandbox_of_its_own() {
        assert_eq!(of(&[]), Place::Root);
        assert_eq!(of(&[("io.kubernetes.cri.container-type", "container")]), Place::Root);
        assert_eq!(of(&[("io.kubernetes.cri.sandbox-id", "pod1")]), Place::Root);
        let mixed =
            [("io.kubernetes.cri.container-type", "container"), ("io.kubernetes.cri-o.SandboxID", "pod1")];
        assert_eq!(of(&mixed), Place::Root);
    }
}
