//! Pods one after another, sandboxes side by side, and what is left when something is killed.

use containerd_tests::api::{container_state, sandbox_state};
use containerd_tests::daemon::{Daemon, OURS, eventually};
use containerd_tests::leftovers;
use containerd_tests::pod::{self, Pod, container};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tests::bundle::{Bundle, MARK};
use tests::processes::{all, words};
use tests::rootfs;

const SERVE: &[&str] = &["/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1000 & wait; done"];

/// Processes of the daemon's containers with this name (`/proc/PID/comm`), oldest first.
fn named(daemon: &Daemon, name: &str) -> Vec<Pid> {
    let mut found: Vec<i32> = leftovers::find(daemon.dir(), daemon.name())
        .processes
        .into_iter()
        .map(|(pid, _)| pid)
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name))
        .collect();
    found.sort_unstable();
    found.into_iter().filter_map(Pid::from_raw).collect()
}

#[test]
fn fifty_pods_in_a_row() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    for number in 0..50 {
        let pod = Pod::run(&cri, pod::config(&daemon, &format!("row{number}")), OURS);
        let id = pod.start(&container("one", &["/bin/sh", "-c", "echo $HOSTNAME; exit 0"]));
        assert_eq!(pod.ended(&id).exit_code, 0);
        pod.remove();
    }
    assert!(cri.pods().expect("ListPodSandbox").items.is_empty());
    daemon.expect_nothing_left();
}

#[test]
fn the_daemon_comes_back() {
    let mut daemon = Daemon::start();
    let (first, second, pod_id, config);
    {
        let cri = daemon.cri();
        let pod = Pod::run(&cri, pod::config(&daemon, "stays"), OURS);
        first = pod.start(&container("first", SERVE));
        second = pod.start(&container("second", SERVE));
        (pod_id, config) = (pod.id.clone(), pod.config.clone());
    }
    daemon.kill();
    daemon.launch();
    let cri = daemon.cri();
    let pod = Pod { cri: &cri, id: pod_id, config };
    for id in [&first, &second] {
        assert_eq!(cri.container_status(id).expect("ContainerStatus").state, container_state::RUNNING);
    }
    assert_eq!(pod.sh(&first, "echo still"), "still\n");
    let third = pod.start(&container("third", SERVE));
    assert_eq!(pod.sh(&third, "echo new"), "new\n");
    cri.stop(&second, 10).expect("StopContainer");
    assert_eq!(pod.ended(&second).exit_code, 0);
    pod.remove();
    daemon.expect_nothing_left();
}

#[test]
fn whatever_is_killed() {
    let daemon = Daemon::start();
    let cri = daemon.cri();
    // Who is killed, whether it belongs to the pod's first or last container, and what ends with it.
    let cases = [
        ("containerd-shim", false, true),
        ("runsc-sentry", false, true),
        ("runsc-monitor", false, true),
        ("runsc-monitor", true, false),
        ("runsc-gofer", false, true),
        ("runsc-gofer", true, false),
        ("runsc-net", false, true),
    ];
    for (number, (victim, last, all)) in cases.into_iter().enumerate() {
        let pod = Pod::run(&cri, pod::config(&daemon, &format!("killed{number}")), OURS);
        let first = pod.start(&container("first", SERVE));
        let second = pod.start(&container("second", SERVE));
        let found = named(&daemon, victim);
        let pid = if last { found.last() } else { found.first() };
        kill_process(*pid.unwrap_or_else(|| panic!("no {victim}")), Signal::KILL).expect("kill");
        let what = format!("{victim}, last: {last}");
        let ended = |id: &str| {
            let state = cri.container_status(id).expect("ContainerStatus").state;
            (state == container_state::EXITED).then_some(())
        };
        assert!(eventually(Duration::from_secs(5), || ended(&second)).is_some(), "{what}: the second lives");
        if all {
            assert!(
                eventually(Duration::from_secs(5), || ended(&first)).is_some(),
                "{what}: the first lives"
            );
            let gone = || (cri.pod_status(&pod.id).ok()?.0.state == sandbox_state::NOT_READY).then_some(());
            assert!(eventually(Duration::from_secs(5), gone).is_some(), "{what}: the pod is ready");
        } else {
            assert_eq!(pod.sh(&first, "ls /bin/busybox"), "/bin/busybox\n", "{what}");
            let again = pod.start(&container("again", SERVE));
            assert_eq!(pod.sh(&again, "echo again"), "again\n", "{what}");
        }
        pod.remove();
        daemon.expect_nothing_left();
    }
}

/// Numbers that look like chance (Knuth's MMIX generator).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit.max(1)
    }
}

