//! A container engine under test, and the transcript of what it said.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tests::command::{self, Done};
use tests::rootfs;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Runtimes side by side: the reference, and ours.
pub(crate) fn runtimes() -> [PathBuf; 2] {
    [PathBuf::from("runc"), tests::runsc().to_path_buf()]
}

/// A folder of its own, removed when dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(kind: &str) -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Short: sockets lie in it.
        let path = std::env::temp_dir().join(format!("{kind}{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs an engine's import of an image from standard input: the busybox root.
#[track_caller]
pub(crate) fn import_busybox(import: &mut Command) {
    let mut tar = Command::new("tar")
        .arg("-C")
        .arg(rootfs::busybox())
        .args(["-c", "."])
        .stdout(Stdio::piped())
        .spawn()
        .expect("tar starts");
    let image = tar.stdout.take().expect("a pipe");
    let imported = import.stdin(image).stdout(Stdio::null()).status().expect("the engine starts");
    assert!(imported.success(), "{import:?}");
    assert!(tar.wait().expect("tar ends").success(), "tar");
}

/// An engine's command line.
pub(crate) trait Engine {
    /// The command with its own flags.
    fn command(&self) -> Command;

    /// Runs one command.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Done {
        command::run(self.command().args(args), LIMIT)
    }

    /// Runs one command that must succeed; its output without white space around it.
    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        self.run(args).expect_ok(&args.join(" ")).stdout.trim().to_owned()
    }

    /// Runs one command and writes down what it said on standard output and how it ended.
    #[track_caller]
    fn note(&self, log: &mut String, args: &[&str]) {
        let done = self.run(args);
        note(log, &args.join(" "), &done.stdout, done.code());
    }

    /// Asks until the answer is `wanted`.
    #[track_caller]
    fn until(&self, args: &[&str], wanted: &str) {
        let end = Instant::now() + LIMIT;
        loop {
            let said = self.run(args).stdout;
            if said.trim() == wanted {
                return;
            }
            assert!(Instant::now() < end, "{args:?} says {said:?}, not {wanted:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Limits of memory and processes as the guest has them, changed on the way; figures. `run` and `detach` start a
/// container in front and behind.
#[track_caller]
pub(crate) fn limits(engine: &impl Engine, log: &mut String, run: &[&str], detach: &[&str]) {
    // The guest sees cgroup v2, or what the host has.
    const SHOW: &str = "cd /sys/fs/cgroup; cat memory.max pids.max 2>/dev/null ||
        cat memory/memory.limit_in_bytes pids/pids.max";
    const FORK: &str = "for i in $(seq 60); do sleep 3 & done 2>/dev/null";
    let idle = "while :; do sleep 1; done";
    let limited = ["--name", "limited", "--memory", "64m", "--pids-limit", "50", "busybox", "sh", "-c", idle];
    engine.ok(&[detach, &limited[..]].concat());
    engine.note(log, &["exec", "limited", "sh", "-c", SHOW]);
    engine.note(log, &["stats", "--no-stream", "--format", "{{.Name}}", "limited"]);
    let usage = engine.ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "limited"]);
    let number = usage.trim_start_matches(['0', '.']);
    assert!(number.starts_with(|c: char| c.is_ascii_digit()), "{usage}");
    engine.note(log, &["update", "--memory", "96m", "limited"]);
    engine.note(log, &["exec", "limited", "sh", "-c", SHOW]);
    // The shell gives up with status 2.
    engine.note(log, &["exec", "limited", "sh", "-c", FORK]);
    engine.ok(&["rm", "-f", "limited"]);
    let hog = ["--memory", "32m", "busybox", "sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M; echo $?"];
    engine.note(log, &[run, &hog[..]].concat());
}

/// Writes one command down.
pub(crate) fn note(log: &mut String, command: &str, stdout: &str, code: i32) {
    let _ = writeln!(log, "$ {command}\n{}= {code}", hide_ids(stdout));
}

/// Ids of containers and images differ from run to run, and the words of a runtime's refusal are its own.
fn hide_ids(text: &str) -> String {
    const REFUSED: &str = "OCI runtime exec failed";
    if text.starts_with(REFUSED) {
        return format!("{REFUSED}\n");
    }
    let words = text.split_inclusive(char::is_whitespace).map(|word| {
        let core = word.trim();
        let hex = core.strip_prefix("sha256:").unwrap_or(core);
        if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) { "ID\n" } else { word }
    });
    words.collect()
}

/// Compares transcripts line by line.
#[track_caller]
pub(crate) fn same(reference: &str, ours: &str) {
    assert!(reference == ours, "runc's:\n{reference}\nrunsc's:\n{ours}");
}
