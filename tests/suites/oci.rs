//! What a bundle asks for, as runtime-tools would look at it: freezing, seccomp, hooks, where writes go.

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::bundle::{Bundle, beside_runc, own_root, set, shell};
use tests::command::{self, Done};
use tests::{PLATFORMS, runsc};

const LIMIT: Duration = Duration::from_secs(60);

fn verb(bundle: &Bundle, platform: &str, words: &[&str]) -> Done {
    let (verb, rest) = words.split_first().expect("a verb");
    command::run(bundle.runsc(platform, verb).args(rest), LIMIT)
}

fn run(bundle: &Bundle) -> Done {
    command::run(&mut bundle.run("systrap"), LIMIT)
}

/// `run --detach` or `create`; whoever is left keeps the descriptors.
#[track_caller]
fn detached(bundle: &Bundle, platform: &str, words: &[&str]) {
    let (verb, rest) = words.split_first().expect("a verb");
    let mut command = bundle.runsc(platform, verb);
    command.args(rest).arg("--bundle").arg(bundle.dir()).arg(bundle.id());
    let errors = fs::File::create(bundle.dir().join("errors")).expect("a file");
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).status();
    let told = fs::read_to_string(bundle.dir().join("errors")).unwrap_or_default();
    assert!(status.expect("runsc starts").success(), "{words:?}: {told}");
}

fn status(bundle: &Bundle) -> String {
    let done = verb(bundle, "systrap", &["state", bundle.id()]).expect_ok("state");
    let state: Value = serde_json::from_str(&done.stdout).expect("JSON");
    state.get("status").and_then(Value::as_str).expect("a status").to_owned()
}

/// Looks again until `holds` does.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn number(path: &Path) -> u64 {
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Nanoseconds that the sentry of a container has run.
fn sentry_time(bundle: &Bundle) -> u64 {
    let state =
        fs::read_to_string(bundle.dir().join("state").join(bundle.id()).join("state.json")).expect("state");
    let state: Value = serde_json::from_str(&state).expect("JSON");
    let pid = state.pointer("/sentry/pid").and_then(Value::as_i64).expect("a pid");
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a sentry");
    let time = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.flatten().map(time).sum()
}

#[test]
fn a_paused_container_does_nothing() {
    for platform in PLATFORMS {
        // One counts in the guest's shell, one spins without a call, one sleeps between children.
        let script = "(while :; do :; done) & (while :; do /bin/true; done) & \
            i=0; while :; do i=$((i+1)); echo $i > /out/n; usleep 2000; done";
        let mut bundle = shell(script);
        let out = bundle.dir().join("out");
        fs::create_dir(&out).expect("a folder");
        bundle = bundle.bind(&out, "/out", "rw");
        let counter = out.join("n");
        detached(&bundle, platform, &["run", "--detach"]);
        eventually("the guest counts", || number(&counter) > 3);
        verb(&bundle, platform, &["pause", bundle.id()]).expect_ok("pause");
        assert_eq!(status(&bundle), "paused");
        let (count, time) = (number(&counter), sentry_time(&bundle));
        std::thread::sleep(Duration::from_millis(400));
        assert_eq!(number(&counter), count, "{platform}: a paused guest counts");
        let spent = sentry_time(&bundle) - time;
        assert!(spent < 5_000_000, "{platform}: the sentry of a paused container ran {spent} ns");
        let refused = verb(&bundle, platform, &["exec", bundle.id(), "/bin/true"]);
        assert!(refused.code() == 255 && refused.stderr.contains("paused container"), "{}", refused.stderr);
        let refused = verb(&bundle, platform, &["delete", bundle.id()]);
        assert!(refused.code() == 1 && refused.stderr.contains("not stopped"), "{}", refused.stderr);
        let refused = verb(&bundle, platform, &["pause", bundle.id()]);
        assert!(
            refused.code() == 1 && refused.stderr.contains("container not running"),
            "{}",
            refused.stderr
        );
        verb(&bundle, platform, &["resume", bundle.id()]).expect_ok("resume");
        assert_eq!(status(&bundle), "running");
        eventually("the guest counts on", || number(&counter) > count + 3);
        let refused = verb(&bundle, platform, &["resume", bundle.id()]);
        assert!(refused.code() == 1 && refused.stderr.contains("container not paused"), "{}", refused.stderr);
        verb(&bundle, platform, &["pause", bundle.id()]).expect_ok("pause");
        verb(&bundle, platform, &["kill", bundle.id(), "TERM"]).expect_ok("kill TERM of a paused container");
        verb(&bundle, platform, &["kill", bundle.id(), "KILL"]).expect_ok("kill KILL of a paused container");
        eventually("SIGKILL ends a paused container", || status(&bundle) == "stopped");
        verb(&bundle, platform, &["delete", bundle.id()]).expect_ok("delete");
    }
}

