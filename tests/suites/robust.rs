//! What happens when processes of ours are killed, verbs race, and many sandboxes run side by side. By hand
//! with more rounds: `KILL_ROUNDS=500 SANDBOXES=100 cargo test --release -p tests --test robust`.

use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::bundle::{Bundle, MARK, set};
use tests::command::{self, Done};
use tests::processes::{all, words};
use tests::rootfs;

const LIMIT: Duration = Duration::from_secs(60);
/// Until the rest of a sandbox must have ended.
const DEFINED: Duration = Duration::from_secs(5);

fn shell(script: &str) -> Bundle {
    Bundle::new(rootfs::busybox(), &["/bin/sh", "-c", script])
}

fn verb(bundle: &Bundle, words: &[&str]) -> Done {
    let (verb, rest) = words.split_first().expect("a verb");
    command::run(bundle.runsc("systrap", verb).args(rest), LIMIT)
}

/// `run --detach` or `create` with nothing to read or write.
fn detached(bundle: &Bundle, words: &[&str]) -> Command {
    let (verb, rest) = words.split_first().expect("a verb");
    let mut command = bundle.runsc("systrap", verb);
    command.args(rest).arg("--bundle").arg(bundle.dir()).arg(bundle.id());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A number of rounds that can be raised.
fn rounds(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Numbers that are different each time; the seed is printed.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let seed = u64::from(now.subsec_nanos()) ^ u64::from(std::process::id());
        eprintln!("seed {seed}");
        Chance(seed | 1)
    }
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Processes (not zombies) whose command line or environment names this bundle: all of ours do.
fn processes(bundle: &Bundle) -> Vec<String> {
    let folder = bundle.dir().display().to_string();
    let mut found = Vec::new();
    for pid in all() {
        let words = words(pid);
        if words.contains(&format!("{folder}/state")) || words.contains(&format!("{MARK}={folder} ")) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            found.push(format!("{pid} {} {words}", name.trim()));
        }
    }
    found
}

