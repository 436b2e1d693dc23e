//! Every verb of `ctr task` with the stock runc.v2 shim.

use containerd_tests::daemon::{Daemon, eventually};
use containerd_tests::image::BUSYBOX;
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::command::{self, Done};

const LIMIT: Duration = Duration::from_secs(60);
const LOOP: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done";

/// `ctr` with its own end: a task that does not end does not hang the suite.
fn ctr(daemon: &Daemon, words: &[&str]) -> Done {
    command::run(&mut daemon.ctr(words), LIMIT)
}

/// `ctr run` of a busybox command in the runtime under test.
fn run_command(daemon: &Daemon, flags: &[&str], id: &str, words: &[&str]) -> Command {
    let mut command = daemon.ctr(&["run", "--runc-binary"]);
    command.arg(tests::runsc()).arg("--runc-root").arg(daemon.dir().join("runtimes/ours"));
    command.args(["--cgroup", &format!("/{}/{id}", daemon.name())]);
    command.args(flags).args([BUSYBOX, id]).args(words);
    command
}

fn run(daemon: &Daemon, flags: &[&str], id: &str, words: &[&str]) -> Done {
    command::run(&mut run_command(daemon, flags, id, words), LIMIT)
}

/// The STATUS column of `ctr task ls`.
fn status(daemon: &Daemon, id: &str) -> String {
    let list = ctr(daemon, &["task", "ls"]).expect_ok("task ls").stdout;
    let row = list.lines().find(|line| line.split_whitespace().next() == Some(id)).unwrap_or_default();
    row.split_whitespace().nth(2).unwrap_or_default().to_owned()
}

#[track_caller]
fn reaches(daemon: &Daemon, id: &str, want: &str) {
    let seen = eventually(Duration::from_secs(10), || (status(daemon, id) == want).then_some(()));
    assert!(seen.is_some(), "{id} is {:?}, not {want}", status(daemon, id));
}

#[test]
fn run_in_front() {
    let daemon = Daemon::start();
    let done = run(&daemon, &["--rm"], "c-echo", &["echo", "hello"]).expect_ok("run");
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("hello\n", ""));
    assert_eq!(run(&daemon, &["--rm"], "c-seven", &["/bin/sh", "-c", "exit 7"]).code(), 7);
    // The first process of a pid namespace cannot kill itself.
    assert_eq!(run(&daemon, &["--rm"], "c-first", &["/bin/sh", "-c", "kill -9 $$; exit 6"]).code(), 6);
    let big = run(&daemon, &["--rm"], "c-big", &["seq", "1", "300000"]).expect_ok("run");
    assert_eq!(big.stdout.lines().count(), 300_000);
    assert!(big.stdout.ends_with("\n300000\n"));
    let both =
        run(&daemon, &["--rm"], "c-both", &["/bin/sh", "-c", "echo out; echo err >&2"]).expect_ok("run");
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    let mut piped = run_command(&daemon, &["--rm"], "c-piped", &["head", "-n", "2"]);
    let piped = command::run_with_input(&mut piped, b"one\ntwo\n", LIMIT).expect_ok("run");
    assert_eq!(piped.stdout, "one\ntwo\n");
    let missing = run(&daemon, &["--rm"], "c-missing", &["no-such-program"]);
    assert!(
        missing.code() != 0 && missing.stderr.contains("executable file not found"),
        "{}",
        missing.stderr
    );
    let words = ["/bin/sh", "-c", "echo $A $PWD"];
    let env = run(&daemon, &["--rm", "--env", "A=b", "--cwd", "/tmp"], "c-env", &words).expect_ok("run");
    assert_eq!(env.stdout, "b /tmp\n");
    daemon.expect_nothing_left();
}

