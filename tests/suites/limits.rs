//! Limits of a container: on the host's cgroup files, as the guest sees them, and when a guest runs into them.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tests::bundle::Bundle;
use tests::command::{self, Done};
use tests::{PLATFORMS, rootfs};

const LIMIT: Duration = Duration::from_secs(90);

/// A greedy program: `hog memory|hold|pipes|threads MAXIMUM`.
const HOG: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static void *rest(void *arg) { pause(); return arg; }
int main(int argc, char **argv) {
    int most = atoi(argv[2]), got = 0;
    if (argc < 3) return 9;
    for (; got < most; got++) {
        if (!strcmp(argv[1], "memory") || !strcmp(argv[1], "hold")) {
            char *p = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (p == MAP_FAILED) break;
            memset(p, 1, 1 << 20);
        } else if (!strcmp(argv[1], "pipes")) {
            static char page[1 << 16];
            int fd[2];
            if (pipe(fd) < 0) break;
            fcntl(fd[1], F_SETPIPE_SZ, 1 << 20);
            fcntl(fd[1], F_SETFL, O_NONBLOCK);
            while (write(fd[1], page, sizeof page) > 0) {}
        } else {
            pthread_t t;
            pthread_attr_t a;
            pthread_attr_init(&a);
            pthread_attr_setstacksize(&a, 65536);
            int error = pthread_create(&t, &a, rest, 0);
            if (error) { errno = error; break; }
        }
    }
    if (!strcmp(argv[1], "hold")) pause();
    printf("%d %s\n", got, got < most ? strerror(errno) : "all");
    fflush(stdout);
    _exit(0);
}
"#;

fn hog() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let dir = std::env::temp_dir();
        let source = dir.join(format!("gvisor-rs-hog-{}.c", std::process::id()));
        let program = tests::target_dir().join("guest-hog");
        fs::write(&source, HOG).expect("a temporary file");
        let built =
            Command::new("cc").args(["-static", "-O1", "-pthread", "-o"]).arg(&program).arg(&source).status();
        assert!(built.expect("cc starts").success(), "the hog does not build");
        let _ = fs::remove_file(source);
        program
    })
}

/// A shell over busybox with `/hog`, cgroup2 and these limits.
fn limited(script: &str, resources: Value) -> Bundle {
    let mut bundle = Bundle::new(rootfs::busybox(), &["/bin/sh", "-c", script]).bind(hog(), "/hog", "ro");
    let linux = bundle.config.pointer_mut("/linux").and_then(Value::as_object_mut).expect("linux");
    linux.insert("resources".into(), resources);
    let mounts = bundle.config.pointer_mut("/mounts").and_then(Value::as_array_mut).expect("mounts");
    mounts.push(
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}),
    );
    bundle
}

fn run(platform: &str, script: &str, resources: Value) -> Done {
    command::run(&mut limited(script, resources).run(platform), LIMIT)
}

#[test]
fn a_memory_hog_is_killed_and_its_container_goes_on() {
    for platform in PLATFORMS {
        let script =
            "/hog memory 300; echo status $?; /hog memory 20; grep oom_kill /sys/fs/cgroup/memory.events";
        let done = run(platform, script, json!({"memory": {"limit": 64 << 20}})).expect_ok(platform);
        let lines: Vec<&str> = done.stdout.lines().collect();
        assert_eq!(lines, ["status 137", "20 all", "oom_kill 1"], "{platform}: {}", done.stderr);
    }
}

#[test]
fn one_hog_after_another_costs_nobody_else() {
    let script = "(while :; do /hog memory 2 >/dev/null || echo lost; done) &
        for i in $(seq 10); do /hog memory 300; [ $? = 137 ] || echo passed; done
        kill $!; grep oom_kill /sys/fs/cgroup/memory.events";
    for platform in PLATFORMS {
        let done = run(platform, script, json!({"memory": {"limit": 64 << 20}})).expect_ok(platform);
        assert_eq!(done.stdout, "oom_kill 10\n", "{platform}: {}", done.stderr);
    }
}

