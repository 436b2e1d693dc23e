//! The shape of the process tree. Everything here is under the one lock of rank `PidTable`; keys are
//! numbers of the sandbox's root pid namespace.

use super::pid::{Pid, PidNs};
use super::{Process, WaitStatus};
use crate::task::TaskShared;
use lock::RankedRw;
use lock::order::Leaf;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// All threads by root number, for look-ups under other locks (/proc). Rank `Leaf`.
#[derive(Default)]
pub struct TaskIndex(RankedRw<Leaf, HashMap<u32, Weak<TaskShared>>>);

impl TaskIndex {
    /// The thread with this root number, while it has not been waited for.
    #[must_use]
    pub fn get(&self, tid: u32) -> Option<Arc<TaskShared>> {
        self.0.read().get(&tid)?.upgrade()
    }
    /// All threads.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<TaskShared>> {
        self.0.read().values().filter_map(Weak::upgrade).collect()
    }
}

impl std::fmt::Debug for TaskIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TaskIndex(..)")
    }
}

/// All threads and processes.
#[derive(Default)]
pub struct ProcessTree {
    index: Arc<TaskIndex>,
    tasks: HashMap<u32, Arc<TaskShared>>,
    nodes: HashMap<u32, Node>,
    /// Traced threads that exited and were not waited for by their tracers.
    pub trace_zombies: Vec<crate::ptrace::TraceZombie>,
}

/// A process and its place.
pub struct Node {
    /// The process.
    pub process: Arc<Process>,
    /// Its parent process; `None` for the first process of a container and for exec'ed ones.
    pub parent: Option<u32>,
    /// The parent's thread that made it (PR_SET_PDEATHSIG, __WNOTHREAD).
    pub parent_thread: u32,
    /// Its children.
    pub children: Vec<u32>,
    /// Process group.
    pub pgid: Arc<Pid>,
    /// Session.
    pub sid: Arc<Pid>,
    /// Set once the last thread has exited.
    pub zombie: Option<Zombie>,
    /// Signal sent to the parent on exit; 0 for none.
    pub exit_signal: u32,
}

/// What is left of a process that ended.
#[derive(Clone, Copy, Debug)]
pub struct Zombie {
    /// How it ended.
    pub status: WaitStatus,
    /// Real user id.
    pub uid: u32,
}

impl ProcessTree {
    /// The table of threads that needs no lock of the tree.
    #[must_use]
    pub fn index(&self) -> &Arc<TaskIndex> {
        &self.index
    }
    /// The thread with this root number.
    #[must_use]
    pub fn task(&self, tid: u32) -> Option<&Arc<TaskShared>> {
        self.tasks.get(&tid)
    }
    /// All threads.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<TaskShared>> {
        self.tasks.values()
    }
    /// The process with this root number.
    #[must_use]
    pub fn node(&self, tgid: u32) -> Option<&Node> {
        self.nodes.get(&tgid)
    }
    /// Like [`ProcessTree::node`].
    pub fn node_mut(&mut self, tgid: u32) -> Option<&mut Node> {
        self.nodes.get_mut(&tgid)
    }
    /// All processes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }
    /// The thread that `number` names in `ns`.
    #[must_use]
    pub fn find_task(&self, ns: &PidNs, number: u32) -> Option<&Arc<TaskShared>> {
        self.tasks.get(&ns.find(number)?.root())
    }
    /// The process that `number` names in `ns` (its thread group id).
    #[must_use]
    pub fn find_process(&self, ns: &PidNs, number: u32) -> Option<&Node> {
        self.nodes.get(&ns.find(number)?.root())
    }
    /// The processes of a group (root number).
    pub fn group(&self, pgid: u32) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| node.pgid.root() == pgid)
    }
    /// Adds a thread.
    pub fn insert_task(&mut self, tid: u32, task: Arc<TaskShared>) {
        self.index.0.write().insert(tid, Arc::downgrade(&task));
        self.tasks.insert(tid, task);
    }
    /// Removes a thread.
    pub fn remove_task(&mut self, tid: u32) -> Option<Arc<TaskShared>> {
        self.index.0.write().remove(&tid);
        self.tasks.remove(&tid)
    }
    /// Adds a process below its parent.
    pub fn insert_node(&mut self, node: Node) {
        let tgid = node.process.pid.root();
        if let Some(parent) = node.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.push(tgid);
        }
        self.nodes.insert(tgid, node);
    }
    /// Removes a process that has been waited for.
    pub fn remove_node(&mut self, tgid: u32) -> Option<Node> {
        let node = self.nodes.remove(&tgid)?;
        if let Some(parent) = node.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children.retain(|child| *child != tgid);
        }
        Some(node)
    }
    /// Whether a process group is orphaned: no member has a parent in another group of its session.
    #[must_use]
    pub fn is_orphaned(&self, pgid: u32) -> bool {
        self.is_orphaned_without(pgid, None)
    }
    /// Like [`ProcessTree::is_orphaned`], as if process `without` were gone.
    #[must_use]
    pub fn is_orphaned_without(&self, pgid: u32, without: Option<u32>) -> bool {
        !self.group(pgid).any(|node| {
            Some(node.process.pid.root()) != without
                && node.zombie.is_none()
                && node
                    .parent
                    .and_then(|parent| self.nodes.get(&parent))
                    .is_some_and(|parent| parent.pgid.root() != pgid && parent.sid.root() == node.sid.root())
        })
    }
}
