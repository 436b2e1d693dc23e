//! Shared subtrees: peer groups, slaves, and the copies that mount events make
//! (kernel document `sharedsubtree.rst`). Everything here runs under [`crate::mount::change`].

use crate::dentry::Dentry;
use crate::mount::{Mount, MountNamespace};
use abi::{Errno, SysResult};
use lock::{Ranked, order};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

static NEXT_GROUP: AtomicU32 = AtomicU32::new(1);

/// A peer group: mounts that see each other's mount events, and those that only listen.
#[derive(Debug)]
pub struct Group {
    /// `shared:N` of mountinfo.
    pub id: u32,
    members: Ranked<order::Leaf, Vec<Weak<Mount>>>,
    slaves: Ranked<order::Leaf, Vec<Weak<Mount>>>,
}

impl Group {
    fn new() -> Arc<Group> {
        Arc::new(Group {
            id: NEXT_GROUP.fetch_add(1, Ordering::Relaxed),
            members: Ranked::new(Vec::new()),
            slaves: Ranked::new(Vec::new()),
        })
    }
    fn members(&self) -> Vec<Arc<Mount>> {
        let list: Vec<_> = self.members.lock().clone();
        list.iter().filter_map(Weak::upgrade).collect()
    }
    fn slaves(&self) -> Vec<Arc<Mount>> {
        let list: Vec<_> = self.slaves.lock().clone();
        list.iter().filter_map(Weak::upgrade).collect()
    }
}

fn without(list: &mut Vec<Weak<Mount>>, mount: &Arc<Mount>) {
    list.retain(|w| w.strong_count() > 0 && !std::ptr::eq(w.as_ptr(), Arc::as_ptr(mount)));
}

/// MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Propagation {
    /// Events go to the peers and come from them.
    Shared,
    /// No events.
    Private,
    /// Events come from the former peers, none go back.
    Slave,
    /// Private, and bind mounts of it are refused.
    Unbindable,
}

/// How a copied mount joins the groups of its original.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copy {
    /// Same groups.
    Same,
    /// Peers become slaves (into a less privileged namespace, or for slave parents).
    ToSlave,
    /// No groups.
    Private,
}

impl Mount {
    /// Its peer group.
    #[must_use]
    pub fn group(&self) -> Option<Arc<Group>> {
        self.links.read().group.clone()
    }
    /// The group it listens to.
    #[must_use]
    pub fn master(&self) -> Option<Arc<Group>> {
        self.links.read().master.clone()
    }
    /// Whether bind mounts of it are refused.
    #[must_use]
    pub fn is_unbindable(&self) -> bool {
        self.links.read().unbindable
    }
    fn join(self: &Arc<Mount>, group: &Arc<Group>) {
        group.members.lock().push(Arc::downgrade(self));
        self.links.write().group = Some(Arc::clone(group));
    }
    fn listen(self: &Arc<Mount>, group: &Arc<Group>) {
        group.slaves.lock().push(Arc::downgrade(self));
        self.links.write().master = Some(Arc::clone(group));
    }
    fn leave_group(self: &Arc<Mount>) -> Option<Arc<Group>> {
        let group = self.links.write().group.take()?;
        without(&mut group.members.lock(), self);
        // The last member hands its listeners to the group above, if there is one.
        if group.members().is_empty() {
            let heir = self.master();
            for slave in group.slaves() {
                slave.links.write().master = None;
                if let Some(heir) = &heir {
                    slave.listen(heir);
                }
            }
        }
        Some(group)
    }
    fn leave_master(self: &Arc<Mount>) {
        let master = self.links.write().master.take();
        if let Some(master) = master {
            without(&mut master.slaves.lock(), self);
        }
    }
    pub(crate) fn leave_groups(self: &Arc<Mount>) {
        self.leave_group();
        self.leave_master();
    }
    /// Changes the propagation type of this one mount.
    pub(crate) fn set_propagation(self: &Arc<Mount>, to: Propagation) {
        match to {
            Propagation::Shared => {
                if self.group().is_none() {
                    self.join(&Group::new());
                }
                self.links.write().unbindable = false;
            }
            Propagation::Private | Propagation::Unbindable => {
                self.leave_groups();
                self.links.write().unbindable = to == Propagation::Unbindable;
            }
            Propagation::Slave => {
                let alone = self.group().is_none_or(|g| g.members().len() < 2);
                if let Some(group) = self.leave_group()
                    && !alone
                {
                    self.leave_master();
                    self.listen(&group);
                }
                self.links.write().unbindable = false;
            }
        }
    }
}

/// Originals and copies.
pub(crate) type Pairs = Vec<(Arc<Mount>, Arc<Mount>)>;