#[test]
fn a_created_container_can_be_paused() {
    let bundle = shell("exit 3");
    detached(&bundle, "systrap", &["create"]);
    verb(&bundle, "systrap", &["pause", bundle.id()]).expect_ok("pause");
    let refused = verb(&bundle, "systrap", &["start", bundle.id()]);
    assert!(refused.code() == 1 && refused.stderr.contains("paused state"), "{}", refused.stderr);
    verb(&bundle, "systrap", &["resume", bundle.id()]).expect_ok("resume");
    assert_eq!(status(&bundle), "created");
    verb(&bundle, "systrap", &["pause", bundle.id()]).expect_ok("pause");
    verb(&bundle, "systrap", &["delete", "--force", bundle.id()]).expect_ok("delete --force");
}

#[test]
fn the_profile_of_the_bundle_holds() {
    let script = "mkdir /tmp/x || echo refused; grep Seccomp /proc/self/status; \
        chown 7 /tmp && echo chowned; chown 8 /tmp || echo not 8; hostname x; echo $?; sethostname";
    let mut bundle = shell(script);
    set(
        &mut bundle,
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
                {"names": ["chown", "lchown"], "action": "SCMP_ACT_ERRNO",
                 "args": [{"index": 1, "op": "SCMP_CMP_EQ", "value": 8}]},
                {"names": ["fchownat"], "action": "SCMP_ACT_ERRNO",
                 "args": [{"index": 2, "op": "SCMP_CMP_EQ", "value": 8}]},
                {"names": ["sethostname"], "action": "SCMP_ACT_KILL_PROCESS"},
            ],
        }),
    );
    for platform in PLATFORMS {
        let done = command::run(&mut bundle.run(platform), LIMIT);
        assert!(
            done.stderr.contains("Input/output error") || done.stderr.contains("I/O error"),
            "{}",
            done.stderr
        );
        for line in ["refused", "Seccomp:\t2", "Seccomp_filters:\t1", "chowned", "not 8", "159"] {
            assert!(
                done.stdout.lines().any(|got| got == line),
                "{platform}: no {line:?} in\n{}{}",
                done.stdout,
                done.stderr
            );
        }
    }
}

#[test]
fn an_exec_is_under_the_profile() {
    let mut bundle = shell("sleep 1000");
    let rule = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}]);
    set(&mut bundle, "/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule}));
    detached(&bundle, "systrap", &["run", "--detach"]);
    let done = verb(&bundle, "systrap", &["exec", bundle.id(), "/bin/mkdir", "/tmp/x"]);
    assert!(done.code() == 1 && done.stderr.to_lowercase().contains("error"), "{}", done.stderr);
}

#[test]
fn profiles_that_cannot_be_kept_are_refused() {
    let mut bundle = shell("true");
    set(
        &mut bundle,
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}),
    );
    let done = run(&bundle);
    let words = "linux.seccomp.syscalls[0].action: SCMP_ACT_NOTIFY is not supported";
    assert!(done.code() == 1 && done.stderr.contains(words), "{}", done.stderr);
    set(
        &mut bundle,
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_WHAT"}]}),
    );
    let done = run(&bundle);
    assert!(done.code() == 1 && done.stderr.contains("linux.seccomp.syscalls[0].action"), "{}", done.stderr);
}

/// A program of the host that adds a line with its name, the status it read and its environment to `log`.
fn hook(bundle: &Bundle, log: &Path, name: &str, end: &str) -> Value {
    let path = bundle.dir().join(format!("hook-{name}"));
    let text = format!(
        "#!/bin/sh\nstate=$(cat)\nstatus=$(echo \"$state\" | sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/')\n\
         id=$(echo \"$state\" | sed 's/.*\"id\":\"\\([^\"]*\\)\".*/\\1/')\n\
         echo \"{name} $0 $status $id $MARK\" >> {}\n{end}\n",
        log.display()
    );
    fs::write(&path, text).expect("a hook");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    json!({"path": path, "args": ["called", "x"], "env": [format!("MARK={name}"), "PATH=/usr/bin:/bin"]})
}