/// Waits until `holds`, for `limit`.
fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn record(bundle: &Bundle) -> Option<Value> {
    let path = bundle.dir().join("state").join(bundle.id()).join("state.json");
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// `state` as a word; `none` when there is no container.
fn status(bundle: &Bundle) -> String {
    let done = verb(bundle, &["state", bundle.id()]);
    if done.code() != 0 {
        assert!(done.stderr.contains("does not exist"), "state: {}", done.stderr);
        return "none".to_owned();
    }
    let state: Value = serde_json::from_str(&done.stdout).expect("JSON");
    state.get("status").and_then(Value::as_str).unwrap_or("?").to_owned()
}

#[track_caller]
fn nothing_left(bundle: &Bundle, what: &str) {
    let deleted = verb(bundle, &["delete", "--force", bundle.id()]);
    assert_eq!(deleted.code(), 0, "{what}: delete --force: {}", deleted.stderr);
    assert!(within(DEFINED, || processes(bundle).is_empty()), "{what}: left: {:#?}", processes(bundle));
    let left: Vec<_> = fs::read_dir(bundle.dir().join("state")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{what}: state was left: {left:?}");
}

#[test]
fn any_process_may_be_killed_at_any_moment() {
    let mut chance = Chance::new();
    for round in 0..rounds("KILL_ROUNDS", 30) {
        let bundle = shell("while :; do /bin/true; done & sleep 1000");
        let victim =
            ["runsc", "monitor", "sentry", "gofer"][usize::try_from(chance.below(4)).expect("small")];
        let what = format!("round {round}: {victim}");
        let delay = Duration::from_micros(chance.below(30_000));
        let mut started = detached(&bundle, &["run", "--detach"]).spawn().expect("runsc starts");
        if victim == "runsc" {
            std::thread::sleep(delay);
            // Its end is not ours to await: it may have returned already.
            let _ = started.kill();
        }
        let ended = started.wait().expect("runsc ends");
        if victim != "runsc" {
            assert!(ended.success(), "{what}: {ended}");
            let pid = record(&bundle).and_then(|record| record.pointer(&format!("/{victim}/pid"))?.as_i64());
            let pid = rustix::process::Pid::from_raw(i32::try_from(pid.expect("a pid")).expect("a pid"));
            std::thread::sleep(delay);
            rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::KILL).expect("kill");
            let settled = within(DEFINED, || status(&bundle) == "stopped");
            assert!(settled, "{what}: {}", status(&bundle));
        } else {
            // Whatever it had reached: created, running, or nothing at all.
            let state = status(&bundle);
            assert!(
                ["none", "creating", "created", "running", "stopped"].contains(&state.as_str()),
                "{what}: {state}"
            );
        }
        nothing_left(&bundle, &what);
    }
}

/// Has a container's processes in a cgroup of its own on the host; its path below each hierarchy.
fn in_a_cgroup(bundle: &mut Bundle) -> String {
    let path = format!("gvisor-rs-robust/{}", bundle.id());
    set(bundle, "/linux/cgroupsPath", json!(format!("/{path}")));
    path
}

/// What is there of a cgroup.
fn cgroups(path: &str) -> Vec<PathBuf> {
    let roots = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    let places = roots.chain([PathBuf::from("/sys/fs/cgroup")]).map(|root| root.join(path));
    places.filter(|place| place.is_dir()).collect()
}

/// Removes the parents of those cgroups, which no runtime does, unless another test has some below them.
fn sweep_parents() {
    cgroups("gvisor-rs-robust").iter().for_each(|parent| drop(fs::remove_dir(parent)));
}

/// Nobody names a container whose `create` did not come back: its monitor undoes it, or else whatever is deleted next.
#[test]
fn a_create_that_is_killed_is_undone() {
    let mut chance = Chance::new();
    for round in 0..rounds("KILL_ROUNDS", 20) {
        let mut bundle = shell("sleep 1000");
        let path = in_a_cgroup(&mut bundle);
        let delay = Duration::from_micros(chance.below(25_000));
        let what = format!("round {round}: after {delay:?}");
        let mut created = detached(&bundle, &["create"]).spawn().expect("runsc starts");
        std::thread::sleep(delay);
        let _ = created.kill();
        created.wait().expect("runsc ends");
        verb(&bundle, &["delete", "--force", "another"]).expect_ok("delete --force");
        if record(&bundle).is_none() {
            let dir = bundle.dir().join("state").join(bundle.id());
            let gone = || !dir.exists() && cgroups(&path).is_empty() && processes(&bundle).is_empty();
            let left = || (fs::read_dir(&dir).map(Iterator::count), cgroups(&path), processes(&bundle));
            assert!(within(DEFINED, gone), "{what}: {:#?}", left());
        }
        nothing_left(&bundle, &what);
        assert_eq!(cgroups(&path), Vec::<PathBuf>::new(), "{what}");
    }
    sweep_parents();
}

#[test]
fn a_pods_container_that_never_ran_leaves_nothing() {
    let of_pod = |kind: &str, id: &str, bundle: &mut Bundle| {
        let (kind_key, id_key) = ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id");
        let overlay = "io.gvisor-rs.overlay2";
        set(bundle, "/annotations", json!({kind_key: kind, id_key: id, overlay: "root:memory"}));
        in_a_cgroup(bundle)
    };
    let mut pod = shell("sleep 1000");
    let id = pod.id().to_owned();
    of_pod("sandbox", &id, &mut pod);
    assert!(detached(&pod, &["run", "--detach"]).status().expect("runsc starts").success());
    for ends in ["deleted", "forgotten"] {
        let mut member = shell("sleep 1000");
        let path = of_pod("container", &id, &mut member);
        member.write();
        let mut create = pod.runsc("systrap", "create");
        create.arg("--bundle").arg(member.dir()).arg(member.id());
        create.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(create.status().expect("runsc starts").success());
        // Its program is loaded already, in a process of the host's.
        let mine = if ends == "deleted" { member.id() } else { &id };
        verb(&pod, &["delete", "--force", mine]).expect_ok("delete --force");
        assert_eq!(cgroups(&path), Vec::<PathBuf>::new(), "{ends}");
        assert!(!pod.dir().join("state").join(member.id()).exists(), "{ends}");
    }
    assert!(within(DEFINED, || processes(&pod).is_empty()), "left: {:#?}", processes(&pod));
    sweep_parents();
}

#[test]
fn of_creates_with_one_id_one_wins() {
    let bundle = shell("sleep 1000");
    let children: Vec<_> =
        (0..20).map(|_| detached(&bundle, &["create"]).spawn().expect("runsc starts")).collect();
    let won = children
        .into_iter()
        .filter_map(|mut child| child.wait().ok())
        .filter(std::process::ExitStatus::success);
    assert_eq!(won.count(), 1);
    assert_eq!(status(&bundle), "created");
    verb(&bundle, &["start", bundle.id()]).expect_ok("start");
    nothing_left(&bundle, "creates");
}

#[test]
fn verbs_that_race_leave_a_defined_state() {
    let bundle = shell("sleep 1000");
    let id = bundle.id().to_owned();
    bundle.write();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (bundle, id) = (&bundle, id.clone());
            scope.spawn(move || {
                let mut chance = Chance::new();
                for _ in 0..rounds("RACE_ROUNDS", 12) {
                    let words: &[&str] = match chance.below(8) {
                        0 | 1 => {
                            // A lost race is no failure of the test; hanging is.
                            let _ = detached(bundle, &["run", "--detach"]).status();
                            continue;
                        }
                        2 => &["kill", "ID", "KILL"],
                        3 => &["delete", "--force", "ID"],
                        4 => &["delete", "ID"],
                        5 => &["exec", "ID", "/bin/true"],
                        6 => &["pause", "ID"],
                        _ => &["resume", "ID"],
                    };
                    let words: Vec<&str> =
                        words.iter().map(|word| if *word == "ID" { id.as_str() } else { word }).collect();
                    let done = verb(bundle, &words);
                    assert!(done.stderr.lines().count() <= 1, "{words:?}: {}", done.stderr);
                    assert!(!done.stderr.contains("panicked"), "{words:?}: {}", done.stderr);
                }
            });
        }
    });
    nothing_left(&bundle, "races");
}

