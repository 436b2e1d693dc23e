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
