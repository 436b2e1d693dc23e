//! The directory of all containers.

use super::{ProcessRef, Record, Status};
use crate::cgroup::Membership;
use crate::cli::Global;
use crate::error::{Doing, Failure, Outcome};
use crate::sandbox::ids::is_root_of_users;
use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, mkdirat, openat, renameat_with,
    statat, unlinkat,
};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const STATE: &str = "state.json";
const STATE_NEW: &str = "state.json.new";
/// Between id and pid in the name of a directory that is being made; no id has it.
const BEGINNING: char = '~';
/// A [`Note`].
const NOTE: &str = "cgroups.json";
const NOTE_NEW: &str = "cgroups.json.new";
/// Socket of the sandbox, in the directory of its first container.
pub(crate) const SOCKET: &str = "control.sock";

/// How often a directory that others make and remove is tried.
const RACES: usize = 100;

/// `--root`.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// What there is of a container from before it is made until it stands in the record: for whoever cleans up when its
/// create was killed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Cgroups.
    #[serde(flatten)]
    pub(crate) cgroup: Membership,
    /// The monitor, with which all other processes end.
    #[serde(default)]
    pub(crate) monitor: Option<ProcessRef>,
}

impl Note {
    /// Ends and removes it.
    fn clear_away(&self) -> Outcome<()> {
        if let Some(monitor) = self.monitor.filter(|monitor| !monitor.is_own()) {
            monitor.kill();
            monitor.await_end();
        }
        self.cgroup.remove()
    }
}

/// A container's directory, locked.
#[derive(Debug)]
pub(crate) struct Held {
    dir: OwnedFd,
    /// Where it is.
    pub(crate) path: PathBuf,
}

/// How long a lock is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    /// Until its holder lets go.
    Yes,
    /// Not at all.
    No,
}

impl Store {
    /// The store of these flags; nothing is made yet.
    pub(crate) fn open(global: &Global) -> Outcome<Store> {
        let root = match &global.root {
            Some(root) => std::path::absolute(root).doing(|| format!("--root {}", root.display()))?,
            None if is_rootful() => PathBuf::from("/run/gvisor-rs"),
            None => match std::env::var_os("XDG_RUNTIME_DIR") {
                Some(dir) => Path::new(&dir).join("gvisor-rs"),
                None => PathBuf::from(format!("/tmp/gvisor-rs-{}", rustix::process::geteuid().as_raw())),
            },
        };
        Ok(Store { root })
    }

    /// Makes the directory of a new container, locked. Fails when there is one. A directory without a record
    /// that nobody holds is what a killed `create` left: it is empty of meaning and may be used.
    pub(crate) fn create(&self, id: &str) -> Outcome<Held> {
        check_id(id)?;
        let taken = || Failure::new(format!("container with given ID already exists: {id:?}"));
        // Nobody else's business, as runc has it.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .doing(|| format!("--root {}", self.root.display()))?;
        let path = self.root.join(id);
        // Others may make, take and remove it at the same time; whoever locks it first has it.
        for _ in 0..RACES {
            if !path.exists() {
                match self.make(id)? {
                    Some(held) => return Ok(held),
                    None => continue,
                }
            }
            let Some(held) = self.hold(id, Wait::No)? else {
                if path.exists() {
                    return Err(taken());
                }
                continue;
            };
            if held.read()?.is_some() {
                return Err(taken());
            }
            held.clear_away()?;
            held.clear()?;
            held.note(&Note::default())?;
            return Ok(held);
        }
        Err(taken())
    }

