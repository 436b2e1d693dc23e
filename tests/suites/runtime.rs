//! The command line: bad input, life cycle, exit statuses, what callers of an OCI runtime rely on.

use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tests::bundle::Bundle;
use tests::command::{self, Done};
use tests::{PLATFORMS, rootfs, runsc};

const LIMIT: Duration = Duration::from_secs(60);

fn busybox(args: &[&str]) -> Bundle {
    Bundle::new(rootfs::busybox(), args)
}

/// Runs a verb of a bundle's container.
fn verb(bundle: &Bundle, platform: &str, words: &[&str]) -> Done {
    let (verb, rest) = words.split_first().expect("a verb");
    command::run(bundle.runsc(platform, verb).args(rest), LIMIT)
}

/// A verb that leaves a process behind, which keeps the descriptors it was given.
#[track_caller]
fn detached(command: &mut Command) {
    use std::process::Stdio;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("runsc starts").success(), "{command:?}");
}

fn is_clean(bundle: &Bundle) -> bool {
    fs::read_dir(bundle.dir().join("state")).map_or(true, |mut entries| entries.next().is_none())
}

/// A failure: one line with `text`, the same as JSON in the log, `code`, and nothing left behind.
#[track_caller]
fn refused(bundle: &Bundle, code: i32, text: &str) {
    bundle.write();
    let log = bundle.dir().join("log.json");
    let mut run = Command::new(runsc());
    run.arg("--root").arg(bundle.dir().join("state")).arg("--log").arg(&log).args(["--log-format", "json"]);
    let done = command::run(run.args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id()), LIMIT);
    assert_eq!(done.code(), code, "stderr: {}", done.stderr);
    assert_eq!(done.stderr.lines().count(), 1, "stderr: {}", done.stderr);
    assert!(done.stderr.contains(text), "{text:?} is not in {:?}", done.stderr);
    let line = fs::read_to_string(&log).expect("a log");
    let entry: Value = serde_json::from_str(line.trim()).expect("one line of JSON");
    assert_eq!(entry.get("level"), Some(&json!("error")));
    assert!(entry.get("msg").and_then(Value::as_str).is_some_and(|msg| msg.contains(text)), "{entry}");
    assert!(is_clean(bundle), "something was left under --root");
}

#[test]
fn bad_configurations_name_their_field() {
    let change = |pointer: &str, value: Value| {
        let mut bundle = busybox(&["/bin/true"]);
        *bundle.config.pointer_mut(pointer).expect("a field") = value;
        bundle
    };
    refused(
        &change("/root/path", json!("/no/such/root")),
        1,
        "root.path: /no/such/root: no such file or directory",
    );
    refused(&change("/process/args", json!([])), 1, "process.args");
    refused(&change("/process/cwd", json!("relative")), 1, "process.cwd");
    refused(&change("/process/rlimits/0/type", json!("RLIMIT_NONSENSE")), 1, "process.rlimits[0].type");
    refused(&change("/linux/namespaces/0/type", json!("nonsense")), 1, "linux.namespaces[0].type");
}

#[test]
fn namespaces_of_the_host_are_not_joined() {
    let mut bundle = busybox(&["/bin/true"]);
    if let Some(namespace) = bundle.config.pointer_mut("/linux/namespaces/0") {
        *namespace = json!({ "type": "pid", "path": "/proc/self/ns/pid" });
    }
    refused(&bundle, 1, "linux.namespaces[0]: joining the pid namespace");
}

#[test]
fn a_container_of_a_pod_without_a_sandbox_container() {
    // CRI-O's way without an infra container: it keeps the namespaces itself and names them by path.
    let mut bundle = busybox(&["/bin/sh", "-c", "hostname; ls /bin/busybox"]);
    let own = |name: &str| format!("/proc/{}/ns/{name}", std::process::id());
    let set = |bundle: &mut Bundle, pointer: &str, value: Value| {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let parent = bundle.config.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        parent.insert(name.to_owned(), value);
    };
    let namespaces = json!([
        { "type": "pid" },
        { "type": "mount" },
        { "type": "network", "path": own("net") },
        { "type": "ipc", "path": own("ipc") },
        { "type": "uts", "path": own("uts") },
    ]);
    set(&mut bundle, "/linux/namespaces", namespaces);
    set(&mut bundle, "/hostname", json!("pod-name"));
    let annotations = json!({
        "io.kubernetes.cri-o.ContainerType": "container",
        "io.kubernetes.cri-o.SandboxID": "no-such-container",
    });
    set(&mut bundle, "/annotations", annotations);
    let done = command::run(&mut bundle.run("systrap"), LIMIT).expect_ok("run");
    assert_eq!(done.stdout, "pod-name\n/bin/busybox\n");
}

#[test]
fn malformed_and_missing_configurations() {
    let bundle = busybox(&["/bin/true"]);
    bundle.write();
    let run = |expect: &str| {
        let mut run = Command::new(runsc());
        run.arg("--root")
            .arg(bundle.dir().join("state"))
            .args(["run", "--bundle"])
            .arg(bundle.dir())
            .arg("x");
        let done = command::run(&mut run, LIMIT);
        assert_eq!(done.code(), 1);
        assert!(done.stderr.contains(expect), "{}", done.stderr);
        assert!(!done.stderr.contains("EOF"), "{}", done.stderr);
    };
    fs::write(bundle.dir().join("config.json"), "{\"ociVersion\": ").expect("config.json");
    run("malformed JSON: the file ends too early");
    fs::write(bundle.dir().join("config.json"), "{nonsense}").expect("config.json");
    run("malformed JSON");
    fs::remove_file(bundle.dir().join("config.json")).expect("config.json");
    run("not a bundle");
}

