//! Containers of a sandbox: what the control plane creates, starts, signals and waits for.
//!
//! Rank `Containers`: the table of containers; nothing that can block happens under it.

mod caller;
mod copy_up;
mod mounts;
mod process;
mod report;
mod stdio;
mod view;

use crate::cgroup::Cgroup;
use crate::control::message::Switch;
use crate::control::spec::{
    BootConfig, ContainerSpec, IdMapping, Limits, NamespaceKind, Namespaces, ProcessSpec,
};
use crate::control::{
    ContainerStatus, ControlError, ControlResult, Donated, ErrorKind, ExitNotice, ExitStatus, FileView,
    OomNotice, ProcessInfo, SandboxControl, SignalTarget, Stats,
};
use crate::kernel::{Kernel, Machine};
use crate::namespace::{CgroupNs, NsProxy, UtsNames, UtsNs, next_ino};
use crate::process::freezer::Freezer;
use crate::process::pid::PidNs;
use crate::process::{Process, WaitStatus};
use crate::seccomp::Filters;
use crate::signal::send::{self, Force};
use abi::siginfo::{SigInfo, code};
use abi::signal::Signal;
use abi::{Errno, SysResult};
use lock::Ranked;
use lock::order::{Containers, Leaf};
use net::host::HostNet;
use platform::Platform;
use process::Prepared;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use vfs::FsContext;
use vfs::cred::IdExtent;
use vfs::event::timer::{Hold, timers};
use vfs::remote::RemoteFs;
use view::View;

/// A container.
struct Container {
    /// First process.
    init: Arc<Process>,
    /// Loaded and not started.
    prepared: Option<Prepared>,
    /// Root and mounts, for exec.
    fs: FsContext,
    /// Namespaces, for exec.
    ns: Arc<NsProxy>,
    pid_ns: Arc<PidNs>,
    /// Its processes.
    freezer: Arc<Freezer>,
    /// The bundle's seccomp profile.
    seccomp: Option<Arc<Filters>>,
    /// Root of its control groups.
    cgroup: Arc<Cgroup>,
    /// Processes that exec added: until they have ended and somebody was told.
    execs: BTreeMap<u32, Execed>,
}

/// Where a further process of a container lives.
struct Room {
    fs: FsContext,
    ns: Arc<NsProxy>,
    pid_ns: Arc<PidNs>,
    freezer: Arc<Freezer>,
    seccomp: Option<Arc<Filters>>,
}

impl Room {
    fn of(container: &Container) -> Room {
        Room {
            fs: container.fs.clone(),
            ns: Arc::clone(&container.ns),
            pid_ns: Arc::clone(&container.pid_ns),
            freezer: Arc::clone(&container.freezer),
            seccomp: container.seccomp.clone(),
        }
    }
}

/// A process that exec added.
struct Execed {
    process: Arc<Process>,
    /// Somebody has asked how it ends.
    awaited: bool,
}

/// The sandbox behind a control socket.
pub struct Sandbox {
    kernel: Arc<Kernel>,
    containers: Ranked<Containers, BTreeMap<String, Container>>,
    /// Namespaces of the first container, which others of a pod share, also when it has been deleted.
    first: OnceLock<(Arc<NsProxy>, Arc<PidNs>)>,
    /// Processes whose program may not run, to be ended once who asked for them has heard of it: with the first
    /// process' end the monitor takes the sandbox down.
    refused: Ranked<Leaf, Vec<process::Refused>>,
    /// Views that the control plane does not serve yet.
    views: Ranked<Leaf, Vec<Box<dyn FileView>>>,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sandbox(..)")
    }
}

impl Sandbox {
    /// A sandbox without containers; `network` leads to the network helper, if there is one.
    pub fn new(
        config: &BootConfig,
        platform: Arc<dyn Platform>,
        network: Option<HostNet>,
    ) -> SysResult<Arc<Sandbox>> {
        let machine = Machine {
            cpus: crate::cgroup::cpus::count(&config.cpu_ids).max(1),
            cpu_ids: config.cpu_ids,
            memory: config.memory_limit,
            cpu_khz: config.host.cpu_khz,
        };
        let kernel = Kernel::new(platform, machine, network)?;
        kernel.trace.switch(if config.strace { Switch::On } else { Switch::Off });
        mounts::register(&kernel)?;
        Ok(Arc::new(Sandbox {
            kernel,
            containers: Ranked::default(),
            first: OnceLock::new(),
            refused: Ranked::default(),
            views: Ranked::default(),
        }))
    }
    /// Its kernel.
    #[must_use]
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    fn with<T>(&self, id: &str, act: impl FnOnce(&mut Container) -> ControlResult<T>) -> ControlResult<T> {
        let mut containers = self.containers.lock();
        let container = containers.get_mut(id).ok_or_else(|| ControlError::no_container(id))?;
        act(container)
    }