#[test]
fn the_best_candidate_dies() {
    // The first one has as much memory when it comes to it, and has asked to be spared.
    let script = "(echo -900 > /proc/self/oom_score_adj; exec /hog hold 36) &
        while [ $(cat /sys/fs/cgroup/memory.current) -lt 36000000 ]; do sleep 0.1; done
        /hog memory 300; echo status $?; kill -0 $! && echo spared; kill -9 $!";
    for platform in PLATFORMS {
        let done = run(platform, script, json!({"memory": {"limit": 64 << 20}})).expect_ok(platform);
        assert_eq!(done.stdout, "status 137\nspared\n", "{platform}: {}", done.stderr);
    }
}

#[test]
fn pipe_buffers_count() {
    for platform in PLATFORMS {
        let script = "ulimit -n 2000; /hog pipes 400; echo status $?; echo alive";
        let done = run(platform, script, json!({"memory": {"limit": 64 << 20}})).expect_ok(platform);
        assert!(done.stdout.ends_with("alive\n"), "{platform}: {}", done.stdout);
        assert!(!done.stdout.contains("all"), "{platform}: 400 MiB of pipes in 64: {}", done.stdout);
    }
}

#[test]
fn a_full_tmpfs_ends_well() {
    for platform in PLATFORMS {
        let script = "dd if=/dev/zero of=/tmp/full bs=1M count=300 2>/dev/null; echo status $?";
        let done = run(platform, script, json!({"memory": {"limit": 64 << 20}}));
        // Memory that no kill brings back: the shell may be next.
        assert!(
            done.code() == 137 || (done.code() == 0 && !done.stdout.contains("status 0")),
            "{platform}: {} {} {}",
            done.code(),
            done.stdout,
            done.stderr
        );
        let small = "mount -t tmpfs -o size=4m t /tmp && dd if=/dev/zero of=/tmp/x bs=1M count=9 2>&1 | grep -c 'No space'";
        let done = run(platform, small, json!({})).expect_ok(platform);
        assert_eq!(done.stdout, "1\n");
    }
}

#[test]
fn fork_and_thread_bombs() {
    for platform in PLATFORMS {
        let script = "/hog threads 200; cat /sys/fs/cgroup/pids.max
            (i=0; while [ $i -lt 100 ]; do sleep 100 & i=$((i+1)); done) 2>/dev/null
            [ $(cat /sys/fs/cgroup/pids.current) -le 20 ] && echo bounded
            grep -q 'max [1-9]' /sys/fs/cgroup/pids.events && echo counted";
        let done = run(platform, script, json!({"pids": {"limit": 20}})).expect_ok(platform);
        let want = "18 Resource temporarily unavailable\n20\nbounded\ncounted\n";
        assert_eq!(done.stdout, want, "{platform}: {}", done.stderr);
    }
}

#[test]
fn as_many_processes_as_the_limit_says() {
    // Each is more than one task on the host, whose limit must not come first.
    let script =
        "i=0; while [ $i -lt 148 ]; do sleep 100 & i=$((i+1)); done; cat /sys/fs/cgroup/pids.current; :";
    let done = run("systrap", script, json!({"pids": {"limit": 150}})).expect_ok("systrap");
    assert_eq!(done.stdout, "150\n", "{}", done.stderr);
}

#[test]
fn nested_groups_are_enforced() {
    let script = "cd /sys/fs/cgroup; cat cgroup.controllers; echo '+memory +pids' > cgroup.subtree_control; mkdir a
        echo 16M > a/memory.max; cat a/memory.max; echo 5 > a/pids.max
        (echo 0 > a/cgroup.procs; cat /proc/self/cgroup; /hog memory 100; echo status $?; /hog threads 50)
        grep oom_kill a/memory.events; grep oom_kill memory.events; cat memory.events.local | grep -c 'oom_kill 0'
        rmdir a && echo gone";
    for platform in PLATFORMS {
        let done = run(platform, script, json!({})).expect_ok(platform);
        let want = "cpuset cpu io memory pids\n16777216\n0::/a\nstatus 137\n4 Resource temporarily unavailable\noom_kill 1\noom_kill 1\n1\ngone\n";
        assert_eq!(done.stdout, want, "{platform}: {}", done.stderr);
    }
}

