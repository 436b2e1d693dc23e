//! The directory of all containers.

use super::{Record, Status};
use crate::cli::Global;
use crate::error::{Doing, Failure, Outcome};
use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, mkdirat, openat, renameat_with, unlinkat,
};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const STATE: &str = "state.json";
const STATE_NEW: &str = "state.json.new";
/// Socket of the sandbox, in the directory of its first container.
pub(crate) const SOCKET: &str = "control.sock";

/// `--root`.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// A container's directory, locked.
#[derive(Debug)]
pub(crate) struct Held {
    dir: OwnedFd,
    /// Where it is.
    pub(crate) path: PathBuf,
    root: PathBuf,
    id: String,
}

/// How long a lock is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    Yes,
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

    /// Makes the directory of a new container, locked. Fails when there is one.
    pub(crate) fn create(&self, id: &str) -> Outcome<Held> {
        check_id(id)?;
        std::fs::create_dir_all(&self.root).doing(|| format!("--root {}", self.root.display()))?;
        let path = self.root.join(id);
        match mkdirat(CWD, &path, Mode::RWXU) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => self.take_over(id)?,
            Err(error) => return Err(error).doing(|| format!("create {}", path.display())),
        }
        self.hold(id, Wait::Yes)
    }

    /// A directory without a record that nobody holds is what a killed `create` left: it is empty of
    /// meaning and may be used.
    fn take_over(&self, id: &str) -> Outcome<()> {
        let taken = || Failure::new(format!("container with id {id:?} already exists"));
        let held = self.hold(id, Wait::No).map_err(|_| taken())?;
        if held.read()?.is_some() { Err(taken()) } else { held.clear() }
    }

    /// Locks an existing container's directory.
    fn hold(&self, id: &str, wait: Wait) -> Outcome<Held> {
        let path = self.root.join(id);
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(CWD, &path, flags, Mode::empty()).map_err(|error| match error {
            rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => no_container(id),
            error => Failure::new(format!("{}: {}", path.display(), crate::error::HostError::words(&error))),
        })?;
        let how = if wait == Wait::Yes {
            FlockOperation::LockExclusive
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        loop {
            match flock(&dir, how) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.doing(|| format!("lock {}", path.display()))?,
            }
        }
        Ok(Held { dir, path, root: self.root.clone(), id: id.to_owned() })
    }

    /// Locks a container and reads its record.
    pub(crate) fn load(&self, id: &str) -> Outcome<(Held, Record)> {
        check_id(id)?;
        let held = self.hold(id, Wait::Yes)?;
        let record = held.read()?.ok_or_else(|| no_container(id))?;
        Ok((held, record))
    }

    /// Locks whatever there is of a container, with its record if it has one.
    pub(crate) fn load_any(&self, id: &str) -> Outcome<(Held, Option<Record>)> {
        check_id(id)?;
        let held = self.hold(id, Wait::Yes)?;
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
    fn read(&self) -> Outcome<Option<Record>> {
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
        let what = || self.path.join(STATE).display().to_string();
        let text = serde_json::to_vec(record).doing(what)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = openat(&self.dir, STATE_NEW, flags, Mode::RUSR | Mode::WUSR).doing(what)?;
        File::from(file).write_all(&text).doing(what)?;
        renameat_with(&self.dir, STATE_NEW, &self.dir, STATE, RenameFlags::empty()).doing(what)
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
        for name in [STATE, STATE_NEW, SOCKET] {
            match unlinkat(&self.dir, name, AtFlags::empty()) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => {
                    return Err(error).doing(|| format!("remove {}", self.path.join(name).display()));
                }
            }
        }
        Ok(())
    }

    /// Removes the container's directory.
    pub(crate) fn remove(self) -> Outcome<()> {
        self.clear()?;
        let path = self.root.join(&self.id);
        match unlinkat(CWD, &path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(error).doing(|| format!("remove {}", path.display())),
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
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let is_initial = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    is_initial || std::env::var_os("USER").is_some_and(|user| user == "root")
}

/// runc's rule: letters, digits and `_+-.`, not `.` or `..`.
fn check_id(id: &str) -> Outcome<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id == "." || id == ".." || id.len() > 1024 || !id.chars().all(fine) {
        return Err(Failure::new(format!("container id {id:?}: must be letters, digits and _+-. only")));
    }
    Ok(())
}
