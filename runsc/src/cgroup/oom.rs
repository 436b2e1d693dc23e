//! Has the host see that a guest's memory ran out.
//!
//! Callers learn of it from the container's cgroup on the host: containerd's shim and conmon watch
//! `memory.oom_control` (v1) or `memory.events` (v2). But the guest's kernel ends a process before the host's
//! limit, which stands above, is met. So before it does, a child of the monitor, of all the processes in the
//! cgroup the first that the host would kill, takes what is left. The host kills it, and its own files and
//! notices say what is true: the container was out of memory. The guest keeps what it has until then, so that
//! what is left is little.

use super::host::Group;
use super::limits::Groups;
use platform::spawn::{Child, Unshare, fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::OwnedFd;
use std::path::Path;

/// `oom_score_adj` of a process that the host kills before any other.
const FIRST_TO_DIE: &str = "1000";
/// What the child takes at a time.
const PIECE: u64 = 1 << 20;
/// What it takes beyond the limit at most: pages of the cgroup that the host can do without are given up first.
const BEYOND: u64 = 64 << 20;
/// Limits from here on are none: v1 has no word for it.
const NO_LIMIT: u64 = 1 << 60;
/// How long it may take.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// The limit of a container's cgroup, and the monitor's own `oom_score_adj`: open from before the monitor leaves
/// the host's mounts.
#[derive(Debug)]
pub(crate) struct Witness {
    limit: OwnedFd,
    score: OwnedFd,
}

impl Witness {
    pub(super) fn open(groups: &[Group]) -> Option<Witness> {
        let groups = Groups(groups);
        let limit = match (groups.v1("memory"), groups.v2_with("memory")) {
            (Some(dir), _) => dir.join("memory.limit_in_bytes"),
            (None, Some(dir)) => dir.join("memory.max"),
            (None, None) => return None,
        };
        let open = |path: &Path, how: OFlags| openat(CWD, path, how | OFlags::CLOEXEC, Mode::empty()).ok();
        Some(Witness {
            limit: open(&limit, OFlags::RDONLY)?,
            score: open(Path::new("/proc/self/oom_score_adj"), OFlags::RDWR)?,
        })
    }

    /// Has the host find the cgroup out of memory, once. What fails on the way leaves it untold.
    pub(crate) fn testify(&self) {
        let limit = text(&self.limit).and_then(|text| text.parse::<u64>().ok());
        let Some(limit) = limit.filter(|limit| *limit < NO_LIMIT) else { return };
        let Some(score) = text(&self.score) else { return };
        if !put(&self.score, FIRST_TO_DIE) {
            return;
        }
        let child = fork(Unshare::empty(), || fill(limit));
        put(&self.score, &score);
        if let Ok(child) = child {
            end(&child);
        }
    }
}

/// The child's whole life.
fn fill(limit: u64) -> u8 {
    let _ = rustix::thread::set_name(c"runsc-oom");
    let piece = usize::try_from(PIECE).unwrap_or(usize::MAX);
    let held: Vec<_> =
        (0..(limit + BEYOND) / PIECE).map(|_| std::hint::black_box(vec![1_u8; piece])).collect();
    drop(held);
    1
}

/// Waits for the child's end, and brings it about if it does not come.
fn end(child: &Child) {
    let _ = poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], Some(&PATIENCE));
    crate::sandbox::monitor::kill_and_reap(child);
}

fn text(file: &OwnedFd) -> Option<String> {
    let mut buffer = [0_u8; 64];
    let length = rustix::io::pread(file, &mut buffer, 0).ok()?;
    Some(String::from_utf8_lossy(buffer.get(..length)?).trim().to_owned())
}

fn put(file: &OwnedFd, value: &str) -> bool {
    rustix::io::pwrite(file, value.as_bytes(), 0).is_ok()
}
