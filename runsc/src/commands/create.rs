//! `create`, and what `run` shares with it.

mod behind;

use crate::cgroup::{Membership, Witness};
use crate::cli::{Create, Global};
use crate::container::state::OCI_VERSION;
use crate::container::store::Wait;
use crate::container::{Held, Note, ProcessRef, Record, Status, Store};
use crate::error::{Doing, Failure, Outcome};
use crate::log;
use crate::sandbox::launch::{Descriptors, Doors, Entry, Launched, connect, listen, member, pair, sandbox};
use crate::sandbox::monitor::kill_and_reap;
use crate::sandbox::stdio::{Prepared, Presence, listening, prepare, preserved};
use crate::sandbox::{hooks, network, scores};
use crate::spec::pod::Place;
use crate::spec::{Plan, load, plan};
use ::sentry::control::message::{Ask, receive};
use ::sentry::control::spec::NamespaceKind;
use behind::{AGREED, Report, UNDONE, start_monitor};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A container that has a directory and a plan, and no processes yet.
pub(super) struct Begun {
    pub(super) store: Store,
    pub(super) held: Held,
    pub(super) plan: Plan,
    pub(super) prepared: Prepared,
    cgroup: Option<Membership>,
    entry: Option<Entry>,
    socket: PathBuf,
    sandbox_record: Option<Record>,
}

/// Checks everything that can be checked, then makes the container's directory and cgroup.
pub(super) fn begin(global: &Global, args: &Create, presence: Presence) -> Outcome<Begun> {
    let sockets = listening();
    let passed = args.preserve_fds.saturating_add(sockets);
    let descriptors = preserved(passed)?;
    let bundle = load(args.bundle.as_deref())?;
    let mut plan = plan(global, &args.id, &bundle, passed)
        .map_err(|failure| failure.within(bundle.path.join("config.json").display()))?;
    if sockets > 0 {
        let env = &mut plan.container.process.env;
        env.extend([format!("LISTEN_FDS={sockets}"), "LISTEN_PID=1".to_owned()]);
    }
    begin_plan(global, plan, args.console_socket.as_deref(), descriptors, presence)
}

/// The same for a plan that is there.
pub(super) fn begin_plan(
    global: &Global,
    plan: Plan,
    console_socket: Option<&Path>,
    preserved: Vec<OwnedFd>,
    presence: Presence,
) -> Outcome<Begun> {
    let store = Store::open(global)?;
    let id = plan.container.id.clone();
    let sandbox_record = match &plan.place {
        Place::Root => None,
        Place::Member(sandbox) => {
            let record = store.peek(sandbox).map_err(|failure| failure.within("the pod's sandbox"))?;
            if record.status() == Status::Stopped {
                return Err(Failure::new(format!("the pod's sandbox {sandbox:?}: container not running")));
            }
            Some(record)
        }
    };
    let held = store.create(&id)?;
    let mut plan = plan;
    let made = (|| {
        let mut prepared = prepare(&plan.process, console_socket, preserved, presence)?;
        let cgroup = Membership::create(global, &plan, |cgroup| {
            held.note(&Note { cgroup: cgroup.clone(), monitor: None })
        })?;
        if let Some(cgroup) = cgroup.as_ref().filter(|_| plan.is_pod() || plan.place != Place::Root) {
            prepared.descriptors.cgroups = cgroup.doors()?;
            plan.container.cgroup_files = u32::try_from(prepared.descriptors.cgroups.len()).unwrap_or(0);
        }
        let (socket, entry) = match &sandbox_record {
            Some(record) => {
                let socket = store.socket(&record.sandbox);
                let reach = match plan.container.namespaces.net {
                    NamespaceKind::Private => network::reach(global, &plan)?,
                    NamespaceKind::Sandbox => None,
                };
                (socket.clone(), Entry::Beside { socket, reach })
            }
            None => {
                let socket = store.socket(&id);
                let last_words = match presence {
                    Presence::Attached => Some(own_error()?),
                    Presence::Detached => None,
                };
                let reach = network::reach(global, &plan)?;
                let listener = listen(&socket)?;
                let doors = Doors { listener, log: debug_log(global, presence)?, last_words, reach };
                (socket, Entry::New(doors))
            }
        };
        Ok((prepared, cgroup, socket, entry))
    })();
    match made {
        Ok((prepared, cgroup, socket, entry)) => {
            let entry = Some(entry);
            Ok(Begun { store, held, plan, prepared, cgroup, entry, socket, sandbox_record })
        }
        Err(failure) => {
            // What was made of the cgroups is noted; nobody is in them yet.
            let _ = held.clear_away();
            let _ = held.remove();
            Err(failure)
        }
    }
}

