//! Control groups (cgroups(7), the kernel's cgroup-v2 document), as guests see and make them.
//!
//! Each container has a root of its own, shown as `/`. `pids.max` is enforced at every fork and `memory.max`
//! where pages are allocated, in every group; the processor limits of the container are the host's to
//! enforce and are shown here, those of nested groups are [`bandwidth`]'s and [`cpus`]'. Rank of the groups: `Leaf`.

mod bandwidth;
pub mod cpus;
mod files;
mod home;
pub mod memory;
mod watch;

use crate::control::spec::Limits;
use crate::kernel::Kernel;
use crate::process::{Process, freezer};
use crate::task::{RunMode, TaskShared};
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::Leaf;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

pub use files::{CgroupType, filesystem, group_of};

/// No limit.
const NO_LIMIT: u64 = u64::MAX;
/// How deep groups may be nested.
const MAX_DEPTH: usize = 64;
/// Most groups below one another's root.
const MAX_GROUPS: usize = 4096;

/// A control group.
pub struct Cgroup {
    name: Vec<u8>,
    me: Weak<Cgroup>,
    parent: Option<Weak<Cgroup>>,
    children: Ranked<Leaf, BTreeMap<Vec<u8>, Arc<Cgroup>>>,
    /// Removed: nothing may enter.
    dead: AtomicBool,
    /// `cgroup.freeze`.
    freeze: AtomicBool,
    /// `pids.max`.
    pids_max: AtomicU64,
    /// Forks that `pids.max` refused.
    pids_refused: AtomicU64,
    /// Most tasks at once.
    pids_peak: AtomicU64,
    memory: memory::Memory,
    /// The host's cgroup of a pod's further container.
    home: OnceLock<home::Doors>,
    /// Controllers whose files children have.
    offers: AtomicU8,
    /// Processor limits, which the host enforces; only the root's are set.
    limits: Ranked<Leaf, Limits>,
    /// `cpuset.cpus` of a nested group.
    cpuset: Ranked<Leaf, Option<cpus::CpuSet>>,
    cpu: bandwidth::Cpu,
}

/// What `cgroup.freeze` was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wanted {
    Frozen,
    Thawed,
}

bitflags::bitflags! {
    /// Controllers that can be handed down.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Controllers: u8 {
        const MEMORY = 1;
        const PIDS = 2;
        const CPU = 4;
        const CPUSET = 8;
        const IO = 16;
    }
}

impl std::fmt::Debug for Cgroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cgroup({:?})", self.path())
    }
}

