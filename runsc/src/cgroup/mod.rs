//! The host's cgroups of a container: v1, v2 and the hybrid of both, through cgroupfs.
//!
//! `linux.cgroupsPath` is `/parent/ID`, `parent/ID` below the caller's own, or `slice:prefix:ID` where a
//! caller thinks of systemd; the latter is laid out the way systemd would, without asking it. Monitor and
//! gofer of a container, and for a sandbox' first container sentry and stubs, are in the cgroup before any
//! guest code runs: its limits bound what the guest can make the host spend.

mod host;
mod limits;
mod oom;
mod remove;
mod stats;
mod write;

use crate::cli::Global;
use crate::error::{Doing, Failure, Outcome};
use crate::spec::Plan;
use crate::spec::pod::Place as Pod;
use host::{Driver, Group, Hierarchy, Place};
pub(crate) use limits::cpu_weight;
pub(crate) use limits::host_memory;
use limits::{Groups, When};
use oci_spec::runtime::LinuxResources;
pub(crate) use oom::Witness;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use write::{Writes, put_or_say};

/// How long the end of processes in a cgroup that is removed is waited for: they were killed.
const ENDING: Duration = Duration::from_secs(10);

/// The cgroups of one container.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Membership {
    groups: Vec<Group>,
}

impl Membership {
    /// Makes the directories and sets the limits. `None` when there is nothing to bound: no path and no
    /// limits, or nobody who may. `note` is told before anything is made.
    pub(crate) fn create(
        global: &Global,
        plan: &Plan,
        note: impl FnOnce(&Membership) -> Outcome<()>,
    ) -> Outcome<Option<Membership>> {
        if global.ignore_cgroups || !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let driver = if global.systemd_cgroup { Driver::Systemd } else { Driver::Cgroupfs };
        let path = plan.cgroups_path.as_deref().filter(|path| !path.as_os_str().is_empty());
        let resources = plan.resources.clone().unwrap_or_default();
        if path.is_none() && bounds_nothing(&resources) {
            return Ok(None);
        }
        let place = host::place(path, &plan.container.id, driver)?;
        let resources = if plan.place == Pod::Root && plan.is_pod() { of_pod(resources) } else { resources };
        let hierarchies = host::hierarchies();
        note(&Membership::at(&hierarchies, &place))?;
        Membership::create_in(&hierarchies, &place, &resources).map(Some)
    }

    fn at(hierarchies: &[Hierarchy], place: &Place) -> Membership {
        Membership { groups: hierarchies.iter().map(|hierarchy| hierarchy.group(place)).collect() }
    }

    fn create_in(
        hierarchies: &[Hierarchy],
        place: &Place,
        resources: &LinuxResources,
    ) -> Outcome<Membership> {
        let membership = Membership::at(hierarchies, place);
        let made = membership.make().and_then(|()| membership.set(resources, When::Creation));
        match made {
            Ok(()) => Ok(membership),
            Err(failure) => {
                let _ = membership.remove();
                Err(failure)
            }
        }
    }

    fn make(&self) -> Outcome<()> {
        for group in &self.groups {
            std::fs::create_dir_all(&group.path).doing(|| group.path.display())?;
            if group.controllers.iter().any(|name| name == "cpuset") {
                inherit_cpuset(group)?;
            }
            if group.is_unified() {
                enable_controllers(group);
            }
        }
        Ok(())
    }

    fn set(&self, resources: &LinuxResources, when: When) -> Outcome<()> {
        let mut writes = Writes::default();
        limits::writes(&Groups(&self.groups), resources, when, &mut writes)?;
        writes.carry_out()
    }

    /// Sets other limits: all of them, or none.
    pub(crate) fn update(&self, resources: &LinuxResources) -> Outcome<()> {
        self.set(resources, When::Update)
    }

    /// Puts the calling process into the cgroups.
    pub(crate) fn join(&self) -> Outcome<()> {
        self.groups.iter().try_for_each(|group| put_or_say(&group.path.join("cgroup.procs"), "0"))
    }