#[test]
fn hooks_run_in_their_order() {
    let mut bundle = shell("cat /tmp/inside; echo program");
    let log = bundle.dir().join("log");
    let mut hooks = serde_json::Map::new();
    for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        let first = hook(&bundle, &log, name, "exit 0");
        hooks.insert(name.to_owned(), json!([first, first]));
    }
    let inside = json!({"path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/inside; echo \" $X\" >> /tmp/inside"],
        "env": ["X=mark", "PATH=/bin"]});
    hooks.insert("startContainer".to_owned(), json!([inside]));
    set(&mut bundle, "/hooks", Value::Object(hooks));
    let id = bundle.id().to_owned();
    let line = |name: &str, status: &str| {
        format!("{name} {} {status} {id} {name}\n", bundle.dir().join(format!("hook-{name}")).display())
    };
    let creation: String = ["prestart", "createRuntime", "createContainer"]
        .map(|name| format!("{0}{0}", line(name, "creating")))
        .concat();
    detached(&bundle, "systrap", &["create"]);
    assert_eq!(fs::read_to_string(&log).expect("a log"), creation);
    verb(&bundle, "systrap", &["start", &id]).expect_ok("start");
    eventually("it ends", || status(&bundle) == "stopped");
    let started = format!("{creation}{0}{0}", line("poststart", "running"));
    assert_eq!(fs::read_to_string(&log).expect("a log"), started);
    verb(&bundle, "systrap", &["delete", &id]).expect_ok("delete");
    let ended = format!("{started}{0}{0}", line("poststop", "stopped"));
    assert_eq!(fs::read_to_string(&log).expect("a log"), ended);
    let done = run(&bundle).expect_ok("run");
    let mut lines = done.stdout.lines();
    let state = lines.next().unwrap_or_default();
    assert!(state.contains("\"status\":\"created\"") && state.ends_with(" mark"), "{}", done.stdout);
    assert_eq!(lines.next(), Some("program"));
}

#[test]
fn hooks_that_fail() {
    for (name, code) in [
        ("prestart", 1),
        ("createRuntime", 1),
        ("createContainer", 1),
        ("startContainer", 1),
        ("poststart", 0),
    ] {
        let mut bundle = shell("echo program");
        let log = bundle.dir().join("log");
        let stop = hook(&bundle, &log, "poststop", "exit 1");
        let failing = match name {
            "startContainer" => json!({"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 9"]}),
            _ => hook(&bundle, &log, name, "echo why >&2; exit 9"),
        };
        let later = hook(&bundle, &log, "later", "");
        set(&mut bundle, "/hooks", json!({name: [failing, later], "poststop": [stop, stop]}));
        let done = run(&bundle);
        assert_eq!(done.code(), code, "{name}: {}", done.stderr);
        assert_eq!(done.stdout.contains("program"), code == 0, "{name}: {}", done.stdout);
        let words = format!("error running {name} hook #0");
        assert!(done.stderr.contains(&words) && done.stderr.contains("9, output: why"), "{}", done.stderr);
        let told = fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(told.contains("later "), name == "poststart", "{name}: {told}");
        assert_eq!(told.lines().filter(|line| line.starts_with("poststop ")).count(), 2, "{name}: {told}");
        let left = fs::read_dir(bundle.dir().join("state")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{name}: state was left");
    }
}

