//! User namespaces of the bundle. The gofer lives in one with the bundle's maps: the host's kernel then shows
//! it every file with the ids that the guest knows, and takes those ids from it. The guest itself needs no
//! translation: its kernel counts in the ids of the container.

use super::launch::pair;
use crate::error::{Doing, Failure, Outcome};
use ::sentry::control::spec::{ContainerSpec, IdMapping};
use platform::spawn::{IdMap, SetGroups, become_ids, write_id_maps};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

/// The maps of a user namespace.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    uids: Vec<IdMap>,
    gids: Vec<IdMap>,
}

fn maps(list: &[IdMapping]) -> Vec<IdMap> {
    list.iter().map(|map| IdMap { inside: map.inside, outside: map.outside, count: map.count }).collect()
}

impl Ids {
    /// Those of the bundle, if it has any.
    pub(crate) fn of(spec: &ContainerSpec) -> Option<Ids> {
        let ids = || Ids { uids: maps(&spec.uid_mappings), gids: maps(&spec.gid_mappings) };
        (!spec.uid_mappings.is_empty()).then(ids)
    }

    /// A namespace for a process of ours that needs no id but the caller's, who is root there.
    pub(crate) fn own() -> Ids {
        let one = |outside| vec![IdMap { inside: 0, outside, count: 1 }];
        Ids { uids: one(rustix::process::geteuid().as_raw()), gids: one(rustix::process::getegid().as_raw()) }
    }

    /// Whether each map is nothing but the caller's own id, which needs no privilege.
    fn are_own(&self) -> bool {
        let own = |maps: &[IdMap], id: u32| matches!(maps, [map] if map.outside == id && map.count == 1);
        own(&self.uids, rustix::process::geteuid().as_raw())
            && own(&self.gids, rustix::process::getegid().as_raw())
    }

    /// Gives a child in a new user namespace its maps.
    fn write(&self, pid: i32) -> Outcome<()> {
        let root = rustix::process::geteuid().is_root();
        if !root && !self.are_own() {
            helper("newuidmap", pid, &self.uids)?;
            return helper("newgidmap", pid, &self.gids);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat(CWD, "/proc", flags, Mode::empty()).doing(|| "/proc")?;
        let groups = if root { SetGroups::Allow } else { SetGroups::Deny };
        write_id_maps(proc.as_fd(), pid, &self.uids, &self.gids, groups)
            .doing(|| "linux.uidMappings, linux.gidMappings: the host refuses them")
    }
}

/// shadow's programs write maps of ranges that /etc/subuid gives the caller.
fn helper(program: &str, pid: i32, maps: &[IdMap]) -> Outcome<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    for map in maps {
        command.args([map.inside, map.outside, map.count].map(|number| number.to_string()));
    }
    let output = command.output().doing(|| format!("{program} (package uidmap)"))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(Failure::new(format!("{program}: {told}")))
}

/// Between a parent and its child in a new user namespace: the child waits here for its maps.
#[derive(Debug)]
pub(crate) struct Gate {
    outside: OwnedFd,
    inside: OwnedFd,
}

impl Gate {
    /// A closed gate.
    pub(crate) fn new() -> Outcome<Gate> {
        let (outside, inside) = pair()?;
        Ok(Gate { outside, inside })
    }

    /// The child's end, which it must keep.
    pub(crate) fn inside(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }

    /// The parent: maps, then lets it go on.
    pub(crate) fn open(&self, ids: &Ids, pid: i32) -> Outcome<()> {
        ids.write(pid)?;
        rustix::net::send(&self.outside, &[1], rustix::net::SendFlags::NOSIGNAL)
            .doing(|| "user namespace")?;
        Ok(())
    }

    /// The child: waits, then is the namespace's root.
    pub(crate) fn pass(&self, ids: &Ids) -> Outcome<()> {
        let mut word = [0_u8; 1];
        match rustix::net::recv(&self.inside, &mut word[..], rustix::net::RecvFlags::empty()) {
            Ok((1, _)) => {}
            _ => return Err(Failure::new("the runtime is gone")),
        }
        let first = |maps: &[IdMap]| maps.iter().map(|map| map.inside).min().unwrap_or(0);
        // Without privileges setgroups(2) is denied, and the caller's groups stay.
        let groups = if setgroups_denied() { SetGroups::Deny } else { SetGroups::Allow };
        become_ids(first(&ids.uids), first(&ids.gids), groups).doing(|| "becoming root of the user namespace")
    }
}

/// Whether this process is root of a user namespace that is not the first.
pub(crate) fn is_root_of_users() -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// Whether this user namespace may not use setgroups(2).
fn setgroups_denied() -> bool {
    std::fs::read("/proc/self/setgroups").is_ok_and(|text| text.starts_with(b"deny"))
}
