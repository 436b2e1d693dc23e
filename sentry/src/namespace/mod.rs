//! Namespaces of a task (namespaces(7)).

use crate::ipc::IpcNs;
use crate::process::pid::PidNs;
use ::net::netns::NetNs;
use abi::process::CloneFlags;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::Namespaces;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vfs::UserNamespace;

/// First number after the initial namespaces' of Linux.
static NEXT_INO: AtomicU64 = AtomicU64::new(0xf000_0000);

/// A fresh namespace number.
#[must_use]
pub fn next_ino() -> u64 {
    NEXT_INO.fetch_add(1, Ordering::Relaxed)
}

/// Host and domain name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UtsNames {
    /// sethostname(2).
    pub nodename: Vec<u8>,
    /// setdomainname(2).
    pub domainname: Vec<u8>,
}

/// A UTS namespace.
#[derive(Debug)]
pub struct UtsNs {
    /// Number in /proc/pid/ns.
    pub ino: u64,
    /// Owner.
    pub user: Arc<UserNamespace>,
    names: Ranked<Namespaces, UtsNames>,
}

impl UtsNs {
    /// A namespace with these names.
    #[must_use]
    pub fn new(user: Arc<UserNamespace>, names: UtsNames) -> Arc<UtsNs> {
        Arc::new(UtsNs { ino: next_ino(), user, names: Ranked::new(names) })
    }
    /// The names.
    #[must_use]
    pub fn names(&self) -> UtsNames {
        self.names.lock().clone()
    }
    /// sethostname(2).
    pub fn set_nodename(&self, name: &[u8]) -> SysResult<()> {
        check_name(name)?;
        self.names.lock().nodename = name.to_vec();
        Ok(())
    }
    /// setdomainname(2).
    pub fn set_domainname(&self, name: &[u8]) -> SysResult<()> {
        check_name(name)?;
        self.names.lock().domainname = name.to_vec();
        Ok(())
    }
}

fn check_name(name: &[u8]) -> SysResult<()> {
    if name.len() >= abi::system::UTS_LEN { Err(Errno::EINVAL) } else { Ok(()) }
}

/// A cgroup namespace: a number, as it does not change what a process sees of its groups.
#[derive(Debug)]
pub struct CgroupNs {
    /// Number in /proc/pid/ns.
    pub ino: u64,
    /// Owner.
    pub user: Arc<UserNamespace>,
}

impl CgroupNs {
    /// A new one.
    #[must_use]
    pub fn new(user: Arc<UserNamespace>) -> Arc<CgroupNs> {
        Arc::new(CgroupNs { ino: next_ino(), user })
    }
}

/// The namespaces of a task beside its user namespace (which is part of its credentials).
#[derive(Clone, Debug)]
pub struct NsProxy {
    /// Host name.
    pub uts: Arc<UtsNs>,
    /// Network.
    pub net: Arc<NetNs>,
    /// System V IPC.
    pub ipc: Arc<IpcNs>,
    /// Control groups.
    pub cgroup: Arc<CgroupNs>,
    /// Where children are born; the task's own is in its `Pid`.
    pub pid_for_children: Arc<PidNs>,
}

/// Namespaces and credentials of a child.
pub struct ChildPlan {
    /// Namespaces.
    pub proxy: Arc<NsProxy>,
    /// Credentials (of a new user namespace with CLONE_NEWUSER).
    pub cred: Arc<vfs::Credentials>,
}

/// What a clone with `flags` gives its child.
pub fn for_clone(cx: &crate::task::Cx<'_>, flags: CloneFlags) -> SysResult<ChildPlan> {
    let plan = ChildPlan { proxy: Arc::clone(&cx.owned.ns), cred: Arc::clone(cx.cred()) };
    let own = cx.shared_ns();
    let same = own.is_some_and(|own| Arc::ptr_eq(&own, &plan.proxy.pid_for_children));
    if !same && flags.intersects(CloneFlags::THREAD | CloneFlags::NEWPID) {
        // After unshare(CLONE_NEWPID) a thread would be in another namespace than its process.
        return Err(Errno::EINVAL);
    }
    if !flags.intersects(CloneFlags::NAMESPACES) {
        return Ok(plan);
    }
    make(cx, flags, plan)
}