#[test]
fn nested_groups_have_processors_and_time() {
    // Two busy loops for a second at 20 %, counted in the ticks of the group; then on the first processor only.
    let script = "cd /sys/fs/cgroup; sed 's/ / +/g; s/^/+/' cgroup.controllers > cgroup.subtree_control && mkdir t
        echo '20000 100000' > t/cpu.max; cat t/cpu.max t/cpu.weight t/cpuset.cpus.effective; echo 200 > t/cpu.weight
        for i in 1 2; do (echo 0 > t/cgroup.procs; while :; do :; done) & p=\"$p $!\"; done
        sleep 2; set -- $(cat t/cpu.stat); [ $2 -gt 100000 ] && [ $2 -lt 1200000 ] && echo bounded || echo $2
        grep -q 'nr_throttled [1-9]' t/cpu.stat && echo throttled
        echo max > t/cpu.max; cat t/cpu.max; kill $p; wait; set -- $(cat t/cpu.stat); [ $2 -gt 100000 ] && echo kept
        echo 0 > t/cpuset.cpus; (echo 0 > t/cgroup.procs; nproc; grep Cpus_allowed_list /proc/self/status | cut -f2)
        echo 99 > t/cpuset.cpus || echo none; echo '8:0 rbps=1' > t/io.max || echo no device; rmdir t && echo gone";
    let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let all = if all > 1 { format!("0-{}", all - 1) } else { "0".to_owned() };
    for platform in PLATFORMS {
        let done = run(platform, script, json!({})).expect_ok(platform);
        let want = format!(
            "20000 100000\n100\n{all}\nbounded\nthrottled\nmax 100000\nkept\n1\n0\nnone\nno device\ngone\n"
        );
        assert_eq!(done.stdout, want, "{platform}: {}", done.stderr);
    }
}

#[test]
fn processors_that_the_host_gives() {
    let resources = json!({"cpu": {"cpus": "0"}});
    let Some((bundle, _)) = in_a_host_cgroup("exec sleep 1000", resources) else { return };
    detach(&bundle);
    let seen = || {
        let script =
            "nproc; cat /sys/fs/cgroup/cpuset.cpus.effective; grep Cpus_allowed_list /proc/self/status";
        let mut exec = bundle.runsc("systrap", "exec");
        command::run(exec.args([bundle.id(), "/bin/sh", "-c", script]), LIMIT).expect_ok("exec").stdout
    };
    assert_eq!(seen(), "1\n0\nCpus_allowed_list:\t0\n");
    if std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1) {
        let mut update = bundle.runsc("systrap", "update");
        command::run(update.args(["--cpuset-cpus", "0-1", bundle.id()]), LIMIT).expect_ok("update");
        assert!(seen().starts_with("2\n0-1\n"), "{}", seen());
    }
    let gone = command::run(bundle.runsc("systrap", "delete").args(["--force", bundle.id()]), LIMIT);
    gone.expect_ok("delete");
    sweep_host_cgroups();
}

#[test]
fn a_frozen_group_rests() {
    let script = "cd /sys/fs/cgroup; mkdir f; (echo 0 > f/cgroup.procs; while :; do echo >> /tmp/count; sleep 0.01; done) &
        while [ ! -s /tmp/count ]; do sleep 0.01; done; echo 1 > f/cgroup.freeze
        while ! grep -q 'frozen 1' f/cgroup.events; do sleep 0.01; done
        a=$(wc -l < /tmp/count); sleep 0.3; b=$(wc -l < /tmp/count); [ $a = $b ] && echo still
        echo 0 > f/cgroup.freeze; sleep 0.3; [ $(wc -l < /tmp/count) -gt $b ] && echo moving
        echo 1 > f/cgroup.kill; wait; rmdir f && echo gone";
    for platform in PLATFORMS {
        let done = run(platform, script, json!({})).expect_ok(platform);
        assert_eq!(done.stdout, "still\nmoving\ngone\n", "{platform}: {}", done.stderr);
    }
}

