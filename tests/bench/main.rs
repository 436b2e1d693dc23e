//! Micro-benchmarks, start-up and memory, ours against native and whatever peers are at hand, in one run.
//!
//! `cargo run --release -p tests --bin bench [--rounds=N] [NAME...]`. Peers: `crun` and `runc` from the path, or as
//! `CRUN` and `RUNC` name them; gVisor's runsc when `GVISOR_RUNSC` names it. Arguments are names of benchmarks
//! (`files`, `run-true` and `memory` among them); without any, all of them run. Everything runs in turns, column by
//! column, several rounds; a ratio is the median of the rounds' ratios, so that a machine that is busy now and then
//! hurts both sides. Judges nothing.

mod runtimes;

use runtimes::{LIMIT, Runtime, parse};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::bundle::Bundle;
use tests::{command, processes, rootfs, target_dir, workspace};

const ROUNDS: usize = 3;
/// Starts in each round.
const STARTS: usize = 7;
/// How long a sandbox is watched for its most memory, and when it counts as idle.
const WATCHED: Duration = Duration::from_millis(1500);

/// Rows, and in each of them the columns' values, one for each round.
#[derive(Default)]
struct Table(BTreeMap<String, BTreeMap<&'static str, Vec<f64>>>);

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

impl Table {
    fn add(&mut self, round: usize, column: &'static str, results: BTreeMap<String, f64>) {
        for (row, value) in results {
            let values = self.0.entry(row).or_default().entry(column).or_default();
            values.resize(round, f64::NAN);
            values.push(value);
        }
    }

    fn ratio(row: &BTreeMap<&'static str, Vec<f64>>, base: &str) -> String {
        let pairs = row.get("ours").into_iter().flatten().zip(row.get(base).into_iter().flatten());
        median(pairs.map(|(ours, base)| ours / base)).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
    }

    fn print(&self, columns: &[&'static str]) -> String {
        let mut out = format!("{:20}", "");
        for column in columns {
            let _ = write!(out, "{column:>13}");
        }
        out += "  ours/gvisor  /native  /crun\n";
        for (name, row) in &self.0 {
            let _ = write!(out, "{name:20}");
            for column in columns {
                let value = row.get(column).and_then(|values| median(values.iter().copied()));
                let _ = write!(out, "{:>13}", value.map_or("-".to_owned(), |value| format!("{value:.0}")));
            }
            let [gvisor, native, crun] = ["gvisor", "native", "crun"].map(|base| Table::ratio(row, base));
            let _ = writeln!(out, "{gvisor:>13}{native:>9}{crun:>7}");
        }
        out
    }
}

fn compiled(name: &str) -> PathBuf {
    let out = target_dir().join(format!("bench-{name}"));
    let source = workspace().join(format!("tests/bench/{name}.c"));
    let built = Command::new("gcc").args(["-static", "-O2", "-pthread", "-o"]).arg(&out).arg(source).status();
    assert!(built.is_ok_and(|status| status.success()), "{name}.c does not compile");
    out
}

/// A root file system of the benchmark's own: some runtimes make mount points in it.
fn own_root() -> PathBuf {
    let root = std::env::temp_dir().join(format!("gvisor-rs-bench-{}", std::process::id()));
    let copied = Command::new("cp").arg("-a").arg(rootfs::busybox()).arg(&root).status();
    assert!(copied.is_ok_and(|status| status.success()), "the root file system cannot be copied");
    root
}

fn scratch(dir: &Path) -> PathBuf {
    let made = dir.join(format!("bench-files-{}", std::process::id()));
    std::fs::create_dir_all(&made).expect("a folder to write to");
    made
}

/// `files.c` on tmpfs, on a bind mount, and on the root.
fn files_in(runtime: &Runtime, root: &Path, program: &Path) -> BTreeMap<String, f64> {
    let args = ["/bench", "tmpfs", "/tmp/bench", "bind", "/shared/bench", "root", "/root/bench"];
    let bundle = runtimes::bundle(root, &args).bind(program, "/bench", "ro");
    let shared = scratch(bundle.dir());
    runtime.results(&bundle.bind(&shared, "/shared", "rw"))
}

/// The same natively: a disk stands for root and bind, /dev/shm for tmpfs.
fn files_native(program: &Path) -> BTreeMap<String, f64> {
    let (disk, memory) = (scratch(&std::env::temp_dir()), scratch(Path::new("/dev/shm")));
    let mut command = Command::new(program);
    for (kind, dir) in [("tmpfs", &memory), ("bind", &disk), ("root", &disk)] {
        command.arg(kind).arg(dir.join("x"));
    }
    let results = parse(&command::run(&mut command, LIMIT).stdout);
    // Empty by now.
    let _ = (std::fs::remove_dir(&disk), std::fs::remove_dir(&memory));
    results
}

/// Memory of all processes of a sandbox that sleeps: the most in a second and a half, and then.
fn memory_of(runtime: &Runtime, bundle: &Bundle) -> BTreeMap<String, f64> {
    let mut command = runtime.command(bundle);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let start = Instant::now();
    let (mut most, mut last) = (0, 0);
    while start.elapsed() < WATCHED {
        // Whatever loses its parent comes to us; of us nothing else is there.
        let ours = std::process::id();
        let pids: Vec<u32> = processes::tree(ours).into_iter().filter(|pid| *pid != ours).collect();
        last = processes::pss_kib(&pids);
        most = most.max(last);
        std::thread::sleep(Duration::from_millis(5));
    }
    // It ends by itself.
    let _ = child.wait();
    let kib = |kib: u64| f64::from(u32::try_from(kib).unwrap_or(u32::MAX));
    [("memory-most-KiB", most), ("memory-idle-KiB", last)]
        .map(|(name, value)| (name.to_owned(), kib(value)))
        .into()
}

fn main() {
    let (micro, files) = (compiled("micro"), compiled("files"));
    let mut rounds = ROUNDS;
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    wanted.retain(|arg| match arg.strip_prefix("--rounds=") {
        Some(number) => {
            rounds = number.parse().expect("--rounds=N");
            false
        }
        None => true,
    });
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let names = command::run(Command::new(&micro).arg("-n").args(&wanted), LIMIT).stdout;
    // Sandboxes that lose their starter stay in our tree.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).expect("a subreaper");
    let root = own_root();
    let runtimes = runtimes::all();
    let mut table = Table::default();
    for round in 0..rounds {
        for name in names.lines() {
            table.add(round, "native", parse(&command::run(Command::new(&micro).arg(name), LIMIT).stdout));
            for runtime in runtimes.iter().filter(|runtime| runtime.works()) {
                let bundle = runtimes::bundle(&root, &["/bench", name]).bind(&micro, "/bench", "ro");
                table.add(round, runtime.name, runtime.results(&bundle));
            }
        }
        if wants("files") {
            table.add(round, "native", files_native(&files));
            for runtime in runtimes.iter().filter(|runtime| runtime.works()) {
                table.add(round, runtime.name, files_in(runtime, &root, &files));
            }
        }
        if wants("run-true") {
            let bundle = runtimes::bundle(&root, &["/bin/true"]);
            for start in 0..STARTS {
                for runtime in runtimes.iter().filter(|runtime| runtime.works()) {
                    let took = runtime.start(&bundle).into_iter();
                    let took = took.map(|took| ("run-true".to_owned(), took)).collect();
                    table.add(round * STARTS + start, runtime.name, took);
                }
            }
        }
        if wants("memory") {
            let bundle = runtimes::bundle(&root, &["/bin/sleep", "2"]);
            for runtime in runtimes.iter().filter(|runtime| runtime.works()) {
                table.add(round, runtime.name, memory_of(runtime, &bundle));
            }
        }
    }
    let columns: Vec<&str> =
        ["native"].into_iter().chain(runtimes.iter().map(|runtime| runtime.name)).collect();
    let mut out =
        format!("median of {rounds} rounds in turns; ns unless the name says KiB\n") + &table.print(&columns);
    for runtime in &runtimes {
        if let Some(why) = runtime.failed.take() {
            let _ = writeln!(out, "{} has failed: {why}", runtime.name);
        }
    }
    // What was made is small, and in the folder for temporary things.
    let _ = std::fs::remove_dir_all(&root);
    use std::io::Write;
    // A closed pipe ends the report, nothing else.
    let _ = std::io::stdout().write_all(out.as_bytes());
}