/// Makes the namespaces that `flags` name, for clone and unshare.
fn make(cx: &crate::task::Cx<'_>, flags: CloneFlags, plan: ChildPlan) -> SysResult<ChildPlan> {
    let mut cred = plan.cred;
    if flags.contains(CloneFlags::NEWUSER) {
        let fs = cx.fs().snapshot();
        if fs.root != fs.ns.root_location() {
            // Whoever is in a chroot could leave it with the capabilities of the new namespace.
            return Err(Errno::EPERM);
        }
        cred = new_user_ns(&cred)?;
    }
    let rest = flags & CloneFlags::NAMESPACES & !CloneFlags::NEWUSER;
    if !rest.is_empty() && !cred.has(vfs::Capabilities::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let mut proxy = NsProxy::clone(&plan.proxy);
    if flags.contains(CloneFlags::NEWUTS) {
        proxy.uts = UtsNs::new(Arc::clone(&cred.user_ns), proxy.uts.names());
    }
    if flags.contains(CloneFlags::NEWPID) {
        let parent = Arc::clone(&proxy.pid_for_children);
        proxy.pid_for_children = PidNs::new(next_ino(), Some(parent), Arc::clone(&cred.user_ns))?;
    }
    if flags.contains(CloneFlags::NEWIPC) {
        proxy.ipc = IpcNs::new(next_ino(), Arc::clone(&cred.user_ns));
    }
    if flags.contains(CloneFlags::NEWCGROUP) {
        proxy.cgroup = CgroupNs::new(Arc::clone(&cred.user_ns));
    }
    if flags.contains(CloneFlags::NEWNET) {
        proxy.net = NetNs::fresh(next_ino(), Arc::clone(&cred.user_ns));
    }
    let made = CloneFlags::NEWUTS
        | CloneFlags::NEWPID
        | CloneFlags::NEWUSER
        | CloneFlags::NEWNET
        | CloneFlags::NEWIPC
        | CloneFlags::NEWCGROUP
        | CloneFlags::NEWNS;
    if flags.intersects(CloneFlags::NAMESPACES.difference(made)) {
        return Err(Errno::EINVAL);
    }
    Ok(ChildPlan { proxy: Arc::new(proxy), cred })
}

/// Deepest nesting of user namespaces.
const MAX_USER_LEVEL: usize = 32;

fn new_user_ns(cred: &vfs::Credentials) -> SysResult<Arc<vfs::Credentials>> {
    let mut level = 0;
    let mut at = Some(&cred.user_ns);
    while let Some(ns) = at {
        level += 1;
        at = ns.parent.as_ref();
    }
    if level > MAX_USER_LEVEL {
        return Err(Errno::ENOSPC);
    }
    if !cred.user_ns.maps_uid(cred.euid) || !cred.user_ns.maps_gid(cred.egid) {
        return Err(Errno::EPERM);
    }
    let ns = UserNamespace {
        ino: next_ino(),
        parent: Some(Arc::clone(&cred.user_ns)),
        owner: cred.euid,
        maps: Ranked::new(vfs::cred::IdMaps::default()),
    };
    let all = vfs::Capabilities::all();
    let mut new = cred.clone();
    new.user_ns = Arc::new(ns);
    new.securebits = 0;
    new.caps = vfs::CapSets {
        effective: all,
        permitted: all,
        inheritable: vfs::Capabilities::empty(),
        bounding: all,
        ambient: vfs::Capabilities::empty(),
    };
    Ok(Arc::new(new))
}

/// Gives a root and working directory of its own a copy of its mount namespace (CLONE_NEWNS).
pub fn new_mounts(fs: &crate::task::FsContext, cred: &vfs::Credentials) -> SysResult<()> {
    let mut root = fs.snapshot().root.clone();
    let mut cwd = fs.snapshot().cwd.clone();
    let old = Arc::clone(&fs.snapshot().ns);
    let ns = old.copy(next_ino(), &cred.user_ns, &mut [&mut root, &mut cwd])?;
    fs.update(|fs| {
        fs.ns = ns;
        fs.root = root;
        fs.cwd = cwd;
    });
    Ok(())
}