    /// Makes a container's directory, which nobody ever sees unlocked or without a note. `None` when others were first.
    fn make(&self, id: &str) -> Outcome<Option<Held>> {
        let path = self.root.join(id);
        let what = || format!("create {}", path.display());
        let beginning = format!("{id}{BEGINNING}{}", rustix::process::getpid().as_raw_pid());
        match mkdirat(CWD, self.root.join(&beginning), Mode::RWXU) {
            // Of a process that had this pid before.
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error).doing(what),
        }
        // Somebody sweeps it at this moment, or has.
        let Some(mut held) = self.hold(&beginning, Wait::Yes)? else { return Ok(None) };
        held.note(&Note::default())?;
        let rename = |flags| renameat_with(CWD, &held.path, CWD, &path, flags);
        let renamed = match rename(RenameFlags::NOREPLACE) {
            // Not every file system knows this; a directory that has a note is in nobody's way.
            Err(rustix::io::Errno::INVAL) => rename(RenameFlags::empty()),
            other => other,
        };
        match renamed {
            Ok(()) => {
                held.path = path;
                Ok(Some(held))
            }
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => held.remove().map(|()| None),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error).doing(what),
        }
    }

    /// Locks a container's directory. `None`: somebody else holds it and it is not waited for, or it was
    /// removed meanwhile.
    fn hold(&self, id: &str, wait: Wait) -> Outcome<Option<Held>> {
        let path = self.root.join(id);
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = match openat(CWD, &path, flags, Mode::empty()) {
            Ok(dir) => dir,
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error).doing(|| path.display()),
        };
        let how = match wait {
            Wait::Yes => FlockOperation::LockExclusive,
            Wait::No => FlockOperation::NonBlockingLockExclusive,
        };
        loop {
            match flock(&dir, how) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                other => break other.doing(|| format!("lock {}", path.display()))?,
            }
        }
        let held = Held { dir, path };
        Ok(held.is_current().then_some(held))
    }

    /// Locks what is there of a container, if nobody else holds it.
    pub(crate) fn try_hold(&self, id: &str) -> Option<Held> {
        self.hold(id, Wait::No).ok().flatten()
    }

    /// Removes what creates left that were killed before there was a record: nobody knows of it.
    pub(crate) fn sweep(&self) {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        for id in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
            let dir = self.root.join(&id);
            if is_beginning(&id) || !dir.join(STATE).exists() && dir.join(NOTE).exists() {
                self.abandon(&id, Wait::No);
            }
        }
    }

    /// Removes what a create left that was killed before there was a record, unless somebody else does.
    pub(crate) fn abandon(&self, id: &str, wait: Wait) {
        let held = self.hold(id, wait).ok().flatten();
        let Some(held) = held.filter(|held| matches!(held.read(), Ok(None))) else { return };
        // What cannot be removed now stays noted.
        if held.clear_away().is_ok() {
            let _ = held.remove();
        }
    }

    /// Locks the directory of a container that is there.
    fn hold_existing(&self, id: &str) -> Outcome<Held> {
        for _ in 0..RACES {
            if let Some(held) = self.hold(id, Wait::Yes)? {
                return Ok(held);
            }
            if !self.root.join(id).exists() {
                break;
            }
        }
        Err(no_container(id))
    }

    /// Locks a container and reads its record.
    pub(crate) fn load(&self, id: &str) -> Outcome<(Held, Record)> {
        check_id(id)?;
        let held = self.hold_existing(id)?;
        let record = held.read()?.ok_or_else(|| no_container(id))?;
        Ok((held, record))
    }

    /// Locks whatever there is of a container, with its record if it has one.
    pub(crate) fn load_any(&self, id: &str) -> Outcome<(Held, Option<Record>)> {
        check_id(id)?;
        let held = self.hold_existing(id)?;
        let record = held.read().unwrap_or_default();
        Ok((held, record))
    }

    /// Reads a record without the lock; rename makes that safe.
    pub(crate) fn peek(&self, id: &str) -> Outcome<Record> {
        check_id(id)?;
        let path = self.root.join(id).join(STATE);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(no_container(id)),
            Err(error) => return Err(error).doing(|| path.display()),
        };
        serde_json::from_slice(&text).doing(|| path.display())
    }

    /// All containers, by id.
    pub(crate) fn list(&self) -> Outcome<Vec<Record>> {
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).doing(|| format!("--root {}", self.root.display())),
        };
        let mut records: Vec<Record> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|id| self.peek(&id).ok())
            .collect();
        records.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(records)
    }

    /// Where the socket of a sandbox is.
    pub(crate) fn socket(&self, sandbox: &str) -> PathBuf {
        self.root.join(sandbox).join(SOCKET)
    }
}