/// The life of a pod, as far as it gets.
fn a_life(cri: &containerd_tests::client::Cri, config: &containerd_tests::api::SandboxConfig) {
    fs::create_dir_all(&config.log_directory).expect("a folder for logs");
    let Ok(pod) = cri.run_pod(config, OURS) else { return };
    let script = ["/bin/sh", "-c", "echo up; (while :; do sleep 0.01; done) & seq 1 1000; sleep 1000"];
    for name in ["first", "second"] {
        let Ok(id) = cri.create(&pod, &container(name, &script), config) else { return };
        if cri.start(&id).is_err() {
            return;
        }
        for _ in 0..3 {
            let _ = cri.exec_sync(&id, &["/bin/sh", "-c", "ls /bin/busybox | cat"], 5);
        }
        if name == "first" {
            let _ = cri.stop(&id, 0);
        }
    }
}

/// One random process is killed at a random moment of a pod's life, again and again: what is left can always be
/// removed. `GVISOR_RS_KILLS` asks for more of them.
#[test]
fn random_kills() {
    let kills: usize = std::env::var("GVISOR_RS_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let seed = std::env::var("GVISOR_RS_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("GVISOR_RS_SEED={seed}");
    let mut dice = Dice(seed);
    let daemon = Daemon::start();
    for number in 0..kills {
        let delay = Duration::from_millis(u64::try_from(dice.below(2500)).expect("milliseconds"));
        let choice = dice.below(1 << 30);
        let victim = std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                std::thread::sleep(delay);
                let mut there = leftovers::find(daemon.dir(), daemon.name()).processes;
                there.retain(|(_, line)| is_of_a_runtime(line));
                let (pid, line) = there.get(choice % there.len().max(1))?;
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let _ = kill_process(Pid::from_raw(*pid)?, Signal::KILL);
                Some(format!("{pid} {} {line}", name.trim()))
            });
            a_life(&daemon.cri(), &pod::config(&daemon, &format!("kill{number}")));
            killer.join().expect("the killer")
        });
        let cri = daemon.cri();
        let begun = Instant::now();
        let gone = || {
            for pod in cri.pods().ok()?.items {
                let _ = cri.stop_pod(&pod.id);
                let _ = cri.remove_pod(&pod.id);
            }
            cri.pods().ok()?.items.is_empty().then_some(())
        };
        let removed = eventually(Duration::from_secs(15), gone);
        assert!(removed.is_some(), "kill {number} of {victim:?} after {delay:?}: the pod stays");
        if begun.elapsed() > Duration::from_secs(5) {
            eprintln!("kill {number} of {victim:?} after {delay:?}: removed in {:?}", begun.elapsed());
        }
        let quiet = eventually(Duration::from_secs(5), || daemon.left().is_empty().then_some(()));
        assert!(quiet.is_some(), "kill {number} of {victim:?} after {delay:?}: left {:#?}", daemon.left());
    }
}

/// Whether a process is the runtime's, or a shim that serves. What a killed plugin of the network leaves is not the
/// runtime's to remove, and of a shim whose start was killed containerd does not know, whatever runtime it drives.
fn is_of_a_runtime(line: &str) -> bool {
    let starts = line.contains("containerd-shim") && line.contains(" start ");
    !starts && !line.contains("CNI_COMMAND=")
}

#[test]
fn a_hundred_side_by_side() {
    let bundles: Vec<Bundle> =
        (0..100).map(|_| Bundle::new(rootfs::busybox(), &["/bin/sleep", "1000"])).collect();
    let verb = |bundle: &Bundle, verb: &str, words: &[&str]| {
        let mut command = bundle.runsc("systrap", verb);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("runsc starts").success()
    };
    let everywhere = |act: &(dyn Fn(&Bundle) -> bool + Sync)| {
        std::thread::scope(|scope| {
            let workers: Vec<_> = bundles
                .chunks(25)
                .map(|part| scope.spawn(move || part.iter().filter(|bundle| act(bundle)).count()))
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker")).sum::<usize>()
        })
    };
    let begun = Instant::now();
    let run = |bundle: &Bundle| {
        let dir = bundle.dir().display().to_string();
        verb(bundle, "run", &["--detach", "--bundle", &dir, bundle.id()])
    };
    assert_eq!(everywhere(&run), 100, "sandboxes that started");
    let started = begun.elapsed();
    assert_eq!(everywhere(&|bundle| verb(bundle, "exec", &[bundle.id(), "/bin/true"])), 100, "that answer");
    let kilobytes: u64 = bundles.iter().flat_map(processes_of).map(pss).sum();
    let begun = Instant::now();
    assert_eq!(everywhere(&|bundle| verb(bundle, "delete", &["--force", bundle.id()])), 100, "that end");
    eprintln!(
        "100 sandboxes: started in {started:?}, {} KiB PSS each, deleted in {:?}",
        kilobytes / 100,
        begun.elapsed()
    );
    for bundle in &bundles {
        assert_eq!(processes_of(bundle), Vec::<u32>::new());
    }
}

/// Processes that a bundle's sandbox consists of, its stubs apart.
fn processes_of(bundle: &Bundle) -> Vec<u32> {
    let needle = bundle.dir().display().to_string();
    let named = |pid: &u32| {
        let words = words(*pid);
        words.contains(&format!("{needle}/")) || words.contains(&format!("{MARK}={needle} "))
    };
    all().into_iter().filter(named).collect()
}

fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
