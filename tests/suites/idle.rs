//! What a sandbox costs when nothing happens in it, and how processes end that nobody waits for.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tests::bundle::Bundle;
use tests::command;
use tests::processes::{parents, pss_kib, tree};
use tests::{PLATFORMS, rootfs};

const LIMIT: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Bundle {
    Bundle::new(rootfs::busybox(), &["/bin/sh", "-c", script])
}

/// How often each thread of these processes has run (the third number of schedstat).
fn runs(pids: &[u32]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for pid in pids {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let times = text.split_whitespace().nth(2).and_then(|times| times.parse().ok());
            let thread = task.file_name().to_string_lossy().into_owned();
            all.insert(format!("{} {pid}/{thread}", name.trim()), times.unwrap_or(0));
        }
    }
    all
}

/// A started `run`, killed at the end of the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(quiet.spawn().expect("runsc starts"))
    }
    /// Its processes, once they have come to rest.
    fn at_rest(&self) -> Vec<u32> {
        let end = Instant::now() + LIMIT;
        let mut before = BTreeMap::new();
        while Instant::now() < end {
            let pids = tree(self.0.id());
            let now = runs(&pids);
            if pids.len() > 3 && now == before {
                return pids;
            }
            before = now;
            std::thread::sleep(Duration::from_millis(700));
        }
        panic!("it does not come to rest: {before:?}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_idle_sandbox_never_wakes_up() {
    let bundles =
        PLATFORMS.map(|platform| (platform, Bundle::new(rootfs::busybox(), &["/bin/sleep", "1000"])));
    let running =
        bundles.each_ref().map(|(platform, bundle)| (*platform, Running::start(&mut bundle.run(platform))));
    let before = running.each_ref().map(|(platform, running)| {
        let pids = running.at_rest();
        (*platform, runs(&pids), pids)
    });
    std::thread::sleep(Duration::from_secs(5));
    for (platform, before, pids) in before {
        assert_eq!(runs(&pids), before, "{platform}: something ran while nothing happened");
        // The monitor's part included; a debug build has larger code.
        let most = if cfg!(debug_assertions) { 16 * 1024 } else { 5 * 1024 };
        let used = pss_kib(&pids);
        eprintln!("{platform}: {used} KiB (PSS) while idle");
        assert!(used < most, "{platform}: {used} KiB while idle");
    }
}

#[test]
fn children_that_nobody_waits_for() {
    for platform in PLATFORMS {
        let script = "i=0; while [ $i -lt 500 ]; do /bin/true & i=$((i+1)); done; exit 7";
        let bundle = shell(script);
        let done = command::run(&mut bundle.run(platform), LIMIT);
        assert_eq!(done.code(), 7, "{platform}: {}", done.stderr);
        let left = fs::read_dir(bundle.dir().join("state")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{platform}: something was left under --root");
        let ours = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(bundle.id())
        };
        let alive: Vec<u32> = parents().into_iter().map(|(pid, _)| pid).filter(ours).collect();
        assert!(alive.is_empty(), "{platform}: processes outlived their sandbox: {alive:?}");
    }
}

#[test]
fn a_guest_that_faults_reports_its_signal() {
    for platform in PLATFORMS {
        let done = command::run(&mut shell("sh -c 'kill -SEGV $$'; exit $?").run(platform), LIMIT);
        assert_eq!(done.code(), 139, "{platform}: a signal of its own: {}", done.stderr);
        let bundle = Bundle::new(rootfs::busybox(), &["/t/fault"]);
        let programs = bundle.dir().join("programs");
        fs::create_dir_all(&programs).expect("a folder");
        let source = programs.join("fault.c");
        fs::write(&source, "int main(void) { *(volatile int *)8 = 1; return 0; }\n").expect("a source");
        let built =
            Command::new("gcc").args(["-static", "-o"]).arg(programs.join("fault")).arg(&source).status();
        assert!(built.expect("gcc starts (package gcc, libc6-dev)").success());
        let bundle = bundle.bind(&programs, "/t", "ro");
        let done = command::run(&mut bundle.run(platform), LIMIT);
        assert_eq!(done.code(), 139, "{platform}: a bad address: {}", done.stderr);
    }
}