#[test]
fn exec_goes_into_a_group() {
    let script = "mkdir /sys/fs/cgroup/in /sys/fs/cgroup/in/side; exec sleep 1000";
    let bundle = limited(script, json!({}));
    detach(&bundle);
    let exec = |group: &str, words: &[&str]| {
        let mut command = bundle.runsc("systrap", "exec");
        command::run(command.args(["--cgroup", group, bundle.id()]).args(words), LIMIT)
    };
    let end = Instant::now() + LIMIT;
    while exec("/", &["test", "-d", "/sys/fs/cgroup/in/side"]).code() != 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    for (group, shown) in [("/", "0::/\n"), ("/in/side", "0::/in/side\n"), ("in/../../in", "0::/in\n")] {
        assert_eq!(exec(group, &["cat", "/proc/self/cgroup"]).expect_ok(group).stdout, shown, "{group}");
    }
    // runc's words and status.
    let done = exec("/none", &["true"]);
    assert_eq!(done.code(), 255, "{}", done.stderr);
    assert!(done.stderr.contains("no such file or directory"), "{}", done.stderr);
    let mut delete = bundle.runsc("systrap", "delete");
    command::run(delete.args(["--force", bundle.id()]), LIMIT).expect_ok("delete");
}

#[test]
fn a_guest_sees_its_limits() {
    let script = "grep MemTotal /proc/meminfo; cd /sys/fs/cgroup; cat memory.max cpu.max cpu.weight pids.max; free -m | sed -n 's/^Mem: *\\([0-9]*\\).*/\\1/p'";
    let resources = json!({"memory": {"limit": 256 << 20}, "cpu": {"quota": 50_000, "period": 100_000, "shares": 512}, "pids": {"limit": 77}});
    for platform in PLATFORMS {
        let done = run(platform, script, resources.clone()).expect_ok(platform);
        let want = "MemTotal:         262144 kB\n268435456\n50000 100000\n20\n77\n256\n";
        assert_eq!(done.stdout, want, "{platform}: {}", done.stderr);
    }
}

/// Where a controller's files of this path are, on v1, v2 or a hybrid.
fn host_file(path: &str, controller: &str, v1: &str, v2: &str) -> Option<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let candidates = [root.join(controller).join(path).join(v1), root.join(path).join(v2)];
    candidates.into_iter().find(|file| file.exists())
}

/// A detached container in a cgroup of its own on the host: the bundle and the cgroup's path. `None` for who is
/// not root.
fn in_a_host_cgroup(script: &str, resources: Value) -> Option<(Bundle, String)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let mut bundle = limited(script, resources);
    let path = format!("gvisor-rs-test/{}", bundle.id());
    let linux = bundle.config.pointer_mut("/linux").and_then(Value::as_object_mut).expect("linux");
    linux.insert("cgroupsPath".into(), json!(format!("/{path}")));
    Some((bundle, path))
}

#[track_caller]
fn detach(bundle: &Bundle) {
    let mut run = bundle.runsc("systrap", "run");
    run.arg("--bundle").arg(bundle.dir()).args(["--detach", bundle.id()]);
    let status = run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.expect("runsc starts").success());
}

fn sweep_host_cgroups() {
    for controller in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let _ = fs::remove_dir(controller.path().join("gvisor-rs-test"));
    }
    let _ = fs::remove_dir("/sys/fs/cgroup/gvisor-rs-test");
}

