//! The network helper (`--network=host`): a small process in the container's network namespace that makes
//! sockets, binds them, and says what the namespace looks like. It serves the sentry alone, over one socket;
//! its end is that of the connection.

mod filter;
mod serve;

use super::ids::{Gate, Ids};
use super::walls::{fill_standard, leave_caller, unshare};
use crate::cli::{Global, Network};
use crate::container::process::host_pid;
use crate::error::{Doing, Failure, Outcome};
use crate::spec::Plan;
use crate::spec::convert::Net;
use crate::spec::names::capability_bit;
use net::host::wire::TEXTS;
use nix::sched::{CloneFlags, setns};
use platform::spawn::{
    Child, Unshare, close_all_except, die_with_parent, empty_root, fork, keep_capabilities,
};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::thread::UnshareFlags;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Whether the sockets of the helper may be raw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Raw {
    /// `--net-raw` and the bundle's capabilities allow it.
    Allowed,
    /// Never.
    Refused,
}

/// Which namespace the helper is for, and what it does there first.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    /// Entered by path; else the caller's.
    path: Option<PathBuf>,
    /// `net.*` of linux.sysctl.
    sysctl: BTreeMap<String, String>,
    /// Its loopback is brought up.
    fresh: bool,
    raw: bool,
}

/// Whether hooks may set up the network: behind the container stands a monitor in a fresh namespace then.
pub(crate) fn is_set_up_by_hooks(plan: &Plan) -> bool {
    plan.net == Net::New && plan.hooks.is_some() && rustix::process::geteuid().is_root()
}

/// What there is to reach; `None` when the sentry's own loopback is all there is.
pub(crate) fn reach(global: &Global, plan: &Plan) -> Outcome<Option<Reach>> {
    match global.network {
        Network::None => return Ok(None),
        Network::Host => {}
    }
    let path = match &plan.net {
        Net::Path(path) => Some(path.clone()),
        Net::Host => None,
        Net::New if is_set_up_by_hooks(plan) => None,
        Net::New => return Ok(None),
    };
    let sysctl: BTreeMap<_, _> = plan
        .container
        .sysctl
        .iter()
        .filter(|(name, _)| is_network(name))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    if let (Net::Host, Some(name)) = (&plan.net, sysctl.keys().next()) {
        return Err(Failure::new(format!(
            "linux.sysctl: {name:?}: not allowed in the host's network namespace"
        )));
    }
    let raw = global.net_raw
        && capability_bit("CAP_NET_RAW")
            .is_some_and(|bit| plan.container.process.capabilities.bounding & bit != 0);
    Ok(Some(Reach { path, sysctl, fresh: plan.net == Net::New, raw }))
}

fn is_network(sysctl: &str) -> bool {
    sysctl.starts_with("net.") || sysctl.starts_with("net/")
}

/// Forks the helper. `word` takes one line when it could not begin, and is closed once it serves.
pub(crate) fn spawn(reach: &Reach, socket: OwnedFd, word: OwnedFd) -> Outcome<Child> {
    // An ordinary user may leave the host's root only in a user namespace.
    let ids = (!rustix::process::geteuid().is_root()).then(Ids::own);
    let gate = ids.as_ref().map(|_| Gate::new()).transpose()?;
    let (ids, gate) = (ids.as_ref(), gate.as_ref());
    let parent = rustix::process::getpid().as_raw_pid();
    let main = move || {
        let mut word = std::fs::File::from(word);
        let mut keep = vec![socket.as_fd(), word.as_fd()];
        keep.extend(gate.map(Gate::inside));
        let kept = close_all_except(&keep).doing(|| "closing descriptors");
        let entered = kept.and_then(|()| match (gate, ids) {
            (Some(gate), Some(ids)) => gate.pass(ids),
            _ => Ok(()),
        });
        let view = match entered.and_then(|()| prepare(reach, parent)) {
            Ok(view) => view,
            Err(failure) => {
                let _ = word.write_all(failure.message.as_bytes());
                return 1;
            }
        };
        drop(word);
        serve::serve(&socket, &view);
        0
    };
    let how = if ids.is_some() { Unshare::USER } else { Unshare::empty() };
    let child = fork(how, main).doing(|| "starting the network helper")?;
    if let (Some(gate), Some(ids)) = (gate, ids)
        && let Err(failure) = gate.open(ids, host_pid(&child))
    {
        super::monitor::kill_and_reap(&child);
        return Err(failure);
    }
    Ok(child)
}

/// Waits until the helper serves.
pub(crate) fn ready(word: OwnedFd) -> Outcome<()> {
    let mut words = String::new();
    std::fs::File::from(word).read_to_string(&mut words).doing(|| "the network helper")?;
    if words.is_empty() { Ok(()) } else { Err(Failure::new(words)) }
}

/// What the helper looks at the namespace with.
struct View {
    /// A netlink socket of the route family.
    route: OwnedFd,
    /// Files of /proc/net, in the order of [`TEXTS`].
    texts: Vec<Option<OwnedFd>>,
    /// Whether raw sockets are made.
    raw: Raw,
}

fn prepare(reach: &Reach, parent: i32) -> Outcome<View> {
    fill_standard(None)?;
    leave_caller(c"runsc-net")?;
    die_with_parent(parent).doing(|| "PR_SET_PDEATHSIG")?;
    if let Some(path) = &reach.path {
        enter(path)?;
    }
    unshare(UnshareFlags::NEWNS)?;
    let route = serve::route_socket()?;
    if reach.fresh {
        serve::loopback_up(&route)?;
    }
    for (name, value) in &reach.sysctl {
        write_sysctl(name, value)?;
    }
    let texts = TEXTS
        .iter()
        .map(|name| read_only(Path::new("/proc/thread-self/net").join(name).as_path()).ok())
        .collect();
    empty_root().doing(|| "leaving the host's root")?;
    unshare(UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP)?;
    let raw = if reach.raw { Raw::Allowed } else { Raw::Refused };
    let mut kept = capability_bit("CAP_NET_BIND_SERVICE").unwrap_or(0);
    if raw == Raw::Allowed {
        kept |= capability_bit("CAP_NET_RAW").unwrap_or(0);
    }
    keep_capabilities(kept).doing(|| "giving up capabilities")?;
    filter::install(raw)?;
    Ok(View { route, texts, raw })
}

fn enter(path: &Path) -> Outcome<()> {
    let what = || format!("linux.namespaces: network: {}", path.display());
    let namespace = read_only(path).doing(what)?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).doing(what)
}

fn read_only(path: &Path) -> rustix::io::Result<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// As runc does: /proc/sys/net shows the namespace of whoever looks.
fn write_sysctl(name: &str, value: &str) -> Outcome<()> {
    let what = || format!("linux.sysctl: {name:?}");
    // A name with slashes may have dots inside (interfaces of VLANs).
    let place = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    if place.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Failure::new(format!("{}: not a name", what())));
    }
    let file = openat(
        CWD,
        Path::new("/proc/sys").join(place).as_path(),
        OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    rustix::io::write(&file.doing(what)?, value.as_bytes()).doing(what).map(|_| ())
}