#[test]
fn hooks_that_take_too_long() {
    let mut bundle = shell("echo program");
    let log = bundle.dir().join("log");
    let mut slow = hook(&bundle, &log, "prestart", "exec sleep 100");
    slow.as_object_mut().expect("an object").insert("timeout".to_owned(), json!(1));
    set(&mut bundle, "/hooks", json!({"prestart": [slow]}));
    let done = run(&bundle);
    assert!(done.code() == 1 && done.stderr.contains("timeout of 1 s"), "{}", done.stderr);
    let slow = json!({"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1});
    set(&mut bundle, "/hooks", json!({"startContainer": [slow]}));
    let done = run(&bundle);
    assert!(done.code() == 1 && done.stderr.contains("timeout of 1 s"), "{}", done.stderr);
}

#[test]
fn writes_reach_the_root_file_system() {
    let script = "echo new > /new; chown 5:6 /new; chmod 640 /new; rm /etc/passwd; mkdir -p /a/b; mkfifo /a/pipe; \
        ln -s b /a/link; (echo through > /a/pipe &); cat /a/pipe; grep -c . /proc/mounts > /dev/null; echo done";
    let (mut bundle, root) = own_root(script);
    let mounts = bundle.config.pointer_mut("/mounts").and_then(Value::as_array_mut).expect("mounts");
    mounts.push(json!({"destination": "/made/by/us", "type": "tmpfs", "source": "tmpfs"}));
    let done = run(&bundle).expect_ok("run");
    assert_eq!(done.stdout, "through\ndone\n");
    let meta = fs::metadata(root.join("new")).expect("a new file");
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (5, 6, 0o640));
    assert_eq!(fs::read_to_string(root.join("new")).expect("a file"), "new\n");
    assert!(
        !root.join("etc/passwd").exists() && root.join("a/b").is_dir() && root.join("made/by/us").is_dir()
    );
    assert_eq!(fs::read_link(root.join("a/link")).expect("a link"), Path::new("b"));
    // What one container left is there for the next.
    set(&mut bundle, "/process/args", json!(["/bin/cat", "/new"]));
    assert_eq!(run(&bundle).expect_ok("run").stdout, "new\n");
}

#[test]
fn an_overlay_keeps_the_root_file_system() {
    let (mut bundle, root) = own_root("echo new > /new && rm /etc/passwd && cat /new; echo $?");
    set(&mut bundle, "/annotations", json!({"io.gvisor-rs.overlay2": "root:memory"}));
    assert_eq!(run(&bundle).expect_ok("run").stdout, "new\n0\n");
    assert!(!root.join("new").exists() && root.join("etc/passwd").exists());
    // A read-only root: mount points are made, and not in the bundle.
    set(&mut bundle, "/annotations", json!({}));
    set(&mut bundle, "/root/readonly", json!(true));
    let mounts = bundle.config.pointer_mut("/mounts").and_then(Value::as_array_mut).expect("mounts");
    mounts.push(json!({"destination": "/made/here", "type": "tmpfs", "source": "tmpfs"}));
    set(
        &mut bundle,
        "/process/args",
        json!(["/bin/sh", "-c", "echo > /new; echo $?; echo x > /made/here/x; echo $?"]),
    );
    let done = run(&bundle).expect_ok("run");
    assert_eq!(done.stdout, "1\n0\n", "{}", done.stderr);
    assert!(done.stderr.contains("Read-only file system"), "{}", done.stderr);
    assert!(!root.join("made").exists());
    // An annotation may only tighten.
    set(&mut bundle, "/annotations", json!({"io.gvisor-rs.overlay2": "none"}));
    bundle.write();
    let mut loose = Command::new(runsc());
    loose.arg("--root").arg(bundle.dir().join("state")).args(["--overlay2=root:memory", "run", "--bundle"]);
    let done = command::run(loose.arg(bundle.dir()).arg(bundle.id()), LIMIT);
    assert!(done.code() == 1 && done.stderr.contains("lets more through"), "{}", done.stderr);
}

#[test]
fn all_writes_can_be_kept_in_memory() {
    let (mut bundle, root) = own_root("echo x > /new; echo y > /out/new; cat /new /out/new");
    let out = bundle.dir().join("out");
    fs::create_dir(&out).expect("a folder");
    bundle = bundle.bind(&out, "/out", "rw");
    set(&mut bundle, "/annotations", json!({"io.gvisor-rs.overlay2": "all:memory"}));
    assert_eq!(run(&bundle).expect_ok("run").stdout, "x\ny\n");
    assert!(!root.join("new").exists() && !out.join("new").exists());
}

#[test]
fn an_exec_sees_what_was_copied_in() {
    let (bundle, root) = own_root("ls / /etc > /dev/null; test -e /etc/new; sleep 1000");
    detached(&bundle, "systrap", &["run", "--detach"]);
    let look = |name: &str| verb(&bundle, "systrap", &["exec", bundle.id(), "/bin/cat", name]);
    assert_eq!(look("/etc/new").code(), 1);
    assert_eq!(look("/top").code(), 1);
    fs::write(root.join("etc/new"), "copied\n").expect("a file");
    fs::write(root.join("top"), "copied\n").expect("a file");
    assert_eq!(look("/etc/new").expect_ok("cat").stdout, "copied\n");
    assert_eq!(look("/top").expect_ok("cat").stdout, "copied\n");
    let list = verb(&bundle, "systrap", &["exec", bundle.id(), "/bin/ls", "/etc"]);
    assert!(list.stdout.lines().any(|line| line == "new"), "{}", list.stdout);
}

/// Runs the same bundle under runc and under ours, twice on ours.
#[track_caller]
fn as_under_runc(what: &str, make: impl Fn() -> Bundle) -> String {
    let bundle = make();
    bundle.write();
    let mut reference = Command::new("runc");
    reference.arg("--root").arg(bundle.dir().join("state")).args(["run", "--bundle"]);
    let reference = command::run(reference.arg(bundle.dir()).arg(bundle.id()), LIMIT);
    for platform in PLATFORMS {
        let ours = command::run(&mut make().run(platform), LIMIT);
        assert_eq!(
            (&ours.stdout, ours.code()),
            (&reference.stdout, reference.code()),
            "{what} on {platform}: {}, {}",
            reference.stderr,
            ours.stderr
        );
    }
    reference.stdout
}

#[test]
fn credentials_of_the_first_program() {
    let user = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27});
    let kill = json!(["CAP_KILL"]);
    let list: &[(&str, &[(&str, Value)])] = &[
        ("root", &[]),
        ("root with few", &[("/process/capabilities/effective", kill.clone())]),
        (
            "root who may gain none",
            &[
                ("/process/capabilities/effective", kill.clone()),
                ("/process/capabilities/permitted", kill.clone()),
                ("/process/noNewPrivileges", json!(true)),
            ],
        ),
        ("a user", &[("/process/user", user.clone())]),
        (
            "a user with ambient ones",
            &[
                ("/process/user", user.clone()),
                ("/process/capabilities/inheritable", kill.clone()),
                ("/process/capabilities/ambient", kill.clone()),
            ],
        ),
        (
            "a user with inheritable ones",
            &[("/process/user", user.clone()), ("/process/capabilities/inheritable", kill.clone())],
        ),
        ("a user without any", &[("/process/user", user.clone()), ("/process/capabilities", json!({}))]),
    ];
    for (what, patches) in list {
        as_under_runc(what, || {
            let (mut bundle, _) = beside_runc("");
            let words = ["/bin/grep", "-E", "Cap|Uid|Gid|Groups|NoNew|Umask", "/proc/self/status"];
            set(&mut bundle, "/process/args", json!(words));
            for (pointer, value) in *patches {
                set(&mut bundle, pointer, value.clone());
            }
            bundle
        });
    }
}