/// `--debug-log`; a trace that nobody gave a file goes to the standard error of an attached command.
fn debug_log(global: &Global, presence: Presence) -> Outcome<Option<OwnedFd>> {
    if let Some(path) = &global.debug_log {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        return Ok(Some(file.doing(|| format!("--debug-log {}", path.display()))?.into()));
    }
    if (global.strace || global.debug) && presence == Presence::Attached {
        return own_error().map(Some);
    }
    Ok(None)
}

fn own_error() -> Outcome<OwnedFd> {
    std::io::stderr().as_fd().try_clone_to_owned().doing(|| "standard error")
}

/// Starts the processes in this process, which is or will be the monitor.
pub(super) fn launch(
    global: &Global,
    plan: &Plan,
    descriptors: Descriptors,
    entry: Option<Entry>,
) -> Outcome<Launched> {
    match entry.ok_or_else(|| Failure::new("the container was started before"))? {
        Entry::New(doors) => sandbox(global, plan, descriptors, doors),
        Entry::Beside { socket, reach } => member(plan, &descriptors, &socket, reach.as_ref()),
    }
}

impl Begun {
    /// Takes what [`launch`] needs.
    pub(super) fn take_launch(&mut self) -> (Descriptors, Option<Entry>) {
        (std::mem::take(&mut self.prepared.descriptors), self.entry.take())
    }

    /// Puts this process, and those it will make, into the container's cgroup.
    pub(super) fn join_cgroup(&self) -> Outcome<()> {
        self.cgroup.as_ref().map_or(Ok(()), Membership::join)
    }

    /// `process.oomScoreAdj` for this process and those it will make.
    pub(super) fn set_scores(&self) {
        scores::set_own(self.plan.process.oom_score_adj());
        scores::adapt_sandbox(&self.plan, self.sandbox_record.as_ref());
    }

    /// What tells the host of memory that ran out.
    pub(super) fn witness(&self) -> Option<Witness> {
        self.cgroup.as_ref().and_then(Membership::witness)
    }

    /// The record, once the processes are there.
    pub(super) fn record(
        &self,
        monitor: Option<ProcessRef>,
        sentry: Option<ProcessRef>,
        gofer: Option<ProcessRef>,
        last: Status,
    ) -> Record {
        let sandbox = self.sandbox_record.as_ref();
        Record {
            oci_version: OCI_VERSION.to_owned(),
            id: self.plan.container.id.clone(),
            sandbox: sandbox.map_or_else(|| self.plan.container.id.clone(), |record| record.sandbox.clone()),
            bundle: self.plan.bundle.clone(),
            rootfs: self.plan.rootfs(),
            created: log::rfc3339(SystemTime::now()),
            owner: rustix::process::geteuid().as_raw(),
            last,
            monitor,
            sentry: sentry.or_else(|| sandbox.and_then(|record| record.sentry)),
            gofer,
            annotations: self.plan.annotations.clone(),
            process: self.plan.process.clone(),
            cgroup: self.cgroup.clone(),
            resources: self.plan.resources.clone(),
            hooks: self.plan.hooks.clone(),
        }
    }

    /// Removes what [`begin`] made.
    pub(super) fn undo(self) {
        self.forget();
        if let Some(cgroup) = &self.cgroup {
            cgroup.leave();
            let _ = cgroup.remove();
        }
        let _ = self.held.remove();
    }