#[test]
fn the_host_sees_that_memory_ran_out() {
    let script = "/hog memory 300; echo $? > /tmp/status; exec sleep 1000";
    let Some((mut bundle, path)) = in_a_host_cgroup(script, json!({"memory": {"limit": 64 << 20}})) else {
        return;
    };
    let process = bundle.config.pointer_mut("/process").and_then(Value::as_object_mut).expect("process");
    process.insert("oomScoreAdj".into(), json!(321));
    detach(&bundle);
    let file = |v1: &str, v2: &str| {
        let file = host_file(&path, "memory", v1, v2).expect("a memory cgroup");
        fs::read_to_string(file).expect("readable")
    };
    let limit = file("memory.limit_in_bytes", "memory.max");
    for pid in file("cgroup.procs", "cgroup.procs").lines() {
        let score = fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
        assert!(score.is_err() || score.is_ok_and(|score| score == "321\n"), "{pid}");
    }
    // The limit stays what it is.
    let told = || {
        let told = file("memory.oom_control", "memory.events").contains("oom_kill 1");
        told && file("memory.limit_in_bytes", "memory.max") == limit
    };
    let end = std::time::Instant::now() + LIMIT;
    while !told() {
        assert!(std::time::Instant::now() < end, "{}", file("memory.oom_control", "memory.events"));
        std::thread::sleep(Duration::from_millis(20));
    }
    // The host sees it first.
    let status = "until [ -s /tmp/status ]; do sleep 0.05; done; cat /tmp/status";
    let asked =
        command::run(bundle.runsc("systrap", "exec").args([bundle.id(), "/bin/sh", "-c", status]), LIMIT);
    assert_eq!(asked.expect_ok("exec").stdout, "137\n");
    let gone = command::run(bundle.runsc("systrap", "delete").args(["--force", bundle.id()]), LIMIT);
    gone.expect_ok("delete");
    sweep_host_cgroups();
}

#[test]
fn host_cgroups_come_change_and_go() {
    let resources = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 50}, "cpu": {"shares": 512}});
    let Some((bundle, path)) = in_a_host_cgroup("exec sleep 1000", resources) else { return };
    detach(&bundle);
    let verb = |words: &[&str]| {
        let (verb, rest) = words.split_first().expect("a verb");
        command::run(bundle.runsc("systrap", verb).args(rest), LIMIT)
    };
    let read = |controller: &str, v1: &str, v2: &str| -> u64 {
        let file = host_file(&path, controller, v1, v2).unwrap_or_else(|| panic!("no {v1} or {v2}"));
        fs::read_to_string(&file).expect("a limit").trim().parse().expect("a number")
    };
    let memory = || read("memory", "memory.limit_in_bytes", "memory.max");
    assert!((64 << 20..192 << 20).contains(&memory()), "{}", memory());
    assert!((200..300).contains(&read("pids", "pids.max", "pids.max")));
    let members = host_file(&path, "memory", "cgroup.procs", "cgroup.procs").expect("members");
    let members = fs::read_to_string(members).expect("members");
    let names: Vec<String> = members
        .lines()
        .map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned())
        .collect();
    for name in ["runsc-monitor", "runsc-sentry", "runsc-gofer", "stub"] {
        assert!(names.iter().any(|other| other == name), "{name} is not among {names:?}");
    }
    verb(&["update", "--memory", "256m", "--pids-limit", "90", bundle.id()]).expect_ok("update");
    assert!(memory() > 256 << 20);
    let seen =
        verb(&["exec", bundle.id(), "/bin/cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"]);
    assert_eq!(seen.expect_ok("exec").stdout, "268435456\n90\n");
    let before = memory();
    assert_ne!(verb(&["update", "--memory", "1", bundle.id()]).code(), 0, "less than it uses");
    assert_eq!(memory(), before);
    let stats = verb(&["events", "--stats", bundle.id()]).expect_ok("events");
    let event: Value = serde_json::from_str(&stats.stdout).expect("JSON");
    let at = |pointer: &str| event.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    assert_eq!(
        (at("/data/memory/usage/limit"), at("/data/pids/limit"), at("/data/pids/current")),
        (256 << 20, 90, 1)
    );
    assert!(at("/data/memory/usage/usage") > 0 && at("/data/cpu/usage/total") > 0, "{event}");
    verb(&["delete", "--force", bundle.id()]).expect_ok("delete");
    assert!(host_file(&path, "memory", "cgroup.procs", "cgroup.procs").is_none(), "the cgroup is left");
    sweep_host_cgroups();
}
