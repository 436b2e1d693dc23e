//! What a runtime refuses, and how: beside runc, which is the reference for the status; one line as text and
//! one as JSON in `--log`, and nothing left behind.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tests::bundle::{self, Bundle, MARK, set};
use tests::command::{self, Done};
use tests::processes::{all, words};
use tests::runsc;

const LIMIT: Duration = Duration::from_secs(60);

/// `run` of a bundle by a runtime, with a log.
fn run(program: &Path, bundle: &Bundle) -> Done {
    let mut command = Command::new(program);
    command.env(MARK, bundle.dir());
    command.arg("--root").arg(bundle.dir().join("state")).arg("--log").arg(bundle.dir().join("log"));
    command.args(["--log-format", "json", "run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
    command::run(command.current_dir(bundle.dir()), LIMIT)
}

/// Processes, mounts and state that name the bundle.
fn left(bundle: &Bundle) -> Vec<String> {
    let needle = bundle.dir().display().to_string();
    let mut found: Vec<String> = Vec::new();
    found.extend(all().into_iter().map(words).filter(|words| words.contains(&needle)));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    found.extend(mounts.lines().filter(|line| line.contains(&needle)).map(str::to_owned));
    let states = fs::read_dir(bundle.dir().join("state")).into_iter().flatten().flatten();
    found.extend(states.map(|entry| entry.path().display().to_string()));
    found
}

/// One line on standard error, one object in the log with the same words.
#[track_caller]
fn is_one_line(what: &str, bundle: &Bundle, done: &Done) {
    let lines: Vec<&str> = done.stderr.lines().collect();
    let [line] = lines.as_slice() else { panic!("{what}: not one line: {:?}", done.stderr) };
    let log = fs::read_to_string(bundle.dir().join("log")).unwrap_or_default();
    let entries: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let [entry] = entries.as_slice() else { panic!("{what}: not one entry: {log:?}") };
    let told = entry.get("msg").and_then(Value::as_str).unwrap_or_default();
    assert_eq!(entry.get("level"), Some(&json!("error")), "{what}");
    assert!(!told.is_empty() && line.ends_with(told), "{what}: {line:?} and {told:?}");
}

/// Runs the same bundle under runc and under ours.
#[track_caller]
fn beside_runc(what: &str, make: impl Fn() -> Bundle) {
    let [reference, ours] = [Path::new("runc"), runsc()].map(|program| {
        let bundle = make();
        let done = run(program, &bundle);
        assert_eq!(left(&bundle), Vec::<String>::new(), "{what}: left by {}", program.display());
        if program != Path::new("runc") && done.code() != 0 {
            is_one_line(what, &bundle, &done);
        }
        done
    });
    assert_eq!((ours.code(), &ours.stdout), (reference.code(), &reference.stdout), "{what}: {}", ours.stderr);
}

fn patched(patches: &[(&str, Value)]) -> Bundle {
    let (mut bundle, _) = bundle::beside_runc("exit 0");
    for (pointer, value) in patches {
        set(&mut bundle, pointer, value.clone());
    }
    bundle.write();
    bundle
}

#[test]
fn configurations_that_cannot_be_read() {
    for (what, text) in [
        ("no configuration", None),
        ("an empty one", Some("")),
        ("half of one", Some("{\"ociVersion\": \"1.0")),
        ("not an object", Some("[]")),
        ("an empty object", Some("{}")),
    ] {
        beside_runc(what, || {
            let (bundle, _) = bundle::beside_runc("exit 0");
            if let Some(text) = text {
                fs::write(bundle.dir().join("config.json"), text).expect("a file");
            }
            bundle
        });
    }
}

#[test]
fn values_that_are_refused() {
    let hook = |kind: &str, path: &str| json!({ kind: [{ "path": path }] });
    let seccomp = |value: Value| {
        let rule = json!([{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" }]);
        let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule });
        let (fields, more) = (profile.as_object_mut().expect("an object"), value);
        fields.extend(more.as_object().expect("an object").clone());
        profile
    };
    let list: Vec<(&str, Value)> = vec![
        ("/process/args", json!("x")),
        ("/process/args", json!([])),
        ("/process/args", json!(["/nope"])),
        ("/process/args", json!(["nope"])),
        ("/process/args", json!(["/etc"])),
        ("/process/cwd", json!("a/b")),
        ("/process/cwd", json!("")),
        ("/process/env", json!(["PATH=/bin", "A"])),
        ("/process/env", json!([])),
        ("/process/rlimits", json!([{ "type": "RLIMIT_FOO", "hard": 1, "soft": 1 }])),
        ("/process/rlimits", json!([{ "type": "RLIMIT_CORE", "hard": 1, "soft": 2 }])),
        ("/process/capabilities/effective", json!(["CAP_SYS_MODULE"])),
        ("/process/capabilities/inheritable", json!(["CAP_SYS_MODULE"])),
        ("/process/capabilities/bounding", json!(["CAP_NO_SUCH"])),
        ("/root", json!(null)),
        ("/root/path", json!("nope")),
        ("/root/path", json!("config.json")),
        ("/hooks", hook("prestart", "/nope")),
        ("/hooks", hook("createRuntime", "/bin/false")),
        ("/hooks", hook("createContainer", "/bin/false")),
        ("/hooks", hook("startContainer", "/nope")),
        ("/hooks", hook("poststop", "/bin/false")),
        ("/hooks", json!({ "prestart": [{ "path": "/bin/true", "timeout": 0 }] })),
        ("/linux/seccomp", seccomp(json!({ "defaultAction": "SCMP_ACT_FOO" }))),
        ("/linux/seccomp", seccomp(json!({ "architectures": ["SCMP_ARCH_FOO"] }))),
        ("/linux/seccomp", seccomp(json!({ "flags": ["FOO"] }))),
        (
            "/linux/seccomp",
            seccomp(json!({ "syscalls": [{ "names": ["execve"], "action": "SCMP_ACT_ERRNO" }] })),
        ),
        ("/linux/namespaces", json!([{ "type": "mount" }, { "type": "foo" }])),
        ("/linux/namespaces", json!([{ "type": "mount" }, { "type": "uts" }, { "type": "uts" }])),
        ("/linux/namespaces", json!([{ "type": "mount" }, { "type": "pid" }])),
        ("/linux/namespaces", json!([{ "type": "uts" }, { "type": "pid" }])),
        (
            "/linux/namespaces",
            json!([{ "type": "mount" }, { "type": "uts" }, { "type": "network", "path": "/nope" }]),
        ),
        ("/linux/namespaces", json!([{ "type": "mount" }, { "type": "uts" }, { "type": "user" }])),
        ("/linux/sysctl", json!({ "kernel.panic": "1" })),
        ("/linux/sysctl", json!({ "kernel.hostname": "x" })),
        ("/linux/sysctl", json!({ "foo.bar": "1" })),
        ("/linux/rootfsPropagation", json!("foo")),
        ("/linux/devices", json!([{ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 }])),
        ("/hostname", json!("x".repeat(100))),
    ];
    for (pointer, value) in list {
        beside_runc(&format!("{pointer}: {value}"), || patched(&[(pointer, value.clone())]));
    }
}

#[test]
fn mounts_that_are_refused() {
    let list = [
        json!({ "destination": "/x", "type": "foofs", "source": "foo" }),
        json!({ "destination": "/x", "type": "tmpfs", "source": "t", "options": ["frob"] }),
        json!({ "destination": "/x", "type": "bind", "source": "/nope", "options": ["bind"] }),
        json!({ "destination": "", "type": "tmpfs", "source": "t" }),
        json!({ "destination": "/file", "type": "tmpfs", "source": "t" }),
        json!({ "destination": "/file/x", "type": "tmpfs", "source": "t" }),
        json!({ "destination": "/etc", "type": "bind", "source": "/etc/hostname", "options": ["bind"] }),
        json!({ "destination": "/loop/x", "type": "tmpfs", "source": "t" }),
        // These two are mounted, inside.
        json!({ "destination": "/../../x", "type": "tmpfs", "source": "t" }),
        json!({ "destination": "/up/x", "type": "tmpfs", "source": "t" }),
    ];
    for mount in list {
        beside_runc(&mount.to_string(), || {
            let (mut bundle, root) = bundle::beside_runc("ls -d /x /up/x 2>/dev/null; exit 0");
            fs::write(root.join("file"), "").expect("a file");
            symlink("loop", root.join("loop")).expect("a link");
            symlink("../../../../gvisor-rs-outside", root.join("up")).expect("a link");
            let mounts = bundle.config.pointer_mut("/mounts").and_then(Value::as_array_mut);
            mounts.expect("mounts").push(mount.clone());
            bundle.write();
            bundle
        });
        assert!(!Path::new("/gvisor-rs-outside").exists());
    }
}

#[test]
fn programs_that_cannot_run() {
    let busybox = fs::read(tests::rootfs::busybox().join("bin/busybox")).expect("busybox");
    let mut foreign = busybox.clone();
    // e_machine: AArch64.
    foreign.splice(18..20, [0xb7, 0]);
    for (what, content, mode) in [
        ("another machine's", foreign, 0o755),
        ("cut short", busybox.get(..40).expect("a header").to_vec(), 0o755),
        ("empty", Vec::new(), 0o755),
        ("not executable", busybox, 0o644),
        ("a script whose interpreter is missing", b"#!/nope\n".to_vec(), 0o755),
        ("a script without an interpreter", b"#!\n".to_vec(), 0o755),
        ("text", b"echo hi\n".to_vec(), 0o755),
    ] {
        beside_runc(what, || {
            let (mut bundle, root) = bundle::beside_runc("");
            fs::write(root.join("program"), &content).expect("a program");
            fs::set_permissions(root.join("program"), fs::Permissions::from_mode(mode)).expect("a mode");
            set(&mut bundle, "/process/args", json!(["/program"]));
            bundle.write();
            bundle
        });
    }
}

#[test]
fn command_lines_that_are_refused() {
    let (bundle, _) = bundle::beside_runc("exit 0");
    bundle.write();
    let dir = bundle.dir().display().to_string();
    let nowhere = format!("{dir}/nowhere/pid");
    let lines: &[&[&str]] = &[
        &["run", "--bundle", &dir],
        &["run", "--bundle", &dir, "x", "y"],
        &["run", "--bundle", &nowhere, "x"],
        &["run", "--bundle", &dir, "../x"],
        &["run", "--bundle", &dir, "a/b"],
        &["run", "--bundle", &dir, ""],
        &["run", "--bundle", &dir, ".."],
        &["run", "--bundle", &dir, "--pid-file", &nowhere, "x"],
        &["run", "--bundle", &dir, "--console-socket", &nowhere, "x"],
        &["create", "--bundle", &dir, "--pid-file", &nowhere, "x"],
        &["run", "--frob", "x"],
        &["frob", "x"],
        &["state", "nobody"],
        &["start", "nobody"],
        &["kill", "nobody"],
        &["delete", "nobody"],
        &["delete", "--force", "nobody"],
        &["exec", "nobody", "true"],
        &["ps", "nobody"],
        &["pause", "nobody"],
        &["resume", "nobody"],
        &["events", "--stats", "nobody"],
        &["update", "--memory", "64M", "nobody"],
        &["checkpoint", "nobody"],
    ];
    for line in lines {
        let [reference, ours] = [Path::new("runc"), runsc()].map(|program| {
            let log = bundle.dir().join("log");
            let _ = fs::remove_file(&log);
            let mut command = Command::new(program);
            command.arg("--root").arg(bundle.dir().join("state")).arg("--log").arg(&log);
            let done = command::run(command.args(["--log-format", "json"]).args(*line), LIMIT);
            if program != Path::new("runc") && done.code() != 0 {
                is_one_line(&line.join(" "), &bundle, &done);
            }
            assert_eq!(left(&bundle), Vec::<String>::new(), "{line:?}: left by {}", program.display());
            done
        });
        assert_eq!(ours.code(), reference.code(), "{line:?}: {}", ours.stderr);
    }
}

#[test]
fn an_ordinary_user_is_told_what_is_not_allowed() {
    let (bundle, _) = bundle::beside_runc("exit 0");
    bundle.write();
    fs::set_permissions(bundle.dir(), fs::Permissions::from_mode(0o755)).expect("a mode");
    let config = bundle.dir().join("config.json");
    let as_nobody = |state: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(runsc());
        command.args(["--root", state, "run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
        command::run(&mut command, LIMIT)
    };
    let unwritable = as_nobody("/run/gvisor-rs-nobody");
    assert_eq!(unwritable.code(), 1, "{}", unwritable.stderr);
    assert!(unwritable.stderr.lines().count() == 1 && unwritable.stderr.contains("permission denied"));
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).expect("a mode");
    let unreadable = as_nobody("/tmp/gvisor-rs-nobody");
    assert_eq!(unreadable.code(), 1, "{}", unreadable.stderr);
    assert!(unreadable.stderr.lines().count() == 1 && unreadable.stderr.contains("permission denied"));
    let _ = fs::remove_dir_all("/tmp/gvisor-rs-nobody");
}
