//! Has the host see that a guest's memory ran out.
//!
//! Callers learn of it from the container's cgroup on the host: containerd's shim and conmon watch
//! `memory.oom_control` (v1) or `memory.events` (v2). But the guest's kernel ends a process before the host's
//! limit, which stands above, is met. So when it does, a child of the monitor, of all the processes in the
//! cgroup the first that the host would kill, takes what is left below a limit that is lowered for it. The
//! host kills it, and its own files and notices say what is true: the container was out of memory.

use super::host::Group;
use super::limits::Groups;
use platform::spawn::{Child, Unshare, fork};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::OwnedFd;
use std::path::Path;

/// `oom_score_adj` of a process that the host kills before any other.
const FIRST_TO_DIE: &str = "1000";
/// Room that the lowered limit leaves to the guest meanwhile.
const ROOM: u64 = 16 << 20;
/// What the child takes in a round: more than the room.
const ROUND_MIB: usize = 24;
/// Rounds, of which each lowers the limit again: what the guest's killed process had comes free meanwhile.
const ROUNDS: usize = 20;
/// How long it may take.
const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// Files of a container's cgroup, and the monitor's own `oom_score_adj`: open from before the monitor leaves
/// the host's mounts.
#[derive(Debug)]
pub(crate) struct Witness {
    limit: OwnedFd,
    usage: OwnedFd,
    stat: OwnedFd,
    score: OwnedFd,
}

impl Witness {
    pub(super) fn open(groups: &[Group]) -> Option<Witness> {
        let groups = Groups(groups);
        let (dir, limit, usage) = match (groups.v1("memory"), groups.v2_with("memory")) {
            (Some(dir), _) => (dir, "memory.limit_in_bytes", "memory.usage_in_bytes"),
            (None, Some(dir)) => (dir, "memory.max", "memory.current"),
            (None, None) => return None,
        };
        let open = |path: &Path, how: OFlags| openat(CWD, path, how | OFlags::CLOEXEC, Mode::empty()).ok();
        Some(Witness {
            limit: open(&dir.join(limit), OFlags::RDWR)?,
            usage: open(&dir.join(usage), OFlags::RDONLY)?,
            stat: open(&dir.join("memory.stat"), OFlags::RDONLY)?,
            score: open(Path::new("/proc/self/oom_score_adj"), OFlags::RDWR)?,
        })
    }

    /// Has the host find the cgroup out of memory, once. What fails on the way leaves it untold.
    pub(crate) fn testify(&self) {
        let (Some(before), Some(score)) = (text(&self.limit), text(&self.score)) else { return };
        if !put(&self.score, FIRST_TO_DIE) {
            return;
        }
        let child = fork(Unshare::empty(), || self.fill());
        put(&self.score, &score);
        if let Ok(child) = child {
            end(&child);
        }
        put(&self.limit, &before);
    }

    /// The child's whole life.
    fn fill(&self) -> u8 {
        let _ = rustix::thread::set_name(c"runsc-oom");
        let mut held = Vec::new();
        for _ in 0..ROUNDS {
            let Some(usage) = text(&self.usage).and_then(|text| text.parse::<u64>().ok()) else { return 1 };
            let lowest = usage.saturating_sub(self.reclaimable());
            // v1 refuses a limit below what cannot be reclaimed.
            let lowered = put(&self.limit, &rounded(lowest)) || put(&self.limit, &rounded(usage));
            if !lowered {
                return 1;
            }
            held.extend((0..ROUND_MIB).map(|_| vec![1_u8; 1 << 20]));
            std::hint::black_box(&held);
        }
        1
    }

    /// Bytes of cached files: the host gives them up before it kills.
    fn reclaimable(&self) -> u64 {
        let table = text(&self.stat).unwrap_or_default();
        let lines = table.lines().filter_map(|line| line.split_once(' '));
        let files = lines.filter(|(name, _)| matches!(*name, "active_file" | "inactive_file"));
        files.filter_map(|(_, value)| value.parse::<u64>().ok()).sum()
    }
}

fn rounded(usage: u64) -> String {
    (usage.saturating_add(ROOM) / 4096 * 4096).to_string()
}

/// Waits for the child's end, and brings it about if it does not come.
fn end(child: &Child) {
    let _ = poll(&mut [PollFd::new(&child.pidfd, PollFlags::IN)], Some(&PATIENCE));
    crate::sandbox::monitor::kill_and_reap(child);
}

fn text(file: &OwnedFd) -> Option<String> {
    let mut buffer = [0_u8; 16 << 10];
    let length = rustix::io::pread(file, &mut buffer, 0).ok()?;
    Some(String::from_utf8_lossy(buffer.get(..length)?).trim().to_owned())
}

fn put(file: &OwnedFd, value: &str) -> bool {
    rustix::io::pwrite(file, value.as_bytes(), 0).is_ok()
}