#[test]
fn sandboxes_side_by_side() {
    let count = rounds("SANDBOXES", 24);
    let bundles: Vec<Bundle> = (0..count).map(|_| shell("read line < /tmp/fifo || sleep 1000")).collect();
    let begun = Instant::now();
    let children: Vec<_> = bundles
        .iter()
        .map(|bundle| detached(bundle, &["run", "--detach"]).spawn().expect("runsc starts"))
        .collect();
    for mut child in children {
        assert!(child.wait().expect("runsc ends").success());
    }
    let started = begun.elapsed();
    let memory: u64 = bundles.iter().map(proportional_kib).sum();
    for bundle in &bundles {
        assert_eq!(status(bundle), "running");
        assert_eq!(
            verb(bundle, &["exec", bundle.id(), "/bin/echo", "here"]).expect_ok("exec").stdout,
            "here\n"
        );
    }
    let begun = Instant::now();
    for bundle in &bundles {
        nothing_left(bundle, "side by side");
    }
    let per = memory / u64::try_from(count).unwrap_or(1).max(1);
    eprintln!(
        "{count} sandboxes: started in {started:?}, deleted in {:?}, {per} KiB PSS each",
        begun.elapsed()
    );
}

/// PSS of monitor, sentry and gofer.
fn proportional_kib(bundle: &Bundle) -> u64 {
    let Some(record) = record(bundle) else { return 0 };
    let of = |name: &str| {
        let pid = record.pointer(&format!("/{name}/pid"))?.as_i64()?;
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find(|line| line.starts_with("Pss:"))?.to_owned();
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    };
    ["monitor", "sentry", "gofer"].into_iter().filter_map(of).sum()
}