    /// Takes the process that made them out again: it ran the container in front of its caller.
    pub(crate) fn leave(&self) {
        for group in &self.groups {
            let enter = |path: &Path| write::put(&path.join("cgroup.procs"), "0");
            // Where it came from may be gone since.
            let _ = enter(&group.origin).or_else(|_| enter(&group.mount));
        }
    }

    /// `cgroup.procs` of every hierarchy, open for writing.
    pub(crate) fn doors(&self) -> Outcome<Vec<OwnedFd>> {
        let open = |group: &Group| {
            let path = group.path.join("cgroup.procs");
            let file = std::fs::OpenOptions::new().write(true).open(&path);
            file.map(OwnedFd::from).doing(|| path.display())
        };
        self.groups.iter().map(open).collect()
    }

    /// What has the host see that the guest's memory ran out; `None` where the host does not count memory.
    pub(crate) fn witness(&self) -> Option<Witness> {
        Witness::open(&self.groups)
    }

    /// `data` of runc's stats event.
    pub(crate) fn stats(&self) -> serde_json::Value {
        stats::read(&self.groups)
    }

    /// Removes the directories, and groups that were made below them, once the processes in them have ended. Parents
    /// stay, as runc leaves them: a pod's other containers may be about to use them.
    pub(crate) fn remove(&self) -> Outcome<()> {
        let paths: Vec<&Path> = self.groups.iter().map(|group| group.path.as_path()).collect();
        remove::trees(&paths, ENDING)
            .map_err(|path| Failure::new(format!("{}: processes in it do not end", path.display())))
    }
}

/// A pod's sandbox holds the processes that serve all its containers: what bounds the pause program is not
/// meant for them. The pod's own cgroup, above, bounds them all.
fn of_pod(mut resources: LinuxResources) -> LinuxResources {
    let cpus = resources.cpu().as_ref().map(|cpu| (cpu.cpus().clone(), cpu.mems().clone()));
    let kept = cpus.filter(|(cpus, mems)| cpus.is_some() || mems.is_some()).map(|(cpus, mems)| {
        let mut cpu = oci_spec::runtime::LinuxCpu::default();
        cpu.set_cpus(cpus).set_mems(mems);
        cpu
    });
    resources.set_cpu(kept).set_memory(None).set_pids(None);
    resources
}

/// Whether nothing but devices (which no guest can open) is named.
fn bounds_nothing(resources: &LinuxResources) -> bool {
    resources.memory().is_none()
        && resources.cpu().is_none()
        && resources.pids().is_none()
        && resources.block_io().is_none()
        && resources.hugepage_limits().is_none()
        && resources.network().is_none()
        && resources.rdma().is_none()
        && resources.unified().is_none()
}

/// A fresh v1 cpuset admits nobody: it takes over its parent's processors and memory nodes.
fn inherit_cpuset(group: &Group) -> Outcome<()> {
    let mut parent = group.mount.clone();
    for part in group.below().components() {
        let child = parent.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let have = std::fs::read_to_string(child.join(file)).unwrap_or_default();
            if have.trim().is_empty() {
                let value = std::fs::read_to_string(parent.join(file)).unwrap_or_default();
                put_or_say(&child.join(file), value.trim())?;
            }
        }
        parent = child;
    }
    Ok(())
}

/// v2: what a parent has, its children may have too. A parent with processes of its own refuses; a limit
/// that needs the controller then fails.
fn enable_controllers(group: &Group) {
    let mut parent = group.mount.clone();
    for part in group.below().components() {
        let have = std::fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
        let given = std::fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
        for name in have.split_ascii_whitespace() {
            if !given.split_ascii_whitespace().any(|given| given == name) {
                let _ = write::put(&parent.join("cgroup.subtree_control"), &format!("+{name}"));
            }
        }
        parent.push(part);
    }
}

#[cfg(test)]
mod tests;