#[test]
fn capabilities_of_files() {
    for (caps, no_new_privs) in
        [("cap_kill,cap_chown+ep", false), ("cap_kill,cap_chown+ep", true), ("cap_kill+p", false)]
    {
        let make = || {
            let (mut bundle, root) = beside_runc("");
            let done =
                Command::new("setcap").arg(caps).arg(root.join("bin/busybox")).status().expect("setcap");
            assert!(done.success());
            let words = ["/bin/busybox", "grep", "-E", "Cap|Uid", "/proc/self/status"];
            set(&mut bundle, "/process/args", json!(words));
            set(&mut bundle, "/process/user", json!({"uid": 1000, "gid": 1000}));
            set(&mut bundle, "/process/noNewPrivileges", json!(no_new_privs));
            bundle
        };
        let said = as_under_runc(caps, make);
        assert!(!said.contains("CapPrm:\t0000000000000000"), "{said}");
    }
}

#[test]
fn environment_and_working_directory() {
    let show = "env | sort; pwd";
    let list: &[(&str, Value)] = &[
        ("/process/env", json!(["PATH=/bin", "A=1", "B=2", "A=3", "HOME="])),
        ("/process/cwd", json!("/made/by/the/runtime")),
        ("/process/cwd", json!("/root/secret")),
        ("/process/oomScoreAdj", json!(77)),
    ];
    for (pointer, value) in list {
        as_under_runc(pointer, || {
            let (mut bundle, root) = beside_runc(&format!("{show}; cat /proc/self/oom_score_adj"));
            fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700)).expect("a mode");
            set(&mut bundle, "/process/user", json!({"uid": 1000, "gid": 1000}));
            set(&mut bundle, pointer, value.clone());
            bundle
        });
    }
}