    /// Has the pod's sandbox forget the container.
    fn forget(&self) {
        if let (Place::Member(_), Ok(mut client)) = (&self.plan.place, connect(&self.socket)) {
            let _ = client.order(Ask::Delete { container: self.plan.container.id.clone() });
        }
    }

    /// Removes what [`begin`] made if the process that held it was killed: the monitor is all that knows of it then.
    fn undo_abandoned(&self) {
        self.forget();
        if let Some(cgroup) = &self.cgroup {
            cgroup.leave();
        }
        self.store.abandon(&self.plan.container.id, Wait::Yes);
    }

    /// Runs the hooks of creation.
    pub(super) fn creation_hooks(&self, record: &Record) -> Outcome<()> {
        let Some(list) = &self.plan.hooks else { return Ok(()) };
        hooks::run("prestart", list.prestart().as_ref(), record, Status::Creating)?;
        hooks::run("createRuntime", list.create_runtime().as_ref(), record, Status::Creating)?;
        hooks::run_in_container(list.create_container().as_ref(), record)
    }
}

/// Writes a pid-file: to a temporary name first, so that a reader never sees half of it.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Outcome<()> {
    let what = || format!("--pid-file {}", path.display());
    let name = path.file_name().ok_or_else(|| Failure::new(what()))?.to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}"));
    std::fs::write(&temporary, pid.to_string()).doing(what)?;
    std::fs::rename(&temporary, path).doing(what)
}

/// runc's `create` and `run` fail with 1, whatever the reason; callers read the words.
pub(super) fn plainly(failure: Failure) -> Failure {
    Failure { code: 1, ..failure }
}

/// `create`.
pub(super) fn create(global: &Global, args: &Create) -> Outcome<u8> {
    let (held, _) = create_detached(global, args).map_err(plainly)?;
    drop(held);
    Ok(0)
}

/// Creates a container behind a monitor of its own; returns its lock and record.
pub(super) fn create_detached(global: &Global, args: &Create) -> Outcome<(Held, Record)> {
    let mut begun = begin(global, args, Presence::Detached)?;
    match create_begun(global, args, &mut begun) {
        Ok(record) => Ok((begun.held, record)),
        Err(failure) => {
            let record = begun.held.read().ok().flatten();
            begun.undo();
            if let Some(record) = record {
                super::run::poststop(global, &record);
            }
            Err(failure)
        }
    }
}

fn create_begun(global: &Global, args: &Create, begun: &mut Begun) -> Outcome<Record> {
    let (report, monitor_report) = pair()?;
    let monitor = start_monitor(global, begun, monitor_report)?;
    let outcome = (|| {
        let cgroup = begun.cgroup.clone().unwrap_or_default();
        begun.held.note(&Note { cgroup, monitor: ProcessRef::of(monitor.pid) })?;
        let gone = || Failure::new("the monitor ended before the container was created");
        let (told, _) = receive::<Report>(report.as_fd()).doing(|| "monitor")?.ok_or_else(gone)?;
        if let Some((message, code)) = told.failure {
            return Err(Failure { message, code });
        }
        let reference = ProcessRef::of(monitor.pid).ok_or_else(gone)?;
        let mut record = begun.record(Some(reference), told.sentry, told.gofer, Status::Creating);
        if begun.plan.hooks.is_some() {
            begun.held.write(&record)?;
            begun.creation_hooks(&record)?;
        }
        begun.held.mark(&mut record, Status::Created)?;
        if let Some(path) = &args.pid_file {
            write_pid_file(path, monitor.pid)?;
        }
        rustix::net::send(&report, &[AGREED], rustix::net::SendFlags::NOSIGNAL).doing(|| "monitor")?;
        Ok(record)
    })();
    if outcome.is_err() {
        // Then the monitor takes its processes down; its end is waited for.
        let _ = rustix::net::send(&report, &[UNDONE], rustix::net::SendFlags::NOSIGNAL);
        drop(report);
        let pid = rustix::process::Pid::from_raw(monitor.pid);
        if rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).is_err() {
            kill_and_reap(&monitor);
        }
    }
    outcome
}