#[test]
fn programs_that_cannot_run() {
    refused(&busybox(&["/bin/no-such-program"]), 1, "no such file or directory");
    refused(&busybox(&["no-such-program"]), 1, "executable file not found");
    refused(&busybox(&["/etc/passwd"]), 1, "permission denied");
}

#[test]
fn life_of_a_container() {
    for platform in PLATFORMS {
        let bundle = busybox(&["/bin/sleep", "1000"]);
        let id = bundle.id();
        let pid_file = bundle.dir().join("pid");
        let mut create = bundle.runsc(platform, "create");
        create.arg("--bundle").arg(bundle.dir()).arg("--pid-file").arg(&pid_file).arg(id);
        // Its descriptors are the container's own from now on.
        detached(&mut create);
        let state = |want: &str| {
            let done = verb(&bundle, platform, &["state", id]).expect_ok("state");
            let state: Value = serde_json::from_str(&done.stdout).expect("JSON");
            assert_eq!(state.get("status"), Some(&json!(want)));
            state
        };
        let pid = state("created").get("pid").and_then(Value::as_i64).expect("a pid");
        assert_eq!(fs::read_to_string(&pid_file).expect("a pid-file"), pid.to_string());
        assert!(
            Path::new(&format!("/proc/{pid}/ns/net")).exists(),
            "the pid must be one a caller can look at"
        );
        let again = command::run(&mut create, LIMIT);
        assert!(again.code() == 1 && again.stderr.contains("already exists"), "{}", again.stderr);
        verb(&bundle, platform, &["start", id]).expect_ok("start");
        state("running");
        assert_eq!(verb(&bundle, platform, &["start", id]).code(), 1, "a second start");
        let early = verb(&bundle, platform, &["delete", id]);
        assert!(early.code() == 1 && early.stderr.contains("not stopped"), "{}", early.stderr);
        assert_eq!(verb(&bundle, platform, &["exec", id, "/bin/sh", "-c", "exit 9"]).code(), 9);
        let missing = verb(&bundle, platform, &["exec", id, "no-such-program"]);
        assert!(
            missing.code() == 127 && missing.stderr.contains("executable file not found"),
            "{}",
            missing.stderr
        );
        verb(&bundle, platform, &["kill", id, "KILL"]).expect_ok("kill");
        let end = std::time::Instant::now() + Duration::from_secs(5);
        while !verb(&bundle, platform, &["state", id]).stdout.contains("\"stopped\"") {
            assert!(std::time::Instant::now() < end, "{platform}: SIGKILL did not stop it");
        }
        let late = verb(&bundle, platform, &["kill", id, "TERM"]);
        assert!(late.code() == 1 && late.stderr.contains("container not running"), "{}", late.stderr);
        verb(&bundle, platform, &["delete", id]).expect_ok("delete");
        let gone = verb(&bundle, platform, &["state", id]);
        assert!(gone.code() == 1 && gone.stderr.contains("does not exist"), "{}", gone.stderr);
        verb(&bundle, platform, &["delete", "--force", id]).expect_ok("delete --force of nothing");
        assert!(is_clean(&bundle));
    }
}

#[test]
fn statuses_of_the_first_process() {
    for platform in PLATFORMS {
        let code =
            |script: &str| command::run(&mut busybox(&["/bin/sh", "-c", script]).run(platform), LIMIT).code();
        assert_eq!(code("exit 0"), 0);
        assert_eq!(code("exit 42"), 42);
        assert_eq!(code("sh -c 'kill -KILL $$'; exit $?"), 137);
        assert_eq!(code("sh -c 'kill -SEGV $$'; exit $?"), 139);
        // The first process of a pid namespace is deaf to its own signals.
        assert_eq!(code("kill -KILL $$; exit 4"), 4);
    }
}

#[test]
fn a_script_is_the_process() {
    use std::os::unix::fs::PermissionsExt;
    for platform in PLATFORMS {
        let bundle = busybox(&["/entry", "one", "two words"]);
        let script = bundle.dir().join("entry");
        fs::write(&script, "#!/bin/sh -u\nprintf '%s.' \"$0\" \"$@\"; echo $$; exit 5\n").expect("a script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
        let done = command::run(&mut bundle.bind(&script, "/entry", "ro").run(platform), LIMIT);
        assert_eq!((done.code(), done.stdout.as_str()), (5, "/entry.one.two words.1\n"), "{platform}");
    }
}

#[test]
fn an_attached_run_passes_signals_on() {
    for platform in PLATFORMS {
        let bundle = busybox(&[
            "/bin/sh",
            "-c",
            "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.1; done",
        ]);
        let mut child =
            bundle.run(platform).stdout(std::process::Stdio::piped()).spawn().expect("runsc starts");
        let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        std::io::BufRead::read_line(&mut output, &mut line).expect("a line");
        assert_eq!(line, "ready\n");
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::TERM,
        )
        .expect("kill");
        line.clear();
        std::io::BufRead::read_line(&mut output, &mut line).expect("a line");
        assert_eq!(line, "caught\n");
        assert_eq!(child.wait().expect("an end").code(), Some(3));
    }
}

#[test]
fn do_runs_over_the_hosts_root_and_changes_nothing() {
    for platform in PLATFORMS {
        let mut command = Command::new(runsc());
        command.arg(format!("--platform={platform}")).args(["do", "sh", "-c"]);
        let done =
            command::run(command.arg("echo changed > /etc/gvisor-rs-test && cat /etc/gvisor-rs-test"), LIMIT);
        assert_eq!(done.expect_ok("do").stdout, "changed\n");
        assert!(!Path::new("/etc/gvisor-rs-test").exists());
    }
}
