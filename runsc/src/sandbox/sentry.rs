//! The sentry's way behind its walls: nobody in a user namespace, every other namespace its own, an empty
//! root, no capabilities, a filter. Everything that needs the host (memory file, facts, the platform's
//! template process) is made on the way.

use super::filter::{self, Sockets};
use super::walls::{fill_standard, leave_caller, raise_descriptor_limit, unshare};
use crate::error::{Doing, Failure, Outcome};
use ::sentry::container::Sandbox;
use ::sentry::control::message::{Answer, Reply, send};
use ::sentry::control::server::serve;
use ::sentry::control::spec::{BootConfig, ContainerSpec, PlatformKind};
use ::sentry::control::{ControlError, Donated, ErrorKind, SandboxControl};
use net::host::HostNet;
use platform::Platform;
use platform::memory::MemoryFile;
use platform::ptrace::Ptrace;
use platform::spawn::{
    Child, Dumpable, SetGroups, Unshare, become_ids, check_no_directories, close_all_except, die_with_parent,
    empty_root, fork, keep_capabilities, set_dumpable,
};
use platform::systrap::Systrap;
use rustix::thread::UnshareFlags;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Host user and group of the sentry: nobody.
pub(crate) const NOBODY: u32 = 65_534;

/// CAP_SYS_ADMIN: mounting its memory file and leaving the host's root. CAP_SETPCAP: giving up the rest. Both
/// are gone before the filter goes in.
const CAPABILITIES_OF_BOOT: u64 = 1 << 21 | 1 << 8;

/// Descriptors below this are looked at before the filter goes in: far more than are open.
const DESCRIPTORS_CHECKED: i32 = 256;

/// The parent's pid, as seen from a new pid namespace.
const OUTSIDE: i32 = 0;

/// Exit status of a sentry that panicked: as a shell shows SIGABRT.
const PANICKED: u8 = 134;

/// What the sentry inherits.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// Connection to the monitor.
    pub(crate) owner: OwnedFd,
    /// Listening socket for other calls of the runtime.
    pub(crate) listener: OwnedFd,
    /// Connection to the network helper.
    pub(crate) network: Option<OwnedFd>,
    /// Of the first container.
    pub(crate) donated: Donated,
    /// `--debug-log`.
    pub(crate) log: Option<OwnedFd>,
    /// Standard error, for the last words of a panic.
    pub(crate) last_words: Option<OwnedFd>,
}

/// Who the sentry is inside its user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    /// User.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
}

/// Forks the sentry. It waits for one packet on `owner`, sent once its user namespace has its maps.
pub(crate) fn spawn(
    config: BootConfig,
    container: ContainerSpec,
    fds: Inherited,
    who: Identity,
) -> Outcome<Child> {
    let main = move || {
        let Ok(owner) = fds.owner.try_clone() else { return 1 };
        match boot(config, container, fds, who, &owner) {
            Ok(()) => 0,
            Err(failure) => {
                let error = ControlError::new(kind(failure.code), failure.message);
                let _ = send(owner.as_fd(), &Reply { number: 0, body: Answer::Failed { error } }, &[]);
                1
            }
        }
    };
    fork(Unshare::USER | Unshare::PID | Unshare::NET, main).doing(|| "starting the sentry")
}

fn kind(code: u8) -> ErrorKind {
    match code {
        127 => ErrorKind::ProgramNotFound,
        126 => ErrorKind::ProgramRefused,
        _ => ErrorKind::Failed,
    }
}

