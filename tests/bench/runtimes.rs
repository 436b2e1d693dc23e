//! The runtimes that are compared, and the bundles they run.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::bundle::{Bundle, set};
use tests::{command, runsc};

/// How long one run of a benchmark may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// One column of the table.
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    program: PathBuf,
    global: Vec<String>,
    runs: Cell<u32>,
    /// What it said when it failed; it is left out from then on.
    pub(crate) failed: Cell<Option<String>>,
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// Ours on both platforms, and the peers at hand.
pub(crate) fn all() -> Vec<Runtime> {
    let new = |name, program: &Path, global: &[&str]| Runtime {
        name,
        program: program.to_path_buf(),
        global: global.iter().map(|arg| (*arg).to_owned()).collect(),
        runs: Cell::new(0),
        failed: Cell::new(None),
    };
    let mut found = vec![
        new("ours", runsc(), &["--platform=systrap"]),
        new("ours-ptrace", runsc(), &["--platform=ptrace"]),
    ];
    if let Some(program) = std::env::var_os("GVISOR_RUNSC") {
        let global = ["--platform=systrap", "--network=none", "--ignore-cgroups"];
        found.push(new("gvisor", Path::new(&program), &global));
    }
    for name in ["crun", "runc"] {
        let named = std::env::var_os(name.to_uppercase()).map(PathBuf::from);
        if let Some(program) = named.or_else(|| on_path(name)) {
            found.push(new(name, &program, &[]));
        }
    }
    found
}

/// A bundle that every runtime accepts: the capabilities are those of `runc spec`, which any root has.
pub(crate) fn bundle(root: &Path, args: &[&str]) -> Bundle {
    let mut bundle = Bundle::new(root, args);
    let caps = serde_json::json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let caps = serde_json::json!({"bounding": caps, "effective": caps, "permitted": caps});
    set(&mut bundle, "/process/capabilities", caps);
    bundle
}

impl Runtime {
    /// `run` of the bundle under a new id.
    pub(crate) fn command(&self, bundle: &Bundle) -> Command {
        bundle.write();
        self.runs.set(self.runs.get() + 1);
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(bundle.dir().join(format!("state-{}", self.name))).args(&self.global);
        command.args(["run", "--bundle"]).arg(bundle.dir());
        command.arg(format!("{}-{}-{}", bundle.id(), self.name, self.runs.get()));
        command
    }

    /// What a benchmark prints in here: lines of a name and nanoseconds.
    pub(crate) fn results(&self, bundle: &Bundle) -> BTreeMap<String, f64> {
        let done = command::run(&mut self.command(bundle), LIMIT);
        if done.code() != 0 {
            self.fail(&format!("status {}: {}", done.code(), done.stderr.trim()));
        }
        parse(&done.stdout)
    }

    /// Wall time of a `run` from start to end, in nanoseconds.
    pub(crate) fn start(&self, bundle: &Bundle) -> Option<f64> {
        let mut command = self.command(bundle);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let started = Instant::now();
        let status = command.status().ok()?;
        let took = started.elapsed();
        if !status.success() {
            self.fail(&format!("{status} without a word"));
            return None;
        }
        Some(took.as_secs_f64() * 1e9)
    }

    fn fail(&self, why: &str) {
        self.failed.set(Some(why.lines().next_back().unwrap_or_default().to_owned()));
    }

    /// Whether it has not failed yet.
    pub(crate) fn works(&self) -> bool {
        let failed = self.failed.take();
        let works = failed.is_none();
        self.failed.set(failed);
        works
    }
}

/// Lines of a name and a number.
pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}
