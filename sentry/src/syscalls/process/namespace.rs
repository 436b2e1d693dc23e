//! unshare(2), setns(2).

use crate::files::FdTable;
use crate::namespace;
use crate::process::pidfd;
use crate::procfs::nsfs::NsHandle;
use crate::task::{Cx, FsContext};
use abi::process::CloneFlags;
use abi::{CallResult, Errno, Fd, SysResult};
use std::sync::Arc;
use vfs::{Capabilities, Credentials};

/// unshare(2).
pub fn unshare(cx: &mut Cx<'_>, flags: u64) -> CallResult<()> {
    let known = CloneFlags::NAMESPACES
        | CloneFlags::FS
        | CloneFlags::FILES
        | CloneFlags::SYSVSEM
        | CloneFlags::THREAD
        | CloneFlags::SIGHAND
        | CloneFlags::VM;
    let mut flags =
        CloneFlags::from_bits(flags).filter(|flags| known.contains(*flags)).ok_or(Errno::EINVAL)?;
    let alone = cx.shared.process.state.lock().live <= 1;
    if flags.contains(CloneFlags::NEWUSER) {
        flags |= CloneFlags::THREAD | CloneFlags::FS;
    }
    if flags.contains(CloneFlags::NEWNS) {
        flags |= CloneFlags::FS;
    }
    if flags.intersects(CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM) && !alone {
        return Err(Errno::EINVAL.into());
    }
    let plan = namespace::for_clone(cx, flags - CloneFlags::THREAD)?;
    if flags.contains(CloneFlags::FS) {
        cx.owned.fs = FsContext::duplicate(&cx.owned.fs);
    }
    if flags.contains(CloneFlags::NEWNS) {
        namespace::new_mounts(&cx.owned.fs, &plan.cred)?;
    }
    if flags.contains(CloneFlags::FILES) {
        let most = cx.kernel().sysctl.numbers("fs/nr_open").first().copied().unwrap_or(u64::MAX);
        if cx.files().highest().is_some_and(|fd| u64::try_from(fd).is_ok_and(|fd| fd >= most)) {
            return Err(Errno::EMFILE.into());
        }
        cx.owned.files = Arc::new(FdTable::fork(&cx.owned.files));
    }
    cx.owned.ns = plan.proxy;
    cx.owned.cred = plan.cred;
    cx.owned.publish(cx.shared);
    crate::task::local_answers(cx);
    Ok(())
}

/// setns(2).
pub fn setns(cx: &mut Cx<'_>, fd: Fd, kinds: u32) -> CallResult<()> {
    let file = cx.files().get_io(fd)?;
    let wanted = CloneFlags::from_bits(u64::from(kinds)).ok_or(Errno::EINVAL)?;
    if let Ok(process) = pidfd::process_of(&file) {
        if wanted.is_empty() || !CloneFlags::NAMESPACES.contains(wanted) {
            return Err(Errno::EINVAL.into());
        }
        let leader = process.leader().ok_or(Errno::ESRCH)?;
        crate::ptrace::access::may_access(cx, &leader, crate::ptrace::access::Mode::ReadReal)?;
        let published = leader.published.lock().clone();
        // The user namespace first: it decides about the others.
        for name in ["user", "mnt", "uts", "ipc", "net", "cgroup", "time", "pid"] {
            let Some(handle) = NsHandle::of(&published, name) else { return Err(Errno::ESRCH.into()) };
            if wanted.contains(handle.flag()) {
                enter(cx, &handle)?;
            }
        }
        return Ok(());
    }
    let handle = NsHandle::of_file(&file).ok_or(Errno::EINVAL)?;
    if !wanted.is_empty() && wanted != handle.flag() {
        return Err(Errno::EINVAL.into());
    }
    Ok(enter(cx, &handle)?)
}

fn enter(cx: &mut Cx<'_>, handle: &NsHandle) -> SysResult<()> {
    let cred = Arc::clone(cx.cred());
    let admin = |ns: &Arc<vfs::UserNamespace>| {
        cred.has(Capabilities::SYS_ADMIN) && cred.has_in(Capabilities::SYS_ADMIN, ns)
    };
    let mut proxy = crate::namespace::NsProxy::clone(&cx.owned.ns);
    match handle {
        NsHandle::User(ns) => {
            let alone = cx.shared.process.state.lock().live <= 1;
            if Arc::ptr_eq(ns, &cred.user_ns) || !alone {
                return Err(Errno::EINVAL);
            }
            if !cred.has_in(Capabilities::SYS_ADMIN, ns) {
                return Err(Errno::EPERM);
            }
            let all = Capabilities::all();
            let mut new = Credentials::clone(&cred);
            new.user_ns = Arc::clone(ns);
            new.caps.effective = all;
            new.caps.permitted = all;
            new.caps.bounding = all;
            cx.owned.cred = Arc::new(new);
        }
        NsHandle::Mnt(ns) => {
            if !admin(&ns.user_ns) || !cred.has(Capabilities::SYS_CHROOT) {
                return Err(Errno::EPERM);
            }
            if Arc::strong_count(&cx.owned.fs) > 2 {
                // Root and working directory are shared (CLONE_FS).
                return Err(Errno::EINVAL);
            }
            let root = ns.root_location();
            cx.owned.fs.update(|fs| {
                fs.ns = Arc::clone(ns);
                fs.root = root.clone();
                fs.cwd = root;
            });
        }
        NsHandle::Pid(ns) => {
            let own = cx.shared_ns().ok_or(Errno::EINVAL)?;
            if !admin(&ns.user) {
                return Err(Errno::EPERM);
            }
            if !own.is_ancestor_of(ns) {
                return Err(Errno::EINVAL);
            }
            proxy.pid_for_children = Arc::clone(ns);
        }
        NsHandle::Uts(ns) => {
            if !admin(&ns.user) {
                return Err(Errno::EPERM);
            }
            proxy.uts = Arc::clone(ns);
        }
        NsHandle::Net(ns) => {
            if !admin(&ns.user_ns) {
                return Err(Errno::EPERM);
            }
            proxy.net = Arc::clone(ns);
        }
        NsHandle::Ipc(ns) => {
            if !admin(&ns.user) {
                return Err(Errno::EPERM);
            }
            proxy.ipc = Arc::clone(ns);
        }
        NsHandle::Cgroup(ns) => {
            if !admin(&ns.user) {
                return Err(Errno::EPERM);
            }
            proxy.cgroup = Arc::clone(ns);
        }
        // There is only the one that it is in.
        NsHandle::Single(_) => {
            if !cred.has(Capabilities::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
        }
    }
    cx.owned.ns = Arc::new(proxy);
    cx.owned.publish(cx.shared);
    crate::task::local_answers(cx);
    Ok(())
}