#[test]
fn every_verb() {
    let daemon = Daemon::start();
    let id = "c-verbs";
    run(&daemon, &["--detach"], id, &["/bin/sh", "-c", LOOP]).expect_ok("run");
    reaches(&daemon, id, "RUNNING");
    let exec = |name: &str, words: &[&str]| {
        let mut all = vec!["task", "exec", "--exec-id", name, id];
        all.extend_from_slice(words);
        ctr(&daemon, &all)
    };
    let done = exec("e1", &["/bin/sh", "-c", "echo inside; exit 5"]);
    assert_eq!((done.stdout.as_str(), done.code()), ("inside\n", 5));
    let missing = exec("e2", &["no-such-program"]);
    assert!(
        missing.code() != 0 && missing.stderr.contains("executable file not found"),
        "{}",
        missing.stderr
    );
    let refused = exec("e3", &["/etc/passwd"]);
    assert!(refused.code() != 0 && refused.stderr.contains("permission denied"), "{}", refused.stderr);
    let ps = ctr(&daemon, &["task", "ps", id]).expect_ok("ps").stdout;
    let pid = ps.lines().nth(1).and_then(|line| line.split_whitespace().next()).expect("a process");
    assert!(std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists(), "{ps}");
    let metrics = ctr(&daemon, &["task", "metrics", id]).expect_ok("metrics").stdout;
    assert!(metrics.contains("cpu") && metrics.contains("memory"), "{metrics}");
    ctr(&daemon, &["task", "pause", id]).expect_ok("pause");
    assert_eq!(status(&daemon, id), "PAUSED");
    assert!(exec("e4", &["true"]).code() != 0, "exec in a paused container");
    ctr(&daemon, &["task", "resume", id]).expect_ok("resume");
    assert_eq!(status(&daemon, id), "RUNNING");
    exec("e5", &["true"]).expect_ok("exec after resume");
    let checkpoint = ctr(&daemon, &["task", "checkpoint", id]);
    assert!(checkpoint.code() != 0 && checkpoint.stderr.contains("checkpoint"), "{}", checkpoint.stderr);
    assert_eq!(status(&daemon, id), "RUNNING");
    let early = ctr(&daemon, &["task", "delete", id]);
    assert!(early.code() != 0, "delete of a running task");
    ctr(&daemon, &["task", "kill", "--signal", "TERM", id]).expect_ok("kill");
    reaches(&daemon, id, "STOPPED");
    let late = ctr(&daemon, &["task", "kill", id]);
    assert!(late.stderr.contains("already finished"), "{}", late.stderr);
    ctr(&daemon, &["task", "delete", id]).expect_ok("delete");
    assert!(ctr(&daemon, &["task", "delete", id]).code() != 0, "a second delete");
    // Started again from the same container.
    ctr(&daemon, &["task", "start", "--detach", id]).expect_ok("start");
    ctr(&daemon, &["task", "kill", "--signal", "KILL", id]).expect_ok("kill");
    reaches(&daemon, id, "STOPPED");
    let told = ctr(&daemon, &["task", "delete", id]).expect_ok("delete").stderr;
    assert!(told.contains("exit code 137"), "{told}");
    ctr(&daemon, &["container", "delete", id]).expect_ok("container delete");
    daemon.expect_nothing_left();
}

#[test]
fn terminals() {
    let daemon = Daemon::start();
    let on_terminal = |mut ctr: Command, input: &str| {
        // script(1) is a terminal for ctr.
        let words: Vec<String> = std::iter::once(ctr.get_program())
            .chain(ctr.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")))
            .collect();
        let mut script = Command::new("script");
        script.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
        ctr.stdin(Stdio::null());
        command::run_with_input(&mut script, input.as_bytes(), LIMIT)
    };
    let run = run_command(
        &daemon,
        &["--rm", "--tty"],
        "c-tty",
        &["/bin/sh", "-c", "tty; test -t 0 && test -t 1 && echo terminal; exit 4"],
    );
    let done = on_terminal(run, "\n");
    assert!(done.stdout.contains("/dev/pts/") && done.stdout.contains("terminal"), "{done:?}");
    assert_eq!(done.code(), 4);
    command::run(&mut run_command(&daemon, &["--detach"], "c-for-exec", &["/bin/sh", "-c", LOOP]), LIMIT)
        .expect_ok("run");
    let exec = daemon.ctr(&[
        "task",
        "exec",
        "--tty",
        "--exec-id",
        "t1",
        "c-for-exec",
        "/bin/sh",
        "-c",
        "tty; exit 3",
    ]);
    let done = on_terminal(exec, "\n");
    assert!(done.stdout.contains("/dev/pts/"), "{done:?}");
    assert_eq!(done.code(), 3);
    ctr(&daemon, &["task", "kill", "--signal", "KILL", "c-for-exec"]).expect_ok("kill");
    reaches(&daemon, "c-for-exec", "STOPPED");
    ctr(&daemon, &["task", "delete", "c-for-exec"]);
    ctr(&daemon, &["container", "delete", "c-for-exec"]).expect_ok("container delete");
    daemon.expect_nothing_left();
}
