//! The end of a container's cgroups on the host.
//!
//! A cgroup can be removed once the last process in it has ended, and only cgroup v2 tells of that. So the
//! processes that are listed are waited for themselves, by pidfd. A process leaves its cgroups before its pidfd
//! becomes readable, and one that is on its way out is listed until then.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How deep groups that were made below a container's are looked for.
const DEPTH_MAX: u32 = 16;
/// Until a group that nobody is shown in is tried again: who is in it has no pid that we could see.
const UNSEEN: Duration = Duration::from_millis(20);
/// Processes that are waited for at once.
const AT_ONCE: usize = 256;

/// Removes trees of groups, each once the processes in it have ended. The first that is there after `patience`.
pub(super) fn trees(paths: &[&Path], patience: Duration) -> Result<(), PathBuf> {
    let deadline = Instant::now() + patience;
    loop {
        let left: Vec<&Path> = paths.iter().copied().filter(|path| !tree(path, 0)).collect();
        let Some(first) = left.first() else { return Ok(()) };
        let now = Instant::now();
        if now >= deadline {
            return Err(first.to_path_buf());
        }
        let mut inside = Vec::new();
        left.iter().for_each(|path| processes(path, 0, &mut inside));
        let patience = deadline - now;
        wait_for_one(&inside, if inside.is_empty() { patience.min(UNSEEN) } else { patience });
    }
}

/// Until one of them has ended, or for so long.
fn wait_for_one(processes: &[OwnedFd], patience: Duration) {
    let mut fds: Vec<PollFd<'_>> = processes.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let patience = Timespec::try_from(patience).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
    // A signal that came instead only has the caller look earlier.
    let _ = poll(&mut fds, Some(&patience));
}

fn below(path: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Removes a group and those below it; whether it is gone.
fn tree(path: &Path, depth: u32) -> bool {
    if depth < DEPTH_MAX {
        for child in below(path) {
            tree(&child, depth + 1);
        }
    }
    match std::fs::remove_dir(path) {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

/// The processes in a group and in those below it, as far as they can be waited for.
fn processes(path: &Path, depth: u32, found: &mut Vec<OwnedFd>) {
    if depth < DEPTH_MAX {
        for child in below(path) {
            processes(&child, depth + 1, found);
        }
    }
    let list = std::fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    // One of another pid namespace is listed as 0.
    let pids = list.lines().filter_map(|line| Pid::from_raw(line.parse().ok().filter(|pid| *pid > 0)?));
    let room = AT_ONCE.saturating_sub(found.len());
    found.extend(pids.filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()).take(room));
}

#[cfg(test)]
mod tests {
    use super::trees;
    use std::fs;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    #[test]
    fn what_cannot_be_removed_is_named_when_the_time_is_over() {
        let dir = std::env::temp_dir().join(format!("gvisor-rs-groups-{}", std::process::id()));
        fs::create_dir_all(dir.join("inner")).unwrap();
        // A plain file keeps the directory, as a process would; its list names one that ends.
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::piped()).spawn().unwrap();
        fs::write(dir.join("cgroup.procs"), format!("0\n{}\n", child.id())).unwrap();
        let begun = Instant::now();
        assert_eq!(trees(&[&dir], Duration::from_millis(50)), Err(dir.clone()));
        assert!(begun.elapsed() >= Duration::from_millis(50) && !dir.join("inner").exists());
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(dir.join("cgroup.procs")).unwrap();
        assert_eq!(trees(&[&dir], Duration::from_millis(50)), Ok(()));
        assert!(!dir.exists());
    }
}