#[test]
fn a_program_that_the_profile_denies_does_not_start() {
    let profile = |action: &str| {
        let rule = json!([{"names": ["execve"], "action": action}]);
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule})
    };
    for action in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL_PROCESS"] {
        let mut bundle = shell("echo ran");
        set(&mut bundle, "/linux/seccomp", profile(action));
        detached(&bundle, "systrap", &["create"]);
        let refused = verb(&bundle, "systrap", &["start", bundle.id()]);
        assert!(refused.code() == 1 && refused.stderr.contains("exec "), "{action}: {}", refused.stderr);
        eventually("it has stopped", || status(&bundle) == "stopped");
        verb(&bundle, "systrap", &["delete", bundle.id()]).expect_ok("delete");
        let done = run(&bundle);
        assert!(done.code() == 1 && done.stdout.is_empty(), "{action}: {}", done.stdout);
    }
}

#[test]
fn ps_has_the_columns_that_are_asked_for() {
    let bundle = shell("sleep 1000 & sleep 1000; true");
    detached(&bundle, "systrap", &["run", "--detach"]);
    let ps = |options: &[&str]| {
        let words = [&["ps", bundle.id()], options].concat();
        verb(&bundle, "systrap", &words).expect_ok("ps").stdout
    };
    eventually("three processes", || ps(&["-o", "pid="]).lines().count() == 3);
    assert_eq!(ps(&["-o", "pid=,ppid=,comm="]).lines().next().map(str::trim_start), Some("1       0 sh"));
    assert!(ps(&[]).starts_with("UID"), "{}", ps(&[]));
    assert!(ps(&["aux"]).lines().any(|line| line.ends_with("sleep 1000")), "{}", ps(&["aux"]));
    let unknown = verb(&bundle, "systrap", &["ps", bundle.id(), "-o", "nonsense"]);
    assert_eq!(unknown.code(), 1);
    verb(&bundle, "systrap", &["delete", "--force", bundle.id()]).expect_ok("delete");
}

#[test]
fn what_hooks_set_up_is_there_for_an_attached_run() {
    // A hook gives the namespace of the pid an address of its own; it runs in the runtime's.
    let mut bundle = shell("cat /proc/net/dev");
    let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
    let script = format!(
        "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); test \"$(readlink /proc/self/ns/net)\" = '{}' && \
         nsenter -t $pid -n ip link add hooked type bridge && nsenter -t $pid -n ip link set hooked up",
        own.display()
    );
    set(&mut bundle, "/hooks", json!({"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}));
    let done = run(&bundle).expect_ok("run");
    assert!(done.stdout.contains("hooked:") && done.stdout.contains("lo:"), "{}", done.stdout);
}

#[test]
fn the_monitor_shows_what_it_stands_for() {
    let bundle = shell("sleep 1000; true");
    detached(&bundle, "systrap", &["run", "--detach"]);
    let state = verb(&bundle, "systrap", &["state", bundle.id()]).stdout;
    let state: Value = serde_json::from_str(&state).expect("JSON");
    let pid = state.get("pid").and_then(Value::as_i64).expect("a pid");
    let line = fs::read(format!("/proc/{pid}/cmdline")).expect("a command line");
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    assert_eq!(line.trim_end(), "/bin/sh -c sleep 1000; true");
    // Readers that use sendfile see its /proc as well.
    let pid = pid.to_string();
    let words = ["-m", "-t", &pid, "/bin/busybox", "cat", "/proc/1/comm"];
    let told = command::run(Command::new("nsenter").args(words), LIMIT).expect_ok("nsenter");
    assert_eq!(told.stdout, "sh\n");
    verb(&bundle, "systrap", &["delete", "--force", bundle.id()]).expect_ok("delete");
}