    /// Namespaces of a new container: its own, or those of the sandbox' first. `network` leads to a helper for a
    /// network of its own.
    fn namespaces(
        &self,
        spec: &ContainerSpec,
        network: Option<HostNet>,
    ) -> SysResult<(Arc<NsProxy>, Arc<PidNs>)> {
        let Namespaces { pid, uts, .. } = spec.namespaces;
        let root = &self.kernel.root;
        let first = self.first.get();
        let target = match &spec.pid_of {
            Some(id) => {
                let containers = self.containers.lock();
                Some(containers.get(id).map(|other| Arc::clone(&other.pid_ns)).ok_or(Errno::ESRCH)?)
            }
            None => None,
        };
        let pid_ns = match (pid, first) {
            (NamespaceKind::Sandbox, Some((_, pid_ns))) => target.unwrap_or_else(|| Arc::clone(pid_ns)),
            _ => PidNs::new(next_ino(), Some(Arc::clone(&root.pid)), Arc::clone(&root.user))?,
        };
        let uts = match (uts, first) {
            (NamespaceKind::Sandbox, Some((ns, _))) => Arc::clone(&ns.uts),
            _ => {
                let text = |name: &Option<String>, default: &str| {
                    name.as_deref().unwrap_or(default).as_bytes().to_vec()
                };
                let names = UtsNames {
                    nodename: text(&spec.hostname, "localhost"),
                    domainname: text(&spec.domainname, "(none)"),
                };
                UtsNs::new(Arc::clone(&root.user), names)
            }
        };
        let ipc = match (spec.namespaces.ipc, first) {
            (NamespaceKind::Sandbox, Some((ns, _))) => Arc::clone(&ns.ipc),
            _ => crate::ipc::IpcNs::new(next_ino(), Arc::clone(&root.user)),
        };
        // The first container's is the sandbox' own.
        let net = match (spec.namespaces.net, first) {
            (NamespaceKind::Private, Some(_)) => {
                net::NetNs::with_host(next_ino(), Arc::clone(&root.user), network)
            }
            _ => Arc::clone(&root.proxy.net),
        };
        let cgroup = CgroupNs::new(Arc::clone(&root.user));
        let proxy = NsProxy { uts, net, ipc, cgroup, pid_for_children: Arc::clone(&pid_ns) };
        let made = (Arc::new(proxy), pid_ns);
        self.first.get_or_init(|| made.clone());
        Ok(made)
    }
}

/// Engines copy files into the root file system of a running container (`docker cp`), mostly between an exec,
/// a pause or a resume: what the kernel remembers of its names is looked at again then.
fn look_afresh(fs: &FsContext) {
    let root = fs.ns.root();
    if let Some(remote) = root.sb.fs.as_any().downcast_ref::<RemoteFs>() {
        vfs::dentry::trim(Some(root.sb.id));
        remote.look_afresh();
    }
}

/// A failure of the kernel while something was built, with what it was.
fn failed(what: &str, errno: Errno) -> ControlError {
    ControlError::new(ErrorKind::Failed, format!("{what}: {errno}"))
}

fn to_exit(status: WaitStatus) -> ExitStatus {
    let low = u8::try_from(status.0 & 0x7f).unwrap_or(0);
    if low == 0 {
        ExitStatus::Exited(u8::try_from((status.0 >> 8) & 0xff).unwrap_or(0))
    } else {
        ExitStatus::Killed(low)
    }
}

/// Calls `notice` at the end of a process.
fn when_ended(process: &Arc<Process>, notice: ExitNotice) {
    let mut ending = process.ending.lock();
    match ending.status {
        Some(status) => {
            drop(ending);
            notice(to_exit(status));
        }
        None => ending.notices.push(Box::new(move |status| notice(to_exit(status)))),
    }
}

fn has_ended(process: &Arc<Process>) -> bool {
    process.ending.lock().status.is_some()
}

impl Sandbox {
    /// Lets a process run, if the bundle's seccomp profile lets it execute its program.
    fn start_filtered(
        &self,
        prepared: Prepared,
        seccomp: Option<&Arc<Filters>>,
        name: &str,
    ) -> ControlResult<()> {
        prepared.start_filtered(seccomp, name).map_err(|(refused, error)| {
            self.refused.lock().extend(refused.map(|refused| *refused));
            error
        })
    }
}