/// Copies the mount `from` with its root at `root`, and with `deep` all mounts below that. Returns the copy
/// and the pairs of originals and copies, the first pair being the roots.
pub(crate) fn copy_tree(
    from: &Arc<Mount>,
    root: &Arc<Dentry>,
    how: Copy,
    deep: bool,
) -> SysResult<(Arc<Mount>, Pairs)> {
    let top = copy_one(from, root, how);
    let mut pairs = vec![(Arc::clone(from), Arc::clone(&top))];
    let mut at = 0;
    while deep && let Some((old, new)) = pairs.get(at).cloned() {
        for child in old.children() {
            let Some((_, mountpoint)) = child.above() else { continue };
            if child.is_unbindable() || !mountpoint.is_below(&new.root) {
                continue;
            }
            if pairs.len() >= crate::mount::MOUNT_MAX {
                return Err(Errno::ENOSPC);
            }
            let copy = copy_one(&child, &child.root, how);
            copy.locked.store(child.locked.load(Ordering::Acquire), Ordering::Release);
            new.hang(&mountpoint, &copy);
            pairs.push((child, copy));
        }
        at += 1;
    }
    Ok((top, pairs))
}

fn copy_one(from: &Arc<Mount>, root: &Arc<Dentry>, how: Copy) -> Arc<Mount> {
    let copy = Mount::new(Arc::clone(&from.sb), Arc::clone(root), from.flags(), &from.source);
    match how {
        Copy::Private => {}
        Copy::Same => {
            if let Some(group) = from.group() {
                copy.join(&group);
            }
            if let Some(master) = from.master() {
                copy.listen(&master);
            }
        }
        Copy::ToSlave => {
            if let Some(group) = from.group() {
                copy.listen(&group);
            } else if let Some(master) = from.master() {
                copy.listen(&master);
            }
        }
    }
    copy
}

/// Mounts that see events of `parent` at `mountpoint`, in the order in which they hear: with each, whether
/// it hears as a peer.
fn audience(parent: &Arc<Mount>, mountpoint: &Arc<Dentry>) -> Vec<(Arc<Mount>, bool)> {
    let mut out: Vec<(Arc<Mount>, bool)> = Vec::new();
    let mut groups = Vec::new();
    if let Some(group) = parent.group() {
        groups.push((group, true));
    }
    while let Some((group, peers)) = groups.pop() {
        for member in group.members() {
            let known = Arc::ptr_eq(&member, parent) || out.iter().any(|(m, _)| Arc::ptr_eq(m, &member));
            if !known {
                out.push((member, peers));
            }
        }
        for slave in group.slaves() {
            match slave.group() {
                Some(own) => {
                    if !groups.iter().any(|(g, _)| Arc::ptr_eq(g, &own)) {
                        groups.push((own, false));
                    }
                }
                None => out.push((slave, false)),
            }
        }
    }
    out.retain(|(m, _)| m.namespace().is_some() && mountpoint.is_below(&m.root));
    out
}

/// Hangs the tree `child` on `mountpoint` of `parent`, and copies of it wherever the event is heard.
pub(crate) fn attach(parent: &Arc<Mount>, mountpoint: &Arc<Dentry>, child: &Arc<Mount>) -> SysResult<()> {
    let ns = parent.links.read().ns.clone();
    if let Some(ns) = ns.upgrade() {
        ns.check_room(child.subtree().len())?;
    }
    let shared = parent.group().is_some();
    if shared {
        for mount in child.subtree() {
            mount.set_propagation(Propagation::Shared);
        }
        for (listener, peer) in audience(parent, mountpoint) {
            let how = if peer { Copy::Same } else { Copy::ToSlave };
            let (copy, pairs) = copy_tree(child, &child.root, how, true)?;
            let ns: Weak<MountNamespace> = listener.links.read().ns.clone();
            for (_, new) in &pairs {
                new.set_namespace(&ns);
                if !peer && listener.group().is_some() {
                    new.set_propagation(Propagation::Shared);
                }
            }
            listener.hang(mountpoint, &copy);
        }
    }
    for mount in child.subtree() {
        mount.set_namespace(&ns);
    }
    parent.hang(mountpoint, child);
    Ok(())
}

/// Takes `mount` (with all below it) off, and its copies wherever the event is heard.
pub(crate) fn detach(mount: &Arc<Mount>) {
    let mut gone = Vec::new();
    if let Some((parent, mountpoint)) = mount.above() {
        for (listener, _) in audience(&parent, &mountpoint) {
            if let Some(copy) = listener.child_at(&mountpoint)
                && Arc::ptr_eq(&copy.sb, &mount.sb)
            {
                gone.push(copy);
            }
        }
    }
    for copy in &gone {
        copy.dismantle();
    }
    mount.dismantle();
}
