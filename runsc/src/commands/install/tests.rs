//! Entries come and go, and everything else stays.

use super::{Entry, Way, containerd, docker};
use std::path::PathBuf;

fn entry(args: &[&str]) -> Entry {
    Entry {
        name: "gvisor-rs".into(),
        binary: PathBuf::from("/usr/local/bin/runsc"),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
    }
}

#[test]
fn docker_keeps_order_and_indent() {
    let before = "{\n  \"log-level\": \"warn\",\n  \"runtimes\": {\n    \"kata\": {\n      \"path\": \"/usr/bin/kata\"\n    }\n  },\n  \"debug\": true\n}\n";
    let after = docker::edit(before, &entry(&["--debug"]), Way::In).unwrap();
    let want = "{\n  \"log-level\": \"warn\",\n  \"runtimes\": {\n    \"kata\": {\n      \"path\": \"/usr/bin/kata\"\n    },\n    \"gvisor-rs\": {\n      \"path\": \"/usr/local/bin/runsc\",\n      \"runtimeArgs\": [\n        \"--debug\"\n      ]\n    }\n  },\n  \"debug\": true\n}\n";
    assert_eq!(after, want);
    assert_eq!(docker::edit(&after, &entry(&["--debug"]), Way::In).unwrap(), after, "twice is once");
    assert_eq!(docker::edit(&after, &entry(&[]), Way::Out).unwrap(), before);
    let fresh = docker::edit("", &entry(&[]), Way::In).unwrap();
    assert_eq!(docker::edit(&fresh, &entry(&[]), Way::Out).unwrap(), "{}\n");
}

#[test]
fn docker_says_what_is_wrong() {
    let fails = |text: &str, way| docker::edit(text, &entry(&[]), way).unwrap_err().message;
    assert!(fails("{\"runtimes\": ", Way::In).contains("malformed JSON"));
    assert!(fails("[]", Way::In).contains("not a JSON object"));
    assert!(fails("{\"runtimes\": []}", Way::In).contains("runtimes: must be a JSON object"));
    assert!(fails("{\"default-runtime\": \"gvisor-rs\"}", Way::Out).contains("choose another"));
}

#[test]
fn containerd_keeps_comments() {
    let before = "# ours\nversion = 2\n\n[plugins]\n  # the CRI plugin\n  [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n    snapshotter = \"native\" # no overlay here\n\n[debug]\n  level = \"info\"\n";
    let after = containerd::edit(before, &entry(&[]), Way::In).unwrap();
    for line in
        ["# ours", "# the CRI plugin", "snapshotter = \"native\" # no overlay here", "level = \"info\""]
    {
        assert!(after.contains(line), "{line:?} is gone:\n{after}");
    }
    let header = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.gvisor-rs]";
    assert!(after.contains(header), "{after}");
    assert!(after.contains("BinaryName = \"/usr/local/bin/runsc\""), "{after}");
    assert_eq!(containerd::edit(&after, &entry(&[]), Way::In).unwrap(), after, "twice is once");
    assert_eq!(containerd::edit(&after, &entry(&[]), Way::Out).unwrap(), before);
}

#[test]
fn containerd_versions() {
    let three = containerd::edit("version = 3\n", &entry(&[]), Way::In).unwrap();
    assert!(
        three.contains("[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.gvisor-rs]"),
        "{three}"
    );
    let none = containerd::edit("", &entry(&[]), Way::In).unwrap();
    assert!(none.starts_with("version = 2\n"), "{none}");
    let fails = |text: &str| containerd::edit(text, &entry(&[]), Way::In).unwrap_err().message;
    assert!(fails("[plugins.cri]\n").contains("config migrate"));
    assert!(fails("version = 9\n").contains("9 is not 2 or 3"));
    assert!(fails("version = 2\n[plugins\n").contains("malformed TOML: line 2"));
    assert!(fails("version = 2\nplugins = 5\n").contains("plugins: must be a table"));
}

#[test]
fn crio_drop_in() {
    let text = containerd::edit_crio("", &entry(&[]), Way::In).unwrap();
    assert!(text.starts_with("[crio.runtime.runtimes.gvisor-rs]\n"), "{text}");
    assert!(text.contains("runtime_path = \"/usr/local/bin/runsc\""), "{text}");
    assert_eq!(containerd::edit_crio(&text, &entry(&[]), Way::Out).unwrap(), "");
}
