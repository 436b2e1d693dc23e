//! Micro-benchmarks and start-up, ours against native and whatever peers are at hand, in one run.
//!
//! `cargo run --release -p tests --bin bench`. Peers: `crun` and `runc` from the path; gVisor's runsc when
//! `GVISOR_RUNSC` names it. Prints medians and ratios; judges nothing. Arguments are names of benchmarks; without
//! any, all of them run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::bundle::Bundle;
use tests::{command, rootfs, runsc, target_dir, workspace};

const LIMIT: Duration = Duration::from_secs(300);
const STARTS: usize = 15;

struct Runtime {
    name: &'static str,
    program: PathBuf,
    global: Vec<String>,
}

impl Runtime {
    fn command(&self, bundle: &Bundle, id: &str) -> Command {
        bundle.write();
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(bundle.dir().join(format!("state-{}", self.name))).args(&self.global);
        command.args(["run", "--bundle"]).arg(bundle.dir()).arg(id);
        command
    }
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

fn runtimes() -> Vec<Runtime> {
    let list = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let mut found = vec![
        Runtime { name: "ours", program: runsc().to_path_buf(), global: list(&["--platform=systrap"]) },
        Runtime { name: "ours-ptrace", program: runsc().to_path_buf(), global: list(&["--platform=ptrace"]) },
    ];
    if let Some(program) = std::env::var_os("GVISOR_RUNSC") {
        let global = list(&["--platform=systrap", "--network=none", "--ignore-cgroups"]);
        found.push(Runtime { name: "gvisor", program: program.into(), global });
    }
    for name in ["crun", "runc"] {
        if let Some(program) =
            std::env::var_os(name.to_uppercase()).map(PathBuf::from).or_else(|| on_path(name))
        {
            found.push(Runtime { name, program, global: Vec::new() });
        }
    }
    found
}

fn compiled(name: &str) -> PathBuf {
    let out = target_dir().join(format!("bench-{name}"));
    let source = workspace().join(format!("tests/bench/{name}.c"));
    let built = Command::new("gcc").args(["-static", "-O2", "-pthread", "-o"]).arg(&out).arg(source).status();
    assert!(built.is_ok_and(|status| status.success()), "{name}.c does not compile");
    out
}

/// `files.c` on tmpfs, on a bind mount, and on our own root (a peer would write to the tests' root file system).
fn files_in(runtime: &Runtime, program: &Path) -> BTreeMap<String, f64> {
    let mut args = vec!["/bench", "tmpfs", "/tmp/bench", "bind", "/shared/bench"];
    if runtime.name.starts_with("ours") {
        args.extend(["root", "/root/bench"]);
    }
    let bundle = Bundle::new(rootfs::busybox(), &args).bind(program, "/bench", "ro");
    let shared = scratch(bundle.dir());
    let mut bundle = bundle.bind(&shared, "/shared", "rw");
    bundle.config["annotations"] = serde_json::json!({"io.gvisor-rs.overlay2": "root:memory"});
    let mut command = runtime.command(&bundle, &format!("bench-files-{}", std::process::id()));
    parse(&command::run(&mut command, LIMIT).stdout)
}

fn scratch(dir: &Path) -> PathBuf {
    let made = dir.join(format!("bench-files-{}", std::process::id()));
    std::fs::create_dir_all(&made).expect("a folder to write to");
    made
}

/// The same natively: a disk stands for root and bind, /dev/shm for tmpfs.
fn files_native(program: &Path) -> BTreeMap<String, f64> {
    let (disk, memory) = (scratch(&std::env::temp_dir()), scratch(Path::new("/dev/shm")));
    let mut command = Command::new(program);
    command
        .arg("tmpfs")
        .arg(memory.join("x"))
        .arg("bind")
        .arg(disk.join("x"))
        .arg("root")
        .arg(disk.join("x"));
    let results = parse(&command::run(&mut command, LIMIT).stdout);
    // Empty by now.
    let _ = (std::fs::remove_dir(&disk), std::fs::remove_dir(&memory));
    results
}

fn parse(text: &str) -> BTreeMap<String, f64> {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn start_ms(runtime: &Runtime) -> Option<f64> {
    let bundle = Bundle::new(rootfs::busybox(), &["/bin/true"]);
    let mut times = Vec::new();
    for at in 0..STARTS {
        let mut command = runtime.command(&bundle, &format!("bench-{}-{at}", std::process::id()));
        let started = Instant::now();
        let status =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        if !status.success() {
            return None;
        }
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

fn main() {
    let (program, files) = (compiled("micro"), compiled("files"));
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let starts = wanted.is_empty() || wanted.iter().any(|name| name == "run-true");
    let mut native = parse(&command::run(Command::new(&program).args(&wanted), LIMIT).stdout);
    let with_files = wanted.is_empty() || wanted.iter().any(|name| name == "files");
    if with_files {
        native.extend(files_native(&files));
    }
    let runtimes = runtimes();
    let mut columns = Vec::new();
    for runtime in &runtimes {
        let args: Vec<&str> = ["/bench"].into_iter().chain(wanted.iter().map(String::as_str)).collect();
        let bundle = Bundle::new(rootfs::busybox(), &args).bind(&program, "/bench", "ro");
        let mut command = runtime.command(&bundle, &format!("bench-{}", std::process::id()));
        let mut results = parse(&command::run(&mut command, LIMIT).stdout);
        if with_files {
            results.extend(files_in(runtime, &files));
        }
        if starts && let Some(ms) = start_ms(runtime) {
            results.insert("run-true".to_owned(), ms * 1e6);
        }
        columns.push((runtime.name, results));
    }
    let gvisor = columns.iter().find(|(name, _)| *name == "gvisor").map(|(_, results)| results.clone());
    let mut names: Vec<String> = native.keys().cloned().collect();
    names.extend(starts.then(|| "run-true".to_owned()));
    let mut out = format!("{:20}{:>12}", "ns", "native");
    for (name, _) in &columns {
        out += &format!("{name:>14}");
    }
    out += "   ours/gvisor  ours/native\n";
    for name in names {
        let here = native.get(&name);
        out += &format!("{name:20}{:>12}", here.map_or("-".to_owned(), |ns| format!("{ns:.0}")));
        for (_, results) in &columns {
            out += &format!("{:>14}", results.get(&name).map_or("-".to_owned(), |ns| format!("{ns:.0}")));
        }
        let ours = columns.first().and_then(|(_, results)| results.get(&name));
        let ratio = |base: Option<&f64>| match (ours, base) {
            (Some(ours), Some(base)) if *base > 0.0 => format!("{:.2}", ours / base),
            _ => "-".to_owned(),
        };
        out += &format!("{:>14}{:>13}\n", ratio(gvisor.as_ref().and_then(|g| g.get(&name))), ratio(here));
    }
    use std::io::Write;
    // A closed pipe ends the report, nothing else.
    let _ = std::io::stdout().write_all(out.as_bytes());
}