impl SandboxControl for Sandbox {
    fn create_container(&self, spec: ContainerSpec, donated: Donated) -> ControlResult<()> {
        if self.containers.lock().contains_key(&spec.id) {
            return Err(ControlError::new(
                ErrorKind::Exists,
                format!("container {:?} already exists", spec.id),
            ));
        }
        let Donated { stdio, preserved, gofer, cgroups, network, views } = donated;
        if network.is_some() && self.kernel.root.proxy.net.host().is_none() {
            // Its filter refuses the calls of the host's sockets.
            let words = "linux.namespaces: a network namespace beside a sandbox that was made without the host's network is not supported";
            return Err(ControlError::new(ErrorKind::Unsupported, words));
        }
        let network = network.map(HostNet::new);
        let (ns, pid_ns) = self.namespaces(&spec, network).map_err(|e| failed("namespaces", e))?;
        if !spec.uid_mappings.is_empty() {
            self.show_maps(&spec);
        }
        let cgroup = Cgroup::root(&self.kernel, &spec.limits, cgroups);
        for (name, value) in &spec.sysctl {
            crate::procfs::sysctl::apply(&self.kernel, &ns, name, value)
                .map_err(|e| failed(&format!("linux.sysctl: {name:?}"), e))?;
        }
        let (fs, viewed) = mounts::build(
            &self.kernel,
            &spec,
            gofer,
            &mounts::Views { pids: &pid_ns, cgroup: &cgroup, ipc: &ns.ipc },
        )?;
        let freezer = Arc::default();
        let seccomp = spec.seccomp.as_ref().map(Filters::of_bundle);
        let prepared = process::prepare(&process::Plan {
            kernel: &self.kernel,
            id: &spec.id,
            spec: &spec.process,
            fs: &fs,
            ns: &ns,
            pid_ns: &pid_ns,
            freezer: &freezer,
            seccomp: seccomp.as_ref(),
            stdio,
            preserved,
            missing: process::MissingDirectory::Make,
        })?;
        let init = Arc::clone(&prepared.process);
        self.belongs(&init, &cgroup);
        let container = Container {
            init,
            prepared: Some(prepared),
            fs,
            ns,
            pid_ns,
            freezer,
            seccomp,
            cgroup,
            execs: BTreeMap::new(),
        };
        let views = viewed.into_iter().zip(views);
        let views = views.map(|(root, device)| View::new(&self.kernel, &container.fs, root, device));
        let views: Vec<Box<dyn FileView>> = views.map(|view| Box::new(view) as Box<dyn FileView>).collect();
        self.views.lock().extend(views);
        self.containers.lock().insert(spec.id, container);
        Ok(())
    }

    fn start(&self, id: &str) -> ControlResult<()> {
        let (prepared, seccomp) = self.with(id, |container| {
            let prepared = container.prepared.take().ok_or_else(|| {
                ControlError::new(ErrorKind::Invalid, format!("container {id:?} has been started before"))
            })?;
            Ok((prepared, container.seccomp.clone()))
        })?;
        self.start_filtered(prepared, seccomp.as_ref(), "the container's program")
    }

    fn views(&self) -> Vec<Box<dyn FileView>> {
        std::mem::take(&mut *self.views.lock())
    }

    fn settle(&self) {
        let refused = std::mem::take(&mut *self.refused.lock());
        refused.into_iter().for_each(process::Refused::end);
    }

    fn exec(&self, id: &str, process: ProcessSpec, donated: Donated) -> ControlResult<u32> {
        let (room, cgroup) = self.with(id, |container| {
            if has_ended(&container.init) {
                return Err(ControlError::not_running(id));
            }
            Ok((Room::of(container), Arc::clone(&container.cgroup)))
        })?;
        let refused = |errno: Errno| {
            let path = process.cgroup.as_deref().unwrap_or_default();
            let why = errno.text().to_lowercase();
            ControlError::new(ErrorKind::Failed, format!("error adding process to cgroup {path:?}: {why}"))
        };
        let group = process.cgroup.as_deref().map(|path| cgroup.below(path).map_err(refused)).transpose()?;
        look_afresh(&room.fs);
        let prepared = process::prepare(&process::Plan {
            kernel: &self.kernel,
            id,
            spec: &process,
            fs: &room.fs,
            ns: &room.ns,
            pid_ns: &room.pid_ns,
            freezer: &room.freezer,
            seccomp: room.seccomp.as_ref(),
            stdio: donated.stdio,
            preserved: donated.preserved,
            missing: process::MissingDirectory::Refuse,
        })?;
        let name = process.args.first().cloned().unwrap_or_default();
        let started = Arc::clone(&prepared.process);
        self.belongs(&started, &cgroup);
        let pid = started.pid.root();
        let entered = group.map_or(Ok(()), |group| group.enter(prepared.task()).map_err(refused));
        let known = entered.and_then(|()| {
            self.with(id, |container| {
                container.execs.retain(|_, exec| !exec.awaited || !has_ended(&exec.process));
                container.execs.insert(pid, Execed { process: started, awaited: false });
                Ok(())
            })
        });
        if let Err(error) = known {
            prepared.cancel(Signal::SIGKILL);
            return Err(error);
        }
        self.start_filtered(prepared, room.seccomp.as_ref(), &name)?;
        Ok(pid)
    }

