//! The gofer's way behind its walls. Its exports are detached copies of mounts, `nodev` and `nosuid`; its
//! own root is an empty tmpfs, so nothing else of the host has a name.

use super::ids::{Gate, Ids};
use super::walls::{fill_standard, leave_caller, raise_descriptor_limit, unshare};
use crate::container::process::host_pid;
use crate::error::{Doing, Outcome};
use crate::spec::Export;
use crate::spec::convert::Access;
use crate::spec::mounts::Depth;
use crate::spec::names::capability_bit;
use gofer::{Config, ExportFlags, Filter};
use nix::sched::{CloneFlags, setns};
use platform::spawn::{
    Child, MountAttr, Unshare, close_all_except, die_with_parent, empty_root, fork, keep_capabilities,
    restrict_mount,
};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::thread::UnshareFlags;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

/// Forks the gofer. `failures` takes one line when it could not begin.
/// With a sentry that this process made, it shares that one's network namespace, which is empty.
pub(crate) fn spawn(
    exports: &[Export],
    socket: OwnedFd,
    failures: OwnedFd,
    sentry: Option<&Child>,
    ids: Option<&Ids>,
) -> Outcome<Child> {
    let gate = ids.map(|_| Gate::new()).transpose()?;
    let gate = gate.as_ref();
    // Root of a user namespace cannot walk where the host's root can: the trees are opened before.
    let early = match ids {
        Some(_) if rustix::process::geteuid().is_root() => {
            exports.iter().map(export).collect::<Outcome<Vec<_>>>()?
        }
        _ => Vec::new(),
    };
    let parent = rustix::process::getpid().as_raw_pid();
    let main = move || {
        let mut failures = std::fs::File::from(failures);
        let kept = close_kept(&socket, &failures, sentry, gate, &early);
        let entered = kept.and_then(|()| match (gate, ids) {
            (Some(gate), Some(ids)) => gate.pass(ids),
            _ => Ok(()),
        });
        let config = match entered.and_then(|()| prepare(exports, early, socket, (sentry, parent))) {
            Ok(config) => config,
            Err(failure) => {
                let _ = failures.write_all(failure.message.as_bytes());
                return 1;
            }
        };
        drop(failures);
        u8::from(gofer::serve(config).is_err())
    };
    let how = if ids.is_some() { Unshare::USER } else { Unshare::empty() };
    let child = fork(how, main).doing(|| "starting the gofer")?;
    if let (Some(gate), Some(ids)) = (gate, ids)
        && let Err(failure) = gate.open(ids, host_pid(&child))
    {
        super::monitor::kill_and_reap(&child);
        return Err(failure);
    }
    Ok(child)
}

fn close_kept(
    socket: &OwnedFd,
    failures: &std::fs::File,
    sentry: Option<&Child>,
    gate: Option<&Gate>,
    early: &[gofer::Export],
) -> Outcome<()> {
    let mut keep = vec![socket.as_fd(), failures.as_fd()];
    keep.extend(gate.map(Gate::inside));
    keep.extend(early.iter().map(|export| export.root.as_fd()));
    keep.extend(sentry.map(|sentry| sentry.pidfd.as_fd()));
    close_all_except(&keep).doing(|| "closing descriptors")
}

/// Leaves the host's network: for the sentry's namespace, or for one of its own where there is none or it
/// cannot be entered.
fn leave_network(sentry: Option<&Child>) -> Outcome<()> {
    let entered = sentry.is_some_and(|sentry| setns(&sentry.pidfd, CloneFlags::CLONE_NEWNET).is_ok());
    if entered { Ok(()) } else { unshare(UnshareFlags::NEWNET) }
}

fn prepare(
    exports: &[Export],
    early: Vec<gofer::Export>,
    socket: OwnedFd,
    (sentry, parent): (Option<&Child>, i32),
) -> Outcome<Config> {
    fill_standard(None)?;
    leave_caller(c"runsc-gofer")?;
    die_with_parent(parent).doing(|| "PR_SET_PDEATHSIG")?;
    unshare(UnshareFlags::NEWNS)?;
    let exports =
        if early.is_empty() { exports.iter().map(export).collect::<Outcome<Vec<_>>>()? } else { early };
    gofer::enter_own_descriptors().doing(|| "/proc/self/fd")?;
    let descriptors = openat(CWD, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let descriptors = descriptors.doing(|| "/proc/self/fd")?;
    empty_root().doing(|| "leaving the host's root")?;
    rustix::process::fchdir(descriptors).doing(|| "/proc/self/fd")?;
    leave_network(sentry)?;
    unshare(UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP)?;
    raise_descriptor_limit();
    let bits = gofer::CAPABILITIES.iter().filter_map(|(name, _)| capability_bit(name));
    keep_capabilities(bits.fold(0, |all, bit| all | bit)).doing(|| "giving up capabilities")?;
    Ok(Config { socket, exports, filter: Filter::Installed })
}

fn export(export: &Export) -> Outcome<gofer::Export> {
    let mut flags = ExportFlags::empty();
    if export.access == Access::Read {
        flags |= ExportFlags::READ_ONLY;
    }
    if export.shared {
        flags |= ExportFlags::SHARED;
    }
    Ok(gofer::Export { root: detached(export)?, flags })
}

/// A detached copy of an export's mounts, without devices and set-user-ID bits, read-only if it is.
pub(crate) fn detached(export: &Export) -> Outcome<OwnedFd> {
    let mut how = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if export.depth == Depth::Recursive {
        how |= OpenTreeFlags::AT_RECURSIVE;
    }
    let root = open_tree(CWD, &export.source, how).doing(|| export.source.display())?;
    let mut attributes = MountAttr::NODEV | MountAttr::NOSUID;
    if export.access == Access::Read {
        attributes |= MountAttr::READONLY;
    }
    restrict_mount(root.as_fd(), attributes).doing(|| export.source.display())?;
    Ok(root)
}