fn boot(
    mut config: BootConfig,
    container: ContainerSpec,
    fds: Inherited,
    who: Identity,
    owner: &OwnedFd,
) -> Outcome<()> {
    let mut keep = vec![owner.as_fd(), fds.owner.as_fd(), fds.listener.as_fd()];
    keep.extend(
        fds.donated.stdio.iter().chain(&fds.donated.preserved).chain(&fds.donated.gofer).map(AsFd::as_fd),
    );
    keep.extend(fds.donated.cgroups.iter().chain(&fds.donated.views).map(AsFd::as_fd));
    keep.extend(fds.log.iter().chain(&fds.last_words).chain(&fds.network).map(AsFd::as_fd));
    close_all_except(&keep).doing(|| "closing descriptors")?;
    drop(keep);
    fill_standard(fds.last_words.as_ref().or(fds.log.as_ref()))?;
    leave_caller(c"runsc-sentry")?;
    super::scores::set_sentry(container.process.oom_score_adj, container.limits.memory_max);
    raise_descriptor_limit();
    end_on_panic();
    wait_for_maps(&fds.owner)?;
    become_ids(who.uid, who.gid, SetGroups::Deny).doing(|| "becoming nobody")?;
    // Its end is also that of the connection, which is looked at once the sentry serves.
    die_with_parent(OUTSIDE).doing(|| "PR_SET_PDEATHSIG")?;
    unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP)?;
    // The platform's template process is forked on the way and drops what is left.
    keep_capabilities(CAPABILITIES_OF_BOOT).doing(|| "giving up capabilities")?;
    platform::host::one_heap();
    config.host = super::launch::host_facts();
    raise_descriptor_limit();
    let sockets = if fds.network.is_some() { Sockets::Donated } else { Sockets::Inside };
    let control = ready(&mut config, fds.log, fds.network.map(HostNet::new))?;
    empty_root().doing(|| "leaving the host's root")?;
    keep_capabilities(0).doing(|| "giving up capabilities")?;
    set_dumpable(Dumpable::No).doing(|| "PR_SET_DUMPABLE")?;
    check_no_directories(DESCRIPTORS_CHECKED).doing(|| "a descriptor of the host's files is open")?;
    filter::install(config.platform, sockets)?;
    let id = container.id.clone();
    control.create_container(container, fds.donated)?;
    send(fds.owner.as_fd(), &Reply { number: 0, body: Answer::Done }, &[]).doing(|| "reporting")?;
    serve(&control, Some(fds.listener), fds.owner, vec![id]).doing(|| "serving the control socket")?;
    Ok(())
}

/// The kernel, with everything it needs of the host in its hands. A host without what systrap needs gets
/// ptrace, and `config` says so.
fn ready(
    config: &mut BootConfig,
    log: Option<OwnedFd>,
    network: Option<HostNet>,
) -> Outcome<Arc<dyn SandboxControl>> {
    let fail = |what: &str, errno: abi::Errno| Failure::new(format!("{what}: {errno}"));
    let memory = MemoryFile::create(config.memory_limit).map_err(|e| fail("the memory file", e))?;
    let memory = Arc::new(memory);
    let mut missing = None;
    let mut platform: Option<Arc<dyn Platform>> = None;
    if config.platform == PlatformKind::Systrap {
        match Systrap::new(Arc::clone(&memory)) {
            Ok(systrap) => platform = Some(Arc::new(systrap)),
            Err(errno @ abi::Errno::ENOSYS) => missing = Some(errno),
            Err(errno) => return Err(fail("platform systrap", errno)),
        }
    }
    let platform = match platform {
        Some(platform) => platform,
        None => {
            config.platform = PlatformKind::Ptrace;
            Arc::new(Ptrace::new(memory).map_err(|e| fail("platform ptrace", e))?)
        }
    };
    let sandbox = Sandbox::new(config, platform, network).map_err(|e| fail("the kernel", e))?;
    if let Some(log) = log {
        sandbox.kernel().trace.set_sink(Box::new(std::fs::File::from(log)));
    }
    if let Some(errno) = missing {
        sandbox.kernel().trace.log(&format!("platform systrap: {errno}; ptrace is used (see runsc check)"));
    }
    Ok(sandbox)
}

/// A panic ends the sandbox: one line, then the process. (It is the first of its pid namespace, in which
/// abort(3) does nothing.)
fn end_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let line = format!("runsc: the sentry panicked: {panic}\n").replace(":\n", ": ");
        let _ = rustix::io::write(std::io::stderr(), line.as_bytes());
        std::process::exit(i32::from(PANICKED));
    }));
}

fn wait_for_maps(owner: &OwnedFd) -> Outcome<()> {
    let mut go = [0_u8; 1];
    match rustix::net::recv(owner, &mut go[..], rustix::net::RecvFlags::empty()).doing(|| "maps")? {
        (1, _) => Ok(()),
        _ => Err(Failure::new("the runtime is gone")),
    }
}