impl Cgroup {
    /// The root of a container. `doors` are descriptors of its `cgroup.procs` on the host, for a pod's.
    #[must_use]
    pub fn root(kernel: &Arc<Kernel>, limits: &Limits, doors: Vec<OwnedFd>) -> Arc<Cgroup> {
        let root = Cgroup::build(Vec::new(), None, *limits);
        kernel.bounds.add(&root);
        root.moves_in(kernel, doors);
        // Of several containers each pays for its own, should it be bounded later.
        if limits.memory_max.is_some() || !kernel.bounds.is_alone() {
            memory::bound(kernel);
        }
        root
    }
    /// Other limits for a container (`runsc update`). A memory limit below what is used is refused with the
    /// usage: an operator's update kills nobody.
    pub fn update(&self, kernel: &Arc<Kernel>, limits: &Limits) -> Result<(), u64> {
        let max = limits.memory_max.unwrap_or(NO_LIMIT);
        let usage = if max == NO_LIMIT { 0 } else { self.usage(kernel) };
        if usage > max {
            return Err(usage);
        }
        *self.limits.lock() = *limits;
        self.pids_max.store(limits.pids_max.unwrap_or(NO_LIMIT), Ordering::Relaxed);
        self.memory.together.store(limits.oom_group, Ordering::Relaxed);
        self.set_memory_max(kernel, max);
        Ok(())
    }
    /// `pids.max` and `memory.max`, and how many processes the latter has cost.
    #[must_use]
    pub fn bounds(&self) -> (Option<u64>, Option<u64>, u64) {
        let limit =
            |value: &AtomicU64| Some(value.load(Ordering::Relaxed)).filter(|value| *value != NO_LIMIT);
        let kills = self.memory.all.oom_kill.load(Ordering::Relaxed);
        (limit(&self.pids_max), limit(&self.memory.max), kills)
    }
    fn offers(&self) -> Controllers {
        Controllers::from_bits_truncate(self.offers.load(Ordering::Relaxed))
    }
    fn build(name: Vec<u8>, parent: Option<Weak<Cgroup>>, limits: Limits) -> Arc<Cgroup> {
        Arc::new_cyclic(|me| Cgroup {
            name,
            me: Weak::clone(me),
            parent,
            children: Ranked::new(BTreeMap::new()),
            dead: AtomicBool::new(false),
            freeze: AtomicBool::new(false),
            pids_max: AtomicU64::new(limits.pids_max.unwrap_or(NO_LIMIT)),
            pids_refused: AtomicU64::new(0),
            pids_peak: AtomicU64::new(0),
            memory: memory::Memory::new(&limits),
            home: OnceLock::new(),
            offers: AtomicU8::new(0),
            limits: Ranked::new(limits),
            cpuset: Ranked::default(),
            cpu: bandwidth::Cpu::default(),
        })
    }
    fn parent(&self) -> Option<Arc<Cgroup>> {
        self.parent.as_ref().and_then(Weak::upgrade)
    }
    /// The root of its container.
    fn top(self: &Arc<Cgroup>) -> Arc<Cgroup> {
        let mut top = Arc::clone(self);
        while let Some(up) = top.parent() {
            top = up;
        }
        top
    }
    /// Its place below its container's root, as /proc/pid/cgroup shows it.
    #[must_use]
    pub fn path(&self) -> String {
        let mut parts = Vec::new();
        let mut at = self.me.upgrade();
        while let Some(group) = at {
            if group.parent.is_some() {
                parts.push(String::from_utf8_lossy(&group.name).into_owned());
            }
            at = group.parent();
        }
        parts.reverse();
        let mut text = format!("/{}", parts.join("/"));
        if self.dead.load(Ordering::Relaxed) {
            text.push_str(" (deleted)");
        }
        text
    }
    fn depth(&self) -> usize {
        let mut depth = 0;
        let mut at = self.parent();
        while let Some(group) = at {
            depth += 1;
            at = group.parent();
        }
        depth
    }
    fn count(&self) -> usize {
        let children: Vec<_> = self.children.lock().values().cloned().collect();
        children.iter().map(|child| child.count().saturating_add(1)).sum()
    }
    /// Whether `self` is `other` or one of its ancestors.
    fn holds(&self, other: &Arc<Cgroup>) -> bool {
        let mut at = Some(Arc::clone(other));
        while let Some(group) = at {
            if std::ptr::eq(self, Arc::as_ptr(&group)) {
                return true;
            }
            at = group.parent();
        }
        false
    }
    /// Threads of this group and those below it.
    fn tasks(&self, kernel: &Kernel) -> Vec<Arc<TaskShared>> {
        let mut tasks = kernel.tasks.all();
        tasks.retain(|task| {
            let group = task.process.cgroup.lock().clone();
            task.mode() != RunMode::Dead && group.is_some_and(|group| self.holds(&group))
        });
        tasks
    }
    /// Threads of this very group.
    fn own_tasks(&self, kernel: &Kernel) -> Vec<Arc<TaskShared>> {
        let mut tasks = self.tasks(kernel);
        tasks.retain(|task| {
            let group = task.process.cgroup.lock().clone();
            group.is_some_and(|group| std::ptr::eq(self, Arc::as_ptr(&group)))
        });
        tasks
    }
    /// Whether this group or one above it is frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let mut at = self.me.upgrade();
        while let Some(group) = at {
            if group.freeze.load(Ordering::SeqCst) {
                return true;
            }
            at = group.parent();
        }
        false
    }
    /// Whether its members must rest: frozen, or out of processor time, as this group or one above it is.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let mut at = self.me.upgrade();
        while let Some(group) = at {
            if group.freeze.load(Ordering::SeqCst) || group.cpu.throttled.load(Ordering::SeqCst) {
                return true;
            }
            at = group.parent();
        }
        false
    }
    /// Has a process know whether its group is held.
    fn tell(&self, process: &Process) {
        let held = self.is_held();
        let was = process.marks.frozen_by_group.swap(held, Ordering::SeqCst);
        match (was, held) {
            // One that was out of time only has threads that sleep on.
            (_, true) if self.is_frozen() => freezer::hold(process),
            (false, true) => freezer::hold_gently(process),
            (true, false) => freezer::release(process),
            _ => {}
        }
    }
    /// `cgroup.freeze`.
    fn freeze(&self, kernel: &Kernel, wanted: Wanted) {
        self.freeze.store(wanted == Wanted::Frozen, Ordering::SeqCst);
        for process in self.processes(kernel) {
            let group = process.cgroup.lock().clone();
            if let Some(group) = group {
                group.tell(&process);
            }
        }
    }
    /// Whether it is frozen and all its threads have come to rest.
    fn rests(&self, kernel: &Kernel) -> bool {
        self.is_frozen() && self.tasks(kernel).iter().all(|task| task.is_frozen())
    }
    /// fork(2) of a thread of this group: `EAGAIN` when it or one above it is full.
    pub fn check_fork(&self, kernel: &Kernel) -> SysResult<()> {
        let mut at = self.me.upgrade();
        while let Some(group) = at {
            let max = group.pids_max.load(Ordering::Relaxed);
            if max != NO_LIMIT {
                let tasks = u64::try_from(group.tasks(kernel).len()).unwrap_or(NO_LIMIT);
                if tasks >= max {
                    group.pids_refused.fetch_add(1, Ordering::Relaxed);
                    return Err(Errno::EAGAIN);
                }
                group.pids_peak.fetch_max(tasks + 1, Ordering::Relaxed);
            }
            at = group.parent();
        }
        Ok(())
    }
    fn child(&self, name: &[u8]) -> SysResult<Arc<Cgroup>> {
        self.children.lock().get(name).cloned().ok_or(Errno::ENOENT)
    }
    fn make(&self, name: &[u8]) -> SysResult<Arc<Cgroup>> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(Errno::ENOENT);
        }
        // As in Linux: it would make lines of /proc/pid/cgroup ambiguous.
        if name.contains(&b'\n') {
            return Err(Errno::EINVAL);
        }
        let top = self.me.upgrade().ok_or(Errno::ENOENT)?.top();
        if self.depth() >= MAX_DEPTH || top.count() >= MAX_GROUPS {
            return Err(Errno::EAGAIN);
        }
        let child = Cgroup::build(name.to_vec(), Some(Weak::clone(&self.me)), Limits::default());
        let mut children = self.children.lock();
        if children.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        children.insert(name.to_vec(), Arc::clone(&child));
        Ok(child)
    }
    fn remove(&self, name: &[u8], kernel: &Kernel) -> SysResult<()> {
        let child = self.child(name)?;
        if !child.children.lock().is_empty() || !child.own_tasks(kernel).is_empty() {
            return Err(Errno::EBUSY);
        }
        child.dead.store(true, Ordering::Relaxed);
        let gone = self.children.lock().remove(name);
        child.memory.account.bequeath(&self.memory.account);
        drop(gone);
        Ok(())
    }
    /// The group at a path below this one; `..` leads no further up.
    pub fn below(&self, path: &str) -> SysResult<Arc<Cgroup>> {
        let mut at = vec![self.me.upgrade().ok_or(Errno::ENOENT)?];
        for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
            let here = at.last().ok_or(Errno::ENOENT)?;
            if name != ".." {
                let child = here.child(name.as_bytes())?;
                at.push(child);
            } else if at.len() > 1 {
                at.pop();
            }
        }
        at.pop().ok_or(Errno::ENOENT)
    }
    /// Whether a process may be put into the group: `ENODEV` when it is gone, `EBUSY` when it hands out
    /// controllers, as the domain controllers forbid processes beside groups with controllers.
    pub fn admits(&self) -> SysResult<()> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(Errno::ENODEV);
        }
        if self.parent.is_some() && !self.offers().is_empty() {
            return Err(Errno::EBUSY);
        }
        Ok(())
    }
    /// Moves a process into the group.
    pub fn enter(self: &Arc<Cgroup>, task: &TaskShared) -> SysResult<()> {
        self.admits()?;
        let old = task.process.cgroup.lock().replace(Arc::clone(self));
        if !old.as_ref().is_some_and(|old| Arc::ptr_eq(old, self)) {
            self.hand_over(old.as_ref(), &task.process);
        }
        drop(old);
        self.tell(&task.process);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_nest_and_know_their_path() {
        let root = Cgroup::build(Vec::new(), None, Limits { pids_max: Some(100), ..Limits::default() });
        let a = root.make(b"a").unwrap();
        let b = a.make(b"b").unwrap();
        assert_eq!((root.path(), b.path()), ("/".into(), "/a/b".into()));
        assert!(root.holds(&b) && a.holds(&b) && !b.holds(&a));
        assert_eq!(a.make(b"b").err(), Some(Errno::EEXIST));
        assert_eq!(a.make(b"x\ny").err(), Some(Errno::EINVAL));
        assert_eq!(root.count(), 2);
    }
}