    fn signal(&self, id: &str, target: SignalTarget, signal: u8) -> ControlResult<()> {
        let signal = Signal::new(u32::from(signal))
            .map_err(|_| ControlError::new(ErrorKind::Invalid, format!("signal {signal} does not exist")))?;
        let (init, started, execs) = self.with(id, |container| {
            let execs: Vec<_> = container.execs.values().map(|exec| Arc::clone(&exec.process)).collect();
            Ok((Arc::clone(&container.init), container.prepared.is_none(), execs))
        })?;
        let info = SigInfo::from_sender(signal, code::SI_USER, 0, 0);
        let deliver = |process: &Arc<Process>| {
            send::to_process(process, info, Force::Yes).map_err(|_| ControlError::not_running(id))
        };
        match target {
            SignalTarget::All => {
                let mut found = false;
                for process in report::members(&self.kernel, &init) {
                    found |= deliver(&process).is_ok();
                }
                if !found && !has_ended(&init) && !started {
                    return self.end_unstarted(id, signal);
                }
                if found { Ok(()) } else { Err(ControlError::not_running(id)) }
            }
            SignalTarget::Init if !started => self.end_unstarted(id, signal),
            SignalTarget::Init if has_ended(&init) => Err(ControlError::not_running(id)),
            SignalTarget::Init => deliver(&init),
            SignalTarget::Process(pid) => {
                // One that has ended and is forgotten is not there; it must not stand for another.
                let mut known = execs.iter().chain([&init]);
                let process = known.find(|process| process.pid.root() == pid && !has_ended(process));
                process.map_or(Err(ControlError::not_running(id)), deliver)
            }
            SignalTarget::Foreground(pid) => {
                let process = match pid {
                    Some(pid) => execs.iter().find(|process| process.pid.root() == pid),
                    None => Some(&init),
                };
                process.map_or(Err(ControlError::not_running(id)), deliver)
            }
        }
    }

    fn wait(&self, id: &str, pid: Option<u32>, notice: ExitNotice) -> ControlResult<()> {
        let process = self.with(id, |container| match pid {
            None => Ok(Arc::clone(&container.init)),
            Some(pid) => match container.execs.get_mut(&pid) {
                Some(exec) => {
                    exec.awaited = true;
                    Ok(Arc::clone(&exec.process))
                }
                None => Err(ControlError::new(
                    ErrorKind::NoSuchProcess,
                    format!("no process {pid} in container {id:?}"),
                )),
            },
        })?;
        when_ended(&process, notice);
        Ok(())
    }

    fn await_oom(&self, id: &str, known: u64, notice: OomNotice) -> ControlResult<()> {
        let cgroup = self.with(id, |container| Ok(Arc::clone(&container.cgroup)))?;
        cgroup.await_oom(&self.kernel, known, notice);
        Ok(())
    }

    fn status(&self, id: &str) -> ControlResult<ContainerStatus> {
        self.with(id, |container| {
            Ok(if has_ended(&container.init) {
                ContainerStatus::Stopped
            } else if container.freezer.is_frozen() {
                ContainerStatus::Paused
            } else if container.prepared.is_some() {
                ContainerStatus::Created
            } else {
                ContainerStatus::Running
            })
        })
    }

    fn processes(&self, id: &str) -> ControlResult<Vec<ProcessInfo>> {
        let init = self.with(id, |container| Ok(Arc::clone(&container.init)))?;
        Ok(report::processes(&self.kernel, &init))
    }

    fn proc_file(&self, id: &str, path: &str) -> ControlResult<Vec<u8>> {
        let view = self.with(id, |container| Ok(Arc::clone(&container.pid_ns)))?;
        let root = caller::KernelCaller::new(vfs::Credentials::root(Arc::clone(&self.kernel.root.user)));
        crate::procfs::show(&self.kernel, &view, path, &root.caller(0)).map_err(|e| failed(path, e))
    }