impl Held {
    /// The record, if there is one.
    pub(crate) fn read(&self) -> Outcome<Option<Record>> {
        let file = match openat(&self.dir, STATE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).doing(|| self.path.join(STATE).display().to_string()),
        };
        let mut text = Vec::new();
        File::from(file).read_to_end(&mut text).doing(|| self.path.join(STATE).display().to_string())?;
        serde_json::from_slice(&text).map(Some).doing(|| self.path.join(STATE).display().to_string())
    }

    /// Writes the record.
    pub(crate) fn write(&self, record: &Record) -> Outcome<()> {
        self.put(STATE, STATE_NEW, record)
    }

    /// Notes what is about to be made.
    pub(crate) fn note(&self, note: &Note) -> Outcome<()> {
        self.put(NOTE, NOTE_NEW, note)
    }

    fn put(&self, name: &str, temporary: &str, what: &impl Serialize) -> Outcome<()> {
        let path = || self.path.join(name).display().to_string();
        let text = serde_json::to_vec(what).doing(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = openat(&self.dir, temporary, flags, Mode::RUSR | Mode::WUSR).doing(path)?;
        File::from(file).write_all(&text).doing(path)?;
        renameat_with(&self.dir, temporary, &self.dir, name, RenameFlags::empty()).doing(path)
    }

    /// Ends and removes what [`Held::note`] has noted.
    pub(crate) fn clear_away(&self) -> Outcome<()> {
        let note = openat(&self.dir, NOTE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        let note = note.and_then(|file| serde_json::from_reader::<_, Note>(File::from(file)).ok());
        note.map_or(Ok(()), |note| note.clear_away())
    }

    /// Lets others have the container while this process runs it.
    pub(crate) fn unlock(&self) {
        let _ = flock(&self.dir, FlockOperation::Unlock);
    }

    /// Locks it again.
    pub(crate) fn relock(&self) {
        while let Err(rustix::io::Errno::INTR) = flock(&self.dir, FlockOperation::LockExclusive) {}
    }

    /// Updates the last known status.
    pub(crate) fn mark(&self, record: &mut Record, status: Status) -> Outcome<()> {
        record.last = status;
        self.write(record)
    }

    fn clear(&self) -> Outcome<()> {
        // The note goes last: without a record it is what tells that this was a container.
        for name in [STATE, STATE_NEW, SOCKET, NOTE_NEW, NOTE] {
            match unlinkat(&self.dir, name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => {
                    return Err(error).doing(|| format!("remove {}", self.path.join(name).display()));
                }
            }
        }
        Ok(())
    }

    /// Whether the path still names this directory: it may have been removed, and made again by others,
    /// before the lock was got.
    fn is_current(&self) -> bool {
        let named = statat(CWD, &self.path, AtFlags::SYMLINK_NOFOLLOW);
        matches!((named, fstat(&self.dir)), (Ok(a), Ok(b)) if a.st_ino == b.st_ino && a.st_dev == b.st_dev)
    }

    /// Removes the container's directory.
    pub(crate) fn remove(self) -> Outcome<()> {
        if !self.is_current() {
            return Ok(());
        }
        self.clear()?;
        match unlinkat(CWD, &self.path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error).doing(|| format!("remove {}", self.path.display())),
        }
    }
}

/// What callers look for when they ask after a container that is gone.
pub(crate) fn no_container(id: &str) -> Failure {
    Failure::new(format!("container {id:?} does not exist"))
}

/// Root of the host, or one that calls itself so: the root of a user namespace whose `USER` is another
/// (rootless Podman) keeps its state where that user does, as under runc.
fn is_rootful() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    is_root && (!is_root_of_users() || std::env::var_os("USER").is_some_and(|user| user == "root"))
}

/// Whether a directory was never finished: see [`Store::make`].
fn is_beginning(name: &str) -> bool {
    let pid = name.rsplit_once(BEGINNING).map(|(_, pid)| pid);
    pid.is_some_and(|pid| !pid.is_empty() && pid.chars().all(|c| c.is_ascii_digit()))
}

/// runc's rule: letters, digits and `_+-.`, not `.` or `..`.
fn check_id(id: &str) -> Outcome<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.chars().all(fine) {
        return Err(Failure::new(format!("container id {id:?}: must be letters, digits and _+-. only")));
    }
    Ok(())
}