    fn stats(&self, id: &str) -> ControlResult<Stats> {
        let (init, cgroup) =
            self.with(id, |container| Ok((Arc::clone(&container.init), Arc::clone(&container.cgroup))))?;
        let (pids_max, memory_max, oom_kills) = cgroup.bounds();
        Ok(Stats { pids_max, memory_max, oom_kills, ..report::stats(&self.kernel, &init) })
    }

    fn update(&self, id: &str, limits: Limits) -> ControlResult<()> {
        let cgroup = self.with(id, |container| Ok(Arc::clone(&container.cgroup)))?;
        cgroup.update(&self.kernel, &limits).map_err(|usage| {
            let limit = limits.memory_max.unwrap_or_default();
            let words = format!("unable to set memory limit to {limit} (current usage: {usage})");
            ControlError::new(ErrorKind::Invalid, words)
        })
    }

    fn resized(&self, id: &str, pid: Option<u32>) -> ControlResult<()> {
        let leader = self.with(id, |container| Ok(pid.unwrap_or(container.init.pid.root())))?;
        if let Some(tty) = self.kernel.files.terminals.controlling(leader) {
            // The new size and SIGWINCH to the foreground group.
            tty.host_resized();
            return Ok(());
        }
        self.signal(id, SignalTarget::Foreground(pid), Signal::SIGWINCH.number())
    }

    fn delete(&self, id: &str) -> ControlResult<()> {
        let container = self.containers.lock().remove(id).ok_or_else(|| ControlError::no_container(id))?;
        if let Some(prepared) = container.prepared {
            prepared.cancel(Signal::SIGKILL);
            return Ok(());
        }
        let kill = SigInfo::kernel(Signal::SIGKILL);
        for process in report::members(&self.kernel, &container.init) {
            // Gone already is as good.
            let _ = send::to_process(&process, kill, Force::Yes);
        }
        Ok(())
    }

    fn pause(&self, id: &str) -> ControlResult<()> {
        let freezer = self.with(id, |container| {
            if has_ended(&container.init) {
                return Err(ControlError::not_running(id));
            }
            Ok(Arc::clone(&container.freezer))
        })?;
        freezer.freeze(&self.kernel).map_err(|restless| {
            let words = format!("container {id:?}: {restless} threads did not come to rest");
            ControlError::new(ErrorKind::Failed, words)
        })?;
        self.hold_timers();
        Ok(())
    }

    fn resume(&self, id: &str) -> ControlResult<()> {
        let (freezer, fs) =
            self.with(id, |container| Ok((Arc::clone(&container.freezer), container.fs.clone())))?;
        look_afresh(&fs);
        freezer.thaw(&self.kernel);
        self.hold_timers();
        Ok(())
    }

    fn trace(&self, on: Switch) -> ControlResult<()> {
        self.kernel.trace.switch(on);
        Ok(())
    }
}

impl Sandbox {
    /// The kernel counts in the container's ids (the gofer's side translates); /proc/self/uid_map shows what
    /// they are on the host.
    fn show_maps(&self, spec: &ContainerSpec) {
        let extent = |map: &IdMapping| IdExtent { inside: map.inside, kernel: map.outside, count: map.count };
        let mut maps = self.kernel.root.user.maps.lock();
        maps.uid = spec.uid_mappings.iter().map(extent).collect();
        maps.gid = spec.gid_mappings.iter().map(extent).collect();
    }
    /// While everything is paused no timer of the sandbox fires.
    fn hold_timers(&self) {
        let paused = self.containers.lock().values().all(|container| container.freezer.is_frozen());
        timers().hold(if paused { Hold::Held } else { Hold::Free });
    }
    /// A process that does not run yet is put into a container's group.
    fn belongs(&self, process: &Arc<Process>, cgroup: &Arc<Cgroup>) {
        *process.cgroup.lock() = Some(Arc::clone(cgroup));
        let mm = process.leader().and_then(|task| task.published.lock().mm.clone());
        if let Some(mm) = mm {
            cgroup.house(&self.kernel, &mm);
        }
    }
    /// A signal for a container that was created and not started: it ends it, unless that is not what the
    /// signal does by default (signal(7)).
    fn end_unstarted(&self, id: &str, signal: Signal) -> ControlResult<()> {
        const HARMLESS: [Signal; 8] = [
            Signal::SIGCHLD,
            Signal::SIGCONT,
            Signal::SIGSTOP,
            Signal::SIGTSTP,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
            Signal::SIGURG,
            Signal::SIGWINCH,
        ];
        if HARMLESS.contains(&signal) {
            return Ok(());
        }
        let prepared = self.with(id, |container| Ok(container.prepared.take()))?;
        if let Some(prepared) = prepared {
            prepared.cancel(signal);
        }
        Ok(())
    }
}
